"""Runs Keras 3, on any of its backends: a layer holds its own weights.

Keras is imported by each function when it is called. A ``native`` here is what one layer of a network becomes: a Keras
layer, or a list of them for a stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gatewise.arrays.native import fitting
from gatewise.core.layout import Layout, check_holds
from gatewise.core.spec import Recurrent, Spec
from gatewise.errors import FileError, GatewiseError, UnsupportedModelError
from gatewise_keras.assembling import assemble as assemble
from gatewise_keras.building import make, make_cell
from gatewise_keras.checks import check_bare as check_bare
from gatewise_keras.describing import alone, is_side_by_side
from gatewise_keras.describing import describe as describe
from gatewise_keras.describing import natives as natives
from gatewise_keras.describing import remarks as described_remarks
from gatewise_keras.laying import is_several
from gatewise_keras.reading import HALVES, is_cell
from gatewise_keras.running import apply as apply
from gatewise_keras.running import called as called
from gatewise_keras.running import duplicate as duplicate
from gatewise_keras.running import example as example
from gatewise_keras.running import feed as feed
from gatewise_keras.running import kept_random as kept_random
from gatewise_keras.running import runs as runs
from gatewise_keras.running import settled as settled
from gatewise_keras.running import weights as weights

if TYPE_CHECKING:
    from gatewise.core.inventory import Inventory, Tensor

ADAMS = {"epsilon-hat": "keras.optimizers.Adam"}
"""The rules of Adam that there are here, by where epsilon stands, and what follows them; first the framework's own."""

STATISTICS = ("moving_mean", "moving_variance")
"""What a batch normalisation keeps of the batches that it was trained on."""


def claims(obj: object) -> bool:
    """Say whether an object is a Keras layer or model; on the torch backend it is a torch module, too."""
    return any(kind.__module__.partition(".")[0] == "keras" for kind in type(obj).__mro__[:-1])


# ── one layer ───────────────────────────────────────────────────────────────────────────────────────────────────


def build(spec: Spec, layout: Layout) -> Any:
    """Return a built layer, a cell where the layout is a cell's, or a model where layers are stacked."""
    check_holds(layout, spec)
    if layout.name.endswith("Cell"):
        assert isinstance(spec, Recurrent)
        return make_cell(spec)
    if isinstance(spec, Recurrent) and spec.layers > 1:
        return assemble(alone(spec))[0]
    return make(spec)


def _holders(native: Any) -> Iterator[tuple[str, Any]]:
    """Yield what owns the variables of a native, each with the prefix of its names in the layout."""
    import keras

    if isinstance(native, keras.Model):
        native = [layer for layer in native.layers if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)]
    if isinstance(native, list):
        for number, one in enumerate(native):
            yield from ((f"layer_{number}/{prefix}", holder) for prefix, holder in _holders(one))
    elif isinstance(native, keras.layers.Bidirectional):
        yield "forward_layer/", native.forward_layer.cell
        yield "backward_layer/", native.backward_layer.cell
    elif isinstance(native, keras.layers.TimeDistributed):
        yield from _holders(native.layer)
    else:
        yield "", getattr(native, "cell", native)


def variables(native: Any) -> dict[str, Any]:
    """Return the variables of a native by the names of its layout, in the layout's order."""
    return {prefix + variable.name: variable for prefix, holder in _holders(native) for variable in holder.weights}


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights of a native, as copies: half precision as float32, and a kernel with its low-rank one."""
    found = {}
    for prefix, holder in _holders(obj):
        for variable in holder.weights:
            merged = getattr(holder, "lora_enabled", False) and variable.name in ("kernel", "embeddings")
            if not variable.name.startswith("lora_"):
                found[prefix + variable.name] = as_array(getattr(holder, variable.name) if merged else variable)
    return found


def as_array(tensor: Any) -> np.ndarray:
    """Return an array that shares nothing; of half precision, which NumPy has only one of, as float32."""
    import keras

    half = keras.backend.standardize_dtype(tensor.dtype) in HALVES
    return np.array(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32") if half else tensor))


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Change the weights of a native, and return it."""
    own = {name: variable for name, variable in variables(obj).items() if "lora_" not in name}
    apart = {name: as_array(own[name]) - array for name, array in read(obj).items() if _has_lora(obj)}
    given = fitting(arrays, {name: tuple(variable.shape) for name, variable in own.items()}, type(obj).__name__)
    for name, array in given.items():
        own[name].assign(array + apart.get(name, 0))
    return obj


def _has_lora(obj: Any) -> bool:
    return any(getattr(holder, "lora_enabled", False) for _, holder in _holders(obj))


def freeze(native: Any, tensors: Sequence[str]) -> None:
    """Keep training from changing some tensors of a native; where they are all of it, the whole layer."""
    own = variables(native)
    if set(tensors) >= set(own):
        for layer in native if isinstance(native, list) else [native]:
            layer.trainable = False
        return
    for name in tensors:
        own[name].trainable = False


def frozen(native: Any) -> set[str]:
    """Return the tensors that training does not change."""
    own = variables(native).items()
    # Training changes statistics, though by no gradient; not those of a frozen layer.
    fixed = {name for name, variable in own if not variable.trainable and "lora_" not in name}
    return fixed - set(STATISTICS if getattr(native, "trainable", True) else ())


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the first output; of a cell, the outputs at every step."""
    import keras

    if isinstance(obj, keras.layers.LSTMCell | keras.layers.GRUCell | keras.layers.SimpleRNNCell):
        obj = keras.layers.RNN(obj, return_sequences=True)
    return np.array(keras.ops.convert_to_numpy(keras.tree.flatten(obj(inputs, training=False))[0]))


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────


def inventory(obj: Any) -> Inventory:
    """Return what a layer or model holds, known layers and unknown ones."""
    from gatewise_keras import inventory as listing

    return listing.inventory(obj)


def saved_extras(path: str) -> tuple[Tensor, ...]:
    """Return what a file holds beside the model that ``open_file`` gives: the variables of an optimiser."""
    from gatewise_keras import inventory as listing

    return listing.saved_extras(path)


def layout_of(native: Any, usual: Layout) -> Layout:
    """Return the layout of one native: always the usual one."""
    return usual


def form(obj: Any) -> str:
    """Say how an object is called: as a bare layer or cell, as a model, or as a stack with its states side by side."""
    import keras

    if not isinstance(obj, keras.Model):
        return "cell" if is_cell(obj) else "model" if is_several(obj) else "layer"
    return "stack" if _state_kinds(obj) else "model"


def _state_kinds(model: Any) -> list[str]:
    """Return h_n and c_n where a model gives the states of a stack side by side, as ``assemble`` builds it."""
    import keras

    outputs = keras.tree.flatten(model.outputs)
    return [tensor._keras_history.operation.name for tensor in outputs if is_side_by_side(tensor)]


def call(obj: Any, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
    """Return all outputs of a layer or model, in the order that ``describe`` gives them.

    Args:
        obj: The layer or model; a stateful one forgets first.
        inputs: One array for each input, batch first.
        states: Initial states of a bare recurrent layer, (batch, size) each.
    """
    return [as_array(each) for each in outputs(obj, inputs, states)]


def call_again(obj: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what ``call`` gives where the states that the call before left go on."""
    return [as_array(each) for each in outputs(obj, inputs, forgets=False)]


def outputs(
    obj: Any,
    inputs: Sequence[Any],
    states: Sequence[Any] | None = None,
    *,
    training: bool = False,
    forgets: bool = True,
) -> list[Any]:
    """Return what ``call`` gives, as tensors of the backend; ``forgets`` says whether states are forgotten before."""
    import keras

    for layer in obj._flatten_layers() if forgets else ():
        if getattr(layer, "stateful", False) and getattr(layer, "states", None) is not None:
            layer.reset_state()
    if is_cell(obj):
        start = list(states) if states is not None else obj.get_initial_state(len(inputs[0]))
        made = obj(inputs[0], start if isinstance(start, list) else [start], training=training)
    else:
        given = {"initial_state": list(states)} if states is not None else {}
        # A model that was built on a list or a dictionary of inputs wants them so, also where it is one.
        structure = getattr(obj, "_inputs_struct", None)
        fed: Any = inputs[0] if len(inputs) == 1 else list(inputs)
        if isinstance(structure, list | tuple | dict):
            fed = keras.tree.pack_sequence_as(structure, list(inputs))
        made = obj(fed, training=training, **given)
    flat: list[Any] = keras.tree.flatten(made)
    kinds = _state_kinds(obj) if isinstance(obj, keras.Model) else []
    if not kinds:
        return flat
    split = len(flat) - len(kinds)
    return flat[:split] + [state[:, place] for place in range(flat[-1].shape[1]) for state in flat[split:]]


def gradients(
    obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, dict[str, dict[str, np.ndarray]], list[np.ndarray | None]]:
    """Return the loss in training and its gradients, without dropout."""
    from gatewise_keras import training

    return training.gradients(obj, inputs, targets)


def train(obj: Any, batches: Sequence[Any], **settings: Any) -> list[float]:
    """Train a layer or model in place by Adam, without dropout; return the loss at each step."""
    from gatewise_keras import training

    return training.train(obj, batches, **settings)


def calling(obj: Any) -> dict[str, str]:
    """Return how a layer or model is called, by aspect."""
    import keras

    found = {"axes": "batch first"}
    if isinstance(obj, keras.layers.RNN | keras.layers.Bidirectional) and not is_several(obj) and obj.return_state:
        found["states"] = "one array of (batch, units) for each state"
    if is_cell(obj):
        states = "[h, c]" if "LSTM" in type(obj).__name__ else "[h]"
        found["cell"] = f"cell(input, {states}) → (h, {states})"
    if isinstance(obj, keras.Model):
        kinds = _state_kinds(obj)
        if kinds:
            found["states"] = f"{', '.join(kinds)} of (batch, layers × directions, units)"
        found["rank"] = " and ".join(f"{len(source.shape)} axes" for source in obj.inputs)
    return found


def remarks(obj: Any) -> list[str]:
    """Return what a port leaves behind, and what of the file of a model was left out."""
    from gatewise_keras import files

    return [*files.left_out(obj), *described_remarks(obj)]


def takes_states(obj: Any) -> bool:
    """Say whether ``call`` can start from given states: a bare recurrent layer can, a model cannot."""
    import keras

    layer = isinstance(obj, keras.layers.RNN | keras.layers.Bidirectional) and not is_several(obj)
    return layer or is_cell(obj)


def dtype_of(obj: Any) -> str:
    """Return the type of the numbers that an object computes with."""
    import keras

    kinds = {keras.backend.standardize_dtype(variable.dtype) for variable in obj.weights} - {"int64"}  # a counter
    if not obj.weights and isinstance(obj, keras.Model):
        kinds = {layer.compute_dtype for layer in obj.layers if not isinstance(layer, keras.layers.InputLayer)}
    return "float64" if kinds == {"float64"} else "float32"


def rounding(obj: Any) -> float:
    """Return how far the coarsest type that an object computes in rounds a number."""
    import keras

    parts = obj._flatten_layers() if isinstance(obj, keras.layers.Layer) else []
    return max((HALVES.get(layer.compute_dtype, 2.0**-24) for layer in parts), default=2.0**-24)


def computes_in_double() -> bool:
    """Say whether float64 layers compute in float64 here; elsewhere their products are rounded to float32.

    On JAX all of them are, unless it was told otherwise; on torch those of Dense and SimpleRNN are (Keras 3.15).
    """
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def check_file(path: str) -> None:
    """Raise ``FileError`` where a file is damaged; nothing in it is built."""
    from gatewise_keras import files

    files.check_file(path)


def open_file(path: str) -> Any:
    """Return the model in a private copy of a ``.keras`` or ``.h5`` file, without running code that the file holds."""
    from gatewise_keras import files

    return files.open_file(path)


def save_file(obj: Any, path: str) -> None:
    """Write a model to a ``.keras`` file; a bare layer goes into a model of its own."""
    import keras

    if not isinstance(obj, keras.Model):
        network = describe(obj)
        own, there = natives(obj), assemble(network)
        for name, native in there[1].items():
            write(native, read(own[name]))
        obj = there[0]
    _check_cells(obj)
    try:
        obj.save(path)
    except (OSError, GatewiseError):
        raise
    except Exception as error:  # Keras, its JSON and HDF5 raise whatever they meet, and wrap a full disk as well.
        text = str(error).strip().splitlines()
        raise FileError(
            f"Keras cannot write this model: {text[0][:300] if text else type(error).__name__}",
            f"{type(obj).__name__} {obj.name!r}, as .keras.",
            "Try its own model.save('model.keras'), or save it as .safetensors.",
        ) from error


def _check_cells(model: Any) -> None:
    """Refuse a model in which several layers run one cell: Keras would write a file that it cannot read."""
    import keras

    seen: set[int] = set()
    layers = {id(layer): layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)}
    for layer in layers.values():
        for cell in getattr(layer.cell, "cells", [layer.cell]):
            if id(cell) in seen:
                raise UnsupportedModelError(
                    f"Layer {layer.name!r} runs the cell {cell.name!r} of another layer: no .keras file can hold it.",
                    "Keras writes the weights of the cell once, and cannot read the file.",
                    "Save it as .safetensors, or share a whole layer.",
                )
            seen.add(id(cell))
