"""The command `kidney-ssl`: start a study, run it, and look into it. Commands on a study run in its folder."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import shtab

from kidney_ssl.commands import board, clinical, look, network, new, study, sweep
from kidney_ssl.errors import InputError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; bad input is reported in one line with exit code 1.

    Args:
        arguments: words of the command; those of the command line by default.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="kidney-ssl", description=__doc__)
    shtab.add_argument_to(parser, help="print a script that completes commands, options and paths in a shell")
    commands = parser.add_subparsers(required=True, metavar="command")
    for module in (new, study, sweep, board, look, network, clinical):
        module.add_commands(commands)
    for command in commands.choices.values():
        for argument in command._actions:
            if argument.type is Path:
                argument.complete = shtab.FILE  # type: ignore[attr-defined] # what shtab reads
    given = parser.parse_args(words)
    given.words = words
    os.environ["MPLBACKEND"] = "agg"  # a notebook's shell sets a backend that does not exist outside it
    try:
        given.run(given)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
