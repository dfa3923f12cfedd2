"""Says what keeps two models apart once their weights are the same: options, activations, what stands between layers.

A guess counts where it was tried: an option is set on the target's copy and both are run again; an activation is
applied to what a layer gave and compared with what the next one was given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gatewise.arrays.native import Call
from gatewise.arrays.reference import ACTIVATION_FUNCTIONS
from gatewise.core.spec import Recurrent
from gatewise.errors import GatewiseError
from gatewise.parity.result import Found
from gatewise.transfers.moving import Pairing
from gatewise.transfers.search import Rehearsal
from gatewise.transfers.sides import Side
from gatewise.transfers.trials import Manner, arrangements, distance, gap

CANONICAL = {
    "eps": "epsilon",
    "stride": "strides",
    "dilation": "dilation_rate",
    "nonlinearity": "activation",
}
"""Option under the name that one framework gives it → the name that is compared."""

OF_SPECS = ("activation", "recurrent_activation", "cell_clip")
"""Options of a known recurrent layer that change its outputs and are no attributes to be set."""

NEAR = 1e-4
"""How far what a layer is given may be apart and still count as the same."""


class Option(NamedTuple):
    """An option of a layer that differs: of the target's, with the value that the source has.

    Attributes:
        pair: The two layers.
        name: Its name in the target's framework.
        value: What it is in the target.
        wanted: What it is in the source.
        settable: Whether it can be set on a layer that exists.
    """

    pair: Pairing
    name: str
    value: Any
    wanted: Any
    settable: bool = True

    @property
    def slug(self) -> str:
        """The mistake that it is."""
        return CANONICAL.get(self.name, self.name).replace("_", "-")

    @property
    def text(self) -> str:
        """What to change."""
        line = f"{self.pair.target.kind}(…, {self.name}={self.wanted!r})"
        return (
            f"{self.name} of {self.pair.target.name!r} is {self.wanted!r}, as in {self.pair.source.name!r}, and not "
            f"{self.value!r}: {line}"
        )


def differences(
    tried: Rehearsal, pairs: Sequence[Pairing], manner: Manner, away: float, tolerance: float
) -> tuple[Found, ...]:
    """Return what keeps the filled copy of a target from the source's outputs, the first things first."""
    again = _unsteady(tried, manner)
    if again is not None:
        return (again,)
    known = list(options_differ(tried.source, tried.target, pairs))
    settable = [each for each in known if each.settable]
    found: list[Found] = []
    with contextlib.ExitStack() as stack:
        turned = _time_first(tried, pairs, stack, away, tolerance)
        if turned is not None:
            found, manner, away = [turned], Manner(), turned.after
        for each in _needed(tried, settable, manner, away, tolerance) if away > tolerance else ():
            before = tried.away(None, manner)
            stack.enter_context(_set(tried.target, each))
            after = tried.away(None, manner)
            found.append(_told(each.pair.target.name, each.slug, each.text, before, after, after <= tolerance))
        left = tried.away(None, manner)
        if left > tolerance:
            found += _masks(tried, manner, left, tolerance) or list(_between(tried, pairs, manner, left))
    if not found:
        found = [
            Found(each.pair.target.name, each.slug, f"Not tried: {each.text}.", away, float("nan"))
            for each in known
            if not each.settable
        ]
    return tuple(found)


def _time_first(
    tried: Rehearsal, pairs: Sequence[Pairing], stack: contextlib.ExitStack, away: float, tolerance: float
) -> Found | None:
    """Say so where the outputs come nearer once the target reads the batch first; it then stays so."""
    assert tried.target.reach is not None
    known = []
    for pair in {pair.target.item: pair for pair in pairs}.values():
        options = dict(tried.target.reach.options_of(tried.target.item(pair.target).native))
        if options.get("batch_first") is False:
            known.append(Option(pair, "batch_first", False, True))
    if not known:
        return None
    with contextlib.ExitStack() as trial:
        for each in known:
            trial.enter_context(_set(tried.target, each))
        try:
            after = tried.away(None, Manner())
        except Exception:  # A module's own code raises whatever it raises: then this is not it.
            return None
        if not after < 0.5 * away:
            return None
        stack.push(trial.pop_all().__exit__)
    names = " and ".join(repr(each.pair.target.name) for each in known)
    line = f"{known[0].pair.target.kind}(…, batch_first=True)"
    clause = f"batch_first of {names} is True: {line}"
    return _told(known[0].pair.target.name, "batch-and-time-exchanged", clause, away, after, after <= tolerance)


def _told(layer: str, slug: str, clause: str, before: float, after: float, last: bool) -> Found:
    words = f"Outputs match to {after:.1e}" if last else f"The difference goes from {before:.1e} to {after:.1e}"
    return Found(layer, slug, f"{words} once, in the target, {clause}.", before, after)


def _unsteady(tried: Rehearsal, manner: Manner) -> Found | None:
    """Say so where the target gives other outputs at each run."""
    one, _ = tried.run(None, manner, number=0)
    other, _ = tried.run(None, manner, number=0)
    moved = max(
        (distance(mine.theirs, yours.theirs) for mine, yours in zip(one[0], other[0], strict=True)), default=0.0
    )
    if moved <= 1e-6:
        return None
    text = (
        f"The target gives other outputs at each run, {moved:.1e} apart: dropout or other noise is left on in "
        "prediction. Give F.dropout training=self.training, or use nn.Dropout."
    )
    return Found("", "dropout-left-on", text, moved, moved)


# ── options ─────────────────────────────────────────────────────────────────────────────────────────────────────


def options_differ(source: Side, target: Side, pairs: Sequence[Pairing]) -> Iterator[Option]:
    """Yield the options in which layers that are paired differ."""
    assert source.reach is not None
    assert target.reach is not None
    seen: set[tuple[int, str]] = set()
    for pair in pairs:
        one, other = source.item(pair.source), target.item(pair.target)
        if one.native is None or other.native is None or one.native is source.obj is not None is other.native:
            continue
        ours = {CANONICAL.get(name, name): value for name, value in source.reach.options_of(one.native)}
        for name, value in target.reach.options_of(other.native):
            key = CANONICAL.get(name, name)
            if key in ours and (pair.target.item, name) not in seen and not _equal(key, ours[key], value, other.native):
                seen.add((pair.target.item, name))
                yield Option(pair, name, value, _wanted(key, ours[key], value))
        if isinstance(one.spec, Recurrent) and isinstance(other.spec, Recurrent):
            here, there = one.spec.options(), other.spec.options()
            for name in OF_SPECS:
                differs = name in here and name in there and here[name] != there[name]
                if differs and (pair.target.item, name) not in seen:
                    seen.add((pair.target.item, name))
                    yield Option(pair, name, there[name], here[name], settable=False)


def _equal(name: str, one: Any, other: Any, native: Any) -> bool:
    if name == "padding":
        return bool(_padding(one, native) == _padding(other, native))
    if name in ("strides", "dilation_rate"):
        return _tuple(one) == _tuple(other)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-9 + 1e-6 * abs(one)
    return bool(one == other)


def _tuple(value: Any) -> tuple[Any, ...]:
    """Return sizes along axes; one that is the same along all of them is one number."""
    sizes = tuple(value) if isinstance(value, list | tuple) else (value,)
    return sizes[:1] if len(set(sizes)) == 1 else sizes


def _padding(value: Any, native: Any) -> Any:
    """Return a padding by its word, where numbers are what the word means for a kernel."""
    if isinstance(value, str):
        return value
    sizes, kernel = _tuple(value), _tuple(getattr(native, "kernel_size", 1))
    if not any(sizes):
        return "valid"
    return "same" if all(2 * size == width - 1 for size, width in zip(sizes, kernel, strict=False)) else sizes


def _wanted(name: str, wanted: Any, value: Any) -> Any:
    """Return a value as the target's framework writes it."""
    if name == "padding" and not isinstance(wanted, str) and isinstance(value, str):
        return "same" if any(_tuple(wanted)) else "valid"
    return tuple(wanted) if isinstance(wanted, list) else wanted


def _needed(tried: Rehearsal, known: Sequence[Option], manner: Manner, away: float, tolerance: float) -> list[Option]:
    """Return the options that have to be set for the outputs to agree; else those that bring them nearer."""
    if not known:
        return []
    with contextlib.ExitStack() as stack:
        for each in known:
            stack.enter_context(_set(tried.target, each))
        every = tried.away(None, manner)
    if every <= tolerance:
        kept = list(known)
        for each in known:
            rest = [one for one in kept if one is not each]
            with contextlib.ExitStack() as stack:
                for one in rest:
                    stack.enter_context(_set(tried.target, one))
                if rest and tried.away(None, manner) <= tolerance:
                    kept = rest
        return kept
    chosen = []
    for each in known:
        with _set(tried.target, each):
            if tried.away(None, manner) < 0.9 * away:
                chosen.append(each)
    return chosen or [each for each in known if every < 0.9 * away]


@contextlib.contextmanager
def _set(target: Side, option: Option) -> Iterator[None]:
    """Set an option of a layer of the target's copy for a while."""
    assert target.reach is not None
    native = target.item(option.pair.target).native
    undo = target.reach.set_option(native, option.name, option.wanted)
    try:
        yield
    finally:
        undo()


# ── masks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _masks(tried: Rehearsal, manner: Manner, away: float, tolerance: float) -> list[Found]:
    """Say so where the outputs agree but for rows that are padded."""
    padded = [number for number, feed in enumerate(tried.feeds) if feed.lengths is not None]
    plain = [number for number in range(len(tried.feeds)) if number not in padded]
    if not padded or not plain:
        return []
    worst = 0.0
    for number in plain:
        [compared], _ = tried.run(None, manner, number=number)
        worst = max(worst, gap(compared))
    if worst > tolerance:
        return []
    text = (
        f"Rows without padding agree to {worst:.1e}; padded ones differ by {away:.1e}: the source skips padded steps "
        "(a mask), the target reads them. Pack the sequences by their lengths, nn.utils.rnn.pack_padded_sequence; or "
        "give inputs=… without padding if there will be none."
    )
    return [Found("", "mask-ignored", text, away, worst)]


# ── between layers ──────────────────────────────────────────────────────────────────────────────────────────────


READINGS: Mapping[str, Any] = {
    "": lambda x: x,
    "the last step of ": lambda x: x[:, -1],
    "the first step of ": lambda x: x[:, 0],
    "the mean over time of ": lambda x: x.mean(1),
    "the maximum over time of ": lambda x: x.max(1),
    "the sum over time of ": lambda x: x.sum(1),
}
"""What may be taken of the outputs of a layer, by the words for it."""


class Seen(NamedTuple):
    """What one layer gave and what another was given: the reading, then the activation."""

    reading: str
    activation: str


def _between(tried: Rehearsal, pairs: Sequence[Pairing], manner: Manner, away: float) -> Iterator[Found]:
    """Yield the first place at which the two models part: a layer, or what stands in front of one."""
    outputs, calls = tried.run(None, manner, watch=True, number=0)
    ours: dict[int, Call] = {}
    for call in tried.calls:
        ours.setdefault(call.number, call)
    partner = {pair.target.item: pair for pair in pairs}
    before: tuple[Pairing, Call, Call] | None = None
    firsts: dict[int, Call] = {}
    for call in calls:
        firsts.setdefault(call.number, call)
    for number, call in firsts.items():
        pair = partner.get(number)
        here = ours.get(pair.source.item) if pair is not None else None
        if pair is None or here is None or not here.inputs or not call.inputs or pair.source.place != (0, 0):
            continue
        if not _near(here.inputs[0], call.inputs[0]):
            if _comparable(here.inputs[0], call.inputs[0]):
                yield _front(before, pair.target.name, here.inputs[0], call.inputs[0], away)
                return
            continue
        if _gives_other(here, call):
            text = (
                f"{pair.source.name!r} and {pair.target.name!r} have the same input and weights, and give other "
                f"outputs: {_unlike(tried, pair)}."
            )
            yield Found(pair.target.name, "option", text, away, float("nan"))
            return
        before = pair, here, call
    compared = outputs[0]
    worst = max(compared, key=lambda each: each.gap, default=None)
    if worst is not None and before is not None:
        yield _front(before, "", worst.ours, worst.theirs, away)


def _gives_other(here: Call, there: Call) -> bool:
    """Say whether two layers give other outputs, whatever activation one of them has in itself, or step it gives."""
    if not (here.outputs and there.outputs):
        return False
    mine, yours = here.outputs[0], there.outputs[0]
    parts = [(one, other) for one in _parts(mine) for other in _parts(yours) if one.size == other.size]
    return bool(parts) and not any(_same_but_activation(one, other) for one, other in parts)


def _parts(array: np.ndarray) -> list[np.ndarray]:
    """Return an array, and its first and last step."""
    return [array, array[:, -1], array[:, 0], array[-1], array[0]] if array.ndim == 3 else [array]


def _front(
    before: tuple[Pairing, Call, Call] | None, name: str, mine: np.ndarray, yours: np.ndarray, away: float
) -> Found:
    """Say what differs in front of a layer of the target; without a name, behind the last."""
    place = f"what goes into {name!r}" if name else "the output"
    if before is None:
        return Found(name, "option", f"The two part in front of {name!r}: {place} differs.", away, float("nan"))
    pair, here, call = before
    for base in (call.outputs, here.outputs):
        one, other = _reading(base, mine), _reading(base, yours)
        if one is None or other is None or one == other:
            continue
        text = f"Up to {pair.target.name!r} the two agree; then, for {place}, the source takes {_words(one, pair, 0)}, "
        text += f"the target {_words(other, pair, 1)}."
        if one.activation != other.activation:
            text += f" In the target, apply {one.activation} there" + (
                f", not {other.activation}." if other.activation != "linear" else "."
            )
            return Found(pair.target.name, "activation", text, away, float("nan"))
        return Found(pair.target.name, "wrong-step", text, away, float("nan"))
    text = f"Up to {pair.target.name!r} the two agree; {place} differs: look at what stands in between."
    return Found(name or pair.target.name, "option", text, away, float("nan"))


def _words(seen: Seen, pair: Pairing, side: int) -> str:
    name = f"{seen.reading}{(pair.target if side else pair.source).name!r}"
    return f"{seen.activation} of {name}" if seen.activation != "linear" else f"{name} as it is"


def _reading(base: Sequence[np.ndarray], wanted: np.ndarray) -> Seen | None:
    """Return what made one array of a layer's outputs, or None."""
    for array in base:
        for words, read in READINGS.items():
            if words and array.ndim < 3:
                continue
            part = read(array)
            for name, function in ACTIVATION_FUNCTIONS.items():
                with contextlib.suppress(GatewiseError), np.errstate(all="ignore"):
                    if _near(wanted, np.asarray(function(part.astype(np.float64)))):
                        return Seen(words, name)
    return None


def _near(mine: np.ndarray, yours: np.ndarray) -> bool:
    made = [turned for _, turned in arrangements(yours, mine.shape)]
    if not made and mine.size == yours.size:
        made = [yours.reshape(mine.shape)]
    if mine.ndim == 3 and yours.ndim == 2 and mine.shape[::2] == yours.shape:
        return any(distance(mine[:, step], yours) < NEAR for step in (0, -1))
    return any(distance(mine, turned) < NEAR for turned in made)


def _comparable(mine: np.ndarray, yours: np.ndarray) -> bool:
    return mine.size == yours.size


def _same_but_activation(mine: np.ndarray, yours: np.ndarray) -> bool:
    """Say whether one of two arrays is the other, or an activation of it."""
    for one, other in ((mine, yours), (yours, mine)):
        for function in ACTIVATION_FUNCTIONS.values():
            with contextlib.suppress(GatewiseError), np.errstate(all="ignore"):
                if _near(one, np.asarray(function(other.astype(np.float64)))):
                    return True
    return False


def _unlike(tried: Rehearsal, pair: Pairing) -> str:
    """Say in what options two layers differ."""
    known = [each.text for each in options_differ(tried.source, tried.target, [pair])]
    return "; ".join(known) if known else f"{pair.source.kind} here, {pair.target.kind} there"
