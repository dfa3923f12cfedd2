"""Says whether a comparison tells: the reference runs each test fault, and more is fed where one does not show.

Where the two sides are described differently, inputs are looked for that show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from gatewise.core.network import source_of
from gatewise.errors import GatewiseError
from gatewise.parity.compare import SEEN, Comparison, change
from gatewise.parity.faults import Fault, faults
from gatewise.parity.reference import Reference, noisy, same_function
from gatewise.parity.subject import Trial
from gatewise.parity.tables import fed_words
from gatewise.parity.trials import Feeding

STRONGER = ((32, 9, 1.0), (8, 7, 4.0), (8, 7, 16.0), (8, 7, 64.0), (8, 7, 256.0), (8, 7, 1024.0))
"""Batch, length and scale of the inputs that are fed, too, where a test fault or a difference did not show."""

USUAL = 16.0
"""Up to which scale an option is to have an effect; where descriptions differ, larger numbers are fed, too."""

NOTHING = 1e-11
"""What moves the outputs by less, relative to the largest, in float64, does not move them."""

WORK, FEWEST, MOST = 2e10, 40, 1000
"""About how many products the test faults of one comparison may take, and how many are tried at least, and at most."""


DEEP, LEAST = 20_000, 8
"""How many layers a fault may have behind it, times the number of faults; and how many the deepest network has tried.

A layer costs some fifty calls of NumPy however small it is, and each fault runs those behind it on every input.
"""


class Judge:
    """The test faults of one comparison.

    Attributes:
        found: The comparison.
        notes: What to say of what was tried.
    """

    def __init__(self, found: Comparison, random: np.random.Generator, *, given: bool) -> None:
        self.found, self.random, self.given = found, random, given
        self.notes: list[str] = []
        first, second = found.first.side, found.second.side
        self.feeding = Feeding(first.network, second.network)
        self.reference, self.other = Reference.of(second), Reference.of(first)
        self.free = any(trial.free for trial in found.trials)
        self.again = self.feeding.stateful

    def judge(self) -> Comparison:
        """Return the comparison with all test faults judged, in float64 where float32 does not show them."""
        if not self.given and not same_function(self.reference, self.other):
            self.look_for_a_difference()
            if not self.found.passed:
                return self.found
        tried = self.choose()
        self.measure(tried, self.found.trials)
        if self.found.unseen and not self.given:
            self.feed_more(tried)
        if self.found.unseen:
            self.leave_out(tried)
        self.notes += fed_words(self.found.first.side, self.found.trials, self.other, self.reference)
        return self.in_double()

    # ── differences between the descriptions ────────────────────────────────────────────────────────────────────

    def look_for_a_difference(self) -> None:
        """Feed what both sides would answer differently, by their descriptions."""
        for trial in self.candidates():
            try:
                apart = change(self.other.run(trial), self.reference.run(trial))
            except (GatewiseError, ValueError, IndexError):
                return  # One of them cannot be run by the reference: it has been compared as it is.
            if apart > SEEN * self.found.tolerance and self.found.add_quiet(trial) and not self.found.passed:
                return

    def candidates(self) -> list[Trial]:
        """Return what else can be fed, weaker first."""
        return [
            self.feeding.draw(
                self.random, batch, length, scale, free=self.free, padding=number, again=self.again and number % 2 == 1
            )
            for number, (batch, length, scale) in enumerate(STRONGER)
        ]

    # ── test faults ─────────────────────────────────────────────────────────────────────────────────────────────

    def choose(self) -> list[Fault]:
        """Return the test faults: all, or as many as there is time for, from all over the network."""
        trial = min(self.found.trials, key=lambda each: sum(array.size for array in each.inputs))
        masked, network = set(), self.reference.network
        for layer in network.layers:
            read = [source_of(each)[0] for each in layer.masked_by] if layer.inputs else []
            if layer.mask or any(self.reference.mask_of(name, trial) is not None for name in read):
                masked.add(layer.name)
        states = any(each.states is not None for each in self.found.trials)
        compared = self.reference.compared
        every = [each for each in faults(self.reference, masked, states=states) if each.layer in compared]
        most = max(FEWEST, min(MOST, int(WORK / self.reference.cost(trial))))
        most = min(most, max(LEAST, DEEP // len(network.layers)))
        if len(every) <= most:
            return every
        self.notes.append(f"{most} of {len(every):,} test faults were tried, from all over the network.")
        return [every[int(place)] for place in np.linspace(0, len(every) - 1, most)]

    def moved(self, reference: Reference, fault: Fault, trial: Trial) -> float | None:
        """Return how far a fault moves the outputs; None where a layer behind it cannot read what it gives."""
        try:
            return change(reference.run(trial), reference.wrong(fault.plant(reference), trial))
        except (GatewiseError, ValueError, IndexError):
            return None

    def measure(self, tried: Sequence[Fault], trials: Sequence[Trial]) -> None:
        """Note how far each fault moves the outputs, until it is seen."""
        enough = SEEN * self.found.tolerance
        for fault in tried:
            key = (fault.layer, fault.mistake)
            most = self.found.moved.get(key, 0.0)
            for trial in trials:
                if most < enough:
                    moved = self.moved(self.reference, fault, trial)
                    if moved is None:
                        break
                    most = max(most, moved)
                    self.found.moved[key] = most

    def unseen(self, tried: Sequence[Fault]) -> list[Fault]:
        """Return the faults that were not seen yet."""
        left = {(each.layer, each.mistake) for each in self.found.unseen}
        return [fault for fault in tried if (fault.layer, fault.mistake) in left]

    def feed_more(self, tried: Sequence[Fault]) -> None:
        """Feed what shows faults that were not seen."""
        for trial in self.candidates():
            left = self.unseen(tried)
            if not left:
                return
            enough = SEEN * self.found.tolerance
            shown = any((self.moved(self.reference, fault, trial) or 0) >= enough for fault in left)
            if shown and self.found.add_quiet(trial):
                self.measure(left, [trial])

    def leave_out(self, tried: Sequence[Fault]) -> None:
        """Leave out the faults that cannot show, whatever the weights, and those that nothing fed can reach."""
        left = self.unseen(tried)
        ordinary = [self.feeding.draw(self.random, 3, 7, free=self.free, padding=2, again=self.again)]
        ordinary.append(self.feeding.draw(self.random, 8, 7, 4.0, free=self.free, again=self.again))
        others = [self.reference.redrawn(self.random) for _ in range(2)]
        every, missed = Counter(fault.layer for fault in tried), Counter(fault.layer for fault in left)
        strong = self.candidates()
        usual = [trial for trial, (*_, scale) in zip(strong, STRONGER, strict=True) if scale <= USUAL]
        hidden, out_of_reach = [], []
        for fault in left:
            if self.blind(others[0], fault.layer, ordinary):
                continue
            if self.nothing(others, fault, ordinary):
                hidden.append(fault)
                continue
            share, large = (2, usual) if fault.option else (4, strong)
            if share * missed[fault.layer] <= every[fault.layer] and self.nothing([self.reference], fault, large):
                out_of_reach.append(fault)  # What else is wrong in its layer does show.
        for fault in (*hidden, *out_of_reach):
            del self.found.moved[fault.layer, fault.mistake]
        self.notes += [
            f"{_number(len(several), 'test fault')} {words}, such as {several[0].mistake} in {several[0].layer!r}."
            for several, words in (
                ([each for each in hidden if not each.option], "cannot show in this model, whatever its weights"),
                (out_of_reach, "shows in nothing that was fed, large numbers and padding among it"),
            )
            if several
        ]

    def nothing(self, references: Sequence[Reference], fault: Fault, trials: Sequence[Trial]) -> bool:
        """Say whether a fault moves no output."""
        return all(
            (self.moved(reference, fault, trial) or 0) <= NOTHING for reference in references for trial in trials
        )

    def blind(self, reference: Reference, name: str, trials: Sequence[Trial]) -> bool:
        """Say whether no output depends on what a layer gives."""
        noise = Fault(name, "", True, lambda each: noisy(each, name, self.random))
        return self.nothing([reference], noise, trials)

    def in_double(self) -> Comparison:
        """Compare in float64 where float32 does not show every fault."""
        found = self.found
        if found.unseen and found.passed and found.dtype != "float64":
            exact = found.in_double(f"float32 would not have shown {_number(len(found.unseen), 'test fault')}")
            if exact is not None:
                exact.moved = dict(found.moved)
                if not exact.passed or not exact.unseen:
                    return exact
        return found


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' if count != 1 else ''}"
