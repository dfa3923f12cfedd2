"""Runs Flax linen. A module there is without weights, so that a layer is a ``Built``: the module with its parameters.

Flax takes seconds to import, so each function does it when it is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gatewise.arrays.native import BOTH_DIRECTIONS, MERGES, Built, activations, check_builds, fitting, smallest_input
from gatewise.core.layout import Layout
from gatewise.core.spec import Dense, Embedding, Recurrent, Spec


def claims(obj: object) -> bool:
    """Say whether an object was built here."""
    return isinstance(obj, Built) and obj.layout.framework == "flax"


def build(spec: Spec, layout: Layout) -> Built:
    """Return a ``Dense``, an ``Embed``, or a cell within ``RNN`` or ``Bidirectional``, with parameters."""
    import jax

    module = _module(spec, layout)
    return Built(module, module.init(jax.random.key(0), smallest_input(spec))["params"], spec, layout)


def _module(spec: Spec, layout: Layout) -> Any:
    import jax
    from flax import linen

    if isinstance(spec, Dense):
        check_builds(layout, spec, activation=["linear"])
        return linen.Dense(spec.units, use_bias=spec.bias)
    if isinstance(spec, Embedding):
        return linen.Embed(spec.tokens, spec.units)
    assert isinstance(spec, Recurrent)
    check_builds(layout, spec, **(BOTH_DIRECTIONS if spec.bidirectional else {}))
    arguments = {"recurrent_activation": "gate_fn", "activation": "activation_fn"}
    own = {"softsign": jax.nn.soft_sign, "hard_sigmoid_02": lambda x: jax.numpy.clip(x / 5 + 0.5, 0, 1)}
    functions = activations(jax.nn, layout, spec, arguments, own)
    cell = getattr(linen, layout.name.partition(":")[2])
    # Reversed, RNN lists its outputs as it computes them; Bidirectional turns those of its second half by itself.
    halves = [linen.RNN(cell(spec.units, **functions), reverse=spec.go_backwards) for _ in range(spec.directions)]
    merge = {"merge_fn": MERGES[spec.merge]} if spec.merge in MERGES else {}
    return linen.Bidirectional(*halves, **merge) if spec.bidirectional else halves[0]


def read(obj: Built) -> dict[str, np.ndarray]:
    """Return the weights, as copies."""
    return {name: np.array(leaf) for name, leaf in _leaves(obj).items()}


def _leaves(obj: Built) -> dict[str, Any]:
    from flax.traverse_util import flatten_dict

    return {name.removeprefix("cell/"): leaf for name, leaf in flatten_dict(obj.params, sep="/").items()}


def write(obj: Built, arrays: Mapping[str, np.ndarray]) -> Built:
    """Return a copy with these weights; the module is the same one."""
    import jax.numpy as jnp
    from flax.traverse_util import unflatten_dict

    leaves = _leaves(obj)
    given = fitting(arrays, {name: leaf.shape for name, leaf in leaves.items()}, str(obj.layout))
    prefix = "cell/" if "cell" in obj.params else ""
    params = {prefix + name: jnp.array(array, leaves[name].dtype) for name, array in given.items()}
    return dataclasses.replace(obj, params=unflatten_dict(params, sep="/"))


def run(obj: Built, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step."""
    import jax

    with jax.default_matmul_precision("highest"):  # accelerators multiply float32 in fewer bits otherwise
        return np.array(obj.module.apply({"params": obj.params}, inputs))
