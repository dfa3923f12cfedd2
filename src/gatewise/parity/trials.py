"""Which inputs are fed: several batch sizes and lengths, initial states, masked steps, what a model was made for."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from gatewise.core.between import TESTS, Dropout, Input, Masking, Noise, Operation, Pool, Rescale
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.shapes import shapes
from gatewise.core.spec import Conv, Embedding, Recurrent, Spec
from gatewise.errors import SpecError
from gatewise.parity.inputs import first_rows
from gatewise.parity.subject import Side, Trial, free_lengths

LENGTHS = (7, 4)
BATCHES = (3, 1)

LONGEST = 1000
"""How many steps are fed at most to layers that make one step of several."""


def make_trials(
    first: Side,
    second: Side,
    random: np.random.Generator,
    inputs: list[np.ndarray] | None,
) -> tuple[list[Trial], list[str]]:
    """Return what to feed: several batch sizes and lengths and random states where both sides allow it."""
    sources = [layer for layer in first.network.layers if isinstance(layer.spec, Input)]
    if inputs is not None:
        rows = first_rows(inputs, first.network)
        return [Trial(inputs), *([Trial(rows)] if rows is not None else [])], []
    notes: list[str] = []
    # Where one side alone masks, its inputs show it.
    network = next((one.network for one in (first, second) if _masks(one.network)), first.network)
    if sum(isinstance(layer.spec, Input) for layer in network.layers) != len(sources):
        network = first.network
    free = any(free_lengths(one.network) != one.network for one in (first, second))
    trials = [
        draw_trial(network, random, batch, length, 1.0, free=freed)
        for freed in ((False, True) if free else (False,))
        for batch, length in zip(BATCHES, LENGTHS, strict=True)
    ]
    if first.takes_states() and second.takes_states() and _state_sizes(first.network) == _state_sizes(second.network):
        trials.append(trials[0]._replace(states=_states(first.network, random, BATCHES[0])))
    elif any(isinstance(layer.spec, Recurrent) for layer in first.network.layers):
        notes.append("Initial states were not tried: not both sides take them.")
    return trials, notes


def _masks(network: Network) -> bool:
    return any(isinstance(layer.spec, Masking) for layer in network.layers)


def draw_trial(
    network: Network, random: np.random.Generator, batch: int, length: int, scale: float, *, free: bool
) -> Trial:
    """Return random inputs; those for a free copy may have any batch and length."""
    fed = free_lengths(network) if free else network
    length = _long_enough(fed, length)
    sources = [layer for layer in fed.layers if isinstance(layer.spec, Input)]
    return Trial([_draw(source, network, random, batch, length, scale) for source in sources], free=free)


def _long_enough(network: Network, length: int) -> int:
    """Return how many steps to feed, so that recurrent layers behind convolutions and pools read so many."""
    if not any(
        isinstance(layer.spec, Conv | Pool) or (isinstance(layer.spec, Operation) and layer.spec.counts_steps)
        for layer in network.layers
    ):
        return length
    for steps in range(length, LONGEST):
        with contextlib.suppress(SpecError):
            read, more = (list(_steps_read(_of_length(network, fed))) for fed in (steps, 2 * steps))
            if all(here == later or here >= length for here, later in zip(read, more, strict=True)):
                return steps
    tried = itertools.chain(range(length, LONGEST), range(length - 1, 0, -1))  # an operation may fit one number alone
    return next((steps for steps in tried if _fits(_of_length(network, steps))), length)


def _fits(network: Network) -> bool:
    """Say whether each layer can read what comes to it."""
    with contextlib.suppress(SpecError):
        return bool(shapes(network))
    return False


_MOVING = ("get_item", "expand_dims", "squeeze", "flip", "float", "int")
"""Operations that give the numbers that they read."""


def _of_length(network: Network, steps: int) -> Network:
    """Return a network whose inputs have so many steps where they may have any number."""

    def sized(spec: Spec) -> Spec:
        if not isinstance(spec, Input):
            return spec
        return spec.replace(shape=tuple(steps if size is None else size for size in spec.shape))

    layers = [dataclasses.replace(layer, spec=sized(layer.spec)) for layer in network.layers]
    return Network(tuple(layers), network.outputs)


def _steps_read(network: Network) -> Iterator[int]:
    """Yield how many steps each recurrent layer reads."""
    found = shapes(network)
    for layer in network.layers:
        if isinstance(layer.spec, Recurrent) and layer.inputs and not layer.step:
            name, number = source_of(layer.inputs[0])
            yield found[name][number][1 + layer.distributed] or 0


def _draw(
    source: Layer, network: Network, random: np.random.Generator, batch: int, length: int, scale: float
) -> np.ndarray:
    spec = source.spec
    assert isinstance(spec, Input)
    shape = (spec.batch or batch, *(length if size is None else size for size in spec.shape))
    if spec.boolean:
        return random.random(shape) < 0.7
    tests = _tests(network, source)
    if not spec.integer:
        drawn = _before_scaling(network, source, scale * random.normal(size=shape)).astype(np.float32)
        for layer in network.layers:
            if isinstance(layer.spec, Masking) and source.name in layer.inputs and drawn.ndim > 2:
                # The end of the first sequence is masked, and a step inside the last.
                drawn[0, shape[1] - shape[1] // 3 :] = drawn[-1, shape[1] // 2] = layer.spec.mask_value
        for test in tests if drawn.ndim > 1 else ():
            for number in test.numbers[:1]:
                drawn[0, shape[1] - shape[1] // 3 :] = drawn[-1, shape[1] // 2] = number
        return drawn
    tables = [layer.spec.tokens for layer in network.layers if isinstance(layer.spec, Embedding)]
    highest = max((int(number) for test in tests for number in test.numbers), default=0)
    return random.integers(0, min(tables, default=max(2, highest + 2)), shape).astype(np.int32)


def _before_scaling(network: Network, source: Layer, numbers: np.ndarray) -> np.ndarray:
    """Return what gives such numbers behind the layer that standardises or rescales an input, where there is one."""
    same = {source.name}
    for layer in network.layers:
        spec = layer.spec
        if same.issuperset(layer.inputs) and layer.inputs:
            if isinstance(spec, Rescale):
                factor, offset = np.asarray(spec.factor), np.asarray(spec.offset)
                factor = np.where(factor == 0, 1, factor)
                return np.asarray(numbers / factor - offset if spec.offset_first else (numbers - offset) / factor)
            if isinstance(spec, Masking | Noise | Dropout):
                same.add(layer.name)
    return numbers


def _tests(network: Network, source: Layer) -> list[Operation]:
    """Return the comparisons of what an input holds, also of a part of it or in another shape."""
    same, found = {source.name}, []
    for layer in network.layers:
        if isinstance(layer.spec, Operation) and same.issuperset(layer.inputs):
            if layer.spec.function in TESTS:
                found.append(layer.spec)
            elif layer.spec.function in _MOVING:
                same.add(layer.name)
    return found


def _state_sizes(network: Network) -> list[int]:
    """Return the size of each state that the first layer starts from."""
    spec = network.weighted[0].spec
    assert isinstance(spec, Recurrent)
    return spec.layers * spec.directions * ([spec.state, spec.units] if spec.cell == "lstm" else [spec.state])


def _states(network: Network, random: np.random.Generator, batch: int) -> list[np.ndarray]:
    return [random.normal(size=(batch, size)).astype(np.float32) for size in _state_sizes(network)]
