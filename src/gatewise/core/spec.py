"""What a layer computes, in words that belong to no framework.

A spec says nothing of how the weights are stored: that is a layout's business (``layout.py``).
"""

from __future__ import annotations

import contextlib
import math
import operator
from typing import TYPE_CHECKING, Any, ClassVar

from gatewise.core.record import REQUIRED, Record
from gatewise.errors import SpecError, nearest

if TYPE_CHECKING:
    from dataclasses import KW_ONLY

ACTIVATIONS = (
    "linear tanh sigmoid relu hard_sigmoid hard_sigmoid_02 relu6 elu selu celu gelu silu softplus softsign softmax "
    "log_softmax exponential leaky_relu mish hard_tanh hard_silu log_sigmoid hard_shrink soft_shrink tanh_shrink "
    "squareplus sparse_plus sparse_sigmoid sparsemax threshold glu"
).split()
"""Activations by the name that Keras 3 gives them, and one that it has no name for.

``hard_sigmoid`` is x/6 + 0.5 between 0 and 1, as in Keras 3 and PyTorch; ``hard_sigmoid_02`` is 0.2x + 0.5 between 0
and 1, which Keras 1 and 2, tf_keras, Theano and ONNX call ``hard_sigmoid``.
"""

NUMBERED = {"leaky_relu": 0.2, "elu": 1.0, "relu": math.inf}
"""Activation that may have a number, as in ``"elu(0.5)"`` → the one that it has without: the slope below zero, the
bound below zero, the bound above."""

MERGES = ("concat", "sum", "mul", "ave", None)
"""How the outputs of two directions become one; ``None`` leaves them apart."""

PADDINGS = ("valid", "same", "causal")
"""What stands in for the steps beyond the ends: nothing, zeros at both ends, or zeros before the first alone."""

RUN = ("go_backwards", "return_sequences", "return_state", "stateful", "zero_output_for_mask")
"""What a layer says of how it runs its cell; layers that run one cell may differ in it."""

CALL = ("causal", "return_scores")
"""What an attention is told when it is called; uses of one may differ in it."""

MOST_LAYERS = 10_000


def check_size(owner: str, name: str, value: object, most: int | None = None) -> None:
    """Refuse what is no whole number from 1."""
    expected = f"{owner}: {name} is a whole number from 1" + (f" to {most:,}." if most else ".")
    try:
        if isinstance(value, bool):
            raise TypeError
        size = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise SpecError(f"{name}={value!r} is not a whole number.", expected, f"Give {name} as an integer.") from None
    if size < 1 or (most is not None and size > most):
        raise SpecError(f"{name}={size} is out of range.", expected, f"Give {name} a size that a layer can have.")


def check_choice(owner: str, name: str, value: object, choices: tuple[Any, ...] | list[str]) -> None:
    """Refuse what is not one of some choices."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        words = [choice for choice in choices if isinstance(choice, str)]
        guess = nearest(value, words) if isinstance(value, str) else ""
        known = ", ".join(map(repr, choices))
        raise SpecError(
            f"{name}={value!r} is unknown.", f"{owner}: {name} is one of {known}.", f"{guess}Use one of these."
        )


def check_activation(owner: str, name: str, value: object) -> None:
    """Refuse what is no activation, by its name alone or with its number."""
    check_choice(owner, name, numbered(value)[0] if isinstance(value, str) else value, ACTIVATIONS)


def numbered(activation: str) -> tuple[str, float | None]:
    """Take an activation apart into its name and its number, None where it has none.

    >>> numbered("leaky_relu(0.1)"), numbered("tanh")
    (('leaky_relu', 0.1), ('tanh', None))
    """
    name, bracket, rest = activation.partition("(")
    if bracket and name in NUMBERED and rest.endswith(")"):
        with contextlib.suppress(ValueError):
            return name, float(rest[:-1])
    return activation, None


def with_number(name: str, number: float) -> str:
    """Return an activation with a number; the inverse of ``numbered``.

    >>> with_number("elu", 0.5), with_number("elu", 1.0), with_number("relu", 6)
    ('elu(0.5)', 'elu', 'relu6')
    """
    if (name, number) == ("relu", 6):
        return "relu6"
    return name if number == NUMBERED[name] else f"{name}({float(number)!r})"


def check_rate(owner: str, name: str, value: object) -> None:
    """Refuse what is no number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SpecError(
            f"{name}={value!r} is not a rate.", f"{owner}: {name} is a number from 0 to 1.", f"Give {name}=0.2, say."
        )


def check_flag(owner: str, name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise SpecError(
            f"{name}={value!r} is neither True nor False.",
            f"{owner}: {name} is a switch.",
            f"Give {name}=True or {name}=False.",
        )


def per_axis(size: Any, axes: int) -> tuple[Any, ...]:
    """Return a size along each axis, where it is one for all or a tuple of them.

    >>> per_axis(3, 2), per_axis((1, 2), 2)
    ((3, 3), (1, 2))
    """
    return size if isinstance(size, tuple) else (size,) * axes


def check_axes(owner: str, value: object) -> None:
    """Refuse what is no number of axes that something can go along: 1, time, or 2, of an image."""
    if isinstance(value, bool) or value not in (1, 2):
        raise SpecError(
            f"axes={value!r} is neither 1 nor 2.", f"{owner}: 1 for sequences, 2 for images.", "Give axes=2 for images."
        )


def check_sizes(owner: str, name: str, value: object, axes: int) -> None:
    """Check a whole number, or along several axes a tuple of one for each."""
    if axes > 1 and (not isinstance(value, tuple) or len(value) != axes):
        raise SpecError(
            f"{name}={value!r} is not one for each axis.",
            f"{owner}: {name} is a whole number from 1, or {axes} of them.",
            f"Give {name}={(1,) * axes}, say.",
        )
    for size in value if isinstance(value, tuple) and axes > 1 else (value,):
        check_size(owner, name, size)


class Spec(Record):
    """What one layer computes; the base of all kinds."""

    cell: ClassVar[str]
    ends_mask: ClassVar[bool] = False
    """Whether no mask goes on from such a layer, as its steps are not those that it reads."""

    def __post_init__(self) -> None:
        """Take the plain number for one of NumPy's, which would make another formula and no JSON."""
        for name, value in vars(self).items():
            if getattr(value, "shape", None) == () and hasattr(value, "item"):
                object.__setattr__(self, name, value.item())

    @classmethod
    def _misused(cls, met: str, option: str) -> Exception:
        if option and option not in cls.fields:
            return unknown_option(cls, option)
        options = f"{cls.__name__}: its options are {', '.join(cls.fields)}."
        return SpecError(met, options, "Give each option once, such as LSTM(features=3, units=50).")

    def options(self) -> dict[str, Any]:
        """Return every option by name, in the order of the constructor."""
        return dict(vars(self))

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name, value in vars(self).items() if _is_said(value, self.fields[name])]
        return f"{type(self).__name__}({', '.join(said)})"


def _is_said(value: object, default: object) -> bool:
    return default is REQUIRED or value != default


def unknown_option(kind: type[Spec], option: str) -> SpecError:
    """Return the error for an option that this kind of layer does not have."""
    known = list(kind.fields)
    return SpecError(
        f"{kind.__name__} has no option {option!r}.",
        f"{kind.__name__}: its options are {', '.join(known)}.",
        f"{nearest(option, known)}Leave it out, or use one of these.",
    )


class Recurrent(Spec):
    """What every recurrent layer has; use ``LSTM``, ``GRU`` or ``RNN``."""

    features: int
    units: int
    _: KW_ONLY
    layers: int = 1
    bidirectional: bool = False
    merge: str | None = "concat"
    bias: bool = True
    activation: str = "tanh"
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    dropout_between: float = 0.0
    go_backwards: bool = False
    return_sequences: bool = True
    return_state: bool = True
    stateful: bool = False
    zero_output_for_mask: bool = False
    dropout_masks: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        for name, most in (("features", None), ("units", None), ("layers", MOST_LAYERS)):
            check_size(owner, name, getattr(self, name), most)
        switches = "bidirectional bias go_backwards return_sequences return_state stateful zero_output_for_mask"
        for name in switches.split():
            check_flag(owner, name, getattr(self, name))
        check_choice(owner, "merge", self.merge, MERGES)
        check_activation(owner, "activation", self.activation)
        check_rate(owner, "dropout", self.dropout)
        check_rate(owner, "recurrent_dropout", self.recurrent_dropout)
        check_rate(owner, "dropout_between", self.dropout_between)
        check_choice(owner, "dropout_masks", self.dropout_masks, (None, "layer", "gate"))
        if self.merge is None and self.bidirectional and self.layers > 1:
            raise SpecError(
                f"merge=None with layers={self.layers}.",
                f"{owner}: a second layer reads one output, and merge=None gives two.",
                "Choose a merge, or describe the layers one by one.",
            )

    @property
    def directions(self) -> int:
        """1, or 2 where the layer also runs from the end to the start."""
        return 2 if self.bidirectional else 1

    @property
    def state(self) -> int:
        """Size of the state that is fed back: the projection, where there is one, else the units."""
        return self.units

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the layer gives: its output (two where directions stay apart), then the states it returns."""
        apart = self.bidirectional and self.merge is None
        names = ["forward", "backward"] if apart else ["output"]
        if self.return_state:
            states = ("state_h", "state_c") if self.cell == "lstm" else ("state_h",)
            for layer in range(self.layers):
                for direction in ("forward_", "backward_") if self.bidirectional else ("",):
                    place = f"layer_{layer}_{direction}" if self.layers > 1 else direction
                    names += [place + state for state in states]
        return tuple(names)

    @property
    def merged_directions(self) -> int:
        """How many states stand side by side in the output, which is what the layer above reads."""
        return self.directions if self.merge in ("concat", None) else 1


class LSTM(Recurrent):
    """A long short-term memory layer: gates i, f, g, o; ``c' = f*c + i*g``, ``h' = o*tanh(c')``.

    Args:
        features: Size of the input.
        units: Size of the state and of the memory.
        layers: How many are stacked; the upper ones read the output of the one below.
        bidirectional: Whether a second copy reads the sequence from its end.
        merge: How the outputs of the two directions become one.
        bias: Whether there is any bias.
        projection: Size to which the output is projected before it is fed back, or None.
        peepholes: Whether the gates i, f, o see the memory: one weight a unit (True), or ``"full"`` matrices.
        activation: Activation of the candidate and of the memory on its way out.
        recurrent_activation: Activation of the gates.
        dropout: Rate of dropout on the input, in training only: one mask for all steps.
        recurrent_dropout: The same on the state.
        dropout_between: Rate of dropout between stacked layers, in training only: a mask for each step.
        dropout_masks: Whether each ``"gate"`` draws masks of its own, or the ``"layer"`` one for all; None is the first
            with recurrent dropout, else the second.
        go_backwards: Whether the sequence is read from its end; the outputs come in the order of reading.
        return_sequences: Whether the output at every step comes out, or only the last.
        return_state: Whether the last states come out, too.
        stateful: Whether the states are kept from one batch to the next.
        zero_output_for_mask: Whether a masked step gives zeros, and not the output before it.
        cell_clip: Bound on the memory, applied at each step, or None.

    Raises:
        SpecError: An option is out of its range.

    >>> LSTM(features=3, units=50, bidirectional=True)
    LSTM(features=3, units=50, bidirectional=True)
    """

    _: KW_ONLY
    cell: ClassVar[str] = "lstm"
    projection: int | None = None
    peepholes: bool | str = False
    recurrent_activation: str = "sigmoid"
    cell_clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projection is not None:
            check_size("LSTM", "projection", self.projection)
        check_choice("LSTM", "peepholes", self.peepholes, (False, True, "full"))
        check_activation("LSTM", "recurrent_activation", self.recurrent_activation)
        if self.cell_clip is not None and (
            isinstance(self.cell_clip, bool) or not isinstance(self.cell_clip, int | float) or not self.cell_clip > 0
        ):
            raise SpecError(
                f"cell_clip={self.cell_clip!r} is not a bound.",
                "LSTM: cell_clip is a number above 0, or None.",
                "Leave it out for no clipping.",
            )

    @property
    def state(self) -> int:
        """Size of the state that is fed back: the projection, where there is one, else the units."""
        return self.units if self.projection is None else self.projection


class GRU(Recurrent):
    """A gated recurrent unit: gates r, z, n; ``h' = z*h + (1-z)*n``.

    Args:
        reset: Whether the reset gate acts ``"before"`` or ``"after"`` the recurrent product; two functions.

    The other arguments are those of ``LSTM``.

    >>> GRU(3, 50, reset="before")
    GRU(features=3, units=50, reset='before')
    """

    _: KW_ONLY
    cell: ClassVar[str] = "gru"
    recurrent_activation: str = "sigmoid"
    reset: str = "after"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_activation("GRU", "recurrent_activation", self.recurrent_activation)
        check_choice("GRU", "reset", self.reset, ("after", "before"))


class RNN(Recurrent):
    """A plain recurrent layer: ``h' = tanh(W x + U h + b)``; one activation. Arguments as of ``LSTM``.

    >>> RNN(3, 50)
    RNN(features=3, units=50)
    """

    cell: ClassVar[str] = "rnn"


class Dense(Spec):
    """A fully connected layer: ``y = W x + b`` on the last axis, at every timestep alike.

    >>> Dense(50, 1)
    Dense(features=50, units=1)
    """

    features: int
    units: int
    _: KW_ONLY
    bias: bool = True
    activation: str = "linear"
    cell: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("Dense", "features", self.features)
        check_size("Dense", "units", self.units)
        check_flag("Dense", "bias", self.bias)
        check_activation("Dense", "activation", self.activation)


class Embedding(Spec):
    """A table of one row a token.

    >>> Embedding(tokens=1000, units=64)
    Embedding(tokens=1000, units=64)
    """

    tokens: int
    units: int
    _: KW_ONLY
    mask_zero: bool = False
    cell: ClassVar[str] = "embedding"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("Embedding", "tokens", self.tokens)
        check_size("Embedding", "units", self.units)
        check_flag("Embedding", "mask_zero", self.mask_zero)


class Conv(Spec):
    """What the convolutions have; use ``Conv1D`` or ``Conv2D``."""

    axes: ClassVar[int]
    """Along how many axes it goes, which are those between the batch and the features."""
    paddings: ClassVar[tuple[str, ...]] = PADDINGS[:2]
    ends_mask: ClassVar[bool] = True
    features: int
    units: int

    def __post_init__(self) -> None:
        super().__post_init__()
        owner, options = type(self).__name__, self.options()
        for name in ("strides", "dilation"):
            object.__setattr__(self, name, per_axis(options[name], self.axes) if self.axes > 1 else options[name])
            check_sizes(owner, name, getattr(self, name), self.axes)
        for name in ("features", "units", "height", "width", "groups"):
            check_size(owner, name, options.get(name, 1))
        check_choice(owner, "padding", options["padding"], self.paddings)
        check_flag(owner, "bias", options["bias"])
        check_activation(owner, "activation", options["activation"])
        if self.features % options["groups"] or self.units % options["groups"]:
            raise SpecError(
                f"groups={options['groups']} do not divide features={self.features} and units={self.units}.",
                f"{owner}: each group has as many features and units as every other.",
                "Choose sizes that the groups divide.",
            )

    @property
    def channels(self) -> int:
        """How many features one output sees: those of its group."""
        return int(self.features // self.options()["groups"])

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many places one output sees along each axis."""
        return tuple(self.options()[name] for name in ("height", "width") if name in self.options())

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Along each axis: how far a window reaches, and how far it moves on."""
        dilation, strides = (per_axis(self.options()[name], self.axes) for name in ("dilation", "strides"))
        return tuple((1 + d * (size - 1), s) for size, d, s in zip(self.sizes, dilation, strides, strict=True))


class Conv1D(Conv):
    """A convolution along time: each output sees ``width`` steps of the input; ``y_t = W x_{t…} + b``.

    Args:
        features: Size of the input.
        units: Size of the output (Keras's filters).
        width: How many steps one output sees (Keras's kernel size).
        strides: How many steps the window moves from one output to the next.
        padding: What stands in for steps beyond the ends.
        dilation: How many steps lie between one that is seen and the next.
        groups: Into how many parts features and units are split; each part of the units sees its part of the features.
        bias: Whether there is a bias.
        activation: Activation of the output.

    Raises:
        SpecError: An option is out of its range, or the groups do not divide features and units.

    >>> Conv1D(features=4, units=6, width=3, groups=2).channels
    2
    """

    width: int = 1
    _: KW_ONLY
    strides: int = 1
    padding: str = "valid"
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    activation: str = "linear"
    cell: ClassVar[str] = "conv1d"
    axes: ClassVar[int] = 1
    paddings: ClassVar[tuple[str, ...]] = PADDINGS


class Conv2D(Conv):
    """A convolution over images, (height, width, features): each output sees a part of so much height and width.

    Args:
        features: Size of the input.
        units: Size of the output (Keras's filters).
        height: How many rows one output sees (the first number of Keras's kernel size).
        width: How many columns one output sees.
        strides: How far the window moves down, and to the right; one number for both.
        padding: What stands in for what is beyond the edges: ``"valid"`` or ``"same"``.
        dilation: How many rows, and columns, lie between one that is seen and the next.

    The other arguments are those of ``Conv1D``.

    >>> Conv2D(1, 8, 3, 5, strides=(2, 1))
    Conv2D(features=1, units=8, height=3, width=5, strides=(2, 1))
    """

    height: int = 1
    width: int = 1
    _: KW_ONLY
    strides: int | tuple[int, int] = (1, 1)
    padding: str = "valid"
    dilation: int | tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = True
    activation: str = "linear"
    cell: ClassVar[str] = "conv2d"
    axes: ClassVar[int] = 2


class Norm(Spec):
    """What the normalisations have; use ``BatchNorm`` or ``LayerNorm``."""

    features: int
    _: KW_ONLY
    scale: bool = True
    shift: bool = True
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        check_size(owner, "features", self.features)
        check_flag(owner, "scale", self.scale)
        check_flag(owner, "shift", self.shift)
        if isinstance(self.epsilon, bool) or not isinstance(self.epsilon, int | float) or self.epsilon < 0:
            raise SpecError(
                f"epsilon={self.epsilon!r} is no number from 0.",
                f"{owner}: epsilon is added to the variance.",
                "Keras takes 0.001 unless told otherwise, torch 0.00001.",
            )


class BatchNorm(Norm):
    """Normalisation of each feature over the batch, by moving statistics once trained.

    Args:
        features: Size of the last axis.
        scale: Whether each feature has a factor (Keras's gamma).
        shift: Whether each feature has a summand (Keras's beta).
        epsilon: What is added to the variance before its root is taken.
        momentum: How much of the moving statistics a training step keeps; torch's momentum is one minus this.

    >>> BatchNorm(50)
    BatchNorm(features=50)
    """

    _: KW_ONLY
    momentum: float = 0.99
    cell: ClassVar[str] = "batchnorm"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate("BatchNorm", "momentum", self.momentum)


class LayerNorm(Norm):
    """Normalisation of each sample over its features. Arguments as of ``BatchNorm``.

    >>> LayerNorm(50, shift=False)
    LayerNorm(features=50, shift=False)
    """

    cell: ClassVar[str] = "layernorm"


class Attending(Spec):
    """What the attentions have, which read query, value and perhaps key; use ``Attention`` or ``AdditiveAttention``.

    Each step of the query has a score with each step of the key, which is the value where there is none; the softmax of
    the scores are the shares in which the steps of the value are added up. Masks act as in Keras's layers: a step that
    the value's mask leaves out has no share, and one that the query's leaves out gives zeros. The query's mask goes on.
    """

    _: KW_ONLY
    scale: bool = False
    dropout: float = 0.0
    causal: bool = False
    return_scores: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        for name in ("scale", "causal", "return_scores"):
            check_flag(owner, name, getattr(self, name))
        check_rate(owner, "dropout", self.dropout)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it gives."""
        return ("output", "scores") if self.return_scores else ("output",)


class Attention(Attending):
    """Attention by the product of query and key (Luong), or by the sum of their features behind a tanh.

    Args:
        score: ``"dot"``: ``scale * (q · k)``; ``"concat"``: ``concat_score * sum(tanh(scale * (q + k)))``.
        scale: Whether there is that factor, one number.
        dropout: Rate of dropout on the shares, in training only.
        causal: Whether a step of the query sees no step of the value behind it.
        return_scores: Whether the shares come out, too.

    >>> Attention(score="concat")
    Attention(score='concat')
    """

    _: KW_ONLY
    score: str = "dot"
    cell: ClassVar[str] = "attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("Attention", "score", self.score, ("dot", "concat"))


class AdditiveAttention(Attending):
    """Attention by a weighted sum (Bahdanau): ``sum(scale * tanh(q + k))``, a factor for each feature.

    Args:
        features: Size of query and key.
        scale: Whether there are those factors.

    The other arguments are those of ``Attention``.

    >>> AdditiveAttention(50)
    AdditiveAttention(features=50)
    """

    features: int
    _: KW_ONLY
    scale: bool = True
    cell: ClassVar[str] = "additive_attention"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("AdditiveAttention", "features", self.features)


KINDS: dict[str, type[Spec]] = {
    kind.__name__: kind
    for kind in (LSTM, GRU, RNN, Dense, Embedding, BatchNorm, LayerNorm, Conv1D, Conv2D, Attention, AdditiveAttention)
}
"""The kinds of layer that have weights, by the name of their class."""


def outputs_of(spec: Spec) -> tuple[str, ...]:
    """Return the names of what a layer gives, in order."""
    return spec.outputs if isinstance(spec, Recurrent | Attending) else ("output",)


def source_of(reference: str) -> tuple[str, int]:
    """Take a reference apart into the layer's name and the number of its output.

    >>> source_of("lstm"), source_of("lstm:2")
    (('lstm', 0), ('lstm', 2))
    """
    name, colon, number = reference.rpartition(":")
    return (name, int(number)) if colon and number.isdigit() else (reference, 0)


def is_one_cell(one: Spec, other: Spec) -> bool:
    """Say whether two layers may run one cell, or be one.

    >>> is_one_cell(LSTM(3, 5), LSTM(3, 5, go_backwards=True)), is_one_cell(LSTM(3, 5), LSTM(3, 5, bias=False))
    (True, False)
    """
    if one == other or type(one) is not type(other):
        return one == other
    if isinstance(one, Attending):
        return one.replace(**{name: getattr(other, name) for name in CALL}) == other
    if not isinstance(one, Recurrent):
        return False
    return one.directions == one.layers == 1 and one.replace(**{name: getattr(other, name) for name in RUN}) == other


def is_beside(spec: Spec, number: int) -> bool:
    """Say whether an output stands beside the sequence, so that no mask belongs to it: a state, or scores.

    >>> is_beside(LSTM(3, 5), 0), is_beside(LSTM(3, 5), 2), is_beside(Attention(return_scores=True), 1)
    (False, True, True)
    """
    name = outputs_of(spec)[number]
    return "state_" in name or name == "scores"
