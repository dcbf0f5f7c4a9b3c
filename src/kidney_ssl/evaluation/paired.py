"""A difference with its intervals, and what it shows by the rules of the analysis plan."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kidney_ssl.evaluation.bootstrap import CONSTANT, Resampled
from kidney_ssl.evaluation.differences import Pair, of_pairs


@dataclass(frozen=True)
class Paired:
    """Figure of `one` minus that of `other`, paired by case, with half widths of its intervals.

    Attributes:
        one: an arm, or a class.
        other: another.
        metric: the figure.
        point: the difference on the test part; None where there is none.
        own: half width of its own 95 % interval.
        narrow: of its own 90 % interval, held against the margin.
        joint: of the interval that holds all differences that were asked together at once with 95 %.
        reason: why something is None.
    """

    one: str
    other: str
    metric: str
    point: float | None
    own: float | None = None
    narrow: float | None = None
    joint: float | None = None
    reason: str | None = None

    def shows(self, margin: float) -> str:
        """Say what the difference shows.

        Returns:
            `equivalent`: the 90 % interval lies within the margin; else `above` or `below`: the own 95 % interval
            excludes 0; else `open`.
        """
        if self.point is None or self.own is None or self.narrow is None:
            return "open"
        if abs(self.point) + self.narrow < margin:
            return "equivalent"
        if self.point - self.own > 0:
            return "above"
        return "below" if self.point + self.own < 0 else "open"

    def shows_jointly(self, margin: float) -> str:
        """`shows`, with `above` and `below` by the interval that holds all differences at once."""
        found = self.shows(margin)
        if found in ("above", "below") and (self.point is None or self.joint is None or abs(self.point) <= self.joint):
            return "open"
        return found

    def within(self, low: float, high: float) -> bool:
        """Whether the own 90 % interval lies between two bounds: each side is a test at 5 %."""
        return (
            self.point is not None
            and self.narrow is not None
            and low < self.point - self.narrow
            and self.point + self.narrow < high
        )


def paired(drawn: Resampled, metric: str, pairs: Sequence[Pair]) -> list[Paired]:
    """Differences of pairs of arms in one figure, all asked together.

    Args:
        drawn: the arms on the same resamples, see `bootstrap.resample`.
        metric: one of its figures.
        pairs: pairs of its arms.
    """
    if not pairs:
        return []
    return with_widths(pairs, metric, *of_pairs(drawn, metric, pairs))


def with_widths(
    pairs: Sequence[Pair], metric: str, points: np.ndarray, widths: str | Sequence[np.ndarray]
) -> list[Paired]:
    """Differences with what `half_widths` found, None where it has none; or with the reason why there are none."""
    if isinstance(widths, str):
        known = [None if np.isnan(point) else float(point) for point in points]
        return [Paired(*pair, metric, point, reason=widths) for pair, point in zip(pairs, known, strict=True)]
    return [
        Paired(one, other, metric, float(point), reason=CONSTANT)
        if np.isnan(own)
        else Paired(one, other, metric, float(point), float(own), float(narrow), float(joint))
        for (one, other), point, own, narrow, joint in zip(pairs, points, *widths, strict=True)
    ]
