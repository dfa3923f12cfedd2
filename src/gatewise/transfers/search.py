"""Which layer of the source fills which of the target: by shape, name and order, and where twins remain by running."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gatewise.arrays.native import Call
from gatewise.core.inventory import LOOSE
from gatewise.core.matching import Node, match
from gatewise.core.spec import Recurrent
from gatewise.errors import TransferError
from gatewise.registry import model_adapter
from gatewise.transfers.composites import composed
from gatewise.transfers.moving import Orders, Pairing, axis_orders, couple, fill
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

MOST_RUNS, MOST_SECONDS = 5000, 60.0
"""How often, and how long, a target is run to settle which twin is which."""

MOST_SECONDS_SILENT = 2.0
"""How long layers are looked for that the outputs do not depend on."""

SHARP = 1e-4
"""Up to which difference of the outputs the first pairing that agrees is taken."""

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
    *,
    compose: bool = True,
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
    left, right = _rest(here, mine), _rest(there, yours)
    if not compose:
        return pairs, left, right
    made, rest = composed(target, right, left)
    if made:
        right = [*rest, *made]
        settle_units(pairs, left, right, left, made)
    else:
        made, rest = composed(source, left, right)
        left = [*rest, *made]
        settle_units(pairs, left, right, made, right)
    return pairs, left, right


def settle_units(
    pairs: list[Pairing], left: list[Unit], right: list[Unit], mine: Sequence[Unit], yours: Sequence[Unit]
) -> None:
    """Pair layers of a user's own with what they are; take the paired out of what is left."""
    mine, yours = list(mine), list(yours)
    for found in match([node(each, {}) for each in mine], [node(each, {}) for each in yours]):
        pairs.append(Pairing(mine[found.first], yours[found.second], found.how, False))
        left.remove(mine[found.first])
        right.remove(yours[found.second])


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


class Twins(NamedTuple):
    """Layers of equal sizes on both sides, more than one on one of them: any may be any other's partner."""

    sources: tuple[Unit, ...]
    targets: tuple[Unit, ...]


def rivals(pairs: Sequence[Pairing], left: Sequence[Unit] = (), right: Sequence[Unit] = ()) -> list[Twins]:
    """Return the layers that could be paired otherwise, group by group; what the user paired is none of them."""
    found: dict[Hashable, tuple[list[Unit], list[Unit]]] = {}
    for pair in pairs:
        if pair.how != GIVEN:
            mine, yours = found.setdefault(pair.source.sizes, ([], []))
            mine.append(pair.source)
            yours.append(pair.target)
    for side, units in enumerate((left, right)):
        for unit in units:
            if unit.sizes in found:
                found[unit.sizes][side].append(unit)
    return [Twins(tuple(mine), tuple(yours)) for mine, yours in found.values() if max(len(mine), len(yours)) > 1]


# ── running ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _natives(side: Side) -> dict[int, Any]:
    """Return the layers whose calls are seen, by the places of their items; a layer of a user's own is its module."""
    assert side.reach is not None
    found = {}
    for number, item in enumerate(side.inventory.items):
        native = side.reach.part(side.obj, item.name) if number in side.forms else item.native
        if native is not None:
            found[number] = native
    return found


class Rehearsal:
    """The target's copy, what it was filled with last, and what the source gave."""

    def __init__(self, source: Side, target: Side, feeds: Sequence[Feed], manner: Manner) -> None:
        self.source, self.target, self.feeds = source, target, list(feeds)
        self.natives = _natives(source), _natives(target)
        self.used: dict[int, int] = {}
        self.problem: TransferError | None = None
        self.ours: list[list[np.ndarray]] = []
        self.theirs: list[np.ndarray] = []
        self.calls: list[Call] = []
        with model_adapter(source.framework).settled(source.obj):
            for number, feed in enumerate(self.feeds):
                outputs, calls = called(source, source.obj, feed, manner, {} if number else self.natives[0])
                self.ours.append(outputs)
                self.calls = self.calls or calls
        self.now: dict[int, list[Pairing]] = {}
        self.acting: dict[Unit, bool] = {}
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
        for pair in changed:
            self.now.pop(pair.target.item, None)  # What fails half-way is written anew.
        fill(self.source, self.target, changed)
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
            self.theirs = outputs
            compared.append(side_by_side(self.ours[place], outputs, feed.lengths))
        self.runs += 1
        return compared, calls

    def away(self, pairs: Sequence[Pairing] | None, manner: Manner) -> float:
        """Return how far the outputs of the filled copy are from the source's."""
        worst = 0.0
        for number in range(len(self.feeds)):
            try:
                [compared], _ = self.run(pairs if not number else None, manner, number=number)
            except TransferError as error:  # These weights do not go there.
                self.problem = self.problem or error
                return float("inf")
            worst = max(worst, gap(compared))
            if worst > 1e-2:
                break
        return worst

    def score(self, pairs: Sequence[Pairing], manner: Manner) -> float:
        """Return how far the outputs of the filled copy are from the source's on average, by the first inputs."""
        try:
            [compared], _ = self.run(pairs, manner, number=0)
        except TransferError:
            return float("inf")
        if not compared:
            return float("inf")
        apart = [np.abs(np.asarray(each.ours, np.float64) - each.theirs) for each in compared]
        return float(np.mean([np.nan_to_num(each, nan=1e9, posinf=1e9).mean() for each in apart]))


def order_of_use(calls: Sequence[Call]) -> dict[int, int]:
    """Return item → its place in the order of first use."""
    return {number: place for place, number in enumerate(dict.fromkeys(call.number for call in calls))}


def settled(
    tried: Rehearsal, pairs: Sequence[Pairing], twins: Sequence[Twins], ways: Sequence[Manner], tolerance: float
) -> tuple[list[Pairing], Manner, float]:
    """Return the pairing under which the outputs agree, how the target was called, and how far the two are apart.

    Where none agrees, what came nearest.
    """
    best: tuple[float, list[Pairing], Manner] = (float("inf"), list(pairs), ways[0])
    likely = float("inf")
    for candidates in (_likely, _formed, _flattened, _climbed, _by_inputs, _every):
        for manner in ways:
            for candidate in candidates(tried, best[1] if candidates is _climbed else pairs, twins, manner):
                found = tried.away(candidate, manner)
                if candidates is _likely and manner == ways[0] and candidate == list(pairs):
                    likely = min(likely, found)
                if not found >= best[0]:
                    best = found, list(candidate), manner
                if found <= min(tolerance, SHARP) or tried.spent:
                    break
            if best[0] <= min(tolerance, SHARP) or tried.spent:
                break
        # Where numbers are rough, what is merely near may be wrong: the nearest is wanted.
        if best[0] <= (tolerance if candidates is _climbed else min(tolerance, SHARP)) or tried.spent:
            break
    away, chosen, manner = best
    if tolerance < likely < 5 * away:
        return list(pairs), ways[0], likely  # Something else differs; what is nearer by chance would mislead.
    if away <= tolerance:
        before = {(pair.source, pair.target) for pair in pairs if pair.sure}
        open_targets = {unit for group in twins for unit in group.targets}
        chosen = [
            pair._replace(how=OUTPUTS, sure=True)
            if pair.target in open_targets and (pair.source, pair.target) not in before
            else pair
            for pair in chosen
        ]
    return chosen, manner, away


Assigned = dict[Unit, Unit]
"""Unit of the target → unit of the source."""


def _assigned(pairs: Sequence[Pairing], changes: Assigned, twins: Sequence[Twins]) -> list[Pairing]:
    """Return a pairing in which twins have other partners; a twin of the target that has none is left out."""
    open_targets = {unit for group in twins for unit in group.targets}
    known = {(pair.source, pair.target): pair for pair in pairs}
    made = [pair for pair in pairs if pair.target not in open_targets]
    for target, source in changes.items():
        made.append(known.get((source, target)) or Pairing(source, target, OUTPUTS, False))
    return made


def _now(pairs: Sequence[Pairing], twins: Sequence[Twins]) -> Assigned:
    open_targets = {unit for group in twins for unit in group.targets}
    return {pair.target: pair.source for pair in pairs if pair.target in open_targets}


def _likely(
    tried: Rehearsal,
    pairs: Sequence[Pairing],
    twins: Sequence[Twins],
    manner: Manner,  # noqa: ARG001
) -> Iterator[list[Pairing]]:
    """Yield the pairing that names and order suggest, then those that one of the orders does."""
    yield list(pairs)
    by_use = [_by(order_of_use(tried.calls)), _by(tried.used)]
    for mine, yours in ((_by({}), _by({})), by_use, (by_use[0], _by({}))) if twins else ():
        changes: Assigned = {}
        for group in twins:
            changes |= dict(zip(sorted(group.targets, key=yours), sorted(group.sources, key=mine), strict=False))
        yield _assigned(pairs, changes, twins)


def _by(used: Mapping[int, int]) -> Callable[[Unit], Any]:
    """Return a key that sorts units by the order of use, and where that is not known by that of definition."""
    return lambda unit: (used.get(unit.item, len(used)), unit.item, unit.place)


def _formed(
    tried: Rehearsal, pairs: Sequence[Pairing], twins: Sequence[Twins], manner: Manner
) -> Iterator[list[Pairing]]:
    """Yield pairings in which layers of a user's own have another of their possible layouts, all of them alike."""
    sides = tried.source, tried.target
    count = max((len(forms) for side in sides for forms in side.forms.values()), default=0)
    for base in _likely(tried, pairs, twins, manner) if count else ():
        for number in range(count):
            made = list(base)
            for place, pair in enumerate(base):
                most = [len(side.forms.get(unit.item, ())) for side, unit in zip(sides, pair[:2], strict=True)]
                if any(most):
                    one, other = (min(number, each - 1) if each else 0 for each in most)
                    made[place] = pair._replace(forms=(one, other))
            yield made


def _flattened(
    tried: Rehearsal, pairs: Sequence[Pairing], twins: Sequence[Twins], manner: Manner
) -> Iterator[list[Pairing]]:
    """Yield a pairing in which dense layers read an image that the two models lay flat in another order of axes."""
    ours: dict[int, Call] = {}
    for call in tried.calls:
        ours.setdefault(call.number, call)
    _, theirs = tried.run(None, manner, watch=True, number=0)
    shapes = {each.shape[1:] for call in (*tried.calls, *theirs) for each in call.outputs if each.ndim > 2}
    for base in _likely(tried, pairs, twins, manner) if shapes else ():
        made, changed = list(base), False
        for place, pair in enumerate(base):
            if pair.target.spec is None or pair.target.spec.cell != "dense":
                continue
            _, calls = tried.run(made, manner, watch=True, number=0)
            there = next((call for call in calls if call.number == pair.target.item), None)
            here = ours.get(pair.source.item)
            if here is None or there is None or _same_inputs(here, there) or not (here.inputs and there.inputs):
                continue
            mine, yours = here.inputs[0], there.inputs[0]
            for shape, turned in _laid_flat(shapes, mine, yours):
                axes = (0, *(axis + 1 for axis in turned))
                read = mine.reshape(len(mine), *shape).transpose(axes).reshape(mine.shape)
                if distance(read, yours) < 1e-4:
                    made[place] = pair._replace(flattened=(shape, turned))
                    changed = True
                    break
        if changed:
            yield made


def _laid_flat(
    shapes: Iterable[tuple[int, ...]], mine: np.ndarray, yours: np.ndarray
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield what may have been laid flat to two arrays: a shape without the batch, and the order of its axes.

    What a layer gave may be pooled before it is laid flat, which need not be a layer: then its channels are kept.
    """
    if mine.ndim != 2 or mine.shape != yours.shape:
        return
    size = mine.shape[1]
    exact = sorted({shape for shape in shapes if np.prod(shape) == size})
    pooled = [(one, size // one) for one in sorted({axis for shape in shapes for axis in shape}) if size % one == 0]
    pooled += [(other, one) for one, other in pooled]
    for shape in dict.fromkeys([*exact, *pooled]):
        for turned in itertools.permutations(range(len(shape))):
            yield shape, turned


def _climbed(
    tried: Rehearsal, pairs: Sequence[Pairing], twins: Sequence[Twins], manner: Manner
) -> Iterator[list[Pairing]]:
    """Yield pairings each of which brings the outputs nearer: two partners exchanged, or axes in another order."""
    now = list(pairs)
    score = tried.score(now, manner)
    while not tried.spent:
        found = None
        for candidate in _moves(now, twins):
            made = tried.score(candidate, manner)
            if made < score * (1 - 1e-6):
                score, found = made, candidate
                if made < 1e-9:
                    break
            if tried.spent:
                break
        if found is None:
            return
        now = found
        yield now


def _moves(pairs: list[Pairing], twins: Sequence[Twins]) -> Iterator[list[Pairing]]:
    """Yield what is one exchange away from a pairing."""
    now = _now(pairs, twins)
    for group in twins:
        for one, other in itertools.combinations(group.targets, 2):
            if one in now or other in now:
                changes = {unit: source for unit, source in now.items() if unit not in (one, other)}
                changes |= {one: now[other]} if other in now else {}
                changes |= {other: now[one]} if one in now else {}
                yield _assigned(pairs, changes, twins)
        spare = [unit for unit in group.sources if unit not in now.values()]
        for target in group.targets:
            yield from (_assigned(pairs, now | {target: unit}, twins) for unit in spare if target in now)
    for place, options in _orders(pairs):
        for orders in options:
            if orders != pairs[place].orders:
                yield [*pairs[:place], pairs[place]._replace(orders=orders), *pairs[place + 1 :]]


def _orders(pairs: Sequence[Pairing]) -> list[tuple[int, list[Orders]]]:
    """Return the places of tensors that no layout describes, with the orders in which their axes may be taken."""
    choices = []
    for place, pair in enumerate(pairs):
        if pair.source.spec is None and pair.target.spec is None:
            options = [axis_orders(mine[1], yours[1]) for mine, yours in couple(pair.source, pair.target)]
            if any(len(each) > 1 for each in options):
                choices.append((place, [tuple(each) for each in itertools.islice(itertools.product(*options), 24)]))
    return choices


def _every(
    tried: Rehearsal,  # noqa: ARG001
    pairs: Sequence[Pairing],
    twins: Sequence[Twins],
    manner: Manner,  # noqa: ARG001
) -> Iterator[list[Pairing]]:
    """Yield every pairing of twins with every order of axes, as far as the runs reach."""
    groups = [_injections(group) for group in sorted(twins, key=lambda group: len(group.targets))]
    for chosen in itertools.islice(itertools.product(*groups), MOST_RUNS):
        changes = {target: source for each in chosen for target, source in each.items()}
        made = _assigned(pairs, changes, twins)
        choices = _orders(made)
        for orders in itertools.product(*(options for _, options in choices)):
            turned = list(made)
            for (place, _), order in zip(choices, orders, strict=True):
                turned[place] = made[place]._replace(orders=order)
            yield turned


def _injections(group: Twins) -> list[Assigned]:
    """Return the ways to give as many twins of one side as there can be a partner each."""
    mine, yours = group
    if len(mine) >= len(yours):
        ways = itertools.islice(itertools.permutations(mine, len(yours)), MOST_RUNS)
        return [dict(zip(yours, way, strict=True)) for way in ways]
    ways = itertools.islice(itertools.permutations(yours, len(mine)), MOST_RUNS)
    return [dict(zip(way, mine, strict=True)) for way in ways]


# ── by what goes into a layer ───────────────────────────────────────────────────────────────────────────────────


def _by_inputs(
    tried: Rehearsal, pairs: Sequence[Pairing], twins: Sequence[Twins], manner: Manner
) -> Iterator[list[Pairing]]:
    """Yield pairings in which twins read the same on both sides, layer by layer in the order of use."""
    group_of = {unit: group for group in twins for unit in group.targets}
    first: dict[int, Call] = {}
    for call in tried.calls:
        first.setdefault(call.number, call)

    def walk(now: list[Pairing], fixed: frozenset[Unit]) -> Iterator[list[Pairing]]:
        if tried.spent:
            return
        _, calls = tried.run(now, manner, watch=True, number=0)
        seen: dict[int, Call] = {}
        for call in calls:
            seen.setdefault(call.number, call)
        order = list(seen)
        assigned = _now(now, twins)
        waiting = sorted(
            (unit for unit in group_of if unit not in fixed and unit.item in seen),
            key=lambda unit: (order.index(unit.item), unit.place),
        )
        if not waiting:
            yield now
            return
        target = waiting[0]
        there = seen[target.item] if target.place[0] == 0 else None
        taken = {source for unit, source in assigned.items() if unit in fixed}
        options: dict[bool | None, list[Unit]] = {True: [], None: [], False: []}
        for source in group_of[target].sources:
            if source not in taken:
                here = first.get(source.item) if source.place[0] == 0 else None
                options[_same_inputs(here, there)].append(source)
        for source in options[True] or options[None] or options[False]:
            changes = dict(assigned)
            holder = next((unit for unit, held in assigned.items() if held == source), None)
            if holder is not None and holder != target:
                changes.pop(holder)
                if target in assigned:
                    changes[holder] = assigned[target]
            changes[target] = source
            yield from walk(_assigned(now, changes, twins), fixed | {target})

    yield from walk(list(pairs), frozenset())


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


def untold(
    tried: Rehearsal, pairs: Sequence[Pairing], twins: Sequence[Twins], manner: Manner, tolerance: float
) -> list[list[Pairing]]:
    """Return the twins that the outputs do not tell apart, as one of them has no effect on these inputs.

    Where both have one and may be exchanged all the same, the function is the same either way.
    """
    found = []
    tried.fill(pairs)
    tried.acting.clear()
    for group in twins:
        open_pairs = [pair for pair in pairs if pair.target in group.targets and pair.how != GIVEN and not pair.sure]
        open_pairs += [pair for pair in pairs if pair.target in group.targets and pair.how == OUTPUTS]
        for pair in dict.fromkeys(open_pairs):
            if _acts(tried, pair, manner, tolerance):
                continue
            others = [other for other in open_pairs if other is not pair and not _alike(tried, pair, other)]
            same = any(not _differs(tried, pairs, pair, other, manner, tolerance) for other in others)
            tried.fill(pairs)
            if same:
                found.append(list(dict.fromkeys(open_pairs)))
                break
    return found


def silent(tried: Rehearsal, pairs: Sequence[Pairing], manner: Manner, tolerance: float) -> list[str]:
    """Return the layers of the filled copy that the outputs do not depend on, as far as a few seconds reach."""
    start, found = time.monotonic(), []
    for pair in pairs:
        if time.monotonic() - start > MOST_SECONDS_SILENT:
            break
        if not _acts(tried, pair, manner, tolerance):
            found.append(pair.target.name)
    return found


def _acts(tried: Rehearsal, pair: Pairing, manner: Manner, tolerance: float) -> bool:
    """Say whether the outputs depend on a layer of the target: they move once its weights are larger by half."""
    if pair.target not in tried.acting:
        tried.acting[pair.target] = _moves_outputs(tried, pair, manner, tolerance)
    return tried.acting[pair.target]


def _moves_outputs(tried: Rehearsal, pair: Pairing, manner: Manner, tolerance: float) -> bool:
    reach = tried.target.reach
    assert reach is not None
    item = tried.target.item(pair.target)
    own = [name for name, _ in pair.target.tensors]  # The packed weights of an attention have names of their own here.
    alone = tried.target.own(pair.target, pair.forms[1]) if pair.target.spec is not None else None
    names = own or list((alone or {}).values()) or [each.name for each in item.tensors if each.role not in LOOSE]
    kept = {name: np.array(array) for name, array in reach.read(item.native, names).items()}
    try:
        for name, array in kept.items():
            reach.write(item.native, {name: array * 1.5 + 0.1})
        return tried.away(None, manner) > tolerance
    finally:
        reach.write(item.native, kept)


def _differs(
    tried: Rehearsal, pairs: Sequence[Pairing], one: Pairing, other: Pairing, manner: Manner, tolerance: float
) -> bool:
    """Say whether the outputs differ once two sources are exchanged."""
    swapped = {one.target: other.source, other.target: one.source}
    made = [pair._replace(source=swapped.get(pair.target, pair.source)) for pair in pairs]
    return tried.away(made, manner) > tolerance


def _alike(tried: Rehearsal, one: Pairing, other: Pairing) -> bool:
    """Say whether two units of the source hold the same numbers."""
    if one.source.spec is None or other.source.spec is None:
        return False
    mine, yours = (tried.source.parts(pair.source) for pair in (one, other))
    return mine.keys() == yours.keys() and all(np.array_equal(mine[name], yours[name]) for name in mine)
