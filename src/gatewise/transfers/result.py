"""What a transfer returns: the pairs with their verdicts, the comparison of the outputs, and what has to be said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from gatewise.parity.result import Parity


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
        from gatewise.report.transfers import transferring

        return render(transferring(self), format)
