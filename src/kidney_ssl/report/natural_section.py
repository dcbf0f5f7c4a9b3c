"""The page's section on the natural test set: all slices of the test cases, at the prevalence that a reader meets."""

from collections.abc import Mapping, Sequence
from typing import Any

from kidney_ssl.report.cells import Column, Table, label
from kidney_ssl.report.figure_cells import figure, figure_cell, figures_by_arm, inner
from kidney_ssl.report.figures import UNIT, Axis, Panel, Points, panels
from kidney_ssl.report.study import Study

LIMITS = ("0.5", "1", "2", "4")  # false positives per case, as `evaluation.natural` names them
FLOOR = 0.25  # of the prevalence: how far below 0 the decision curves are drawn
Figures = dict[str, list[dict[str, Any]]]


def natural_section(study: Study) -> dict[str, Any] | None:
    """Lay out operating points, calibration and decision curves of every arm; None without such figures."""
    natural, sampled = figures_by_arm(study, "natural"), figures_by_arm(study, "calibration")
    if not natural:
        return None
    first = next(iter(natural.values()))[0]
    return {
        "counts": first["classes"],
        "slices": first["slices"],
        "cases": first["cases"],
        "by_case": first["by_case"],
        "prevalence": {name: value for name, value in first["prevalence"].items() if name != "reasons"},
        "points": _points(natural),
        "figures": _figures(natural),
        "calibration": _calibration(natural, sampled),
        "froc": _froc(natural),
        "reliability": {
            "natural": _reliability("natural-calibration", natural, ("tumor", "calibration")),
            "sampled": _reliability("sampled-calibration", sampled, ("sampled",)),
        },
        "decision": _decision(natural),
    }


def _table(
    caption: str, columns: Mapping[tuple[str, str, str], tuple[str, ...]], arms: Figures, shown: Sequence[str]
) -> Table:
    """Make a row an arm; columns: (group, label, note) -> where the figure stands."""
    heads = [Column(title, group=group, note=note, shown=group in shown) for group, title, note in columns]
    rows = [[label(arm), *(figure_cell(seeds, *path) for path in columns.values())] for arm, seeds in arms.items()]
    return Table(caption, [Column("arm", numeric=False), *heads], rows)


def _points(natural: Figures) -> Table:
    groups = {
        "Tumor slices": ("slices", "sensitivity", "share of the tumor slices that are called"),
        "Cases": ("cases", "cases_found", "share of the cases with a tumor slice of which one at least is called"),
        "Smaller tumours": (
            "smaller",
            "small_sensitivity",
            "share of the slices with a smaller tumour that are called",
        ),
        "Reached": ("reached", "false_positives_per_case", "slices without any tumour pixel that are called, per case"),
    }
    columns = {
        (group, f"{short} at {limit}", note): ("false_positives", limit, name)
        for group, (short, name, note) in groups.items()
        for limit in LIMITS
    }
    caption = "Share found at 0.5, 1, 2 and 4 false-positive slices per case"
    return _table(caption, columns, natural, ("Tumor slices", "Cases"))


def _figures(natural: Figures) -> Table:
    names = {
        "auroc": ("AUROC", "1 is perfect, 0.5 is guessing"),
        "average_precision": ("average precision", "guessing has the prevalence"),
        "brier": ("Brier", "mean squared error of the probability; lower is better"),
        "sensitivity": ("sensitivity", "share of positive slices called at 0.5"),
        "specificity": ("specificity", "share of slices without tumour that are not called at 0.5"),
    }
    kidney = ("Tumor", "AUROC against kidney", "tumor slices against slices of kidney without tumour")
    columns = {kidney: ("tumor", "auroc_against_kidney")}
    for block, group, also in (("tumor", "Tumor", ""), ("any_tumor", "Any tumour pixel", ", any")):
        columns |= {(group, f"{title}{also}", note): (block, name) for name, (title, note) in names.items()}
    by_case = "cases with a tumour against cases without, by the highest probability of their slices"
    further: dict[tuple[str, str, str], tuple[str, ...]] = {
        **columns,
        ("Further", "smaller tumours called", "share of the slices with a smaller tumour, at 0.5"): (
            "small",
            "sensitivity",
        ),
        ("Further", "AUROC of cases", by_case): ("by_case", "auroc_of_maximum"),
    }
    return _table("All slices of the test cases", further, natural, ("Tumor",))


def _calibration(natural: Figures, sampled: Figures) -> Table:
    """Calibration of the sampled test part, the same weighted to natural prevalence, and of the natural test set."""
    names = {
        "ece": ("ECE", "mean distance of told and observed shares over ten bins of equally many slices"),
        "in_the_large": ("in the large", "intercept at slope 1; above 0: tumour is more frequent than told"),
        "slope": ("slope", "1 when calibrated; below 1: probabilities are too extreme"),
        "intercept": ("intercept", "of the same fit as the slope; 0 when calibrated"),
        "brier": ("Brier", "mean squared error of the probability"),
    }
    kinds = {
        "All slices": (natural, ("tumor", "calibration"), ("tumor",)),
        "Balanced": (sampled, ("sampled",), ("sampled",)),
        "Weighted": (sampled, ("reweighted",), ("reweighted",)),
    }
    heads, rows = [], {arm: [label(arm)] for arm in natural}
    for group, (arms, path, brier) in kinds.items():
        for name, (title, note) in names.items():
            heads.append(Column(f"{title}, {group.lower()}", group=group, note=note, shown=group != "Weighted"))
            for arm, row in rows.items():
                place = (*(brier if name == "brier" else path), name)
                row.append(figure_cell(arms[arm], *place, signed=name in ("in_the_large", "intercept")))
    return Table("Calibration", [Column("arm", numeric=False), *heads], list(rows.values()))


def _froc(natural: Figures) -> list[Panel]:
    series = {arm: [_known(seed["false_positives"]) for seed in seeds] for arm, seeds in natural.items()}
    notes = {
        arm: f"{figure_cell(seeds, 'false_positives', '1', 'sensitivity').text} at 1" for arm, seeds in natural.items()
    }
    x = Axis("false positives per case", 0, 4, (0.0, 1.0, 2.0, 4.0))
    return panels("froc", series, x, Axis("sensitivity", 0, 1, UNIT), notes=notes)


def _known(points: dict[str, Any]) -> Points:
    read = [(float(limit), points[limit]["sensitivity"]) for limit in LIMITS]
    return [point for point in read if point[1] is not None]


def _reliability(name: str, arms: Figures, path: tuple[str, ...]) -> list[Panel]:
    series: dict[str, list[Points]] = {}
    notes = {}
    for arm, seeds in arms.items():
        tables = [inner(seed, path)["bins"] or () for seed in seeds]
        series[arm] = [[(one["mean_probability"], one["observed"]) for one in bins] for bins in tables]
        slope, ece = (figure_cell(seeds, *path, key).text for key in ("slope", "ece"))
        notes[arm] = f"slope {slope}, ECE {ece}"
    x, y = Axis("mean probability", 0, 1, UNIT), Axis("observed share", 0, 1, UNIT)
    return panels(name, series, x, y, notes=notes, diagonal=True)


def _decision(natural: Figures) -> list[Panel]:
    """Draw net benefit by threshold beside calling all slices; the line of 0, calling none, is a grid line."""
    curves = {arm: [seed["tumor"]["decision_curve"] or [] for seed in seeds] for arm, seeds in natural.items()}
    prevalence = max(figure(seeds, "tumor", "prevalence")[0] or 0 for seeds in natural.values())
    floor = -FLOOR * prevalence
    series: dict[str, list[Points]] = {
        arm: [[(p["threshold"], p["net_benefit"]) for p in curve if p["net_benefit"] >= floor] for curve in several]
        for arm, several in curves.items()
    }
    every = next((curve for several in curves.values() for curve in several if curve), [])
    y = Axis.over("net benefit", [floor, prevalence])
    treat_all = _down_to(y.low, [(p["threshold"], p["treat_all"]) for p in every])
    x = Axis("threshold probability", 0, 0.5, (0.0, 0.1, 0.2, 0.3, 0.4, 0.5))
    return panels("decision", series, x, y, reference=treat_all)


def _down_to(low: float, points: Points) -> Points:
    """Follow a falling line to where it leaves the chart."""
    kept = [point for point in points if point[1] >= low]
    if len(kept) < len(points) and kept:
        (x0, y0), (x1, y1) = kept[-1], points[len(kept)]
        kept.append((x0 + (x1 - x0) * (y0 - low) / (y0 - y1), low))
    return kept
