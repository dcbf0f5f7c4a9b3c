"""Curves and metrics of all arms in long tables for DVC's plots: plots/*.csv."""

from collections.abc import Mapping, Sequence

import pandas as pd

from kidney_ssl.metrics.over_seeds import Run, Summary, budget_name


def long_curves(curves: Mapping[Run, pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the training curves of all runs: arm, percent, seed and the curves' columns."""
    tables = []
    for run, table in sorted(curves.items()):
        tables.append(table.assign(arm=run.arm, percent=run.percent, seed=run.seed))
    together = pd.concat(tables, ignore_index=True)
    first = ["arm", "percent", "seed"]
    return together[first + [name for name in together.columns if name not in first]]


def long_metrics(means: Summary, summary: Summary) -> pd.DataFrame:
    """Make a long table of metrics: metric, arm, value, low, high; missing values are left out, missing ends empty.

    Args:
        means: metric -> arm -> value.
        summary: the same with intervals, see `kidney_ssl.statistics.analysis_plan.add_intervals`.
    """
    rows = [
        {"metric": metric, "arm": arm, "value": value}
        | {end: summary.get(f"{metric}_{end}", {}).get(arm) for end in ("low", "high")}
        for metric, arms in sorted(means.items())
        for arm, value in sorted(arms.items())
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["metric", "arm", "value", "low", "high"])


def long_learning(summary: Summary, percents: Sequence[int], metrics: Sequence[str]) -> pd.DataFrame:
    """Make a long table of learning curves: metric, arm, percent, value, low, high; missing values are left out."""
    rows = [
        {"metric": name, "arm": arm, "percent": percent, "value": value}
        | {end: summary.get(budget_name(name, percent, end), {}).get(arm) for end in ("low", "high")}
        for name in metrics
        for percent in sorted(percents)
        for arm, value in sorted(summary.get(budget_name(name, percent), {}).items())
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["metric", "arm", "percent", "value", "low", "high"])
