"""Whose case it is: a table, a pattern, or nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kidney_ssl.data.patients import patients_of
from kidney_ssl.errors import InputError
from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.bootstrap import intervals, resample

CASES = ["case_A1", "case_A2", "case_B1"]


def test_without_patients_each_case_is_one() -> None:
    assert patients_of(CASES, None) == {case: case for case in CASES}


def test_a_table_names_them(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("case,patient\ncase_A1, 0007\ncase_A2,0007\n\ncase_B1,8\ncase_Z9,9\n", encoding="utf-8-sig")
    assert patients_of(CASES, path) == {"case_A1": "0007", "case_A2": "0007", "case_B1": "8"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("case,patient\ncase_A1,1\n", "names no patient of case_A2, case_B1; add them"),
        ("patient,case\n1,case_A1\n", "no table with the columns case,patient"),
        ("", "no table"),
        ("case,patient\ncase_A1,1\ncase_A1,2\n", "row 3: one case and its one patient, got case_A1,2"),
        ("case,patient\ncase_A1,\n", "row 2"),
        ("case,patient\ncase_A1,1,2\n", "row 2"),
        (None, "cannot be read"),
    ],
)
def test_a_table_of_another_form_is_one_line(text: str | None, match: str, tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=match) as caught:
        patients_of(CASES, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_pattern_finds_them_in_the_names() -> None:
    assert patients_of(CASES, "_([A-Z])") == {"case_A1": "A", "case_A2": "A", "case_B1": "B"}
    with pytest.raises(InputError, match="names no patient of case_B1"):
        patients_of(CASES, "_(A)")


def test_intervals_resample_patients_and_not_their_cases() -> None:
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"part": "test", "case": np.repeat([f"case_{n:03d}" for n in range(40)], 6)})
    rows["slice"] = np.tile(np.arange(6), 40)
    rows["label"] = np.tile([0, 1], 120)
    rows["class"] = np.where(rows["label"] == 1, "tumor", "kidney")
    # A patient's four cases are alike.
    rows["probability"] = 0.4 * rows["label"] + 0.6 * np.repeat(generator.random(10), 24)
    one = arms_of_tables({"arm": [rows]})
    patients = arms_of_tables({"arm": [rows.assign(patient=np.repeat(np.arange(10).astype(str), 24))]})
    assert (len(one.names), len(patients.names)) == (40, 10)
    widths = []
    for predictions in (one, patients):
        estimate = intervals(resample(predictions, count=500, seed=0, metrics=["accuracy"]))["arm"]["accuracy"]
        widths.append(estimate.high - estimate.low)
    assert widths[1] > 1.5 * widths[0]
