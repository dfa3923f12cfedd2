"""Says which mistake keeps two sides apart, where a comparison failed.

The weights of both sides are laid side by side in canonical form, where one is the other but for a mistake that is
known: gates in another order, a kernel not transposed, a bias counted twice. Then the options. What is left is wiring:
each known way to run a layer wrongly is tried on what the target says it is, until it gives what the target gives.
A guess counts only if it is needed, and if the outputs agree once it is undone.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gatewise.arrays.miswired import recurrent_ways
from gatewise.arrays.network import Way, plain, unstacked
from gatewise.arrays.readings import Pair, Reading
from gatewise.core.between import Dropout, Input, Masking
from gatewise.core.layout import CANONICAL, GATES
from gatewise.core.network import Layer, Network
from gatewise.core.plan import plan
from gatewise.core.spec import GRU, Recurrent
from gatewise.errors import GatewiseError
from gatewise.live import own_layouts
from gatewise.parity.compare import Comparison
from gatewise.parity.faults import mistakes
from gatewise.parity.outputs import Pick
from gatewise.parity.reference import run
from gatewise.parity.result import Found
from gatewise.parity.subject import Side, Trial
from gatewise.parity.units import Parts, Unit, alike, halves, restacked, units

Array = np.ndarray

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
    "rows-shifted": "the rows of a weight are shifted",
    "columns-shifted": "the columns of a weight are shifted",
    "not-copied": "a weight is as in a new layer",
    "variance-root": "a standard deviation stands where the variance should",
    "bias-dropped": "the bias, or one of two, is missing",
    "bias-doubled": "the bias is counted twice",
    "bias-halved": "the bias is counted half",
    "bias-misplaced": "the candidate's two biases are exchanged, or both are in one place",
    "forget-bias-missing": "the 1 is not in the forget gate's bias",
    "forget-bias-twice": "the 1 is in the forget gate's bias twice",
    "rounded": "the weights were rounded to fewer bits",
    "other-layer": "a layer, or a half of one, has the weights of another",
    "epsilon": "another epsilon of a normalisation",
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


@dataclass
class Guess:
    """What the target may compute: the source with some mistakes.

    Attributes:
        network: Without stacks.
        weights: Layer → canonical weights.
        ways: Layer → how it is run.
        masks: Whether masks have an effect.
        picks: What is compared of its outputs; empty for all.
    """

    network: Network
    weights: dict[str, Parts]
    ways: dict[str, Way] = field(default_factory=dict)
    masks: bool = True
    picks: tuple[Pick, ...] = ()

    def run(self, trial: Trial) -> list[Array]:
        """Return all outputs of a trial that are compared."""
        outputs = run(self.network, self.weights, trial, self.ways, masks=self.masks)
        return [pick.take(outputs) for pick in self.picks] if self.picks else outputs

    def with_option(self, layer: str, option: str, value: Any) -> Guess:
        """Return the guess that one layer has another option."""
        was = self.network[layer].spec.options()[option]
        layers = [
            dataclasses.replace(each, spec=each.spec.replace(**{option: value}))
            if each.owner == layer and each.spec.options()[option] == was
            else each
            for each in self.network.layers
        ]
        return dataclasses.replace(self, network=Network(tuple(layers), self.network.outputs))

    def with_weights(self, layer: str, parts: Parts) -> Guess:
        """Return the guess that one layer has other weights."""
        return dataclasses.replace(self, weights=self.weights | {layer: self.weights[layer] | parts})

    def with_way(self, layer: str, way: Way) -> Guess:
        """Return the guess that one layer is run in another way."""
        return dataclasses.replace(self, ways=self.ways | {layer: way})


Plant = Callable[[Guess], Guess]
"""From a guess to the same with a mistake."""


@dataclass(frozen=True)
class Difference:
    """One mistake: how to name it, and how to plant it in a guess.

    Attributes:
        layer: The layer of the target.
        mistake: Its slug.
        undoing: What undoes it, a clause behind "once"; ``{whose}`` stands for the layers, where others may have it.
        plant: From a guess to the same with the mistake.
        places: The layers that have it, each with its place in its stack.
    """

    layer: str
    mistake: str
    undoing: str
    plant: Plant
    places: tuple[tuple[str, int], ...] = ()


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
        right = Guess(flat, {unit.name: unit.weights for unit in ours}, picks=self.first.picks)
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
            known += list(weights_differ(mine, yours, eps))
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
                if option == "return_sequences" and self.first.picks:
                    continue  # What both give is compared.
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
        depths = Counter(layer for layer, _ in (unit.layer for unit in units(self.second)))
        needed = _merged(needed, depths)
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
            mended = Side(self.second.framework, adapter, made, network, self.first.picks)
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
    # One of several may hide a part of another's effect.
    way = "falls" if after < before else "goes"
    fall = f"The difference {way} from {before:.1e} to" if known else "Outputs can be compared, and differ by"
    return f"{fall} {after:.1e} once, {clause}."


# ── weights side by side ────────────────────────────────────────────────────────────────────────────────────────


def weights_differ(mine: Unit, yours: Unit, eps: float) -> Iterator[Difference]:
    """Yield what turns the weights of one unit into those of the other, in the order in which it was done."""
    sides = halves(mine.spec)
    split = [
        [
            {name.removeprefix(half): array for name, array in unit.weights.items() if name.startswith(half)}
            for half in sides
        ]
        for unit in (mine, yours)
    ]
    orders = (yours.order, mine.order)
    pairs = [Pair(mine.spec, yours.spec, one, other, orders, eps) for one, other in zip(*split, strict=True)]
    crossed = [
        Pair(mine.spec, yours.spec, one, other, (), eps) for one, other in zip(split[0], split[1][::-1], strict=True)
    ]
    if len(sides) == 2 and not all(pair.equal for pair in pairs) and all(pair.equal for pair in crossed):
        undoing = "the weights of the two directions of {whose} are exchanged"
        parts = dict(yours.weights)
        yield Difference(
            yours.layer[0],
            "directions-exchanged",
            undoing,
            lambda guess: guess.with_weights(mine.name, parts),
            (yours.layer,),
        )
        return
    told: dict[tuple[str, str], list[tuple[str, Reading]]] = {}
    for half, pair in zip(sides, pairs, strict=True):
        for reading in pair.readings():
            told.setdefault((reading.mistake, reading.detail), []).append((half, reading))
    every = {part for pair in pairs for part in pair.telling()}
    for (mistake, detail), places in sorted(told.items(), key=lambda each: _stage(each[0][0])):
        parts_ = list(dict.fromkeys(reading.part for _, reading in places))
        where = list(dict.fromkeys(half for half, _ in places))
        whole = mistake == "gates-exchanged" and set(parts_) >= every
        what = "{whose}" if whole else f"the {_listed([part.replace('_', ' ') for part in parts_])} of {{whose}}"
        if len(where) < len(sides):
            what += f" ({where[0].rstrip('/')} half)"
        clause = _plural(detail) if len(parts_) > 1 and not whole else detail
        plant = _planting(mine.name, places)
        yield Difference(yours.layer[0], mistake, clause.replace("{what}", what), plant, (yours.layer,))


def _stage(mistake: str) -> int:
    """Return when a mistake is made: numbers are changed first, then moved, then rounded."""
    return {"gates-exchanged": 1, "kernel-transposed": 2, "kernel-reshaped": 2, "unit-major": 2, "rounded": 3}.get(
        mistake, 0
    )


def _plural(detail: str) -> str:
    """Return a clause about one tensor as one about several."""
    for one, several in (("{what} is ", "{what} are "), ("{what} has ", "{what} have "), (" it was ", " they were ")):
        detail = detail.replace(one, several)
    return detail


def _planting(name: str, places: Sequence[tuple[str, Reading]]) -> Plant:
    """Return what makes the mistakes of some parts in a guess."""

    def plant(guess: Guess) -> Guess:
        for half, reading in places:
            parts = guess.weights[name]
            own = {part.removeprefix(half): array for part, array in parts.items() if part.startswith(half)}
            made = {f"{half}{part}": array for part, array in reading.plant(own).items()}
            guess = guess.with_weights(name, made)
        return guess

    return plant


_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()


def _merged(found: Sequence[Difference], depths: Mapping[str, int]) -> list[Difference]:
    """Make one of the mistakes that several layers have alike, and say whose they are.

    Args:
        found: The mistakes, each with the places that it is in.
        depths: How many layers each stack has.
    """
    groups: dict[tuple[str, str, int], list[Difference]] = {}
    for number, each in enumerate(found):
        groups.setdefault((each.mistake, each.undoing, 0 if each.places else number), []).append(each)
    merged = list(groups.values())
    for place in {place for each in found for place in each.places}:
        stages = [_stage(group[0].mistake) for group in merged for each in group if place in each.places]
        if stages != sorted(stages):
            merged = [[each] for each in found]  # Made in another order, they would be other mistakes.
    made = []
    for group in merged:
        whose, names = [], list(dict.fromkeys(each.layer for each in group))
        for name in names:
            own = [number for each in group for layer, number in each.places if layer == name]
            if len(own) in (0, depths.get(name, 1)):
                whose.append(repr(name))
            else:
                nth = [_ORDINALS[number] if number < len(_ORDINALS) else f"{number + 1}th" for number in own]
                whose.append(f"the {_listed(nth)} layer{'s' * (len(own) > 1)} of {name!r}")
        undoing = group[0].undoing.replace("{whose}", _listed(whose))
        plant = group[0].plant if len(group) == 1 else _all_of(group)
        made.append(Difference(", ".join(names), group[0].mistake, undoing, plant))
    return made


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


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
    if option in ("activation", "recurrent_activation"):
        slug = _activation_slug(option, wanted, there)
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
    *("tanh", "relu", "linear", "sigmoid", "hard_sigmoid", "hard_sigmoid_02", "elu", "selu", "gelu", "silu"),
    *("softplus", "softsign", "leaky_relu", "relu6"),
)

_FORMULAS = {"hard_sigmoid": "hard_sigmoid as x/6 + 0.5", "hard_sigmoid_02": "hard_sigmoid as 0.2x + 0.5"}
"""Activation of two versions under one name in frameworks → its name and which version."""


def _activation_slug(which: str, wanted: object, there: object) -> str:
    """Return the mistake that gives one activation for another; the old hard_sigmoid once stood for all gates."""
    versions = {str(wanted), str(there)}
    if versions == set(_FORMULAS) or versions == {"sigmoid", "hard_sigmoid_02"}:
        return "hard-sigmoid-version"
    return _SLUGS[which]


def _ways(guess: Guess) -> Iterator[Difference]:
    """Yield every known mistake that no description tells, in each layer, then in all that can have it."""
    alike: dict[tuple[str, str], list[Difference]] = {}
    for layer in guess.network.layers:
        for mistake, undoing, plant in _ways_of(layer, guess.weights.get(layer.name, {})):
            made = Difference(layer.name, mistake, undoing, plant)
            alike.setdefault((mistake, undoing), []).append(made)
            yield made
    if any(
        isinstance(layer.spec, Masking) or layer.spec.options().get("mask_zero") or layer.mask
        for layer in guess.network.layers
    ):
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


def _ways_of(layer: Layer, weights: Parts) -> Iterator[tuple[str, str, Plant]]:
    """Yield the mistakes that one layer can have: slug, what undoes it, and what plants it."""
    spec, name = layer.spec, layer.name

    def way(run: Way) -> Plant:
        return lambda guess: guess.with_way(name, run)

    def option(**changes: Any) -> Plant:
        return way(lambda call: plain(call._replace(spec=call.spec.replace(**changes))))

    if isinstance(spec, Recurrent):
        yield from ((mistake, words, way(run)) for mistake, words, run in recurrent_ways(spec))
    for which in ("activation", "recurrent_activation"):
        usual = str(spec.options().get(which, ""))
        for other in OTHER_ACTIVATIONS if usual else ():
            if other != usual:
                words = f"{which} of {{layer}} is {_FORMULAS.get(usual, usual)}, and not {_FORMULAS.get(other, other)}"
                yield _activation_slug(which, usual, other), words, option(**{which: other})
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
