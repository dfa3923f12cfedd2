"""What changes the steps of a sequence or an image: convolution, pooling, padding, other shapes; features last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gatewise.core.between import Pad, Permute, Pool, Repeat, Reshape, Upsample, window
from gatewise.core.spec import Conv, Spec, per_axis


def convolved(spec: Conv, module: nn.Module, value: Tensor) -> Tensor:
    """Run an ``nn.Conv1d`` or ``nn.Conv2d``, which itself pads nothing and has the features second.

    Args:
        spec: What it computes; the activation is left to the caller.
        module: It.
        value: ``(batch, timesteps, features)``, or ``(batch, height, width, features)``.

    >>> from gatewise.core.spec import Conv1D
    >>> spec = Conv1D(1, 1, 3, padding="causal")
    >>> convolved(spec, nn.Conv1d(1, 1, 3), torch.zeros(2, 5, 1)).shape
    torch.Size([2, 5, 1])
    """
    made: Tensor = module(functional.pad(value.movedim(-1, 1), _padding(spec, value)))
    return made.movedim(1, -1)


def _padding(spec: Conv | Pool, value: Tensor) -> list[int]:
    """Return what is padded before and behind along each axis, the last first, as ``functional.pad`` takes it."""
    sides = [window(spec, size, axis)[1:] for axis, size in enumerate(value.shape[1:-1])]
    return [size for pair in reversed(sides) for size in pair]


def _pooled(spec: Pool, value: Tensor, mask: Tensor | None) -> Tensor:
    if spec.size is None:
        return _pooled_whole(spec, value, mask)
    padding, (reach, moves) = _padding(spec, value), zip(*spec.windows, strict=True)
    turned = value.movedim(-1, 1)
    if spec.pool == "max":
        padded = functional.pad(turned, padding, value=-torch.inf) if any(padding) else turned
        return _MAX[spec.axes](padded, reach, moves).movedim(1, -1)
    mean = _MEAN[spec.axes]
    made = mean(functional.pad(turned, padding), reach, moves)
    if any(padding):
        # The mean over the steps that are there: what is padded is no step.
        there = made.new_ones(1, 1, *turned.shape[2:])
        made = made / mean(functional.pad(there, padding), reach, moves)
    return made.movedim(1, -1)


_MAX: dict[int, Callable[..., Tensor]] = {1: functional.max_pool1d, 2: functional.max_pool2d}
_MEAN: dict[int, Callable[..., Tensor]] = {1: functional.avg_pool1d, 2: functional.avg_pool2d}
"""Along how many axes a pool goes → torch's function for it."""


def _pooled_whole(spec: Pool, value: Tensor, mask: Tensor | None) -> Tensor:
    axes = tuple(range(1, 1 + spec.axes))
    if spec.pool == "max":
        return value.amax(axes, keepdim=spec.keep)
    if mask is None or spec.axes > 1:
        return value.mean(axes, keepdim=spec.keep)
    counts = mask.unsqueeze(-1)
    return torch.where(counts, value, 0.0).sum(1, keepdim=spec.keep) / counts.sum(1, keepdim=spec.keep)


def _upsampled(spec: Upsample, value: Tensor, _: Tensor | None) -> Tensor:
    for axis, times in enumerate(per_axis(spec.times, spec.axes)):
        value = value.repeat_interleave(times, 1 + axis)
    return value


MOVED: dict[type[Spec], Callable[[Any, Tensor, Tensor | None], Tensor]] = {
    Pool: _pooled,
    Reshape: lambda spec, value, _: value.reshape(len(value), *spec.shape),
    Permute: lambda spec, value, _: value.permute(0, *spec.order),
    Repeat: lambda spec, value, _: value.unsqueeze(1).repeat(1, spec.times, 1),
    Pad: lambda spec, value, _: functional.pad(value, (0, 0, *(size for pair in spec.pairs[::-1] for size in pair))),
    Upsample: _upsampled,
}
"""What kinds without weights make of their input, and of the mask on it."""
