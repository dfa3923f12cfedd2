"""Plain float64 cells: the oracle that every framework is compared with.

Each cell is one short step function, written to be read beside a textbook; nothing here is fast. ``run`` takes the
weights in canonical form, whatever framework they came from, and puts layers, directions and masks around the steps.

Letters of the shapes: B batch, T time, L layers, D directions (1 or 2), F features.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gatewise.core.between import window
from gatewise.core.spec import (
    GRU,
    LSTM,
    RNN,
    AdditiveAttention,
    Attending,
    Attention,
    BatchNorm,
    Conv,
    Dense,
    Embedding,
    LayerNorm,
    Recurrent,
    Spec,
    numbered,
    per_axis,
)
from gatewise.errors import ShapeError, SpecError, WeightsError, nearest

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
States = tuple[Array, ...]  # (h, c) of an LSTM, (h,) of the others
Weights = Mapping[str, Array]  # the canonical parts of one layer and direction
Shape = dict[str, int | None]  # axes with their sizes; None is any size


@dataclass(frozen=True, eq=False)
class Result:
    """What a layer returned.

    Attributes:
        output: Of a recurrent layer ``(B, T, D*state)`` when its directions are concatenated (or it has one),
            ``(B, T, state)`` when they are added or the like, two such arrays with ``merge=None``; without the
            time axis where the spec has ``return_sequences=False``.
        states: The last state of each layer and direction, at index ``layer * D + direction``: ``h`` is
            ``(L*D, B, state)`` and, for the LSTM only, ``c`` is ``(L*D, B, units)``. Empty for other layers.
    """

    output: Array | tuple[Array, Array]
    states: States


# ---------------------------------------------------------------------------------------------- activations


def _sigmoid(x: Array) -> Array:
    # 1 / (1 + e^-x), above and below the fraction times e^x where x < 0: no power overflows.
    return np.exp(np.minimum(x, 0.0)) / (1.0 + np.exp(-np.abs(x)))


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0.0)


def _elu(x: Array) -> Array:
    return np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))


def _selu(x: Array) -> Array:
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return scale * np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _gelu(x: Array) -> Array:
    # x times the normal distribution, the exact one (Keras's default is approximate=False). NumPy has no erfc.
    erfc = np.vectorize(math.erfc, otypes=[np.float64])
    return 0.5 * x * np.asarray(erfc(-x / math.sqrt(2.0)), dtype=np.float64)


def _exponential(x: Array) -> Array:
    with np.errstate(over="ignore"):  # above 709 the answer is infinite, and so it is in every framework
        return np.exp(x)


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x + 3.0, 0.0, 6.0) / 6.0


def _hard_sigmoid_02(x: Array) -> Array:
    return np.clip(0.2 * x + 0.5, 0.0, 1.0)


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _sparsemax(x: Array) -> Array:
    # As Keras 3.15 computes it on every backend, which is not the published sparsemax: tau adds up all the running
    # sums of the support, where the paper takes the last one. (0.5, 0.5) gives (0.25, 0.25), not (0.5, 0.5).
    # A port must give what the layer gives, so this keeps it.
    descending = -np.sort(-x, axis=-1)
    sums = np.cumsum(descending, axis=-1)
    support = descending - (sums - 1.0) / np.arange(1, x.shape[-1] + 1) > 0.0
    tau = (np.where(support, sums, 0.0).sum(axis=-1, keepdims=True) - 1.0) / support.sum(axis=-1, keepdims=True)
    return np.asarray(np.maximum(x - tau, 0.0))


def _refused(name: str, why: str) -> Function:
    def refuse(_: Array) -> Array:
        raise SpecError(f"activation {name!r} cannot be computed.", f"{name}: {why}", "Choose another activation.")

    return refuse


ACTIVATION_FUNCTIONS: dict[str, Function] = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.maximum(x, 0.0),
    "hard_sigmoid": _hard_sigmoid,
    "hard_sigmoid_02": _hard_sigmoid_02,
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "elu": _elu,
    "selu": _selu,
    "celu": _elu,  # the two differ in alpha alone, which is 1 by default
    "gelu": _gelu,
    "silu": lambda x: x * _sigmoid(x),
    "softplus": _softplus,
    "softsign": lambda x: x / (1.0 + np.abs(x)),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "exponential": _exponential,
    "leaky_relu": lambda x: np.where(x > 0.0, x, 0.2 * x),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "hard_tanh": lambda x: np.clip(x, -1.0, 1.0),
    "hard_silu": lambda x: x * _hard_sigmoid(x),
    "log_sigmoid": lambda x: -_softplus(-x),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0.0),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0.0),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "squareplus": lambda x: (x + np.hypot(x, 2.0)) / 2.0,
    "sparse_plus": lambda x: np.where(x < 1.0, (np.clip(x, -1.0, 1.0) + 1.0) ** 2 / 4.0, x),
    "sparse_sigmoid": lambda x: (np.clip(x, -1.0, 1.0) + 1.0) / 2.0,
    "sparsemax": _sparsemax,
    "threshold": _refused("threshold", "its two arguments have no default, so by name alone it fails in Keras too."),
    "glu": _refused("glu", "it halves the last axis, so a gate no longer has one value for each unit."),
}
"""Every activation of ``spec.ACTIVATIONS`` as a function, with the meaning and default arguments of Keras 3.

``hard_sigmoid_02`` is the ``hard_sigmoid`` of Keras 1 and 2.

``softmax``, ``log_softmax`` and ``sparsemax`` act along the last axis, which is the units of one gate; the others act
on each element. ``threshold`` and ``glu`` raise ``SpecError``.

>>> ACTIVATION_FUNCTIONS["hard_sigmoid"](np.array([-3.0, 0.0, 1.5]))
array([0.  , 0.5 , 0.75])
"""

NUMBERED_FUNCTIONS: dict[str, Callable[[Array, float], Array]] = {
    "leaky_relu": lambda x, slope: np.where(x > 0.0, x, slope * x),
    "elu": lambda x, bound: np.where(x > 0.0, x, bound * np.expm1(np.minimum(x, 0.0))),
    "relu": lambda x, bound: np.clip(x, 0.0, bound),
}
"""Activations of ``spec.NUMBERED``, with their number."""


def activation_function(activation: str) -> Function:
    """Return what an activation computes.

    >>> activation_function("leaky_relu(0.5)")(np.array([-3.0, 3.0]))
    array([-1.5,  3. ])
    """
    name, number = numbered(activation)
    if number is None:
        return ACTIVATION_FUNCTIONS[name]
    return lambda x: NUMBERED_FUNCTIONS[name](x, number)


# ---------------------------------------------------------------------------------------------------- cells
# In each step x is (B, F), h (B, state), c (B, units), and w holds one layer and direction. W x is written x @ W.T
# because the rows of x are the samples of a batch. ``clip`` does nothing, or bounds what goes into an activation.


def _affine(kernel: Array, bias: Array, x: Array) -> list[Array]:
    """Return W x + b, (B, units), for each gate."""
    return [x @ W.T + b for W, b in zip(kernel, bias, strict=True)]


def _peephole(w: Weights, gate: str, c: Array) -> Array | float:
    """Return what a gate adds for seeing the memory: p * c, or P c with a full matrix, or nothing."""
    k, seen = "ifo".index(gate), 0.0
    # Absent is not the same as zero: 0 * inf would be NaN where a layer without peepholes goes on.
    if "peephole" in w:
        seen = seen + w["peephole"][k] * c
    if "peephole_kernel" in w:
        seen = seen + c @ w["peephole_kernel"][k].T
    return seen


def _lstm_step(spec: LSTM, w: Weights, x: Array, state: States, clip: Function) -> States:
    h, c = state
    gate, act = activation_function(spec.recurrent_activation), activation_function(spec.activation)
    Wx_i, Wx_f, Wx_g, Wx_o = _affine(w["kernel"], w["bias"], x)
    Uh_i, Uh_f, Uh_g, Uh_o = _affine(w["recurrent_kernel"], w["recurrent_bias"], h)

    i = gate(clip(Wx_i + Uh_i + _peephole(w, "i", c)))
    f = gate(clip(Wx_f + Uh_f + _peephole(w, "f", c)))
    g = act(clip(Wx_g + Uh_g))
    c = f * c + i * g
    if spec.cell_clip is not None:
        c = np.clip(c, -spec.cell_clip, spec.cell_clip)
    o = gate(clip(Wx_o + Uh_o + _peephole(w, "o", c)))  # sees the new memory, after its clip
    h = o * act(c)
    if spec.projection is not None:
        h = h @ w["projection"].T + w["projection_bias"]
    return h, c


def _gru_step(spec: GRU, w: Weights, x: Array, state: States, clip: Function) -> States:
    (h,) = state
    gate, act = activation_function(spec.recurrent_activation), activation_function(spec.activation)
    U, rb = w["recurrent_kernel"], w["recurrent_bias"]
    Wx_r, Wx_z, Wx_n = _affine(w["kernel"], w["bias"], x)
    Uh_r, Uh_z, Uh_n = _affine(U, rb, h)

    r = gate(clip(Wx_r + Uh_r))
    z = gate(clip(Wx_z + Uh_z))
    reset_Uh_n = r * Uh_n if spec.reset == "after" else (r * h) @ U[2].T + rb[2]  # "after" resets the bias as well
    n = act(clip(Wx_n + reset_Uh_n))
    return (z * h + (1.0 - z) * n,)


def _rnn_step(spec: RNN, w: Weights, x: Array, state: States, clip: Function) -> States:
    (h,) = state
    act = activation_function(spec.activation)
    (Wx,) = _affine(w["kernel"], w["bias"], x)
    (Uh,) = _affine(w["recurrent_kernel"], w["recurrent_bias"], h)
    return (act(clip(Wx + Uh)),)


_STEPS: dict[str, Callable[..., States]] = {"lstm": _lstm_step, "gru": _gru_step, "rnn": _rnn_step}
_GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": "h"}

_MERGES: dict[str | None, Callable[[Array, Array], Array]] = {
    "concat": lambda forward, backward: np.concatenate([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2.0,
}


# ------------------------------------------------------------------------------------- around the cells: run


def run(
    spec: Spec,
    weights: Mapping[str, ArrayLike],
    inputs: ArrayLike,
    *,
    state: Sequence[ArrayLike] | None = None,
    mask: ArrayLike | None = None,
    zero_output_for_mask: bool = False,
    input_clip: float | None = None,
) -> Result:
    """Run a layer over a batch, in float64.

    The weights are canonical: the gate axis first, gates in the order ``i f g o`` (LSTM), ``r z n`` (GRU), ``h`` (RNN).

    ==================  ======================  =============================================================
    part                axes                    of
    ==================  ======================  =============================================================
    kernel              gate, units, features   all; the features of an upper layer are the output of the lower
    recurrent_kernel    gate, units, state      all
    bias                gate, units             all
    recurrent_bias      gate, units             all
    peephole            gate, units             LSTM; gates i f o
    peephole_kernel     gate, units, memory     LSTM; gates i f o
    projection          state, units            LSTM with a projection, which then must be there
    projection_bias     state                   LSTM with a projection
    kernel, bias        units, features; units  Dense
    kernel, bias        units, channels, width; units  Conv1D
    kernel, bias        units, channels, height, width; units  Conv2D
    table               tokens, units           Embedding
    scale, shift        features                BatchNorm, LayerNorm
    mean, variance      features                BatchNorm
    scale               ; features              Attention; AdditiveAttention (see ``attend``)
    concat_score                                Attention
    ==================  ======================  =============================================================

    A part that is missing counts as zero, and one that is there counts even where the spec has ``bias=False`` or
    ``peepholes=False``. Names carry the layer where there are several, and the direction where there are two:
    ``kernel``, ``layer_1/kernel``, ``backward/kernel``, ``layer_1/backward/kernel``.

    With ``go_backwards`` a sequence of outputs is in processing order (the last input first), in every layer of a stack
    anew. Of two directions the forward one goes as ``go_backwards`` says and the other against it; the sequence of the
    backward one is flipped before the merge, and without ``return_sequences`` its half is what it computed last.

    Args:
        spec: What the layer computes. Rates of dropout have no effect: this is inference.
        weights: Canonical arrays by name; not modified.
        inputs: ``(B, T, features)``; for Dense and norms ``(..., features)``; for Embedding whole numbers of any shape.
        state: The first state, as in ``Result.states``; None is zeros.
        mask: ``(B, T)``, true where a step counts, by the time of the inputs, used as it is by every layer. A masked
            step keeps the state and repeats the previous output, which is zero before the first valid step.
        zero_output_for_mask: Whether a masked step gives zeros instead, in every layer. Keras's ``Bidirectional`` sets
            this to its ``return_sequences``, whatever the wrapped layer says; here the caller says it.
        input_clip: Bound on what goes into every activation of a gate, as ONNX's ``clip``; None for none.

    Returns:
        The output and the last states.

    Raises:
        ShapeError: An array has another shape than the spec says, or is no array of numbers.
        WeightsError: A name that the layer does not have, or a projection is missing.
        SpecError: A layer or an activation that cannot be computed.

    >>> spec = RNN(features=1, units=1, activation="linear")     # h' = x + h adds up its input
    >>> one = np.ones((1, 1, 1))
    >>> result = run(spec, {"kernel": one, "recurrent_kernel": one}, [[[1.0], [2.0], [3.0]]])
    >>> result.output[0, :, 0]
    array([1., 3., 6.])
    >>> result.states[0].shape                                   # layers * directions, batch, state
    (1, 1, 1)
    """
    # A state may grow without bound (linear, relu, exponential) and a masked step may read NaN padding: infinite and
    # undefined numbers are then the answer, to be found at the same places in a framework, not a reason to warn.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if isinstance(spec, Dense):
            return _run_dense(spec, weights, inputs)
        if isinstance(spec, Conv):
            return _run_convolution(spec, weights, inputs)
        if isinstance(spec, Embedding):
            return _run_embedding(spec, weights, inputs)
        if isinstance(spec, BatchNorm | LayerNorm):
            return _run_norm(spec, weights, inputs)
        if isinstance(spec, Recurrent) and spec.cell in _STEPS:
            return _run_recurrent(spec, weights, inputs, state, mask, zero_output_for_mask, input_clip)
    raise SpecError(
        f"{type(spec).__name__} has no reference.",
        "The reference computes LSTM, GRU, RNN, Dense, Embedding, BatchNorm, LayerNorm, Conv1D and Conv2D.",
        "An attention reads several sequences: attend runs it. Compare others with the framework's own output.",
    )


def _run_recurrent(
    spec: Recurrent,
    weights: Mapping[str, ArrayLike],
    inputs: ArrayLike,
    state: Sequence[ArrayLike] | None,
    mask: ArrayLike | None,
    zero_output_for_mask: bool,
    input_clip: float | None,
) -> Result:
    x = _fitting("inputs", inputs, {"batch": None, "time": None, "features": spec.features}, spec)
    batch, time, _ = x.shape
    if time == 0:
        raise ShapeError("'inputs' have no steps.", f"{spec!r}: (batch, time, features).", "Give at least one step.")
    valid = None if mask is None else _fitting("mask", mask, {"batch": batch, "time": time}, spec) != 0.0
    first = _first_states(spec, state, batch)
    parts = _recurrent_weights(spec, weights)
    clip = _clip_to(input_clip)

    last: list[States] = []
    for layer in range(spec.layers):
        halves = []
        for direction in range(spec.directions):
            index = layer * spec.directions + direction
            step = partial(_STEPS[spec.cell], spec, parts[index], clip=clip)
            own = tuple(part[index] for part in first)
            backwards = spec.go_backwards != (direction == 1)
            outputs, final = _run_direction(step, x, own, valid, backwards, zero_output_for_mask)
            halves.append(outputs)
            last.append(final)
        if layer == spec.layers - 1 and not spec.return_sequences:
            halves = [outputs[:, -1] for outputs in halves]
        elif spec.bidirectional:
            halves[1] = halves[1][:, ::-1]
        if not spec.bidirectional:
            x = halves[0]
        elif spec.merge is not None:
            x = _MERGES[spec.merge](halves[0], halves[1])

    states = tuple(np.stack(part) for part in zip(*last, strict=True))
    return Result((halves[0], halves[1]) if spec.bidirectional and spec.merge is None else x, states)


def _run_direction(
    step: Callable[[Array, States], States],
    x: Array,
    state: States,
    valid: NDArray[np.bool_] | None,
    backwards: bool,
    zero_output_for_mask: bool,
) -> tuple[Array, States]:
    """Run one layer in one direction: the outputs (B, T, state) in processing order, and the last state."""
    steps = range(x.shape[1])
    output = np.zeros_like(state[0])  # what a masked first step repeats: not the state that was given
    outputs = []
    for t in reversed(steps) if backwards else steps:
        new = step(x[:, t], state)
        if valid is None:
            output, state = new[0], new
        else:
            counts = valid[:, t, None]
            output = np.where(counts, new[0], 0.0 if zero_output_for_mask else output)
            state = tuple(np.where(counts, after, before) for after, before in zip(new, state, strict=True))
        outputs.append(output)
    return np.stack(outputs, axis=1), state


def _run_dense(spec: Dense, weights: Mapping[str, ArrayLike], inputs: ArrayLike) -> Result:
    x = _fitting("inputs", inputs, {"...": None, "features": spec.features}, spec)
    shapes: dict[str, Shape] = {
        "kernel": {"units": spec.units, "features": spec.features},
        "bias": {"units": spec.units},
    }
    w = _fitting_weights(spec, weights, shapes)
    return Result(activation_function(spec.activation)(x @ w["kernel"].T + w["bias"]), ())


def _run_convolution(spec: Conv, weights: Mapping[str, ArrayLike], inputs: ArrayLike) -> Result:
    along = ("time",) if spec.axes == 1 else ("height", "width")
    x = _fitting("inputs", inputs, {"batch": None, **dict.fromkeys(along), "features": spec.features}, spec)
    places = ("height", "width")[-spec.axes :]
    shapes: dict[str, Shape] = {
        "kernel": {"units": spec.units, "channels": spec.channels, **dict(zip(places, spec.sizes, strict=True))},
        "bias": {"units": spec.units},
    }
    w = _fitting_weights(spec, weights, shapes)
    steps, before, after = zip(*(window(spec, size, axis) for axis, size in enumerate(x.shape[1:-1])), strict=True)
    if 0 in steps:
        met = " by ".join(map(str, x.shape[1:-1]))
        raise ShapeError(
            f"'inputs' have {met} steps, fewer than one window sees.", repr(spec), "Give a longer sequence."
        )
    x = np.pad(x, ((0, 0), *zip(before, after, strict=True), (0, 0)))
    options = spec.options()
    grouped = x.reshape(*x.shape[:-1], options["groups"], spec.channels)
    kernel = w["kernel"].reshape(options["groups"], -1, spec.channels, *spec.sizes)
    total = np.zeros((len(x), *steps, spec.units))
    for place in np.ndindex(*spec.sizes):
        # The numbers that this place of the kernel sees, all windows together.
        firsts = map(operator.mul, place, per_axis(options["dilation"], spec.axes))
        seen = [
            slice(first, first + (count - 1) * moves + 1, moves)
            for first, count, (_, moves) in zip(firsts, steps, spec.windows, strict=True)
        ]
        total += np.einsum("b...gc,guc->b...gu", grouped[:, *seen], kernel[(..., *place)]).reshape(total.shape)
    return Result(activation_function(options["activation"])(total + w["bias"]), ())


def _run_embedding(spec: Embedding, weights: Mapping[str, ArrayLike], inputs: ArrayLike) -> Result:
    tokens = _fitting("inputs", inputs, {"...": None}, spec)
    w = _fitting_weights(spec, weights, {"table": {"tokens": spec.tokens, "units": spec.units}})
    wrong = tokens[~((tokens >= 0) & (tokens < spec.tokens) & (tokens == np.floor(tokens)))]
    if wrong.size:
        raise ShapeError(
            f"'inputs' hold {wrong[0]:g}, which is no row of the table.",
            f"{spec!r}: inputs are whole numbers from 0 to {spec.tokens - 1}.",
            "Was the vocabulary larger than the table?",
        )
    return Result(w["table"][tokens.astype(np.intp)], ())


def _run_norm(spec: BatchNorm | LayerNorm, weights: Mapping[str, ArrayLike], inputs: ArrayLike) -> Result:
    x = _fitting("inputs", inputs, {"...": None, "features": spec.features}, spec)
    parts = [part for part, there in (("scale", spec.scale), ("shift", spec.shift)) if there]
    parts += ["mean", "variance"] if isinstance(spec, BatchNorm) else []
    w = _fitting_weights(spec, weights, {part: {"features": spec.features} for part in parts})
    if isinstance(spec, BatchNorm):
        mean, variance = w["mean"], w["variance"]
    else:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    output = (x - mean) / np.sqrt(variance + spec.epsilon)
    return Result(output * w.get("scale", np.ones(())) + w.get("shift", np.zeros(())), ())


def attend(
    spec: Attending,
    weights: Mapping[str, ArrayLike],
    query: ArrayLike,
    value: ArrayLike,
    key: ArrayLike | None = None,
    *,
    query_mask: Array | None = None,
    value_mask: Array | None = None,
) -> list[Array]:
    """Run an attention over a batch, in float64.

    Args:
        spec: What it computes. The rate of dropout has no effect.
        weights: Canonical arrays by name; one that is missing counts as 1.
        query: ``(B, Q, F)``.
        value: ``(B, T, V)``.
        key: ``(B, T, F)``, or None for the value.
        query_mask: ``(B, Q)``, true where a step counts; the others give zeros.
        value_mask: ``(B, T)``; the others have no share. Where none counts, 1e9 is subtracted from every score, as in
            Keras: in float32 all shares are then alike.

    Returns:
        ``(B, Q, V)``, and the shares ``(B, Q, T)`` if the spec says so.

    >>> attend(Attention(), {}, [[[0.0]]], [[[1.0], [3.0]]])
    [array([[[2.]]])]
    """
    rank: Shape = {"batch": None, "time": None, "features": getattr(spec, "features", None)}
    q, v = _fitting("query", query, rank, spec), _fitting("value", value, rank | {"features": None}, spec)
    k = v if key is None else _fitting("key", key, rank, spec)
    w = {name: np.asarray(array, np.float64) for name, array in weights.items()}
    scale = w.get("scale", np.ones(()))
    if isinstance(spec, Attention) and spec.score == "dot":
        scores = scale * (q @ k.swapaxes(1, 2))
    else:
        pairs = q[:, :, None] + k[:, None]
        additive = isinstance(spec, AdditiveAttention)
        features = scale * np.tanh(pairs) if additive else w.get("concat_score", np.ones(())) * np.tanh(scale * pairs)
        scores = features.sum(-1)
    counts = np.ones(scores.shape[1:], bool)
    counts = np.tril(counts) if spec.causal else counts
    seen = counts if value_mask is None else counts & value_mask[:, None]
    shares = _softmax(np.where(seen, scores, scores - 1e9))
    output = shares @ v
    if query_mask is not None:
        output = np.where(query_mask[..., None], output, 0)
    return [output, shares] if spec.return_scores else [output]


# --------------------------------------------------------------------------------------- arrays that must fit


def _recurrent_weights(spec: Recurrent, weights: Mapping[str, ArrayLike]) -> list[Weights]:
    """Return the parts of each layer and direction, checked, in the order of ``Result.states``."""
    prefixes = [
        (f"layer_{layer}/" if spec.layers > 1 else "") + direction
        for layer in range(spec.layers)
        for direction in (("forward/", "backward/") if spec.bidirectional else ("",))
    ]
    shapes: dict[str, Shape] = {}
    for index, prefix in enumerate(prefixes):
        lowest = index < spec.directions
        features = spec.features if lowest else spec.merged_directions * spec.state
        shapes |= {prefix + part: shape for part, shape in _part_shapes(spec, features).items()}
        if "projection" in _part_shapes(spec, features) and prefix + "projection" not in weights:
            raise WeightsError(
                f"{prefix + 'projection'!r} is missing.",
                f"{spec!r}: the projection is (state, units) = ({spec.state}, {spec.units}).",
                "Add it, or take the projection out of the spec.",
            )
    fitted = _fitting_weights(spec, weights, shapes)
    return [
        {
            name.removeprefix(prefix): array
            for name, array in fitted.items()
            if name.startswith(prefix) and (name in weights or "peephole" not in name)  # see _peephole
        }
        for prefix in prefixes
    ]


def _part_shapes(spec: Recurrent, features: int) -> dict[str, Shape]:
    """Return the canonical parts of one layer and direction."""
    gates, units, state = len(_GATES[spec.cell]), spec.units, spec.state
    shapes: dict[str, Shape] = {
        "kernel": {"gate": gates, "units": units, "features": features},
        "recurrent_kernel": {"gate": gates, "units": units, "state": state},
        "bias": {"gate": gates, "units": units},
        "recurrent_bias": {"gate": gates, "units": units},
    }
    if isinstance(spec, LSTM):
        shapes["peephole"] = {"gate": 3, "units": units}
        shapes["peephole_kernel"] = {"gate": 3, "units": units, "memory": units}
        if spec.projection is not None:
            shapes["projection"] = {"state": state, "units": units}
            shapes["projection_bias"] = {"state": state}
    return shapes


def _first_states(spec: Recurrent, state: Sequence[ArrayLike] | None, batch: int) -> States:
    """Return h, and c of an LSTM, each (L*D, B, size)."""
    stacked: Shape = {"layers*directions": spec.layers * spec.directions, "batch": batch}
    shapes: dict[str, Shape] = {"h": stacked | {"state": spec.state}}
    if spec.cell == "lstm":
        shapes["c"] = stacked | {"units": spec.units}
    if state is None:
        return tuple(_zeros(shape) for shape in shapes.values())
    if len(state) != len(shapes):
        raise ShapeError(
            f"'state' holds {len(state)} instead of {len(shapes)}.",
            f"{spec!r}: the state is a tuple of {' and '.join(shapes)}.",
            "Give a tuple in the form of Result.states.",
        )
    given = zip(shapes.items(), state, strict=True)
    return tuple(_fitting(f"state {name}", array, shape, spec) for (name, shape), array in given)


def _clip_to(bound: float | None) -> Function:
    if bound is None:
        return lambda x: x
    if not bound > 0:
        raise SpecError(
            f"input_clip={bound!r} is not a bound.", "input_clip is a number above 0, or None.", "Leave it out."
        )
    return lambda x: np.clip(x, -bound, bound)


def _zeros(shape: Shape) -> Array:
    return np.zeros([size or 0 for size in shape.values()])


def _fitting_weights(spec: Spec, weights: Mapping[str, ArrayLike], shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """Return an array for every name of ``shapes``: the one that was given, checked, or zeros."""
    for name in weights:
        if name not in shapes:
            raise WeightsError(
                f"{name!r} is no part of this layer.",
                f"{spec!r}: its parts are {', '.join(list(shapes)[:20])}{', …' if len(shapes) > 20 else ''}.",
                nearest(str(name), shapes) + "Only layers that are stacked or bidirectional carry a prefix.",
            )
    return {
        name: _fitting(name, weights[name], shape, spec) if name in weights else _zeros(shape)
        for name, shape in shapes.items()
    }


def _fitting(name: str, value: ArrayLike, shape: Shape, spec: Spec) -> Array:
    """Return an array as float64 if its axes have these sizes; a first axis ``...`` stands for any axes."""
    sizes = [size for axis, size in shape.items() if axis != "..."]
    words = ", ".join(axis if size is None else str(size) for axis, size in shape.items())
    expected = f"expected ({', '.join(shape)}) = ({words})."
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"{name!r} is not an array of numbers, {expected}",
            f"{spec!r}: met {type(value).__name__}, {str(error).splitlines()[0]}",
            "Give a NumPy array, or lists of equal lengths.",
        ) from None
    met = array.shape[max(array.ndim - len(sizes), 0) :] if "..." in shape else array.shape
    if len(met) == len(sizes) and all(size in (None, length) for length, size in zip(met, sizes, strict=True)):
        return array
    if len(met) != len(sizes):
        hint = f"It has {array.ndim} axes. No axis is packed or left out, not even one of length 1."
    elif sorted(met) == sorted(size or 0 for size in sizes):
        hint = "The sizes are those expected in another order: transpose it."
    else:
        hint = "Compare it with the sizes in the spec: does this array belong to another layer?"
    raise ShapeError(f"{name!r} has shape {array.shape}, {expected}", repr(spec), hint)
