"""Reads Keras objects: what a layer, a cell or a model is, in neutral terms, and what is refused by name."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gatewise.core.network import Layer, Network, Rule, source_of
from gatewise.core.spec import (
    FUNCTIONS,
    GRU,
    LSTM,
    RNN,
    Activation,
    Constant,
    Dense,
    Dropout,
    Embedding,
    Flip,
    Input,
    Masking,
    Merge,
    Norm,
    Operation,
    Recurrent,
    Remask,
    Spec,
    is_one_cell,
    is_state,
    outputs_of,
)
from gatewise.errors import UnsupportedModelError
from gatewise_keras.operations import operation_of
from gatewise_keras.ordinary import ALONE, TWINS, Twin

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


SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "ReLU": ("relu", {"max_value": None, "negative_slope": 0, "threshold": 0}),
    "ELU": ("elu", {"alpha": 1}),
    "Identity": ("linear", {}),
    "ActivityRegularization": ("linear", {}),
}
"""Class of a layer that is an activation → its name, and the options with which it is."""


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


WEIGHTS = {
    "kernel": "kernel",
    "recurrent_kernel": "recurrent",
    "bias": "bias",
    "embeddings": "embeddings",
    "gamma": "gamma",
    "beta": "beta",
}
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
        laying = _laid(obj)
        first = next((layer for layer in laying.layers if layer.spec.cell), laying.layers[0])
        stateful = isinstance(first.spec, Recurrent) and first.spec.stateful
        batch = _batch_of(next(iter(laying.natives.values()))) if stateful else None
        source = alone(first.spec, obj.name, batch=batch).layers[0]
        shape = source.spec.options()["shape"]
        if isinstance(first.spec, Dense | Norm) and len(obj._build_shapes_dict.get("input_shape") or ()) == 2:
            shape = shape[1:]
        shape = (None,) * first.distributed + shape
        return Network((Layer(source.name, source.spec.replace(shape=shape)), *laying.layers), laying.outputs)
    return _Graph(obj).network()


def is_cell(obj: Any) -> bool:
    """Say whether an object is a bare cell, one of Keras's own or of ours."""
    return type(obj).__name__ in CELLS and type(obj).__module__.partition(".")[0] in ("keras", "gatewise_keras")


def _cell_network(cell: Any) -> Network:
    """Return the network of a bare cell: one step, from the input and the states to the output and the states."""
    spec = cell_spec(cell, cell, {"return_sequences": False})
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


def parts(layer: Any) -> dict[str, Any]:
    """Return the natives of one Keras layer by name: the layer itself, or the cells and directions that it runs."""
    return {layer.name: layer} if is_cell(layer) else _laid(layer).natives


def is_several(layer: Any) -> bool:
    """Say whether one Keras layer is described as several, or as one that runs on each step of another time axis."""
    laying = _laid(layer)
    return is_stack(layer) or len(laying.layers) > 1 or bool(laying.layers[0].distributed)


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


class _Laid(NamedTuple):
    """What one Keras layer becomes, read alone.

    Attributes:
        layers: Its layers; what comes in is ``input``, or ``input_1`` where a layer is called so.
        natives: Layer → Keras's own.
        outputs: What it gives, as references; empty where that is all that the only layer gives.
        left: What is left behind, a sentence each.
    """

    layers: tuple[Layer, ...]
    natives: dict[str, Any]
    outputs: tuple[str, ...]
    left: tuple[str, ...]


def _laid(layer: Any) -> _Laid:
    """Return what one Keras layer becomes."""
    source = "input" if layer.name != "input" else "input_1"
    laying = _Laying({"input", "input_1"})
    outputs = laying.lay(layer, layer.name, source)
    layers = tuple(laying.layers.values())
    several = len(layers) > 1 or is_stack(layer)
    return _Laid(layers, laying.natives, tuple(outputs) if several else (), tuple(laying.left))


class _Laying:
    """Lays Keras layers out as layers of a network, one after the other.

    Attributes:
        layers: What there is so far, by name.
        natives: Layer → Keras's own, for each that does not share its weights.
        left: What is left behind, a sentence each.
    """

    def __init__(self, taken: Collection[str] = (), *, masks: bool = False) -> None:
        self._masks = masks  # whether there is any mask in the model
        self.layers: dict[str, Layer] = {}
        self.natives: dict[str, Any] = {}
        self.left: list[str] = []
        self._taken = set(taken)
        self._owners: dict[int, str] = {}
        self._keepers: dict[int, str] = {}
        self._carries: dict[str, bool] = {}
        self._apart: set[int] = set()  # Bidirectional layers whose cells other layers run, too

    def free(self, name: str, *, own: bool = False) -> str:
        """Return the name, or it with a number where it is taken; a layer's ``own`` name is kept for it."""
        made, number = name, 0
        while made in self.layers or (made in self._taken and not (own and number == 0)):
            number += 1
            made = f"{name}_{number}"
        return made

    def carries(self, reference: str) -> bool:
        """Say whether a mask goes with what a reference names."""
        name, number = source_of(reference)
        there = self.layers.get(name)
        return self._carries.get(name, False) and not (there is not None and is_state(there.spec, number))

    def add(self, name: str, spec: Spec, reads: Sequence[str], native: Any = None, **place: Any) -> str:
        """Add one layer; return its name."""
        layer = Layer(name, spec, tuple(reads), **place)
        if native is not None:
            layer = dataclasses.replace(layer, trainable=bool(native.trainable), rules=_rules(native))
        if spec.cell and native is not None and native.weights:
            [owner, *others] = {self._owners.setdefault(id(weight), name): None for weight in native.weights}
            if owner != name or others:
                _check_shared(
                    native, spec, [self.layers[one] for one in (owner, *others) if one != name], whole=not others
                )
                layer = dataclasses.replace(layer, shares=owner, rules=())
            if layer.keeps and (keeper := self._keepers.setdefault(id(native), name)) != name:
                layer = dataclasses.replace(layer, resumes=keeper)
        if not layer.shares and native is not None:
            self.natives[name] = native
        above = bool(layer.mask) or any(map(self.carries, layer.masked_by))
        self._carries[name] = layer.passes_mask(above)
        self.layers[name] = layer
        return name

    def lay(
        self, layer: Any, name: str, above: str, states: Sequence[str] = (), *, called: bool = True, **place: Any
    ) -> list[str]:
        """Add the layers that one Keras layer is.

        Args:
            layer: It.
            name: What to call it.
            above: What it reads.
            states: Its first states.
            called: Whether Keras calls the layer, and not its code beside what adds up penalties on outputs.
            place: What is so for each of them: ``distributed``, ``masked``, ``mask``.

        Returns:
            All that it gives, as references.
        """
        outputs = self._lay(layer, name, above, states, **place)
        if called and getattr(layer, "activity_regularizer", None) is not None:
            self.penalise(layer, outputs)
        return outputs

    def penalise(self, layer: Any, outputs: Sequence[str]) -> None:
        """Add a Keras layer's penalty on what it gives to the layers that give it."""
        rule = _activity_rule(layer)
        if rule is None:
            told = type(layer.activity_regularizer).__name__
            self.left.append(f"{layer.name}: activity_regularizer={told} is not carried over: add it to the loss.")
            return
        for name in dict.fromkeys(source_of(reference)[0] for reference in outputs):
            there = self.layers[name]
            made = [reference for reference in outputs if source_of(reference)[0] == name]
            # Of the layers that a stack becomes, all but the last give a sequence that the stack does not.
            of = ("output",) if made == _all_of(name, there.spec) else tuple(f"output:{source_of(x)[1]}" for x in made)
            added = tuple(rule._replace(weight=each) for each in of)
            self.layers[name] = dataclasses.replace(there, rules=(*there.rules, *added))

    def _lay(self, layer: Any, name: str, above: str, states: Sequence[str], **place: Any) -> list[str]:
        import keras

        masked = place.get("masked", True) and (bool(place.get("mask")) or self.carries(above))
        if masked:
            _check_unrolled(layer)
        if type(layer) is keras.layers.TimeDistributed:
            return self._distribute(layer, name, above, **place)
        if is_stack(layer):
            # All uses of one stack must be alike, also where a mask comes to some alone.
            turned = self._masks and layer.go_backwards
            return self._stack(layer, name, above, states, turned=turned, **place)
        if type(layer) is keras.layers.Bidirectional and not (_is_alike(layer) and id(layer) not in self._apart):
            return self._directions(layer, name, above, states, **place)
        spec = _spec_of(layer)
        if isinstance(spec, Activation) or spec == Dropout(spec.options().get("rate", 0.0)):
            place = place | {"distributed": 0}
        return _all_of(self.add(name, spec, (above, *states), layer, **place), spec)

    def _distribute(self, layer: Any, name: str, above: str, **place: Any) -> list[str]:
        import keras

        inner = layer.layer
        if isinstance(inner, keras.Model):  # a graph overrides this
            why = "Read alone, it has no graph around it."
            raise _refusal(layer, "layer", type(inner).__name__, why, "Port keras.Model(source, layer(source)).")
        axes, there = place.pop("distributed", 0), len(self.layers)
        made = self.lay(inner, name, above, called=False, distributed=axes + 1, **place)
        return self.ended(made, name, above, there, axes)

    def ended(self, made: list[str], name: str, above: str, there: int, axes: int) -> list[str]:
        """End what runs on each step of a time axis: the mask behind it is the one that came to it.

        Args:
            made: What it gives.
            name: What to call the end.
            above: What it reads.
            there: How many layers there were before it.
            axes: The further time axes on which it all runs.
        """
        added = list(self.layers.values())[there:]
        masks = any(map(self.carries, [above, *made])) and any(map(_changes_mask, added))
        # What no layer of Keras's does by itself can stand in TimeDistributed only within a model.
        if masks or any(isinstance(layer.spec, Operation) or _is_started(layer) for layer in added):
            return [self.add(self.free(name, own=True), Remask(), (made[0], above), distributed=axes)]
        return made

    def _stack(
        self, layer: Any, name: str, above: str, states: Sequence[str], *, turned: bool, **place: Any
    ) -> list[str]:
        """Add the cells of a stack as layers on each other, which compute the same.

        The first reads backwards, and the others in the order of reading. Where there is a mask, it would not fit
        there: the sequence is turned beforehand with its mask, and the mask is turned back behind the last.
        """
        rest, front = list(states), ""
        given: list[str] = []
        axes = {"distributed": place.get("distributed", 0)}
        if turned:
            above = self.add(self.free(f"{name}_turned"), Flip(), (above,), mask=place.pop("mask", ""), **axes)
        specs = _stack_specs(layer, turned=turned)
        for number, (spec, cell) in enumerate(zip(specs, layer.cell.cells, strict=True)):
            own = [rest.pop(0) for _ in range(state_count(spec))] if states else []
            front, *last = _all_of(
                self.add(self.free(f"{name}_cell_{number}"), spec, (above, *own), cell, **place), spec
            )
            above, given = front, [*given, *last]
        if turned and layer.return_sequences:
            front = self.add(self.free(f"{name}_turned"), Flip(values=False), (front,), **axes)
        return [front, *given]

    def _directions(self, layer: Any, name: str, above: str, states: Sequence[str], **place: Any) -> list[str]:
        """Add two directions that compute unlike as two layers, and what makes one output of theirs."""
        counts = [sum(map(state_count, specs_of(one))) for one in (layer.forward_layer, layer.backward_layer)]
        if layer.return_state and counts[0] != counts[1]:
            why = f"The directions have {counts[0]} and {counts[1]} states, and Keras takes them to have as many."
            raise _refusal(layer, "return_state", True, why, "Use two layers, or cells with as many states.")
        forward = self.lay(layer.forward_layer, self.free(f"{name}_forward"), above, states[: counts[0]], **place)
        backward = self.lay(layer.backward_layer, self.free(f"{name}_backward"), above, states[counts[0] :], **place)
        other, axes = backward[0], {"distributed": place.get("distributed", 0)}
        if layer.return_sequences:
            other = self.add(self.free(f"{name}_turned"), Flip(mask=False), (other,), **axes)
        front = [forward[0], other]
        if layer.merge_mode is not None:
            # Where the directions follow no mask, their product does not, either.
            front = [self.add(name, Merge(layer.merge_mode), front, masked=place.get("masked", True))]
        return [*front, *forward[1:], *backward[1:]]


def _all_of(name: str, spec: Spec) -> list[str]:
    """Return all that a layer gives, as references."""
    return [f"{name}:{number}" if number else name for number in range(len(outputs_of(spec)))]


def _is_started(layer: Layer) -> bool:
    """Say whether a layer reads its first states."""
    return isinstance(layer.spec, Recurrent) and len(layer.inputs) > 1


def _changes_mask(layer: Layer) -> bool:
    """Say whether a mask goes on from a layer that is not the one that came to it, which it may not follow."""
    starts, spec = layer.passes_mask(False), layer.spec
    turns = isinstance(spec, Flip) and spec.mask
    return starts or turns or bool(layer.mask) or not dataclasses.replace(layer, distributed=0).passes_mask(True)


def _check_shared(native: Any, spec: Spec, owners: Sequence[Layer], *, whole: bool) -> None:
    """Refuse what cannot be said by layers that share weights, all or none: one direction of two alone."""
    for owner in owners:
        if not whole or not is_one_cell(spec, owner.spec):
            why = f"It shares a part of its weights with {owner.name!r}: {spec} and {owner.spec}."
            way_out = "Share a whole layer, or give each its own cell."
            raise _refusal(native, "cell", type(native).__name__, why, way_out)


class _Graph(_Laying):
    """A Functional or Sequential model, read from its outputs back to its inputs."""

    def __init__(self, model: Any) -> None:
        masks = any(
            _kind_of(layer) is Masking
            or getattr(layer, "mask_zero", False)
            or getattr(layer, "dtype", "") == "bool"
            or any(not hasattr(node.operation, "_flatten_layers") for node in executed(layer))
            for layer in model._flatten_layers()
        )
        super().__init__({layer.name for layer in model.layers}, masks=masks)
        self.model = model
        self._apart = _apart(model)
        self._axes: tuple[int | None, ...] = ()  # steps of the axes on which a model within this one is run
        self._shape: tuple[int | None, ...] = ()  # of what the layer reads that is being read
        self._own = set(map(id, model.layers))
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
        scope: _Scope = {}
        for tensor in self.inputs:
            self.visit(tensor, scope)
        self.visit_keeping(self.model, scope)
        outputs = tuple(self.visit(tensor, scope) for tensor in flat)
        # An Embedding behind other layers' names, such as in a model within this one, is fed by a float Input, too.
        tokens = {source_of(layer.inputs[0])[0] for layer in self.layers.values() if isinstance(layer.spec, Embedding)}
        for name in tokens:
            there = self.layers[name]
            if isinstance(there.spec, Input):
                self.layers[name] = dataclasses.replace(there, spec=there.spec.replace(integer=True))
        return Network(tuple(self.layers.values()), outputs)

    def visit_keeping(self, model: Any, scope: _Scope) -> None:
        """Add the uses that leave states or statistics for the next, behind what they read, in the order of Keras."""
        import keras

        nodes = [(node, list(getattr(node.operation, "_flatten_layers", tuple)())) for node in executed(model)]
        uses = Counter(id(layer) for _, layers in nodes for layer in layers)
        for node, layers in nodes:
            if any(
                getattr(layer, "stateful", False)
                or (isinstance(layer, keras.layers.BatchNormalization) and uses[id(layer)] > 1)
                for layer in layers
            ):
                self.visit(node.outputs[0], scope)

    def visit(self, tensor: Any, scope: _Scope) -> str:
        """Add the layer that makes a tensor, after those that it reads; return what gives the tensor, as a reference.

        Args:
            tensor: A symbolic tensor of this model, or of a model within it.
            scope: What each use of a layer gives, within that model. A layer that is used twice has two uses.
        """
        import keras

        operation, node, index = tensor._keras_history
        use = id(operation), node
        if use in scope:
            return str(scope[use][index])
        if not isinstance(operation, keras.layers.Layer):
            scope[use] = [self.operate(operation, operation._inbound_nodes[node].arguments.args, scope)]
            return str(scope[use][index])
        if _is_ours(operation, "After"):
            read = [self.visit(source, scope) for source in operation._inbound_nodes[node].arguments.args[0]]
            scope[use] = read[:1]
            return read[0]
        sources, states, place = self.read(operation, operation._inbound_nodes[node].arguments)
        reads = [self.visit(source, scope) for source in sources]
        first = [
            self.visit(state, scope) if isinstance(state, keras.KerasTensor) else self.constant(operation, state)
            for state in states
        ]
        if "mask" in place:
            place["mask"] = self.visit(place["mask"], scope)
            if isinstance(operation, keras.Model | keras.layers.TimeDistributed):
                # It is for all that reads what comes in.
                fed = self.free(f"{operation.name}_masked")
                axes = {"distributed": len(self._axes)} if self._axes else {}
                reads[0] = self.add(fed, Flip(values=False, mask=False), reads[:1], mask=place.pop("mask"), **axes)
        if isinstance(operation, keras.Model):
            scope[use] = self.within(operation, reads)
        else:
            name = self.free(operation.name, own=id(operation) in self._own)
            scope[use] = self.put(operation, name, reads, first, sources, place)
        return str(scope[use][index])

    def operate(self, operation: Any, arguments: Sequence[Any], scope: _Scope) -> str:
        """Add what one operation of ``keras.ops`` is; return it as a reference."""
        import keras

        spec = operation_of(operation, arguments)
        if spec is None:
            kind = type(operation).__name__
            raise UnsupportedModelError(
                f"The operation {operation.name!r} ({kind}) is not supported, or not as it is.",
                f"Those of keras.ops that are: {', '.join(FUNCTIONS)}; none of them along the batch.",
                "Do it with layers, or around the port; a mask may be an Input of dtype='bool'.",
            )
        tensors = [each for each in keras.tree.flatten(list(arguments)) if isinstance(each, keras.KerasTensor)]
        reads = [self.visit(tensor, scope) for tensor in tensors]
        axes = {"distributed": len(self._axes)} if self._axes else {}
        return self.add(self.free(operation.name), spec, reads, **axes)

    def constant(self, operation: Any, state: Any) -> str:
        """Add first states that are numbers and no tensor of the model; they fit one size of the batch."""
        import keras

        values = np.asarray(keras.ops.convert_to_numpy(state), np.float64)
        batches = {layer.spec.batch for layer in self.layers.values() if isinstance(layer.spec, Input)}
        if values.ndim != 2 or batches != {len(values)}:
            why = f"A constant of shape {values.shape} fits one size of the batch, and the Input has another or none."
            raise _refusal(
                operation, "initial_state", "a constant", why, "Give the Input batch_size, or read the states."
            )
        rows = tuple(tuple(map(float, row)) for row in values)
        return self.add(self.free(f"{operation.name}_state"), Constant(rows), ())

    def put(
        self, operation: Any, name: str, reads: list[str], states: list[str], sources: list[Any], place: dict[str, Any]
    ) -> list[str]:
        """Add what one use of a Keras layer becomes; return all that it gives."""
        import keras

        if isinstance(operation, keras.layers.InputLayer):
            return [self.add(name, self.input_of(operation), ())]
        place = place | ({"distributed": len(self._axes)} if self._axes else {})
        if _is_join(operation):
            merge = _merge_of(operation, len(sources[0].shape))
            place["masked"] = not _is_ours(operation, "Product")
            merged = [self.add(name, merge, reads, **place)]
            if operation.activity_regularizer is not None:
                self.penalise(operation, merged)
            return merged
        self._shape = sources[0].shape
        before = len(self.layers)
        outputs = self.lay(operation, name, reads[0], states, **place)
        for there in list(self.layers.values())[before:]:
            steps = (*self._axes, *sources[0].shape[1 : 1 + there.distributed - len(self._axes)])
            if there.spec.options().get("stateful") and None in steps:
                why = "Its states go on from one outer step to the next, and Keras runs a number not known at once."
                raise _refusal(operation, "stateful", True, why, "Give the Input the number of outer steps.")
        return outputs

    def _distribute(self, layer: Any, name: str, above: str, **place: Any) -> list[str]:
        import keras

        model = layer.layer
        if not isinstance(model, keras.Model):
            return super()._distribute(layer, name, above, **place)
        axes, there = place.get("distributed", 0), len(self.layers)
        before, self._axes = self._axes, (*self._axes, *self._shape[1 : 2 + axes - len(self._axes)])
        try:
            made = self.within(model, [above])
        finally:
            self._axes = before
        added = list(self.layers.values())[there:]
        again = next((one for one in added if one.resumes in [other.name for other in added]), None)
        if again is not None:
            why = f"{again.resumes!r} is used twice in the model, and goes from use to use on each step of the axis."
            raise _refusal(layer, "layer", type(model).__name__, why, "Use a layer for each, or stateful=False.")
        return self.ended(made, name, above, there, axes)

    def within(self, model: Any, reads: list[str]) -> list[str]:
        """Add what a model within this one becomes, its layers between those around it."""
        import keras

        graph, scope = _Graph(model), {}
        for tensor, reference in zip(graph.inputs, reads, strict=True):
            operation, node, _ = tensor._keras_history
            scope[id(operation), node] = [reference]
        self.visit_keeping(model, scope)
        return [self.visit(tensor, scope) for tensor in keras.tree.flatten(graph.outputs)]

    def read(self, operation: Any, arguments: Any) -> tuple[list[Any], list[Any], dict[str, Any]]:
        """Return the tensors that one use of a layer reads, its first states, and what is so for its layers.

        A mask that Keras passes on by itself is neither.
        """
        import keras

        if not arguments.args:
            return [], [], {}
        there = {name: keras.tree.flatten(value) for name, value in arguments.kwargs.items()}
        given = {name: arguments.kwargs[name] for name, parts in there.items() if any(x is not None for x in parts)}
        mask, first = given.get("mask"), keras.tree.flatten(given.get("initial_state", []))
        automatic = keras.tree.map_structure(lambda tensor: getattr(tensor, "_keras_mask", None), arguments.args[0])
        sources: list[Any] = keras.tree.flatten(arguments.args) + first
        recurrent = isinstance(operation, keras.layers.RNN | keras.layers.Bidirectional)
        several = isinstance(operation, keras.Model) or _is_join(operation)
        by_hand = mask is not None and not _is_same(mask, automatic)
        what = ""
        rank = 2 if recurrent or not sources else len(sources[0].shape) - 1
        if by_hand and (several and len(sources) > 1):
            what = "masks that are given by hand"
        elif by_hand and not _is_mask(mask, rank):
            what = "a mask that is no tensor of the model with a number for each step"
        elif not all(isinstance(source, keras.KerasTensor) for source in sources[: 1 if recurrent else None]):
            what = "a constant"
        elif recurrent and len(sources) > 1:
            expected = sum(map(state_count, specs_of(operation)))
            what = f"{len(sources) - 1} first states and has {expected}" if len(sources) - 1 != expected else ""
        elif len(sources) > 1 and not several:
            what = f"{len(sources)} tensors"
        if what:
            raise UnsupportedModelError(
                f"Layer {operation.name!r} ({type(operation).__name__}) reads {what}, which is not supported.",
                "A layer reads one tensor, a recurrent one first states and a mask, too.",
                "Leave the second input out of the model and do it around the port.",
            )
        # Keras hands a mask on by itself only to a layer that is called on one tensor and nothing else.
        place: dict[str, Any] = {"masked": not recurrent or len(sources) == 1 or mask is not None}
        if by_hand:
            place["mask"] = mask
        return (sources[:1], sources[1:], place) if recurrent else (sources, [], place)

    def input_of(self, layer: Any) -> Input:
        import keras

        batch, *shape = layer.batch_shape
        kind = keras.backend.standardize_dtype(layer.dtype)
        # What reads the input decides whether it holds tokens: an Embedding is often fed by a float Input.
        readers = [node.operation for node in layer._outbound_nodes]
        integer = "int" in kind or any(isinstance(reader, keras.layers.Embedding) for reader in readers)
        return Input(tuple(shape), integer=integer, batch=batch, boolean=kind == "bool")


def _apart(model: Any) -> set[int]:
    """Return the Bidirectional layers of which a direction shares its cell with another layer or direction."""
    import keras

    there = {id(layer): layer for layer in model._flatten_layers()}.values()
    users = Counter(id(layer.cell) for layer in there if isinstance(layer, keras.layers.RNN))
    return {
        id(layer)
        for layer in there
        if isinstance(layer, keras.layers.Bidirectional)
        and any(users[id(one.cell)] > 1 for one in (layer.forward_layer, layer.backward_layer))
    }


_Scope = dict[tuple[int, int], list[str]]
"""A layer and the number of its use → what that use gives, as references."""


def _is_ours(layer: Any, name: str) -> bool:
    """Say whether a layer is of a class of ours, which is not imported for that."""
    return type(layer).__name__ == name and type(layer).__module__ == "gatewise_keras.cells"


def executed(model: Any) -> list[Any]:
    """Return the uses of layers and operations in a model, in the order in which Keras runs them; else nothing."""
    there = getattr(getattr(model, "_functional", model), "_nodes_by_depth", {})
    return [node for depth in sorted(there, reverse=True) for node in there[depth]]


def _is_mask(tensor: Any, rank: int) -> bool:
    """Say whether a tensor of the model is a mask: a number for each step of each sequence."""
    import keras

    return isinstance(tensor, keras.KerasTensor) and 2 <= len(tensor.shape) <= rank


def _is_same(one: Any, other: Any) -> bool:
    """Say whether two symbolic tensors are one, or come from the same by the same operations.

    A model from a file holds the operations that made its masks, and makes them once more when it is built.
    """
    import keras

    if one is other or not (isinstance(one, keras.KerasTensor) and isinstance(other, keras.KerasTensor)):
        return one is other or (type(one) is type(other) and not isinstance(one, keras.KerasTensor) and one == other)
    (first, place, index), (second, there, at) = one._keras_history, other._keras_history
    if first is second:
        return bool((place, index) == (there, at))
    if isinstance(first, keras.layers.Layer) or type(first) is not type(second) or index != at:
        return False
    ours, theirs = first._inbound_nodes[place].arguments, second._inbound_nodes[there].arguments
    pairs = [keras.tree.flatten((each.args, each.kwargs)) for each in (ours, theirs)]
    options = [{key: value for key, value in vars(each).items() if _is_plain(key, value)} for each in (first, second)]
    return len(pairs[0]) == len(pairs[1]) and options[0] == options[1] and all(map(_is_same, *pairs))


def _is_plain(name: str, value: Any) -> bool:
    return not name.startswith("_") and name != "name" and isinstance(value, int | float | str | tuple | list | None)


def _is_join(layer: Any) -> bool:
    """Say whether a layer makes one tensor of several."""
    import keras

    known = type(layer).__name__ in JOINS.values() and isinstance(layer, keras.layers.Layer)
    return known or _is_ours(layer, "Product")


def _merge_of(layer: Any, rank: int) -> Merge:
    """Return the spec of a layer that makes one tensor of several, of so many axes each."""
    word = next((word for word, name in JOINS.items() if name == type(layer).__name__), "mul")
    if word != "concat":
        return Merge(word)
    axis = layer.axis % rank
    if not axis:
        raise _refusal(layer, "axis", layer.axis, "It lays the batches end to end.", "Give another axis.")
    return Merge(axis=-1 if axis == rank - 1 else axis)


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


def specs_of(layer: Any) -> list[Spec]:
    """Return the spec of one Keras layer, or one for each cell or direction that it runs."""
    laid = _laid(layer)
    weighted: list[Spec] = [each.spec for each in laid.layers if each.spec.cell]
    return weighted or [laid.layers[0].spec]


def _stack_specs(layer: Any, *, turned: bool) -> list[Recurrent]:
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
        raise _refusal(layer, "stateful", True, why, "Give each cell a layer of its own, RNN(cell, stateful=True).")
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


def _kind_of(layer: Any) -> type[Spec] | None:
    """Return the kind of a layer by its class alone, or None."""
    import keras

    return next((kind for kind, name in CLASSES.items() if type(layer) is getattr(keras.layers, name)), None)


def _spec_of(layer: Any) -> Spec:
    """Return the spec of one Keras layer."""
    import keras

    kinds = {getattr(keras.layers, name): kind for kind, name in CLASSES.items()}
    if type(layer) is keras.layers.RNN:
        _check_built(layer)
        return cell_spec(layer.cell, layer, _layer_options(layer))
    if type(layer) is keras.layers.Bidirectional:
        return _bidirectional(layer)
    if _is_ours(layer, "Flip"):
        return Flip(layer.values, layer.mask)
    for kind_name, (name, options) in SAME.items():
        if type(layer) is getattr(keras.layers, kind_name) and all(
            getattr(layer, option) == value for option, value in options.items()
        ):
            return Activation(name)
    twin = TWINS.get(type(layer).__name__)
    if twin is not None and type(layer) is getattr(keras.layers, type(layer).__name__):
        _check_dtype(layer)
        return _spec_of_twin(layer, twin)
    if type(layer) not in kinds:
        own_code = isinstance(layer, keras.layers.Lambda) or type(layer).__module__.partition(".")[0] != "keras"
        way_out = OWN_CODE if own_code else "Leave it out of the model and do it around the port."
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
            raise _refusal(
                layer, "noise_shape", layer.noise_shape, "Every number is dropped by itself.", "Leave noise_shape out."
            )
        return Dropout(float(layer.rate))
    if kind is Masking:
        return Masking(float(layer.mask_value))
    return Activation(_activation(layer, "activation"))


def _spec_of_twin(layer: Any, twin: Twin) -> Spec:
    """Return the spec of a layer whose options stand in a table."""
    for argument, value in twin.only.items():
        if getattr(layer, argument) != value:
            why = f"A port knows {argument}={value!r} alone."
            raise _refusal(layer, argument, getattr(layer, argument), why, "Use that, or do it around the port.")
    options = {option: getattr(layer, argument) for option, argument in twin.arguments.items()}
    options |= {option: options[option][0] for option in ALONE if isinstance(options.get(option), tuple)}
    options |= {option: value.item() for option, value in options.items() if isinstance(value, np.generic)}
    if "activation" in options:
        options["activation"] = _activation(layer, "activation")
    if "features" in twin.kind.__dataclass_fields__:
        _check_built(layer)
        shape = layer._build_shapes_dict["input_shape"]
        axes = np.atleast_1d(getattr(layer, "axis", -1))
        if [int(axis) % len(shape) for axis in axes] != [len(shape) - 1]:
            why = "It normalises along other axes than the last, which is where features lie in a sequence."
            raise _refusal(layer, "axis", layer.axis, why, "Use axis=-1, or do it around the port.")
        options["features"] = int(shape[-1])
    return twin.kind(**options, **twin.fixed)


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
        raise _refusal(layer, "cell", type(cell).__name__, f"Cells that are supported: {known}.", way_out)
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
            raise _refusal(layer, "layer", type(one).__name__, why, "Leave it out.")


def _is_alike(layer: Any) -> bool:
    """Say whether both directions of a layer compute alike, so that they are one layer of a network."""
    _check_directions(layer)
    forward, backward = layer.forward_layer, layer.backward_layer
    if any(is_stack(one) or one.activity_regularizer is not None for one in (forward, backward)):
        return False
    spec, other = _spec_of(forward), _spec_of(backward)
    turned = spec.replace(go_backwards=not spec.options()["go_backwards"])
    return other == turned and [*_all_rules(forward)] == [*_all_rules(backward)]


def _bidirectional(layer: Any) -> Spec:
    spec = _spec_of(layer.forward_layer)
    assert isinstance(spec, Recurrent)
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
    known = *CLASSES.values(), *SAME, *TWINS, *JOINS.values(), "RNN", "Bidirectional", "TimeDistributed"
    return UnsupportedModelError(
        f"Layer {name!r} is a {kind}, which is not supported.",
        f"Supported: {', '.join(known)}.",
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
    if getattr(layer, "quantization_mode", None) is not None:
        why = "Its weights are whole numbers with a scale, and its inputs are rounded to such at every call."
        raise _refusal(layer, "quantization", layer.quantization_mode, why, "Port the model before it is quantised.")
    if policy.variable_dtype not in ("float64", "float32", *HALVES):
        why = "Weights of float64, float32, float16 and bfloat16 are supported."
        raise _refusal(layer, "dtype", policy.name, why, "Build the model with dtype='float32' and set its weights.")


HALVES = ("float16", "bfloat16")
"""Types that a layer may compute in, and perhaps keep its weights in; a port has float32."""


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
        yield from _all_rules(layer.forward_layer)
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


def _activity_rule(layer: Any) -> Rule | None:
    """Return the penalty on what a layer gives; None where it has no name elsewhere."""
    import keras

    met = layer.activity_regularizer
    name = type(met).__name__
    known = getattr(keras.regularizers, name, None) is type(met)
    return Rule("activity", "output", name, _settings(met)) if known else None


def _settings(met: Any) -> tuple[tuple[str, Any], ...]:
    settings = sorted(met.get_config().items())
    return tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in settings)


def remarks(obj: Any) -> list[str]:
    """Return what a port leaves behind, a sentence each: options that act in training alone."""
    import keras

    said = []
    parts = obj._flatten_layers(recursive=isinstance(obj, keras.Model)) if isinstance(obj, keras.layers.Layer) else []
    policies = sorted({layer.dtype_policy.name for layer in parts if layer.dtype_policy.compute_dtype in HALVES})
    if policies:
        said.append(f"{', '.join(policies)}: the port keeps its weights in float32, and computes in float32.")
    for layer in parts:
        if getattr(layer, "lora_enabled", False):
            word = "its low-rank kernel is merged into the other, which is frozen, as it was"
            said.append(f"{layer.name}: lora_rank={layer.lora_rank}: {word}.")
        for told in _all_rules(layer):
            if isinstance(told, str):
                said.append(f"{layer.name}: {told} acts in training alone and is not carried over.")
        if is_cell(layer) and layer.activity_regularizer is not None:
            told = type(layer.activity_regularizer).__name__
            said.append(f"{layer.name}: activity_regularizer={told} of a cell is not carried over.")
    if isinstance(obj, keras.Model):
        graph = _Graph(obj)
        graph.network()
        said += graph.left
    elif not is_cell(obj):
        said += _laid(obj).left
    return list(dict.fromkeys(said))


def natives(obj: Any) -> dict[str, Any]:
    """Return the layers of an object by the names that ``describe`` gives them."""
    import keras

    if not isinstance(obj, keras.Model):
        return parts(obj)
    graph = _Graph(obj)
    graph.network()
    return graph.natives
