"""A small made-up study as files, with everything that the page may find."""

import copy
import hashlib
import json
import shutil
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kidney_ssl import config
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics import case_intervals
from kidney_ssl.metrics.classification import read_predictions
from kidney_ssl.metrics.over_seeds import Run, means, spreads
from kidney_ssl.metrics.run import arm_intervals, evaluate_run
from kidney_ssl.statistics.analysis_plan import add_intervals, as_rows, compare, learning
from kidney_ssl.thesis.published import published_metrics
from kidney_ssl.yamlfile import read_yaml

ROOT = Path(__file__).parents[3]
SIDE = 32
PARTS = {"train": 9, "validation": 3, "test": 6}  # cases
ARMS = {"random": "initial/random", "rotation": "pretrain/rotation", "inpaint_random": "pretrain/inpaint_random"}


def png(generator: np.random.Generator, height: int = 24, width: int = 48) -> bytes:
    """A colour picture of noise: nothing is harder to pack."""
    buffer = BytesIO()
    Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_study(
    root: Path,
    *,
    arms: dict[str, str] | None = None,
    seeds: tuple[int, ...] = (0,),
    pretraining_seeds: tuple[int, ...] = (0,),
    percents: tuple[int, ...] = (100,),
    epochs: int = 3,
    source: str = "phantom",
    published: bool = False,
    constant: bool = False,
    classes: tuple[str, ...] = ("tumor", "kidney", "background", "tumor"),
    test_cases: int = PARTS["test"],
    extras: bool = True,
    picture: tuple[int, int] = (24, 48),
) -> dict[str, Any]:
    """Write a study below `root` and give its parameters.

    Args:
        root: the project's folder; a copy of studies/smoke.yaml becomes its params.yaml.
        arms: arm -> weights.
        seeds: of the fine-tuning.
        pretraining_seeds: of each pretraining.
        percents: the label budgets.
        epochs: of pretraining and fine-tuning.
        source: of the data.
        published: see params.yaml.
        constant: every prediction is the same.
        classes: of the slices of each case.
        test_cases: cases of the test part.
        extras: what later stages write: explain, augmentation, restoration, logs.
        picture: height and width of those stages' pictures.
    """
    generator = np.random.default_rng(0)
    arms = arms or ARMS
    root.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "studies/smoke.yaml", root / "params.yaml")
    settings: dict[str, Any] = read_yaml((root / "params.yaml").read_text(encoding="utf-8"))
    settings["finetune"] = config.load(root / "params.yaml").model_dump(mode="json")["finetune"]  # with its recipe
    block = settings["pretrain"]["common"] | settings["pretrain"]["methods"]["rotation"]
    weights = dict.fromkeys(arms.values())
    names = [one.removeprefix("pretrain/") for one in weights if one.startswith("pretrain/")]
    settings["pretrain"]["methods"] = {
        name: block | {"method": name, "seeds": list(pretraining_seeds)} for name in names
    }
    settings["arms"] = {arm: {"weights": one, "augmentation": "none"} for arm, one in arms.items()}
    if extras:
        settings["arms"][list(arms)[:2][-1]]["augmentation"] = "supervised"
    settings["runs"] = {percent: list(seeds) for percent in percents}
    settings["budgets"] = sorted(product(percents, seeds))
    settings["data"]["source"] = source
    settings["report"]["published"] = published

    tables = _slices(root / "data", generator, classes, PARTS | {"test": test_cases})
    (root / "data/LICENSE.txt").write_text("Drawn. <script>alert(1)</script>\n", encoding="utf-8")
    _selection(root / "metrics", tables)
    for name in names:
        _pretraining(root, name, epochs, generator, pretraining_seeds)
    runs = [Run(arm, *budget) for arm in arms for budget in settings["budgets"]]
    for run in runs:
        _finetuning(root / run.folder, tables, epochs, generator, constant=constant)
    results = {run: _evaluated(root / run.folder, root / "data/slices") for run in runs}
    for arm in arms:
        of_arm: dict[str, Any] = {run.budget: metrics for run, metrics in results.items() if run.arm == arm}
        folders = {p: [root / run.folder for run in runs if (run.arm, run.percent) == (arm, p)] for p in percents}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(case_intervals, "RESAMPLES", 50)  # what the ends are is nothing to a page
            of_arm["intervals"] = {str(p): arm_intervals(of, root / "data/slices") for p, of in folders.items()}
        write_json(root / f"report/evaluate/{arm}.json", of_arm)
    settings["analysis"] |= {"baseline": next(iter(arms)), "contrasts": [], "resamples": 200}
    tested: dict[int, dict[str, list[pd.DataFrame]]] = {}
    for run in runs:
        rows = read_predictions(root / run.folder / "predictions.csv")
        tested.setdefault(run.percent, {}).setdefault(run.arm, []).append(rows)
    compared = {percent: compare(of_budget, settings["analysis"]) for percent, of_budget in tested.items()}
    summary = means(results) | (published_metrics(arms) if published else {}) | spreads(results)
    write_json(root / "metrics/summary.json", add_intervals(summary, compared))
    write_json(root / "metrics/comparisons.json", {"differences": as_rows(compared)})
    write_json(root / "metrics/learning.json", learning(compared, settings["analysis"]))
    if extras:
        _extras(root, list(arms), names, tables["test"], generator, picture=picture)
        for run in runs[:-1]:
            write_json(root / f"logs/finetune/{run.name}.json", {"seconds": 20.0, "images": 500})
    return settings


EVALUATED: dict[str, dict[str, Any]] = {}  # by the bytes of all files that it is made of: many studies have the same


def _evaluated(run: Path, slices: Path) -> dict[str, Any]:
    files = sorted(path for folder in (run, slices) for path in folder.iterdir() if path.suffix in (".csv", ".npy"))
    key = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).hexdigest()
    if key not in EVALUATED:
        EVALUATED[key] = evaluate_run(run, slices)
    return copy.deepcopy(EVALUATED[key])


def _slices(
    data: Path, generator: np.random.Generator, classes: tuple[str, ...], parts: dict[str, int]
) -> dict[str, pd.DataFrame]:
    (data / "slices").mkdir(parents=True)
    (data / "normalized").mkdir()
    tables, first = {}, 0
    for part, cases in parts.items():
        rows: list[dict[str, Any]] = []
        for case in range(first, first + cases):
            for number, kind in enumerate(classes):
                tumor = int(generator.integers(20, 200)) if kind == "tumor" else 0
                rows.append({"case": f"case_{case:05d}", "slice": number, "class": kind, "label": int(kind == "tumor")})
                rows[-1] |= {"tumor_px": tumor, "tumor_mm2": 4.0 * tumor, "spacing_mm": 2.0, "thickness_mm": 5.0}
                rows[-1] |= {"cyst_px": 9 * (number % 2), "block": f"block {case % 2}"}
                rows[-1] |= {"body_mm2": 40_000.0, "top": 2, "bottom": 30, "left": 1, "right": 31}
        first += cases
        tables[part] = pd.DataFrame(rows)
        tables[part].to_csv(data / f"slices/{part}.csv", index=False)
        shape = (len(rows), SIDE, SIDE)
        hu = generator.integers(-1000, 1000, shape).astype(np.int16)
        np.save(data / f"slices/{part}_images.npy", hu)
        np.save(data / f"slices/{part}_masks.npy", generator.integers(0, 4, shape).astype(np.uint8))
        np.save(data / f"normalized/{part}_images.npy", ((hu + 1000) / 2000).astype(np.float16))
    hu_rows = [("case_00000", value, 5) for value in range(-100, 300, 3)]
    pd.DataFrame(hu_rows, columns=["case", "hu", "count"]).to_csv(data / "slices/tumor_hu.csv", index=False)
    write_json(data / "normalized/regions.json", {"left": [0.4, 0.8, 0.1, 0.4], "right": [0.4, 0.8, 0.6, 0.9]})
    return tables


def _selection(metrics: Path, tables: dict[str, pd.DataFrame]) -> None:
    chosen = {part: table["class"].value_counts().sort_index().to_dict() for part, table in tables.items()}
    total = pd.concat(tables.values())["class"].value_counts().sort_index()
    content = {
        "slices_total": 1000,
        "cases_total": sum(table["case"].nunique() for table in tables.values()),
        "cases_without_tumor_slice": 1,
        "slices_per_case": {"min": 14, "median": 20.0, "max": 90},
        "candidates_total": {name: int(count) + 10 for name, count in total.items()},
        "left_out_small_tumor": 77,
        "chosen": chosen,
        "chosen_total": int(total.sum()),
        "cases": {part: {"other": int(table["case"].nunique())} for part, table in tables.items()},
    }
    write_json(metrics / "selection.json", content)
    held = {"kidney": 0.99, "tumor": 0.9, "positive_slices_outside": 0.0, "positive_slices_partly_outside": None}
    regions = {"source": "smallest", "train": held, "validation": held}
    window = {
        "source": "training tumor pixels",
        "range": "window",
        "window": [-98.0, 290.0],
        "p0_5": -98.0,
        "p99_5": 290.0,
    }
    write_json(metrics / "normalization.json", window | {"n": 670, "mean": 98.0, "std": 110.0, "regions": regions})


def _pretraining(root: Path, name: str, epochs: int, generator: np.random.Generator, seeds: tuple[int, ...]) -> None:
    every, last = [], {}
    for seed in seeds:
        curves = pd.DataFrame({"epoch": range(1, epochs + 1), "validation_loss": np.linspace(1, 0.1, epochs) + seed})
        curves["validation_mse"], curves["validation_mse_copy"] = 0.02 + seed, 0.08
        probed = np.where(curves["epoch"] == epochs, 0.7 - seed / 10, np.nan)
        curves["probe_knn_accuracy"] = curves["probe_linear_accuracy"] = probed
        curves["probe_majority_accuracy"] = 0.5
        last[seed] = curves.iloc[-1].to_dict() | {"updates": 40, "images": 640}
        every.append(curves.assign(seed=seed))
    path = root / f"metrics/pretrain/{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(every).to_csv(path, index=False)
    write_json(path.with_suffix(".json"), last)
    picture = root / f"report/pretrain/{name}/before_after.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(png(generator))


def _finetuning(
    folder: Path, tables: dict[str, pd.DataFrame], epochs: int, generator: np.random.Generator, *, constant: bool
) -> None:
    parts = []
    for part in ("validation", "test"):
        rows = tables[part][["case", "slice", "class", "label"]].assign(part=part)
        noise = generator.uniform(0, 1, len(rows)).round(4)
        parts.append(rows.assign(probability=0.5 if constant else (0.6 * noise + 0.4 * rows["label"])))
    folder.mkdir(parents=True)
    pd.concat(parts).to_csv(folder / "predictions.csv", index=False)
    test = parts[1]
    called = test["probability"] >= 0.5
    hit = (called & (test["label"] == 1)).sum()
    wrong = (called != (test["label"] == 1)).sum()
    curves = pd.DataFrame({"learning_rate": 0.1, "epoch": range(1, epochs + 1)})
    curves["train_loss"] = np.linspace(0.7, 0.2, epochs)
    curves["validation_auroc"] = np.linspace(0.6, 0.9, epochs)
    curves["test_accuracy"] = 1 - wrong / len(test)
    curves["test_f1"] = 2 * hit / (2 * hit + wrong) if hit + wrong else np.nan
    curves["selected"] = (curves["epoch"] == epochs).astype(int)
    curves.to_csv(folder / "curves.csv", index=False)
    _further(folder, test, epochs, np.random.default_rng(len(f"{folder.parent.name}-{folder.name}")), constant=constant)


def _further(folder: Path, test: pd.DataFrame, epochs: int, generator: np.random.Generator, *, constant: bool) -> None:
    """Every epoch's test probabilities, all slices of the test cases, and probes of the frozen encoder."""
    every = generator.uniform(0, 1, (epochs, len(test))).round(4)
    every[-1] = test["probability"]
    np.save(folder / "epochs.npy", every.astype(np.float32))
    chosen = test[["case", "slice", "class", "probability"]]
    more = [chosen]
    for number, kind in enumerate(("small", "kidney", "background", "background")):
        rows = chosen.drop_duplicates("case").assign(slice=100 + number, **{"class": kind})
        drawn = generator.uniform(0, 0.7, len(rows)).round(4)
        more.append(rows.assign(probability=0.5 if constant else drawn))
    pd.concat(more).to_csv(folder / "natural.csv", index=False)
    frozen = test[["case", "slice", "class", "label"]].assign(linear=generator.uniform(0, 1, len(test)).round(4))
    frozen.assign(knn=np.nan).to_csv(folder / "frozen.csv", index=False)


def _extras(
    root: Path,
    arms: list[str],
    pretrainings: list[str],
    test: pd.DataFrame,
    generator: np.random.Generator,
    *,
    picture: tuple[int, int],
) -> None:
    """What explain and restoration write, of every arm but the last; the second is augmented."""
    augmented = arms[:2][-1]
    for arm in arms[:-1]:
        folder = root / f"report/explain/{arm}"
        folder.mkdir(parents=True)
        rows = test.head(8)[["case", "slice", "class", "label"]].reset_index(drop=True)
        rows["kind"] = np.where(rows.index < 4, "same", "error")
        rows["file"] = [f"{row.kind}_{row.case}_{row.slice:04d}.png" for row in rows.itertuples()]
        rows["outcome"] = np.array(["TP", "FN", "FP", "TN"])[rows.index % 4]
        rows["baseline_outcome"] = np.array(["TP", "TP", "TN", "TN"])[rows.index % 4]
        rows.assign(probability=0.25).to_csv(folder / "cards.csv", index=False)
        for file in rows["file"]:
            (folder / file).write_bytes(png(generator, *picture))
        shares = {f"{kind}_{name}": 0.25 for kind in ("share", "area") for name in ("tumor", "kidney", "body")}
        figures = shares | {"null_maps": 1, "slices": 8}
        figures |= {f"randomised_{key}": value for key, value in figures.items()}
        extra = {"layer": "layer2", "map_height": 4, "map_width": 4, "correlation_randomised": 0.1}
        rates = {"prevalence": 0.5, "square_label_0": 0.31} if arm == augmented else None
        write_json(root / f"metrics/explain/{arm}.json", figures | extra | {"augmentation": rates})
    correlation = {one: {other: 1.0 if one == other else -0.2 for other in arms[:-1]} for one in arms[:-1]}
    write_json(root / "metrics/explain_correlation.json", correlation)
    for name in pretrainings[-1:]:
        path = root / f"metrics/pretrain/{name}.json"
        restored = {"validation_mse": 0.0123, "validation_ssim": None, "validation_sharpness": 0.7}
        options = {"options": {"loss": "dice_squared", "region": "hole"}}
        before = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {seed: one | restored | options for seed, one in before.items()})
        (root / f"report/pretrain/{name}").mkdir(parents=True, exist_ok=True)
        (root / f"report/pretrain/{name}/restored.png").write_bytes(png(generator))
    folder = root / f"report/explain/{augmented}/augmentation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "squares.png").write_bytes(png(generator, *picture))
