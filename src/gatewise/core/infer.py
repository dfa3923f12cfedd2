"""Which layer has these tensors? Finds the spec from names and shapes alone.

Every length of a shape grows with features, units and projection, so a length that depends on only one of them that
is still unknown gives it, by bisection. No pattern is taken apart for this.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gatewise.core.layout import Layout, axis_length, gaps, spell, store
from gatewise.core.spec import KINDS, Recurrent, Spec
from gatewise.errors import GatewiseError, ShapeError, WeightsError, nearest

Shapes = Mapping[str, tuple[int, ...]]

UNKNOWN = ("units", "features", "projection", "tokens", "height", "width")
_MOST_LAYERS = 64


def infer(layout: Layout, shapes: Shapes, **given: Any) -> Spec:
    """Return the layer that has these tensors in a layout.

    Args:
        layout: The layout that the tensors are stored in.
        shapes: Name → shape.
        given: Options of the spec that are known, such as ``features=3``; the others are found.

    Raises:
        WeightsError: No layer of this layout has these names.
        ShapeError: The names fit, the shapes do not, or they leave a size open.

    >>> from gatewise.core.spec import LSTM
    >>> from gatewise.registry import layout
    >>> infer(layout("torch", LSTM(1, 1)), {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5)})
    LSTM(features=3, units=5, bias=False)
    """
    kind = next(kind for kind in KINDS.values() if kind.cell == layout.cell)
    closest: Spec | None = None
    least = (sys.maxsize, sys.maxsize)
    layers = most = most_before = 0
    for spec in _candidates(kind, layout, len(shapes), given):
        if spec.options().get("layers", 1) != layers:
            # A file of thousands of arrays is no stack of 64 layers: where one layer more has no name among them, the
            # layers above it have none, either.
            if layers and most <= most_before:
                break
            layers, most_before = spec.options().get("layers", 1), most
        names = set(store(layout, spec).shapes)
        most = max(most, len(names & shapes.keys()))
        distance = _distance(names, shapes)
        if distance == (0, 0):
            return _solved(layout, spec, shapes, given)
        if closest is None or distance < least:
            closest, least = spec, distance
    expected = list(store(layout, closest).shapes) if closest else []
    unknown = [name for name in shapes if name not in expected]
    missing = [name for name in expected if name not in shapes]
    met = " and ".join(
        f"{word} {', '.join(map(repr, names))}" for word, names in (("missing", missing), ("unknown", unknown)) if names
    )
    raise WeightsError(
        f"These are not the tensors of {layout}: {met}.",
        f"{layout} stores {', '.join(expected)}.",
        (nearest(unknown[0], missing) if unknown else "") + "Rename the arrays, or name another layout.",
    )


def _distance(names: set[str], shapes: Shapes) -> tuple[int, int]:
    """Return how many names are missing or unknown, whichever are more, and by how many the numbers of names differ.

    Where no name is shared no layer is closer than another, and the simplest is the one to show.
    """
    shared = len(names & shapes.keys())
    if not shared:
        return sys.maxsize, 0
    return max(len(names), len(shapes)) - shared, abs(len(names) - len(shapes))


def _solved(layout: Layout, spec: Spec, shapes: Shapes, given: Mapping[str, Any]) -> Spec:
    """Return the layer with these shapes; where they only fit the other way round, say so."""
    try:
        return _solve(layout, spec, shapes, given)
    except ShapeError as error:
        turned = {name: tuple(shape)[::-1] if len(shape) == 2 else shape for name, shape in shapes.items()}
        try:
            _solve(layout, spec, turned, given)
        except ShapeError:
            raise error from None
        hint = "The matrices fit when each is transposed: were they saved from another framework?"
        raise ShapeError(error.met, error.where, hint) from None


def _candidates(kind: type[Spec], layout: Layout, most: int, given: Mapping[str, Any]) -> Iterator[Spec]:
    """Yield every layer of smallest size that the layout can hold with so many tensors, the fewest layers first."""
    fields = {name: [value] for name, value in given.items()}
    sizes = {name: [2] for name in ("features", "units", "tokens") if name in kind.fields}
    choices: dict[str, list[Any]] = {}
    if issubclass(kind, Recurrent):
        choices["layers"] = list(range(1, min(most, _MOST_LAYERS) + 1)) if layout.has_axis("layer") else [1]
        choices["bidirectional"] = [False, True]
    choices |= sizes | {"bias": [True, False]}
    choices |= {"projection": [None, 2], "peepholes": [False, True, "full"], "reset": ["after", "before"]}
    choices |= {"scale": [True, False], "shift": [True, False], "score": ["dot", "concat"]}
    choices = {name: fields.get(name, values) for name, values in choices.items() if name in kind.fields}
    choices |= {name: values for name, values in fields.items() if name not in choices}
    for values in itertools.product(*choices.values()):
        spec = kind(**dict(zip(choices, values, strict=True)))
        if not gaps(layout, spec):
            yield spec


def _solve(layout: Layout, spec: Spec, shapes: Shapes, given: Mapping[str, Any]) -> Spec:
    unknown = [name for name in UNKNOWN if spec.options().get(name) is not None and name not in given]
    found = {name: spec.options()[name] for name in UNKNOWN if name in given and spec.options().get(name) is not None}

    def length(name: str, dimension: int) -> Callable[[dict[str, int]], int]:
        return lambda sizes: store(layout, spec.replace(**sizes)).shapes[name][dimension]

    lengths = [(length(name, at), size, name) for name, shape in shapes.items() for at, size in enumerate(shape)]
    for name, shape in shapes.items():
        if len(shape) != len(store(layout, spec).shapes[name]):
            wanted = len(store(layout, spec).shapes[name])
            raise ShapeError(
                f"{name!r} has {len(shape)} dimension{'s' if len(shape) != 1 else ''}, expected {wanted}.",
                _given(shapes) + _pattern(layout, spec, name),
                "Was the array flattened, or saved from another framework? Are they in this order?",
            )
    before: list[str] = []
    while unknown and unknown != before:
        before = list(unknown)
        for measure, size, name in lengths:
            base = dict.fromkeys(unknown, 2) | found
            grows = [other for other in unknown if measure(base | {other: 3}) != measure(base)]
            if len(grows) == 1:
                value = _bisect(lambda guess, m=measure, b=base, o=grows[0]: m(b | {o: guess}), size)  # type: ignore[misc]
                if value is None:
                    raise _misfit(layout, spec, shapes, name, found)
                found[grows[0]] = value
                unknown.remove(grows[0])
    if unknown:
        raise ShapeError(
            f"The shapes of {layout} leave {' and '.join(unknown)} open.",
            ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            f"Give {unknown[0]}, too.",
        )
    solved = spec.replace(**found)
    for name, shape in store(layout, solved).shapes.items():
        if shape != tuple(shapes[name]):
            raise _misfit(layout, solved, shapes, name, found)
    return solved


def _bisect(measure: Callable[[int], int], wanted: int) -> int | None:
    low, high = 1, max(wanted, 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if measure(middle) < wanted else (low, middle)
    return low if measure(low) == wanted else None


def _misfit(layout: Layout, spec: Spec, shapes: Shapes, name: str, found: Mapping[str, int]) -> GatewiseError:
    expected = f", expected {store(layout, spec).shapes[name]}" if len(found) > 1 else ""
    known = "; ".join(f"{size} = {value}" for size, value in found.items())
    turned = expected and store(layout, spec).shapes[name] == tuple(shapes[name])[::-1]
    return ShapeError(
        f"{name!r} has shape {tuple(shapes[name])}{expected}.",
        _given(shapes) + _pattern(layout, spec, name) + (f"\ntaken from the other shapes: {known}" if known else ""),
        "It fits when transposed: was it saved from another framework?"
        if turned
        else "Was this tensor cut, or saved from another cell or framework?",
    )


def _given(shapes: Shapes) -> str:
    return f"given: {', '.join(f'{tensor} {tuple(shape)}' for tensor, shape in shapes.items())}"


def _pattern(layout: Layout, spec: Spec, name: str) -> str:
    """Return the line of the layout that a tensor's name stands on."""
    places = itertools.product(range(axis_length(spec, "layer")), range(axis_length(spec, "direction")))
    for layer, direction in places:
        for entry, pattern in zip(layout.entries, layout.tensors.values(), strict=True):
            for gate in range(max(1, len(layout.gates))):
                if spell(layout, entry, spec, {"layer": layer, "direction": direction, "gate": gate}) == name:
                    return f"\n{layout} stores it as {pattern}"
    return ""
