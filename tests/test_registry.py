"""Adapters are found by their entry points: under any package name, and a broken one stops no other."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import gatewise as gw
from gatewise import registry
from gatewise.cli import main

ROOT = Path(gw.__file__).parents[2]

LAYOUTS = """
from gatewise.core.layout import Framework, Layout
FRAMEWORK = Framework({name!r}, {title!r}, {needs}, (
    Layout("{name}:Rec", cell="lstm", gates="gofi", tensors={{
        "W": "kernel: features (gate units)", "U": "recurrent_kernel: state (gate units)", "b": "bias: (gate units)"
    }}, source="invented"),
))
"""
ADAPTER = """
import numpy as np
from acme_rnn.engine import Rec
def claims(obj): return isinstance(obj, Rec)
def build(spec, layout): return Rec()
def read(obj): return obj.arrays
def write(obj, arrays):
    obj.arrays = dict(arrays)
    return obj
def run(obj, inputs): return np.asarray(inputs)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that installs packages: files, and a dist-info with entry points for each."""
    caches = [each for each in vars(registry).values() if hasattr(each, "cache_clear")]
    before = set(sys.modules)

    def clear():
        for each in caches:
            each.cache_clear()

    def install(entries, files=(), distribution="acme"):
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        points = "".join(f"{name} = {value}\n" for name, value in entries)
        (info / "entry_points.txt").write_text(f"[gatewise.adapters]\n{points}")
        for name, text in dict(files).items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text)
            if path.parent != tmp_path:
                (path.parent / "__init__.py").touch()
        clear()
        return tmp_path

    monkeypatch.syspath_prepend(str(tmp_path))
    clear()
    yield install
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    clear()


def whole(name="acme", package="acme_rnn", needs='("acme_rnn.engine",)', title="Acme"):
    return {f"{package}/layouts.py": LAYOUTS.format(name=name, needs=needs, title=title)}


ACME = {**whole(), "acme_rnn/adapter.py": ADAPTER, "acme_rnn/engine.py": "class Rec: pass\n"}


def test_the_table_of_our_own_is_that_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["gatewise.adapters"] == registry.OWN
    assert set(registry.OWN) <= set(registry.packages())


def test_an_adapter_under_any_package_name(installed):
    installed([("acme", "acme_rnn")], ACME)
    spec = gw.LSTM(3, 5)
    assert gw.count(spec, "acme").total == 4 * 5 * (3 + 5 + 1)
    assert gw.mapping(spec, "keras", "acme").verdict == "exact"
    record = next(each for each in gw.frameworks() if each.name == "acme")
    assert (record.title, record.installed, record.runnable, record.problem) == ("Acme", True, True, "")
    assert registry.has_adapter("acme")
    assert not registry.holds_models("acme")
    layer = gw.build(spec, "acme")
    assert {name: array.shape for name, array in layer.arrays.items()} == {"W": (3, 20), "U": (5, 20), "b": (20,)}
    with pytest.raises(gw.GatewiseError, match="Whole models of Acme"):
        gw.describe(layer)  # it is claimed, by the package that its class is of
    with pytest.raises(gw.UnsupportedModelError, match=r"builtins\.object belongs to no framework"):
        gw.describe(object())
    assert "acme" in CliRunner().invoke(main, ["frameworks"]).output
    assert gw.diagnose(181, spec, "keras").total == 180


def test_a_package_is_no_adapter_by_its_name(installed):
    evil = "open(__file__ + '.ran', 'w').close()\n"
    files = {"gatewise_evil/layouts.py": evil, "gatewise_evil/adapter.py": evil}
    place = installed([("acme", "acme_rnn")], ACME | files)
    (place / "gatewise_evil" / "__init__.py").write_text(evil)
    for call in (registry.framework, registry.has_adapter, registry.holds_models, registry.adapter, registry.installed):
        with pytest.raises(gw.UnknownFrameworkError, match="No framework is called 'evil'"):
            call("evil")
    with pytest.raises(gw.UnknownFrameworkError):
        gw.count(gw.LSTM(3, 5), "evil")
    assert not list(place.rglob("*.ran"))
    assert "gatewise_evil" not in sys.modules


def test_no_name_in_a_file_is_imported(tmp_path):
    """A description that names a framework, beside a package that would run."""
    import json

    import numpy as np
    from safetensors.numpy import save_file

    network = gw.Network.chain(gw.LSTM(3, 5))
    for name in ("evil", "../evil", "gatewise_evil", "evil.adapter"):
        about = {"framework": name, "form": "model", "frozen": [], "network": network.to_dict()}
        save_file({"x": np.zeros(1)}, tmp_path / "m.safetensors", {"gatewise": json.dumps(about)})
        package = tmp_path / "gatewise_evil"
        package.mkdir(exist_ok=True)
        for file in ("__init__.py", "layouts.py", "adapter.py"):
            (package / file).write_text("open('ran', 'w').close()\n")
        code = "import gatewise as gw\ntry: gw.load('m.safetensors')\nexcept gw.FileError as error: print(error)"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert "No framework is called" in done.stdout, done.stderr
        assert not (tmp_path / "ran").exists()


BROKEN = [
    ("no layouts", "acme_rnn", {"acme_rnn/other.py": ""}, "No module named 'acme_rnn.layouts'"),
    ("not installed", "acme_gone", {}, "No module named 'acme_gone'"),
    ("an import that fails", "acme_rnn", {"acme_rnn/layouts.py": "import acme_missing"}, "acme_missing"),
    ("syntax", "acme_rnn", {"acme_rnn/layouts.py": "def"}, "SyntaxError"),
    ("an end", "acme_rnn", {"acme_rnn/layouts.py": "raise SystemExit('no licence')"}, "SystemExit: no licence"),
    ("nothing declared", "acme_rnn", {"acme_rnn/layouts.py": ""}, "has no FRAMEWORK"),
    ("another object", "acme_rnn", {"acme_rnn/layouts.py": "FRAMEWORK = 'acme'"}, "has no FRAMEWORK of type"),
    ("another name", "acme_rnn", whole("other"), "declares 'other' and not 'acme'"),
    ("needs", "acme_rnn", whole(needs="'acme'"), "needs is not a tuple"),
    ("no functions", "acme_rnn", ACME | {"acme_rnn/adapter.py": "claims = 1"}, "lacks claims, build, read, write, run"),
    ("adapter", "acme_rnn", ACME | {"acme_rnn/adapter.py": "1 / 0"}, "ZeroDivisionError"),
    ("an object", "acme_rnn:FRAMEWORK", whole(), "is no package"),
    ("no package", "acme rnn!", {}, "is no package"),
]


@pytest.mark.parametrize(
    ("package", "files", "reason"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN]
)
def test_a_broken_adapter_is_reported_and_stops_no_other(installed, package, files, reason):
    installed([("acme", package)], files)
    usual = {record.name for record in gw.frameworks()} - {"acme"}
    assert usual == set(registry.OWN)
    (record,) = [each for each in gw.frameworks() if each.name == "acme"]
    assert reason in record.problem
    assert not record.runnable
    listed = CliRunner().invoke(main, ["frameworks"])
    assert listed.exit_code == 0
    assert reason in " ".join(listed.output.split())
    assert gw.count(gw.LSTM(3, 5), "keras").total == 180
    assert gw.diagnose(181, gw.LSTM(3, 5), "keras").total == 180
    with pytest.raises(gw.UnsupportedModelError):
        gw.describe({})
    with pytest.raises(gw.GatewiseError) as error:
        registry.adapter("acme")
    assert type(error.value).__name__ in ("AdapterError", "GatewiseError")
    assert len(str(error.value).splitlines()) == 3


def test_names_that_are_taken_or_no_names(installed):
    points = [("keras", "acme_rnn"), ("ac:me", "acme_rnn"), ("ac-me.2", "acme_dash")]
    installed(points, {**ACME, **whole("ac-me.2", "acme_dash", needs="()")})
    assert registry.framework("keras").title == "Keras 3"
    problems = {record.title: record.problem for record in gw.frameworks() if record.problem}
    assert list(problems) == ["acme_rnn"]
    reasons = " ".join(record.problem for record in gw.frameworks())
    assert "'keras' is the name of gatewise's own adapter, gatewise_keras." in reasons
    assert "'ac:me' is no name" in reasons
    assert gw.count(gw.LSTM(3, 5), "ac-me.2:Rec").total == 180


def test_two_packages_of_one_name(installed):
    installed([("acme", "acme_rnn")], ACME)
    installed([("acme", "acme_rnn")], distribution="acme_again")
    assert gw.count(gw.LSTM(3, 5), "acme").total == 180  # one package, installed twice
    installed([("acme", "acme_two")], whole("acme", "acme_two"), distribution="other")
    with pytest.raises(gw.AdapterError, match="Several packages claim 'acme': acme_rnn, acme_two"):
        gw.count(gw.LSTM(3, 5), "acme")
    assert gw.count(gw.LSTM(3, 5), "torch").total == 200


def test_an_adapter_that_fails_when_it_is_asked(installed):
    installed([("acme", "acme_rnn")], ACME | {"acme_rnn/adapter.py": ADAPTER.replace("isinstance(obj, Rec)", "1 / 0")})
    import acme_rnn.engine

    with pytest.raises(gw.UnsupportedModelError, match="ZeroDivisionError"):
        gw.describe(acme_rnn.engine.Rec())


def test_a_backend_that_keras_does_not_have(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflw")
    with pytest.raises(gw.GatewiseError, match="Keras has no backend 'tensorflw'") as error:
        registry.adapter("keras")
    assert "Known: tensorflow, jax, torch, numpy, openvino." in str(error.value)
    assert "Did you mean 'tensorflow'?" in str(error.value)
    assert "pip install" not in str(error.value)
    record = next(record for record in gw.frameworks() if record.name == "keras")
    assert not record.installed
    assert record.problem == "Keras has no backend 'tensorflw'."


def test_names_in_another_case():
    for name, meant in (("Keras", "keras"), ("TORCH", "torch"), ("torch:lstm", "torch:LSTM"), ("PyTorch", "torch")):
        with pytest.raises(gw.UnknownFrameworkError, match=f"Did you mean '{meant}'"):
            gw.count(gw.LSTM(3, 5), name)


def test_every_package_says_that_it_is_typed():
    """PEP 561: the marker in a package holds for all within it; the project file puts it into the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"] == {"*": ["py.typed"]}
    folders = [path.parent for home in ("src", "adapters") for path in (ROOT / home).glob("*/__init__.py")]
    assert len(folders) == 1 + len(registry.OWN)
    assert [folder.name for folder in folders if not (folder / "py.typed").is_file()] == []
