"""Proves that a plan means the same on both sides, by a second and naive reading of the patterns.

The planner goes from canonical blocks to places, by strides. The proof goes the other way: it takes the index of a
stored number and finds out by division what it is. Three checks:

1. *Meaning*: at small stand-in sizes the steps run over names instead of numbers, and what the target's tensors then
   mean must equal what the source's mean, as sums of source elements.
2. *Places*: at the real sizes the written blocks are disjoint and fill every tensor, and the corners of each block,
   with their neighbours and every place where another gate may begin, decode to the same name on both sides. Slots
   are affine, so these decide the inside.
3. *Exactness*: the names return from plan and inverse if, and only if, the verdict is ``exact``. (The first two let
   pass an exchange of the two biases: it is the same function.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gatewise.core.layout import (
    PARTS,
    Entry,
    Key,
    Layout,
    Node,
    axis_length,
    gaps,
    spell,
    summed_gates,
    wanted_parts,
)
from gatewise.core.plan import BIASES, Block, Plan, Step, Verdict, plan
from gatewise.core.spec import Recurrent, Spec

Index = tuple[int, ...]
Symbol = tuple[str, Index]
Sum = dict[Symbol | None, float]  # source element → coefficient; None → the constant

STAND_IN = {"features": 3, "units": 5, "projection": 2, "tokens": 7, "height": 6, "width": 4, "groups": 1}
"""Sizes for the trace: distinct, so that a transpose shows, and none is 1; groups only make an axis shorter."""


class Check(NamedTuple):
    """One thing that was checked, and what came out."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Proof:
    """What was checked of a plan."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Say whether every check passed."""
        return all(check.passed for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(
            f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.text}" for check in self.checks
        )


def prove(subject: Plan) -> Proof:
    """Check a plan; a plan that is impossible whatever the weights has nothing to check.

    >>> import gatewise as gw
    >>> print(gw.mapping(gw.LSTM(3, 50), "keras", "torch").proof())
    passed  meaning: 200 stored numbers traced at features=3, units=5
    passed  places: 4 blocks fill 4 tensors of 11,000 numbers; 84 corners decode alike
    passed  exactness: all names return from plan and inverse
    """
    if not subject.moves:
        return Proof((Check("meaning", True, "nothing to check: the plan is impossible whatever the weights"),))
    spec = _stand_in(subject)
    small = subject if spec == subject.spec else plan(spec, subject.source, subject.target)
    return Proof((_check_meaning(small), _check_places(subject), _check_exactness(small)))


def _stand_in(subject: Plan) -> Spec:
    spec, options = subject.spec, subject.spec.options()
    sizes = {name: size for name, size in STAND_IN.items() if options.get(name) is not None}
    small = spec.replace(**sizes, **({"layers": min(options["layers"], 3)} if "layers" in options else {}))
    if isinstance(small, Recurrent) and any(gaps(layout, small) for layout in (subject.source, subject.target)):
        # A tensor of all layers has one width.
        return small.replace(features=axis_length(small, "features", 1))
    return small


# ── the second reading ──────────────────────────────────────────────────────────────────────────────────────────


class Element(NamedTuple):
    """What one stored number is: a canonical block, and the place in it by the part's axes other than gate."""

    key: Key
    place: Index


class Reader:
    """Reads what the number at an index of a stored tensor is, for one spec in one layout."""

    def __init__(self, layout: Layout, spec: Spec) -> None:
        self.layout, self.spec = layout, spec
        self.wanted = wanted_parts(spec) | set(layout.always.split())
        self.tensors: dict[str, tuple[Entry, dict[str, int], str]] = {}
        for entry in layout.entries:
            if not any(part.name in self.wanted for part in entry.parts):
                continue
            named = entry.axes_in_name()
            layers = range(axis_length(spec, "layer") if "layer" in named else 1)
            directions = range(axis_length(spec, "direction") if "direction" in named else 1)
            for layer, direction in itertools.product(layers, directions):
                for gate in entry.parts[0].gates if "gate" in named else ("",):
                    at = {"layer": layer, "direction": direction, "gate": layout.gates.find(gate)}
                    self.tensors[spell(layout, entry, spec, at)] = (entry, at, gate)

    def __call__(self, tensor: str, index: Index) -> Element:
        """Return what the number at an index is."""
        entry, at, gate = self.tensors[tensor]
        for number, part in enumerate(entry.parts):
            if part.name not in self.wanted:
                continue
            found: dict[str, int] | None = dict(at)
            for node, i in zip(entry.dimensions, index, strict=True):
                here = self.divide(entry, node, number, i, at["layer"])
                found = found | here if found is not None and here is not None else None
            if found is not None:
                return self.element(entry, number, found, gate)
        raise AssertionError(f"nothing is stored at {tensor}{index}")

    def element(self, entry: Entry, number: int, found: dict[str, int], gate: str) -> Element:
        """Return the canonical element for an index along each axis."""
        part = entry.parts[number]
        axes = [axis for axis in PARTS[self.spec.cell][part.name].split() if axis != "gate"]
        if entry.memory:
            left = [axis for node in entry.dimensions for axis in node.axes(number) if axis in entry.memory]
            flat = found[left[0]] * axis_length(self.spec, left[1], found["layer"]) + found[left[1]]
            width = axis_length(self.spec, entry.memory[1], found["layer"])
            found = found | dict(zip(entry.memory, divmod(flat, width), strict=True))
        letter = gate or (part.gates[found["gate"]] if len(part.gates) > 1 else part.gates)
        return Element(Key(part.name, found["layer"], found["direction"], letter), tuple(found[axis] for axis in axes))

    def span(self, entry: Entry, node: Node, layer: int) -> int:
        """Count the numbers along a node, one by one in what it is made of."""
        live = [part for part in node.parts if entry.parts[part].name in self.wanted]
        if not live:
            return 0
        if node.kind == "sum":
            return sum(self.span(entry, child, layer) for child in node.children)
        if node.kind == "either":
            return max(self.span(entry, child, layer) for child in node.children)
        if node.kind == "product":
            return self.span_of(entry, node.children, layer)
        if node.name == "gate":
            return len(entry.parts[live[0]].gates)
        return 1 if node.name == "1" else axis_length(self.spec, node.name, layer)

    def span_of(self, entry: Entry, nodes: tuple[Node, ...], layer: int) -> int:
        """Count the numbers along a product of nodes; layers may differ in width."""
        if not nodes:
            return 1
        if nodes[0].name == "layer":
            return sum(self.span_of(entry, nodes[1:], index) for index in range(axis_length(self.spec, "layer")))
        return self.span(entry, nodes[0], layer) * self.span_of(entry, nodes[1:], layer)

    def divide(self, entry: Entry, node: Node, part: int, index: int, layer: int) -> dict[str, int] | None:
        """Return axis → index for one part, or None where the index belongs to another part."""
        if node.kind == "axis":
            return {node.name: index}
        if node.kind == "either":
            return self.divide(entry, node.children[part], part, index, layer)
        if node.kind == "sum":
            for child in node.children:
                width = self.span(entry, child, layer)
                if index < width:
                    return self.divide(entry, child, part, index, layer) if part in child.parts else None
                index -= width
            return None
        found: dict[str, int] = {}
        nodes = node.children
        while nodes:
            head, nodes = nodes[0], nodes[1:]
            if head.name == "layer":
                layer = 0
                while index >= (width := self.span_of(entry, nodes, layer)):
                    index, layer = index - width, layer + 1
                found["layer"] = layer
                continue
            outer, index = divmod(index, self.span_of(entry, nodes, layer))
            here = self.divide(entry, head, part, outer, layer)
            if here is None:
                return None
            found |= here
        return found


def _indices(shape: Iterable[int]) -> Iterator[Index]:
    return itertools.product(*map(range, shape))


def _place(block: Block, at: Mapping[str, int]) -> Index:
    """Return the index in the tensor of one element of a block, given its index along each axis."""
    flat = 0
    for axis, length in zip(block.axes, block.shape, strict=True):
        flat = flat * length + at[axis]
    index = []
    for (start, _, step), length in reversed(list(zip(block.slices, block.region(), strict=True))):
        flat, inner = divmod(flat, length)
        index.append(start + inner * step)
    return tuple(reversed(index))


# ── 1. meaning ──────────────────────────────────────────────────────────────────────────────────────────────────


def _names(of: Plan) -> dict[Symbol, Sum]:
    return {(tensor, i): {(tensor, i): 1} for tensor, shape in of.source_shapes.items() for i in _indices(shape)}


def _add(total: Sum, more: Sum, sign: float = 1) -> Sum:
    out = dict(total)
    for symbol, factor in more.items():
        out[symbol] = out.get(symbol, 0) + sign * factor
    return {symbol: factor for symbol, factor in out.items() if factor}


def run_over_names(steps: Iterable[Step], values: Mapping[Symbol, Sum]) -> tuple[dict[Symbol, Sum], list[Sum]]:
    """Run steps over sums of names; return what is written where, and the sums that must be zero.

    A place that is written twice holds a sum that no number can have, so that it is seen.
    """
    made: dict[Symbol, Sum] = {}
    zero: list[Sum] = []
    for step in steps:
        block = step.target or step.sources[0]
        for index in _indices(block.shape):
            at = dict(zip(block.axes, index, strict=True))
            total: Sum = {None: step.constant} if step.constant else {}
            for source, sign in zip(step.sources, step.signs, strict=True):
                total = _add(total, values[source.tensor, _place(source, at)], sign)
            if step.target is None:
                zero.append(total)
            else:
                symbol = (block.tensor, _place(block, at))
                made[symbol] = {None: math.inf} if symbol in made else total
    return made, zero


def meaning(layout: Layout, spec: Spec, values: Mapping[Symbol, Sum]) -> dict[Element, Sum]:
    """Return what stored values compute: canonical element → sum, with both biases of a gate that adds them in one."""
    read, summed = Reader(layout, spec), summed_gates(spec)
    meant: dict[Element, Sum] = {}

    def put(key: Key, place: Index, value: Sum) -> None:
        part = "bias" if key.part in BIASES and key.gate in summed else key.part
        sign = -1 if layout.update == "takes" and key.gate == "z" else 1
        element = Element(key._replace(part=part), place)
        meant[element] = _add(meant.get(element, {}), value, sign)

    for (tensor, index), value in values.items():
        key, place = read(tensor, index)
        put(key, place, value)
        for gate, partner in layout.tied.items():
            if key.gate == partner:
                put(key._replace(gate=gate), place, _add({}, value, -1))
    for gate, constant in layout.adds.items():
        for layer, direction, unit in _indices([axis_length(spec, axis) for axis in ("layer", "direction", "units")]):
            put(Key("bias", layer, direction, gate), (unit,), {None: constant})
            for other, partner in layout.tied.items():
                if partner == gate:
                    put(Key("bias", layer, direction, other), (unit,), {None: -constant})
    return {element: value for element, value in meant.items() if value}


def _check_meaning(small: Plan) -> Check:
    names = _names(small)
    made, zero = run_over_names(small.steps, names)
    expected = {(tensor, i) for tensor, shape in small.target_shapes.items() for i in _indices(shape)}
    if set(made) != expected:
        return Check("meaning", False, f"{len(expected ^ set(made))} numbers are not written, or written outside")
    before, after = meaning(small.source, small.spec, names), meaning(small.target, small.spec, made)
    allowed = [{}, *zero, *(_add({}, value, -1) for value in zero)]
    for element in before.keys() | after.keys():
        if _add(before.get(element, {}), after.get(element, {}), -1) not in allowed:
            return Check(
                "meaning", False, f"{element} means {before.get(element)} before and {after.get(element)} after"
            )
    options = small.spec.options()
    sizes = ", ".join(f"{name}={options[name]}" for name in STAND_IN if options.get(name) is not None)
    return Check("meaning", True, f"{len(made)} stored numbers traced at {sizes}")


# ── 2. places ───────────────────────────────────────────────────────────────────────────────────────────────────


def _check_places(subject: Plan) -> Check:
    blocks: dict[str, list[Block]] = {name: [] for name in subject.target_shapes}
    for step in subject.steps:
        if step.target:
            blocks[step.target.tensor].append(step.target)
    for name, shape in subject.target_shapes.items():
        volume = sum(math.prod(block.region()) for block in blocks[name])
        if volume != math.prod(shape):
            return Check("places", False, f"{volume} of {math.prod(shape)} numbers of {name} are written")
        for one, other in itertools.combinations(blocks[name], 2):
            if all(_meet(a, b) for a, b in zip(one.slices, other.slices, strict=True)):
                return Check("places", False, f"two steps write into the same place of {name}")
    if not (subject.source.tied or subject.target.tied):
        held: dict[str, list[Block]] = {}
        for block in (block for step in subject.steps for block in step.sources):
            for other in held.setdefault(block.tensor, []):
                if all(_meet(a, b) for a, b in zip(block.slices, other.slices, strict=True)):
                    return Check("places", False, f"two steps read the same place of {block.tensor}")
            held[block.tensor].append(block)
    corners = 0
    read, written = Reader(subject.source, subject.spec), Reader(subject.target, subject.spec)
    layers = range(axis_length(subject.spec, "layer"))
    lengths = {axis_length(subject.spec, axis, layer) for axis in ("units", "features", "state") for layer in layers}
    for step in subject.steps:
        for at in _corners(step, lengths):
            corners += 1
            there = [read(block.tensor, _place(block, at)) for block in step.sources]
            here = [written(step.target.tensor, _place(step.target, at))] if step.target else []
            fault = _differ(subject, step, there, here)
            if fault:
                return Check("places", False, fault)
    total = sum(map(math.prod, subject.target_shapes.values()))
    count = sum(map(len, blocks.values()))
    return Check(
        "places",
        True,
        f"{count} blocks fill {len(blocks)} tensors of {total:,} numbers; {corners} corners decode alike",
    )


def _meet(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    if (a[0] - b[0]) % math.gcd(a[2], b[2]):
        return False
    return a[0] < b[1] and b[0] < a[1]


def _corners(step: Step, lengths: Iterable[int]) -> Iterator[dict[str, int]]:
    """Yield the corners of a step's blocks, their neighbours, and where another slot may begin inside."""
    block = step.target or step.sources[0]
    ends = [sorted({0, min(1, length - 1), max(length - 2, 0), length - 1}) for length in block.shape]
    chosen = dict.fromkeys(itertools.product(*ends))
    for number, length in enumerate(block.shape):
        # Several gates, or layers, may be merged into one axis: each of them has a first element.
        firsts = {first for size in lengths if length // size <= 64 for first in range(size, length, size)}
        outer = [(0, end[-1]) for end in ends]
        chosen |= dict.fromkeys(itertools.product(*outer[:number], sorted(firsts), *outer[number + 1 :]))
    for index in chosen:
        yield dict(zip(block.axes, index, strict=True))


def _differ(subject: Plan, step: Step, there: list[Element], here: list[Element]) -> str:
    """Return what is wrong with the names on the two sides of one number, or nothing."""

    def alike(one: Element, other: Element, sign: int) -> bool:
        summed = other.key.gate in summed_gates(subject.spec)
        same_part = one.key.part == other.key.part or (summed and {one.key.part, other.key.part} == set(BIASES))
        gates = {one.key.gate, subject.source.tied.get(one.key.gate, one.key.gate)}
        gates |= {gate for gate, partner in subject.source.tied.items() if partner == one.key.gate}
        same_gate = one.key.gate == other.key.gate
        tied = other.key.gate in gates or other.key.gate in subject.target.tied
        turned = subject.source.update != subject.target.update and other.key.gate == "z"
        fits = (sign == (-1 if turned else 1)) if same_gate else tied
        where = (one.key.layer, one.key.direction, one.place) == (other.key.layer, other.key.direction, other.place)
        return same_part and where and fits

    if len(set(there)) < len(there):
        return f"{there[0]} is added to itself"
    wanted = here or there[:1]
    for element, sign in zip(there, step.signs, strict=True):
        if not alike(element, wanted[0], sign) and here:
            return f"{element} is written to {wanted[0]}"
        if element.place != wanted[0].place:
            return f"{element} is added to {wanted[0]}"
    if here and not there and not _is_constant(subject, here[0], step.constant):
        return f"{here[0]} is filled with {step.constant:g}"
    return ""


def _is_constant(subject: Plan, element: Element, value: float) -> bool:
    adds = {abs(a - b) for a in _constants(subject.source) for b in _constants(subject.target)}
    return value == 0 or (element.key.part in BIASES and abs(value) in adds)


def _constants(layout: Layout) -> set[float]:
    return {0.0, *layout.adds.values()}


# ── 3. exactness ────────────────────────────────────────────────────────────────────────────────────────────────


def _check_exactness(small: Plan) -> Check:
    names = _names(small)
    made, zero = run_over_names(small.steps, names)
    if len(made) != sum(map(math.prod, small.target_shapes.values())):
        return Check("exactness", False, "some numbers are not written, so that not all can return")
    back, _ = run_over_names(plan(small.spec, small.target, small.source).steps, made)
    lost = [symbol for symbol, value in names.items() if back.get(symbol) != value]
    said = small.verdict is Verdict.EXACT
    if zero:
        return Check("exactness", not said, "some numbers must be zero, and the verdict is not exact")
    rounded = any(step.constant and step.sources for step in small.steps)
    if said != (not lost and not rounded):
        return Check(
            "exactness", False, f"the verdict is {small.verdict}, and {len(lost)} of {len(names)} names do not return"
        )
    if said:
        return Check("exactness", True, "all names return from plan and inverse")
    return Check(
        "exactness",
        True,
        f"{len(lost)} of {len(names)} names do not return, as the verdict says"
        if lost
        else "a constant is added, which rounds",
    )
