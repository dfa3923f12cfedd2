"""The same LSTM in every framework: counted, explained, ported, proven.

Importing this package loads neither NumPy nor a framework; each is imported by the call that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gatewise.core.spec import GRU, LSTM, RNN, Dense, Embedding, Layer, Network, Spec
from gatewise.errors import GatewiseError

if TYPE_CHECKING:
    from pathlib import Path

    from gatewise.comparison import Comparison
    from gatewise.core.count import Count
    from gatewise.core.explain import Cause, Explanation
    from gatewise.core.plan import Plan, Verdict
    from gatewise.registry import FrameworkRecord

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cause",
    "Comparison",
    "Count",
    "Dense",
    "Embedding",
    "Explanation",
    "GatewiseError",
    "Layer",
    "Network",
    "Plan",
    "Spec",
    "Verdict",
    "build",
    "compare",
    "count",
    "explain",
    "frameworks",
    "mapping",
]


_HOMES = {
    "Cause": "core.explain",
    "Comparison": "comparison",
    "Count": "core.count",
    "Explanation": "core.explain",
    "Plan": "core.plan",
    "Verdict": "core.plan",
}


def __getattr__(name: str) -> Any:
    """Import a class where it is first asked for, so that a count does not wait for what a plan needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gatewise' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gatewise.{_HOMES[name]}"), name)


def frameworks() -> list[FrameworkRecord]:
    """List the known frameworks.

    Returns:
        Records with ``name``, ``title``, ``layouts``, ``installed`` and ``runnable``.

    >>> [record.title for record in frameworks() if record.name == "torch"]
    ['PyTorch']
    """
    from gatewise.registry import frameworks

    return frameworks()


def count(spec: Spec | Network, framework: str) -> Count:
    """Count the parameters of a layer, or of a network, as a framework stores them.

    Args:
        spec: The layer or network.
        framework: Its name, such as ``"torch"``, or with the class, ``"torch:LSTMCell"``.

    Returns:
        The count: ``total``, and ``terms``, one for each stored tensor.

    Raises:
        UnsupportedSpecError: The framework cannot hold the layer; the option is named.
        UnknownFrameworkError: No framework has this name.

    >>> count(LSTM(features=3, units=50), "keras").total, count(LSTM(features=3, units=50), "torch").total
    (10800, 11000)
    """
    from gatewise.core import count as counting
    from gatewise.registry import layout

    if isinstance(spec, Network):
        layouts = {layer.name: layout(framework, layer.spec) for layer in spec.layers}
        return counting.count_network(spec, framework, layouts)
    return counting.count(spec, layout(framework, spec))


def explain(spec: Spec | Network, first: str, second: str) -> Explanation:
    """Explain why two frameworks count a layer, or a network, differently.

    Returns:
        The explanation: ``difference``, and ``causes`` that add up to it exactly.

    >>> told = explain(LSTM(features=3, units=50), "keras", "torch")
    >>> told.difference, told.causes[0].name, told.causes[0].formula
    (200, 'second bias', '4·units')
    """
    from gatewise.core import explain as explaining
    from gatewise.registry import layout

    if isinstance(spec, Network):
        layouts = {layer.name: (layout(first, layer.spec), layout(second, layer.spec)) for layer in spec.layers}
        return explaining.explain_network(spec, first, second, layouts)
    return explaining.explain(spec, layout(first, spec), layout(second, spec))


def mapping(spec: Spec, source: str, target: str) -> Plan:
    """Plan how the weights of a layer go from one framework to another.

    Returns:
        A plan, always; its ``verdict`` may be ``impossible``.

    >>> print(mapping(LSTM(features=3, units=50), "keras", "torch"))
    keras:LSTM → torch:LSTM: exact. Every number of the source has a place of its own; recurrent bias is filled with 0.
      weight_ih_l0 = kernel    # transpose
      weight_hh_l0 = recurrent_kernel    # transpose
      bias_ih_l0 = bias    # copy
      bias_hh_l0 = 0    # fill with 0
    """
    from gatewise.core.plan import plan
    from gatewise.registry import layout

    return plan(spec, layout(source, spec), layout(target, spec))


def build(spec: Spec, framework: str, seed: int = 0, initial: str = "keras") -> Any:
    """Build a framework's own layer with weights set: for one seed the same function in every framework.

    Args:
        spec: The layer.
        framework: Its name; it must be installed.
        seed: Seed of the one draw of weights.
        initial: The named rule of the draw, ``"keras"`` or ``"torch"``.

    Raises:
        ImpossiblePlanError: The framework cannot compute this layer with these weights.
    """
    from gatewise.arrays.initial import draw
    from gatewise.core.layout import CANONICAL
    from gatewise.core.plan import plan
    from gatewise.registry import adapter, layout

    there = layout(framework, spec)
    weights = plan(spec, CANONICAL[spec.cell], there).apply(draw(spec, seed, initial))
    side = adapter(there.framework)
    return side.write(side.build(spec, there), weights)


def compare(path: str | Path) -> Comparison:
    """Count and explain every case of a TOML file.

    Returns:
        The comparison: ``rows``, and ``render(format)`` for the table.

    Raises:
        FileError: The file cannot be read, or a case of it not understood.
    """
    from gatewise.comparison import compare

    return compare(path)
