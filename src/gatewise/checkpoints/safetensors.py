"""The ``.safetensors`` container: a header of JSON, which says where in the rest of the file each array lies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gatewise.checkpoints.reading import parse_json
from gatewise.errors import FileError

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "C64": "<c8", "BOOL": "?"} | {
    f"{sign}{8 * size}": f"<{sign.lower()}{size}" for sign in "IU" for size in (1, 2, 4, 8)
}
"""Types of numbers; NumPy lacks bfloat16, the first half of a float32, which is what it is read as."""


def decode(data: bytes, path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a file by name, and the texts that it carries beside them."""
    try:
        return _decoded(data)
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"{path} cannot be read: {str(error).rstrip('.')}.",
            "Expected a .safetensors file.",
            "Save it again, or check that it is whole.",
        ) from None


def _decoded(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError(f"its header would be of {length:,} bytes, and it has {len(data):,} in all")
    header = parse_json(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    about = header.pop("__metadata__", None) or {}
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise ValueError("its metadata are no texts")
    body = np.frombuffer(bytearray(memoryview(data)[8 + length :]), np.uint8)
    places = {name: _place(name, entry) for name, entry in header.items()}
    at, arrays = 0, {}
    for name, (kind, shape, begin, end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != at or math.prod(shape) * kind.itemsize != end - begin or end > len(body):
            raise ValueError(f"{name!r} is {kind} {shape} at bytes {begin:,} to {end:,}, which does not fit the file")
        at = end
        numbers = body[begin:end].view(kind) if end > begin else np.empty(0, kind)
        if header[name]["dtype"] == "BF16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = numbers.reshape(shape)
    if at != len(body):
        raise ValueError(f"{len(body) - at:,} bytes in it belong to no array")
    return arrays, about


def _place(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """Return type, shape, begin and end of one array from its entry in the header."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} in its header does not say type, shape and place")
    kind, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise ValueError(f"{name!r} is of {kind!r}, and {', '.join(TYPES)} are read")
    for numbers in (shape, place):
        if not isinstance(numbers, list) or not all(type(size) is int and 0 <= size < 1 << 63 for size in numbers):
            raise ValueError(f"{name!r} has the shape or place {numbers!r}")
    if len(place) != 2 or len(shape) > 64:
        raise ValueError(f"{name!r} has {len(shape)} axes at {place!r}")
    return np.dtype(TYPES[kind]), tuple(shape), *place


def save(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
    """Write arrays to a file."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    # The library writes an array's buffer as it lies in memory, so a transposed view has to be laid out first.
    laid = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        save_file(laid, path, dict(about) or None)
    except SafetensorError as error:
        raise OSError(str(error)) from None
