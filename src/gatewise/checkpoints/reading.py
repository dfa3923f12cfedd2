"""Reading once, and within bounds: the bytes of a file, a copy for a library that wants a path, and JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gatewise.checkpoints.writing import temporary_folder
from gatewise.errors import FileError

MOST_TEXT = 1 << 24
"""Bytes of a JSON text: a description of a thousand layers has half a million."""

MOST_VALUES = 1 << 20
"""Values in a JSON text; each takes some hundred bytes of memory."""

MOST_DEPTH = 200
"""How deep lists and dictionaries of a JSON text may lie in each other."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain file; whoever replaces it meanwhile changes nothing of what is read.

    Raises:
        FileError: It cannot be opened, or was written into while it was read.
    """
    try:
        # Where a pipe has taken the file's place, this does not wait for someone to write into it.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            before = os.fstat(file.fileno())
            yield file
            after = os.fstat(file.fileno())
    except OSError as error:
        raise FileError(
            f"{path} cannot be read: {error.strerror or error}.", "Expected a plain file.", "Check the name."
        ) from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FileError(
            f"{path} was written into while it was read.",
            "Expected a file that is whole.",
            "Try again once it is written; gatewise.save puts a new file in the place of the old one at once.",
        )


def read_once(path: Path) -> bytes:
    """Return the bytes of a file."""
    with opened(path) as file:
        return file.read()


@contextlib.contextmanager
def snapshot(path: Path) -> Iterator[Path]:
    """Give a private copy of a file, of the same name, for a library that opens the file by its path, even twice."""
    with temporary_folder() as folder:
        copy = folder / (path.stem + path.suffix.lower())
        try:
            with opened(path) as file, copy.open("wb") as private:
                shutil.copyfileobj(file, private, 1 << 20)
        except OSError as error:
            raise FileError(
                f"{path} cannot be copied to be read: {error.strerror}.", f"Folder {folder.parent}.", "Make room there."
            ) from None
        yield copy


def parse_json(text: str | bytes) -> Any:
    """Read JSON of a stranger: size, depth and number of values are bounded before anything is built.

    Raises:
        ValueError: It is too large, nested too deep, or no JSON.

    >>> parse_json('{"layers": [1, 2]}')
    {'layers': [1, 2]}
    >>> parse_json("[" * 9000)
    Traceback (most recent call last):
        ...
    ValueError: JSON nested more than 200 deep
    """
    if len(text) > MOST_TEXT:
        raise ValueError(f"JSON of {len(text):,} bytes, and {MOST_TEXT:,} is the most that is read")
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    depth = values = 0
    # A text in quotes is skipped as a whole; one that never ends is no JSON, and the reader below says so.
    for found in re.finditer(r'"(?:[^"\\]++|\\.)*+"?|[\[{\]},]', text, re.DOTALL):
        sign = found[0][0]
        if sign in "[{":
            depth, values = depth + 1, values + 1
        elif sign in "]}":
            depth -= 1
        elif sign == ",":
            values += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"JSON nested more than {MOST_DEPTH} deep")
        if values > MOST_VALUES:
            raise ValueError(f"JSON of more than {MOST_VALUES:,} values")
    made = json.loads(text, object_pairs_hook=_once)
    if "\\ud" in text.lower():
        json.dumps(made, ensure_ascii=False).encode()  # Half a sign, which could not be printed, is a ValueError here.
    return made


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dictionary; of two entries of one name it would not be plain which is meant."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("JSON that names one thing twice")
    return made
