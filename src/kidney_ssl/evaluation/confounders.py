"""What tells classes of slices apart besides the tumour: a table by class and part, and how far classes differ.

The standardised mean difference of two classes is (mean - mean) / sqrt((variance + variance) / 2), variances with
n - 1; of a share p it is (p - p) / sqrt((p (1 - p) + p (1 - p)) / 2). It does not grow with the number of slices, as a
p value does. Above 0.1 a feature is often called out of balance.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kidney_ssl.evaluation.metrics import KIDNEY, TUMOR

# Column of a slice's row -> what it is called, what it is multiplied with, and digits to show.
MEASURES = {
    "thickness_mm": ("slice distance, mm", 1.0, 1),
    "spacing_mm": ("pixel spacing, mm", 1.0, 2),
    "position": ("position, 0 top to 1", 1.0, 2),
    "body_mm2": ("body area, cm²", 0.01, 0),
    "kidney_mm2": ("kidney area, cm²", 0.01, 1),
    "tumor_mm2": ("tumour area, cm²", 0.01, 1),
}
ANSWER = ("tumor_mm2",)  # what the label is made of: no confounder
CYST = "with cyst"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a measure; None without a slice."""

    median: float | None
    low: float | None = None
    high: float | None = None


def describe(rows: pd.DataFrame) -> dict[str, Spread]:
    """Median and quartiles of each measure that the rows have."""
    found = {}
    for column, (name, factor, _) in MEASURES.items():
        if column in rows:
            values = rows[column].to_numpy(float) * factor
            found[name] = Spread(None)
            if len(values):
                low, median, high = np.percentile(values, [25, 50, 75]).tolist()
                found[name] = Spread(median, low, high)
    return found


def shares(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Features that a slice has or has not: a cyst, and each block of cases if there are several."""
    found = {}
    if "cyst_px" in rows:
        found[CYST] = rows["cyst_px"] > 0
    blocks = sorted(set(rows["block"])) if "block" in rows else []
    if len(blocks) > 1:
        found |= {f"block {block}": rows["block"] == block for block in blocks}
    return found


def standardised(first: np.ndarray, second: np.ndarray, *, share: bool) -> float | None:
    """Standardised mean difference of two groups; None where it has no meaning.

    Args:
        first: values of one group; of a share, 0 and 1.
        second: those of the other.
        share: the variance is p (1 - p).
    """
    if min(len(first), len(second)) < (1 if share else 2):
        return None
    means = [float(np.mean(one)) for one in (first, second)]
    variances = [mean * (1 - mean) for mean in means] if share else [np.var(one, ddof=1) for one in (first, second)]
    deviation = float(np.sqrt(np.mean(variances)))
    if deviation < 1e-12:
        return 0.0 if abs(means[0] - means[1]) < 1e-12 else None
    return (means[0] - means[1]) / deviation


def imbalance(parts: Mapping[str, pd.DataFrame]) -> dict[str, dict[tuple[str, str], float | None]]:
    """Standardised mean differences of tumor slices from kidney slices and from all others.

    Args:
        parts: part -> rows.

    Returns:
        Feature -> (part, against) -> difference, `against` being kidney or all others.
    """
    found: dict[str, dict[tuple[str, str], float | None]] = {}
    for part, rows in parts.items():
        tumor = (rows["class"] == TUMOR).to_numpy()
        others = {"kidney": (rows["class"] == KIDNEY).to_numpy(), "all others": ~tumor}
        features = {name: (rows[column].to_numpy(float), False) for column, (name, *_) in MEASURES.items()
                    if column in rows and column not in ANSWER}  # fmt: skip
        features |= {name: (one.to_numpy(float), True) for name, one in shares(rows).items()}
        for name, (values, share) in features.items():
            for against, other in others.items():
                difference = standardised(values[tumor], values[other], share=share)
                found.setdefault(name, {})[part, against] = difference
    return found
