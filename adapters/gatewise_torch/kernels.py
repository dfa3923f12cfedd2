"""Chooses how one layer and direction is run: torch.nn's kernel, a fast path of ours, or the plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gatewise_torch import fast, sequence
from gatewise_torch.arithmetic import numpy_sees
from gatewise_torch.loops import Cell, Run, States, Weights, plain

Kernel = Callable[..., Any]
_VF: Any = torch._VF

AHEAD_FROM = {"rnn": 1 << 10, "gru": 1 << 15}
"""Cell → from how many states at once, batch times units, a fast path takes less time than torch.nn's kernel in
inference on a CPU; in training it always does. Measured with 1 to 256 rows and 32 to 512 units."""


def torch_kernel(cell: Cell, state: int) -> Kernel | None:
    """Return the kernel behind ``torch.nn``'s layer that computes this cell, or None.

    Args:
        cell: What a step computes.
        state: S, which torch.nn wants smaller than H where there is a projection.
    """
    if cell.cell_clip is not None or state >= cell.units:
        return None
    if cell.kind == "rnn":
        return {"tanh": _VF.rnn_tanh, "relu": _VF.rnn_relu}.get(cell.act.name)
    if (cell.act.name, cell.gate.name) != ("tanh", "sigmoid") or not cell.reset_after:
        return None
    return _VF.lstm if cell.kind == "lstm" else _VF.gru  # type: ignore[no-any-return]


def is_behind(cell: Cell, x: Tensor, batch: int, tensors: Iterable[Tensor | None]) -> bool:
    """Say whether torch.nn's kernel for a cell takes longer than our fast path.

    Args:
        cell: What a step computes.
        x: The input.
        batch: How many rows it has.
        tensors: The states and the weights.
    """
    if cell.kind not in AHEAD_FROM or not numpy_sees(x):
        return False
    tensors = (x, *tensors)
    return (
        (is_wanted(tensors) or batch * cell.units >= AHEAD_FROM[cell.kind])
        and not fast.transformed()
        and fast.ordinary(tensors)
    )


def is_wanted(tensors: Iterable[Tensor | None]) -> bool:
    """Say whether a gradient is wanted of any of these tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def keeps(x: Tensor, tensors: Iterable[Tensor | None]) -> bool:
    """Say whether a kernel must be told that it is for training, as cuDNN keeps nothing for the way back otherwise."""
    return x.is_cuda and is_wanted(tensors)


def side_by_side(weights: list[Tensor]) -> list[Tensor]:
    """Return weights as cuDNN wants them, where it is what runs them.

    Where they lie otherwise, it copies them itself at each call, and warns of it.
    """
    return weights if not weights[0].is_cuda or fast.transformed() else joined(weights)


def joined(weights: list[Tensor]) -> list[Tensor]:
    """Return weights in one piece of memory: the matrices of all layers, then the biases, or room for two of them."""
    matrices, biases = ([place for place, each in enumerate(weights) if each.ndim == axes] for axes in (2, 1))
    rows = len(weights[0])  # of all but a projection
    empty = 0 if biases else rows * sum(len(weights[place]) == rows for place in matrices)
    order = matrices + biases
    if _lie_together([weights[place] for place in order], empty):
        return weights
    pieces = [weights[place].reshape(-1) for place in order] + [weights[0].new_zeros(empty)]
    parts = torch.cat(pieces).split_with_sizes([len(piece) for piece in pieces])
    laid = {place: part.view(weights[place].shape) for place, part in zip(order, parts, strict=False)}
    return [laid[place] for place in range(len(weights))]


def _lie_together(weights: list[Tensor], empty: int) -> bool:
    """Say whether tensors fill a piece of memory, but for so many numbers of nothing behind them.

    cuDNN would take for biases whatever stood there instead.
    """
    size, storage = weights[0].element_size(), weights[0].untyped_storage()
    end = storage.data_ptr()
    for weight in weights:
        if weight.data_ptr() != end or not weight.is_contiguous():
            return False
        end += weight.numel() * size
    return end + empty * size == storage.data_ptr() + storage.nbytes()


def run(
    cell: Cell, kernel: Kernel | None, x: Tensor, state: States, w: Weights, run: Run, training: bool
) -> tuple[Tensor, States]:
    """Run one layer in one direction, in the fastest way that gives what the plain loop gives.

    Args:
        cell: What a step computes.
        kernel: torch.nn's own, where it has one for this cell.
        x: (T, B, F).
        state: The first state.
        w: The weights.
        run: Direction, mask and dropout.
        training: Whether the layer is in training mode, which cuDNN wants to know.

    Returns:
        The outputs (T, B, S), by the time of the input, and the last states, (1, B, size).
    """
    one_input = run.input_dropout is None or len(run.input_dropout) == 1
    plain_run = run.mask is None and run.recurrent_dropout is None and one_input
    if kernel is not None and plain_run and not fast.batches() and not is_behind(cell, x, x.shape[1], (*state, *w)):
        return _run_kernel(kernel, cell, x, state, w, run, training)
    if fast.transformed() or not x.shape[1] or not fast.ordinary((x, run.mask, *state, *w)):
        return _run_plainly(cell, x, state, w, run)
    wanted = is_wanted((x, *state, *w))
    if wanted and run.mask is not None:
        # What lies under the mask has no effect, but a gradient of 0 times infinity would be undefined.
        x = torch.where(run.mask.unsqueeze(-1), x, 0.0)
    if not wanted and sequence.can_infer(cell, w):
        return sequence.infer(cell, x, state, w, run)
    if wanted and sequence.can_train(cell, w):
        return sequence.train(cell, x, state, w, run)
    if not wanted and cell.act.known and cell.gate.known:  # a user's callable may want autograd for itself
        with fast.quiet():
            return _run_plainly(cell, x, state, w, run)
    return _run_plainly(cell, x, state, w, run)


def _run_plainly(cell: Cell, x: Tensor, state: States, w: Weights, run: Run) -> tuple[Tensor, States]:
    output, last = plain(cell, x, state, w, run)
    return output, tuple(part.unsqueeze(0) for part in last)


def _run_kernel(
    kernel: Kernel, cell: Cell, x: Tensor, state: States, w: Weights, run: Run, training: bool
) -> tuple[Tensor, States]:
    if run.input_dropout is not None:
        x = x * run.input_dropout
    if run.backwards:
        x = x.flip(0)
    flat = [w.ih, w.hh]
    if w.bias is not None:
        second = torch.zeros_like(w.bias) if w.second is None else w.second
        if w.bias_n is not None:
            second = torch.cat([second[: -cell.units], w.bias_n])
        flat += [w.bias, second]
    if w.hr is not None:
        flat.append(w.hr)
    hx = tuple(part.unsqueeze(0) for part in state)
    first = hx if cell.kind == "lstm" else hx[0]
    training = training or keeps(x, (x, *hx, *flat))
    output, *last = kernel(x, first, side_by_side(flat), w.bias is not None, 1, 0.0, training, False, False)
    return output.flip(0) if run.backwards else output, tuple(last)
