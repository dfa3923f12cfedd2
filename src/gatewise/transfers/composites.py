"""Recurrent layers that a user wrote out of tensors or dense layers, recognised by the shapes of these.

What such a layer is, the other model says. How it stores that is a layout like any other; only the order of its gates,
and which way a square kernel lies, no shape tells: each possibility is a layout, and the outputs decide.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from gatewise.core.inventory import Item, Role, Tensor
from gatewise.core.layout import GATES, Layout, store
from gatewise.core.spec import Recurrent, Spec
from gatewise.errors import GatewiseError
from gatewise.transfers.sides import Side, Unit

MOST_FORMS = 240
"""How many layouts of one layer are tried at most."""

Shapes = Mapping[str, tuple[int, ...]]


class _Piece(NamedTuple):
    """One tensor that has no partner: its path in the whole model, its shape, its unit, and the class that holds it."""

    path: str
    shape: tuple[int, ...]
    unit: Unit
    kind: str


def composed(side: Side, left: Sequence[Unit], wanted: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """Return units that are made of what has no partner, for layers of the other side, and what is still left."""
    pieces = [piece for unit in left for piece in _pieces(side, unit)]
    made: list[Unit] = []
    for other in wanted:
        if not isinstance(other.spec, Recurrent):
            continue
        for group in _groups(pieces):
            layouts = list(itertools.islice(_forms(other.spec, group), MOST_FORMS))
            if layouts:
                made.append(_unit(side, other.spec, group, layouts))
                pieces = [piece for piece in pieces if piece not in group]
                break
    kept = [unit for unit in left if any(piece.unit is unit for piece in pieces) or not _pieces(side, unit)]
    return made, kept


def _pieces(side: Side, unit: Unit) -> list[_Piece]:
    item = side.item(unit)
    if isinstance(unit.spec, Recurrent):
        return []
    if side.reach is not None and side.reach.virtual(item.native):
        return []  # The projections of an attention are views: the model has no tensors of these names.
    held = unit.tensors or tuple((each.name, each.shape) for each in item.tensors if each.role is not Role.COUNTER)
    return [_Piece(side.path(unit.item, name), shape, unit, item.kind) for name, shape in held]


def _groups(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Return the sets of tensors that stand below one path each, the smallest first, and those of one prefix."""
    found: dict[tuple[str, ...], list[_Piece]] = {}
    for piece in pieces:
        parts = piece.path.replace("/", ".").split(".")
        for depth in range(len(parts)):
            found.setdefault(tuple(parts[:depth]), []).append(piece)
    return sorted(found.values(), key=len)


def _unit(side: Side, spec: Recurrent, group: Sequence[_Piece], layouts: list[Layout]) -> Unit:
    """Add an item for a composed layer to a model, and return its unit."""
    wanted = spec.replace(bias=any("bias" in pattern for pattern in layouts[0].tensors.values()))
    shapes = store(layouts[0], wanted).shapes
    tensors = tuple(Tensor(name, shapes[name], Role.WEIGHT) for name in shapes)
    parts = [piece.path.replace("/", ".").split(".") for piece in group]
    shared = [level[0] for level in zip(*parts, strict=False) if len(set(level)) == 1]
    name = ".".join(shared) or " + ".join(dict.fromkeys(piece.unit.name for piece in group))
    number = len(side.inventory.items)
    if side.reach is None:
        side.arrays = (*side.arrays, {each.path: side.arrays[each.unit.item][_own(each)] for each in group})
    item = Item(name, f"{type(spec).__name__} of tensors", tensors, wanted, layouts[0], side.obj)
    side.inventory = replace(side.inventory, items=(*side.inventory.items, item))
    side.forms[number] = layouts
    return Unit(name, number, item.kind, wanted, layouts[0])


def _own(piece: _Piece) -> str:
    return piece.unit.tensors[0][0] if len(piece.unit.tensors) == 1 else piece.path.rpartition(".")[2]


# ── layouts ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Kind(NamedTuple):
    """What a tensor may be: its canonical parts, the pattern of its axes, and whether it holds all gates."""

    parts: tuple[str, ...]
    pattern: str
    packed: bool


_BOTH = ("kernel", "recurrent_kernel"), "(features + state)"
_TURNED = ("recurrent_kernel", "kernel"), "(state + features)"


def _kinds(spec: Recurrent, piece: _Piece) -> list[_Kind]:
    """Return what a tensor may be by its shape; the weight of a dense layer lies as it does in its class."""
    reads = {"features": spec.features, "state": spec.state, "(features + state)": spec.features + spec.state}
    count = len(GATES[spec.cell])
    found: list[_Kind] = []
    for packed in (True, False) if count > 1 else (True,):
        rows, axis = (count * spec.units, "(gate units)") if packed else (spec.units, "units")
        if piece.shape == (rows,):
            found += [_Kind((part,), axis, packed) for part in ("bias", "recurrent_bias")]
        for name, size in reads.items():
            parts = {"features": [("kernel",)], "state": [("recurrent_kernel",)]}.get(name, [_BOTH[0], _TURNED[0]])
            for part in parts:
                columns = _TURNED[1] if part == _TURNED[0] else name
                if piece.shape == (rows, size) and piece.kind != "Dense":
                    found.append(_Kind(part, f"{axis} {columns}", packed))
                if piece.shape == (size, rows) and piece.kind != "Linear":
                    found.append(_Kind(part, f"{columns} {axis}", packed))
    return found


def _forms(spec: Recurrent, group: Sequence[_Piece]) -> Iterator[Layout]:
    """Yield the layouts in which some tensors are a whole layer."""
    kinds = [_kinds(spec, piece) for piece in group]
    if not all(kinds) or len(group) > 4 * len(GATES[spec.cell]):
        return
    gates = GATES[spec.cell]
    for packed in (True, False):
        choices = [[kind for kind in options if kind.packed is packed] for options in kinds]
        if not all(choices):
            continue
        for chosen in _agreeing(choices, 1 if packed else len(gates)):
            for order in _orders(gates, group, packed=packed):
                for update in ("keeps", "takes") if spec.cell == "gru" else ("keeps",):
                    made = _layout(spec, group, chosen, order, packed, update)
                    if made is not None:
                        yield made


def _agreeing(choices: Sequence[Sequence[_Kind]], times: int) -> Iterator[tuple[_Kind, ...]]:
    """Yield what tensors are in which every part stands so many times, each time in the same pattern."""
    options = list(dict.fromkeys(kind for each in choices for kind in each))
    patterns = [
        subset
        for count in range(2, 5)
        for subset in itertools.combinations(options, count)
        if _whole([part for kind in subset for part in kind.parts])
    ]
    patterns += [(kind,) for kind in options if _whole(list(kind.parts))]
    for subset in sorted(patterns, key=lambda subset: options.index(subset[0])):
        if len(choices) != len(subset) * times:
            continue
        # Where features and units are as many, a kernel may be either: the first in the order of definition, or not.
        found = {tuple(_taken(choices, order, times)) for order in itertools.permutations(subset)}
        yield from sorted((each for each in found if len(each) == len(choices)), key=_plainness)


def _taken(choices: Sequence[Sequence[_Kind]], order: Sequence[_Kind], times: int) -> Iterator[_Kind]:
    """Yield what each tensor is, where what comes first in an order is taken first."""
    left = dict.fromkeys(order, times)
    for each in choices:
        kind = next((kind for kind in order if kind in each and left[kind]), None)
        if kind is None:
            return
        left[kind] -= 1
        yield kind


def _plainness(chosen: Sequence[_Kind]) -> list[str]:
    return [kind.parts[0] for kind in chosen]  # "bias" < "kernel" < "recurrent_kernel"


def _whole(parts: list[str]) -> bool:
    """Say whether some parts are those of a layer, each once."""
    return (
        len(set(parts)) == len(parts)
        and {"kernel", "recurrent_kernel"} <= set(parts)
        and ("recurrent_bias" not in parts or "bias" in parts)
    )


LETTERS = {
    "i": "i input in",
    "f": "f forget",
    "g": "g c cell candidate cand chat",
    "o": "o output out",
    "r": "r reset",
    "z": "z u update",
    "n": "n h new candidate cand hat",
}
"""Gate → words for it in names."""


def _orders(gates: str, group: Sequence[_Piece], *, packed: bool) -> list[str]:
    """Return the orders in which the gates may lie; one that the names tell comes first."""
    every = ["".join(order) for order in itertools.permutations(gates)]
    if packed:
        return every
    told = []
    for piece in group:
        words = piece.path.lower().replace(".", "_").replace("/", "_").split("_")
        fitting = [gate for gate in gates for word in words if word in LETTERS[gate].split()]
        told += fitting[:1]
    named = "".join(dict.fromkeys(told))
    return [named, *(order for order in every if order != named)] if sorted(named) == sorted(gates) else every


def _layout(
    spec: Recurrent, group: Sequence[_Piece], chosen: Sequence[_Kind], order: str, packed: bool, update: str
) -> Layout | None:
    """Return the layout in which each tensor is what was chosen, the gates in an order; None where there is none."""
    seen: dict[_Kind, int] = {}
    tensors: dict[str, str] = {}
    for piece, kind in zip(group, chosen, strict=True):
        gate = "" if packed else f"[{order[seen.setdefault(kind, 0)]}]"
        seen[kind] = seen.get(kind, 0) + 1
        tensors[piece.path] = f"{' + '.join(part + gate for part in kind.parts)}: {kind.pattern}"
    options: dict[str, Any] = {"update": update} if spec.cell == "gru" else {}
    if spec.cell == "gru":
        options["reset"] = str(spec.options()["reset"])
    try:
        made = Layout(
            f"own:{type(spec).__name__}", cell=spec.cell, gates=order, tensors=tensors, source="a user's own", **options
        )
        shapes = store(made, _with_bias(spec, tensors)).shapes
    except GatewiseError:  # No layout: the parts do not make one up.
        return None
    return made if dict(shapes) == {piece.path: piece.shape for piece in group} else None


def _with_bias(spec: Recurrent, tensors: Mapping[str, str]) -> Spec:
    return spec.replace(bias=any("bias" in pattern for pattern in tensors.values()))
