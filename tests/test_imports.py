"""Who imports whom: the rooms of the house, read from the source, and what a fresh interpreter loads."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gatewise as gw
from gatewise.core.between import WEIGHTLESS
from gatewise.core.spec import KINDS
from gatewise.registry import framework, packages

ROOT = Path(gw.__file__).parents[2]
HOUSE = Path(gw.__file__).parent
ADAPTERS = {name: Path(importlib.util.find_spec(package).origin).parent for name, package in packages().items()}

# room → what its files may import besides the standard library and their own room
ALLOWED = {
    "core": {"gatewise.errors"},
    "arrays": {"gatewise.core", "gatewise.errors", "numpy"},
    "checkpoints": {"gatewise.arguments", "gatewise.core", "gatewise.errors", "h5py", "numpy", "safetensors"},
    # Facts come in as the types of those who found them; nothing here reads files or runs frameworks.
    "report": {
        "gatewise",  # count and mapping, for the further tables of a comparison
        "gatewise.core",
        "gatewise.errors",
        "gatewise.registry",
        "gatewise.comparison",
        "gatewise.live",
        "gatewise.parity",
        "tabulate",
    },
}
# A method of a result that hands over to another room, which loads when it is asked for: core itself needs neither.
DOORS = {
    "apply": {"gatewise.arrays.apply"},  # Plan.apply
    "_repr_markdown_": {"gatewise.report"},  # what a notebook shows
    "_repr_html_": {"gatewise.report"},
}
PLAIN = ("__init__.py", "layouts.py", "adapter.py")
"""The files of an adapter that are read without its framework; any other may import that framework at its top."""


def imports(path):
    """Yield (module, the function it is imported in, "" at the top) for every import but those for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))

    def walk(node, function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: imports are absolute"
                # ``from gatewise.core import plan`` is gatewise.core.plan
                yield child.module, function
                for alias in child.names:
                    if child.module.startswith("gatewise") and _is_module(f"{child.module}.{alias.name}"):
                        yield f"{child.module}.{alias.name}", function
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            else:
                inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from walk(child, function or (child.name if inner else ""))

    yield from walk(tree, "")


def _is_module(name):
    if not name.startswith("gatewise"):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def is_under(module, owners):
    return any(module == owner or (owner != "gatewise" and module.startswith(f"{owner}.")) for owner in owners)


def is_standard(module):
    return module.partition(".")[0] in sys.stdlib_module_names


ROOM_FILES = [path for room in ALLOWED for path in sorted((HOUSE / room).rglob("*.py"))]


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_rooms(path):
    room = path.relative_to(HOUSE).parts[0]
    allowed = ALLOWED[room] | {f"gatewise.{room}"}
    for module, function in imports(path):
        if is_standard(module):
            continue
        doors = DOORS.get(function, set()) if room == "core" else set()
        assert is_under(module, allowed | doors), f"{path} imports {module}"


def test_the_rule_sees_what_it_forbids(tmp_path):
    """Red on purpose: a file of core that imports NumPy at its top, in a function, and another room."""
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import numpy as np\nfrom gatewise import registry\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "def f():\n    from gatewise.arrays import apply\n"
    )
    found = dict(imports(bad))
    assert found == {
        "numpy": "",
        "gatewise": "",
        "gatewise.registry": "",
        "typing": "",
        "gatewise.arrays": "f",
        "gatewise.arrays.apply": "f",
    }
    allowed = ALLOWED["core"] | {"gatewise.core"}
    assert [name for name in found if not is_standard(name) and is_under(name, allowed)] == []


def test_no_room_but_the_entrances_knows_adapters():
    """An adapter is found through the registry; no other file imports one by name."""
    for path in HOUSE.rglob("*.py"):
        for module, _ in imports(path):
            assert not module.startswith("gatewise_"), f"{path} imports {module}"


def test_frameworks_are_never_switches_in_core():
    """The difference is named, not its owner: no string in core is the name of a framework."""
    names = set(packages()) - {"flax", "nnx"} | {"flax"}
    for path in (HOUSE / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                compared = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
                assert not names & {each for each in compared if isinstance(each, str)}, f"{path}:{node.lineno}"


ADAPTER_FILES = [(name, path) for name, folder in ADAPTERS.items() for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize(("name", "path"), ADAPTER_FILES, ids=[f"{name}-{path.name}" for name, path in ADAPTER_FILES])
def test_adapters(name, path):
    own = path.parent.name
    allowed = {"gatewise.core", "gatewise.arrays", "gatewise.checkpoints", "gatewise.errors", "numpy", own}
    for module, function in imports(path):
        if is_standard(module) or is_under(module, allowed):
            continue
        assert not module.startswith("gatewise"), f"{path} imports {module}"
        assert function or path.name not in PLAIN, f"{path} imports {module} before anyone asks for it"


@pytest.mark.parametrize("name", ADAPTERS)
def test_layouts_need_nothing(name):
    path = ADAPTERS[name] / "layouts.py"
    allowed = {
        "gatewise.core",
        "gatewise.errors",
        path.parent.name,
    }  # that the own files need nothing, a run shows below
    for module, _ in imports(path):
        assert is_standard(module) or is_under(module, allowed), f"{path} imports {module}"


def test_a_dependency_is_declared_if_and_only_if_it_is_imported():
    """Packages that the sources import, but for frameworks, which the adapters' extras bring."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.match(r"[\w-]+", each)[0].lower() for each in project["dependencies"]}
    extras = {
        re.match(r"[\w-]+", each)[0]
        for extra, several in project["optional-dependencies"].items()
        if extra != "dev"
        for each in several
    }
    named = {"dm-haiku": "haiku"}
    extras = {named.get(each, each) for each in extras} | {
        need for name in packages() for need in framework(name).needs
    }
    imported = {
        module.partition(".")[0]
        for path in [*HOUSE.rglob("*.py"), *(file for folder in ADAPTERS.values() for file in folder.rglob("*.py"))]
        for module, _ in imports(path)
        if not is_standard(module) and not module.startswith("gatewise")
    }
    assert declared <= imported, "declared and not imported"
    assert imported - declared <= extras, "imported and not declared"


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = sorted(
    {"numpy", "torch", "keras", "tensorflow", "tf_keras", "jax", "flax", "haiku", "mlx", "onnx", "onnxruntime"}
    | {"equinox", "openvino", "h5py", "safetensors"}
)
LOADED = f"import sys; print(sorted(set({HEAVY}) & set(sys.modules)))"


def test_importing_gatewise_loads_no_framework_and_no_numpy():
    assert run(f"import gatewise; {LOADED}") == "[]\n"
    assert run(f"import gatewise; gatewise.count(gatewise.LSTM(3, 50), 'torch'); {LOADED}") == "[]\n"
    everything = "gatewise.mapping(gatewise.LSTM(3, 50), 'keras', 'torch').proof(); gatewise.frameworks()"
    assert run(f"import gatewise; {everything}; {LOADED}") == "[]\n"


def test_what_is_public_is_listed_and_there():
    listed = {name for name in dir(gw) if not name.startswith("__")}
    assert listed == set(gw.__all__)
    assert set(KINDS) | set(WEIGHTLESS) <= listed
    assert {"importlib", "Any", "overload", "TYPE_CHECKING", "annotations"} & listed == set()
    for name in listed:
        assert getattr(gw, name).__module__.startswith("gatewise"), name
    # Nothing that is public is missing from the list.
    there = {name for name, value in vars(gw).items() if getattr(value, "__module__", "").startswith("gatewise")}
    assert {name for name in there if not name.startswith("_")} <= listed
    with pytest.raises(AttributeError, match="has no attribute 'Lstm'"):
        gw.Lstm  # noqa: B018
    assert run(f"import gatewise; dir(gatewise); gatewise.BatchNorm(3); {LOADED}") == "[]\n"


def test_the_check_of_loaded_modules_sees_numpy():
    assert run(f"import gatewise.arrays.apply; {LOADED}") == "['numpy']\n"


def test_the_command_line_counts_without_numpy():
    code = (
        "import runpy, sys\n"
        "sys.argv = 'gatewise count keras torch -x 3 -u 50'.split()\n"
        "try:\n    runpy.run_module('gatewise', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n" + LOADED
    )
    lines = run(code).splitlines()
    assert lines[-1] == "[]"
    assert any("10,800" in line for line in lines)
    assert any("11,000" in line for line in lines)


def test_layouts_of_all_frameworks_are_read_without_them():
    names = ", ".join(f"gatewise_{name}.layouts" for name in ADAPTERS)
    assert run(f"import {names}; {LOADED}") == "[]\n"
