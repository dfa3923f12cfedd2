"""The activations that Keras can run inside a recurrent layer, as torch functions, by the names of the spec.

Each does what ``gatewise.arrays.reference.ACTIVATION_FUNCTIONS`` says, on tensors of any float type, and can be
differentiated twice. Those whose slope follows from their own output say how (``slope``), which is what the fast
training path needs; those that can work in place say how (``in_place``), which is what fast inference needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gatewise.core.spec import ACTIVATIONS, numbered
from gatewise.errors import SpecError, nearest

Function = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor, Tensor], Tensor]
SlopeInto = Callable[[Tensor, Tensor, Tensor], object]

_aten: Any = torch.ops.aten
# Overloads are named, and F is used where it can: looking them up at every call is half the price of a small one.
_hardtanh_backward = _aten.hardtanh_backward.default
_threshold_backward = _aten.threshold_backward.default
_elu_backward = _aten.elu_backward.default
_leaky_relu_backward = _aten.leaky_relu_backward.default
_hardsigmoid_out = getattr(torch._C._nn, "hardsigmoid", _aten.hardsigmoid.out)  # F.hardsigmoid writes into nothing


BOUNDED = frozenset("sigmoid tanh hard_sigmoid hard_sigmoid_02 hard_tanh softsign softmax sparse_sigmoid".split())
"""Activations whose output stays between -1 and 1."""


@dataclass(frozen=True)
class Activation:
    """One activation.

    Attributes:
        name: What it is called, or the representation of a callable.
        function: Tensor (..., units) to a new tensor of that shape.
        in_place: The same, written over its argument, or None.
        slope: From a gradient and the *output* to the gradient of the input, element by element, or None where the
            output does not tell: then only the plain loop can train it.
        across: Whether it acts across the units of a gate, so that gates must be kept apart.
        slope_into: The slope, written into a third tensor, or None.
        into: The activation of its first argument, written into its second, or None.
    """

    name: str
    function: Function
    in_place: Callable[[Tensor], object] | None = None
    slope: Slope | None = None
    across: bool = False
    slope_into: SlopeInto | None = None
    into: Callable[[Tensor, Tensor], object] | None = None

    @property
    def known(self) -> bool:
        """Whether it is one of ours, and not a user's callable."""
        return self.name in NAMED


def _bounded(scale: float, low: float, high: float) -> Slope:
    """Slope of a straight line between two bounds: ``scale`` where the output lies strictly between them."""

    def slope(grad: Tensor, y: Tensor) -> Tensor:
        inside: Tensor = _hardtanh_backward(grad, y, low, high)
        return inside if scale == 1.0 else inside.mul_(scale)

    return slope


def _bounded_into(scale: float, low: float, high: float) -> SlopeInto:
    """The same, written into a third tensor."""
    write = _aten.hardtanh_backward.grad_input

    def slope_into(grad: Tensor, y: Tensor, out: Tensor) -> None:
        write(grad, y, low, high, grad_input=out)
        if scale != 1.0:
            out.mul_(scale)

    return slope_into


def _into(write: Any, *options: Any) -> SlopeInto:
    return lambda grad, y, out: write(grad, y, *options, grad_input=out)


def _softplus(x: Tensor) -> Tensor:
    # torch's threshold of 20 leaves an error of 2e-9 behind, which float64 shows.
    return F.softplus(x, threshold=40.0)


def _squareplus(x: Tensor) -> Tensor:
    return (x + torch.hypot(x, torch.full_like(x, 2.0))) / 2.0


def _sparse_plus(x: Tensor) -> Tensor:
    return torch.where(x < 1.0, (x.clamp(-1.0, 1.0) + 1.0) ** 2 / 4.0, x)


def _sparsemax(x: Tensor) -> Tensor:
    # As Keras computes it, which is not the published one: tau adds up all running sums of the support (see
    # reference.py). A port must give what the layer gives.
    descending = torch.sort(x, dim=-1, descending=True).values
    sums = torch.cumsum(descending, dim=-1)
    counts = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    support = descending - (sums - 1.0) / counts > 0.0
    tau = (torch.where(support, sums, 0.0).sum(-1, keepdim=True) - 1.0) / support.sum(-1, keepdim=True)
    return torch.relu(x - tau)


def _rounds_sixths(x: Tensor) -> bool:
    """Say whether torch's hardsigmoid and hardswish take 1/6 in float32 for these numbers of float64, as on a GPU."""
    return x.is_cuda and x.dtype == torch.float64


def _hard_sigmoid(x: Tensor) -> Tensor:
    # F.hardsigmoid is one operation, but cannot be differentiated twice.
    return F.relu6(x + 3.0) / 6.0 if torch.is_grad_enabled() or _rounds_sixths(x) else F.hardsigmoid(x)


def _hard_sigmoid_into(x: Tensor, out: Tensor) -> None:
    if _rounds_sixths(x):
        torch.add(x, 3.0, out=out).clamp_(0.0, 6.0).div_(6.0)
    else:
        _hardsigmoid_out(x, out=out)


def _hard_silu(x: Tensor) -> Tensor:
    return x * (F.relu6(x + 3.0) / 6.0) if _rounds_sixths(x) else F.hardswish(x)


def _hard_sigmoid_02(x: Tensor) -> Tensor:
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


def _elu(name: str, bound: float) -> Activation:
    return Activation(
        name,
        lambda x: F.elu(x, bound),
        lambda x: F.elu(x, bound, inplace=True),
        (lambda g, y: _elu_backward(g, bound, 1.0, 1.0, True, y)) if bound >= 0 else None,
    )


def _leaky_relu(name: str, slope: float) -> Activation:
    return Activation(
        name,
        lambda x: F.leaky_relu(x, slope),
        lambda x: F.leaky_relu(x, slope, inplace=True),
        (lambda g, y: _leaky_relu_backward(g, y, slope, True)) if slope >= 0 else None,
    )


def _relu_below(name: str, bound: float) -> Activation:
    return Activation(name, lambda x: x.clamp(0.0, bound), lambda x: x.clamp_(0.0, bound), _bounded(1.0, 0.0, bound))


_NUMBERED: dict[str, Callable[[str, float], Activation]] = {
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "relu": _relu_below,
}
"""Activation that may have a number → what makes it of its name and the number."""


def _table() -> dict[str, Activation]:
    listed = [
        Activation("linear", lambda x: x, lambda x: x, lambda g, y: g.clone()),
        Activation(
            "tanh",
            torch.tanh,
            torch.tanh_,
            _aten.tanh_backward.default,
            slope_into=_into(_aten.tanh_backward.grad_input),
            into=lambda x, out: torch.tanh(x, out=out),
        ),
        Activation(
            "sigmoid",
            torch.sigmoid,
            torch.sigmoid_,
            _aten.sigmoid_backward.default,
            slope_into=_into(_aten.sigmoid_backward.grad_input),
            into=lambda x, out: torch.sigmoid(x, out=out),
        ),
        Activation(
            "relu",
            torch.relu,
            torch.relu_,
            lambda g, y: _threshold_backward(g, y, 0),
            slope_into=_into(_aten.threshold_backward.grad_input, 0),
            into=lambda x, out: torch.clamp_min(x, 0, out=out),
        ),
        Activation(
            "hard_sigmoid",
            _hard_sigmoid,
            lambda x: _hard_sigmoid_into(x, x),
            _bounded(1 / 6, 0.0, 1.0),
            slope_into=_bounded_into(1 / 6, 0.0, 1.0),
            into=_hard_sigmoid_into,
        ),
        Activation(
            "hard_sigmoid_02",
            _hard_sigmoid_02,
            lambda x: x.mul_(0.2).add_(0.5).clamp_(0.0, 1.0),
            _bounded(0.2, 0.0, 1.0),
            slope_into=_bounded_into(0.2, 0.0, 1.0),
        ),
        Activation("relu6", F.relu6, partial(F.relu6, inplace=True), _bounded(1.0, 0.0, 6.0)),
        _elu("elu", 1.0),
        Activation(
            "selu",
            F.selu,
            torch.selu_,
            lambda g, y: _elu_backward(
                g, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0, True, y
            ),
        ),
        Activation("celu", F.celu, torch.celu_, lambda g, y: _elu_backward(g, 1.0, 1.0, 1.0, True, y)),
        Activation("gelu", F.gelu, _aten.gelu_.default),
        Activation("silu", F.silu, partial(F.silu, inplace=True)),
        Activation("softplus", _softplus, None, lambda g, y: -torch.expm1(-y) * g),
        Activation("softsign", F.softsign, None, lambda g, y: (1.0 - y.abs()).square_().mul_(g)),
        Activation("softmax", lambda x: torch.softmax(x, -1), across=True),
        Activation("log_softmax", lambda x: torch.log_softmax(x, -1), across=True),
        Activation("exponential", torch.exp, torch.exp_, torch.mul),
        _leaky_relu("leaky_relu", 0.2),
        Activation("mish", F.mish, partial(F.mish, inplace=True)),
        Activation("hard_tanh", F.hardtanh, partial(F.hardtanh, inplace=True), _bounded(1.0, -1.0, 1.0)),
        Activation("hard_silu", _hard_silu),
        Activation("log_sigmoid", F.logsigmoid, None, lambda g, y: -torch.expm1(y) * g),
        Activation("hard_shrink", F.hardshrink, None, lambda g, y: g * (y != 0)),
        Activation("soft_shrink", F.softshrink, None, lambda g, y: g * (y != 0)),
        Activation("tanh_shrink", F.tanhshrink),
        Activation("squareplus", _squareplus, None, lambda g, y: g * (y.square() / (y.square() + 1.0))),
        Activation("sparse_plus", _sparse_plus, None, lambda g, y: g * y.sqrt().clamp_(max=1.0)),
        Activation("sparse_sigmoid", lambda x: (x.clamp(-1.0, 1.0) + 1.0) / 2.0, None, _bounded(0.5, 0.0, 1.0)),
        Activation("sparsemax", _sparsemax, across=True),
    ]
    return {activation.name: activation for activation in listed}


NAMED = _table()
"""Every activation by name. ``hard_sigmoid`` is Keras 3's, x/6 + 0.5; ``hard_sigmoid_02`` is Keras 2's, 0.2 x + 0.5."""

# A user who hands over torch's own function means the one of that name, and gets its speed.
_SAME: dict[Any, str] = {
    torch.tanh: "tanh",
    F.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    torch.relu: "relu",
    F.relu: "relu",
}

_REFUSED = {
    "threshold": "Its two arguments have no default, so by name alone it fails in Keras, too.",
    "glu": "It halves the last axis, so a gate no longer has one value for each unit.",
}


class _Guarded:
    """A user's callable: its answer must have the shape of its argument, and a gradient where one is wanted.

    It gets a copy, as it may write into it, and the memory of a cell is needed behind the activation, too.
    """

    def __init__(self, owner: str, option: str, function: Callable[..., Any]) -> None:
        self.owner, self.option, self.function = owner, option, function

    def __call__(self, x: Tensor) -> Tensor:
        try:
            y = self.function(x.clone())
        except Exception as error:
            raise self._error(
                f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                "Use torch operations in it, which take and give tensors; for inference alone, call the layer under "
                "torch.no_grad().",
            ) from error
        if not isinstance(y, Tensor) or y.shape != x.shape:
            met = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise self._error(
                f"made {met} of shape {tuple(x.shape)}.", "An activation keeps the shape of its argument."
            )
        if y.dtype != x.dtype:
            raise self._error(f"made {y.dtype} of {x.dtype}.", "Return y.to(x.dtype).")
        if x.requires_grad and not y.requires_grad and torch.is_grad_enabled():
            raise self._error(
                "has no gradient.",
                "Write it with torch operations that can be differentiated (no detach, no NumPy), or call the layer "
                "under torch.no_grad().",
            )
        return y

    def _error(self, met: str, hint: str) -> SpecError:
        return SpecError(
            f"{self.option}={self.function!r} {met}",
            f"{self.owner}: {self.option} is a name or a callable from a tensor (batch, units) to one of that shape.",
            hint,
        )


def activation(value: object, owner: str, option: str) -> Activation:
    """Return the activation that a name or a callable stands for.

    Args:
        value: A name, or a callable from a tensor to a tensor of the same shape; it is called gate by gate.
        owner: The layer, for messages.
        option: The option of the layer, for messages.

    Raises:
        SpecError: An unknown name, a name without a meaning here, or no callable.

    >>> activation("hard_sigmoid", "LSTM", "recurrent_activation").function(torch.tensor([-3.0, 0.0, 1.5]))
    tensor([0.0000, 0.5000, 0.7500])
    """
    with contextlib.suppress(TypeError):  # not hashable
        value = _SAME.get(value, value)
    if isinstance(value, str) and value in NAMED:
        return NAMED[value]
    if isinstance(value, str) and (number := numbered(value)[1]) is not None:
        return _NUMBERED[numbered(value)[0]](value, number)
    if isinstance(value, str):
        known = [name for name in ACTIVATIONS if name not in _REFUSED]
        raise SpecError(
            f"{option}={value!r} {'cannot be computed' if value in _REFUSED else 'is unknown'}.",
            f"{owner}: {option} is a callable or one of {', '.join(known)}.",
            _REFUSED.get(value, nearest(value, known)) + " Use one of these, or give a callable.",
        )
    if isinstance(value, type):
        raise SpecError(
            f"{option}={value.__name__} is a class.",
            f"{owner}: {option} is a name or a callable from a tensor to a tensor.",
            f"Give an object of it: {value.__name__}().",
        )
    if callable(value):
        return Activation(repr(value), _Guarded(owner, option, value))
    raise SpecError(
        f"{option}={value!r} is neither a name nor a callable.",
        f"{owner}: {option} is the activation of a gate.",
        "Give a name such as 'tanh' ('linear' for none), or a callable.",
    )
