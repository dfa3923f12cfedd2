"""One object of a comparison with its adapter and description, and the copies of it that a comparison runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gatewise.core.between import Constant, Input, Operation, Permute, Reshape
from gatewise.core.layout import CANONICAL, GATES, summed_gates
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.plan import plan
from gatewise.core.shapes import shapes
from gatewise.core.spec import Recurrent, Spec, outputs_of
from gatewise.errors import GatewiseError, SpecError, UnsupportedModelError
from gatewise.live import load, own_layouts, plan_network
from gatewise.parity.outputs import Pick
from gatewise.registry import ModelAdapter, owner


class Trial(NamedTuple):
    """One run of both sides.

    Attributes:
        inputs: One array for each input, batch first.
        states: Initial states, where both sides take them.
        free: Whether copies that take any length run it: one step from a zero state would hide the recurrent kernel.
        before: The inputs of a call before it, after which what keeps its states goes on from them.
    """

    inputs: list[np.ndarray]
    states: list[np.ndarray] | None = None
    free: bool = False
    before: list[np.ndarray] | None = None

    def text(self) -> str:
        """Say what was fed."""
        text = ", ".join(str(array.shape) for array in self.inputs)
        text += " with random initial states" if self.states is not None else ""
        text += " in a second call" if self.before is not None else ""
        return text + (" to copies that take any length" if self.free else "")


class Side(NamedTuple):
    """One object of a comparison, with its adapter and what it is.

    Attributes:
        framework: Its framework.
        adapter: The adapter of that.
        obj: The object.
        network: What it is, in neutral terms.
        picks: What is compared of its outputs, where the other side does not give the same; empty for all of them.
    """

    framework: str
    adapter: ModelAdapter
    obj: Any
    network: Network
    picks: tuple[Pick, ...] = ()

    def twin(self, dtype: str) -> Side:
        """Return a copy that shares nothing, in a type of numbers."""
        # Built anew from its description, a module that runs something else than it says would be mended.
        if hasattr(self.adapter, "twin"):
            return self._replace(obj=self.adapter.twin(self.obj, dtype))
        return self.rebuilt(self.network, dtype)

    def doubled(self) -> Side:
        """Return a copy in float64, in which two biases that are added have been added in the type of this side.

        A port to one bias adds them so. That rounding is part of the weights, and not of what float64 is to decide.
        """
        copy, kind = self.twin("float64"), self.dtype()
        natives, own = self.adapter.natives(self.obj), copy.adapter.natives(copy.obj)
        layouts = own_layouts(self.framework, self.network, self.adapter.form(self.obj), natives)
        for layer in self.network.weighted:
            if kind == "float64" or not GATES[layer.spec.cell]:
                continue
            summed = [gate in summed_gates(layer.spec) for gate in GATES[layer.spec.cell]]
            there, canonical = layouts[layer.name], CANONICAL[layer.spec.cell]
            parts = plan(layer.spec, there, canonical).apply(self.adapter.read(natives[layer.name]))
            for name in [name for name in parts if name.rpartition("/")[2] == "bias"]:
                second = name.removesuffix("bias") + "recurrent_bias"
                if second in parts:
                    bias, recurrent = parts[name].copy(), parts[second].copy()
                    bias[summed], recurrent[summed] = bias[summed] + recurrent[summed], 0
                    parts |= {name: bias, second: recurrent}
            doubles = {name: array.astype(np.float64) for name, array in parts.items()}
            copy.adapter.write(own[layer.name], plan(layer.spec, canonical, there).apply(doubles))
        return copy

    def freed(self, dtype: str) -> Side:
        """Return a copy, in a type of numbers, that takes any length and, where it keeps no states, any batch."""
        return self.rebuilt(free_lengths(self.network), dtype)

    def rebuilt(self, network: Network, dtype: str) -> Side:
        """Return what a network describes, with these weights."""
        adapter, natives, form = self.adapter, self.adapter.natives(self.obj), self.adapter.form(self.obj)
        made, own = adapter.assemble(network, dtype=dtype, form=form)
        plans = plan_network(network, own_layouts(self.framework, network, form, natives), self.framework, form)
        for layer in network.weighted:
            adapter.write(own[layer.name], plans[layer.name].apply(adapter.read(natives[layer.name])))
            if layer.trainable and (fixed := adapter.frozen(natives[layer.name])):
                adapter.freeze(own[layer.name], sorted(fixed))
        return self._replace(obj=made, network=network)

    def run(self, trial: Trial) -> list[np.ndarray]:
        """Return all outputs of a trial that are compared."""
        outputs = self.adapter.call(self.obj, trial.inputs if trial.before is None else trial.before, trial.states)
        if trial.before is not None:
            goes_on = getattr(self.adapter, "call_again", None)  # An adapter without it has no layers that keep states.
            outputs = list((goes_on or self.adapter.call)(self.obj, trial.inputs))
        return [pick.take(outputs) for pick in self.picks] if self.picks else outputs

    def output_names(self) -> list[str]:
        """Return the names of the outputs that are compared."""
        if self.picks:
            return [pick.name for pick in self.picks]
        places = map(source_of, self.network.results)
        return [f"{name}.{outputs_of(self.network[name].spec)[number]}" for name, number in places]

    def calling(self) -> dict[str, str]:
        """Return how it is called, aspect by aspect, where a person's own call has to mind it."""
        return self.adapter.calling(self.obj) if hasattr(self.adapter, "calling") else {}

    def with_axes_of(self, other: Network) -> Side:
        """Return this side with inputs of as many axes as the other's, where it takes any number of them."""
        ours, theirs = self.network.sources, other.sources
        if "any" not in self.calling().get("rank", "") or not len(ours) == len(theirs) == 1:
            return self
        [own], [wanted] = ours, theirs
        if own.spec.options()["integer"] != wanted.spec.options()["integer"]:
            return self
        shape = wanted.spec.options()["shape"]
        if not own.spec.options()["integer"]:
            shape = (*shape[:-1], *own.spec.options()["shape"][-1:])
        reshaped = dataclasses.replace(own, spec=own.spec.replace(shape=shape))
        layers = tuple(reshaped if layer is own else layer for layer in self.network.layers)
        return self._replace(network=dataclasses.replace(self.network, layers=layers))

    def jiggled(self, size: float) -> Side:
        """Return a copy in float64 each weight of which is larger or smaller by so much of itself."""
        made, random = self.twin("float64"), np.random.default_rng(0)
        for native in made.adapter.natives(made.obj).values():
            read = made.adapter.read(native)
            moved = {name: array * (1 + size * random.choice((-1, 1), array.shape)) for name, array in read.items()}
            made.adapter.write(native, moved)
        return made

    def dtype(self) -> str:
        """Return the type of numbers that it computes in."""
        kind = self.adapter.dtype_of(self.obj)
        return kind if kind != "float64" or self.doubles() else "float32"

    def doubles(self) -> bool:
        """Say whether float64 is computed in float64."""
        return bool(self.adapter.computes_in_double())

    def takes_states(self) -> bool:
        """Say whether initial states can be given."""
        return self.adapter.takes_states(self.obj)


class Runner:
    """Runs one side in one type of numbers; a free trial runs in a copy that takes any length."""

    def __init__(self, side: Side, dtype: str) -> None:
        self.side, self.dtype = side, dtype
        self._free: Side | None = None

    def copy(self, *, free: bool) -> Side:
        """Return what runs a trial."""
        if free and self._free is None:
            self._free = self.side.freed(self.dtype)
        return self._free if free and self._free is not None else self.side

    def run(self, trial: Trial) -> list[np.ndarray]:
        """Return all outputs of a trial."""
        return self.copy(free=trial.free).run(trial)


def free_lengths(network: Network) -> Network:
    """Return the network with inputs whose timesteps are free, and whose batch is, where no layer keeps states."""
    stateful = [layer for layer in network.layers if isinstance(layer.spec, Recurrent) and layer.spec.stateful]
    keeps = bool(stateful) or any(isinstance(layer.spec, Constant) for layer in network.layers)
    if any(layer.distributed for layer in stateful):
        return network  # Keras runs it on steps whose number is known.
    if any(isinstance(layer.spec, Reshape | Permute) and not layer.distributed for layer in network.layers):
        return network  # What reads the numbers of all steps side by side has a weight for each.
    if any(isinstance(layer.spec, Operation) and layer.spec.counts_steps for layer in network.layers):
        return network

    masks = {source_of(layer.mask)[0] for layer in network.layers if layer.mask}

    def freed(layer: Layer) -> Spec:
        spec = layer.spec
        if not isinstance(spec, Input):
            return spec
        timeless = len(spec.shape) < (1 if spec.integer or spec.boolean or layer.name in masks else 2)
        shape = spec.shape if timeless else (None, *spec.shape[1:])
        return spec.replace(shape=shape, batch=spec.batch if keeps else None)

    layers = [dataclasses.replace(layer, spec=freed(layer)) for layer in network.layers]
    made = Network(tuple(layers), network.outputs)
    try:
        lengths = shapes(made)
    except SpecError:  # Some layer wants to know a length.
        return network
    for layer in made.layers:
        if layer.mask:
            mask, masked = (lengths[name][number] for name, number in map(source_of, (layer.mask, layer.inputs[0])))
            if mask[1:] != masked[1 : len(mask)]:  # One of them has a length of its own.
                return network
    read = [source_of(layer.inputs[0]) for layer in made.layers if layer.spec.options().get("features")]
    # What reads a score for each step has a weight for each, too.
    return network if any(lengths[name][number][-1] is None for name, number in read) else made


def opened(obj: Any) -> Any:
    """Return a live object: itself, or what is in the file of one."""
    return load(obj) if isinstance(obj, str | Path) else obj


def side(obj: Any) -> Side:
    """Return one side of a comparison: a live object, or the file of one."""
    obj = opened(obj)
    name, adapter = owner(obj)
    return Side(name, adapter, obj, adapter.describe(obj))


def readable(obj: Any) -> Side | GatewiseError:
    """Return one side of a comparison, or why its layers cannot be read though it may be called.

    What runs other code than its class's is not what its layers say. Hooks are copied with a module: it is read, and
    a comparison sees what they do.
    """
    try:
        owner(obj)
    except GatewiseError as error:  # no framework's, or that of one whose models nobody reads here
        return error
    try:
        found = side(obj)
        if hasattr(found.adapter, "check_bare"):
            found.adapter.check_bare(obj, copied=True)
        return found
    except UnsupportedModelError as error:
        return error
