"""Files that are written: whole or not at all, in the place that was named, with nothing left beside it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise import checkpoints
from gatewise.checkpoints import writing
from gatewise.cli import main

resource = pytest.importorskip("resource", reason="limits of a process are POSIX's")

ARRAYS = {"kernel": np.arange(40_000, dtype="float32")}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_files():
    """No file may grow beyond 4,096 bytes: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_full_disk_leaves_nothing(small_files, tmp_path, suffix):
    with pytest.raises(gw.FileError, match="cannot be written"):
        checkpoints.save(tmp_path / f"a{suffix}", ARRAYS)
    with pytest.raises(gw.FileError, match="cannot be written"):
        checkpoints.write_text(tmp_path / "a.txt", "long " * 10_000)
    assert names(tmp_path) == []


def test_a_full_disk_while_a_model_is_written(keras, small_files, tmp_path):
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(50)])
    for suffix in (".keras", ".safetensors"):
        with pytest.raises(gw.FileError, match="cannot be written"):
            gw.save(model, tmp_path / f"m{suffix}")
    assert names(tmp_path) == []


def test_a_full_disk_keeps_what_was_there(small_files, tmp_path):
    there = tmp_path / "a.npz"
    there.write_bytes(b"old")
    with pytest.raises(gw.FileError):
        checkpoints.save(there, ARRAYS)
    assert there.read_bytes() == b"old"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.npz", tmp_path / "link.npz"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    checkpoints.save(link, ARRAYS)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert list(checkpoints.load(real)) == ["kernel"]
    dangling = tmp_path / "dangling.npz"
    dangling.symlink_to(tmp_path / "far" / "new.npz")
    checkpoints.save(dangling, ARRAYS)
    assert dangling.is_symlink()
    assert names(tmp_path / "far") == ["new.npz", "real.npz"]


def _pipe(path):
    os.mkfifo(path)


def _circle(path):
    path.symlink_to(path)


def _to_a_device(path):
    path.symlink_to(os.devnull)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (_pipe, "pipe"),
        (os.mkdir, "folder"),
        (_circle, "circle"),
        (_to_a_device, "device"),
    ],
)
def test_only_a_plain_file_is_replaced(make, word, tmp_path):
    place = tmp_path / "out.npz"
    make(place)
    before = os.lstat(place)
    with pytest.raises(gw.FileError, match=word):
        checkpoints.save(place, ARRAYS)
    assert os.lstat(place).st_ino == before.st_ino
    assert names(tmp_path) == ["out.npz"]


@pytest.mark.parametrize("length", [254, 255])
def test_a_name_as_long_as_a_name_can_be(tmp_path, length):
    long = tmp_path / ("n" * (length - 4) + ".npz")
    checkpoints.save(long, ARRAYS)
    assert names(tmp_path) == [long.name]
    with pytest.raises(gw.FileError, match="cannot be written"):
        checkpoints.save(tmp_path / ("n" * 252 + ".npz"), ARRAYS)


def test_what_a_kill_left_is_removed_by_the_next(tmp_path):
    killed = (
        "import os, pathlib, sys\nfrom gatewise.checkpoints import whole\n"
        "with whole(pathlib.Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    place = tmp_path / "a.npz"
    subprocess.run([sys.executable, "-c", killed, place], check=False)
    [left] = names(tmp_path)
    assert left.startswith(".gatewise-")
    mine = tmp_path / writing._own_name(".npz")  # of a process that lives
    mine.write_bytes(b"")
    other = tmp_path / ".gatewise-notes.txt"  # no name of ours
    other.write_bytes(b"")
    elsewhere = tmp_path / ".gatewise-00000000-1-00000000.npz"  # of another machine, and new
    elsewhere.write_bytes(b"")
    checkpoints.save(place, ARRAYS)
    assert names(tmp_path) == sorted(["a.npz", mine.name, other.name, elsewhere.name])
    os.utime(elsewhere, (1, 1))
    checkpoints.save(place, ARRAYS)
    assert elsewhere.name not in names(tmp_path)


@pytest.mark.parametrize("path", [None, 5, b"a.npz", ["a.npz"]])
def test_what_is_no_path(path, torch):
    for call in (gw.load, gw.compare, lambda path: gw.save(torch.nn.LSTM(2, 3), path), checkpoints.load):
        with pytest.raises(gw.FileError, match="is not a path"):
            call(path)


@pytest.mark.parametrize("name", ["a\0b.safetensors", "a\0b.keras"])
def test_a_name_with_a_nul(name, torch):
    for call in (lambda: gw.load(name), lambda: gw.save(torch.nn.LSTM(2, 3), name), lambda: checkpoints.load(name)):
        with pytest.raises(gw.FileError, match="is not a path"):
            call()


# ── types of files ──────────────────────────────────────────────────────────────────────────────────────────────

TYPES = {
    "lstm.pt": ("pickled file of PyTorch", "weights_only=True"),
    "lstm.pth": ("pickled file of PyTorch", "gw.port"),
    "lstm.onnx": ("ONNX", "npz"),
    "lstm.weights.h5": ("weights without the model", "load_weights"),
    "lstm.tflite": ("TensorFlow Lite", "made from"),
    "lstm.pkl": ("run code", "gw.port"),
    "lstm": ("unsupported file type.", "add one of these"),
}


@pytest.mark.parametrize(("name", "words"), TYPES.items(), ids=TYPES)
def test_an_unsupported_type_says_what_it_is_and_how_to_go_on(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    commands = (["port", name, "out.safetensors"], ["verify", name, name], ["explain", name, name])
    for command in (*commands, ["map", "torch", "keras", "--weights", name]):
        done = CliRunner().invoke(main, command)
        assert (done.exit_code, done.stdout) == (2, ""), command
        assert "unsupported file type" in done.stderr
        assert all(word in done.stderr for word in words)
    assert names(tmp_path) == [name]


def test_a_saved_model_is_a_folder(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(gw.FileError, match=r"SavedModel of TensorFlow(.|\n)*model.save\('model.keras'\)"):
        gw.load(tmp_path / "saved")


def test_a_missing_file_is_said_first_and_before_any_framework_is_imported(tmp_path):
    checked = (
        "import sys\nfrom gatewise.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    sys.exit(9 if {'keras', 'tensorflow', 'torch'} & set(sys.modules) else end.code)\n"
    )
    (tmp_path / "there.keras").write_bytes(b"PK\x03\x04")
    for source, target, word in (
        ("missing.keras", "x.bad", "No such file: missing.keras"),
        ("there.keras", "x.bad", "x.bad: unsupported file type .bad"),
    ):
        command = [sys.executable, "-c", checked, "port", source, target]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert word in done.stderr
