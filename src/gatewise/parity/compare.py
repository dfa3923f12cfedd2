"""Two objects run on the same trials in one type of numbers: the tolerance, every output, and which faults would show.

A comparison that cannot fail proves nothing: dead relus, a single step from a zero state or a softmax over one unit
give equal outputs whatever the weights. So test faults are judged (``judging.py``), and where one of them would have
moved the outputs too little, the verdict is *inconclusive*.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gatewise.parity.result import OutputParity, Planted
from gatewise.parity.subject import Runner, Side, Trial

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
"""How many tolerances a test fault must move the outputs by."""


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
        moved: Layer and mistake → how far that test fault moves the outputs, relative to the largest.
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
        return max(change(right.run(trial), moved.run(trial)) for trial in self.trials)

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
            noise = max(noise, distance(here, there))
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

    def add_quiet(self, trial: Trial) -> bool:
        """Feed more, if it rounds no more than what was fed before; say whether it does."""
        ran = self.first.run(trial), self.second.run(trial)
        quiet = NOISES * self._noise(trial, *ran) <= self.tolerance
        if quiet and all(np.isfinite(output).all() for output in ran[0]):
            self._keep(trial, *ran)
            return True
        return False

    @property
    def alike(self) -> bool:
        """Whether both sides give outputs of the same shapes in each trial."""
        ours, theirs = ([[array.shape for array in ran] for ran in side] for side in (self.ours, self.theirs))
        return ours == theirs

    @property
    def outputs(self) -> tuple[OutputParity, ...]:
        """Each output, at the trial at which it is furthest off; none where the two sides give other shapes."""
        if not self.alike:
            return ()
        names = self.first.side.output_names()
        return tuple(compare_output(name, at, self.ours, self.theirs, self.tolerance) for at, name in enumerate(names))

    @property
    def passed(self) -> bool:
        """Whether every output agrees."""
        return self.alike and all(output.passed for output in self.outputs)

    @property
    def planted(self) -> tuple[Planted, ...]:
        """The test faults, and by how many tolerances each moved the outputs."""
        return tuple(Planted(*place, moved / self.tolerance) for place, moved in self.moved.items())

    @property
    def unseen(self) -> list[Planted]:
        """The test faults that did not show."""
        return [each for each in self.planted if not each.moved >= SEEN]


def distance(here: np.ndarray, there: np.ndarray) -> float:
    """Return the largest difference of the finite values, relative to the largest output."""
    finite = np.isfinite(here) & np.isfinite(there)
    return float(np.abs(here - there)[finite].max()) / _size(there) if finite.any() else 0.0


def _size(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return max(1.0, float(finite.max())) if finite.size else 1.0


def compare_output(
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


def change(right: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> float:
    """Return how far a mistake moves the outputs, relative to the largest."""
    moved = 0.0
    for was, now in zip(right, wrong, strict=True):
        if was.shape != now.shape or (np.isfinite(was) != np.isfinite(now)).any():
            return float("inf")
        moved = max(moved, distance(now, was))
    return moved
