"""Pairs the layers of two models: by what they are, their names, and the order of definition and of use.

One engine for whatever lays two models side by side. A layer is a ``Node`` here; two nodes can be partners only where
their sizes are equal. Where several can, names and order say which are likely, and the result says how it was decided.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple, TypeVar

SYNONYMS = {
    "dense": "linear fc fullyconnected head out output logits classifier clf proj projection predictor pred ffn mlp",
    "rnn": "lstm gru recurrent simplernn bilstm bigru blstm bidirectional seq",
    "embedding": "emb embed embeddings embedder tok token tokens table lookup wte vocab",
    "norm": "bn batchnorm normalization normalisation batch ln layernorm batchnormalization layernormalization",
    "conv": "cnn convolution conv1d conv2d convolutional",
    "encoder": "enc",
    "decoder": "dec",
    "attention": "attn att",
    "query": "q",
    "key": "k",
    "value": "v",
    "forward": "fwd fw f",
    "backward": "bwd bw reverse rev b",
    "mean": "mu avg",
    "variance": "var logvar sigma std",
    "left": "l",
    "right": "r",
    "source": "src",
    "target": "tgt",
}
"""A word of layers' names → others for the same."""

_ROOTS = {word: root for root, words in SYNONYMS.items() for word in (root, *words.split())}

EMPTY = {"layer", "layers", "model", "module", "net", "network", "block", "cell", "my", "the", "self", "functional"}
"""Words that say nothing of which layer it is."""


class Node(NamedTuple):
    """One layer as a pairing sees it.

    Attributes:
        name: Its name.
        sizes: What it has in common with whatever can be its partner.
        used: Its place in the order of use, where that is known.
        aliases: Other names of it.
    """

    name: str
    sizes: Hashable
    used: int | None = None
    aliases: tuple[str, ...] = ()


class Match(NamedTuple):
    """One pair: the places of the two, how it was decided, and whether nothing else was possible or likely."""

    first: int
    second: int
    how: str
    sure: bool


ONLY, NAME, USE, ORDER = "only fit", "name", "order of use", "order of definition"
"""How a pair was decided."""


@functools.lru_cache(maxsize=8192)
def words(name: str) -> tuple[frozenset[str], tuple[int, ...]]:
    """Return the telling words of a name and its numbers; words of one meaning are one.

    >>> words("encoder.lstmLayer_2") == words("enc/rnn2")
    True
    """
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    found = [part.lower() for part in parts if not part.isdigit()]
    roots = {_ROOTS.get(word, word) for word in found} - EMPTY
    return frozenset(roots), tuple(int(part) for part in parts if part.isdigit())


def likeness(one: Node, other: Node) -> float:
    """Return how alike the names of two nodes are, from 0 to 1; 1 is the same words and numbers."""
    return max(_alike(mine, yours) for mine in (one.name, *one.aliases) for yours in (other.name, *other.aliases))


@functools.lru_cache(maxsize=65536)
def _alike(mine: str, yours: str) -> float:
    if mine == yours:
        return 1.0
    (ours, numbers), (theirs, others) = words(mine), words(yours)
    both = len(ours & theirs) / len(ours | theirs) if ours | theirs else 0.5
    same = 1.0 if numbers == others else 0.5 if numbers[-1:] == others[-1:] else 0.0
    return 0.7 * both + 0.3 * same if numbers or others else 0.7 * both + 0.3


def match(ours: Sequence[Node], theirs: Sequence[Node]) -> list[Match]:
    """Pair the nodes of two models as far as they fit.

    Returns:
        The pairs in the order of the first side; a pair that is not ``sure`` has rivals.

    >>> rnn, head = Node("lstm", (3, 5)), Node("dense", (5, 1))
    >>> match([rnn, head], [Node("out", (5, 1)), Node("encoder", (3, 5))])
    [Match(first=0, second=1, how='only fit', sure=True), Match(first=1, second=0, how='only fit', sure=True)]
    """
    found: list[Match] = []
    for mine, yours in groups(ours, theirs):
        found += _paired(ours, theirs, mine, yours)
    return sorted(found)


def groups(ours: Sequence[Node], theirs: Sequence[Node]) -> list[tuple[list[int], list[int]]]:
    """Return the places of the nodes that can be each other's partners, group by group."""
    places: dict[Hashable, tuple[list[int], list[int]]] = {}
    for side, nodes in enumerate((ours, theirs)):
        for place, node in enumerate(nodes):
            places.setdefault(node.sizes, ([], []))[side].append(place)
    return [(mine, yours) for mine, yours in places.values() if mine and yours]


def _paired(ours: Sequence[Node], theirs: Sequence[Node], mine: list[int], yours: list[int]) -> Iterator[Match]:
    if len(mine) == len(yours) == 1:
        yield Match(mine[0], yours[0], ONLY, True)
        return
    named = by_name(ours, theirs, mine, yours)
    if named is not None:
        yield from (Match(one, other, NAME, True) for one, other in named)
        return
    left, right = list(mine), list(yours)
    exact: list[tuple[int, int]] = []
    for one in mine:
        same = [other for other in right if likeness(ours[one], theirs[other]) == 1.0]
        if len(same) == 1 and sum(likeness(ours[each], theirs[same[0]]) == 1.0 for each in left) == 1:
            exact.append((one, same[0]))
            left.remove(one)
            right.remove(same[0])
    yield from (Match(one, other, NAME, False) for one, other in exact)
    known = all(ours[one].used is not None for one in left) and all(theirs[one].used is not None for one in right)
    if known:
        left.sort(key=lambda one: ours[one].used or 0)
        right.sort(key=lambda one: theirs[one].used or 0)
    scores = [[likeness(ours[one], theirs[other]) for other in right] for one in left]
    for one, other in _in_order(left, right, scores):
        yield Match(one, other, USE if known else ORDER, False)


def by_name(
    ours: Sequence[Node], theirs: Sequence[Node], mine: Sequence[int], yours: Sequence[int]
) -> list[tuple[int, int]] | None:
    """Return the one pairing in which all names of a group are the same, word by word; None where there is none."""
    if len(mine) != len(yours):
        return None
    pairs = []
    for one in mine:
        same = [other for other in yours if likeness(ours[one], theirs[other]) == 1.0]
        if len(same) != 1:
            return None
        pairs.append((one, same[0]))
    return pairs if len({other for _, other in pairs}) == len(yours) else None


def _in_order(left: list[int], right: list[int], scores: list[list[float]]) -> list[tuple[int, int]]:
    """Pair two lists so that names are most alike; among equals the order stays."""
    if len(left) == len(right) and len({score for row in scores for score in row}) == 1:
        return list(zip(left, right, strict=True))
    spread = max(len(left), len(right), 1)
    ranked = sorted(
        (-scores[row][column] + 0.2 * abs(row - column) / spread, abs(row - column), row, column)
        for row in range(len(left))
        for column in range(len(right))
    )
    rows: set[int] = set()
    columns: set[int] = set()
    pairs = []
    for _, _, row, column in ranked:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            pairs.append((left[row], right[column]))
    return sorted(pairs)


T = TypeVar("T")


def side_by_side(
    ours: Sequence[T],
    theirs: Sequence[T],
    node: Callable[[T], Node],
    distance: Callable[[T, T], float],
) -> list[tuple[T | None, T | None]]:
    """Pair the layers of two models, those that are alike first; what is left stands beside what it is least unlike.

    Args:
        ours: The layers of one model.
        theirs: Those of the other.
        node: From a layer to its node.
        distance: How unlike two layers are that are no partners; 2 is the price of leaving out both.

    Returns:
        Pairs, all that is in both, in order; None where one side has no partner.
    """
    here, there = [node(each) for each in ours], [node(each) for each in theirs]
    partner = {each.first: each.second for each in match(here, there)}
    taken = set(partner.values())
    rest = [place for place in range(len(ours)) if place not in partner]
    others = [place for place in range(len(theirs)) if place not in taken]
    for one, other in _aligned(rest, others, lambda one, other: distance(ours[one], theirs[other])):
        if one is not None and other is not None:
            partner[one] = other
    taken = set(partner.values())
    pairs: list[tuple[T | None, T | None]] = []
    following = 0
    for place, mine in enumerate(ours):
        if place not in partner:
            pairs.append((mine, None))
            continue
        while following < partner[place]:
            if following not in taken:
                pairs.append((None, theirs[following]))
            following += 1
        pairs.append((mine, theirs[partner[place]]))
        following = max(following, partner[place] + 1)
    pairs += [(None, theirs[place]) for place in range(following, len(theirs)) if place not in taken]
    return pairs


def _aligned(
    ours: Sequence[int], theirs: Sequence[int], distance: Callable[[int, int], float]
) -> list[tuple[int | None, int | None]]:
    """Lay two lists side by side, in order, so that they differ least; the shorter has gaps."""
    rows, columns = len(ours) + 1, len(theirs) + 1
    price = [[0.0] * columns for _ in range(rows)]
    for row in range(rows):
        for column in range(columns):
            choices = [price[row - 1][column] + 1.0] if row else []
            choices += [price[row][column - 1] + 1.0] if column else []
            if row and column:
                choices.append(price[row - 1][column - 1] + distance(ours[row - 1], theirs[column - 1]))
            price[row][column] = min(choices, default=0.0)
    pairs: list[tuple[int | None, int | None]] = []
    row, column = len(ours), len(theirs)
    while row or column:
        here = price[row][column]
        both = price[row - 1][column - 1] + distance(ours[row - 1], theirs[column - 1]) if row and column else math.inf
        if here == both:
            row, column = row - 1, column - 1
            pairs.append((ours[row], theirs[column]))
        elif row and here == price[row - 1][column] + 1.0:
            row -= 1
            pairs.append((ours[row], None))
        else:
            column -= 1
            pairs.append((None, theirs[column]))
    return pairs[::-1]
