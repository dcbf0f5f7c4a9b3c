"""The page's section on how the arms compare, by the analysis plan."""

from collections.abc import Sequence
from typing import Any

from kidney_ssl.report.cells import MISSING, Cell, Column, Table, label, number
from kidney_ssl.report.comparisons import NAMES, plan_hash
from kidney_ssl.report.study import Study

TITLES = {"baseline": "Every other arm against the baseline", "contrasts": "Contrasts of the analysis plan"}


def comparison_section(study: Study) -> dict[str, Any]:
    """Lay out the differences of each budget and family, the primary figure first, and the plan that they follow."""
    plan = study.params["analysis"]
    rows = study.comparisons.get("differences", [])
    figures = sorted(NAMES, key=lambda name: name != plan["primary"])
    budgets: dict[int, list[Table]] = {}
    for percent in study.percents:
        for family, title in TITLES.items():
            wanted = [(percent, family, name) for name in figures]
            found = [row for one in wanted for row in rows if (row["percent"], row["family"], row["metric"]) == one]
            if found:
                caption = title if len(study.percents) == 1 else f"{title}, {percent} % of the training cases"
                budgets.setdefault(percent, []).append(difference_table(study, caption, found))
    return {"tables": budgets, "plan": plan, "hash": plan_hash(plan), "primary": NAMES[plan["primary"]]}


def difference_table(study: Study, caption: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Lay out differences as `comparisons.as_rows` gives them."""
    words = [Column(title, numeric=False) for title in ("arm", "against", "figure")]
    numbers = [Column(title) for title in ("difference", "interval, all at once", "p")]
    return Table(caption, [*words, *numbers, Column("verdict", numeric=False)], [_row(study, row) for row in rows])


def _row(study: Study, row: dict[str, Any]) -> list[Cell]:
    why = row["reason"] or "not computed"
    low, high = row["simultaneous_low"], row["simultaneous_high"]
    interval = Cell(MISSING, note=why) if None in (low, high) else Cell(f"{low:+.3f} to {high:+.3f}", low)
    point = number(row["point"], reason=why)
    if row["point"] is not None:
        point = Cell(f"{row['point']:+.3f}", row["point"])
    words = [label(study.title(row["arm"])), label(study.title(row["against"])), label(NAMES[row["metric"]])]
    return [*words, point, interval, number(row["p"], reason=why), label(row["verdict"])]
