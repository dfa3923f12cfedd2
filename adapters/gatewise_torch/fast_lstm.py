"""The fast path of the LSTM. Letters of the shapes: T time, B batch, F features, H units, S state."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from gatewise_torch import fast
from gatewise_torch.loops import Cell, Run, States, Weights

Grads = tuple[Tensor | None, ...]


def forward(
    cell: Cell, x: Tensor, state: States, w: Weights, run: Run, kept: list[Tensor] | None
) -> tuple[Tensor, States]:
    """Return the state h behind each step, (T, B, S), and the last states.

    Args:
        cell: What a step computes; a bound on the memory is for inference only, and so is a projection.
        x: (T, B, F).
        state: The first states.
        w: The weights.
        run: Direction and mask.
        kept: To which is added what ``backward`` needs: the memory before the first step and behind each one, then the
            activated gates of each chunk. None in inference.
    """
    (time, batch, features), units = x.shape, cell.units
    h, c = state
    hidden = x.new_empty((time, batch, h.shape[1]))
    size = batch * units
    gate, act = fast.in_place(cell.gate, x, size), fast.in_place(cell.act, x, size)
    write = fast.writer(cell.act, x, size)
    add = fast.adder(w.hh, batch, x, time)
    bias, clip, hr = w.whole_bias(), cell.cell_clip, w.hr
    narrow = None if hr is None else x.new_empty((batch, units))
    places: Iterator[Tensor]
    if kept is None:
        places = itertools.cycle([torch.empty_like(c), torch.empty_like(c)])
    else:
        memory = x.new_empty((time + 1, batch, units))
        cells = list(memory.unbind(0))
        places = reversed(cells) if run.backwards else iter(cells)
        c = next(places).copy_(c)
        kept.append(memory)
    counting = fast.counting(run)
    for chunk in fast.split_time(time, batch * 4 * units * x.element_size(), run.backwards):
        gates = fast.product(x[chunk].reshape(-1, features), w.ih, bias).view(-1, batch, 4 * units)
        if kept is not None:
            kept.append(gates)
        views = [gates, gates[..., : 2 * units], *gates.chunk(4, -1), hidden[chunk]]
        for (z, both, i, f, g, o, out), place, counts in zip(
            fast.steps_of(views, run.backwards), places, counting, strict=False
        ):
            add(z, h)
            gate(both)
            gate(o)
            act(g)
            new = torch.mul(c, f, out=place).addcmul_(i, g)
            if clip is not None:
                new.clamp_(-clip, clip)
            if hr is None:
                write(new, out).mul_(o)
            else:
                torch.mm(write(new, narrow).mul_(o), hr.t(), out=out)  # type: ignore[arg-type]
            if counts is not None:
                torch.where(counts, new, c, out=new)
                torch.where(counts, out, h, out=out)
            h, c = out, new
    return hidden, (h.clone(), c.clone())


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
    """Return the gradients of x, h, c, and of the first five of the weights, those that are needed.

    Args:
        cell: What a step computes.
        x: (T, B, F).
        state: The first states.
        w: The weights.
        run: Direction and mask.
        hidden: What ``forward`` returned.
        kept: What ``forward`` kept.
        grads: Gradients of the states h behind each step, and of the last states; None is zero.
        needs: Which gradients are wanted.
    """
    needs_x, needs_h, _, needs_ih, needs_hh, needs_bias, needs_second, _ = needs
    grad_hidden, grad_h, grad_c = grads
    (time, batch, features), units = x.shape, cell.units
    memory, *all_gates = kept
    act, gate_into, act_into = (
        fast.function(cell.act, x, batch * units),
        fast.slope_writer(cell.gate),
        fast.slope_writer(cell.act),
    )
    act_slope = cell.act.slope
    assert act_slope is not None
    new_memory, old_memory = (memory[:-1], memory[1:]) if run.backwards else (memory[1:], memory[:-1])

    back = fast.adder(w.hh.t(), batch, x, time)  # U^T times the gradient of the gates
    dx = x.new_empty(x.shape) if needs_x else None
    d_kernel, d_recurrent, d_bias = fast.Gathered(x, w.ih), fast.Gathered(x, w.hh), None
    dh: Any = grad_h
    dc = torch.zeros_like(state[1]) if grad_c is None else grad_c.clone()
    dc_thrice = dc.unsqueeze(1)
    space = torch.empty_like(all_gates[0])
    chunks = fast.split_time(time, batch * 4 * units * x.element_size(), run.backwards)
    for chunk, gates in zip(reversed(chunks), reversed(all_gates), strict=True):
        # What the gradients of h and of c are multiplied with to become those of the gates.
        d_gates = space[: len(gates)]
        (i, f, g, o), (d_i, d_f, d_g, d_o) = gates.chunk(4, -1), d_gates.chunk(4, -1)
        act_c = act(new_memory[chunk])
        through_c = act_slope(o, act_c)  # from h to c
        gate_into(g, i, d_i)
        gate_into(old_memory[chunk], f, d_f)
        act_into(i, g, d_g)
        gate_into(act_c, o, d_o)
        stays: Iterable[Tensor | None] = itertools.repeat(None)
        if run.mask is not None:
            counts = run.mask[chunk].unsqueeze(-1)
            fast.without_gradient(counts, (d_gates, through_c))
            f = torch.where(counts, f, 1.0)
            stays = [stay for (stay,) in fast.steps_of([(~counts).to(x.dtype)], not run.backwards)]
        last = chunk is chunks[0] and not needs_h
        dh, *befores = fast.gradients_of(grad_hidden, chunk, dh, state[0], run.backwards, last)
        views = [through_c, f, d_gates, d_o, d_gates.view(-1, batch, 4, units)[:, :, :3]]
        for (slope, forget, d_all, d_out, d_ifg), d_before, stay in zip(
            fast.steps_of(views, not run.backwards), befores, stays, strict=False
        ):
            dc.addcmul_(dh, slope)
            d_out.mul_(dh)
            d_ifg.mul_(dc_thrice)
            dc.mul_(forget)
            if d_before is not None:
                back(d_before, d_all)
                if stay is not None:
                    d_before.addcmul_(dh, stay)
            dh = d_before
        flat = d_gates.view(-1, 4 * units)
        if dx is not None:
            fast.product(flat, w.ih.t(), None, out=dx[chunk].view(-1, features))
        if needs_ih:
            d_kernel.add(flat, x[chunk].reshape(-1, features))
        if needs_hh:
            d_recurrent.add(flat, fast.before(hidden, state[0], chunk, run.backwards).reshape(-1, units))
        if needs_bias or needs_second:
            d_bias = fast.summed(d_bias, flat)
    d_biases = (d_bias if needs_bias else None, d_bias if needs_second else None)
    return dx, dh, dc, d_kernel.total(), d_recurrent.total(), *d_biases, None
