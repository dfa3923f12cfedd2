"""Fast paths of the LSTM: inference in place, and training with a backward pass of its own.

Both give what the plain loop of ``loops.py`` gives, up to rounding, and are tested against it. What makes them fast:

- The input is projected for many steps at once, but in chunks that stay in the cache, not for the whole sequence.
- Gates stay in torch's order i f g o: i and f take their activation together, i f g their gradient, and no weight has
  to be put into another order first, which small layers would feel.
- A step writes in place into views that were made in bulk.
- Large products go to oneDNN's packed linear, which torch itself uses for nn.LSTM; every ordinary product goes to MKL,
  which on AMD processors is less than half as fast.
- Backward computes the factors of many steps in bulk; what is left for a step is one multiply-add, three
  multiplications and one product. Weights get their gradients by one product a chunk.

``fast_gru.py`` does the same for training a GRU. What neither does (masks in training, peepholes, callables,
activations across units) the plain loop does.

Letters of the shapes: T time, B batch, F features, H units, S state (H, or the projection).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gatewise_torch.activations import Activation
from gatewise_torch.loops import Cell, Run, States, Weights, plain

CHUNK_BYTES = 1 << 20  # gates of one chunk: about a second-level cache
LEAST_STEPS = 4  # … but so many steps at least, so that products stay large
# From how many multiplications on a product is faster in oneDNN, and from how many such products on packing its kernel
# pays; measured with 2 to 256 rows and 64 to 512 units. A single row is no work for it.
ONEDNN_FROM = 1_000_000
PACK_FROM = 16

# In the loops nothing is recorded for autograd. This private way leaves out the book-keeping of views and of writing
# in place, too, a fifth of the time of a small layer; the public way does the same, slower.
quiet: Any = getattr(torch._C, "_AutoDispatchBelowADInplaceOrView", torch.no_grad)

CONTIGUOUS = torch.contiguous_format

Product = Callable[[Tensor, Tensor], object]
_linear: Any = None
_pack: Any = None


def _find_onednn() -> None:
    """Take oneDNN's linear if this torch has it and it works; it is private, so without it all goes on, slower."""
    global _linear, _pack
    try:
        linear, pack = torch.ops.mkldnn._linear_pointwise.default, torch.ops.mkldnn._reorder_linear_weight
        weight, x = torch.arange(6.0).view(3, 2), torch.ones(4, 2)
        for form in (weight, pack(weight, 4)):
            if not torch.equal(linear(x, form, None, "none", [], ""), x @ weight.T):
                return
    except Exception:  # whatever a private operator may raise in another version
        return
    _linear, _pack = linear, pack


if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
    _find_onednn()


def _onednn_pays(like: Tensor, rows: int, kernel: Tensor) -> bool:
    return (
        _linear is not None
        and rows > 1
        and rows * kernel.numel() >= ONEDNN_FROM
        and like.dtype == torch.float32
        and like.device.type == "cpu"
        and bool(torch.backends.mkldnn.enabled)
    )


def adder(kernel: Tensor, rows: int, like: Tensor, times: int) -> Product:
    """Return what adds ``x @ kernel.T`` onto its first argument, for x of so many rows, so many times."""
    if _onednn_pays(like, rows, kernel):
        linear, packed = _linear, _pack(kernel, rows) if times >= PACK_FROM else kernel
        return lambda onto, x: onto.add_(linear(x, packed, None, "none", [], ""))
    transposed = kernel.t()
    return lambda onto, x: onto.addmm_(x, transposed)


def product(x: Tensor, kernel: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """Return ``x @ kernel.T + bias``, for x (rows, size); in ``out`` if that spares a copy."""
    if _onednn_pays(x, len(x), kernel):
        result: Tensor = _linear(x, kernel, bias, "none", [], "")
        return result if out is None else out.copy_(result)
    if bias is None:
        return torch.mm(x, kernel.t()) if out is None else torch.mm(x, kernel.t(), out=out)
    return torch.addmm(bias, x, kernel.t()) if out is None else torch.addmm(bias, x, kernel.t(), out=out)


def split_time(time: int, step_bytes: int, backwards: bool) -> Iterator[slice]:
    """Yield slices of the time axis, in the order in which it is read."""
    size = min(time, max(LEAST_STEPS, CHUNK_BYTES // max(step_bytes, 1)))
    starts = range(0, time, size)
    if not backwards:
        yield from (slice(start, min(start + size, time)) for start in starts)
    else:
        yield from (slice(max(time - start - size, 0), time - start) for start in starts)


def in_place(activation: Activation) -> Callable[[Tensor], object]:
    """Return what writes an activation over its argument."""
    function = activation.function
    return activation.in_place or (lambda x: x.copy_(function(x)))


def _writer(activation: Activation) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what writes the activation of its first argument into its second and returns that."""
    if activation.name == "relu":
        return lambda x, out: torch.clamp_min(x, 0, out=out)
    if activation.name == "tanh":
        return lambda x, out: torch.tanh(x, out=out)
    in_place, function = activation.in_place, activation.function
    if in_place is None:
        return lambda x, out: out.copy_(function(x))

    def write(x: Tensor, out: Tensor) -> Tensor:
        in_place(out.copy_(x))
        return out

    return write


def _views(gates: Tensor, units: int, backwards: bool) -> Iterator[tuple[Tensor, ...]]:
    """Yield, step by step, the views of (T, B, 4*H) that a step works on: all, i and f, and each of i f g o."""
    views = [gates, gates[..., : 2 * units], *gates.chunk(4, -1)]
    steps = list(zip(*(view.unbind(0) for view in views), strict=True))
    return iter(steps[::-1] if backwards else steps)


# ------------------------------------------------------------------------------------------------------ inference


def can_infer(cell: Cell, w: Weights, run: Run) -> bool:
    """Say whether ``infer`` does this."""
    return cell.kind == "lstm" and w.ch is None and cell.act.known and cell.gate.known and not cell.gate.across


def infer(cell: Cell, x: Tensor, state: States, w: Weights, run: Run) -> tuple[Tensor, States]:
    """Do what ``loops.plain`` does, where no gradient is wanted."""
    time, batch, _ = x.shape
    units, size = cell.units, state[0].shape[1]
    outputs = x.new_empty((time, batch, size))
    valid: list[Any] = [None] * time if run.mask is None else list(run.mask.unsqueeze(-1).unbind(0))
    written = list(outputs.unbind(0))
    if run.backwards:
        written.reverse()
        valid.reverse()
    steps = iter(zip(written, valid, strict=True))
    with quiet():
        gate, act, write = in_place(cell.gate), in_place(cell.act), _writer(cell.act)
        add = adder(w.hh, batch, x, time)
        bias, clip, hr = w.whole_bias(), cell.cell_clip, w.hr
        h, c = state[0], state[1].clone()
        previous = torch.zeros_like(h) if run.mask is not None else h
        zero = torch.zeros_like(h) if run.mask is not None and run.zero else None
        narrow = None if hr is None else x.new_empty((batch, units))
        for chunk in split_time(time, batch * 4 * units * x.element_size(), run.backwards):
            part = x[chunk]
            if run.input_dropout is not None:
                part = part * run.input_dropout
            gates = product(part.reshape(-1, x.shape[2]), w.ih, bias).view(-1, batch, 4 * units)
            for z, both, i, f, g, o in _views(gates, units, run.backwards):
                out, counts = next(steps)
                add(z, h)
                gate(both)
                gate(o)
                act(g)
                kept = c
                c = c.mul_(f) if counts is None else c * f
                c.addcmul_(i, g)
                if clip is not None:
                    c.clamp_(-clip, clip)
                if hr is None:
                    new = write(c, out).mul_(o)
                else:
                    new = torch.mm(write(c, narrow).mul_(o), hr.t(), out=out)  # type: ignore[arg-type]
                if counts is None:
                    h = new
                else:
                    h, c = torch.where(counts, new, h), torch.where(counts, c, kept)
                    previous = torch.where(counts, new, previous if zero is None else zero, out=out)
    return outputs, (h, c)


# ------------------------------------------------------------------------------------------------------- training


def can_train(cell: Cell, w: Weights, run: Run) -> bool:
    """Say whether ``train`` does this."""
    return (
        cell.kind == "lstm"
        and w.ch is None
        and w.hr is None
        and run.mask is None
        and cell.cell_clip is None
        and cell.act.slope is not None
        and cell.gate.slope is not None
    )


def train(cell: Cell, x: Tensor, state: States, w: Weights, run: Run) -> tuple[Tensor, States]:
    """Do what ``loops.plain`` does, with a faster way back."""
    if run.input_dropout is not None:
        x = x * run.input_dropout
    tensors = (x, *state, w.ih, w.hh, w.bias, w.second)
    output, h, c = _Lstm.apply(cell, run.backwards, *tensors)  # type: ignore[no-untyped-call]
    return output, (h, c)


class _Lstm(torch.autograd.Function):
    """One layer and direction of an LSTM."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        backwards: bool,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        ih: Tensor,
        hh: Tensor,
        bias: Tensor | None,
        second: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        time, batch, _ = x.shape
        units, first_h, first_c = cell.units, h, c
        gate, act, write = in_place(cell.gate), in_place(cell.act), _writer(cell.act)
        chunks = list(split_time(time, batch * 4 * units * x.element_size(), backwards))
        # Of every step and the one before the first: there is one place more than steps.
        memory = x.new_empty((time + 1, batch, units))
        output = x.new_empty((time, batch, units))
        with quiet():
            add = adder(hh, batch, x, time)
            whole_bias = Weights(ih, hh, bias, second).whole_bias()
            if len(chunks) == 1:
                gates = product(x.reshape(-1, x.shape[2]), ih, whole_bias).view(time, batch, 4 * units)
            else:
                gates = x.new_empty((time, batch, 4 * units))
            cells, outputs = list(memory.unbind(0)), list(output.unbind(0))
            if backwards:
                cells.reverse()
                outputs.reverse()
            c = cells[0].copy_(c)
            places = iter(zip(cells[1:], outputs, strict=True))
            for chunk in chunks:
                part = gates[chunk]
                if len(chunks) > 1:
                    product(x[chunk].reshape(-1, x.shape[2]), ih, whole_bias, out=part.view(-1, 4 * units))
                for z, both, i, f, g, o in _views(part, units, backwards):
                    new, out = next(places)
                    add(z, h)
                    gate(both)
                    gate(o)
                    act(g)
                    c = torch.mul(c, f, out=new).addcmul_(i, g)
                    h = write(c, out).mul_(o)
        ctx.save_for_backward(x, first_h, first_c, ih, hh, bias, second, output, gates, memory)
        ctx.cell, ctx.backwards = cell, backwards
        ctx.set_materialize_grads(False)  # of a whole sequence of zeros, where the last state alone was used
        return output, h.clone(), c.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, h0, c0, ih, hh, bias, second, output, gates, memory = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Someone will differentiate what comes out of here, of which the fast way knows nothing.
            return None, None, *replayed(ctx.cell, ctx.backwards, (x, h0, c0), (ih, hh, bias, second), grads)
        needs = ctx.needs_input_grad[2:]
        # Making the context costs a small layer 5 % of its step, so it is made where there is something to switch off.
        casts = torch.is_autocast_enabled(x.device.type)
        with torch.autocast(x.device.type, enabled=False) if casts else contextlib.nullcontext():
            found = _lstm_gradients(ctx.cell, ctx.backwards, x, h0, ih, hh, output, gates, memory, grads, needs)
        return None, None, *found


def replayed(
    cell: Cell,
    backwards: bool,
    inputs: tuple[Tensor, ...],
    weights: tuple[Tensor | None, ...],
    grads: tuple[Tensor | None, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients by way of the plain loop, so that they can be differentiated again.

    ``inputs`` are x and the first states; ``grads`` are those of the outputs and the last states.
    """
    # Aliases: an input may depend on another one (a tied weight below), and must not be counted through it.
    aliases: list[Any] = [None if tensor is None else tensor.view_as(tensor) for tensor in (*inputs, *weights)]
    x, *state = aliases[: len(inputs)]
    outputs, last = plain(cell, x, tuple(state), Weights(*aliases[len(inputs) :]), Run(backwards))
    given = [(out, grad) for out, grad in zip((outputs, *last), grads, strict=True) if grad is not None]
    wanted = [one for one in aliases if one is not None and one.requires_grad]
    found = iter(
        torch.autograd.grad(
            [out for out, _ in given], wanted, [grad for _, grad in given], create_graph=True, allow_unused=True
        )
    )
    return tuple(next(found) if one is not None and one.requires_grad else None for one in aliases)


def _lstm_gradients(
    cell: Cell,
    backwards: bool,
    x: Tensor,
    h0: Tensor,
    ih: Tensor,
    hh: Tensor,
    output: Tensor,
    gates: Tensor,
    memory: Tensor,
    grads: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, h, c, ih, hh and bias, those that are needed."""
    needs_x, needs_h, needs_c, needs_ih, needs_hh, needs_bias, needs_second = needs
    grad_output, grad_h, grad_c = grads
    (time, batch, features), units = x.shape, cell.units
    gate_slope, act_slope, act = cell.gate.slope, cell.act.slope, cell.act.function
    assert gate_slope is not None
    assert act_slope is not None

    dx = x.new_empty(x.shape) if needs_x else None
    with quiet():
        add = adder(hh.t(), batch, x, time)  # U^T times the gradient of the gates
        dc = torch.zeros_like(h0) if grad_c is None else grad_c.clone()
        dc_thrice = dc.unsqueeze(1)
        d_kernel, d_recurrent, d_bias = Gathered(x, ih), Gathered(x, hh), None

        new_memory, old_memory = (memory[:-1], memory[1:]) if backwards else (memory[1:], memory[:-1])
        first, last = (time - 1, 0) if backwards else (0, time - 1)  # by the order of the forward pass
        dh = torch.zeros_like(h0) if grad_h is None else grad_h.clone()
        if grad_output is not None:
            dh.add_(grad_output[last])
        # Against the order of the forward pass.
        for chunk in split_time(time, batch * 4 * units * x.element_size(), not backwards):
            i, f, g, o = gates[chunk].chunk(4, -1)
            act_c = act(new_memory[chunk])
            through_c = act_slope(o, act_c)  # from h to c
            factors = torch.cat(
                [gate_slope(g, i), gate_slope(old_memory[chunk], f), act_slope(i, g), gate_slope(act_c, o)], -1
            )
            # Each step makes the gradient of the state before it; that state's own, as an output, is there already.
            start, stop = (chunk.start + 1, chunk.stop + 1) if backwards else (chunk.start - 1, chunk.stop - 1)
            inside = slice(max(start, 0), min(stop, time))
            outer = chunk.start <= first < chunk.stop
            shape = (inside.stop - inside.start, batch, units)
            own = x.new_zeros(shape) if grad_output is None else grad_output[inside].clone(memory_format=CONTIGUOUS)
            before: list[Tensor | None] = list(own.unbind(0))
            if outer:
                before.insert(len(before) if backwards else 0, torch.zeros_like(h0) if needs_h else None)
            steps = list(
                zip(
                    before,
                    through_c.unbind(0),
                    f.unbind(0),
                    factors.unbind(0),
                    factors[..., 3 * units :].unbind(0),
                    factors.view(-1, batch, 4, units)[:, :, :3].unbind(0),
                    strict=True,
                )
            )
            for d_before, slope, forget, d_gates, d_o, d_ifg in steps if backwards else reversed(steps):
                dc.addcmul_(dh, slope)
                d_o.mul_(dh)
                d_ifg.mul_(dc_thrice)
                dc.mul_(forget)
                if d_before is not None:
                    dh = d_before
                    add(dh, d_gates)
            flat = factors.view(-1, 4 * units)
            if dx is not None:
                product(flat, ih.t(), None, out=dx[chunk].view(-1, features))
            if needs_ih:
                d_kernel.add(flat, x[chunk].reshape(-1, features))
            if needs_bias or needs_second:
                d_bias = flat.sum(0) if d_bias is None else d_bias.add_(flat.sum(0))
            if needs_hh and len(before) > outer:
                these = factors[inside.start - start : len(factors) - (stop - inside.stop)]
                d_recurrent.add(these.reshape(-1, 4 * units), output[inside].reshape(-1, units))
            if needs_hh and outer:
                d_recurrent.add(factors[first - chunk.start], h0)
        return (
            dx,
            dh if needs_h else None,
            dc if needs_c else None,
            d_kernel.total(),
            d_recurrent.total(),
            d_bias if needs_bias else None,
            d_bias if needs_second else None,
        )


class Gathered:
    """The gradient of a kernel (4*H, size), added up chunk by chunk."""

    def __init__(self, like: Tensor, kernel: Tensor) -> None:
        self.sum: Tensor | None = None
        # Transposed, oneDNN makes it twice as fast as MKL; the other way round there would be no gain.
        self.transposed = _onednn_pays(like, LEAST_STEPS * like.shape[1], kernel)

    def add(self, d_gates: Tensor, x: Tensor) -> None:
        """Add ``d_gates.T @ x``, for d_gates (rows, 4*H) and x (rows, size)."""
        if self.transposed:
            added = _linear(x.t(), d_gates.t(), None, "none", [], "")
            self.sum = added if self.sum is None else self.sum.add_(added)
        else:
            transposed = d_gates.t()
            self.sum = torch.mm(transposed, x) if self.sum is None else self.sum.addmm_(transposed, x)

    def total(self) -> Tensor | None:
        """Return what was added, in the form of the kernel."""
        return self.sum if self.sum is None or not self.transposed else self.sum.t().contiguous()
