"""The verb: run two objects or files on the same inputs, compare every output, and say whether the comparison tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.core.between import Input
from gatewise.core.network import Layer, Network
from gatewise.errors import GatewiseError, SpecError
from gatewise.parity.called import check_outputs_only, refuse_unread, verify_called
from gatewise.parity.callee import callee
from gatewise.parity.compare import SEEN, Comparison
from gatewise.parity.descriptions import ALONE, hidden_options, unlike_in_training
from gatewise.parity.diagnosis import diagnose
from gatewise.parity.inputs import for_network, read_inputs
from gatewise.parity.judging import Judge
from gatewise.parity.outputs import match, same_outputs
from gatewise.parity.result import Parity, Planted
from gatewise.parity.subject import Side, Trial, opened, readable
from gatewise.parity.tables import rows_apart
from gatewise.parity.training import extend
from gatewise.parity.trials import make_trials


def verify(
    a: Any,
    b: Any,
    *,
    seed: int = 0,
    inputs: Any = None,
    gradients: bool = False,
    training_steps: int = 0,
) -> Parity:
    """Compare two live objects, or files of them; see ``gatewise.verify``."""
    _check_number("seed", seed)
    _check_number("training_steps", training_steps)
    given = read_inputs(inputs)
    a, b = opened(a), opened(b)
    first, second = readable(a), readable(b)
    if not isinstance(first, Side) or not isinstance(second, Side):
        if given is None:
            raise refuse_unread(next(each for each in (first, second) if not isinstance(each, Side)), (a, b))
        check_outputs_only(gradients=gradients, training_steps=training_steps)
        return verify_called(callee("source", a, first), callee("target", b, second), given, seed)
    first, second = first.with_axes_of(second.network), second.with_axes_of(first.network)
    if first.dtype() == "float64" != second.dtype():
        # The second's weights were rounded, so that those of the first have to be, too.
        first = first.twin(second.dtype())
    _check_same_inputs(first.network, second.network)
    random = np.random.default_rng(seed)
    arrays = None if given is None else for_network(given, first.network)
    trials, notes = make_trials(first, second, random, arrays, rows_apart(first, second))
    first, second, remarks = _matched(first, second, trials[0])
    remarks += calling_remarks(first.calling(), second.calling(), states=_gives_states(first))
    with np.errstate(all="ignore"):
        found = Comparison(first, second, trials)
        if found.passed:
            judge = Judge(found, random, given=given is not None)
            found = judge.judge()
            notes += judge.notes
            if found.passed:
                remarks += _descriptions(first.network, second.network)
        unseen = found.unseen
        if found.passed and unseen:
            parity = conclude(found, "inconclusive", seed, [*notes, *_advice(unseen, found)], remarks)
        else:
            parity = conclude(found, "passed" if found.passed else "failed", seed, notes, remarks)
    if not gradients and not training_steps:
        return parity
    if first.picks:
        raise GatewiseError(
            "Gradients and training are compared only where both sides give the same outputs.",
            "; ".join(remarks),
            "Let both return the same: return_sequences and return_state alike.",
        )
    return extend(found, parity, gradients=gradients, steps=training_steps)


def _check_number(name: str, value: Any) -> None:
    """Raise ``GatewiseError`` where a seed or a number of steps is none."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 0:
        raise GatewiseError(
            f"{name}={value!r} is not supported.", "verify: a whole number from 0 is needed.", f"Give {name}=10."
        )


def _matched(first: Side, second: Side, trial: Trial) -> tuple[Side, Side, list[str]]:
    """Return both sides with what is compared of their outputs, and what one side alone gives."""
    if same_outputs(first.network, second.network):
        return first, second, []
    ours, theirs = first.run(trial), second.run(trial)
    found = match(first.network, second.network, ours, theirs)
    if not found.first:
        return first, second, []
    return first._replace(picks=found.first), second._replace(picks=found.second), list(found.remarks)


def _gives_states(side: Side) -> bool:
    return any("state_" in name for name in side.output_names())


def calling_remarks(ours: Mapping[str, str], theirs: Mapping[str, str], *, states: bool) -> list[str]:
    """Say where a person's own call of both sides has to differ, which a comparison does by itself.

    Args:
        ours: How the source is called, by aspect; see ``ModelAdapter.calling``.
        theirs: The same for the target.
        states: Whether states are compared.
    """
    unlike = {aspect for aspect in ours.keys() & theirs.keys() if ours[aspect] != theirs[aspect]}
    remarks = []
    if "axes" in unlike:
        remarks.append(
            f"The axes differ: the source is called {ours['axes']}, the target {theirs['axes']}. Each was fed in its "
            "own order; the same array given to both would give other outputs."
        )
    if "states" in unlike and states:
        remarks.append(f"States are returned otherwise: here {ours['states']}, there {theirs['states']}.")
    return remarks


def _check_same_inputs(first: Network, second: Network) -> None:
    """Raise ``SpecError`` where two networks take different inputs."""
    ours, theirs = (
        [layer.spec for layer in network.layers if isinstance(layer.spec, Input)] for network in (first, second)
    )
    unlike = len(ours) != len(theirs) or any(
        one.integer != other.integer or (not one.integer and one.shape[-1:] != other.shape[-1:])
        for one, other in zip(ours, theirs, strict=True)
    )
    if unlike:
        raise SpecError(
            f"The two take different inputs: {', '.join(map(str, ours))} here, {', '.join(map(str, theirs))} there.",
            "A comparison feeds both sides alike.",
            "Was the right pair given?",
        )


def _descriptions(first: Network, second: Network) -> list[str]:
    """Say in what two sides that agree are described otherwise."""
    said = [f"{each.text()}. {ALONE}" for each in unlike_in_training(first, second)]
    return said + [f"{each.text()}. Nothing that was fed shows it." for each in hidden_options(first, second)]


def conclude(found: Comparison, verdict: str, seed: int, notes: Sequence[str], remarks: Sequence[str] = ()) -> Parity:
    """Return what came out of a comparison, with the mistakes that keep two sides apart where they differ."""
    advice = list(notes)
    if not found.alike:
        mine, yours = (", ".join(str(array.shape) for array in side[0]) for side in (found.ours, found.theirs))
        advice.append(
            f"The outputs differ in shape, so that none can be compared: {mine} here, {yours} there. Do both return "
            "sequences and states alike, and have the same number of units?"
        )
    arrays = [array for ran in (*found.ours, *found.theirs) for array in ran]
    if verdict == "passed" and any(np.isnan(array).any() for array in arrays):
        verdict = "inconclusive"  # NaN is equal to any NaN, whatever the weights are
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
        remarks=tuple(remarks),
    )


def _advice(unseen: list[Planted], found: Comparison) -> list[str]:
    """Say which test fault would not have been seen, and which input decides."""
    worst, count = min(unseen, key=lambda each: each.moved), len(unseen)
    told = (
        f"{count} test fault{'s' if count != 1 else ''} would not have been seen, such as {worst.mistake} in "
        f"{worst.layer!r}: it moves the outputs by {worst.moved:.2g} tolerances, and {SEEN} are needed."
    )
    sources = [layer for layer in found.first.side.network.layers if isinstance(layer.spec, Input)]
    fed = [
        f"{layer.name!r}, {('batch', *(size or 'any' for size in spec.shape))}, was fed {_range(layer, place, found)}"
        for place, layer in enumerate(sources)
        if isinstance(spec := layer.spec, Input)
    ]
    steps = max((array.shape[1] for trial in found.trials for array in trial.inputs if array.ndim > 1), default=1)
    deciding = "Give inputs that the model was made for (inputs=…, --inputs x.npz): real samples"
    deciding += (
        ", and more than one step, or the recurrent kernel plays no part."
        if steps == 1
        else f", at which {worst.layer!r} gives other outputs from sample to sample."
    )
    return [told, f"{deciding} {'; '.join(fed)}.".replace("'batch'", "batch").replace("'any'", "any")]


def _range(layer: Layer, place: int, found: Comparison) -> str:
    """Return the range of what one input was fed."""
    arrays = [trial.inputs[place] for trial in found.trials if trial.inputs[place].size]
    least, most = min(float(array.min()) for array in arrays), max(float(array.max()) for array in arrays)
    return f"{'numbers' if not layer.spec.options()['integer'] else 'tokens'} from {least:.3g} to {most:.3g}"
