"""Tables of cases: stated numbers are checked, each framework is explained, one that lacks a case stops no other."""

import json

import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise.cli import main
from gatewise.comparison import compare_data


def compared(*layers, frameworks=("keras", "torch"), **case):
    (row,) = compare_data(
        {"frameworks": list(frameworks), "case": [{"id": "one", "layers": list(layers), **case}]}
    ).rows
    return row


LSTM, HEAD = "LSTM(features=3, units=50)", "Dense(features=50, units=1)"
RIGHT = 4 * (50 * 3 + 50 * 50 + 50)


@pytest.mark.parametrize(
    ("stated", "layers", "says"),
    [
        (RIGHT, [LSTM], ""),
        (RIGHT + 51, [LSTM, HEAD], ""),
        (RIGHT + 1, [LSTM], "1 too many. No mistake on the list"),
        (RIGHT - 200, [LSTM], "200 too few. The bias is missing"),
        (RIGHT, [LSTM, HEAD], "51 too few. The head is missing"),
        (RIGHT + 200, [LSTM], "200 too many. This is the count in torch."),
        (RIGHT + 251, [LSTM, HEAD], "200 too many. This is the count in torch."),
        (4 * RIGHT, [LSTM], "These are bytes"),
        (37_506, ["LSTM(200, 40)", "Dense(40, 5)"], "No mistake on the list"),
        (0, [LSTM], "10,800 too few"),
        (RIGHT + 60 * 51, [LSTM, "Dense(50, 60)", "Dense(60, 9)"], "The layer 'dense_1' is missing: 549."),
        (7, [LSTM, "Dense(50, 60)", "Dense(60, 9)"], "neither the count of another framework here"),
    ],
)
def test_a_stated_number_is_checked(stated, layers, says):
    row = compared(*layers, stated=stated)
    if not says:
        assert row.verdict == ""
        return
    assert row.verdict.startswith(f"{stated:,} was stated, and keras has {row.totals['keras']:,}: ")
    assert says in row.verdict


def test_a_number_that_cannot_be_checked_is_not_right():
    row = compared("LSTM(3, 50, peepholes=True)", frameworks=["keras", "tf1"], stated=10_950)
    assert row.totals == {"tf1": 10_950}
    assert "cannot be checked" in row.verdict
    assert row.causes == row.differences == {}


def test_every_framework_is_explained():
    names = ["keras", "torch", "flax", "haiku", "onnx"]
    row = compared("GRU(64, 128)", frameworks=names, stated=3 * 128 * (64 + 128 + 2))
    assert row.verdict == ""
    assert list(row.lacks) == ["haiku"]  # it resets before the product
    assert row.differences == {"torch": 0, "flax": -256, "onnx": 0}
    for name, causes in row.causes.items():
        assert (
            sum(cause.parameters for cause in causes) == row.differences[name] == row.totals[name] - row.totals["keras"]
        )
    assert [(cause.name, cause.parameters) for cause in row.causes["flax"]] == [("second bias", -256)]


TABLE = """
frameworks = ["keras", "torch", "flax", "haiku"]
[[case]]
id = "right"
stated = 10_851
layers = ["LSTM(features=3, units=50)", "Dense(features=50, units=1)"]
[[case]]
id = "gru"
layers = ["GRU(64, 128)"]
show = ["tensors", "gates", "mapping"]
"""
WRONG = """
[[case]]
id = "wrong"
stated = 37_506
layers = ["LSTM(160, 50)", "Dense(50, 1)"]
"""


@pytest.fixture
def table(tmp_path):
    def written(text):
        path = tmp_path / "cases.toml"
        path.write_text(text)
        return path

    return written


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_the_command_marks_what_is_not_right(table):
    good = run("table", table(TABLE))
    assert good.exit_code == 0
    assert "not right" not in good.output
    bad = run("table", table(TABLE + WRONG))
    assert bad.exit_code == 1
    assert "37,506 (not right)" in bad.output
    assert "wrong: 37,506 was stated, and keras has 42,251: 4,745 too few." in " ".join(bad.output.split())
    assert not gw.compare(table(TABLE + WRONG)).right
    assert gw.compare(table(TABLE)).right


def test_data_hold_numbers_and_people_read_why(table):
    facts = json.loads(run("table", table(TABLE + WRONG), "-f", "json").output)
    right, gru, wrong = facts["tables"][0]["rows"]
    assert (right["stated"], right["keras"], right["torch"], right["torch - keras"]) == (10_851, 10_851, 11_051, 200)
    assert (gru["flax - keras"], gru["haiku"], gru["haiku - keras"]) == (-256, None, None)
    assert gru["cause"] == "flax: no second bias, 2·units = 2·128"
    assert right["cause"] == "torch: second bias, 4·units = 4·50"
    assert (wrong["stated"], wrong["keras"]) == (37_506, 42_251)
    text = run("table", table(TABLE)).output
    assert "10,800 + 51 = 10,851" in text
    assert "– gru: haiku does not store such layers." in " ".join(text.split())
    csv = run("table", table(TABLE), "-f", "csv").output.splitlines()
    assert (
        csv[2]
        == 'gru,"GRU(features=64, units=128)",,74496,74496,74240,,0,-256,,"flax: no second bias, 2·units = 2·128"'
    )


def test_layers_that_do_not_fit_are_refused(table):
    done = run("table", table('[[case]]\nid = "X"\nlayers = ["LSTM(3, 50)", "Dense(features=60, units=1)"]'))
    assert done.exit_code == 2
    assert "case X: Layer 'dense' cannot read what 'lstm' gives" in done.stderr
    assert "Give it features=50, or feed 60." in done.stderr


FITTING = [
    (gw.LSTM(3, 50), gw.Dense(50, 1)),
    (gw.LSTM(3, 50, bidirectional=True), gw.LSTM(100, 5), gw.Dense(5, 1)),
    (gw.LSTM(3, 50, bidirectional=True, merge="sum"), gw.GRU(50, 5)),
    (gw.LSTM(3, 50, bidirectional=True, merge=None), gw.Dense(50, 5)),
    (gw.LSTM(3, 50, projection=20), gw.Dense(20, 5)),
    (gw.Embedding(1000, 64), gw.LSTM(64, 5)),
    (gw.Conv1D(3, 8, 5), gw.BatchNorm(8), gw.Activation("relu"), gw.Pool("max", 2), gw.LSTM(8, 5)),
    (gw.Conv2D(3, 8, 5, 5), gw.Pool("mean", axes=2), gw.Dense(8, 5)),
    (gw.Input((10, 4)), gw.Conv1D(4, 8, 3), gw.Reshape((-1,)), gw.Dense(64, 5)),
    (gw.Conv1D(4, 8, 3), gw.Reshape((-1,)), gw.Dense(77, 5)),  # any number of steps
    (gw.LSTM(3, 5, return_sequences=False), gw.Repeat(7), gw.LSTM(5, 6)),
    (gw.Dense(3, 5), gw.Repeat(7), gw.LSTM(5, 6)),
    (gw.Masking(), gw.Dropout(0.2), gw.LSTM(3, 5)),
    (gw.LSTM(3, 5), gw.Attention(), gw.Dense(5, 1)),
    (gw.Input((7, 3)), gw.Permute((2, 1)), gw.Dense(7, 2)),
    (gw.LayerNorm(3), gw.Dense(3, 5)),
    (gw.AdditiveAttention(4),),
]
UNFIT = [
    ("lstm", "dense", (gw.LSTM(3, 50), gw.Dense(60, 1))),
    ("lstm", "lstm_1", (gw.LSTM(3, 50, bidirectional=True), gw.LSTM(50, 5))),
    ("lstm", "gru", (gw.LSTM(3, 50, bidirectional=True, merge="sum"), gw.GRU(100, 5))),
    ("lstm", "dense", (gw.LSTM(3, 50, projection=20), gw.Dense(50, 5))),
    ("embedding", "lstm", (gw.Embedding(1000, 64), gw.LSTM(1000, 5))),
    ("dropout", "dense", (gw.LSTM(3, 50), gw.Dropout(0.2), gw.Dense(3, 1))),
    ("pool", "lstm", (gw.Conv1D(3, 8, 5), gw.Pool("max", 2), gw.LSTM(3, 5))),
    ("conv1d", "batchnorm", (gw.Conv1D(3, 8, 5), gw.BatchNorm(3))),
    ("input", "lstm", (gw.Input((10, 4)), gw.LSTM(3, 5))),
    ("reshape", "dense", (gw.Input((10, 4)), gw.Conv1D(4, 8, 3), gw.Reshape((-1,)), gw.Dense(80, 5))),
    ("input", "conv1d", (gw.Input((2, 4)), gw.Conv1D(4, 8, 3))),
    ("lstm", "lstm_1", (gw.LSTM(3, 5, return_sequences=False), gw.LSTM(5, 6))),
    ("pool", "conv1d_1", (gw.Conv1D(3, 8, 5), gw.Pool("mean"), gw.Conv1D(8, 8, 5))),
    ("lstm", "additiveattention", (gw.LSTM(3, 5), gw.AdditiveAttention(4))),
    ("input", "dense", (gw.Input((7, 3)), gw.Dense(7, 2))),
]


@pytest.mark.parametrize("specs", FITTING, ids=lambda specs: " ".join(type(each).__name__ for each in specs))
def test_chains_that_fit(specs):
    assert [layer.spec for layer in gw.Network.chain(*specs).layers] == list(specs)


@pytest.mark.parametrize(("first", "second", "specs"), UNFIT, ids=lambda each: each if isinstance(each, str) else "")
def test_chains_that_do_not_fit(first, second, specs):
    with pytest.raises(gw.SpecError) as error:
        gw.Network.chain(*specs)
    assert f"Layer '{second}' cannot read what '{first}' gives, of shape (" in str(error.value)
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize("reset", ["before", "after"])
def test_a_gru_that_only_one_side_has_is_explained_all_the_same(reset):
    """TensorFlow 1 resets before the product with one bias, torch after it with two."""
    spec = gw.GRU(3, 50, reset=reset)
    told = gw.explain(spec, "tf1", "torch")
    assert (told.first.total, told.second.total) == (3 * 50 * (3 + 50 + 1), 3 * 50 * (3 + 50 + 2))
    assert sum(cause.parameters for cause in told.causes) == told.difference == 3 * 50
    assert told.notes[0] == (
        "Two different functions: tf1:GRUCell resets before the recurrent product, torch:GRU after it. No weights make "
        "their outputs agree."
    )
    parameters = {cause.name: cause.parameters for cause in told.causes}
    assert parameters == {"second bias": 100, "candidate's recurrent bias": 50}
    network = gw.explain(gw.Network.chain(spec, gw.LSTM(50, 2)), "tf1", "torch")
    assert (network.first.total, network.second.total) == (told.first.total + 424, told.second.total + 432)
    assert network.difference == sum(cause.parameters for cause in network.causes)
    assert network.notes[0] == told.notes[0]
    done = run("explain", "tf1", "torch", "--cell", "GRU", "-x", 3, "-u", 50)
    assert "Two different functions" in done.output
    with pytest.raises(gw.UnsupportedSpecError):
        gw.explain(gw.GRU(3, 50, layers=2), "tf1:GRUCell", "torch:GRUCell")
    assert not [note for note in gw.explain(spec, "keras", "onnx").notes if "different functions" in note]
