"""What a stranger does to the public face: odd numbers, odd arrays, odd files, and everything sent to another process.

Each table below is a list of things that went wrong once, or that would be easy to break.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import gatewise as gw
import gatewise.errors
from gatewise.cli import main
from gatewise.core.layout import Layout

LSTM = gw.LSTM(3, 5)
GRU = gw.GRU(3, 5)
NAMES = sorted({layout.name for record in gw.frameworks() for layout in record.layouts})
SPECS = [
    LSTM,
    GRU,
    gw.LSTM(3, 5, bias=False),
    gw.LSTM(3, 5, layers=2, bidirectional=True),
    gw.LSTM(3, 5, projection=2),
    gw.LSTM(3, 5, peepholes=True),
    gw.GRU(3, 5, reset="before"),
    gw.RNN(3, 5, activation="relu"),
    gw.LSTM(1, 1),
    gw.Dense(3, 5),
    gw.Embedding(7, 5),
]


def weights(shapes, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def same(first, second):
    return list(first) == list(second) and all(np.array_equal(first[name], second[name]) for name in first)


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name in vars(gatewise.errors) if name.endswith("Error")])
def test_errors_are_found_in_both_places(name):
    assert getattr(gw, name) is getattr(gatewise.errors, name)
    assert name in gw.__all__


@pytest.mark.parametrize("name", gw.__all__)
def test_every_public_name_is_there(name):
    assert getattr(gw, name) is not None


WRONG = {
    "no such framework": (lambda: gw.count(LSTM, "kears"), gw.UnknownFrameworkError),
    "no name": (lambda: gw.count(LSTM, None), gw.UnknownFrameworkError),
    "a number": (lambda: gw.mapping(LSTM, "keras", 3), gw.UnknownFrameworkError),
    "no spec": (lambda: gw.count("LSTM", "keras"), gw.FileError),
    "nothing": (lambda: gw.explain(None, "keras", "torch"), gw.SpecError),
    "a class": (lambda: gw.count(gw.LSTM, "keras"), gw.UnsupportedModelError),
    "a network": (lambda: gw.mapping(gw.Network.chain(LSTM), "keras", "torch"), gw.SpecError),
    "peepholes": (lambda: gw.count(gw.LSTM(3, 5, peepholes=True), "keras"), gw.UnsupportedSpecError),
    "a kind of layer": (lambda: gw.count(gw.Dense(3, 5), "openvino"), gw.UnsupportedSpecError),
    "another kind of cell": (lambda: gw.count(GRU, "torch:LSTMCell"), gw.UnsupportedSpecError),
    "the same, as a name": (lambda: gw.count(GRU, "torch:LSTMCell"), gw.UnknownFrameworkError),
    "an inverse": (
        lambda: gw.mapping(gw.GRU(3, 5, reset="before"), "keras", "torch").inverse(),
        gw.ImpossiblePlanError,
    ),
}


@pytest.mark.parametrize(("call", "kind"), WRONG.values(), ids=WRONG)
def test_errors_have_three_parts_and_travel(call, kind):
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert error.met
    assert error.where
    assert error.hint
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


# ── numbers of NumPy's ──────────────────────────────────────────────────────────────────────────────────────────

NUMPY = {
    "int64": (lambda: gw.LSTM(np.int64(3), np.int64(5)), LSTM),
    "int8": (lambda: gw.LSTM(np.int8(3), np.int8(50)), gw.LSTM(3, 50)),
    "an array without axes": (lambda: gw.LSTM(np.array(3), 5), LSTM),
    "layers": (lambda: gw.LSTM(3, 5, layers=np.uint8(2)), gw.LSTM(3, 5, layers=2)),
    "projection": (lambda: gw.LSTM(3, 5, projection=np.int32(2)), gw.LSTM(3, 5, projection=2)),
    "a flag": (lambda: gw.LSTM(3, 5, bias=np.bool_(False)), gw.LSTM(3, 5, bias=False)),
    "a rate": (lambda: gw.LSTM(3, 5, dropout=np.float32(0.5)), gw.LSTM(3, 5, dropout=0.5)),
    "dense": (lambda: gw.Dense(np.int64(3), np.int64(5)), gw.Dense(3, 5)),
    "embedding": (lambda: gw.Embedding(np.int64(7), np.int64(5)), gw.Embedding(7, 5)),
}


@pytest.mark.parametrize(("make", "plain"), NUMPY.values(), ids=NUMPY)
def test_numbers_of_numpy_are_numbers(make, plain):
    spec = make()
    assert (spec, hash(spec), repr(spec)) == (plain, hash(plain), repr(plain))
    assert gw.count(spec, "torch") == gw.count(plain, "torch")
    target = "torch:general.LSTM" if spec.cell == "lstm" else "torch"
    assert gw.mapping(spec, "torch", target).to_json() == gw.mapping(plain, "torch", target).to_json()


def test_small_numbers_of_numpy_do_not_overflow():
    n = 10**12
    assert gw.count(gw.LSTM(np.int64(n), np.int64(n)), "keras").total == 4 * (2 * n * n + n)


# ── copies ──────────────────────────────────────────────────────────────────────────────────────────────────────

THINGS = {
    "spec": LSTM,
    "network": gw.Network.chain(LSTM, gw.Dense(5, 1)),
    "count": gw.count(LSTM, "torch"),
    "explanation": gw.explain(LSTM, "keras", "torch"),
    "plan": gw.mapping(LSTM, "torch", "onnx"),
    "proof": gw.mapping(LSTM, "keras", "torch").proof(),
    "framework": gw.frameworks()[0],
    "diagnoses": gw.diagnose(claimed=120, spec=gw.LSTM(1, 10), framework="keras"),
    "solutions": gw.solve(10_851, framework="keras"),
}
WAYS = {"pickle": lambda thing: pickle.loads(pickle.dumps(thing)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("thing", THINGS.values(), ids=THINGS)
def test_copies_are_equal(thing, way):
    again = way(thing)
    assert again == thing
    if thing.__hash__ is not None:
        assert hash(again) == hash(thing)


def test_a_plan_that_was_sent_works():
    plan = gw.mapping(LSTM, "torch", "keras")
    given = weights(plan.source_shapes)
    assert same(pickle.loads(pickle.dumps(plan)).apply(given), plan.apply(given))


def test_layouts_that_differ_are_not_equal():
    one, other = (
        Layout("mine:Linear", cell="dense", tensors={"w": f"kernel: {axes}"})
        for axes in ("units features", "features units")
    )
    assert one != other
    assert hash(one) == hash(other)


def test_what_a_plan_hands_out_is_not_what_it_keeps():
    plan = gw.mapping(gw.LSTM(3, 7), "keras", "torch")
    for shapes in (plan.source_shapes, plan.target_shapes):
        shapes.clear()
    assert gw.count(gw.LSTM(3, 7), "keras").total == 4 * (3 * 7 + 7 * 7 + 7)
    assert list(plan.source_shapes) == ["kernel", "recurrent_kernel", "bias"]


# ── arrays ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


class Tensor:
    """A tensor that training changes, as torch has them."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self.array

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


ARRAYS = {
    "read-only": read_only,
    "every second row": lambda array: np.repeat(array, 2, axis=0)[::2],
    "columns first": np.asfortranarray,
    "backwards": lambda array: np.flip(np.flip(array).copy()),
    "big-endian": lambda array: array.astype(">f8"),
    "lists": lambda array: array.tolist(),
    "tensors that are trained": Tensor,
}


@pytest.mark.parametrize("form", [dict, lambda arrays: list(arrays.values()), lambda arrays: iter(arrays.values())])
@pytest.mark.parametrize("odd", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize(("source", "target"), [("keras", "torch"), ("torch", "haiku")])
def test_odd_arrays(source, target, odd, form):
    plan = gw.mapping(LSTM, source, target)
    plain = weights(plan.source_shapes)
    kept = copy.deepcopy(plain)
    made = plan.apply(form({name: odd(array) for name, array in plain.items()}))
    assert same(made, plan.apply(plain))
    assert same(plain, kept)


def test_arrays_on_disk_are_not_read(tmp_path):
    plan = gw.mapping(LSTM, "keras", "torch")
    given = {}
    for name, array in weights(plan.source_shapes).items():
        np.save(tmp_path / f"{name}.npy", array)
        given[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    made = plan.apply(given)
    assert np.shares_memory(made["weight_ih_l0"], given["kernel"])
    assert not made["weight_ih_l0"].flags.writeable


NO_WEIGHTS = {
    "nothing": None,
    "a number": 3,
    "no arrays": [],
    "numbers as names": {0: 1, 1: 2, 2: 3},
    "ragged": [[[1, 2], [3]], np.ones((5, 20)), np.ones(20)],
    "words": [np.full((3, 20), "a"), np.ones((5, 20)), np.ones(20)],
    "no axes": [1.0, np.ones((5, 20)), np.ones(20)],
    "nothing in it": [np.ones((0, 20)), np.ones((5, 20)), np.ones(20)],
    "turned": [np.ones((20, 3)), np.ones((5, 20)), np.ones(20)],
}


@pytest.mark.parametrize("arrays", NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_what_are_no_weights(arrays):
    with pytest.raises(gw.WeightsError) as caught:
        gw.mapping(LSTM, "keras", "torch").apply(arrays)
    assert caught.value.where
    assert caught.value.hint


WHOLE = {
    "a sum that fits": ("torch", "keras", "int8", 50, 100),
    "a sum that wraps": ("torch", "keras", "int8", 100, None),
    "a sum of long ones": ("torch", "keras", "int64", 2**62 + 1, None),
    "long ones that fit": ("torch", "keras", "int64", 2**61 + 1, 2**62 + 2),
    "below zero": ("keras", "haiku", "uint8", 0, None),
}


@pytest.mark.parametrize(("source", "target", "dtype", "value", "wanted"), WHOLE.values(), ids=WHOLE)
def test_whole_numbers_never_wrap(source, target, dtype, value, wanted):
    plan = gw.mapping(LSTM, source, target)
    arrays = {name: np.full(shape, value, dtype) for name, shape in plan.source_shapes.items()}
    if wanted is None:
        with pytest.raises(gw.WeightsError, match="cannot hold a result"):
            plan.apply(arrays)
    else:
        assert set(plan.apply(arrays)["bias"].tolist()) == {wanted}


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────


def run_json(text, arrays):
    """Do what the JSON of a plan says, knowing nothing else."""
    told = json.loads(text)

    def block(side, array):
        cut = array[tuple(slice(*bounds) for bounds in side["slices"])]
        return cut.reshape(side["shape"])

    made = {name: np.full(shape, np.nan) for name, shape in told["target_shapes"].items()}
    for step in told["steps"]:
        target = step["target"]
        wanted = (target or step["sources"][0])["axes"]
        value = np.array(float(step["constant"]))
        for sign, source in zip(step["signs"], step["sources"], strict=True):
            order = [source["axes"].index(axis) for axis in wanted]
            value = value + sign * block(source, arrays[source["tensor"]]).transpose(order)
        if target is None:
            assert not value.any()
            continue
        place = tuple(slice(*bounds) for bounds in target["slices"])
        region = made[target["tensor"]][place].shape
        made[target["tensor"]][place] = np.broadcast_to(value, target["shape"]).reshape(region)
    return made


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_json_of_a_plan_says_all(spec):
    seen = 0
    for source, target in itertools.product(NAMES, repeat=2):
        try:
            plan = gw.mapping(spec, source, target)
        except gw.UnsupportedSpecError:
            continue
        assert json.loads(plan.to_json())["verdict"] == plan.verdict
        if plan.verdict != "impossible":
            arrays = weights(plan.source_shapes)
            made, told = plan.apply(arrays), run_json(plan.to_json(), arrays)
            assert list(made) == list(told)
            assert all(np.allclose(made[name], told[name], rtol=0, atol=1e-12) for name in made), (source, target)
            seen += 1
    assert seen > 10


# ── the command line ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = weights(gw.mapping(LSTM, "keras", "torch").source_shapes)
    np.savez("lstm.npz", **arrays)
    np.savez("LOUD.NPZ.npz", **arrays)
    os.rename("LOUD.NPZ.npz", "LOUD.NPZ")
    np.savez("turned.npz", **{name: array.T for name, array in arrays.items()})
    np.savez("backwards.npz", *reversed(arrays.values()))
    np.savez("shouted.npz", **{name.upper(): array for name, array in arrays.items()})
    (tmp_path / "noise.npz").write_bytes(b"\xff" * 100)
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "a name with spaces é.npz").write_bytes((tmp_path / "lstm.npz").read_bytes())
    return tmp_path


LONG = "a" * 300 + ".npz"
FILES = {
    "not there, with an output that is": ("missing.npz", "lstm.npz", ["No such file: missing.npz"]),
    "a name too long": (LONG, "out.npz", ["No such file"]),
    "an output too long": ("lstm.npz", LONG, ["cannot be written"]),
    "a folder": ("folder.npz", "out.npz", ["folder.npz is a folder"]),
    "here": (".", "out.npz", [". is a folder"]),
    "no name": ("", "out.npz", ["is not a path"]),
    "no name to write": ("lstm.npz", "", ["is not a path"]),
    "noise": ("noise.npz", "out.npz", ["neither a zip of arrays nor an array."]),
    "empty": ("empty.npz", "out.npz", ["neither a zip of arrays nor an array."]),
    "turned": ("turned.npz", "out.npz", ["'kernel' has shape (20, 3)", "fit when each is transposed"]),
    "backwards": (
        "backwards.npz",
        "out.npz",
        ["1 dimension, expected 2", "stores it as kernel: features (gate units)"],
    ),
    "other names": ("shouted.npz", "out.npz", ["missing 'kernel', 'recurrent_kernel', 'bias'"]),
}


@pytest.mark.parametrize(("given", "output", "words"), FILES.values(), ids=FILES)
def test_odd_files(folder, given, output, words):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    done = CliRunner().invoke(main, ["map", "keras", "torch", "--weights", given, "--output", output])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("  Hint: ") == 1
    assert "allow_pickle" not in done.stderr
    assert ".." not in done.stderr.replace("Folder ..", "")
    for word in words:
        assert word in done.stderr
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("given", ["LOUD.NPZ", "a name with spaces é.npz"])
def test_odd_names_that_are_fine(folder, given):
    done = CliRunner().invoke(main, ["map", "keras", "torch", "--weights", given, "--output", "öut.safetensors"])
    assert done.exit_code == 0
    assert (folder / "öut.safetensors").is_file()


SIZES = {
    "a hundred nines": ("9" * 100, 0),
    "five thousand nines": ("9" * 5000, 2),
    "other digits": ("٣", 0),
    "a power": ("²", 2),
    "a fraction": ("1.5", 2),
    "empty": ("", 2),
}


@pytest.mark.parametrize(("size", "status"), SIZES.values(), ids=SIZES)
def test_odd_sizes(size, status):
    done = CliRunner().invoke(main, ["count", "keras", "-x", "3", "-u", size], catch_exceptions=False)
    assert done.exit_code == status
    assert ("Hint: " in done.stderr) == bool(status)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_said():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "gatewise", "count", "keras", "-x", "3", "-u", "5"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("  Hint: ") == 1


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_bias_of_some_gates_names_them():
    assert gw.explain(GRU, "torch", "flax").causes[0].why.endswith("for gates r and z.")
    assert "for gates" not in gw.explain(LSTM, "keras", "torch").causes[0].why


# ── live objects ────────────────────────────────────────────────────────────────────────────────────────────────


def keras_lstm(keras, units=5, **options):
    layer = keras.layers.LSTM(units, **options)
    layer.build((None, 4, 3))
    return layer


def test_two_live_layers_are_explained(keras, torch):
    told = gw.explain(keras_lstm(keras), torch.nn.LSTM(3, 5))
    assert told.difference == 20 == told.second.total - told.first.total
    assert [(cause.name, cause.parameters, cause.formula) for cause in told.causes] == [("second bias", 20, "4·units")]
    assert gw.explain(torch.nn.LSTM(3, 5), keras_lstm(keras)).difference == -20
    assert gw.explain(torch.nn.LSTM(3, 5), torch.nn.LSTMCell(3, 5)).causes == ()


def test_a_stack_and_a_model_are_explained(keras, torch):
    layers = [keras.layers.Bidirectional(keras.layers.LSTM(5, return_sequences=True)) for _ in range(2)]
    model = keras.Sequential([keras.Input((4, 3)), *layers])
    module = torch.nn.LSTM(3, 5, num_layers=2, bidirectional=True)
    told = gw.explain(model, module)
    assert told.first.total == model.count_params()
    assert told.second.total == sum(parameter.numel() for parameter in module.parameters())
    assert sum(cause.parameters for cause in told.causes) == told.difference


def test_two_files_are_explained(keras, tmp_path):
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(5), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    assert gw.port_file(tmp_path / "model.keras", tmp_path / "model.safetensors").passed
    assert gw.explain(tmp_path / "model.keras", str(tmp_path / "model.safetensors")).difference == 20


@pytest.mark.parametrize(
    ("options", "name", "formula"),
    [
        (
            {"hidden_size": 6},
            "other number of units",
            "change of 4·units·features + 4·units·units + 4·units",
        ),
        ({"hidden_size": 5, "bias": False}, "bias", "4·units"),
        ({"hidden_size": 5, "bidirectional": True}, "second direction", "4·units·features + 4·units·units + 4·units"),
    ],
    ids=str,
)
def test_other_layers_are_explained_by_their_options(keras, torch, options, name, formula):
    told = gw.explain(keras_lstm(keras), torch.nn.LSTM(3, **options))
    assert sum(cause.parameters for cause in told.causes) == told.difference
    [cause] = [cause for cause in told.causes if cause.name == name]
    assert cause.formula == formula


def test_one_framework_is_no_difference():
    with pytest.raises(gw.SpecError, match="One framework is named"):
        gw.explain(LSTM, "keras")


def test_weights_as_the_frameworks_hand_them_over(keras, torch):
    layer, module = keras_lstm(keras), torch.nn.LSTM(3, 5)
    there, back = gw.mapping(LSTM, "keras", "torch"), gw.mapping(LSTM, "torch", "keras")
    for given in (layer.get_weights(), layer.weights, {each.name: each for each in layer.weights}):
        assert same(there.apply(given), there.apply(layer.get_weights()))
    for given in (module.state_dict(), dict(module.named_parameters()), list(module.parameters())):
        assert same(back.apply(given), back.apply({name: t.numpy() for name, t in module.state_dict().items()}))
