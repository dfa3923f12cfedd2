"""Attention in recurrent models: layers and operations, with masks; expected numbers are Keras's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_keras_options import assert_reference, distance, fill, outputs

import gatewise as gw
from gatewise.core.between import Dot, Operation, Softmax
from gatewise.core.network import Network
from gatewise.core.shapes import shapes
from gatewise.core.spec import AdditiveAttention, Attention
from gatewise.errors import SpecError, UnsupportedModelError
from gatewise.parity.faults import softmax_shifts

STEPS, ENTRIES, FEATURES = 4, 5, 3
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not support masking")


def check(model, arrays, *, dtype="float64"):
    """Compare a model with its port, the reference, the way back and there again; with its shapes and as data."""
    module = gw.port(model, to="torch")
    expected, tolerance = outputs(model, arrays), TOLERANCE[dtype]
    assert distance(expected, outputs(module, arrays)) < tolerance
    if dtype == "float64":
        assert_reference(model, module, arrays)
    again = gw.port(module, to="keras")
    assert distance(expected, outputs(again, arrays)) < tolerance
    assert distance(expected, outputs(gw.port(again, to="torch"), arrays)) < tolerance
    assert Network.from_dict(json.loads(json.dumps(module.network.to_dict()))) == module.network
    found = shapes(module.network)
    for reference, made in zip(module.network.results, expected, strict=True):
        name, _, number = reference.partition(":")
        assert found[name][int(number or 0)][1:] == made.shape[1:]
    return module


def distributed(keras, step, array, dtype):
    """Return a model on each step of a further axis, and inputs for it."""
    source = keras.Input((2, *step.input_shape[1:]), dtype=dtype)
    model = keras.Model(source, keras.layers.TimeDistributed(step, dtype=dtype)(source))
    return model, np.stack([array, array[::-1]], 1)


def padded(rng, batch, steps, width, dtype):
    """Return sequences of which the first is short and the last has a hole, and one is whole."""
    array = rng.normal(size=(batch, steps, width)).astype(dtype)
    array[0, steps - 2 :] = array[-1, 1] = 0
    return array


# name → what it makes of a sequence x (steps, features), another y (entries, features) and booleans m for x's steps
OPERATIONS = {
    "matmul": lambda ops, x, y, m: ops.matmul(x, ops.transpose(y, (0, 2, 1))),
    "matmul of an array": lambda ops, x, y, m: ops.matmul(x, np.linspace(-1, 2, FEATURES * 2).reshape(FEATURES, 2)),
    "array of a matmul": lambda ops, x, y, m: ops.matmul(np.linspace(-1, 2, STEPS * 2).reshape(2, STEPS), x),
    "matmul of a vector": lambda ops, x, y, m: ops.matmul(x, np.linspace(-1, 2, FEATURES))[..., None] * x,
    "matmul of stacks": lambda ops, x, y, m: ops.matmul(
        ops.stack([x, -x * x], 1), ops.expand_dims(ops.swapaxes(y, 1, -1), 1)
    )[:, 1],
    "transpose": lambda ops, x, y, m: ops.transpose(ops.moveaxis(x[:, None], 2, -1), (0, 2, 1, 3))[..., 0],
    "softmax": lambda ops, x, y, m: ops.softmax(x, axis=1) * x,
    "log_softmax": lambda ops, x, y, m: ops.log_softmax(ops.matmul(x, ops.swapaxes(y, 1, 2)), axis=-2),
    "softmax of two axes": lambda ops, x, y, m: ops.softmax(x[..., 0], axis=1)[..., None] * x,
    "argmin": lambda ops, x, y, m: ops.cast(ops.argmin(x, axis=-1), x.dtype)[..., None] - x,
    "cumsum of booleans": lambda ops, x, y, m: ops.cast(ops.cumsum(m, axis=-1), x.dtype)[..., None] * x,
    "by hand": lambda ops, x, y, m: ops.sum(
        ops.softmax(ops.where(m[..., None], x @ ops.swapaxes(y, 1, 2), -1e9), axis=1)[..., None] * x[:, :, None], 1
    ),
}


@pytest.mark.parametrize(("name", "within"), [(name, place % 3 == 0) for place, name in enumerate(OPERATIONS)])
def test_operations(keras, torch, name, within):
    layers, rng = keras.layers, np.random.default_rng(0)
    step = keras.Input((STEPS, FEATURES + 1), dtype="float64")
    x = layers.GRU(FEATURES, return_sequences=True, dtype="float64")(step)
    y = keras.ops.concatenate([x, x[:, :1] * 2], axis=1)
    made = OPERATIONS[name](keras.ops, x, y, step[..., 0] > 0)
    model = keras.Model(step, layers.SimpleRNN(2, return_sequences=True, dtype="float64")(made))
    array = rng.normal(size=(5, STEPS, FEATURES + 1))
    if within:
        model, array = distributed(keras, model, array, "float64")
    check(fill(model, rng), [array])


LAYERS = {
    "dot": lambda layers, x, y, m, **d: layers.Dot(2, **d)([x, y]),
    "dot of axes": lambda layers, x, y, m, **d: layers.Dot((1, -1), **d)([x, layers.Permute((2, 1), **d)(x)]),
    "cosine": lambda layers, x, y, m, **d: layers.Dot(-1, normalize=True, **d)([x, y]),
    "dot with a vector": lambda layers, x, y, m, **d: layers.Dot((2, 1), **d)([x, y[:, 0]])[..., None] * x,
    "softmax": lambda layers, x, y, m, **d: layers.Softmax(axis=1, **d)(x * 1) * x,
    "softmax from the end": lambda layers, x, y, m, **d: layers.Softmax(axis=-2, **d)(x * 1) * x,
    "softmax of two": lambda layers, x, y, m, **d: layers.Softmax(axis=[1, 2], **d)(x * 1) * x,
    "softmax under a mask": lambda layers, x, y, m, **d: layers.Dot((1, 1), **d)(
        [layers.Softmax(axis=1, **d)(x * 1, mask=m[..., None]), x]
    ),
    "softmax of scores": lambda layers, x, y, m, **d: layers.Multiply(**d)(
        [x, layers.Reshape((STEPS, 1), **d)(layers.Softmax(**d)(x[..., 0], mask=m))]
    ),
}


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", LAYERS)
def test_dot_and_softmax(keras, torch, name, dtype):
    layers, rng = keras.layers, np.random.default_rng(1)
    step = keras.Input((STEPS, FEATURES + 1), dtype=dtype)
    x = layers.GRU(FEATURES, return_sequences=True, dtype=dtype)(layers.Masking(dtype=dtype)(step))
    y = keras.ops.concatenate([x, x[:, :1] * 2], axis=1)
    made = LAYERS[name](layers, x, y, keras.ops.any(step[..., :2] > 0, axis=-1), dtype=dtype)
    model = keras.Model(step, layers.SimpleRNN(2, return_sequences=True, dtype=dtype)(made))
    array = padded(rng, 5, STEPS, FEATURES + 1, dtype)
    if dtype == "float64":
        model, array = distributed(keras, model, array, dtype)
    check(fill(model, rng), [array], dtype=dtype)


KINDS = {
    "dot": lambda layers, **d: layers.Attention(**d),
    "dot with a scale": lambda layers, **d: layers.Attention(use_scale=True, **d),
    "concat": lambda layers, **d: layers.Attention(score_mode="concat", dropout=0.3, **d),
    "concat with a scale": lambda layers, **d: layers.Attention(use_scale=True, score_mode="concat", **d),
    "additive": lambda layers, **d: layers.AdditiveAttention(dropout=0.2, **d),
    "additive without a scale": lambda layers, **d: layers.AdditiveAttention(use_scale=False, **d),
}


def attending(keras, attention, dtype, *, masks="", call=None, key=False):
    """Return an encoder and a decoder that attends to it: tokens that mask zeros where ``masks`` has a letter."""
    layers, d = keras.layers, {"dtype": dtype}
    query, value = keras.Input((STEPS,), dtype="int32"), keras.Input((ENTRIES, 2), dtype=dtype)
    q = layers.Embedding(9, 2, mask_zero="q" in masks, **d)(query)
    q = layers.LSTM(FEATURES, return_sequences=True, **d)(q)
    v = layers.Masking(**d)(value) if "v" in masks else value
    v = layers.GRU(FEATURES, return_sequences=True, **d)(v)
    read = [q, v, layers.Dense(FEATURES, **d)(v)] if key else [q, v]
    made = attention(read, **(call(keras, query, value) if call else {}))
    made = keras.tree.flatten(made)
    x = layers.Concatenate(**d)([q, made[0]])
    made[0] = layers.SimpleRNN(2, return_sequences=True, **d)(x)  # what mask goes on shows here
    return fill(keras.Model([query, value], made), np.random.default_rng(2))


def read_by(dtype, rng=None):
    rng = rng or np.random.default_rng(3)
    tokens = rng.integers(1, 9, (4, STEPS))
    tokens[0, 2:] = tokens[-1, 1] = 0
    return [tokens, padded(rng, 4, ENTRIES, 2, dtype)]


MASKS = ("", "q", "v", "qv")


@pytest.mark.parametrize(
    ("kind", "masks"),
    [
        pytest.param(kind, masks, marks=() if masks == "qv" or (place + at) % 3 == 0 else pytest.mark.long)
        for place, kind in enumerate(KINDS)
        for at, masks in enumerate(MASKS)
    ],
)
def test_attention(keras, torch, kind, masks):
    place = list(KINDS).index(kind) + len(masks)
    dtype = "float32" if place % 3 == 0 else "float64"
    attention = KINDS[kind](keras.layers, dtype=dtype)
    call = (lambda keras, q, v: {"use_causal_mask": True}) if place % 2 else None
    model = attending(keras, attention, dtype, masks=masks, call=call, key=place % 2 == 0)
    module = check(model, read_by(dtype), dtype=dtype)
    assert gw.describe(gw.port(module, to="keras")) == gw.describe(model)


CALLS = {
    "by hand": lambda ops, q, v: {"mask": [ops.not_equal(q, 3), ops.any(v > -0.5, axis=-1)]},
    "of the value": lambda ops, q, v: {"mask": [None, ops.any(v > -0.5, axis=-1)]},
    "of the query": lambda ops, q, v: {"mask": [ops.not_equal(q, 3), None]},
    "none at all": lambda ops, q, v: {"mask": [None, None]},
    "scores": lambda ops, q, v: {"return_attention_scores": True},
    "scores, causal, by hand": lambda ops, q, v: {
        "return_attention_scores": True,
        "use_causal_mask": True,
        "mask": [None, ops.any(v > -0.5, axis=-1)],
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_what_an_attention_is_told(keras, torch, tmp_path, name):
    """Masks by hand stand for those of Keras; shares come out; a file says the same."""
    call = CALLS[name]
    attention = keras.layers.Attention(use_scale=True, dtype="float64")
    model = attending(keras, attention, "float64", masks="qv", call=lambda keras, q, v: call(keras.ops, q, v), key=True)
    check(model, read_by("float64"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (
        distance(outputs(model, read_by("float64")), outputs(gw.port(loaded, to="torch"), read_by("float64"))) < 1e-10
    )


@pytest.mark.parametrize(
    ("kind", "steps"),
    [("concat with a scale", 2), ("additive", 0), pytest.param("dot with a scale", 2, marks=pytest.mark.long)],
)
def test_gradients(keras, torch, kind, steps):
    attention = KINDS[kind](keras.layers, dtype="float32")
    model = attending(keras, attention, "float32", masks="qv", call=lambda *_: {"return_attention_scores": True})
    parity = gw.verify(model, gw.port(model, to="torch"), gradients=True, training_steps=steps)
    assert parity.passed, parity


def by_hand(keras, way):
    """Return a model that attends by layers and operations; scores have a bias, which their softmax takes away."""
    layers, ops = keras.layers, keras.ops
    source = keras.Input((STEPS, FEATURES))
    x = layers.GRU(4, return_sequences=True)(layers.Masking()(source))
    seen = ops.any(ops.not_equal(source, 0), axis=-1)
    if way == "key":
        return keras.Model(source, layers.Attention(use_scale=True)([x, x, layers.Dense(4, name="scores")(x)]))
    scores = layers.Dense(2 if way == "features" else 1, name="scores")(layers.Dense(5, activation="tanh")(x))
    if way == "features":
        shares = layers.Softmax(axis=1)(scores * 1)
    elif way == "where":
        shares = ops.softmax(ops.where(seen[..., None], scores, -1e9), axis=1)
    elif way == "added":
        shares = ops.softmax(scores[..., 0] + (1 - ops.cast(seen, "float32")) * -1e9)[..., None]
    else:
        shares = layers.Reshape((STEPS, 1))(layers.Activation("softmax")(layers.Flatten()(scores)))
    return keras.Model(source, layers.Dense(2)(layers.Dot((1, 1))([shares, x])))


@pytest.mark.parametrize(
    "way", ["where", "added", *(pytest.param(way, marks=pytest.mark.long) for way in ("flattened", "features", "key"))]
)
def test_a_bias_that_a_softmax_takes_away(keras, torch, way):
    """Its mistakes move no output, its gradient is rounding, and so it is left out; all else must show."""
    model = fill(by_hand(keras, way), np.random.default_rng(8))
    parity = gw.verify(model, gw.port(model, to="torch"), gradients=True, training_steps=2 * (way == "where"))
    assert parity.passed, parity
    assert "scores: bias was left out" in str(parity)
    assert not any(each.layer == "scores" and "bias" in each.mistake for each in parity.planted)


def test_a_bias_that_no_softmax_takes_away(keras, torch):
    """Softmax over the features sees each feature's bias, and so does a layer beside the softmax."""
    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    scores = layers.Dense(2, name="scores")(source)
    beside = layers.Dense(1, name="beside")(source)
    read = [layers.Softmax()(scores), layers.Softmax(axis=1)(beside), beside, layers.Softmax(axis=1)(source)]
    assert softmax_shifts(gw.describe(keras.Model(source, layers.Concatenate()(read)))) == {}


def test_scores_as_features(keras, torch):
    """A layer that reads a score for each step fits one number of steps, and so do the copies that verify makes."""
    layers, source = keras.layers, keras.Input((STEPS, FEATURES))
    x = layers.GRU(FEATURES, return_sequences=True)(source)
    _, shares = layers.Attention()([x, x * 2], return_attention_scores=True)
    model = fill(keras.Model(source, layers.Dense(2)(shares)), np.random.default_rng(9))
    assert gw.verify(model, gw.port(model, to="torch")).passed


@pytest.mark.parametrize("part", ["concat_score", pytest.param("scale", marks=pytest.mark.long)])
def test_a_wrong_weight_is_seen(keras, torch, part):
    attention = keras.layers.Attention(use_scale=True, score_mode="concat")
    model = attending(keras, attention, "float32")
    module = gw.port(model, to="torch")
    with torch.no_grad():
        getattr(module.get_submodule(attention.name), part).mul_(-0.5)
    assert not gw.verify(model, module).passed


@pytest.mark.parametrize(
    ("kind", "causal"), [("concat with a scale", False), ("additive", True), ("dot", True), ("dot with a scale", False)]
)
def test_on_each_step(keras, torch, kind, causal):
    """Attention within a model in TimeDistributed, each step alone, also under masks that the model makes."""
    layers, rng = keras.layers, np.random.default_rng(4)
    d = {"dtype": "float64"}
    step = keras.Input((STEPS, FEATURES), **d)
    x = layers.Masking(**d)(step)
    q = layers.GRU(FEATURES, return_sequences=True, **d)(x)
    made = KINDS[kind](layers, **d)([q, x], use_causal_mask=causal)
    inner = keras.Model(step, layers.LSTM(2, return_sequences=True, **d)(made))
    model, array = distributed(keras, inner, padded(rng, 3, STEPS, FEATURES, "float64"), "float64")
    check(fill(model, rng), [array])


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        *(("Multiply", True), ("Add", False), ("Average", True), ("Subtract", False), ("Maximum", True)),
        *(pytest.param(name, name != "Multiply", marks=pytest.mark.long) for name in ("Multiply", "Add", "Minimum")),
    ],
)
def test_shares_are_spread_over_features(keras, torch, name, masked):
    """A merge of (steps, features) with (steps, 1), each with a mask of its own or without."""
    layers, rng, d = keras.layers, np.random.default_rng(10), {"dtype": "float64"}
    source, other = keras.Input((STEPS, FEATURES), **d), keras.Input((STEPS, 2), **d)
    x, y = (layers.Masking(**d)(each) if masked else each for each in (source, other))
    x, y = layers.GRU(FEATURES, return_sequences=True, **d)(x), layers.LSTM(1, return_sequences=True, **d)(y)
    made = getattr(layers, name)(**d)([y, x] if name == "Maximum" else [x, y])
    model = fill(keras.Model([source, other], layers.GRU(2, return_sequences=True, **d)(made)), rng)
    arrays = [padded(rng, 3, STEPS, FEATURES, "float64"), padded(rng, 3, STEPS, 2, "float64")[::-1].copy()]
    check(model, arrays)


def test_in_files(keras, torch, tmp_path):
    """A model goes through files of both frameworks; weights that are one number keep having no axis."""
    model = attending(keras, keras.layers.Attention(use_scale=True, score_mode="concat"), "float32", masks="qv")
    expected = outputs(model, read_by("float32"))
    gw.save(model, tmp_path / "m.keras")
    gw.save(gw.load(tmp_path / "m.keras", to="torch"), tmp_path / "m.safetensors")
    for to in ("torch", "keras"):
        assert distance(expected, outputs(gw.load(tmp_path / "m.safetensors", to=to), read_by("float32"))) < 1e-5


def test_used_twice(keras, torch):
    """One attention, told something else at each use, has its weights once."""
    layers, d = keras.layers, {"dtype": "float64"}
    source = keras.Input((STEPS, FEATURES), **d)
    attention = layers.AdditiveAttention(name="attention", **d)
    first, scores = attention([source, source], return_attention_scores=True)
    second = attention([first, source], use_causal_mask=True)
    model = fill(keras.Model(source, [second, scores]), np.random.default_rng(5))
    module = check(model, [np.random.default_rng(6).normal(size=(3, STEPS, FEATURES))])
    assert sum(parameter.numel() for parameter in module.parameters()) == FEATURES
    assert gw.describe(gw.port(module, to="keras")) == gw.describe(model)


def test_alone_as_a_module(keras, torch):
    """The modules compute what Keras's layers do, without a model around them, and drop shares in training alone."""
    from gatewise_torch import AdditiveAttention as Additive
    from gatewise_torch import Attention as ByProduct

    rng = np.random.default_rng(7)
    q, v, k = (rng.normal(size=(3, steps, FEATURES)) for steps in (STEPS, ENTRIES, ENTRIES))
    masks = [rng.random((3, STEPS)) > 0.4, rng.random((3, ENTRIES)) > 0.4]
    masks[1][:, 0] = True
    tensors = [torch.tensor(each) for each in (q, v, k)]
    given = dict(zip(("query_mask", "value_mask"), map(torch.tensor, masks), strict=True))
    for ours, theirs in (
        (ByProduct(score="concat", dropout=0.5), keras.layers.Attention(score_mode="concat", dtype="float64")),
        (Additive(FEATURES, dropout=0.5, dtype=torch.float64), keras.layers.AdditiveAttention(dtype="float64")),
    ):
        expected = np.asarray(theirs([q, v, k], mask=masks))
        for name, parameter in ours.named_parameters():
            weight = theirs.get_weights()[0]
            assert parameter.shape == weight.shape, name
            parameter.data = torch.tensor(weight)
        assert distance([expected], [ours.eval()(*tensors, **given).detach().numpy()]) < 1e-10
        assert distance([expected], [ours.train()(*tensors, **given).detach().numpy()]) > 1e-3


def test_counts(keras, torch):
    assert gw.count(Attention(scale=True, score="concat"), "keras").total == 2
    assert gw.count(AdditiveAttention(7), "torch").total == 7
    assert gw.count(Attention(), "keras").total == 0
    source = keras.Input((STEPS, FEATURES))
    attention = keras.layers.Attention(use_scale=True, score_mode="concat")
    model = keras.Model(source, keras.layers.AdditiveAttention()([source, attention([source, source])]))
    told = gw.explain(model, gw.port(model, to="torch"))
    assert (told.first.total, told.second.total) == (5, 5)
    assert {term.name.partition("/")[2] for term in told.first.terms} == {"scale", "concat_score_weight"}


REFUSED = {
    "matmul along the batch": (lambda k, x: k.ops.matmul(x[:, 0], k.ops.transpose(x[:, 0])), "transpose"),
    "matrices of other ranks": (lambda k, x: k.ops.matmul(x[:, None], k.ops.swapaxes(x, 1, 2)), "matmul"),
    "argmax of all": (lambda k, x: k.ops.expand_dims(k.ops.argmax(x), 0), "argmax"),
    "cumsum through the batch": (lambda k, x: k.ops.cumsum(x, axis=0), "cumsum"),
    "softmax through the batch": (lambda k, x: k.ops.softmax(x, axis=0), "softmax"),
    "Softmax through the batch": (lambda k, x: k.layers.Softmax(axis=-3)(x), "axis"),
    "a mask of numbers": (lambda k, x: k.layers.Softmax()(x[..., 0], mask=x[..., 1]), "above a half"),
    "a mask that goes on": (
        lambda k, x: k.layers.GRU(2)(k.layers.Softmax(axis=1)(x, mask=x > 0)),
        "an entry for each step",
    ),
    "one step": (lambda k, x: k.layers.Attention()([x[:, None], x[:, None]]), "inputs"),
    "code of its own": (lambda k, x: type("Mine", (k.layers.Attention,), {})()([x, x]), "of class Mine"),
    "many heads": (lambda k, x: k.layers.MultiHeadAttention(2, 3)(x, x), "MultiHeadAttention"),
    "a mask of other axes": (lambda k, x: k.layers.Attention()([x, x], mask=[x > 0, None]), "mask"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(keras, torch, name):
    make, word = REFUSED[name]
    source = keras.Input((STEPS, FEATURES))
    x = keras.layers.GRU(FEATURES, return_sequences=True)(source)
    with pytest.raises(UnsupportedModelError, match=word):
        gw.port(keras.Model(source, make(keras, x)), to="torch")


def test_alone_is_refused(keras, torch):
    from gatewise_torch import AdditiveAttention as Additive

    layer = keras.layers.Attention(use_scale=True)
    layer.build([(None, STEPS, FEATURES), (None, ENTRIES, FEATURES)])
    for obj, to in ((layer, "torch"), (Additive(3), "keras")):
        with pytest.raises(UnsupportedModelError, match="several sequences"):
            gw.port(obj, to=to)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Softmax((0,)),
        lambda: Softmax(()),
        lambda: Dot((0, 1)),
        lambda: Attention(score="cosine"),
        lambda: AdditiveAttention(0),
        lambda: Attention(dropout=2),
        lambda: Operation("cumsum", axis=(0,)),
    ],
)
def test_specs_check_their_options(make):
    with pytest.raises(SpecError):
        make()
