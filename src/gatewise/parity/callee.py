"""One side of a comparison that is only called: a module, a model or a function; what its calls take and return."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gatewise.arrays.native import Weight
from gatewise.errors import GatewiseError, SpecError, UnsupportedModelError
from gatewise.parity.inputs import Inputs
from gatewise.parity.subject import Side
from gatewise.registry import ModelAdapter, owner

DEPTH = 3
"""How deep functions and the objects that they use are searched for models."""


@dataclass(frozen=True)
class Callee:
    """One side that is only called.

    Attributes:
        role: How it is called in messages.
        obj: What a person gave, or a copy.
        parts: The models in it with their adapters: itself, or those that a function uses.
        side: What can be read of it, all the same.
        weights: Name → each tensor of floats in its parts.
        copied: Whether the object is a copy of what a person gave.
    """

    role: str
    obj: Any
    parts: tuple[tuple[ModelAdapter, Any], ...]
    side: Side | None = None
    weights: dict[str, Weight] = field(default_factory=dict)
    copied: bool = False

    @property
    def whole(self) -> ModelAdapter | None:
        """The adapter of a side that is a model itself, and no function around one."""
        return self.parts[0][0] if len(self.parts) == 1 and self.parts[0][1] is self.obj else None

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Return path → each output, from the state that the side was given in."""
        with contextlib.ExitStack() as stack:
            for adapter, part in self.parts:
                stack.enter_context(adapter.settled(part))
            return self._call(inputs)

    def run_twice(self, inputs: Inputs) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the outputs of two calls, the second of which sees what the first has left."""
        with contextlib.ExitStack() as stack:
            for adapter, part in self.parts:
                stack.enter_context(adapter.settled(part))
            return self._call(inputs), self._call(inputs)

    def _call(self, inputs: Inputs) -> dict[str, np.ndarray]:
        adapter = self.parts[0][0] if self.parts else None
        alone = adapter is not None and all(each is adapter for each, _ in self.parts)

        def fed(_: str, array: np.ndarray) -> Any:
            array = np.array(array, order="C")  # a copy, also of a view that runs backwards
            return adapter.feed(self.parts[0][1], array) if adapter is not None and alone else array

        arranged = arrange(self.signature(), inputs, self.role)
        given = arranged.map(fed)
        try:
            with np.errstate(all="ignore"):
                if self.whole is not None:
                    made = self.whole.apply(self.obj, given.args, given.kwargs)
                else:
                    made = self.obj(*given.args, **given.kwargs)
        except GatewiseError:
            raise
        except Exception as error:  # code of a person's own raises whatever it raises
            lines = str(error).strip().splitlines()
            raise UnsupportedModelError(
                f"The {self.role} raised {type(error).__name__}: {lines[0] if lines else 'no message'}",
                f"{self.role}: {title(self.obj)} was called with inputs of {inputs.text()}.",
                f"{self._takes()}Give the inputs as a call of it takes them: a tuple by position, a dict by name.",
            ) from error
        return dict(_outputs(made, ""))

    def _takes(self) -> str:
        signature = self.signature()
        return f"A call takes {signature}. " if signature is not None else ""

    def signature(self) -> inspect.Signature | None:
        """Return what a call takes, where it is known."""
        function = self.whole.called(self.obj) if self.whole is not None else self.obj
        if function is None:
            return None
        try:
            return inspect.signature(function)
        except (TypeError, ValueError):  # a builtin
            return None

    def double(self) -> Callee | None:
        """Return a copy that computes in float64, where there can be one."""
        adapter = self.whole
        if adapter is None or not self.copied or not adapter.computes_in_double():
            return None
        if hasattr(adapter, "twin"):
            try:
                made = adapter.twin(self.obj, "float64")
            except Exception:  # whatever a module of a person's own raises where it is copied or converted
                return None
            return dataclasses.replace(self, obj=made, parts=((adapter, made),))
        return None

    def dtype(self) -> str:
        """Return the type that it computes in, where it is known."""
        kinds = {adapter.dtype_of(part) for adapter, part in self.parts}
        return kinds.pop() if len(kinds) == 1 else "float32"


def callee(role: str, obj: Any, side: Side | GatewiseError) -> Callee:
    """Return one side of a comparison, as a copy where it can be copied.

    Raises:
        UnsupportedModelError: It cannot be called.
    """
    adapter, copied = adapter_of(obj), False
    if adapter is None:
        if not callable(obj):
            kind = f"{type(obj).__module__}.{type(obj).__name__}"
            raise UnsupportedModelError(
                f"A {kind} cannot be called.", f"{role}: a model or a function is needed.", "Give the model."
            )
        parts = tuple(_models_in(obj))
    else:
        # What cannot be copied is run as it is; each run and each change of a weight is undone.
        made = adapter.duplicate(obj)
        copied, obj = made is not None, obj if made is None else made
        parts = ((adapter, obj),)
    found: dict[str, Weight] = {}
    for number, (owner_, part) in enumerate(parts):
        prefix = f"{number}." if len(parts) > 1 else ""
        found |= {prefix + name: weight for name, weight in owner_.weights(part).items()}
    return Callee(role, obj, parts, side if isinstance(side, Side) else None, found, copied)


def adapter_of(obj: Any) -> ModelAdapter | None:
    """Return the adapter of a model that can be called, and of anything else None."""
    try:
        _, adapter = owner(obj)
    except GatewiseError:
        return None
    return adapter if hasattr(adapter, "runs") and adapter.runs(obj) else None


def _models_in(obj: Any, depth: int = DEPTH, seen: set[int] | None = None) -> Iterator[tuple[ModelAdapter, Any]]:
    """Yield the models that a function uses: bound, in its closure, among its globals or in its attributes."""
    seen = set() if seen is None else seen
    if (
        id(obj) in seen
        or depth < 0
        or isinstance(obj, types.ModuleType | type | str | bytes | int | float | np.ndarray)
    ):
        return
    seen.add(id(obj))
    if (adapter := adapter_of(obj)) is not None:
        yield adapter, obj
        return
    within: list[Any] = []
    if isinstance(obj, functools.partial):
        within = [obj.func, *obj.args, *obj.keywords.values()]
    elif isinstance(obj, types.MethodType):
        within = [obj.__self__, obj.__func__]
    elif isinstance(obj, types.FunctionType):
        with contextlib.suppress(ValueError):  # a cell of its closure is still empty
            used = inspect.getclosurevars(obj)
            within = [*used.nonlocals.values(), *used.globals.values()]
        within += [*(obj.__defaults__ or ()), *(obj.__kwdefaults__ or {}).values()]
    elif isinstance(obj, list | tuple | set):
        within = list(obj)
    elif isinstance(obj, Mapping):
        within = list(obj.values())
    elif hasattr(obj, "__dict__"):
        within = [*vars(obj).values(), *([type(obj).__call__] if callable(obj) else [])]
    for each in within:
        yield from _models_in(each, depth - 1, seen)


def title(obj: Any) -> str:
    """Return the name of a function, or of an object's class."""
    return f"the function {obj.__name__}" if isinstance(obj, types.FunctionType) else type(obj).__name__


# ── what is fed, and what comes out ─────────────────────────────────────────────────────────────────────────────


def arrange(signature: inspect.Signature | None, inputs: Inputs, role: str) -> Inputs:
    """Return inputs in the form that a call takes: by name where they have names, or all as one list or dict.

    Args:
        signature: What the call takes; None where it is not known.
        inputs: What a person gave.
        role: Whose call it is, for messages.

    Raises:
        SpecError: They are too few, too many, or have other names.

    >>> arrange(inspect.signature(lambda pair: pair), Inputs((1, 2)), "source").args
    ([1, 2],)
    """
    if signature is None:
        return inputs
    kinds = inspect.Parameter
    parameters = [each for each in signature.parameters.values() if each.name not in ("training", "mask")]
    places = [each for each in parameters if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    needed = [each.name for each in places if each.default is kinds.empty]
    names = [each.name for each in parameters if each.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    anything = {each.kind for each in parameters} & {kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD}
    if inputs.kwargs:
        if set(inputs.kwargs) <= set(names) or kinds.VAR_KEYWORD in anything:
            return inputs
        if not inputs.loose:
            if len(needed) == 1 and not inputs.args:
                return Inputs((dict(inputs.kwargs),))
            unknown = ", ".join(sorted(set(inputs.kwargs) - set(names)))
            raise SpecError(
                f"No input is called {unknown}.", f"{role}: a call takes {', '.join(names)}.", "Use these names."
            )
        inputs = Inputs((*inputs.args, *inputs.kwargs.values()))
    count = len(inputs.args)
    if count > len(places) and kinds.VAR_POSITIONAL not in anything:
        if len(needed) == 1:
            return Inputs((list(inputs.args),))
        raise SpecError(
            f"{count} inputs, and a call takes {len(places)}.",
            f"{role}: {', '.join(names) or 'none'}.",
            "Give one for each, in this order.",
        )
    if count < len(needed):
        raise SpecError(
            f"{count} inputs, and a call needs {len(needed)}.",
            f"{role}: {', '.join(needed)}.",
            "Give one for each, in this order.",
        )
    return inputs


def _outputs(made: Any, path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each array or number in what a call returned, by its path; what is neither is left out."""
    if isinstance(made, Mapping):
        for name, each in made.items():
            yield from _outputs(each, f"{path}.{name}" if path else str(name))
    elif isinstance(made, list | tuple):
        names = getattr(made, "_fields", range(len(made)))
        for name, each in zip(names, made, strict=True):
            yield from _outputs(each, f"{path}.{name}" if path else str(name))
    elif dataclasses.is_dataclass(made) and not isinstance(made, type):
        yield from _outputs({each.name: getattr(made, each.name) for each in dataclasses.fields(made)}, path)
    elif made is not None and not isinstance(made, str | bytes):
        if hasattr(made, "detach"):
            made = made.detach().cpu()
            made = made.float() if "bfloat16" in str(made.dtype) else made
        array = np.array(made.numpy() if hasattr(made, "numpy") else made)
        if array.dtype.kind == "V":  # bfloat16
            array = array.astype(np.float32)
        if array.dtype.kind in "biuf":
            yield path or "output", array


@dataclass(frozen=True)
class Pairing:
    """Which outputs of two sides are compared.

    Attributes:
        pairs: Paths here and there.
        remarks: What is not compared, or was brought to one shape.
    """

    pairs: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]

    def of(self, outputs: Mapping[str, np.ndarray], side: int) -> list[np.ndarray]:
        """Return what is compared of the outputs of one side."""
        return [outputs[pair[side]] for pair in self.pairs]


def pair_outputs(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> Pairing:
    """Pair the outputs of two sides: by their names, then in order where shapes fit, then by shape and values."""
    pairs: list[tuple[str, str]] = []
    here, there = list(ours), list(theirs)
    shared = [name for name in here if name in theirs and not _is_place(name)]
    if shared:
        pairs = [(name, name) for name in shared]
        here, there = ([name for name in names if name not in shared] for names in (here, there))
    if len(here) == len(there) and all(
        aligned(ours[one], theirs[other]) is not None for one, other in zip(here, there, strict=True)
    ):
        pairs += zip(here, there, strict=True)
        here, there = [], []
    for one in list(here):
        gaps = {other: _gap(ours[one], theirs[other]) for other in there}
        fitting = [other for other in there if gaps[other] is not None]
        if fitting:
            nearest = min(fitting, key=lambda other: gaps[other] or 0.0)
            pairs.append((one, nearest))
            here.remove(one)
            there.remove(nearest)
    remarks = [
        f"Only the {side} gives {', '.join(f'{name} of shape {outputs[name].shape}' for name in names)}, "
        "which is not compared."
        for side, names, outputs in (("source", here, ours), ("target", there, theirs))
        if names and pairs
    ]
    for one, other in pairs:
        if ours[one].shape != theirs[other].shape:
            remarks.append(
                f"{one} has shape {ours[one].shape} in the source and {theirs[other].shape} in the target: compared "
                "without axes of size 1."
            )
        if one != other:
            remarks.append(f"{one} of the source is compared with {other} of the target.")
    return Pairing(tuple(pairs), tuple(remarks))


def _is_place(name: str) -> bool:
    return name == "output" or name.replace(".", "").isdigit()


def aligned(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return two arrays in one shape, which may differ in axes of size 1, or None.

    >>> [array.shape for array in aligned(np.zeros((1, 5, 4)), np.zeros((5, 1, 4)))]
    [(5, 4), (5, 4)]
    """
    if one.shape == other.shape:
        return one, other
    one, other = np.squeeze(one), np.squeeze(other)
    return (one, other) if one.shape == other.shape else None


def _gap(one: np.ndarray, other: np.ndarray) -> float | None:
    """Return how far two outputs are apart; None where their shapes do not fit."""
    both = aligned(one, other)
    if both is None:
        return None
    gap = np.abs(both[0].astype(np.float64) - both[1])
    return float(gap.max()) if gap.size and np.isfinite(gap).all() else float("inf")
