"""Metrics of an arm over its runs: mean and spread over the seeds at each label budget."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from statistics import fmean, stdev
from typing import Any

from kidney_ssl.statistics.result import DIGITS

HEADLINE = ("accuracy", "auroc", "f1")  # and the primary metric of the analysis
# Name in the summary -> path in a run's metrics.
FIGURES: dict[str, tuple[str, ...]] = {
    "accuracy": ("selected", "test", "accuracy"),
    "accuracy_against_kidney": ("selected", "test", "against", "kidney", "accuracy"),
    "accuracy_best_on_test": ("best_on_test", "accuracy", "value"),
    "accuracy_optimism": ("optimism", "accuracy"),
    "accuracy_optimism_split_half": ("split_half", "accuracy", "mean"),
    "accuracy_over_cases": ("selected", "test", "over_cases", "mean_accuracy"),
    "auroc": ("selected", "test", "auroc"),
    "auroc_against_kidney": ("selected", "test", "against", "kidney", "auroc"),
    "auroc_natural": ("natural", "tumor", "auroc"),
    "average_precision": ("selected", "test", "average_precision"),
    "brier": ("selected", "test", "brier"),
    "brier_natural": ("natural", "tumor", "brier"),
    "f1": ("selected", "test", "f1"),
    "f1_best_on_test": ("best_on_test", "f1", "value"),
    "f1_optimism": ("optimism", "f1"),
    "f1_optimism_split_half": ("split_half", "f1", "mean"),
    "knn_auroc": ("frozen", "knn", "auroc"),
    "linear_auroc": ("frozen", "linear", "auroc"),
    "sensitivity": ("selected", "test", "sensitivity"),
    "sensitivity_at_1_fp": ("natural", "false_positives", "1", "sensitivity"),
    "specificity": ("selected", "test", "specificity"),
}

Summary = dict[str, dict[str, float | None]]


@dataclass(frozen=True, order=True)
class Run:
    """One fine-tuning."""

    arm: str
    percent: int
    seed: int

    @property
    def name(self) -> str:
        """Its name in logs and messages."""
        return f"{self.arm}-{self.budget}"

    @property
    def budget(self) -> str:
        """Name of the run within its arm, and of its folder."""
        return f"{self.percent}-{self.seed}"

    @property
    def folder(self) -> str:
        """Folder of the run's files, relative to the project's folder."""
        return f"models/finetune/{self.arm}/{self.budget}"


def budget_name(metric: str, percent: int, end: str = "") -> str:
    """Name a metric in the summary: `accuracy`, `accuracy_low` at 100 %, `accuracy_25`, `accuracy_25_low` at 25 %.

    The plain name always means all training cases; a study without the budget of 100 % has no plain names.
    """
    return "_".join([metric, *([] if percent == 100 else [str(percent)]), *([end] if end else [])])


def means(results: Mapping[Run, Any]) -> Summary:
    """Average each metric of an arm over its seeds, from `metrics.run.evaluate_run` of each run.

    Returns:
        metric -> arm -> mean, named as by `budget_name`. None if a seed lacks the metric; report/evaluate/<arm>.json
        has the reason.
    """
    found: Summary = {}
    for percent, arm, name, values in _of_seeds(results):
        mean = round(fmean(values), DIGITS) if values else None
        found.setdefault(budget_name(name, percent), {})[arm] = mean
    return found


def headline(results: Mapping[Run, Any], primary: str) -> dict[str, float | None]:
    """The main metrics of one arm for `dvc metrics show`, at each budget: name in the summary -> mean."""
    names = {budget_name(name, run.percent) for run in results for name in (*HEADLINE, primary)}
    return {name: next(iter(of_arm.values())) for name, of_arm in means(results).items() if name in names}


def spreads(results: Mapping[Run, Any]) -> Summary:
    """Compute how much metrics differ between seeds on the same test cases.

    Returns:
        `<metric>_spread`, `<metric>_25_spread` -> arm -> standard deviation over the seeds (n - 1), for budgets with at
        least two seeds. None if a seed lacks the metric.
    """
    seeds: dict[int, set[int]] = {}
    for run in results:
        seeds.setdefault(run.percent, set()).add(run.seed)
    summary: Summary = {}
    for percent, arm, name, values in _of_seeds(results):
        if len(seeds[percent]) > 1:
            found = round(stdev(values), DIGITS) if values else None
            summary.setdefault(budget_name(name, percent, "spread"), {})[arm] = found
    return summary


def _of_seeds(results: Mapping[Run, Any]) -> list[tuple[int, str, str, list[float]]]:
    """Gather each metric's values over the seeds: percent, arm, metric, values; no values if a seed lacks it."""
    groups: dict[tuple[int, str], list[Any]] = {}
    for run, metrics in sorted(results.items()):
        groups.setdefault((run.percent, run.arm), []).append(metrics)
    rows = []
    for (percent, arm), seeds in sorted(groups.items()):
        for name, path in FIGURES.items():
            values = [reduce(getitem, path, metrics) for metrics in seeds]
            rows.append((percent, arm, name, [] if None in values else [float(value) for value in values]))
    return rows
