"""Commands on whole models in files: inspect, port, verify and build."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from gatewise.cli.answer import answer
from gatewise.cli.options import (
    FRAMEWORK,
    answer_options,
    check_inputs,
    check_place,
    check_suffix,
    spec_of,
    spec_options,
)

READ = (".keras", ".h5", ".hdf5", ".safetensors")
"""Suffixes of model files that are read."""

WRITTEN = (".safetensors", ".keras")
"""Suffixes of model files that are written."""


@click.command()
@click.argument("path", type=click.Path(), metavar="FILE")
@answer_options
def inspect(path: str, format: str | None, output: str | None) -> None:
    r"""Say what a model file holds, and whether it can be ported.

    FILE is a model (.keras, .h5, .safetensors), arrays (.npz, .safetensors), or the config of a Keras model (.json,
    what model.to_json() gives).

    \b
    gatewise inspect model.keras
    gatewise inspect config.json
    """
    from gatewise.cli.progress import loading, working

    check_inputs(path, suffixes=(*READ, ".npz", ".json"))
    with working():
        loading(path)
        from gatewise.inspecting import inspected
        from gatewise.report.models import inspecting

        report = inspecting(inspected(path))
    answer(report, format, output)


_inputs = click.option(
    "--inputs",
    type=click.Path(),
    metavar="FILE.npz",
    help="Arrays to feed, by the names of the inputs or in their order.  [default: random arrays]",
)


@click.command()
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option(
    "--second-bias",
    type=click.Choice(["frozen", "trainable"]),
    default="frozen",
    show_default=True,
    help="Whether training may change the zero second bias that PyTorch has and Keras lacks.",
)
@click.option(
    "--write-inconclusive",
    is_flag=True,
    help="Write TARGET, too, where the outputs agree on inputs that would not have shown every fault.",
)
@_inputs
@answer_options
def port(
    source: str,
    target: str,
    second_bias: str,
    write_inconclusive: bool,
    inputs: str | None,
    format: str | None,
    output: str | None,
) -> None:
    r"""Port a model file to another framework, and verify it.

    SOURCE is a file of Keras (.keras, .h5) or of gatewise (.safetensors); the suffix of TARGET says where it goes:
    .safetensors to PyTorch, .keras to Keras. Both run on the same inputs, and TARGET is not written unless the
    outputs agree.

    \b
    gatewise port model.keras model.safetensors
    gatewise port model.safetensors model.keras
    """
    from gatewise.cli.progress import loading, working

    check_inputs(source, suffixes=READ)
    check_suffix(target, WRITTEN)
    check_place(target)
    if inputs is not None:
        check_inputs(inputs, suffixes=(".npz",))
    with working():
        loading(source, target)
        from gatewise.live import port_file
        from gatewise.report.reports import porting, verifying
        from gatewise.report.tables import joined

        done, parity = port_file(source, target, inputs, second_bias=second_bias, write_inconclusive=write_inconclusive)
    answer(joined(porting(done), verifying(parity)), format, output)
    if parity.passed:
        click.echo(f"Wrote {target}.", err=True)
        return
    if write_inconclusive and parity.verdict == "inconclusive":
        click.echo(f"Wrote {target}, though parity is inconclusive.", err=True)
    else:
        click.echo(f"Nothing was written: parity {parity.verdict}.", err=True)
    sys.exit(1)


@click.command()
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the inputs.")
@click.option("--gradients", is_flag=True, help="Compare gradients, too.")
@click.option(
    "--training-steps",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Train copies of both for so many steps, and compare.",
)
@_inputs
@answer_options
def verify(
    first: str,
    second: str,
    seed: int,
    gradients: bool,
    training_steps: int,
    inputs: str | None,
    format: str | None,
    output: str | None,
) -> None:
    r"""Run two model files on the same inputs, and compare.

    Where the outputs differ, the mistake is named. Exits with 0 where the two agree, else with 1.

    \b
    gatewise verify model.keras model.safetensors
    gatewise verify model.keras model.safetensors --gradients --training-steps 20
    gatewise verify model.keras model.safetensors --inputs samples.npz
    """
    from gatewise.cli.progress import loading, working

    check_inputs(first, second, suffixes=READ)
    if inputs is not None:
        check_inputs(inputs, suffixes=(".npz",))
    with working():
        loading(first, second)
        from gatewise import verify as verified
        from gatewise.report.reports import verifying

        parity = verified(first, second, seed=seed, inputs=inputs, gradients=gradients, training_steps=training_steps)
    answer(verifying(parity), format, output)
    sys.exit(0 if parity.passed else 1)


@click.command()
@click.argument("framework", type=FRAMEWORK)
@click.argument("output", type=click.Path())
@spec_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the weights.")
@click.option(
    "--initial",
    type=click.Choice(["keras", "torch"]),
    default="keras",
    show_default=True,
    help="Whose rule draws the initial weights.",
)
def build(framework: str, output: str, seed: int, initial: str, **options: Any) -> None:
    r"""Build a layer with random weights, and save it.

    The suffix of OUTPUT says the type of file: .safetensors, or .keras for Keras.

    \b
    gatewise build torch lstm.safetensors -x 3 -u 50
    """
    from gatewise import registry
    from gatewise.cli.progress import loading, working
    from gatewise.core.network import Network
    from gatewise.errors import FileError

    check_suffix(output, WRITTEN)
    check_place(output)
    spec = spec_of(options)
    registry.framework(framework)
    if output.endswith(".keras") and framework != "keras":
        raise FileError(
            f"A {framework} object does not go into {os.path.basename(output)}.",
            ".keras is a file of Keras.",
            "Use .safetensors, or build it in keras.",
        )
    with working():
        loading(output)
        from gatewise import build as built
        from gatewise import save

        save(built(Network.chain(spec), framework, seed, initial), output)
    click.echo(f"Wrote {output}: {spec} with the weights of seed {seed}.", err=True)
