"""Intervals by resampling cases, crossed with seeds: slices of one case resemble each other, cases do not.

The interval of a metric is value +- t * standard error on the logit scale. The standard error is the standard deviation
over resamples of cases, and Student's t has the effective number of cases minus 1 as degrees of freedom. With two or
more seeds, both include the noise of training (see `crossed`); with one seed they do not. `docs/coverage.md` has the
reason: with a hundred cases, the coverage of the percentile interval is too low.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats
from scipy.special import expit, logit

from kidney_ssl.errors import InputError
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.crossed import Errors, Pool, crossed_errors
from kidney_ssl.statistics.resampling import METRICS, effective_cases, values_of_seeds, why_undefined
from kidney_ssl.statistics.result import Estimate

LEVEL = 0.95
SAME = 1e-12  # tolerance for values that are mathematically equal
CONSTANT = "the same in every resample: no interval"


@dataclass(frozen=True)
class Resampled:
    """Metrics of every arm on the test part and on its resamples."""

    predictions: ArmPredictions  # what was resampled
    # metric -> (A, K, 1 + R): each seed's value on the test part (NaN if undefined), then its values on the R
    # resamples in which the metric is defined
    values: dict[str, np.ndarray]
    undefined: dict[str, float]  # metric -> share of resamples in which it is not defined
    seeds: int  # K; of an area under a learning curve, the fewest of any budget
    noise: np.ndarray  # (A, R) standard normal draws: seed noise in simultaneous intervals

    @cached_property
    def points(self) -> dict[str, np.ndarray]:
        """Metric -> (A,) means over seeds on the test part."""
        return {metric: one[..., 0].mean(axis=1) for metric, one in self.values.items()}

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Metric -> (A, R) means over seeds on the resamples."""
        return {metric: one[..., 1:].mean(axis=1) for metric, one in self.values.items()}


def resample_cases(cases: int, count: int, seed: int | np.random.Generator) -> np.ndarray:
    """Draw cases with replacement: how often each was drawn, (count, cases) int16; each row sums to `cases`."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(cases, np.full(cases, 1 / cases), size=count).astype(np.int16)


def sample_and_resamples(cases: int, count: int, seed: int | np.random.Generator) -> np.ndarray:
    """Weights of the sample itself (ones) and of `count` resamples: (1 + count, cases) int16."""
    return np.concatenate([np.ones((1, cases), np.int16), resample_cases(cases, count, seed)])


def resample(
    predictions: ArmPredictions, *, count: int, seed: int | np.random.Generator, metrics: Sequence[str] = METRICS
) -> Resampled:
    """Compute metrics of the test part and of `count` resamples of its cases, the same ones for all arms and seeds.

    Raises:
        InputError: an unknown metric.
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise InputError(f"no such metric: {', '.join(unknown)}; there are {', '.join(METRICS)}")
    generator = np.random.default_rng(seed)
    weights = sample_and_resamples(len(predictions.names), count, generator)
    arms, seeds, _ = predictions.probabilities.shape
    noise = generator.spawn(1)[0].normal(size=(arms, count))
    drawn = Resampled(predictions, {}, {}, seeds, noise)
    for metric in metrics:
        values = values_of_seeds(predictions, metric, weights)
        defined = ~np.isnan(values[0, 0])  # depends only on the labels, so it is the same for all arms
        drawn.undefined[metric] = float(1 - defined[1:].mean())
        defined[0] = True
        drawn.values[metric] = values if defined.all() else values[..., defined]
    return drawn


def intervals(drawn: Resampled) -> dict[str, dict[str, Estimate]]:
    """Estimate every metric of every arm: arm -> metric -> estimate, the value a mean over seeds.

    The interval is over cases and seeds; with one seed over cases alone.
    """
    found: dict[str, dict[str, Estimate]] = {arm: {} for arm in drawn.predictions.arms}
    for metric, points in drawn.points.items():
        predictions = drawn.predictions
        none = no_interval(predictions, metric, drawn.draws[metric])
        halves = np.zeros(len(points))
        if none is None:
            values = drawn.values[metric]
            errors = errors_of(predictions, metric, values, Pool.of(values, pairs=False))
            halves = errors.both * t_quantile(LEVEL, errors.freedom)
        for arm, point, half in zip(predictions.arms, points.tolist(), halves.tolist(), strict=True):
            # If all slices are right or all resamples are equal, resampling cannot show the uncertainty.
            reason = none or (CONSTANT if point in (0, 1) or half <= SAME else None)
            if reason:
                found[arm][metric] = Estimate(None if np.isnan(point) else point, reason=reason)
            else:
                found[arm][metric] = Estimate(point, *logit_interval(point, half))
    return found


def no_interval(predictions: ArmPredictions, metric: str, draws: np.ndarray) -> str | None:
    """Reason why no arm can have an interval of this metric, or None; `draws` are its resamples (last axis)."""
    reason = why_undefined(predictions, metric)
    if reason is None and len(predictions.names) < 2:
        reason = "one case in the test part: no interval"
    if reason is None and effective_cases(predictions, metric) == 1:
        reason = "all slices of a class are in one case: no interval"
    if reason is None and draws.shape[-1] < 2:
        reason = "defined in fewer than two resamples: no interval"
    return reason


def errors_of(predictions: ArmPredictions, metric: str, values: np.ndarray, pool: Pool) -> Errors:
    """Standard errors of P metrics or differences from (P, K, 1 + R), with the metric's effective number of cases."""
    freedom = max(effective_cases(predictions, metric) - 1, 1)
    return crossed_errors(values, cases=len(predictions.names), freedom=freedom, pool=pool)


def t_quantile(level: float, freedom: np.ndarray) -> np.ndarray:
    """Quantile of Student's t with (1 - level) / 2 on each side, and at least one degree of freedom."""
    return np.asarray(stats.t.ppf((1 + level) / 2, np.maximum(freedom, 1)))


def logit_interval(point: float, half: float) -> tuple[float, float]:
    """Interval of a value strictly between 0 and 1: half-width `half`, converted to the logit scale and back."""
    half /= point * (1 - point)
    low, high = expit(logit(point) + np.array([-half, half])).tolist()
    # The logit and its inverse may change the last bit of a value.
    return min(low, point), max(high, point)


def symmetric(point: float, half: float, bound: float = 1.0) -> Estimate:
    """Estimate with the interval point +- half; no interval if `half` is NaN or an end is beyond +-`bound`.

    A difference of two shares is in [-1, 1]; an interval that goes beyond is based on too few data.
    """
    if np.isnan(half):
        return Estimate(point, reason=CONSTANT)
    if abs(point) + half > bound + SAME:
        return Estimate(point, reason=f"it would reach beyond [-{bound:g}, {bound:g}]: no interval")
    return Estimate(point, point - half, point + half)
