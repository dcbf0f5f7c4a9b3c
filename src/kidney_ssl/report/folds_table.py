"""Metrics over the folds of a cross-validation as tables for people."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kidney_ssl.metrics.over_seeds import budget_name
from kidney_ssl.report.metric_tables import table_of
from kidney_ssl.report.names import WORDS, arm_name, in_sentence, spoken
from kidney_ssl.report.rendering import markdown_table
from kidney_ssl.report.study import simultaneous
from kidney_ssl.report.table_cells import Column, Table, estimated, label, words
from kidney_ssl.statistics.analysis_plan import NAMES


def folds_markdown(found: Mapping[str, Any], *, source: str, primary: str, classes: Mapping[str, str]) -> str:
    """Write the metrics over folds, the primary one and its comparisons first, the largest label budget first.

    Args:
        found: metrics over folds, see `statistics.cross_validation.over_folds`.
        source: of the volumes.
        primary: metric of the analysis plan.
        classes: see `names.spoken`.
    """
    tested = [fold["test_cases"] for fold in found["folds"]]
    percents = sorted(map(int, found["seeds"]), reverse=True)
    parts = [f"# Cross-validation on {source}: {len(tested)} folds, {sum(tested)} cases"]
    parts += ["The phantom says nothing about patients and ranks nothing about real CT."] * (source == "phantom")
    parts.append(WORDS["notes"]["folds"])
    parts.append(f"Test cases by fold: {', '.join(map(str, tested))}. {found['resamples']:,} resamples.")
    baseline = in_sentence(arm_name(found["baseline"]))
    for metric in sorted(NAMES, key=lambda name: (name != primary, list(NAMES).index(name))):
        for percent in percents:
            budget = f", {percent} % of the training cases" if len(percents) > 1 else ""
            arms = sorted(found["figures"].get(budget_name(metric, percent), {}).items())
            rows = {arm_name(arm): [{"": one, "difference": one.get("difference")}] for arm, one in arms}
            if table := table_of("folds", rows):
                caption = f"{NAMES[metric]}{budget}; differences from {baseline}"
                parts.append(markdown_table(replace(table, caption=caption)))
            if metric == primary:
                parts += [markdown_table(one) for one in _differences(found, metric, percent, budget)]
    return spoken("\n\n".join(parts), classes)


def _differences(found: Mapping[str, Any], metric: str, percent: int, budget: str) -> Sequence[Table]:
    """The comparisons of each family that has some, with simultaneous intervals and verdicts."""
    tables = []
    for family, title in WORDS["families"].items():
        rows = [
            [
                label(arm_name(row["arm"])),
                label(arm_name(row["against"])),
                estimated(simultaneous(row), signed=True),
                label(row["verdict"]),
            ]
            for row in found["differences"]
            if (row["family"], row["metric"], row["percent"]) == (family, metric, percent)
        ]
        heads = [*words("arm", "against"), Column("difference (interval, all at once)"), *words("verdict")]
        tables += [Table(f"{title}: {NAMES[metric]}{budget}", heads, rows)] if rows else []
    return tables
