"""What single cases gave, kept until all of them are there: a killed stage goes on with the cases that are missing."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


def part_of(folder: Path, case: str, identity: Any) -> Path:
    """Name the file that keeps what a case gave.

    Args:
        folder: of the stage's parts; the stage deletes it when it is done.
        case: the case's name.
        identity: all that decides the result, as JSON holds it: checksums of the volumes, parameters, slices. This
            folder's source counts too, for what an edited stage would have given otherwise.

    Returns:
        <folder>/<case>-<16 hexadecimal digits>.npz.
    """
    key = hashlib.sha256(json.dumps([case, identity, _source()]).encode()).hexdigest()[:16]
    return folder / f"{case}-{key}.npz"


def write_part(path: Path, **arrays: Any) -> None:
    """Write a part beside, and move it into place when it is whole.

    The name beside is the process's own: a worker whose stage was killed may still write the same case.
    """
    beside = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(beside, **arrays)
    beside.replace(path)


@cache
def _source() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
