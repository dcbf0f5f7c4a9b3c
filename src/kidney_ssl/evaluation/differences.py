"""Paired differences of arms: intervals from the same resamples of cases, p by within-case swaps, and a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.arms import ArmPredictions
from kidney_ssl.evaluation.bootstrap import CONSTANT, LEVEL, SAME, Resampled, no_interval, quantile_of_t, spread
from kidney_ssl.evaluation.weighted import LOWER_IS_BETTER, swap_differences

EQUIVALENCE_LEVEL = 0.90  # two one-sided tests at 5 %
FEW_CASES = 30
Pair = tuple[str, str]


@dataclass(frozen=True)
class Difference:
    """Figure of `arm` minus that of `against`, paired by case; None where there is none.

    Attributes:
        arm: the one arm.
        against: the other.
        metric: the figure.
        family: `baseline` (every other arm against the baseline) or `contrasts` (the other pairs).
        point: the difference on the test part, means over seeds.
        p: two-sided, by within-case swaps of the two arms; not corrected for the number of comparisons.
        low: lower end of its own 95 % interval.
        high: upper end.
        equivalence_low: lower end of its own 90 % interval, held against the margin.
        equivalence_high: upper end.
        simultaneous_low: lower end of the interval that holds all differences of the family at once with 95 %.
        simultaneous_high: upper end.
        undefined: share of resamples in which the figure is not defined; they are left out.
        verdict: equivalent (the 90 % interval lies within the margin), else better or worse (the simultaneous
            interval excludes 0), else undecided; under 30 cases: too few cases to say.
        reason: why something is None.
    """

    arm: str
    against: str
    metric: str
    family: str
    point: float | None = None
    p: float | None = None
    low: float | None = None
    high: float | None = None
    equivalence_low: float | None = None
    equivalence_high: float | None = None
    simultaneous_low: float | None = None
    simultaneous_high: float | None = None
    undefined: float = 0.0
    verdict: str = "undecided"
    reason: str | None = None


def differences(
    drawn: Resampled,
    *,
    baseline: str,
    contrasts: Sequence[Pair] = (),
    metrics: Sequence[str] | None = None,
    margin: float = 0.02,
    swaps: int = 10_000,
    seed: int | np.random.Generator,
) -> list[Difference]:
    """Compare every other arm with the baseline, and the pairs of the analysis plan.

    Args:
        drawn: figures of all arms on the same resamples.
        baseline: the arm that all others are compared with.
        contrasts: further pairs (arm, against), fixed before the test part was looked at.
        metrics: which figures to compare; all that were resampled if None.
        margin: differences below it, both ways, do not matter (two points by default).
        swaps: random within-case swaps for p.
        seed: decides the swaps, the same ones for all pairs and figures.

    Returns:
        By metric, the baseline's family first.

    Raises:
        InputError: an arm or metric that is not there, an arm compared with itself, or a pair given twice.
    """
    predictions = drawn.predictions
    _check(predictions, baseline, contrasts)
    chosen = tuple(drawn.points) if metrics is None else tuple(metrics)
    unknown = sorted(set(chosen) - set(drawn.points))
    if unknown:
        raise InputError(f"not resampled: {', '.join(unknown)}; there are {', '.join(drawn.points)}")
    families = {
        "baseline": [(arm, baseline) for arm in predictions.arms if arm != baseline],
        "contrasts": [pair for pair in contrasts if pair[1] != baseline],
    }
    swapped = np.random.default_rng(seed).integers(2, size=(swaps, len(predictions.names)), dtype=np.int16)
    return [
        one
        for metric in chosen
        for family, pairs in families.items()
        if pairs
        for one in _family(drawn, metric, family, pairs, margin=margin, swapped=swapped)
    ]


def swap_p(predictions: ArmPredictions, pair: Pair, metric: str, swapped: np.ndarray) -> float:
    """Two-sided p of a paired difference: were the arms alike, each case's predictions could be either arm's.

    All seeds of a case are swapped together.

    Args:
        predictions: both arms among others.
        pair: the two arms.
        metric: the figure, defined on the test part.
        swapped: (draws, C) 0 or 1, the cases that change arms.

    Returns:
        (1 + swaps with a difference at least as large) / (1 + draws).
    """
    swapped = np.concatenate([np.zeros_like(swapped[:1]), swapped])
    sizes = np.abs(swap_differences(predictions, pair, metric, swapped))
    return float((1 + np.sum(sizes[1:] >= sizes[0] - SAME)) / len(sizes))


def max_t(points: np.ndarray, draws: np.ndarray) -> float:
    """95 % quantile over resamples of the largest |draw - point| / spread among several differences.

    Differences without spread are exact and take no part.

    Args:
        points: (P,) differences.
        draws: (P, R) their resamples.
    """
    deviations = np.std(draws, axis=1)
    moving = deviations > SAME
    if not moving.any():
        return 0.0
    sizes = np.abs(draws[moving] - points[moving, None]) / deviations[moving, None]
    return float(np.quantile(sizes.max(axis=0), LEVEL))


def half_widths(
    drawn: Resampled, metric: str, points: np.ndarray, draws: np.ndarray, *, identical: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half widths of the intervals of several differences of one figure, (P,) each.

    NaN for a difference that is the same in every resample though the predictions differ: two arms that are right
    everywhere, say, of which further cases could show either to be better.

    Args:
        drawn: what was resampled.
        metric: the figure, which decides the degrees of freedom of Student's t.
        points: (P,) differences.
        draws: (P, R) their resamples.
        identical: (P,) whether both sides are the very same predictions: their difference is 0 in any case.

    Returns:
        Of each difference's own 95 % interval, of its own 90 % interval (for equivalence), and of the interval that
        holds all of them at once with 95 %.
    """
    deviations = spread(draws, drawn)
    deviations[(deviations <= SAME) & ~identical] = np.nan
    own = quantile_of_t(LEVEL, drawn.predictions, metric)
    narrow = quantile_of_t(EQUIVALENCE_LEVEL, drawn.predictions, metric)
    # Widened as a single interval is, and never narrower than one.
    normal = float(stats.norm.ppf((1 + LEVEL) / 2))
    joint = own * max(max_t(points, draws) / normal, 1)
    return own * deviations, narrow * deviations, joint * deviations


def of_pairs(
    drawn: Resampled, metric: str, pairs: Sequence[Pair]
) -> tuple[np.ndarray, str | tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Differences of pairs of arms in one figure: points (P,), and `half_widths` or why there are none."""
    arms, given = drawn.predictions.arms, drawn.predictions.probabilities
    ones, others = (np.array([arms.index(pair[side]) for pair in pairs]) for side in (0, 1))
    points = drawn.points[metric][ones] - drawn.points[metric][others]
    reason = no_interval(drawn, metric)
    if reason:
        return points, reason
    draws = drawn.draws[metric][ones] - drawn.draws[metric][others]
    identical = np.array([np.array_equal(given[one], given[other]) for one, other in zip(ones, others, strict=True)])
    return points, half_widths(drawn, metric, points, draws, identical=identical)


def _check(predictions: ArmPredictions, baseline: str, contrasts: Sequence[Pair]) -> None:
    for arm in [baseline, *(arm for pair in contrasts for arm in pair)]:
        if arm not in predictions.arms:
            raise InputError(f"no predictions of arm {arm} to compare; there are {', '.join(predictions.arms)}")
    for arm, against in contrasts:
        if arm == against:
            raise InputError(f"arm {arm} is compared with itself: change the contrasts")
    if len({frozenset(pair) for pair in contrasts}) < len(contrasts):
        raise InputError("a contrast is given twice: change the contrasts")


def _family(
    drawn: Resampled, metric: str, family: str, pairs: Sequence[Pair], *, margin: float, swapped: np.ndarray
) -> list[Difference]:
    predictions = drawn.predictions
    few = len(predictions.names) < FEW_CASES
    points, widths = of_pairs(drawn, metric, pairs)
    found = [Difference(*pair, metric, family, undefined=drawn.undefined[metric]) for pair in pairs]
    if few:
        found = [replace(one, verdict="too few cases to say") for one in found]
    if not np.isnan(points).any():
        found = [
            replace(one, point=float(point), p=swap_p(predictions, pair, metric, swapped))
            for one, point, pair in zip(found, points, pairs, strict=True)
        ]
    if isinstance(widths, str):
        return [replace(one, reason=widths) for one in found]
    compared = []
    for one, point, own, narrow, joint in zip(found, *(a.tolist() for a in (points, *widths)), strict=True):
        if np.isnan(own):
            compared.append(replace(one, reason=CONSTANT))
            continue
        with_intervals = replace(
            one,
            low=point - own,
            high=point + own,
            equivalence_low=point - narrow,
            equivalence_high=point + narrow,
            simultaneous_low=point - joint,
            simultaneous_high=point + joint,
        )
        verdict = one.verdict if few else _verdict(point, narrow, joint, margin, metric)
        compared.append(replace(with_intervals, verdict=verdict))
    return compared


def _verdict(point: float, narrow: float, joint: float, margin: float, metric: str) -> str:
    if abs(point) + narrow < margin:
        return "equivalent"
    gain = -point if metric in LOWER_IS_BETTER else point
    if gain - joint > 0:
        return "better"
    return "worse" if gain + joint < 0 else "undecided"
