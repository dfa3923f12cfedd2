"""The fast path of the plain RNN; as that of the LSTM. Letters of the shapes: T time, B batch, F features, H units."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gatewise_torch import fast
from gatewise_torch.fast_lstm import Grads
from gatewise_torch.loops import Cell, Run, States, Weights


def forward(
    cell: Cell, x: Tensor, state: States, w: Weights, run: Run, kept: list[Tensor] | None
) -> tuple[Tensor, States]:
    """Return the state behind each step, (T, B, H), and the last one; see ``fast_lstm.forward``. Nothing is kept."""
    (time, batch, features), units = x.shape, cell.units
    (h,) = state
    hidden = x.new_empty((time, batch, units))
    act, add, bias = fast.in_place(cell.act, x, batch * units), fast.adder(w.hh, batch, x, time), w.whole_bias()
    counting = fast.counting(run)
    for chunk in fast.split_time(time, batch * units * x.element_size(), run.backwards):
        part = hidden[chunk]
        fast.product(x[chunk].reshape(-1, features), w.ih, bias, out=part.view(-1, units))
        for (out,), counts in zip(fast.steps_of([part], run.backwards), counting, strict=False):
            add(out, h)
            act(out)
            h = out if counts is None else torch.where(counts, out, h, out=out)
    return hidden, (h.clone(),)


def backward(
    cell: Cell,
    x: Tensor,
    state: States,
    w: Weights,
    run: Run,
    hidden: Tensor,
    kept: list[Tensor],
    grads: Grads,
    needs: tuple[bool, ...],
) -> Grads:
    """Return the gradients of x, h, and of the first five of the weights; see ``fast_lstm.backward``."""
    needs_x, needs_h, needs_ih, needs_hh, needs_bias, needs_second, _ = needs
    grad_hidden, grad_h = grads
    (time, batch, features), units = x.shape, cell.units
    act_slope = cell.act.slope
    assert act_slope is not None
    back = fast.adder(w.hh.t(), batch, x, time)
    dx = x.new_empty(x.shape) if needs_x else None
    d_kernel, d_recurrent, d_bias = fast.Gathered(x, w.ih), fast.Gathered(x, w.hh), None
    dh: Any = grad_h
    one = x.new_ones(()).expand(hidden.shape)
    chunks = fast.split_time(time, batch * units * x.element_size(), run.backwards)
    for chunk in reversed(chunks):
        d_steps = act_slope(one[chunk], hidden[chunk])
        stays: Iterable[Tensor | None] = itertools.repeat(None)
        if run.mask is not None:
            counts = run.mask[chunk].unsqueeze(-1)
            fast.without_gradient(counts, (d_steps,))
            stays = [stay for (stay,) in fast.steps_of([(~counts).to(x.dtype)], not run.backwards)]
        last = chunk is chunks[0] and not needs_h
        dh, *befores = fast.gradients_of(grad_hidden, chunk, dh, state[0], run.backwards, last)
        for (d_step,), d_before, stay in zip(fast.steps_of([d_steps], not run.backwards), befores, stays, strict=False):
            d_step.mul_(dh)
            if d_before is not None:
                back(d_before, d_step)
                if stay is not None:
                    d_before.addcmul_(dh, stay)
            dh = d_before
        flat = d_steps.view(-1, units)
        if dx is not None:
            fast.product(flat, w.ih.t(), None, out=dx[chunk].view(-1, features))
        if needs_ih:
            d_kernel.add(flat, x[chunk].reshape(-1, features))
        if needs_hh:
            d_recurrent.add(flat, fast.before(hidden, state[0], chunk, run.backwards).reshape(-1, units))
        if needs_bias or needs_second:
            d_bias = fast.summed(d_bias, flat)
    d_biases = (d_bias if needs_bias else None, d_bias if needs_second else None)
    return dx, dh, d_kernel.total(), d_recurrent.total(), *d_biases, None
