"""What the fast paths share: chunks of time, states before a step, dropout, masks.

The paths themselves are ``fast_lstm.py``, ``fast_gru.py`` and ``fast_rnn.py``; ``sequence.py`` ties them to autograd.
All give what the plain loop of ``loops.py`` gives, up to rounding, and are tested against it. What makes them fast:

- The input is projected for many steps at once, but in chunks that stay in the cache, not for the whole sequence.
- Gates stay in torch's order: those that share an activation lie side by side and take it together, and no weight has
  to be put into another order first, which small layers would feel.
- A step writes in place into views that were made in bulk.
- ``arithmetic.py`` computes small things with NumPy, ``products.py`` large products with oneDNN.
- Training keeps the activated gates and the states, no more. Backward computes the factors of many steps in bulk; what
  is left for a step are a few multiplications and a product. Weights get their gradients by one product a chunk.

Letters of the shapes: T time, B batch, F features, H units, S state (H, or the projection), G gates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gatewise_torch.arithmetic import Array, ByNumPy, ByTorch, Write
from gatewise_torch.loops import Run, Weights

Arithmetic = ByTorch | ByNumPy
Grads = tuple[Tensor | None, ...]

CHUNK_BYTES = 1 << 19  # gates of one chunk: half a second-level cache, the weights want the other half
LEAST_STEPS = 4  # … but so many steps at least, so that products stay large

# In the loops nothing is recorded for autograd. This private way leaves out the book-keeping of views and of writing
# in place, too, a fifth of the time of a small layer; the public way does the same, slower.
quiet: Any = getattr(torch._C, "_AutoDispatchBelowADInplaceOrView", torch.no_grad)

_is_batched: Any = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda _: False)  # private, too

# -------------------------------------------------------------------------------------------------- what goes on around

# Tensors of other kinds may hold their numbers elsewhere, or want to see each operation.
ORDINARY = frozenset((Tensor, nn.Parameter, type(None)))


def ordinary(tensors: Iterable[Tensor | None]) -> bool:
    """Say whether the numbers of tensors lie where an ordinary tensor has them."""
    return ORDINARY.issuperset(map(type, tensors))


def batched(tensors: Iterable[Tensor | None]) -> bool:
    """Say whether a tensor stands for many, as in ``torch.autograd.grad(…, is_grads_batched=True)``."""
    return any(tensor is not None and _is_batched(tensor) for tensor in tensors)


def transformed() -> bool:
    """Say whether something looks at single operations, or changes them: then only the plain loop will do."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
    )


def batches() -> bool:
    """Say whether a transform of torch.func other than a gradient is on, for which torch.nn's kernels have no rule."""
    if not torch._C._are_functorch_transforms_active():
        return False
    kinds: Any = getattr(torch._C._functorch, "TransformType", None)
    return kinds is None or any(
        level.key() != kinds.Grad for level in torch._C._functorch.get_interpreter_stack() or ()
    )


def casts(tensor: Tensor) -> bool:
    """Say whether autocast is on where a tensor lies."""
    return not tensor.is_meta and torch.is_autocast_enabled(tensor.device.type)  # asked for meta, torch would raise


# ----------------------------------------------------------------------------------------------------------------- time


def split_time(x: Tensor, width: int, backwards: bool) -> list[slice]:
    """Return slices of the time axis of x (T, B, F), in the order in which it is read, for so wide a step."""
    time = len(x)
    size = min(time, max(LEAST_STEPS, CHUNK_BYTES // max(x.shape[1] * width * x.element_size(), 1)))
    starts = range(0, time, size)
    if not backwards:
        return [slice(start, min(start + size, time)) for start in starts]
    return [slice(max(time - start - size, 0), time - start) for start in starts]


def during(array: Array, chunk: slice) -> Array:
    """Return what an array (T, …) holds in a chunk of time."""
    return array if chunk.stop - chunk.start == len(array) else array[chunk]


def gates_of(whole: Array, units: int) -> list[Array]:
    """Return the gates (…, H) of an array (…, G*H)."""
    return [whole[..., start : start + units] for start in range(0, whole.shape[-1], units)]


def rows_of(array: Array) -> Array:
    """Return an array (time, B, size) as (time * B, size)."""
    return array.reshape(-1, array.shape[2])


def gradients_of(
    by: Arithmetic, grad_hidden: Array | None, chunk: slice, dh: Array | None, first: Array, backwards: bool, last: bool
) -> tuple[Array, list[Any]]:
    """Return the gradients of the states of a chunk, to which the steps add theirs, (time, B, S), and step by step.

    The steps are in the order of the way back, and end with the state before the chunk.

    Args:
        by: What the steps compute with.
        grad_hidden: Gradient of the states behind each step as outputs, (T, B, S); None is zero.
        chunk: Which steps.
        dh: The gradient that comes from behind the chunk; None is zero.
        first: The first state.
        backwards: Whether the sequence is read from its end.
        last: Whether the gradient of the state before the chunk, which stands last, is of no use; then it is None.
    """
    if grad_hidden is None:
        own = by.zeros(chunk.stop - chunk.start, *first.shape)
    else:
        own = by.copied(during(grad_hidden, chunk))
    states = [state for (state,) in by.steps_of([own], not backwards)]
    if dh is not None:
        by.add(states[0], dh)
    return own, [*states, None if last else by.zeros(*first.shape)]


def before(by: Arithmetic, states: Array, first: Array, chunk: slice, backwards: bool) -> Array:
    """Return the state before each step of a chunk, of the states (T, B, H) behind each step."""
    if backwards:
        if chunk.stop < len(states):
            return states[chunk.start + 1 : chunk.stop + 1]
        return by.concatenate([states[chunk.start + 1 :], first[None]])
    if chunk.start > 0:
        return states[chunk.start - 1 : chunk.stop - 1]
    return by.concatenate([first[None], states[: chunk.stop - 1]])


def summed(by: Arithmetic, so_far: Array | None, d_gates: Array) -> Array:
    """Return the gradient of a bias with that of one more chunk, (rows, G*H), in it."""
    more = d_gates.sum(0)
    if so_far is None:
        return more
    by.add(so_far, more)
    return so_far


class Sums:
    """What all cells add up on the way back: the gradients of the input, of its kernel and of the biases.

    Attributes:
        x: Gradient of the input, (T, B, F), or None where it is not wanted.
        kernel: What gathers that of the kernel.
        bias: Gradient of a bias, (G*H,), or None.
    """

    def __init__(self, by: Arithmetic, x: Tensor, w: Weights, run: Run, needs: tuple[bool, ...]) -> None:
        self.by, self.w, self.inputs, self.dropout = by, w, by.view(x), run.input_dropout
        self.needs_kernel, _, self.needs_bias, self.needs_second, *_ = needs[-6:]
        self.x = by.empty(*x.shape) if needs[0] else None
        self.kernel = gathered(by, w.ih, run.input_dropout)
        self.bias: Array | None = None

    def add(self, chunk: slice, d_gates: Array) -> Array:
        """Add what follows from the gradients of the gates of a chunk, (time, B, G*H); return them, (rows, G*H)."""
        flat = rows_of(d_gates)
        if self.x is not None:
            write_input_gradient(self.by, d_gates, self.w.ih, self.dropout, during(self.x, chunk))
        if self.needs_kernel:
            self.kernel.add(flat, rows_of(during(self.inputs, chunk)))
        if self.needs_bias or self.needs_second:
            self.bias = summed(self.by, self.bias, flat)
        return flat

    def biases(self) -> tuple[Array | None, Array | None]:
        """Return the gradients of the bias and of the second one; equal, but each in memory of its own."""
        second = self.by.copied(self.bias) if self.needs_second else None
        return self.bias if self.needs_bias else None, second


def tensors(by: Arithmetic, *arrays: Array | Tensor | None) -> Grads:
    """Return arrays as tensors."""
    return tuple(each if each is None or isinstance(each, Tensor) else by.tensor(each) for each in arrays)


# -------------------------------------------------------------------------------------------------------------- dropout


class Part(NamedTuple):
    """The gates that see their argument, the input or the state, through one mask of dropout.

    Attributes:
        gates: Which of (…, G*H).
        kernel: What they multiply it with, (gates*H, size).
        scale: (B, size), what dropout multiplies it with.
    """

    gates: slice
    kernel: Tensor
    scale: Array


def parts_of(by: Arithmetic, kernel: Tensor, dropout: Tensor) -> list[Part]:
    """Return the parts of a kernel (G*H, size), as many as dropout (1 or G, B, size) has masks."""
    size = len(kernel) // len(dropout)
    gates = [slice(start, start + size) for start in range(0, len(kernel), size)]
    return [Part(own, kernel[own], scale) for own, scale in zip(gates, by.view(dropout), strict=True)]


def projector(by: Arithmetic, w: Weights, dropout: Tensor | None, chunks: list[slice]) -> Callable[[Array], Array]:
    """Return what gives ``W x + b``, (time, B, G*H), for the input x of a chunk, (time, B, F)."""
    steps, times, bias = chunks[0].stop - chunks[0].start, len(chunks), w.whole_bias()
    if dropout is None:
        return by.projector(w.ih, bias, steps, times)
    parts = [
        (scale, by.projector(kernel, bias if bias is None else bias[gates], steps, times))
        for gates, kernel, scale in parts_of(by, w.ih, dropout)
    ]
    if len(parts) == 1:
        scale, project = parts[0]
        return lambda x: project(x * scale)
    return lambda x: by.concatenate([project(x * scale) for scale, project in parts], -1)


def adder(by: Arithmetic, kernel: Tensor, dropout: Tensor | None, times: int) -> Write:
    """Return what adds ``U h`` onto its first argument, (B, G*H), for a state h (B, S), so many times."""
    if dropout is None:
        return by.adder(kernel, times)
    parts = [
        (see, scale, by.empty(*scale.shape), by.adder(own, times)) for see, own, scale in _heard(by, kernel, dropout)
    ]

    def add_dropped(onto: Array, h: Array) -> None:
        for see, scale, dropped, add in parts:
            by.multiply(h, scale, dropped)
            add(see(onto), dropped)

    return add_dropped


def summer(
    by: Arithmetic, kernel: Tensor, added: Tensor | None, dropout: Tensor | None, times: int
) -> Callable[[Array, Array], Array]:
    """Return what gives ``U h + added``, as ``by.summer`` does."""
    if dropout is None:
        return by.summer(kernel, added, times)
    add, start = adder(by, kernel, dropout, times), by.view(kernel.new_zeros(1) if added is None else added)

    def total(h: Array, out: Array) -> Array:
        by.copy(out, start)
        add(out, h)
        return out

    return total


def back_adder(by: Arithmetic, kernel: Tensor, dropout: Tensor | None, times: int) -> Write:
    """Return what adds the gradient of h in ``U h`` onto its first argument, for that of the gates, (B, G*H)."""
    if dropout is None:
        return by.adder(kernel.t(), times)
    parts = [
        (see, scale, by.empty(*scale.shape), by.summer(own.mT, None, times))
        for see, own, scale in _heard(by, kernel, dropout)
    ]

    def add_back(onto: Array, d_gates: Array) -> None:
        for see, scale, space, multiply in parts:
            product = multiply(see(d_gates), space)
            by.multiply(product, scale, product)
            by.add(onto, product if product.ndim == 2 else product.sum(0))

    return add_back


def write_input_gradient(by: Arithmetic, d_gates: Array, kernel: Tensor, dropout: Tensor | None, out: Array) -> None:
    """Write the gradient of the input, (time, B, F), for that of the gates, (time, B, G*H)."""
    if dropout is None:
        by.write_product(d_gates, kernel.t(), out)
        return
    product = by.empty(*out.shape)
    by.copy(out, by.zeros(1))
    for gates, own, scale in parts_of(by, kernel, dropout):
        by.write_product(d_gates[..., gates], own.t(), product)
        by.add(out, product * scale)


class GatheredParts:
    """The gradient of a kernel (G*H, size), added up chunk by chunk, where dropout is on what it multiplies."""

    def __init__(self, by: Arithmetic, kernel: Tensor, dropout: Tensor) -> None:
        self.parts = [(part, by.gathered(part.kernel, LEAST_STEPS)) for part in parts_of(by, kernel, dropout)]

    def add(self, d_gates: Array, x: Array) -> None:
        """Add ``d_gates.T @ x``, for d_gates (rows, G*H) and x (rows, size)."""
        for (gates, _, scale), part in self.parts:
            part.add(d_gates[:, gates], rows_of(x.reshape(-1, *scale.shape) * scale))

    def total(self) -> Tensor | None:
        """Return what was added, in the form of the kernel; None where nothing was."""
        totals = [part.total() for _, part in self.parts]
        return totals[0] if totals[0] is None or len(totals) == 1 else torch.cat(totals)  # type: ignore[arg-type]


def gathered(by: Arithmetic, kernel: Tensor, dropout: Tensor | None) -> Any:
    """Return what adds up the gradient of a kernel."""
    return by.gathered(kernel, LEAST_STEPS) if dropout is None else GatheredParts(by, kernel, dropout)


def _heard(by: Arithmetic, kernel: Tensor, dropout: Tensor) -> list[tuple[Callable[[Array], Array], Tensor, Array]]:
    """Return what of the gates (B, G*H) one product is for, its kernel, and the masks of the state for it.

    Where each gate has its own mask, it has its own product, too; small ones are stacked and made by one call.
    """
    gates = len(dropout)
    if gates == 1:
        return [(lambda whole: whole, kernel, by.view(dropout[0]))]
    if by.stacks(kernel):
        kernels = kernel.reshape(gates, -1, kernel.shape[1])
        return [(lambda whole: whole.reshape(len(whole), gates, -1).swapaxes(0, 1), kernels, by.view(dropout))]
    return [(itemgetter((slice(None), own)), part, scale) for own, part, scale in parts_of(by, kernel, dropout)]


# ---------------------------------------------------------------------------------------------------------------- masks


def masked(by: Arithmetic, run: Run) -> Iterator[Array | None]:
    """Return for each step, in the order of reading, which rows are masked, (B, 1); None where none is."""
    if run.mask is None:
        return itertools.repeat(None)
    rows = ~run.mask.unsqueeze(-1)
    steps: list[Array | None] = [step for (step,) in by.steps_of([by.view(rows)], False)]
    if rows.device.type == "cpu":  # an accelerator would have to wait
        steps = [step if some else None for step, some in zip(steps, rows.any(1).squeeze(-1).tolist(), strict=True)]
    return reversed(steps) if run.backwards else iter(steps)


def blank(by: Arithmetic, run: Run, chunk: slice, *factors: Array) -> None:
    """Write zeros over factors of gradients, (time, B, size), where a step is masked."""
    if run.mask is not None:
        rows = by.view(~run.mask[chunk].unsqueeze(-1))
        for factor in factors:
            by.fill(rows, 0.0, factor)


def unmasked(by: Arithmetic, run: Run, chunk: slice, factor: Array) -> Array:
    """Return what a state is multiplied with, (time, B, H), in a masked step by one."""
    if run.mask is None:
        return factor
    factor = by.copied(factor)
    by.fill(by.view(~run.mask[chunk].unsqueeze(-1)), 1.0, factor)
    return factor


def passing(by: Arithmetic, run: Run, chunk: slice) -> Iterator[Array | None]:
    """Return for each step, in the order of the way back, what of the gradient passes it by, (B, 1); None: nothing."""
    if run.mask is None:
        return itertools.repeat(None)
    rows = by.view((~run.mask[chunk]).unsqueeze(-1).to(by.x.dtype))
    return (step for (step,) in by.steps_of([rows], not run.backwards))


def shown(run: Run) -> Tensor | None:
    """Return which outputs (T, B, 1) are the state, the others being zero; None where all are."""
    if run.mask is None:
        return None
    # A masked step repeats the output before it; before the first step that counts there is none.
    seen = run.mask if run.zero else (run.mask.flip(0).cumsum(0).flip(0) if run.backwards else run.mask.cumsum(0)) > 0
    if run.mask.device.type == "cpu" and bool(seen.all()):
        return None
    return seen.unsqueeze(-1)
