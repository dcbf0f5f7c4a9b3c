"""CSV tables of a run, read as text and checked row by row; errors name the first bad line."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kidney_ssl.errors import InputError, one_line

RERUN = "run the finetune stage again"


def read_text(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV as text, without type inference: a case may be called NA, and an empty field stays visible.

    Raises:
        InputError: the file is missing, is not a table, or lacks one of `columns`.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {RERUN}") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not a CSV table ({one_line(str(error))}); {RERUN}") from error
    absent = [column for column in columns if column not in rows]
    if absent:
        raise InputError(f"{path}: column(s) missing: {', '.join(absent)}; {RERUN}")
    return rows.fillna("")  # a row with too few fields


def refuse(path: Path, bad: pd.Series, what: str) -> None:
    """Raise an InputError that names the line of the first bad row, if there is one."""
    if bad.any():
        line = int(np.flatnonzero(bad)[0]) + 2
        raise InputError(f"{path}: line {line}: {what} ({int(bad.sum())} such row(s)); {RERUN}")


def read_slices(path: Path, columns: Sequence[str], classes: Sequence[str], *probabilities: str) -> pd.DataFrame:
    """Read a table with one row per slice: case, slice, class, `columns` as text, and columns of probabilities.

    Raises:
        InputError: see `read_text`; or a case has no name, a slice is not an integer or is duplicated, a class is
            unknown, or a probability is outside [0, 1].
    """
    rows = read_text(path, ["case", "slice", "class", *columns, *probabilities])
    refuse(path, rows["case"] == "", "no case is named")
    refuse(path, ~rows["class"].isin(classes), f"class is none of {', '.join(classes)}")
    rows["slice"] = pd.to_numeric(rows["slice"], errors="coerce")
    refuse(path, ~((rows["slice"] >= 0) & (rows["slice"] % 1 == 0)), "slice is no whole number from 0")
    refuse(path, rows.duplicated(["case", "slice"]), "duplicate slice")
    for name in probabilities:
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
        refuse(path, ~rows[name].between(0, 1), f"{name} is not in [0, 1]")
    return rows.astype({"slice": "int64"} | dict.fromkeys(probabilities, "float64"))
