"""Intervals, comparisons and learning curves of the arms as tables."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.evaluation.arms import arms_of_tables
from kidney_ssl.evaluation.bootstrap import Interval, Resampled, intervals, resample
from kidney_ssl.evaluation.differences import Difference, differences
from kidney_ssl.report.tables import DIGITS, Summary, budget_name

NAMES = {
    "auroc_against_kidney": "AUROC, tumor against kidney",
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "f1": "F1",
}


@dataclass(frozen=True)
class Compared:
    """The arms at one label budget.

    Attributes:
        drawn: their figures on the resamples of the test cases.
        intervals: arm -> figure -> interval.
        differences: the comparisons of the analysis plan.
    """

    drawn: Resampled
    intervals: dict[str, dict[str, Interval]]
    differences: list[Difference]


def compare(tables: Mapping[str, Sequence[pd.DataFrame]], analysis: Mapping[str, Any]) -> Compared:
    """Compute intervals of every figure at one label budget, and the comparisons of the analysis plan.

    The seed starts anew with each budget: the same cases are drawn and swapped at all of them. Intervals that hold at
    once do so over the arms of one budget and figure, not over budgets: the area under the learning curve is the one
    figure that judges an arm over all of them.

    Args:
        tables: arm -> predictions of each seed, see `evaluation.arms.arms_of_tables`.
        analysis: `analysis` of params.yaml.

    Raises:
        InputError: the arms were not tested on the same slices.
    """
    generator = np.random.default_rng(analysis["seed"])
    drawn = resample(arms_of_tables(tables), count=analysis["resamples"], seed=generator)
    found = differences(
        drawn,
        baseline=analysis["baseline"],
        contrasts=[(one, other) for one, other in analysis["contrasts"]],
        metrics=list(NAMES),
        margin=analysis["margin"],
        swaps=analysis["resamples"],
        seed=generator,
    )
    return Compared(drawn, intervals(drawn), found)


def add_intervals(summary: Summary, compared: Mapping[int, Compared]) -> Summary:
    """Lay intervals and differences beside the figures that they belong to.

    Args:
        summary: see `report.tables.summarise`.
        compared: percent -> the arms at that budget.

    Returns:
        The summary with `<figure>_low`, `<figure>_high`, and `<figure>_difference` from the baseline, of the arms that
        were compared with it; `<figure>_25_low` and so on at 25 %.
    """
    found = {name: dict(arms) for name, arms in summary.items()}

    def put(figure: str, percent: int, end: str, arm: str, value: float | None) -> None:
        if budget_name(figure, percent) in summary:
            known = None if value is None else round(value, DIGITS)
            found.setdefault(budget_name(figure, percent, end), {})[arm] = known

    for percent, of_budget in compared.items():
        for arm, figures in of_budget.intervals.items():
            for name, interval in figures.items():
                put(name, percent, "low", arm, interval.low)
                put(name, percent, "high", arm, interval.high)
        for one in of_budget.differences:
            if one.family == "baseline":
                put(one.metric, percent, "difference", one.arm, one.point)
    return found


def as_rows(compared: Mapping[int, Compared]) -> list[dict[str, Any]]:
    """Differences as plain values, rounded, for JSON; the largest budget first."""
    return [
        {"percent": percent} | rounded(asdict(one))
        for percent in sorted(compared, reverse=True)
        for one in compared[percent].differences
    ]


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Round the numbers of a row, for JSON."""
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in row.items()}


def plan_hash(analysis: Mapping[str, Any]) -> str:
    """First 12 hex digits of the sha256 of the analysis plan, keys sorted: shows whether it is the one announced."""
    return hashlib.sha256(json.dumps(analysis, sort_keys=True).encode()).hexdigest()[:12]


def comparisons_markdown(rows: Sequence[Mapping[str, Any]], analysis: Mapping[str, Any]) -> str:
    """Write the comparisons of the primary figure as a table for people; `rows` as `as_rows` gives them."""
    primary = analysis["primary"]
    shown = [row for row in rows if row["metric"] == primary]
    if not shown:
        return ""
    lines = [
        "",
        f"## Differences in {NAMES[primary]}",
        "",
        f"Analysis plan {plan_hash(analysis)}: baseline {analysis['baseline']}, margin {analysis['margin']:g}, "
        f"{analysis['resamples']:,} resamples of test cases. The interval holds all differences of its family "
        "and one budget at once with 95 %; p is of one comparison by itself.",
        "",
        "| labels | arm | against | difference | interval | p | verdict |",
        "|---:|---|---|---:|---|---:|---|",
    ]
    for row in shown:
        ends = [row["simultaneous_low"], row["simultaneous_high"]]
        interval = "-" if None in ends else f"{ends[0]:+.3f} to {ends[1]:+.3f}"
        point, p = (
            "-" if row[key] is None else form.format(row[key]) for key, form in (("point", "{:+.3f}"), ("p", "{:.3f}"))
        )
        lines.append(
            f"| {row['percent']} % | {row['arm']} | {row['against']} | {point} | {interval} | {p} | {row['verdict']} |"
        )
    return "\n".join(lines) + "\n"
