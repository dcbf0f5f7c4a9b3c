"""ROC and precision-recall curves with pointwise 95 % bands, by resampling cases."""

from dataclasses import dataclass

import numpy as np

from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import LEVEL, sample_and_resamples

GRID = np.linspace(0, 1, 51)  # finer than can be seen in a small chart


@dataclass(frozen=True)
class Band:
    """A curve over the grid: y at each x, and the ends of its pointwise band; all (G,)."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve_bands(predictions: ArmPredictions, kind: str, *, count: int, seed: int) -> dict[str, Band]:
    """Draw a curve of every arm: means over seeds on the test part, bands over resamples of its cases.

    Args:
        predictions: the arms on the same test slices.
        kind: `roc`, sensitivity by false positive rate, or `pr`, precision by recall.
        count: resamples, the same ones for all arms.
        seed: decides them.

    Returns:
        arm -> band; empty where the test part has one class alone.
    """
    if predictions.labels.all() or not predictions.labels.any():
        return {}
    weights = sample_and_resamples(len(predictions.names), count, seed)[:, predictions.cases]
    at = GRID if kind == "roc" else GRID[1:]  # precision is undefined if nothing is called
    found = {}
    for arm, seeds in zip(predictions.arms, predictions.probabilities, strict=True):
        curves = np.mean([_curves(weights, predictions.labels, one, kind, at) for one in seeds], axis=0)
        ends = np.nanquantile(curves[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        found[arm] = Band(at, curves[0], *ends)
    return found


def _curves(
    weights: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, kind: str, at: np.ndarray
) -> np.ndarray:
    """One curve for each row of weights (R, N), read off at (G,): (R, G); NaN where a resample has one class alone."""
    order = np.argsort(-probabilities, kind="stable")
    last = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)  # ties are called together
    called = (
        np.cumsum(weights[:, order] * labels[order], axis=1)[:, last],
        np.cumsum(weights[:, order], axis=1)[:, last],
    )
    found, all_called = (np.pad(one, ((0, 0), (1, 0))).astype(float) for one in called)
    wrong = all_called - found
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, false_rate, precision = found / found[:, -1:], wrong / wrong[:, -1:], found / all_called
    curves = np.full((len(weights), len(at)), np.nan)
    for row in np.flatnonzero((found[:, -1] > 0) & (wrong[:, -1] > 0)):
        if kind == "roc":
            curves[row] = np.interp(at, false_rate[row], recall[row])
        else:
            curves[row] = precision[row, np.searchsorted(recall[row], at - 1e-9)]
    return curves
