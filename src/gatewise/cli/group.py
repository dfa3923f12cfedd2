"""The group of all commands: which there are, and how their errors are printed."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any, NamedTuple

import click

from gatewise.errors import GatewiseError, ImpossiblePlanError, TransferError, nearest


class Entry(NamedTuple):
    """Where a command is: its module in this package, and the function there."""

    module: str
    function: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Look at a model file or a layer": {
        "inspect": Entry("models", "inspect"),
        "count": Entry("counting", "count"),
        "explain": Entry("counting", "explain"),
    },
    "Bring it to another framework, and prove it": {
        "port": Entry("models", "port"),
        "transfer": Entry("transferring", "transfer"),
        "verify": Entry("models", "verify"),
        "map": Entry("layers", "map_"),
        "build": Entry("models", "build"),
    },
    "Learn": {
        "diagnose": Entry("layers", "diagnose"),
        "solve": Entry("layers", "solve"),
        "table": Entry("layers", "table"),
        "frameworks": Entry("layers", "frameworks"),
    },
}
"""Section of the help → command → where it is. A command's module is imported when the command is called."""

ALIASES = {"mapping": "map", "map_weights": "map", "tabulate": "table", "compare": "table"}
"""Second name of a command → the first."""

COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class Group(click.Group):
    """Imports commands as they are needed, and prints each error of ours as one message."""

    def list_commands(self, ctx: click.Context | None) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context | None, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command, by its name or another one; None where there is none."""
        entry = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(f"gatewise.cli.{entry.module}"), entry.function)
        # The docstrings are raw, so that click's mark for lines to be left alone, \b, stands there as two letters.
        command.help = command.help.replace("\\b", "\b") if command.help else command.help
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command that a person means, and suggest the nearest where there is none."""
        if args and args[0] not in {**COMMANDS, **ALIASES} and not args[0].startswith("-"):
            hint = nearest(args[0], [*COMMANDS, *ALIASES])
            raise click.UsageError(f"No command is called {args[0]!r}. {hint}".strip(), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help, section by section."""
        width = max(map(len, COMMANDS))
        for title, section in SECTIONS.items():
            with formatter.section(title):
                room = formatter.width - 6 - width
                rows = [(name, self._first_line(ctx, name, room)) for name in section]
                formatter.write_dl([(name.ljust(width), words) for name, words in rows])

    def _first_line(self, ctx: click.Context, name: str, room: int) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(max(room, 45)) if command is not None else ""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit with 1 or 2 and one message for each error of ours."""
        from gatewise.cli.answer import complain, said_in_options, spare_encoding

        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        spare_encoding(sys.stdout, sys.stderr)
        try:
            return super().invoke(ctx)
        except GatewiseError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            complain(f"{type(error).__name__}: {said_in_options(str(error), command)}")
            ctx.exit(1 if isinstance(error, ImpossiblePlanError | TransferError) else 2)
        except click.UsageError as error:  # As click prints it, but as wide as the terminal is.
            if error.ctx is not None:
                click.echo(error.ctx.get_usage(), err=True)
                click.echo(f"Try '{error.ctx.command_path} --help' for help.\n", err=True)
            complain(f"Error: {error.format_message()}")
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # A closed pipe is click's affair, and everything else a mistake of ours.
                raise
            complain(
                f"FileError: The answer cannot be written: {error.strerror}.\n  Standard output.\n"
                "  Hint: Make room, or write it elsewhere with -o."
            )
            ctx.exit(2)
