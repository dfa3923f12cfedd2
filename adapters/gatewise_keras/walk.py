"""Goes through all of an HDF5 file and says how many numbers it stores; run as a program of its own, under limits.

``python -I walk.py FILE SECONDS`` prints the number, or exits with 1 and prints what is wrong with the file.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import zipfile
from typing import Any

MEMORY = 1 << 28
"""Bytes that the walk may take beside what the program has when it begins."""

MOST_OBJECTS = 100_000

MOST_DEPTH = 100

READ = 1 << 26
"""Bytes of compressed arrays that are read as well: their blocks may be damaged."""

SPREAD = 1_100
"""How many times what is stored a compressed array may unpack to; deflate has no more."""


def main(path: str, seconds: int) -> str:
    """Return how many numbers are stored in the HDF5 of a file.

    Raises:
        ValueError: There is something in it that Keras does not write.
    """
    import h5py

    _limit(seconds)
    with contextlib.ExitStack() as stack:
        size, weights = os.path.getsize(path), stack.enter_context(open(path, "rb"))
        if path.endswith(".keras"):
            size, weights = _member(weights, "model.weights.h5")
        return str(_walk(stack.enter_context(h5py.File(weights, "r")), size))


def _member(file: Any, name: str) -> tuple[int, Any]:
    """Return size and bytes of a member of a zip file: the file itself from there on, where it lies in it as it is."""
    archive = zipfile.ZipFile(file)
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        return member.file_size, io.BytesIO(archive.read(member))
    file.seek(member.header_offset)
    head = file.read(30)
    begin = member.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    return member.file_size, _Part(file, begin, member.file_size)


class _Part(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: Any, begin: int, size: int) -> None:
        self.file, self.begin, self.size, self.at = file, begin, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, place: Any) -> int:
        self.file.seek(self.begin + self.at)
        data: bytes = self.file.read(max(0, min(len(place), self.size - self.at)))
        place[: len(data)] = data
        self.at += len(data)
        return len(data)


def _limit(seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no limits of this kind; whoever started this program waits only so long.
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as sizes:
        taken = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))


def _walk(root: Any, size: int) -> int:
    """Return how many numbers the arrays below a group hold; no link is followed but the plain ones."""
    import h5py

    seen: set[Any] = set()
    todo = [(root, "", 0)]
    numbers = read = total = 0
    while todo:
        group, place, depth = todo.pop()
        _attributes(group, place)
        for name in group:
            here = f"{place}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{here} in it is a {type(link).__name__}, which leads elsewhere")
            entry = group[name]
            info = h5py.h5o.get_info(entry.id)
            if (info.fileno, info.addr) in seen or info.addr == h5py.h5o.get_info(root.id).addr:
                raise ValueError(f"{here} in it is a second name of something")
            seen.add((info.fileno, info.addr))
            if len(seen) > MOST_OBJECTS or depth > MOST_DEPTH:
                raise ValueError(
                    f"it holds more than {MOST_OBJECTS:,} groups and arrays, or {MOST_DEPTH} in each other"
                )
            if isinstance(entry, h5py.Group):
                todo.append((entry, here, depth + 1))
                continue
            if not isinstance(entry, h5py.Dataset):
                raise ValueError(f"{here} in it is a {type(entry).__name__}")
            declared = _dataset(entry, here, size)
            total += declared
            if total > max(4 * size, READ):
                raise ValueError(f"its arrays would take {total:,} bytes, and it has {size:,}")
            numbers += math.prod(entry.shape)
            if entry.chunks is not None and read < READ:
                read += declared
                entry[...]
    return numbers


def _dataset(entry: Any, here: str, size: int) -> int:
    """Return how many bytes an array takes, and refuse one that is not stored in the file itself."""
    import h5py

    if entry.shape is None:
        raise ValueError(f"{here} in it is empty")
    declared: int = math.prod(entry.shape) * entry.dtype.itemsize
    _attributes(entry, here)
    if entry.dtype.kind not in "biufSV" or entry.dtype.hasobject or entry.dtype.names:
        raise ValueError(f"{here} in it holds no numbers")
    if entry.is_virtual or entry.external:
        raise ValueError(f"{here} in it is stored in another file")
    stored = entry.id.get_storage_size()
    if stored > size or declared > SPREAD * max(stored, 64) or (entry.chunks is None and declared > stored):
        raise ValueError(f"{here} in it says {entry.shape} of {entry.dtype}, and {stored:,} bytes are stored")
    made = entry.id.get_create_plist()
    known = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
    if any(made.get_filter(number)[0] not in known for number in range(made.get_nfilters())):
        raise ValueError(f"{here} in it is packed in a way that is not known here")
    return declared


def _attributes(entry: Any, here: str) -> None:
    """Read the texts and numbers that are written beside a group or array."""
    for name in entry.attrs:
        value = entry.attrs[name]
        if getattr(value, "nbytes", 0) > MEMORY // 4:
            raise ValueError(f"{name} of {here or '/'} in it is too large")


if __name__ == "__main__":
    try:
        print(main(sys.argv[1], int(sys.argv[2])))
    except MemoryError:
        print("reading it takes too much memory")
        sys.exit(1)
    except Exception as error:  # h5py raises whatever libhdf5 says; any of it means that the file is no good.
        print(str(error).strip().splitlines()[0].rstrip(".")[:300] if str(error).strip() else type(error).__name__)
        sys.exit(1)
