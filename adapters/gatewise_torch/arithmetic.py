"""What the fast paths compute with: arrays of NumPy for small layers on a CPU, tensors elsewhere.

On a CPU a call of NumPy costs a third of one of torch, which small layers feel, and its tanh a sixth of torch's, which
all feel. Both sorts of numbers share memory, so whatever NumPy lacks or does slower is torch's here, too: large
products, and most activations. The paths are written once, in what ``ByTorch`` and ``ByNumPy`` have in common.

Letters of the shapes: T time, B batch, F features, H units, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatewise_torch import products
from gatewise_torch.activations import Activation

Array = Any  # a tensor, or an array of NumPy
Write = Callable[[Array, Array], object]

# From so many numbers at once on, torch shares the work among its threads. NumPy has one, and with its tanh still is
# the faster one up to so many threads.
SHARED_FROM = 1 << 15
THREADS_THAT_PAY = 8
# Up to so many multiplications a product is NumPy's: its own threads, which torch knows nothing of, start far above.
SMALL_PRODUCT = 1 << 17
FEW = 1 << 12  # up to so many numbers three calls of NumPy take less time than one of torch


def arithmetic(x: Tensor, units: int) -> ByTorch | ByNumPy:
    """Return what to compute a layer with, for its input (T, B, F)."""
    return ByNumPy(x, units) if x.shape[1] * units < SHARED_FROM and numpy_sees(x) else ByTorch(x, units)


def numpy_sees(tensor: Tensor) -> bool:
    """Say whether NumPy can compute with such a tensor."""
    return tensor.is_cpu and tensor.dtype in (torch.float32, torch.float64)


class ByTorch:
    """Arithmetic on tensors."""

    add_product: Any = staticmethod(Tensor.addcmul_)
    add: Any = staticmethod(Tensor.add_)
    copy: Any = staticmethod(Tensor.copy_)
    concatenate: Any = staticmethod(torch.cat)

    def __init__(self, x: Tensor, units: int) -> None:
        self.x, self.units = x, units

    @staticmethod
    def view(tensor: Tensor) -> Array:
        """Return a tensor as this arithmetic takes it; the memory is shared."""
        return tensor

    @staticmethod
    def tensor(array: Array) -> Tensor:
        """Return an array as a tensor; the memory is shared."""
        return array  # type: ignore[no-any-return]

    def empty(self, *shape: int) -> Array:
        """Return room for numbers."""
        return self.x.new_empty(shape)

    def shared(self, *shape: int) -> Array:
        """Return room for the numbers of one step, which is that of all (time, …)."""
        return self.x.new_empty(shape[1:]).expand(shape)

    @staticmethod
    def room(gates: Array, kept: bool) -> Array:
        """Return room for the activated gates of a chunk, of the form of these, (time, G, B, H): where they are."""
        return gates

    def zeros(self, *shape: int) -> Array:
        """Return zeros."""
        return self.x.new_zeros(shape)

    @staticmethod
    def copied(array: Array) -> Array:
        """Return a copy that lies in memory without gaps."""
        return array.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def steps_of(views: Iterable[Array], backwards: bool) -> Iterator[tuple[Any, ...]]:
        """Yield what arrays (time, …) hold, step by step, in the order of reading."""
        steps = list(zip(*(view.unbind(0) for view in views), strict=True))
        return reversed(steps) if backwards else iter(steps)

    # ------------------------------------------------------------------------------------------------ number by number

    @staticmethod
    def multiply(a: Array, b: Array, out: Array) -> None:
        """Write a * b."""
        torch.mul(a, b, out=out)

    @staticmethod
    def bound(x: Array, limit: float) -> None:
        """Write x between -limit and limit."""
        x.clamp_(-limit, limit)

    @staticmethod
    def keep(masked: Array, old: Array, new: Array) -> None:
        """Write the rows of ``old`` that are masked, (B, 1), over those of ``new``."""
        torch.where(masked, old, new, out=new)

    @staticmethod
    def fill(masked: Array, value: float, array: Array) -> None:
        """Write a number where an array is masked."""
        array.masked_fill_(masked, value)

    @staticmethod
    def blend(n: Array, h: Array, z: Array, out: Array) -> None:
        """Write z * h + (1 - z) * n."""
        torch.addcmul(torch.rsub(z, 1.0).mul_(n), z, h, out=out)

    @staticmethod
    def blend_bounded(n: Array, h: Array, z: Array, out: Array) -> None:
        """The same in fewer steps, for finite numbers: of infinite ones it would subtract one from another."""
        torch.lerp(n, h, z, out=out)

    def function(self, activation: Activation) -> Callable[[Array], Array]:
        """Return what makes a new array of an activation."""
        if activation.name != "tanh" or not self._numpy_tanh_pays():
            return activation.function
        return lambda x: torch.from_numpy(np.tanh(x.numpy()))

    def in_place(self, activation: Activation) -> Callable[[Array], object]:
        """Return what writes an activation over its argument."""
        if activation.name == "tanh" or activation.in_place is None:
            write = self.writer(activation)
            return lambda x: write(x, x)
        return activation.in_place

    def writer(self, activation: Activation) -> Write:
        """Return what writes the activation of its first argument into its second, which may be the first."""
        if activation.name == "tanh" and self._numpy_tanh_pays():
            return lambda x, out: np.tanh(x.numpy(), out=out.numpy())
        if activation.into is not None:
            return activation.into
        if activation.in_place is None:
            return lambda x, out: out.copy_(activation.function(x))
        in_place = activation.in_place
        return lambda x, out: in_place(out if x.data_ptr() == out.data_ptr() else out.copy_(x))

    def slope_writer(self, activation: Activation) -> Callable[[Array, Array, Array], object]:
        """Return what writes the slope of an activation, from a gradient and its output, into its third argument."""
        slope = activation.slope
        assert slope is not None
        return activation.slope_into or (lambda grad, y, out: out.copy_(slope(grad, y)))

    def _numpy_tanh_pays(self) -> bool:
        return numpy_sees(self.x) and torch.get_num_threads() < THREADS_THAT_PAY

    # -------------------------------------------------------------------------------------------------------- products

    def projector(self, kernel: Tensor, bias: Tensor | None, steps: int, times: int) -> Callable[[Array], Array]:
        """Return what gives ``x @ kernel.T + bias``, for x (steps, B, size), so many times."""
        return products.projector(kernel, bias, steps * self.x.shape[1], self.x, times)

    def write_product(self, x: Array, kernel: Tensor, out: Array) -> None:
        """Write ``x @ kernel.T``, for x (time, B, size)."""
        products.write_product(x, kernel, out)

    @staticmethod
    def stacks(kernel: Tensor) -> bool:
        """Say whether a kernel with its gates stacked, (G, H, size), is for one call of ``adder`` and ``summer``."""
        return False

    def adder(self, kernel: Tensor, times: int) -> Write:
        """Return what adds ``x @ kernel.T`` onto its first argument, for x (B, size), so many times."""
        return products.adder(kernel, self.x.shape[1], self.x, times)

    def summer(self, kernel: Tensor, added: Tensor | None, times: int) -> Callable[[Array, Array], Array]:
        """Return what gives ``x @ kernel.T + added``, for x (B, size), so many times.

        It may write into its second argument, which is none of the others.
        """
        return products.summer(kernel, added, self.x.shape[1], self.x, times)

    def gathered(self, kernel: Tensor, steps: int) -> products.Gathered:
        """Return what adds up the gradient of a kernel, from chunks of so many steps."""
        return products.Gathered(self.x, steps * self.x.shape[1], kernel)


class ByNumPy:
    """The same on arrays of NumPy that share their memory with tensors of a CPU.

    What may be is given by position: a name costs a small call a quarter of its time.
    """

    multiply: Any = staticmethod(np.multiply)
    copy: Any = staticmethod(np.copyto)
    tensor: Any = staticmethod(torch.from_numpy)
    concatenate: Any = staticmethod(np.concatenate)

    def __init__(self, x: Tensor, units: int) -> None:
        self.x, self.units, self.batch = x, units, x.shape[1]
        self.torch = ByTorch(x, units)
        self.type = np.float32 if x.dtype is torch.float32 else np.float64
        self.scratch = self.empty(self.batch, units)

    @staticmethod
    def view(tensor: Tensor) -> Array:
        """Return a tensor as this arithmetic takes it; the memory is shared, where torch has it as it is."""
        return tensor.numpy(force=True)

    def empty(self, *shape: int) -> Array:
        """Return room for numbers."""
        return np.empty(shape, self.type)

    def shared(self, *shape: int) -> Array:
        """Return room for the numbers of one step, which is that of all (time, …)."""
        step = self.empty(*shape[1:])
        return np.ndarray(shape, self.type, step, strides=(0, *step.strides))

    def room(self, gates: Array, kept: bool) -> Array:
        """Return room for the activated gates of a chunk, of the form of these, (time, G, B, H).

        Each gate lies there in one piece, so that what is done with it takes half the time; that is more than the way
        into other memory costs, as long as a layer is small.
        """
        return self.empty(*gates.shape) if kept else self.shared(*gates.shape)

    def zeros(self, *shape: int) -> Array:
        """Return zeros."""
        return np.zeros(shape, self.type)

    @staticmethod
    def copied(array: Array) -> Array:
        """Return a copy that lies in memory without gaps."""
        return array.copy()

    @staticmethod
    def steps_of(views: Iterable[Array], backwards: bool) -> Iterator[tuple[Any, ...]]:
        """Yield what arrays (time, …) hold, step by step, in the order of reading."""
        steps = zip(*views, strict=True)
        return reversed(list(steps)) if backwards else steps

    # ------------------------------------------------------------------------------------------------ number by number

    @staticmethod
    def add(onto: Array, x: Array) -> None:
        """Add x onto the first argument."""
        np.add(onto, x, onto)

    def add_product(self, onto: Array, a: Array, b: Array) -> None:
        """Add a * b onto the first argument."""
        scratch = self.scratch
        np.multiply(a, b, scratch)
        np.add(onto, scratch, onto)

    @staticmethod
    def bound(x: Array, limit: float) -> None:
        """Write x between -limit and limit."""
        x.clip(-limit, limit, x)  # np.clip, its wrapper, takes twice as long

    @staticmethod
    def keep(masked: Array, old: Array, new: Array) -> None:
        """Write the rows of ``old`` that are masked, (B, 1), over those of ``new``."""
        np.copyto(new, old, where=masked)

    @staticmethod
    def fill(masked: Array, value: float, array: Array) -> None:
        """Write a number where an array is masked."""
        np.copyto(array, value, where=masked)

    def blend(self, n: Array, h: Array, z: Array, out: Array) -> None:
        """Write z * h + (1 - z) * n."""
        rest = self.scratch
        np.subtract(1.0, z, rest)
        np.multiply(rest, n, rest)
        np.multiply(z, h, out)
        np.add(out, rest, out)

    def blend_bounded(self, n: Array, h: Array, z: Array, out: Array) -> None:
        """The same in fewer steps, for finite numbers: of infinite ones it would subtract one from another."""
        way = self.scratch
        np.subtract(h, n, way)
        np.multiply(way, z, way)
        np.add(n, way, out)

    def function(self, activation: Activation) -> Callable[[Array], Array]:
        """Return what makes a new array of an activation."""
        write = self.writer(activation)

        def make(x: Array) -> Array:
            out = np.empty(x.shape, self.type)
            write(x, out)
            return out

        return make

    def in_place(self, activation: Activation) -> Callable[[Array], object]:
        """Return what writes an activation over its argument."""
        if activation.name == "tanh":
            return lambda x: np.tanh(x, x)
        write = self.torch.in_place(activation)
        return lambda x: write(torch.from_numpy(x))

    def writer(self, activation: Activation) -> Write:
        """Return what writes the activation of its first argument into its second, which may be the first."""
        if activation.name == "tanh":
            return np.tanh
        if activation.name == "relu":
            zeros = self.zeros(self.batch, self.units)  # with a single zero it takes up to three times as long
            return lambda x, out: np.maximum(x, zeros, out=out)
        if activation.name == "linear":
            return lambda x, out: np.copyto(out, x)
        write = self.torch.writer(activation)
        return lambda x, out: write(torch.from_numpy(x), torch.from_numpy(out))

    def slope_writer(self, activation: Activation) -> Callable[[Array, Array, Array], object]:
        """Return what writes the slope of an activation, from a gradient and its output, into its third argument."""
        write, write_few = self.torch.slope_writer(activation), _SLOPES.get(activation.name)

        def write_slope(grad: Array, y: Array, out: Array) -> None:
            if write_few is not None and y.size <= FEW:
                write_few(grad, y, out)
            else:
                write(torch.from_numpy(grad), torch.from_numpy(y), torch.from_numpy(out))

        return write_slope

    # -------------------------------------------------------------------------------------------------------- products

    def projector(self, kernel: Tensor, bias: Tensor | None, steps: int, times: int) -> Callable[[Array], Array]:
        """Return what gives ``x @ kernel.T + bias``, for x (steps, B, size), so many times."""
        if steps * self.batch * kernel.numel() > SMALL_PRODUCT:
            project = self.torch.projector(kernel.detach(), None if bias is None else bias.detach(), steps, times)
            return lambda x: project(torch.from_numpy(x)).numpy()
        transposed, added = self.view(kernel).T, None if bias is None else self.view(bias)

        def project_small(x: Array) -> Array:
            made = np.matmul(x.reshape(-1, x.shape[2]), transposed)
            if added is not None:
                np.add(made, added, made)
            return made.reshape(-1, self.batch, made.shape[1])

        return project_small

    def write_product(self, x: Array, kernel: Tensor, out: Array) -> None:
        """Write ``x @ kernel.T``, for x (time, B, size)."""
        if x.shape[0] * self.batch * kernel.numel() > SMALL_PRODUCT:
            products.write_product(torch.from_numpy(x), kernel, torch.from_numpy(out))
        else:
            np.matmul(x.reshape(-1, x.shape[2]), self.view(kernel).T, out.reshape(-1, out.shape[2]))

    def stacks(self, kernel: Tensor) -> bool:
        """Say whether a kernel with its gates stacked, (G, H, size), is for one call of ``adder`` and ``summer``."""
        return self.batch * kernel.numel() <= SMALL_PRODUCT

    def adder(self, kernel: Tensor, times: int) -> Write:
        """Return what adds ``x @ kernel.T`` onto its first argument, for x (B, size), so many times."""
        if self.batch * kernel.numel() > SMALL_PRODUCT:
            add = self.torch.adder(kernel.detach(), times)
            return lambda onto, x: add(torch.from_numpy(onto), torch.from_numpy(x))
        transposed = self.view(kernel).swapaxes(-1, -2)
        scratch = self.empty(*kernel.shape[:-2], self.batch, kernel.shape[-2])

        def add_small(onto: Array, x: Array) -> None:
            np.matmul(x, transposed, scratch)
            np.add(onto, scratch, onto)

        return add_small

    def summer(self, kernel: Tensor, added: Tensor | None, times: int) -> Callable[[Array, Array], Array]:
        """Return what gives ``x @ kernel.T + added``, for x (B, size), so many times.

        It may write into its second argument, which is none of the others.
        """
        multiply = self._multiplier(kernel, times)
        if added is None:
            return multiply
        more = self.view(added)  # added by itself: torch would first spread it over a whole product
        return lambda x, out: np.add(multiply(x, out), more, out)

    def _multiplier(self, kernel: Tensor, times: int) -> Callable[[Array, Array], Array]:
        if self.batch * kernel.numel() > SMALL_PRODUCT:
            large = self.torch.summer(kernel.detach(), None, times)
            return lambda x, out: large(torch.from_numpy(x), torch.from_numpy(out)).numpy()
        transposed = self.view(kernel).swapaxes(-1, -2)
        return lambda x, out: np.matmul(x, transposed, out)

    def gathered(self, kernel: Tensor, steps: int) -> Gathered:
        """Return what adds up the gradient of a kernel, from chunks of so many steps."""
        return Gathered(self.torch.gathered(kernel, steps))


def _sigmoid_slope(grad: Array, y: Array, out: Array) -> None:
    np.subtract(1.0, y, out)
    np.multiply(out, y, out)
    np.multiply(out, grad, out)


def _tanh_slope(grad: Array, y: Array, out: Array) -> None:
    np.multiply(y, y, out)
    np.subtract(1.0, out, out)
    np.multiply(out, grad, out)


def _relu_slope(grad: Array, y: Array, out: Array) -> None:
    np.multiply(grad, y > 0.0, out)


_SLOPES = {"sigmoid": _sigmoid_slope, "tanh": _tanh_slope, "relu": _relu_slope}


class Gathered:
    """The gradient of a kernel (G*H, size), added up chunk by chunk, for arrays of NumPy."""

    def __init__(self, large: products.Gathered) -> None:
        self.large = large

    def add(self, d_gates: Array, x: Array) -> None:
        """Add ``d_gates.T @ x``, for d_gates (rows, G*H) and x (rows, size)."""
        large = self.large
        if large.transposed or large.sum is not None or d_gates.size * x.shape[1] > SMALL_PRODUCT:
            large.add(torch.from_numpy(d_gates), torch.from_numpy(x))
        else:
            large.sum = torch.from_numpy(np.matmul(d_gates.T, x))

    def total(self) -> Tensor | None:
        """Return what was added, in the form of the kernel."""
        return self.large.total()
