"""The options that several commands share, and how their words become values."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from gatewise.arguments import path_of
from gatewise.core.spec import KINDS, MERGES, Spec, unknown_option
from gatewise.errors import FileError, SpecError, nearest

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = {name: name for name in ("plain", "github", "latex", "html", "csv", "json")} | {"markdown": "github"}
"""What ``--format`` takes → the format that it means."""

SUFFIX_TO_FORMAT = {
    ".txt": "plain",
    ".md": "github",
    ".markdown": "github",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
    ".csv": "csv",
    ".json": "json",
}

ARRAYS = (".npz", ".safetensors")
"""Suffixes of files that hold arrays."""

MODELS = (".keras", ".h5", ".hdf5", ".safetensors", ".npz")
"""Suffixes of files that may hold a model, or the weights of one."""

_MOST_DIGITS = 100


class _Size(click.ParamType):  # type: ignore[type-arg]
    """A size as a person writes it: ``512``, ``1_000`` or ``1,000``; what it may be, the spec says."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        text = str(value).replace(",", "").replace("_", "")
        if len(text) > _MOST_DIGITS:
            raise SpecError(
                f"A number of {len(text):,} digits is too long.",
                f"A size has at most {_MOST_DIGITS} digits.",
                "Give a size that a layer can have.",
            )
        return int(text) if text.lstrip("+-").isdecimal() else value


SIZE = _Size()


class _Kind(click.ParamType):  # type: ignore[type-arg]
    """A kind of layer, in any case."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        known = {name.lower(): name for name in KINDS}
        if str(value).lower() not in known:
            bare = str(value).lower().removeprefix("bi")
            hint = f"Use --cell {known[bare]} --bidirectional. " if bare in known else nearest(str(value), KINDS)
            self.fail(f"{value!r} is not a kind of layer. {hint}Known: {', '.join(KINDS)}.", param, ctx)
        return known[str(value).lower()]


class _FrameworkName(click.ParamType):  # type: ignore[type-arg]
    """The name of a framework, or of a class of it, in any case: ``Keras``, ``torch:lstm``."""

    name = "framework"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        if not isinstance(value, str) or is_path(value) or (value.islower() and ":" not in value):
            return value
        from gatewise.registry import as_spelled

        return as_spelled(value)


FRAMEWORK = _FrameworkName()


def is_path(word: str) -> bool:
    """Say whether a word means a file, and not a framework.

    >>> is_path("model.keras"), is_path("keras"), is_path("torch:general.LSTM"), is_path("models/lstm")
    (True, False, False, True)
    """
    return os.path.exists(word) or "/" in word or os.sep in word or ("." in word and ":" not in word)


def check_inputs(*paths: str, suffixes: Sequence[str] = MODELS) -> None:
    """Raise ``FileError`` where a file to read is missing or of an unsupported type, before anything is imported."""
    from gatewise import checkpoints

    for path in paths:
        checkpoints.check_readable(path_of(path), suffixes)


def check_suffix(path: str, suffixes: Sequence[str]) -> None:
    """Raise ``FileError`` where the suffix of a file is not one of these."""
    from gatewise import checkpoints

    checkpoints.check_writable(path_of(path), suffixes)


def check_place(path: str) -> None:
    """Raise ``FileError`` where a file cannot be written because of where it would be."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or os.path.isdir(path):
        why = "it is a folder" if os.path.isdir(path) else f"there is no folder {folder}"
        raise FileError(f"{path} cannot be written: {why}.", f"Folder {folder}.", "Choose another place.")


def _output(ctx: click.Context, _: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    also = ARRAYS if ctx.command.name == "map" else ()
    if ctx.params.get("format") is None or os.path.splitext(value)[1].lower() in also:
        check_suffix(value, (*SUFFIX_TO_FORMAT, *also))
    check_place(value)
    return value


def format_of(format: str | None, output: str | None) -> str:
    """Return the format of an answer: what was asked for, else what the suffix of the file says, else plain."""
    if format is not None:
        return FORMATS[format]
    return SUFFIX_TO_FORMAT.get(os.path.splitext(output or "")[1].lower(), "plain")


def options(several: list[Callable[[F], F]]) -> Callable[[F], F]:
    """Return a decorator that adds several options to a command."""

    def decorate(function: F) -> F:
        for option in reversed(several):
            function = option(function)
        return function

    return decorate


spec_options = options(
    [
        click.option("--cell", type=_Kind(), help="Kind of layer: LSTM, GRU, RNN, Dense, …  [default: LSTM]"),
        click.option("--features", "-x", type=SIZE, help="Size of the input."),
        click.option("--units", "-u", type=SIZE, help="Size of the state, or of the output."),
        click.option("--tokens", type=SIZE, help="Rows of an Embedding."),
        click.option("--height", type=SIZE, help="Height of the kernel of a Conv2D."),
        click.option("--width", type=SIZE, help="Width of the kernel of a Conv1D or Conv2D."),
        click.option("--groups", type=SIZE, help="Groups of a convolution."),
        click.option("--layers", type=SIZE, help="Number of stacked layers."),
        click.option("--bidirectional", is_flag=True, default=None, help="Also read the sequence from its end."),
        click.option(
            "--merge",
            type=click.Choice([merge for merge in MERGES if merge]),
            help="How the outputs of two directions are merged.",
        ),
        click.option("--no-bias", "bias", flag_value=False, default=None, help="Without any bias."),
        click.option("--projection", type=SIZE, help="Size to which an LSTM projects its output."),
        click.option("--peepholes", is_flag=True, default=None, help="An LSTM with peepholes."),
        click.option(
            "--reset",
            type=click.Choice(["after", "before"]),
            help="Where a GRU resets: after or before the recurrent product.",
        ),
        click.option("--activation", help="Activation by name, such as relu."),
        click.option("--recurrent-activation", help="Activation of the gates by name."),
    ]
)


def _context_size(_: click.Context, param: click.Parameter, value: Any) -> Any:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise SpecError(
            f"{param.name}={value!r} is not a whole number from 1.",
            f"{param.name} changes no count; the answer says so.",
            "Give a whole number, or leave it out.",
        )
    return value


answer_options = options(
    [
        click.option(
            "--format",
            "-f",
            "format",
            type=click.Choice(list(FORMATS)),
            is_eager=True,
            help="Format of the answer.  [default: by the suffix of --output, else plain]",
        ),
        click.option(
            "--output",
            "-o",
            type=click.Path(),
            callback=_output,
            help="Write the answer to this file: .txt, .md, .tex, .html, .csv or .json.",
        ),
    ]
)
context_options = options(
    [
        click.option(
            "--timesteps",
            "-t",
            type=SIZE,
            callback=_context_size,
            help="Length of the sequence; it changes no count, and the answer says so.",
        ),
        click.option("--batch", "-b", type=SIZE, callback=_context_size, help="Batch size; likewise."),
    ]
)


def spec_of(given: dict[str, Any]) -> Spec:
    """Return the layer that the options describe."""
    cell = given.get("cell") or "LSTM"
    values = {name: value for name, value in given.items() if value is not None and name != "cell"}
    kind = KINDS[cell]
    fields = kind.fields
    for name in values:
        if name not in fields:
            raise unknown_option(kind, name)
    needed = [
        ("features", "the size of the input", "-x 3"),
        ("tokens", "the number of rows of the table", "--tokens 1000"),
        ("height", "the height of the kernel", "--height 3"),
        ("width", "the width of the kernel", "--width 3"),
        (
            "units",
            "the size of the output" if cell in ("Dense", "Embedding", "Conv1D", "Conv2D") else "the size of the state",
            "-u 50",
        ),
    ]
    missing = [row for row in needed if row[0] in fields and row[0] not in values]
    if missing:
        raise SpecError(
            f"{cell} needs {' and '.join(name for name, _, _ in missing)}.",
            "\n".join(f"{name}: {what}." for name, what, _ in missing),
            f"Give {' '.join(example for _, _, example in missing)}, say.",
        )
    return kind(**values)


def refuse_given(names: Sequence[str], why: str) -> None:
    """Refuse options that would be ignored."""
    context = click.get_current_context()
    given = [
        max(param.opts, key=len)
        for param in context.command.params
        if param.name in names and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"{why}: leave {' and '.join(given)} out.")
