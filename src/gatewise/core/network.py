"""Networks: graphs of named layers, in words that belong to no framework."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gatewise.core.between import WEIGHTLESS, Input, Masking, Merge, Operation, Remask
from gatewise.core.record import Record
from gatewise.core.spec import KINDS, BatchNorm, Embedding, Recurrent, Spec, is_one_cell, outputs_of, unknown_option
from gatewise.core.spec import source_of as source_of  # what a reference means belongs to networks, too
from gatewise.core.tree import Tree, from_lists, is_tree_of
from gatewise.errors import SpecError, nearest

MOST_LAYERS = 3_000
"""Layers that the description of a network in a file may have."""

MOST_AXES = 8
"""Further time axes on whose steps a layer in a file may run."""

LEFT_STATES = "the states that it kept are left behind; a port begins with zeros, as after reset_state()."
"""What a port says of a stateful layer that has run."""


class Rule(NamedTuple):
    """What acts in training alone: a penalty on a weight or on what a layer gives, or a projection after each step.

    Attributes:
        kind: ``"penalty"`` (a regulariser, added to the loss), ``"projection"`` (a constraint), or ``"activity"`` (a
            penalty on all that a layer gives, over the size of the batch).
        weight: The weight, by Keras's name for it: ``kernel``, ``recurrent_kernel``, ``bias`` or ``embeddings``; or
            ``output``, ``output:1`` for the second of several alone.
        name: What it is, by Keras's name: ``L1L2``, ``OrthogonalRegularizer``, ``MaxNorm`` …
        settings: Its arguments, sorted by name.
    """

    kind: str
    weight: str
    name: str
    settings: tuple[tuple[str, Any], ...] = ()


class Layer(Record):
    """One node of a network.

    Attributes:
        name: Its name in the network.
        spec: What it computes.
        inputs: What it reads: the name of a layer for its first output, ``name:1`` for its second, and so on. A
            recurrent layer may read its first states behind the sequence, in the order of its own states.
        trainable: Whether training changes its weights.
        distributed: On how many more time axes it runs, on each step as it would alone, with masks and first states.
            A mask of these axes alone goes on from it as it came; first states without them are the same on each step.
        rules: What acts on its weights in training alone.
        step: Whether it is a bare cell, which runs one step and reads no time axis.
        masked: Whether it follows a mask that comes to it. Keras's recurrent layers do not where they read first states
            and are not given the mask by hand, nor does the product of two such directions; the mask goes on from them
            all the same.
        shares: The layer before it whose weights it has, where one layer is used several times, or one cell by several
            layers, which may run it otherwise; else empty.
        resumes: The first use of the layer, where one that keeps something is used several times: it goes on from the
            states, or in training from the moving statistics, that the use before it left, in the order of the network;
            on more time axes, where both uses are in front of one ``Remask``, step by step. Else empty.
        mask: The mask that it is given by hand, as a reference, true where a step counts; else empty. It goes on from
            the layer as any other.
    """

    name: str
    spec: Spec
    inputs: tuple[str, ...] = ()
    trainable: bool = True
    distributed: int = 0
    rules: tuple[Rule, ...] = ()
    step: bool = False
    masked: bool = True
    shares: str = ""
    mask: str = ""
    resumes: str = ""

    @property
    def owner(self) -> str:
        """The layer that has its weights: itself, unless it shares another's."""
        return self.shares or self.name

    @property
    def keeper(self) -> str:
        """The layer that keeps its states: itself, unless it goes on from another's."""
        return self.resumes or self.name

    @property
    def axis(self) -> int:
        """Where the time axis is of what it reads, or the one along which it lays that end to end."""
        own = self.spec.axis if isinstance(self.spec, Merge) else 1
        return own if own < 0 else own + self.distributed

    @property
    def masked_by(self) -> tuple[str, ...]:
        """The references of those inputs whose masks come to it."""
        if isinstance(self.spec, Merge):
            return self.inputs
        return self.inputs[1:2] if isinstance(self.spec, Remask) else self.inputs[:1]

    @property
    def keeps(self) -> bool:
        """Whether a use leaves something for the next: states, or in training moving statistics."""
        return bool(self.spec.options().get("stateful")) or isinstance(self.spec, BatchNorm)

    def passes_mask(self, above: bool) -> bool:
        """Say whether a mask may go on from it, where one comes to it or not (``above``)."""
        starts = isinstance(self.spec, Masking) or (isinstance(self.spec, Embedding) and self.spec.mask_zero)
        ends = self.spec.ends_mask or (isinstance(self.spec, Recurrent) and not self.spec.return_sequences)
        ends = ends and not self.distributed  # on more axes, a mask of these goes on
        return starts or (above and not ends and not isinstance(self.spec, Operation))


def _rule(kind: Any, weight: Any, name: Any, settings: Any) -> Rule:
    """Read a rule that was written as plain data; a list in it was a tuple."""
    pairs = ((key, _plain(value, key)) for key, value in _of(settings, dict, "settings").items())
    for word in (kind, weight, name):
        _of(word, str, "a rule")
    return Rule(kind, weight, name, tuple(sorted(pairs)))


class Network(Record):
    """A graph of named layers.

    Attributes:
        layers: The layers, each behind those it reads.
        outputs: What comes out, as references; all that the last layer gives where this is empty.
        takes: How it is called on its inputs, as a tree over them; None where by one, or by a list of them.
        gives: How it returns its results, as a tree over them; None where one, or a list of them.

    >>> from gatewise.core.spec import LSTM, Dense
    >>> network = Network.chain(LSTM(3, 50), Dense(50, 1))
    >>> [(layer.name, layer.inputs) for layer in network.layers]
    [('lstm', ()), ('dense', ('lstm',))]
    """

    layers: tuple[Layer, ...]
    outputs: tuple[str, ...] = ()
    takes: Tree | None = None
    gives: Tree | None = None

    def __post_init__(self) -> None:
        known: dict[str, Spec] = {}
        for layer in self.layers:
            if layer.name in known:
                raise SpecError(
                    f"Two layers are called {layer.name!r}.",
                    f"Network: {self._listed()}.",
                    "Give each a name of its own.",
                )
            reads = (*layer.inputs, layer.mask) if layer.mask else layer.inputs
            self._check_references(known, reads, f"Layer {layer.name!r}")
            if layer.shares and not (
                layer.shares in known and is_one_cell(known[layer.shares], layer.spec) and not self[layer.shares].shares
            ):
                raise SpecError(
                    f"Layer {layer.name!r} shares the weights of {layer.shares!r}, which is no such layer before it.",
                    f"Network: {self._listed()}.",
                    "Name the first layer that has these weights, and give both one cell.",
                )
            if layer.resumes and not (
                layer.keeps
                and known.get(layer.resumes) == layer.spec
                and self[layer.resumes].owner == layer.shares
                and not self[layer.resumes].resumes
            ):
                raise SpecError(
                    f"Layer {layer.name!r} goes on from {layer.resumes!r}, which is no use of it before this one.",
                    f"Network: {self._listed()}.",
                    "Name the first use of this layer, which is stateful or normalises batches, and share its weights.",
                )
            known[layer.name] = layer.spec
        self._check_references(known, self.outputs, "The network's output")
        for tree, count in ((self.takes, len(self.sources)), (self.gives, len(self.results))):
            if tree is not None and not is_tree_of(tree, count):
                raise SpecError(
                    f"{tree!r:.200} is not a tree of {count} values.",
                    "Network: takes is a tree over its inputs, gives one over its results, each value once.",
                    'Write ("list", 0, 1) or ("dict", ("a", 0), ("b", 1)), or leave it out.',
                )

    def _listed(self) -> str:
        return ", ".join(layer.name for layer in self.layers)

    def _check_references(self, known: dict[str, Spec], references: tuple[str, ...], who: str) -> None:
        for reference in references:
            name, number = source_of(reference)
            if name not in known or number >= len(outputs_of(known[name])):
                raise SpecError(
                    f"{who} reads {reference!r}, which is not there.",
                    f"Network: {self._listed()}; a layer reads layers listed before it.",
                    f"{nearest(name, known)}List each layer behind those it reads.",
                )

    @property
    def sources(self) -> tuple[Layer, ...]:
        """The inputs."""
        return tuple(layer for layer in self.layers if isinstance(layer.spec, Input))

    @property
    def results(self) -> tuple[str, ...]:
        """References of all that comes out."""
        if self.outputs or not self.layers:
            return self.outputs
        last = self.layers[-1]
        return (last.name, *(f"{last.name}:{number}" for number in range(1, len(outputs_of(last.spec)))))

    @property
    def weighted(self) -> tuple[Layer, ...]:
        """The layers that have weights of their own: of those that share some, the first."""
        return tuple(layer for layer in self.layers if layer.spec.cell and not layer.shares)

    @property
    def live(self) -> set[str]:
        """The layers that the results need, or that keep something from use to use."""
        wanted = {source_of(each)[0] for each in self.results}
        for layer in reversed(self.layers):
            if layer.name in wanted or layer.keeps or isinstance(layer.spec, Input):
                wanted |= {layer.name, *(source_of(each)[0] for each in (*layer.inputs, layer.mask) if each)}
        return wanted

    def within(self, end: str) -> tuple[Layer, ...]:
        """Return the layers of the model that ends in a ``Remask``, each behind those it reads."""
        exit_, entry = self[end].inputs
        found: list[Layer] = []
        wanted = {source_of(exit_)[0]}
        for layer in reversed(self.layers):
            if layer.name in wanted and layer.name != source_of(entry)[0]:
                found.append(layer)
                wanted |= {source_of(each)[0] for each in (*layer.inputs, layer.mask) if each}
        return tuple(reversed(found))

    @property
    def interleaved(self) -> dict[str, frozenset[str]]:
        """``Remask`` → the layers of its model, where the steps must be gone through one by one, each by all layers.

        In such a model a layer that keeps something is used several times, and goes on from use to use.
        """
        found = {}
        for end in self.layers:
            if isinstance(end.spec, Remask):
                model = self.within(end.name)
                names = frozenset(layer.name for layer in model)
                if any(layer.resumes in names for layer in model):
                    found[end.name] = names
        return found

    def __getitem__(self, name: str) -> Layer:
        """Return the layer of a name."""
        return next(layer for layer in self.layers if layer.name == name)

    @classmethod
    def chain(cls, *specs: Spec) -> Network:
        """Return the network in which each layer reads the first output of the one before.

        Args:
            specs: The layers. Without an ``Input`` in front any number of timesteps may come in.

        Returns:
            The network; names of layers are their kinds in small letters, numbered when repeated.

        Raises:
            SpecError: A layer cannot read what the one before gives; both are named.

        >>> from gatewise.core.spec import LSTM, Dense
        >>> Network.chain(LSTM(3, 50), Dense(60, 1))
        Traceback (most recent call last):
        gatewise.errors.SpecError: Layer 'dense' cannot read what 'lstm' gives, of shape (None, None, 50).
          LSTM(features=3, units=50) → Dense(features=60, units=1): It has features=60.
          Hint: Give it features=50, or feed 60.
        """
        from gatewise.core.shapes import check_chain

        layers: list[Layer] = []
        for spec in specs:
            kind = type(spec).__name__.lower()
            repeated = sum(type(layer.spec) is type(spec) for layer in layers)
            name = f"{kind}_{repeated}" if repeated else kind
            layers.append(Layer(name, spec, (layers[-1].name,) if layers else ()))
        check_chain(layers)
        return cls(tuple(layers))

    def to_dict(self) -> dict[str, Any]:
        """Return the network as plain data; ``from_dict`` reads it."""
        layers = [
            {
                "name": layer.name,
                "kind": type(layer.spec).__name__,
                "options": layer.spec.options(),
                "inputs": list(layer.inputs),
                "trainable": layer.trainable,
                "distributed": layer.distributed,
                "rules": [rule._asdict() | {"settings": dict(rule.settings)} for rule in layer.rules],
                "step": layer.step,
                "masked": layer.masked,
                "shares": layer.shares,
                "mask": layer.mask,
                "resumes": layer.resumes,
            }
            for layer in self.layers
        ]
        trees = {name: tree for name in ("takes", "gives") if (tree := getattr(self, name)) is not None}
        return {"layers": layers, "outputs": list(self.outputs)} | trees

    @classmethod
    def from_dict(cls, data: Any) -> Network:
        """Read what ``to_dict`` wrote.

        Raises:
            SpecError: It is not the description of a network.

        >>> from gatewise.core.between import Input
        >>> from gatewise.core.spec import LSTM
        >>> network = Network.chain(Input((None, 3)), LSTM(3, 50))
        >>> Network.from_dict(network.to_dict()) == network
        True
        """
        kinds = KINDS | WEIGHTLESS
        try:
            entries, outputs = _of(data, dict, "it")["layers"], data["outputs"]
            if not _of(entries, list, "layers"):
                raise ValueError("it has no layers")
            if len(entries) > MOST_LAYERS:
                raise ValueError(f"it has {len(entries):,} layers, and {MOST_LAYERS:,} are the most that are read")
            trees = (from_lists(data.get(name)) for name in ("takes", "gives"))
            return cls(tuple(_layer(entry, kinds) for entry in entries), _words(outputs, "outputs"), *trees)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            said = f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)
            raise SpecError(
                f"This is not the description of a network: {said}.",
                "Expected what Network.to_dict wrote: layers (name, kind, options, …) and outputs.",
                "Was the file written by another version, or by another tool?",
            ) from None


def _of(value: Any, kind: type, what: str) -> Any:
    """Return a value of plain data that is of one type, and of no other that would do for it."""
    if type(value) is not kind:
        raise ValueError(f"{what} is {value!r:.80}, which is no {kind.__name__}")
    return value


def _words(value: Any, what: str) -> tuple[str, ...]:
    return tuple(_of(each, str, what) for each in _of(value, list, what))


def _plain(value: Any, what: str) -> Any:
    """Return a value as it was before it was written as plain data, a tuple for a list."""
    if isinstance(value, list | tuple):
        return tuple(_plain(each, what) for each in value)
    if not (value is None or isinstance(value, str | int | float)) or (type(value) is int and abs(value) >= 1 << 63):
        raise ValueError(f"{what} is {value!r:.80}, which is no option of a layer")
    return value


def _layer(entry: Any, kinds: dict[str, type[Spec]]) -> Layer:
    """Read one layer that was written as plain data."""
    _of(entry, dict, "a layer")
    kind = kinds[_of(entry["kind"], str, "kind")]
    options = {name: _plain(value, name) for name, value in _of(entry["options"], dict, "options").items()}
    unknown = set(options) - set(kind.fields)
    if unknown:
        raise unknown_option(kind, min(unknown))
    endless = {"operands", "mask_value", "activation"}  # What these may be, numbers are, too.
    for name, value in options.items():
        if isinstance(value, float) and name not in endless and not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    distributed = _of(entry["distributed"], int, "distributed")
    if not 0 <= distributed <= MOST_AXES:
        raise ValueError(f"distributed is {distributed}")
    return Layer(
        _of(entry["name"], str, "name"),
        kind(**options),
        _words(entry["inputs"], "inputs"),
        _of(entry["trainable"], bool, "trainable"),
        distributed,
        tuple(_rule(**rule) for rule in _of(entry.get("rules", []), list, "rules")),
        _of(entry.get("step", False), bool, "step"),
        _of(entry.get("masked", True), bool, "masked"),
        *(_of(entry.get(name, ""), str, name) for name in ("shares", "mask", "resumes")),
    )
