"""Figures of one fine-tuned arm from its predictions and curves; a new figure needs no inference.

Two protocols stand side by side. `selected`: the epoch was chosen on validation, the test part served no choice.
`best_on_test`: the highest test accuracy and the highest test F1 over the epochs, each by itself, as in the thesis;
that is selection on the test set, and `optimism` is what it earns.

A figure that cannot be computed is None, and the reason stands under the same name in `reasons` beside it.
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
    f1_score,
    recall_score,
    roc_auc_score,
)

from kidney_ssl.data.selection import CLASSES
from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.csvfile import RERUN, read_text, refuse
from kidney_ssl.evaluation.missing import Missing, difference, plain

THRESHOLD = 0.5  # a slice is called tumor from this probability on (Eq. 8-9 of the thesis)
PARTS = ("validation", "test")
TUMOR, KIDNEY, _ = CLASSES
NEGATIVES = CLASSES[1:]

_IDENTITY = ["part", "case", "slice"]


def evaluate(rows: pd.DataFrame, epochs: pd.DataFrame, run: Path) -> dict[str, Any]:
    """Compute the figures of a run's selected epoch, and what a choice on the test set would show, ready for JSON.

    Args:
        rows: see `read_predictions`.
        epochs: see `read_curves`.
        run: the folder that both are from, for messages.

    Returns:
        selected: epoch, learning_rate, and the figures of the parts test and validation;
        best_on_test: for accuracy and f1 the highest value over the epochs and its epoch;
        optimism: best_on_test - selected. Figures have `DIGITS` decimals, the learning rate all that it was given
        with; see the module for None.

    Raises:
        InputError: the two tables are of different runs.
    """
    chosen = epochs[epochs["selected"] == 1].iloc[0]
    test = _part_figures(rows[rows["part"] == "test"], "the test part")
    validation_rows = rows[rows["part"] == "validation"]
    validation = _sizes(validation_rows) | figures_of(validation_rows, "the validation part")
    # So that an open accuracy (NaN) does not agree either.
    if test["slices"] and not abs(chosen["test_accuracy"] - test["accuracy"]) <= 1 / test["slices"]:
        raise InputError(
            f"{run / 'curves.csv'}: test accuracy {chosen['test_accuracy']:.6f} at the selected epoch, but "
            f"predictions.csv beside it gives {test['accuracy']:.6f}: they are of different runs; {RERUN}"
        )
    # The other rates of a search on validation stay out: the thesis looked for the best epoch of one training.
    best = _best_on_test(epochs[epochs["learning_rate"] == chosen["learning_rate"]])
    return plain(
        {
            "selected": {
                "epoch": int(chosen["epoch"]),
                "learning_rate": chosen["learning_rate"],
                "test": test,
                "validation": validation,
            },
            "best_on_test": best,
            "optimism": {name: difference(best[name]["value"], test[name]) for name in best},
        }
    )


def read_predictions(path: Path) -> pd.DataFrame:
    """Read predictions of the selected epoch and check every row.

    Args:
        path: CSV with columns part (validation, test), case, slice, class (tumor, kidney, background), label (0, 1)
            and probability of tumor in [0, 1].

    Returns:
        Columns part, case and class (str), slice and label (int64), probability (float64).

    Raises:
        InputError: the file is missing or not in the form above, a slice stands there twice, or a case is in both
            parts.
    """
    rows = read_text(path, [*_IDENTITY, "class", "label", "probability"])
    for column, known in (("part", PARTS), ("class", CLASSES)):
        refuse(path, ~rows[column].isin(known), f"{column} is none of {', '.join(known)}")
    refuse(path, rows["case"] == "", "no case is named")
    for column in ("slice", "label", "probability"):
        rows[column] = pd.to_numeric(rows[column], errors="coerce")
    refuse(path, ~rows["probability"].between(0, 1), "probability is not in [0, 1]")
    refuse(path, ~rows["label"].isin((0, 1)), "label is neither 0 nor 1")
    refuse(path, (rows["label"] == 1) != (rows["class"] == TUMOR), "label and class contradict each other")
    refuse(path, ~((rows["slice"] >= 0) & (rows["slice"] % 1 == 0)), "slice is no whole number from 0")
    refuse(path, rows.duplicated(_IDENTITY), "the slice stands there twice")
    shared = sorted(set.intersection(*(set(rows.loc[rows["part"] == part, "case"]) for part in PARTS)))
    if shared:
        raise InputError(f"{path}: case(s) in validation and test at once: {', '.join(shared)}; run select again")
    return rows.astype({"slice": "int64", "label": "int64", "probability": "float64"})


def read_curves(path: Path) -> pd.DataFrame:
    """Read the columns of the curves that evaluation needs, one row an evaluated epoch and learning rate, in order.

    Args:
        path: CSV with columns learning_rate, epoch (from 1), test_accuracy, test_f1 and selected (1 in one row).

    Raises:
        InputError: the file is missing or not in the form above, or an epoch stands there twice.
    """
    columns = ["learning_rate", "epoch", "test_accuracy", "test_f1", "selected"]
    rows = read_text(path, columns)[columns].apply(pd.to_numeric, errors="coerce")
    refuse(path, ~(rows["learning_rate"] > 0), "learning_rate is not above 0")
    refuse(path, ~((rows["epoch"] >= 1) & (rows["epoch"] % 1 == 0)), "epoch is no whole number from 1")
    for column in ("test_accuracy", "test_f1"):
        # Left open where it cannot be computed, as the F1 of a test part without tumor.
        refuse(path, ~(rows[column].isna() | rows[column].between(0, 1)), f"{column} is not in [0, 1]")
    refuse(path, rows.duplicated(["learning_rate", "epoch"]), "the epoch stands there twice")
    refuse(path, ~rows["selected"].isin((0, 1)), "selected is neither 0 nor 1")
    if rows["selected"].sum() != 1:
        raise InputError(f"{path}: {int(rows['selected'].sum())} epochs are marked as selected, not one; {RERUN}")
    return rows.sort_values(["learning_rate", "epoch"])


def _sizes(rows: pd.DataFrame) -> dict[str, Any]:
    return {"slices": len(rows), "cases": rows["case"].nunique()}


def figures_of(rows: pd.DataFrame, where: str) -> dict[str, Any]:
    """Compute the figures that need labels and probabilities alone.

    Sensitivity is the recall of tumor, specificity that of the other slices; F1 = 2 TP / (2 TP + FP + FN);
    Brier = mean (probability - label)^2.

    Args:
        rows: columns label (0, 1) and probability in [0, 1].
        where: names the rows in the reasons of what is missing, as "the test part".
    """
    label, probability = rows["label"].to_numpy(), rows["probability"].to_numpy()
    called = (probability >= THRESHOLD).astype(np.int64)
    empty = None if len(label) else Missing(f"no slice in {where}")
    no_tumor = empty or (None if label.any() else Missing(f"no tumor slice in {where}"))
    no_negative = empty or (Missing(f"only tumor slices in {where}") if label.all() else None)
    one_class = no_tumor or no_negative
    return {
        "accuracy": empty or accuracy_score(label, called),
        "f1": no_tumor or f1_score(label, called),
        "auroc": one_class or roc_auc_score(label, probability),
        "average_precision": one_class or average_precision_score(label, probability),
        "sensitivity": no_tumor or recall_score(label, called),
        "specificity": no_negative or recall_score(label, called, pos_label=0),
        "brier": empty or brier_score_loss(label, probability, labels=[0, 1]),
    }


def _part_figures(rows: pd.DataFrame, where: str) -> dict[str, Any]:
    """All figures of the test part: pooled over slices, per negative class, per class and per case."""
    called = (rows["probability"] >= THRESHOLD).astype("int64")
    rows = rows.assign(right=(called == rows["label"]).astype("float64"))
    tn, fp, fn, tp = confusion_matrix(rows["label"], called, labels=[0, 1]).ravel() if len(rows) else [0] * 4
    return {
        **_sizes(rows),
        **figures_of(rows, where),
        "confusion": {"tp": int(tp), "fp": int(fp), "fn": int(fn), "tn": int(tn)},
        "against": {name: _against(rows, name, where) for name in NEGATIVES},
        "classes": {name: _class_figures(rows[rows["class"] == name], name, where) for name in CLASSES},
        **_case_figures(rows, where),
    }


def _against(rows: pd.DataFrame, negative: str, where: str) -> dict[str, Any]:
    """Figures of tumor slices against one class of negatives, the other left out."""
    pair = rows[rows["class"].isin((TUMOR, negative))]
    absent = next(
        (Missing(f"no {name} slice in {where}") for name in (TUMOR, negative) if name not in set(pair["class"])), None
    )
    figures = {} if absent else figures_of(pair, where)
    return {"slices": len(pair)} | {name: absent or figures[name] for name in ("accuracy", "auroc")}


def _class_figures(rows: pd.DataFrame, name: str, where: str) -> dict[str, Any]:
    absent = None if len(rows) else Missing(f"no {name} slice in {where}")
    return {
        "slices": len(rows),
        "accuracy": absent or rows["right"].mean(),
        "mean_probability": absent or rows["probability"].mean(),
    }


def _case_figures(rows: pd.DataFrame, where: str) -> dict[str, Any]:
    """Figures of each case, and over cases: each case counts once, however thin its slices are cut."""
    right = rows.groupby("case")["right"].mean()
    tumors = rows.groupby("case")["label"].sum()
    slices = rows.groupby("case").size()
    absent = None if len(right) else Missing(f"no case in {where}")
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
    """Find the highest test accuracy and test F1 over the epochs, each by itself, the earliest on ties."""
    best: dict[str, Any] = {}
    for name in ("accuracy", "f1"):
        known = epochs.dropna(subset=f"test_{name}")
        absent = None if len(known) else Missing(f"no epoch has a test {name}")
        row = known.iloc[int(known[f"test_{name}"].to_numpy().argmax())] if len(known) else None
        best[name] = {
            "value": absent if row is None else row[f"test_{name}"],
            "epoch": absent if row is None else int(row["epoch"]),
        }
    return best
