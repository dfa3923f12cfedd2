"""The shapes that go through a network, batch and all; None stands for any length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from gatewise.core.between import (
    OVER,
    POINTWISE,
    Constant,
    Dot,
    Input,
    Merge,
    Operation,
    Pad,
    Permute,
    Pool,
    Repeat,
    Reshape,
    Softmax,
    Upsample,
    window,
)
from gatewise.core.spec import (
    AdditiveAttention,
    Attending,
    Conv,
    Dense,
    Embedding,
    Norm,
    Recurrent,
    Spec,
    per_axis,
    source_of,
)
from gatewise.errors import SpecError

Shape = tuple[int | None, ...]


class Layer(Protocol):
    """What is asked of a ``gatewise.core.network.Layer``, which stands above this room."""

    @property
    def name(self) -> str:
        """Its name in the network."""

    @property
    def spec(self) -> Spec:
        """What it computes."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads."""

    @property
    def distributed(self) -> int:
        """On how many more time axes it runs."""

    @property
    def step(self) -> bool:
        """Whether it is a bare cell."""

    @property
    def axis(self) -> int:
        """Where the axis is along which it goes."""


class Network(Protocol):
    """What is asked of a ``gatewise.core.network.Network``."""

    @property
    def layers(self) -> Sequence[Layer]:
        """The layers, each behind those it reads."""


def shapes(network: Network) -> dict[str, tuple[Shape, ...]]:
    """Return layer → the shape of each thing it gives.

    Raises:
        SpecError: A layer cannot read what comes to it; both are named.

    >>> from gatewise.core.network import Network
    >>> from gatewise.core.spec import LSTM
    >>> network = Network.chain(Input((10, 3)), LSTM(3, 50, return_sequences=False))
    >>> shapes(network)["lstm"]
    ((None, 50), (None, 50), (None, 50))
    """
    found: dict[str, tuple[Shape, ...]] = {}
    for layer in network.layers:
        if layer.inputs or isinstance(layer.spec, Input | Constant):
            read = [found[name][number] for name, number in map(source_of, layer.inputs)]
            try:
                found[layer.name] = _given_by(layer, read)
            except (IndexError, TypeError, ValueError):  # An axis is not there that a rule takes for granted.
                shape = read[0] if read else ()
                why = f"It reads {len(read)} inputs, of other axes."
                raise _misfit(layer, shape, why, "Give it what it reads.") from None
            for shape in found[layer.name]:
                if math.prod(size for size in shape if size is not None) > MOST_NUMBERS:
                    raise SpecError(
                        f"Layer {layer.name!r} would give more than {MOST_NUMBERS:,} numbers, in the shape {shape}.",
                        f"{layer.spec}: no machine holds so many.",
                        "Give smaller sizes.",
                    )
    return found


MOST_NUMBERS = 1 << 40
"""Numbers that a layer may give for one sample."""


def run_size(network: Network) -> tuple[int, int]:
    """Return how many numbers all layers give, and how many steps are gone through one by one, by a network's shapes.

    A length that is open counts as one.

    >>> from gatewise import LSTM, Input, Network
    >>> run_size(Network.chain(Input((10, 3), batch=2), LSTM(3, 50, return_state=False)))
    (1060, 10)
    """
    made = shapes(network)
    numbers = sum(math.prod(size or 1 for size in shape) for given in made.values() for shape in given)
    steps = 0
    for layer in network.layers:
        if isinstance(layer.spec, Recurrent) and layer.inputs and not layer.step:
            name, number = source_of(layer.inputs[0])
            steps += layer.spec.layers * (made[name][number][1 + layer.distributed] or 1)
    return numbers, steps


def _given_by(layer: Layer, read: list[Shape]) -> tuple[Shape, ...]:
    """Return the shape of each thing that a layer gives, from the shapes that it reads."""
    if isinstance(layer.spec, Input):
        return ((layer.spec.batch, *layer.spec.shape),)
    if isinstance(layer.spec, Constant):
        return ((len(layer.spec.values), len(layer.spec.values[0])),)
    if isinstance(layer.spec, Merge):
        return (_merged(layer, layer.spec, read),)
    if isinstance(layer.spec, Operation | Dot | Attending):
        axes = read[0][1 : 1 + layer.distributed]
        inner = [(shape[0], *shape[1 + layer.distributed :]) for shape in read]
        return tuple((batch, *axes, *rest) for batch, *rest in _of_several(layer, inner))
    return _distributed(layer, layer.spec, read[0], layer.distributed)


def check_chain(layers: Sequence[Layer]) -> None:
    """Raise ``SpecError`` where a layer of a chain cannot read what the one before gives, whatever is fed to the first.

    An attention reads the one before as query and value. Behind a layer that reads what is not in the chain, a product
    of two tensors say, nothing is known.
    """
    furthest, worst = -1, None
    for fed in _may_read(layers[0].spec) if len(layers) > 1 else ():
        place, error = _first_misfit(layers, fed)
        if error is None:
            return
        if place > furthest:
            furthest, worst = place, error
    if worst is not None and furthest > 0:
        raise worst


def _may_read(spec: Spec) -> list[Shape]:
    """Return the shapes that a layer may read, as far as its options say: of sequences, of one step each, of images."""
    last = spec.options().get("features")
    if isinstance(spec, Input | Constant):
        return [()]
    return [(*(None for _ in range(axes)), last) for axes in (2, 1, 3, 4)]


def _first_misfit(layers: Sequence[Layer], fed: Shape) -> tuple[int, SpecError | None]:
    """Return the place of the first layer that cannot read what comes to it, and what is to be said."""
    shape = fed
    for place, layer in enumerate(layers):
        if isinstance(layer.spec, Operation | Dot | Merge):
            break
        try:
            shape = _given_by(layer, [shape] * (2 if isinstance(layer.spec, Attending) else 1))[0]
        except SpecError as error:
            before = layers[place - 1]
            return place, SpecError(
                f"Layer {layer.name!r} cannot read what {before.name!r} gives, of shape {shape}.",
                f"{before.spec} → {error.where}",
                error.hint,
            )
    return len(layers), None


def _merged(layer: Layer, spec: Merge, shapes: list[Shape]) -> Shape:
    """Return the one shape of several, which are alike but along the axis on which they are concatenated.

    Where they are joined number by number, those of length 1 are spread out over the others.
    """
    axis = layer.axis % len(shapes[0]) if spec.merge == "concat" and layer.axis < len(shapes[0]) else -1
    if spec.merge == "sub" and len(shapes) != 2:
        raise _misfit(layer, shapes[-1], f"It subtracts one from another, and reads {len(shapes)}.", "Give it two.")
    made = list(shapes[0])
    if spec.merge == "concat" and axis < 0:
        raise _misfit(layer, shapes[0], f"It has no axis {layer.axis}.", "Give an axis that it has.")
    for shape in shapes[1:]:
        if len(shape) != len(made) or any(
            place != axis and None not in pair and pair[0] != pair[1] and not (axis < 0 and 1 in pair)
            for place, pair in enumerate(zip(made, shape, strict=True))
        ):
            raise _misfit(layer, shape, f"It reads {shapes[0]}, too.", "Give it tensors of one shape.")
        for place, size in enumerate(shape):
            here = made[place]
            if place == axis:
                made[place] = None if here is None or size is None else here + size
            else:
                made[place] = size if here is None or (axis < 0 and here == 1) else here
    return tuple(made)


def _of_several(layer: Layer, read: list[Shape]) -> tuple[Shape, ...]:
    """Return what a layer gives that reads several tensors, from their shapes."""
    spec = layer.spec
    if isinstance(spec, Operation):
        return (_operated(layer, spec, read),)
    if isinstance(spec, Dot):
        return (_dotted(layer, spec, read),)
    assert isinstance(spec, Attending)
    return _attended(layer, spec, read)


def _dotted(layer: Layer, spec: Dot, read: list[Shape]) -> Shape:
    if len(read) != 2 or any(axis >= len(shape) for axis, shape in zip(spec.axes, read, strict=False)):
        raise _misfit(layer, read[-1], f"It has no axis {spec.axes[-1]}, or is not the second of two.", "Give it two.")
    first, second = (list(shape) for shape in read)
    _check_alike(layer, read[1], [first.pop(spec.axes[0]), second.pop(spec.axes[1])])
    made = (*first, *second[1:])
    return made if len(made) > 1 else (*made, 1)


def _attended(layer: Layer, spec: Attending, read: list[Shape]) -> tuple[Shape, ...]:
    if len(read) not in (2, 3) or any(len(shape) != 3 for shape in read):
        why = "It reads query, value and perhaps key, 3 axes each, (batch, timesteps, features)."
        raise _misfit(layer, read[0], why, "Give it sequences; one step is enough.")
    query, value = read[:2]
    features = [query[-1], read[-1][-1], *([spec.features] if isinstance(spec, AdditiveAttention) else [])]
    _check_alike(layer, query, features)
    _check_alike(layer, value, [value[1], read[-1][1]])
    made: Shape = (*query[:2], value[-1])
    return (made, (*query[:2], value[1]))[: len(spec.outputs)]


def _check_alike(layer: Layer, shape: Shape, lengths: list[int | None]) -> None:
    known = sorted({length for length in lengths if length is not None})
    if len(known) > 1:
        raise _misfit(layer, shape, f"Lengths {known} do not fit.", "Give it shapes that do.")


def _multiplied(layer: Layer, given: list[list[int | None]]) -> Shape:
    """Return the shape of a product of matrices, or of stacks of them that are spread out over each other."""
    first, second = given
    columns = second[-1:] if len(second) > 1 else []
    _check_alike(layer, tuple(first), [first[-1], second[-2] if columns else second[-1]])
    return (*_spread(layer, [first[:-2], second[:-2]]), *first[-2:-1], *columns)


def _operated(layer: Layer, spec: Operation, read: list[Shape]) -> Shape:
    """Return the shape that an operation gives, from the shapes that it reads."""
    made = list(read[0])
    added = {"expand_dims": len(spec.axis), "stack": 1}.get(spec.function, 0)
    if spec.axis and spec.axis[-1] >= len(made) + added:
        raise _misfit(layer, read[0], f"It has no axis {spec.axis[-1]}.", "Give an axis that it has.")
    if spec.function == "get_item":
        return (made[0], *_items(layer, spec.key, made[1:]))
    if spec.function == "matmul":
        return _multiplied(layer, _given(spec, read))
    if spec.function in OVER or spec.function == "squeeze":
        kept = [1 if place in spec.axis else size for place, size in enumerate(made)]
        return tuple(kept if spec.keep else [size for place, size in enumerate(made) if place not in spec.axis])
    if spec.function == "concatenate":
        sizes = [shape[spec.axis[0]] for shape in read]
        made[spec.axis[0]] = None if None in sizes else sum(size for size in sizes if size is not None)
        return tuple(made)
    if added:
        for axis in spec.axis:
            made.insert(axis, len(read) if spec.function == "stack" else 1)
        return tuple(made)
    if spec.function not in POINTWISE:
        return tuple(made)
    return tuple(_spread(layer, _given(spec, read)))


def _given(spec: Operation, read: list[Shape]) -> list[list[int | None]]:
    """Return the shapes of all that an operation is called on."""
    return [shape if isinstance(shape, list) else _shape_of(shape) for shape in spec.arguments([*map(list, read)])]


def _spread(layer: Layer, given: list[list[int | None]]) -> list[int | None]:
    """Return the shape of arrays of several shapes that are spread out over each other."""
    longest = max(map(len, given))
    made: list[int | None] = []
    ones: list[int | None] = [1] * longest
    for sizes in zip(*(ones[len(shape) :] + shape for shape in given), strict=True):
        known = [size for size in sizes if size != 1]
        _check_alike(layer, tuple(given[0]), known)
        made.append(next((size for size in known if size is not None), None) if known else 1)
    return made


def _items(layer: Layer, key: tuple[Any, ...], shape: list[int | None]) -> list[int | None]:
    """Return the lengths of what a key takes from axes of some lengths."""
    rest = list(shape)
    made: list[int | None] = []
    for entry in key:
        if entry == "new":
            made.append(1)
            continue
        size = rest.pop(0)
        if isinstance(entry, int) and size is not None and not -size <= entry < size:
            raise _misfit(layer, (None, *shape), f"It takes entry {entry} of {size}.", "Feed longer sequences.")
        if isinstance(entry, tuple):
            taken = size if size is None else len(range(*slice(*entry).indices(size)))
            if taken == 0:
                raise _misfit(layer, (None, *shape), f"It takes none of {size}.", "Feed longer sequences.")
            made.append(taken)
    return [*made, *rest]


def _shape_of(array: Any) -> list[int | None]:
    """Return the shape of nested tuples of numbers."""
    return [len(array), *_shape_of(array[0])] if isinstance(array, tuple) else []


def _through(layer: Layer, spec: Spec, shape: Shape) -> tuple[Shape, ...]:
    if isinstance(spec, Recurrent) and layer.step:
        _check_features(layer, spec.features, shape)
        return ((shape[0], spec.state), *((shape[0], spec.units) for _ in spec.outputs[1:]))
    if isinstance(spec, Recurrent):
        if len(shape) != 3:
            axes = "(batch, timesteps, features)"
            raise _misfit(
                layer, shape, f"{type(spec).__name__} reads 3 axes, {axes}.", "Give sequences; one step is enough."
            )
        _check_features(layer, spec.features, shape)
        return _recurrent(spec, shape)
    if isinstance(spec, Dense):
        _check_features(layer, spec.features, shape)
        return ((*shape[:-1], spec.units),)
    if isinstance(spec, Embedding):
        return ((*shape, spec.units),)
    if isinstance(spec, Norm):
        _check_features(layer, spec.features, shape)
    if isinstance(spec, Permute):
        if len(shape) != 1 + len(spec.order):
            raise _misfit(layer, shape, f"It orders {len(spec.order)} axes.", "Name each axis behind the batch.")
        return ((shape[0], *(shape[axis] for axis in spec.order)),)
    if isinstance(spec, Reshape):
        return ((shape[0], *_reshaped(layer, spec, shape)),)
    if isinstance(spec, Softmax) and not all(-len(shape) < axis < len(shape) for axis in spec.axis):
        raise _misfit(layer, shape, f"It has no axes {spec.axis} behind the batch.", "Give axes that it has.")
    along = spec.axes if isinstance(spec, Conv | Pool | Pad | Upsample) else 0
    rank = 2 + along if along or isinstance(spec, Repeat) else len(shape)
    if len(shape) != rank:
        raise _misfit(layer, shape, f"{type(spec).__name__} reads {rank} axes.", f"Give it {READ[along]}.")
    if isinstance(spec, Repeat):
        return ((shape[0], spec.times, shape[1]),)
    if isinstance(spec, Pad):
        pairs = zip(shape[1:-1], spec.pairs, strict=True)
        return ((shape[0], *(None if size is None else size + sum(pair) for size, pair in pairs), shape[-1]),)
    if isinstance(spec, Upsample):
        each = zip(shape[1:-1], per_axis(spec.times, along), strict=True)
        return ((shape[0], *(None if size is None else size * times for size, times in each), shape[-1]),)
    if isinstance(spec, Conv | Pool):
        return (_windowed(layer, spec, shape),)
    return (shape,)


READ = {0: "(batch, features)", 1: "(batch, timesteps, features)", 2: "(batch, height, width, features)"}
"""What a layer reads that goes along so many axes."""


def _windowed(layer: Layer, spec: Conv | Pool, shape: Shape) -> Shape:
    if isinstance(spec, Pool) and spec.size is None:
        return (shape[0], *(1 for _ in shape[1:-1]), shape[-1]) if spec.keep else (shape[0], shape[-1])
    steps = [None if size is None else window(spec, size, axis)[0] for axis, size in enumerate(shape[1:-1])]
    if 0 in steps:
        what = "longer sequences" if len(steps) == 1 else "larger images"
        raise _misfit(layer, shape, "One window sees more steps than there are.", f"Feed {what}.")
    if isinstance(spec, Conv):
        _check_features(layer, spec.features, shape)
        return (shape[0], *steps, spec.units)
    return (shape[0], *steps, shape[-1])


def _reshaped(layer: Layer, spec: Reshape, shape: Shape) -> Shape:
    """Return the lengths behind the batch, the one that is open where it can be known."""
    known = [size for size in shape[1:] if size is not None]
    given = math.prod(size for size in spec.shape if size != -1)
    whole = len(known) == len(shape) - 1
    rest, over = divmod(math.prod(known), given)
    if whole and (over or (rest != 1 and -1 not in spec.shape)):
        raise _misfit(layer, shape, f"{math.prod(known)} numbers do not fit.", "Give a shape that holds as many.")
    return tuple((rest if whole else None) if size == -1 else size for size in spec.shape)


def _recurrent(spec: Recurrent, shape: Shape) -> tuple[Shape, ...]:
    apart = spec.bidirectional and spec.merge is None
    width = spec.state if apart else spec.merged_directions * spec.state
    front = (shape[0], shape[1], width) if spec.return_sequences else (shape[0], width)
    given: list[Shape] = []
    for name in spec.outputs:
        given.append((shape[0], spec.units if name.endswith("state_c") else spec.state) if "state_" in name else front)
    return tuple(given)


def _distributed(layer: Layer, inner: Spec, shape: Shape, axes: int) -> tuple[Shape, ...]:
    """Return what a layer gives that runs on each step of some more time axes."""
    if not axes:
        return _through(layer, inner, shape)
    if isinstance(inner, Recurrent) and len(shape) == 3:
        kind = type(inner).__name__
        raise _misfit(
            layer,
            shape,
            f"TimeDistributed gives its {kind} one step of the sequence, so the {kind} has no timesteps left.",
            f"Drop the TimeDistributed around the {kind}, or feed 4 axes: (batch, outer steps, timesteps, features).",
        )
    if len(shape) < 3:
        raise _misfit(layer, shape, "TimeDistributed needs a time axis.", "Drop it, or feed (batch, timesteps, …).")
    parts = _distributed(layer, inner, (shape[0], *shape[2:]), axes - 1)
    return tuple((part[0], shape[1], *part[1:]) for part in parts)


def _check_features(layer: Layer, features: int, shape: Shape) -> None:
    if shape[-1] is not None and shape[-1] != features:
        raise _misfit(
            layer, shape, f"It has features={features}.", f"Give it features={shape[-1]}, or feed {features}."
        )


def _misfit(layer: Layer, shape: Shape, why: str, way_out: str) -> SpecError:
    return SpecError(f"Layer {layer.name!r} cannot read the shape {shape}.", f"{layer.spec}: {why}", way_out)
