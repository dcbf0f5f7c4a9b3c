"""Slices to show: the same ones for every arm, chosen by the baseline's outcome, and each arm's own errors."""

import numpy as np
import pandas as pd

from kidney_ssl.schema import THRESHOLD

OUTCOMES = ("TP", "FP", "FN", "TN")


def outcomes(predictions: pd.DataFrame) -> np.ndarray:
    """TP, FP, FN or TN for each row, from `label` and `probability` at 0.5."""
    called = predictions["probability"].to_numpy() >= THRESHOLD
    true = predictions["label"].to_numpy() == 1
    return np.where(called, np.where(true, "TP", "FP"), np.where(true, "FN", "TN"))


def same_slices(baseline: pd.DataFrame, count: int) -> np.ndarray:
    """Choose rows to show for every arm: for each outcome of the baseline, evenly spaced by probability.

    Returns:
        Row numbers, at most `count` for each outcome, in the order of `OUTCOMES` and then by probability; one per case
        if there are enough cases.
    """
    found = outcomes(baseline)
    chosen = []
    for outcome in OUTCOMES:
        rows = np.flatnonzero(found == outcome)
        rows = rows[np.argsort(baseline["probability"].to_numpy()[rows], kind="stable")]
        rows = _one_of_a_case(rows, baseline, count)
        if len(rows):
            chosen.append(rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))])
    return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)


def worst_errors(predictions: pd.DataFrame, count: int) -> np.ndarray:
    """Choose an arm's most confident errors, the worst first; one per case if there are enough cases."""
    wrong = np.flatnonzero(np.isin(outcomes(predictions), ["FP", "FN"]))
    confidence = np.abs(predictions["probability"].to_numpy()[wrong] - THRESHOLD)
    return _one_of_a_case(wrong[np.argsort(-confidence, kind="stable")], predictions, count)[:count]


def _one_of_a_case(rows: np.ndarray, predictions: pd.DataFrame, count: int) -> np.ndarray:
    """The first row of each case if there are at least `count` cases, else all rows."""
    first = ~pd.Series(predictions["case"].to_numpy()[rows]).duplicated().to_numpy()
    return rows[first] if first.sum() >= count else rows
