"""Tables whose columns are defined in columns.csv: label, group, path of the value, and format."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

from kidney_ssl.report.study import Study, interval
from kidney_ssl.report.table_cells import Cell, Column, Table, estimated, label, number, words
from kidney_ssl.statistics.result import Estimate

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@cache
def columns(table: str) -> list[dict[str, str]]:
    """Read the columns of a table; the last one is the caption, with the first column's name as its note."""
    with (files("kidney_ssl.report") / "columns.csv").open(encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["table"] == table]


def heads(rows: Sequence[Mapping[str, str]]) -> list[Column]:
    """Make the heads of columns."""
    return [
        Column(row["label"], row["form"] != "words", row["group"], row["note"], row["shown"] == "1") for row in rows
    ]


def by_arm(study: Study, block: str) -> dict[str, list[Any]]:
    """Every arm's metrics for each seed at the largest label budget, without arms that lack the block."""
    found: dict[str, list[Any]] = {}
    for run in study.runs:
        if run.percent == study.percents[0] and block in study.results[run]:
            found.setdefault(run.arm, []).append(study.results[run])
    return {arm: found[arm] for arm in study.params["arms"] if arm in found}


def inner(metrics: Any, path: Sequence[str]) -> Any:
    """The value at a path; None if there is none."""
    for key in path:
        metrics = (metrics or {}).get(key)
    return metrics


def mean(seeds: Sequence[Mapping[str, Any]], path: Sequence[str], reason: str = "not computed") -> Estimate:
    """Average a metric over the seeds, with its interval; if a seed lacks it, no value but the reason."""
    values = [inner(metrics, path) for metrics in seeds]
    if None in values:
        place = inner(seeds[values.index(None)], path[:-1]) or {}
        return Estimate(reason=str(place.get("reasons", {}).get(path[-1], reason)))
    return replace(interval(seeds[0], path), value=fmean(values))


def _cell(seeds: Sequence[Mapping[str, Any]], path: list[str], form: str, reason: str) -> Cell:
    if form in ("words", "list"):
        value = inner(seeds[0], path)
        if form == "list" and value:
            value = ", ".join("-" if one is None else f"{one:.3f}" for one in value)
        return number(None, reason=reason) if value is None else label(str(value).replace("_", " "))
    ranged = form in ("range", "interval")
    one = mean(seeds, [*path, "mean"] if ranged else path, reason)
    if form in ("whole", "significant"):
        return number(one.value, 0 if form == "whole" else None, reason=one.reason or "")
    if ranged:
        low, high = (mean(seeds, [*path, end]).value for end in ("low", "high"))
        one = Estimate(one.value, low, high, one.reason)
    return estimated(one, signed=form in ("signed", "range"))


def table_of(name: str, rows: Rows, reason: str = "not measured") -> Table | None:
    """Make a table of columns.csv: a row has a name and mappings, whose means fill the cells; None without rows."""
    *wanted, caption = columns(name)
    made = [
        [label(title), *(_cell(seeds, row["path"].split("/"), row["form"], reason) for row in wanted)]
        for title, seeds in rows.items()
    ]
    return Table(caption["label"], [*words(caption["note"]), *heads(wanted)], made) if made else None


def metric_table(study: Study, name: str, block: str | None = None) -> Table | None:
    """Make a table of the metrics of all arms that have the block, by default the first column's block."""
    arms = by_arm(study, block or columns(name)[0]["path"].partition("/")[0])
    return table_of(name, {study.title(arm): seeds for arm, seeds in arms.items()})
