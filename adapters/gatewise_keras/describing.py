"""Reads Keras objects: what a layer, a cell or a model is, in neutral terms, and what is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.core.network import Layer, Network, Rule
from gatewise.core.spec import GRU, LSTM, RNN, Activation, Dense, Dropout, Embedding, Input, Masking, Recurrent, Spec
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


OWN_CODE = "It runs code of its own, which cannot be read; replace it by layers of Keras."
"""The way out of a layer that no description covers."""


STATES = ("h_n", "c_n")
"""Names of the outputs that hold the states of a stack."""


CELLS: dict[str, type[Recurrent]] = {
    "LSTMCell": LSTM,
    "GRUCell": GRU,
    "SimpleRNNCell": RNN,
    "GeneralLSTMCell": LSTM,
}
"""Class of a cell → the kind of layer that ``keras.layers.RNN`` makes of it."""


GENERAL = ("projection", "peepholes", "cell_clip")
"""Options that Keras's own LSTM lacks, and ``gatewise_keras.cells.GeneralLSTMCell`` has."""


WEIGHTS = {"kernel": "kernel", "recurrent_kernel": "recurrent", "bias": "bias", "embeddings": "embeddings"}
"""Weight → what Keras puts before ``_regularizer`` and ``_constraint`` to name the rules on it."""


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
        if is_cell(obj):
            return _cell_network(obj)
        specs = _specs_of(obj)
        batch = _batch_of(obj) if isinstance(specs[0], Recurrent) and specs[0].stateful else None
        layers = [alone(specs[0], obj.name, batch=batch).layers[0]]
        if isinstance(specs[0], Dense) and len(obj._build_shapes_dict.get("input_shape") or ()) == 2:
            layers = [Layer(layers[0].name, Input((specs[0].features,)))]
        for (name, native), spec in zip(_parts(obj, {"input", "input_1"}).items(), specs, strict=True):
            layers.append(Layer(name, spec, (layers[-1].name,), bool(native.trainable), rules=_rules(native)))
        return Network(tuple(layers), _stack_outputs(layers[1:]) if is_stack(obj) else ())
    return _Graph(obj).network()


def is_cell(obj: Any) -> bool:
    """Say whether an object is a bare cell, one of Keras's own or of ours."""
    return type(obj).__name__ in CELLS and type(obj).__module__.partition(".")[0] in ("keras", "gatewise_keras")


def _cell_network(cell: Any) -> Network:
    """Return the network of a bare cell: one step, from the input and the states to the output and the states."""
    spec = _cell_spec(cell, cell, {"return_sequences": False})
    met = next((option for option in GENERAL if spec.options().get(option)), None)
    if met or spec.dropout or spec.recurrent_dropout:
        option = met or ("dropout" if spec.dropout else "recurrent_dropout")
        why = "A bare cell goes to a bare cell, and those of other frameworks have none."
        raise _refusal(cell, option, spec.options()[option], why, "Put it into keras.layers.RNN and port that layer.")
    source = "input" if cell.name != "input" else "input_1"
    layer = Layer(cell.name, spec, (source,), bool(cell.trainable), rules=_rules(cell), step=True)
    return Network((Layer(source, Input((spec.features,))), layer))


def is_stack(layer: Any) -> bool:
    """Say whether several cells are stacked in one layer."""
    import keras

    return type(layer) is keras.layers.RNN and type(layer.cell) is keras.layers.StackedRNNCells


def _parts(layer: Any, taken: Collection[str] = ()) -> dict[str, Any]:
    """Return the natives of one Keras layer by name: the layer itself, or the cells that are stacked in it."""
    if not is_stack(layer):
        return {layer.name: layer}
    cells: dict[str, Any] = {}
    for number, cell in enumerate(layer.cell.cells):
        name = f"{layer.name}_cell_{number}"
        while name in taken:
            name += "_"
        cells[name] = cell
    return cells


def _stack_outputs(layers: Sequence[Layer]) -> tuple[str, ...]:
    """Return what a stack of cells gives: the output of the last, then the states of each, as references."""
    found = [layers[-1].name]
    for layer in layers:
        spec = layer.spec
        assert isinstance(spec, Recurrent)
        states = 2 if spec.cell == "lstm" else 1
        found += [f"{layer.name}:{number}" for number in range(1, 1 + states)] if spec.return_state else []
    return tuple(found)


def _batch_of(layer: Any) -> int | None:
    """Return the batch size that a stateful layer was built for."""
    import keras

    inner = getattr(layer, "forward_layer", layer)
    states = keras.tree.flatten(inner.states) if inner.states is not None else []
    return int(states[0].shape[0]) if states else None


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
                f"TimeDistributed gives its {kind} one step of the sequence: drop the TimeDistributed around it, "
                "or feed 4 axes (batch, outer steps, timesteps, features)."
            )
    return "Build it in Keras first, to see where it fails."


def alone(spec: Spec, name: str = "layer", trainable: bool = True, batch: int | None = None) -> Network:
    """Return the network of one layer and its input."""
    shape: tuple[int | None, ...] = (None,)
    if not isinstance(spec, Embedding):
        width = spec.options().get("features")
        shape = (None, width) if width else (None,)
    source = "input" if name != "input" else "input_1"
    layers = (
        Layer(source, Input(shape, integer=isinstance(spec, Embedding), batch=batch)),
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
        levels = getattr(model, "_functional", model)._nodes_by_depth
        self.nodes = [node for level in levels.values() for node in level]
        self.layers: dict[str, Layer] = {}
        self.natives: dict[str, Any] = {}
        self.stacks: dict[str, tuple[str, ...]] = {}  # a stack of cells → what it gives
        self.seen: set[str] = set()

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
        if operation.name in self.stacks:
            return str(self.stacks[operation.name][index])
        return f"{operation.name}:{index}" if index else str(operation.name)

    def visit(self, tensor: Any) -> None:
        """Add the layer that makes a tensor, after those that it reads."""
        import keras

        operation, node, _ = tensor._keras_history
        if operation.name in self.seen:
            return
        self.seen.add(operation.name)
        # A layer also keeps the nodes of other models, and of earlier builds of this one.
        uses = sum(any(used is node for node in self.nodes) for used in operation._inbound_nodes)
        if uses > 1:
            raise UnsupportedModelError(
                f"Layer {operation.name!r} is used {uses} times.",
                f"{self.model.name}: each layer is used once.",
                "Give each use a layer of its own.",
            )
        sources = self.sources_of(operation, operation._inbound_nodes[node].arguments)
        if isinstance(operation, keras.layers.InputLayer):
            specs: list[Spec] = [self.input_of(operation)]
        else:
            specs = _specs_of(operation)
        if len(specs) > 1 and operation.go_backwards and getattr(sources[0], "_keras_mask", None) is not None:
            why = "Only the first cell reads from the end, and the mask would have to be turned for the others."
            raise _refusal(operation, "go_backwards", True, why, "Leave out the mask, or stack layers.")
        for source in sources:
            self.visit(source)
        above, *states = map(self.reference, sources) if sources else [""]
        # Keras hands a mask on by itself only to a layer that is called on one tensor and nothing else.
        given = operation._inbound_nodes[node].arguments.kwargs
        if sources and getattr(sources[0], "_keras_mask", None) is not None:
            _check_unrolled(operation)
        masked = not states or any(part is not None for part in keras.tree.flatten(given.get("mask")))
        distributed = isinstance(operation, keras.layers.TimeDistributed)
        names = {layer.name for layer in self.model.layers if layer is not operation}
        for (name, native), spec in zip(_parts(operation, names).items(), specs, strict=True):
            own = [states.pop(0) for _ in range(state_count(spec))] if states else []
            reads = (above, *own) if above else ()
            self.natives[name] = native
            place = bool(native.trainable), distributed, _rules(native)
            self.layers[name] = Layer(name, spec, reads, *place, masked=masked)
            above = name
        if is_stack(operation):
            self.stacks[operation.name] = _stack_outputs([self.layers[name] for name in _parts(operation, names)])

    def sources_of(self, operation: Any, arguments: Any) -> list[Any]:
        """Return the tensors that a layer reads: its input, and behind it the first states of a recurrent layer.

        A mask that Keras passes on by itself is not one of them.
        """
        import keras

        if not arguments.args:
            return []
        there = {name: keras.tree.flatten(value) for name, value in arguments.kwargs.items()}
        given = {name: arguments.kwargs[name] for name, parts in there.items() if any(x is not None for x in parts)}
        mask, states = given.get("mask"), keras.tree.flatten(given.get("initial_state", []))
        automatic = keras.tree.map_structure(lambda tensor: getattr(tensor, "_keras_mask", None), arguments.args[0])
        sources: list[Any] = keras.tree.flatten(arguments.args) + states
        recurrent = isinstance(operation, keras.layers.RNN | keras.layers.Bidirectional)
        what = ""
        if mask is not None and mask is not automatic:
            what = "a second input as mask"
        elif not all(isinstance(source, keras.KerasTensor) for source in sources):
            what = "a constant"
        elif recurrent and len(sources) > 1:
            expected = sum(map(state_count, _specs_of(operation)))
            what = f"{len(sources) - 1} first states and has {expected}" if len(sources) - 1 != expected else ""
        elif len(sources) > 1:
            what = f"{len(sources)} tensors"
        if what:
            raise UnsupportedModelError(
                f"Layer {operation.name!r} ({type(operation).__name__}) reads {what}, which is not supported.",
                "A layer reads one tensor, a recurrent one first states, too; masks come from Masking or Embedding.",
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


def state_count(spec: Spec) -> int:
    """Return how many states a recurrent layer starts from."""
    if not isinstance(spec, Recurrent):
        return 0
    return spec.layers * spec.directions * (2 if spec.cell == "lstm" else 1)


def _check_unrolled(layer: Any) -> None:
    """Refuse what Keras itself gets wrong: unrolled and backwards, it zeroes the steps of a mask that is not turned."""
    for one in (getattr(layer, "forward_layer", layer), getattr(layer, "backward_layer", layer)):
        zeroes = getattr(one, "zero_output_for_mask", False) and getattr(one, "return_sequences", False)
        if zeroes and one.unroll and one.go_backwards:
            why = (
                "Under a mask, Keras's unrolled loop zeroes other steps than its loop does when it reads from the end."
            )
            raise _refusal(layer, "unroll", True, why, "Use unroll=False, which zeroes the steps that are masked.")


def _specs_of(layer: Any) -> list[Spec]:
    """Return the spec of one Keras layer, or one for each cell where several are stacked in it.

    A stack within one scan computes what layers on each other compute: only the first reads backwards, only the last
    may leave out the sequence, and a masked step is one to all.
    """
    if not is_stack(layer):
        return [_spec_of(layer)]
    _check_built(layer)
    if layer.stateful:
        why = "Keras itself cannot reset the states of stacked cells."
        raise _refusal(layer, "stateful", True, why, "Give each cell a layer of its own, RNN(cell, stateful=True).")
    specs: list[Spec] = []
    cells = layer.cell.cells
    for number, cell in enumerate(cells):
        last = number == len(cells) - 1
        options = {
            "return_sequences": layer.return_sequences or not last,
            "return_state": layer.return_state,
            "go_backwards": layer.go_backwards and number == 0,
            "zero_output_for_mask": layer.zero_output_for_mask and last,
        }
        specs.append(_cell_spec(cell, layer, options))
    return specs


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
        held = _spec_of(layer.layer)
        if isinstance(held, Recurrent) and held.stateful:
            why = "Within TimeDistributed its states go on from one outer step to the next."
            raise _refusal(layer.layer, "stateful", True, why, "Use stateful=False.")
        return held
    if type(layer) is keras.layers.RNN:
        _check_built(layer)
        if is_stack(layer):
            why = "Within Bidirectional or TimeDistributed a stack of cells runs as one, which layers cannot do."
            raise _refusal(layer, "cell", type(layer.cell).__name__, why, "Stack layers, each Bidirectional.")
        return _cell_spec(layer.cell, layer, _layer_options(layer))
    if type(layer) is keras.layers.Bidirectional:
        return _bidirectional(layer)
    if type(layer) is keras.layers.ReLU and not (layer.max_value or layer.negative_slope or layer.threshold):
        return Activation("relu")
    if type(layer) not in kinds:
        own_code = isinstance(layer, keras.layers.Lambda) or type(layer).__module__.partition(".")[0] != "keras"
        way_out = OWN_CODE if own_code else "Leave it out of the model and do it around the port."
        raise unknown_class(layer.name, type(layer).__name__, way_out)
    _check_dtype(layer)
    kind = kinds[type(layer)]
    if issubclass(kind, Recurrent):
        _check_built(layer)
        return _cell_spec(layer.cell, layer, _layer_options(layer))
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
            raise _refusal(
                layer, "noise_shape", layer.noise_shape, "Every number is dropped by itself.", "Leave noise_shape out."
            )
        return Dropout(float(layer.rate))
    if kind is Masking:
        return Masking(float(layer.mask_value))
    return Activation(_activation(layer, "activation"))


def _layer_options(layer: Any) -> dict[str, Any]:
    names = ("go_backwards", "return_sequences", "return_state", "stateful", "zero_output_for_mask")
    return {name: bool(getattr(layer, name)) for name in names}


def _cell_spec(cell: Any, layer: Any, options: dict[str, Any]) -> Recurrent:
    """Return the spec of a layer that runs one cell.

    Args:
        cell: The cell.
        layer: What a message names.
        options: What the layer around the cell says.
    """
    if not is_cell(cell):
        known = ", ".join(CELLS)
        way_out = "Its code cannot be read; replace it by one of these cells."
        raise _refusal(layer, "cell", type(cell).__name__, f"Cells that are supported: {known}.", way_out)
    _check_built(cell)
    _check_dtype(cell)
    kind = CELLS[type(cell).__name__]
    options = options | {"bias": cell.use_bias, "activation": _activation(cell, "activation", layer)}
    for name in ("dropout", "recurrent_dropout"):
        rate = float(getattr(cell, name))
        if rate == 1 and kind is RNN:
            way_out = "Give a rate below 1."
            raise _refusal(layer, name, rate, "At a rate of 1 all is dropped, and nothing trains.", way_out)
        # Keras's LSTM and GRU drop only at rates strictly between 0 and 1.
        options[name] = 0.0 if rate == 1 else rate
    if kind is not RNN:
        options["recurrent_activation"] = _activation(cell, "recurrent_activation", layer)
    if kind is GRU:
        options["reset"] = "after" if cell.reset_after else "before"
    if kind is LSTM:
        options |= {name: getattr(cell, name) for name in GENERAL if hasattr(cell, name)}
    return kind(int(cell.kernel.shape[0]), int(cell.units), **options)


def _bidirectional(layer: Any) -> Spec:
    forward, backward = layer.forward_layer, layer.backward_layer
    spec = _spec_of(forward)
    if not isinstance(spec, Recurrent):
        raise _refusal(
            layer,
            "layer",
            type(forward).__name__,
            "Bidirectional is supported around LSTM, GRU, SimpleRNN and RNN of one cell.",
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


def unknown_class(name: str, kind: str, way_out: str) -> UnsupportedModelError:
    """Return the error for a layer whose class is not supported."""
    return UnsupportedModelError(
        f"Layer {name!r} is a {kind}, which is not supported.",
        f"Supported: {', '.join(CLASSES.values())}, RNN, Bidirectional, TimeDistributed.",
        way_out,
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
    if policy.variable_dtype not in ("float32", "float64"):
        why = "Weights of float32 and float64 are supported."
        raise _refusal(layer, "dtype", policy.name, why, "Build the model with dtype='float32' and set its weights.")
    if getattr(layer, "quantization_mode", None) is not None:
        why = "Its weights are whole numbers with a scale."
        raise _refusal(layer, "quantization", layer.quantization_mode, why, "Port the model before it is quantised.")
    if getattr(layer, "lora_enabled", False):
        why = "A second, low-rank kernel is added to its own."
        raise _refusal(layer, "lora_rank", layer.lora_rank, why, "Merge it: set the kernel of a layer without LoRA.")


def _rules(layer: Any) -> tuple[Rule, ...]:
    """Return the regularisers and constraints of a layer that can be carried; ``remarks`` tells the others."""
    return tuple(rule for rule in _all_rules(layer) if isinstance(rule, Rule))


def _all_rules(layer: Any) -> Iterator[Rule | str]:
    """Yield each regulariser and constraint of a layer as a rule, or in words where it cannot be one."""
    import keras

    if isinstance(layer, keras.layers.TimeDistributed):
        yield from _all_rules(layer.layer)
        return
    if isinstance(layer, keras.layers.Bidirectional):
        yield from (one := list(_all_rules(layer.forward_layer)))
        if one != list(_all_rules(layer.backward_layer)):
            yield "the regularizers and constraints of backward_layer, which are not those of the forward one"
        return
    if getattr(layer, "activity_regularizer", None) is not None:
        yield f"activity_regularizer={type(layer.activity_regularizer).__name__}"
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
            settings = sorted(met.get_config().items())
            frozen = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in settings)
            yield Rule(kind, weight, name, frozen)


def remarks(obj: Any) -> list[str]:
    """Return what a port leaves behind, a sentence each: options that act in training alone."""
    import keras

    said = []
    parts = obj._flatten_layers(recursive=isinstance(obj, keras.Model)) if isinstance(obj, keras.layers.Layer) else []
    for layer in parts:
        for told in _all_rules(layer):
            if isinstance(told, str):
                said.append(f"{layer.name}: {told} acts in training alone and is not carried over.")
        cell: Any = getattr(layer, "cell", None)
        if getattr(cell, "implementation", 2) == 1 and cell.dropout and not cell.recurrent_dropout:
            said.append(f"{layer.name}: implementation=1 draws a dropout mask a gate, and the port one for all gates.")
    return list(dict.fromkeys(said))


def natives(obj: Any) -> dict[str, Any]:
    """Return the layers of an object by the names that ``describe`` gives them."""
    import keras

    if not isinstance(obj, keras.Model):
        return _parts(obj, {"input", "input_1"})
    graph = _Graph(obj)
    graph.network()
    return graph.natives
