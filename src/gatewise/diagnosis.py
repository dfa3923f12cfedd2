"""Says which mistake keeps two sides apart, where a comparison failed.

The weights of both sides are laid side by side in canonical form, where one is the other but for a mistake that is
known: gates in another order, a kernel not transposed, a bias counted twice. Then the options. What is left is wiring:
each known way to run a layer wrongly is tried on what the target says it is, until it gives what the target gives.
A guess counts only if it is needed, and if the outputs agree once it is undone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gatewise.arrays.network import Call, Way, plain, unstacked, walk
from gatewise.core.layout import CANONICAL, GATES, gates_of, summed_gates
from gatewise.core.network import Layer, Network
from gatewise.core.plan import plan
from gatewise.core.spec import GRU, Dropout, Input, Masking, Recurrent, Spec
from gatewise.errors import GatewiseError
from gatewise.live import own_layouts
from gatewise.pairing import Parts, Unit, alike, halves, restacked, units
from gatewise.parity import Comparison, Side, Trial, mistakes

Array = np.ndarray

EQUAL = 16
"""How many roundings two weights may be apart and still count as equal."""

SAME_OPTIONS = (
    "activation recurrent_activation reset go_backwards merge return_sequences zero_output_for_mask cell_clip mask_zero"
).split()
"""Options that change the outputs and no shape of a weight."""

TEXTS = {
    "gates-exchanged": "the gates lie in another order",
    "kernel-transposed": "a square kernel is not transposed, or twice",
    "kernel-reshaped": "a kernel is reshaped where it has to be transposed",
    "unit-major": "the gates of one unit lie side by side, where those of one kind should",
    "directions-exchanged": "the two directions have each other's weights",
    "rows-shifted": "the rows of an embedding are shifted by one",
    "bias-dropped": "the bias, or one of two, is missing",
    "bias-doubled": "the bias is counted twice",
    "bias-halved": "the bias is counted half",
    "bias-misplaced": "the candidate's two biases are exchanged, or both are in one place",
    "forget-bias-missing": "the 1 is not in the forget gate's bias",
    "forget-bias-twice": "the 1 is in the forget gate's bias twice",
    "rounded": "the weights were rounded to fewer bits",
    "other-weights": "the weights are others, by no mistake that is known",
    "activation": "another activation",
    "recurrent-activation": "another activation of the gates",
    "hard-sigmoid-version": "hard_sigmoid in its other version, 0.2x + 0.5 or x/6 + 0.5",
    "reset": "a GRU resets before the recurrent product, or after it",
    "direction": "a sequence is read from its other end",
    "backward-end": "the backward half is taken at the wrong end",
    "backward-not-flipped": "the outputs of the backward half are in the order of reading",
    "halves-exchanged": "the halves of a bidirectional output are exchanged",
    "wrong-step": "the output of the first step is taken, not that of the last",
    "merge": "the two directions are merged in another way",
    "states-exchanged": "the states h and c are exchanged",
    "batch-and-time-exchanged": "batch and time are exchanged",
    "mask-ignored": "a mask has no effect",
    "zero-output-for-mask": "a masked step gives zeros, and should repeat, or the other way round",
    "option": "another option",
    "dropout-left-on": "the outputs are random",
}
"""Every mistake by its slug, with what it is."""


class Found(NamedTuple):
    """A mistake that keeps two sides apart.

    Attributes:
        layer: The layer of the target that has it.
        mistake: Its slug, one of ``TEXTS``.
        text: What brings the two together, with the difference before and after.
        before: The largest difference of the outputs with it, the mistakes named before being undone.
        after: The same without it.
    """

    layer: str
    mistake: str
    text: str
    before: float
    after: float


@dataclass
class Guess:
    """What the target may compute: the source with some mistakes.

    Attributes:
        network: Without stacks.
        weights: Layer → canonical weights.
        ways: Layer → how it is run.
        masks: Whether masks have an effect.
    """

    network: Network
    weights: dict[str, Parts]
    ways: dict[str, Way] = field(default_factory=dict)
    masks: bool = True

    def run(self, trial: Trial) -> list[Array]:
        """Return all outputs of a trial."""
        return walk(self.network, self.weights, trial.inputs, trial.states, self.ways, masks=self.masks)

    def with_option(self, layer: str, option: str, value: Any) -> Guess:
        """Return the guess that one layer has another option."""
        layers = [
            dataclasses.replace(each, spec=each.spec.replace(**{option: value})) if each.name == layer else each
            for each in self.network.layers
        ]
        return dataclasses.replace(self, network=Network(tuple(layers), self.network.outputs))

    def with_weights(self, layer: str, parts: Parts) -> Guess:
        """Return the guess that one layer has other weights."""
        return dataclasses.replace(self, weights=self.weights | {layer: self.weights[layer] | parts})

    def with_way(self, layer: str, way: Way) -> Guess:
        """Return the guess that one layer is run in another way."""
        return dataclasses.replace(self, ways=self.ways | {layer: way})


@dataclass(frozen=True)
class Difference:
    """One mistake: how to name it, and how to plant it in a guess.

    Attributes:
        layer: The layer of the target.
        mistake: Its slug.
        undoing: What undoes it, a clause behind "once".
        plant: From a guess to the same with the mistake.
    """

    layer: str
    mistake: str
    undoing: str
    plant: Callable[[Guess], Guess]


def diagnose(found: Comparison) -> tuple[Found, ...]:
    """Say what would bring the two sides of a failed comparison together; empty where nothing known does.

    Args:
        found: A comparison in which the sides did not agree.
    """
    try:
        with np.errstate(all="ignore"):
            return _Case(found).solve()
    except GatewiseError:
        return ()  # A layer that cannot be taken apart: then there is nothing to say.


def differs(first: Sequence[Array], second: Sequence[Array]) -> tuple[float, float]:
    """Return the largest difference, as it is and relative to the largest output; infinite where shapes differ."""
    if [each.shape for each in first] != [each.shape for each in second]:
        return np.inf, np.inf
    absolute = relative = 0.0
    for one, other in zip(first, second, strict=True):
        finite = np.isfinite(one)
        if (finite != np.isfinite(other)).any():
            return np.inf, np.inf
        if finite.any():
            gap = float(np.abs(one.astype(np.float64) - other)[finite].max())
            absolute = max(absolute, gap)
            relative = max(relative, gap / max(1.0, float(np.abs(one[finite]).max())))
    return absolute, relative


class _Case:
    """One failed comparison, and the way to its cause."""

    def __init__(self, found: Comparison) -> None:
        self.found, self.tolerance = found, found.tolerance
        self.first, self.second = found.first.side, found.second.side
        # What a copy that takes any length gave was not given by the target itself.
        self.own = [place for place, trial in enumerate(found.trials) if not trial.free]
        self.ours = list(found.ours)
        self.before = self.apart_now()

    def apart_now(self) -> float:
        """Return how far the two sides are apart."""
        return max(self.apart(self.ours[place], self.found.theirs[place]) for place in self.every)

    @property
    def every(self) -> range:
        return range(len(self.found.trials))

    @staticmethod
    def apart(first: Sequence[Array], second: Sequence[Array]) -> float:
        return differs(first, second)[0]

    def agrees(self, guess: Guess, wanted: Sequence[Sequence[Array]], places: Sequence[int]) -> bool:
        """Say whether a guess gives some outputs, at some trials."""
        for place in places:
            try:
                made = guess.run(self.found.trials[place])
            except (GatewiseError, ValueError, IndexError):
                return False  # A guess that does not fit the shapes.
            if not differs(wanted[place], made)[1] <= self.tolerance:
                return False
        return True

    def away(self, guess: Guess) -> float:
        """Return how far a guess is from the source."""
        return max(self.apart(self.ours[place], guess.run(self.found.trials[place])) for place in self.every)

    def solve(self) -> tuple[Found, ...]:
        random = self.random()
        if random:
            return random
        ours, theirs = units(self.first), units(self.second)
        flat, _ = unstacked(self.first.network)
        right = Guess(flat, {unit.name: unit.weights for unit in ours})
        if not alike(ours, theirs):
            return ()
        names = {mine.name: yours.layer[0] for mine, yours in zip(ours, theirs, strict=True)}
        told: tuple[Found, ...] = ()
        if not self.agrees(right, self.ours, self.own):
            told = self.source_mended(right, {unit.name: unit.layer[0] for unit in ours})
            if not told or self.together():
                return told
        known: list[Difference] = []
        eps = max(float(np.finfo(one.dtype()).eps) for one in (self.first, self.second))
        for mine, yours in zip(ours, theirs, strict=True):
            known += list(_weights_differ(mine, yours, eps))
        known += list(self.options_differ(ours, theirs))
        wrong = right
        for each in known:
            wrong = each.plant(wrong)
        if not self.agrees(wrong, self.found.theirs, self.every):
            hidden = self.hidden(wrong, self.found.theirs, names)
            if hidden is None:
                return ()
            known.append(hidden)
        found = self.told(right, known)
        return told + found if found else ()

    def together(self) -> bool:
        """Say whether the two sides agree."""
        return all(differs(self.ours[place], self.found.theirs[place])[1] <= self.tolerance for place in self.every)

    def source_mended(self, right: Guess, names: Mapping[str, str]) -> tuple[Found, ...]:
        """Find what the source itself does otherwise than its description says, and go on from what it should give."""
        hidden = self.hidden(right, self.ours, names)
        if hidden is None:
            return ()
        self.ours = [right.run(trial) for trial in self.found.trials]
        before, self.before = self.before, self.apart_now()
        text = _text(f"in the source, {hidden.undoing}", before, self.before, last=self.together())
        return (Found(hidden.layer, hidden.mistake, text, before, self.before),)

    def random(self) -> tuple[Found, ...]:
        """Say so where the target gives other outputs at each run."""
        trial = self.found.trials[self.own[0]]
        moved = self.apart(self.second.run(trial), self.second.run(trial))
        if not moved > self.tolerance:
            return ()
        # A copy that is built anew from the description has no such thing in it.
        mended = self.second.rebuilt(self.second.network, self.second.dtype())
        after = self.apart(self.ours[self.own[0]], mended.run(trial))
        text = (
            f"The target gives other outputs at each run: two runs on the same inputs differ by {moved:.1e}. "
            "Something random is left on, such as dropout; switch it off for predictions. "
            f"Without it the outputs {'match to' if after <= self.tolerance else 'differ by'} {after:.1e}."
        )
        return (Found("", "dropout-left-on", text, self.before, after),)

    # ── what the descriptions say ───────────────────────────────────────────────────────────────────────────────

    def options_differ(self, ours: list[Unit], theirs: list[Unit]) -> Iterator[Difference]:
        """Yield the options in which the descriptions of the two sides differ, for layers that stand side by side."""
        for mine, yours in zip(ours, theirs, strict=True):
            there = yours.spec.options()
            for option, wanted in mine.spec.options().items():
                if option in SAME_OPTIONS and option in there and there[option] != wanted:
                    yield _option(mine.name, yours.layer[0], option, wanted, there[option])
        masks = [[layer for layer in network.layers if isinstance(layer.spec, Masking)] for network in self.networks]
        if masks[0] and not masks[1]:
            where = masks[0][0].name
            undoing = f"the mask of {where!r} is made"
            yield Difference(where, "mask-ignored", undoing, lambda guess: _without(guess, where))
        if masks[1] and not masks[0]:
            extra = masks[1][0]
            undoing = f"no step is masked, as {extra.name!r} does"
            yield Difference(extra.name, "mask-ignored", undoing, lambda guess: _masked(guess, extra))

    @property
    def networks(self) -> tuple[Network, Network]:
        return self.first.network, self.second.network

    # ── what no description says ────────────────────────────────────────────────────────────────────────────────

    def hidden(self, guess: Guess, wanted: Sequence[Sequence[Array]], names: Mapping[str, str]) -> Difference | None:
        """Return the one way of running a layer wrongly that gives the outputs that are wanted."""
        screen = min(self.own, key=lambda place: self.found.trials[place].inputs[0].size)
        for each in _ways(guess):
            name = names.get(each.layer, each.layer)
            tried = each.plant(guess)
            if self.agrees(tried, wanted, [screen]) and self.agrees(tried, wanted, self.own):
                undoing = each.undoing.replace("{layer}", repr(name))
                return dataclasses.replace(each, layer=name, undoing=undoing)
        return None

    # ── the answer ──────────────────────────────────────────────────────────────────────────────────────────────

    def told(self, right: Guess, known: list[Difference]) -> tuple[Found, ...]:
        """Keep the mistakes that are needed, and say what each does."""
        # Each alone may be too small to matter, and all together not.
        needed = [each for each in known if not self.near(each.plant(right))] or known
        after, agree = self.confirmed(right)
        if not agree:
            return ()
        found: list[Found] = []
        before = self.before
        for number, each in enumerate(needed):
            rest, last = right, number == len(needed) - 1
            for later in needed[number + 1 :]:
                rest = later.plant(rest)
            left = after if last else self.away(rest)
            text = _text(f"in the target, {'also ' if found else ''}{each.undoing}", before, left, last=last)
            found.append(Found(each.layer, each.mistake, text, before, left))
            before = left
        return tuple(found)

    def near(self, guess: Guess) -> bool:
        """Say whether a guess agrees with the source."""
        return self.agrees(guess, self.ours, self.every)

    def confirmed(self, right: Guess) -> tuple[float, bool]:
        """Build the target anew without its mistakes, in its own framework; say how far it is, and if that will do."""
        dtype = self.found.dtype
        adapter, form = self.second.adapter, self.first.adapter.form(self.first.obj)
        network = self.first.network
        try:
            made, own = adapter.assemble(network, dtype=dtype, form=form)
            layouts = own_layouts(self.second.framework, network, form)
            for layer in network.weighted:
                weights = {name: array.astype(dtype) for name, array in restacked(layer, right.weights).items()}
                adapter.write(
                    own[layer.name], plan(layer.spec, CANONICAL[layer.spec.cell], layouts[layer.name]).apply(weights)
                )
            mended = Side(self.second.framework, adapter, made, network)
            gaps = [differs(self.ours[place], mended.run(self.found.trials[place])) for place in self.own]
        except GatewiseError:
            # The target's framework does not have this layer.
            return self.away(right), self.near(right)
        return max(gap for gap, _ in gaps), all(relative <= self.tolerance for _, relative in gaps)


def _text(clause: str, before: float, after: float, *, last: bool) -> str:
    """Say what undoing a mistake does."""
    known = np.isfinite(before)
    if last:
        was = f"they differ by {before:.1e}" if known else "they cannot be compared"
        return f"Outputs match to {after:.1e} once, {clause}; before, {was}."
    fall = f"The difference falls from {before:.1e} to" if known else "Outputs can be compared, and differ by"
    return f"{fall} {after:.1e} once, {clause}."


# ── weights side by side ────────────────────────────────────────────────────────────────────────────────────────


class Reading(NamedTuple):
    """How the weights of one part come out of the target's: what was done, to which part, and what they become."""

    mistake: str
    detail: str
    part: str


def _weights_differ(mine: Unit, yours: Unit, eps: float) -> Iterator[Difference]:
    """Yield what turns the weights of one unit into those of the other."""
    layer = yours.layer[0]
    sides = halves(mine.spec)
    split = [
        [
            {name.removeprefix(half): array for name, array in unit.weights.items() if name.startswith(half)}
            for half in sides
        ]
        for unit in (mine, yours)
    ]
    readings: dict[str, list[Reading]] = {}
    orders = (yours.order, mine.order)
    pairs = [_Pair(mine.spec, yours.spec, one, other, orders, eps) for one, other in zip(*split, strict=True)]
    crossed = [
        _Pair(mine.spec, yours.spec, one, other, (), eps) for one, other in zip(split[0], split[1][::-1], strict=True)
    ]
    if len(sides) == 2 and not all(pair.equal for pair in pairs) and all(pair.equal for pair in crossed):
        undoing = f"the weights of the two directions of {layer!r} are exchanged"
        yield _planted(mine, yours, list(mine.weights | yours.weights), layer, "directions-exchanged", undoing)
        return
    for half, pair in zip(sides, pairs, strict=True):
        readings[half] = pair.readings()
    told: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for half, each in readings.items():
        for reading in each:
            told.setdefault((reading.mistake, reading.detail), []).append((half, reading.part))
    for (mistake, detail), places in told.items():
        parts = list(dict.fromkeys(part for _, part in places))
        where = list(dict.fromkeys(half for half, _ in places))
        every = {part for pair in pairs for part in pair.telling()}
        whole = mistake == "gates-exchanged" and set(parts) >= every
        what = f"{layer!r}" if whole else f"the {_listed([part.replace('_', ' ') for part in parts])} of {layer!r}"
        clause = _plural(detail) if len(parts) > 1 and not whole else detail
        if len(where) < len(sides):
            what += f" ({where[0].rstrip('/')} half)"
        names = [half + name for half, part in places for name in pairs[0].tensors(part)]
        yield _planted(mine, yours, names, layer, mistake, clause.format(what=what, layer=repr(layer)))


def _plural(detail: str) -> str:
    """Return a clause about one tensor as one about several."""
    for one, several in (("{what} is ", "{what} are "), ("{what} has ", "{what} have "), (" it was ", " they were ")):
        detail = detail.replace(one, several)
    return detail


def _planted(mine: Unit, yours: Unit, names: list[str], layer: str, mistake: str, undoing: str) -> Difference:
    parts = {}
    for name in names:
        if name in yours.weights:
            parts[name] = yours.weights[name]
        elif name in mine.weights:
            parts[name] = np.zeros_like(mine.weights[name])
    return Difference(layer, mistake, undoing, lambda guess: guess.with_weights(mine.name, parts))


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


class _Pair:
    """One direction of one unit on both sides: which known mistakes make the target's weights of the source's."""

    def __init__(self, spec: Spec, other: Spec, mine: Parts, yours: Parts, layouts: Sequence[str], eps: float) -> None:
        self.cell, self.gates = spec.cell, GATES[spec.cell]
        # Where the resets differ, the one that sums all biases leaves only their sums to compare.
        summed = set(summed_gates(spec)) | set(summed_gates(other)) if self.gates else set()
        self.summed = np.array([gate in summed for gate in self.gates] or [True])
        self.mine, self.yours, self.eps = mine, yours, eps
        orders = [tuple(map(self.gates.index, order)) for order in dict.fromkeys((*layouts, self.gates))]
        self.orders = orders if self.gates else [(0,)]
        self.found: list[tuple[int, ...]] = []

    def same(self, one: Array, other: Array, scale: float | None = None) -> bool:
        """Say whether two arrays are equal but for rounding."""
        if one.shape != other.shape:
            return False
        largest = float(np.abs(one).max(initial=0)) if scale is None else scale
        return bool((np.abs(one - other) <= EQUAL * self.eps * largest).all())

    # ── parts ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def kernels(self) -> list[str]:
        return [name for name in self.mine if "bias" not in name]

    def biases(self, parts: Parts) -> tuple[Array, Array]:
        """Return the two biases, (gates, units); zeros where there are none."""
        known = next((parts[name] for name in ("bias", "recurrent_bias") if name in parts), None)
        if known is None:
            known = next(
                (self.mine | self.yours)[name] for name in ("bias", "recurrent_bias") if name in self.mine | self.yours
            )
            known = np.zeros_like(known)
        pair = [np.asarray(parts.get(name, np.zeros_like(known)), np.float64) for name in ("bias", "recurrent_bias")]
        return tuple(each.reshape(len(self.summed), -1) for each in pair)  # type: ignore[return-value]

    @property
    def has_bias(self) -> bool:
        return any("bias" in name for name in self.mine | self.yours)

    def acts(self, bias: Array, recurrent: Array) -> Array:
        """Return what the function sees of two biases: their sums, and a bias inside the reset by itself."""
        alone = ~self.summed
        return np.concatenate([np.where(self.summed[:, None], bias + recurrent, bias), recurrent[alone]])

    @property
    def equal(self) -> bool:
        """Whether both have the same weights."""
        if not all(self.same(self.mine[name], self.yours[name]) for name in self.kernels):
            return False
        return not self.has_bias or self.same(self.acts(*self.biases(self.mine)), self.acts(*self.biases(self.yours)))

    def tensors(self, part: str) -> list[str]:
        """Return the canonical tensors of a part; both biases are one."""
        return ["bias", "recurrent_bias"] if part == "bias" and self.gates else [part]

    def telling(self) -> set[str]:
        """Return the parts that would show a mistake: those whose gates are not all alike."""
        shown = {name for name in self.kernels if gates_of(self.cell, name)}
        if self.has_bias and self.acts(*self.biases(self.mine)).any():
            shown.add("bias")
        return shown

    # ── mistakes ────────────────────────────────────────────────────────────────────────────────────────────────

    def readings(self) -> list[Reading]:
        """Return the mistakes of each part that differs."""
        found = [reading for name in self.kernels if (reading := self.kernel(name)) is not None]
        if self.has_bias:
            found += filter(None, [self.bias()])
        return found

    def kernel(self, name: str) -> Reading | None:
        """Return the mistake in one kernel, or None where there is none."""
        mine, yours = self.mine[name], self.yours[name]
        if self.same(mine, yours):
            return None
        rounding = _rounding(mine, yours)
        if rounding:
            return Reading("rounded", _ROUNDED.replace("{kind}", rounding), name)
        gates = gates_of(self.cell, name)
        count = len(gates) or 1
        rows = mine.shape[1] if gates else mine.shape[0]
        flat, target = (each.reshape(count, rows, -1) for each in (mine, yours))
        orders = self.orders if gates and gates == self.gates else [tuple(range(count))]
        for mistake, detail, variant in _variants(target, orders):
            order = self.ordered(flat, variant)
            if order is None:
                continue
            moved = order != tuple(range(len(flat)))
            if moved and not mistake:
                self.found.append(order)
                return Reading("gates-exchanged", _exchange(gates, order), name)
            return Reading(mistake, detail, name)
        if self.cell == "embedding":
            for step in (1, -1):
                if self.same(flat[0][1:-1], np.roll(target[0], step, 0)[1:-1]):
                    return Reading("rows-shifted", "the rows of {what} are moved by one", name)
        return Reading("other-weights", _OTHER, name)

    def ordered(self, mine: Array, yours: Array) -> tuple[int, ...] | None:
        """Return the order of the target's gates in which they are the source's, or None."""
        count, scale = len(mine), float(np.abs(mine).max(initial=0))
        if mine.shape != yours.shape:
            return None
        match = [[self.same(mine[i], yours[j], scale) for j in range(count)] for i in range(count)]
        first = [tuple(range(count)), *(order for order in self.found if len(order) == count)]
        for order in itertools.chain(first, itertools.permutations(range(count))):
            if all(match[i][j] for i, j in enumerate(order)):
                return order
        return None

    def bias(self) -> Reading | None:
        """Return the mistake in the biases, or None where there is none that the function sees."""
        mine, yours = self.biases(self.mine), self.biases(self.yours)
        right, met = self.acts(*mine), self.acts(*yours)
        scale = max(float(np.abs(right).max(initial=0)), float(np.abs(met).max(initial=0)))
        if self.same(right, met, scale):
            return None
        identity = tuple(range(len(mine[0])))
        for order in dict.fromkeys([identity, *(order for order in self.found if len(order) == len(identity))]):
            # The target's gate order[i] holds what belongs to gate i.
            held = np.argsort(order)
            for mistake, detail, one, other in _bias_mistakes(self.cell, *mine):
                if (mistake or order != identity) and self.same(self.acts(one[held], other[held]), met, scale):
                    return Reading(mistake or "gates-exchanged", detail or _exchange(self.gates, order), "bias")
        rounding = _rounding(right, met)
        parts = [(_rounding(one, other), np.array_equal(one, other)) for one, other in zip(mine, yours, strict=True)]
        if all(kind or equal for kind, equal in parts):
            rounding = rounding or next(kind for kind, _ in parts if kind)
        if rounding:
            return Reading("rounded", _ROUNDED.replace("{kind}", rounding), "bias")
        variants = [list(_variants(each[:, :, None], self.orders)) for each in yours]
        for (mistake, detail, left), (_, _, also) in zip(*variants, strict=True):
            for order in itertools.permutations(identity):
                if self.same(right, self.acts(left[list(order), :, 0], also[list(order), :, 0]), scale):
                    return Reading(mistake or "gates-exchanged", detail or _exchange(self.gates, order), "bias")
        return Reading("other-weights", _OTHER, "bias")


_ROUNDED = "{what} has all its bits (they are the source's numbers, rounded to {kind})"
_OTHER = "{what} has the numbers of the source (no mistake that is known here makes them of these)"


def _exchange(gates: str, order: Sequence[int]) -> str:
    """Say how the gates of the target have to move, which keeps gate i in the place of gate order[i].

    >>> _exchange("rzn", (1, 0, 2))
    'gates r and z of {what} are exchanged'
    >>> _exchange("rzn", (1, 2, 0))
    'the gates of {what} are taken to lie as n r z, and not as r z n'
    """
    moved = [gates[i] for i, j in enumerate(order) if i != j]
    if len(moved) == 2:
        return f"gates {moved[0]} and {moved[1]} of {{what}} are exchanged"
    lying = " ".join(gates[i] for i in np.argsort(order))
    return f"the gates of {{what}} are taken to lie as {lying}, and not as {' '.join(gates)}"


def _variants(target: Array, orders: Sequence[tuple[int, ...]]) -> Iterator[tuple[str, str, Array]]:
    """Yield the ways to read an array (gates, units, columns) that was written wrongly: slug, words, and what it is."""
    gates, rows, columns = target.shape
    yield "", "", target
    if rows == columns and rows > 1:
        yield "kernel-transposed", "{what} is transposed", target.swapaxes(1, 2)
    for order in orders:
        packed = target[list(order)]
        if gates > 1 and rows > 1:
            apart = packed.reshape(rows, gates, columns).swapaxes(0, 1)
            yield "unit-major", "{what} is read unit by unit, the gates of each side by side", apart
            joined = packed.swapaxes(0, 1).reshape(gates, rows, columns)
            yield "unit-major", "{what} is read gate by gate, and not unit by unit", joined
        if columns > 1:
            words = "{what} is transposed where it was only reshaped"
            yield "kernel-reshaped", words, packed.reshape(columns, gates * rows).T.reshape(target.shape)
            flat = packed.reshape(gates * rows, columns).T.reshape(gates * rows, columns)
            yield "kernel-reshaped", words, flat.reshape(target.shape)


def _bias_mistakes(cell: str, bias: Array, recurrent: Array) -> Iterator[tuple[str, str, Array, Array]]:
    """Yield what mistakes make of two biases (gates, units): slug, words, and both as the target then has them."""
    yield "", "", bias, recurrent
    none, total = np.zeros_like(bias), bias + recurrent
    yield "bias-dropped", "{what}, which is zero there, is put back", none, none
    if bias.any() and recurrent.any():
        words = "the {which} of its two biases is put back into {what}"
        yield "bias-dropped", words.replace("{which}", "second"), bias, none
        yield "bias-dropped", words.replace("{which}", "first"), none, recurrent
    yield "bias-doubled", "{what} is counted once, and not twice", 2 * bias, 2 * recurrent
    yield "bias-doubled", "{what} is counted once, and not twice", total, total
    yield "bias-halved", "{what} is counted in full, and not half", bias / 2, recurrent / 2
    if cell == "gru":
        words = "the candidate's two biases in {what} are put into their places: {how}"
        yield "bias-misplaced", words.replace("{how}", "they are exchanged"), recurrent, bias
        yield "bias-misplaced", words.replace("{how}", "both are in that of the input"), total, none
        yield "bias-misplaced", words.replace("{how}", "both are in that of the state"), none, total
    if cell == "lstm":
        forget = np.zeros_like(bias)
        forget[GATES["lstm"].index("f")] = 1
        yield "forget-bias-missing", "1 is added to the forget gate in {what}", bias - forget, recurrent
        yield "forget-bias-twice", "1 is taken off the forget gate in {what}", bias + forget, recurrent


def _rounding(mine: Array, yours: Array) -> str:
    """Return the type that an array was rounded to, or nothing."""
    exact, met = mine.astype(np.float64), yours.astype(np.float64)
    if np.array_equal(exact, met):
        return ""
    for kind, digits in (("float32", 24), ("float16", 11), ("bfloat16", 8)):
        # Both steps of a sum may have been rounded, and small numbers of float16 have fewer digits.
        near = np.abs(exact - met) <= 2.0 ** (1 - digits) * np.abs(exact) + (1e-7 if kind == "float16" else 0)
        if near.all() and np.array_equal(_rounded(met, kind), met):
            return kind
    return ""


def _rounded(array: Array, kind: str) -> Array:
    if kind != "bfloat16":
        return array.astype(kind).astype(np.float64)
    # NumPy has no bfloat16: it is the upper half of a float32, rounded to even.
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    upper = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return upper.astype(np.uint32).view(np.float32).astype(np.float64)


# ── options ─────────────────────────────────────────────────────────────────────────────────────────────────────

_SLUGS = {
    "activation": "activation",
    "recurrent_activation": "recurrent-activation",
    "reset": "reset",
    "go_backwards": "direction",
    "merge": "merge",
    "zero_output_for_mask": "zero-output-for-mask",
    "mask_zero": "mask-ignored",
}


def _option(name: str, layer: str, option: str, wanted: Any, there: Any) -> Difference:
    slug = _SLUGS.get(option, "option")
    if str(wanted).startswith("hard_sigmoid") and str(there).startswith("hard_sigmoid"):
        slug = "hard-sigmoid-version"
    undoing = f"{option} of {layer!r} is {wanted}, and not {there}"
    return Difference(layer, slug, undoing, lambda guess: guess.with_option(name, option, there))


def _without(guess: Guess, name: str) -> Guess:
    """Return a guess in which a Masking layer does nothing."""
    layers = [
        dataclasses.replace(each, spec=Dropout(0.0)) if each.name == name else each for each in guess.network.layers
    ]
    return dataclasses.replace(guess, network=Network(tuple(layers), guess.network.outputs))


def _masked(guess: Guess, mask: Layer) -> Guess:
    """Return a guess with a Masking layer behind its first input."""
    source = next(layer.name for layer in guess.network.layers if isinstance(layer.spec, Input))
    name = f"{source} masked"
    layers: list[Layer] = []
    for each in guess.network.layers:
        layers.append(dataclasses.replace(each, inputs=tuple(name if one == source else one for one in each.inputs)))
        if each.name == source:
            layers.append(Layer(name, mask.spec, (source,)))
    return dataclasses.replace(guess, network=Network(tuple(layers), guess.network.outputs))


# ── ways to run a layer wrongly ─────────────────────────────────────────────────────────────────────────────────

OTHER_ACTIVATIONS = (
    "tanh relu linear sigmoid hard_sigmoid elu selu gelu silu softplus softsign leaky_relu relu6".split()
)


def _ways(guess: Guess) -> Iterator[Difference]:
    """Yield every known mistake that no description tells, in each layer, then in all that can have it."""
    alike: dict[tuple[str, str], list[Difference]] = {}
    for layer in guess.network.layers:
        for mistake, undoing, plant in _ways_of(layer, guess.weights.get(layer.name, {})):
            made = Difference(layer.name, mistake, undoing, plant)
            alike.setdefault((mistake, undoing), []).append(made)
            yield made
    if any(isinstance(layer.spec, Masking) or layer.spec.options().get("mask_zero") for layer in guess.network.layers):
        yield Difference(
            "", "mask-ignored", "masks have their effect", lambda each: dataclasses.replace(each, masks=False)
        )
    for (mistake, undoing), group in alike.items():
        if len(group) > 1:
            yield Difference("", mistake, undoing.replace("{layer}", "every such layer"), _all_of(group))


def _all_of(group: Sequence[Difference]) -> Callable[[Guess], Guess]:
    def plant(guess: Guess) -> Guess:
        for each in group:
            guess = each.plant(guess)
        return guess

    return plant


Plant = Callable[[Guess], Guess]


def _ways_of(layer: Layer, weights: Parts) -> Iterator[tuple[str, str, Plant]]:
    """Yield the mistakes that one layer can have: slug, what undoes it, and what plants it."""
    spec, name = layer.spec, layer.name

    def way(run: Way) -> Plant:
        return lambda guess: guess.with_way(name, run)

    def option(**changes: Any) -> Plant:
        return way(lambda call: plain(call._replace(spec=call.spec.replace(**changes))))

    if isinstance(spec, Recurrent):
        yield from ((mistake, words, way(run)) for mistake, words, run in _recurrent_ways(spec))
    for which in ("activation", "recurrent_activation"):
        usual = spec.options().get(which)
        for other in OTHER_ACTIVATIONS if usual else ():
            if other != usual:
                words = f"{which} of {{layer}} is {usual}, and not {other}"
                yield _SLUGS[which], words, option(**{which: other})
    for old, scale in (("0.2x + 0.5", 1.2),):
        which = "recurrent_activation" if isinstance(spec, Recurrent) else "activation"
        usual = spec.options().get(which)
        if usual in ("hard_sigmoid", "sigmoid") and weights:
            now = "x/6 + 0.5" if usual == "hard_sigmoid" else usual
            words = f"{which} of {{layer}} is {now}, and not hard_sigmoid as {old}"
            yield "hard-sigmoid-version", words, way(_scaling(which, scale))
    if isinstance(spec, GRU):
        other = "before" if spec.reset == "after" else "after"
        yield "reset", f"{{layer}} resets {spec.reset} the recurrent product, and not {other} it", option(reset=other)
    for mistake, words, wrong in _weight_mistakes(layer, weights):
        yield mistake, words, _weighing(name, wrong)


def _weighing(name: str, wrong: Parts) -> Plant:
    return lambda guess: guess.with_weights(name, wrong)


def _weight_mistakes(layer: Layer, weights: Parts) -> Iterator[tuple[str, str, Parts]]:
    """Yield the mistakes of weights that a layer may make as it runs, whatever it stores."""
    for name, wrong in mistakes(layer, weights) if weights else ():
        slug = next((slug for start, slug in _PLANTED.items() if name.startswith(start)), "kernel-transposed")
        yield slug, f"{name.replace(' exchanged', '')} of {{layer}} {_MENDED[slug]}", wrong
    if layer.spec.cell == "lstm" and any(name.endswith("bias") for name in weights):
        for slug, sign, words in (
            ("forget-bias-missing", -1, "1 is added to the forget gate of {layer}"),
            ("forget-bias-twice", 1, "1 is taken off the forget gate of {layer}"),
        ):
            forget = np.zeros((4, 1))
            forget[GATES["lstm"].index("f")] = sign
            moved = {name: array + forget for name, array in weights.items() if name.rpartition("/")[2] == "bias"}
            yield slug, words, moved


_PLANTED = {"gates": "gates-exchanged", "bias dropped": "bias-dropped", "bias doubled": "bias-doubled"}
_MENDED = {
    "gates-exchanged": "are exchanged",
    "bias-dropped": "no more",
    "bias-doubled": "no more",
    "kernel-transposed": "back",
}


def _scaling(which: str, scale: float) -> Way:
    """Run a layer whose hard_sigmoid has the other slope: 0.2x + 0.5 is (1.2x)/6 + 0.5, so that its weights tell."""

    def run(call: Call) -> list[Array]:
        gates = GATES[call.spec.cell]
        factors = np.array([1.0 if gate in "gn" else scale for gate in gates] or [scale])

        def scaled(name: str, array: Array) -> Array:
            own = gates_of(call.spec.cell, name.rpartition("/")[2])
            if not gates:
                return array * scale
            chosen = [factors[gates.index(gate)] for gate in own]
            return array * np.reshape(chosen, (-1, *[1] * (array.ndim - 1))) if own else array

        weights = {name: scaled(name, np.asarray(array, np.float64)) for name, array in call.weights.items()}
        return plain(call._replace(spec=call.spec.replace(**{which: "hard_sigmoid"}), weights=weights))

    return run


def _recurrent_ways(spec: Recurrent) -> Iterator[tuple[str, str, Way]]:
    """Yield the ways to run a recurrent layer wrongly: slug, what undoes it, and the way."""
    front = len(spec.replace(return_state=False).outputs)  # type: ignore[attr-defined]
    kinds = 2 if spec.cell == "lstm" else 1

    def sequences(call: Call, **changes: Any) -> list[Array]:
        return plain(call._replace(spec=call.spec.replace(return_sequences=True, **changes)))

    def ends(outputs: list[Array], step: int) -> list[Array]:
        return [each[:, step] for each in outputs[:front]] + outputs[front:]

    def turned(call: Call) -> list[Array]:
        return plain(call._replace(spec=call.spec.replace(go_backwards=not spec.go_backwards)))

    def reversed_input(call: Call) -> list[Array]:
        mask = None if call.mask is None else call.mask[:, ::-1]
        made = plain(call._replace(value=call.value[:, ::-1], mask=mask))
        return [each[:, ::-1] for each in made[:front]] + made[front:] if spec.return_sequences else made

    words = "{layer} reads the sequence from its other end"
    yield "direction", words, turned
    yield "direction", words, reversed_input
    if spec.bidirectional:
        if not spec.return_sequences:
            words = "the backward half of {layer} is taken where it ends, at the first step, and not at the last"
            yield "backward-end", words, lambda call: ends(sequences(call), 0 if spec.go_backwards else -1)
        yield from _direction_ways(spec)
    if not spec.return_sequences:
        words = "{layer} gives its output of the last step, and not of the first"
        yield (
            "wrong-step",
            words,
            lambda call: ends(sequences(call), -1 if spec.bidirectional and spec.go_backwards else 0),
        )
    if kinds == 2 and spec.return_state:

        def crossed(call: Call) -> list[Array]:
            made = plain(call)
            states = made[front:]
            return made[:front] + [states[place ^ 1] for place in range(len(states))]

        yield "states-exchanged", "the states h and c of {layer} are exchanged", crossed
    if kinds == 2:

        def started(call: Call, run: Way = plain) -> list[Array]:
            states = list(call.states or [])
            return run(call._replace(states=[states[place ^ 1] for place in range(len(states))] or None))

        yield "states-exchanged", "the first states h and c of {layer} are exchanged", started
        if spec.return_state:
            words = "the states h and c of {layer} are exchanged, the first and the last"
            yield "states-exchanged", words, lambda call: started(call, crossed)

    def transposed(call: Call) -> list[Array]:
        made = sequences(call._replace(value=call.value.swapaxes(0, 1), mask=None, states=None))
        back = [each.swapaxes(0, 1) for each in made[:front]] + made[front:]
        return back if spec.return_sequences else ends(back, -1)

    yield "batch-and-time-exchanged", "batch and time of {layer} are exchanged", transposed
    words = "the mask has its effect on {layer}"
    yield "mask-ignored", words, lambda call: plain(call._replace(mask=None))
    words = "zero_output_for_mask of {layer} is " + f"{spec.zero_output_for_mask}"
    other = not spec.zero_output_for_mask
    yield (
        "zero-output-for-mask",
        words,
        lambda call: plain(call._replace(spec=call.spec.replace(zero_output_for_mask=other))),
    )


def _direction_ways(spec: Recurrent) -> Iterator[tuple[str, str, Way]]:
    """Yield what can go wrong where two directions become one."""

    def rejoined(call: Call, change: Callable[[Array, Array], tuple[Array, Array]]) -> list[Array]:
        made = plain(call._replace(spec=call.spec.replace(merge=None)))
        halves = change(made[0], made[1])
        outputs = list(halves) if spec.merge is None else [MERGES[spec.merge](*halves)]
        return outputs + made[2:]

    if spec.return_sequences:
        words = "the outputs of the backward half of {layer} are put into the order of time"
        yield "backward-not-flipped", words, lambda call: rejoined(call, lambda one, other: (one, other[:, ::-1]))
    words = "the two halves of the output of {layer} are exchanged"
    yield "halves-exchanged", words, lambda call: rejoined(call, lambda one, other: (other, one))
    for merge in ("sum", "ave", "mul", "concat"):
        if merge != spec.merge and spec.merge is not None:
            words = f"merge of {{layer}} is {spec.merge}, and not {merge}"
            yield "merge", words, _merging(merge)


def _merging(merge: str) -> Way:
    return lambda call: plain(call._replace(spec=call.spec.replace(merge=merge)))


MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "concat": lambda one, other: np.concatenate([one, other], -1),
    "sum": lambda one, other: one + other,
    "ave": lambda one, other: (one + other) / 2,
    "mul": lambda one, other: one * other,
}
