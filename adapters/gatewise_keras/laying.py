"""Lays Keras layers out as layers of a network: one may become several. Keras is imported when it is called for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from gatewise.core.between import Activation, Dot, Dropout, Flip, Merge, Operation, Remask
from gatewise.core.network import Layer, source_of
from gatewise.core.spec import Attending, Embedding, Recurrent, Spec, is_beside, is_one_cell, outputs_of
from gatewise_keras.reading import (
    activity_rule,
    check_masking,
    check_unrolled,
    is_alike,
    is_cell,
    is_stack,
    refusal,
    rules,
    spec_of,
    stack_specs,
    state_count,
)


def parts(layer: Any) -> dict[str, Any]:
    """Return the natives of one Keras layer by name: the layer itself, or the cells and directions that it runs."""
    return {layer.name: layer} if is_cell(layer) else laid(layer).natives


def is_several(layer: Any) -> bool:
    """Say whether one Keras layer is described as several, or as one that runs on each step of another time axis."""
    laying = laid(layer)
    return is_stack(layer) or len(laying.layers) > 1 or bool(laying.layers[0].distributed)


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


def laid(layer: Any) -> _Laid:
    """Return what one Keras layer becomes."""
    source = "input" if layer.name != "input" else "input_1"
    laying = Laying({"input", "input_1"})
    outputs = laying.lay(layer, layer.name, source)
    layers = tuple(laying.layers.values())
    several = len(layers) > 1 or is_stack(layer)
    return _Laid(layers, laying.natives, tuple(outputs) if several else (), tuple(laying.left))


class Laying:
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
        name = re.sub(r":(?=\d+$)", "_", name)  # with the colon it would be an output of another layer
        made, number = name, 0
        while made in self.layers or (made in self._taken and not (own and number == 0)):
            number += 1
            made = f"{name}_{number}"
        return made

    def carries(self, reference: str) -> bool:
        """Say whether a mask goes with what a reference names."""
        name, number = source_of(reference)
        there = self.layers.get(name)
        return self._carries.get(name, False) and not (there is not None and is_beside(there.spec, number))

    def add(self, name: str, spec: Spec, reads: Sequence[str], native: Any = None, **place: Any) -> str:
        """Add one layer; return its name."""
        layer = Layer(name, spec, tuple(reads), **place)
        if native is not None:
            trained = bool(native.trainable)
            if isinstance(spec, Recurrent) and native.weights:
                # What wraps cells hands them its flag when it is set, not when it is built with it: variables tell.
                trained = any(variable.trainable for variable in native.weights)
            layer = dataclasses.replace(layer, trainable=trained, rules=rules(native))
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
        if native is not None and not is_cell(native) and not layer.distributed:
            passes = layer.passes_mask(not isinstance(spec, Embedding))  # which makes a mask, and hands on none
            check_masking(native, passes=isinstance(native, self._wrapping()) or passes)
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

    @staticmethod
    def _wrapping() -> tuple[type, ...]:
        """Return the classes of layers that say by their own rule which mask goes on from them."""
        import keras

        return keras.layers.RNN, keras.layers.Bidirectional, keras.layers.TimeDistributed

    def penalise(self, layer: Any, outputs: Sequence[str]) -> None:
        """Add a Keras layer's penalty on what it gives to the layers that give it."""
        rule = activity_rule(layer)
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

        if isinstance(layer, self._wrapping()):
            check_masking(layer, passes=True)
        masked = place.get("masked", True) and (bool(place.get("mask")) or self.carries(above))
        if masked:
            check_unrolled(layer)
        if type(layer) is keras.layers.TimeDistributed:
            return self._distribute(layer, name, above, **place)
        if is_stack(layer):
            # All uses of one stack must be alike, also where a mask comes to some alone.
            turned = self._masks and layer.go_backwards
            return self._stack(layer, name, above, states, turned=turned, **place)
        if type(layer) is keras.layers.Bidirectional and not (is_alike(layer) and id(layer) not in self._apart):
            return self._directions(layer, name, above, states, **place)
        spec = spec_of(layer)
        if isinstance(spec, Activation) or spec == Dropout(spec.options().get("rate", 0.0)):
            place = place | {"distributed": 0}
        return _all_of(self.add(name, spec, (above, *states), layer, **place), spec)

    def _distribute(self, layer: Any, name: str, above: str, **place: Any) -> list[str]:
        import keras

        inner = layer.layer
        if isinstance(inner, keras.Model):  # a graph overrides this
            why = "Read alone, it has no graph around it."
            raise refusal(layer, "layer", type(inner).__name__, why, "Port keras.Model(source, layer(source)).")
        if getattr(inner, "return_state", False):
            why = "Keras stacks the output and the states of each step into one tensor, along the axis of the batch."
            raise refusal(inner, "return_state", True, why, "Within TimeDistributed, use return_state=False.")
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
        # What no layer of Keras's does by itself can stand in TimeDistributed only within a model. And only the end of
        # a model tells that a layer which is used twice in it goes from use to use on each step.
        again = {layer.resumes for layer in added} & {layer.name for layer in added}
        if masks or again or any(map(needs_model, added)):
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
        specs = stack_specs(layer, turned=turned)
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
            raise refusal(layer, "return_state", True, why, "Use two layers, or cells with as many states.")
        if states and counts[0] != counts[1]:
            why = f"The directions have {counts[0]} and {counts[1]} states, and Keras gives each half of them."
            raise refusal(layer, "initial_state", "given", why, "Use two layers, or cells with as many states.")
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


def needs_model(layer: Layer) -> bool:
    """Say whether a layer is none of Keras's, reads its first states, or gives several things."""
    started = isinstance(layer.spec, Recurrent) and len(layer.inputs) > 1
    return started or isinstance(layer.spec, Operation | Dot | Attending) or len(outputs_of(layer.spec)) > 1


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
            raise refusal(native, "cell", type(native).__name__, why, way_out)


def specs_of(layer: Any) -> list[Spec]:
    """Return the spec of one Keras layer, or one for each cell or direction that it runs."""
    layers = laid(layer).layers
    weighted: list[Spec] = [each.spec for each in layers if each.spec.cell]
    return weighted or [layers[0].spec]
