r"""Text and tables in LaTeX, made to fit a page: no column runs out of the text, and a long table goes on overleaf.

A document needs ``\usepackage{amsmath, array, longtable}``, all three of which every LaTeX has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

PACKAGES = ("amsmath", "array", "longtable")
"""What a document has to load."""

PAGE = 330.0
"""Points of a line that a table may take: a little less than an article on letter paper has."""

TALL = 300.0
"""Points from which a table may break over pages."""

SIZES = {"": 10.0, r"\small": 9.25, r"\footnotesize": 8.5, r"\scriptsize": 8.0}
"""Sizes of type, the largest first, with the points of an em; small letters are wider than their size says."""


class Raw(str):
    """A cell that is LaTeX already."""


_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "·": r"$\cdot$",
    "→": r"$\to$",
    "×": r"$\times$",
    "−": "$-$",
    "±": r"$\pm$",
    "…": r"\ldots{}",
    "≠": r"$\ne$",
    "σ": r"$\sigma$",
    "⊙": r"$\odot$",
    "Δ": r"$\Delta$",
    "²": r"$^2$",
    "√": r"$\surd$",
} | {sign: "\\" + sign for sign in "&%$#_{}"}

_ESCAPED = re.compile("|".join(map(re.escape, _SIGNS)))


def escape(text: str) -> str:
    r"""Write a text so that LaTeX shows it as it is.

    >>> print(escape("keras:LSTM → 'lstm', 10,800 - 11,000 = -200, at 50% of weight_ih_l0, 1.2e-07"))
    keras:LSTM $\to$ `lstm', 10,800 $-$ 11,000 = $-$200, at 50\% of weight\_ih\_l0, $1.2\cdot10^{-7}$
    """
    written = _ESCAPED.sub(lambda match: _SIGNS[match.group()], text)
    written = re.sub(r"(?<!\w)'(?=\S)", "`", written)
    written = re.sub(r"(?<![\w.])(\d(?:\.\d+)?)e([+-]?)0*(\d+)\b", _power, written)
    return re.sub(r"(?<= )-(?= )|(?<![\w)\]{}$-])-(?=\d)", "$-$", written)


def _power(match: re.Match[str]) -> str:
    digits, sign, exponent = match.groups()
    return rf"${digits}\cdot10^{{{sign.strip('+')}{exponent}}}$"


def paragraph(text: str) -> str:
    """Write a sentence or more; words too long for a line may break."""
    return _fitting(text, 7.5 if width(text) > 30 else math.inf)


def title(text: str) -> str:
    """Write what stands above a table."""
    return rf"\medskip\noindent\textbf{{{paragraph(text)}}}\nopagebreak"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Write a table in the largest type in which it fits the line; wide columns are wrapped where none does.

    Args:
        headers: One for each column.
        rows: Texts, or ``Raw``.
        right: Which columns are flush right.
    """
    form = _form(headers, rows, right)
    lines = [[_cell(cell, width) for cell, width in zip(row, form.widths, strict=True)] for row in [headers, *rows]]
    head, *body = [" & ".join(cells) + r" \\" for cells in lines]
    em = SIZES[form.size]
    columns = "".join(_column(em * wide / PAGE, flush) for wide, flush in zip(form.widths, right, strict=True))
    opening = [r"\setlength{\tabcolsep}{4pt}"] if form.wrapped else []
    opening.append(rf"\setlength{{\extrarowheight}}{{{4 if form.wrapped else 2}pt}}")
    if form.height <= TALL:
        begin, finish = [rf"\begin{{center}}{form.size}", *opening, rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}"], ""
        around = [r"\hline", *body, r"\hline", r"\end{tabular}", r"\end{center}"]
    else:
        begin, finish = ["{" + form.size, *opening, rf"\begin{{longtable}}{{@{{}}{columns}@{{}}}}"], r"\hline \endhead"
        around = [*body, r"\hline", r"\end{longtable}", "}"]
    return "\n".join(filter(None, [*begin, r"\hline", head, finish, *around]))


# ── what fits ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Form(NamedTuple):
    """How a table is set: the size of its type, the ems of each column (0: as wide as it is), and its height."""

    size: str
    widths: list[float]
    height: float

    @property
    def wrapped(self) -> bool:
        return any(self.widths)


def _form(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> _Form:
    """Choose the largest type that needs no wrapping; else one in which no word is cut, and the table not too tall."""
    everything = [headers, *rows]
    columns = list(zip(*everything, strict=True))
    natural = [max(map(width, column)) for column in columns]
    gaps = len(columns) - 1
    for size, em in list(SIZES.items())[:3]:
        if em * sum(natural) + 12 * gaps <= PAGE:
            return _Form(size, [0.0] * len(columns), 1.2 * em * len(everything))
    least = [  # A number is never broken, a sum may be.
        most if flush and not any(" " in cell for cell in column[1:]) else max(map(_least, column))
        for most, column, flush in zip(natural, columns, right, strict=True)
    ]

    def wrapped(size: str) -> _Form:
        given = _shared(everything, least, natural, (PAGE - 8 * gaps) / SIZES[size])
        lines = sum(
            max(math.ceil(width(cell) / wide) for cell, wide in zip(row, given, strict=True)) for row in everything
        )
        widths = [0.0 if wide >= most else wide for wide, most in zip(given, natural, strict=True)]
        return _Form(size, widths, 1.2 * SIZES[size] * lines + 4 * len(everything))

    forms = [wrapped(size) for size in list(SIZES)[1:]]
    fitting = [form for form in forms if SIZES[form.size] * sum(least) + 8 * gaps <= PAGE] or forms[-1:]
    # A smaller type is worth it where it saves a quarter of the page.
    return next(form for form in fitting if form.height <= 1.3 * fitting[-1].height)


def _shared(rows: Sequence[Sequence[str]], least: list[float], natural: list[float], room: float) -> list[float]:
    """Share the room among columns, step by step, each time to the one that makes the table shortest."""
    given, step = list(least), 0.5
    sizes = [[width(cell) for cell in row] for row in rows]

    def depth(wide: Sequence[float]) -> float:
        return sum(max(size / each for size, each in zip(row, wide, strict=True)) for row in sizes)

    while sum(given) + step <= room:
        open_ = [place for place, most in enumerate(natural) if given[place] < most]
        if not open_:
            break
        tried = [[each + step * (place == at) for at, each in enumerate(given)] for place in open_]
        # Where no column helps by itself, the one that is furthest from its own width does.
        best = min(zip(tried, open_, strict=True), key=lambda each: (depth(each[0]), given[each[1]] - natural[each[1]]))
        given = best[0]
    return given


_WIDE = {
    0.28: "ijl.,:;'`[]|·!I²",
    0.4: 'frst()-_ "',
    0.56: "bdhnpuvxkqy",
    0.78: "ABCDEFGHJKLNOPQRSTUVXYZmw+=<>&%#⊙Δ±×−≠",
    1.03: "MW→…",
}
_WIDTHS = {sign: wide for wide, signs in _WIDE.items() for sign in signs}


def width(cell: str) -> float:
    """Return how wide a text is, in ems; a little more rather than less.

    >>> round(width("units"), 2)
    2.2
    """
    text = re.sub(r"\\[a-z]+|[${}_^\\]", "", cell) if isinstance(cell, Raw) else cell
    return sum(_WIDTHS.get(sign, 0.5) for sign in text)


_BREAKS = re.compile(r"(?<=[_/·,=(.:-])(?=[^\s\d)\]\0])|(?<=·)(?=\d)|(?<=\w)(?=\[)")
"""Where a word too long for its column may go on in the next line."""

_HUMPS = re.compile(r"(?<=[a-z])(?=[A-Z])")
"""The same inside very long names."""

_TIE = "\0"
_TIED = re.compile(r"\[[^\[\]]{1,12}\]|\([^()]{1,7}\)")
"""Slices, shapes and small sums, such as ``[:, 0:2]``: their spaces are no place to break."""


def _least(cell: str) -> float:
    """Return the width of the widest piece that is never broken; short cells never are."""
    whole = width(cell)
    if isinstance(cell, Raw) or whole <= 5:
        return whole
    return max(width(piece) for word in _tied(cell).split(" ") for piece in _pieces(word))


def _tied(text: str) -> str:
    return _TIED.sub(lambda match: match.group().replace(" ", _TIE), text)


def _pieces(word: str) -> list[str]:
    pieces = _BREAKS.split(word)
    return [part for piece in pieces for part in (_HUMPS.split(piece) if width(piece) > 10 else [piece])]


def _fitting(text: str, wide: float) -> str:
    """Escape a text; words wider than so many ems may break."""
    if wide == math.inf:
        return escape(text)
    text = _tied(text)
    written = zip(text.split(" "), escape(text).split(" "), strict=True)
    words = [_breakable(word) if width(word) > wide else escaped for word, escaped in written]
    return " ".join(words).replace(_TIE, "~")


def _breakable(word: str) -> str:
    *pieces, last = map(escape, _pieces(word))
    return "".join(piece if piece.endswith("-") else piece + r"\allowbreak{}" for piece in pieces) + last


def _cell(cell: str, wide: float) -> str:
    """Write a cell of a column that is so many ems wide, or as wide as it is."""
    if isinstance(cell, Raw):
        return str(cell)
    text = _fitting(cell, wide or math.inf)
    # The end of a line takes a bracket or a star behind it for its own.
    return "{" + text[0] + "}" + text[1:] if text[:1] in ("[", "*") else text


def _column(share: float, flush: bool) -> str:
    """Write what kind a column is: it takes a share of the line, or what it needs."""
    if not share:
        return "r" if flush else "l"
    return rf">{{\ragged{'left' if flush else 'right'}\arraybackslash}}p{{{share:.3f}\linewidth}}"
