"""Metrics of subgroups of the test slices, by content and by acquisition.

- Tumor size: thirds by the terciles of the TRAINING tumor slices' native area in mm2, so that test slices do not
  influence the limits. Only sensitivity: a slice without tumor has no tumor size.
- Negatives: each kind of slice without tumor against all tumor slices; cysts are the most likely to be mistaken for
  tumors.
- Slice distance: up to 1.5 mm (thin reconstructions), up to 4 mm, up to 10 mm (5 mm is routine for the abdomen and
  nearly half of KiTS23), and more, which only the phantom has. The limits are fixed, so that studies can be compared.
- Block: parts of KiTS23 with different annotators and contrast phases.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.errors import InputError
from kidney_ssl.metrics.classification import classification_metrics, sizes
from kidney_ssl.schema import KIDNEY, NEGATIVES, THRESHOLD, TUMOR
from kidney_ssl.statistics.result import Estimate, unless

THICKNESS_MM = (1.5, 4.0, 10.0)
COLUMNS = ("tumor_mm2", "cyst_px", "thickness_mm", "block")


def join_slices(test: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Add `COLUMNS` of data/slices/test.csv to the test predictions.

    Raises:
        InputError: the two tables have different slices.
    """
    key = ["case", "slice", "class"]
    joined = test.merge(slices[[*key, *COLUMNS]], on=key, how="left", validate="1:1")
    if len(slices) != len(test) or joined["thickness_mm"].isna().any():
        raise InputError(
            f"data/slices/test.csv has {len(slices)} slices, the predictions {len(test)}, and not the same ones: "
            "run `dvc repro`"
        )
    return joined


def subgroup_metrics(test: pd.DataFrame, train: pd.DataFrame) -> dict[str, Any]:
    """Compute metrics by subgroup.

    Args:
        test: see `join_slices`.
        train: class and tumor_mm2 of all training slices, so that all label budgets have the same subgroups.

    Returns:
        `size` (cut_points_mm2; third -> slices, cases and sensitivity), `negatives` (kind -> slices and cases of
        these negatives, specificity, AUROC of all tumor slices against them), `thickness` and `block` (subgroup ->
        slices, cases, tumor_slices, accuracy, AUROC, AUROC against kidney, sensitivity, specificity).
    """
    slices = {
        kind: {name: test[kept] for name, kept in subgroups.items()}
        for kind, subgroups in subgroup_slices(test, train).items()
    }
    cuts, tumors = _cut_points(train), test[test["class"] == TUMOR]
    return {
        "size": {"cut_points_mm2": cuts} | {third: _third(rows, third, cuts) for third, rows in slices["size"].items()},
        "negatives": {name: _negatives(rows, tumors, name) for name, rows in slices["negatives"].items()},
        "thickness": {name: _subgroup(rows, f"the subgroup {name}") for name, rows in slices["thickness"].items()},
        "block": {name: _subgroup(rows, f"block {name}") for name, rows in slices["block"].items()},
    }


def subgroup_slices(test: pd.DataFrame, train: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    """Find the slices of each subgroup, see `subgroup_metrics`: kind -> subgroup -> bool for each row of `test`."""
    tumor, kidney, cyst = test["class"] == TUMOR, test["class"] == KIDNEY, test["cyst_px"] > 0
    mm2, thickness, cuts = test["tumor_mm2"], test["thickness_mm"], _cut_points(train)
    low, high = (np.nan, np.nan) if isinstance(cuts, Estimate) else cuts
    return {
        # A size at a cut point belongs to the larger third.
        "size": {
            "small": tumor & (mm2 < low),
            "middle": tumor & (mm2 >= low) & (mm2 < high),
            "large": tumor & (mm2 >= high),
        },
        "negatives": {
            **{name: test["class"] == name for name in NEGATIVES},
            "with_cyst": ~tumor & cyst,
            "without_cyst": ~tumor & ~cyst,
            "kidney_with_cyst": kidney & cyst,
            "kidney_without_cyst": kidney & ~cyst,
        },
        "thickness": {
            _thickness_name(low, high): (thickness > low) & (thickness <= high)
            for low, high in pairwise((0.0, *THICKNESS_MM, np.inf))
        },
        "block": {str(name): test["block"] == name for name in sorted(set(test["block"]))},
    }


def _thickness_name(low: float, high: float) -> str:
    if not low:
        return f"up to {high:g} mm"
    return f"above {low:g} mm" if np.isinf(high) else f"above {low:g} to {high:g} mm"


def _cut_points(train: pd.DataFrame) -> list[float] | Estimate:
    sizes_mm2 = train.loc[train["class"] == TUMOR, "tumor_mm2"].to_numpy(float)
    if not len(sizes_mm2):
        return Estimate(reason="no tumor slice in training, so there are no cut points")
    return list(np.quantile(sizes_mm2, [1 / 3, 2 / 3]).tolist())


def _third(rows: pd.DataFrame, third: str, cuts: list[float] | Estimate) -> dict[str, Any]:
    if isinstance(cuts, Estimate):
        return dict.fromkeys(("slices", "cases", "sensitivity"), cuts)
    absent = unless(len(rows) > 0, f"no {third} tumor slice in the test part")
    return sizes(rows) | {"sensitivity": absent or float((rows["probability"] >= THRESHOLD).mean())}


def _negatives(rows: pd.DataFrame, tumors: pd.DataFrame, name: str) -> dict[str, Any]:
    absent = unless(len(rows) > 0, f"no {name.replace('_', ' ')} slice without tumor in the test part")
    metrics = classification_metrics(pd.concat([rows, tumors]), "the test part")
    return sizes(rows) | {key: absent or metrics[key] for key in ("specificity", "auroc")}


def _subgroup(rows: pd.DataFrame, where: str) -> dict[str, Any]:
    metrics = classification_metrics(rows, where)
    pair = rows[rows["class"].isin((TUMOR, KIDNEY))]
    no_kidney = unless(rows.empty or (rows["class"] == KIDNEY).any(), f"no kidney slice in {where}")
    return {
        **sizes(rows),
        "tumor_slices": int((rows["class"] == TUMOR).sum()),
        **{name: metrics[name] for name in ("accuracy", "auroc", "sensitivity", "specificity")},
        "auroc_against_kidney": no_kidney or classification_metrics(pair, where)["auroc"],
    }
