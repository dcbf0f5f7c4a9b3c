"""Metrics of a linear probe and of k nearest neighbours on an arm's encoder before fine-tuning."""

from pathlib import Path
from typing import Any

import pandas as pd

from kidney_ssl.metrics.classification import against_negatives, classification_metrics
from kidney_ssl.metrics.csvfile import read_slices, refuse
from kidney_ssl.schema import CLASSES, KIDNEY, TUMOR
from kidney_ssl.statistics.result import Estimate

PROBES = ("linear", "knn")
METRICS = ("accuracy", "auroc", "auroc_against_kidney")
NOT_PROBED = Estimate(reason="an arm with an augmentation or extra updates has the encoder of a plain arm: see there")


def read_probes(path: Path) -> pd.DataFrame:
    """Read the probes' probabilities of the test slices.

    Returns:
        Columns case and class (str), slice and label (int64), linear and knn (float64, NaN where a probe could not be
        fitted and its column is empty).

    Raises:
        InputError: the file is missing or not in this form, or a column is empty in only some rows.
    """
    rows = read_slices(path, ["label", *PROBES], CLASSES)
    refuse(path, rows["label"] != (rows["class"] == TUMOR).map({True: "1", False: "0"}), "label and class contradict")
    for name in PROBES:
        if (rows[name] == "").all():
            rows[name] = float("nan")
            continue
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
        refuse(path, ~rows[name].between(0, 1), f"{name} is not in [0, 1]")
    return rows.astype({"label": "int64"})


def probe_metrics(rows: pd.DataFrame | None) -> dict[str, Any]:
    """Compute accuracy at 0.5, AUROC, and AUROC against kidney of each probe; None for an arm that was not probed."""
    if rows is None:
        return {name: dict.fromkeys(METRICS, NOT_PROBED) for name in PROBES}
    return {name: _probe(rows.assign(probability=rows[name])) for name in PROBES}


def _probe(rows: pd.DataFrame) -> dict[str, Any]:
    if rows.empty:
        return dict.fromkeys(METRICS, Estimate(reason="no slice in the test part"))
    if rows["probability"].isna().all():
        return dict.fromkeys(METRICS, Estimate(reason="the probe could not be fitted on this run's training slices"))
    every = classification_metrics(rows, "the test part")
    kidney = against_negatives(rows, KIDNEY, "the test part")["auroc"]
    return {"accuracy": every["accuracy"], "auroc": every["auroc"], "auroc_against_kidney": kidney}
