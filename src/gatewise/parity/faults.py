"""Test faults: mistakes that ports are known for, each put into a description to see whether the inputs show it."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gatewise.arrays.network import Call, plain
from gatewise.core.between import Activation, Operation, Permute, Reshape, Softmax
from gatewise.core.layout import GATES, gates_of
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.shapes import shapes
from gatewise.core.spec import Attention, Dense, Recurrent, Spec
from gatewise.parity.fault_rows import ROWS, Row, mask_rows, option_rows
from gatewise.parity.reference import Reference, Wrong
from gatewise.parity.units import Parts


class Fault(NamedTuple):
    """One test fault.

    Attributes:
        layer: The layer that has it, in the network without stacks.
        mistake: What is wrong.
        option: Whether it is how the layer runs that is wrong, and not its weights.
        plant: From a reference to what differs in it.
    """

    layer: str
    mistake: str
    option: bool
    plant: Callable[[Reference], Wrong]


def mistakes(layer: Layer, weights: Parts) -> Iterator[tuple[str, Parts]]:
    """Yield each mistake that a port may make in one layer: its name, and canonical weights that have it.

    A mistake that changes no weight is none, and is left out; so is one that the cell cannot tell.
    """
    gates, options = GATES[layer.spec.cell], layer.spec.options()
    product = layer.spec.cell == "lstm" and not options["peepholes"]  # i * g, of one activation
    alike = product and options["activation"] == options["recurrent_activation"]
    for (i, one), (j, other) in itertools.combinations(enumerate(gates), 2):
        if alike and {one, other} == {"i", "g"}:
            continue
        order = list(range(len(gates)))
        order[i], order[j] = j, i
        swapped = {
            name: array[order] if gates_of(layer.spec.cell, name.rpartition("/")[2]) == gates else array
            for name, array in weights.items()
        }
        yield f"gates {one} and {other} exchanged", swapped
    dropped = {name: np.zeros_like(array) if "bias" in name else array for name, array in weights.items()}
    if any(dropped[name].any() != weights[name].any() for name in weights):
        yield "bias dropped", dropped
    doubled = {name: 2 * array if "bias" in name else array for name, array in weights.items()}
    if any(doubled[name].any() for name in weights if "bias" in name):
        yield "bias doubled", doubled
    if "mean" in weights:
        yield "mean and variance exchanged", weights | {"mean": weights["variance"], "variance": weights["mean"]}
    for part in ("kernel", "recurrent_kernel", "table"):
        turned = {
            name: array.swapaxes(-1, -2)
            if name.rpartition("/")[2] == part and array.shape[-1] == array.shape[-2]
            else array
            for name, array in weights.items()
        }
        yield f"{part.replace('_', ' ')} transposed", turned


def softmax_shifts(network: Network) -> dict[str, list[tuple[str, str]]]:
    """Return softmax → the layers in front of it and their part, a bias, that it takes away.

    A softmax gives the same where a number is added to all that it shares out: the bias of scores, one for each step,
    and that of a key, which adds to all scores of one query the same.

    >>> from gatewise import Activation, Dense, Input, Network, Reshape
    >>> network = Network.chain(Input((5, 3)), Dense(3, 1), Reshape((-1,)), Activation("softmax"))
    >>> softmax_shifts(network)
    {'activation': [('dense', 'bias')]}
    """
    uses = Counter(layer.owner for layer in network.layers)
    references = [*network.results, *(each for layer in network.layers for each in (*layer.inputs, layer.mask) if each)]
    readers = Counter(source_of(reference)[0] for reference in references)
    found: dict[str, list[tuple[str, str]]] = {}
    for layer in network.layers:
        spec, features = layer.spec, True
        read = 0
        if isinstance(spec, Attention) and spec.score == "dot" and len(layer.inputs) == 3:
            read, features = 2, False
        elif isinstance(spec, Softmax) or (isinstance(spec, Operation) and spec.function == "softmax"):
            # One bias for each feature goes off where each feature is shared out by itself.
            features = not spec.axis or any(axis in (-1, len(_read(network, layer)) - 1) for axis in spec.axis)
        elif not (isinstance(spec, Activation) and spec.activation == "softmax"):
            continue
        front = network[source_of(layer.inputs[read])[0]]
        while uses[front.owner] == readers[front.name] == 1 and (place := _passed(front.spec)) is not None:
            features = features or _reshapes(front.spec)
            front = network[source_of(front.inputs[place])[0]]
        dense = front.spec
        alone = uses[front.owner] == readers[front.name] == 1 and isinstance(dense, Dense)
        options = dense.options()
        if alone and options["bias"] and options["activation"] == "linear" and (options["units"] == 1 or not features):
            found[layer.name] = [(front.name, "bias")]
    return found


def _read(network: Network, layer: Layer) -> Sequence[int | None]:
    """Return the shape of what a layer reads, without the further axes on whose steps it runs."""
    name, number = source_of(layer.inputs[0])
    shape = shapes(network)[name][number]
    return (shape[0], *shape[1 + layer.distributed :])


def _reshapes(spec: Spec) -> bool:
    """Say whether a layer gives the numbers that it reads, or some of them, in another shape."""
    moves = spec.options().get("function") in ("expand_dims", "squeeze", "get_item")
    return isinstance(spec, Reshape | Permute) or moves


def _passed(spec: Spec) -> int | None:
    """Return which of its inputs a layer gives so that what is added to all of it is added to the output, or None."""
    if isinstance(spec, Operation) and spec.function == "where" and spec.operands[:2] == (None, None):
        return 1 if len(spec.operands) == 3 and isinstance(spec.operands[2], int | float) else None
    if spec.options().get("function") in ("add", "subtract", "multiply", "divide"):
        first, second = (*spec.options()["operands"], None, None)[:2]
        by_number = isinstance(second, int | float) or spec.options()["function"] in ("add", "subtract")
        return 0 if first is None and by_number else None
    return 0 if _reshapes(spec) else None


def faults(reference: Reference, masked: Collection[str], *, states: bool) -> list[Fault]:
    """Return the test faults of a network without stacks.

    Args:
        reference: The network with its weights: a fault that changes none of them is none.
        masked: The layers that a mask comes to.
        states: Whether first states are fed.
    """
    found: dict[tuple[str, str], Fault] = {}
    for layer in reference.network.layers:
        parts = reference.weights.get(layer.name, {})
        rows = [*(_weights_row(layer, name, wrong, parts) for name, wrong in mistakes(layer, parts))] if parts else []
        if not layer.shares:
            for kind, made in ROWS:
                rows += made(layer) if isinstance(layer.spec, kind) else ()
            rows += option_rows(layer, masked=bool(masked))
        rows += mask_rows(layer) if layer.name in masked else ()
        if states and isinstance(layer.spec, Recurrent) and not layer.inputs[1:]:
            rows.append(Row("first states ignored", way=_from_zero))
        for row in rows:
            if row.weights is not None and _equal(row.weights(parts), parts):
                continue
            fault = Fault(layer.name, row.mistake, row.weights is None, _plant(layer, row))
            found.setdefault((fault.layer, fault.mistake), fault)
    return list(found.values())


def _weights_row(layer: Layer, name: str, wrong: Parts, parts: Parts) -> Row:
    """Return a mistake of weights as a row, which makes it of other weights, too."""
    return Row(name, weights=lambda given: wrong if given is parts else dict(mistakes(layer, given)).get(name, given))


def _equal(wrong: Parts, right: Parts) -> bool:
    return all(np.array_equal(wrong[part], right[part]) for part in right)


def _from_zero(call: Call) -> list[np.ndarray]:
    return plain(call._replace(states=None))


def _plant(layer: Layer, row: Row) -> Callable[[Reference], Wrong]:
    """Return what plants a row: in each use of a layer, where it is its options that are wrong."""

    def plant(reference: Reference) -> Wrong:
        if row.weights is not None:
            return Wrong({}, {layer.name: row.weights(reference.weights[layer.name])}, {})
        if row.way is not None:
            return Wrong({}, {}, {layer.owner: row.way})
        assert row.layer is not None
        if row.layer.spec == layer.spec or type(row.layer.spec) is not type(layer.spec):
            return Wrong({layer.name: row.layer}, {}, {})
        right, wrong = layer.spec.options(), row.layer.spec.options()
        options = {key: value for key, value in wrong.items() if right[key] != value}
        layers = {
            each.name: dataclasses.replace(each, spec=each.spec.replace(**options))
            for each in reference.network.layers
            if each.owner == layer.name and all(each.spec.options()[key] == right[key] for key in options)
        }
        return Wrong(layers, {}, {})

    return plant
