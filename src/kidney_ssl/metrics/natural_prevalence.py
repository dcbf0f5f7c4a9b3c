"""Metrics of the natural test set: all slices of the test cases, at the prevalence seen in clinical reading.

Slices of class `small` show a tumor below the threshold of the labelled set (1 to min_tumor_px - 1 pixels). Block
`tumor` (the study's question, tumor against no tumor) leaves them out, block `small` counts how many of them are
called, and block `any_tumor` counts every slice with a tumor pixel as positive.

A false positive is a called slice without any tumor pixel. At a limit of F false positives per case, the threshold is
the lowest predicted probability at which at most F x (number of test cases) slices without tumor are called. Slices
with equal probabilities are called together or not at all, so that the limit is never exceeded. If too many slices
without tumor share the highest probability, no slice is called.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from kidney_ssl.errors import InputError
from kidney_ssl.metrics.calibration import CALIBRATION, calibration
from kidney_ssl.metrics.classification import classification_metrics
from kidney_ssl.metrics.csvfile import RERUN, read_slices, refuse
from kidney_ssl.metrics.decision_curve import decision_curve
from kidney_ssl.schema import CLASSES, KIDNEY, NEGATIVES, SMALL, THRESHOLD, TUMOR
from kidney_ssl.statistics.result import Estimate, unless

NATURAL_CLASSES = (TUMOR, SMALL, *NEGATIVES)
FALSE_POSITIVES = (0.5, 1.0, 2.0, 4.0)  # limits per case at which sensitivity is measured
WHERE = "the natural test set"
EMPTY, NO_SMALL = f"no slice in {WHERE}", f"no slice with a smaller tumor in {WHERE}"


def read_natural(path: Path, predictions: pd.DataFrame) -> pd.DataFrame:
    """Read the probabilities of all slices of the test cases and check every row.

    Returns:
        Columns case and class (str: tumor, small, kidney, background), slice (int64), probability of tumor (float64).

    Raises:
        InputError: the file is missing or not in this form, a test slice of the run's `predictions` is missing or has
            another class, or the file has a validation case.
    """
    rows = read_slices(path, [], NATURAL_CLASSES, "probability")
    refuse(path, rows["case"].isin(predictions.loc[predictions["part"] != "test", "case"]), "a validation case")
    test = predictions[predictions["part"] == "test"]
    both = test[["case", "slice", "class"]].merge(rows, on=["case", "slice", "class"], how="left")
    if lost := int(both["probability"].isna().sum()):
        raise InputError(f"{path}: {lost} of {len(test)} test slices are not in it with their class; {RERUN}")
    return rows


def natural_metrics(rows: pd.DataFrame) -> dict[str, Any]:
    """Compute the metrics of the natural test set, see `read_natural`.

    Returns:
        slices, cases, classes (slices of each class), prevalence (share of tumor in all slices), the blocks `tumor`,
        `any_tumor` and `small` (see the module), `false_positives` (limit per case -> operating point) and `by_case`.
    """
    classes = {name: int((rows["class"] == name).sum()) for name in NATURAL_CLASSES}
    empty = unless(len(rows) > 0, EMPTY)
    without_small = rows[rows["class"] != SMALL]
    small = rows.loc[rows["class"] == SMALL, "probability"]
    no_small = unless(len(small) > 0, NO_SMALL)
    return {
        "slices": len(rows),
        "cases": rows["case"].nunique(),
        "classes": classes,
        "prevalence": {
            TUMOR: empty or classes[TUMOR] / len(rows),
            "any_tumor": empty or (classes[TUMOR] + classes[SMALL]) / len(rows),
        },
        TUMOR: {
            **_block(without_small, (TUMOR,)),
            "auroc_against_kidney": _block(rows[rows["class"].isin((TUMOR, KIDNEY))], (TUMOR,))["auroc"],
        },
        "any_tumor": _block(rows, (TUMOR, SMALL)),
        SMALL: {
            "slices": len(small),
            "sensitivity": no_small or float((small >= THRESHOLD).mean()),
            "mean_probability": no_small or float(small.mean()),
        },
        "false_positives": {f"{limit:g}": _operating_point(rows, limit) for limit in FALSE_POSITIVES},
        "by_case": _by_case(rows),
    }


def _block(rows: pd.DataFrame, positives: tuple[str, ...]) -> dict[str, Any]:
    """All metrics of one question: slices of the classes `positives` against the others."""
    rows = rows.assign(label=rows["class"].isin(positives).astype("int64"))
    label, probability = rows["label"].to_numpy(), rows["probability"].to_numpy()
    empty = unless(len(rows) > 0, EMPTY)
    return {
        "slices": len(rows),
        "prevalence": empty or float(label.mean()),
        **classification_metrics(rows, WHERE),
        "calibration": calibration(label, probability, WHERE),
        "decision_curve": empty or decision_curve(label, probability),
    }


def _operating_point(rows: pd.DataFrame, limit: float) -> dict[str, Any]:
    """Operating point with at most `limit` false positives per case; see the module."""
    cases = rows["case"].nunique()
    negative = rows["class"].isin(NEGATIVES)
    if not negative.any():
        unlimited = Estimate(reason=f"no slice without tumor in {WHERE}: nothing limits what is called")
        rates = ("sensitivity", "small_sensitivity", "cases_found", "cases_missed", "free_cases_called")
        return dict.fromkeys(("threshold", "false_positives_per_case", *rates), unlimited)
    falsest = np.sort(rows.loc[negative, "probability"].to_numpy())[::-1]
    allowed = int(limit * cases)
    given = rows["probability"]
    reached = given[given > falsest[allowed]] if allowed < len(falsest) else given
    threshold = float(reached.min()) if len(reached) else np.inf
    called = given >= threshold
    tumor, small = rows["class"] == TUMOR, rows["class"] == SMALL
    found = called[tumor].groupby(rows.loc[tumor, "case"]).any()
    free = ~(tumor | small).groupby(rows["case"]).any()
    alarmed = called.groupby(rows["case"]).any()[free]
    no_tumor = unless(tumor.any(), f"no tumor slice in {WHERE}")
    none = unless(len(reached) > 0, "the highest probability is given to more slices without tumor: none is called")
    return {
        "threshold": none or threshold,
        "false_positives_per_case": float((called & negative).sum() / cases),
        "sensitivity": no_tumor or float(called[tumor].mean()),
        "small_sensitivity": unless(small.any(), NO_SMALL) or float(called[small].mean()),
        "cases_found": no_tumor or float(found.mean()),
        "cases_missed": no_tumor or sorted(found.index[~found]),
        "free_cases_called": unless(len(alarmed) > 0, f"no case without tumor in {WHERE}") or float(alarmed.mean()),
    }


def _by_case(rows: pd.DataFrame) -> dict[str, Any]:
    """Count cases by whether they have a tumor, and compute metrics of the cases' highest probability."""
    tumor = (rows["class"] == TUMOR).groupby(rows["case"]).any()
    any_tumor = rows["class"].isin((TUMOR, SMALL)).groupby(rows["case"]).any()
    one_class = (
        unless(len(any_tumor) > 0, f"no case in {WHERE}")
        or unless(not any_tumor.all(), f"every case has a tumor in {WHERE}")
        or unless(any_tumor.any(), f"no case has a tumor in {WHERE}")
    )
    highest = rows.groupby("case")["probability"].max()
    return {
        "with_tumor_slice": int(tumor.sum()),
        "with_small_tumor_alone": int((any_tumor & ~tumor).sum()),
        "without_tumor": int((~any_tumor).sum()),
        "auroc_of_maximum": one_class or float(roc_auc_score(any_tumor, highest)),
    }


def reweighted(test: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """Estimate the metrics at natural prevalence from the sampled test part by reweighting.

    Each slice is weighted by the inverse sampling fraction of its class: slices of the class in the natural test set
    `rows`, divided by slices of the class in `test`. Slices of class `small` are never sampled, so they do not count.
    """
    chosen, there = (frame["class"].value_counts() for frame in (test, rows))
    lost = [f"{there[name]} {name}" for name in CLASSES if there.get(name, 0) and not chosen.get(name, 0)]
    none = unless(len(test) > 0, "no slice in the test part")
    if none := none or unless(not lost, f"none of the {', '.join(lost)} slices was chosen"):
        return dict.fromkeys(("weights", "prevalence", "auroc", "average_precision", "brier", *CALIBRATION), none)
    label, probability = test["label"].to_numpy(), test["probability"].to_numpy()
    weights = {name: float(there[name] / chosen[name]) for name in CLASSES if name in chosen.index}
    weight = test["class"].map(weights).to_numpy(dtype=float)
    classes = "only tumor" if label.all() else "no tumor"
    one_class = unless(label.min() != label.max(), f"{classes} slices in the test part")
    return {
        "weights": weights,
        "prevalence": float(np.average(label, weights=weight)),
        "auroc": one_class or float(roc_auc_score(label, probability, sample_weight=weight)),
        "average_precision": one_class or float(average_precision_score(label, probability, sample_weight=weight)),
        "brier": float(np.average(np.square(probability - label), weights=weight)),
        **calibration(label, probability, "the test part", weight),
    }
