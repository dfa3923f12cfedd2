"""Compares how two sides learn: the gradients of one loss, and some steps of Adam from the same weights.

Gradients are brought to canonical form by the plans of the weights. Two biases of which a gate sees the sum have the
same gradient, each that of the sum; what is frozen has none. Both sides run as in training: a batch is normalised by
its own statistics, and moves those that are kept. Dropout alone is off: its masks are random.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gatewise.core.between import Dropout, Input, Pool, Upsample
from gatewise.core.layout import GATES, store, summed_gates
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.spec import BatchNorm, Conv, Dense, Norm, Recurrent, Spec
from gatewise.errors import GatewiseError
from gatewise.live import own_layouts
from gatewise.parity.compare import Comparison
from gatewise.parity.descriptions import ALONE, unlike_in_training
from gatewise.parity.faults import softmax_shifts
from gatewise.parity.result import GradientParity, Parity, TrainingParity
from gatewise.parity.subject import Side, Trial
from gatewise.parity.trials import draw_trial
from gatewise.parity.units import Parts, Unit, alike, halves, units

GRADIENT = {"float32": 1e-4, "float64": 1e-9}
"""How far gradients may be apart, relative to the largest of their tensor."""

LOSS = {"float32": 1e-4, "float64": 1e-6}
"""How far losses may be apart, relative to the source's; and moving statistics, relative to how far they moved there.

Also where weights are float64, Keras keeps the learning rate in float32, and on TensorFlow the two betas: 1e-8 a step.
"""

MOVED = {"float32": 0.05, "float64": 1e-4}
"""How far weights may be apart, relative to the furthest that Adam can have moved one.

Adam divides a gradient by its own size, so that rounding of a small gradient moves a weight as much as a large one.
"""

ADAM: dict[str, Any] = {"learning_rate": 1e-3, "betas": (0.9, 0.999), "epsilon": 1e-7}
"""Settings of the optimiser on both sides."""

STATISTICS = ("mean", "variance")
"""The parts that training moves by no gradient: what batch normalisation keeps of its batches."""

BATCH, LENGTH, DIFFERENT = 8, 5, 4
"""Size and steps of a training batch, and how many there are before they come again."""


def extend(found: Comparison, parity: Parity, *, gradients: bool, steps: int) -> Parity:
    """Return a parity with the comparison of gradients and of training steps in it.

    Args:
        found: The comparison of the outputs.
        parity: What came out of it.
        gradients: Whether gradients are compared.
        steps: How many steps are trained; 0 for none.
    """
    first, second = found.first.side, found.second.side
    if parity.verdict == "failed":
        word = "Gradients and training were not compared: the outputs differ already."
        return dataclasses.replace(parity, advice=(*parity.advice, word))
    for one in (first, second):
        if not hasattr(one.adapter, "gradients"):
            raise GatewiseError(
                f"Training is not compared with {one.framework}.", "Its adapter gives no gradients.", "Leave it out."
            )
    if not alike(units(first), units(second)):
        raise GatewiseError(
            "Training cannot be compared: the two sides have other layers with weights.",
            " and ".join(str([layer.name for layer in one.network.weighted]) for one in (first, second)),
            "Compare their outputs alone.",
        )
    advice, verdict = list(parity.advice), parity.verdict
    compared: tuple[GradientParity, ...] = ()
    if gradients:
        compared, words = compare_gradients(found, parity.seed)
        advice += words
        verdict = verdict if all(each.passed for each in compared) else "failed"
    training = None
    if steps:
        training = compare_training(first, second, steps, parity.seed)
        verdict = verdict if training.passed else "failed"
    unlike = unlike_in_training(first.network, second.network)
    told = [*(each.text() for each in unlike), *(word.rstrip(".") for word in frozen_words(first, second))]
    if told:
        verdict = "failed"
        advice.append(f"The two train differently: {'; '.join(told)}.")
    losses = training.losses if training is not None else ()
    finite = np.isfinite([each.largest for each in compared]).all() and np.isfinite(losses).all()
    if verdict != "failed" and not finite:
        verdict = "inconclusive"
        advice.append("Gradients or losses overflow, on both sides alike. Give smaller inputs (inputs=…).")
    remarks = tuple(each for each in parity.remarks if not each.endswith(ALONE))  # Said now as what it does.
    return dataclasses.replace(
        parity, gradients=compared, training=training, advice=tuple(advice), verdict=verdict, remarks=remarks
    )


# ── gradients ───────────────────────────────────────────────────────────────────────────────────────────────────


def compare_gradients(found: Comparison, seed: int) -> tuple[tuple[GradientParity, ...], list[str]]:
    """Compare the gradient of every weight that both sides train, and of every input; return it with words."""
    first, second = found.first.side, found.second.side
    trials = [trial for trial in found.trials if not trial.free and trial.states is None][:2]
    compared = _gradients(first, second, trials, seed)
    words = [*frozen_words(first, second), *absorbed_words(first.network)]
    if (
        not all(each.passed and np.isfinite(each.largest) for each in compared)
        and first.dtype() != "float64"
        and first.doubles()
        and second.doubles()
    ):
        # A relu kink can flip by rounding, and a small gradient be the difference of large ones.
        exact = _gradients(first.twin("float64"), second.twin("float64"), trials, seed)
        worst = max(_relative(each) for each in compared)
        said = "agree" if all(each.passed for each in exact) else "differ, too"
        apart = f"differ by {worst:.1e} of the largest" if worst >= 0 else "overflow"
        words.append(f"In float32 gradients {apart}; in float64, which decides, they {said}.")
        compared = exact
    return compared, words


def _relative(each: GradientParity) -> float:
    if not np.isfinite(each.largest):
        return -1.0  # One that is finite tells more.
    return each.max_abs / each.largest if each.largest else float(each.max_abs > 0)


def _gradients(first: Side, second: Side, trials: Sequence[Trial], seed: int) -> tuple[GradientParity, ...]:
    worst: dict[tuple[str, str], GradientParity] = {}
    for trial in trials:
        targets = draw_targets(first, trial, np.random.default_rng(seed))
        for each in _one_loss(first, second, trial, targets):
            before = worst.get((each.layer, each.tensor))
            if before is None or (not each.passed, _relative(each)) > (not before.passed, _relative(before)):
                worst[each.layer, each.tensor] = each
    return tuple(worst.values())


def draw_targets(side: Side, trial: Trial, random: np.random.Generator) -> list[np.ndarray]:
    """Return random targets in the shapes of the outputs."""
    return [random.normal(size=output.shape).astype(np.float32) for output in side.run(trial)]


def _one_loss(first: Side, second: Side, trial: Trial, targets: Sequence[np.ndarray]) -> Iterator[GradientParity]:
    rate = GRADIENT["float64" if first.dtype() == second.dtype() == "float64" else "float32"]
    sides = [one.adapter.gradients(one.obj, trial.inputs, targets) for one in (first, second)]
    pairs = [*_tensor_pairs(first, second, sides[0][1], sides[1][1])]
    sources = [layer.name for layer in first.network.layers if isinstance(layer.spec, Input)]
    for name, mine, yours in zip(sources, sides[0][2], sides[1][2], strict=True):
        if mine is not None and yours is not None:
            pairs.append((name, "", mine, yours))
    # Below the rounding of the largest gradient of all, nothing can agree.
    floor = 0.01 * rate * 1e-2 * max((_gap(mine, mine)[1] for *_, mine, _ in pairs), default=0.0)
    for layer, tensor, mine, yours in pairs:
        gap, largest, alike = _gap(mine, yours)
        allowed = max(rate * largest, floor)
        shown = largest if np.isfinite(mine).all() else float("inf")
        yield GradientParity(layer, tensor, gap, shown, allowed, alike and gap <= allowed)


def _gap(mine: np.ndarray, yours: np.ndarray) -> tuple[float, float, bool]:
    """Return the largest difference and value among the finite ones, and whether both are finite at the same places."""
    finite = np.isfinite(mine) & np.isfinite(yours)
    alike = bool((np.isfinite(mine) == np.isfinite(yours)).all())
    gap = float(np.abs(mine[finite] - yours[finite]).max(initial=0)) if alike else float("inf")
    return gap, float(np.abs(mine[finite]).max(initial=0)), alike


def _tensor_pairs(
    first: Side,
    second: Side,
    mine: dict[str, dict[str, np.ndarray]],
    yours: dict[str, dict[str, np.ndarray]],
) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Yield layer, part, and its gradient on both sides, where both have one that is more than rounding."""
    absorbed = set(itertools.chain(*absorbed_shifts(first.network).values()))
    for one, other, live, lively in zip(
        units(first, mine), units(second, yours), trained(first), trained(second), strict=True
    ):
        for half in halves(one.spec):
            for name, here, there in _parts(one.spec, half, (one, live), (other, lively)):
                both = ~np.isnan(here) & ~np.isnan(there)
                if both.any() and (one.layer[0], name) not in absorbed:
                    yield one.layer[0] if one.name == one.layer[0] else one.name, half + name, here[both], there[both]


def _parts(
    spec: Spec, half: str, mine: tuple[Unit, Unit], yours: tuple[Unit, Unit]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the parts of one direction as the function sees them; NaN stands for what is not trained.

    A gradient that is NaN is infinite here.
    """
    sides = [
        {
            name.removeprefix(half): np.where(live.weights[name] != 0, _without_nan(array), np.nan)
            for name, array in unit.weights.items()
            if name.startswith(half)
        }
        for unit, live in (mine, yours)
    ]
    for name in sides[0]:
        if "bias" not in name and name in sides[1]:
            yield name, sides[0][name], sides[1][name]
    if any(name in side for side in sides for name in ("bias", "recurrent_bias")):
        (one, alone), (other, also) = (_biases(spec, side) for side in sides)
        if one is not None and other is not None:
            yield "bias", one, other
        if alone is not None and also is not None and alone.size:
            yield "recurrent_bias", alone, also


def _without_nan(array: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(array), np.inf, array)


def _biases(spec: Spec, parts: Parts) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the gradient of the bias of each gate, whichever of two that are summed has it, and those that are not."""
    bias, recurrent = parts.get("bias"), parts.get("recurrent_bias")
    if bias is None or recurrent is None or not GATES[spec.cell]:
        return (bias if bias is not None else recurrent), None
    summed = np.array([gate in summed_gates(spec) for gate in GATES[spec.cell]])[:, None]
    return np.where(summed & np.isnan(bias), recurrent, bias), recurrent[~summed[:, 0]]


def trained(side: Side) -> list[Unit]:
    """Return for each unit where there are weights that training changes by a gradient: other than zero there."""
    natives = side.adapter.natives(side.obj)
    live = {}
    for layer in side.network.weighted:
        arrays = side.adapter.read(natives[layer.name])
        fixed = side.adapter.frozen(natives[layer.name]) if layer.trainable else set(arrays)
        live[layer.name] = {name: np.full(array.shape, float(name not in fixed)) for name, array in arrays.items()}
    return [
        unit._replace(weights={name: array * (name not in STATISTICS) for name, array in unit.weights.items()})
        for unit in units(side, live)
    ]


def frozen_words(first: Side, second: Side) -> list[str]:
    """Say which layers are frozen on one side alone."""
    said = []
    for one, other in zip(trained(first), trained(second), strict=True):
        here, there = ({name for name, live in unit.weights.items() if live.any()} for unit in (one, other))
        kernels = {name for name in here ^ there if "bias" not in name}
        if kernels:
            where = "target" if kernels & here else "source"
            said.append(f"{one.layer[0]}: {', '.join(sorted(kernels))} is frozen in the {where} alone, and left out.")
    return said


# ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────


def compare_training(first: Side, second: Side, steps: int, seed: int) -> TrainingParity:
    """Train copies of both sides, and compare losses and weights."""
    found = _trained(first, second, steps, seed)
    # Rounding grows with every step; where float32 does not agree float64 decides.
    doubles = first.doubles() and second.doubles()
    finite = bool(np.isfinite(found.losses).all())
    if not (found.passed and finite) and found.dtype != "float64" and doubles:
        exact = _trained(first, second, steps, seed, "float64")
        if exact.passed:
            drift = f"drift apart by {found.max_rel:.1e}, which is rounding" if finite else "overflow"
            word = f"In float32 the losses {drift}: float64 decides."
            return exact._replace(words=(word, *exact.words))
    return found


def _trained(first: Side, second: Side, steps: int, seed: int, dtype: str = "") -> TrainingParity:
    dtype = dtype or ("float64" if first.dtype() == second.dtype() == "float64" else "float32")
    batches = _batches(first, steps, seed)
    rule = common_rule(first, second)
    names = [one.adapter.ADAMS[rule] for one in (first, second)]
    said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in ADAM.items())
    words = [f"{steps} steps of {' and '.join(dict.fromkeys(names))}: {said}."]
    ours, here = _run(first, batches, rule, dtype)
    theirs, there = _run(second, batches, rule, dtype)
    apart = _apart(ours, theirs)
    weights = tuple(_moved(first, here, there, steps, dtype))
    passed = apart <= LOSS[dtype] and all(each.passed for each in weights)
    words += [*frozen_words(first, second), *dropout_words(first.network, second.network)]
    words += absorbed_words(first.network)
    words += _bias_words(first, second, lambda side: _run(side, batches, rule, dtype)[0], ours, theirs)
    words += _rule_words(second, rule, lambda other: _apart(theirs, _run(second, batches, other, dtype)[0]))
    losses = tuple(zip(ours, theirs, strict=True))
    return TrainingParity(steps, losses, apart, LOSS[dtype], weights, dtype, passed, tuple(words))


def _batches(side: Side, steps: int, seed: int) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Return inputs and targets for each step; the same few come again and again, so that there is a loss to fall."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(min(steps, DIFFERENT)):
        trial = draw_trial(side.network, random, BATCH, LENGTH)
        made.append((trial.inputs, draw_targets(side, trial, random)))
    return [made[step % len(made)] for step in range(steps)]


def common_rule(first: Side, second: Side) -> str:
    """Return the rule of Adam that both sides can follow: the source's own, where it is one.

    Raises:
        GatewiseError: They have none in common.
    """
    for rule in first.adapter.ADAMS:
        if rule in second.adapter.ADAMS:
            return rule
    raise GatewiseError(
        f"{first.framework} and {second.framework} have no rule of Adam in common.",
        f"{list(first.adapter.ADAMS)} and {list(second.adapter.ADAMS)}.",
        "Compare gradients.",
    )


def _run(side: Side, batches: Sequence[Any], rule: str, dtype: str) -> tuple[list[float], Side]:
    copy = training_copy(side, dtype)
    return copy.adapter.train(copy.obj, batches, rule=rule, **ADAM), copy


def training_copy(side: Side, dtype: str) -> Side:
    """Return a copy to train, frozen where the side is, and without what acts on weights in training."""
    if hasattr(side.adapter, "twin"):
        return side.twin(dtype)
    layers = [dataclasses.replace(layer, rules=()) for layer in side.network.layers]
    return side.rebuilt(Network(tuple(layers), side.network.outputs), dtype)


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    if (np.isfinite(ours) != np.isfinite(theirs)).any():
        return float("inf")
    pairs = [pair for pair in zip(ours, theirs, strict=True) if np.isfinite(pair[0])]
    return max((abs(one - other) / max(abs(one), 1e-30) for one, other in pairs), default=0.0)


def _moved(start: Side, here: Side, there: Side, steps: int, dtype: str) -> Iterator[GradientParity]:
    """Yield each part after training, biases as the function sees them: their sums."""
    furthest = ADAM["learning_rate"] * steps
    absorbed = absorbed_shifts(here.network)
    drifts = dict.fromkeys(itertools.chain(*absorbed.values()), 0.0)
    for before, one, other in zip(units(start), units(here), units(there), strict=True):
        for half in halves(one.spec):
            for name, mine, yours in _values(one, other, half):
                gap, largest, alike = _gap(mine, yours)
                if (one.layer[0], name) in drifts:
                    drifts[one.layer[0], name] = gap
                    continue
                moved, allowed = furthest, MOVED[dtype] * furthest
                if name in STATISTICS:
                    moved = _gap(mine, before.weights[name])[0]
                    allowed = LOSS[dtype] * moved + steps * float(np.finfo(dtype).eps) * largest
                if name == "mean":
                    allowed += sum(drifts[shift] for shift in absorbed.get(one.name, ()))  # It has them in it.
                yield GradientParity(one.name, half + name, gap, moved, allowed, alike and gap <= allowed)


def _values(one: Unit, other: Unit, half: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    sides = [
        {name.removeprefix(half): array for name, array in unit.weights.items() if name.startswith(half)}
        for unit in (one, other)
    ]
    for name in sides[0]:
        if "bias" not in name:
            yield name, sides[0][name], sides[1][name]
    if all(any(name in side for name in ("bias", "recurrent_bias")) for side in sides):
        (here, alone), (there, also) = (_summed(one.spec, side) for side in sides)
        yield "bias", here, there
        if alone.size:
            yield "recurrent_bias", alone, also


def _summed(spec: Spec, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias of each gate, the sum of two where that is all it sees, and those that are inside the reset."""
    known = next(parts[name] for name in ("bias", "recurrent_bias") if name in parts)
    bias, recurrent = (parts.get(name, np.zeros_like(known)) for name in ("bias", "recurrent_bias"))
    if not GATES[spec.cell]:
        return bias + recurrent, recurrent[:0]
    summed = np.array([gate in summed_gates(spec) for gate in GATES[spec.cell]])
    return np.where(summed[:, None], bias + recurrent, bias), recurrent[~summed]


# ── what cannot agree ───────────────────────────────────────────────────────────────────────────────────────────


def dropout_words(*networks: Network) -> list[str]:
    """Say that dropout was off, where there is any."""
    rates = ("rate", "dropout", "recurrent_dropout", "dropout_between")
    names = {
        layer.name
        for network in networks
        for layer in network.layers
        if any(layer.spec.options().get(rate) for rate in rates)
    }
    if not names:
        return []
    return [
        f"Dropout ({', '.join(sorted(names))}) was off. Its masks are random, so that with it no two runs agree, "
        "not even two of one framework."
    ]


def absorbed_shifts(network: Network) -> dict[str, list[tuple[str, str]]]:
    """Return batch normalisation or softmax → the layers in front and their part, a bias or shift, that it takes away.

    What is added to a feature in the whole batch goes off with the mean, and what is added to all that a softmax shares
    out with their sum. So its gradient is zero but for rounding, and
    by that Adam moves it.

    >>> absorbed_shifts(Network.chain(Input((3,)), Dense(3, 2), Dropout(0.1), BatchNorm(2)))
    {'batchnorm': [('dense', 'bias')]}
    """
    uses = Counter(layer.owner for layer in network.layers)
    references = [*network.results, *(each for layer in network.layers for each in (*layer.inputs, layer.mask) if each)]
    readers = Counter(source_of(reference)[0] for reference in references)

    def in_front(layer: Layer) -> Iterator[tuple[str, str]]:
        front = network[source_of(layer.inputs[0])[0]]
        options = front.spec.options()
        passes = isinstance(front.spec, Dropout | Pool | Upsample)  # Dropout is off.
        adds = isinstance(front.spec, Dense | Conv | Norm) and options.get("activation", "linear") == "linear"
        if not (passes or adds) or uses[front.owner] > 1 or readers[front.name] > 1:
            return
        part = "shift" if isinstance(front.spec, Norm) else "bias"
        if adds and options[part] and front.trainable:
            yield front.name, part
        if passes or isinstance(front.spec, Dense):
            yield from in_front(front)

    found = softmax_shifts(network)
    for layer in network.layers:
        if isinstance(layer.spec, BatchNorm) and layer.trainable:
            for shift in in_front(layer):
                found.setdefault(layer.owner, []).append(shift)
    return found


def absorbed_words(network: Network) -> list[str]:
    """Say which biases were left out because a batch normalisation or a softmax takes them away."""
    return [
        f"{name}: {part} was left out: {norm} takes it away with the {_taken_with(network[norm])}, and its gradient is "
        "rounding."
        for norm, shifts in absorbed_shifts(network).items()
        for name, part in shifts
    ]


def _taken_with(layer: Layer) -> str:
    return "mean of the batch" if isinstance(layer.spec, BatchNorm) else "sum of the exponentials"


def _trained_biases(unit: Unit, half: str) -> int:
    """Return how many biases training changes that a gate sees only as a sum."""
    if not isinstance(unit.spec, Recurrent):
        return 0
    summed = [gate in summed_gates(unit.spec) for gate in GATES[unit.spec.cell]]
    parts = [unit.weights.get(half + name) for name in ("bias", "recurrent_bias")]
    return sum(part is not None and bool(part[summed].any()) for part in parts)


def doubled_layers(first: Side, second: Side) -> tuple[list[str], list[str]]:
    """Return the layers of the source with two trainable biases where the target has one, and the reverse."""
    here, there = [], []
    for one, other in zip(trained(first), trained(second), strict=True):
        for half in halves(one.spec):
            mine, yours = _trained_biases(one, half), _trained_biases(other, half)
            if (mine, yours) == (2, 1):
                here.append(one.layer[0])
            if (mine, yours) == (1, 2):
                there.append(other.layer[0])
    return list(dict.fromkeys(here)), list(dict.fromkeys(there))


def _bias_words(first: Side, second: Side, run: Any, ours: Sequence[float], theirs: Sequence[float]) -> list[str]:
    """Predict what two trainable biases do, and say what was seen, and what freezing one of them does."""
    here, there = doubled_layers(first, second)
    if not here and not there:
        return []
    who, names, one = ("source", here, "target") if here else ("target", there, "source")
    said = [
        f"In the {who}, {', '.join(names)} has two trainable biases, in the {one} one. Both get the same gradient, so "
        "Adam moves each as far as it would move one, and their sum twice as far. So the losses drift apart."
    ]
    if here and there:
        said.append(f"So it is in the source with {', '.join(there)} of the target.")
        return said
    side, wanted = (first, theirs) if here else (second, ours)
    once = _frozen_once(side, names)
    if once is not None:
        said.append(
            f"With one of the two frozen the losses differ by {_apart(wanted, run(once)):.1e}, with both trained by "
            f"{_apart(ours, theirs):.1e}. "
            + ("Freeze it before you train." if here else "A port freezes it unless second_bias='trainable'.")
        )
    return said


def _frozen_once(side: Side, names: Sequence[str]) -> Side | None:
    """Return a copy in which the second bias of some layers is frozen, or None where that is no tensor by itself."""
    copy = training_copy(side, side.dtype())
    natives = copy.adapter.natives(copy.obj)
    layouts = own_layouts(copy.framework, copy.network, copy.adapter.form(copy.obj), natives)
    for layer in copy.network.weighted:
        if layer.name not in names:
            continue
        held: dict[str, set[tuple[str, str]]] = {}
        for key, slot in store(layouts[layer.name], layer.spec).slots.items():
            held.setdefault(slot.tensor, set()).add((key.part, key.gate))
        summed = summed_gates(layer.spec)
        tensors = [
            name
            for name, blocks in held.items()
            if all(part == "recurrent_bias" and gate in summed for part, gate in blocks)
        ]
        if not tensors:
            return None
        copy.adapter.freeze(natives[layer.name], tensors)
    return copy


def _rule_words(second: Side, rule: str, apart: Any) -> list[str]:
    """Say how far the target's own Adam goes from the source's, where it follows another rule."""
    own = next(iter(second.adapter.ADAMS))
    if own == rule:
        return []
    name, used = second.adapter.ADAMS[own], second.adapter.ADAMS[rule]
    return [
        f"{name} adds epsilon to another number (after the correction of its means, not before) and cannot agree "
        f"in the last digits: its losses differ from those above by {apart(own):.1e}. {used} has the source's rule."
    ]
