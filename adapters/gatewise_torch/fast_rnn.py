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
    act, add = by.in_place(cell.act), fast.adder(by, w.hh, run.recurrent_dropout, len(x))
    masked = fast.masked(by, run)
    inputs = by.view(x)
    chunks = fast.split_time(x, cell.units, run.backwards)
    project = fast.projector(by, w, run.input_dropout, chunks)
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
    """Return the gradients of x, h, and of the first six of the weights; see ``fast_lstm.backward``."""
    by, needs_h, needs_hh = ByTorch(x, cell.units), needs[1], needs[-5]
    grad_hidden, dh = (None if grad is None else by.view(grad) for grad in grads)
    act_into, back = by.slope_writer(cell.act), fast.back_adder(by, w.hh, run.recurrent_dropout, len(x))
    first, states = by.view(state[0]), by.view(hidden)
    sums, d_recurrent = fast.Sums(by, x, w, run, needs), fast.gathered(by, w.hh, run.recurrent_dropout)
    chunks = fast.split_time(x, cell.units, run.backwards)
    one = by.view(x.new_ones(()).expand(hidden[chunks[0]].shape))
    space = by.empty(*one.shape)
    for chunk in reversed(chunks):
        part = fast.during(states, chunk)
        d_steps = space[: len(part)]
        act_into(one[: len(part)], part, d_steps)
        fast.blank(by, run, chunk, d_steps)
        last = chunk is chunks[0] and not needs_h
        _, (dh, *befores) = fast.gradients_of(by, grad_hidden, chunk, dh, first, run.backwards, last)
        for (d_step,), d_before, stay in zip(
            by.steps_of([d_steps], not run.backwards), befores, fast.passing(by, run, chunk), strict=False
        ):
            by.multiply(d_step, dh, d_step)
            if d_before is not None:
                back(d_before, d_step)
                if stay is not None:
                    by.add_product(d_before, dh, stay)
            dh = d_before
        flat = sums.add(chunk, d_steps)
        if needs_hh:
            h = fast.before(by, states, first, chunk, run.backwards)
            d_recurrent.add(flat, fast.rows_of(h))
    return fast.tensors(by, sums.x, dh, sums.kernel.total(), d_recurrent.total(), *sums.biases(), None, None)
