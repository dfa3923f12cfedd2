"""Functions of tensors by NumPy's names, as torch computes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gatewise.core.between import Operation
from gatewise.core.spec import ACTIVATIONS
from gatewise_torch.activations import activation


def operated(spec: Operation, read: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """Return what an operation gives.

    Args:
        spec: It.
        read: What it reads, batch first.
        dtype: The type of what gets a point here; torch's own where it is None.

    >>> operated(Operation("subtract", (1, None)), [torch.tensor([0.25, 1.0])])
    tensor([0.7500, 0.0000])
    """
    dtype = next((each.dtype for each in read if each.is_floating_point()), dtype or torch.get_default_dtype())
    made = _operated(spec, read, dtype)
    return made.to(dtype) if made.is_floating_point() else made


def _operated(spec: Operation, read: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    name, first = spec.function, read[0]
    if name in _WITH_A_POINT:
        read = [each if each.is_floating_point() else each.to(dtype) for each in read]
        first = read[0]
    if name == "get_item":
        return _items(first, spec.key)
    if name in ACTIVATIONS:
        function = activation(name, name, "activation").function
        return function(first.movedim(spec.axis[0], -1)).movedim(-1, spec.axis[0]) if spec.axis else function(first)
    if name in _OVER:
        return _OVER[name](first, spec.axis, spec.keep)
    if name in _ALONG:
        return _ALONG[name](list(read), spec.axis)
    if name == "float":
        return first.to(dtype)
    if name in _TYPES:
        return first.to(_TYPES[name])
    signed = [each.int() if each.dtype == torch.bool and name in _SIGNED else each for each in read]
    function, arguments = getattr(torch, _NAMES.get(name, name)), spec.arguments(signed)
    given = [each if isinstance(each, Tensor) else _tensor(each, dtype, first) for each in arguments]
    if name == "where":
        given[0] = given[0].bool()
    made: Tensor = function(*given)
    return made


def _tensor(number: Any, dtype: torch.dtype, beside: Tensor) -> Tensor:
    """Return a number, or nested tuples of some, as a tensor."""
    made = torch.tensor(number, device=beside.device)
    return torch.tensor(number, device=beside.device, dtype=dtype) if made.is_floating_point() else made


def _items(value: Tensor, key: Sequence[Any]) -> Tensor:
    """Take entries of the axes behind the batch."""
    axis = 1
    for entry in key:
        if entry == "new":
            value = value.unsqueeze(axis)
        elif isinstance(entry, tuple) and (entry[2] or 1) > 0:
            value = value[(slice(None),) * axis + (slice(*entry),)]
        elif isinstance(entry, tuple):  # torch has no steps backwards
            taken = range(*slice(*entry).indices(value.shape[axis]))
            value = value.index_select(axis, torch.tensor(taken, device=value.device, dtype=torch.int64))
        else:
            value = value.select(axis, entry)
            continue
        axis += 1
    return value


def _product(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        value = value.prod(axis, keepdim=keep)
    return value


def _expanded(values: list[Tensor], axes: Sequence[int]) -> Tensor:
    made = values[0]
    for axis in axes:
        made = made.unsqueeze(axis)
    return made


def _place(of: Callable[..., Tensor]) -> Callable[[Tensor, Any, bool], Tensor]:
    def place(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
        return of(value.int() if value.dtype == torch.bool else value, axes[0], keepdim=keep)

    return place


_OVER: dict[str, Callable[[Tensor, Any, bool], Tensor]] = {
    "sum": lambda value, axes, keep: value.sum(axes, keepdim=keep),
    "mean": lambda value, axes, keep: value.mean(axes, keepdim=keep),
    "prod": _product,
    "max": lambda value, axes, keep: value.amax(axes, keepdim=keep),
    "min": lambda value, axes, keep: value.amin(axes, keepdim=keep),
    "any": lambda value, axes, keep: value.any(axes, keepdim=keep),
    "all": lambda value, axes, keep: value.all(axes, keepdim=keep),
    "argmax": _place(torch.argmax),
    "argmin": _place(torch.argmin),
}

_ALONG: dict[str, Callable[[list[Tensor], tuple[int, ...]], Tensor]] = {
    "expand_dims": _expanded,
    "squeeze": lambda values, axes: values[0].squeeze(axes),
    "flip": lambda values, axes: values[0].flip(axes),
    "concatenate": lambda values, axes: torch.cat(values, axes[0]),
    "stack": lambda values, axes: torch.stack(values, axes[0]),
    "cumsum": lambda values, axes: values[0].cumsum(axes[0]),
    "cumprod": lambda values, axes: values[0].cumprod(axes[0]),
}

_WITH_A_POINT = {"sqrt", "exp", "log", "floor", "divide", "mean", *ACTIVATIONS} - {"linear", "relu", "relu6"}
"""What gives numbers with a point also of whole numbers."""

_SIGNED = ("subtract", "negative", "absolute")
"""What torch does not do to booleans."""

_TYPES = {"int": torch.int64, "bool": torch.bool}

_NAMES = {"equal": "eq", "power": "pow"}
"""Name of NumPy's → torch's, where they differ."""
