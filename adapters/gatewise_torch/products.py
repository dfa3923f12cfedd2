"""Products of tensors: by MKL, as every ordinary one, or by oneDNN, which torch itself uses for nn.LSTM.

On some AMD processors MKL is less than half as fast. oneDNN's linear is private; without it all goes on, slower.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

# From how many multiplications on a product may be faster in oneDNN, from how many it surely is not slower, and from
# how many such products on packing its kernel pays; measured with 2 to 256 rows and 64 to 512 units. A single row is no
# work for it.
ONEDNN_FROM = 1_000_000
ONEDNN_SURELY_FROM = 16_000_000
PACK_FROM = 16

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
    with torch.no_grad():
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


def summer(
    kernel: Tensor, added: Tensor | None, rows: int, like: Tensor, times: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what gives ``x @ kernel.T + added``, for x of so many rows, so many times.

    It may write into its second argument, which is none of the others.
    """
    if _onednn_pays(like, rows, kernel):
        linear, packed = _linear, _pack(kernel, rows) if times >= PACK_FROM else kernel
        return lambda x, out: linear(x, packed, added, "none", [], "")  # into memory of its own
    transposed = kernel.t()
    if added is None:
        return lambda x, out: torch.mm(x, transposed, out=out)
    return lambda x, out: torch.addmm(added, x, transposed, out=out)


def projector(kernel: Tensor, bias: Tensor | None, rows: int, like: Tensor, times: int) -> Callable[[Tensor], Tensor]:
    """Return what gives ``x @ kernel.T + bias``, for x (time, B, size) of so many rows, so many times."""
    if _onednn_pays(like, rows, kernel):
        linear, packed = _linear, _pack(kernel, rows) if times > 1 else kernel
        return lambda x: linear(x.contiguous(), packed, bias, "none", [], "")
    return lambda x: F.linear(x.contiguous(), kernel, bias)


def write_product(x: Tensor, kernel: Tensor, out: Tensor) -> None:
    """Write ``x @ kernel.T``, for x (time, B, size), which may be a part of the columns."""
    rows = x.shape[0] * x.shape[1]
    if _onednn_pays(x, rows, kernel):
        out.copy_(_linear(x, kernel, None, "none", [], ""))
    else:
        torch.mm(x.view(rows, -1), kernel.t(), out=out.view(rows, -1))


class Gathered:
    """The gradient of a kernel (G*H, size), added up chunk by chunk."""

    def __init__(self, like: Tensor, rows: int, kernel: Tensor) -> None:
        self.sum: Tensor | None = None
        # Transposed, oneDNN can make it twice as fast as MKL; the other way round there would be no gain.
        self.transposed = _onednn_pays(like, rows, kernel)

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
