"""Zip files of a stranger: no member is read that is not plain, and none that holds far more than is stored of it."""

from __future__ import annotations

import zipfile
from typing import IO

ROOM = 1 << 27
"""Bytes that the members may unpack to, whatever is stored of them."""

SPREAD = 100
"""How many times what is stored they may unpack to beyond that."""


def checked(file: IO[bytes]) -> zipfile.ZipFile:
    """Open a zip file whose members may be read.

    Raises:
        ValueError: Two members have one name, one has a path that leads elsewhere, is compressed in a way that is not
            bounded, encrypted, or unpacks to far more than is stored of it.
        zipfile.BadZipFile: It is no zip file, or not a whole one.
    """
    archive = zipfile.ZipFile(file)
    stored = file.seek(0, 2)
    seen: set[str] = set()
    size = 0
    for member in archive.infolist():
        name = member.filename
        if name in seen:
            raise ValueError(f"it holds {name!r} twice")
        seen.add(name)
        if not name or name.startswith("/") or "\\" in name or ":" in name[:2] or ".." in name.split("/"):
            raise ValueError(f"{name!r} in it is no plain name")
        if member.flag_bits & 1:
            raise ValueError(f"{name!r} in it is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name!r} in it is compressed by another way than zip's usual one")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise ValueError(f"{name!r} in it has two sizes")
        size += member.file_size
    if size > max(ROOM, SPREAD * stored):
        raise ValueError(f"it would unpack to {size:,} bytes, and {stored:,} are stored")
    return archive
