"""The evidence for the claims, read from the files of a study."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kidney_ssl.data.patients import patient_column
from kidney_ssl.errors import InputError
from kidney_ssl.metrics.classification import read_predictions
from kidney_ssl.metrics.over_seeds import Run
from kidney_ssl.metrics.saliency import measured
from kidney_ssl.thesis.evidence import Evidence


def read_evidence(root: Path, settings: Mapping[str, Any]) -> Evidence:
    """Gather what the verdicts rest on.

    Args:
        root: the project's folder.
        settings: `kidney_ssl.config.Params.model_dump()`; what takes part comes from here, never from the files.

    Raises:
        InputError: a run's predictions are missing or damaged, or maps are not of the test slices.
    """
    predictions: dict[int, dict[str, list[Any]]] = {}
    for percent, seed in settings["budgets"]:
        for arm in settings["arms"]:
            table = read_predictions(root / Run(arm, percent, seed).folder / "predictions.csv")
            predictions.setdefault(percent, {}).setdefault(arm, []).append(table)
    files = {arm: root / f"report/explain/{arm}/maps.npy" for arm in settings["arms"]}
    maps = {arm: np.load(path) for arm, path in files.items() if path.exists()}
    return Evidence(
        params=settings,
        predictions=predictions,
        pretrainings=_figures(root / "metrics/pretrain", settings["pretrain"]["methods"]),
        explained=_figures(root / "metrics/explain", settings["arms"]),
        maps=maps,
        map_cases=_map_cases(predictions, maps, settings["explain"]["slices"]),
    )


def _figures(folder: Path, names: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    files = {name: folder / f"{name}.json" for name in names}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items() if path.exists()}


def _map_cases(
    predictions: Mapping[int, Mapping[str, list[Any]]], maps: Mapping[str, np.ndarray], wanted: int
) -> list[str]:
    """Case of each measured slice: all arms have the same test slices in the same order."""
    table = next(iter(next(iter(predictions.values())).values()))[0]
    cases = patient_column(table)[table["part"] == "test"].to_numpy(str)
    rows = measured(len(cases), wanted) if len(cases) else np.empty(0, np.int64)
    wrong = [arm for arm, one in maps.items() if len(one) != len(rows)]
    if wrong:
        raise InputError(f"maps of {', '.join(wrong)}: not of the {len(rows)} measured slices; run `dvc repro explain`")
    found: list[str] = cases[rows].tolist()
    return found
