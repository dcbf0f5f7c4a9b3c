"""Figures of the test slices by what they show and how they were taken.

- Tumour size: thirds by the terciles of the TRAINING tumor slices' native area in mm2, so that no test slice decides
  where a third ends. Sensitivity only: a slice without tumour has no size.
- Negatives: each kind of slice without tumour against all tumor slices; a cyst is the likeliest to be taken for one.
- Slice distance: at most 1.5 mm (thin reconstructions), to 4 mm, to 10 mm (5 mm is the abdomen's routine, and nearly
  half of KiTS23), and beyond, which no protocol has but the phantom. Fixed, so that studies can be compared.
- Block: parts of KiTS23 with other annotators and contrast phase.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.metrics import KIDNEY, NEGATIVES, THRESHOLD, TUMOR, figures_of
from kidney_ssl.evaluation.missing import Missing

THIRDS = ("small", "middle", "large")
THICKNESS_MM = (1.5, 4.0, 10.0)
COLUMNS = ("tumor_mm2", "cyst_px", "thickness_mm", "block")


def join_slices(test: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Lay the slices' own columns beside their predictions.

    Args:
        test: test rows of the predictions: case, slice, class, label, probability.
        slices: data/slices/test.csv: case, slice, class, tumor_mm2, cyst_px, thickness_mm, block.

    Raises:
        InputError: the two are not of the same slices.
    """
    key = ["case", "slice", "class"]
    joined = test.merge(slices[[*key, *COLUMNS]], on=key, how="left", validate="1:1")
    if len(slices) != len(test) or joined["thickness_mm"].isna().any():
        raise InputError(
            f"data/slices/test.csv has {len(slices)} slices, the predictions {len(test)}, and not the same ones: "
            "run `dvc repro`"
        )
    return joined


def strata_figures(test: pd.DataFrame, train: pd.DataFrame) -> dict[str, Any]:
    """Compute figures by stratum.

    Args:
        test: see `join_slices`.
        train: data/slices/train.csv: class, tumor_mm2. All training cases, whatever the label budget, so that the
            strata of all budgets are the same.

    Returns:
        `size` (cut_points_mm2 and a third's slices, cases and sensitivity), `negatives` (kind -> slices and cases of
        these negatives, specificity, AUROC of all tumor slices against them), `thickness` and `block` (stratum ->
        slices, cases, tumor_slices, accuracy, AUROC, AUROC against kidney, sensitivity, specificity).
    """
    bounds = (0.0, *THICKNESS_MM, np.inf)
    thickness = {
        _thickness_name(low, high): test[(test["thickness_mm"] > low) & (test["thickness_mm"] <= high)]
        for low, high in pairwise(bounds)
    }
    blocks = {str(name): test[test["block"] == name] for name in sorted(set(test["block"]))}
    return {
        "size": _size(test[test["class"] == TUMOR], train.loc[train["class"] == TUMOR, "tumor_mm2"].to_numpy(float)),
        "negatives": _negatives(test),
        "thickness": {name: _stratum(rows, f"the stratum {name}") for name, rows in thickness.items()},
        "block": {name: _stratum(rows, f"block {name}") for name, rows in blocks.items()},
    }


def _thickness_name(low: float, high: float) -> str:
    if not low:
        return f"up to {high:g} mm"
    return f"above {low:g} mm" if np.isinf(high) else f"above {low:g} to {high:g} mm"


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {"slices": len(rows), "cases": rows["case"].nunique()}


def _size(tumors: pd.DataFrame, training_mm2: np.ndarray) -> dict[str, Any]:
    """Sensitivity by thirds; a size at a cut point belongs to the larger third."""
    if not len(training_mm2):
        no_cuts = Missing("no tumor slice in training, so there are no cut points")
        return {"cut_points_mm2": no_cuts} | {
            third: dict.fromkeys(("slices", "cases", "sensitivity"), no_cuts) for third in THIRDS
        }
    cuts = np.quantile(training_mm2, [1 / 3, 2 / 3])
    place = np.searchsorted(cuts, tumors["tumor_mm2"], side="right")
    found: dict[str, Any] = {"cut_points_mm2": cuts.tolist()}
    for number, third in enumerate(THIRDS):
        rows = tumors[place == number]
        absent = None if len(rows) else Missing(f"no {third} tumor slice in the test part")
        called = (rows["probability"] >= THRESHOLD).mean()
        found[third] = _counts(rows) | {"sensitivity": absent or float(called)}
    return found


def _negatives(test: pd.DataFrame) -> dict[str, Any]:
    cyst, kidney = test["cyst_px"] > 0, test["class"] == KIDNEY
    negative = test["class"].isin(NEGATIVES)
    kinds = {
        **{name: test["class"] == name for name in NEGATIVES},
        "with_cyst": negative & cyst,
        "without_cyst": negative & ~cyst,
        "kidney_with_cyst": kidney & cyst,
        "kidney_without_cyst": kidney & ~cyst,
    }
    tumor = test["class"] == TUMOR
    found = {}
    for name, kind in kinds.items():
        absent = None if kind.any() else Missing(f"no {name.replace('_', ' ')} slice without tumour in the test part")
        figures = figures_of(test[kind | tumor], "the test part")
        found[name] = _counts(test[kind]) | {key: absent or figures[key] for key in ("specificity", "auroc")}
    return found


def _stratum(rows: pd.DataFrame, where: str) -> dict[str, Any]:
    figures = figures_of(rows, where)
    no_kidney = None if (rows["class"] == KIDNEY).any() else Missing(f"no kidney slice in {where}")
    against = figures_of(rows[rows["class"].isin((TUMOR, KIDNEY))], where)["auroc"]
    return {
        **_counts(rows),
        "tumor_slices": int((rows["class"] == TUMOR).sum()),
        **{name: figures[name] for name in ("accuracy", "auroc", "sensitivity", "specificity")},
        "auroc_against_kidney": (None if rows.empty else no_kidney) or against,
    }
