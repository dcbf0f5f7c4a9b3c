"""Results of single cases, kept until all are complete, so that a killed stage resumes with the missing cases."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kidney_ssl.code_version import code_version
from kidney_ssl.files import replacing


def kept_part(folder: Path, case: str, identity: Any, make: Callable[[], dict[str, Any]]) -> Path:
    """Make a case's result, unless it exists already.

    Args:
        folder: folder of the stage's parts; the stage deletes it at the end.
        case: the case's name.
        identity: everything that determines the result, as JSON: checksums of the volumes, parameters, slices. The
            version of the code that reads and cuts volumes is added to it.
        make: computes the result: name -> array.

    Returns:
        <folder>/<case>-<16 hexadecimal digits>.npz.
    """
    key = hashlib.sha256(json.dumps([case, identity, _code()]).encode()).hexdigest()[:16]
    path = folder / f"{case}-{key}.npz"
    if not path.exists():
        arrays = make()
        with replacing(path) as beside:  # a worker of a killed stage may still be writing the same case
            np.savez(beside, **arrays)
    return path


@cache
def _code() -> dict[str, str]:
    """Version of the code that makes parts; it takes longer to find than a small image to read."""
    return code_version("kidney_ssl.data.reader", "kidney_ssl.data.slices", "kidney_ssl.data.table")
