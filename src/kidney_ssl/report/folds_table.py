"""Figures over the folds of a cross-validation as tables for people."""

from collections.abc import Mapping
from typing import Any

from kidney_ssl.report.comparisons import NAMES
from kidney_ssl.report.tables import ends

CAVEAT = """\
Every case is tested once, in the fold that did not train on it. The folds share most of their training cases, so their
figures are not independent: the standard deviation says how much the folds differ, and divided by the root of their
number it is no standard error. The 95 % interval in brackets resamples test cases within each fold; it leaves out what
other training cases would change."""


def folds_markdown(found: Mapping[str, Any], *, source: str, primary: str) -> str:
    """Write the figures over folds, the primary one first.

    Args:
        found: see `evaluation.folds.over_folds`.
        source: `data.source` of the study.
        primary: `analysis.primary`.
    """
    tested = [fold["test_cases"] for fold in found["folds"]]
    lines = [
        f"# Cross-validation on {source}: {len(tested)} folds, {sum(tested)} cases",
        "",
        *(
            ["The phantom says nothing about patients and ranks nothing about real CT.", ""]
            if source == "phantom"
            else []
        ),
        CAVEAT,
        "",
        f"Test cases by fold: {', '.join(map(str, tested))}. {found['resamples']:,} resamples.",
    ]
    for name in sorted(NAMES, key=lambda name: (name != primary, list(NAMES).index(name))):
        if name in found["figures"]:
            lines += ["", f"## {NAMES[name]}", "", *_table(found["figures"][name], found["baseline"])]
    return "\n".join(lines) + "\n"


def _table(arms: Mapping[str, Any], baseline: str) -> list[str]:
    lines = [
        f"| arm | mean | sd | least | greatest | by fold | minus {baseline} | sd | by fold |",
        "|---|---:|---:|---:|---:|---|---:|---:|---|",
    ]
    for arm, one in sorted(arms.items()):
        cells = [_mean(one, ""), *(_cell(one[key]) for key in ("sd", "min", "max")), _values(one, "")]
        less = one.get("difference")
        cells += [_mean(less, "+"), _cell(less["sd"]), _values(less, "+")] if less else ["-"] * 3
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def _mean(one: Mapping[str, Any], sign: str) -> str:
    return _cell(one["mean"], sign) + ends(one.get("low"), one.get("high"), sign)


def _values(one: Mapping[str, Any], sign: str) -> str:
    return ", ".join(_cell(value, sign) for value in one["values"])


def _cell(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"
