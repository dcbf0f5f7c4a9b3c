"""The tables over all arms: metrics/summary.json, report/summary.md and the long CSVs that DVC plots."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean, stdev
from typing import Any

import pandas as pd

DIGITS = 6
# Name in the summary -> where it stands in an arm's figures.
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
COLUMNS = {
    "auroc_against_kidney": "AUROC against kidney",
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy_best_on_test": "accuracy, best epoch on test",
    "f1_best_on_test": "F1, best epoch on test",
    "accuracy_published": "accuracy, thesis",
    "f1_published": "F1, thesis",
}


@dataclass(frozen=True, order=True)
class Run:
    """One fine-tuning."""

    arm: str
    percent: int
    seed: int

    @property
    def name(self) -> str:
        """Its name in stages and files."""
        return f"{self.arm}-{self.percent}-{self.seed}"


Summary = dict[str, dict[str, float | None]]


def budget_name(figure: str, percent: int, end: str = "") -> str:
    """Name a figure in the summary: `accuracy`, `accuracy_low` at 100 %, `accuracy_25`, `accuracy_25_low` at 25 %.

    The plain name means all the training cases in every study: one without that budget has no plain name.
    """
    return "_".join([figure, *([] if percent == 100 else [str(percent)]), *([end] if end else [])])


def summarise(results: Mapping[Run, Any], *, published: bool) -> Summary:
    """Lay one figure of every arm side by side.

    Args:
        results: figures of each run, as `evaluation.metrics.evaluate` gives them.
        published: put the thesis's own figures beside them (`accuracy_published`, `f1_published`), for the arms that
            it ran; only a run on KiTS23 may be read next to them.

    Returns:
        metric -> arm -> mean over the seeds; the plain name at 100 % of the training cases, `accuracy_25` at 25 %.
        None where a seed has no such figure: the reason stands in the arm's own file.
    """
    summary: Summary = {}
    for percent, arm, name, values in _of_seeds(results):
        mean = round(fmean(values), DIGITS) if values else None
        summary.setdefault(budget_name(name, percent), {})[arm] = mean
    if published:
        arms = {run.arm for run in results}
        for row in published_figures():
            if row["arm"] in arms:
                for name in ("accuracy", "f1"):
                    summary.setdefault(f"{name}_published", {})[row["arm"]] = float(row[name])
    return summary


def spreads(results: Mapping[Run, Any]) -> Summary:
    """Say how much figures differ between seeds, apart from what other test cases would change.

    Args:
        results: see `summarise`.

    Returns:
        `<figure>_spread`, `<figure>_25_spread` -> arm -> standard deviation over the seeds (over n - 1), of the budgets
        that have at least two. None where a seed has no such figure.
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
    """Gather a figure's values over the seeds: percent, arm, figure, values; none where a seed has no such figure."""
    groups: dict[tuple[int, str], list[Any]] = {}
    for run, figures in sorted(results.items()):
        groups.setdefault((run.percent, run.arm), []).append(figures)
    rows = []
    for (percent, arm), seeds in sorted(groups.items()):
        for name, path in FIGURES.items():
            values = [_lookup(figures, path) for figures in seeds]
            known = [value for value in values if value is not None]
            rows.append((percent, arm, name, known if len(known) == len(values) else []))
    return rows


def published_figures() -> list[dict[str, str]]:
    """Read the thesis's table: arm, accuracy, f1."""
    with (files("kidney_ssl.report") / "published.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _lookup(figures: Any, path: Sequence[str]) -> float | None:
    for key in path:
        figures = figures[key]
    return None if figures is None else float(figures)


def markdown(summary: Summary, *, source: str, test_cases: int, percents: Sequence[int] = (100,)) -> str:
    """Write the summary as a table for people, one for each label budget.

    Args:
        summary: see `summarise`.
        source: `data.source` of the study.
        test_cases: how many cases the figures rest on.
        percents: the label budgets.
    """
    lines = [
        f"# Study on {source}: {test_cases} test cases",
        "",
        *(
            ["The phantom says nothing about patients and ranks nothing about real CT.", ""]
            if source == "phantom"
            else []
        ),
        *(["Fewer than 30 test cases: too few to say which arm is better.", ""] if test_cases < 30 else []),
    ]
    for percent in sorted(percents, reverse=True):
        heading = [] if len(percents) == 1 else [f"## {percent} % of the training cases", ""]
        lines += [*heading, *_budget_table(summary, percent), ""]
    lines += [
        "In brackets: the 95 % interval, by resampling test cases.",
        'The epoch is chosen on validation; "best epoch on test" is the thesis\'s protocol, a choice on the test set.',
    ]
    return "\n".join(lines) + "\n"


def _budget_table(summary: Summary, percent: int) -> list[str]:
    """Lines of the table of one budget; the thesis's figures, of all its training cases, beside 100 % alone."""
    shown = [name for name in COLUMNS if budget_name(name, percent) in summary]
    lines = [
        "| arm | " + " | ".join(COLUMNS[name] for name in shown) + " |",
        "|---|" + "---:|" * len(shown),
    ]
    for arm in sorted(summary[budget_name("accuracy", percent)]):
        cells = [_cell(summary[budget_name(name, percent)].get(arm)) for name in shown]
        low, high = (summary.get(budget_name(shown[0], percent, end), {}).get(arm) for end in ("low", "high"))
        cells[0] += ends(low, high)
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def pretext_markdown(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Write what each pretraining reached on validation cases beside the trivial predictors that it must beat.

    Args:
        figures: pretraining -> figures of its last epoch; `validation_mse_copy` is the figure `validation_mse` of a
            trivial predictor called copy.

    Returns:
        A section for the summary; empty without pretrainings.
    """
    if not figures:
        return ""
    lines = [
        "",
        "## Pretext tasks, on validation cases",
        "",
        "| pretraining | updates | figure | reached | trivial predictors | k-NN | linear probe | majority |",
        "|---|---:|---|---:|---|---:|---:|---:|",
    ]
    for name, of_one in sorted(figures.items()):
        measured = {
            key.removeprefix("validation_"): value for key, value in of_one.items() if key.startswith("validation_")
        }
        trivial = {
            key: {other.removeprefix(f"{key}_"): measured[other] for other in measured if other.startswith(f"{key}_")}
            for key in measured
        }
        probes = " | ".join(_cell(of_one.get(f"probe_{kind}_accuracy")) for kind in ("knn", "linear", "majority"))
        for key, others in trivial.items():
            if others and key != "loss":
                beside = ", ".join(f"{other} {_cell(value)}" for other, value in sorted(others.items()))
                updates = f"{of_one['updates']:.0f}"
                title = f"{name} (control)" if of_one.get("control") else name
                lines.append(f"| {title} | {updates} | {key} | {_cell(measured[key])} | {beside} | {probes} |")
    lines += [
        "",
        "Trivial predictors: chance; average, the mean training image; mean, the image's own mean; copy, what the",
        "network is shown; inverse, the exchange undone; query, the query patch alone; thumbnail, the views shrunk to",
        "16 px. majority: the more frequent training label, on validation.",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def ends(low: float | None, high: float | None, sign: str = "") -> str:
    """Write the ends of an interval in brackets, with + before positive ones if `sign` is "+"; nothing without one."""
    return "" if low is None or high is None else f" ({low:{sign}.3f} to {high:{sign}.3f})"


def long_curves(curves: Mapping[Run, pd.DataFrame]) -> pd.DataFrame:
    """Put the training curves of all runs under each other: arm, percent, seed and the columns of each."""
    tables = []
    for run, table in sorted(curves.items()):
        tables.append(table.assign(arm=run.arm, percent=run.percent, seed=run.seed))
    together = pd.concat(tables, ignore_index=True)
    first = ["arm", "percent", "seed"]
    return together[first + [name for name in together.columns if name not in first]]


def long_metrics(summary: Summary) -> pd.DataFrame:
    """Put the summary's figures under each other: metric, arm, value; what is not known is left out."""
    rows = [
        {"metric": metric, "arm": arm, "value": value}
        for metric, arms in sorted(summary.items())
        for arm, value in sorted(arms.items())
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["metric", "arm", "value"])
