"""Test faults: mistakes that ports are known for, put into a copy to see whether the inputs would have shown them."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from gatewise.core.between import Activation, Dropout, Operation, Permute, Repeat, Reshape, Softmax
from gatewise.core.layout import CANONICAL, GATES, gates_of
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.plan import plan
from gatewise.core.shapes import shapes
from gatewise.core.spec import Attention, Conv1D, Dense, Norm, Recurrent, Spec
from gatewise.live import own_layouts
from gatewise.parity.subject import Side

TAKEN_FOR = dict(
    pair
    for one, other in (
        *(("not_equal", "equal"), ("greater", "less_equal"), ("less", "greater_equal")),
        *(("logical_and", "logical_or"), ("max", "min"), ("mean", "sum"), ("add", "subtract")),
    )
    for pair in ((one, other), (other, one))
)
"""Operation → the one that it is taken for by mistake; of a comparison, what passes where it does not."""


def mistakes(layer: Layer, weights: dict[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
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


def _steps_alike(network: Network) -> set[str]:
    """Return the layers that give the same at each step, so that the direction in which they are read is none."""
    alike: set[str] = set()
    found = shapes(network)
    for layer in network.layers:
        if 1 in found.get(layer.name, ((),))[0][1 + layer.distributed : 2 + layer.distributed]:
            alike.add(layer.name)  # a single step, as of a pool over all
            continue
        kept = isinstance(layer.spec, Activation | Dense | Dropout | Norm) and source_of(layer.inputs[0])[0] in alike
        if isinstance(layer.spec, Repeat) or kept:
            alike.add(layer.name)
    return alike


def misreadings(layer: Layer, alike: Collection[str] = ()) -> Iterator[tuple[str, Layer]]:
    """Yield each mistake that is not one of weights: its name, and the layer as it would be taken for.

    A direction that is not turned shows where reading from the other end shows; it is no mistake where what is read is
    the same at each step, as behind the layers of ``alike``.
    """
    if isinstance(layer.spec, Recurrent) and not (layer.inputs and source_of(layer.inputs[0])[0] in alike):
        turned = layer.spec.replace(go_backwards=not layer.spec.go_backwards)
        yield "sequence read from the other end", dataclasses.replace(layer, spec=turned)
    if isinstance(layer.spec, Operation) and layer.spec.function in TAKEN_FOR:
        wrong = TAKEN_FOR[layer.spec.function]
        yield f"{wrong} for {layer.spec.function}", dataclasses.replace(layer, spec=layer.spec.replace(function=wrong))
    if isinstance(layer.spec, Conv1D) and layer.spec.width > 1 and layer.spec.padding != "valid":
        padding = "causal" if layer.spec.padding == "same" else "same"
        yield (
            f"padding {padding} for {layer.spec.padding}",
            dataclasses.replace(layer, spec=layer.spec.replace(padding=padding)),
        )
    other = {"tanh": "relu", "relu": "tanh"}.get(str(layer.spec.options().get("activation")))
    if other:
        name = f"{other} for {'relu' if other == 'tanh' else 'tanh'}"
        yield name, dataclasses.replace(layer, spec=layer.spec.replace(activation=other))


BIASED = ("bias dropped", "bias doubled")
"""The mistakes of a bias alone."""


def softmax_shifts(network: Network) -> dict[str, list[tuple[str, str]]]:
    """Return softmax → the layers in front of it and their part, a bias, that it takes away.

    A softmax gives the same where a number is added to all that it shares out: the bias of scores, one for each step,
    and that of a key, which adds to all scores of one query the same.

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


def with_mistakes(copy: Side, seen: Collection[tuple[str, str]]) -> Iterator[tuple[str, str, Side]]:
    """Yield layer, mistake, and the copy with that mistake, until the next is asked for; leave out some."""
    own = copy.adapter.natives(copy.obj)
    form = copy.adapter.form(copy.obj)
    layouts = own_layouts(copy.framework, copy.network, form, own)
    alike = _steps_alike(copy.network)
    # A bare cell reads one step, which has no direction, and its class says what it computes.
    for layer in copy.network.layers if form != "cell" else ():
        for name, taken in misreadings(layer, alike) if not layer.shares else ():
            if (layer.name, name) not in seen:
                right_options, wrong_options = layer.spec.options(), taken.spec.options()
                changed = {key: value for key, value in wrong_options.items() if right_options[key] != value}
                layers = [
                    dataclasses.replace(each, spec=each.spec.replace(**changed)) if each.owner == layer.name else each
                    for each in copy.network.layers
                ]
                yield layer.name, name, copy.rebuilt(Network(tuple(layers), copy.network.outputs), copy.dtype())
    unseen = {name for shifts in softmax_shifts(copy.network).values() for name, _ in shifts}
    for layer in copy.network.weighted:
        canonical, right = CANONICAL[layer.spec.cell], copy.adapter.read(own[layer.name])
        weights = plan(layer.spec, layouts[layer.name], canonical).apply(right)
        back = plan(layer.spec, canonical, layouts[layer.name])
        for name, wrong in mistakes(layer, weights):
            if name in BIASED and layer.name in unseen:
                continue
            if (layer.name, name) in seen or all(np.array_equal(wrong[part], weights[part]) for part in weights):
                continue
            copy.adapter.write(own[layer.name], back.apply(wrong))
            yield layer.name, name, copy
        copy.adapter.write(own[layer.name], right)
