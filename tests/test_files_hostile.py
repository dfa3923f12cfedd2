"""Files of a stranger: damaged, made up, or changed while they are read. Each is refused in bounded time and memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import threading
import time
import zipfile

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
