"""The page's section on how the arms compare, by the analysis plan."""

from typing import Any

from kidney_ssl.report.cells import MISSING, Cell, Column, Table, label, number
from kidney_ssl.report.comparisons import NAMES, plan_hash
from kidney_ssl.report.study import Study

TITLES = {"baseline": "Every other arm against the baseline", "contrasts": "Contrasts of the analysis plan"}


def comparison_section(study: Study) -> dict[str, Any]:
    """Lay out the differences of each family, the primary figure first, and the plan that they follow."""
    plan = study.params["analysis"]
    rows = study.comparisons.get("differences", [])
    figures = sorted(NAMES, key=lambda name: name != plan["primary"])
    tables = []
    for family, title in TITLES.items():
        found = [row for name in figures for row in rows if (row["family"], row["metric"]) == (family, name)]
        if found:
            tables.append(Table(title, _columns(), [_row(row) for row in found]))
    return {"tables": tables, "plan": plan, "hash": plan_hash(plan), "primary": NAMES[plan["primary"]]}


def _columns() -> list[Column]:
    words = [Column(title, numeric=False) for title in ("arm", "against", "figure")]
    return [
        *words,
        Column("difference"),
        Column("interval, all at once"),
        Column("p"),
        Column("verdict", numeric=False),
    ]


def _row(row: dict[str, Any]) -> list[Cell]:
    why = row["reason"] or "not computed"
    low, high = row["simultaneous_low"], row["simultaneous_high"]
    interval = Cell(MISSING, note=why) if None in (low, high) else Cell(f"{low:+.3f} to {high:+.3f}", low)
    point = number(row["point"], reason=why)
    if row["point"] is not None:
        point = Cell(f"{row['point']:+.3f}", row["point"])
    words = [label(row["arm"]), label(row["against"]), label(NAMES[row["metric"]])]
    return [*words, point, interval, number(row["p"], reason=why), label(row["verdict"])]
