"""From layout A to layout B: the moves, merged into few steps, with a verdict in words.

There is one kind of step: ``target block = ± source block (± source block) + constant``. No source is a fill, two are
a sum; without a target it is a requirement: sources and constant must add up to zero. The words for a step (copy,
transpose, merge, fold) are read off it, never stored. The inverse of a plan is the planner run from B to A, never the
steps reversed: those would drop a second bias that was trained meanwhile.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from gatewise.core.layout import (
    GATES,
    PARTS,
    Gap,
    Key,
    Layout,
    Slot,
    axis_length,
    gaps,
    gates_of,
    store,
    summed_gates,
)
from gatewise.core.requires import Requirement, requirements
from gatewise.core.spec import Spec
from gatewise.errors import ImpossiblePlanError

if TYPE_CHECKING:
    import numpy as np

    from gatewise.core.proof import Proof

BIASES = ("bias", "recurrent_bias")

SYMMETRIC = ("sigmoid", "hard_sigmoid", "hard_sigmoid_02", "sparse_sigmoid")
"""Activations of which ``1 - act(a)`` is ``act(-a)``: a gate that is one minus another has negated weights."""


class Verdict(StrEnum):
    """What a plan keeps.

    ``exact``: there and back returns every bit. ``equivalent``: the same outputs; something is merged or folded.
    ``impossible``: another function, unless the conditions of the plan hold.
    """

    EXACT = "exact"
    EQUIVALENT = "equivalent"
    IMPOSSIBLE = "impossible"


class Term(NamedTuple):
    """One signed source of a move."""

    sign: int
    key: Key
    slot: Slot


class Move(NamedTuple):
    """What becomes of one canonical block: a step before merging."""

    key: Key
    target: Slot | None
    sources: tuple[Term, ...]
    constant: float


class Block(NamedTuple):
    """A part of one tensor: a slice per dimension, then its axes as they lie there, outermost first.

    ``slices`` are (start, stop, step). The sliced block reshaped to ``shape`` has one dimension for each of ``axes``.
    """

    tensor: str
    slices: tuple[tuple[int, int, int], ...]
    axes: tuple[str, ...]
    shape: tuple[int, ...]

    def region(self) -> tuple[int, ...]:
        """Return the shape of the sliced block, before any reshape."""
        return tuple(-((start - stop) // step) for start, stop, step in self.slices)

    def slicing(self) -> tuple[slice, ...]:
        """Return the index that NumPy understands."""
        return tuple(slice(*bounds) for bounds in self.slices)

    def text(self, shape: tuple[int, ...]) -> str:
        """Write the block as in Python, ``:`` for a whole dimension of a tensor of this shape.

        >>> Block("kernel", ((0, 3, 1), (50, 100, 1)), ("features", "units"), (3, 50)).text((3, 200))
        'kernel[:, 50:100]'
        """
        spelled = []
        for (start, stop, step), length in zip(self.slices, shape, strict=True):
            if (start, step) == (0, 1) and stop == length:
                spelled.append(":")
            elif stop - start == 1:
                spelled.append(str(start))
            else:
                spelled.append(f"{start}:{stop}" + (f":{step}" if step != 1 else ""))
        return f"{self.tensor}[{', '.join(spelled)}]" if set(spelled) - {":"} else self.tensor


class Step(NamedTuple):
    """``target = ± source (± source) + constant``; no source: a fill; no target: the right side must be zero."""

    target: Block | None
    sources: tuple[Block, ...]
    signs: tuple[int, ...]
    constant: float

    def order(self, number: int) -> tuple[int, ...]:
        """Return the permutation that brings the axes of one source into the target's order."""
        wanted = self.target or self.sources[0]
        return tuple(self.sources[number].axes.index(axis) for axis in wanted.axes)

    def words(self) -> str:
        """Say in a word what the step does.

        >>> Step(Block("a", ((0, 2, 1),), ("units",), (2,)), (), (), 0.0).words()
        'fill with 0'
        """
        if self.target is None:
            return "must be zero"
        if not self.sources:
            return f"fill with {_number(self.constant)}"
        said = ["add" if len(self.sources) == 2 else "copy"]
        moved = [order for order in map(self.order, range(len(self.sources))) if list(order) != sorted(order)]
        if moved and len(self.sources) == 1:
            said = ["transpose"] if len(moved[0]) == 2 else ["permute"]
        if self.constant:
            said.append(f"add {_number(self.constant)}")
        if -1 in self.signs:
            said.append("negate")
        return ", ".join(said)


class Row(NamedTuple):
    """One line of the mapping table: what becomes of one gate of one tensor."""

    layer: int
    direction: int
    part: str
    gate: str
    source: str
    target: str
    transposed: bool
    rule: str


def _number(value: float) -> str:
    return f"{value:g}"


@dataclass(frozen=True, eq=False)
class Plan:
    """All that has to be done to bring weights from one layout into another.

    Attributes:
        spec: The layer.
        source: The layout that the arrays come from.
        target: The layout that they go to.
        verdict: ``exact``, ``equivalent`` or ``impossible``.
        reason: Why, in words.
        way_out: What to do where it is impossible; else empty.
        unless: Conditions on the values under which it is possible after all.
        moves: What becomes of each canonical block.
        steps: The moves, merged.
        requires: What else has to be used or set in the target, so that it computes what the layer is.
        assumes: The same of the source: what it has to be for the arrays to be weights of this layer.
    """

    spec: Spec
    source: Layout
    target: Layout
    verdict: Verdict
    reason: str
    way_out: str
    unless: tuple[str, ...]
    moves: tuple[Move, ...]

    def __eq__(self, other: object) -> bool:
        fields = self.__dataclass_fields__
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in fields)

    def __hash__(self) -> int:
        return hash((self.spec, self.source, self.target))

    @functools.cached_property
    def steps(self) -> tuple[Step, ...]:
        """Return the moves merged into few steps."""
        return merge(self)

    @functools.cached_property
    def requires(self) -> tuple[Requirement, ...]:
        """Return what else has to be used or set in the target; nothing where nothing can be moved."""
        return requirements(self.target, self.spec) if self.moves else ()

    @functools.cached_property
    def assumes(self) -> tuple[Requirement, ...]:
        """Return what the source has to have beside the options of the spec, for the arrays to be its weights."""
        options = self.spec.options()
        needed = requirements(self.source, self.spec) if self.moves else ()
        return tuple(each for each in needed if each.kind != "attribute" or options.get(each.name) != each.value)

    @property
    def heading(self) -> str:
        """Name both sides and the verdict, and what the target requires.

        >>> from gatewise.core.layout import CANONICAL
        >>> from gatewise.core.spec import LSTM
        >>> plan(LSTM(3, 5), CANONICAL["lstm"], CANONICAL["lstm"]).heading
        'canonical:lstm → canonical:lstm: exact.'
        """
        needed = f" Requires {', '.join(each.text for each in self.requires)}." if self.requires else ""
        return f"{self.source} → {self.target}: {self.verdict}.{needed}"

    @property
    def source_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor that the plan reads."""
        return dict(store(self.source, self.spec).shapes)

    @property
    def target_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor that the plan writes."""
        return dict(store(self.target, self.spec).shapes)

    def require_possible(self) -> None:
        """Raise ``ImpossiblePlanError`` unless there is something to apply."""
        if self.verdict is Verdict.IMPOSSIBLE and not self.unless:
            raise ImpossiblePlanError(f"No plan from {self.source} to {self.target}.", self.reason, self.way_out)

    def inverse(self) -> Plan:
        """Return the plan from the target to the source: the planner, run the other way.

        Raises:
            ImpossiblePlanError: The two layouts compute different functions.
        """
        self.require_possible()
        return plan(self.spec, self.target, self.source)

    def apply(self, arrays: Mapping[str, Any] | Sequence[Any]) -> dict[str, np.ndarray]:
        """Bring arrays into the target's layout.

        Args:
            arrays: Name → array as in ``source_shapes``, or a list in that order. They are not written to.

        Returns:
            Name → array as in ``target_shapes``. A tensor that only changes its axes is a view of what was given.

        Raises:
            ShapeError, WeightsError: The arrays do not belong to the source layout.
            ImpossiblePlanError: No weights, or not these, make the two layouts compute the same.
        """
        from gatewise.arrays.apply import apply

        return apply(self, arrays)

    def proof(self) -> Proof:
        """Check that the plan means the same on both sides, element by element; see ``core/proof.py``."""
        from gatewise.core.proof import prove

        return prove(self)

    def rows(self) -> list[Row]:
        """Return the mapping table: one row for each gate and tensor, in the order of the target's tensors."""
        if not self.moves:
            return []
        rows, here, there = [], self.source_shapes, self.target_shapes
        for move in self.moves:
            step = _step(_run_of(self, move))
            target = step.target.text(there[step.target.tensor]) if step.target else ""
            blocks = [block.text(here[block.tensor]) for block in step.sources]
            turned = bool(step.target) and any(
                list(order) != sorted(order) for order in map(step.order, range(len(blocks)))
            )
            text = _sum_text(blocks, step.signs, step.constant)
            rows.append(
                Row(
                    move.key.layer, move.key.direction, move.key.part, move.key.gate, text, target, turned, step.words()
                )
            )
        names = {name: number for number, name in enumerate(there)}
        return sorted(rows, key=lambda row: names.get(row.target.partition("[")[0], len(names)))

    def to_json(self) -> str:
        """Return the plan as JSON: spec, layouts, verdict, words, shapes and steps."""
        return json.dumps(self.to_dict(), indent=2)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``to_json`` writes, as plain data."""
        steps = [
            {
                "target": step.target._asdict() if step.target else None,
                "sources": [block._asdict() for block in step.sources],
                "signs": step.signs,
                "constant": step.constant,
                "words": step.words(),
            }
            for step in self.steps
        ]
        return {
            "spec": {"kind": type(self.spec).__name__, **self.spec.options()},
            "source": self.source.name,
            "target": self.target.name,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "way_out": self.way_out,
            "unless": list(self.unless),
            "requires": [each._asdict() for each in self.requires],
            "assumes": [each._asdict() for each in self.assumes],
            "source_shapes": self.source_shapes if self.moves else {},
            "target_shapes": self.target_shapes if self.moves else {},
            "steps": steps,
        }

    def __str__(self) -> str:
        lines = [f"{self.heading} {self.reason}"]
        lines += [f"  unless {condition}" for condition in self.unless]
        lines += [f"  requires {each}" for each in self.requires]
        lines += [f"  assumes {each}" for each in self.assumes]
        # Where nothing can be moved, a layout may have no shapes for the layer at all.
        here, there = (self.source_shapes, self.target_shapes) if self.moves else ({}, {})
        for step in self.steps:
            blocks = [f"{block.text(here[block.tensor])}" for block in step.sources]
            right = _sum_text(blocks, step.signs, step.constant)
            left = step.target.text(there[step.target.tensor]) if step.target else "0"
            lines.append(f"  {left} = {right}    # {step.words()}")
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        from gatewise.report.teaching import shown

        return shown(self, "github")

    def _repr_html_(self) -> str:
        from gatewise.report.teaching import shown

        return shown(self, "html")


def _sum_text(blocks: Sequence[str], signs: Sequence[int], constant: float) -> str:
    text = "".join(f"{' - ' if sign < 0 else ' + '}{block}" for block, sign in zip(blocks, signs, strict=True))
    if constant or not blocks:
        text += f"{' - ' if constant < 0 else ' + '}{_number(abs(constant))}"
    return text.removeprefix(" + ").replace(" - ", "-", 1) if text.startswith(" - ") else text.removeprefix(" + ")


# ── the planner ─────────────────────────────────────────────────────────────────────────────────────────────────


@functools.lru_cache(maxsize=512)
def plan(spec: Spec, source: Layout, target: Layout) -> Plan:
    """Plan the way from one layout to another; always returns a plan, whose verdict may be ``impossible``.

    >>> from gatewise.core.layout import CANONICAL
    >>> from gatewise.core.spec import LSTM
    >>> plan(LSTM(3, 5), CANONICAL["lstm"], CANONICAL["lstm"]).verdict
    <Verdict.EXACT: 'exact'>
    """
    blocking = [(layout, gap) for layout in (source, target) for gap in gaps(layout, spec) if gap.blocks()]
    if blocking:
        reason, way_out = _refusal(spec, source, target, blocking)
        return Plan(spec, source, target, Verdict.IMPOSSIBLE, reason, way_out, (), ())
    activation = spec.options().get("recurrent_activation", SYMMETRIC[0])
    opposite = source.update != target.update or dict(source.tied) != dict(target.tied)
    if opposite and activation not in SYMMETRIC:
        reason = (
            f"One layout stores a gate, the other one minus it, and 1 - {activation}(a) is not {activation}(-a); "
            "no weights agree."
        )
        way_out = f"Use recurrent_activation={SYMMETRIC[0]!r}, or keep it where it is."
        return Plan(spec, source, target, Verdict.IMPOSSIBLE, reason, way_out, (), ())
    moves = tuple(_moves(spec, source, target))
    required = [move for move in moves if move.target is None]
    if required:
        return _conditional(spec, source, target, moves, required)
    alone = {
        move.sources[0].slot
        for move in moves
        if len(move.sources) == 1 and not move.constant and move.target is not None
    }
    lost = [key for key, slot in store(source, spec).slots.items() if slot not in alone]
    rounded = any(move.sources and move.constant for move in moves)  # Also where it is the copy for a tied gate.
    words = _effects(moves)
    if lost or rounded:
        return Plan(spec, source, target, Verdict.EQUIVALENT, f"Same outputs, but {words}.", "", (), moves)
    reason = "Every number of the source has a place of its own" + (f"; {words}." if words else ".")
    return Plan(spec, source, target, Verdict.EXACT, reason, "", (), moves)


def _refusal(spec: Spec, source: Layout, target: Layout, blocking: list[tuple[Layout, Gap]]) -> tuple[str, str]:
    resets = {layout.reset for layout in (source, target)}
    wider = [gap.way_out for _, gap in blocking if gap.wider][:1]
    if spec.cell == "gru" and len(resets) == 2 and any(gap.option == "reset" for _, gap in blocking):
        return (
            f"{source} resets {source.reset} the recurrent product, {target} {target.reset} it; no weights agree.",
            " ".join([*wider, f"{'Or train' if wider else 'Train'} the source with the other reset."]),
        )
    layout, gap = blocking[0]
    return f"{layout} does not support {gap.option}={gap.value!r}: {gap.why}", gap.way_out


def _conditional(spec: Spec, source: Layout, target: Layout, moves: tuple[Move, ...], required: list[Move]) -> Plan:
    grouped: dict[tuple[tuple[str, ...], float], list[Move]] = {}
    for move in required:
        parts = tuple(f"{'-' if term.sign < 0 else ''}{term.key.part}" for term in move.sources)
        grouped.setdefault((parts, move.constant), []).append(move)
    conditions = []
    for (parts, constant), group in grouped.items():
        gates = sorted({move.key.gate for move in group}, key=(GATES[spec.cell] or " ").find)
        of_gates = f" for gate{'s' if len(gates) > 1 else ''} {', '.join(gates)}" if gates != [""] else ""
        total = _sum_text(
            [part.removeprefix("-") for part in parts], [-1 if part[0] == "-" else 1 for part in parts], constant
        )
        conditions.append(f"{total} = 0{of_gates}")
    never = [move for move in required if not move.sources]
    names = sorted({term.key.part for move in required for term in move.sources})
    if never:
        added = f"{_number(never[0].constant)} to gate {never[0].key.gate}"
        reason = f"{source} adds {added} at run time, and {target} has no bias to hold it."
        return Plan(spec, source, target, Verdict.IMPOSSIBLE, reason, "Give the target a bias.", (), ())
    lack = f"has no place for {' and '.join(names).replace('_', ' ')}"
    if target.tied:
        lack = "stores one gate as one minus another"
    reason = f"{target} {lack}: possible only if {' and '.join(conditions)}."
    other = next((gap.wider for gap in gaps(target, spec) if gap.wider), "")
    other = f"name {other}, which has" if other else "choose a target that has"
    way_out = f"It is applied where these weights allow it; else {other} a place for them."
    return Plan(spec, source, target, Verdict.IMPOSSIBLE, reason, way_out, tuple(conditions), moves)


def _effects(moves: Iterable[Move]) -> str:
    """Say what a plan does besides moving numbers."""
    said: dict[str, dict[str, None]] = {}

    def note(what: str, gate: str) -> None:
        said.setdefault(what, {})[gate] = None

    for move in moves:
        constant, part = _number(move.constant), move.key.part.replace("_", " ")
        if len(move.sources) == 2:
            note("bias and recurrent bias are added, so how they were split is lost", "")
        if not move.sources and move.constant:
            note(f"{part} is filled with {constant} for gate", move.key.gate)
        elif not move.sources:
            note(f"{part} is filled with 0", "")
        elif move.constant:
            note(f"{constant} is added to the bias, which rounds, for gate", move.key.gate)
        if any(term.sign < 0 for term in move.sources):
            note("weights are negated for gate", move.key.gate)
    return "; ".join(f"{what} {', '.join(filter(None, gates))}".rstrip() for what, gates in said.items())


def _moves(spec: Spec, source: Layout, target: Layout) -> Iterator[Move]:
    for layer in range(axis_length(spec, "layer")):
        for direction in range(axis_length(spec, "direction")):
            for part in PARTS[spec.cell]:
                for gate in gates_of(spec.cell, part) or ("",):
                    pair = _Pair(spec, source, target, layer, direction, gate)
                    if part not in BIASES:
                        yield from pair.move((part,), 0.0)
                    elif gate not in summed_gates(spec):
                        yield from pair.move((part,), pair.constant() if part == "bias" else 0.0)
                    elif part == "bias":
                        yield from pair.move(BIASES, pair.constant())


class _Pair:
    """One gate of one layer and direction, seen from both layouts."""

    def __init__(self, spec: Spec, source: Layout, target: Layout, layer: int, direction: int, gate: str) -> None:
        self.source, self.target, self.place, self.gate = source, target, (layer, direction), gate
        self.held, self.wanted = store(source, spec).slots, store(target, spec).slots
        self.flip = self.turn(gate)

    def turn(self, gate: str) -> int:
        """Return -1 for a gate that stands for its opposite on the other side, else 1."""
        # One framework's z keeps the old state, another's takes the new one: sigmoid(-a) = 1 - sigmoid(a).
        return -1 if self.source.update != self.target.update and gate == "z" else 1

    def terms(self, parts: Iterable[str], gate: str, sign: int) -> list[Term]:
        """Return what the source holds of these parts of a gate, in the order of the parts."""
        if gate in self.source.tied:
            gate, sign = self.source.tied[gate], -sign
        keys = [Key(part, *self.place, gate) for part in parts]
        return [Term(sign, key, self.held[key]) for key in keys if key in self.held]

    def added(self, layout: Layout, gate: str) -> float:
        if gate in layout.tied:
            return -self.added(layout, layout.tied[gate])
        return layout.adds.get(gate, 0.0)

    def constant(self) -> float:
        """Return what the source adds to this gate at run time, less what the target adds."""
        # "+ 0.0" turns -0.0, which a negated gate gives, into the zero that is meant.
        return self.flip * self.added(self.source, self.gate) - self.added(self.target, self.gate) + 0.0

    def move(self, parts: tuple[str, ...], constant: float) -> Iterator[Move]:
        """Yield the moves of the given parts, of which the gate sees only the sum."""
        key = Key(parts[0], *self.place, self.gate)
        terms = self.terms(parts, self.gate, self.flip)
        if any(Key(part, *self.place, self.target.tied.get(self.gate, "-")) in self.wanted for part in parts):
            yield from self.tie(key, parts, terms)
            return
        keys = [Key(part, *self.place, self.gate) for part in parts]
        slots = [(key, self.wanted[key]) for key in keys if key in self.wanted]
        if not slots:
            if terms or constant:
                yield Move(key, None, tuple(reversed(terms)), constant)
        elif len(terms) > len(slots):
            # The constant meets the recurrent bias first: (recurrent + constant) + bias, so that a bias whose
            # recurrent half is its zero and constant comes back bit for bit.
            yield Move(slots[0][0], slots[0][1], tuple(reversed(terms)), constant)
        else:
            for number, (slot_key, slot) in enumerate(slots):
                own = tuple(terms[number : number + 1])
                yield Move(slot_key, slot, own, constant if number == len(slots) - 1 else 0.0)

    def tie(self, key: Key, parts: tuple[str, ...], terms: list[Term]) -> Iterator[Move]:
        """Yield the requirement that two gates are opposite, where the target stores only one of them."""
        partner = self.target.tied[self.gate]
        others = self.terms(parts, partner, self.turn(partner))
        opposite = {(term.sign, term.slot) for term in terms} == {(-term.sign, term.slot) for term in others}
        constant = 0.0
        if parts[0] == "bias":
            constant = self.flip * self.added(self.source, self.gate)
            constant += self.turn(partner) * self.added(self.source, partner)
        if not (opposite and not constant):
            # Alike parts side by side: two opposite biases and two opposite constants cancel without rounding.
            side_by_side = sorted(terms + others, key=lambda term: parts.index(term.key.part))
            yield Move(key, None, tuple(side_by_side), constant)


# ── merging ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Loop(NamedTuple):
    """An axis that a run goes along; in every array it moves along one dimension by one stride."""

    label: str
    length: int
    moves: tuple[tuple[int, int], ...]  # (dimension, stride) in each array


class _Run(NamedTuple):
    """A step in the making. The arrays are the target, where there is one, then the sources."""

    key: Key
    has_target: bool
    tensors: tuple[str, ...]
    memories: tuple[tuple[str, ...], ...]
    signs: tuple[int, ...]
    constant: float
    offsets: tuple[tuple[int, ...], ...]
    loops: tuple[_Loop, ...]

    def kin(self) -> tuple[object, ...]:
        """Return what two runs must share to become one."""
        return (self.has_target, self.tensors, self.memories, self.signs, self.constant, self.loops)


def merge(plan: Plan) -> tuple[Step, ...]:
    """Merge the moves of a plan into few steps that do the same.

    Two loops fuse where in every array the outer stride is the inner length times the inner stride. Runs that differ
    only in where they start, by one constant stride, become one run with one loop more.
    """
    runs = [piece for move in plan.moves for piece in _sliceable(_run_of(plan, move))]
    before = -1
    while len(runs) != before:
        before = len(runs)
        groups: dict[tuple[object, ...], list[_Run]] = {}
        for run in map(_fused, runs):
            groups.setdefault(run.kin(), []).append(run)
        runs = [run for group in groups.values() for run in _joined(group)]
    return tuple(_step(run) for run in runs)


def _run_of(plan: Plan, move: Move) -> _Run:
    slots = [slot for slot in (move.target, *(term.slot for term in move.sources)) if slot is not None]
    axes = [axis for axis in PARTS[plan.spec.cell][move.key.part].split() if axis != "gate"]
    loops = []
    for axis in axes:
        length = axis_length(plan.spec, axis, move.key.layer)
        if length > 1:  # With one element any stride is as good as another, and would keep equal runs apart.
            moves = tuple((dim, stride) for slot in slots for name, dim, stride in slot.strides if name == axis)
            loops.append(_Loop(axis, length, moves))
    return _Run(
        move.key,
        move.target is not None,
        tuple(slot.tensor for slot in slots),
        tuple(slot.memory if len(loops) == len(axes) else () for slot in slots),
        tuple(term.sign for term in move.sources),
        move.constant,
        tuple(slot.offsets for slot in slots),
        tuple(loops),
    )


def _fused(run: _Run) -> _Run:
    if any(run.memories):
        return run
    loops = list(run.loops)
    for outer in loops:
        for inner in loops:
            if outer is not inner and all(
                d == e and s == inner.length * t for (d, s), (e, t) in zip(outer.moves, inner.moves, strict=True)
            ):
                rest = [loop for loop in loops if loop is not outer and loop is not inner]
                both = _Loop(f"{outer.label} {inner.label}", outer.length * inner.length, inner.moves)
                return _fused(run._replace(loops=(*rest, both)))
    return run._replace(loops=tuple(sorted(loops)))


def _joined(group: list[_Run]) -> list[_Run]:
    """Join runs that follow each other at one constant stride, each array along one dimension of its own."""
    group = sorted(group, key=lambda run: run.offsets)
    if any(group[0].memories):
        return group
    done, start = [], 0
    while start < len(group):
        stop, moves = start + 1, None
        while stop < len(group):
            found = _stride(group[stop - 1], group[stop])
            if found is None or (moves is not None and found != moves):
                break
            moves, stop = found, stop + 1
        if moves is not None:
            first, second = group[start], group[start + 1]
            names = [
                name
                for name in ("layer", "direction", "part", "gate")
                if getattr(first.key, name) != getattr(second.key, name)
            ]
            loop = _Loop("·".join(names), stop - start, moves)
            longer = _fused(first._replace(loops=(*first.loops, loop)))
            own = all(
                stride == 1 and all(other.moves[number][0] != dim for other in first.loops)
                for number, (dim, stride) in enumerate(moves)
            )
            if own or len(longer.loops) <= len(first.loops):
                done.append(longer)
                start = stop
                continue
        done.append(group[start])
        start += 1
    return done


def _stride(first: _Run, second: _Run) -> tuple[tuple[int, int], ...] | None:
    moves = []
    for here, there in zip(first.offsets, second.offsets, strict=True):
        grown = [
            (dim, after - before)
            for dim, (before, after) in enumerate(zip(here, there, strict=True))
            if after != before
        ]
        if len(grown) != 1 or grown[0][1] < 0:
            return None
        moves.append(grown[0])
    return tuple(moves)


def _sliceable(run: _Run) -> Iterator[_Run]:
    """Yield runs that a slice and a reshape can express, unrolling a loop where two do not nest in one dimension."""
    for number in range(len(run.tensors)):
        apart = _not_nested(run, number)
        if apart and any(run.memories):
            yield from _elements(run)
            return
        if apart:
            short = min(apart, key=lambda loop: loop.length)
            rest = tuple(loop for loop in run.loops if loop is not short)
            for index in range(short.length):
                offsets = tuple(
                    _moved(offset, ((move, index),)) for offset, move in zip(run.offsets, short.moves, strict=True)
                )
                yield from _sliceable(run._replace(offsets=offsets, loops=rest))
            return
    yield run


def _not_nested(run: _Run, number: int) -> tuple[_Loop, _Loop] | None:
    """Return two loops that follow each other in one dimension of an array, and leave gaps between them."""
    ordered = sorted(run.loops, key=lambda loop: loop.moves[number], reverse=True)
    for outer, inner in itertools.pairwise(ordered):
        (dimension, stride), (other, finer) = outer.moves[number], inner.moves[number]
        if dimension == other and stride != finer * inner.length:
            return outer, inner
    return None


def _moved(offset: tuple[int, ...], steps: Iterable[tuple[tuple[int, int], int]]) -> tuple[int, ...]:
    place = list(offset)
    for (dimension, stride), index in steps:
        place[dimension] += stride * index
    return tuple(place)


def _elements(run: _Run) -> Iterator[_Run]:
    """Yield one run for each element: what is left where one array reorders memory and another leaves gaps."""
    for index in itertools.product(*(range(loop.length) for loop in run.loops)):
        offsets = []
        for number, memory in enumerate(run.memories):
            at = {loop.label: i for loop, i in zip(run.loops, index, strict=True)}
            if memory:
                loops = {loop.label: loop for loop in run.loops}
                outer, inner = sorted(loops.values(), key=lambda loop: (loop.moves[number][0], -loop.moves[number][1]))
                flat = at[memory[0]] * loops[memory[1]].length + at[memory[1]]
                at[outer.label], at[inner.label] = divmod(flat, inner.length)
            offsets.append(_moved(run.offsets[number], ((loop.moves[number], at[loop.label]) for loop in run.loops)))
        yield run._replace(offsets=tuple(offsets), loops=(), memories=((),) * len(run.memories))


def _step(run: _Run) -> Step:
    blocks = []
    for number, tensor in enumerate(run.tensors):
        ordered = sorted(run.loops, key=lambda loop: (loop.moves[number][0], -loop.moves[number][1]))
        slices = []
        for dimension, start in enumerate(run.offsets[number]):
            here = [loop for loop in ordered if loop.moves[number][0] == dimension]
            length, step = 1, 1
            for loop in here:
                length *= loop.length
            if here:
                step = here[-1].moves[number][1]
            slices.append((start, start + step * (length - 1) + 1, step))
        if run.memories[number]:
            ordered = sorted(ordered, key=lambda loop: run.memories[number].index(loop.label))
        blocks.append(
            Block(tensor, tuple(slices), tuple(loop.label for loop in ordered), tuple(loop.length for loop in ordered))
        )
    target = blocks.pop(0) if run.has_target else None
    return Step(target, tuple(blocks), run.signs, run.constant)
