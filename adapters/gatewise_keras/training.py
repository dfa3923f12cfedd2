"""Gradients and training steps of Keras layers and models, on each of its backends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from gatewise.errors import GatewiseError
from gatewise_keras import adapter

Batch = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]  # inputs and targets

RATES = ("rate", "dropout", "recurrent_dropout", "stddev")
"""The attributes of layers and cells that make training random."""


def gradients(
    obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, dict[str, dict[str, np.ndarray]], list[np.ndarray | None]]:
    """Return loss and gradients; see ``adapter.gradients``."""
    with _without_dropout(obj), _keeping_statistics(obj):
        loss, weights, given = _differentiate(obj, _typed(obj, inputs), targets)
    by_variable = {id(variable): array for variable, array in zip(obj.trainable_variables, weights, strict=True)}
    found = {
        layer: {
            name: _array(by_variable[id(variable)])
            for name, variable in adapter.variables(native).items()
            if id(variable) in by_variable
        }
        for layer, native in adapter.natives(obj).items()
    }
    return float(loss), found, [None if each is None else _array(each) for each in given]


def train(
    obj: Any,
    batches: Sequence[Batch],
    *,
    rule: str,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
) -> list[float]:
    """Train a layer or model in place; see ``adapter.train``."""
    assert rule == "epsilon-hat"  # Keras has no other.
    optimizer = keras.optimizers.Adam(learning_rate, beta_1=betas[0], beta_2=betas[1], epsilon=epsilon)
    losses = []
    with _without_dropout(obj):
        for inputs, targets in batches:
            loss, weights, _ = _differentiate(obj, _typed(obj, inputs), targets)
            if weights:
                optimizer.apply(weights, obj.trainable_variables)
            losses.append(float(loss))
    return losses


@contextlib.contextmanager
def _without_dropout(obj: Any) -> Iterator[None]:
    """Set all rates of dropout to zero, and leave them as they were."""
    # Of a recurrent layer they are its cell's, and cannot be set.
    rates = [
        (layer, name, rate) for layer in obj._flatten_layers() for name in RATES if (rate := vars(layer).get(name))
    ]
    try:
        for layer, name, _ in rates:
            setattr(layer, name, 0.0)
        yield
    finally:
        for layer, name, rate in rates:
            setattr(layer, name, rate)


@contextlib.contextmanager
def _keeping_statistics(obj: Any) -> Iterator[None]:
    """Put back what a normalisation keeps of its batches."""
    statistics = [variable for variable in obj.non_trainable_variables if variable.name in adapter.STATISTICS]
    kept = [(variable, _array(variable)) for variable in statistics]
    try:
        yield
    finally:
        for variable, before in kept:
            variable.assign(before)


def _typed(obj: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    kind = adapter.dtype_of(obj)
    return [array.astype(kind) if array.dtype.kind == "f" else array for array in inputs]


def _array(tensor: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(tensor))


def _differentiate(
    obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, list[Any], list[Any]]:
    """Return loss, the gradient of each trainable variable, and of each input, None for one of tokens."""
    backend = keras.backend.backend()
    known = {"tensorflow": _by_tape, "torch": _by_autograd, "jax": _by_transformation}
    if backend not in known:
        raise GatewiseError(
            f"Keras on its backend {backend!r} gives no gradients here.",
            f"Known: {', '.join(known)}.",
            "Start Python with KERAS_BACKEND=tensorflow.",
        )
    return known[backend](obj, inputs, targets)


def _loss(outputs: Sequence[Any], targets: Sequence[np.ndarray]) -> Any:
    parts = [
        keras.ops.mean(keras.ops.square(output - keras.ops.convert_to_tensor(target, dtype=output.dtype)))
        for output, target in zip(outputs, targets, strict=True)
    ]
    return sum(parts[1:], parts[0])


def _by_tape(
    obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, list[Any], list[Any]]:
    import tensorflow as tf

    given = [tf.constant(array) for array in inputs]
    watched = [each for each in given if each.dtype.is_floating]
    variables = list(obj.trainable_variables)
    with tf.GradientTape() as tape:
        for each in watched:
            tape.watch(each)
        loss = _loss(adapter.outputs(obj, given, training=True), targets)
    # An Embedding's gradient comes as the rows that were read.
    found = tape.gradient(loss, [variable.value for variable in variables] + watched, unconnected_gradients="zero")
    dense = [tf.convert_to_tensor(each) for each in found]
    rest = iter(dense[len(variables) :])
    return float(loss), dense[: len(variables)], [next(rest) if each.dtype.is_floating else None for each in given]


def _by_autograd(
    obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, list[Any], list[Any]]:
    import torch

    with torch.enable_grad():
        given = [keras.ops.convert_to_tensor(array) for array in inputs]
        given = [each.requires_grad_() if each.is_floating_point() else each for each in given]
        loss = _loss(adapter.outputs(obj, given, training=True), targets)
        wanted = [variable.value for variable in obj.trainable_variables]
        wanted += [each for each in given if each.requires_grad]
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
    filled = [torch.zeros_like(one) if grad is None else grad for one, grad in zip(wanted, found, strict=True)]
    rest = iter(filled[len(obj.trainable_variables) :])
    return (
        loss.item(),
        filled[: len(obj.trainable_variables)],
        [next(rest) if each.requires_grad else None for each in given],
    )


def _by_transformation(
    obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, list[Any], list[Any]]:
    import jax

    floats = [place for place, array in enumerate(inputs) if array.dtype.kind == "f"]
    others = [variable.value for variable in obj.non_trainable_variables]

    def loss_of(variables: list[Any], watched: list[Any]) -> tuple[Any, list[Any]]:
        given = list(inputs)
        for place, each in zip(floats, watched, strict=True):
            given[place] = each
        pairs = [*zip(obj.trainable_variables, variables, strict=True)]
        pairs += [*zip(obj.non_trainable_variables, others, strict=True)]
        with keras.StatelessScope(state_mapping=pairs) as scope:
            loss = _loss(adapter.outputs(obj, given, training=True), targets)
        return loss, [scope.get_current_value(variable) for variable in obj.non_trainable_variables]

    variables = [variable.value for variable in obj.trainable_variables]
    watched = [jax.numpy.asarray(inputs[place]) for place in floats]
    (loss, moved), (weights, sources) = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(variables, watched)
    for variable, value in zip(obj.non_trainable_variables, moved, strict=True):
        variable.assign(value)  # Statistics of the batch, which it left in the scope.
    by_place = dict(zip(floats, sources, strict=True))
    return float(loss), list(weights), [by_place.get(place) for place in range(len(inputs))]
