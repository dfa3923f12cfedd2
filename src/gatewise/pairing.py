"""Lays two networks side by side: their layers one by one, out of their stacks, with canonical weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gatewise.arrays.network import unstacked
from gatewise.core.explain import Explanation, explain_network
from gatewise.core.layout import CANONICAL, store
from gatewise.core.network import Layer, Network
from gatewise.core.plan import plan
from gatewise.core.spec import Recurrent, Spec
from gatewise.errors import SpecError
from gatewise.live import own_layouts

if TYPE_CHECKING:
    from gatewise.parity import Side

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


def explained(first: Side, second: Side) -> Explanation:
    """Explain why two live objects that are the same layers count differently.

    Raises:
        SpecError: They are not the same layers; the first that differs is named.
    """
    sides = []
    for side in (first, second):
        form, natives = side.adapter.form(side.obj), side.adapter.natives(side.obj)
        flat, places = unstacked(side.network)
        own = own_layouts(side.framework, side.network, form, natives)
        sides.append([(layer, own[places[layer.name][0]]) for layer in flat.weighted])
    layers: list[Layer] = []
    layouts = {}
    for number in range(max(map(len, sides))):
        here, there = (side[number] if number < len(side) else None for side in sides)
        if here is None or there is None or _sizes(here[0].spec) != _sizes(there[0].spec):
            raise SpecError(
                "These are not the same layers, so no way of storing explains the difference.",
                f"layer {number + 1}: {here[0].spec if here else 'none'} and {there[0].spec if there else 'none'}",
                "Compare a layer with its port.",
            )
        layers.append(Layer(here[0].name, here[0].spec))
        layouts[here[0].name] = (here[1], there[1])
    return explain_network(Network(tuple(layers)), first.framework, second.framework, layouts)


def _sizes(spec: Spec) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the kind of a layer, and the shapes of its canonical weights."""
    return spec.cell, store(CANONICAL[spec.cell], spec).shapes


def halves(spec: Spec) -> list[str]:
    """Return what stands before the names of the parts: nothing, or the two directions.

    >>> from gatewise.core.spec import LSTM
    >>> halves(LSTM(3, 5, bidirectional=True))
    ['forward/', 'backward/']
    """
    return ["forward/", "backward/"] if spec.options().get("bidirectional") else [""]
