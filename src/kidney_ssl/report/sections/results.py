"""All test metrics, comparisons, subgroups and protocols as tables."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from kidney_ssl.report.metric_tables import by_arm, columns, heads, mean, metric_table
from kidney_ssl.report.names import WORDS, plural
from kidney_ssl.report.study import Study, simultaneous
from kidney_ssl.report.table_cells import Cell, Column, Table, estimated, label, number, words
from kidney_ssl.statistics.analysis_plan import NAMES
from kidney_ssl.thesis.published import published_figures

LISTED = ("small", "middle", "large", "kidney", "kidney_without_cyst", "kidney_with_cyst", "background")  # in order


def results_section(study: Study) -> dict[str, Any]:
    """Lay out the tables of the test part."""
    strata: Any = by_arm(study, "strata")
    classes = metric_table(study, "classes")
    sizes = study.selection["chosen"].get("test", {})
    if classes:
        named = [replace(one, label=f"{one.label} (n = {sizes.get(one.label, 0):,})") for one in classes.columns[1:]]
        classes = replace(classes, columns=[classes.columns[0], *named])
    return {
        "percent": study.percents[0],
        "metrics": {percent: [summary_table(study, percent, seconds=True)] for percent in study.percents},
        "compared": compared(study, NAMES),
        "rates": rates_table(study),
        "published": shows_published(study),
        "missing": [study.title(row["arm"]) for row in published_figures() if row["arm"] not in study.params["arms"]],
        "classes": classes,
        "subgroups": strata and {k: _by_subgroup(study, strata, k, title) for k, title in WORDS["subgroups"].items()},
        "protocols": metric_table(study, "protocols", "split_half"),
        "frozen": metric_table(study, "frozen"),
    }


def shows_published(study: Study) -> bool:
    """Say whether the thesis's metrics may stand beside this run's: on KiTS23, and only when asked for."""
    return bool(study.params["report"]["published"]) and study.params["data"]["source"] == "kits23"


def summary_table(study: Study, percent: int, *, seconds: bool = False) -> Table:
    """Every metric of the summary at one budget, one row an arm, with intervals and the spread over seeds.

    What its pretraining took follows; with `seconds` also on this machine, which no result in git may depend on.
    """
    wanted = [row for row in columns("summary") if shows_published(study) or row["group"] != "Thesis"]
    rows = []
    for arm in study.params["arms"]:
        keys = [(row["path"], arm, percent) for row in wanted]
        cells = [estimated(study.estimate(*key), spread=study.spread(*key)) for key in keys]
        rows.append([label(study.title(arm)), *cells, *_pretraining(study, arm)[: 2 + seconds]])
    caption = f"Test metrics by arm, {percent} % of the training cases"
    if study.seeds(percent) > 1:
        caption += f"; mean over {study.seeds(percent)} seeds (95 % interval) ± their standard deviation"
    took = [Column(title, group="Pretraining") for title in ("updates", "slices seen", "device seconds")]
    return Table(caption, [*words("arm"), *heads(wanted), *took[: 2 + seconds]], rows)


def _pretraining(study: Study, arm: str) -> list[Cell]:
    """Updates, slices and seconds, with the device, of the pretraining that an arm starts from: means over seeds."""
    name = study.pretraining(arm)
    if not name:
        return [Cell("")] * 3
    logs = [log for log in study.pretraining_logs(name) if log.get("seconds")]
    took = number(fmean([log["seconds"] for log in logs]) if logs else None, 0, reason="not on this machine")
    devices = sorted({str(log["device"]).upper() for log in logs if log.get("device")})
    device = f" ({', '.join(devices)})" if devices else ""
    figures = study.pretrainings[name].figures
    means = [number(fmean([one[key] for one in figures]), 0) for key in ("updates", "images")]
    return [*means, replace(took, text=took.text + device)]


def rates_table(study: Study) -> Table | None:
    """The learning rate of each run, one column per budget; None if there was only one to choose."""
    tried = study.params["finetune"]["learning_rates"]
    if len(tried) == 1:
        return None
    rows = []
    for arm in study.params["arms"]:
        cells = []
        for percent in study.percents:
            runs = [study.results[run]["selected"] for run in study.runs if (run.arm, run.percent) == (arm, percent)]
            counts = Counter(one["learning_rate"] for one in runs)
            said = ", ".join(f"{rate:g} ({plural(number, 'seed')})" for rate, number in sorted(counts.items()))
            cells.append(label(said + "; of 100 %" * all(one["rates_tried"] == 1 for one in runs)))
        rows.append([label(study.title(arm)), *cells])
    caption = f"Learning rate of the runs, of {', '.join(f'{rate:g}' for rate in tried)}"
    return Table(caption, words("arm", *(f"{percent} % of the training cases" for percent in study.percents)), rows)


def compared(study: Study, metrics: Collection[str]) -> dict[int, list[Table]]:
    """Differences of each budget and family in some metrics, the primary one first."""
    rows, primary = study.differences, study.params["analysis"]["primary"]
    budgets: dict[int, list[Table]] = {}
    for percent in study.percents:
        for family, title in WORDS["families"].items():
            found = [row for row in rows if (row["percent"], row["family"]) == (percent, family)]
            found = [row for row in found if row["metric"] in metrics]
            found.sort(key=lambda row: (row["metric"] != primary, list(NAMES).index(row["metric"])))
            if found:
                caption = title if len(study.percents) == 1 else f"{title}, {percent} % of the training cases"
                budgets.setdefault(percent, []).append(difference_table(study, caption, found))
    return budgets


def difference_table(study: Study, caption: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out differences as `comparisons.as_rows` gives them."""
    heads = [*words("arm", "against", "metric"), Column("difference (interval, all at once)"), Column("p")]
    return Table(caption, [*heads, *words("verdict")], [_difference(study, row) for row in rows], stacked=True)


def _difference(study: Study, row: Mapping[str, Any]) -> list[Cell]:
    cells = [label(study.title(row["arm"])), label(study.title(row["against"])), label(NAMES[row["metric"]])]
    p = number(row["p"], 3, reason=row["reason"] or "not computed")
    p = Cell("< 0.001", row["p"]) if row["p"] is not None and row["p"] < 0.001 else p
    return [*cells, estimated(simultaneous(row), signed=True), p, label(row["verdict"])]


def _by_subgroup(study: Study, strata: Mapping[str, list[Any]], kind: str, caption: str) -> Table | None:
    """One group of columns per metric, one column per subgroup with slices; None without subgroups to compare."""
    groups = WORDS["of_subgroups"]
    every = dict(next(iter(strata.values()))[0]["strata"][kind])
    cuts = every.pop("cut_points_mm2", ())
    known = {name: one for name, one in sorted(every.items(), key=_place) if one.get("slices")}
    if cuts is None or (kind == "block" and len(every) < 2):
        return None
    low, high = (f"{cut:,.0f} mm²" for cut in cuts or (0, 0))
    titles = {"small": f"below {low}", "middle": f"{low} to {high}", "large": f"from {high}"}
    metrics = [name for name in groups if all(name in one for one in known.values())]
    paths = [("strata", kind, subgroup, name) for name in metrics for subgroup in known]
    heads = []
    for _, _, subgroup, name in paths:
        one = known[subgroup]
        note = f"{groups[name]}; {one['cases']} cases"
        note += f", {one['tumor_slices']:,} tumor slices" if "tumor_slices" in one else ""
        title = f"{titles.get(subgroup, subgroup.replace('_', ' '))} (n = {one['slices']:,})"
        heads.append(Column(title, group=groups[name], note=note, shown=name == metrics[0]))
    rows = [
        [label(study.title(arm)), *(estimated(mean(seeds, path)) for path in paths)] for arm, seeds in strata.items()
    ]
    return Table(caption, [*words("arm"), *heads], rows)


def _place(subgroup: tuple[str, Any]) -> tuple[float, str]:
    """Sort sizes and kinds of negatives as listed, slice distances by their lower end, blocks by name."""
    name, _ = subgroup
    if name in LISTED:
        return LISTED.index(name), ""
    return float(name.split()[1]) if name.startswith("above ") else 99.0 if name.endswith("cyst") else 0.0, name
