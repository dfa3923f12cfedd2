"""Runs Haiku, whose modules live within a transformed function only.

A layer is therefore a ``Built``: such a function with its parameters.

Haiku takes seconds to import, so each function does it when it is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gatewise.arrays.native import Built, check_builds, fitting, smallest_input
from gatewise.core.layout import Layout, store
from gatewise.core.spec import Dense, Embedding, Recurrent, Spec


def claims(obj: object) -> bool:
    """Say whether an object was built here."""
    return isinstance(obj, Built) and obj.layout.framework == "haiku"


def build(spec: Spec, layout: Layout) -> Built:
    """Return the transformed function of one ``Linear``, one ``Embed``, or one core unrolled over time."""
    import haiku as hk
    import jax

    check_builds(layout, spec, go_backwards=[False], **({"activation": ["linear"]} if spec.cell == "dense" else {}))

    def forward(inputs: Any) -> Any:
        if isinstance(spec, Dense):
            return hk.Linear(spec.units, with_bias=spec.bias)(inputs)
        if isinstance(spec, Embedding):
            return hk.Embed(spec.tokens, spec.units)(inputs)
        assert isinstance(spec, Recurrent)
        name = layout.name.partition(":")[2].partition("(")[0]
        arguments = {"double_bias": "linear_1/b" in store(layout, spec).shapes} if name == "VanillaRNN" else {}
        core = getattr(hk, name)(spec.units, **arguments)
        outputs, _ = hk.dynamic_unroll(core, inputs, core.initial_state(len(inputs)), time_major=False)
        return outputs

    module = hk.without_apply_rng(hk.transform(forward))
    params = module.init(jax.random.key(0), smallest_input(spec))
    return Built(module, params, spec, layout)


def read(obj: Built) -> dict[str, np.ndarray]:
    """Return the weights, as copies."""
    return {name: np.array(obj.params[module][leaf]) for name, (module, leaf) in _places(obj).items()}


def _places(obj: Built) -> dict[str, tuple[str, str]]:
    """Return name → where it stands in the two levels of Haiku's parameters; names leave the outer module out."""
    places = [(module, leaf) for module, leaves in obj.params.items() for leaf in leaves]
    return {f"{module}/{leaf}".partition("/")[2]: (module, leaf) for module, leaf in places}


def write(obj: Built, arrays: Mapping[str, np.ndarray]) -> Built:
    """Return a copy with these weights; the function is the same one."""
    import jax.numpy as jnp

    places = _places(obj)
    shapes = {name: obj.params[module][leaf].shape for name, (module, leaf) in places.items()}
    params: dict[str, dict[str, Any]] = {module: {} for module in obj.params}
    for name, array in fitting(arrays, shapes, str(obj.layout)).items():
        module, leaf = places[name]
        params[module][leaf] = jnp.array(array, obj.params[module][leaf].dtype)
    return dataclasses.replace(obj, params=params)


def run(obj: Built, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs at every step."""
    import jax

    with jax.default_matmul_precision("highest"):  # accelerators multiply float32 in fewer bits otherwise
        return np.array(obj.module.apply(obj.params, jax.numpy.asarray(inputs)))
