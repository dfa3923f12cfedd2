"""What is said of whole models: their summary layer by layer, and what a file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatewise.report.tables import Report, Table, join

if TYPE_CHECKING:
    from gatewise.core.count import Count


def summarising(count: Count) -> Report:
    """Lay out the count of a model as its framework's own summary, the other framework's count beside."""
    other = count.beside
    shapes = any(layer.shape for layer in count.layers)
    headers = ["Layer (type)", *["Output Shape"] * shapes, "Param #", *([other.framework] if other else [])]
    rows: list[list[object]] = []
    for number, layer in enumerate(count.layers):
        beside = [other.layers[number].parameters] if other else []
        rows.append([f"{layer.name} ({layer.kind})", *[layer.shape] * shapes, layer.parameters, *beside])
    totals: list[list[object]] = [
        [name, *(numbers if other else numbers[:1])]
        for name, *numbers in (
            ("Total params", count.total, other.total if other else 0),
            ("Trainable params", count.trainable, other.trainable if other else 0),
            ("Non-trainable params", _fixed(count), _fixed(other) if other else 0),
            ("Optimizer params", count.optimizer, other.optimizer if other else 0),
        )
        if name != "Optimizer params" or any(numbers)
    ]
    unknown = [f"{layer.name} ({layer.kind})" for layer in count.layers if not layer.known and layer.parameters]
    said = list(count.notes)
    if unknown and other:
        one = len(unknown) == 1
        said.append(
            f"{', '.join(unknown)}: gatewise does not know {'this layer' if one else 'these layers'}; "
            f"{'its' if one else 'their'} count in {other.framework} is taken to be the same."
        )
    return Report(
        [count.framework],
        [
            Table("", headers, rows),
            Table("", ["", count.framework, *([other.framework] if other else [])], totals),
        ],
        join(said),
    )


def _fixed(count: Count) -> int:
    """Return how many parameters of a model training does not change, without those of its optimiser."""
    return count.total - (count.trainable or 0) - count.optimizer
