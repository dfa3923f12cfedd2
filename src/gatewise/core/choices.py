"""What a class can compute in one option, and how it is told: a row of ``Layout.computes``, read.

A row is words, the value that the class has of itself first, then perhaps how another is chosen::

    "tanh"                                 tanh, and nothing else
    "tanh relu by nonlinearity"            tanh; relu by the attribute nonlinearity
    "after=True before=False by reset_after"   values as the framework writes them
    "tanh * !hard_sigmoid by activation"   anything, but one that the framework does not have
    "linear relu=torch.nn.ReLU * behind"   nothing of itself; another layer behind it (or "ahead" of it)
    "tanh elu(#)=keras.layers.ELU(#) * by activation"   an activation with a number, which stands for "#"
    "sigmoid=Sigmoid hard_sigmoid=HardSigmoid(activation_alpha=0.2) by activations[0]"
                                           an entry of a list, and what stands in further lists beside it
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from gatewise.core.spec import numbered

PLACED = ("by", "behind", "ahead")
"""How a value that a class does not have of itself is chosen: by an attribute, or by a layer behind or ahead of it."""


class Choice(NamedTuple):
    """What a class can compute in one option.

    Attributes:
        default: The value that it has unless it is told otherwise.
        natives: Value → how the framework writes it.
        free: Whether any other value is possible, too.
        refused: Values that are not, though others are.
        how: One of ``PLACED``, or nothing where there is no choice.
        attribute: The attribute by which it is chosen.
        places: The places in the list that the attribute is; none where it is no list.
        numbered: Activation that may have a number → how the framework writes it, ``#`` being the number.
    """

    default: Any
    natives: dict[Any, str]
    free: bool
    refused: tuple[str, ...]
    how: str
    attribute: str
    places: tuple[int, ...]
    numbered: dict[str, str]

    def allows(self, value: Any) -> bool:
        """Say whether the class can compute a value.

        >>> [choice("tanh * !hard_sigmoid by activation").allows(name) for name in ("relu", "hard_sigmoid")]
        [True, False]
        """
        if value == self.default or value in self.natives:
            return True
        return self.free and (numbered(value)[0] if isinstance(value, str) else value) not in self.refused

    def native(self, value: Any) -> Any:
        """Return a value as the framework writes it.

        >>> choice("after=True before=False by reset_after").native("before")
        False
        >>> choice("linear elu(#)=torch.nn.ELU(#) * behind").native("elu(0.5)")
        'torch.nn.ELU(0.5)'
        """
        name, number = numbered(value) if isinstance(value, str) else ("", None)
        if number is not None and name in self.numbered:
            return self.numbered[name].replace("#", f"{number:g}")
        text = self.natives.get(value)
        return value if text is None else literal(text)

    def others(self) -> str:
        """Say what the class can compute, in words."""
        return " or ".join(map(str, self.natives)) if not self.free else f"not {' or '.join(self.refused)}"


def literal(text: str) -> Any:
    """Return the number, the flag or the text that a word stands for.

    >>> literal("0.5"), literal("1"), literal("None"), literal("relu")
    (0.5, 1, None, 'relu')
    """
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@functools.cache
def choice(row: str) -> Choice:
    """Read one row of ``Layout.computes``.

    >>> choice("tanh relu by nonlinearity").attribute
    'nonlinearity'
    """
    words, how, attribute = row.split(), "", ""
    if words[-1] in PLACED:
        how = words.pop()
    elif len(words) > 2 and words[-2] in PLACED:
        attribute, how = words.pop(), words.pop()
    attribute, _, places = attribute.partition("[")
    natives: dict[Any, str] = {}
    templates: dict[str, str] = {}
    for word in words:
        value, _, native = word.partition("=")
        if value.endswith("(#)"):
            templates[value.removesuffix("(#)")] = native
        elif value != "*" and not value.startswith("!"):
            natives.setdefault(literal(value), native or value)
    refused = tuple(word[1:] for word in words if word.startswith("!"))
    numbers = tuple(int(place) for place in places.rstrip("]").split(",") if place)
    return Choice(next(iter(natives), None), natives, "*" in words, refused, how, attribute, numbers, templates)
