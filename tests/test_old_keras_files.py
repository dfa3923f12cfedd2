"""Files of Keras 1 and 2 and of tf_keras keep their function; the right values are arithmetic, and tf_keras's own."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

import gatewise as gw
from gatewise.errors import FileError

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
RNG = np.random.default_rng(7)


def fill(model):
    model.set_weights([RNG.normal(0, 0.8, weight.shape) for weight in model.get_weights()])
    return model


def as_old(model, path, version="2.2.4", change=lambda text: text):
    """Save a model as HDF5, as another version of Keras would have; ``change`` turns the text of its config."""
    import h5py

    model.save(path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = change(file.attrs["model_config"])
        for group in (file, file["model_weights"]):
            if version is None:
                del group.attrs["keras_version"]
            else:
                group.attrs["keras_version"] = version
    return path


def sequential(keras, *layers):
    return fill(keras.Sequential([keras.Input((6, 3)), *layers]))


def without(*options):
    """Return a change that takes options out of every config."""

    def strip(value):
        if isinstance(value, list):
            return [strip(each) for each in value]
        if isinstance(value, dict):
            return {key: strip(each) for key, each in value.items() if key not in options}
        return value

    return lambda text: json.dumps(strip(json.loads(text)))


# ── by arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────


def hard_02(x):
    return np.clip(0.2 * x + 0.5, 0, 1)


def sixths(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def lstm(weights, x, gate):
    kernel, recurrent, bias = weights
    h = c = np.zeros((len(x), len(recurrent)))
    for step in x.swapaxes(0, 1):
        i, f, g, o = np.split(step @ kernel + h @ recurrent + bias, 4, -1)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
    return h


def gru_before(weights, x, gate):
    kernel, recurrent, bias = weights
    units = len(recurrent)
    h = np.zeros((len(x), units))
    for step in x.swapaxes(0, 1):
        z, r, n = np.split(step @ kernel + bias, 3, -1)
        z, r = (gate(a + h @ part) for a, part in zip((z, r), np.split(recurrent, 3, -1)[:2], strict=True))
        h = z * h + (1 - z) * np.tanh(n + (r * h) @ recurrent[:, 2 * units :])
    return h


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(2, 6, 3))


@pytest.mark.parametrize(
    ("version", "gate"),
    [("2.2.4", hard_02), ("2.15.0-tf", hard_02), (b"1.2", hard_02), (None, hard_02), ("3.5", sixths)],
)
def test_meaning_follows_the_version(keras, torch, tmp_path, x, version, gate):
    model = sequential(keras, keras.layers.LSTM(4, recurrent_activation="hard_sigmoid"))
    path = as_old(model, tmp_path / "model.h5", version)
    expected = lstm(model.get_weights(), x, gate)
    assert np.abs(expected - lstm(model.get_weights(), x, sixths if gate is hard_02 else hard_02)).max() > 0.02
    np.testing.assert_allclose(np.asarray(gw.load(path)(x)), expected, atol=3e-6)
    module = gw.load(path, to="torch")
    np.testing.assert_allclose(module(torch.tensor(x, dtype=torch.float32)).detach(), expected, atol=3e-6)


def test_what_a_config_of_keras_2_leaves_out(keras, tmp_path, x):
    """Its GRU had hard_sigmoid gates, and no reset_after, which was False."""
    model = sequential(keras, keras.layers.GRU(4, reset_after=False))
    change = without("recurrent_activation", "reset_after")
    loaded = gw.load(as_old(model, tmp_path / "old.hdf5", "2.1.6", change))
    np.testing.assert_allclose(np.asarray(loaded(x)), gru_before(model.get_weights(), x, hard_02), atol=3e-6)


# ── every layer that names it ───────────────────────────────────────────────────────────────────────────────────


def many(keras, hard):
    """Every kind of layer and wrapper that can name an activation."""
    layers = keras.layers
    source = keras.Input((6, 3))
    y = layers.Bidirectional(layers.LSTM(4, recurrent_activation=hard, return_sequences=True))(source)
    y = layers.TimeDistributed(layers.Dense(3, activation=hard))(y)
    y = layers.Conv1D(3, 2, activation=hard)(y)
    cells = [layers.LSTMCell(3, recurrent_activation=hard), layers.GRUCell(4, recurrent_activation=hard)]
    inner = keras.Sequential([keras.Input((5, 3)), layers.RNN(cells, return_sequences=True), layers.Activation(hard)])
    y = layers.SimpleRNN(4, activation=hard, return_sequences=True)(inner(y))
    within = keras.Input((5, 4))
    y = keras.Model(within, layers.GRU(3, recurrent_activation=hard)(within))(y)
    return keras.Model(source, layers.Dense(2, activation=hard)(layers.Activation(hard)(y)))


def test_every_layer_and_wrapper(keras, torch, tmp_path, x):
    from gatewise_keras.functions import hard_sigmoid_02

    old, meant = fill(many(keras, "hard_sigmoid")), many(keras, hard_sigmoid_02)
    meant.set_weights(old.get_weights())
    expected = np.asarray(meant(x))
    path = as_old(old, tmp_path / "old.h5")
    loaded = gw.load(path)
    np.testing.assert_allclose(np.asarray(loaded(x)), expected, atol=1e-6)
    assert np.abs(np.asarray(old(x)) - expected).max() > 1e-4
    said = json.dumps(gw.describe(loaded).to_dict())
    assert said.count('"hard_sigmoid_02"') == 10
    assert '"hard_sigmoid"' not in said


def test_on_to_other_files(keras, torch, tmp_path, x):
    """By the command's way to torch, back to Keras, and from there by Keras itself."""
    model = sequential(
        keras,
        keras.layers.GRU(4, recurrent_activation="hard_sigmoid"),
        keras.layers.Dense(2, activation="hard_sigmoid"),
    )
    path = as_old(model, tmp_path / "old.h5")
    expected = np.asarray(gw.load(path)(x))
    assert np.abs(np.asarray(model(x)) - expected).max() > 1e-3
    from gatewise.live import port_file

    assert port_file(path, tmp_path / "new.safetensors")[1].verdict == "passed"
    gw.save(gw.load(tmp_path / "new.safetensors", to="keras"), tmp_path / "new.keras")
    for loaded in (gw.load(tmp_path / "new.keras"), keras.saving.load_model(tmp_path / "new.keras")):
        np.testing.assert_allclose(np.asarray(loaded(x)), expected, atol=1e-6)
    assert gw.verify(model, gw.load(path)).diagnosis[0].mistake == "hard-sigmoid-version"


# ── other ways of saying a model ────────────────────────────────────────────────────────────────────────────────


def as_list(text):
    """Say a Sequential as Keras 2.1 did: a list, without an input, whose first layer knows its shape."""
    config = json.loads(text)
    source, first, *others = config["config"]["layers"]
    first["config"] |= {"batch_input_shape": source["config"]["batch_shape"], "time_major": False}
    return json.dumps({"class_name": "Sequential", "config": [first, *others]})


def test_list_of_layers(keras, tmp_path, x):
    model = sequential(keras, keras.layers.Conv1D(4, 2), keras.layers.LSTM(4, recurrent_activation="hard_sigmoid"))
    path = as_old(model, tmp_path / "old.h5", "2.1.3", as_list)
    between = keras.Sequential(model.layers[:1])(x)
    expected = lstm(model.layers[1].get_weights(), np.asarray(between), hard_02)
    np.testing.assert_allclose(np.asarray(gw.load(path)(x)), expected, atol=3e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda text: text.replace('"unroll": false', '"unroll": false, "time_major": true'),
            ("time_major=True", "lstm"),
        ),
        (lambda text: text.replace('"LSTM"', '"CuDNNLSTM"'), ("CuDNNLSTM", "tf_keras")),
        (lambda text: text.replace('"recurrent_activation"', '"inner_activation"'), ("Keras 1", "tf_keras")),
    ],
    ids=["time_major", "cudnn", "keras 1"],
)
def test_refused_by_name(keras, tmp_path, change, words):
    model = sequential(keras, keras.layers.LSTM(4, name="lstm"))
    with pytest.raises(FileError) as met:
        gw.load(as_old(model, tmp_path / "old.h5", "2.4.0", change))
    for word in (*words, "old.h5"):
        assert word in str(met.value)


def test_archive_of_tf_keras_is_refused(keras, tmp_path):
    sequential(keras, keras.layers.LSTM(4, recurrent_activation="hard_sigmoid")).save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new, zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        for name in new.namelist():
            old.writestr(name, b'{"keras_version": "2.15.0"}' if name == "metadata.json" else new.read(name))
    with pytest.raises(FileError, match=r"old\.keras was saved by Keras 2\.15\.0[\s\S]*save it there as \.h5"):
        gw.load(tmp_path / "old.keras")


# ── live ────────────────────────────────────────────────────────────────────────────────────────────────────────


def embedded(keras):
    layers = keras.layers
    return keras.Sequential(
        [layers.Embedding(9, 4, input_length=6, mask_zero=True), layers.GRU(3, recurrent_activation="hard_sigmoid")]
    )


def with_states(keras):
    layers = keras.layers
    source = keras.Input((6, 3))
    _, h, c = layers.LSTM(4, recurrent_activation="hard_sigmoid", return_state=True)(source)
    return keras.Model(source, layers.LSTM(4, recurrent_activation="hard_sigmoid")(source, initial_state=[h, c]))


@pytest.mark.frameworks
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [lambda keras: many(keras, "hard_sigmoid"), embedded, with_states])
def test_files_of_tf_keras(keras, torch, tmp_path, x, make):
    tf_keras = pytest.importorskip("tf_keras")
    model = make(tf_keras)
    fed = np.random.default_rng(2).integers(0, 9, (2, 6)) if make is embedded else x
    model(fed)
    expected = fill(model)(fed).numpy()
    model.save(tmp_path / "old.h5")
    np.testing.assert_allclose(np.asarray(gw.load(tmp_path / "old.h5")(fed)), expected, atol=1e-6)
    given = torch.tensor(fed, dtype=torch.int32 if make is embedded else torch.float32)
    np.testing.assert_allclose(gw.load(tmp_path / "old.h5", to="torch")(given).detach(), expected, atol=1e-6)
