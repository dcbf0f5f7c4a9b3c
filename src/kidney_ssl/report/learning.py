"""Learning curves over the label budgets as tables: metrics/learning.json and plots/learning.csv."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from kidney_ssl.evaluation.bootstrap import intervals
from kidney_ssl.evaluation.differences import differences
from kidney_ssl.evaluation.learning import area, equivalences
from kidney_ssl.report.comparisons import NAMES, Compared, rounded
from kidney_ssl.report.tables import Summary, budget_name, ends


def curve_figures(analysis: Mapping[str, Any]) -> list[str]:
    """Name the figures whose curves are drawn: the primary one, and accuracy."""
    return list(dict.fromkeys([analysis["primary"], "accuracy"]))


def learning(compared: Mapping[int, Compared], analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Compute areas under the learning curves, their differences, and label equivalences, ready for JSON.

    Args:
        compared: percent -> the arms at that budget.
        analysis: `analysis` of params.yaml; the differences of the areas follow it as those of a figure do.

    Returns:
        percents, areas, differences and equivalences, rounded; with one budget the reason alone.

    Raises:
        InputError: the budgets were not tested on the same slices.
    """
    if len(compared) < 2:
        return {"reason": "one label budget: a learning curve needs at least two percents"}
    figures = curve_figures(analysis)
    budgets = {percent: one.drawn for percent, one in compared.items()}
    areas = area(budgets, metrics=figures)
    differed = differences(
        areas,
        baseline=analysis["baseline"],
        contrasts=[(one, other) for one, other in analysis["contrasts"]],
        margin=analysis["margin"],
        swaps=analysis["resamples"],
        seed=analysis["seed"],
    )
    rows = [
        {"arm": arm, "metric": name, "area": one.point, "low": one.low, "high": one.high, "reason": one.reason}
        for arm, of_arm in intervals(areas).items()
        for name, one in of_arm.items()
    ]
    same = equivalences(budgets, baseline=analysis["baseline"], metrics=figures)
    return {
        "percents": sorted(compared),
        "areas": [rounded(row) for row in rows],
        "differences": [rounded(asdict(one)) for one in differed],
        "equivalences": [rounded(asdict(one)) for one in same],
    }


def long_learning(summary: Summary, percents: Sequence[int], analysis: Mapping[str, Any]) -> pd.DataFrame:
    """Put the points of the curves under each other: metric, arm, percent, value, low, high; unknown ones left out."""
    rows = [
        {"metric": name, "arm": arm, "percent": percent, "value": value}
        | {end: summary.get(budget_name(name, percent, end), {}).get(arm) for end in ("low", "high")}
        for name in curve_figures(analysis)
        for percent in sorted(percents)
        for arm, value in sorted(summary.get(budget_name(name, percent), {}).items())
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["metric", "arm", "percent", "value", "low", "high"])


def equal_words(row: Mapping[str, Any]) -> str:
    """Say a label equivalence, as "23.4 (9 to > 100)" percent; empty where there is none."""
    reasons = row["reasons"]
    if row["equals"] is None and "%" not in reasons["equals"]:
        return ""

    def words(end: str) -> str:
        if row[end] is not None:
            return f"{row[end]:.3g}"
        return str(reasons[end]).replace("more than", ">").replace("less than", "<").removesuffix(" %")

    bounded = row["low"] is not None or "%" in reasons["low"]
    return words("equals") + (f" ({words('low')} to {words('high')})" if bounded else "")


def learning_markdown(found: Mapping[str, Any], analysis: Mapping[str, Any]) -> str:
    """Write areas and label equivalences of the primary figure as a table for people; empty with one budget."""
    if "areas" not in found:
        return ""
    primary, baseline = analysis["primary"], analysis["baseline"]
    percents = found["percents"]
    equal = {(row["arm"], row["percent"]): row for row in found["equivalences"] if row["metric"] == primary}
    lines = [
        "",
        f"## Label budgets: {NAMES[primary]}",
        "",
        f"Area under the learning curve over log(percent), as a mean; then the percent of labels with which {baseline} "
        "has the figure that the arm has with its own. In brackets: 95 % intervals, by resampling test cases.",
        "",
        "| arm | area | " + " | ".join(f"with {percent} %" for percent in percents) + " |",
        "|---|---:|" + "---:|" * len(percents),
    ]
    for row in found["areas"]:
        if row["metric"] == primary:
            area_words = "-" if row["area"] is None else f"{row['area']:.3f}"
            area_words += ends(row["low"], row["high"])
            arm = row["arm"]
            cells = ["" if arm == baseline else equal_words(equal[arm, percent]) or "-" for percent in percents]
            lines.append(f"| {arm} | {area_words} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
