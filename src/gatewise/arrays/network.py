"""Runs a whole network in float64 by the reference cells, and lets one layer of it be run in another way.

Every framework is compared with it, and so is every guess at what a wrong port computes: a guess is a function that
runs one layer wrongly.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gatewise.arrays import reference
from gatewise.core.between import (
    OVER,
    Activation,
    Constant,
    Dot,
    Flip,
    Input,
    Masking,
    Merge,
    Operation,
    Pad,
    Permute,
    Pool,
    Remask,
    Repeat,
    Rescale,
    Reshape,
    Softmax,
    Upsample,
    window,
)
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.spec import ACTIVATIONS, Attending, Embedding, Recurrent, Spec, is_beside, outputs_of, per_axis

Array = np.ndarray
Weights = Mapping[str, Array]


class Call(NamedTuple):
    """One layer about to run.

    Attributes:
        spec: What it computes.
        weights: Its canonical weights.
        value: What it reads, batch first.
        mask: (batch, steps), true where a step counts, or None.
        states: Its first states, (batch, size) each, or None.
        others: What it reads beside the value, where it merges, attends, or is an operation.
        masks: The masks of all that it merges or attends to.
    """

    spec: Spec
    weights: Weights
    value: Array
    mask: Array | None = None
    states: Sequence[Array] | None = None
    others: Sequence[Array] = ()
    masks: Sequence[Array | None] = ()


Way = Callable[[Call], list[Array]]
"""A way to run a layer: from the call to all outputs of the layer, in the order of its spec."""


def unstacked(network: Network) -> tuple[Network, dict[str, tuple[str, int]]]:
    """Return a network in which every stack of recurrent layers is a chain, and all outputs are named.

    Returns:
        The network, and new name → the layer it was and its place in the stack.

    >>> from gatewise.core.spec import LSTM, Dense
    >>> flat, places = unstacked(Network.chain(LSTM(3, 5, layers=2), Dense(5, 1)))
    >>> [layer.name for layer in flat.layers], places["lstm.1"]
    (['lstm.0', 'lstm.1', 'dense'], ('lstm', 1))
    """
    layers: list[Layer] = []
    places: dict[str, tuple[str, int]] = {}
    moved: dict[str, str] = {}

    def renamed(references: Sequence[str]) -> tuple[str, ...]:
        return tuple(moved.get(reference, reference) for reference in references)

    for layer in network.layers:
        spec = layer.spec
        if not isinstance(spec, Recurrent) or spec.layers == 1:
            layers.append(dataclasses.replace(layer, inputs=renamed(layer.inputs), rules=()))
            places[layer.name] = (layer.name, 0)
            continue
        front = len(spec.replace(return_state=False).outputs)
        each = spec.directions * (2 if spec.cell == "lstm" else 1)
        starts = layer.inputs[1:]
        below = layer.inputs[:1]
        for place in range(spec.layers):
            top, name = place == spec.layers - 1, f"{layer.name}.{place}"
            width = spec.features if place == 0 else spec.merged_directions * spec.state
            single = spec.replace(
                layers=1, features=width, dropout_between=0.0, return_sequences=not top or spec.return_sequences
            )
            inputs = (*renamed(below), *renamed(starts[place * each : (place + 1) * each]))
            shares, resumes = (f"{there}.{place}" if there else "" for there in (layer.shares, layer.resumes))
            layers.append(dataclasses.replace(layer, name=name, spec=single, inputs=inputs, rules=(), shares=shares))
            layers[-1] = dataclasses.replace(layers[-1], resumes=resumes)
            places[name] = (layer.name, place)
            below = (name,)
            for number in range(each):
                moved[_reference(layer.name, front + place * each + number)] = _reference(name, front + number)
            if top:
                for number in range(front):
                    moved[_reference(layer.name, number)] = _reference(name, number)
    return Network(tuple(layers), renamed(network.results)), places


def _reference(name: str, number: int) -> str:
    return f"{name}:{number}" if number else name


def walk(
    network: Network,
    weights: Mapping[str, Weights],
    inputs: Sequence[Array],
    states: Sequence[Array] | None = None,
    ways: Mapping[str, Way] | None = None,
    *,
    masks: bool = True,
) -> list[Array]:
    """Run a network without stacks.

    Args:
        network: What ``unstacked`` gives.
        weights: Layer → its canonical weights.
        inputs: One array for each input, batch first.
        states: First states of the recurrent layers, one after the other, each (batch, size).
        ways: Layer → the way to run it, where it is not ``plain``.
        masks: Whether masks are made at all.

    Returns:
        All outputs, in the order of ``network.results``.

    >>> from gatewise.core.spec import Dense
    >>> flat, _ = unstacked(Network.chain(Input((2,)), Dense(2, 1)))
    >>> walk(flat, {"dense": {"kernel": np.ones((1, 2)), "bias": np.ones(1)}}, [np.array([[1.0, 2.0]])])
    [array([[4.]])]
    """
    going = Walk(network, weights, inputs, states, ways, masks=masks)
    going.run(network.layers)
    return going.results()


class Walk:
    """Runs layers one after the other; what each gave stays at hand.

    Attributes:
        waiting: The inputs that no layer has taken yet.
        left: The first states that no layer has taken yet.
        values: Layer → what it gave.
        carried: Layer → the mask that goes on from it, or None.
        kept: Layer → the states that its last use left, where it keeps them.
    """

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Weights],
        inputs: Sequence[Array],
        states: Sequence[Array] | None,
        ways: Mapping[str, Way] | None,
        *,
        masks: bool = True,
    ) -> None:
        self.network, self.weights, self.ways, self.masks = network, weights, ways or {}, masks
        self.specs = {layer.name: layer.spec for layer in network.layers}
        self.waiting, self.left = list(inputs), list(states or [])
        self.interleaved = network.interleaved
        self.values: dict[str, list[Array]] = {}
        self.carried: dict[str, Array | None] = {}
        self.kept: dict[str, list[Array]] = {}

    def run(self, layers: Sequence[Layer]) -> None:
        """Run layers, each behind those it reads."""
        later = frozenset[str]().union(*(self.interleaved.get(layer.name, ()) for layer in layers))
        for layer in layers:
            if layer.name in later:
                continue
            if layer.name in self.interleaved:
                names = self.interleaved[layer.name]
                self._run_step_by_step(layer, [each for each in layers if each.name in names])
            self._run_one(layer)

    def _run_step_by_step(self, end: Layer, model: Sequence[Layer]) -> None:
        """Run the layers of a model on one step after the other, each step by all of them."""
        axes, names = end.distributed + 1, [layer.name for layer in model]
        references = [source_of(each) for layer in model for each in (*layer.inputs, layer.mask) if each]
        read = {(name, number) for name, number in references if name not in names}
        within = [dataclasses.replace(layer, distributed=max(layer.distributed - axes, 0)) for layer in model]
        name, number = source_of(end.inputs[1])
        shape = self.values[name][number].shape[: 1 + axes]
        values, carried = self.values, self.carried
        made: dict[str, list[list[Array]]] = {name: [] for name in names}
        for place in np.ndindex(*shape[1:]):
            step = (slice(None), *place)
            self.values, self.carried = {}, {}
            for name, number in read:
                mask = carried[name]
                self.values.setdefault(name, [*values[name]])[number] = values[name][number][step]
                self.carried[name] = None if mask is None or mask.ndim < 2 + axes else mask[step]
            self.run(within)
            for name in names:
                made[name].append(self.values[name])
        self.values, self.carried = values, carried
        for name, steps in made.items():
            stacked = [np.stack(each, 1) for each in zip(*steps, strict=True)]
            self.values[name] = [each.reshape(*shape, *each.shape[2:]) for each in stacked]

    def _mask_with(self, reference: str) -> Array | None:
        name, number = source_of(reference)
        return None if is_beside(self.specs[name], number) else self.carried[name]

    def results(self) -> list[Array]:
        """Return what comes out of the network."""
        return [self.values[name][number] for name, number in map(source_of, self.network.results)]

    def _run_one(self, layer: Layer) -> None:
        spec, values = layer.spec, self.values
        if isinstance(spec, Constant):
            values[layer.name], self.carried[layer.name] = [np.asarray(spec.values)], None
            return
        if isinstance(spec, Input) or not layer.inputs:
            values[layer.name], self.carried[layer.name] = [np.asarray(self.waiting.pop(0))], None
            if isinstance(spec, Input):
                return
            value, mask = values[layer.name][0], None
        else:
            name, number = source_of(layer.inputs[0])
            value, mask = values[name][number], self._mask_with(layer.masked_by[0])
        if layer.mask and self.masks:
            name, number = source_of(layer.mask)
            mask = values[name][number] != 0
        given: Sequence[Array] = [values[name][number] for name, number in map(source_of, layer.inputs[1:])]
        if isinstance(spec, Recurrent):
            if not given and self.left:
                kinds = spec.directions * (2 if spec.cell == "lstm" else 1)
                given, self.left = self.left[:kinds], self.left[kinds:]
            given = [_on_each_step(state, value.shape[1 : 1 + layer.distributed]) for state in given]
            given = given or self.kept.get(layer.keeper, [])
        way = self.ways.get(layer.owner, plain)
        if layer.step:
            way, value = _one_step(way), value[:, None]
        call = Call(spec, self.weights.get(layer.owner, {}), value, mask if layer.masked else None, given or None)
        if isinstance(spec, Merge):
            among = [mask, *map(self._mask_with, layer.inputs[1:])]
            followed = among if layer.masked else [None] * len(among)
            call = call._replace(spec=spec.replace(axis=layer.axis), states=None, others=given, masks=followed)
            mask = _mask_of_several(layer, [value, *given], among)
        if isinstance(spec, Operation | Dot | Attending):
            among = [mask, *map(self._mask_with, layer.inputs[1:])]
            call = call._replace(states=None, others=given, masks=among)
        if isinstance(spec, Recurrent) and spec.stateful:
            values[layer.name], self.kept[layer.keeper] = _with_states(call, way, layer.distributed)
        else:
            values[layer.name] = _each_step(call, way, layer.distributed)
        self.carried[layer.name] = _mask_behind(layer, value, mask) if self.masks else None


def _one_step(way: Way) -> Way:
    """Return the way to run a bare cell, whose outputs have no time axis."""

    def run(call: Call) -> list[Array]:
        made = way(call)
        return [each[:, 0] if each.ndim > 2 else each for each in made]

    return run


def _with_states(call: Call, way: Way, axes: int) -> tuple[list[Array], list[Array]]:
    """Run a layer that keeps its states; return what it gives, and the states that it ends with."""
    spec = call.spec
    assert isinstance(spec, Recurrent)
    made = _each_step(call._replace(spec=spec.replace(return_state=True)), way, axes)
    front = len(spec.replace(return_state=False).outputs)
    last = [state.reshape(len(state), -1, state.shape[-1])[:, -1] for state in made[front:]]
    return made if spec.return_state else made[:front], last


def _each_step(call: Call, way: Way, axes: int) -> list[Array]:
    """Run a layer on each step of some more time axes."""
    if not axes or isinstance(call.spec, Merge):
        return way(call)
    batch, steps = call.value.shape[:2]
    if isinstance(call.spec, Recurrent) and call.spec.stateful and (call.states is None or call.states[0].ndim == 2):
        return _each_step_from_the_last(call, way, axes)
    flat = call.value.reshape(batch * steps, *call.value.shape[2:])

    def within(mask: Array | None) -> Array | None:
        return None if mask is None or mask.ndim < 3 else mask.reshape(batch * steps, *mask.shape[2:])

    mask, masks = within(call.mask), [within(mask) for mask in call.masks]
    states = call.states and [state.reshape(batch * steps, *state.shape[2:]) for state in call.states]
    others = [other.reshape(batch * steps, *other.shape[2:]) for other in call.others]
    call = call._replace(value=flat, mask=mask, states=states, others=others, masks=masks)
    made = _each_step(call, way, axes - 1)
    return [each.reshape(batch, steps, *each.shape[1:]) for each in made]


def _on_each_step(state: Array, axes: Sequence[int]) -> Array:
    """Return a first state for each step of some more time axes; one that has none is the same on each."""
    batch, *_, size = state.shape
    whole = state if state.ndim > 2 else state.reshape(batch, *(1 for _ in axes), size)
    return np.broadcast_to(whole, (batch, *axes, size))


def _each_step_from_the_last(call: Call, way: Way, axes: int) -> list[Array]:
    """Run a layer that keeps its states on one step after the other, the last innermost."""
    spec = call.spec
    assert isinstance(spec, Recurrent)
    shape = call.value.shape[: 1 + axes]
    front = len(spec.replace(return_state=False).outputs)
    made: list[list[Array]] = []
    states = call.states
    for place in np.ndindex(*shape[1:]):
        step = (slice(None), *place)
        mask = None if call.mask is None or call.mask.ndim < 2 + axes else call.mask[step]
        outputs = way(
            call._replace(spec=spec.replace(return_state=True), value=call.value[step], mask=mask, states=states)
        )
        states = outputs[front:]
        made.append(outputs if spec.return_state else outputs[:front])
    stacked = [np.stack(each, 1) for each in zip(*made, strict=True)]
    return [each.reshape(*shape, *each.shape[2:]) for each in stacked]


def _mask_of_several(layer: Layer, values: Sequence[Array], masks: Sequence[Array | None]) -> Array | None:
    """Return the mask of what is merged: a step counts where it does in any."""
    assert isinstance(layer.spec, Merge)
    if all(mask is None for mask in masks):
        return None
    if layer.spec.merge == "concat" and layer.spec.axis == 1 and values[0].ndim > 1 + layer.axis:
        whole = [
            np.ones(value.shape[: 1 + layer.axis], bool) if mask is None else mask
            for value, mask in zip(values, masks, strict=True)
        ]
        return np.concatenate(whole, layer.axis)
    known = [mask for mask in masks if mask is not None]
    if len(known) < len(masks):
        return None
    if layer.spec.merge == "concat":
        # A mask of as many axes as its tensor, as of the characters of words, counts where any of it does.
        pairs = zip(known, values, strict=True)
        known = [np.asarray(mask.any(-1)) if mask.ndim == value.ndim else mask for mask, value in pairs]
    return np.asarray(np.logical_or.reduce(known))


def _mask_behind(layer: Layer, value: Array, mask: Array | None) -> Array | None:
    """Return the mask that goes on from a layer, where one came to it or None."""
    spec = layer.spec
    if isinstance(spec, Merge | Remask):
        return mask
    if isinstance(spec, Masking):
        return np.asarray((value != spec.mask_value).any(-1))
    if isinstance(spec, Embedding):
        return np.asarray(value != 0) if spec.mask_zero else None
    if mask is None or isinstance(spec, Operation):
        return None
    if mask.ndim <= layer.axis:  # only of the further axes
        return mask if layer.passes_mask(True) else None
    if spec.ends_mask or (isinstance(spec, Recurrent) and not spec.return_sequences):
        return None
    return np.flip(mask, layer.axis) if isinstance(spec, Flip) and spec.mask else mask


def plain(call: Call) -> list[Array]:
    """Run one layer as its spec says."""
    spec = call.spec
    if isinstance(spec, Recurrent):
        return _recur(spec, call)
    if isinstance(spec, Attending):
        query_mask, value_mask = (*call.masks, None, None)[:2]
        return reference.attend(
            spec, call.weights, call.value, *call.others, query_mask=query_mask, value_mask=value_mask
        )
    if spec.cell:
        made = reference.run(spec, call.weights, call.value).output
        assert isinstance(made, np.ndarray)
        return [made]
    if isinstance(spec, Masking):
        return [call.value * (call.value != spec.mask_value).any(-1, keepdims=True)]
    if isinstance(spec, Activation):
        with np.errstate(all="ignore"):
            return [reference.activation_function(spec.activation)(np.asarray(call.value, np.float64))]
    if isinstance(spec, Rescale):
        factor, offset = np.asarray(spec.factor), np.asarray(spec.offset)
        return [(call.value + offset) * factor if spec.offset_first else call.value * factor + offset]
    if isinstance(spec, Merge):
        parts = [call.value, *call.others]
        if spec.merge in ("max", "min", "mul"):
            return [_joined_under_masks(spec, parts, call.masks or [None] * len(parts))]
        return [JOINED[spec.merge](parts, spec.axis)]
    if isinstance(spec, Operation):
        return [_operated(spec, [call.value, *call.others])]
    if isinstance(spec, Softmax):
        return [_softmaxed(spec, call.value, call.mask)]
    if isinstance(spec, Dot):
        return [_dotted(spec, call.value, call.others[0])]
    if isinstance(spec, Flip):
        return [call.value[:, ::-1]] if spec.values else [call.value]
    if type(spec) in MOVED:
        return [MOVED[type(spec)](spec, call.value, call.mask)]
    return [call.value]


def _operated(spec: Operation, read: Sequence[Array]) -> Array:
    name = spec.function
    values = [np.asarray(each) for each in spec.arguments(read)]
    if name in ("subtract", "negative", "sqrt", "exp", "log"):  # NumPy has none of booleans, or in half precision
        values = [each.astype(np.int64) if each.dtype == np.bool_ else each for each in values]
    made: Any
    if name == "get_item":
        entries = (None if each == "new" else slice(*each) if isinstance(each, tuple) else each for each in spec.key)
        made = read[0][(slice(None), *entries)]
    elif name in ACTIVATIONS:
        axis = spec.axis[0] if spec.axis else -1
        turned = np.moveaxis(np.asarray(read[0], np.float64), axis, -1)
        made = np.moveaxis(reference.activation_function(name)(turned), -1, axis)
    elif name in ("argmax", "argmin"):
        made = getattr(np, name)(read[0], spec.axis[0], keepdims=spec.keep)
    elif name in OVER:
        made = getattr(np, name)(read[0], spec.axis, keepdims=spec.keep)
    elif name in ("concatenate", "stack"):
        made = getattr(np, name)(values, spec.axis[0])
    elif name in ("cumsum", "cumprod"):
        made = getattr(np, name)(values[0], spec.axis[0])
    elif spec.axis:
        made = getattr(np, name)(read[0], spec.axis)
    elif name in ("float", "int", "bool"):
        made = read[0].astype({"float": np.float64, "int": np.int64, "bool": np.bool_}[name])
    else:
        with np.errstate(all="ignore"):
            made = getattr(np, name)(*values)
    return np.asarray(made)


SHORTEST = 1e-7
"""The least length that a vector is divided by (``keras.config.epsilon()``)."""


def _softmaxed(spec: Softmax, value: Array, mask: Array | None) -> Array:
    value = np.asarray(value, np.float64)
    value = value if mask is None else np.where(mask, value, -1e9)
    shares = np.exp(value - value.max(spec.axis, keepdims=True))
    shares /= shares.sum(spec.axis, keepdims=True)
    return shares if mask is None else np.where(mask, shares, 0)


def _dotted(spec: Dot, first: Array, second: Array) -> Array:
    if spec.normalize:
        lengths = [
            np.sqrt(np.square(value).sum(axis, keepdims=True))
            for value, axis in zip((first, second), spec.axes, strict=True)
        ]
        first, second = (
            value / np.maximum(length, SHORTEST) for value, length in zip((first, second), lengths, strict=True)
        )
    made: Array = np.einsum(spec.equation(first.ndim, second.ndim), first, second)
    return made if made.ndim > 1 else made[:, None]


def _pooled(spec: Pool, value: Array, mask: Array | None) -> Array:
    axes = tuple(range(1, 1 + spec.axes))
    if spec.size is None and spec.pool == "mean" and spec.axes == 1 and mask is not None:
        counts = np.expand_dims(mask, -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            made: Array = np.where(counts, value, 0).sum(1, keepdims=True) / counts.sum(1, keepdims=True)
    else:
        sizes = value.shape[1:-1]
        steps, before, _ = zip(*(window(spec, size, axis) for axis, size in enumerate(sizes)), strict=True)
        made = np.empty((len(value), *steps, value.shape[-1]))
        for place in np.ndindex(*steps):
            starts = [at * moves - pad for at, (_, moves), pad in zip(place, spec.windows, before, strict=True)]
            reaches = [reach or size for (reach, _), size in zip(spec.windows, sizes, strict=True)]
            seen = [slice(max(0, start), start + reach) for start, reach in zip(starts, reaches, strict=True)]
            each = value[:, *seen]
            made[:, *place] = each.max(axes) if spec.pool == "max" else each.mean(axes)
    return made if spec.size is not None or spec.keep else np.squeeze(made, axes)


def _upsampled(spec: Upsample, value: Array, _: Array | None) -> Array:
    for axis, times in enumerate(per_axis(spec.times, spec.axes)):
        value = np.repeat(value, times, 1 + axis)
    return value


MOVED: dict[type[Spec], Callable[[Any, Array, Array | None], Array]] = {
    Pool: _pooled,
    Reshape: lambda spec, value, _: value.reshape(len(value), *spec.shape),
    Permute: lambda spec, value, _: np.transpose(value, (0, *spec.order)),
    Repeat: lambda spec, value, _: np.repeat(value[:, None], spec.times, 1),
    Pad: lambda spec, value, _: np.pad(value, ((0, 0), *spec.pairs, (0, 0))),
    Upsample: _upsampled,
}
"""What kinds without weights make of their input, and of the mask on it."""


JOINED: dict[str, Callable[[Sequence[Array], int], Array]] = {
    "concat": np.concatenate,
    "sum": lambda parts, _: functools.reduce(np.add, parts),
    "ave": lambda parts, _: functools.reduce(np.add, parts) / len(parts),
    "sub": lambda parts, _: parts[0] - parts[1],
}
"""Word of ``Merge`` → what it does to arrays, where masks play no part."""


def _joined_under_masks(spec: Merge, parts: Sequence[Array], masks: Sequence[Array | None]) -> Array:
    whole = [None if mask is None else np.expand_dims(mask, -1) for mask in masks]
    if spec.merge == "mul":
        counted = (part if mask is None else np.where(mask, part, 1) for part, mask in zip(parts, whole, strict=True))
        made = functools.reduce(np.multiply, counted)
        known = [mask for mask in whole if mask is not None]
        return np.asarray(np.where(np.logical_or.reduce(known), made, 0) if len(known) == len(parts) else made)
    join: Callable[..., Array] = np.maximum if spec.merge == "max" else np.minimum
    made, behind = parts[0], whole[0]
    for part, mask in zip(parts[1:], whole[1:], strict=True):
        taken = part if mask is None else np.where(mask, part, made)
        made = join(made if behind is None else np.where(behind, made, taken), taken)
        behind = None if mask is None or behind is None else behind | mask
    return made


def _recur(spec: Recurrent, call: Call) -> list[Array]:
    kinds = 2 if spec.cell == "lstm" else 1
    start = None if call.states is None else [np.stack(call.states[kind::kinds]) for kind in range(kinds)]
    made = reference.run(
        spec,
        call.weights,
        call.value,
        state=start,
        mask=call.mask,
        zero_output_for_mask=spec.zero_output_for_mask,
    )
    outputs = list(made.output) if isinstance(made.output, tuple) else [made.output]
    if spec.return_state:
        outputs += [kind[place] for place in range(spec.directions) for kind in made.states]
    assert len(outputs) == len(outputs_of(spec))
    return outputs
