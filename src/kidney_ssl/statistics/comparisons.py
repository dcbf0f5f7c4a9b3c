"""Paired differences: intervals from common resamples of cases and seeds, p by within-case swaps, and a verdict.

The analysis plan has two families: every other arm against the baseline, and the listed contrasts. A family is for one
budget and one metric, and never has all pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from kidney_ssl.errors import InputError
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import (
    LEVEL,
    SAME,
    Resampled,
    errors_of,
    no_interval,
    symmetric,
    t_quantile,
)
from kidney_ssl.statistics.crossed import Pool
from kidney_ssl.statistics.resampling import LOWER_IS_BETTER, cases_with
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.statistics.swaps import swap_p

EQUIVALENCE_LEVEL = 0.90  # two one-sided tests at 5 %
FEW_CASES = 30
TOO_FEW = "too few cases to say"
Pair = tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """Metric of `arm` minus that of `against`, paired by case and seed."""

    arm: str  # an arm, or a class of slices (see `class_drops`)
    against: str  # another
    metric: str  # the metric
    difference: Estimate  # on the test part, means over seeds, with its own 95 % interval
    equivalence: Estimate  # the same with its own 90 % interval, compared with the margin
    simultaneous: Estimate  # the same with an interval of 95 % simultaneous coverage over the family
    cases: int  # number of cases with slices that the metric needs
    family: str = ""  # `baseline` (every other arm against the baseline) or `contrasts` (the other pairs of the plan)
    # two-sided, by within-case swaps of the two arms; not corrected for the number of comparisons
    p: float | None = None
    undefined: float = 0.0  # share of resamples in which the metric is not defined; they are left out
    # equivalent, better, worse or undecided, see `shows`, by the simultaneous interval; or `TOO_FEW`
    verdict: str = "undecided"
    seeds: int = 1  # of each arm; with one, training noise is not in the intervals

    def shows(self, margin: float, *, jointly: bool = False) -> str:
        """Classify the difference.

        Returns:
            `equivalent`: the 90 % interval is within the margin; else `above` or `below`: its own 95 % interval, or
            with `jointly` the simultaneous one, excludes 0; else `open`.
        """
        if self.within(-margin, margin):
            return "equivalent"
        interval = self.simultaneous if jointly else self.difference
        if interval.low is None or interval.high is None:
            return "open"
        return "above" if interval.low > 0 else "below" if interval.high < 0 else "open"

    def within(self, low: float, high: float) -> bool:
        """Whether its own 90 % interval is between two bounds: each side is a test at 5 %."""
        one = self.equivalence
        return one.low is not None and one.high is not None and low < one.low and one.high < high

    def row(self) -> dict[str, Any]:
        """The comparison as one flat row for tables and JSON, the difference as `point`."""
        kinds = {"": self.difference, "equivalence_": self.equivalence, "simultaneous_": self.simultaneous}
        ends = {f"{kind}{end}": getattr(one, end) for kind, one in kinds.items() for end in ("low", "high")}
        names = ("arm", "against", "metric", "family", "p", "cases", "seeds", "undefined", "verdict")
        given = {name: getattr(self, name) for name in names}
        reason = next((one.reason for one in kinds.values() if one.reason), None)
        return given | ends | {"point": self.difference.value, "reason": reason}


def compare_pairs(drawn: Resampled, metric: str, pairs: Sequence[Pair], *, level: float = LEVEL) -> list[Comparison]:
    """Compare pairs of arms in one metric, with simultaneous intervals over all of them."""
    if not pairs:
        return []
    predictions, arms = drawn.predictions, drawn.predictions.arms
    ones, others = ([arms.index(pair[side]) for pair in pairs] for side in (0, 1))
    probabilities, values = predictions.probabilities, drawn.values[metric]
    same = [np.array_equal(probabilities[a], probabilities[b]) for a, b in zip(ones, others, strict=True)]
    found = with_intervals(
        predictions,
        metric,
        pairs,
        values[ones] - values[others],
        noise=drawn.noise[ones] - drawn.noise[others],
        identical=np.array(same),
        pool=Pool.of(values, pairs=True),
        level=level,
    )
    return [replace(one, seeds=drawn.seeds) for one in found]


def with_intervals(
    predictions: ArmPredictions,
    metric: str,
    pairs: Sequence[Pair],
    values: np.ndarray,
    *,
    noise: np.ndarray,
    identical: np.ndarray,
    pool: Pool = Pool(),  # noqa: B008 - it is frozen
    named: str = "",
    bound: float = 1.0,
    level: float = LEVEL,
) -> list[Comparison]:
    """Compute intervals of differences.

    A difference has no interval if it is the same in every resample although the predictions differ, for example if
    both arms are right everywhere: further cases could show either arm to be better.

    Args:
        predictions: gives, with `metric`, the degrees of freedom of Student's t.
        metric: the metric.
        pairs: P pairs of names.
        values: (P, K, 1 + R) differences of each seed on the test part, NaN if undefined, and on its resamples.
        noise: (P, R) normal draws of equal variance, correlated if differences have an arm in common.
        identical: (P,) whether both sides have identical predictions, so that the difference is exactly 0.
        pool: the spread over seeds of all pairs of arms.
        named: name of the metric in the comparisons, if different.
        bound: the largest possible difference.
        level: coverage of each difference's own interval.
    """
    points, draws = values[..., 0].mean(axis=1), values[..., 1:].mean(axis=1)
    reason, cases = no_interval(predictions, metric, draws), cases_with(predictions, metric)
    if reason:
        known = [Estimate(None if np.isnan(one) else float(one), reason=reason) for one in points]
        return [
            Comparison(*pair, named or metric, one, one, one, cases) for pair, one in zip(pairs, known, strict=True)
        ]
    errors = errors_of(predictions, metric, values, pool)
    largest = max_t(points, draws + errors.seeds[:, None] * noise[:, : draws.shape[1]] / np.sqrt(2))
    half = np.where(identical, 0, np.where(errors.cases > SAME, errors.both, np.nan))
    # The single coverage at which normal intervals would cover all differences simultaneously.
    at_once = max(2 * float(stats.norm.cdf(largest)) - 1, LEVEL)
    own, narrow, joint = (t_quantile(one, errors.freedom) * half for one in (level, EQUIVALENCE_LEVEL, at_once))
    differences, equivalences, simultaneous = (
        [symmetric(*of, bound) for of in zip(points.tolist(), half.tolist(), strict=True)]
        for half in (own, narrow, joint)
    )
    return [
        Comparison(*pair, named or metric, one, narrower, wider, cases)
        for pair, one, narrower, wider in zip(pairs, differences, equivalences, simultaneous, strict=True)
    ]


def max_t(points: np.ndarray, draws: np.ndarray) -> float:
    """95 % quantile over resamples (P, R) of the largest |draw - point| / standard deviation among P differences.

    Differences without spread are exact and are left out.
    """
    deviations = np.std(draws, axis=1)
    moving = deviations > SAME
    if not moving.any():
        return 0.0
    sizes = np.abs(draws[moving] - points[moving, None]) / deviations[moving, None]
    return float(np.quantile(sizes.max(axis=0), LEVEL))


def planned_comparisons(
    drawn: Resampled,
    *,
    baseline: str,
    contrasts: Sequence[Pair] = (),
    metrics: Sequence[str] | None = None,
    margin: float = 0.02,
    swaps: int = 10_000,
    seed: int | np.random.Generator,
) -> list[Comparison]:
    """Compare every other arm with the baseline, and the pairs of the analysis plan.

    Args:
        drawn: metrics of all arms on the same resamples.
        baseline: the arm that all others are compared with.
        contrasts: further pairs (arm, against), fixed before the test part was evaluated.
        metrics: the metrics to compare; all resampled ones if None.
        margin: absolute differences below it are irrelevant (0.02 by default).
        swaps: number of random within-case swaps for p.
        seed: seed of the swaps, which are the same for all pairs and metrics.

    Returns:
        By metric, the baseline's family first.

    Raises:
        InputError: an arm or metric does not exist, an arm is compared with itself, or a pair is duplicated.
    """
    predictions = drawn.predictions
    _check(predictions, baseline, contrasts)
    chosen = tuple(drawn.points) if metrics is None else tuple(metrics)
    unknown = sorted(set(chosen) - set(drawn.points))
    if unknown:
        raise InputError(f"not resampled: {', '.join(unknown)}; there are {', '.join(drawn.points)}")
    families = {
        "baseline": [(arm, baseline) for arm in predictions.arms if arm != baseline],
        "contrasts": [pair for pair in contrasts if baseline not in pair],  # the others are in the family above
    }
    swapped = np.random.default_rng(seed).integers(2, size=(swaps, len(predictions.names)), dtype=np.int16)
    return [
        replace(
            one,
            family=family,
            p=None if one.difference.value is None else swap_p(predictions, (one.arm, one.against), metric, swapped),
            undefined=drawn.undefined[metric],
            verdict=_verdict(one, margin),
        )
        for metric in chosen
        for family, pairs in families.items()
        for one in compare_pairs(drawn, metric, pairs)
    ]


def _check(predictions: ArmPredictions, baseline: str, contrasts: Sequence[Pair]) -> None:
    for arm in [baseline, *(arm for pair in contrasts for arm in pair)]:
        if arm not in predictions.arms:
            raise InputError(f"no predictions of arm {arm} to compare; there are {', '.join(predictions.arms)}")
    for arm, against in contrasts:
        if arm == against:
            raise InputError(f"arm {arm} is compared with itself: change the contrasts")
    if len({frozenset(pair) for pair in contrasts}) < len(contrasts):
        raise InputError("a contrast is given twice: change the contrasts")


def _verdict(one: Comparison, margin: float) -> str:
    if one.difference.value is not None and one.cases < FEW_CASES:
        return TOO_FEW
    better, worse = ("below", "above") if one.metric in LOWER_IS_BETTER else ("above", "below")
    said = {"equivalent": "equivalent", "open": "undecided", better: "better", worse: "worse"}
    return said[one.shows(margin, jointly=True)]
