"""Intervals of figures by resampling cases: slices of one case resemble each other, cases do not.

A figure's interval is figure +- t * s on the logit scale, where s is the spread over resamples of cases and Student's t
has as many degrees of freedom as cases carry the figure, less one. `docs/coverage.md` says why: the percentile
interval, which stands beside it, holds the truth too rarely on a hundred cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit, logit

from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.arms import ArmPredictions
from kidney_ssl.evaluation.weighted import METRICS, absent, effective_cases, weighted_figure

LEVEL = 0.95
SAME = 1e-12  # figures that are equal on paper may differ in the last bits
CONSTANT = "the same in every resample: no interval"


@dataclass(frozen=True)
class Resampled:
    """Figures of every arm on the test part and on its resamples.

    Attributes:
        predictions: what was resampled.
        points: metric -> (A,) figures of the test part itself, NaN where there is none.
        draws: metric -> (A, R) figures of the resamples that leave the figure defined.
        undefined: metric -> share of resamples that leave it undefined.
    """

    predictions: ArmPredictions
    points: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    undefined: dict[str, float]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; None where there is none, and then `reason` says why.

    Attributes:
        point: figure of the test part, mean over seeds.
        low: lower end.
        high: upper end.
        percentile_low: 2.5 % quantile of the resamples.
        percentile_high: 97.5 % quantile of the resamples.
        undefined: share of resamples in which the figure is not defined; they are left out.
        reason: why something is None.
    """

    point: float | None
    low: float | None = None
    high: float | None = None
    percentile_low: float | None = None
    percentile_high: float | None = None
    undefined: float = 0.0
    reason: str | None = None


def resamples(cases: int, count: int, seed: int | np.random.Generator) -> np.ndarray:
    """Draw cases with replacement, as many as there are.

    Returns:
        (count, cases) int16: how often each case was drawn; each row sums to `cases`.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(cases, np.full(cases, 1 / cases), size=count).astype(np.int16)


def resample(
    predictions: ArmPredictions, *, count: int, seed: int | np.random.Generator, metrics: Sequence[str] = METRICS
) -> Resampled:
    """Compute figures of the test part and of `count` resamples of its cases, the same ones for all arms.

    Raises:
        InputError: an unknown metric.
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise InputError(f"no such metric: {', '.join(unknown)}; there are {', '.join(METRICS)}")
    cases = len(predictions.names)
    weights = np.concatenate([np.ones((1, cases), np.int16), resamples(cases, count, seed)])
    drawn = Resampled(predictions, {}, {}, {})
    for metric in metrics:
        values = weighted_figure(predictions, metric, weights)
        defined = ~np.isnan(values[0, 1:])  # it depends on the labels alone, so it is the same for all arms
        drawn.points[metric] = values[:, 0]
        drawn.draws[metric] = values[:, 1:][:, defined]
        drawn.undefined[metric] = float(1 - defined.mean())
    return drawn


def intervals(drawn: Resampled) -> dict[str, dict[str, Interval]]:
    """Give every figure of every arm its interval: arm -> metric -> interval."""
    found: dict[str, dict[str, Interval]] = {arm: {} for arm in drawn.predictions.arms}
    for metric, points in drawn.points.items():
        missing = no_interval(drawn, metric)
        for arm, point, draws in zip(drawn.predictions.arms, points, drawn.draws[metric], strict=True):
            undefined = drawn.undefined[metric]
            # All slices right says little about further cases, but resamples of them cannot show that.
            reason = missing or (CONSTANT if point in (0, 1) else None)
            if reason:
                known = None if np.isnan(point) else float(point)
                found[arm][metric] = Interval(known, undefined=undefined, reason=reason)
                continue
            low, high = logit_interval(
                float(point), float(spread(draws, drawn)), quantile_of_t(LEVEL, drawn.predictions, metric)
            )
            lowest, highest = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
            found[arm][metric] = Interval(float(point), low, high, lowest, highest, undefined)
    return found


def no_interval(drawn: Resampled, metric: str) -> str | None:
    """Say why no arm can have an interval of this figure, or None."""
    reason = absent(drawn.predictions, metric)
    if reason is None and len(drawn.predictions.names) < 2:
        reason = "one case in the test part: no interval"
    if reason is None and effective_cases(drawn.predictions, metric) == 1:
        reason = "all slices of a class are in one case: no interval"
    if reason is None and drawn.draws[metric].shape[1] < 2:
        reason = "defined in fewer than two resamples: no interval"
    return reason


def spread(draws: np.ndarray, drawn: Resampled) -> np.ndarray:
    """Standard deviation over resamples (last axis), without the bias that C cases instead of C - 1 give it."""
    cases = len(drawn.predictions.names)
    return np.asarray(np.std(draws, axis=-1) * np.sqrt(cases / (cases - 1)))


def quantile_of_t(level: float, predictions: ArmPredictions, metric: str) -> float:
    """Student's t that leaves (1 - level) / 2 on each side, by the cases that carry the figure (1 df at least)."""
    return float(stats.t.ppf((1 + level) / 2, max(effective_cases(predictions, metric) - 1, 1)))


def logit_interval(point: float, deviation: float, quantile: float) -> tuple[float, float]:
    """Interval of a figure strictly between 0 and 1: logit(point) +- quantile * deviation of the logit, and back."""
    half = quantile * deviation / (point * (1 - point))
    low, high = expit(logit(point) + np.array([-half, half])).tolist()
    # Through the logit and back a figure may move by its last bit.
    return min(low, point), max(high, point)
