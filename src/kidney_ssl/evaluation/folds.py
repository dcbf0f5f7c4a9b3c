"""Figures over the folds of a cross-validation: every case is tested once, by networks that did not see it.

The folds share most of their training cases, so their figures are not independent: standard deviation / sqrt(folds) is
no standard error, and none is given (Bengio and Grandvalet 2004: no unbiased estimate of it exists). The interval
resamples test cases within each fold. It says how the mean over these networks may differ on further cases, and leaves
out what other training cases would change.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.arms import arms_of_tables
from kidney_ssl.evaluation.bootstrap import (
    CONSTANT,
    LEVEL,
    SAME,
    Resampled,
    logit_interval,
    no_interval,
    resample,
    spread,
)
from kidney_ssl.evaluation.missing import DIGITS
from kidney_ssl.evaluation.weighted import METRICS, effective_cases

# What stands in a summary beside a figure of an arm; over folds they are computed anew.
_BESIDE = ("_low", "_high", "_difference", "_spread", "_published")


@dataclass(frozen=True)
class Fold:
    """What one fold left.

    Attributes:
        summary: figure -> arm -> value, as metrics/summary.json has them.
        cases: every case of the study -> its split in this fold.
        tables: arm -> predictions with all the labels, one table a seed, see `metrics.read_predictions`.
    """

    summary: Mapping[str, Mapping[str, float | None]]
    cases: Mapping[str, str]
    tables: Mapping[str, Sequence[pd.DataFrame]]

    @property
    def tested(self) -> set[str]:
        """The cases of the test part."""
        return {case for case, split in self.cases.items() if split == "test"}


def assert_each_case_tested_once(folds: Sequence[Fold]) -> None:
    """Refuse folds that do not test every case of the study exactly once.

    Raises:
        InputError: a case is tested twice or never, the folds are not of the same cases, or predictions are of a case
            that its fold does not test; the line names them.
    """
    again = "delete checkpoints/folds and run `make folds` again"
    for number, fold in enumerate(folds):
        if other := sorted(set(fold.cases) ^ set(folds[0].cases)):
            raise InputError(f"fold {number} and fold 0 are not of the same cases: {', '.join(other)}; {again}")
        predicted = {
            str(case)
            for several in fold.tables.values()
            for table in several
            for case in table.loc[table["part"] == "test", "case"]
        }
        if strange := sorted(predicted - fold.tested):
            raise InputError(
                f"fold {number}: predictions of cases that it does not test: {', '.join(strange)}; {again}"
            )
    times = pd.Series([case for fold in folds for case in fold.tested]).value_counts()
    if twice := sorted(times.index[times > 1]):
        raise InputError(f"tested in two folds: {', '.join(twice)}; {again}")
    if never := sorted(set(folds[0].cases) - set(times.index)):
        raise InputError(f"tested in no fold: {', '.join(never)}; {again}")


def over_folds(folds: Sequence[Fold], *, baseline: str, resamples: int, seed: int) -> dict[str, Any]:
    """Summarise every figure of every arm over the folds.

    Args:
        folds: in the order of `data.fold`.
        baseline: the arm that all others are compared with, fold by fold.
        resamples: of the test cases, within each fold.
        seed: decides them.

    Returns:
        baseline, folds (cases of each test part), and figures: figure -> arm -> see `_spread_of`, and `difference`, the
        same of figure - baseline's figure in the same fold. Numbers have `DIGITS` decimals; what cannot be computed is
        None, and `reason` says why.

    Raises:
        InputError: see `assert_each_case_tested_once`.
    """
    assert_each_case_tested_once(folds)
    generator = np.random.default_rng(seed)
    drawn = [resample(arms_of_tables(fold.tables), count=resamples, seed=generator) for fold in folds]
    figures: dict[str, Any] = {}
    for name in sorted(set().union(*(fold.summary for fold in folds))):
        if name.endswith(_BESIDE):
            continue
        values = {arm: [_value(fold, name, arm) for fold in folds] for arm in folds[0].tables}
        figures[name] = {}
        for arm, of_arm in values.items():
            interval = _interval(drawn, name, arm) if name in METRICS else {}
            figures[name][arm] = _spread_of(of_arm) | interval
            if arm != baseline:
                pairs = zip(of_arm, values[baseline], strict=True)
                less = [None if one is None or other is None else one - other for one, other in pairs]
                interval = _difference_interval(drawn, name, arm, baseline) if name in METRICS else {}
                figures[name][arm]["difference"] = _spread_of(less) | interval
    return {
        "baseline": baseline,
        "figures": figures,
        "folds": [{"fold": number, "test_cases": len(fold.tested)} for number, fold in enumerate(folds)],
        "resamples": resamples,
    }


def _value(fold: Fold, figure: str, arm: str) -> float | None:
    return fold.summary.get(figure, {}).get(arm)


def _spread_of(values: Sequence[float | None]) -> dict[str, Any]:
    """Values of the folds, their mean, standard deviation (with folds - 1), least and greatest."""
    absent = [str(number) for number, value in enumerate(values) if value is None]
    if absent:
        empty = dict.fromkeys(("mean", "sd", "min", "max"))
        return {"values": _rounded(values), **empty, "reason": f"no such figure in fold {', '.join(absent)}"}
    known = np.array(values, dtype=np.float64)
    sizes = {"mean": known.mean(), "sd": known.std(ddof=1), "min": known.min(), "max": known.max()}
    return {"values": _rounded(values)} | {name: round(float(value), DIGITS) for name, value in sizes.items()}


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, DIGITS) for value in values]


def _interval(drawn: Sequence[Resampled], metric: str, arm: str) -> dict[str, Any]:
    """95 % interval of the mean over folds, on the logit scale as for a single test part."""
    if not _reasons(drawn, metric) and _mean(drawn, metric, arm) in (0, 1):
        return {"low": None, "high": None, "reason": CONSTANT}
    return _ends(drawn, metric, lambda values, arms: values[arms.index(arm)], logit_interval)


def _difference_interval(drawn: Sequence[Resampled], metric: str, arm: str, baseline: str) -> dict[str, Any]:
    """95 % interval of the mean difference: both arms on the same resamples."""

    def less(values: np.ndarray, arms: tuple[str, ...]) -> np.ndarray:
        return np.asarray(values[arms.index(arm)] - values[arms.index(baseline)])

    def ends(point: float, deviation: float, quantile: float) -> tuple[float, float]:
        return point - quantile * deviation, point + quantile * deviation

    return _ends(drawn, metric, less, ends)


def _ends(
    drawn: Sequence[Resampled],
    metric: str,
    pick: Callable[[np.ndarray, tuple[str, ...]], np.ndarray],
    ends: Callable[[float, float, float], tuple[float, float]],
) -> dict[str, Any]:
    """Ends of an interval: s^2 = sum over folds of s_fold^2 / folds^2, since cases are drawn within folds.

    Student's t has as many degrees of freedom as the folds have together: the cases that carry the figure, less one a
    fold.
    """
    if reasons := _reasons(drawn, metric):
        return {"low": None, "high": None, "reason": reasons[0]}
    points = [float(pick(one.points[metric], one.predictions.arms)) for one in drawn]
    squares = [float(spread(pick(one.draws[metric], one.predictions.arms), one)) ** 2 for one in drawn]
    deviation = float(np.sqrt(np.sum(squares))) / len(drawn)
    if deviation <= SAME:
        return {"low": None, "high": None, "reason": CONSTANT}
    freedom = sum(effective_cases(one.predictions, metric) - 1 for one in drawn)
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, max(freedom, 1)))
    low, high = ends(float(np.mean(points)), deviation, quantile)
    return {"low": round(low, DIGITS), "high": round(high, DIGITS)}


def _reasons(drawn: Sequence[Resampled], metric: str) -> list[str]:
    """Why there is no interval, for each fold that has none."""
    found = [(number, no_interval(one, metric)) for number, one in enumerate(drawn)]
    return [f"fold {number}: {reason}" for number, reason in found if reason]


def _mean(drawn: Sequence[Resampled], metric: str, arm: str) -> float:
    return float(np.mean([one.points[metric][one.predictions.arms.index(arm)] for one in drawn]))
