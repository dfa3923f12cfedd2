"""Builds a Functional model of Keras for a network. Keras is imported by each function when it is called."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gatewise.core.between import Constant, Dot, Input, Merge, Operation, Remask
from gatewise.core.network import Layer, Network, Rule, source_of
from gatewise.core.spec import RUN, Attending, Recurrent, Spec, outputs_of
from gatewise.core.tree import pack
from gatewise.errors import UnsupportedModelError
from gatewise_keras.building import make, make_cell
from gatewise_keras.describing import executed
from gatewise_keras.laying import needs_model
from gatewise_keras.operations import operated
from gatewise_keras.reading import TOLD, state_count


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

    if form in ("layer", "cell"):
        return _alone(network, dtype, form)
    assembly = _Assembly(network, dtype, ordered)
    tensors = assembly.run(network.layers, {})
    outputs = [tensors[name][number] for name, number in map(source_of, network.results)]
    structure: Any = outputs[0] if len(outputs) == 1 else outputs
    if network.gives is not None:
        structure = pack(network.gives, outputs)
    kinds = [outputs_of(network[name].spec)[number] for name, number in map(source_of, network.results)]
    front = sum("state_" not in kind for kind in kinds)
    last = source_of(network.results[0])[0]
    if form == "stack" and front < len(outputs):
        structure = _stacked(network[last].spec, outputs[:front], outputs[front:], dtype)
    inputs: Any = assembly.inputs[0] if len(assembly.inputs) == 1 else assembly.inputs
    model = keras.Model(inputs if network.takes is None else pack(network.takes, assembly.inputs), structure)
    models = [*assembly.within, (model, assembly.used)]
    if not ordered and not all(_is_ordered(one, uses) for one, used in models for uses in used.values()):
        return assemble(network, dtype=dtype, form=form, ordered=True)
    return model, {name: native for name, native in assembly.made.items() if not network[name].shares}


Tensors = dict[str, list[Any]]
"""Layer → what it gives."""


class _Assembly:
    """Builds the layers of a network one after the other.

    Attributes:
        inputs: The model's inputs.
        made: Layer → its native.
        used: Keeper of states → what each use of it gives, in the model that is being built.
        within: The models that run on each step of a time axis, each with its ``used``.
    """

    def __init__(self, network: Network, dtype: str, ordered: bool) -> None:
        self.network, self.dtype, self.ordered = network, dtype, ordered
        self.inputs: list[Any] = []
        self.made: dict[str, Any] = {}
        self.used: dict[str, list[Any]] = {}
        self.within: list[tuple[Any, dict[str, list[Any]]]] = []
        self._batch = next((layer.spec.batch for layer in network.layers if isinstance(layer.spec, Input)), None)
        # Remask → the model of several layers in front of it; a single layer goes into TimeDistributed by itself.
        inner = {layer.name: network.within(layer.name) for layer in network.layers if isinstance(layer.spec, Remask)}
        self._models = {end: layers for end, layers in inner.items() if not _goes_alone(layers)}
        self._live = network.live

    def run(self, layers: Iterable[Layer], tensors: Tensors, axes: int = 0) -> Tensors:
        """Build layers; return what they give.

        Args:
            layers: Each behind those it reads.
            tensors: What there is already.
            axes: The time axes on whose steps the model runs that they belong to.
        """
        layers = list(layers)
        within = {one.name for layer in layers for one in self._models.get(layer.name, ()) if one is not layer}
        for layer in layers:
            if layer.name in self._live and layer.name not in within:
                tensors[layer.name] = self._add(layer, tensors, axes)
            elif layer.name not in self._live and layer.spec.cell and not layer.shares:
                self.made[layer.name] = self._native(layer, None, axes)  # It has weights, and stands in no model.
        return tensors

    def _add(self, layer: Layer, tensors: Tensors, axes: int) -> list[Any]:
        import keras

        spec, dtype = layer.spec, self.dtype
        if isinstance(spec, Input):
            kind = "int32" if spec.integer else "bool" if spec.boolean else dtype
            self.inputs.append(keras.Input(spec.shape, batch_size=spec.batch, dtype=kind, name=layer.name))
            return self.inputs[-1:]
        if isinstance(spec, Constant):
            return [np.asarray(spec.values, dtype)]
        if layer.name in self._models:
            return self._distribute(layer, tensors, axes)
        source, *first = [tensors[name][number] for name, number in map(source_of, layer.inputs)]
        if isinstance(spec, Operation):
            return [operated(spec, [source, *first], dtype)]
        if isinstance(spec, Merge):
            own = spec.axis if spec.axis < 0 else layer.axis - axes
            return [_joined(layer, dataclasses.replace(spec, axis=own), [source, *first], dtype)]
        if isinstance(spec, Dot | Attending):
            return self._on_several(layer, [source, *first])
        if isinstance(spec, Remask):
            return [source]  # TimeDistributed hands on the mask that came to it
        if layer.resumes:
            source = self._behind(source, layer.keeper)
        given: dict[str, Any] = {"initial_state": first} if first else {}
        if layer.mask:
            name, number = source_of(layer.mask)
            given["mask"] = tensors[name][number]
        elif first and layer.masked and getattr(source, "_keras_mask", None) is not None:
            given["mask"] = source._keras_mask
        if isinstance(spec, Recurrent) and spec.layers > 1:
            chain = self.made.get(layer.shares)
            self.made[layer.name], stacked = _stack(layer, source, first, dtype, self._batch, chain)
            return stacked
        native = self.made[layer.name] = self._native(layer, source, axes)
        outputs: list[Any] = keras.tree.flatten(self._on_steps(native, layer, axes)(source, **given))
        self.used.setdefault(layer.keeper, []).append(outputs[0])
        _regularise_some(outputs, layer, dtype)
        return outputs

    def _on_several(self, layer: Layer, read: list[Any]) -> list[Any]:
        """Add a layer that reads several tensors, and what it is told when it is called."""
        import keras

        native = self.made[layer.name] = self._native(layer, read[0], layer.distributed)
        _regularise(native, layer.rules)
        options = layer.spec.options()
        told = {argument: True for option, argument in TOLD.items() if options.get(option)}
        outputs: list[Any] = keras.tree.flatten(native(read, **told))
        _regularise_some(outputs, layer, self.dtype)
        return outputs

    def _native(self, layer: Layer, source: Any, axes: int) -> Any:
        """Return the Keras layer that runs a layer on a tensor, or on none: one of its own, or the one it shares."""
        if layer.resumes:
            return self.made[layer.resumes]
        if layer.shares:
            native, stateful = self.made[layer.shares], layer.spec.options().get("stateful")
            if isinstance(layer.spec, Attending):
                return native  # Its uses differ in what they are told.
            if stateful or layer.spec != self.network[layer.shares].spec:
                return _same_cell(native, layer, self.dtype)
            return native
        shape = None if source is None else (source.shape[0], *source.shape[1 + layer.distributed - axes :])
        name = None if layer.distributed > axes else layer.name
        native = make(layer.spec, name, self.dtype, layer.rules, self._batch, shape)
        native.trainable = layer.trainable
        return native

    def _on_steps(self, native: Any, layer: Layer, axes: int) -> Any:
        """Wrap a native for each time axis on whose steps it runs, beyond those of the model that it belongs to."""
        import keras

        for number in range(axes, layer.distributed):
            outermost = number == layer.distributed - 1
            native = keras.layers.TimeDistributed(native, name=layer.name if outermost else None, dtype=self.dtype)
        _regularise(native, layer.rules)
        return native

    def _distribute(self, end: Layer, tensors: Tensors, axes: int) -> list[Any]:
        """Build the layers in front of a Remask as a model that runs on each step of a time axis."""
        import keras

        inner, (exit_, entry) = self._models[end.name], end.inputs
        name, number = source_of(entry)
        source, within = tensors[name][number], end.distributed + 1
        step = keras.Input(source.shape[2 + end.distributed - axes :], batch_size=source.shape[0], dtype=source.dtype)
        around, self.used = self.used, {}
        made = self.run(inner, {name: [step] * (1 + number)}, within)
        front, number = source_of(exit_)
        native: Any = keras.Model(step, made[front][number])
        self.within.append((native, self.used))
        self.used = around
        keepers = dict.fromkeys(layer.keeper for layer in inner if layer.keeps)
        for keeper in keepers:
            source = self._behind(source, keeper)
        outputs = [self._on_steps(native, dataclasses.replace(end, distributed=within), axes)(source)]
        for keeper in keepers:
            self.used.setdefault(keeper, []).append(outputs[0])
        return outputs

    def _behind(self, source: Any, keeper: str) -> Any:
        """Return a tensor that is there only once the states before it are, where the order must be said."""
        if not self.ordered or keeper not in self.used:
            return source
        from gatewise_keras import cells

        return cells.After(dtype=self.dtype)([source, self.used[keeper][-1]])


def _goes_alone(layers: Sequence[Layer]) -> bool:
    """Say whether what runs on each step is one layer that reads one thing, as TimeDistributed takes it."""
    [first, *others] = layers
    return not others and len(first.inputs) == 1 and not first.mask and not needs_model(first)


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
    """Return what a merge makes of tensors."""
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
