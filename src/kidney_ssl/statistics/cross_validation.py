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
from kidney_ssl.statistics.analysis_plan import NAMES
from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.bootstrap import Resampled, resample
from kidney_ssl.statistics.comparisons import Pair
from kidney_ssl.statistics.fold_means import comparisons_over_folds, intervals_over_folds
from kidney_ssl.statistics.resampling import METRICS
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


def over_folds(folds: Sequence[Fold], analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise every metric of every arm over the folds, and make the comparisons of the analysis plan.

    Args:
        folds: in the order of `data.fold`.
        analysis: `analysis` of params.yaml: baseline, contrasts, margin, resamples (of the test cases within each
            fold) and their seed.

    Returns:
        baseline, resamples, seeds (percent -> of each arm), folds (cases of each test part), and

        - figures: metric (at 25 % `<metric>_25`) -> arm -> values of the folds, mean, sd (with folds - 1), min, max,
          low, high, and `difference`, the same of metric - baseline's metric in the same fold. What cannot be computed
          is None, and `reason` says why;
        - differences: rows as of `comparisons.Comparison.row`, with the percent.

    Raises:
        InputError: see `assert_each_case_tested_once`.
    """
    assert_each_case_tested_once(folds)
    generator = np.random.default_rng(analysis["seed"])
    drawn = {
        percent: [
            resample(arms_of_tables(fold.tables[percent]), count=analysis["resamples"], seed=generator)
            for fold in folds
        ]
        for percent in sorted(folds[0].tables, reverse=True)
    }
    baseline, arms = analysis["baseline"], next(iter(drawn.values()))[0].predictions.arms
    families: dict[str, list[Pair]] = {
        "baseline": [(arm, baseline) for arm in arms if arm != baseline],
        "contrasts": [(one, other) for one, other in analysis["contrasts"] if baseline not in (one, other)],
    }
    resampled = {budget_name(metric, percent): (metric, percent) for metric in METRICS for percent in drawn}
    figures: dict[str, Any] = {}
    for name in sorted(set().union(*(fold.summary for fold in folds))):
        if not name.endswith(_BESIDE):
            metric, percent = resampled.get(name, (None, 100))
            figures[name] = _figures(folds, drawn[percent], name, metric, baseline)
    return {
        "baseline": baseline,
        "differences": [
            {"percent": percent} | as_json(one.row()) | {"family": family}
            for percent, of_folds in drawn.items()
            for metric in NAMES
            for family, pairs in families.items()
            for one in comparisons_over_folds(of_folds, metric, pairs, analysis["margin"])
        ],
        "figures": as_json(figures),
        "folds": [{"fold": number, "test_cases": len(fold.tested)} for number, fold in enumerate(folds)],
        "resamples": analysis["resamples"],
        "seeds": {str(percent): of_folds[0].seeds for percent, of_folds in drawn.items()},
    }


def _figures(
    folds: Sequence[Fold], drawn: Sequence[Resampled], name: str, metric: str | None, baseline: str
) -> dict[str, Any]:
    """A metric of the summary over folds, by arm; `metric` is its name in `METRICS`, None if it has no interval."""
    arms = drawn[0].predictions.arms
    alone: Sequence[Estimate | None] = [None] * len(arms)
    paired = alone
    if metric:
        own = np.eye(len(arms))
        alone = intervals_over_folds(drawn, metric, own, pairs=False)
        paired = intervals_over_folds(drawn, metric, own - own[arms.index(baseline)])
    values = {arm: [fold.summary.get(name, {}).get(arm) for fold in folds] for arm in arms}
    found = {}
    for arm, one, difference in zip(arms, alone, paired, strict=True):
        found[arm] = _spread(values[arm], one)
        if arm != baseline:
            pairs = zip(values[arm], values[baseline], strict=True)
            less = [None if mine is None or other is None else mine - other for mine, other in pairs]
            found[arm]["difference"] = _spread(less, difference)
    return found


def _spread(values: Sequence[float | None], interval: Estimate | None) -> dict[str, Any]:
    """Values of the folds with mean, standard deviation, least and greatest, and the ends of the mean's interval."""
    found: dict[str, Any] = {"values": list(values), **dict.fromkeys(("mean", "sd", "min", "max"))}
    if absent := [str(number) for number, value in enumerate(values) if value is None]:
        found["reason"] = f"no such metric in fold {', '.join(absent)}"
    else:
        known = np.array(values, dtype=np.float64)
        found |= {"mean": known.mean(), "sd": known.std(ddof=1), "min": known.min(), "max": known.max()}
    if interval:
        found |= {"low": interval.low, "high": interval.high}
        found |= {"reason": interval.reason} if interval.reason else {}
    return found
