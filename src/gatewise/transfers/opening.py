"""Both models of a transfer as they are given: live ones, files, and dicts of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gatewise import checkpoints
from gatewise.arguments import path_of
from gatewise.errors import GatewiseError, SpecError, UnsupportedModelError
from gatewise.explaining import inventory as inventory_of
from gatewise.explaining import inventory_of_arrays, settled_inventory
from gatewise.live import METADATA, load, restore
from gatewise.registry import owner
from gatewise.transfers.reach import tensors
from gatewise.transfers.sides import Side
from gatewise.transfers.trials import Feed
from gatewise.transfers.words import line_of


def sides_of(source: Any, target: Any, feed: Feed | None) -> tuple[Side, Side]:
    """Return both models of a transfer, each read in the light of the other."""
    ours, theirs = side_of(source, feed), side_of(target, feed)
    for side in (ours, theirs):
        if side.reach is not None:
            side.reach.check(side.obj, written=side is theirs)
    if theirs.reach is None:
        raise SpecError(
            "The target is a file of arrays and no model.", "There is no layer to fill.", "Give the model itself."
        )
    return (
        replace(ours, inventory=settled_inventory(ours.inventory, theirs.inventory)),
        replace(theirs, inventory=settled_inventory(theirs.inventory, ours.inventory)),
    )


def side_of(obj: Any, feed: Feed | None) -> Side:
    """Return one model of a transfer: a live one, a file, or a dict of arrays."""
    label = Path(obj).name if isinstance(obj, str | Path) else ""
    if isinstance(obj, str | Path):
        path = path_of(obj)
        contents = checkpoints.read(path) if path.suffix.lower() in checkpoints.CONTAINERS else None
        if contents is not None and METADATA not in contents.about:
            return _of_arrays(contents.arrays, path.name)
        obj = load(path) if contents is None else restore(path.name, contents)
    if isinstance(obj, Mapping):
        arrays = {str(name): _array(str(name), value) for name, value in obj.items()}
        return _of_arrays(arrays, "a dict of arrays")
    if isinstance(obj, type):
        raise UnsupportedModelError(
            f"{obj.__name__} is a class.",
            "Weights are those of a model.",
            f"Give a model of it, such as {obj.__name__}().",
        )
    name, _ = owner(obj)
    reach = tensors(name)
    try:
        held = inventory_of(obj)
    except GatewiseError as error:
        # A model is built when it is called for the first time.
        if feed is None or "no weights yet" not in error.met:
            raise
        _first_call(reach, obj, feed, error)
        held = inventory_of(obj)
    return Side(name, label or f"the {name} model", held, obj, reach, names=reach.names_of(obj, held.items))


def _first_call(reach: Any, obj: Any, feed: Feed, error: GatewiseError) -> None:
    try:
        reach.observe(obj, feed.args, feed.kwargs, {})
    except Exception as reason:  # A model raises whatever its own code raises.
        raise type(error)(error.met, f"The given inputs do not build it: {line_of(reason)}", error.hint) from reason


def _array(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
    if isinstance(value, Mapping):
        raise SpecError(
            f"{name!r} holds a dict, not numbers.", "A dict of arrays by name.", f"Give that: […][{name!r}]."
        )
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise SpecError(
            f"{name!r} holds {array.dtype}, not numbers.", "A dict of arrays by name.", "Give a state dict."
        )
    return array


def _of_arrays(arrays: Mapping[str, np.ndarray], label: str) -> Side:
    held, by_item = inventory_of_arrays(arrays, label)
    return Side(held.framework, label, held, arrays=by_item)
