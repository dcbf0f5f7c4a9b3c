"""How alike the activation maps of several arms are, with an interval over cases."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import stats

from kidney_ssl.evaluation.bootstrap import LEVEL, Interval, resamples
from kidney_ssl.evaluation.weighted import kish


def likeness(maps: Mapping[str, np.ndarray], cases: Sequence[str], *, count: int, seed: int) -> tuple[Interval, int]:
    """Mean over slices of the mean correlation between two arms' maps of the slice, over all pairs of arms.

    Args:
        maps: arm -> (N, h, w) of the same slices; a map that is the same everywhere has no correlation.
        cases: the case of each slice, (N,).
        count: resamples of the cases.
        seed: decides them.

    Returns:
        In [-1, 1] with its 95 % interval, point +- t * spread over resamples of cases with as many degrees of freedom
        as cases carry it (`kish` of their slices), less one; and how many cases those are made
        of. None with the reason where it cannot be computed.
    """
    flat = [one.reshape(len(one), -1).astype(np.float64) for one in maps.values()]
    flat = [one - one.mean(axis=1, keepdims=True) for one in flat]
    norms = [np.linalg.norm(one, axis=1) for one in flat]
    each = np.full((len(cases), len(list(combinations(maps, 2)))), np.nan)
    for column, (first, second) in enumerate(combinations(range(len(flat)), 2)):
        known = (norms[first] > 0) & (norms[second] > 0)
        products = (flat[first][known] * flat[second][known]).sum(axis=1)
        each[known, column] = products / (norms[first] * norms[second])[known]
    kept = ~np.isnan(each).all(axis=1) if each.shape[1] else np.zeros(len(cases), bool)
    names, places = np.unique(np.asarray(cases, str)[kept], return_inverse=True)
    if not len(names):
        return Interval(None, reason="no slice with maps of two arms"), 0
    counts = np.bincount(places).astype(float)
    sums = np.bincount(places, np.nanmean(each[kept], axis=1))
    point = float(sums.sum() / counts.sum())
    if len(names) < 2:
        return Interval(point, reason="one case with maps: no interval"), len(names)
    weights = resamples(len(names), count, seed).astype(float)
    deviation = np.std((weights @ sums) / (weights @ counts)) * np.sqrt(len(names) / (len(names) - 1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, max(kish(counts) - 1, 1)) * deviation)
    return Interval(point, point - half, point + half), len(names)
