"""The tables over all arms: metrics/summary.json, report/summary.md and the long CSVs that DVC plots."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean
from typing import Any

import pandas as pd

DIGITS = 6
# Name in the summary -> where it stands in an arm's figures.
FIGURES: dict[str, tuple[str, ...]] = {
    "accuracy": ("selected", "test", "accuracy"),
    "accuracy_against_kidney": ("selected", "test", "against", "kidney", "accuracy"),
    "accuracy_best_on_test": ("best_on_test", "accuracy", "value"),
    "accuracy_optimism": ("optimism", "accuracy"),
    "accuracy_over_cases": ("selected", "test", "over_cases", "mean_accuracy"),
    "auroc": ("selected", "test", "auroc"),
    "auroc_against_kidney": ("selected", "test", "against", "kidney", "auroc"),
    "average_precision": ("selected", "test", "average_precision"),
    "brier": ("selected", "test", "brier"),
    "f1": ("selected", "test", "f1"),
    "f1_best_on_test": ("best_on_test", "f1", "value"),
    "f1_optimism": ("optimism", "f1"),
    "sensitivity": ("selected", "test", "sensitivity"),
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
    groups: dict[tuple[int, str], list[Any]] = {}
    for run, figures in sorted(results.items()):
        groups.setdefault((run.percent, run.arm), []).append(figures)
    for (percent, arm), seeds in sorted(groups.items()):
        for name, path in FIGURES.items():
            values = [_lookup(figures, path) for figures in seeds]
            known = [value for value in values if value is not None]
            mean = round(fmean(known), DIGITS) if len(known) == len(values) else None
            summary.setdefault(name if percent == 100 else f"{name}_{percent}", {})[arm] = mean
    if published:
        arms = {arm for _, arm in groups}
        for row in published_figures():
            if row["arm"] in arms:
                for name in ("accuracy", "f1"):
                    summary.setdefault(f"{name}_published", {})[row["arm"]] = float(row[name])
    return summary


def published_figures() -> list[dict[str, str]]:
    """Read the thesis's table: arm, accuracy, f1."""
    with (files("kidney_ssl.report") / "published.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _lookup(figures: Any, path: Sequence[str]) -> float | None:
    for key in path:
        figures = figures[key]
    return None if figures is None else float(figures)


def markdown(summary: Summary, *, source: str, test_cases: int) -> str:
    """Write the summary as a table for people.

    Args:
        summary: see `summarise`.
        source: `data.source` of the study.
        test_cases: how many cases the figures rest on.
    """
    shown = [name for name in COLUMNS if name in summary]
    arms = sorted(summary["accuracy"])
    lines = [
        f"# Study on {source}: {test_cases} test cases",
        "",
        *(
            ["The phantom says nothing about patients and ranks nothing about real CT.", ""]
            if source == "phantom"
            else []
        ),
        *(["Fewer than 30 test cases: too few to say which arm is better.", ""] if test_cases < 30 else []),
        "| arm | " + " | ".join(COLUMNS[name] for name in shown) + " |",
        "|---|" + "---:|" * len(shown),
    ]
    for arm in arms:
        cells = [_cell(summary[name].get(arm)) for name in shown]
        ends = [summary.get(f"{shown[0]}_{end}", {}).get(arm) for end in ("low", "high")]
        if None not in ends:
            cells[0] += f" ({_cell(ends[0])} to {_cell(ends[1])})"
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "In brackets: the 95 % interval, by resampling test cases.",
        'The epoch is chosen on validation; "best epoch on test" is the thesis\'s protocol, a choice on the test set.',
    ]
    return "\n".join(lines) + "\n"


def pretext_markdown(figures: Mapping[str, Mapping[str, float | None]]) -> str:
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
                lines.append(f"| {name} | {updates} | {key} | {_cell(measured[key])} | {beside} | {probes} |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


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
