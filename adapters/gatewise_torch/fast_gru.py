"""The fast path of the GRU, with either reset; as that of the LSTM. Letters: T time, B batch, F features, H units."""

from __future__ import annotations

import torch
from torch import Tensor

from gatewise_torch import fast
from gatewise_torch.activations import BOUNDED
from gatewise_torch.arithmetic import arithmetic
from gatewise_torch.fast import Grads
from gatewise_torch.loops import Cell, Run, States, Weights


def forward(
    cell: Cell, x: Tensor, state: States, w: Weights, run: Run, kept: list[Tensor] | None
) -> tuple[Tensor, States]:
    """Return the state behind each step, (T, B, H), and the last one, (1, B, H); see ``fast_lstm.forward``.

    What is kept are the activated gates of each chunk, (time, 3, B, H), and where the reset comes after the recurrent
    product the candidate's part of that (T, B, H), in front.
    """
    time, batch, units = *x.shape[:2], cell.units
    by, both_gates = arithmetic(x, units), 2 * units
    h = by.view(state[0])
    hidden = by.empty(time, batch, units)
    gate, act = by.writer(cell.gate), by.writer(cell.act)
    dropout, dropout_n = _apart(run.recurrent_dropout)
    add_both = fast.adder(by, w.hh[:both_gates], dropout, time)
    if cell.reset_after:
        multiply_n = fast.summer(by, w.hh[both_gates:], w.bias_n, dropout_n, time)
    else:
        add_n = fast.adder(by, w.hh[both_gates:], dropout_n, time)
    products = by.shared(time, batch, units)
    if cell.reset_after and kept is not None:
        products = by.empty(time, batch, units)
        kept.append(by.tensor(products))
    blend = by.blend_bounded if cell.gate.name in BOUNDED and cell.act.name in BOUNDED else by.blend
    masked = fast.masked(by, run)
    inputs = by.view(x)
    chunks = fast.split_time(x, 3 * units, run.backwards)
    project = fast.projector(by, w, run.input_dropout, chunks)
    for chunk in chunks:
        gates = project(fast.during(inputs, chunk))
        one_by_one = gates.reshape(-1, batch, 3, units).swapaxes(1, 2)
        activated = by.room(one_by_one, kept is not None)
        if kept is not None:
            kept.append(by.tensor(activated))
        views = [gates[..., :both_gates], one_by_one[:, :2], one_by_one[:, 2], activated[:, :2]]
        views += [*activated.swapaxes(0, 1), fast.during(products, chunk), fast.during(hidden, chunk)]
        for (both, rz_in, n_in, rz, r, z, n, product, out), rows in zip(
            by.steps_of(views, run.backwards), masked, strict=False
        ):
            add_both(both, h)
            gate(rz_in, rz)
            if cell.reset_after:
                made = multiply_n(h, product)
                if kept is not None and made is not product:
                    by.copy(product, made)
                by.add_product(n_in, r, made)
            else:
                by.multiply(r, h, product)
                add_n(n_in, product)
            act(n_in, n)
            blend(n, h, z, out)
            if rows is not None:
                by.keep(rows, h, out)
            h = out
    return by.tensor(hidden), (by.tensor(by.copied(h[None])),)


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
    """Return the gradients of x, h, and of the first six of the weights; see ``fast_lstm.backward``."""
    needs_h, needs_hh, needs_bias_n = needs[1], needs[-5], needs[-2]
    batch, units, both_gates = x.shape[1], cell.units, 2 * cell.units
    by = arithmetic(x, units)
    grad_hidden, dh = (None if grad is None else by.view(grad) for grad in grads)
    all_gates = [by.view(each) for each in kept]
    products = all_gates.pop(0) if cell.reset_after else None
    gate_into, act_into = by.slope_writer(cell.gate), by.slope_writer(cell.act)

    # What goes back through the recurrent product: all three gates, or the candidate apart from the others.
    kernel, dropout, scale_n, back_n = w.hh, run.recurrent_dropout, None, None
    if products is None:
        kernel, (dropout, dropout_n) = w.hh[:both_gates], _apart(dropout)
        scale_n = None if dropout_n is None else by.view(dropout_n[0])
        back_n = by.summer(w.hh[both_gates:].t(), None, len(x))
    back = fast.back_adder(by, kernel, dropout, len(x))
    first, states = by.view(state[0]), by.view(hidden)
    sums, d_bias_n = fast.Sums(by, x, w, run, needs), None
    d_recurrent = fast.gathered(by, kernel, dropout)
    d_recurrent_n = by.gathered(w.hh[both_gates:], fast.LEAST_STEPS)
    d_product = by.empty(batch, units)
    chunks = fast.split_time(x, 3 * units, run.backwards)
    space = by.empty(len(all_gates[0]), batch, 3 * units)
    space_seen = space if products is None else by.empty(*space.shape)
    for chunk, gates in zip(reversed(chunks), reversed(all_gates), strict=True):
        h = fast.before(by, states, first, chunk, run.backwards)
        d_gates, d_seen = space[: len(gates)], space_seen[: len(gates)]
        (r, z, n), (d_r, d_z, d_n) = gates.swapaxes(0, 1), fast.gates_of(d_gates, units)
        # With the reset before the product, that of n sees r * h * scale; this is its slope by h, and that by r.
        r_dropped, h_dropped = (r, h) if scale_n is None else (r * scale_n, h * scale_n)
        # What the gradient of the state is multiplied with to become that of the gates z and n; and for r, that of what
        # is reset. As the state sees them (``d_seen``), the candidate's passes the reset gate.
        gate_into(h_dropped if products is None else fast.during(products, chunk), r, d_r)
        gate_into(h - n, z, d_z)
        act_into(1.0 - z, n, d_n)
        fast.blank(by, run, chunk, d_gates)
        z = fast.unmasked(by, run, chunk, z)
        last = chunk is chunks[0] and not needs_h
        _, (dh, *befores) = fast.gradients_of(by, grad_hidden, chunk, dh, first, run.backwards, last)
        d_zn = d_gates.reshape(-1, batch, 3, units)[:, :, 1:]
        views = [r_dropped, z, d_gates[..., :both_gates], d_r, d_n, d_zn]
        views += [d_seen, d_seen[..., :both_gates], d_seen[..., both_gates:]]
        for (r_t, z_t, d_both, d_reset, d_new, d_two, seen, seen_both, seen_n), d_before in zip(
            by.steps_of(views, not run.backwards), befores, strict=True
        ):
            by.multiply(d_two, dh[:, None], d_two)
            if d_before is not None:
                by.add_product(d_before, dh, z_t)
            if back_n is None:
                by.multiply(d_reset, d_new, d_reset)
                by.copy(seen_both, d_both)
                by.multiply(d_new, r_t, seen_n)
                if d_before is not None:
                    back(d_before, seen)
            else:
                through = back_n(d_new, d_product)
                by.multiply(d_reset, through, d_reset)
                if d_before is not None:
                    by.add_product(d_before, through, r_t)
                    back(d_before, d_both)
            dh = d_before
        flat, flat_seen = sums.add(chunk, d_gates), fast.rows_of(d_seen)
        if needs_hh and products is not None:
            d_recurrent.add(flat_seen, fast.rows_of(h))
        elif needs_hh:
            d_recurrent.add(flat[:, :both_gates], fast.rows_of(h))
            d_recurrent_n.add(flat[:, both_gates:], fast.rows_of(r * h_dropped))
        if needs_bias_n:
            d_bias_n = fast.summed(by, d_bias_n, flat_seen[:, both_gates:])
    d_hh = d_recurrent.total()
    if d_hh is not None and products is None:
        d_hh = torch.cat([d_hh, d_recurrent_n.total()])  # type: ignore[list-item]
    return fast.tensors(by, sums.x, dh, sums.kernel.total(), d_hh, *sums.biases(), d_bias_n, None)


def _apart(dropout: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Return dropout of r and z, and that of n; they may share one mask."""
    return (None, None) if dropout is None else (dropout[:2], dropout[-1:])
