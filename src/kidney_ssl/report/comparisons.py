"""Intervals and comparisons of the arms as tables."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.evaluation.arms import arms_of_tables
from kidney_ssl.evaluation.bootstrap import Interval, intervals, resample
from kidney_ssl.evaluation.differences import Difference, differences
from kidney_ssl.report.tables import DIGITS, Summary

NAMES = {
    "auroc_against_kidney": "AUROC, tumor against kidney",
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "f1": "F1",
}


def compare(
    tables: Mapping[str, Sequence[pd.DataFrame]], analysis: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Interval]], list[Difference]]:
    """Compute intervals of every figure, and the comparisons of the analysis plan.

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
    return intervals(drawn), found


def add_intervals(
    summary: Summary, of_arms: Mapping[str, Mapping[str, Interval]], differenced: Sequence[Difference]
) -> Summary:
    """Lay intervals and differences beside the figures that they belong to.

    Args:
        summary: see `report.tables.summarise`.
        of_arms: arm -> figure -> interval, of all the training cases.
        differenced: the arms against each other.

    Returns:
        The summary with `<figure>_low`, `<figure>_high`, and `<figure>_difference` from the baseline, of the arms that
        were compared with it.
    """
    found = {name: dict(arms) for name, arms in summary.items()}
    for arm, figures in of_arms.items():
        for name, interval in figures.items():
            if name in summary:
                found.setdefault(f"{name}_low", {})[arm] = _rounded(interval.low)
                found.setdefault(f"{name}_high", {})[arm] = _rounded(interval.high)
    for one in differenced:
        if one.family == "baseline" and one.metric in summary:
            found.setdefault(f"{one.metric}_difference", {})[one.arm] = _rounded(one.point)
    return found


def as_rows(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """Differences as plain values, rounded, for JSON."""
    return [
        {key: _rounded(value) if isinstance(value, float) else value for key, value in asdict(one).items()}
        for one in found
    ]


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
        f"{analysis['resamples']:,} resamples of test cases. The interval holds all differences of its family at once "
        "with 95 %; p is of one comparison by itself.",
        "",
        "| arm | against | difference | interval | p | verdict |",
        "|---|---|---:|---|---:|---|",
    ]
    for row in shown:
        ends = [row["simultaneous_low"], row["simultaneous_high"]]
        interval = "-" if None in ends else f"{ends[0]:+.3f} to {ends[1]:+.3f}"
        point, p = (
            "-" if row[key] is None else form.format(row[key]) for key, form in (("point", "{:+.3f}"), ("p", "{:.3f}"))
        )
        lines.append(f"| {row['arm']} | {row['against']} | {point} | {interval} | {p} | {row['verdict']} |")
    return "\n".join(lines) + "\n"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
