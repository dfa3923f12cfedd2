"""Commands on one layer in several frameworks: map, diagnose, solve, table and frameworks."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from gatewise.cli.answer import answer, columns, write
from gatewise.cli.options import (
    ARRAYS,
    FRAMEWORK,
    SIZE,
    answer_options,
    check_inputs,
    format_of,
    spec_of,
    spec_options,
)
from gatewise.errors import SpecError


class _OfNumber(click.Command):
    """A command whose first argument is a number of parameters: ``-5`` there is one too, and not an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else "-"
        number = first.lstrip("-").replace(",", "").replace("_", "").isdecimal()
        if (number and first.startswith("-")) or not (number or first.startswith("-")):
            raise SpecError(
                f"{self.params[0].name}={first} is {'out of range' if number else 'not a whole number'}.",
                "A count of parameters is a whole number from 1.",
                "Give the number of parameters that you have, such as 120.",
            )
        return super().parse_args(ctx, args)


@click.command(cls=_OfNumber)
@click.argument("claimed", type=SIZE)
@click.argument("framework", default="keras", type=FRAMEWORK)
@spec_options
@click.option(
    "--head", type=SIZE, metavar="OUTPUTS", help="The number includes a dense layer on top with so many outputs."
)
@click.option("--timesteps", "-t", type=SIZE, help="Length of the sequence; it may have been multiplied in.")
@click.option("--batch", "-b", type=SIZE, help="Batch size; likewise.")
@click.option("--stale", multiple=True, metavar="SIZE=VALUE", help="A size of an earlier layer, such as features=3.")
@answer_options
def diagnose(
    claimed: Any,
    framework: str,
    format: str | None,
    output: str | None,
    head: Any,
    timesteps: Any,
    batch: Any,
    stale: tuple[str, ...],
    **options: Any,
) -> None:
    r"""Name the mistake that gives a claimed number.

    The framework is keras by default. Exits with 1 if no known mistake gives the number.

    \b
    gatewise diagnose 120 keras -x 1 -u 10
    gatewise diagnose 10801 torch -x 3 -u 50 --head 1 --timesteps 10
    """
    from gatewise import diagnose as diagnosed
    from gatewise.report.teaching import diagnosing

    spec, old = spec_of(options), {}
    for text in stale:
        name, _, value = text.partition("=")
        old[name.strip()] = SIZE.convert(value.strip(), None, None)
    found = diagnosed(claimed, spec, framework, head=head, timesteps=timesteps, batch=batch, stale=old)
    data = format_of(format, output) in ("csv", "json")
    answer(diagnosing(found, spec, data=data), format, output)
    sys.exit(0 if found or found.right else 1)


@click.command(cls=_OfNumber)
@click.argument("total", type=SIZE)
@click.argument("framework", default="keras", type=FRAMEWORK)
@click.option(
    "--cell", type=click.Choice(["LSTM", "GRU", "RNN"], case_sensitive=False), help="Only layers of this kind."
)
@click.option("--features", "-x", type=SIZE, help="Only layers with this size of the input.")
@click.option("--units", "-u", type=SIZE, help="Only layers with this size of the state.")
@click.option(
    "--most", type=click.IntRange(1), default=10, show_default=True, help="Show so many, the likeliest first."
)
@click.option("--all", "every", is_flag=True, help="Show all.")
@answer_options
def solve(
    total: Any,
    framework: str,
    cell: str | None,
    features: Any,
    units: Any,
    most: int,
    every: bool,
    format: str | None,
    output: str | None,
) -> None:
    r"""Find the layers that have a number of parameters.

    The framework is keras by default. Exits with 1 if there is none.

    \b
    gatewise solve 299681
    gatewise solve 10851 torch --features 3
    """
    from gatewise import solve as solved
    from gatewise.report.teaching import solving

    found = solved(total, framework, features=features, units=units, cell=cell)
    answer(solving(found, most=None if every else most), format, output)
    sys.exit(0 if found else 1)


@click.command("map")
@click.argument("source", type=FRAMEWORK)
@click.argument("target", type=FRAMEWORK)
@spec_options
@click.option("--weights", type=click.Path(), help="Arrays of the source to bring over: .npz or .safetensors.")
@click.option("--proof", is_flag=True, help="Also prove the plan, element by element.")
@answer_options
def map_(
    source: str,
    target: str,
    format: str | None,
    output: str | None,
    weights: str | None,
    proof: bool,
    **options: Any,
) -> None:
    r"""Show which slice goes where, and bring arrays over.

    With --weights the sizes of the layer are read off the arrays, and --output may also be the file for the new
    arrays: .npz or .safetensors.

    \b
    gatewise map keras torch -x 3 -u 50
    gatewise map keras torch -x 3 -u 50 -o mapping.md
    gatewise map keras torch --weights lstm.npz -o torch.npz
    """
    from gatewise import mapping
    from gatewise.report.columns import wrapped
    from gatewise.report.reports import planning

    arrays = output if output is not None and os.path.splitext(output)[1].lower() in ARRAYS else None
    table = output if arrays is None else None
    if arrays is not None and weights is None:
        raise click.UsageError("--output of arrays needs --weights: the arrays to bring over.")
    if weights is not None:
        from gatewise.conversion import convert

        check_inputs(weights, suffixes=ARRAYS)
        done = convert(source, target, weights, arrays, options)
        for warning in done.warnings:
            click.echo(warning, err=True)
        plan = done.plan
    else:
        plan = mapping(spec_of(options), source, target)
        if not plan.moves:
            plan.require_possible()
    chosen = format_of(format, table)
    if chosen == "json":
        write(plan.to_json(), table)
    else:
        answer(planning(plan), format, table)
    if proof:
        lines = [part for line in str(plan.proof()).splitlines() for part in wrapped(line, columns() or len(line))]
        click.echo("\n" + "\n".join(lines), err=chosen not in ("plain", "github") or table is not None)
    if arrays is not None:
        shapes = ", ".join(f"{name} {shape}" for name, shape in plan.target_shapes.items())
        said = f"Wrote {arrays}: {shapes}."
        click.echo("\n".join(wrapped(said, columns() or len(said))), err=True)
    if weights is None and plan.unless:
        sys.exit(1)


@click.command()
@click.argument("names", nargs=-1, type=FRAMEWORK)
@click.option("--layouts", "what", flag_value="layouts", help="List every layout with its gates and source.")
@click.option("--defaults", "what", flag_value="defaults", help="List the defaults of each that are not weights.")
@click.option("--gaps", "what", flag_value="gaps", help="List what is not supported, and why.")
@answer_options
def frameworks(names: tuple[str, ...], format: str | None, output: str | None, what: str | None) -> None:
    r"""List the known frameworks, or some of them.

    \b
    gatewise frameworks
    gatewise frameworks keras torch --defaults
    """
    from gatewise import frameworks as known
    from gatewise import registry
    from gatewise.report.reports import defaulting, lacking, listing

    wanted = [registry.framework(name).name for name in names]
    records = [record for record in known() if not wanted or record.name in wanted]
    reports = {"defaults": defaulting, "gaps": lacking}
    report = reports[what](records) if what in reports else listing(records, layouts=what == "layouts")
    answer(report, format, output)


@click.command()
@click.argument("path", type=click.Path())
@answer_options
def table(path: str, output: str | None, format: str | None) -> None:
    r"""Count and explain every case of a TOML file.

    Exits with 1 if a number that was stated is not the count. Such a file:

    \b
    title = "Two layers"
    frameworks = ["keras", "torch"]

    \b
    [[case]]
    id = "A"
    about = "A sentence on it."                 # may be left out
    stated = 10_851                             # a number to check, likewise
    layers = ["LSTM(features=3, units=50)", "Dense(features=50, units=1)"]
    show = ["tensors", "gates", "mapping"]      # more tables, likewise

    \b
    gatewise table cases.toml
    gatewise table cases.toml -o cases.tex
    """
    from gatewise import compare
    from gatewise.report.comparing import comparing

    compared = compare(path)
    answer(comparing(compared), format, output)
    sys.exit(0 if compared.right else 1)
