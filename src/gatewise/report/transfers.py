"""What a transfer says: which layer went where, what is left, and whether the outputs agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatewise.report.reports import verifying
from gatewise.report.tables import Report, Table, join

if TYPE_CHECKING:
    from gatewise.transfers.result import Transfer


def transferring(done: Transfer) -> Report:
    """Lay out a transfer: each pair with its tensors and verdict, what is left over, then the outputs."""
    rows: list[list[object]] = [
        [pair.source, pair.target, ", ".join(pair.tensors), pair.verdict, pair.how] for pair in done.pairs
    ]
    tables = [Table("", ["source", "target", "tensors", "verdict", "paired by"], rows)]
    proof = verifying(done.parity) if done.parity is not None else None
    opening = [f"{len(done.pairs)} layers paired. " + (proof.opening[0] if proof is not None else "Not proved.")]
    left = [
        f"Left over in the {which}: {', '.join(names)}."
        for which, names in (("source", done.source_left), ("target", done.target_left))
        if names
    ]
    notes = [*left, *done.remarks, *(proof.notes if proof is not None else ())]
    return Report(opening, [*tables, *(proof.tables if proof is not None else ())], join(notes))
