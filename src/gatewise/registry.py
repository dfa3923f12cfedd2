"""Finds frameworks: their layouts, which need nothing, and their adapters, which import the framework.

An adapter is a package named by an entry point of the group ``gatewise.adapters``. Its ``layouts`` module declares a
``FRAMEWORK``; its ``adapter`` module, where there is one, has the functions of ``Adapter``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from gatewise.core.layout import Default, Framework, Layout, Limit, gaps
from gatewise.core.network import Network
from gatewise.core.spec import KINDS, Recurrent, Spec
from gatewise.errors import (
    GatewiseError,
    SpecError,
    UnknownFrameworkError,
    UnsupportedCellError,
    UnsupportedModelError,
    nearest,
)

if TYPE_CHECKING:
    import numpy as np

    from gatewise.core.inventory import Inventory, Tensor

GROUP = "gatewise.adapters"


class Adapter(Protocol):
    """What the ``adapter`` module of a framework can do; each function imports the framework itself."""

    def claims(self, obj: object) -> bool:
        """Say whether an object is one of this framework's."""

    def build(self, spec: Spec, layout: Layout) -> Any:
        """Return the framework's own layer for a spec, with any weights."""

    def read(self, obj: Any) -> dict[str, np.ndarray]:
        """Return the weights by the names of the layout it was built for."""

    def write(self, obj: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        """Return the object with these weights; it may be the same one, changed."""

    def run(self, obj: Any, inputs: np.ndarray) -> np.ndarray:
        """Return the outputs at every step, (batch, steps, directions * state), for inputs (batch, steps, features)."""


class ModelAdapter(Adapter, Protocol):
    """What the adapters can do that know whole models, Keras's and torch's, beside single layers."""

    def describe(self, obj: Any) -> Network:
        """Return what an object is, in neutral terms."""

    def inventory(self, obj: Any) -> Inventory:
        """Return what an object holds, layers that no spec describes too; layouts are left out."""

    def saved_extras(self, path: str) -> tuple[Tensor, ...]:
        """Return what a file of the framework's own holds beside the object that ``open_file`` gives."""

    def natives(self, obj: Any) -> dict[str, Any]:
        """Return layer name → the framework's own layer, on which ``read`` and ``write`` work."""

    def layout_of(self, native: Any, usual: Layout) -> Layout:
        """Return the layout of one native: the usual one, unless its own options make it another."""

    def form(self, obj: Any) -> str:
        """Say how it is called: ``"model"``, a bare ``"layer"`` or ``"cell"``, or a ``"stack"``.

        A stack gives its states side by side.
        """

    def assemble(self, network: Network, *, dtype: str = ..., form: str = ...) -> tuple[Any, dict[str, Any]]:
        """Build an object for a network, ready to predict; return it with its natives."""

    def call(
        self, obj: Any, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Return all outputs, for inputs batch first, in the order that ``describe`` gives them."""

    def gradients(
        self, obj: Any, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]
    ) -> tuple[float, dict[str, dict[str, np.ndarray]], list[np.ndarray | None]]:
        """Return a loss and its gradients, as in training but without dropout; leave the object as it was.

        The loss is the mean square of output minus target, added up over all outputs. The gradients are layer → tensor
        → array, of what training changes, and one for each input, None for one of tokens. Batches are normalised by
        their own statistics, and those that are kept come back.
        """

    def train(self, obj: Any, batches: Sequence[Any], **settings: Any) -> list[float]:
        """Train an object in place by Adam, without dropout; return the loss before each step.

        What is kept of normalised batches moves, too; modes and rates of dropout come back.
        ``batches`` are pairs of inputs and targets. ``settings`` are ``rule``, one of ``ADAMS``, ``learning_rate``,
        ``betas`` and ``epsilon``.
        """

    ADAMS: dict[str, str]

    def freeze(self, native: Any, tensors: Sequence[str]) -> None:
        """Keep training from changing these tensors."""

    def frozen(self, native: Any) -> set[str]:
        """Return the tensors that training does not change."""

    def takes_states(self, obj: Any) -> bool:
        """Say whether ``call`` can start from given states."""

    def remarks(self, obj: Any) -> list[str]:
        """Return what a port leaves behind, a sentence each."""

    def dtype_of(self, obj: Any) -> str:
        """Return the type of its numbers."""

    def computes_in_double(self) -> bool:
        """Say whether float64 is computed in float64."""

    def open_file(self, path: str) -> Any:
        """Read an object from a file of the framework's own."""

    def save_file(self, obj: Any, path: str) -> None:
        """Write an object to a file of the framework's own."""


class FrameworkRecord(NamedTuple):
    """A framework as ``gw.frameworks()`` lists it."""

    name: str
    title: str
    layouts: tuple[Layout, ...]
    installed: bool
    runnable: bool
    defaults: tuple[Default, ...] = ()
    limits: tuple[Limit, ...] = ()


@functools.cache
def packages() -> dict[str, str]:
    """Return framework name → adapter package, from the installed entry points, in alphabetical order."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


@functools.cache
def framework(name: str) -> Framework:
    """Return what a framework declares.

    Raises:
        UnknownFrameworkError: No installed adapter has this name; the nearest is named.

    >>> framework("torch").title
    'PyTorch'
    """
    # The package's own name follows from the framework's, so that one known name needs no search of all packages.
    package = f"gatewise_{name}"
    if not name.isidentifier() or importlib.util.find_spec(package) is None:
        if name not in packages():
            raise UnknownFrameworkError(
                f"No framework is called {name!r}.",
                f"Known: {', '.join(packages())}.",
                nearest(name, packages()) + "List them with: gatewise frameworks",
            )
        package = packages()[name]
    return cast(Framework, importlib.import_module(f"{package}.layouts").FRAMEWORK)


def layout(name: str, spec: Spec) -> Layout:
    """Return the layout that a name means for a layer: ``"torch"`` or, with the class, ``"torch:LSTMCell"``.

    One class may have several layouts, as Keras's GRU has for its two resets: the first that holds the layer is meant.

    Raises:
        UnknownFrameworkError: No framework, or no class of it, has this name.
        UnsupportedCellError: It stores no layer of this kind.
        SpecError: This is no layer with weights.

    >>> from gatewise.core.spec import LSTM
    >>> layout("torch", LSTM(3, 5)).name
    'torch:LSTM'
    """
    if not isinstance(name, str):
        raise UnknownFrameworkError(
            f"{name!r} is no name of a framework.", f"Known: {', '.join(packages())}.", "Give a name, such as 'torch'."
        )
    if not isinstance(spec, Spec) or not spec.cell:
        raise SpecError(
            f"{spec!r} is no layer with weights."
            if isinstance(spec, Spec)
            else f"A {type(spec).__name__} is no layer.",
            f"{name}: layouts store {', '.join(KINDS)}.",
            "Take the layers of a network one by one." if isinstance(spec, Network) else "Give LSTM(3, 50), say.",
        )
    owner, _, wanted = name.partition(":")
    declared, kind = framework(owner), type(spec).__name__
    kind = f"{'an' if kind[0] in 'ELR' else 'a'} {kind}"
    known = ", ".join(dict.fromkeys(each.name for each in declared.layouts))
    fitting = [each for each in declared.layouts if each.cell == spec.cell]
    if wanted:
        named = [each for each in declared.layouts if each.name == name]
        if not named:
            raise UnknownFrameworkError(
                f"{declared.title} has no class {wanted!r}.",
                f"Layouts of {owner}: {known}.",
                nearest(name, [each.name for each in declared.layouts]) + "List them with: gatewise frameworks",
            )
        fitting = [each for each in named if each.cell == spec.cell]
        kind = f"{kind} in {wanted}"
    if not fitting:
        raise UnsupportedCellError(
            f"{declared.title} has no layout for {kind}.",
            f"Layouts of {owner}: {known}.",
            "Choose another kind of layer, or another framework.",
        )
    same_class = [each for each in fitting if each.name == fitting[0].name]
    return next((each for each in same_class if not gaps(each, spec)), same_class[0])


def live_layout(name: str, spec: Spec, form: str = "model") -> Layout:
    """Return the layout in which a live object of a framework holds a layer, which gatewise itself may have built.

    Where the framework's own class lacks an option, gatewise brings a class that has it (``gatewise_torch.GRU`` resets
    before the product, ``gatewise_keras.cells.GeneralLSTMCell`` projects), and a port uses it. ``layout``, and so
    ``gatewise.mapping``, never does so unasked: to them a framework is what its own classes compute.

    Args:
        name: The framework.
        spec: The layer.
        form: ``"cell"`` for a bare cell; see ``ModelAdapter.form``.

    >>> from gatewise.core.spec import GRU
    >>> layout("torch", GRU(3, 5, reset="before")).name, live_layout("torch", GRU(3, 5, reset="before")).name
    ('torch:GRU', 'torch:general.GRU')
    >>> live_layout("torch", GRU(3, 5), "cell").name
    'torch:GRUCell'
    """
    usual = layout(name, spec)
    there = [each for each in framework(name).layouts if each.cell == spec.cell]
    if isinstance(spec, Recurrent):
        there = [each for each in there if (form == "cell") != (each.has_axis("layer") or each.has_axis("direction"))]
    return next((each for each in there if not gaps(each, spec)), there[0] if there else usual)


def installed(name: str) -> bool:
    """Say whether everything that a framework needs to run can be imported here."""
    return all(importlib.util.find_spec(need) is not None for need in needs_of(name))


def needs_of(name: str) -> tuple[str, ...]:
    """Return the packages that a framework needs to run here, the one of its own first."""
    declared = framework(name)
    return declared.needs if declared.backend is None else (*declared.needs, declared.backend())


def has_adapter(name: str) -> bool:
    """Say whether gatewise can run this framework at all."""
    return importlib.util.find_spec(f"gatewise_{name}.adapter") is not None


def holds_models(name: str) -> bool:
    """Say whether whole models of this framework are known; it need not be installed."""
    return has_adapter(name) and hasattr(importlib.import_module(f"gatewise_{name}.adapter"), "assemble")


def adapter(name: str) -> Adapter:
    """Return the adapter of a framework; it imports the framework when it is used.

    Raises:
        GatewiseError: There is none, or what it needs is not installed here.
    """
    declared = framework(name)
    if not has_adapter(name):
        raise GatewiseError(
            f"{declared.title} cannot be run by gatewise.",
            f"{name} has layouts only.",
            "Count, explain and map need no more.",
        )
    if not installed(name):
        needs = needs_of(name)
        missing = ", ".join(need for need in needs if importlib.util.find_spec(need) is None)
        raise GatewiseError(
            f"{declared.title} is not installed: {missing} is missing.",
            f"It needs {', '.join(needs)}.",
            "pip install " + " ".join(needs),
        )
    return cast(Adapter, importlib.import_module(f"gatewise_{name}.adapter"))


def import_quietly(name: str) -> None:
    """Import what a framework needs, without what its C++ code writes to stderr meanwhile."""
    if not has_adapter(name) or not installed(name):
        return
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        for need in needs_of(name):
            importlib.import_module(need)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def model_adapter(name: str) -> ModelAdapter:
    """Return the adapter of a framework whose whole models are known.

    Raises:
        GatewiseError: This framework's are not.
    """
    found = adapter(name)
    if not holds_models(name):
        raise GatewiseError(
            f"Whole models of {framework(name).title} are not supported.",
            "Models go between keras and torch.",
            "Map its layers one by one.",
        )
    return cast(ModelAdapter, found)


def owner(obj: object) -> tuple[str, ModelAdapter]:
    """Return the framework that an object belongs to, and its adapter.

    Where several claim it, the one whose class stands nearest to the object's own is meant: with Keras on its torch
    backend every Keras layer is a torch module, too.

    Raises:
        UnsupportedModelError: No framework claims it.
    """
    claims = {}
    for name in packages():
        # A framework that was never imported cannot own anything, and asking would not be free.
        loaded = any(need in sys.modules for need in framework(name).needs)
        if loaded and installed(name) and has_adapter(name) and adapter(name).claims(obj):
            roots = [kind.__module__.partition(".")[0] for kind in type(obj).__mro__]
            own = {f"gatewise_{name}", *framework(name).needs[:1]}
            claims[name] = min((place for place, root in enumerate(roots) if root in own), default=len(roots))
    if not claims:
        raise UnsupportedModelError(
            f"A {type(obj).__module__}.{type(obj).__qualname__} belongs to no framework that is known here.",
            f"Known: {', '.join(name for name in packages() if has_adapter(name))}.",
            "Give a layer or model of one of these.",
        )
    name = min(claims, key=lambda each: claims[each])
    return name, model_adapter(name)


def frameworks() -> list[FrameworkRecord]:
    """List every framework: name, title, layouts, and whether it is installed and can be run here."""
    records = []
    for name in packages():
        declared, there = framework(name), installed(name)
        runnable = there and has_adapter(name)
        told = declared.defaults, declared.limits
        records.append(FrameworkRecord(name, declared.title, declared.layouts, there, runnable, *told))
    return records
