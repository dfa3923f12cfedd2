"""The command line. Results go to stdout, progress and errors to stderr.

Exit 0; 1 is a negative answer (a port that is impossible, a parity that failed); 2 is bad use or unreadable input.
"""

from __future__ import annotations

import gc

import click

from gatewise.cli.group import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gatewise")
def main() -> None:
    """The same LSTM in every framework: counted, explained, ported, proven."""


def run() -> None:
    """Run ``main`` as a process of its own."""
    # What a count makes lives until it ends: looking for garbage in it takes a tenth of its time.
    gc.set_threshold(100_000)
    try:
        main()
    finally:
        gc.freeze()
