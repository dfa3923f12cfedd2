"""The shapes that go through a network, batch and all; None stands for any length."""

from __future__ import annotations

from gatewise.core.network import Layer, Network, source_of
from gatewise.core.spec import Constant, Dense, Embedding, Input, Merge, Recurrent, Spec
from gatewise.errors import SpecError

Shape = tuple[int | None, ...]


def shapes(network: Network) -> dict[str, tuple[Shape, ...]]:
    """Return layer → the shape of each thing it gives.

    Raises:
        SpecError: A layer cannot read what comes to it; both are named.

    >>> from gatewise.core.spec import LSTM
    >>> network = Network.chain(Input((10, 3)), LSTM(3, 50, return_sequences=False))
    >>> shapes(network)["lstm"]
    ((None, 50), (None, 50), (None, 50))
    """
    found: dict[str, tuple[Shape, ...]] = {}
    for layer in network.layers:
        if isinstance(layer.spec, Input):
            found[layer.name] = ((layer.spec.batch, *layer.spec.shape),)
        elif isinstance(layer.spec, Constant):
            found[layer.name] = ((len(layer.spec.values), len(layer.spec.values[0])),)
        elif layer.inputs:
            first, *others = [found[name][number] for name, number in map(source_of, layer.inputs)]
            if isinstance(layer.spec, Merge):
                found[layer.name] = (_merged(layer, layer.spec, [first, *others]),)
            else:
                found[layer.name] = _distributed(layer, layer.spec, first, layer.distributed)
    return found


def _merged(layer: Layer, spec: Merge, shapes: list[Shape]) -> Shape:
    """Return the one shape of several, which are alike but along the axis on which they are laid end to end."""
    axis = spec.axis % len(shapes[0]) if spec.merge == "concat" and spec.axis < len(shapes[0]) else -1
    if spec.merge == "sub" and len(shapes) != 2:
        raise _misfit(layer, shapes[-1], f"It subtracts one from another, and reads {len(shapes)}.", "Give it two.")
    made = list(shapes[0])
    if spec.merge == "concat" and axis < 0:
        raise _misfit(layer, shapes[0], f"It has no axis {spec.axis}.", "Give an axis that it has.")
    for shape in shapes[1:]:
        if len(shape) != len(made) or any(
            place != axis and None not in pair and pair[0] != pair[1]
            for place, pair in enumerate(zip(made, shape, strict=True))
        ):
            raise _misfit(layer, shape, f"It reads {shapes[0]}, too.", "Give it tensors of one shape.")
        for place, size in enumerate(shape):
            here = made[place]
            if place == axis:
                made[place] = None if here is None or size is None else here + size
            else:
                made[place] = size if here is None else here
    return tuple(made)


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
    return (shape,)


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
            f"Drop the TimeDistributed around the {kind}, or feed 4 axes (batch, outer steps, timesteps, features).",
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
