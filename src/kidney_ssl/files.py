"""Atomic writing: a file is written next to its target and then moved into place.

A result may be a link into DVC's cache or the run store. Writing into a link would change the stored file, and root
can do so even if the file is read-only. So nothing here writes into an existing file, and a killed process leaves the
previous file whole.
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
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_dangling(path: Path) -> None:
    """Refuse a symbolic link whose target does not exist.

    Raises:
        InputError: the path is such a link.
    """
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path} is a link to {path.readlink()}, which is not there: bring that file "
            "(`git annex get`, `datalad get`, `dvc pull`, a mount) or replace the link"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a temporary file that replaces `path` when the block ends without an error.

    Args:
        path: the target; its folder is made.

    Yields:
        Path of the temporary file, used by this process alone, with the ending of `path`.
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
    """Write UTF-8 without converting line ends."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index."""
    with replacing(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n")


def place_file(source: Path, target: Path) -> None:
    """Put a file at `target`, replacing any file there, by a hard link or, failing that, a copy."""
    with replacing(target) as beside:
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)
