"""Ways to run a layer wrongly, as functions: a sequence read from its other end, states exchanged, a mask ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gatewise.arrays.network import Call, Way, plain
from gatewise.core.spec import Recurrent

Array = np.ndarray


def recurrent_ways(spec: Recurrent) -> Iterator[tuple[str, str, Way]]:
    """Yield the ways to run a recurrent layer wrongly: slug, what undoes it, and the way."""
    front = len(spec.replace(return_state=False).outputs)
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
