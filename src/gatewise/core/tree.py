"""How a model is called and what it returns, as a tree of lists, tuples and dicts over numbered values.

A tree is a number, the place of a value, or a tuple that starts with its kind: ``("list", 0, 1)``, ``("tuple", 0)``,
``("dict", ("left", 0), ("right", 1))``. The values are counted from 0, each once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Tree: TypeAlias = int | tuple[Any, ...]

DEEPEST = 50
"""How deep a tree may be."""


def places(tree: Tree, depth: int = 0) -> Iterator[int]:
    """Yield the places of a tree, in order.

    Raises:
        ValueError: It is no tree.

    >>> list(places(("dict", ("a", 1), ("b", ("list", 0)))))
    [1, 0]
    """
    if isinstance(tree, int) and not isinstance(tree, bool):
        yield tree
        return
    if depth > DEEPEST or not isinstance(tree, tuple) or not tree or tree[0] not in ("list", "tuple", "dict"):
        raise ValueError(f"{tree!r:.80} is not a tree of lists, tuples and dicts")
    for entry in tree[1:]:
        if tree[0] == "dict" and not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)):
            raise ValueError(f"{entry!r:.80} is not a name with a tree")
        yield from places(entry[1] if tree[0] == "dict" else entry, depth + 1)


def from_lists(data: Any, depth: int = 0) -> Any:
    """Return what was a tree before it was written as plain data, whose tuples are lists there.

    >>> from_lists(["dict", ["a", 0]])
    ('dict', ('a', 0))
    """
    if depth > 3 * DEEPEST:
        raise ValueError(f"takes and gives are nested deeper than {DEEPEST}")
    return tuple(from_lists(each, depth + 1) for each in data) if isinstance(data, list | tuple) else data


def is_tree_of(tree: Tree, count: int) -> bool:
    """Say whether something is a tree that has each of so many values once."""
    try:
        return sorted(places(tree)) == list(range(count))
    except ValueError:
        return False


def pack(tree: Tree, values: Sequence[Any]) -> Any:
    """Return values as a tree says.

    >>> pack(("dict", ("b", 1), ("a", ("list", 0))), [10, 20])
    {'b': 20, 'a': [10]}
    """
    if isinstance(tree, int):
        return values[tree]
    kind, *entries = tree
    if kind == "dict":
        return {name: pack(entry, values) for name, entry in entries}
    packed = [pack(entry, values) for entry in entries]
    return packed if kind == "list" else tuple(packed)


def unpack(tree: Tree, packed: Any) -> list[Any] | None:
    """Return the values of what is packed as a tree says, a list for a tuple too; None where it is not.

    >>> unpack(("dict", ("b", 1), ("a", 0)), {"a": 10, "b": 20}), unpack(("list", 0, 1), (10, 20)), unpack(0, [1])
    ([10, 20], [10, 20], [[1]])
    >>> unpack(("list", 0, 1), [10]) is None
    True
    """
    found: dict[int, Any] = {}
    return [found[place] for place in sorted(found)] if _collect(tree, packed, found) else None


def _collect(tree: Tree, packed: Any, found: dict[int, Any]) -> bool:
    if isinstance(tree, int):
        found[tree] = packed
        return True
    kind, *entries = tree
    if kind == "dict":
        if not isinstance(packed, Mapping) or set(packed) != {name for name, _ in entries}:
            return False
        return all(_collect(entry, packed[name], found) for name, entry in entries)
    if not isinstance(packed, list | tuple) or len(packed) != len(entries):
        return False
    return all(_collect(entry, each, found) for entry, each in zip(entries, packed, strict=True))


def written(tree: Tree, names: Sequence[str]) -> str:
    """Write a tree with the names of its values, as a person would in a call.

    >>> written(("dict", ("a", 0), ("b", ("tuple", 1, 2))), ["x", "y", "z"])
    "{'a': x, 'b': (y, z)}"
    """
    if isinstance(tree, int):
        return names[tree]
    kind, *entries = tree
    if kind == "dict":
        return "{" + ", ".join(f"{name!r}: {written(entry, names)}" for name, entry in entries) + "}"
    inner = ", ".join(written(entry, names) for entry in entries)
    return f"[{inner}]" if kind == "list" else f"({inner}{',' if len(entries) == 1 else ''})"
