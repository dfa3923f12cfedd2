"""The ``.safetensors`` container, through its own library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gatewise.errors import FileError


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"{path} cannot be read: {error}.",
            "Expected a .safetensors file.",
            "Save it again, or check that it is whole.",
        ) from None


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file."""
    from safetensors.numpy import save_file

    # The library writes an array's buffer as it lies in memory, so a transposed view has to be laid out first.
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
