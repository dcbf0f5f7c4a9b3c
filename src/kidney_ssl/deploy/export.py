"""Export of a finished study's network as a folder for somebody else."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from kidney_ssl.config import Params
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.budgets import rows_of
from kidney_ssl.deploy.familiarity import QUANTILE, calibrate
from kidney_ssl.deploy.network_folder import (
    ENCODER,
    FAMILIARITY,
    MODEL,
    NOTICE,
    SETTINGS,
    Classifier,
    Settings,
    with_library_names,
)
from kidney_ssl.deploy.onnx_graph import write_onnx
from kidney_ssl.deploy.predict import RULE
from kidney_ssl.engine.batches import read_part
from kidney_ssl.errors import InputError
from kidney_ssl.files import write_text
from kidney_ssl.jobs.finetuning import MODEL as TRAINED
from kidney_ssl.jobs.finetuning import Finetuning
from kidney_ssl.jobs.study import Study
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.classification import classification_metrics, read_predictions
from kidney_ssl.models.resnet import RESNETS, classifier
from kidney_ssl.models.weights import encoder_state, load_classifier, save_weights
from kidney_ssl.report.rendering import render
from kidney_ssl.schema import LABELLED, THRESHOLD

ONNX, CARD = "model.onnx", "README.md"
BATCH = 32
METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "brier")


def export(settings: Params, arm: str, percent: int, seed: int, out: Path, *, onnx: bool = False) -> None:
    """Write the network folder of a run of the study in the current folder; see `network_folder`.

    Args:
        settings: the study's parameters.
        arm: name of the arm.
        percent: label budget of the run.
        seed: its seed.
        out: the folder.
        onnx: whether to write the ONNX graph too.

    Raises:
        InputError: there is no such arm or run, its network was not kept, or a file of the study is missing.
    """
    if settings.data.source == "table":
        raise InputError("export: `predict` reads CT alone, and this study's images are none (data.source: table)")
    run = run_folder(settings, arm, percent, seed)
    network = settings.network
    model = classifier(network, 0)
    load_classifier(model, run / TRAINED)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    looking = Classifier(model, settings.explain.layer, device)
    rows, features = _labelled(looking, run)
    reference, scores, bound = calibrate(features, rows["case"].to_numpy())
    described = _describe(settings, (arm, percent, seed), rows, scores, bound)
    model.cpu()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SETTINGS).unlink(missing_ok=True)  # a folder half written over is no network folder
        save_weights(with_library_names(model.state_dict(), network), out / MODEL)
        save_weights(with_library_names(encoder_state(model), network), out / ENCODER)
        reference.save(out / FAMILIARITY)
        if onnx:
            write_onnx(model, described.window, described.range, described.frame.size, out / ONNX)
        else:
            (out / ONNX).unlink(missing_ok=True)
        write_text(out / CARD, _card(settings, described, run, onnx=onnx))
        write_json(out / SETTINGS, described.model_dump(mode="json"))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); choose another --to") from error


def run_folder(settings: Params, arm: str, percent: int, seed: int) -> Path:
    """Folder of a run with its network: what `finetune` collected, else the run store.

    Raises:
        InputError: there is no such arm or run, or its network was not kept.
    """
    if arm not in settings.arms:
        raise InputError(f"no arm '{arm}' in params.yaml, known: {', '.join(settings.arms)}")
    if (percent, seed) not in settings.budgets:
        known = ", ".join(f"--percent {one} --seed {other}" for one, other in settings.budgets[:10])
        raise InputError(f"no run of {percent} % with seed {seed} in params.yaml, known: {known}")
    collected = Path(f"models/finetune/{arm}/{percent}-{seed}")
    if (collected / TRAINED).exists():
        return collected
    study = Study(settings)
    key = Finetuning(study, arm, percent, seed).key()
    if key is not None and study.store.has(key, (TRAINED, "predictions.csv", "cases.csv")):
        return study.store.path(key)
    raise InputError(
        f"the network of {arm} at {percent} % with seed {seed} is not there: run `dvc repro` with "
        "finetune.keep: all, or export the explained run (no --percent, no --seed)"
    )


def _labelled(looking: Classifier, run: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The training and validation slices of a run's budget, and their features (N, d)."""
    ranked = load_rows(run / "cases.csv")
    tables, features = [], []
    for part in LABELLED:
        arrays = read_part(f"data/normalized/{part}_images.npy", f"data/slices/{part}.csv")
        used = rows_of(arrays.frame, ranked, part)
        tables.append(arrays.frame.iloc[used])
        features += [
            looking.look(np.array(arrays.images[some]), maps=False).features
            for some in np.array_split(used, max(1, -(-len(used) // BATCH)))
        ]
    return pd.concat(tables, ignore_index=True), np.concatenate(features)


def _describe(
    settings: Params, run: tuple[str, int, int], rows: pd.DataFrame, scores: list[float], bound: float
) -> Settings:
    """Content of network.json for a run (arm, percent, seed)."""
    arm, percent, seed = run
    normalization = _read("metrics/normalization.json")
    classes = settings.data.classes
    return Settings.model_validate(
        {
            "format": 1,
            "notice": NOTICE,
            "network": settings.network,
            "arm": arm,
            "percent": percent,
            "seed": seed,
            "classes": {"organ": classes.organ, "tumor": classes.tumor, "cyst": classes.cyst, "paired": classes.paired},
            "min_tumor_px": settings.select.min_tumor_px,
            "threshold": THRESHOLD,
            "frame": {
                "size": settings.slice.image_size,
                "body_hu": settings.slice.body_hu,
                "opening_mm": settings.slice.body_opening_mm,
            },
            "window": normalization["window"],
            "range": normalization["range"],
            "regions": _read("data/normalized/regions.json"),
            "layer": settings.explain.layer,
            "familiar": {
                "cases": len(scores),
                "slices": len(rows),
                "spacing_mm": _bounds(rows["spacing_mm"]),
                "thickness_mm": _bounds(rows["thickness_mm"]),
                "quantile": QUANTILE,
                "bound": bound,
                "scores": scores,
            },
        }
    )


def _bounds(column: pd.Series) -> list[float]:
    values = column.astype(float)
    return [float(values.min()), float(values.max())]


def _read(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read; export from the folder of a finished study") from error


def _card(settings: Params, described: Settings, run: Path, *, onnx: bool) -> str:
    """The model card, with the run's own test metrics."""
    rows = read_predictions(run / "predictions.csv")
    test = rows[rows["part"] == "test"]
    measured = classification_metrics(test, "the test part")
    weights = settings.arms[described.arm].weights
    known = described.familiar
    return render(
        "card.md",
        "kidney_ssl.deploy",
        notice=NOTICE,
        rule=RULE,
        network=described.network.replace(":", "-"),
        library="torchvision" if described.network in RESNETS else "timm",
        arm=described.arm,
        percent=described.percent,
        seed=described.seed,
        organ=described.classes.organ,
        tumor=described.classes.tumor,
        min_tumor_px=described.min_tumor_px,
        weights=weights,
        augmentation=settings.arms[described.arm].augmentation,
        origin=_origin(settings, weights),
        onnx=onnx,
        size=described.frame.size,
        body_hu=described.frame.body_hu,
        opening_mm=f"{described.frame.opening_mm:g}",
        low=f"{described.window[0]:g}",
        high=f"{described.window[1]:g}",
        by={"window": "window's bounds", "image": "slice's own least and largest value"}[described.range],
        source=settings.data.source,
        cases=known.cases,
        slices=known.slices,
        spacing=_range(known.spacing_mm),
        thickness=_range(known.thickness_mm),
        test_slices=len(test),
        test_cases=test["case"].nunique(),
        metrics={name: f"{measured[name]:.3f}" if isinstance(measured[name], float) else "none" for name in METRICS},
    )


def _range(bounds: tuple[float, float]) -> str:
    return " to ".join(f"{mm:.2f}" for mm in bounds)


def _origin(settings: Params, weights: str) -> str:
    """Where the published initial weights behind an arm are from; empty for random ones."""
    kind, _, name = weights.partition("/")
    start = settings.pretrain.methods[name].start if kind == "pretrain" else name
    path = Path(f"metrics/initialize/{start}.json")
    record: Mapping[str, Any] = _read(str(path)) if path.exists() else {}
    if "origin" not in record:
        return ""
    return re.sub(r"\s+", " ", f"{record['origin']}, licence {record['licence']}, sha256 {record['sha256']}")
