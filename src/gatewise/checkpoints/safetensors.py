"""The ``.safetensors`` container, through its own library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from gatewise.errors import FileError


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name."""
    from safetensors.numpy import load_file

    with _explained(path):
        return load_file(path)


def metadata(path: Path) -> dict[str, str]:
    """Return the texts that a file carries beside its arrays."""
    from safetensors import safe_open

    with _explained(path), safe_open(path, "np") as file:
        return dict(file.metadata() or {})


def save(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
    """Write arrays to a file."""
    from safetensors.numpy import save_file

    # The library writes an array's buffer as it lies in memory, so a transposed view has to be laid out first.
    laid = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    save_file(laid, path, dict(about) or None)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path} cannot be read: {str(error).rstrip('.')}.",
            "Expected a .safetensors file.",
            "Save it again, or check that it is whole.",
        ) from None
