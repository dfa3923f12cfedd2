"""The verb: carry the weights of one model to another that exists, prove it, and leave nothing half done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gatewise.core.inventory import Role
from gatewise.core.layout import store
from gatewise.errors import SpecError, TransferError
from gatewise.explaining import inventory as inventory_of
from gatewise.live import DTYPES
from gatewise.parity.result import Found, OutputParity, Parity
from gatewise.registry import model_adapter
from gatewise.transfers.differences import differences, options_differ, parting
from gatewise.transfers.moving import Filled, Pairing, check_possible, couple, fill, verdict
from gatewise.transfers.opening import sides_of
from gatewise.transfers.result import Carried, Transfer
from gatewise.transfers.search import GIVEN, Rehearsal, Twins, order_of_use, paired, rivals, settled, silent, untold
from gatewise.transfers.sides import Side, Unit, units
from gatewise.transfers.trials import Compared, Feed, Manner, called, drawn, gap, given, guessed, manners, side_by_side
from gatewise.transfers.words import (
    described,
    joined,
    line_of,
    listed,
    named,
    of_one_cell,
    one_of,
    position,
    unlike_options,
)

TOLERANCE = 1e-5
"""How far outputs may be apart, relative to the largest (at least 1), where rounding explains no more."""

NOISE = 20
"""How many times the rounding of the target itself they may be apart."""


HALF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Types of half precision, with how far they round."""

HALVES = 4
"""How many times what half precision rounds they may be apart, where a side computes in it."""


def transfer(
    source: Any,
    target: Any,
    *,
    pairs: Mapping[str, str] | None = None,
    inputs: Any = None,
    second_bias: str = "frozen",
    dtype: str | None = None,
    allow_missing: bool = False,
) -> Transfer:
    """Fill a model's weights from another's; see ``gatewise.transfer``."""
    _check(pairs, second_bias, dtype, allow_missing)
    feed = given(inputs)
    return Carrier(*sides_of(source, target, feed), pairs or {}, feed, second_bias, dtype, allow_missing).run()


def _check(pairs: object, second_bias: object, dtype: object, allow_missing: object) -> None:
    if not isinstance(allow_missing, bool):
        raise SpecError(
            f"allow_missing={allow_missing!r} is unknown.", "Known: True, False.", "Name partners with pairs={…}."
        )
    if second_bias not in ("frozen", "trainable"):
        raise SpecError(
            f"second_bias={second_bias!r} is unknown.", "Known: 'frozen', 'trainable'.", "Use one of these."
        )
    if dtype is not None and dtype not in DTYPES:
        raise SpecError(f"dtype={dtype!r} is unknown.", f"Known: {', '.join(DTYPES)}.", "Give one of these by name.")
    if pairs is not None and not (
        isinstance(pairs, Mapping) and all(isinstance(each, str) for pair in pairs.items() for each in pair)
    ):
        raise SpecError(
            "pairs= is no dict of names.",
            "It says which layer of the source fills which of the target.",
            'Give pairs={"encoder.lstm": "rnn"}.',
        )


def _rounding(side: Side) -> float:
    """Return how far the coarsest type that a model computes in rounds, where that is half precision; else 0."""
    if side.obj is None:
        return 0.0
    adapter = model_adapter(side.framework)
    rounding = getattr(adapter, "rounding", None)
    rough = float(rounding(side.obj)) if rounding is not None else HALF.get(adapter.dtype_of(side.obj), 0.0)
    return rough if rough > 1e-6 else 0.0


class Carrier:
    """One transfer, step by step."""

    def __init__(
        self,
        source: Side,
        target: Side,
        wanted: Mapping[str, str],
        feed: Feed | None,
        second_bias: str,
        dtype: str | None,
        allow_missing: bool,
    ) -> None:
        self.source, self.target, self.wanted, self.feed = source, target, wanted, feed
        self.second_bias, self.dtype, self.allow_missing = second_bias, dtype, allow_missing
        self.ours, self.theirs = units(source, repeats=True), units(target, repeats=False)
        self.remarks: list[str] = []
        self.twins: list[Twins] = []
        self.tried: Rehearsal | None = None
        self.chosen: list[Pairing] = []
        self.manner, self.tolerance = Manner(), TOLERANCE
        self.missing: list[str] = []
        self.found: Parity | None = None
        self.why_not = ""

    def run(self) -> Transfer:
        """Pair, try, prove and fill."""
        pairs, left, right = self.paired()
        reach, obj = self.target.reach, self.target.obj
        assert reach is not None
        with self.rehearsing() as (copy, keep):
            tried = copy if self.dtype is None else reach.cast(copy, self.dtype)
            pairs, compared = self.settle(tried, pairs)
            there = self.target if tried is obj else self.twin(tried)
            made = fill(self.source, there, pairs)
            if tried is not obj:
                if self.dtype is not None:
                    reach.cast(obj, self.dtype)
                self.swap(there, made)
                self.check_filled(there, made)
            keep()
        return self.finish(pairs, made, compared, left, right)

    def paired(self) -> tuple[list[Pairing], list[Unit], list[Unit]]:
        """Return the pairs, without running anything, and what is left of both sides.

        Raises:
            TransferError: A layer has no partner, or cannot go to it.
        """
        for side, held in ((self.source, self.ours), (self.target, self.theirs)):
            if not held:
                raise TransferError(
                    f"{side.label[0].upper()}{side.label[1:]} holds no weights.",
                    "There is nothing to carry.",
                    "Give the models themselves.",
                )
        given_pairs, ours, theirs = self.given()
        pairs, left, right = paired(self.source, self.target, ours, theirs)
        pairs = [*given_pairs, *pairs]
        self.missing = self.check_left(left, right, pairs)
        for pair in pairs:
            check_possible(pair)
        self.twins = rivals(pairs, left, right)
        return pairs, left, right

    def twin(self, copy: Any) -> Side:
        """Return the target's side with a copy in its place."""
        if copy is self.target.obj:
            return self.target
        natives = [item.native for item in inventory_of(copy).items]
        items = tuple(
            item._replace(native=natives[number] if number < len(natives) else copy)
            for number, item in enumerate(self.target.inventory.items)
        )
        return replace(self.target, obj=copy, inventory=replace(self.target.inventory, items=items))

    @contextlib.contextmanager
    def rehearsing(self) -> Iterator[tuple[Any, Callable[[], None]]]:
        """Give a copy of the target, or the target itself, which is as it was at the end unless it is to be kept."""
        reach, obj = self.target.reach, self.target.obj
        assert reach is not None
        copy = reach.rehearsal(obj)
        kept = reach.snapshot(obj) if copy is obj else None
        keeping: list[bool] = []
        with contextlib.ExitStack() as stack:
            for name in {self.source.framework, self.target.framework} if self.source.reach is not None else ():
                stack.enter_context(model_adapter(name).kept_random())
            try:
                yield copy, lambda: keeping.append(True)
            finally:
                if not keeping and kept is not None:
                    reach.restore(obj, kept)

    # ── pairs ───────────────────────────────────────────────────────────────────────────────────────────────────

    def given(self) -> tuple[list[Pairing], list[Unit], list[Unit]]:
        """Return the pairs that the user gave, and the units that are left to be paired."""
        pairs: list[Pairing] = []
        ours, theirs = list(self.ours), list(self.theirs)
        for one, other in self.wanted.items():
            mine, yours = named(ours, self.ours, one, "source"), named(theirs, self.theirs, other, "target")
            if len(mine) != len(yours):
                raise TransferError(
                    f"pairs={{{one!r}: {other!r}}}: {one!r} is {len(mine)} and {other!r} is {len(yours)}.",
                    f"{listed(mine)} → {listed(yours)}.",
                    "Pair them one by one, by these names.",
                )
            for here, there in zip(mine, yours, strict=True):
                if here.sizes != there.sizes:
                    raise TransferError(
                        f"{here.name!r} does not fit {there.name!r}.",
                        f"{described(here)} → {described(there)}.",
                        "Pair layers of one kind and size.",
                    )
                pairs.append(Pairing(here, there, GIVEN, True))
                ours.remove(here)
                theirs.remove(there)
        return pairs, ours, theirs

    def check_left(self, left: Sequence[Unit], right: Sequence[Unit], pairs: Sequence[Pairing]) -> list[str]:
        """Return the layers without a partner; raise ``TransferError`` unless that was allowed."""
        left, right = self.needed(self.source, left), self.needed(self.target, right)
        if not (left or right) or self.allow_missing:
            return list(dict.fromkeys(unit.name for unit in (*left, *right)))
        lines = []
        if left:
            taken = [pair.source for pair in pairs]
            lines.append(f"Only in the source: {'; '.join(one_of(unit, taken) for unit in left)}.")
        if right:
            taken = [pair.target for pair in pairs]
            lines.append(f"Only in the target: {'; '.join(one_of(unit, taken) for unit in right)}.")
        for mine in left:
            near = [yours for yours in right if mine.spec is not None and of_one_cell(mine, yours)]
            if near:
                lines.append(f"{mine.name!r} and {near[0].name!r} differ: {unlike_options(mine, near[0])}.")
        names = list(dict.fromkeys(unit.name for unit in (*left, *right)))
        raise TransferError(
            f"The layers do not fit: {joined(names)} {'has' if len(names) == 1 else 'have'} no partner.",
            "\n".join(lines),
            "Give the target the source's sizes, name partners with pairs={…}, or leave these out with "
            "allow_missing=True.",
        )

    @staticmethod
    def needed(side: Side, left: Iterable[Unit]) -> list[Unit]:
        """Return what of some units a transfer may not leave out: weights and statistics, but no buffers."""
        found = []
        for unit in left:
            roles = {each.name: each.role for each in side.item(unit).tensors}
            names = [name for name, _ in unit.tensors] or list(roles)
            if not all(roles.get(name) is Role.BUFFER for name in names):
                found.append(unit)
        return found

    # ── trying ──────────────────────────────────────────────────────────────────────────────────────────────────

    def settle(self, copy: Any, pairs: list[Pairing]) -> tuple[list[Pairing], list[Compared] | None]:
        """Return the pairs that the outputs confirm; without outputs, those that need no confirmation."""
        tried, ways = self.rehearsal(copy, pairs)
        if tried is None:
            return self.unproved(pairs), None
        again = self.by_use(tried, ways, pairs)
        self.tried = tried
        rough = max(_rounding(self.source), _rounding(self.target))
        usual = max(TOLERANCE, HALVES * rough)
        chosen, manner, away = settled(tried, again, self.twins, ways, usual)
        if away == float("inf") and tried.problem is not None:
            raise tried.problem
        tolerance, why = usual, "the usual bound for float32"
        if usual > TOLERANCE:
            why = f"{HALVES} × {rough:.1e}, how far half precision rounds"
        if usual < away < 1e-2:
            noise = self.noise(tried, chosen, manner)
            if noise * NOISE > usual:
                tolerance, why = noise * NOISE, f"{NOISE} × {noise:.1e}, how far the target rounds"
        if self.missing and not away <= tolerance:
            self.tried, self.why_not = None, self.without_partners(f"The outputs differ by {away:.1e}")
            return self.unproved(pairs), None
        self.chosen, self.manner, self.tolerance = chosen, manner, tolerance
        outputs, _ = tried.run(chosen, manner)
        parity = self.parity(tried, outputs, tolerance, why)
        flat = [each for one in outputs for each in one]
        if not away <= tolerance:
            raise self.differ(chosen, parity, away, differences(tried, chosen, manner, away, tolerance))
        unsure = untold(tried, chosen, self.twins, manner, tolerance)
        if unsure:
            raise self.undecided(
                unsure,
                "The outputs do not depend on them, so that running both does not tell.",
            )
        if manner.words:
            self.remarks.append(f"The target was called {manner.words}.")
        arranged = {each.arranged for each in flat if each.arranged}
        if arranged:
            self.remarks.append(f"Outputs of the target were compared with {' and '.join(sorted(arranged))}.")
        self.remarks += [
            f"{each.text}. These outputs do not show it."
            for each in options_differ(self.source, tried.target, chosen)
            if each.slug == "epsilon"
        ]
        still = silent(tried, chosen, manner, tolerance)
        if still:
            self.remarks.append(
                f"Not proved of {joined(still)}: on these inputs no change of the weights there changes the outputs. "
                "Give inputs=… that the model was made for."
            )
        self.found = parity
        return chosen, flat

    def unproved(self, pairs: list[Pairing]) -> list[Pairing]:
        """Return pairs that no outputs confirm; raise ``TransferError`` where others are as likely."""
        weak = [[pair for pair in pairs if pair.target in group.targets] for group in self.twins]
        weak = [group for group in weak if not all(pair.sure for pair in group)]
        forms = self.source.forms.keys() | self.target.forms.keys()
        weak += [[pair] for pair in pairs if forms and {pair.source.item, pair.target.item} & forms]
        if weak:
            raise self.undecided(weak, self.why_not)
        return pairs

    def without_partners(self, what: str) -> str:
        """Say why outputs tell nothing: layers were left out."""
        verb = "has" if len(self.missing) == 1 else "have"
        return f"{what}, as they may where {joined(self.missing)} {verb} no partner."

    def rehearsal(self, copy: Any, pairs: Sequence[Pairing]) -> tuple[Rehearsal | None, list[Manner]]:
        """Return the target's copy with what the source gave, and the ways in which the target can be called."""
        if self.source.reach is None:
            self.why_not = f"{self.source.label} holds arrays and no model, so that the two cannot be compared."
            return None, []
        there = self.twin(copy)
        random = np.random.default_rng(0)
        known: list[Feed] = []
        if self.feed is not None:
            choices = [[self.feed]]
        else:
            known = drawn(self.source, self.target, random) or drawn(self.target, self.source, random)
            choices = [known] if known else [[feed] for feed in guessed(self.source, random)]
        problem = ""
        for feeds in choices:
            tried, problem = self.source_run(there, feeds)
            if tried is None:
                continue
            ways, problem, shapes = self.callable_ways(tried)
            if ways:
                return tried, ways
            if shapes and self.missing:
                self.why_not = self.without_partners(f"The outputs have other shapes ({shapes})")
                return None, []
            if shapes and (self.feed is not None or known):
                options = [f"Differs: {each.text}." for each in options_differ(self.source, there, pairs)]
                raise TransferError(
                    f"The outputs have other shapes: {shapes}.",
                    "\n".join(options or [each.text for each in self.parting(tried, pairs)])
                    or f"Fed: {feeds[0].text}.",
                    "Every layer has a partner, so that something else than the weights differs: strides, padding, the "
                    "step that is read. The target is as it was.",
                )
        if self.feed is not None:
            raise TransferError(
                f"The two cannot be run on the given inputs: {problem}",
                f"Fed: {self.feed.text}.",
                "Give inputs that both take: a tuple is positional, a dict is by keyword.",
            )
        self.why_not = f"No inputs are known on which both run{': ' + problem if problem else ''}."
        return None, []

    def parting(self, tried: Rehearsal, pairs: Sequence[Pairing]) -> list[Found]:
        """Return where two models part whose outputs cannot be compared, as the target was called the plainest way."""
        for manner in manners(self.target, tried.feeds[0]):
            try:
                tried.fill(pairs)
                return parting(tried, pairs, manner)
            except Exception:  # A model raises whatever its own code raises: then the next way is tried.
                continue
        return []

    def source_run(self, there: Side, feeds: list[Feed]) -> tuple[Rehearsal | None, str]:
        """Return what the source gives for some inputs, or why it does not."""
        problem = ""
        for manner in manners(self.source, feeds[0]):
            try:
                return Rehearsal(self.source, there, feeds, manner), ""
            except Exception as error:  # A model raises whatever its own code raises.
                problem = problem or f"the source says {line_of(error)}"
        return None, problem

    def callable_ways(self, tried: Rehearsal) -> tuple[list[Manner], str, str]:
        """Return the ways to call the target, else why it cannot be called, and which outputs cannot be compared."""
        ways, problem, shapes = [], "", ""
        for manner in manners(self.target, tried.feeds[0]):
            try:
                compared, _ = tried.run(None, manner)
            except Exception as error:  # A model raises whatever its own code raises.
                problem = problem or f"the target says {line_of(error)}"
                continue
            if all(compared):
                ways.append(manner)
            elif not shapes:
                mine, yours = (
                    ", ".join(str(array.shape) for array in one) or "nothing" for one in (tried.ours[0], tried.theirs)
                )
                shapes = f"{mine} here, {yours} there"
        return ways, problem, shapes

    def by_use(self, tried: Rehearsal, ways: Sequence[Manner], pairs: list[Pairing]) -> list[Pairing]:
        """Return the pairs anew, with the order in which both models use their layers."""
        if not self.twins:
            return pairs
        _, calls = tried.run(None, ways[0], watch=True, number=0)
        made = self.source.forms.keys(), self.target.forms.keys()
        fixed = [
            pair for pair in pairs if pair.how == GIVEN or pair.source.item in made[0] or pair.target.item in made[1]
        ]
        ours = [unit for unit in self.ours if unit not in [pair.source for pair in fixed]]
        theirs = [unit for unit in self.theirs if unit not in [pair.target for pair in fixed]]
        tried.used = order_of_use(calls)
        used = order_of_use(tried.calls), tried.used
        again, _, _ = paired(self.source, self.target, ours, theirs, used, compose=False)
        return [*fixed, *again]

    def noise(self, tried: Rehearsal, pairs: Sequence[Pairing], manner: Manner) -> float:
        """Return how far the filled copy is from itself in float64."""
        tried.fill(pairs)
        reach = self.target.reach
        assert reach is not None
        doubled = reach.double(tried.target.obj)
        if doubled is None:
            return 0.0
        worst = 0.0
        for feed in tried.feeds:
            single, _ = called(tried.target, tried.target.obj, feed, manner, {})
            exact, _ = called(tried.target, doubled, feed, manner, {})
            worst = max(worst, gap(side_by_side(exact, single)))
        return worst

    def parity(self, tried: Rehearsal, outputs: Sequence[Sequence[Compared]], tolerance: float, why: str) -> Parity:
        """Return the comparison of the outputs."""
        rows = []
        for number, first in enumerate(outputs[0]):
            every = [one[number] for one in outputs if number < len(one)]
            worst = max(every, key=lambda each: each.gap)
            apart = np.abs(np.asarray(worst.ours, np.float64) - worst.theirs)
            where = np.unravel_index(int(np.nanargmax(apart)), apart.shape) if apart.size else ()
            most = float(np.nanmax(apart)) if apart.size else 0.0
            here = abs(float(np.asarray(worst.ours)[where])) if apart.size else 0.0
            allowed = tolerance * max(1.0, float(np.nanmax(np.abs(worst.ours)))) if apart.size else tolerance
            rows.append(
                OutputParity(
                    f"output {number}",
                    tuple(first.ours.shape),
                    most,
                    most / max(here, 1e-30),
                    tuple(map(int, where)),
                    allowed,
                    worst.gap <= tolerance,
                )
            )
        passed = all(row.passed for row in rows)
        fed = tuple(feed.text for feed in tried.feeds)
        kind = str(np.result_type(*(each.ours for one in outputs for each in one)))
        return Parity(
            "passed" if passed else "failed", tuple(rows), tolerance, why, kind, 0, fed, (), (), basis="called"
        )

    # ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────

    def undecided(self, weak: Sequence[Sequence[Pairing]], why: str) -> TransferError:
        """Return the error for twins that nothing tells apart."""
        lines = [
            f"{joined([pair.source.name for pair in group])} → {joined([pair.target.name for pair in group])}"
            for group in weak
        ]
        example: dict[str, str] = {}
        for group in weak:
            mine = sorted((pair.source for pair in group), key=position)
            yours = sorted((pair.target for pair in group), key=position)
            example |= {one.name: other.name for one, other in zip(mine, yours, strict=True)}
        settle = (
            "Give inputs=… to settle it by running both, or say"
            if self.source.reach is not None and self.feed is None
            else "Say"
        )
        return TransferError(
            "Layers of equal shape may be paired in more than one way.",
            "\n".join([*lines, *([why] if why else [])]),
            f"{settle} which is which, such as pairs={example!r}",
        )

    def differ(self, pairs: list[Pairing], parity: Parity, away: float, found: tuple[Found, ...]) -> TransferError:
        """Return the error for outputs that differ."""
        names = [each.layer for each in found if each.layer]
        error = TransferError(
            f"The outputs differ by {away:.1e} of the largest once the weights are carried over"
            + (f": look at {joined(names)}." if names else "."),
            "\n".join(each.text for each in found)
            or "Every layer has a partner of its shape, so that something else than the weights differs.",
            "Change that line and transfer again; the target is as it was.",
        )
        error.result = Transfer(None, self.carried(pairs), replace(parity, diagnosis=found), tuple(self.remarks))
        return error

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def swap(self, copy: Side, made: Filled) -> None:
        """Exchange what was written with the target's own tensors; on an error they come back."""
        reach = self.target.reach
        assert reach is not None
        done: list[tuple[Any, Any, str]] = []
        places: set[Hashable] = set()

        def exchange(one: Any, other: Any, name: str) -> None:
            before = {name: np.array(reach.read(one, [name])[name])}
            reach.write(one, reach.read(other, [name]))
            reach.write(other, before)

        whole = False
        try:
            for number, names in made.tensors.items():
                both = self.target.inventory.items[number].native, copy.inventory.items[number].native
                for name in names:
                    place = self.target.identity(number, name)
                    if place not in places:  # A tensor of two names would come back.
                        exchange(*both, name)
                        done.append((*both, name))
                        places.add(place)
            whole = True
        finally:
            for entry in () if whole else reversed(done):
                exchange(*entry)

    def check_filled(self, copy: Side, made: Filled) -> None:
        """Run the filled target itself; where it is not what its copy was, give it back what it had.

        A copy of a module whose code reaches the module by another way, such as a global name, is not it.
        """
        if self.tried is None:
            return
        feed, obj = self.tried.feeds[0], self.target.obj
        with model_adapter(self.target.framework).settled(obj):
            outputs, _ = called(self.target, obj, feed, self.manner, {})
        away = gap(side_by_side(self.tried.ours[0], outputs, feed.lengths))
        if away > self.tolerance:
            self.swap(copy, made)
            raise TransferError(
                f"The outputs of a copy agree, and those of the target itself differ by {away:.1e}.",
                "Its code reaches its layers by a way that a copy does not have, such as a global name.",
                "Give the module that runs.",
            )

    def finish(
        self, pairs: list[Pairing], made: Filled, compared: object, left: Sequence[Unit], right: Sequence[Unit]
    ) -> Transfer:
        """Freeze second biases and return the result."""
        reach = self.target.reach
        assert reach is not None
        items = self.target.inventory.items
        if made.second:
            names = [f"{items[number].name}.{name}" for number, each in made.second.items() for name in sorted(each)]
            if self.second_bias == "frozen":
                for number, each in made.second.items():
                    reach.freeze(items[number].native, sorted(each))
                self.remarks.append(
                    f"{joined(names)}: zero and frozen, so that training goes on as in the source; "
                    "second_bias='trainable' frees it."
                )
            else:
                self.remarks.append(f"{joined(names)}: zero and trainable.")
        self.remarks += made.notes
        self.remarks += [
            f"{count} tensor{'s' * (count != 1)} cast from {one} to {other}."
            for (one, other), count in made.casts.items()
        ]
        if compared is None:
            open_ = self.source.reach is not None and self.feed is None and not self.missing
            hint = " Give inputs=… to compare the outputs." if open_ else ""
            self.remarks.append(f"Not proved: {self.why_not}{hint}")
        mine, yours = {pair.source for pair in pairs}, {pair.target for pair in pairs}
        here = [unit for unit in self.ours if unit in {*left, *(unit for one in self.twins for unit in one.sources)}]
        there = [
            unit for unit in self.theirs if unit in {*right, *(unit for one in self.twins for unit in one.targets)}
        ]
        here += [unit for unit in left if unit not in self.ours]
        there += [unit for unit in right if unit not in self.theirs]
        return Transfer(
            self.target.obj,
            self.carried(pairs),
            self.found,
            tuple(dict.fromkeys(self.remarks)),
            tuple(unit.name for unit in self.needed(self.source, here) if unit not in mine and not unit.optional),
            tuple(unit.name for unit in there if unit not in yours and not unit.optional),
        )

    def carried(self, pairs: Iterable[Pairing]) -> tuple[Carried, ...]:
        """Return the table of what went where, in the order of the target."""
        rows = []
        for pair in sorted(pairs, key=lambda each: (each.target.item, each.target.place)):
            item = self.target.item(pair.target)
            if pair.target.spec is not None and item.spec is not None and item.layout is not None:
                slots = store(item.layout, item.spec).slots
                there = {
                    slot.tensor: None for key, slot in slots.items() if (key.layer, key.direction) == pair.target.place
                }
                names = tuple(there)
            else:
                names = tuple(name for _, (name, _) in couple(pair.source, pair.target))
            rows.append(Carried(pair.source.name, pair.target.name, names, verdict(pair), pair.how))
        return tuple(rows)
