"""Learning curves as tables: what stands in metrics/learning.json and plots/learning.csv."""

import json

import pytest
from test_analysis_plan import PLAN, predictions

from kidney_ssl.metrics.long_tables import long_learning
from kidney_ssl.statistics.analysis_plan import compare, curve_metrics, learning

SKILLS = {10: (0.1, 0.4), 30: (0.4, 0.7), 100: (0.7, 1.0)}


@pytest.fixture(scope="module")
def found():
    plan = PLAN | {"contrasts": []}
    compared = {
        percent: compare({"random": [predictions(low)] * seeds, "good": [predictions(high)] * seeds}, plan)
        for seeds, (percent, (low, high)) in enumerate(SKILLS.items(), start=1)
    }
    return learning(compared, plan)


def test_it_holds_areas_differences_and_equivalences_of_the_primary_figure_and_accuracy(found):
    figures = {"auroc_against_kidney", "accuracy"}
    assert found["percents"] == [10, 30, 100]
    assert {(row["arm"], row["metric"]) for row in found["areas"]} == {
        (a, m) for a in ("random", "good") for m in figures
    }
    assert {(row["arm"], row["against"], row["metric"]) for row in found["differences"]} == {
        ("good", "random", metric) for metric in figures
    }
    assert {(row["arm"], row["metric"], row["percent"]) for row in found["equivalences"]} == {
        ("good", metric, percent) for metric in figures for percent in SKILLS
    }
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_an_arm_with_the_baselines_figures_of_the_next_budget_is_equivalent_to_it(found):
    rows = {row["percent"]: row for row in found["equivalences"] if row["metric"] == "auroc_against_kidney"}
    # The very predictions that the baseline makes with 30 and 100 %.
    assert (rows[10]["equals"], rows[30]["equals"]) == (30, 100)
    assert rows[10]["low"] == rows[10]["high"] == 30
    assert (rows[100]["equals"], rows[100]["reasons"]["equals"]) == (None, "more than 100 %")


def test_the_difference_of_areas_is_that_of_the_areas(found):
    areas = {(row["arm"], row["metric"]): row["area"] for row in found["areas"]}
    for row in found["differences"]:
        assert row["point"] == pytest.approx(areas["good", row["metric"]] - areas["random", row["metric"]], abs=2e-6)
        assert row["low"] < row["point"] < row["high"]
        assert row["p"] < 0.05


def test_one_budget_has_no_curve_and_says_why(found):
    alone = {100: compare({"random": [predictions(0.2)], "good": [predictions(0.2)], "poor": [predictions(0)]}, PLAN)}
    assert learning(alone, PLAN) == {"reason": "one label budget: a learning curve needs at least two percents"}


def test_the_points_of_the_curves_stand_under_each_other():
    summary = {
        "accuracy": {"a": 0.8, "b": None},
        "accuracy_low": {"a": 0.7, "b": None},
        "accuracy_high": {"a": 0.9, "b": None},
        "accuracy_10": {"a": 0.6},
        "f1": {"a": 1.0},
    }
    table = long_learning(summary, [100, 10], curve_metrics(PLAN))
    assert list(table.columns) == ["metric", "arm", "percent", "value", "low", "high"]
    rows = table.astype(object).where(table.notna(), None).values.tolist()
    assert rows == [["accuracy", "a", 10, 0.6, None, None], ["accuracy", "a", 100, 0.8, 0.7, 0.9]]
