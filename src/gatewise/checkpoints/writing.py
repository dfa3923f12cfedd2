"""Writing whole or not at all: a file is written beside its place, and then put there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from gatewise.errors import FileError

OLD = 24 * 3600
"""Seconds after which something unfinished is nobody's, where it cannot be asked whose it is."""


def _host() -> str:
    import platform

    return f"{zlib.crc32(platform.node().encode()):08x}"


def _own_name(suffix: str = "") -> str:
    """Return a short name that says which process of which machine writes under it."""
    return f".gatewise-{_host()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}"


def _sweep(folder: Path) -> None:
    """Remove what was left unfinished in a folder by processes that are no more."""
    with contextlib.suppress(OSError):  # A folder that cannot be listed is said when it is written into.
        for entry in list(os.scandir(folder)):
            named = re.fullmatch(r"\.gatewise-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(\.\w+)?", entry.name)
            if named and _is_left(entry, named[1], int(named[2])):
                # Another process may sweep, too.
                with contextlib.suppress(OSError):
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def _is_left(entry: os.DirEntry[str], host: str, process: int) -> bool:
    if host == _host() and os.name == "posix":
        try:
            os.kill(process, 0)  # Asks, and does nothing.
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:  # It lives, and is another user's.
            pass
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder that is gone afterwards; after a kill, the next one removes it."""
    above = Path(tempfile.gettempdir())
    _sweep(above)
    folder = above / _own_name()
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise FileError(
            f"No temporary folder can be made: {error.strerror}.", f"In {above}.", "Set TMPDIR to another place."
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write text to a file, whole or not at all."""
    with whole(Path(path)) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _place(path: Path) -> Path:
    """Return where a file is to be written: what a symbolic link points to, and a plain file if there is one.

    Raises:
        FileError: Something else is there.
    """
    if "\0" in str(path):
        raise ValueError("its name holds a NUL")
    place = Path(os.path.realpath(path))
    if os.path.lexists(place) and not os.path.isfile(place):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a symbolic link that leads round in a circle"}
        what = kinds.get(stat.S_IFMT(os.lstat(place).st_mode), "no plain file (a pipe or device)")
        raise FileError(
            f"{path} cannot be written: it is {what}.",
            "Expected a new file, or one to replace.",
            "Choose another name.",
        )
    return place


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a file beside the wanted one, which takes its place once everything is written.

    Its name is short, as the wanted one may be as long as a name can be. What a process left that was killed is
    removed on the way.

    Raises:
        FileError: It cannot be written; nothing was left behind.
    """
    try:
        place = _place(path)
        _sweep(place.parent)
        unfinished = place.parent / _own_name(path.suffix[:12])
        mode = stat.S_IMODE(os.stat(place).st_mode) if place.exists() else 0o666 & ~_umask()
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except (OSError, ValueError) as error:
        raise _unwritable(path, error, f"Folder {path.parent}.") from None
    try:
        yield unfinished
        os.chmod(unfinished, mode)
        os.replace(unfinished, place)
    except OSError as error:
        raise _unwritable(path, error, "Nothing was left behind.") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _unwritable(path: Path, error: Exception, where: str) -> FileError:
    why = getattr(error, "strerror", None) or str(error)
    return FileError(f"{path} cannot be written: {why.rstrip('.')}.", where, "Choose another place.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
