"""Runs two sides on the same inputs and compares every output; plants mistakes to see whether it would have noticed.

A comparison that cannot fail proves nothing: dead relus, a single step from a zero state or a softmax over one unit
give equal outputs whatever the weights. So each mistake that ports are known for is planted in a copy, and where one of
them would have moved the outputs too little, the verdict is *inconclusive*.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gatewise.core.layout import CANONICAL, GATES
from gatewise.core.plan import plan
from gatewise.core.spec import Embedding, Input, Layer, Network, Recurrent, Spec, outputs_of, source_of
from gatewise.errors import SpecError
from gatewise.registry import ModelAdapter, layout, owner

FLOOR = 1e-5
"""Smallest tolerance of a float32 comparison, relative to the largest output (at least 1)."""

NOISES = 20
"""How many times the source's own rounding a difference may be."""

LOUD = 1e-3
"""Rounding above which float32 cannot decide, and float64 does."""

DOUBLE = 1e-11
"""Tolerance of a float64 comparison."""

SEEN = 100
"""How many tolerances a planted mistake must move the outputs by."""

LENGTHS = (7, 4)
BATCHES = (3, 1)


class OutputParity(NamedTuple):
    """One output of both sides.

    Attributes:
        name: Layer and output.
        shape: Its shape in the first trial.
        max_abs: The largest absolute difference over all trials.
        max_rel: That difference relative to the value there.
        where: Its index, batch first.
        tolerance: What it may be.
        passed: Whether it is no more than that, and non-finite values stand at the same places.
    """

    name: str
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    where: tuple[int, ...]
    tolerance: float
    passed: bool


class Planted(NamedTuple):
    """A mistake that was planted in a copy, and how far it moved the outputs, in tolerances."""

    layer: str
    mistake: str
    moved: float


class Trial(NamedTuple):
    """One run of both sides.

    Attributes:
        inputs: One array for each input, batch first.
        states: Initial states, where both sides take them.
        free: Whether copies that take any length run it: one step from a zero state would hide the recurrent kernel.
    """

    inputs: list[np.ndarray]
    states: list[np.ndarray] | None = None
    free: bool = False

    def text(self) -> str:
        """Say what was fed."""
        text = ", ".join(str(array.shape) for array in self.inputs)
        text += " with random initial states" if self.states is not None else ""
        return text + (" to copies that take any length" if self.free else "")


@dataclass(frozen=True)
class Parity:
    """What came out of a comparison.

    Attributes:
        verdict: ``"passed"``, ``"failed"`` or ``"inconclusive"``.
        outputs: One for each output.
        tolerance: The relative tolerance: a difference passes below it times the largest output (at least 1).
        why: Where the tolerance comes from, in words.
        dtype: The type that the outputs were compared in.
        seed: Seed of the inputs.
        trials: What was fed, a text each.
        planted: The mistakes that were planted.
        advice: What to do where it did not pass, and what was not tried.
        diagnosis: What would bring the two together, where they differ.
    """

    verdict: str
    outputs: tuple[OutputParity, ...]
    tolerance: float
    why: str
    dtype: str
    seed: int
    trials: tuple[str, ...]
    planted: tuple[Planted, ...]
    advice: tuple[str, ...]
    diagnosis: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Say whether the verdict is ``passed``."""
        return self.verdict == "passed"

    def __str__(self) -> str:
        from gatewise.report.reports import verifying
        from gatewise.report.tables import render

        return render(verifying(self), "plain")


class Side(NamedTuple):
    """One object of a comparison, with its adapter and what it is."""

    framework: str
    adapter: ModelAdapter
    obj: Any
    network: Network

    def twin(self, dtype: str) -> Side:
        """Return a copy that shares nothing, in a type of numbers."""
        return self._copy(self.network, dtype)

    def freed(self, dtype: str) -> Side:
        """Return a copy, in a type of numbers, that takes any length and any batch."""
        layers = [dataclasses.replace(layer, spec=_free(layer.spec)) for layer in self.network.layers]
        return self._copy(Network(tuple(layers), self.network.outputs), dtype)

    def _copy(self, network: Network, dtype: str) -> Side:
        adapter, natives = self.adapter, self.adapter.natives(self.obj)
        made, own = adapter.assemble(network, dtype=dtype, form=adapter.form(self.obj))
        for layer in network.weighted:
            adapter.write(own[layer.name], adapter.read(natives[layer.name]))
        return self._replace(obj=made)

    def run(self, trial: Trial) -> list[np.ndarray]:
        """Return all outputs of a trial."""
        return self.adapter.call(self.obj, trial.inputs, trial.states)

    def run_all(self, trials: Sequence[Trial], dtype: str) -> list[list[np.ndarray]]:
        """Return all outputs of some trials; those for a free copy are run by one."""
        free = self.freed(dtype) if any(trial.free for trial in trials) else self
        return [(free if trial.free else self).run(trial) for trial in trials]

    def takes_states(self) -> bool:
        """Say whether initial states can be given."""
        return self.adapter.takes_states(self.obj)


def _free(spec: Spec) -> Spec:
    """Return an input whose timesteps and batch are free; other layers as they are."""
    if not isinstance(spec, Input) or len(spec.shape) < (1 if spec.integer else 2):
        return spec
    return spec.replace(shape=(None, *spec.shape[1:]), batch=None)


def side(obj: Any) -> Side:
    """Return one side of a comparison: a live object, or the file of one."""
    if isinstance(obj, str | Path):
        from gatewise.live import load

        obj = load(obj)
    name, adapter = owner(obj)
    return Side(name, adapter, obj, adapter.describe(obj))


def verify(a: Any, b: Any, *, seed: int = 0, inputs: Sequence[np.ndarray] | np.ndarray | None = None) -> Parity:
    """Compare two live objects, or files of them; see ``gatewise.verify``."""
    first, second = side(a), side(b)
    random = np.random.default_rng(seed)
    trials, notes = make_trials(first, second, random, inputs)
    with np.errstate(all="ignore"):
        return _compare(first, second, trials, notes, seed, random, given=inputs is not None)


def _compare(
    first: Side,
    second: Side,
    trials: list[Trial],
    notes: list[str],
    seed: int,
    random: np.random.Generator,
    given: bool,
) -> Parity:
    dtype = first.adapter.dtype_of(first.obj)
    ours = first.run_all(trials, dtype)
    tolerance, why = DOUBLE, f"{DOUBLE:g}: both compute in float64"
    if dtype != "float64":
        noise, whose = _noise(first, second, trials, ours)
        tolerance, why = max(FLOOR, NOISES * noise), f"the larger of {FLOOR:g} and {NOISES} × {noise:.1e}, {whose}"
        if noise > LOUD and _doubles(first) and _doubles(second):
            first, second, dtype = first.twin("float64"), second.twin("float64"), "float64"
            ours = first.run_all(trials, dtype)
            tolerance, why = DOUBLE, f"{DOUBLE:g} in float64: float32 rounds by {noise:.1e} here and cannot decide"
    theirs = second.run_all(trials, second.adapter.dtype_of(second.obj))
    names = [
        f"{name}.{outputs_of(first.network[name].spec)[number]}"
        for name, number in map(source_of, first.network.results)
    ]
    if [array.shape for array in ours[0]] != [array.shape for array in theirs[0]]:
        return _unlike(names, ours[0], theirs[0], tolerance, why, dtype, seed, trials)
    outputs = tuple(_output(names[at], at, ours, theirs, tolerance) for at in range(len(ours[0])))
    passed = all(output.passed for output in outputs)
    planted: tuple[Planted, ...] = ()
    if passed:
        planted = _plant(second, dtype, trials, tolerance, random, given)
    unseen = [each for each in planted if not each.moved >= SEEN]
    verdict = "failed" if not passed else "inconclusive" if unseen else "passed"
    if unseen:
        notes = [*notes, *_advice(unseen, trials)]
    return Parity(
        verdict, outputs, tolerance, why, dtype, seed, tuple(trial.text() for trial in trials), planted, tuple(notes)
    )


def make_trials(
    first: Side,
    second: Side,
    random: np.random.Generator,
    inputs: Sequence[np.ndarray] | np.ndarray | None,
    scale: float = 1.0,
) -> tuple[list[Trial], list[str]]:
    """Return what to feed: several batch sizes and lengths and random states where both sides allow it."""
    sources = [layer for layer in first.network.layers if isinstance(layer.spec, Input)]
    if inputs is not None:
        arrays = [np.asarray(array) for array in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
        if len(arrays) != len(sources):
            raise SpecError(
                f"{len(arrays)} inputs for {len(sources)}.",
                f"The network reads {', '.join(layer.name for layer in sources)}.",
                "Give one array for each.",
            )
        return [Trial(arrays)], []
    notes: list[str] = []
    sizes = list(zip(BATCHES, LENGTHS, strict=True))

    def drawn(batch: int, length: int, *, free: bool) -> Trial:
        specs = [_free(source.spec) if free else source.spec for source in sources]
        return Trial([_draw(spec, first.network, random, batch, length, scale) for spec in specs], free=free)

    trials = [drawn(*size, free=False) for size in sizes]
    if any(_free(source.spec) != source.spec for one in (first, second) for source in one.network.layers):
        trials += [drawn(*size, free=True) for size in sizes]
    if first.takes_states() and second.takes_states():
        trials.append(trials[0]._replace(states=_states(first.network, random, BATCHES[0])))
    elif any(isinstance(layer.spec, Recurrent) for layer in first.network.layers):
        notes.append("Initial states were not tried: not both sides take them.")
    return trials, notes


def _draw(
    spec: Spec, network: Network, random: np.random.Generator, batch: int, length: int, scale: float
) -> np.ndarray:
    assert isinstance(spec, Input)
    shape = (spec.batch or batch, *(length if size is None else size for size in spec.shape))
    if not spec.integer:
        return (scale * random.normal(size=shape)).astype(np.float32)
    tables = [layer.spec.tokens for layer in network.layers if isinstance(layer.spec, Embedding)]
    return random.integers(0, min(tables, default=2), shape).astype(np.int32)


def _states(network: Network, random: np.random.Generator, batch: int) -> list[np.ndarray]:
    spec = network.weighted[0].spec
    assert isinstance(spec, Recurrent)
    sizes = [spec.state, spec.units] if spec.cell == "lstm" else [spec.state]
    return [
        random.normal(size=(batch, size)).astype(np.float32)
        for _ in range(spec.layers * spec.directions)
        for size in sizes
    ]


def _doubles(one: Side) -> bool:
    return bool(one.adapter.computes_in_double())


def _noise(first: Side, second: Side, trials: list[Trial], ours: list[list[np.ndarray]]) -> tuple[float, str]:
    """Return how far float32 rounds, relative to the largest output: the source's own run against its float64 run."""
    whose = "the source's own rounding (float32 against its float64 run)"
    exact = first
    if not _doubles(first):
        exact, whose = second, "the rounding of float32 (the other side's float64 run: the source has none)"
    if not _doubles(exact):
        return 0.0, "no float64 run here to measure the rounding with"
    reference = exact.twin("float64").run_all(trials, "float64")
    if exact is not first:
        ours = exact.run_all(trials, exact.adapter.dtype_of(exact.obj))
    noise = 0.0
    for here, there in zip(itertools.chain(*ours), itertools.chain(*reference), strict=True):
        finite = np.isfinite(here) & np.isfinite(there)
        if finite.any():
            noise = max(noise, float(np.abs(here - there)[finite].max()) / _size(there))
    return noise, whose


def _size(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return max(1.0, float(finite.max())) if finite.size else 1.0


def _output(
    name: str, at: int, ours: list[list[np.ndarray]], theirs: list[list[np.ndarray]], tolerance: float
) -> OutputParity:
    """Compare one output over all trials; report the trial that is furthest off."""
    worst: OutputParity | None = None
    for mine, yours in zip(ours, theirs, strict=True):
        here, there = mine[at].astype(np.float64), yours[at].astype(np.float64)
        allowed = tolerance * _size(here)
        same_places = bool((np.isfinite(here) == np.isfinite(there)).all())
        difference = np.where(np.isfinite(here) & np.isfinite(there), np.abs(here - there), 0.0)
        where = (
            tuple(int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
            if difference.size
            else ()
        )
        largest = float(difference[where]) if difference.size else 0.0
        relative = largest / max(abs(float(here[where])), 1e-30) if difference.size and largest else 0.0
        passed = same_places and largest <= allowed
        found = OutputParity(name, ours[0][at].shape, largest, relative, where, allowed, passed)
        if worst is None or (not passed, largest / allowed) > (not worst.passed, worst.max_abs / worst.tolerance):
            worst = found
    assert worst is not None
    return worst


def _unlike(
    names: list[str],
    ours: list[np.ndarray],
    theirs: list[np.ndarray],
    tolerance: float,
    why: str,
    dtype: str,
    seed: int,
    trials: list[Trial],
) -> Parity:
    mine, yours = (", ".join(str(array.shape) for array in side) for side in (ours, theirs))
    outputs = tuple(
        OutputParity(name, array.shape, float("inf"), float("inf"), (), tolerance, False)
        for name, array in zip(names, ours, strict=False)
    )
    advice = (f"The outputs differ in shape: {mine} here, {yours} there. Do both return sequences and states alike?",)
    return Parity("failed", outputs, tolerance, why, dtype, seed, tuple(trial.text() for trial in trials), (), advice)


# ── planted mistakes ────────────────────────────────────────────────────────────────────────────────────────────


def mistakes(layer: Layer, weights: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each mistake that a port may make in one layer: its name, and canonical weights that have it.

    A mistake that changes no weight is none, and is left out.
    """
    gates = GATES[layer.spec.cell]
    for (i, one), (j, other) in itertools.combinations(enumerate(gates), 2):
        order = list(range(len(gates)))
        order[i], order[j] = j, i
        swapped = {
            name: array[order] if array.shape[0] == len(gates) and array.ndim > 1 else array
            for name, array in weights.items()
        }
        yield f"gates {one} and {other} exchanged", swapped
    dropped = {name: np.zeros_like(array) if "bias" in name else array for name, array in weights.items()}
    if any(dropped[name].any() != weights[name].any() for name in weights):
        yield "bias dropped", dropped
    for part in ("recurrent_kernel",):
        turned = {
            name: array.swapaxes(-1, -2) if name.endswith(part) and array.shape[-1] == array.shape[-2] else array
            for name, array in weights.items()
        }
        yield f"{part.replace('_', ' ')} transposed", turned


def _plant(
    second: Side, dtype: str, trials: list[Trial], tolerance: float, random: np.random.Generator, given: bool
) -> tuple[Planted, ...]:
    """Plant each mistake in a copy and see how far it moves the outputs; try stronger inputs where it is too little."""
    natives = second.adapter.natives(second.obj)
    # Where a free copy was compared it is the one to plant in: it sees at least what the other sees.
    free = [trial for trial in trials if trial.free]
    copy, tried = (second.freed(dtype), free) if free else (second.twin(dtype), trials)
    own = copy.adapter.natives(copy.obj)
    planted = []
    clean = [copy.run(trial) for trial in tried]
    for layer in second.network.weighted:
        there = layout(second.framework, layer.spec)
        right = copy.adapter.read(own[layer.name])
        canonical = CANONICAL[layer.spec.cell]
        weights = plan(layer.spec, there, canonical).apply(second.adapter.read(natives[layer.name]))
        for name, wrong in mistakes(layer, weights):
            if all(np.array_equal(wrong[part], weights[part]) for part in weights):
                continue
            copy.adapter.write(own[layer.name], plan(layer.spec, canonical, there).apply(wrong))
            moved = _moved(copy, tried, clean, tolerance)
            scale = 1.0
            while moved < SEEN and not given and scale < 10:
                scale *= 4
                stronger = make_trials(copy, copy, random, None, scale)[0][0]
                copy.adapter.write(own[layer.name], right)
                calm = copy.run(stronger)
                copy.adapter.write(own[layer.name], plan(layer.spec, canonical, there).apply(wrong))
                moved = max(moved, _moved(copy, [stronger], [calm], tolerance))
            planted.append(Planted(layer.name, name, moved))
        copy.adapter.write(own[layer.name], right)
    return tuple(planted)


def _moved(copy: Side, trials: list[Trial], clean: list[list[np.ndarray]], tolerance: float) -> float:
    """Return how far a mistake moves the outputs, in tolerances."""
    moved = 0.0
    for trial, before in zip(trials, clean, strict=True):
        for was, now in zip(before, copy.run(trial), strict=True):
            same = np.isfinite(was) & np.isfinite(now)
            if not same.all() and (np.isfinite(was) != np.isfinite(now)).any():
                return float("inf")
            if same.any():
                moved = max(moved, float(np.abs(was - now)[same].max()) / (tolerance * _size(was)))
    return moved


def _advice(unseen: list[Planted], trials: list[Trial]) -> list[str]:
    worst = min(unseen, key=lambda each: each.moved)
    told = (
        f"{len(unseen)} planted mistakes would not have been seen, such as {worst.mistake} in {worst.layer!r}: "
        f"it moves the outputs by {worst.moved:.2g} tolerances, and {SEEN} are needed."
    )
    steps = max((array.shape[1] for trial in trials for array in trial.inputs if array.ndim > 1), default=1)
    deciding = "Give inputs that the model was made for (inputs=…): real samples"
    deciding += (
        ", and more than one step, or the recurrent kernel plays no part."
        if steps == 1
        else ", at which its outputs differ from each other."
    )
    return [told, deciding]
