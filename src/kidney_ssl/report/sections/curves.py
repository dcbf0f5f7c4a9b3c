"""ROC, precision-recall, learning and training curves, and those of all slices of the test cases."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kidney_ssl.report.charts import Axis, Curve, Panel, panels
from kidney_ssl.report.metric_tables import by_arm, inner, mean, metric_table
from kidney_ssl.report.names import worded
from kidney_ssl.report.sections.results import difference_table
from kidney_ssl.report.study import Study
from kidney_ssl.report.table_cells import MISSING, Cell, Column, Table, estimated, label, words
from kidney_ssl.statistics.analysis_plan import NAMES, curve_metrics
from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.curve_bands import curve_bands
from kidney_ssl.statistics.result import Estimate

RESAMPLES = 200  # of the bands, which are read by eye
UNIT = (0.0, 0.5, 1.0)
FLOOR = 0.25  # of the prevalence: how far below 0 the decision curves are drawn
CHANCE = Curve((0, 1), (0, 1))


def _panels(study: Study, name: str, curves: Mapping[str, Any], x: Axis, y: Axis, **more: Any) -> list[Panel]:
    """Draw a panel an arm, the baseline's curves behind all; rings and notes are by arm as well."""
    rings, notes = ({study.title(arm): one for arm, one in more.pop(key, {}).items()} for key in ("rings", "notes"))
    titled = {study.title(arm): one for arm, one in curves.items()}
    return panels(name, titled, x, y, reference=curves.get(study.baseline, ()), rings=rings, notes=notes, **more)


def test_curves(study: Study) -> dict[str, list[Panel]]:
    """ROC and precision-recall of every arm; empty where the test part has one class alone."""
    runs = [run for run in study.runs if run.percent == study.percents[0]]
    predicted = arms_of_tables(
        {arm: [study.predictions[run] for run in runs if run.arm == arm] for arm in study.params["arms"]}
    )
    share = float(predicted.labels.mean())
    found = {}
    for kind, x, y, metric, dashed in (
        ("roc", "1 - specificity", "sensitivity", "auroc", CHANCE),
        ("pr", "recall", "precision", "average_precision", Curve((0, 1), (share, share))),
    ):
        bands = curve_bands(predicted, kind, count=RESAMPLES, seed=study.params["analysis"]["seed"])
        curves = {arm: [Curve(one.x, one.y, one.low, one.high)] for arm, one in bands.items()}
        notes = {arm: worded(study.estimate(metric, arm)) for arm in curves}
        axes = Axis(x, 0, 1, UNIT), Axis(y, 0, 1.02, UNIT)
        found[kind] = _panels(study, kind, curves, *axes, dashed=dashed, notes=notes)
    return found


def learning_section(study: Study) -> list[dict[str, Any]]:
    """Curves and tables of the primary metric and of accuracy; none where there is one budget."""
    metrics = curve_metrics(study.params["analysis"]) if "areas" in study.learning else []
    return [
        {"name": NAMES[one], "charts": _learning(study, one), "tables": learning_tables(study, one)} for one in metrics
    ]


def learning_tables(study: Study, name: str) -> list[Table]:
    """Areas under the curves of a metric with label equivalences, and differences of areas; none with one budget."""
    found, percents = study.learning, sorted(study.percents)
    if "areas" not in found:
        return []
    same = {(row["arm"], row["percent"]): row for row in found["equivalences"] if row["metric"] == name}
    rows = []
    for row in (row for row in found["areas"] if row["metric"] == name):
        area = estimated(Estimate(row["area"], row["low"], row["high"], row["reason"]))
        cells = [
            equal(same[row["arm"], one]) if (row["arm"], one) in same else Cell("", note="the baseline itself")
            for one in percents
        ]
        rows.append([label(study.title(row["arm"])), area, *cells])
    heads = [*words("arm"), Column("area", note="mean of the metric over log(percent)")]
    note = "percent of the labels with which the baseline has the same metric"
    heads += [Column(f"{percent} % of the labels equal", note=note) for percent in percents]
    differences = [row for row in found["differences"] if row["metric"] == name]
    caption = f"Area under the learning curve: {NAMES[name]}; label equivalences, % of the baseline's labels"
    second = difference_table(study, f"Areas against each other: {NAMES[name]}", differences)
    return [Table(caption, heads, rows), *([second] if differences else [])]


def _learning(study: Study, name: str) -> list[Panel]:
    percents = sorted(study.percents)
    curves: dict[str, list[Curve]] = {}
    for arm in study.params["arms"]:
        points = {percent: study.estimate(name, arm, percent) for percent in percents}
        rows = np.array(
            [[p, one.value, one.low, one.high] for p, one in points.items() if one.value is not None], float
        )
        curves[arm] = [Curve(*rows.T)] if len(rows) else []
    edge = (percents[-1] / percents[0]) ** 0.05
    ticks = [percents[-1]]  # those whose labels would not touch
    ticks += [one for one in percents[:-1] if percents[-1] / one >= (percents[-1] / percents[0]) ** 0.4]
    x = Axis("% of training cases", percents[0] / edge, percents[-1] * edge, ticks, log=True)
    areas = {row["arm"]: worded(Estimate(row["area"])) for row in study.learning["areas"] if row["metric"] == name}
    notes = {arm: f"area {area}" for arm, area in areas.items()}
    y = Axis("accuracy" if name == "accuracy" else "AUROC")
    return _panels(study, f"learning-{name}", curves, x, y, notes=notes)


def equal(row: Mapping[str, Any]) -> Cell:
    """Make a cell of a label equivalence, "23.4 (9 to > 100)"; bounds sort before or after all numbers."""
    reasons = row["reasons"]
    why = str(reasons.get("equals", ""))
    if row["equals"] is None and "%" not in why:
        return Cell(MISSING, note=why)
    ends = {
        end: str(reasons.get(end)).replace("more than", ">").replace("less than", "<").removesuffix(" %")
        if row[end] is None
        else f"{row[end]:.3g}"
        for end in ("equals", "low", "high")
    }
    bounded = row["low"] is not None or "%" in reasons["low"]
    text = ends["equals"] + (f" ({ends['low']} to {ends['high']})" if bounded else "")
    return Cell(text, row["equals"] if row["equals"] is not None else 1000.0 if why.startswith("more") else 0.0)


def training_curves(study: Study) -> dict[str, list[Panel]]:
    """Loss and validation AUROC by epoch, a line a seed, at the chosen learning rate; the chosen epoch is ringed."""
    found = {}
    for column, y in (("train_loss", "training loss"), ("validation_auroc", "AUROC")):
        curves: dict[str, list[Curve]] = {}
        rings: dict[str, list[tuple[float, float]]] = {}
        for run in (run for run in study.runs if run.percent == study.percents[0]):
            table = study.curves[run]
            chosen = table[table["selected"] == 1].iloc[0]
            table = table[table["learning_rate"] == chosen["learning_rate"]].sort_values("epoch").dropna(subset=column)
            curves.setdefault(run.arm, []).append(Curve(table["epoch"].to_numpy(float), table[column].to_numpy(float)))
            rings.setdefault(run.arm, []).append((float(chosen["epoch"]), float(chosen[column])))
        found[column] = _panels(study, column, curves, Axis("epoch"), Axis(y), rings=rings)
    return found


def natural_section(study: Study) -> dict[str, Any] | None:
    """Operating points, calibration and decision curves on all slices of the test cases; None without such metrics."""
    arms = by_arm(study, "natural")
    if not arms:
        return None
    tumor = ("natural", "tumor")
    prevalence = max(mean(seeds, (*tumor, "prevalence")).value or 0 for seeds in arms.values())
    floor, share = -FLOOR * prevalence, (0, 1, UNIT)
    found = _points(arms, ("natural", "false_positives"), "limit", "sensitivity")
    bins = _points(arms, (*tumor, "calibration", "bins"), "mean_probability", "observed")
    benefit = _points(arms, (*tumor, "decision_curve"), "threshold", "net_benefit", floor)
    every = _points(arms, (*tumor, "decision_curve"), "threshold", "treat_all", floor)
    all_called = next((one for curves in every.values() for one in curves if len(one.x)), None)
    x, y = Axis("threshold", 0, 0.5, (0, 0.25, 0.5)), Axis("net benefit", floor, 1.05 * prevalence + 0.01)
    charts = {
        "froc": _panels(study, "froc", found, Axis("FP per case", 0, 4.2, (0, 1, 2, 4)),
                        Axis("sensitivity", 0, 1.02, UNIT)),
        "reliability": _panels(study, "reliability", bins, Axis("mean probability", *share),
                               Axis("observed share", *share), dashed=CHANCE),
        "decision": _panels(study, "decision", benefit, x, y, dashed=all_called),
    }  # fmt: skip
    first: dict[str, Any] = next(iter(arms.values()))[0]["natural"]
    tables = [metric_table(study, name) for name in ("operating", "natural", "calibration")]
    return first | charts | {"tables": tables}


def _points(
    arms: Mapping[str, list[Any]], path: Sequence[str], x: str, y: str, least: float = -np.inf
) -> dict[str, list[Curve]]:
    """Read a curve of every arm and seed off a list of points, or off a mapping by limit; unknown points left out."""
    curves: dict[str, list[Curve]] = {}
    for arm, seeds in arms.items():
        for metrics in seeds:
            found = inner(metrics, path) or []
            if isinstance(found, dict):
                found = [one | {"limit": float(limit)} for limit, one in found.items()]
            known = [one for one in found if one[y] is not None and one[y] >= least]
            curves.setdefault(arm, []).append(Curve([one[x] for one in known], [one[y] for one in known]))
    return curves
