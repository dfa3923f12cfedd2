"""What a person sees: tables that fit the terminal, any encoding, progress, files by suffix, the words of options."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise.cli import answer, main, progress
from gatewise.cli.group import ALIASES, COMMANDS
from gatewise.report.columns import columns, columns_of, wrapped
from gatewise.report.tables import Cell, Report, Table, render

LAYER = ["-x", "3", "-u", "50"]
CASES = """
[[case]]
id = "one"
about = "A layer & its head."
stated = 10_851
layers = ["LSTM(features=3, units=50, activation='relu')", "Dense(50, 1)"]
show = ["tensors", "gates", "mapping"]
"""
COMMANDS_SHOWN = {
    "count": ["count", "keras", "torch", "onnx", *LAYER, "--gates", "-t", "400"],
    "count a stack": ["count", "torch", *LAYER, "--layers", "3", "--bidirectional"],
    "grow": ["count", "keras", "torch", "-x", "3", "--vary", "units=32:128:32"],
    "explain": ["explain", "keras", "torch", "--cell", "gru", *LAYER],
    "equations": ["explain", "keras", "torch", "-x", "3", "-u", "2", "--equations"],
    "option": ["explain", "--option", "recurrent_dropout"],
    "map": ["map", "keras", "torch", "-x", "3", "-u", "2"],
    "map both ways": ["map", "torch", "keras", "-x", "3", "-u", "2", "--layers", "2", "--bidirectional"],
    "map elsewhere": ["map", "keras", "onnx", "-x", "3", "-u", "2", "--bidirectional", "--proof"],
    "frameworks": ["frameworks"],
    "layouts": ["frameworks", "--layouts"],
    "defaults": ["frameworks", "--defaults"],
    "gaps": ["frameworks", "--gaps"],
    "diagnose": ["diagnose", "120", "keras", "-x", "1", "-u", "10"],
    "solve": ["solve", "299681"],
    "table": ["table", "{folder}/cases.toml"],
    "count a file": ["count", "{folder}/model.safetensors"],
    "explain a file": ["explain", "{folder}/model.safetensors"],
    "inspect": ["inspect", "{folder}/model.safetensors"],
    "verify": ["verify", "{folder}/model.safetensors", "{folder}/model.safetensors"],
}


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(torch, tmp_path_factory):
    path = tmp_path_factory.mktemp("terminal")
    (path / "cases.toml").write_text(CASES)
    layers = gw.LSTM(3, 4, bidirectional=True, return_state=False), gw.Dense(8, 2)
    gw.save(gw.build(gw.Network.chain(*layers), "torch"), path / "model.safetensors")
    return path


# ── width ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", COMMANDS_SHOWN.values(), ids=COMMANDS_SHOWN)
def test_every_answer_fits_the_terminal(command, folder, monkeypatch):
    arguments = [word.format(folder=folder) for word in command]
    shown = {}
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        done = invoke(*arguments)
        assert done.exit_code in (0, 1), done.output
        long = [line for line in done.stdout.splitlines() if columns_of(line) > width]
        assert not long, long[:3]
        shown[width] = done.stdout
    assert "See also: " in shown[80]
    monkeypatch.delenv("COLUMNS")
    assert max(map(columns_of, invoke(*arguments).stdout.splitlines())) >= max(map(columns_of, shown[120].splitlines()))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_and_shows_an_example(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = invoke(name, "--help")
    assert done.exit_code == 0
    assert all(columns_of(line) <= 80 for line in done.stdout.splitlines()), done.stdout
    assert f"gatewise {name}" in done.stdout


def test_the_list_of_commands_cuts_no_sentence(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = invoke("--help").stdout
    assert "..." not in text.partition("Options:")[2]
    assert all(columns_of(line) <= 80 for line in text.splitlines())


ROWS = [["name", "size", "where it is"], ["kernel", "600", "layer/kernel[:, 0:2]"], ["b", "1", "from here to there"]]


@pytest.mark.parametrize("width", range(12, 60))
def test_a_table_loses_nothing_at_any_width(width):
    text = columns(ROWS, [False, True, False], width)
    squeezed = "".join(text.split())
    for row in ROWS[1:]:
        for cell in row:
            for piece in wrapped(cell, 10):
                assert "".join(piece.split()) in squeezed or len(cell) > 10, (piece, text)
    if width >= 30:
        assert max(map(columns_of, text.splitlines())) <= width
    assert "600" in text


def test_a_narrow_table_goes_without_what_it_can_spare():
    assert "transposed" not in columns([["rule", "transposed"], ["transpose", "yes"]], [False] * 2, 12, ["transposed"])
    assert "transposed" in columns([["rule", "transposed"], ["transpose", "yes"]], [False] * 2, 40, ["transposed"])


# ── files and formats ───────────────────────────────────────────────────────────────────────────────────────────

SUFFIXES = {".txt": "plain", ".md": "github", ".tex": "latex", ".html": "html", ".csv": "csv", ".json": "json"}


@pytest.mark.parametrize(("suffix", "format"), SUFFIXES.items())
@pytest.mark.parametrize("command", ["explain", "map", "equations", "solve", "option", "count a file"])
def test_the_suffix_of_an_output_says_its_format(command, suffix, format, folder, tmp_path):
    arguments = [word.format(folder=folder) for word in COMMANDS_SHOWN[command]]
    output = tmp_path / f"out{suffix.upper()}"
    done = invoke(*arguments, "-o", output)
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert done.stderr == f"Wrote {output}.\n"
    text = output.read_text(encoding="utf-8")
    printed = invoke(*arguments, "-f", format).stdout
    assert text.rstrip() == printed.partition("\nSee also: ")[0].rstrip()
    assert ("See also" in printed) == (format == "plain")


def test_markdown_is_github_and_a_format_that_is_named_wins(tmp_path):
    assert (
        invoke("count", "keras", *LAYER, "-f", "markdown").stdout
        == invoke("count", "keras", *LAYER, "-f", "github").stdout
    )
    invoke("count", "keras", *LAYER, "-f", "csv", "-o", tmp_path / "table.tex")
    assert (tmp_path / "table.tex").read_text().startswith("framework,tensor,")
    done = invoke("count", "keras", *LAYER, "-o", tmp_path / "table.doc")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "unsupported file type .doc" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["table.tex"]


@pytest.mark.parametrize("name", ["nowhere/out.md", "."])
def test_a_place_that_cannot_be_written_is_refused_at_once(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("count", "keras", *LAYER, "-f", "github", "-o", name)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "cannot be written" in done.stderr


def test_data_formats_hold_plain_numbers(folder):
    one = json.loads(invoke("table", folder / "cases.toml", "-f", "json").stdout)["tables"][0]["rows"][0]
    assert (one["stated"], one["keras"], one["torch"], one["torch - keras"]) == (10_851, 10_851, 11_051, 200)
    [row] = list(csv.DictReader(io.StringIO(invoke("table", folder / "cases.toml", "-f", "csv").stdout)))[:1]
    assert (row["keras"], row["torch"]) == ("10851", "11051")
    told = json.loads(invoke("explain", "keras", "torch", *LAYER, "-f", "json").stdout)["tables"][1]["rows"]
    assert told[-1]["formula"] == "11000 - 10800"
    solved = json.loads(invoke("solve", "10851", "-f", "json").stdout)["tables"][0]["rows"]
    assert {row["parameters"] for row in solved} == {10_851}
    file = folder / "model.safetensors"
    outputs = json.loads(invoke("verify", file, file, "-f", "json").stdout)["tables"][0]["rows"]
    assert all(isinstance(row["max |Δ|"], float) and isinstance(row["shape"], list) for row in outputs)


def test_a_cell_has_a_value_and_a_text():
    report = Report([], [Table("", ["a", "b"], [[Cell(1234.5, "1.2e+03"), Cell(float("nan"), "nan")]])])
    assert "1.2e+03" in render(report, "plain")
    assert render(report, "csv").splitlines()[1] == "1234.5,nan"
    assert json.loads(render(report, "json"))["tables"][0]["rows"] == [{"a": 1234.5, "b": None}]


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_second_names():
    assert ALIASES.keys() == {"mapping", "map_weights", "tabulate", "compare"}
    for other, name in ALIASES.items():
        assert main.get_command(None, other) is main.get_command(None, name)
        assert other not in invoke("--help").stdout.split()
    assert gw.map_weights is gw.mapping
    assert gw.tabulate is gw.compare


def test_names_of_frameworks_in_any_case():
    plain = invoke("count", "keras:LSTM", *LAYER).stdout
    assert invoke("count", "Keras", *LAYER).stdout == invoke("count", "KERAS:lstm", *LAYER).stdout == plain
    done = invoke("count", "Kears", *LAYER)
    assert done.exit_code == 2
    assert "Did you mean 'keras'?" in done.stderr


def test_options_are_said_as_options():
    port = main.get_command(None, "port")
    assert answer.said_in_options("second_bias='trainable' frees it.", port) == "--second-bias trainable frees it."
    verify = main.get_command(None, "verify")
    assert answer.said_in_options("Use training_steps=10 and gradients=True.", verify) == (
        "Use --training-steps 10 and --gradients."
    )
    assert answer.said_in_options("second_bias='trainable' frees it.", verify) == "second_bias='trainable' frees it."


# ── refused before a framework is imported ──────────────────────────────────────────────────────────────────────

EARLY = [
    ["port", "missing.keras", "x.bad"],
    ["port", "missing.keras", "x.safetensors"],
    ["port", "here.keras", "x.bad"],
    ["port", "here.keras", "nowhere/x.safetensors"],
    ["port", "here.txt", "x.safetensors"],
    ["verify", "here.keras", "missing.safetensors"],
    ["verify", "here.keras", "here.keras", "--inputs", "missing.npz"],
    ["explain", "here.keras", "missing.keras"],
    ["explain", "here.keras", "-x", "3"],
    ["count", "missing.keras"],
    ["count", "here.keras", "other.keras"],
    ["count", "here.keras", "--gates"],
    ["inspect", "missing.json"],
    ["build", "torch", "x.keras", *LAYER],
    ["build", "tortch", "x.safetensors", *LAYER],
    ["build", "keras", "x.bad", *LAYER],
    ["build", "keras", "x.keras", "-x", "3"],
]


def test_wrong_arguments_are_refused_before_a_framework_is_imported(tmp_path):
    for name in ("here.keras", "here.txt", "other.keras"):
        (tmp_path / name).write_bytes(b"no model")
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom gatewise.cli import main\n"
        f"for words in {EARLY!r}:\n"
        "    done = CliRunner().invoke(main, words)\n"
        "    assert done.exit_code == 2 and not done.stdout and 'Traceback' not in done.stderr, (words, done.output)\n"
        "    assert 'Error: ' in done.stderr, (words, done.stderr)\n"
        "print(sorted({'keras', 'tensorflow', 'torch', 'numpy', 'h5py'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


# ── encodings ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_a_terminal_of_another_encoding_gets_an_answer(encoding):
    """In a process: what Python does with the stream is what is tested."""
    code = (
        "import sys\nfrom gatewise.cli import main\n"
        "for words in ('map keras torch -x 3 -u 2', 'explain keras -x 3 -u 2 --equations', 'count \\u00e9 -u 2'):\n"
        "    try:\n        main(words.split(), standalone_mode=True)\n    except SystemExit:\n        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert done.returncode == 0
    text = done.stdout.decode("utf-8" if encoding == "ascii" else encoding)
    assert "keras:LSTM" in text
    assert "torch:LSTM: exact" in text
    assert b"Traceback" not in done.stderr
    if encoding != "ascii":  # click writes UTF-8 to a terminal that claims to know ASCII alone
        assert "keras:LSTM > torch:LSTM" in text


# ── progress ────────────────────────────────────────────────────────────────────────────────────────────────────


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def fileno(self):
        return self.handle

    encoding = "utf-8"


@pytest.fixture
def terminal(monkeypatch, tmp_path):
    stream, path = Terminal(), tmp_path / "stderr"
    with path.open("w") as file:
        stream.handle = file.fileno()
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
        monkeypatch.setattr(progress, "PATIENCE", 0.05)
        monkeypatch.setenv("TERM", "xterm")
        yield path


def test_progress_shows_the_stages_and_clears_the_line(terminal):
    from gatewise.stages import stage

    with progress.working():
        stage("Reading model.keras")
        for _ in range(100):
            time.sleep(0.05)
            if "Reading model.keras" in terminal.read_text():
                break
        stage("Running both")
        time.sleep(0.3)
    text = terminal.read_text()
    assert "Reading model.keras" in text
    assert "Running both" in text
    assert text.endswith("\x1b[2K") or "\x1b[?25h" in text[-30:]
    assert not [each for each in threading.enumerate() if "Thread-" in each.name and isinstance(each, threading.Timer)]


def test_progress_is_silent_where_work_is_short_or_nobody_looks(terminal, monkeypatch):
    with progress.working():
        pass
    assert terminal.read_text() == ""
    monkeypatch.setattr(Terminal, "isatty", lambda self: False)
    with progress.working():
        time.sleep(0.2)
    assert terminal.read_text() == ""


def test_progress_ends_with_an_error(terminal):
    def fail():
        with progress.working():
            time.sleep(0.6)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not [each for each in threading.enumerate() if isinstance(each, threading.Timer)]


def test_errors_fit_the_terminal(monkeypatch):
    """Long lines of errors are wrapped at its width, and only there: in a pipe a line is a line."""
    for command in (["count", "kears", *LAYER], ["map", "keras", "torch", *LAYER, "--activation", "rleu"]):
        monkeypatch.delenv("COLUMNS", raising=False)
        whole = invoke(*command).stderr
        assert max(map(len, whole.splitlines())) > 80
        monkeypatch.setenv("COLUMNS", "80")
        done = invoke(*command)
        assert max(map(len, done.stderr.splitlines())) <= 80
        assert done.stderr.split() == whole.split()
    wrong = invoke("count", "keras", *LAYER, "--cell", "LSTMM")
    assert wrong.exit_code == 2
    assert max(map(len, wrong.stderr.splitlines())) <= 80


def test_a_blank_line_stands_only_beside_rows_of_several_lines():
    rows = [["name", "what"], ["a", "short"], ["b", "one two three four five six"], ["c", "short"], ["d", "short"]]
    lines = columns(rows, [False, False], 16).splitlines()
    assert lines[2] == "a     short"
    assert lines[3] == ""
    assert lines[-2:] == ["c     short", "d     short"]
