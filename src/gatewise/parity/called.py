"""Compares two models by calling them: any module, model or function, also where nobody can read its layers.

Nothing is known of what happens inside, so that no test fault can be made by its name. Instead each weight of each side
is changed in turn, and each axis of each input reordered: what then changes the outputs was tested, and the rest is
named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gatewise.arrays.native import Weight
from gatewise.errors import GatewiseError, UnsupportedModelError
from gatewise.parity.callee import Callee, adapter_of, aligned, pair_outputs, title
from gatewise.parity.compare import DOUBLE, FLOOR, LOUD, NOISES, SEEN, change, compare_output, distance
from gatewise.parity.inputs import Inputs, for_network
from gatewise.parity.result import Found, OutputParity, Parity, Planted

MOST = 300
"""How many weights of one side are changed, each in a run of its own; what is left out is said."""

NAMED = 50
"""How many weights are named in one sentence."""

STRONGER = (5.0, 40.0, 300.0)
"""How much stronger a weight that did not show is changed again, to see whether what follows cancels it."""

ROUNDING = 2.0**-24
"""How far float32 rounds a number, where a side has no float64 run to measure it by."""


def verify_called(first: Callee, second: Callee, inputs: Inputs, seed: int) -> Parity:
    """Compare two sides by calling both on the same inputs, which are passed on as they are."""
    with contextlib.ExitStack() as stack:
        for adapter in {id(each): each for side in (first, second) for each, _ in side.parts}.values():
            stack.enter_context(adapter.kept_random())
        return _Calls(first, second, inputs, seed).parity()


class _Calls:
    """Two sides and the inputs that both are called with."""

    def __init__(self, first: Callee, second: Callee, inputs: Inputs, seed: int) -> None:
        self.sides, self.seed = (first, second), seed
        self.random = np.random.default_rng(seed)
        self.trials = [inputs]
        self.ran = [(first.run(inputs), second.run(inputs))]
        self.remarks: list[str] = []
        rows = inputs.rows()
        if rows is not None:
            try:
                self.ran.append((first.run(rows), second.run(rows)))
                self.trials.append(rows)
            except GatewiseError as error:
                self.remarks.append(f"Only one batch size was tried: with inputs of {rows.text()}, {error.met}")
        self.pairing = pair_outputs(*self.ran[0])
        self.tolerance, self.why, self.noise = FLOOR, "", ROUNDING
        self.sharp = FLOOR

    def parity(self) -> Parity:
        """Return what came out."""
        unsteady = [words for side in self.sides for words in self._unsteady(side)]
        self._set_tolerance()
        outputs = self._compared()
        agree = bool(outputs) and all(each.passed for each in outputs)
        advice, planted, diagnosis = list(unsteady), (), ()  # type: tuple[list[str], tuple[Planted, ...], tuple[Found, ...]]
        verdict = "passed" if agree else "failed"
        if agree:
            self._sharpen(outputs)
            planted, blocked = self._perturbed()
            outputs = self._compared()
            advice += blocked
            arrays = [array for made in self.ran[0] for array in made.values()]
            if not all(np.isfinite(array).all() for array in arrays):
                advice.append("Outputs hold values that are NaN or infinite, of which only the places are compared.")
            if self.noise > LOUD:
                advice.append(f"float32 rounds by {self.noise:.1e} here and cannot decide: give both in float64.")
            if len(advice) > len(unsteady):
                verdict = "inconclusive"
        else:
            diagnosis = self._diagnosed(outputs)
            if not self.pairing.pairs:
                shapes = [", ".join(str(array.shape) for array in made.values()) or "none" for made in self.ran[0]]
                advice.append(f"No output is common to both: {shapes[0]} in the source, {shapes[1]} in the target.")
        unread = [side for side in self.sides if side.side is None]
        words = [f"The {side.role}, {title(side.obj)}, was not read, only called." for side in unread]
        return Parity(
            verdict,
            outputs,
            self.tolerance,
            self.why,
            self.dtype,
            self.seed,
            tuple(trial.text() for trial in self.trials),
            planted,
            tuple(advice),
            diagnosis,
            remarks=(*words, *self.pairing.remarks, *self.remarks),
            basis="called",
        )

    @property
    def dtype(self) -> str:
        kinds = [side.dtype() for side in self.sides]
        return "float64" if kinds == ["float64", "float64"] else "float32"

    def _unsteady(self, side: Callee) -> Iterator[str]:
        """Yield what the outputs of a side depend on beside its inputs."""
        made = self.ran[0][self.sides.index(side)]
        one, other = side.run_twice(self.trials[0])
        if _moved(one.values(), other.values()) > FLOOR:
            anew = side.run(self.trials[0])
            if _moved(made.values(), anew.values()) > FLOOR:
                yield (
                    f"The {side.role} gives other outputs at each call: something random is left on, such as dropout. "
                    "Switch it off for predictions."
                )
            else:
                self.remarks.append(
                    f"The {side.role} gives other outputs when it is called again: it keeps a state. Each run begins "
                    "as it was given."
                )

    def _set_tolerance(self) -> None:
        if self.dtype == "float64":
            self.tolerance, self.why = DOUBLE, f"{DOUBLE:g}: both compute in float64"
            return
        for number, whose in ((0, "the source's"), (1, "the target's")):
            noise = self._noise(number)
            if noise is not None:
                self.noise = noise
                self.tolerance = max(FLOOR, NOISES * noise)
                run = "own rounding (float32 against its float64 run)"
                self.why = f"the larger of {FLOOR:g} and {NOISES} × {noise:.1e}, {whose} {run}"
                return
        self.why = f"{FLOOR:g}: neither side has a float64 run here to measure the rounding with"

    def _sharpen(self, outputs: Sequence[OutputParity]) -> None:
        """Find the strictest tolerance at which outputs that agree do so, beyond what they round."""
        apart = max(each.max_abs / each.tolerance for each in outputs) * self.tolerance
        self.sharp = min(self.tolerance, max(NOISES * self.noise, ROUNDING, 1.01 * apart))
        if self.dtype == "float64":
            self.sharp = self.tolerance

    def _noise(self, number: int) -> float | None:
        """Return how far one side rounds, relative to its largest output; None where it has no float64 run."""
        side = self.sides[number]
        exact = self._exact(side, self.trials[0])
        if exact is None:
            return None
        own = self.pairing.of(self.ran[0][number], number)
        if [array.shape for array in exact] != [array.shape for array in self.ran[0][number].values()]:
            return None
        names = list(self.ran[0][number])
        exact = [exact[names.index(pair[number])] for pair in self.pairing.pairs]
        if any((np.isfinite(one) != np.isfinite(other)).any() for one, other in zip(own, exact, strict=True)):
            return 0.0
        return max((distance(one, other) for one, other in zip(own, exact, strict=True)), default=0.0)

    def _exact(self, side: Callee, inputs: Inputs) -> list[np.ndarray] | None:
        """Return the outputs of a side in float64, in its own order, where it can compute them."""
        double = side.double()
        try:
            if double is not None:
                return list(double.run(inputs).values())
            if side.side is not None and side.side.doubles():
                exact = side.side.twin("float64")
                return exact.adapter.call(exact.obj, for_network(inputs, exact.network))
        except GatewiseError:  # its own code makes float32 tensors, say
            return None
        return None

    def _compared(self) -> tuple[OutputParity, ...]:
        """Return each output, at the trial at which it is furthest off."""
        ours: list[list[np.ndarray]] = []
        theirs: list[list[np.ndarray]] = []
        for mine, yours in self.ran:
            both = [
                aligned(mine[one], yours[other]) if one in mine and other in yours else None
                for one, other in self.pairing.pairs
            ]
            if any(pair is None for pair in both):
                return ()
            ours.append([pair[0] for pair in both if pair])
            theirs.append([pair[1] for pair in both if pair])
        return tuple(
            compare_output(one, at, ours, theirs, self.tolerance) for at, (one, _) in enumerate(self.pairing.pairs)
        )

    # ── what would have shown ───────────────────────────────────────────────────────────────────────────────────

    def _perturbed(self) -> tuple[tuple[Planted, ...], list[str]]:
        """Change each weight and reorder each axis in turn; return what moved, and what keeps the verdict open."""
        seen: list[tuple[str, float]] = []
        blocked: list[str] = []
        for number, side in enumerate(self.sides):
            chosen = list(side.weights.items())
            if not chosen:
                self.remarks.append(f"No weights of the {side.role} are known: none was changed.")
            if len(chosen) > MOST:
                step = len(chosen) / MOST
                chosen = [chosen[int(place * step)] for place in range(MOST)]
                self.remarks.append(
                    f"The {side.role} has {len(side.weights):,} weights; {MOST} of them, evenly spaced, were changed."
                )
            silent: dict[str, list[str]] = {}
            before = len(seen)
            for name, weight in chosen:
                moved, kind = self._weigh(number, weight)
                if kind == "seen":
                    seen.append((f"{side.role}: {name}", moved))
                else:
                    silent.setdefault(kind, []).append(name)
            if chosen and len(seen) == before and "hidden" not in silent:
                blocked.append(f"No weight of the {side.role} changes its outputs: is it the model that was meant?")
            for kind, names in silent.items():
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                text = f"Not tested in the {side.role}: {', '.join(names[:NAMED])}{more} ({_SILENT[kind]})."
                if kind == "hidden":
                    blocked.append(text)
                else:
                    self.remarks.append(text)
        if seen:
            self.remarks.append(
                "Each weight was changed as a whole: rows of it that these inputs do not reach were not tested."
            )
        axes = list(self._axes())
        self.remarks += [text for _, text in axes if text]
        if not any(side.weights for side in self.sides) and all(text for _, text in axes):
            blocked.append("The outputs do not depend on the inputs given: inputs that differ are needed.")
        if blocked:
            if NOISES * self.noise > FLOOR:
                word = f"They round by {self.noise:.1e}, which hides small changes: give both in float32 or more."
                blocked.append(word)
            blocked.append(
                f"A change of each should change the outputs by {SEEN} × the tolerance. Give inputs that the model was "
                "made for: several samples that differ, and more than one time step."
            )
        return tuple(Planted(name, "changed", moved / self.tolerance) for name, moved in seen), blocked

    def _weigh(self, number: int, weight: Weight) -> tuple[float, str]:
        """Change one weight; return how far the outputs of its side move, and which case it is."""
        moved = 0.0
        # The smaller trial first: what shows there needs no other.
        for place in reversed(range(len(self.trials))):
            moved = max(moved, self._change(number, weight, place, _shaken(weight.read(), self.random, 1.0)))
            if moved >= SEEN * self.tolerance:
                return moved, "seen"
        if moved >= SEEN * self.sharp:
            self.tolerance = self.sharp
            self.why += f"; tightened to {self.sharp:.1e}, at which they agree, too, and each change of a weight shows"
            return moved, "seen"
        values = weight.read()
        floats = all(array.dtype.kind == "f" for array in self.pairing.of(self.ran[0][number], number))
        if floats and self._change(number, weight, 0, np.full(values.shape, np.nan)) == 0:
            return moved, "unused"  # Among integers no NaN would show.
        if not weight.trainable:
            return moved, "frozen"
        strong = [self._change(number, weight, 0, _shaken(values, self.random, size)) for size in STRONGER]
        return moved, "cancelled" if 0 < max(strong) <= self.tolerance else "hidden"

    def _change(self, number: int, weight: Weight, place: int, values: np.ndarray) -> float:
        """Return how far the outputs of one side move where a weight has other values; the weight comes back."""
        right = self.pairing.of(self.ran[place][number], number)
        kept = weight.keep()
        try:
            weight.write(values)
            made = self.sides[number].run(self.trials[place])
        except GatewiseError:
            return float("inf")  # it cannot even be called so
        finally:
            weight.restore(kept)
        if any(pair[number] not in made for pair in self.pairing.pairs):
            return float("inf")
        return change(right, self.pairing.of(made, number))

    def _axes(self) -> Iterator[tuple[str, str]]:
        """Yield each axis of each input, and what is to be said where its order changes nothing."""
        inputs = self.trials[0]
        for place, array in list(inputs.leaves()):
            for axis in range(array.ndim):
                what = f"axis {axis} of {place}"
                if array.shape[axis] == 1:
                    yield what, f"{what[0].upper()}{what[1:]} has a single entry: its order was not tested."
                    continue
                turned = inputs.map(
                    lambda name, each, place=place, axis=axis: np.flip(each, axis) if name == place else each
                )
                moved = [self._reordered(number, turned) for number in (0, 1)]
                still = [side.role for side, far in zip(self.sides, moved, strict=True) if far < SEEN * self.tolerance]
                text = f"The order along {what} changes no output of the {' and the '.join(still)}." if still else ""
                yield what, text

    def _reordered(self, number: int, inputs: Inputs) -> float:
        try:
            made = self.sides[number].run(inputs)
        except GatewiseError:
            return float("inf")
        if any(pair[number] not in made for pair in self.pairing.pairs):
            return float("inf")
        return change(self.pairing.of(self.ran[0][number], number), self.pairing.of(made, number))

    # ── why they differ ─────────────────────────────────────────────────────────────────────────────────────────

    def _diagnosed(self, outputs: Sequence[OutputParity]) -> tuple[Found, ...]:
        """Say what would bring the two together: batch and time exchanged, in the outputs or in the inputs too."""
        before = max((each.max_abs for each in outputs), default=float("inf"))
        first, second = self.ran[0]
        tries = [("batch and time of the target's outputs are exchanged", second)]
        with contextlib.suppress(GatewiseError):
            fed = self.trials[0].map(lambda _, array: array.swapaxes(0, 1) if array.ndim > 1 else array)
            tries.append(
                ("the target is fed with batch and time exchanged, and its outputs are, too", self.sides[1].run(fed))
            )
        for number, (words, made) in enumerate(tries):
            after = self._exchanged(list(first.values()), list(made.values()), outputs=number == 0)
            if after is not None and after < before:
                was = f"they differ by {before:.1e}" if np.isfinite(before) else "they cannot be compared"
                text = f"Outputs match to {after:.1e} once {words}; before, {was}."
                return (Found("", "batch-and-time-exchanged", text, before, after),)
        return ()

    def _exchanged(self, ours: list[np.ndarray], theirs: list[np.ndarray], *, outputs: bool) -> float | None:
        """Return how far two lists of outputs are apart with axes exchanged, where they agree so; else None."""
        if len(ours) != len(theirs) or not ours:
            return None
        worst, turned_any = 0.0, not outputs
        for one, other in zip(ours, theirs, strict=True):
            choices = [other, other.swapaxes(0, 1)] if other.ndim > 1 else [other]
            found = None
            for turned, choice in enumerate(choices):
                both = aligned(one, choice)
                if both is not None and distance(both[1], both[0]) <= self.tolerance:
                    found = float(np.abs(both[0].astype(np.float64) - both[1]).max(initial=0))
                    turned_any = turned_any or bool(turned)
                    break
            if found is None:
                return None
            worst = max(worst, found)
        return worst if turned_any else None


_SILENT = {
    "unused": "no part of these outputs: a layer that is not run in prediction, or a branch not taken",
    "frozen": "not trained, and a change does not show in the outputs",
    "cancelled": "any change moves the outputs by rounding alone: what follows cancels it, as a softmax does a bias",
    "hidden": "a change does not show in the outputs",
}
"""What is said of weights that moved nothing, by the case."""


def _shaken(values: np.ndarray, random: np.random.Generator, size: float) -> np.ndarray:
    """Return values each of which is scaled at random, its sign kept, and zeros moved a little.

    A variance stays positive, and a weight that is all zeros, such as a fresh bias, is moved, too.
    """
    scaled = values * (1 + size * random.uniform(0.25, 1.0, values.shape))
    scaled = np.where(random.random(values.shape) < 0.5, scaled, values / (1 + size * 0.5))
    return np.where(values == 0, size * 0.1 * random.normal(size=values.shape), scaled)


def _moved(right: Any, made: Any) -> float:
    right, made = list(right), list(made)
    return change(right, made) if len(right) == len(made) else float("inf")


def refuse_unread(error: GatewiseError, objects: Sequence[Any]) -> GatewiseError:
    """Return what to say where a model cannot be read and no inputs were given to call it with."""
    if not all(adapter_of(obj) is not None or callable(obj) for obj in objects):
        return error
    shapes = [adapter.example(obj) for obj in objects if (adapter := adapter_of(obj)) is not None]
    shape = next(filter(None, shapes), "")
    hint = "Give inputs, and both are called and compared: gw.verify(a, b, inputs=(x,))"
    hint += f", where x may be {'of shape ' if shape.startswith('(') else ''}{shape}." if shape else "."
    return UnsupportedModelError(error.met, error.where, hint)


def check_outputs_only(*, gradients: bool, training_steps: int) -> None:
    """Refuse to compare gradients and training of models that are only called."""
    if gradients or training_steps:
        raise UnsupportedModelError(
            f"{'gradients=True' if gradients else f'training_steps={training_steps}'} needs models that can be read.",
            "verify: of two models that are only called it compares outputs.",
            "Leave it out.",
        )
