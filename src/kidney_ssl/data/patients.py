"""The patient of each case: splits, folds, budgets and resamples are made of patients."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kidney_ssl.errors import InputError

KEY = "data.patients"
COLUMNS = ["case", "patient"]


def patients_of(cases: Sequence[str], given: Path | str | None) -> dict[str, str]:
    """Name the patient of each case: case -> patient.

    Args:
        cases: names.
        given: a CSV with COLUMNS; a regular expression whose first group, found in a case's name, is the patient; or
            None if each case is a patient.

    Raises:
        InputError: the file cannot be read or is malformed, or a case has no patient.
    """
    if given is None:
        return {case: case for case in cases}
    matches = [] if isinstance(given, Path) else [(case, re.search(given, case)) for case in cases]
    found = _read(given) if isinstance(given, Path) else {case: one[1] for case, one in matches if one and one[1]}
    if missing := [case for case in cases if case not in found]:
        raise InputError(f"{KEY}: {given} names no patient of {', '.join(missing)}; add them, or set data.exclude")
    return {case: found[case] for case in cases}


def _read(path: Path) -> dict[str, str]:
    """Read a table of patients; it may have cases that the study does not use."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [[field.strip() for field in row] for row in csv.reader(stream) if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{KEY}: {path} cannot be read ({error})") from error
    if not rows or rows[0] != COLUMNS:
        raise InputError(f"{KEY}: {path} is no table with the columns {','.join(COLUMNS)}")
    found: dict[str, str] = {}
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(COLUMNS) or not all(row) or found.setdefault(row[0], row[1]) != row[1]:
            raise InputError(f"{KEY}: {path}, row {line}: one case and its one patient, got {','.join(row)}")
    return found


def patient_column(rows: pd.DataFrame) -> pd.Series:
    """The patient of each row; without patients, each case is a patient."""
    return rows["patient" if "patient" in rows else "case"]
