"""Describes Keras objects as networks. Keras is imported by each function when it is called."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.core.between import FUNCTIONS, Constant, Dot, Flip, Input, Masking, Merge, Operation, Softmax
from gatewise.core.network import LEFT_STATES, Layer, Network, source_of
from gatewise.core.spec import Attending, Dense, Embedding, Norm, Recurrent, Spec, outputs_of
from gatewise.core.tree import Tree
from gatewise.errors import UnsupportedModelError
from gatewise_keras.laying import Laying, laid, parts, specs_of
from gatewise_keras.operations import ORDERS, operation_of
from gatewise_keras.reading import (
    GENERAL,
    HALVES,
    JOINS,
    TOLD,
    all_rules,
    cell_spec,
    check_masking,
    is_cell,
    is_ours,
    kind_of,
    refusal,
    rules,
    spec_of,
    state_count,
)

STATES = ("h_n", "c_n")
"""Names of the outputs that hold the states of a stack."""


def describe(obj: Any) -> Network:
    """Return what a layer or model is, in neutral terms.

    Raises:
        UnsupportedModelError: A layer or option is not supported; both are named.
    """
    if isinstance(obj, Mapping):
        return describe(_from_config(obj))
    try:
        network = _network_of(obj)
    except RecursionError:
        raise UnsupportedModelError(
            f"Model {obj.name!r} holds models that lie too deep in each other.",
            f"Python follows about {sys.getrecursionlimit() // 6} of them.",
            "Put their layers into one model, or raise the limit with sys.setrecursionlimit.",
        ) from None
    if getattr(obj, "trainable", True):
        return network
    # Nothing of it is trained, whatever the layers within say of themselves.
    layers = tuple(dataclasses.replace(layer, trainable=False) for layer in network.layers)
    return dataclasses.replace(network, layers=layers)


def _network_of(obj: Any) -> Network:
    import keras

    if not isinstance(obj, keras.Model):
        if not isinstance(obj, keras.layers.Layer):
            raise UnsupportedModelError(
                f"{type(obj).__name__} is no Keras layer or model.", "Expected a keras.Layer.", "Give the model itself."
            )
        if is_cell(obj):
            return _cell_network(obj)
        laying = laid(obj)
        first = next((layer for layer in laying.layers if layer.spec.cell), laying.layers[0])
        if isinstance(first.spec, Attending):
            why = "It reads several sequences, and a layer alone has one input."
            raise UnsupportedModelError(
                f"Layer {obj.name!r} ({type(obj).__name__}) cannot be read alone.",
                why,
                "Port keras.Model([query, value], layer([query, value])).",
            )
        stateful = isinstance(first.spec, Recurrent) and first.spec.stateful
        batch = _batch_of(next(iter(laying.natives.values()))) if stateful else None
        source = alone(first.spec, obj.name, batch=batch).layers[0]
        shape = source.spec.options()["shape"]
        built = len(obj._build_shapes_dict.get("input_shape") or ())
        if isinstance(first.spec, Dense | Norm) and built == 2:
            shape = shape[1:]
        elif isinstance(first.spec, Norm) and built - first.distributed > 3:
            shape = (None,) * (built - first.distributed - 2) + shape[-1:]
        shape = (None,) * first.distributed + shape
        return Network((Layer(source.name, source.spec.replace(shape=shape)), *laying.layers), laying.outputs)
    return _Graph(obj).network()


def _cell_network(cell: Any) -> Network:
    """Return the network of a bare cell: one step, from the input and the states to the output and the states."""
    spec = cell_spec(cell, cell, {"return_sequences": False})
    met = next((option for option in GENERAL if spec.options().get(option)), None)
    if met or spec.dropout or spec.recurrent_dropout:
        option = met or ("dropout" if spec.dropout else "recurrent_dropout")
        why = "A bare cell goes to a bare cell, and those of other frameworks have none."
        raise refusal(cell, option, spec.options()[option], why, "Put it into keras.layers.RNN and port that layer.")
    source = "input" if cell.name != "input" else "input_1"
    layer = Layer(cell.name, spec, (source,), bool(cell.trainable), rules=rules(cell), step=True)
    return Network((Layer(source, Input((spec.features,))), layer))


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
        return keras.saving.deserialize_keras_object(_with_modules(config), safe_mode=True)
    except Exception as error:  # Keras raises whatever the layers' constructors and builds raise.
        # The cause stands last, behind a config for each layer around it; what is wrong, in front of the config.
        cause = re.split(r"Exception encountered: (?=.)", str(error).strip())[-1]
        first = re.split(r"\n| Full object config| Received: |: \{", cause)[0][:300] or type(error).__name__
        raise UnsupportedModelError(
            f"Keras cannot build this config: {first}",
            "Expected a config of a Keras layer or model.",
            "Build it in Keras first, to see where it fails.",
        ) from error


def _with_modules(config: Any) -> Any:
    """Return a copy of a config in which every class of Keras's has its module, as Keras itself writes it."""
    import keras

    if isinstance(config, list | tuple):
        return [_with_modules(each) for each in config]
    if not isinstance(config, Mapping):
        return config
    made = {key: _with_modules(value) for key, value in config.items()}
    if isinstance(made.get("class_name"), str) and "config" in made and "module" not in made:
        if made["class_name"] == "Functional":
            return {**made, "module": "keras.src.models.functional", "registered_name": "Functional"}
        for module, home in (("keras.layers", keras.layers), ("keras", keras)):
            if hasattr(home, made["class_name"]):
                return {**made, "module": module, "registered_name": None}
    return made


def alone(spec: Spec, name: str = "layer", trainable: bool = True, batch: int | None = None) -> Network:
    """Return the network of one layer and its input."""
    shape: tuple[int | None, ...] = (None,)
    if not isinstance(spec, Embedding):
        width = spec.options().get("features")
        shape = (None,) * getattr(spec, "axes", 1) + ((width,) if width else ())
    source = "input" if name != "input" else "input_1"
    layers = (
        Layer(source, Input(shape, integer=isinstance(spec, Embedding), batch=batch)),
        Layer(name, spec, (source,), trainable),
    )
    return Network(layers)


DEEP = 100
"""Layers from which on a graph is gone through from its inputs, and not from its outputs."""


class _Graph(Laying):
    """A Functional or Sequential model, read from its outputs back to its inputs."""

    def __init__(self, model: Any) -> None:
        masks = any(
            kind_of(layer) is Masking
            or getattr(layer, "mask_zero", False)
            or getattr(layer, "dtype", "") == "bool"
            or any(not hasattr(node.operation, "_flatten_layers") for node in executed(layer))
            for layer in model._flatten_layers()
        )
        super().__init__({layer.name for layer in model.layers}, masks=masks)
        self.model = self._running = model  # … and the model within it that is being read
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
            if is_side_by_side(tensor):
                states.append(_rows(tensor))
            else:
                flat.append(tensor)
        flat += [state for row in zip(*states, strict=True) for state in row]
        scope: _Scope = {}
        for tensor in self.inputs:
            self.visit(tensor, scope)
        self.visit_keeping(self.model, scope)
        nodes = executed(self.model)
        for node in nodes if len(nodes) > DEEP else ():  # Each after those it reads, so that no visit goes deep.
            self.visit(node.outputs[0], scope)
        outputs = tuple(self.visit(tensor, scope) for tensor in flat)
        # An Embedding behind other layers' names, such as in a model within this one, is fed by a float Input, too.
        tokens = {source_of(layer.inputs[0])[0] for layer in self.layers.values() if isinstance(layer.spec, Embedding)}
        for name in tokens:
            there = self.layers[name]
            if isinstance(there.spec, Input):
                self.layers[name] = dataclasses.replace(there, spec=there.spec.replace(integer=True))
        self._leave_out(Network(tuple(self.layers.values()), outputs).live)
        takes = _tree_of(getattr(self.model, "_inputs_struct", None))
        made = getattr(self.model, "_outputs_struct", None)
        # A call of a model whose outputs are a list of one gives that one.
        gives = _tree_of(made[0] if isinstance(made, list | tuple) and len(made) == 1 else made) if not states else None
        return Network(tuple(self.layers.values()), outputs, takes, gives)

    def _leave_out(self, live: set[str]) -> None:
        """Leave out what nothing that comes out needs: behind outputs of a model within this one that nobody reads."""
        shared = {layer.shares for name, layer in self.layers.items() if name in live}
        for name in [name for name in self.layers if name not in live | shared]:
            if self.natives.pop(name, None) is not None and self.layers[name].spec.cell:
                self.left.append(f"{name}: nothing that comes out of the model needs it, and it is left out.")
            del self.layers[name]

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
        if is_ours(operation, "After"):
            [sources], _ = _by_name(operation, operation._inbound_nodes[node].arguments)
            read = [self.visit(source, scope) for source in sources]
            scope[use] = read[:1]
            return read[0]
        if _is_attention(operation):
            scope[use] = self.attend(operation, operation._inbound_nodes[node].arguments, scope)
            return str(scope[use][index])
        arguments = operation._inbound_nodes[node].arguments
        self.leave_training(operation, _by_name(operation, arguments)[1].get("training"))
        sources, states, place = self.read(operation, arguments)
        reads = [self.visit(source, scope) for source in sources]
        first = [
            self.visit(state, scope) if isinstance(state, keras.KerasTensor) else self.constant(operation, state)
            for state in states
        ]
        if "mask" in place:
            if isinstance(operation, keras.layers.Softmax):
                self._check_mask_of(operation, tensor, len(place["mask"].shape))
            place["mask"] = self.visit(place["mask"], scope)
            if isinstance(operation, keras.Model | keras.layers.TimeDistributed):
                if isinstance(operation, keras.Model) and _is_read_elsewhere(self._running, sources[0]):
                    why = "Keras leaves the mask on what the model reads, and what else reads it may follow it."
                    raise refusal(operation, "mask", "by hand", why, "Mask within the model, or give it a copy, x * 1.")
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

    def leave_training(self, operation: Any, told: Any) -> None:
        """Note that one use of a layer was told to run as in training.

        Keras follows it only where the model itself is told nothing, and ``fit`` and ``predict`` always tell it.
        """
        if told:
            self.left.append(
                f"{operation.name}: training={told} in its call is not carried over; Keras follows it in model(x), not "
                "in predict or fit. In the port, .train() on what drops or normalises does it."
            )

    def attend(self, operation: Any, arguments: Any, scope: _Scope) -> list[str]:
        """Add an attention; a mask that it is given by hand goes on what it belongs to. Return all that it gives."""
        import keras

        read, told = _by_name(operation, arguments)
        sources: list[Any] = read[0]
        self.leave_training(operation, told.get("training"))
        if not all(isinstance(each, keras.KerasTensor) and len(each.shape) == 3 for each in sources):
            shapes = [tuple(getattr(each, "shape", ())) for each in sources]
            why = "Query, value and key are tensors of the model with 3 axes, (batch, timesteps, features)."
            raise refusal(operation, "inputs", shapes, why, "One step is a sequence, too: give it that axis.")
        _check_mask_axes(operation, sources)
        check_masking(operation, passes=True)
        reads = [self.visit(source, scope) for source in sources]
        axes = {"distributed": len(self._axes)} if self._axes else {}
        automatic = [getattr(source, "_keras_mask", None) for source in sources]
        masks: Any = told.get("mask") if told.get("mask") is not None else automatic
        for place, (mask, known) in enumerate(zip(masks[:2], automatic, strict=False)):
            if _is_same(mask, known):
                continue
            if mask is None:  # The mask of what it reads is not followed.
                there = self.free(f"{operation.name}_unmasked")
                reads[place] = self.add(there, Operation("multiply", (None, 1)), reads[place : place + 1], **axes)
            elif _is_mask(mask, 2):
                there, by = self.free(f"{operation.name}_masked"), self.visit(mask, scope)
                same = Flip(values=False, mask=False)
                reads[place] = self.add(there, same, reads[place : place + 1], mask=by, **axes)
            else:
                why = "Such a mask is a tensor of the model with a number for each step, or None."
                raise refusal(operation, "mask", "by hand", why, "Give [query_mask, value_mask].")
        spec = spec_of(operation).replace(**{option: bool(told.get(name)) for option, name in TOLD.items()})
        name = self.add(self.free(operation.name, own=id(operation) in self._own), spec, reads, operation, **axes)
        outputs = [f"{name}:{number}" if number else name for number in range(len(outputs_of(spec)))]
        if operation.activity_regularizer is not None:
            self.penalise(operation, outputs)
        return outputs

    def _check_mask_of(self, operation: Any, tensor: Any, axes: int) -> None:
        """Refuse a mask of a softmax that is no mask of steps where it goes on to a layer that would follow it."""
        readers = [
            node.operation for node in executed(self._running) if any(each is tensor for each in _flat_arguments(node))
        ]
        follow = [each.name for each in readers if getattr(each, "supports_masking", False) and not _is_dot(each)]
        if axes > 2 and follow:
            why = f"Keras hands it on to {follow[0]!r}, which takes a mask to have an entry for each step."
            raise refusal(operation, "mask", f"of {axes} axes", why, "Go on with keras.ops or Dot, or x * 1.")

    def operate(self, operation: Any, arguments: Sequence[Any], scope: _Scope) -> str:
        """Add what one operation of ``keras.ops`` is; return it as a reference."""
        import keras

        spec = operation_of(operation, arguments)
        if spec is None:
            kind = type(operation).__name__
            raise UnsupportedModelError(
                f"The operation {operation.name!r} ({kind}) is not supported, or not as it is.",
                f"Those of keras.ops that are: {', '.join((*FUNCTIONS, *ORDERS))}; none of them along the batch.",
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
            raise refusal(
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
        _check_mask_axes(operation, sources)
        if _is_join(operation):
            check_masking(operation, passes=True)
            merge = _merge_of(operation, len(sources[0].shape))
            place["masked"] = not is_ours(operation, "Product")
            merged = [self.add(name, merge, reads, **place)]
            if operation.activity_regularizer is not None:
                self.penalise(operation, merged)
            return merged
        if _is_dot(operation):
            dotted = [self.add(name, _dot_of(operation, [len(source.shape) for source in sources]), reads, **place)]
            if operation.activity_regularizer is not None:
                self.penalise(operation, dotted)
            return dotted
        self._shape = sources[0].shape
        before = len(self.layers)
        outputs = self.lay(operation, name, reads[0], states, **place)
        for there in list(self.layers.values())[before:]:
            steps = (*self._axes, *sources[0].shape[1 : 1 + there.distributed - len(self._axes)])
            if there.spec.options().get("stateful") and None in steps:
                why = "Its states go on from one outer step to the next, and Keras runs a number not known at once."
                raise refusal(operation, "stateful", True, why, "Give the Input the number of outer steps.")
            rank = len(sources[0].shape) - there.distributed + len(self._axes)
            if isinstance(there.spec, Softmax) and any(axis % rank == 0 for axis in there.spec.axis):
                why = "It shares out the batch."
                raise refusal(operation, "axis", list(there.spec.axis), why, "Give another axis.")
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
        return self.ended(made, name, above, there, axes)

    def within(self, model: Any, reads: list[str]) -> list[str]:
        """Add what a model within this one becomes, its layers between those around it."""
        import keras

        graph, scope = _Graph(model), {}
        around, self._running = self._running, model
        for tensor, reference in zip(graph.inputs, reads, strict=True):
            operation, node, _ = tensor._keras_history
            scope[id(operation), node] = [reference]
        self.visit_keeping(model, scope)
        made = [self.visit(tensor, scope) for tensor in keras.tree.flatten(graph.outputs)]
        self._running = around
        return made

    def read(self, operation: Any, arguments: Any) -> tuple[list[Any], list[Any], dict[str, Any]]:
        """Return the tensors that one use of a layer reads, its first states, and what is so for its layers.

        A mask that Keras passes on by itself is neither.
        """
        import keras

        positional, told = _by_name(operation, arguments)
        if not positional:
            return [], [], {}
        there = {name: keras.tree.flatten(value) for name, value in told.items()}
        given = {name: told[name] for name, parts in there.items() if any(x is not None for x in parts)}
        mask, first = given.get("mask"), keras.tree.flatten(given.get("initial_state", []))
        automatic = keras.tree.map_structure(lambda tensor: getattr(tensor, "_keras_mask", None), positional[0])
        sources: list[Any] = keras.tree.flatten(positional) + first
        recurrent = isinstance(operation, keras.layers.RNN | keras.layers.Bidirectional)
        several = isinstance(operation, keras.Model) or _is_join(operation) or _is_dot(operation)
        by_hand = mask is not None and not _is_same(mask, automatic)
        what = ""
        rank = 2 if recurrent or not sources else len(sources[0].shape) - 1
        if isinstance(operation, keras.layers.Softmax):
            rank += 1
        if by_hand and (several and len(sources) > 1):
            what = "masks that are given by hand"
        elif by_hand and not _is_mask(mask, rank):
            what = "a mask that is no tensor of the model with a number for each step"
        elif isinstance(operation, keras.layers.Softmax) and getattr(mask, "dtype", "bool") != "bool":
            what = "a mask of numbers, of which those above a half count"
        elif not all(isinstance(source, keras.KerasTensor) for source in sources[: 1 if recurrent else None]):
            what = "a constant"
        elif recurrent and len(sources) > 1:
            expected = sum(map(state_count, specs_of(operation)))
            what = f"{len(sources) - 1} initial states and has {expected}" if len(sources) - 1 != expected else ""
        elif len(sources) > 1 and not several:
            what = f"{len(sources)} tensors"
        if what:
            specs_of(operation)  # where the class itself is unsupported, that is what has to be said
            raise UnsupportedModelError(
                f"Layer {operation.name!r} ({type(operation).__name__}) reads {what}, which is not supported.",
                "A layer reads one tensor; a recurrent layer reads initial states and a mask, too.",
                "Feed it such tensors, or run this layer outside the model that is ported.",
            )
        # Keras hands a mask on by itself only to a layer that is called on one tensor and nothing else.
        place: dict[str, Any] = {"masked": not recurrent or len(sources) == 1 or mask is not None}
        if by_hand:
            place["mask"] = mask
        return (sources[:1], sources[1:], place) if recurrent else (sources, [], place)

    def input_of(self, layer: Any) -> Input:
        import keras

        if not layer.batch_shape:
            raise refusal(layer, "batch_shape", layer.batch_shape, "It has no axis for the batch.", "Give one: None.")
        batch, *shape = layer.batch_shape
        kind = keras.backend.standardize_dtype(layer.dtype)
        # What reads the input decides whether it holds tokens: an Embedding is often fed by a float Input.
        readers = [node.operation for node in layer._outbound_nodes]
        integer = "int" in kind or any(isinstance(reader, keras.layers.Embedding) for reader in readers)
        return Input(tuple(shape), integer=integer, batch=batch, boolean=kind == "bool")


def _tree_of(structure: Any) -> Tree | None:
    """Return how Keras packs the tensors of a model, in its order; None for one, and for several side by side."""
    import keras

    flat = keras.tree.flatten(structure)
    if len(flat) == 1 and structure is flat[0]:
        return None
    # A layer that returns its states makes a tuple of what a model lists: unpacked they are the same.
    if isinstance(structure, list | tuple) and len(structure) == len(flat) > 1:
        return None
    return _as_tree(keras.tree.pack_sequence_as(structure, list(range(len(flat)))))


def _as_tree(packed: Any) -> Tree:
    if isinstance(packed, Mapping):
        return ("dict", *((str(name), _as_tree(each)) for name, each in packed.items()))
    if isinstance(packed, list | tuple):
        return ("tuple" if isinstance(packed, tuple) else "list", *map(_as_tree, packed))
    return int(packed)


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


def executed(model: Any) -> list[Any]:
    """Return the uses of layers and operations in a model, in the order in which Keras runs them; else nothing."""
    there = getattr(getattr(model, "_functional", model), "_nodes_by_depth", {})
    return [node for depth in sorted(there, reverse=True) for node in there[depth]]


def _is_read_elsewhere(model: Any, tensor: Any) -> bool:
    """Say whether several uses in a model read a tensor, or what it is the same as when the model runs."""
    nodes = executed(model)
    while True:
        if sum(any(each is tensor for each in _flat_arguments(node)) for node in nodes) > 1:
            return True
        operation, node, _ = tensor._keras_history
        if type(operation).__name__ not in (
            "Identity",
            "Dropout",
            "SpatialDropout1D",
            "SpatialDropout2D",
            "ActivityRegularization",
        ):
            return False
        tensor = _flat_arguments(operation._inbound_nodes[node])[0]


def _flat_arguments(node: Any) -> list[Any]:
    """Return all that one use of a layer is given, by position and by name."""
    import keras

    flat: list[Any] = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    return flat


def _check_mask_axes(operation: Any, sources: Sequence[Any]) -> None:
    """Refuse masks that have other axes than the layer that follows them takes.

    Behind TimeDistributed a mask may have as many axes as its tensor, (batch, words, characters) for (batch, words,
    features). Keras then fails, or where sizes happen to agree takes characters for features; only Concatenate along
    the features makes a mask of words of it.
    """
    import keras

    masks = [(mask, source) for source in sources if (mask := getattr(source, "_keras_mask", None)) is not None]
    ranks = [(len(mask.shape), len(source.shape)) for mask, source in masks]
    pools = keras.layers.GlobalAveragePooling1D
    follows = isinstance(
        operation,
        keras.layers.RNN
        | keras.layers.Bidirectional
        | keras.layers.BatchNormalization
        | keras.layers.Attention
        | pools,
    )
    if _is_join(operation):
        concatenates = isinstance(operation, keras.layers.Concatenate)
        featurewise = concatenates and operation.axis in (-1, len(sources[0].shape) - 1)
        # A sum hands its masks on alone; a product and a maximum follow them, and Concatenate lays them end to end.
        hands_on = _is_sum(operation) or featurewise
        wrong = not hands_on and any(mask >= value for mask, value in ranks)
        wrong = wrong or (not featurewise and len({mask for mask, _ in ranks}) > 1)
    else:
        wrong = follows and any(mask >= value for mask, value in ranks)
    if wrong:
        shapes = [tuple(mask.shape) for mask, _ in masks]
        why = f"It follows masks of shapes {', '.join(map(str, shapes))}, and takes one number for each step."
        raise refusal(operation, "mask", "of other axes than its steps", why, "End the mask before it, by x * 1 say.")


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


def _by_name(operation: Any, arguments: Any) -> tuple[list[Any], dict[str, Any]]:
    """Return what one use of a layer reads, however it was named, and what else it is told by name: a mask, a mode."""
    bound = inspect.signature(operation.call).bind_partial(*arguments.args, **arguments.kwargs)
    read: list[Any] = []
    told: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            told |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            read += value
        elif name in CALL_OPTIONS:
            told[name] = value
        else:
            read.append(value)
    return read, told


def is_side_by_side(tensor: Any) -> bool:
    """Say whether an output holds states of a stack side by side, as ``assemble`` makes them."""
    import keras

    operation = tensor._keras_history.operation
    made = isinstance(operation, keras.layers.Concatenate | keras.layers.Identity)
    return operation.name in STATES and made and len(tensor.shape) == 3


def _is_plain(name: str, value: Any) -> bool:
    return not name.startswith("_") and name != "name" and isinstance(value, int | float | str | tuple | list | None)


def _is_sum(layer: Any) -> bool:
    """Say whether a layer adds up what it merges, or subtracts it."""
    import keras

    return isinstance(layer, keras.layers.Add | keras.layers.Average | keras.layers.Subtract)


def _is_join(layer: Any) -> bool:
    """Say whether a layer makes one tensor of several."""
    import keras

    known = type(layer).__name__ in JOINS.values() and isinstance(layer, keras.layers.Layer)
    return known or is_ours(layer, "Product")


CALL_OPTIONS = ("mask", "initial_state", "training", *TOLD.values())
"""Arguments of a call of a layer that are not what it reads."""


def _is_attention(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.layers.Attention)


def _is_dot(layer: Any) -> bool:
    import keras

    return type(layer) is keras.layers.Dot


def _dot_of(layer: Any, ranks: Sequence[int]) -> Dot:
    """Return the spec of a dot product of two tensors, of so many axes each."""
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else layer.axes
    one, other = (int(axis) % rank for axis, rank in zip(axes, ranks, strict=True))
    return Dot((one, other), normalize=bool(layer.normalize))


def _merge_of(layer: Any, rank: int) -> Merge:
    """Return the spec of a layer that makes one tensor of several, of so many axes each."""
    word = next((word for word, name in JOINS.items() if name == type(layer).__name__), "mul")
    if word != "concat":
        return Merge(word)
    axis = layer.axis % rank
    if not axis:
        raise refusal(layer, "axis", layer.axis, "It lays the batches end to end.", "Give another axis.")
    return Merge(axis=-1 if axis == rank - 1 else axis)


def _rows(tensor: Any) -> list[Any]:
    """Return the states that a tensor of ``assemble`` has side by side, before they were reshaped."""

    def sources(each: Any) -> list[Any]:
        operation, node, _ = each._keras_history
        return list(operation._inbound_nodes[node].input_tensors)

    return [sources(row)[0] for row in sources(tensor)]


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
        for told in all_rules(layer):
            if isinstance(told, str):
                said.append(f"{layer.name}: {told} acts in training alone and is not carried over.")
        kept = keras.tree.flatten(getattr(layer, "states", None)) if getattr(layer, "stateful", False) else []
        if any(bool(keras.ops.any(state != 0)) for state in kept if state is not None):
            said.append(f"{layer.name}: {LEFT_STATES}")
        if is_cell(layer) and layer.activity_regularizer is not None:
            told = type(layer.activity_regularizer).__name__
            said.append(f"{layer.name}: activity_regularizer={told} of a cell is not carried over.")
    if isinstance(obj, keras.Model):
        graph = _Graph(obj)
        graph.network()
        said += graph.left
    elif not is_cell(obj):
        said += laid(obj).left
    return list(dict.fromkeys(said))


def natives(obj: Any) -> dict[str, Any]:
    """Return the layers of an object by the names that ``describe`` gives them."""
    import keras

    if not isinstance(obj, keras.Model):
        return parts(obj)
    graph = _Graph(obj)
    graph.network()
    return graph.natives
