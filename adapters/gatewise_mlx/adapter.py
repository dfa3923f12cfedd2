"""Runs Apple's MLX, whose modules hold their own weights: a layer is a module.

MLX is imported by each function when it is called, so that its layouts can be read where it cannot be installed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from gatewise.arrays.native import activations, check_builds, fitting
from gatewise.core.layout import Layout
from gatewise.core.spec import RNN, Dense, Embedding, Recurrent, Spec
from gatewise_mlx.layouts import FRAMEWORK


def claims(obj: object) -> bool:
    """Say whether an object is one of the layers of ``mlx.nn`` that have a layout."""
    nn = sys.modules.get("mlx.nn")
    return nn is not None and isinstance(
        obj, tuple(getattr(nn, layout.name.partition(":")[2]) for layout in FRAMEWORK.layouts)
    )


def build(spec: Spec, layout: Layout) -> Any:
    """Return a recurrent layer, a ``Linear`` or an ``Embedding``."""
    import mlx.core as mx
    from mlx import nn

    check_builds(layout, spec, go_backwards=[False], **({"activation": ["linear"]} if spec.cell == "dense" else {}))
    if isinstance(spec, Embedding):
        return nn.Embedding(spec.tokens, spec.units)
    assert isinstance(spec, Dense | Recurrent)
    arguments: dict[str, Any] = {"bias": spec.bias}
    if isinstance(spec, RNN):
        own = {"hard_sigmoid": lambda x: mx.clip(x / 6 + 0.5, 0, 1), "softsign": nn.softsign}
        own["hard_sigmoid_02"] = lambda x: mx.clip(x / 5 + 0.5, 0, 1)
        arguments |= activations(nn, layout, spec, {"activation": "nonlinearity"}, own)
    return getattr(nn, layout.name.partition(":")[2])(spec.features, spec.units, **arguments)


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights, as copies."""
    return {name: np.array(array) for name, array in obj.parameters().items()}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Change the weights of a module, and return it."""
    import mlx.core as mx

    own = obj.parameters()
    given = fitting(arrays, {name: array.shape for name, array in own.items()}, type(obj).__name__)
    obj.update({name: mx.array(array).astype(own[name].dtype) for name, array in given.items()})
    return obj


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step."""
    import mlx.core as mx

    outputs = obj(mx.array(inputs))
    return np.array(outputs[0] if isinstance(outputs, tuple) else outputs)
