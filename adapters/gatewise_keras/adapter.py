"""Runs Keras 3, on any of its backends: a layer holds its own weights.

Keras is imported by each function when it is called. A ``native`` here is what one layer of a network becomes: a Keras
layer, or a list of them for a stack.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gatewise.arrays.native import fitting
from gatewise.core.layout import GATES, Layout, check_holds
from gatewise.core.network import Layer, Network, Rule, source_of
from gatewise.core.spec import (
    RUN,
    Compare,
    Constant,
    Dense,
    Dropout,
    Embedding,
    Flip,
    Input,
    Merge,
    Recurrent,
    Spec,
    outputs_of,
)
from gatewise.errors import UnsupportedModelError
from gatewise_keras.describing import (
    CELLS,
    CLASSES,
    GENERAL,
    HALVES,
    JOINS,
    OWN_CODE,
    STATES,
    WEIGHTS,
    alone,
    executed,
    is_cell,
    is_several,
    state_count,
    unknown_class,
)
from gatewise_keras.describing import describe as describe
from gatewise_keras.describing import natives as natives
from gatewise_keras.describing import remarks as remarks
from gatewise_keras.ordinary import arguments_for, twin_for

if TYPE_CHECKING:
    from gatewise.core.inventory import Inventory, Tensor

ADAMS = {"epsilon-hat": "keras.optimizers.Adam"}
"""The rules of Adam that there are here, by where epsilon stands, and what follows them; first the framework's own."""

STATISTICS = ("moving_mean", "moving_variance")
"""What a batch normalisation keeps of the batches that it was trained on."""


def claims(obj: object) -> bool:
    """Say whether an object is a Keras layer or model; on the torch backend it is a torch module, too."""
    return any(kind.__module__.partition(".")[0] == "keras" for kind in type(obj).__mro__[:-1])


# ── one layer ───────────────────────────────────────────────────────────────────────────────────────────────────


def build(spec: Spec, layout: Layout) -> Any:
    """Return a built layer, a cell where the layout is a cell's, or a model where layers are stacked."""
    check_holds(layout, spec)
    if layout.name.endswith("Cell"):
        assert isinstance(spec, Recurrent)
        return make_cell(spec)
    if isinstance(spec, Recurrent) and spec.layers > 1:
        return assemble(alone(spec))[0]
    return make(spec)


def make_cell(spec: Recurrent, name: str | None = None, dtype: str = "float32", rules: Sequence[Rule] = ()) -> Any:
    """Return one built Keras cell."""
    import keras

    kind = next(kind for kind, made in CELLS.items() if made is type(spec))
    cell = getattr(keras.layers, kind)(**_cell_arguments(spec), **_rule_arguments(rules), name=name, dtype=dtype)
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
            for one in (layer.forward_layer, layer.backward_layer) if spec.dropout_masks == "gate" else ():
                # They are made anew from what Keras stores of the layer, and implementation is not stored.
                one.cell.implementation = 1
                one.cell.dropout_mask_count = len(GATES[spec.cell])
        layer.build((batch, None, spec.features))
        return layer
    options = spec.options()
    common |= _rule_arguments(rules)
    if isinstance(spec, Dense):
        layer = keras.layers.Dense(spec.units, activation=spec.activation, use_bias=spec.bias, **common)
        layer.build((None, spec.features))
        return layer
    if isinstance(spec, Embedding):
        layer = keras.layers.Embedding(spec.tokens, spec.units, mask_zero=spec.mask_zero, **common)
        layer.build((None, None))
        return layer
    if isinstance(spec, Merge):
        axis = {"axis": spec.axis} if spec.merge == "concat" else {}
        return getattr(keras.layers, JOINS[spec.merge])(**axis, **common)
    if isinstance(spec, Flip):
        from gatewise_keras import cells

        return cells.Flip(spec.values, spec.mask, **common)
    twin = twin_for(spec)
    if twin is not None:
        layer = getattr(keras.layers, twin)(**arguments_for(spec), **common)
        if spec.cell:
            layer.build(tuple(shape or (None, None, options["features"])))
        return layer
    if isinstance(spec, Dropout):
        return keras.layers.Dropout(spec.rate, **common)
    return getattr(keras.layers, CLASSES[type(spec)])(**options, **common)


def _one_direction(spec: Recurrent, around: Mapping[str, Any], rules: Sequence[Rule]) -> Any:
    """Return the Keras layer for one direction, with the options of a layer that are not its cell's."""
    import keras

    cell = _cell_arguments(spec) | _rule_arguments(rules)
    general = {option: spec.options()[option] for option in GENERAL if spec.options().get(option)}
    if not general:
        if "implementation" in cell:
            cell["use_cudnn"] = False  # Keras's fast way takes one mask for all gates, and fails with a mask a gate.
        return getattr(keras.layers, CLASSES[type(spec)])(**cell, **around)
    from gatewise_keras.cells import GeneralLSTMCell

    return keras.layers.RNN(GeneralLSTMCell(**cell, **general, dtype=around["dtype"]), **around)


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


def _regularise(native: Any, rules: Sequence[Rule]) -> None:
    """Give a layer the penalty on what it gives."""
    import keras

    for rule in [rule for rule in rules if rule.kind == "activity" and rule.weight == "output"][:1]:
        native.activity_regularizer = getattr(keras.regularizers, rule.name)(**dict(rule.settings))


def _regularise_some(tensors: list[Any], layer: Layer, dtype: str) -> None:
    """Put a layer that changes nothing behind each output that has a penalty of its own, or a second one.

    A Keras layer has one penalty, on all that it gives.
    """
    import keras

    own = next((rule for rule in layer.rules if rule.kind == "activity" and rule.weight == "output"), None)
    for place, rule in enumerate(layer.rules):
        if rule.kind != "activity" or rule is own:
            continue
        _, colon, number = rule.weight.partition(":")
        for of in [int(number)] if colon else range(len(tensors)):
            same = keras.layers.Activation("linear", name=f"{layer.name}_output_{of}_{place}", dtype=dtype)
            _regularise(same, [rule._replace(weight="output")])
            tensors[of] = same(tensors[of])


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


def _holders(native: Any) -> Iterator[tuple[str, Any]]:
    """Yield what owns the variables of a native, each with the prefix of its names in the layout."""
    import keras

    if isinstance(native, keras.Model):
        native = [layer for layer in native.layers if isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional)]
    if isinstance(native, list):
        for number, one in enumerate(native):
            yield from ((f"layer_{number}/{prefix}", holder) for prefix, holder in _holders(one))
    elif isinstance(native, keras.layers.Bidirectional):
        yield "forward_layer/", native.forward_layer.cell
        yield "backward_layer/", native.backward_layer.cell
    elif isinstance(native, keras.layers.TimeDistributed):
        yield from _holders(native.layer)
    else:
        yield "", getattr(native, "cell", native)


def variables(native: Any) -> dict[str, Any]:
    """Return the variables of a native by the names of its layout, in the layout's order."""
    return {prefix + variable.name: variable for prefix, holder in _holders(native) for variable in holder.weights}


def read(obj: Any) -> dict[str, np.ndarray]:
    """Return the weights of a native, as copies: half precision as float32, and a kernel with its low-rank one."""
    found = {}
    for prefix, holder in _holders(obj):
        for variable in holder.weights:
            merged = getattr(holder, "lora_enabled", False) and variable.name in ("kernel", "embeddings")
            if not variable.name.startswith("lora_"):
                found[prefix + variable.name] = _array(getattr(holder, variable.name) if merged else variable)
    return found


def _array(tensor: Any) -> np.ndarray:
    """Return an array that shares nothing; of half precision, which NumPy has only one of, as float32."""
    import keras

    half = keras.backend.standardize_dtype(tensor.dtype) in HALVES
    return np.array(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32") if half else tensor))


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Change the weights of a native, and return it."""
    own = {name: variable for name, variable in variables(obj).items() if "lora_" not in name}
    apart = {name: _array(own[name]) - array for name, array in read(obj).items() if _has_lora(obj)}
    given = fitting(arrays, {name: tuple(variable.shape) for name, variable in own.items()}, type(obj).__name__)
    for name, array in given.items():
        own[name].assign(array + apart.get(name, 0))
    return obj


def _has_lora(obj: Any) -> bool:
    return any(getattr(holder, "lora_enabled", False) for _, holder in _holders(obj))


def freeze(native: Any, tensors: Sequence[str]) -> None:
    """Keep training from changing a native; Keras freezes whole layers, so ``tensors`` must be all of it."""
    own = variables(native)
    if set(tensors) >= set(own):
        for layer in native if isinstance(native, list) else [native]:
            layer.trainable = False


def frozen(native: Any) -> set[str]:
    """Return the tensors that training does not change."""
    own = variables(native).items()
    # Training changes statistics, though by no gradient; not those of a frozen layer.
    fixed = {name for name, variable in own if not variable.trainable and "lora_" not in name}
    return fixed - set(STATISTICS if getattr(native, "trainable", True) else ())


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the first output; of a cell, the outputs at every step."""
    import keras

    if isinstance(obj, keras.layers.LSTMCell | keras.layers.GRUCell | keras.layers.SimpleRNNCell):
        obj = keras.layers.RNN(obj, return_sequences=True)
    return np.array(keras.ops.convert_to_numpy(keras.tree.flatten(obj(inputs, training=False))[0]))


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────


def inventory(obj: Any) -> Inventory:
    """Return what a layer or model holds, known layers and unknown ones."""
    from gatewise_keras import inventory as listing

    return listing.inventory(obj)


def saved_extras(path: str) -> tuple[Tensor, ...]:
    """Return what a file holds beside the model that ``open_file`` gives: the variables of an optimiser."""
    from gatewise_keras import inventory as listing

    return listing.saved_extras(path)


def layout_of(native: Any, usual: Layout) -> Layout:
    """Return the layout of one native: always the usual one."""
    return usual


def form(obj: Any) -> str:
    """Say how an object is called: as a bare layer or cell, as a model, or as a stack with its states side by side."""
    import keras

    if not isinstance(obj, keras.Model):
        return "cell" if is_cell(obj) else "model" if is_several(obj) else "layer"
    return "stack" if _state_kinds(obj) else "model"


def _state_kinds(model: Any) -> list[str]:
    """Return h_n and c_n where a model gives the states of a stack side by side, as ``assemble`` builds it."""
    import keras

    names = [tensor._keras_history.operation.name for tensor in keras.tree.flatten(model.outputs)]
    return [name for name in names if name in STATES]


def assemble(
    network: Network, *, dtype: str = "float32", form: str = "model", ordered: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Build a Functional model for a network; return it with the native of each layer.

    Keras runs the uses of a layer by their distance from the end of the model. Where states go on from use to use and
    that is not the order of the network, it is built again, ``ordered``.

    Where one layer stands for a stack, as in ``nn.LSTM(num_layers=2)``, it becomes a chain of Keras layers, and the
    model gives what the stack gives: the output, and the states of all layers side by side, batch first.
    """
    import keras

    batch = next((layer.spec.batch for layer in network.layers if isinstance(layer.spec, Input)), None)
    if form in ("layer", "cell"):
        return _alone(network, dtype, form)
    made: dict[str, Any] = {}
    tensors: dict[str, list[Any]] = {}
    inputs = []
    used: dict[str, list[Any]] = {}  # what each use of a layer gives
    for layer in network.layers:
        if isinstance(layer.spec, Input):
            kind = "int32" if layer.spec.integer else "bool" if layer.spec.boolean else dtype
            tensor = keras.Input(layer.spec.shape, batch_size=layer.spec.batch, dtype=kind, name=layer.name)
            inputs.append(tensor)
            tensors[layer.name] = [tensor]
            continue
        if isinstance(layer.spec, Constant):
            tensors[layer.name] = [np.asarray(layer.spec.values, dtype)]
            continue
        source, *first = [tensors[name][number] for name, number in map(source_of, layer.inputs)]
        if isinstance(layer.spec, Compare):
            tensors[layer.name] = [_compared(layer.spec, source)]
            continue
        if isinstance(layer.spec, Merge):
            tensors[layer.name] = [_joined(layer, layer.spec, [source, *first], dtype)]
            continue
        if ordered and layer.resumes:
            from gatewise_keras import cells

            source = cells.After(dtype=dtype)([source, used[layer.keeper][-1]])
        given: dict[str, Any] = {"initial_state": first} if first else {}
        if layer.mask:
            name, number = source_of(layer.mask)
            given["mask"] = tensors[name][number]
        elif first and layer.masked and getattr(source, "_keras_mask", None) is not None:
            given["mask"] = source._keras_mask
        if isinstance(layer.spec, Recurrent) and layer.spec.layers > 1:
            chain = made.get(layer.shares)
            made[layer.name], tensors[layer.name] = _stack(layer, source, first, dtype, batch, chain)
            continue
        if layer.resumes:
            native = made[layer.resumes]
        elif layer.shares:
            native, stateful = made[layer.shares], layer.spec.options().get("stateful")
            if stateful or layer.spec != network[layer.shares].spec:
                native = _same_cell(native, layer, dtype)
        else:
            shape = (source.shape[0], *source.shape[1 + layer.distributed :])
            native = make(layer.spec, None if layer.distributed else layer.name, dtype, layer.rules, batch, shape)
            native.trainable = layer.trainable
        made[layer.name] = native
        runs = native
        for number in range(layer.distributed):
            outermost = number == layer.distributed - 1
            runs = keras.layers.TimeDistributed(runs, name=layer.name if outermost else None, dtype=dtype)
        _regularise(runs, layer.rules)
        tensors[layer.name] = keras.tree.flatten(runs(source, **given))
        used.setdefault(layer.keeper, []).append(tensors[layer.name][0])
        _regularise_some(tensors[layer.name], layer, dtype)
    outputs = [tensors[name][number] for name, number in map(source_of, network.results)]
    structure: Any = outputs[0] if len(outputs) == 1 else outputs
    kinds = [outputs_of(network[name].spec)[number] for name, number in map(source_of, network.results)]
    front = sum("state_" not in kind for kind in kinds)
    if form == "stack" and front < len(outputs):
        structure = _stacked(network.weighted[0].spec, outputs[:front], outputs[front:], dtype)
    model = keras.Model(inputs[0] if len(inputs) == 1 else inputs, structure)
    if not ordered and not all(_is_ordered(model, used[layer.resumes]) for layer in network.layers if layer.resumes):
        return assemble(network, dtype=dtype, form=form, ordered=True)
    return model, {name: native for name, native in made.items() if not network[name].shares}


def _alone(network: Network, dtype: str, form: str) -> tuple[Any, dict[str, Any]]:
    """Return the one layer of a network, or its cell, outside of any model."""
    [layer] = network.weighted
    assert isinstance(layer.spec, Recurrent) or form == "layer"
    if isinstance(layer.spec, Recurrent) and form == "cell":
        native = make_cell(layer.spec, layer.name, dtype, layer.rules)
    else:
        [source] = [each.spec for each in network.layers if isinstance(each.spec, Input)]
        shape = (source.batch, *source.shape)
        native = make(layer.spec, layer.name, dtype, layer.rules, source.batch, shape)
    native.trainable = layer.trainable
    _regularise(native, layer.rules)
    return native, {layer.name: native}


def _joined(layer: Layer, spec: Merge, parts: list[Any], dtype: str) -> Any:
    """Return what a merge makes of tensors; of masks, an operation does."""
    import keras

    if parts[0].dtype == "bool" and spec.merge in ("min", "max"):
        return functools.reduce(keras.ops.logical_and if spec.merge == "min" else keras.ops.logical_or, parts)
    native = make(spec, layer.name, dtype)
    if spec.merge == "mul" and not layer.masked:
        from gatewise_keras import cells

        native = cells.Product(name=layer.name, dtype=dtype)
    _regularise(native, layer.rules)
    return native(parts)


def _same_cell(native: Any, layer: Layer, dtype: str) -> Any:
    """Return a layer that runs the cell of another layer in its own way, or keeps states of its own."""
    import keras

    if not hasattr(native, "cell"):
        raise UnsupportedModelError(
            f"Layer {layer.name!r} shares the weights of {layer.shares!r}, and keeps states of its own.",
            "Layers of Keras share a cell, and both directions have one each.",
            "Use stateful=False, or give it weights of its own.",
        )
    options = {name: getattr(layer.spec, name) for name in RUN}
    return keras.layers.RNN(native.cell, **options, dtype=dtype, name=None if layer.distributed else layer.name)


def _compared(spec: Compare, tensor: Any) -> Any:
    """Return a mask as Keras's operations make it."""
    import keras

    ops = keras.ops
    if tensor.dtype == "bool" and spec.value == 0 and spec.test in ("equal", "not_equal"):
        passed = ops.logical_not(tensor) if spec.test == "equal" else tensor
    else:
        whole = "int" in tensor.dtype and spec.value == int(spec.value)
        passed = getattr(ops, spec.test)(tensor, int(spec.value) if whole else spec.value)
    return passed if spec.over is None else getattr(ops, spec.over)(passed, axis=-1)


def _is_ordered(model: Any, uses: Sequence[Any]) -> bool:
    """Say whether Keras makes some tensors of a model in this order, or never makes them."""
    places = {id(tensor): place for place, node in enumerate(executed(model)) for tensor in node.outputs}
    there = [places[id(tensor)] for tensor in uses if id(tensor) in places]
    return there == sorted(there)


def _stack(
    layer: Layer, source: Any, first: list[Any], dtype: str, batch: int | None, shared: list[Any] | None
) -> tuple[list[Any], list[Any]]:
    """Chain the layers of a stack, from their first states if given; return them, and what the stack gives."""
    import keras

    spec = layer.spec
    assert isinstance(spec, Recurrent)
    chain: list[Any] = []
    states: list[Any] = []
    outputs = [source]
    for number in range(spec.layers):
        last = number == spec.layers - 1
        width = spec.features if number == 0 else spec.merged_directions * spec.state
        sequences = spec.return_sequences if last else True
        single = spec.replace(layers=1, features=width, dropout_between=0.0, return_sequences=sequences)
        if shared is not None:
            native = shared[number]
        else:
            native = make(single, f"{layer.name}_{number}", dtype, layer.rules, batch)
            native.trainable = layer.trainable
        chain.append(native)
        own = first[number * state_count(single) :][: state_count(single)]
        given = keras.tree.flatten(native(outputs[0], **({"initial_state": own} if own else {})))
        front = 2 if spec.merge is None and spec.bidirectional else 1
        outputs, states = given[:front], states + given[front:]
        if spec.dropout_between and not last:
            outputs = [
                keras.layers.Dropout(spec.dropout_between, name=f"{layer.name}_dropout_{number}", dtype=dtype)(
                    outputs[0]
                )
            ]
    return chain, [*outputs, *states]


def _stacked(spec: Spec, front: list[Any], last: list[Any], dtype: str) -> Any:
    """Return (output, (h_n, c_n)) or (output, h_n), the states of all layers and directions as (batch, which, size)."""
    import keras

    kinds = ("h", "c") if spec.cell == "lstm" else ("h",)
    states = []
    for place, kind in enumerate(kinds):
        rows = [keras.layers.Reshape((1, -1), dtype=dtype)(state) for state in last[place :: len(kinds)]]
        name = f"{kind}_n"
        states.append(
            keras.layers.Concatenate(axis=1, name=name, dtype=dtype)(rows)
            if len(rows) > 1
            else keras.layers.Identity(name=name, dtype=dtype)(rows[0])
        )
    return (front[0] if len(front) == 1 else tuple(front), tuple(states) if len(states) > 1 else states[0])


def call(obj: Any, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
    """Return all outputs of a layer or model, in the order that ``describe`` gives them.

    Args:
        obj: The layer or model; a stateful one forgets first.
        inputs: One array for each input, batch first.
        states: Initial states of a bare recurrent layer, (batch, size) each.
    """
    return [_array(each) for each in outputs(obj, inputs, states)]


def outputs(
    obj: Any, inputs: Sequence[Any], states: Sequence[Any] | None = None, *, training: bool = False
) -> list[Any]:
    """Return what ``call`` gives, as tensors of the backend."""
    import keras

    for layer in obj._flatten_layers():
        if getattr(layer, "stateful", False) and getattr(layer, "states", None) is not None:
            layer.reset_state()
    if is_cell(obj):
        start = list(states) if states is not None else obj.get_initial_state(len(inputs[0]))
        made = obj(inputs[0], start if isinstance(start, list) else [start], training=training)
    else:
        given = {"initial_state": list(states)} if states is not None else {}
        # A model that was built on a list or a dictionary of inputs wants them so, also where it is one.
        structure = getattr(obj, "_inputs_struct", None)
        fed: Any = inputs[0] if len(inputs) == 1 else list(inputs)
        if isinstance(structure, list | tuple | dict):
            fed = keras.tree.pack_sequence_as(structure, list(inputs))
        made = obj(fed, training=training, **given)
    flat: list[Any] = keras.tree.flatten(made)
    kinds = _state_kinds(obj) if isinstance(obj, keras.Model) else []
    if not kinds:
        return flat
    split = len(flat) - len(kinds)
    return flat[:split] + [state[:, place] for place in range(flat[-1].shape[1]) for state in flat[split:]]


def gradients(
    obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
) -> tuple[float, dict[str, dict[str, np.ndarray]], list[np.ndarray | None]]:
    """Return the loss in training and its gradients, without dropout."""
    from gatewise_keras import training

    return training.gradients(obj, inputs, targets)


def train(obj: Any, batches: Sequence[Any], **settings: Any) -> list[float]:
    """Train a layer or model in place by Adam, without dropout; return the loss at each step."""
    from gatewise_keras import training

    return training.train(obj, batches, **settings)


def takes_states(obj: Any) -> bool:
    """Say whether ``call`` can start from given states: a bare recurrent layer can, a model cannot."""
    import keras

    layer = isinstance(obj, keras.layers.RNN | keras.layers.Bidirectional) and not is_several(obj)
    return layer or is_cell(obj)


def dtype_of(obj: Any) -> str:
    """Return the type of the numbers that an object computes with."""
    import keras

    kinds = {keras.backend.standardize_dtype(variable.dtype) for variable in obj.weights}
    return "float64" if kinds == {"float64"} else "float32"


def computes_in_double() -> bool:
    """Say whether float64 layers compute in float64 here; elsewhere their products are rounded to float32.

    On JAX all of them are, unless it was told otherwise; on torch those of Dense and SimpleRNN are (Keras 3.15).
    """
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def open_file(path: str) -> Any:
    """Return the model in a ``.keras`` or ``.h5`` file, without running code that the file holds."""
    import keras

    import gatewise_keras.cells  # noqa: F401  (registers our own cells, which the file may hold)

    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as file:
            config = json.loads(file.read("config.json"))
        for name in _lambdas(config):
            # Keras refuses to load one and does not say which.
            raise unknown_class(name, "Lambda", OWN_CODE)
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def _lambdas(config: Any) -> Iterator[str]:
    """Yield the names of the Lambda layers in a config."""
    if isinstance(config, Mapping):
        inner = config.get("config")
        if config.get("class_name") == "Lambda" and isinstance(inner, Mapping):
            yield str(inner.get("name"))
        for value in config.values():
            yield from _lambdas(value)
    elif isinstance(config, list):
        for value in config:
            yield from _lambdas(value)


def save_file(obj: Any, path: str) -> None:
    """Write a model to a ``.keras`` file; a bare layer goes into a model of its own."""
    import keras

    if not isinstance(obj, keras.Model):
        network = describe(obj)
        own, there = natives(obj), assemble(network)
        for name, native in there[1].items():
            write(native, read(own[name]))
        obj = there[0]
    _check_cells(obj)
    obj.save(path)


def _check_cells(model: Any) -> None:
    """Refuse a model in which several layers run one cell: Keras would write a file that it cannot read."""
    import keras

    seen: set[int] = set()
    layers = {id(layer): layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)}
    for layer in layers.values():
        for cell in getattr(layer.cell, "cells", [layer.cell]):
            if id(cell) in seen:
                raise UnsupportedModelError(
                    f"Layer {layer.name!r} runs the cell {cell.name!r} of another layer: no .keras file can hold it.",
                    "Keras writes the weights of the cell once, and cannot read the file.",
                    "Save it as .safetensors, or share a whole layer.",
                )
            seen.add(id(cell))
