"""Files that are written beside their place and then moved into it.

A result may be a link into DVC's cache or the run store. Who writes into a link changes what is kept there, and root
may, whatever the file's mode says. So nothing here writes into a file that is there, and a killed writer leaves the
file before it whole.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kidney_ssl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def sha256(path: Path) -> str:
    """Hash a file, without holding it in memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_dangling(path: Path) -> None:
    """Refuse a link to what is not there.

    Raises:
        InputError: it is one.
    """
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path} is a link to {path.readlink()}, which is not there: bring that file "
            "(`git annex get`, `datalad get`, `dvc pull`, a mount) or replace the link"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file beside its place; it takes the place when the block ends without an error.

    Args:
        path: the place; its folder is made.

    Yields:
        The file to write, this process's own, with the ending of `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    beside.unlink(missing_ok=True)
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with line ends as they are."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index."""
    with replacing(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n")


def place_file(source: Path, target: Path) -> None:
    """Put a file where another may be, by a hard link or else a copy."""
    with replacing(target) as beside:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
