"""Names the mistakes of a copy that somebody made by hand: which layer, and what was done to its weights.

The layers are paired and the right weights tried on a copy of the target, as a transfer does; then the target's own
weights are compared with them, layer by layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gatewise.arrays.readings import Pair
from gatewise.errors import GatewiseError, TransferError
from gatewise.parity import units as parity
from gatewise.parity.diagnosis import weights_differ
from gatewise.parity.result import Found, Parity
from gatewise.transfers.moving import Pairing, values
from gatewise.transfers.opening import sides_of
from gatewise.transfers.sides import Side, Unit
from gatewise.transfers.transfer import Carrier
from gatewise.transfers.trials import given

Parts = dict[str, np.ndarray]


def wrong_copies(source: Any, target: Any, inputs: Any = None) -> tuple[Found, ...]:
    """Return the mistakes by which a target's weights are not the source's, and what else keeps the two apart.

    Args:
        source: The model with the right weights, of any class.
        target: The model that should compute the same; it comes back as it was.
        inputs: What both are called with, as in ``gatewise.transfer``.

    Returns:
        A mistake each, with the difference of the outputs before and after it is undone; empty where none is known.
    """
    try:
        feed = given(inputs)
        carrier = Carrier(*sides_of(source, target, feed), {}, feed, "frozen", None, False)
        pairs, _, _ = carrier.paired()
    except TransferError as error:
        text = " ".join(line.strip() for line in str(error).splitlines() if "Hint:" not in line)
        return (Found("", "option", text, float("inf"), float("nan")),)
    except GatewiseError:
        return ()  # It cannot be taken apart: then there is nothing to say.
    try:
        return _compared(carrier, pairs)
    except GatewiseError:
        return ()


def _compared(carrier: Carrier, pairs: list[Pairing]) -> tuple[Found, ...]:
    """Return the mistakes in the weights, then what else differs; the target comes back as it was."""
    theirs = {unit: _held(carrier.target, unit) for unit in carrier.theirs}
    others: tuple[Found, ...] = ()
    reach = carrier.target.reach
    if reach is None:
        return ()
    with carrier.rehearsing() as (copy, _):
        start = reach.snapshot(copy)
        try:
            carrier.settle(copy, pairs)
        except TransferError as error:
            if error.result is None:
                return ()
            others = error.result.parity.diagnosis
        if carrier.tried is None:
            return ()
        reach.restore(copy, start)
        carrier.tried.now.clear()
        return (*_weights(carrier, theirs), *others)


def with_mistakes(parity: Parity, source: Any, target: Any, inputs: Any) -> Parity:
    """Return a comparison with the mistakes of the target's weights, where it failed and nothing else was found."""
    if parity.verdict != "failed" or parity.diagnosis:
        return parity
    return replace(parity, diagnosis=wrong_copies(source, target, inputs))


def _held(side: Side, unit: Unit) -> Parts:
    """Return copies of the weights of a unit, by canonical parts where these are known."""
    held = side.parts(unit) if unit.spec is not None else side.read(unit.item, [name for name, _ in unit.tensors])
    return {name: np.array(array) for name, array in held.items()}


def _weights(carrier: Carrier, theirs: dict[Unit, Parts]) -> list[Found]:
    """Return the mistakes in the weights, each with the outputs before and after it is undone."""
    tried, manner = carrier.tried, carrier.manner
    assert tried is not None
    told: dict[tuple[str, str], list[Pairing]] = {}
    for pair in carrier.chosen:
        for mistake, undoing in _mistakes(carrier, pair, theirs):
            told.setdefault((mistake, undoing), []).append(pair)
    found: list[Found] = []
    before = tried.away(None, manner)
    for (mistake, undoing), pairs in told.items():
        later = [each for other in list(told)[list(told).index((mistake, undoing)) + 1 :] for each in told[other]]
        tried.fill([pair for pair in carrier.chosen if pair in pairs and pair not in later])
        after = tried.away(None, manner)
        names = " and ".join(repr(pair.target.name) for pair in pairs)
        words = f"Outputs match to {after:.1e}" if after <= carrier.tolerance else f"The difference is {after:.1e}"
        text = f"{words} once, in the target, {undoing.replace('{whose}', names)}; before, it is {before:.1e}."
        found.append(Found(", ".join(pair.target.name for pair in pairs), mistake, text, before, after))
        before = after
    return found


def _mistakes(carrier: Carrier, pair: Pairing, theirs: dict[Unit, Parts]) -> list[tuple[str, str]]:
    """Return the mistakes that make a target's weights of the source's, and what undoes each."""
    source, target = pair.source, pair.target
    right = values(carrier.source, carrier.target, target.item, [pair])
    if source.spec is None or target.spec is None or target not in theirs:
        now = carrier.target.read(target.item, list(right))
        return [] if all(_equal(right[name], now[name]) for name in right) else [("other-weights", _OTHER)]
    mine, yours = carrier.source.parts(source), theirs[target]
    yours = {name: array.reshape(mine[name].shape) if name in mine else array for name, array in yours.items()}
    eps = max(
        float(np.finfo(array.dtype).eps) for array in (*mine.values(), *yours.values()) if array.dtype.kind == "f"
    )
    orders = [unit.layout.gates for unit in (target, source) if unit.layout is not None]
    if Pair(source.spec, target.spec, mine, yours, orders, eps).equal:
        return []
    elsewhere = _from_elsewhere(carrier, source, mine, yours)
    if elsewhere:
        return [("other-layer", elsewhere)]
    one, two = (
        parity.Unit(unit.name, (unit.name, 0), unit.spec, parts, unit.layout.gates if unit.layout else "")
        for unit, parts in ((source, mine), (target, yours))
        if unit.spec is not None
    )
    found = [(each.mistake, each.undoing) for each in weights_differ(one, two, eps)]
    return found or [("other-weights", _OTHER)]


def _from_elsewhere(carrier: Carrier, source: Unit, mine: Parts, yours: Parts) -> str:
    """Say where the parts that differ were taken from, where that is another layer, or another part of this one."""

    def same(one: np.ndarray, other: np.ndarray) -> bool:
        return one.shape == other.shape and _equal(one, other)

    wrong = [name for name in mine if name in yours and not same(mine[name], yours[name])]
    if any("bias" in name for name in wrong) and all("bias" in name for name in wrong):
        return ""  # Zero biases are alike everywhere, and two may have been added.
    for other in carrier.ours:
        if other.spec is None or source.spec is None or other.spec.cell != source.spec.cell or other == source:
            continue
        read = carrier.source.parts(other)
        if all(name in read and same(read[name], yours[name]) for name in wrong):
            what = "weights" if len(wrong) > 1 else wrong[0].replace("_", " ")
            return f"the {what} of {{whose}} come from {source.name!r}, and not from {other.name!r}"
    for name in wrong:
        taken = [part for part in mine if part != name and same(mine[part], yours[name])]
        if taken and np.any(mine[taken[0]]):
            return f"the {name} of {{whose}} comes from the {name} of {source.name!r}, and not from its {taken[0]}"
    return ""


_OTHER = "{whose} has the weights of the source (no mistake that is known here makes them of these)"


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    scale = float(np.abs(one).max(initial=0.0))
    return bool((np.abs(np.asarray(one, np.float64) - other) <= 1e-6 * max(scale, 1e-6)).all())
