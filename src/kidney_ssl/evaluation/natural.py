"""Figures of the natural test set: all slices of the test cases, at the prevalence that a reader meets.

Slices of class `small` show a tumour below the threshold of the labelled set (1 to min_tumor_px - 1 pixels). For the
question of the study, tumor against no tumour (block `tumor`), they are neither right nor wrong and stay out; block
`small` says how many of them are called, and block `any_tumor` counts any tumour pixel as positive, over all slices.

A false positive is a slice without any tumour pixel that is called. At a limit of F false positives per case, slices
are called from the lowest of the given probabilities on at which no more than F x (test cases) slices without tumour
are; slices with equal probabilities are called together or not at all, so that the limit is never passed. If even the
highest is given to too many of them, none is called.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from kidney_ssl.data.selection import CLASSES, SMALL
from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.calibration import CALIBRATION, calibration
from kidney_ssl.evaluation.csvfile import RERUN, read_slices, refuse
from kidney_ssl.evaluation.decision import decision_curve
from kidney_ssl.evaluation.metrics import KIDNEY, NEGATIVES, THRESHOLD, TUMOR, figures_of
from kidney_ssl.evaluation.missing import Missing

NATURAL_CLASSES = (TUMOR, SMALL, *NEGATIVES)
FALSE_POSITIVES = (0.5, 1.0, 2.0, 4.0)  # per case, the limits at which sensitivity is read
WHERE = "the natural test set"


def read_natural(path: Path, predictions: pd.DataFrame) -> pd.DataFrame:
    """Read the probabilities of all slices of the test cases and check every row.

    Args:
        path: CSV with columns case, slice, class (tumor, small, kidney, background) and probability of tumor.
        predictions: the same run's predictions, see `metrics.read_predictions`.

    Returns:
        Columns case and class (str), slice (int64), probability (float64).

    Raises:
        InputError: the file is missing or not in this form, or a chosen test slice is not in it with its class, or
            a validation case is in it.
    """
    rows = read_slices(path, ["probability"], NATURAL_CLASSES)
    rows["probability"] = pd.to_numeric(rows["probability"], errors="coerce")
    refuse(path, ~rows["probability"].between(0, 1), "probability is not in [0, 1]")
    refuse(path, rows["case"].isin(predictions.loc[predictions["part"] != "test", "case"]), "a validation case")
    test = predictions[predictions["part"] == "test"]
    both = test[["case", "slice", "class"]].merge(rows, on=["case", "slice", "class"], how="left")
    if lost := int(both["probability"].isna().sum()):
        raise InputError(f"{path}: {lost} of {len(test)} test slices are not in it with their class; {RERUN}")
    return rows


def natural_figures(rows: pd.DataFrame) -> dict[str, Any]:
    """Compute the figures of the natural test set.

    Args:
        rows: see `read_natural`.

    Returns:
        slices, cases, classes (slices of each), prevalence (share of all slices), the blocks `tumor`, `any_tumor` and
        `small` (see the module), `false_positives` (limit per case -> operating point) and `by_case`.
    """
    classes = {name: int((rows["class"] == name).sum()) for name in NATURAL_CLASSES}
    empty = None if len(rows) else Missing(f"no slice in {WHERE}")
    without_small = rows[rows["class"] != SMALL]
    small = rows.loc[rows["class"] == SMALL, "probability"]
    no_small = None if len(small) else Missing(f"no slice with a smaller tumour in {WHERE}")
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
    """All figures of one question: slices of the classes `positives` against the others."""
    rows = rows.assign(label=rows["class"].isin(positives).astype("int64"))
    label, probability = rows["label"].to_numpy(), rows["probability"].to_numpy()
    empty = None if len(rows) else Missing(f"no slice in {WHERE}")
    return {
        "slices": len(rows),
        "prevalence": empty or float(label.mean()),
        **figures_of(rows, WHERE),
        "calibration": calibration(label, probability, WHERE),
        "decision_curve": empty or decision_curve(label, probability),
    }


def _operating_point(rows: pd.DataFrame, limit: float) -> dict[str, Any]:
    """Say what is called when at most `limit` slices per case are called without a tumour; see the module."""
    cases = rows["case"].nunique()
    negative = rows["class"].isin(NEGATIVES)
    if not negative.any():
        return _point_missing(Missing(f"no slice without tumour in {WHERE}: nothing limits what is called"))
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
    no_tumor = None if tumor.any() else Missing(f"no tumor slice in {WHERE}")
    return {
        "threshold": threshold
        if np.isfinite(threshold)
        else Missing("the highest probability is given to more slices without tumour: none is called"),
        "false_positives_per_case": float((called & negative).sum() / cases),
        "sensitivity": no_tumor or float(called[tumor].mean()),
        "small_sensitivity": float(called[small].mean())
        if small.any()
        else Missing(f"no slice with a smaller tumour in {WHERE}"),
        "cases_found": no_tumor or float(found.mean()),
        "cases_missed": no_tumor or sorted(found.index[~found]),
        "free_cases_called": float(alarmed.mean()) if len(alarmed) else Missing(f"no case without tumour in {WHERE}"),
    }


def _point_missing(reason: Missing) -> dict[str, Any]:
    names = ("threshold", "false_positives_per_case", "sensitivity", "small_sensitivity", "cases_found", "cases_missed")
    return dict.fromkeys((*names, "free_cases_called"), reason)


def _by_case(rows: pd.DataFrame) -> dict[str, Any]:
    """Count cases by what they hold, and rank them by their highest probability."""
    tumor = (rows["class"] == TUMOR).groupby(rows["case"]).any()
    any_tumor = rows["class"].isin((TUMOR, SMALL)).groupby(rows["case"]).any()
    missing = None
    if any_tumor.all():
        missing = Missing(f"every case has a tumour in {WHERE}" if len(tumor) else f"no case in {WHERE}")
    elif not any_tumor.any():
        missing = Missing(f"no case has a tumour in {WHERE}")
    highest = rows.groupby("case")["probability"].max()
    return {
        "with_tumor_slice": int(tumor.sum()),
        "with_small_tumor_alone": int((any_tumor & ~tumor).sum()),
        "without_tumor": int((~any_tumor).sum()),
        "auroc_of_maximum": missing or float(roc_auc_score(any_tumor, highest)),
    }


def reweighted(test: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """Compute figures of the sampled test part as they would be at natural prevalence.

    Each slice counts as many times as its class has slices in the natural test set for each one chosen: the inverse of
    its sampling fraction. Small tumours could not be chosen, so they have no weight here.

    Args:
        test: test rows of the predictions.
        rows: see `read_natural`.
    """
    chosen, there = (frame["class"].value_counts() for frame in (test, rows))
    lost = [name for name in CLASSES if there.get(name, 0) and not chosen.get(name, 0)]
    label, probability = test["label"].to_numpy(), test["probability"].to_numpy()
    missing = None
    if not len(test):
        missing = Missing("no slice in the test part")
    elif lost:
        missing = Missing(f"none of the {', '.join(f'{there[name]} {name}' for name in lost)} slices was chosen")
    if missing:
        names = ("weights", "prevalence", "auroc", "average_precision", "brier")
        return dict.fromkeys((*names, *CALIBRATION), missing)
    weights = {name: float(there[name] / chosen[name]) for name in CLASSES if name in chosen.index}
    weight = test["class"].map(weights).to_numpy(dtype=float)
    one_class = None
    if label.min() == label.max():
        one_class = Missing(f"{'only tumor' if label.all() else 'no tumor'} slices in the test part")
    return {
        "weights": weights,
        "prevalence": float(np.average(label, weights=weight)),
        "auroc": one_class or float(roc_auc_score(label, probability, sample_weight=weight)),
        "average_precision": one_class or float(average_precision_score(label, probability, sample_weight=weight)),
        "brier": float(np.average(np.square(probability - label), weights=weight)),
        **calibration(label, probability, "the test part", weight),
    }
