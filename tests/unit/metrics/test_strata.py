"""Figures by stratum: against plain selections with scikit-learn, and tables made by hand."""

import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from kidney_ssl.errors import InputError
from kidney_ssl.metrics.subgroups import join_slices, subgroup_metrics
from kidney_ssl.statistics.result import as_json
from tests.unit.metrics.run_files import simulate


def tables_of(seed, **sizes):
    tables = simulate(seed, **sizes)
    test = tables["predictions"].query("part == 'test'")
    return join_slices(test, tables["test"]), tables["train"]


def hand(sizes):
    rows = pd.DataFrame({"tumor_mm2": sizes, "class": "tumor", "label": 1})
    rows["case"], rows["slice"], rows["probability"] = rows.index.astype(str), 0, 0.5
    return rows.assign(cyst_px=0, thickness_mm=5.0, block="other")


def test_thirds_end_at_the_terciles_of_the_training_slices_alone():
    train = pd.DataFrame({"class": ["tumor"] * 4 + ["kidney"] * 3, "tumor_mm2": [100, 200, 300, 400, 0, 0, 0]})
    test = hand([10, 199, 200, 299, 300, 9000, 9000])
    test.loc[1, "probability"] = 0.4
    assert as_json(subgroup_metrics(test, train))["size"] == {
        "cut_points_mm2": [200.0, 300.0],
        "small": {"slices": 2, "cases": 2, "sensitivity": 0.5},
        "middle": {"slices": 2, "cases": 2, "sensitivity": 1.0},
        "large": {"slices": 3, "cases": 3, "sensitivity": 1.0},
    }


def test_no_size_of_a_test_slice_moves_a_cut_point():
    test, train = tables_of(0)
    bigger = test.assign(tumor_mm2=test["tumor_mm2"] * 10)
    cuts = [as_json(subgroup_metrics(rows, train))["size"]["cut_points_mm2"] for rows in (test, bigger)]
    assert cuts[0] == cuts[1]


@pytest.mark.parametrize("seed", range(2))
def test_sensitivity_by_size_is_that_of_a_plain_count(seed):
    test, train = tables_of(seed)
    sizes = sorted(train.loc[train["class"] == "tumor", "tumor_mm2"])
    cuts = pd.Series(sizes).quantile([1 / 3, 2 / 3]).tolist()
    found = as_json(subgroup_metrics(test, train))["size"]
    bounds = {"small": (0, cuts[0]), "middle": (cuts[0], cuts[1]), "large": (cuts[1], 10**9)}
    for third, (low, high) in bounds.items():
        hits = [row.probability >= 0.5 for row in test.itertuples() if row.label == 1 and low <= row.tumor_mm2 < high]
        assert found[third]["slices"] == len(hits)
        assert found[third]["sensitivity"] == pytest.approx(sum(hits) / len(hits), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("kidney", "`class` == 'kidney'"),
        ("background", "`class` == 'background'"),
        ("with_cyst", "label == 0 and cyst_px > 0"),
        ("without_cyst", "label == 0 and cyst_px == 0"),
        ("kidney_with_cyst", "`class` == 'kidney' and cyst_px > 0"),
        ("kidney_without_cyst", "`class` == 'kidney' and cyst_px == 0"),
    ],
)
def test_each_kind_of_negative_stands_against_all_tumor_slices(name, query):
    test, train = tables_of(1)
    found = as_json(subgroup_metrics(test, train))["negatives"][name]
    kind, tumor = test.query(query), test.query("label == 1")
    both = pd.concat([kind, tumor])
    assert (found["slices"], found["cases"]) == (len(kind), kind["case"].nunique())
    assert found["specificity"] == pytest.approx((kind["probability"] < 0.5).mean(), abs=1e-6)
    assert found["auroc"] == pytest.approx(roc_auc_score(both["label"], both["probability"]), abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "name", "query"),
    [
        ("thickness", "up to 1.5 mm", "thickness_mm <= 1.5"),
        ("thickness", "above 1.5 to 4 mm", "thickness_mm == 3"),
        ("thickness", "above 4 to 10 mm", "thickness_mm == 5"),
        ("block", "0-299", "block == '0-299'"),
        ("block", "400-499", "block == '400-499'"),
    ],
)
def test_figures_of_a_stratum_are_those_of_its_slices(kind, name, query):
    test, train = tables_of(2, slices=30)
    found = as_json(subgroup_metrics(test, train))[kind][name]
    rows = test.query(query)
    against = rows[rows["class"] != "background"]
    assert (found["slices"], found["cases"]) == (len(rows), rows["case"].nunique())
    assert found["tumor_slices"] == rows["label"].sum()
    for key, expected in {
        "accuracy": accuracy_score(rows["label"], rows["probability"] >= 0.5),
        "auroc": roc_auc_score(rows["label"], rows["probability"]),
        "auroc_against_kidney": roc_auc_score(against["label"], against["probability"]),
        "sensitivity": (rows.loc[rows["label"] == 1, "probability"] >= 0.5).mean(),
        "specificity": (rows.loc[rows["label"] == 0, "probability"] < 0.5).mean(),
    }.items():
        assert found[key] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["thickness", "block"])
def test_strata_part_the_test_slices(kind):
    test, train = tables_of(3)
    assert sum(one["slices"] for one in subgroup_metrics(test, train)[kind].values()) == len(test)


def test_what_a_stratum_lacks_is_open_with_its_reason_and_the_rest_stands():
    test, train = tables_of(0)
    found = as_json(subgroup_metrics(test[test["class"] == "tumor"], train))
    assert found["negatives"]["with_cyst"]["auroc"] is None
    assert found["negatives"]["with_cyst"]["reasons"]["auroc"] == "no with cyst slice without tumor in the test part"
    stratum = found["thickness"]["above 4 to 10 mm"]
    assert stratum["sensitivity"] is not None
    assert stratum["reasons"]["auroc"] == "only tumor slices in the subgroup above 4 to 10 mm"
    assert stratum["reasons"]["auroc_against_kidney"] == "no kidney slice in the subgroup above 4 to 10 mm"
    empty = found["thickness"]["above 10 mm"]
    assert (empty["slices"], empty["accuracy"]) == (0, None)
    assert empty["reasons"]["accuracy"] == "no slice in the subgroup above 10 mm"


def test_without_training_tumors_there_are_no_thirds():
    test, train = tables_of(0)
    found = as_json(subgroup_metrics(test, train[train["class"] != "tumor"]))["size"]
    assert found["cut_points_mm2"] is None
    assert found["small"]["reasons"]["sensitivity"].startswith("no tumor slice in training")


@pytest.mark.parametrize("change", [lambda rows: rows[1:], lambda rows: rows.assign(slice=rows["slice"] + 1)])
def test_rows_of_other_slices_are_refused(change):
    tables = simulate(0)
    test = tables["predictions"].query("part == 'test'")
    with pytest.raises(InputError, match="not the same ones"):
        join_slices(test, change(tables["test"]))
