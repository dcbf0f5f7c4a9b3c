"""The tables over all arms: the summary's form, means over seeds, the thesis's figures, text and long tables."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.long_tables import long_curves, long_metrics
from kidney_ssl.metrics.over_seeds import FIGURES, Run, budget_name, means, spreads
from kidney_ssl.metrics.run import evaluate_run
from kidney_ssl.thesis.published import published_figures, published_metrics

METHODS = Path(__file__).parents[3].parent / "shared" / "METHODS.md"
# The thesis's names of the arms in METHODS.md, in the order of its table.
ARMS = {
    "random weights": ["random"],
    "ImageNet weights (baseline)": ["imagenet"],
    "rotation": ["rotation"],
    "inpainting, random / kidney / switch": ["inpaint_random", "inpaint_kidney", "inpaint_switch"],
    "Models Genesis": ["genesis"],
    "SimCLR": ["simclr"],
    "CPC": ["cpc"],
    "supervised augmentation": ["supervised"],
    "unsupervised augmentation": ["unsupervised"],
}


def figures(value, **changes):
    """Figures of a run, every one of them `value` but for those that are named."""
    given = {}
    for name, path in FIGURES.items():
        place = given
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = changes.get(name, value)
    return given


def test_the_summary_is_metric_then_arm_then_number(tmp_path):
    results = {Run("random", 100, 0): figures(0.7, auroc=0.8), Run("imagenet", 100, 0): figures(0.9)}
    summary = means(results)
    assert set(summary) == set(FIGURES)
    assert summary["accuracy"] == {"imagenet": 0.9, "random": 0.7}
    assert summary["auroc"] == {"imagenet": 0.9, "random": 0.8}
    assert all(list(arms) == ["imagenet", "random"] for arms in summary.values())
    write_json(tmp_path / "summary.json", summary)


def test_every_figure_of_the_summary_stands_in_the_figures_of_a_run(tmp_path):
    rows = [
        (part, f"{part}_1", number, kind, int(kind == "tumor"), probability)
        for part in ("validation", "test")
        for number, (kind, probability) in enumerate([("tumor", 0.9), ("tumor", 0.2), ("kidney", 0.6)])
    ]
    columns = ["part", "case", "slice", "class", "label", "probability"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "predictions.csv", index=False)
    curves = pd.DataFrame(
        {"learning_rate": 0.1, "epoch": [1, 2], "test_accuracy": [1, 1 / 3], "test_f1": [1, 0.5], "selected": [0, 1]}
    )
    curves.to_csv(tmp_path / "curves.csv", index=False)
    test = pd.DataFrame(rows[3:], columns=columns)
    further = pd.DataFrame([("test_1", 3, "background", 0.05)], columns=["case", "slice", "class", "probability"])
    pd.concat([test, further])[further.columns].to_csv(tmp_path / "natural.csv", index=False)
    np.save(tmp_path / "epochs.npy", np.array([[0.9, 0.8, 0.1], [0.9, 0.2, 0.6]], np.float32))
    frozen = test[["case", "slice", "class", "label"]]
    frozen.assign(linear=[0.9, 0.8, 0.1], knn=0.5).to_csv(tmp_path / "frozen.csv", index=False)
    for part in ("train", "test"):
        slices = frozen.assign(case=f"{part}_1", tumor_mm2=[9, 8, 0], cyst_px=0, thickness_mm=5, block="other")
        slices.to_csv(tmp_path / f"{part}.csv", index=False)
    run = evaluate_run(tmp_path, tmp_path)
    summary = means({Run("random", 100, 0): run})
    assert {metric: arms["random"] for metric, arms in summary.items()} == {
        "accuracy": 0.333333,
        "accuracy_against_kidney": 0.333333,
        "accuracy_best_on_test": 1.0,
        "accuracy_optimism": 0.666667,
        "accuracy_optimism_split_half": None,  # a single test case
        "accuracy_over_cases": 0.333333,
        "auroc": 0.5,
        "auroc_against_kidney": 0.5,
        "auroc_natural": 0.75,
        "average_precision": 0.833333,
        "brier": 0.336667,
        "brier_natural": 0.253125,
        "f1": 0.5,
        "f1_best_on_test": 1.0,
        "f1_optimism_split_half": None,  # a single test case
        "f1_optimism": 0.5,
        "knn_auroc": 0.5,
        "linear_auroc": 1.0,
        "sensitivity": 0.5,
        "sensitivity_at_1_fp": 1.0,
        "specificity": 0.0,
    }


def test_figures_are_means_over_the_seeds_of_an_arm():
    results = {Run("random", 100, seed): figures(value) for seed, value in enumerate([0.5, 0.6, 0.8])}
    results[Run("imagenet", 100, 0)] = figures(0.1)
    assert means(results)["f1"] == {"imagenet": 0.1, "random": 0.633333}


def test_smaller_budgets_carry_their_percent_in_the_name_and_all_the_cases_do_not():
    results = {
        Run("random", 25, 0): figures(0.5),
        Run("random", 25, 1): figures(0.6),
        Run("random", 100, 0): figures(1),
    }
    summary = means(results)
    assert summary["accuracy"] == {"random": 1}
    assert summary["accuracy_25"] == {"random": 0.55}
    assert summary["f1_optimism_25"] == {"random": 0.55}
    assert set(summary) == {*FIGURES, *(f"{name}_25" for name in FIGURES)}


@pytest.mark.parametrize(
    ("percent", "end", "name"),
    [
        (100, "", "f1"),
        (100, "low", "f1_low"),
        (25, "", "f1_25"),
        (25, "low", "f1_25_low"),
        (1, "spread", "f1_1_spread"),
    ],
)
def test_a_name_has_its_figure_then_its_percent_then_its_end(percent, end, name):
    assert budget_name("f1", percent, end) == name


def test_the_spread_over_seeds_is_their_standard_deviation_and_a_single_seed_has_none():
    values = [0.5, 0.6, 0.8]
    results = {Run("random", 25, seed): figures(value) for seed, value in enumerate(values)}
    results |= {Run("rotation", 25, seed): figures(0.5, f1=None if seed else 0.5) for seed in range(3)}
    results |= {Run("random", 100, 0): figures(0.1), Run("rotation", 100, 0): figures(0.1)}
    found = spreads(results)
    assert set(found) == {f"{name}_25_spread" for name in FIGURES}
    assert found["accuracy_25_spread"] == {"random": round(float(np.std(values, ddof=1)), 6), "rotation": 0.0}
    assert found["f1_25_spread"]["rotation"] is None


def test_a_study_without_all_the_cases_has_no_plain_name():
    results = {Run("random", percent, 0): figures(percent / 100) for percent in (10, 50)}
    summary = means(results)
    assert set(summary) == {f"{name}_{percent}" for name in FIGURES for percent in (10, 50)}


def test_a_figure_that_one_seed_lacks_is_none_and_no_mean_of_the_rest():
    results = {Run("random", 100, 0): figures(0.5, auroc=None), Run("random", 100, 1): figures(0.6)}
    summary = means(results)
    assert summary["auroc"] == {"random": None}
    assert summary["accuracy"] == {"random": 0.55}


def test_a_figure_of_zero_is_no_missing_one():
    summary = means({Run("random", 100, 0): figures(0.5, specificity=0.0)})
    assert summary["specificity"] == {"random": 0.0}


def test_the_order_of_results_changes_nothing():
    results = {Run(arm, 100, seed): figures(0.1 * seed) for arm in ("b", "a") for seed in (2, 0, 1)}
    backwards = dict(reversed(results.items()))
    assert str(means(results)) == str(means(backwards))


def test_the_thesis_figures_stand_beside_its_arms_and_only_when_asked_for():
    results = {Run(arm, 100, 0): figures(0.5) for arm in ("imagenet", "rotation", "rotation_long")}
    assert not [name for name in means(results) if "published" in name]
    summary = means(results) | published_metrics([run.arm for run in results])
    assert summary["accuracy_published"] == {"imagenet": 0.89, "rotation": 0.87}
    assert summary["f1_published"] == {"imagenet": 0.89, "rotation": 0.86}
    assert published_metrics(["own"]) == {}
    assert summary["accuracy"] == dict.fromkeys(("imagenet", "rotation", "rotation_long"), 0.5)


@pytest.mark.skipif(not METHODS.exists(), reason="../shared/METHODS.md is not beside this checkout")
def test_the_thesis_figures_are_those_of_section_7_of_the_methods():
    section = METHODS.read_text(encoding="utf-8").split("## 7.")[1]
    expected = []
    for name, *cells in re.findall(r"^\| (.+?) \| ([\d. /]+) \| ([\d. /]+) \|$", section, re.MULTILINE):
        accuracies, f1s = (cell.split(" / ") for cell in cells)
        for arm, accuracy, f1 in zip(ARMS[name], accuracies, f1s, strict=True):
            expected.append({"arm": arm, "accuracy": accuracy, "f1": f1})
    assert len(expected) == 11
    assert published_figures() == expected


def test_curves_of_all_runs_stand_under_each_other_with_the_run_in_front():
    curves = {
        Run("random", 100, 1): pd.DataFrame({"epoch": [1, 2], "test_f1": [0.5, np.nan]}),
        Run("imagenet", 25, 0): pd.DataFrame({"epoch": [1], "test_f1": [0.7]}),
        Run("random", 100, 0): pd.DataFrame({"epoch": [1], "test_f1": [0.1]}),
    }
    expected = pd.DataFrame(
        {
            "arm": ["imagenet", "random", "random", "random"],
            "percent": [25, 100, 100, 100],
            "seed": [0, 0, 1, 1],
            "epoch": [1, 1, 1, 2],
            "test_f1": [0.7, 0.1, 0.5, np.nan],
        }
    )
    pd.testing.assert_frame_equal(long_curves(curves), expected)


def test_long_metrics_list_every_known_figure_once():
    means = {"f1": {"b": 0.5, "a": None}, "auroc": {"a": 0.0, "b": 0.25}}
    ends = {"auroc_low": {"a": 0.0, "b": None}, "auroc_high": {"a": 0.5, "b": None}}
    expected = [("auroc", "a", 0.0, 0.0, 0.5), ("auroc", "b", 0.25, None, None), ("f1", "b", 0.5, None, None)]
    found = long_metrics(means, means | ends).astype(object)
    assert list(found.where(found.notna(), None).itertuples(index=False, name=None)) == expected


def test_long_metrics_of_nothing_known_still_have_their_columns():
    assert list(long_metrics({"auroc": {"random": None}}, {}).columns) == ["metric", "arm", "value", "low", "high"]


def test_a_run_is_named_as_its_stage():
    assert Run("inpaint_kidney", 25, 3).name == "inpaint_kidney-25-3"
