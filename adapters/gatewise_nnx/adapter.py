"""Runs Flax nnx, whose modules hold their own weights: a layer is a module.

Flax takes seconds to import, so each function does it when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from gatewise.arrays.native import BOTH_DIRECTIONS, MERGES, activations, check_builds, fitting
from gatewise.core.layout import Layout
from gatewise.core.spec import Dense, Embedding, Recurrent, Spec
from gatewise_nnx.layouts import FRAMEWORK


def claims(obj: object) -> bool:
    """Say whether an object is a layer of nnx, or an ``RNN`` or ``Bidirectional`` around one."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return False
    if isinstance(obj, nnx.Bidirectional):
        return claims(obj.forward_rnn)
    if isinstance(obj, nnx.RNN):
        return claims(obj.cell)
    return isinstance(obj, tuple(getattr(nnx, layout.name.partition(":")[2]) for layout in FRAMEWORK.layouts))


def build(spec: Spec, layout: Layout) -> Any:
    """Return a ``Linear``, an ``Embed``, or a cell within ``RNN`` or ``Bidirectional``."""
    import jax
    from flax import nnx

    rngs = nnx.Rngs(0)
    if isinstance(spec, Dense):
        check_builds(layout, spec, activation=["linear"])
        return nnx.Linear(spec.features, spec.units, use_bias=spec.bias, rngs=rngs)
    if isinstance(spec, Embedding):
        return nnx.Embed(spec.tokens, spec.units, rngs=rngs)
    assert isinstance(spec, Recurrent)
    check_builds(layout, spec, **(BOTH_DIRECTIONS if spec.bidirectional else {}))
    arguments = {"recurrent_activation": "gate_fn", "activation": "activation_fn"}
    own = {"softsign": jax.nn.soft_sign, "hard_sigmoid_02": lambda x: jax.numpy.clip(x / 5 + 0.5, 0, 1)}
    functions = activations(jax.nn, layout, spec, arguments, own)
    cell = getattr(nnx, layout.name.partition(":")[2])
    # Reversed, RNN lists its outputs as it computes them; Bidirectional turns those of its second half by itself.
    halves = [
        nnx.RNN(cell(spec.features, spec.units, rngs=rngs, **functions), reverse=spec.go_backwards)
        for _ in range(spec.directions)
    ]
    merge = {"merge_fn": MERGES[spec.merge]} if spec.merge in MERGES else {}
    return nnx.Bidirectional(*halves, **merge) if spec.bidirectional else halves[0]


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights, as copies."""
    return {name: np.array(variable[...]) for name, variable in _variables(obj).items()}


def _variables(obj: Any) -> dict[str, Any]:
    """Return the parameters by name; they are the module's own."""
    from flax import nnx

    paths = nnx.to_flat_state(nnx.state(obj, nnx.Param))
    return {"/".join(map(str, path)).removeprefix("cell/"): variable for path, variable in paths}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Change the weights of a module, and return it."""
    import jax.numpy as jnp

    variables = _variables(obj)
    given = fitting(arrays, {name: variable.shape for name, variable in variables.items()}, type(obj).__name__)
    for name, array in given.items():
        variables[name][...] = jnp.array(array, variables[name].dtype)
    return obj


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step; a bare cell is put into an ``RNN``."""
    import jax
    from flax import nnx

    layer = nnx.RNN(obj) if isinstance(obj, nnx.RNNCellBase) else obj
    with jax.default_matmul_precision("highest"):  # accelerators multiply float32 in fewer bits otherwise
        return np.array(layer(jax.numpy.asarray(inputs)))
