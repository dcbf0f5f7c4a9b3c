"""`kidney-ssl init`: a new study."""

import argparse
from pathlib import Path

from kidney_ssl.new_study import write_study

NEXT = """\
Next:
  cd {folder}
  kidney-ssl plan    # how long it takes here
  kidney-ssl run     # runs the study of params.yaml; goes on where it was interrupted
Each key is explained in params.yaml; studies/ holds complete files for other studies."""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `init`."""
    parser = commands.add_parser("init", help="write a new study into an empty folder")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="the folder (this one)")
    parser.add_argument("--study", metavar="NAME", help="params.yaml: a file of studies/, such as kits23 (a phantom)")
    parser.set_defaults(run=_init)


def _init(given: argparse.Namespace) -> None:
    write_study(given.folder, given.study)
    lines = NEXT.format(folder=given.folder).splitlines()
    print(f"A study is in {given.folder.resolve()}.", *(line for line in lines if line != "  cd ."), sep="\n")
