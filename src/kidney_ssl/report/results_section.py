"""The page's section on the results: the thesis's three tables with this run's figures, all further ones, curves."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from kidney_ssl.data.selection import CLASSES
from kidney_ssl.report.cells import Cell, Column, Table, label, number
from kidney_ssl.report.figures import UNIT, Axis, Panel, Points, panels
from kidney_ssl.report.study import Study
from kidney_ssl.report.tables import FIGURES, Run, budget_name, ends, published_figures

CURVE_POINTS = 80  # of a ROC or precision-recall curve: finer than can be seen in a panel
# Metric of the summary -> group of columns, name, what it is.
METRICS: dict[str, tuple[str, str, str]] = {
    "auroc_against_kidney": (
        "Ranking",
        "AUROC against kidney",
        "tumor slices against slices of kidney without tumour",
    ),
    "auroc": ("Ranking", "AUROC", "tumor slices against all others"),
    "average_precision": ("Ranking", "average precision", "area under precision-recall; depends on prevalence"),
    "accuracy": ("At 0.5", "accuracy", "share of slices called right at probability 0.5"),
    "f1": ("At 0.5", "F1", "2 TP / (2 TP + FP + FN)"),
    "sensitivity": ("At 0.5", "sensitivity", "share of tumor slices found"),
    "specificity": ("At 0.5", "specificity", "share of the other slices called right"),
    "accuracy_against_kidney": ("At 0.5", "accuracy against kidney", "background slices left out"),
    "accuracy_over_cases": ("At 0.5", "accuracy over cases", "mean of each case's accuracy: every case counts once"),
    "brier": ("Calibration", "Brier", "mean squared error of the probability; lower is better"),
    "accuracy_best_on_test": ("Thesis's protocol", "accuracy, best epoch on test", "a choice made on the test set"),
    "f1_best_on_test": ("Thesis's protocol", "F1, best epoch on test", "a choice made on the test set"),
    "accuracy_optimism": ("Thesis's protocol", "accuracy optimism", "what choosing on the test set earns"),
    "f1_optimism": ("Thesis's protocol", "F1 optimism", "what choosing on the test set earns"),
    "accuracy_optimism_split_half": (
        "Thesis's protocol",
        "accuracy optimism, split-half null",
        "chosen on one half of the test cases, read on the other",
    ),
    "f1_optimism_split_half": (
        "Thesis's protocol",
        "F1 optimism, split-half null",
        "chosen on one half of the test cases, read on the other",
    ),
    "auroc_natural": (
        "Natural prevalence",
        "AUROC, all slices",
        "tumor against no tumour, all test slices",
    ),
    "brier_natural": (
        "Natural prevalence",
        "Brier, all slices",
        "tumor against no tumour, all test slices",
    ),
    "sensitivity_at_1_fp": (
        "Natural prevalence",
        "sensitivity at 1 false positive",
        "share of tumor slices found where one slice per case is called without a tumour",
    ),
    "linear_auroc": ("Frozen encoder", "AUROC, linear probe", "on the encoder before fine-tuning"),
    "knn_auroc": ("Frozen encoder", "AUROC, k-NN", "on the encoder before fine-tuning"),
}
SHOWN = ("Ranking", "At 0.5")
BESIDE = ("low", "high", "difference", "spread", "published")  # ends of names in the summary that are no figures


def results_section(study: Study) -> dict[str, Any]:
    """Lay out tables and curves of every arm."""
    percents = study.percents
    tests = {run: rows[rows["part"] == "test"] for run, rows in study.predictions.items() if run.percent == percents[0]}
    return {
        "percent": percents[0],
        "baseline": baseline(study),
        "thesis": _thesis_tables(study),
        "published": shows_published(study),
        "missing": _missing(study),
        "metrics": {percent: [_metrics(study, percent)] for percent in percents},
        "roc": _test_curves(
            study, tests, "roc", curve=_roc, x=Axis("false positive rate", 0, 1, UNIT), y_label="sensitivity"
        ),
        "pr": _test_curves(
            study, tests, "pr", curve=_precision_recall, x=Axis("recall", 0, 1, UNIT), y_label="precision"
        ),
        "losses": _training_curves(study, percents[0], "train_loss", "training loss"),
        "aurocs": _training_curves(study, percents[0], "validation_auroc", "validation AUROC"),
        "classes": _classes(study, percents[0]),
    }


def baseline(study: Study) -> str:
    """Name the arm that the others are compared with."""
    return str(study.params["analysis"]["baseline"])


def shows_published(study: Study) -> bool:
    """Say whether the thesis's figures may stand beside this run's: on KiTS23, and only when asked for."""
    return bool(study.params["report"]["published"]) and study.params["data"]["source"] == "kits23"


def metric_key(study: Study, name: str, percent: int | None = None) -> str:
    """Name a metric in the summary at a budget, by default the largest."""
    return budget_name(name, study.percents[0] if percent is None else percent)


def reason(study: Study, arm: str, name: str, percent: int) -> str:
    """Find why a figure is missing: the reasons that the arm's own file gives."""
    for run, figures in study.results.items():
        if (run.arm, run.percent) == (arm, percent):
            place = figures
            for key in FIGURES.get(name, ())[:-1]:
                place = place.get(key, {})
            if found := place.get("reasons", {}).get((FIGURES.get(name) or ("",))[-1]):
                return str(found)
    return "not computed for this arm"


def _figure(study: Study, name: str, arm: str, percent: int) -> Cell:
    values = study.summary.get(metric_key(study, name, percent), {})
    low, high, spread = (
        study.summary.get(budget_name(name, percent, end), {}).get(arm) for end in ("low", "high", "spread")
    )
    cell = number(values.get(arm), reason=reason(study, arm, name, percent))
    if cell.sort is None:
        return cell
    return Cell(cell.text + ends(low, high) + ("" if spread is None else f" ±{spread:.3f}"), cell.sort)


def _thesis_tables(study: Study) -> list[Table]:
    """Tables 1 to 3 of the thesis: initial weights, pretrainings and augmentations, the last two with the baseline."""
    percent = study.percents[0]
    first = baseline(study)
    kinds: dict[str, list[str]] = {"initial": [], "pretrain": [], "augmentation": []}
    for arm, block in study.params["arms"].items():
        augmented = block.get("augmentation", "none") != "none"
        kinds["augmentation" if augmented else block["weights"].split("/")[0]].append(arm)
    published = {row["arm"]: row for row in published_figures()} if shows_published(study) else {}
    columns = [Column("arm", numeric=False), Column("accuracy"), Column("F1")]
    columns += [Column("accuracy, best epoch on test"), Column("F1, best epoch on test")]
    columns += [Column("accuracy, thesis"), Column("F1, thesis")] if published else []
    tables = []
    for title, arms in (
        ("Table 1. Initial weights", kinds["initial"]),
        ("Table 2. Pretraining against the baseline", [first, *kinds["pretrain"]]),
        ("Table 3. Augmentation against the baseline", [first, *kinds["augmentation"]]),
    ):
        rows = []
        for arm in dict.fromkeys(arms):
            cells = [
                _figure(study, name, arm, percent)
                for name in ("accuracy", "f1", "accuracy_best_on_test", "f1_best_on_test")
            ]
            if published:
                theirs = published.get(arm, {})
                cells += [
                    number(float(theirs[name]) if theirs else None, 2, reason="the thesis ran no such arm")
                    for name in ("accuracy", "f1")
                ]
            rows.append([label(study.title(arm) + (" (baseline)" if arm == first else "")), *cells])
        if title.startswith("Table 1") or set(arms) != {first}:
            tables.append(Table(title, columns, rows))
    return tables


def _missing(study: Study) -> list[str]:
    """Arms of the thesis that this study does not have."""
    return [row["arm"] for row in published_figures() if row["arm"] not in study.params["arms"]]


def _metrics(study: Study, percent: int) -> Table:
    """Every figure of the summary at one budget, one row an arm."""
    others = tuple(f"_{value}" for value in study.percents if value != 100)
    names = []
    for key in study.summary:
        name = key if percent == 100 else key.removesuffix(f"_{percent}")
        here = not key.endswith(others) if percent == 100 else name != key
        if here and not name.endswith(tuple(f"_{end}" for end in BESIDE)):
            names.append(name)
    order = list(METRICS)
    names.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
    columns = [Column("arm", numeric=False)]
    for name in names:
        group, title, note = METRICS.get(name, ("Further", name.replace("_", " "), ""))
        columns.append(Column(title, group=group, note=note, shown=group in SHOWN))
    rows = [
        [label(study.title(arm)), *(_figure(study, name, arm, percent) for name in names)]
        for arm in study.params["arms"]
    ]
    caption = f"Test figures by arm, {percent} % of the training cases"
    seeds = {run.seed for run in study.runs if run.percent == percent}
    if len(seeds) > 1:
        caption += f"; mean over {len(seeds)} seeds (95 % interval) ± their standard deviation"
    return Table(caption, columns, rows)


def _roc(rows: pd.DataFrame) -> Points:
    false, true, _ = roc_curve(rows["label"], rows["probability"])
    return _thin(list(zip(false, true, strict=True)))


def _precision_recall(rows: pd.DataFrame) -> Points:
    precision, recall, _ = precision_recall_curve(rows["label"], rows["probability"])
    return _thin(list(zip(recall[::-1], precision[::-1], strict=True)))


def _thin(points: list[tuple[float, float]]) -> Points:
    kept = np.unique(np.linspace(0, len(points) - 1, CURVE_POINTS).round().astype(int))
    return [(float(points[place][0]), float(points[place][1])) for place in kept]


def _by_arm(study: Study, runs: Sequence[Run]) -> dict[str, list[Run]]:
    return {arm: [run for run in runs if run.arm == arm] for arm in study.params["arms"]}


def _test_curves(
    study: Study,
    tests: dict[Run, pd.DataFrame],
    name: str,
    *,
    curve: Callable[[pd.DataFrame], Points],
    x: Axis,
    y_label: str,
) -> list[Panel]:
    """A panel an arm, a line a seed, recomputed from the predictions; no line where the test part has one class."""
    series = {
        arm: [curve(tests[run]) for run in runs if tests[run]["label"].nunique() == 2]
        for arm, runs in _by_arm(study, list(tests)).items()
    }
    figure, said = ("auroc", "AUROC") if name == "roc" else ("average_precision", "average precision")
    values = study.summary.get(metric_key(study, figure), {})
    notes = {arm: f"{said} {number(values.get(arm)).text}" for arm in series}
    return panels(name, series, x, Axis(y_label, 0, 1, UNIT), notes=notes, diagonal=name == "roc")


def _training_curves(study: Study, percent: int, column: str, y_label: str) -> list[Panel]:
    """A panel an arm, a line a seed, at the learning rate that was chosen; the selected epoch is ringed."""
    series: dict[str, list[Points]] = {}
    marked: dict[str, Points] = {}
    runs = [run for run in study.runs if run.percent == percent]
    for arm, of_arm in _by_arm(study, runs).items():
        series[arm], rings = [], []
        for run in of_arm:
            table = study.curves[run]
            chosen = table[table["selected"] == 1].iloc[0]
            table = table[table["learning_rate"] == chosen["learning_rate"]].sort_values("epoch")
            series[arm].append(list(zip(table["epoch"].astype(float), table[column].astype(float), strict=True)))
            rings.append((float(chosen["epoch"]), float(chosen[column])))
        marked[arm] = rings
    points = [point for lines in series.values() for line in lines for point in line]
    x = Axis.over("epoch", [point[0] for point in points], integer=True)
    return panels(column, series, x, Axis.over(y_label, [point[1] for point in points]), marked=marked)


def _classes(study: Study, percent: int) -> Table:
    """Accuracy of each class of test slices: a drop that is even over the classes is no bias towards one of them."""
    rows = []
    for arm, runs in _by_arm(study, [run for run in study.runs if run.percent == percent]).items():
        cells = []
        for name in CLASSES:
            figures = [study.results[run]["selected"]["test"]["classes"][name] for run in runs]
            values = [one["accuracy"] for one in figures]
            known = fmean(values) if None not in values else None
            why = figures[0].get("reasons", {}).get("accuracy", "")
            cells.append(number(known, bar=True, reason=why))
        rows.append([label(arm), *cells])
    sizes = study.selection["chosen"].get("test", {})
    columns = [Column(f"{name} (n = {sizes.get(name, 0):,})") for name in CLASSES]
    return Table("Share of test slices called right, by class", [Column("arm", numeric=False), *columns], rows)
