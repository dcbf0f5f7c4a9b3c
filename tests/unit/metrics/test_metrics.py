"""Figures of one run: against a table made by hand, against scikit-learn, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import auc, classification_report, precision_recall_curve, roc_curve

from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.classification import evaluate, read_curves, read_predictions

COLUMNS = ["part", "case", "slice", "class", "label", "probability"]
ROWS = [
    ("validation", "case_8", 0, "tumor", 1, 0.8),
    ("validation", "case_8", 1, "kidney", 0, 0.7),
    ("validation", "case_9", 0, "background", 0, 0.1),
    ("test", "case_1", 0, "tumor", 1, 0.9),
    ("test", "case_1", 1, "tumor", 1, 0.4),
    ("test", "case_1", 2, "kidney", 0, 0.6),
    ("test", "case_1", 3, "background", 0, 0.1),
    ("test", "case_2", 5, "tumor", 1, 0.5),  # at the threshold: called tumor
    ("test", "case_2", 6, "kidney", 0, 0.2),
    ("test", "case_2", 7, "background", 0, 0.3),
    ("test", "case_3", 0, "background", 0, 0.5),
]
# The second epoch of the second rate is selected; the first rate's better test figures are of another training.
EPOCHS = [
    (0.0001, 1, 0.9, 0.95, 0),
    (0.0001, 2, 1.0, 1.0, 0),
    (0.001, 1, 0.5, 0.7, 0),
    (0.001, 2, 0.625, 4 / 7, 1),
    (0.001, 3, 0.75, 0.6, 0),
    (0.001, 4, 0.75, 0.7, 0),
]
CURVE_COLUMNS = ["learning_rate", "epoch", "test_accuracy", "test_f1", "selected"]


def predictions_of(rows=ROWS):
    return pd.DataFrame(rows, columns=COLUMNS)


def curves_of(rows=EPOCHS):
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def one_epoch(accuracy, f1=0.5, rate=0.001):
    return curves_of([(rate, 1, accuracy, f1, 1)])


def figures_of(folder, predictions, curves):
    paths = folder / "predictions.csv", folder / "curves.csv"
    for path, table in zip(paths, (predictions, curves), strict=True):
        table.to_csv(path, index=False)
    return evaluate(read_predictions(paths[0]), read_curves(paths[1]), folder)


def without(*dropped, column="class"):
    rows = predictions_of()
    return rows[~((rows["part"] == "test") & rows[column].isin(dropped))]


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    return figures_of(tmp_path_factory.mktemp("hand"), predictions_of(), curves_of())


def test_pooled_figures_agree_with_the_table_made_by_hand(by_hand):
    test = by_hand["selected"]["test"]
    assert (test["slices"], test["cases"]) == (8, 3)
    assert test["confusion"] == {"tp": 2, "fp": 2, "fn": 1, "tn": 3}
    expected = {
        "accuracy": 5 / 8,
        "f1": 2 * 2 / (2 * 2 + 2 + 1),
        "auroc": (5 + 3 + 3.5) / 15,  # 0.9, 0.4 and 0.5 over the negatives; a tie is half
        "average_precision": (1 + 2 / 4 + 3 / 5) / 3,
        "sensitivity": 2 / 3,
        "specificity": 3 / 5,
        "brier": (0.01 + 0.36 + 0.25 + 0.36 + 0.01 + 0.04 + 0.09 + 0.25) / 8,
    }
    assert {name: test[name] for name in expected} == {name: round(value, 6) for name, value in expected.items()}


def test_figures_against_one_class_of_negatives_leave_the_other_out(by_hand):
    assert by_hand["selected"]["test"]["against"] == {
        "kidney": {"slices": 5, "accuracy": 0.6, "auroc": round(4 / 6, 6)},
        "background": {"slices": 6, "accuracy": round(4 / 6, 6), "auroc": round(7.5 / 9, 6)},
    }


def test_figures_of_each_class_agree_with_the_table_made_by_hand(by_hand):
    assert by_hand["selected"]["test"]["classes"] == {
        "tumor": {"slices": 3, "accuracy": round(2 / 3, 6), "mean_probability": 0.6},
        "kidney": {"slices": 2, "accuracy": 0.5, "mean_probability": 0.4},
        "background": {"slices": 3, "accuracy": round(2 / 3, 6), "mean_probability": 0.3},
    }


def test_each_case_counts_once_in_the_figures_over_cases(by_hand):
    test = by_hand["selected"]["test"]
    assert test["per_case"] == {
        "case_1": {"slices": 4, "tumor_slices": 2, "accuracy": 0.5},
        "case_2": {"slices": 3, "tumor_slices": 1, "accuracy": 1.0},
        "case_3": {"slices": 1, "tumor_slices": 0, "accuracy": 0.0},
    }
    assert test["over_cases"] == {
        "mean_accuracy": 0.5,
        "median_accuracy": 0.5,
        "worst_accuracy": 0.0,
        "worst_case": "case_3",
        "below_half": 1,
        "without_tumor": 1,
    }


def test_validation_has_its_own_figures(by_hand):
    assert by_hand["selected"]["validation"] == {
        "slices": 3,
        "cases": 2,
        "accuracy": round(2 / 3, 6),
        "f1": round(2 / 3, 6),
        "auroc": 1.0,
        "average_precision": 1.0,
        "sensitivity": 1.0,
        "specificity": 0.5,
        "brier": round((0.04 + 0.49 + 0.01) / 3, 6),
    }


def test_best_on_test_is_the_earliest_best_of_the_selected_rate_for_each_figure_by_itself(by_hand):
    assert (by_hand["selected"]["epoch"], by_hand["selected"]["learning_rate"]) == (2, 0.001)
    assert by_hand["best_on_test"] == {
        "accuracy": {"value": 0.75, "epoch": 3},
        "f1": {"value": 0.7, "epoch": 1},
    }
    assert by_hand["optimism"] == {"accuracy": 0.125, "f1": round(0.7 - 4 / 7, 6)}


def test_the_order_of_rows_and_further_columns_change_nothing(tmp_path, by_hand):
    predictions = predictions_of().sample(frac=1, random_state=0).assign(note="x")
    curves = curves_of().iloc[::-1].assign(train_loss=0.1)
    assert figures_of(tmp_path, predictions, curves) == by_hand


@pytest.mark.parametrize("rate", [1.23456789e-5, 1e-7, 3e-4 / 7])
def test_the_learning_rate_is_exact(tmp_path, rate):
    figures = figures_of(tmp_path, predictions_of(), one_epoch(0.625, rate=rate))
    write_json(tmp_path / "figures.json", figures)
    assert json.loads((tmp_path / "figures.json").read_text())["selected"]["learning_rate"] == rate


def expected_figures(label, probability):
    """Scikit-learn's report and curves; a figure of an absent class is None."""
    called = (probability >= 0.5).astype(int)
    report = classification_report(label, called, labels=[0, 1], output_dict=True, zero_division=0)
    positives, negatives = int(label.sum()), int((1 - label).sum())
    ranked = auc(*roc_curve(label, probability, drop_intermediate=False)[:2]) if positives and negatives else None
    precision, recall, _ = precision_recall_curve(label, probability) if positives else ([], [], [])
    return {
        "accuracy": np.mean(label == called),
        "f1": report["1"]["f1-score"] if positives else None,
        "auroc": ranked,
        "average_precision": -np.sum(np.diff(recall) * precision[:-1]) if ranked is not None else None,
        "sensitivity": report["1"]["recall"] if positives else None,
        "specificity": report["0"]["recall"] if negatives else None,
        "brier": np.mean((probability - label) ** 2),
    }


def assert_figures(found, expected):
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-6)), name


def assert_reasons(figures):
    """What is None has a reason beside it, and nothing else has one."""
    absent = {name for name, value in figures.items() if value is None}
    assert set(figures.get("reasons", {})) == absent
    for name, value in figures.items():
        if isinstance(value, dict) and name != "reasons":
            assert_reasons(value)


PREDICTION = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["tumor", "kidney", "background"]),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])),  # ties too
)


@given(validation=st.lists(PREDICTION, min_size=1, max_size=8), test=st.lists(PREDICTION, min_size=1, max_size=25))
def test_figures_of_any_predictions_agree_with_scikit_learn(tmp_path_factory, validation, test):
    rows = [
        (part, f"case_{part}{case}", number, kind, int(kind == "tumor"), probability)
        for part, drawn in (("validation", validation), ("test", test))
        for number, (case, kind, probability) in enumerate(drawn)
    ]
    predictions = predictions_of(rows)
    tested = predictions[predictions["part"] == "test"]
    right = tested["label"] == (tested["probability"] >= 0.5)
    figures = figures_of(tmp_path_factory.getbasetemp(), predictions, one_epoch(right.mean()))
    assert_reasons(figures)
    for part in ("validation", "test"):
        of_part = predictions[predictions["part"] == part]
        expected = expected_figures(of_part["label"].to_numpy(), of_part["probability"].to_numpy())
        assert_figures(figures["selected"][part], expected)
    found = figures["selected"]["test"]
    for negative in ("kidney", "background"):
        pair = tested[tested["class"].isin(("tumor", negative))]
        assert found["against"][negative]["slices"] == len(pair)
        both = set(pair["class"]) == {"tumor", negative}
        expected = expected_figures(pair["label"].to_numpy(), pair["probability"].to_numpy()) if both else {}
        assert_figures(found["against"][negative], {name: expected.get(name) for name in ("accuracy", "auroc")})
    for case, of_case in tested.groupby("case"):
        assert found["per_case"][case]["accuracy"] == pytest.approx(right[of_case.index].mean(), abs=1e-6)
    assert sum(case["slices"] for case in found["per_case"].values()) == len(tested)
    assert sum(found["confusion"].values()) == len(tested)


def accuracy_of(predictions):
    test = predictions[predictions["part"] == "test"]
    return ((test["probability"] >= 0.5) == test["label"]).mean()


@pytest.mark.parametrize(
    ("dropped", "absent"),
    [
        (
            ["tumor"],
            dict.fromkeys(["f1", "auroc", "average_precision", "sensitivity"], "no tumor slice in the test part"),
        ),
        (
            ["kidney", "background"],
            dict.fromkeys(["auroc", "average_precision", "specificity"], "only tumor slices in the test part"),
        ),
        (["kidney"], {}),
    ],
)
def test_figures_of_an_absent_class_are_none_with_the_reason(tmp_path, dropped, absent):
    predictions = without(*dropped)
    figures = figures_of(tmp_path, predictions, one_epoch(accuracy_of(predictions)))
    test = figures["selected"]["test"]
    assert test.get("reasons", {}) == absent
    assert [test[name] for name in absent] == [None] * len(absent)
    for name in dropped:
        reason = f"no {name} slice in the test part"
        assert test["classes"][name] == {
            "slices": 0,
            "accuracy": None,
            "mean_probability": None,
            "reasons": {"accuracy": reason, "mean_probability": reason},
        }
    for name in ("kidney", "background"):
        if name in dropped or "tumor" in dropped:
            missing = "tumor" if "tumor" in dropped else name
            assert test["against"][name]["reasons"]["auroc"] == f"no {missing} slice in the test part"
    assert_reasons(figures)
    write_json(tmp_path / "figures.json", figures)


def test_a_run_without_test_slices_says_so_everywhere(tmp_path):
    predictions = predictions_of(ROWS[:3])
    figures = figures_of(tmp_path, predictions, one_epoch("", ""))
    test = figures["selected"]["test"]
    assert (test["slices"], test["cases"], test["per_case"]) == (0, 0, {})
    assert test["confusion"] == {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    assert set(test["reasons"].values()) == {"no slice in the test part"}
    assert test["over_cases"]["reasons"]["mean_accuracy"] == "no case in the test part"
    assert figures["best_on_test"]["f1"] == {
        "value": None,
        "epoch": None,
        "reasons": {"value": "no epoch has a test f1", "epoch": "no epoch has a test f1"},
    }
    assert figures["optimism"]["accuracy"] is None
    assert_reasons(figures)


def test_epochs_without_a_test_f1_leave_the_others_to_choose_from(tmp_path):
    curves = curves_of()
    curves.loc[[2, 5], "test_f1"] = np.nan
    best = figures_of(tmp_path, predictions_of(), curves)["best_on_test"]
    assert best["f1"] == {"value": 0.6, "epoch": 3}


def test_a_case_may_be_called_na(tmp_path):
    predictions = predictions_of().replace({"case": {"case_3": "NA"}})
    assert "NA" in figures_of(tmp_path, predictions, curves_of())["selected"]["test"]["per_case"]


def changed(table, row, column, value):
    table = table.astype(object)
    table.loc[row, column] = value
    return table


BAD_PREDICTIONS = {
    "missing column": (predictions_of().drop(columns=["label", "probability"]), "missing: label, probability"),
    "unknown part": (changed(predictions_of(), 0, "part", "train"), "line 2: part is none of validation, test"),
    "unknown class": (changed(predictions_of(), 3, "class", "cyst"), "line 5: class is none of tumor, kidney, back"),
    "no case": (changed(predictions_of(), 3, "case", ""), "line 5: no case is named"),
    "positive kidney": (changed(predictions_of(), 5, "label", 1), "line 7: label and class contradict each other"),
    "negative tumor": (changed(predictions_of(), 3, "label", 0), "line 5: label and class contradict each other"),
    "label of two": (changed(predictions_of(), 3, "label", 2), "line 5: label is neither 0 nor 1"),
    "label of text": (changed(predictions_of(), 3, "label", "yes"), "line 5: label is neither 0 nor 1"),
    "half a slice": (changed(predictions_of(), 4, "slice", 0.5), "line 6: slice is no whole number from 0"),
    "slice below 0": (changed(predictions_of(), 4, "slice", -1), "line 6: slice is no whole number from 0"),
    "twice": (
        pd.concat([predictions_of(), predictions_of().tail(2).assign(probability=0.2)]),
        "line 13: duplicate slice",
    ),
    "both parts": (changed(predictions_of(), 0, "case", "case_2"), "in validation and test at once: case_2; run sele"),
    "NaN": (changed(predictions_of(), 10, "probability", "nan"), "line 12: probability is not in [0, 1]"),
    "empty": (changed(predictions_of(), 10, "probability", ""), "line 12: probability is not in [0, 1]"),
    "above 1": (changed(predictions_of(), 10, "probability", 1.5), "line 12: probability is not in [0, 1]"),
}
BAD_CURVES = {
    "missing column": (curves_of().drop(columns="selected"), "column(s) missing: selected"),
    "two selected": (changed(curves_of(), 4, "selected", 1), "2 epochs are marked as selected, not one"),
    "none selected": (changed(curves_of(), 3, "selected", 0), "0 epochs are marked as selected, not one"),
    "selected of two": (changed(curves_of(), 3, "selected", 2), "line 5: selected is neither 0 nor 1"),
    "other run": (changed(curves_of(), 3, "test_accuracy", 0.25), "of different runs; run the finetune stage again"),
    "other run, open": (changed(curves_of(), 3, "test_accuracy", ""), "of different runs; run the finetune stage ag"),
    "rate of 0": (changed(curves_of(), 0, "learning_rate", 0), "line 2: learning_rate is not above 0"),
    "epoch of 0": (changed(curves_of(), 1, "epoch", 0), "line 3: epoch is no whole number from 1"),
    "same epoch": (changed(curves_of(), 1, "epoch", 1), "line 3: duplicate epoch"),
    "accuracy": (changed(curves_of(), 1, "test_accuracy", 1.01), "line 3: test_accuracy is not in [0, 1]"),
    "F1": (changed(curves_of(), 1, "test_f1", -0.1), "line 3: test_f1 is not in [0, 1]"),
}


def refused(tmp_path, predictions, curves, name, complaint):
    with pytest.raises(InputError) as caught:
        figures_of(tmp_path, predictions, curves)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}: ")
    assert complaint in message
    assert "\n" not in message


@pytest.mark.parametrize("name", BAD_PREDICTIONS)
def test_bad_predictions_are_refused_in_one_line_with_the_file(tmp_path, name):
    predictions, complaint = BAD_PREDICTIONS[name]
    refused(tmp_path, predictions, curves_of(), "predictions.csv", complaint)


@pytest.mark.parametrize("name", BAD_CURVES)
def test_bad_curves_are_refused_in_one_line_with_the_file(tmp_path, name):
    curves, complaint = BAD_CURVES[name]
    refused(tmp_path, predictions_of(), curves, "curves.csv", complaint)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b'part,case\n"open', b"a,b\n1,2\n1,2,3\n"])
def test_a_file_that_is_missing_or_no_table_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "predictions.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"predictions\.csv: .*run the finetune stage again") as caught:
        read_predictions(path)
    assert "\n" not in str(caught.value)


def test_a_row_that_ends_early_is_refused(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("part,case,slice,class,label,probability\ntest,case_1,0,tumor,1\n")
    with pytest.raises(InputError, match=r"line 2: probability is not in \[0, 1\]"):
        read_predictions(path)
