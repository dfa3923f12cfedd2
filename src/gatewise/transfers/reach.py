"""How the stored tensors of live models are reached: the contract of an adapter's ``tensors.py``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from gatewise.registry import model_adapter

if TYPE_CHECKING:
    import numpy as np

    from gatewise.arrays.native import Call
    from gatewise.core.inventory import Item


class Tensors(Protocol):
    """``tensors.py`` of an adapter: stored tensors by name, of layers of any class, and calls seen layer by layer."""

    def read(self, native: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return tensors of a layer; they may share memory with it, and are not to be written to."""

    def virtual(self, native: Any) -> tuple[tuple[str, tuple[int, ...]], ...] | None:
        """Return the tensors of a layer as all frameworks have them, where its own are packed; else None."""

    def dtype(self, native: Any, name: str) -> str:
        """Return the type of a tensor of a layer."""

    def names_of(self, obj: Any, items: Sequence[Item]) -> dict[int, tuple[str, ...]]:
        """Return other names of some of an object's layers, by their places in its inventory."""

    def path(self, obj: Any, native: Any, name: str) -> str:
        """Return the name by which the object itself reads and writes a tensor of one of its layers."""

    def part(self, obj: Any, name: str) -> Any:
        """Return the layer that stands at a path in an object, or None."""

    def identity(self, native: Any, name: str) -> Hashable:
        """Return what two names of one tensor have in common."""

    def check(self, obj: Any, *, written: bool) -> None:
        """Raise ``UnsupportedModelError`` where an object's tensors cannot be read, or written where that is asked."""

    def write(self, native: Any, arrays: Mapping[str, np.ndarray]) -> None:
        """Change tensors of a layer in place; their types stay."""

    def freeze(self, native: Any, names: Sequence[str]) -> None:
        """Keep training from changing tensors of a layer."""

    def rehearsal(self, obj: Any) -> Any:
        """Return a copy to try weights on, or the object itself where there can be none."""

    def snapshot(self, obj: Any) -> Any:
        """Return a copy of all that an object holds, for ``restore``."""

    def restore(self, obj: Any, kept: Any) -> None:
        """Give an object back what it held at a snapshot."""

    def double(self, obj: Any) -> Any:
        """Return a copy that computes in float64, or None where there can be none."""

    def cast(self, obj: Any, dtype: str) -> Any:
        """Change the type of an object's floats in place, and return it."""

    def observe(
        self,
        obj: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        natives: Mapping[int, Any],
        lengths: np.ndarray | None = ...,
    ) -> tuple[list[np.ndarray], list[Call]]:
        """Call an object for prediction; return its outputs, and each call of some of its layers."""

    def parameters_of(self, obj: Any) -> list[tuple[str, bool]]:
        """Return the names of the arguments of a call, and whether each is needed."""

    def capacity(self, obj: Any) -> int | None:
        """Return how many arguments a call takes by position; None where any number."""

    def shapes_of_inputs(self, obj: Any) -> list[tuple[str, tuple[int | None, ...], str]] | None:
        """Return name, shape and type of each input, with the batch, where an object says them; "" is not known."""

    def time_first(self, obj: Any) -> list[str]:
        """Return the layers in it that read the time axis first."""

    def options_of(self, native: Any) -> Iterable[tuple[str, Any]]:
        """Yield the options of a layer that change its outputs and are no weights."""

    def set_option(self, native: Any, name: str, value: Any) -> Callable[[], None]:
        """Set an option of a layer; return what sets it back."""

    def masks(self, obj: Any) -> tuple[str, float] | None:
        """Return what an object skips: ``("tokens", 0)``, or ``("values", …)`` of steps; None where nothing."""


def tensors(name: str) -> Tensors:
    """Return how the stored tensors of a framework's objects are reached; it imports the framework.

    Raises:
        GatewiseError: This framework's whole models are not known.
    """
    module: Any = model_adapter(name)
    return cast(Tensors, importlib.import_module(f"{module.__name__.rpartition('.')[0]}.tensors"))
