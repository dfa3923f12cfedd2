"""Every argument of Keras's recurrent layers: carried with the same effect, refused by name, or without one."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
from gatewise_keras.arguments import ARGUMENTS, CLASSES
from gatewise_keras.layouts import LIMITS
from gatewise_keras.reading import JOINS

import gatewise as gw
from gatewise.arrays.network import unstacked, walk
from gatewise.core.spec import ACTIVATIONS
from gatewise.errors import GatewiseError, ImpossiblePlanError, ShapeError, UnsupportedModelError
from gatewise.parity.subject import side
from gatewise.parity.units import units
from gatewise.registry import owner

COMPUTED = [name for name in ACTIVATIONS if name not in ("threshold", "glu", "hard_sigmoid_02")]
CELLS = ("LSTM", "GRU", "SimpleRNN")
MERGES = ("concat", "sum", "mul", "ave", None)


def fill(model, rng, scale=0.6):
    """Give every weight a normal value, so that no bias is zero and no gate is like another."""
    for weight in model.weights:
        weight.assign(rng.normal(0, scale, weight.shape).astype(weight.dtype))
    return model


def chance(rng, probability):
    return bool(rng.random() < probability)


def pick(rng, choices):
    return choices[int(rng.integers(len(choices)))]


def outputs(obj, arrays):
    """Return all outputs of a Keras or torch object, from the first states."""
    _, adapter = owner(obj)
    with np.errstate(all="ignore"):
        return adapter.call(obj, arrays)


def distance(ours, theirs):
    """Return the largest difference over the largest output (at least 1); infinite where only one is finite."""
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    worst = 0.0
    for mine, yours in zip(ours, theirs, strict=True):
        finite = np.isfinite(mine)
        if (finite != np.isfinite(yours)).any():
            return float("inf")
        if finite.any():
            apart = np.abs(mine[finite].astype(np.float64) - yours[finite].astype(np.float64)).max()
            worst = max(worst, float(apart) / max(1.0, float(np.abs(mine[finite]).max())))
    return worst


def double(model):
    """Return the tolerance of float64.

    TensorFlow's own constants of gelu and leaky_relu are of float32, and its squareplus loses digits below zero.
    """
    return 1e-5 if any(name in str(model.get_config()) for name in ("gelu", "leaky_relu", "squareplus")) else 1e-10


def assert_ported(model, arrays, dtype):
    """Port a Keras model and compare every output and state; in float64 where float32 cannot decide."""
    module = gw.port(model, to="torch")
    ours, theirs = outputs(model, arrays), outputs(module, arrays)
    if dtype == "float64":
        assert distance(ours, theirs) <= double(model)
        return module
    exact = outputs(gw.port(model, to="torch", dtype="float64"), arrays)
    noise = max(distance(exact, ours), distance(exact, theirs))
    if noise <= 1e-3:
        assert distance(ours, theirs) <= max(1e-5, 20 * noise)
        assert all(array.dtype == np.float32 for array in theirs)
    return module


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────

HIDDEN = {"zero_output_for_mask", "implementation"}
"""Arguments that some classes take without naming them."""


def named_arguments(keras):
    found = set(HIDDEN)
    for name in CLASSES:
        kind = getattr(keras.layers, name)
        for function in (kind.__init__, kind.call, keras.layers.Layer.__init__):
            for parameter in inspect.signature(function).parameters.values():
                if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) and parameter.name != "self":
                    found.add(parameter.name)
    return found


def test_the_table_has_every_argument_of_keras_and_no_other(keras):
    assert named_arguments(keras) == set(ARGUMENTS)


def test_the_table_can_be_read():
    hows = {"carried", "training", "remark", "no effect", "refused"}
    assert {argument.how for argument in ARGUMENTS.values()} == hows
    assert all(argument.text.endswith(".") for argument in ARGUMENTS.values())
    assert {limit.whose for limit in LIMITS} == {"ours", "theirs", "impossible"}
    assert all(limit.why.endswith(".") for limit in LIMITS)


# ── each argument by itself ─────────────────────────────────────────────────────────────────────────────────────

STEPS, FEATURES = 5, 3


def one_layer(keras, make, *, masked=False, batch=None):
    source = keras.Input((STEPS, FEATURES), batch_size=batch)
    x = keras.layers.Masking()(source) if masked else source
    return keras.Model(source, keras.tree.flatten(make(x)))


def recurrent(kind="LSTM", masked=False, batch=None, **options):
    """Return a builder of a model of one recurrent layer, from one option's value."""

    def build(keras, option, value):
        layer = getattr(keras.layers, kind)(4, **{"return_sequences": True, **options, option: value})
        return one_layer(keras, layer, masked=masked, batch=batch)

    return build


def bidirectional(keras, option, value):
    return one_layer(keras, keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True), **{option: value}))


def wrapped(keras, option, value):
    cells = {"LSTM": keras.layers.LSTMCell, "GRU": keras.layers.GRUCell}
    made = [cells[name](4) for name in value] if isinstance(value, tuple) else cells[value](4)
    return one_layer(keras, keras.layers.RNN(made, return_state=True))


def backward(keras, option, value):
    given = {"backward_layer": keras.layers.LSTM(4, return_sequences=True)} if value else {}
    layer = keras.layers.LSTM(4, return_sequences=True, go_backwards=value)
    return one_layer(keras, keras.layers.Bidirectional(layer, **given))


def started(keras, option, value):
    source, state = keras.Input((STEPS, FEATURES)), keras.Input((4,))
    given = {"initial_state": [state, state]} if value else {}
    first = keras.layers.Dense(4, name="state")(state)
    return keras.Model([source, state], [keras.layers.LSTM(4)(source, **given), first])


def embedded(keras, option, value):
    options = {"input_dim": 9, "output_dim": 3, option: value}
    source = keras.Input((STEPS,), dtype="int32")
    return keras.Model(source, keras.layers.GRU(4)(keras.layers.Embedding(**options)(source)))


def masking(keras, option, value):
    source = keras.Input((STEPS, FEATURES))
    return keras.Model(source, keras.layers.LSTM(4)(keras.layers.Masking(value)(source)))


def masks_or_not(keras, option, value):
    return one_layer(keras, keras.layers.LSTM(4), masked=value)


def distributed(keras, option, value):
    inner = keras.layers.LSTM(4, return_sequences=value == "sequences")
    source = keras.Input((2, STEPS, FEATURES))
    return keras.Model(source, keras.layers.TimeDistributed(inner)(source))


EFFECTS = {
    "units": (lambda keras, option, value: one_layer(keras, keras.layers.LSTM(value)), 4, 5),
    "activation": (recurrent(), "tanh", "softsign"),
    "recurrent_activation": (recurrent("GRU"), "sigmoid", "hard_sigmoid"),
    "use_bias": (recurrent("SimpleRNN"), True, False),
    "reset_after": (recurrent("GRU"), True, False),
    "input_dim": (embedded, 9, 12),
    "output_dim": (embedded, 3, 2),
    "weights": (lambda keras, option, value: one_layer(keras, keras.layers.LSTM(4, name=f"w{value}")), 1, 2),
    "return_sequences": (recurrent(return_state=True), True, False),
    "return_state": (recurrent(), True, False),
    "go_backwards": (recurrent(), True, False),
    "stateful": (recurrent(batch=3), True, False),
    "zero_output_for_mask": (recurrent(masked=True), True, False),
    "initial_state": (started, True, False),
    "states": (started, True, False),
    "mask": (masks_or_not, True, False),
    "layer": (distributed, "sequences", "last"),
    "backward_layer": (backward, True, False),
    "merge_mode": (bidirectional, "sum", "mul"),
    "cell": (wrapped, "LSTM", "GRU"),
    "cells": (wrapped, ("LSTM", "GRU"), ("GRU",)),
    "mask_value": (masking, 0.0, 2.0),
    "mask_zero": (embedded, True, False),
}
PLAIN = {"sequences", "sequence", "inputs", "name", "dtype"}
"""What every port shows: the input, the type of the numbers, the names."""


def some_inputs(model, rng, dtype="float32"):
    arrays = []
    for source in model.inputs:
        shape = tuple(3 if size is None else size for size in source.shape)
        if "int" in source.dtype:
            arrays.append(rng.integers(0, 3, shape).astype("int32"))
            continue
        if source.dtype == "bool":
            arrays.append(rng.random(shape) < 0.7)
            continue
        array = rng.normal(size=shape).astype(dtype)
        if len(shape) > 2:
            array[0, ..., -2:, :] = 0.0
            array[1, ..., 1, :] = 2.0
        arrays.append(array)
    return arrays


def test_every_carried_argument_has_an_effect_that_is_tested():
    assert {name for name, argument in ARGUMENTS.items() if argument.how == "carried"} == set(EFFECTS) | PLAIN


@pytest.mark.parametrize("argument", EFFECTS)
def test_effect(keras, torch, argument):
    build, *values = EFFECTS[argument]
    seen = []
    for number, value in enumerate(values):
        model = fill(build(keras, argument, value), np.random.default_rng(number if argument == "weights" else 0))
        arrays = some_inputs(model, np.random.default_rng(1))
        module = assert_ported(model, arrays, "float32")
        if argument == "stateful":  # the first batch is the same; the second is not
            model(arrays[0])
            with torch.no_grad():
                module(torch.tensor(arrays[0]))
                again = module(torch.tensor(arrays[0]))
            np.testing.assert_allclose(again.numpy(), np.asarray(model(arrays[0])), atol=1e-6)
            seen.append([again.numpy()])
        else:
            seen.append(outputs(module, arrays))
    one, other = seen
    shapes = [[array.shape for array in each] for each in seen]
    assert shapes[0] != shapes[1] or distance(one, other) > 1e-3


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("unroll", (True, False)),
        ("use_cudnn", (False, "auto")),
        ("implementation", (1, 2)),
        ("seed", (1, 2)),
        ("autocast", (True, False)),
        ("trainable", (True, False)),
        ("unit_forget_bias", (True, False)),
        ("kernel_initializer", ("ones", "zeros")),
        ("recurrent_initializer", ("ones", "zeros")),
        ("bias_initializer", ("ones", "zeros")),
        ("dropout", (0.0, 0.5)),
        ("recurrent_dropout", (0.0, 0.5)),
        ("kernel_regularizer", (None, "l2")),
        ("kernel_constraint", (None, "non_neg")),
        ("activity_regularizer", (None, "l2")),
    ],
)
def test_without_effect_on_the_outputs(keras, torch, argument, values):
    if argument not in ("trainable",):
        assert ARGUMENTS[argument].how in ("no effect", "training", "remark")
    seen = []
    for value in values:
        model = one_layer(keras, keras.layers.LSTM(4, return_sequences=True, **{argument: value}))
        weights = np.random.default_rng(0)
        model.set_weights([weights.normal(size=each.shape).astype("float32") for each in model.get_weights()])
        seen.append(
            outputs(assert_ported(model, arrays := some_inputs(model, np.random.default_rng(1)), "float32"), arrays)
        )
    assert all(distance(seen[0], each) < 1e-6 for each in seen)


def test_frozen_stays_frozen(keras, torch):
    model = one_layer(keras, keras.layers.LSTM(4, trainable=False))
    assert not any(parameter.requires_grad for parameter in gw.port(model, to="torch").parameters())


# ── refused by name ─────────────────────────────────────────────────────────────────────────────────────────────


def mine(x):
    return x * 2.0


def custom_cell(keras):
    class Cell(keras.layers.SimpleRNNCell):
        pass

    return keras.layers.RNN(Cell(4))


def stack(keras, **options):
    return keras.layers.RNN([keras.layers.LSTMCell(4), keras.layers.LSTMCell(4)], **options)


def other_states(keras):
    forward = keras.layers.LSTM(4, return_state=True)
    backward = keras.layers.GRU(4, return_state=True, go_backwards=True)
    return one_layer(keras, lambda x: keras.layers.Bidirectional(forward, backward_layer=backward)(x)[0])


def constant_state(keras, batch=None, kind="GRU", masked=False):
    source, layers = keras.Input((STEPS, FEATURES), batch_size=batch), keras.layers
    states = [np.random.default_rng(number).normal(size=(3, 4)).astype("float32") for number in range(2)]
    layer = getattr(layers, kind)(4)
    return keras.Model(
        source,
        layer((layers.Masking()(source) if masked else source), initial_state=states if kind == "LSTM" else states[0]),
    )


REFUSED = {
    "callable": (lambda keras: keras.layers.LSTM(4, activation=mine), ("activation='mine'", "by name")),
    "lambda": (
        lambda keras: keras.layers.LSTM(4, recurrent_activation=lambda x: x),
        ("recurrent_activation", "<lambda>"),
    ),
    "cell": (custom_cell, ("cell='Cell'", "LSTMCell, GRUCell")),
    "stateful stack": (lambda keras: stack(keras, stateful=True), ("stateful=True", "reset")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(keras, case):
    make, words = REFUSED[case]
    model = one_layer(keras, make(keras), batch=2 if "stateful" in case else None)
    with pytest.raises(UnsupportedModelError) as met:
        gw.port(model, to="torch")
    assert met.value.hint
    for word in words:
        assert word in str(met.value)
    assert model.layers[-1].name in str(met.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (other_states, ("return_state=True", "2 and 1 states")),
        (constant_state, ("a constant", "one size of the batch")),
    ],
)
def test_models_refused_by_name(keras, make, words):
    with pytest.raises(UnsupportedModelError) as met:
        gw.port(make(keras), to="torch")
    for word in words:
        assert word in str(met.value)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_constant_first_states(keras, torch, tmp_path, kind, masked):
    model = fill(constant_state(keras, 3, kind, masked), np.random.default_rng(0))
    arrays = some_inputs(model, np.random.default_rng(1))
    module = assert_ported(model, arrays, "float32")
    gw.save(module, tmp_path / "model.safetensors")
    for other in (gw.load(tmp_path / "model.safetensors"), gw.port(module, to="keras")):
        assert distance(outputs(model, arrays), outputs(other, arrays)) < 1e-5
    assert gw.verify(model, module).passed
    assert_reference(model, gw.port(model, to="torch", dtype="float64"), [each.astype("float64") for each in arrays])


def test_stateful_within_time_distributed_of_unknown_length_is_refused(keras):
    source = keras.Input((None, STEPS, FEATURES), batch_size=2)
    model = keras.Model(source, keras.layers.TimeDistributed(keras.layers.LSTM(4, stateful=True))(source))
    with pytest.raises(UnsupportedModelError, match="stateful=True"):
        gw.port(model, to="torch")


def model_of_steps(keras, kind):
    """Return a model that runs a model on each step of another time axis."""
    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    if kind == "functional":
        x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(source)
        x = layers.Concatenate()([x, layers.Add()([layers.Dense(FEATURES, activation="relu")(source), source])])
        inner = keras.Model(source, stack(keras)(x))
    elif kind == "tokens":
        inner = keras.Sequential([keras.Input((STEPS,)), layers.Embedding(3, 2), layers.GRU(2)])
        source = keras.Input((2, STEPS))
        return keras.Model(source, layers.LSTM(3)(layers.TimeDistributed(inner)(source)))
    elif kind == "mask":
        inner = keras.Sequential([source, layers.Masking(), layers.LSTM(3)])
    elif kind == "states":
        _, *states = layers.LSTM(3, return_state=True)(source)
        inner = keras.Model(source, layers.LSTM(3)(source, initial_state=states))
    elif kind == "axis":
        inner = keras.Model(source, layers.Concatenate(axis=1)([source, source]))
    else:  # twice
        deeper = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(3, activation="tanh"), layers.Dropout(0.1)])
        inner = keras.Sequential([source, layers.TimeDistributed(deeper), layers.SimpleRNN(3)])
    outer, layer = keras.Input((2, STEPS, FEATURES)), layers.TimeDistributed(inner)
    return keras.Model(outer, layers.Concatenate()([layer(outer), layer(layers.Activation("tanh")(outer))]))


@pytest.mark.parametrize("kind", ["functional", "tokens", "twice", "mask", "states", "axis"])
def test_models_run_on_each_step(keras, torch, kind):
    rng = np.random.default_rng(0)
    model = fill(model_of_steps(keras, kind), rng)
    [source] = model.inputs
    arrays = [rng.integers(0, 3, (4, 2, STEPS))] if kind == "tokens" else [rng.normal(size=(4, *source.shape[1:]))]
    module = assert_ported(model, [arrays[0].astype("float32")], "float32")
    again = gw.port(module, to="keras")
    assert distance(outputs(model, arrays), outputs(again, arrays)) <= 1e-6
    assert gw.verify(model, module).passed


def test_a_bare_model_on_each_step_is_refused(keras):
    with pytest.raises(UnsupportedModelError, match=r"Port keras\.Model"):
        gw.port(model_of_steps(keras, "mask").layers[-2], to="torch")


def test_documents_of_sentences_of_words(keras, torch):
    """Sentences of any length, padded with zeros, by an encoder that runs on each; documents of any length, too."""
    layers, rng = keras.layers, np.random.default_rng(0)
    words = [keras.Input((None,), dtype="int32"), layers.Embedding(7, 3, mask_zero=True), layers.LSTM(4)]
    source = keras.Input((None, None), dtype="int32")
    sentences = layers.TimeDistributed(keras.Sequential(words))(source)
    model = fill(keras.Model(source, layers.Bidirectional(layers.GRU(2))(sentences)), rng)
    tokens = rng.integers(0, 7, (3, 4, 5)).astype("int32")
    module = assert_ported(model, [tokens], "float32")
    names = ["input", "embedding", "lstm", "remask", "gru"]
    assert [type(layer.spec).__name__.lower() for layer in module.network.layers] == names
    more = tokens.copy()
    more[:, :, -1] = 0
    short = [array[:, :, :4] for array in (more,)]
    assert distance(outputs(module, [more]), outputs(module, short)) < 1e-6
    again = gw.port(module, to="keras")
    assert [type(layer).__name__ for layer in again.layers] == ["InputLayer", "TimeDistributed", "Bidirectional"]
    assert gw.verify(model, again, gradients=True).passed


def test_tokens_may_be_floats(keras, torch):
    """Keras casts them; what feeds an Embedding is known to hold tokens in a model within a model, too."""
    inner = keras.Sequential([keras.Input((STEPS,)), keras.layers.Embedding(5, 2, mask_zero=True), keras.layers.GRU(2)])
    source = keras.Input((STEPS,))
    model = fill(keras.Model(source, inner(source)), np.random.default_rng(0))
    module = gw.port(model, to="torch")
    tokens = np.random.default_rng(1).integers(0, 5, (3, STEPS))
    expected = outputs(model, [tokens])[0]
    for kind in (torch.float32, torch.uint8, torch.int32):
        assert np.abs(module(torch.tensor(tokens).to(kind)).detach().numpy() - expected).max() < 1e-6
    assert gw.verify(model, module).passed


def test_a_port_says_what_it_was_given(keras, torch):
    """Also where torch's own layer is in it, which would say less, or read one sequence as a batch of steps."""
    source, first = keras.Input((None, FEATURES), name="x"), [keras.Input((4,)) for _ in range(2)]
    model = keras.Model([source, *first], keras.layers.LSTM(4, name="lstm")(source, initial_state=first))
    module = gw.port(model, to="torch")
    x, h = torch.zeros(2, STEPS, FEATURES), torch.zeros(2, 4)
    assert module(x, h, h).shape == (2, 4)
    for given, words in (
        ((x.numpy(), h, h), ("'x' is a ndarray", "as_tensor")),
        ((x[..., 1:], h, h), ("'x' has shape", f"{FEATURES})")),
        ((x, h[:1], h), ("'lstm' starts from states of shape (1, 4), (2, 4)", "(2, 4), (2, 4)")),
        ((x[0], h, h), ("'lstm' reads a tensor of shape", "unsqueeze(0)")),
        ((x[:, :0], h, h), ("'lstm' reads a tensor of shape", "at least one step")),
    ):
        with pytest.raises(ShapeError) as raised:
            module(*given)
        assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize("dtype", ["int32", "flaot64", np.float64])
def test_a_type_of_weights_is_known_by_name(keras, dtype):
    with pytest.raises(GatewiseError, match="dtype="):
        gw.port(one_layer(keras, keras.layers.LSTM(4)), to="torch", dtype=dtype)


@pytest.mark.parametrize("merge", MERGES)
def test_unlike_directions_with_first_states_forget_the_mask(keras, torch, tmp_path, merge):
    """Their product, too, and the layer that the mask goes on to does not."""
    import gatewise_keras.cells  # noqa: F401  (a .keras file may hold its Product)

    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    first = [keras.Input((4,)) for _ in range(2)]
    other = layers.GRU(4, activation="relu", return_sequences=True, go_backwards=True)
    both = layers.Bidirectional(layers.GRU(4, return_sequences=True), backward_layer=other, merge_mode=merge)
    front = keras.tree.flatten(both(layers.Masking()(source), initial_state=first))
    model = fill(keras.Model([source, *first], [*front, layers.LSTM(3)(front[0])]), np.random.default_rng(0))
    arrays = some_inputs(model, np.random.default_rng(1))
    module = assert_ported(model, arrays, "float32")
    assert gw.verify(model, module).passed
    gw.save(gw.port(module, to="keras"), tmp_path / "again.keras")
    again = gw.load(tmp_path / "again.keras")
    assert distance(outputs(model, arrays), outputs(again, arrays)) <= 1e-6
    assert distance(outputs(model, arrays), outputs(gw.port(again, to="torch"), arrays)) <= 1e-5


def test_unrolled_backwards_under_a_mask_is_refused(keras):
    """Keras's unrolled loop zeroes the steps of the mask unturned; without a mask, or rolled up, all is well."""
    for unroll, masked in ((True, True), (True, False), (False, True)):
        layer = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True, unroll=unroll))
        model = one_layer(keras, layer, masked=masked)
        if unroll and masked:
            with pytest.raises(UnsupportedModelError, match="unroll=True"):
                gw.port(model, to="torch")
        else:
            assert_ported(model, some_inputs(model, np.random.default_rng(0)), "float32")


def test_first_states_make_keras_forget_the_mask(keras, torch):
    """Called on two tensors, a layer of Keras is given no mask unless by hand; the port does the same."""
    source, state = keras.Input((STEPS, FEATURES)), keras.Input((4,))
    x = keras.layers.Masking()(source)
    by_itself = keras.layers.GRU(4)(x, initial_state=state)
    by_hand = keras.layers.GRU(4, name="by_hand")(x, initial_state=state, mask=x._keras_mask)
    model = fill(keras.Model([source, state], [by_itself, by_hand]), np.random.default_rng(0))
    model.layers[-1].set_weights(model.layers[-2].get_weights())
    arrays = some_inputs(model, np.random.default_rng(1))
    module = assert_ported(model, arrays, "float32")
    one, other = outputs(module, arrays)
    assert np.abs(one - other).max() > 1e-2
    network = gw.describe(model)
    assert [layer.masked for layer in network.weighted] == [False, True]
    again = gw.port(module, to="keras")
    assert distance(outputs(module, arrays), outputs(again, arrays)) < 1e-5


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_low_rank_kernel_is_merged(keras, torch, wrapped):
    from gatewise.live import port

    layers, source = keras.layers, keras.Input((STEPS,), dtype="int32")
    table, dense = layers.Embedding(5, 3), layers.Dense(4)
    model = keras.Model(
        source,
        (layers.TimeDistributed(dense) if wrapped else dense)(layers.LSTM(3, return_sequences=True)(table(source))),
    )
    fill(model, np.random.default_rng(0))
    plain = outputs(model, arrays := some_inputs(model, np.random.default_rng(1)))
    for layer in (table, dense):
        layer.enable_lora(2, lora_alpha=3)
        for variable in layer.trainable_weights:
            variable.assign(np.random.default_rng(2).normal(size=variable.shape))
    assert distance(plain, outputs(model, arrays)) > 0.1
    done = port(model, to="torch")
    assert_ported(model, arrays, "float32")
    assert gw.verify(model, done.result).passed
    assert sum("low-rank kernel is merged" in remark for remark in done.remarks) == 2
    frozen = {name for name, parameter in done.result.named_parameters() if not parameter.requires_grad}
    assert {name for name in frozen if "lstm" not in name} == {
        f"{table.name}.weight",
        f"{done.network.layers[-1].name}.weight",
    }
    # What is written is what is read, whatever the low-rank kernel adds.
    adapter = owner(model)[1]
    weights = {name: array + 1 for name, array in adapter.read(dense).items()}
    adapter.write(dense, weights)
    assert all(np.allclose(weights[name], array, atol=1e-6) for name, array in adapter.read(dense).items())


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_half_precision_becomes_float32(keras, torch, dtype):
    """The port rounds less than the source does; in float64 both are one."""
    from gatewise.live import port

    options = {"dtype": keras.DTypePolicy(dtype), "recurrent_initializer": "normal"}  # TensorFlow has no QR of bfloat16
    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, **options), dtype=options["dtype"])(source)
    dense = layers.Dense(2, dtype=options["dtype"])
    model = fill(keras.Model(source, dense(layers.GRU(3, **options)(x))), np.random.default_rng(0))
    done = port(model, to="torch")
    assert all(parameter.dtype == torch.float32 for parameter in done.result.parameters())
    assert dtype in done.remarks[0]
    parity = gw.verify(model, done.result)
    assert parity.passed, str(parity)
    assert parity.dtype == "float64"
    arrays = some_inputs(model, np.random.default_rng(1))
    assert 1e-5 < distance(outputs(model, arrays), outputs(done.result, arrays)) < 5e-2


def test_quantised_is_refused(keras):
    model = one_layer(keras, keras.layers.Dense(4))
    model.layers[-1].quantize("int8")
    with pytest.raises(UnsupportedModelError, match="quantization='int8'"):
        gw.port(model, to="torch")


def test_a_cell_that_torch_has_none_for_is_refused(keras):
    cell = keras.layers.LSTMCell(4, activation="relu")
    cell.build((None, 3))
    with pytest.raises(ImpossiblePlanError, match=r"activation='relu'(.|\n)*into a layer that runs it"):
        gw.port(cell, to="torch")


def test_what_is_left_behind_is_said(keras):
    from gatewise.live import port

    layer = keras.layers.LSTM(4, activity_regularizer=mine, kernel_regularizer=mine)
    said = " ".join(port(one_layer(keras, layer), to="torch").remarks)
    for word in ("activity_regularizer=function", "kernel_regularizer=mine"):
        assert word in said
    cell = keras.layers.LSTMCell(4, activity_regularizer="l1", name="inner")
    said = " ".join(port(one_layer(keras, keras.layers.RNN(cell)), to="torch").remarks)
    assert "inner: activity_regularizer=L1 of a cell" in said
    layer = stack(keras, return_state=True, activity_regularizer="l1", name="two")
    source = keras.Input((STEPS, FEATURES))
    there = port(keras.Model(source, layer(source)[0]), to="torch")
    assert "activity_regularizer" not in " ".join(there.remarks)
    said = " ".join(port(there.result, to="keras").remarks)
    assert "two_cell_0: activity_regularizer=L1 acts on output 1 alone" in said


@pytest.mark.parametrize("told", [True, False])
def test_a_layer_that_is_told_to_run_as_in_training(keras, told):
    """It is so in model(x) alone: fit and predict say themselves how to run, and the port does as they."""
    from gatewise.live import port

    layers, inputs = keras.layers, keras.Input((None, 3))
    inner = keras.Sequential([layers.Dropout(0.5)])
    values = inner(layers.BatchNormalization(name="norm")(inputs, training=told), training=told)
    values = layers.LSTM(4)(layers.Attention(name="attend")([values, values], training=told))
    done = port(keras.Model(inputs, values), to="torch")
    for name in ("norm", inner.name, "attend"):
        assert told == any(remark.startswith(f"{name}: training=True in its call") for remark in done.remarks)


def activity(keras, kind):
    """Return a layer that is penalised for what it gives."""
    layers, rule = keras.layers, keras.regularizers.L1L2(0.02, 0.03)
    if kind == "Bidirectional":
        return layers.Bidirectional(layers.GRU(3, return_state=True), activity_regularizer=rule)
    if kind == "directions":
        return layers.Bidirectional(layers.LSTM(3, return_sequences=True, activity_regularizer=rule), merge_mode="mul")
    if kind == "TimeDistributed":  # that within has no effect
        inner = layers.Dense(3, activity_regularizer=keras.regularizers.L2(7.0))
        return layers.TimeDistributed(inner, activity_regularizer=rule)
    if kind in ("stack", "stack, states"):
        return stack(keras, activity_regularizer=rule, return_state="states" in kind, return_sequences="states" in kind)
    if kind == "directions, states":
        inner = stack(keras, activity_regularizer="l2", return_sequences=True, return_state=True)
        return layers.Bidirectional(inner, activity_regularizer=rule, merge_mode="sum")
    if kind == "directions, both":
        inner = layers.GRU(3, activity_regularizer="l2")
        return layers.Bidirectional(inner, activity_regularizer=rule, merge_mode=None)
    if kind == "Dropout":
        return layers.Dropout(0.0, activity_regularizer=rule)
    if kind == "Dense":
        return layers.Dense(3, activity_regularizer=rule, kernel_regularizer="l2")
    return getattr(layers, kind)(3, return_state=True, return_sequences=True, activity_regularizer=rule)


ACTIVITIES = ["LSTM", "GRU", "SimpleRNN", "Bidirectional", "directions", "directions, states", "TimeDistributed"]


@pytest.mark.parametrize("kind", [*ACTIVITIES, "directions, both", "stack", "stack, states", "Dense", "Dropout"])
def test_activity_is_penalised_as_in_keras(keras, torch, tmp_path, kind):
    """Over the size of the batch, on states as well, at each use of a layer, and through a file."""
    from gatewise_torch import penalty

    layer = activity(keras, kind)
    sources = [keras.Input((STEPS, FEATURES)) for _ in range(2)]
    given = [keras.tree.flatten(layer(source)) for source in sources]
    ends = [end for each in given for end in (each if "," in kind else each[:1])]
    model = fill(keras.Model(sources, ends), np.random.default_rng(0))
    module = gw.port(model, to="torch")
    gw.save(module, tmp_path / "model.safetensors")
    arrays = some_inputs(model, np.random.default_rng(1))
    model(arrays)
    expected = sum(float(loss) for loss in model.losses)
    for other in (module, gw.load(tmp_path / "model.safetensors"), copy.deepcopy(module)):
        other(*map(torch.tensor, arrays))
        assert penalty(other).item() == pytest.approx(expected, rel=1e-5)
    if kind == "SimpleRNN":  # Keras takes the argument and forgets it
        assert expected == 0
        return
    loss = penalty(module)
    if kind == "Dropout":  # on what is left, where it drops
        for each in module.modules():
            if isinstance(each, torch.nn.Dropout):
                each.p = 0.5
        module.train()
        left = module(*map(torch.tensor, arrays))
        assert any((each == 0).any() for each in left)
        own = [(0.02 * each.abs().sum() + 0.03 * each.square().sum()) / len(each) for each in left]
        assert penalty(module).item() == pytest.approx(sum(own).item(), rel=1e-5)
        return
    before = [parameter.grad for parameter in module.parameters()]
    loss.backward()
    assert any(
        one is None and parameter.grad is not None for one, parameter in zip(before, module.parameters(), strict=True)
    )
    again = gw.port(copy.deepcopy(module), to="keras")
    again(arrays)
    assert sum(float(loss) for loss in again.losses) == pytest.approx(expected, rel=1e-5)


# ── the whole option space, by chance ───────────────────────────────────────────────────────────────────────────


def draw_cell_options(rng, kind, dtype, steps):
    options = {
        "activation": pick(rng, COMPUTED) if chance(rng, 0.6) else "tanh",
        "use_bias": chance(rng, 0.8),
        "dropout": pick(rng, (0.0, 0.0, 0.3)),
        "recurrent_dropout": pick(rng, (0.0, 0.0, 0.3)),
        "dtype": dtype,
    }
    if kind != "SimpleRNN":
        options["recurrent_activation"] = pick(rng, COMPUTED) if chance(rng, 0.5) else "sigmoid"
    if kind == "GRU":
        options["reset_after"] = chance(rng, 0.5)
    if kind == "LSTM":
        options["unit_forget_bias"] = chance(rng, 0.5)
    if chance(rng, 0.2) and kind != "SimpleRNN":
        options["implementation"] = pick(rng, (1, 2))
    return options


def draw_layer(keras, rng, dtype, steps, *, last, masked, stateful):
    """Return a random recurrent layer, and whether it gives sequences and several outputs."""
    layers = keras.layers
    form = pick(rng, ("layer", "layer", "layer", "rnn", "stack"))
    two = chance(rng, 0.4)
    around = {
        "return_sequences": chance(rng, 0.5 if last else 0.85),
        "return_state": last and chance(rng, 0.5),
        "go_backwards": chance(rng, 0.3),
        "stateful": stateful and form != "stack",
        "zero_output_for_mask": chance(rng, 0.4),
        "unroll": steps is not None and not masked and chance(rng, 0.15),
        "dtype": dtype,
    }
    if two:
        around["go_backwards"] = False
        # Keras's own Bidirectional.compute_mask fails where both are.
        around["return_state"] &= not around["stateful"]
    units = int(rng.integers(2, 5))
    made = draw_direction(keras, rng, dtype, steps, form, units, around, masked=masked)
    several = around["return_state"]
    if two:
        merge = pick(rng, MERGES if last else MERGES[:-1])
        other = {}
        kind = pick(rng, ("alike", "alike", "turned", "other"))
        if kind == "turned":  # the first direction reads from the end, and the second one from the start
            config = made.get_config()  # from_config takes things out of it
            other["backward_layer"] = type(made).from_config(copy.deepcopy(config) | {"name": "other"})
            made = type(made).from_config(copy.deepcopy(config) | {"go_backwards": True})
        elif kind == "other":  # another cell, other options, and as wide: Keras takes it to be
            width = int(rng.integers(2, 5)) if merge is None and not around["return_state"] else units
            turned = around | {"go_backwards": True, "zero_output_for_mask": chance(rng, 0.5)}
            form = pick(rng, ("layer", "rnn")) if around["stateful"] else pick(rng, ("layer", "rnn", "stack"))
            backward = draw_direction(keras, rng, dtype, steps, form, width, turned, masked=masked)
            if not around["return_state"] or state_sizes(keras, made) == state_sizes(keras, backward):
                other["backward_layer"] = backward
        made = layers.Bidirectional(made, merge_mode=merge, dtype=dtype, **other)
        several |= merge is None
    return made, around["return_sequences"], several


def draw_direction(keras, rng, dtype, steps, form, units, around, *, masked):
    """Return a random layer that runs one direction: of one cell, or of several that are stacked."""
    kind, layers = pick(rng, CELLS), keras.layers
    if form == "layer":
        return getattr(layers, kind)(units, **draw_cell_options(rng, kind, dtype, steps) | around)
    if form == "rnn":
        cell = getattr(layers, f"{kind}Cell")(units, **draw_cell_options(rng, kind, dtype, steps))
        return layers.RNN(cell, **around)
    kinds = [pick(rng, CELLS) for _ in range(int(rng.integers(2 if masked else 1, 4)))]  # Keras masks no stack of one
    widths = [*(int(rng.integers(2, 5)) for _ in kinds[1:]), units]
    cells = [
        getattr(layers, f"{each}Cell")(width, **draw_cell_options(rng, each, dtype, steps))
        for each, width in zip(kinds, widths, strict=True)
    ]
    # Left to itself, RNN makes it in float32, and then Keras mixes types.
    return layers.RNN(layers.StackedRNNCells(cells, dtype=dtype), **around)


def draw_model(keras, rng, dtype):
    """Return a random model, its inputs, and whether it keeps states."""
    layers = keras.layers
    stateful = chance(rng, 0.25)
    steps = pick(rng, (None, None, 5))
    batch = 3
    fixed = {"batch_size": batch} if stateful else {}
    begin = pick(rng, ("plain", "plain", "masked", "masked", "tokens", "distributed"))
    length = steps or int(rng.integers(1, 7))
    value = pick(rng, (0.0, 0.5))
    if begin == "tokens":
        source = keras.Input((steps,), dtype="int32", **fixed)
        x = layers.Embedding(6, 3, mask_zero=(masked := chance(rng, 0.7)), dtype=dtype)(source)
        array = rng.integers(0 if chance(rng, 0.5) else 1, 6, (batch, length)).astype("int32")
    elif begin == "distributed":
        masked, outer = False, 2
        source = x = keras.Input((outer, steps, 3), dtype=dtype, **fixed)
        array = rng.normal(size=(batch, outer, length, 3)).astype(dtype)
    else:
        masked = begin == "masked"
        source = x = keras.Input((steps, 3), dtype=dtype, **fixed)
        x = layers.Masking(value, dtype=dtype)(source) if masked else source
        array = rng.normal(size=(batch, length, 3)).astype(dtype)
    if masked:
        array = hide(array, rng, value if begin == "masked" else 0)
    sources, arrays = [source], [array]
    if begin == "distributed":
        inner, sequences, _ = draw_layer(keras, rng, dtype, steps, last=False, masked=False, stateful=stateful)
        x = layers.TimeDistributed(inner, dtype=dtype)(x)
        if sequences:
            return fill(keras.Model(source, x), rng), arrays, stateful
        steps = 2
    depth = int(rng.integers(1, 4))
    made = [x]
    for place in range(depth):
        last = place == depth - 1
        layer, sequences, several = draw_layer(keras, rng, dtype, steps, last=last, masked=masked, stateful=stateful)
        given = {}
        if place == 0 and chance(rng, 0.25) and begin != "distributed":
            sizes = state_sizes(keras, layer)
            states = [keras.Input((size,), dtype=dtype, **fixed) for size in sizes]
            # Bidirectional gives each direction half of the list, whatever its cells need.
            if (nested := structured(keras, layer, states)) is not None:
                sources += states
                arrays += [rng.normal(size=(batch, size)).astype(dtype) for size in sizes]
                given = {"initial_state": nested}
        made = keras.tree.flatten(layer(made[0], **given))
        if not sequences or several:
            break
        if chance(rng, 0.3) and not last:
            between = pick(
                rng,
                (
                    layers.TimeDistributed(layers.Dense(3, dtype=dtype), dtype=dtype),
                    layers.Dense(3, activation="relu", dtype=dtype),
                    layers.Dropout(0.2, dtype=dtype),
                    layers.Activation("softsign", dtype=dtype),
                ),
            )
            made = [between(made[0])]
    if chance(rng, 0.5):
        made = [layers.Dense(2, dtype=dtype)(made[0]), *made[1:]]
    return fill(keras.Model(sources[0] if len(sources) == 1 else sources, made), rng), arrays, stateful


def state_sizes(keras, layer):
    if isinstance(layer, keras.layers.Bidirectional):
        return state_sizes(keras, layer.forward_layer) + state_sizes(keras, layer.backward_layer)
    cells = layer.cell.cells if isinstance(layer.cell, keras.layers.StackedRNNCells) else [layer.cell]
    return [cell.units for cell in cells for _ in range(2 if isinstance(cell, keras.layers.LSTMCell) else 1)]


def structured(keras, layer, states):
    """Return first states as Keras wants them, nested where cells are stacked; None where it splits them wrongly."""
    if isinstance(layer, keras.layers.Bidirectional):
        split = len(state_sizes(keras, layer.forward_layer))
        halves = (layer.forward_layer, states[:split]), (layer.backward_layer, states[split:])
        forward, backward = (structured(keras, one, own) for one, own in halves)
        return [*forward, *backward] if len(forward) == len(backward) else None
    if not isinstance(layer.cell, keras.layers.StackedRNNCells):
        return states
    if len(layer.cell.cells) == 1:
        return [states] if isinstance(layer.cell.cells[0], keras.layers.LSTMCell) else states
    rest, nested = list(states), []
    for cell in layer.cell.cells:
        pair = isinstance(cell, keras.layers.LSTMCell)
        nested.append([rest.pop(0), rest.pop(0)] if pair else rest.pop(0))
    return nested


def hide(array, rng, value):
    """Mask steps at the start, at the end or between, and sometimes whole rows."""
    array = array.copy()
    time = array.shape[1]
    for row in range(len(array)):
        kind = pick(rng, ("left", "right", "middle", "random", "all", "none"))
        count = int(rng.integers(0, time + 1))
        hidden = {
            "left": np.arange(time) < count,
            "right": np.arange(time) >= count,
            "middle": (np.arange(time) > 0) & (np.arange(time) < time - 1),
            "random": rng.random(time) < 0.5,
            "all": np.ones(time, bool),
            "none": np.zeros(time, bool),
        }[kind]
        array[row, hidden] = value
    return array


def check_random_model(keras, torch, seed):
    rng = np.random.default_rng(seed)
    dtype = "float64" if seed % 3 else "float32"
    model, arrays, stateful = draw_model(keras, rng, dtype)
    module = assert_ported(model, arrays, dtype)
    if dtype == "float64" and seed % 4 == 0:
        assert_reference(model, module, arrays)
    if stateful and len(arrays) == 1:
        assert_same_over_batches(keras, torch, model, module, arrays[0], rng, dtype)


def assert_same_over_batches(keras, torch, model, module, array, rng, dtype):
    """Run three batches, forget, and run one more: Keras and torch must go on from the same states."""
    stateful = [
        layer
        for layer in model._flatten_layers()
        if getattr(layer, "stateful", False) and getattr(layer, "states", None) is not None
    ]
    for number in range(4):
        if number in (0, 3):
            lost = False
            for layer in stateful:
                layer.reset_state()
            module.reset_state()
        batch = array if array.dtype == np.int32 else rng.normal(size=array.shape).astype(dtype)
        with np.errstate(all="ignore"):
            ours = [np.asarray(each) for each in keras.tree.flatten(model(batch))]
        with torch.no_grad():
            made = module(torch.tensor(batch))
        theirs = [each.numpy() for each in (made if isinstance(made, list) else [made])]
        # TensorFlow's relu makes a number of a NaN: from states that are none on, nothing can be compared.
        kept = [np.asarray(state) for layer in stateful for state in keras.tree.flatten(layer.states)]
        lost = lost or not all(np.isfinite(each).all() for each in (*ours, *kept))
        if not lost:
            assert distance(ours, theirs) <= (double(model) if dtype == "float64" else 1e-2)


@pytest.mark.parametrize("seed", range(24))
def test_random_model(keras, torch, seed):
    check_random_model(keras, torch, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(24, 900))
def test_random_model_long(keras, torch, seed):
    check_random_model(keras, torch, seed)


# … with a model on each step of a further time axis: masks and states within it, masks that come to it


def draw_steps(keras, rng, dtype):
    """Return a random model that runs a model on each step of another time axis, and whether it keeps states."""
    layers, outer, batch = keras.layers, 2, 3
    stateful = chance(rng, 0.25)
    fixed = {"batch_size": batch} if stateful else {}
    steps = pick(rng, (None, 4))
    length = steps or int(rng.integers(2, 6))
    comes = pick(rng, ("no", "no", "above", "by hand"))  # a mask
    begin = pick(rng, ("plain", "masking", "operation"))
    step = x = keras.Input((steps, 3), dtype=dtype, **fixed)
    given = {}
    if begin == "masking":
        x = layers.Masking(0.5, dtype=dtype)(step)
    elif begin == "operation":
        given["mask"] = keras.ops.any(keras.ops.not_equal(step, 0.5), axis=-1)
    masked = comes != "no" or begin != "plain"
    layer, sequences, _ = draw_layer(keras, rng, dtype, steps, last=False, masked=masked, stateful=stateful)
    sizes = state_sizes(keras, layer)
    if begin == "plain" and comes == "no" and chance(rng, 0.4):
        made = layers.LSTM(4, dtype=dtype)(step)
        given["initial_state"] = structured(keras, layer, [layers.Dense(size, dtype=dtype)(made) for size in sizes])
        given = {} if given["initial_state"] is None else given
    x = layer(x, **given)
    if sequences and chance(rng, 0.6):
        # Behind it Keras hands on the mask that came in, which is then of other steps.
        longer = comes == "no" and chance(rng, 0.5)
        join = layers.Concatenate(axis=1, dtype=dtype) if longer else layers.Maximum(dtype=dtype)
        x = join([x, layers.Activation("tanh", dtype=dtype)(x)])
    if sequences and chance(rng, 0.7):
        layer, sequences, _ = draw_layer(keras, rng, dtype, None, last=False, masked=masked, stateful=False)
        x = layer(x)
    inner = keras.Model(step, x)
    source = top = keras.Input((outer if stateful else pick(rng, (outer, None)), steps, 3), dtype=dtype, **fixed)
    array = rng.normal(size=(batch, outer, length, 3)).astype(dtype)
    array = np.stack([hide(array[:, place], rng, 0.5) for place in range(outer)], 1)
    sources, arrays, more = [source], [array], {}
    if comes == "above":
        top = layers.Masking(0.5, dtype=dtype)(source)
    elif comes == "by hand":
        more["mask"] = keras.Input((source.shape[1], steps), dtype="bool", **fixed)
        sources.append(more["mask"])
        arrays.append(rng.random((batch, outer, length)) < 0.6)
    made = layers.TimeDistributed(inner, dtype=dtype)(top, **more)
    if comes == "no" and not sequences:
        made = draw_layer(keras, rng, dtype, None, last=False, masked=False, stateful=False)[0](made)
    elif sequences:
        last = draw_layer(keras, rng, dtype, None, last=False, masked=True, stateful=False)[0]
        made = layers.TimeDistributed(last, dtype=dtype)(made)
    return fill(keras.Model(sources[0] if len(sources) == 1 else sources, made), rng), arrays, stateful


def check_random_steps(keras, torch, seed):
    rng = np.random.default_rng(seed)
    dtype = "float64" if seed % 3 else "float32"
    model, arrays, stateful = draw_steps(keras, rng, dtype)
    module = assert_ported(model, arrays, dtype)
    if dtype == "float64":
        exact = outputs(module, arrays)
        assert distance(exact, outputs(gw.port(module, to="keras"), arrays)) <= double(model)
        assert_reference(model, module, arrays)
    if stateful and len(arrays) == 1:
        assert_same_over_batches(keras, torch, model, module, arrays[0], rng, dtype)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("seed", range(8))
def test_random_steps(keras, torch, seed):
    check_random_steps(keras, torch, seed)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("seed", range(8, 300))
def test_random_steps_long(keras, torch, seed):
    check_random_steps(keras, torch, seed)


# … and of several branches: layers used twice, models within models, merges, masks given by hand, wrapped twice


def draw_branches(keras, rng, dtype):
    """Return a random model of two inputs that go through one layer or model each, or the same, and are merged."""
    layers, steps, batch = keras.layers, pick(rng, (None, 4)), 3
    length = steps or int(rng.integers(2, 6))
    sources = [keras.Input((steps, 3), dtype=dtype) for _ in range(2)]
    arrays = [rng.normal(size=(batch, length, 3)).astype(dtype) for _ in sources]
    shared, masking = chance(rng, 0.7), layers.Masking(0.5, dtype=dtype)
    tops, masked, by_hand = [], chance(rng, 0.6), None
    for place, source in enumerate(sources):
        if not masked:
            tops.append(source)
        elif pick(rng, (True, True, False)):
            tops.append((masking if chance(rng, 0.5) else layers.Masking(0.5, dtype=dtype))(source))
            arrays[place] = hide(arrays[place], rng, 0.5)
        else:  # one of the two has none
            tops.append(source)
    hand = not masked and chance(rng, 0.4)
    either = masked or hand
    first, sequences, _ = draw_layer(keras, rng, dtype, steps, last=False, masked=either, stateful=False)
    if hand:
        by_hand = keras.Input((steps,), dtype="bool")
        arrays.append(rng.random((batch, length)) < 0.6)
    within = by_hand is None and chance(rng, 0.4)
    if within:
        inner = [keras.Input((steps, 3), dtype=dtype), first, layers.Dense(3, dtype=dtype)]
        if chance(rng, 0.5):
            inner.insert(1, layers.Masking(1.5, dtype=dtype))
        first = keras.Sequential(inner)
    given = {} if by_hand is None else {"mask": by_hand}
    second = first if shared or within else type(first).from_config(copy.deepcopy(first.get_config()) | {"name": "b"})
    made = [first(tops[0], **given), second(tops[1], **given)]
    word = pick(rng, tuple(JOINS))
    if word == "concat":
        join = layers.Concatenate(axis=1 if sequences and chance(rng, 0.5) else -1, dtype=dtype)
    else:
        join = getattr(layers, JOINS[word])(dtype=dtype)
    more = [made[0]] if word not in ("sub", "concat") and chance(rng, 0.3) else []
    x = join([*made, *more])
    if sequences:
        last, _, _ = draw_layer(keras, rng, dtype, None, last=True, masked=True, stateful=False)
        x = last(x)
    ends = keras.tree.flatten(x)
    if chance(rng, 0.5):
        dense = layers.Dense(2, dtype=dtype)
        ends = [dense(ends[0]), *ends[1:]]
    sources += [by_hand] if by_hand is not None else []
    return fill(keras.Model(sources, ends), rng), arrays


def check_random_branches(keras, torch, seed):
    rng = np.random.default_rng(seed)
    dtype = "float64" if seed % 3 else "float32"
    model, arrays = draw_branches(keras, rng, dtype)
    module = assert_ported(model, arrays, dtype)
    # Weights that are used twice are there once.
    natives = owner(model)[1].natives(model).values()
    assert sum(len(native.weights) for native in natives) == len(model.weights)
    if dtype == "float64":
        exact = outputs(module, arrays)
        assert distance(exact, outputs(gw.port(module, to="keras"), arrays)) <= double(model)
        assert_reference(model, module, arrays)


def assert_reference(model, module, arrays):
    """Compare a module with the float64 reference, which runs the same description."""
    one = side(module)
    weights = {unit.name: unit.weights for unit in units(one)}
    with np.errstate(all="ignore"):
        reference = walk(unstacked(one.network)[0], weights, arrays)
    assert distance(outputs(module, arrays), reference) <= double(model)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("seed", range(16))
def test_random_branches(keras, torch, seed):
    check_random_branches(keras, torch, seed)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("seed", range(16, 400))
def test_random_branches_long(keras, torch, seed):
    check_random_branches(keras, torch, seed)


def shared_encoder(keras):
    """Two sequences through one encoder, which is a model of its own; the distance of what comes out."""
    layers = keras.layers
    inner = [keras.Input((None, 3)), layers.Masking(), layers.LSTM(4), layers.Dense(3, activation="tanh")]
    encoder, sources = keras.Sequential(inner), [keras.Input((None, 3)) for _ in range(2)]
    apart = layers.Subtract()([encoder(source) for source in sources])
    return keras.Model(sources, layers.Dense(1)(apart))


def two_directions(keras):
    """An encoder whose directions are unlike, and a decoder that starts from the states of both."""
    layers = keras.layers
    source, target = keras.Input((None, 3)), keras.Input((None, 2))
    backward = layers.LSTM(4, activation="relu", go_backwards=True, return_sequences=True, return_state=True)
    both = layers.Bidirectional(
        layers.LSTM(4, return_sequences=True, return_state=True, recurrent_regularizer="l2"), backward_layer=backward
    )
    out, h, c, other_h, other_c = both(layers.Masking()(source))
    states = [layers.Concatenate()(pair) for pair in ([h, other_h], [c, other_c])]
    decoded = layers.LSTM(8, return_sequences=True)(target, initial_state=states)
    # A state has no mask, also where the output has one.
    product = layers.Multiply()([h, other_h])
    return keras.Model([source, target], [layers.Dense(2)(decoded), layers.GRU(3)(out), product])


def stacked_directions(keras):
    """Stacked cells in both directions, under a mask that is given by hand."""
    layers, mask = keras.layers, keras.Input((None,), dtype="bool")
    source = keras.Input((None, 3))
    both = layers.Bidirectional(stack(keras, return_sequences=True), merge_mode="ave")
    return keras.Model([source, mask], both(source, mask=mask))


@pytest.mark.parametrize("make", [shared_encoder, two_directions, stacked_directions])
def test_branches_go_everywhere(keras, torch, tmp_path, make):
    """To torch and back, into files of both kinds, and learning as they did: verified with planted mistakes."""
    import gatewise_keras.cells  # noqa: F401  (a .keras file may hold its Flip)

    model = fill(make(keras), np.random.default_rng(0))
    module = gw.port(model, to="torch")
    again = gw.port(module, to="keras")
    gw.save(module, tmp_path / "m.safetensors")
    again.save(tmp_path / "m.keras")
    arrays = some_inputs(model, np.random.default_rng(1))
    for other in (again, gw.load(tmp_path / "m.safetensors", to="keras"), gw.load(tmp_path / "m.keras")):
        assert distance(outputs(model, arrays), outputs(other, arrays)) < 1e-5
        assert distance(outputs(model, arrays), outputs(gw.port(other, to="torch"), arrays)) < 1e-5
    parity = gw.verify(model, module, gradients=True, training_steps=3)
    assert parity.passed, str(parity)
    counts = {gw.count(gw.describe(each), "keras").total for each in (model, module, again)}
    assert counts == {model.count_params()}


def test_gradients_of_shared_weights_are_their_sum(keras, torch):
    """Seen red: a copy of the weights for each use would learn by a part of the gradient."""
    model = fill(shared_encoder(keras), np.random.default_rng(0))
    module = gw.port(model, to="torch")
    uses = [layer.name for layer in module.network.layers if layer.spec.cell == "lstm"]
    assert len(uses) == 2
    assert module.native(uses[0]) is module.native(uses[1])
    target = np.ones((3, 1), "float32")
    arrays = some_inputs(model, np.random.default_rng(1))
    _, found, _ = owner(module)[1].gradients(module, arrays, [target])
    _, wanted, _ = owner(model)[1].gradients(model, arrays, [target])
    for layer in wanted:
        if wanted[layer]:
            total = sum(float(np.square(array).sum()) for array in wanted[layer].values())
            assert sum(float(np.square(array).sum()) for array in found[layer].values()) == pytest.approx(
                total, rel=1e-4
            )


@pytest.mark.parametrize("seed", range(6))
def test_wrapped_twice(keras, torch, seed):
    """Two more time axes, around recurrent layers of every kind, and around Dense."""
    rng = np.random.default_rng(seed)
    source = keras.Input((2, 3, 4, 3), dtype="float64")
    inner, sequences, _ = draw_layer(keras, rng, "float64", 4, last=False, masked=False, stateful=False)
    for _ in range(2):
        inner = keras.layers.TimeDistributed(inner, dtype="float64")
    x, dense = inner(source), keras.layers.Dense(2, activation="tanh", dtype="float64")
    for _ in range(2 if sequences else 1):
        dense = keras.layers.TimeDistributed(dense, dtype="float64")
    model = fill(
        keras.Model(
            source, dense(keras.layers.TimeDistributed(keras.layers.Dropout(0.5, dtype="float64"), dtype="float64")(x))
        ),
        rng,
    )
    module = assert_ported(model, [rng.normal(size=(3, 2, 3, 4, 3))], "float64")
    assert [layer.distributed for layer in gw.describe(model).layers if layer.spec.cell == "dense"] == [1 + sequences]
    again = gw.port(module, to="keras")
    assert distance(*(outputs(each, [np.ones((1, 2, 3, 4, 3))]) for each in (model, again))) < 1e-12


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("name", [*COMPUTED, "hard_sigmoid_02"])
def test_every_activation(keras, torch, kind, name):
    from gatewise_keras.functions import activation

    function = activation(name)
    options = {} if kind == "SimpleRNN" else {"recurrent_activation": function}
    source = keras.Input((None, 3), dtype="float64")
    layer = getattr(keras.layers, kind)(
        4, function, return_sequences=True, return_state=True, dtype="float64", **options
    )
    rng = np.random.default_rng(0)
    assert_ported(fill(keras.Model(source, layer(source)), rng), [rng.normal(size=(2, 4, 3))], "float64")


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropout_keeps_one_mask_for_all_steps(keras, torch):
    """The kernel passes each feature on by itself, so that the outputs show the mask."""
    source = keras.Input((6, 50))
    layer = keras.layers.SimpleRNN(50, "linear", use_bias=False, return_sequences=True, dropout=0.5)
    model = keras.Model(source, layer(source))
    model.set_weights([np.eye(50, dtype="float32"), np.zeros((50, 50), "float32")])
    module = gw.port(model, to="torch").train()
    with torch.no_grad():
        out = module(torch.ones(8, 6, 50)).numpy()
    theirs = np.asarray(model(np.ones((8, 6, 50), "float32"), training=True))
    for made in (out, theirs):
        assert (made == made[:, :1]).all()  # all steps alike
        assert set(np.unique(made)) == {0.0, 2.0}
        assert (made[0] != made[1]).any()  # each sequence for itself
        assert abs(made.mean() - 1) < 0.2


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("rate", ["dropout", "recurrent_dropout"])
def test_a_rate_of_one(keras, torch, kind, rate):
    """SimpleRNN drops all, LSTM and GRU nothing: what comes out in training is no matter of chance."""
    layer = getattr(keras.layers, kind)(4, return_sequences=True, **{rate: 1.0})
    model = fill(one_layer(keras, layer), np.random.default_rng(0))
    [array] = some_inputs(model, np.random.default_rng(1))
    module = gw.port(model, to="torch").train()
    with torch.no_grad():
        made = module(torch.tensor(array)).numpy()
    expected = np.asarray(model(array, training=True))
    np.testing.assert_allclose(made, expected, atol=1e-5)
    assert (np.abs(expected - np.asarray(model(array))).max() > 0.1) == (kind == "SimpleRNN")
    if kind == "SimpleRNN":
        again = gw.port(module, to="keras")
        np.testing.assert_allclose(np.asarray(again(array, training=True)), expected, atol=1e-5)


def test_a_rate_of_one_has_no_way_back(keras, torch):
    from gatewise_torch import LSTM

    with pytest.raises(UnsupportedModelError, match="dropout=1"):
        gw.port(LSTM(3, 4, input_dropout=1.0), to="keras")
    with pytest.raises(UnsupportedModelError, match="dropout_masks='layer'"):
        gw.port(LSTM(3, 4, recurrent_dropout=0.5, dropout_masks="layer"), to="keras")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "Bidirectional", "RNN"])
@pytest.mark.parametrize("implementation", [1, 2])
def test_implementation_says_how_many_dropout_masks_there_are(keras, torch, kind, implementation):
    """Kernels pass each feature on by itself and gates multiply: two masks leave a quarter alive, and one a half."""
    rate, units = 0.5, 60
    options = {"dropout": rate, "use_bias": False, "activation": "linear", "recurrent_activation": "linear"}
    options |= {"return_state": True} if kind != "RNN" else {}
    cell = "LSTM" if kind in ("Bidirectional", "RNN") else kind
    if kind == "RNN":
        cell = keras.layers.LSTMCell(units, implementation=implementation, **options)
        layer = keras.layers.RNN(cell, return_state=True)
    else:
        layer = getattr(keras.layers, cell)(units, implementation=implementation, use_cudnn=False, **options)
    if kind == "Bidirectional":
        layer = keras.layers.Bidirectional(layer)
        for one in (layer.forward_layer, layer.backward_layer):
            one.cell.implementation = implementation
            one.cell.dropout_mask_count = 4 if implementation == 1 else None
    source = keras.Input((1, units))
    model = keras.Model(source, layer(source))
    gates = 3 if kind == "GRU" else 4
    for weight in model.weights:
        whole = np.tile(np.eye(units, dtype="float32"), (1, gates))
        weight.assign(np.zeros_like(whole) if "recurrent" in weight.name else whole)
    module = gw.port(model, to="torch")
    again = gw.port(module, to="keras")
    ones = np.ones((16, 1, units), "float32")
    with torch.no_grad():
        made = [module.train()(torch.tensor(ones))[-1].numpy()]
    made += [np.asarray(each(ones, training=True)[-1]) for each in (model, again)]
    for last in made:
        # The memory is i·g; a GRU's state is (1 - z)·n: with one mask z is 2 where n is not 0.
        alive = (last != 0).mean()
        values = len(np.unique(last))
        if kind == "GRU":
            assert values == (3 if implementation == 1 else 2)
        else:
            assert abs(alive - (0.25 if implementation == 1 else 0.5)) < 0.06


def test_recurrent_dropout_acts_on_the_state_alone(keras, torch):
    source, state = keras.Input((4, 1)), keras.Input((50,))
    layer = keras.layers.SimpleRNN(50, "linear", use_bias=False, return_sequences=True, recurrent_dropout=0.5)
    model = keras.Model([source, state], layer(source, initial_state=state))
    model.set_weights([np.zeros((1, 50), "float32"), np.eye(50, dtype="float32")])
    module = gw.port(model, to="torch").train()
    arrays = [np.zeros((8, 4, 1), "float32"), np.ones((8, 50), "float32")]
    with torch.no_grad():
        out = module(*map(torch.tensor, arrays)).numpy()
    for made in (out, np.asarray(model(arrays, training=True))):
        # One mask for all steps: what survives doubles at each, and what is dropped stays so.
        alive = made[:, 0] != 0
        assert 0.3 < alive.mean() < 0.7
        for step in range(4):
            assert set(np.unique(made[:, step])) == {0.0, 2.0 ** (step + 1)}
            assert ((made[:, step] != 0) == alive).all()


REGULARIZERS = {
    "l1": ("L1", {"l1": 0.03}),
    "l2": ("L2", {"l2": 0.02}),
    "l1_l2": ("L1L2", {"l1": 0.01, "l2": 0.04}),
    "orthogonal": ("OrthogonalRegularizer", {"factor": 0.05}),
    "orthogonal columns": ("OrthogonalRegularizer", {"factor": 0.05, "mode": "columns"}),
}
CONSTRAINTS = {
    "max_norm": ("MaxNorm", {"max_value": 0.7}),
    "max_norm rows": ("MaxNorm", {"max_value": 0.7, "axis": 1}),
    "non_neg": ("NonNeg", {}),
    "unit_norm": ("UnitNorm", {"axis": 0}),
    "min_max_norm": ("MinMaxNorm", {"min_value": 0.4, "max_value": 0.8, "rate": 0.5}),
    "max_norm both": ("MaxNorm", {"max_value": 0.7, "axis": [0, 1]}),
}


def ruled(keras, kind, home, case, weights):
    """Return a model whose recurrent, dense and embedding layers all have one rule, where its shape allows it."""
    table = REGULARIZERS if home == "regularizer" else CONSTRAINTS
    name, settings = table[case]
    matrices = "orthogonal" in case or settings.get("axis") in (1, [0, 1])

    def made():
        return getattr(getattr(keras, f"{home}s"), name)(**settings)

    prefixes = ["kernel", "recurrent"] + ([] if matrices else ["bias"])
    options = {f"{prefix}_{home}": made() for prefix in prefixes}
    layers = keras.layers
    source = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 3, **{f"embeddings_{home}": made()})(source)
    if kind == "Bidirectional":
        x = layers.Bidirectional(layers.LSTM(4, **options))(x)
    elif kind == "RNN":
        x = layers.RNN(layers.LSTMCell(4, **options))(x)
    elif kind == "stack":
        x = layers.RNN([layers.LSTMCell(4, **options), layers.GRUCell(3, **options)])(x)
    elif kind == "GRU before":
        x = layers.GRU(4, reset_after=False, **options)(x)
    else:
        x = getattr(layers, kind)(4, **options)(x)
    dense = {option: value for option, value in options.items() if "recurrent" not in option}
    return fill(keras.Model(source, layers.Dense(2, **dense)(x)), np.random.default_rng(0))


RULED = ("LSTM", "GRU", "GRU before", "SimpleRNN", "Bidirectional", "RNN", "stack")


@pytest.mark.parametrize("kind", RULED)
@pytest.mark.parametrize("case", REGULARIZERS)
def test_penalty_is_what_keras_adds_to_the_loss(keras, torch, kind, case):
    from gatewise_torch import penalty

    model = ruled(keras, kind, "regularizer", case, None)
    module = gw.port(model, to="torch")
    expected = sum(float(loss) for loss in model.losses)
    assert expected > 0
    assert penalty(module).item() == pytest.approx(expected, rel=1e-5)
    penalty(module).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters() if parameter.grad is not None)
    # … and on the way back, as Keras's own again.
    again = gw.port(module, to="keras")
    assert float(sum(float(loss) for loss in again.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", RULED)
@pytest.mark.parametrize("case", CONSTRAINTS)
def test_constraints_are_those_of_keras(keras, torch, kind, case):
    from gatewise_torch import constrain

    model = ruled(keras, kind, "constraint", case, None)
    module = gw.port(model, to="torch")
    constrain(module)
    for variable in model.trainable_variables:
        if variable.constraint is not None:
            variable.assign(variable.constraint(variable))
    expected = gw.port(model, to="torch").state_dict()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)


def test_rules_go_through_files(keras, torch, tmp_path):
    from gatewise_torch import penalty

    module = gw.port(ruled(keras, "LSTM", "regularizer", "l2", None), to="torch")
    gw.save(module, tmp_path / "model.safetensors")
    assert penalty(gw.load(tmp_path / "model.safetensors")).item() == pytest.approx(penalty(module).item())


def test_rules_of_a_module_that_is_no_port(torch):
    from gatewise_torch import penalty

    with pytest.raises(UnsupportedModelError, match="carries no regularisers"):
        penalty(torch.nn.LSTM(3, 4))
