"""The results in results/lits: metrics follow from the stored predictions, and docs/lits.md says what is there."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from kidney_ssl import config
from kidney_ssl.report.names import arm_name, spoken
from kidney_ssl.statistics.analysis_plan import plan_hash
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import resample
from kidney_ssl.statistics.fold_means import comparisons_over_folds

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "results/lits"
FOUND = json.loads((RESULTS / "folds.json").read_text(encoding="utf-8"))
SETTINGS = config.load(ROOT / "studies/lits.yaml")
FOLDS = [pd.read_csv(RESULTS / f"fold-{fold}/predictions.csv") for fold in range(SETTINGS.data.folds)]
PAGE = (ROOT / "docs/lits.md").read_text(encoding="utf-8")
CLASSES = SETTINGS.data.classes.model_dump()


def of_runs(rows: pd.DataFrame, arm: str, percent: int) -> list[np.ndarray]:
    return [rows[f"{arm} {percent}-{seed}"].to_numpy() for seed in SETTINGS.runs[percent]]


def test_every_patient_is_tested_in_one_fold():
    of_folds = [set(rows["patient"]) for rows in FOLDS]
    patients = pd.read_csv(ROOT / "studies/lits_patients.csv")["patient"]
    assert sum(map(len, of_folds)) == len(set().union(*of_folds))
    # A patient of whom no slice was chosen is in no table.
    assert set().union(*of_folds) <= set(patients)


@pytest.mark.parametrize("percent", sorted(SETTINGS.runs))
def test_metrics_over_folds_are_those_of_the_stored_predictions(percent: int):
    end = "" if percent == 100 else f"_{percent}"
    for arm in SETTINGS.arms:
        expected: dict[str, list[float]] = {"auroc": [], "auroc_against_kidney": [], "accuracy": []}
        for rows in FOLDS:
            organ = (rows["class"] != "background").to_numpy()
            runs, label = of_runs(rows, arm, percent), rows["label"].to_numpy()
            expected["auroc"].append(np.mean([roc_auc_score(label, one) for one in runs]))
            expected["auroc_against_kidney"].append(np.mean([roc_auc_score(label[organ], one[organ]) for one in runs]))
            expected["accuracy"].append(np.mean([accuracy_score(label, one >= 0.5) for one in runs]))
        for metric, values in expected.items():
            found = FOUND["figures"][metric + end][arm]
            assert found["values"] == pytest.approx(values, abs=2e-6), (arm, metric)
            assert found["mean"] == pytest.approx(np.mean(values), abs=2e-6)


def test_comparisons_follow_from_the_stored_predictions_with_other_draws_too():
    metric, pairs = SETTINGS.analysis.primary, [("random", "imagenet")]
    drawn = [
        resample(
            ArmPredictions.of_slices(
                list(SETTINGS.arms),  # all of them: the spread over seeds is pooled over arms
                rows,
                np.array([of_runs(rows, arm, 100) for arm in SETTINGS.arms]),
            ),
            count=2000,
            seed=99 + fold,
            metrics=[metric],
        )
        for fold, rows in enumerate(FOLDS)
    ]
    (one,) = comparisons_over_folds(drawn, metric, pairs, margin=SETTINGS.analysis.margin)
    (row,) = [
        row
        for row in FOUND["differences"]
        if (row["arm"], row["against"], row["metric"], row["percent"]) == ("random", "imagenet", metric, 100)
    ]
    assert one.difference.value == pytest.approx(row["point"], abs=2e-6)
    assert [one.difference.low, one.difference.high] == pytest.approx([row["low"], row["high"]], abs=0.03)


def test_the_results_are_of_the_study_in_the_repository():
    for fold in range(SETTINGS.data.folds):
        plan = json.loads((RESULTS / f"fold-{fold}/plan.json").read_text(encoding="utf-8"))
        assert plan["data"]["fold"] == fold
        assert plan["plans"] == [plan_hash(SETTINGS.model_dump(mode="json"))]
        assert plan["added"] == []


def cells(low: float | None, middle: float, high: float | None, sign: str = "") -> str:
    if low is None or high is None:
        return f"{middle:{sign}.2f}"
    return f"{middle:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def expected_contrasts() -> list[str]:
    """Rows of the page's second table: each task that starts from random weights against these, by its own interval."""
    found = {
        (row["percent"], row["arm"]): cells(row["low"], row["point"], row["high"], "+")
        for row in FOUND["differences"]
        if (row["family"], row["metric"], row["against"]) == ("contrasts", SETTINGS.analysis.primary, "random")
    }
    plan = SETTINGS.analysis
    arms = [arm for arm, against in plan.contrasts if against == "random" and arm != plan.baseline]
    percents = sorted(SETTINGS.runs, reverse=True)
    rows = [[spoken(arm_name(arm), CLASSES), *(found[percent, arm] for percent in percents)] for arm in arms]
    return ["| " + " | ".join(row) + " |" for row in rows]


def expected_table() -> list[str]:
    """Rows of the page's table: the primary metric and its difference from the baseline at each budget."""
    differences = {
        (row["percent"], row["arm"]): row
        for row in FOUND["differences"]
        if (row["family"], row["metric"]) == ("baseline", SETTINGS.analysis.primary)
    }
    lines = []
    for arm in SETTINGS.arms:
        line = [spoken(arm_name(arm), CLASSES)]
        for percent in sorted(SETTINGS.runs, reverse=True):
            name = SETTINGS.analysis.primary + ("" if percent == 100 else f"_{percent}")
            one = FOUND["figures"][name][arm]
            line.append(cells(one["low"], one["mean"], one["high"]))
            row = differences.get((percent, arm))
            line.append(cells(row["simultaneous_low"], row["point"], row["simultaneous_high"], "+") if row else "")
        lines.append("| " + " | ".join(line) + " |")
    return [re.sub(r"\s+", " ", line) for line in lines]


def test_the_page_has_the_numbers_of_the_results():
    shown = [re.sub(r"\s+", " ", line) for line in PAGE.splitlines()]
    for line in expected_table() + expected_contrasts():
        assert line in shown


def test_the_page_has_the_shortcut_baseline_and_the_baseline_arm_by_fold():
    words = " ".join(PAGE.split())
    files = [RESULTS / f"fold-{fold}/shortcut.json" for fold in range(SETTINGS.data.folds)]
    shortcut = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    for metric in ("auroc", "auroc_against_kidney"):
        *first, last = (f"{one[metric]['all']['point']:.2f}" for one in shortcut)
        assert f"{', '.join(first)} and {last}" in words
        values = FOUND["figures"][metric][SETTINGS.analysis.baseline]["values"]
        assert ", ".join(f"{value:.2f}" for value in values) in words


def test_the_pages_plot_is_that_of_the_results():
    assert (ROOT / "docs/images/lits_folds.svg").read_bytes() == (RESULTS / "folds-100.svg").read_bytes()
