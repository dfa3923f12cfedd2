"""Tables in every format that a terminal, a page, a paper or a program wants."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from gatewise.core.record import Record
from gatewise.errors import SpecError, nearest
from gatewise.report.columns import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FORMATS = {"plain": "", "github": "pipe", "latex": "", "html": "html", "csv": "", "json": ""}
"""The formats by name, each with tabulate's name for it, where tabulate writes it."""

WIDTH = 100
"""Columns of a sentence in plain text."""


class Cell(NamedTuple):
    """A cell that people read in other words than programs: ``Cell(10_851, "10,800 + 51 = 10,851")``."""

    value: Any
    text: str


class Table(Record):
    """A table of facts.

    Numbers are right-aligned and, for people, written with thousands separators; a tuple is a shape. Where people read
    other words than programs, the cell is a ``Cell``.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    spare: Sequence[str] = ()
    """Headers of columns that a terminal too narrow for the table may go without, the first first."""


class Report(Record):
    """Sentences, tables, and sentences again: what a command says."""

    opening: Sequence[str]
    tables: Sequence[Table]
    notes: Sequence[str] = ()


def render(report: Report, format: str, *, width: int | None = None) -> str:
    """Write a report in a format.

    Args:
        report: What to write.
        format: A key of ``FORMATS``.
        width: Columns that plain text may take; None where tables may be as wide as they are.

    Raises:
        SpecError: No format has this name.

    >>> print(render(Report(["Two rows."], [Table("", ["name", "parameters"], [["kernel", 10600]])]), "github"))
    Two rows.
    <BLANKLINE>
    | name   |   parameters |
    |:-------|-------------:|
    | kernel |       10,600 |
    """
    if format not in FORMATS:
        known = ", ".join(FORMATS)
        raise SpecError(
            f"No format is called {format!r}.", f"Known: {known}.", nearest(format, FORMATS) + "Use one of these."
        )
    # Each format imports what it needs: at a terminal people wait.
    if format == "json":
        import json

        return json.dumps(_facts(report), indent=2, ensure_ascii=False)
    if format == "csv":
        return "\n".join(map(_csv, report.tables)).rstrip("\n")
    wide = min(width or WIDTH, WIDTH)
    blocks = [*(_paragraph(line, format, wide) for line in report.opening)]
    for table in report.tables:
        blocks += [_title(table.title, format, wide)] if table.title else []
        blocks.append(_table(table, format, width))
    blocks += [_paragraph(line, format, wide) for line in report.notes]
    return "\n\n".join(blocks)


def _facts(report: Report) -> dict[str, Any]:
    tables = [
        {
            "title": table.title,
            "rows": [dict(zip(table.headers, map(_datum, row), strict=True)) for row in table.rows],
        }
        for table in report.tables
    ]
    return {"opening": list(report.opening), "tables": tables, "notes": list(report.notes)}


def _datum(cell: object) -> object:
    """Return what a program reads in a cell; JSON has no number that is NaN or infinite."""
    value = cell.value if isinstance(cell, Cell) else cell
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(table: Table) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.headers)
    for row in table.rows:
        values = [cell.value if isinstance(cell, Cell) else cell for cell in row]
        writer.writerow("" if value is None else value for value in values)
    return out.getvalue()


def _table(table: Table, format: str, width: int | None) -> str:
    cells = [[_cell(cell) for cell in row] for row in table.rows]
    right = [_is_numeric([row[column] for row in table.rows]) for column in range(len(table.headers))]
    if format == "plain":
        return columns([list(table.headers), *cells], right, width, table.spare)
    if format == "latex":
        from gatewise.report import latex

        return latex.table(table.headers, cells, right)
    from tabulate import tabulate

    align = ["right" if each else "left" for each in right]
    text = tabulate(
        cells,
        headers=list(table.headers),
        tablefmt=FORMATS[format],
        disable_numparse=True,
        colalign=align if cells else None,
    )
    return str(text)


def _is_numeric(column: list[object]) -> bool:
    return any(map(_is_number, column)) and all(_is_number(cell) or cell in ("", None) for cell in column)


def _is_number(cell: object) -> bool:
    cell = cell.value if isinstance(cell, Cell) else cell
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _cell(cell: object) -> str:
    if isinstance(cell, Cell):
        return cell.text
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else "" if cell is None else str(cell)


def _title(text: str, format: str, wide: int) -> str:
    if format != "latex":
        return _paragraph(text, format, wide)
    from gatewise.report import latex

    return latex.title(text)


def _paragraph(text: str, format: str, wide: int) -> str:
    if format == "html":
        import html

        return f"<p>{html.escape(text)}</p>"
    if format == "latex":
        from gatewise.report import latex

        return latex.paragraph(text)
    if format == "plain":
        import textwrap

        return textwrap.fill(text, wide, break_long_words=False, break_on_hyphens=False)
    return text


def joined(*reports: Report) -> Report:
    """Return several reports as one; the opening of a later one stands as the title of its first table."""
    tables: list[Table] = []
    notes: list[str] = []
    for number, report in enumerate(reports):
        first, *rest = report.tables
        title = " ".join(report.opening) if number else first.title
        tables += [first.replace(title=title), *rest]
        notes += report.notes
    return Report(reports[0].opening, tables, notes)


def join(lines: Iterable[str]) -> list[str]:
    """Return the lines that say anything, each once, in order."""
    return list(dict.fromkeys(line for line in lines if line))
