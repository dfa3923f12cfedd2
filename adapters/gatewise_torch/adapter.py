"""Runs PyTorch: a layer is a module that holds its own weights.

torch is imported by each function when it is called.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gatewise.arrays.native import fitting
from gatewise.core.between import Activation, Constant, Dropout, Input
from gatewise.core.layout import Layout, check_holds
from gatewise.core.network import LEFT_STATES, Layer, Network, source_of
from gatewise.core.spec import (
    GRU,
    LSTM,
    RNN,
    AdditiveAttention,
    Attending,
    Attention,
    BatchNorm,
    Dense,
    Embedding,
    LayerNorm,
    Recurrent,
    Spec,
    outputs_of,
    with_number,
)
from gatewise.core.tree import unpack
from gatewise.errors import UnsupportedModelError
from gatewise_torch.checks import check_bare as check_bare
from gatewise_torch.layouts import (
    ACTIVATION_MODULES,
    GENERAL_GRU,
    GENERAL_LSTM,
    GENERAL_LSTM_FULL,
    GENERAL_RNN,
    variant,
)
from gatewise_torch.running import apply as apply
from gatewise_torch.running import called as called
from gatewise_torch.running import duplicate as duplicate
from gatewise_torch.running import example as example
from gatewise_torch.running import feed as feed
from gatewise_torch.running import kept_random as kept_random
from gatewise_torch.running import runs as runs
from gatewise_torch.running import settled as settled
from gatewise_torch.running import weights as weights

if TYPE_CHECKING:
    import torch

    from gatewise.core.inventory import Inventory

KINDS: dict[str, type[Recurrent]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}

NEEDED: dict[str, dict[str, object]] = {
    "softmax": {"dim": -1},
    "log_softmax": {"dim": -1},
}
"""Activation → options that make such a module what the activation is, where the usual ones of torch do not."""

ADAMS = {"epsilon": "torch.optim.Adam", "epsilon-hat": "gatewise_torch.KerasAdam"}
"""The rules of Adam that there are here, by where epsilon stands, and what follows them; first the framework's own."""


def claims(obj: object) -> bool:
    """Say whether an object is one of torch's, such as a module."""
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(obj).__mro__[:-1])


# ── one layer ───────────────────────────────────────────────────────────────────────────────────────────────────


def build(spec: Spec, layout: Layout) -> Any:
    """Return a module for one layer; recurrent ones are batch first."""
    import torch

    from gatewise_torch.model import make

    check_holds(layout, spec)
    name = layout.name.partition(":")[2]
    if name.endswith("Cell"):
        assert isinstance(spec, Recurrent)
        return make_cell(spec)
    if name == "BatchNorm1d":
        assert isinstance(spec, BatchNorm)
        return torch.nn.BatchNorm1d(spec.features, spec.epsilon, 1 - spec.momentum, affine=spec.scale)
    return make(spec, general=name.startswith("general."))


def make_cell(spec: Recurrent, dtype: torch.dtype | None = None) -> Any:
    """Return ``nn.LSTMCell``, ``nn.GRUCell`` or ``nn.RNNCell``.

    Raises:
        UnsupportedModelError: It computes another function; the option is named.
    """
    from torch import nn

    from gatewise_torch.model import fits_torch

    name = {"lstm": "LSTMCell", "gru": "GRUCell", "rnn": "RNNCell"}[spec.cell]
    if not fits_torch(spec):
        options = spec.options()
        usual = {"activation": ("tanh", "relu") if spec.cell == "rnn" else ("tanh",), "reset": ("after",)}
        usual |= {"recurrent_activation": ("sigmoid",)}
        for option, values in usual.items():
            if options.get(option, values[0]) not in values:
                raise UnsupportedModelError(
                    f"A cell with {option}={options[option]!r} cannot become an nn.{name}.",
                    f"nn.{name} computes {option}={' or '.join(values)} only.",
                    "Put the cell into keras.layers.RNN: a layer goes to gatewise_torch, which computes it.",
                )
    more = {"nonlinearity": spec.activation} if name == "RNNCell" else {}
    return getattr(nn, name)(spec.features, spec.units, bias=spec.bias, dtype=dtype, **more)


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights of a module, as copies."""
    from gatewise_torch.model import weights_of

    return {name: weight.detach().cpu().numpy().copy() for name, weight in weights_of(obj).items()}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Change the weights of a module, and return it."""
    from gatewise_torch.model import set_arrays, weights_of

    shapes = {name: tuple(weight.shape) for name, weight in weights_of(obj).items()}
    set_arrays(obj, fitting(arrays, shapes, type(obj).__name__))
    return obj


def freeze(native: Any, tensors: Sequence[str]) -> None:
    """Keep training from changing some tensors of a module."""
    for name, parameter in native.named_parameters():
        if name in tensors:
            parameter.requires_grad_(False)
    if hasattr(native, "frozen") and any(name.startswith("running_") for name in tensors):
        native.frozen = True


def frozen(native: Any) -> set[str]:
    """Return the tensors that training does not change."""
    from gatewise_torch.model import weights_of

    fixed = {name for name, parameter in native.named_parameters() if not parameter.requires_grad}
    return fixed if not getattr(native, "frozen", False) else fixed | set(weights_of(native))


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the first output; of a cell, the outputs at every step."""
    import torch

    with evaluating(obj):
        given = tensor(obj, inputs)
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


def tensor(obj: Any, array: np.ndarray) -> torch.Tensor:
    """Return an array as a module takes it: where its weights lie, and of their type."""
    import torch

    numbers = (each for each in (*obj.parameters(), *obj.buffers()) if each.is_floating_point())
    first = next(numbers, torch.zeros(()))
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

    other = sorted({str(parameter.dtype) for parameter in obj.parameters()} - {"torch.float32", "torch.float64"})
    if other:
        raise UnsupportedModelError(
            f"A {type(obj).__name__} has weights of {', '.join(other)}, which is not supported.",
            "Weights of float32 and float64 are supported.",
            "Convert it first: module.float().",
        )
    if isinstance(obj, Model):
        return _with_frozen(obj)
    if is_chain(obj):
        return chain(obj)[0]
    name, trainable = type(obj).__name__.lower(), any(parameter.requires_grad for parameter in obj.parameters())
    if type(obj) in (nn.LSTM, nn.GRU, nn.RNN) or is_general(obj):
        spec = recurrent_spec(obj)
        kept = getattr(obj, "_kept", None)
        batch = kept[0].shape[1] if spec.stateful and kept else None
        return _pair(Input((None, spec.features), batch=batch), Layer(name, spec, ("input",), trainable))
    if type(obj) in (nn.LSTMCell, nn.GRUCell, nn.RNNCell):
        kind = KINDS[type(obj).__name__.removesuffix("Cell")]
        options: dict[str, Any] = {"bias": obj.bias, "return_sequences": False}
        options |= {"activation": obj.nonlinearity} if kind is RNN else {}
        cell = kind(obj.input_size, obj.hidden_size, **options)
        return _pair(Input((obj.input_size,)), Layer(name, cell, ("input",), trainable, step=True))
    if type(obj) is nn.Linear:
        dense = Dense(obj.in_features, obj.out_features, bias=obj.bias is not None)
        return _pair(Input((obj.in_features,)), Layer("dense", dense, ("input",), trainable))
    if (norm := norm_spec(obj)) is not None:
        trainable = (trainable or not list(obj.parameters())) and not getattr(obj, "frozen", False)
        return _pair(Input((None, norm.features)), Layer(name, norm, ("input",), trainable))
    if isinstance(obj, nn.Conv1d | nn.Conv2d | nn.BatchNorm1d):
        why = "alone it has the features second, and the layer of Keras has them last"
        if isinstance(obj, nn.BatchNorm1d):
            why += "; in training its running_var moves towards the unbiased variance, and Keras's towards the biased"
            raise _refusal(obj, why, "Use gatewise_torch.BatchNorm, which does both as Keras does.")
        raise _refusal(obj, why)
    if type(obj) is nn.Embedding:
        for option, usual in (("max_norm", None), ("scale_grad_by_freq", False)):
            if getattr(obj, option) != usual:
                raise _refusal(obj, f"it has {option}={getattr(obj, option)!r}")
        return _pair(
            Input((None,), integer=True),
            Layer("embedding", Embedding(obj.num_embeddings, obj.embedding_dim), ("input",), trainable),
        )
    if attention_spec(obj) is not None:
        raise _refusal(obj, "it reads several sequences, and a layer alone has one input")
    if ".quantized" in type(obj).__module__:
        raise _refusal(obj, "its weights are quantised", "Port the model before it is quantised.")
    if type(obj).__module__.startswith("torch.nn."):
        raise _refusal(obj, "it is not read yet")
    raise _refusal(
        obj,
        "it runs code of its own",
        "Write it in Keras, too: gw.transfer(module, model) carries the weights over. Or port its layers one by one.",
    )


def is_chain(obj: Any) -> bool:
    """Say whether an object is torch's own ``nn.Sequential``."""
    from torch import nn

    return type(obj) is nn.Sequential


def chain(obj: Any) -> tuple[Network, dict[str, Any]]:
    """Return an ``nn.Sequential`` as a network, and the modules of its layers that have weights.

    Raises:
        UnsupportedModelError: A module in it is not supported, or does not fit its place; it is named.
    """
    layers: list[Layer] = []
    modules: dict[str, Any] = {}
    source: Input | None = None
    places = list(_unnested(obj))
    for place, module in places:
        name = f"{type(module).__name__}_{place}".lower().replace(".", "_")
        reads = (layers[-1].name if layers else "input",)
        spec = _weightless(module)
        if spec is not None:
            layers.append(Layer(name, spec, reads))
            continue
        own = describe(module)
        layer = dataclasses.replace(own.layers[-1], name=name, inputs=reads)
        if isinstance(layer.spec, Recurrent):
            here = f"it is module {place} of an nn.Sequential"
            if form(module) == "cell":
                raise _refusal(module, f"{here}, and one step at a time is no sequence")
            if not module.batch_first:
                raise _refusal(
                    module, f"{here} and not batch_first", "Set batch_first=True; the weights stay as they are."
                )
            if len(outputs_of(layer.spec)) > 1 and place != places[-1][0]:
                way_out = (
                    "Use gatewise_torch's layer with return_state=False, which takes the same state dict. It gives all "
                    "steps, as this one does: go on taking out[:, -1]."
                )
                if layer.spec.bidirectional:
                    way_out += (
                        " Do not set return_sequences=False in its place: of the backward direction that is the output "
                        "behind its last step, out[:, 0], and another function than out[:, -1]."
                    )
                raise _refusal(module, f"{here} and gives more than the next one can read, such as states", way_out)
        first = next((known for known, other in modules.items() if other is module), "")
        if first:
            layer = dataclasses.replace(layer, shares=first, resumes=first if layer.keeps else "")
        else:
            modules[name] = module
        if source is None:
            source = cast(Input, own.layers[0].spec)
        layers.append(layer)
    if source is None:
        raise _refusal(obj, "no module in it says how large its input is", "Put a layer with weights into it.")
    if any(isinstance(layer.spec, Recurrent) for layer in layers) and not source.integer:
        source = Input((None, source.shape[-1]), batch=source.batch)
    return Network((Layer("input", source), *layers)), modules


def _unnested(obj: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the modules of an ``nn.Sequential`` by their places, and those of one within it in its place."""
    from torch import nn

    for name, module in obj._modules.items():  # named_children leaves out one that stands twice
        if type(module) is nn.Sequential:
            yield from _unnested(module, f"{before}{name}.")
        elif type(module) is not nn.Identity:
            yield before + name, module


def _weightless(module: Any) -> Dropout | Activation | None:
    """Return the spec of a module without weights that works number by number, and of another None."""
    from torch import nn

    if type(module) is nn.Dropout:
        return Dropout(float(module.p))
    if type(module) is nn.LeakyReLU:
        return Activation(with_number("leaky_relu", float(module.negative_slope)))
    if type(module) is nn.ELU:
        return Activation(with_number("elu", float(module.alpha)))
    name = ACTIVATION_MODULES.get(type(module).__name__)
    if name is None or type(module).__module__ != "torch.nn.modules.activation":
        return None
    usual = {key: value for key, value in vars(type(module)()).items() if not key.startswith("_")}
    for option, value in (usual | NEEDED.get(name, {})).items():
        if option not in ("inplace", "training") and getattr(module, option) != value:
            why = f"it has {option}={getattr(module, option)!r}, and {name} in Keras is {option}={value!r}"
            raise _refusal(module, why)
    return Activation(name)


def _refusal(
    obj: Any, why: str, way_out: str = "Port its layers one by one, and connect them in the other framework."
) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{_class_name(obj)} is not supported: {why}.",
        "Supported: nn.LSTM, nn.GRU, nn.RNN, their cells, nn.Linear, nn.Embedding, nn.LayerNorm, the layers of "
        "gatewise_torch, an nn.Sequential of these with nn.Dropout and activations, and models that gatewise built.",
        way_out,
    )


def _class_name(obj: Any) -> str:
    """Return the name of a module's class as a person writes it: ``nn.Linear``, ``torch.ao.nn.quantized.LSTM``."""
    kind = type(obj)
    package = re.sub(r"\.modules\b.*", "", kind.__module__)
    return f"{package.replace('torch.nn', 'nn')}.{kind.__name__}" if package.startswith("torch.") else kind.__name__


def norm_spec(obj: Any) -> BatchNorm | LayerNorm | None:
    """Return the spec of a normalisation over the last axis, and of other modules None."""
    from torch import nn

    from gatewise_torch.normalisation import BatchNorm as Normalising

    if type(obj) is not Normalising and not (type(obj) is nn.LayerNorm and len(obj.normalized_shape) == 1):
        return None
    options = {"scale": obj.weight is not None, "shift": obj.bias is not None}
    if isinstance(obj, nn.LayerNorm):
        return LayerNorm(obj.normalized_shape[0], **options, epsilon=obj.eps)
    return BatchNorm(obj.features, **options, epsilon=obj.epsilon, momentum=obj.momentum)


def attention_spec(obj: Any) -> Attending | None:
    """Return the spec of an attention of ``gatewise_torch``, and of other modules None."""
    from gatewise_torch import attention

    options: dict[str, Any] = {name: getattr(obj, name, None) for name in ("dropout", "causal", "return_scores")}
    if type(obj) is attention.Attention:
        return Attention(score=obj.by, scale=obj.scale is not None, **options)
    if type(obj) is attention.AdditiveAttention:
        return AdditiveAttention(obj.features, scale=obj.scale is not None, **options)
    return None


def _pair(source: Input, layer: Layer) -> Network:
    return Network((Layer("input", source), layer))


def _with_frozen(model: Any) -> Network:
    """Return a model's network, each layer as trainable as its parameters are now."""
    layers = []
    for layer in model.network.layers:
        native = model.native(layer.name) if layer.spec.cell else None
        parameters = [] if native is None else list(native.parameters())
        trainable = not parameters or any(parameter.requires_grad for parameter in parameters)
        trainable = trainable and not getattr(native, "frozen", False)
        layers.append(dataclasses.replace(layer, trainable=trainable))
    network: Network = model.network
    return dataclasses.replace(network, layers=tuple(layers))


def is_general(obj: Any) -> bool:
    """Say whether a module is one of the general layers of ``gatewise_torch``."""
    return type(obj).__module__ == "gatewise_torch.modules" and type(obj).__name__ in KINDS


def recurrent_spec(obj: Any) -> Recurrent:
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
        "stateful zero_output_for_mask peepholes cell_clip dropout_masks"
    ).split()
    known = KINDS[name].fields
    options |= {option: getattr(obj, option) for option in names if option in known}
    # A forget bias that is added at run time is a bias, also where none is stored.
    options["bias"] = options["bias"] or bool(obj.forget_bias and name == "LSTM")
    for option in ("activation", "recurrent_activation"):
        if callable(options.get(option)):
            way_out = f"Build the layer with {option} by name, where its function has one."
            raise _refusal(obj, f"its {option} is a function, which has no name elsewhere", way_out)
    return KINDS[name](obj.input_size, obj.hidden_size, **options, dropout=float(obj.input_dropout))


def natives(obj: Any) -> dict[str, Any]:
    """Return the layers of an object by the names that ``describe`` gives them."""
    network = describe(obj)
    if is_chain(obj):
        return chain(obj)[1]
    if hasattr(obj, "native"):
        return {
            layer.name: obj.native(layer.name)
            for layer in network.layers
            if not isinstance(layer.spec, Input | Constant) and not layer.shares
        }
    return {network.layers[-1].name: obj}


def layout_of(native: Any, usual: Layout) -> Layout:
    """Return the layout of one native: the usual one, unless it is a general layer with one bias or a forget bias."""
    bias = getattr(native, "bias", True)
    forget_bias = float(getattr(native, "forget_bias", 0.0)) if usual.cell == "lstm" else 0.0
    if bias != "single" and not forget_bias:
        return usual
    general: dict[str, list[Layout]] = {}
    for layout in (GENERAL_LSTM, GENERAL_LSTM_FULL, GENERAL_GRU, GENERAL_RNN):
        general.setdefault(layout.cell, []).append(layout)
    full = getattr(native, "peepholes", False) == "full"
    return variant(
        general[usual.cell][full],
        bias=bias if isinstance(bias, str) else "dual" if bias else "none",
        forget_bias=forget_bias,
    )


def inventory(obj: Any) -> Inventory:
    """Return what a module holds, known layers and unknown ones."""
    from gatewise_torch import inventory as listing

    return listing.inventory(obj)


def remarks(obj: Any) -> list[str]:
    """Return what a port leaves behind, a sentence each."""
    said = [
        f"{name or type(module).__name__.lower()}: {LEFT_STATES}"
        for name, module in obj.named_modules()
        if is_general(module) and module._kept is not None and any(bool(part.any()) for part in module._kept)
    ]
    if hasattr(obj, "native"):
        return [*said, *_unread(obj.network)]
    return said


def calling(obj: Any) -> dict[str, str]:
    """Return how a module is called, by aspect."""
    found = {"axes": "batch first"}
    if form(obj) == "cell":
        pair = type(obj).__name__ == "LSTMCell"
        return found | {"cell": "cell(input, (h, c)) → (h, c)" if pair else "cell(input, h) → h"}
    if form(obj) == "stack":
        last = list(_unnested(obj))[-1][1] if is_chain(obj) else obj
        name = "h_n, c_n" if type(last).__name__ == "LSTM" else "h_n"
        if getattr(last, "return_state", True):
            found["states"] = f"{name} of (layers × directions, batch, units)"
        if not last.batch_first:
            found["axes"] = "time first (batch_first=False)"
    elif hasattr(obj, "native") and any(
        "state_" in outputs_of(obj.network[name].spec)[number] for name, number in map(source_of, obj.network.results)
    ):
        found["states"] = "one array of (batch, units) for each state"
    if is_chain(obj) and not any(isinstance(layer.spec, Recurrent) for layer in chain(obj)[0].layers):
        found["rank"] = "any number of axes"
    return found


def _unread(network: Network) -> Iterator[str]:
    """Yield what a port leaves behind of the penalties on outputs: those on one that nothing reads."""
    read = {*network.results, *(reference for layer in network.layers for reference in layer.inputs)}
    for layer in network.layers:
        for rule in layer.rules:
            _, colon, number = rule.weight.partition(":")
            if colon and f"{layer.name}:{number}" not in read:
                why = f"acts on output {number} alone, which nothing reads"
                yield f"{layer.name}: activity_regularizer={rule.name} {why}, and is not carried over."


def form(obj: Any) -> str:
    """Say how an object is called: as a stack with its states side by side, or as a model."""
    if is_chain(obj):
        last = list(_unnested(obj))[-1:]
        stacked = [hasattr(one, "num_layers") and getattr(one, "return_state", True) for _, one in last]
        return "stack" if stacked == [True] else "model"
    if hasattr(obj, "native"):
        return "model"
    return "stack" if hasattr(obj, "num_layers") else "cell" if hasattr(obj, "hidden_size") else "layer"


def assemble(network: Network, *, dtype: str = "float32", form: str = "model") -> tuple[Any, dict[str, Any]]:
    """Build a module for a network, in eval mode; return it with the module of each layer."""
    import torch

    from gatewise_torch.model import Model, make

    kind = getattr(torch, dtype)
    [*_, last] = network.layers
    options = last.spec.options()
    alone_will_do = (
        last.spec.cell in ("dense", "embedding", "layernorm", "batchnorm")
        and options.get("activation", "linear") == "linear"
    )
    alone_will_do = alone_will_do and not last.rules  # A model carries them.
    if form == "cell":
        assert isinstance(last.spec, Recurrent)
        cell = make_cell(last.spec, kind).eval()
        return cell, {last.name: cell}
    single = sum(not isinstance(layer.spec, Input) for layer in network.layers) == 1
    bare = (form == "stack" and single) or (form == "layer" and alone_will_do and not options.get("mask_zero"))
    if bare and len(network.weighted) == 1:
        # Alone, torch's own layer gives all it has: every output, both directions side by side, and the states.
        usual = {"go_backwards": False, "return_sequences": True, "return_state": True}
        whole = all(options.get(name, value) == value for name, value in usual.items())
        whole = whole and not (options.get("bidirectional") and options["merge"] != "concat")
        alone = make(last.spec, dtype=kind, general=not whole).eval()
        return alone, {last.name: alone}
    model = Model(network, dtype=kind).eval()
    return model, {
        layer.name: model.native(layer.name)
        for layer in network.layers
        if not isinstance(layer.spec, Input | Constant) and not layer.shares
    }


def call(obj: Any, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
    """Return all outputs of a module, in the order that ``describe`` gives them.

    Args:
        obj: The module; a stateful one forgets first.
        inputs: One array for each input, batch first.
        states: Initial states of the recurrent layer, (batch, size) each.
    """
    with evaluating(obj):
        given = [tensor(obj, array) for array in inputs]
        start = None if states is None else [tensor(obj, array) for array in states]
        return [np.array(each.cpu().numpy()) for each in outputs(obj, given, start)]


def call_again(obj: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what ``call`` gives where the states that the call before left go on."""
    with evaluating(obj):
        given = [tensor(obj, array) for array in inputs]
        return [np.array(each.cpu().numpy()) for each in outputs(obj, given, forgets=False)]


def outputs(
    obj: Any, given: Sequence[torch.Tensor], start: Sequence[torch.Tensor] | None = None, *, forgets: bool = True
) -> list[torch.Tensor]:
    """Return what ``call`` gives, as tensors of the graph; gradients and dropout are as the caller has set them.

    ``forgets`` says whether a stateful module forgets before.
    """
    from gatewise_torch.model import gather

    for module in (obj if is_chain(obj) else [obj]) if forgets else ():
        if hasattr(module, "reset_state"):
            module.reset_state()
    if form(obj) == "cell":
        pair = type(obj).__name__ == "LSTMCell"
        new = obj(given[0], None if start is None else tuple(start) if pair else start[0])
        return [new[0], *new] if pair else [new, new]
    if is_chain(obj) or form(obj) != "stack":
        made = obj(*given, **({"states": start} if start is not None else {}))
        if is_chain(obj):
            return _flat(made, list(_unnested(obj))[-1][1])
        tree = obj.network.gives if hasattr(obj, "native") else None
        if tree is not None:
            return unpack(tree, made) or []
        return made if isinstance(made, list) else [made]
    time_first = not obj.batch_first
    source = given[0].transpose(0, 1) if time_first else given[0]
    made = obj(source, None if start is None else gather(recurrent_spec(obj), start))
    return _flat(made, obj)


def _flat(made: Any, module: Any) -> list[torch.Tensor]:
    """Return what a stack gives as a list, outputs and then states, batch first."""
    from gatewise_torch.model import spread

    output, state = made if isinstance(made, tuple) and getattr(module, "return_state", True) else (made, ())
    flat = list(output) if isinstance(output, tuple) else [output]
    if not getattr(module, "batch_first", True) and getattr(module, "return_sequences", True):
        flat = [each.transpose(0, 1) for each in flat]
    return flat + (spread(state) if not isinstance(state, tuple) or state else [])


def gradients(
    obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, dict[str, dict[str, np.ndarray]], list[np.ndarray | None]]:
    """Return the loss in training and its gradients, without dropout."""
    from gatewise_torch import training

    return training.gradients(obj, inputs, targets)


def train(obj: Any, batches: Sequence[Any], **settings: Any) -> list[float]:
    """Train a module in place by Adam, without dropout; return the loss at each step."""
    from gatewise_torch import training

    return training.train(obj, batches, **settings)


def twin(obj: Any, dtype: str) -> Any:
    """Return a copy of a module, in a type of numbers."""
    import torch

    made = copy.deepcopy(obj).to(getattr(torch, dtype))
    for module in made.modules():
        if isinstance(module, torch.nn.RNNBase):
            module.flatten_parameters()  # on a GPU a copy is not, and torch warns of it at each call
    return made


def takes_states(obj: Any) -> bool:
    """Say whether ``call`` can start from given states: where there is one recurrent layer, and no other."""
    recurrent = [isinstance(layer.spec, Recurrent) for layer in describe(obj).layers if layer.spec.cell]
    return recurrent == [True] and not is_chain(obj)


def dtype_of(obj: Any) -> str:
    """Return the type of the numbers that a module computes with."""
    weights = (each for each in (*obj.parameters(), *obj.buffers()) if each.is_floating_point())
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in weights}
    return next(iter(kinds)) if len(kinds) == 1 else "float32"


def computes_in_double() -> bool:
    """Say whether float64 modules compute in float64 here."""
    return True


def state_arrays(obj: Any) -> dict[str, np.ndarray]:
    """Return the whole state dict of a module as arrays."""
    return {name: value.detach().cpu().numpy() for name, value in obj.state_dict().items()}
