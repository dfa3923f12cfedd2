"""Runs Equinox, whose modules are immutable and hold their own weights; each works on one vector.

Equinox takes seconds to import, so each function does it when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from gatewise.arrays.native import check_builds, fitting
from gatewise.core.layout import Layout
from gatewise.core.spec import Dense, Embedding, Recurrent, Spec
from gatewise_equinox.layouts import FRAMEWORK


def claims(obj: object) -> bool:
    """Say whether an object is one of the layers of ``equinox.nn`` that have a layout."""
    nn = sys.modules.get("equinox.nn")
    return nn is not None and isinstance(
        obj, tuple(getattr(nn, layout.name.partition(":")[2]) for layout in FRAMEWORK.layouts)
    )


def build(spec: Spec, layout: Layout) -> Any:
    """Return a cell, a ``Linear`` or an ``Embedding``."""
    import jax
    from equinox import nn

    check_builds(layout, spec, go_backwards=[False], **({"activation": ["linear"]} if spec.cell == "dense" else {}))
    key = jax.random.key(0)
    if isinstance(spec, Embedding):
        return nn.Embedding(spec.tokens, spec.units, key=key)
    assert isinstance(spec, Dense | Recurrent)
    return getattr(nn, layout.name.partition(":")[2])(spec.features, spec.units, use_bias=spec.bias, key=key)


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights, as copies."""
    return {name: np.array(leaf) for name, leaf in _leaves(obj).items()}


def _leaves(obj: Any) -> dict[str, Any]:
    names = ("weight", "weight_ih", "weight_hh", "bias", "bias_n")
    return {name: getattr(obj, name) for name in names if getattr(obj, name, None) is not None}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return a copy with these weights."""
    import equinox
    import jax.numpy as jnp

    leaves = _leaves(obj)
    given = fitting(arrays, {name: leaf.shape for name, leaf in leaves.items()}, type(obj).__name__)
    new = [jnp.array(array, leaves[name].dtype) for name, array in given.items()]
    return equinox.tree_at(lambda module: list(_leaves(module).values()), obj, new)


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step; Equinox leaves the loop over time to the caller."""
    import jax
    from equinox import nn

    jnp, values = jax.numpy, jax.numpy.asarray(inputs)
    with jax.default_matmul_precision("highest"):  # accelerators multiply float32 in fewer bits otherwise
        if isinstance(obj, nn.Linear | nn.Embedding):
            vectors = values.reshape(-1, inputs.shape[-1]) if isinstance(obj, nn.Linear) else values.reshape(-1)
            outputs = jax.vmap(obj)(vectors)
            lead = inputs.shape[:-1] if isinstance(obj, nn.Linear) else inputs.shape
            return np.array(outputs).reshape(*lead, outputs.shape[-1])
        zeros, lstm = jnp.zeros(obj.hidden_size, values.dtype), isinstance(obj, nn.LSTMCell)

        def step(state: Any, vector: Any) -> tuple[Any, Any]:
            state = obj(vector, state)
            return state, state[0] if lstm else state

        first = (zeros, zeros) if lstm else zeros
        return np.array(jax.vmap(lambda sequence: jax.lax.scan(step, first, sequence)[1])(values))
