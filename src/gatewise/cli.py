"""The command line. Results go to stdout, errors to stderr.

Exit 0; 1 is a negative answer (a port that is impossible); 2 is bad use or unreadable input.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from gatewise.core.spec import KINDS, MERGES, Spec, unknown_option
from gatewise.errors import GatewiseError, ImpossiblePlanError, SpecError, nearest

F = TypeVar("F", bound=Callable[..., Any])

_FORMATS = ("plain", "github", "latex", "html", "csv", "json")


_MOST_DIGITS = 100


class _Size(click.ParamType):  # type: ignore[type-arg]
    """A size as a person writes it: ``512``, ``1_000`` or ``1,000``; what it may be, the spec says."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        text = str(value).replace(",", "").replace("_", "")
        if len(text) > _MOST_DIGITS:
            raise SpecError(
                f"A number of {len(text):,} signs is too long.",
                f"A size has at most {_MOST_DIGITS} digits.",
                "Give a size that a layer can have.",
            )
        return int(text) if text.lstrip("+-").isdecimal() else value


SIZE = _Size()


class _Kind(click.ParamType):  # type: ignore[type-arg]
    """A kind of layer, in any case."""

    name = "|".join(KINDS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        known = {name.lower(): name for name in KINDS}
        if str(value).lower() not in known:
            message = f"{value!r} is no kind of layer. {nearest(str(value).lower(), known)}Known: {', '.join(KINDS)}."
            self.fail(message, param, ctx)
        return known[str(value).lower()]


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


_SPEC_OPTIONS = [
    click.option("--cell", type=_Kind(), help="The kind of layer; LSTM unless said."),
    click.option("--features", "-x", type=SIZE, help="Size of the input."),
    click.option("--units", "-u", type=SIZE, help="Size of the state."),
    click.option("--tokens", type=SIZE, help="Rows of an Embedding."),
    click.option("--height", type=SIZE, help="Rows that one output of a Conv2D sees."),
    click.option("--width", type=SIZE, help="Steps that one output of a Conv1D sees, or columns of a Conv2D."),
    click.option("--groups", type=SIZE, help="Parts of a convolution that see nothing of each other."),
    click.option("--layers", type=SIZE, help="How many layers are stacked."),
    click.option("--bidirectional", is_flag=True, default=None, help="Also read the sequence from its end."),
    click.option(
        "--merge", type=click.Choice([merge for merge in MERGES if merge]), help="How two directions become one."
    ),
    click.option("--no-bias", "bias", flag_value=False, default=None, help="Without any bias."),
    click.option("--projection", type=SIZE, help="Size to which an LSTM projects its output."),
    click.option("--peepholes", is_flag=True, default=None, help="An LSTM whose gates see the memory."),
    click.option(
        "--reset", type=click.Choice(["after", "before"]), help="Where a GRU resets: after or before the product."
    ),
    click.option("--activation", help="Activation by name, such as relu."),
    click.option("--recurrent-activation", help="Activation of the gates by name."),
]


def _options(options: list[Callable[[F], F]]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_spec_options = _options(_SPEC_OPTIONS)


def _context_size(_: click.Context, param: click.Parameter, value: Any) -> Any:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise SpecError(
            f"{param.name}={value!r} is not a whole number from 1.",
            f"{param.name} changes no count; the answer says so.",
            "Give a whole number, or leave it out.",
        )
    return value


_format = click.option(
    "--format", "-f", "format", type=click.Choice(_FORMATS), default="plain", help="How to write the table."
)
_context = _options(
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


def _spec(options: dict[str, Any]) -> Spec:
    """Return the layer that the options describe."""
    cell = options.pop("cell", None) or "LSTM"
    given = {name: value for name, value in options.items() if value is not None}
    kind = KINDS[cell]
    fields = kind.__dataclass_fields__
    for name in given:
        if name not in fields:
            raise unknown_option(kind, name)
    for name, what, example in (
        ("features", "the size of the input", "-x 3"),
        ("tokens", "the number of rows of the table", "--tokens 1000"),
        ("height", "how many rows one output sees", "--height 3"),
        ("width", "how many steps one output sees", "--width 3"),
        (
            "units",
            "the size of the output" if cell in ("Dense", "Embedding", "Conv1D", "Conv2D") else "the size of the state",
            "-u 50",
        ),
    ):
        if name in fields and name not in given:
            raise SpecError(f"{cell} needs {name}.", f"{name}: {what}.", f"Give {example}, say.")
    return kind(**given)


class _Group(click.Group):
    """Says every error of ours in one message, and names the nearest command for an unknown one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GatewiseError as error:
            click.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(1 if isinstance(error, ImpossiblePlanError) else 2)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # A closed pipe is click's affair, and everything else a mistake of ours.
                raise
            click.echo(
                f"FileError: The answer cannot be written: {error.strerror}.\n  Standard output.\n"
                "  Hint: Make room, or write it elsewhere.",
                err=True,
            )
            ctx.exit(2)

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        # The docstrings are raw, so that click's mark for lines to be left alone, \b, stands there as two letters.
        cmd.help = cmd.help.replace("\\b", "\b") if cmd.help else cmd.help
        super().add_command(cmd, name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(f"No command is called {args[0]!r}. {nearest(args[0], self.commands)}".strip(), ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gatewise")
def main() -> None:
    """The same LSTM in every framework: counted, explained, ported, proven."""


@main.command()
@click.argument("frameworks", nargs=-1, required=True)
@_spec_options
@_context
@click.option("--gates", is_flag=True, help="Also show what each gate has.")
@click.option("--vary", metavar="SIZE=FIRST:LAST:STEP", help="Count at several sizes, such as units=32:512:32.")
@_format
def count(
    frameworks: tuple[str, ...],
    format: str,
    gates: bool,
    vary: str | None,
    timesteps: Any,
    batch: Any,
    **options: Any,
) -> None:
    r"""Count the parameters of a layer, tensor by tensor.

    \b
    gatewise count keras torch -x 3 -u 50
    gatewise count keras --cell GRU -x 3 -u 50 --gates --format github
    gatewise count keras torch -x 3 --vary units=32:512:32
    """
    from gatewise import count as counted
    from gatewise.report.reports import counting
    from gatewise.report.tables import render

    if vary:
        click.echo(_growth(frameworks, vary, format, options))
        return
    spec = _spec(options)
    counts = [counted(spec, framework) for framework in frameworks]
    click.echo(render(counting(spec, counts, gates=gates, timesteps=timesteps, batch=batch), format))


def _growth(frameworks: tuple[str, ...], vary: str, format: str, options: dict[str, Any]) -> str:
    """Return the table of counts at several sizes."""
    from gatewise import vary as varied
    from gatewise.report.tables import render
    from gatewise.report.teaching import growing

    name = vary.partition("=")[0].strip()
    if name in options and options[name] is None:
        options[name] = 1  # The size that varies need not be given a value as well.
    spec = _spec(options)
    return render(growing(varied(spec, vary, *frameworks)), format)


def _equations(notation: str, frameworks: list[str], format: str, options: dict[str, Any]) -> str:
    """Return the equations of a layer, with their symbols in the named frameworks."""
    from gatewise import equations
    from gatewise.report.teaching import teaching

    return teaching(equations(_spec(options), notation, frameworks), format)


@main.command()
@click.argument("first", required=False)
@click.argument("second", required=False)
@_spec_options
@_context
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
    help="What to count of two model files.",
)
@_format
def explain(
    first: str | None,
    second: str | None,
    format: str,
    timesteps: Any,
    batch: Any,
    equations: str | None,
    option: str | None,
    of: str,
    **options: Any,
) -> None:
    r"""Explain why two frameworks count a layer differently, or why the models in two files do.

    \b
    gatewise explain keras torch -x 3 -u 50
    gatewise explain model.keras model.safetensors --of stored
    gatewise explain -x 3 -u 50 --equations
    gatewise explain keras torch -x 3 -u 50 --equations torch --format latex
    gatewise explain --option recurrent_dropout
    """
    from gatewise import explain as explained
    from gatewise.report.reports import explaining
    from gatewise.report.tables import render

    if option:
        from gatewise.core import teach
        from gatewise.report.teaching import optional

        click.echo(render(optional(teach.option(option), format), format))
        return
    if equations:
        click.echo(_equations(equations, [name for name in (first, second) if name], format, options))
        return
    if first is None or second is None:
        raise click.UsageError("Name two frameworks, such as: gatewise explain keras torch -x 3 -u 50")
    if _is_file(first) or _is_file(second):
        for path in (first, second):
            if not os.path.isfile(path):
                raise click.UsageError(f"There is no file {path!r}: name two files, or two frameworks.")
        _refuse_given([*options, "timesteps", "batch"], "The models in two files say what they are")
        _quieten([first, second])
        from gatewise.explaining import explained as models

        click.echo(render(explaining(None, models(first, second, of)), format))
        return
    if of != "parameters":
        raise click.UsageError("--of says what to count of two files; two frameworks are always counted both ways.")
    spec = _spec(options)
    click.echo(render(explaining(spec, explained(spec, first, second), timesteps=timesteps, batch=batch), format))


def _refuse_given(names: Sequence[str], why: str) -> None:
    """Refuse options that would be ignored."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in names and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{why}: leave {max(param.opts, key=len)} out.")


@main.command(cls=_OfNumber)
@click.argument("claimed", type=SIZE)
@click.argument("framework", default="keras")
@_spec_options
@click.option(
    "--head", type=SIZE, metavar="OUTPUTS", help="The number includes a dense layer on top with so many outputs."
)
@click.option("--timesteps", "-t", type=SIZE, help="Length of the sequence; it may have been multiplied in.")
@click.option("--batch", "-b", type=SIZE, help="Batch size; likewise.")
@click.option("--stale", multiple=True, metavar="SIZE=VALUE", help="A size of an earlier layer, such as features=3.")
@_format
def diagnose(
    claimed: Any,
    framework: str,
    format: str,
    head: Any,
    timesteps: Any,
    batch: Any,
    stale: tuple[str, ...],
    **options: Any,
) -> None:
    r"""Say which mistake gives a claimed number of parameters.

    The framework is keras unless said. Exits with 1 if no mistake on the list gives the number.

    \b
    gatewise diagnose 120 keras -x 1 -u 10
    gatewise diagnose 10801 torch -x 3 -u 50 --head 1 --timesteps 10
    """
    from gatewise import diagnose as diagnosed
    from gatewise.report.tables import render
    from gatewise.report.teaching import diagnosing

    spec, old = _spec(options), {}
    for text in stale:
        name, _, value = text.partition("=")
        old[name.strip()] = SIZE.convert(value.strip(), None, None)
    found = diagnosed(claimed, spec, framework, head=head, timesteps=timesteps, batch=batch, stale=old)
    click.echo(render(diagnosing(found, spec, data=format in ("csv", "json")), format))
    sys.exit(0 if found or found.right else 1)


@main.command(cls=_OfNumber)
@click.argument("total", type=SIZE)
@click.option("--framework", default="keras", show_default=True, help="Where the layers are stored.")
@click.option(
    "--cell", type=click.Choice(["LSTM", "GRU", "RNN"], case_sensitive=False), help="Only layers of this kind."
)
@click.option("--features", "-x", type=SIZE, help="Only layers with this size of the input.")
@click.option("--units", "-u", type=SIZE, help="Only layers with this size of the state.")
@click.option(
    "--most", type=click.IntRange(1), default=10, show_default=True, help="Show so many, the likeliest first."
)
@click.option("--all", "every", is_flag=True, help="Show all.")
@_format
def solve(
    total: Any, framework: str, cell: str | None, features: Any, units: Any, most: int, every: bool, format: str
) -> None:
    r"""Find the layers that have a number of parameters.

    Exits with 1 if there is none.

    \b
    gatewise solve 299681
    gatewise solve 10851 --framework torch --features 3
    """
    from gatewise import solve as solved
    from gatewise.report.tables import render
    from gatewise.report.teaching import solving

    found = solved(total, framework, features=features, units=units, cell=cell)
    click.echo(render(solving(found, most=None if every else most), format))
    sys.exit(0 if found else 1)


@main.command("map")
@click.argument("source")
@click.argument("target")
@_spec_options
@click.option("--weights", type=click.Path(), help="Arrays of the source to bring over: .npz or .safetensors.")
@click.option("--output", "-o", type=click.Path(), help="Where to write them: .npz or .safetensors.")
@click.option("--proof", is_flag=True, help="Also prove the plan, element by element.")
@_format
def map_(
    source: str, target: str, format: str, weights: str | None, output: str | None, proof: bool, **options: Any
) -> None:
    r"""Show which slice goes where, and bring arrays over.

    With --weights the sizes of the layer are read off the arrays.

    \b
    gatewise map keras torch -x 3 -u 50
    gatewise map keras torch --weights lstm.npz --output torch.npz
    """
    from gatewise import mapping
    from gatewise.report.reports import planning
    from gatewise.report.tables import render

    if output is not None and weights is None:
        raise click.UsageError("--output needs --weights: the arrays to bring over.")
    if weights is not None:
        from gatewise.conversion import convert

        done = convert(source, target, weights, output, options)
        for warning in done.warnings:
            click.echo(warning, err=True)
        plan = done.plan
    else:
        plan = mapping(_spec(options), source, target)
        if not plan.moves:
            plan.require_possible()
    if format == "json":
        click.echo(plan.to_json())
    else:
        click.echo(render(planning(plan), format))
    if proof:
        click.echo(f"\n{plan.proof()}", err=format not in ("plain", "github"))
    if weights is not None:
        if output is not None:
            click.echo(
                f"Wrote {output}: {', '.join(f'{name} {shape}' for name, shape in plan.target_shapes.items())}.",
                err=True,
            )
    elif plan.unless:
        sys.exit(1)


@main.command()
@click.argument("names", nargs=-1)
@click.option("--layouts", "what", flag_value="layouts", help="List every layout with its gates and source.")
@click.option("--defaults", "what", flag_value="defaults", help="List what each does unless told otherwise.")
@click.option("--gaps", "what", flag_value="gaps", help="List what a port leaves behind or refuses, and why.")
@_format
def frameworks(names: tuple[str, ...], format: str, what: str | None) -> None:
    r"""List the known frameworks, or some of them.

    \b
    gatewise frameworks
    gatewise frameworks keras torch --defaults
    """
    from gatewise import frameworks as known
    from gatewise import registry
    from gatewise.report.reports import defaulting, lacking, listing
    from gatewise.report.tables import render

    wanted = [registry.framework(name).name for name in names]
    records = [record for record in known() if not wanted or record.name in wanted]
    reports = {"defaults": defaulting, "gaps": lacking}
    report = reports[what](records) if what in reports else listing(records, layouts=what == "layouts")
    click.echo(render(report, format))


@main.command()
@click.argument("path", type=click.Path())
@click.option("--output", "-o", type=click.Path(), help="Write the tables here.")
@_format
def compare(path: str, output: str | None, format: str) -> None:
    r"""Count and explain every case of a TOML file.

    \b
    gatewise compare comparisons/published.toml --format github
    """
    from gatewise import compare as compared

    text = compared(path).render(format)
    if output is None:
        click.echo(text)
        return
    from gatewise.checkpoints import write_text

    write_text(output, text + "\n")
    click.echo(f"Wrote {output}.", err=True)


def _is_file(name: str) -> bool:
    """Say whether a word means a file of a model, and not a framework."""
    return os.path.isfile(name) or name.endswith((".keras", ".h5", ".hdf5", ".npz", ".safetensors"))


def _quieten(reads: Sequence[str], *writes: str) -> None:
    """Import TensorFlow ahead where a file will need it: it writes a page to stderr, among which an error is lost."""
    from gatewise.registry import import_quietly

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if all(map(os.path.isfile, reads)) and any(path.endswith((".keras", ".h5", ".hdf5")) for path in (*reads, *writes)):
        import_quietly("keras")


_inputs = click.option(
    "--inputs",
    type=click.Path(),
    metavar="FILE.npz",
    help="Arrays to feed, by the names of the inputs or in their order; random ones unless given.",
)


@main.command()
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--second-bias", type=click.Choice(["frozen", "trainable"]), default="frozen", help="What training does with it."
)
@_inputs
@_format
def port(source: str, target: str, second_bias: str, inputs: str | None, format: str) -> None:
    r"""Port a model file, verify it, and say what was done.

    Nothing is written unless the outputs agree.

    \b
    gatewise port model.keras model.safetensors
    gatewise port model.safetensors model.keras
    """
    from gatewise.live import port_file
    from gatewise.report.reports import porting, verifying
    from gatewise.report.tables import joined, render

    _quieten([source], target)
    done, parity = port_file(source, target, inputs, second_bias=second_bias)
    click.echo(render(joined(porting(done), verifying(parity)), format))
    if parity.passed:
        click.echo(f"Wrote {target}.", err=True)
        return
    click.echo(f"Nothing was written: parity {parity.verdict}.", err=True)
    sys.exit(1)


@main.command()
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.option("--seed", type=int, default=0, help="Seed of the inputs.")
@click.option("--gradients", is_flag=True, help="Compare gradients, too.")
@click.option("--training-steps", type=click.IntRange(min=0), default=0, help="Train copies of both, and compare.")
@_inputs
@_format
def verify(
    first: str, second: str, seed: int, gradients: bool, training_steps: int, inputs: str | None, format: str
) -> None:
    r"""Compare two model files on the same inputs; where they differ, say which mistake it is.

    \b
    gatewise verify model.keras model.safetensors
    gatewise verify model.keras model.safetensors --gradients --training-steps 20
    gatewise verify model.keras model.safetensors --inputs samples.npz
    """
    from gatewise import verify as verified
    from gatewise.report.reports import verifying
    from gatewise.report.tables import render

    _quieten([first, second])
    parity = verified(first, second, seed=seed, inputs=inputs, gradients=gradients, training_steps=training_steps)
    click.echo(render(verifying(parity), format))
    sys.exit(0 if parity.passed else 1)


@main.command()
@click.argument("framework")
@click.argument("output", type=click.Path())
@_spec_options
@click.option("--seed", type=int, default=0, help="Seed of the weights.")
@click.option("--initial", default="keras", help="The rule of the draw: keras or torch.")
def build(framework: str, output: str, seed: int, initial: str, **options: Any) -> None:
    r"""Build a layer with drawn weights and save it.

    The suffix says how: .safetensors, or .keras for Keras.

    \b
    gatewise build torch lstm.safetensors -x 3 -u 50
    """
    from gatewise import build as built
    from gatewise import save
    from gatewise.core.network import Network

    spec = _spec(options)
    _quieten([], output)
    save(built(Network.chain(spec), framework, seed, initial), output)
    click.echo(f"Wrote {output}: {spec} with the weights of seed {seed}.", err=True)


if __name__ == "__main__":
    main()
