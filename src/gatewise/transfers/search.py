"""Which layer of the source fills which of the target: by shape, name and order, and where twins remain by running."""

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gatewise.arrays.native import Call
from gatewise.core.matching import Node, match
from gatewise.core.spec import Recurrent
from gatewise.transfers.moving import Pairing, axis_orders, couple, filled
from gatewise.transfers.sides import Side, Unit, identities, loosened
from gatewise.transfers.trials import (
    Compared,
    Feed,
    Manner,
    arrangements,
    called,
    distance,
    gap,
    side_by_side,
)

MOST_RUNS, MOST_SECONDS = 600, 90.0
"""How often, and how long, a target is run to settle which twin is which."""

OUTPUTS, GIVEN = "outputs", "given"
"""How a pair was decided: by the outputs, or by the user."""


# ── without running ─────────────────────────────────────────────────────────────────────────────────────────────


def node(unit: Unit, used: Mapping[int, int]) -> Node:
    """Return what a pairing sees of a unit."""
    place = used.get(unit.item)
    order = None if place is None else place * 10_000 + unit.place[0] * 2 + unit.place[1]
    return Node(unit.name, unit.sizes, order, unit.aliases)


def paired(
    source: Side,
    target: Side,
    ours: Sequence[Unit],
    theirs: Sequence[Unit],
    used: tuple[Mapping[int, int], Mapping[int, int]] = ({}, {}),
) -> tuple[list[Pairing], list[Unit], list[Unit]]:
    """Pair the units of two models; return the pairs and what is left of both.

    What every layer needs comes first; what is listed elsewhere, too, fills only what would be left. Layers without a
    partner are taken apart into their tensors, which may stand alone on the other side.
    """
    pairs: list[Pairing] = []
    left, right = list(ours), list(theirs)

    def settle(mine: Sequence[Unit], yours: Sequence[Unit]) -> None:
        here, there = [node(each, used[0]) for each in mine], [node(each, used[1]) for each in yours]
        for found in match(here, there):
            pairs.append(Pairing(mine[found.first], yours[found.second], found.how, found.sure))
            left.remove(mine[found.first])
            right.remove(yours[found.second])

    def needed(units: Iterable[Unit]) -> list[Unit]:
        return [unit for unit in units if not unit.optional]

    settle(needed(left), needed(right))
    settle(list(left), needed(right))
    settle(needed(left), list(right))
    here = _apart(source, left, [pair.source for pair in pairs])
    there = _apart(target, right, [pair.target for pair in pairs])
    whole = len(pairs)
    left, right = [each for one in here.values() for each in one], [each for one in there.values() for each in one]
    settle(list(left), list(right))
    pairs[whole:] = _unbroken(pairs[whole:], here, there)
    mine, yours = {pair.source for pair in pairs[whole:]}, {pair.target for pair in pairs[whole:]}
    return pairs, _rest(here, mine), _rest(there, yours)


def _rest(units: dict[Unit, list[Unit]], used: set[Unit]) -> list[Unit]:
    """Return the units of which nothing has a partner, and of the others the tensors that have none."""
    made: list[Unit] = []
    for unit, pieces in units.items():
        left = [piece for piece in pieces if piece not in used]
        made += [unit] if left == pieces else left
    return made


def _unbroken(pairs: list[Pairing], here: dict[Unit, list[Unit]], there: dict[Unit, list[Unit]]) -> list[Pairing]:
    """Return the pairs of tensors without those of a known layer of which some tensor has no partner."""
    while True:
        partial: list[set[Unit]] = []
        for side, one in enumerate((here, there)):
            used = {pair[side] for pair in pairs}
            lacking = [pieces for unit, pieces in one.items() if unit.spec is not None and not used >= set(pieces)]
            partial.append({piece for pieces in lacking for piece in pieces})
        kept = [pair for pair in pairs if pair.source not in partial[0] and pair.target not in partial[1]]
        if len(kept) == len(pairs):
            return kept
        pairs = kept


def _apart(side: Side, left: Iterable[Unit], partnered: Iterable[Unit]) -> dict[Unit, list[Unit]]:
    """Return the tensors of each unit that nothing else holds; a recurrent layer stays whole."""
    held = identities(side, partnered)
    made: dict[Unit, list[Unit]] = {}
    for unit in left:
        if isinstance(unit.spec, Recurrent):
            if not unit.optional:
                made[unit] = [unit]
            continue
        tensors = loosened(side, unit, held)
        held |= identities(side, tensors)
        if tensors:
            made[unit] = tensors
    return made


def rivals(pairs: Sequence[Pairing]) -> list[list[int]]:
    """Return the places of the pairs that could exchange partners, group by group."""
    found: dict[Hashable, list[int]] = {}
    for place, pair in enumerate(pairs):
        if pair.how != GIVEN:
            found.setdefault((pair.source.sizes, pair.target.sizes), []).append(place)
    return [places for places in found.values() if len(places) > 1]


# ── running ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Rehearsal:
    """The target's copy, what it was filled with last, and what the source gave."""

    def __init__(self, source: Side, target: Side, feeds: Sequence[Feed], manner: Manner) -> None:
        self.source, self.target, self.feeds = source, target, list(feeds)
        self.natives = tuple(
            {number: item.native for number, item in enumerate(side.inventory.items) if item.native is not None}
            for side in (source, target)
        )
        self.ours: list[list[np.ndarray]] = []
        self.calls: list[Call] = []
        for number, feed in enumerate(self.feeds):
            outputs, calls = called(source, source.obj, feed, manner, {} if number else self.natives[0])
            self.ours.append(outputs)
            self.calls = self.calls or calls
        self.now: dict[int, list[Pairing]] = {}
        self.runs, self.start = 0, time.monotonic()

    @property
    def spent(self) -> bool:
        """Whether the target has been run often enough."""
        return self.runs > MOST_RUNS or time.monotonic() - self.start > MOST_SECONDS

    def fill(self, pairs: Sequence[Pairing]) -> None:
        """Give the copy the weights of some pairs; only what changes is written."""
        wanted: dict[int, list[Pairing]] = {}
        for pair in pairs:
            wanted.setdefault(pair.target.item, []).append(pair)
        changed = [pair for number, group in wanted.items() if self.now.get(number) != group for pair in group]
        assert self.target.reach is not None
        for number, arrays in filled(self.source, self.target, changed).arrays.items():
            self.target.reach.write(self.target.inventory.items[number].native, arrays)
        self.now |= wanted

    def run(
        self, pairs: Sequence[Pairing] | None, manner: Manner, *, watch: bool = False, number: int | None = None
    ) -> tuple[list[list[Compared]], list[Call]]:
        """Return the outputs of the filled copy beside the source's, feed by feed, and the calls of its layers."""
        if pairs is not None:
            self.fill(pairs)
        compared: list[list[Compared]] = []
        calls: list[Call] = []
        for place, feed in enumerate(self.feeds):
            if number is not None and place != number:
                continue
            natives = self.natives[1] if watch and not calls else {}
            outputs, seen = called(self.target, self.target.obj, feed, manner, natives)
            calls = calls or seen
            compared.append(side_by_side(self.ours[place], outputs, feed.lengths))
        self.runs += 1
        return compared, calls

    def away(self, pairs: Sequence[Pairing] | None, manner: Manner) -> float:
        """Return how far the outputs of the filled copy are from the source's."""
        worst = 0.0
        for number in range(len(self.feeds)):
            [compared], _ = self.run(pairs if not number else None, manner, number=number)
            worst = max(worst, gap(compared))
            if worst > 1e-2:
                break
        return worst


def order_of_use(calls: Sequence[Call]) -> dict[int, int]:
    """Return item → its place in the order of first use."""
    return {number: place for place, number in enumerate(dict.fromkeys(call.number for call in calls))}


def settled(
    tried: Rehearsal, pairs: Sequence[Pairing], ways: Sequence[Manner], tolerance: float
) -> tuple[list[Pairing], Manner, float]:
    """Return the pairing under which the outputs agree, how the target was called, and how far the two are apart.

    Where none agrees, what came nearest.
    """
    best: tuple[float, list[Pairing], Manner] = (float("inf"), list(pairs), ways[0])
    for manner in ways:
        for candidate in _candidates(tried, pairs, manner):
            found = tried.away(candidate, manner)
            if not found >= best[0]:
                best = found, list(candidate), manner
            if found <= tolerance or tried.spent:
                break
        if best[0] <= tolerance or tried.spent:
            break
    away, chosen, manner = best
    moved = {pair.target: pair for pair in chosen}
    before = {pair.target: pair for pair in pairs}
    if away <= tolerance:
        ambiguous = {place for group in rivals(chosen) for place in group}
        chosen = [
            pair._replace(how=OUTPUTS, sure=True)
            if place in ambiguous and (not pair.sure or moved[pair.target].source != before[pair.target].source)
            else pair
            for place, pair in enumerate(chosen)
        ]
    return chosen, manner, away


def _candidates(tried: Rehearsal, pairs: Sequence[Pairing], manner: Manner) -> Iterator[list[Pairing]]:
    """Yield pairings to be tried, the likeliest first."""
    yield list(pairs)
    twins = rivals(pairs)
    for key in (lambda unit: unit.item, lambda unit: tried_order(tried, unit)):
        if twins:
            yield _sorted_by(pairs, twins, key)
    yield from _turned(pairs)
    if twins:
        yield from _by_inputs(tried, list(pairs), twins, manner)
        count = 0
        for places in sorted(twins, key=len):
            for order in itertools.permutations(places):
                made = list(pairs)
                for place, other in zip(places, order, strict=True):
                    made[place] = pairs[place]._replace(source=pairs[other].source)
                yield made
                count += 1
                if count > MOST_RUNS:
                    return
        for orders in itertools.islice(itertools.product(*(itertools.permutations(each) for each in twins)), MOST_RUNS):
            made = list(pairs)
            for places, order in zip(twins, orders, strict=True):
                for place, other in zip(places, order, strict=True):
                    made[place] = pairs[place]._replace(source=pairs[other].source)
            yield made


def tried_order(tried: Rehearsal, unit: Unit) -> tuple[int, ...]:
    """Return the place of a source's unit in the order of use."""
    used = order_of_use(tried.calls)
    return (used.get(unit.item, len(used)), *unit.place)


def _sorted_by(pairs: Sequence[Pairing], twins: Sequence[Sequence[int]], key: Any) -> list[Pairing]:
    """Return a pairing in which the sources of each group of twins stand in another order."""
    made = list(pairs)
    for places in twins:
        ordered = sorted((pairs[place].source for place in places), key=key)
        there = sorted(places, key=lambda place: (pairs[place].target.item, pairs[place].target.place))
        for place, unit in zip(there, ordered, strict=True):
            made[place] = pairs[place]._replace(source=unit)
    return made


def _turned(pairs: Sequence[Pairing]) -> Iterator[list[Pairing]]:
    """Yield a pairing with other orders of axes, where no layout says which is right."""
    choices: list[tuple[int, list[Any]]] = []
    for place, pair in enumerate(pairs):
        if pair.source.spec is None and pair.target.spec is None:
            options = [axis_orders(mine[1], yours[1]) for mine, yours in couple(pair.source, pair.target)]
            if any(len(each) > 1 for each in options):
                choices.append((place, list(itertools.islice(itertools.product(*options), 24))))
    for chosen in itertools.islice(itertools.product(*(each for _, each in choices)), 1, 200):
        made = list(pairs)
        for (place, _), orders in zip(choices, chosen, strict=True):
            made[place] = pairs[place]._replace(orders=orders)
        yield made


# ── by what goes into a layer ───────────────────────────────────────────────────────────────────────────────────


def _by_inputs(
    tried: Rehearsal, pairs: list[Pairing], twins: Sequence[Sequence[int]], manner: Manner
) -> Iterator[list[Pairing]]:
    """Yield pairings in which twins read the same on both sides, layer by layer in the order of use."""
    group_of = {place: group for group in twins for place in group}
    first: dict[int, Call] = {}
    for call in tried.calls:
        first.setdefault(call.number, call)

    def walk(now: list[Pairing], settled: frozenset[int]) -> Iterator[list[Pairing]]:
        if tried.spent:
            return
        _, calls = tried.run(now, manner, watch=True, number=0)
        seen: dict[int, Call] = {}
        for call in calls:
            seen.setdefault(call.number, call)
        order = list(seen)
        open_places = sorted(
            (place for place in group_of if place not in settled and now[place].target.item in seen),
            key=lambda place: (order.index(now[place].target.item), now[place].target.place),
        )
        if not open_places:
            yield now
            return
        place = open_places[0]
        there = seen[now[place].target.item] if now[place].target.place[0] == 0 else None
        options: dict[bool | None, list[int]] = {True: [], None: [], False: []}
        for other in group_of[place]:
            if other in settled:
                continue
            unit = now[other].source
            here = first.get(unit.item) if unit.place[0] == 0 else None
            options[_same_inputs(here, there)].append(other)
        for other in options[True] or options[None] or options[False]:
            made = list(now)
            made[place] = now[place]._replace(source=now[other].source)
            made[other] = now[other]._replace(source=now[place].source) if other != place else made[place]
            yield from walk(made, settled | {place})

    yield from walk(pairs, frozenset())


def _same_inputs(here: Call | None, there: Call | None) -> bool | None:
    """Say whether two layers were given the same; None where that cannot be told."""
    if here is None or there is None or not here.inputs or not there.inputs:
        return None
    mine, yours = here.inputs[0], there.inputs[0]
    made = [turned for _, turned in arrangements(yours, mine.shape)]
    if not made and mine.size == yours.size:
        made = [yours.reshape(mine.shape)]
    if not made and mine.ndim == 3 and yours.ndim == 2 and mine.shape[::2] == yours.shape:
        return any(distance(mine[:, step], yours) < 1e-4 for step in (0, -1))  # one step of a loop
    if not made:
        return None
    return any(distance(mine, turned) < 1e-4 for turned in made)


# ── whether the outputs can tell ────────────────────────────────────────────────────────────────────────────────


def untold(tried: Rehearsal, pairs: Sequence[Pairing], manner: Manner, tolerance: float) -> list[list[int]]:
    """Return the twins that could as well be exchanged, as far as the outputs tell, though their weights differ.

    Where both are used, the function is the same either way; so only those are returned that were never called.
    """
    _, calls = tried.run(pairs, manner, watch=True, number=0)
    used = {call.number for call in calls}
    found = []
    for places in rivals(pairs):
        unseen = [place for place in places if pairs[place].target.item not in used and not pairs[place].sure]
        for place in list(unseen):
            others = [other for other in places if other != place and not _alike(tried, pairs[place], pairs[other])]
            if not any(_moves(tried, pairs, place, other, manner, tolerance) is False for other in others):
                unseen.remove(place)
        if unseen:
            found.append(places)
    tried.fill(pairs)
    return found


def _moves(
    tried: Rehearsal, pairs: Sequence[Pairing], place: int, other: int, manner: Manner, tolerance: float
) -> bool:
    """Say whether the outputs differ once two sources are exchanged."""
    made = list(pairs)
    made[place] = pairs[place]._replace(source=pairs[other].source)
    made[other] = pairs[other]._replace(source=pairs[place].source)
    return tried.away(made, manner) > tolerance


def _alike(tried: Rehearsal, one: Pairing, other: Pairing) -> bool:
    """Say whether two units of the source hold the same numbers."""
    if one.source.spec is None or other.source.spec is None:
        return False
    mine, yours = (tried.source.parts(pair.source) for pair in (one, other))
    return mine.keys() == yours.keys() and all(np.array_equal(mine[name], yours[name]) for name in mine)
