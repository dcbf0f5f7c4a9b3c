"""Figures over folds: against numbers by hand, a bootstrap written out with scikit-learn, and folds that do not fit."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import accuracy_score, roc_auc_score

from kidney_ssl.errors import InputError
from kidney_ssl.report.folds_figure import folds_forest
from kidney_ssl.report.folds_table import folds_markdown
from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.bootstrap import resample
from kidney_ssl.statistics.comparisons import compare_pairs
from kidney_ssl.statistics.cross_validation import Fold, assert_each_case_tested_once, over_folds
from kidney_ssl.statistics.fold_means import comparisons_over_folds

CASES = [f"case_{number:05d}" for number in range(18)]
RESAMPLES = 40
CLASSES = {"organ": "kidney", "tumor": "tumor", "cyst": "cyst"}


def table(cases: list[str], seed: int, *, tumors: bool = True) -> pd.DataFrame:
    """Six slices a case, half of them with tumor, probabilities that know a little."""
    generator = np.random.default_rng(seed)
    count = 6 * len(cases)
    label = np.tile([1, 0], count // 2) * int(tumors)
    return pd.DataFrame(
        {
            "part": "test",
            "case": np.repeat(cases, 6),
            "slice": np.tile(np.arange(6), len(cases)),
            "class": np.where(label == 1, "tumor", "kidney"),
            "label": label,
            "probability": generator.uniform(0, 0.8, count) + 0.2 * label,
        }
    )


def fold(number: int, *, tumors: bool = True) -> Fold:
    """Fold `number` of three, two arms, the summary's figures by scikit-learn."""
    tested = CASES[number::3]
    tables = {arm: [table(tested, 10 * number + place, tumors=tumors)] for place, arm in enumerate(("random", "cpc"))}
    summary: dict[str, dict[str, float | None]] = {"accuracy": {}, "auroc": {}, "accuracy_low": {}, "f1_optimism": {}}
    for arm, (one,) in tables.items():
        summary["accuracy"][arm] = accuracy_score(one["label"], one["probability"] >= 0.5)
        summary["auroc"][arm] = roc_auc_score(one["label"], one["probability"]) if tumors else None
        summary["accuracy_low"][arm] = 0.1
        summary["f1_optimism"][arm] = 0.25 * number
    return Fold(summary, {case: "test" if case in tested else "train" for case in CASES}, {100: tables})


def plan(*, resamples: int = RESAMPLES, seed: int = 0, contrasts: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    return {"baseline": "random", "contrasts": contrasts, "margin": 0.02, "resamples": resamples, "seed": seed}


@pytest.fixture
def folds() -> list[Fold]:
    return [fold(number) for number in range(3)]


def test_mean_spread_and_paired_differences_are_those_by_hand(folds: list[Fold]) -> None:
    changed = [
        replace(one, summary=dict(one.summary) | {"accuracy": {"random": low, "cpc": high}})
        for one, low, high in zip(folds, (0.5, 0.7, 0.6), (0.6, 0.7, 0.9), strict=True)
    ]
    found = over_folds(changed, plan(resamples=RESAMPLES, seed=0))
    of_arm = found["figures"]["accuracy"]["cpc"]
    assert of_arm["values"] == [0.6, 0.7, 0.9]
    assert of_arm["mean"] == pytest.approx(2.2 / 3, abs=1e-6)
    assert of_arm["sd"] == pytest.approx(np.sqrt(0.07 / 3), abs=1e-6)
    assert (of_arm["min"], of_arm["max"]) == (0.6, 0.9)
    assert of_arm["difference"]["values"] == pytest.approx([0.1, 0.0, 0.3])
    assert of_arm["difference"]["mean"] == pytest.approx(0.4 / 3, abs=1e-6)
    assert of_arm["difference"]["sd"] == pytest.approx(np.sqrt(7 / 300), abs=1e-6)
    assert "difference" not in found["figures"]["accuracy"]["random"]
    assert found["folds"] == [{"fold": number, "test_cases": 6} for number in range(3)]


@pytest.mark.parametrize("figure", ["accuracy", "auroc"])
def test_intervals_are_those_of_a_bootstrap_written_out(folds: list[Fold], figure: str) -> None:
    def computed(rows: pd.DataFrame) -> float:
        if figure == "auroc":
            return float(roc_auc_score(rows["label"], rows["probability"]))
        return float(accuracy_score(rows["label"], rows["probability"] >= 0.5))

    generator = np.random.default_rng(7)
    points, variances = [], []
    for one in folds:
        tested = sorted(one.tested)
        counts = generator.multinomial(len(tested), np.full(len(tested), 1 / len(tested)), size=RESAMPLES)
        both = {arm: several[0] for arm, several in one.tables[100].items()}
        draws = {
            arm: np.array(
                [
                    computed(rows.loc[rows.index.repeat(rows["case"].map(dict(zip(tested, row, strict=True))))])
                    for row in counts
                ]
            )
            for arm, rows in both.items()
        }
        points.append([computed(both["cpc"]), computed(both["random"])])
        pairs = draws["cpc"], draws["cpc"] - draws["random"]
        variances.append([np.var(values) * len(tested) / (len(tested) - 1) for values in pairs])
    mean, other = np.mean(points, axis=0)
    own, paired = np.sqrt(np.sum(variances, axis=0)) / 3
    t = stats.t.ppf(0.975, 3 * (6 - 1))  # six cases a fold, all of three tumor and three other slices
    found = over_folds(folds, plan(resamples=RESAMPLES, seed=7))["figures"][figure]["cpc"]
    half = t * own / (mean * (1 - mean))
    assert [found["low"], found["high"]] == pytest.approx(expit(logit(mean) + np.array([-half, half])), abs=2e-6)
    assert [found["difference"]["low"], found["difference"]["high"]] == pytest.approx(
        [mean - other - t * paired, mean - other + t * paired], abs=2e-6
    )


@pytest.mark.parametrize("against", [None, "random"])
def test_two_seeds_are_crossed_with_the_cases_of_all_folds(folds: list[Fold], against: str | None) -> None:
    shift = {"cpc": [0.0, 0.06], "random": [0.03, 0.0]}
    seeded = [
        replace(
            one,
            tables={
                100: {
                    arm: [rows.assign(probability=(rows["probability"] + more).clip(0, 1)) for more in shift[arm]]
                    for arm, (rows,) in one.tables[100].items()
                }
            },
        )
        for one in folds
    ]

    def right(rows: pd.DataFrame) -> np.ndarray:
        """Share of each case, which counts alike: all have six slices."""
        return ((rows["probability"] >= 0.5) == rows["label"]).groupby(rows["case"]).mean().to_numpy()

    # (folds, seeds, cases) of the arm, or of its difference; means over six cases in closed form.
    cells = np.array([[right(rows) for rows in one.tables[100]["cpc"]] for one in seeded])
    other = np.array([[right(rows) for rows in one.tables[100]["random"]] for one in seeded])
    rows = cells - other if against else cells
    total = np.var(rows.mean(axis=1), axis=1, ddof=1).sum() / 6 / 9
    chance = np.var(rows - rows.mean(axis=1, keepdims=True), axis=2, ddof=1).sum() / 6 / 9
    spread = np.var(rows.mean(axis=(0, 2)), ddof=1)
    freedom = 1
    if not against:  # two arms have two spreads, the pool of which counts once more
        spread = (spread + np.mean([spread, np.var(other.mean(axis=(0, 2)), ddof=1)])) / 2
        freedom = 2
    part, common = max(spread, chance) / 2, max(total - chance / 2, 0)
    t = stats.t.ppf(0.975, (part + common) ** 2 / (common**2 / 15 + part**2 / freedom))
    middle, half = rows.mean(), t * np.sqrt(part + common)
    found = over_folds(seeded, plan(resamples=20_000, seed=0))
    assert found["seeds"] == {"100": 2}
    of_arm = found["figures"]["accuracy"]["cpc"]
    if against:
        assert [of_arm["difference"][end] for end in ("low", "high")] == pytest.approx(
            [middle - half, middle + half], abs=0.004
        )
    else:
        half /= middle * (1 - middle)
        ends = expit(logit(middle) + np.array([-half, half]))
        assert [of_arm["low"], of_arm["high"]] == pytest.approx(ends, abs=0.004)


def test_what_stands_beside_a_figure_and_what_is_no_figure_of_cases_gets_no_interval(folds: list[Fold]) -> None:
    figures = over_folds(folds, plan(resamples=RESAMPLES, seed=0))["figures"]
    assert set(figures) == {"accuracy", "auroc", "f1_optimism"}
    assert figures["f1_optimism"]["cpc"]["values"] == [0.0, 0.25, 0.5]
    assert "low" not in figures["f1_optimism"]["cpc"]


def test_a_figure_that_a_fold_lacks_is_null_with_its_reason_and_the_rest_goes_on(folds: list[Fold]) -> None:
    folds[1] = fold(1, tumors=False)
    found = over_folds(folds, plan(resamples=RESAMPLES, seed=0))
    auroc = found["figures"]["auroc"]["cpc"]
    assert [auroc[key] for key in ("mean", "sd", "min", "max", "low", "high")] == [None] * 6
    assert auroc["values"][1] is None
    assert auroc["reason"] == "fold 1: no tumor slice in the test part"
    assert auroc["difference"]["mean"] is None
    assert found["figures"]["f1_optimism"]["cpc"]["mean"] == 0.25
    assert found["figures"]["accuracy"]["cpc"]["low"] is not None
    assert "| CPC | - | - | - | - | " in folds_markdown(found, source="phantom", primary="auroc", classes=CLASSES)


def test_all_slices_right_in_every_fold_is_no_interval_of_no_width(folds: list[Fold]) -> None:
    for one in folds:
        for (rows,) in one.tables[100].values():
            rows["probability"] = rows["label"].astype(float)
    found = over_folds(folds, plan(resamples=RESAMPLES, seed=0))["figures"]["auroc"]["cpc"]
    assert (found["low"], found["reason"]) == (None, "the same in every resample: no interval")


def test_folds_that_do_not_test_every_case_once_are_refused(folds: list[Fold]) -> None:
    assert_each_case_tested_once(folds)
    with pytest.raises(InputError, match=r"tested in two folds: case_00000, case_00003.*make folds"):
        assert_each_case_tested_once([folds[0], folds[0], folds[2]])
    with pytest.raises(InputError, match=r"tested in no fold: case_00001, case_00004"):
        assert_each_case_tested_once([folds[0], folds[2]])
    fewer = {case: split for case, split in folds[1].cases.items() if case != "case_00017"}
    with pytest.raises(InputError, match=r"fold 1 and fold 0 are not of the same cases: case_00017"):
        assert_each_case_tested_once([folds[0], replace(folds[1], cases=fewer), folds[2]])
    with pytest.raises(InputError, match=r"fold 2: predictions of cases that it does not test: case_00000"):
        assert_each_case_tested_once([*folds[:2], replace(folds[2], tables=folds[0].tables)])


def test_the_table_says_what_folds_share(folds: list[Fold]) -> None:
    found = over_folds(folds, plan(resamples=RESAMPLES, seed=0))
    text = folds_markdown(found, source="kits23", primary="auroc", classes=CLASSES)
    assert "it is no standard error" in text
    assert "share most of their training cases" in text
    assert text.index("**AUROC;") < text.index("**accuracy;")
    assert "phantom" not in text


def three_arms(number: int, cases: list[str] = CASES) -> dict[str, list[pd.DataFrame]]:
    """Two seeds of three arms, of which the last is better in most cases."""
    better = {"random": 0.0, "cpc": 0.05, "simclr": 0.4}
    return {
        arm: [
            rows.assign(probability=(rows["probability"] + more * (rows["label"] - 0.5)).clip(0, 1))
            for seed in (0, 1)
            for rows in [table(cases, 100 * number + 10 * seed + len(arm))]
        ]
        for arm, more in better.items()
    }


@pytest.mark.parametrize("metric", ["auroc", "accuracy_against_kidney"])
def test_comparisons_over_one_fold_are_those_of_one_test_part(metric: str) -> None:
    drawn = resample(arms_of_tables(three_arms(1)), count=400, seed=3)
    pairs = [("cpc", "random"), ("simclr", "random"), ("simclr", "cpc"), ("cpc", "cpc")]
    expected = compare_pairs(drawn, metric, pairs)
    found = comparisons_over_folds([drawn], metric, pairs, margin=0.02)
    for one, other in zip(found, expected, strict=True):
        assert (one.arm, one.against, one.cases, one.seeds) == (other.arm, other.against, other.cases, other.seeds)
        for kind in ("difference", "equivalence", "simultaneous"):
            mine, theirs = getattr(one, kind), getattr(other, kind)
            assert [mine.value, mine.low, mine.high] == pytest.approx([theirs.value, theirs.low, theirs.high], abs=1e-9)
    assert found[1].simultaneous.low < found[1].difference.low
    assert {one.verdict for one in found} == {"too few cases to say"}


def test_comparisons_over_many_cases_are_decided_by_the_simultaneous_interval() -> None:
    cases = [f"case_{number:05d}" for number in range(54)]
    drawn = [
        resample(arms_of_tables(three_arms(number, cases[number::3])), count=400, seed=number) for number in range(3)
    ]
    pairs = [("simclr", "random"), ("random", "simclr"), ("cpc", "cpc"), ("cpc", "random")]
    verdicts = [one.verdict for one in comparisons_over_folds(drawn, "auroc", pairs, margin=0.02)]
    assert verdicts == ["better", "worse", "equivalent", "undecided"]


def test_every_label_budget_has_its_own_intervals_and_the_contrasts_of_the_plan() -> None:
    few = [replace(fold(number), tables={100: three_arms(number, CASES[number::3])}) for number in range(3)]
    for one in few:
        scores = {
            arm: np.mean([roc_auc_score(rows["label"], rows["probability"]) for rows in several])
            for arm, several in one.tables[100].items()
        }
        one.summary["auroc"] = one.summary["auroc_25"] = scores  # type: ignore[index]
    both = [
        replace(one, tables=dict(one.tables) | {25: dict.fromkeys(one.tables[100], one.tables[100]["random"])})
        for one in few
    ]
    found = over_folds(both, plan(contrasts=[("simclr", "cpc"), ("cpc", "random")]))
    alone = over_folds(few, plan(contrasts=[("simclr", "cpc")]))
    assert found["figures"]["auroc"] == alone["figures"]["auroc"]
    assert found["figures"]["auroc_25"]["simclr"]["low"] == found["figures"]["auroc_25"]["random"]["low"]
    rows = {
        (row["percent"], row["family"], row["arm"], row["against"]): row
        for row in found["differences"]
        if row["metric"] == "auroc"
    }
    # A contrast with the baseline is in the baseline's family alone.
    assert sorted({key[1:] for key in rows}) == [
        ("baseline", "cpc", "random"),
        ("baseline", "simclr", "random"),
        ("contrasts", "simclr", "cpc"),
    ]
    assert rows[25, "contrasts", "simclr", "cpc"]["point"] == 0
    middle = found["figures"]["auroc"]["simclr"]["difference"]["mean"]
    assert rows[100, "baseline", "simclr", "random"]["point"] == pytest.approx(middle, abs=1e-6)
    text = folds_markdown(found, source="kits23", primary="auroc", classes=CLASSES)
    assert "Contrasts of the analysis plan: AUROC, 25 % of the training cases" in text
    figure = folds_forest(found, 100, primary="auroc", margin=0.02, classes=CLASSES)
    assert ET.fromstring(figure).tag == "{http://www.w3.org/2000/svg}svg"
    assert f"SimCLR {middle:+.2f}" in figure
