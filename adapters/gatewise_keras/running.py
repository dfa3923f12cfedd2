"""Calls layers and models of any class as a person does: their weights, their state and an example of their inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.arrays.native import Weight
from gatewise.errors import SpecError, UnsupportedModelError


def runs(obj: object) -> bool:
    """Say whether an object is a layer or a model, which can be called."""
    import keras

    return isinstance(obj, keras.layers.Layer)


@contextlib.contextmanager
def settled(obj: Any) -> Iterator[None]:
    """Leave what a layer keeps from call to call as it was: states, statistics, seeds."""
    import keras

    trained = {id(variable) for variable in obj.trainable_variables}
    before = len(obj.weights)
    states = [getattr(layer, "states", None) for layer in obj._flatten_layers()]
    others = [variable for variable in keras.tree.flatten(states) if hasattr(variable, "assign")]
    others += [variable for variable in obj.variables if id(variable) not in trained]
    kept = [(variable, np.array(keras.ops.convert_to_numpy(variable))) for variable in others]
    try:
        yield
    finally:
        for variable, array in kept:
            variable.assign(array)
    if len(obj.weights) != before:
        raise UnsupportedModelError(
            f"{type(obj).__name__} {obj.name!r} had no weights yet: this call made them, at random.",
            "Weights to compare were expected.",
            "Call it once on data, load or set its weights, and compare then.",
        )


@contextlib.contextmanager
def kept_random() -> Iterator[None]:
    """Do nothing: what is random in Keras is kept in variables."""
    yield


def duplicate(obj: Any) -> None:
    """Return None: Keras copies a model by its config, which one of a class of its own need not have."""
    return


def feed(obj: Any, array: np.ndarray) -> Any:
    """Return an array as a layer takes it: a tensor of the backend, floats in the type that it computes in."""
    import keras

    kind = str(obj.compute_dtype) if array.dtype.kind == "f" else None
    return keras.ops.convert_to_tensor(array, dtype=kind)


def apply(obj: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a layer or model as in prediction; one with a graph takes its inputs in the structure that it has."""
    import keras

    structure = getattr(obj, "_inputs_struct", None)
    if structure is None:
        return obj(*args, training=False, **kwargs)
    names = [tensor._keras_history.operation.name for tensor in keras.tree.flatten(structure)]
    given = dict(kwargs)
    if isinstance(structure, Mapping) and set(given) == set(structure):
        return obj({name: given[name] for name in structure}, training=False)
    flat = [given[name] for name in names] if set(given) == set(names) else [*keras.tree.flatten(list(args))]
    if len(flat) != len(names) or (given and set(given) != set(names)):
        raise SpecError(
            f"{len(flat) or len(given)} inputs for {len(names)}, or of other names.",
            f"Model {obj.name!r} reads {', '.join(names)}.",
            "Give a tuple in this order, or a dict by these names.",
        )
    return obj(keras.tree.pack_sequence_as(structure, flat), training=False)


def called(obj: Any) -> Any:
    """Return the function whose signature says what a call takes; of a model with a graph there is none."""
    return None if getattr(obj, "_inputs_struct", None) is not None else obj.call


def weights(obj: Any) -> dict[str, Weight]:
    """Return name → weight, trained ones and others; a shared one once."""
    trained = {id(variable) for variable in obj.trainable_weights}
    found: dict[str, Weight] = {}
    for variable in {id(each): each for each in obj.weights}.values():
        if "float" in str(variable.dtype) and int(np.prod(variable.shape)):
            name = variable.path if variable.path not in found else f"{variable.path}:{len(found)}"
            found[name] = _weight(variable, id(variable) in trained)
    return found


def _weight(variable: Any, trainable: bool) -> Weight:
    import keras

    def read() -> np.ndarray:
        return np.array(keras.ops.convert_to_numpy(keras.ops.cast(variable, "float64")))

    def write(array: np.ndarray) -> None:
        variable.assign(keras.ops.cast(array, variable.dtype))

    def keep() -> np.ndarray:
        return np.array(keras.ops.convert_to_numpy(variable))

    return Weight(trainable, read, write, keep, variable.assign)


def example(obj: Any) -> str:
    """Return the shape of an input that a layer or model may take, where it tells; else nothing."""
    try:
        shape = obj.input_shape
    except (AttributeError, ValueError):
        shape = obj._build_shapes_dict.get("input_shape") if getattr(obj, "_build_shapes_dict", None) else None
    sizes = shape if isinstance(shape, list | tuple) else ()
    if not sizes or not all(size is None or isinstance(size, int) for size in sizes):
        return ""
    return str(tuple(size or (2, 7)[place > 0] for place, size in enumerate(sizes)))
