"""How a transfer names layers and what differs between them, and which layers a user means by a name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gatewise.errors import TransferError, nearest
from gatewise.transfers.sides import Unit


def line_of(error: BaseException) -> str:
    """Return the first line of what another framework says that says anything."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return f"{type(error).__name__}: {(telling or lines or [''])[0]}"[:300]


def named(left: Sequence[Unit], every: Sequence[Unit], name: str, which: str) -> list[Unit]:
    """Return the units that a user means by a name."""

    def means(unit: Unit) -> bool:
        return any(
            own == name
            or (
                (own.startswith(name) and own[len(name)] in "[")
                or re.fullmatch(re.escape(name) + r"(\[\d+\])?\.(forward|backward)", own) is not None
            )
            for own in (unit.name, *unit.aliases)
        )

    found = [unit for unit in left if means(unit)]
    if not found:
        known = list(dict.fromkeys(unit.name for unit in every))
        taken = any(map(means, every))
        raise TransferError(
            f"pairs=: {name!r} is {'named twice' if taken else f'no layer of the {which}'}.",
            f"Layers with weights: {', '.join(known)}.",
            ("" if taken else nearest(name, known)) + "Use one of these names.",
        )
    return found


def one_of(unit: Unit, taken: Iterable[Unit]) -> str:
    """Say what is left over; where others have the same sizes it may be any of them."""
    twins = [other.name for other in taken if other.sizes == unit.sizes]
    return (
        f"{unit.name} {described(unit)}" if not twins else f"one of {', '.join([unit.name, *twins])} {described(unit)}"
    )


def position(unit: Unit) -> tuple[int, tuple[int, int]]:
    """Return where a unit stands in its model."""
    return unit.item, unit.place


def described(unit: Unit) -> str:
    """Return what a layer is: its spec, or its kind and tensors."""
    if unit.spec is not None:
        return f"({unit.spec})"
    return f"({unit.kind}: {', '.join(f'{name} {shape}' for name, shape in unit.tensors)})"


def of_one_cell(mine: Unit, yours: Unit) -> bool:
    """Say whether two units are layers of one kind."""
    return mine.spec is not None and yours.spec is not None and mine.spec.cell == yours.spec.cell


def unlike_options(mine: Unit, yours: Unit) -> str:
    """Return in which options two layers of one kind differ."""
    assert mine.spec is not None
    assert yours.spec is not None
    ours, theirs = mine.spec.options(), yours.spec.options()
    return ", ".join(
        f"{name} {ours[name]} here, {theirs[name]} there"
        for name in ours
        if name in theirs and ours[name] != theirs[name] and name not in ("epsilon", "momentum")
    )


def listed(units: Sequence[Unit]) -> str:
    """Return the names of some units."""
    return ", ".join(unit.name for unit in units)


def joined(names: Sequence[str]) -> str:
    """Return some names quoted, with "and" before the last."""
    quoted = [repr(name) for name in dict.fromkeys(names)]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), *quoted[-1:]]))
