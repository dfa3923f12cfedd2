"""Reads and checks inputs that a person gives: arrays or tensors, positional or by name, or a file of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gatewise import checkpoints
from gatewise.core.between import Input
from gatewise.core.network import Layer, Network
from gatewise.core.spec import Embedding
from gatewise.errors import SpecError, nearest

KINDS = "biuf"
"""NumPy's letters of the types that a model takes: truth values, integers and floats."""


class Inputs(NamedTuple):
    """What a model is called with; leaves are arrays.

    Attributes:
        args: Positional arguments; lists, tuples and dicts of arrays may be among them.
        kwargs: Arguments by name.
        loose: Whether names may be ignored where no argument has them, as those of a file: then the order counts.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    loose: bool = False

    def leaves(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each array with its place."""
        for number, value in enumerate(self.args):
            yield from leaves(value, f"input {number}")
        for name, value in self.kwargs.items():
            yield from leaves(value, name)

    def map(self, change: Any) -> Inputs:
        """Return the inputs with each array changed; ``change`` is given place and array."""
        args = tuple(mapped(value, change, f"input {number}") for number, value in enumerate(self.args))
        kwargs = {name: mapped(value, change, name) for name, value in self.kwargs.items()}
        return Inputs(args, kwargs, self.loose)

    def rows(self) -> Inputs | None:
        """Return the first half of the samples, where all arrays have the same number of them, and more than one."""
        sizes = {array.shape[0] if array.ndim else 0 for _, array in self.leaves()}
        if len(sizes) != 1 or max(sizes) < 2:
            return None
        half = max(sizes) // 2
        return self.map(lambda _, array: array[:half])

    def text(self) -> str:
        """Say what is fed, by shapes."""
        return ", ".join(str(array.shape) for _, array in self.leaves())


def leaves(value: Any, place: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a tree of lists, tuples and dicts."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from leaves(each, f"{place}[{name!r}]")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from leaves(each, f"{place}[{number}]")
    else:
        yield place, value


def mapped(value: Any, change: Any, place: str = "") -> Any:
    """Return a tree of the same form with each leaf changed."""
    if isinstance(value, Mapping):
        return {name: mapped(each, change, f"{place}[{name!r}]") for name, each in value.items()}
    if isinstance(value, list | tuple):
        made = [mapped(each, change, f"{place}[{number}]") for number, each in enumerate(value)]
        return made if isinstance(value, list) else tuple(made)
    return change(place, value)


def read_inputs(inputs: Any) -> Inputs | None:
    """Return inputs as arrays, checked; of a path those in the file, of None nothing.

    Args:
        inputs: One array or tensor; a tuple or list of them, which are positional; a dict of them, by name; or the path
            of an ``.npz``. A list of lists of numbers is one array.

    Raises:
        SpecError: There is none, or one holds no numbers, no samples, or values that are not finite.
        FileError: The file cannot be read.

    >>> read_inputs((np.zeros((2, 7, 3)), np.zeros((2, 1)))).text()
    '(2, 7, 3), (2, 1)'
    """
    if inputs is None:
        return None
    if isinstance(inputs, str | Path):
        made = Inputs((), checkpoints.load(inputs), loose=True)
    elif isinstance(inputs, Mapping):
        wrong = next((name for name in inputs if not isinstance(name, str)), None)
        if wrong is not None:
            raise SpecError(f"{wrong!r} is no name of an input.", "inputs: a dict is by name.", "Use names as keys.")
        made = Inputs((), dict(inputs))
    elif isinstance(inputs, tuple) or (isinstance(inputs, list) and not _is_numbers(inputs)):
        made = Inputs(tuple(inputs))
    else:
        made = Inputs((inputs,))
    checked = Inputs(tuple(map(_numbers, made.args)), {n: _numbers(v) for n, v in made.kwargs.items()}, made.loose)
    checked = checked.map(_array)
    if not list(checked.leaves()):
        raise SpecError("There are no inputs.", "inputs holds no array.", "Give at least one array, or leave it out.")
    return checked


def _is_numbers(value: Any) -> bool:
    """Say whether lists within lists hold Python's own numbers, as ``array.tolist()`` gives them."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_numbers, value))
    return isinstance(value, int | float)


def _numbers(value: Any) -> Any:
    """Return what a person gives with each nested list of numbers as one leaf."""
    if isinstance(value, Mapping):
        return {name: _numbers(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return _Numbers(value) if _is_numbers(value) else type(value)(map(_numbers, value))
    return value


class _Numbers:
    """Nested lists of numbers, kept as one leaf until they become an array."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _array(place: str, value: Any) -> np.ndarray:
    """Return one input as an array of numbers; a tensor of any framework becomes one."""
    value = value.value if isinstance(value, _Numbers) else value
    try:
        if hasattr(value, "detach"):  # torch converts no tensor that requires a gradient, is elsewhere, or of bfloat16
            value = value.detach().cpu()
            value = value.float() if "bfloat16" in str(value.dtype) else value
        array = np.array(value.numpy() if hasattr(value, "numpy") else value)
    except Exception as error:  # a foreign object's __array__ raises whatever it likes
        raise _no_array(place, f"a {type(value).__name__}", str(error)) from error
    if array.dtype.kind not in KINDS:
        if array.dtype.kind == "V" and array.dtype.name == "bfloat16":
            return array.astype(np.float32)
        raise _no_array(place, f"of {array.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}")
    if 0 in array.shape:
        axis = array.shape.index(0)
        what = {0: "0 samples", 1: "0 time steps"}.get(axis, f"nothing along axis {axis}")
        raise SpecError(
            f"{place} of shape {array.shape} has {what}.", "inputs: at least one of each.", "Give real samples."
        )
    bad = int(np.count_nonzero(~np.isfinite(array))) if array.dtype.kind == "f" else 0
    if bad:
        raise SpecError(
            f"{place} of shape {array.shape} holds {bad:,} values that are NaN or infinite.",
            "inputs: outputs would be NaN, too, which tells nothing.",
            "Replace them, such as by the value that a mask stands for.",
        )
    return array


def _no_array(place: str, what: str, why: str = "") -> SpecError:
    met = f"{place} is {what}, no array of numbers" + (f": {why.splitlines()[0]}" if why else "")
    return SpecError(met.rstrip(".") + ".", "inputs: arrays or tensors of numbers.", "Give one array for each input.")


def for_network(inputs: Inputs, network: Network) -> list[np.ndarray]:
    """Return one array for each input of a network, in its order.

    Raises:
        SpecError: There are too few or too many, a name is unknown, or an array is not what its input takes.
    """
    sources = [layer for layer in network.layers if isinstance(layer.spec, Input)]
    names = [layer.name for layer in sources]
    given = dict(inputs.kwargs)
    if given and not (inputs.loose and set(names) != set(given)):
        unknown = next((name for name in given if name not in names), None)
        if unknown is not None:
            raise SpecError(
                f"No input is called {unknown!r}.",
                f"The inputs are {', '.join(names)}.",
                nearest(unknown, names) + "Name one array for each, or give a tuple, in this order.",
            )
        arrays = [given[name] for name in names if name in given]
    else:
        arrays = [*inputs.args, *given.values()]
    flat = [array for value in arrays for _, array in leaves(value, "")]
    if len(flat) != len(sources):
        raise SpecError(
            f"{len(flat)} inputs for {len(sources)}.",
            f"The network reads {', '.join(names)}.",
            "Give one array for each.",
        )
    made = [_fitting(network, layer, array) for layer, array in zip(sources, flat, strict=True)]
    samples = {array.shape[0] for array in made if array.ndim}
    if len(samples) > 1:
        raise SpecError(
            f"The inputs have {' and '.join(map(str, sorted(samples)))} samples.",
            f"The network reads {', '.join(names)}, batch first.",
            "Give as many samples to each.",
        )
    return made


def _fitting(network: Network, source: Layer, array: np.ndarray) -> np.ndarray:
    """Return an array in the type that its input takes; raise ``SpecError`` where it is not what it takes."""
    spec = source.spec
    assert isinstance(spec, Input)
    wanted = (spec.batch, *spec.shape)
    if len(wanted) != array.ndim or any(
        size not in (None, given) for size, given in zip(wanted, array.shape, strict=True)
    ):
        raise SpecError(
            f"An array of shape {array.shape} for input {source.name!r}.",
            f"It takes {wanted}; None stands for any length.",
            "Give the batch first, then the axes of the input.",
        )
    if spec.boolean:
        return array.astype(bool)
    if not spec.integer:
        return array.astype(np.float32) if array.dtype.kind != "f" else array
    if array.dtype.kind == "f" and (array != np.round(array)).any():
        raise SpecError(
            f"Input {source.name!r} takes whole numbers, and its array of {array.dtype} holds fractions.",
            "The network reads tokens there.",
            "Give an array of integers.",
        )
    tables = [
        layer.spec.tokens
        for layer in network.layers
        if isinstance(layer.spec, Embedding) and source.name in layer.inputs
    ]
    if tables and not (array.min() >= 0 and array.max() < min(tables)):
        wrong = array.min() if array.min() < 0 else array.max()
        raise SpecError(
            f"Input {source.name!r} holds the token {int(wrong)}.",
            f"Its Embedding has the tokens 0 to {min(tables) - 1}.",
            "Give tokens of the vocabulary.",
        )
    return array.astype(np.int32) if array.dtype.kind in "fb" else array


def check_inputs(inputs: Any, network: Network) -> None:
    """Raise ``SpecError`` where inputs are not what a network reads."""
    given = read_inputs(inputs)
    if given is not None:
        for_network(given, network)


def first_rows(arrays: Sequence[np.ndarray], network: Network) -> list[np.ndarray] | None:
    """Return the first half of the samples, where no input has a batch of its own and there is more than one."""
    fixed = any(isinstance(layer.spec, Input) and layer.spec.batch is not None for layer in network.layers)
    cut = None if fixed else Inputs(tuple(arrays)).rows()
    return None if cut is None else [array for _, array in cut.leaves()]
