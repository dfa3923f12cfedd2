"""Tables of tokens: which rows differ between two sides, and how many were fed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gatewise.core.between import Dropout, Input, Noise
from gatewise.core.network import Layer, Network, source_of
from gatewise.core.spec import Embedding
from gatewise.errors import GatewiseError
from gatewise.parity.reference import ROUNDED, Reference
from gatewise.parity.subject import Side, Trial
from gatewise.parity.units import alike, units


def rows_apart(first: Side, second: Side) -> dict[int, list[int]]:
    """Return place of an input → the tokens whose rows differ between two sides, those that differ most first."""
    if not any(isinstance(layer.spec, Embedding) for layer in first.network.layers):
        return {}
    try:
        ours, theirs = units(first), units(second)
    except GatewiseError:
        return {}  # Weights that cannot be read as canonical ones are compared by what they give.
    found: dict[int, list[int]] = {}
    readers = {layer.owner: place for place, layer in _readers(first.network)}
    for mine, yours in zip(ours, theirs, strict=True) if alike(ours, theirs) else ():
        if not isinstance(mine.spec, Embedding) or mine.name not in readers:
            continue
        here, there = mine.weights["table"], yours.weights["table"]
        apart = np.abs(here.astype(np.float64) - there).max(-1)
        rows = np.flatnonzero(apart > ROUNDED * max(1.0, float(np.abs(here).max(initial=0))))
        found.setdefault(readers[mine.name], []).extend(map(int, rows[np.argsort(-apart[rows])]))
    return {place: rows for place, rows in found.items() if rows}


def _readers(network: Network) -> Iterator[tuple[int, Layer]]:
    """Yield the embeddings that read an input as it is, with the place of that input."""
    same: dict[str, int] = {}
    for layer in network.layers:
        if isinstance(layer.spec, Input):
            same[layer.name] = len(same)
    for layer in network.layers:
        if not layer.inputs or (name := source_of(layer.inputs[0])[0]) not in same:
            continue
        if isinstance(layer.spec, Embedding):
            yield same[name], layer
        elif isinstance(layer.spec, Dropout | Noise):
            same[layer.name] = same[name]


def fed_words(first: Side, trials: Sequence[Trial], one: Reference, other: Reference) -> list[str]:
    """Say of which embeddings not every row was fed, and whether the tables agree."""
    said = []
    for place, layer in _readers(first.network):
        spec = layer.spec
        assert isinstance(spec, Embedding)
        calls = [inputs for trial in trials for inputs in (trial.inputs, trial.before) if inputs is not None]
        fed = len(np.unique(np.concatenate([inputs[place].ravel() for inputs in calls])))
        if fed >= spec.tokens or layer.shares:
            continue
        tables = [[parts["table"] for name, parts in side.weights.items() if "table" in parts] for side in (one, other)]
        known = len(tables[0]) == len(tables[1]) and all(
            mine.shape == yours.shape and np.allclose(mine, yours, rtol=1e-6, atol=1e-6)
            for mine, yours in zip(*tables, strict=True)
        )
        said.append(
            f"{fed:,} of the {spec.tokens:,} rows of {layer.name!r} were fed"
            + ("; the tables agree in every row." if known else ", and the others were not compared.")
        )
    return said
