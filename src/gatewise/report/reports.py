"""What each command says: facts from core, laid out as sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from gatewise.core.count import Count, gate_sentence, notes
from gatewise.core.layout import TOPICS, WHOSE, Layout, choices_of, gaps
from gatewise.core.spec import GRU, LSTM, RNN, Recurrent, Spec
from gatewise.report.tables import Cell, Report, Table, join

if TYPE_CHECKING:
    from gatewise.core.explain import Explanation
    from gatewise.core.network import Network
    from gatewise.core.plan import Plan
    from gatewise.live import Port
    from gatewise.parity.result import GradientParity, Parity, TrainingParity
    from gatewise.port_reports import PortReport
    from gatewise.registry import FrameworkRecord


def tensor_table(counts: Sequence[Count]) -> Table:
    """Lay out every stored tensor of some counts, each framework with its total."""
    rows: list[list[object]] = []
    for count in counts:
        for term in count.terms:
            letters = f"({', '.join(term.dimensions)}{',' if len(term.dimensions) == 1 else ''})"
            written = term.formula if term.formula == term.arithmetic else f"{term.formula} = {term.arithmetic}"
            rows.append([count.framework, term.name, term.shape, letters, term.parameters, written])
        rows.append([count.framework, "total", "", "", count.total, ""])
    return Table(
        "", ["framework", "tensor", "shape", "shape in letters", "parameters", "formula"], rows, ["shape in letters"]
    )


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
            cause.formula if cause.formula == cause.arithmetic else f"{cause.formula} = {cause.arithmetic}",
            cause.effect.partition(":")[0],
        ]
        for cause in explanation.causes
    ]
    totals = explanation.second.total, explanation.first.total
    written = Cell("{} - {}".format(*totals), "{:,} - {:,}".format(*totals))
    rows.append(["difference", explanation.difference, written, ""])
    return Table("", ["cause", "parameters", "formula", "effect"], rows)


def tally_table(explanation: Explanation) -> Table:
    """Lay out the totals of both sides, counted in each way."""
    rows: list[list[object]] = [
        [each.view, each.first, each.second, each.second - each.first, each.meaning] for each in explanation.tallies
    ]
    names = [explanation.first.framework, explanation.second.framework]
    return Table("", ["counted", *names, "difference", "which is"], rows)


def explaining(
    spec: Spec | None, explanation: Explanation, *, timesteps: int | None = None, batch: int | None = None
) -> Report:
    """Lay out why two counts differ; of two models there is no one spec."""
    opening = [str(spec) if spec is not None else "", explanation.opening]
    why = [
        f"{cause.name[0].upper()}{cause.name[1:]}: {cause.why} {cause.effect[0].upper()}{cause.effect[1:]}"
        for cause in explanation.causes
    ]
    if not why:
        why = ["Both store the same numbers."]
    said = [*why, *explanation.notes, *(notes(spec, timesteps=timesteps, batch=batch) if spec is not None else ())]
    return Report(join(opening), [tally_table(explanation), cause_table(explanation)], join(dict.fromkeys(said)))


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
    return Table("", headers, laid, spare=["transposed"])  # the rule says it, too


def planning(plan: Plan) -> Report:
    """Lay out a plan: the verdict in words, then the mapping table."""
    opening = [str(plan.spec), f"{plan.heading} {plan.reason}"]
    conditions = [f"Possible only if {condition}." for condition in plan.unless]
    said = [*conditions, *filter(None, [plan.way_out])]
    tables = [mapping_table(plan)]
    for title, needed in (
        (f"{plan.target} requires", plan.requires),
        (f"{plan.source} is taken to have", plan.assumes),
    ):
        if needed:
            tables.append(Table(title, ["kind", "what", "why"], [[each.kind, each.text, each.why] for each in needed]))
    return Report(opening, tables, said)


def verifying(parity: Parity) -> Report:
    """Lay out a comparison: every output, which mistake it is, the tolerance and why, what was fed, the test faults."""
    rows = [
        [
            each.name,
            each.shape,
            _float(each.max_abs),
            _float(each.max_rel),
            each.where,
            _float(each.tolerance),
            each.passed,
        ]
        for each in parity.outputs
    ]
    headers = ["output", "shape", "max |Δ|", "relative", "at", "tolerance", "passed"]
    tables = [Table("", headers, rows)] if rows else []
    if parity.gradients:
        tables.append(_tensor_table("Gradients", "largest", parity.gradients))
    if parity.training:
        tables += [
            _loss_table(parity.training),
            _tensor_table("After training", "may move by", parity.training.weights),
        ]
    if parity.planted and parity.basis == "called":
        least = min(parity.planted, key=lambda each: each.moved)
        seen = f"{len(parity.planted)} weights were changed, one at a time. The least visible, {least.layer}, "
        seen += f"changes the outputs by {least.moved:,.0f} × the tolerance."
    elif parity.planted:
        least = min(parity.planted, key=lambda each: each.moved)
        seen = f"{len(parity.planted)} test faults were tried. The least visible, {least.mistake} in {least.layer!r}, "
        seen += f"changes the outputs by {least.moved:,.0f} × the tolerance."
    else:
        seen = ""
    opening = [
        f"Parity {parity.verdict}: {len(parity.outputs)} output{'s' if len(parity.outputs) != 1 else ''}, "
        f"{parity.dtype}, seed {parity.seed}."
    ]
    fed = f"Fed: {'; '.join(parity.trials)}."
    return Report(
        opening,
        tables,
        join(
            [
                *(each.text for each in parity.diagnosis),
                f"Tolerance {parity.tolerance:.1e} of the largest output (at least 1): {parity.why}.",
                fed,
                seen,
                *parity.advice,
                *parity.remarks,
                *(parity.training.words if parity.training else ()),
            ]
        ),
    )


def _float(value: float, digits: str = ".1e") -> Cell:
    """Return a float that people read rounded."""
    return Cell(float(value), format(value, digits))


def _tensor_table(title: str, largest: str, compared: Sequence[GradientParity]) -> Table:
    rows = [[each.layer, each.tensor or "(input)", *map(_float, each[2:5]), each.passed] for each in compared]
    return Table(title, ["layer", "tensor", "max |Δ|", largest, "tolerance", "passed"], rows)


def _loss_table(training: TrainingParity) -> Table:
    """Lay out the losses of about ten steps, the first and the last among them."""
    chosen = sorted({round(number * (training.steps - 1) / 9) for number in range(10)})
    rows: list[list[object]] = []
    for step in chosen:
        mine, yours = training.losses[step]
        rows.append(
            [step + 1, _float(mine, ".6g"), _float(yours, ".6g"), _float(abs(mine - yours) / max(abs(mine), 1e-30))]
        )
    passed = "passed" if training.passed else "failed"
    title = f"Training {passed}: losses differ by {training.max_rel:.1e} at most, {training.tolerance:.0e} is allowed"
    return Table(title, ["step", "loss here", "loss there", "relative"], rows)


def porting(done: Port | PortReport) -> Report:
    """Lay out a port: each layer with its verdict and its counts on both sides."""
    rows: list[list[object]] = []
    for layer in done.network.weighted:
        made = done.plans[layer.name]
        counts = [sum(prod(shape) for shape in shapes.values()) for shapes in (made.source_shapes, made.target_shapes)]
        rows.append([layer.name, str(layer.spec), str(made.verdict), *counts, counts[1] - counts[0]])
    totals = [sum(int(str(row[column])) for row in rows) for column in (3, 4, 5)]
    rows.append(["total", "", "", *totals])
    headers = ["layer", "what it is", "verdict", done.source, done.target, "difference"]
    needed: list[list[object]] = [
        [name, each.kind, each.text, each.why] for name, made in done.plans.items() for each in made.requires
    ]
    tables = [Table("", headers, rows)]
    if needed:
        tables.append(Table(f"Used and set in {done.target}", ["layer", "kind", "what", "why"], needed))
    return Report(
        [f"{done.source} → {done.target}: {len(done.plans)} layers with weights."],
        tables,
        join([*done.calls, *done.remarks]),
    )


def defaulting(records: Sequence[FrameworkRecord]) -> Report:
    """Lay out what frameworks do unless told otherwise, topic by topic, so that they stand side by side."""
    rows: list[list[object]] = [
        [topic, record.name, default.text, default.source]
        for topic in TOPICS
        for record in records
        for default in record.defaults
        if default.topic == topic
    ]
    silent = [record.name for record in records if not record.defaults]
    said = [f"Nothing is known of {', '.join(silent)}."] if silent else []
    return Report(
        ["What frameworks do unless they are told otherwise, where it is no weight. A port brings it along."],
        [Table("", ["topic", "framework", "default", "source"], rows)],
        said,
    )


def lacking(records: Sequence[FrameworkRecord]) -> Report:
    """Lay out what cannot be brought along: of live objects, and of layers that a framework's classes cannot hold."""
    live: list[list[object]] = [
        [record.name, limit.option, limit.value, limit.whose, limit.why]
        for record in records
        for limit in sorted(record.limits, key=lambda limit: WHOSE.index(limit.whose))
    ]
    held: list[list[object]] = []
    for record in records:
        classes: dict[str, list[Layout]] = {}
        for layout in record.layouts:
            if layout.cell in ("lstm", "gru", "rnn"):
                classes.setdefault(layout.name, []).append(layout)
        for name, variants in classes.items():
            # A class with several layouts, as Keras's GRU for its two resets, holds what any of them holds.
            lacks = [_not_held(layout) for layout in variants]
            held += [[name, *row] for row in lacks[0] if all(row in others for others in lacks)]
    return Report(
        ["ours: open work. theirs: the framework cannot do it. impossible: nobody can."],
        [
            Table(
                "Live objects: refused by name, or left behind with a remark",
                ["from", "option", "value", "whose", "why"],
                live,
            ),
            Table("Options that a class does not support (theirs)", ["layout", "option", "value"], held),
        ],
        [],
    )


def _not_held(layout: Layout) -> list[list[object]]:
    """Return what a layout lacks, option by option; the words that ``computes`` allows where it says so."""
    kinds: dict[str, type[Recurrent]] = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
    held: dict[str, Any] = {"reset": layout.reset.split()[0]} if layout.cell == "gru" else {}
    usual = kinds[layout.cell](3, 5, **held)
    rows: list[list[object]] = []
    tried: dict[str, tuple[object, ...]] = {
        "layers": (2,),
        "bidirectional": (True,),
        "bias": (False,),
        "reset": ("before", "after"),
        "projection": (2,),
        "peepholes": (True, "full"),
        "cell_clip": (1.0,),
    }
    for option, values in tried.items():
        for value in values if option in usual.options() else ():
            if any(gap.option == option for gap in gaps(layout, usual.replace(**{option: value}))):
                rows.append([option, str(value) if option != "cell_clip" else "any"])
    for option, can in choices_of(layout, usual).items():
        if option in ("activation", "recurrent_activation") and not (can.free or layout.instead):
            rows.append([option, f"other than {', '.join(map(str, can.natives))}"])
        elif option in ("activation", "recurrent_activation") and can.refused:
            rows.append([option, ", ".join(can.refused)])
    return rows


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
        return Report(
            [], [Table("", ["layout", "cell", "gates", "reset", "verified", "source"], rows, ["cell", "verified"])]
        )
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
    broken = [
        f"{record.name}: the adapter of {record.title} cannot be used: {record.problem}"
        for record in records
        if record.problem
    ]
    return Report([], [Table("", ["name", "framework", "layouts", "installed", "runnable"], brief)], broken)
