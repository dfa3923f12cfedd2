"""Lays the weights of one layer beside those of another that should have the same, and says how one became the other.

Each part is read in every wrong way that is known: gates in another order, a kernel not transposed, a bias counted
twice.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gatewise.core.layout import GATES, gates_of, summed_gates
from gatewise.core.spec import Spec

Array = np.ndarray

Parts = dict[str, Array]
"""Canonical part → array, of one direction."""

Same = Callable[[Array, Array], bool]
"""Says whether two arrays are equal but for rounding."""

EQUAL = 16
"""How many roundings two weights may be apart and still count as equal."""


class Reading(NamedTuple):
    """One mistake that made the target's weights of a part out of the source's.

    Attributes:
        mistake: Its slug.
        detail: What undoes it; ``{what}`` stands for the part.
        part: The part that has it.
        plant: Makes the mistake in the canonical weights of one direction.
    """

    mistake: str
    detail: str
    part: str
    plant: Callable[[Parts], Parts]


Step = tuple[str, str, Callable[..., Any]]
"""A mistake and what undoes it, with what makes it: of one kernel, or of both biases, (gates, units, columns)."""


class Pair:
    """One direction of one unit on both sides: which known mistakes make the target's weights of the source's."""

    def __init__(self, spec: Spec, other: Spec, mine: Parts, yours: Parts, layouts: Sequence[str], eps: float) -> None:
        self.cell, self.gates = spec.cell, GATES[spec.cell]
        # Where the resets differ, the one that sums all biases leaves only their sums to compare.
        summed = set(summed_gates(spec)) | set(summed_gates(other)) if self.gates else set()
        self.summed = np.array([gate in summed for gate in self.gates] or [True])
        self.mine, self.yours, self.eps = mine, yours, eps
        orders = [tuple(map(self.gates.index, order)) for order in dict.fromkeys((*layouts, self.gates))]
        self.orders = orders if self.gates else [(0,)]
        self.found: list[tuple[int, ...]] = []

    def same(self, one: Array, other: Array, scale: float | None = None) -> bool:
        """Say whether two arrays are equal but for rounding."""
        if one.shape != other.shape:
            return False
        largest = float(np.abs(one).max(initial=0)) if scale is None else scale
        return bool((np.abs(one - other) <= EQUAL * self.eps * largest).all())

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def kernels(self) -> list[str]:
        """The parts that are no bias."""
        return [name for name in self.mine if "bias" not in name]

    def biases(self, parts: Parts) -> tuple[Array, Array]:
        """Return the two biases, (gates, units); zeros where there are none."""
        known = next((parts[name] for name in ("bias", "recurrent_bias") if name in parts), None)
        if known is None:
            known = next(
                (self.mine | self.yours)[name] for name in ("bias", "recurrent_bias") if name in self.mine | self.yours
            )
            known = np.zeros_like(known)
        pair = [np.asarray(parts.get(name, np.zeros_like(known)), np.float64) for name in ("bias", "recurrent_bias")]
        return tuple(each.reshape(len(self.summed), -1) for each in pair)  # type: ignore[return-value]

    @property
    def has_bias(self) -> bool:
        """Whether one side has a bias."""
        return any("bias" in name for name in self.mine | self.yours)

    def acts(self, bias: Array, recurrent: Array) -> Array:
        """Return what the function sees of two biases: their sums, and a bias inside the reset by itself."""
        alone = ~self.summed
        return np.concatenate([np.where(self.summed[:, None], bias + recurrent, bias), recurrent[alone]])

    @property
    def equal(self) -> bool:
        """Whether both have the same weights."""
        if not all(self.same(self.mine[name], self.yours[name]) for name in self.kernels):
            return False
        return not self.has_bias or self.same(self.acts(*self.biases(self.mine)), self.acts(*self.biases(self.yours)))

    def tensors(self, part: str) -> list[str]:
        """Return the canonical tensors of a part; both biases are one."""
        return ["bias", "recurrent_bias"] if part == "bias" and self.gates else [part]

    def telling(self) -> set[str]:
        """Return the parts that would show a mistake: those whose gates are not all alike."""
        shown = {name for name in self.kernels if gates_of(self.cell, name)}
        if self.has_bias and self.acts(*self.biases(self.mine)).any():
            shown.add("bias")
        return shown

    # ── mistakes ────────────────────────────────────────────────────────────────────────────────────────────────

    def readings(self) -> list[Reading]:
        """Return the mistakes of each part that differs, in the order in which they were made."""
        found = [reading for name in self.kernels for reading in self.kernel(name)]
        return found + self.bias() if self.has_bias else found

    def read(
        self, part: str, steps: Sequence[Step], plant: Callable[[Step], Callable[[Parts], Parts]]
    ) -> list[Reading]:
        """Return a part's mistakes; one alone makes exactly what the target has."""
        if len(steps) > 1:
            return [Reading(step[0], step[1], part, plant(step)) for step in steps]
        exact = {name: self.yours[name] for name in self.tensors(part) if name in self.yours}
        missing = [name for name in self.tensors(part) if name in self.mine and name not in self.yours]
        exact |= {name: np.zeros_like(self.mine[name]) for name in missing}
        return [Reading(mistake, detail, part, lambda _: exact) for mistake, detail, _ in steps]

    def kernel(self, name: str) -> list[Reading]:
        """Return the mistakes in one kernel, none where there is none."""
        mine, yours = self.mine[name], self.yours[name]
        if self.same(mine, yours):
            return []
        gates = gates_of(self.cell, name)
        count = len(gates) or 1
        rows = (mine.shape[1:] if gates else (*mine.shape, 1))[0]
        flat, target = (each.reshape(count, rows, -1) for each in (mine, yours))

        def plant(step: Step) -> Callable[[Parts], Parts]:
            def made(parts: Parts) -> Parts:
                return {name: step[2](parts[name].reshape(flat.shape)).reshape(mine.shape)}

            return made

        return self.read(name, self.kernel_steps(name, gates, flat, target), plant)

    def kernel_steps(self, name: str, gates: str, mine: Array, yours: Array) -> list[Step]:
        """Return what makes one kernel (gates, rows, columns) of another."""
        identity = tuple(range(len(mine)))
        natural = list(_variants(yours.shape, self.orders if gates and gates == self.gates else [identity]))
        scale = float(np.abs(mine).max(initial=0))
        for same, last in self.closeness([yours], scale):
            read_as = [(step, self.ordered(mine, step[2](yours), same)) for step in natural]
            fitting = [(step, order) for step, order in read_as if order is not None]
            if fitting:
                # As few mistakes as will do.
                (mistake, detail, read), order = min(fitting, key=lambda each: bool(each[0][0]) + (each[1] != identity))
                steps: list[Step] = []
                if order != identity:
                    self.found.append(order)
                    steps.append(("gates-exchanged", exchange(gates, order), _taken(np.argsort(order))))
                if mistake:
                    steps.append((mistake, detail, _undone(read, yours.shape)))
                return steps + last
        for order in itertools.permutations(identity) if gates == self.gates else ():
            for mistake, detail, read in _packed(yours.shape, order, back=False):
                if self.same(mine, read(yours), scale):
                    lying = f", its gates taken as {' '.join(gates[place] for place in order)}"
                    return [(mistake, detail + lying, _undone(read, yours.shape))]
        if self.cell == "embedding":
            for step in (1, -1):
                if self.same(mine[0][1:-1], np.roll(yours[0], step, 0)[1:-1]):
                    return [("rows-shifted", "the rows of {what} are moved by one", _taken([0]))]
        return self.value_steps(name, mine, yours) or [("other-weights", _OTHER, _taken([0]))]

    def value_steps(self, name: str, mine: Array, yours: Array) -> list[Step]:
        """Return the one mistake that moves all rows or columns, or makes other numbers of a kernel."""
        if mine.shape != yours.shape:
            return []
        count, rows, columns = mine.shape
        for order in self.orders if len(self.orders[0]) == count else [range(count)]:
            here, there = (each[list(order)].reshape(1, count * rows, columns) for each in (mine, yours))
            for axis, what in ((1, "rows"), (2, "columns")):
                by = self.moved(here, there, axis)
                if by:
                    words = f"the {what} of {{what}}, of which each is {by} too far, are moved back"
                    return [("rows-shifted" if axis == 1 else "columns-shifted", words, _taken([0]))]
        if name == "variance" and self.same(mine, yours * yours):
            return [("variance-root", "{what} is squared, as it is the standard deviation there", _taken([0]))]
        if any((yours == number).all() for number in (0, 1)):
            return [("not-copied", "{what} is copied, and not left as in a new layer", _taken([0]))]
        return []

    def moved(self, mine: Array, yours: Array, axis: int) -> int:
        """Return by how many places the target's rows or columns stand too far, the last ones in front; 0 if not so."""
        count = mine.shape[axis]
        first = mine.take(0, axis)
        for by in range(1, count):
            if self.same(first, yours.take(by, axis)) and self.same(mine, np.roll(yours, -by, axis)):
                return by
        return 0

    def closeness(self, yours: Sequence[Array], scale: float) -> Iterator[tuple[Same, list[Step]]]:
        """Yield how numbers may agree: as they are, or rounded to a type that holds all of the target's."""
        yield (lambda one, other: self.same(one, other, scale)), []
        for kind in ROUNDINGS:
            if all(np.array_equal(_rounded(each, kind), each) for each in yours):
                words = _ROUNDED.replace("{kind}", kind)
                yield functools.partial(_near, kind), [("rounded", words, _rounding(kind))]

    def ordered(self, mine: Array, yours: Array, same: Same) -> tuple[int, ...] | None:
        """Return the order of the target's gates in which they are the source's, or None."""
        count = len(mine)
        if mine.shape != yours.shape:
            return None
        match = [[same(mine[i], yours[j]) for j in range(count)] for i in range(count)]
        for order in itertools.chain(self.likely(count), itertools.permutations(range(count))):
            if all(match[i][j] for i, j in enumerate(order)):
                return order
        return None

    def likely(self, count: int) -> list[tuple[int, ...]]:
        """Return the right order, and those that other parts have."""
        return list(dict.fromkeys([tuple(range(count)), *(order for order in self.found if len(order) == count)]))

    def bias(self) -> list[Reading]:
        """Return the mistakes in the biases, none where the function sees none."""
        mine, yours = self.biases(self.mine), self.biases(self.yours)
        right, met = self.acts(*mine), self.acts(*yours)
        scale = max(float(np.abs(right).max(initial=0)), float(np.abs(met).max(initial=0)))
        if self.same(right, met, scale):
            return []

        def plant(step: Step) -> Callable[[Parts], Parts]:
            def made(parts: Parts) -> Parts:
                return {
                    name: array.reshape(known.shape)
                    for name, array in zip(("bias", "recurrent_bias"), step[2](*self.biases(parts)), strict=True)
                    if (known := self.yours.get(name, self.mine.get(name))) is not None
                }

            return made

        return self.read("bias", self.bias_steps(mine, yours, scale), plant)

    def bias_steps(self, mine: tuple[Array, Array], yours: tuple[Array, Array], scale: float) -> list[Step]:
        """Return what makes two biases (gates, units) of two others: other values, another order or packing."""
        count, units = mine[0].shape
        for same, last in self.closeness(yours, scale):
            for values, order, variant in self.bias_guesses(count, units):
                made = mine
                for _, _, change in values:
                    made = change(*made)
                held = np.argsort(order)
                read = [variant[2](each[:, :, None])[:, :, 0] for each in yours]
                pair = made[0][held], made[1][held]
                if same(self.acts(*pair), self.acts(*read)) or (last and all(map(same, pair, read))):
                    steps = list(values)
                    if order != tuple(range(count)):
                        take = _taken(held)
                        steps.append(("gates-exchanged", exchange(self.gates, order), _both(take)))
                    if variant[0]:
                        steps.append((variant[0], variant[1], _both(_undone(variant[2], (count, units, 1)))))
                    if steps or last:
                        return steps + [(slug, words, _both(change)) for slug, words, change in last]
        return [("other-weights", _OTHER, _both(_taken([0])))]

    def bias_guesses(self, count: int, units: int) -> Iterator[tuple[list[Step], tuple[int, ...], Step]]:
        """Yield what may have been done to biases, the simplest first."""
        single = [list(each) for each in [(), *itertools.combinations(_bias_mistakes(self.cell), 1)]]
        pairs = [list(each) for each in itertools.permutations(_bias_mistakes(self.cell), 2)]
        likely, orders = self.likely(count), list(itertools.permutations(range(count)))
        as_it_is, *variants = _variants((count, units, 1), self.orders)
        yield from ((values, order, as_it_is) for order in likely for values in single)
        yield from (([], order, variant) for order in orders for variant in [as_it_is, *variants])
        yield from (
            (values, order, variant) for variant in [as_it_is, *variants] for order in likely for values in single
        )
        yield from ((values, order, as_it_is) for order in orders for values in single)
        yield from ((values, order, as_it_is) for order in likely for values in pairs)


def _taken(order: Sequence[int] | Array) -> Callable[[Array], Array]:
    return lambda array: array[list(order)]


def _undone(read: Callable[[Array], Array], shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """Return the opposite of a way to read an array, which only moves its numbers."""
    places = read(np.arange(np.prod(shape)).reshape(shape)).ravel()

    def write(array: Array) -> Array:
        made = np.empty(array.size, array.dtype)
        made[places] = array.ravel()
        return made.reshape(shape)

    return write


def _both(change: Callable[[Array], Array]) -> Callable[[Array, Array], tuple[Array, Array]]:
    return lambda bias, recurrent: (change(bias), change(recurrent))


_ROUNDED = "{what} has all its bits (they are the source's numbers, rounded to {kind})"
_OTHER = "{what} has the numbers of the source (no mistake that is known here makes them of these)"


def exchange(gates: str, order: Sequence[int]) -> str:
    """Say how the gates of the target have to move, which keeps gate i in the place of gate order[i].

    >>> exchange("rzn", (1, 0, 2))
    'gates r and z of {what} are exchanged'
    >>> exchange("rzn", (1, 2, 0))
    'the gates of {what} are taken to lie as n r z, and not as r z n'
    """
    moved = [gates[i] for i, j in enumerate(order) if i != j]
    if len(moved) == 2:
        return f"gates {moved[0]} and {moved[1]} of {{what}} are exchanged"
    lying = " ".join(gates[i] for i in np.argsort(order))
    return f"the gates of {{what}} are taken to lie as {lying}, and not as {' '.join(gates)}"


def _variants(shape: tuple[int, ...], orders: Sequence[Sequence[int]]) -> Iterator[Step]:
    """Yield the ways to read an array (gates, units, columns) that was written wrongly."""
    _, rows, columns = shape
    yield "", "", lambda target: target
    if rows == columns and rows > 1:
        yield "kernel-transposed", "{what} is transposed", lambda target: target.swapaxes(1, 2)
    for order in orders:
        yield from _packed(shape, order)


def _packed(shape: tuple[int, ...], order: Sequence[int], *, back: bool = True) -> Iterator[Step]:
    """Yield the ways to read what was written wrongly while its gates lay in an order, and may still lie in it."""
    gates, rows, columns = shape
    flat = (gates * rows, columns)

    def within(change: Callable[[Array], Array]) -> Callable[[Array], Array]:
        after = np.argsort(order) if back else range(len(order))
        return lambda target: change(target[list(order)])[list(after)]

    if gates > 1 and rows > 1:
        words = "{what} is read unit by unit, the gates of each side by side"
        yield "unit-major", words, within(lambda packed: packed.reshape(rows, gates, columns).swapaxes(0, 1))
        words = "{what} is read gate by gate, and not unit by unit"
        yield "unit-major", words, within(lambda packed: packed.swapaxes(0, 1).reshape(shape))
    if columns > 1:
        words = "{what} is transposed where it was only reshaped"
        yield "kernel-reshaped", words, within(lambda packed: packed.reshape(flat[::-1]).T.reshape(shape))
        yield "kernel-reshaped", words, within(lambda packed: packed.reshape(flat).T.reshape(flat).reshape(shape))


def _bias_mistakes(cell: str) -> Iterator[Step]:
    """Yield what can be done to two biases (gates, units)."""
    yield "bias-dropped", "{what}, which is zero there, is put back", lambda bias, other: (0 * bias, 0 * other)
    words = "the {which} of its two biases is put back into {what}"
    yield "bias-dropped", words.replace("{which}", "second"), lambda bias, other: (bias, 0 * other)
    yield "bias-dropped", words.replace("{which}", "first"), lambda bias, other: (0 * bias, other)
    words = "{what} is counted once, and not twice"
    yield "bias-doubled", words, lambda bias, other: (2 * bias, 2 * other)
    yield "bias-doubled", words, lambda bias, other: (bias + other, bias + other)
    yield "bias-halved", "{what} is counted in full, and not half", lambda bias, other: (bias / 2, other / 2)
    if cell == "gru":
        words = "the candidate's two biases in {what} are put into their places: {how}"
        yield "bias-misplaced", words.replace("{how}", "they are exchanged"), lambda bias, other: (other, bias)
        where = "both are in that of the input"
        yield "bias-misplaced", words.replace("{how}", where), lambda bias, other: (bias + other, 0 * other)
        where = "both are in that of the state"
        yield "bias-misplaced", words.replace("{how}", where), lambda bias, other: (0 * bias, bias + other)
    if cell == "lstm":
        forget = np.array([[float(gate == "f")] for gate in GATES["lstm"]])
        words = "1 is added to the forget gate in {what}"
        yield "forget-bias-missing", words, lambda bias, other: (bias - forget, other)
        words = "1 is taken off the forget gate in {what}"
        yield "forget-bias-twice", words, lambda bias, other: (bias + forget, other)


ROUNDINGS = {"float32": 24, "float16": 11, "bfloat16": 8}
"""Types that numbers are rounded to, with the bits of their mantissa."""


def _near(kind: str, exact: Array, met: Array) -> bool:
    """Say whether numbers may be others that were rounded."""
    exact = exact.astype(np.float64)
    # Both steps of a sum may have been rounded, and small numbers of float16 have fewer digits.
    allowed = 2.0 ** (1 - ROUNDINGS[kind]) * np.abs(exact) + (1e-7 if kind == "float16" else 0)
    return bool((np.abs(exact - met) <= allowed).all())


def _rounding(kind: str) -> Callable[[Array], Array]:
    return lambda array: _rounded(array, kind)


def _rounded(array: Array, kind: str) -> Array:
    if kind != "bfloat16":
        return array.astype(kind).astype(np.float64)
    # NumPy has no bfloat16: it is the upper half of a float32, rounded to even.
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return upper.astype(np.uint32).view(np.float32).astype(np.float64)
