"""For learners: a cell's equations in a notation they know, one constructor argument at a time, and how counts grow.

An equation is written once a cell and notation. Its symbols are canonical blocks, so the tensor, shape and slice of
each come from a layout by the planner, as in a port.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gatewise.core.count import count, letters, numbers
from gatewise.core.layout import CANONICAL, GATES, Layout, gaps, store, summed_gates, wanted_parts
from gatewise.core.plan import Row, plan
from gatewise.core.spec import Recurrent, Spec
from gatewise.errors import SpecError, nearest

# ── notations ───────────────────────────────────────────────────────────────────────────────────────────────────


class Notation(NamedTuple):
    """One way to write a cell; ``{g}`` in a symbol is the gate's letter.

    Attributes:
        title: What it is, for people.
        home: The framework whose tensors it was made for; empty for none.
        letters: Cell → gate → its letter here, in the order the gates are listed.
        candidates: Gates that are written as a vector with a sign of its own, such as C̃.
        memory: The letter of the memory.
        times: The sign for a product element by element.
        columns: Whether vectors are columns, ``W x``; else they are rows, ``x @ W``.
        joint: Whether state and input are concatenated: one matrix a gate in place of two.
        kernel, recurrent_kernel, bias, recurrent_bias, peephole: The symbols of the weights.
    """

    title: str
    home: str
    letters: Mapping[str, Mapping[str, str]]
    candidates: Mapping[str, str]
    memory: str
    times: str
    columns: bool
    joint: bool
    kernel: str
    recurrent_kernel: str
    bias: str
    recurrent_bias: str
    peephole: str = "p_{g}"
    projection: str = "W_p"


NOTATIONS = {
    "blog": Notation(
        "the notation of the well-known blog: state and input side by side, [h, x]",
        "",
        {
            "lstm": {"f": "f", "i": "i", "g": "C", "o": "o"},
            "gru": {"z": "z", "r": "r", "n": "h"},
            "rnn": {"h": "h"},
        },
        {"C": "C̃", "h": "h̃"},
        "C",
        "*",
        columns=True,
        joint=True,
        kernel="W_{g}",
        recurrent_kernel="U_{g}",
        bias="b_{g}",
        recurrent_bias="d_{g}",
    ),
    "keras": Notation(
        "the notation of Keras: rows times matrices, x @ W",
        "keras",
        {
            "lstm": {"i": "i", "f": "f", "g": "c", "o": "o"},
            "gru": {"z": "z", "r": "r", "n": "h"},
            "rnn": {"h": "h"},
        },
        {"c": "c̃", "h": "h̃"},
        "c",
        "*",
        columns=False,
        joint=False,
        kernel="W_{g}",
        recurrent_kernel="U_{g}",
        bias="b_{g}",
        recurrent_bias="d_{g}",
    ),
    "torch": Notation(
        "the notation of PyTorch: one matrix and one bias for the input, one of each for the state",
        "torch",
        {
            "lstm": {"i": "i", "f": "f", "g": "g", "o": "o"},
            "gru": {"r": "r", "z": "z", "n": "n"},
            "rnn": {"h": "h"},
        },
        {},
        "c",
        "⊙",
        columns=True,
        joint=False,
        kernel="W_i{g}",
        recurrent_kernel="W_h{g}",
        bias="b_i{g}",
        recurrent_bias="b_h{g}",
        projection="W_hr",
    ),
}
"""The notations by name."""

_ROLES = {
    "lstm": {
        "i": "input gate: how much of the candidate is written",
        "f": "forget gate: how much of the old memory stays",
        "g": "candidate: what could be written into the memory",
        "o": "output gate: how much of the memory is shown",
        "memory": "memory: a share of the old one, and a share of the candidate",
        "state": "state, and output: what the memory shows",
    },
    "gru": {
        "r": "reset gate: how much of the old state the candidate sees",
        "z": "update gate: how much of the old state stays",
        "n": "candidate: what could become the new state",
        "state": "state, and output: a share of the old one, and a share of the candidate",
    },
    "rnn": {"state": "state, and output"},
}
"""What each line computes, in words."""


class Line(NamedTuple):
    """One equation, and what it computes in words."""

    text: str
    words: str

    @property
    def latex(self) -> str:
        r"""Return the equation as LaTeX, to stand between dollars.

        >>> print(Line("f_t = σ(W_f·[h_{t-1}, x_t] + b_f)", "").latex)
        f_{t} = \sigma(W_{f} \cdot [h_{t-1}, x_{t}] + b_{f})
        """
        return to_latex(self.text)


class Symbol(NamedTuple):
    """One symbol of the equations.

    Attributes:
        symbol: As it stands there.
        words: What it is.
        shape: Its shape.
        letters: The same in letters.
        places: Layout → the slice of its tensors; empty where it stores no such thing.
    """

    symbol: str
    words: str
    shape: tuple[int, ...]
    letters: tuple[str, ...]
    places: Mapping[str, str]

    @property
    def latex(self) -> str:
        """Return the symbol as LaTeX."""
        return to_latex(self.symbol)


@dataclass(frozen=True)
class Equations:
    """A cell in a notation.

    Attributes:
        spec: The layer.
        notation: What notation it is, in words.
        lines: The equations of one timestep, in the order they are computed.
        symbols: Every symbol, with its shape and where each layout keeps it.
        notes: What to know beside them.
    """

    spec: Spec
    notation: str
    lines: tuple[Line, ...]
    symbols: tuple[Symbol, ...]
    notes: tuple[str, ...]

    @property
    def latex(self) -> str:
        """Return all equations as one LaTeX block."""
        body = " \\\\\n".join("  " + line.latex.replace(" = ", " &= ", 1) for line in self.lines)
        return f"\\begin{{align*}}\n{body}\n\\end{{align*}}"

    def __str__(self) -> str:
        return "\n".join(line.text for line in self.lines)

    def _repr_markdown_(self) -> str:
        from gatewise.report.teaching import teaching

        return teaching(self, "github")

    def _repr_html_(self) -> str:
        from gatewise.report.teaching import teaching

        return teaching(self, "html")


_LATEX = [
    ("(\\w)\u0303_(\\{[^}]*\\}|\\w+)", r"\\tilde{\1}_\2"),
    (r"(?<!\\)_(\w+)", r"_{\1}"),
    ("σ", r"\\sigma"),
    (" [*⊙] ", r" \\odot "),
    ("·", r" \\cdot "),
    (" @ ", r"\\, "),
]


def to_latex(text: str) -> str:
    r"""Turn a plain equation into LaTeX.

    >>> print(to_latex("C_t = f_t * C_{t-1} + i_t * hard_sigmoid(a_t)"))
    C_{t} = f_{t} \odot C_{t-1} + i_{t} \odot \operatorname{hard\_sigmoid}(a_{t})
    """
    # Functions first: an underscore in a function's name is no subscript.
    text = re.sub(r"\b([a-z][a-z0-9_]*)\(", lambda match: _latex_function(match.group(1)) + "(", text)
    for pattern, replacement in _LATEX:
        text = re.sub(pattern, replacement, text)
    return text


def _latex_function(name: str) -> str:
    return r"\tanh" if name == "tanh" else rf"\operatorname{{{name}}}".replace("_", r"\_")


# ── equations ───────────────────────────────────────────────────────────────────────────────────────────────────


def equations(spec: Spec, notation: str = "blog", layouts: Sequence[Layout] = ()) -> Equations:
    """Write one timestep of a layer, with every symbol's tensor, shape and slice.

    Args:
        spec: The layer.
        notation: ``"blog"``, ``"keras"`` or ``"torch"``.
        layouts: Where to look the symbols up. The first says which biases there are, except in the blog's notation,
            which adds up those that a gate sees only as a sum.

    Raises:
        SpecError: No notation has this name, or the layer has no equations.

    >>> from gatewise.core.spec import LSTM
    >>> from gatewise.registry import layout
    >>> spec = LSTM(features=3, units=2)
    >>> written = equations(spec, "blog", [layout("keras", spec)])
    >>> print(written)
    f_t = σ(W_f·[h_{t-1}, x_t] + b_f)
    i_t = σ(W_i·[h_{t-1}, x_t] + b_i)
    C̃_t = tanh(W_C·[h_{t-1}, x_t] + b_C)
    C_t = f_t * C_{t-1} + i_t * C̃_t
    o_t = σ(W_o·[h_{t-1}, x_t] + b_o)
    h_t = o_t * tanh(C_t)
    >>> [(symbol.places["keras:LSTM"]) for symbol in written.symbols if symbol.symbol == "b_f"]
    ['bias[2:4]']
    """
    if notation not in NOTATIONS:
        raise SpecError(
            f"No notation is called {notation!r}.",
            f"Known: {', '.join(NOTATIONS)}.",
            nearest(notation, NOTATIONS) + "Use one of these; with --format latex it is written in LaTeX.",
        )
    if not isinstance(spec, Recurrent):
        raise SpecError(
            f"{type(spec).__name__} has no equations here.",
            "Equations are written for LSTM, GRU and RNN.",
            "Give one of these.",
        )
    return _Writer(spec, NOTATIONS[notation], layouts).write()


class _Writer:
    """Writes the equations of one layer in one notation."""

    def __init__(self, spec: Recurrent, notation: Notation, layouts: Sequence[Layout]) -> None:
        self.spec, self.notation, self.layouts = spec, notation, list(dict.fromkeys(layouts))
        self.options = spec.options()
        self.gates = notation.letters[spec.cell]
        self.wanted = wanted_parts(spec)
        if notation.joint or not self.layouts:
            self.second = set(self.gates) - set(summed_gates(spec)) if "recurrent_bias" in self.wanted else set()
        else:
            slots = store(self.layouts[0], spec).slots
            self.second = {key.gate for key in slots if key.part == "recurrent_bias"}

    def symbol(self, part: str, gate: str) -> str:
        pattern = str(getattr(self.notation, "peephole" if part == "peephole_kernel" else part))
        if part == "peephole_kernel":
            pattern = pattern.replace("p_", "P_")
        return pattern.replace("{g}", self.gates.get(gate, gate))

    def vector(self, gate: str) -> str:
        letter = self.gates[gate]
        return f"{self.notation.candidates.get(letter, letter)}_t"

    def function(self, option: str) -> str:
        name = str(self.options[option])
        return "σ" if name == "sigmoid" else name

    def times(self, matrix: str, vector: str) -> str:
        """Write the product of a matrix and a vector."""
        if self.notation.columns:
            return f"{matrix}·{vector}" if vector.startswith("[") else f"{matrix} {vector}"
        return f"{vector} @ {matrix}"

    def reset_after(self, gate: str) -> bool:
        """Say whether the reset gate stands between the recurrent product of a gate and the gate."""
        return self.spec.cell == "gru" and gate == "n" and self.options["reset"] == "after"

    def joined(self, gate: str) -> bool:
        """Say whether one matrix does the work of kernel and recurrent kernel for a gate."""
        return self.notation.joint and not self.reset_after(gate)

    def state_read(self, gate: str) -> str:
        if self.spec.cell == "gru" and gate == "n" and self.options["reset"] == "before":
            return f"({self.vector('r')} {self.notation.times} h_{{t-1}})"
        return "h_{t-1}"

    def inside(self, gate: str) -> str:
        """Write what stands inside a gate's activation."""
        state, product = self.state_read(gate), self.notation.times
        bias = [self.symbol("bias", gate)] if "bias" in self.wanted else []
        second = [self.symbol("recurrent_bias", gate)] if gate in self.second else []
        if self.joined(gate):
            state = state.strip("()")
            terms = [self.times(self.symbol("kernel", gate), f"[{state}, x_t]"), *bias, *second]
        else:
            left = [self.times(self.symbol("kernel", gate), "x_t"), *bias]
            right = [self.times(self.symbol("recurrent_kernel", gate), state), *second]
            if self.reset_after(gate):
                inner = " + ".join(right)
                right = [f"{self.vector('r')} {product} ({inner})"]
            if self.notation.columns:
                terms = left + right
            else:  # Both products first, as in Keras: x @ W + h @ U + b.
                terms = [left[0], *right, *bias]
        memory = f"{self.notation.memory}_t" if gate == "o" else f"{self.notation.memory}_{{t-1}}"
        if "peephole" in self.wanted and gate in "ifo":
            terms.append(f"{self.symbol('peephole', gate)} {product} {memory}")
        if "peephole_kernel" in self.wanted and gate in "ifo":
            terms.append(self.times(self.symbol("peephole_kernel", gate), memory))
        return " + ".join(terms)

    def gate_line(self, gate: str) -> Line:
        option = "activation" if gate in ("g", "n", "h") else "recurrent_activation"
        return Line(f"{self.vector(gate)} = {self.function(option)}({self.inside(gate)})", _ROLES[self.spec.cell][gate])

    def lines(self) -> Iterator[Line]:
        roles, product, act = _ROLES[self.spec.cell], self.notation.times, self.function("activation")
        if self.spec.cell == "rnn":
            yield Line(f"h_t = {act}({self.inside('h')})", roles["state"])
        elif self.spec.cell == "gru":
            yield from (self.gate_line(gate) for gate in sorted(self.gates, key=lambda gate: gate == "n"))
            z, n = self.vector("z"), self.vector("n")
            yield Line(f"h_t = {z} {product} h_{{t-1}} + (1 - {z}) {product} {n}", roles["state"])
        else:
            memory = self.notation.memory
            yield from (self.gate_line(gate) for gate in self.gates if gate != "o")
            new = f"{self.vector('f')} {product} {memory}_{{t-1}} + {self.vector('i')} {product} {self.vector('g')}"
            bound = self.options["cell_clip"]
            yield Line(f"{memory}_t = {f'clip({new}, {bound})' if bound else new}", roles["memory"])
            yield self.gate_line("o")
            shown = f"{self.vector('o')} {product} {act}({memory}_t)"
            if self.options["projection"] is not None:
                shown = self.times(self.notation.projection, f"({shown})")
            yield Line(f"h_t = {shown}", roles["state"])

    # ── where each symbol lies ──

    def places(self, parts: Iterable[str], gate: str, turn: bool) -> dict[str, str]:
        """Return layout → slices of some parts of a gate, joined by the words for how they belong together."""
        found = {}
        for layout in self.layouts:
            rows = {(row.part, row.gate): row for row in _rows(self.spec, layout)}
            texts = [_text(rows.get((part, gate)), turn) for part in parts]
            glue = " + " if "bias" in parts else " beside "
            found[layout.name] = glue.join(text for text in texts if text)
        return found

    def symbols(self) -> Iterator[Symbol]:
        spec, notation = self.spec, self.notation
        units, state, inputs = (letters(spec, axis, 0) for axis in ("units", "state", "features"))
        sizes = {units: spec.units, state: spec.state, inputs: spec.features}

        def made(symbol: str, words: str, shape: tuple[str, ...], places: dict[str, str]) -> Symbol:
            numbers = tuple(sum(sizes[letter] for letter in length.split(" + ")) for length in shape)
            return Symbol(symbol, words, numbers, shape, places)

        def matrix(rows: str, columns: str) -> tuple[str, ...]:
            return (rows, columns) if notation.columns else (columns, rows)

        def turned(part: str) -> bool:
            # The planner's rows say what is transposed on the way to (units, features); a row notation wants the other.
            return not notation.columns and part not in ("bias", "recurrent_bias", "peephole")

        yield made("x_t", "input at this timestep", (inputs,), {})
        yield made("h_{t-1}", "state of the timestep before", (state,), {})
        if spec.cell == "lstm":
            yield made(f"{notation.memory}_{{t-1}}", "memory of the timestep before", (units,), {})
        for gate in self.gates:
            who = f"{_ROLES[spec.cell][gate].partition(':')[0]}: " if gate in _ROLES[spec.cell] else ""
            if self.joined(gate):
                places = self.places(("recurrent_kernel", "kernel"), gate, False)
                words = f"{who}recurrent kernel and kernel side by side"
                yield made(self.symbol("kernel", gate), words, (units, f"{state} + {inputs}"), places)
            else:
                for part, width in (("kernel", inputs), ("recurrent_kernel", state)):
                    places = self.places((part,), gate, turned(part))
                    yield made(self.symbol(part, gate), who + part.replace("_", " "), matrix(units, width), places)
            if "bias" in self.wanted:
                # A gate that sees its two biases as a sum has one symbol for both here.
                both = ("bias", "recurrent_bias") if gate not in self.second else ("bias",)
                yield made(self.symbol("bias", gate), f"{who}bias", (units,), self.places(both, gate, False))
            if gate in self.second:
                places = self.places(("recurrent_bias",), gate, False)
                yield made(self.symbol("recurrent_bias", gate), f"{who}recurrent bias", (units,), places)
            for part, shape in (("peephole", (units,)), ("peephole_kernel", matrix(units, units))):
                if part in self.wanted and gate in "ifo":
                    places = self.places((part,), gate, turned(part))
                    yield made(self.symbol(part, gate), f"{who}peephole", shape, places)
        if "projection" in self.wanted:
            places = self.places(("projection",), "", turned("projection"))
            yield made(notation.projection, "projection", matrix(state, units), places)

    def notes(self) -> Iterator[str]:
        spec, notation = self.spec, self.notation
        written = " ".join(line.text for line in self.lines())
        if "σ" in written:
            yield "σ is the sigmoid."
        if f" {notation.times} " in written:
            yield f"{notation.times} multiplies element by element."
        if any(self.joined(gate) for gate in self.gates):
            yield "[h, x] is the state and the input concatenated, so one matrix reads both."
        if notation.joint and spec.cell == "gru":
            yield (
                "Here z is the share of the old state, as Keras and PyTorch have it. In the blog it is the share of "
                "the new one."
            )
            if self.options["reset"] == "after":
                yield "The blog resets the state before the product. This layer resets after it (reset='after')."
        if spec.cell == "lstm" and not self.options["peepholes"]:
            yield "There are no peepholes: the gates do not see the memory."
        if any(text.endswith(".T") or ".T " in text for symbol in self.symbols() for text in symbol.places.values()):
            yield ".T is the transpose."
        if spec.layers > 1 or spec.bidirectional:
            yield "Slices are those of the first layer, forward. The others have the same equations, and own tensors."
        for layout in self.layouts:
            for gap in gaps(layout, spec):
                yield f"{layout} does not support {gap.option}={gap.value!r}. {gap.why}"
        for layout in self.layouts:
            for gate, constant in layout.adds.items():
                yield f"{layout} adds {constant:g} to the gate {self.gates.get(gate, gate)} whenever it runs."

    def write(self) -> Equations:
        return Equations(
            self.spec, self.notation.title, tuple(self.lines()), tuple(self.symbols()), tuple(self.notes())
        )


def _rows(spec: Spec, layout: Layout) -> list[Row]:
    """Return where each canonical block of the first layer and direction lies in a layout."""
    found = plan(spec, layout, CANONICAL[spec.cell])
    return [row for row in found.rows() if (row.layer, row.direction) == (0, 0)] if found.moves else []


def _text(row: Row | None, turn: bool) -> str:
    if row is None or row.rule.startswith("fill"):
        constant = row.rule.rpartition(" ")[2] if row else "0"
        return constant if constant != "0" else ""
    return row.source + (".T" if row.transposed != turn else "")


# ── growth ──────────────────────────────────────────────────────────────────────────────────────────────────────

MOST_STEPS = 1000
"""A growth table has at most so many rows."""

CONTEXT = ("timesteps", "batch")
"""Sizes that are no part of a layer, and that change no count."""


@dataclass(frozen=True)
class Growth:
    """How counts grow with one size.

    Attributes:
        spec: The layer, at any size.
        size: The size that varies.
        names: Who counts.
        rows: (value, one count for each name), in order.
        notes: How it grows, in words.
    """

    spec: Spec
    size: str
    names: tuple[str, ...]
    rows: tuple[tuple[int, tuple[int, ...]], ...]
    notes: tuple[str, ...]

    def _repr_markdown_(self) -> str:
        from gatewise.report.tables import render
        from gatewise.report.teaching import growing

        return render(growing(self), "github")

    def _repr_html_(self) -> str:
        from gatewise.report.tables import render
        from gatewise.report.teaching import growing

        return render(growing(self), "html")


def vary(spec: Spec, text: str, lookups: Mapping[str, Callable[[Spec], Layout]]) -> Growth:
    """Count a layer at several sizes.

    Args:
        spec: The layer; the size that varies may be anything in it.
        text: ``"units=32:512:32"`` (first, last, step), ``"features=1:8"`` or ``"units=32,64,128"``.
        lookups: Name → what gives the layout of a spec.

    Raises:
        SpecError: The text cannot be read, or the layer has no such size.

    >>> from gatewise.core.spec import LSTM
    >>> vary(LSTM(3, 1), "units=10:30:10", {"mine": lambda spec: CANONICAL[spec.cell]}).rows
    ((10, (600,)), (20, (2000,)), (30, (4200,)))
    """
    size, values = read_range(spec, text)
    specs = [spec if size in CONTEXT else spec.replace(**{size: value}) for value in values]
    rows = tuple(
        (value, tuple(count(each, lookup(each)).total for lookup in lookups.values()))
        for value, each in zip(values, specs, strict=True)
    )
    return Growth(spec, size, tuple(lookups), rows, tuple(_growth_notes(spec, size, rows)))


def read_range(spec: Spec, text: str) -> tuple[str, list[int]]:
    """Read which size varies, and its values; the last one is included.

    >>> from gatewise.core.spec import LSTM
    >>> read_range(LSTM(3, 50), "units=32:128:32")
    ('units', [32, 64, 96, 128])
    """
    known = [name for name in numbers(spec) if name != "directions"] + list(CONTEXT)
    name, sign, written = (part.strip() for part in text.partition("="))
    example = "Write units=32:512:32 (first, last, step) or units=32,64,128."
    if name not in known:
        raise SpecError(
            f"Cannot vary {text!r}.",
            f"{type(spec).__name__}: what can vary is {', '.join(known)}.",
            nearest(name, known) + example,
        )
    if not sign or not written:
        raise SpecError(f"{text!r} has no values.", f"The values of {name} are missing.", example)
    if not re.fullmatch(r"[\d_]+(:[\d_]+){1,2}|[\d_]+(,[\d_]+)*", written):
        raise SpecError(f"Cannot read the values {written!r}.", f"Values of {name}.", example)
    parts = [int(each) for each in re.split("[:,]", written)]
    values: Sequence[int] = parts
    if ":" in written:
        first, last, step = parts if len(parts) == 3 else (*parts, 1)
        if step < 1 or last < first:
            raise SpecError(f"{written!r} has no values.", f"Values of {name}: first, last and step.", example)
        values = range(first, last + 1, step)
    if len(values) > MOST_STEPS or min(values) < 1:
        raise SpecError(
            f"{written!r} is {len(values):,} values from {min(values)}.",
            f"A growth table has at most {MOST_STEPS:,} rows, and sizes start at 1.",
            "Take a larger step.",
        )
    return name, list(values)


def _growth_notes(spec: Spec, size: str, rows: Sequence[tuple[int, tuple[int, ...]]]) -> Iterator[str]:
    if size in CONTEXT:
        yield f"The count stays the same: the same weights serve every {'step' if size == 'timesteps' else 'sample'}."
    elif size == "features" and isinstance(spec, Recurrent):
        each = len(GATES[spec.cell]) * spec.units * spec.directions
        yield f"Each feature more adds one weight for each unit of each gate: {each:,}."
    elif size == "units" and isinstance(spec, Recurrent):
        yield "Units enter squared, because each reads the state of all: twice the units, up to four times the count."
        counted = {value: counts[0] for value, counts in rows}
        for value in counted:
            if 2 * value in counted:
                times = counted[2 * value] / counted[value]
                yield f"From {value:,} units to {2 * value:,}, the count grows {times:.2f} times."
                break


# ── one argument at a time ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Option:
    """One argument of a layer's constructor.

    Attributes:
        name: What its owner calls it.
        default: Its default.
        what: What it is.
        count: What it does to the number of parameters.
        outputs: What it does to what comes out.
        training: What it does to training.
        counterpart: What the other framework has in its place, and what to do where it has nothing.
        owner: Whose argument it is: Keras's, or PyTorch's where only that has it.
    """

    name: str
    default: str
    what: str
    count: str
    outputs: str
    training: str
    counterpart: str
    owner: str = "Keras"

    @property
    def other(self) -> str:
        """The framework that the counterpart belongs to."""
        return "PyTorch" if self.owner == "Keras" else "Keras"

    def _repr_markdown_(self) -> str:
        from gatewise.report.tables import render
        from gatewise.report.teaching import optional

        return render(optional(self, "github"), "github")

    def _repr_html_(self) -> str:
        from gatewise.report.tables import render
        from gatewise.report.teaching import optional

        return render(optional(self, "html"), "html")


_NONE = "No change."
_START = "The place where training starts. The outputs before training follow from it."
_PENALTY = "Adds a penalty to the loss, which pulls {what} towards zero."
_LIMIT = "After every update, {what} is pushed back to where the rule allows it."
_BY_HAND = (
    "No argument. Add the penalty to the loss by hand. For an L2 penalty of 0.01 with plain SGD, weight_decay=0.02 "
    "does the same."
)
_AFTER_STEP = "No argument. Change the tensor by hand after each optimizer.step(), under torch.no_grad()."
_OWN_LAYER = "gatewise's own layer for PyTorch, gatewise_torch.{kind}, has it as {argument}."

OPTIONS = {
    option.name: option
    for option in (
        Option(
            "units",
            "required",
            "How many units the layer has: the size of its state and of its output.",
            "The size that counts most. The recurrent kernel of an LSTM has 4·units·units parameters, so units enter "
            "squared.",
            "The last axis of the output has this length.",
            "More units can learn more. They take longer, and overfit sooner.",
            "hidden_size, the second argument. The first, input_size, is the features. Keras reads those off the first "
            "input.",
        ),
        Option(
            "activation",
            "tanh",
            "The function of the candidate, and of the memory on its way out.",
            _NONE,
            "With tanh they lie between -1 and 1. With relu they have no upper bound and can grow at every step.",
            "tanh has small slopes far from zero. relu has none below zero. On a GPU, Keras has its fast kernel for "
            "tanh only.",
            "nn.LSTM and nn.GRU have tanh only. nn.RNN has nonlinearity='tanh' or 'relu'. "
            + _OWN_LAYER.format(kind="LSTM", argument="activation='relu'"),
        ),
        Option(
            "recurrent_activation",
            "sigmoid",
            "The function of the gates.",
            _NONE,
            "A gate is a share between 0 and 1. Another function gives other outputs for the same weights.",
            "Old Keras had hard_sigmoid here, and that was once 0.2·x + 0.5 and is now x/6 + 0.5. Look at the config "
            "of an old file.",
            "Always sigmoid. " + _OWN_LAYER.format(kind="LSTM", argument="recurrent_activation"),
        ),
        Option(
            "use_bias",
            "True",
            "Whether the layer has a bias.",
            "Without it, an LSTM has 4·units fewer. A Keras GRU has 6·units fewer, or 3·units with reset_after=False.",
            "Without it, an input and a state of zeros give zeros.",
            "The forget gate cannot start open, because unit_forget_bias needs a bias.",
            "bias. With bias=True there are two vectors, so bias=False takes away 8·units. Without biases both "
            "frameworks count the same.",
        ),
        Option(
            "kernel_initializer",
            "glorot_uniform",
            "How the kernel, which reads the input, is drawn.",
            _NONE,
            _START,
            "A start that is too large or too small makes training slow.",
            "No argument. All tensors are drawn evenly between -1/√hidden_size and 1/√hidden_size. Use torch.nn.init "
            "on weight_ih_l0.",
        ),
        Option(
            "recurrent_initializer",
            "orthogonal",
            "How the recurrent kernel, which reads the state, is drawn.",
            _NONE,
            _START,
            "An orthogonal matrix keeps the length of the state over many steps.",
            "No argument; drawn evenly like all tensors. Use torch.nn.init.orthogonal_ on weight_hh_l0, transposed: "
            "Keras draws all gates as one matrix.",
        ),
        Option(
            "bias_initializer",
            "zeros",
            "How the bias is drawn.",
            _NONE,
            _START,
            "See unit_forget_bias: it sets the forget gate's part to ones.",
            "No argument; drawn evenly like all tensors. Use torch.nn.init.zeros_ on bias_ih_l0 and on bias_hh_l0.",
        ),
        Option(
            "unit_forget_bias",
            "True",
            "Whether the forget gate's bias starts at one.",
            _NONE,
            "At the start more of the memory stays. It is no constant: training changes it.",
            "The layer remembers from the first step on, so it learns long gaps sooner.",
            "No argument. Set bias_ih_l0[hidden_size:2*hidden_size] to 1 and the same part of bias_hh_l0 to 0: the "
            "gate adds the two.",
        ),
        Option(
            "kernel_regularizer",
            "None",
            "A penalty on the kernel.",
            _NONE,
            "No change by itself; training ends at other weights.",
            _PENALTY.format(what="the weights of the input"),
            _BY_HAND,
        ),
        Option(
            "recurrent_regularizer",
            "None",
            "A penalty on the recurrent kernel.",
            _NONE,
            "No change by itself; training ends at other weights.",
            _PENALTY.format(what="the weights of the state"),
            _BY_HAND,
        ),
        Option(
            "bias_regularizer",
            "None",
            "A penalty on the bias.",
            _NONE,
            "No change by itself; training ends at other weights.",
            _PENALTY.format(what="the bias"),
            "No argument. There are two biases. Put the penalty on their sum, which is what a gate sees.",
        ),
        Option(
            "activity_regularizer",
            "None",
            "A penalty on the outputs, not on weights.",
            _NONE,
            "No change by itself; training makes them smaller.",
            "Adds a penalty on what the layer gives, divided by the batch size, to the loss.",
            "No argument. Compute it from the output, divide by the batch size, and add it to the loss.",
        ),
        Option(
            "kernel_constraint",
            "None",
            "A rule that the kernel must keep, such as a largest length.",
            _NONE,
            "No change by itself; training ends at other weights.",
            _LIMIT.format(what="the kernel"),
            _AFTER_STEP,
        ),
        Option(
            "recurrent_constraint",
            "None",
            "A rule that the recurrent kernel must keep.",
            _NONE,
            "No change by itself; training ends at other weights.",
            _LIMIT.format(what="the recurrent kernel"),
            _AFTER_STEP,
        ),
        Option(
            "bias_constraint",
            "None",
            "A rule that the bias must keep.",
            _NONE,
            "No change by itself; training ends at other weights.",
            _LIMIT.format(what="the bias"),
            _AFTER_STEP + " There are two biases; their sum is what counts.",
        ),
        Option(
            "dropout",
            "0.0",
            "The share of the input that is set to zero in training.",
            _NONE,
            "No change in prediction. In training they are random.",
            "The same numbers are dropped at every step of a sequence. It makes overfitting harder.",
            "nn.LSTM has a dropout, too, but another one: it acts between stacked layers, never on the input, and "
            "drops anew at every step. " + _OWN_LAYER.format(kind="LSTM", argument="input_dropout"),
        ),
        Option(
            "recurrent_dropout",
            "0.0",
            "The share of the state that is set to zero in training.",
            _NONE,
            "No change in prediction. In training they are random.",
            "The same units are dropped at every step of a sequence. On a GPU it rules out Keras's fast kernel.",
            "No argument. " + _OWN_LAYER.format(kind="LSTM", argument="recurrent_dropout"),
        ),
        Option(
            "return_sequences",
            "False",
            "Whether the output of every step comes out, or only the last.",
            _NONE,
            "(batch, timesteps, units) if True, (batch, units) if False. A layer on top that reads a sequence needs "
            "True.",
            "The loss sees every step or only the last one.",
            "Always every step. For the last one take output[:, -1] (with batch_first=True) in a layer of one "
            "direction, or h_n[-1].",
        ),
        Option(
            "return_state",
            "False",
            "Whether the last state comes out, too.",
            _NONE,
            "An LSTM then gives three things: the output, the state h and the memory c. The last output equals h.",
            _NONE,
            "Always: output, (h_n, c_n). Both states have an axis for the layers in front.",
        ),
        Option(
            "go_backwards",
            "False",
            "Whether the sequence is read from its end.",
            _NONE,
            "With return_sequences they come in the order they were computed: the last input's first.",
            "The layer sees the future and not the past.",
            "No argument. Give torch.flip(x, [1]) (with batch_first=True). "
            + _OWN_LAYER.format(kind="LSTM", argument="go_backwards"),
        ),
        Option(
            "stateful",
            "False",
            "Whether the state of one batch is the start of the next.",
            _NONE,
            "They depend on the batches before, until reset_state() is called.",
            "Sample i of a batch must go on where sample i of the last one ended, so the batch size is fixed and "
            "nothing is shuffled. Gradients stop at the edge of a batch.",
            "Give the last (h, c) to the next call yourself, each with .detach(). "
            + _OWN_LAYER.format(kind="LSTM", argument="stateful"),
        ),
        Option(
            "time_major",
            "False",
            "Whether the time comes before the batch: (timesteps, batch, features). Keras 3 no longer has it.",
            _NONE,
            "The first two axes are exchanged, the numbers are the same.",
            _NONE,
            "batch_first, the other way round: time_major=True is batch_first=False, and that is the default.",
        ),
        Option(
            "unroll",
            "False",
            "Whether the loop over the steps is written out step by step.",
            _NONE,
            _NONE,
            "Short sequences run faster, long ones need more memory. The number of steps must be fixed.",
            "No argument, and none is needed: the weights are the same.",
        ),
        Option(
            "reset_after",
            "True",
            "For a GRU: whether the reset gate acts after the recurrent product, or before it.",
            "With True there is a second bias, 3·units more.",
            "Two functions. No weights make them the same.",
            "True is what the fast kernels compute.",
            "nn.GRU always resets after the product. " + _OWN_LAYER.format(kind="GRU", argument="reset='before'"),
        ),
        Option(
            "input_size",
            "required",
            "The size of the input, the features.",
            "The kernel of an LSTM has 4·units·features parameters.",
            _NONE,
            _NONE,
            "Keras has no such argument. It reads the size off the first input, and only then has weights.",
            "PyTorch",
        ),
        Option(
            "num_layers",
            "1",
            "How many layers are stacked.",
            "Each layer more reads the units of the one below: an LSTM grows by 8·units·units, and its biases.",
            "Those of the last layer. States have one row a layer.",
            "Deeper layers see longer patterns. Dropout between them is possible.",
            "In Keras, write one layer on top of another. All but the last need return_sequences=True.",
            "PyTorch",
        ),
        Option(
            "bidirectional",
            "False",
            "Whether a second copy reads the sequence from its end.",
            "Twice as many. What reads the layer sees twice the units.",
            "Both directions side by side: (…, 2·units).",
            "Each step sees past and future.",
            "In Keras, wrap the layer: Bidirectional(LSTM(units)).",
            "PyTorch",
        ),
        Option(
            "proj_size",
            "0",
            "The size to which an LSTM shrinks its output before it is fed back.",
            "The recurrent kernel becomes 4·units·proj_size, and a matrix of proj_size·units comes on top.",
            "The last axis has this length. The memory c keeps its units.",
            "Fewer weights for the same memory.",
            "Keras has none. It takes a cell of one's own.",
            "PyTorch",
        ),
    )
}
"""Every argument that is explained, by name."""

ALIASES = {
    "hidden_size": "units",
    "bias": "use_bias",
    "nonlinearity": "activation",
    "batch_first": "time_major",
    "reset": "reset_after",
    "projection": "proj_size",
    "layers": "num_layers",
    "features": "input_size",
}
"""Other names for the same thing, in PyTorch or here."""


def option(name: str) -> Option:
    """Explain one argument of a layer's constructor.

    Raises:
        SpecError: No argument has this name.

    >>> option("hidden_size").name
    'units'
    >>> option("unit_forget_bias").count
    'No change.'
    """
    wanted = ALIASES.get(name, name)
    if wanted not in OPTIONS:
        raise SpecError(
            f"No option is called {name!r}.",
            f"Known: {', '.join(OPTIONS)}.",
            nearest(name, [*OPTIONS, *ALIASES]) + "Use one of these.",
        )
    return OPTIONS[wanted]
