"""Calls modules of any class as a person does: their weights, their state and an example of their inputs."""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.arrays.native import Weight


def runs(obj: object) -> bool:
    """Say whether an object is a module, which can be called."""
    from torch import nn

    return isinstance(obj, nn.Module)


@contextlib.contextmanager
def settled(obj: Any) -> Iterator[None]:
    """Keep a module in evaluation and without gradients; afterwards its modes, buffers and attributes are as before."""
    import torch

    modules = list(obj.modules())
    tables = ("_buffers", "_parameters", "_modules")
    attributes = [
        (own, dict(own), {name: dict(own[name]) for name in tables if type(own.get(name)) is dict})
        for own in (module.__dict__ for module in modules)
    ]
    held_values = [value for own, _, _ in attributes for value in own.values() if type(value) in (list, dict, set)]
    contents = [(value, copy.copy(value)) for value in held_values]
    buffers = [(buffer, buffer.detach().clone()) for buffer in obj.buffers() if not buffer.is_meta]
    obj.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        with torch.no_grad():
            for buffer, values in buffers:
                buffer.copy_(values)
        for own, kept, held in attributes:
            own.clear()
            own.update(kept)
            for name, entries in held.items():
                own[name].clear()
                own[name].update(entries)
        for value, items in contents:
            value.clear()
            value.extend(items) if isinstance(value, list) else value.update(items)


@contextlib.contextmanager
def kept_random() -> Iterator[None]:
    """Leave the state of torch's random generators as it was."""
    import torch

    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        yield


def duplicate(obj: Any) -> Any:
    """Return a copy of a module that shares nothing with it; None where there is none.

    A function that a module holds, such as a replaced ``forward``, may run the module itself, also in a copy.
    """
    values = [value for module in obj.modules() for value in vars(module).values()]
    if any(isinstance(value, types.MethodType | functools.partial) for value in values):
        return None
    if any(isinstance(value, types.FunctionType) and value.__closure__ for value in values):
        return None
    try:
        return copy.deepcopy(obj)
    except Exception:  # an attribute that cannot be copied raises whatever it raises
        return None


def feed(obj: Any, array: np.ndarray) -> Any:
    """Return an array as a module takes it: where its weights are and, if it holds floats, of their type."""
    from gatewise_torch.adapter import tensor

    return tensor(obj, array)


def apply(obj: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a module."""
    return obj(*args, **kwargs)


def called(obj: Any) -> Any:
    """Return the function whose signature says what a call takes."""
    return obj.forward


def weights(obj: Any) -> dict[str, Weight]:
    """Return name → weight: parameters, and buffers of floats; a shared one once."""
    found: dict[str, Weight] = {}
    for name, tensor in (*obj.named_parameters(), *obj.named_buffers()):
        if tensor.is_floating_point() and not tensor.is_meta and tensor.numel():
            found[name] = _weight(tensor)
    return found


def _weight(tensor: Any) -> Weight:
    import torch

    def write(array: np.ndarray) -> None:
        tensor.data.copy_(torch.as_tensor(array))

    def read() -> np.ndarray:
        return np.array(tensor.detach().cpu().double().numpy())

    def restore(kept: Any) -> None:
        tensor.data.copy_(kept)

    return Weight(tensor.requires_grad, read, write, lambda: tensor.detach().clone(), restore)


def example(obj: Any) -> str:
    """Return the shape of an input that a module may take, as its first layer tells it; else nothing."""
    for module in obj.modules():
        if hasattr(module, "num_embeddings"):
            return f"integers below {module.num_embeddings} of shape (2, 7)"
        if hasattr(module, "hidden_size") and hasattr(module, "input_size"):
            leading = "2" if module is obj and not hasattr(module, "batch_first") else "2, 7"
            leading = leading if getattr(module, "batch_first", True) else "7, 2"
            return f"({leading}, {module.input_size})"
        if hasattr(module, "in_features"):
            return f"(2, {module.in_features})"
        if hasattr(module, "in_channels"):
            return f"(2, {module.in_channels}, {', '.join(['32'] * (module.weight.ndim - 2))})"
    return ""
