"""Explains why two live objects, or the files of two, hold different numbers of parameters."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatewise import checkpoints
from gatewise.arguments import path_of
from gatewise.conversion import identify, local_names
from gatewise.core.explain import VIEWS, Explanation
from gatewise.core.infer import infer
from gatewise.core.inventory import (
    LOOSE,
    TENSOR,
    Inventory,
    Item,
    Outline,
    Role,
    Tensor,
    explain_inventories,
    summarise,
)
from gatewise.core.layout import Layout, store
from gatewise.core.plan import plan
from gatewise.core.spec import KINDS, Dense, Embedding, Spec
from gatewise.errors import FileError, GatewiseError, SpecError, nearest
from gatewise.live import METADATA, open_keras, restore
from gatewise.registry import ModelAdapter, framework, live_layout, model_adapter, names, owner
from gatewise.registry import layout as framework_layout

if TYPE_CHECKING:
    import numpy as np

    from gatewise.core.count import Count

COUNTER = "num_batches_tracked"
"""What torch calls the buffer that counts the steps of a batch normalisation."""


def explained(first: Any, second: Any = None, view: str = "parameters") -> Explanation:
    """Explain two live objects or files, or one and its port; see ``gatewise.explain``."""
    if not isinstance(view, str) or view not in VIEWS:
        known = ", ".join(f"{name!r} ({meaning})" for name, meaning in VIEWS.items())
        raise SpecError(f"of={view!r} is unknown.", f"Known: {known}.", f"{nearest(str(view), VIEWS)}Use one of these.")
    if second is None:
        held = inventory(first)
        return explain_inventories(held, ported_inventory(held, other_home(held.framework)), view)
    both = inventory(first), inventory(second)
    return explain_inventories(settled_inventory(*both), settled_inventory(*reversed(both)), view)


def counted(obj: Any, name: str | None = None) -> Count:
    """Count a live object or the model in a file; see ``gatewise.count``."""
    try:
        held, note = inventory(obj), ""
    except FileError as error:  # What Keras cannot load, a class of one's own say, is counted as it is stored.
        held = stored_inventory(obj, error)
        note = f"{error.met} So its tensors are counted as they are stored, without a port beside them."
        if name in (None, held.framework):
            return summarise(held).replace(notes=(note,))
    if name is not None:
        framework_layout(name, Dense(1, 1))  # says which names are known
    if name is None or name == held.framework:
        count = summarise(held, ported_inventory(held, other_home(held.framework)))
    else:
        count = summarise(ported_inventory(held, name), held)
    return count.replace(notes=(*count.notes, note)) if note else count


def stored_inventory(obj: Any, error: FileError) -> Inventory:
    """Return what a file of Keras stores for each layer of its config; nothing is known of the layers.

    Raises:
        FileError: The error given, where this is no file of Keras with a model in it.
    """
    from gatewise.checkpoints.keras_facts import OPTIMIZERS
    from gatewise.configs import facts_of, stored_layers

    path = Path(obj)
    if path.suffix.lower() not in (".keras", ".h5", ".hdf5") or not path.is_file():
        raise error
    facts = facts_of(path)
    lines = []
    for layer, arrays in stored_layers(facts):
        tensors = tuple(
            Tensor(each.name, each.shape, Role.SEED if "seed_generator" in each.name else _role(each.name))
            for each in arrays
        )
        items = (Item(layer.name, layer.kind, tensors),) if tensors else ()
        shape = str(layer.shape) if layer.kind == "InputLayer" and layer.shape else "?"
        lines.append(Outline(layer.name, layer.kind, shape, items))
    if not lines:
        raise error
    extras = tuple(
        Tensor(each.name, each.shape, Role.OPTIMIZER) for each in facts.arrays if each.name.startswith(OPTIMIZERS)
    )
    parameters = frozenset({Role.WEIGHT, Role.STATISTIC, Role.OPTIMIZER})
    everything = tuple(item for line in lines for item in line.items)
    return Inventory("keras", path.name, everything, parameters, parameters | {Role.SEED}, extras, tuple(lines))


HOMES = ("keras", "torch")
"""The frameworks whose whole models go from one to the other."""


def other_home(name: str) -> str:
    """Return where a model of a framework would be ported to."""
    return next(home for home in HOMES if home != name)


def ported_inventory(held: Inventory, to: str) -> Inventory:
    """Return what the port of a model to another framework holds; nothing is built or run.

    A layer that gatewise does not know is taken to hold the same tensors there.
    """
    buffers = _keeps_buffers(to)
    parameters = {Role.WEIGHT, Role.FROZEN} | (set() if buffers else {Role.STATISTIC})
    saved = parameters | {Role.STATISTIC, Role.BUFFER} | ({Role.TIED} if buffers else set())

    def line(each: Outline) -> Outline:
        return each._replace(items=tuple(_ported(item, to) for item in each.items))

    return Inventory(
        to,
        to,
        tuple(_ported(item, to) for item in held.items),
        frozenset(parameters),
        frozenset(saved),
        outline=tuple(map(line, held.outline)),
    )


def _ported(item: Item, to: str) -> Item:
    """Return what a layer holds in another framework, the second bias that it may have there frozen."""
    same = item._replace(tensors=tuple(each for each in item.tensors if each.role not in LOOSE), native=None)
    if item.spec is None or item.layout is None:
        return same._replace(spec=None, layout=None)
    form = "cell" if item.layout.name.endswith("Cell") else "model"
    try:
        layout = live_layout(to, item.spec, form)
        made = plan(item.spec, item.layout, layout)
    except GatewiseError:  # The framework has no such layer at all.
        return same._replace(spec=None, layout=None)
    if not made.moves:
        return same._replace(spec=None, layout=None)
    reads: dict[str, set[str]] = {name: set() for name in made.target_shapes}
    for step in made.steps:
        if step.target is not None:
            reads[step.target.tensor] |= {block.tensor for block in step.sources}
    roles = {tensor.name: tensor.role for tensor in item.tensors}
    tensors = []
    for name, shape in made.target_shapes.items():
        sources = {roles[each] for each in reads[name] if each in roles}
        role = _role(name)
        if role is Role.WEIGHT:
            role = sources.pop() if len(sources) == 1 else Role.WEIGHT if sources else Role.FROZEN
        tensors.append(Tensor(name, shape, role))
    kind = layout.name.partition(":")[2]
    return Item(item.name, kind, tuple(tensors), item.spec, layout)


def inventory(obj: Any) -> Inventory:
    """Return what a live object or a file holds."""
    if not isinstance(obj, str | Path):
        return _live(obj)
    path = path_of(obj)
    checkpoints.check_readable(path, (*checkpoints.KERAS_FILES, *checkpoints.CONTAINERS))
    if path.suffix.lower() in checkpoints.KERAS_FILES:
        with checkpoints.snapshot(path) as copy:
            held = _live(open_keras(copy))
            extras = model_adapter("keras").saved_extras(str(copy))
        # An older file of HDF5 has the weights of layers alone.
        saved = held.saved if path.suffix == ".keras" else held.saved - {Role.SEED}
        return replace(held, label=path.name, extras=(*held.extras, *extras), saved=saved)
    contents = checkpoints.read(path)
    if METADATA in contents.about:
        held = _live(restore(path.name, contents))
        return replace(held, label=path.name, saved=held.saved - {Role.SEED})
    return _of_arrays(contents.arrays, path.name)


def _live(obj: Any) -> Inventory:
    """Return what a live object holds, each known layer with its layout."""
    name, side = owner(obj)
    held = side.inventory(obj)

    def known(items: Iterable[Item]) -> tuple[Item, ...]:
        return tuple(each for item in items for each in _with_layout(name, side, item))

    outline = tuple(line._replace(items=known(line.items)) for line in held.outline)
    return replace(held, items=known(held.items), outline=outline)


def _with_layout(name: str, side: ModelAdapter, item: Item) -> Iterator[Item]:
    """Yield an item with the layout of its layer, and alone each weight that the layout does not list.

    Where no layout has these tensors, the item has no spec. Moving statistics may be missing.
    """
    shapes = {tensor.name: tensor.shape for tensor in item.tensors}
    for form in ("cell", "model") if item.kind.endswith("Cell") else ("model",):
        if item.spec is None:
            break
        layout = side.layout_of(item.native, live_layout(name, item.spec, form))
        wanted = store(layout, item.spec).shapes
        if all(shapes.get(key) == shape or _is_absent(key, shapes) for key, shape in wanted.items()):
            beside = [each for each in item.tensors if each.name not in wanted and each.role not in BESIDE]
            yield item._replace(layout=layout, tensors=tuple(each for each in item.tensors if each not in beside))
            for each in beside:
                yield Item(f"{item.name}/{each.name}", TENSOR, (each,))
            return
    yield item._replace(spec=None)


BESIDE = (*LOOSE, Role.BUFFER, Role.TIED)
"""Roles of tensors that stay with a layer whose layout does not list them."""


def _is_absent(name: str, shapes: Mapping[str, Any]) -> bool:
    return name not in shapes and _role(name) is Role.STATISTIC


def settled_inventory(held: Inventory, other: Inventory) -> Inventory:
    """Return an inventory in which each matrix of a file is the table that the other side has, if it may be one.

    In torch's files a dense layer without a bias and a table of embeddings look the same.
    """
    tables: set[tuple[int, int] | None]
    tables = {(each.spec.tokens, each.spec.units) for each in other.items if isinstance(each.spec, Embedding)}
    tables -= {_matrix(each) for each in other.items}
    items = []
    for item in held.items:
        sizes = _matrix(item) if item.native is None else None
        there = framework(held.framework).layouts
        if sizes is None or sizes not in tables or all(layout.cell != Embedding.cell for layout in there):
            items.append(item)
            continue
        table = Embedding(*sizes)
        layout = framework_layout(held.framework, table)
        fits = store(layout, table).shapes == {tensor.name: tensor.shape for tensor in item.tensors}
        kind = layout.name.partition(":")[2]
        items.append(item._replace(spec=table, layout=layout, kind=kind) if fits else item)
    return replace(held, items=tuple(items))


def _matrix(item: Item) -> tuple[int, int] | None:
    """Return the outputs and inputs of a dense layer without a bias; None of anything else."""
    spec = item.spec
    return (spec.units, spec.features) if isinstance(spec, Dense) and not spec.bias else None


# ── files of arrays ─────────────────────────────────────────────────────────────────────────────────────────────


def _of_arrays(arrays: Mapping[str, np.ndarray], label: str) -> Inventory:
    """Return what a file of arrays holds, by the framework whose names explain most of it."""
    return inventory_of_arrays(arrays, label)[0]


def inventory_of_arrays(
    arrays: Mapping[str, np.ndarray], label: str
) -> tuple[Inventory, tuple[dict[str, np.ndarray], ...]]:
    """Return what some arrays are, by the framework whose names explain most of it, and the arrays of each item."""
    found: dict[str, list[tuple[Item, dict[str, np.ndarray]]]] = {}
    if all(re.fullmatch(r"arr_\d+", name) for name in arrays):
        for name in HOMES:
            with contextlib.suppress(GatewiseError):  # Arrays without names, in the order of get_weights().
                spec, layout, named = identify(name, arrays, None, {})
                tensors = tuple(Tensor(key, tuple(array.shape), _role(key)) for key, array in named.items())
                found[name] = [(Item(label, layout.name.partition(":")[2], tensors, spec, layout), named)]
                break
    for name in () if found else dict.fromkeys(("keras", "torch", *names())):
        found[name] = list(_recognised(name, arrays, label))
        if all(item.spec is not None for item, _ in found[name]):
            break
    best = max(found, key=lambda name: _explained([item for item, _ in found[name]]))
    parameters = frozenset({Role.WEIGHT} if _keeps_buffers(best) else {Role.WEIGHT, Role.STATISTIC})
    saved = frozenset({Role.WEIGHT, Role.STATISTIC, Role.COUNTER, Role.BUFFER})
    items = tuple(item for item, _ in found[best])
    outline = tuple(Outline(item.name, item.kind, items=(item,)) for item in items)
    return Inventory(best, label, items, parameters, saved, outline=outline), tuple(held for _, held in found[best])


def _keeps_buffers(name: str) -> bool:
    """Say whether a framework keeps some of what it stores as buffers, which are no parameters."""
    return any(layout.uncounted for layout in framework(name).layouts)


def _explained(items: list[Item]) -> int:
    return sum(tensor.size for item in items if item.spec is not None for tensor in item.tensors)


def _recognised(
    name: str, arrays: Mapping[str, np.ndarray], title: str, prefix: str = ""
) -> Iterator[tuple[Item, dict[str, np.ndarray]]]:
    """Yield the layers among some arrays, with these: all as one layer, else what stands below each prefix."""
    counters = {key: array for key, array in arrays.items() if key.endswith(COUNTER)}
    rest = {key: array for key, array in arrays.items() if key not in counters}
    label = prefix.strip("./") or title
    local = local_names(rest) if len(rest) > 1 else {_bare(key[len(prefix) :]): array for key, array in rest.items()}
    if len(rest) > 1 and all(map(DIRECTION.match, local)):
        local = {DIRECTION.sub(r"\1_layer/", key): array for key, array in local.items()}
    shapes = {key: tuple(array.shape) for key, array in local.items()}
    layouts = framework(name).layouts
    if TABLE.search(label.lower()):
        layouts = tuple(sorted(layouts, key=lambda layout: layout.cell != "embedding"))
    for layout in layouts:
        if not _names(layout) & shapes.keys() or shapes.keys() == {"bias"}:
            continue
        spec = _inferred(layout, tuple(shapes.items()))
        if spec is None:  # Not this one; what no layout has is listed as it is.
            continue
        tensors = [Tensor(key, shape, _role(key)) for key, shape in shapes.items()]
        tensors += [Tensor(key, tuple(array.shape), Role.COUNTER) for key, array in counters.items()]
        yield Item(label, layout.name.partition(":")[2], tuple(tensors), spec, layout), {**local, **counters}
        return
    groups: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        parts = re.split(r"(?<=[./])", key[len(prefix) :], maxsplit=1)
        groups.setdefault(prefix + (parts[0] if len(parts) > 1 else ""), {})[key] = array
    for below, group in groups.items():
        if below != prefix:
            yield from _recognised(name, group, title, below)
        else:
            for key, array in group.items():
                whole = array.dtype.kind in "iub" and _keeps_buffers(name)  # torch trains no whole numbers
                role = Role.BUFFER if whole and _role(key) is Role.WEIGHT else _role(key)
                bare = key[len(prefix) :]
                yield Item(key, TENSOR, (Tensor(bare, tuple(array.shape), role),)), {bare: array}


@functools.lru_cache(maxsize=4096)
def _inferred(layout: Layout, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> Spec | None:
    """Return the layer whose tensors these are in a layout, or None. A file has many layers of the same shapes."""
    try:
        return infer(layout, dict(shapes))
    except GatewiseError:
        return None


DIRECTION = re.compile(r"(forward|backward)_[^/]+/(?:[^/]+/)*")
"""How the names of a layer that runs both ways begin in Keras."""

TABLE = re.compile(r"emb|token|wte|wpe|lookup")
"""What the name of a table of embeddings holds; its shape is that of a dense layer without a bias."""


def _bare(name: str) -> str:
    return re.sub(r":\d+$", "", name)


@functools.cache
def _names(layout: Layout) -> set[str]:
    """Return the names of the tensors of one layer, in one direction or two; of a larger one more are added."""
    kind = next(kind for kind in KINDS.values() if kind.cell == layout.cell)
    sizes = {name: 2 for name in ("features", "units", "tokens") if name in kind.fields}
    both = ({}, {"bidirectional": True}) if "bidirectional" in kind.fields else ({},)
    return {name for options in both for name in store(layout, kind(**sizes, **options)).shapes}


def _role(name: str) -> Role:
    if name.endswith(COUNTER):
        return Role.COUNTER
    return Role.STATISTIC if re.search(r"(running|moving)_(mean|var)", name) else Role.WEIGHT
