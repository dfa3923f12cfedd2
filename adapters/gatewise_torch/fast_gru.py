"""The fast path of the GRU, with either reset; as that of the LSTM. Letters: T time, B batch, F features, H units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatewise_torch import fast
from gatewise_torch.activations import BOUNDED
from gatewise_torch.fast_lstm import Grads
from gatewise_torch.loops import Cell, Run, States, Weights


def forward(
    cell: Cell, x: Tensor, state: States, w: Weights, run: Run, kept: list[Tensor] | None
) -> tuple[Tensor, States]:
    """Return the state behind each step, (T, B, H), and the last one; see ``fast_lstm.forward``.

    What is kept are the activated gates of each chunk, and where the reset comes after the recurrent product the
    candidate's part of that (T, B, H), in front.
    """
    (time, batch, features), units = x.shape, cell.units
    h, both_gates = state[0], 2 * cell.units
    hidden = x.new_empty((time, batch, units))
    gate, act = fast.in_place(cell.gate, x, batch * units), fast.in_place(cell.act, x, batch * units)
    bias, bias_seen = w.whole_bias(), None
    products = hidden  # stands in where nothing is kept
    if cell.reset_after:
        multiply = fast.summer(w.hh, batch, x, time)
        space = x.new_empty((batch, 3 * units))
        if w.bias_n is not None:
            bias_seen = torch.cat([torch.zeros_like(w.hh[:both_gates, 0]), w.bias_n])
        if kept is not None:
            products = torch.empty_like(hidden)
            kept.append(products)
    else:
        add_both = fast.adder(w.hh[:both_gates], batch, x, time)
        add_n = fast.adder(w.hh[both_gates:], batch, x, time)
        space = x.new_empty((batch, units))
    bounded = cell.gate.name in BOUNDED and cell.act.name in BOUNDED
    counting = fast.counting(run)
    for chunk in fast.split_time(time, batch * 3 * units * x.element_size(), run.backwards):
        gates = fast.product(x[chunk].reshape(-1, features), w.ih, bias).view(-1, batch, 3 * units)
        if kept is not None:
            kept.append(gates)
        views = [gates[..., :both_gates], *gates.chunk(3, -1), products[chunk], hidden[chunk]]
        for (both, r, z, n, hn, out), counts in zip(fast.steps_of(views, run.backwards), counting, strict=False):
            if cell.reset_after:
                seen = multiply(h, bias_seen, space)
                gate(both.add_(seen[:, :both_gates]))
                seen_n = seen[:, both_gates:]
                n.addcmul_(r, seen_n if kept is None else hn.copy_(seen_n))
            else:
                add_both(both, h)
                gate(both)
                add_n(n, torch.mul(r, h, out=space))
            act(n)
            if bounded:
                torch.lerp(n, h, z, out=out)  # z * h + (1 - z) * n
            else:  # the same in more steps: infinite numbers stay infinite, where lerp subtracts one from another
                rest = torch.rsub(z, 1.0)
                torch.addcmul(rest.mul_(n), z, h, out=out)
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
    needs_x, needs_h, needs_ih, needs_hh, needs_bias, needs_second, needs_bias_n = needs
    grad_hidden, grad_h = grads
    (time, batch, features), units = x.shape, cell.units
    both_gates = 2 * units
    products, all_gates = (kept[0], kept[1:]) if cell.reset_after else (None, kept)
    gate_into, act_into = fast.slope_writer(cell.gate), fast.slope_writer(cell.act)

    # What goes back through the recurrent product: all three gates, or the candidate apart from the others.
    back = fast.adder((w.hh if products is not None else w.hh[:both_gates]).t(), batch, x, time)
    back_n = None if products is not None else fast.summer(w.hh[both_gates:].t(), batch, x, time)
    dx = x.new_empty(x.shape) if needs_x else None
    d_kernel, d_bias, d_bias_n = fast.Gathered(x, w.ih), None, None
    d_recurrent, d_recurrent_n = fast.Gathered(x, w.hh), fast.Gathered(x, w.hh[both_gates:])
    dh: Any = grad_h
    d_product = torch.empty_like(state[0])
    space = torch.empty_like(all_gates[0])
    space_seen = space if products is None else torch.empty_like(space)
    chunks = fast.split_time(time, batch * 3 * units * x.element_size(), run.backwards)
    for chunk, gates in zip(reversed(chunks), reversed(all_gates), strict=True):
        h = fast.before(hidden, state[0], chunk, run.backwards)
        d_gates, d_seen = space[: len(gates)], space_seen[: len(gates)]
        (r, z, n), (d_r, d_z, d_n) = gates.chunk(3, -1), d_gates.chunk(3, -1)
        # What the gradient of the state is multiplied with to become that of the gates z and n; and for r, that of what
        # is reset. As the state sees them (``d_seen``), the candidate's passes the reset gate.
        gate_into(h if products is None else products[chunk], r, d_r)
        gate_into(h - n, z, d_z)
        act_into(1.0 - z, n, d_n)
        if run.mask is not None:
            counts = run.mask[chunk].unsqueeze(-1)
            fast.without_gradient(counts, (d_gates,))
            z = torch.where(counts, z, 1.0)
        last = chunk is chunks[0] and not needs_h
        dh, *befores = fast.gradients_of(grad_hidden, chunk, dh, state[0], run.backwards, last)
        views = [
            r,
            z,
            d_gates[..., :both_gates],
            d_r,
            d_n,
            d_gates.view(-1, batch, 3, units)[:, :, 1:],
            d_seen,
            d_seen[..., :both_gates],
            d_seen[..., both_gates:],
        ]
        for (r_t, z_t, d_both, d_reset, d_new, d_zn, seen, seen_both, seen_n), d_before in zip(
            fast.steps_of(views, not run.backwards), befores, strict=True
        ):
            d_zn.mul_(dh.unsqueeze(1))
            if d_before is not None:
                d_before.addcmul_(dh, z_t)
            if back_n is None:
                d_reset.mul_(d_new)
                seen_both.copy_(d_both)
                torch.mul(d_new, r_t, out=seen_n)
                if d_before is not None:
                    back(d_before, seen)
            else:
                through = back_n(d_new, None, d_product)
                d_reset.mul_(through)
                if d_before is not None:
                    back(d_before.addcmul_(through, r_t), d_both)
            dh = d_before
        flat = d_gates.view(-1, 3 * units)
        flat_seen = d_seen.view(-1, 3 * units)
        if dx is not None:
            fast.product(flat, w.ih.t(), None, out=dx[chunk].view(-1, features))
        if needs_ih:
            d_kernel.add(flat, x[chunk].reshape(-1, features))
        if needs_hh and products is not None:
            d_recurrent.add(flat_seen, h.reshape(-1, units))
        elif needs_hh:
            d_recurrent.add(flat[:, :both_gates], h.reshape(-1, units))
            d_recurrent_n.add(flat[:, both_gates:], (r * h).view(-1, units))
        if needs_bias or needs_second:
            d_bias = fast.summed(d_bias, flat)
        if needs_bias_n:
            d_bias_n = fast.summed(d_bias_n, flat_seen[:, both_gates:])
    d_hh = d_recurrent.total()
    if d_hh is not None and products is None:
        d_hh = torch.cat([d_hh, d_recurrent_n.total()])  # type: ignore[list-item]
    d_biases = (d_bias if needs_bias else None, d_bias if needs_second else None, d_bias_n)
    return dx, dh, d_kernel.total(), d_hh, *d_biases
