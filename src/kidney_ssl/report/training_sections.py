"""The page's sections on pretraining, restorations, augmentation and cost."""

from typing import Any

from kidney_ssl.report.cells import MISSING, Cell, Column, Table, label, number, significant, whole
from kidney_ssl.report.figures import Axis, Panel, Picture, embed, panels
from kidney_ssl.report.study import Pictures, Study

PRETRAIN_BUDGET, RESTORE_BUDGET, AUGMENT_BUDGET = 1_000_000, 350_000, 400_000  # bytes for the pictures
PROBES = {
    "probe_knn_accuracy": "k nearest neighbours",
    "probe_linear_accuracy": "linear probe",
    "validation_loss": "validation loss",
}
ABSENT = "not on this machine"
RESTORED = ("restored", "hole")  # pictures that stand in the section of restorations
NO_MARK = "this augmentation has no such mark"


def pictures_of(pictures: Pictures, alt: str, limit: int) -> tuple[list[Picture], list[str]]:
    """Embed pictures with `alt` before their names; also gives the names of those that did not fit."""
    made = {name: embed(content, f"{alt}: {name.replace('_', ' ')}", limit) for name, content in pictures.items()}
    return [one for one in made.values() if one], [name for name, one in made.items() if not one]


def _nested(value: object) -> bool:
    return isinstance(value, (dict, list))


def pretrain_section(study: Study) -> dict[str, Any]:
    """Lay out what each pretraining reached beside trivial predictors, its curves and pictures."""
    count = sum(len(one.pictures) for one in study.pretrainings.values())
    shown = []
    for name, one in study.pretrainings.items():
        block = study.params["pretrain"]["methods"][name]
        words = f"{name}: {block['method']} from {block['start']} weights"
        held = {title: picture for title, picture in one.pictures.items() if title not in RESTORED}
        shown.append((name, *pictures_of(held, words, PRETRAIN_BUDGET // max(count, 1))))
    curves = {title: _curves(study, column, title) for column, title in PROBES.items()}
    tables = [_pretrainings(study), _pretexts(study)]
    return {
        "tables": [table for table in tables if table],
        "curves": {k: v for k, v in curves.items() if v},
        "controls": any(one.figures.get("control") for one in study.pretrainings.values()),
        "pictures": shown,
    }


def _pretrainings(study: Study) -> Table | None:
    """One row a pretraining: what it was, how long it trained, and what its frozen encoder knows."""
    rows = []
    for name, one in study.pretrainings.items():
        block = study.params["pretrain"]["methods"][name]
        task = block["method"] + (" (control)" if one.figures.get("control") else "")
        cells = [label(name), label(task), label(block["start"])]
        cells += [whole(one.figures.get("updates")), whole(one.figures.get("images"))]
        cells += [
            number(one.figures.get(f"probe_{kind}_accuracy"), reason="not probed")
            for kind in ("knn", "linear", "majority")
        ]
        rows.append(cells)
    columns = [Column(title, numeric=False) for title in ("pretraining", "task", "start")]
    columns += [Column(title) for title in ("updates", "slices seen", "k-NN", "linear probe", "majority class")]
    caption = "Pretrainings, and the accuracy of probes of the frozen encoder on validation slices"
    return Table(caption, columns, rows) if rows else None


def _pretexts(study: Study) -> Table | None:
    """One row a figure of the task, beside its trivial predictors: `mse_copy` is `mse` of one called copy."""
    found: list[tuple[str, str, float | None, dict[str, float | None]]] = []
    for name, one in study.pretrainings.items():
        said = {key: value for key, value in one.figures.items() if key.startswith("validation_")}
        measured = {key.removeprefix("validation_"): value for key, value in said.items()}
        pairs = {
            key: {other.removeprefix(f"{key}_"): measured[other] for other in measured if other.startswith(f"{key}_")}
            for key in measured
        }
        told = [key for key in pairs if pairs[key] and key != "loss"] or ["loss"]
        found += [(name, key, measured.get(key), pairs.get(key, {})) for key in told]
    trivial = list(dict.fromkeys(other for *_, pairs in found for other in pairs))
    columns = [Column("pretraining", numeric=False), Column("figure", numeric=False), Column("reached")]
    columns += [Column(other, note=f"reached by the trivial predictor: {other}") for other in trivial]
    rows = [
        [
            label(name),
            label(key.replace("_", " ")),
            number(value, reason="no validation slice has this figure"),
            *(number(pairs.get(other), reason="not a predictor of this task") for other in trivial),
        ]
        for name, key, value, pairs in found
    ]
    caption = "Figures of the tasks after the last epoch, on validation cases, and what trivial predictors reach"
    return Table(caption, columns, rows) if rows else None


def _curves(study: Study, column: str, title: str) -> list[Panel]:
    series = {}
    for name, one in study.pretrainings.items():
        if column in one.curves:
            known = one.curves.dropna(subset=[column])
            series[name] = [list(zip(known["epoch"].astype(float), known[column].astype(float), strict=True))]
    points = [point for lines in series.values() for line in lines for point in line]
    if not points:
        return []
    x = Axis.over("epoch", [point[0] for point in points], integer=True)
    shown = panels(column, series, x, Axis.over(title, [point[1] for point in points]))
    if column != "validation_loss":
        return shown
    # Losses of different tasks have no common scale, so each has its own and nothing stands behind it.
    alone = []
    for number_, (name, lines) in enumerate(series.items()):
        own = Axis.over(title, [point[1] for line in lines for point in line])
        own_x = Axis.over("epoch", [point[0] for line in lines for point in line], integer=True)
        alone += panels(f"{column}-{number_}", {name: lines}, own_x, own)
    return alone


def restore_section(study: Study) -> dict[str, Any]:
    """Lay out the restorations: each loss beside the error and the sharpness that it came to."""
    figures = ("mse", "mse_copy", "mse_mean", "psnr", "ssim", "sharpness")
    rows, pictures = [], []
    for name, one in study.restorations.items():
        options = one.figures.get("options") or {}
        cells = [label(name), label(options.get("loss", MISSING)), label(options.get("region", MISSING))]
        cells += [whole(one.figures.get("updates"))]
        rows.append(cells + [number(one.figures.get(f"validation_{key}"), reason="not measured") for key in figures])
        held = {key: one.pictures[key] for key in RESTORED if key in one.pictures}
        pictures.append((name, *pictures_of(held, name, RESTORE_BUDGET // (len(RESTORED) * len(study.restorations)))))
    columns = [Column(title, numeric=False) for title in ("pretraining", "trained with", "counted over")]
    titles = ("updates", "MSE", "MSE of the input", "MSE of the mean", "PSNR, dB", "SSIM", "sharpness")
    columns += [Column(title) for title in titles]
    caption = "Restorations after the last epoch, in what was changed, on validation slices"
    return {"table": Table(caption, columns, rows) if rows else None, "pictures": pictures}


def augmented_arms(study: Study) -> dict[str, str]:
    """The arms that augment their training slices, and with what."""
    found = {arm: block.get("augmentation", "none") for arm, block in study.params["arms"].items()}
    return {arm: name for arm, name in found.items() if name != "none"}


def augment_section(study: Study) -> dict[str, Any]:
    """Lay out augmentation pictures, and what an epoch of each augmented arm holds."""
    arms = augmented_arms(study)
    measured = {arm: study.explained[arm] for arm in arms if arm in study.explained}
    limit = AUGMENT_BUDGET // max(sum(len(one.operations) for one in measured.values()), 1)
    figures = {arm: one.augmentation for arm, one in measured.items() if one.augmentation}
    keys = list(dict.fromkeys(key for one in figures.values() for key, value in one.items() if not _nested(value)))
    # Upright: many figures, few augmentations.
    columns = [Column("figure of an epoch", numeric=False), *(Column(name) for name in figures)]
    rows = [
        [label(key.replace("_", " ")), *(significant(one.get(key), NO_MARK) for one in figures.values())]
        for key in keys
    ]
    return {
        "arms": arms,
        "table": Table("What an epoch of each augmented arm holds", columns, rows) if rows else None,
        "pictures": [
            (arm, *pictures_of(one.operations, arm, limit)) for arm, one in measured.items() if one.operations
        ],
        "without": [arm for arm in arms if arm not in figures],
    }


def cost_section(study: Study) -> Table:
    """Lay out what each stage cost on this machine, from logs that no result depends on.

    The report stage itself is still running when the page is written, so it is not in the table.
    """
    runs = [run.name for run in study.runs]
    named: dict[str, list[str]] = {
        "initialize": [name for name, block in study.params["initialize"].items() if block],
        "pretrain": list(study.pretrainings),
        "arm": list(study.params["arms"]),
        "finetune": runs,
        "evaluate": runs,
        "explain": list(study.params["arms"]),
    }
    expected = ["download", "select", "slice", "normalize"]
    expected += [f"{stage}/{name}" for stage, names in named.items() for name in names]
    rows = []
    for name in expected:
        log = study.logs.get(name, {})
        stage, _, of = name.partition("/")
        updates = log.get("updates")
        if stage == "pretrain":
            updates = study.pretrainings[of].figures.get("updates")
        seconds, images = log.get("seconds"), log.get("images")
        memory = next((value for key, value in log.items() if "memory" in key), None)
        speed = images / seconds if seconds and images else None
        why = "this stage does not record it" if log else ABSENT
        rows.append(
            [
                label(stage),
                label(of) if of else Cell(MISSING, note="the stage has one run"),
                number(seconds, 1, reason=why) if log else Cell(ABSENT),
                whole(images, why),
                number(speed, 1, reason=why),
                whole(updates, why),
                significant(memory, why),
                significant(log.get("device"), why),
            ]
        )
    titles = ("stage", "run", "wall seconds", "slices", "slices per second", "updates", "peak memory, MB", "device")
    columns = [Column(title, numeric=title not in ("stage", "run", "device")) for title in titles]
    return Table("Cost of each stage, on this machine", columns, rows)
