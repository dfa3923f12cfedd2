"""Lists what a torch module holds, known layers and unknown ones; see ``gatewise.core.inventory``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from gatewise.core.inventory import Inventory, Item, Outline, Role, Tensor, recognise
from gatewise.core.spec import RNN, BatchNorm, Conv1D, Conv2D, Dense, Embedding, Spec
from gatewise.errors import UnsupportedModelError
from gatewise_torch.adapter import KINDS, attention_spec, is_general, norm_spec, recurrent_spec
from gatewise_torch.attention import AdditiveAttention, Attention
from gatewise_torch.checks import check_module
from gatewise_torch.layouts import FRAMEWORK
from gatewise_torch.normalisation import BatchNorm as Normalising

PARAMETERS = frozenset({Role.WEIGHT, Role.FROZEN, Role.FACTOR})
"""What ``parameters()`` lists, each once."""

SAVED = PARAMETERS | {Role.STATISTIC, Role.COUNTER, Role.BUFFER, Role.TIED}
"""What ``state_dict()`` holds; a tensor with two names stands in it twice."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

BUILT_IN = (
    nn.LSTM,
    nn.GRU,
    nn.RNN,
    nn.LSTMCell,
    nn.GRUCell,
    nn.RNNCell,
    nn.Linear,
    nn.Embedding,
    nn.LayerNorm,
    nn.Conv1d,
    nn.Conv2d,
    Normalising,
    Attention,
    AdditiveAttention,
    *BATCH_NORMS,
)
"""Classes whose options are read; of a class of one's own that comes from one of them only the weights are known."""

BESIDE = (Role.COUNTER, Role.BUFFER, Role.FACTOR)
"""Roles of tensors that no layout lists."""


def inventory(obj: Any) -> Inventory:
    """Return what a module holds, submodule by submodule; each item has its native.

    Raises:
        UnsupportedModelError: A lazy module has no weights yet, or this is no module.
    """
    check_module(obj)
    items: list[Item] = []
    seen: set[int] = set()
    inside = {id(part) for module in obj.modules() for part in _parts(module)}
    for name, module in obj.named_modules(remove_duplicate=False):
        if id(module) in inside:
            continue
        tensors = []
        for key, parameter, factor in _parameters(module):
            if nn.parameter.is_lazy(parameter):
                raise UnsupportedModelError(
                    f"Module {name or type(module).__name__!r} ({type(module).__name__}) has no weights yet.",
                    "Its size of input is unknown.",
                    "Call it once on data.",
                )
            trained = Role.FACTOR if factor else Role.WEIGHT
            role = Role.TIED if id(parameter) in seen else trained if parameter.requires_grad else Role.FROZEN
            tensors.append(Tensor(key, tuple(parameter.shape), role))
            seen.add(id(parameter))
        for key, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            if key not in module._non_persistent_buffers_set:
                tensors.append(Tensor(key, tuple(buffer.shape), _buffer_role(key, id(buffer) in seen)))
                seen.add(id(buffer))
        if tensors:
            kind = parametrize.type_before_parametrizations(module).__name__
            items.append(Item(name or kind.lower(), kind, tuple(tensors), _spec(module, tensors), native=module))
    outline = tuple(_outline(obj, items, inside))
    return Inventory("torch", "torch", tuple(items), PARAMETERS, SAVED, _packed(obj, items), outline)


def _outline(obj: nn.Module, items: Iterable[Item], inside: Collection[int]) -> Iterator[Outline]:
    """Yield the modules that hold parameters, or nothing at all, as the layers without weights do."""
    named = {item.name: item for item in items}
    for name, module in obj.named_modules(remove_duplicate=False):
        kind = parametrize.type_before_parametrizations(module).__name__
        label = name or kind.lower()
        if id(module) not in inside and (label in named or not any(module.children())):
            yield Outline(label, kind, items=(named[label],) if label in named else ())


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules within a module that only hold some of its own weights."""
    yield from _parametrizations(module).values()
    if isinstance(module, nn.MultiheadAttention):
        yield module.out_proj


def _parametrizations(module: Any) -> dict[str, nn.Module]:
    return dict(module.parametrizations.items()) if parametrize.is_parametrized(module) else {}


def _parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Yield the parameters of a module, by the names of the weights that they make, and whether more than one does."""
    own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
    for key, parameter in own.items():
        # What torch.nn.utils.weight_norm, spectral_norm and prune make of a weight.
        weight, _, kind = key.rpartition("_")
        split = {f"{weight}_g", f"{weight}_v"} <= own.keys()
        renamed = kind == "orig" or (split and kind == "v")
        yield weight if renamed else key, parameter, split and kind == "g"
    for weight, made in _parametrizations(module).items():
        parts = dict(made.named_parameters(recurse=False))
        main = max(reversed(parts), key=lambda key: parts[key].numel(), default="")
        for key, parameter in parts.items():
            yield weight if key == main else f"{weight}.{key}", parameter, key != main
    if isinstance(module, nn.MultiheadAttention):
        for key, parameter in module.out_proj.named_parameters(recurse=False, remove_duplicate=False):
            yield f"out_proj.{key}", parameter, False


def _packed(module: nn.Module, items: Iterable[Item]) -> tuple[Tensor, ...]:
    """Return what a module stores beside parameters and buffers, such as the packed weights of a quantised layer."""
    stored = {name: list(_tensors(held)) for name, held in module.state_dict().items()}
    listed = sum(tensor.size for item in items for tensor in item.tensors)
    if sum(each.numel() for held in stored.values() for each in held) <= listed:
        return ()
    known = {name for name, _ in (*module.named_parameters(remove_duplicate=False), *module.named_buffers())}
    return tuple(
        Tensor(name, tuple(each.shape), Role.BUFFER)
        for name, held in stored.items()
        if name not in known
        for each in held
    )


def _tensors(held: Any) -> Iterator[torch.Tensor]:
    if isinstance(held, torch.Tensor):
        yield held
    elif isinstance(held, tuple | list):
        for each in held:
            yield from _tensors(each)


def _buffer_role(name: str, seen: bool) -> Role:
    if seen:
        return Role.TIED
    named = {"running_mean": Role.STATISTIC, "running_var": Role.STATISTIC, "num_batches_tracked": Role.COUNTER}
    return named.get(name, Role.BUFFER)


def _spec(module: nn.Module, tensors: Iterable[Tensor]) -> Spec | None:
    """Return what a module computes, or None where no spec says it."""
    kind: Any = type(module)
    one: Any = module
    if kind not in BUILT_IN and not is_general(module):
        classes = {base.__name__ for base in kind.__mro__}
        shapes = {tensor.name: tensor.shape for tensor in tensors if tensor.role not in BESIDE}
        return recognise(classes, FRAMEWORK.layouts, shapes)
    if kind in (nn.LSTM, nn.GRU, nn.RNN) or is_general(module):
        try:
            return recurrent_spec(module)
        except UnsupportedModelError:  # An activation of one's own: it has no name, and no weights either.
            return KINDS[kind.__name__](one.input_size, one.hidden_size, **_sizes(one))
    if kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        known = KINDS[kind.__name__.removesuffix("Cell")]
        options = {"activation": one.nonlinearity} if known is RNN else {}
        return known(one.input_size, one.hidden_size, bias=one.bias, **options)
    if kind is nn.Linear:
        return Dense(one.in_features, one.out_features, bias=one.bias is not None)
    if kind is nn.Embedding:
        return Embedding(one.num_embeddings, one.embedding_dim)
    if kind is nn.Conv1d:
        sizes = one.in_channels, one.out_channels, one.kernel_size[0]
        return Conv1D(
            *sizes, strides=one.stride[0], dilation=one.dilation[0], groups=one.groups, bias=one.bias is not None
        )
    if kind is nn.Conv2d:
        sizes = one.in_channels, one.out_channels, *one.kernel_size
        return Conv2D(*sizes, strides=one.stride, dilation=one.dilation, groups=one.groups, bias=one.bias is not None)
    if kind in BATCH_NORMS:
        return BatchNorm(one.num_features, scale=one.affine, shift=one.affine, epsilon=one.eps)
    return attention_spec(one) or norm_spec(one)


def _sizes(module: Any) -> dict[str, Any]:
    """Return the options of a general layer that decide which weights it has."""
    options = {"layers": module.num_layers, "bidirectional": module.bidirectional, "merge": module.merge}
    options["bias"] = bool(module.bias) and module.bias != "none"
    for name, attribute in (("projection", "proj_size"), ("peepholes", "peepholes"), ("reset", "reset")):
        if getattr(module, attribute, None):
            options[name] = getattr(module, attribute)
    return options
