"""Figures of frozen features: how well a linear probe and k nearest neighbours tell tumor on an arm's own encoder."""

from pathlib import Path
from typing import Any

import pandas as pd

from kidney_ssl.data.selection import CLASSES
from kidney_ssl.evaluation.csvfile import read_slices, refuse
from kidney_ssl.evaluation.metrics import KIDNEY, TUMOR, figures_of
from kidney_ssl.evaluation.missing import Missing

PROBES = ("linear", "knn")
FIGURES = ("accuracy", "auroc", "auroc_against_kidney")
NOT_PROBED = Missing("an arm with an augmentation or extra updates has the encoder of a plain arm: see there")


def read_frozen(path: Path) -> pd.DataFrame:
    """Read the probes' probabilities of the test slices.

    Args:
        path: CSV with columns case, slice, class, label, linear and knn; a probe's column is empty where it could not
            be fitted.

    Returns:
        Columns case and class (str), slice and label (int64), linear and knn (float64, NaN where empty).

    Raises:
        InputError: the file is missing or not in this form, or a column is empty in some rows alone.
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


def frozen_figures(rows: pd.DataFrame | None) -> dict[str, Any]:
    """Compute accuracy at 0.5, AUROC, and AUROC against kidney of each probe.

    Args:
        rows: see `read_frozen`; None for an arm that was not probed.
    """
    if rows is None:
        return {name: dict.fromkeys(FIGURES, NOT_PROBED) for name in PROBES}
    return {name: _probe(rows.assign(probability=rows[name])) for name in PROBES}


def _probe(rows: pd.DataFrame) -> dict[str, Any]:
    if rows.empty:
        return dict.fromkeys(FIGURES, Missing("no slice in the test part"))
    if rows["probability"].isna().all():
        return dict.fromkeys(FIGURES, Missing("the probe could not be fitted on this run's training slices"))
    every = figures_of(rows, "the test part")
    pair = rows[rows["class"].isin((TUMOR, KIDNEY))]
    no_kidney = None if (rows["class"] == KIDNEY).any() else Missing("no kidney slice in the test part")
    against = no_kidney or figures_of(pair, "the test part")["auroc"]
    return {name: every[name] for name in FIGURES[:2]} | {FIGURES[2]: against}
