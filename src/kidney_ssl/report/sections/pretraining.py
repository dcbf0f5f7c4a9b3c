"""Pretraining, restorations, augmentation, and what everything cost."""

from statistics import fmean
from typing import Any

from kidney_ssl.metrics.trivial_predictors import PREFIX, beside_trivial
from kidney_ssl.report.charts import Axis, Curve, Panel, panels, scatter
from kidney_ssl.report.images import Picture, embed
from kidney_ssl.report.metric_tables import mean, table_of
from kidney_ssl.report.names import WORDS, arm_name
from kidney_ssl.report.study import Pictures, Study
from kidney_ssl.report.table_cells import Column, Table, label, number, words
from kidney_ssl.statistics.analysis_plan import NAMES

PRETRAIN_BUDGET, RESTORE_BUDGET, AUGMENT_BUDGET = 1_000_000, 350_000, 400_000  # bytes for the pictures
ABSENT = "not on this machine, or not recorded by this stage"
NO_MARK = "this augmentation has no such mark"
RESTORED = ("restored", "hole")  # pictures that stand with the restorations
Shown = tuple[str, list[Picture], list[str]]


def _embedded(name: str, pictures: Pictures, limit: int) -> Shown:
    """Embed pictures under a name; the names of those that did not fit come last."""
    made = {one: embed(content, f"{name}: {one.replace('_', ' ')}", limit) for one, content in pictures.items()}
    return name, [one for one in made.values() if one], [one for one, picture in made.items() if not picture]


def pretrain_section(study: Study) -> dict[str, Any]:
    """Lay out what each pretraining reached beside trivial predictors, its curves and pictures."""
    limit = PRETRAIN_BUDGET // max(sum(len(one.pictures) for one in study.pretrainings.values()), 1)
    shown = []
    for name, one in study.pretrainings.items():
        start = study.params["pretrain"]["methods"][name]["start"]
        held = {title: picture for title, picture in one.pictures.items() if title not in RESTORED}
        shown.append(_embedded(f"{arm_name(name)}, from {start} weights", held, limit))
    return {
        "tables": pretrain_tables(study),
        "curves": {
            title: charts
            for column, title in WORDS["pretraining_curves"].items()
            if (charts := _curves(study, column, title))
        },
        "controls": any(one.figures[0].get("control") for one in study.pretrainings.values()),
        "pictures": shown,
    }


def pretrain_tables(study: Study) -> list[Table]:
    """What each pretraining was and what its frozen encoder knows; metrics of the tasks beside trivial predictors."""
    rows = {}
    for name, one in study.pretrainings.items():
        block = study.params["pretrain"]["methods"][name]
        task = arm_name(block["method"]) + (" (control)" if one.figures[0].get("control") else "")
        said = {"task": task, "start": block["start"], "seeds": len(one.figures)}
        rows[arm_name(name)] = [figures | said for figures in one.figures]
    return [table for table in (table_of("pretrainings", rows, "not probed"), _tasks(study)) if table]


def _tasks(study: Study) -> Table | None:
    """One row per metric of a task, one column per trivial predictor."""
    found = []
    for name, of in study.pretrainings.items():
        means = {key: mean(of.figures, [key]).value for key in of.figures[0] if key.startswith(PREFIX)}
        found += [(name, *one) for one in beside_trivial(means)]
    trivial = list(dict.fromkeys(other for *_, pairs in found for other in pairs))
    columns = [*words("pretraining", "metric"), Column("reached")]
    columns += [Column(other, note=f"reached by the trivial predictor: {other}") for other in trivial]
    rows = [
        [
            label(arm_name(name)),
            label(key.upper() if key in ("mse", "psnr", "ssim") else key.replace("_", " ")),
            number(value, None, reason="no validation slice has this metric"),
            *(number(pairs.get(other), None, reason="not a predictor of this task") for other in trivial),
        ]
        for name, key, value, pairs in found
    ]
    caption = "Metrics of the tasks after the last epoch, on validation cases, and what trivial predictors reach"
    return Table(caption, columns, rows) if rows else None


def _curves(study: Study, column: str, title: str) -> list[Panel]:
    """Curves over epochs, a line a seed; losses of different tasks have no common scale, so each has its own."""
    curves = {}
    for name, one in study.pretrainings.items():
        if column in one.curves:
            of_seeds = [of for _, of in one.curves.dropna(subset=[column]).groupby("seed")]
            curves[arm_name(name)] = [Curve(of["epoch"].to_numpy(float), of[column].to_numpy(float)) for of in of_seeds]
    return panels(column, curves, Axis("epoch"), Axis(title), shared=column != "validation_loss")


def restore_section(study: Study) -> dict[str, Any]:
    """Lay out the restorations: each loss with its error and sharpness."""
    limit = RESTORE_BUDGET // (len(RESTORED) * max(len(study.restorations), 1))
    shown = []
    for name, one in study.restorations.items():
        held = {key: one.pictures[key] for key in RESTORED if key in one.pictures}
        shown.append(_embedded(arm_name(name), held, limit))
    rows = {arm_name(name): one.figures for name, one in study.restorations.items()}
    return {"table": table_of("restorations", rows), "pictures": shown}


def augment_section(study: Study) -> dict[str, Any]:
    """Lay out augmentation pictures, and what an epoch of each augmented arm holds."""
    arms = [arm for arm, block in study.params["arms"].items() if block.get("augmentation", "none") != "none"]
    shown = {study.title(arm): study.explained[arm] for arm in arms if arm in study.explained}
    limit = AUGMENT_BUDGET // max(sum(len(one.operations) for one in shown.values()), 1)
    flat = {
        arm: {k: v for k, v in one.augmentation.items() if v is None or isinstance(v, (int, float))}
        for arm, one in shown.items()
        if one.augmentation
    }
    # Upright: many metrics, few augmentations.
    rows = [
        [label(key.replace("_", " ")), *(number(one.get(key), None, reason=NO_MARK) for one in flat.values())]
        for key in dict.fromkeys(key for one in flat.values() for key in one)
    ]
    heads = [*words("in an epoch"), *map(Column, flat)]
    return {
        "arms": arms,
        "table": Table("What an epoch of each augmented arm holds", heads, rows) if rows else None,
        "pictures": [_embedded(arm, one.operations, limit) for arm, one in shown.items() if one.operations],
        "without": [study.title(arm) for arm in arms if study.title(arm) not in flat],
    }


def cost_section(study: Study) -> dict[str, Any]:
    """Lay out what each arm's training took against its primary metric, and what each stage took on this machine."""
    primary = study.params["analysis"]["primary"]
    points = []
    for arm in study.params["arms"]:
        name = study.pretraining(arm)
        runs = [run for run in study.runs if (run.arm, run.percent) == (arm, study.percents[0])]
        took: list[Any] = [study.logs.get(f"finetune/{run.name}", {}).get("seconds") for run in runs]
        before: list[Any] = [log.get("seconds") for log in study.pretraining_logs(name)] if name else [0]
        one = study.estimate(primary, arm)
        if None not in before + took and one.value is not None:
            points.append((study.title(arm), (fmean(before) + fmean(took)) / 60, one))
    devices = {str(log["device"]) for log in study.logs.values() if log.get("device")}
    x = f"minutes of pretraining and fine-tuning ({', '.join(sorted(devices)).upper() or 'this machine'})"
    charts = [
        scatter(f"cost{width}", points, said, NAMES[primary], width=width)
        for width, said in ((760, x), (320, "minutes of training"))
        if len(points) > 1
    ]
    return {"charts": charts, "table": _stages(study)}


def _stages(study: Study) -> Table | None:
    """What each stage took; the report itself is still running when the page is written."""
    names = {stage: stage for stage in ("download", "select", "slice", "normalize")}
    names |= {f"initialize/{one}": f"initialize {one}" for one in study.params["initialize"]}
    names |= {
        f"pretrain/{one}-{seed}": f"pretrain {arm_name(one)}, seed {seed}"
        for one, block in study.params["pretrain"]["methods"].items()
        for seed in block["seeds"]
    }
    names |= {
        f"finetune/{one.name}": f"finetune {study.title(one.arm)}, {one.percent} %, seed {one.seed}"
        for one in study.runs
    }
    for stage in ("evaluate", "explain"):
        names |= {f"{stage}/{arm}": f"{stage} {study.title(arm)}" for arm in study.params["arms"]}
    rows = {}
    for name, title in names.items():
        log = dict(study.logs.get(name, {}))
        if log.get("seconds") and log.get("images"):
            log["speed"] = log["images"] / log["seconds"]
        rows[title] = [log]
    return table_of("stages", rows, ABSENT)
