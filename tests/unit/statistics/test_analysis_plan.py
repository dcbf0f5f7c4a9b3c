"""The analysis plan carried out: intervals, comparisons and the plan's hash."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from kidney_ssl.statistics.analysis_plan import (
    NAMES,
    Compared,
    add_intervals,
    added_parts,
    as_rows,
    compare,
    plan_hash,
    plan_history,
)
from kidney_ssl.statistics.comparisons import Comparison
from kidney_ssl.statistics.result import Estimate

PLAN = {
    "baseline": "random",
    "contrasts": [["good", "poor"]],
    "margin": 0.02,
    "primary": "auroc_against_kidney",
    "resamples": 300,
    "seed": 0,
}


PARAMS = {
    "analysis": PLAN,
    "arms": {
        "random": {"weights": "initial/random", "augmentation": "none"},
        "good": {"weights": "pretrain/cpc", "augmentation": "none"},
    },
    "data": dict.fromkeys(("source", "cases", "exclude", "folds", "fold", "validation", "seed", "classes")),
    "select": {"min_tumor_px": 10},
    "phantom": {"seed": 0},
    "budgets": [[100, 0]],
    "initialize": {"random": {"seeds": [0]}},
    "pretrain": {"methods": {"cpc": {"method": "cpc", "start": "random", "seeds": [0]}}},
}


def comparison(arm, against, metric, one, *, family="baseline", **others):
    return Comparison(arm, against, metric, one, one, one, 40, family=family, **others)


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
        assert one.value == pytest.approx(roc_auc_score(kept["label"], kept["probability"]))
        assert one.low < one.value < one.high


def test_a_better_arm_is_called_better_and_an_equal_one_is_not(compared):
    rows = {(row["arm"], row["metric"]): row for row in as_rows({100: compared[1]}) if row["family"] == "baseline"}
    assert rows["good", "auroc_against_kidney"]["verdict"] == "better"
    assert rows["poor", "auroc_against_kidney"]["verdict"] == "equivalent"
    assert rows["poor", "auroc_against_kidney"]["point"] == 0
    assert rows["poor", "auroc_against_kidney"]["p"] == 1


def test_the_summary_gets_ends_and_differences_of_the_figures_it_has():
    summary = {"accuracy": {"a": 0.8, "random": 0.7}}
    intervals = {"a": {"accuracy": Estimate(0.8, 0.7, 0.9), "f1": Estimate(0.5, 0.4, 0.6)}, "random": {}}
    differences = [
        comparison("a", "random", "accuracy", Estimate(0.1)),
        comparison("a", "b", "accuracy", Estimate(0.3), family="contrasts"),
    ]
    assert add_intervals(summary, {100: Compared(None, intervals, differences)}) == {
        "accuracy": {"a": 0.8, "random": 0.7},
        "accuracy_low": {"a": 0.7},
        "accuracy_high": {"a": 0.9},
        "accuracy_difference": {"a": 0.1},
    }
    assert list(summary) == ["accuracy"]


def test_the_plans_hash_follows_its_values_and_not_their_order():
    turned = {key: dict(reversed(one.items())) if key == "analysis" else one for key, one in PARAMS.items()}
    assert plan_hash(dict(reversed(turned.items()))) == plan_hash(PARAMS)
    assert plan_hash(PARAMS | {"report": {"published": True}}) == plan_hash(PARAMS)


@pytest.mark.parametrize(
    "change",
    [
        {"analysis": PLAN | {"margin": 0.03}},
        {"analysis": PLAN | {"contrasts": []}},
        {"arms": {"random": {"weights": "initial/random", "augmentation": "none"}}},
        {"budgets": [[25, 0], [100, 0]]},
        {"pretrain": {"methods": {"cpc": {"method": "cpc", "start": "random", "seeds": [0, 1]}}}},
        {"initialize": {"random": {"seeds": [0, 1]}}},
        {"initialize": {"imagenet": {"file": None}}},  # a study without random weights
    ],
)
def test_the_plans_hash_covers_arms_contrasts_and_runs(change):
    assert plan_hash(PARAMS | change) != plan_hash(PARAMS)


def test_the_plans_hash_covers_the_metrics_that_are_compared(monkeypatch):
    before = plan_hash(PARAMS)
    monkeypatch.delitem(NAMES, "f1")
    assert plan_hash(PARAMS) != before


def test_a_smaller_budget_carries_its_percent_in_names_and_rows():
    summary = {"accuracy": {"a": 0.8}, "accuracy_25": {"a": 0.7}}
    at = {
        percent: Compared(
            None,
            {"a": {"accuracy": Estimate(value, value - 0.1, value + 0.1)}},
            [comparison("a", "random", "accuracy", Estimate(value - 0.5))],
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


def test_every_budget_is_resampled_and_swapped_alike_whatever_its_number_of_seeds(compared):
    tables, once = compared
    # The same predictions as three seeds have the same means, so only other draws could change anything.
    thrice = compare({arm: several * 3 for arm, several in tables.items()}, PLAN)
    assert as_rows({100: thrice}) == [row | {"seeds": 3} for row in as_rows({100: once})]
    for metric, draws in once.drawn.draws.items():
        np.testing.assert_allclose(thrice.drawn.draws[metric], draws, rtol=0, atol=1e-12)


def test_what_is_added_after_results_exist_is_listed_and_stays_so():
    first = plan_history(PARAMS, {}, None)
    assert first["added"] == []
    arms = PARAMS["arms"] | {"late": {"weights": "initial/random", "augmentation": "basic"}}
    wider = PARAMS | {"arms": arms, "budgets": [[25, 0], [100, 0]], "analysis": PLAN | {"margin": 0.05}}
    # Before there are results a plan may change.
    assert plan_history(wider, first, None)["added"] == []
    history = plan_history(wider, first, plan_hash(PARAMS))
    assert history["added"] == ["arm late", "margin 0.05", "runs with 25 %, seed 0"]
    for results in (plan_hash(PARAMS), plan_hash(wider)):
        assert plan_history(wider, history, results) == history
    # A changed arm counts, what is taken away is no longer named, and is again when it comes back.
    changed = PARAMS | {"arms": arms | {"good": {"weights": "initial/random", "augmentation": "none"}}}
    later = plan_history(changed, history, plan_hash(wider))
    assert added_parts(later, changed) == ["arm good", "arm late"]
    assert added_parts(plan_history(wider, later, plan_hash(changed)), wider)[0] == "arm good"


def test_other_data_begin_a_new_plan():
    first = plan_history(PARAMS, {}, None)
    budgets = {"budgets": [[25, 0], [100, 0]]}
    liver = {"data": PARAMS["data"] | {"classes": {"organ": "liver"}}}
    for data in ({"phantom": {"seed": 1}}, {"select": {"min_tumor_px": 20}}, liver):
        assert plan_history(PARAMS | budgets | data, first, plan_hash(PARAMS))["added"] == []
    assert plan_history(PARAMS | budgets, first, plan_hash(PARAMS))["added"]
