"""Intervals and comparisons as tables."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from kidney_ssl.evaluation.bootstrap import Interval
from kidney_ssl.evaluation.differences import Difference
from kidney_ssl.report.comparisons import Compared, add_intervals, as_rows, compare, comparisons_markdown, plan_hash

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
    return tables, compare(tables, PLAN)


def test_points_are_scikit_learns_and_lie_in_their_intervals(compared):
    tables, found = compared[0], compared[1].intervals
    for arm, (table,) in tables.items():
        kept = table[table["class"].isin(["tumor", "kidney"])]
        one = found[arm]["auroc_against_kidney"]
        assert one.point == pytest.approx(roc_auc_score(kept["label"], kept["probability"]))
        assert one.low < one.point < one.high


def test_a_better_arm_is_called_better_and_an_equal_one_is_not(compared):
    rows = {(row["arm"], row["metric"]): row for row in as_rows({100: compared[1]}) if row["family"] == "baseline"}
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
    assert add_intervals(summary, {100: Compared(None, intervals, differences)}) == {
        "accuracy": {"a": 0.8, "random": 0.7},
        "accuracy_low": {"a": 0.7},
        "accuracy_high": {"a": 0.9},
        "accuracy_difference": {"a": 0.1},
    }
    assert list(summary) == ["accuracy"]


def test_the_table_has_the_primary_figure_alone_and_a_dash_where_nothing_is_known():
    primary = ("random", "auroc_against_kidney", "baseline")
    ends = {"simultaneous_low": 0.05, "simultaneous_high": 0.15}
    found = [
        Difference("a", "random", "accuracy", "baseline", point=0.5, verdict="better"),
        Difference("a", *primary, point=0.1, p=0.004, verdict="better", **ends),
        Difference("b", *primary, reason="no tumor"),
    ]
    rows = as_rows({100: Compared(None, {}, found)})
    text = comparisons_markdown(rows, PLAN)
    assert "| 100 % | a | random | +0.100 | +0.050 to +0.150 | 0.004 | better |" in text
    assert "| 100 % | b | random | - | - | - | undecided |" in text
    assert text.count("% | a |") == 1
    assert plan_hash(PLAN) in text
    assert comparisons_markdown([], PLAN) == ""


def test_the_plans_hash_follows_its_values_and_not_their_order():
    assert plan_hash(dict(reversed(PLAN.items()))) == plan_hash(PLAN)
    assert plan_hash(PLAN | {"margin": 0.03}) != plan_hash(PLAN)


def test_a_smaller_budget_carries_its_percent_in_names_and_rows():
    summary = {"accuracy": {"a": 0.8}, "accuracy_25": {"a": 0.7}}
    at = {
        percent: Compared(
            None,
            {"a": {"accuracy": Interval(value, value - 0.1, value + 0.1)}},
            [Difference("a", "random", "accuracy", "baseline", point=value - 0.5)],
        )
        for percent, value in ((25, 0.7), (100, 0.8))
    }
    assert add_intervals(summary, at) == {
        "accuracy": {"a": 0.8},
        "accuracy_low": {"a": 0.7},
        "accuracy_high": {"a": 0.9},
        "accuracy_difference": {"a": 0.3},
        "accuracy_25": {"a": 0.7},
        "accuracy_25_low": {"a": 0.6},
        "accuracy_25_high": {"a": 0.8},
        "accuracy_25_difference": {"a": 0.2},
    }
    assert [(row["percent"], row["point"]) for row in as_rows(at)] == [(100, 0.3), (25, 0.2)]
    text = comparisons_markdown(as_rows(at), PLAN | {"primary": "accuracy"})
    assert text.index("| 100 % | a | random | +0.300") < text.index("| 25 % | a | random | +0.200")


def test_every_budget_is_resampled_and_swapped_alike_whatever_its_number_of_seeds(compared):
    tables, once = compared
    # The same predictions as three seeds have the same means, so only other draws could change anything.
    thrice = compare({arm: several * 3 for arm, several in tables.items()}, PLAN)
    assert as_rows({100: thrice}) == as_rows({100: once})
    for metric, draws in once.drawn.draws.items():
        np.testing.assert_allclose(thrice.drawn.draws[metric], draws, rtol=0, atol=1e-12)
