"""Gradients and training steps of torch modules, for comparisons with other frameworks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatewise_torch import adapter
from gatewise_torch.optim import KerasAdam

Batch = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]  # inputs and targets

RATES = ("p", "dropout", "input_dropout", "recurrent_dropout", "rate", "deviation")
"""The attributes of modules that make training random: of ``nn.Dropout`` and its kind, recurrent layers and noise."""


def gradients(
    obj: nn.Module, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, dict[str, dict[str, np.ndarray]], list[np.ndarray | None]]:
    """Return loss and gradients; see ``adapter.gradients``."""
    with _training(obj), _keeping_statistics(obj):
        given = [adapter.tensor(obj, array) for array in inputs]
        given = [each.requires_grad_() if each.is_floating_point() else each for each in given]
        kept = [parameter.grad for parameter in obj.parameters()]
        obj.zero_grad(set_to_none=True)
        try:
            loss = _loss(obj, given, targets)
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            found = {
                layer: {name: _grad(weight) for name, weight in native.named_parameters() if weight.requires_grad}
                for layer, native in adapter.natives(obj).items()
            }
        finally:
            for parameter, before in zip(obj.parameters(), kept, strict=True):
                parameter.grad = before
    return loss.item(), found, [_grad(each) if each.requires_grad else None for each in given]


def train(
    obj: nn.Module,
    batches: Sequence[Batch],
    *,
    rule: str,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
) -> list[float]:
    """Train a module in place; see ``adapter.train``."""
    trainable = [parameter for parameter in obj.parameters() if parameter.requires_grad]
    kind: Any = KerasAdam if rule == "epsilon-hat" else torch.optim.Adam
    optimizer = kind(trainable, lr=learning_rate, betas=betas, eps=epsilon) if trainable else None
    losses = []
    with _training(obj):
        for inputs, targets in batches:
            obj.zero_grad(set_to_none=True)
            loss = _loss(obj, [adapter.tensor(obj, array) for array in inputs], targets)
            if optimizer is not None and loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            losses.append(loss.item())
    return losses


def _loss(obj: nn.Module, given: Sequence[Tensor], targets: Sequence[np.ndarray]) -> Tensor:
    outputs = adapter.outputs(obj, given)
    wanted = [torch.as_tensor(target).to(output) for output, target in zip(outputs, targets, strict=True)]
    return torch.stack(
        [(output - target).square().mean() for output, target in zip(outputs, wanted, strict=True)]
    ).sum()


def _grad(tensor: Tensor) -> np.ndarray:
    if tensor.grad is None:
        return np.zeros(tuple(tensor.shape))
    return tensor.grad.to_dense().cpu().numpy().copy() if tensor.grad.is_sparse else tensor.grad.cpu().numpy().copy()


@contextlib.contextmanager
def _training(obj: nn.Module) -> Iterator[None]:
    """Run a module as in training, with gradients, but without dropout; leave its modes and rates as they were."""
    modes = [(module, module.training) for module in obj.modules()]
    rates = [(module, name, rate) for module, _ in modes for name in RATES if (rate := vars(module).get(name))]
    try:
        obj.train()
        for module, name, _ in rates:
            setattr(module, name, 0.0)
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, name, rate in rates:
            setattr(module, name, rate)


@contextlib.contextmanager
def _keeping_statistics(obj: nn.Module) -> Iterator[None]:
    """Put back what a normalisation keeps of its batches."""
    kept = [(buffer, buffer.clone()) for buffer in obj.buffers()]
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.copy_(before)
