"""What work is going on, for whoever shows it: a long call names its stages, and nobody needs to listen."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("gatewise_stage_listener", default=None)
"""What is called with the name of each stage, such as a progress line; None where nobody listens."""


def stage(name: str) -> None:
    """Say what happens from now on, such as ``"Reading model.keras"``.

    >>> names = []
    >>> token = LISTENER.set(names.append)
    >>> stage("Reading model.keras")
    >>> LISTENER.reset(token)
    >>> names
    ['Reading model.keras']
    """
    listener = LISTENER.get()
    if listener is not None:
        listener(name)
