"""Reads single Keras layers and cells: specs and rules, refusals by name. Keras is imported when it is called for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gatewise.core.between import Activation, Dropout, Flip, Masking, Operation, Rescale, Softmax
from gatewise.core.network import Rule
from gatewise.core.spec import ACTIVATIONS, GRU, LSTM, RNN, Dense, Embedding, Recurrent, Spec, with_number
from gatewise.errors import UnsupportedModelError
from gatewise_keras.ordinary import TWINS, Twin, options_of

CLASSES: dict[type[Spec], str] = {
    LSTM: "LSTM",
    GRU: "GRU",
    RNN: "SimpleRNN",
    Dense: "Dense",
    Embedding: "Embedding",
    Dropout: "Dropout",
    Activation: "Activation",
    Masking: "Masking",
}
"""The kind of a layer → Keras's class for it."""


JOINS = {
    "concat": "Concatenate",
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "sub": "Subtract",
    "max": "Maximum",
    "min": "Minimum",
}
"""Word of ``Merge`` → Keras's class for it."""


SAME = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "Identity": "linear",
    "ActivityRegularization": "linear",
}
"""Class of a layer that is an activation → its name."""

NUMBERS = {"relu": "max_value", "leaky_relu": "negative_slope", "elu": "alpha"}
"""Activation that may have a number → the option of its layer that says it."""


ALIKE = "relu relu6 tanh sigmoid softmax log_softmax elu selu softplus softsign silu swish softmax_v2".split()
"""Functions of TensorFlow and JAX that compute what Keras's activations of the same names do."""


OWN_CODE = (
    "It runs code of its own, which cannot be read. Replace it with layers of Keras; or write the model in the other "
    "framework, too, and gw.transfer carries the weights over."
)
"""The way out of a layer that no description covers."""


TOLD = {"causal": "use_causal_mask", "return_scores": "return_attention_scores"}
"""Option of an attention → the argument that tells it when it is called."""


CELLS: dict[str, type[Recurrent]] = {
    "LSTMCell": LSTM,
    "GRUCell": GRU,
    "SimpleRNNCell": RNN,
    "GeneralLSTMCell": LSTM,
}
"""Class of a cell → the kind of layer that ``keras.layers.RNN`` makes of it."""


GENERAL = ("projection", "peepholes", "cell_clip")
"""Options that Keras's own LSTM lacks, and ``gatewise_keras.cells.GeneralLSTMCell`` has."""


WEIGHTS = {
    "kernel": "kernel",
    "recurrent_kernel": "recurrent",
    "bias": "bias",
    "embeddings": "embeddings",
    "gamma": "gamma",
    "beta": "beta",
}
"""Weight → what Keras puts before ``_regularizer`` and ``_constraint`` to name the rules on it."""


def is_cell(obj: Any) -> bool:
    """Say whether an object is a bare cell, one of Keras's own or of ours."""
    return type(obj).__name__ in CELLS and type(obj).__module__.partition(".")[0] in ("keras", "gatewise_keras")


def is_stack(layer: Any) -> bool:
    """Say whether several cells are stacked in one layer."""
    import keras

    return type(layer) is keras.layers.RNN and type(layer.cell) is keras.layers.StackedRNNCells


def is_ours(layer: Any, name: str) -> bool:
    """Say whether a layer is of a class of ours, which is not imported for that."""
    return type(layer).__name__ == name and type(layer).__module__ == "gatewise_keras.cells"


def state_count(spec: Spec) -> int:
    """Return how many states a recurrent layer starts from."""
    if not isinstance(spec, Recurrent):
        return 0
    return spec.layers * spec.directions * (2 if spec.cell == "lstm" else 1)


def check_unrolled(layer: Any) -> None:
    """Refuse what Keras itself gets wrong: unrolled and backwards, it zeroes the steps of a mask that is not turned."""
    for one in (getattr(layer, "forward_layer", layer), getattr(layer, "backward_layer", layer)):
        zeroes = getattr(one, "zero_output_for_mask", False) and getattr(one, "return_sequences", False)
        if zeroes and one.unroll and one.go_backwards:
            why = (
                "Under a mask, Keras's unrolled loop zeroes other steps than its loop does when it reads from the end."
            )
            raise refusal(layer, "unroll", True, why, "Use unroll=False, which zeroes the steps that are masked.")


def check_masking(layer: Any, *, passes: bool) -> None:
    """Refuse a layer whose ``supports_masking`` was set by hand, so that it hands masks on otherwise than its class.

    Args:
        layer: A layer.
        passes: Whether a mask goes on from its class.
    """
    default = getattr(layer.compute_mask, "_is_default", False)
    if layer.supports_masking == passes or (layer.supports_masking and not default):
        return
    why = f"Layers of its class {'hand a mask on' if passes else 'end a mask'}, and this one does otherwise."
    way_out = f"Leave supports_masking={passes}, and mask within the model."
    raise refusal(layer, "supports_masking", layer.supports_masking, why, way_out)


def stack_specs(layer: Any, *, turned: bool) -> list[Recurrent]:
    """Return a spec for each cell that is stacked in one layer.

    A stack within one scan computes what layers on each other compute: only the first reads backwards, only the last
    may leave out the sequence, and a masked step is one to all.

    Args:
        layer: The layer.
        turned: Whether what the first reads is turned beforehand.
    """
    _check_built(layer)
    if layer.stateful:
        why = "Keras itself cannot reset the states of stacked cells."
        raise refusal(layer, "stateful", True, why, "Give each cell a layer of its own, RNN(cell, stateful=True).")
    specs: list[Recurrent] = []
    cells = layer.cell.cells
    for number, cell in enumerate(cells):
        last = number == len(cells) - 1
        options = {
            "return_sequences": layer.return_sequences or not last,
            "return_state": layer.return_state,
            "go_backwards": layer.go_backwards and number == 0 and not turned,
            "zero_output_for_mask": layer.zero_output_for_mask and last,
        }
        specs.append(cell_spec(cell, layer, options))
    return specs


def kind_of(layer: Any) -> type[Spec] | None:
    """Return the kind of a layer by its class alone, or None."""
    import keras

    return next((kind for kind, name in CLASSES.items() if type(layer) is getattr(keras.layers, name)), None)


def spec_of(layer: Any) -> Spec:
    """Return the spec of one Keras layer."""
    import keras

    kinds = {getattr(keras.layers, name): kind for kind, name in CLASSES.items()}
    if type(layer) is keras.layers.RNN:
        _check_built(layer)
        return cell_spec(layer.cell, layer, _layer_options(layer))
    if type(layer) is keras.layers.Bidirectional:
        return _bidirectional(layer)
    if is_ours(layer, "Flip"):
        return Flip(layer.values, layer.mask)
    if _is_activation(layer):
        return Activation(_activation_of(layer, layer, ""))
    if type(layer) is keras.layers.Softmax:
        axes = _axes(layer)
        if not axes or 0 in axes:
            raise refusal(layer, "axis", layer.axis, "It shares out the batch.", "Give another axis.")
        return Softmax(axes)
    if type(layer) in (keras.layers.Cropping1D, keras.layers.Cropping2D):
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            why = "A port knows data_format='channels_last' alone."
            raise refusal(layer, "data_format", layer.data_format, why, "Use that, or do it around the port.")
        pairs = [layer.cropping] if type(layer) is keras.layers.Cropping1D else layer.cropping
        key = tuple((before or None, -behind or None, None) for before, behind in pairs)
        return Operation("get_item", key=key)  # it has no mask, either
    if type(layer) is keras.layers.Normalization:
        return _standardising(layer)
    twin = TWINS.get(type(layer).__name__)
    if twin is not None and type(layer) is getattr(keras.layers, type(layer).__name__):
        _check_dtype(layer)
        return _spec_of_twin(layer, twin)
    if type(layer) not in kinds:
        own_code = isinstance(layer, keras.layers.Lambda) or type(layer).__module__.partition(".")[0] != "keras"
        way_out = OWN_CODE if own_code else "Leave it out of the model, and run it outside the model that is ported."
        raise unknown_class(layer.name, type(layer).__name__, way_out)
    _check_dtype(layer)
    kind = kinds[type(layer)]
    if issubclass(kind, Recurrent):
        _check_built(layer)
        return cell_spec(layer.cell, layer, _layer_options(layer))
    if kind is Dense:
        _check_built(layer)
        return Dense(
            int(layer._kernel.shape[0]), layer.units, bias=layer.use_bias, activation=_activation(layer, "activation")
        )
    if kind is Embedding:
        _check_built(layer)
        return Embedding(layer.input_dim, layer.output_dim, mask_zero=layer.mask_zero)
    if kind is Dropout:
        if layer.noise_shape is not None and any(size is not None for size in np.atleast_1d(layer.noise_shape)):
            raise refusal(
                layer, "noise_shape", layer.noise_shape, "Every number is dropped by itself.", "Leave noise_shape out."
            )
        return Dropout(float(layer.rate))
    if kind is Masking:
        return Masking(_number(layer, "mask_value"))
    return Activation(_activation(layer, "activation"))


def _spec_of_twin(layer: Any, twin: Twin) -> Spec:
    """Return the spec of a layer whose options stand in a table."""
    for argument, value in twin.only.items():
        if getattr(layer, argument) != value:
            why = f"A port knows {argument}={value!r} alone."
            raise refusal(layer, argument, getattr(layer, argument), why, "Use that, or do it around the port.")
    options = options_of(twin, {option: getattr(layer, argument) for option, argument in twin.arguments.items()})
    options |= {option: value.item() for option, value in options.items() if isinstance(value, np.generic)}
    if twin.kind is Rescale:
        for option, argument in twin.arguments.items():  # Keras makes float32 of what is no array
            value = options[option]
            constants = value if isinstance(value, np.ndarray) else np.float32(_numbers(layer, argument))
            options[option] = _constants(layer, argument, constants)
    if "activation" in options:
        options["activation"] = _activation(layer, "activation")
    if twin.kind.cell:
        _check_built(layer, bare=True)
    if "features" in twin.kind.fields:
        shape = (layer._build_shapes_dict or {}).get("input_shape")
        shape = shape[0] if shape and isinstance(shape[0], list | tuple) else shape
        if not shape:
            raise _unbuilt(layer)
        axes = _axes(layer) if hasattr(layer, "axis") else (-1,)
        if [axis % len(shape) for axis in axes] != [len(shape) - 1]:
            why = "It normalises along other axes than the last, which is where features lie."
            raise refusal(layer, "axis", layer.axis, why, "Use axis=-1, or do it around the port.")
        options["features"] = int(shape[-1])
    return twin.kind(**options)


def _standardising(layer: Any) -> Rescale:
    """Return the spec of a ``Normalization``, whose statistics are constants to all that reads it."""
    import keras

    if getattr(layer, "variance", None) is None:
        raise _unbuilt(layer)
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(each), np.float64) for each in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return Rescale(_constants(layer, "variance", deviation), _constants(layer, "mean", mean))
    factor, offset = _constants(layer, "variance", 1 / deviation), _constants(layer, "mean", -mean)
    return Rescale(factor, offset, offset_first=True)


def _constants(layer: Any, argument: str, value: Any) -> float | tuple[float, ...]:
    """Return a constant for all features, or one for each."""
    array = np.asarray(value, np.float64)
    if array.ndim and array.size != array.shape[-1]:
        why = "It has constants along other axes than the last, which is where features lie."
        raise refusal(layer, argument, f"an array {array.shape}", why, "Use axis=-1, or do it around the port.")
    return array.item() if array.size == 1 else tuple(array.ravel().tolist())


def _layer_options(layer: Any) -> dict[str, Any]:
    names = ("go_backwards", "return_sequences", "return_state", "stateful", "zero_output_for_mask")
    return {name: bool(getattr(layer, name)) for name in names}


def cell_spec(cell: Any, layer: Any, options: dict[str, Any]) -> Recurrent:
    """Return the spec of a layer that runs one cell.

    Args:
        cell: The cell.
        layer: What a message names.
        options: What the layer around the cell says.
    """
    if not is_cell(cell):
        known = ", ".join(CELLS)
        way_out = "Its code cannot be read; replace it by one of these cells."
        raise refusal(layer, "cell", type(cell).__name__, f"Cells that are supported: {known}.", way_out)
    _check_built(cell)
    _check_dtype(cell)
    kind = CELLS[type(cell).__name__]
    options = options | {"bias": cell.use_bias, "activation": _activation(cell, "activation", layer)}
    for name in ("dropout", "recurrent_dropout"):
        rate = float(getattr(cell, name))
        # Keras's LSTM and GRU drop only at rates strictly between 0 and 1; its SimpleRNN drops all at 1.
        options[name] = 0.0 if rate == 1 and kind is not RNN else rate
    if kind is not RNN:
        if getattr(cell, "dropout_mask_count", None) and options["dropout"] and not options["recurrent_dropout"]:
            options["dropout_masks"] = "gate"  # implementation=1
        options["recurrent_activation"] = _activation(cell, "recurrent_activation", layer)
    if kind is GRU:
        options["reset"] = "after" if cell.reset_after else "before"
    if kind is LSTM:
        options |= {name: getattr(cell, name) for name in GENERAL if hasattr(cell, name)}
    return kind(int(cell.kernel.shape[0]), int(cell.units), **options)


def _check_directions(layer: Any) -> None:
    import keras

    for one in (layer.forward_layer, layer.backward_layer):
        if not isinstance(one, keras.layers.RNN):
            why = "Bidirectional is supported around LSTM, GRU, SimpleRNN and RNN."
            raise refusal(layer, "layer", type(one).__name__, why, "Leave it out.")


def is_alike(layer: Any) -> bool:
    """Say whether both directions of a layer compute alike, so that they are one layer of a network."""
    _check_directions(layer)
    forward, backward = layer.forward_layer, layer.backward_layer
    if any(is_stack(one) or one.activity_regularizer is not None for one in (forward, backward)):
        return False
    spec, other = spec_of(forward), spec_of(backward)
    turned = spec.replace(go_backwards=not spec.options()["go_backwards"])
    return other == turned and [*all_rules(forward)] == [*all_rules(backward)]


def _bidirectional(layer: Any) -> Spec:
    spec = spec_of(layer.forward_layer)
    assert isinstance(spec, Recurrent)
    return spec.replace(bidirectional=True, merge=layer.merge_mode)


def _activation(owner: Any, option: str, layer: Any = None) -> str:
    import keras

    function, layer = getattr(owner, option), layer or owner
    if type(function) is keras.layers.Activation:
        return _activation(function, "activation", layer)
    if type(function) is keras.layers.Softmax and function.axis in (-1, [-1]):
        return "softmax"
    if _is_activation(function):
        return _activation_of(function, layer, option)
    name = str(getattr(function, "__name__", type(function).__name__))
    if not _is_known(function, name):
        why = "Activations of Keras are supported, by name or as a layer; the code of another cannot be read."
        raise refusal(layer, option, name, why, "Use one of those, such as 'tanh'.")
    return {"relu_6": "relu6", "swish": "silu", "softmax_v2": "softmax"}.get(name, name)


def _is_known(function: Any, name: str) -> bool:
    """Say whether a function is the activation of Keras's of its name, or another one that computes the same."""
    import keras

    if getattr(keras.ops, name, None) is function:
        return name in ACTIVATIONS and name != "gelu"  # which there is another approximation
    if str(getattr(function, "__module__", "")).partition(".")[0] in ("tensorflow", "jax"):
        return name in ALIKE
    if getattr(function, "__module__", "") == "gatewise_keras.functions":
        return name in ACTIVATIONS
    try:
        return keras.activations.get(name) is function
    except ValueError:
        return False


def _is_activation(layer: Any) -> bool:
    """Say whether something is a layer that is an activation."""
    import keras

    return any(type(layer) is getattr(keras.layers, name) for name in SAME)


def _activation_of(layer: Any, owner: Any, option: str) -> str:
    """Return the activation that a layer is, which may stand as an option of another layer."""
    name = SAME[type(layer).__name__]
    slope, bound = float(getattr(layer, "negative_slope", 0)), getattr(layer, "max_value", None)
    if name == "relu" and slope and bound is None:
        name = "leaky_relu"
    of = f"of its {option} " if option else ""
    if name == "relu" and slope:
        raise refusal(
            owner, "negative_slope", slope, f"A port knows it {of}without max_value alone.", "Use one of them."
        )
    if getattr(layer, "threshold", 0):
        raise refusal(owner, "threshold", layer.threshold, f"A port knows threshold=0 {of}alone.", "Use that.")
    number = getattr(layer, NUMBERS[name]) if name in NUMBERS else None
    return name if number is None else with_number(name, _number(layer, NUMBERS[name], owner))


def refusal(layer: Any, option: str, value: object, why: str, way_out: str) -> UnsupportedModelError:
    """Return the error for an option of a layer that is not supported."""
    return UnsupportedModelError(
        f"Layer {layer.name!r} ({type(layer).__name__}) has {option}={value!r}, which is not supported.", why, way_out
    )


def unknown_class(name: str, kind: str, way_out: str) -> UnsupportedModelError:
    """Return the error for a layer whose class is not supported."""
    others = "Softmax", "Dot", "Cropping1D", "Cropping2D", "Normalization", "RNN", "Bidirectional", "TimeDistributed"
    known = *CLASSES.values(), *SAME, *TWINS, *JOINS.values(), *others
    return UnsupportedModelError(
        f"Layer {name!r} is of class {kind}, which is not supported.",
        f"Supported: {', '.join(known)}.",
        way_out,
    )


def _check_built(layer: Any, *, bare: bool = False) -> None:
    """Refuse a layer without weights; one that is ``bare`` may have none."""
    # A config may say that a layer is built, and not of which shape: then Keras makes no weights.
    if not layer.built or not (bare or layer.weights):
        raise _unbuilt(layer)


def _unbuilt(layer: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Layer {layer.name!r} ({type(layer).__name__}) is not built: it has no weights yet.",
        "Its size of input is unknown.",
        "Call it once on data, or build it with a shape.",
    )


# ── options that Keras takes from a config as they are, and that fail once the layer runs ──────────────────────


def _numbers(layer: Any, option: str, owner: Any = None) -> Any:
    """Return an option that is a number or several, as float64."""
    value = getattr(layer, option)
    try:
        if value is not None:  # of which NumPy makes NaN
            return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        pass
    raise refusal(owner or layer, option, value, "It is not a number.", "Give a number.")


def _number(layer: Any, option: str, owner: Any = None) -> float:
    """Return an option that is one number."""
    value = _numbers(layer, option, owner)
    if value.ndim:
        raise refusal(owner or layer, option, getattr(layer, option), "It is not one number.", "Give one number.")
    return float(value)


def _axes(layer: Any) -> tuple[int, ...]:
    """Return the axes along which a layer works."""
    try:
        return tuple(map(int, np.atleast_1d(layer.axis)))
    except (TypeError, ValueError, OverflowError):
        raise refusal(layer, "axis", layer.axis, "An axis is a whole number.", "Use axis=-1.") from None


def _check_dtype(layer: Any) -> None:
    policy = layer.dtype_policy
    if getattr(layer, "quantization_mode", None) is not None:
        why = "Its weights are whole numbers with a scale, and its inputs are rounded to such at every call."
        raise refusal(layer, "quantization", layer.quantization_mode, why, "Port the model before it is quantised.")
    if policy.variable_dtype not in ("float64", "float32", *HALVES):
        why = "Weights of float64, float32, float16 and bfloat16 are supported."
        raise refusal(layer, "dtype", policy.name, why, "Build the model with dtype='float32' and set its weights.")


HALVES = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Type that a layer may compute in, and perhaps keep its weights in → how far it rounds; a port has float32."""


def rules(layer: Any) -> tuple[Rule, ...]:
    """Return the regularisers and constraints of a layer that can be carried; ``remarks`` tells the others."""
    return tuple(rule for rule in all_rules(layer) if isinstance(rule, Rule))


def all_rules(layer: Any) -> Iterator[Rule | str]:
    """Yield each regulariser and constraint of a layer as a rule, or in words where it cannot be one."""
    import keras

    if isinstance(layer, keras.layers.TimeDistributed):
        yield from all_rules(layer.layer)
        return
    if isinstance(layer, keras.layers.Bidirectional):
        yield from all_rules(layer.forward_layer)
        return
    owner = getattr(layer, "cell", layer)
    for weight, prefix in WEIGHTS.items():
        for kind, word, home in (
            ("penalty", "regularizer", keras.regularizers),
            ("projection", "constraint", keras.constraints),
        ):
            met = getattr(owner, f"{prefix}_{word}", None)
            name = type(met).__name__
            if met is None:
                continue
            if getattr(home, name, None) is not type(met):
                yield f"{prefix}_{word}={getattr(met, '__name__', name)}"
                continue
            yield Rule(kind, weight, name, _settings(met))


def activity_rule(layer: Any) -> Rule | None:
    """Return the penalty on what a layer gives; None where it has no name elsewhere."""
    import keras

    met = layer.activity_regularizer
    name = type(met).__name__
    known = getattr(keras.regularizers, name, None) is type(met)
    return Rule("activity", "output", name, _settings(met)) if known else None


def _settings(met: Any) -> tuple[tuple[str, Any], ...]:
    settings = sorted(met.get_config().items())
    return tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in settings)
