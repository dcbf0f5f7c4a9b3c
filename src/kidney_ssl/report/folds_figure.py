"""Differences over the folds of a cross-validation as a forest plot in a file of its own, for documents."""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from kidney_ssl.metrics.over_seeds import budget_name
from kidney_ssl.report.charts import ForestRow, forest
from kidney_ssl.report.names import arm_name, in_sentence, spoken
from kidney_ssl.report.study import simultaneous
from kidney_ssl.statistics.analysis_plan import NAMES
from kidney_ssl.statistics.result import Estimate

WIDTH = 900


def folds_forest(
    found: Mapping[str, Any], percent: int, *, primary: str, margin: float, classes: Mapping[str, str]
) -> str:
    """Draw the primary metric's differences from the baseline at one label budget, as an SVG file.

    Args:
        found: see `statistics.cross_validation.over_folds`.
        percent: the label budget.
        primary: metric of the analysis plan.
        margin: the equivalence margin, a band in the plot.
        classes: see `names.spoken`.
    """
    every = [row for row in found["differences"] if (row["family"], row["metric"]) == ("baseline", primary)]
    rows = sorted((row for row in every if row["percent"] == percent), key=lambda row: -(row["point"] or 0))
    ends = [abs(row[end]) for row in every for end in ("point", "simultaneous_low", "simultaneous_high") if row[end]]
    values = found["figures"].get(budget_name(primary, percent), {})
    drawn = forest(
        f"folds{percent}",
        [
            ForestRow(arm_name(row["arm"]), simultaneous(row), row["verdict"], _mean(values.get(row["arm"], {})))
            for row in rows
        ],
        metric="AUROC" if primary.startswith("auroc") else NAMES[primary],
        baseline=in_sentence(arm_name(found["baseline"])),
        margin=margin,
        width=WIDTH,
        bound=1.05 * max([*ends, 2 * margin]),
    )
    sheet = files("kidney_ssl.report").joinpath("templates/page.css").read_text(encoding="utf-8")
    colours = re.findall(r"--[a-z]+: #[0-9a-f]+;", sheet[: sheet.index("}")])
    style = f"svg {{ {' '.join(colours)} background: var(--card); font-family: sans-serif; }}"
    head, _, rest = drawn.partition(">")
    return spoken(f"{head}><style>{style}</style>{rest}\n", classes)


def _mean(figure: Mapping[str, Any]) -> Estimate:
    return Estimate(figure.get("mean"), figure.get("low"), figure.get("high"), figure.get("reason"))
