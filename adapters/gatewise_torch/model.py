"""A network as one torch module: ordinary submodules under readable names, run in the network's order."""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gatewise.core.network import Layer, Network, source_of
from gatewise.core.spec import Activation, Dense, Dropout, Embedding, Input, Masking, Recurrent, Spec
from gatewise.errors import ShapeError
from gatewise_torch.activations import activation

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
            "zero_output_for_mask peepholes cell_clip"
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
    if isinstance(spec, Dropout):
        return nn.Dropout(spec.rate)
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
    """Return the layers that a mask reaches: what stands behind a Masking or a masking Embedding."""
    carries: dict[str, bool] = {}
    reached = set()
    for layer in network.layers:
        above = any(carries[source_of(reference)[0]] for reference in layer.inputs[:1])
        if above and layer.masked:
            reached.add(layer.name)
        starts = isinstance(layer.spec, Masking) or (isinstance(layer.spec, Embedding) and layer.spec.mask_zero)
        ends = isinstance(layer.spec, Recurrent) and not layer.spec.return_sequences
        carries[layer.name] = starts or (above and not ends)
    return reached


class Model(nn.Module):
    """A network that runs as a torch module and is called like the model it came from: batch first.

    Args:
        network: What to build.
        dtype: Type of the weights.

    Each layer is a submodule under its own name; where ``nn.LSTM``, ``nn.Linear`` or ``nn.Embedding`` can compute a
    layer, the submodule is one.

    >>> from gatewise.core.spec import LSTM
    >>> model = Model(Network.chain(Input((None, 3)), LSTM(3, 5, return_state=False), Dense(5, 1)))
    >>> model(torch.zeros(2, 7, 3)).shape
    torch.Size([2, 7, 1])
    """

    def __init__(self, network: Network, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.network = network
        self._names = attribute_names(network)
        masked = masked_layers(network)
        for layer in network.layers:
            if not isinstance(layer.spec, Input):
                self.add_module(self._names[layer.name], make(layer.spec, masked=layer.name in masked, dtype=dtype))

    def native(self, layer: str) -> nn.Module:
        """Return the submodule of a layer."""
        return self.get_submodule(self._names[layer])

    def reset_state(self) -> None:
        """Make stateful layers forget."""
        for module in self.modules():
            if module is not self and hasattr(module, "reset_state"):
                cast(Any, module).reset_state()

    def forward(self, *inputs: Tensor, states: Sequence[Tensor] | None = None) -> Any:
        """Run the network.

        Args:
            inputs: One tensor for each input, batch first.
            states: Initial states for the one recurrent layer of the network, (batch, size) each.

        Returns:
            One tensor, or a list where the network has several outputs.
        """
        sources = [layer for layer in self.network.layers if isinstance(layer.spec, Input)]
        if len(inputs) != len(sources):
            raise ShapeError(
                f"{len(inputs)} inputs for {len(sources)}.",
                f"The network reads {', '.join(layer.name for layer in sources)}.",
                "Give one tensor for each.",
            )
        values: dict[str, list[Tensor]] = {}
        masks: dict[str, Tensor | None] = {}
        waiting = list(inputs)
        for layer in self.network.layers:
            if isinstance(layer.spec, Input):
                values[layer.name], masks[layer.name] = [waiting.pop(0)], None
                continue
            value, *first = [values[name][number] for name, number in map(source_of, layer.inputs)]
            mask = masks[source_of(layer.inputs[0])[0]]
            run = self._run_each if layer.distributed else self._run
            values[layer.name], masks[layer.name] = run(layer, value, mask, first or states)
        results = [values[name][number] for name, number in map(source_of, self.network.results)]
        return results[0] if len(results) == 1 else results

    def _run(
        self, layer: Layer, value: Tensor, mask: Tensor | None, states: Sequence[Tensor] | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return what a layer gives, and the mask that goes on from it."""
        spec, module = layer.spec, self.native(layer.name)
        if isinstance(spec, Recurrent):
            outputs = _recur(spec, module, value, mask if layer.masked else None, states)
            return outputs, mask if spec.return_sequences else None
        if isinstance(spec, Embedding):
            return [module(value)], (value != 0 if spec.mask_zero else None)
        if isinstance(spec, Masking):
            mask = (value != spec.mask_value).any(-1)
            return [value * mask.unsqueeze(-1)], mask
        out = module(value)
        if isinstance(spec, Dense | Activation):
            out = activation(spec.activation, layer.name, "activation").function(out)
        return [out], mask

    def _run_each(
        self, layer: Layer, value: Tensor, mask: Tensor | None, states: Sequence[Tensor] | None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Run a layer on each step of one more time axis: the steps join the batch, and leave it again."""
        batch, steps = value.shape[:2]
        outputs, _ = self._run(layer, value.flatten(0, 1), None if mask is None else mask.flatten(0, 1), states)
        return [output.reshape(batch, steps, *output.shape[1:]) for output in outputs], mask

    def extra_repr(self) -> str:
        """Say what comes in and out."""
        return f"outputs={list(self.network.results)}"


def _recur(
    spec: Recurrent, module: nn.Module, value: Tensor, mask: Tensor | None, states: Sequence[Tensor] | None
) -> list[Tensor]:
    """Run a recurrent layer; return its output, or two where directions stay apart, then its states one by one."""
    start = None if states is None else gather(spec, states)
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


def spread(state: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Take states of shape (layers * directions, batch, size) apart: h, c of the first, h, c of the second, …."""
    kinds = state if isinstance(state, tuple) else (state,)
    return [kind[place] for place in range(kinds[0].shape[0]) for kind in kinds]


def gather(spec: Recurrent, states: Sequence[Tensor]) -> Any:
    """Put states together as torch's layers take them: the inverse of ``spread``."""
    kinds = 2 if spec.cell == "lstm" else 1
    stacked = tuple(torch.stack(list(states)[kind::kinds]) for kind in range(kinds))
    return stacked if kinds == 2 else stacked[0]


def set_arrays(module: nn.Module, arrays: Mapping[str, Any]) -> None:
    """Copy NumPy arrays into the parameters of a module, by name; device and type stay."""
    own = dict(module.named_parameters())
    with torch.no_grad():
        for name, array in arrays.items():
            own[name].copy_(torch.tensor(array))
