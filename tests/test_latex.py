"""What ``--format latex`` prints goes through LaTeX: nothing stops it, and nothing runs off the page."""

import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise.cli import main
from gatewise.core.teach import NOTATIONS, OPTIONS
from gatewise.report import latex
from gatewise.report.tables import Report, Table, render

COMMANDS = [
    "count keras torch -x 3 -u 50",
    "count keras torch tf1 haiku -x 2308 -u 1024 --gates --timesteps 40 --batch 2",
    "count keras torch cudnn --cell GRU -x 3 -u 50 --layers 3 --bidirectional --gates",
    "count torch -x 3 -u 50 --projection 7",
    "count keras torch -x 3 --vary units=32:512:32",
    "count keras torch onnx --cell RNN -u 5 --vary features=1:120",
    "explain keras torch -x 3 -u 50",
    "explain onnx tf1 -x 3 -u 50 --peepholes",
    "explain keras torch --cell GRU -x 3 -u 50 --layers 2 --bidirectional",
    "map keras torch -x 3 -u 2",
    "map torch keras --cell GRU -x 3 -u 2 --layers 2 --bidirectional",
    "map torch cudnn -x 3 -u 2",
    "map tf1 onnx -x 3 -u 2 --peepholes",
    "map nnx flax --cell GRU -x 3 -u 2",
    "compare comparisons/published.toml",
    "frameworks",
    "frameworks --layouts",
    "frameworks --defaults",
    "frameworks --gaps",
    "diagnose 120 keras -x 1 -u 10",
    "diagnose 481 keras -x 1 -u 10",
    "diagnose 480 keras -x 1 -u 10",
    "diagnose 10801 torch -x 3 -u 50 --head 1 --timesteps 10",
    "diagnose 24 keras -x 1 -u 1 --stale features=3 --stale units=2",
    "solve 299681",
    "solve 299681 torch --all --cell RNN",
    "solve 7 -u 9",
    *(f"explain --option {name}" for name in OPTIONS),
    *(
        f"explain {who} -x 3 -u 20 {layer} --equations {notation}"
        for notation in NOTATIONS
        for who, layer in [
            ("keras torch", ""),
            ("keras torch", "--no-bias --activation hard_sigmoid"),
            ("tf1 onnx", "--peepholes"),
            ("torch", "--projection 7 --layers 2 --bidirectional"),
            ("keras torch", "--cell GRU --bidirectional"),
            ("keras", "--cell GRU --reset before"),
            ("keras torch", "--cell RNN --activation relu"),
        ]
    ),
]


def printed(command):
    done = CliRunner().invoke(main, [*command.split(), "--format", "latex"])
    assert done.exit_code in (0, 1), done.output
    assert done.stdout, command
    return done.stdout


def typeset(texts, path):
    """Run LaTeX on texts by their names; return how far lines run over, by the name of the text, in points."""
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex here, so no page was set (Debian: apt-get install texlive-latex-base)")
    body = "\n\\clearpage\n".join(f"\\typeout{{== {name}}}\n{text}" for name, text in texts.items())
    packages = ", ".join(latex.PACKAGES)
    source = f"\\documentclass{{article}}\n\\usepackage{{{packages}}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (path / "page.tex").write_text(source, encoding="utf-8")
    # A table that breaks over pages gets its columns from the run before.
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"],
            cwd=path,
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        assert done.returncode == 0, done.stdout[-3000:]
    over = {}
    for part in done.stdout.split("== ")[1:]:
        name = part.splitlines()[0]
        widths = [float(each) for each in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt", part)]
        over |= {name: max(widths)} if widths else {}
    assert len(done.stdout.split("== ")) > len(texts)
    return over


def test_every_command_is_set_and_stays_on_the_page(tmp_path):
    texts = {str(number): printed(command) for number, command in enumerate(COMMANDS)}
    over = typeset(texts, tmp_path)
    assert {COMMANDS[int(number)]: points for number, points in over.items()} == {}


def test_a_port_and_a_comparison(tmp_path, torch):
    from gatewise.live import port
    from gatewise.report.reports import porting, verifying

    layer = gw.build(gw.Network.chain(gw.GRU(3, 5, bidirectional=True, return_state=False), gw.Dense(10, 2)), "torch")
    other = gw.port(layer, "torch")
    with torch.no_grad():
        other.gru.weight_hh_l0.copy_(other.gru.weight_hh_l0.roll(5, 0))
    parity = gw.verify(layer, other, gradients=True, training_steps=3)
    assert parity.diagnosis
    texts = {
        "port": render(porting(port(layer, "torch")), "latex"),
        "verify": render(verifying(parity), "latex"),
    }
    assert typeset(texts, tmp_path) == {}


def test_any_sign_in_any_cell(tmp_path):
    """What a user may have called a layer: every ASCII sign, at the beginning of a cell too."""
    signs = [chr(code) for code in range(33, 127)]
    rows = [[sign, f"{sign}{sign}", f"a{sign}1 {sign}b{sign}", f"'{sign}'"] for sign in signs]
    report = Report(signs, [Table(f"All: {' '.join(signs)}", ["*", "[2pt]", "_", "&"], rows)], [" ".join(signs)])
    assert typeset({"signs": render(report, "latex")}, tmp_path) == {}


def test_long_words_are_broken(tmp_path):
    name = "model/bidirectional_1/forward_layer/lstm_cell/recurrent_kernel[:, 0:50]"
    rows = [[f"{name}", f"{name}.T beside {name}", 1_000_000, "SomeQuiteLongNameOfAClassThatGoesOn"]] * 40
    report = Report([name, f"It is {name}."], [Table("", ["first", "second", "third", "fourth"], rows)])
    assert typeset({"names": render(report, "latex")}, tmp_path) == {}


# ── what needs no LaTeX ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("command", COMMANDS)
def test_no_sign_is_left_that_latex_does_not_know(command):
    text = printed(command)
    assert text.isascii(), set(filter(lambda sign: not sign.isascii(), text))
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    assert text.count("\\begin{") == text.count("\\end{")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("11,000 - 10,800", "11,000 $-$ 10,800"),
        ("-200", "$-$200"),
        ("output-size-one, 1-2", "output-size-one, 1-2"),
        ("9.4e-08 and 1e+30", r"$9.4\cdot10^{-8}$ and $1\cdot10^{30}$"),
        ("a_b^c ~ {d} \\ 5% & #", r"a\_b\textasciicircum{}c \textasciitilde{} \{d\} \textbackslash{} 5\% \& \#"),
        ("the gate's 'lstm'", "the gate's `lstm'"),
        ("2 < 3 | 4 > 1", r"2 $<$ 3 $|$ 4 $>$ 1"),
    ],
)
def test_signs(text, written):
    assert latex.escape(text) == written


def test_a_small_table_is_plain():
    assert latex.table(["cause", "parameters"], [["second bias", "200"]], [False, True]).splitlines() == [
        r"\begin{center}",
        r"\setlength{\extrarowheight}{2pt}",
        r"\begin{tabular}{@{}lr@{}}",
        r"\hline",
        r"cause & parameters \\",
        r"\hline",
        r"second bias & 200 \\",
        r"\hline",
        r"\end{tabular}",
        r"\end{center}",
    ]


def test_a_bracket_at_the_beginning_of_a_row_is_no_option():
    assert r"{[}h, x] & 1 \\" in latex.table(["what", "n"], [["[h, x]", "1"]], [False, True])


def test_a_long_table_goes_on_overleaf():
    text = latex.table(["n"], [[str(n)] for n in range(100)], [True])
    assert r"\begin{longtable}{@{}r@{}}" in text
    assert text.index(r"\endhead") < text.index("99")


def test_readme_names_the_packages():
    from pathlib import Path

    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert rf"\usepackage{{{', '.join(latex.PACKAGES)}}}" in readme
