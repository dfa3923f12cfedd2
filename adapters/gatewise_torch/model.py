"""A network as one torch module: ordinary submodules under readable names, run in the network's order."""

from __future__ import annotations

import dataclasses
import itertools
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gatewise.core.between import (
    Activation,
    Constant,
    Dot,
    Dropout,
    Flip,
    Input,
    Masking,
    Merge,
    Noise,
    Operation,
    Pool,
    Remask,
    Rescale,
    Softmax,
)
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.spec import Attending, BatchNorm, Conv, Dense, Embedding, LayerNorm, Recurrent, Spec, is_beside
from gatewise.core.tree import pack, unpack, written
from gatewise.errors import ShapeError, TokenError, UnsupportedModelError
from gatewise_torch.activations import activation
from gatewise_torch.attention import dotted, softmaxed
from gatewise_torch.operations import operated
from gatewise_torch.steps import MOVED, convolved

FUSED = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
"""Cell → torch's own layer for it."""


def fits_torch(spec: Recurrent, *, masked: bool = False) -> bool:
    """Say whether torch's own layer computes this; merging and the choice of outputs are done around it."""
    options = spec.options()
    plain = all(
        not options.get(name) for name in ("dropout", "recurrent_dropout", "stateful", "peepholes", "cell_clip")
    )
    activations = ("tanh", "relu") if spec.cell == "rnn" else ("tanh",)
    return (
        plain
        and not masked
        and spec.activation in activations
        and options.get("recurrent_activation", "sigmoid") == "sigmoid"
        and options.get("reset", "after") == "after"
        and not (spec.layers > 1 and (spec.merge != "concat" or spec.go_backwards))
        and not (spec.state >= spec.units and options.get("projection") is not None)
    )


def make(spec: Spec, *, masked: bool = False, dtype: torch.dtype | None = None, general: bool = False) -> nn.Module:
    """Return the torch module for one layer: ``nn.LSTM`` and the like where they can compute it, else the general one.

    Args:
        spec: The layer.
        masked: Whether a mask reaches it, which torch's own layers do not take.
        dtype: Type of the weights.
        general: Whether it is the general one, whatever torch can compute.

    >>> from gatewise.core.spec import LSTM
    >>> type(make(LSTM(3, 5))), type(make(LSTM(3, 5, activation="relu")))
    (<class 'torch.nn.modules.rnn.LSTM'>, <class 'gatewise_torch.modules.LSTM'>)
    """
    if isinstance(spec, Recurrent):
        options = spec.options()
        common: dict[str, Any] = {
            "num_layers": spec.layers,
            "bias": spec.bias,
            "batch_first": True,
            "dropout": spec.dropout_between,
            "bidirectional": spec.bidirectional,
            "dtype": dtype,
        }
        if options.get("projection") is not None:
            common["proj_size"] = options["projection"]
        if fits_torch(spec, masked=masked) and not general:
            if spec.cell == "rnn":
                common["nonlinearity"] = spec.activation
            return cast(nn.Module, FUSED[spec.cell](spec.features, spec.units, **common))
        from gatewise_torch import modules

        kind: Any = getattr(modules, spec.cell.upper())
        names = (
            "activation recurrent_activation reset recurrent_dropout go_backwards merge return_sequences stateful "
            "zero_output_for_mask peepholes cell_clip dropout_masks"
        ).split()
        # Within a model the states are asked for, and it leaves them out.
        names += ["return_state"] if general else []
        more = {name: options[name] for name in names if name in options}
        made: nn.Module = kind(spec.features, spec.units, **common, **more, input_dropout=spec.dropout)
        return made
    if isinstance(spec, Dense):
        return nn.Linear(spec.features, spec.units, bias=spec.bias, dtype=dtype)
    if isinstance(spec, Embedding):
        return nn.Embedding(spec.tokens, spec.units, dtype=dtype)
    if isinstance(spec, Conv):
        options = spec.options()
        common = {name: options[name] for name in ("dilation", "groups", "bias")} | {"stride": options["strides"]}
        convolution: Any = {1: nn.Conv1d, 2: nn.Conv2d}[spec.axes]
        return cast(nn.Module, convolution(spec.features, spec.units, spec.sizes, **common, dtype=dtype))
    if isinstance(spec, BatchNorm):
        from gatewise_torch.normalisation import BatchNorm as Normalising

        return Normalising(**spec.options(), dtype=dtype)
    if isinstance(spec, Rescale | Noise):
        from gatewise_torch import normalisation

        if isinstance(spec, Noise):
            return normalisation.Noise(**spec.options())
        return normalisation.Rescale(**spec.options(), dtype=dtype)
    if isinstance(spec, LayerNorm):
        norm = nn.LayerNorm(spec.features, spec.epsilon, elementwise_affine=spec.scale or spec.shift, dtype=dtype)
        for name, there in (("weight", spec.scale), ("bias", spec.shift)):
            if not there:
                norm.register_parameter(name, None)
        return norm
    if isinstance(spec, Attending):
        from gatewise_torch import attention

        attending: nn.Module = getattr(attention, type(spec).__name__)(**spec.options(), dtype=dtype)
        return attending
    if isinstance(spec, Dropout):
        return nn.Dropout1d(spec.rate) if spec.whole else nn.Dropout(spec.rate)
    return nn.Identity()


def attribute_names(network: Network) -> dict[str, str]:
    """Return layer → the attribute of a model that holds its submodule: the same name, made fit for Python.

    >>> attribute_names(Network.chain(Input((None, 3)), Dense(3, 5)))
    {'input': 'input', 'dense': 'dense'}
    """
    taken = set(dir(nn.Module)) | {"network", "training"}
    names = {}
    for layer in network.layers:
        name = "".join(sign if sign.isalnum() else "_" for sign in layer.name) or "layer"
        name = f"layer_{name}" if not name.isidentifier() else name
        while name in taken or keyword.iskeyword(name):
            name += "_"
        taken.add(name)
        names[layer.name] = name
    return names


def masked_layers(network: Network) -> set[str]:
    """Return the layers with weights that a mask reaches: behind a Masking or a masking Embedding, or given by hand."""
    carries: dict[str, bool] = {}
    reached = set()
    for layer in network.layers:
        above = bool(layer.mask) or any(carries[source_of(reference)[0]] for reference in layer.masked_by)
        if above and layer.masked:
            reached.add(layer.owner)
        carries[layer.name] = layer.passes_mask(above)
    return reached


class _Going(NamedTuple):
    """What there is while a network runs.

    Attributes:
        waiting: The inputs that are still to come.
        states: The first states that the caller gave, or None.
        values: Layer → what it gave.
        masks: Layer → the mask that goes on from it, or None.
    """

    waiting: list[Tensor]
    states: Sequence[Tensor] | None
    values: dict[str, list[Tensor]]
    masks: dict[str, Tensor | None]


class Model(nn.Module):
    """A network that runs as a torch module and is called like the model it came from: batch first.

    Args:
        network: What to build.
        dtype: Type of the weights.

    Each layer is a submodule under its own name; where ``nn.LSTM``, ``nn.Linear`` or ``nn.Embedding`` can compute a
    layer, the submodule is one. ``activity`` is the penalty on what layers gave at the last call, where there is one.

    >>> from gatewise.core.spec import LSTM
    >>> model = Model(Network.chain(Input((None, 3)), LSTM(3, 5, return_state=False), Dense(5, 1)))
    >>> model(torch.zeros(2, 7, 3)).shape
    torch.Size([2, 7, 1])
    """

    def __init__(self, network: Network, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.network = network
        self._names = attribute_names(network)
        self._regularised = any(rule.kind == "activity" for layer in network.layers for rule in layer.rules)
        self.activity: Tensor | None = None
        masked = masked_layers(network)
        self._interleaved = network.interleaved
        self._runners = {layer.name: self._names[_runner(network, layer)] for layer in network.layers}
        for layer in network.layers:
            if isinstance(layer.spec, Constant):
                self.register_buffer(self._names[layer.name], _constant(layer.spec, dtype), persistent=False)
            elif not isinstance(layer.spec, Input) and self._runners[layer.name] == self._names[layer.name]:
                module = make(layer.spec, masked=layer.owner in masked, dtype=dtype)
                if layer.shares:
                    # It runs one cell otherwise, or keeps states of its own: its parameters are those of the first.
                    for name, parameter in self.native(layer.name).named_parameters():
                        setattr(module, name, parameter)
                self.add_module(self._names[layer.name], module)

    def native(self, layer: str) -> nn.Module:
        """Return the submodule of a layer: where it shares its weights, that of the layer that has them."""
        return self.get_submodule(self._names[self.network[layer].owner])

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to the last call."""
        return {**self.__dict__, "activity": None}

    def reset_state(self) -> None:
        """Make stateful layers forget."""
        for module in self.modules():
            if module is not self and hasattr(module, "reset_state"):
                cast(Any, module).reset_state()

    def forward(self, *inputs: Any, states: Sequence[Tensor] | None = None, mask: Any = None, **named: Tensor) -> Any:
        """Run the network.

        Args:
            inputs: One tensor for each input, batch first: ``model(a, b)`` or ``model([a, b])``; or one dict of them,
                by the names of the inputs or as the model that it came from takes them.
            states: Initial states for the one recurrent layer of the network, (batch, size) each.
            mask: As Keras takes it, ``model(x, mask=…)``: (batch, steps), true where a step counts; of several inputs a
                list with one or None for each.
            named: The inputs by name: ``model(left=a, right=b)``.

        Returns:
            One tensor, or a list where the network has several outputs; or what the model that it came from returns, a
            tuple or dict, nested as there.

        Raises:
            ShapeError: The inputs are not those of the network.
            UnsupportedModelError: It cannot follow a mask from outside.
        """
        going = _Going(self._flat(inputs, named), states, {}, {} if mask is None else self._masks_given(mask))
        self.activity = None
        self._walk(self.network.layers, going)
        if self._regularised:
            from gatewise_torch.regularisation import activity_penalty

            self.activity = activity_penalty(self.network, going.values)
        results = [going.values[name][number] for name, number in map(source_of, self.network.results)]
        if self.network.gives is not None:
            return pack(self.network.gives, results)
        return results[0] if len(results) == 1 else results

    def _flat(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> list[Any]:
        """Return one tensor for each input, in order, however they were given."""
        names = [layer.name for layer in self.network.sources]
        given: Any = inputs
        if len(inputs) == 1 and not named and isinstance(inputs[0], list | tuple | dict):
            given = inputs[0] if not isinstance(inputs[0], nn.utils.rnn.PackedSequence) else inputs
        elif named and not inputs:
            given = named
        elif named:
            given = None
        flat = None
        if given is not None and self.network.takes is not None:
            flat = unpack(self.network.takes, given)
        if flat is None and isinstance(given, Mapping) and set(given) == set(names):
            flat = [given[name] for name in names]
        if flat is None and isinstance(given, list | tuple) and len(given) == len(names):
            flat = list(given)
        if flat is None:
            met = "Some inputs by position and some by name" if given is None else f"{len(given)} inputs"
            if isinstance(given, Mapping):
                met = f"Inputs named {', '.join(map(repr, given))}"
            takes = "" if self.network.takes is None else f", or as {written(self.network.takes, names)}"
            raise ShapeError(
                f"{met} for {len(names)}.",
                f"The network reads {', '.join(names)}{takes}.",
                "Give one tensor for each: in this order, in a list, or each by name.",
            )
        return flat

    def _masks_given(self, mask: Any) -> dict[str, Tensor | None]:
        """Return input → the mask that it is given from outside, or None."""
        for layer in self.network.layers:
            if layer.distributed or layer.spec.options().get("go_backwards"):
                what = "runs on each step of a further axis" if layer.distributed else "reads backwards"
                raise UnsupportedModelError(
                    f"A mask from outside is not supported here: layer {layer.name!r} {what}.",
                    "Model: layers were put together for the masks that the model itself makes.",
                    "Mask within the source model, by Masking or an Input of dtype='bool', and port it again.",
                )
        names = [layer.name for layer in self.network.sources]
        given = list(mask) if isinstance(mask, list | tuple) else [mask]
        if len(given) != len(names) or not all(each is None or isinstance(each, Tensor) for each in given):
            raise ShapeError(
                f"{len(given)} masks for {len(names)} inputs.",
                f"The network reads {', '.join(names)}; a mask is a tensor (batch, steps), or None.",
                "Give one for each input: mask=[a, None].",
            )
        return {name: None if each is None else each != 0 for name, each in zip(names, given, strict=True)}

    def _walk(self, layers: Sequence[Layer], going: _Going) -> None:
        """Run layers, each behind those it reads."""
        later = frozenset[str]().union(*(self._interleaved.get(layer.name, ()) for layer in layers))
        for layer in layers:
            if layer.name in later:
                continue
            if layer.name in self._interleaved:
                names = self._interleaved[layer.name]
                self._walk_step_by_step(layer, [each for each in layers if each.name in names], going)
            self._take(layer, going)

    def _walk_step_by_step(self, end: Layer, model: Sequence[Layer], going: _Going) -> None:
        """Run the layers of a model on one step after the other, each step by all of them."""
        axes, names = end.distributed + 1, [layer.name for layer in model]
        references = [source_of(each) for layer in model for each in (*layer.inputs, layer.mask) if each]
        read = {(name, number) for name, number in references if name not in names}
        within = [dataclasses.replace(layer, distributed=max(layer.distributed - axes, 0)) for layer in model]
        name, number = source_of(end.inputs[1])
        shape = going.values[name][number].shape[: 1 + axes]
        made: dict[str, list[list[Tensor]]] = {name: [] for name in names}
        for place in itertools.product(*map(range, shape[1:])):
            step: Any = (slice(None), *place)
            values: dict[str, list[Tensor]] = {}
            masks: dict[str, Tensor | None] = {}
            for name, number in read:
                mask = going.masks[name]
                values.setdefault(name, [*going.values[name]])[number] = going.values[name][number][step]
                masks[name] = None if mask is None or mask.ndim < 2 + axes else mask[step]
            self._walk(within, _Going(going.waiting, None, values, masks))
            for name in names:
                made[name].append(values[name])
        for name, steps in made.items():
            stacked = [torch.stack(each, 1) for each in zip(*steps, strict=True)]
            going.values[name] = [each.reshape(*shape, *each.shape[2:]) for each in stacked]

    def _take(self, layer: Layer, going: _Going) -> None:
        """Run one layer on what it reads, and add what it gives."""
        values, masks = going.values, going.masks
        if isinstance(layer.spec, Input):
            values[layer.name] = [_checked(layer.name, layer.spec, going.waiting.pop(0))]
            masks.setdefault(layer.name, None)
            return
        if isinstance(layer.spec, Constant):
            values[layer.name], masks[layer.name] = [self.get_buffer(self._names[layer.name])], None
            return

        def mask_with(reference: str) -> Tensor | None:
            name, number = source_of(reference)
            return None if is_beside(self.network[name].spec, number) else masks[name]

        value, *first = [values[name][number] for name, number in map(source_of, layer.inputs)]
        mask = mask_with(layer.masked_by[0])
        if layer.mask:
            name, number = source_of(layer.mask)
            mask = values[name][number] != 0
        if isinstance(layer.spec, Merge):
            among = [mask, *map(mask_with, layer.inputs[1:])]
            followed = among if layer.masked else [None] * len(among)
            values[layer.name] = [joined([value, *first], layer, followed)]
            masks[layer.name] = _mask_of_several(layer, [value, *first], among)
        elif isinstance(layer.spec, Remask):
            values[layer.name], masks[layer.name] = [value], mask
        elif isinstance(layer.spec, Operation | Dot | Attending):
            among = [mask, *map(mask_with, layer.inputs[1:])]
            values[layer.name] = self._run_on_several(layer, [value, *first], among)
            masks[layer.name] = mask if isinstance(layer.spec, Attending) else None
        else:
            given = going.states
            if first:
                given = [_on_each_step(state, value.shape[1 : 1 + layer.distributed]) for state in first]
            values[layer.name], masks[layer.name] = self._run_each(layer, value, mask, given, layer.distributed)

    def _run_on_several(self, layer: Layer, values: Sequence[Tensor], masks: Sequence[Tensor | None]) -> list[Tensor]:
        """Return what a layer gives that reads several tensors, on each step of some more time axes."""
        axes, shape = layer.distributed, values[0].shape[: 1 + layer.distributed]
        if axes:
            values = [value.flatten(0, axes) for value in values]
            masks = [None if mask is None or mask.ndim < 2 + axes else mask.flatten(0, axes) for mask in masks]
        made = self._of_several(layer, values, masks)
        return [each.reshape(*shape, *each.shape[1:]) for each in made] if axes else made

    def _of_several(self, layer: Layer, values: Sequence[Tensor], masks: Sequence[Tensor | None]) -> list[Tensor]:
        spec = layer.spec
        if isinstance(spec, Operation):
            return [operated(spec, values, self._dtype())]
        values = [value if value.is_floating_point() else value.to(self._dtype()) for value in values]
        if isinstance(spec, Dot):
            return [dotted(spec, *values)]
        module = self.get_submodule(self._runners[layer.name])
        made = module(*values, query_mask=masks[0], value_mask=masks[1])
        return list(made) if isinstance(made, tuple) else [made]

    def _dtype(self) -> torch.dtype:
        """Return the type of numbers with a point."""
        return next((each.dtype for each in self.parameters()), torch.get_default_dtype())

    def _run(
        self, layer: Layer, value: Tensor, mask: Tensor | None, states: Sequence[Tensor] | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return what a layer gives, and the mask that goes on from it."""
        spec, module = layer.spec, self.get_submodule(self._runners[layer.name])
        if isinstance(spec, Pool | Rescale | Noise | Softmax) or (spec.cell and not isinstance(spec, Embedding)):
            # Operations give whole numbers, too, and data come in other types; Keras's layers cast what they read.
            value = _cast(value, next((each.dtype for each in module.parameters()), None) or self._dtype())
        if isinstance(spec, Recurrent):
            states = states and [_cast(each, value.dtype) for each in states]
            _check_sequence(layer.name, spec, value)
            _check_states(layer.name, spec, value, states)
            outputs = _recur(spec, module, value, mask if layer.masked else None, states)
            return outputs, mask if spec.return_sequences else None
        if isinstance(spec, Flip):
            return [value.flip(1) if spec.values else value], mask
        if isinstance(spec, Embedding):
            # Keras takes tokens of any type, and cuts off what is behind the point.
            tokens = value if value.dtype in (torch.int32, torch.int64) else value.long()
            try:
                return [module(tokens)], (value != 0 if spec.mask_zero else None)
            except IndexError:
                raise _unknown_token(layer.name, spec, tokens) from None
        if isinstance(spec, Masking):
            mask = (value != spec.mask_value).any(-1)
            return [value * mask.unsqueeze(-1)], mask
        if type(spec) in MOVED:
            return [MOVED[type(spec)](spec, value, mask if layer.masked else None)], None
        if isinstance(spec, Softmax):
            out = softmaxed(spec, value, mask if layer.masked else None)
        elif isinstance(spec, Conv):
            out = convolved(spec, module, value)
        elif isinstance(spec, BatchNorm):
            out = module(value, mask)
        elif isinstance(spec, Dropout) and spec.whole:
            out = module(value.flatten(1, -2).transpose(1, 2)).transpose(1, 2).reshape(value.shape)
        else:
            out = module(value)
        if isinstance(spec, Dense | Conv | Activation):
            out = activation(spec.options()["activation"], layer.name, "activation").function(out)
        return [out], None if spec.ends_mask else mask

    def _run_each(
        self, layer: Layer, value: Tensor, mask: Tensor | None, states: Sequence[Tensor] | None, axes: int
    ) -> tuple[list[Tensor], Tensor | None]:
        """Run a layer on each step of some more time axes: the steps join the batch, and leave it again."""
        if not axes:
            outputs, behind = self._run(layer, value, mask, states)
            turned = isinstance(layer.spec, Flip) and layer.spec.mask
            return outputs, behind.flip(1) if turned and behind is not None else behind
        batch, steps = value.shape[:2]
        normalises = isinstance(layer.spec, BatchNorm) and self.training
        whole = states is not None and states[0].ndim > 2  # a state for each step
        if normalises or (isinstance(layer.spec, Recurrent) and layer.spec.stateful):
            # Its states, or its statistics in training, go on from one step to the next.
            done = [
                self._run_each(
                    layer,
                    value[:, step],
                    None if mask is None else mask[:, step],
                    [state[:, step] for state in states] if states and whole else states,
                    axes - 1,
                )
                for step in range(steps)
            ]
            made = [torch.stack(each, 1) for each in zip(*(outputs for outputs, _ in done), strict=True)]
            left = [behind for _, behind in done if behind is not None]
            return made, torch.stack(left, 1) if left else None
        # A mask of the steps that are gone through here says nothing of those within, and goes on as it came.
        within = mask.flatten(0, 1) if mask is not None and mask.ndim > 2 else None
        starts = [state.flatten(0, 1) for state in states] if states and whole else states
        outputs, behind = self._run_each(layer, value.flatten(0, 1), within, starts, axes - 1)
        if behind is not None:
            behind = behind.reshape(batch, steps, *behind.shape[1:])
        elif within is None and layer.passes_mask(True):
            behind = mask
        return [output.reshape(batch, steps, *output.shape[1:]) for output in outputs], behind

    def extra_repr(self) -> str:
        """Say what comes in and out."""
        return f"outputs={list(self.network.results)}"


def _unknown_token(name: str, spec: Embedding, tokens: Tensor) -> TokenError:
    wrong = tokens[(tokens < 0) | (tokens >= spec.tokens)].flatten()[0].item()
    return TokenError(
        f"Layer {name!r} reads the token {wrong}.",
        f"Its table has {spec.tokens} rows, for the tokens 0 to {spec.tokens - 1}.",
        "Keras gives some row or zeros for other tokens, by backend and device; map them to one that is known.",
    )


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return numbers in a type with a point; autocast has its own say in which."""
    if value.is_floating_point() and torch.is_autocast_enabled(value.device.type):
        return value
    return value.to(dtype)


def _runner(network: Network, layer: Layer) -> str:
    """Return the layer whose submodule runs this one: of one cell that is run otherwise there is one for each way."""
    if layer.spec.options().get("stateful"):
        return layer.keeper
    return layer.owner if layer.spec == network[layer.owner].spec else layer.name


def _constant(spec: Constant, dtype: torch.dtype | None) -> Tensor:
    return torch.tensor(spec.values, dtype=dtype or torch.get_default_dtype())


def _checked(name: str, spec: Input, value: Any) -> Tensor:
    """Return what an input is given, if it is a tensor of its width."""
    width = None if spec.integer or spec.boolean or not spec.shape else spec.shape[-1]
    if isinstance(value, Tensor) and (width is None or value.shape[-1:] == (width,)):
        return value
    met = f"has shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"is a {type(value).__name__}"
    hint = "Was the model made for other inputs?" if isinstance(value, Tensor) else "Give torch.as_tensor(…)."
    if isinstance(value, nn.utils.rnn.PackedSequence):
        hint = "Give what pad_packed_sequence(…, batch_first=True) makes of it, and let the model mask what is padded."
    raise ShapeError(
        f"Input {name!r} {met}.",
        f"It takes a tensor (batch, {', '.join(str(size or 'any') for size in spec.shape)}).",
        hint,
    )


def _check_sequence(name: str, spec: Recurrent, value: Tensor) -> None:
    """Refuse what is no batch of sequences, which torch's own layers would read otherwise."""
    if value.ndim != 3 or not value.shape[1]:
        raise ShapeError(
            f"Layer {name!r} reads a tensor of shape {tuple(value.shape)}.",
            f"It reads (batch, steps, {spec.features}), and at least one step.",
            "For a batch of one: input.unsqueeze(0)." if value.ndim == 2 else "Leave an empty sequence out.",
        )


def _check_states(name: str, spec: Recurrent, value: Tensor, states: Sequence[Tensor] | None) -> None:
    """Refuse first states of other shapes than a layer has."""
    if states is None:
        return
    sizes = ([spec.state, spec.units] if spec.cell == "lstm" else [spec.state]) * (spec.layers * spec.directions)
    wanted, met = [(len(value), size) for size in sizes], [tuple(state.shape) for state in states]
    if met != wanted:
        raise ShapeError(
            f"Layer {name!r} starts from states of shape {', '.join(map(str, met))}.",
            f"Its states are (batch, size): {', '.join(map(str, wanted))}.",
            "Give one for each, in the order in which it returns them.",
        )


def _recur(
    spec: Recurrent, module: nn.Module, value: Tensor, mask: Tensor | None, states: Sequence[Tensor] | None
) -> list[Tensor]:
    """Run a recurrent layer; return its output, or two where directions stay apart, then its states one by one."""
    start = None if states is None else gather(spec, states)
    if mask is not None and type(module) in FUSED.values():
        module = _following_masks(spec, module)  # a mask from outside, where the model itself makes none
    if type(module) in FUSED.values():
        output, state = module(value.flip(1) if spec.go_backwards else value, start)
        halves = list(torch.split(output, spec.state, -1)) if spec.bidirectional else [output]
        if not spec.return_sequences:
            # The backward half ends at the first step, so the last step of the output is not its last output.
            halves = [halves[0][:, -1], *(half[:, 0] for half in halves[1:])]
        outputs = merged(halves, spec.merge)
    else:
        output, state = module(value, start, mask=mask)
        outputs = list(output) if isinstance(output, tuple) else [output]
    return outputs + (spread(state) if spec.return_state else [])


def _following_masks(spec: Recurrent, module: nn.Module) -> nn.Module:
    """Return the general layer with the parameters of torch's own, which takes no mask."""
    with torch.device("meta"):
        general = make(spec, masked=True)
    for name, parameter in module.named_parameters():
        setattr(general, name, parameter)
    return general.train(module.training)


def merged(halves: list[Tensor], merge: str | None) -> list[Tensor]:
    """Make one output of two directions, or leave them apart."""
    if len(halves) == 1 or merge is None:
        return halves
    forward, backward = halves
    if merge == "concat":
        return [torch.cat([forward, backward], -1)]
    if merge == "mul":
        return [forward * backward]
    total = forward + backward
    return [total / 2 if merge == "ave" else total]


def joined(parts: Sequence[Tensor], layer: Layer, masks: Sequence[Tensor | None]) -> Tensor:
    """Make one tensor of several, each with a mask or None."""
    spec = layer.spec
    assert isinstance(spec, Merge)
    if spec.merge == "concat":
        return torch.cat(list(parts), layer.axis)
    whole = [None if mask is None else mask.unsqueeze(-1) for mask in masks]
    made, behind = parts[0], whole[0]
    if spec.merge == "mul" and behind is not None:
        made = torch.where(behind, made, 1.0)
    for part, mask in zip(parts[1:], whole[1:], strict=True):
        other = part
        if spec.merge in ("max", "min"):
            # A step is taken from the parts in which it counts, as Keras takes it: one part after the other.
            other = other if mask is None else torch.where(mask, other, made)
            made = made if behind is None else torch.where(behind, made, other)
        elif spec.merge == "mul" and mask is not None:
            other = torch.where(mask, other, 1.0)
        made = _JOINED[spec.merge](made, other)
        behind = None if mask is None or behind is None else behind | mask
    if spec.merge == "mul" and behind is not None:
        made = torch.where(behind, made, 0.0)
    return made / len(parts) if spec.merge == "ave" else made


_JOINED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "mul": torch.mul,
    "ave": torch.add,
    "sub": torch.sub,
    "max": torch.maximum,
    "min": torch.minimum,
}


def _on_each_step(state: Tensor, axes: Sequence[int]) -> Tensor:
    """Return a first state for each step of some more time axes; one that has none is the same on each."""
    if state.ndim > 2 or not axes:
        return state
    return state.reshape(len(state), *(1 for _ in axes), -1).expand(-1, *axes, -1)


def _mask_of_several(layer: Layer, values: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor | None:
    """Return the mask of what is merged: a step counts where it does in any."""
    assert isinstance(layer.spec, Merge)
    known = [mask for mask in masks if mask is not None]
    if layer.spec.merge == "concat" and known and layer.spec.axis == 1 and values[0].ndim > 1 + layer.axis:
        return torch.cat(
            [
                value.new_ones(value.shape[: 1 + layer.axis], dtype=torch.bool) if mask is None else mask
                for value, mask in zip(values, masks, strict=True)
            ],
            layer.axis,
        )
    if len(known) < len(masks):
        return None
    if layer.spec.merge == "concat":
        # A mask of as many axes as its tensor, as of the characters of words, counts where any of it does.
        known = [mask.any(-1) if mask.ndim == value.ndim else mask for mask, value in zip(known, values, strict=True)]
    made = known[0]
    for mask in known[1:]:
        made = made | mask
    return made


def spread(state: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Take states of shape (layers * directions, batch, size) apart: h, c of the first, h, c of the second, …."""
    kinds = state if isinstance(state, tuple) else (state,)
    return [kind[place] for place in range(kinds[0].shape[0]) for kind in kinds]


def gather(spec: Recurrent, states: Sequence[Tensor]) -> Any:
    """Put states together as torch's layers take them: the inverse of ``spread``."""
    kinds = 2 if spec.cell == "lstm" else 1
    stacked = tuple(torch.stack(list(states)[kind::kinds]) for kind in range(kinds))
    return stacked if kinds == 2 else stacked[0]


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a module, and the statistics that it keeps, by name."""
    statistics = {name: buffer for name, buffer in module.named_buffers() if name.startswith("running_")}
    return {**dict(module.named_parameters()), **statistics}


def set_arrays(module: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Copy NumPy arrays into the weights of a module, by name; device and type stay."""
    own = weights_of(module)
    with torch.no_grad():
        for name, array in arrays.items():
            own[name].copy_(torch.tensor(array))
