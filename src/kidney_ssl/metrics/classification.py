"""Metrics of one fine-tuned run from its predictions and curves; a new metric needs no inference.

There are two protocols. `selected`: the epoch is the best on validation or the last; the test part selects nothing.
`best_on_test`: the highest test accuracy and the highest test F1 over the epochs, each separately, as in the thesis.
This is selection on the test set; `optimism` is the difference between the two protocols.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from kidney_ssl.data.patients import patient_column
from kidney_ssl.errors import InputError
from kidney_ssl.metrics.csvfile import RERUN, read_slices, read_text, refuse
from kidney_ssl.schema import CLASSES, EVALUATED, NEGATIVES, THRESHOLD, TUMOR
from kidney_ssl.statistics.result import Estimate, as_json, unless

Metric = float | Estimate  # a value, or an estimate without a value that gives the reason


def evaluate(rows: pd.DataFrame, epochs: pd.DataFrame, run: Path) -> dict[str, Any]:
    """Compute the metrics of a run's selected epoch and of epochs selected on the test set, ready for JSON.

    Args:
        rows: see `read_predictions`.
        epochs: see `read_curves`.
        run: folder of both files, for messages.

    Returns:
        selected: epoch, learning_rate, number of learning rates tried, and the metrics of the test and validation
        parts; best_on_test: for accuracy and f1 the highest value over the epochs, and its epoch;
        optimism: best_on_test - selected. See `as_json` for rounding and None.

    Raises:
        InputError: the two tables belong to different runs.
    """
    chosen = epochs[epochs["selected"] == 1].iloc[0]
    test = _part_metrics(rows[rows["part"] == "test"], "the test part")
    validation_rows = rows[rows["part"] == "validation"]
    validation = sizes(validation_rows) | classification_metrics(validation_rows, "the validation part")
    # Written with `not ... <=` so that a NaN accuracy also counts as different.
    if test["slices"] and not abs(chosen["test_accuracy"] - test["accuracy"]) <= 1 / test["slices"]:
        raise InputError(
            f"{run / 'curves.csv'}: test accuracy {chosen['test_accuracy']:.6f} at the selected epoch, but "
            f"predictions.csv beside it gives {test['accuracy']:.6f}: they are of different runs; {RERUN}"
        )
    # Only the selected learning rate: the thesis searched for the best epoch of one training.
    best = _best_on_test(epochs[epochs["learning_rate"] == chosen["learning_rate"]])
    return as_json(
        {
            "selected": {
                "epoch": int(chosen["epoch"]),
                "learning_rate": chosen["learning_rate"],
                "rates_tried": int(epochs["learning_rate"].nunique()),
                "test": test,
                "validation": validation,
            },
            "best_on_test": best,
            "optimism": {name: _difference(best[name]["value"], test[name]) for name in best},
        }
    )


def read_predictions(path: Path) -> pd.DataFrame:
    """Read predictions of the selected epoch and check every row.

    Returns:
        Columns part (validation, test), case and class (str), slice and label (int64), probability of tumor (float64).

    Raises:
        InputError: the file is missing or not in this form, a slice is duplicated, or a case is in both parts.
    """
    rows = read_slices(path, ["part", "label"], CLASSES, "probability")
    refuse(path, ~rows["part"].isin(EVALUATED), f"part is none of {', '.join(EVALUATED)}")
    rows["label"] = pd.to_numeric(rows["label"], errors="coerce")
    refuse(path, ~rows["label"].isin((0, 1)), "label is neither 0 nor 1")
    refuse(path, (rows["label"] == 1) != (rows["class"] == TUMOR), "label and class contradict each other")
    shared = sorted(set.intersection(*(set(patient_column(rows)[rows["part"] == part]) for part in EVALUATED)))
    if shared:
        raise InputError(f"{path}: case(s) in validation and test at once: {', '.join(shared)}; run select again")
    return rows.astype({"label": "int64"})


def read_curves(path: Path) -> pd.DataFrame:
    """Read the columns of the curves that evaluation needs, one row per learning rate and evaluated epoch, in order.

    The columns are learning_rate, epoch (from 1), test_accuracy, test_f1 and selected (1 in one row).

    Raises:
        InputError: the file is missing or not in this form, or an epoch is duplicated.
    """
    columns = ["learning_rate", "epoch", "test_accuracy", "test_f1", "selected"]
    rows = read_text(path, columns)[columns].apply(pd.to_numeric, errors="coerce")
    refuse(path, ~(rows["learning_rate"] > 0), "learning_rate is not above 0")
    refuse(path, ~((rows["epoch"] >= 1) & (rows["epoch"] % 1 == 0)), "epoch is no whole number from 1")
    for column in ("test_accuracy", "test_f1"):
        # NaN if undefined, such as F1 of a test part without tumor.
        refuse(path, ~(rows[column].isna() | rows[column].between(0, 1)), f"{column} is not in [0, 1]")
    refuse(path, rows.duplicated(["learning_rate", "epoch"]), "duplicate epoch")
    refuse(path, ~rows["selected"].isin((0, 1)), "selected is neither 0 nor 1")
    if rows["selected"].sum() != 1:
        raise InputError(f"{path}: {int(rows['selected'].sum())} epochs are marked as selected, not one; {RERUN}")
    return rows.sort_values(["learning_rate", "epoch"])


def classification_metrics(rows: pd.DataFrame, where: str) -> dict[str, Any]:
    """Compute the metrics that need only labels and probabilities.

    Sensitivity is the recall of tumor slices, specificity that of the other slices; F1 = 2 TP / (2 TP + FP + FN);
    Brier = mean (probability - label)^2. `where` names the rows in the reasons, such as "the test part".
    """
    label, probability = rows["label"].to_numpy(), rows["probability"].to_numpy()
    called = (probability >= THRESHOLD).astype(np.int64)
    empty = unless(len(label) > 0, f"no slice in {where}")
    no_tumor = empty or unless(label.any(), f"no tumor slice in {where}")
    no_negative = empty or unless(not label.all(), f"only tumor slices in {where}")
    one_class = no_tumor or no_negative
    # One call for both classes: most of the time of scikit-learn's metrics goes into checks of their arguments.
    _, recall, f1, _ = (
        [[0, 0]] * 4 if empty else precision_recall_fscore_support(label, called, labels=[0, 1], zero_division=0)
    )
    return {
        "accuracy": empty or accuracy_score(label, called),
        "f1": no_tumor or f1[1],
        "auroc": one_class or roc_auc_score(label, probability),
        "average_precision": one_class or average_precision_score(label, probability),
        "sensitivity": no_tumor or recall[1],
        "specificity": no_negative or recall[0],
        "brier": empty or brier_score_loss(label, probability, labels=[0, 1]),
    }


def against_negatives(rows: pd.DataFrame, negative: str, where: str) -> dict[str, Any]:
    """Accuracy and AUROC of tumor slices against one class of negatives, without the other class."""
    pair = rows[rows["class"].isin((TUMOR, negative))]
    absent = next((name for name in (TUMOR, negative) if name not in set(pair["class"])), None)
    none = unless(absent is None, f"no {absent} slice in {where}")
    label, probability = pair["label"].to_numpy(), pair["probability"].to_numpy()
    return {
        "slices": len(pair),
        "accuracy": none or accuracy_score(label, (probability >= THRESHOLD).astype(np.int64)),
        "auroc": none or roc_auc_score(label, probability),
    }


def sizes(rows: pd.DataFrame) -> dict[str, int]:
    """Count slices and cases."""
    return {"slices": len(rows), "cases": rows["case"].nunique()}


def _part_metrics(rows: pd.DataFrame, where: str) -> dict[str, Any]:
    """All metrics of the test part: pooled over slices, by negative class, by class and by case."""
    called = (rows["probability"] >= THRESHOLD).astype("int64")
    rows = rows.assign(right=(called == rows["label"]).astype("float64"))
    tn, fp, fn, tp = confusion_matrix(rows["label"], called, labels=[0, 1]).ravel() if len(rows) else [0] * 4
    return {
        **sizes(rows),
        **classification_metrics(rows, where),
        "confusion": {"tp": int(tp), "fp": int(fp), "fn": int(fn), "tn": int(tn)},
        "against": {name: against_negatives(rows, name, where) for name in NEGATIVES},
        "classes": {name: _class_metrics(rows[rows["class"] == name], name, where) for name in CLASSES},
        **_case_metrics(rows, where),
    }


def _class_metrics(rows: pd.DataFrame, name: str, where: str) -> dict[str, Any]:
    absent = unless(len(rows) > 0, f"no {name} slice in {where}")
    return {
        "slices": len(rows),
        "accuracy": absent or rows["right"].mean(),
        "mean_probability": absent or rows["probability"].mean(),
    }


def _case_metrics(rows: pd.DataFrame, where: str) -> dict[str, Any]:
    """Accuracy of each case (or patient), and its summary with equal weight for each case."""
    by_case = rows.groupby(patient_column(rows))
    right, tumors, slices = by_case["right"].mean(), by_case["label"].sum(), by_case.size()
    absent = unless(len(right) > 0, f"no case in {where}")
    return {
        "per_case": {
            str(case): {"slices": int(slices[case]), "tumor_slices": int(tumors[case]), "accuracy": right[case]}
            for case in right.index
        },
        "over_cases": {
            "mean_accuracy": absent or right.mean(),
            "median_accuracy": absent or right.median(),
            "worst_accuracy": absent or right.min(),
            "worst_case": absent or str(right.idxmin()),
            "below_half": int((right < 0.5).sum()),
            "without_tumor": int((tumors == 0).sum()),
        },
    }


def _best_on_test(epochs: pd.DataFrame) -> dict[str, Any]:
    """Find the highest test accuracy and the highest test F1 over the epochs separately, the earliest on ties."""
    best: dict[str, Any] = {}
    for name in ("accuracy", "f1"):
        known = epochs.dropna(subset=f"test_{name}").sort_values(f"test_{name}", ascending=False, kind="stable")
        absent = unless(len(known) > 0, f"no epoch has a test {name}")
        best[name] = {key: absent or known[of].iloc[0] for key, of in (("value", f"test_{name}"), ("epoch", "epoch"))}
    return best


def _difference(value: Metric, other: Metric) -> Metric:
    """Subtract two metrics; if one has no value, return the first one's reason."""
    if isinstance(value, Estimate) or isinstance(other, Estimate):
        return value if isinstance(value, Estimate) else other
    return value - other
