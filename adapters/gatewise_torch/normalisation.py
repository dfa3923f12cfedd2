"""Normalisation as Keras has it, of batches and by constants, and noise.

At inference ``nn.BatchNorm1d`` computes what ``BatchNorm`` does, which trains as Keras's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPSILON = 1e-7
"""What Keras adds to the number of valid steps under a mask before it divides by it (``keras.config.epsilon()``)."""


class BatchNorm(nn.Module):
    """Normalises each feature, the last axis, over all others; tensors are named as in ``nn.BatchNorm1d``.

    It differs from torch's in training, and does what Keras does: ``running_var`` moves towards the biased variance,
    which is divided by the number of values; of a masked batch only steps that count enter the statistics; and a frozen
    layer goes on as at inference.

    Args:
        features: Size of the last axis.
        scale: Whether there is a ``weight`` for each feature.
        shift: Whether there is a ``bias`` for each feature.
        epsilon: What is added to the variance.
        momentum: How much of the statistics a training step keeps; torch's momentum is one minus this.
        dtype: Type of the weights.

    Attributes:
        frozen: Whether training leaves it alone: statistics, and the way it is computed, too.

    >>> norm = BatchNorm(2, momentum=0.5)
    >>> _ = norm(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))          # in training: mean 2 and 0, variance 1 and 0
    >>> norm.running_mean.tolist(), norm.running_var.tolist()
    ([1.0, 0.0], [1.0, 0.5])
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        features: int,
        *,
        scale: bool = True,
        shift: bool = True,
        epsilon: float = 1e-3,
        momentum: float = 0.99,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.features, self.epsilon, self.momentum = features, epsilon, momentum
        self.register_parameter("weight", nn.Parameter(torch.ones(features, dtype=dtype)) if scale else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(features, dtype=dtype)) if shift else None)
        self.register_buffer("running_mean", torch.zeros(features, dtype=dtype))
        self.register_buffer("running_var", torch.ones(features, dtype=dtype))
        self.frozen = False

    def forward(self, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            value: ``(batch, …, features)``.
            mask: ``(batch, …)``, true where a step counts; it acts in training alone.

        Returns:
            A new tensor of the shape of ``value``.
        """
        mean, variance = self.running_mean, self.running_var
        if self.training and not self.frozen:
            mean, variance = self._moments(value, mask)
            with torch.no_grad():
                self.running_mean.lerp_(mean.detach(), 1.0 - self.momentum)
                self.running_var.lerp_(variance.detach(), 1.0 - self.momentum)
        scale = torch.rsqrt(variance + self.epsilon)
        if self.weight is not None:
            scale = scale * self.weight
        made = (value - mean) * scale
        return made if self.bias is None else made + self.bias

    @staticmethod
    def _moments(value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of each feature, over the steps that count."""
        over = tuple(range(value.ndim - 1))
        if mask is None:
            return value.mean(over), value.var(over, correction=0)
        counts = mask.unsqueeze(-1).expand_as(value)
        number = counts.sum(over, dtype=value.dtype) + EPSILON
        mean = torch.where(counts, value, 0.0).sum(over) / number
        return mean, torch.where(counts, value - mean, 0.0).square().sum(over) / number

    def extra_repr(self) -> str:
        """Say its sizes and options."""
        return f"{self.features}, epsilon={self.epsilon}, momentum={self.momentum}, frozen={self.frozen}"


class Rescale(nn.Module):
    """Multiplies features, the last axis, with constants and adds others; see ``gatewise.core.spec.Rescale``.

    >>> Rescale((0.5, 2.0), -1.0, offset_first=True)(torch.tensor([[3.0, 3.0]]))
    tensor([[1., 4.]])
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self,
        factor: float | Sequence[float],
        offset: float | Sequence[float] = 0.0,
        *,
        offset_first: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.offset_first = offset_first
        dtype = dtype or torch.get_default_dtype()
        self.register_buffer("factor", torch.tensor(factor, dtype=dtype), persistent=False)
        self.register_buffer("offset", torch.tensor(offset, dtype=dtype), persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        """Rescale (…, features)."""
        return (value + self.offset) * self.factor if self.offset_first else value * self.factor + self.offset

    def extra_repr(self) -> str:
        """Say which constants."""
        return f"{self.factor.tolist()}, {self.offset.tolist()}, offset_first={self.offset_first}"


class Noise(nn.Module):
    """Normal noise, in training only; see ``gatewise.core.spec.Noise``.

    >>> Noise(0.1).eval()(torch.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, deviation: float = 0.0, *, rate: float = 0.0) -> None:
        super().__init__()
        self.deviation, self.rate = deviation, rate

    def forward(self, value: Tensor) -> Tensor:
        """Add noise, multiply with noise, or neither."""
        if self.training and self.rate:
            value = value * (1 + torch.randn_like(value) * (self.rate / (1 - self.rate)) ** 0.5)
        if self.training and self.deviation:
            value = value + torch.randn_like(value) * self.deviation
        return value

    def extra_repr(self) -> str:
        """Say how much."""
        return f"{self.deviation}, rate={self.rate}"
