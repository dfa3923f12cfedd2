"""Runs Keras 3, on any of its backends: a layer holds its own weights.

Keras is imported by each function when it is called. A ``native`` here is what one layer of a network becomes: a Keras
layer, or a list of them for a stack.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.arrays.native import fitting
from gatewise.core.layout import Layout, check_holds
from gatewise.core.spec import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Dense,
    Dropout,
    Embedding,
    Input,
    Layer,
    Masking,
    Network,
    Recurrent,
    Spec,
    source_of,
)
from gatewise.errors import UnsupportedModelError

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

STATES = ("h_n", "c_n")
"""Names of the outputs that hold the states of a stack."""

TRAINING_ONLY = (
    "kernel_regularizer recurrent_regularizer bias_regularizer activity_regularizer embeddings_regularizer "
    "kernel_constraint recurrent_constraint bias_constraint embeddings_constraint"
).split()
"""Options that act in training alone; a port says that it leaves them behind."""


def claims(obj: object) -> bool:
    """Say whether an object is a Keras layer or model; on the torch backend it is a torch module, too."""
    return any(kind.__module__.partition(".")[0] == "keras" for kind in type(obj).__mro__[:-1])


# ── one layer ───────────────────────────────────────────────────────────────────────────────────────────────────


def build(spec: Spec, layout: Layout) -> Any:
    """Return a built layer, a cell where the layout is a cell's, or a model where layers are stacked."""
    import keras

    check_holds(layout, spec)
    if layout.name.endswith("Cell"):
        cell = getattr(keras.layers, layout.name.partition(":")[2])(**_cell_arguments(spec))
        cell.build((None, spec.features))  # type: ignore[attr-defined]
        return cell
    if isinstance(spec, Recurrent) and spec.layers > 1:
        return assemble(_alone(spec))[0]
    return make(spec)


def make(spec: Spec, name: str | None = None, dtype: str = "float32") -> Any:
    """Return one built Keras layer for a spec of one layer."""
    import keras

    common = {"name": name, "dtype": dtype}
    if isinstance(spec, Recurrent):
        kind = getattr(keras.layers, CLASSES[type(spec)])
        arguments = _cell_arguments(spec) | {
            option: getattr(spec, option)
            for option in ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask")
        }
        layer = kind(**arguments, dtype=dtype, name=None if spec.bidirectional else name)
        if spec.bidirectional:
            layer = keras.layers.Bidirectional(layer, merge_mode=spec.merge, **common)
        if not spec.stateful:
            layer.build((None, None, spec.features))
        return layer
    options = spec.options()
    if isinstance(spec, Dense):
        layer = keras.layers.Dense(spec.units, activation=spec.activation, use_bias=spec.bias, **common)
        layer.build((None, spec.features))
        return layer
    if isinstance(spec, Embedding):
        layer = keras.layers.Embedding(spec.tokens, spec.units, mask_zero=spec.mask_zero, **common)
        layer.build((None, None))
        return layer
    return getattr(keras.layers, CLASSES[type(spec)])(**options, **common)


def _cell_arguments(spec: Spec) -> dict[str, Any]:
    same = ("units", "activation", "recurrent_activation", "dropout", "recurrent_dropout")
    options = spec.options()
    arguments = {name: options[name] for name in same if name in options} | {"use_bias": options["bias"]}
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
    """Return the weights of a native, as copies."""
    import keras

    return {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in variables(obj).items()}


def write(obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Change the weights of a native, and return it."""
    own = variables(obj)
    given = fitting(arrays, {name: tuple(variable.shape) for name, variable in own.items()}, type(obj).__name__)
    for name, array in given.items():
        own[name].assign(array)
    return obj


def freeze(native: Any, tensors: Sequence[str]) -> None:
    """Keep training from changing a native; Keras freezes whole layers, so ``tensors`` must be all of it."""
    own = variables(native)
    if set(tensors) >= set(own):
        for layer in native if isinstance(native, list) else [native]:
            layer.trainable = False


def frozen(native: Any) -> set[str]:
    """Return the tensors that training does not change."""
    return {name for name, variable in variables(native).items() if not variable.trainable}


def run(obj: Any, inputs: np.ndarray) -> np.ndarray:
    """Return the first output; of a cell, the outputs at every step."""
    import keras

    if isinstance(obj, keras.layers.LSTMCell | keras.layers.GRUCell | keras.layers.SimpleRNNCell):
        obj = keras.layers.RNN(obj, return_sequences=True)
    return np.array(keras.ops.convert_to_numpy(keras.tree.flatten(obj(inputs, training=False))[0]))


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────


def describe(obj: Any) -> Network:
    """Return what a layer or model is, in neutral terms.

    Raises:
        UnsupportedModelError: A layer or option is not supported; both are named.
    """
    import keras

    if isinstance(obj, Mapping):
        return describe(_from_config(obj))
    if not isinstance(obj, keras.Model):
        if not isinstance(obj, keras.layers.Layer):
            raise UnsupportedModelError(
                f"{type(obj).__name__} is no Keras layer or model.", "Expected a keras.Layer.", "Give the model itself."
            )
        spec = _spec_of(obj)
        return _alone(spec, obj.name, bool(obj.trainable))
    return _Graph(obj).network()


def _from_config(config: Mapping[str, Any]) -> Any:
    """Build the model of a Keras config, what ``keras.saving.serialize_keras_object`` gives; no weights are in it."""
    import keras

    try:
        return keras.saving.deserialize_keras_object(copy.deepcopy(dict(config)), safe_mode=True)
    except Exception as error:  # Keras raises whatever the layers' constructors and builds raise.
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnsupportedModelError(
            f"Keras cannot build this config: {first}", "Expected a config of a Keras layer or model.", _way_out(config)
        ) from error


def _way_out(config: Mapping[str, Any]) -> str:
    """Say what is wrong with a config that Keras refuses, where it is a mistake that is known."""
    inner = config.get("config", {})
    for layer in inner.get("layers", [config]) if isinstance(inner, Mapping) else []:
        held = layer.get("config", {}).get("layer", {}) if layer.get("class_name") == "TimeDistributed" else {}
        if held.get("class_name") in ("LSTM", "GRU", "SimpleRNN", "Bidirectional"):
            kind = held["class_name"]
            return (
                f"TimeDistributed gives its {kind} one step of the sequence: drop the TimeDistributed around the {kind}, "
                "or feed 4 axes (batch, outer steps, timesteps, features)."
            )
    return "Build it in Keras first, to see where it fails."


def _alone(spec: Spec, name: str = "layer", trainable: bool = True) -> Network:
    """Return the network of one layer and its input."""
    shape: tuple[int | None, ...] = (None,)
    if not isinstance(spec, Embedding):
        width = spec.options().get("features")
        shape = (None, width) if width else (None,)
    source = "input" if name != "input" else "input_1"
    layers = (
        Layer(source, Input(shape, integer=isinstance(spec, Embedding))),
        Layer(name, spec, (source,), trainable),
    )
    return Network(layers)


class _Graph:
    """A Functional or Sequential model, read from its outputs back to its inputs."""

    def __init__(self, model: Any) -> None:
        self.model = model
        try:
            self.inputs, self.outputs = list(model.inputs), model.outputs
        except (AttributeError, ValueError):
            self.inputs, self.outputs = [], None
        if not self.inputs or self.outputs is None:
            sequential = type(model).__name__ == "Sequential"
            raise UnsupportedModelError(
                f"Model {model.name!r} has no graph to read" + (": it is not built." if sequential else "."),
                f"{type(model).__name__}: expected a built Sequential or Functional model.",
                "Call it once on data, or start it with keras.Input."
                if sequential
                else "Write it as a Functional model; a subclass runs code that cannot be read.",
            )
        self.nodes = list(getattr(model, "_functional", model)._nodes)
        self.layers: dict[str, Layer] = {}
        self.natives: dict[str, Any] = {}

    def network(self) -> Network:
        import keras

        flat = []
        states = []
        for tensor in keras.tree.flatten(self.outputs):
            if tensor._keras_history.operation.name in STATES:
                states.append(_rows(tensor))
            else:
                flat.append(tensor)
        flat += [state for row in zip(*states, strict=True) for state in row]
        return Network(tuple(self._ordered(flat)), tuple(self.reference(tensor) for tensor in flat))

    def _ordered(self, outputs: list[Any]) -> list[Layer]:
        for tensor in [*self.inputs, *outputs]:
            self.visit(tensor)
        return list(self.layers.values())

    def reference(self, tensor: Any) -> str:
        operation, _, index = tensor._keras_history
        return f"{operation.name}:{index}" if index else str(operation.name)

    def visit(self, tensor: Any) -> None:
        """Add the layer that makes a tensor, after those that it reads."""
        import keras

        operation, node, _ = tensor._keras_history
        if operation.name in self.layers:
            return
        # A layer also keeps the nodes of other models, and of earlier builds of this one.
        uses = sum(any(used is node for node in self.nodes) for used in operation._inbound_nodes)
        if uses > 1:
            raise UnsupportedModelError(
                f"Layer {operation.name!r} is used {uses} times.",
                f"{self.model.name}: each layer is used once.",
                "Give each use a layer of its own.",
            )
        sources = self.sources_of(operation, operation._inbound_nodes[node].arguments)
        spec = self.input_of(operation) if isinstance(operation, keras.layers.InputLayer) else _spec_of(operation)
        for source in sources:
            self.visit(source)
        references = tuple(map(self.reference, sources))
        self.natives[operation.name] = operation
        distributed = isinstance(operation, keras.layers.TimeDistributed)
        self.layers[operation.name] = Layer(operation.name, spec, references, bool(operation.trainable), distributed)

    def sources_of(self, operation: Any, arguments: Any) -> list[Any]:
        """Return the tensors that a layer reads; a mask that Keras passes on by itself is not one of them."""
        import keras

        if not arguments.args:
            return []
        given = {name: value for name, value in arguments.kwargs.items() if keras.tree.flatten(value) != [None]}
        mask = given.get("mask")
        automatic = keras.tree.map_structure(lambda tensor: getattr(tensor, "_keras_mask", None), arguments.args[0])
        others = [name for name in ("initial_state", "mask") if given.get(name) is not None]
        if mask is not None and mask is automatic:
            others.remove("mask")
        sources: list[Any] = keras.tree.flatten(arguments.args)
        if others or len(sources) > 1:
            what = f"a second input as {others[0]}" if others else f"{len(sources)} tensors"
            raise UnsupportedModelError(
                f"Layer {operation.name!r} ({type(operation).__name__}) reads {what}, which is not supported.",
                "A layer reads one tensor; masks come from Masking or Embedding.",
                "Leave the second input out of the model and do it around the port.",
            )
        return sources

    def input_of(self, layer: Any) -> Input:
        import keras

        batch, *shape = layer.batch_shape
        kind = keras.backend.standardize_dtype(layer.dtype)
        # What reads the input decides whether it holds tokens: an Embedding is often fed by a float Input.
        readers = [node.operation for node in layer._outbound_nodes]
        integer = "int" in kind or any(isinstance(reader, keras.layers.Embedding) for reader in readers)
        return Input(tuple(shape), integer=integer, batch=batch)


def _rows(tensor: Any) -> list[Any]:
    """Return the states that a tensor of ``assemble`` has side by side, before they were reshaped."""

    def sources(each: Any) -> list[Any]:
        operation, node, _ = each._keras_history
        return list(operation._inbound_nodes[node].input_tensors)

    return [sources(row)[0] for row in sources(tensor)]


def _spec_of(layer: Any) -> Spec:
    """Return the spec of one Keras layer."""
    import keras

    kinds = {getattr(keras.layers, name): kind for kind, name in CLASSES.items()}
    if type(layer) is keras.layers.TimeDistributed:
        if type(layer.layer) is keras.layers.TimeDistributed or not _spec_of(layer.layer).cell:
            inner = type(layer.layer).__name__
            raise _refusal(
                layer, "layer", inner, "TimeDistributed is supported around layers with weights.", "Leave it out."
            )
        return _spec_of(layer.layer)
    if type(layer) is keras.layers.Bidirectional:
        return _bidirectional(layer)
    if type(layer) is keras.layers.ReLU and not (layer.max_value or layer.negative_slope or layer.threshold):
        return Activation("relu")
    if type(layer) not in kinds:
        way_out = "Leave it out of the model and do it around the port."
        if isinstance(layer, keras.layers.Lambda) or type(layer).__module__.partition(".")[0] != "keras":
            way_out = "It runs code of its own, which cannot be read; replace it by layers of Keras."
        raise UnsupportedModelError(
            f"Layer {layer.name!r} is a {type(layer).__name__}, which is not supported.",
            f"Supported: {', '.join(CLASSES.values())}, Bidirectional, TimeDistributed(Dense).",
            way_out,
        )
    _check_dtype(layer)
    kind = kinds[type(layer)]
    if issubclass(kind, Recurrent):
        return _recurrent(layer, kind)
    if kind is Dense:
        _check_built(layer)
        return Dense(
            int(layer._kernel.shape[0]), layer.units, bias=layer.use_bias, activation=_activation(layer, "activation")
        )
    if kind is Embedding:
        return Embedding(layer.input_dim, layer.output_dim, mask_zero=layer.mask_zero)
    if kind is Dropout:
        if layer.noise_shape is not None and any(size is not None for size in np.atleast_1d(layer.noise_shape)):
            raise _refusal(
                layer, "noise_shape", layer.noise_shape, "Every number is dropped by itself.", "Leave noise_shape out."
            )
        return Dropout(float(layer.rate))
    if kind is Masking:
        return Masking(float(layer.mask_value))
    return Activation(_activation(layer, "activation"))


def _recurrent(layer: Any, kind: type[Recurrent]) -> Recurrent:
    _check_built(layer)
    cell = layer.cell
    options: dict[str, Any] = {
        name: getattr(layer, name)
        for name in ("go_backwards", "return_sequences", "return_state", "stateful", "zero_output_for_mask")
    }
    options |= {"dropout": float(cell.dropout), "recurrent_dropout": float(cell.recurrent_dropout)}
    options |= {"bias": cell.use_bias, "activation": _activation(cell, "activation", layer)}
    if kind is not RNN:
        options["recurrent_activation"] = _activation(cell, "recurrent_activation", layer)
    if kind is GRU:
        options["reset"] = "after" if cell.reset_after else "before"
    return kind(int(cell.kernel.shape[0]), int(layer.units), **options)


def _bidirectional(layer: Any) -> Spec:
    forward, backward = layer.forward_layer, layer.backward_layer
    spec = _spec_of(forward)
    if not isinstance(spec, Recurrent):
        raise _refusal(
            layer,
            "layer",
            type(forward).__name__,
            "Bidirectional is supported around LSTM, GRU and SimpleRNN.",
            "Leave it out.",
        )
    other = _spec_of(backward)
    if other != spec.replace(go_backwards=not spec.go_backwards):
        raise _refusal(
            layer, "backward_layer", backward.name, f"The two directions differ: {spec} and {other}.", "Use two layers."
        )
    both: dict[str, Any] = {"bidirectional": True, "merge": layer.merge_mode}
    if spec.return_sequences:
        # Bidirectional forces this on its copies; it is their option, and not one that a person chose.
        both["zero_output_for_mask"] = True
    return spec.replace(**both)


def _activation(owner: Any, option: str, layer: Any = None) -> str:
    function = getattr(owner, option)
    if not _is_named(function):
        what = getattr(function, "__name__", type(function).__name__)
        raise _refusal(
            layer or owner, option, what, "Activations of Keras are supported, by name.", "Use one of those."
        )
    name = str(function.__name__)
    return {"relu_6": "relu6", "swish": "silu"}.get(name, name)


def _is_named(function: Any) -> bool:
    import keras

    try:
        return keras.activations.get(function.__name__) is function
    except (AttributeError, ValueError):
        return False


def _refusal(layer: Any, option: str, value: object, why: str, way_out: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Layer {layer.name!r} ({type(layer).__name__}) has {option}={value!r}, which is not supported.", why, way_out
    )


def _check_built(layer: Any) -> None:
    if not layer.built:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) is not built: it has no weights yet.",
            "Its size of input is unknown.",
            "Call it once on data, or build it with a shape.",
        )


def _check_dtype(layer: Any) -> None:
    policy = layer.dtype_policy
    if policy.compute_dtype != policy.variable_dtype:
        why = f"It stores {policy.variable_dtype} and computes in {policy.compute_dtype}."
        raise _refusal(layer, "dtype", policy.name, why, "Build the model with dtype='float32' and set its weights.")


def remarks(obj: Any) -> list[str]:
    """Return what a port leaves behind, a sentence each: options that act in training alone."""
    import keras

    said = []
    for layer in obj._flatten_layers() if isinstance(obj, keras.layers.Layer) else []:
        for option in TRAINING_ONLY:
            if getattr(layer, option, None) is not None and not hasattr(layer, "cell"):
                said.append(f"{layer.name}: {option} acts in training alone and is not carried over.")
    return list(dict.fromkeys(said))


def natives(obj: Any) -> dict[str, Any]:
    """Return the layers of an object by the names that ``describe`` gives them."""
    import keras

    if not isinstance(obj, keras.Model):
        return {obj.name: obj}
    graph = _Graph(obj)
    graph.network()
    return graph.natives


def form(obj: Any) -> str:
    """Say how an object is called: as a bare layer, as a model, or as a stack with its states side by side."""
    import keras

    if not isinstance(obj, keras.Model):
        return "layer"
    return "stack" if _state_kinds(obj) else "model"


def _state_kinds(model: Any) -> list[str]:
    """Return h_n and c_n where a model gives the states of a stack side by side, as ``assemble`` builds it."""
    import keras

    names = [tensor._keras_history.operation.name for tensor in keras.tree.flatten(model.outputs)]
    return [name for name in names if name in STATES]


def assemble(network: Network, *, dtype: str = "float32", form: str = "model") -> tuple[Any, dict[str, Any]]:
    """Build a Functional model for a network; return it with the native of each layer.

    Where one layer stands for a stack, as in ``nn.LSTM(num_layers=2)``, it becomes a chain of Keras layers, and the
    model gives what the stack gives: the output, and the states of all layers side by side, batch first.
    """
    import keras

    if form == "layer":
        [layer] = network.weighted
        native = make(layer.spec, layer.name, dtype)
        native.trainable = layer.trainable
        return native, {layer.name: native}
    made: dict[str, Any] = {}
    tensors: dict[str, list[Any]] = {}
    inputs = []
    for layer in network.layers:
        if isinstance(layer.spec, Input):
            kind = "int32" if layer.spec.integer else dtype
            tensor = keras.Input(layer.spec.shape, batch_size=layer.spec.batch, dtype=kind, name=layer.name)
            inputs.append(tensor)
            tensors[layer.name] = [tensor]
            continue
        [reference] = layer.inputs
        name, number = source_of(reference)
        source = tensors[name][number]
        if isinstance(layer.spec, Recurrent) and layer.spec.layers > 1:
            made[layer.name], tensors[layer.name] = _stack(layer, source, dtype)
            continue
        native = make(layer.spec, None if layer.distributed else layer.name, dtype)
        if layer.distributed:
            native = keras.layers.TimeDistributed(native, name=layer.name, dtype=dtype)
        native.trainable = layer.trainable
        made[layer.name] = native
        out = keras.tree.flatten(native(source))
        tensors[layer.name] = out
    outputs = [tensors[name][number] for name, number in map(source_of, network.results)]
    structure: Any = outputs[0] if len(outputs) == 1 else outputs
    if form == "stack" and len(outputs) > 1:
        structure = _stacked(network.weighted[0].spec, outputs)
    model = keras.Model(inputs[0] if len(inputs) == 1 else inputs, structure)
    return model, made


def _stack(layer: Layer, source: Any, dtype: str) -> tuple[list[Any], list[Any]]:
    """Chain the layers of a stack; return them, and what the stack gives."""
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
        native = make(single, f"{layer.name}_{number}", dtype)
        native.trainable = layer.trainable
        chain.append(native)
        given = keras.tree.flatten(native(outputs[0]))
        front = 2 if spec.merge is None and spec.bidirectional else 1
        outputs, states = given[:front], states + given[front:]
        if spec.dropout_between and not last:
            outputs = [keras.layers.Dropout(spec.dropout_between, name=f"{layer.name}_dropout_{number}")(outputs[0])]
    return chain, [*outputs, *states]


def _stacked(spec: Spec, outputs: list[Any]) -> Any:
    """Return (output, (h_n, c_n)) or (output, h_n), the states of all layers and directions as (batch, which, size)."""
    import keras

    kinds = ("h", "c") if spec.cell == "lstm" else ("h",)
    states = []
    for place, kind in enumerate(kinds):
        rows = [keras.layers.Reshape((1, -1))(state) for state in outputs[1:][place :: len(kinds)]]
        name = f"{kind}_n"
        states.append(
            keras.layers.Concatenate(axis=1, name=name)(rows)
            if len(rows) > 1
            else keras.layers.Identity(name=name)(rows[0])
        )
    return (outputs[0], tuple(states) if len(states) > 1 else states[0])


def call(obj: Any, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
    """Return all outputs of a layer or model, in the order that ``describe`` gives them.

    Args:
        obj: The layer or model; a stateful one forgets first.
        inputs: One array for each input, batch first.
        states: Initial states of a bare recurrent layer, (batch, size) each.
    """
    import keras

    for layer in obj._flatten_layers():
        if getattr(layer, "stateful", False) and getattr(layer, "states", None) is not None:
            layer.reset_state()
    given = {"initial_state": list(states)} if states is not None else {}
    made = obj(inputs[0] if len(inputs) == 1 else list(inputs), training=False, **given)
    flat: list[np.ndarray] = [np.array(keras.ops.convert_to_numpy(each)) for each in keras.tree.flatten(made)]
    kinds = _state_kinds(obj) if isinstance(obj, keras.Model) else []
    if not kinds:
        return flat
    split = len(flat) - len(kinds)
    return flat[:split] + [state[:, place] for place in range(flat[-1].shape[1]) for state in flat[split:]]


def takes_states(obj: Any) -> bool:
    """Say whether ``call`` can start from given states: a bare recurrent layer can, a model cannot."""
    import keras

    return isinstance(obj, keras.layers.RNN | keras.layers.Bidirectional)


def dtype_of(obj: Any) -> str:
    """Return the type of the numbers that an object computes with."""
    import keras

    kinds = {keras.backend.standardize_dtype(variable.dtype) for variable in obj.weights}
    return next(iter(kinds)) if len(kinds) == 1 else "float32"


def computes_in_double() -> bool:
    """Say whether float64 layers compute in float64 here; outside TensorFlow they only carry its name."""
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def open_file(path: str) -> Any:
    """Return the model in a ``.keras`` or ``.h5`` file, without running code that the file holds."""
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)


def save_file(obj: Any, path: str) -> None:
    """Write a model to a ``.keras`` file."""
    obj.save(path)
