"""Which slices are shown."""

import numpy as np
import pandas as pd

from kidney_ssl.metrics.gallery import outcomes, same_slices, worst_errors


def predictions() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "case": [f"case_{number % 20:05d}" for number in range(200)],
            "label": generator.integers(0, 2, 200),
            "probability": generator.random(200),
        }
    )


def test_outcomes_by_hand() -> None:
    table = pd.DataFrame({"label": [1, 1, 0, 0], "probability": [0.5, 0.49, 0.5, 0.49]})
    assert outcomes(table).tolist() == ["TP", "FN", "FP", "TN"]


def test_the_same_slices_are_of_every_outcome_and_of_different_cases() -> None:
    table = predictions()
    rows = same_slices(table, 3)
    found = outcomes(table)[rows]
    assert found.tolist() == ["TP"] * 3 + ["FP"] * 3 + ["FN"] * 3 + ["TN"] * 3
    for outcome in ("TP", "FP", "FN", "TN"):
        of_one = table.iloc[rows[found == outcome]]
        assert of_one["case"].nunique() == 3
        assert of_one["probability"].is_monotonic_increasing


def test_a_missing_outcome_and_too_few_rows_are_no_error() -> None:
    table = pd.DataFrame({"case": ["a", "a", "b"], "label": [1, 1, 0], "probability": [0.9, 0.8, 0.1]})
    assert sorted(same_slices(table, 5)) == [0, 1, 2]
    assert len(worst_errors(table, 5)) == 0
    assert len(same_slices(table.iloc[:0], 5)) == 0


def test_the_worst_errors_come_first_one_of_a_case() -> None:
    table = predictions()
    rows = worst_errors(table, 6)
    wrong = np.isin(outcomes(table), ["FP", "FN"])
    assert wrong[rows].all()
    assert table.iloc[rows]["case"].nunique() == 6
    confidence = np.abs(table["probability"] - 0.5)
    assert confidence.iloc[rows].is_monotonic_decreasing
    assert confidence.iloc[rows[0]] == confidence[wrong].max()
