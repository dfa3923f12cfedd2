"""The fast path of the plain RNN; as that of the LSTM. Letters of the shapes: T time, B batch, F features, H units.

It computes with tensors alone, as a step is little but a product, with nothing that NumPy would do faster.
"""

from __future__ import annotations

from torch import Tensor

from gatewise_torch import fast
from gatewise_torch.arithmetic import ByTorch
from gatewise_torch.fast import Grads
from gatewise_torch.loops import Cell, Run, States, Weights


def forward(
    cell: Cell, x: Tensor, state: States, w: Weights, run: Run, kept: list[Tensor] | None
) -> tuple[Tensor, States]:
    """Return the state behind each step, (T, B, H), and the last one, (1, B, H); see ``fast_lstm.forward``.

    Nothing is kept.
    """
    by = ByTorch(x, cell.units)
    h = by.view(state[0])
    hidden = by.empty(*x.shape[:2], cell.units)
    act, add = by.in_place(cell.act), by.adder(w.hh, len(x))
    masked = fast.masked(by, run)
    inputs = by.view(x)
    chunks = fast.split_time(x, cell.units, run.backwards)
    project = by.projector(w.ih, w.whole_bias(), chunks[0].stop - chunks[0].start, len(chunks))
    for chunk in chunks:
        part = fast.during(hidden, chunk)
        by.copy(part, project(fast.during(inputs, chunk)))
        for (out,), rows in zip(by.steps_of([part], run.backwards), masked, strict=False):
            add(out, h)
            act(out)
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
    """Return the gradients of x, h, and of the first five of the weights; see ``fast_lstm.backward``."""
    needs_x, needs_h, needs_ih, needs_hh, needs_bias, needs_second, _ = needs
    by = ByTorch(x, cell.units)
    grad_hidden, dh = (None if grad is None else by.view(grad) for grad in grads)
    act_into, back = by.slope_writer(cell.act), by.adder(w.hh.t(), len(x))
    first, states, inputs = by.view(state[0]), by.view(hidden), by.view(x)
    dx = by.empty(*x.shape) if needs_x else None
    d_kernel, d_recurrent = by.gathered(w.ih, fast.LEAST_STEPS), by.gathered(w.hh, fast.LEAST_STEPS)
    d_bias = None
    chunks = fast.split_time(x, cell.units, run.backwards)
    one = by.view(x.new_ones(()).expand(hidden[chunks[0]].shape))
    space = by.empty(*one.shape)
    for chunk in reversed(chunks):
        part = fast.during(states, chunk)
        d_steps = space[: len(part)]
        act_into(one[: len(part)], part, d_steps)
        fast.blank(by, run, chunk, d_steps)
        last = chunk is chunks[0] and not needs_h
        dh, *befores = fast.gradients_of(by, grad_hidden, chunk, dh, first, run.backwards, last)
        for (d_step,), d_before, stay in zip(
            by.steps_of([d_steps], not run.backwards), befores, fast.passing(by, run, chunk), strict=False
        ):
            by.multiply(d_step, dh, d_step)
            if d_before is not None:
                back(d_before, d_step)
                if stay is not None:
                    by.add_product(d_before, dh, stay)
            dh = d_before
        flat = fast.rows_of(d_steps)
        if dx is not None:
            by.write_product(d_steps, w.ih.t(), fast.during(dx, chunk))
        if needs_ih:
            d_kernel.add(flat, fast.rows_of(fast.during(inputs, chunk)))
        if needs_hh:
            d_recurrent.add(flat, fast.rows_of(fast.before(by, states, first, chunk, run.backwards)))
        if needs_bias or needs_second:
            d_bias = fast.summed(by, d_bias, flat)
    d_biases = (d_bias if needs_bias else None, d_bias if needs_second else None)
    return fast.tensors(by, dx, dh, d_kernel.total(), d_recurrent.total(), *d_biases, None)
