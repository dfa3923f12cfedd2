"""Lists what a Keras object holds, known layers and unknown ones; see ``gatewise.core.inventory``."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from gatewise.core.inventory import Inventory, Item, Outline, Role, Tensor, recognise
from gatewise.core.spec import BatchNorm, LayerNorm, Spec
from gatewise.errors import UnsupportedModelError
from gatewise_keras.adapter import STATISTICS, variables
from gatewise_keras.laying import parts, specs_of
from gatewise_keras.layouts import FRAMEWORK
from gatewise_keras.reading import cell_spec, is_cell

PARAMETERS = frozenset({Role.WEIGHT, Role.FROZEN, Role.FACTOR, Role.STATISTIC, Role.OPTIMIZER})
"""What ``summary()`` counts."""

SAVED = PARAMETERS | {Role.SEED}
"""What ``save()`` writes."""


def inventory(obj: Any) -> Inventory:
    """Return what a layer or model holds; each item has its native.

    Raises:
        UnsupportedModelError: A layer has no weights yet.
    """
    import keras

    items: list[Item] = []
    seen: set[int] = set()
    for layer, shared in _leaves(obj):
        items += _rest(layer, seen) if is_composite(layer) else _items(layer, seen, shared=shared)
        seen.update(id(variable) for variable in layer.variables)
    items += _rest(obj, seen)
    optimizer = getattr(obj, "optimizer", None)
    extras = (
        tuple(Tensor(variable.path, tuple(variable.shape), Role.OPTIMIZER) for variable in optimizer.variables)
        if isinstance(obj, keras.Model) and optimizer is not None and optimizer.built
        else ()
    )
    return Inventory("keras", "keras", tuple(items), PARAMETERS, SAVED, extras, tuple(_outline(obj)))


def _outline(obj: Any) -> Iterator[Outline]:
    """Yield the lines of ``summary()``: the layers of a model, each with all that is in it, counted once."""
    import keras

    seen: set[int] = set()
    for layer in obj.layers if isinstance(obj, keras.Model) else [obj]:
        items: list[Item] = []
        for leaf, _ in _leaves(layer):
            items += _items(leaf, seen, shared=False)
            seen.update(id(variable) for variable in leaf.variables)
        yield Outline(layer.name, type(layer).__name__, _output_shape(layer), tuple(items))


def _output_shape(layer: Any) -> str:
    """Return the shapes of what a layer gives, as ``summary()`` writes them."""
    import keras

    try:
        outputs = layer.output
    except (AttributeError, ValueError):  # Called by code alone, it has no symbolic output.
        return "?"
    return ", ".join(str(tuple(tensor.shape)) for tensor in keras.tree.flatten(outputs))


def _rest(obj: Any, seen: set[int]) -> list[Item]:
    """Return what an object holds beside its layers, as one item."""
    names = {id(variable): name for name, variable in named(obj).items()}
    rest = [_tensor(variable, names[id(variable)]) for variable in obj.weights if id(variable) not in seen]
    rest += _seeds(obj, seen)
    return [Item(obj.name, type(obj).__name__, tuple(rest), native=obj)] if rest else []


def is_composite(layer: Any) -> bool:
    """Say whether a layer is one of a user's own that is made of layers."""
    import keras

    own = type(layer).__module__.partition(".")[0] not in ("keras", "gatewise_keras")
    return own and not isinstance(layer, keras.Model | keras.layers.RNN | keras.layers.Wrapper) and bool(layer._layers)


def saved_extras(path: str) -> tuple[Tensor, ...]:
    """Return the variables of the optimiser that a file holds; the model is loaded without them."""
    import h5py

    found: list[Tensor] = []

    def visit(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            found.append(Tensor(f"optimizer/{name}", tuple(entry.shape), Role.OPTIMIZER))

    def read(file: Any) -> None:
        with h5py.File(file) as groups:
            for group in ("optimizer", "optimizer_weights"):
                if group in groups:
                    groups[group].visititems(visit)

    if not zipfile.is_zipfile(path):
        read(path)
        return tuple(found)
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as weights:
        read(weights)
    return tuple(found)


def _leaves(obj: Any) -> Iterator[tuple[Any, bool]]:
    """Yield the layers that are no models, in order; once more for each further use, and then they are shared."""
    import keras

    if not isinstance(obj, keras.Model):
        for layer in obj._layers if is_composite(obj) else ():
            yield from _leaves(layer)
        yield obj, False
        return
    nodes = [node for level in getattr(obj, "_nodes_by_depth", {}).values() for node in level]
    nodes = nodes or [
        node for level in getattr(getattr(obj, "_functional", None), "_nodes_by_depth", {}).values() for node in level
    ]
    for layer in obj.layers:
        uses = sum(node.operation is layer for node in nodes)
        for use in range(max(1, uses)):
            for leaf, shared in _leaves(layer):
                yield leaf, shared or use > 0


def _items(layer: Any, seen: set[int], *, shared: bool) -> Iterator[Item]:
    """Yield one item for a layer, or one for each cell where several are stacked in it; ``seen`` is counted already."""
    if not layer.built and not layer.weights:
        # Keras builds a layer without weights when it is called, and it never needs to be.
        if type(layer).__name__ in ("Dropout", "Activation", "Masking", "InputLayer", "Flatten", "Reshape"):
            return
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) is not built: it has no weights yet.",
            "Its size of input is unknown.",
            "Call it once on data, or build it with a shape.",
        )
    try:
        known = _known(layer)
    except UnsupportedModelError:  # What it computes is not known; what it holds is.
        known = [(layer.name, layer, None)]
    seeds = _seeds(layer, seen)
    for name, native, described in known:
        held = named(native)
        spec = described or _recognised(native, held)
        tensors = [_tensor(each, key, shared or id(each) in seen) for key, each in held.items()]
        tensors += seeds
        seeds = []
        if tensors:
            yield Item(name, _kind(native), tuple(tensors), spec, native=native)


BESIDE = ("lora_", "kernel_scale", "embeddings_scale", "kernel_zero", "quantized_")
"""How the names of variables begin that LoRA and quantisation put beside the weights of a layer."""


def _seeds(layer: Any, seen: set[int]) -> list[Tensor]:
    """Return the states of the generators of random numbers of a layer; its metrics are left out."""
    others = {id(variable) for variable in (*layer.weights, *getattr(layer, "metrics_variables", ()))} | seen
    found = [variable for variable in layer.variables if id(variable) not in others]
    return [Tensor(variable.path, tuple(variable.shape), Role.SEED) for variable in found]


def named(native: Any) -> dict[str, Any]:
    """Return the weights of a native by the names of its layout; where those are not all of them, by their paths."""
    weights = native.weights
    held: dict[str, Any] = {}
    with contextlib.suppress(AttributeError, UnsupportedModelError):
        held = variables(native)
    if {id(each) for each in held.values()} == {id(each) for each in weights}:
        return held
    made: dict[str, Any] = {}
    for variable in weights:  # Several may have one path.
        again = sum(name.partition("#")[0] == variable.path for name in made)
        made[f"{variable.path}#{again + 1}" if again else variable.path] = variable
    return made


def _recognised(native: Any, named: Mapping[str, Any]) -> Spec | None:
    """Return what a native is by its class and the shapes of its weights, where its options cannot be ported."""
    classes = {kind.__name__ for one in _inside(native) for kind in type(one).__mro__}
    shapes = {key: tuple(each.shape) for key, each in named.items() if not key.startswith(BESIDE)}
    return recognise(classes, FRAMEWORK.layouts, shapes)


def _inside(native: Any) -> Iterator[Any]:
    """Yield a native, and what is in it where it is a wrapper."""
    yield native
    for name in ("layer", "forward_layer", "cell"):
        held = getattr(native, name, None)
        if held is not None and not isinstance(held, list):
            yield from _inside(held)


def _kind(native: Any) -> str:
    """Return the name of a class, and for a wrapper the name of what is in it."""
    held = getattr(native, "layer", None) or getattr(native, "forward_layer", None)
    return f"{type(native).__name__}({_kind(held)})" if held is not None else type(native).__name__


def _known(layer: Any) -> list[tuple[str, Any, Spec | None]]:
    """Return name, native and spec of what a layer runs; without a spec where it has no weights."""
    import keras

    if type(layer) is keras.layers.TimeDistributed and type(layer.layer) in _norms():
        return [(layer.name, layer, spec) for _, _, spec in _known(layer.layer)]
    if type(layer) in _norms():
        sizes = {int(variable.shape[0]) for variable in layer.weights if len(variable.shape) == 1}
        if len(sizes) != 1 or len(layer.weights) != sum(len(variable.shape) == 1 for variable in layer.weights):
            return [(layer.name, layer, None)]
        kind = BatchNorm if type(layer) is keras.layers.BatchNormalization else LayerNorm
        spec = kind(sizes.pop(), scale=bool(layer.scale), shift=bool(layer.center), epsilon=float(layer.epsilon))
        return [(layer.name, layer, spec)]
    if is_cell(layer):
        return [(layer.name, layer, cell_spec(layer, layer, {}))]
    specs = [spec if spec.cell else None for spec in specs_of(layer)]
    return [(name, native, spec) for (name, native), spec in zip(parts(layer).items(), specs, strict=True)]


def _norms() -> tuple[type, ...]:
    import keras

    return keras.layers.BatchNormalization, keras.layers.LayerNormalization


def _tensor(variable: Any, name: str = "", shared: bool = False) -> Tensor:
    role = Role.STATISTIC if variable.name in STATISTICS else Role.WEIGHT if variable.trainable else Role.FROZEN
    if role is Role.WEIGHT and variable.name.startswith("lora_"):
        role = Role.FACTOR
    return Tensor(name or variable.path, tuple(variable.shape), Role.TIED if shared else role)
