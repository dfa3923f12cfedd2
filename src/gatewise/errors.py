"""Every error a user can meet, in one tree.

    GatewiseError
    ├── SpecError               a layer that cannot be: units=0, an unknown activation
    ├── LayoutError             a pattern that cannot be read, or a table of one that contradicts itself
    ├── UnknownFrameworkError   no framework or layout of that name
    ├── AdapterError            an installed adapter of another package that cannot be used
    ├── UnsupportedSpecError    a framework cannot hold this layer; names the option
    │   └── UnsupportedCellError    … or no layer of this kind; is an UnknownFrameworkError, too
    ├── UnsupportedModelError   an object or model with something in it that is not supported
    ├── WeightsError            arrays that do not fit a layout: a name is missing or unknown
    │   └── ShapeError          … or a shape is another one
    ├── TokenError              a token for which an embedding has no row; is an IndexError, too
    ├── ImpossiblePlanError     the two layers are different functions
    ├── TransferError           two models whose layers do not pair, or whose outputs differ once they have
    └── FileError               a file that cannot be read or written

A message has three parts: what was met, where it was expected, what to do. The first is the head, the
others follow on lines of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class GatewiseError(Exception):
    """The base of all errors raised on purpose.

    Args:
        met: What was met, in one sentence.
        where: Where it was met and what was expected there.
        hint: What to do now.

    >>> print(GatewiseError("units is 0.", "LSTM: units is the size of the state.", "Give a number from 1."))
    units is 0.
      LSTM: units is the size of the state.
      Hint: Give a number from 1.
    """

    def __init__(self, met: str, where: str = "", hint: str = "") -> None:
        self.met, self.where, self.hint = met, where, hint
        lines = [met, *(f"  {line}" for line in where.splitlines())]
        if hint:
            lines.append(f"  Hint: {hint}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let an error go from one process to another with all that it says."""
        return _again, (type(self), self.args, vars(self))


def _again(kind: type[GatewiseError], args: tuple[Any, ...], said: dict[str, Any]) -> GatewiseError:
    error = kind.__new__(kind, *args)
    vars(error).update(said)
    return error


class SpecError(GatewiseError):
    """A layer that cannot be."""


class LayoutError(GatewiseError):
    """A layout that cannot be read, or contradicts itself."""


class UnknownFrameworkError(GatewiseError):
    """No framework, or no layout of it, has this name."""


class AdapterError(GatewiseError):
    """An adapter that an installed entry point names, or its framework, that cannot be used as it is set up."""


class UnsupportedSpecError(GatewiseError):
    """A framework cannot hold this layer.

    Attributes:
        option: The option of the spec that it cannot hold, such as ``"peepholes"``.
    """

    def __init__(self, met: str, where: str = "", hint: str = "", *, option: str) -> None:
        super().__init__(met, where, hint)
        self.option = option


class UnsupportedCellError(UnknownFrameworkError, UnsupportedSpecError):
    """A framework, or the named class of it, has no layer of this kind at all; the option is ``"cell"``."""

    def __init__(self, met: str, where: str = "", hint: str = "") -> None:
        super().__init__(met, where, hint, option="cell")


class UnsupportedModelError(GatewiseError):
    """An object that is no supported layer or model, or holds a layer or option that is not supported."""


class WeightsError(GatewiseError):
    """Arrays that do not belong to a layout."""


class ShapeError(WeightsError):
    """An array whose shape is not the one that the layout gives it."""


class TokenError(GatewiseError, IndexError):
    """A token for which an embedding has no row."""


class ImpossiblePlanError(GatewiseError):
    """No weights make the two layers compute the same, or these weights do not."""


class TransferError(GatewiseError):
    """Two models between which weights cannot be carried, or which then compute other outputs.

    Attributes:
        result: What was tried, with its pairs and its comparison, where it came so far; a ``Transfer``.
    """

    result: Any = None


class FileError(GatewiseError):
    """A file that cannot be read or written. What is quoted of a damaged file is cut short.

    >>> len(FileError("shape " + "9" * 10_000).met)
    600
    """

    MOST = 600

    def __init__(self, met: str, where: str = "", hint: str = "") -> None:
        super().__init__(
            *(text if len(text) <= self.MOST else f"{text[: self.MOST - 1]}…" for text in (met, where, hint))
        )


class PortWarning(UserWarning):
    """A port is not called as its source is: axes, nesting or names differ; ``port_report`` says it, too."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Name the known word that was probably meant, in any case, as the start of a hint, or nothing.

    >>> nearest("kears", ["keras", "torch"]), nearest("LSTM", ["lstm", "gru"])
    ("Did you mean 'keras'? ", "Did you mean 'lstm'? ")
    >>> nearest("xyz", ["keras", "torch"])
    ''
    """
    match = closest(word, known)
    return f"Did you mean {match!r}? " if match else ""


def closest(word: str, known: Iterable[str]) -> str:
    """Return the known word that was probably meant, in any case, or an empty one.

    >>> closest("Kears", ["keras", "torch"])
    'keras'
    """
    import difflib  # here, as an answer without an error has no use for it

    folded = {each.casefold(): each for each in known}
    match = difflib.get_close_matches(word.casefold(), list(folded), n=1)
    return folded[match[0]] if match else ""
