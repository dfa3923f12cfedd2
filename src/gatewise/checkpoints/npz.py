"""NumPy's ``.npz``: a zip of arrays. Nothing in it is ever unpickled."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gatewise.checkpoints import zips
from gatewise.errors import FileError

BROKEN = (
    *(OSError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError, RuntimeError, SyntaxError),
    *(RecursionError, MemoryError, NotImplementedError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What zip files and the headers of arrays, which are Python literals, raise where they are damaged."""


def decode(data: bytes, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a file by name, and nothing beside them: there is no place for more."""
    try:
        if data[:6] == b"\x93NUMPY":
            raise FileError(
                f"{path} holds one array without a name.",
                "Expected an .npz of named arrays.",
                "Save it with numpy.savez.",
            )
        if data[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise ValueError("it is neither a zip of arrays nor an array")
        with zips.checked(io.BytesIO(data)) as archive:
            arrays = {
                member.filename.removesuffix(".npy"): _array(member.filename, archive.read(member))
                for member in archive.infolist()
            }
        return arrays, {}
    except BROKEN as error:
        raise FileError(
            f"{path} cannot be read: {str(error).rstrip('.') or type(error).__name__}.",
            "Expected an .npz of plain arrays.",
            "Save it again with numpy.savez.",
        ) from None


def _array(name: str, data: bytes) -> np.ndarray:
    """Return the array of one member, whose header is held against the bytes that follow it."""
    file = io.BytesIO(data)
    if data[:6] != b"\x93NUMPY":
        raise ValueError(f"{name!r} in it is no array")
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name!r} in it is of version {version} of the format")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError(f"{name!r} in it holds objects, and only numbers are read")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{name!r} in it has the shape {shape}")
    rest = len(data) - file.tell()
    if math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"{name!r} in it says {shape} of {dtype}, and {rest:,} bytes follow")
    flat = np.frombuffer(bytearray(data[file.tell() :]), dtype) if rest else np.empty(math.prod(shape), dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def save(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:  # noqa: ARG001
    """Write arrays to a file; there is no place for ``about``."""
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # numpy.savez takes names as keywords, and so cannot write one called "file"; this can.
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
