"""The plain loop over one layer in one direction: every option, differentiable to any order, written to be read.

It is what the fast paths of ``kernels.py`` are checked against and fall back to. Gates are torch's: i f g o (LSTM),
r z n (GRU). Letters of the shapes: T time, B batch, F features, G gates, H units, S state (H, or the projection).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gatewise_torch.activations import Activation

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
States = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of the others; each (B, size)


@dataclass(frozen=True)
class Cell:
    """What one step computes.

    Attributes:
        kind: ``lstm``, ``gru`` or ``rnn``.
        units: H.
        act: Activation of the candidate, and of the memory on its way out.
        gate: Activation of the gates; of no meaning in an RNN.
        reset_after: Whether a GRU resets behind the recurrent product.
        cell_clip: Bound on the memory, or None.
    """

    kind: str
    units: int
    act: Activation
    gate: Activation
    reset_after: bool = True
    cell_clip: float | None = None


class Weights(NamedTuple):
    """Tensors of one layer and direction.

    Attributes:
        ih: (G*H, F).
        hh: (G*H, S).
        bias: (G*H,), or None.
        second: (G*H,), a second bias that can be added to the first before the loop, or None.
        bias_n: (H,), the second bias of a candidate that is reset behind the product, or None.
        hr: (S, H), the projection, or None.
        ch: (3*H,) or (3*H, H), the peepholes of i f o, or None.
    """

    ih: Tensor
    hh: Tensor
    bias: Tensor | None = None
    second: Tensor | None = None
    bias_n: Tensor | None = None
    hr: Tensor | None = None
    ch: Tensor | None = None

    def whole_bias(self) -> Tensor | None:
        """Return what is added to every step's input."""
        return self.bias if self.bias is None or self.second is None else self.bias + self.second


class Run(NamedTuple):
    """What goes along with one pass over a sequence.

    Attributes:
        backwards: Whether it is read from its end.
        mask: (T, B), true where a step counts, by the time of the input; or None.
        zero: Whether a masked step gives zeros, not the output before it.
        input_dropout: (1 or G, B, F), scaled masks for the input; or None.
        recurrent_dropout: (1 or G, B, S), the same for the state; or None.
    """

    backwards: bool = False
    mask: Tensor | None = None
    zero: bool = False
    input_dropout: Tensor | None = None
    recurrent_dropout: Tensor | None = None


def project(x: Tensor, w: Weights, dropout: Tensor | None = None) -> Tensor:
    """Return ``W x + b`` for all steps at once: (T, B, F) to (T, B, G*H)."""
    bias = w.whole_bias()
    if dropout is None or len(dropout) == 1:
        return F.linear(x if dropout is None else x * dropout, w.ih, bias)
    kernels = w.ih.chunk(len(dropout))
    parts = torch.cat([F.linear(x * one, kernel) for one, kernel in zip(dropout, kernels, strict=True)], -1)
    return parts if bias is None else parts + bias


def plain(cell: Cell, x: Tensor, state: States, w: Weights, run: Run) -> tuple[Tensor, States]:
    """Run one layer in one direction.

    Args:
        cell: What a step computes.
        x: (T, B, F).
        state: The first state.
        w: The weights.
        run: Direction, mask and dropout.

    Returns:
        The outputs (T, B, S), by the time of the input whatever the direction, and the last state.
    """
    return plain_steps(cell, project(x, w, run.input_dropout), state, w, run)


def plain_steps(cell: Cell, steps: Tensor, state: States, w: Weights, run: Run) -> tuple[Tensor, States]:
    """The same on an input that has been projected: ``steps`` is (T, B, G*H)."""
    step = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}[cell.kind]
    # unbind and stack, never an index by time: the gradient of each index would be a whole sequence of zeros.
    inputs = list(steps.unbind(0))
    valid = [None] * len(inputs) if run.mask is None else list(run.mask.unsqueeze(-1).unbind(0))
    if run.backwards:
        inputs.reverse()
        valid.reverse()
    outputs: list[Tensor] = []
    output = torch.zeros_like(state[0])  # what a masked first step repeats: not the state that was given
    for one, counts in zip(inputs, valid, strict=True):
        new = step(cell, one, state, w, run.recurrent_dropout)
        if counts is None:
            output, state = new[0], new
        else:
            output = torch.where(counts, new[0], 0.0 if run.zero else output)
            state = tuple(torch.where(counts, after, before) for after, before in zip(new, state, strict=True))
        outputs.append(output)
    if run.backwards:
        outputs.reverse()
    return torch.stack(outputs), state


def _recurrent(h: Tensor, hh: Tensor, dropout: Tensor | None) -> Tensor:
    """Return U h, (B, G*H), with the same dropout for all gates or one for each."""
    if dropout is None or len(dropout) == 1:
        return F.linear(h if dropout is None else h * dropout[0], hh)
    gates = len(dropout)
    each = torch.bmm(h * dropout, hh.view(gates, -1, hh.shape[1]).transpose(1, 2))  # (G, B, H)
    return torch.cat(each.unbind(0), -1)


def _lstm(cell: Cell, x: Tensor, state: States, w: Weights, dropout: Tensor | None) -> States:
    h, c = state
    gate, act = cell.gate.function, cell.act.function
    i, f, g, o = (x + _recurrent(h, w.hh, dropout)).chunk(4, -1)
    peep_o = None
    if w.ch is not None:
        peep_i, peep_f, peep_o = w.ch.chunk(3)
        i, f = i + _peephole(peep_i, c), f + _peephole(peep_f, c)
    c = gate(f) * c + gate(i) * act(g)
    if cell.cell_clip is not None:
        c = c.clamp(-cell.cell_clip, cell.cell_clip)
    if peep_o is not None:
        o = o + _peephole(peep_o, c)  # sees the new memory, after its clip
    h = gate(o) * act(c)
    return (h if w.hr is None else F.linear(h, w.hr)), c


def _peephole(weight: Tensor, c: Tensor) -> Tensor:
    return weight * c if weight.ndim == 1 else F.linear(c, weight)


def _gru(cell: Cell, x: Tensor, state: States, w: Weights, dropout: Tensor | None) -> States:
    (h,) = state
    gate, act = cell.gate.function, cell.act.function
    if cell.reset_after:
        xr, xz, xn = x.chunk(3, -1)
        hr, hz, hn = _recurrent(h, w.hh, dropout).chunk(3, -1)
        if w.bias_n is not None:
            hn = hn + w.bias_n
        n = act(xn + gate(xr + hr) * hn)
        z = gate(xz + hz)
    else:
        both = 2 * cell.units
        kernel_rz, kernel_n = w.hh[:both], w.hh[both:]
        xrz, xn = x[:, :both], x[:, both:]
        several = dropout is not None and len(dropout) > 1
        r, z = (xrz + _recurrent(h, kernel_rz, dropout[:2] if several and dropout is not None else dropout)).chunk(
            2, -1
        )
        kept = h if dropout is None else h * dropout[-1]
        n = act(xn + F.linear(gate(r) * kept, kernel_n))
        z = gate(z)
    return (z * h + (1.0 - z) * n,)


def _rnn(cell: Cell, x: Tensor, state: States, w: Weights, dropout: Tensor | None) -> States:
    return (cell.act.function(x + _recurrent(state[0], w.hh, dropout)),)
