"""Stored tensors of Keras layers by name, what a model held before, and what it does layer by layer."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from gatewise.arrays.native import Call, Outputs
from gatewise.errors import UnsupportedModelError
from gatewise_keras import adapter
from gatewise_keras.inventory import named


def virtual(native: Any) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    """Return the projections of an attention as tensors of their own, each (outputs, inputs); of anything else None."""
    if type(native) is not keras.layers.MultiHeadAttention:
        return None
    return tuple((name, tuple(array.shape)) for name, array in read(native, list(_projections(native))).items())


def _projections(native: Any) -> dict[str, Any]:
    """Return the variables of an attention by what they are; of anything else none."""
    if type(native) is not keras.layers.MultiHeadAttention:
        return {}
    parts = {"query": "_query_dense", "key": "_key_dense", "value": "_value_dense", "out_proj": "_output_dense"}
    found = {}
    for part, attribute in parts.items():
        dense = getattr(native, attribute)
        found[f"{part}.weight"] = dense.kernel
        if dense.bias is not None:
            found[f"{part}.bias"] = dense.bias
    return found


def _laid(name: str, array: np.ndarray) -> np.ndarray:
    """Return a projection's weight (inputs, heads, size), or of the output (heads, size, outputs), as a matrix."""
    if name.endswith("bias"):
        return array.reshape(-1)
    rows = -1 if name.startswith("out_proj") else array.shape[0]
    return array.reshape(rows, array.shape[-1] if rows == -1 else array.size // rows).T


def read(native: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return tensors of a layer as arrays; a kernel with its low-rank one."""
    own = named(native)
    attention = _projections(native)
    if attention:
        return {name: _laid(name, adapter.as_array(attention[name])) for name in names}
    if any("lora_" in name for name in own):
        merged = adapter.read(native)
        return {name: merged[name] for name in names}
    return {name: adapter.as_array(own[name]) for name in names}


def dtype(native: Any, name: str) -> str:
    """Return the type of a tensor of a layer."""
    return str(keras.backend.standardize_dtype((_projections(native) or named(native))[name].dtype))


def names_of(obj: Any, items: Sequence[Any]) -> dict[int, tuple[str, ...]]:
    """Return the paths of attributes by which layers are reached from a model of a user's own: item → paths."""
    found: dict[int, list[str]] = {}

    def walk(held: Any, path: str, depth: int) -> None:
        if isinstance(held, keras.layers.Layer):
            if path:
                found.setdefault(id(held), []).append(path)
            if depth < DEPTH and type(held).__module__.partition(".")[0] != "keras":
                for name, value in vars(held).items():
                    if not name.startswith("_"):
                        walk(value, f"{path}.{name}".lstrip("."), depth + 1)
        elif isinstance(held, list | tuple):
            for number, value in enumerate(held):
                walk(value, f"{path}.{number}", depth + 1)
        elif isinstance(held, dict):
            for name, value in held.items():
                walk(value, f"{path}.{name}", depth + 1)

    walk(obj, "", 0)
    return {number: tuple(found[id(item.native)]) for number, item in enumerate(items) if id(item.native) in found}


DEPTH = 8
"""How deep layers of a user's own may lie in each other."""


def path(obj: Any, native: Any, name: str) -> str:
    """Return the name by which the whole object reads and writes a tensor of one of its layers."""
    wanted = named(native)[name]
    return next((key for key, variable in named(obj).items() if variable is wanted), name)


def part(obj: Any, name: str) -> Any:
    """Return the layer of a name, or None."""
    return next((layer for layer in obj._flatten_layers() if layer.name == name), None)


def identity(native: Any, name: str) -> tuple[Any, ...]:
    """Return what two names of one tensor have in common."""
    return (id((_projections(native) | named(native))[name]),)


def check(obj: Any, *, written: bool) -> None:
    """Do nothing: variables of a built model can be read and written."""


def write(native: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Change tensors of a layer in place; their types stay."""
    own = named(native)
    for name, variable in _projections(native).items():
        if name in arrays:
            values = np.ascontiguousarray(arrays[name].T).reshape(variable.shape)
            variable.assign(keras.ops.cast(values, variable.dtype))
    if _projections(native):
        return
    if any("lora_" in name for name in own):
        adapter.write(native, adapter.read(native) | dict(arrays))
        return
    for name, values in arrays.items():
        own[name].assign(keras.ops.cast(np.ascontiguousarray(values), own[name].dtype))


def freeze(native: Any, names: Sequence[str]) -> None:
    """Keep training from changing tensors of a layer."""
    own = named(native)
    for name in names:
        own[name].trainable = False


def rehearsal(obj: Any) -> Any:
    """Return the object itself: a copy of a class of one's own need not be one."""
    return obj


def snapshot(obj: Any) -> list[Any]:
    """Return copies of all that an object holds."""
    return [keras.ops.convert_to_numpy(variable) for variable in obj.variables]


def restore(obj: Any, kept: Sequence[Any]) -> None:
    """Give an object back what it held at a snapshot."""
    for variable, values in zip(obj.variables, kept, strict=True):
        variable.assign(values)


def double(obj: Any) -> None:
    """Return nothing: variables of Keras keep their type."""


def cast(obj: Any, dtype: str) -> Any:
    """Refuse another type: variables of Keras keep theirs."""
    if any(keras.backend.standardize_dtype(variable.dtype) != dtype for variable in obj.trainable_variables):
        raise UnsupportedModelError(
            f"The target's weights cannot become {dtype}.",
            "Variables of Keras keep the type that they were made with.",
            f"Build the target with dtype={dtype!r}, or leave dtype= out.",
        )
    return obj


# ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────────


def observe(
    obj: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    natives: Mapping[int, Any],
    lengths: np.ndarray | None = None,
) -> tuple[list[np.ndarray], list[Call]]:
    """Call an object without training; return its outputs and what each of some layers was given and gave.

    Args:
        obj: The layer or model.
        args: Its arguments; a model that was built on several inputs takes them as one.
        kwargs: Its arguments by keyword.
        natives: Number → layer.
        lengths: Not for Keras.
    """
    calls: list[Call] = []
    kept = [(layer, [keras.ops.convert_to_numpy(state) for state in _states(layer)]) for layer in obj._flatten_layers()]
    given = [_tensor(obj, each) for each in args]
    keywords = {name: _tensor(obj, each) for name, each in kwargs.items()}
    structure = getattr(obj, "_inputs_struct", None)
    fed: Any = tuple(given)
    if keywords and not given and isinstance(obj, keras.Model) and structure is not None:
        fed, keywords = (keywords if isinstance(structure, dict) else list(keywords.values()),), {}
    elif structure is not None and len(given) > 1:
        fed = (keras.tree.pack_sequence_as(structure, given),)
    elif structure is not None and given and isinstance(structure, list | tuple | dict):
        fed = (keras.tree.pack_sequence_as(structure, keras.tree.flatten(given)),)
    elif len(given) > len(parameters_of(obj)) >= 1:
        fed = (given,)
    watched: list[Any] = []
    try:
        for layer, states in kept:
            if states:
                layer.reset_state()
        for number, native in natives.items():
            if "call" not in vars(native):
                _watch(native, number, calls)
                watched.append(native)
        made = obj(*fed, training=False, **keywords)
        return flat(made), calls
    finally:
        for native in watched:
            object.__delattr__(native, "call")
        for layer, states in kept:
            for variable, values in zip(_states(layer), states, strict=False):
                variable.assign(values)


def _states(layer: Any) -> list[Any]:
    """Return the states that a stateful layer keeps."""
    states = getattr(layer, "states", None) if getattr(layer, "stateful", False) else None
    return [state for state in keras.tree.flatten(states) if isinstance(state, keras.Variable)] if states else []


def _watch(native: Any, number: int, calls: list[Call]) -> None:
    plain = native.call

    def seen(*args: Any, **kwargs: Any) -> Any:
        made = plain(*args, **kwargs)
        with contextlib.suppress(ValueError, TypeError, AttributeError, NotImplementedError):  # a symbolic tensor
            calls.append(Call(number, flat([args, list(kwargs.values())]), flat(made)))
        return made

    # Past Keras's own setter, which would take the function for something to track.
    object.__setattr__(native, "call", seen)


def flat(made: Any) -> Outputs:
    """Return the tensors of nested outputs as arrays."""
    found = Outputs()
    if isinstance(made, dict):
        for name, value in made.items():
            found.add(str(name), flat(value))
    elif isinstance(made, tuple | list):
        for value in made:
            found.add("", flat(value))
    elif hasattr(made, "shape") and hasattr(made, "dtype") and not isinstance(made, keras.KerasTensor):
        found.append(adapter.as_array(made))
    return found


def capacity(obj: Any) -> int | None:
    """Return how many arguments a call takes by position; of a model with a graph, how many inputs."""
    inputs = getattr(obj, "inputs", None)
    if inputs:
        return len(inputs)
    with contextlib.suppress(TypeError, ValueError):
        found = inspect.signature(obj.call).parameters.values()
        return None if any(each.kind is each.VAR_POSITIONAL for each in found) else len(parameters_of(obj))
    return None


def _tensor(obj: Any, value: Any) -> Any:
    if hasattr(value, "detach"):  # a tensor of torch's
        value = value.detach().cpu().numpy()
    if isinstance(value, list | tuple):
        return [_tensor(obj, each) for each in value]
    if isinstance(value, dict):
        return {name: _tensor(obj, each) for name, each in value.items()}
    if not isinstance(value, np.ndarray):
        return value
    kind = value.dtype.kind
    return keras.ops.convert_to_tensor(
        value.astype(adapter.dtype_of(obj)) if kind == "f" else value.astype("int32") if kind in "iu" else value
    )


def parameters_of(obj: Any) -> list[tuple[str, bool]]:
    """Return the names of the arguments of ``call``, and whether each is needed."""
    with contextlib.suppress(TypeError, ValueError):
        return [
            (each.name, each.default is each.empty)
            for each in inspect.signature(obj.call).parameters.values()
            if each.name not in ("training", "mask") and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
    return []


def shapes_of_inputs(obj: Any) -> list[tuple[str, tuple[int | None, ...], str]] | None:
    """Return name, shape and type of each input, with the batch, where an object says them.

    The type is empty if it is not known, and the name where the input is no entry of a dict.
    """
    inputs = getattr(obj, "inputs", None)
    if inputs:
        structure = getattr(obj, "_inputs_struct", None)
        names = (
            sorted(structure) if isinstance(structure, dict) and len(structure) == len(inputs) else [""] * len(inputs)
        )
        return [
            (name, tuple(each.shape), keras.backend.standardize_dtype(each.dtype))
            for name, each in zip(names, inputs, strict=True)
        ]
    known = getattr(obj, "_build_shapes_dict", None)
    if not known:
        return None
    shapes = []
    for shape in known.values():
        if not isinstance(shape, tuple | list) or not all(size is None or isinstance(size, int) for size in shape):
            return None
        shapes.append(("", tuple(shape), ""))
    return shapes


def time_first(obj: Any) -> list[str]:
    """Return nothing: layers of Keras read the batch first."""
    return []


def options_of(native: Any) -> Iterator[tuple[str, Any]]:
    """Yield the options of a layer that change its outputs and are no weights."""
    for name in (
        "epsilon activation recurrent_activation padding strides dilation_rate reset_after return_sequences "
        "go_backwards merge_mode mask_zero negative_slope"
    ).split():
        if hasattr(native, name):
            value = getattr(native, name)
            yield name, getattr(value, "__name__", value)


def set_option(native: Any, name: str, value: Any) -> Callable[[], None]:
    """Set an option of a layer; return what sets it back."""
    holder = getattr(native, "cell", native) if "activation" in name else native
    before = getattr(holder, name)
    setattr(holder, name, keras.activations.get(value) if "activation" in name else value)
    return lambda: setattr(holder, name, before)


def masks(obj: Any) -> tuple[str, float] | None:
    """Return what a model skips: ``("tokens", 0)``, or ``("values", …)`` of steps; None where it skips nothing."""
    for layer in obj._flatten_layers():
        if getattr(layer, "mask_zero", False):
            return "tokens", 0.0
        if isinstance(layer, keras.layers.Masking):
            return "values", float(layer.mask_value)
    return None
