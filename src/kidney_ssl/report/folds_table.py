"""Metrics over the folds of a cross-validation as tables for people."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kidney_ssl.report.metric_tables import table_of
from kidney_ssl.report.names import WORDS, spoken
from kidney_ssl.report.rendering import markdown_table
from kidney_ssl.statistics.analysis_plan import NAMES


def folds_markdown(found: Mapping[str, Any], *, source: str, primary: str, classes: Mapping[str, str]) -> str:
    """Write the metrics over folds, as `statistics.cross_validation.over_folds` gives them, the primary one first.

    Args:
        found: metrics over folds.
        source: of the volumes.
        primary: metric of the analysis plan.
        classes: see `names.spoken`.
    """
    tested = [fold["test_cases"] for fold in found["folds"]]
    parts = [f"# Cross-validation on {source}: {len(tested)} folds, {sum(tested)} cases"]
    parts += ["The phantom says nothing about patients and ranks nothing about real CT."] * (source == "phantom")
    parts.append(WORDS["notes"]["folds"])
    parts.append(f"Test cases by fold: {', '.join(map(str, tested))}. {found['resamples']:,} resamples.")
    for name in sorted(NAMES, key=lambda name: (name != primary, list(NAMES).index(name))):
        arms = sorted(found["figures"].get(name, {}).items())
        table = table_of("folds", {arm: [{"": one, "difference": one.get("difference")}] for arm, one in arms})
        if table:
            caption = f"{NAMES[name]}; differences from {found['baseline']}"
            parts.append(markdown_table(replace(table, caption=caption)))
    return spoken("\n\n".join(parts), classes)
