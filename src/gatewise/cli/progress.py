"""A line on stderr that says what is going on, after one second of work; none where stderr is no terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

from gatewise.stages import LISTENER, stage

PATIENCE = 1.0
"""Seconds of work before anything is shown."""


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Show the stages of what runs inside, from ``PATIENCE`` on, and clear the line at the end."""
    if not sys.stderr.isatty():
        yield
        return
    line = _Line()
    token = LISTENER.set(line.say)
    try:
        yield
    finally:
        LISTENER.reset(token)
        line.close()


class _Line:
    """The status line. It writes to a copy of stderr: while a framework is imported, stderr itself is closed to it."""

    def __init__(self) -> None:
        self.text = "Working"
        self.lock = threading.Lock()
        self.closed = False
        self.status: object = None
        self.file = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace")
        self.timer = threading.Timer(PATIENCE, self._show)
        self.timer.daemon = True
        self.timer.start()

    def _show(self) -> None:
        from rich.console import Console

        with self.lock:
            if self.closed:
                return
            self.status = Console(file=self.file, force_terminal=True).status(f"{self.text} …")
            self.status.start()

    def say(self, text: str) -> None:
        """Show another stage."""
        with self.lock:
            self.text = text
            if self.status is not None:
                self.status.update(f"{text} …")  # type: ignore[attr-defined]

    def close(self) -> None:
        """Clear the line."""
        self.timer.cancel()
        with self.lock:
            self.closed = True
            if self.status is not None:
                self.status.stop()  # type: ignore[attr-defined]
        self.file.close()


def loading(*paths: str) -> None:
    """Import TensorFlow where a file will need it: it writes a page to stderr, among which an error is lost."""
    if any(path.lower().endswith((".keras", ".h5", ".hdf5", ".json")) for path in paths):
        from gatewise.registry import import_quietly

        stage("Loading Keras and its backend")
        import_quietly("keras")
    if paths:
        stage(f"Reading {os.path.basename(paths[0])}")
