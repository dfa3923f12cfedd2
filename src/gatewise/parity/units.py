"""Lays two networks side by side: their layers one by one, out of their stacks, with canonical weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from gatewise.arrays.network import unstacked
from gatewise.core.layout import CANONICAL
from gatewise.core.network import Layer
from gatewise.core.plan import plan
from gatewise.core.spec import Recurrent, Spec
from gatewise.live import own_layouts
from gatewise.parity.subject import Side

Parts = dict[str, np.ndarray]
"""Canonical part → array; with the direction in its name, where there are two."""


class Unit(NamedTuple):
    """One layer with weights, taken out of its stack.

    Attributes:
        name: Its name in the network without stacks.
        layer: The layer that it was, and its place in that stack.
        spec: What it computes.
        weights: Its canonical parts, with the direction in their names.
        order: The order in which its layout keeps the gates.
    """

    name: str
    layer: tuple[str, int]
    spec: Spec
    weights: Parts
    order: str


def units(side: Side, values: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> list[Unit]:
    """Return the layers of one side that have weights, out of their stacks.

    Args:
        side: A live object.
        values: Layer → tensor → an array in its shape to be taken in place of the weights, such as their gradients:
            what a layout adds to a weight is then left out. A tensor that is missing counts as zero.
    """
    natives, network = side.adapter.natives(side.obj), side.network
    layouts = own_layouts(side.framework, network, side.adapter.form(side.obj), natives)
    flat, places = unstacked(network)
    canonical = {}
    for layer in network.weighted:
        way = plan(layer.spec, layouts[layer.name], CANONICAL[layer.spec.cell])
        arrays: Mapping[str, np.ndarray] = side.adapter.read(natives[layer.name])
        if values is not None:
            given = values[layer.name]
            arrays = {name: given.get(name, np.zeros(array.shape)) for name, array in arrays.items()}
            way = dataclasses.replace(way, moves=tuple(move._replace(constant=0.0) for move in way.moves))
        canonical[layer.name] = way.apply(arrays)
    made = []
    for layer in flat.weighted:
        name, place = places[layer.name]
        prefix = f"layer_{place}/" if layer.name != name else ""
        own = {part.removeprefix(prefix): array for part, array in canonical[name].items() if part.startswith(prefix)}
        made.append(Unit(layer.name, (name, place), layer.spec, own, layouts[name].gates))
    return made


def restacked(layer: Layer, weights: Mapping[str, Parts]) -> Parts:
    """Return the canonical weights of a layer from those of its units, by their names."""
    spec = layer.spec
    if not isinstance(spec, Recurrent) or spec.layers == 1:
        return weights[layer.name]
    return {
        f"layer_{place}/{part}": array
        for place in range(spec.layers)
        for part, array in weights[f"{layer.name}.{place}"].items()
    }


def comparable(mine: Unit, yours: Unit) -> bool:
    """Say whether two units have weights of the same shapes, but for biases that one may lack."""
    if mine.spec.cell != yours.spec.cell or any(
        "bias" not in name for name in mine.weights.keys() ^ yours.weights.keys()
    ):
        return False
    both = mine.weights.keys() & yours.weights.keys()
    return all(mine.weights[name].shape == yours.weights[name].shape for name in both)


def alike(ours: list[Unit], theirs: list[Unit]) -> bool:
    """Say whether two sides have the same layers with weights, in the same order."""
    return len(ours) == len(theirs) and all(map(comparable, ours, theirs))


def halves(spec: Spec) -> list[str]:
    """Return what stands before the names of the parts: nothing, or the two directions.

    >>> from gatewise.core.spec import LSTM
    >>> halves(LSTM(3, 5, bidirectional=True))
    ['forward/', 'backward/']
    """
    return ["forward/", "backward/"] if spec.options().get("bidirectional") else [""]
