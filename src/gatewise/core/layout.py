"""How one framework stores one cell: a layout, the notation it is written in, and where that puts each weight.

A layout is data. ``"weight_ih_l{layer}{direction}": "kernel: (gate units) features"`` says: this tensor holds the
kernel; its first dimension counts the gates, and within each gate the units; its second one the features. The
notation is that of einops, with ``+`` for "concatenated" and ``|`` for "one length with two names"::

    entry  = name template  ->  part { "+" part } ":" { axis } [ "~" axis axis ]
    part   = canonical part [ "[" gate letters "]" ]
    axis   = axis name | integer | "(" {axis} ")" | "(" {axis} "+" {axis} … ")" | "(" {axis} "|" {axis} … ")"
    name template = text with { axis [":" words] }
    words  = [ alone "|" ] word { "," word } ;  "#" is the index

A pattern is parsed once, into nodes. From nodes and a spec, ``store`` computes the shape of every tensor and the
slot of every canonical block: its offset, and the stride of each of its axes. Everything else is derived from slots.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from gatewise.core.choices import Choice, choice
from gatewise.core.record import Record
from gatewise.core.spec import Spec
from gatewise.errors import LayoutError, UnsupportedSpecError, nearest

GATES = {"lstm": "ifgo", "gru": "rzn", "rnn": "h"} | dict.fromkeys(
    ("dense", "embedding", "batchnorm", "layernorm", "conv1d", "conv2d", "attention", "additive_attention"), ""
)
"""Canonical gates of each kind of cell, in canonical order."""

_RECURRENT = {
    "kernel": "gate units features",
    "recurrent_kernel": "gate units state",
    "bias": "gate units",
    "recurrent_bias": "gate units",
}
PARTS: dict[str, dict[str, str]] = {
    "lstm": {
        **_RECURRENT,
        "peephole": "gate units",
        "peephole_kernel": "gate units memory",
        "projection": "state units",
    },
    "gru": _RECURRENT,
    "rnn": _RECURRENT,
    "dense": {"kernel": "units features", "bias": "units"},
    "embedding": {"table": "tokens units"},
    "batchnorm": {"scale": "features", "shift": "features", "mean": "features", "variance": "features"},
    "layernorm": {"scale": "features", "shift": "features"},
    "conv1d": {"kernel": "units channels width", "bias": "units"},
    "conv2d": {"kernel": "units channels height width", "bias": "units"},
    "attention": {"scale": "", "concat_score": ""},
    "additive_attention": {"scale": "features"},
}
"""Canonical parts of each kind of cell, each with its axes in canonical order."""

GATES_OF_PART = {"peephole": "ifo", "peephole_kernel": "ifo"}
"""Parts that not every gate has."""

OPTION_OF_PART = {
    "bias": "bias",
    "recurrent_bias": "bias",
    "peephole": "peepholes",
    "peephole_kernel": "peepholes",
    "projection": "projection",
    "scale": "scale",
    "shift": "shift",
}
"""The option of a spec that calls a part into being; the other parts always are."""

VANISHING = ("bias", "recurrent_bias", "peephole", "peephole_kernel")
"""Parts that leave the function alone where they are zero."""

OUTER = ("layer", "direction")
"""Axes that may stand in a tensor's name or in its pattern, or in neither."""

UNLESS_LISTED = {"cell_clip": "None"}
"""What a class computes where ``computes`` says nothing; other options are free."""


def gates_of(cell: str, part: str) -> str:
    """Return the gates that a part has, in canonical order; a part without a gate axis has none.

    >>> gates_of("lstm", "peephole"), gates_of("lstm", "kernel"), gates_of("lstm", "projection")
    ('ifo', 'ifgo', '')
    """
    if "gate" not in PARTS[cell][part].split():
        return ""
    return GATES_OF_PART.get(part, GATES[cell])


def summed_gates(spec: Spec) -> str:
    """Return the gates that see their two biases only as a sum.

    A GRU that resets after the recurrent product multiplies the recurrent bias of ``n`` by the reset gate; all other
    gates of all cells add the two.

    >>> from gatewise.core.spec import GRU
    >>> summed_gates(GRU(3, 5, reset="before")), summed_gates(GRU(3, 5, reset="after"))
    ('rzn', 'rz')
    """
    return "rz" if getattr(spec, "reset", None) == "after" else GATES[spec.cell]


def wanted_parts(spec: Spec) -> set[str]:
    """Return the canonical parts that a spec calls for, whatever a layout stores of them."""
    wanted = set(PARTS[spec.cell])
    options = spec.options()
    if not options.get("bias", True):
        wanted -= {"bias", "recurrent_bias"}
    peepholes = options.get("peepholes", False)
    wanted -= {"peephole"} if peepholes is not True else set()
    wanted -= {"peephole_kernel"} if peepholes != "full" else set()
    if options.get("projection") is None:
        wanted -= {"projection"}
    wanted -= {"concat_score"} if options.get("score") != "concat" else set()
    return wanted - {part for part in ("scale", "shift") if not options.get(part, True)}


def axis_length(spec: Spec, axis: str, layer: int = 0) -> int:
    """Return the length of a canonical axis other than ``gate``, for one layer of a stack.

    >>> from gatewise.core.spec import LSTM
    >>> stack = LSTM(3, 5, layers=2, bidirectional=True)
    >>> axis_length(stack, "features", 0), axis_length(stack, "features", 1)
    (3, 10)
    """
    if axis == "features" and layer > 0:
        return int(spec.merged_directions * spec.state)  # type: ignore[attr-defined]
    attribute = {"layer": "layers", "direction": "directions", "memory": "units"}.get(axis, axis)
    return int(getattr(spec, attribute, 1))


# ── the notation ────────────────────────────────────────────────────────────────────────────────────────────────


class Node(NamedTuple):
    """One piece of a parsed pattern.

    ``kind`` is ``axis``, ``product`` (axes packed, leftmost slowest), ``sum`` (concatenated) or ``either`` (one
    length with a name for each part). ``parts`` are the numbers of the parts in the head that it belongs to.
    """

    kind: str
    name: str
    children: tuple[Node, ...]
    parts: tuple[int, ...]

    def axes(self, part: int) -> Iterator[str]:
        """Yield the axes that one part has below this node, left to right."""
        if part in self.parts:
            if self.kind == "axis":
                yield self.name
            for child in self.children:
                yield from child.axes(part)


class Part(NamedTuple):
    """One canonical part in the head of a pattern, with the gates it holds in the order they lie in."""

    name: str
    gates: str


class Entry(NamedTuple):
    """One line of a layout, parsed: a tensor, or the family of tensors that its name template spells."""

    template: tuple[str | tuple[str, str], ...]  # text, or (axis, words)
    parts: tuple[Part, ...]
    dimensions: tuple[Node, ...]
    memory: tuple[str, ...]  # the two axes behind "~", or nothing

    def axes_in_name(self) -> tuple[str, ...]:
        """Return the axes that the name template spells; ``position`` is layer and direction in one."""
        named = [piece[0] for piece in self.template if not isinstance(piece, str)]
        return tuple(axis for name in named for axis in (OUTER if name == "position" else (name,)))


_TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*)|(\d+)|([()+|~:\[\]]))")
_FIELD = re.compile(r"\{(\w+)(?::([^}]*))?\}")


class _Reader:
    """Reads one pattern from left to right; every complaint points at the place."""

    def __init__(self, owner: str, cell: str, gates: str, missing: str, text: str) -> None:
        self.owner, self.cell, self.gates, self.missing, self.text = owner, cell, gates, missing, text
        self.tokens: list[tuple[str, int]] = []
        place = 0
        while place < len(text.rstrip()):
            match = _TOKEN.match(text, place)
            if not match:
                start = place + len(text[place:]) - len(text[place:].lstrip())
                raise self.error(start, "an axis, a number or one of ( ) + | ~ : [ ]")
            self.tokens.append((match.group(match.lastindex or 0), match.start(match.lastindex or 0)))
            place = match.end()
        self.next = 0

    def error(self, place: int, expected: str) -> LayoutError:
        found = repr(self.text[place:].split()[0]) if self.text[place:].split() else "the end"
        return LayoutError(
            f"Cannot read the pattern of {self.owner}: {found} at character {place + 1}.",
            f"{self.text}\n{' ' * place}^ expected {expected}",
            "The grammar stands at the head of gatewise/core/layout.py.",
        )

    def peek(self) -> str:
        return self.tokens[self.next][0] if self.next < len(self.tokens) else ""

    def place(self) -> int:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else len(self.text)

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise self.error(self.place(), repr(expected) if expected else "more")
        self.next += 1
        return token

    def part(self) -> Part:
        place, known = self.place(), PARTS[self.cell]
        name = self.peek()
        if name not in known:
            raise self.error(place, f"a part of the {self.cell} cell: {', '.join(known)}")
        self.take()
        gates = "".join(gate for gate in self.gates if gate in gates_of(self.cell, name) and gate not in self.missing)
        if self.peek() == "[":
            self.take()
            place, gates = self.place(), self.take()
            if len(set(gates)) != len(gates) or not set(gates) <= set(gates_of(self.cell, name)):
                raise self.error(
                    place, f"some of the gates {' '.join(gates_of(self.cell, name)) or 'of a part that has any'}"
                )
            self.take("]")
        return Part(name, gates)

    def axis(self, known: set[str]) -> Node:
        place, token = self.place(), self.peek()
        if token == "(":
            self.take()
            alternatives, separators = [self.axes(known)], set()
            while self.peek() in ("+", "|"):
                separators.add(self.take())
                alternatives.append(self.axes(known))
            if len(separators) > 1:
                raise self.error(place, "either + or | between these parentheses, not both")
            self.take(")")
            products = [_product(nodes) for nodes in alternatives]
            if not separators:
                return products[0]
            return Node("sum" if separators == {"+"} else "either", "", tuple(products), ())
        if token == "1" or token in known:
            return Node("axis", self.take(), (), ())
        raise self.error(place, f"one of the axes {', '.join(sorted(known))}, the number 1, or a parenthesis")

    def axes(self, known: set[str]) -> list[Node]:
        nodes = []
        while self.peek() not in ("", ")", "+", "|", "~"):
            nodes.append(self.axis(known))
        return nodes


def _product(nodes: list[Node]) -> Node:
    return nodes[0] if len(nodes) == 1 else Node("product", "", tuple(nodes), ())


def _has_sum(node: Node) -> bool:
    return node.kind == "sum" or any(map(_has_sum, node.children))


def _own(node: Node, leaves: Iterator[int], every: tuple[int, ...]) -> Node:
    """Say of each node which parts it belongs to: the leaves of a sum, left to right, are the parts in order."""
    if node.kind == "either":
        return Node(node.kind, "", tuple(_own(child, leaves, (i,)) for i, child in enumerate(node.children)), every)
    if not _has_sum(node):
        return Node(node.kind, node.name, tuple(_own(child, leaves, every) for child in node.children), every)
    if node.kind == "sum":
        children = []
        for child in node.children:
            owner = every if _has_sum(child) else (next(leaves, -1),)
            children.append(_own(child, leaves, owner))
        return Node("sum", "", tuple(children), tuple(i for child in children for i in child.parts))
    # A product around a sum belongs to the parts of that sum, and so do the axes beside it.
    inner = [_own(child, leaves, every) if _has_sum(child) else child for child in node.children]
    below = tuple(i for child in inner if _has_sum(child) for i in child.parts)
    return Node(
        "product", "", tuple(child if _has_sum(child) else _own(child, leaves, below) for child in inner), below
    )


def _parse(layout: Layout, template: str, pattern: str) -> Entry:
    owner = f"{template!r} in {layout.name}"
    reader = _Reader(owner, layout.cell, layout.gates, "".join(layout.tied), pattern)
    parts = [reader.part()]
    while reader.peek() == "+":
        reader.take()
        parts.append(reader.part())
    reader.take(":")
    known = {axis for part in parts for axis in PARTS[layout.cell][part.name].split()} | set(OUTER)
    nodes = reader.axes(known)
    memory: tuple[str, ...] = ()
    if reader.peek() == "~":
        reader.take()
        memory = (reader.axis(known).name, reader.axis(known).name)
    if reader.peek():
        raise reader.error(reader.place(), "the end of the pattern, or ~ and two axes")

    every = tuple(range(len(parts)))
    dimensions = []
    for node in nodes:
        leaves = iter(every)
        owned = _own(node, leaves, every)
        if _has_sum(node) and sorted(owned.parts) != list(every):
            raise LayoutError(
                f"{owner} lays {len(set(owned.parts))} blocks end to end for {len(parts)} parts.",
                f"{pattern}: each leaf of a sum belongs to one part of the head, in that order.",
                "Give the sum one leaf for each part.",
            )
        if node.kind == "either" and len(node.children) != len(parts):
            raise LayoutError(
                f"{owner} gives one length {len(node.children)} names for {len(parts)} parts.",
                f"{pattern}: (a | b) has one name for each part of the head, in that order.",
                "Name the axis of each part.",
            )
        dimensions.append(owned)

    name: list[str | tuple[str, str]] = []
    end = 0
    for match in _FIELD.finditer(template):
        axis, words = match.group(1), match.group(2)
        if axis not in ("gate", "position", *OUTER):
            raise LayoutError(
                f"{owner}: a name cannot spell {axis!r}.",
                "A name template spells gate, layer, direction or position (layer and direction in one).",
                nearest(axis, ["gate", "position", *OUTER]) + "Put other axes into the pattern.",
            )
        name += [
            template[end : match.start()],
            (axis, words if words is not None else layout.names.get(axis, _WORDS.get(axis, "#"))),
        ]
        end = match.end()
    name.append(template[end:])
    entry = Entry(tuple(piece for piece in name if piece), tuple(parts), tuple(dimensions), memory)
    _check_axes(layout, owner, pattern, entry)
    return entry


_WORDS = {"direction": ",_reverse"}


def _check_axes(layout: Layout, owner: str, pattern: str, entry: Entry) -> None:
    """Every axis of a part occurs exactly once, in the pattern or in the name; one gate letter may be left out."""
    for number, part in enumerate(entry.parts):
        there = [axis for node in entry.dimensions for axis in node.axes(number) if axis != "1"] + list(
            entry.axes_in_name()
        )
        needed = [
            axis for axis in PARTS[layout.cell][part.name].split() if not (axis == "gate" and len(part.gates) == 1)
        ]
        for axis in needed:
            if axis not in there:
                raise LayoutError(
                    f"{owner} has no place for the axis {axis!r} of {part.name}.",
                    f"{pattern}: {part.name} has the axes {PARTS[layout.cell][part.name]}.",
                    "Every axis of a part occurs once, in the pattern or in the name.",
                )
        for axis in there:
            if there.count(axis) > 1 or (axis not in OUTER and axis not in PARTS[layout.cell][part.name].split()):
                raise LayoutError(
                    f"{owner} has the axis {axis!r} {'twice' if there.count(axis) > 1 else 'that'} for {part.name}"
                    + (" does not have." if there.count(axis) == 1 else "."),
                    f"{pattern}: {part.name} has the axes {PARTS[layout.cell][part.name]}.",
                    "Every axis of a part occurs once, in the pattern or in the name.",
                )
        if entry.memory and not set(entry.memory) <= set(there) - {"gate", *OUTER}:
            raise LayoutError(
                f"{owner} reorders the memory of axes that {part.name} does not have.",
                f"{pattern}: behind ~ stand two axes of {part.name} other than gate.",
                "Name two of " + ", ".join(PARTS[layout.cell][part.name].split()) + ".",
            )


# ── the layout ──────────────────────────────────────────────────────────────────────────────────────────────────


_NOTHING: Mapping[str, Any] = {}


class Layout(Record):
    """How one framework stores one cell.

    Args:
        name: ``"framework:Class"``.
        cell: ``lstm``, ``gru``, ``rnn``, ``dense``, ``embedding``, ``batchnorm``, ``layernorm``, ``conv1d``,
            ``conv2d``, ``attention`` or ``additive_attention``.
        gates: The canonical gate letters in the order this framework stores them.
        tensors: Name template → pattern, in the order the framework lists its tensors.
        source: Where a reader can check it.
        verified: ``"live"`` where a test runs the framework with mapped weights, ``"source"`` where it was only read.
        names: How an axis is spelled inside names.
        adds: Gate → constant that the framework adds to it at run time.
        reset: Which GRUs it computes: ``"before"``, ``"after"`` or both.
        update: Whether the update gate ``"keeps"`` the old state, ``h' = z*h + (1-z)*n``, or ``"takes"`` the new one.
        always: Parts that are stored, as zeros, even where the spec lacks them.
        uncounted: Parts that are stored and that the framework does not call parameters.
        together: Options of which it has all or none.
        tied: Gate that is not stored → the gate it is one minus of.
        computes: Option → what its class can compute and how it is told; ``choices.py`` has the words. An option that
            is not listed may have any value.
        instead: Layouts of wider classes, for what this class does not compute or hold.
        supplied: The class that gatewise brings, where the framework has none of its own.
        since: Option → the version from which its class computes it as said here, and what it does before.
        note: What a reader should know beside the table, in one sentence.

    Raises:
        LayoutError: A pattern cannot be read; the message says where and what was expected.

    >>> Layout("mine:LSTM", cell="lstm", gates="ifgo", tensors={"w": "kernel: (gate unit) features"}, source="")
    Traceback (most recent call last):
    gatewise.errors.LayoutError: Cannot read the pattern of 'w' in mine:LSTM: 'unit)' at character 15.
      kernel: (gate unit) features
                    ^ expected one of the axes direction, features, gate, layer, units, the number 1, or a parenthesis
      Hint: The grammar stands at the head of gatewise/core/layout.py.
    """

    name: str
    cell: str
    gates: str = ""
    tensors: Mapping[str, str] = _NOTHING
    source: str = ""
    verified: str = "source"
    names: Mapping[str, str] = _NOTHING
    adds: Mapping[str, float] = _NOTHING
    reset: str = "before after"
    update: str = "keeps"
    always: str = ""
    uncounted: str = ""
    together: str = ""
    tied: Mapping[str, str] = _NOTHING
    computes: Mapping[str, str] = _NOTHING
    instead: tuple[Layout, ...] = ()
    supplied: str = ""
    since: Mapping[str, tuple[str, str]] = _NOTHING
    note: str = ""
    entries: ClassVar[tuple[Entry, ...]]  # of one layout: its patterns, read; no value that is given

    def __post_init__(self) -> None:
        if self.cell not in PARTS or sorted(self.gates) != sorted(GATES[self.cell]):
            raise LayoutError(
                f"{self.name}: gates {self.gates!r} of the cell {self.cell!r}.",
                "Cells and their gates, in any order: "
                + ", ".join(f"{cell} {gates!r}" for cell, gates in GATES.items()),
                "Give each gate once.",
            )
        entries = tuple(_parse(self, template, pattern) for template, pattern in self.tensors.items())
        object.__setattr__(self, "entries", entries)

    @property
    def framework(self) -> str:
        """The name before the colon."""
        return self.name.partition(":")[0]

    def parts(self) -> set[str]:
        """Return the canonical parts that it can hold."""
        return {part.name for entry in self.entries for part in entry.parts}

    def has_axis(self, axis: str) -> bool:
        """Say whether it can hold more than one layer, or more than one direction."""
        return any(
            axis in entry.axes_in_name() or any(axis in node.axes(0) for node in entry.dimensions)
            for entry in self.entries
        )

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and vars(self) == vars(other))

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


TOPICS = (
    "initialisation",
    "forget bias",
    "activations",
    "dropout",
    "masks",
    "time axis",
    "state order",
    "directions",
)
"""What frameworks do otherwise that is no weight, and that a port has to know."""


class Default(NamedTuple):
    """What a framework does in one respect unless it is told otherwise.

    Attributes:
        topic: One of ``TOPICS``.
        text: What it does, in a sentence.
        source: Where a reader can check it.
    """

    topic: str
    text: str
    source: str


def defaults(source: str, **texts: str | tuple[str, str]) -> tuple[Default, ...]:
    """Return the defaults of a framework from one text a topic, or a text with a source of its own.

    >>> defaults("mine/rnn.py", time_axis="Second.")
    (Default(topic='time axis', text='Second.', source='mine/rnn.py'),)
    """
    made = []
    for name, said in texts.items():
        text, where = (said, source) if isinstance(said, str) else said
        made.append(Default(name.replace("_", " "), text, where))
    return tuple(made)


WHOSE = ("ours", "theirs", "impossible")
"""Whose affair a limit is: open work of ours; a framework that cannot do it; nobody can."""


class Limit(NamedTuple):
    """What of a live object a port refuses, or leaves behind and says so.

    Attributes:
        option: The option, as the framework writes it.
        value: Which values of it, in words.
        whose: One of ``WHOSE``.
        why: The reason, in a sentence.
    """

    option: str
    value: str
    whose: str
    why: str


class Framework(NamedTuple):
    """What ``layouts.py`` of an adapter package declares; readable without the framework itself.

    ``needs`` are the packages to import before it can run here. The first layout of each cell is the framework's
    default for that cell, the one that ``"torch"`` means without a class behind it. ``defaults`` is what it does unless
    it is told otherwise, where that is no weight; ``limits`` are what a port of its objects cannot bring along. Where
    it computes with a package of one's choice, ``backend`` says which it is here.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    layouts: tuple[Layout, ...]
    defaults: tuple[Default, ...] = ()
    limits: tuple[Limit, ...] = ()
    backend: Callable[[], str] | None = None


_CANONICAL_PREFIX = "{layer:|layer_#/}{direction:|forward/,backward/}"
CANONICAL = {
    cell: Layout(
        f"canonical:{cell}",
        cell=cell,
        gates=GATES[cell],
        tensors={(_CANONICAL_PREFIX if GATES[cell] else "") + part: f"{part}: {axes}" for part, axes in parts.items()},
        source="gatewise",
        computes={"cell_clip": "*"},
    )
    for cell, parts in PARTS.items()
}
"""The canonical parts themselves, as one more layout: what a draw of weights and the reference cells use."""


class Gap(NamedTuple):
    """One option of a spec that a layout cannot hold, and why.

    ``parts`` would be missing from it; ``wider`` is a layout of the framework that can hold the layer.
    """

    option: str
    value: Any
    why: str
    way_out: str
    parts: tuple[str, ...] = ()
    wider: str = ""

    def blocks(self) -> bool:
        """Say whether the function is another one whatever the weights: false where the missing parts may be zero."""
        return not self.parts or not set(self.parts) <= set(VANISHING)


def gaps(layout: Layout, spec: Spec) -> list[Gap]:
    """List what of a spec a layout cannot hold.

    >>> from gatewise.core.spec import LSTM
    >>> small = Layout("mine:Cell", cell="lstm", gates="ifgo", tensors={"w": "kernel: (gate units) features"})
    >>> [gap.option for gap in gaps(small, LSTM(3, 5, layers=2, bias=False))]
    ['layers']
    """
    found, options = [], spec.options()
    for axis, option, lone in (("layer", "layers", 1), ("direction", "bidirectional", False)):
        if options.get(option, lone) != lone and not layout.has_axis(axis):
            found.append(
                Gap(option, options[option], f"{layout} is one {axis}.", f"Describe each {axis} as a layer of its own.")
            )
    held = layout.parts()
    for option in ("bias", "peepholes", "projection"):
        missing = tuple(
            part
            for part in PARTS[spec.cell]
            if part in wanted_parts(spec) - held and OPTION_OF_PART.get(part) == option
        )
        if option == "bias" and "bias" in held:
            missing = ()  # A second bias is a way of storing, not something that a spec asks for.
        if missing:
            found.append(
                Gap(
                    option,
                    options[option],
                    f"{layout} has no {' or '.join(missing).replace('_', ' ')}.",
                    f"Leave {option} out, or choose another framework.",
                    missing,
                )
            )
    if "reset" in options and options["reset"] not in layout.reset.split():
        why = f"{layout} resets {layout.reset} the recurrent product, this layer {options['reset']} it."
        found.append(
            Gap(
                "reset",
                options["reset"],
                why,
                f"Use reset={layout.reset!r}, which is another function, or another framework.",
            )
        )
    differing = [option for option in layout.together.split() if options[option] != options[layout.together.split()[0]]]
    if differing:
        why = f"{layout} has {layout.together.replace(' ', ' and ')}, or none of them."
        found.append(Gap(differing[0], options[differing[0]], why, "Choose that, or another framework."))
    for option, can in lacking(layout, spec).items():
        # A wider class with the same tensors computes it: what a plan then requires is no gap.
        if option not in layout.computes or all(option in lacking(other, spec) for other in layout.instead):
            found.append(_uncomputed(layout, option, options[option], can))
    if not found and options.get("layers", 1) > 1:
        try:
            store(layout, spec)
        except UnsupportedSpecError as error:
            found.append(Gap(error.option, options[error.option], error.met, error.hint))
    wider = next((other for other in layout.instead if found and not gaps(other, spec)), None)
    if wider is not None:
        called = f" ({wider.supplied})" if wider.supplied not in ("", wider.name) else ""
        return [gap._replace(way_out=f"Use '{wider}'{called}, which supports it.", wider=wider.name) for gap in found]
    return found


def choices_of(layout: Layout, spec: Spec) -> dict[str, Choice]:
    """Return option → what a class can compute in it, for the options that a layer has."""
    options = spec.options()
    rows = {**UNLESS_LISTED, **layout.computes}
    # How two directions become one is no matter where there is one.
    alone = {"merge"} if not options.get("bidirectional") else set()
    return {option: choice(row) for option, row in rows.items() if option in options and option not in alone}


def lacking(layout: Layout, spec: Spec) -> dict[str, Choice]:
    """Return the options of a layer that a layout's own class does not compute, each with what it can.

    >>> from gatewise.core.spec import LSTM
    >>> mine = Layout("mine:LSTM", cell="lstm", gates="ifgo", computes={"activation": "tanh"})
    >>> list(lacking(mine, LSTM(3, 5, activation="relu")))
    ['activation']
    """
    options = spec.options()
    return {option: each for option, each in choices_of(layout, spec).items() if not each.allows(options[option])}


def _uncomputed(layout: Layout, option: str, value: Any, can: Choice) -> Gap:
    """Return the gap of an option that a class does not compute."""
    meant = next((each for each, native in can.natives.items() if native == value and each != value), None)
    if meant is not None:  # The framework has the name for another function.
        why = f"What {layout} calls {value} is {meant} here, another function."
        return Gap(option, value, why, f"Use {option}={meant!r}, if that is meant.")
    why = f"{layout} computes {option}={can.others()} only."
    return Gap(option, value, why, "Choose that, or a framework that computes it.")


def check_holds(layout: Layout, spec: Spec) -> None:
    """Raise ``UnsupportedSpecError`` for the first option that a layout cannot hold."""
    for gap in gaps(layout, spec):
        raise UnsupportedSpecError(
            f"{layout} does not support {gap.option}={gap.value!r}.",
            f"{spec}: {gap.why}",
            gap.way_out,
            option=gap.option,
        )


# ── where a layout puts each block ──────────────────────────────────────────────────────────────────────────────


class Key(NamedTuple):
    """One canonical block: a part of one layer and direction, and one gate of it (``""`` where it has no gates)."""

    part: str
    layer: int
    direction: int
    gate: str


class Slot(NamedTuple):
    """Where a layout keeps one canonical block.

    Its element at ``{axis: index}`` lies in ``tensor`` at ``offsets``, moved along ``dimension`` by ``index * stride``
    for each ``(axis, dimension, stride)``. Where ``memory`` names two axes, the block has the shape that these strides
    give, but its elements count in the order of ``memory``.
    """

    tensor: str
    offsets: tuple[int, ...]
    strides: tuple[tuple[str, int, int], ...]
    memory: tuple[str, ...]


class Stored(NamedTuple):
    """All tensors of one spec in one layout, and the slot of each canonical block."""

    shapes: dict[str, tuple[int, ...]]
    slots: dict[Key, Slot]


class _Sizes:
    """Lengths and positions in one entry of a layout, for one spec."""

    def __init__(self, layout: Layout, spec: Spec, entry: Entry, live: set[int]) -> None:
        self.layout, self.spec, self.entry, self.live = layout, spec, entry, live

    def length(self, axis: str, parts: tuple[int, ...], layer: int) -> int:
        if axis == "1":
            return 1
        if axis == "gate":
            counts = {len(self.entry.parts[part].gates) for part in parts if part in self.live}
            if len(counts) > 1:
                raise LayoutError(
                    f"{self.layout}: parts with {' and '.join(map(str, sorted(counts)))} gates share one gate axis.",
                    " + ".join(part.name for part in self.entry.parts),
                    "Give each part a gate axis of its own.",
                )
            return counts.pop()
        return axis_length(self.spec, axis, layer)

    def extent(self, node: Node, layer: int) -> int:
        """Return how many elements a node spans; parts that the spec lacks span none."""
        if not self.live.intersection(node.parts):
            return 0
        if node.kind == "axis":
            return self.length(node.name, node.parts, layer)
        if node.kind == "either":
            return max(self.extent(child, layer) for child in node.children)
        if node.kind == "sum":
            return sum(self.extent(child, layer) for child in node.children)
        return self.product(node.children, layer)

    def product(self, nodes: tuple[Node, ...], layer: int) -> int:
        if not nodes:
            return 1
        head, rest = nodes[0], nodes[1:]
        if head.name == "layer":  # The layers differ in width: a running sum, not a multiple.
            return sum(self.product(rest, index) for index in range(axis_length(self.spec, "layer")))
        return self.extent(head, layer) * self.product(rest, layer)

    def locate(self, node: Node, part: int, at: dict[str, int], layer: int) -> tuple[int, dict[str, int]]:
        """Return offset and strides of a block along one dimension; ``at`` holds the axes that are fixed."""
        if node.kind == "axis":
            return (at[node.name], {}) if node.name in at else (0, {} if node.name == "1" else {node.name: 1})
        if node.kind == "either":
            return self.locate(node.children[part], part, at, layer)
        if node.kind == "sum":
            before = 0
            for child in node.children:
                if part in child.parts:
                    offset, strides = self.locate(child, part, at, layer)
                    return before + offset, strides
                before += self.extent(child, layer)
        return self.locate_product(node.children, part, at, layer)

    def locate_product(
        self, nodes: tuple[Node, ...], part: int, at: dict[str, int], layer: int
    ) -> tuple[int, dict[str, int]]:
        if not nodes:
            return 0, {}
        head, rest = nodes[0], nodes[1:]
        if head.name == "layer":
            before = sum(self.product(rest, index) for index in range(at["layer"]))
            offset, strides = self.locate_product(rest, part, at, at["layer"])
            return before + offset, strides
        below = self.product(rest, layer)
        outer, outer_strides = self.locate(head, part, at, layer)
        inner, inner_strides = self.locate_product(rest, part, at, layer)
        return outer * below + inner, {axis: stride * below for axis, stride in outer_strides.items()} | inner_strides


def spell(layout: Layout, entry: Entry, spec: Spec, at: dict[str, int]) -> str:
    """Return the name of one tensor of an entry; ``at`` holds the indices of layer, direction and gate."""
    layers, directions = axis_length(spec, "layer"), axis_length(spec, "direction")
    lengths = {"layer": layers, "direction": directions, "position": layers * directions, "gate": len(layout.gates)}
    indices = at | {"position": at["layer"] * directions + at["direction"]}
    text = ""
    for piece in entry.template:
        if isinstance(piece, str):
            text += piece
            continue
        axis, words = piece
        alone, bar, spelled = words.rpartition("|")
        index, choices = indices[axis], spelled.split(",")
        if bar and lengths[axis] == 1:
            text += alone
        elif axis == "gate" and words == "#":
            text += layout.gates[index]
        else:
            text += choices[min(index, len(choices) - 1)].replace("#", str(index))
    return text


@functools.lru_cache(maxsize=512)
def store(layout: Layout, spec: Spec) -> Stored:
    """Return every tensor's shape, and where each canonical block lies; what a spec lacks has no slot.

    Names are listed by layer, direction, tensor, gate. A spec that the layout cannot hold is stored without what is
    missing: ask ``gaps`` first.

    Raises:
        LayoutError: The layout is of another kind of cell, or stores two things in one place.
        UnsupportedSpecError: Layers of different width share a tensor that has one width.

    >>> from gatewise.core.spec import Dense
    >>> layout = Layout("mine:Linear", cell="dense", tensors={"w": "kernel: units features", "b": "bias: units"})
    >>> store(layout, Dense(3, 5)).shapes
    {'w': (5, 3), 'b': (5,)}
    """
    if layout.cell != spec.cell:
        raise LayoutError(
            f"{layout} stores a cell of kind {layout.cell}.",
            f"{spec} is of kind {spec.cell}.",
            "Choose a layout of this kind.",
        )
    wanted = wanted_parts(spec) | set(layout.always.split())
    shapes: dict[str, tuple[int, ...]] = {}
    slots: dict[Key, Slot] = {}
    for layer in range(axis_length(spec, "layer") if layout.has_axis("layer") else 1):
        for direction in range(axis_length(spec, "direction") if layout.has_axis("direction") else 1):
            for entry in layout.entries:
                live = {number for number, part in enumerate(entry.parts) if part.name in wanted}
                if not live:
                    continue
                named = entry.axes_in_name()
                for gate in entry.parts[0].gates if "gate" in named else ("",):
                    at = {"layer": layer, "direction": direction} | ({"gate": layout.gates.index(gate)} if gate else {})
                    name = spell(layout, entry, spec, at)
                    if name in shapes:
                        if all(
                            axis in named for axis in OUTER if axis_length(spec, axis) > 1 and layout.has_axis(axis)
                        ):
                            raise LayoutError(
                                f"{layout} stores two things in {name!r}.",
                                str(spec),
                                "Give each tensor a name of its own.",
                            )
                        continue  # This tensor holds all layers or directions and was seen at the first.
                    _place(layout, spec, entry, live, name, at, gate, shapes, slots)
    return Stored(shapes, slots)


def _place(
    layout: Layout,
    spec: Spec,
    entry: Entry,
    live: set[int],
    name: str,
    at: dict[str, int],
    named_gate: str,
    shapes: dict[str, tuple[int, ...]],
    slots: dict[Key, Slot],
) -> None:
    """Add one tensor's shape and the slots of all blocks that lie in it."""
    sizes, named = _Sizes(layout, spec, entry, live), entry.axes_in_name()
    inside = {axis: any(axis in node.axes(part) for node in entry.dimensions for part in live) for axis in OUTER}
    ranges = {axis: range(axis_length(spec, axis)) if inside[axis] else (at[axis],) for axis in OUTER}
    widths = {tuple(sizes.extent(node, layer) for node in entry.dimensions) for layer in ranges["layer"]}
    if len(widths) > 1:
        raise UnsupportedSpecError(
            f"{layout} keeps all layers in {name!r}, and these differ in width.",
            f"{spec}: shapes {' and '.join(map(str, sorted(widths)))}.",
            "Describe the layers one by one.",
            option="layers",
        )
    shapes[name] = widths.pop()
    filled = 0
    for layer in ranges["layer"]:
        for direction in ranges["direction"]:
            for number in sorted(live):
                part = entry.parts[number]
                gates = named_gate if "gate" in named else part.gates
                for gate in gates or ("",):
                    key = Key(part.name, layer, direction, gate)
                    if key in slots:
                        raise LayoutError(
                            f"{layout} stores {key} twice.",
                            f"In {slots[key].tensor!r} and {name!r}.",
                            "Store each block once.",
                        )
                    fixed = {"layer": layer, "direction": direction, "gate": part.gates.find(gate)}
                    offsets, strides = [], []
                    for dimension, node in enumerate(entry.dimensions):
                        offset, found = sizes.locate(node, number, fixed, layer)
                        offsets.append(offset)
                        strides += [(axis, dimension, stride) for axis, stride in found.items()]
                    slots[key] = Slot(name, tuple(offsets), tuple(strides), entry.memory)
                    filled += math.prod(axis_length(spec, axis, layer) for axis, _, _ in strides)
    if filled != math.prod(shapes[name]):
        raise LayoutError(
            f"{layout} leaves gaps in {name!r}: {math.prod(shapes[name])} numbers, of which {filled} are something.",
            f"{spec}: shape {shapes[name]}.",
            "Lay parts end to end in one dimension, and use | for names of one length.",
        )
