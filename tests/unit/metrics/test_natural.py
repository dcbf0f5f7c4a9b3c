"""Figures at natural prevalence: against scikit-learn, plain loops, and tables made by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from kidney_ssl.errors import InputError
from kidney_ssl.metrics.natural_prevalence import FALSE_POSITIVES, natural_metrics, read_natural, reweighted
from kidney_ssl.statistics.result import as_json
from tests.unit.metrics.run_files import simulate

HAND = [
    ("a", "tumor", 0.9),
    ("a", "tumor", 0.3),
    ("a", "small", 0.6),
    ("a", "kidney", 0.5),
    ("a", "background", 0.1),
    ("b", "small", 0.2),
    ("b", "kidney", 0.5),
    ("b", "kidney", 0.4),
    ("c", "tumor", 0.5),
    ("c", "background", 0.05),
    ("d", "kidney", 0.7),
    ("d", "background", 0.3),
]


def rows_of(rows):
    table = pd.DataFrame(rows, columns=["case", "class", "probability"])
    table["slice"] = table.groupby("case").cumcount()
    return table


@pytest.fixture(scope="module")
def by_hand():
    return as_json(natural_metrics(rows_of(HAND)))


def test_counts_and_prevalence_agree_with_the_table_made_by_hand(by_hand):
    assert (by_hand["slices"], by_hand["cases"]) == (12, 4)
    assert by_hand["classes"] == {"tumor": 3, "small": 2, "kidney": 4, "background": 3}
    assert by_hand["prevalence"] == {"tumor": 0.25, "any_tumor": round(5 / 12, 6)}
    assert by_hand["tumor"]["prevalence"] == 0.3
    assert by_hand["small"] == {"slices": 2, "sensitivity": 0.5, "mean_probability": 0.4}


def test_operating_points_agree_with_the_table_made_by_hand(by_hand):
    # Slices without tumor from the top: 0.7, 0.5, 0.5, 0.4, 0.3, 0.1, 0.05. Four cases: 2, 4, 8 and 16 may be called.
    points = by_hand["false_positives"]
    assert points["0.5"] == {
        "threshold": 0.6,  # from 0.5 on both would be called, three in all
        "false_positives_per_case": 0.25,
        "sensitivity": round(1 / 3, 6),
        "small_sensitivity": 0.5,
        "cases_found": 0.5,
        "cases_missed": ["c"],
        "free_cases_called": 1.0,
    }
    assert (points["1"]["threshold"], points["1"]["false_positives_per_case"]) == (0.4, 1.0)
    assert (points["1"]["sensitivity"], points["1"]["cases_missed"]) == (round(2 / 3, 6), [])
    assert (points["2"]["threshold"], points["2"]["sensitivity"]) == (0.05, 1.0)


def test_cases_agree_with_the_table_made_by_hand(by_hand):
    # Highest of each case: a 0.9 and b 0.5 and c 0.5 have a tumor, d 0.7 has none.
    assert by_hand["by_case"] == {
        "with_tumor_slice": 2,
        "with_small_tumor_alone": 1,
        "without_tumor": 1,
        "auroc_of_maximum": round(1 / 3, 6),
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("question", ["tumor", "any_tumor"])
def test_pooled_figures_are_those_of_scikit_learn(seed, question):
    rows = simulate(seed)["natural"]
    found = as_json(natural_metrics(rows))[question]
    positives = ["tumor"] if question == "tumor" else ["tumor", "small"]
    rows = rows[rows["class"] != "small"] if question == "tumor" else rows
    label, probability = rows["class"].isin(positives), rows["probability"]
    assert found["slices"] == len(rows)
    for name, figure in (
        ("auroc", roc_auc_score),
        ("average_precision", average_precision_score),
        ("brier", brier_score_loss),
    ):
        assert found[name] == pytest.approx(figure(label, probability), abs=1e-6)
    assert found["sensitivity"] == pytest.approx((probability[label] >= 0.5).mean(), abs=1e-6)


def test_auroc_against_kidney_leaves_small_tumors_and_background_out():
    rows = simulate(4)["natural"]
    pair = rows[rows["class"].isin(["tumor", "kidney"])]
    expected = roc_auc_score(pair["class"] == "tumor", pair["probability"])
    assert as_json(natural_metrics(rows))["tumor"]["auroc_against_kidney"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_sensitivity_at_a_limit_is_the_highest_of_the_roc_curve_within_it(seed):
    rows = simulate(seed, cases=5, slices=30)["natural"]
    found = natural_metrics(rows)["false_positives"]
    kept = rows[rows["class"] != "small"]
    label = kept["class"] == "tumor"
    false, true, thresholds = roc_curve(label, kept["probability"], drop_intermediate=False)
    per_case = np.round(false * (~label).sum()) / 5
    for limit in FALSE_POSITIVES:
        within = per_case <= limit
        point = found[f"{limit:g}"]
        assert point["sensitivity"] == pytest.approx(true[within].max())
        assert point["false_positives_per_case"] <= limit
        called = rows["probability"] >= point["threshold"]
        # As many slices of small tumors as possible, too: a lower probability of any slice would pass the limit.
        lower = rows.loc[~called, "probability"].max()
        assert ((rows["probability"] >= lower) & ~rows["class"].isin(["tumor", "small"])).sum() > 5 * limit
        assert thresholds[within][true[within].argmax()] >= point["threshold"]


@pytest.mark.parametrize("seed", range(3))
def test_cases_found_are_counted_case_by_case(seed):
    rows = simulate(seed, cases=20, slices=9)["natural"]
    for point in natural_metrics(rows)["false_positives"].values():
        called = rows[rows["probability"] >= point["threshold"]]
        with_tumor = set(rows[rows["class"] == "tumor"]["case"])
        hit = set(called[called["class"] == "tumor"]["case"])
        assert point["cases_found"] == pytest.approx(len(hit) / len(with_tumor))
        assert point["cases_missed"] == sorted(with_tumor - hit)
        free = set(rows["case"]) - set(rows[rows["class"].isin(["tumor", "small"])]["case"])
        if free:
            assert point["free_cases_called"] == pytest.approx(len(free & set(called["case"])) / len(free))


probabilities = st.integers(0, 6).map(lambda value: value / 6)
tables = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["tumor", "small", "kidney", "background"]), probabilities),
    max_size=30,
).map(rows_of)


@given(tables)
def test_no_table_stops_it_and_limits_are_never_passed(rows):
    found = as_json(natural_metrics(rows))
    sensitivity = 0.0
    for limit in FALSE_POSITIVES:
        point = found["false_positives"][f"{limit:g}"]
        if point["false_positives_per_case"] is not None:
            assert point["false_positives_per_case"] <= limit
        if point["sensitivity"] is not None:
            assert point["sensitivity"] >= sensitivity
            sensitivity = point["sensitivity"]
    assert_every_null_has_its_reason(found)


def assert_every_null_has_its_reason(figures):
    for name, value in figures.items():
        if isinstance(value, dict) and name != "reasons":
            assert_every_null_has_its_reason(value)
        elif value is None:
            assert figures["reasons"][name]
        elif isinstance(value, float):
            assert np.isfinite(value)


@given(tables, st.randoms())
def test_the_order_of_rows_is_free(rows, random):
    shuffled = rows.sample(frac=1, random_state=random.randrange(2**32))
    assert as_json(natural_metrics(shuffled)) == as_json(natural_metrics(rows))


def test_a_highest_probability_shared_by_too_many_slices_without_tumor_calls_none():
    rows = rows_of([("a", "tumor", 0.5), ("a", "kidney", 0.5), ("a", "background", 0.5)])
    point = as_json(natural_metrics(rows))["false_positives"]["1"]
    assert (point["threshold"], point["false_positives_per_case"], point["sensitivity"]) == (None, 0.0, 0.0)
    assert point["reasons"]["threshold"].endswith("none is called")


@pytest.mark.parametrize(
    ("dropped", "names", "words"),
    [
        (("tumor",), ("sensitivity", "cases_found", "cases_missed"), "no tumor slice in the natural test set"),
        (("small",), ("small_sensitivity",), "no slice with a smaller tumor in the natural test set"),
        (("kidney", "background"), ("threshold", "sensitivity"), "nothing limits what is called"),
    ],
)
def test_a_class_that_is_missing_leaves_what_it_bears_open(dropped, names, words):
    rows = rows_of([row for row in HAND if row[1] not in dropped])
    point = as_json(natural_metrics(rows))["false_positives"]["1"]
    for name in names:
        assert point[name] is None
        assert words in point["reasons"][name]


def test_cases_are_not_ranked_where_every_case_has_a_tumor():
    found = as_json(natural_metrics(rows_of([row for row in HAND if row[0] != "d"])))["by_case"]
    assert found["auroc_of_maximum"] is None
    assert found["reasons"]["auroc_of_maximum"] == "every case has a tumor in the natural test set"


@pytest.mark.parametrize("seed", range(3))
def test_reweighted_figures_weigh_a_class_by_its_inverse_sampling_fraction(seed):
    tables = simulate(seed)
    natural, test = tables["natural"], tables["predictions"].query("part == 'test'")
    found = as_json(reweighted(test, natural))
    weights = {
        name: (natural["class"] == name).sum() / (test["class"] == name).sum()
        for name in ("tumor", "kidney", "background")
    }
    assert found["weights"] == pytest.approx(weights, abs=1e-6)
    weight = [weights[name] for name in test["class"]]
    for name, figure in (
        ("auroc", roc_auc_score),
        ("average_precision", average_precision_score),
        ("brier", brier_score_loss),
    ):
        expected = figure(test["label"], test["probability"], sample_weight=weight)
        assert found[name] == pytest.approx(expected, abs=1e-6)
    without_small = natural[natural["class"] != "small"]
    assert found["prevalence"] == pytest.approx((without_small["class"] == "tumor").mean(), abs=1e-6)


def test_reweighting_a_sample_of_everything_changes_nothing():
    natural = simulate(1, classes=("tumor", "kidney", "background"))["natural"]
    test = natural.assign(label=(natural["class"] == "tumor").astype(int))
    found, expected = as_json(reweighted(test, natural)), as_json(natural_metrics(natural))["tumor"]
    assert {name: found[name] for name in ("auroc", "brier", "prevalence")} == {
        name: expected[name] for name in ("auroc", "brier", "prevalence")
    }
    assert found["bins"] == expected["calibration"]["bins"]


def test_a_class_of_which_no_slice_was_chosen_cannot_be_reweighted():
    tables = simulate(0)
    test = tables["predictions"].query("part == 'test' and `class` != 'kidney'")
    found = as_json(reweighted(test, tables["natural"]))
    count = (tables["natural"]["class"] == "kidney").sum()
    assert found["brier"] is None
    assert found["reasons"]["brier"] == f"none of the {count} kidney slices was chosen"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class": "cyst"}, "line 4: class is none of tumor, small, kidney, background"),
        ({"probability": 1.2}, "line 4: probability is not in [0, 1]"),
        ({"slice": 1.5}, "line 4: slice is no whole number"),
        ({"case": ""}, "line 4: no case is named"),
        ({"slice": 1}, "duplicate slice"),
        ({"case": "case_v"}, "line 4: a validation case"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, words):
    tables = simulate(0)
    natural = tables["natural"].astype(object)
    for column, value in change.items():
        natural.loc[2, column] = value
    natural.to_csv(tmp_path / "natural.csv", index=False)
    with pytest.raises(InputError, match=r"natural.csv: .*") as error:
        read_natural(tmp_path / "natural.csv", tables["predictions"])
    assert words in str(error.value)


def test_a_test_slice_that_is_not_in_it_is_refused(tmp_path):
    tables = simulate(0)
    first = tables["predictions"].query("part == 'test'").iloc[0]
    natural = tables["natural"]
    gone = (natural["case"] == first["case"]) & (natural["slice"] == first["slice"])
    natural[~gone].to_csv(tmp_path / "natural.csv", index=False)
    with pytest.raises(InputError, match=r"natural.csv: 1 of \d+ test slices are not in it with their class"):
        read_natural(tmp_path / "natural.csv", tables["predictions"])
