"""What several adapters share: checks before building and writing, functions by name, a layer beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gatewise.core.layout import Layout, check_holds
from gatewise.core.spec import Dense, Embedding, Recurrent, Spec
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

BOTH_DIRECTIONS: dict[str, Collection[Any]] = {"merge": ("concat", *MERGES), "go_backwards": (False,)}
"""What a pair of directions can be built with; ``go_backwards`` would exchange the two."""


class Outputs(list[np.ndarray]):
    """What a model gives, as arrays in its own order.

    Attributes:
        names: The key of each, where it stands in a dict; else empty.
    """

    names: tuple[str, ...] = ()

    def add(self, name: str, values: Outputs) -> None:
        """Take in what stands at a key of a dict, or without one."""
        inner = values.names or ("",) * len(values)
        self.names += tuple(f"{name}.{each}".strip(".") for each in inner)
        self.extend(values)


class Call(NamedTuple):
    """One call of one layer of a model, as it was seen: the layer's number, and the arrays in and out."""

    number: int
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


@dataclass(frozen=True)
class Built:
    """A layer of a framework that keeps the weights apart from the layer, with its weights beside it."""

    module: Any
    params: Any
    spec: Spec
    layout: Layout


class Weight(NamedTuple):
    """One tensor of a live object, to be changed and put back.

    Attributes:
        trainable: Whether training changes it.
        read: Returns a copy, in float64.
        write: Takes other values for it.
        keep: Returns a copy in its own type.
        restore: Takes what ``keep`` returned, bit for bit.
    """

    trainable: bool
    read: Callable[[], np.ndarray]
    write: Callable[[np.ndarray], None]
    keep: Callable[[], Any]
    restore: Callable[[Any], None]


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


def activations(
    namespace: Any, layout: Layout, spec: Spec, arguments: Mapping[str, str], own: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Callable[[Any], Any]]:
    """Return a framework's functions for the activations of a spec, as arguments for its class.

    Args:
        namespace: Where the framework keeps its functions; those of ``COMMON`` are taken from there by name.
        layout: The layout of the class that is built.
        spec: The layer to be built.
        arguments: Option of the spec → argument of the class; an option that the spec does not have is left out.
        own: Functions for names that the framework lacks, or spells in another way.
    """
    known = {name: getattr(namespace, name) for name in COMMON if hasattr(namespace, name)}
    known |= {"linear": lambda x: x, **own}
    options = spec.options()
    there = {option: argument for option, argument in arguments.items() if option in options}
    check_builds(layout, spec, **dict.fromkeys(there, known))
    return {argument: known[options[option]] for option, argument in there.items()}


def smallest_input(spec: Spec) -> np.ndarray:
    """Return zeros of the smallest shape that a layer takes, for frameworks that make weights from a first input.

    >>> from gatewise.core.spec import LSTM
    >>> smallest_input(LSTM(3, 5)).shape
    (1, 1, 3)
    """
    if isinstance(spec, Embedding):
        return np.zeros(1, np.int32)
    assert isinstance(spec, Dense | Recurrent)
    return np.zeros((1, spec.features) if isinstance(spec, Dense) else (1, 1, spec.features), np.float32)


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
