"""Layers behind a count, checked against closed formulas tried one by one."""

import json
import random

import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise import registry
from gatewise.cli import main
from gatewise.core.solve import BOUNDS, solve

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def by_hand(framework, cell, x, h, layers, directions, bias, reset):
    """The count of one stack, in plain arithmetic."""
    g, d = GATES[cell], directions
    two = framework == "torch" or (cell == "GRU" and reset == "after")
    vectors = (2 if two else 1) if bias else 0
    above = (layers - 1) * (d * h + h + vectors)
    return d * g * h * (x + h + vectors + above)


def brute_force(framework, total, most_features=10**9):
    """Every layer and head with a total, as plain tuples: all sizes are tried that leave something over."""
    found = set()
    for cell in GATES:
        # Without biases both resets store the same; PyTorch has only one of them.
        for reset in ["after", "before"] if cell == "GRU" else [None]:
            for layers in (1, 2, 3):
                for directions in (1, 2):
                    for bias in (True, False):
                        if reset == "before" and (not bias or framework == "torch"):
                            continue
                        options = (layers, directions, bias, reset)
                        found |= {(cell, *sizes, *options) for sizes in sizes_by_hand(framework, cell, options, total)}
    return {each for each in found if each[1] <= most_features}


def sizes_by_hand(framework, cell, options, total):
    for h in range(1, total + 1):
        if by_hand(framework, cell, 1, h, *options) > total:
            return
        for outputs in range(11):
            head = outputs * (options[1] * h + 1)
            for x in range(1, total + 1):
                counted = by_hand(framework, cell, x, h, *options) + head
                if counted == total:
                    yield x, h, outputs
                if counted >= total:
                    break


def as_tuples(found):
    told = set()
    for each in found:
        spec, *head = each.layers
        outputs = head[0].units if head else 0
        if head:
            assert head[0].features == spec.directions * spec.units
        options = (spec.layers, spec.directions, spec.bias, spec.options().get("reset"))
        told.add((type(spec).__name__, spec.features, spec.units, outputs, *options))
    return told


@pytest.mark.parametrize("framework", ["keras", "torch"])
@pytest.mark.parametrize("total", [1, 3, 4, 12, 16, 31, 48, 120, 299, 480, 491, 777])
def test_as_many_as_brute_force(framework, total):
    found = gw.solve(total, framework)
    told = as_tuples(found)
    assert len(told) == len(found)
    assert told == brute_force(framework, total)


def test_every_answer_has_the_total():
    rng = random.Random(2)
    for framework in ("keras", "torch", "mlx", "onnx", "tf_keras", "cudnn"):
        for _ in range(3):
            total = rng.randint(1000, 10**6)
            found = gw.solve(total, framework)
            assert [each.rank for each in found] == list(range(1, len(found) + 1))
            for each in rng.sample(found, min(25, len(found))):
                assert sum(gw.count(spec, framework).total for spec in each.layers) == total == each.total


def test_random_models_are_found():
    rng = random.Random(3)
    for _ in range(60):
        framework = rng.choice(["keras", "torch"])
        kind, two = rng.choice([gw.LSTM, gw.GRU, gw.RNN]), rng.random() < 0.4
        # Sizes up to those that fill a hundred million parameters.
        spec = kind(
            rng.randint(1, 3000),
            rng.randint(1, 1000),
            layers=rng.randint(1, 3),
            bidirectional=two,
            bias=rng.random() < 0.7,
        )
        head = rng.choice([None, gw.Dense(spec.directions * spec.units, rng.randint(1, BOUNDS.most_outputs))])
        layers = (spec,) if head is None else (spec, head)
        total = sum(gw.count(each, framework).total for each in layers)
        assert layers in [each.layers for each in gw.solve(total, framework)]


def test_the_published_model_is_among_the_first_five():
    wanted = (gw.LSTM(features=2308, units=32), gw.Dense(features=32, units=1))
    found = gw.solve(299_681, framework="keras")
    place = [each.layers for each in found].index(wanted)
    assert place < 5
    assert found[place].arithmetic == "4·32·2308 + 4·32·32 + 4·32 + 1·32 + 1"
    assert found[place].formula == "4·units·features + 4·units·units + 4·units + outputs·units + outputs"
    assert wanted in [each.layers for each in gw.solve(299_809, framework="torch")[:5]]


@pytest.mark.parametrize(
    ("total", "framework", "layers"),
    [
        (10_851, "keras", (gw.LSTM(3, 50), gw.Dense(50, 1))),
        (11_051, "torch", (gw.LSTM(3, 50), gw.Dense(50, 1))),
        (11_851, "keras", (gw.LSTM(8, 50), gw.Dense(50, 1))),
        (10_800, "keras", (gw.LSTM(3, 50),)),
        (48, "keras", (gw.LSTM(3, 2),)),
        (12, "keras", (gw.LSTM(1, 1),)),
        (491, "keras", (gw.LSTM(1, 10), gw.Dense(10, 1))),
    ],
)
def test_well_known_models_come_first(total, framework, layers):
    assert gw.solve(total, framework)[0].layers == layers


def test_what_is_known_narrows_it():
    assert {each.layers[0].features for each in gw.solve(10_851, "keras", features=3)} == {3}
    assert {each.layers[0].units for each in gw.solve(10_851, "keras", units=50)} == {50}
    assert {type(each.layers[0]) for each in gw.solve(10_851, "keras", cell="gru")} == {gw.GRU}
    assert gw.solve(7, "keras", units=9) == []


def test_large_totals():
    found = gw.solve(10**8, "keras")
    assert len(found) > 1000
    assert sum(gw.count(spec, "keras").total for spec in found[0].layers) == 10**8


def test_narrower_bounds():
    bounds = BOUNDS._replace(cells=("LSTM",), most_layers=1, directions=(1,), biases=(True,), most_outputs=0)
    found = solve(480, lambda spec: registry.layout("keras", spec), bounds=bounds)
    # 4·u·(x + u + 1) = 480 for every u that divides 120 and leaves a feature.
    assert {(each.layers[0].units, each.layers[0].features) for each in found} == {
        (u, 120 // u - u - 1) for u in range(1, 121) if 120 % u == 0 and 120 // u - u - 1 >= 1
    }


def test_a_class_stands_for_its_layers():
    cells = gw.solve(10_800, "keras:LSTMCell")
    assert {(type(each.layers[0]), each.layers[0].layers) for each in cells} == {(gw.LSTM, 1)}


@pytest.mark.parametrize("total", [0, -1, "480", 2.5, True, 10**20])
def test_what_is_no_total(total):
    with pytest.raises(gw.GatewiseError) as error:
        gw.solve(total, "keras")
    assert len(str(error.value).splitlines()) == 3


def test_bad_names():
    with pytest.raises(gw.GatewiseError, match="Did you mean 'keras'"):
        gw.solve(480, "kears")
    with pytest.raises(gw.GatewiseError, match="no class 'LSTMM'"):
        gw.solve(480, "torch:LSTMM")
    with pytest.raises(gw.GatewiseError, match="kind 'CNN'"):
        gw.solve(480, "torch", cell="CNN")
    with pytest.raises(gw.GatewiseError, match="features=0"):
        gw.solve(480, "torch", features=0)


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.mark.parametrize("format", ["plain", "github", "latex", "html", "csv", "json"])
def test_command_in_every_format(format):
    done = run("solve", "299,681", "-f", format)
    assert done.exit_code == 0
    assert "LSTM(features=2308, units=32)" in done.output


def test_command_shows_as_many_as_asked():
    rows = json.loads(run("solve", 480, "--most", 3, "-f", "json").output)["tables"][0]["rows"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    every = json.loads(run("solve", 480, "--all", "-f", "json").output)["tables"][0]["rows"]
    assert len(every) == len(gw.solve(480, "keras"))


def test_command_says_what_was_searched():
    narrow = run("solve", 10_851, "--cell", "lstm", "-x", 3).output
    assert "Searched: LSTM with features=3 and any units; 1 to 3 layers; one direction or two;" in narrow
    assert "Searched: LSTM, GRU, RNN with any features and any units;" in run("solve", 10_851).output


def test_command_finds_nothing():
    done = run("solve", 7, "-u", 9)
    assert done.exit_code == 1
    assert "No way to have 7 parameters." in done.output


@pytest.mark.parametrize("args", [(0,), (-5,), ("abc",), (12, "kears"), (10**20,), (12, "-u", 0)])
def test_bad_use(args):
    done = run("solve", *args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 3


def test_in_a_notebook():
    found = gw.solve(480, "keras")
    assert "<table>" in found._repr_html_()
    assert "LSTM(features=1, units=10)" in found._repr_markdown_()
    assert str(found).startswith(f"{len(found)} ways to 480 parameters")
