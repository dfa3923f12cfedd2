"""Test faults as rows: kind → what is done wrongly, option → what it may be taken for, and what can be neither."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gatewise.arrays.miswired import recurrent_ways
from gatewise.arrays.network import Call, Way, plain
from gatewise.core.between import (
    TESTS,
    Constant,
    Dot,
    Dropout,
    Masking,
    Merge,
    Operation,
    Pad,
    Permute,
    Pool,
    Remask,
    Reshape,
    Softmax,
    Upsample,
)
from gatewise.core.network import Layer
from gatewise.core.spec import (
    ACTIVATIONS,
    PADDINGS,
    Attending,
    BatchNorm,
    Conv,
    Embedding,
    Recurrent,
    Spec,
    numbered,
    per_axis,
)
from gatewise.parity.units import Parts

Array = np.ndarray


def _pairs(*pairs: tuple[str, str]) -> dict[str, str]:
    return dict(pair for one, other in pairs for pair in ((one, other), (other, one)))


TAKEN_FOR = _pairs(
    *(("not_equal", "equal"), ("greater", "less_equal"), ("less", "greater_equal")),
    *(("logical_and", "logical_or"), ("max", "min"), ("mean", "sum"), ("add", "subtract")),
)
"""Operation → the one that it is taken for by mistake; of a comparison, what passes where it does not."""

RATHER_TAKEN_FOR = TAKEN_FOR | _pairs(
    *(("multiply", "divide"), ("maximum", "minimum"), ("argmax", "argmin"), ("any", "all"), ("exp", "log")),
    *(("cumsum", "cumprod"), ("isfinite", "isnan"), ("zeros_like", "ones_like"), ("floor", "round")),
    *(("sqrt", "square"), ("absolute", "negative")),
)
"""The same with those that give the same on some numbers."""

ACTIVATION_TAKEN_FOR = {
    **dict.fromkeys(ACTIVATIONS, "relu"),
    "linear": "sigmoid",
    "relu": "tanh",
    "sigmoid": "tanh",
    "hard_sigmoid": "sigmoid",
    "hard_sigmoid_02": "hard_sigmoid",
    "selu": "elu",
    "hard_tanh": "tanh",
    "softsign": "tanh",
    "softmax": "sigmoid",
    "log_softmax": "softmax",
    "hard_silu": "silu",
    "mish": "silu",
    "log_sigmoid": "sigmoid",
    "hard_shrink": "soft_shrink",
    "soft_shrink": "hard_shrink",
    "tanh_shrink": "linear",
    "squareplus": "softplus",
    "sparse_sigmoid": "sigmoid",
    "sparsemax": "softmax",
    "exponential": "linear",
}
"""Activation → its nearest relative, which it is taken for by mistake; one with a bound is taken for one without."""


class Row(NamedTuple):
    """What one row makes of a layer: one of these.

    Attributes:
        mistake: Its name.
        layer: The layer as it would be taken for.
        weights: From canonical weights to those with the fault.
        way: The way to run it.
    """

    mistake: str
    layer: Layer | None = None
    weights: Callable[[Parts], Parts] | None = None
    way: Way | None = None


Rows = Callable[[Layer], Iterator[Row]]


def _part(name: str, change: Callable[[Array], Array]) -> Callable[[Parts], Parts]:
    """Return what changes a part, whichever layer and direction it is of."""

    def changed(parts: Parts) -> Parts:
        return {key: change(array) if key.rpartition("/")[2] == name else array for key, array in parts.items()}

    return changed


def _recurrent(layer: Layer) -> Iterator[Row]:
    spec = layer.spec
    assert isinstance(spec, Recurrent)
    wanted = ("backward-end", "backward-not-flipped", "halves-exchanged", "wrong-step", "states-exchanged")
    for slug, words, way in recurrent_ways(spec) if not layer.step else ():
        if slug in wanted and "and the last" not in words and ("first states" not in words or layer.inputs[1:]):
            yield Row(slug.replace("-", " ") + (" at the start" if "first states" in words else ""), way=way)
    if layer.inputs[1:]:
        yield Row("first states ignored", dataclasses.replace(layer, inputs=layer.inputs[:1]))
    yield Row("peepholes dropped", weights=_part("peephole", np.zeros_like))
    yield Row("peepholes dropped", weights=_part("peephole_kernel", np.zeros_like))


def _convolution(layer: Layer) -> Iterator[Row]:
    spec = layer.spec
    assert isinstance(spec, Conv)
    for axis, size in enumerate(spec.sizes, -len(spec.sizes)):
        if size > 1:
            yield Row("kernel read from the other end", weights=_part("kernel", partial(np.flip, axis=axis)))
    if spec.padding != "valid" or any(moves > 1 for _, moves in spec.windows):  # type: ignore[attr-defined]
        yield Row("padded at the other end", way=_other_end)


def _pool(layer: Layer) -> Iterator[Row]:
    spec = layer.spec
    assert isinstance(spec, Pool)
    if spec.size is not None and (spec.padding != "valid" or any(moves > 1 for _, moves in spec.windows)):
        yield Row("padded at the other end", way=_other_end)


def _other_end(call: Call) -> list[Array]:
    """Run a window from the other end of its axes."""
    spec = call.spec
    assert isinstance(spec, Conv | Pool)
    along = tuple(range(1, 1 + spec.axes))
    turned = _part("kernel", lambda each: np.flip(each, tuple(range(-spec.axes, 0))))(dict(call.weights))
    [made] = plain(call._replace(value=np.flip(call.value, along), weights=turned))
    return [np.flip(made, along)]


def _batch_norm(_: Layer) -> Iterator[Row]:
    def by_batch(call: Call) -> list[Array]:
        axes = tuple(range(call.value.ndim - 1))
        own = {"mean": call.value.mean(axes), "variance": call.value.var(axes)}
        return plain(call._replace(weights={**call.weights, **own}))

    yield Row("moving statistics ignored", way=by_batch)


def _scaled(_: Layer) -> Iterator[Row]:
    """Yield what goes wrong with factors and summands."""
    yield Row("scale dropped", weights=_part("scale", np.ones_like))
    yield Row("shift dropped", weights=_part("shift", np.zeros_like))
    yield Row("factor of the score dropped", weights=_part("concat_score", np.ones_like))


def _embedding(_: Layer) -> Iterator[Row]:
    yield Row("rows shifted by one", weights=_part("table", lambda table: np.roll(table, 1, 0)))


def _attending(layer: Layer) -> Iterator[Row]:
    query, value, key = (*layer.inputs, layer.inputs[1])[:3]

    def exchanged(one: int, other: int) -> Way:
        def way(call: Call) -> list[Array]:
            read = [call.value, *call.others]
            read[one], read[other] = read[other], read[one]
            return plain(call._replace(value=read[0], others=read[1:]))

        return way

    if key != value:
        yield Row("value and key exchanged", way=exchanged(1, 2))
    if query != key:
        yield Row("query and key exchanged", way=exchanged(0, len(layer.inputs) - 1))


def _dot(layer: Layer) -> Iterator[Row]:
    spec = layer.spec
    assert isinstance(spec, Dot)

    def exchanged(call: Call) -> list[Array]:
        other = spec.replace(axes=spec.axes[::-1])
        return plain(call._replace(spec=other, value=call.others[0], others=[call.value]))

    if layer.inputs[0] != layer.inputs[1]:
        yield Row("factors exchanged", way=exchanged)


def _merge(layer: Layer) -> Iterator[Row]:
    spec = layer.spec
    assert isinstance(spec, Merge)
    if spec.merge in ("concat", "sub") and len(set(layer.inputs)) > 1:
        yield Row("parts in another order", dataclasses.replace(layer, inputs=layer.inputs[::-1]))


def _masking(layer: Layer) -> Iterator[Row]:
    yield Row("mask ignored", dataclasses.replace(layer, spec=Dropout(0.0)))


def _remask(layer: Layer) -> Iterator[Row]:
    yield Row("mask within goes on", dataclasses.replace(layer, spec=Dropout(0.0), inputs=layer.inputs[:1]))


def _reshape(_: Layer) -> Iterator[Row]:
    def other_order(call: Call) -> list[Array]:
        """Lay the numbers out with the axes in reverse order."""
        [made] = plain(call)
        turned = call.value.transpose(0, *range(call.value.ndim - 1, 0, -1))
        if call.value.ndim > 2:
            return [turned.reshape(made.shape)]
        return [call.value.reshape(len(made), *made.shape[:0:-1]).transpose(0, *range(made.ndim - 1, 0, -1))]

    yield Row("axes read in another order", way=other_order)


def _permute(_: Layer) -> Iterator[Row]:
    def reshaped(call: Call) -> list[Array]:
        return [call.value.reshape(plain(call)[0].shape)]

    yield Row("reshaped, not turned", way=reshaped)


def _pad(layer: Layer) -> Iterator[Row]:
    spec = layer.spec
    assert isinstance(spec, Pad)
    ends = tuple(((0, sum(pair)) if pair[0] == pair[1] else pair[::-1]) for pair in spec.pairs)
    wrong = spec.replace(steps=ends if len(ends) > 1 else ends[0])
    yield Row("padded at the other end", dataclasses.replace(layer, spec=wrong))


def _upsample(_: Layer) -> Iterator[Row]:
    def tiled(call: Call) -> list[Array]:
        spec = call.spec
        assert isinstance(spec, Upsample)
        return [np.tile(call.value, (1, *per_axis(spec.times, spec.axes), 1))]

    yield Row("the whole repeated, not each step", way=tiled)


def _operation(layer: Layer) -> Iterator[Row]:
    spec = layer.spec
    assert isinstance(spec, Operation)
    other = RATHER_TAKEN_FOR.get(spec.function, "")
    if spec.function in ACTIVATIONS:
        other = ACTIVATION_TAKEN_FOR[spec.function]
    if other:
        yield Row(f"{other} for {spec.function}", dataclasses.replace(layer, spec=spec.replace(function=other)))
    ordered = ("subtract", "divide", "power", "matmul", "concatenate", "stack", "where", *TESTS)
    if len(set(layer.inputs)) > 1 and not spec.operands and spec.function in ordered:
        yield Row("operands in another order", dataclasses.replace(layer, inputs=layer.inputs[::-1]))


def _constant(layer: Layer) -> Iterator[Row]:
    spec = layer.spec
    assert isinstance(spec, Constant)
    wrong = spec.replace(values=tuple(tuple(each + 0.5 for each in row) for row in spec.values))
    yield Row("other numbers", dataclasses.replace(layer, spec=wrong))


ROWS: tuple[tuple[type[Spec] | tuple[type[Spec], ...], Rows], ...] = (
    (Recurrent, _recurrent),
    (Conv, _convolution),
    (Pool, _pool),
    (BatchNorm, _batch_norm),
    (Spec, _scaled),
    (Embedding, _embedding),
    (Attending, _attending),
    (Dot, _dot),
    (Merge, _merge),
    (Masking, _masking),
    (Remask, _remask),
    (Reshape, _reshape),
    (Permute, _permute),
    (Pad, _pad),
    (Upsample, _upsample),
    (Operation, _operation),
    (Constant, _constant),
)
"""Kind → the faults that ports of it are known for, beside those of its options and gates."""


# ── faults made of the options themselves ───────────────────────────────────────────────────────────────────────


def _activation(value: str) -> list[str]:
    name, number = numbered(value)
    if number is None:
        return [ACTIVATION_TAKEN_FOR[name]]
    return [name] if name != "leaky_relu" or number != 0.2 else ["leaky_relu(0.01)"]


def _epsilon(value: float) -> list[float]:
    """Return another order of size: float32 shows it without a run in float64."""
    return [0.1 if value < 0.05 else 1e-3]


def _more(value: Any) -> list[Any]:
    return [tuple(each + 1 for each in value) if isinstance(value, tuple) else value + 1]


def _shifted(key: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Return a selection of the steps beside those that are meant."""

    def moved(entry: Any) -> Any:
        if isinstance(entry, int):
            return entry - 1 if entry in (-1, 1) else entry + 1
        if not isinstance(entry, tuple) or entry[:2] == (None, None):
            return entry
        start, stop, step = entry
        return (None if start is None else start + 1, None if stop in (None, -1) else stop + 1, step)

    for place, entry in enumerate(key):
        if moved(entry) != entry:
            return [(*key[:place], moved(entry), *key[place + 1 :])]
    return []


def _other_numbers(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_other_numbers, value))
    return value if value is None or isinstance(value, bool) else value + 1


def _other_axes(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [tuple(1 if axis != 1 else 2 for axis in axes)] if len(axes) == 1 else []


VALUES: dict[tuple[str, str], Callable[[Any], Iterable[Any]]] = {
    ("*", "activation"): lambda spec: _activation(spec.activation),
    ("*", "recurrent_activation"): lambda spec: _activation(spec.recurrent_activation),
    ("*", "epsilon"): lambda spec: _epsilon(spec.epsilon),
    ("GRU", "reset"): lambda spec: ["before" if spec.reset == "after" else "after"],
    ("LSTM", "cell_clip"): lambda spec: [None] if spec.cell_clip is not None else [],
    ("Embedding", "mask_zero"): lambda spec: [False] if spec.mask_zero else [],
    ("Recurrent", "stateful"): lambda spec: [False] if spec.stateful else [],
    ("Recurrent", "merge"): lambda spec: (
        {"sum": ["ave"], "ave": ["sum"], "mul": ["sum"]}.get(spec.merge, []) if spec.bidirectional else []
    ),
    ("Conv", "padding"): lambda spec: [other for other in spec.paddings if other != spec.padding],
    ("Conv", "strides"): lambda spec: _more(spec.strides),
    ("Conv", "dilation"): lambda spec: _more(spec.dilation) if max(spec.sizes) > 1 else [],
    ("Masking", "mask_value"): lambda spec: [spec.mask_value + 1],
    ("Rescale", "factor"): lambda spec: [
        tuple(2 * each for each in spec.factor) if isinstance(spec.factor, tuple) else 2 * spec.factor
    ],
    ("Rescale", "offset"): lambda spec: _more(spec.offset),
    ("Merge", "merge"): lambda spec: {
        "sum": ["ave"],
        "ave": ["sum"],
        "mul": ["sum"],
        "sub": ["sum"],
        "max": ["min"],
        "min": ["max"],
        "concat": [],
    }[spec.merge],
    ("Merge", "axis"): lambda spec: [1 if spec.axis != 1 else 2] if spec.merge == "concat" else [],
    ("Softmax", "axis"): lambda spec: _other_axes(spec.axis),
    ("Operation", "axis"): lambda spec: _other_axes(spec.axis),
    ("Operation", "operands"): lambda spec: [_other_numbers(spec.operands)] if spec.numbers else [],
    ("Operation", "key"): lambda spec: _shifted(spec.key),
    ("Dot", "axes"): lambda spec: [tuple(1 if axis != 1 else 2 for axis in spec.axes)],
    ("Pool", "pool"): lambda spec: ["mean" if spec.pool == "max" else "max"],
    ("Pool", "size"): lambda spec: _more(spec.size) if spec.size is not None else [],
    ("Pool", "strides"): lambda spec: _more(spec.strides or spec.size) if spec.size is not None else [],
    ("Pool", "padding"): lambda spec: (
        [other for other in PADDINGS[:2] if other != spec.padding] if spec.size is not None else []
    ),
    ("Repeat", "times"): lambda spec: _more(spec.times),
    ("Upsample", "times"): lambda spec: _more(spec.times),
}
"""Kind (or any) and option → what it may be taken for, where the weights keep their shapes; a switch is turned."""

_SIZE = "a size: with another the weights have other shapes"
_TRAINING = "acts in training alone; the descriptions are compared (parity/descriptions.py)"
_WEIGHT = "a switch of weights, which are dropped by name"
_RETURNS = "says which outputs there are: their number or shape tells"
_ROW = "a row of its own does it wrongly"

REASONS: dict[tuple[str, str], str] = {
    **{("*", name): _SIZE for name in ("features", "units", "tokens", "width", "height", "groups", "layers")},
    **{("LSTM", name): _SIZE for name in ("projection", "peepholes")},
    **{("*", name): _TRAINING for name in ("dropout", "recurrent_dropout", "dropout_between", "dropout_masks")},
    **{("*", name): _TRAINING for name in ("momentum", "rate", "deviation", "whole")},
    **{("*", name): _WEIGHT for name in ("bias", "scale", "shift", "bidirectional")},
    **{("*", name): _RETURNS for name in ("return_sequences", "return_state", "return_scores", "keep")},
    ("Attention", "score"): "one score has weights that the other lacks",
    **{("Input", name): "what is fed is checked against it" for name in ("shape", "integer", "batch", "boolean")},
    ("Pool", "axes"): "sequences or images: the shape of what is read tells",
    ("Upsample", "axes"): "sequences or images: the shape of what is read tells",
    ("Operation", "function"): _ROW,
    ("Constant", "values"): _ROW,
    ("Reshape", "shape"): _ROW,
    ("Permute", "order"): _ROW,
    ("Pad", "steps"): _ROW,
}
"""Kind (or any) and option → why no other value of it is tried."""


def _of_kind(table: dict[tuple[str, str], Any], kind: type[Spec], option: str) -> Any:
    """Return the entry of an option: of the kind, of what it is a kind of, or of any."""
    for name in [*(each.__name__ for each in kind.__mro__), "*"]:
        if (name, option) in table:
            return table[name, option]
    return None


def why_not(kind: type[Spec], option: str) -> str:
    """Return why no fault is made of an option, or nothing where one is.

    >>> from gatewise.core.spec import LSTM
    >>> why_not(LSTM, "units"), why_not(LSTM, "activation")
    ('a size: with another the weights have other shapes', '')
    """
    return _of_kind(REASONS, kind, option) or ""


def other_values(spec: Spec, option: str) -> list[Any] | None:
    """Return what an option may be taken for, empty where it is nothing for this spec; None where no table has it."""
    found = _of_kind(VALUES, type(spec), option)
    if found is not None:
        return list(found(spec))
    value = spec.options()[option]
    return [not value] if isinstance(value, bool) else None


def option_rows(layer: Layer, *, masked: bool) -> Iterator[Row]:
    """Yield a row for each other value of each option; what acts under a mask alone needs one."""
    for option, value in layer.spec.options().items():
        if why_not(type(layer.spec), option) or (option == "zero_output_for_mask" and not masked):
            continue
        if layer.step and option in ("go_backwards", "stateful", "zero_output_for_mask"):
            continue  # a bare cell runs one step
        for other in other_values(layer.spec, option) or ():
            yield Row(
                _named(option, value, other), dataclasses.replace(layer, spec=layer.spec.replace(**{option: other}))
            )


def _named(option: str, value: Any, other: Any) -> str:
    if option == "go_backwards":
        return "sequence read from the other end"
    if option == "stateful":
        return "states kept" if other else "states lost"
    if option in ("activation", "pool"):
        return f"{other} for {value}"
    if isinstance(value, bool):
        return f"{option} {'added' if other else 'dropped'}"
    return f"{option} {other} for {value}"


def mask_rows(layer: Layer) -> Iterator[Row]:
    """Yield what goes wrong where a layer follows a mask."""

    def ignored(call: Call) -> list[Array]:
        return plain(call._replace(mask=None, masks=[None] * len(call.masks)))

    if layer.mask:
        yield Row("given mask left out", dataclasses.replace(layer, mask=""))
    if isinstance(layer.spec, Recurrent | Merge | Softmax | Pool | Attending):
        yield Row("mask ignored", way=ignored)
