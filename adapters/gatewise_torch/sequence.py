"""One layer and direction by a fast path: inference, and training with a backward pass of its own.

What the fast paths do not do (peepholes, a user's callable, activations across units) the plain loop does.
"""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise_torch import fast, fast_gru, fast_lstm, fast_rnn
from gatewise_torch.loops import Cell, Run, States, Weights, plain

PATHS: dict[str, ModuleType] = {"lstm": fast_lstm, "gru": fast_gru, "rnn": fast_rnn}
WEIGHTS = 6  # so many of the weights go along: all but the peepholes


def can_infer(cell: Cell, w: Weights) -> bool:
    """Say whether ``infer`` does this."""
    gates = cell.kind == "rnn" or (cell.gate.known and not cell.gate.across)
    return w.ch is None and cell.act.known and gates


def can_train(cell: Cell, w: Weights) -> bool:
    """Say whether ``train`` does this."""
    gates = cell.kind == "rnn" or cell.gate.slope is not None
    return w.ch is None and cell.act.slope is not None and gates


def infer(cell: Cell, x: Tensor, state: States, w: Weights, run: Run) -> tuple[Tensor, States]:
    """Do what ``loops.plain`` does, where no gradient is wanted."""
    with fast.quiet(), np.errstate(all="ignore"):
        hidden, last = PATHS[cell.kind].forward(cell, x, state, w, run, None)
        shown = fast.shown(run)
        return (hidden if shown is None else hidden.masked_fill_(~shown, 0.0)), last


def train(cell: Cell, x: Tensor, state: States, w: Weights, run: Run) -> tuple[Tensor, States]:
    """Do what ``loops.plain`` does, with a faster way back."""
    tensors = (x, *state, *w[:WEIGHTS])
    output, *last = _Sequence.apply(cell, run, *tensors)  # type: ignore[no-untyped-call]
    return output, tuple(last)


class _Sequence(torch.autograd.Function):
    """One layer and direction."""

    @staticmethod
    def forward(ctx: Any, cell: Cell, run: Run, x: Tensor, *tensors: Any) -> tuple[Tensor, ...]:
        state, w = tensors[:-WEIGHTS], Weights(*tensors[-WEIGHTS:])
        kept: list[Tensor] = []
        with fast.quiet(), np.errstate(all="ignore"):
            hidden, last = PATHS[cell.kind].forward(cell, x, state, w, run, kept)
            shown = fast.shown(run)
            output = hidden if shown is None else torch.where(shown, hidden, 0.0)
        # The mask, too, is saved in torch's way, which finds out when someone has written into it.
        ctx.save_for_backward(x, *tensors, run.mask, shown, hidden, *kept)
        ctx.cell, ctx.run, ctx.inputs = cell, run if run.mask is None else run._replace(mask=None), 1 + len(tensors)
        ctx.set_materialize_grads(False)  # of a whole sequence of zeros, where the last state alone was used
        return output, *last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # at every look, all are unpacked
        inputs, (mask, shown, hidden, *kept) = saved[: ctx.inputs], saved[ctx.inputs :]
        cell, run = ctx.cell, ctx.run if mask is None else ctx.run._replace(mask=mask)
        x, state, w = inputs[0], inputs[1:-WEIGHTS], Weights(*inputs[-WEIGHTS:])
        # Making the context costs a small layer 5 % of its step, so it is made where there is something to switch off.
        with torch.autocast(x.device.type, enabled=False) if fast.casts(x) else contextlib.nullcontext():
            if torch.is_grad_enabled() or fast.transformed() or not fast.ordinary(grads) or fast.batched(grads):
                # Someone will differentiate what comes out of here, or it is not of numbers that the fast way can see.
                return None, None, *_replayed(cell, run, inputs, grads)
            with fast.quiet(), np.errstate(all="ignore"):
                if shown is not None and grads[0] is not None:
                    grads = (torch.where(shown, grads[0], 0.0), *grads[1:])
                grads = (grads[0], *(grad if grad is None else grad[0] for grad in grads[1:]))
                found = PATHS[cell.kind].backward(cell, x, state, w, run, hidden, kept, grads, ctx.needs_input_grad[2:])
        return None, None, *found


def _replayed(
    cell: Cell, run: Run, inputs: tuple[Tensor | None, ...], grads: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Return the gradients by way of the plain loop, so that they can be differentiated again."""
    create = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases: an input may depend on another one (a tied weight below), and must not be counted through it.
        aliases: list[Any] = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
        x, *state = aliases[:-WEIGHTS]
        outputs, last = plain(cell, x, tuple(state), Weights(*aliases[-WEIGHTS:]), run)
        made = (outputs, *(part.unsqueeze(0) for part in last))
    given = [(out, grad) for out, grad in zip(made, grads, strict=True) if grad is not None]
    wanted = [one for one in aliases if one is not None and one.requires_grad]
    found = iter(
        torch.autograd.grad(
            [out for out, _ in given], wanted, [grad for _, grad in given], create_graph=create, allow_unused=True
        )
    )
    return tuple(next(found) if one is not None and one.requires_grad else None for one in aliases)
