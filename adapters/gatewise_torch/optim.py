"""Keras's Adam as a torch optimizer, for training that goes on where Keras stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.optim import Optimizer

from gatewise.errors import SpecError


class KerasAdam(Optimizer):
    """Adam with the update rule and the default settings of ``keras.optimizers.Adam``.

    Both frameworks keep the running means m of g and v of g². They differ in where epsilon stands. The means start at
    zero, which c1 = 1 - beta1^t and c2 = 1 - beta2^t undo:

    ======================  =========================================
    ``torch.optim.Adam``    ``p -= lr / c1 * m / (sqrt(v / c2) + eps)``
    Keras                   ``p -= lr * sqrt(c2) / c1 * m / (sqrt(v) + eps)``
    ======================  =========================================

    Keras adds epsilon before the correction is divided out (the "epsilon hat" of the paper), so its epsilon counts
    ``1 / sqrt(c2)`` times as much: 32 times in the first step, 1 in the end. It matters where gradients are small. The
    defaults differ, too: torch has ``eps=1e-8``. With this class a ported model goes on training as it would in Keras.

    Args:
        params: Parameters, or groups of them, as for every torch optimizer.
        lr: Learning rate; schedulers of torch work on it.
        betas: Decay of the two means.
        eps: Keras's epsilon.
        weight_decay: What Keras calls so: each step first takes ``lr * weight_decay`` of a weight away.
        amsgrad: Whether the largest v so far is used.

    Raises:
        SpecError: A setting is out of its range.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> optimizer = KerasAdam([weight])
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> round(weight.item(), 6)
    0.999
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-7,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        for name, value, fits, expected in (
            ("lr", lr, lr >= 0, "a number from 0"),
            ("betas", betas, all(0 <= beta < 1 for beta in betas), "two numbers from 0 to below 1"),
            ("eps", eps, eps >= 0, "a number from 0"),
            ("weight_decay", weight_decay, weight_decay >= 0, "a number from 0"),
        ):
            if not fits:
                raise SpecError(f"{name}={value!r} is out of range.", f"KerasAdam: {name} is {expected}.", "Change it.")
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient by one step.

        Args:
            closure: Computes the loss and its gradients once more, as for every torch optimizer.

        Returns:
            What the closure gave, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = cast(dict[str, Any], self.state[parameter])
        if not state:
            state["step"] = 0
            names = ("mean", "square") + (("largest",) if group["amsgrad"] else ())
            state |= {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in names}
        state["step"] += 1
        first, second = group["betas"]
        # An Embedding may give a sparse gradient. Keras moves all rows: those that were not read have a mean, too.
        gradient = cast(torch.Tensor, parameter.grad)
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        mean, square = state["mean"], state["square"]
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        if group["amsgrad"]:
            square = torch.maximum(state["largest"], square, out=state["largest"])
        corrected = group["lr"] * math.sqrt(1 - second ** state["step"]) / (1 - first ** state["step"])
        parameter.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-corrected)
