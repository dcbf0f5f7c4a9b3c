"""Similarity of several arms' saliency maps, with an interval over cases."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from kidney_ssl.metrics.saliency import slice_correlations
from kidney_ssl.statistics.bootstrap import LEVEL, resample_cases, symmetric, t_quantile
from kidney_ssl.statistics.crossed import standard_error
from kidney_ssl.statistics.resampling import effective_sample_size
from kidney_ssl.statistics.result import Estimate


def mean_correlation(
    maps: Mapping[str, np.ndarray], cases: Sequence[str], *, count: int, seed: int
) -> tuple[Estimate, int]:
    """Mean over slices of the mean correlation between two arms' maps of the slice, over all pairs of arms.

    Args:
        maps: arm -> (N, h, w) of the same slices.
        cases: the case of each slice, (N,).
        count: resamples of the cases.
        seed: of the resamples.

    Returns:
        The correlation, its interval value +- t * standard error over resamples of cases with as many degrees of
        freedom as cases carry it, less one; and how many cases have such slices.
    """
    pairs = [slice_correlations(maps[one], maps[other]) for one, other in combinations(maps, 2)]
    each = np.array(pairs).reshape(len(pairs), len(cases))
    kept = ~np.isnan(each).all(axis=0) if pairs else np.zeros(len(cases), bool)
    names, places = np.unique(np.asarray(cases, str)[kept], return_inverse=True)
    if not len(names):
        return Estimate(reason="no slice with maps of two arms"), 0
    counts = np.bincount(places).astype(float)
    sums = np.bincount(places, np.nanmean(each[:, kept], axis=0))
    point = float(sums.sum() / counts.sum())
    if len(names) < 2:
        return Estimate(point, reason="one case with maps: no interval"), 1
    weights = resample_cases(len(names), count, seed).astype(float)
    error = float(standard_error((weights @ sums) / (weights @ counts), len(names)))
    quantile = float(t_quantile(LEVEL, np.array(effective_sample_size(counts) - 1)))
    return symmetric(point, quantile * error), len(names)
