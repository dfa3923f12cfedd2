"""Activations that Keras 3 has no name for, registered with it, so that models that use them are saved and loaded.

``gatewise.load`` knows them, and ``keras.saving.load_model`` does after ``import gatewise_keras.functions``.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="gatewise")  # type: ignore[untyped-decorator]
def hard_sigmoid_02(x: Any) -> Any:
    """Return ``0.2 * x + 0.5``, cut to 0 … 1: the ``hard_sigmoid`` of Keras 1 and 2, tf_keras, Theano and ONNX.

    Keras 3's own ``hard_sigmoid`` is ``x / 6 + 0.5``.

    Args:
        x: A tensor of any shape.

    Returns:
        A tensor of that shape and type.

    >>> keras.ops.convert_to_numpy(hard_sigmoid_02(keras.ops.array([-3.0, 0.0, 1.0])))
    array([0. , 0.5, 0.7], dtype=float32)
    """
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


FUNCTIONS = {"hard_sigmoid_02": hard_sigmoid_02}
"""Activation of a spec → its function, where Keras has none of that name."""


def activation(name: str) -> Any:
    """Return the function of an activation without a number, Keras's own or one of these."""
    return FUNCTIONS.get(name) or keras.activations.get(name)
