"""One model of a transfer, taken apart into units: one layer in one direction each, or one tensor that stands alone."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gatewise.core.inventory import LOOSE, Inventory, Item, Role
from gatewise.core.layout import CANONICAL, Layout, store
from gatewise.core.plan import plan
from gatewise.core.spec import Recurrent, Spec

if TYPE_CHECKING:
    from gatewise.transfers.reach import Tensors

STATISTICS = ("mean", "variance")
"""Parts of a normalisation that a layer may do without."""


WEIGHED = ("bias", "projection", "peepholes", "reset")
"""Options of a recurrent layer that decide which weights it has, beside its sizes."""


class Unit(NamedTuple):
    """What is paired: one layer in one direction, a whole layer that is not known, or one tensor.

    Attributes:
        name: Its name: that of its layer, with ``[layer]`` and ``.forward`` or ``.backward`` where there are several.
        item: The place of its layer in the inventory.
        kind: The class of the layer.
        spec: What it computes, as a layer by itself; None where that is not known.
        layout: How it stores that.
        place: Its layer and direction in a stack.
        tensors: The tensors that it is, where it is no known layer.
        optional: Whether all that it holds is listed elsewhere, too.
        aliases: Other names of it.
    """

    name: str
    item: int
    kind: str
    spec: Spec | None
    layout: Layout | None
    place: tuple[int, int] = (0, 0)
    tensors: tuple[tuple[str, tuple[int, ...]], ...] = ()
    optional: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def sizes(self) -> Hashable:
        """What it has in common with whatever can be its partner."""
        return sizes_of(self.spec) if self.spec is not None else ("tensors", _dims(self.tensors))


def _dims(tensors: Sequence[tuple[str, tuple[int, ...]]]) -> tuple[tuple[int, ...], ...]:
    return tuple(sorted(tuple(sorted(size for size in shape if size != 1)) for _, shape in tensors))


def sizes_of(spec: Spec) -> Hashable:
    """Return what a layer has in common with whatever can hold its weights: kind and sizes, but for biases.

    >>> from gatewise.core.spec import Conv1D, Dense
    >>> sizes_of(Dense(3, 5)) == sizes_of(Conv1D(3, 5, 1, bias=False))
    True
    """
    options = spec.options()
    if spec.cell == "conv1d" and options["width"] == 1 and options.get("groups", 1) == 1:
        return ("dense", options["features"], options["units"])
    names = [
        name
        for name in ("features", "units", "tokens", "height", "width", "groups", "projection", "peepholes")
        if name in options
    ]
    return (spec.cell, *(options[name] for name in names))


@dataclass
class Side:
    """One model of a transfer.

    Attributes:
        framework: Its framework.
        label: What to call it.
        inventory: Its layers.
        obj: The live model; None of a file of arrays.
        reach: How its tensors are read and written, where it is live.
        arrays: The arrays of each item, where it is not.
        names: Other names of its items.
        forms: Of layers that are made up of a user's own tensors, the layouts that they may have.
    """

    framework: str
    label: str
    inventory: Inventory
    obj: Any = None
    reach: Tensors | None = None
    arrays: Sequence[Mapping[str, np.ndarray]] = ()
    names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    forms: dict[int, list[Layout]] = field(default_factory=dict)
    _last: tuple[int, Layout | None, dict[str, np.ndarray]] | None = None

    def item(self, unit: Unit) -> Item:
        """Return the layer that a unit belongs to."""
        return self.inventory.items[unit.item]

    def read(self, number: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return stored tensors of an item."""
        if self.reach is None:
            return {name: self.arrays[number][name] for name in names}
        return self.reach.read(self.inventory.items[number].native, names)

    def identity(self, number: int, name: str) -> Hashable:
        """Return what two names of one tensor have in common."""
        if self.reach is None:
            return number, name
        return self.reach.identity(self.inventory.items[number].native, name)

    @functools.cached_property
    def shared(self) -> set[Hashable]:
        """What several names of tensors have in common."""
        items = enumerate(self.inventory.items)
        names = [(number, each.name) for number, item in items for each in item.tensors if each.role not in LOOSE]
        counted = Counter(self.identity(*name) for name in names if name[0] not in self.forms)
        return {identity for identity, count in counted.items() if count > 1}

    def path(self, number: int, name: str) -> str:
        """Return the name of a tensor of an item in the whole model."""
        item = self.inventory.items[number]
        if self.reach is None:
            return f"{item.name}.{name}" if item.name != name else name
        return self.reach.path(self.obj, item.native, name)

    def layout(self, number: int, form: int = 0) -> Layout:
        """Return the layout of a known layer, or one of those that a layer of a user's own may have."""
        found = self.forms[number][form] if number in self.forms else self.inventory.items[number].layout
        assert found is not None
        return found

    def canonical(self, number: int, form: int = 0) -> dict[str, np.ndarray]:
        """Return the canonical parts of a known layer, all directions of all layers; without missing statistics."""
        item, layout = self.inventory.items[number], self.layout(number, form)
        assert item.spec is not None
        shapes = store(layout, item.spec).shapes
        there = {tensor.name for tensor in item.tensors}
        arrays = self.read(number, [name for name in shapes if name in there])
        missing = [name for name in shapes if name not in there]
        arrays |= {name: np.zeros(shapes[name], np.float32) for name in missing}
        parts = plan(item.spec, layout, CANONICAL[item.spec.cell]).apply(arrays)
        if missing:
            slots = store(layout, item.spec).slots
            gone = {key.part for key, slot in slots.items() if slot.tensor in missing}
            parts = {name: array for name, array in parts.items() if name not in gone}
        return parts

    def own(self, unit: Unit, form: int = 0) -> dict[str, str] | None:
        """Return the tensors of one layer and direction of a stack, by the names that it would have alone.

        None where it is no such layer, or has no tensors of its own.
        """
        item, layout = self.inventory.items[unit.item], self.layout(unit.item, form)
        if not isinstance(item.spec, Recurrent) or unit.spec is None:
            return None
        whole, alone = store(layout, item.spec), store(layout, unit.spec)
        names: dict[str, str] = {}
        for key, slot in whole.slots.items():
            if (key.layer, key.direction) == unit.place:
                single = alone.slots.get(key._replace(layer=0, direction=0))
                if single is None or single._replace(tensor=slot.tensor) != slot:
                    return None
                if whole.shapes[slot.tensor] != alone.shapes[single.tensor]:
                    return None
                names[single.tensor] = slot.tensor
        there = {tensor.name for tensor in item.tensors}
        return names if names.keys() == alone.shapes.keys() and there.issuperset(names.values()) else None

    def parts(self, unit: Unit, form: int = 0) -> dict[str, np.ndarray]:
        """Return the canonical parts of one unit of a known layer; of a stack no other is read, where it can."""
        names = self.own(unit, form)
        if names is not None and unit.spec is not None:
            arrays = self.read(unit.item, list(names.values()))
            canonical = plan(unit.spec, self.layout(unit.item, form), CANONICAL[unit.spec.cell])
            return canonical.apply({single: arrays[name] for single, name in names.items()})
        before, layout = prefix(self.inventory.items[unit.item].spec, unit.place), self.layout(unit.item, form)
        if self._last is None or self._last[:2] != (unit.item, layout):
            self._last = unit.item, layout, self.canonical(unit.item, form)
        return {name.removeprefix(before): array for name, array in self._last[2].items() if name.startswith(before)}


def prefix(spec: Spec | None, place: tuple[int, int]) -> str:
    """Return what stands before the canonical parts of one layer and direction of a stack.

    >>> from gatewise.core.spec import LSTM
    >>> prefix(LSTM(3, 5, layers=2, bidirectional=True), (1, 1))
    'layer_1/backward/'
    """
    if not isinstance(spec, Recurrent):
        return ""
    text = f"layer_{place[0]}/" if spec.layers > 1 else ""
    return text + (f"{('forward', 'backward')[place[1]]}/" if spec.bidirectional else "")


# ── units ───────────────────────────────────────────────────────────────────────────────────────────────────────


def units(side: Side, *, repeats: bool) -> list[Unit]:
    """Return the units of a model, in the order of its layers.

    Args:
        side: The model.
        repeats: Whether a layer that is used twice is listed twice.
    """
    made: list[Unit] = []
    seen: set[tuple[Any, ...]] = set()
    counted: dict[str, int] = {}
    for number, item in enumerate(side.inventory.items):
        tensors = [each for each in item.tensors if each.role not in LOOSE and each.role is not Role.COUNTER]
        if not tensors:
            continue
        tied = all(each.role is Role.TIED for each in tensors)
        whole = (id(item.native), *sorted(each.name for each in tensors))
        if tied and item.native is not None and whole in seen and not repeats:
            continue
        seen.add(whole)
        name = item.name
        counted[name] = counted.get(name, 0) + 1
        if counted[name] > 1:
            name = f"{name}#{counted[name]}"
        common: dict[str, Any] = {
            "item": number,
            "kind": item.kind,
            "optional": tied,
            "aliases": side.names.get(number, ()),
        }
        if item.spec is None or item.layout is None:
            virtual = side.reach.virtual(item.native) if side.reach is not None else None
            shapes = virtual or tuple((each.name, each.shape) for each in tensors)
            made.append(Unit(name, spec=None, layout=None, tensors=shapes, **common))
            continue
        if not isinstance(item.spec, Recurrent):
            made.append(Unit(name, spec=item.spec, layout=item.layout, **common))
            continue
        made += _of_stack(name, item.spec, item.layout, common)
    return made


def _of_stack(name: str, spec: Recurrent, layout: Layout, common: dict[str, Any]) -> Iterator[Unit]:
    """Yield one unit for each layer and direction of a recurrent layer."""
    for layer in range(spec.layers):
        width = spec.features if layer == 0 else spec.merged_directions * spec.state
        options = {name: getattr(spec, name) for name in WEIGHED if name in spec.options()}
        single = type(spec)(width, spec.units, **options)
        for direction in range(spec.directions):
            label = name + (f"[{layer}]" if spec.layers > 1 else "")
            label += (".forward", ".backward")[direction] if spec.bidirectional else ""
            yield Unit(label, spec=single, layout=layout, place=(layer, direction), **common)


def identities(side: Side, units: Iterable[Unit]) -> set[Hashable]:
    """Return what some units hold: each tensor once, whatever its names."""
    names = {
        (unit.item, each.name)
        for unit in units
        for each in side.item(unit).tensors
        if each.role not in LOOSE and (not unit.tensors or each.name in dict(unit.tensors))
    }
    return {side.identity(number, name) for number, name in names}


def loosened(side: Side, unit: Unit, held_elsewhere: set[Hashable]) -> list[Unit]:
    """Return the tensors of a unit one by one, as units of their own; but for those that others hold, too."""
    item = side.item(unit)
    if isinstance(unit.spec, Recurrent):
        return []
    held = unit.tensors or tuple((each.name, each.shape) for each in item.tensors if each.role not in LOOSE)
    return [
        Unit(
            f"{unit.name}.{name}" if len(held) > 1 or unit.spec is not None else unit.name,
            unit.item,
            unit.kind,
            None,
            None,
            tensors=((name, shape),),
            aliases=unit.aliases,
        )
        for name, shape in held
        if side.identity(unit.item, name) not in held_elsewhere
    ]
