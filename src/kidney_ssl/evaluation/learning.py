"""Learning curves over label budgets: the area under them, and how many labels the baseline needs for the same figure.

A curve is an arm's figure at each budget, against the logarithm of the percent of training cases that have labels.
All budgets are tested on the same cases and resampled alike, so every draw of the cases is a draw of whole curves.

- Area: integral over log(percent) by trapezoids, divided by the range of log(percent): a mean of the figure, in which
  halving the labels counts the same wherever it is done.
- Label equivalence: the percent at which the baseline's curve, straight between budgets, reaches the figure that an arm
  has with its own. Both curves are first made monotone, since more labels teach no less: isotonic regression, the
  nondecreasing curve nearest in squares, every budget alike. Where the baseline's is flat, the percent nearest to the
  arm's own is taken, the smallest claim. Outside the baseline's range there is no percent, only "more than" the largest
  or "less than" the smallest budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.arms import ArmPredictions
from kidney_ssl.evaluation.bootstrap import LEVEL, SAME, Resampled, no_interval, quantile_of_t


@dataclass(frozen=True)
class Equivalence:
    """With how many labels the baseline does what `arm` does with `percent`; None where there is no such percent.

    Attributes:
        arm: the arm.
        metric: the figure.
        percent: its budget, percent of the training cases.
        equals: the baseline's percent.
        low: lower end of the 95 % interval, by the resamples of the test cases.
        high: upper end.
        reasons: why one of the three is None: what is missing, or the bound that it lies beyond.
    """

    arm: str
    metric: str
    percent: int
    equals: float | None = None
    low: float | None = None
    high: float | None = None
    reasons: dict[str, str] = field(default_factory=dict)


def area(budgets: Mapping[int, Resampled], *, metrics: Sequence[str]) -> Resampled:
    """Take the area under each arm's curve as one more figure, with the same resamples.

    Args:
        budgets: percent -> figures of all arms, resampled alike; at least two.
        metrics: the figures whose curves are taken.

    Returns:
        Points and draws are areas; an arm's columns are the seeds of all its budgets, each with its share in the area.

    Raises:
        InputError: fewer than two budgets, or budgets that do not have the same test slices and arms.
    """
    ordered = _ordered(budgets)
    shares = area_shares(list(ordered))
    parts = list(ordered.values())
    first = parts[0].predictions
    columns = [np.full(one.predictions.probabilities.shape[1], share) for share, one in zip(shares, parts, strict=True)]
    together = replace(
        first,
        probabilities=np.concatenate([one.predictions.probabilities for one in parts], axis=1),
        shares=np.concatenate([each / len(each) for each in columns]),
    )

    def summed(kind: str, metric: str) -> np.ndarray:
        return np.asarray(sum(share * getattr(one, kind)[metric] for share, one in zip(shares, parts, strict=True)))

    return Resampled(
        together,
        points={metric: summed("points", metric) for metric in metrics},
        draws={metric: summed("draws", metric) for metric in metrics},
        undefined={metric: parts[0].undefined[metric] for metric in metrics},
    )


def area_shares(percents: Sequence[int]) -> np.ndarray:
    """Give the weight of each budget in the area: trapezoids over log(percent), together 1; percents ascending."""
    steps = np.diff(np.log(percents))
    return np.asarray((np.append(steps, 0) + np.append(0, steps)) / 2 / steps.sum())


def equivalences(budgets: Mapping[int, Resampled], *, baseline: str, metrics: Sequence[str]) -> list[Equivalence]:
    """Find the label equivalence of every arm but the baseline at every budget.

    The ends of the interval are quantiles of the resamples, taken further out than 2.5 % and 97.5 % by as much as
    Student's t is wider than the normal for the cases that carry the figure (the expanded percentile interval,
    Hesterberg 2015, doi:10.1080/00031305.2015.1089789); a draw beyond the range counts as beyond it.

    Args:
        budgets: see `area`.
        baseline: the arm whose labels are counted.
        metrics: figures of which more is better.

    Returns:
        By metric, arm and budget.

    Raises:
        InputError: see `area`; no such baseline.
    """
    ordered = _ordered(budgets)
    percents, parts = list(ordered), list(ordered.values())
    predictions = parts[0].predictions
    if baseline not in predictions.arms:
        raise InputError(f"no predictions of arm {baseline}; there are {', '.join(predictions.arms)}")
    place = predictions.arms.index(baseline)
    found = []
    for metric in metrics:
        # (A, 1 + R, P): the test part itself and its resamples.
        curves = np.stack([np.column_stack([one.points[metric], one.draws[metric]]) for one in parts], axis=2)
        reason = no_interval(parts[0], metric)
        tail = _tail(predictions, metric) if reason is None else 0.0
        for number, arm in enumerate(predictions.arms):
            if number == place:
                continue
            if np.isnan(curves[:, 0]).any():
                missing = dict.fromkeys(("equals", "low", "high"), reason or "no such figure")
                found += [Equivalence(arm, metric, percent, reasons=missing) for percent in percents]
                continue
            reached = equal_percents(curves[number], curves[place], percents)
            for column, percent in enumerate(percents):
                values = {"equals": reached[0, column]}
                if reason is None:
                    draws = np.sort(reached[1:, column])
                    cut = int(tail * len(draws))
                    values |= {"low": draws[cut], "high": draws[-1 - cut]}
                bounds = {-np.inf: f"less than {percents[0]} %", np.inf: f"more than {percents[-1]} %"}
                reasons = {name: bounds[float(value)] for name, value in values.items() if np.isinf(value)}
                if reason is not None:
                    reasons |= {"low": reason, "high": reason}
                finite = {name: float(value) for name, value in values.items() if np.isfinite(value)}
                found.append(Equivalence(arm, metric, percent, **finite, reasons=reasons))
    return found


def equal_percents(ours: np.ndarray, theirs: np.ndarray, percents: Sequence[int]) -> np.ndarray:
    """Find where the other curves reach the figures of these.

    Args:
        ours: (R, P) figures at the P budgets, without NaN.
        theirs: (R, P) figures of the curves that are to reach them.
        percents: (P,) the budgets, ascending.

    Returns:
        (R, P) percents; -inf where even the smallest budget gives more, inf where not even the largest gives as much.
    """
    ours, theirs = isotonic(ours), isotonic(theirs)
    logs = np.log(percents)
    found = np.empty(ours.shape)
    for place, own in enumerate(logs):
        wanted = ours[:, place]
        # The curve has the figure from `least` to `most`, one point where it rises.
        least = _crossing(theirs, wanted, np.argmax(theirs >= wanted[:, None] - SAME, axis=1), logs)
        within = np.sum(theirs <= wanted[:, None] + SAME, axis=1)
        most = _crossing(theirs, wanted, np.minimum(within, len(logs) - 1), logs)
        found[:, place] = np.exp(np.clip(own, least, np.maximum(least, most)))
        found[theirs[:, 0] > wanted + SAME, place] = -np.inf
        found[theirs[:, -1] < wanted - SAME, place] = np.inf
    return found


def isotonic(curves: np.ndarray) -> np.ndarray:
    """Make curves nondecreasing: g_i = max over j <= i of min over k >= i of mean(y_j .. y_k).

    Args:
        curves: (R, P) float64.

    Returns:
        (R, P); a curve that does not fall is unchanged.
    """
    points = curves.shape[1]
    means = np.full((points, points, len(curves)), np.nan)
    for first in range(points):
        for last in range(first, points):
            means[first, last] = curves[:, first : last + 1].mean(axis=1)
    return np.stack(
        [means[: place + 1, place:].min(axis=1).max(axis=0) for place in range(points)],
        axis=1,
    )


def _crossing(curves: np.ndarray, wanted: np.ndarray, above: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Find where the straight line from the budget below to budget `above` has the figure: log(percent), (R,)."""
    rows, below = np.arange(len(curves)), np.maximum(above - 1, 0)
    rise = curves[rows, above] - curves[rows, below]
    share = np.divide(wanted - curves[rows, below], rise, out=np.ones_like(rise), where=rise > 0)
    # Both ends exactly: a + 1 * (b - a) may miss b by its last bit.
    share = np.clip(share, 0, 1)
    return np.asarray((1 - share) * logs[below] + share * logs[above])


def _tail(predictions: ArmPredictions, metric: str) -> float:
    """Share of draws beyond each end of the expanded percentile interval."""
    cases = len(predictions.names)
    return float(stats.norm.sf(quantile_of_t(LEVEL, predictions, metric) * np.sqrt(cases / (cases - 1))))


def _ordered(budgets: Mapping[int, Resampled]) -> dict[int, Resampled]:
    """Sort budgets by percent and hold their test parts against each other."""
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
