"""`kidney-ssl board`: curves, metrics and pictures of a study as TensorBoard's event files; nothing is sent."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from kidney_ssl.commands.own_code import refuse_no_study, use_own_code
from kidney_ssl.errors import InputError

OUT = Path("logs/tensorboard")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `board`."""
    board = commands.add_parser("board", help="write curves, metrics and pictures for TensorBoard; nothing is sent")
    board.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"the folder ({OUT})")
    board.set_defaults(run=_board)


def _board(given: argparse.Namespace) -> None:
    refuse_no_study()
    use_own_code(given.words)
    if find_spec("tensorboard") is None:
        raise InputError("board needs TensorBoard: pip install 'kidney-ssl[tensorboard]'")
    from kidney_ssl import config  # noqa: PLC0415 - other commands need none of it
    from kidney_ssl.event_files import write_board  # noqa: PLC0415 - an extra, and torch

    try:
        written, absent = write_board(Path(), config.load().model_dump(), given.out)
    except OSError as error:
        raise InputError(f"{error.filename or given.out}: cannot be read or written ({error.strerror})") from error
    if not written:
        raise InputError("nothing is recorded yet: `kidney-ssl run` first")
    if absent:
        print(f"not recorded yet: {', '.join(absent)}")
    print(f"{given.out}: {written} event files, nothing sent; to look at them: tensorboard --logdir {given.out}")
