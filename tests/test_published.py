"""Every published case, from the real frameworks: Keras and PyTorch build the layers and count them.

The stated numbers are typed here once more, so that neither the TOML file nor the code can change them unseen.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise.cli import main
from gatewise.core.spec import LSTM, Dense

ROOT = Path(gw.__file__).parents[2]
CASES = ROOT / "comparisons" / "published.toml"
TABLES = CASES.with_suffix(".md")
README = ROOT / "README.md"

# case → (what the text says for Keras; what stands beside it for PyTorch; each layer for Keras)
STATED = {
    "A1": (10_851, 11_051, (10_800, 51)),
    "A2": (11_851, 12_051, (11_800, 51)),
    "A3": (10_600, 10_600, (10_600,)),
    "A3 with head": (10_651, 10_651, (10_600, 51)),
    "A4": (10_800, 11_000, (10_800,)),
    "A4 sequences": (10_800, 11_000, (10_800,)),
    "A4 state": (10_800, 11_000, (10_800,)),
    "A4 both": (10_800, 11_000, (10_800,)),
    "B1": (48, 56, (48,)),
    "B2": (32, 32, (20, 12)),
    "B5, T = 10": (48, 56, (48,)),
    "B5, T = 400": (48, 56, (48,)),
    "C1": (12, 16, (12,)),
    "C2": (299_681, 299_809, (299_648, 33)),
    "D1": (491, 531, (480, 11)),
    "E1": (12, 16, (12,)),
    "E2": (16, 20, (16,)),
    "E3": (32, 40, (32,)),
    "E4": (40, 48, (40,)),
}


@pytest.fixture(scope="module")
def rows():
    return {row.case: row for row in gw.compare(CASES).rows}


def test_every_case_is_there(rows):
    assert list(rows) == list(STATED)


@pytest.mark.parametrize("case", STATED)
def test_the_stated_numbers(rows, case):
    row, (keras, torch, parts) = rows[case], STATED[case]
    assert row.stated == keras
    assert row.totals == {"keras": keras, "torch": torch}
    assert row.parts["keras"] == parts
    assert sum(parts) == keras
    assert row.differences == {"torch": torch - keras}
    assert sum(cause.parameters for cause in row.causes["torch"]) == torch - keras
    assert {cause.name for cause in row.causes["torch"]} <= {"second bias"}


def keras_model(keras, row):
    """The model of a case, as its text builds it."""
    layers = []
    for spec in (layer.spec for layer in row.network.layers):
        if isinstance(spec, Dense):
            layers.append(keras.layers.Dense(spec.units, use_bias=spec.bias, activation=spec.activation))
            continue
        assert isinstance(spec, LSTM)
        layers.append(
            keras.layers.LSTM(
                spec.units, use_bias=spec.bias, activation=spec.activation, return_sequences=spec.return_sequences
            )
        )
    first = row.network.layers[0].spec
    shape = (None, first.features) if isinstance(first, LSTM) else (first.features,)
    return keras.Sequential([keras.Input(shape), *layers])


def torch_model(torch, row):
    made = []
    for spec in (layer.spec for layer in row.network.layers):
        kind = torch.nn.Linear if isinstance(spec, Dense) else torch.nn.LSTM
        made.append(kind(spec.features, spec.units, bias=spec.bias))
    return torch.nn.ModuleList(made)


@pytest.mark.parametrize("case", STATED)
def test_keras_says_so_itself(rows, case, keras):
    model = keras_model(keras, rows[case])
    assert model.count_params() == STATED[case][0] == rows[case].totals["keras"]
    assert tuple(layer.count_params() for layer in model.layers) == rows[case].parts["keras"]


@pytest.mark.parametrize("case", STATED)
def test_torch_says_so_itself(rows, case, torch):
    model = torch_model(torch, rows[case])
    assert sum(p.numel() for p in model.parameters()) == STATED[case][1] == rows[case].totals["torch"]
    assert tuple(sum(p.numel() for p in layer.parameters()) for layer in model) == rows[case].parts["torch"]


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("A4", {}),
        ("A4 sequences", {"return_sequences": True}),
        ("A4 state", {"return_state": True}),
        ("A4 both", {"return_sequences": True, "return_state": True}),
    ],
)
def test_output_options_change_no_count(rows, case, options, keras):
    spec = rows[case].network.layers[0].spec
    chosen = {"return_sequences": spec.return_sequences, "return_state": spec.return_state}
    assert chosen == {"return_sequences": False, "return_state": False} | options
    layer = keras.layers.LSTM(50, **options)
    layer.build((None, 10, 3))
    assert layer.count_params() == 10_800 == rows[case].totals["keras"]


def test_timesteps_change_no_count(keras):
    for steps in (1, 10, 40, 400):
        model = keras.Sequential([keras.Input((steps, 3)), keras.layers.LSTM(2)])
        assert model.count_params() == STATED["B1"][0] == STATED[f"B5, T = {steps}"][0] if steps in (10, 400) else 48


def test_b3_shapes(keras):
    layer = keras.layers.LSTM(2)
    layer.build((None, 40, 3))
    counted = gw.count(LSTM(3, 2), "keras")
    assert [tuple(array.shape) for array in layer.get_weights()] == [(3, 8), (2, 8), (8,)]
    assert [term.shape for term in counted.terms] == [(3, 8), (2, 8), (8,)]
    assert [term.parameters for term in counted.terms] == [24, 16, 8]
    assert [term.dimensions for term in counted.terms] == [("features", "4·units"), ("units", "4·units"), ("4·units",)]
    gates = counted.by_gate()
    assert gates == dict.fromkeys("ifgo", (3 + 2) * 2 + 2)


def test_b4_slices():
    """W[:, :h] is gate i, then f, the candidate (Keras: c, here g), and o; U and b alike."""
    h = 2
    rows = {(row.part, row.gate): row.source for row in gw.mapping(LSTM(3, h), "keras", "torch").rows()}
    for number, gate in enumerate("ifgo"):
        assert rows["kernel", gate] == f"kernel[:, {number * h}:{number * h + h}]"
        assert rows["recurrent_kernel", gate] == f"recurrent_kernel[:, {number * h}:{number * h + h}]"
        assert rows["bias", gate] == f"bias[{number * h}:{number * h + h}]"


# ── what is written for people is what comes out ────────────────────────────────────────────────────────────────


def test_the_rendered_tables_are_current():
    rendered = gw.compare(CASES).render("github") + "\n"
    assert TABLES.read_text(encoding="utf-8") == rendered, (
        "comparisons/published.md is not current; write it again:\n"
        "  gatewise compare comparisons/published.toml --format github --output comparisons/published.md"
    )


def blocks(language):
    if not README.is_file():
        return []
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder to run the examples in, with the files that a reader has, and our command on the path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comparisons").symlink_to(ROOT / "comparisons")
    if (ROOT / "examples").is_dir():
        (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.mark.skipif(not README.is_file(), reason="there is no README yet")
def test_the_readme_runs(workplace, keras, torch):
    """All Python blocks in order as one session, then all console blocks; each output is the one that is printed."""
    python, console = blocks("python"), blocks("console")
    assert python or console
    names: dict[str, object] = {}
    for number, block in enumerate(python):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, f"README, Python block {number + 1}", None, 0)
            told = io.StringIO()
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            runner.run(test, out=told.write, clear_globs=False)
            assert runner.failures == 0, told.getvalue()
            names.update(test.globs)
        else:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block, f"README, Python block {number + 1}", "exec"), names)
    for block in console:
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", block, re.MULTILINE):
            words = shlex.split(command)
            if words[0] in ("make", "pip", "git", "cd", "python", "python3"):
                continue  # set-up, which a test of the whole house does
            assert words[0] == "gatewise"
            done = CliRunner().invoke(main, words[1:], catch_exceptions=False)
            shown = [line.rstrip() for line in expected.splitlines()]
            printed = [line.rstrip() for line in (done.stdout + done.stderr).splitlines()]
            if shown and shown[-1] == "…":
                shown, printed = shown[:-1], printed[: len(shown) - 1]
            assert printed == shown, f"$ {command}"
