"""Brings a file of arrays from one framework's layout into another's, when there is no model, only the arrays."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gatewise.core.infer import infer
from gatewise.core.layout import Layout, store
from gatewise.core.plan import Plan, plan
from gatewise.core.spec import KINDS, Spec
from gatewise.errors import FileError, GatewiseError, ShapeError, WeightsError
from gatewise.registry import framework, layout, names

if TYPE_CHECKING:
    import numpy as np


SMALLEST: tuple[Any, ...] = (2, 2)
"""Sizes of a layer that is only asked where it would be stored."""


class Conversion(NamedTuple):
    """What was done: the plan, the arrays it gave, and what a person should know."""

    plan: Plan
    arrays: dict[str, np.ndarray]
    warnings: tuple[str, ...]


def convert(source: str, target: str, weights: str, output: str | None, options: Mapping[str, Any]) -> Conversion:
    """Read arrays, find out which layer they are, bring them over, and write them, whole or not at all.

    Args:
        source: The framework the arrays come from, such as ``"keras"``.
        target: The framework they go to.
        weights: The file with the arrays, by the layer's own names or in the order of ``get_weights()``.
        output: The file to write, or None.
        options: Options of the spec that are known, and ``cell``; None where nothing is.

    Raises:
        GatewiseError: Something does not fit; nothing was written.
    """
    from gatewise import checkpoints

    if output is not None:
        checkpoints.check_other(Path(weights), Path(output))
    read = checkpoints.load(weights)
    if not read:
        raise FileError(
            f"{weights} holds no arrays.", f"Expected the weights of a layer of {source}.", "Was it saved whole?"
        )
    given = {name: value for name, value in options.items() if value is not None and name != "cell"}
    (spec, there, arrays), left = one_layer(source, read, options.get("cell"), given)
    done = plan(spec, there, layout(target, spec))
    made = done.apply(arrays)
    warnings = (*left, *_not_finite(arrays))
    if output is not None:
        checkpoints.save(output, made)
    return Conversion(done, made, warnings)


MOST_GROUPS = 32
"""How many groups of arrays are tried, each as a layer."""


def _of_several(arrays: Mapping[str, Any]) -> WeightsError | None:
    """Return the error for arrays of several layers, by what their names begin with; None where they are of one."""
    counted = Counter(re.split(r"[./]", name)[0] for name in arrays if re.search(r"[./]", name))
    if len(counted) < 2:
        return None
    listed = ", ".join(f"{prefix!r} ({number})" for prefix, number in list(counted.items())[:8])
    return WeightsError(
        f"These are the arrays of {len(counted)} layers, not of one: {listed}{', …' if len(counted) > 8 else ''}.",
        "One layer is mapped at a time; its arrays are told by what their names begin with.",
        "Save the arrays of one of them alone, or bring the whole model over with gw.port or gw.transfer.",
    )


def local_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays by the names they have within their layer: without what all names begin with, and ``:0``.

    >>> list(local_names({"lstm/lstm_cell/kernel:0": None, "lstm/lstm_cell/bias:0": None}))
    ['kernel', 'bias']
    """
    names = [re.sub(r":\d+$", "", name) for name in arrays]
    shortest, longest = min(names), max(names)  # what these two share, all do
    shared = next((at for at, sign in enumerate(shortest) if sign != longest[at]), len(shortest))
    cut = max(shortest.rfind("/", 0, shared), shortest.rfind(".", 0, shared)) + 1
    short = [name[cut:] for name in names]
    return (
        dict(zip(short, arrays.values(), strict=True))
        if len(names) > 1
        else dict(zip(names, arrays.values(), strict=True))
    )


Identified = tuple[Spec, Layout, "dict[str, np.ndarray]"]
"""A layer, its layout, and its arrays by the layout's names."""


def one_layer(
    source: str, arrays: Mapping[str, np.ndarray], cell: str | None, given: Mapping[str, Any]
) -> tuple[Identified, tuple[str, ...]]:
    """Return which layer some arrays are, or which layer is among those of a model, and a note of what is left out.

    Raises:
        WeightsError: There is no such layer in them, or more than one.
    """
    try:
        return identify(source, local_names(arrays), cell, given), ()
    except ShapeError:  # The names fit.
        raise
    except WeightsError as error:
        met = error
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        groups.setdefault(re.split(r"[./][^./]*$", name)[0] if re.search(r"[./]", name) else "", {})[name] = array
    fits: dict[str, Identified] = {}
    for prefix, group in groups.items() if 1 < len(groups) <= MOST_GROUPS else ():
        with contextlib.suppress(GatewiseError):  # This one is another kind of layer, or of another framework.
            fits[prefix] = identify(
                source, {name[len(prefix) :].lstrip("./"): group[name] for name in group}, cell, given
            )
    if len(fits) == 1:
        ((prefix, found),) = fits.items()
        others = ", ".join(repr(other) for other in groups if other != prefix)
        return found, (f"Note: these are the arrays of {prefix!r}; those of {others} are left out.",)
    if fits:
        listed = "\n".join(f"{prefix!r}: {spec}" for prefix, (spec, _, _) in fits.items())
        raise WeightsError(
            f"These are the arrays of {len(fits)} layers.",
            listed,
            "Say which with --cell, or save the arrays of one layer alone.",
        )
    owner = _owner(cell, given, local_names(arrays), *groups.values())
    if owner:
        raise WeightsError(met.met, met.where, f"They are those of {owner}: name it as the source.")
    raise _of_several(arrays) or met


def _owner(cell: str | None, given: Mapping[str, Any], *groups: Mapping[str, np.ndarray]) -> Layout | None:
    """Return the layout of any framework that stores one of several groups of arrays."""
    for group in sorted(groups, key=len, reverse=True)[:2]:
        for name in dict.fromkeys(("keras", "torch", *names())):  # ONNX's and others' names are less telling
            with contextlib.suppress(GatewiseError):
                return identify(name, local_names(group), cell, given)[1]
    return None


def identify(
    source: str, arrays: Mapping[str, np.ndarray], cell: str | None, given: Mapping[str, Any]
) -> tuple[Spec, Layout, dict[str, np.ndarray]]:
    """Return which layer of a framework these arrays are, its layout, and the arrays by the layout's names."""
    owner, _, wanted = source.partition(":")
    candidates = [each for each in framework(owner).layouts if not wanted or each.name == source]
    if cell:
        candidates = [each for each in candidates if each.cell == KINDS[cell].cell]
    if not candidates:
        layout(source, KINDS[cell or "LSTM"](*SMALLEST))  # says which name is unknown
    found: list[tuple[Spec, Layout, dict[str, np.ndarray]]] = []
    errors: list[GatewiseError] = []
    for each in candidates:
        kind = next(kind for kind in KINDS.values() if kind.cell == each.cell)
        known = {name: value for name, value in given.items() if name in kind.fields}
        try:
            named = _in_order(each, arrays, known)
            spec = infer(each, {name: array.shape for name, array in named.items()}, **known)
        except GatewiseError as error:
            errors.append(error)
            continue
        if known == given and not any(spec == other for other, _, _ in found):
            found.append((spec, each, named))
    cells = {spec.cell for spec, _, _ in found}
    if len(cells) > 1:
        listed = " or ".join(str(spec) for spec, _, _ in found)
        raise ShapeError(
            "These arrays fit more than one kind of layer.", f"They may be {listed}.", "Say which with --cell."
        )
    if not found:
        # A shape that does not fit says more than names that do not.
        raise next((error for error in errors if isinstance(error, ShapeError)), errors[0])
    return found[0]


def _in_order(layout: Layout, arrays: Mapping[str, np.ndarray], given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays by the layout's names, where they only have numpy.savez's ``arr_0``, ``arr_1``, …."""
    if not all(re.fullmatch(r"arr_\d+", name) for name in arrays):
        return dict(arrays)
    ordered = [arrays[f"arr_{number}"] for number in range(len(arrays)) if f"arr_{number}" in arrays]
    kind = next(kind for kind in KINDS.values() if kind.cell == layout.cell)
    sizes = {name: 2 for name in ("features", "units", "tokens") if name in kind.fields}
    for bias in [{"bias": True}, {"bias": False}] if "bias" in kind.fields else [{}]:
        names = list(store(layout, kind(**(sizes | bias | dict(given)))).shapes)
        if len(names) == len(ordered):
            return dict(zip(names, ordered, strict=True))
    return dict(arrays)


def _not_finite(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    import numpy as np

    said = []
    for name, array in arrays.items():
        bad = int(np.count_nonzero(~np.isfinite(array))) if np.issubdtype(array.dtype, np.inexact) else 0
        if bad:
            said.append(
                f"Note: {name!r} holds NaN or infinity in {bad:,} place{'s' if bad > 1 else ''}; copied as they are."
            )
    return tuple(said)
