"""Results of single cases, kept until all of them are there: a killed stage goes on with the cases that are missing."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kidney_ssl.code_version import code_version
from kidney_ssl.files import replacing


def kept_part(folder: Path, case: str, identity: Any, make: Callable[[], dict[str, Any]]) -> Path:
    """Make a case's result, unless it is kept already.

    Args:
        folder: of the stage's parts; the stage deletes it when it is done.
        case: the case's name.
        identity: all that decides the result, as JSON holds it: checksums of the volumes, parameters, slices. The
            code that reads and cuts volumes counts too.
        make: the result's arrays by name.

    Returns:
        <folder>/<case>-<16 hexadecimal digits>.npz.
    """
    code = code_version("kidney_ssl.data.reader", "kidney_ssl.data.slices")
    key = hashlib.sha256(json.dumps([case, identity, code]).encode()).hexdigest()[:16]
    path = folder / f"{case}-{key}.npz"
    if not path.exists():
        arrays = make()
        with replacing(path) as beside:  # a worker whose stage was killed may still write the same case
            np.savez(beside, **arrays)
    return path
