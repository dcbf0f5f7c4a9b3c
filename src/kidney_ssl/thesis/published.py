"""The thesis's own results, which may only be compared with a run on KiTS23."""

import csv
from collections.abc import Collection
from importlib.resources import files


def published_figures() -> list[dict[str, str]]:
    """Read the thesis's table: arm, accuracy, f1."""
    with (files("kidney_ssl.thesis") / "published.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def published_metrics(arms: Collection[str]) -> dict[str, dict[str, float | None]]:
    """The thesis's results as metrics `accuracy_published` and `f1_published` of the arms that it has."""
    rows = [row for row in published_figures() if row["arm"] in arms]
    names = ("accuracy", "f1") if rows else ()
    return {f"{name}_published": {row["arm"]: float(row[name]) for row in rows} for name in names}
