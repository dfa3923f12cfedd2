"""How many parameters a layer has, tensor by tensor and gate by gate, with the arithmetic in letters.

Counts come from the same slots that the port uses, so the two cannot disagree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from gatewise.core.layout import (
    GATES,
    PARTS,
    Entry,
    Key,
    Layout,
    Node,
    axis_length,
    check_holds,
    store,
    summed_gates,
    wanted_parts,
)
from gatewise.core.record import Record
from gatewise.core.spec import Conv, Recurrent, Spec

if TYPE_CHECKING:
    from gatewise.core.network import Network


class GateTerm(NamedTuple):
    """What one gate has in one stored tensor."""

    gate: str
    part: str
    parameters: int
    formula: str


class Term(NamedTuple):
    """One stored tensor.

    Attributes:
        name: Its name in the framework, behind the layer's name in a network.
        shape: Its shape.
        parameters: How many numbers it holds.
        formula: The same in letters, such as ``4·units·features``.
        gates: Its parts, gate by gate; their parameters add up to the tensor's.
        dimensions: Each length of the shape in letters, such as ``("features", "4·units")``.
        arithmetic: The formula with the numbers of this layer put in.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    formula: str
    gates: tuple[GateTerm, ...]
    dimensions: tuple[str, ...]
    arithmetic: str


class LayerCount(NamedTuple):
    """One layer of a model, as the model's framework summarises it.

    Attributes:
        name: Its name in the model.
        kind: The name of its class.
        shape: The shape of its outputs; empty where the framework does not say it.
        parameters: How many numbers the framework counts in it.
        known: Whether gatewise knows what it computes; else the other framework's count is taken to be the same.
    """

    name: str
    kind: str
    shape: str
    parameters: int
    known: bool


class Count(Record):
    """The parameters of a layer, network or model in one framework.

    Attributes:
        framework: The layout's name, or the framework's for a network.
        terms: One for each stored tensor.
        notes: What does not change the count, said where one might think so.
        effective: How many are left without the redundant ones, which the outputs cannot tell from others: of two
            biases that a gate only sees as a sum, one.
        layers: Of a model the layers in their order, those without weights too; else empty.
        trainable: Of a model, how many numbers training changes; else None.
        optimizer: Of a model, how many of the parameters its optimiser keeps.
        beside: Of a model its count in the other framework, PyTorch or Keras, layer by layer in the same order.
    """

    framework: str
    terms: tuple[Term, ...]
    notes: tuple[str, ...]
    effective: int
    layers: tuple[LayerCount, ...] = ()
    trainable: int | None = None
    optimizer: int = 0
    beside: Count | None = None

    @property
    def total(self) -> int:
        """Return the number of parameters."""
        return sum(term.parameters for term in self.terms)

    def by_gate(self) -> dict[str, int]:
        """Return gate → parameters, over all tensors; ``""`` holds what belongs to no gate."""
        totals: dict[str, int] = {}
        for term in self.terms:
            for part in term.gates:
                totals[part.gate] = totals.get(part.gate, 0) + part.parameters
        return totals

    def __str__(self) -> str:
        lines = [f"{term.name} {term.shape}: {term.parameters:,} = {term.arithmetic}" for term in self.terms]
        if self.layers:
            lines = [
                f"{each.name} ({each.kind}) {each.shape}".rstrip() + f": {each.parameters:,}" for each in self.layers
            ]
        return "\n".join([f"{self.framework}: {self.total:,}", *(f"  {line}" for line in lines), *self.notes])

    def _repr_markdown_(self) -> str:
        from gatewise.report.teaching import shown

        return shown(self, "github")

    def _repr_html_(self) -> str:
        from gatewise.report.teaching import shown

        return shown(self, "html")


def count(spec: Spec, layout: Layout) -> Count:
    """Count the parameters of a layer as a layout stores it.

    Raises:
        UnsupportedSpecError: The layout cannot hold the layer; the option is named.

    >>> from gatewise.core.layout import CANONICAL
    >>> from gatewise.core.spec import Dense
    >>> counted = count(Dense(50, 1), CANONICAL["dense"])
    >>> counted.total, [term.formula for term in counted.terms]
    (51, ['units·features', 'units'])
    """
    check_holds(layout, spec)
    apart, slots = uncounted(spec, layout), store(layout, spec).slots
    buffers = {slot.tensor for key, slot in slots.items() if key in apart}
    terms = tuple(term for term in stored_terms(spec, layout) if term.name not in buffers)
    effective = sum(size(spec, key) for key in slots.keys() - redundant(spec, layout))
    return Count(layout.name, terms, notes(spec), effective)


def stored_terms(spec: Spec, layout: Layout) -> list[Term]:
    """Return a term for each tensor that a layout stores, parameters or not."""
    stored = store(layout, spec)
    keys: dict[str, list[Key]] = {name: [] for name in stored.shapes}
    for key, slot in stored.slots.items():
        keys[slot.tensor].append(key)
    values = numbers(spec)
    terms = []
    for name, shape in stored.shapes.items():
        written = formula(spec, keys[name])
        terms.append(
            Term(
                name,
                shape,
                math.prod(shape),
                written,
                tuple(_gate_terms(spec, keys[name])),
                _dimensions(spec, layout, keys[name][0], shape, written),
                substitute(written, values),
            )
        )
    return terms


def uncounted(spec: Spec, layout: Layout) -> set[Key]:
    """Return the canonical blocks that a layout stores and does not call parameters."""
    return {key for key in store(layout, spec).slots if key.part in layout.uncounted.split()}


TWINS = {"recurrent_bias": "bias", "mean": "shift", "variance": "scale"}
"""Part → the part that can do its work: what the outputs see is the two together."""


def redundant(spec: Spec, layout: Layout) -> set[Key]:
    """Return the stored blocks without which a layer could compute everything that it can compute with them.

    >>> from gatewise.core.spec import LSTM
    >>> from gatewise.registry import layout
    >>> spec = LSTM(3, 50)
    >>> sorted({key.part for key in redundant(spec, layout("torch", spec))})
    ['recurrent_bias']
    """
    slots, wanted, summed = store(layout, spec).slots, wanted_parts(spec), summed_gates(spec)
    return {
        key
        for key in slots
        if key.part not in wanted
        or (key.part in TWINS and key._replace(part=TWINS[key.part]) in slots and (not key.gate or key.gate in summed))
    }


def size(spec: Spec, key: Key) -> int:
    """Return the number of elements of one canonical block."""
    axes = PARTS[spec.cell][key.part].split()
    return math.prod(axis_length(spec, axis, key.layer) for axis in axes if axis != "gate")


def _gate_terms(spec: Spec, keys: list[Key]) -> Iterable[GateTerm]:
    grouped: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        grouped.setdefault((key.gate, key.part), []).append(key)
    for (gate, part), group in grouped.items():
        yield GateTerm(gate, part, sum(size(spec, key) for key in group), formula(spec, group))


# ── formulas ────────────────────────────────────────────────────────────────────────────────────────────────────


def numbers(spec: Spec) -> dict[str, int]:
    """Return the value of each letter that a formula may hold."""
    named = {
        name: value for name, value in spec.options().items() if isinstance(value, int) and not isinstance(value, bool)
    }
    more = ("directions",) if isinstance(spec, Recurrent) else ("channels",) if isinstance(spec, Conv) else ()
    return named | {name: getattr(spec, name) for name in more}


def substitute(formula: str, values: dict[str, int]) -> str:
    """Put numbers into a formula.

    >>> substitute("4·units·features + 4·units", {"units": 50, "features": 3})
    '4·50·3 + 4·50'
    """
    return re.sub(r"[a-z]+", lambda match: str(values[match.group()]), formula)


def formula(spec: Spec, keys: Iterable[Key]) -> str:
    """Write the number of elements of some canonical blocks in letters: one product for each part, added.

    The letters are the options of the spec, and ``directions``; gates stand as a number.

    >>> from gatewise.core.spec import LSTM
    >>> blocks = [Key("bias", layer, 0, gate) for layer in range(2) for gate in "ifgo"]
    >>> formula(LSTM(3, 5, layers=2), blocks)
    'layers·4·units'
    """
    blocks = list(keys)
    layers = axis_length(spec, "layer")
    everywhere = len({key.layer for key in blocks}) == layers
    groups: dict[tuple[str, bool], list[Key]] = {}
    for key in blocks:
        wider = key.layer > 0 and "features" in PARTS[spec.cell][key.part].split()
        groups.setdefault((key.part, wider), []).append(key)
    products = []
    for (part, wider), group in groups.items():
        factors = []
        deep = len({key.layer for key in group})
        if layers > 1 and everywhere and (deep == layers or (wider and deep == layers - 1)):
            factors.append("(layers - 1)" if wider else "layers")
        elif deep > 1:
            factors.append(str(deep))
        if len({key.direction for key in group}) > 1:
            factors.append("directions")
        gates = len({key.gate for key in group})
        if gates > 1:
            factors.append(str(gates))
        factors += [letters(spec, axis, 1 if wider else 0) for axis in PARTS[spec.cell][part].split() if axis != "gate"]
        products.append("·".join(factors) or "1")
    return " + ".join(products) or "0"


def letters(spec: Spec, axis: str, layer: int) -> str:
    """Write the length of a canonical axis in letters."""
    state = "units" if spec.options().get("projection") is None else "projection"
    if axis == "features" and layer > 0:
        return f"directions·{state}" if getattr(spec, "merged_directions", 1) > 1 else state
    if axis == "channels" and axis_length(spec, "groups") == 1:
        return "features"
    return {"state": state, "memory": "units", "layer": "layers", "direction": "directions"}.get(axis, axis)


def _dimensions(spec: Spec, layout: Layout, key: Key, shape: tuple[int, ...], written: str) -> tuple[str, ...]:
    """Write each length of a tensor's shape in letters; a flat buffer's one length is the tensor's formula."""
    entry = next(
        entry
        for entry in layout.entries
        if any(part.name == key.part and key.gate in part.gates for part in entry.parts)
    )
    live = {
        number
        for number, part in enumerate(entry.parts)
        if part.name in wanted_parts(spec) | set(layout.always.split())
    }
    stacked = [
        node.kind != "axis" and any(axis in ("layer", "direction") for part in live for axis in node.axes(part))
        for node in entry.dimensions
    ]
    if stacked == [True]:
        return (written,)
    # Layers differ in width: where a product counts them, no product of letters is its length.
    return tuple(
        str(shape[number])
        if stacked[number] and axis_length(spec, "layer") > 1
        else _length(spec, entry, node, live, key.layer)
        for number, node in enumerate(entry.dimensions)
    )


def _length(spec: Spec, entry: Entry, node: Node, live: set[int], layer: int) -> str:
    inside = [_length(spec, entry, child, live, layer) for child in node.children if live.intersection(child.parts)]
    if node.kind == "sum":
        return " + ".join(inside)
    if node.kind == "either":
        return inside[0]
    if node.kind == "product":
        factors = [f"({text})" if " + " in text else text for text in inside if text != "1"]
        return "·".join(factors) or "1"
    if node.name == "gate":
        return str(len(entry.parts[min(live.intersection(node.parts))].gates))
    return node.name if node.name == "1" else letters(spec, node.name, layer)


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────

WITHOUT_PARAMETERS = {
    "activation": "The activation ({}) has no parameters.",
    "recurrent_activation": "The gates' activation ({}) has no parameters.",
    "dropout": "Dropout ({}) has no parameters.",
    "recurrent_dropout": "Recurrent dropout ({}) has no parameters.",
    "go_backwards": "Reading the sequence backwards does not change the count.",
    "return_sequences": "return_sequences chooses what comes out; it does not change the count.",
    "return_state": "return_state chooses what comes out; it does not change the count.",
    "cell_clip": "Clipping the memory (at {}) has no parameters.",
    "timesteps": "The number of timesteps ({}) plays no part: the same weights are used at every step.",
    "batch": "The batch size ({}) plays no part: the same weights are used for every sample.",
}
"""What a person might think changes the count, and why it does not."""

_SILENT = {"Dense": {"activation"}}


def notes(spec: Spec, **given: int | None) -> tuple[str, ...]:
    """Return a sentence for each unusual option that leaves the count alone, and for the timesteps or batch given.

    >>> from gatewise.core.spec import LSTM
    >>> notes(LSTM(3, 50, activation="relu"), timesteps=400)[0]
    'The activation (relu) has no parameters.'
    """
    defaults = {field: getattr(type(spec), field, None) for field in spec.options()}
    unusual = {name: value for name, value in spec.options().items() if value != defaults[name]}
    unusual |= {name: value for name, value in given.items() if value is not None}
    silent = _SILENT.get(type(spec).__name__, set())
    return tuple(
        words.format(unusual[name])
        for name, words in WITHOUT_PARAMETERS.items()
        if name in unusual and name not in silent
    )


def gate_sentence(spec: Spec) -> str:
    """Say what one gate is, with the numbers of the first layer; empty for a cell without gates.

    >>> from gatewise.core.spec import LSTM
    >>> gate_sentence(LSTM(3, 2))
    'One gate is a dense layer on the input and the state side by side: (3 + 2)·2 + 2 = 12, and an LSTM has 4 gates.'
    """
    if not isinstance(spec, Recurrent):
        return ""
    gates, x, h, s = len(GATES[spec.cell]), spec.features, spec.units, spec.state
    bias, one = (f" + {h}", (x + s) * h + h) if spec.bias else ("", (x + s) * h)
    kind = type(spec).__name__
    has = f"{'an' if kind[0] in 'LR' else 'a'} {kind} has {gates} gate{'s' if gates > 1 else ''}"
    size = f"({x} + {s})·{h}{bias} = {one:,}"
    return f"One gate is a dense layer on the input and the state side by side: {size}, and {has}."


def count_network(network: Network, framework: str, layouts: dict[str, Layout]) -> Count:
    """Count a network; ``layouts`` has the layout of each layer by the layer's name."""
    terms: list[Term] = []
    said: list[str] = []
    effective = 0
    for layer in network.weighted:
        counted = count(layer.spec, layouts[layer.name])
        terms += [term._replace(name=f"{layer.name}/{term.name}") for term in counted.terms]
        said += counted.notes
        effective += counted.effective
    return Count(framework, tuple(terms), tuple(dict.fromkeys(said)), effective)
