"""Runs two sides on the same inputs and compares every output; plants mistakes to see whether it would have noticed.

A comparison that cannot fail proves nothing: dead relus, a single step from a zero state or a softmax over one unit
give equal outputs whatever the weights. So each mistake that ports are known for is planted in a copy, and where one of
them would have moved the outputs too little, the verdict is *inconclusive*.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gatewise.core.between import (
    TESTS,
    Activation,
    Constant,
    Dropout,
    Input,
    Masking,
    Noise,
    Operation,
    Permute,
    Pool,
    Repeat,
    Rescale,
    Reshape,
    Softmax,
)
from gatewise.core.layout import CANONICAL, GATES, gates_of, summed_gates
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.plan import plan
from gatewise.core.shapes import shapes
from gatewise.core.spec import Attention, Conv, Conv1D, Dense, Embedding, Norm, Recurrent, Spec, outputs_of
from gatewise.errors import GatewiseError, SpecError
from gatewise.live import own_layouts, plan_network
from gatewise.registry import ModelAdapter, owner

if TYPE_CHECKING:
    from gatewise.diagnosis import Found
    from gatewise.training import GradientParity, TrainingParity

FLOOR = 1e-5
"""Smallest tolerance of a float32 comparison, relative to the largest output (at least 1)."""

NOISES = 20
"""How many times the source's own rounding a difference may be."""

LOUD = 1e-3
"""Rounding above which float32 cannot decide, and float64 does."""

CHANCE = 1e3
"""How many times what the outputs move by, when weights are rounded to float32, a float32 run may be off."""

DOUBLE = 1e-11
"""Tolerance of a float64 comparison."""

ROUNDED = 2.0**-24
"""Tolerance of float32 objects that are compared in float64: how far float32 rounds a number."""

SEEN = 100
"""How many tolerances a planted mistake must move the outputs by."""

LENGTHS = (7, 4)
BATCHES = (3, 1)

LONGEST = 1000
"""How many steps are fed at most to layers that make one step of several."""

STRONGER = ((32, 9, 1.0), (8, 7, 4.0), (8, 7, 16.0))
"""Batch, length and scale of the inputs that are fed, too, where a planted mistake did not show."""


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
        diagnosis: The mistakes that keep the two apart, where they differ and it is known why.
        gradients: Each tensor's gradient, where gradients were compared.
        training: Some training steps, where they were compared.
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
    diagnosis: tuple[Found, ...] = ()
    gradients: tuple[GradientParity, ...] = ()
    training: TrainingParity | None = None

    @property
    def passed(self) -> bool:
        """Say whether the verdict is ``passed``."""
        return self.verdict == "passed"

    def __str__(self) -> str:
        from gatewise.report.reports import verifying
        from gatewise.report.tables import render

        return render(verifying(self), "plain")

    def _repr_markdown_(self) -> str:
        from gatewise.report.reports import verifying
        from gatewise.report.tables import render

        return render(verifying(self), "github")

    def _repr_html_(self) -> str:
        from gatewise.report.reports import verifying
        from gatewise.report.tables import render

        return render(verifying(self), "html")


class Side(NamedTuple):
    """One object of a comparison, with its adapter and what it is."""

    framework: str
    adapter: ModelAdapter
    obj: Any
    network: Network

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
        return self.rebuilt(_free(self.network), dtype)

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
        """Return all outputs of a trial."""
        return self.adapter.call(self.obj, trial.inputs, trial.states)

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


def _free(network: Network) -> Network:
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


def side(obj: Any) -> Side:
    """Return one side of a comparison: a live object, or the file of one."""
    if isinstance(obj, str | Path):
        from gatewise.live import load

        obj = load(obj)
    name, adapter = owner(obj)
    return Side(name, adapter, obj, adapter.describe(obj))


def verify(
    a: Any,
    b: Any,
    *,
    seed: int = 0,
    inputs: Sequence[np.ndarray] | np.ndarray | None = None,
    gradients: bool = False,
    training_steps: int = 0,
) -> Parity:
    """Compare two live objects, or files of them; see ``gatewise.verify``."""
    if isinstance(training_steps, bool) or not isinstance(training_steps, int) or training_steps < 0:
        raise GatewiseError(
            f"training_steps={training_steps!r} is no number of steps.", "It is a whole number from 0.", "Give 10."
        )
    first, second = side(a), side(b)
    if first.dtype() == "float64" != second.dtype():
        # The second's weights were rounded, so that those of the first have to be, too.
        first = first.twin(second.dtype())
    _check_same_inputs(first.network, second.network)
    random = np.random.default_rng(seed)
    trials, notes = make_trials(first, second, random, inputs)
    with np.errstate(all="ignore"):
        found = Comparison(first, second, trials)
        if found.passed:
            found = _planted(found, random, given=inputs is not None)
        unseen = found.unseen
        if found.passed and unseen:
            parity = found.parity("inconclusive", seed, [*notes, *_advice(unseen, found.trials)])
        else:
            parity = found.parity("passed" if found.passed else "failed", seed, notes)
    if not gradients and not training_steps:
        return parity
    from gatewise.training import extend

    return extend(found, parity, gradients=gradients, steps=training_steps)


def _check_same_inputs(first: Network, second: Network) -> None:
    """Raise ``SpecError`` where two networks do not read the same."""
    ours, theirs = (
        [layer.spec for layer in network.layers if isinstance(layer.spec, Input)] for network in (first, second)
    )
    unlike = len(ours) != len(theirs) or any(
        one.integer != other.integer or (not one.integer and one.shape[-1:] != other.shape[-1:])
        for one, other in zip(ours, theirs, strict=True)
    )
    if unlike:
        raise SpecError(
            f"The two do not read the same: {', '.join(map(str, ours))} here, {', '.join(map(str, theirs))} there.",
            "A comparison feeds both sides alike.",
            "Was the right pair given?",
        )


def _planted(found: Comparison, random: np.random.Generator, *, given: bool) -> Comparison:
    """Plant mistakes in a copy; where some do not show feed more, and then compare in float64.

    What shows a mistake must show it in the port, too: both sides are compared on everything that is fed.
    """
    found.plant()
    for batch, length, scale in () if given else STRONGER:
        if found.unseen:
            found.add_stronger(random, batch, length, scale)
    if found.unseen and found.passed and found.dtype != "float64" and found.first.side.doubles():
        exact = found.in_double(f"float32 would not have shown {_number(len(found.unseen), 'planted mistake')}")
        if exact is not None:
            exact.plant()
            if not exact.passed or not exact.unseen:
                return exact
    return found


class Comparison:
    """Two sides in one type of numbers, and what some trials have shown.

    Attributes:
        first: Runs the source.
        second: Runs what should compute the same.
        dtype: The type of numbers; float64 where float32 is too loud to decide.
        tolerance: What a difference may be, relative to the largest output.
        why: Where that comes from.
        trials: What was fed.
        ours: The outputs of the first, for each trial.
        theirs: The outputs of the second.
        moved: Layer and mistake → how far the mistake moved the outputs, relative to the largest.
    """

    def __init__(self, first: Side, second: Side, trials: Sequence[Trial], *, why: str = "") -> None:
        self.dtype = first.dtype()
        self.first, self.second = Runner(first, self.dtype), Runner(second, second.dtype())
        self.trials: list[Trial] = []
        self.ours: list[list[np.ndarray]] = []
        self.theirs: list[list[np.ndarray]] = []
        self.moved: dict[tuple[str, str], float] = {}
        self.tolerance, self.why = DOUBLE, why or f"{DOUBLE:g}: both compute in float64"
        self._reference, whose = self._find_reference()
        for trial in trials:
            self.add(trial)
        if self.dtype != "float64":
            noise = max(self._noise(trial, *ran) for trial, *ran in zip(trials, self.ours, self.theirs, strict=True))
            if FLOOR < NOISES * noise < np.inf and noise > CHANCE * self._jiggle(self._rounding()):
                # No rounding is so large. The float64 run is of what describes the object, which then does something
                # else than it says: that is not to be excused.
                noise = 0.0
            self._allow(noise, whose)
            # One run rounds by chance: a recurrence that magnifies differences may round far more in the other side's.
            if not self.passed and (moved := self._jiggle(2.0**-24)) > noise:
                noise = moved
                self._allow(noise, "what the outputs move by when the weights are rounded to float32")
            if noise > LOUD and first.doubles() and second.doubles():
                self._become_double(f"float32 rounds by {noise:.1e} here and cannot decide")
        if self.dtype == "float64" and not self.passed:
            noise = NOISES * self._jiggle(2.0**-53)
            if noise > self.tolerance:
                self.tolerance = noise
                self.why += f"; {NOISES} × {noise / NOISES:.1e}, what the outputs move by when the weights are rounded"

    def _allow(self, noise: float, whose: str) -> None:
        self.tolerance = max(FLOOR, NOISES * noise) if np.isfinite(noise) else FLOOR
        self.why = f"the larger of {FLOOR:g} and {NOISES} × {noise:.1e}, {whose}"

    def _jiggle(self, size: float) -> float:
        """Return how far the outputs move, relative to the largest, when each weight moves by so much of itself."""
        runs = [runner for runner in (self.first, self.second) if runner.side.doubles()]
        if not self.alike or not runs:
            return 0.0
        right, moved = (Runner(side, "float64") for side in (runs[0].side.twin("float64"), runs[0].side.jiggled(size)))
        return max(_moved(right.run(trial), moved.run(trial)) for trial in self.trials)

    def _rounding(self) -> float:
        """Return how far the side that is run in float64, too, rounds a number."""
        own = self.first.side if self.first.side.doubles() else self.second.side
        return own.adapter.rounding(own.obj) if hasattr(own.adapter, "rounding") else 2.0**-24

    def _find_reference(self) -> tuple[Runner | None, str]:
        """Return what runs in float64, to measure the rounding by, and whose rounding that is."""
        if self.dtype == "float64":
            return None, ""
        if self.first.side.doubles():
            twin = self.first.side.twin("float64")
            return Runner(twin, "float64"), "the source's own rounding (float32 against its float64 run)"
        if self.second.side.doubles():
            twin = self.second.side.twin("float64")
            return Runner(twin, "float64"), "the other side's rounding (the source has no float64 run)"
        return None, "no float64 run here to measure the rounding with"

    def _noise(self, trial: Trial, ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
        """Return how far float32 rounds, relative to the largest output; infinite where it overflows alone."""
        if self._reference is None:
            return 0.0
        own = ours if self.first.side.doubles() else theirs
        noise = 0.0
        for here, there in zip(own, self._reference.run(trial), strict=True):
            if (np.isfinite(here) != np.isfinite(there)).any():
                return float("inf")
            noise = max(noise, _distance(here, there))
        return noise

    def _become_double(self, why: str) -> None:
        first, second = self.first.side.doubled(), self.second.side.doubled()
        self.dtype = "float64"
        self.first, self.second = Runner(first, self.dtype), Runner(second, self.dtype)
        self.tolerance, self.why = DOUBLE, f"{DOUBLE:g} in float64: {why}"
        trials, self.trials, self.ours, self.theirs = self.trials, [], [], []
        for trial in trials:
            self.add(trial)

    def in_double(self, why: str) -> Comparison | None:
        """Return the same comparison in float64, where both sides compute in it."""
        first, second = self.first.side, self.second.side
        if not (first.doubles() and second.doubles()):
            return None
        made = Comparison(first.doubled(), second.doubled(), self.trials, why=f"{DOUBLE:g} in float64: {why}")
        strict = made.tolerance, made.why
        if not made.passed:
            # It is float32 that is to agree: a framework may hold a constant of an activation in no more digits.
            made.tolerance, made.why = ROUNDED, f"{ROUNDED:.1e} in float64, what float32 rounds by: {why}"
            if not made.passed:
                made.tolerance, made.why = strict
        return made

    def add(self, trial: Trial) -> None:
        """Run both sides."""
        self._keep(trial, self.first.run(trial), self.second.run(trial))

    def _keep(self, trial: Trial, ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
        self.trials.append(trial)
        self.ours.append(ours)
        self.theirs.append(theirs)

    def add_stronger(self, random: np.random.Generator, batch: int, length: int, scale: float) -> None:
        """Feed more, if it rounds no more than what was fed before, and plant again what was not seen."""
        free = any(trial.free for trial in self.trials)
        trial = draw_trial(self.first.side.network, random, batch, length, scale, free=free)
        ran = self.first.run(trial), self.second.run(trial)
        if NOISES * self._noise(trial, *ran) <= self.tolerance and all(np.isfinite(output).all() for output in ran[0]):
            self._keep(trial, *ran)
            self.plant(since=len(self.trials) - 1)

    @property
    def alike(self) -> bool:
        """Whether both sides give outputs of the same shapes in each trial."""
        ours, theirs = ([[array.shape for array in ran] for ran in side] for side in (self.ours, self.theirs))
        return ours == theirs

    @property
    def outputs(self) -> tuple[OutputParity, ...]:
        """Each output, at the trial at which it is furthest off."""
        names = [
            f"{name}.{outputs_of(self.first.side.network[name].spec)[number]}"
            for name, number in map(source_of, self.first.side.network.results)
        ]
        if not self.alike:
            return tuple(
                OutputParity(name, array.shape, float("inf"), float("inf"), (), self.tolerance, False)
                for name, array in zip(names, self.ours[0], strict=False)
            )
        return tuple(_output(name, at, self.ours, self.theirs, self.tolerance) for at, name in enumerate(names))

    @property
    def passed(self) -> bool:
        """Whether every output agrees."""
        return self.alike and all(output.passed for output in self.outputs)

    @property
    def planted(self) -> tuple[Planted, ...]:
        """What was planted, and by how many tolerances each mistake moved the outputs."""
        return tuple(Planted(*place, moved / self.tolerance) for place, moved in self.moved.items())

    @property
    def unseen(self) -> list[Planted]:
        """The planted mistakes that did not show."""
        return [each for each in self.planted if not each.moved >= SEEN]

    def plant(self, since: int = 0) -> None:
        """Plant each mistake that was not seen yet in a copy, and run the trials from a number on."""
        # Where a free copy was compared it is the one to plant in: it sees at least what the other sees.
        free = any(trial.free for trial in self.trials)
        places = [place for place in range(since, len(self.trials)) if self.trials[place].free == free]
        seen = {(each.layer, each.mistake) for each in self.planted if each.moved >= SEEN}
        right = self.second.copy(free=free)
        for layer, mistake, wrong in _with_mistakes(right.twin(self.second.dtype), seen):
            moved = self.moved.get((layer, mistake), 0.0)
            for place in places:
                if moved < SEEN * self.tolerance:
                    moved = max(moved, _moved(self.theirs[place], wrong.run(self.trials[place])))
            self.moved[layer, mistake] = moved

    def parity(self, verdict: str, seed: int, notes: Sequence[str]) -> Parity:
        """Return what came out."""
        advice = list(notes)
        if not self.alike:
            mine, yours = (", ".join(str(array.shape) for array in side[0]) for side in (self.ours, self.theirs))
            advice.append(
                f"The outputs differ in shape: {mine} here, {yours} there. Do both return sequences and states alike?"
            )
        arrays = [array for ran in (*self.ours, *self.theirs) for array in ran]
        if not all(np.isfinite(array).all() for array in arrays):
            advice.append(
                "Outputs hold numbers that are not finite (NaN or infinite), of which only the places are compared. Do "
                "the weights overflow, is a variance negative?"
            )
        fed = tuple(trial.text() for trial in self.trials)
        diagnosis: tuple[Found, ...] = ()
        if verdict == "failed":
            from gatewise.diagnosis import diagnose

            diagnosis = diagnose(self)
        return Parity(
            verdict,
            self.outputs,
            self.tolerance,
            self.why,
            self.dtype,
            seed,
            fed,
            self.planted,
            tuple(advice),
            diagnosis,
        )


def make_trials(
    first: Side,
    second: Side,
    random: np.random.Generator,
    inputs: Sequence[np.ndarray] | np.ndarray | None,
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
        for layer, array in zip(sources, arrays, strict=True):
            _check_given(layer, array)
        return [Trial(arrays)], []
    notes: list[str] = []
    # Where one side alone masks, its inputs show it.
    network = next((one.network for one in (first, second) if _masks(one.network)), first.network)
    if sum(isinstance(layer.spec, Input) for layer in network.layers) != len(sources):
        network = first.network
    free = any(_free(one.network) != one.network for one in (first, second))
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


def _check_given(source: Layer, array: np.ndarray) -> None:
    """Raise ``SpecError`` where an array is not what an input takes."""
    spec = source.spec
    assert isinstance(spec, Input)
    wanted = (spec.batch, *spec.shape)
    if len(wanted) != array.ndim or any(
        size not in (None, given) for size, given in zip(wanted, array.shape, strict=True)
    ):
        raise SpecError(
            f"An array of shape {array.shape} for input {source.name!r}.",
            f"It takes {wanted}; None stands for any length.",
            "Give the batch first, then the axes of the input.",
        )


def draw_trial(
    network: Network, random: np.random.Generator, batch: int, length: int, scale: float, *, free: bool
) -> Trial:
    """Return random inputs; those for a free copy may have any batch and length."""
    fed = _free(network) if free else network
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


TAKEN_FOR = dict(
    pair
    for one, other in (
        *(("not_equal", "equal"), ("greater", "less_equal"), ("less", "greater_equal")),
        *(("logical_and", "logical_or"), ("max", "min"), ("mean", "sum"), ("add", "subtract")),
    )
    for pair in ((one, other), (other, one))
)
"""Operation → the one that it is taken for by mistake; of a comparison, what passes where it does not."""


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


def _distance(here: np.ndarray, there: np.ndarray) -> float:
    """Return the largest difference of the finite values, relative to the largest output."""
    finite = np.isfinite(here) & np.isfinite(there)
    return float(np.abs(here - there)[finite].max()) / _size(there) if finite.any() else 0.0


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


# ── planted mistakes ────────────────────────────────────────────────────────────────────────────────────────────


def mistakes(layer: Layer, weights: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield each mistake that a port may make in one layer: its name, and canonical weights that have it.

    A mistake that changes no weight is none, and is left out; so is one that the cell cannot tell.
    """
    gates, options = GATES[layer.spec.cell], layer.spec.options()
    product = layer.spec.cell == "lstm" and not options["peepholes"]  # i * g, of one activation
    alike = product and options["activation"] == options["recurrent_activation"]
    for (i, one), (j, other) in itertools.combinations(enumerate(gates), 2):
        if alike and {one, other} == {"i", "g"}:
            continue
        order = list(range(len(gates)))
        order[i], order[j] = j, i
        swapped = {
            name: array[order] if gates_of(layer.spec.cell, name.rpartition("/")[2]) == gates else array
            for name, array in weights.items()
        }
        yield f"gates {one} and {other} exchanged", swapped
    dropped = {name: np.zeros_like(array) if "bias" in name else array for name, array in weights.items()}
    if any(dropped[name].any() != weights[name].any() for name in weights):
        yield "bias dropped", dropped
    doubled = {name: 2 * array if "bias" in name else array for name, array in weights.items()}
    if any(doubled[name].any() for name in weights if "bias" in name):
        yield "bias doubled", doubled
    if "mean" in weights:
        yield "mean and variance exchanged", weights | {"mean": weights["variance"], "variance": weights["mean"]}
    for part in ("kernel", "recurrent_kernel", "table"):
        turned = {
            name: array.swapaxes(-1, -2)
            if name.rpartition("/")[2] == part and array.shape[-1] == array.shape[-2]
            else array
            for name, array in weights.items()
        }
        yield f"{part.replace('_', ' ')} transposed", turned


def _steps_alike(network: Network) -> set[str]:
    """Return the layers that give the same at each step, so that the direction in which they are read is none."""
    alike: set[str] = set()
    found = shapes(network)
    for layer in network.layers:
        if 1 in found.get(layer.name, ((),))[0][1 + layer.distributed : 2 + layer.distributed]:
            alike.add(layer.name)  # a single step, as of a pool over all
            continue
        kept = isinstance(layer.spec, Activation | Dense | Dropout | Norm) and source_of(layer.inputs[0])[0] in alike
        if isinstance(layer.spec, Repeat) or kept:
            alike.add(layer.name)
    return alike


def misreadings(layer: Layer, alike: Collection[str] = ()) -> Iterator[tuple[str, Layer]]:
    """Yield each mistake that is not one of weights: its name, and the layer as it would be taken for.

    A direction that is not turned shows where reading from the other end shows; it is no mistake where what is read is
    the same at each step, as behind the layers of ``alike``.
    """
    if isinstance(layer.spec, Recurrent) and not (layer.inputs and source_of(layer.inputs[0])[0] in alike):
        turned = layer.spec.replace(go_backwards=not layer.spec.go_backwards)
        yield "sequence read from the other end", dataclasses.replace(layer, spec=turned)
    if isinstance(layer.spec, Operation) and layer.spec.function in TAKEN_FOR:
        wrong = TAKEN_FOR[layer.spec.function]
        yield f"{wrong} for {layer.spec.function}", dataclasses.replace(layer, spec=layer.spec.replace(function=wrong))
    if isinstance(layer.spec, Conv1D) and layer.spec.width > 1 and layer.spec.padding != "valid":
        padding = "causal" if layer.spec.padding == "same" else "same"
        yield (
            f"padding {padding} for {layer.spec.padding}",
            dataclasses.replace(layer, spec=layer.spec.replace(padding=padding)),
        )
    other = {"tanh": "relu", "relu": "tanh"}.get(str(layer.spec.options().get("activation")))
    if other:
        name = f"{other} for {'relu' if other == 'tanh' else 'tanh'}"
        yield name, dataclasses.replace(layer, spec=layer.spec.replace(activation=other))


BIASED = ("bias dropped", "bias doubled")
"""The mistakes of a bias alone."""


def softmax_shifts(network: Network) -> dict[str, list[tuple[str, str]]]:
    """Return softmax → the layers in front of it and their part, a bias, that it takes away.

    A softmax gives the same where a number is added to all that it shares out: the bias of scores, one for each step,
    and that of a key, which adds to all scores of one query the same.

    >>> network = Network.chain(Input((5, 3)), Dense(3, 1), Reshape((-1,)), Activation("softmax"))
    >>> softmax_shifts(network)
    {'activation': [('dense', 'bias')]}
    """
    uses = Counter(layer.owner for layer in network.layers)
    references = [*network.results, *(each for layer in network.layers for each in (*layer.inputs, layer.mask) if each)]
    readers = Counter(source_of(reference)[0] for reference in references)
    found: dict[str, list[tuple[str, str]]] = {}
    for layer in network.layers:
        spec, features = layer.spec, True
        read = 0
        if isinstance(spec, Attention) and spec.score == "dot" and len(layer.inputs) == 3:
            read, features = 2, False
        elif isinstance(spec, Softmax) or (isinstance(spec, Operation) and spec.function == "softmax"):
            # One bias for each feature goes off where each feature is shared out by itself.
            features = not spec.axis or any(axis in (-1, len(_read(network, layer)) - 1) for axis in spec.axis)
        elif not (isinstance(spec, Activation) and spec.activation == "softmax"):
            continue
        front = network[source_of(layer.inputs[read])[0]]
        while uses[front.owner] == readers[front.name] == 1 and (place := _passed(front.spec)) is not None:
            features = features or _reshapes(front.spec)
            front = network[source_of(front.inputs[place])[0]]
        dense = front.spec
        alone = uses[front.owner] == readers[front.name] == 1 and isinstance(dense, Dense)
        options = dense.options()
        if alone and options["bias"] and options["activation"] == "linear" and (options["units"] == 1 or not features):
            found[layer.name] = [(front.name, "bias")]
    return found


def _read(network: Network, layer: Layer) -> Sequence[int | None]:
    """Return the shape of what a layer reads, without the further axes on whose steps it runs."""
    name, number = source_of(layer.inputs[0])
    shape = shapes(network)[name][number]
    return (shape[0], *shape[1 + layer.distributed :])


def _reshapes(spec: Spec) -> bool:
    """Say whether a layer gives the numbers that it reads, or some of them, in another shape."""
    moves = spec.options().get("function") in ("expand_dims", "squeeze", "get_item")
    return isinstance(spec, Reshape | Permute) or moves


def _passed(spec: Spec) -> int | None:
    """Return which of its inputs a layer gives so that what is added to all of it is added to the output, or None."""
    if isinstance(spec, Operation) and spec.function == "where" and spec.operands[:2] == (None, None):
        return 1 if len(spec.operands) == 3 and isinstance(spec.operands[2], int | float) else None
    if spec.options().get("function") in ("add", "subtract", "multiply", "divide"):
        first, second = (*spec.options()["operands"], None, None)[:2]
        by_number = isinstance(second, int | float) or spec.options()["function"] in ("add", "subtract")
        return 0 if first is None and by_number else None
    return 0 if _reshapes(spec) else None


def _with_mistakes(copy: Side, seen: Collection[tuple[str, str]]) -> Iterator[tuple[str, str, Side]]:
    """Yield layer, mistake, and the copy with that mistake, until the next is asked for; leave out some."""
    own = copy.adapter.natives(copy.obj)
    form = copy.adapter.form(copy.obj)
    layouts = own_layouts(copy.framework, copy.network, form, own)
    alike = _steps_alike(copy.network)
    # A bare cell reads one step, which has no direction, and its class says what it computes.
    for layer in copy.network.layers if form != "cell" else ():
        for name, taken in misreadings(layer, alike) if not layer.shares else ():
            if (layer.name, name) not in seen:
                right_options, wrong_options = layer.spec.options(), taken.spec.options()
                changed = {key: value for key, value in wrong_options.items() if right_options[key] != value}
                layers = [
                    dataclasses.replace(each, spec=each.spec.replace(**changed)) if each.owner == layer.name else each
                    for each in copy.network.layers
                ]
                yield layer.name, name, copy.rebuilt(Network(tuple(layers), copy.network.outputs), copy.dtype())
    unseen = {name for shifts in softmax_shifts(copy.network).values() for name, _ in shifts}
    for layer in copy.network.weighted:
        canonical, right = CANONICAL[layer.spec.cell], copy.adapter.read(own[layer.name])
        weights = plan(layer.spec, layouts[layer.name], canonical).apply(right)
        back = plan(layer.spec, canonical, layouts[layer.name])
        for name, wrong in mistakes(layer, weights):
            if name in BIASED and layer.name in unseen:
                continue
            if (layer.name, name) in seen or all(np.array_equal(wrong[part], weights[part]) for part in weights):
                continue
            copy.adapter.write(own[layer.name], back.apply(wrong))
            yield layer.name, name, copy
        copy.adapter.write(own[layer.name], right)


def _moved(right: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> float:
    """Return how far a mistake moves the outputs, relative to the largest."""
    moved = 0.0
    for was, now in zip(right, wrong, strict=True):
        if was.shape != now.shape or (np.isfinite(was) != np.isfinite(now)).any():
            return float("inf")
        moved = max(moved, _distance(now, was))
    return moved


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' if count != 1 else ''}"


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
