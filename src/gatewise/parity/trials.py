"""Which inputs are fed: several batch sizes and lengths, padded rows, states, what a model was made for."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gatewise.core.between import TESTS, Dropout, Flip, Input, Masking, Noise, Operation, Pool, Rescale, Softmax
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.shapes import run_size, shapes
from gatewise.core.spec import Attending, Conv, Embedding, Recurrent, Spec
from gatewise.errors import SpecError
from gatewise.parity.inputs import first_rows
from gatewise.parity.subject import Side, Trial, free_lengths

LENGTHS = (7, 4)
BATCHES = (3, 1)

LONGEST = 20_000
"""How many steps are fed at most to layers that make one step of several."""

PADDED = (("end", "", "middle"), ("start",), ("full", "start", "end"))
"""Which steps of each row are padded, in each trial, again from the first where there are more rows."""

Tokens = Mapping[int, Sequence[int]]
"""Place of an input → tokens that have to be fed, as the two sides have other rows for them."""


class Fed(NamedTuple):
    """One input of both sides.

    Attributes:
        name: Its name in the first network.
        spec: What both can read.
        sources: The layer in each network.
        marks: The numbers that stand for padding, on either side.
    """

    name: str
    spec: Input
    sources: tuple[tuple[Network, Layer], ...]
    marks: tuple[np.ndarray, ...]


class Feeding:
    """What is fed to one network, or to two that read alike."""

    def __init__(self, *networks: Network) -> None:
        self.networks = networks
        self.fed = _all_fed(networks)
        layers = [layer for network in networks for layer in network.layers]
        self.masks = any(each.marks for each in self.fed)
        # Where no step counts, shares are those of rounding, and a mean is none.
        self.full = not any(
            isinstance(layer.spec, Attending | Softmax)
            or (isinstance(layer.spec, Pool) and layer.spec.pool == "mean" and layer.spec.size is None)
            for layer in layers
        )
        self.stateful = any(isinstance(layer.spec, Recurrent) and layer.spec.stateful for layer in layers)

    @functools.cached_property
    def freed(self) -> tuple[Network, list[Fed]]:
        """The first network as its copy that takes any length, and what such copies read."""
        networks = [free_lengths(network) for network in self.networks]
        return networks[0], _all_fed(networks)

    def draw(
        self,
        random: np.random.Generator,
        batch: int,
        length: int,
        scale: float = 1.0,
        *,
        free: bool = False,
        padding: int = 0,
        again: bool = False,
        tokens: Tokens | None = None,
    ) -> Trial:
        """Return random inputs.

        Args:
            random: Where they come from.
            batch: How many rows, where any number can be.
            length: How many steps, where any number can be; more where layers need them.
            scale: The standard deviation of numbers.
            free: Whether copies run them that may have any batch and length.
            padding: Which rows of ``PADDED`` they have.
            again: Whether there is a call before, for what keeps its states.
            tokens: Tokens that have to be among them.
        """
        network, inputs = self.networks[0], self.fed
        if free:
            network, inputs = self.freed
        length = long_enough(network, length)
        for one in (network,) if free else self.networks:
            _check_run(_of_length(one, length, batch))
        calls = [
            [
                self._draw(each, random, (batch, length, scale), padding, (tokens or {}).get(place, ()))
                for place, each in enumerate(inputs)
            ]
            for _ in range(1 + again)
        ]
        return Trial(calls[-1], free=free, before=calls[0] if again else None)

    def _draw(
        self,
        each: Fed,
        random: np.random.Generator,
        size: tuple[int, int, float],
        padding: int,
        tokens: Sequence[int],
    ) -> np.ndarray:
        spec = each.spec
        batch, length, scale = size
        shape = (spec.batch or batch, *(length if steps is None else steps for steps in spec.shape))
        patterns = PADDED[padding % len(PADDED)]
        if spec.boolean:
            flags = random.random(shape) < 0.7
            for row in range(len(flags)) if self.full and len(shape) > 1 else ():
                flags[row] &= patterns[row % len(patterns)] != "full"
            return np.asarray(flags)
        if spec.integer:
            drawn = _tokens(random, _highest(each), shape)
            drawn.flat[: len(tokens)] = tokens[: drawn.size]
        else:
            drawn = scale * random.normal(size=shape)
            for network, source in each.sources[:1]:
                drawn = _before_scaling(network, source, drawn)
            drawn = drawn.astype(np.float32)
        axes = drawn.ndim - 1 if spec.integer or drawn.ndim < 3 else drawn.ndim - 2  # those of steps
        for row in range(len(drawn)) if each.marks and axes > 0 and not tokens else ():
            pattern, mark = patterns[row % len(patterns)], each.marks[row % len(each.marks)]
            _pad(drawn[row], pattern if self.full or pattern != "full" else "end", mark, axes)
        return drawn


def _all_fed(networks: Sequence[Network]) -> list[Fed]:
    """Return the inputs of several networks, side by side."""
    inputs = [[layer for layer in network.layers if isinstance(layer.spec, Input)] for network in networks]
    return [_fed([*zip(networks, layers, strict=True)]) for layers in zip(*inputs, strict=True)]


def _fed(sources: Sequence[tuple[Network, Layer]]) -> Fed:
    """Return an input of several networks: of lengths that one knows, those; and all numbers that stand for padding."""
    specs = [layer.spec for _, layer in sources]
    spec = specs[0]
    assert isinstance(spec, Input)
    for other in specs[1:]:
        assert isinstance(other, Input)
        if len(other.shape) == len(spec.shape):
            shape = tuple(one or another for one, another in zip(spec.shape, other.shape, strict=True))
            spec = spec.replace(shape=shape, batch=spec.batch or other.batch)
            assert isinstance(spec, Input)
    marks = [mark for network, layer in sources for mark in _marks(network, layer)]
    return Fed(sources[0][1].name, spec, tuple(sources), tuple(marks))


def _pad(row: np.ndarray, pattern: str, mark: np.ndarray, axes: int) -> None:
    """Put what stands for padding into the steps of one row: those of its first axis, and within each of the next."""
    steps = len(row)
    if pattern == "full":
        row[:] = mark
    elif pattern == "end":
        row[steps - steps // 3 :] = mark
    elif pattern == "start":
        row[: steps // 3] = mark
    elif pattern == "middle" and steps > 1:
        row[steps // 2] = mark
    for within in row if axes > 1 and pattern else ():
        _pad(within, pattern if pattern != "full" else "", mark, axes - 1)


def _tokens(random: np.random.Generator, highest: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return tokens, as many different ones as there is room for."""
    size = int(np.prod(shape))
    if highest > 20 * size:
        return random.integers(0, highest, shape).astype(np.int32)
    drawn = np.concatenate([random.permutation(highest) for _ in range(1 + size // highest)])
    return drawn[:size].reshape(shape).astype(np.int32)


def _highest(each: Fed) -> int:
    """Return below which number tokens are drawn."""
    layers = [layer for network, _ in each.sources for layer in network.layers]
    tables = [layer.spec.tokens for layer in layers if isinstance(layer.spec, Embedding)]
    tests = [test for network, source in each.sources for test in _tests(network, source)]
    highest = max((int(number) for test in tests for number in test.numbers), default=0)
    return min(tables, default=max(2, highest + 2))


def make_trials(
    first: Side,
    second: Side,
    random: np.random.Generator,
    inputs: list[np.ndarray] | None,
    tokens: Tokens | None = None,
) -> tuple[list[Trial], list[str]]:
    """Return what to feed: several batch sizes and lengths and random states where both sides allow it.

    Args:
        first: One side.
        second: The other.
        random: Where numbers come from.
        inputs: What the caller gave, or None.
        tokens: Tokens that have to be fed.
    """
    if inputs is not None:
        rows = first_rows(inputs, first.network)
        return [Trial(inputs), *([Trial(rows)] if rows is not None else [])], []
    notes: list[str] = []
    feeding = Feeding(first.network, second.network)
    free = any(free_lengths(one.network) != one.network for one in (first, second))
    trials = [
        feeding.draw(random, batch, length, free=freed, padding=number)
        for freed in ((False, True) if free else (False,))
        for number, (batch, length) in enumerate(zip(BATCHES, LENGTHS, strict=True))
    ]
    if feeding.masks:
        trials.append(feeding.draw(random, BATCHES[0], LENGTHS[0], padding=2))
    if feeding.stateful:
        trials.append(feeding.draw(random, BATCHES[0], LENGTHS[0], again=True))
    if tokens:
        trials.append(feeding.draw(random, BATCHES[0], LENGTHS[0], tokens=tokens))
    if first.takes_states() and second.takes_states() and _state_sizes(first.network) == _state_sizes(second.network):
        trials.append(trials[0]._replace(states=_states(first.network, random, len(trials[0].inputs[0]))))
    elif any(isinstance(layer.spec, Recurrent) for layer in first.network.layers):
        notes.append("Initial states were not tried: not both sides take them.")
    return trials, notes


def draw_trial(network: Network, random: np.random.Generator, batch: int, length: int) -> Trial:
    """Return random inputs of one network."""
    return Feeding(network).draw(random, batch, length)


MOST_NUMBERS = 1 << 27
"""Numbers that the layers may give in one run: 512 MiB, as float32, were all of them kept."""

MOST_STEPS = 200_000
"""Steps that one run may go through one by one; each takes some twenty microseconds, and there are dozens of runs."""


def _check_run(network: Network) -> None:
    """Refuse to feed a network whose run would take more memory or time than there is, by its shapes alone."""
    numbers, steps = run_size(network)
    if numbers > MOST_NUMBERS or steps > MOST_STEPS:
        what = f"{numbers:,} numbers" if numbers > MOST_NUMBERS else f"{steps:,} steps, one by one"
        raise SpecError(
            f"One run of this model would take {what}.",
            f"A comparison runs models of up to {MOST_NUMBERS:,} numbers and {MOST_STEPS:,} steps.",
            "Compare a model of smaller lengths with the same layers.",
        )


def long_enough(network: Network, length: int) -> int:
    """Return how many steps to feed, so that recurrent layers behind convolutions and pools read so many, or a few."""
    if not any(
        isinstance(layer.spec, Conv | Pool) or (isinstance(layer.spec, Operation) and layer.spec.counts_steps)
        for layer in network.layers
    ):
        return length
    tried = list(range(length, 10 * length))
    while tried[-1] < LONGEST:
        tried.append(tried[-1] + 1 + tried[-1] // 8)
    far = next((read for steps in reversed(tried) if (read := _read_of(network, steps)) is not None), [])
    reads: dict[int, list[int] | None] = {}
    for goal in sorted({length, min(length, 3), min(length, 2)}, reverse=True):
        for steps in tried:
            if steps not in reads:
                reads[steps] = _read_of(network, steps)
            read = reads[steps]
            if read is not None and all(here == most or here >= goal for here, most in zip(read, far, strict=True)):
                return int(steps)
    # An operation may fit one number alone.
    return next((steps for steps in [*tried, *range(length - 1, 0, -1)] if _fits(_of_length(network, steps))), length)


def _read_of(network: Network, steps: int) -> list[int] | None:
    """Return how many steps each recurrent layer reads where so many are fed, or None where they do not fit."""
    with contextlib.suppress(SpecError):
        return list(_steps_read(_of_length(network, steps)))
    return None


def _fits(network: Network) -> bool:
    """Say whether each layer can read what comes to it."""
    with contextlib.suppress(SpecError):
        return bool(shapes(network))
    return False


_MOVING = ("get_item", "expand_dims", "squeeze", "flip", "float", "int")
"""Operations that give the numbers that they read."""


def _of_length(network: Network, steps: int, batch: int | None = None) -> Network:
    """Return a network whose inputs have so many steps, and samples, where they may have any number."""

    def sized(spec: Spec) -> Spec:
        if not isinstance(spec, Input):
            return spec
        shape = tuple(steps if size is None else size for size in spec.shape)
        return spec.replace(shape=shape, batch=spec.batch or batch)

    layers = [dataclasses.replace(layer, spec=sized(layer.spec)) for layer in network.layers]
    return Network(tuple(layers), network.outputs)


def _steps_read(network: Network) -> Iterator[int]:
    """Yield how many steps each recurrent layer reads."""
    found = shapes(network)
    for layer in network.layers:
        if isinstance(layer.spec, Recurrent) and layer.inputs and not layer.step:
            name, number = source_of(layer.inputs[0])
            yield found[name][number][1 + layer.distributed] or 0


def _marks(network: Network, source: Layer) -> Iterator[np.ndarray]:
    """Yield the numbers that stand for padding in an input: masked by a layer, or told from the others by a test."""
    same, scaled = {source.name}, False
    for layer in network.layers:
        spec = layer.spec
        if not layer.inputs or not same.issuperset(source_of(each)[0] for each in layer.inputs):
            continue
        if isinstance(spec, Masking):
            mark = np.asarray(spec.mask_value)
            yield _before_scaling(network, source, mark) if scaled else mark
        if isinstance(spec, Embedding) and spec.mask_zero:
            yield np.asarray(0)
        if isinstance(spec, Rescale):
            scaled = True
        moves = isinstance(spec, Operation) and spec.function in _MOVING
        if isinstance(spec, Masking | Noise | Dropout | Rescale | Flip) or moves:
            same.add(layer.name)
    for test in _tests(network, source):
        yield from (np.asarray(number) for number in test.numbers[:1])


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
