"""Confounders: features other than the tumor that differ between classes, by class and part.

The standardised mean difference of classes 1 and 2 is (m1 - m2) / sqrt((v1 + v2) / 2) with means m and variances v
(n - 1); for shares p, v = p (1 - p). Unlike a test statistic, it does not grow with the number of slices. Features with
a difference above 0.1 are often called imbalanced.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kidney_ssl.schema import KIDNEY, TUMOR
from kidney_ssl.statistics.result import Estimate

# Column of the slice table -> label, factor to the shown unit, and digits to show.
MEASURES = {
    "thickness_mm": ("slice distance, mm", 1.0, 1),
    "spacing_mm": ("pixel spacing, mm", 1.0, 2),
    "position": ("position, 0 top to 1", 1.0, 2),
    "body_mm2": ("body area, cm²", 0.01, 0),
    "kidney_mm2": ("kidney area, cm²", 0.01, 1),
    "tumor_mm2": ("tumor area, cm²", 0.01, 1),
}
ANSWER = ("tumor_mm2",)  # the label is derived from this, so it is no confounder
CYST = "with cyst"


NO_ROWS = Estimate(reason="no slice of this class in this part")


def describe(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Median and quartiles (as the interval) of each measure present in the rows."""
    found = {}
    for column, (name, factor, _) in MEASURES.items():
        if column in rows:
            values = rows[column].to_numpy(float) * factor
            found[name] = Estimate(*np.percentile(values, [50, 25, 75]).tolist()) if len(values) else NO_ROWS
    return found


def shares(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Binary features of slices: a cyst, and each block of cases if there are several."""
    found = {}
    if "cyst_px" in rows:
        found[CYST] = rows["cyst_px"] > 0
    blocks = sorted(set(rows["block"])) if "block" in rows else []
    if len(blocks) > 1:
        found |= {f"block {block}": rows["block"] == block for block in blocks}
    return found


def standardised(first: np.ndarray, second: np.ndarray, *, share: bool) -> Estimate:
    """Standardised mean difference of two groups of values; with `share`, of 0/1 values with variance p (1 - p)."""
    if min(len(first), len(second)) < (1 if share else 2):
        return Estimate(reason="too few slices")
    means = [float(np.mean(one)) for one in (first, second)]
    variances = [mean * (1 - mean) for mean in means] if share else [np.var(one, ddof=1) for one in (first, second)]
    deviation = float(np.sqrt(np.mean(variances)))
    if deviation < 1e-12:
        return Estimate(0.0) if abs(means[0] - means[1]) < 1e-12 else Estimate(reason="no spread")
    return Estimate((means[0] - means[1]) / deviation)


def imbalance(parts: Mapping[str, pd.DataFrame]) -> dict[str, dict[tuple[str, str], Estimate]]:
    """Standardised mean differences of tumor slices from kidney slices and from all others, in each part's rows.

    Returns:
        Feature -> (part, against) -> difference; `against` is the kidney slices or all other slices.
    """
    found: dict[str, dict[tuple[str, str], Estimate]] = {}
    for part, rows in parts.items():
        tumor = (rows["class"] == TUMOR).to_numpy()
        others = {"kidney": (rows["class"] == KIDNEY).to_numpy(), "all others": ~tumor}
        known = {name: column for column, (name, *_) in MEASURES.items() if column in rows and column not in ANSWER}
        features = {name: (rows[column].to_numpy(float), False) for name, column in known.items()}
        features |= {name: (one.to_numpy(float), True) for name, one in shares(rows).items()}
        for name, (values, share) in features.items():
            for against, other in others.items():
                difference = standardised(values[tumor], values[other], share=share)
                found.setdefault(name, {})[part, against] = difference
    return found
