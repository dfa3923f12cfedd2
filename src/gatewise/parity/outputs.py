"""Which outputs of two sides are compared, where not both give the same: matched by what they mean, not by place.

torch's recurrent layers always return their states, Keras's by default do not; one gives every step, another the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gatewise.arrays.network import unstacked
from gatewise.core.between import Masking
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.spec import Recurrent, outputs_of

Arrays = Sequence[np.ndarray]
Take = Callable[[Arrays], np.ndarray]


class Pick(NamedTuple):
    """What is compared of the outputs of one side.

    Attributes:
        name: Layer and output.
        take: Returns it, given all outputs.
        reads: Which outputs it is taken from, by their numbers.
    """

    name: str
    take: Take
    reads: tuple[int, ...]


class Match(NamedTuple):
    """What both sides give.

    Attributes:
        first: For each output that is compared, how it is taken from the first side.
        second: The same for the second; empty, with ``first``, where nothing is common.
        remarks: What only one side gives, and what is taken from something else, a sentence each.
    """

    first: tuple[Pick, ...]
    second: tuple[Pick, ...]
    remarks: tuple[str, ...]


_Key = tuple[object, ...]


class _Offer(NamedTuple):
    """One thing that a side can give, and whether it is an output of its own."""

    pick: Pick
    own: bool
    words: str = ""


MERGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "concat": lambda forward, backward: np.concatenate([forward, backward], -1),
    "sum": np.add,
    "mul": np.multiply,
    "ave": lambda forward, backward: (forward + backward) / 2,
}
"""How the two directions of a layer become one output."""


def same_outputs(first: Network, second: Network) -> bool:
    """Say whether two networks give the same number of outputs, of the same meanings, in the same order.

    >>> from gatewise.core.spec import LSTM
    >>> steps, last = LSTM(3, 5, return_state=False), LSTM(3, 5, return_state=False, return_sequences=False)
    >>> [same_outputs(Network.chain(steps), Network.chain(other)) for other in (steps, last)]
    [True, False]
    """
    return [_meaning(*each) for each in _results(first)] == [_meaning(*each) for each in _results(second)]


def match(first: Network, second: Network, ours: Arrays, theirs: Arrays) -> Match:
    """Match the outputs of two networks by their meaning; what has none of its own by name, shape and values.

    Args:
        first: The first network.
        second: The second network.
        ours: The outputs of the first at one trial.
        theirs: The outputs of the second at the same trial.
    """
    mine, yours = _offers(first), _offers(second)
    pairs: list[tuple[_Offer, _Offer]] = []
    for key in dict.fromkeys((*mine, *yours)):
        one, other = mine.get(key), yours.get(key)
        if one is not None and other is not None and (one.own or other.own):
            pairs.append((one, other))
    used = [{place for pair in pairs if pair[side].own for place in pair[side].pick.reads} for side in (0, 1)]
    rest = [
        [_whole(network, place) for place in range(len(outputs)) if place not in taken]
        for network, outputs, taken in zip((first, second), (ours, theirs), used, strict=True)
    ]
    for one_pick, other_pick in _alike(rest[0], rest[1], ours, theirs):
        pairs.append((_Offer(one_pick, True), _Offer(other_pick, True)))
    pairs = [(one, other) for one, other in pairs if np.shape(one.pick.take(ours)) == np.shape(other.pick.take(theirs))]
    pairs.sort(key=lambda pair: pair[0].pick.reads)
    remarks = [*_only("source", first, [one for one, _ in pairs]), *_only("target", second, [two for _, two in pairs])]
    for one, other in pairs:
        for derived, whole, side in ((one, other, "source"), (other, one, "target")):
            if not derived.own:
                words = derived.words or derived.pick.name
                remarks.append(f"{whole.pick.name} is compared with what the {side} gives as {words}.")
    named = [(one.pick._replace(name=(one if one.own else other).pick.name), other.pick) for one, other in pairs]
    return Match(tuple(one for one, _ in named), tuple(other for _, other in named), tuple(remarks))


def _results(network: Network) -> Iterator[tuple[Layer, int]]:
    """Yield layer and output number of each result, stacks taken apart."""
    flat, _ = unstacked(network)
    yield from ((flat[name], number) for name, number in map(source_of, flat.results))


def _meaning(layer: Layer, number: int) -> str:
    spec = layer.spec
    name = outputs_of(spec)[number]
    if isinstance(spec, Recurrent) and "state_" not in name:
        return f"{name} {'steps' if spec.return_sequences else 'last'} {spec.merge if spec.bidirectional else ''}"
    return name


def _whole(network: Network, place: int) -> Pick:
    name, number = source_of(network.results[place])
    spec = network[name].spec
    return Pick(f"{name}.{outputs_of(spec)[number]}", lambda outputs: outputs[place], (place,))


def _offers(network: Network) -> dict[_Key, _Offer]:
    """Return what a network's recurrent results can give, by meaning: themselves, and what follows from them."""
    flat, _ = unstacked(network)
    ranks = {layer.name: rank for rank, layer in enumerate(each for each in flat.layers if each.spec.cell)}
    masks = any(
        isinstance(each.spec, Masking) or each.spec.options().get("mask_zero") or each.mask for each in flat.layers
    )
    offers: dict[_Key, _Offer] = {}
    for place, (layer, number) in enumerate(_results(network)):
        spec, pick = layer.spec, _whole(network, place)
        if not isinstance(spec, Recurrent):
            continue
        name, rank = outputs_of(spec)[number], ranks[layer.name]
        direction = "backward" if "backward" in name else "forward" if spec.bidirectional and name != "output" else ""
        if "state_" in name:
            offers.setdefault((rank, name[name.index("state_") :], direction), _Offer(pick, True))
        else:
            what = "steps" if spec.return_sequences and not layer.step else "last"
            merge = direction or (str(spec.merge) if spec.bidirectional else "")
            offers[rank, what, merge] = _Offer(pick, True)
    for layer in flat.layers:
        if isinstance(layer.spec, Recurrent):
            # Under a mask an output may be zero where the state is not.
            states_are_outputs = not (masks and layer.spec.options().get("zero_output_for_mask"))
            _derive(offers, ranks[layer.name], layer.spec, 1 + layer.distributed, states_are_outputs)
    return offers


def _derive(offers: dict[_Key, _Offer], rank: int, spec: Recurrent, axis: int, states_are_outputs: bool) -> None:
    """Add what follows from the outputs of one layer: each direction, its last step, and both merged."""
    sides = ("forward", "backward") if spec.bidirectional else ("",)
    width = spec.state

    def add(key: _Key, base: _Offer, words: str, take: Callable[[np.ndarray], np.ndarray]) -> None:
        whole = base.pick
        made = Pick(whole.name, lambda outputs: take(whole.take(outputs)), whole.reads)
        offers.setdefault(key, _Offer(made, False, words))

    if spec.bidirectional and spec.merge == "concat":
        for what in ("steps", "last"):
            if (base := offers.get((rank, what, "concat"))) is not None:
                add((rank, what, "forward"), base, f"the forward half of {base.pick.name}", lambda a: a[..., :width])
                add((rank, what, "backward"), base, f"the backward half of {base.pick.name}", lambda a: a[..., width:])
    for side in sides:
        # A layer that returns its states returns all it has, as torch's do. Where none come, the steps, or the last of
        # them, are what somebody chose: to take the one for the other would hide a lost return_sequences.
        keys = ("last", "state_h") if (rank, "state_h", side) in offers else ("state_h",)
        if (base := offers.get((rank, "steps", side))) is not None:
            # Both frameworks turn the outputs of the backward half back: it ends at the first step.
            at = 0 if side == "backward" else -1
            words = f"the {'first' if at == 0 else 'last'} step of {base.words or base.pick.name}"
            for key in keys if states_are_outputs else keys[:-1]:
                add((rank, key, side), base, words, lambda array, at=at: np.take(array, at, axis))  # type: ignore[misc]
        if states_are_outputs:
            for key, other in (("last", "state_h"), ("state_h", "last")):
                if (base := offers.get((rank, other, side))) is not None and (base.own or key == "state_h"):
                    add((rank, key, side), base, base.words or base.pick.name, lambda array: array)
    for what in ("steps", "last"):
        halves = [offers.get((rank, what, side)) for side in sides]
        if spec.bidirectional and halves[0] is not None and halves[1] is not None:
            forward, backward = halves[0].pick, halves[1].pick
            for merge, join in MERGES.items():
                pick = Pick(
                    forward.name,
                    lambda outputs, join=join, one=forward.take, two=backward.take: join(one(outputs), two(outputs)),  # type: ignore[misc]
                    tuple(dict.fromkeys((*forward.reads, *backward.reads))),
                )
                words = " and ".join(dict.fromkeys(half.words or half.pick.name for half in halves if half))
                offers.setdefault((rank, what, merge), _Offer(pick, False, f"{words}, merged by {merge}"))


def _alike(ours: Sequence[Pick], theirs: Sequence[Pick], left: Arrays, right: Arrays) -> Iterator[tuple[Pick, Pick]]:
    """Yield pairs of what has no meaning of its own: by name, then in order where that fits, then by values."""
    here, there = list(ours), list(theirs)
    for one in list(here):
        found = next((other for other in there if other.name == one.name), None)
        if found is not None and one.take(left).shape == found.take(right).shape:
            yield one, found
            here.remove(one)
            there.remove(found)
    shapes = [[pick.take(arrays).shape for pick in picks] for picks, arrays in ((here, left), (there, right))]
    if shapes[0] == shapes[1]:
        yield from zip(here, there, strict=True)
        return
    for one in here:
        array = one.take(left)
        fitting = [other for other in there if other.take(right).shape == array.shape]
        if fitting:
            nearest = min(fitting, key=lambda other: _gap(array, other.take(right)))
            yield one, nearest
            there.remove(nearest)


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    gap = np.abs(one.astype(np.float64) - other)
    return float(gap.max()) if np.isfinite(gap).all() else float("inf")


def _only(side: str, network: Network, compared: Sequence[_Offer]) -> Iterator[str]:
    """Say what one side alone gives."""
    read = {place for offer in compared for place in offer.pick.reads}
    names = [_whole(network, place).name for place in range(len(network.results)) if place not in read]
    if names:
        verb = "is" if len(names) == 1 else "are"
        yield f"Only the {side} gives {', '.join(names)}, which {verb} not compared."
