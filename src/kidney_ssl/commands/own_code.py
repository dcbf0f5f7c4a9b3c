"""Commands on a study run in its folder, with the code that the folder holds, whichever `kidney_ssl` is installed."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import kidney_ssl
from kidney_ssl.errors import InputError

PARTS = ("dvc.yaml", "params.yaml", "stages")


def refuse_no_study() -> None:
    """Raise InputError if the current folder holds no study."""
    lacking = [name for name in PARTS if not Path(name).exists()]
    if lacking:
        raise InputError(
            f"no study in {Path.cwd()} ({', '.join(lacking)} missing): go to its folder, or make one with "
            "`kidney-ssl init <folder>`"
        )


def use_own_code(arguments: Sequence[str]) -> None:
    """Start `kidney-ssl` again with the folder's own code, unless that is what runs."""
    own = Path("src/kidney_ssl").resolve()
    first = os.environ.get("PYTHONPATH", "").split(os.pathsep)[0]
    if not own.is_dir() or own.samefile(Path(kidney_ssl.__file__).parent) or first == str(own.parent):
        return
    path = os.pathsep.join([str(own.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    become([sys.executable, "-m", "kidney_ssl.cli", *arguments], {"PYTHONPATH": path})


def become(command: Sequence[str], environment: Mapping[str, str] | None = None) -> NoReturn:
    """Run a command in the place of this process, with this Python's programs found first, as in an active venv."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    sys.stdout.flush()
    os.execvpe(command[0], list(command), os.environ | {"PATH": path} | dict(environment or {}))


def become_stage(name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> NoReturn:
    """Run `python -m stages`, or one of its modules, in the place of this process.

    Raises:
        InputError: the current folder holds no study.
    """
    refuse_no_study()
    become([sys.executable, "-m", name, *arguments], environment)
