"""Find methods that are not those of an object's class: replaced on the object, or patched on the class."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Collection, Iterator
from typing import Any


def replaced_method(obj: object, packages: Collection[str], wrapped: Collection[str] = ()) -> str | None:
    """Return what an object runs instead of its class's own code, in words; None where it runs that.

    Two ways are known: an attribute of the object hides a method of its class, or a method of a class that belongs to
    one of ``packages`` was written elsewhere. A decorator around a method counts, since it may change what comes out.

    Args:
        obj: A layer, module or model.
        packages: Where its classes' code may stand: the framework, what it runs on, and the adapter.
        wrapped: Methods that the framework itself replaces on every object, and that compute no output.

    >>> import fractions
    >>> half = fractions.Fraction(1, 2)
    >>> replaced_method(half, ["fractions", "numbers"]) is None
    True
    >>> class Odd(fractions.Fraction):
    ...     __slots__ = "__dict__"
    >>> odd = Odd(1, 2)
    >>> odd.limit_denominator = lambda *bounds: odd
    >>> replaced_method(odd, ["fractions", "numbers"])
    'limit_denominator was replaced on this object'
    """
    for name, value in getattr(obj, "__dict__", {}).items():
        if name not in wrapped and callable(value) and not inspect.isclass(value):
            own = inspect.getattr_static(type(obj), name, None)
            if callable(own) or isinstance(own, classmethod | staticmethod | property):
                return f"{name} was replaced on this object"
    folders = tuple(_folder(package) for package in packages if sys.modules.get(package) is not None)
    for kind in type(obj).__mro__:
        if kind.__module__.partition(".")[0] not in packages:
            continue
        for name, value in vars(kind).items():
            if any(not path.startswith(folders) for path in _written_in(value)):
                return f"{name} of {kind.__module__.partition('.')[0]}'s class {kind.__name__} was replaced"
    return None


def _folder(package: str) -> str:
    return os.path.dirname(str(sys.modules[package].__file__))


def _written_in(value: Any) -> Iterator[str]:
    """Yield the files that hold the code of a method, a property or what is wrapped around it."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    if inspect.isclass(value) or not callable(value):
        return
    seen: set[int] = set()
    while value is not None and id(value) not in seen:
        seen.add(id(value))
        code = getattr(value, "__code__", None)
        if code is not None:
            yield code.co_filename
        elif type(value).__module__ != "builtins":
            # A callable object, such as a partial: what it calls is not to be seen.
            yield str(getattr(sys.modules.get(type(value).__module__), "__file__", ""))
        value = getattr(value, "__wrapped__", None)
