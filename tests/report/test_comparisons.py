"""Intervals and comparisons as tables."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from kidney_ssl.evaluation.bootstrap import Interval
from kidney_ssl.evaluation.differences import Difference
from kidney_ssl.report.comparisons import add_intervals, as_rows, compare, comparisons_markdown, plan_hash

PLAN = {
    "baseline": "random",
    "contrasts": [["good", "poor"]],
    "margin": 0.02,
    "primary": "auroc_against_kidney",
    "resamples": 300,
    "seed": 0,
}


def predictions(skill: float, *, cases: int = 40) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    rows = [
        {"part": "test", "case": f"case_{case:05d}", "slice": number, "class": kind, "label": int(kind == "tumor")}
        for case in range(cases)
        for number, kind in enumerate(("tumor", "tumor", "kidney", "background"))
    ]
    table = pd.DataFrame(rows)
    noise = generator.normal(size=len(table))
    return table.assign(probability=1 / (1 + np.exp(-(skill * (2 * table["label"] - 1) + noise))))


@pytest.fixture(scope="module")
def compared():
    tables = {"random": [predictions(0.2)], "good": [predictions(1.2)], "poor": [predictions(0.2)]}
    return tables, *compare(tables, PLAN)


def test_points_are_scikit_learns_and_lie_in_their_intervals(compared):
    tables, found, _ = compared
    for arm, (table,) in tables.items():
        kept = table[table["class"].isin(["tumor", "kidney"])]
        one = found[arm]["auroc_against_kidney"]
        assert one.point == pytest.approx(roc_auc_score(kept["label"], kept["probability"]))
        assert one.low < one.point < one.high


def test_a_better_arm_is_called_better_and_an_equal_one_is_not(compared):
    rows = {(row["arm"], row["metric"]): row for row in as_rows(compared[2]) if row["family"] == "baseline"}
    assert rows["good", "auroc_against_kidney"]["verdict"] == "better"
    assert rows["poor", "auroc_against_kidney"]["verdict"] == "equivalent"
    assert rows["poor", "auroc_against_kidney"]["point"] == 0
    assert rows["poor", "auroc_against_kidney"]["p"] == 1


def test_the_summary_gets_ends_and_differences_of_the_figures_it_has():
    summary = {"accuracy": {"a": 0.8, "random": 0.7}}
    intervals = {"a": {"accuracy": Interval(0.8, 0.7, 0.9), "f1": Interval(0.5, 0.4, 0.6)}, "random": {}}
    differences = [
        Difference("a", "random", "accuracy", "baseline", point=0.1),
        Difference("a", "b", "accuracy", "contrasts", point=0.3),
    ]
    assert add_intervals(summary, intervals, differences) == {
        "accuracy": {"a": 0.8, "random": 0.7},
        "accuracy_low": {"a": 0.7},
        "accuracy_high": {"a": 0.9},
        "accuracy_difference": {"a": 0.1},
    }
    assert list(summary) == ["accuracy"]


def test_the_table_has_the_primary_figure_alone_and_a_dash_where_nothing_is_known():
    rows = as_rows(
        [
            Difference("a", "random", "accuracy", "baseline", point=0.5, verdict="better"),
            Difference(
                "a",
                "random",
                "auroc_against_kidney",
                "baseline",
                point=0.1,
                p=0.004,
                simultaneous_low=0.05,
                simultaneous_high=0.15,
                verdict="better",
            ),
            Difference("b", "random", "auroc_against_kidney", "baseline", reason="no tumor"),
        ]
    )
    text = comparisons_markdown(rows, PLAN)
    assert "| a | random | +0.100 | +0.050 to +0.150 | 0.004 | better |" in text
    assert "| b | random | - | - | - | undecided |" in text
    assert text.count("\n| a |") == 1
    assert plan_hash(PLAN) in text
    assert comparisons_markdown([], PLAN) == ""


def test_the_plans_hash_follows_its_values_and_not_their_order():
    assert plan_hash(dict(reversed(PLAN.items()))) == plan_hash(PLAN)
    assert plan_hash(PLAN | {"margin": 0.03}) != plan_hash(PLAN)
