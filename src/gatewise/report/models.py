"""What is said of whole models: their summary layer by layer, and what a file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gatewise.report.tables import Report, Table, join

if TYPE_CHECKING:
    from gatewise.core.count import Count
    from gatewise.inspecting import Inspection, TensorFact


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
        [
            f"{count.framework}, and beside it what its port to {other.framework} would have."
            if other
            else count.framework
        ],
        [
            Table("", headers, rows),
            Table("", ["", count.framework, *([other.framework] if other else [])], totals),
        ],
        join(said),
    )


def _fixed(count: Count) -> int:
    """Return how many parameters of a model training does not change, without those of its optimiser."""
    return count.total - (count.trainable or 0) - count.optimizer


def inspecting(found: Inspection) -> Report:
    """Lay out what a model or file holds, and what gatewise can do with it."""
    version = f", version {found.version}" if found.version else ""
    size = f"; {found.size:,} bytes" if found.size else ""
    opening = [f"{found.label}: {found.format}{version}{size}."]
    tables = []
    if found.layers:
        sizes = any(layer.parameters is not None for layer in found.layers)
        rows: list[list[object]] = [
            [layer.name, layer.kind, *[layer.parameters] * sizes, {None: "", True: "yes", False: "no"}[layer.known]]
            for layer in found.layers
        ]
        headers = ["layer", "class", *["parameters"] * sizes, "known"]
        if all(layer.known is None for layer in found.layers):
            headers, rows = headers[:-1], [row[:-1] for row in rows]
        tables.append(Table("Layers", headers, rows))
    if found.tensors:
        tables.append(_tensor_table("Tensors", found.tensors))
    if found.optimizer:
        tables.append(_tensor_table("Variables of the optimiser", found.optimizer))
    answer = {True: "", False: "gatewise cannot port it.", None: ""}[found.portable]
    return Report(opening, tables, join([answer, *found.reason.splitlines()]))


def _tensor_table(title: str, facts: Sequence[TensorFact]) -> Table:
    layers, roles = any(fact.layer for fact in facts), any(fact.role for fact in facts)
    rows: list[list[object]] = [
        [
            *[fact.layer] * layers,
            fact.name,
            *[fact.role] * roles,
            fact.dtype,
            fact.shape,
            fact.bytes,
        ]
        for fact in facts
    ]
    rows.append([*[""] * layers, "total", *[""] * roles, "", "", sum(fact.bytes for fact in facts)])
    headers = [*["layer"] * layers, "tensor", *["role"] * roles, "dtype", "shape", "bytes"]
    return Table(title, headers, rows, spare=["layer"])
