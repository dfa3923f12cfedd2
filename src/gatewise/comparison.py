"""Comparisons as data: a TOML file of cases goes in, a table of counts, differences and causes comes out.

A case is a layer, or a chain of layers. The frameworks are listed once for all; each is compared with the first::

    title = "What was stated, and what is stored"
    frameworks = ["keras", "torch"]

    [[case]]
    id = "A1"
    about = "one sentence"
    stated = 10_851                       # a number from a text, checked for the first framework; may be left out
    timesteps = 400                       # may be left out; it changes no count, and the table says so
    layers = ["LSTM(features=3, units=50)", "Dense(features=50, units=1)"]
    show = ["tensors", "gates", "mapping"]  # further tables for this case; may be left out
"""

from __future__ import annotations

import ast
import os
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewise import checkpoints, count, diagnose, explain
from gatewise.arguments import path_of
from gatewise.core.count import Count, notes
from gatewise.core.explain import Cause
from gatewise.core.network import Network
from gatewise.core.spec import KINDS, Dense, Spec, unknown_option
from gatewise.errors import FileError, GatewiseError, UnsupportedSpecError, nearest
from gatewise.registry import as_spelled

MOST_TEXT = 1 << 20
"""Bytes of a file of cases."""

MOST_LAYERS = 1_000
"""Layers of one case."""

LONGEST = 1_000
"""Signs of one layer, as it is written."""

SHOW = ("tensors", "gates", "mapping")
_FIELDS = ("id", "about", "stated", "timesteps", "layers", "show")


@dataclass(frozen=True)
class Row:
    """One case, counted and explained.

    Attributes:
        case: Its id.
        about: What it is about, in a sentence.
        network: Its layers.
        totals: Framework → parameters; a framework that does not store such layers is not in it.
        parts: Framework → parameters of each layer.
        lacks: Framework that does not store such layers → why.
        stated: The number that was stated for the first framework, or None.
        verdict: What is wrong with the stated number, in words; empty where it is right, or nothing was stated.
        differences: Framework → how many more parameters it has than the first.
        causes: Framework → causes that add up to its difference.
        notes: What does not change the count.
        show: Further tables that this case asks for.
    """

    case: str
    about: str
    network: Network
    totals: dict[str, int]
    parts: dict[str, tuple[int, ...]]
    lacks: dict[str, str]
    stated: int | None
    verdict: str
    differences: dict[str, int]
    causes: dict[str, tuple[Cause, ...]]
    notes: tuple[str, ...]
    show: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """All cases of a file."""

    title: str
    frameworks: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def right(self) -> bool:
        """Whether every number that was stated is the count."""
        return not any(row.verdict for row in self.rows)

    def render(self, format: str = "plain") -> str:
        """Write the comparison in a format: plain, github, latex, html, csv or json."""
        from gatewise.report.comparing import comparing
        from gatewise.report.tables import render

        return render(comparing(self), format)


def compare(path: str | Path) -> Comparison:
    """Read a file of cases; see ``gatewise.compare``."""
    path = path_of(path)
    if not os.path.isfile(path):
        what = f"{path} is no plain file." if os.path.exists(path) else f"No such file: {path}."
        raise FileError(what, "Expected a TOML file of cases.", checkpoints.missing_hint(path, (".toml",)))
    text = checkpoints.read_once(path)
    try:
        if len(text) > MOST_TEXT:
            raise ValueError(f"it has {len(text):,} bytes, and {MOST_TEXT:,} is the most that is read")
        data = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"{path} is not TOML: {str(error).rstrip('.')}.",
            "Expected a TOML file of cases.",
            "gatewise table --help shows such a file.",
        ) from None
    return compare_data(data, str(path))


def compare_data(data: Mapping[str, Any], origin: str = "the comparison") -> Comparison:
    """Count and explain every case of a table that was read from TOML.

    >>> data = {"frameworks": ["keras", "torch"], "case": [{"id": "one", "layers": ["LSTM(3, 50)"]}]}
    >>> compare_data(data).rows[0].totals
    {'keras': 10800, 'torch': 11000}
    """
    frameworks, cases = data.get("frameworks", ["keras", "torch"]), data.get("case", [])
    for field in data:
        if field not in ("title", "frameworks", "case"):
            raise FileError(
                f"{origin} has an unknown field {field!r}.",
                "Known: title, frameworks, case.",
                nearest(field, ("title", "frameworks", "case")) + "gatewise table --help shows such a file.",
            )
    if not _strings(frameworks) or len(frameworks) < 2:
        raise FileError(
            f"frameworks={frameworks!r} are not two names.",
            f"{origin}: a list such as ['keras', 'torch'].",
            "Name two or more.",
        )
    if not isinstance(cases, list) or not cases:
        raise FileError(
            f"{origin} has no cases.",
            "Expected one table [[case]] for each.",
            "gatewise table --help shows such a file.",
        )
    frameworks = [as_spelled(name) for name in frameworks]
    rows = []
    for number, case in enumerate(cases, 1):
        place = f"{origin}, case {case.get('id', number) if isinstance(case, dict) else number}"
        try:
            rows.append(_row(case, frameworks, place))
        except GatewiseError as error:
            if error.met.startswith(origin):
                raise
            raise FileError(f"{place}: {error.met}", error.where, error.hint) from error
    return Comparison(str(data.get("title", "")), tuple(frameworks), tuple(rows))


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _row(case: Any, frameworks: Sequence[str], place: str) -> Row:
    if not isinstance(case, dict):
        raise FileError(f"{place} is not a table.", "Expected [[case]].", "gatewise table --help shows such a file.")
    for field in case:
        if field not in _FIELDS:
            raise FileError(
                f"{place} has an unknown field {field!r}.",
                f"Known: {', '.join(_FIELDS)}.",
                nearest(field, _FIELDS) + "Leave it out.",
            )
    layers, show = case.get("layers"), case.get("show", [])
    stated, timesteps = case.get("stated"), case.get("timesteps")
    if not isinstance(layers, list) or not _strings(layers) or not 0 < len(layers) <= MOST_LAYERS:
        raise FileError(
            f"{place} has {f'{len(layers):,}' if isinstance(layers, list) and layers else 'no'} layers.",
            'Expected a list such as ["LSTM(features=3, units=50)"].',
            "Write one text for each layer.",
        )
    for name, value in (("stated", stated), ("timesteps", timesteps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise FileError(
                f"{place}: {name}={value!r} is not a whole number.",
                f"{name} is a number of the text.",
                "Leave it out, or give an integer.",
            )
    if not _strings(show) or not set(show) <= set(SHOW):
        raise FileError(f"{place}: show={show!r} is unknown.", f"Known: {', '.join(SHOW)}.", "Use some of these.")
    network = Network.chain(*(layer(text) for text in layers))
    base, *others = frameworks
    counts, lacks = {}, {}
    for name in frameworks:
        try:
            counts[name] = count(network, name)
        except UnsupportedSpecError as error:
            lacks[name] = f"{error.met} {error.where}"
    told = {name: explain(network, base, name) for name in others if base in counts and name in counts}
    said = next(iter(told.values())).notes if told else ()
    return Row(
        case=str(case.get("id", "")),
        about=str(case.get("about", "")),
        network=network,
        totals={name: counted.total for name, counted in counts.items()},
        parts={name: _parts(network, counted) for name, counted in counts.items()},
        lacks=lacks,
        stated=stated,
        verdict=_verdict(stated, network, base, counts, timesteps),
        differences={name: each.difference for name, each in told.items()},
        causes={name: each.causes for name, each in told.items()},
        notes=tuple(dict.fromkeys((*said, *notes(network.layers[0].spec, timesteps=timesteps)))),
        show=tuple(show),
    )


def _verdict(
    stated: int | None, network: Network, base: str, counts: Mapping[str, Count], timesteps: int | None
) -> str:
    """Say what is wrong with a stated number, and which mistake gives it where one is known."""
    if stated is None:
        return ""
    if base not in counts:
        return f"{stated:,} was stated, and {base} does not store such layers: it cannot be checked."
    total = counts[base].total
    if stated == total:
        return ""
    off = f"{abs(stated - total):,} too {'many' if stated > total else 'few'}"
    mistake = _mistake(stated, network, base, counts, timesteps)
    return f"{stated:,} was stated, and {base} has {total:,}: {off}. {mistake}"


def _mistake(stated: int, network: Network, base: str, counts: Mapping[str, Count], timesteps: int | None) -> str:
    """Say in a sentence which mistake gives a stated number."""
    elsewhere = [name for name, counted in counts.items() if counted.total == stated]
    if elsewhere:
        return f"This is the count in {' and '.join(elsewhere)}."
    layers = [layer.spec for layer in network.weighted]
    if stated >= 1 and (len(layers) == 1 or (len(layers) == 2 and isinstance(layers[1], Dense))):
        found = diagnose(stated, network, base, timesteps=timesteps)
        return found[0].text if found else "No mistake on the list of gatewise diagnose gives it."
    for layer, part in zip(network.weighted, _parts(network, counts[base]), strict=True):
        if counts[base].total - part == stated:
            return f"The layer {layer.name!r} is missing: {part:,}."
        if counts[base].total + part == stated:
            return f"The layer {layer.name!r} was counted twice: {part:,}."
    return "It is neither the count of another framework here, nor one without a layer."


def _parts(network: Network, counted: Count) -> tuple[int, ...]:
    return tuple(
        sum(term.parameters for term in counted.terms if term.name.startswith(f"{layer.name}/"))
        for layer in network.weighted
    )


def layer(text: str) -> Spec:
    """Read a layer as it is written in Python, without running anything.

    >>> layer("LSTM(3, units=50, bias=False)")
    LSTM(features=3, units=50, bias=False)
    """
    expected = "A layer is written as in Python: LSTM(features=3, units=50)."
    if len(text) > LONGEST:
        raise FileError(f"A layer of {len(text):,} signs: {text[:50]!r}….", expected, "Write it shorter.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of odd texts; what is no layer is said below.
            call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        why = (*error.args, "it is nested too deep")[0]
        raise FileError(f"Cannot read the layer {text!r}: {why}.", expected, "Check the parentheses.") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in KINDS:
        name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else text
        raise FileError(
            f"{text!r} is not a layer.",
            f"{expected} Known: {', '.join(KINDS)}.",
            nearest(name, KINDS) + "Use one of these.",
        )
    kind = KINDS[call.func.id]
    required = [field for field in ("tokens", "features", "units", "width") if field in kind.fields]
    try:
        given = dict(zip(required, map(ast.literal_eval, call.args), strict=False))
        given |= {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        if any(isinstance(value, int) and abs(value) >= 10**100 for value in given.values()):
            raise ValueError
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise FileError(
            f"{text!r} holds something that is not a plain value.", expected, "Use numbers, texts, True, False or None."
        ) from None
    for option in given:
        if option not in kind.fields:
            raise unknown_option(kind, option)
    missing = [field for field in required if field not in given]
    if missing or len(call.args) > len(required):
        raise FileError(
            f"{text!r} " + (f"lacks {missing[0]}." if missing else "has too many sizes."), expected, "Name each size."
        )
    return kind(**given)
