"""What else has to be used or set, so that a framework computes what a layer is, beside having its weights.

Everything is read off ``Layout.computes``, ``instead``, ``supplied`` and ``since``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gatewise.core.choices import Choice, literal
from gatewise.core.layout import Layout, choices_of, gaps, lacking, store
from gatewise.core.spec import Spec

IN_TRAINING = ("dropout", "recurrent_dropout", "dropout_between", "dropout_masks")
"""Options that act in training alone."""


class Requirement(NamedTuple):
    """One thing that has to be used or set.

    Attributes:
        kind: ``"class"``, a class to use in place of the framework's own, or beside it; ``"attribute"``, one to set;
            ``"version"``, of a package.
        name: The class, attribute or package.
        value: What to set, as the framework writes it; of a version which, as in ``">=2.0"``; of a class None.
        why: What happens otherwise, in a sentence.
    """

    kind: str
    name: str
    value: Any
    why: str

    @property
    def text(self) -> str:
        """What is required, without why.

        >>> Requirement("attribute", "linear_before_reset", 1, "").text
        'linear_before_reset=1'
        """
        if self.kind == "attribute":
            return f"{self.name}={self.value!r}"
        return self.name if self.value is None else f"{self.name}{self.value}"

    def __str__(self) -> str:
        return f"{self.text}: {self.why}"


def requirements(layout: Layout, spec: Spec) -> tuple[Requirement, ...]:
    """Return what has to be used or set, so that a framework computes a layer whose weights lie in a layout.

    Args:
        layout: Where the weights lie; its class is the one that is meant.
        spec: The layer. The layout can hold it.

    >>> from gatewise.core.spec import RNN
    >>> mine = Layout("mine:RNN", cell="rnn", gates="h", computes={"activation": "tanh relu by nonlinearity"})
    >>> [each.text for each in requirements(mine, RNN(3, 5, activation="relu"))], requirements(mine, RNN(3, 5))
    (["nonlinearity='relu'"], ())
    """
    lacks = lacking(layout, spec)
    offered = next((other for other in layout.instead if lacks and _computes(other, layout, spec)), layout)
    found = []
    if offered.supplied or offered is not layout:
        words = [f"{option}={choice.others()}" for option, choice in lacks.items()]
        why = f"{layout} computes {' and '.join(words)} only."
        if not words:
            why = f"No class of {layout.framework}'s own computes it; this one comes with gatewise."
        found.append(Requirement("class", offered.supplied or str(offered), None, why))
    choices, options = choices_of(offered, spec), spec.options()
    chosen = {option: choice for option, choice in choices.items() if options[option] != choice.default}
    for option, choice in chosen.items():
        native, when = choice.native(options[option]), " in training" * (option in IN_TRAINING)
        if choice.how in ("behind", "ahead"):
            why = f"{offered} has no {option} of its own: this goes {choice.how.replace('ahead', 'in front')} of it."
            found.append(Requirement("class", str(native), None, why.replace("behind of", "behind")))
        elif choice.how and not choice.places:
            why = f"By default {option} is {choice.default}{when}."
            found.append(Requirement("attribute", choice.attribute, native, why))
    found += _lists(spec, choices, chosen)
    for option, (version, why) in offered.since.items():
        if options.get(option):
            found.append(Requirement("version", offered.framework, f">={version}", why))
    return tuple(found)


def _computes(other: Layout, layout: Layout, spec: Spec) -> bool:
    """Say whether another class computes a layer with the tensors that a layout has."""
    return (
        not lacking(other, spec) and not gaps(other, spec) and store(other, spec).shapes == store(layout, spec).shapes
    )


def _lists(spec: Spec, choices: dict[str, Choice], chosen: dict[str, Choice]) -> list[Requirement]:
    """Return the attributes that list functions, whole, where one of these is not the usual one."""
    wanted = {choice.attribute for choice in chosen.values() if choice.places}
    found = []
    for attribute in sorted(wanted):
        beside = {option: choice for option, choice in choices.items() if choice.attribute == attribute}
        entries: dict[int, str] = {}
        for option, choice in beside.items():
            entries |= dict.fromkeys(choice.places, str(choice.natives[spec.options()[option]]))
        listed = [entries[place] for place in sorted(entries)] * int(getattr(spec, "directions", 1))
        why = f"By default {' and '.join(f'{option} is {choice.default}' for option, choice in beside.items())}."
        found.append(Requirement("attribute", attribute, [each.partition("(")[0] for each in listed], why))
        further: dict[str, list[Any]] = {}
        for entry in listed:
            for pair in filter(None, entry.partition("(")[2].rstrip(")").split(",")):
                name, _, number = pair.partition("=")
                further.setdefault(name, []).append(literal(number))
        for name, numbers in further.items():
            why = f"The {name.rpartition('_')[2]} of these functions, in their order; some have another one by default."
            found.append(Requirement("attribute", name, numbers, why))
    return found
