"""Reads what a file of Keras says of itself, as plain data: nothing in it is built or run, and Keras is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from gatewise.checkpoints import zips
from gatewise.checkpoints.reading import parse_json
from gatewise.errors import FileError

MOST_OBJECTS = 100_000
"""Groups and arrays of HDF5 that are listed."""

OPTIMIZERS = ("optimizer/", "optimizer_weights/")
"""How the names of an optimiser's variables begin."""


class Stored(NamedTuple):
    """One array of a file: its path in it, dtype, shape and bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


class KerasFacts(NamedTuple):
    """What a file says: Keras's version, when it was saved, the config of the model, and its arrays."""

    version: str
    saved: str
    config: Any
    arrays: tuple[Stored, ...]


def keras_facts(path: Path) -> KerasFacts:
    """Read a ``.keras`` or ``.h5`` file.

    Raises:
        FileError: It is damaged.
    """
    import h5py

    try:
        if path.suffix.lower() == ".keras":
            with path.open("rb") as data, zips.checked(data) as archive:
                about = parse_json(archive.read("metadata.json"))
                config = parse_json(archive.read("config.json"))
                with archive.open("model.weights.h5") as weights, h5py.File(weights, "r") as file:
                    arrays = tuple(_arrays(file))
            about = about if isinstance(about, dict) else {}
            return KerasFacts(str(about.get("keras_version", "")), str(about.get("date_saved", "")), config, arrays)
        with h5py.File(path, "r") as file:
            version, config = (_text(file.attrs.get(name, "")) for name in ("keras_version", "model_config"))
            return KerasFacts(version, "", parse_json(config) if config else None, tuple(_arrays(file)))
    except Exception as error:  # h5py and zipfile raise whatever they meet in a damaged file.
        text = str(error).strip().splitlines()
        raise FileError(
            f"{path.name} cannot be read: {text[0] if text else type(error).__name__}",
            "Expected a model that Keras saved: .keras is a zip file, .h5 is HDF5.",
            "Save the model again, as .keras.",
        ) from None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _arrays(file: Any) -> list[Stored]:
    """Return the arrays of a file of HDF5 in the order of their names; links to elsewhere are left alone."""
    import h5py

    found: list[Stored] = []
    todo, seen = [("", file)], 0
    while todo:
        place, group = todo.pop()
        for name in group:
            seen += 1
            if seen > MOST_OBJECTS:
                raise ValueError(f"it holds more than {MOST_OBJECTS:,} groups and arrays")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            entry, path = group[name], f"{place}{name}"
            if isinstance(entry, h5py.Group):
                if path.count("/") < 100:
                    todo.append((f"{path}/", entry))
            elif isinstance(entry, h5py.Dataset) and entry.shape is not None:
                found.append(Stored(path, str(entry.dtype), tuple(entry.shape), int(entry.nbytes)))
    return sorted(
        found, key=lambda each: [(int(part) if part.isdigit() else -1, part) for part in each.name.split("/")]
    )
