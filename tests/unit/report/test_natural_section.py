"""The page's figures at natural prevalence, by stratum, of protocols and frozen encoders: those of the files."""

import json
import re

import numpy as np
import pytest
from test_page import Reader, page

from kidney_ssl.jsonfile import write_json
from kidney_ssl.report.metric_tables import by_arm, mean
from kidney_ssl.report.names import arm_name, worded
from kidney_ssl.report.page import read_study
from kidney_ssl.report.sections.curves import natural_section
from kidney_ssl.report.sections.results import results_section
from kidney_ssl.statistics.result import Estimate
from tests.unit.report.study_files import ARMS, write_study

BLOCKS = ("natural", "calibration", "strata", "split_half", "frozen")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    settings = write_study(root, seeds=(0, 1), extras=False)
    return root, settings, Reader(page(root, settings))


def of_seeds(root, arm, *path):
    values = []
    for seed in (0, 1):
        place = json.loads((root / f"report/evaluate/{arm}.json").read_text())[f"100-{seed}"]
        for key in path:
            place = place[key]
        values.append(place)
    return np.mean(values)


def interval_of(root, arm, *path):
    place = json.loads((root / f"report/evaluate/{arm}.json").read_text())["intervals"]["100"]
    for key in path:
        place = place.get(key, {})
    return place


@pytest.mark.parametrize(
    ("caption", "column", "path"),
    [
        ("Share found at", "slices at 1", ("natural", "false_positives", "1", "sensitivity")),
        ("Share found at", "cases at 0.5", ("natural", "false_positives", "0.5", "cases_found")),
        ("All slices of the test", "Brier", ("natural", "tumor", "brier")),
        ("All slices of the test", "AUROC, any", ("natural", "any_tumor", "auroc")),
        ("All slices of the test", "AUROC against kidney", ("natural", "tumor", "auroc_against_kidney")),
        ("Calibration", "slope, all slices", ("natural", "tumor", "calibration", "slope")),
        ("Calibration", "Brier, weighted", ("calibration", "reweighted", "brier")),
        ("Kinds of slices", "kidney (n = 6)", ("strata", "negatives", "kidney", "auroc")),
        (
            "By distance",
            "above 4 to 10 mm (n = 24)",
            ("strata", "thickness", "above 4 to 10 mm", "auroc_against_kidney"),
        ),
        ("By block", "block 0 (n = 12)", ("strata", "block", "block 0", "auroc_against_kidney")),
        ("Two protocols", "accuracy, best on test", ("best_on_test", "accuracy", "value")),
        ("Frozen encoders on", "linear probe, AUROC", ("frozen", "linear", "auroc")),
    ],
)
def test_each_table_shows_the_mean_over_seeds_of_the_files(whole, caption, column, path):
    root, _, reader = whole
    rows = reader.table(caption)
    assert list(rows) == list(map(arm_name, ARMS))
    study = read_study(root, whole[1])
    for arm in ARMS:
        row, one = rows[arm_name(arm)], mean(by_arm(study, path[0])[arm], path)
        assert one.value == pytest.approx(of_seeds(root, arm, *path))
        ends = interval_of(root, arm, *path)
        assert (one.low, one.high, one.reason) == (ends.get("low"), ends.get("high"), ends.get("reason"))
        # A subgroup has a column of its title in each group of metrics; `table` keeps the last group's.
        assert column in row if path[0] == "strata" else row[column].startswith(worded(one))


def test_a_column_of_a_stratum_shows_its_own_figure(whole):
    root, settings, _ = whole
    table = results_section(read_study(root, settings))["subgroups"]["thickness"]
    for place, name in enumerate(("auroc_against_kidney", "auroc", "sensitivity", "specificity", "accuracy"), 1):
        for arm, row in zip(ARMS, table.rows, strict=True):
            path = ("strata", "thickness", "above 4 to 10 mm", name)
            ends = interval_of(root, arm, *path)
            assert row[place].text == worded(Estimate(of_seeds(root, arm, *path), ends["low"], ends["high"]))
            assert ends["low"] <= row[place].sort <= ends["high"]


def test_differences_show_their_sign_and_the_null_its_range(whole):
    root, _, reader = whole
    for arm, row in zip(ARMS, reader.table("Two protocols").values(), strict=True):
        optimism = of_seeds(root, arm, "optimism", "accuracy")
        assert float(row["accuracy optimism"]) == pytest.approx(optimism, abs=0.0051)
        assert row["accuracy optimism"].startswith(("+", "-")) == (abs(optimism) >= 0.005)
        middle, *ends = (of_seeds(root, arm, "split_half", "f1", name) for name in ("mean", "low", "high"))
        assert row["F1 optimism, null"] == worded(Estimate(middle, *ends), signed=True)


def test_a_figure_that_is_missing_says_why(whole):
    for row in whole[2].table("Frozen encoders on").values():
        assert row["k-NN, accuracy"].startswith("- (the probe could not be fitted")


def test_one_seed_without_a_figure_leaves_it_open():
    seeds = [{"a": {"b": 0.5}}, {"a": {"b": None, "reasons": {"b": "why"}}}]
    assert mean(seeds, ("a", "b")) == Estimate(reason="why")


def test_curves_are_drawn_for_every_arm_and_seed(whole):
    section = natural_section(read_study(whole[0], whole[1]))
    for name in ("froc", "decision", "reliability"):
        assert [panel.title for panel in section[name]] == list(map(arm_name, ARMS))
        for panel in section[name]:
            assert len(re.findall(r'<path d="M[^"]*L[^"]*" clip-path[^>]*var\(--accent\)', panel.svg)) == 2


def test_a_study_with_few_cases_of_one_kind_leaves_no_empty_column(whole):
    section = results_section(read_study(whole[0], whole[1]))["subgroups"]
    assert {column.label for column in section["thickness"].columns[1:]} == {"above 4 to 10 mm (n = 24)"}


def test_slice_distances_stand_in_their_order(tmp_path):
    settings = write_study(tmp_path, extras=False)
    for path in (tmp_path / "report/evaluate").glob("*.json"):
        runs = json.loads(path.read_text())
        strata = runs["100-0"]["strata"]
        strata["thickness"] = dict.fromkeys(
            sorted(["up to 1.5 mm", "above 1.5 to 4 mm", "above 4 to 10 mm", "above 10 mm"]),
            strata["thickness"]["above 4 to 10 mm"],
        )
        write_json(path, runs)
    table = results_section(read_study(tmp_path, settings))["subgroups"]["thickness"]
    shown = [column.label.partition(" (")[0] for column in table.columns[1:5]]
    assert shown == ["up to 1.5 mm", "above 1.5 to 4 mm", "above 4 to 10 mm", "above 10 mm"]


def test_without_such_figures_the_page_says_so(tmp_path):
    settings = write_study(tmp_path, extras=False)
    for path in (tmp_path / "report/evaluate").glob("*.json"):
        of_arm = json.loads(path.read_text())
        metrics = {name: block for name, block in of_arm["100-0"].items() if name not in BLOCKS}
        write_json(path, of_arm | {"100-0": metrics})
    text = Reader(page(tmp_path, settings)).text
    for words in ("all slices of the test cases", "by subgroup", "the split-half null", "frozen encoders"):
        assert f"this study has no metrics of {words}".replace("of by", "by") in text


@pytest.mark.parametrize("change", [{"constant": True}, {"classes": ("tumor",)}, {"classes": ("kidney", "background")}])
def test_classes_that_are_missing_and_constant_predictions_still_give_a_page(tmp_path, change):
    settings = write_study(tmp_path, extras=False, **change)
    text = page(tmp_path, settings)
    assert "Natural prevalence" in text
    assert not re.search(r">\s*[+-]?nan\b", text)
