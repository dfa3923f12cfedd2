"""Tables in plain text: columns as wide as what is in them, wrapped or stacked where a terminal is narrower."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

GAP = 2
"""Blanks between two columns."""

LEAST = 10
"""A column of text that would be narrower than this is no easier to read than a stack."""


def columns(
    rows: Sequence[Sequence[str]], right: Sequence[bool], width: int | None = None, spare: Sequence[str] = ()
) -> str:
    """Write a header and rows in columns.

    This is tabulate's "simple" format; importing tabulate takes as long as all the rest of a count, and a terminal is
    where people wait for it.

    Args:
        rows: The header first.
        right: Which columns are flush right; these are never wrapped.
        width: How many columns of the terminal there are; None: the table is as wide as it is. A wider one goes
            without its spare columns, then has its cells wrapped; where that is not enough, each row is a stack of
            lines, a header and a value each.
        spare: Headers of columns that may be left out, the first first.

    >>> rows = [["name", "what it is", "size"], ["kernel", "from the input to the gates", "600"]]
    >>> print(columns(rows, [False, False, True], 30))
    name    what it is        size
    ------  ----------------  ----
    kernel  from the input     600
            to the gates
    """
    natural = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    if width is None or sum(natural) + GAP * (len(natural) - 1) <= width:
        return _laid(rows, right, natural)
    for name in spare:
        if name in rows[0] and len(rows[0]) > 1:
            place = list(rows[0]).index(name)
            fewer = [[*row[:place], *row[place + 1 :]] for row in rows]
            rest = [other for other in spare if other != name]
            return columns(fewer, [*right[:place], *right[place + 1 :]], width, rest)
    room = width - GAP * (len(natural) - 1)
    for breaks in (_BREAKS, _ALL_BREAKS):
        least = [
            wide if flush else min(wide, max(_least(cell, breaks) for cell in column))
            for wide, flush, column in zip(natural, right, zip(*rows, strict=True), strict=True)
        ]
        least = [max(small, min(wide, LEAST)) for small, wide in zip(least, natural, strict=True)]
        if sum(least) <= room:
            return _laid(rows, right, _shared(least, natural, room))
    return _stacked(rows, width)


def _shared(least: list[int], natural: list[int], room: int) -> list[int]:
    """Share the room: every column gets what it needs up to one limit, the highest that fits."""
    limit = max(natural)
    while sum(max(small, min(wide, limit)) for small, wide in zip(least, natural, strict=True)) > room:
        limit -= 1
    given = [max(small, min(wide, limit)) for small, wide in zip(least, natural, strict=True)]
    for place in sorted(range(len(given)), key=lambda place: natural[place] - given[place]):
        more = min(natural[place] - given[place], room - sum(given))
        given[place] += more
    return given


def _laid(rows: Sequence[Sequence[str]], right: Sequence[bool], widths: Sequence[int]) -> str:
    cells = [[wrapped(cell, wide) for cell, wide in zip(row, widths, strict=True)] for row in rows]
    heights = [max(map(len, row)) for row in cells]
    lines = []
    for number, (row, height) in enumerate(zip(cells, heights, strict=True)):
        # Rows of several lines run into each other; a blank line tells them apart.
        lines += [""] if number > 1 and max(heights[number - 1 : number + 1]) > 2 else []
        lines += [
            _line([cell[place] if place < len(cell) else "" for cell in row], widths, right) for place in range(height)
        ]
        lines += [_line(["-" * wide for wide in widths], widths, right)] if number == 0 else []
    return "\n".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for cell, wide, flush in zip(cells, widths, right, strict=True):
        blank = " " * (wide - columns_of(cell))
        padded.append(blank + cell if flush else cell + blank)
    return (" " * GAP).join(padded).rstrip()


def _stacked(rows: Sequence[Sequence[str]], width: int) -> str:
    """Write each row as lines of a header and a value; empty cells are left out."""
    header, *body = rows
    wide = max(map(columns_of, header))
    blocks = []
    for row in body:
        lines = []
        for name, cell in zip(header, row, strict=True):
            first, *rest = wrapped(cell, max(20, width - wide - GAP))
            if first:
                lines.append(f"{name}{' ' * (wide - columns_of(name) + GAP)}{first}")
                lines += [" " * (wide + GAP) + line for line in rest]
        blocks.append("\n".join(lines))
    return f"\n{'-' * min(width, 40)}\n".join(blocks)


_BREAKS = re.compile(r"(?<= )|(?<=[/,=])(?=[^\s\d)\]\0])|(?<=[\w\]])(?=\[)|(?<=→)")
"""Where a line may end: behind a blank, within a path, in front of a slice."""

_ALL_BREAKS = re.compile(_BREAKS.pattern + r"|(?<=·)(?=\w)|(?<=[_.])(?=[^\W\d_]{3})")
"""Where a line may end where room is scarce: within a product or a long name, too."""

_TIED = re.compile(r"\[[^\[\]]{1,14}\]|\([^()]{1,12}\)|(?<=\d|\w) - (?=\d)")
"""Slices, shapes and small sums, such as ``[:, 0:2]``: their blanks are no place to break."""


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of so many columns; at least one line.

    >>> wrapped("forward_layer/kernel[:, 0:2]", 16)
    ['forward_layer/', 'kernel[:, 0:2]']
    """
    if columns_of(text) <= width:
        return [text]
    lines, line = [], ""
    for word in _words(text):
        for piece in [word] if columns_of(word.rstrip()) <= width else _pieces(word, width):
            if line and columns_of((line + piece).rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            line += piece
    return [each.replace("\0", " ") for each in [*lines, line.rstrip()]]


def _words(text: str) -> list[str]:
    tied = _TIED.sub(lambda match: match.group().replace(" ", "\0"), text)
    return [word for word in re.split(r"(?<= )", tied) if word]


def _pieces(word: str, width: int) -> list[str]:
    """Return the pieces of a word that is longer than a line."""
    pieces = []
    fits = all(columns_of(piece) <= width for piece in _BREAKS.split(word))
    for piece in (_BREAKS if fits else _ALL_BREAKS).split(word):
        pieces += [piece[start : start + width] for start in range(0, len(piece), width)] if piece else []
    return pieces


def _least(text: str, breaks: re.Pattern[str]) -> int:
    """Return the columns of the longest piece of a text that should not be cut."""
    return max((columns_of(piece.rstrip()) for word in _words(text) for piece in breaks.split(word)), default=0)


def columns_of(text: str) -> int:
    """Return how many columns a text takes; a combining sign takes none."""
    return len(text) if text.isascii() else sum(not unicodedata.combining(sign) for sign in text)
