"""Builds single Keras layers and cells from specs. Keras is imported by each function when it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.core.between import Activation, Dot, Dropout, Flip, Merge, Rescale, Softmax
from gatewise.core.layout import GATES
from gatewise.core.network import Rule
from gatewise.core.spec import Attending, Dense, Embedding, Recurrent, Spec, numbered
from gatewise.errors import UnsupportedModelError
from gatewise_keras.ordinary import arguments_for, twin_for
from gatewise_keras.reading import CELLS, CLASSES, GENERAL, JOINS, NUMBERS, SAME, WEIGHTS


def make_cell(spec: Recurrent, name: str | None = None, dtype: str = "float32", rules: Sequence[Rule] = ()) -> Any:
    """Return one built Keras cell."""
    import keras

    kind = next(kind for kind, made in CELLS.items() if made is type(spec))
    arguments = with_activations(_cell_arguments(spec), dtype) | _rule_arguments(rules)
    cell = getattr(keras.layers, kind)(**arguments, name=name, dtype=dtype)
    cell.build((None, spec.features))
    return cell


def make(
    spec: Spec,
    name: str | None = None,
    dtype: str = "float32",
    rules: Sequence[Rule] = (),
    batch: int | None = None,
    shape: Sequence[int | None] | None = None,
) -> Any:
    """Return one built Keras layer for a spec of one layer; a stateful one must know its batch size.

    Args:
        spec: The layer.
        name: Its name, or None for one that Keras makes.
        dtype: Type of its weights.
        rules: Its regularisers and constraints.
        batch: The batch size.
        shape: The shape that it reads, where it may be of several ranks.
    """
    import keras

    common = {"name": name, "dtype": dtype}
    if isinstance(spec, Recurrent):
        if spec.stateful and batch is None:
            raise UnsupportedModelError(
                f"Layer {name or type(spec).__name__!r} has stateful=True, and its batch size is not known.",
                "Keras makes the states of a stateful layer when it is built, for one batch size.",
                "Run it on one batch before the port, or port it with stateful=False.",
            )
        if spec.stateful and spec.bidirectional and spec.return_state:
            raise UnsupportedModelError(
                f"Layer {name or type(spec).__name__!r} is stateful in two directions and gives its states.",
                "Keras 3 fails to call such a Bidirectional (its compute_mask multiplies a generator).",
                "Port it with return_state=False, or with stateful=False and first states.",
            )
        around = {
            option: getattr(spec, option)
            for option in ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")
        }
        around |= {"dtype": dtype, "name": None if spec.bidirectional else name}
        layer = _one_direction(spec, around, rules)
        if spec.bidirectional:
            # Keras turns the copy that it makes to go_backwards=True, whatever the layer says.
            turned = around | {"go_backwards": False}
            other = _one_direction(spec, turned, rules) if spec.go_backwards else None
            layer = keras.layers.Bidirectional(layer, merge_mode=spec.merge, backward_layer=other, **common)
            if spec.return_sequences:  # Keras sets it on its copies, whatever the layer says; it does not store it.
                layer.forward_layer.zero_output_for_mask = spec.zero_output_for_mask
                layer.backward_layer.zero_output_for_mask = spec.zero_output_for_mask
            for one in (layer.forward_layer, layer.backward_layer) if spec.dropout_masks == "gate" else ():
                # They are made anew from what Keras stores of the layer, and implementation is not stored.
                one.cell.implementation = 1
                one.cell.dropout_mask_count = len(GATES[spec.cell])
        layer.build((batch, None, spec.features))
        return layer
    options = spec.options()
    common |= _rule_arguments(rules)
    if isinstance(spec, Dense):
        arguments = {"units": spec.units, "activation": spec.activation, "use_bias": spec.bias}
        layer = keras.layers.Dense(**with_activations(arguments, dtype), **common)
        layer.build((None, spec.features))
        return layer
    if isinstance(spec, Embedding):
        layer = keras.layers.Embedding(spec.tokens, spec.units, mask_zero=spec.mask_zero, **common)
        layer.build((None, None))
        return layer
    if isinstance(spec, Activation):
        made = with_activations({"activation": spec.activation}, dtype, name)["activation"]
        return made if isinstance(made, keras.Layer) else keras.layers.Activation(made, **common)
    if isinstance(spec, Merge):
        axis = {"axis": spec.axis} if spec.merge == "concat" else {}
        return getattr(keras.layers, JOINS[spec.merge])(**axis, **common)
    if isinstance(spec, Flip):
        from gatewise_keras import cells

        return cells.Flip(spec.values, spec.mask, **common)
    if isinstance(spec, Rescale):
        factor, offset = np.asarray(spec.factor, dtype), np.asarray(spec.offset, dtype)
        if not spec.offset_first:
            return keras.layers.Rescaling(factor, offset, **common)
        along = -1 if factor.ndim or offset.ndim else None
        return keras.layers.Normalization(along, mean=-offset, variance=1 / np.square(factor), **common)
    if isinstance(spec, Softmax):
        return keras.layers.Softmax(spec.axis[0] if len(spec.axis) == 1 else list(spec.axis), **common)
    if isinstance(spec, Dot):
        return keras.layers.Dot(spec.axes, spec.normalize, **common)
    axes = getattr(spec, "axes", len(shape) - 2 if shape else 1)
    twin = twin_for(spec, axes)
    if twin is not None:
        layer = getattr(keras.layers, twin)(**with_activations(arguments_for(spec, axes), dtype), **common)
        if isinstance(spec, Attending):
            layer.build([tuple(shape or (None, None, options.get("features")))] * 2)
        elif spec.cell:
            layer.build(tuple(shape or (None, *(None for _ in range(axes)), options["features"])))
        return layer
    if isinstance(spec, Dropout):
        return keras.layers.Dropout(spec.rate, **common)
    return getattr(keras.layers, CLASSES[type(spec)])(**options, **common)


def _one_direction(spec: Recurrent, around: Mapping[str, Any], rules: Sequence[Rule]) -> Any:
    """Return the Keras layer for one direction, with the options of a layer that are not its cell's."""
    import keras

    cell = with_activations(_cell_arguments(spec), around["dtype"]) | _rule_arguments(rules)
    general = {option: spec.options()[option] for option in GENERAL if spec.options().get(option)}
    if not general:
        if "implementation" in cell:
            cell["use_cudnn"] = False  # Keras's fast way takes one mask for all gates, and fails with a mask a gate.
        return getattr(keras.layers, CLASSES[type(spec)])(**cell, **around)
    from gatewise_keras.cells import GeneralLSTMCell

    return keras.layers.RNN(GeneralLSTMCell(**cell, **general, dtype=around["dtype"]), **around)


def with_activations(arguments: Mapping[str, Any], dtype: str, name: str | None = None) -> dict[str, Any]:
    """Return the arguments of a class, with a layer for each activation that has a number.

    One that Keras has no name for is a function of ``gatewise_keras.functions``.
    """
    import keras

    from gatewise_keras.functions import FUNCTIONS

    made = dict(arguments)
    for option in ("activation", "recurrent_activation"):
        activation, number = numbered(made.get(option, ""))
        if activation in FUNCTIONS:
            made[option] = FUNCTIONS[activation]
        if number is not None:
            kind = next(kind for kind, each in SAME.items() if each == activation)
            made[option] = getattr(keras.layers, kind)(**{NUMBERS[activation]: number}, name=name, dtype=dtype)
    return made


def _rule_arguments(rules: Sequence[Rule]) -> dict[str, Any]:
    """Return the regularisers and constraints of a layer as arguments of its class."""
    import keras

    arguments = {}
    for rule in rules:
        if rule.kind == "activity":
            continue  # It acts on the layer, which is perhaps a wrapper.
        homes = {"penalty": ("regularizer", keras.regularizers), "projection": ("constraint", keras.constraints)}
        word, home = homes[rule.kind]
        made: Any = getattr(home, rule.name)(**dict(rule.settings))
        arguments[f"{WEIGHTS[rule.weight]}_{word}"] = made
    return arguments


def _cell_arguments(spec: Spec) -> dict[str, Any]:
    same = ("units", "activation", "recurrent_activation", "dropout", "recurrent_dropout")
    options = spec.options()
    arguments = {name: options[name] for name in same if name in options} | {"use_bias": options["bias"]}
    if options.get("dropout_masks") == "gate" and spec.cell != "rnn":
        arguments["implementation"] = 1
    for rate in ("dropout", "recurrent_dropout"):
        if options.get(rate) == 1 and spec.cell != "rnn":
            raise UnsupportedModelError(
                f"{spec} has {rate}=1.", "Keras's LSTM and GRU drop nothing then.", "Use a rate below 1."
            )
    if options.get("dropout_masks") == "layer" and options["recurrent_dropout"] and spec.cell != "rnn":
        raise UnsupportedModelError(
            f"{spec} has dropout_masks='layer' and recurrent_dropout={options['recurrent_dropout']}.",
            "With recurrent dropout Keras draws a mask for each gate.",
            "Use dropout_masks=None, which does the same.",
        )
    return arguments | ({"reset_after": options["reset"] == "after"} if "reset" in options else {})
