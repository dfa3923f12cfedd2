"""NumPy's ``.npz``: a zip of arrays. Nothing in it is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gatewise.errors import FileError


def load(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name."""
    try:
        # Opened here: NumPy leaves a file open that turns out to be damaged.
        with path.open("rb") as file:
            if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUM"):
                raise ValueError("it is neither a zip of arrays nor an array")
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise FileError(
                    f"{path} holds one array without a name.",
                    "Expected an .npz of named arrays.",
                    "Save it with numpy.savez.",
                )
            with archive:
                arrays = {name: archive[name] for name in archive.files}
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray):  # NumPy hands over the bytes of what is no array
                raise ValueError(f"{name!r} in it is no array")
        return arrays
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise FileError(
            f"{path} cannot be read: {str(error).rstrip('.')}.",
            "Expected an .npz of plain arrays.",
            "Save it again with numpy.savez.",
        ) from None


def metadata(path: Path) -> dict[str, str]:  # noqa: ARG001
    """Return nothing: an .npz carries arrays alone."""
    return {}


def save(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write arrays to a file; there is no place for ``about``."""
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # numpy.savez takes names as keywords, and so cannot write one called "file"; this can.
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
