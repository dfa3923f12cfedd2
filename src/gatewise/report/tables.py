"""Tables in every format that a terminal, a page, a paper or a program wants."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gatewise.errors import SpecError, nearest
from gatewise.report import latex

FORMATS = {"plain": "", "github": "pipe", "latex": "", "html": "html", "csv": "", "json": ""}
"""The formats by name, each with tabulate's name for it, where tabulate writes it."""

WIDTH = 100
"""Columns of a sentence in plain text; tables are as wide as they are."""


@dataclass(frozen=True)
class Table:
    """A table of facts; numbers are right-aligned and, for people, written with thousands separators."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Report:
    """Sentences, tables, and sentences again: what a command says."""

    opening: Sequence[str]
    tables: Sequence[Table]
    notes: Sequence[str] = ()


def render(report: Report, format: str) -> str:
    """Write a report in a format.

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
    if format == "json":
        return json.dumps(_facts(report), indent=2, ensure_ascii=False)
    if format == "csv":
        return "\n".join(map(_csv, report.tables)).rstrip("\n")
    blocks = [*(_paragraph(line, format) for line in report.opening)]
    for table in report.tables:
        blocks += [_title(table.title, format)] if table.title else []
        blocks.append(_table(table, format))
    blocks += [_paragraph(line, format) for line in report.notes]
    return "\n\n".join(blocks)


def _facts(report: Report) -> dict[str, Any]:
    tables = [
        {"title": table.title, "rows": [dict(zip(table.headers, row, strict=True)) for row in table.rows]}
        for table in report.tables
    ]
    return {"opening": list(report.opening), "tables": tables, "notes": list(report.notes)}


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.headers)
    writer.writerows(["" if cell is None else cell for cell in row] for row in table.rows)
    return out.getvalue()


def _table(table: Table, format: str) -> str:
    cells = [[_cell(cell) for cell in row] for row in table.rows]
    right = [_is_numeric([row[column] for row in table.rows]) for column in range(len(table.headers))]
    if format == "plain":
        return _columns([list(table.headers), *cells], right)
    if format == "latex":
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


def _columns(rows: list[list[str]], right: list[bool]) -> str:
    """Write a header and rows in columns.

    This is tabulate's "simple" format; importing tabulate takes as long as all the rest of a count, and a terminal is
    where people wait for it.
    """
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = []
    for row in rows:
        spaces = [" " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = zip(row, spaces, right, strict=True)
        lines.append("  ".join(space + cell if flush else cell + space for cell, space, flush in cells))
    return "\n".join(line.rstrip() for line in lines)


def _width(text: str) -> int:
    """Return how many columns a text takes; a combining sign takes none."""
    return len(text) if text.isascii() else sum(not unicodedata.combining(sign) for sign in text)


def _is_numeric(column: list[object]) -> bool:
    return any(map(_is_number, column)) and all(_is_number(cell) or cell in ("", None) for cell in column)


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _cell(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else "" if cell is None else str(cell)


def _title(text: str, format: str) -> str:
    return latex.title(text) if format == "latex" else _paragraph(text, format)


def _paragraph(text: str, format: str) -> str:
    if format == "html":
        import html

        return f"<p>{html.escape(text)}</p>"
    if format == "latex":
        return latex.paragraph(text)
    if format == "plain":
        import textwrap

        return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return text


def joined(*reports: Report) -> Report:
    """Return several reports as one; the opening of a later one stands as the title of its first table."""
    tables: list[Table] = []
    notes: list[str] = []
    for number, report in enumerate(reports):
        first, *rest = report.tables
        title = " ".join(report.opening) if number else first.title
        tables += [Table(title, first.headers, first.rows), *rest]
        notes += report.notes
    return Report(reports[0].opening, tables, notes)


def join(lines: Iterable[str]) -> list[str]:
    """Return the lines that say anything, each once, in order."""
    return list(dict.fromkeys(line for line in lines if line))
