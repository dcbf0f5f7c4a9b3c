"""Means of metrics and of differences over the folds of a cross-validation, with intervals.

Test cases are resampled within each fold, crossed with seeds if there are at least two.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from kidney_ssl.statistics.bootstrap import (
    CONSTANT,
    LEVEL,
    SAME,
    Resampled,
    logit_interval,
    no_interval,
    symmetric,
    t_quantile,
)
from kidney_ssl.statistics.comparisons import EQUIVALENCE_LEVEL, FEW_CASES, TOO_FEW, Comparison, Pair, max_t
from kidney_ssl.statistics.crossed import Errors, Pool, standard_error, with_seeds
from kidney_ssl.statistics.resampling import cases_with, effective_cases
from kidney_ssl.statistics.result import Estimate

# What a difference shows, as a verdict: more is better in all metrics that are compared.
_VERDICTS = {"above": "better", "below": "worse", "open": "undecided", "equivalent": "equivalent"}


def intervals_over_folds(
    drawn: Sequence[Resampled], metric: str, rows: np.ndarray, *, pairs: bool = True
) -> list[Estimate]:
    """Means over folds with their own intervals; a metric's on the logit scale, as for a single test part.

    Args:
        drawn: of each fold.
        metric: one of `METRICS`.
        rows: (P, A), 1 for an arm and -1 for the one that it is compared with.
        pairs: whether they are differences.
    """
    if reason := _no_interval(drawn, metric):
        return [Estimate(reason=reason)] * len(rows)
    values, errors = _mean_over_folds(drawn, metric, rows, pairs=pairs)
    halves = t_quantile(LEVEL, errors.freedom) * errors.both
    found = []
    for point, half, of_cases in zip(_points(values).tolist(), halves.tolist(), errors.cases.tolist(), strict=True):
        if of_cases <= SAME or (not pairs and point in (0, 1)):
            found.append(Estimate(point, reason=CONSTANT))
        else:
            found.append(symmetric(point, half) if pairs else Estimate(point, *logit_interval(point, half)))
    return found


def comparisons_over_folds(
    drawn: Sequence[Resampled], metric: str, pairs: Sequence[Pair], margin: float
) -> list[Comparison]:
    """Compare pairs of arms in one metric, with simultaneous intervals over all of them, see `comparisons`.

    There is no p: swaps of two arms within cases are for one test part.
    """
    if not pairs:
        return []
    cases = sum(cases_with(one.predictions, metric) for one in drawn)
    if reason := _no_interval(drawn, metric):
        none = Estimate(reason=reason)
        return [Comparison(arm, against, metric, none, none, none, cases) for arm, against in pairs]
    arms = drawn[0].predictions.arms
    rows = np.array([[(arm == one) - (arm == other) for arm in arms] for one, other in pairs], dtype=np.float64)
    values, errors = _mean_over_folds(drawn, metric, rows, pairs=True)
    draws = values[..., 1:].mean(axis=1)
    noise = errors.seeds[:, None] * (rows @ drawn[0].noise[:, : draws.shape[1]]) / np.sqrt(2)
    at_once = max(2 * float(stats.norm.cdf(max_t(_points(values), draws + noise))) - 1, LEVEL)
    predicted = np.concatenate([one.predictions.probabilities.reshape(len(arms), -1) for one in drawn], axis=1)
    halves = np.where(errors.cases > SAME, errors.both, np.nan)
    halves[(rows @ predicted == 0).all(axis=1)] = 0  # identical predictions: the difference is exactly 0
    ends = [
        [symmetric(*of) for of in zip(_points(values).tolist(), half.tolist(), strict=True)]
        for half in (halves * t_quantile(level, errors.freedom) for level in (LEVEL, EQUIVALENCE_LEVEL, at_once))
    ]
    found = [
        Comparison(arm, against, metric, own, narrow, joint, cases, seeds=drawn[0].seeds)
        for (arm, against), own, narrow, joint in zip(pairs, *ends, strict=True)
    ]
    return [
        replace(one, verdict=TOO_FEW if cases < FEW_CASES else _VERDICTS[one.shows(margin, jointly=True)])
        for one in found
    ]


def _no_interval(drawn: Sequence[Resampled], metric: str) -> str | None:
    """Reason why a fold, and so the mean over folds, has no interval of this metric."""
    for number, one in enumerate(drawn):
        if reason := no_interval(one.predictions, metric, one.draws[metric]):
            return f"fold {number}: {reason}"
    return None


def _points(values: np.ndarray) -> np.ndarray:
    """Means over seeds on the test parts themselves, (P,), of (P, K, 1 + R)."""
    return np.asarray(values[..., 0].mean(axis=1))


def _mean_over_folds(
    drawn: Sequence[Resampled], metric: str, rows: np.ndarray, *, pairs: bool
) -> tuple[np.ndarray, Errors]:
    """Compute means over folds (P, K, 1 + R) of P metrics or differences, and their errors.

    The squared standard error over cases is the sum of the folds' squared errors / folds^2, since cases are resampled
    within folds. Student's t has the sum of the folds' degrees of freedom: the effective number of cases minus 1 for
    each fold. A seed counts by its mean over folds, since its effect may be the same in all of them. For `rows` see
    `intervals_over_folds`.
    """
    cases = [len(one.predictions.names) for one in drawn]
    errors = [standard_error(rows @ one.draws[metric], count) for one, count in zip(drawn, cases, strict=True)]
    shortest = min(one.values[metric].shape[2] for one in drawn)
    of_arms = np.mean([one.values[metric][..., :shortest] for one in drawn], axis=0)
    values = np.tensordot(rows, of_arms, axes=1)
    found = with_seeds(
        np.sqrt(np.sum(np.square(errors), axis=0)) / len(drawn),
        values,
        cases=min(cases),
        freedom=max(sum(effective_cases(one.predictions, metric) - 1 for one in drawn), 1),
        pool=Pool.of(of_arms, pairs=pairs),
    )
    return values, found
