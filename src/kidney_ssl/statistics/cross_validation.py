"""Metrics over the folds of a cross-validation: every case is tested once, by networks that did not see it.

The folds share most of their training cases, so their metrics are not independent: standard deviation / sqrt(folds) is
not a standard error, and no unbiased estimate of it exists (Bengio and Grandvalet 2004). The interval resamples test
cases within each fold, crossed with seeds if there are at least two. It covers further cases and seeds on these folds,
but not the variation from other training cases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.errors import InputError
from kidney_ssl.metrics.over_seeds import budget_name
from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.bootstrap import (
    CONSTANT,
    LEVEL,
    SAME,
    Resampled,
    logit_interval,
    no_interval,
    resample,
    symmetric,
    t_quantile,
)
from kidney_ssl.statistics.crossed import Pool, standard_error, with_seeds
from kidney_ssl.statistics.resampling import METRICS, effective_cases
from kidney_ssl.statistics.result import Estimate, as_json

# Suffixes of derived values in a summary, which are computed anew over folds.
_BESIDE = ("_low", "_high", "_difference", "_spread", "_published")


@dataclass(frozen=True)
class Fold:
    """Results of one fold."""

    summary: Mapping[str, Mapping[str, float | None]]  # metric -> arm -> value, as metrics/summary.json has them
    cases: Mapping[str, str]  # every case of the study -> its split in this fold
    # percent -> arm -> predictions with that share of the labels, one table a seed, see `metrics.read_predictions`
    tables: Mapping[int, Mapping[str, Sequence[pd.DataFrame]]]

    @property
    def tested(self) -> set[str]:
        """The cases of the test part."""
        return {case for case, split in self.cases.items() if split == "test"}


def assert_each_case_tested_once(folds: Sequence[Fold]) -> None:
    """Refuse folds that do not test every case of the study exactly once.

    Raises:
        InputError: a case is tested twice or never, the folds have different cases, or there are predictions of a case
            that its fold does not test; the line names them.
    """
    again = "delete checkpoints/folds and run `make folds` again"
    for number, fold in enumerate(folds):
        if other := sorted(set(fold.cases) ^ set(folds[0].cases)):
            raise InputError(f"fold {number} and fold 0 are not of the same cases: {', '.join(other)}; {again}")
        predicted = {
            str(case)
            for of_budget in fold.tables.values()
            for several in of_budget.values()
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
    """Summarise every metric of every arm over the folds.

    Args:
        folds: in the order of `data.fold`.
        baseline: the arm that all others are compared with, fold by fold.
        resamples: number of resamples of the test cases within each fold.
        seed: seed of the resamples.

    Returns:
        baseline, seeds (percent -> of each arm), folds (cases of each test part), and figures: metric -> arm -> values of the
        folds, mean, sd (with folds - 1), min, max, low, high, and `difference`, the same of metric - baseline's metric
        in the same fold. What cannot be computed is None, and `reason` says why.

    Raises:
        InputError: see `assert_each_case_tested_once`.
    """
    assert_each_case_tested_once(folds)
    generator = np.random.default_rng(seed)
    drawn = {
        percent: [resample(arms_of_tables(fold.tables[percent]), count=resamples, seed=generator) for fold in folds]
        for percent in sorted(folds[0].tables, reverse=True)
    }
    with_interval = {budget_name(metric, percent): (metric, percent) for metric in METRICS for percent in drawn}
    metrics: dict[str, Any] = {}
    for name in sorted(set().union(*(fold.summary for fold in folds))):
        if name.endswith(_BESIDE):
            continue
        metric, percent = with_interval.get(name, (name, 100))
        values = {arm: [fold.summary.get(name, {}).get(arm) for fold in folds] for arm in folds[0].tables[percent]}
        metrics[name] = {arm: _over_folds(of_arm, drawn[percent], metric, arm) for arm, of_arm in values.items()}
        for arm, of_arm in values.items():
            if arm != baseline:
                pairs = zip(of_arm, values[baseline], strict=True)
                less = [None if one is None or other is None else one - other for one, other in pairs]
                metrics[name][arm]["difference"] = _over_folds(less, drawn[percent], metric, arm, baseline)
    return {
        "baseline": baseline,
        "figures": as_json(metrics),
        "folds": [{"fold": number, "test_cases": len(fold.tested)} for number, fold in enumerate(folds)],
        "resamples": resamples,
        "seeds": {str(percent): of_folds[0].seeds for percent, of_folds in drawn.items()},
    }


def _over_folds(values: Sequence[float | None], drawn: Sequence[Resampled], metric: str, *arms: str) -> dict[str, Any]:
    """Values of the folds with mean, standard deviation, least and greatest, and the ends of the mean's interval."""
    found: dict[str, Any] = {"values": list(values), **dict.fromkeys(("mean", "sd", "min", "max"))}
    if absent := [str(number) for number, value in enumerate(values) if value is None]:
        found["reason"] = f"no such metric in fold {', '.join(absent)}"
    else:
        known = np.array(values, dtype=np.float64)
        found |= {"mean": known.mean(), "sd": known.std(ddof=1), "min": known.min(), "max": known.max()}
    if metric in METRICS:
        one = _mean_over_folds(drawn, metric, *arms)
        found |= {"low": one.low, "high": one.high} | ({"reason": one.reason} if one.reason else {})
    return found


def _mean_over_folds(drawn: Sequence[Resampled], metric: str, arm: str, against: str | None = None) -> Estimate:
    """Mean over folds of an arm's metric, or of its difference from another arm's on the same resamples.

    The squared standard error over cases is the sum of the folds' squared errors / folds^2, since cases are resampled
    within folds. Student's t has the sum of the folds' degrees of freedom: the effective number of cases minus 1 for
    each fold. A seed counts by its mean over folds, since its effect may be the same in all of them. A metric's
    interval is computed on the logit scale, as for a single test part.
    """
    for number, one in enumerate(drawn):
        if reason := no_interval(one.predictions, metric, one.draws[metric]):
            return Estimate(reason=f"fold {number}: {reason}")

    def of_arm(values: np.ndarray) -> np.ndarray:
        arms = drawn[0].predictions.arms
        return np.asarray(values[arms.index(arm)] - (0 if against is None else values[arms.index(against)]))

    point = float(np.mean([of_arm(one.points[metric]) for one in drawn]))
    cases = [len(one.predictions.names) for one in drawn]
    errors = [standard_error(of_arm(one.draws[metric]), count) for one, count in zip(drawn, cases, strict=True)]
    of_cases = np.sqrt(np.sum(np.square(errors))) / len(drawn)
    if of_cases <= SAME or (against is None and point in (0, 1)):
        return Estimate(point, reason=CONSTANT)
    shortest = min(one.values[metric].shape[2] for one in drawn)
    values = np.mean([one.values[metric][..., :shortest] for one in drawn], axis=0)
    found = with_seeds(
        of_cases[None],
        of_arm(values)[None],
        cases=min(cases),
        freedom=max(sum(effective_cases(one.predictions, metric) - 1 for one in drawn), 1),
        pool=Pool.of(values, pairs=against is not None),
    )
    half = float((t_quantile(LEVEL, found.freedom) * found.both)[0])
    return Estimate(point, *logit_interval(point, half)) if against is None else symmetric(point, half)
