"""The command line: every format can be read by what reads such a format, and bad input gets one clear message."""

from __future__ import annotations

import csv
import html.parser
import io
import itertools
import json
import pickle
import random
import re
import zipfile

import click
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import gatewise as gw
from gatewise.checkpoints import load
from gatewise.cli import main
from gatewise.errors import FileError

FORMATS = ("plain", "github", "latex", "html", "csv", "json")
LAYER = ["-x", "3", "-u", "50"]
CASES = """
title = "Two cases"
[[case]]
id = "one"
about = "A layer & its head, 100 % of it."
stated = 10_851
timesteps = 400
layers = ["LSTM(features=3, units=50, activation='relu')", "Dense(50, 1)"]
show = ["tensors", "gates", "mapping"]
[[case]]
id = "two"
layers = ["GRU(3, 5)"]
"""


def invoke(*arguments, **options):
    """Run a command; an exception that is no exit is an error of ours."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False, **options)


def ok(*arguments):
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


# ── formats ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cases(tmp_path):
    path = tmp_path / "cases.toml"
    path.write_text(CASES)
    return path


COMMANDS = {
    "count": ["count", "keras", "torch", *LAYER, "--gates", "--timesteps", "400", "--activation", "relu"],
    "count a stack": ["count", "torch", *LAYER, "--layers", "2", "--bidirectional"],
    "count a convolution": ["count", "keras", "torch", "--cell", "Conv1D", "-x", "8", "-u", "6", "--width", "3"],
    "count a convolution of images": [
        *["count", "keras", "torch", "--cell", "Conv2D", "-x", "3", "-u", "8", "--height", "3", "--width", "5"]
    ],
    "count an embedding": ["count", "keras", "--cell", "Embedding", "--tokens", "1000", "-u", "64"],
    "explain": ["explain", "keras", "torch", *LAYER, "--batch", "32"],
    "explain a gru": ["explain", "keras", "torch", "--cell", "gru", *LAYER],
    "map": ["map", "keras", "torch", "-x", "3", "-u", "2"],
    "map a stack": ["map", "torch", "keras", "-x", "3", "-u", "2", "--layers", "2", "--bidirectional"],
    "frameworks": ["frameworks"],
    "frameworks with layouts": ["frameworks", "--layouts"],
    "compare": ["table", "{cases}"],
}


class Page(html.parser.HTMLParser):
    """Checks that every tag that is opened is closed, innermost first."""

    def __init__(self):
        super().__init__()
        self.open, self.cells, self.tables = [], 0, 0

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.cells += tag in ("td", "th")
        self.tables += tag == "table"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def table_rows(text):
    """The rows of every table of a csv answer."""
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_in_every_format(command, format, cases):
    done = invoke(*(str(cases) if word == "{cases}" else word for word in command), "--format", format)
    assert done.exit_code == 0
    assert done.stderr == ""
    text = done.stdout
    assert text.strip()
    assert text.endswith("\n")
    if format == "json":
        assert isinstance(json.loads(text), dict)
    elif format == "csv":
        for table in text.strip("\n").split("\n\n"):
            rows = table_rows(table)
            assert len(rows) > 1
            assert {len(row) for row in rows} == {len(rows[0])}
    elif format == "html":
        page = Page()
        page.feed(text)
        page.close()
        assert page.open == []
        assert page.tables >= 1
        assert page.cells > 4
    elif format == "latex":
        begun = re.findall(r"\\begin\{(\w+)\}", text)
        assert begun
        assert sorted(begun) == sorted(re.findall(r"\\end\{(\w+)\}", text))
        assert not set("·→×−…≠") & set(text)
        assert text.count("{") == text.count("}")
        assert not re.search(r"(?<!\\)[%#]", text)
        assert text.isascii()
    elif format == "github":
        header, rule = next(
            pair for pair in itertools.pairwise(text.splitlines()) if pair[1] and set(pair[1]) <= set("|:-")
        )
        assert header.count("|") == rule.count("|") > 2
        shape = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in shape}) <= 1 + text.count("\n\n")


def test_an_unknown_format_is_refused():
    done = invoke("count", "keras", *LAYER, "--format", "xml")
    assert done.exit_code == 2
    assert "xml" in done.stderr


# ── golden totals ───────────────────────────────────────────────────────────────────────────────────────────────


def totals(*arguments):
    """framework → the total row of a count in csv."""
    rows = csv.DictReader(io.StringIO(ok("count", *arguments, "--format", "csv")))
    return {row["framework"]: int(row["parameters"]) for row in rows if row["tensor"] == "total"}


def test_totals():
    kernel = 4 * (3 * 50 + 50 * 50)
    assert totals("keras", "torch", *LAYER) == {"keras:LSTM": kernel + 200, "torch:LSTM": kernel + 400}
    assert totals("keras", "torch", *LAYER, "--no-bias") == {"keras:LSTM": kernel, "torch:LSTM": kernel}
    assert totals("keras", "--cell", "GRU", *LAYER) == {"keras:GRU": 3 * (150 + 2500 + 100)}
    assert totals("keras", "--cell", "GRU", "--reset", "before", *LAYER) == {"keras:GRU": 3 * (150 + 2500 + 50)}
    assert totals("keras", "--cell", "dense", "-x", "50", "-u", "1") == {"keras:Dense": 51}
    assert totals("torch", "--cell", "rnn", *LAYER) == {"torch:RNN": 150 + 2500 + 100}
    assert totals("torch", *LAYER, "--projection", "20") == {"torch:LSTM": 4 * 50 * 23 + 400 + 1000}
    assert totals("torch", *LAYER, "--layers", "2", "--bidirectional") == {
        "torch:LSTM": 2 * (4 * 50 * 53 + 400) + 2 * (4 * 50 * 150 + 400)
    }


def test_sizes_as_people_write_them():
    n = 10**12
    expected = {"keras:LSTM": 4 * (3 * n + n * n + n)}
    for spelled in ("1000000000000", "1_000_000_000_000", "1,000,000,000,000"):
        assert totals("keras", "-x", "3", "-u", spelled) == expected


def test_the_rows_of_a_table_add_up():
    rows = list(csv.DictReader(io.StringIO(ok("count", "keras", "torch", *LAYER, "--format", "csv"))))
    for framework in ("keras:LSTM", "torch:LSTM"):
        sizes = [int(row["parameters"]) for row in rows if row["framework"] == framework]
        assert sum(sizes[:-1]) == sizes[-1]


def test_an_explanation_says_why_and_adds_up():
    told = json.loads(ok("explain", "keras", "torch", *LAYER, "--timesteps", "400", "--format", "json"))
    counted, causes = (table["rows"] for table in told["tables"])
    assert [(row["counted"], row["difference"]) for row in counted] == [("parameters", 200), ("effective", 0)]
    rows = causes
    assert [row["parameters"] for row in rows] == [200, 200]
    assert rows[0]["cause"] == "second bias"
    text = ok("explain", "keras", "torch", *LAYER, "--timesteps", "400")
    assert "10,800" in text
    assert "11,000" in text
    assert "The number of timesteps (400) plays no part" in " ".join(text.split())


def test_the_mapping_table_has_a_row_for_each_gate_and_tensor():
    rows = table_rows(ok("map", "keras", "torch", "-x", "3", "-u", "2", "--format", "csv"))
    assert len(rows) == 1 + 4 * 4
    assert rows[1][:4] == ["kernel", "i", "kernel[:, 0:2]", "weight_ih_l0[0:2, :]"]
    assert rows[1][-1] == "transpose"
    assert [row[2:4] for row in rows if row[:2] == ["bias", "o"]] == [["bias[6:8]", "bias_ih_l0[6:8]"]]
    assert "passed  meaning" in ok("map", "keras", "torch", "-x", "3", "-u", "2", "--proof")


def test_frameworks_are_listed():
    listed = {row["name"] for row in csv.DictReader(io.StringIO(ok("frameworks", "-f", "csv")))}
    assert listed == {record.name for record in gw.frameworks()}
    layouts = list(csv.DictReader(io.StringIO(ok("frameworks", "--layouts", "-f", "csv"))))
    assert len(layouts) == sum(len(record.layouts) for record in gw.frameworks())
    assert all(row["source"] for row in layouts)


def test_compare_writes_a_file(cases, tmp_path):
    output = tmp_path / "out.md"
    done = invoke("compare", cases, "--format", "github", "--output", output)
    assert done.exit_code == 0
    assert done.stdout == ""
    assert str(output) in done.stderr
    assert output.read_text() == ok("compare", cases, "--format", "github")
    assert "10,800 + 51 = 10,851" in output.read_text()


# ── map --weights ───────────────────────────────────────────────────────────────────────────────────────────────

SHAPES = {"kernel": (3, 20), "recurrent_kernel": (5, 20), "bias": (20,)}


def keras_weights(dtype="float32", shapes=SHAPES):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def expected(weights):
    """torch's tensors, by hand: i f c o is i f g o, kernels are transposed, the second bias is zero."""
    kernel, recurrent, bias = weights.values()
    return {
        "weight_ih_l0": kernel.T,
        "weight_hh_l0": recurrent.T,
        "bias_ih_l0": bias,
        "bias_hh_l0": np.zeros_like(bias),
    }


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    return path


def read(path):
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return dict(archive)
    return load_file(path)


@pytest.mark.parametrize("target", [".npz", ".safetensors"])
@pytest.mark.parametrize("source", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_arrays_are_brought_over(tmp_path, source, target, dtype):
    weights = keras_weights(dtype)
    given, output = write(tmp_path / f"lstm{source}", weights), tmp_path / f"torch{target}"
    before = given.read_bytes()
    done = invoke("map", "keras", "torch", "--weights", given, "--output", output)
    assert done.exit_code == 0
    assert "LSTM(features=3, units=5)" in done.stdout
    assert f"Wrote {output}" in done.stderr
    made = read(output)
    assert set(made) == set(expected(weights))
    for name, array in expected(weights).items():
        assert made[name].dtype == dtype
        assert np.array_equal(made[name], array)
    assert given.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([given.name, output.name])


def test_arrays_come_back_by_the_other_way(tmp_path):
    given = write(tmp_path / "lstm.npz", keras_weights())
    ok("map", "keras", "onnx", "--weights", given, "-o", tmp_path / "onnx.safetensors")
    ok("map", "onnx", "keras", "--weights", tmp_path / "onnx.safetensors", "-o", tmp_path / "back.npz")
    back = read(tmp_path / "back.npz")
    assert all(np.array_equal(back[name], array) for name, array in keras_weights().items())


PREFIXED = [
    ["lstm/lstm_cell/kernel:0", "lstm/lstm_cell/recurrent_kernel:0", "lstm/lstm_cell/bias:0"],
    ["model.lstm.kernel", "model.lstm.recurrent_kernel", "model.lstm.bias"],
    ["arr_0", "arr_1", "arr_2"],
]


@pytest.mark.parametrize("names", PREFIXED, ids=[names[0] for names in PREFIXED])
def test_names_with_a_prefix_and_arrays_without_names(tmp_path, names):
    weights = dict(zip(names, keras_weights().values(), strict=True))
    if "/" in names[0]:
        given = write(tmp_path / "lstm.safetensors", weights)
    else:
        given = write(tmp_path / "lstm.npz", weights)
    output = tmp_path / "torch.npz"
    ok("map", "keras", "torch", "--weights", given, "--output", output)
    made = read(output)
    assert all(np.array_equal(made[name], array) for name, array in expected(keras_weights()).items())


def test_more_than_ten_arrays_without_names_keep_their_order(tmp_path):
    """arr_10 comes behind arr_9, not behind arr_1."""
    spec = gw.LSTM(3, 2, layers=2, bidirectional=True)
    plan = gw.mapping(spec, "torch", "onnx:LSTM")
    shapes = gw.mapping(spec, "torch", "torch").source_shapes
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes.values()]
    assert len(arrays) == 16
    assert plan.verdict == "impossible"  # onnx is one layer
    given, output = tmp_path / "arrays.npz", tmp_path / "cudnn.npz"
    np.savez(given, *arrays)
    ok("map", "torch", "cudnn", "--weights", given, "--layers", "2", "--bidirectional", "-o", output)
    straight = gw.mapping(spec, "torch", "cudnn").apply(arrays)
    assert np.array_equal(read(output)["weights"], straight["weights"])


INFERRED = [
    (["keras"], {"kernel": (3, 20), "recurrent_kernel": (5, 20)}, "LSTM(features=3, units=5, bias=False)"),
    (["torch"], {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5)}, "LSTM(features=3, units=5, bias=False)"),
    (
        ["torch"],
        {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 2), "weight_hr_l0": (2, 5)},
        "LSTM(features=3, units=5, bias=False, projection=2)",
    ),
    (
        ["torch", "--cell", "GRU"],
        {"weight_ih_l0": (15, 3), "weight_hh_l0": (15, 5), "bias_ih_l0": (15,), "bias_hh_l0": (15,)},
        "GRU(features=3, units=5)",
    ),
    (["keras:Dense"], {"kernel": (50, 1), "bias": (1,)}, "Dense(features=50, units=1)"),
    (["cudnn:LSTM", "-x", "3", "-u", "5"], {"weights": (200,)}, "LSTM(features=3, units=5)"),
    (["cudnn:LSTM", "-u", "5"], {"weights": (200,)}, "LSTM(features=3, units=5)"),
]


@pytest.mark.parametrize(("arguments", "shapes", "words"), INFERRED, ids=[case[2] for case in INFERRED])
def test_sizes_are_read_off_the_arrays(tmp_path, arguments, shapes, words):
    given = write(tmp_path / "weights.npz", keras_weights(shapes=shapes))
    source, *options = arguments
    done = invoke("map", source, source, "--weights", given, *options)
    assert done.exit_code == 0, done.stderr
    assert words in done.stdout


def test_weights_that_are_not_numbers_are_copied_and_told(tmp_path):
    weights = keras_weights()
    weights["kernel"][1, 7] = np.nan
    weights["bias"][3:5] = [np.inf, -np.inf]
    given, output = write(tmp_path / "lstm.npz", weights), tmp_path / "torch.npz"
    done = invoke("map", "keras", "torch", "--weights", given, "--output", output)
    assert done.exit_code == 0
    (kernel,) = [line for line in done.stderr.splitlines() if "'kernel' holds" in line]
    (bias,) = [line for line in done.stderr.splitlines() if "'bias' holds" in line]
    assert "NaN" in kernel
    assert " 1 " in kernel
    assert " 2 " in bias
    assert "'recurrent_kernel'" not in done.stderr
    assert "NaN" not in done.stdout
    assert np.isnan(read(output)["weight_ih_l0"][7, 1])
    assert np.isnan(read(output)["weight_ih_l0"]).sum() == 1


def test_a_condition_that_holds_is_enough(tmp_path):
    """torch's GRU goes where the bias behind the reset gate is missing, if that bias is zero."""
    shapes = gw.mapping(gw.GRU(3, 5), "torch", "nnx").source_shapes
    weights = keras_weights("float64", shapes)
    weights["bias_hh_l0"][10:] = 0
    given, output = write(tmp_path / "gru.npz", weights), tmp_path / "nnx.npz"
    ok("map", "torch", "nnx", "--cell", "GRU", "--weights", given, "-o", output)
    assert output.is_file()
    weights["bias_hh_l0"][10] = 1
    write(given, weights)
    output.unlink()
    done = invoke("map", "torch", "nnx", "--cell", "GRU", "--weights", given, "-o", output)
    assert done.exit_code == 1
    assert "is not zero (up to 1)" in done.stderr
    assert not output.exists()
    assert invoke("map", "torch", "nnx", "--cell", "GRU", "-x", "3", "-u", "5").exit_code == 1


def test_an_existing_output_is_replaced(tmp_path):
    given, output = write(tmp_path / "lstm.npz", keras_weights()), tmp_path / "torch.npz"
    output.write_bytes(b"old")
    ok("map", "keras", "torch", "--weights", given, "--output", output)
    assert set(read(output)) == set(expected(keras_weights()))


# ── bad use without files ───────────────────────────────────────────────────────────────────────────────────────

# arguments, exit status, words of the message
BAD = {
    "unknown framework": (["count", "kears", *LAYER], 2, ["No framework is called 'kears'", "Did you mean 'keras'?"]),
    "unknown second framework": (["explain", "keras", "torhc", *LAYER], 2, ["'torhc'", "Did you mean 'torch'?"]),
    "unknown class": (["count", "torch:LSTMCel", *LAYER], 2, ["no class 'LSTMCel'", "Did you mean 'torch:LSTMCell'?"]),
    "no such cell": (["count", "torch:Linear", *LAYER], 2, ["has no layout for an LSTM in Linear"]),
    "units 0": (["count", "keras", "-x", "3", "-u", "0"], 2, ["units=0 is out of range", "whole number from 1"]),
    "units -1": (["count", "keras", "-x", "3", "-u", "-1"], 2, ["units=-1 is out of range", "whole number from 1"]),
    "units nan": (["count", "keras", "-x", "3", "-u", "nan"], 2, ["units='nan' is not a whole number"]),
    "units text": (["count", "keras", "-x", "3", "-u", "fifty"], 2, ["units='fifty' is not a whole number"]),
    "units 1.5": (["map", "keras", "torch", "-x", "3", "-u", "1.5"], 2, ["units='1.5' is not a whole number"]),
    "units empty": (["count", "keras", "-x", "3", "-u", ""], 2, ["units='' is not a whole number"]),
    "units superscript": (["count", "keras", "-x", "3", "-u", "²"], 2, ["is not a whole number"]),
    "features 0": (["explain", "keras", "torch", "-x", "0", "-u", "5"], 2, ["features=0 is out of range"]),
    "layers 0": (["count", "torch", *LAYER, "--layers", "0"], 2, ["layers=0 is out of range"]),
    "layers 10**12": (["count", "torch", *LAYER, "--layers", str(10**12)], 2, ["layers=1000000000000 is out of range"]),
    "no units": (["count", "keras", "-x", "3"], 2, ["LSTM needs units", "Give -u"]),
    "no features": (["count", "keras", "-u", "3"], 2, ["LSTM needs features", "Give -x"]),
    "no height": (["count", "keras", "--cell", "Conv2D", "-x", "3", "-u", "3"], 2, ["Conv2D needs height", "--height"]),
    "no width": (["count", "keras", "--cell", "Conv1D", "-x", "3", "-u", "3"], 2, ["Conv1D needs width", "--width"]),
    "no tokens": (["count", "keras", "--cell", "Embedding", "-u", "3"], 2, ["Embedding needs tokens", "--tokens"]),
    "option of another kind": (
        ["count", "keras", "--cell", "GRU", *LAYER, "--projection", "2"],
        2,
        ["GRU has no option"],
    ),
    "tokens of an lstm": (["count", "keras", *LAYER, "--tokens", "3"], 2, ["LSTM has no option 'tokens'"]),
    "unknown activation": (["count", "keras", *LAYER, "--activation", "rellu"], 2, ["'rellu'", "Did you mean 'relu'?"]),
    "what a framework lacks": (["count", "keras", *LAYER, "--projection", "2"], 2, ["does not support projection=2"]),
    "what a class lacks": (["count", "torch:LSTMCell", *LAYER, "--layers", "2"], 2, ["does not support layers=2"]),
    "impossible pair": (
        ["map", "keras", "torch", "--cell", "GRU", "--reset", "before", *LAYER],
        1,
        ["No plan from keras:GRU to torch:GRU", "resets before", "train the source with the other reset"],
    ),
    "timesteps text": (["count", "keras", *LAYER, "--timesteps", "many"], 2, ["timesteps"]),
}

USAGE = {
    "unknown option": (["count", "keras", *LAYER, "--unitz", "3"], ["--unitz", "--units"]),
    "unknown command": (["cuont", "keras"], ["No command is called 'cuont'", "Did you mean 'count'?"]),
    "unknown cell": (
        ["count", "keras", *LAYER, "--cell", "LSTN"],
        ["'LSTN' is not a kind of layer", "Did you mean 'LSTM'?"],
    ),
    "unknown reset": (["count", "keras", *LAYER, "--reset", "never"], ["never", "after"]),
    "no framework": (["count", *LAYER], ["FRAMEWORKS"]),
    "one framework": (["explain", "keras", *LAYER], ["SECOND"]),
    "output without weights": (
        ["map", "keras", "torch", *LAYER, "-o", "x.npz"],
        ["--output of arrays needs --weights"],
    ),
    "a number without an option": (["map", "keras", "torch", "3"], ["3"]),
}


def three_parts(message, error=None):
    """What was met; where and what was expected, indented; what to do."""
    lines = message.rstrip("\n").splitlines()
    assert re.match(r"\w+Error: .+", lines[0]), message
    assert len(lines) >= 3, message
    assert all(line.startswith("  ") for line in lines[1:]), message
    assert lines[-1].startswith("  Hint: "), message
    assert len(lines[-1]) > len("  Hint: ")


@pytest.mark.parametrize(("arguments", "status", "words"), BAD.values(), ids=BAD)
def test_bad_input_gets_one_message_in_three_parts(arguments, status, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert done.exit_code == status
    assert done.stdout == ""
    three_parts(done.stderr)
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("arguments", "words"), USAGE.values(), ids=USAGE)
def test_bad_use_is_told_by_the_command_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    for word in [*words, "Usage:", "Error:"]:
        assert word in done.stderr
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


# ── bad files ───────────────────────────────────────────────────────────────────────────────────────────────────


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _missing(folder):
    return folder / "missing.npz"


def _truncated(folder):
    path = write(folder / "lstm.npz", keras_weights())
    path.write_bytes(path.read_bytes()[:-300])
    return path


def _cut_member(folder):
    """The zip is whole, an array inside it is not."""
    path = folder / "lstm.npz"
    with zipfile.ZipFile(path, "w") as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.ones((3, 20)))
        archive.writestr("kernel.npy", buffer.getvalue()[:-100])
    return path


def _flipped(folder):
    path = write(folder / "lstm.npz", keras_weights())
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    return path


def _empty(folder):
    path = folder / "lstm.npz"
    path.write_bytes(b"")
    return path


def _no_arrays(folder):
    path = folder / "lstm.npz"
    np.savez(path)
    return path


def _text(folder):
    path = folder / "lstm.npz"
    path.write_text("kernel = 3")
    return path


def _single(folder):
    path = folder / "lstm.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    return path


def _objects(folder):
    path = folder / "lstm.npz"
    np.savez(path, kernel=np.array([Trap(folder / "trapped")], dtype=object))
    return path


def _pickle(folder):
    path = folder / "lstm.npz"
    path.write_bytes(pickle.dumps(Trap(folder / "trapped")))
    return path


def _pickle_inside(folder):
    path = folder / "lstm.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("kernel.npy", pickle.dumps(Trap(folder / "trapped")))
    return path


def _unknown_suffix(folder):
    path = folder / "lstm.weights"
    path.write_bytes(b"x")
    return path


def _folder(folder):
    path = folder / "lstm.npz"
    path.mkdir()
    return path


def _bad_safetensors(folder):
    path = write(folder / "lstm.safetensors", keras_weights())
    path.write_bytes(path.read_bytes()[:-40])
    return path


def _huge_safetensors(folder):
    path = folder / "lstm.safetensors"
    path.write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    return path


def _with(**changes):
    def make(folder):
        arrays = {name: array for name, array in (keras_weights() | changes).items() if array is not None}
        return write(folder / "lstm.npz", arrays)

    return make


FILES = {
    "missing": (_missing, ["No such file", "missing.npz"]),
    "truncated": (_truncated, ["cannot be read"]),
    "a cut member": (_cut_member, ["cannot be read"]),
    "a flipped byte": (_flipped, ["cannot be read"]),
    "empty": (_empty, ["cannot be read"]),
    "without arrays": (_no_arrays, ["holds no arrays"]),
    "text": (_text, ["cannot be read"]),
    "one array without a name": (_single, ["one array without a name", "numpy.savez"]),
    "objects": (_objects, ["cannot be read"]),
    "a pickle": (_pickle, ["cannot be read"]),
    "a pickle inside": (_pickle_inside, ["cannot be read", "no array"]),
    "unknown suffix": (_unknown_suffix, ["unsupported file type", ".npz"]),
    "a folder": (_folder, ["is a folder"]),
    "cut safetensors": (_bad_safetensors, ["cannot be read"]),
    "safetensors of absurd length": (_huge_safetensors, ["cannot be read"]),
    "a missing tensor": (_with(bias=None, kernel=None), ["missing", "'kernel'"]),
    "a strange tensor": (_with(gamma=np.ones(3)), ["unknown", "'gamma'"]),
    "a misspelt tensor": (
        _with(recurrent_kernel=None, recurent_kernel=np.ones((5, 20))),
        ["'recurent_kernel'", "Did you mean 'recurrent_kernel'?"],
    ),
    "a wrong shape": (_with(bias=np.ones(19)), ["'bias'", "(19,)"]),
    "a transposed tensor": (_with(kernel=np.ones((20, 3))), ["'kernel'", "(20, 3)"]),
    "a wrong number of dimensions": (_with(bias=np.ones((4, 5))), ["'bias'", "2 dimensions"]),
    "no gates": (_with(kernel=np.ones((3, 18)), recurrent_kernel=np.ones((5, 18)), bias=np.ones(18)), ["(3, 18)"]),
    "a size of zero": (_with(kernel=np.ones((0, 20))), ["'kernel'", "(0, 20)"]),
    "text arrays": (_with(bias=np.array(["a"] * 20)), ["'bias'", "not numbers"]),
}


@pytest.mark.parametrize(("make", "words"), FILES.values(), ids=FILES)
def test_bad_files_leave_nothing_behind(make, words, tmp_path):
    given, output = make(tmp_path), tmp_path / "torch.npz"
    before = sorted(path.name for path in tmp_path.iterdir())
    done = invoke("map", "keras:LSTM", "torch", "--weights", given, "--output", output)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    three_parts(done.stderr)
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("container", ["stored.npz", "compressed.npz", "plain.safetensors"])
def test_no_damage_to_a_file_escapes(container, tmp_path):
    """Any byte may be wrong, or the end missing: what comes is arrays or one of our errors, and no file stays open."""
    path = tmp_path / container
    arrays = {name: array[:4] for name, array in keras_weights().items()}
    if container == "compressed.npz":
        np.savez_compressed(path, **arrays)
    else:
        write(path, arrays)
    whole, rng, refused = path.read_bytes(), random.Random(0), 0
    for turn in range(400):
        data = bytearray(whole)
        if turn % 4 == 0:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            load(path)
        except FileError:
            refused += 1
    assert refused > 100


OUTPUTS = {
    "a folder that is not there": ("nowhere/torch.npz", ["cannot be written", "Choose another place"]),
    "a folder that is a file": ("lstm.npz/torch.npz", ["cannot be written"]),
    "a name that is a folder": ("folder.npz", ["cannot be written"]),
    "an unknown suffix": ("torch.bin", ["unsupported file type .bin", ".safetensors", ".tex"]),
    "no suffix": ("torch", ["unsupported file type", "add one of these"]),
    "the input": ("lstm.npz", ["is the file to read", "Write to another file"]),
    "the input by another name": ("link.npz", ["is the file to read"]),
}


@pytest.mark.parametrize(("name", "words"), OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_cannot_be_written(name, words, tmp_path):
    given = write(tmp_path / "lstm.npz", keras_weights())
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "link.npz").symlink_to(given)
    before, data = sorted(path.name for path in tmp_path.rglob("*")), given.read_bytes()
    done = invoke("map", "keras", "torch", "--weights", given, "--output", tmp_path / name)
    assert done.exit_code == 2
    assert done.stdout == ""
    three_parts(done.stderr)
    for word in words:
        assert word in done.stderr
    assert given.read_bytes() == data
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    """The file appears whole or not at all, also when writing fails half way."""
    given, output = write(tmp_path / "lstm.npz", keras_weights()), tmp_path / "torch.npz"
    calls = []

    def failing(member, array, **options):
        calls.append(array)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(array))
        member.write(array.tobytes())

    monkeypatch.setattr(np.lib.format, "write_array", failing)
    done = invoke("map", "keras", "torch", "--weights", given, "--output", output)
    assert done.exit_code == 2
    three_parts(done.stderr)
    assert "No space left on device" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["lstm.npz"]
    assert len(calls) == 3


def test_an_impossible_pair_writes_nothing(tmp_path):
    weights = keras_weights(shapes={"kernel": (3, 15), "recurrent_kernel": (5, 15), "bias": (15,)})
    given, output = write(tmp_path / "gru.npz", weights), tmp_path / "torch.npz"
    done = invoke("map", "keras:GRU", "torch", "--weights", given, "--output", output)
    assert done.exit_code == 1
    assert done.stdout == ""
    three_parts(done.stderr)
    assert "ImpossiblePlanError: No plan from keras:GRU to torch:GRU." in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["gru.npz"]


def test_a_flat_buffer_leaves_its_sizes_open(tmp_path):
    given, output = write(tmp_path / "cudnn.npz", {"weights": np.ones(200)}), tmp_path / "torch.npz"
    done = invoke("map", "cudnn:LSTM", "torch", "--weights", given, "--output", output)
    assert done.exit_code == 2
    three_parts(done.stderr)
    assert "leave units and features open" in done.stderr or "leave features and units open" in done.stderr
    assert not output.exists()
    ok("map", "cudnn:LSTM", "torch", "--weights", given, "--output", output, *["-x", "3", "-u", "5"])
    assert read(output)["weight_ih_l0"].shape == (20, 3)
    done = invoke("map", "cudnn:LSTM", "torch", "--weights", given, *["-x", "4", "-u", "5"])
    assert done.exit_code == 2
    assert "(200,)" in done.stderr


def test_arrays_that_fit_several_kinds_are_asked_about(tmp_path):
    """A kernel and a bias without gates that tell may be a plain cell's or an LSTM's of fewer units."""
    shapes = {"kernel": (3, 20), "recurrent_kernel": (20, 20), "bias": (20,)}
    given = write(tmp_path / "rnn.npz", keras_weights(shapes=shapes))
    assert "RNN(features=3, units=20)" in ok("map", "keras", "torch", "--cell", "RNN", "--weights", given)
    weights = {"W": np.ones((1, 20, 3)), "R": np.ones((1, 20, 5))}
    given = write(tmp_path / "onnx.npz", weights)
    assert "LSTM(features=3, units=5, bias=False)" in ok("map", "onnx", "torch", "--weights", given)


def test_a_size_that_contradicts_the_arrays_is_refused(tmp_path):
    given, output = write(tmp_path / "lstm.npz", keras_weights()), tmp_path / "torch.npz"
    done = invoke("map", "keras", "torch", "--weights", given, "-u", "6", "--output", output)
    assert done.exit_code == 2
    three_parts(done.stderr)
    assert not output.exists()


BAD_CASES = {
    "missing": (None, ["No such file"]),
    "not toml": ("title = ", ["is not TOML"]),
    "not text": (b"\xff\xfe\x00", ["is not TOML"]),
    "no cases": ("title = 'x'", ["has no cases"]),
    "no layers": ("[[case]]\nid = 'a'", ["case a has no layers"]),
    "unknown field": ("[[case]]\nlayer = ['LSTM(3, 5)']", ["unknown field 'layer'", "Did you mean 'layers'?"]),
    "unknown layer": ("[[case]]\nlayers = ['LSTN(3, 5)']", ["is not a layer", "Did you mean 'LSTM'?"]),
    "unknown option": ("[[case]]\nlayers = ['LSTM(3, 5, unit=3)']", ["has no option 'unit'", "Did you mean 'units'?"]),
    "units 0": ("[[case]]\nid = 'a'\nlayers = ['LSTM(3, 0)']", ["case a: units=0 is out of range"]),
    "code": ("[[case]]\nlayers = ['LSTM(3, __import__(\"os\").getpid())']", ["not a plain value"]),
    "unclosed": ("[[case]]\nlayers = ['LSTM(3, 5']", ["Cannot read the layer"]),
    "one size": ("[[case]]\nlayers = ['LSTM(3)']", ["lacks units"]),
    "three sizes": ("[[case]]\nlayers = ['LSTM(3, 5, 7)']", ["too many sizes"]),
    "unknown framework": ("frameworks = ['keras', 'troch']\n[[case]]\nlayers = ['LSTM(3, 5)']", ["'troch'", "'torch'"]),
    "one framework": ("frameworks = ['keras']\n[[case]]\nlayers = ['LSTM(3, 5)']", ["are not two names"]),
    "stated text": ("[[case]]\nstated = '5'\nlayers = ['LSTM(3, 5)']", ["stated='5' is not a whole number"]),
    "show": ("[[case]]\nshow = ['all']\nlayers = ['LSTM(3, 5)']", ["show=['all'] is unknown"]),
    "case is no table": ("case = [1]", ["is not a table"]),
}


@pytest.mark.parametrize(("text", "words"), BAD_CASES.values(), ids=BAD_CASES)
def test_bad_comparisons(text, words, tmp_path):
    path, output = tmp_path / "cases.toml", tmp_path / "out.md"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = invoke("compare", path, "--output", output)
    assert done.exit_code == 2
    assert done.stdout == ""
    three_parts(done.stderr)
    for word in words:
        assert word in done.stderr
    assert not output.exists()


def test_help_names_every_command():
    text = ok("--help")
    for name in main.list_commands(None):
        command = main.get_command(None, name)
        assert name in text
        assert isinstance(command, click.Command)
        assert command.help
        assert "Traceback" not in ok(name, "--help")
    assert gw.__version__ in ok("--version")


STATE = {
    "lstm.weight_ih_l0": (20, 3),
    "lstm.weight_hh_l0": (20, 5),
    "lstm.bias_ih_l0": (20,),
    "lstm.bias_hh_l0": (20,),
    "fc.weight": (1, 5),
    "fc.bias": (1,),
}


def test_one_layer_of_a_state_dict_is_mapped(tmp_path):
    """The arrays of one layer among those of a model: which, is said; where it is open, the layers are listed."""
    arrays = {name: np.random.default_rng(0).normal(size=shape).astype("float32") for name, shape in STATE.items()}
    np.savez(tmp_path / "net.npz", **arrays)
    done = invoke("map", "torch", "keras", "--weights", tmp_path / "net.npz")
    assert done.exit_code == 2
    for words in ("2 layers", "'lstm': LSTM(features=3, units=5)", "'fc': Dense(features=5, units=1)", "--cell"):
        assert words in done.stderr
    out = tmp_path / "keras.npz"
    done = invoke("map", "torch", "keras", "--cell", "LSTM", "--weights", tmp_path / "net.npz", "-o", out)
    assert done.exit_code == 0, done.stderr
    assert "these are the arrays of 'lstm'; those of 'fc' are left out" in done.stderr
    assert np.array_equal(np.load(out)["kernel"], arrays["lstm.weight_ih_l0"].T)


def test_arrays_of_another_framework_are_told_apart(tmp_path):
    np.savez(tmp_path / "net.npz", **{name: np.zeros(shape) for name, shape in STATE.items()})
    done = invoke("map", "keras", "torch", "--weights", tmp_path / "net.npz")
    assert done.exit_code == 2
    assert "keras:LSTM stores kernel, recurrent_kernel, bias." in done.stderr
    assert "They are those of torch:LSTM: name it as the source." in done.stderr


def test_hints_lead_on(tmp_path, monkeypatch):
    """Every missing size at once, both directions as an option, the file that was meant, and the target's suffix."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"PK")
    (tmp_path / "net.py").write_text("")
    (tmp_path / "a.toml").write_text("[[case]]\nlayers = ['lstm(3, 5)']")
    (tmp_path / "b.toml").write_text("[[cases]]\nlayers = ['LSTM(3, 5)']")
    (tmp_path / "c.toml").write_text("frameworks = ['Keras', 'Torch']\n[[case]]\nlayers = ['LSTM(3, 5)']")
    assert "keras" in invoke("table", "c.toml").stdout
    hints = {
        ("count", "keras"): ("LSTM needs features and units.", "Give -x 3 -u 50, say."),
        ("count", "keras", "--cell", "BiGRU"): ("Use --cell GRU --bidirectional.",),
        ("count", "model.keras", "-x", "3", "-u", "5"): ("leave --features and --units out",),
        ("port", "Modle.keras", "x.safetensors"): ("No such file: Modle.keras.", "Did you mean 'model.keras'?"),
        ("port", "missing.keras", "x.safetensors"): ("No such file", "Check the name."),
        ("port", "model.keras", "torch"): ("as in torch.safetensors",),
        ("port", "model.keras", "model.pt"): ("unsupported file type .pt", "torch.save("),
        ("port", "net.py", "x.keras"): ("gatewise transfer",),
        ("map", "keras", "torch", "--weights", "model.keras"): ("a model of Keras", "gatewise port"),
        ("count", "keras", "-x", "3", "--vary", "units"): ("Write units=32:512:32",),
        ("count", "keras", "-x", "3", "--vary", "unit=1:9:2"): ("Cannot vary 'unit=1:9:2'.", "Did you mean 'units'?"),
        ("table", "cases.tom"): ("No such file: cases.tom.",),
        ("table", "a.toml"): ("a.toml, case 1: 'lstm(3, 5)' is not a layer.", "Did you mean 'LSTM'?"),
        ("table", "b.toml"): ("unknown field 'cases'", "Did you mean 'case'?"),
    }
    for command, words in hints.items():
        done = invoke(*command)
        assert (done.exit_code, done.stdout) == (2, "")
        for word in words:
            assert word in done.stderr
    assert "[[case]]" in invoke("table", "--help").stdout


def test_a_port_does_not_replace_its_source(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"PK")
    with pytest.raises(FileError, match="is the file to read"):
        gw.port_file(path, tmp_path / "." / "model.keras")
    assert path.read_bytes() == b"PK"
