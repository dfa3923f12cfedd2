"""Prints an answer, or writes it to a file: its format, its width, its encoding, and which commands stand nearby."""

from __future__ import annotations

import codecs
import os
import re
import sys
from typing import TYPE_CHECKING, TextIO

import click

from gatewise.cli.options import format_of

if TYPE_CHECKING:
    from gatewise.report.tables import Report

NEARBY = {
    "inspect": "count (its parameters), port (to another framework), explain (why another count differs)",
    "count": "explain (why two counts differ), map (which slice goes where), solve (which layers have a number)",
    "explain": "count (tensor by tensor), map (which slice goes where), verify (do the outputs differ)",
    "port": "verify (compare two files again), inspect (what a file holds), explain (why the counts differ)",
    "verify": "explain (why the counts differ), port (make the port again)",
    "transfer": "verify (do the outputs differ), explain (why the counts differ), port (write the other model anew)",
    "map": "port (whole model files), explain (why the counts differ), frameworks (how each stores its layers)",
    "diagnose": "count (the right number), solve (which layers have this number), explain (between frameworks)",
    "solve": "count (one of these), diagnose (which mistake gives a number)",
    "table": "count (one layer), explain (one difference)",
    "frameworks": "count (a layer in any of them), map (from one to another)",
}
"""Command → its neighbours, each with the question that it answers."""


def answer(report: Report, format: str | None, output: str | None) -> None:
    """Print a report, or write it to a file."""
    from gatewise.report.tables import render

    chosen = format_of(format, output)
    # A report quotes Python; here the same words are options.
    command = click.get_current_context().command
    report = report.replace(notes=[said_in_options(line, command) for line in report.notes])
    if chosen == "plain" and output is None:
        report = report.replace(notes=[*report.notes, *neighbours()])
    write(render(report, chosen, width=columns() if output is None else None), output)


def neighbours() -> list[str]:
    """Return the line that names the neighbouring commands of the one that runs."""
    name = click.get_current_context().command.name
    return [f"See also: {NEARBY[name]}."] if name in NEARBY else []


def write(text: str, output: str | None) -> None:
    """Print a text, or write it to a file."""
    if output is None:
        click.echo(text)
        return
    from gatewise.checkpoints import write_text

    write_text(output, text + "\n")
    click.echo(f"Wrote {output}.", err=True)


def complain(text: str) -> None:
    """Print an error to stderr, its long lines wrapped where that is a terminal."""
    import textwrap

    width = columns(sys.stderr)
    for line in text.splitlines():
        margin = "    "  # further in than the lines of an error that say where and what to do
        pieces = textwrap.wrap(
            line,
            width or len(line) + 1,
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        click.echo("\n".join(pieces) if width else line, err=True)


def columns(stream: TextIO | None = None) -> int | None:
    """Return how many columns the terminal has; None in a pipe, where no table is wrapped."""
    if os.environ.get("COLUMNS", "").isdecimal() or (stream or sys.stdout).isatty():
        import shutil

        return max(40, shutil.get_terminal_size().columns)
    return None


# ── encoding ────────────────────────────────────────────────────────────────────────────────────────────────────

SIGNS = {"→": ">", "·": "*", "×": "x", "−": "-", "≠": "#", "…": "~", "σ": "s", "⊙": "*", "Δ": "d", "–": "-", "─": "-"}
"""Sign → what stands for it where the terminal's encoding lacks it; one sign each, so that columns stay in line."""


def _spare(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SIGNS.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def spare_encoding(*streams: TextIO) -> None:
    """Let each stream replace the signs that its encoding lacks."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and (stream.encoding or "").lower() not in ("utf-8", "utf8"):
            codecs.register_error("gatewise", _spare)
            reconfigure(errors="gatewise")


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────


ARGUMENTS = ("second_bias", "inputs", "allow_missing", "gradients", "training_steps", "seed", "of", "head", "stale")
"""Arguments of Python's functions that are options here; an option of a layer is said so in hints alone."""


def said_in_options(text: str, command: click.Command | None) -> str:
    """Return a text with Python's arguments as the options of a command.

    >>> from gatewise.cli.models import port
    >>> said_in_options("second_bias='trainable' frees it.", port)
    '--second-bias trainable frees it.'
    """
    for param in command.params if command is not None else []:
        if isinstance(param, click.Option) and param.name is not None:
            if param.name in ARGUMENTS:
                text = _as_option(text, param.name, param)
            elif "  Hint: " in text:
                head, mark, hint = text.rpartition("  Hint: ")
                text = head + mark + _as_option(hint, param.name, param)
    return text


def _as_option(text: str, name: str, param: click.Option) -> str:
    option = max(param.opts, key=len)
    if param.is_flag:
        return re.sub(rf"\b{name}={param.flag_value is not False}\b", option, text)
    return re.sub(rf"(?<![\w.(])(?<!, )\b{name}='?([\w.]+)'?(?![\w.]*[:,]\d)", rf"{option} \1", text)
