"""What a learner is told: mistakes behind a number, layers behind a number, equations, options and growth."""

from __future__ import annotations

import re

from gatewise.core.count import Count
from gatewise.core.diagnose import Diagnoses
from gatewise.core.explain import Explanation
from gatewise.core.plan import Plan
from gatewise.core.solve import Solutions
from gatewise.core.spec import Spec
from gatewise.core.teach import Equations, Growth, Option
from gatewise.report.latex import Raw
from gatewise.report.models import summarising
from gatewise.report.reports import cause_table, planning, tally_table, tensor_table
from gatewise.report.tables import Report, Table, join, render

SHOWN = 10
"""So many solutions are shown unless more are asked for."""


def diagnosing(found: Diagnoses, spec: Spec | None = None, *, data: bool = False) -> Report:
    """Lay out the mistakes that give a number, each in a sentence; with ``data`` the table has the words, too."""
    opening = [str(spec) if spec else "", found.headline]
    if found.right:
        return Report(join(opening), [])
    named = list(found) or ([found.nearest] if found.nearest else [])
    rows = [
        [
            place,
            each.mistake,
            each.formula,
            each.arithmetic,
            each.value,
            ", ".join(each.same_formula),
            *[each.text] * data,
        ]
        for place, each in enumerate(named, 1)
    ]
    if not found:
        opening.append(f"No mistake on the list gives {found.claimed:,}.")
    title = f"What gives {found.claimed:,}, the likeliest first" if found else "The nearest"
    headers = ["rank", "mistake", "formula", "numbers", "gives", "same formula", *["in words"] * data]
    table = Table(title, headers, rows, spare=["same formula"])  # the sentences below name them
    said = []
    for place, each in enumerate(named, 1):
        said.append(f"{place}. {each.mistake}: {each.text}")
        said += [f"{place}. or {slug}: {text}" for slug, text in zip(each.same_formula, each.also, strict=True)]
    return Report(join(opening), [table] if rows else [], said)


def solving(found: Solutions, *, most: int | None = SHOWN) -> Report:
    """Lay out the layers that have a number of parameters; ``most`` None shows all."""
    shown = found if most is None else found[:most]
    rows = [
        [each.rank, " → ".join(map(str, each.layers)), each.layout.name, each.arithmetic, each.total] for each in shown
    ]
    number = {0: "No way", 1: "One way"}.get(len(found), f"{len(found):,} ways")
    opening = [f"{number} to have {found.wanted:,} parameters."]
    if len(shown) < len(found):
        opening[0] += f" The {len(shown)} likeliest:"
    tables = (
        [Table("", ["rank", "layers", "stored as", "arithmetic", "parameters"], rows, ["parameters", "stored as"])]
        if rows
        else []
    )
    return Report(opening, tables, join([found.searched]))


def teaching(equations: Equations, format: str, *, width: int | None = None) -> str:
    """Write equations, their symbols and notes in a format."""
    columns = list(dict.fromkeys(layout for symbol in equations.symbols for layout in symbol.places))
    columns = [name for name in columns if any(symbol.places.get(name) for symbol in equations.symbols)]
    data, mark = format in ("csv", "json"), "`" if format == "github" else ""

    def code(text: str) -> str:
        return f"{mark}{text}{mark}" if text else ""

    # Programs get the LaTeX in a column of its own; in a paper it is a block, which a table would escape.
    lines = [[code(line.text), *([line.latex] if data else []), line.words] for line in equations.lines]
    symbols = [
        [
            code(symbol.symbol),
            *([symbol.latex] if data else []),
            symbol.words,
            symbol.shape,
            f"({', '.join(symbol.letters)}{',' if len(symbol.letters) == 1 else ''})",
            *(code(symbol.places.get(name, "")) for name in columns),
        ]
        for symbol in equations.symbols
    ]
    latex = ["latex"] * data
    opening = [str(equations.spec), f"One timestep, in {equations.notation}."]
    tables = [
        Table("", ["equation", *latex, "in words"], lines),
        Table("Symbols", ["symbol", *latex, "what it is", "shape", "shape in letters", *columns], symbols),
    ]
    if format != "latex":
        return render(Report(opening, tables, equations.notes), format, width=width)
    signs = [[Raw(f"${symbol.latex}$"), *row[1:]] for symbol, row in zip(equations.symbols, symbols, strict=True)]
    notes = [re.sub(r"^\*(?= multiplies)", "⊙", note) for note in equations.notes]  # In print, * is a circled dot.
    rest = Report([], [Table(tables[1].title, tables[1].headers, signs)], notes)
    return "\n\n".join([render(Report(opening, []), format), equations.latex, render(rest, format)])


def optional(option: Option, format: str) -> Report:
    """Lay out what one argument of a constructor does."""
    said = [
        ("default", option.default),
        ("parameters", option.count),
        ("outputs", option.outputs),
        ("training", option.training),
        (f"in {option.other}", option.counterpart),
    ]
    head = f"{option.name} ({option.owner}): {option.what}"
    if format == "plain":
        # Long sentences read better in lines than in a table.
        return Report([head, *(f"{name[0].upper()}{name[1:]}: {words}" for name, words in said)], [])
    return Report([head], [Table("", ["about", option.name], [list(row) for row in said])])


def growing(growth: Growth) -> Report:
    """Lay out how counts grow with one size."""
    two = len(growth.names) == 2
    headers = [growth.size, *growth.names, *([f"{growth.names[1]} - {growth.names[0]}"] if two else [])]
    rows = [[value, *counts, *([counts[1] - counts[0]] if two else [])] for value, counts in growth.rows]
    span = f"{growth.rows[0][0]:,} to {growth.rows[-1][0]:,}"
    given = {name: value for name, value in growth.spec.options().items() if name != growth.size}
    plain = {name: getattr(type(growth.spec), name, None) for name in given}
    said = [f"{name}={value!r}" for name, value in given.items() if value != plain[name]]
    opening = f"{type(growth.spec).__name__}({', '.join(said)}) with {growth.size} from {span}"
    return Report([opening], [Table("", headers, rows)], growth.notes)


def shown(thing: Count | Explanation | Plan, format: str) -> str:
    """Write what a notebook shows of a result."""
    if isinstance(thing, Count) and thing.layers:
        return render(summarising(thing), format)
    if isinstance(thing, Count):
        return render(Report([], [tensor_table([thing])], thing.notes), format)
    if isinstance(thing, Explanation):
        why = [f"{cause.name}: {cause.why}" for cause in thing.causes] or ["Both store the same numbers."]
        return render(Report(join([thing.opening]), [tally_table(thing), cause_table(thing)], join(why)), format)
    return render(planning(thing), format)
