"""The thesis's own numbers, which may only be read beside a run on KiTS23."""

import csv
from collections.abc import Collection
from importlib.resources import files


def published_figures() -> list[dict[str, str]]:
    """Read the thesis's table: arm, accuracy, f1."""
    with (files("kidney_ssl.thesis") / "published.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def published_metrics(arms: Collection[str]) -> dict[str, dict[str, float | None]]:
    """Give them as metrics of the summary, `accuracy_published` and `f1_published`, of the arms that the thesis had."""
    rows = [row for row in published_figures() if row["arm"] in arms]
    names = ("accuracy", "f1") if rows else ()
    return {f"{name}_published": {row["arm"]: float(row[name]) for row in rows} for name in names}
