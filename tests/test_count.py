"""Counts against the frameworks' own, formulas against numbers, causes against differences.

Keras and PyTorch build every layer here and count it themselves; nothing is compared with a number we once printed.
"""

from __future__ import annotations

import math
import random
import re

import loopback
import pytest
from loopback import LAYOUTS, SPECS, holds, label

import gatewise as gw
from gatewise.core.count import WITHOUT_PARAMETERS, count, notes, numbers
from gatewise.core.explain import WORDS, explain
from gatewise.core.layout import PARTS, store
from gatewise.core.network import Network
from gatewise.core.spec import GRU, LSTM, RNN, BatchNorm, Dense, Embedding, LayerNorm
from gatewise.errors import UnknownFrameworkError, UnsupportedSpecError

KINDS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


def value(formula, letters):
    """A formula as a number: `4·units·(features + 1)` with · as * ."""
    assert re.fullmatch(r"[a-z0-9 ·+\-()]*", formula), formula
    return eval(formula.replace("·", "*"), {"__builtins__": {}}, dict(letters))


def letters_of(spec):
    """What each letter of a formula stands for, taken from the spec by hand."""
    names = ("features", "units", "tokens", "projection", "height", "width", "channels")
    found = {name: getattr(spec, name) for name in names if hasattr(spec, name)}
    if hasattr(spec, "layers"):
        found |= {"layers": spec.layers, "directions": 2 if spec.bidirectional else 1}
    return {name: size for name, size in found.items() if size is not None}


def random_spec(rng, kinds=("lstm", "gru", "rnn"), projection=False, merges=True):
    """A random recurrent layer: sizes, depth, directions, bias, reset, projection."""
    kind = KINDS[rng.choice(kinds)]
    options = {"layers": rng.choice([1, 1, 2, 3]), "bidirectional": rng.random() < 0.4, "bias": rng.random() < 0.7}
    if merges and options["bidirectional"]:
        options["merge"] = rng.choice(["concat", "sum", "mul", "ave"])
    units = rng.randint(1, 40)
    if kind is GRU:
        options["reset"] = rng.choice(["after", "before"])
    if kind is LSTM and projection and units > 1 and rng.random() < 0.6:
        options["projection"] = rng.randint(1, units - 1)
    return kind(rng.randint(1, 40), units, **options)


# ── Keras counts ────────────────────────────────────────────────────────────────────────────────────────────────


def keras_layers(keras, spec):
    """The layers that a Keras user would write for a spec, built."""
    if isinstance(spec, Dense):
        layer = keras.layers.Dense(spec.units, use_bias=spec.bias)
        layer.build((None, spec.features))
        return [layer]
    if isinstance(spec, Embedding):
        layer = keras.layers.Embedding(spec.tokens, spec.units)
        layer.build((None,))
        return [layer]
    made, features = [], spec.features
    for _ in range(spec.layers):
        kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}[spec.cell]
        options = {"reset_after": spec.reset == "after"} if spec.cell == "gru" else {}
        layer = kind(spec.units, use_bias=spec.bias, return_sequences=True, **options)
        if spec.bidirectional:
            layer = keras.layers.Bidirectional(layer, merge_mode=spec.merge)
        layer.build((None, None, features))
        made.append(layer)
        features = layer.compute_output_shape((None, 7, features))[-1]
    return made


def test_keras_counts_what_we_count(keras):
    rng = random.Random(1)
    specs = [random_spec(rng) for _ in range(150)]
    specs += [Dense(rng.randint(1, 60), rng.randint(1, 60), bias=rng.random() < 0.7) for _ in range(15)]
    specs += [Embedding(rng.randint(1, 60), rng.randint(1, 60)) for _ in range(10)]
    for spec in specs:
        layers, counted = keras_layers(keras, spec), gw.count(spec, "keras")
        assert counted.total == sum(layer.count_params() for layer in layers), spec
        weights = [variable for layer in layers for variable in layer.weights]
        assert [term.shape for term in counted.terms] == [tuple(variable.shape) for variable in weights], spec
        assert [term.name.rpartition("/")[2] for term in counted.terms] == [variable.name for variable in weights], spec
        if getattr(spec, "bidirectional", False):
            sides = ["forward" if "/forward_" in f"/{variable.path}" else "backward" for variable in weights]
            assert [("forward" if "forward_layer" in term.name else "backward") for term in counted.terms] == sides


def test_keras_cells_count_what_we_count(keras):
    rng = random.Random(2)
    cells = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "rnn"}
    for name, cell in cells.items():
        for _ in range(12):
            spec = random_spec(rng, [cell]).replace(layers=1, bidirectional=False, merge="concat")
            options = {"reset_after": spec.reset == "after"} if cell == "gru" else {}
            layer = getattr(keras.layers, name)(spec.units, use_bias=spec.bias, **options)
            layer.build((None, spec.features))
            counted = gw.count(spec, f"keras:{name}")
            assert counted.total == layer.count_params()
            assert [(term.name, term.shape) for term in counted.terms] == [
                (variable.name, tuple(variable.shape)) for variable in layer.weights
            ]


# ── PyTorch counts ──────────────────────────────────────────────────────────────────────────────────────────────


def torch_module(torch, spec):
    """The module that a PyTorch user would write for a spec."""
    if isinstance(spec, Dense):
        return torch.nn.Linear(spec.features, spec.units, bias=spec.bias)
    if isinstance(spec, Embedding):
        return torch.nn.Embedding(spec.tokens, spec.units)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[spec.cell]
    options = {"proj_size": spec.projection} if getattr(spec, "projection", None) else {}
    return kind(spec.features, spec.units, spec.layers, bias=spec.bias, bidirectional=spec.bidirectional, **options)


def compare_with_torch(module, counted):
    parameters = dict(module.named_parameters())
    assert {term.name: term.shape for term in counted.terms} == {name: tuple(p.shape) for name, p in parameters.items()}
    assert [term.name for term in counted.terms] == list(parameters)
    assert {term.name: term.parameters for term in counted.terms} == {name: p.numel() for name, p in parameters.items()}
    assert counted.total == sum(p.numel() for p in module.parameters())


def test_torch_counts_what_we_count(torch):
    rng = random.Random(3)
    specs = [random_spec(rng, projection=True, merges=False) for _ in range(220)]
    specs = [spec.replace(reset="after") if isinstance(spec, GRU) else spec for spec in specs]
    specs += [Dense(rng.randint(1, 60), rng.randint(1, 60), bias=rng.random() < 0.7) for _ in range(20)]
    specs += [Embedding(rng.randint(1, 60), rng.randint(1, 60)) for _ in range(15)]
    assert sum(getattr(spec, "projection", None) is not None for spec in specs) > 25
    for spec in specs:
        compare_with_torch(torch_module(torch, spec), gw.count(spec, "torch"))


def test_torch_cells_count_what_we_count(torch):
    rng = random.Random(4)
    for name, cell in {"LSTMCell": "lstm", "GRUCell": "gru", "RNNCell": "rnn"}.items():
        for _ in range(15):
            spec = random_spec(rng, [cell]).replace(layers=1, bidirectional=False, merge="concat")
            spec = spec.replace(reset="after") if cell == "gru" else spec
            module = getattr(torch.nn, name)(spec.features, spec.units, bias=spec.bias)
            compare_with_torch(module, gw.count(spec, f"torch:{name}"))


# ── the table of counts for x = 3, h = 50 ───────────────────────────────────────────────────────────────────────

WEIGHTS = 4 * (3 * 50 + 50 * 50)
TABLE = {
    "keras:LSTM": WEIGHTS + 4 * 50,
    "tf_keras:LSTM": WEIGHTS + 4 * 50,
    "tf_keras:CuDNNLSTM": WEIGHTS + 8 * 50,
    "tf1:LSTMCell": WEIGHTS + 4 * 50,
    "tf1:BasicLSTMCell": WEIGHTS + 4 * 50,
    "torch:LSTM": WEIGHTS + 8 * 50,
    "torch:LSTMCell": WEIGHTS + 8 * 50,
    "onnx:LSTM": WEIGHTS + 8 * 50,
    "flax:LSTMCell": WEIGHTS + 4 * 50,
    "flax:OptimizedLSTMCell": WEIGHTS + 4 * 50,
    "nnx:LSTMCell": WEIGHTS + 4 * 50,
    "nnx:OptimizedLSTMCell": WEIGHTS + 4 * 50,
    "haiku:LSTM": WEIGHTS + 4 * 50,
    "equinox:LSTMCell": WEIGHTS + 4 * 50,
    "mlx:LSTM": WEIGHTS + 4 * 50,
    "openvino:LSTMSequence": WEIGHTS + 4 * 50,
    "cudnn:LSTM": WEIGHTS + 8 * 50,
    "dl4j:LSTM": WEIGHTS + 4 * 50,
    "dl4j:GravesLSTM": WEIGHTS + 4 * 50 + 3 * 50,
    "chainer:LSTM": WEIGHTS + 4 * 50,
    "chainer:NStepLSTM": WEIGHTS + 8 * 50,
    "chainer:StatefulPeepholeLSTM": WEIGHTS + 4 * 50 + 3 * 50 * 50,
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_counts(name):
    if name.partition(":")[0] not in {record.name for record in gw.frameworks()}:
        pytest.skip("this adapter is not here")
    assert gw.count(LSTM(3, 50), name).total == TABLE[name]


def test_counts_with_a_projection():
    assert gw.count(LSTM(3, 50, projection=20), "torch").total == 4 * 50 * (3 + 20) + 8 * 50 + 50 * 20
    assert gw.count(LSTM(3, 50, projection=20, peepholes=True), "tf1").total == (
        4 * 50 * (3 + 20) + 4 * 50 + 3 * 50 + 50 * 20
    )


# ── formulas ────────────────────────────────────────────────────────────────────────────────────────────────────


def resized(spec, rng):
    """The same layer with other sizes; a stack may become deeper."""
    sizes = ("features", "units", "tokens", "height", "width")
    changes = {name: rng.randint(2, 99) for name in sizes if hasattr(spec, name)}
    if getattr(spec, "groups", 1) > 1:
        changes |= {name: changes[name] * spec.groups for name in ("features", "units")}
    if getattr(spec, "projection", None):
        changes["projection"] = rng.randint(2, 99)
    return spec.replace(**changes)


def held_specs(layout):
    rng = random.Random(LAYOUTS.index(layout))
    found = [spec for spec in SPECS[layout.cell] if holds(layout, spec)]
    if layout.cell in KINDS:
        more = [random_spec(rng, [layout.cell], projection=True) for _ in range(40)]
        found += [spec for spec in more if holds(layout, spec)][:12]
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=label)
def test_formulas_are_the_numbers(layout):
    rng = random.Random(7)
    for spec in held_specs(layout):
        counted, letters = count(spec, layout), letters_of(spec)
        assert {name: size for name, size in numbers(spec).items() if name in letters} == letters
        assert counted.total == sum(math.prod(term.shape) for term in counted.terms)
        assert 0 < counted.effective <= sum(map(math.prod, store(layout, spec).shapes.values())) or not counted.total
        for term in counted.terms:
            assert value(term.formula, letters) == math.prod(term.shape) == term.parameters, (spec, term)
            assert value(term.arithmetic, {}) == term.parameters, (spec, term)
            assert sum(part.parameters for part in term.gates) == term.parameters, (spec, term)
            assert all(value(part.formula, letters) == part.parameters for part in term.gates), (spec, term)
            assert {part.part for part in term.gates} <= set(PARTS[spec.cell])
            assert [value(length, letters) for length in term.dimensions] == list(term.shape), (spec, term)
        assert sum(counted.by_gate().values()) == counted.total
        other = resized(spec, rng)
        if not holds(layout, other):
            continue
        # The letters are not the numbers of this spec in disguise: put those of another one into them.
        again = count(other, layout)
        assert [term.name for term in again.terms] == [term.name for term in counted.terms]
        for term, expected in zip(counted.terms, again.terms, strict=True):
            assert value(term.formula, letters_of(other)) == expected.parameters, (spec, other, term)
            assert [value(length, letters_of(other)) for length in term.dimensions] == list(expected.shape)
            for part, wanted in zip(term.gates, expected.gates, strict=True):
                assert value(part.formula, letters_of(other)) == wanted.parameters


def test_a_formula_of_a_flat_buffer_holds_for_other_depths():
    two, five = LSTM(3, 5, layers=2, bidirectional=True), LSTM(7, 4, layers=5, bidirectional=True)
    for name in ("loopback:Flat", "cudnn:LSTM"):
        layout = next((layout for layout in LAYOUTS if layout.name == name), None)
        if layout is None:
            continue
        (term,), (deeper,) = count(two, layout).terms, count(five, layout).terms
        assert value(term.formula, letters_of(five)) == deeper.parameters


@pytest.mark.parametrize(
    ("spec", "framework", "formulas"),
    [
        (LSTM(3, 50), "keras", ["4·units·features", "4·units·units", "4·units"]),
        (LSTM(3, 50), "torch", ["4·units·features", "4·units·units", "4·units", "4·units"]),
        (GRU(3, 50), "keras", ["3·units·features", "3·units·units", "3·units + 3·units"]),
        (RNN(3, 50), "keras", ["units·features", "units·units", "units"]),
        (Dense(50, 1), "keras", ["units·features", "units"]),
        (Embedding(1000, 64), "torch", ["tokens·units"]),
    ],
)
def test_formulas_read_as_a_person_writes_them(spec, framework, formulas):
    assert [term.formula for term in gw.count(spec, framework).terms] == formulas


# ── causes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def check_explanation(spec, first, second, rng):
    told = explain(spec, first, second)
    assert told.difference == told.second.total - told.first.total
    assert sum(cause.parameters for cause in told.causes) == told.difference, (spec, str(first), str(second))
    letters = letters_of(spec)
    for cause in told.causes:
        assert cause.name in WORDS
        assert cause.parameters != 0
        assert value(cause.formula, letters) == abs(cause.parameters) == value(cause.arithmetic, {})
        assert "{" not in cause.why + cause.effect
        assert str(first) in cause.why or str(second) in cause.why
        assert cause.effect.startswith(("redundant", "real", "none"))
    other = resized(spec, rng)
    if holds(first, other) and holds(second, other):
        again = explain(other, first, second)
        assert [cause.name for cause in again.causes] == [cause.name for cause in told.causes]
        for cause, wanted in zip(told.causes, again.causes, strict=True):
            sign = 1 if cause.parameters > 0 else -1
            assert sign * value(cause.formula, letters_of(other)) == wanted.parameters, (spec, other, cause)
    return told


@pytest.mark.parametrize("first", LAYOUTS, ids=label)
def test_causes_add_up_over_every_pair(first):
    rng = random.Random(LAYOUTS.index(first))
    found = [spec for spec in SPECS[first.cell] if holds(first, spec)]
    found = found[:1] + rng.sample(found[1:], min(2, len(found) - 1))
    if first.cell in KINDS:
        more = [random_spec(rng, [first.cell], projection=True) for _ in range(30)]
        found += [spec for spec in more if holds(first, spec)][:1]
    for spec in found:
        for second in LAYOUTS:
            if second.cell == first.cell and holds(second, spec):
                check_explanation(spec, first, second, random.Random(str(spec)))


def test_causes_add_up_over_thousands_of_specs():
    rng, seen = random.Random(11), set()
    for _ in range(1000):
        spec = random_spec(rng, projection=True)
        fitting = [layout for layout in LAYOUTS if layout.cell == spec.cell and holds(layout, spec)]
        first, second = rng.choice(fitting), rng.choice(fitting)
        told = explain(spec, first, second)
        assert sum(cause.parameters for cause in told.causes) == told.difference
        assert told.difference == told.second.total - told.first.total
        seen |= {cause.name for cause in told.causes}
    # Only batch normalisation has moving statistics; the test above goes over its layouts.
    assert seen == set(WORDS) - {"moving statistics"}


CAUSES = [
    (LSTM(3, 50), "keras", "torch", [("second bias", 4 * 50, "4·units")]),
    (LSTM(3, 50), "torch", "keras", [("second bias", -4 * 50, "4·units")]),
    (LSTM(3, 50, bias=False), "keras", "torch", []),
    (LSTM(3, 50, layers=2, bidirectional=True), "keras", "torch", [("second bias", 800, "layers·directions·4·units")]),
    (GRU(3, 50), "keras", "torch", []),
    (RNN(3, 50), "keras", "torch", [("second bias", 50, "units")]),
    (Dense(50, 1), "keras", "torch", []),
    (BatchNorm(50), "keras", "torch", [("moving statistics", -100, "features + features")]),
    (LayerNorm(50), "keras", "torch", []),
    (LSTM(3, 50, bias=False), "keras", "haiku", [("bias that is always stored", 200, "4·units")]),
    (LSTM(3, 50), "keras", "dl4j:GravesLSTM", [("peepholes that are always stored", 150, "3·units")]),
    (GRU(3, 50), "nnx", "equinox", [("candidate's recurrent bias", 50, "units")]),
    (
        GRU(3, 50),
        "nnx",
        "torch",
        [("candidate's recurrent bias", 50, "units"), ("second bias", 100, "2·units")],
    ),
]


@pytest.mark.parametrize(("spec", "first", "second", "causes"), CAUSES)
def test_causes(spec, first, second, causes):
    if not {first.partition(":")[0], second.partition(":")[0]} <= {record.name for record in gw.frameworks()}:
        pytest.skip("this adapter is not here")
    told = gw.explain(spec, first, second)
    assert sorted((cause.name, cause.parameters, cause.formula) for cause in told.causes) == sorted(causes)
    assert (told.causes == ()) == ("Both store the same numbers." in str(told))


def test_a_tied_gate_is_a_cause():
    coupled = next(layout for layout in LAYOUTS if layout.name == "loopback:Coupled")
    keras = next(layout for layout in LAYOUTS if layout.name == "keras:LSTM")
    (cause,) = explain(LSTM(3, 50), coupled, keras).causes
    assert (cause.name, cause.parameters) == ("coupled gate", 50 * 3 + 50 * 50 + 50)
    assert "gate i" in cause.why


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_network_counts_and_explains_layer_by_layer():
    network = Network.chain(Embedding(100, 8), LSTM(8, 16), LSTM(16, 4), Dense(4, 1))
    keras, torch = gw.count(network, "keras"), gw.count(network, "torch")
    sizes = [100 * 8, 4 * (8 * 16 + 16 * 16 + 16), 4 * (16 * 4 + 4 * 4 + 4), 4 + 1]
    assert keras.total == sum(sizes)
    assert torch.total == sum(sizes) + 4 * 16 + 4 * 4
    assert [term.name.partition("/")[0] for term in keras.terms] == [
        *["embedding"],
        *["lstm"] * 3,
        *["lstm_1"] * 3,
        *["dense"] * 2,
    ]
    told = gw.explain(network, "keras", "torch")
    assert told.difference == 80
    assert [(cause.layer, cause.parameters) for cause in told.causes] == [("lstm", 64), ("lstm_1", 16)]


# ── what has no parameters, what is huge, what cannot be held ───────────────────────────────────────────────────


def test_what_changes_no_count_is_said():
    plain = gw.count(LSTM(3, 50), "keras")
    unusual = {
        "activation": "relu",
        "recurrent_activation": "hard_sigmoid",
        "dropout": 0.2,
        "recurrent_dropout": 0.1,
        "go_backwards": True,
        "return_sequences": False,
        "return_state": False,
    }
    assert plain.notes == ()
    for option, chosen in unusual.items():
        counted = gw.count(LSTM(3, 50, **{option: chosen}), "keras")
        assert counted.total == plain.total
        (note,) = counted.notes
        assert note == WITHOUT_PARAMETERS[option].format(chosen)
    said = notes(LSTM(3, 50), timesteps=400, batch=32)
    assert len(said) == 2
    assert "400" in said[0]
    assert "32" in said[1]


def test_huge_layers_are_counted_exactly():
    n = 10**12
    assert gw.count(LSTM(n, n), "keras").total == 4 * (n * n + n * n + n)
    assert gw.count(LSTM(n, n), "torch").total == 4 * (n * n + n * n + 2 * n)
    assert gw.explain(LSTM(n, n, layers=3), "keras", "torch").difference == 3 * 4 * n
    assert gw.count(Embedding(n, n), "torch").total == n * n
    assert gw.mapping(LSTM(n, n), "keras", "torch").proof().passed
    assert gw.count(LSTM(3, 50, layers=1000), "torch").total == 11_000 + 999 * (4 * (50 * 50 + 50 * 50) + 400)


REFUSED = [
    (LSTM(3, 50, projection=20), "keras", "projection"),
    (LSTM(3, 50, peepholes=True), "torch", "peepholes"),
    (GRU(3, 50, reset="before"), "torch", "reset"),
    (LSTM(3, 50, layers=2), "torch:LSTMCell", "layers"),
    (LSTM(3, 50, bidirectional=True), "keras:LSTMCell", "bidirectional"),
    (LSTM(3, 50, cell_clip=3.0), "keras", "cell_clip"),
    (LSTM(3, 50, activation="relu"), "haiku", "activation"),
]


@pytest.mark.parametrize(("spec", "framework", "option"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_a_framework_cannot_hold_is_named(spec, framework, option):
    if framework.partition(":")[0] not in {record.name for record in gw.frameworks()}:
        pytest.skip("this adapter is not here")
    for call in (gw.count, lambda spec, name: gw.explain(spec, name, name)):
        with pytest.raises(UnsupportedSpecError) as caught:
            call(spec, framework)
        assert caught.value.option == option
        assert f"does not support {option}={getattr(spec, option)!r}" in caught.value.met
        assert caught.value.where
        assert caught.value.hint


@pytest.mark.parametrize(
    ("framework", "words"),
    [
        ("kears", "Did you mean 'keras'?"),
        ("torch:LSTMs", "Did you mean 'torch:LSTM'?"),
        ("torch:Embedding", "no layout for an LSTM in Embedding"),
        ("", "No framework is called ''"),
        ("nothing-like-it", "No framework is called 'nothing-like-it'"),
        ("../keras", "No framework is called '../keras'"),
    ],
)
def test_unknown_frameworks(framework, words):
    with pytest.raises(UnknownFrameworkError) as caught:
        gw.count(LSTM(3, 50), framework)
    assert words in str(caught.value)
    assert caught.value.where
    assert caught.value.hint


def test_all_pairs_are_many():
    """The sweeps above run over what they say."""
    assert len(loopback.pairs()) > 1500
