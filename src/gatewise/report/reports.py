"""What each command says: facts from core, laid out as sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence

from gatewise.core.count import Count, gate_sentence, notes
from gatewise.core.explain import Explanation
from gatewise.core.plan import Plan
from gatewise.core.spec import Network, Spec
from gatewise.registry import FrameworkRecord
from gatewise.report.tables import Report, Table, join


def tensor_table(counts: Sequence[Count]) -> Table:
    """Lay out every stored tensor of some counts, each framework with its total."""
    rows: list[list[object]] = []
    for count in counts:
        for term in count.terms:
            letters = f"({', '.join(term.dimensions)}{',' if len(term.dimensions) == 1 else ''})"
            written = term.formula if term.formula == term.arithmetic else f"{term.formula} = {term.arithmetic}"
            rows.append([count.framework, term.name, str(term.shape), letters, term.parameters, written])
        rows.append([count.framework, "total", "", "", count.total, ""])
    return Table("", ["framework", "tensor", "shape", "shape in letters", "parameters", "formula"], rows)


def gate_table(counts: Sequence[Count]) -> Table:
    """Lay out what each gate has in each tensor."""
    rows: list[list[object]] = []
    for count in counts:
        for gate, total in count.by_gate().items():
            parts = [(term, part) for term in count.terms for part in term.gates if part.gate == gate]
            rows += [[count.framework, gate, term.name, part.parameters, part.formula] for term, part in parts]
            rows.append([count.framework, gate, "total", total, ""])
    return Table("Gate by gate", ["framework", "gate", "tensor", "parameters", "formula"], rows)


def counting(
    spec: Spec | Network,
    counts: Sequence[Count],
    *,
    gates: bool = False,
    timesteps: int | None = None,
    batch: int | None = None,
) -> Report:
    """Lay out counts of one layer in one or more frameworks."""
    tables = [tensor_table(counts)] + ([gate_table(counts)] if gates else [])
    said = [note for count in counts for note in count.notes]
    if isinstance(spec, Spec):
        said += notes(spec, timesteps=timesteps, batch=batch)
    opening = [str(spec), gate_sentence(spec) if isinstance(spec, Spec) else ""]
    return Report(join(opening), tables, join(said))


def cause_table(explanation: Explanation) -> Table:
    """Lay out the causes of a difference, with their sum."""
    rows: list[list[object]] = [
        [
            f"{cause.layer}: {cause.name}" if cause.layer else cause.name,
            cause.parameters,
            f"{cause.formula} = {cause.arithmetic}",
            cause.effect.partition(":")[0],
        ]
        for cause in explanation.causes
    ]
    rows.append(
        ["difference", explanation.difference, f"{explanation.second.total:,} - {explanation.first.total:,}", ""]
    )
    return Table("", ["cause", "parameters", "formula", "effect"], rows)


def explaining(
    spec: Spec, explanation: Explanation, *, timesteps: int | None = None, batch: int | None = None
) -> Report:
    """Lay out why two counts differ."""
    first, second = explanation.first, explanation.second
    opening = [
        str(spec),
        explanation.opening,
        f"{first.framework} has {first.total:,} parameters, {second.framework} {second.total:,}.",
    ]
    why = [
        f"{cause.name[0].upper()}{cause.name[1:]}: {cause.why} {cause.effect[0].upper()}{cause.effect[1:]}"
        for cause in explanation.causes
    ]
    if not why:
        why = ["Both store the same numbers."]
    said = [*why, *explanation.notes, *notes(spec, timesteps=timesteps, batch=batch)]
    return Report(join(opening), [cause_table(explanation)], join(said))


def mapping_table(plan: Plan) -> Table:
    """Lay out a plan gate by gate: source slice, target slice, transposed or not, and the rule."""
    rows = plan.rows()
    deep = any(row.layer for row in rows)
    both = any(row.direction for row in rows)
    headers = (
        ["layer"] * deep
        + ["direction"] * both
        + ["part", "gate", plan.source.name, plan.target.name, "transposed", "rule"]
    )
    laid = []
    for row in rows:
        cells: list[object] = [row.layer] * deep + ["backward" if row.direction else "forward"] * both
        laid.append(
            [
                *cells,
                row.part.replace("_", " "),
                row.gate,
                row.source,
                row.target or "(nowhere)",
                row.transposed,
                row.rule,
            ]
        )
    return Table("", headers, laid)


def planning(plan: Plan) -> Report:
    """Lay out a plan: the verdict in words, then the mapping table."""
    opening = [str(plan.spec), f"{plan.source} → {plan.target}: {plan.verdict}. {plan.reason}"]
    conditions = [f"Possible only if {condition}." for condition in plan.unless]
    return Report(opening, [mapping_table(plan)], [*conditions, plan.way_out] if plan.way_out else conditions)


def listing(records: Sequence[FrameworkRecord], *, layouts: bool = False) -> Report:
    """Lay out the known frameworks, or each of their layouts with its source."""
    if layouts:
        rows = [
            [
                layout.name,
                layout.cell,
                " ".join(layout.gates),
                layout.reset if layout.cell == "gru" else "",
                layout.verified,
                layout.source,
            ]
            for record in records
            for layout in record.layouts
        ]
        return Report([], [Table("", ["layout", "cell", "gates", "reset", "verified", "source"], rows)])
    brief = [
        [
            record.name,
            record.title,
            ", ".join(dict.fromkeys(each.name.partition(":")[2] for each in record.layouts)),
            record.installed,
            record.runnable,
        ]
        for record in records
    ]
    return Report([], [Table("", ["name", "framework", "layouts", "installed", "runnable"], brief)])
