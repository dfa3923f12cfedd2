"""The fast path of the LSTM. Letters of the shapes: T time, B batch, F features, H units, S state."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from gatewise_torch import fast
from gatewise_torch.arithmetic import Array, ByTorch, arithmetic
from gatewise_torch.fast import Grads
from gatewise_torch.loops import Cell, Run, States, Weights


def forward(
    cell: Cell, x: Tensor, state: States, w: Weights, run: Run, kept: list[Tensor] | None
) -> tuple[Tensor, States]:
    """Return the state h behind each step, (T, B, S), and the last states, (1, B, size).

    Args:
        cell: What a step computes.
        x: (T, B, F).
        state: The first states.
        w: The weights.
        run: Direction, mask and dropout.
        kept: To which is added what ``backward`` needs: the memory before the first step and behind each one, the
            activated candidates, then the other gates of each chunk. None in inference.
    """
    time, batch, units = *x.shape[:2], cell.units
    by = arithmetic(x, units)
    h, c = (by.view(part) for part in state)
    hidden = by.empty(time, batch, h.shape[1])
    gate, act, add = by.in_place(cell.gate), by.writer(cell.act), fast.adder(by, w.hh, run.recurrent_dropout, time)
    clip, hr = cell.cell_clip, w.hr
    wide = None if hr is None else by.empty(batch, units)  # what is projected
    places: Iterator[Array]
    if kept is None:
        places, candidates = itertools.cycle((by.empty(batch, units), by.empty(batch, units))), by.empty(batch, units)
    else:
        memory, candidates = by.empty(time + 1, batch, units), by.empty(time, batch, units)
        kept += [by.tensor(memory), by.tensor(candidates)]
        places = (place for (place,) in by.steps_of([memory], run.backwards))
        by.copy(first := next(places), c)
        c = first
    masked = fast.masked(by, run)
    inputs = by.view(x)
    chunks = fast.split_time(x, 4 * units, run.backwards)
    project = fast.projector(by, w, run.input_dropout, chunks)
    for chunk in chunks:
        gates = project(fast.during(inputs, chunk))
        views = [gates, *fast.gates_of(gates, units), fast.during(hidden, chunk)]
        if kept is not None:
            kept.append(by.tensor(gates))
            views.append(fast.during(candidates, chunk))
        for (z, i, f, g, o, out, *own), new, rows in zip(
            by.steps_of(views, run.backwards), places, masked, strict=False
        ):
            candidate = own[0] if own else candidates
            add(z, h)
            act(g, candidate)
            gate(z)  # all four: a second call costs more than the gate that nobody reads
            by.multiply(c, f, new)
            by.add_product(new, i, candidate)
            if clip is not None:
                by.bound(new, clip)
            shown = out if hr is None else wide
            act(new, shown)
            by.multiply(shown, o, shown)
            if hr is not None:
                torch.mm(by.tensor(wide), hr.t(), out=by.tensor(out))
            if rows is not None:
                by.keep(rows, c, new)
                by.keep(rows, h, out)
            h, c = out, new
    return by.tensor(hidden), (by.tensor(by.copied(h[None])), by.tensor(by.copied(c[None])))


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
    """Return the gradients of x, h, c, and of the first six of the weights, those that are needed.

    Args:
        cell: What a step computes.
        x: (T, B, F).
        state: The first states.
        w: The weights.
        run: Direction, mask and dropout.
        hidden: What ``forward`` returned.
        kept: What ``forward`` kept.
        grads: Gradients of the states h behind each step, and of the last states; None is zero.
        needs: Which gradients are wanted.
    """
    batch, units, needs_h, needs_hh, needs_hr = x.shape[1], cell.units, needs[1], needs[-5], needs[-1]
    by = arithmetic(x, units) if w.hr is None else ByTorch(x, units)  # ByNumPy has room for one width only
    grad_hidden, dh, dc = (None if grad is None else by.view(grad) for grad in grads)
    memory, candidates, *all_gates = (by.view(each) for each in kept)
    act, gate_into, act_into = by.function(cell.act), by.slope_writer(cell.gate), by.slope_writer(cell.act)
    new_memory, old_memory = (memory[:-1], memory[1:]) if run.backwards else (memory[1:], memory[:-1])

    chunks = fast.split_time(x, 4 * units, run.backwards)
    back = fast.back_adder(by, w.hh, run.recurrent_dropout, len(x))
    first, states = by.view(state[0]), by.view(hidden)
    sums, d_recurrent = fast.Sums(by, x, w, run, needs), fast.gathered(by, w.hh, run.recurrent_dropout)
    widen, wide, d_projection = None, None, None
    if w.hr is not None:
        widen, wide = by.summer(w.hr.t(), None, len(x)), by.empty(batch, units)
        d_projection = by.gathered(w.hr, fast.LEAST_STEPS)
    dc = by.zeros(batch, units) if dc is None else by.copied(dc)
    dc_thrice = dc[:, None]
    space, slopes = by.empty(*all_gates[0].shape), by.empty(*candidates[chunks[0]].shape)
    for chunk, gates in zip(reversed(chunks), reversed(all_gates), strict=True):
        # What the gradients of h and of c are multiplied with to become those of the gates.
        d_gates, through_c = space[: len(gates)], slopes[: len(gates)]
        i, f, _, o = fast.gates_of(gates, units)
        d_i, d_f, d_g, d_o = fast.gates_of(d_gates, units)
        g, act_c = fast.during(candidates, chunk), act(fast.during(new_memory, chunk))
        old_c = fast.during(old_memory, chunk)
        act_into(o, act_c, through_c)  # from h to c
        gate_into(g, i, d_i)
        gate_into(old_c, f, d_f)
        act_into(i, g, d_g)
        gate_into(act_c, o, d_o)
        if cell.cell_clip is not None:
            # Nothing goes back through a memory that was cut off. One that met the bound by itself was not.
            cut = ~(abs(f * old_c + i * g) <= cell.cell_clip)
            f = by.copied(f)
            for factor in (d_i, d_f, d_g, f):
                by.fill(cut, 0.0, factor)
        fast.blank(by, run, chunk, d_gates, through_c)
        last = chunk is chunks[0] and not needs_h
        d_hidden, (dh, *befores) = fast.gradients_of(by, grad_hidden, chunk, dh, first, run.backwards, last)
        d_ifg = d_gates.reshape(-1, batch, 4, units)[:, :, :3]
        views = [through_c, fast.unmasked(by, run, chunk, f), d_gates, d_o, d_ifg]
        for (slope, forget, d_all, d_out, d_three), d_before, stay in zip(
            by.steps_of(views, not run.backwards), befores, fast.passing(by, run, chunk), strict=False
        ):
            d_shown = dh if widen is None else widen(dh, wide)
            by.add_product(dc, d_shown, slope)
            by.multiply(d_out, d_shown, d_out)
            by.multiply(d_three, dc_thrice, d_three)
            by.multiply(dc, forget, dc)
            if d_before is not None:
                back(d_before, d_all)
                if stay is not None:
                    by.add_product(d_before, dh, stay)
            dh = d_before
        flat = sums.add(chunk, d_gates)
        if needs_hh:
            h = fast.before(by, states, first, chunk, run.backwards)
            d_recurrent.add(flat, fast.rows_of(h))
        if d_projection is not None and needs_hr:
            shown = o * act_c
            fast.blank(by, run, chunk, shown)
            d_projection.add(fast.rows_of(d_hidden), fast.rows_of(shown))
    d_hh, d_hr = d_recurrent.total(), None if d_projection is None else d_projection.total()
    return fast.tensors(by, sums.x, dh, dc, sums.kernel.total(), d_hh, *sums.biases(), None, d_hr)
