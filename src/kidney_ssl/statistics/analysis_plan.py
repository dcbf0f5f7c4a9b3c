"""The analysis plan carried out: intervals, comparisons and learning curves of all arms, ready for JSON."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.metrics.over_seeds import Summary, budget_name
from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.bootstrap import Resampled, intervals, resample
from kidney_ssl.statistics.comparisons import TOO_FEW, Comparison, planned_comparisons
from kidney_ssl.statistics.learning_curves import area_under_curves, label_equivalences
from kidney_ssl.statistics.result import Estimate, as_json

NAMES = {
    "auroc_against_kidney": "AUROC, tumor against kidney",
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "f1": "F1",
}


VERDICTS = ("better", "worse", "equivalent", "undecided", TOO_FEW)


@dataclass(frozen=True)
class Compared:
    """The arms at one label budget.

    Attributes:
        drawn: their metrics on the resamples of the test cases.
        intervals: arm -> metric -> estimate.
        differences: the comparisons of the analysis plan.
    """

    drawn: Resampled
    intervals: dict[str, dict[str, Estimate]]
    differences: list[Comparison]


def compare(tables: Mapping[str, Sequence[pd.DataFrame]], analysis: Mapping[str, Any]) -> Compared:
    """Compute intervals of every metric at one label budget, and the comparisons of the analysis plan.

    Every budget uses the same seed, so the same cases are drawn and swapped. Simultaneous intervals hold over the arms
    of one budget and metric, not over budgets; the area under the learning curve compares arms over all budgets.

    Args:
        tables: arm -> predictions of each seed, see `statistics.arms.arms_of_tables`.
        analysis: `analysis` of params.yaml.

    Raises:
        InputError: the arms were not tested on the same slices.
    """
    generator = np.random.default_rng(analysis["seed"])
    drawn = resample(arms_of_tables(tables), count=analysis["resamples"], seed=generator)
    found = planned_comparisons(
        drawn,
        baseline=analysis["baseline"],
        contrasts=[(one, other) for one, other in analysis["contrasts"]],
        metrics=list(NAMES),
        margin=analysis["margin"],
        swaps=analysis["resamples"],
        seed=generator,
    )
    return Compared(drawn, intervals(drawn), found)


def add_intervals(summary: Summary, compared: Mapping[int, Compared]) -> Summary:
    """Add intervals and differences to the summary.

    Args:
        summary: see `metrics.over_seeds.means`.
        compared: percent -> the arms at that budget.

    Returns:
        The summary with `<metric>_low`, `<metric>_high`, and, for arms compared with the baseline,
        `<metric>_difference` from it; `<metric>_25_low` and so on at 25 %.
    """
    found = {name: dict(arms) for name, arms in summary.items()}

    def put(metric: str, percent: int, end: str, arm: str, value: float | None) -> None:
        if budget_name(metric, percent) in summary:
            found.setdefault(budget_name(metric, percent, end), {})[arm] = as_json(value)

    for percent, of_budget in compared.items():
        for arm, estimates in of_budget.intervals.items():
            for name, one in estimates.items():
                put(name, percent, "low", arm, one.low)
                put(name, percent, "high", arm, one.high)
        for comparison in of_budget.differences:
            if comparison.family == "baseline":
                put(comparison.metric, percent, "difference", comparison.arm, comparison.difference.value)
    return found


def as_rows(compared: Mapping[int, Compared]) -> list[dict[str, Any]]:
    """Differences as plain values, rounded, for JSON; the largest budget first."""
    return [
        {"percent": percent} | as_json(one.row())
        for percent in sorted(compared, reverse=True)
        for one in compared[percent].differences
    ]


def plan_hash(params: Mapping[str, Any]) -> str:
    """First 12 hex digits of the sha256 of the analysis plan, which show whether it is the announced one.

    Args:
        params: the parameters as plain data. The plan is `analysis` with its contrasts, the arms with the pretrainings
            that they start from, the seeds of random weights, the runs (percent and seed), and the metrics that are
            compared.
    """
    plan = {key: params[key] for key in ("analysis", "arms", "budgets")}
    plan |= {"pretrainings": params["pretrain"]["methods"], "metrics": list(NAMES)}
    plan["initial"] = {name: block["seeds"] for name, block in params["initialize"].items() if "seeds" in block}
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:12]


def plan_history(params: Mapping[str, Any], before: Mapping[str, Any], results: str | None) -> dict[str, Any]:
    """Record the parts of the plan, and which of them were added after results existed.

    Args:
        params: see `plan_hash`.
        before: the history until now, {} if there is none.
        results: plan hash of the existing results, None without results.

    Returns:
        data (what the study is about: other data begin a new history), plans (hashes since results exist), parts (name
        -> value) and added (names of parts that are new or changed since).
    """
    analysis, now = params["analysis"], plan_hash(params)
    keys = ("source", "cases", "exclude", "folds", "fold", "validation", "seed")
    data = {key: params["data"][key] for key in keys} | {"phantom": params["phantom"]}
    data |= {"classes": params["data"]["classes"], "min_tumor_px": params["select"]["min_tumor_px"]}
    parts = {
        **{f"arm {name}": block for name, block in params["arms"].items()},
        **{f"pretraining {name}": block for name, block in params["pretrain"]["methods"].items()},
        **{f"contrast {one} - {other}": True for one, other in analysis["contrasts"]},
        **{f"runs with {percent} %, seed {seed}": True for percent, seed in params["budgets"]},
        **{f"metric {name}": True for name in NAMES},
        **{f"{key} {value}": True for key, value in analysis.items() if key != "contrasts"},
    }
    if results not in before.get("plans", []) or before["data"] != data:
        return {"data": data, "plans": [now], "parts": parts, "added": []}
    known = before["parts"]
    new = [name for name, value in parts.items() if name not in known or known[name] != value]
    plans = list(dict.fromkeys([*before["plans"], now]))
    return {"data": data, "plans": plans, "parts": known | parts, "added": sorted({*before["added"], *new})}


def added_parts(history: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """Names of parts of the plan of `params` that were added after results existed."""
    now = plan_history(params, {}, None)["parts"]
    return [name for name in history.get("added", []) if name in now]


def curve_metrics(analysis: Mapping[str, Any]) -> list[str]:
    """Name the metrics whose curves are drawn: the primary one, and accuracy."""
    return list(dict.fromkeys([analysis["primary"], "accuracy"]))


def learning(compared: Mapping[int, Compared], analysis: Mapping[str, Any]) -> dict[str, Any]:
    """Compute areas under the learning curves, their differences, and label equivalences, ready for JSON.

    Args:
        compared: percent -> the arms at that budget.
        analysis: `analysis` of params.yaml; the differences of the areas follow it as those of a metric do.

    Returns:
        percents, areas, differences and equivalences, rounded; with one budget the reason alone.

    Raises:
        InputError: the budgets were not tested on the same slices.
    """
    if len(compared) < 2:
        return {"reason": "one label budget: a learning curve needs at least two percents"}
    metrics = curve_metrics(analysis)
    budgets = {percent: one.drawn for percent, one in compared.items()}
    areas = area_under_curves(budgets, metrics=metrics)
    compared_areas = planned_comparisons(
        areas,
        baseline=analysis["baseline"],
        contrasts=[(one, other) for one, other in analysis["contrasts"]],
        margin=analysis["margin"],
        swaps=analysis["resamples"],
        seed=analysis["seed"],
    )
    rows = [
        {"arm": arm, "metric": name, "area": one.value, "low": one.low, "high": one.high}
        | {"reason": one.reason, "seeds": areas.seeds}
        for arm, of_arm in intervals(areas).items()
        for name, one in of_arm.items()
    ]
    equivalences = label_equivalences(budgets, baseline=analysis["baseline"], metrics=metrics)
    return {
        "percents": sorted(compared),
        "areas": as_json(rows),
        "differences": [as_json(one.row()) for one in compared_areas],
        "equivalences": [
            {"metric": metric, "arm": arm, "percent": percent} | _equivalence(one, budgets)
            for (metric, arm, percent), one in equivalences.items()
        ],
    }


def _equivalence(one: Estimate, budgets: Mapping[int, Any]) -> dict[str, Any]:
    """A label equivalence for JSON: outside the budgets' range it has no number, and `reasons` gives the bound."""
    bounds = {-inf: f"less than {min(budgets)} %", inf: f"more than {max(budgets)} %"}
    values = {"equals": one.value, "low": one.low, "high": one.high}
    reasons = {name: one.reason if value is None else bounds.get(value) for name, value in values.items()}
    known = {name: None if value is None or isinf(value) else as_json(value) for name, value in values.items()}
    return known | {"reasons": {name: reason for name, reason in reasons.items() if reason}}
