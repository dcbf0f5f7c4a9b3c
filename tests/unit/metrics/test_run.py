"""All figures of one run from its files, and those of frozen features."""

import json

import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score
from test_natural import assert_every_null_has_its_reason

from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.linear_probe import PROBES, probe_metrics, read_probes
from kidney_ssl.metrics.run import evaluate_run
from kidney_ssl.statistics.result import Estimate, as_json
from tests.unit.metrics.run_files import simulate, write

BLOCKS = {"selected", "best_on_test", "optimism", "calibration", "natural", "strata", "split_half", "frozen"}


def frozen_of(folder, table):
    table.to_csv(folder / "frozen.csv", index=False)
    return read_probes(folder / "frozen.csv")


@pytest.mark.parametrize("probe", PROBES)
def test_figures_of_encoder_probe_are_those_of_scikit_learn(tmp_path, probe):
    table = simulate(0)["frozen"]
    found = as_json(probe_metrics(frozen_of(tmp_path, table)))[probe]
    pair = table[table["class"] != "background"]
    assert found["accuracy"] == pytest.approx(accuracy_score(table["label"], table[probe] >= 0.5), abs=1e-6)
    assert found["auroc"] == pytest.approx(roc_auc_score(table["label"], table[probe]), abs=1e-6)
    assert found["auroc_against_kidney"] == pytest.approx(roc_auc_score(pair["label"], pair[probe]), abs=1e-6)


def test_a_probe_that_was_not_fitted_is_open_and_the_other_stands(tmp_path):
    found = as_json(probe_metrics(frozen_of(tmp_path, simulate(0)["frozen"].assign(knn=None))))
    assert found["linear"]["auroc"] is not None
    assert set(found["knn"]["reasons"]) == {"accuracy", "auroc", "auroc_against_kidney"}
    assert found["knn"]["auroc"] is None


def test_an_arm_that_was_not_probed_has_open_figures_that_say_where_they_stand(tmp_path):
    folder, slices = write(tmp_path, simulate(0))
    (folder / "frozen.csv").unlink()
    found = evaluate_run(folder, slices)["frozen"]
    for probe in PROBES:
        assert found[probe]["auroc"] is None
        assert "encoder of a plain arm" in found[probe]["reasons"]["auroc"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("knn", None, "line 5: knn is not in"),
        ("linear", 1.5, "line 5: linear is not in"),
        ("label", 2, "line 5: label and class contradict"),
        ("class", "small", "line 5: class is none of tumor, kidney, background"),
    ],
)
def test_a_bad_row_of_encoder_probe_is_named(tmp_path, column, value, words):
    table = simulate(0)["frozen"].astype(object)
    table.loc[3, column] = value
    with pytest.raises(InputError, match=words):
        frozen_of(tmp_path, table)


def test_a_run_has_every_block_and_writes_the_same_bytes_again(tmp_path):
    folders = write(tmp_path, simulate(0))
    figures = evaluate_run(*folders)
    assert set(figures) == BLOCKS
    assert_every_null_has_its_reason(figures)
    write_json(tmp_path / "one.json", figures)
    write_json(tmp_path / "two.json", evaluate_run(*folders))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert json.loads((tmp_path / "one.json").read_text()) == figures


def test_the_threshold_of_an_operating_point_calls_the_slices_that_it_is_said_to_call(tmp_path):
    tables = simulate(0)
    tables["natural"]["probability"] = tables["natural"]["probability"] / 3  # no six decimals hold these
    tables["predictions"]["probability"] /= 3
    tables["epochs"] = tables["epochs"] / 3
    tables["curves"]["test_accuracy"] = (
        tables["predictions"].query("part == 'test'").eval("(probability >= 0.5) == (label == 1)").mean()
    )
    figures = evaluate_run(*write(tmp_path, tables))
    point = figures["natural"]["false_positives"]["1"]
    called = tables["natural"]["probability"] >= point["threshold"]
    negative = tables["natural"]["class"].isin(["kidney", "background"])
    assert (called & negative).sum() / 8 == point["false_positives_per_case"]


@pytest.mark.parametrize(
    "classes",
    [("tumor",), ("kidney",), ("small",), ("tumor", "small"), ("kidney", "background"), ("tumor", "background")],
)
@pytest.mark.parametrize("cases", [1, 3])
@pytest.mark.parametrize("constant", [False, True])
def test_missing_classes_a_single_case_and_constant_predictions_stop_nothing(tmp_path, classes, cases, constant):
    tables = simulate(0, cases=cases, slices=4, classes=classes)
    if constant:
        tables["predictions"]["probability"] = tables["natural"]["probability"] = 0.5
        tables["epochs"][:] = 0.5
        labels = tables["predictions"].query("part == 'test'")["label"]
        tables["curves"] = tables["curves"].assign(test_accuracy=labels.mean() if len(labels) else None)
    figures = evaluate_run(*write(tmp_path, tables))
    assert set(figures) == BLOCKS
    assert_every_null_has_its_reason(figures)
    json.dumps(figures, allow_nan=False)


def test_a_training_case_that_was_tested_is_refused(tmp_path):
    run, slices = write(tmp_path, simulate(0))
    test, train = (pd.read_csv(slices / f"{part}.csv", dtype={"case": str}) for part in ("test", "train"))
    train.loc[0, "case"] = test.loc[0, "case"]
    train.to_csv(slices / "train.csv", index=False)
    with pytest.raises(InputError, match=f"{test.loc[0, 'case']} is in train and in validation or test"):
        evaluate_run(run, slices)


@pytest.mark.parametrize("name", ["natural.csv", "epochs.npy", "predictions.csv", "curves.csv"])
def test_a_missing_file_is_named(tmp_path, name):
    run, slices = write(tmp_path, simulate(0))
    (run / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: cannot be read .*run the finetune stage again"):
        evaluate_run(run, slices)


def test_what_is_missing_stays_missing_in_lists():
    assert as_json({"list": [{"a": Estimate(reason="why"), "threshold": 1 / 3}]})["list"] == [
        {"a": None, "threshold": 1 / 3, "reasons": {"a": "why"}}
    ]
