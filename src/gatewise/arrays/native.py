"""What several adapters share: checks before building and writing, functions by name, and a layer beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gatewise.core.layout import Layout, check_holds
from gatewise.core.spec import Spec
from gatewise.errors import ShapeError, UnsupportedSpecError, WeightsError, nearest

COMMON = (
    "tanh sigmoid relu relu6 elu selu celu silu softplus softmax log_softmax log_sigmoid "
    "hard_sigmoid hard_tanh hard_silu mish squareplus sparse_plus sparse_sigmoid"
).split()
"""Activations that mean the same wherever a framework has a function of that name.

Not ``gelu`` and ``leaky_relu``: their default arguments differ. ``tests/test_live_jax.py`` compares each.
"""

MERGES: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
}
"""How two directions become one output; ``concat`` is left to the framework, which needs a function of its own."""


@dataclass(frozen=True)
class Built:
    """A layer of a framework that keeps the weights apart from the layer, with its weights beside it."""

    module: Any
    params: Any
    spec: Spec
    layout: Layout


def check_builds(layout: Layout, spec: Spec, **only: Collection[Any]) -> None:
    """Raise ``UnsupportedSpecError`` for the first option that a class lacks, be it in its weights or in its arguments.

    Args:
        layout: The layout of the class.
        spec: The layer to be built.
        only: Option → the values that can be built, for options that do not show in the weights.

    >>> from gatewise.core.spec import Dense
    >>> linear = Layout("mine:Linear", cell="dense", tensors={"w": "kernel: units features", "b": "bias: units"})
    >>> check_builds(linear, Dense(3, 5, activation="relu"), activation=["linear"])
    Traceback (most recent call last):
    gatewise.errors.UnsupportedSpecError: mine:Linear cannot be built with activation='relu'.
      Dense(features=3, units=5, activation='relu'): this class has activation='linear' only.
      Hint: Leave it out here, and do it around the layer.
    """
    check_holds(layout, spec)
    options = spec.options()
    for option, values in only.items():
        if option in options and options[option] not in values:
            raise UnsupportedSpecError(
                f"{layout} cannot be built with {option}={options[option]!r}.",
                f"{spec}: this class has {option}={' or '.join(map(repr, values))} only.",
                "Leave it out here, and do it around the layer.",
                option=option,
            )


def activation(
    namespace: Any, layout: Layout, spec: Spec, option: str, own: Mapping[str, Callable[[Any], Any]]
) -> Callable[[Any], Any]:
    """Return a framework's function for an activation of a spec.

    Args:
        namespace: Where the framework keeps its functions; those of ``COMMON`` are taken from there by name.
        layout: The layout of the class that is built.
        spec: The layer to be built.
        option: Which activation of the spec.
        own: Functions for names that the framework lacks, or spells in another way.
    """
    name = getattr(spec, option)
    functions = {known: getattr(namespace, known) for known in COMMON if hasattr(namespace, known)}
    functions |= {"linear": lambda x: x, **own}
    if name not in functions:
        raise UnsupportedSpecError(
            f"{layout} cannot be built with {option}={name!r}.",
            f"{spec}: known here are {', '.join(sorted(functions))}.",
            "Choose one of these, or another framework.",
            option=option,
        )
    return functions[name]


def fitting(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], owner: str
) -> dict[str, np.ndarray]:
    """Return the arrays in the order of ``shapes``, after making sure that they are these, and no others.

    Frameworks take an array of a wrong shape without a word and fail at the first call, or broadcast.

    >>> fitting({"w": np.ones(3)}, {"w": (2,)}, "mine:Linear")
    Traceback (most recent call last):
    gatewise.errors.ShapeError: 'w' has shape (3,), expected (2,).
      mine:Linear: w (2,)
      Hint: Are these the weights of another layer?
    """
    where = f"{owner}: {', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
    for name in shapes.keys() ^ arrays.keys():
        what = "is missing" if name in shapes else "is unknown"
        raise WeightsError(f"{name!r} {what}.", where, nearest(name, shapes) + "Give all of these, and no others.")
    given = {name: np.asarray(arrays[name]) for name in shapes}
    for name, shape in shapes.items():
        if given[name].shape != shape:
            raise ShapeError(
                f"{name!r} has shape {given[name].shape}, expected {shape}.",
                where,
                "Are these the weights of another layer?",
            )
    return given
