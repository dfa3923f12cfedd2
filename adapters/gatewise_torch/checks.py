"""Refuses modules that compute something else than their classes and options say. torch is imported when called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gatewise.arrays.replaced import replaced_method
from gatewise.core.between import Constant, Input
from gatewise.errors import UnsupportedModelError

CODE = ("torch", "gatewise_torch")
"""Where the code of a module that can be read stands."""


def check_module(obj: object) -> None:
    """Refuse what is torch's and no module, such as a tensor."""
    from torch import nn

    if not isinstance(obj, nn.Module):
        raise UnsupportedModelError(
            f"A {type(obj).__name__} is no module.", "A model or a layer is needed.", "Give the module that holds it."
        )


def check_bare(obj: Any, *, copied: bool = False) -> None:
    """Refuse modules whose behaviour is not their class's, or that hold no numbers.

    Args:
        obj: The module.
        copied: Whether only what a copy of it would lose is refused: hooks and changed submodules are copied, too.

    Raises:
        UnsupportedModelError: A method was replaced, a hook or a parametrisation acts, a submodule is another one than
            the class or the description says, or weights lie on the device ``meta``. The module is named.
    """
    check_module(obj)
    from torch.nn.modules import module as torch_module
    from torch.nn.utils.parametrize import is_parametrized

    everywhere = [*torch_module._global_forward_pre_hooks.values(), *torch_module._global_forward_hooks.values()]
    for name, module in obj.named_modules():
        where = f"A {type(module).__name__}" + (f" ({name})" if name else "")
        if is_parametrized(module):
            raise UnsupportedModelError(
                f"{where} computes its weights from others (torch.nn.utils.parametrize).",
                "A port takes weights as they are.",
                "Settle them first: torch.nn.utils.parametrize.remove_parametrizations(module, name).",
            )
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values(), *everywhere]
        if copied:  # weight_norm, prune and the like keep the weights under other names
            hooks = [hook for hook in hooks if type(hook).__module__.startswith("torch.nn.utils")]
        if hooks:
            said = getattr(hooks[0], "__name__", type(hooks[0]).__name__)
            raise UnsupportedModelError(
                f"{where} has a hook, {said}, which may change what it computes.",
                "A port computes what the module's own code does.",
                "Remove it: handle.remove(), or torch.nn.utils.remove_weight_norm, .prune.remove and the like.",
            )
        met = replaced_method(module, CODE)
        if met is not None:
            raise UnsupportedModelError(
                f"{where} does not run its class's code: {met}.",
                "A port computes what the class's own code does.",
                "Put the original back, or port the module without the change and make it around the port.",
            )
        if not copied:
            _check_submodules(where, module)
    if any(tensor.is_meta for tensor in (*obj.parameters(), *obj.buffers())):
        raise UnsupportedModelError(
            f"A {type(obj).__name__} lies on the device 'meta', where tensors hold no numbers.",
            "A port takes its weights along.",
            "Load them first: to_empty(device='cpu'), then load_state_dict.",
        )


def _check_submodules(where: str, module: Any) -> None:
    """Refuse submodules that the class does not have, or that are not what the description of a model says."""
    from torch import nn

    from gatewise_torch.model import Model

    if isinstance(module, Model):
        for text in _changes(module):
            raise UnsupportedModelError(
                f"{where} is not what it was built as: {text}.",
                "A port follows the description of a model that gatewise built.",
                "Put the original submodule back, or build the model anew.",
            )
    elif type(module) is not nn.Sequential and type(module).__module__.startswith(("torch.nn.", "gatewise_torch.")):
        added = next(iter(module._modules), None)
        if added is not None and added not in _usual_submodules(module):
            raise UnsupportedModelError(
                f"{where} has a submodule {added!r}, which its class does not have.",
                "A port takes a layer as its class makes it.",
                f"Remove it: del module.{added}.",
            )


def _usual_submodules(module: Any) -> tuple[str, ...]:
    """Return the names of the submodules that a class of torch's makes for itself; only whole models have any."""
    from torch import nn

    usual = {
        nn.MultiheadAttention: ("out_proj",),
        nn.Transformer: ("encoder", "decoder"),
        nn.TransformerEncoder: ("layers", "norm"),
        nn.TransformerDecoder: ("layers", "norm"),
    }
    containers = (nn.ModuleList, nn.ModuleDict, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    return tuple(module._modules) if isinstance(module, containers) else usual.get(type(module), ())


def _changes(model: Any) -> Iterator[str]:
    """Yield where the submodules of a model are not those that its description makes, a phrase each."""
    import torch

    from gatewise_torch.model import make, masked_layers

    network, runners = model.network, dict(model._runners)
    masked = masked_layers(network)
    expected: dict[str, Any] = {}
    for layer in network.layers:
        if not isinstance(layer.spec, Input | Constant) and runners[layer.name] == model._names[layer.name]:
            with torch.device("meta"):
                expected[runners[layer.name]] = make(layer.spec, masked=layer.owner in masked)
    for name in model._modules:
        if name not in expected:
            yield f"it has a submodule {name!r} more"
    for name, usual in expected.items():
        there = model._modules.get(name)
        if type(there) is not type(usual):
            yield f"{name!r} is a {type(there).__name__}, and was a {type(usual).__name__}"
            continue
        for option, value in vars(usual).items():
            plain = isinstance(value, bool | int | float | str | tuple | None)
            if plain and not option.startswith("_") and option not in ("training", "frozen"):
                met = getattr(there, option, None)
                if met != value:
                    yield f"{name!r} has {option}={met!r}, and had {value!r}"
        shapes = [{key: tuple(each.shape) for key, each in one.named_parameters()} for one in (there, usual)]
        if shapes[0] != shapes[1]:
            yield f"{name!r} has parameters of other names or shapes"
