"""Checks of what public functions are given, each with one clear error."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gatewise.errors import FileError, GatewiseError, SpecError, UnknownFrameworkError, nearest


def path_of(value: Any, name: str = "path") -> Path:
    """Return a path.

    Args:
        value: What was given: text or an ``os.PathLike`` of text.
        name: The argument.

    Raises:
        FileError: It is no path, empty, or has a NUL in it.

    >>> path_of("models/a.keras").name
    'a.keras'
    >>> path_of(None)
    Traceback (most recent call last):
        ...
    gatewise.errors.FileError: path=None is not a path.
      Expected text or a pathlib.Path.
      Hint: Give the name of a file.
    """
    text = value if isinstance(value, str) else os.fspath(value) if isinstance(value, os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise FileError(
            f"{name}={reprlib.repr(value)} is not a path.",
            "Expected text or a pathlib.Path.",
            "Give the name of a file.",
        )
    return Path(text)


def one_of(value: Any, known: Iterable[str], name: str) -> str:
    """Return a word that is one of the known ones.

    >>> one_of("frozn", ["frozen", "trainable"], "second_bias")
    Traceback (most recent call last):
        ...
    gatewise.errors.GatewiseError: second_bias='frozn' is unknown.
      Known: 'frozen', 'trainable'.
      Hint: Did you mean 'frozen'? Use one of these.
    """
    words = list(known)
    if not isinstance(value, str) or value not in words:
        close = nearest(value, words) if isinstance(value, str) else ""
        raise GatewiseError(
            f"{name}={reprlib.repr(value)} is unknown.",
            f"Known: {', '.join(map(repr, words))}.",
            f"{close}Use one of these.",
        )
    return value


def framework_name(value: Any, name: str = "framework") -> str:
    """Return the name of a framework, if it is text; whether there is such a framework, the registry says.

    Raises:
        UnknownFrameworkError: It is no text, or empty.
    """
    if not isinstance(value, str) or not value:
        raise UnknownFrameworkError(
            f"{name}={reprlib.repr(value)} is not the name of a framework.",
            "Expected text, such as 'torch'.",
            "List them with: gatewise frameworks",
        )
    return value


def text_of(value: Any, name: str, example: str) -> str:
    """Return text.

    Raises:
        SpecError: It is something else.
    """
    if not isinstance(value, str):
        raise SpecError(
            f"{name}={reprlib.repr(value)} is not text.", f"Expected text, such as {example!r}.", "Give it in quotes."
        )
    return value


def spec_of(value: Any, *kinds: type, name: str = "spec") -> Any:
    """Return a layer's spec or, where ``kinds`` names it, a network.

    Raises:
        SpecError: It is something else, such as the class of one.
    """
    if not isinstance(value, kinds):
        hint = "Call it: LSTM(features=3, units=50)." if isinstance(value, type) else "Give LSTM(features=3, units=50)."
        raise SpecError(
            f"{name}={reprlib.repr(value)} is not a layer{' or network' if len(kinds) > 1 else ''}.",
            f"Expected {' or '.join(f'a gatewise.{kind.__name__}' for kind in kinds)}.",
            hint,
        )
    return value
