"""What changes the steps of a sequence: convolution, pooling, padding, other shapes; batch first, features last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gatewise.core.spec import Conv1D, Pad, Permute, Pool, Repeat, Reshape, Spec, window


def convolved(spec: Conv1D, module: nn.Module, value: Tensor) -> Tensor:
    """Run an ``nn.Conv1d``, which itself pads nothing and has the features second.

    Args:
        spec: What it computes; the activation is left to the caller.
        module: It.
        value: ``(batch, timesteps, features)``.

    >>> spec = Conv1D(1, 1, 3, padding="causal")
    >>> convolved(spec, nn.Conv1d(1, 1, 3), torch.zeros(2, 5, 1)).shape
    torch.Size([2, 5, 1])
    """
    _, before, after = window(spec, value.shape[1])
    made: Tensor = module(functional.pad(value.transpose(1, 2), (before, after)))
    return made.transpose(1, 2)


def _pooled(spec: Pool, value: Tensor, mask: Tensor | None) -> Tensor:
    if spec.size is None:
        return _pooled_whole(spec, value, mask)
    steps = value.shape[1]
    padding = window(spec, steps)[1:]
    turned = value.transpose(1, 2)
    if spec.pool == "max":
        padded = functional.pad(turned, padding, value=-torch.inf) if any(padding) else turned
        return functional.max_pool1d(padded, spec.size, spec.moves).transpose(1, 2)
    made = functional.avg_pool1d(functional.pad(turned, padding), spec.size, spec.moves)
    if any(padding):
        # The mean over the steps that are there: what is padded is no step.
        made = made / functional.avg_pool1d(functional.pad(made.new_ones(1, 1, steps), padding), spec.size, spec.moves)
    return made.transpose(1, 2)


def _pooled_whole(spec: Pool, value: Tensor, mask: Tensor | None) -> Tensor:
    if spec.pool == "max":
        return value.amax(1, keepdim=spec.keep)
    if mask is None:
        return value.mean(1, keepdim=spec.keep)
    counts = mask.unsqueeze(-1)
    return torch.where(counts, value, 0.0).sum(1, keepdim=spec.keep) / counts.sum(1, keepdim=spec.keep)


MOVED: dict[type[Spec], Callable[[Any, Tensor, Tensor | None], Tensor]] = {
    Pool: _pooled,
    Reshape: lambda spec, value, _: value.reshape(len(value), *spec.shape),
    Permute: lambda spec, value, _: value.permute(0, *spec.order),
    Repeat: lambda spec, value, _: value.unsqueeze(1).repeat(1, spec.times, 1),
    Pad: lambda spec, value, _: functional.pad(value, (0, 0, *spec.steps)),
}
"""What kinds without weights make of their input, and of the mask on it."""
