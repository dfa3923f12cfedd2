"""The command that carries weights between two models that exist: files, and classes in a user's own Python files."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import reprlib
import sys
from typing import Any

import click

from gatewise.cli.answer import answer
from gatewise.cli.options import FORMATS, check_inputs, check_place, check_suffix
from gatewise.errors import FileError, SpecError, TransferError

SOURCES = (".keras", ".h5", ".hdf5", ".safetensors", ".npz")
"""Suffixes of files that weights may come from."""

TARGETS = (".keras", ".h5", ".hdf5", ".safetensors")
"""Suffixes of files that hold a model to be filled."""

WRITTEN = (".safetensors", ".keras")
"""Suffixes of files that a filled model is written to."""


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--output", "-o", type=click.Path(), required=True, help="Where to write the filled target.")
@click.option("--pairs", multiple=True, metavar="A=B", help="Layer A of the source fills layer B of the target.")
@click.option("--inputs", type=click.Path(), metavar="FILE.npz", help="Arrays to feed.  [default: random arrays]")
@click.option(
    "--second-bias",
    type=click.Choice(["frozen", "trainable"]),
    default="frozen",
    show_default=True,
    help="Whether training may change the zero second bias that PyTorch has and Keras lacks.",
)
@click.option("--dtype", metavar="TYPE", help="Type to change the target's floats to, such as float64.")
@click.option("--allow-missing", is_flag=True, help="Go on where a layer of either side has no partner.")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@click.option("--format", "-f", "format", type=click.Choice(list(FORMATS)), help="Format of the answer.")
def transfer(
    source: str,
    target: str,
    output: str,
    pairs: tuple[str, ...],
    inputs: str | None,
    second_bias: str,
    dtype: str | None,
    allow_missing: bool,
    force: bool,
    format: str | None,
) -> None:
    r"""Fill a model that exists with another's weights, and prove it.

    SOURCE and TARGET are model files, a file of arrays as SOURCE, or a class of yours, as net.py:Net or
    net.py:Net(3, hidden=4): that file is run. OUTPUT is .safetensors, a state dict for the class, or .keras. Nothing is
    written unless the outputs agree, or cannot be compared.

    \b
    gatewise transfer model.keras net.py:Net --output net.safetensors
    gatewise transfer model.keras "net.py:Net(3)" --pairs a=b -o n.safetensors
    gatewise transfer state.safetensors other.keras -o filled.keras
    """
    from gatewise.cli.progress import loading, working

    for name, suffixes in ((source, SOURCES), (target, TARGETS)):
        if not is_class(name):
            check_inputs(name, suffixes=suffixes)
    check_suffix(output, WRITTEN)
    check_place(output)
    if os.path.exists(output) and not force:
        raise FileError(f"{output} is there already.", "An existing file of weights is kept.", "Add --force.")
    if inputs is not None:
        check_inputs(inputs, suffixes=(".npz",))
    wanted: dict[str, str] = {}
    for one, other in map(_pair, pairs):
        if wanted.setdefault(one, other) != other:
            raise SpecError(f"--pairs names {one!r} twice.", f"{wanted[one]} and {other}.", "Give it one partner.")
    stdout = sys.stdout
    # What a user's own code prints is no result.
    with working(), contextlib.redirect_stdout(sys.stderr):
        loading(*(name for name in (source, target) if not is_class(name)))
        from gatewise import transfer as transferred
        from gatewise.report.transfers import transferring

        both = [built(name) if is_class(name) else name for name in (source, target)]
        try:
            done = transferred(
                *both,
                pairs=wanted or None,
                inputs=inputs,
                second_bias=second_bias,
                dtype=dtype,
                allow_missing=allow_missing,
            )
        except TransferError as error:
            if error.result is not None:
                with contextlib.redirect_stdout(stdout):
                    answer(transferring(error.result), format, None)
            raise
        write(done.target, output)
    answer(transferring(done), format, None)
    click.echo(f"Wrote {output}.", err=True)


def _pair(text: str) -> tuple[str, str]:
    one, equals, other = text.partition("=")
    if not (equals and one.strip() and other.strip()):
        raise SpecError(f"--pairs {text!r} names no pair.", "Expected source=target.", "Give --pairs encoder.lstm=rnn.")
    return one.strip(), other.strip()


def is_class(name: str) -> bool:
    """Say whether a word means a class in a Python file.

    >>> is_class("net.py:Net(3)"), is_class("model.keras")
    (True, False)
    """
    return ".py:" in name


def built(name: str) -> Any:
    """Run a user's file and build the model that they name in it; arguments are literals."""
    path, _, call = name.partition(".py:")
    path += ".py"
    if not os.path.isfile(path):
        raise FileError(f"{path} is not there.", "Expected a Python file with the class.", "Check the name.")
    made, args, kwargs = _call(call)
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As Python does for a script: its neighbours can be imported, and what it defines can be found by name.
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, folder)
    sys.modules.setdefault(spec.name, module)
    ran = False
    try:
        spec.loader.exec_module(module)
        found = getattr(module, made, None)
        if not callable(found):
            known = [each for each, value in vars(module).items() if isinstance(value, type)]
            raise SpecError(f"{path} has no {made!r}.", f"Classes in it: {', '.join(known)}.", "Name one of them.")
        ran = True
        return found(*args, **kwargs)
    except SpecError:
        raise
    except (Exception, SystemExit) as error:  # The user's own code raises whatever it raises, and may leave.
        said = " ".join(str(error).split())[:500]
        raise FileError(
            f"{name} cannot be built: {type(error).__name__}{': ' if said else ''}{said}",
            f"{path} was run, and {call} called." if ran else f"{path} was run.",
            "Give the arguments that it needs: net.py:Net(3, hidden=4)."
            if ran
            else "Correct that file; what is to run only as a script belongs under if __name__ == '__main__':.",
        ) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _call(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Return the name and the literal arguments of a call.

    >>> _call("Net(3, hidden=4)")
    ('Net', [3], {'hidden': 4})
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, [], {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name):
            kwargs = {str(each.arg): ast.literal_eval(each.value) for each in tree.keywords if each.arg is not None}
            if len(kwargs) == len(tree.keywords):
                return tree.func.id, [ast.literal_eval(each) for each in tree.args], kwargs
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass  # It is said below what was expected.
    raise SpecError(
        f"{reprlib.repr(text)} is no class with literal arguments.",
        "Expected Net, or Net(3, hidden=4): numbers, strings, lists, True, None.",
        "Write a function of no arguments that builds the model, and name that.",
    )


def write(obj: Any, output: str) -> None:
    """Write a filled model: a state dict by the names of its class, or a file of Keras."""
    from gatewise import checkpoints, save
    from gatewise.registry import owner

    _, side = owner(obj)
    state = getattr(side, "state_arrays", None)
    if output.lower().endswith(".safetensors") and state is not None:
        checkpoints.save(output, state(obj))
        return
    save(obj, output)
