"""Named arrays in and out of files, one module per container, chosen by the file's suffix; no framework is needed."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gatewise.errors import FileError

if TYPE_CHECKING:
    import numpy as np

CONTAINERS = {".npz": "npz", ".safetensors": "safetensors"}
"""Suffix → module of this package; each has ``load(path)`` and ``save(path, arrays)``."""


def _container(path: Path) -> str:
    if path.suffix.lower() not in CONTAINERS:
        raise FileError(
            f"{path} has no suffix that is known here.",
            f"Known: {', '.join(CONTAINERS)}.",
            "Name the file so that its suffix says what it is.",
        )
    return f"gatewise.checkpoints.{CONTAINERS[path.suffix.lower()]}"


def _check_there(path: Path) -> None:
    if os.path.isfile(path):
        return
    what = "is a folder" if os.path.isdir(path) else "is no plain file" if os.path.exists(path) else "is not there"
    raise FileError(f"{path} {what}.", "Expected a file of arrays.", "Check the name.")


def load(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name.

    Raises:
        FileError: The file is missing, damaged, or of an unknown kind.
    """
    path = Path(path)
    container = _container(path)
    _check_there(path)
    return cast("dict[str, np.ndarray]", importlib.import_module(container).load(path))


def metadata(path: str | Path) -> dict[str, str]:
    """Return the texts that a file carries beside its arrays; a container without any has none.

    Raises:
        FileError: The file is missing, damaged, or of an unknown kind.
    """
    path = Path(path)
    container = importlib.import_module(_container(path))
    _check_there(path)
    return cast("dict[str, str]", container.metadata(path))


def save(path: str | Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str] | None = None) -> None:
    """Write arrays to a file, whole or not at all; ``about`` are texts to carry beside them.

    Raises:
        FileError: The suffix is unknown, or the file cannot be written.
    """
    path = Path(path)
    container = importlib.import_module(_container(path))
    with whole(path) as unfinished:
        container.save(unfinished, arrays, about or {})


def write_text(path: str | Path, text: str) -> None:
    """Write text to a file, whole or not at all."""
    with whole(Path(path)) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a file beside the wanted one, which takes its place once everything is written."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror}.", f"Folder {path.parent}.", "Choose another place."
        ) from None
    unfinished = Path(name)
    try:
        yield unfinished
        os.chmod(unfinished, 0o666 & ~_umask())
        os.replace(unfinished, path)
    except OSError as error:
        raise FileError(
            f"{path} cannot be written: {error.strerror}.", "Nothing was left behind.", "Choose another place."
        ) from None
    finally:
        unfinished.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
