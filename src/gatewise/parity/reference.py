"""One side as it is described, run in float64, and how far a test fault moves what comes out of it.

No object of a framework is made for a fault: only what reads the layer that has it is run again, in NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gatewise.arrays.network import Call, Walk, Way, plain, unstacked
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.spec import Recurrent
from gatewise.parity.outputs import Pick
from gatewise.parity.subject import Side, Trial
from gatewise.parity.units import Parts, units

Array = np.ndarray
Weights = Mapping[str, Parts]

ROUNDED = 1e-6
"""Weights that differ by less, relative to the largest, are the same but for rounding."""


class Wrong(NamedTuple):
    """A network with one fault.

    Attributes:
        layers: The layers that differ, by name.
        weights: The layers whose weights differ, with all their parts.
        ways: The layers that are run in another way.
    """

    layers: Mapping[str, Layer]
    weights: Weights
    ways: Mapping[str, Way]


def run(
    network: Network,
    weights: Weights,
    trial: Trial,
    ways: Mapping[str, Way] | None = None,
    *,
    masks: bool = True,
) -> list[Array]:
    """Return all outputs of a trial of a network without stacks."""
    return _walks(network, weights, trial, ways, masks=masks)[-1].results()


def _walks(
    network: Network, weights: Weights, trial: Trial, ways: Mapping[str, Way] | None = None, *, masks: bool = True
) -> list[Walk]:
    """Return the runs of a trial: the one call, or the call before it and the call that goes on from its states."""
    made: list[Walk] = []
    for inputs in [trial.before, trial.inputs] if trial.before is not None else [trial.inputs]:
        walk = Walk(network, weights, inputs, trial.states if not made else None, ways, masks=masks)
        walk.kept = dict(made[-1].kept) if made else {}
        walk.run(network.layers)
        made.append(walk)
    return made


class Reference:
    """A network without stacks, with canonical weights, and what it gave on the trials that were asked for.

    Attributes:
        network: The network.
        weights: Layer → its canonical weights.
        picks: What is compared of its outputs; empty for all of them.
    """

    def __init__(self, network: Network, weights: Weights, picks: Sequence[Pick] = ()) -> None:
        self.network, self.weights, self.picks = network, weights, picks
        self._ran: dict[int, tuple[Trial, Walk]] = {}
        # Where a layer goes on from another use or another call, what it starts from is no output of a layer.
        self._whole = bool(network.interleaved) or any(
            isinstance(layer.spec, Recurrent) and layer.spec.stateful for layer in network.layers
        )

    @classmethod
    def of(cls, side: Side) -> Reference:
        """Return what describes a side.

        Raises:
            GatewiseError: A layer of it cannot be taken apart.
        """
        flat, _ = unstacked(side.network)
        return cls(flat, {unit.name: unit.weights for unit in units(side)}, side.picks)

    def run(self, trial: Trial) -> list[Array]:
        """Return all outputs of a trial."""
        return self._picked(self._walk(trial).results())

    def _picked(self, outputs: list[Array]) -> list[Array]:
        return [pick.take(outputs) for pick in self.picks] if self.picks else outputs

    @property
    def compared(self) -> set[str]:
        """The layers on which the outputs that are compared depend."""
        results = self.network.results
        read = {place for pick in self.picks for place in pick.reads} or range(len(results))
        return Network(self.network.layers, tuple(results[place] for place in sorted(read))).live

    def _walk(self, trial: Trial) -> Walk:
        if id(trial) not in self._ran:
            walk = _Recorded(self.network, self.weights, trial) if not self._whole else None
            self._ran[id(trial)] = (trial, walk or _walks(self.network, self.weights, trial)[-1])
        return self._ran[id(trial)][1]

    def mask_of(self, name: str, trial: Trial) -> Array | None:
        """Return the mask that goes on from a layer; None, too, within a model that goes step by step."""
        return self._walk(trial).carried.get(name)

    def wrong(self, fault: Wrong, trial: Trial) -> list[Array]:
        """Return all outputs of a trial with a fault."""
        layers = tuple(fault.layers.get(layer.name, layer) for layer in self.network.layers)
        network = Network(layers, self.network.outputs) if fault.layers else self.network
        weights = {**self.weights, **fault.weights}
        if self._whole:
            return self._picked(run(network, weights, trial, fault.ways))
        right = self._walk(trial)
        assert isinstance(right, _Recorded)
        going = Walk(network, weights, trial.inputs, trial.states, fault.ways)
        going.values, going.carried = dict(right.values), dict(right.carried)
        moved: set[str] = set()
        for layer in layers:
            changed = layer.name in fault.layers or layer.owner in fault.weights or layer.owner in fault.ways
            if not changed and moved.isdisjoint(source_of(each)[0] for each in (*layer.inputs, layer.mask) if each):
                continue
            waiting, left = right.before[layer.name]
            going.waiting = list(trial.inputs[len(trial.inputs) - waiting :])
            going.left = list((trial.states or [])[len(trial.states or []) - left :])
            going.run([layer])
            if not _same(going, right, layer.name):
                moved.add(layer.name)
        return self._picked(going.results())

    def redrawn(self, random: np.random.Generator) -> Reference:
        """Return the same network with other weights, of an ordinary size."""
        return Reference(
            self.network,
            {
                layer: {name: _draw(name, array, random) for name, array in parts.items()}
                for layer, parts in self.weights.items()
            },
            self.picks,
        )

    def cost(self, trial: Trial) -> float:
        """Return about how many products a run takes."""
        walk, total = self._walk(trial), 0.0
        for layer in self.network.layers:
            size = sum(array.size for array in self.weights.get(layer.owner, {}).values())
            steps = [value.size / max(1, value.shape[-1]) if value.ndim else 1 for value in walk.values[layer.name]]
            total += size * max(steps, default=1) + 100 * sum(value.size for value in walk.values[layer.name])
            total += 1e5  # Python takes as long to run the smallest layer as NumPy for so many products.
        return total


class _Recorded(Walk):
    """A run of one call that knows how many inputs and first states were left in front of each layer."""

    def __init__(self, network: Network, weights: Weights, trial: Trial) -> None:
        super().__init__(network, weights, trial.inputs, trial.states, None)
        self.before: dict[str, tuple[int, int]] = {}
        for layer in network.layers:
            self.before[layer.name] = (len(self.waiting), len(self.left))
            self.run([layer])


def _same(one: Walk, other: Walk, name: str) -> bool:
    """Say whether a layer gave the same in two runs, mask and all."""
    masks = one.carried[name], other.carried[name]
    if (masks[0] is None) != (masks[1] is None):
        return False
    pairs = [*zip(one.values[name], other.values[name], strict=False)]
    pairs += [(mask, also) for mask, also in [masks] if mask is not None and also is not None]
    return len(one.values[name]) == len(other.values[name]) and all(
        np.array_equal(mine, yours, equal_nan=mine.dtype.kind == "f" and yours.dtype.kind == "f")
        for mine, yours in pairs
    )


def _draw(name: str, array: Array, random: np.random.Generator) -> Array:
    part = name.rpartition("/")[2]
    if part == "variance":
        return np.asarray(random.uniform(0.3, 2, array.shape))
    if "scale" in part or part == "score":
        return np.asarray(1 + random.normal(0, 0.3, array.shape))
    drawn = random.normal(0, 0.7, array.shape)
    inner = int(np.prod(array.shape[-max(1, array.ndim - 2) :])) if "kernel" in part and array.ndim > 1 else 1
    return np.asarray(drawn * 1.5 / np.sqrt(max(1, inner / 2)))


def noisy(reference: Reference, name: str, random: np.random.Generator) -> Wrong:
    """Return the network in which a layer gives somewhat other numbers."""

    def way(call: Call) -> list[Array]:
        return [each + random.normal(0, 0.3, each.shape) for each in plain(call)]

    return Wrong({}, {}, {reference.network[name].owner: way})


def same_function(one: Reference, other: Reference) -> bool:
    """Say whether two descriptions differ in nothing but names and the rounding of weights."""
    ours, theirs = one.network.layers, other.network.layers
    if len(ours) != len(theirs):
        return False
    places = [{layer.name: place for place, layer in enumerate(layers)} for layers in (ours, theirs)]

    def placed(layer: Layer, at: Mapping[str, int]) -> tuple[object, ...]:
        read = [(at[name], number) for name, number in map(source_of, layer.inputs)]
        names = [at[each] if each else -1 for each in (layer.shares, layer.resumes, source_of(layer.mask)[0])]
        return (layer.distributed, layer.step, layer.masked, read, names)

    for mine, yours in zip(ours, theirs, strict=True):
        if mine.spec != yours.spec or placed(mine, places[0]) != placed(yours, places[1]):
            return False
        here, there = one.weights.get(mine.name, {}), other.weights.get(yours.name, {})
        if not _alike(here, there):
            return False
    results = [
        [(at[name], number) for name, number in map(source_of, side.network.results)]
        for at, side in zip(places, (one, other), strict=True)
    ]
    return results[0] == results[1]


def _alike(here: Parts, there: Parts) -> bool:
    if here.keys() != there.keys() or any(here[name].shape != there[name].shape for name in here):
        return False
    return all(
        bool(
            np.allclose(here[name], there[name], rtol=1e-6, atol=1e-7 * max(1.0, _largest(here[name])), equal_nan=True)
        )
        for name in here
    )


def _largest(array: Array) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0
