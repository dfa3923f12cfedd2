"""Runs PyTorch: a layer is a module that holds its own weights.

torch is imported by each function when it is called.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gatewise.arrays.native import fitting
from gatewise.core.layout import Layout, check_holds
from gatewise.core.spec import GRU, LSTM, RNN, Dense, Embedding, Input, Layer, Network, Recurrent, Spec
from gatewise.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch

KINDS: dict[str, type[Recurrent]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}


def claims(obj: object) -> bool:
    """Say whether an object is a torch module."""
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(obj).__mro__[:-1])


# ── one layer ───────────────────────────────────────────────────────────────────────────────────────────────────


def build(spec: Spec, layout: Layout) -> Any:
    """Return a module for one layer; recurrent ones are batch first."""
    from torch import nn

    from gatewise_torch.model import make

    check_holds(layout, spec)
    name = layout.name.partition(":")[2]
    if name.endswith("Cell"):
        assert isinstance(spec, Recurrent)
        more = {"nonlinearity": spec.activation} if name == "RNNCell" else {}
        return getattr(nn, name)(spec.features, spec.units, bias=spec.bias, **more)
    return make(spec)


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights of a module, as copies."""
    return {name: parameter.detach().cpu().numpy().copy() for name, parameter in obj.named_parameters()}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Change the weights of a module, and return it."""
    from gatewise_torch.model import set_arrays

    shapes = {name: tuple(parameter.shape) for name, parameter in obj.named_parameters()}
    set_arrays(obj, fitting(arrays, shapes, type(obj).__name__))
    return obj


def freeze(native: Any, tensors: Sequence[str]) -> None:
    """Keep training from changing some tensors of a module."""
    for name, parameter in native.named_parameters():
        if name in tensors:
            parameter.requires_grad_(False)


def frozen(native: Any) -> set[str]:
    """Return the tensors that training does not change."""
    return {name for name, parameter in native.named_parameters() if not parameter.requires_grad}


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the first output; of a cell, the outputs at every step."""
    import torch

    with evaluating(obj):
        given = _tensor(obj, inputs)
        if isinstance(obj, torch.nn.RNNCellBase):
            state, outputs = None, []
            for step in given.unbind(1):
                state = obj(step, state)
                outputs.append(state[0] if isinstance(state, tuple) else state)
            made = torch.stack(outputs, 1)
        else:
            made = obj(given)
        while isinstance(made, tuple | list):
            made = made[0]
        return np.array(made.cpu().numpy())


@contextlib.contextmanager
def evaluating(obj: Any) -> Iterator[None]:
    """Run a module without dropout and without gradients; leave its mode as it was."""
    import torch

    training = [module for module in obj.modules() if module.training]
    obj.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _tensor(obj: Any, array: np.ndarray) -> torch.Tensor:
    import torch

    first = next(iter(obj.parameters()), torch.zeros(()))
    given = torch.tensor(array, device=first.device)
    return given if not given.is_floating_point() else given.to(first.dtype)


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────


def describe(obj: Any) -> Network:
    """Return what a module is, in neutral terms.

    Raises:
        UnsupportedModelError: It is neither one supported layer nor a model that gatewise built.
    """
    from torch import nn

    from gatewise_torch.model import Model

    if isinstance(obj, Model):
        return _with_frozen(obj)
    name, trainable = type(obj).__name__.lower(), any(parameter.requires_grad for parameter in obj.parameters())
    general = type(obj).__module__ == "gatewise_torch.modules" and type(obj).__name__ in KINDS
    if type(obj) in (nn.LSTM, nn.GRU, nn.RNN) or general:
        spec = _spec_of(obj)
        return _pair(Input((None, spec.features)), Layer(name, spec, ("input",), trainable))
    if type(obj) is nn.Linear:
        dense = Dense(obj.in_features, obj.out_features, bias=obj.bias is not None)
        return _pair(Input((obj.in_features,)), Layer("dense", dense, ("input",), trainable))
    if type(obj) is nn.Embedding:
        for option, usual in (("max_norm", None), ("scale_grad_by_freq", False)):
            if getattr(obj, option) != usual:
                raise _refusal(obj, f"it has {option}={getattr(obj, option)!r}")
        return _pair(
            Input((None,), integer=True),
            Layer("embedding", Embedding(obj.num_embeddings, obj.embedding_dim), ("input",), trainable),
        )
    raise _refusal(obj, "it runs code of its own")


def _refusal(obj: Any, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"A {type(obj).__name__} is not supported: {why}.",
        "Supported: nn.LSTM, nn.GRU, nn.RNN, nn.Linear, nn.Embedding, the layers of gatewise_torch, and models that "
        "gatewise built.",
        "Port its layers one by one, and put them together on the other side.",
    )


def _pair(source: Input, layer: Layer) -> Network:
    return Network((Layer("input", source), layer))


def _with_frozen(model: Any) -> Network:
    """Return a model's network, each layer as trainable as its parameters are now."""
    layers = []
    for layer in model.network.layers:
        parameters = list(model.native(layer.name).parameters()) if layer.spec.cell else []
        trainable = not parameters or any(parameter.requires_grad for parameter in parameters)
        layers.append(dataclasses.replace(layer, trainable=trainable))
    return Network(tuple(layers), model.network.outputs)


def _spec_of(obj: Any) -> Recurrent:
    """Return the spec of torch's own recurrent layers, and of the general ones."""
    name = type(obj).__name__
    options: dict[str, Any] = {
        "layers": obj.num_layers,
        "bidirectional": obj.bidirectional,
        "bias": bool(obj.bias) and obj.bias != "none",
        "dropout_between": float(obj.dropout),
    }
    if getattr(obj, "proj_size", 0):
        options["projection"] = obj.proj_size
    if type(obj).__module__.partition(".")[0] == "torch":
        if name == "RNN":
            options["activation"] = obj.nonlinearity
        return KINDS[name](obj.input_size, obj.hidden_size, **options)
    names = (
        "activation recurrent_activation reset recurrent_dropout go_backwards merge return_sequences return_state "
        "stateful zero_output_for_mask peepholes cell_clip"
    ).split()
    options |= {option: getattr(obj, option) for option in names if hasattr(obj, option)}
    for option in ("activation", "recurrent_activation"):
        if callable(options.get(option)):
            raise _refusal(obj, f"its {option} is a function, which has no name elsewhere")
    if getattr(obj, "forget_bias", 0):
        raise _refusal(obj, f"it adds forget_bias={obj.forget_bias} at run time; add it to the bias")
    return KINDS[name](obj.input_size, obj.hidden_size, **options, dropout=float(obj.input_dropout))


def natives(obj: Any) -> dict[str, Any]:
    """Return the layers of an object by the names that ``describe`` gives them."""
    network = describe(obj)
    if hasattr(obj, "native"):
        return {layer.name: obj.native(layer.name) for layer in network.layers if not isinstance(layer.spec, Input)}
    return {network.layers[-1].name: obj}


def remarks(obj: Any) -> list[str]:
    """Return what a port leaves behind; nothing is hidden in a module."""
    return []


def form(obj: Any) -> str:
    """Say how an object is called: as a stack with its states side by side, or as a model."""
    return "model" if hasattr(obj, "native") else "stack" if hasattr(obj, "num_layers") else "layer"


def assemble(network: Network, *, dtype: str = "float32", form: str = "model") -> tuple[Any, dict[str, Any]]:
    """Build a module for a network, in eval mode; return it with the module of each layer."""
    import torch

    from gatewise_torch.model import Model, make

    kind = getattr(torch, dtype)
    [*_, last] = network.layers
    options = last.spec.options()
    alone_will_do = last.spec.cell in ("dense", "embedding") and options.get("activation", "linear") == "linear"
    bare = form == "stack" or (form == "layer" and alone_will_do and not options.get("mask_zero"))
    if bare and len(network.weighted) == 1:
        alone = make(last.spec, dtype=kind).eval()
        return alone, {last.name: alone}
    model = Model(network, dtype=kind).eval()
    return model, {
        layer.name: model.native(layer.name) for layer in network.layers if not isinstance(layer.spec, Input)
    }


def call(obj: Any, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
    """Return all outputs of a module, in the order that ``describe`` gives them.

    Args:
        obj: The module; a stateful one forgets first.
        inputs: One array for each input, batch first.
        states: Initial states of the recurrent layer, (batch, size) each.
    """
    from gatewise_torch.model import gather, spread

    with evaluating(obj):
        given = [_tensor(obj, array) for array in inputs]
        start = None if states is None else [_tensor(obj, array) for array in states]
        if hasattr(obj, "reset_state"):
            obj.reset_state()
        if form(obj) != "stack":
            made = obj(*given, **({"states": start} if start is not None else {}))
            flat = made if isinstance(made, list) else [made]
        else:
            time_first = not obj.batch_first
            source = given[0].transpose(0, 1) if time_first else given[0]
            made = obj(source, None if start is None else gather(_spec_of(obj), start))
            output, state = made if isinstance(made, tuple) and getattr(obj, "return_state", True) else (made, ())
            flat = list(output) if isinstance(output, tuple) else [output]
            if time_first and getattr(obj, "return_sequences", True):
                flat = [each.transpose(0, 1) for each in flat]
            flat += spread(state) if not isinstance(state, tuple) or state else []
        return [np.array(each.cpu().numpy()) for each in flat]


def takes_states(obj: Any) -> bool:
    """Say whether ``call`` can start from given states: where there is one recurrent layer, and no other."""
    return [isinstance(layer.spec, Recurrent) for layer in describe(obj).weighted] == [True]


def dtype_of(obj: Any) -> str:
    """Return the type of the numbers that a module computes with."""
    kinds = {str(parameter.dtype).removeprefix("torch.") for parameter in obj.parameters()}
    return next(iter(kinds)) if len(kinds) == 1 else "float32"


def computes_in_double() -> bool:
    """Say whether float64 modules compute in float64 here."""
    return True


def state_arrays(obj: Any) -> dict[str, np.ndarray]:
    """Return the whole state dict of a module as arrays."""
    return {name: value.detach().cpu().numpy() for name, value in obj.state_dict().items()}
