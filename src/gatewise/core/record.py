"""Frozen records: classes of named values, as those of ``dataclasses``, made without writing and compiling code.

A dataclass costs a millisecond to make, and there are some forty between a person and a count. A ``Record`` reads its
annotations and keeps them; ``dataclasses.fields`` and ``dataclasses.replace`` work on it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

if TYPE_CHECKING:
    from dataclasses import Field
    from inspect import Signature

REQUIRED: Any = type("Required", (), {"__repr__": lambda _: "REQUIRED"})()
"""Stands where a field has no default."""


class _Fields:
    """What makes a record a dataclass to ``dataclasses``, when it asks."""

    def __get__(self, _: object, owner: type[Record]) -> dict[str, Field[Any]]:
        import dataclasses

        made = {}
        for name, default in owner.fields.items():
            field: Any = dataclasses.field(default=dataclasses.MISSING if default is REQUIRED else default)
            field.name, field.type, field.kw_only = name, "Any", name not in owner.positional
            field._field_type = vars(dataclasses)["_FIELD"]
            made[name] = field
        return made


class _Signed:
    """What ``help`` and ``inspect.signature`` show of a record's class."""

    def __get__(self, _: object, owner: type[Record]) -> Signature:
        from inspect import Parameter, Signature

        ordered = [*owner.positional, *(name for name in owner.fields if name not in owner.positional)]
        return Signature(
            [
                Parameter(
                    name,
                    Parameter.POSITIONAL_OR_KEYWORD if name in owner.positional else Parameter.KEYWORD_ONLY,
                    default=Parameter.empty if owner.fields[name] is REQUIRED else owner.fields[name],
                )
                for name in ordered
            ]
        )


@dataclass_transform(frozen_default=True, eq_default=False)
class Record:
    """The base of frozen records; a subclass annotates its fields, ``_: KW_ONLY`` before those that are named.

    ``__post_init__`` may check the values. Equal are records of one class whose values are equal.

    >>> class Point(Record):
    ...     x: int
    ...     y: int = 0
    >>> Point(1), Point(1, y=0) == Point(1), Point(x=1, y=2) == Point(1)
    (Point(x=1, y=0), True, False)
    """

    fields: ClassVar[dict[str, Any]] = {}
    """Field → default, ``REQUIRED`` where there is none, in the order in which they are listed."""
    positional: ClassVar[tuple[str, ...]] = ()
    """The fields that need not be named."""
    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    else:
        __dataclass_fields__ = _Fields()
        __signature__ = _Signed()

    def __init_subclass__(cls) -> None:
        fields, positional, named = dict(cls.fields), list(cls.positional), False
        own = vars(cls)
        for name, kind in own.get("__annotations__", {}).items():
            if name == "_":
                named = True
            elif not str(kind).removeprefix("typing.").startswith("ClassVar"):
                if name not in fields and not named:
                    positional.append(name)
                fields[name] = own.get(name, REQUIRED)
        cls.fields, cls.positional = fields, tuple(positional)
        setattr(cls, "__match_args__", cls.positional)  # noqa: B010 - its type is for the checker alone

    def __init__(self, *args: Any, **given: Any) -> None:
        values, positional = self.fields.copy(), self.positional
        if args:
            if len(args) > len(positional):
                takes = f"takes {len(positional)} values by position, and {len(args)} are given"
                raise self._misused(f"{type(self).__name__} {takes}.", "")
            values.update(zip(positional, args, strict=False))
            for name in positional[: len(args)] if given else ():
                if name in given:
                    raise self._misused(f"{name} is given twice to {type(self).__name__}.", name)
        values.update(given)
        if len(values) > len(self.fields):
            name = next(name for name in given if name not in self.fields)
            raise self._misused(f"{type(self).__name__} has no option {name!r}.", name)
        for name, value in values.items():
            if value is REQUIRED:
                raise self._misused(f"{type(self).__name__} lacks {name}.", name)
        self.__dict__.update(values)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the values; a subclass may."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed.

        >>> from gatewise.core.spec import LSTM
        >>> LSTM(3, 50).replace(units=2)
        LSTM(features=3, units=2)
        """
        values = vars(self)
        return type(self)(**({name: values[name] for name in self.fields} | changes))

    @classmethod
    def _misused(cls, met: str, option: str) -> Exception:  # noqa: ARG003
        """Return the error for values that the constructor cannot take."""
        return TypeError(met)

    def __setattr__(self, name: str, value: object) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={vars(self)[name]!r}' for name in self.fields)})"
