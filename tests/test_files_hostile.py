"""Files of a stranger: damaged, made up, or changed while they are read. Each is refused in bounded time and memory."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import struct
import threading
import time
import zipfile
from random import Random

import numpy as np
import pytest

import gatewise as gw
from gatewise import checkpoints
from gatewise.parity.subject import side

resource = pytest.importorskip("resource", reason="limits of a process are POSIX's")

SECONDS, BYTES = 5, 500 << 20
"""What a damaged file may cost beyond the import of a framework."""


@contextlib.contextmanager
def bounded():
    """Hold what runs within to its time, and refuse it memory beyond its bound."""
    with open("/proc/self/statm") as sizes:
        taken = int(sizes.read().split()[0]) * resource.getpagesize()
    before, begin = resource.getrlimit(resource.RLIMIT_AS), time.process_time()
    resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.process_time() - begin < SECONDS


def refused(call, *words):
    """Check that a call raises a FileError of three parts that says some words."""
    with bounded(), pytest.raises(gw.FileError) as caught:
        call()
    error = caught.value
    assert error.met
    assert error.where
    assert error.hint
    for word in words:
        assert word in str(error), str(error)


# ── .safetensors ────────────────────────────────────────────────────────────────────────────────────────────────


def safetensors(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape, end, dtype="F32", begin=0):
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


HEADERS = {
    "an empty file": (b"", "header"),
    "a header longer than the file": (safetensors({}, length=1 << 62), "header"),
    "no table": (safetensors([]), "no table"),
    "nested deep": (safetensors(b'{"a":' * 9000 + b"1" + b"}" * 9000), "nested"),
    "a million values": (safetensors(b"[" + b"1," * (1 << 21) + b"1]"), "values"),
    "no end of a text": (safetensors(b'{"' + b'\\"' * 500_000), "cannot be read"),
    "one name twice": (safetensors(b'{"a":1,"a":2}'), "twice"),
    "half a sign": (safetensors(b'{"\\ud800":{}}'), "cannot be read"),
    "more than is stored": (safetensors(entry([10**12, 8], 32), b"\0" * 32), "does not fit"),
    "less than is stored": (safetensors(entry([2], 8), b"\0" * 32), "no array"),
    "beyond the end": (safetensors(entry([2], 8)), "does not fit"),
    "not from the start": (safetensors(entry([1], 8, begin=4), b"\0" * 8), "does not fit"),
    "a fraction": (safetensors(entry([2.0], 8), b"\0" * 8), "shape"),
    "infinitely many": (safetensors(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}'), "shape"),
    "below zero": (safetensors(entry([-1], -4)), "shape"),
    "true": (safetensors(entry([True], 4), b"\0" * 4), "shape"),
    "three places": (safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}), "axes"),
    "no shape": (safetensors({"a": {"dtype": "F32", "data_offsets": [0, 4]}}), "type, shape and place"),
    "an unknown type": (safetensors(entry([1], 1, dtype="F8_E4M3"), b"\0"), "F8_E4M3"),
    "metadata that are no texts": (safetensors({"__metadata__": {"gatewise": 5}}), "no texts"),
}


@pytest.mark.parametrize(("content", "word"), HEADERS.values(), ids=HEADERS)
def test_headers_of_safetensors(content, word, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(lambda: checkpoints.load(tmp_path / "a.safetensors"), "a.safetensors", word)


def test_what_the_library_writes_is_read_alike(tmp_path):
    from safetensors.numpy import load_file, save_file

    random = np.random.default_rng(0)
    kinds = ("float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")
    arrays = {kind: (9 * random.normal(size=(3, 5))).astype(kind) for kind in kinds}
    arrays |= {"number": np.array(2.0)}
    save_file(arrays, tmp_path / "a.safetensors", {"about": "é"})
    read = checkpoints.read(tmp_path / "a.safetensors")
    theirs = load_file(tmp_path / "a.safetensors")
    assert read.about == {"about": "é"}
    assert list(read.arrays) == list(theirs)
    for name, array in theirs.items():
        assert read.arrays[name].dtype == array.dtype
        assert np.array_equal(read.arrays[name], array)
        assert read.arrays[name].shape == array.shape


def test_an_array_of_nothing(tmp_path):
    checkpoints.save(tmp_path / "a.safetensors", {"a": np.zeros((0, 4), "float32"), "b": np.ones(3)})
    read = checkpoints.load(tmp_path / "a.safetensors")
    assert (read["a"].shape, read["a"].dtype, read["b"].tolist()) == ((0, 4), np.float32, [1, 1, 1])


def test_bfloat16_is_read_as_float32(torch, tmp_path):
    from safetensors.torch import save_file

    tensor = torch.randn(3, 5).to(torch.bfloat16)
    save_file({"a": tensor}, tmp_path / "a.safetensors")
    assert np.array_equal(checkpoints.load(tmp_path / "a.safetensors")["a"], tensor.float().numpy())


# ── .npz ────────────────────────────────────────────────────────────────────────────────────────────────────────


def npy(shape="(3, 5)", body=b"\0" * 120, descr="'<f8'", header=None):
    text = header or f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def zipped(*members, kind=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


NPZ = {
    "more than is stored": (zipped(("a.npy", npy("(1000000000000, 8)"))), "bytes follow"),
    "below zero": (zipped(("a.npy", npy("(-1, -15)"))), "shape"),
    "a broken header": (zipped(("a.npy", npy(header="{'descr': '<f8', 'shape': ("))), "cannot be read"),
    "an expression": (zipped(("a.npy", npy(header="__import__('os').system('exit')"))), "cannot be read"),
    "a nested header": (zipped(("a.npy", npy(header="(" * 5000))), "cannot be read"),
    "an unknown type": (zipped(("a.npy", npy(descr="'<q9'"))), "cannot be read"),
    "objects": (zipped(("a.npy", npy(descr="'|O'"))), "objects"),
    "another version": (zipped(("a.npy", b"\x93NUMPY\x09\x00" + npy()[8:])), "cannot be read"),
    "no array": (zipped(("a.npy", b"text")), "no array"),
    "a name that leads elsewhere": (zipped(("../a.npy", npy())), "no plain name"),
    "a path from the root": (zipped(("/a.npy", npy())), "no plain name"),
    "another compression": (zipped(("a.npy", npy()), kind=zipfile.ZIP_LZMA), "compressed"),
}


@pytest.mark.parametrize(("content", "word"), NPZ.values(), ids=NPZ)
def test_arrays_of_npz(content, word, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    refused(lambda: checkpoints.load(tmp_path / "a.npz"), "a.npz", word)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_in_a_zip(tmp_path):
    (tmp_path / "a.npz").write_bytes(zipped(("a.npy", npy()), ("a.npy", npy())))
    refused(lambda: checkpoints.load(tmp_path / "a.npz"), "twice")


def test_a_bomb(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        file.write(npy("(20000000,)", b""))
        for _ in range(20):
            file.write(b"\0" * 8_000_000)
    assert (tmp_path / "a.npz").stat().st_size < 200_000
    refused(lambda: checkpoints.load(tmp_path / "a.npz"), "unpack")


def test_plain_compressed_arrays_are_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((1000, 100)), b=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    read = checkpoints.load(tmp_path / "a.npz")
    assert read["a"].shape == (1000, 100)
    assert np.array_equal(read["b"], np.arange(6.0).reshape(2, 3))
    read["a"][0] = 1


def test_arrays_of_several_layers_are_told_by_their_prefixes(torch, tmp_path):
    from gatewise.conversion import convert

    model = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(3, 5, 2), "fc": torch.nn.Linear(5, 1)})
    for prefix, file in (("", "all.npz"), ("lstm.", "one.npz")):
        state = {name: each.numpy() for name, each in model.state_dict().items() if name.startswith(prefix)}
        np.savez(tmp_path / file, **state)
    with pytest.raises(gw.WeightsError, match=r"2 layers\.\n +'lstm': LSTM\(.*layers=2\)\n +'fc': Dense\("):
        convert("torch", "keras", str(tmp_path / "all.npz"), None, {})
    assert convert("torch", "keras", str(tmp_path / "one.npz"), None, {}).plan.spec.layers == 2


# ── read once ───────────────────────────────────────────────────────────────────────────────────────────────────


def alternating(call, *paths, to, least):
    """Put two files in turn in one place, at once, while a call reads it there; return all that it gave."""
    ended, found = threading.Event(), []
    contents = [path.read_bytes() for path in paths]

    def write():
        number = 0
        while not ended.is_set():
            beside = to.with_name(f"beside{number % 2}{to.suffix}")
            beside.write_bytes(contents[number % 2])
            os.replace(beside, to)
            number += 1

    to.write_bytes(contents[0])
    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(set(map(str, found))) < 2 or len(found) < least:
            found.append(call())
            assert len(found) < 3000
    finally:
        ended.set()
        writer.join()
    return found


def test_a_file_is_read_once_while_it_is_replaced(torch, tmp_path):
    for number, activation in enumerate((torch.nn.Tanh(), torch.nn.ReLU())):
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), activation)
        torch.nn.init.constant_(model[0].weight, number + 1.0)
        gw.save(model, tmp_path / f"{number}.safetensors")
    place = tmp_path / "m.safetensors"

    def read():
        made = side(place)
        return made.network.layers[-1].spec.activation, float(next(made.obj.parameters()).detach()[0, 0])

    paths = tmp_path / "0.safetensors", tmp_path / "1.safetensors"
    found = alternating(read, *paths, to=place, least=100)
    assert set(found) == {("tanh", 1.0), ("relu", 2.0)}


def test_a_keras_file_is_read_once_while_it_is_replaced(keras, tmp_path):
    for number, activation in enumerate(("tanh", "relu")):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation=activation)])
        model.set_weights([np.full((3, 3), number + 1.0), np.zeros(3)])
        model.save(tmp_path / f"{number}.keras")
    place = tmp_path / "m.keras"

    def read():
        layer = gw.load(place).layers[0]
        return layer.activation.__name__, float(layer.get_weights()[0][0, 0])

    found = alternating(read, tmp_path / "0.keras", tmp_path / "1.keras", to=place, least=5)
    assert set(found) == {("tanh", 1.0), ("relu", 2.0)}


def test_a_file_that_is_written_into_while_it_is_read(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(zipped(("a.npy", npy())))

    def read():
        with checkpoints.opened(path) as file, path.open("ab") as other:
            file.read(10)
            other.write(b"more")

    refused(read, "while it was read")


# ── descriptions ────────────────────────────────────────────────────────────────────────────────────────────────


def described(tmp_path, network, arrays=None, **changes):
    about = {"framework": "torch", "form": "model", "frozen": [], "network": network} | changes
    checkpoints.save(
        tmp_path / "m.safetensors", arrays or {"a": np.zeros(1, "float32")}, {"gatewise": json.dumps(about)}
    )
    return tmp_path / "m.safetensors"


def layer(name="dense", kind="Dense", options=None, inputs=("input",), **changes):
    options = {"features": 3, "units": 2} if options is None else options
    made = {"name": name, "kind": kind, "options": options, "inputs": list(inputs), "trainable": True, "distributed": 0}
    return made | changes


SOURCE = layer("input", "Input", {"shape": [None, 3]}, ())


def network(*layers, outputs=()):
    return {"layers": [SOURCE, *layers], "outputs": list(outputs)}


def chain(count, kind, options, width=1):
    return [layer(f"l{n}", kind, options, [f"l{n - 1}" if n else "input"] * width) for n in range(count)]


LSTM = {"features": 3, "units": 2}
DESCRIPTIONS = {
    "a list": ([], "list|dict"),
    "infinitely distributed": (network(layer(distributed=float("inf"))), "distributed"),
    "a fraction distributed": (network(layer(distributed=0.5)), "distributed"),
    "distributed over a thousand axes": (network(layer(distributed=1000)), "distributed"),
    "a number as a name": (network(layer(name=5)), "name"),
    "a number as a switch": (network(layer(trainable=1)), "trainable"),
    "a text as inputs": (network(layer(inputs=[]) | {"inputs": "input"}), "inputs"),
    "a number as inputs": (network(layer(inputs=[0])), "inputs"),
    "a fraction of units": (network(layer(options={"features": 3, "units": 2.0})), "units"),
    "endless units": (network(layer(options={"features": 3, "units": float("inf")})), "units"),
    "a layer that reads nothing": (network(layer(inputs=[])), "reads nothing"),
    "an unknown kind": (network(layer(kind="Danse")), "Danse"),
    "a list as a kind": (network(layer(kind=["Dense"])), "kind"),
    "a dictionary as an option": (network(layer(options=LSTM | {"activation": {}})), "activation"),
    "an epsilon that is no number": (
        network(layer(kind="BatchNorm", options={"features": 3, "epsilon": float("nan")})),
        "epsilon",
    ),
    "no axes left": (
        network(*[layer(f"l{n}", "Pool", {"pool": "max"}) for n in range(1)], layer(inputs=["l0"])),
        "dense",
    ),
    "a sum of nothing": (network(layer(kind="Merge", options={"merge": "sum"}, inputs=[])), "m.safetensors"),
    "a key without axes": (
        network(layer(kind="Operation", options={"function": "get_item", "key": [0, 0, 0, 0]})),
        "dense",
    ),
    "a key of nothing": (network(layer(kind="Operation", options={"function": "get_item", "key": [[0, 1, 0]]})), "key"),
    "constants that do not fit": (
        network(layer(kind="Constant", options={"values": [[1.0], []]}, inputs=[])),
        "numbers",
    ),
    "a batch below zero": (network(layer(kind="Input", options={"shape": [3], "batch": -1}, inputs=[])), "batch"),
    "a rule of another arity": (network(layer(rules=[{"kind": "penalty"}])), "m.safetensors"),
    "ten thousand layers without weights": (
        network(layer(kind="LSTM", options=LSTM | {"layers": 10_000, "bidirectional": True})),
        "20,000 layers",
    ),
    "twenty thousand layers": (network(*chain(20_000, "Activation", {"activation": "tanh"})), "20,000|20,001"),
    "a repeat of too much": (
        network(layer("l", "Pool", {"pool": "max"}), layer(kind="Repeat", options={"times": 10**13}, inputs=["l"])),
        "numbers",
    ),
    "doubled too often": (network(*chain(40, "Merge", {"merge": "concat"}, 2)), "numbers"),
}


@pytest.mark.parametrize(("data", "word"), DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_descriptions(data, word, tmp_path, torch):
    path = described(tmp_path, data)
    with bounded(), pytest.raises(gw.FileError, match=word) as caught:
        gw.load(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "changes", [{"framework": 5}, {"form": []}, {"frozen": "a"}, {"frozen": [1]}, {"form": "models"}]
)
def test_descriptions_of_another_form(changes, tmp_path, torch):
    path = described(tmp_path, network(layer()), **changes)
    refused(lambda: gw.load(path), "description")


LARGE = {
    "an input": [
        layer("i", "Input", {"shape": [10**9, 3]}, ()),
        layer("a", "Activation", {"activation": "tanh"}, ["i"]),
    ],
    "a batch": [layer("i", "Input", {"shape": [3], "batch": 10**9}, ()), layer("a", "Flip", {}, ["i"])],
    "a repeat": [layer("l", "Pool", {"pool": "max"}), layer("r", "Repeat", {"times": 10**11}, ["l"])],
    "a pad": [layer("p", "Pad", {"steps": [10**9, 10**9]})],
    "an upsample": [layer("u", "Upsample", {"times": 10**9})],
    "doubled": chain(30, "Merge", {"merge": "concat"}, 2),
}


@pytest.mark.parametrize("layers", LARGE.values(), ids=LARGE)
def test_a_run_that_would_take_too_much_is_refused(layers, tmp_path, torch):
    path = described(tmp_path, network(*layers))
    contents = checkpoints.read(path)
    contents.arrays.clear()
    from gatewise.live import restore

    made = restore("m", contents)
    with bounded(), pytest.raises(gw.SpecError, match="One run of this model would take"):
        gw.verify(made, made)


def test_long_chains_are_read_in_time(tmp_path, torch):
    data = network(*chain(2_000, "Activation", {"activation": "tanh"}))
    with bounded():
        made = gw.Network.from_dict(data)
    assert len(made.layers) == 2_001


# ── damage by chance, field by field ────────────────────────────────────────────────────────────────────────────

ODD = [
    None,
    True,
    0,
    -1,
    3,
    10**6,
    2**31,
    10**12,
    10**30,
    0.5,
    float("inf"),
    float("nan"),
    "",
    "lstm",
    "os",
    [],
    {},
    [[]],
]


def places(data, before=()):
    """Yield the place of every value in plain data."""
    if before:
        yield before
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield from places(data[key], (*before, key))


def damaged(random, data):
    """Return plain data in which some values are another, gone, doubled or multiplied."""
    data = copy.deepcopy(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        *way, key = random.choice([*places(data)])
        part = data
        for step in way:
            part = part[step]
        how = random.randrange(5)
        if how == 0:
            del part[key]
        elif how == 1 and isinstance(part, list):
            part.append(copy.deepcopy(part[key]))
        elif how == 2 and type(part[key]) is int:
            part[key] *= random.choice((-1, 2, 1000, 10**6))
        else:
            part[key] = copy.deepcopy(random.choice(ODD))
        if not data:
            break
    return data


@pytest.fixture(scope="module")
def sound(saved, tmp_path_factory):
    """A file of each kind that holds a model."""
    folder = tmp_path_factory.mktemp("sound")
    model = gw.load(saved)
    gw.save(gw.port(model, to="torch"), folder / "m.safetensors")
    return {".keras": saved, ".safetensors": folder / "m.safetensors"}


def damaged_file(random, sound, folder):
    """Return a file in which the description, the header or the config is damaged."""
    suffix = random.choice((".safetensors", ".safetensors", ".safetensors", ".keras"))
    path = folder / f"damaged{suffix}"
    if suffix == ".keras":
        return rewritten(sound[suffix], path, lambda config: damaged(random, config))
    data = sound[suffix].read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if random.random() < 0.3:
        header = damaged(random, header)
    else:
        about = damaged(random, json.loads(header["__metadata__"]["gatewise"]))
        header["__metadata__"]["gatewise"] = json.dumps(about)
    path.write_bytes(safetensors(header, body))
    return path


@pytest.mark.parametrize(
    "seeds", [range(40), pytest.param(range(40, 2_000), marks=pytest.mark.long)], ids=["few", "many"]
)
def test_damaged_files_are_refused_or_read(seeds, sound, tmp_path, torch):
    refusals = 0
    for seed in seeds:
        path = damaged_file(Random(seed), sound, tmp_path)
        with bounded():
            try:
                gw.load(path)
            except gw.GatewiseError:
                refusals += 1
    assert refusals > len(seeds) // 3


# ── Keras's files ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def saved(keras, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.GRU(4, name="gru"), keras.layers.Dense(2, name="out")])
    model.save(folder / "m.keras")
    return folder / "m.keras"


def rewritten(source, target, change=lambda config: config, **members):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = members.get(name, old.read(name))
            if name == "config.json" and "config.json" not in members:
                content = json.dumps(change(json.loads(content)))
            new.writestr(name, content)
    return target


def with_entry(place, **entries):
    def change(config):
        part = config
        for key in place:
            part = part[key]
        part.update(entries)
        return config

    return change


GRU = ("config", "layers", 1)
CONFIGS = {
    "a module to import": (with_entry(GRU, module="keras.src.saving.saving_lib_test"), "Nothing is imported"),
    "another package": (with_entry(GRU, module="keras_hub.layers", registered_name="x>y"), "Nothing is imported"),
    "code": (with_entry(GRU, class_name="Lambda"), "Lambda"),
    "a lambda as an activation": (
        with_entry((*GRU, "config"), activation={"class_name": "__lambda__", "config": {"value": ""}}),
        "__lambda__",
    ),
    "more units than are stored": (with_entry((*GRU, "config"), units=20_000), "m.keras"),
    "more than any axis has": (with_entry((*GRU, "config"), units=1 << 40), "units"),
    "a batch of states": (
        lambda config: with_entry((*GRU, "config"), stateful=True)(
            with_entry(("config", "layers", 0, "config"), batch_shape=[10**9, 6, 3])(config)
        ),
        "numbers",
    ),
    "a long loop, unrolled": (
        lambda config: with_entry((*GRU, "config"), unroll=True)(
            with_entry(("config", "layers", 0, "config"), batch_shape=[None, 10**6, 3])(config)
        ),
        "unrolls",
    ),
    "too many layers": (
        lambda config: with_entry(("config",), layers=config["config"]["layers"] * 4000)(config),
        "layers",
    ),
}


@pytest.mark.parametrize(("change", "word"), CONFIGS.values(), ids=CONFIGS)
def test_configs(saved, change, word, tmp_path):
    path = rewritten(saved, tmp_path / "m.keras", change)
    with bounded(), pytest.raises(gw.GatewiseError) as caught:
        gw.load(path)
    assert word in str(caught.value)


MEMBERS = {
    "nested deep": ({"config.json": "[" * 9000 + "]" * 9000}, "nested"),
    "a bomb": ({"config.json": " " * 200_000_000}, "unpack"),
    "large": ({"config.json": " " * 20_000_000}, "bytes"),
    "half of HDF5": ({"model.weights.h5": b"\x89HDF\r\n\x1a\n" + b"\0" * 500}, "cannot be read"),
}


@pytest.mark.parametrize(("members", "word"), MEMBERS.values(), ids=MEMBERS)
def test_members(saved, members, word, tmp_path):
    path = rewritten(saved, tmp_path / "m.keras", **members)
    refused(lambda: gw.load(path), word)


def _external(file, _):
    import h5py

    file["layers/gru/cell/vars/9"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft(file, _):
    import h5py

    file["layers/again"] = h5py.SoftLink("/layers")


def _cycle(file, _):
    file["layers/gru/again"] = file["layers"]


def _elsewhere(file, folder):
    file.create_dataset("layers/x", (3,), "float32", external=[(str(folder / "other"), 0, 12)])


def _virtual(file, folder):
    import h5py

    layout = h5py.VirtualLayout((3,), "float32")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (3,))
    file.create_virtual_dataset("layers/x", layout)


def _declared(file, _):
    file.create_dataset("layers/x", (10**6, 10**6), "float32", chunks=(1000, 1000))


def _packed(file, _):
    file.create_dataset("layers/x", (10,), "float32", compression="lzf")


def _texts(file, _):
    file.create_dataset("layers/x", data=["a", "b"])


@pytest.mark.parametrize("harm", [_external, _soft, _cycle, _elsewhere, _virtual, _declared, _packed, _texts])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_hdf5_that_leads_elsewhere(saved, harm, suffix, tmp_path):
    import h5py

    path = tmp_path / f"m{suffix}"
    weights = tmp_path / "weights.h5"
    with zipfile.ZipFile(saved) as archive:
        weights.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(weights, "r+") as file:
        harm(file, tmp_path)
    if suffix == ".keras":
        rewritten(saved, path, **{"model.weights.h5": weights.read_bytes()})
    else:
        os.rename(weights, path)
    refused(lambda: gw.load(path), " in it ")


def test_what_acts_in_training_alone_does_not_stop_a_port(keras, tmp_path):
    class Halved(keras.constraints.Constraint):
        def __call__(self, weight):
            return weight / 2

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out", kernel_constraint=Halved())])
    model.save(tmp_path / "m.keras")
    with pytest.raises(Exception, match="Halved"):
        keras.saving.load_model(tmp_path / "m.keras")
    from gatewise.live import port_file

    done, parity = port_file(tmp_path / "m.keras", tmp_path / "m.safetensors")
    assert parity.passed
    assert any("kernel_constraint" in remark and "Halved" in remark for remark in done.remarks)
