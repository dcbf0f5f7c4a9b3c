"""The page's tables by stratum (size, kind of negative, slice distance, block), of protocols and frozen encoders."""

from typing import Any

from kidney_ssl.report.cells import Column, Table, label
from kidney_ssl.report.figure_cells import figure_cell, figures_by_arm, range_cell
from kidney_ssl.report.study import Study

THIRDS = ("small", "middle", "large")
# Figure of a stratum -> group of columns; the first is shown.
FIGURES = {
    "auroc_against_kidney": "AUROC against kidney",
    "auroc": "AUROC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
}
NEGATIVES = ("kidney", "kidney_without_cyst", "kidney_with_cyst", "background", "without_cyst", "with_cyst")
Figures = dict[str, list[dict[str, Any]]]


def strata_section(study: Study) -> dict[str, Any] | None:
    """Lay out one table a kind of stratum; None without such figures."""
    strata = figures_by_arm(study, "strata")
    if not strata:
        return None
    first = next(iter(strata.values()))[0]
    return {
        "size": _size(strata, first["size"]),
        "negatives": _by_stratum(
            strata, first, "negatives", "Kinds of slices without tumour, against all tumor slices"
        ),
        "thickness": _by_stratum(strata, first, "thickness", "By distance between slices"),
        "block": _by_stratum(strata, first, "block", "By block of cases") if len(first["block"]) > 1 else None,
    }


def _size(strata: Figures, first: dict[str, Any]) -> Table | None:
    if first["cut_points_mm2"] is None:
        return None
    low, high = first["cut_points_mm2"]
    titles = (f"below {low:,.0f} mm²", f"{low:,.0f} to {high:,.0f} mm²", f"from {high:,.0f} mm²")
    columns = [
        Column(f"{title} (n = {first[third]['slices']:,})", note=f"of {first[third]['cases']} cases")
        for title, third in zip(titles, THIRDS, strict=True)
    ]
    rows = [
        [label(arm), *(figure_cell(seeds, "size", third, "sensitivity", bar=True) for third in THIRDS)]
        for arm, seeds in strata.items()
    ]
    return Table("Sensitivity by tumour size in the slice", [Column("arm", numeric=False), *columns], rows)


def _by_stratum(strata: Figures, first: dict[str, Any], kind: str, caption: str) -> Table:
    """Make a row an arm, a group of columns a figure, a column a stratum that has slices."""
    known = {name: one for name, one in sorted(first[kind].items(), key=_place) if one["slices"]}
    figures = [name for name in FIGURES if all(name in one for one in known.values())]
    paths = [(kind, stratum, name) for name in figures for stratum in known]
    columns = [Column("arm", numeric=False)]
    for _, stratum, name in paths:
        one = known[stratum]
        title = f"{stratum.replace('_', ' ')} (n = {one['slices']:,})"
        note = f"{FIGURES[name]}; {one['cases']} cases"
        note += f", {one['tumor_slices']:,} tumor slices" if "tumor_slices" in one else ""
        columns.append(Column(title, group=FIGURES[name], note=note, shown=name == figures[0]))
    return Table(
        caption, columns, [[label(arm), *(figure_cell(s, *path) for path in paths)] for arm, s in strata.items()]
    )


def _place(stratum: tuple[str, Any]) -> tuple[float, str]:
    """Sort kinds of negatives as listed, slice distances by their lower end, blocks by name."""
    name, _ = stratum
    if name in NEGATIVES:
        return NEGATIVES.index(name), ""
    return float(name.split()[1]) if name.startswith("above ") else 0.0, name


def protocols_table(study: Study) -> Table | None:
    """Lay the thesis's protocol beside ours: what choosing on the test set earns, and what it earns on other cases."""
    null, optimism, best, ours = (
        figures_by_arm(study, name) for name in ("split_half", "optimism", "best_on_test", "selected")
    )
    if not null:
        return None
    columns = [Column("arm", numeric=False)]
    for title, group in (("accuracy", "Accuracy"), ("F1", "F1")):
        for words, note in (
            (", validation's epoch", "the epoch was chosen on validation"),
            (", best on test", "the epoch was chosen on the test set"),
            (" optimism", "best on test less validation's epoch, on the same test cases"),
            (" optimism, null", "chosen on one half, read on the other: mean, 2.5 to 97.5 % of the halvings"),
        ):
            columns.append(Column(f"{title}{words}", group=group, note=note, shown=group == "Accuracy"))
    rows = []
    for arm, seeds in null.items():
        cells = [label(arm)]
        for name in ("accuracy", "f1"):
            cells += [
                figure_cell(ours[arm], "test", name),
                figure_cell(best[arm], name, "value"),
                figure_cell(optimism[arm], name, signed=True),
                range_cell(seeds, name),
            ]
        rows.append(cells)
    return Table("Two protocols for the epoch that counts", columns, rows)


def frozen_table(study: Study) -> Table | None:
    """Lay out what a linear probe and nearest neighbours tell on each arm's encoder before fine-tuning."""
    frozen = figures_by_arm(study, "frozen")
    if not frozen:
        return None
    probes = {"linear": "linear probe", "knn": "k-NN"}
    names = {"auroc_against_kidney": "AUROC against kidney", "auroc": "AUROC", "accuracy": "accuracy"}
    paths = [(probe, name) for name in names for probe in probes]
    columns = [
        Column(f"{probes[probe]}, {names[name]}", group=names[name], shown=name == "auroc_against_kidney")
        for probe, name in paths
    ]
    rows = [[label(arm), *(figure_cell(seeds, *path) for path in paths)] for arm, seeds in frozen.items()]
    return Table("Frozen encoders on the test slices", [Column("arm", numeric=False), *columns], rows)
