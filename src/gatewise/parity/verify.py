"""The verb: run two objects or files on the same inputs, compare every output, and say whether the comparison tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gatewise.core.between import Input
from gatewise.core.network import Network
from gatewise.errors import GatewiseError, SpecError
from gatewise.parity.compare import SEEN, STRONGER, Comparison
from gatewise.parity.diagnosis import diagnose
from gatewise.parity.result import Parity, Planted
from gatewise.parity.subject import Trial, side
from gatewise.parity.training import extend
from gatewise.parity.trials import make_trials


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
            parity = conclude(found, "inconclusive", seed, [*notes, *_advice(unseen, found.trials)])
        else:
            parity = conclude(found, "passed" if found.passed else "failed", seed, notes)
    if not gradients and not training_steps:
        return parity
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


def conclude(found: Comparison, verdict: str, seed: int, notes: Sequence[str]) -> Parity:
    """Return what came out of a comparison, with the mistakes that keep two sides apart where they differ."""
    advice = list(notes)
    if not found.alike:
        mine, yours = (", ".join(str(array.shape) for array in side[0]) for side in (found.ours, found.theirs))
        advice.append(
            f"The outputs differ in shape: {mine} here, {yours} there. Do both return sequences and states alike?"
        )
    arrays = [array for ran in (*found.ours, *found.theirs) for array in ran]
    if not all(np.isfinite(array).all() for array in arrays):
        advice.append(
            "Outputs hold numbers that are not finite (NaN or infinite), of which only the places are compared. Do "
            "the weights overflow, is a variance negative?"
        )
    return Parity(
        verdict,
        found.outputs,
        found.tolerance,
        found.why,
        found.dtype,
        seed,
        tuple(trial.text() for trial in found.trials),
        found.planted,
        tuple(advice),
        diagnose(found) if verdict == "failed" else (),
    )


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
