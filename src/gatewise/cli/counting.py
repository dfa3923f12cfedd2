"""Commands that count: count and explain, of a layer in frameworks or of models in files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gatewise.cli.answer import answer, columns, neighbours, write
from gatewise.cli.options import (
    FRAMEWORK,
    answer_options,
    check_inputs,
    context_options,
    format_of,
    is_path,
    refuse_given,
    spec_of,
    spec_options,
)
from gatewise.errors import UnsupportedSpecError

if TYPE_CHECKING:
    from gatewise.report.tables import Report


@click.command()
@click.argument("frameworks", nargs=-1, required=True, type=FRAMEWORK, metavar="FILE | FRAMEWORKS...")
@spec_options
@context_options
@click.option("--gates", is_flag=True, help="Also show what each gate has.")
@click.option("--vary", metavar="SIZE=FIRST:LAST:STEP", help="Count at several sizes, such as units=32:512:32.")
@answer_options
def count(
    frameworks: tuple[str, ...],
    format: str | None,
    output: str | None,
    gates: bool,
    vary: str | None,
    timesteps: Any,
    batch: Any,
    **options: Any,
) -> None:
    r"""Count the parameters of a model file, or of a layer.

    \b
    gatewise count model.keras
    gatewise count keras torch -x 3 -u 50
    gatewise count keras --cell GRU -x 3 -u 50 --gates -o gru.md
    gatewise count keras torch -x 3 --vary units=32:512:32
    """
    from gatewise import count as counted

    if any(map(is_path, frameworks)):
        answer(_count_file(frameworks, [*options, "gates", "vary", "timesteps", "batch"]), format, output)
        return
    if vary:
        answer(_growth(frameworks, vary, options), format, output)
        return
    from gatewise.report.reports import counting

    spec = spec_of(options)
    counts, lacking = [], []
    for framework in frameworks:
        try:
            counts.append(counted(spec, framework))
        except UnsupportedSpecError as error:  # The others may have such a layer.
            lacking.append(error)
    if not counts:
        raise lacking[0]
    report = counting(spec, counts, gates=gates, timesteps=timesteps, batch=batch)
    answer(report.replace(notes=[*report.notes, *(f"{each.met} {each.hint}" for each in lacking)]), format, output)


def _count_file(names: tuple[str, ...], layer_options: list[str]) -> Report:
    """Return the summary of the model in one file."""
    from gatewise.cli.progress import loading, working

    if len(names) > 1:
        raise click.UsageError(
            f"One file at a time, not {' '.join(names)}. Two files side by side: gatewise explain A B"
        )
    check_inputs(*names)
    refuse_given(layer_options, "The file says what the model is")
    with working():
        loading(*names)
        from gatewise import count as counted
        from gatewise.report.models import summarising

        return summarising(counted(names[0]))


def _growth(frameworks: tuple[str, ...], vary: str, options: dict[str, Any]) -> Report:
    """Return the table of counts at several sizes."""
    from gatewise import vary as varied
    from gatewise.core.spec import KINDS
    from gatewise.report.teaching import growing

    name = vary.partition("=")[0].strip()
    # The size that varies need not be given a value as well; where there is none of this name, that is what is said.
    fields = KINDS[options["cell"] or "LSTM"].fields
    for size in [name] if name in options else [each for each in ("features", "units", "tokens") if each in fields]:
        options[size] = options[size] or 1
    return growing(varied(spec_of(options), vary, *frameworks))


def _equations(notation: str, frameworks: list[str], format: str, width: int | None, options: dict[str, Any]) -> str:
    """Return the equations of a layer, with their symbols in the named frameworks."""
    from gatewise import equations
    from gatewise.report.teaching import teaching

    return teaching(equations(spec_of(options), notation, frameworks), format, width=width)


def _see_also(width: int | None) -> str:
    from gatewise.report.tables import Report, render

    return render(Report(neighbours(), []), "plain", width=width)


@click.command()
@click.argument("first", required=False, type=FRAMEWORK, metavar="[FIRST]")
@click.argument("second", required=False, type=FRAMEWORK, metavar="[SECOND]")
@spec_options
@context_options
@click.option(
    "--equations",
    is_flag=False,
    flag_value="blog",
    metavar="[blog|keras|torch]",
    help="Write the layer's equations instead, in this notation, with the tensor and slice of each symbol.",
)
@click.option("--option", metavar="NAME", help="Explain one argument of the constructor instead, such as dropout.")
@click.option(
    "--of",
    type=click.Choice(["parameters", "trainable", "stored", "effective"]),
    default="parameters",
    show_default=True,
    help="What to count of model files.",
)
@answer_options
def explain(
    first: str | None,
    second: str | None,
    format: str | None,
    output: str | None,
    timesteps: Any,
    batch: Any,
    equations: str | None,
    option: str | None,
    of: str,
    **options: Any,
) -> None:
    r"""Explain why two counts differ: of files or frameworks.

    FIRST and SECOND are two frameworks, or two model files; of one file alone it is explained why its model has
    another count in the other framework, PyTorch for a Keras model and Keras for one of PyTorch.

    \b
    gatewise explain model.keras
    gatewise explain model.keras model.safetensors --of stored
    gatewise explain keras torch -x 3 -u 50
    gatewise explain -x 3 -u 50 --equations
    gatewise explain keras torch -x 3 -u 50 --equations torch -o equations.tex
    gatewise explain --option recurrent_dropout
    """
    if option:
        from gatewise.core import teach
        from gatewise.report.teaching import optional

        answer(optional(teach.option(option), format_of(format, output)), format, output)
        return
    if equations:
        names = [name for name in (first, second) if name]
        width = columns() if output is None else None
        chosen = format_of(format, output)
        text = _equations(equations, names, chosen, width, options)
        write(f"{text}\n\n{_see_also(width)}" if chosen == "plain" and output is None else text, output)
        return
    if first is None:
        raise click.UsageError("Name one file, two files, or two frameworks: gatewise explain keras torch -x 3 -u 50")
    if is_path(first) or (second is not None and is_path(second)):
        answer(_explain_files(first, second, of, [*options, "timesteps", "batch"]), format, output)
        return
    if second is None:
        raise click.UsageError(
            f"{first!r} is one framework, and a difference is between two: gatewise explain keras torch -x 3 -u 50"
        )
    if of != "parameters":
        raise click.UsageError("--of says what to count of two files; two frameworks are always counted both ways.")
    from gatewise import explain as explained
    from gatewise.report.reports import explaining

    spec = spec_of(options)
    report = explaining(spec, explained(spec, first, second), timesteps=timesteps, batch=batch)
    answer(report, format, output)


def _explain_files(first: str, second: str | None, of: str, layer_options: list[str]) -> Report:
    """Return why two files hold different counts, or one file and its port."""
    from gatewise.cli.progress import loading, working

    files = [name for name in (first, second) if name is not None]
    check_inputs(*files)
    refuse_given(layer_options, "The models in two files say what they are" if second else "The file says what it is")
    with working():
        loading(*files)
        from gatewise import explain as explained
        from gatewise.report.reports import explaining

        return explaining(None, explained(*files, of=of))
