"""Weights in which every number says what it is, so that a mapping can be checked without running a layer."""

from __future__ import annotations

import numpy as np

from gatewise.core.layout import GATES, PARTS, Key, Layout, store
from gatewise.core.proof import Element, Reader
from gatewise.core.spec import Spec
from gatewise.errors import SpecError

_WIDTH = 1000  # indices stand in three digits each
_FOURTH = 90  # but for the fourth, of which float64 holds no more


def fingerprint(spec: Spec, layout: Layout) -> dict[str, np.ndarray]:
    """Return weights for a layout in which each number names its place in the canonical form.

    In ``10302014007``, read from the right, ``007`` is the column, ``014`` the row, ``2`` the gate (from 1),
    ``0`` the direction, ``03`` the layer, and ``1`` the part (from 1). In front of it stands the place along a third
    axis, where a part has one, and before that along a fourth. All numbers are exact in float64.

    Args:
        spec: The layer; no axis may be longer than 1,000, and a fourth one not longer than 90.
        layout: The layout whose names and shapes the arrays get.

    Returns:
        Name → float64 array.

    >>> from gatewise.registry import layout
    >>> spec = __import__("gatewise").LSTM(2, 1)
    >>> fingerprint(spec, layout("keras", spec))["kernel"]
    array([[1.0001e+10, 1.0002e+10, 1.0003e+10, 1.0004e+10],
           [1.0001e+10, 1.0002e+10, 1.0003e+10, 1.0004e+10]])
    """
    read = Reader(layout, spec)
    made = {}
    for name, shape in store(layout, spec).shapes.items():
        made[name] = np.array([encode(spec, read(name, index)) for index in np.ndindex(*shape)]).reshape(shape)
    return made


def encode(spec: Spec, element: Element) -> float:
    """Return the number that names a canonical element."""
    key, (row, column, depth, fourth) = element.key, (*element.place, 0, 0, 0, 0)[:4]
    if max(row, column, depth) >= _WIDTH or fourth >= _FOURTH or key.layer > 99:
        raise SpecError(
            f"{spec} is too large for fingerprints.",
            f"An axis is longer than {_WIDTH:,}, or a fourth one than {_FOURTH}.",
            "Use a smaller layer.",
        )
    depth += fourth * _WIDTH
    part, gate = list(PARTS[spec.cell]).index(key.part) + 1, GATES[spec.cell].find(key.gate) + 1 if key.gate else 0
    block = (((depth * 10 + part) * 100 + key.layer) * 10 + key.direction) * 10 + gate
    return float(block * _WIDTH**2 + row * _WIDTH + column)


def decode(spec: Spec, value: float) -> Element:
    """Return what a fingerprint names.

    >>> from gatewise.core.spec import LSTM
    >>> decode(LSTM(20, 20), 10302014007)
    Element(key=Key(part='kernel', layer=3, direction=0, gate='f'), place=(14, 7))
    """
    whole = int(value)
    whole, column = divmod(whole, _WIDTH)
    whole, row = divmod(whole, _WIDTH)
    whole, gate = divmod(whole, 10)
    whole, direction = divmod(whole, 10)
    whole, layer = divmod(whole, 100)
    depth, part = divmod(whole, 10)
    name = list(PARTS[spec.cell])[part - 1]
    axes = [axis for axis in PARTS[spec.cell][name].split() if axis != "gate"]
    letter = GATES[spec.cell][gate - 1] if gate else ""
    fourth, depth = divmod(depth, _WIDTH)
    return Element(Key(name, layer, direction, letter), (row, column, depth, fourth)[: len(axes)])
