"""Says what keeps two models apart once their weights are the same: options, activations, what stands between layers.

A guess counts where it was tried: an option is set on the target's copy and both are run again; an activation is
applied to what a layer gave and compared with what the next one was given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gatewise.arrays.native import Call
from gatewise.arrays.reference import activation_function
from gatewise.core.spec import Recurrent
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

ACTIVATIONS = (
    "linear relu tanh sigmoid softmax log_softmax elu selu gelu silu softplus softsign leaky_relu leaky_relu(0.01) "
    "leaky_relu(0.1) leaky_relu(0.3) relu6 hard_sigmoid hard_sigmoid_02 exponential mish hard_tanh hard_silu "
    "log_sigmoid elu(0.5) squareplus tanh_shrink"
).split()
"""Activations that are looked for between layers."""

OF_SPECS = ("activation", "recurrent_activation", "cell_clip", "go_backwards")
"""Options of a known recurrent layer that change its outputs and are no attributes to be set."""


OWN = ("LSTM", "GRU", "RNN")
"""Classes of torch.nn that lack options which those of ``gatewise_torch`` have."""


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
        kind = self.pair.target.kind
        line = f"{kind}(…, {self.name}={self.wanted!r})"
        if self.wanted == "causal":
            line = f"where {kind} has no such padding, set it to 0 and pad the front, by dilation · (width - 1)"
        if not self.settable and self.name != "nonlinearity":
            line = f"{kind} computes nothing else; gatewise_torch.{line} does" if kind in OWN else line
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
            found += _masks(tried, manner, left, tolerance) or list(_Between(tried, pairs, manner, left).found())
    if not found:
        found = [
            Found(each.pair.target.name, each.slug, f"Not tried: {each.text}.", away, float("nan"))
            for each in known
            if not each.settable
        ]
    return tuple(found)


def parting(tried: Rehearsal, pairs: Sequence[Pairing], manner: Manner) -> list[Found]:
    """Return the first place at which the filled copy of a target parts from the source, layer by layer."""
    return list(_Between(tried, pairs, manner, float("inf")).found())


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
                seen |= {(pair.target.item, name), (pair.target.item, key)}
                yield Option(pair, name, value, _wanted(key, ours[key], value), name != "nonlinearity")
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
    known = [each for each in known if _away_with(tried, [each], manner) < float("inf")]
    if not known:
        return []
    every = _away_with(tried, known, manner)
    if every <= tolerance:
        kept = list(known)
        for each in known:
            rest = [one for one in kept if one is not each]
            if rest and _away_with(tried, rest, manner) <= tolerance:
                kept = rest
        return kept
    chosen = [each for each in known if _away_with(tried, [each], manner) < 0.9 * away]
    return chosen or [each for each in known if every < 0.9 * away]


def _away_with(tried: Rehearsal, options: Sequence[Option], manner: Manner) -> float:
    """Return how far the outputs are apart with some options set; infinite where the target then cannot run."""
    try:
        with contextlib.ExitStack() as stack:
            for each in options:
                stack.enter_context(_set(tried.target, each))
            return tried.away(None, manner)
    except Exception:  # A layer raises whatever it raises at an option that its framework lacks, such as "causal".
        return float("inf")


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


def _ends(x: np.ndarray) -> np.ndarray:
    """Return where two directions end: the last step of the first half of the features, the first of the second."""
    half = x.shape[-1] // 2
    return np.concatenate([x[:, -1, :half], x[:, 0, half:]], -1)


def _halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half : 2 * half]


READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": lambda x: x,
    "the last step of ": lambda x: x[:, -1],
    "the first step of ": lambda x: x[:, 0],
    "the ends of both directions of ": _ends,
    "the mean over time of ": lambda x: x.mean(1),
    "the maximum over time of ": lambda x: x.max(1),
    "the sum over time of ": lambda x: x.sum(1),
    "the sum of both halves of ": lambda x: _halves(x)[0] + _halves(x)[1],
    "the mean of both halves of ": lambda x: (_halves(x)[0] + _halves(x)[1]) / 2,
    "the product of both halves of ": lambda x: _halves(x)[0] * _halves(x)[1],
    "the first half of ": lambda x: _halves(x)[0],
    "the second half of ": lambda x: _halves(x)[1],
    "the reverse of ": lambda x: x[:, ::-1],
}
"""What may be taken of the outputs of a layer, by the words for it."""


class Seen(NamedTuple):
    """What one layer gave and what another was given: the reading, then the activation."""

    reading: str
    activation: str


class _Step(NamedTuple):
    """One pair of layers with the first call of each."""

    pair: Pairing
    here: Call
    there: Call

    def names(self) -> tuple[str, str]:
        """Return the names of the two layers, without a direction."""
        return _plain(self.pair.source.name), _plain(self.pair.target.name)


def _plain(name: str) -> str:
    return name.removesuffix(".forward").removesuffix(".backward")


class _Between:
    """The way through both models, layer by layer, up to where they part."""

    def __init__(self, tried: Rehearsal, pairs: Sequence[Pairing], manner: Manner, away: float) -> None:
        self.tried, self.away = tried, away
        self.near_by = max(2e-6, min(1e-4, away / 10))
        self.outputs, calls = tried.run(None, manner, watch=True, number=0)
        first: tuple[dict[int, Call], dict[int, Call]] = ({}, {})
        for seen, every in zip(first, (tried.calls, calls), strict=True):
            for call in every:
                seen.setdefault(call.number, call)
        partner = {pair.target.item: pair for pair in pairs if pair.target.place[0] == pair.source.place[0] == 0}
        partner |= {pair.target.item: pair for pair in pairs if pair.target.place == pair.source.place == (0, 0)}
        self.steps = [
            _Step(partner[number], first[0][partner[number].source.item], call)
            for number, call in first[1].items()
            if number in partner and partner[number].source.item in first[0]
        ]

    def found(self) -> Iterator[Found]:
        """Yield the first place at which the two part: a layer, or what stands in front of one."""
        before: _Step | None = None
        for step in self.steps:
            if not (step.here.inputs and step.there.inputs):
                continue
            mine, yours = step.here.inputs[0], step.there.inputs[0]
            if not self.near(mine, yours):
                if mine.size == yours.size or before is not None:
                    yield self.front(before, step.names()[1], mine, yours)
                    return
                continue
            if self.gives_other(step.here, step.there):
                one, other = step.names()
                text = f"{one!r} and {other!r} have the same input and weights, and give other outputs: "
                yield self.told(other, "option", text + self.unlike(step.pair) + ".")
                return
            before = step
        worst = max(self.outputs[0], key=lambda each: each.gap, default=None)
        if worst is not None and before is not None:
            yield self.front(before, "", worst.ours, worst.theirs)

    def told(self, layer: str, mistake: str, text: str) -> Found:
        """Return a finding of which it is not known how far it reaches."""
        return Found(layer, mistake, text, self.away, float("nan"))

    def front(self, before: _Step | None, name: str, mine: np.ndarray, yours: np.ndarray) -> Found:
        """Say what differs in front of a layer of the target; without a name, behind the last."""
        place = f"what goes into {name!r}" if name else "the output"
        if before is None:
            return self.told(name, "option", f"The two part in front of {name!r}: {place} differs.")
        one, other = before.names()
        for base in (before.there.outputs, before.here.outputs):
            first, second = self.reading(base, mine), self.reading(base, yours)
            if first is None or second is None or first == second:
                continue
            text = f"Up to {other!r} the two agree; then, for {place}, the source takes {_words(first, one)}, "
            text += f"the target {_words(second, other)}."
            if first.activation != second.activation:
                text += " In the target, " + (
                    f"leave {second.activation} out there."
                    if first.activation == "linear"
                    else f"apply {first.activation} there"
                    + (f", not {second.activation}." if second.activation != "linear" else ".")
                )
                return self.told(other, "activation", text)
            return self.told(other, "wrong-step", text)
        text = f"Up to {other!r} the two agree; {place} differs: look at what stands in between."
        return self.told(name or other, "option", text)

    def reading(self, base: Sequence[np.ndarray], wanted: np.ndarray) -> Seen | None:
        """Return what made one array of a layer's outputs, or None."""
        for array in base:
            for words, read in READINGS.items():
                if words and (array.ndim != 3 or array.shape[-1] < 2):
                    continue
                part = read(array.astype(np.float64))
                for name in ACTIVATIONS:
                    if self.near(wanted, _activated(name, part)):
                        return Seen(words, name)
        return None

    def near(self, mine: np.ndarray, yours: np.ndarray) -> bool:
        """Say whether two arrays are the same, in whatever order of axes; one may be a step of the other."""
        made = [turned for _, turned in arrangements(yours, mine.shape)]
        if not made and mine.size == yours.size:
            made = [yours.reshape(mine.shape)]
        if mine.ndim == 3 and yours.ndim == 2 and mine.shape[::2] == yours.shape:
            return any(distance(mine[:, step], yours) < self.near_by for step in (0, -1))
        return any(distance(mine, turned) < self.near_by for turned in made)

    def gives_other(self, here: Call, there: Call) -> bool:
        """Say whether two layers give other outputs, whatever activation one has in itself, or part it gives."""
        if not (here.outputs and there.outputs):
            return False
        mine, yours = here.outputs[0], there.outputs[0]
        parts = [(one, other) for one in _parts(mine) for other in _parts(yours) if one.size == other.size]
        return bool(parts) and not any(self.same_but_activation(one, other) for one, other in parts)

    def same_but_activation(self, mine: np.ndarray, yours: np.ndarray) -> bool:
        """Say whether one of two arrays is the other, or an activation of it."""
        return any(
            self.near(one, _activated(name, other.astype(np.float64)))
            for one, other in ((mine, yours), (yours, mine))
            for name in ACTIVATIONS
        )

    def unlike(self, pair: Pairing) -> str:
        """Say in what options two layers differ."""
        known = [each.text for each in options_differ(self.tried.source, self.tried.target, [pair])]
        return "; ".join(known) if known else f"{pair.source.kind} here, {pair.target.kind} there"


def _words(seen: Seen, layer: str) -> str:
    name = f"{seen.reading}{layer!r}"
    if seen.activation != "linear":
        return f"{seen.activation} of {name}"
    return name if seen.reading else f"{name} as it is"


def _activated(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(activation_function(name)(array))


def _parts(array: np.ndarray) -> list[np.ndarray]:
    """Return an array and what a layer may give of it: a step, the ends of two directions, both halves as one."""
    if array.ndim != 3:
        return [array]
    return [array, array[-1], array[0], *(read(array) for words, read in READINGS.items() if words)]
