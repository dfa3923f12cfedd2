"""Compares what two networks say of themselves and no output shows: what acts in training alone, and hidden options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from gatewise.arrays.network import unstacked
from gatewise.core.between import Dropout, Noise
from gatewise.core.network import Layer, Network, Rule
from gatewise.core.spec import Recurrent

TRAINING = ("dropout", "recurrent_dropout", "momentum")
"""Options of layers with weights that act in training alone."""

ALONE = "It acts in training alone."
"""What is said of a difference where training was not compared."""

NO_FUNCTION = (
    *("features", "units", "layers", "bias", "scale", "shift", "return_sequences", "return_state", "return_scores"),
    *("shape", "batch", "integer", "boolean", "dropout_between", "dropout_masks", "rate", "whole", "deviation"),
    *TRAINING,
)
"""Options that say which tensors there are, or act in training alone."""


class Unlike(NamedTuple):
    """What is described otherwise on the two sides.

    Attributes:
        layer: The layer of the first; of the second, where the first has none.
        what: The option, or what acts on the layer.
        here: What the first has.
        there: What the second has.
    """

    layer: str
    what: str
    here: str
    there: str

    def text(self) -> str:
        """Say it.

        >>> Unlike("lstm", "dropout", "0.2", "0.0").text()
        "'lstm': dropout is 0.2 here, 0.0 there"
        """
        return f"{self.layer!r}: {self.what} is {self.here} here, {self.there} there"


def unlike_in_training(first: Network, second: Network) -> list[Unlike]:
    """Return what makes two networks train differently: penalties, constraints, rates of dropout, what is frozen.

    Layers with weights are paired in their order; where they are others, nothing is said of them.

    >>> from gatewise.core.spec import LSTM
    >>> unlike_in_training(Network.chain(LSTM(3, 5, dropout=0.2)), Network.chain(LSTM(3, 5)))
    [Unlike(layer='lstm', what='dropout', here='0.2', there='0.0')]
    """
    ours, theirs = _single(first), _single(second)
    found: list[Unlike] = []
    if [layer.spec.cell for layer in ours] == [layer.spec.cell for layer in theirs]:
        for mine, yours in zip(ours, theirs, strict=True):
            here, there = mine.spec.options(), yours.spec.options()
            for option in TRAINING:
                if here.get(option) != there.get(option):
                    found.append(Unlike(mine.name, option, str(here.get(option)), str(there.get(option))))
            if mine.trainable != yours.trainable:
                found.append(Unlike(mine.name, "trainable", str(mine.trainable), str(yours.trainable)))
            found += _rules_apart(mine.name, mine.rules, yours.rules)
    rules = [[rule for layer in one.layers if not layer.spec.cell for rule in layer.rules] for one in (first, second)]
    found += _rules_apart("layers without weights", *rules)
    here_between, there_between = Counter(_between(first)), Counter(_between(second))
    lost, added = list((here_between - there_between).elements()), list((there_between - here_between).elements())
    for (place, words), (_, others) in zip(lost, added, strict=False):
        found.append(Unlike(place, "dropout", words, others))
    found += [Unlike(place, "dropout", words, "nothing") for place, words in lost[len(added) :]]
    found += [Unlike(place, "dropout", "nothing", words) for place, words in added[len(lost) :]]
    return found


def _single(network: Network) -> list[Layer]:
    """Return each layer with weights, a stack as often as it has layers."""
    return [
        layer
        for layer in network.weighted
        for _ in range(layer.spec.layers if isinstance(layer.spec, Recurrent) else 1)
    ]


def _rules_apart(
    layer: str, ours: tuple[Rule, ...] | list[Rule], theirs: tuple[Rule, ...] | list[Rule]
) -> Iterator[Unlike]:
    here, there = Counter(ours), Counter(theirs)
    lost, added = list((here - there).elements()), list((there - here).elements())
    for kind, weight in dict.fromkeys((rule.kind, rule.weight) for rule in (*lost, *added)):
        texts = [
            " and ".join(_rule(rule) for rule in rules if (rule.kind, rule.weight) == (kind, weight)) or "nothing"
            for rules in (lost, added)
        ]
        yield Unlike(layer, f"{kind} on {weight}", *texts)


def _rule(rule: Rule) -> str:
    return f"{rule.name}({', '.join(f'{name}={value!r}' for name, value in rule.settings)})"


def _between(network: Network) -> Iterator[tuple[str, str]]:
    """Yield dropout and noise between layers: behind which layers with weights, and what it is."""
    behind = 0
    for layer in network.layers:
        spec = layer.spec
        if isinstance(spec, Dropout | Noise) and any(value for value in spec.options().values()):
            if not isinstance(spec, Dropout) or spec.rate:
                yield f"behind layer {behind} with weights", str(spec)
        elif isinstance(spec, Recurrent):
            for place in range(spec.layers):
                behind += not layer.shares
                if spec.dropout_between and place < spec.layers - 1:
                    yield f"behind layer {behind} with weights", str(Dropout(spec.dropout_between))
        elif spec.cell and not layer.shares:
            behind += 1


def hidden_options(first: Network, second: Network) -> list[Unlike]:
    """Return the options in which two networks of the same kinds of layers, one by one, differ.

    >>> from gatewise.core.between import Activation
    >>> hidden_options(Network.chain(Activation("relu(50.0)")), Network.chain(Activation("relu")))
    [Unlike(layer='activation', what='activation', here='relu(50.0)', there='relu')]
    """
    ours, theirs = (unstacked(network)[0].layers for network in (first, second))
    if [type(layer.spec) for layer in ours] != [type(layer.spec) for layer in theirs]:
        return []
    return [
        Unlike(mine.name, option, str(value), str(yours.spec.options()[option]))
        for mine, yours in zip(ours, theirs, strict=True)
        for option, value in mine.spec.options().items()
        if option not in NO_FUNCTION and value != yours.spec.options()[option]
    ]
