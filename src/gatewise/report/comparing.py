"""What ``gatewise table`` says: one table of all cases, then what single cases ask for."""

from __future__ import annotations

from gatewise import count, mapping
from gatewise.comparison import Comparison, Row
from gatewise.core.explain import Cause
from gatewise.report.reports import gate_table, mapping_table, tensor_table
from gatewise.report.tables import Cell, Report, Table, join


def comparing(comparison: Comparison) -> Report:
    """Lay out a comparison: a row for each case, the stated numbers that are not right, and what a case asks for."""
    base, *others = comparison.frameworks
    stated = any(row.stated is not None for row in comparison.rows)
    headers = ["case", "layers", *["stated"] * stated, *comparison.frameworks]
    headers += [*(f"{other} - {base}" for other in others), "cause"]
    rows = []
    for row in comparison.rows:
        totals = [_total(row, framework) for framework in comparison.frameworks]
        differences = [row.differences.get(other, LACKS) for other in others]
        rows.append([row.case, _layers(row), *[_stated(row)] * stated, *totals, *differences, _causes(row)])
    tables = [Table(comparison.title, headers, rows)]
    for row in comparison.rows:
        tables += _details(row, comparison)
    wrong = [f"{row.case}: {row.verdict}" for row in comparison.rows if row.verdict]
    lacks = [
        f"{LACKS.text} {row.case}: {framework} does not store such layers. {why}"
        for row in comparison.rows
        for framework, why in row.lacks.items()
    ]
    return Report(wrong, tables, join([*lacks, *(_sentence(row) for row in comparison.rows)]))


LACKS = Cell(None, "–")
"""What stands where a framework does not store the layers of a case."""


def _layers(row: Row) -> str:
    return " → ".join(str(layer.spec) for layer in row.network.layers)


def _stated(row: Row) -> Cell | int | None:
    return Cell(row.stated, f"{row.stated:,} (not right)") if row.verdict else row.stated


def _total(row: Row, framework: str) -> Cell | int:
    if framework not in row.totals:
        return LACKS
    parts, total = row.parts[framework], row.totals[framework]
    return Cell(total, f"{' + '.join(f'{part:,}' for part in parts)} = {total:,}") if len(parts) > 1 else total


def _causes(row: Row) -> str:
    """Say why each framework differs from the first; without its name where there is but one."""
    several = len(row.differences) > 1
    said = [
        (f"{name}: " if several else "") + "; ".join(_cause(cause, causes) for cause in causes)
        for name, causes in row.causes.items()
        if causes
    ]
    return ". ".join(said) or ("none" if row.differences else "")


def _cause(cause: Cause, causes: tuple[Cause, ...]) -> str:
    """Say in a few words what one side has more, and in which layer where several differ."""
    where = f"{cause.layer} " if len({each.layer for each in causes}) > 1 else ""
    return f"{where}{'no ' * (cause.parameters < 0)}{cause.name}, {cause.formula} = {cause.arithmetic}"


def _sentence(row: Row) -> str:
    said = " ".join(filter(None, [row.about, *row.notes]))
    return f"{row.case}: {said}" if said else ""


def _details(row: Row, comparison: Comparison) -> list[Table]:
    there = [framework for framework in comparison.frameworks if framework in row.totals]
    counts = [count(row.network, framework) for framework in there]
    made = []
    if counts and "tensors" in row.show:
        made.append(tensor_table(counts))
    if counts and "gates" in row.show:
        made.append(gate_table(counts))
    if "mapping" in row.show:
        source = comparison.frameworks[0]
        plans = [mapping(layer.spec, source, other) for other in row.differences for layer in row.network.weighted]
        made += [mapping_table(plan) for plan in plans]
    return [table.replace(title=f"{row.case}: {table.title or _layers(row)}") for table in made]
