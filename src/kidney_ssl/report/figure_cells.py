"""Cells of figures that stand in the runs' own files: mean over seeds, or a dash with the file's reason."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from kidney_ssl.report.cells import MISSING, Cell, number
from kidney_ssl.report.study import Study


def figures_by_arm(study: Study, block: str) -> dict[str, list[dict[str, Any]]]:
    """Give one block of every arm's figures, a seed each, at the largest label budget; arms without it are left out."""
    percent = max(run.percent for run in study.runs)
    found: dict[str, list[dict[str, Any]]] = {}
    for run in study.runs:
        if run.percent == percent and block in study.results[run]:
            found.setdefault(run.arm, []).append(study.results[run][block])
    return {arm: found[arm] for arm in study.params["arms"] if arm in found}


def inner(figures: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Give the block that stands at a path."""
    for key in path:
        figures = figures[key]
    return figures


def figure(seeds: Sequence[dict[str, Any]], *path: str) -> tuple[float | None, str]:
    """Look a figure up: its mean over the seeds and "", or None and why it is missing in one of them."""
    values = []
    for figures in seeds:
        place = inner(figures, path[:-1])
        value = place[path[-1]]
        if value is None:
            return None, str(place.get("reasons", {}).get(path[-1], "not computed"))
        values.append(float(value))
    return fmean(values), ""


def figure_cell(seeds: Sequence[dict[str, Any]], *path: str, bar: bool = False, signed: bool = False) -> Cell:
    """Make a cell of a figure, see `figure`; `signed` figures are differences and show their sign."""
    value, reason = figure(seeds, *path)
    cell = number(value, reason=reason, bar=bar)
    return replace(cell, text=f"{value:+.3f}") if signed and value is not None else cell


def range_cell(seeds: Sequence[dict[str, Any]], *path: str) -> Cell:
    """Make a cell of the mean of a spread, with its low and high end, each a mean over the seeds."""
    (mean, reason), (low, _), (high, _) = (figure(seeds, *path, name) for name in ("mean", "low", "high"))
    if mean is None:
        return Cell(MISSING, note=reason)
    return Cell(f"{mean:+.3f} ({low:+.3f} to {high:+.3f})", mean)
