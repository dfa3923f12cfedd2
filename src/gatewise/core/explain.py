"""Why two counts differ: named causes that add up to the difference exactly.

A cause is a set of canonical blocks that one side stores and the other does not. Since every stored number belongs to
one block, nothing can be left over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gatewise.core.count import Count, count, count_network, formula, gate_sentence, numbers, size, substitute
from gatewise.core.layout import GATES, Key, Layout, store, summed_gates, wanted_parts
from gatewise.core.network import Network
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
}
"""Every cause of a difference between two layouts of one layer, by name."""


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
    """

    first: Count
    second: Count
    causes: tuple[Cause, ...]
    opening: str
    notes: tuple[str, ...]

    @property
    def difference(self) -> int:
        """Return how many more parameters the second side has."""
        return self.second.total - self.first.total

    def __str__(self) -> str:
        a, b = self.first, self.second
        lines = [self.opening] if self.opening else []
        lines.append(f"{a.framework} {a.total:,}, {b.framework} {b.total:,}: a difference of {self.difference:+,}.")
        for cause in self.causes:
            lines.append(f"  {cause.parameters:+,} = {cause.arithmetic}: {cause.name}. {cause.why}")
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

    Raises:
        UnsupportedSpecError: One of them cannot hold the layer.

    >>> from gatewise.registry import layout
    >>> from gatewise.core.spec import LSTM
    >>> spec = LSTM(3, 50)
    >>> told = explain(spec, layout("keras", spec), layout("torch", spec))
    >>> told.difference, [(cause.name, cause.parameters, cause.formula) for cause in told.causes]
    (200, [('second bias', 200, '4·units')])
    """
    counts = count(spec, first), count(spec, second)
    causes = (*_causes(spec, second, first, 1), *_causes(spec, first, second, -1))
    return Explanation(*counts, causes, gate_sentence(spec), counts[0].notes)


def _causes(spec: Spec, has: Layout, lacks: Layout, sign: int) -> Iterator[Cause]:
    """Yield what one layout stores and the other does not."""
    there, elsewhere = store(has, spec).slots, store(lacks, spec).slots
    grouped: dict[str, list[Key]] = {}
    for key in there:
        if key not in elsewhere:
            grouped.setdefault(_name(spec, key, lacks), []).append(key)
    for name, keys in grouped.items():
        words, written = WORDS[name], formula(spec, keys)
        gates = " and ".join(dict.fromkeys(key.gate for key in keys))
        why = words.why.format(has=has, lacks=lacks, gates=gates)
        if name == "second bias" and {key.gate for key in keys} < set(GATES[spec.cell]):
            why += f" Here this is so for gates {gates}."
        yield Cause(
            name,
            sign * sum(size(spec, key) for key in keys),
            written,
            why,
            words.effect,
            substitute(written, numbers(spec)),
        )


def _name(spec: Spec, key: Key, lacks: Layout) -> str:
    if key.gate in lacks.tied:
        return "coupled gate"
    if key.part not in wanted_parts(spec):
        return "bias that is always stored" if "bias" in key.part else "peepholes that are always stored"
    return "second bias" if key.gate in summed_gates(spec) else "candidate's recurrent bias"


def explain_network(
    network: Network, first: str, second: str, layouts: dict[str, tuple[Layout, Layout]]
) -> Explanation:
    """Explain a network layer by layer; ``layouts`` has both layouts of each layer by the layer's name."""
    counts = [
        count_network(network, name, {layer: pair[side] for layer, pair in layouts.items()})
        for side, name in enumerate((first, second))
    ]
    causes = [
        dataclasses.replace(cause, layer=layer.name)
        for layer in network.weighted
        for cause in explain(layer.spec, *layouts[layer.name]).causes
    ]
    opening = next((gate_sentence(layer.spec) for layer in network.layers if gate_sentence(layer.spec)), "")
    return Explanation(counts[0], counts[1], tuple(causes), opening, counts[0].notes)
