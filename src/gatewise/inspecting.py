"""Says what a model, a file or a Keras config holds, and what gatewise can do with it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gatewise import checkpoints
from gatewise.checkpoints.keras_facts import OPTIMIZERS, KerasFacts
from gatewise.configs import describe_config, facts_of, layers_of, read_config, stored_layers, whole_config
from gatewise.core.inventory import LOOSE, Inventory, Role, Tensor
from gatewise.core.shapes import shapes
from gatewise.errors import AdapterError, GatewiseError
from gatewise.explaining import inventory, other_home
from gatewise.live import METADATA, load, own_layouts, plan_network
from gatewise.registry import framework, owner

CONFIG = ".json"
"""Suffix of the file of a Keras config, what ``model.to_json()`` gives."""


class TensorFact(NamedTuple):
    """One tensor: its name, its layer, what it is to the model, its type (empty where unknown), shape and bytes."""

    name: str
    layer: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


class LayerFact(NamedTuple):
    """One layer: its name, its class, how many numbers it stores, and whether gatewise knows it."""

    name: str
    kind: str
    parameters: int | None
    known: bool | None


@dataclass(frozen=True)
class Inspection:
    """What a model or file holds.

    Attributes:
        label: The name of the file, or the class of the object.
        format: What it is, in a few words.
        framework: The framework that it belongs to.
        version: The framework's version, where the file says it.
        size: Bytes of the file; of an object those of its tensors.
        layers: Its layers in order.
        tensors: Its tensors, without those of an optimiser.
        optimizer: The variables of its optimiser.
        portable: Whether gatewise can port it; None where there is no model in it.
        reason: Why not, and what to do, in lines; or what was found.
    """

    label: str
    format: str
    framework: str
    version: str
    size: int
    layers: tuple[LayerFact, ...]
    tensors: tuple[TensorFact, ...]
    optimizer: tuple[TensorFact, ...]
    portable: bool | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        made = asdict(self)
        for key in ("layers", "tensors", "optimizer"):
            made[key] = [fact._asdict() for fact in getattr(self, key)]
        return made

    def __str__(self) -> str:
        return self._rendered("plain")

    def _repr_markdown_(self) -> str:
        return self._rendered("github")

    def _repr_html_(self) -> str:
        return self._rendered("html")

    def _rendered(self, format: str) -> str:
        from gatewise.report.models import inspecting
        from gatewise.report.tables import render

        return render(inspecting(self), format)


def inspected(obj: Any) -> Inspection:
    """Inspect a live object, a file or a config; see ``gatewise.inspect``."""
    if isinstance(obj, Mapping):
        return _config(obj, "config", 0)
    if not isinstance(obj, str | os.PathLike):
        return _live(obj)
    path = Path(obj)
    if path.suffix.lower() == CONFIG:
        return _config(read_config(path), path.name, os.path.getsize(path))
    checkpoints.check_readable(path, (*checkpoints.KERAS_FILES, *checkpoints.CONTAINERS))
    with checkpoints.snapshot(path) as copy:  # What is said of its format, layers and port is of one file.
        return _file(copy)


def _live(obj: Any, label: str = "") -> Inspection:
    """Return what a live object holds."""
    name, side = owner(obj)
    held, dtype = inventory(obj), side.dtype_of(obj)
    portable, reason = _portable(obj)
    tensors, optimizer = _tensors(held, dtype)
    return Inspection(
        label or type(obj).__name__,
        f"a live object of {framework(name).title}",
        name,
        "",
        sum(each.bytes for each in (*tensors, *optimizer)),
        tuple(_layers(held)),
        tuple(tensors),
        tuple(optimizer),
        portable,
        reason,
    )


def _portable(obj: Any) -> tuple[bool, str]:
    """Say whether an object can be ported, and why not."""
    name, side = owner(obj)
    try:
        side.check_bare(obj)
        network = side.describe(obj)
        shapes(network)
        own = own_layouts(name, network, side.form(obj), side.natives(obj))
        plan_network(network, own, other_home(name), side.form(obj))
    except GatewiseError as error:
        return False, _said(error)
    return True, f"Every layer can be ported to {framework(other_home(name)).title}."


def _said(error: GatewiseError) -> str:
    """Return an error in lines, without the list of all that is supported."""
    where = [line for line in error.where.splitlines() if not line.startswith("Supported:")]
    return "\n".join(filter(None, [error.met, *where, error.hint]))


def _layers(held: Inventory) -> Iterator[LayerFact]:
    for line in held.outline:
        sizes = [tensor.size for item in line.items for tensor in item.tensors if tensor.role not in LOOSE]
        known = all(item.spec is not None for item in line.items)
        yield LayerFact(line.name, line.kind, sum(sizes), known if sizes else None)


def _tensors(held: Inventory, dtype: str) -> tuple[list[TensorFact], list[TensorFact]]:
    """Return the tensors of an inventory, and the variables of its optimiser."""
    width = {"float64": 8, "float16": 2, "bfloat16": 2}.get(dtype, 4)

    def fact(tensor: Tensor, layer: str) -> TensorFact:
        return TensorFact(tensor.name, layer, str(tensor.role), dtype, tensor.shape, tensor.size * width)

    own = [fact(tensor, item.name) for item in held.items for tensor in item.tensors]
    extras = [fact(tensor, "") for tensor in held.extras]
    return (
        [*own, *(each for each in extras if each.role != Role.OPTIMIZER)],
        [each for each in extras if each.role == Role.OPTIMIZER],
    )


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _file(path: Path) -> Inspection:
    """Return what a file holds."""
    suffix = path.suffix.lower()
    if suffix in (".keras", ".h5", ".hdf5"):
        return _keras_file(path)
    arrays, about = checkpoints.read(path)
    tensors = tuple(
        TensorFact(name, "", "", str(array.dtype), tuple(array.shape), array.nbytes) for name, array in arrays.items()
    )
    held = inventory(path)
    if METADATA not in about:
        return Inspection(
            path.name,
            f"arrays without a model ({suffix})",
            held.framework if any(item.spec for item in held.items) else "",
            "",
            os.path.getsize(path),
            tuple(_layers(held)),
            tensors,
            (),
            None,
            "No model is in it: gatewise map --weights brings the arrays of one layer over.",
        )
    portable, reason = _portable(load(path))
    return Inspection(
        path.name,
        f"a model that gatewise saved ({suffix})",
        held.framework,
        "",
        os.path.getsize(path),
        tuple(_layers(held)),
        tensors,
        (),
        portable,
        reason,
    )


def _keras_file(path: Path) -> Inspection:
    """Return what a file of Keras holds: what it says itself, and what becomes of it when Keras loads it."""
    facts = facts_of(path)
    layers, model = list(_stored_layers(facts)), facts.config is not None
    portable: bool | None = None
    reason = "No model is in it, only weights: build the model, load them, and save the whole model as .keras."
    if model:
        try:
            obj = load(path)
            layers = list(_layers(inventory(obj)))
            portable, reason = _portable(obj)
        except AdapterError:  # Keras cannot be used here, which says nothing of the file.
            raise
        except GatewiseError as error:  # What stands in the file is said all the same.
            portable, reason = False, _said(error)
    kind = facts.config.get("class_name", "") if isinstance(facts.config, dict) else ""
    kind = kind if kind in ("Sequential", "Functional") else ""
    stored = [
        TensorFact(each.name, "", "", each.dtype, each.shape, each.bytes)
        for each in facts.arrays
        if each.bytes or each.shape == ()
    ]
    optimizer = [each for each in stored if each.name.startswith(OPTIMIZERS)]
    what = f"a {kind} model of Keras" if kind else "a model of Keras" if model else "weights of Keras"
    return Inspection(
        path.name,
        f"{what} ({path.suffix.lower()})",
        "keras",
        facts.version,
        os.path.getsize(path),
        tuple(layers),
        tuple(each for each in stored if each not in optimizer),
        tuple(optimizer),
        portable,
        reason,
    )


def _stored_layers(facts: KerasFacts) -> Iterator[LayerFact]:
    """Yield the layers that a file's config lists, each with what is stored for it."""
    for layer, arrays in stored_layers(facts):
        sizes = [math.prod(each.shape) for each in arrays if "seed_generator" not in each.name]
        yield LayerFact(layer.name, layer.kind, sum(sizes), None)


# ── configs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _config(config: Any, label: str, size: int) -> Inspection:
    """Return what a config says, and whether its model can be built and ported."""
    whole = whole_config(config)
    layers = tuple(LayerFact(layer.name, layer.kind, None, None) for layer in layers_of(whole))
    try:
        describe_config(config)
        portable, reason = True, "Every layer can be ported to PyTorch."
    except GatewiseError as error:
        portable, reason = False, _said(error)
    kind = whole["class_name"]
    return Inspection(
        label,
        f"the config of a {kind} {'model' if kind in ('Sequential', 'Functional') else 'layer'} of Keras",
        "keras",
        str(whole.get("keras_version", "")),
        size,
        layers,
        (),
        (),
        portable,
        reason,
    )
