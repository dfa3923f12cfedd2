"""Stored tensors of torch modules by name, copies to try weights on, and what a module does layer by layer."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gatewise.arrays.native import Call, Outputs
from gatewise.errors import UnsupportedModelError
from gatewise_torch import running

PROJECTIONS = ("query", "key", "value")
"""What the packed weights of an attention hold, in this order."""


def virtual(native: Any) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
    """Return the projections of an attention as tensors of their own, each (outputs, inputs); of anything else None."""
    if type(native) is not nn.MultiheadAttention or native.bias_k is not None:
        return None
    names = [f"{part}.weight" for part in PROJECTIONS] + ["out_proj.weight"]
    if native.in_proj_bias is not None:
        names += [f"{part}.bias" for part in PROJECTIONS] + ["out_proj.bias"]
    return tuple((name, tuple(stored(native, name).shape)) for name in names)


def stored(native: nn.Module, name: str) -> torch.Tensor:
    """Return a tensor of a module by its name within it; of a weight that others make up, the weight."""
    part, _, kind = name.partition(".")
    if isinstance(native, nn.MultiheadAttention) and part in PROJECTIONS:
        alone = getattr(native, f"{part[0]}_proj_weight", None) if kind == "weight" else None
        packed: Any = getattr(native, f"in_proj_{kind}")
        weight: torch.Tensor = alone if alone is not None else packed.chunk(3)[PROJECTIONS.index(part)]
        return weight
    found: Any = native
    for part in name.split("."):
        found = getattr(found, part)
    tensor: torch.Tensor = found
    return tensor


def read(native: nn.Module, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return tensors of a module as arrays, which share memory with them where they can; not to be written to."""
    return {name: array(stored(native, name)) for name in names}


def array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array; of bfloat16, which NumPy lacks, as float32."""
    check_here(tensor)
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    if tensor.is_sparse or tensor.is_quantized:
        raise UnsupportedModelError(
            "A tensor is sparse or quantised.", "Dense floats can be copied.", "Dequantise it first: .dequantize()."
        )
    return tensor.numpy()


def check_here(tensor: torch.Tensor) -> None:
    """Raise ``UnsupportedModelError`` where a tensor holds no numbers."""
    if tensor.is_meta:
        raise UnsupportedModelError(
            "A tensor lies on the device 'meta', where tensors hold no numbers.",
            "Weights are read from memory, and written there.",
            "Materialise the module first: to_empty(device='cpu'), then load_state_dict.",
        )


def check(obj: nn.Module, *, written: bool) -> None:
    """Raise ``UnsupportedModelError`` where a module's tensors cannot be read, or written where that is asked."""
    for tensor in (*obj.parameters(), *obj.buffers()):
        check_here(tensor)
        if written and tensor.is_inference():
            raise UnsupportedModelError(
                "A tensor was made in torch.inference_mode().",
                "PyTorch lets nobody write into it outside of that mode.",
                "Build the module outside of it.",
            )


def dtype(native: nn.Module, name: str) -> str:
    """Return the type of a tensor of a module."""
    return str(stored(native, name).dtype).removeprefix("torch.")


def names_of(obj: nn.Module, items: Sequence[Any]) -> dict[int, tuple[str, ...]]:
    """Return nothing: the names of submodules are their paths."""
    return {}


def path(obj: nn.Module, native: nn.Module, name: str) -> str:
    """Return the name by which the whole module reads and writes a tensor of one of its submodules."""
    place = next((place for place, module in obj.named_modules(remove_duplicate=False) if module is native), "")
    return f"{place}.{name}".lstrip(".")


def part(obj: nn.Module, name: str) -> nn.Module | None:
    """Return the submodule at a path, or None."""
    return dict(obj.named_modules()).get(name) if name else None


def identity(native: nn.Module, name: str) -> tuple[Any, ...]:
    """Return what two names of one tensor have in common."""
    tensor = stored(native, name)
    if isinstance(native, nn.Module) and parametrize.is_parametrized(native, name):
        return id(native), name
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.device.type, str(tensor.dtype)


def write(native: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Change tensors of a module in place; device, type and identity stay."""
    with torch.no_grad():
        for name, values in arrays.items():
            check_here(stored(native, name))
            if isinstance(native, nn.MultiheadAttention):
                stored(native, name).copy_(torch.from_numpy(np.ascontiguousarray(values)))
                continue
            *path, last = name.split(".")
            owner = stored(native, ".".join(path)) if path else native
            made = torch.from_numpy(np.ascontiguousarray(values))
            if isinstance(owner, nn.Module) and parametrize.is_parametrized(owner, last):
                now = getattr(owner, last)
                setattr(owner, last, made.to(now.device, now.dtype))
                continue
            getattr(owner, last).copy_(made)


def freeze(native: nn.Module, names: Sequence[str]) -> None:
    """Keep training from changing parameters of a module."""
    for name in names:
        stored(native, name).requires_grad_(False)


def rehearsal(obj: nn.Module) -> nn.Module:
    """Return a copy to try weights on, or the module itself where it cannot be copied."""
    made: nn.Module | None = running.duplicate(obj)
    if made is None:
        return obj
    for module in made.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    return made


def snapshot(obj: nn.Module) -> list[torch.Tensor]:
    """Return copies of all that a module holds."""
    return [each.detach().clone() for each in (*obj.parameters(), *obj.buffers())]


def restore(obj: nn.Module, kept: Sequence[torch.Tensor]) -> None:
    """Give a module back what it held at a snapshot."""
    with torch.no_grad():
        for each, values in zip((*obj.parameters(), *obj.buffers()), kept, strict=True):
            each.copy_(values)


def double(obj: nn.Module) -> nn.Module | None:
    """Return a copy that computes in float64, or None where there can be none."""
    made = rehearsal(obj)
    return None if made is obj else made.double()


def cast(obj: nn.Module, dtype: str) -> nn.Module:
    """Change the type of a module's floats, in place."""
    return obj.to(getattr(torch, dtype))


# ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────────


def observe(
    obj: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    natives: Mapping[int, nn.Module],
    lengths: np.ndarray | None = None,
) -> tuple[list[np.ndarray], list[Call]]:
    """Call a module in eval mode; return its outputs and what each of some submodules was given and gave.

    Args:
        obj: The module.
        args: Its arguments, arrays or whatever else it takes.
        kwargs: Its arguments by keyword.
        natives: Number → submodule.
        lengths: The lengths of the sequences, where the first argument is to be packed by them.
    """
    calls: list[Call] = []
    handles = []

    def watch(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any], made: Any) -> None:
            calls.append(Call(number, flat((*given, *keywords.values())), flat(made)))

        return hook

    training = [module for module in obj.modules() if module.training]
    obj.eval()
    try:
        for number, native in natives.items():
            handles.append(native.register_forward_hook(watch(number), with_kwargs=True))
        with torch.no_grad():
            given = [_tensor(obj, each) for each in args]
            if lengths is not None:
                first = any(getattr(module, "batch_first", False) for module in obj.modules())
                given[0] = pack_padded_sequence(
                    given[0] if first else given[0].transpose(0, 1), torch.as_tensor(lengths), first, False
                )
            made = obj(*given, **{name: _tensor(obj, each) for name, each in kwargs.items()})
        return flat(made), calls
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True


def flat(made: Any) -> Outputs:
    """Return the tensors of nested outputs as arrays; packed sequences padded."""
    found = Outputs()
    if isinstance(made, torch.Tensor):
        found.append(np.array(array(made)))
    elif isinstance(made, PackedSequence):
        found.append(np.array(array(pad_packed_sequence(made, batch_first=True)[0])))
    elif isinstance(made, Mapping):
        for name, value in made.items():
            found.add(str(name), flat(value))
    elif isinstance(made, tuple | list):
        for value in made:
            found.add("", flat(value))
    return found


def capacity(obj: nn.Module) -> int | None:
    """Return how many arguments ``forward`` takes by position; None where any number."""
    with contextlib.suppress(TypeError, ValueError):
        found = inspect.signature(obj.forward).parameters.values()
        return None if any(each.kind is each.VAR_POSITIONAL for each in found) else len(parameters_of(obj))
    return None


def _tensor(obj: nn.Module, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach()
    elif isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
        if not value.is_floating_point() and value.dtype != torch.bool:
            value = value.long()
    elif isinstance(value, Mapping):
        return {name: _tensor(obj, each) for name, each in value.items()}
    elif isinstance(value, list | tuple):
        return type(value)(_tensor(obj, each) for each in value)
    else:
        return value
    first = next((each for each in (*obj.parameters(), *obj.buffers()) if each.is_floating_point()), torch.zeros(()))
    return value.to(first.device, first.dtype) if value.is_floating_point() else value.to(first.device)


def parameters_of(obj: nn.Module) -> list[tuple[str, bool]]:
    """Return the names of the arguments of ``forward``, and whether each is needed."""
    with contextlib.suppress(TypeError, ValueError):
        found = inspect.signature(obj.forward).parameters.values()
        return [
            (each.name, each.default is each.empty)
            for each in found
            if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
    return []


def shapes_of_inputs(obj: nn.Module) -> None:
    """Return nothing: a module does not say what it is called with."""


def time_first(obj: nn.Module) -> list[str]:
    """Return the recurrent submodules that read the time axis first."""
    return [
        name or type(module).__name__.lower()
        for name, module in obj.named_modules()
        if getattr(module, "batch_first", True) is False
    ]


def options_of(native: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the options of a submodule that change its outputs and are no weights."""
    for name in (
        "eps",
        "batch_first",
        "nonlinearity",
        "padding",
        "stride",
        "dilation",
        "negative_slope",
        "approximate",
    ):
        if hasattr(native, name):
            yield name, getattr(native, name)


def set_option(native: nn.Module, name: str, value: Any) -> Callable[[], None]:
    """Set an option of a submodule; return what sets it back."""
    before = getattr(native, name)
    setattr(native, name, value)
    return lambda: setattr(native, name, before)


def masks(obj: nn.Module) -> None:
    """Return nothing: a module makes no masks of itself."""
