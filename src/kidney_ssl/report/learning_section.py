"""The page's section on the label budgets: learning curves, the areas under them, label equivalences."""

from dataclasses import replace
from typing import Any

from kidney_ssl.report.cells import MISSING, Cell, Column, Table, label, number
from kidney_ssl.report.comparison_section import difference_table
from kidney_ssl.report.comparisons import NAMES
from kidney_ssl.report.figures import Axis, Panel, panels
from kidney_ssl.report.learning import curve_figures, equal_words
from kidney_ssl.report.results_section import baseline
from kidney_ssl.report.study import Study
from kidney_ssl.report.tables import budget_name, ends


def learning_section(study: Study) -> dict[str, Any]:
    """Lay out curves and tables of the primary figure and of accuracy; the reason alone where there is one budget."""
    found = study.learning
    if "areas" not in found:
        return {"figures": [], "reason": found.get("reason", "metrics/learning.json is not on this machine")}
    figures = [
        {
            "name": NAMES[name],
            "charts": _charts(study, name),
            "tables": [_areas(study, name), *_differences(study, name), _equivalences(study, name)],
        }
        for name in curve_figures(study.params["analysis"])
    ]
    return {"figures": figures, "reason": "", "baseline": baseline(study)}


def _charts(study: Study, name: str) -> list[Panel]:
    """A panel an arm: the figure at each budget with its interval, the baseline's curve dashed."""
    percents = sorted(study.percents)
    lines: dict[str, list[tuple[float, float]]] = {}
    intervals: dict[str, list[tuple[float, float, float]]] = {}
    for arm in study.params["arms"]:
        lines[arm], intervals[arm] = [], []
        for percent in percents:
            value, low, high = (
                study.summary.get(budget_name(name, percent, end), {}).get(arm) for end in ("", "low", "high")
            )
            if value is not None:
                lines[arm].append((percent, value))
            if low is not None and high is not None:
                intervals[arm].append((percent, low, high))
    values = [value for line in lines.values() for _, value in line]
    values += [end for rows in intervals.values() for _, *ends in rows for end in ends]
    edge = (percents[-1] / percents[0]) ** 0.03  # room for the outer ticks
    x = Axis("percent of the training cases", percents[0] / edge, percents[-1] * edge, tuple(percents), log=True)
    areas = {row["arm"]: row["area"] for row in study.learning["areas"] if row["metric"] == name}
    return panels(
        f"learning_{name}",
        {arm: [line] for arm, line in lines.items()},
        x,
        _up_to_one(Axis.over(NAMES[name], values)),
        notes={arm: f"area {number(value).text}" for arm, value in areas.items()},
        intervals=intervals,
        reference=lines[baseline(study)],
    )


def _up_to_one(axis: Axis) -> Axis:
    """End an axis of shares at 1, where round ticks would go on."""
    return replace(axis, high=min(axis.high, 1.0), ticks=tuple(tick for tick in axis.ticks if tick <= 1))


def _areas(study: Study, name: str) -> Table:
    rows = []
    for row in study.learning["areas"]:
        if row["metric"] == name:
            cell = number(row["area"], reason=row["reason"] or "")
            cell = replace(cell, text=cell.text + ends(row["low"], row["high"]))
            rows.append([label(study.title(row["arm"])), cell])
    columns = [Column("arm", numeric=False), Column("area", note="mean of the figure over log(percent)")]
    return Table(f"Area under the learning curve: {NAMES[name]}", columns, rows)


def _differences(study: Study, name: str) -> list[Table]:
    rows = [row for row in study.learning["differences"] if row["metric"] == name]
    return [difference_table(study, f"Areas against each other: {NAMES[name]}", rows)] if rows else []


def _equivalences(study: Study, name: str) -> Table:
    """A row an arm, a column a budget: the baseline's percent for the same figure."""
    found = {(row["arm"], row["percent"]): row for row in study.learning["equivalences"] if row["metric"] == name}
    percents = sorted(study.percents)
    rows = [
        [label(study.title(arm)), *(_equal(found[arm, percent]) for percent in percents)]
        for arm in study.params["arms"]
        if arm != baseline(study)
    ]
    columns = [Column("arm", numeric=False), *(Column(f"with {percent} %") for percent in percents)]
    caption = f"Percent of the labels with which {baseline(study)} has the same {NAMES[name]} as an arm"
    return Table(caption, columns, rows)


def _equal(row: dict[str, Any]) -> Cell:
    text, why = equal_words(row), row["reasons"].get("equals", "")
    if not text:
        return Cell(MISSING, note=why)
    return Cell(text, row["equals"] if row["equals"] is not None else 1000.0 if why.startswith("more") else 0.0)
