"""gw.inspect, gw.describe of a config, and the first commands on one file, held against what Keras and torch say."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise.cli import main


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def model(keras):
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((10, 3)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.2, name="drop"),
            layers.Conv1DTranspose(5, 2, name="odd"),
            layers.GRU(5, name="gru"),
            layers.Dense(1, name="head"),
        ]
    )
    made.compile("adam", "mse")
    made.train_on_batch(np.zeros((2, 10, 3), "float32"), np.zeros((2, 1), "float32"))
    return made


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "model.keras")
    (folder / "config.json").write_text(model.to_json())
    return folder


# ── count and explain of one file or object ─────────────────────────────────────────────────────────────────────


def test_a_count_is_what_keras_summarises(keras, model, files):
    for given in (model, files / "model.keras"):
        count = gw.count(given)
        assert [(each.name, each.kind, each.parameters) for each in count.layers] == [
            (layer.name, type(layer).__name__, layer.count_params()) for layer in model.layers
        ]
        assert [each.shape for each in count.layers] == [str(tuple(layer.output.shape)) for layer in model.layers]
        trainable = sum(int(np.prod(each.shape)) for each in model.trainable_weights)
        variables = sum(int(np.prod(each.shape)) for each in model.optimizer.variables)
        assert (count.trainable, count.optimizer) == (trainable, variables)
        assert count.total == model.count_params() + variables
        assert [each.name for each in count.layers if not each.known and each.parameters] == ["odd"]


def test_the_other_home_beside_is_what_a_port_has(keras, torch):
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.LSTM(4, return_sequences=True, name="lstm"),
            layers.BatchNormalization(name="norm"),
            layers.GRU(5, reset_after=False, name="gru"),
            layers.Dense(2, name="head"),
        ]
    )
    made.layers[0].trainable = False
    ported = gw.port(made, to="torch")
    beside = gw.count(made).beside
    assert beside.total == sum(each.numel() for each in ported.parameters())
    assert beside.trainable == sum(each.numel() for each in ported.parameters() if each.requires_grad)
    assert gw.count(made, "torch").total == gw.count(ported).total == beside.total
    assert gw.count(ported).beside.total == made.count_params()
    for of in ("parameters", "trainable", "stored", "effective"):
        alone, both = gw.explain(made, of=of), gw.explain(made, ported, of=of)
        assert [tally[2:] for tally in alone.tallies] == [tally[2:] for tally in both.tallies]
        assert [(each.layer, each.name, each.parameters) for each in alone.causes] == [
            (each.layer, each.name, each.parameters) for each in both.causes
        ]


def test_a_torch_module_is_counted_in_its_own_terms(torch):
    made = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.BatchNorm1d(4), torch.nn.PReLU())
    made[0].weight.requires_grad = False
    count = gw.count(made)
    assert [(each.name, each.kind, each.parameters) for each in count.layers] == [
        (name, type(part).__name__, sum(each.numel() for each in part.parameters()))
        for name, part in made.named_children()
    ]
    assert count.trainable == sum(each.numel() for each in made.parameters() if each.requires_grad)
    assert [each.known for each in count.layers if each.parameters] == [True, True, False]
    assert [each.parameters for each in count.beside.layers] == [16, 0, 16, 1]


def test_one_file_is_enough(files):
    counted = invoke("count", files / "model.keras")
    assert counted.exit_code == 0
    for words in ("Layer (type)", "Output Shape", "Param #", "both (Bidirectional)", "(None, 10, 8)", "drop (Dropout)"):
        assert words in counted.stdout, words
    assert "odd (Conv1DTranspose): gatewise does not know this layer" in " ".join(counted.stdout.split())
    told = invoke("explain", files / "model.keras", "--of", "trainable")
    assert told.exit_code == 0
    assert "One gate is a dense layer" not in told.stdout
    told = invoke("explain", files / "model.keras", "-f", "json")
    causes = json.loads(told.stdout)["tables"][1]["rows"]
    assert causes[0]["cause"] == "both: second bias"
    assert sum(row["parameters"] for row in causes[:-1]) == causes[-1]["parameters"] < 0


def test_only_one_layer_opens_with_its_gate(torch):
    one, two = torch.nn.LSTM(3, 4), torch.nn.Sequential(torch.nn.LSTM(3, 4), torch.nn.Linear(4, 1))
    assert gw.explain(one).opening.startswith("One gate is a dense layer")
    assert gw.explain(two).opening == "torch has 149 parameters, keras 16 fewer."
    network = gw.Network.chain(gw.LSTM(3, 4), gw.Dense(4, 1))
    assert gw.explain(network, "keras", "torch").opening == ""


def test_arrays_without_names_are_counted_by_their_order(keras, tmp_path):
    layer = keras.layers.LSTM(2)
    layer.build((None, None, 3))
    np.savez(tmp_path / "lstm.npz", *layer.get_weights())
    count = gw.count(tmp_path / "lstm.npz")
    assert (count.total, count.beside.total, count.layers[0].kind) == (48, 56, "LSTM")


@pytest.mark.parametrize(
    "call",
    [
        lambda: gw.count(gw.LSTM(3, 5)),
        lambda: gw.count(None),
        lambda: gw.count(3),
        lambda: gw.explain(None),
        lambda: gw.explain(gw.LSTM(3, 5)),
        lambda: gw.inspect(None),
        lambda: gw.inspect({}),
        lambda: gw.describe({}),
        lambda: gw.describe({"class_name": 3, "config": []}),
    ],
)
def test_bad_arguments_are_one_error(call):
    with pytest.raises(gw.GatewiseError):
        call()


@pytest.mark.parametrize("framework", ["nope", 5])
def test_an_unknown_framework_for_a_model(torch, framework):
    with pytest.raises(gw.UnknownFrameworkError):
        gw.count(torch.nn.LSTM(3, 5), framework)


# ── inspect ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inspect_says_what_a_keras_file_holds(keras, model, files):
    found = gw.inspect(files / "model.keras")
    assert (found.framework, found.version) == ("keras", keras.__version__)
    assert found.size == (files / "model.keras").stat().st_size
    assert [(each.name, each.kind, each.parameters) for each in found.layers] == [
        (layer.name, type(layer).__name__, layer.count_params()) for layer in model.layers
    ]
    arrays = [np.asarray(each) for each in model.weights]
    kept = [each for each in found.tensors if "seed_generator" not in each.name]
    assert sorted(each.shape for each in kept) == sorted(each.shape for each in arrays)
    assert sum(each.bytes for each in kept) == sum(each.nbytes for each in arrays)
    assert {each.dtype for each in kept} == {"float32"}
    assert len(found.optimizer) == len(model.optimizer.variables)
    assert found.portable is False
    assert "'odd' is of class Conv1DTranspose" in found.reason
    text = invoke("inspect", files / "model.keras").stdout
    for words in ("a Sequential model of Keras", keras.__version__, "gatewise cannot port it", "Conv1DTranspose"):
        assert words in text


def test_inspect_of_other_files_and_objects(torch, tmp_path):
    module = torch.nn.LSTM(3, 5, batch_first=True)
    live = gw.inspect(module)
    assert live.portable is True
    assert [(each.name, each.shape) for each in live.tensors] == [
        (name, tuple(each.shape)) for name, each in module.named_parameters()
    ]
    assert live.size == sum(each.nbytes for each in module.parameters())
    gw.save(module, tmp_path / "lstm.safetensors")
    saved = gw.inspect(tmp_path / "lstm.safetensors")
    assert saved.portable is True
    assert {each.shape for each in saved.tensors} == {each.shape for each in live.tensors}
    np.savez(tmp_path / "some.npz", a=np.zeros((2, 3), "float16"))
    some = gw.inspect(tmp_path / "some.npz")
    assert some.portable is None
    assert [tuple(each)[3:] for each in some.tensors] == [("float16", (2, 3), 12)]
    assert json.dumps(some.to_dict())
    assert "float16" in str(some)


def test_what_keras_cannot_load_is_listed_all_the_same(keras, tmp_path):
    class Mine(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(3, 3))

        def call(self, given):
            return given @ self.w

    keras.Sequential([keras.Input((4, 3)), Mine(name="mine"), keras.layers.LSTM(2, name="lstm")]).save(
        tmp_path / "own.keras"
    )
    found = gw.inspect(tmp_path / "own.keras")
    assert [(each.name, each.parameters) for each in found.layers][1:] == [("mine", 9), ("lstm", 48)]
    assert found.portable is False
    assert "Mine" in found.reason
    count = gw.count(tmp_path / "own.keras")
    assert [(each.name, each.parameters) for each in count.layers][1:] == [("mine", 9), ("lstm", 48)]
    assert (count.total, count.layers[0].shape) == (57, "(None, 4, 3)")
    assert "Mine" in count.notes[-1]
    assert invoke("count", tmp_path / "own.keras").exit_code == 0
    assert str(count).splitlines()[2:4] == ["  mine (Mine) ?: 9", "  lstm (LSTM) ?: 48"]
    assert "lstm (LSTM)" in count._repr_html_()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and so on", b"\x89HDF\r\n\x1a\n and so on"])
@pytest.mark.parametrize("name", ["bad.keras", "bad.h5", "bad.npz", "bad.safetensors", "bad.json"])
def test_damaged_files_are_one_message(tmp_path, name, damage):
    (tmp_path / name).write_bytes(damage)
    done = invoke("inspect", tmp_path / name)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("Error: ") == 1
    assert name in done.stderr


# ── configs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def layer(kind, **options):
    return {"class_name": kind, "config": options}


def sequential(*layers, shape=(None, 10, 32)):
    return layer("Sequential", layers=[layer("InputLayer", batch_shape=list(shape)), *layers])


LSTM = layer("LSTM", units=64, return_sequences=True)
DENSE = layer("Dense", units=10)
TIMED = sequential(layer("TimeDistributed", layer=LSTM, name="td"), layer("TimeDistributed", layer=DENSE))


def test_the_published_mistake_is_explained(tmp_path):
    """A6: Keras raises before a model exists; the config alone is enough to say why, and both ways out."""
    facts = (
        "'td' cannot read the shape (None, 10, 32)",
        "no timesteps left",
        "Drop the TimeDistributed",
        "feed 4 axes",
    )
    with pytest.raises(gw.SpecError) as raised:
        gw.describe(TIMED)
    (tmp_path / "config.json").write_text(json.dumps(TIMED))
    text = " ".join(invoke("inspect", tmp_path / "config.json").stdout.split())
    for fact in facts:
        assert fact in str(raised.value)
        assert fact in text


def test_keras_refuses_what_we_explain_and_takes_both_ways_out(keras):
    layers = keras.layers
    with pytest.raises(ValueError, match=r"TimeDistributed|shape|ndim"):
        keras.Sequential([keras.Input((10, 32)), layers.TimeDistributed(layers.LSTM(64, return_sequences=True))])
    ways = {
        "dropped": (sequential(LSTM, layer("TimeDistributed", layer=DENSE)), (10, 32)),
        "four axes": (sequential(layer("TimeDistributed", layer=LSTM), shape=(None, 5, 10, 32)), (5, 10, 32)),
    }
    for config, shape in ways.values():
        network = gw.describe(config)
        assert network.layers[0].spec.shape == shape
        assert next(iter(network.weighted)).spec.units == 64


AXES = {
    "old style": layer(
        "Sequential", layers=[layer("TimeDistributed", layer=LSTM, batch_input_shape=[None, 10, 32], name="td")]
    ),
    "gru": sequential(layer("TimeDistributed", layer=layer("GRU", units=3), name="td")),
    "both directions": sequential(layer("TimeDistributed", layer=layer("Bidirectional", layer=LSTM), name="td")),
    "images": sequential(
        layer("TimeDistributed", layer=layer("Conv2D", filters=3, kernel_size=[2, 2]), name="td"), shape=(None, 8, 8, 3)
    ),
    "behind a layer": sequential(
        layer("LSTM", units=4, return_sequences=True), layer("Dropout", rate=0.1), layer("TimeDistributed", layer=LSTM)
    ),
    "a sequence that was lost": sequential(layer("LSTM", units=4), layer("GRU", units=3, name="second")),
    "no time axis": sequential(LSTM, shape=(None, 32)),
}


@pytest.mark.parametrize("config", AXES.values(), ids=AXES)
def test_layers_with_too_few_axes_are_explained(keras, config):
    with pytest.raises(gw.SpecError, match="cannot read the shape"):
        gw.describe(config)
    assert gw.inspect(config).portable is False


def test_a_functional_config_is_read_by_the_shapes_of_its_tensors(keras):
    source = keras.Input((5, 10, 32))
    made = keras.Model(source, keras.layers.TimeDistributed(keras.layers.LSTM(4), name="td")(source))
    config = json.loads(made.to_json())
    for given in (config, made.get_config()):
        assert gw.describe(given).weighted[0].spec.units == 4
    [timed] = [each for each in config["config"]["layers"] if each["name"] == "td"]
    timed["inbound_nodes"][0]["args"][0]["config"]["shape"] = [None, 10, 32]
    with pytest.raises(gw.SpecError, match="Drop the TimeDistributed"):
        gw.describe(config)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


HOSTILE = {
    "deep": layer("LSTM", units=deep(5000)),
    "code": {"class_name": "system", "module": "os", "config": {"command": "true"}},
    "code inside": sequential({"class_name": "Popen", "module": "subprocess", "config": {"args": ["true"]}}),
    "huge": sequential(layer("LSTM", units=10**9)),
    "no layers": layer("Sequential", layers=[3]),
    "text": "LSTM",
}


@pytest.mark.parametrize("config", HOSTILE.values(), ids=HOSTILE)
def test_hostile_configs_are_refused_and_run_nothing(config, monkeypatch):
    import os
    import subprocess

    for module, name in ((os, "system"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, lambda *given, **options: pytest.fail("code was run"))
    with pytest.raises(gw.GatewiseError):
        gw.describe(config)


def test_a_config_nested_deep_in_a_file(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    done = invoke("inspect", tmp_path / "deep.json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "deep.json is not JSON" in done.stderr


def test_a_config_needs_no_weights(files):
    assert gw.inspect(json.loads((files / "config.json").read_text())).tensors == ()
    rows = list(csv.DictReader(io.StringIO(invoke("inspect", files / "config.json", "-f", "csv").stdout)))
    assert [row["class"] for row in rows][:2] == ["InputLayer", "Bidirectional"]
    assert "gatewise.inspecting" in sys.modules


def set_at(config, path, value):
    """Return a copy of a config with another value at a place."""
    made = json.loads(json.dumps(config))
    node = made
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return made


def test_values_that_keras_takes_and_cannot_run(keras):
    """Keras takes any value for some options, and says that a layer is built of which it does not know the shape."""
    layers = keras.layers
    made = [layers.LayerNormalization(), layers.ELU(), layers.Softmax(), layers.Rescaling(2.0), layers.Masking(0.0)]
    config = json.loads(keras.Sequential([keras.Input((7, 4)), *made, layers.Dense(2)]).to_json())
    wrong = (
        (1, "build_config", "input_shape", [[], 7, 4], "not built"),
        (2, "config", "alpha", "x", "alpha='x'"),
        (3, "config", "axis", None, "axis"),
        (3, "config", "axis", "x", "axis"),
        (4, "config", "scale", "x", "scale='x'"),
        (5, "config", "mask_value", None, "mask_value=None"),
        (5, "config", "mask_value", [1, 2], "not one number"),
    )
    assert gw.describe(config).layers[-1].spec == gw.Dense(4, 2)
    for number, part, option, value, words in wrong:
        with pytest.raises(gw.GatewiseError) as error:
            gw.describe(set_at(config, ("config", "layers", number, part, option), value))
        assert words in str(error.value)
    bare = json.loads(keras.Sequential([keras.Input((4,)), layers.Rescaling(2.0)]).to_json())
    with pytest.raises(gw.UnsupportedModelError, match="no axis for the batch"):
        gw.describe(set_at(bare, ("config", "layers", 0, "config", "batch_shape"), []))
    with pytest.raises(gw.UnsupportedModelError, match="not built"):
        gw.describe(set_at(config, ("config", "layers", 6, "build_config"), "x"))


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_class_that_is_unsupported_is_what_is_said(keras, torch):
    """And not how many tensors it reads; a quantised LSTM is no nn.LSTM."""
    source = keras.Input((7, 8))
    model = keras.Model(source, keras.layers.MultiHeadAttention(2, 4)(source, source))
    with pytest.raises(gw.UnsupportedModelError, match="class MultiHeadAttention, which is not supported"):
        gw.describe(model)
    quantised = torch.ao.nn.quantized.dynamic.LSTM(3, 4)
    with pytest.raises(gw.UnsupportedModelError, match=r"quantized.dynamic.LSTM(.|\n)*before it is quantised"):
        gw.describe(quantised)


def test_a_backend_that_keras_lacks_says_nothing_of_the_file(files, monkeypatch):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "bogus")
    with pytest.raises(gw.AdapterError, match="Keras has no backend 'bogus'"):
        gw.inspect(files / "model.keras")
