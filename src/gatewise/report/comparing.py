"""What ``gatewise compare`` says: one table of all cases, then what single cases ask for."""

from __future__ import annotations

from dataclasses import replace

from gatewise import count, mapping
from gatewise.comparison import Comparison, Row
from gatewise.report.reports import gate_table, mapping_table, tensor_table
from gatewise.report.tables import Cell, Report, Table, join


def comparing(comparison: Comparison) -> Report:
    """Lay out a comparison."""
    first, second = comparison.frameworks[:2]
    stated = any(row.stated is not None for row in comparison.rows)
    headers = ["case", "layers", *["stated"] * stated, *comparison.frameworks, f"{second} - {first}", "cause"]
    rows = []
    for row in comparison.rows:
        totals = [_total(row, framework) for framework in comparison.frameworks]
        rows.append([row.case, _layers(row), *[row.stated] * stated, *totals, row.difference, _causes(row)])
    tables = [Table(comparison.title, headers, rows)]
    for row in comparison.rows:
        tables += _details(row, comparison)
    return Report([], tables, join(_sentence(row) for row in comparison.rows))


def _layers(row: Row) -> str:
    return " → ".join(str(layer.spec) for layer in row.network.layers)


def _total(row: Row, framework: str) -> Cell | int:
    parts, total = row.parts[framework], row.totals[framework]
    return Cell(total, f"{' + '.join(f'{part:,}' for part in parts)} = {total:,}") if len(parts) > 1 else total


def _causes(row: Row) -> str:
    return "; ".join(f"{cause.name}, {cause.formula} = {cause.arithmetic}" for cause in row.causes) or "none"


def _sentence(row: Row) -> str:
    said = " ".join(filter(None, [row.about, *row.notes]))
    return f"{row.case}: {said}" if said else ""


def _details(row: Row, comparison: Comparison) -> list[Table]:
    counts = [count(row.network, framework) for framework in comparison.frameworks]
    made = []
    if "tensors" in row.show:
        made.append(tensor_table(counts))
    if "gates" in row.show:
        made.append(gate_table(counts))
    if "mapping" in row.show:
        source, target = comparison.frameworks[:2]
        made += [mapping_table(mapping(layer.spec, source, target)) for layer in row.network.layers]
    return [replace(table, title=f"{row.case}: {table.title or _layers(row)}") for table in made]
