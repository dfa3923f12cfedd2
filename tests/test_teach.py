"""Equations are evaluated as they are printed and compared with the reference cell; the rest is read for its facts."""

import itertools
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise import registry
from gatewise.arrays.initial import draw
from gatewise.arrays.reference import ACTIVATION_FUNCTIONS, run
from gatewise.cli import main
from gatewise.core.layout import CANONICAL
from gatewise.core.plan import plan
from gatewise.core.teach import ALIASES, NOTATIONS, OPTIONS, equations, option, read_range, vary

A8 = (
    "units activation recurrent_activation use_bias kernel_initializer recurrent_initializer bias_initializer "
    "unit_forget_bias kernel_regularizer recurrent_regularizer bias_regularizer activity_regularizer "
    "kernel_constraint recurrent_constraint bias_constraint dropout recurrent_dropout return_sequences return_state "
    "go_backwards stateful time_major unroll"
).split()

SPECS = [
    gw.LSTM(3, 5),
    gw.LSTM(3, 5, bias=False),
    gw.LSTM(3, 5, activation="relu", recurrent_activation="hard_sigmoid"),
    gw.LSTM(3, 5, projection=2),
    gw.LSTM(3, 5, peepholes=True),
    gw.LSTM(3, 5, peepholes="full", cell_clip=0.25),
    gw.GRU(3, 5),
    gw.GRU(3, 5, reset="before"),
    gw.GRU(3, 5, bias=False),
    gw.RNN(3, 5),
    gw.RNN(3, 5, bias=False, activation="softplus"),
    gw.LSTM(1, 1),
]


def weights_of(spec):
    rng = np.random.default_rng(3)
    return {name: rng.normal(size=array.shape) for name, array in draw(spec, 0, "keras").items()}


def python_of(equation):
    """Turn a printed equation into Python; products that are only written side by side become @."""
    text = equation.replace("\u0303", "_tilde").replace("{t-1}", "before").replace("σ", "sigmoid").replace("⊙", "*")
    text = re.sub(r"·\[(.*?), x_t\]", r" @ join(\1, x_t)", text)
    return re.sub(r"\b([WUP]_\w+) (?=[\w(])", r"\1 @ ", text)


def value_of(place, arrays, shape):
    """Evaluate a printed place such as ``kernel[:, 2:4].T beside weight[…]`` on a framework's own arrays."""
    known = "|".join(map(re.escape, sorted(arrays, key=len, reverse=True)))
    quoted = re.sub(rf"(?<!\w)({known})(?!\w)", lambda match: f"arrays[{match.group()!r}]", place)
    parts = [eval(part, {"arrays": arrays}) for part in quoted.split(" beside ")]
    if len(parts) == 1 and np.squeeze(parts[0]).shape == np.squeeze(np.empty(shape)).shape:
        return parts[0].reshape(shape)  # A slice of length 1 is printed as an index, which drops the axis.
    return np.concatenate([part.reshape(shape[0], -1) for part in parts], axis=-1)


def surroundings(notation, symbols, spec):
    """Return all that printed equations name, with a random state; that state; and the memory's letter."""
    rng = np.random.default_rng(4)
    names = {
        **ACTIVATION_FUNCTIONS,
        **symbols,
        "join": lambda *vectors: np.concatenate(vectors),
        "clip": lambda value, bound: np.clip(value, -bound, bound),
        "x_t": rng.normal(size=spec.features),
        "h_before": rng.normal(size=spec.state),
    }
    memory = NOTATIONS[notation].memory
    names[f"{memory}_before"] = rng.normal(size=spec.units)
    state = [names["h_before"][None, None]]
    if spec.cell == "lstm":
        state.append(names[f"{memory}_before"][None, None])
    return names, state, memory


def layouts_of(spec):
    """Return some layouts that can hold any weights of a layer."""
    layouts = [CANONICAL[spec.cell], *(registry.layout(name, spec) for name in ("keras", "torch", "haiku", "flax"))]
    plans = [plan(spec, CANONICAL[spec.cell], layout) for layout in layouts]
    return [there.target for there in plans if there.moves and not there.unless]


CASES = [(spec, layout) for spec in SPECS for layout in layouts_of(spec)]


def test_most_layers_are_held_by_some_framework():
    assert {str(layout).partition(":")[0] for _, layout in CASES} == {"canonical", "keras", "torch", "haiku", "flax"}
    assert len(CASES) >= 40


@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize(("spec", "layout"), CASES, ids=str)
def test_equations_compute_what_the_reference_does(spec, layout, notation):
    arrays = plan(spec, CANONICAL[spec.cell], layout).apply(weights_of(spec))
    written = equations(spec, notation, [layout])
    symbols = {}
    for symbol in written.symbols:
        if symbol.places:
            place = symbol.places[layout.name]
            symbols[symbol.symbol] = value_of(place, arrays, symbol.shape) if place else np.zeros(symbol.shape)
            assert symbols[symbol.symbol].shape == symbol.shape, symbol
    names, state, memory = surroundings(notation, symbols, spec)
    for line in written.lines:
        left, right = python_of(line.text).split(" = ")
        names[left] = eval(right, names)
    # What comes back from the layout is what is computed with: a framework that merges two biases keeps their sum.
    reference = run(spec, plan(spec, layout, CANONICAL[spec.cell]).apply(arrays), names["x_t"][None, None], state=state)
    np.testing.assert_allclose(names["h_t"], reference.states[0][0, 0], rtol=1e-12, atol=1e-12)
    if spec.cell == "lstm":
        np.testing.assert_allclose(names[f"{memory}_t"], reference.states[1][0, 0], rtol=1e-12, atol=1e-12)


def test_a_wrong_slice_is_seen():
    spec = gw.LSTM(3, 5)
    layout = registry.layout("keras", spec)
    arrays = plan(spec, CANONICAL["lstm"], layout).apply(weights_of(spec))
    places = {symbol.symbol: symbol.places.get("keras:LSTM") for symbol in equations(spec, "keras", [layout]).symbols}
    assert not np.allclose(*(value_of(places[name], arrays, (3, 5)) for name in ("W_i", "W_f")))


def test_the_blog_as_it_is_known():
    assert str(equations(gw.LSTM(3, 2))).splitlines() == [
        "f_t = σ(W_f·[h_{t-1}, x_t] + b_f)",
        "i_t = σ(W_i·[h_{t-1}, x_t] + b_i)",
        "C̃_t = tanh(W_C·[h_{t-1}, x_t] + b_C)",
        "C_t = f_t * C_{t-1} + i_t * C̃_t",
        "o_t = σ(W_o·[h_{t-1}, x_t] + b_o)",
        "h_t = o_t * tanh(C_t)",
    ]


def test_keras_and_torch_as_they_are_known():
    spec = gw.GRU(3, 2)
    keras = equations(spec, "keras", [registry.layout("keras", spec)])
    assert keras.lines[2].text == "h̃_t = tanh(x_t @ W_h + r_t * (h_{t-1} @ U_h + d_h) + b_h)"
    torch = equations(spec, "torch", [registry.layout("torch", spec), registry.layout("keras", spec)])
    assert torch.lines[2].text == "n_t = tanh(W_in x_t + b_in + r_t ⊙ (W_hn h_{t-1} + b_hn))"
    places = {symbol.symbol: symbol.places for symbol in torch.symbols}
    assert places["W_ir"] == {"torch:GRU": "weight_ih_l0[0:2, :]", "keras:GRU": "kernel[:, 2:4].T"}


@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_latex_is_balanced_and_has_no_plain_signs(spec, notation):
    latex = equations(spec, notation).latex
    assert latex.startswith("\\begin{align*}")
    assert latex.count("{") == latex.count("}")
    assert not set("σ⊙·@*\u0303") & set(latex.replace("align*", ""))
    assert latex.count("&=") == len(equations(spec, notation).lines)
    # Every subscript is in braces, so that W_ih is one symbol.
    assert not re.search(r"(?<!\\)_[^{]", latex)


def test_what_has_no_equations():
    with pytest.raises(gw.GatewiseError, match="No notation is called 'tex'"):
        equations(gw.LSTM(3, 2), "tex")
    with pytest.raises(gw.GatewiseError, match="Dense has no equations"):
        equations(gw.Dense(3, 2))


# ── options ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", A8)
def test_each_published_argument_is_explained(name):
    told = option(name)
    assert (told.name, told.owner) == (name, "Keras")
    for words in (told.what, told.count, told.outputs, told.training, told.counterpart):
        assert words
        assert words[-1] in ".)"
        # Short sentences: a learner reads one idea at a time.
        assert all(len(sentence.split()) <= 26 for sentence in re.split(r"(?<=[.:;]) ", words)), words


def test_aliases_lead_somewhere():
    assert set(ALIASES.values()) <= set(OPTIONS)
    assert not set(ALIASES) & set(OPTIONS)
    assert option("batch_first").name == "time_major"
    with pytest.raises(gw.GatewiseError, match="Did you mean 'dropout'"):
        option("dropuot")


def test_defaults_are_those_of_keras():
    import inspect

    keras = pytest.importorskip("keras")
    signature = inspect.signature(keras.layers.LSTM.__init__).parameters
    for name in A8:
        if name not in ("units", "time_major"):  # required; gone in Keras 3
            assert str(signature[name].default) == option(name).default, name
    assert str(inspect.signature(keras.layers.GRU.__init__).parameters["reset_after"].default) == "True"


def test_our_own_layer_has_what_the_options_promise():
    pytest.importorskip("torch")
    import gatewise_torch

    for told in OPTIONS.values():
        match = re.search(r"gatewise_torch\.(\w+), has it as (\w+)(?:='(\w+)')?", told.counterpart)
        if match:
            kind, argument, value = match.groups()
            given = value or {"recurrent_activation": "tanh", "go_backwards": True, "stateful": True}.get(argument, 0.1)
            layer = getattr(gatewise_torch, kind)(3, 5, **{argument: given})
            assert getattr(layer, argument) == given
    promised = sum("gatewise_torch." in told.counterpart for told in OPTIONS.values())
    assert promised >= 7


def test_what_is_said_of_counts_is_so():
    x, h = 7, 11
    lstm, gru = gw.LSTM(x, h), gw.GRU(x, h)

    def less(spec, framework):
        return gw.count(spec, framework).total - gw.count(spec.replace(bias=False), framework).total

    assert less(lstm, "keras") == 4 * h
    assert less(gru, "keras") == 6 * h
    assert less(gru.replace(reset="before"), "keras") == 3 * h
    assert less(lstm, "torch") == 8 * h
    assert gw.count(gru, "keras").total - gw.count(gru.replace(reset="before"), "keras").total == 3 * h
    stacked = [gw.count(lstm.replace(layers=n, bias=False), "torch").total for n in (1, 2)]
    assert stacked[1] - stacked[0] == 8 * h * h
    terms = {term.name: term.parameters for term in gw.count(lstm.replace(projection=3), "torch").terms}
    assert (terms["weight_hh_l0"], terms["weight_hr_l0"]) == (4 * h * 3, 3 * h)


# ── growth ──────────────────────────────────────────────────────────────────────────────────────────────────────


def lookups(*names):
    return {name: lambda spec, name=name: registry.layout(name, spec) for name in names}


def test_growth_is_the_count_at_each_size():
    growth = vary(gw.LSTM(3, 1), "units=32:512:32", lookups("keras", "torch"))
    assert [value for value, _ in growth.rows] == list(range(32, 513, 32))
    for value, counts in growth.rows:
        spec = gw.LSTM(3, value)
        assert counts == (gw.count(spec, "keras").total, gw.count(spec, "torch").total)


def test_timesteps_change_nothing():
    growth = vary(gw.LSTM(3, 50), "timesteps=1,10,400", lookups("keras"))
    assert {counts for _, counts in growth.rows} == {(10_800,)}
    assert "stays the same" in growth.notes[0]


def test_each_feature_adds_what_the_note_says():
    for spec in (gw.LSTM(3, 50, bidirectional=True), gw.GRU(3, 7), gw.RNN(3, 9)):
        growth = vary(spec, "features=1:4", lookups("keras"))
        steps = {b[1][0] - a[1][0] for a, b in itertools.pairwise(growth.rows)}
        assert len(steps) == 1
        assert f": {steps.pop():,}." in growth.notes[0]


@pytest.mark.parametrize(
    "text",
    ["units", "unit=1:3", "units=", "units=a:b", "units=3:1", "units=0:3", "units=1:9:0", "units=1:5000", "=1:3", ""],
)
def test_what_cannot_vary(text):
    with pytest.raises(gw.GatewiseError) as error:
        vary(gw.LSTM(3, 5), text, lookups("keras"))
    assert len(str(error.value).splitlines()) == 3


def test_ranges_include_their_end():
    assert read_range(gw.LSTM(3, 5), "units=1:10:3") == ("units", [1, 4, 7, 10])
    assert read_range(gw.LSTM(3, 5), " features = 2,4 ") == ("features", [2, 4])


# ── the commands ────────────────────────────────────────────────────────────────────────────────────────────────

FORMATS = ["plain", "github", "latex", "html", "csv", "json"]


def command(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("notation", NOTATIONS)
def test_equations_in_every_format(format, notation):
    done = command("explain", "keras", "torch", "-x", 3, "-u", 2, "--equations", notation, "-f", format)
    assert done.exit_code == 0, done.output
    assert "forget gate: how much of the old memory stays" in done.output or format == "latex"
    slice_of_f = "weight\\_ih\\_l0[2:4,~:]" if format == "latex" else "weight_ih_l0[2:4, :]"
    assert slice_of_f in done.output.replace("\\allowbreak{}", "")
    if format == "latex":
        assert "\\begin{align*}" in done.output
        assert not re.search("[σ⊙\u0303]", done.output)


def test_equations_as_data():
    facts = json.loads(command("explain", "-x", 3, "-u", 2, "--equations", "-f", "json").output)
    lines, symbols = (table["rows"] for table in facts["tables"])
    assert lines[0]["equation"] == "f_t = σ(W_f·[h_{t-1}, x_t] + b_f)"
    assert lines[0]["latex"] == "f_{t} = \\sigma(W_{f} \\cdot [h_{t-1}, x_{t}] + b_{f})"
    forget = next(row for row in symbols if row["symbol"] == "b_f")
    assert (forget["keras:LSTM"], forget["torch:LSTM"]) == ("bias[2:4]", "bias_ih_l0[2:4] + bias_hh_l0[2:4]")


@pytest.mark.parametrize("format", FORMATS)
def test_an_option_in_every_format(format):
    done = command("explain", "--option", "dropout", "-f", format)
    assert done.exit_code == 0
    assert "between stacked layers" in " ".join(done.output.split())


@pytest.mark.parametrize("format", FORMATS)
def test_growth_in_every_format(format):
    done = command("count", "keras", "torch", "-x", 3, "--vary", "units=32:128:32", "-f", format)
    assert done.exit_code == 0
    assert ("67584" if format in ("csv", "json") else "67,584") in done.output


@pytest.mark.parametrize(
    "args",
    [
        ("explain", "--option", "dropuot"),
        ("explain", "-x", 3, "-u", 2, "--equations", "tex"),
        ("explain", "-x", 3, "--equations"),
        ("explain", "keras", "kears", "-x", 3, "-u", 2, "--equations", "blog"),
        ("count", "keras", "-x", 3, "--vary", "unit=1:3"),
        ("count", "keras", "-x", 3, "--vary", "units=3:1"),
        ("count", "kears", "-x", 3, "--vary", "units=1:3"),
    ],
)
def test_bad_use(args):
    done = command(*args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 3


def test_explain_still_wants_two_frameworks():
    done = command("explain", "keras", "-x", 3, "-u", 50)
    assert done.exit_code == 2
    assert "is one framework" in done.stderr
    assert command("explain", "keras", "torch", "-x", 3, "-u", 50).exit_code == 0


def test_results_show_themselves_in_a_notebook():
    spec = gw.LSTM(3, 50)
    for shown in (gw.count(spec, "keras"), gw.explain(spec, "keras", "torch"), gw.mapping(spec, "keras", "torch")):
        assert "<table>" in shown._repr_html_()
        assert "|" in shown._repr_markdown_()
    growth = vary(spec, "units=1:3", lookups("keras"))
    for shown in (equations(spec), option("dropout"), growth):
        assert "<table>" in shown._repr_html_()
        assert "|" in shown._repr_markdown_()


def test_a_size_without_values_is_said_to_have_none():
    done = command("count", "keras", "-x", 3, "--vary", "units")
    assert "'units' has no values." in done.stderr
    assert "Did you mean" not in done.stderr
