"""Intervals at natural prevalence and in subgroups: against scikit-learn and a plain bootstrap of tables."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from kidney_ssl.errors import InputError
from kidney_ssl.metrics.case_intervals import natural_intervals, subgroup_intervals
from kidney_ssl.metrics.run import arm_intervals, evaluate_run
from kidney_ssl.metrics.subgroups import join_slices
from tests.unit.metrics.run_files import simulate, write

CASES = 24
RESAMPLES = 200  # a standard deviation of so many draws is right to 5 %


def label_of(rows):
    return (rows["class"].isin(["tumor", "small"])).astype(int)


def against(rows, negative):
    return rows[rows["class"].isin(["tumor", *negative])]


def pair(rows):
    return label_of(rows), rows["probability"]


def auroc(rows):
    return roc_auc_score(*pair(rows))


def operating(rows, limit):
    """Shares called from the lowest probability on that keeps the false positives within the limit, one by one."""
    case, kind, probability = (rows[name].to_numpy() for name in ("case", "class", "probability"))
    false = np.isin(kind, ["kidney", "background"])
    most, called = int(float(limit) * len(set(case))), np.zeros(len(rows), bool)
    for threshold in sorted(set(probability), reverse=True):
        if (false & (probability >= threshold)).sum() > most:
            break
        called = probability >= threshold
    return {
        "sensitivity": called[kind == "tumor"].mean(),
        "small_sensitivity": called[kind == "small"].mean(),
        "cases_found": len(set(case[called & (kind == "tumor")])) / len(set(case[kind == "tumor"])),
    }


def by_highest(rows):
    by_case = rows.assign(label=label_of(rows)).groupby("case")
    return roc_auc_score(by_case["label"].max(), by_case["probability"].max())


# Metric -> of a table with a column `probability`, by scikit-learn or a plain count.
NATURAL = {
    ("tumor", "auroc"): lambda t: auroc(t[t["class"] != "small"]),
    ("tumor", "auroc_against_kidney"): lambda t: auroc(against(t, ["kidney"])),
    ("tumor", "average_precision"): lambda t: average_precision_score(*pair(t[t["class"] != "small"])),
    ("any_tumor", "brier"): lambda t: brier_score_loss(*pair(t)),
    ("any_tumor", "specificity"): lambda t: (t.loc[label_of(t) == 0, "probability"] < 0.5).mean(),
    ("small", "sensitivity"): lambda t: (t.loc[t["class"] == "small", "probability"] >= 0.5).mean(),
    ("by_case", "auroc_of_maximum"): by_highest,
    ("false_positives", "1", "sensitivity"): lambda t: operating(t, "1")["sensitivity"],
    ("false_positives", "2", "small_sensitivity"): lambda t: operating(t, "2")["small_sensitivity"],
    ("false_positives", "0.5", "cases_found"): lambda t: operating(t, "0.5")["cases_found"],
}
SUBGROUPS = {
    ("negatives", "kidney", "auroc"): lambda t: auroc(against(t, ["kidney"])),
    ("negatives", "with_cyst", "specificity"): lambda t: (
        t.query("label == 0 and cyst_px > 0")["probability"] < 0.5
    ).mean(),
    ("thickness", "above 1.5 to 4 mm", "sensitivity"): lambda t: (
        t.query("label == 1 and thickness_mm == 3")["probability"] >= 0.5
    ).mean(),
    ("block", "0-299", "accuracy"): lambda t: ((t["probability"] >= 0.5) == (t["label"] == 1))[
        t["block"] == "0-299"
    ].mean(),
}


def plain(rows, probabilities, metric, by="case"):
    """Value, and standard error by a plain bootstrap: tables of the drawn cases, one under the other."""
    generator = np.random.default_rng(7)
    groups = [group.index.to_numpy() for _, group in rows.groupby(by)]

    def value(drawn):
        taken = np.concatenate([groups[one] for one in drawn])
        copies = np.repeat(np.arange(len(drawn)), [len(groups[one]) for one in drawn])
        table = rows.loc[taken].reset_index(drop=True)
        table["case"] = [f"{copy} {case}" for copy, case in zip(copies, table["case"], strict=True)]
        return np.mean([metric(table.assign(probability=one[taken])) for one in probabilities])

    draws = [value(generator.integers(len(groups), size=len(groups))) for _ in range(RESAMPLES)]
    error = np.nanstd(draws) * np.sqrt(len(groups) / (len(groups) - 1))
    return value(np.arange(len(groups))), error


def inner(found, path):
    for key in path:
        found = found[key]
    return found


def width(value, ends):
    """Standard error on the logit scale, times Student's t, that an interval was made with."""
    half = (logit(ends["high"]) - logit(ends["low"])) / 2
    assert expit(logit(value) - half) == pytest.approx(ends["low"])
    return half * value * (1 - value)


@pytest.fixture(scope="module")
def arm():
    tables = simulate(3, cases=CASES, slices=14, skill=0.7)
    rows = tables["natural"].sort_values(["case", "slice"]).reset_index(drop=True)
    free = rows["case"].isin([f"case_{number}" for number in range(CASES // 3)])
    rows.loc[free & rows["class"].isin(["tumor", "small"]), "class"] = "kidney"
    return tables, rows, rows["probability"].to_numpy()[None]  # one seed: an interval over cases alone


@pytest.fixture(scope="module")
def natural(arm):
    _, rows, probabilities = arm
    return natural_intervals(rows, probabilities)


@pytest.mark.parametrize("path", NATURAL, ids="-".join)
def test_intervals_at_natural_prevalence_are_those_of_a_plain_bootstrap(arm, natural, path):
    _, rows, probabilities = arm
    ends = inner(natural, path)
    value, error = plain(rows, probabilities, NATURAL[path])
    # Student's t is that of 8 effective cases at least; two draws of 200 resamples differ by some per cent.
    assert 0.87 * stats.norm.ppf(0.975) < width(value, ends) / error < 1.13 * stats.t.ppf(0.975, 7)


@pytest.mark.parametrize("path", SUBGROUPS, ids="-".join)
def test_intervals_of_subgroups_are_those_of_a_plain_bootstrap(arm, path):
    tables, *_ = arm
    test = join_slices(tables["predictions"].query("part == 'test'"), tables["test"])
    test = test.sort_values(["case", "slice"]).reset_index(drop=True)
    probabilities = test["probability"].to_numpy()[None]
    ends = inner(subgroup_intervals(test, tables["train"], probabilities), path)
    value, error = plain(test, probabilities, SUBGROUPS[path])
    assert 0.87 * stats.norm.ppf(0.975) < width(value, ends) / error < 1.13 * stats.t.ppf(0.975, 5)


@pytest.mark.parametrize("path", [("tumor", "auroc"), ("false_positives", "1", "sensitivity")], ids="-".join)
def test_seeds_that_differ_widen_an_interval(arm, path):
    _, rows, probabilities = arm
    noise = np.random.default_rng(0).normal(0, 0.2, (3, len(rows)))
    seeds = np.clip(probabilities + noise, 0.01, 0.99)
    alike = inner(natural_intervals(rows, np.repeat(seeds[:1], 3, axis=0)), path)
    apart = inner(natural_intervals(rows, np.concatenate([seeds[:1], 1 - seeds[1:2], seeds[2:]])), path)
    assert apart["high"] - apart["low"] > alike["high"] - alike["low"]


def test_cases_of_one_patient_are_drawn_together(arm):
    _, rows, probabilities = arm
    patients = rows.assign(patient="p" + (rows["case"].str[5:].astype(int) // 3).astype(str))
    path = ("false_positives", "1", "sensitivity")
    ends = inner(natural_intervals(patients, probabilities), path)
    value, error = plain(patients, probabilities, NATURAL[path], by="patient")
    assert 0.87 * stats.norm.ppf(0.975) < width(value, ends) / error < 1.13 * stats.t.ppf(0.975, 4)


def test_an_interval_that_cannot_be_has_its_reason(arm):
    _, rows, probabilities = arm
    one = rows["case"] == "case_20"
    found = natural_intervals(rows[one].reset_index(drop=True), probabilities[:, one])
    assert found["tumor"]["auroc"] == {"low": None, "high": None, "reason": "one case in the test part: no interval"}
    right = natural_intervals(rows, np.tile((label_of(rows) * 0.8 + 0.1).to_numpy(), (1, 1)))
    reason = "the same in every resample: no interval"
    assert right["any_tumor"]["auroc"]["reason"] == reason
    assert right["false_positives"]["1"]["sensitivity"]["reason"] == reason
    no_small = rows["class"] != "small"
    without = natural_intervals(rows[no_small].reset_index(drop=True), probabilities[:, no_small])
    assert without["small"] == {}
    assert "small_sensitivity" not in without["false_positives"]["1"]


def test_every_value_of_a_run_lies_in_its_interval_and_without_one_it_has_a_reason(tmp_path):
    run, slices = write(tmp_path, simulate(5, cases=12))
    metrics, ends = evaluate_run(run, slices), arm_intervals([run, run], slices)
    found = 0
    for kind, subgroups in {**ends["strata"], **ends["natural"]["false_positives"], "natural": ends["natural"]}.items():
        for name, of in subgroups.items():
            place = metrics["strata"].get(kind) or metrics["natural"]["false_positives"].get(kind) or metrics["natural"]
            for metric, one in of.items() if "low" not in of else [(None, of)]:
                value = place[name] if metric is None else place[name][metric]
                if not isinstance(one, dict) or "low" not in one or value is None:
                    continue
                assert (one["low"] is None) == bool(one["reason"])
                assert one["low"] is None or one["low"] - 1e-6 <= value <= one["high"] + 1e-6
                found += 1
    assert found > 50


def test_seeds_of_other_slices_are_refused(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, slices = write(tmp_path / "one", simulate(0))
    other, _ = write(tmp_path / "other", simulate(1))
    with pytest.raises(InputError, match="the seeds of an arm were not tested on the same slices"):
        arm_intervals([one, other], slices)


def test_an_empty_natural_set_has_no_interval():
    rows = pd.DataFrame({"case": [], "slice": [], "class": pd.Series([], dtype=str)})
    found = natural_intervals(rows, np.empty((1, 0)))
    assert found["tumor"] == found["any_tumor"] == found["false_positives"] == {}
