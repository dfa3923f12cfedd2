"""What the fast paths share: products, chunks of time, ways to write in place, masks.

The paths themselves are ``fast_lstm.py``, ``fast_gru.py`` and ``fast_rnn.py``; ``sequence.py`` ties them to autograd.
All give what the plain loop of ``loops.py`` gives, up to rounding, and are tested against it. What makes them fast:

- The input is projected for many steps at once, but in chunks that stay in the cache, not for the whole sequence.
- Gates stay in torch's order: those that share an activation lie side by side and take it together, and no weight has
  to be put into another order first, which small layers would feel.
- A step writes in place into views that were made in bulk.
- Large products go to oneDNN's packed linear, which torch itself uses for nn.LSTM; every ordinary product goes to MKL,
  which on some AMD processors is less than half as fast.
- Training keeps the activated gates and the states, no more. Backward computes the factors of many steps in bulk; what
  is left for a step are a few multiplications and a product. Weights get their gradients by one product a chunk.

Letters of the shapes: T time, B batch, F features, H units, S state (H, or the projection), G gates.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from gatewise_torch.activations import Activation, Function
from gatewise_torch.loops import Run

CHUNK_BYTES = 1 << 20  # gates of one chunk: about a second-level cache
LEAST_STEPS = 4  # … but so many steps at least, so that products stay large
# From how many multiplications on a product may be faster in oneDNN, from how many it surely is not slower, and from
# how many such products on packing its kernel pays; measured with 2 to 256 rows and 64 to 512 units. A single row is no
# work for it.
ONEDNN_FROM = 1_000_000
ONEDNN_SURELY_FROM = 16_000_000
PACK_FROM = 16
TANH_FROM = 1 << 16  # from how many numbers on oneDNN's tanh pays

# In the loops nothing is recorded for autograd. This private way leaves out the book-keeping of views and of writing
# in place, too, a fifth of the time of a small layer; the public way does the same, slower.
quiet: Any = getattr(torch._C, "_AutoDispatchBelowADInplaceOrView", torch.no_grad)

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


@functools.cache
def _onednn_leads() -> bool:
    """Say whether oneDNN multiplies faster than MKL here, by a clear margin, so that the answer is always the same.

    It depends on the processor: where MKL leaves the wide registers unused it is at half of oneDNN's speed, elsewhere
    the two are level, and for products of middling size oneDNN's call is the dearer one.
    """
    with quiet():
        x, kernel = torch.ones(32, 128), torch.ones(512, 128)
        packed, out = _pack(kernel, 32), torch.zeros(32, 512)
        transposed = kernel.t()

        def shortest(call: Callable[[], object]) -> float:
            taken = []
            for _ in range(12):
                start = perf_counter()
                call()
                taken.append(perf_counter() - start)
            return min(taken)

        ours = shortest(lambda: out.add_(_linear(x, packed, None, "none", [], "")))
        return ours < 0.85 * shortest(lambda: out.addmm_(x, transposed))


def _onednn_pays(like: Tensor, rows: int, kernel: Tensor) -> bool:
    size = rows * kernel.numel()
    return (
        _linear is not None
        and rows > 1
        and size >= ONEDNN_FROM
        and like.dtype == torch.float32
        and like.device.type == "cpu"
        and bool(torch.backends.mkldnn.enabled)
        and (size >= ONEDNN_SURELY_FROM or _onednn_leads())
    )


def adder(kernel: Tensor, rows: int, like: Tensor, times: int) -> Callable[[Tensor, Tensor], object]:
    """Return what adds ``x @ kernel.T`` onto its first argument, for x of so many rows, so many times."""
    if _onednn_pays(like, rows, kernel):
        linear, packed = _linear, _pack(kernel, rows) if times >= PACK_FROM else kernel
        return lambda onto, x: onto.add_(linear(x, packed, None, "none", [], ""))
    transposed = kernel.t()
    return lambda onto, x: onto.addmm_(x, transposed)


def summer(kernel: Tensor, rows: int, like: Tensor, times: int) -> Callable[[Tensor, Tensor | None, Tensor], Tensor]:
    """Return what gives ``x @ kernel.T + added``; it may write into its third argument, which is none of the others."""
    if _onednn_pays(like, rows, kernel):
        linear, packed = _linear, _pack(kernel, rows) if times >= PACK_FROM else kernel

        def by_onednn(x: Tensor, added: Tensor | None, out: Tensor) -> Tensor:
            result: Tensor = linear(x, packed, None, "none", [], "")
            return result if added is None else result.add_(added)

        return by_onednn
    transposed = kernel.t()

    def by_mkl(x: Tensor, added: Tensor | None, out: Tensor) -> Tensor:
        if added is None:
            return torch.mm(x, transposed, out=out)
        return torch.addmm(added, x, transposed, out=out)

    return by_mkl


def product(x: Tensor, kernel: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """Return ``x @ kernel.T + bias``, for x (rows, size); in ``out`` if that is given."""
    if _onednn_pays(x, len(x), kernel):
        result: Tensor = _linear(x, kernel, bias, "none", [], "")
        return result if out is None else out.copy_(result)
    if bias is None:
        return torch.mm(x, kernel.t()) if out is None else torch.mm(x, kernel.t(), out=out)
    return torch.addmm(bias, x, kernel.t()) if out is None else torch.addmm(bias, x, kernel.t(), out=out)


class Gathered:
    """The gradient of a kernel (G*H, size), added up chunk by chunk."""

    def __init__(self, like: Tensor, kernel: Tensor) -> None:
        self.sum: Tensor | None = None
        # Transposed, oneDNN can make it twice as fast as MKL; the other way round there would be no gain.
        self.transposed = _onednn_pays(like, LEAST_STEPS * like.shape[1], kernel)

    def add(self, d_gates: Tensor, x: Tensor) -> None:
        """Add ``d_gates.T @ x``, for d_gates (rows, G*H) and x (rows, size)."""
        if self.transposed:
            # Of a part of the columns oneDNN makes a product without end: a copy is cheap beside it.
            added = _linear(x.t(), d_gates.contiguous().t(), None, "none", [], "")
            self.sum = added if self.sum is None else self.sum.add_(added)
        else:
            transposed = d_gates.t()
            self.sum = torch.mm(transposed, x) if self.sum is None else self.sum.addmm_(transposed, x)

    def total(self) -> Tensor | None:
        """Return what was added, in the form of the kernel."""
        return self.sum if self.sum is None or not self.transposed else self.sum.t().contiguous()


def summed(so_far: Tensor | None, d_gates: Tensor) -> Tensor:
    """Return the gradient of a bias with that of one more chunk, (rows, G*H), in it."""
    more = d_gates.sum(0)
    return more if so_far is None else so_far.add_(more)


# ---------------------------------------------------------------------------------------------------------- activations


def function(activation: Activation, like: Tensor, size: int) -> Function:
    """Return an activation as the loops apply it, to so many numbers at once: to a new tensor."""
    if activation.name == "tanh" and _onednn_tanh_pays(like, size):
        return _onednn_tanh
    return activation.function


def in_place(activation: Activation, like: Tensor, size: int) -> Callable[[Tensor], object]:
    """Return what writes an activation over its argument, of so many numbers."""
    chosen = function(activation, like, size)
    if chosen is activation.function and activation.in_place is not None:
        return activation.in_place
    return lambda x: x.copy_(chosen(x))


def writer(activation: Activation, like: Tensor, size: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what writes the activation of its first argument into its second and returns that."""
    chosen = function(activation, like, size)
    if activation.name == "relu":
        return lambda x, out: torch.clamp_min(x, 0, out=out)
    if chosen is torch.tanh:
        return lambda x, out: torch.tanh(x, out=out)
    in_place = activation.in_place
    if chosen is not activation.function or in_place is None:
        return lambda x, out: out.copy_(chosen(x))

    def write(x: Tensor, out: Tensor) -> Tensor:
        in_place(out.copy_(x))
        return out

    return write


def _onednn_tanh_pays(like: Tensor, size: int) -> bool:
    return (
        _linear is not None
        and size >= TANH_FROM
        and like.dtype == torch.float32
        and like.device.type == "cpu"
        and bool(torch.backends.mkldnn.enabled)
    )


def _onednn_tanh(x: Tensor) -> Tensor:
    # As exact as torch.tanh, and even with two copies in less than half of its time.
    result: Tensor = torch.tanh(x.to_mkldnn()).to_dense()
    return result


def slope_writer(activation: Activation) -> Callable[[Tensor, Tensor, Tensor], object]:
    """Return what writes the slope of an activation, from a gradient and its output, into its third argument."""
    slope = activation.slope
    assert slope is not None
    return activation.slope_into or (lambda grad, y, out: out.copy_(slope(grad, y)))


# ----------------------------------------------------------------------------------------------------------------- time


def split_time(time: int, step_bytes: int, backwards: bool) -> list[slice]:
    """Return slices of the time axis, in the order in which it is read."""
    size = min(time, max(LEAST_STEPS, CHUNK_BYTES // max(step_bytes, 1)))
    starts = range(0, time, size)
    if not backwards:
        return [slice(start, min(start + size, time)) for start in starts]
    return [slice(max(time - start - size, 0), time - start) for start in starts]


def steps_of(views: Iterable[Tensor], backwards: bool) -> Iterator[tuple[Tensor, ...]]:
    """Yield what tensors (time, …) hold, step by step, in the order of reading."""
    steps = list(zip(*(view.unbind(0) for view in views), strict=True))
    return reversed(steps) if backwards else iter(steps)


def gradients_of(
    grad_hidden: Tensor | None, chunk: slice, dh: Tensor | None, first: Tensor, backwards: bool, last: bool
) -> list[Any]:
    """Return the gradients of the states of a chunk, to which the steps add theirs, in the order of the way back.

    Args:
        grad_hidden: Gradient of the states behind each step as outputs, (T, B, H); None is zero.
        chunk: Which steps.
        dh: The gradient that comes from behind the chunk; None is zero.
        first: The first state.
        backwards: Whether the sequence is read from its end.
        last: Whether the gradient of the state before the chunk, which stands last, is of no use; then it is None.
    """
    if grad_hidden is None:
        own = first.new_zeros((chunk.stop - chunk.start, *first.shape))
    else:
        own = grad_hidden[chunk].clone(memory_format=torch.contiguous_format)
    states: list[Any] = list(own.unbind(0))
    if not backwards:
        states.reverse()
    if dh is not None:
        states[0].add_(dh)
    return [*states, None if last else torch.zeros_like(first)]


def before(states: Tensor, first: Tensor, chunk: slice, backwards: bool) -> Tensor:
    """Return the state before each step of a chunk, of the states (T, B, H) behind each step."""
    if backwards:
        if chunk.stop < len(states):
            return states[chunk.start + 1 : chunk.stop + 1]
        return torch.cat([states[chunk.start + 1 :], first.unsqueeze(0)])
    if chunk.start > 0:
        return states[chunk.start - 1 : chunk.stop - 1]
    return torch.cat([first.unsqueeze(0), states[: chunk.stop - 1]])


# ---------------------------------------------------------------------------------------------------------------- masks


def counting(run: Run) -> Iterator[Tensor | None]:
    """Return for each step, in the order of reading, which rows count, (B, 1); None where all do."""
    if run.mask is None:
        return itertools.repeat(None)
    counts: list[Tensor | None] = list(run.mask.unsqueeze(-1).unbind(0))
    if run.mask.device.type == "cpu":  # an accelerator would have to wait
        counts = [None if whole else each for each, whole in zip(counts, run.mask.all(1).tolist(), strict=True)]
    return reversed(counts) if run.backwards else iter(counts)


def shown(run: Run) -> Tensor | None:
    """Return which outputs (T, B, 1) are the state, the others being zero; None where all are."""
    if run.mask is None:
        return None
    # A masked step repeats the output before it; before the first step that counts there is none.
    seen = run.mask if run.zero else (run.mask.flip(0).cumsum(0).flip(0) if run.backwards else run.mask.cumsum(0)) > 0
    if run.mask.device.type == "cpu" and bool(seen.all()):
        return None
    return seen.unsqueeze(-1)


def without_gradient(counts: Tensor, tensors: Iterable[Tensor]) -> None:
    """Write zeros over factors of steps that do not count, for ``counts`` (time, B, 1)."""
    masked = ~counts
    for tensor in tensors:
        tensor.masked_fill_(masked, 0.0)
