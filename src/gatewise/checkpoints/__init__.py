"""Named arrays in and out of files, one module per container, chosen by the file's suffix; no framework is needed.

A file is data from a stranger: it is read once, and what it states is held against what is stored in it.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gatewise.arguments import path_of
from gatewise.checkpoints.reading import opened as opened
from gatewise.checkpoints.reading import parse_json as parse_json
from gatewise.checkpoints.reading import read_once as read_once
from gatewise.checkpoints.reading import snapshot as snapshot
from gatewise.checkpoints.writing import whole as whole
from gatewise.checkpoints.writing import write_text as write_text
from gatewise.errors import FileError, closest, nearest

if TYPE_CHECKING:
    import numpy as np

CONTAINERS = {".npz": "npz", ".safetensors": "safetensors"}
"""Suffix → module of this package; each has ``decode(data, path)`` and ``save(path, arrays, about)``."""

KERAS_FILES = (".keras", ".h5", ".hdf5")
"""Suffixes of files that Keras reads."""

_TORCH = (
    "a pickled file of PyTorch",
    "Load it with torch.load(…, weights_only=True) into its model, and give the model to gw.port or gw.save.",
)
OTHERS: dict[str, tuple[str, str]] = {
    ".weights.h5": (
        "Keras's weights without the model",
        "Build the model, model.load_weights(…), and save it whole: model.save('model.keras').",
    ),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), _TORCH),
    ".onnx": (
        "a model of ONNX",
        "Arrays of a layer in it: read them with onnx.numpy_helper, save an .npz, and map it.",
    ),
    ".pb": ("a graph of TensorFlow", "Save the model again in its own code: model.save('model.keras')."),
    ".tflite": ("a model of TensorFlow Lite", "Port the model that it was made from."),
    ".pkl": ("a pickle, which can run code when it is read", "Load it yourself, and give the object to gw.port."),
    ".npy": ("one array without a name", "Save the arrays of a layer together, by name: numpy.savez."),
    ".index": ("the index of a checkpoint of TensorFlow", "Load it into its model, and save that: model.save(…)."),
    ".keras": ("a model of Keras", "gatewise port brings whole models over."),
    ".npz": (
        "arrays without a model",
        "gatewise map brings those of one layer over, gatewise transfer fills a model with them.",
    ),
    ".json": ("which may be a config of Keras", "gatewise inspect reads a config; a port needs the weights, too."),
    ".py": ("a Python file", "gatewise transfer fills a model of a class in it: net.py:Net."),
    ".msgpack": ("a checkpoint of Flax", "Restore it with flax, and save its arrays with numpy.savez."),
}
"""Suffix of a file that is not read → what it is, and how to go on."""


class Contents(NamedTuple):
    """What was in a file: its arrays by name, and the texts that it carries beside them."""

    arrays: dict[str, np.ndarray]
    about: dict[str, str]


def unsupported(path: Path, known: Iterable[str]) -> FileError:
    """Return the error for a file of a type that is not read, or not written, here."""
    there = f"Supported here: {', '.join(known)}."
    if path.is_dir():
        saved = (path / "saved_model.pb").exists()
        what = " is a folder" + (": a SavedModel of TensorFlow." if saved else ".")
        return FileError(f"{path}{what}", there, OTHERS[".pb"][1] if saved else "Name the file in it.")
    name = path.name.lower()
    for suffix, (what, way_on) in OTHERS.items():
        if name.endswith(suffix):
            return FileError(f"{path.name}: unsupported file type {suffix}, {what}.", there, way_on)
    return _by_suffix(path, known)


def _by_suffix(path: Path, known: Iterable[str]) -> FileError:
    suffix, known = path.suffix.lower(), tuple(known)
    return FileError(
        f"{path.name or path}: unsupported file type{f' {suffix}' if suffix else ''}.",
        f"Supported here: {', '.join(known)}.",
        f"{nearest(suffix, known)}Use one of these."
        if suffix
        else f"The suffix of the name says the type: add one of these, as in {path.name}{known[0]}.",
    )


def check_readable(path: Path, known: Iterable[str]) -> None:
    """Raise ``FileError`` where there is no such file, or where it is of another type than those that are known.

    Nothing is opened, and nothing imported.
    """
    known = tuple(known)
    name = path.name.lower()
    listed = name.endswith(known) and not name.endswith(".weights.h5")
    if os.path.isfile(path):
        if not listed:
            raise unsupported(path, known)
        return
    if os.path.isdir(path) or (not listed and not name):
        raise unsupported(path, known)
    expected = f"Expected a file: {', '.join(known)}."
    if os.path.exists(path):
        raise FileError(f"{path} is no plain file.", expected, "Check the name.")
    raise FileError(f"No such file: {path}.", expected, missing_hint(path, known))


def missing_hint(path: Path, known: Iterable[str]) -> str:
    """Say which file was probably meant by a name that there is not."""
    try:
        with os.scandir(path.parent) as entries:  # A long name, or one with a NUL in it, is a ValueError or an OSError.
            beside = [
                entry.name for entry in itertools.islice(entries, 1_000) if entry.name.lower().endswith(tuple(known))
            ]
    except (OSError, ValueError):
        beside = []
    stems = {Path(name).stem: name for name in beside if name.lower().endswith(path.suffix.lower())}
    match = closest(path.stem, stems)
    return f"Did you mean {stems[match]!r}?" if match else "Check the name."


def check_writable(path: Path, known: Iterable[str]) -> None:
    """Raise ``FileError`` where nothing is written to files of this type; the suffix says it."""
    suffix = path.suffix.lower()
    if suffix not in known:
        error = _by_suffix(path, known)
        hint = f"{INSTEAD[suffix]} {error.hint}" if suffix in INSTEAD and ".safetensors" in known else error.hint
        raise FileError(error.met, error.where, hint)


INSTEAD = dict.fromkeys(
    (".pt", ".pth"), "Write .safetensors; torch.save(gw.load(…).state_dict(), …) makes a file of PyTorch's own of it."
)
"""Suffix of a file that is not written → how to come by one."""


def check_other(source: Path, target: Path) -> None:
    """Raise ``FileError`` where a file would be written over the one that it is made from."""
    try:
        same = os.path.samefile(source, target)
    except (OSError, ValueError):  # One of them is missing, or cannot be: reading or writing it will say so.
        return
    if same:
        raise FileError(f"{target} is the file to read.", "Source and target are the same.", "Write to another file.")


def read(path: str | Path) -> Contents:
    """Return all that is in a file of arrays; it is read once.

    Raises:
        FileError: The file is missing, damaged, or of an unsupported type.
    """
    path = path_of(path)
    check_readable(path, CONTAINERS)
    arrays, about = _container(path).decode(read_once(path), path)
    return Contents(arrays, about)


def load(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name.

    Raises:
        FileError: The file is missing, damaged, or of an unsupported type.
    """
    return read(path).arrays


def save(path: str | Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str] | None = None) -> None:
    """Write arrays to a file, whole or not at all; ``about`` are texts to carry beside them.

    Raises:
        FileError: The type is unsupported, or the file cannot be written.
    """
    path = path_of(path)
    check_writable(path, CONTAINERS)
    with whole(path) as unfinished:
        _container(path).save(unfinished, arrays, about or {})


def _container(path: Path) -> Any:
    return importlib.import_module(f"gatewise.checkpoints.{CONTAINERS[path.suffix.lower()]}")
