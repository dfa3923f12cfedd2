"""What becomes of the weights of a pair: through the layouts of both where they are known, else tensor by tensor."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gatewise.core.layout import CANONICAL, store
from gatewise.core.plan import Plan, Verdict, plan
from gatewise.core.spec import Recurrent
from gatewise.errors import GatewiseError, TransferError
from gatewise.transfers.sides import Side, Unit, prefix

Orders = tuple[tuple[int, ...], ...]
"""The order of the source's axes in each tensor of a pair that no layout describes."""


class Pairing(NamedTuple):
    """A unit of the source, the unit of the target that it fills, and how that was decided.

    Attributes:
        source: Of the source.
        target: Of the target.
        how: How it was decided.
        sure: Whether it has no rivals.
        orders: For tensors that no layout describes, the order of the source's axes in each.
        forms: For layers made up of a user's own tensors, which of the possible layouts each side has.
        flattened: Where a dense layer reads an image laid out flat: the shape that the source laid flat, without the
            batch, and the order of its axes in the target.
    """

    source: Unit
    target: Unit
    how: str
    sure: bool
    orders: Orders = ()
    forms: tuple[int, int] = (0, 0)
    flattened: tuple[tuple[int, ...], tuple[int, ...]] | None = None


@dataclass
class Filled:
    """What was written into a target, and what is to be said of it.

    Attributes:
        tensors: Item → its tensors that were written.
        second: Item → tensors that are second biases, which are zero.
        casts: Type of the values, type of the tensors → how many tensors.
        notes: Sentences.
    """

    tensors: dict[int, list[str]] = field(default_factory=dict)
    second: dict[int, set[str]] = field(default_factory=dict)
    casts: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def way(pairing: Pairing) -> Plan | None:
    """Return the plan between two units of known layers; None for tensors."""
    source, target = pairing.source, pairing.target
    if source.spec is None or target.spec is None or source.layout is None or target.layout is None:
        return None
    if source.spec.cell != target.spec.cell:
        return None
    spec = target.spec  # A part that the source lacks is filled with what leaves the function alone.
    if not isinstance(spec, Recurrent):
        spec = spec.replace(activation="linear") if "activation" in spec.options() else spec
    return plan(spec, source.layout, target.layout)


def check_possible(pairing: Pairing) -> None:
    """Raise ``TransferError`` where no weights make the target's layer compute what the source's does."""
    source, target = pairing.source.spec, pairing.target.spec
    if source is None or target is None:
        return
    resets = source.options().get("reset"), target.options().get("reset")
    if resets[0] != resets[1]:
        raise TransferError(
            f"{pairing.source.name!r} cannot go to {pairing.target.name!r}: the source resets {resets[0]} the "
            f"recurrent product, the target {resets[1]} it.",
            "A GRU that resets before the product and one that resets after it are different functions; no weights "
            "agree.",
            "Build the target with the same reset: reset_after=False in Keras is gatewise_torch.GRU(reset='before').",
        )
    try:
        made = way(pairing)
    except GatewiseError:
        return
    if made is not None and made.verdict is Verdict.IMPOSSIBLE and not made.unless:
        raise TransferError(f"{pairing.source.name!r} cannot go to {pairing.target.name!r}.", made.reason, made.way_out)


def verdict(pairing: Pairing) -> str:
    """Say what a pair keeps: ``exact``, ``equivalent``, or of plain tensors ``copied`` or ``transposed``."""
    if pairing.orders or pairing.source.spec is None or pairing.target.spec is None:
        moved = any(list(order) != sorted(order) for order in pairing.orders)
        return "copied, axes reordered" if moved else "copied as they are"
    try:
        made = way(pairing)
    except GatewiseError:
        return str(Verdict.EQUIVALENT)
    return str(made.verdict if made is not None else Verdict.EXACT)


def fill(source: Side, target: Side, pairs: Iterable[Pairing]) -> Filled:
    """Write what some pairs give into a target, layer by layer; it is to be a copy.

    Raises:
        TransferError: The target has no place for a weight, or one place for two.
    """
    made = Filled()
    assert target.reach is not None
    groups: dict[int, list[Pairing]] = {}
    for pair in pairs:
        groups.setdefault(pair.target.item, []).append(pair)
    written: dict[Hashable, tuple[str, str, np.ndarray]] = {}
    for number, group in _pieces(target, groups):
        arrays = values(source, target, number, group, made)
        native = target.inventory.items[number].native
        for name, array in arrays.items():
            _check_one_place(target, number, name, array, group[0], written)
            kind = target.reach.dtype(native, name)
            if kind != array.dtype.name:
                made.casts[array.dtype.name, kind] += 1
        target.reach.write(native, arrays)
        made.tensors.setdefault(number, []).extend(arrays)
    return made


def _pieces(target: Side, groups: Mapping[int, list[Pairing]]) -> Iterator[tuple[int, list[Pairing]]]:
    """Yield what is written at a time: a layer, or one layer and direction of a stack that has tensors of its own."""
    for number, group in groups.items():
        alone = all(pair.target.spec and target.own(pair.target, pair.forms[1]) and pair.source.spec for pair in group)
        yield from ((number, [pair]) for pair in group) if alone else [(number, group)]


def values(
    source: Side, target: Side, number: int, pairs: Sequence[Pairing], made: Filled | None = None
) -> dict[str, np.ndarray]:
    """Return the values that some pairs give the tensors of one item of a target."""
    arrays: dict[str, np.ndarray] = {}
    known = [pair for pair in pairs if pair.source.spec is not None and pair.target.spec is not None]
    if known:
        arrays |= _of_layer(source, target, number, known, made or Filled())
    for pair in pairs:
        if pair not in known:
            arrays |= _of_tensors(source, pair)
    return arrays


def _check_one_place(
    target: Side,
    number: int,
    name: str,
    array: np.ndarray,
    pair: Pairing,
    written: dict[Hashable, tuple[str, str, np.ndarray]],
) -> None:
    """Raise ``TransferError`` where one tensor of the target, which stands in it twice, would get two values."""
    place = target.identity(number, name)
    if place not in target.shared:
        return
    if place in written and not np.array_equal(written[place][2], array):
        owner, other, _ = written[place]
        raise TransferError(
            f"{other!r} and {pair.source.name!r} hold different weights, and the target has one tensor for both.",
            f"{owner!r} and {pair.target.name!r} share their weights (tied).",
            "Give each a tensor of its own in the target, or tie them in the source, too.",
        )
    written.setdefault(place, (pair.target.name, pair.source.name, array))


def _of_layer(source: Side, target: Side, number: int, pairs: Sequence[Pairing], made: Filled) -> dict[str, np.ndarray]:
    """Return the stored tensors of one known layer of the target."""
    item = target.inventory.items[number]
    spec, form = item.spec, pairs[0].forms[1]
    layout = target.layout(number, form)
    assert spec is not None
    stored, canonical = store(layout, spec), CANONICAL[spec.cell]
    alone = target.own(pairs[0].target, form) if len(pairs) == 1 else None
    whole = target.canonical(number, form) if alone is None else {}
    for pair in pairs:
        check_possible(pair)
        before = prefix(spec, pair.target.place)
        parts = _fitted(source, pair, made.notes)
        whole |= {f"{before}{name}": array for name, array in parts.items() if f"{before}{name}" in whole}
        there = way(pair)
        if there is not None and isinstance(spec, Recurrent):
            bare = {
                name
                for name in there.target_shapes
                if all(not step.sources for step in there.steps if step.target and step.target.tensor == name)
            }
            layer, direction = pair.target.place
            slots = [
                (key, slot) for key, slot in stored.slots.items() if (key.layer, key.direction) == (layer, direction)
            ]
            single = {slot.tensor for key, slot in store(there.target, there.spec).slots.items() if slot.tensor in bare}
            if single and pair.source.spec is not None and pair.source.spec.options().get("bias"):
                made.second.setdefault(number, set()).update(
                    slot.tensor for key, slot in slots if key.part == "recurrent_bias"
                )
        if alone is not None and pair.target.spec is not None:
            arrays = plan(pair.target.spec, canonical, layout).apply(parts)
            return {alone[name]: array for name, array in arrays.items()}
    missing = [name for name in store(canonical, spec).shapes if name not in whole]
    whole |= {name: np.zeros(store(canonical, spec).shapes[name], np.float32) for name in missing}
    arrays = plan(spec, canonical, layout).apply(whole)
    gone = {slot.tensor for key, slot in stored.slots.items() if key.part in missing}
    return {name: array for name, array in arrays.items() if name not in gone}


def _fitted(source: Side, pair: Pairing, notes: list[str]) -> dict[str, np.ndarray]:
    """Return the canonical parts of a unit of the source as the target's has them."""
    spec = pair.target.spec
    assert spec is not None
    parts, shapes = source.parts(pair.source, pair.forms[0]), store(CANONICAL[spec.cell], spec).shapes
    made: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        if name == "kernel" and pair.flattened is not None:
            made[name] = _turned(parts[name], *pair.flattened).reshape(shape)
        elif name in parts:
            made[name] = parts[name].reshape(shape)
        elif name in ("mean", "variance"):
            notes.append(f"{pair.target.name}: the source keeps no moving {name}; the target's stays.")
        else:
            made[name] = np.full(shape, 1.0 if name == "scale" else 0.0, np.float32)
            if name != "recurrent_bias":
                notes.append(f"{pair.target.name}: the source has no {name}; the target's is {made[name].flat[0]:g}.")
    left = {name: array for name, array in parts.items() if name not in shapes}
    for name in ("mean", "variance"):
        if name in left:
            notes.append(f"{pair.source.name}: the target keeps no moving {name}.")
            del left[name]
    neutral = [np.all(array == (1 if name == "scale" else 0)) for name, array in left.items()]
    if not all(neutral):
        what = " and ".join(name.replace("_", " ") for name in left)
        option = "affine/elementwise_affine" if {"scale", "shift"} & left.keys() else "bias"
        raise TransferError(
            f"{pair.source.name!r} has a {what}, and {pair.target.name!r} has none.",
            f"{pair.source.kind} {pair.source.spec} → {pair.target.kind} {pair.target.spec}.",
            f"Build {pair.target.name!r} with its {option} ({option}=True).",
        )
    return made


def _turned(kernel: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """Return a kernel (units, features) whose features are laid flat in another order of their axes."""
    units = len(kernel)
    return kernel.reshape(units, *shape).transpose(0, *(axis + 1 for axis in order)).reshape(units, -1)


# ── tensors that no layout describes ────────────────────────────────────────────────────────────────────────────


def _of_tensors(source: Side, pair: Pairing) -> dict[str, np.ndarray]:
    """Return the tensors of a target's unit from those of the source's."""
    couples = couple(pair.source, pair.target)
    arrays = source.read(pair.source.item, [mine for (mine, _), _ in couples])
    orders = pair.orders or tuple(axis_orders(mine, yours)[0] for (_, mine), (_, yours) in couples)
    return {
        yours: _squeezed(arrays[mine]).transpose(order).reshape(shape)
        for ((mine, _), (yours, shape)), order in zip(couples, orders, strict=True)
    }


def _squeezed(array: np.ndarray) -> np.ndarray:
    return array.reshape([size for size in array.shape if size != 1])


def couple(source: Unit, target: Unit) -> list[tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]]:
    """Return which tensor goes where between two units of tensors of the same sizes; in their order."""
    left = list(source.tensors)
    pairs = []
    for yours in target.tensors:
        fitting = [mine for mine in left if _bare(mine[1]) == _bare(yours[1])]
        best = min(fitting, key=lambda mine: (mine[0] != yours[0], _role(mine[0]) != _role(yours[0])))
        left.remove(best)
        pairs.append((best, yours))
    return pairs


def _bare(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(size for size in shape if size != 1))


ROLES = {"gamma": "scale", "weight": "scale", "beta": "shift", "bias": "shift", "alpha": "scale", "kernel": "scale"}
"""Last word of the name of a tensor → what it is, by which two of one shape are told apart."""


def _role(name: str) -> str:
    last = name.replace("/", ".").rpartition(".")[2]
    return ROLES.get(last, last)


def axis_orders(mine: Sequence[int], yours: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the orders of the axes in which one tensor has another's shape, the likeliest first; ones are left out.

    A kernel of more than two axes has its channels last in Keras, and first in torch.

    >>> axis_orders((3, 5), (5, 3)), axis_orders((4, 4), (4, 4))
    ([(1, 0)], [(0, 1), (1, 0)])
    >>> axis_orders((3, 3, 4, 8), (8, 4, 3, 3))[0]
    (3, 2, 0, 1)
    """
    ours, theirs = ([size for size in shape if size != 1] for shape in (mine, yours))
    number = len(ours)
    plain = tuple(range(number))
    usual = [plain]
    if number > 2:
        usual += [(number - 1, number - 2, *range(number - 2)), (*range(2, number), 1, 0)]
    every = [*usual, *itertools.permutations(range(number))] if number <= 5 else usual
    return [order for order in dict.fromkeys(every) if [ours[axis] for axis in order] == theirs]
