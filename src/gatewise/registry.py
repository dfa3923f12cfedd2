"""Finds frameworks: their layouts, which need nothing, and their adapters, which import the framework.

An adapter is a package named by an entry point of the group ``gatewise.adapters``, ``acme = acme_rnn`` say. Its
``layouts`` module declares a ``FRAMEWORK`` of that name; its ``adapter`` module, where there is one, has the functions
of ``Adapter``. Nothing is imported that no installed entry point names; one that cannot be used is reported by
``frameworks``, and the others work on.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from gatewise.core.layout import WHOSE, Default, Framework, Layout, Limit, gaps
from gatewise.core.spec import KINDS, Recurrent, Spec
from gatewise.errors import (
    AdapterError,
    GatewiseError,
    SpecError,
    UnknownFrameworkError,
    UnsupportedCellError,
    UnsupportedModelError,
    nearest,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Protocol

    import numpy as np

    from gatewise.arrays.native import Weight
    from gatewise.core.inventory import Inventory, Tensor
    from gatewise.core.network import Network
else:
    Protocol = object  # a class of typing's own takes milliseconds to make

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

    def check_bare(self, obj: Any, *, copied: bool = False) -> None:
        """Refuse an object whose behaviour is not that of its classes: a replaced method, a hook, an added layer.

        ``copied`` refuses only what a copy of the object would lose; a comparison runs the object and its copies.
        """

    def describe(self, obj: Any) -> Network:
        """Return what an object is, in neutral terms."""

    def runs(self, obj: object) -> bool:
        """Say whether an object can be called as it is, be it readable or not."""

    def settled(self, obj: Any) -> AbstractContextManager[None]:
        """Keep an object as in prediction; afterwards its modes, and what it keeps from call to call, are as before."""

    def kept_random(self) -> AbstractContextManager[None]:
        """Leave the state of the framework's random generators as it was."""

    def feed(self, obj: Any, array: np.ndarray) -> Any:
        """Return an array as an object takes it."""

    def apply(self, obj: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call an object as a person does."""

    def duplicate(self, obj: Any) -> Any:
        """Return a copy that shares nothing with an object and does the same, or None where there is none."""

    def called(self, obj: Any) -> Any:
        """Return the function whose signature says what a call takes, or None."""

    def weights(self, obj: Any) -> dict[str, Weight]:
        """Return name → each tensor of floats that an object holds, to be changed and put back."""

    def example(self, obj: Any) -> str:
        """Return the shape of an input that an object may take, or nothing."""

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

    def calling(self, obj: Any) -> dict[str, str]:
        """Return how an object is called where ``call`` does it otherwise, by aspect.

        Aspects are ``"axes"``, the order of batch and time; ``"states"``, how they are returned; ``"cell"``, what a
        bare cell takes and returns; and ``"rank"``, how many axes an input has, where nothing in it has a time axis.
        """

    def remarks(self, obj: Any) -> list[str]:
        """Return what a port leaves behind, a sentence each."""

    def dtype_of(self, obj: Any) -> str:
        """Return the type of its numbers."""

    def computes_in_double(self) -> bool:
        """Say whether float64 is computed in float64."""

    def open_file(self, path: str) -> Any:
        """Read an object from a private copy of a file of the framework's own; the copy may be changed."""

    def check_file(self, path: str) -> None:
        """Raise ``FileError`` where a file of the framework's own is damaged; what is in it is not built."""

    def save_file(self, obj: Any, path: str) -> None:
        """Write an object to a file of the framework's own."""


class FrameworkRecord(NamedTuple):
    """A framework as ``gw.frameworks()`` lists it; ``problem`` says why its adapter cannot be used, where it cannot."""

    name: str
    title: str
    layouts: tuple[Layout, ...]
    installed: bool
    runnable: bool
    defaults: tuple[Default, ...] = ()
    limits: tuple[Limit, ...] = ()
    problem: str = ""


OWN = {
    name: f"gatewise_{name}"
    for name in (
        *("chainer", "cudnn", "dl4j", "equinox", "flax", "haiku", "keras", "mlx", "nnx", "onnx", "openvino"),
        *("tf1", "tf_keras", "torch"),
    )
}
"""Framework → package, of the adapters that gatewise brings; a search of all installed packages takes far longer."""


class _Entry(NamedTuple):
    """An installed entry point: which package it names, and what is wrong with the entry itself."""

    name: str
    package: str
    problem: str = ""


@functools.cache
def _entries() -> tuple[_Entry, ...]:
    """Return every adapter, gatewise's own and those of other installed packages, in alphabetical order."""
    from importlib.metadata import entry_points

    # One package may be installed twice, as a wheel and for editing.
    others = sorted({(point.name, point.value) for point in entry_points(group=GROUP)} - set(OWN.items()))
    named = Counter(name for name, _ in others)
    found = [_Entry(name, package) for name, package in OWN.items()]
    for name, package in others:
        problem = ""
        if not re.fullmatch(r"[\w.-]+", name):
            problem = f"{name!r} is no name: letters, digits and . _ - are."
        elif not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", package):
            problem = f"{package!r} is no package, such as acme_rnn."
        elif name in OWN:
            problem = f"{name!r} is the name of gatewise's own adapter, {OWN[name]}."
        elif named[name] > 1:
            problem = (
                f"Several packages claim {name!r}: {', '.join(value for other, value in others if other == name)}."
            )
        found.append(_Entry(name, package, problem))
    return tuple(sorted(found))


@functools.cache
def packages() -> dict[str, str]:
    """Return framework name → adapter package, from the installed entry points, in alphabetical order."""
    return {entry.name: entry.package for entry in _entries() if not entry.problem}


def names() -> list[str]:
    """Return the names of all frameworks whose layouts can be read, in alphabetical order."""
    return [name for name, package in packages().items() if name in OWN or not _declared(name, package)[1]]


def _package(name: str) -> str:
    """Return the package that an installed entry point names for a framework.

    Raises:
        UnknownFrameworkError: No installed adapter has this name; the nearest is named.
        AdapterError: The entry point itself cannot be used.
    """
    package = OWN.get(name) or packages().get(name)
    if package is not None:
        return package
    for entry in _entries():
        if entry.name == name:
            raise _unusable(entry)
    raise UnknownFrameworkError(
        f"No framework is called {name!r}.",
        f"Known: {', '.join(packages())}.",
        nearest(name, packages()) + "List them with: gatewise frameworks",
    )


def _unusable(entry: _Entry) -> AdapterError:
    return AdapterError(
        f"The adapter of {entry.name} cannot be used: {entry.problem}",
        f"The entry point {entry.name} = {entry.package} of the group {GROUP}.",
        "Update or uninstall the package that brings it.",
    )


@functools.cache
def _declared(name: str, package: str) -> tuple[Framework | None, str]:
    """Return what the package of an adapter declares, or why that cannot be used."""
    try:
        declared = getattr(importlib.import_module(f"{package}.layouts"), "FRAMEWORK", None)
    except (Exception, SystemExit) as error:  # Other people's code raises anything, and the other adapters go on.
        return None, f"{package}.layouts: {_said(error)}"
    if not isinstance(declared, Framework):
        return None, f"{package}.layouts has no FRAMEWORK of type gatewise.core.layout.Framework."
    if declared.name != name:
        return None, f"{package}.layouts declares {declared.name!r} and not {name!r}."
    strings = isinstance(declared.needs, tuple) and all(isinstance(need, str) and need for need in declared.needs)
    if not strings or not isinstance(declared.title, str):
        return None, f"{package}.layouts: title is not text, or needs is not a tuple of package names."
    for field, kind in (("layouts", Layout), ("defaults", Default), ("limits", Limit)):
        values = getattr(declared, field)
        if not isinstance(values, tuple) or not all(isinstance(value, kind) for value in values):
            return None, f"{package}.layouts: {field} is not a tuple of {kind.__name__}."
    foreign = next((each.name for each in declared.layouts if each.framework != name), None)
    if foreign is not None:
        return None, f"{package}.layouts: the layout {foreign!r} is not called {name}:…"
    if any(limit.whose not in WHOSE for limit in declared.limits):
        return None, f"{package}.layouts: whose of a limit is one of {', '.join(WHOSE)}."
    return declared, ""


def _said(error: BaseException) -> str:
    """Return an exception in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def as_spelled(text: str) -> str:
    """Return the name of a framework or class as it is spelled; a name that is unknown stays as it is."""
    if text.islower() and ":" not in text:
        return text
    owner, colon, kind = text.partition(":")
    if owner.lower() in packages() and owner not in packages():
        owner = owner.lower()
    if not colon or owner not in packages():
        return owner + colon + kind
    named = {layout.name.lower(): layout.name for layout in framework(owner).layouts}
    return named.get(f"{owner}:{kind}".lower(), f"{owner}:{kind}")


@functools.cache
def framework(name: str) -> Framework:
    """Return what a framework declares.

    Raises:
        UnknownFrameworkError: No installed adapter has this name; the nearest is named.
        AdapterError: Its adapter cannot be used.

    >>> framework("torch").title
    'PyTorch'
    """
    package = _package(name)
    declared, problem = _declared(name, package)
    if declared is None:
        raise _unusable(_Entry(name, package, problem))
    return declared


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
            "Take the layers of a network one by one." if hasattr(spec, "layers") else "Give LSTM(3, 50), say.",
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
    framework(name)
    try:
        return all(map(_importable, needs_of(name)))
    except GatewiseError:  # Its backend is unknown: ``adapter`` and ``frameworks`` say so.
        return False


def _importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # A parent of it is missing, or it is half-loaded.
        return False


def needs_of(name: str) -> tuple[str, ...]:
    """Return the packages that a framework needs to run here, the one of its own first.

    Raises:
        GatewiseError: It is set to compute with a package that it does not know.
    """
    declared = framework(name)
    if declared.backend is None:
        return declared.needs
    try:
        return (*declared.needs, declared.backend())
    except GatewiseError:
        raise
    except Exception as error:  # As in ``_declared``.
        raise _unusable(_Entry(name, _package(name), f"its backend: {_said(error)}")) from error


def has_adapter(name: str) -> bool:
    """Say whether gatewise can run this framework at all."""
    framework(name)
    return importlib.util.find_spec(f"{_package(name)}.adapter") is not None


@functools.cache
def _running(name: str) -> tuple[ModuleType | None, str]:
    """Return the module that runs a framework, or why it cannot be used."""
    home = f"{_package(name)}.adapter"
    try:
        module = importlib.import_module(home)
    except (Exception, SystemExit) as error:  # As in ``_declared``.
        return None, f"{home}: {_said(error)}"
    lacks = [each for each in vars(Adapter) if not each.startswith("_") and not callable(getattr(module, each, None))]
    return (None, f"{home} lacks {', '.join(lacks)}.") if lacks else (module, "")


def _module(name: str) -> ModuleType:
    module, problem = _running(name)
    if module is None:
        raise _unusable(_Entry(name, _package(name), problem))
    return module


def holds_models(name: str) -> bool:
    """Say whether whole models of this framework are known; it need not be installed."""
    return has_adapter(name) and hasattr(_module(name), "assemble")


def adapter(name: str) -> Adapter:
    """Return the adapter of a framework; it imports the framework when it is used.

    Raises:
        GatewiseError: There is none, or what it needs is not installed here.
        AdapterError: It cannot be used.
    """
    declared = framework(name)
    if not has_adapter(name):
        raise GatewiseError(
            f"{declared.title} cannot be run by gatewise.",
            f"{name} has layouts only.",
            "Count, explain and map need no more.",
        )
    needs = needs_of(name)
    missing = [need for need in needs if not _importable(need)]
    if missing:
        raise GatewiseError(
            f"{declared.title} is not installed: {', '.join(missing)} is missing.",
            f"It needs {', '.join(needs)}.",
            "pip install " + " ".join(needs),
        )
    return cast(Adapter, _module(name))


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


def _claims(name: str, obj: object) -> tuple[bool, str]:
    """Say whether a framework claims an object, or what is wrong with its adapter."""
    module, problem = _running(name)
    if module is None:
        return False, problem
    try:
        return bool(module.claims(obj)), ""
    except Exception as error:  # As in ``_declared``.
        if name in OWN:
            raise
        return False, f"{module.__name__}.claims: {_said(error)}"


def owner(obj: object) -> tuple[str, ModelAdapter]:
    """Return the framework that an object belongs to, and its adapter.

    Where several claim it, the one whose class stands nearest to the object's own is meant: with Keras on its torch
    backend every Keras layer is a torch module, too.

    Raises:
        UnsupportedModelError: No framework claims it.
    """
    claims, broken = {}, []
    for name in names():
        # A framework that was never imported cannot own anything, and asking would not be free.
        loaded = any(need in sys.modules for need in framework(name).needs)
        if not loaded or not installed(name) or not has_adapter(name):
            continue
        claimed, problem = _claims(name, obj)
        if problem:
            broken.append(f"\nThe adapter of {name} cannot be used: {problem}")
        elif claimed:
            roots = [kind.__module__.partition(".")[0] for kind in type(obj).__mro__]
            own = {_package(name).partition(".")[0], *framework(name).needs[:1]}
            claims[name] = min((place for place, root in enumerate(roots) if root in own), default=len(roots))
    if not claims:
        raise UnsupportedModelError(
            f"A {type(obj).__module__}.{type(obj).__qualname__} belongs to no framework that is known here.",
            f"Known: {', '.join(name for name in names() if has_adapter(name))}.{''.join(broken)}",
            "Give a layer or model of one of these.",
        )
    name = min(claims, key=lambda each: claims[each])
    return name, model_adapter(name)


def frameworks() -> list[FrameworkRecord]:
    """List every framework: name, title, layouts, whether it is installed and can be run here, or what is wrong."""
    return [_record(entry) for entry in _entries()]


def _record(entry: _Entry) -> FrameworkRecord:
    name, package, problem = entry
    declared = None
    if not problem:
        declared, problem = _declared(name, package)
    # Our own modules are sound, and importing all of them would load NumPy.
    if declared is not None and name not in OWN and has_adapter(name):
        problem = _running(name)[1]
    if declared is None:
        return FrameworkRecord(name, package, (), False, False, problem=problem)
    try:
        there = all(map(_importable, needs_of(name)))
    except GatewiseError as error:
        there, problem = False, problem or error.met
    told = declared.layouts, there, there and not problem and has_adapter(name), declared.defaults, declared.limits
    return FrameworkRecord(name, declared.title, *told, problem)
