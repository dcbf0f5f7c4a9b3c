"""p of a difference by swapping two arms within cases: under the null hypothesis their predictions are exchangeable.

All seeds of a case are swapped together, so p tests whether these networks differ on further cases, not whether further
trainings would differ. For the latter question p is too often small (docs/coverage.md has the rate), so the verdict
uses the interval over cases and seeds.
"""

from dataclasses import replace

import numpy as np
from scipy.stats import rankdata

from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import SAME
from kidney_ssl.statistics.resampling import AGAINST_KIDNEY, metric_values, slices_of


def swap_p(predictions: ArmPredictions, pair: tuple[str, str], metric: str, swapped: np.ndarray) -> float:
    """Two-sided p of a paired difference, for the null hypothesis that the arms are exchangeable within each case.

    `swapped`, (draws, C) 0 or 1, marks the cases whose arms are swapped, all seeds of a case together.

    Returns:
        (1 + swaps with a difference at least as large) / (1 + draws).
    """
    swapped = np.concatenate([np.zeros_like(swapped[:1]), swapped])
    sizes = np.abs(swap_differences(predictions, pair, metric, swapped))
    return float((1 + np.sum(sizes[1:] >= sizes[0] - SAME)) / len(sizes))


def swap_differences(
    predictions: ArmPredictions, pair: tuple[str, str], metric: str, swapped: np.ndarray
) -> np.ndarray:
    """Differences (R,) of two arms after swaps of their predictions in the cases marked by `swapped`, (R, C) 0 or 1.

    For ranking metrics, ranks within each arm are swapped, so that the arms' scales of probabilities do not matter
    (Bandos, Rockette and Gur 2005, doi:10.1002/sim.2149). All seeds of a case are swapped together.
    """
    if metric.removesuffix(AGAINST_KIDNEY) == "auroc":
        return _swapped_aurocs(predictions, pair, metric, swapped)
    if metric == "average_precision":
        predictions = replace(predictions, probabilities=ranks_within_arms(predictions.probabilities))
    both = predictions.stack(*pair)
    ours = metric_values(both, metric, np.concatenate([1 - swapped, swapped], axis=1))[0]
    theirs = metric_values(both, metric, np.concatenate([swapped, 1 - swapped], axis=1))[0]
    return np.asarray(ours - theirs)


def ranks_within_arms(probabilities: np.ndarray) -> np.ndarray:
    """Rank (A, K, N) probabilities over the slices of each arm and seed: in (0, 1], equal ones share a rank."""
    return np.asarray(rankdata(probabilities, axis=-1) / probabilities.shape[-1])


def _swapped_aurocs(predictions: ArmPredictions, pair: tuple[str, str], metric: str, swapped: np.ndarray) -> np.ndarray:
    """Subtract the AUROCs of two arms after swaps: the difference is linear in them.

    A pair of slices is won or lost by two predictions of either arm. In the difference of both AUROCs all products of
    swaps cancel, so that each case adds half of what its slices win in the one arm, less in the other, against the
    slices of both arms; with its sign turned where it is swapped.
    """
    members, labels, probabilities = slices_of(predictions, metric)
    both = ranks_within_arms(probabilities[[predictions.arms.index(arm) for arm in pair]])
    won = np.stack([_pairs_won_by_slice(both[:, seed], labels) for seed in range(both.shape[1])])
    each = np.average(won[:, 0] - won[:, 1], axis=0, weights=predictions.shares)
    return np.asarray((1 - 2.0 * swapped) @ (members @ each) / (2 * labels.sum() * (~labels).sum()))


def _pairs_won_by_slice(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count the pairs that each slice wins against the slices of the other class in both arms, ties by half: (2, N)."""
    won = np.empty(values.shape)
    for own, sign in ((labels, 1), (~labels, -1)):
        others = np.sort(sign * values[:, ~own], axis=None)
        below, to = (np.searchsorted(others, sign * values[:, own], side=side) for side in ("left", "right"))
        won[:, own] = (below + to) / 2
    return won
