"""Which layers have this many parameters? The count turned round.

For given units a count is a straight line in the features: so much at no features, and so much for each. Slope and
start are measured by counting a few small layers, never typed; one exact division then gives the features, or says that
there are none. A head of k outputs adds k·(1 + what it reads), and k is found from the remainder.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gatewise.core.count import count, substitute
from gatewise.core.diagnose import Formula, make_case, whole_number
from gatewise.core.layout import Layout, gaps
from gatewise.core.spec import GRU, LSTM, RNN, Dense, Recurrent, Spec
from gatewise.errors import SpecError


class Bounds(NamedTuple):
    """What is searched, completely; nothing outside it is.

    Attributes:
        cells: Kinds of layer.
        options: Other options, with the values tried. Of values that store the same the first stands for all.
        most_layers: So many layers of one kind are stacked at most.
        directions: One, two, or both.
        biases: With biases, without, or both.
        most_outputs: So many outputs has a dense layer on top at most; 0 for no dense layer.
        most_total: The largest total, so that the search takes no longer than promised.
    """

    cells: tuple[str, ...] = ("LSTM", "GRU", "RNN")
    options: tuple[tuple[str, tuple[Any, ...]], ...] = (("reset", ("after", "before")),)
    most_layers: int = 3
    directions: tuple[int, ...] = (1, 2)
    biases: tuple[bool, ...] = (True, False)
    most_outputs: int = 10
    most_total: int = 10**10


BOUNDS = Bounds()
"""Features and units have no bound of their own: every size is tried that the total leaves room for."""

_KINDS: dict[str, type[Recurrent]] = {kind.__name__: kind for kind in (LSTM, GRU, RNN)}

Lookup = Callable[[Spec], Layout | None]


@dataclass(frozen=True)
class Solution:
    """Layers that have the wanted number of parameters.

    Attributes:
        layers: A recurrent layer, and a dense one on top of it where there is a head.
        rank: Its place: 1 is the likeliest.
        layout: How the recurrent layer is stored.
    """

    layers: tuple[Spec, ...]
    rank: int
    layout: Layout

    @property
    def formula(self) -> str:
        """The count in letters, with the head's outputs as ``outputs``."""
        return str(self._written()[0])

    @property
    def arithmetic(self) -> str:
        """The formula with the numbers put in."""
        written, values = self._written()
        return substitute(str(written), values)

    @property
    def total(self) -> int:
        """The number of parameters, counted anew from the layouts."""
        written, values = self._written()
        return written.value(values)

    def _written(self) -> tuple[Formula, dict[str, int]]:
        head = self.layers[1] if len(self.layers) > 1 else None
        case = make_case(self.layers[0], self.layout, head=head if isinstance(head, Dense) else None)
        return case.whole(), case.values

    def __str__(self) -> str:
        return f"{self.rank}. {' → '.join(map(str, self.layers))}: {self.arithmetic}"


class Solutions(list[Solution]):
    """All that has a total, the likeliest first; a plain list that shows its beginning in a notebook.

    Attributes:
        wanted: The total.
        searched: What was searched, in a sentence.
    """

    def __init__(self, found: Iterable[Solution], wanted: int, searched: str = "") -> None:
        super().__init__(found)
        self.wanted, self.searched = wanted, searched

    def __str__(self) -> str:
        return "\n".join([f"{len(self):,} ways to {self.wanted:,} parameters", *map(str, self[:10])])

    def _repr_markdown_(self) -> str:
        from gatewise.report.tables import render
        from gatewise.report.teaching import solving

        return render(solving(self), "github")

    def _repr_html_(self) -> str:
        from gatewise.report.tables import render
        from gatewise.report.teaching import solving

        return render(solving(self), "html")


def solve(
    total: int,
    lookup: Lookup,
    *,
    features: int | None = None,
    units: int | None = None,
    cell: str | None = None,
    bounds: Bounds = BOUNDS,
) -> Solutions:
    """Find every layer, alone or under a dense layer, that has a number of parameters.

    Args:
        total: The number.
        lookup: Gives the layout of a spec, or None where the framework stores no such layer.
        features: Only layers with this size of input.
        units: Only layers with so many units.
        cell: Only layers of this kind: ``"LSTM"``, ``"GRU"`` or ``"RNN"``.
        bounds: What is searched.

    Returns:
        All of them, the likeliest first: round sizes, small heads and default options come early.

    Raises:
        SpecError: The total, or a size, is not a whole number in its range.

    >>> from gatewise.registry import layout
    >>> found = solve(10_851, lambda spec: layout("keras", spec), features=3)
    >>> print(found[0])
    1. LSTM(features=3, units=50) → Dense(features=50, units=1): 4·50·3 + 4·50·50 + 4·50 + 1·50 + 1
    """
    total = _checked(total, bounds)
    for name, size in (("features", features), ("units", units)):
        if size is not None:
            whole_number(name, size, f"{name} is a whole number from 1.", f"Give {name}=3, say, or leave it out.")
    found: list[tuple[tuple[float, ...], tuple[Spec, ...], Layout]] = []
    for family in _families(lookup, bounds, cell):
        for inputs, size, outputs in family.sizes(total, features, units):
            found.append(
                (family.plausibility(inputs, size, outputs), family.layers(inputs, size, outputs), family.layout)
            )
    found.sort(key=lambda each: each[0])
    solutions = (Solution(layers, rank, layout) for rank, (_, layers, layout) in enumerate(found, 1))
    return Solutions(solutions, total, _searched(bounds, cell, features, units))


def _searched(bounds: Bounds, cell: str | None, features: int | None, units: int | None) -> str:
    """Say what is searched.

    >>> _searched(BOUNDS._replace(most_layers=1, directions=(1,), most_outputs=0), "lstm", 3, None)
    'Searched: LSTM with features=3 and any units; 1 layer; one direction; with and without biases.'
    """
    cells = [name for name in bounds.cells if cell is None or name.lower() == cell.lower()]
    sizes = [f"{name}={size}" if size else f"any {name}" for name, size in (("features", features), ("units", units))]
    parts = [
        f"{', '.join(cells)} with {' and '.join(sizes)}",
        f"1 to {bounds.most_layers} layers" if bounds.most_layers > 1 else "1 layer",
        "one direction or two"
        if len(bounds.directions) > 1
        else ("one direction", "two directions")[bounds.directions[0] - 1],
        " and ".join({True: "with", False: "without"}[each] for each in bounds.biases) + " biases",
    ]
    if bounds.most_outputs:
        parts.append(f"alone or under a dense layer of 1 to {bounds.most_outputs} outputs")
    return f"Searched: {'; '.join(parts)}."


def _checked(total: object, bounds: Bounds) -> int:
    where = f"A count of parameters is a whole number from 1 to {bounds.most_total:,}."
    number = whole_number("total", total, where, "Give the number of parameters that you have, such as 299681.")
    if number > bounds.most_total:
        raise SpecError(f"total={number} is out of range.", where, "Take the layers apart and solve them one by one.")
    return number


# ── families: all options fixed, the sizes open ─────────────────────────────────────────────────────────────────


class Family(NamedTuple):
    """Layers that differ in their sizes only.

    Attributes:
        kind: The class of the spec.
        options: Its options.
        layout: How it is stored.
        slope: Parameters for each feature and unit: a layer of u units has ``slope·u`` for each feature.
        start: Coefficients of 1, u and u² in what it has beside that.
        reads: How many numbers a head reads, for each unit.
        most_outputs: So many outputs may a head have; 0 where there can be none.
    """

    kind: type[Recurrent]
    options: dict[str, Any]
    layout: Layout
    slope: int
    start: tuple[int, int, int]
    reads: int
    most_outputs: int

    def sizes(self, total: int, features: int | None, units: int | None) -> Iterator[tuple[int, int, int]]:
        """Yield features, units and outputs of the head (0: no head) of every layer with this total."""
        constant, linear, square = self.start
        slope, reads, most = self.slope, self.reads, self.most_outputs
        for size in itertools.count(1) if units is None else (units,):
            each = slope * size
            # What is left for the features and the head; it shrinks as units grow.
            left = total - constant - (linear + square * size) * size
            if left < each:
                return
            # Slope and what the head reads are multiples of the units, so the outputs are the remainder, or that and
            # some more units: most sizes are ruled out by one division.
            for outputs in range(left % size, most + 1, size):
                inputs, rest = divmod(left - outputs * (reads * size + 1), each)
                if rest == 0 and inputs >= 1 and features in (None, inputs):
                    yield inputs, size, outputs

    def layers(self, inputs: int, size: int, outputs: int) -> tuple[Spec, ...]:
        """Return the layers of one solution."""
        layer = self.kind(inputs, size, **self.options)
        return (layer, Dense(self.reads * size, outputs)) if outputs else (layer,)

    def plausibility(self, inputs: int, size: int, outputs: int) -> tuple[float, ...]:
        """Return what solutions are sorted by: how unlikely it is that a person chose this."""
        options = self.options
        odd = (
            ODD["cell"][self.kind.__name__]
            + ODD["layers"][options["layers"]]
            + ODD["bidirectional"][options["bidirectional"]]
            + ODD["bias"][options["bias"]]
            + ODD["reset"].get(options.get("reset"), 0.0)
            + ODD["outputs"].get(outputs, 3.0)
            + odd_units(size)
            + odd_features(inputs)
        )
        return odd, size, inputs, outputs


ODD: dict[str, dict[Any, float]] = {
    "cell": {"LSTM": 0.0, "GRU": 1.0, "RNN": 2.0},
    "layers": {1: 0.0, 2: 1.5, 3: 2.5},
    "bidirectional": {False: 0.0, True: 1.2},
    "bias": {True: 0.0, False: 4.0},
    "reset": {"after": 0.0, "before": 3.0},
    "outputs": {0: 0.0, 1: 0.0, 2: 1.5, 3: 1.8, 10: 1.8},
}
"""How odd each choice is: 0 for the usual one, about 1 for what is chosen a third as often, and so on."""

_BY_TENS = {1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 40, 50, 80}


def odd_units(size: int) -> float:
    """Say how odd a size of a layer is, from 0; people take powers of two and round decimal numbers.

    >>> [odd_units(size) for size in (32, 50, 24, 70, 88, 47)]
    [0.0, 0.3, 1.0, 1.5, 2.5, 4.0]
    """
    if size & (size - 1) == 0:
        return 0.0 if 8 <= size <= 1024 else 0.7
    if size % 10 == 0 and size // 10 in _BY_TENS:
        return 0.3
    if size < 10 or size in (12, 24, 48, 96, 25, 75) or size % 100 == 0 or size % 128 == 0:
        return 1.0
    if size % 10 == 0:
        return 1.5
    return 2.5 if size % 5 == 0 or size % 8 == 0 else 4.0


def odd_features(inputs: int) -> float:
    """Say how odd a size of the input is: wide inputs are rarer, and nearly any number can be one.

    >>> [round(odd_features(inputs), 1) for inputs in (1, 3, 47, 64, 2308, 100_000)]
    [0.0, 0.1, 1.1, 0.6, 3.9, 6.9]
    """
    wide = 0.8 * math.log1p(inputs / 20)
    return wide / 2 if odd_units(inputs) <= 0.3 or inputs < 10 else wide + 0.1 * (inputs > 10)


def _families(lookup: Lookup, bounds: Bounds, cell: str | None) -> Iterator[Family]:
    chosen = [name for name in bounds.cells if cell is None or name.lower() == cell.lower()]
    if not chosen:
        known = f"Searched are {', '.join(bounds.cells)}."
        raise SpecError(f"Layers of kind {cell!r} are not searched.", known, "Choose one of these.")
    can_have_head = lookup(Dense(1, 1)) is not None
    for kind in (_KINDS[name] for name in chosen):
        named: Sequence[tuple[str, tuple[Any, ...]]] = [
            ("layers", tuple(range(1, bounds.most_layers + 1))),
            ("bidirectional", tuple(directions == 2 for directions in bounds.directions)),
            ("bias", bounds.biases),
            *((name, values) for name, values in bounds.options if name in kind.fields),
        ]
        seen = set()
        for values in itertools.product(*(values for _, values in named)):
            options = dict(zip((name for name, _ in named), values, strict=True))
            # Two resets that store the same, as without a bias, have the same counts: the usual one stands for both.
            layout = lookup(kind(1, 1, **options))
            if layout is None or gaps(layout, kind(1, 1, **options)):
                continue
            family = _measured(
                kind.__name__, tuple(options.items()), layout, bounds.most_outputs if can_have_head else 0
            )
            shape = (family.slope, family.start, options["layers"], options["bidirectional"], options["bias"])
            if shape not in seen:
                seen.add(shape)
                yield family


@functools.lru_cache(maxsize=1024)
def _measured(name: str, chosen: tuple[tuple[str, Any], ...], layout: Layout, most_outputs: int) -> Family:
    """Measure the polynomial of a family on four small layers."""
    kind, options = _KINDS[name], dict(chosen)

    def counted(features: int, units: int) -> int:
        return count(kind(features, units, **options), layout).total

    slope = counted(2, 1) - counted(1, 1)
    one, two, three = (counted(1, units) - slope * units for units in (1, 2, 3))
    square = (three - 2 * two + one) // 2
    linear = two - one - 3 * square
    return Family(
        kind,
        options,
        layout,
        slope,
        (one - linear - square, linear, square),
        kind(1, 1, **options).merged_directions,
        most_outputs,
    )
