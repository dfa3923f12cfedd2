"""gatewise port, verify and build, from file to file: what they say, how they exit, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import random_models
from click.testing import CliRunner

import gatewise as gw
from gatewise.cli import main


def invoke(*arguments):
    """Run a command; an exception that is no exit is an error of ours."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def files(folder):
    """Return the files in a folder, hidden ones too."""
    return sorted(path.name for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def model(keras):
    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both"),
            layers.LSTM(5, activation="relu", name="relu"),
            layers.Dense(2, name="head"),
        ]
    )
    return random_models.fill(made, np.random.default_rng(1))


@pytest.fixture
def source(model, tmp_path):
    gw.save(model, tmp_path / "model.keras")
    return tmp_path / "model.keras"


# ── what works ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_port_there_and_back(keras, model, source, tmp_path):
    there, back = tmp_path / "model.safetensors", tmp_path / "model2.keras"
    done = invoke("port", source, there)
    assert done.exit_code == 0, done.output
    for fact in ("keras → torch: 3 layers", "exact", "Parity passed", "head.output", "test faults were tried"):
        assert fact in done.stdout, fact
    counts = [model.count_params(), gw.count(gw.describe(there), "torch").total]
    [total] = [line.split() for line in done.stdout.splitlines() if line.startswith("total")]
    assert [int(number.replace(",", "")) for number in total[1:]] == [*counts, counts[1] - counts[0]]
    assert done.stderr == f"Wrote {there}.\n"
    done = invoke("port", there, back)
    assert done.exit_code == 0, done.output
    assert files(tmp_path) == ["model.keras", "model.safetensors", "model2.keras"]
    again = keras.saving.load_model(back)
    inputs = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    assert np.abs(np.asarray(model(inputs)) - np.asarray(again(inputs))).max() < 1e-6
    for first, second in ((source, there), (there, source), (source, back), (there, back)):
        done = invoke("verify", first, second)
        assert done.exit_code == 0, done.output
        assert "Parity passed" in done.stdout


def test_port_says_what_training_will_do_with_the_second_bias(source, tmp_path):
    done = invoke("port", source, tmp_path / "m.safetensors", "--second-bias", "trainable")
    assert done.exit_code == 0
    assert "frozen" not in done.stdout
    assert gw.load(tmp_path / "m.safetensors").both.bias_hh_l0.requires_grad


@pytest.mark.parametrize("format", ["plain", "github", "latex", "html", "csv", "json"])
def test_every_format(source, tmp_path, format):
    there = tmp_path / "m.safetensors"
    for arguments in (("port", source, there), ("verify", source, there)):
        done = invoke(*arguments, "--format", format)
        assert done.exit_code == 0, done.output
        assert "head.output" in done.stdout.replace("\\_", "_")
        if format == "json":
            json.loads(done.stdout)


@pytest.mark.parametrize(
    ("framework", "name"), [("torch", "a.safetensors"), ("keras", "a.keras"), ("keras", "b.safetensors")]
)
def test_build(framework, name, tmp_path):
    done = invoke("build", framework, tmp_path / name, "-x", "3", "-u", "5", "--bidirectional", "--seed", "4")
    assert done.exit_code == 0, done.output
    assert "Wrote" in done.stderr
    assert "seed 4" in done.stderr
    other = gw.build(gw.Network.chain(gw.LSTM(3, 5, bidirectional=True)), "torch", seed=4)
    assert gw.verify(tmp_path / name, other).passed
    assert files(tmp_path) == [name]


def test_verify_says_no(model, source, tmp_path):
    wrong = gw.port(model, to="torch")
    wrong.head.weight.data.mul_(1.5)
    gw.save(wrong, tmp_path / "wrong.safetensors")
    done = invoke("verify", source, tmp_path / "wrong.safetensors", "--seed", "3")
    assert done.exit_code == 1
    assert "Parity failed" in done.stdout
    assert "seed 3" in done.stdout


# ── nothing is written unless it is proved ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def mistaken(monkeypatch):
    """Make every port exchange two gates, as a wrong plan would."""
    import gatewise_torch.adapter

    right = gatewise_torch.adapter.assemble

    def assemble(network, **options):
        result, natives = right(network, **options)
        write = gatewise_torch.adapter.write

        def wrong(native, arrays):
            write(native, arrays)
            if hasattr(native, "weight_hh_l0"):
                parts = native.weight_hh_l0.data.view(4, native.hidden_size, -1)
                parts[[0, 1]] = parts[[1, 0]].clone()

        monkeypatch.setattr(gatewise_torch.adapter, "write", wrong)
        return result, natives

    monkeypatch.setattr(gatewise_torch.adapter, "assemble", assemble)


def test_a_failed_parity_writes_nothing(source, tmp_path, mistaken):
    done = invoke("port", source, tmp_path / "m.safetensors")
    assert done.exit_code == 1
    assert "Parity failed" in done.stdout
    assert "Nothing was written: parity failed." in done.stderr
    assert files(tmp_path) == ["model.keras"]


def test_a_failed_parity_leaves_what_was_there(source, tmp_path, mistaken):
    (tmp_path / "m.safetensors").write_bytes(b"older")
    assert invoke("port", source, tmp_path / "m.safetensors").exit_code == 1
    assert (tmp_path / "m.safetensors").read_bytes() == b"older"
    assert files(tmp_path) == ["m.safetensors", "model.keras"]


def test_an_inconclusive_parity_writes_nothing(keras, tmp_path):
    dead = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(3), keras.layers.Dense(2, "relu")])
    dead.layers[-1].set_weights([np.ones((3, 2)), np.full(2, -100.0)])
    gw.save(dead, tmp_path / "dead.keras")
    done = invoke("port", tmp_path / "dead.keras", tmp_path / "m.safetensors")
    assert done.exit_code == 1
    assert "Parity inconclusive" in done.stdout
    assert "Nothing was written: parity inconclusive." in done.stderr
    assert "was fed numbers from -" in " ".join(done.stdout.split())
    assert files(tmp_path) == ["dead.keras"]
    done = invoke("port", tmp_path / "dead.keras", tmp_path / "m.safetensors", "--write-inconclusive")
    assert done.exit_code == 1
    assert "though parity is inconclusive" in done.stderr
    assert files(tmp_path) == ["dead.keras", "m.safetensors"]


def test_an_interrupted_write_leaves_nothing(source, tmp_path, monkeypatch):
    import gatewise.checkpoints.safetensors as container

    def full(path, arrays, about):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(container, "save", full)
    done = invoke("port", source, tmp_path / "m.safetensors")
    assert done.exit_code == 2
    assert "No space left on device" in done.stderr
    assert files(tmp_path) == ["model.keras"]


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────────────────


def chain(keras, *layers, **options):
    return keras.Sequential([keras.Input((None, 3), **options), *layers])


def shared(keras):
    source, layer = keras.Input((None, 3)), keras.layers.LSTM(3, return_sequences=True, name="again")
    return keras.Model(source, layer(layer(source)))


def two_inputs(keras):
    one, other = keras.Input((None, 3)), keras.Input((None, 3))
    return keras.Model([one, other], keras.layers.LSTM(3, name="joined")(keras.layers.Add(name="sum")([one, other])))


def not_finite(keras):
    made = chain(keras, keras.layers.LSTM(4, name="lstm"))
    weights = made.get_weights()
    weights[1][0, 0] = np.nan
    made.set_weights(weights)
    return made


# name → (how the model is made, what the message must name: layer, option or class, value, way out)
BAD = {
    "convolution": (
        lambda keras: chain(keras, keras.layers.Conv1DTranspose(4, 2, name="conv")),
        ("'conv'", "Conv1DTranspose", "Supported: LSTM", "Leave it out of the model"),
    ),
    "normalisation": (
        lambda keras: chain(keras, keras.layers.GroupNormalization(1, name="norm")),
        ("'norm'", "GroupNormalization", "Supported: LSTM"),
    ),
    "lambda": (
        lambda keras: chain(keras, keras.layers.Lambda(lambda given: given * 2, name="twice")),
        ("'twice'", "Lambda", "Replace it with layers of Keras"),
    ),
    "dropout of columns": (
        lambda keras: chain(keras, keras.layers.Dropout(0.5, noise_shape=(None, 1, 3), name="drop")),
        ("'drop'", "noise_shape", "Leave noise_shape out"),
    ),
    "not finite": (not_finite, ("'recurrent_kernel'", "'lstm'", "NaN or infinite", "Take an earlier checkpoint")),
    "unbuilt": (
        lambda keras: keras.Sequential([keras.layers.LSTM(3)], name="raw"),
        ("'raw'", "not built", "start it with keras.Input"),
    ),
}


SEVERAL = {
    "mixed precision": lambda keras: chain(keras, keras.layers.LSTM(4, dtype="mixed_bfloat16", name="half")),
    "shared": shared,
    "two inputs": two_inputs,
    "nested": lambda keras: chain(
        keras, keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(2)], name="inner")
    ),
}
"""Models that are more than a chain of layers in float32."""


@pytest.mark.parametrize("case", SEVERAL)
def test_models_that_are_more_than_a_chain(keras, tmp_path, case):
    SEVERAL[case](keras).save(tmp_path / "model.keras")
    done = invoke("port", tmp_path / "model.keras", tmp_path / "m.safetensors")
    assert done.exit_code == 0, done.output
    assert "Parity passed" in done.output


def assert_one_message(done, *facts, code=2):
    """One message of three parts on stderr, nothing on stdout, and no traceback."""
    assert done.exit_code == code, done.output
    lines = done.stderr.rstrip("\n").splitlines()
    assert lines[0].split(":")[0].endswith("Error"), done.stderr
    assert lines[-1].startswith("  Hint: "), done.stderr
    assert len(lines) >= 3, done.stderr
    assert all(line.startswith("  ") for line in lines[1:]), done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""
    for fact in facts:
        assert fact in done.stderr, (fact, done.stderr)


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built:UserWarning")
@pytest.mark.parametrize("case", BAD)
def test_what_is_not_supported_is_named(keras, tmp_path, case):
    make, facts = BAD[case]
    make(keras).save(tmp_path / "bad.keras")
    done = invoke("port", tmp_path / "bad.keras", tmp_path / "m.safetensors")
    assert_one_message(done, *facts)
    assert files(tmp_path) == ["bad.keras"]


def test_classes_of_ones_own(keras, tmp_path):
    """A file that holds code: unknown where its module was not imported, refused by name where it was."""
    scope = keras.saving.CustomObjectScope

    class Mine(keras.layers.Layer):
        def call(self, given):
            return given

    class Sub(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.lstm = keras.layers.LSTM(3)

        def call(self, given):
            return self.lstm(given)

    def loud(given):
        return keras.ops.tanh(given)

    sub = Sub(name="sub")
    sub(np.zeros((1, 2, 3), "float32"))
    models = {
        "layer": (chain(keras, Mine(name="mine")), {"Mine": Mine}, ("'mine'", "Mine", "runs code of its own")),
        "model": (sub, {"Sub": Sub}, ("'sub'", "Functional model")),
        "function": (
            chain(keras, keras.layers.LSTM(3, activation=loud, name="lstm")),
            {"loud": loud},
            ("'lstm'", "activation='loud'", "by name"),
        ),
    }
    for name, (made, known, facts) in models.items():
        path, target = tmp_path / f"{name}.keras", tmp_path / "m.safetensors"
        made.save(path)
        assert_one_message(invoke("port", path, target), f"{name}.keras", "mport the")
        with scope(known):
            assert_one_message(invoke("port", path, target), *facts)
        path.unlink()
        assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (None, ("No such file", "Check the name")),
        (b"", ("no zip file",)),
        (b"\x89HDF\r\n\x1a\n and so on", ("no zip file", ".h5")),
        (b"PK\x03\x04 and so on", ("no zip file",)),
    ],
)
def test_a_file_that_is_no_model(tmp_path, content, facts):
    path = tmp_path / "bad.keras"
    if content is not None:
        path.write_bytes(content)
    before = files(tmp_path)
    for arguments in (("port", path, tmp_path / "m.safetensors"), ("verify", path, path)):
        assert_one_message(invoke(*arguments), "bad.keras", *facts)
    assert files(tmp_path) == before


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5", "metadata.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_keras_file_with_a_member_that_is_damaged(source, tmp_path, member, damage):
    import zipfile

    broken = tmp_path / "broken.keras"
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(broken, "w") as part:
        for name in whole.namelist():
            content = whole.read(name)
            if name != member:
                part.writestr(name, content)
            elif damage != "missing":
                part.writestr(name, content[: len(content) // 2] if damage == "cut" else b"")
    done = invoke("port", broken, tmp_path / "m.safetensors")
    if done.exit_code == 0:
        assert member == "metadata.json", "Keras reads its version from there, and we do not need it"
        return
    assert_one_message(done, "broken.keras")
    assert files(tmp_path) == ["broken.keras", "model.keras"]


def test_other_bad_use(source, tmp_path):
    arrays = tmp_path / "arrays.safetensors"
    from safetensors.numpy import save_file

    save_file({"kernel": np.zeros((3, 8), "float32")}, arrays)
    before = files(tmp_path)
    for arguments, facts in (
        (("port", source, tmp_path / "m.onnx"), ("m.onnx", ".safetensors, .keras")),
        (("port", arrays, tmp_path / "m.keras"), ("arrays.safetensors", "no model")),
        (("port", tmp_path / "m.txt", tmp_path / "m.keras"), ("m.txt",)),
        (("port", source, tmp_path / "nowhere" / "m.safetensors"), ("cannot be written",)),
        (("verify", source, arrays), ("no model",)),
        (("verify", source, tmp_path / "other.keras"), ("No such file",)),
        (("build", "torch", tmp_path / "m.keras", "-x", "3", "-u", "5"), ("m.keras",)),
        (("build", "torch", tmp_path / "m.pickle", "-x", "3", "-u", "5"), ("unsupported file type .pickle",)),
        (("build", "tortch", tmp_path / "m.safetensors", "-x", "3", "-u", "5"), ("Did you mean 'torch'",)),
        (("build", "chainer", tmp_path / "m.safetensors", "-x", "3", "-u", "5"), ("Chainer",)),
        (("build", "torch", tmp_path / "m.safetensors", "-x", "0", "-u", "5"), ("features=0",)),
    ):
        assert_one_message(invoke(*arguments), *facts)
        assert files(tmp_path) == before, arguments


def test_the_command_itself_prints_one_message_and_no_more(keras, tmp_path):
    """In a process of its own: TensorFlow's start writes nothing into what a person reads."""
    chain(keras, keras.layers.Conv1DTranspose(4, 2, name="conv")).save(tmp_path / "bad.keras")
    command = [sys.executable, "-m", "gatewise", "port", "bad.keras", "m.safetensors"]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # no terminal
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("UnsupportedModelError: Layer 'conv' is of class Conv1D")
    assert len(done.stderr.splitlines()) == 3
    assert files(tmp_path) == ["bad.keras"]
