"""What a live object or a file holds, tensor by tensor, and why two of them hold different numbers.

An inventory lists layers, known and unknown, with the role of each tensor. Two inventories are laid side by side layer
by layer; each layer is canonical blocks, so that every number that one side counts and the other does not has a cause.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from gatewise.core.count import (
    TWINS,
    Count,
    LayerCount,
    Term,
    formula,
    gate_sentence,
    numbers,
    redundant,
    size,
    stored_terms,
    substitute,
)
from gatewise.core.explain import VIEWS, WORDS, Cause, Explanation, Tally, Wording, cause_name, layout_causes
from gatewise.core.infer import infer
from gatewise.core.layout import CANONICAL, Key, Layout, gaps, store, summed_gates
from gatewise.core.matching import Node, side_by_side
from gatewise.core.spec import Recurrent, Spec
from gatewise.errors import GatewiseError


class Role(StrEnum):
    """What a stored tensor is to the model.

    ``TIED`` is a weight that was listed before, ``FACTOR`` one of several that a weight is computed from, and
    ``ABSENT`` what a layout lists and this layer does without.
    """

    WEIGHT = "weight"
    FROZEN = "frozen"
    STATISTIC = "statistic"
    COUNTER = "counter"
    SEED = "seed"
    OPTIMIZER = "optimizer"
    TIED = "tied"
    BUFFER = "buffer"
    FACTOR = "factor"
    ABSENT = "absent"


LOOSE = (Role.COUNTER, Role.SEED, Role.OPTIMIZER, Role.FACTOR)
"""Roles of what belongs to a layer, and is no weight of it."""

TENSOR = "tensor"
"""Kind of an item that is no layer: one tensor that stands alone, or beside a layer that is known."""


class Tensor(NamedTuple):
    """One tensor: its name within its layer (as the layer's layout names it), its shape and its role."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class Item(NamedTuple):
    """One layer, or what stands for one in a file.

    Attributes:
        name: Its name in the model.
        kind: The name of its class.
        tensors: What it holds.
        spec: What it computes, where that is known.
        layout: How it stores that.
        native: The framework's own layer, where there is one.
    """

    name: str
    kind: str
    tensors: tuple[Tensor, ...]
    spec: Spec | None = None
    layout: Layout | None = None
    native: Any = None


class Outline(NamedTuple):
    """One line of a model's summary: a layer, with weights or without.

    Attributes:
        name: Its name in the model.
        kind: The name of its class.
        shape: The shape of its outputs; empty where the framework does not say it.
        items: What it holds.
    """

    name: str
    kind: str
    shape: str = ""
    items: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """All that a model holds.

    Attributes:
        framework: Its framework.
        label: What to call it in a sentence: the framework, or the name of the file.
        items: Its layers that hold anything, in their order.
        parameters: The roles that the framework itself counts as parameters.
        saved: The roles that it stores.
        extras: What belongs to no layer, such as the variables of an optimiser.
        outline: Its layers as the framework's own summary lists them.
    """

    framework: str
    label: str
    items: tuple[Item, ...]
    parameters: frozenset[Role]
    saved: frozenset[Role]
    extras: tuple[Tensor, ...] = ()
    outline: tuple[Outline, ...] = ()


ROLE_WORDS = {
    Role.STATISTIC: ("moving statistics", WORDS["moving statistics"]),
    Role.FROZEN: (
        "frozen weights",
        Wording("Training changes these weights in {has}; in {lacks} they are frozen.", "real in training alone."),
    ),
    Role.TIED: (
        "tied weights",
        Wording(
            "{lacks} uses one tensor in two places and counts it once; {has} holds one for each place.",
            "real in training: two tensors may drift apart.",
        ),
    ),
    Role.COUNTER: (
        "counters of steps",
        Wording(
            "Beside the moving statistics of each layer {has} keeps a counter of training steps; {lacks} has {fewer}.",
            "none: the outputs do not depend on it.",
        ),
    ),
    Role.BUFFER: (
        "buffers",
        Wording(
            "{has} keeps these numbers as buffers, which training leaves alone; {lacks} has {fewer}.",
            "real: outputs may need them.",
        ),
    ),
    Role.ABSENT: (
        "moving statistics that only one keeps",
        Wording(
            "{has} keeps a moving mean and variance of each feature, for prediction. {lacks} keeps none, and always "
            "takes those of the batch at hand.",
            "real: predictions differ.",
        ),
    ),
    Role.FACTOR: (
        "factors of a weight",
        Wording(
            "{has} computes a weight out of several tensors, as LoRA and weight normalisation do, and trains those; "
            "{lacks} stores the weight alone.",
            "redundant: the outputs only see the weight that comes out.",
        ),
    ),
    Role.SEED: (
        "states of seed generators",
        Wording(
            "In {has} each layer that draws random numbers, for dropout say, keeps the state of its generator: 2 whole "
            "numbers. They stand among the variables, but not in the summary. {lacks} has {fewer} in its layers.",
            "none: they decide what training draws.",
        ),
    ),
    Role.OPTIMIZER: (
        "optimiser variables",
        Wording(
            "Once a model is trained, the summary of Keras 3 adds what the optimiser keeps: its step and learning "
            "rate, and its moving averages, of which Adam has two for each trainable number and plain SGD none. "
            "{lacks} holds {fewer}.",
            "none: they serve training and not the outputs.",
        ),
    ),
}
"""Role → the cause of a difference where only one side counts it, and its words."""

OPTION_WORDS = {
    "features": ("other size of the input", "It reads {first} features in {here}, {second} in {there}."),
    "units": ("other number of units", "It has {first} units in {here}, {second} in {there}."),
    "tokens": ("other number of tokens", "It has a row for each of {first} tokens in {here}, {second} in {there}."),
    "projection": ("projection", "Only {has} projects the output to a state of another size."),
    "peepholes": ("peepholes", "Only in {has} do the gates see the memory, by weights of their own."),
    "bias": ("bias", "Only {has} has a bias in it."),
    "scale": ("scale", "Only {has} has a factor for each feature."),
    "shift": ("shift", "Only {has} has a summand for each feature."),
    "bidirectional": (
        "second direction",
        "Only {has} also reads the sequence from its end, with weights of its own.",
    ),
    "reset": (
        "reset gate",
        "The reset gate acts {first} the recurrent product in {here}, {second} it in {there}.",
    ),
}
"""Option of a spec that changes a count → the cause's name, and why; in the order in which they are changed."""

BOTH_WORDS = {
    "projection": "The output is projected to {first} numbers in {here}, to {second} in {there}.",
    "peepholes": "In one of them a gate sees its own unit of the memory, in the other the whole memory.",
}
"""The same where both sides have the option, with other values."""


def recognise(
    classes: Collection[str], layouts: Collection[Layout], shapes: Mapping[str, tuple[int, ...]]
) -> Spec | None:
    """Return a layer with these tensors in a layout that is named as one of some classes, or None.

    For layers that a port refuses, as it cannot compute them elsewhere: what they hold is known all the same.
    """
    for layout in layouts:
        if layout.name.partition(":")[2] in classes:
            with contextlib.suppress(GatewiseError):
                return infer(layout, shapes)
    return None


class _Block(NamedTuple):
    size: int
    role: Role
    redundant: bool


class _Unit(NamedTuple):
    """One layer out of its stack: its canonical blocks, or of an unknown layer its tensors."""

    name: str
    kind: str
    spec: Spec | None
    layout: Layout | None
    blocks: dict[Key, _Block]

    @property
    def sizes(self) -> Hashable:
        """What two units have in common if one can be the other's port."""
        if self.spec is None:
            return tuple(sorted(block.size for block in self.blocks.values()))
        return self.spec.cell, tuple(store(CANONICAL[self.spec.cell], self.spec).shapes.items())


class _Side(NamedTuple):
    inventory: Inventory
    view: str

    def counts(self, block: _Block) -> bool:
        """Say whether a block counts in this view."""
        if self.view == "effective":
            return not block.redundant and block.role in (Role.WEIGHT, Role.FROZEN, Role.STATISTIC)
        return self.role_counts(block.role)

    def role_counts(self, role: Role) -> bool:
        """Say whether what has a role counts in this view."""
        counted = {
            "parameters": self.inventory.parameters,
            "stored": self.inventory.saved,
            "trainable": {Role.WEIGHT, Role.FACTOR},
        }
        return role in counted.get(self.view, ())

    def total(self) -> int:
        """Return how many numbers count in this view."""
        blocks = sum(
            block.size for item in self.inventory.items for block in _blocks(item).values() if self.counts(block)
        )
        return blocks + sum(tensor.size for tensor in _loose(self.inventory) if self.role_counts(tensor.role))


def _loose(inventory: Inventory) -> Iterator[Tensor]:
    """Yield what is in no block: the extras, and of known layers the tensors that their layout does not list."""
    yield from inventory.extras
    for item in inventory.items:
        if item.spec is not None and item.layout is not None:
            listed = store(item.layout, item.spec).shapes
            yield from (tensor for tensor in item.tensors if tensor.name not in listed)
        else:
            yield from (tensor for tensor in item.tensors if tensor.role in LOOSE)


def _blocks(item: Item) -> dict[Key, _Block]:
    """Return the canonical blocks of a layer; of an unknown one its tensors, named by their lengths."""
    if item.spec is None or item.layout is None:
        blocks: dict[Key, _Block] = {}
        seen: Counter[str] = Counter()
        for tensor in item.tensors:
            if tensor.role in LOOSE:
                continue
            lengths = "·".join(map(str, sorted(tensor.shape))) or "1"
            blocks[Key(lengths, seen[lengths], 0, "")] = _Block(tensor.size, tensor.role, redundant=False)
            seen[lengths] += 1
        return blocks
    roles = {tensor.name: tensor.role for tensor in item.tensors}
    double = redundant(item.spec, item.layout)
    return {
        key: _Block(size(item.spec, key), roles.get(slot.tensor, Role.ABSENT), key in double)
        for key, slot in store(item.layout, item.spec).slots.items()
    }


def _units(inventory: Inventory) -> list[_Unit]:
    """Return the layers of an inventory, each out of its stack."""
    units = []
    for item in inventory.items:
        spec, blocks = item.spec, _blocks(item)
        if not isinstance(spec, Recurrent) or spec.layers == 1:
            units.append(_Unit(item.name, item.kind, spec, item.layout, blocks))
            continue
        for place in range(spec.layers):
            width = spec.features if place == 0 else spec.merged_directions * spec.state
            single = spec.replace(layers=1, features=width, dropout_between=0.0)
            own = {key._replace(layer=0): block for key, block in blocks.items() if key.layer == place}
            units.append(_Unit(f"{item.name}, layer {place}", item.kind, single, item.layout, own))
    return units


# ── side by side ────────────────────────────────────────────────────────────────────────────────────────────────


def _distance(mine: _Unit, yours: _Unit) -> float:
    """Return how unlike two units are whose sizes differ; 2 is the price of leaving out both."""
    if mine.spec is None or yours.spec is None:
        return 1.5 if mine.kind.lower() == yours.kind.lower() else math.inf
    if mine.spec.cell == yours.spec.cell:
        ours, theirs = mine.spec.options(), yours.spec.options()
        differing = [option for option in OPTION_WORDS if ours.get(option) != theirs.get(option)]
        return 0.5 + 0.1 * min(4, len(differing))
    both = isinstance(mine.spec, Recurrent) and isinstance(yours.spec, Recurrent)
    return 1.5 if both else math.inf


def _node(unit: _Unit) -> Node:
    return Node(unit.name, unit.sizes)


# ── causes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def explain_inventories(first: Inventory, second: Inventory, view: str = "parameters") -> Explanation:
    """Explain why two models hold different numbers of parameters, layer by layer.

    Args:
        first: One model.
        second: The other.
        view: What to count, a key of ``VIEWS``.

    Returns:
        The explanation; its causes add up to the difference.

    >>> from gatewise.core.spec import LSTM
    >>> from gatewise.registry import layout
    >>> def model(name):
    ...     spec, stored = LSTM(3, 50), layout(name, LSTM(3, 50))
    ...     tensors = tuple(Tensor(name, shape, Role.WEIGHT) for name, shape in store(stored, spec).shapes.items())
    ...     roles = frozenset([Role.WEIGHT])
    ...     return Inventory(name, name, (Item("lstm", "LSTM", tensors, spec, stored),), roles, roles)
    >>> told = explain_inventories(model("keras"), model("torch"))
    >>> told.difference, [(cause.name, cause.parameters) for cause in told.causes]
    (200, [('second bias', 200)])
    """
    if first.label == second.label:
        first, second = (
            replace(each, label=f"{each.label} ({which})") for each, which in ((first, "first"), (second, "second"))
        )
    here, there = _Side(first, view), _Side(second, view)
    causes = [
        replace(cause, layer=next(unit.name for unit in pair if unit is not None))
        for pair in side_by_side(_units(first), _units(second), _node, _distance)
        for cause in _pair_causes(*pair, here, there)
    ]
    causes += _loose_causes(here, there)
    tallies = tuple(
        Tally(name, meaning, _Side(first, name).total(), _Side(second, name).total()) for name, meaning in VIEWS.items()
    )
    counts = _count(here), _count(there)
    return Explanation(*counts, tuple(causes), _opening(first, second, *counts), (), tallies)


def _opening(first: Inventory, second: Inventory, *counts: Count) -> str:
    """Return what one gate is where one layer is explained; of models, how far apart they are."""
    specs = [item.spec for held in (first, second) for item in held.items]
    if len(specs) == 2 and specs[0] is not None:
        return gate_sentence(specs[0])
    here, there = counts
    apart = f"{abs(there.total - here.total):,} {'more' if there.total > here.total else 'fewer'}"
    return (
        f"{here.framework} has {here.total:,} parameters, {there.framework} "
        f"{apart if there.total != here.total else 'as many'}."
    )


def summarise(held: Inventory, beside: Inventory | None = None) -> Count:
    """Count a model as its framework's own summary does, layer by layer.

    Args:
        held: The model.
        beside: The same model in another framework, its outline in the same order.
    """
    side = _Side(held, "parameters")
    layers = tuple(
        LayerCount(
            line.name,
            line.kind,
            line.shape,
            sum(sum(_counted_sizes(item, side).values()) for item in line.items),
            all(item.spec is not None for item in line.items),
        )
        for line in held.outline
    )
    return replace(
        _count(side),
        layers=layers,
        trainable=_Side(held, "trainable").total(),
        optimizer=sum(tensor.size for tensor in held.extras if tensor.role is Role.OPTIMIZER),
        beside=None if beside is None else summarise(beside),
    )


def _count(side: _Side) -> Count:
    """Return the tensors of one side that count in its view."""
    terms = []
    for item in side.inventory.items:
        listed: dict[str, Term] = {}
        if item.spec is not None and item.layout is not None:
            listed = {term.name: term for term in stored_terms(item.spec, item.layout)}
        counted = _counted_sizes(item, side)
        for tensor in item.tensors:
            if counted.get(tensor.name):
                term = listed.get(tensor.name, _plain_term(tensor))
                terms.append(term._replace(name=f"{item.name}/{tensor.name}", parameters=counted[tensor.name]))
    terms += [_plain_term(tensor) for tensor in side.inventory.extras if side.role_counts(tensor.role)]
    return Count(side.inventory.label, tuple(terms), (), _Side(side.inventory, "effective").total())


def _counted_sizes(item: Item, side: _Side) -> dict[str, int]:
    """Return tensor → how many of its numbers count."""
    sizes: Counter[str] = Counter()
    listed: dict[str, tuple[int, ...]] = {}
    if item.spec is not None and item.layout is not None:
        listed = store(item.layout, item.spec).shapes
        blocks = _blocks(item)
        for key, slot in store(item.layout, item.spec).slots.items():
            sizes[slot.tensor] += blocks[key].size if side.counts(blocks[key]) else 0
    for tensor in item.tensors:
        if tensor.name not in listed and side.counts(_Block(tensor.size, tensor.role, redundant=False)):
            sizes[tensor.name] += tensor.size
    return sizes


def _plain_term(tensor: Tensor) -> Term:
    written = "·".join(map(str, tensor.shape)) or "1"
    return Term(tensor.name, tensor.shape, tensor.size, written, (), tuple(map(str, tensor.shape)), written)


def _pair_causes(mine: _Unit | None, yours: _Unit | None, here: _Side, there: _Side) -> Iterator[Cause]:
    """Yield why two layers count differently; one of them may be missing."""
    if mine is None or yours is None:
        unit, side, other, sign = (yours, there, here, 1) if mine is None else (mine, here, there, -1)
        assert unit is not None
        keys = [key for key, block in unit.blocks.items() if side.counts(block)]
        if keys:
            what, kind = ("tensor", "") if unit.kind == TENSOR else ("layer", f" ({unit.kind})")
            words = Wording(f"Only {side.inventory.label} has this {what}{kind}.", "real: another model.")
            yield _cause(f"{what} that only one has", unit, keys, words, side, other, sign)
        return
    if not any(map(here.counts, mine.blocks.values())) and not any(map(there.counts, yours.blocks.values())):
        return
    if mine.sizes == yours.sizes:
        yield from _keywise(mine, yours, here, there)
        return
    # The sizes differ: first all that one stores counts, then its options become those of the other, then the reverse.
    nowhere = _uncounted_parts(mine, here) & _uncounted_parts(yours, there)
    yield from (replace(cause, parameters=-cause.parameters) for cause in _by_role(mine, here, there, -1, nowhere))
    yield from _restructured(mine, yours, here, there, nowhere)
    yield from _by_role(yours, there, here, -1, nowhere)


def _uncounted_parts(unit: _Unit, side: _Side) -> set[str]:
    """Return the parts of a known layer of which a side counts nothing."""
    if unit.spec is None:
        return set()
    counted = {key.part for key, block in unit.blocks.items() if side.counts(block)}
    return {key.part for key in unit.blocks} - counted


def _cause(
    name: str, unit: _Unit, keys: list[Key], words: Wording, has: _Side, lacks: _Side, sign: int, gates: str = ""
) -> Cause:
    parameters = sum(unit.blocks[key].size for key in keys)
    if unit.spec is None:
        written = arithmetic = " + ".join(key.part for key in keys)
    else:
        written = formula(unit.spec, keys)
        arithmetic = substitute(written, numbers(unit.spec))
    labels = {"has": has.inventory.label, "lacks": lacks.inventory.label, "gates": gates, "fewer": "none"}
    return Cause(name, sign * parameters, written, words.why.format(**labels), words.effect, arithmetic)


def _normal(unit: _Unit, side: _Side) -> dict[Key, Key]:
    """Return what counts of a unit: canonical block → its own block; they differ where one does the work of two."""
    found = {}
    for key, block in unit.blocks.items():
        if not side.counts(block):
            continue
        alone = side.view == "effective" and unit.spec is not None and key.part in TWINS
        twin = key._replace(part=TWINS[key.part]) if alone else key
        summed = unit.spec is not None and (not key.gate or key.gate in summed_gates(unit.spec))
        found[twin if summed and twin not in unit.blocks else key] = key
    return found


def _keywise(mine: _Unit, yours: _Unit, here: _Side, there: _Side) -> Iterator[Cause]:
    """Yield the causes between two layers of the same sizes: what one counts and the other does not."""
    ours, theirs = _normal(mine, here), _normal(yours, there)
    for unit, side, other, opposite, keys, sign in (
        (yours, there, mine, here, theirs.keys() - ours.keys(), 1),
        (mine, here, yours, there, ours.keys() - theirs.keys(), -1),
    ):
        grouped: dict[str, tuple[Wording, list[Key]]] = {}
        own = theirs if unit is yours else ours
        for key in (key for key in unit.blocks if key in {own[each] for each in keys}):
            name, words = _reason(unit, other, key)
            grouped.setdefault(name, (words, []))[1].append(key)
        for name, (words, found) in grouped.items():
            gates = " and ".join(dict.fromkeys(key.gate for key in found))
            yield _cause(name, unit, found, words, side, opposite, sign, gates)


def _reason(has: _Unit, lacks: _Unit, key: Key) -> tuple[str, Wording]:
    """Return why a block counts on one side and not on the other."""
    there = lacks.blocks.get(key)
    if there is not None and there.role in ROLE_WORDS:
        return ROLE_WORDS[there.role]
    own = has.blocks[key].role
    if there is not None or has.spec is None or lacks.layout is None:
        return ROLE_WORDS.get(
            own, ("other weights", Wording("Only {has} counts these weights.", "real: another model."))
        )
    name = cause_name(has.spec, key, lacks.layout)
    return name, WORDS[name]


def _by_role(unit: _Unit, side: _Side, other: _Side, sign: int, nowhere: Collection[str]) -> Iterator[Cause]:
    """Yield what of a layer does not count because of its role; parts that count nowhere are left out."""
    grouped: dict[Role, list[Key]] = {}
    for key, block in unit.blocks.items():
        if key.part in nowhere:
            continue
        if not side.counts(block) and not (side.view == "effective" and block.redundant):
            grouped.setdefault(block.role, []).append(key)
    for role, keys in grouped.items():
        name, words = ROLE_WORDS.get(
            role, ("other weights", Wording("{lacks} does not count these.", "none: they are there."))
        )
        why = {"has": other.inventory.label, "lacks": side.inventory.label, "fewer": "none"}
        yield _cause(name, unit, keys, Wording(words.why.format(**why), words.effect), side, other, sign)


def _measured(spec: Spec, layout: Layout, view: str, nowhere: Collection[str]) -> list[Key]:
    """Return the blocks that a layout stores for a layer; without the redundant ones where only the others count."""
    double = redundant(spec, layout) if view == "effective" else ()
    return [key for key in store(layout, spec).slots if key not in double and key.part not in nowhere]


def _restructured(mine: _Unit, yours: _Unit, here: _Side, there: _Side, nowhere: Collection[str]) -> Iterator[Cause]:
    """Yield the causes between two layers of different sizes, all of them counted but the parts that count nowhere."""
    view = here.view
    labels = here.inventory.label, there.inventory.label
    if mine.spec is None or yours.spec is None or type(mine.spec) is not type(yours.spec):
        ours, theirs = (
            _Stock(
                unit.spec,
                {
                    key: block.size
                    for key, block in unit.blocks.items()
                    if not (view == "effective" and block.redundant) and key.part not in nowhere
                },
            )
            for unit in (mine, yours)
        )
        name = "another kind of layer"
        why = f"In {labels[0]} this layer is of kind {mine.kind}, in {labels[1]} of kind {yours.kind}."
        if mine.kind.lower() == yours.kind.lower():
            name, why = "other weights", f"Both layers are of kind {mine.kind}, and hold tensors of other sizes."
        cause = _swap(name, ours, theirs, Wording(why, "real: another function."))
        if cause.parameters:
            yield cause
        return
    assert mine.layout is not None
    assert yours.layout is not None
    path: list[tuple[str, Spec]] = [("", mine.spec)]
    for option in OPTION_WORDS:
        value = yours.spec.options().get(option)
        if option in yours.spec.options() and path[-1][1].options()[option] != value:
            path.append((option, path[-1][1].replace(**{option: value})))
    path[-1] = (path[-1][0], yours.spec)
    specs = [spec for _, spec in path]
    own = [layout for layout in (mine.layout, yours.layout) if not any(gaps(layout, spec) for spec in specs)]
    middle = own[0] if own else CANONICAL[mine.spec.cell]
    measured = functools.partial(_measured, view=view, nowhere=nowhere)
    named = [spec.replace(reset="after") if "after" in _resets(specs) else spec for spec in (mine.spec, yours.spec)]
    yield from layout_causes(mine.spec, mine.layout, middle, of=measured, labels=labels, named=named[0])
    for (_, before), (option, after) in itertools.pairwise(path):
        name, why = OPTION_WORDS[option]
        first, second = (spec.options()[option] for spec in (mine.spec, yours.spec))
        if first and second:
            why = BOTH_WORDS.get(option, why)
        has = labels[1] if second else labels[0]
        why = why.format(first=first, second=second, here=labels[0], there=labels[1], has=has)
        words = Wording(why, "real: another function.")
        cause = _swap(
            name, _of_layout(before, measured(before, middle)), _of_layout(after, measured(after, middle)), words
        )
        if cause.parameters:
            yield cause
    yield from layout_causes(yours.spec, middle, yours.layout, of=measured, labels=labels, named=named[1])


def _resets(specs: Sequence[Spec]) -> set[Any]:
    return {spec.options().get("reset") for spec in specs}


class _Stock(NamedTuple):
    """Some blocks: of a known layer, or of an unknown one, and then with their sizes."""

    spec: Spec | None
    sizes: dict[Key, int]

    def letters(self, keys: Collection[Key]) -> str:
        """Write how many numbers some of them hold."""
        known = [key for key in self.sizes if key in keys]
        return formula(self.spec, known) if self.spec is not None else " + ".join(key.part for key in known) or "0"

    def figures(self, keys: Collection[Key]) -> str:
        """Write the same in numbers."""
        written = self.letters(keys)
        return substitute(written, numbers(self.spec)) if self.spec is not None else written


def _of_layout(spec: Spec, keys: list[Key]) -> _Stock:
    return _Stock(spec, {key: size(spec, key) for key in keys})


def _swap(name: str, before: _Stock, after: _Stock, words: Wording) -> Cause:
    """Return the cause that takes one set of blocks away and puts another in its place."""
    parameters = sum(after.sizes.values()) - sum(before.sizes.values())
    both = before.sizes.keys() & after.sizes.keys()
    if all(before.sizes[key] == after.sizes[key] for key in both) and not (before.sizes.keys() and not both):
        gone, come = before.sizes.keys() - both, after.sizes.keys() - both
        if not gone or not come:
            stock, keys = (after, come) if come else (before, gone)
            return Cause(name, parameters, stock.letters(keys), words.why, words.effect, stock.figures(keys))
    same = {key for key in both if before.sizes[key] == after.sizes[key]}
    gone, come = before.sizes.keys() - same, after.sizes.keys() - same
    old, new = before.letters(gone), after.letters(come)
    letters = f"change of {new}" if old == new else f"({new}) - ({old})"
    figures = f"({after.figures(come)}) - ({before.figures(gone)})"
    return Cause(name, parameters, letters, words.why, words.effect, figures)


MOST_AVERAGES = 4
"""How many moving averages an optimiser keeps for each trainable number at most."""


def _loose_causes(here: _Side, there: _Side) -> Iterator[Cause]:
    """Yield the causes that lie in no layer's weights."""
    for role, (name, words) in ROLE_WORDS.items():
        ours, theirs = (
            [tensor for tensor in _loose(side.inventory) if tensor.role is role and side.role_counts(role)]
            for side in (here, there)
        )
        difference = sum(tensor.size for tensor in theirs) - sum(tensor.size for tensor in ours)
        if not difference:
            continue
        has, lacks, more, fewer = (there, here, theirs, ours) if difference > 0 else (here, there, ours, theirs)
        labels = {"has": has.inventory.label, "lacks": lacks.inventory.label, "fewer": "fewer" if fewer else "none"}
        letters, figures = _loose_formula(role, has, more, fewer)
        yield Cause(name, difference, letters, words.why.format(**labels), words.effect, figures)


def _loose_formula(role: Role, side: _Side, more: list[Tensor], fewer: list[Tensor]) -> tuple[str, str]:
    """Write how much more of a role lies in no layer's weights of one side, in letters and in numbers."""
    total = sum(tensor.size for tensor in more) - sum(tensor.size for tensor in fewer)
    if role is Role.OPTIMIZER:
        trainable = _Side(side.inventory, "trainable").total()
        scalars = sum(not tensor.shape for tensor in more) - sum(not tensor.shape for tensor in fewer)
        times, rest = divmod(total - scalars, trainable) if trainable else (0, total)
        if rest or not 0 < times <= MOST_AVERAGES:
            return str(total), str(total)
        left = f" {'+' if scalars > 0 else '-'} {abs(scalars)}" if scalars else ""
        many = f"{times}·" if times > 1 else ""
        return f"{many}trainable{left}", f"{many}{trainable}{left}"
    each, what = {Role.SEED: (2, "generators"), Role.COUNTER: (1, "layers")}.get(role, (0, ""))
    if not each or total % each:
        return str(total), str(total)
    many = f"{each}·" if each > 1 else ""
    return f"{many}{what}", f"{many}{total // each}"
