"""What a transfer returns: the pairs with their verdicts, the comparison of the outputs, and what has to be said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gatewise.parity.result import Parity
    from gatewise.report.tables import Report


class Carried(NamedTuple):
    """One layer of the source and the layer of the target that it fills.

    Attributes:
        source: The layer of the source.
        target: The layer of the target.
        tensors: The target's tensors that were filled.
        verdict: ``exact`` or ``equivalent``; of tensors that no layout describes what was done with them.
        how: How the two were paired.
    """

    source: str
    target: str
    tensors: tuple[str, ...]
    verdict: str
    how: str


@dataclass(frozen=True)
class Transfer:
    """What was carried from one model to another.

    Attributes:
        target: The filled model.
        pairs: What went where.
        parity: The comparison of the outputs of both; None where they could not be run.
        remarks: What a person should know, a sentence each.
        source_left: Layers of the source that went nowhere.
        target_left: Layers of the target that got nothing.
    """

    target: Any
    pairs: tuple[Carried, ...]
    parity: Parity | None
    remarks: tuple[str, ...] = ()
    source_left: tuple[str, ...] = ()
    target_left: tuple[str, ...] = ()

    def report(self) -> Report:
        """Return the table of pairs, the remarks and the comparison, to be printed."""
        from gatewise.report.transfers import transferring

        return transferring(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the pairs, the verdict of the outputs and the remarks, as plain data."""
        return {
            "pairs": [pair._asdict() for pair in self.pairs],
            "parity": None if self.parity is None else self.parity.verdict,
            "remarks": list(self.remarks),
            "source_left": list(self.source_left),
            "target_left": list(self.target_left),
        }

    def __str__(self) -> str:
        return self._shown("plain")

    def __repr__(self) -> str:
        proved = "not proved" if self.parity is None else self.parity.verdict
        return f"Transfer({len(self.pairs)} pairs, {proved})"

    def _repr_markdown_(self) -> str:
        return self._shown("github")

    def _repr_html_(self) -> str:
        return self._shown("html")

    def _shown(self, format: str) -> str:
        from gatewise.report.tables import render

        return render(self.report(), format)
