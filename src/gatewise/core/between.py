"""What stands between layers with weights, and in front of them: inputs, masks, merges, operations, other shapes.

Specs as those of ``spec.py``; no layout stores them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from gatewise.core.spec import (
    ACTIVATIONS,
    PADDINGS,
    Conv,
    Spec,
    check_activation,
    check_axes,
    check_choice,
    check_flag,
    check_rate,
    check_size,
    check_sizes,
    per_axis,
)
from gatewise.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from dataclasses import KW_ONLY

JOINS = ("concat", "sum", "mul", "ave", "sub", "max", "min")
"""How several tensors become one."""

TESTS = ("not_equal", "equal", "greater", "greater_equal", "less", "less_equal")
"""How a number is compared with another."""

POINTWISE = (
    *("absolute", "negative", "square", "sqrt", "exp", "log", "sign", "floor", "round", "zeros_like", "ones_like"),
    *("add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "clip", "where"),
    *("isnan", "isinf", "isfinite", "logical_not", "logical_and", "logical_or", "logical_xor", *TESTS),
    *("float", "int", "bool"),
)
"""Functions of numbers, each for itself; arrays of several shapes are spread out over each other."""

OVER = ("sum", "mean", "prod", "max", "min", "any", "all", "argmax", "argmin")
"""Functions that make one number of all along some axes; the last two along one."""

ALONG = ("expand_dims", "squeeze", "flip", "concatenate", "stack", "cumsum", "cumprod")
"""Functions that change or join axes, or go along one."""

FUNCTIONS = (
    *(*POINTWISE, *OVER, *ALONG, "get_item", "matmul"),
    *(name for name in ACTIVATIONS if name not in ("threshold", "glu")),
)
"""What an ``Operation`` may compute: each activation but one that has no usual bounds, and one that halves an axis."""


class Input(Spec):
    """Where data comes into a network.

    Args:
        shape: Lengths of the axes behind the batch; None where any length will do, as for timesteps.
        integer: Whether it holds tokens and not numbers.
        boolean: Whether it holds a mask.
        batch: The only batch size there can be, or None.

    >>> Input((None, 3))
    Input(shape=(None, 3))
    """

    shape: tuple[int | None, ...]
    _: KW_ONLY
    integer: bool = False
    batch: int | None = None
    boolean: bool = False
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for size in self.shape:
            if size is not None:
                check_size("Input", "shape", size)
        if self.batch is not None:
            check_size("Input", "batch", self.batch)
        check_flag("Input", "integer", self.integer)
        check_flag("Input", "boolean", self.boolean)


class Dropout(Spec):
    """Dropout of the numbers that pass, in training only.

    Args:
        rate: The share that is dropped.
        whole: Whether a feature is dropped at all steps of a sequence, or all over an image, or nowhere, and not number
            by number.

    >>> Dropout(0.2)
    Dropout(rate=0.2)
    """

    rate: float
    _: KW_ONLY
    whole: bool = False
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate("Dropout", "rate", self.rate)
        check_flag("Dropout", "whole", self.whole)


class Noise(Spec):
    """Normal noise, in training only: it is added, or the numbers that pass are multiplied with it.

    Args:
        deviation: The standard deviation of what is added, around zero.
        rate: What is multiplied with is around one, with the variance that dropout of this rate has.

    >>> Noise(0.1), Noise(rate=0.5)
    (Noise(deviation=0.1), Noise(rate=0.5))
    """

    deviation: float = 0.0
    _: KW_ONLY
    rate: float = 0.0
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate("Noise", "rate", self.rate)
        if not self.deviation >= 0:
            raise SpecError(
                f"deviation={self.deviation!r} is no standard deviation.", "Noise: a number from 0.", "Give 0.1, say."
            )


class Rescale(Spec):
    """Multiplies features with constants and adds others, or the other way round.

    Args:
        factor: One for all features, or one for each.
        offset: Likewise.
        offset_first: Whether the offset is added before the factor multiplies, as where numbers are standardised.

    >>> Rescale(1 / 255), Rescale(0.5, (-1.0, 2.0), offset_first=True)
    (Rescale(factor=0.00392156862745098), Rescale(factor=0.5, offset=(-1.0, 2.0), offset_first=True))
    """

    factor: float | tuple[float, ...]
    offset: float | tuple[float, ...] = 0.0
    _: KW_ONLY
    offset_first: bool = False
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("Rescale", "offset_first", self.offset_first)
        for value in (self.factor, self.offset):
            _check_numbers("Rescale", value if isinstance(value, tuple) else (value,), 1)


class Activation(Spec):
    """An activation as a layer of its own.

    >>> Activation("relu"), Activation("leaky_relu(0.3)")
    (Activation(activation='relu'), Activation(activation='leaky_relu(0.3)'))
    """

    activation: str
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_activation("Activation", "activation", self.activation)


class Masking(Spec):
    """Marks the timesteps at which every feature has one value, so that recurrent layers skip them.

    >>> Masking()
    Masking()
    """

    mask_value: float = 0.0
    cell: ClassVar[str] = ""


class Constant(Spec):
    """Numbers that stand in the network itself, such as first states that are not read.

    Args:
        values: A row for each sequence of the batch.

    >>> Constant(((0.0, 1.0),))
    Constant(values=((0.0, 1.0),))
    """

    values: tuple[tuple[float, ...], ...]
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_numbers("Constant", self.values, 2)


class Merge(Spec):
    """Makes one tensor of several; its layer reads them all.

    Masks act as in Keras's layers: a step counts in the result where it does in any part, if each part has a mask;
    ``"max"`` and ``"min"`` take a step from the parts in which it counts, ``"mul"`` takes 1 where it does not, and 0
    where it counts in none.

    Args:
        merge: How: concatenated (``"concat"``), or number by number.
        axis: The axis along which they are concatenated, the batch being 0; -1 is the last. Further time axes, on
            whose steps the layer runs, do not count.

    >>> Merge("sum")
    Merge(merge='sum')
    """

    merge: str = "concat"
    _: KW_ONLY
    axis: int = -1
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Merge", "merge", self.merge, JOINS)
        if isinstance(self.axis, bool) or not isinstance(self.axis, int) or not (self.axis == -1 or self.axis > 0):
            raise SpecError(
                f"axis={self.axis!r} is no axis.", "Merge: axis is -1 or a number from 1.", "Leave it out for the last."
            )


def _check_numbers(owner: str, value: Any, axes: int | None = None) -> None:
    """Refuse what is no array of numbers, as nested tuples of equal lengths with something in them."""
    lengths, part = 0, value
    while isinstance(part, tuple) and part:
        lengths, part = lengths + 1, part[0]
    if (axes is not None and lengths != axes) or not _is_array(value, lengths):
        raise SpecError(
            f"{value!r:.80} is no array of numbers.",
            f"{owner}: nested tuples of equal lengths, of numbers.",
            "Give ((0.0, 1.0),), say.",
        )


def _is_array(value: Any, axes: int) -> bool:
    if axes == 0:
        return value is None or isinstance(value, int | float)
    alike = isinstance(value, tuple) and len({len(part) if isinstance(part, tuple) else 0 for part in value}) == 1
    return alike and all(_is_array(part, axes - 1) for part in value)


def _flat(nested: Any) -> list[Any]:
    """Return what nested tuples hold."""
    return [each for entry in nested for each in _flat(entry)] if isinstance(nested, tuple) else [nested]


class Operation(Spec):
    """A function of tensors that is no layer, by NumPy's name for it; no mask goes on from it.

    It makes masks (``not_equal``, ``any``), takes a step of a sequence (``get_item``), joins tensors or multiplies them
    (``matmul``). Of further time axes, on whose steps it runs, nothing is said here: the batch is axis 0, the steps are
    axis 1.

    Args:
        function: Which: one of ``POINTWISE``, ``OVER``, ``ALONG``, an activation, or ``"get_item"``.
        operands: What it is called on: None stands for the tensors that it reads, in turn; a number, or nested tuples
            of numbers, for itself. Without it, all that it reads.
        axis: The axis, or several, of a function over axes or along one; of an activation another than the last.
        keep: Whether axes that it reduces stay, with one entry.
        key: Of ``"get_item"``, an entry for each axis behind the batch: a number, ``(start, stop, step)``, or ``"new"``
            for an axis that was not there.

    >>> Operation("not_equal", (None, 0)), Operation("get_item", key=(-1,))
    (Operation(function='not_equal', operands=(None, 0)), Operation(function='get_item', key=(-1,)))
    """

    function: str
    operands: tuple[Any, ...] = ()
    _: KW_ONLY
    axis: tuple[int, ...] = ()
    keep: bool = False
    key: tuple[Any, ...] = ()
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Operation", "function", self.function, FUNCTIONS)
        check_flag("Operation", "keep", self.keep)
        if not all(isinstance(axis, int) and axis > 0 for axis in self.axis):
            raise SpecError(
                f"axis={self.axis!r} are no axes.", "Operation: axes are numbers from 1.", "The batch stays as it is."
            )
        for operand in self.operands:
            _check_numbers("Operation", operand)
        for entry in self.key:
            ends = isinstance(entry, tuple) and len(entry) == 3 and entry[-1] != 0
            if entry != "new" and not all(
                type(each) is int or (ends and each is None) for each in (entry if ends else (entry,))
            ):
                raise SpecError(
                    f"key={self.key!r} takes nothing.",
                    "Operation: a number, (start, stop, step) or 'new' for each axis.",
                    "Give key=(-1,) for the last step, say.",
                )

    def arguments(self, read: Sequence[Any]) -> list[Any]:
        """Return what the function is called on, where it reads so many tensors."""
        rest = iter(read)
        return [next(rest) if each is None else each for each in self.operands] or list(read)

    @property
    def numbers(self) -> list[float]:
        """All numbers that it is called on beside what it reads."""
        return [each for each in _flat(self.operands) if each is not None]

    @property
    def counts_steps(self) -> bool:
        """Whether it fits a certain number of steps: it has arrays of its own, or names steps by their number."""
        return any(isinstance(each, tuple) for each in self.operands) or any(
            isinstance(each, int) and each not in (-1, 0, 1) for each in _flat(self.key)
        )


class Softmax(Spec):
    """A softmax along some axes, as a layer: what its mask leaves out takes no part, and gives zeros.

    Args:
        axis: Along which, the batch being 0; negative ones count from the last.

    >>> Softmax((1,))
    Softmax(axis=(1,))
    """

    axis: tuple[int, ...] = (-1,)
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.axis or not all(isinstance(axis, int) and axis for axis in self.axis):
            raise SpecError(
                f"axis={self.axis!r} are no axes.", "Softmax: axes are numbers other than 0.", "The batch stays."
            )


class Dot(Spec):
    """Adds up the products of two tensors along an axis of each; the other axes of both are left, the first's first.

    Args:
        axes: The axis of the first and of the second, the batch being 0.
        normalize: Whether both are divided by their lengths along it before: the cosine.

    >>> Dot((2, 2))
    Dot(axes=(2, 2))
    """

    axes: tuple[int, int]
    _: KW_ONLY
    normalize: bool = False
    cell: ClassVar[str] = ""
    ends_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis in self.axes:
            check_size("Dot", "axes", axis)
        check_flag("Dot", "normalize", self.normalize)

    def equation(self, first: int, second: int) -> str:
        """Return the product as ``einsum`` takes it, of so many axes each.

        >>> Dot((2, 1)).equation(3, 2)
        'abz,az->ab'
        """
        one = ["a", *"bcdefgh"[: first - 1]]
        other = ["a", *"ijklmno"[: second - 1]]
        one[self.axes[0]] = other[self.axes[1]] = "z"
        left = [letter for letter in (*one, *other[1:]) if letter != "z"]
        return f"{''.join(one)},{''.join(other)}->{''.join(left)}"


class Flip(Spec):
    """Turns a sequence round, its first step last.

    A recurrent layer that reads from the end hands its mask on as it came, and its outputs in the order of reading:
    what stands behind it may have to turn only one of the two.

    Args:
        values: Whether the steps are turned round.
        mask: Whether the mask is that goes on from here.

    >>> Flip(mask=False)
    Flip(mask=False)
    """

    values: bool = True
    mask: bool = True
    cell: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("Flip", "values", self.values)
        check_flag("Flip", "mask", self.mask)


class Remask(Spec):
    """Gives the first of two inputs as it is, with the mask of the second, or with none where that has none.

    It stands behind a model that runs on each step of a time axis, and reads what comes out of it and what went in: no
    mask that was made within goes on.

    >>> Remask()
    Remask()
    """

    cell: ClassVar[str] = ""


class Pool(Spec):
    """Makes one step of several, or one place of an image: the largest value of each feature, or their mean.

    What is padded takes no part. A mask is followed by the mean over all steps alone, as in Keras, and by none of the
    others.

    Args:
        pool: ``"max"`` or ``"mean"``.
        size: Of how many steps; None for all of them. Over images (height, width), or one number for both.
        strides: How many steps the window moves on; None for its size.
        padding: What stands in for steps beyond the ends: ``"valid"`` or ``"same"``.
        keep: Whether the one step of a pool over all keeps its axes.
        axes: Along how many axes it goes: 1 for sequences, 2 for images.

    >>> Pool("max", 2), Pool("mean"), Pool("max", 2, axes=2)
    (Pool(pool='max', size=2), Pool(pool='mean'), Pool(pool='max', size=(2, 2), axes=2))
    """

    pool: str
    size: int | tuple[int, ...] | None = None
    _: KW_ONLY
    strides: int | tuple[int, ...] | None = None
    padding: str = "valid"
    keep: bool = False
    axes: int = 1
    cell: ClassVar[str] = ""
    ends_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Pool", "pool", self.pool, ("max", "mean"))
        check_axes("Pool", self.axes)
        for name in ("size", "strides"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, per_axis(value, self.axes) if self.axes > 1 else value)
                check_sizes("Pool", name, getattr(self, name), self.axes)
        check_choice("Pool", "padding", self.padding, PADDINGS[:2])
        check_flag("Pool", "keep", self.keep)

    @property
    def windows(self) -> tuple[tuple[int | None, int], ...]:
        """Along each axis: how far a window reaches, None for all, and how far it moves on."""
        reach, moves = per_axis(self.size, self.axes), per_axis(self.strides or self.size or 1, self.axes)
        return tuple(zip(reach, moves, strict=True))


class Reshape(Spec):
    """Lays the numbers of each sample out in another shape.

    Args:
        shape: Lengths of the axes behind the batch; one may be -1, which takes what is left.

    >>> Reshape((-1,))                                 # Keras's Flatten
    Reshape(shape=(-1,))
    """

    shape: tuple[int, ...]
    cell: ClassVar[str] = ""
    ends_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.shape:
            if size != -1:
                check_size("Reshape", "shape", size)
        if self.shape.count(-1) > 1:
            raise SpecError(
                f"shape={self.shape} leaves two lengths open.", "Reshape: one may be -1.", "Give the others as numbers."
            )


class Permute(Spec):
    """Puts the axes behind the batch into another order.

    Args:
        order: Which axis comes first, which then, counted from 1, as the batch is 0.

    >>> Permute((2, 1))
    Permute(order=(2, 1))
    """

    order: tuple[int, ...]
    cell: ClassVar[str] = ""
    ends_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if sorted(self.order) != list(range(1, len(self.order) + 1)):
            raise SpecError(
                f"order={self.order!r} is no order.",
                "Permute: each axis from 1 on stands once.",
                "Give (2, 1).",
            )


class Repeat(Spec):
    """Makes a sequence of one step, the same at all times.

    >>> Repeat(3)
    Repeat(times=3)
    """

    times: int
    cell: ClassVar[str] = ""
    ends_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("Repeat", "times", self.times)


class Pad(Spec):
    """Puts steps of zeros before a sequence, and behind it; or rows and columns around an image.

    Args:
        steps: How many, before and behind; of an image ((above, below), (left, right)).

    >>> Pad((1, 2)).axes, Pad(((1, 2), (0, 1))).axes
    (1, 2)
    """

    steps: tuple[Any, ...]
    cell: ClassVar[str] = ""
    ends_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not isinstance(pair, tuple) or len(pair) != 2 for pair in self.pairs) or len(self.pairs) not in (1, 2):
            raise SpecError(
                f"steps={self.steps!r} are not two.",
                "Pad: (before, behind); of an image ((above, below), (left, right)).",
                "Give steps=(1, 1), say.",
            )
        for size in _flat(self.steps):
            if size != 0:
                check_size("Pad", "steps", size)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """How many come before and behind, along each axis."""
        return self.steps if self.steps and isinstance(self.steps[0], tuple) else (self.steps,)

    @property
    def axes(self) -> int:
        """Along how many axes it goes."""
        return len(self.pairs)


class Upsample(Spec):
    """Gives each step of a sequence, or each place of an image, several times.

    Args:
        times: How many times; of an image (down, to the right), or one number for both.
        axes: Along how many axes it goes: 1 for sequences, 2 for images.

    >>> Upsample(2), Upsample(2, axes=2)
    (Upsample(times=2), Upsample(times=(2, 2), axes=2))
    """

    times: int | tuple[int, ...]
    _: KW_ONLY
    axes: int = 1
    cell: ClassVar[str] = ""
    ends_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_axes("Upsample", self.axes)
        object.__setattr__(self, "times", per_axis(self.times, self.axes) if self.axes > 1 else self.times)
        check_sizes("Upsample", "times", self.times, self.axes)


WEIGHTLESS: dict[str, type[Spec]] = {
    kind.__name__: kind
    for kind in (
        *(Input, Constant, Dropout, Noise, Rescale, Activation, Masking, Merge, Operation, Softmax, Dot, Flip, Remask),
        *(Pool, Reshape, Permute, Repeat, Pad, Upsample),
    )
}
"""The kinds that have none; their ``cell`` is empty, and no layout stores them."""


def window(spec: Conv | Pool, steps: int, axis: int = 0) -> tuple[int, int, int]:
    """Return how many steps a window gives of so many, and how many are padded before them and behind.

    What is padded on both sides is one more behind where it is odd, as TensorFlow has it.

    Args:
        spec: What has the window.
        steps: How many steps it reads along an axis.
        axis: Which: 0 is the first behind the batch.

    >>> from gatewise.core.spec import Conv1D
    >>> window(Conv1D(3, 5, 4, padding="same"), 7), window(Conv1D(3, 5, 4, padding="causal"), 7)
    ((7, 1, 2), (7, 3, 0))
    """
    reach, moves = spec.windows[axis]
    reach = reach or steps
    padding = spec.options()["padding"]
    if padding == "same":
        given = -(-steps // moves)
        padded = max(0, (given - 1) * moves + reach - steps)
        return given, padded // 2, padded - padded // 2
    before = reach - 1 if padding == "causal" else 0
    return max(0, (steps + before - reach) // moves + 1), before, 0
