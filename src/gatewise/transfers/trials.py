"""What both models of a transfer are fed, how each is called, and how far their outputs are apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gatewise.core.spec import Embedding
from gatewise.errors import TransferError
from gatewise.parity.inputs import read_inputs
from gatewise.transfers.sides import Side

BATCH, STEPS = 3, 7
"""Sizes of what is drawn where a model leaves them open; unlike each other, so that an axis taken for another shows."""

MOST_TOKENS = 1000


class Feed(NamedTuple):
    """Arguments of one call.

    Attributes:
        args: By position.
        kwargs: By keyword.
        text: What it is, for people.
        lengths: How long each sequence is without its padding, where there is any.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    text: str
    lengths: np.ndarray | None = None


class Manner(NamedTuple):
    """A way to call the target with what the source is called with.

    Attributes:
        words: What is done, for people; empty where nothing is.
        axes: ``""``, ``"time first"`` or ``"channels first"``.
        lengths: ``""``, ``"argument"``, ``"mask"`` or ``"packed"``: how it is told the lengths of sequences.
        name: The argument that it is told them by.
    """

    words: str = ""
    axes: str = ""
    lengths: str = ""
    name: str = ""


class Compared(NamedTuple):
    """One output of both models.

    Attributes:
        first: Its place among the source's outputs.
        second: Its place among the target's.
        arranged: What was done with the target's axes, for people; empty where nothing was.
        ours: The source's array.
        theirs: The target's, in the order of the source's axes.
    """

    first: int
    second: int
    arranged: str
    ours: np.ndarray
    theirs: np.ndarray

    @property
    def gap(self) -> float:
        """The largest difference, relative to the largest output (at least 1); infinite where only one is finite."""
        return distance(self.ours, self.theirs)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference of two arrays, relative to the largest number of the first (at least 1).

    >>> distance(np.array([1.0, 4.0]), np.array([1.0, 3.0]))
    0.25
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    finite = np.isfinite(ours)
    if (finite != np.isfinite(theirs)).any():
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(ours - theirs)[finite].max() / max(1.0, np.abs(ours[finite]).max()))


# ── what is fed ─────────────────────────────────────────────────────────────────────────────────────────────────


def given(inputs: Any) -> Feed | None:
    """Return what a user gave, as arrays, or a file of them; None where it is None."""
    read = read_inputs(inputs)
    if read is None:
        return None
    lengths = None
    if len(read.args) == 2 and all(isinstance(each, np.ndarray) for each in read.args):
        first, second = read.args
        if second.shape == first.shape[:1] and second.dtype.kind in "iu" and first.ndim > 1:
            lengths = second if second.min() > 0 and second.max() <= first.shape[1] else None
    return Feed(read.args, read.kwargs, f"the given inputs, {read.text()}", lengths)


def drawn(side: Side, other: Side, random: np.random.Generator) -> list[Feed]:
    """Return inputs for what a model says of its own inputs; empty where it says nothing."""
    known = side.reach.shapes_of_inputs(side.obj) if side.reach is not None else None
    if not known:
        return []
    tables = [item.spec for each in (side, other) for item in each.inventory.items if isinstance(item.spec, Embedding)]
    tokens = min((spec.tokens for spec in tables), default=2)
    made = []
    for number in range(2):
        arrays: list[np.ndarray] = []
        for _, shape, kind in known:
            sizes = [
                BATCH if axis == 0 else STEPS + number if size is None else size for axis, size in enumerate(shape)
            ]
            whole = kind.startswith(("int", "uint")) or (not kind and bool(tables) and len(sizes) == 2)
            if kind == "float32" and tables and len(known) == 1 and len(sizes) == 2:
                whole = _reads_tokens(side)
            if kind == "bool":
                arrays.append(random.random(sizes) < 0.7)
            elif whole:
                arrays.append(random.integers(1 if tokens > 2 else 0, min(tokens, MOST_TOKENS * 1000), sizes))
            else:
                arrays.append(random.normal(size=sizes).astype(np.float32))
        text = f"random inputs, {', '.join(str(array.shape) for array in arrays)}"
        names = [name for name, _, _ in known]
        made.append(
            Feed((), dict(zip(names, arrays, strict=True)), text) if all(names) else Feed(tuple(arrays), {}, text)
        )
    return made + _padded(side, made[0])


def _padded(side: Side, feed: Feed) -> list[Feed]:
    """Return inputs with padded rows, where a model skips padding; the first row has none."""
    found = side.reach.masks(side.obj) if side.reach is not None else None
    if found is None or len(feed.args) != 1:
        return []
    first: np.ndarray = feed.args[0]
    if first.ndim != (2 if found[0] == "tokens" else 3):
        return []
    if (first.dtype.kind in "iu") != (found[0] == "tokens"):
        return []
    lengths = np.array([max(1, first.shape[1] - 2 * row) for row in range(len(first))], np.int64)
    padded = first.copy()
    padded[np.arange(first.shape[1])[None, :] >= lengths[:, None]] = found[1]
    return [Feed((padded,), {}, f"random inputs with padded rows, {padded.shape}", lengths)]


def _reads_tokens(side: Side) -> bool:
    """Say whether the first layer with weights is a table, whatever type the model's inputs are said to have."""
    return isinstance(side.inventory.items[0].spec, Embedding)


def guessed(side: Side, random: np.random.Generator) -> Iterator[Feed]:
    """Yield inputs that a module which says nothing of its inputs may take, the likeliest first."""
    specs = [item.spec for item in side.inventory.items if item.spec is not None]
    tables = [spec for spec in specs if isinstance(spec, Embedding)]
    if tables:
        least = min(spec.tokens for spec in tables)
        array = random.integers(1 if least > 1 else 0, least, (BATCH, STEPS))
        yield Feed((array,), {}, f"random tokens, {array.shape}")
        return
    for spec in dict.fromkeys(specs):
        width = spec.options().get("features")
        if not width:
            continue
        for shape in ((BATCH, STEPS, width), (BATCH, width), (BATCH, width, 11), (BATCH, width, 16, 16)):
            yield Feed((random.normal(size=shape).astype(np.float32),), {}, f"random inputs, {shape}")


# ── how the target is called ────────────────────────────────────────────────────────────────────────────────────


def manners(side: Side, feed: Feed) -> list[Manner]:
    """Return the ways in which a model may take what the other one takes, the plainest first."""
    made = [Manner()]
    assert side.reach is not None
    names = side.reach.parameters_of(side.obj)
    needed = [name for name, need in names if need]
    count = len(feed.args) + len(feed.kwargs)
    if len(needed) == count + 1:
        [name] = needed[count:]
        kind = "mask" if "mask" in name.lower() else "argument"
        words = f"with {'a mask' if kind == 'mask' else 'the lengths'} of its sequences as {name!r}"
        turned = f"{words}, axes 0 and 1 of its inputs swapped (batch and time)"
        made = [Manner(words, "", kind, name), Manner(turned, "time first", kind, name)]
        if kind == "mask":
            made.append(Manner(f"{words}, true where it is padded", "", "padding", name))
    arrays = [each for each in (*feed.args, *feed.kwargs.values()) if isinstance(each, np.ndarray)]
    if made == [Manner()]:
        if any(array.ndim >= 2 for array in arrays):
            made.append(Manner("with axes 0 and 1 of its inputs swapped (batch and time)", "time first"))
        if any(array.ndim >= 3 and array.dtype.kind == "f" for array in arrays):
            made.append(Manner("with channels first", "channels first"))
            made.append(Manner("with channels last", "channels last"))
            made.append(Manner("with packed sequences", "", "packed"))
    return made


def called(
    side: Side, obj: Any, feed: Feed, manner: Manner, natives: Mapping[int, Any]
) -> tuple[list[np.ndarray], list[Any]]:
    """Call a model in one way; return its outputs and the calls of its layers."""
    assert side.reach is not None
    args = [_turned(each, manner.axes) for each in feed.args]
    kwargs = {name: _turned(each, manner.axes) for name, each in feed.kwargs.items()}
    if kwargs and not args:
        known = [name for name, _ in side.reach.parameters_of(obj)]
        inputs = side.reach.shapes_of_inputs(obj)
        if inputs is None and not set(kwargs) <= set(known):
            args, kwargs = list(kwargs.values()), {}
    most = side.reach.capacity(obj)
    if most is not None and len(args) > most >= 1:
        args = args[:most]
    lengths = None
    if manner.lengths:
        first = next((each for each in (*feed.args, *feed.kwargs.values()) if isinstance(each, np.ndarray)), None)
        lengths = feed.lengths if feed.lengths is not None else _full(first)
        if manner.lengths != "packed":
            steps = np.arange(first.shape[1] if first is not None else 0)[None, :] < lengths[:, None]
            kwargs[manner.name] = {"argument": lengths, "mask": steps}.get(manner.lengths, ~steps)
            lengths = None
    return side.reach.observe(obj, args, kwargs, natives, lengths)


def _full(array: np.ndarray | None) -> np.ndarray:
    if array is None or array.ndim < 2:
        raise TransferError("Its sequences have no lengths.", "No input has a time axis.", "Give inputs=.")
    return np.full(array.shape[0], array.shape[1], np.int64)


def _turned(value: Any, axes: str) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if axes == "time first" and value.ndim >= 2:
        return np.ascontiguousarray(value.swapaxes(0, 1))
    if axes == "channels first" and value.ndim >= 3 and value.dtype.kind == "f":
        return np.ascontiguousarray(np.moveaxis(value, -1, 1))
    if axes == "channels last" and value.ndim >= 3 and value.dtype.kind == "f":
        return np.ascontiguousarray(np.moveaxis(value, 1, -1))
    return value


# ── outputs side by side ────────────────────────────────────────────────────────────────────────────────────────


def arrangements(array: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield an array in the ways in which it may have a shape: as it is, with axes exchanged, without axes of one."""
    if array.shape == shape:
        yield "", array
    if array.ndim >= 2:
        for words, turned in (
            ("axes 0 and 1 swapped", array.swapaxes(0, 1)),
            ("channels last", np.moveaxis(array, 1, -1)),
            ("channels first", np.moveaxis(array, -1, 1)),
        ):
            if turned.shape == shape and turned.strides != array.strides:
                yield words, turned
    bare = tuple(size for size in shape if size != 1)
    if array.shape != shape and tuple(size for size in array.shape if size != 1) == bare:
        yield "axes of length 1 left out or added", array.reshape(shape)


def side_by_side(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], lengths: np.ndarray | None = None
) -> list[Compared]:
    """Pair the outputs of two models: those in one place, or where one has fewer the next of a fitting shape.

    Behind the end of a padded sequence what is given means nothing: there the target's counts as the source's.
    """
    names = [getattr(each, "names", ()) for each in (ours, theirs)]
    if all(all(each) and each for each in names) and set(names[0]) == set(names[1]):
        theirs = [theirs[names[1].index(name)] for name in names[0]]
    made: list[Compared] = []
    left = list(range(len(theirs)))
    for place, mine in enumerate(ours):
        # Not the nearest: outputs that stand crosswise would make a crosswise pairing of twins agree.
        for number in [place] if len(ours) == len(theirs) else left:
            found = [
                Compared(place, number, words, mine, turned)
                for words, turned in arrangements(theirs[number], mine.shape)
            ]
            if found:
                made.append(min((_unpadded(each, lengths) for each in found), key=lambda each: each.gap))
                left.remove(number)
                break
    return made


def _unpadded(compared: Compared, lengths: np.ndarray | None) -> Compared:
    ours = compared.ours
    if lengths is None or ours.ndim < 2 or len(ours) != len(lengths) or ours.shape[1] < max(lengths):
        return compared
    beyond = np.arange(ours.shape[1])[None, :] >= lengths[:, None]
    theirs = compared.theirs.copy()
    theirs[beyond] = ours[beyond]
    return compared._replace(theirs=theirs)


def gap(compared: Sequence[Compared]) -> float:
    """Return the largest relative difference over all outputs that both models give; infinite where there is none."""
    return max((each.gap for each in compared), default=float("inf"))
