"""Keras's operations on tensors, read and built. Keras is imported by each function when it is called."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.core.between import FUNCTIONS, OVER, Activation, Operation, Permute, Reshape
from gatewise.core.spec import ACTIVATIONS

SYNONYMS = {"TrueDivide": "divide", "Amax": "max", "Amin": "min", "ReLU": "relu"}
"""Class of an operation → NumPy's name, where that is not the name of the class."""

USUAL = {
    **dict.fromkeys(("initial", "dtype", "max_value")),
    **dict.fromkeys(("decimals", "negative_slope", "threshold"), 0),
    "alpha": 1.0,
    "approximate": False,
    "b": 4,
}
"""Options of operations that have one value that is supported."""

USUAL_OF = {
    "leaky_relu": {"negative_slope": 0.2},
    "hard_shrink": {"threshold": 0.5},
    "soft_shrink": {"threshold": 0.5},
}
"""Operation → the values of its options, where they are others than those of ``USUAL``."""

TYPES = {"bool": "bool", "int32": "int", "int64": "int", "float32": "float", "float64": "float"}
"""Type of Keras's → the function that makes it."""


ORDERS = ("transpose", "swapaxes", "moveaxis")
"""Operations that put axes into another order."""


def operation_of(operation: Any, arguments: Sequence[Any]) -> Operation | Reshape | Permute | Activation | None:
    """Return what an operation of ``keras.ops`` is, called on some arguments; None where it is not known."""
    import keras

    kind = type(operation).__name__
    name = SYNONYMS.get(kind) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
    options = {key: value for key, value in vars(operation).items() if not key.startswith("_") and key != "name"}
    axis, keep = options.pop("axis", ()), bool(options.pop("keepdims", False))
    bounds = [options.pop(each) for each in ("x_min", "x_max") if each in options]
    first = arguments[0][0] if isinstance(arguments[0], list | tuple) else arguments[0]
    if name == "cast":
        if keras.backend.standardize_dtype(options["dtype"]) == keras.backend.standardize_dtype(first.dtype):
            # What has the type already comes out as it is, with the mask that Keras keeps with it when it runs.
            return Activation("linear")
        name = _cast_to(options.pop("dtype"), first)
    if not type(operation).__module__.startswith("keras.") or name not in (*FUNCTIONS, *ORDERS, "reshape"):
        return None
    if name in ORDERS:
        order = _order(options, len(first.shape))
        return Permute(tuple(order[1:])) if order[0] == 0 and len(order) > 1 else None
    if name == "reshape":
        shape, whole = options["newshape"], first.shape[1:]
        known = shape[0] == -1 and None not in whole and math.prod(shape[1:]) == math.prod(whole)
        return Reshape(tuple(shape[1:])) if known and len(shape) > 1 else None
    usual = USUAL | USUAL_OF.get(name, {})
    if any(option not in usual or value != usual[option] for option, value in options.items()):
        return None
    if name == "get_item":
        key = _key(arguments[1], len(first.shape))
        return None if key is None else Operation(name, key=key)
    if name in ACTIVATIONS:
        axes = _axes(-1 if axis == () else axis, len(first.shape))
        return Operation(name, axis=() if axes == (len(first.shape) - 1,) else axes) if len(axes) == 1 else None
    if axis != () or name in OVER:
        if name in ONE_AXIS and not isinstance(axis, int):
            return None
        added = len(np.atleast_1d(axis)) if name in ("expand_dims", "stack") else 0
        axes = _axes(axis, len(first.shape) + added)
        return Operation(name, axis=axes, keep=keep) if axes else None
    operands = [None if isinstance(each, keras.KerasTensor) else _plain(each) for each in (*arguments, *bounds)]
    rank = max(len(each.shape) for each in arguments if isinstance(each, keras.KerasTensor))
    types = {keras.backend.standardize_dtype(each.dtype) for each in arguments if isinstance(each, keras.KerasTensor)}
    if not types <= {*TYPES, "float16", "bfloat16"}:  # short whole numbers go round, where torch's and ours may not
        return None
    given = [each for each in (*arguments, *bounds) if not isinstance(each, keras.KerasTensor)]
    if name == "matmul":
        # A matrix for each sequence: of tensors of another rank one would lie along the batch of the other.
        ranks = [len(each.shape) for each in arguments if isinstance(each, keras.KerasTensor)]
        stacks = min(ranks) > 2 or (len(ranks) == 1 and isinstance(arguments[0], keras.KerasTensor))
        if len(set(ranks)) > 1 or not stacks or any(np.ndim(each) > 2 for each in given):
            return None
    if not all(_is_number(each) and _fits_any_batch(each, rank) for each in given):
        return None
    return Operation(name, tuple(operands) if any(each is not None for each in operands) else ())


ONE_AXIS = ("argmax", "argmin", "cumsum", "cumprod")
"""Operations along one axis; along none they count through the batch."""


def _order(options: Mapping[str, Any], rank: int) -> list[int]:
    """Return which axis comes first, which then, the batch being 0."""
    places = list(range(rank))
    if "axes" in options:
        return [axis % rank for axis in options["axes"]] if options["axes"] is not None else places[::-1]
    if "axis1" in options:
        one, other = options["axis1"] % rank, options["axis2"] % rank
        places[one], places[other] = other, one
        return places
    moved = {to % rank: axis % rank for axis, to in zip(options["source"], options["destination"], strict=True)}
    rest = iter([axis for axis in places if axis not in moved.values()])
    return [moved[place] if place in moved else next(rest) for place in places]


def _cast_to(dtype: Any, tensor: Any) -> str:
    """Return the function that casts a tensor; empty where numbers would be rounded to a type that a port lacks."""
    import keras

    there, here = (keras.backend.standardize_dtype(each) for each in (dtype, tensor.dtype))
    return "" if (here, there) == ("float64", "float32") else TYPES.get(there, "")


def _axes(axis: Any, rank: int) -> tuple[int, ...]:
    """Return axes counted from the batch; none where the batch is among them."""
    given = [axis] if isinstance(axis, int) else list(axis or ())
    axes = tuple(sorted(each % rank for each in given))
    return () if 0 in axes else axes


def _key(key: Any, rank: int) -> tuple[Any, ...] | None:
    """Return what is taken from each axis behind the batch; None where that is not said by numbers."""
    entries = list(key) if isinstance(key, tuple | list) else [key]  # a list from a file
    if any(each is Ellipsis for each in entries):
        place = next(number for number, each in enumerate(entries) if each is Ellipsis)
        taken = sum(each is not None and each is not Ellipsis for each in entries)
        entries[place : place + 1] = [slice(None)] * (rank - taken)
    if not entries or entries[0] != slice(None):
        return None
    made: list[Any] = []
    for entry in entries[1:]:
        if entry is None:
            made.append("new")
        elif isinstance(entry, slice):
            bounds = (entry.start, entry.stop, entry.step)
            if not all(each is None or isinstance(each, int) for each in bounds):
                return None
            made.append(bounds)
        elif isinstance(entry, int):
            made.append(entry)
        else:
            return None
    return tuple(made)


def _plain(value: Any) -> Any:
    """Return a number, or an array as nested tuples."""
    import keras

    def tupled(nested: Any) -> Any:
        return tuple(map(tupled, nested)) if isinstance(nested, list) else nested

    return tupled(np.asarray(keras.ops.convert_to_numpy(value)).tolist())


def _is_number(value: Any) -> bool:
    """Say whether something is a number, or an array of numbers."""
    import keras

    fixed = value is not None and not isinstance(value, keras.Variable)
    return fixed and np.asarray(_plain(value)).dtype.kind in "biuf"


def _fits_any_batch(value: Any, rank: int) -> bool:
    """Say whether a number or array is the same for each sequence of a batch."""
    return np.ndim(value) < rank or np.shape(value)[0] == 1


def operated(spec: Operation, read: Sequence[Any], dtype: str) -> Any:
    """Return what an operation gives, as a tensor of a model.

    Args:
        spec: It.
        read: The tensors that it reads.
        dtype: The type of numbers with a point.
    """
    import keras

    name, first = spec.function, read[0]
    if name == "get_item":
        entries = (None if each == "new" else slice(*each) if isinstance(each, tuple) else each for each in spec.key)
        return first[(slice(None), *entries)]
    if name in ACTIVATIONS:
        from gatewise_keras.functions import activation

        return activation(name)(first, **({"axis": spec.axis[0]} if spec.axis else {}))
    function: Any = getattr(keras.ops, name, None)
    if name in OVER:
        return function(first, axis=spec.axis if len(spec.axis) > 1 else spec.axis[0], keepdims=spec.keep)
    if name in ("concatenate", "stack"):
        return function(list(read), axis=spec.axis[0])
    if spec.axis:
        return function(first, axis=spec.axis if len(spec.axis) > 1 else spec.axis[0])
    if name in TYPES.values():
        return keras.ops.cast(first, {"float": dtype, "int": "int32", "bool": "bool"}[name])
    return function(*(_array(each, dtype) if isinstance(each, tuple) else each for each in spec.arguments(read)))


def _array(nested: tuple[Any, ...], dtype: str) -> np.ndarray:
    made = np.asarray(nested)
    return made.astype(dtype) if made.dtype.kind == "f" else made
