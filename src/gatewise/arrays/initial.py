"""Draws the weights of a layer once, in canonical form, under a named rule; a plan brings them anywhere.

A rule follows a framework's own initialisation; it does not promise the numbers of that framework's seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gatewise.core.layout import CANONICAL, PARTS, Key, axis_length, gates_of, store
from gatewise.core.spec import Conv, Dense, Spec
from gatewise.errors import SpecError, nearest

Draw = Callable[[np.random.Generator, Spec, str, int], np.ndarray]


def draw(spec: Spec, seed: int = 0, rule: str = "keras") -> dict[str, np.ndarray]:
    """Return canonical weights of a layer.

    Args:
        spec: The layer.
        seed: Seed of NumPy's PCG64.
        rule: ``"keras"``: Glorot uniform kernels over all gates together, orthogonal recurrent kernels, zero biases
            with ones for the forget gate. ``"torch"``: everything uniform within ``1 / sqrt(units)``.

    Returns:
        Name in the canonical layout → float64 array, gate axis first.

    Raises:
        SpecError: No rule has this name, or the seed is none.

    >>> from gatewise.core.spec import LSTM
    >>> weights = draw(LSTM(3, 5), seed=1)
    >>> weights["bias"][:, 0]                       # i, f, g, o
    array([0., 1., 0., 0.])
    """
    if rule not in RULES:
        known = ", ".join(map(repr, RULES))
        raise SpecError(
            f"No initial rule is called {rule!r}.", f"Known: {known}.", nearest(rule, RULES) + "Use one of these."
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise SpecError(f"seed={seed!r} is not a seed.", "A seed is a whole number from 0.", "Give seed=0, say.")
    random = np.random.Generator(np.random.PCG64(int(seed)))
    layout = CANONICAL[spec.cell]
    parts: dict[str, Key] = {}
    for key, slot in store(layout, spec).slots.items():
        parts.setdefault(slot.tensor, key)
    return {name: RULES[rule](random, spec, key.part, key.layer) for name, key in parts.items()}


def _shape(spec: Spec, part: str, layer: int) -> tuple[int, ...]:
    """Return the shape of a part: gates, where it has them, then its own axes."""
    key = Key(part, layer, 0, "")
    axes = CANONICAL[spec.cell].tensors
    pattern = next(pattern for pattern in axes.values() if pattern.partition(":")[0] == key.part)
    return tuple(
        len(gates_of(spec.cell, part)) if axis == "gate" else axis_length(spec, axis, layer)
        for axis in pattern.partition(":")[2].split()
    )


def _keras(random: np.random.Generator, spec: Spec, part: str, layer: int) -> np.ndarray:
    shape = _shape(spec, part, layer)
    if part == "recurrent_kernel":
        return _orthogonal(random, shape)
    if part == "table":
        return random.uniform(-0.05, 0.05, shape)
    if "kernel" in part or part == "projection":
        # Keras draws one kernel for all gates together, so all of them count among its outputs. Of a convolution every
        # step that is seen counts, for what comes in and what goes out.
        outputs, inputs = int(np.prod(shape[:-1])), shape[-1]
        if isinstance(spec, Conv):
            outputs, inputs = (size * int(np.prod(spec.sizes)) for size in shape[:2])
        limit = np.sqrt(6 / (inputs + outputs))
        return random.uniform(-limit, limit, shape)
    if spec.cell == "additive_attention":
        limit = np.sqrt(3 / shape[0])
        return random.uniform(-limit, limit, shape)
    if part in NEUTRAL:
        return np.full(shape, NEUTRAL[part])
    values = np.zeros(shape)
    if part == "bias" and spec.cell == "lstm":
        values[gates_of("lstm", "bias").index("f")] = 1
    return values


def _orthogonal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a recurrent kernel of orthonormal columns: all gates of one state together, as Keras draws it."""
    gates, units, state = shape
    tall = max(gates * units, state), min(gates * units, state)
    q, r = np.linalg.qr(random.normal(size=tall))
    signed: np.ndarray = q * np.sign(np.diagonal(r))
    return (signed if gates * units >= state else signed.T).reshape(shape)


def _torch(random: np.random.Generator, spec: Spec, part: str, layer: int) -> np.ndarray:
    shape = _shape(spec, part, layer)
    if part == "table":
        return random.normal(size=shape)
    if spec.cell == "additive_attention":  # torch has none, and the layer of gatewise_torch starts as Keras's
        return _keras(random, spec, part, layer)
    if part in NEUTRAL:
        return np.full(shape, NEUTRAL[part])
    # nn.Linear and convolutions count their inputs, the recurrent layers their units.
    inputs = PARTS[spec.cell]["kernel"].split()[1:] if isinstance(spec, Conv | Dense) else ("units",)
    width = np.prod([axis_length(spec, axis) for axis in inputs])
    return random.uniform(-1 / np.sqrt(width), 1 / np.sqrt(width), shape)


NEUTRAL = {"scale": 1.0, "concat_score": 1.0, "shift": 0.0, "mean": 0.0, "variance": 1.0}
"""Parts of normalisations and attentions, which every framework starts from what changes nothing."""

RULES: dict[str, Draw] = {"keras": _keras, "torch": _torch}
"""The named rules of initialisation."""
