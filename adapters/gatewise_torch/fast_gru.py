"""Fast training of the GRU that resets after the recurrent product: as in ``fast.py``, with less memory than autograd.

Its steps keep the activated gates r z n and the recurrent part of the candidate, on which the reset gate acts.

Letters of the shapes: T time, B batch, F features, H units.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

from gatewise_torch.fast import CONTIGUOUS, Gathered, adder, in_place, product, quiet, replayed, split_time
from gatewise_torch.loops import Cell, Run, States, Weights


def can_train(cell: Cell, w: Weights, run: Run) -> bool:
    """Say whether ``train`` does this."""
    slopes = cell.act.slope is not None and cell.gate.slope is not None
    return cell.kind == "gru" and cell.reset_after and slopes and run.mask is None


def train(cell: Cell, x: Tensor, state: States, w: Weights, run: Run) -> tuple[Tensor, States]:
    """Do what ``loops.plain`` does, with a faster way back."""
    if run.input_dropout is not None:
        x = x * run.input_dropout
    tensors = (x, *state, w.ih, w.hh, w.bias, w.second, w.bias_n)
    output, h = _Gru.apply(cell, run.backwards, *tensors)  # type: ignore[no-untyped-call]
    return output, (h,)


class _Gru(torch.autograd.Function):
    """One layer and direction of a GRU."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        backwards: bool,
        x: Tensor,
        h: Tensor,
        ih: Tensor,
        hh: Tensor,
        bias: Tensor | None,
        second: Tensor | None,
        bias_n: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        time, batch, _ = x.shape
        units, first = cell.units, h
        gate, act = in_place(cell.gate), in_place(cell.act)
        output, recurrent = (x.new_empty((time, batch, units)) for _ in range(2))
        gates = x.new_empty((time, batch, 3 * units))
        with quiet():
            add = adder(hh, batch, x, time)
            whole_bias = Weights(ih, hh, bias, second).whole_bias()
            summed = x.new_empty((batch, 3 * units))
            from_rz, from_n = summed[:, : 2 * units], summed[:, 2 * units :]
            for chunk in split_time(time, batch * 3 * units * x.element_size(), backwards):
                part = gates[chunk]
                product(x[chunk].reshape(-1, x.shape[2]), ih, whole_bias, out=part.view(-1, 3 * units))
                views = [part[..., : 2 * units], *part.chunk(3, -1), recurrent[chunk], output[chunk]]
                steps = list(zip(*(view.unbind(0) for view in views), strict=True))
                for both, r, z, n, hn, out in reversed(steps) if backwards else steps:
                    add(summed.zero_(), h)
                    gate(both.add_(from_rz))
                    if bias_n is None:
                        hn.copy_(from_n)
                    else:
                        torch.add(from_n, bias_n, out=hn)
                    act(n.addcmul_(r, hn))
                    h = torch.mul(z, h, out=out).addcmul_(1.0 - z, n)
        ctx.save_for_backward(x, first, ih, hh, bias, second, bias_n, output, gates, recurrent)
        ctx.cell, ctx.backwards = cell, backwards
        ctx.set_materialize_grads(False)
        return output, h.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, h0, ih, hh, bias, second, bias_n, output, gates, recurrent = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, None, *replayed(ctx.cell, ctx.backwards, (x, h0), (ih, hh, bias, second, bias_n), grads)
        needs = ctx.needs_input_grad[2:]
        casts = torch.is_autocast_enabled(x.device.type)
        with torch.autocast(x.device.type, enabled=False) if casts else contextlib.nullcontext():
            found = _gradients(ctx.cell, ctx.backwards, x, h0, ih, hh, output, gates, recurrent, grads, needs)
        return None, None, *found


def _gradients(
    cell: Cell,
    backwards: bool,
    x: Tensor,
    h0: Tensor,
    ih: Tensor,
    hh: Tensor,
    output: Tensor,
    gates: Tensor,
    recurrent: Tensor,
    grads: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, h, ih, hh, bias, second and bias_n, those that are needed."""
    needs_x, needs_h, needs_ih, needs_hh, needs_bias, needs_second, needs_bias_n = needs
    grad_output, grad_h = grads
    (time, batch, features), units = x.shape, cell.units
    gate_slope, act_slope = cell.gate.slope, cell.act.slope
    assert gate_slope is not None
    assert act_slope is not None

    dx = x.new_empty(x.shape) if needs_x else None
    with quiet():
        add = adder(hh.t(), batch, x, time)
        d_kernel, d_recurrent, d_bias, d_bias_n = Gathered(x, ih), Gathered(x, hh), None, None
        first, last = (time - 1, 0) if backwards else (0, time - 1)  # by the order of the forward pass
        dh = torch.zeros_like(h0) if grad_h is None else grad_h.clone()
        if grad_output is not None:
            dh.add_(grad_output[last])
        # Against the order of the forward pass.
        for chunk in split_time(time, batch * 3 * units * x.element_size(), not backwards):
            start, stop = (chunk.start + 1, chunk.stop + 1) if backwards else (chunk.start - 1, chunk.stop - 1)
            inside, outer = slice(max(start, 0), min(stop, time)), chunk.start <= first < chunk.stop
            h = output[inside]  # the state before each step
            if outer:
                h = torch.cat([h, h0.unsqueeze(0)] if backwards else [h0.unsqueeze(0), h])
            r, z, n = gates[chunk].chunk(3, -1)
            hn = recurrent[chunk]
            # What the gradient of the output is multiplied with to become that of the gates, as the input sees them …
            d_gates = torch.cat([gate_slope(hn, r), gate_slope(h - n, z), act_slope(1.0 - z, n)], -1)
            # … and as the state sees them: the candidate's passes the reset gate.
            d_seen = torch.empty_like(d_gates)
            # The state's own gradient, as an output, to which the step behind it adds.
            own = torch.zeros_like(h) if grad_output is None else grad_output[inside].clone(memory_format=CONTIGUOUS)
            before: list[Any] = list(own.unbind(0))[: inside.stop - inside.start]
            if outer:
                before.insert(len(before) if backwards else 0, torch.zeros_like(h0) if needs_h else None)
            views = [
                d_gates[..., : 2 * units],
                d_gates[..., :units],
                d_gates[..., 2 * units :],
                d_gates.view(-1, batch, 3, units)[:, :, 1:],
                d_seen,
                d_seen[..., : 2 * units],
                d_seen[..., 2 * units :],
                r,
                z,
            ]
            steps = list(zip(before, *(view.unbind(0) for view in views), strict=True))
            for d_before, d_rz, d_r, d_n, d_zn, seen, seen_rz, seen_n, r_t, z_t in (
                steps if backwards else reversed(steps)
            ):
                d_zn.mul_(dh.unsqueeze(1))
                d_r.mul_(d_n)
                seen_rz.copy_(d_rz)
                torch.mul(d_n, r_t, out=seen_n)
                if d_before is not None:
                    d_before.addcmul_(dh, z_t)
                    dh = d_before
                    add(dh, seen)
            flat, flat_seen = d_gates.view(-1, 3 * units), d_seen.view(-1, 3 * units)
            if dx is not None:
                product(flat, ih.t(), None, out=dx[chunk].view(-1, features))
            if needs_ih:
                d_kernel.add(flat, x[chunk].reshape(-1, features))
            if needs_hh:
                d_recurrent.add(flat_seen, h.reshape(-1, units))
            if needs_bias or needs_second:
                d_bias = flat.sum(0) if d_bias is None else d_bias.add_(flat.sum(0))
            if needs_bias_n:
                one = flat_seen[:, 2 * units :].sum(0)
                d_bias_n = one if d_bias_n is None else d_bias_n.add_(one)
        return (
            dx,
            dh if needs_h else None,
            d_kernel.total(),
            d_recurrent.total(),
            d_bias if needs_bias else None,
            d_bias if needs_second else None,
            d_bias_n,
        )
