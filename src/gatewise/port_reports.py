"""What was done for a port: kept beside the new object, which is handed out alone."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from gatewise.core.record import Record
from gatewise.errors import GatewiseError

if TYPE_CHECKING:
    from gatewise.core.network import Network
    from gatewise.core.plan import Plan
    from gatewise.report.tables import Report


class PortReport(Record):
    """What was done for a port.

    Attributes:
        source: The framework it comes from.
        target: The framework it went to.
        network: What was ported, in neutral terms.
        plans: Layer → plan, with its verdict.
        frozen: Layer → tensors of the target that training does not change.
        remarks: What a person should know, a sentence each: what is left behind, and what is frozen or merged.
        calls: Where a call of the port differs from one of its source, a sentence each; ``port`` warns of these.
    """

    source: str
    target: str
    network: Network
    plans: dict[str, Plan]
    frozen: dict[str, tuple[str, ...]]
    remarks: tuple[str, ...]
    calls: tuple[str, ...]

    def report(self) -> Report:
        """Return the report as sentences and a table, which ``gatewise.report.tables.render`` writes."""
        from gatewise.report.reports import porting

        return porting(self)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: frameworks, layers with verdicts and parameters, remarks and differences of calls."""
        layers = [
            {
                "layer": layer.name,
                "spec": str(layer.spec),
                "verdict": str(self.plans[layer.name].verdict),
                "reason": self.plans[layer.name].reason,
                "parameters": {"source": counts[0], "target": counts[1]},
                "frozen": list(self.frozen.get(layer.name, ())),
            }
            for layer in self.network.weighted
            for counts in [[sum(map(prod, shapes.values())) for shapes in _shapes(self.plans[layer.name])]]
        ]
        return {
            "source": self.source,
            "target": self.target,
            "layers": layers,
            "remarks": list(self.remarks),
            "calls": list(self.calls),
        }

    def __str__(self) -> str:
        return self._rendered("plain")

    def _repr_markdown_(self) -> str:
        return self._rendered("github")

    def _repr_html_(self) -> str:
        return self._rendered("html")

    def _rendered(self, form: str) -> str:
        from gatewise.report.tables import render

        return render(self.report(), form)


def _shapes(plan: Plan) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    return plan.source_shapes, plan.target_shapes


# The object itself carries nothing: a copy, a pickle or a state dict of it is what it would be without gatewise.
_REPORTS: weakref.WeakKeyDictionary[Any, PortReport] = weakref.WeakKeyDictionary()


def keep(obj: Any, report: PortReport) -> None:
    """Remember the report of a port for as long as the object lives."""
    _REPORTS[obj] = report


def report_of(obj: Any) -> PortReport:
    """Return what was done for a port.

    Raises:
        GatewiseError: The object is no port of this session.
    """
    try:
        report = _REPORTS.get(obj)
    except TypeError:  # what cannot be hashed or referred to weakly, such as a list
        report = None
    if report is None:
        raise GatewiseError(
            f"A {type(obj).__name__} that gatewise.port did not return here has no report.",
            "A report belongs to the very object that gatewise.port returned; copies and files do not carry it.",
            "Give that object, or port the source again.",
        )
    return report


def call_differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[str, ...]:
    """Say where a call of a port differs from one of its source.

    Args:
        ours: How the source is called, by aspect; see ``ModelAdapter.calling``.
        theirs: The same for the port.

    >>> call_differences({"axes": "time first"}, {"axes": "batch first"})
    ('The source is called time first, the port batch first.',)
    """
    texts = {
        "axes": "The source is called {}, the port {}.",
        "states": "The source returns states as {}, the port as {}.",
        "cell": "One step of the source is {}, of the port {}.",
        "rank": "The source takes {}, the port {}.",
    }
    return tuple(
        text.format(ours[aspect], theirs[aspect])
        for aspect, text in texts.items()
        if aspect in ours and aspect in theirs and ours[aspect] != theirs[aspect]
    )
