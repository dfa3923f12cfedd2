"""Layers between recurrent ones: normalisations, convolutions, pools and shapes; expected numbers are Keras's own."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import random_models

import gatewise as gw
from gatewise.arrays.network import unstacked, walk
from gatewise.arrays.reference import run
from gatewise.core.between import Dropout, Input, Merge, Noise, Pool, window
from gatewise.core.network import Layer
from gatewise.core.spec import BatchNorm, Conv1D, Dense, LayerNorm
from gatewise.errors import ShapeError, SpecError, UnsupportedModelError
from gatewise.parity.subject import side
from gatewise.parity.training import ADAM, absorbed_shifts
from gatewise.parity.units import units
from gatewise.registry import owner

BOTH = {"gradients": True, "training_steps": 3}
TOLERANCE = {"float32": 3e-5, "float64": 1e-9}
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not support masking")
pick = random_models.pick


def outputs(obj, arrays):
    return owner(obj)[1].call(obj, arrays)


def by_reference(obj, arrays):
    """Run what an object is by the NumPy cells, with its own weights."""
    one = side(obj)
    return walk(unstacked(one.network)[0], {unit.name: unit.weights for unit in units(one)}, arrays)


def assert_same(ours, theirs, dtype):
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    for mine, yours in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(yours, mine, atol=TOLERANCE[dtype] * max(1, np.nanmax(np.abs(mine), initial=0)))


def chain(keras, shape, *layers, dtype="float32", seed=0, kind=None):
    model = keras.Sequential([keras.Input(shape, dtype=kind or dtype), *layers])
    return random_models.fill(model, np.random.default_rng(seed))


def masked_inputs(rng, batch, steps, width, dtype):
    array = rng.normal(size=(batch, steps, width)).astype(dtype)
    array[0, steps - 2 :] = array[-1, 1] = 0
    return array


# name → a layer with random options; (keras.layers, rng, dtype)
DRAWS = {
    "batch": lambda layers, rng, **d: layers.BatchNormalization(
        epsilon=pick(rng, 1e-3, 1e-5, 0.1), center=rng.random() < 0.7, scale=rng.random() < 0.7, **d
    ),
    "sample": lambda layers, rng, **d: layers.LayerNormalization(
        epsilon=pick(rng, 1e-3, 1e-6, 0.1), center=rng.random() < 0.7, scale=rng.random() < 0.7, **d
    ),
    "convolution": lambda layers, rng, **d: layers.Conv1D(
        4,
        pick(rng, 1, 2, 3, 4),
        padding=pick(rng, "valid", "same", "causal"),
        groups=pick(rng, 1, 2, 4),
        activation=pick(rng, None, "relu", "softmax", "tanh"),
        use_bias=rng.random() < 0.8,
        **pick(rng, {"strides": 2}, {"strides": 3}, {"dilation_rate": 2}, {}),
        **d,
    ),
    "max": lambda layers, rng, **d: layers.MaxPooling1D(
        pick(rng, 1, 2, 3, 4), pick(rng, None, 1, 2, 5), padding=pick(rng, "valid", "same"), **d
    ),
    "mean": lambda layers, rng, **d: layers.AveragePooling1D(
        pick(rng, 1, 2, 3, 4), pick(rng, None, 1, 2, 5), padding=pick(rng, "valid", "same"), **d
    ),
    "max of all": lambda layers, rng, **d: layers.GlobalMaxPooling1D(keepdims=bool(rng.random() < 0.5), **d),
    "mean of all": lambda layers, rng, **d: layers.GlobalAveragePooling1D(keepdims=bool(rng.random() < 0.5), **d),
    "spatial": lambda layers, rng, **d: layers.SpatialDropout1D(0.4, **d),
    "leaky": lambda layers, rng, **d: layers.LeakyReLU(pick(rng, 0.3, 0.01), **d),
    "padding": lambda layers, rng, **d: layers.ZeroPadding1D(pick(rng, 1, (0, 2), (3, 1)), **d),
    "constants": lambda layers, rng, **d: layers.Rescaling(
        pick(rng, 1 / 255, rng.normal(size=4).astype(d["dtype"])), pick(rng, 0.0, -1.5, [0.5, 0.0, 1.0, -2.0]), **d
    ),
    "noise": lambda layers, rng, **d: layers.GaussianNoise(0.3, **d),
    "noise around one": lambda layers, rng, **d: layers.GaussianDropout(0.3, **d),
}


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("name", DRAWS)
def test_each_kind_between_recurrent_layers(keras, torch, name, masked):
    """Keras's outputs come out of the port, of the way back, and of the reference; under a mask, too."""
    layers = keras.layers
    for seed in range(4):
        rng = np.random.default_rng(seed)
        dtype = "float64" if seed % 2 else "float32"
        source = keras.Input((pick(rng, None, 11), 3), dtype=dtype)
        x = layers.Masking(dtype=dtype)(source) if masked else source
        x = layers.GRU(4, return_sequences=True, dtype=dtype)(x)
        x = DRAWS[name](layers, rng, dtype=dtype)(x)
        if len(x.shape) == 3:  # what is left of the mask shows here
            x = layers.LSTM(3, return_sequences=True, dtype=dtype)(x)
        model = random_models.fill(keras.Model(source, x), rng)
        arrays = [masked_inputs(rng, 3, 11, 3, dtype)]
        ours = outputs(model, arrays)
        there = gw.port(model, "torch")
        back = gw.port(there, "keras")
        assert_same(ours, outputs(there, arrays), dtype)
        assert_same(ours, outputs(back, arrays), dtype)
        assert_same(ours, by_reference(model, arrays), dtype)
        assert gw.describe(back) == gw.describe(model)
        assert all(map(np.array_equal, model.get_weights(), back.get_weights()))


@pytest.mark.parametrize(
    ("options", "adapted", "masked"),
    [({}, True, True), ({}, False, False), ({"invert": True}, True, False), ({"axis": None}, False, True)],
    ids=str,
)
def test_standardised_inputs(keras, torch, tmp_path, options, adapted, masked):
    """By statistics that the layer took itself, or was given; they are constants to a port."""
    layers, rng = keras.layers, np.random.default_rng(0)
    data = rng.normal(size=(20, 6, 3)) * (5, 0.1, 300) + (1, -5, 1000)
    if "axis" in options:
        given = {"mean": 300.0, "variance": 9e4}
    else:
        given = {"mean": data.mean((0, 1)), "variance": data.var((0, 1))}
    for dtype in ("float32", "float64"):
        layer = layers.Normalization(**options, **({} if adapted else given), dtype=dtype)
        if adapted:
            layer.adapt(data)
        source = keras.Input((6, 3), dtype=dtype)
        x = layer(layers.Masking(dtype=dtype)(source) if masked else source)
        inner = [layers.GRU(4, return_sequences=True, dtype=dtype)]
        model = keras.Model(source, inner[0](x))
        inner[0].set_weights([rng.normal(size=weight.shape) for weight in inner[0].get_weights()])
        arrays = [rng.normal(size=(3, 6, 3)).astype(dtype) if "invert" in options else data[:3].astype(dtype)]
        arrays[0][0, 4:] = arrays[0][-1, 1] = 0
        there = gw.port(model, "torch")
        back = gw.port(there, "keras")
        for other in (there, back):
            assert_same(outputs(model, arrays), outputs(other, arrays), dtype)
        assert_same(outputs(model, arrays), by_reference(model, arrays), dtype)
        parity = gw.verify(model, there, **BOTH)
        assert parity.passed, str(parity)
    back.save(tmp_path / "model.keras")
    assert_same(outputs(model, arrays), outputs(gw.load(tmp_path / "model.keras"), arrays), "float32")
    gw.save(there, tmp_path / "model.safetensors")
    assert_same(outputs(model, arrays), outputs(gw.load(tmp_path / "model.safetensors"), arrays), dtype)


ACTIVATIONS = {
    "leaky_relu(0.1)": lambda keras, **d: keras.layers.LeakyReLU(0.1, **d),
    "leaky_relu(0.3)": lambda keras, **d: keras.layers.ReLU(negative_slope=0.3, **d),
    "elu(0.5)": lambda keras, **d: keras.layers.ELU(0.5, **d),
    "relu(0.75)": lambda keras, **d: keras.layers.ReLU(0.75, **d),
    "relu6": lambda keras, **d: keras.layers.ReLU(6, **d),
    "softsign": lambda keras, **_: keras.ops.softsign,
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("leaky_relu(0.3)", "float32"), ("relu(0.75)", "float32"), ("softsign", "float32"), ("elu(0.5)", "float64")),
        *(pytest.param(name, "float32", marks=pytest.mark.long) for name in ("leaky_relu(0.1)", "elu(0.5)", "relu6")),
    ],
)
def test_activations_that_are_layers_or_functions(keras, torch, tmp_path, name, dtype):
    """Of cells and gates, of a Dense and a convolution, and as layers of their own."""
    layers, rng, d = keras.layers, np.random.default_rng(0), {"dtype": dtype}
    make = ACTIVATIONS[name]
    source = keras.Input((6, 3), **d)
    x = layers.LSTM(4, activation=make(keras, **d), return_sequences=True, **d)(source)
    x = layers.Bidirectional(layers.GRU(3, recurrent_activation=make(keras, **d), return_sequences=True, **d), **d)(x)
    x = layers.Dense(4, make(keras, **d), **d)(layers.Conv1D(3, 2, activation=make(keras, **d), **d)(x))
    x = layers.RNN(layers.SimpleRNNCell(3, activation=make(keras, **d), **d), return_sequences=True, **d)(x)
    x = make(keras, **d)(x) if isinstance(make(keras, **d), keras.Layer) else layers.Activation(make(keras), **d)(x)
    model = random_models.fill(keras.Model(source, x), rng)
    arrays = [rng.normal(size=(3, 6, 3)).astype(dtype)]
    there = gw.port(model, "torch")
    back = gw.port(there, "keras")
    used = [spec.options().get("activation") for spec in (layer.spec for layer in there.network.layers)]
    assert used.count(name) == 5
    back.save(tmp_path / "model.keras")
    for met in (outputs(there, arrays), by_reference(model, arrays)):
        assert_same(outputs(model, arrays), met, dtype)
    for other in (back, gw.load(tmp_path / "model.keras")):
        assert all(map(np.array_equal, outputs(model, arrays), outputs(other, arrays)))
        assert gw.describe(other) == gw.describe(model)
    parity = gw.verify(model, there, gradients=True)
    assert parity.passed, str(parity)


@pytest.mark.filterwarnings("ignore:The source takes any number of axes:gatewise.errors.PortWarning")
def test_activations_of_tensorflow_and_of_torch(keras, torch):
    tf, nn = pytest.importorskip("tensorflow"), torch.nn
    model = chain(keras, (5, 3), keras.layers.LSTM(4, activation=tf.nn.relu), keras.layers.Dense(2, tf.tanh))
    assert [layer.spec.activation for layer in gw.describe(model).layers[1:]] == ["relu", "tanh"]
    given = [np.random.default_rng(1).normal(size=(3, 5, 3)).astype("float32")]
    assert_same(outputs(model, given), outputs(gw.port(model, "torch"), given), "float32")
    module = nn.Sequential(nn.Linear(3, 4), nn.ELU(0.5), nn.Linear(4, 4), nn.LeakyReLU(0.1))
    back = gw.port(module, "keras")
    assert [layer.spec.options().get("activation") for layer in gw.describe(back).layers[1:]] == [
        *("linear", "elu(0.5)", "linear", "leaky_relu(0.1)")
    ]
    assert_same(outputs(module, [given[0][:, 0]]), outputs(back, [given[0][:, 0]]), "float32")


def test_noise_is_there_in_training_alone(keras, torch):
    """As much of it as Keras makes: the deviations of many draws."""
    layers, ones = keras.layers, np.ones((4, 50, 100), "float32")
    for layer in (layers.GaussianNoise(0.3), layers.GaussianDropout(0.2)):
        model = keras.Sequential([keras.Input((50, 100)), layer])
        module = gw.port(model, "torch")
        assert np.array_equal(outputs(module, [ones])[0], ones)
        made = module.train()(torch.tensor(ones)).numpy()
        expected = np.asarray(model(ones, training=True))
        assert made.std() == pytest.approx(expected.std(), rel=0.05)
        assert made.mean() == pytest.approx(1, abs=0.02)
        assert abs(np.corrcoef(made[0].ravel(), made[1].ravel())[0, 1]) < 0.1


def test_attention_along_time(keras, torch):
    """A weight for each step, by Permute and a Dense along time; steps cut off at both ends."""
    layers, source = keras.layers, keras.Input((7, 3))
    x = layers.Cropping1D((2, 1))(layers.LSTM(4, return_sequences=True)(source))
    weights = layers.Permute((2, 1))(layers.Dense(4, activation="softmax")(layers.Permute((2, 1))(x)))
    x = layers.LSTM(2)(layers.LeakyReLU(0.3)(layers.Multiply()([x, weights])))
    model = random_models.fill(keras.Model(source, x), np.random.default_rng(0))
    arrays = [np.random.default_rng(1).normal(size=(5, 7, 3)).astype("float32")]
    module = gw.port(model, to="torch")
    back = gw.port(module, to="keras")
    for other in (module, back, gw.port(back, to="torch")):
        assert_same(outputs(model, arrays), outputs(other, arrays), "float32")
    assert_same(outputs(model, arrays), by_reference(model, arrays), "float32")
    parity = gw.verify(model, module, gradients=True)
    assert parity.passed, parity
    assert [layer.negative_slope for layer in back.layers if type(layer) is layers.LeakyReLU] == [0.3]


def test_shapes_there_and_back(keras, torch):
    layers = keras.layers
    model = chain(
        keras,
        (6, 4),
        layers.Conv1D(3, 2),
        layers.Flatten(),
        layers.Dense(4),
        layers.BatchNormalization(),
        layers.RepeatVector(5),
        layers.LSTM(6, return_sequences=True),
        layers.Reshape((3, -1, 2)),
        layers.Reshape((15, 2)),
    )
    parity = gw.verify(model, there := gw.port(model, "torch"))
    assert parity.passed, parity
    back = gw.port(there, "keras")
    assert [type(layer) for layer in back.layers[1:]] == [type(layer) for layer in model.layers]
    assert gw.verify(there, back).passed


def test_a_convolution_of_each_outer_step(keras, torch):
    """The usual way to read a long sequence in parts."""
    layers = keras.layers
    inner = (
        layers.Conv1D(4, 3, activation="relu"),
        layers.MaxPooling1D(2),
        layers.BatchNormalization(),
        layers.Flatten(),
    )
    model = chain(keras, (None, 8, 2), *map(layers.TimeDistributed, inner), layers.LSTM(3), layers.Dense(1))
    assert gw.verify(model, gw.port(model, "torch")).verdict != "failed"
    arrays = [np.random.default_rng(1).normal(size=(2, 3, 8, 2)).astype("float32")]
    there = gw.port(model, "torch")
    assert_same(outputs(model, arrays), outputs(there, arrays), "float32")
    assert_same(outputs(model, arrays), outputs(gw.port(there, "keras"), arrays), "float32")


def test_a_mask_of_tokens_goes_through_what_lets_it_through(keras, torch):
    layers = keras.layers
    for between in (layers.SpatialDropout1D(0.2), layers.LayerNormalization(), layers.Conv1D(5, 2, padding="same")):
        table = layers.Embedding(9, 5, mask_zero=True)
        model = chain(keras, (None,), table, between, layers.LSTM(3), kind="int32")
        arrays = [np.array([[3, 1, 0, 0, 0], [2, 0, 4, 8, 1]], "int32")]
        assert_same(outputs(model, arrays), outputs(gw.port(model, "torch"), arrays), "float32")


# ── training ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shape", "masked"), [((3,), False), ((5, 3), False), ((5, 3), True)], ids=["2 axes", "3 axes", "3 axes, masked"]
)
def test_batch_normalisation_trains_as_in_keras(keras, torch, shape, masked):
    """Outputs and moving statistics, batch after batch: Keras's variance is biased, and torch's is not."""
    layers = keras.layers
    norm = layers.BatchNormalization(momentum=0.8, epsilon=1e-2, dtype="float64")
    before = [layers.Masking(dtype="float64")] if masked else []
    model = chain(keras, shape, *before, norm, dtype="float64")
    there = gw.port(model, "torch").train()
    rng = np.random.default_rng(0)
    for _ in range(3):
        given = masked_inputs(rng, 4, 5, 3, "float64") if len(shape) > 1 else rng.normal(size=(4, 3))
        ours = np.asarray(model(given, training=True))
        np.testing.assert_allclose(there(torch.tensor(given)).detach().numpy(), ours, rtol=0, atol=1e-13)
    module = there.native(norm.name)
    np.testing.assert_allclose(module.running_mean.numpy(), np.asarray(norm.moving_mean), rtol=0, atol=1e-14)
    np.testing.assert_allclose(module.running_var.numpy(), np.asarray(norm.moving_variance), rtol=0, atol=1e-14)
    plain = torch.nn.BatchNorm1d(3, 1e-2, 0.2, dtype=torch.float64)
    plain(torch.tensor(given).reshape(-1, 3))
    biased = np.var(given.reshape(-1, 3), 0) * 0.2 + 0.8
    assert not np.allclose(plain.running_var.numpy(), biased)  # so nn.BatchNorm1d would not have done


def test_batch_normalisation_of_each_step_trains_step_by_step(keras, torch):
    layers = keras.layers
    norm = layers.TimeDistributed(layers.BatchNormalization(momentum=0.5, dtype="float64"), dtype="float64")
    model = chain(keras, (4, 3), norm, dtype="float64")
    there = gw.port(model, "torch").train()
    given = np.random.default_rng(0).normal(size=(3, 4, 3))
    ours = np.asarray(model(given, training=True))
    np.testing.assert_allclose(there(torch.tensor(given)).detach().numpy(), ours, atol=1e-9)
    module = there.native(norm.layer.name if hasattr(there, norm.layer.name) else gw.describe(model).layers[-1].name)
    np.testing.assert_allclose(module.running_var.numpy(), np.asarray(norm.layer.moving_variance), atol=1e-9)


@pytest.mark.parametrize("affine", [True, False])
def test_a_frozen_batch_normalisation_is_run_as_at_inference(keras, torch, tmp_path, affine):
    norm = keras.layers.BatchNormalization(center=affine, scale=affine)
    model = chain(keras, (5, 3), norm, keras.layers.LSTM(4))
    norm.trainable = False
    there = gw.port(model, "torch")
    gw.save(there, tmp_path / "frozen.safetensors")
    given = np.random.default_rng(0).normal(size=(4, 5, 3)).astype("float32")
    ours = np.asarray(model(given, training=True))
    for module in (there, gw.load(tmp_path / "frozen.safetensors"), copy.deepcopy(there)):
        module.train()
        np.testing.assert_allclose(module(torch.tensor(given)).detach().numpy(), ours, atol=1e-6)
        assert module.native(norm.name).frozen
        assert not gw.port(module.eval(), "keras").get_layer(norm.name).trainable
    trained = gw.port(chain(keras, (5, 3), keras.layers.BatchNormalization(name="norm")), "torch")
    assert not trained.native("norm").frozen
    assert all(parameter.requires_grad for parameter in trained.parameters())
    assert gw.port(trained, "keras").get_layer("norm").trainable


def test_training_goes_on_alike(keras, torch):
    layers = keras.layers
    between = layers.Conv1D(5, 3, padding="causal"), layers.LayerNormalization(), layers.BatchNormalization()
    model = chain(keras, (8, 3), *between, layers.MaxPooling1D(2), layers.LSTM(4), layers.Dense(2))
    parity = gw.verify(model, gw.port(model, "torch"), gradients=True, training_steps=5)
    assert parity.passed, parity
    compared = {(each.layer, each.tensor) for each in parity.gradients}
    one, other = between[1].name, between[2].name
    assert {(one, "scale"), (other, "scale"), (other, "shift")} <= compared
    assert {(between[0].name, "kernel"), (between[0].name, "bias")} <= compared
    assert not any(part in ("mean", "variance") for _, part in compared)  # no gradient moves them
    # A shift goes off with the mean of the batch, and Adam moves it by what rounding leaves of its gradient.
    words = [*parity.advice, *parity.training.words]
    assert sum(word.startswith(f"{one}: shift was left out: {other} takes it away") for word in words) == 2
    assert (one, "shift") not in compared | {(each.layer, each.tensor) for each in parity.training.weights}
    assert parity.training.dtype == "float32"
    assert not any("float64" in word for word in words)  # which nothing else needs


def test_biases_that_a_batch_normalisation_takes_away():
    def absorbed(dense=None, norm=None, outputs=(), more=(), **front):
        spec = Dense(4, 4, **front)
        layers = Layer("front", spec, ("input",), **dense or {}), Layer("norm", BatchNorm(4), ("front",), **norm or {})
        return absorbed_shifts(gw.Network((Layer("input", Input((5, 4))), *layers, *more), outputs))

    assert absorbed() == {"norm": [("front", "bias")]}
    assert absorbed(activation="relu") == absorbed(bias=False) == {}
    assert absorbed(dense={"trainable": False}) == absorbed(norm={"trainable": False}) == {}
    assert absorbed(outputs=("norm", "front")) == {}  # it is seen beside the normalisation
    assert absorbed(outputs=("norm",), more=[Layer("other", Dense(4, 4), ("norm",), shares="front")]) == {}
    specs = LayerNorm(4), Dense(4, 4), Dropout(0.5), Pool("max", 2), BatchNorm(4)
    found = absorbed_shifts(gw.Network.chain(Input((5, 4)), *specs))
    assert found == {"batchnorm": [("dense", "bias"), ("layernorm", "shift")]}


def random_in_training(keras):
    """A model with a batch normalisation, and dropout of all kinds."""
    layers = keras.layers
    masks = layers.Masking(), layers.LSTM(4, dropout=0.2, recurrent_dropout=0.3, return_sequences=True)
    norm = layers.BatchNormalization(name="norm", momentum=0.9)
    drops = layers.SpatialDropout1D(0.4), layers.Dropout(0.3)
    return chain(keras, (5, 3), *masks, norm, *drops, layers.GRU(3, dropout=0.1), layers.Dense(2))


def kept(obj):
    """All that a comparison must leave as it was."""
    if hasattr(obj, "modules"):
        state = [value for module in obj.modules() for value in vars(module).items() if not value[0].startswith("_")]
        return state, [value.tolist() for value in obj.state_dict().values()], [each.grad for each in obj.parameters()]
    rates = ("rate", "dropout", "recurrent_dropout", "trainable")
    state = [[getattr(layer, rate, None) for rate in rates] for layer in obj._flatten_layers()]
    return state, [weight.tolist() for weight in obj.get_weights()]


def test_batches_are_normalised_by_themselves_and_dropout_is_off(keras, torch):
    """Under a mask, too, of which only the steps that count enter the statistics."""
    model = random_in_training(keras)
    there = gw.port(model, "torch")
    there.native("norm").train()  # the others are in eval mode
    before = kept(model), kept(there)
    parity = gw.verify(model, there, **BOTH)
    assert parity.passed, parity
    assert (kept(model), kept(there)) == before
    moved = {each.tensor: each for each in parity.training.weights if each.layer == "norm"}
    assert {"mean", "variance", "scale", "shift"} == set(moved)
    for each in (moved["mean"], moved["variance"]):
        assert each.passed
        assert each.largest > 0.01
        assert each.tolerance < 1e-3 * each.largest


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=pytest.mark.long) for block in range(1, 9))])
def test_random_models_with_batch_normalisation_learn_alike(keras, torch, block):
    layers = keras.layers
    for seed in range(3 * block, 3 * block + 3):
        rng = np.random.default_rng(seed)
        masking = [layers.Masking()] * int(rng.integers(2))
        cell = getattr(layers, pick(rng, *random_models.CELLS))(3, return_sequences=True, dropout=pick(rng, 0, 0.2))
        options = {"sequence": True, "wide": 3, "shrinks": True}
        between, sequence, _ = random_models.draw_between(keras, rng, "float32", **options)
        center, scale = map(bool, rng.integers(2, size=2))
        norm = layers.BatchNormalization(momentum=pick(rng, 0.99, 0.5), center=center, scale=scale)
        last = layers.GRU(2) if sequence else layers.Dense(2)
        model = chain(keras, (6, 3), *masking, cell, between, norm, layers.Dropout(0.3), last, seed=seed)
        parity = gw.verify(model, gw.port(model, "torch"), **BOTH)
        assert parity.verdict != "failed", (seed, parity)


@pytest.mark.parametrize("deeper", [False, True])
def test_a_shared_batch_normalisation_moves_in_the_order_of_keras(keras, torch, deeper):
    """Which is not that of the calls here; what the later use reads weighs more."""
    layers = keras.layers
    x, y = sources = [keras.Input((3,), name=name) for name in "xy"]
    norm, head = layers.BatchNormalization(name="norm", momentum=0.5), layers.Dense(2)
    made = [head(norm(y)), layers.Dense(2)(head(norm(layers.ReLU()(x))))] if deeper else [head(norm(x)), head(norm(y))]
    model = random_models.fill(keras.Model(sources, layers.Concatenate()(made)), np.random.default_rng(0))
    there = gw.port(model, "torch")
    back = gw.port(there, "keras")
    assert gw.describe(back) == gw.describe(model)
    assert gw.verify(model, there, training_steps=2).passed
    # A comparison trains a copy of the model, and in that the order is the one that was described.
    given = [scale * np.random.default_rng(scale).normal(size=(4, 3)).astype("float32") for scale in (1, 9)]
    model(given, training=True), back(given, training=True), there.train()(*map(torch.tensor, given))
    for moved in (there.native("norm").running_var, back.get_layer("norm").moving_variance):
        np.testing.assert_allclose(np.asarray(moved), np.asarray(norm.moving_variance), rtol=1e-5)


def test_a_shared_batch_normalisation_keeps_its_order_on_the_way_back(keras, torch):
    """Where Keras would take another."""
    norm, sources = BatchNorm(3, momentum=0.5), [Layer(name, Input((3,))) for name in "xy"]
    uses = Layer("norm", norm, ("x",)), Layer("again", norm, ("y",), shares="norm", resumes="norm")
    ends = Layer("dense", Dense(3, 3), ("norm",)), Layer("add", Merge("sum"), ("again", "dense"))
    there = gw.build(gw.Network((*sources, *uses, *ends)), "torch")
    back = gw.port(there, "keras")
    given = [scale * np.random.default_rng(scale).normal(size=(4, 3)).astype("float32") for scale in (1, 9)]
    back(given, training=True), there.train()(*map(torch.tensor, given))
    moved = np.asarray(back.get_layer("norm").moving_variance)
    np.testing.assert_allclose(there.native("norm").running_var.numpy(), moved, rtol=1e-5)


def unbiased(module, given, made):
    """Move ``running_var`` as ``nn.BatchNorm1d`` does."""
    if module.training:
        values = given[0].detach().flatten(0, -2)
        module.running_var += (1 - module.momentum) * (values.var(0) - values.var(0, correction=0))


def without_mask(kind):
    """Return a batch normalisation that takes masked steps into its statistics."""
    return type("Unmasked", (kind,), {"_moments": lambda self, value, mask: kind._moments(value, None)})


@pytest.mark.parametrize(
    ("plant", "parts"),
    [
        (lambda norm: setattr(norm, "momentum", 0.91), {"mean", "variance"}),
        (lambda norm: norm.register_forward_hook(unbiased), {"variance"}),
        (lambda norm: setattr(norm, "__class__", without_mask(type(norm))), {"mean"}),
    ],
    ids=["momentum", "unbiased variance", "mask"],
)
def test_wrong_moving_statistics_are_found(keras, torch, plant, parts):
    layers = keras.layers
    masking = [layers.Masking()] * ("mean" in parts and "variance" not in parts)
    model = chain(keras, (5, 3), *masking, layers.BatchNormalization(name="norm"), layers.Dense(2))
    there = gw.port(model, "torch")
    plant(there.native("norm"))
    parity = gw.verify(model, there, training_steps=3)
    assert parity.verdict == "failed"
    assert all(each.passed for each in parity.outputs)  # at inference there is nothing to see
    assert parts <= {each.tensor for each in parity.training.weights if each.layer == "norm" and not each.passed}


def test_a_wrong_epsilon_is_found(keras, torch):
    model = chain(keras, (5, 3), keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(2))
    there = gw.port(model, "torch")
    there.native("norm").epsilon = 1e-5
    assert gw.verify(model, there).verdict == "failed"
    # The batch's variance is what it is added to in training.
    there.native("norm").register_forward_pre_hook(
        lambda norm, _: setattr(norm, "epsilon", 1e-5 if norm.training else 1e-3)
    )
    parity = gw.verify(model, there, gradients=True)
    assert all(each.passed for each in parity.outputs)
    assert ("dense", "kernel") not in {(each.layer, each.tensor) for each in parity.gradients if each.passed}


@pytest.mark.parametrize("which", ["keras", "torch"])
def test_a_model_is_as_it_was_after_an_error(keras, torch, monkeypatch, which):
    model = random_in_training(keras)
    there = gw.port(model, "torch")
    obj, adapter = {"keras": (model, owner(model)[1]), "torch": (there, owner(there)[1])}[which]
    real, before = adapter.outputs, (kept(model), kept(there))

    def interrupted(*args, **options):
        real(*args, **options)
        assert kept(obj) != before[which == "torch"]
        raise InterruptedError

    monkeypatch.setattr(adapter, "outputs", interrupted)
    given = [np.ones((2, 5, 3), "float32")]
    with pytest.raises(InterruptedError):
        adapter.gradients(obj, given, [np.zeros((2, 2))])
    assert (kept(model), kept(there)) == before
    with pytest.raises(InterruptedError):
        adapter.train(obj, [(given, [np.zeros((2, 2))])], rule="epsilon-hat", **ADAM)
    assert (kept(model)[0], kept(there)[0]) == (before[0][0], before[1][0])


def test_torch_s_own_batch_normalisation_is_refused_and_the_difference_said(torch):
    with pytest.raises(UnsupportedModelError, match="unbiased variance"):
        gw.describe(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)))


def test_regularisers_and_constraints_go_along(keras, torch):
    from gatewise_torch import constrain, penalty

    layers = keras.layers
    conv = layers.Conv1D(4, 3, kernel_regularizer="l1", bias_regularizer="l2", kernel_constraint="max_norm")
    norms = layers.LayerNormalization(gamma_regularizer="l2"), layers.BatchNormalization(beta_constraint="non_neg")
    model = chain(keras, (8, 3), conv, *norms)
    there = gw.port(model, "torch")
    np.testing.assert_allclose(penalty(there).item(), float(sum(model.losses)), rtol=1e-5)
    constrain(there)
    for variable in model.trainable_variables:
        if variable.constraint is not None:
            variable.assign(variable.constraint(variable))
    parity = gw.verify(model, there)
    assert parity.verdict != "failed", parity
    back = gw.port(there, "keras")
    np.testing.assert_allclose(float(sum(back.losses)), float(sum(model.losses)), rtol=1e-5)


# ── mistakes ────────────────────────────────────────────────────────────────────────────────────────────────────


def exchange(torch, module):
    with torch.no_grad():
        mean = module.running_mean.clone()
        module.running_mean.copy_(module.running_var)
        module.running_var.copy_(mean.abs())


def wrong(torch, module, mistake):
    """Make a mistake in a copy of a port."""
    made = copy.deepcopy(module)
    layers = {layer.spec.cell or type(layer.spec).__name__: layer for layer in made.network.layers}

    def change(kind, **options):
        layer = layers[kind]
        object.__setattr__(layer, "spec", layer.spec.replace(**options))

    native = {kind: made.native(layer.name) for kind, layer in layers.items() if kind not in ("", "Input")}
    if mistake == "statistics exchanged":
        exchange(torch, native["batchnorm"])
    elif mistake == "epsilon of torch":
        native["batchnorm"].epsilon = 1e-5
    elif mistake == "epsilon of the layer's":
        native["layernorm"].eps = 1e-5
    elif mistake == "kernel read backwards":
        with torch.no_grad():
            native["conv1d"].weight.copy_(native["conv1d"].weight.flip(-1))
    elif mistake == "other side padded":
        change("conv1d", padding="causal")
    elif mistake == "padding counted":
        change("Pool", pool="max")
    elif mistake == "scale forgotten":
        with torch.no_grad():
            native["layernorm"].weight.fill_(1)
    return made


@pytest.mark.parametrize(
    "mistake",
    [
        "statistics exchanged",
        "epsilon of torch",
        "epsilon of the layer's",
        "kernel read backwards",
        "other side padded",
        "padding counted",
        "scale forgotten",
    ],
)
def test_mistakes_are_seen(keras, torch, mistake):
    layers = keras.layers
    model = chain(
        keras,
        (9, 3),
        layers.Conv1D(4, 3, padding="same"),
        layers.BatchNormalization(epsilon=0.02),
        layers.AveragePooling1D(2, padding="same"),
        layers.LayerNormalization(epsilon=0.02),
        layers.LSTM(4, return_sequences=True),
    )
    there = gw.port(model, "torch")
    assert gw.verify(model, there).passed
    assert gw.verify(model, wrong(torch, there, mistake)).verdict == "failed"


def test_verify_plants_mistakes_of_these_kinds(keras, torch):
    layers = keras.layers
    model = chain(keras, (9, 3), layers.Conv1D(4, 3, padding="same"), layers.BatchNormalization(), layers.LSTM(4))
    planted = {each.mistake for each in gw.verify(model, gw.port(model, "torch")).planted}
    assert planted >= {"mean and variance exchanged", "padding causal for same", "bias dropped"}


def test_steps_that_are_alike_have_no_direction(keras, torch):
    layers = keras.layers
    model = chain(keras, (3,), layers.RepeatVector(4), layers.Dropout(0.1), layers.LSTM(3, return_sequences=True))
    parity = gw.verify(model, gw.port(model, "torch"))
    assert parity.passed, parity
    assert not any("other end" in each.mistake for each in parity.planted)


def test_windows_of_unknown_length_are_fed_enough_steps(keras, torch):
    layers = keras.layers
    model = chain(keras, (None, 3), layers.Conv1D(4, 9), layers.MaxPooling1D(3), layers.LSTM(3))
    parity = gw.verify(model, gw.port(model, "torch"))
    assert parity.passed, parity


# ── files, bare layers, counts ──────────────────────────────────────────────────────────────────────────────────


def every_kind(keras):
    layers = keras.layers
    return chain(
        keras,
        (9, 4),
        layers.Conv1D(6, 3, padding="causal", groups=2, activation="relu"),
        layers.BatchNormalization(momentum=0.9, center=False),
        layers.MaxPooling1D(2),
        layers.LayerNormalization(scale=False),
        layers.LSTM(4, return_sequences=True),
        layers.LayerNormalization(center=False, scale=False),
        layers.GlobalAveragePooling1D(),
    )


def test_files(keras, torch, tmp_path):
    model = every_kind(keras)
    model.save(tmp_path / "model.keras")
    gw.port_file(tmp_path / "model.keras", tmp_path / "model.safetensors")
    there = gw.load(tmp_path / "model.safetensors")
    gw.port_file(tmp_path / "model.safetensors", tmp_path / "back.keras")
    back = gw.load(tmp_path / "back.keras")
    given = [np.random.default_rng(0).normal(size=(3, 9, 4)).astype("float32")]
    for other in (there, back, gw.load(tmp_path / "model.safetensors", to="keras")):
        assert_same(outputs(model, given), outputs(other, given), "float32")
    assert gw.describe(back) == gw.describe(model)
    assert all(map(np.array_equal, model.get_weights(), back.get_weights()))


def test_what_differs_is_explained(keras, torch):
    model = every_kind(keras)
    told = gw.explain(model, gw.port(model, "torch"))
    assert {cause.name: cause.parameters for cause in told.causes} == {"second bias": 16, "moving statistics": -12}
    assert sum(cause.parameters for cause in told.causes) == told.difference


@pytest.mark.parametrize("kind", ["BatchNormalization", "LayerNormalization", "Conv1D"])
def test_bare_layers(keras, torch, kind):
    made = getattr(keras.layers, kind)(*((4, 3) if kind == "Conv1D" else ()))
    made.build((None, 5, 3))
    random_models.fill(made, np.random.default_rng(0))
    there = gw.port(made, "torch")
    assert gw.verify(made, there).passed
    back = gw.port(there, "keras")
    assert gw.verify(there, back).passed
    if kind != "Conv1D":
        assert type(there).__name__ == {"BatchNormalization": "BatchNorm", "LayerNormalization": "LayerNorm"}[kind]
        assert type(back) is type(made)


def test_a_layer_norm_of_torch_goes_to_keras(keras, torch):
    module = torch.nn.LayerNorm(4, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.randn(4))
    made = gw.port(module, "keras")
    assert type(made).__name__ == "LayerNormalization"
    assert gw.verify(module, made).passed
    for other in (torch.nn.BatchNorm1d(3), torch.nn.Conv1d(3, 3, 2)):
        with pytest.raises(UnsupportedModelError, match="features second"):
            gw.port(other, "keras")


@pytest.mark.parametrize(
    ("spec", "classes"),
    [
        (BatchNorm(5), ("BatchNormalization", "BatchNorm1d")),
        (LayerNorm(5), ("LayerNormalization", "LayerNorm")),
        (Conv1D(4, 6, 3, groups=2), ("Conv1D", "Conv1d")),
    ],
)
def test_built_layers_have_drawn_weights(keras, torch, spec, classes):
    made = [gw.build(spec, name, seed=1) for name in ("keras", "torch")]
    assert tuple(type(each).__name__ for each in made) == classes
    ours, theirs = (owner(each)[1].read(each) for each in made)
    moved = gw.mapping(spec, "keras", "torch").apply(ours)
    assert moved.keys() == theirs.keys()
    assert all(np.array_equal(moved[name], theirs[name].astype(moved[name].dtype)) for name in moved)


def test_counts_of_a_convolution():
    spec = Conv1D(features=8, units=6, width=3)
    assert gw.count(spec, "keras").total == gw.count(spec, "torch").total == 3 * 8 * 6 + 6
    assert [term.formula for term in gw.count(spec, "keras").terms] == ["units·features·width", "units"]
    [kernel, _] = gw.count(spec.replace(groups=2), "torch").terms
    assert (kernel.shape, kernel.formula, kernel.arithmetic) == ((6, 4, 3), "units·channels·width", "6·4·3")
    plan = gw.mapping(spec, "keras", "torch")
    assert plan.verdict == "exact"
    assert plan.proof().passed


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED = {
    "an axis of a batch": (lambda layers: layers.BatchNormalization(axis=1, name="n"), "axis=1"),
    "an axis of a sample": (lambda layers: layers.LayerNormalization(axis=1, name="n"), r"axis=\[1\]"),
    "two axes": (lambda layers: layers.LayerNormalization(axis=(1, 2), name="n"), r"axis=\[1, 2\]"),
    "renormalisation": (lambda layers: layers.BatchNormalization(renorm=True, name="n"), "renorm=True"),
    "channels first": (lambda layers: layers.MaxPooling1D(data_format="channels_first", name="n"), "data_format"),
    "root mean square": (lambda layers: layers.LayerNormalization(rms_scaling=True, name="n"), "rms_scaling=True"),
    "constants of steps": (lambda layers: layers.Rescaling(np.ones((5, 1)), name="n"), r"scale='an array \(5, 1\)'"),
    "statistics of steps": (
        lambda layers: layers.Normalization(axis=1, mean=np.ones(5), variance=np.ones(5), name="n"),
        r"variance='an array \(1, 5, 1\)'",
    ),
    "a bound and a slope": (lambda layers: layers.ReLU(2.0, negative_slope=0.1, name="n"), "negative_slope=0.1"),
    "a threshold": (lambda layers: layers.ReLU(threshold=0.5, name="n"), "threshold=0.5"),
    "a threshold within": (
        lambda layers: layers.GRU(3, recurrent_activation=layers.ReLU(threshold=0.5), return_sequences=True, name="n"),
        "threshold=0.5",
    ),
    "an activation with weights": (lambda layers: layers.Dense(3, layers.PReLU(), name="n"), "activation='PReLU'"),
    "steps spread out": (lambda layers: layers.Conv1DTranspose(4, 2, name="n"), "Conv1DTranspose"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(keras, torch, case):
    make, named = REFUSED[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = chain(keras, (5, 3), make(keras.layers), keras.layers.LSTM(2))
    with pytest.raises(UnsupportedModelError, match=named) as caught:
        gw.port(model, "torch")
    assert "'n'" in str(caught.value)
    assert "Hint" in str(caught.value)


def test_options_are_checked():
    for options in ({"width": 0}, {"padding": "full"}, {"groups": 2}, {"strides": 0}, {"dilation": 1.5}):
        with pytest.raises(SpecError, match=next(iter(options))):
            Conv1D(3, 4, **{"width": 2, **options})
    with pytest.raises(SpecError, match="momentum"):
        BatchNorm(3, momentum=2)
    with pytest.raises(SpecError, match="deviation"):
        Noise(-1)
    with pytest.raises(SpecError, match="pool"):
        Pool("least")
    with pytest.raises(ShapeError, match="fewer than one window"):
        run(Conv1D(1, 1, 4), {}, np.zeros((1, 3, 1)))


def test_windows_are_those_of_keras(keras):
    """How many steps come out of so many, for every padding."""
    for width in range(1, 5):
        for strides, dilation in ((1, 1), (2, 1), (3, 1), (1, 2)):
            for padding in ("valid", "same", "causal"):
                layer = keras.layers.Conv1D(1, width, strides, padding, dilation_rate=dilation)
                for steps in range(1 + dilation * (width - 1), 12):
                    spec = Conv1D(1, 1, width, strides=strides, padding=padding, dilation=dilation)
                    assert window(spec, steps)[0] == layer.compute_output_shape((1, steps, 1))[1]
