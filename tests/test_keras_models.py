"""What Keras models say beside options: how layers are called, what is trained, in which type, whose code it is."""

from __future__ import annotations

import numpy as np
import pytest
import random_models
from test_keras_options import distance, outputs

import gatewise as gw
from gatewise.errors import UnsupportedModelError

STEPS, FEATURES = 4, 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def ported(model, rng, arrays=None):
    """Fill a model, port it, compare the outputs, and return the port."""
    random_models.fill(model, rng)
    module = gw.port(model, to="torch")
    arrays = arrays or [rng.normal(size=(3, *source.shape[1:])).astype(source.dtype) for source in model.inputs]
    assert distance(outputs(model, arrays), outputs(module, arrays)) <= 1e-5
    return module


# ── own code ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["call", "__call__"])
@pytest.mark.parametrize("kind", ["Model", "Sequential", "within"])
def test_code_around_a_graph_is_refused(keras, rng, kind, name):
    base = keras.Sequential if kind == "Sequential" else keras.Model

    def twice(self, *arguments, **options):
        return 2 * getattr(base, name)(self, *arguments, **options)

    mine = type("Mine", (base,), {name: twice})
    source = keras.Input((STEPS, FEATURES))
    layer = keras.layers.LSTM(2)
    model = mine([source, layer]) if kind == "Sequential" else mine(source, layer(source))
    model = keras.Model(source, model(source)) if kind == "within" else model
    with pytest.raises(UnsupportedModelError, match=rf"is a Mine, whose {name} is code of its own(.|\n)*keras\.ops"):
        gw.port(model, to="torch")


def test_a_subclass_that_only_trains_otherwise_is_ported(keras, rng):
    mine = type("Mine", (keras.Model,), {"train_step": lambda self, data: {}})
    source = keras.Input((STEPS, FEATURES))
    ported(mine(source, keras.layers.LSTM(2)(source)), rng)


@pytest.mark.parametrize("factor", [2.0, 1.001])
def test_an_object_that_does_something_else_than_it_says_fails(keras, rng, factor):
    """A copy that is built from its description computes the rest, and the difference is no rounding."""
    source = keras.Input((STEPS, FEATURES))
    model = random_models.fill(keras.Model(source, keras.layers.LSTM(2)(source)), rng)
    module = gw.port(model, to="torch")
    assert gw.verify(model, module).passed
    call = model.call
    model.call = lambda *arguments, **options: factor * call(*arguments, **options)
    assert gw.verify(model, module, inputs=rng.normal(size=(3, STEPS, FEATURES)).astype("float32")).verdict == "failed"


def test_a_name_that_states_have_is_a_name(keras, rng):
    source = keras.Input((STEPS, FEATURES))
    for name in ("h_n", "c_n"):
        ported(keras.Model(source, keras.layers.LSTM(2, name=name)(source)), rng)
        ported(keras.Model(source, keras.layers.LSTM(2, return_sequences=True, name=name)(source)), rng)


# ── how layers are called ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_masks_and_states_by_position(keras, torch, rng, kind):
    source, mask = keras.Input((STEPS, FEATURES)), keras.Input((STEPS,), dtype="bool")
    states = [keras.Input((2,)) for _ in range(2 if kind == "LSTM" else 1)]
    layer, other = (getattr(keras.layers, kind)(2) for _ in range(2))
    model = keras.Model([source, mask, *states], [layer(source, None, mask), other(source, states, mask)])
    given = [rng.normal(size=(3, STEPS, FEATURES)), rng.random((3, STEPS)) < 0.6, *rng.normal(size=(len(states), 3, 2))]
    ported(model, rng, [array if array.dtype == bool else array.astype("float32") for array in given])


@pytest.mark.parametrize("dtype", [None, "bool", "int32"])
@pytest.mark.parametrize("steps", [None, STEPS])
def test_a_mask_that_is_an_input_is_as_long_as_what_it_masks(keras, rng, dtype, steps):
    source, mask = keras.Input((steps, 1)), keras.Input((steps,), dtype=dtype)
    model = random_models.fill(keras.Model([source, mask], keras.layers.GRU(2)(source, mask=mask)), rng)
    assert gw.verify(model, gw.port(model, to="torch")).passed


def test_a_mask_of_something_that_has_a_length_of_its_own(keras, rng):
    layers, mask = keras.layers, keras.Input((2,), dtype="bool")
    source = keras.Input((None, 2))
    repeated = layers.RepeatVector(2)(layers.LSTM(3)(source))
    model = random_models.fill(keras.Model([source, mask], layers.GRU(2)(repeated, mask=mask)), rng)
    assert gw.verify(model, gw.port(model, to="torch")).passed


def test_first_states_of_unlike_directions_are_refused(keras):
    layers = keras.layers
    source, *states = keras.Input((STEPS, FEATURES)), *map(keras.Input, [(1,), (2,), (2,)])
    stack = layers.RNN([layers.GRUCell(1), layers.SimpleRNNCell(2)])
    both = layers.Bidirectional(stack, backward_layer=layers.GRU(2, go_backwards=True), merge_mode="mul")
    model = keras.Model([source, *states], both(source, initial_state=[states[:1], states[1:2], states[2]]))
    with pytest.raises(UnsupportedModelError, match=r"initial_state(.|\n)*2 and 1 states(.|\n)*two layers"):
        gw.port(model, to="torch")


def test_states_within_time_distributed_are_refused(keras):
    """Keras gives (outputs, batch, …), stacked; and cannot put such a layer into a model."""
    layer = keras.layers.TimeDistributed(keras.layers.GRU(3, return_state=True))
    layer(np.ones((2, 2, STEPS, FEATURES), np.float32))
    with pytest.raises(
        UnsupportedModelError, match=r"return_state=True(.|\n)*stacks the output(.|\n)*return_state=False"
    ):
        gw.port(layer, to="torch")


@pytest.mark.parametrize("zeroes", [(False, False), (True, True), (False, True)])
def test_what_was_set_on_the_directions_counts(keras, rng, zeroes):
    layers = keras.layers
    both = layers.Bidirectional(layers.LSTM(2, return_sequences=True))
    both.forward_layer.zero_output_for_mask, both.backward_layer.zero_output_for_mask = zeroes
    source = keras.Input((STEPS, FEATURES))
    model = keras.Model(source, both(layers.Masking()(source)))
    given = rng.normal(size=(3, STEPS, FEATURES)).astype("float32")
    given[0, 2:] = given[1, 1] = 0
    module = ported(model, rng, [given])
    assert gw.verify(model, module).passed
    assert distance(outputs(model, [given]), outputs(gw.port(module, to="keras"), [given])) <= 1e-5


def test_activations_that_are_layers_or_tensorflow_s(keras, rng):
    import tensorflow as tf

    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    for function, name in (
        (layers.Activation("tanh"), "tanh"),
        (layers.Activation(layers.LeakyReLU(0.1)), "leaky_relu(0.1)"),
        (layers.Softmax(), "softmax"),
        (tf.nn.softmax, "softmax"),
    ):
        model = keras.Model(source, layers.GRU(2, activation=function)(source))
        assert ported(model, rng).network.layers[-1].spec.activation == name
    with pytest.raises(UnsupportedModelError, match="activation"):
        gw.port(keras.Model(source, layers.GRU(2, activation=layers.Softmax(axis=0))(source)), to="torch")


# ── types of numbers ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("last", ["Dense", "GRU", "relu", "LSTM"])
def test_data_of_another_type_are_cast_as_keras_casts_them(keras, torch, rng, last):
    layers, source = keras.layers, keras.Input((STEPS, FEATURES), dtype="float64")
    make = {"relu": lambda: layers.GRU(2, activation="relu")}.get(last, lambda: getattr(layers, last)(2))
    model = keras.Model(source, make()(source))
    module = ported(model, rng)
    given = torch.tensor(rng.normal(size=(3, STEPS, FEATURES)))
    assert module(given).dtype == torch.float32
    assert module(given.half()).dtype == torch.float32
    assert module.double()(given.float()).dtype == torch.float64


@pytest.mark.parametrize("activation", ["leaky_relu", "gelu"])
def test_constants_of_few_digits_are_no_mistake_in_float32(keras, activation):
    """TensorFlow's are of float32. Weights that hardly count make verify look in float64, where that shows."""
    for seed in range(3):
        rng, source = np.random.default_rng(seed), keras.Input((6, FEATURES))
        model = keras.Model(
            source, keras.layers.LSTM(2, name="lstm")(keras.layers.Dense(2, activation=activation)(source))
        )
        for weight in model.weights:
            weight.assign(rng.normal(size=weight.shape) * (0.02 if "recurrent" in weight.path else 0.6))
        module = gw.port(model, to="torch")
        assert gw.verify(model, module).passed
        with_mistake = gw.port(model, to="torch")
        kernel = with_mistake.get_parameter("lstm.weight_hh_l0").data
        kernel[:4] = kernel[:4].flip(0)
        assert gw.verify(model, with_mistake).verdict == "failed"


# ── what is trained ─────────────────────────────────────────────────────────────────────────────────────────────


def frozen_backward(layers):
    both = layers.Bidirectional(layers.LSTM(2))
    both.backward_layer.trainable = False
    return both


def frozen_bias(layers):
    layer = layers.LSTM(2)
    layer.build((None, STEPS, FEATURES))
    layer.cell.bias.trainable = False
    return layer


FROZEN = {
    "layer": lambda layers: layers.LSTM(2, trainable=False),
    "bias": frozen_bias,
    "Bidirectional": lambda layers: layers.Bidirectional(layers.LSTM(2), trainable=False),
    "within Bidirectional": lambda layers: layers.Bidirectional(layers.LSTM(2, trainable=False)),
    "backward": frozen_backward,
    "RNN": lambda layers: layers.RNN(layers.LSTMCell(2), trainable=False),
    "cell": lambda layers: layers.RNN(layers.LSTMCell(2, trainable=False)),
    "stack": lambda layers: layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)], trainable=False),
    "one cell of a stack": lambda layers: layers.RNN([layers.GRUCell(2, trainable=False), layers.LSTMCell(2)]),
}


def trained(module):
    """Return how many tensors of Keras's the trained parameters of a port are: its second biases are none."""
    second = [name for name, weight in module.named_parameters() if "bias_hh" in name and not weight.any()]
    return sum(weight.requires_grad and name not in second for name, weight in module.named_parameters())


@pytest.mark.parametrize(
    ("name", "alone"), [*((name, False) for name in FROZEN), ("layer", True), ("Bidirectional", True), ("stack", True)]
)
def test_what_is_frozen(keras, rng, name, alone):
    """Keras asks variables, and the flag of the whole; wrappers do not hand theirs on when they are built."""
    source = keras.Input((STEPS, FEATURES))
    layer = FROZEN[name](keras.layers)
    model = keras.Model(source, layer(source))
    random_models.fill(model, rng)
    obj = layer if alone else model
    module = gw.port(obj, to="torch")
    # A GRU that resets behind its product has two biases in one variable of Keras's.
    double = sum(
        weight.shape[:1] == (2,) and len(weight.shape) == 2 for weight in obj.trainable_weights if "bias" in weight.path
    )
    assert trained(module) == len(obj.trainable_weights) + double
    assert gw.verify(obj, module, gradients=True, training_steps=2).passed
    back = gw.port(module, to="keras")
    assert len(back.trainable_weights) == len(obj.trainable_weights)
