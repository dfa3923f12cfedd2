"""Which mistake gives a claimed number? Every listed mistake is tried on the layer's own blocks.

A mistake changes what is counted: it leaves blocks out, counts some twice, or reads one size for another. It is applied
to the slots of the layout, so one line here serves every cell and every framework. Two mistakes with the same formula
cannot be told apart by any number; they are reported together.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gatewise.core.count import count, formula, letters, numbers, substitute
from gatewise.core.explain import explain
from gatewise.core.layout import CANONICAL, PARTS, Key, Layout, check_holds, gaps, store
from gatewise.core.network import Network
from gatewise.core.spec import KINDS, Dense, Recurrent, Spec
from gatewise.errors import SpecError
from gatewise.errors import nearest as nearest_word

MOST_ANSWERS = 5
"""So many mistakes are named at most."""

HEADS = range(1, 11)
"""Outputs of a dense layer that may have been counted along without being mentioned."""

_CANDIDATE = {"lstm": "g", "gru": "n"}
_BIASES = ("bias", "recurrent_bias")
_COUNTED = ("no", "one", "two", "three", "four")

Values = Mapping[str, int]
Product = tuple[str, ...]


# ── formulas ────────────────────────────────────────────────────────────────────────────────────────────────────


class Group(NamedTuple):
    """``outer·(product + product + …)``; each factor is a number, a letter or ``(layers - 1)``."""

    products: tuple[Product, ...]
    outer: Product = ()

    def __str__(self) -> str:
        inside = " + ".join("·".join(product) or "1" for product in self.products)
        if not self.outer:
            return inside
        return "·".join([*self.outer, f"({inside})" if len(self.products) > 1 else inside])


class Formula(NamedTuple):
    """A sum of groups, as a person would write it.

    >>> claimed = Formula((Group((("4", "features"), ("4",)), ("units",)),))
    >>> str(claimed), claimed.value({"features": 3, "units": 50}), claimed.arithmetic({"features": 3, "units": 50})
    ('units·(4·features + 4)', 800, '50·(4·3 + 4)')
    """

    groups: tuple[Group, ...]

    def value(self, values: Values) -> int:
        """Return the number for these values of the letters."""
        return sum(
            _multiply(group.outer, values) * sum(_multiply(product, values) for product in group.products)
            for group in self.groups
        )

    def arithmetic(self, values: Values) -> str:
        """Return the formula with the numbers put in."""
        return substitute(str(self), dict(values))

    def __str__(self) -> str:
        return " + ".join(str(group) for group in self.groups if group.products) or "0"


def _multiply(factors: Product, values: Values) -> int:
    total = 1
    for factor in factors:
        if factor.isdigit():
            total *= int(factor)
        else:
            total *= values["layers"] - 1 if factor == "(layers - 1)" else values[factor]
    return total


_PROBES = tuple(
    dict(
        zip(
            ("features", "units", "projection", "layers", "directions", "timesteps", "batch", "outputs", "tokens"),
            primes,
            strict=True,
        )
    )
    for primes in (
        (10007, 10009, 10037, 10039, 10061, 10067, 10069, 10079, 10091),
        (20011, 20021, 20023, 20029, 20047, 20051, 20063, 20071, 20089),
    )
)
"""Two formulas are one if they agree here: at large unrelated sizes no two different ones of this kind do."""


# ── the layer, block by block ───────────────────────────────────────────────────────────────────────────────────


class Counted(NamedTuple):
    """The blocks of one part, in letters; ``upper`` are the kernels that read a layer and not the input."""

    part: str
    upper: bool
    product: Product


def products(spec: Spec, keys: Iterable[Key]) -> tuple[Counted, ...]:
    """Write blocks in letters, part by part.

    >>> from gatewise.core.spec import LSTM
    >>> products(LSTM(3, 5), [Key("bias", 0, 0, gate) for gate in "ifgo"])
    (Counted(part='bias', upper=False, product=('4', 'units')),)
    """
    grouped: dict[tuple[str, bool], list[Key]] = {}
    for key in keys:
        grouped.setdefault((key.part, key.layer > 0 and "features" in PARTS[spec.cell][key.part].split()), []).append(
            key
        )
    made = []
    for part in PARTS[spec.cell]:
        kinds = [upper for upper in (False, True) if (part, upper) in grouped]
        if not kinds:
            continue
        # Lower and upper kernels are written in one go: only then does the formula say "(layers - 1)".
        written = formula(spec, [key for upper in kinds for key in grouped[part, upper]]).split(" + ")
        made += [Counted(part, upper, tuple(text.split("·"))) for upper, text in zip(kinds, written, strict=True)]
    return tuple(made)


@dataclass(frozen=True)
class Case:
    """What a number is claimed for, and all that is known besides."""

    spec: Spec
    layout: Layout
    head: Dense | None
    timesteps: int | None
    batch: int | None
    stale: dict[str, int]
    layouts: tuple[Layout, ...]
    keys: tuple[Key, ...]
    blocks: tuple[Counted, ...]

    @property
    def kind(self) -> str:
        """The kind of layer with its article, such as ``an LSTM``."""
        name = type(self.spec).__name__
        return f"{'an' if name[0] in 'LRE' else 'a'} {name}"

    @property
    def gates(self) -> int:
        """How many gates are stored; 0 where the cell has none."""
        return len({key.gate for key in self.keys if key.gate})

    @property
    def values(self) -> dict[str, int]:
        """The number that each letter stands for."""
        known = {"timesteps": self.timesteps, "batch": self.batch, "outputs": self.head.units if self.head else None}
        return numbers(self.spec) | {name: value for name, value in known.items() if value is not None}

    @property
    def width(self) -> int:
        """How many numbers the layer gives at one step."""
        if isinstance(self.spec, Recurrent):
            return self.spec.state * self.spec.merged_directions
        return self.values["units"]

    def remade(self, spec: Spec | None = None, layout: Layout | None = None) -> Case:
        """Return the same claim for another layer, or another way of storing it; a head reads what that gives."""
        spec, layout = spec or self.spec, layout or self.layout
        keys = tuple(store(layout, spec).slots)
        made = dataclasses.replace(self, spec=spec, layout=layout, keys=keys, blocks=products(spec, keys))
        return dataclasses.replace(made, head=self.head and self.head.replace(features=made.width))

    def read_by_head(self) -> Product:
        """What a layer on top reads, in letters."""
        return tuple(letters(self.spec, "features", 1).split("·"))

    def head_group(self, head: Dense | None, reads: Product | None = None, parts: str = "kernel bias") -> Group:
        """The dense layer on top, in letters: ``outputs·units + outputs``."""
        if head is None:
            return Group(())
        written = products(head, store(CANONICAL["dense"], head).slots)
        renamed = {"units": ("outputs",), "features": self.read_by_head() if reads is None else reads}
        return Group(
            tuple(
                tuple(letter for factor in block.product for letter in renamed.get(factor, (factor,)))
                for block in written
                if block.part in parts.split()
            )
        )

    def formula(self, blocks: Iterable[Counted | Product], outer: Product = ()) -> Formula:
        """These blocks, and the head as it is."""
        factors = tuple(block.product if isinstance(block, Counted) else block for block in blocks)
        return Formula((Group(factors, outer), self.head_group(self.head)))

    def keep(self, wanted: Callable[[Key], bool]) -> Formula:
        """Only some of the blocks."""
        return self.formula(products(self.spec, filter(wanted, self.keys)))

    def without(self, *parts: str) -> Formula:
        """All but some parts."""
        return self.formula(block for block in self.blocks if block.part not in parts)

    def each(self, change: Callable[[Counted], Product], outer: Product = ()) -> Formula:
        """Every block changed."""
        return self.formula(map(change, self.blocks), outer)

    def whole(self, *outer: str) -> Formula:
        """Everything, head and all, times something."""
        head = self.head_group(self.head)
        return Formula((Group(tuple(block.product for block in self.blocks) + head.products, outer),))

    def other(self, spec: Spec, layout: Layout) -> Formula:
        """Another layer, or another way of storing it, under the same head."""
        return self.formula(products(spec, store(layout, spec).slots))

    def has(self, *parts: str) -> bool:
        """Whether any of these parts is stored."""
        return any(block.part in parts for block in self.blocks)

    def sum(self, *parts: str) -> str:
        """Some parts in letters and numbers: ``4·units = 4·10 = 40``."""
        blocks = Formula((Group(tuple(block.product for block in self.blocks if block.part in parts)),))
        steps = [str(blocks), blocks.arithmetic(self.values), f"{blocks.value(self.values):,}"]
        return " = ".join(dict.fromkeys(steps))


class Claim(NamedTuple):
    """One way to make a mistake: the formula that results, and what is said about it."""

    formula: Formula
    text: str
    values: Mapping[str, int] | None = None  # where they are not those of the layer


# ── the mistakes ────────────────────────────────────────────────────────────────────────────────────────────────


def _stale_variables(case: Case) -> Iterator[Claim]:
    if not case.stale:
        return
    old = case.values | case.stale
    said = " and ".join(f"{name} = {value}" for name, value in case.stale.items())
    now = " and ".join(f"{name} = {case.values[name]}" for name in case.stale)
    yield Claim(case.whole(), f"The formula is right, its values are old: {said}. The layer has {now}.", old)
    for term in count(case.spec, case.layout).terms:
        written = Formula((Group(tuple(tuple(text.split("·")) for text in term.formula.split(" + "))),))
        text = (
            f"{term.formula} was computed with old values: {said}. The tensor {term.name!r} of this layer has "
            f"{term.arithmetic} = {term.parameters:,} numbers."
        )
        yield Claim(written, text, old)


def _another_framework(case: Case) -> Iterator[Claim]:
    same = [layout for layout in case.layouts if layout.cell == case.spec.cell and not gaps(layout, case.spec)]
    grouped: dict[frozenset[Key], list[Layout]] = {}
    for layout in same:
        grouped.setdefault(frozenset(store(layout, case.spec).slots), []).append(layout)
    for owners in grouped.values():
        elsewhere = [owner.framework for owner in owners if owner.framework != case.layout.framework]
        names = list(dict.fromkeys(elsewhere)) or list(dict.fromkeys(owner.name for owner in owners))
        causes = [
            f"{cause.name} ({cause.parameters:+,} = {cause.arithmetic})"
            for cause in explain(case.spec, case.layout, owners[0]).causes
        ]
        if not causes:
            continue
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        yield Claim(
            case.other(case.spec, owners[0]),
            f"This is the count in {listed}. What makes it differ from {case.layout}: {', '.join(causes)}.",
        )


def _output_size_one(case: Case) -> Iterator[Claim]:
    if isinstance(case.spec, Recurrent) and case.spec.state == case.spec.units:
        wrong = case.each(
            lambda block: tuple("1" if factor == "units" else factor for factor in block.product), ("units",)
        )
        units = case.spec.units
        one = wrong.groups[0]._replace(outer=())
        yield Claim(
            wrong,
            f"The formula was used with an output size of 1, which gives {Formula((one,)).value(case.values):,}, and "
            f"then multiplied by the {units} units. But it is for the whole layer: its output size is "
            f"units = {units}, which enters squared.",
        )


def _diagonal(case: Case) -> Iterator[Claim]:
    if case.has("recurrent_kernel") and case.spec.options().get("projection") is None:
        units = numbers(case.spec)["units"]
        yield Claim(
            case.each(lambda block: block.product[:-1] if block.part == "recurrent_kernel" else block.product),
            f"The units were taken as independent, each with one recurrent weight in a gate. But each unit reads the "
            f"state of all {units}, so a gate has {units}·{units} recurrent weights and not {units}.",
        )


def _bias_forgotten(case: Case) -> Iterator[Claim]:
    if case.has(*_BIASES):
        many = "biases are" if case.has("recurrent_bias") else "bias is"
        yield Claim(case.without(*_BIASES), f"The {many} missing: {case.sum(*_BIASES)}.")


def _gates_forgotten(case: Case) -> Iterator[Claim]:
    if case.gates > 1:
        first: dict[str, str] = {}
        for key in case.keys:
            first.setdefault(key.part, key.gate)
        yield Claim(
            case.keep(lambda key: key.gate == first[key.part]),
            f"This is one gate. {case.kind[0].upper()}{case.kind[1:]} has {case.gates}, each with weights of its own: "
            f"the factor {case.gates} is missing.",
        )


def _gate_too_few(number: int) -> Callable[[Case], Iterator[Claim]]:
    def claims(case: Case) -> Iterator[Claim]:
        if case.gates == number + 1 and case.spec.cell in _CANDIDATE:
            yield Claim(
                case.keep(lambda key: key.gate != _CANDIDATE[case.spec.cell]),
                f"Only {_COUNTED[number]} gates were counted. The candidate, the new content, has the same weights as "
                f"a gate, so the factor is {case.gates}.",
            )

    return claims


def _second_bias_forgotten(case: Case) -> Iterator[Claim]:
    if case.has("bias") and case.has("recurrent_bias"):
        yield Claim(
            case.without("recurrent_bias"),
            f"One bias was counted. {case.layout} stores a second one, on the side of the state: "
            f"{case.sum('recurrent_bias')}.",
        )


def _bias_doubled(case: Case) -> Iterator[Claim]:
    if case.has(*_BIASES):
        again = [block for block in case.blocks if block.part in _BIASES]
        yield Claim(
            case.formula([*case.blocks, *again]),
            f"The bias was counted twice. {case.layout} stores {case.sum(*_BIASES)}.",
        )


def _bias(number: Product, text: str) -> Callable[[Case], Iterator[Claim]]:
    """A bias of the wrong size, the same for every layer and direction."""

    def claims(case: Case) -> Iterator[Claim]:
        if not case.has("bias") or (case.gates < 2 and "units" in number):
            return
        outer = ("layers",) * (case.values.get("layers", 1) > 1) + ("directions",) * (
            case.values.get("directions", 1) > 1
        )
        gates = (str(case.gates),) if case.gates > 1 else ()
        size = outer + tuple(factor for each in number for factor in (gates if each == "gates" else (each,)))
        kept = [block for block in case.blocks if block.part not in _BIASES]
        yield Claim(case.formula([*kept, size or ("1",)]), text.format(sum=case.sum(*_BIASES)))

    return claims


def _recurrent_kernel_forgotten(case: Case) -> Iterator[Claim]:
    if case.has("recurrent_kernel"):
        yield Claim(
            case.without("recurrent_kernel"),
            f"The recurrent kernel is missing. The state of the last step is read as well: "
            f"{case.sum('recurrent_kernel')}.",
        )


def _kernel_forgotten(case: Case) -> Iterator[Claim]:
    if case.has("kernel") and isinstance(case.spec, Recurrent):
        yield Claim(
            case.without("kernel"), f"The kernel is missing: the input is read by {case.sum('kernel')} weights."
        )


def _exchanged(case: Case) -> Iterator[Claim]:
    if {"features", "units"} <= set(case.values):
        swap = {"features": "units", "units": "features"}
        x, h = case.values["features"], case.values["units"]
        yield Claim(
            case.each(lambda block: tuple(swap.get(factor, factor) for factor in block.product)),
            f"Features and units are exchanged: the input has {x} features, the layer {h} units.",
        )


def _one_unit(case: Case) -> Iterator[Claim]:
    if isinstance(case.spec, Recurrent):

        def less(block: Counted) -> Product:
            at = block.product.index("units")
            return block.product[:at] + block.product[at + 1 :]

        yield Claim(case.each(less), f"These are the weights of one unit. The layer has {case.spec.units} of them.")


def _one_tensor(case: Case) -> Iterator[Claim]:
    for term in count(case.spec, case.layout).terms:
        written = Formula((Group(tuple(tuple(text.split("·")) for text in term.formula.split(" + "))),))
        yield Claim(
            written, f"This is the tensor {term.name!r} alone, of shape {term.shape}. The layer has more tensors."
        )


def _head_forgotten(case: Case) -> Iterator[Claim]:
    if case.head:
        size = case.head_group(case.head)
        yield Claim(
            Formula((Group(tuple(block.product for block in case.blocks)),)),
            f"The head is missing: {size} = {Formula((size,)).arithmetic(case.values)} = "
            f"{Formula((size,)).value(case.values):,}.",
        )


def _head_bias_forgotten(case: Case) -> Iterator[Claim]:
    if case.head and case.head.bias:
        yield Claim(
            Formula((Group(tuple(block.product for block in case.blocks)), case.head_group(case.head, None, "kernel"))),
            f"The head's bias is missing: {case.head.units:,}, one for each output.",
        )


def _head_included(case: Case) -> Iterator[Claim]:
    if case.head is None and isinstance(case.spec, Recurrent):
        for outputs in HEADS:
            head, values = Dense(case.width, outputs), case.values | {"outputs": outputs}
            size = Formula((case.head_group(head),))
            yield Claim(
                Formula((Group(tuple(block.product for block in case.blocks)), *size.groups)),
                f"A dense layer with {outputs} {'outputs' if outputs > 1 else 'output'} was counted as well: "
                f"{size.arithmetic(values)} = {size.value(values):,}. The layer itself has "
                f"{case.whole().value(case.values):,}.",
                values,
            )


def _head_input_not_doubled(case: Case) -> Iterator[Claim]:
    reads = case.read_by_head()
    if case.head and reads[0] == "directions":
        yield Claim(
            Formula((Group(tuple(block.product for block in case.blocks)), case.head_group(case.head, reads[1:]))),
            f"The head reads both directions side by side: {case.head.features:,} numbers, twice what was counted.",
        )


def _bidirectional_forgotten(case: Case) -> Iterator[Claim]:
    if case.values.get("directions", 1) > 1:
        once = case.spec.replace(bidirectional=False)
        blocks = products(once, store(case.layout, once).slots)
        reads = tuple(factor for factor in case.read_by_head() if factor != "directions")
        yield Claim(
            Formula((Group(tuple(block.product for block in blocks)), case.head_group(case.head, reads))),
            "This is the layer in one direction. A bidirectional one has all weights twice, and what reads it reads "
            "both directions.",
        )


def _direction_not_doubled(case: Case) -> Iterator[Claim]:
    if case.values.get("directions", 1) > 1:
        yield Claim(
            case.keep(lambda key: key.direction == 0),
            "One direction was counted. The backward direction has the same number of weights again.",
        )


def _direction_doubled(case: Case) -> Iterator[Claim]:
    if case.values.get("directions", 2) == 1:
        yield Claim(
            case.formula(case.blocks, ("2",)),
            "Two directions were counted. This layer reads the sequence one way only.",
        )


def _upper_input_not_doubled(case: Case) -> Iterator[Claim]:
    tail = case.read_by_head()
    if tail[0] == "directions" and any(block.upper for block in case.blocks):
        yield Claim(
            case.each(lambda block: block.product[: -len(tail)] + tail[1:] if block.upper else block.product),
            "An upper layer reads both directions of the one below, so its input is twice as wide as was counted.",
        )


def _upper_layer_reads_features(case: Case) -> Iterator[Claim]:
    tail = case.read_by_head()
    if any(block.upper for block in case.blocks):
        yield Claim(
            case.each(lambda block: (*block.product[: -len(tail)], "features") if block.upper else block.product),
            f"Every layer was counted like the first. An upper layer reads the {case.width} outputs of the one below, "
            f"not the {case.values['features']} features of the input.",
        )


def _layers_forgotten(case: Case) -> Iterator[Claim]:
    if case.values.get("layers", 1) > 1:
        yield Claim(
            case.keep(lambda key: key.layer == 0),
            f"This is the first layer alone. There are {case.values['layers']}.",
        )


def _multiplied(letter: str, text: str) -> Callable[[Case], Iterator[Claim]]:
    def claims(case: Case) -> Iterator[Claim]:
        if case.values.get(letter, 1) > 1:
            said = text.format(number=case.values[letter])
            if case.head:
                yield Claim(case.formula(case.blocks, (letter,)), said)
            yield Claim(case.whole(letter), said)

    return claims


def _input_read_as(reads: Product, text: str) -> Callable[[Case], Iterator[Claim]]:
    """The input is taken to be of another width, made of the timesteps."""

    def claims(case: Case) -> Iterator[Claim]:
        if case.timesteps and isinstance(case.spec, Recurrent):
            yield Claim(
                case.each(
                    lambda block: tuple(
                        letter for factor in block.product for letter in (reads if factor == "features" else (factor,))
                    )
                ),
                text.format(timesteps=case.timesteps, features=case.spec.features),
            )

    return claims


def _cell_exchanged(case: Case) -> Iterator[Claim]:
    if not isinstance(case.spec, Recurrent):
        return
    for kind in KINDS.values():
        shared = set(kind.fields) & set(case.spec.options())
        if kind.cell == case.spec.cell or not issubclass(kind, Recurrent):
            continue
        other = kind(**{name: value for name, value in case.spec.options().items() if name in shared})
        for layout in case.layouts:
            if (layout.framework, layout.cell) == (case.layout.framework, kind.cell) and not gaps(layout, other):
                name = f"{'an' if kind.__name__[0] in 'LR' else 'a'} {kind.__name__}"
                yield Claim(case.other(other, layout), f"This is the count of {name} of the same sizes ({layout}).")
                break


def _other_reset(case: Case) -> Iterator[Claim]:
    reset = case.spec.options().get("reset")
    if reset is None:
        return
    other = case.spec.replace(reset="before" if reset == "after" else "after")
    for layout in case.layouts:
        if (layout.framework, layout.cell) == (case.layout.framework, "gru") and not gaps(layout, other):
            yield Claim(
                case.other(other, layout),
                f"This is the GRU that resets {other.options()['reset']} the recurrent product. Yours resets {reset} "
                f"it, and is stored with another number of biases.",
            )
            return


def _macs(case: Case) -> Iterator[Claim]:
    outer = tuple(letter for letter in ("timesteps", "batch") if case.values.get(letter, 1) > 1)
    kernels = [block.product for block in case.blocks if block.part not in _BIASES and "peephole" not in block.part]
    if not kernels:  # A table is looked up, a norm has no products.
        return
    kernels += case.head_group(case.head, None, "kernel").products
    for factor, what in (((), "multiplications"), (("2",), "multiplications and additions")):
        where = f"of all {case.timesteps} steps" if "timesteps" in outer else "of one step"
        where += f" and {case.batch} samples" if "batch" in outer else ""
        yield Claim(
            Formula((Group(tuple(kernels), factor + outer),)),
            f"These are the {what} {where}, not the parameters. A bias is only added, so it does not count there.",
        )


def _bytes(case: Case) -> Iterator[Claim]:
    for size, bits in ((4, 32), (2, 16), (8, 64)):
        yield Claim(case.whole(str(size)), f"These are bytes, not parameters: one float{bits} number takes {size}.")


def _peepholes_included(case: Case) -> Iterator[Claim]:
    if case.spec.cell == "lstm" and not case.has("peephole", "peephole_kernel"):
        seeing = case.spec.replace(peepholes=True)
        extra = [key for key in store(CANONICAL["lstm"], seeing).slots if key.part == "peephole"]
        yield Claim(
            case.formula([*case.blocks, *products(seeing, extra)]),
            "Peepholes were counted, from the memory to three gates. This layer has none.",
        )


def _part_forgotten(part: str, text: str) -> Callable[[Case], Iterator[Claim]]:
    def claims(case: Case) -> Iterator[Claim]:
        parts = [each for each in (part, f"{part}_kernel") if case.has(each)]
        if parts:
            yield Claim(case.without(*parts), text.format(sum=case.sum(*parts)))

    return claims


def _projection_ignored(case: Case) -> Iterator[Claim]:
    if case.spec.options().get("projection") is not None:
        plain = case.spec.replace(projection=None)
        blocks = tuple(block.product for block in products(plain, store(case.layout, plain).slots))
        reads = (*case.read_by_head()[:-1], "units")
        yield Claim(
            Formula((Group(blocks), case.head_group(case.head, reads))),
            f"This is the layer without its projection. With it, the state that is fed back has "
            f"{case.values['projection']} numbers, not {case.values['units']}.",
        )


_TABLE: dict[str, Callable[[Case], Iterator[Claim]]] = {
    "stale-variables": _stale_variables,
    "another-framework": _another_framework,
    "output-size-one": _output_size_one,
    "bias-forgotten": _bias_forgotten,
    "gates-forgotten": _gates_forgotten,
    "recurrent-kernel-diagonal": _diagonal,
    "second-bias-forgotten": _second_bias_forgotten,
    "bias-doubled": _bias_doubled,
    "three-gates": _gate_too_few(3),
    "two-gates": _gate_too_few(2),
    "recurrent-kernel-forgotten": _recurrent_kernel_forgotten,
    "head-forgotten": _head_forgotten,
    "bidirectional-forgotten": _bidirectional_forgotten,
    "direction-not-doubled": _direction_not_doubled,
    "upper-input-not-doubled": _upper_input_not_doubled,
    "upper-layer-reads-features": _upper_layer_reads_features,
    "layers-forgotten": _layers_forgotten,
    "head-input-not-doubled": _head_input_not_doubled,
    "features-units-exchanged": _exchanged,
    "one-bias-vector": _bias(
        ("units",), "One bias vector was counted for the whole layer. Each gate has its own: {sum}."
    ),
    "timesteps-multiplied": _multiplied(
        "timesteps", "The {number} timesteps were multiplied in. The same weights are used at every step."
    ),
    "batch-multiplied": _multiplied(
        "batch", "The batch size {number} was multiplied in. The same weights are used for every sample."
    ),
    "timesteps-as-features": _input_read_as(
        ("timesteps",),
        "The {timesteps} timesteps were taken as features. The last axis of the input counts: {features}.",
    ),
    "input-flattened": _input_read_as(
        ("timesteps", "features"),
        "All timesteps were laid side by side, {timesteps}·{features} inputs. The layer reads one step at a time: "
        "{features} features.",
    ),
    "other-reset": _other_reset,
    "cell-exchanged": _cell_exchanged,
    "kernel-forgotten": _kernel_forgotten,
    "projection-ignored": _projection_ignored,
    "projection-forgotten": _part_forgotten("projection", "The projection's own matrix is missing: {sum}."),
    "peepholes-forgotten": _part_forgotten("peephole", "The peepholes are missing: {sum}."),
    "one-tensor": _one_tensor,
    "one-unit": _one_unit,
    "head-bias-forgotten": _head_bias_forgotten,
    "head-included": _head_included,
    "bytes-for-parameters": _bytes,
    "direction-doubled": _direction_doubled,
    "macs-for-parameters": _macs,
    "one-bias-a-gate": _bias(
        ("gates",), "The bias was counted as one number for each gate. It is one for each unit of each gate: {sum}."
    ),
    "one-bias-number": _bias(
        (), "The bias was counted as a single number. It has one for each unit of each gate: {sum}."
    ),
    "peepholes-included": _peepholes_included,
}

MISTAKES = tuple(_TABLE)
"""Every mistake that is looked for, the likeliest first."""


# ── two mistakes at once ────────────────────────────────────────────────────────────────────────────────────────


def _changed(case: Case) -> Iterator[tuple[str, Case]]:
    """Yield the layers for which a number may have been right, each with the mistake that takes it for this one."""
    if case.head is None and isinstance(case.spec, Recurrent):
        for outputs in HEADS:
            yield "head-included", dataclasses.replace(case, head=Dense(case.width, outputs))
    if case.head is not None:
        yield "head-forgotten", dataclasses.replace(case, head=None)
    options = case.spec.options()
    changes: dict[str, dict[str, object]] = {}
    old = {name: value for name, value in case.stale.items() if name in options}
    if old:
        changes["stale-variables"] = dict(old)
    if options.get("bidirectional"):
        changes["bidirectional-forgotten"] = {"bidirectional": False}
    elif isinstance(case.spec, Recurrent):
        changes["direction-doubled"] = {"bidirectional": True}
    if options.get("layers", 1) > 1:
        changes["layers-forgotten"] = {"layers": 1}
    if options.get("bias"):
        changes["bias-forgotten"] = {"bias": False}
    if {"features", "units"} <= set(options) and options.get("projection") is None:
        changes["features-units-exchanged"] = {"features": options["units"], "units": options["features"]}
    for slug, changed in changes.items():
        spec = case.spec.replace(**changed)
        if spec != case.spec and not gaps(case.layout, spec):
            yield slug, case.remade(spec)
    seen = {frozenset(case.keys)}
    for layout in case.layouts:
        if layout.cell == case.spec.cell and not gaps(layout, case.spec):
            keys = frozenset(store(layout, case.spec).slots)
            if keys not in seen:
                seen.add(keys)
                yield "another-framework", case.remade(layout=layout)


SECOND = (
    *("another-framework", "bias-forgotten", "second-bias-forgotten", "bias-doubled", "direction-not-doubled"),
    *("direction-doubled", "layers-forgotten", "head-bias-forgotten", "head-input-not-doubled", "head-included"),
    *("features-units-exchanged", "timesteps-multiplied", "batch-multiplied", "timesteps-as-features", "other-reset"),
    *("cell-exchanged", "gates-forgotten", "output-size-one", "upper-input-not-doubled", "upper-layer-reads-features"),
    *("projection-ignored", "peepholes-forgotten"),
)
"""What a person may do beside another mistake: sizes and parts are mistaken, seldom bytes for parameters as well."""


CONTRADICTS = {
    "head-included": ("head-bias-forgotten", "head-input-not-doubled"),
    "head-forgotten": ("head-included",),
    "direction-doubled": ("direction-not-doubled", "head-input-not-doubled", "upper-input-not-doubled"),
    "bidirectional-forgotten": ("direction-doubled",),
    "another-framework": ("second-bias-forgotten", "bias-doubled", "bias-forgotten", "other-reset"),
    "bias-forgotten": ("bias-doubled",),
}
"""First mistake → what nobody does beside it, as the one undoes the other, or says less than a single mistake."""


def both(case: Case, claimed: int) -> list[tuple[str, Claim]]:
    """Return the pairs of mistakes that give a number, the likeliest first."""
    found: list[tuple[int, str, Claim]] = []
    seen: set[tuple[str, str]] = set()
    rank = {slug: place for place, slug in enumerate(MISTAKES)}
    for first, changed in _changed(case):
        right = changed.whole().value(changed.values)
        for second in SECOND:
            if second == first or second in CONTRADICTS.get(first, ()):
                continue
            for claim in _TABLE[second](changed) if (second, first) not in seen else ():
                values = claim.values or changed.values
                if claim.formula.value(values) == claimed != right:
                    seen.add((first, second))
                    text = f"Two mistakes at once. {_text(case, first, right)} {claim.text}"
                    place = rank[first] + rank[second]
                    found.append((place, f"{first} + {second}", Claim(claim.formula, text, values)))
    return [(slug, claim) for _, slug, claim in sorted(found, key=lambda each: each[0])]


def _text(case: Case, slug: str, value: int) -> str:
    """Return what is said of one mistake that gives a number, or of its name alone."""
    for claim in _TABLE[slug](case):
        if claim.formula.value(claim.values or case.values) == value:
            return claim.text
    return ALONE[slug]


ALONE = {
    "direction-doubled": "The layer was counted as one that reads both ways.",
    "stale-variables": "Old sizes were counted with.",
    "bidirectional-forgotten": "One of the two directions was left out.",
    "layers-forgotten": "One of the stacked layers alone was counted.",
    "bias-forgotten": "The biases were left out.",
    "features-units-exchanged": "Features and units were swapped.",
    "another-framework": "It was counted as another framework stores it.",
}
"""What is said of a mistake that changes the layer itself, where the mistake alone gives another number."""


# ── the answer ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Diagnosis:
    """One mistake that gives the claimed number.

    Attributes:
        mistake: Its slug, one of ``MISTAKES``; or two of them, as in ``"head-included + another-framework"``, where no
            one mistake gives the number.
        formula: What was computed, in letters.
        value: What that gives: the claimed number.
        text: The mistake in plain words.
        same_formula: Slugs of other mistakes that have the identical formula for this layer.
        arithmetic: The formula with the numbers put in.
        also: What those other mistakes would be, in plain words, in the same order.
    """

    mistake: str
    formula: str
    value: int
    text: str
    same_formula: tuple[str, ...]
    arithmetic: str
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.mistake}: {self.formula} = {self.arithmetic} = {self.value:,}. {self.text}"


class Diagnoses(list[Diagnosis]):
    """The mistakes that give a claimed number, the likeliest first; a plain list that can say what it found.

    Attributes:
        claimed: The number.
        total: The true count.
        formula: The true count in letters.
        arithmetic: The same with the numbers put in.
        owner: What it was claimed for, such as ``"keras:LSTM"``.
        nearest: The mistake that comes closest, where none gives the number.
    """

    def __init__(self, found: Iterable[Diagnosis], claimed: int, case: Case, nearest: Diagnosis | None = None) -> None:
        super().__init__(found)
        self.claimed, self.nearest = claimed, nearest
        whole = case.whole()
        self.total, self.formula, self.arithmetic = whole.value(case.values), str(whole), whole.arithmetic(case.values)
        self.owner = f"{case.layout} with {case.head}" if case.head else case.layout.name

    @property
    def right(self) -> bool:
        """Whether the claimed number is the count."""
        return self.claimed == self.total

    @property
    def headline(self) -> str:
        """Say in a sentence whether the number is right."""
        if self.right:
            return f"{self.claimed:,} is right: {self.owner} has {self.arithmetic} = {self.total:,} parameters."
        return f"{self.claimed:,} is not right: {self.owner} has {self.arithmetic} = {self.total:,} parameters."

    @property
    def verdict(self) -> str:
        """Say in a few sentences what was found."""
        if self.right:
            return self.headline
        if self:
            return f"{self.headline} {self[0].text}"
        near = f" The nearest is {self.nearest}" if self.nearest else ""
        return f"{self.headline} No mistake on the list gives {self.claimed:,}.{near}"

    def __str__(self) -> str:
        return "\n".join([self.verdict, *(f"  {each}" for each in self)])

    def _repr_markdown_(self) -> str:
        from gatewise.report.tables import render
        from gatewise.report.teaching import diagnosing

        return render(diagnosing(self), "github")

    def _repr_html_(self) -> str:
        from gatewise.report.tables import render
        from gatewise.report.teaching import diagnosing

        return render(diagnosing(self), "html")


def whole_number(name: str, value: object, where: str, hint: str) -> int:
    """Return a number from 1, or raise ``SpecError`` with words for it.

    >>> whole_number("claimed", 120, "", "")
    120
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise SpecError(f"{name}={value!r} is not a whole number.", where, hint) from None
    if number < 1:
        raise SpecError(f"{name}={number} is out of range.", where, hint)
    return number


def layer_and_head(spec: Spec | Network, head: Dense | int | None = None) -> tuple[Spec, Dense | int | None]:
    """Return one layer and the dense layer on top of it, which a network of the two may say in one.

    Raises:
        SpecError: It is something else.

    >>> from gatewise.core.spec import LSTM
    >>> layer_and_head(Network.chain(LSTM(3, 50), Dense(50, 1)))
    (LSTM(features=3, units=50), Dense(features=50, units=1))
    """
    layers = [layer.spec for layer in spec.weighted] if isinstance(spec, Network) else [spec]
    if len(layers) == 2 and head is None and isinstance(layers[1], Dense):
        return layers[0], layers[1]
    if len(layers) != 1 or not isinstance(layers[0], Spec) or not layers[0].cell:
        raise SpecError(
            f"{spec!r} cannot be diagnosed.",
            "A number is claimed for one layer that has weights.",
            "Give one layer, and a dense layer on top as head=.",
        )
    return layers[0], head


def make_case(
    spec: Spec,
    layout: Layout,
    *,
    head: Dense | int | None = None,
    timesteps: int | None = None,
    batch: int | None = None,
    stale: Mapping[str, int] | Spec | None = None,
    layouts: Sequence[Layout] = (),
) -> Case:
    """Put together what is known of a claim, and check that it can be."""
    check_holds(layout, spec)
    for name, size in (("timesteps", timesteps), ("batch", batch)):
        if size is not None:
            whole_number(name, size, f"{name} is a whole number from 1.", f"Give {name}=10, say, or leave it out.")
    keys = tuple(store(layout, spec).slots)
    case = Case(spec, layout, None, timesteps, batch, {}, tuple(layouts), keys, products(spec, keys))
    if head is not None and not isinstance(head, Dense):
        whole_number("head", head, "head is a Dense layer, or the number of its outputs.", "Give head=1, say.")
        head = Dense(case.width, head)
    if head is not None and head.features != case.width:
        raise SpecError(
            f"The head reads {head.features} numbers, the layer gives {case.width}.",
            f"{spec} under {head}.",
            f"Give Dense(features={case.width}, units={head.units}).",
        )
    case = dataclasses.replace(case, head=head)
    return dataclasses.replace(case, stale=_old(case, stale)) if stale is not None else case


def _old(case: Case, stale: Mapping[str, int] | Spec) -> dict[str, int]:
    if not isinstance(stale, Spec | Mapping):
        raise SpecError(
            f"stale={stale!r} are not sizes.", "Expected names and numbers, or a layer.", 'Give {"features": 3}, say.'
        )
    given = numbers(stale) if isinstance(stale, Spec) else dict(stale)
    for name, value in given.items():
        if name not in case.values:
            known = ", ".join(case.values)
            raise SpecError(
                f"There is no size {name!r} that could be stale.",
                f"{case.spec}: its sizes are {known}.",
                nearest_word(name, case.values) + "Name one of these.",
            )
        whole_number(name, value, "A stale size is a whole number from 1.", f"Give {name}=3, say.")
    return {name: value for name, value in given.items() if value != case.values[name]}


def reached(case: Case) -> dict[int, list[tuple[str, Claim]]]:
    """Return every number that some mistake gives → the mistakes that give it, the likeliest first.

    >>> from gatewise.core.layout import CANONICAL
    >>> from gatewise.core.spec import Dense
    >>> case = make_case(Dense(50, 3), CANONICAL["dense"], batch=10)
    >>> {value: claims[0][0] for value, claims in reached(case).items()}[150]
    'bias-forgotten'
    """
    found: dict[int, list[tuple[str, Claim]]] = {}
    for slug, mistake in _TABLE.items():
        for claim in mistake(case):
            value = claim.formula.value(claim.values or case.values)
            found.setdefault(value, []).append((slug, claim))
    return found


def diagnose(
    claimed: int,
    spec: Spec,
    layout: Layout,
    *,
    head: Dense | int | None = None,
    timesteps: int | None = None,
    batch: int | None = None,
    stale: Mapping[str, int] | Spec | None = None,
    layouts: Sequence[Layout] = (),
) -> Diagnoses:
    """Name the mistakes that give exactly a claimed number of parameters.

    Args:
        claimed: The number that someone has.
        spec: The layer that it was claimed for.
        layout: How the layer is stored, which gives the true count.
        head: A dense layer on top that the claim includes, or the number of its outputs.
        timesteps: Length of the sequence, where it may have been multiplied in.
        batch: Batch size, likewise.
        stale: Sizes that an earlier layer had, such as ``{"features": 3}``, or that layer.
        layouts: Other layouts, to find the count of another framework or of another cell.

    Returns:
        At most five, the likeliest first; empty if the number is right or if no mistake gives it. ``verdict`` says
        which, and ``nearest`` is the closest mistake.

    Raises:
        SpecError: The number, or a size, is not a whole number from 1.
        UnsupportedSpecError: The layout cannot hold the layer.

    >>> from gatewise.registry import layout
    >>> from gatewise.core.spec import LSTM
    >>> spec = LSTM(features=1, units=10)
    >>> found = diagnose(120, spec, layout("keras", spec))
    >>> found[0].mistake, found[0].formula, found[0].same_formula
    ('output-size-one', 'units·(4·1·features + 4·1·1 + 4·1)', ('recurrent-kernel-diagonal',))
    """
    hint = "Give the number of parameters that you have, such as 120."
    claimed = whole_number("claimed", claimed, "A count of parameters is a whole number from 1.", hint)
    case = make_case(spec, layout, head=head, timesteps=timesteps, batch=batch, stale=stale, layouts=layouts)
    if claimed == case.whole().value(case.values):
        return Diagnoses([], claimed, case)
    claims = reached(case)
    if claimed not in claims:
        pairs = both(case, claimed)
        if pairs:
            return Diagnoses(_grouped(case, claimed, pairs)[:MOST_ANSWERS], claimed, case)
        return Diagnoses([], claimed, case, nearest(claimed, case, claims))
    return Diagnoses(_grouped(case, claimed, claims[claimed])[:MOST_ANSWERS], claimed, case)


def nearest(claimed: int, case: Case, claims: Mapping[int, list[tuple[str, Claim]]] | None = None) -> Diagnosis | None:
    """Return the mistake whose number comes closest to a claimed one."""
    total, claims = case.whole().value(case.values), reached(case) if claims is None else claims
    values = [value for value in claims if value != total]
    if not values:
        return None
    value = min(values, key=lambda each: abs(each - claimed))
    return _grouped(case, value, claims[value])[0]


def _grouped(case: Case, value: int, claims: list[tuple[str, Claim]]) -> list[Diagnosis]:
    """One answer for each formula; it takes the place of the likeliest mistake that has it."""
    alike: dict[object, list[tuple[str, Claim]]] = {}
    for slug, claim in claims:
        # Old values and the outputs of a head that nobody mentioned are part of what was computed.
        told = tuple(sorted((claim.values or {}).items()))
        key = tuple(claim.formula.value(probe) for probe in _PROBES), told
        alike.setdefault(key, []).append((slug, claim))
    answers = []
    for (slug, claim), *others in alike.values():
        more = {other: said.text for other, said in others if other != slug}
        answers.append(
            Diagnosis(
                slug,
                str(claim.formula),
                value,
                claim.text,
                tuple(more),
                claim.formula.arithmetic(claim.values or case.values),
                tuple(more.values()),
            )
        )
    return answers
