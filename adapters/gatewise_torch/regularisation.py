"""Keras's regularisers and constraints, for training a ported model in torch.

Keras adds the penalties of its regularisers to the loss and applies its constraints after each step, unseen; torch does
neither. A port carries both as data (``Layer.rules``), and two functions act on it::

    loss = criterion(model(x), y) + penalty(model)
    loss.backward()
    optimizer.step()
    constrain(model)

A weight is regularised in the shape in which Keras has it. Gates may lie in another order here: every rule looks at
single numbers, at rows or at columns, and is the same for any order of the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gatewise.core.network import Network, Rule
from gatewise.core.spec import Recurrent
from gatewise.errors import UnsupportedModelError
from gatewise_torch.model import Model

EPSILON = 1e-7
"""What Keras adds to a norm before it divides by it (``keras.config.epsilon()``)."""


class _Weight(NamedTuple):
    """One weight of Keras's: how to read it off a module's parameters, and how to change them so that it is another."""

    read: Callable[[], Tensor]
    write: Callable[[Tensor], None]


def penalty(model: nn.Module) -> Tensor:
    """Return the sum of all regularisation penalties of a ported model: what Keras adds to the loss.

    Args:
        model: What ``gatewise.port`` gave.

    Returns:
        A scalar with a gradient; zero where there is no regulariser. Penalties on what layers give are those of the
        last call of the model.

    Raises:
        UnsupportedModelError: The model is not a port, so that it carries no rules.

    >>> from gatewise.core.network import Layer, Network
    >>> from gatewise.core.between import Input
    >>> from gatewise.core.spec import Dense
    >>> rule = Rule("penalty", "kernel", "L2", (("l2", 0.5),))
    >>> model = Model(Network((Layer("input", Input((2,))), Layer("dense", Dense(2, 1), ("input",), rules=(rule,)))))
    >>> with torch.no_grad():
    ...     _ = model.native("dense").weight.copy_(torch.tensor([[1.0, 3.0]]))
    >>> penalty(model).item()
    5.0
    """
    total = next(iter(model.parameters()), torch.zeros(())).new_zeros(())
    if isinstance(model, Model) and model.activity is not None:
        total = total + model.activity
    for rule, weight in _ruled(model, "penalty"):
        total = total + PENALTIES[rule.name](weight.read(), **dict(rule.settings))
    return total


@torch.no_grad()
def constrain(model: nn.Module) -> None:
    """Apply all constraints of a ported model, as Keras does after each step of the optimizer.

    Args:
        model: What ``gatewise.port`` gave; its parameters are changed in place.

    Raises:
        UnsupportedModelError: The model is not a port, so that it carries no rules.
    """
    for rule, weight in _ruled(model, "projection"):
        weight.write(PROJECTIONS[rule.name](weight.read(), **dict(rule.settings)))


def _ruled(model: nn.Module, kind: str) -> Iterator[tuple[Rule, _Weight]]:
    """Yield each rule of a kind with each weight it acts on."""
    if not isinstance(model, Model):
        raise UnsupportedModelError(
            f"A {type(model).__name__} carries no regularisers and constraints.",
            "Expected a model that gatewise.port made from one of Keras.",
            "Give the whole model; for a model of your own write the penalty out.",
        )
    for layer in model.network.layers:
        for rule in layer.rules:
            if rule.kind == kind and not layer.shares:
                yield from ((rule, weight) for weight in _weights(model.native(layer.name), layer.spec, rule.weight))


def _weights(module: Any, spec: Any, weight: str) -> Iterator[_Weight]:
    """Yield a weight of Keras's, one for each layer and direction of a recurrent module."""
    if not isinstance(spec, Recurrent):
        name = "bias" if weight in ("bias", "beta") else "weight"
        if hasattr(module, name) and getattr(module, name) is not None:
            yield _plain(getattr(module, name), turned=weight == "kernel")
        return
    names = {"kernel": "weight_ih", "recurrent_kernel": "weight_hh", "bias": "bias_ih"}
    for layer in range(spec.layers):
        for side in ("", "_reverse")[: spec.directions]:
            parameter = getattr(module, f"{names[weight]}_l{layer}{side}", None)
            second = getattr(module, f"bias_hh_l{layer}{side}", None) if weight == "bias" else None
            if parameter is None:
                continue
            if second is None:
                yield _plain(parameter, turned=weight != "bias")
            elif getattr(spec, "reset", None) == "after":
                yield _pair(parameter, second)
            else:
                yield _sum(parameter, second)


def activity_penalty(network: Network, values: Mapping[str, Sequence[Tensor]]) -> Tensor | None:
    """Return the penalties on what layers give, each over the size of the batch, as Keras has them.

    Args:
        network: What was run.
        values: Layer → all that it gave.
    """
    total = None
    for layer in network.layers:
        for rule in layer.rules:
            if rule.kind != "activity":
                continue
            _, colon, number = rule.weight.partition(":")
            for output in [values[layer.name][int(number)]] if colon else values[layer.name]:
                own = PENALTIES[rule.name](output, **dict(rule.settings)) / max(1, len(output))
                total = own if total is None else total + own
    return total


def _plain(parameter: Tensor, *, turned: bool) -> _Weight:
    def view() -> Tensor:
        return parameter.permute(*reversed(range(parameter.ndim))) if turned else parameter

    def write(value: Tensor) -> None:
        view().copy_(value)

    return _Weight(view, write)


def _pair(first: Tensor, second: Tensor) -> _Weight:
    """Keras's bias of a GRU: both biases, as two rows."""

    def write(value: Tensor) -> None:
        first.copy_(value[0])
        second.copy_(value[1])

    return _Weight(lambda: torch.stack((first, second)), write)


def _sum(first: Tensor, second: Tensor) -> _Weight:
    """Keras's only bias: what the two here add up to; the first one takes a change."""

    def write(value: Tensor) -> None:
        first.copy_(value - second)

    return _Weight(lambda: first + second, write)


# ── the rules, as keras/src/regularizers and keras/src/constraints have them ────────────────────────────────────


def _l1_l2(w: Tensor, l1: float = 0.0, l2: float = 0.0) -> Tensor:
    return l1 * w.abs().sum() + l2 * w.square().sum()


def _orthogonal(w: Tensor, factor: float = 0.01, mode: str = "rows") -> Tensor:
    rows = w if mode == "rows" else w.t()
    rows = rows * rows.square().sum(1, keepdim=True).clamp(min=EPSILON**2).rsqrt()
    products = rows @ rows.t()
    size = len(rows)
    apart = products * (1.0 - torch.eye(size, dtype=w.dtype, device=w.device))
    return factor * 0.5 * apart.abs().sum() / (size * (size - 1.0) / 2.0)


PENALTIES: dict[str, Callable[..., Tensor]] = {
    "L1": lambda w, l1=0.01: _l1_l2(w, l1=l1),
    "L2": lambda w, l2=0.01: _l1_l2(w, l2=l2),
    "L1L2": _l1_l2,
    "OrthogonalRegularizer": _orthogonal,
}
"""Keras's regularisers by the names of their classes."""


def _norms(w: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    return w.square().sum(axis, keepdim=True).sqrt()


def _max_norm(w: Tensor, max_value: float = 2, axis: int | tuple[int, ...] = 0) -> Tensor:
    norms = _norms(w, axis)
    return w * (norms.clamp(0, max_value) / (EPSILON + norms))


def _min_max_norm(
    w: Tensor, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: int | tuple[int, ...] = 0
) -> Tensor:
    norms = _norms(w, axis)
    desired = rate * norms.clamp(min_value, max_value) + (1 - rate) * norms
    return w * (desired / (EPSILON + norms))


PROJECTIONS: dict[str, Callable[..., Tensor]] = {
    "MaxNorm": _max_norm,
    "MinMaxNorm": _min_max_norm,
    "NonNeg": lambda w: w.clamp(min=0),
    "UnitNorm": lambda w, axis=0: w / (EPSILON + _norms(w, axis)),
}
"""Keras's constraints by the names of their classes."""
