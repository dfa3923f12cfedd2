"""Image front ends of recurrent models: convolutions, pools and shapes over images; expected numbers are Keras's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import random_models
from test_other_layers import by_reference, outputs

import gatewise as gw
from gatewise.arrays.reference import run
from gatewise.core.between import Activation, Dropout, Input, Merge, Pad, Pool, Reshape, Upsample, window
from gatewise.core.network import Network
from gatewise.core.shapes import shapes
from gatewise.core.spec import LSTM, Conv1D, Conv2D
from gatewise.errors import ShapeError, SpecError, UnsupportedModelError
from gatewise.registry import owner

TOLERANCE = {"float32": 3e-5, "float64": 1e-10}
SEEDS = range(2)
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not support masking")
pick = random_models.pick


def assert_same(ours, theirs, dtype):
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    for mine, yours in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(yours, mine, atol=TOLERANCE[dtype] * max(1, np.abs(mine).max(initial=0)))


def drawn(rng, dtype, *shape):
    return rng.normal(size=shape).astype(dtype)


def filled(keras, source, made, seed=0):
    return random_models.fill(keras.Model(source, made), np.random.default_rng(seed))


def computed(obj):
    """Return what each layer of an object computes; names may change on the way, and where a merge stands."""
    layers = gw.describe(obj).layers
    return [(layer.spec, layer.distributed if not isinstance(layer.spec, Merge) else 0) for layer in layers]


def check(model, arrays, dtype, *, reference=True):
    """Compare Keras's outputs with those of the port, of the way back, of the next port and of the reference."""
    ours = outputs(model, arrays)
    assert all(np.ptp(each) > 0 for each in ours)  # what is the same everywhere hides a mistake
    there = gw.port(model, "torch")
    back = gw.port(there, "keras")
    for other in (there, back, gw.port(back, "torch")):
        assert_same(ours, outputs(other, arrays), dtype)
    if reference:
        assert_same(ours, by_reference(model, arrays), dtype)
    assert computed(back) == computed(model) == computed(there)
    assert Network.from_dict(gw.describe(model).to_dict()) == gw.describe(model)
    assert all(map(np.array_equal, model.get_weights(), back.get_weights()))
    return there, back


def sizes(rng, *choices):
    """Return one number for both axes, or one for each."""
    return pick(rng, *choices) if rng.random() < 0.3 else (pick(rng, *choices), pick(rng, *choices))


# name → a layer with random options; (keras.layers, rng, dtype)
DRAWS = {
    "convolution": lambda layers, rng, **d: layers.Conv2D(
        4,
        sizes(rng, 1, 2, 3, 4),
        padding=pick(rng, "valid", "same"),
        groups=pick(rng, 1, 2, 4),
        activation=pick(rng, None, "relu", "softmax", "tanh"),
        use_bias=rng.random() < 0.8,
        **pick(rng, {"strides": sizes(rng, 1, 2, 3)}, {"dilation_rate": (2, 1)}, {"dilation_rate": 2}, {}),
        **d,
    ),
    "max": lambda layers, rng, **d: layers.MaxPooling2D(
        sizes(rng, 1, 2, 3, 4), pick(rng, None, sizes(rng, 1, 2, 5)), padding=pick(rng, "valid", "same"), **d
    ),
    "mean": lambda layers, rng, **d: layers.AveragePooling2D(
        sizes(rng, 1, 2, 3, 4), pick(rng, None, sizes(rng, 1, 2, 5)), padding=pick(rng, "valid", "same"), **d
    ),
    "max of all": lambda layers, rng, **d: layers.GlobalMaxPooling2D(keepdims=bool(rng.random() < 0.5), **d),
    "mean of all": lambda layers, rng, **d: layers.GlobalAveragePooling2D(keepdims=bool(rng.random() < 0.5), **d),
    "padding": lambda layers, rng, **d: layers.ZeroPadding2D(pick(rng, 1, (0, 2), ((3, 1), (0, 2))), **d),
    "cropping": lambda layers, rng, **d: layers.Cropping2D(pick(rng, 1, (0, 2), ((2, 1), (0, 3))), **d),
    "places repeated": lambda layers, rng, **d: layers.UpSampling2D(sizes(rng, 1, 2, 3), **d),
    "spatial": lambda layers, rng, **d: layers.SpatialDropout2D(0.4, **d),
    "batch": lambda layers, rng, **d: layers.BatchNormalization(
        epsilon=pick(rng, 1e-3, 0.1), center=rng.random() < 0.7, scale=rng.random() < 0.7, **d
    ),
    "sample": lambda layers, rng, **d: layers.LayerNormalization(
        epsilon=pick(rng, 1e-3, 0.1), center=rng.random() < 0.7, scale=rng.random() < 0.7, **d
    ),
    "activation": lambda layers, rng, **d: layers.Activation(pick(rng, "softmax", "elu"), **d),
    "order": lambda layers, rng, **d: layers.Permute(pick(rng, (2, 1, 3), (3, 1, 2), (2, 3, 1)), **d),
    "shape": lambda layers, rng, **d: layers.Reshape(pick(rng, (-1, 4), (9, 7, 2, 2), (7, -1), (3, 3, 28)), **d),
    "one axis": lambda layers, rng, **d: layers.Flatten(**d),
}


@pytest.mark.parametrize("name", DRAWS)
def test_each_kind_over_images(keras, torch, name):
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        dtype = "float64" if seed % 2 else "float32"
        free = name not in ("shape", "one axis") and rng.random() < 0.4
        source = keras.Input((None, None, 4) if free else (9, 7, 4), dtype=dtype)
        x = keras.layers.Dense(4, dtype=dtype)(source)
        model = filled(keras, source, DRAWS[name](keras.layers, rng, dtype=dtype)(x), seed)
        check(model, [drawn(rng, dtype, 3, 9, 7, 4)], dtype)


@pytest.mark.parametrize("name", DRAWS)
def test_each_kind_on_each_step(keras, torch, name):
    """In TimeDistributed, also twice: what is seen is one image, whatever the steps beside it."""
    layers = keras.layers
    for seed in SEEDS[:3]:
        rng = np.random.default_rng(seed)
        axes = (2, 3) if seed == 2 else (3,)
        one = DRAWS[name](layers, rng, dtype="float64")
        for _ in axes:
            one = layers.TimeDistributed(one, dtype="float64")
        source = keras.Input((*axes, 9, 7, 4), dtype="float64")
        model = filled(keras, source, one(layers.Dense(4, dtype="float64")(source)), seed)
        check(model, [drawn(rng, "float64", 2, *axes, 9, 7, 4)], "float64")


def test_windows_are_those_of_keras(keras):
    """How many places come out of so many, along each axis for itself."""
    for height, width, padding in ((1, 4, "same"), (2, 3, "valid"), (4, 1, "same")):
        for strides, dilation in (((1, 1), 1), ((2, 1), 1), ((3, 2), 1), ((1, 1), (1, 2))):
            layer = keras.layers.Conv2D(1, (height, width), strides, padding, dilation_rate=dilation)
            for place in ((7, 8), (9, 12)):
                spec = Conv2D(1, 1, height, width, strides=strides, padding=padding, dilation=dilation)
                made = tuple(window(spec, size, axis)[0] for axis, size in enumerate(place))
                assert made == layer.compute_output_shape((1, *place, 1))[1:3]


# ── models ──────────────────────────────────────────────────────────────────────────────────────────────────────


def reader_of_lines(keras, dtype):
    """Text in images (CRNN): columns become steps."""
    layers, d = keras.layers, {"dtype": dtype}
    source = keras.Input((16, 8, 1), **d)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", **d)(source)
    x = layers.MaxPooling2D((2, 2), **d)(x)
    x = layers.BatchNormalization(**d)(layers.Conv2D(6, (2, 3), padding="same", use_bias=False, **d)(x))
    x = layers.MaxPooling2D((1, 2), **d)(layers.Activation("relu", **d)(x))
    x = layers.Dropout(0.2, **d)(layers.Dense(5, activation="tanh", **d)(layers.Reshape((8, 12), **d)(x)))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, **d), **d)(x)
    return source, layers.Dense(7, activation="softmax", **d)(x)


def reader_of_films(keras, dtype):
    """Each image of a film by itself, then a sequence."""
    layers, d = keras.layers, {"dtype": dtype}
    parts = [
        layers.Conv2D(4, 3, strides=2, padding="same", activation="tanh", **d),
        layers.SpatialDropout2D(0.2, **d),
        layers.MaxPooling2D(2, padding="same", **d),
        layers.Flatten(**d),
    ]
    x = source = keras.Input((None, 9, 7, 3), **d)
    for part in parts:
        x = layers.TimeDistributed(part, **d)(x)
    return source, layers.Dense(2, **d)(layers.LSTM(5, **d)(x))


def reader_of_films_by_a_model(keras, dtype):
    layers, d = keras.layers, {"dtype": dtype}
    image = keras.Input((9, 7, 3), **d)
    x = layers.BatchNormalization(**d)(layers.Conv2D(4, (3, 2), activation="elu", **d)(image))
    x = layers.Concatenate(**d)([x, layers.Conv2D(3, 3, padding="same", **d)(x)])
    inner = keras.Model(image, layers.GlobalAveragePooling2D(**d)(layers.LayerNormalization(**d)(x)))
    source = keras.Input((4, 9, 7, 3), **d)
    x = layers.TimeDistributed(inner, **d)(source)
    return source, layers.GRU(3, return_sequences=True, **d)(x)


def reader_of_speech(keras, dtype):
    """Spectrograms (DeepSpeech): strides along time and frequency."""
    layers, d = keras.layers, {"dtype": dtype}
    source = keras.Input((None, 10), **d)
    x = layers.Reshape((-1, 10, 1), **d)(source)
    x = layers.Conv2D(3, (5, 4), strides=(2, 2), padding="same", use_bias=False, **d)(x)
    x = layers.ReLU(**d)(layers.BatchNormalization(**d)(x))
    x = layers.Conv2D(2, (3, 2), strides=(1, 2), padding="same", **d)(x)
    x = layers.Reshape((-1, 6), **d)(x)
    return source, layers.Dense(4, **d)(layers.Bidirectional(layers.GRU(3, return_sequences=True, **d), **d)(x))


MODELS = {
    "lines": (reader_of_lines, (3, 16, 8, 1)),
    "films": (reader_of_films, (2, 5, 9, 7, 3)),
    "films by a model": (reader_of_films_by_a_model, (2, 4, 9, 7, 3)),
    "speech": (reader_of_speech, (2, 11, 10)),
}


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.long), "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_models(keras, torch, name, dtype):
    make, shape = MODELS[name]
    model = filled(keras, *make(keras, dtype))
    there, back = check(model, [drawn(np.random.default_rng(1), dtype, *shape)], dtype)
    if name in ("lines", "films"):  # others have ReLU, which is an Activation then, or a model within
        assert [type(layer) for layer in back._flatten_layers()] == [type(layer) for layer in model._flatten_layers()]
    kinds = {type(module) for module in there.modules()}
    assert torch.nn.Conv2d in kinds
    if dtype == "float32":
        parity = gw.verify(model, there, gradients=True, training_steps=2 if name == "lines" else 0)
        assert parity.verdict != "failed", parity
        compared = {(each.layer, each.tensor) for each in parity.gradients if each.passed}
        convolutions = [layer.name for layer in gw.describe(model).weighted if layer.spec.cell == "conv2d"]
        assert {(name, "kernel") for name in convolutions} <= compared


def test_a_model_verifies(keras, torch):
    """Planted mistakes included: all show in what comes out."""
    layers = keras.layers
    source = keras.Input((6, 5, 3))
    x = layers.Conv2D(3, 3, padding="same", activation="tanh")(source)
    x = layers.Reshape((6, 15))(layers.AveragePooling2D((1, 2), 1, padding="same")(x))
    model = filled(keras, source, layers.LSTM(4)(x))
    parity = gw.verify(model, gw.port(model, "torch"), gradients=True)
    assert parity.passed, parity
    planted = {each.mistake for each in parity.planted if each.layer == gw.describe(model).weighted[0].name}
    assert planted >= {"bias dropped", "kernel transposed"}


@pytest.mark.parametrize("distributed", [False, True])
def test_normalisation_trains_as_in_keras(keras, torch, distributed):
    layers = keras.layers
    norm = layers.BatchNormalization(momentum=0.8, epsilon=1e-2, dtype="float64")
    shape = (3, 4, 5, 2) if distributed else (4, 5, 2)
    source = keras.Input(shape, dtype="float64")
    made = layers.TimeDistributed(norm, dtype="float64")(source) if distributed else norm(source)
    model = filled(keras, source, made)
    there = gw.port(model, "torch").train()
    rng = np.random.default_rng(0)
    for _ in range(2):
        given = rng.normal(size=(3, *shape))
        ours = np.asarray(model(given, training=True))
        np.testing.assert_allclose(there(torch.tensor(given)).detach().numpy(), ours, rtol=0, atol=1e-12)
    module = there.native(gw.describe(model).layers[-1].name)
    np.testing.assert_allclose(module.running_mean.numpy(), np.asarray(norm.moving_mean), rtol=0, atol=1e-13)
    np.testing.assert_allclose(module.running_var.numpy(), np.asarray(norm.moving_variance), rtol=0, atol=1e-13)


def test_dropout_of_whole_features(keras, torch):
    """All over an image or nowhere."""
    source = keras.Input((4, 5, 6))
    model = keras.Model(source, keras.layers.SpatialDropout2D(0.5)(source))
    made = gw.port(model, "torch").train()(torch.ones(8, 4, 5, 6)).numpy()
    assert set(np.unique(made)) == {0.0, 2.0}
    assert np.ptp(made, axis=(1, 2)).max() == 0


# ── masks ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["convolution", "max", "mean of all", "padding", "batch", "sample", "spatial"])
def test_masks_do_what_they_do_in_keras(keras, torch, name):
    """A mask of places ends where Keras ends it; what is left of it shows in the mean over all steps."""
    layers, d = keras.layers, {"dtype": "float64"}
    rng = np.random.default_rng(3)
    source = keras.Input((9, 7, 4), **d)
    x = DRAWS[name](layers, rng, **d)(layers.Dense(4, **d)(layers.Masking(**d)(source)))
    array = drawn(rng, "float64", 3, 9, 7, 4)
    array[0, 6:] = array[1, :, 3] = 0
    check(filled(keras, source, x), [array], "float64")


def test_a_mask_of_steps_goes_past_what_runs_on_each(keras, torch):
    """Given by hand to TimeDistributed, it goes on to the recurrent layer as it came."""
    layers, d = keras.layers, {"dtype": "float64"}
    source, flags = keras.Input((5, 6, 4, 2), **d), keras.Input((5,), dtype="bool")
    x = layers.TimeDistributed(layers.Conv2D(3, 3, **d), **d)(source, mask=flags)
    x = layers.TimeDistributed(layers.MaxPooling2D(2, **d), **d)(x)
    x = layers.TimeDistributed(layers.Flatten(**d), **d)(x)
    model = filled(keras, [source, flags], layers.LSTM(3, return_sequences=True, **d)(x))
    rng = np.random.default_rng(0)
    arrays = [drawn(rng, "float64", 3, 5, 6, 4, 2), np.arange(5) < np.array([[5], [3], [2]])]
    there, _ = check(model, arrays, "float64")
    other = outputs(there, [arrays[0], np.ones((3, 5), bool)])
    assert not np.allclose(other[0], outputs(model, arrays)[0])


# ── files, bare layers, counts ──────────────────────────────────────────────────────────────────────────────────


def test_files(keras, torch, tmp_path):
    model = filled(keras, *reader_of_films(keras, "float32"))
    model.save(tmp_path / "model.keras")
    gw.port_file(tmp_path / "model.keras", tmp_path / "model.safetensors")
    gw.port_file(tmp_path / "model.safetensors", tmp_path / "back.keras")
    given = [drawn(np.random.default_rng(0), "float32", 2, 5, 9, 7, 3)]
    for name in ("model.safetensors", "back.keras"):
        assert_same(outputs(model, given), outputs(gw.load(tmp_path / name), given), "float32")


def test_a_bare_normalisation_of_images(keras, torch):
    made = keras.layers.BatchNormalization()
    made.build((None, 5, 6, 3))
    random_models.fill(made, np.random.default_rng(0))
    assert gw.describe(made).layers[0].spec == Input((None, None, 3))
    assert gw.verify(made, gw.port(made, "torch")).passed


def test_a_bare_convolution(keras, torch):
    made = keras.layers.Conv2D(4, (3, 2), padding="same")
    made.build((None, 5, 6, 3))
    random_models.fill(made, np.random.default_rng(0))
    there = gw.port(made, "torch")
    assert gw.verify(made, there).passed
    back = gw.port(there, "keras")
    assert gw.verify(there, back).passed
    with pytest.raises(UnsupportedModelError, match="features second"):
        gw.port(torch.nn.Conv2d(3, 3, 2), "keras")


def test_counts_of_a_convolution(keras, torch):
    layer = keras.layers.Conv2D(6, (3, 2), groups=2)
    layer.build((None, 5, 5, 8))
    spec = Conv2D(features=8, units=6, height=3, width=2, groups=2)
    count = gw.count(spec, "keras")
    assert count.total == gw.count(spec, "torch").total == layer.count_params()
    assert [term.formula for term in count.terms] == ["units·channels·height·width", "units"]
    [kernel, _] = gw.count(spec.replace(groups=1), "torch").terms
    assert (kernel.shape, kernel.formula) == ((6, 8, 3, 2), "units·features·height·width")
    plan = gw.mapping(spec, "keras", "torch")
    assert plan.verdict == "exact"
    assert plan.proof().passed
    arrays = dict(
        zip(("kernel", "bias"), random_models.fill(layer, np.random.default_rng(0)).get_weights(), strict=True)
    )
    assert np.array_equal(plan.apply(arrays)["weight"], arrays["kernel"].transpose(3, 2, 0, 1))


def test_what_differs_is_explained(keras, torch):
    model = filled(keras, *reader_of_lines(keras, "float32"))
    told = gw.explain(model, gw.port(model, "torch"))
    assert {cause.name: cause.parameters for cause in told.causes} == {"second bias": 32, "moving statistics": -12}
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, (3, 2)), torch.nn.Conv2d(4, 6, 3, groups=2, bias=False))
    inner = [keras.layers.Conv2D(4, (3, 2)), keras.layers.Conv2D(6, 3, groups=2)]
    told = gw.explain(keras.Sequential([keras.Input((9, 9, 1)), *inner]), net)
    assert sum(cause.parameters for cause in told.causes) == told.difference == -6


def test_built_layers_have_drawn_weights(keras, torch):
    spec = Conv2D(4, 6, 3, 2, groups=2)
    made = [gw.build(spec, name, seed=1) for name in ("keras", "torch")]
    assert [type(each).__name__ for each in made] == ["Conv2D", "Conv2d"]
    ours, theirs = (owner(each)[1].read(each) for each in made)
    moved = gw.mapping(spec, "keras", "torch").apply(ours)
    assert all(np.array_equal(moved[name], theirs[name].astype(moved[name].dtype)) for name in theirs)
    limit = np.sqrt(6 / ((4 // 2 + 6) * 6))  # Keras's Glorot, of what a place sees and of all that it gives
    assert 0.9 * limit < np.abs(ours["kernel"]).max() <= limit


# ── upsampling along time ───────────────────────────────────────────────────────────────────────────────────────


def test_steps_given_several_times(keras, torch):
    layers, d = keras.layers, {"dtype": "float64"}
    source = keras.Input((None, 3), **d)
    x = layers.UpSampling1D(3, **d)(layers.LSTM(4, return_sequences=True, **d)(source))
    model = filled(keras, source, layers.LSTM(2, return_sequences=True, **d)(layers.Conv1D(3, 2, **d)(x)))
    check(model, [drawn(np.random.default_rng(0), "float64", 2, 5, 3)], "float64")


# ── mistakes and refusals ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mistake", ["axes exchanged", "kernel turned round", "other strides", "padding counted"])
def test_mistakes_are_seen(keras, torch, mistake):
    layers = keras.layers
    source = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=(1, 2), padding="same")(source)
    x = layers.AveragePooling2D((2, 3), 2, padding="same")(x)
    model = filled(keras, source, layers.LSTM(4)(layers.Reshape((8, 4))(x)))
    there = gw.port(model, "torch")
    assert gw.verify(model, there).verdict != "failed"
    by_cell = {layer.spec.cell or type(layer.spec).__name__: layer for layer in there.network.layers}
    weight = there.native(by_cell["conv2d"].name).weight
    with torch.no_grad():
        if mistake == "axes exchanged":
            weight.copy_(weight.transpose(2, 3).clone())
        elif mistake == "kernel turned round":
            weight.copy_(weight.flip(2, 3).clone())
    if mistake == "other strides":
        there.native(by_cell["conv2d"].name).stride = (2, 1)
        change = by_cell["conv2d"], {"strides": (2, 1)}
        object.__setattr__(change[0], "spec", change[0].spec.replace(**change[1]))
    if mistake == "padding counted":
        pool = by_cell["Pool"]
        object.__setattr__(pool, "spec", pool.spec.replace(pool="max"))
    assert gw.verify(model, there, inputs=drawn(np.random.default_rng(0), "float32", 3, 8, 8, 3)).verdict == "failed"


FIRST = {"data_format": "channels_first", "name": "n"}
REFUSED = {
    "a convolution": (lambda layers: layers.Conv2D(2, 1, **FIRST), "data_format='channels_first'"),
    "a pool": (lambda layers: layers.MaxPooling2D(2, **FIRST), "data_format='channels_first'"),
    "a pool over all": (lambda layers: layers.GlobalMaxPooling2D(keepdims=True, **FIRST), "data_format"),
    "padding": (lambda layers: layers.ZeroPadding2D(1, **FIRST), "data_format='channels_first'"),
    "cropping": (lambda layers: layers.Cropping2D(1, **FIRST), "data_format='channels_first'"),
    "dropout": (lambda layers: layers.SpatialDropout2D(0.1, **FIRST), "data_format='channels_first'"),
    "one axis": (lambda layers: layers.Flatten(**FIRST), "data_format='channels_first'"),
    "an axis of a batch": (lambda layers: layers.BatchNormalization(axis=1, name="n"), "axis=1"),
    "an axis of a sample": (lambda layers: layers.LayerNormalization(axis=(2, 3), name="n"), r"axis=\[2, 3\]"),
    "interpolation": (lambda layers: layers.UpSampling2D(2, interpolation="bilinear", name="n"), "bilinear"),
    "transposed": (lambda layers: layers.Conv2DTranspose(2, 2, name="n"), "Conv2DTranspose"),
    "separable": (lambda layers: layers.DepthwiseConv2D(2, name="n"), "DepthwiseConv2D"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(keras, torch, case):
    make, named = REFUSED[case]
    source = keras.Input((5, 6, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = keras.Model(source, make(keras.layers)(source))
    with pytest.raises(UnsupportedModelError, match=named) as caught:
        gw.port(model, "torch")
    assert "'n'" in str(caught.value)
    assert "Hint" in str(caught.value)


def test_options_are_checked():
    wrong = [{"height": 0}, {"padding": "causal"}, {"groups": 2}, {"strides": (1, 2, 3)}, {"dilation": (1, 0)}]
    for options in wrong:
        with pytest.raises(SpecError, match=next(iter(options))):
            Conv2D(3, 4, **{"height": 2, "width": 2, **options})
    for make in (
        lambda: Pool("max", 2, axes=3),
        lambda: Pool("max", (2, 2)),
        lambda: Pad((1, 2, 3)),
        lambda: Pad(((1, 2), 3)),
        lambda: Upsample(0),
        lambda: Conv1D(3, 4, 2, strides=(1, 1)),
    ):
        with pytest.raises(SpecError):
            make()
    with pytest.raises(ShapeError, match="3 by 5 steps, fewer than one window"):
        run(Conv2D(1, 1, 4, 4), {}, np.zeros((1, 3, 5, 1)))
    for spec, shape in ((Conv2D(3, 4), (9, 3)), (Conv1D(3, 4), (9, 9, 3)), (Conv2D(3, 4, 5), (4, 9, 3))):
        with pytest.raises(SpecError, match=r"cannot read what 'input' gives, of shape"):
            shapes(Network.chain(Input(shape), spec))


def test_networks_of_before_are_read():
    """What was written without the options for images."""
    specs = Conv1D(3, 4, 2), Pool("max", 2), Pad((1, 0)), Dropout(0.1, whole=True), Activation("relu"), LSTM(4, 2)
    data = Network.chain(Input((9, 3)), *specs, Reshape((1, -1))).to_dict()
    for layer in data["layers"]:
        layer["options"].pop("axes", None)
    assert [layer.spec for layer in Network.from_dict(data).layers[1:-1]] == list(specs)
    assert Conv1D(3, 4, 2).options() == dict(
        *[{"features": 3, "units": 4, "width": 2, "strides": 1, "padding": "valid", "dilation": 1, "groups": 1}],
        bias=True,
        activation="linear",
    )
