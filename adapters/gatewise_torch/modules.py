"""Recurrent layers that do what a Keras recurrent layer can do, in the shape of ``torch.nn``'s.

``LSTM``, ``GRU`` and ``RNN`` take the arguments of their namesakes in ``torch.nn``, hold parameters of the same names
and shapes (state dicts go both ways) and are called alike. By keyword they take what those lack: any activation, masks,
one bias, merge modes, reading backwards, peepholes and more. What ``torch.nn`` can do itself is handed to its kernels,
unless ours take less time.

Letters of the shapes: T time, B batch, F input_size, H hidden_size, S size of the state (H, or proj_size), L layers,
D directions. Where it says (T, B, …), ``batch_first`` makes it (B, T, …), and a single sequence has no B.
"""

from __future__ import annotations

import contextlib
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, TypedDict, TypeGuard, Unpack

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gatewise.core.spec import MERGES
from gatewise.errors import ShapeError, SpecError, nearest
from gatewise_torch import fast, kernels
from gatewise_torch.activations import activation as named_activation
from gatewise_torch.loops import GATES, Cell, Run, States, Weights

Function = str | Callable[[Tensor], Tensor]

_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_ch")
_DEFAULTS: dict[str, Any] = {
    "proj_size": 0,
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "reset": "after",
    "peepholes": False,
    "cell_clip": None,
    "forget_bias": 0.0,
    "go_backwards": False,
    "merge": "concat",
    "return_sequences": True,
    "return_state": True,
    "stateful": False,
    "zero_output_for_mask": False,
    "input_dropout": 0.0,
    "recurrent_dropout": 0.0,
    "dropout_masks": None,
}


_CHOICES: dict[str, tuple[Any, ...]] = {
    "merge": MERGES,
    "reset": ("after", "before"),
    "peepholes": (False, True, "full"),
    "dropout_masks": (None, "layer", "gate"),
    **dict.fromkeys(("batch_first", "bidirectional", "go_backwards", "return_sequences"), (False, True)),
    **dict.fromkeys(("return_state", "stateful", "zero_output_for_mask"), (False, True)),
}
# At a rate of 1 all is dropped, as in torch.nn and Keras's SimpleRNN; its LSTM and GRU drop nothing then.
_RATES = ("dropout", "input_dropout", "recurrent_dropout")

_NOTHING = contextlib.nullcontext()


class Options(TypedDict, total=False):
    """Options of all three layers that ``torch.nn`` does not have; given by keyword."""

    go_backwards: bool
    merge: str | None
    return_sequences: bool
    return_state: bool
    stateful: bool
    zero_output_for_mask: bool
    input_dropout: float
    recurrent_dropout: float
    dropout_masks: str | None


class Recurrent(nn.Module):
    """What the three layers share; use ``LSTM``, ``GRU`` or ``RNN``.

    What decides the shapes or the cell (sizes, bias, activations, reset, peepholes, cell_clip) is fixed when a layer is
    built; rates and switches may be changed later.
    """

    cell: ClassVar[str]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool | str,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: Any,
        dtype: torch.dtype | None,
        **options: Any,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        options = _DEFAULTS | options
        self.input_size = _size(owner, "input_size", input_size, 1)
        self.hidden_size = _size(owner, "hidden_size", hidden_size, 1)
        self.num_layers = _size(owner, "num_layers", num_layers, 1)
        self.proj_size = _size(owner, "proj_size", options["proj_size"], 0)
        _choice(owner, "bias", bias, (True, False, "dual", "single", "none"))
        # Words become torch.nn's flags, so that `if layer.bias` says what it says there.
        self.bias: bool | str = {"dual": True, "none": False}.get(bias, bias) if isinstance(bias, str) else bias
        options |= {"batch_first": batch_first, "bidirectional": bidirectional, "dropout": dropout}
        for name in (*_CHOICES, *_RATES):
            setattr(self, name, options[name])
        _check_type(owner, device, dtype)
        self.forget_bias = _number(owner, "forget_bias", options["forget_bias"], "a finite number", math.isfinite)
        self.cell_clip: float | None = None
        if options["cell_clip"] is not None:
            bound = "None or a number above 0"
            self.cell_clip = _number(owner, "cell_clip", options["cell_clip"], bound, lambda value: value > 0)
        if self.merge is None and self.bidirectional and self.num_layers > 1:
            raise SpecError(
                f"merge=None with num_layers={self.num_layers}.",
                f"{owner}: a second layer reads one output, and merge=None gives two.",
                "Choose a merge, or stack layers of one.",
            )
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"{owner}: dropout={self.dropout} acts between layers and num_layers is 1, so it does nothing. "
                "For dropout of the input there is input_dropout.",
                stacklevel=3,
            )
        self.activation: Function = options["activation"]
        self.recurrent_activation: Function = options["recurrent_activation"]
        self._kept: States | None = None
        self._names = self._make_parameters(device, dtype)
        self._resolve()
        self.flatten_parameters()
        self.reset_parameters()

    def __setattr__(self, name: str, value: Any) -> None:
        """Check choices and rates, which may be changed later, too."""
        if name in _CHOICES:
            value = _choice(type(self).__name__, name, value, _CHOICES[name])
        elif name in _RATES:
            value = _number(type(self).__name__, name, value, "a number from 0 to 1", lambda rate: 0 <= rate <= 1)
        super().__setattr__(name, value)

    merge: str | None
    reset: str
    peepholes: bool | str
    dropout_masks: str | None
    dropout: float
    batch_first: bool
    bidirectional: bool
    go_backwards: bool
    return_sequences: bool
    return_state: bool
    stateful: bool
    zero_output_for_mask: bool
    input_dropout: float
    recurrent_dropout: float

    def _make_parameters(self, device: Any, dtype: torch.dtype | None) -> list[tuple[str | None, ...]]:
        """Add the parameters; return the names of each layer and direction, in the order of ``_PARTS``."""
        units, state = self.hidden_size, self.proj_size or self.hidden_size
        gates = GATES[self.cell] * units
        names: list[tuple[str | None, ...]] = []
        for layer in range(self.num_layers):
            sides = self.directions if self.merge == "concat" else 1
            shapes: dict[str, tuple[int, ...]] = {
                "weight_ih": (gates, self.input_size if layer == 0 else sides * state),
                "weight_hh": (gates, state),
            }
            if self.bias:
                shapes["bias_ih"] = (gates,)
            if self.bias is True:
                shapes["bias_hh"] = (gates,)
            if self.proj_size:
                shapes["weight_hr"] = (state, units)
            if self.peepholes:
                shapes["weight_ch"] = (3 * units, units) if self.peepholes == "full" else (3 * units,)
            for suffix in ("", "_reverse")[: self.directions]:
                for part, shape in shapes.items():
                    parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                    self.register_parameter(f"{part}_l{layer}{suffix}", parameter)
                names.append(tuple(f"{part}_l{layer}{suffix}" if part in shapes else None for part in _PARTS))
        return names

    def _resolve(self) -> None:
        """Work out what follows from the options: the cell, and whether torch.nn has a kernel for it."""
        owner = type(self).__name__
        self._cell = Cell(
            self.cell,
            self.hidden_size,
            named_activation(self.activation, owner, "activation"),
            named_activation(self.recurrent_activation, owner, "recurrent_activation"),
            self.reset == "after",
            self.cell_clip,
        )
        self._flat_names = [name for names in self._names for name in names if name is not None]
        self._kernel = None if self.peepholes else kernels.torch_kernel(self._cell, self.proj_size)
        self._has_kernel = self._kernel is not None and self.bias != "single"

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what follows from the options: it holds functions, which do not all pickle."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_cell", "_kernel")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._resolve()
        self.flatten_parameters()

    @property
    def _is_ordinary(self) -> bool:
        """Whether no option is in use that torch.nn does not have: then one call does all layers and directions."""
        return (
            self.return_sequences
            and (self.merge == "concat" or not self.bidirectional)
            and not (self.forget_bias or self.go_backwards or self.stateful)
            and not (self.input_dropout or self.recurrent_dropout)
        )

    @property
    def directions(self) -> int:
        """1, or 2 when bidirectional."""
        return 2 if self.bidirectional else 1

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters of each layer and direction, as ``torch.nn`` lists them."""
        return [[getattr(self, name) for name in names if name is not None] for names in self._names]

    def reset_parameters(self) -> None:
        """Draw all parameters as ``torch.nn`` does: uniform within ``1 / sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for name in self._flat_names:
            nn.init.uniform_(getattr(self, name), -bound, bound)

    def flatten_parameters(self) -> None:
        """Lay the weights side by side on a GPU, as cuDNN wants them. A layer that is made, moved or copied does it."""
        weights = [self._parameters.get(name) for name in self._flat_names]
        known: list[Tensor] = [weight for weight in weights if weight is not None and weight.is_cuda]
        if not self._has_kernel or len(known) < len(weights) or fast.transformed() or not fast.ordinary(known):
            return
        if len({weight.data_ptr() for weight in known}) == len(known) and len({each.dtype for each in known}) == 1:
            with torch.no_grad():
                for weight, place in zip(known, kernels.side_by_side(known), strict=True):
                    weight.data = place

    def _apply(self, fn: Any, recurse: bool = True) -> Recurrent:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.flatten_parameters()
        return self

    def reset_state(self) -> None:
        """Forget the states that a stateful layer kept: the next batch starts from zeros and may have another size."""
        self._kept = None

    def extra_repr(self) -> str:
        """Return the sizes and the options that are not the default, as ``torch.nn`` writes them."""
        said = [f"{self.input_size}, {self.hidden_size}"]
        for name, usual in _DEFAULTS.items():
            value = getattr(self, name, usual)
            if value != usual and not isinstance(value, nn.Module):  # a module is listed below, among the children
                said.append(f"{name}={value!r}")
        return ", ".join(said)

    # ------------------------------------------------------------------------------------------------- the call

    def forward(self, input: Tensor | PackedSequence, hx: Any = None, *, mask: Any = None, lengths: Any = None) -> Any:
        """Run the layer.

        Args:
            input: (T, B, F), a single sequence (T, F), or a ``PackedSequence``.
            hx: The first states, (L*D, B, S), for an LSTM as a pair with (L*D, B, H); zeros when left out.
            mask: (T, B), true where a step counts. A masked step keeps the state and repeats the output before it
                (zeros before the first valid step), or gives zeros with ``zero_output_for_mask``.
            lengths: (B,), a shorter way to say the mask of sequences that are padded at their end.

        Returns:
            The output (T, B, D*S); (T, B, S) where directions are added or the like, a pair of these with
            ``merge=None``; without T where ``return_sequences=False``. And, unless ``return_state=False``, the last
            states in the form of ``hx``.

        Raises:
            ShapeError: An argument does not fit the layer or another argument.
        """
        if self._has_kernel and mask is None and lengths is None and self._is_ordinary:
            done = self._run_whole(input, hx)
            if done is not None:
                return done if self.return_state else done[0]

        packed = input if isinstance(input, PackedSequence) else None
        if packed is not None:
            if mask is not None or lengths is not None:
                raise self._misfit(
                    f"{'lengths' if mask is None else 'mask'} was given beside a PackedSequence.",
                    "a PackedSequence has its own lengths.",
                    "Give only one of them.",
                )
            if len(packed.data) != packed.batch_sizes.sum():
                raise self._misfit(
                    f"input has {len(packed.data)} rows, its batch_sizes add up to {int(packed.batch_sizes.sum())}.",
                    "a PackedSequence has as many rows.",
                    "Make it with torch.nn.utils.rnn.pack_padded_sequence.",
                )
            # In the order of its data, longest first; states are put into that order and out of it below.
            x, lengths = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes))
            batched = True
            self._check_input(x, "input.data")
        else:
            x = self._check_input(input, "input")
            batched = x.ndim == 3
            x = x.unsqueeze(1) if not batched else x.transpose(0, 1) if self.batch_first else x
        time, batch = x.shape[:2]
        first = self._first_states(hx, x, batched)
        valid = self._valid_steps(mask, lengths, time, batch, batched, x.device)
        if packed is not None and packed.sorted_indices is not None and (hx is not None or self._kept is not None):
            first = [tuple(part.index_select(0, packed.sorted_indices) for part in state) for state in first]

        casts = fast.casts(x)
        if casts:
            # Cast once, here. The loops write in place, where an operation that autocast recasts would not fit.
            x = x.to(torch.get_autocast_dtype(x.device.type))
            first = [tuple(part.to(x.dtype) for part in state) for state in first]
        with torch.autocast(x.device.type, enabled=False) if casts else _NOTHING:
            outputs, last = self._run_layers(x, first, valid, lengths if packed is not None else None)

        result: list[Any] = outputs
        if packed is not None and packed.unsorted_indices is not None:
            last = tuple(part.index_select(1, packed.unsorted_indices) for part in last)
            if not self.return_sequences:
                result = [output.index_select(0, packed.unsorted_indices) for output in outputs]
        if self.stateful:
            # Copies, as the caller may write into what is returned. Made outside of inference mode: what is made in it
            # could not be trained on, and a later batch may be for training.
            with torch.inference_mode(False):
                self._kept = tuple(part.detach().clone() for part in last)
        if not batched:
            last = tuple(part.squeeze(1) for part in last)
            result = [output.squeeze(1 if self.return_sequences else 0) for output in outputs]
        elif packed is not None and self.return_sequences:
            result = [self._packed_like(packed, output, lengths) for output in outputs]
        elif self.batch_first and self.return_sequences:
            result = [output.transpose(0, 1) for output in outputs]
        output = result[0] if len(result) == 1 else tuple(result)
        if not self.return_state:
            return output
        return output, (last if self.cell == "lstm" else last[0])

    def _weight(self, name: str | None) -> Any:
        if name is None:
            return None
        weight = self._parameters.get(name)
        return weight if weight is not None else getattr(self, name)  # parametrised or pruned: no longer a parameter

    def _run_whole(self, input: Any, hx: Any) -> Any:
        """Hand everything to torch.nn's kernel; None where something does not fit, for the long way to say what.

        None, too, where the long way takes less time.
        """
        packed = isinstance(input, PackedSequence)
        x = input.data if packed else input
        weights = [self._weight(name) for name in self._flat_names]
        fits = _is_plain(x) and x.ndim == (2 if packed else 3) and x.shape[-1] == self.input_size
        if not fits or any(weight.dtype != x.dtype or weight.device != x.device for weight in weights):
            return None
        if fast.casts(x) or fast.batches() or (len(x) != input.batch_sizes.sum() if packed else 0 in x.shape):
            return None
        batch = int(input.batch_sizes[0]) if packed else x.shape[0 if self.batch_first else 1]
        if not packed and kernels.is_behind(self._cell, x, batch, weights):
            return None
        stacked, state = self.num_layers * self.directions, self.proj_size or self.hidden_size
        if hx is None:
            h = x.new_zeros((stacked, batch, state))
            c = x.new_zeros((stacked, batch, self.hidden_size)) if self.proj_size else h
            hx = (h, c) if self.cell == "lstm" else h
        else:
            parts = hx if self.cell == "lstm" else (hx,)
            sizes = ((stacked, batch, state), (stacked, batch, self.hidden_size))
            fits = isinstance(parts, tuple) and len(parts) == (2 if self.cell == "lstm" else 1)
            if not fits or any(
                not isinstance(part, Tensor) or part.shape != size or part.dtype != x.dtype or part.device != x.device
                for part, size in zip(parts, sizes, strict=False)
            ):
                return None
            if packed and input.sorted_indices is not None:
                parts = tuple(part.index_select(1, input.sorted_indices) for part in parts)
                hx = parts if self.cell == "lstm" else parts[0]
        # In evaluation, too, a gradient may be wanted.
        training = self.training or kernels.keeps(x, (x, *(hx if isinstance(hx, tuple) else (hx,)), *weights))
        dropout = self.dropout if self.training else 0.0
        options = (bool(self.bias), self.num_layers, dropout, training, self.bidirectional)
        weights = kernels.side_by_side(weights)
        assert self._kernel is not None
        if not packed:
            result = self._kernel(x, hx, weights, *options, self.batch_first)
            return (result[0], result[1:]) if self.cell == "lstm" else result
        data, *last = self._kernel(x, input.batch_sizes, hx, weights, *options)
        if input.unsorted_indices is not None:
            last = [part.index_select(1, input.unsorted_indices) for part in last]
        output = PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        return output, (tuple(last) if self.cell == "lstm" else last[0])

    def _run_layers(
        self, x: Tensor, first: list[States], valid: Tensor | None, lengths: Tensor | None
    ) -> tuple[list[Tensor], States]:
        """Run all layers on (T, B, F); ``lengths`` are there when the steps behind them do not exist (packed)."""
        last: list[States] = []
        halves: list[Tensor] = []
        zero = self.zero_output_for_mask and lengths is None
        for layer in range(self.num_layers):
            halves = []
            top = layer == self.num_layers - 1
            for direction in range(self.directions):
                index = layer * self.directions + direction
                backwards = self.go_backwards != (direction == 1)
                run = Run(backwards, valid, zero, *self._draw_dropout(x))
                output, final = kernels.run(
                    self._cell, self._kernel, x, first[index], self._weights(index, x.dtype), run, self.training
                )
                last.append(final)
                if top and not self.return_sequences:
                    # What was computed last. It is the last state, but for a masked step that gives zeros.
                    output = output[0 if backwards else -1] if valid is not None else final[0][0].clone()
                elif self.go_backwards:  # in the order of reading, both directions alike
                    output = output.flip(0) if lengths is None else _flip_within(output, lengths)
                halves.append(output)
            if len(halves) == 2 and self.merge is not None:
                halves = [_MERGED[self.merge](*halves)]
            x = halves[0]
            if self.dropout and self.training and not top:
                # Masks are drawn in the order of memory, and a seed is to give the same ones however a layer is run.
                x = halves[0] = F.dropout(x.contiguous(), self.dropout)
        if len(last) == 1:
            return halves, last[0]
        return halves, tuple(torch.cat(part) for part in zip(*last, strict=True))

    def _weights(self, index: int, dtype: torch.dtype) -> Weights:
        """Return the weights of one layer and direction; the forget bias is in its bias."""
        parts = [self._weight(name) for name in self._names[index]]
        parts = [part if part is None or part.dtype == dtype else part.to(dtype) for part in parts]
        ih, hh, bias, second, hr, ch = parts
        bias_n = None
        if second is not None and self.cell == "gru" and self.reset == "after":
            # The reset acts on the candidate's second bias, too: only the others can be added beforehand.
            bias_n = second[2 * self.hidden_size :]
            second = F.pad(second[: 2 * self.hidden_size], (0, self.hidden_size))
        if self.forget_bias and self.cell == "lstm":
            added = ih.new_zeros(4 * self.hidden_size)
            added[self.hidden_size : 2 * self.hidden_size] = self.forget_bias
            bias = added if bias is None else bias + added
        return Weights(ih, hh, bias, second, bias_n, hr, ch)

    def _draw_dropout(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Draw the masks of one pass: for the input, and for the state; the same at every step."""
        if not (self.training and (self.input_dropout or self.recurrent_dropout)):
            return None, None
        # Keras draws one mask a gate for the state, and then for the input as well; else one for all gates.
        each = self.dropout_masks == "gate" or (self.dropout_masks is None and self.recurrent_dropout > 0)
        gates, sizes = (GATES[self.cell] if each else 1), (x.shape[2], self.proj_size or self.hidden_size)
        rates = (self.input_dropout, self.recurrent_dropout)
        one, two = (
            F.dropout(x.new_ones((gates, x.shape[1], size)), rate) if rate else None
            for rate, size in zip(rates, sizes, strict=True)
        )
        return one, two

    @staticmethod
    def _packed_like(packed: PackedSequence, output: Tensor, lengths: Tensor) -> PackedSequence:
        data = pack_padded_sequence(output, lengths).data
        return PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)

    # ------------------------------------------------------------------------------------- arguments that must fit

    def _own(self, name: str, value: Any, device: torch.device, wanted: str) -> Tensor:
        """Return a tensor as it is, anything else as a copy: what is written into it later would go unnoticed."""
        if isinstance(value, Tensor):
            return value.to(device)
        try:
            return torch.tensor(value, device=device)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            met = f"{name} is a {type(value).__name__} that makes no tensor: {error}."
            raise self._misfit(met, wanted, "Give a tensor, an array or a list of numbers.") from error

    def _misfit(self, met: str, expected: str, hint: str) -> ShapeError:
        return ShapeError(met, f"{type(self).__name__}({self.extra_repr()}): {expected}", hint)

    def _check_input(self, x: Any, name: str) -> Tensor:
        if _is_plain(x) and x.ndim in (2, 3) and x.shape[-1] == self.input_size:
            weight = self._weight(self._names[0][0])
            steps = x.shape[1 if self.batch_first and x.ndim == 3 else 0]
            if steps and x.device != weight.device:
                raise self._misfit(
                    f"{name} is on {x.device}, the weights are on {weight.device}.",
                    "input and weights lie on one device.",
                    f"Move either: input.to({str(weight.device)!r}) or layer.to({str(x.device)!r}).",
                )
            if steps and (x.dtype == weight.dtype or fast.casts(x)):
                return x
            if steps:
                raise self._misfit(
                    f"{name} is {x.dtype}, the weights are {weight.dtype}.",
                    "input and weights have one type.",
                    f"Cast either: input.to({weight.dtype}) or layer.to({x.dtype}).",
                )
        axes = "(batch, time, features)" if self.batch_first else "(time, batch, features)"
        expected = f"{name} is {axes} or (time, features), with {self.input_size} features and at least one step."
        if not isinstance(x, Tensor):
            raise self._misfit(f"{name} is a {type(x).__name__}.", expected, "Give a tensor or a PackedSequence.")
        if not _is_plain(x):
            form = "nested" if x.is_nested else f"a tensor in {x.layout}"
            raise self._misfit(
                f"{name} is {form}.", expected, "Make it a plain one: to_dense(), or pad and give lengths."
            )
        if x.ndim not in (2, 3):
            hint = f"It has {x.ndim} axes: add or drop one."
        elif x.shape[-1] == self.input_size:
            hint = "There is no step in it: leave it out."
        elif self.input_size in x.shape:
            hint = f"The last axis is not input_size={self.input_size}: are the axes in another order?"
        else:
            hint = f"The last axis is not input_size={self.input_size}: was the layer built for other inputs?"
        raise self._misfit(f"{name} has shape {tuple(x.shape)}.", expected, hint)

    def _first_states(self, hx: Any, x: Tensor, batched: bool) -> list[States]:
        """Return the first states of each layer and direction, (B, size): those given, those kept, or zeros."""
        stacked, batch = self.num_layers * self.directions, x.shape[1]
        sizes = {"h": self.proj_size or self.hidden_size}
        if self.cell == "lstm":
            sizes["c"] = self.hidden_size
        if hx is None and self._kept is not None:
            if self._kept[0].shape[1] != batch:
                raise self._misfit(
                    f"input has a batch of {batch}, the states that were kept have {self._kept[0].shape[1]}.",
                    "with stateful=True every batch goes on where the one before ended.",
                    "Call reset_state() before a batch of another size.",
                )
            return list(zip(*(part.to(x).unbind(0) for part in self._kept), strict=True))
        if hx is None:
            zeros = {size: x.new_zeros((batch, size)) for size in sizes.values()}
            return [tuple(zeros[size] for size in sizes.values())] * stacked
        parts = hx if self.cell == "lstm" else (hx,)
        form = "hx is a pair (h, c)." if self.cell == "lstm" else "hx is one tensor."
        if not isinstance(parts, tuple | list) or len(parts) != len(sizes):
            met = f"a tuple of {len(hx)}" if isinstance(hx, tuple | list) else f"a {type(hx).__name__}"
            raise self._misfit(f"hx is {met}.", form, "Give it in the form in which the layer returns it.")
        for (name, size), part in zip(sizes.items(), parts, strict=True):
            what = f"hx ({name})" if len(sizes) > 1 else "hx"
            shape = (stacked, batch, size) if batched else (stacked, size)
            axes = "(layers * directions, batch, size)" if batched else "(layers * directions, size)"
            if not isinstance(part, Tensor):
                raise self._misfit(f"{what} is a {type(part).__name__}.", f"{what} is a tensor {axes}.", form)
            if part.shape != shape:
                hint = "Its first axis is layers * directions, also with batch_first."
                raise self._misfit(f"{what} has shape {tuple(part.shape)}.", f"{what} is {axes} = {shape}.", hint)
            if part.device != x.device:
                met, hint = f"{what} is on {part.device}, the input is on {x.device}.", f"{name}.to({str(x.device)!r})"
                raise self._misfit(met, "input and states lie on one device.", f"Move it: {hint}.")
            if part.dtype != x.dtype and not fast.casts(x):
                met = f"{what} is {part.dtype}, the input is {x.dtype}."
                raise self._misfit(met, "input and states have one type.", f"Cast it: {name}.to({x.dtype}).")
        return list(zip(*((part if batched else part.unsqueeze(1)).unbind(0) for part in parts), strict=True))

    def _valid_steps(
        self, mask: Any, lengths: Any, time: int, batch: int, batched: bool, device: torch.device
    ) -> Tensor | None:
        """Return the mask as (T, B), or None where every step counts."""
        if mask is not None and lengths is not None:
            raise self._misfit("mask and lengths were both given.", "lengths are a mask, too.", "Give one of them.")
        # Looking at numbers would make an accelerator wait, and where operations are traced there are none.
        looks = device.type == "cpu" and not fast.transformed()
        if lengths is not None:
            wanted = f"lengths is (batch,) = ({batch},), whole numbers."
            lengths = self._own("lengths", lengths, device, wanted)
            whole = not (lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool)
            if lengths.shape != (batch,) or not whole:
                met = f"lengths has shape {tuple(lengths.shape)}, {lengths.dtype}."
                raise self._misfit(met, wanted, "Give one a sequence.")
            if looks:
                wrong = lengths[(lengths < 0) | (lengths > time)]
                if len(wrong):
                    met = f"lengths holds {int(wrong[0])}, the input has {time} steps."
                    raise self._misfit(met, f"lengths lie from 0 to {time}.", "Were they made for another batch?")
            valid = torch.arange(time, device=device).unsqueeze(1) < lengths
        elif mask is not None:
            valid = self._own("mask", mask, device, "mask has an entry for each step of each sequence.")
            axes, shape = "(time,)", torch.Size((time,))
            if batched and self.batch_first:
                axes, shape = "(batch, time)", torch.Size((batch, time))
            elif batched:
                axes, shape = "(time, batch)", torch.Size((time, batch))
            if valid.shape != shape:
                hint = "Its axes are in another order: transpose it." if list(valid.shape) == list(shape)[::-1] else ""
                raise self._misfit(
                    f"mask has shape {tuple(valid.shape)}.",
                    f"mask is {axes} = {tuple(shape)}, as the input.",
                    hint or "Give one entry for each step of each sequence, true where it counts.",
                )
            if valid.is_complex() or (looks and bool(valid.isnan().any())):
                met = "is complex" if valid.is_complex() else "holds NaN"
                raise self._misfit(f"mask {met}.", "a step counts where its entry is not 0.", "Was it divided by 0?")
            valid = valid if valid.dtype == torch.bool else valid != 0
            valid = valid.unsqueeze(1) if not batched else valid.transpose(0, 1) if self.batch_first else valid
        else:
            return None
        return None if looks and bool(valid.all()) else valid


class LSTM(Recurrent):
    """A long short-term memory layer, as ``torch.nn.LSTM`` and more.

    Gates lie in the order i f g o. ``c' = f*c + i*g``, ``h' = o*act(c')``, where g has ``activation`` and the others
    ``recurrent_activation``.

    Args:
        input_size: F.
        hidden_size: H.
        num_layers: How many are stacked.
        bias: True or ``"dual"`` (bias_ih and bias_hh, as in torch.nn), ``"single"`` (bias_ih), False or ``"none"``.
        batch_first: Whether input, output and mask have the batch first; states never do.
        dropout: Rate of dropout between stacked layers, a mask for each step, as in torch.nn.
        bidirectional: Whether a second copy reads the sequence from its end.
        proj_size: Size to which the output is projected before it is fed back (``weight_hr_l0``), or 0.
        device: Where the parameters lie.
        dtype: Type of the parameters.
        activation: Name (see ``activations.NAMED``) or a callable on tensors, called gate by gate.
        recurrent_activation: The same for the gates i, f, o.
        peepholes: Whether i, f, o see the memory, o the new one: True for one weight a unit, ``weight_ch_l0`` (3*H,);
            ``"full"`` for matrices, (3*H, H).
        cell_clip: Bound on the memory at each step, or None.
        forget_bias: A number added to what goes into the forget gate, at run time.
        **options: ``go_backwards`` (the sequence is read from its end, outputs come in the order of reading);
            ``merge`` of two directions (``"concat"``, ``"sum"``, ``"mul"``, ``"ave"``, None for a pair of outputs);
            ``return_sequences`` (False: the last output only); ``return_state`` (False: the output alone);
            ``stateful`` (states go on from batch to batch, see ``reset_state``); ``zero_output_for_mask``;
            ``input_dropout``, ``recurrent_dropout`` (one mask for all steps); ``dropout_masks`` (``"gate"`` draws one
            for each gate, ``"layer"`` one for all; None is Keras's rule: each gate its own with recurrent dropout).

    Raises:
        SpecError: An option is out of its range.

    >>> layer = LSTM(3, 50, bias="single", activation="relu", batch_first=True)
    >>> sum(weight.numel() for weight in layer.parameters())
    10800
    >>> output, (h, c) = layer(torch.ones(2, 7, 3), mask=torch.arange(7) < torch.tensor([[7], [4]]))
    >>> output.shape, h.shape
    (torch.Size([2, 7, 50]), torch.Size([1, 2, 50]))
    >>> layer
    LSTM(3, 50, bias='single', batch_first=True, activation='relu')
    """

    cell = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool | str = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Function = "tanh",
        recurrent_activation: Function = "sigmoid",
        peepholes: bool | str = False,
        cell_clip: float | None = None,
        forget_bias: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        _known(type(self).__name__, options, LSTM)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
            proj_size=proj_size,
            activation=activation,
            recurrent_activation=recurrent_activation,
            peepholes=peepholes,
            cell_clip=cell_clip,
            forget_bias=forget_bias,
            **options,
        )


class GRU(Recurrent):
    """A gated recurrent unit, as ``torch.nn.GRU`` and more.

    Gates lie in the order r z n. ``h' = z*h + (1-z)*n``.

    Args:
        reset: Whether the reset gate acts ``"after"`` the recurrent product (torch.nn, Keras) or ``"before"`` it
            (Keras with ``reset_after=False``): two functions.

    The other arguments are those of ``LSTM``.

    >>> layer = GRU(3, 50, reset="before", bias="single")
    >>> output, h = layer(torch.ones(7, 2, 3))
    >>> output.shape, h.shape
    (torch.Size([7, 2, 50]), torch.Size([1, 2, 50]))
    """

    cell = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool | str = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Function = "tanh",
        recurrent_activation: Function = "sigmoid",
        reset: str = "after",
        **options: Unpack[Options],
    ) -> None:
        _known(type(self).__name__, options, GRU)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
            activation=activation,
            recurrent_activation=recurrent_activation,
            reset=reset,
            **options,
        )


class RNN(Recurrent):
    """A plain recurrent layer, ``h' = act(W x + U h + b)``, as ``torch.nn.RNN`` and more.

    Args:
        nonlinearity: torch.nn's name for the activation; the same as ``activation``, which counts where both are given.

    The other arguments are those of ``LSTM``.

    >>> layer = RNN(3, 50, activation="softsign", return_sequences=False, return_state=False)
    >>> layer(torch.ones(7, 2, 3)).shape
    torch.Size([2, 50])
    """

    cell = "rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Function = "tanh",
        bias: bool | str = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Function | None = None,
        **options: Unpack[Options],
    ) -> None:
        _known(type(self).__name__, options, RNN)
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device,
            dtype,
            activation=nonlinearity if activation is None else activation,
            **options,
        )

    @property
    def nonlinearity(self) -> Function:
        """The activation, under torch.nn's name."""
        return self.activation


_MERGED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda forward, backward: torch.cat([forward, backward], -1),
    "sum": torch.add,
    "mul": torch.mul,
    "ave": lambda forward, backward: (forward + backward) / 2.0,
}


def _is_plain(x: Any) -> TypeGuard[Tensor]:
    """Say whether something is a tensor whose numbers lie there one by one."""
    return isinstance(x, Tensor) and not x.is_nested and x.layout is torch.strided


def _flip_within(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence of (T, B, size) within its own length."""
    time = torch.arange(len(x), device=x.device).unsqueeze(1)
    lengths = lengths.to(x.device)
    index = torch.where(time < lengths, lengths - 1 - time, time)
    return x.gather(0, index.unsqueeze(-1).expand(x.shape))


# ------------------------------------------------------------------------------------------- options that must fit


def _known(owner: str, options: object, kind: type[Recurrent]) -> None:
    unknown = [name for name in options if name not in Options.__annotations__]  # type: ignore[attr-defined]
    if unknown:
        own = [name for name in kind.__init__.__annotations__ if name not in ("options", "return")]
        known = [*own, *Options.__annotations__]
        raise SpecError(
            f"{owner} has no option {unknown[0]!r}.",
            f"{owner}: its options are {', '.join(known)}.",
            f"{nearest(unknown[0], known)}Leave it out, or use one of these.",
        )


def _check_type(owner: str, device: Any, dtype: Any) -> None:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise SpecError(
            f"dtype={dtype!r} is no type of floating-point numbers.",
            f"{owner}: its weights are torch.float32, torch.float64, torch.float16 or torch.bfloat16.",
            "Give one of these, or leave it out.",
        )
    try:
        torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise SpecError(
            f"device={device!r} is none that torch knows.",
            f"{owner}: device is where the weights lie.",
            "Give 'cpu', 'cuda:0' or the like.",
        ) from error


def _size(owner: str, name: str, value: Any, least: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        size = operator.index(value)
        if size < least:
            raise TypeError
    except TypeError:
        raise SpecError(
            f"{name}={value!r} is no size.",
            f"{owner}: {name} is a whole number from {least}.",
            f"Give {name} as an integer.",
        ) from None
    return size


def _choice(owner: str, name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        return value
    words = [choice for choice in choices if isinstance(choice, str)]
    guess = nearest(value, words) if isinstance(value, str) else ""
    raise SpecError(
        f"{name}={value!r} is unknown.",
        f"{owner}: {name} is one of {', '.join(map(repr, choices))}.",
        f"{guess}Use one of these.",
    )


def _number(owner: str, name: str, value: Any, expected: str, fits: Callable[[float], bool]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
        raise SpecError(f"{name}={value!r} is out of range.", f"{owner}: {name} is {expected}.", f"Change {name}.")
    return float(value)
