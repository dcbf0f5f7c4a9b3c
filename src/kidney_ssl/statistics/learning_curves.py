"""Learning curves over label budgets: their area, and how many labels the baseline needs for the same value.

A curve is an arm's metric at each budget, against the logarithm of the percent of training cases that have labels.
All budgets are tested on the same cases and resampled alike, so every draw of the cases is a draw of whole curves.

- Area: integral over log(percent) by trapezoids, divided by the range of log(percent): a mean of the metric, in which
  halving the labels counts the same wherever it is done.
- Label equivalence: the percent at which the baseline's curve, linear between budgets, reaches the value that an arm
  has at its budget. Both curves are first made monotone by isotonic regression with equal weights, assuming that more
  labels never harm. Where the baseline's curve is flat, the percent nearest to the arm's own is used, as the most
  conservative choice. Outside the baseline's range there is no percent, only more than the largest (inf) or less than
  the smallest (-inf) budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from kidney_ssl.errors import InputError
from kidney_ssl.statistics.bootstrap import LEVEL, SAME, Resampled, errors_of, no_interval, t_quantile
from kidney_ssl.statistics.crossed import Pool
from kidney_ssl.statistics.result import Estimate


def area_under_curves(budgets: Mapping[int, Resampled], *, metrics: Sequence[str]) -> Resampled:
    """Take the area under each arm's curve as one more metric, with the same resamples.

    Args:
        budgets: percent -> metrics of all arms, resampled alike; at least two.
        metrics: whose curves are taken.

    Returns:
        Points and draws are areas; an arm's columns are the seeds of all its budgets, each with its share in the area.
        Seeds are paired between budgets, in order: what a seed does at one it may do at all. A budget of more seeds
        than another shows its spread by the first of them; one of a single seed shows none.

    Raises:
        InputError: fewer than two budgets, or budgets that do not have the same test slices and arms.
    """
    ordered = _ordered(budgets)
    shares, parts = area_shares(list(ordered)), list(ordered.values())
    seeds = [one.seeds for one in parts]
    together = replace(
        parts[0].predictions,
        probabilities=np.concatenate([one.predictions.probabilities for one in parts], axis=1),
        shares=np.repeat(shares / seeds, seeds),
    )

    return Resampled(
        together,
        values={metric: _area([one.values[metric] for one in parts], shares) for metric in metrics},
        undefined={metric: parts[0].undefined[metric] for metric in metrics},
        seeds=min(seeds),
        noise=parts[0].noise,
    )


def _area(parts: Sequence[np.ndarray], shares: np.ndarray) -> np.ndarray:
    """Sum (A, K, 1 + R) of all budgets by their shares, with as many seeds as the fewest above one."""
    fewest = min((one.shape[1] for one in parts if one.shape[1] > 1), default=1)
    area = np.zeros((len(parts[0]), fewest, parts[0].shape[2]))
    for share, one in zip(shares, parts, strict=True):
        first = one[:, :fewest]
        apart = (first - first.mean(axis=1, keepdims=True)) * np.sqrt(fewest / one.shape[1])
        area += share * (one.mean(axis=1, keepdims=True) + apart)
    return area


def area_shares(percents: Sequence[int]) -> np.ndarray:
    """Give the weight of each budget in the area: trapezoids over log(percent), together 1; percents ascending."""
    steps = np.diff(np.log(percents))
    return np.asarray((np.append(steps, 0) + np.append(0, steps)) / 2 / steps.sum())


def label_equivalences(
    budgets: Mapping[int, Resampled], *, baseline: str, metrics: Sequence[str]
) -> dict[tuple[str, str, int], Estimate]:
    """Find the label equivalence of every arm but the baseline at every budget.

    The ends of the interval are quantiles of the resamples, taken further out than 2.5 % and 97.5 % by as much as
    Student's t is wider than the normal for the difference from the baseline at that budget (the expanded percentile
    interval, Hesterberg 2015, doi:10.1080/00031305.2015.1089789); a draw beyond the range counts as beyond it. What
    seeds add to the error of that difference moves the arm's whole curve, in each draw by another normal number.

    Args:
        budgets: see `area_under_curves`.
        baseline: the arm whose labels are counted.
        metrics: metrics of which more is better.

    Returns:
        (metric, arm, percent) -> the baseline's percent; value and ends are infinite beyond the range of the budgets.

    Raises:
        InputError: see `area_under_curves`; no such baseline.
    """
    ordered = _ordered(budgets)
    percents, parts = list(ordered), list(ordered.values())
    predictions = parts[0].predictions
    if baseline not in predictions.arms:
        raise InputError(f"no predictions of arm {baseline}; there are {', '.join(predictions.arms)}")
    found: dict[tuple[str, str, int], Estimate] = {}
    for metric in metrics:
        # (A, 1 + R, P): the test part itself and its resamples.
        curves = np.stack([np.column_stack([one.points[metric], one.draws[metric]]) for one in parts], axis=2)
        reason = no_interval(predictions, metric, parts[0].draws[metric])
        base = predictions.arms.index(baseline)
        theirs = curves[base]
        for number, (arm, ours) in enumerate(zip(predictions.arms, curves, strict=True)):
            if arm == baseline:
                continue
            if np.isnan(curves[:, 0]).any():
                found |= {(metric, arm, percent): Estimate(reason=reason) for percent in percents}
                continue
            moved, tails = ours.copy(), []
            if reason is None and not np.array_equal(ours, theirs):
                for column, one in enumerate(parts):
                    of_seeds, tail = _difference(one, metric, number, base)
                    moved[1:, column] += of_seeds * one.noise[number, : len(ours) - 1]
                    tails.append(tail)
            points, *draws = equal_percents(moved, theirs, percents)
            ordered_draws = np.sort(draws, axis=0)
            for column, percent in enumerate(percents):
                low = high = None
                if reason is None:
                    cut = int(tails[column] * len(draws)) if tails else 0
                    low, high = (float(ordered_draws[place, column]) for place in (cut, -1 - cut))
                found[metric, arm, percent] = Estimate(float(points[column]), low, high, reason)
    return found


def equal_percents(ours: np.ndarray, theirs: np.ndarray, percents: Sequence[int]) -> np.ndarray:
    """Find where the curves `theirs` (R, P) reach the values `ours` (R, P), without NaN, at P ascending budgets.

    Returns:
        (R, P) percents; -inf where even the smallest budget gives more, inf where not even the largest gives as much.
    """
    ours, theirs = isotonic(ours), isotonic(theirs)
    logs = np.log(percents)
    found = np.empty(ours.shape)
    for place, own in enumerate(logs):
        wanted = ours[:, place]
        # The curve has the value from `least` to `most`, one point where it rises.
        least = _crossing(theirs, wanted, np.argmax(theirs >= wanted[:, None] - SAME, axis=1), logs)
        within = np.sum(theirs <= wanted[:, None] + SAME, axis=1)
        most = _crossing(theirs, wanted, np.minimum(within, len(logs) - 1), logs)
        found[:, place] = np.exp(np.clip(own, least, np.maximum(least, most)))
        found[theirs[:, 0] > wanted + SAME, place] = -np.inf
        found[theirs[:, -1] < wanted - SAME, place] = np.inf
    return found


def isotonic(curves: np.ndarray) -> np.ndarray:
    """Make all curves nondecreasing at once: g_i = max over j <= i of min over k >= i of mean(y_j .. y_k).

    Scikit-learn's isotonic regression handles one curve at a time, too slow for 10,000 resamples per arm and metric.
    (R, P) float64 -> (R, P); a nondecreasing curve does not change.
    """
    points = curves.shape[1]
    means = np.full((points, points, len(curves)), np.nan)
    for first in range(points):
        for last in range(first, points):
            means[first, last] = curves[:, first : last + 1].mean(axis=1)
    return np.stack([means[: place + 1, place:].min(axis=1).max(axis=0) for place in range(points)], axis=1)


def _crossing(curves: np.ndarray, wanted: np.ndarray, above: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Find where the straight line from the budget below to budget `above` has the value: log(percent), (R,)."""
    rows, below = np.arange(len(curves)), np.maximum(above - 1, 0)
    rise = curves[rows, above] - curves[rows, below]
    share = np.divide(wanted - curves[rows, below], rise, out=np.ones_like(rise), where=rise > 0)
    # This form is exact at both ends; a + 1 * (b - a) may differ from b in its last bit.
    share = np.clip(share, 0, 1)
    return np.asarray((1 - share) * logs[below] + share * logs[above])


def _difference(one: Resampled, metric: str, arm: int, base: int) -> tuple[float, float]:
    """What seeds add to the error of two arms' difference, and the share of draws beyond each end of its interval.

    The expanded percentile interval goes as far out as Student's t, over the standard deviation of the draws.
    """
    values, cases = one.values[metric], len(one.predictions.names)
    errors = errors_of(one.predictions, metric, values[[arm]] - values[base], Pool.of(values, pairs=True))
    quantile = t_quantile(LEVEL, errors.freedom) * np.sqrt(cases / (cases - 1))
    return float(errors.seeds[0]), float(stats.norm.sf(quantile[0]))


def _ordered(budgets: Mapping[int, Resampled]) -> dict[int, Resampled]:
    """Sort budgets by percent and check that their test parts agree."""
    if len(budgets) < 2:
        raise InputError("a learning curve needs at least two label budgets: add to percents")
    ordered = dict(sorted(budgets.items()))
    (largest, whole), *others = reversed(ordered.items())
    for percent, one in others:
        ours, theirs = one.predictions, whole.predictions
        same = ours.arms == theirs.arms and ours.names == theirs.names and set(one.points) == set(whole.points)
        for name in ("cases", "classes"):
            same = same and np.array_equal(getattr(ours, name), getattr(theirs, name))
        if not same or any(one.draws[metric].shape != whole.draws[metric].shape for metric in whole.draws):
            raise InputError(
                f"budgets {percent} % and {largest} % do not have the same arms, test slices and resamples; "
                "run the finetune stage again for both"
            )
    return ordered
