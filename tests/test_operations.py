"""Operations of keras.ops between layers: every function, as Keras, torch and the reference compute it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_keras_options import assert_reference, distance, fill, outputs

import gatewise as gw
from gatewise.core.between import FUNCTIONS, Operation
from gatewise.core.network import Network
from gatewise.core.shapes import shapes
from gatewise.core.spec import ACTIVATIONS
from gatewise.errors import SpecError, UnsupportedModelError
from gatewise.live import port

STEPS, FEATURES = 4, 3
ALPHABET = tuple("tanh sigmoid relu hard_sigmoid relu6 elu selu silu softplus softsign softmax".split())


def operations(keras):
    """Return name → a function of numbers (x), whole numbers (t) and booleans (m), at each step, that gives numbers."""
    ops = keras.ops
    lengths = np.arange(STEPS)[None]
    one = {
        name: (lambda x, t, m, name=name: getattr(ops, name)(x))
        for name in ("absolute", "negative", "square", "sign", "exp", "floor", "round")
    }
    one |= {name: (lambda x, t, m, name=name: getattr(ops, name)(x * x + 0.1)) for name in ("sqrt", "log")}
    one |= {name: (lambda x, t, m, name=name: getattr(ops, name)(x) + x) for name in ("zeros_like", "ones_like")}
    two = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
    one |= {name: (lambda x, t, m, name=name: getattr(ops, name)(x, x * x + 0.5)) for name in two}
    one |= {
        name: (lambda x, t, m, name=name: x * ops.cast(getattr(ops, name)(t, 2), x.dtype)[..., None])
        for name in ("not_equal", "equal", "greater", "greater_equal", "less", "less_equal")
    }
    for name in ("sum", "mean", "prod", "max", "min"):
        function = getattr(ops, name)
        one[name] = lambda x, t, m, function=function: x - function(x, axis=1, keepdims=True)
        one[f"{name} of all"] = lambda x, t, m, function=function: x + function(x, (1, 2))[:, None, None]
    one |= {name: (lambda x, t, m, name=name: getattr(ops, name)(x + 1, axis=1)) for name in ("cumsum", "cumprod")}
    for name in ("argmax", "argmin"):
        function = getattr(ops, name)
        one[name] = lambda x, t, m, function=function: x - ops.cast(function(x, 1, keepdims=True), x.dtype)
    one |= {name: (lambda x, t, m, name=name: keras.activations.get(name)(x)) for name in ALPHABET}
    return one | {
        "number first": lambda x, t, m: 1 - x / 3 + 2.5 * x,
        "power": lambda x, t, m: x**2,
        "clip": lambda x, t, m: ops.clip(x, -0.3, 0.8),
        "where": lambda x, t, m: ops.where(m[..., None], x, 0.25),
        "isnan": lambda x, t, m: ops.where(ops.isnan(ops.log(x)), 1.5, x),
        "isinf": lambda x, t, m: ops.where(ops.isinf(1 / ops.relu(x)), 1.5, x),
        "isfinite": lambda x, t, m: ops.where(ops.isfinite(1 / ops.relu(x)), x, 1.5),
        "logical": lambda x, t, m: ops.where((m | ~(t > 1) & (t < 3))[..., None], x, 1.5),
        "logical_xor": lambda x, t, m: ops.where(ops.logical_xor(m, t > 1)[..., None], x, 1.5),
        "any": lambda x, t, m: ops.where(ops.any(x > 0.5, axis=-1, keepdims=True), x, 1.5),
        "all": lambda x, t, m: ops.where(ops.all(x > 0.0, axis=1), 1.0, -1.0)[:, None] * x,
        "cast": lambda x, t, m: x * ops.cast(t, x.dtype)[..., None] + ops.cast(ops.cast(x, "int32"), x.dtype),
        "cast of booleans": lambda x, t, m: x - (1 - ops.cast(m, "int32"))[..., None],
        "bool": lambda x, t, m: ops.where(ops.cast(t, "bool")[..., None], x, 1.5),
        "expand and squeeze": lambda x, t, m: ops.squeeze(ops.expand_dims(x, 2) * 2, 2),
        "flip": lambda x, t, m: ops.flip(x, 1),
        "concatenate": lambda x, t, m: ops.concatenate([x, -x, x], axis=1),
        "concatenate features": lambda x, t, m: ops.concatenate([x, x * x], axis=-1),
        "stack": lambda x, t, m: ops.max(ops.stack([x, -x], axis=2), axis=2),
        "several axes": lambda x, t, m: ops.squeeze(ops.flip(ops.expand_dims(x, (2, -2)), (1, 4)), (2, 3)),
        "where of numbers": lambda x, t, m: ops.where(t[..., None], x, 1.5) + ops.where(ops.round(x), x, 0.5),
        "whole numbers": lambda x, t, m: ops.stack([t, ops.round(t), ops.abs(t)], axis=-1),
        "of whole numbers": lambda x, t, m: ops.stack([ops.floor(t), ops.sqrt(t * t), ops.tanh(t * 99)], axis=-1),
        "of booleans": lambda x, t, m: ops.stack([ops.sqrt(m), ops.floor(m), ops.exp(m) > 2], axis=-1) * x,
        "a step": lambda x, t, m: x[:, -1][:, None] - x,
        "steps": lambda x, t, m: x[:, 1:],
        "every other, from the end": lambda x, t, m: x[:, ::-2],
        "a feature": lambda x, t, m: x[..., 0][:, :, None] * x,
        "matmul": lambda x, t, m: ops.matmul(ops.matmul(x, ops.transpose(x, (0, 2, 1))), x),
        "an array": lambda x, t, m: x * np.linspace(0.5, 1.5, FEATURES),
        "an array of steps": lambda x, t, m: x * ops.cast(ops.less(lengths, t[:, :1]), x.dtype)[..., None],
    }


NAMES = (
    *("absolute", "negative", "square", "sign", "exp", "floor", "round", "sqrt", "log", "zeros_like", "ones_like"),
    *("add", "subtract", "multiply", "divide", "maximum", "minimum"),
    *("not_equal", "equal", "greater", "greater_equal", "less", "less_equal"),
    *(f"{name}{how}" for name in ("sum", "mean", "prod", "max", "min") for how in ("", " of all")),
    *ALPHABET,
    *("number first", "power", "clip", "where", "isnan", "isinf", "isfinite", "logical", "logical_xor", "any", "all"),
    *("cast", "cast of booleans", "bool", "expand and squeeze", "flip", "concatenate", "concatenate features", "stack"),
    *("several axes", "where of numbers", "whole numbers", "of whole numbers", "of booleans"),
    *("cumsum", "cumprod", "argmax", "argmin", "matmul"),
    *("a step", "steps", "every other, from the end", "a feature", "an array", "an array of steps"),
)


def model_of(keras, make, dtype, within):
    """Return a model that operates on what a layer gives, perhaps on each step of a further axis, and inputs for it."""
    layers, rng = keras.layers, np.random.default_rng(0)
    step = keras.Input((STEPS, FEATURES + 1), dtype=dtype)
    x = layers.GRU(FEATURES, return_sequences=True, dtype=dtype)(step)
    t = keras.ops.cast(keras.ops.abs(step[..., 0] * 3), "int32")
    made = layers.SimpleRNN(2, return_sequences=True, dtype=dtype)(make(x, t, step[..., 1] > 0))
    # Not as many as features: Keras's add takes (batch, 1, 1) for a bias then (3.15, TensorFlow, not compiled).
    array = rng.normal(size=(5, STEPS, FEATURES + 1)).astype(dtype)
    model = keras.Model(step, made)
    if within:
        source = keras.Input((2, STEPS, FEATURES + 1), dtype=dtype)
        model = keras.Model(source, layers.TimeDistributed(model, dtype=dtype)(source))
        array = np.stack([array, array[::-1]], 1)
    return fill(model, rng), [array]


def test_names_are_those_of_the_table(keras):
    assert set(operations(keras)) == set(NAMES)


@pytest.mark.parametrize(
    ("name", "within"), [(name, place % 4 == 0) for place, name in enumerate(NAMES) if place % 2 == 0]
)
def test_operations(keras, torch, name, within):
    check_operation(keras, torch, name, within)


@pytest.mark.long
@pytest.mark.parametrize(("name", "within"), [(name, within) for name in NAMES for within in (False, True)])
def test_operations_the_other_way(keras, torch, name, within):
    check_operation(keras, torch, name, within)


def check_operation(keras, torch, name, within):
    """Compare a model with its port, the reference, the way back and there again; with its shapes and as data."""
    model, arrays = model_of(keras, operations(keras)[name], "float64", within)
    module = gw.port(model, to="torch")
    expected = outputs(model, arrays)
    assert distance(expected, outputs(module, arrays)) < 1e-10
    assert_reference(model, module, arrays)
    again = gw.port(module, to="keras")
    assert distance(expected, outputs(again, arrays)) < 1e-10
    assert distance(expected, outputs(gw.port(again, to="torch"), arrays)) < 1e-10
    assert Network.from_dict(json.loads(json.dumps(module.network.to_dict()))) == module.network
    found = shapes(module.network)[module.network.results[0].split(":")[0]][0]
    assert found[1:] == expected[0].shape[1:]


@pytest.mark.parametrize("name", ["a step", "an array of steps", "where", "concatenate", "sum", "clip", "a feature"])
def test_from_files(keras, torch, tmp_path, name):
    model, arrays = model_of(keras, operations(keras)[name], "float64", within=True)
    expected = outputs(model, arrays)
    gw.save(model, tmp_path / "m.keras")
    module = gw.load(tmp_path / "m.keras", to="torch")
    gw.save(module, tmp_path / "m.safetensors")
    for other in (module, gw.load(tmp_path / "m.safetensors"), gw.load(tmp_path / "m.safetensors", to="keras")):
        assert distance(expected, outputs(other, arrays)) < 1e-10


def test_every_function_is_drawn(keras):
    """The others are activations, which other tests compare one by one."""
    seen = set()
    for make in operations(keras).values():
        network = gw.describe(model_of(keras, make, "float32", False)[0])
        seen |= {layer.spec.function for layer in network.layers if isinstance(layer.spec, Operation)}
    assert set(FUNCTIONS) - seen <= set(ACTIVATIONS) - set(ALPHABET)


def test_a_mask_of_lengths_is_verified(keras, torch, tmp_path):
    source, lengths = keras.Input((STEPS, FEATURES)), keras.Input((), dtype="int32")
    mask = keras.ops.less(np.arange(STEPS)[None], lengths[:, None])
    ends = keras.layers.LSTM(4, return_sequences=True)(source, mask=mask)
    model = fill(
        keras.Model([source, lengths], [ends, ends[:, -1], keras.ops.mean(ends, axis=1)]), np.random.default_rng(0)
    )
    module = gw.port(model, to="torch")
    parity = gw.verify(model, module, gradients=True)
    assert parity.passed, str(parity)
    assert any(planted.mistake == "greater_equal for less" for planted in parity.planted)
    gw.save(module, tmp_path / "m.safetensors")
    arrays = [
        np.random.default_rng(1).normal(size=(3, STEPS, FEATURES)).astype("float32"),
        np.array([4, 1, 2], "int32"),
    ]
    for other in (gw.load(tmp_path / "m.safetensors"), gw.load(tmp_path / "m.safetensors", to="keras")):
        assert distance(outputs(model, arrays), outputs(other, arrays)) < 1e-6


def test_whole_numbers_get_the_type_of_the_model(keras, torch):
    """In a float64 port, too: what Keras divides in float32 there is near, and a layer takes it."""
    tokens = keras.Input((STEPS,), dtype="int32")
    numbers = [tokens / 3, tokens * 0.5, keras.ops.cast(tokens, "float32"), keras.ops.where(tokens > 1, 0.5, -1.5)]
    x = keras.ops.stack([*numbers, keras.ops.zeros_like(numbers[0]) + keras.ops.mean(tokens, 1)[:, None]], axis=2)
    model = fill(keras.Model(tokens, keras.layers.LSTM(2)(x)), np.random.default_rng(0))
    array = np.random.default_rng(1).integers(0, 4, (5, STEPS)).astype("int32")
    for dtype in ("float32", "float64"):
        module = gw.port(model, to="torch", dtype=dtype)
        assert distance(outputs(model, [array]), outputs(module, [array])) < 1e-6
        assert module.double()(torch.tensor(array)).dtype == torch.float64
    assert gw.verify(model, gw.port(model, to="torch")).passed


@pytest.mark.filterwarnings("ignore:Layer 'reshape.*' .* was passed an input with a mask:UserWarning")
def test_shapes_and_layers_that_are_activations(keras, torch):
    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    x = layers.Identity()(layers.ELU()(layers.GRU(4, return_sequences=True)(layers.Masking()(source))))
    x = layers.LSTM(3, return_sequences=True)(layers.ActivityRegularization(l2=0.1)(x))
    x = layers.LSTM(2)(keras.ops.reshape(x, (-1, 2, 6)))
    model = fill(keras.Model(source, x), np.random.default_rng(0))
    array = np.random.default_rng(1).normal(size=(5, STEPS, FEATURES)).astype("float32")
    array[0, 2:] = 0
    module = gw.port(model, to="torch")
    for other in (module, gw.port(module, to="keras")):
        assert distance(outputs(model, [array]), outputs(other, [array])) < 1e-6
    assert [rule.name for layer in module.network.layers for rule in layer.rules] == ["L1L2"]


@pytest.mark.parametrize("kind", ["a step", "the rest", "an array"])
def test_steps_that_an_operation_needs_are_fed(keras, torch, kind):
    """Where the model takes any number of steps and the operation does not."""
    source = keras.Input((None, FEATURES))
    make = {
        "a step": lambda x: x[:, 5:6] + x,
        "the rest": lambda x: x[:, 4:],
        "an array": lambda x: x * np.linspace(0.5, 1.5, 5, dtype="float32")[None, :, None],
    }[kind]
    x = keras.layers.GRU(FEATURES, return_sequences=True)(source)
    model = fill(keras.Model(source, keras.layers.LSTM(2)(make(x))), np.random.default_rng(0))
    parity = gw.verify(model, gw.port(model, to="torch"))
    assert parity.passed, str(parity)


def test_an_output_within_that_nobody_reads(keras, torch):
    source, inner = keras.Input((STEPS, FEATURES)), keras.Input((STEPS, FEATURES))
    two = keras.Model(inner, [keras.layers.LSTM(2)(inner), keras.layers.GRU(2)(inner)])
    model = fill(keras.Model(source, keras.layers.Dense(2)(two(source)[0])), np.random.default_rng(0))
    module = gw.port(model, to="torch")
    assert gw.verify(model, module, gradients=True, training_steps=1).passed
    assert "gru" not in str(module.network)
    assert "nothing that comes out" in " ".join(port(model, "torch").remarks)


def test_gradients_where_no_output_needs_a_weight(keras, torch):
    source = keras.Input((STEPS, FEATURES))
    made = keras.ops.cast(keras.layers.GRU(2)(source) > 0, "float32")
    model = fill(keras.Model(source, made), np.random.default_rng(0))
    assert gw.verify(model, gw.port(model, to="torch"), gradients=True, training_steps=1).passed


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("through", ["nothing", "Identity", "Dropout"])
def test_a_mask_by_hand_that_keras_leaves_on_what_a_model_reads(keras, through):
    source, flags = keras.Input((STEPS, FEATURES)), keras.Input((STEPS,), dtype="bool")
    inner = keras.Sequential([keras.Input((STEPS, FEATURES)), keras.layers.GRU(2)])
    x = keras.layers.Dense(FEATURES)(source)
    read = {"nothing": x, "Identity": keras.layers.Identity()(x), "Dropout": keras.layers.Dropout(0.1)(x)}[through]
    with pytest.raises(UnsupportedModelError, match=r"mask='by hand'(.|\n)*x \* 1"):
        gw.port(keras.Model([source, flags], [inner(read, mask=flags), keras.layers.LSTM(2)(x)]), to="torch")
    alone = fill(keras.Model([source, flags], inner(x * 1, mask=flags)), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(5, STEPS, FEATURES)).astype("float32"), rng.random((5, STEPS)) < 0.6]
    assert distance(outputs(alone, arrays), outputs(gw.port(alone, to="torch"), arrays)) < 1e-6


def test_names_with_colons(keras, torch):
    source = keras.Input((STEPS, FEATURES), name="in:put")
    x = keras.layers.LSTM(3, return_sequences=True, name="lstm:1")(source)
    model = fill(keras.Model(source, keras.layers.GRU(2, name="a:b")(x)), np.random.default_rng(0))
    array = np.random.default_rng(1).normal(size=(5, STEPS, FEATURES)).astype("float32")
    assert distance(outputs(model, [array]), outputs(gw.port(model, to="torch"), [array])) < 1e-6


def refused(keras, name, x):
    ops = keras.ops
    return {
        "einsum": lambda: ops.einsum("bij,bkj->bik", x, x),
        "the batch": lambda: ops.sum(x, axis=0),
        "everything": lambda: x - ops.max(x),
        "the batch turned": lambda: ops.flip(x, 0),
        "an array a sequence": lambda: x * np.ones((2, STEPS, FEATURES), "float32"),
        "approximate": lambda: ops.gelu(x, approximate=True),
        "initial": lambda: ops.max(x, axis=1, initial=0.0),
        "rounded": lambda: ops.cast(x, "float16"),
        "a variable": lambda: x * keras.Variable(2.0),
        "no bound": lambda: keras.ops.clip(x, None, 1.0),
        "over the batch": lambda: ops.reshape(x, (-1, FEATURES)),
        "softmax along the batch": lambda: ops.softmax(x, axis=0),
    }[name]()


@pytest.mark.parametrize(
    "name",
    [
        *("einsum", "the batch", "everything", "the batch turned", "an array a sequence", "approximate"),
        *("a variable", "initial", "rounded", "no bound", "over the batch", "softmax along the batch"),
    ],
)
def test_refused_by_name(keras, name):
    source = keras.Input((STEPS, FEATURES))
    with pytest.raises(UnsupportedModelError, match=r"operation '.*' \(.*\) is not supported(.|\n)*keras.ops"):
        gw.port(keras.Model(source, refused(keras, name, source)), to="torch")


@pytest.mark.parametrize(
    ("options", "word"),
    [({"function": "near"}, "near"), ({"function": "sum", "axis": (0,)}, "axes are numbers from 1")],
)
def test_an_operation_says_what_it_cannot_be(options, word):
    with pytest.raises(SpecError, match=word):
        Operation(**options)


@pytest.mark.parametrize("tail", ["LSTM", "pool", "both"])
def test_a_cast_to_the_type_that_is_there_keeps_the_mask(keras, torch, tail):
    """Keras gives the same tensor then, and its mask is found there when it runs."""
    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    x = keras.ops.cast(layers.GRU(4, return_sequences=True)(layers.Masking()(source)), "float32")
    last = {"LSTM": layers.LSTM(2), "pool": layers.GlobalAveragePooling1D()}.get(tail)
    x = layers.Bidirectional(layers.GRU(2, return_sequences=True))(x) if last is None else last(x)
    model, rng = fill(keras.Model(source, x), np.random.default_rng(0)), np.random.default_rng(1)
    array = rng.normal(size=(5, STEPS, FEATURES)).astype("float32")
    array[0, 2:] = array[1, 1] = 0
    module = gw.port(model, to="torch")
    for other in (module, gw.port(module, to="keras")):
        assert distance(outputs(model, [array]), outputs(other, [array])) < 1e-6


@pytest.mark.parametrize("name", ["leaky_relu", "hard_shrink", "soft_shrink", "relu", "elu", "celu", "squareplus"])
def test_activations_are_taken_at_their_usual_options_alone(keras, torch, name):
    source = keras.Input((STEPS, FEATURES))
    array = np.random.default_rng(1).normal(size=(5, STEPS, FEATURES)).astype("float32")
    usual, others = keras.activations.get(name), {"relu": 0.1, "elu": 2.0, "celu": 2.0, "squareplus": 2}
    model = fill(keras.Model(source, keras.layers.LSTM(2)(usual(source))), np.random.default_rng(0))
    module = gw.port(model, to="torch")
    for other in (module, gw.port(module, to="keras")):
        assert distance(outputs(model, [array]), outputs(other, [array])) < 1e-6
    with pytest.raises(UnsupportedModelError, match="not as it is"):
        gw.port(keras.Model(source, keras.layers.LSTM(2)(usual(source, others.get(name, 0)))), to="torch")


@pytest.mark.parametrize("place", ["one step", "several outputs"])
def test_alone_in_a_model_on_each_step(keras, torch, place):
    """On the way back, too, it runs on the axes of the model and hands on the mask that came to it."""
    layers, ops = keras.layers, keras.ops
    source, step = keras.Input((2, STEPS, FEATURES)), keras.Input((STEPS, FEATURES))
    inner = step[:, :1] if place == "one step" else layers.LSTM(4, return_state=True)(step)[2]
    x = layers.TimeDistributed(keras.Model(step, inner))(source)
    row = keras.Input((FEATURES,))
    sequence = keras.Input((STEPS, FEATURES))
    y = layers.TimeDistributed(keras.Model(row, ops.softmax(row)))(layers.Masking()(sequence))
    model = fill(keras.Model([source, sequence], [x, layers.LSTM(2)(y)]), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(5, *each.shape[1:])).astype("float32") for each in (source, sequence)]
    arrays[1][0, 2:] = arrays[1][1, 1] = 0
    module = gw.port(model, to="torch")
    for other in (module, gw.port(module, to="keras")):
        assert distance(outputs(model, arrays), outputs(other, arrays)) < 1e-6


def test_masks_on_each_step_of_two_axes(keras, torch):
    layers, source, row = keras.layers, keras.Input((2, 3, STEPS, FEATURES)), keras.Input((3, STEPS, FEATURES))
    step = keras.Input((STEPS, FEATURES))
    ends = keras.Model(step, layers.LSTM(2, dtype="float64")(layers.Masking(dtype="float64")(step)))
    rows = keras.Model(row, layers.TimeDistributed(ends, dtype="float64")(row) * 2)
    model = keras.Model(source, layers.TimeDistributed(rows, dtype="float64")(source))
    array = np.random.default_rng(1).normal(size=(5, *source.shape[1:]))
    array[0, :, :, 2:] = array[1, 1, 0, 0] = 0
    module = gw.port(fill(model, np.random.default_rng(0)), to="torch")
    assert distance(outputs(model, [array]), outputs(module, [array])) < 1e-6
    assert_reference(model, module, [array])


def test_whole_numbers_go_into_layers(keras, torch):
    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    whole = keras.ops.cast(source * 3, "int32")
    made = [
        layers.GRU(FEATURES)(source, initial_state=whole[:, 0]),
        *(layer(whole) for layer in (layers.Dense(2), layers.LSTM(2), layers.GlobalAveragePooling1D())),
    ]
    model = fill(keras.Model(source, made), np.random.default_rng(0))
    array = np.random.default_rng(1).normal(size=(5, STEPS, FEATURES)).astype("float32")
    module = gw.port(model, to="torch")
    for other in (module, gw.port(module, to="keras")):
        assert distance(outputs(model, [array]), outputs(other, [array])) < 1e-6


def test_other_shapes_at_another_length_are_a_failure(keras, torch):
    source = keras.Input((None, FEATURES))
    read = keras.layers.LSTM(2, return_sequences=True)(source)
    one, other = (keras.Model(source, made) for made in (read[:, 4:], read[:, -3:]))
    assert gw.verify(one, gw.port(other, to="torch")).verdict == "failed"


def test_an_output_of_an_inner_model_that_is_not_read(keras, torch):
    layers, source, step = keras.layers, keras.Input((2, STEPS, FEATURES)), keras.Input((STEPS, FEATURES))
    masked = layers.Masking()(step)
    two = keras.Model(step, [layers.LSTM(2)(masked), layers.GRU(2)(masked)])
    outer = keras.Input((STEPS, FEATURES))
    on_each = layers.TimeDistributed(keras.Model(outer, keras.ops.tanh(two(outer)[0])))
    model = fill(keras.Model(source, on_each(source)), np.random.default_rng(0))
    array = np.random.default_rng(1).normal(size=(5, *source.shape[1:])).astype("float32")
    array[0, :, 2:] = 0
    module = gw.port(model, to="torch")
    for other in (module, gw.port(module, to="keras")):
        assert distance(outputs(model, [array]), outputs(other, [array])) < 1e-6
