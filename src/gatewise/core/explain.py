"""Why two counts differ: named causes that add up to the difference exactly.

A cause is a set of canonical blocks that one side stores and the other does not. Since every stored number belongs to
one block, nothing can be left over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gatewise.core.count import Count, count, count_network, formula, gate_sentence, numbers, size, substitute
from gatewise.core.layout import GATES, Key, Layout, gaps, lacking, store, summed_gates, wanted_parts
from gatewise.core.network import Network
from gatewise.core.requires import requirements
from gatewise.core.spec import Spec


class Wording(NamedTuple):
    """The words for one cause; ``{has}`` and ``{lacks}`` are the two layouts."""

    why: str
    effect: str


WORDS = {
    "second bias": Wording(
        "{has} stores two bias vectors, one on the input side and one on the state side; {lacks} stores one. A gate "
        "only ever sees their sum. NVIDIA's cuDNN takes two, and frameworks built on it kept both.",
        "redundant: the outputs cannot tell. In training both get the same gradient, so their sum moves twice as fast.",
    ),
    "candidate's recurrent bias": Wording(
        "{has} gives the candidate gate a bias inside the product with the reset gate; {lacks} has none there. The "
        "reset gate scales this bias, so it cannot be merged with the other one.",
        "real: a layer with it can compute what a layer without it cannot.",
    ),
    "bias that is always stored": Wording(
        "{has} always stores a bias, even where the layer is to have none; {lacks} leaves it out.",
        "redundant: it holds constants that leave the function alone.",
    ),
    "peepholes that are always stored": Wording(
        "{has} always stores peephole weights, from the memory to the gates; {lacks} leaves them out.",
        "redundant while zero: the outputs cannot tell. Once they are trained, they can.",
    ),
    "coupled gate": Wording(
        "{lacks} does not store gate {gates}: it computes it as one minus another gate. {has} stores it.",
        "real: a layer with a gate of its own can compute what a coupled one cannot.",
    ),
    "moving statistics": Wording(
        "Batch normalisation keeps a moving mean and variance of each feature. {has} counts them among its parameters, "
        "as not trainable; {lacks} keeps them as buffers, which are no parameters.",
        "none: both keep them, and no gradient reaches them.",
    ),
}
"""Every cause of a difference between two layouts of one layer, by name."""

VIEWS = {
    "parameters": "what the framework itself counts",
    "trainable": "what training changes",
    "stored": "every number that is kept",
    "effective": "what the outputs can tell apart",
}
"""What may be counted, and what it means."""


class Tally(NamedTuple):
    """Two totals of one view: its name, what it means, and how many there are in the first and in the second."""

    view: str
    meaning: str
    first: int
    second: int


@dataclass(frozen=True)
class Cause:
    """One reason why two counts differ.

    Attributes:
        name: A few words that name it; a key of ``WORDS``.
        parameters: How many more the second side has because of it; negative where it has fewer.
        formula: The same in letters, without the sign.
        why: The reason, in one or two sentences.
        effect: Whether the outputs can tell.
        arithmetic: The formula with the numbers of this layer put in.
        layer: The name of the layer in a network; else empty.
    """

    name: str
    parameters: int
    formula: str
    why: str
    effect: str
    arithmetic: str
    layer: str = ""


@dataclass(frozen=True)
class Explanation:
    """Two counts, and the causes of their difference.

    Attributes:
        first: The count of the first framework.
        second: The count of the second framework.
        causes: They add up to ``difference``.
        opening: What one gate is, in a sentence with numbers.
        notes: What does not change either count.
        tallies: The totals of both sides, counted in more than one way.
    """

    first: Count
    second: Count
    causes: tuple[Cause, ...]
    opening: str
    notes: tuple[str, ...]
    tallies: tuple[Tally, ...] = ()

    @property
    def difference(self) -> int:
        """Return how many more parameters the second side has."""
        return self.second.total - self.first.total

    def __str__(self) -> str:
        a, b = self.first, self.second
        lines = [self.opening] if self.opening else []
        lines.append(f"{a.framework} {a.total:,}, {b.framework} {b.total:,}: a difference of {self.difference:+,}.")
        for cause in self.causes:
            name = f"{cause.layer}: {cause.name}" if cause.layer else cause.name
            lines.append(f"  {cause.parameters:+,} = {cause.arithmetic}: {name}. {cause.why}")
            lines.append(f"      {cause.effect[0].upper()}{cause.effect[1:]}")
        if not self.causes:
            lines.append("  Both store the same numbers.")
        return "\n".join([*lines, *self.notes])

    def _repr_markdown_(self) -> str:
        from gatewise.report.teaching import shown

        return shown(self, "github")

    def _repr_html_(self) -> str:
        from gatewise.report.teaching import shown

        return shown(self, "html")


def explain(spec: Spec, first: Layout, second: Layout) -> Explanation:
    """Explain why two layouts of one layer differ in count.

    A layout whose class computes another function of the same weights alone, as a GRU of the other reset, is counted
    with that, and the first note says that the two are different functions.

    Raises:
        UnsupportedSpecError: One of them cannot hold the layer.

    >>> from gatewise.registry import layout
    >>> from gatewise.core.spec import LSTM
    >>> spec = LSTM(3, 50)
    >>> told = explain(spec, layout("keras", spec), layout("torch", spec))
    >>> told.difference, [(cause.name, cause.parameters, cause.formula) for cause in told.causes]
    (200, [('second bias', 200, '4·units')])
    """
    sides = stored_as(spec, first), stored_as(spec, second)
    if spec not in sides:
        sides = spec, spec  # Neither has it: that is refused.
    counts = count(sides[0], first), count(sides[1], second)
    # Of two resets the later one decides: there the reset gate scales the candidate's recurrent bias.
    named = next((side for side in sides if side.options().get("reset") == "after"), spec)
    causes = tuple(layout_causes(spec, first, second, of=counted, named=named))
    said = (*_different(spec, first, second), *_other_classes(spec, first, second), *counts[0].notes)
    return Explanation(*counts, causes, gate_sentence(spec), said, _tallies(*counts))


def stored_as(spec: Spec, layout: Layout) -> Spec:
    """Return the layer that a layout stores for this one: with what its class computes, where that is another function.

    >>> from gatewise.core.spec import GRU
    >>> from gatewise.registry import layout
    >>> stored_as(GRU(3, 5), layout("tf1", GRU(3, 5)))
    GRU(features=3, units=5, reset='before')
    """
    found, own = gaps(layout, spec), {"reset": layout.reset}
    own |= {option: can.default for option, can in lacking(layout, spec).items() if option in ACTIVATING}
    if not all(gap.option in own for gap in found):
        return spec  # Something else is missing: that is refused.
    return spec.replace(**{gap.option: own[gap.option] for gap in found})


ACTIVATING = ("activation", "recurrent_activation")
"""Options that change what is computed, and nothing of what is stored."""


def _different(spec: Spec, first: Layout, second: Layout) -> tuple[str, ...]:
    """Say that two layouts store different functions, where they do."""
    sides = [stored_as(spec, layout).options() for layout in (first, second)]
    said = []
    if sides[0].get("reset") != sides[1].get("reset"):
        said.append(f"{first} resets {sides[0]['reset']} the recurrent product, {second} {sides[1]['reset']} it.")
    for layout in dict.fromkeys((first, second)):
        said += [gap.why for gap in gaps(layout, spec) if gap.option in ACTIVATING]
    return (f"Two different functions: {' '.join(said)} No weights make their outputs agree.",) if said else ()


def _other_classes(spec: Spec, *layouts: Layout) -> tuple[str, ...]:
    """Say which class computes a layer where that of a layout has its tensors and another function."""
    said = []
    for layout in dict.fromkeys(layouts):
        needed = requirements(layout, spec) if lacking(layout, spec) and not gaps(layout, spec) else ()
        said += [
            f"{each.why} {each.name} computes it, with the same tensors." for each in needed if each.kind == "class"
        ]
    return tuple(said)


def layout_causes(
    spec: Spec,
    first: Layout,
    second: Layout,
    *,
    of: Callable[[Spec, Layout], Collection[Key]],
    labels: tuple[str, str] | None = None,
    named: Spec | None = None,
) -> Iterator[Cause]:
    """Yield why two layouts of one layer count differently.

    Args:
        spec: The layer.
        first: One layout.
        second: The other; a cause is positive where it has more.
        of: What of a layer a layout counts.
        labels: What to call the two, if not by the layouts' names.
        named: The layer by which a cause is named, where the given one is still to become it.
    """
    here, there = labels or (str(first), str(second))
    for has, lacks, sign, words_of in (
        (second, first, 1, {"has": there, "lacks": here}),
        (first, second, -1, {"has": here, "lacks": there}),
    ):
        elsewhere = of(spec, lacks)
        grouped: dict[str, list[Key]] = {}
        for key in of(spec, has):
            if key not in elsewhere:
                grouped.setdefault(cause_name(named or spec, key, lacks), []).append(key)
        for name, keys in grouped.items():
            words, written = WORDS[name], formula(spec, keys)
            gates = " and ".join(dict.fromkeys(key.gate for key in keys))
            why = words.why.format(**words_of, gates=gates)
            if name == "second bias" and {key.gate for key in keys} < set(GATES[spec.cell]):
                why += f" Here this is so for gates {gates}."
            parameters = sign * sum(size(spec, key) for key in keys)
            yield Cause(name, parameters, written, why, words.effect, substitute(written, numbers(spec)))


def counted(spec: Spec, layout: Layout) -> list[Key]:
    """Return the blocks of a layer that a layout stores and calls parameters."""
    return [key for key in store(layout, spec).slots if key.part not in layout.uncounted.split()]


def cause_name(spec: Spec, key: Key, lacks: Layout) -> str:
    """Return the cause, a key of ``WORDS``, of a block that one layout does not count."""
    if key.part in lacks.uncounted.split():
        return "moving statistics"
    if key.gate in lacks.tied:
        return "coupled gate"
    if key.part not in wanted_parts(spec):
        return "bias that is always stored" if "bias" in key.part else "peepholes that are always stored"
    return "second bias" if key.gate in summed_gates(spec) else "candidate's recurrent bias"


def explain_network(
    network: Network, first: str, second: str, layouts: dict[str, tuple[Layout, Layout]]
) -> Explanation:
    """Explain a network layer by layer; ``layouts`` has both layouts of each layer by the layer's name."""
    counts = []
    for side, name in enumerate((first, second)):
        own = {layer: pair[side] for layer, pair in layouts.items()}
        layers = [
            layer.replace(spec=stored_as(layer.spec, own[layer.owner])) if layer.spec.cell else layer
            for layer in network.layers
        ]
        counts.append(count_network(network.replace(layers=tuple(layers)), name, own))
    causes: list[Cause] = []
    said: list[str] = []
    for layer in network.weighted:
        told = explain(layer.spec, *layouts[layer.name])
        causes += [dataclasses.replace(cause, layer=layer.name) for cause in told.causes]
        said += _different(layer.spec, *layouts[layer.name])
    weighted = list(network.weighted)
    opening = gate_sentence(weighted[0].spec) if len(weighted) == 1 else ""
    notes = tuple(dict.fromkeys((*said, *counts[0].notes)))
    return Explanation(counts[0], counts[1], tuple(causes), opening, notes, _tallies(*counts))


def _tallies(first: Count, second: Count) -> tuple[Tally, ...]:
    return (
        Tally("parameters", VIEWS["parameters"], first.total, second.total),
        Tally("effective", VIEWS["effective"], first.effective, second.effective),
    )
