"""Everything that the page shows, gathered from the files of a study as plain data."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.data.arrays import load_array, load_rows
from kidney_ssl.data.selection import SPLITS
from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.metrics import read_predictions
from kidney_ssl.report.departures import Departure, read_departures
from kidney_ssl.report.tables import Run, Summary

AVERAGED = 400  # slices in the mean training slice, evenly spaced: 5 GB would be read for all of KiTS23's
SHOWN = 3  # large, and small, tumour slices shown
IMAGES = (".png", ".webp")

Pictures = dict[str, bytes]


@dataclass(frozen=True)
class Example:
    """A training slice: (S, S) int16 HU, (S, S) float in [0, 1], (S, S) uint8 mask, and its row of the index."""

    hu: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Pretraining:
    """One pretraining: its last figures, one row an epoch, and pictures by title."""

    figures: dict[str, Any]
    curves: pd.DataFrame
    pictures: Pictures


@dataclass(frozen=True)
class Explained:
    """Grad-CAM of one arm: figures, one row a card, pictures by file; and its augmentation's figures and pictures."""

    figures: dict[str, Any]
    cards: pd.DataFrame
    pictures: Pictures
    augmentation: dict[str, Any]
    operations: Pictures


@dataclass(frozen=True)
class Study:
    """What a study's files hold; a part that is absent is empty.

    Attributes:
        params: the parameters as plain data.
        departures: the marked keys of params.yaml.
        runs: the fine-tunings that the parameters name.
        slices: part -> rows of the chosen slices.
        tumor_hu: columns hu and count of the training tumours' pixels.
        mean_slice: (S, S) mean of `averaged` normalised training slices.
        large, small: training slices with the largest and the smallest tumours, each of another case.
        logs: "stage/name" -> what that stage measured on this machine.
    """

    params: Mapping[str, Any]
    departures: list[Departure]
    selection: dict[str, Any]
    normalization: dict[str, Any]
    regions: dict[str, tuple[float, float, float, float]]
    summary: Summary
    runs: list[Run]
    results: dict[Run, dict[str, Any]]
    curves: dict[Run, pd.DataFrame]
    predictions: dict[Run, pd.DataFrame]
    slices: dict[str, pd.DataFrame]
    tumor_hu: pd.DataFrame
    mean_slice: np.ndarray | None
    averaged: int
    large: list[Example]
    small: list[Example]
    pretrainings: dict[str, Pretraining]
    explained: dict[str, Explained]
    correlation: dict[str, dict[str, float | None]]
    comparisons: dict[str, Any]
    learning: dict[str, Any]
    claims: dict[str, Any]
    shortcut: dict[str, Any]
    logs: dict[str, dict[str, Any]]
    licence: str

    @property
    def percents(self) -> list[int]:
        """The label budgets that were run, the largest first."""
        return sorted({run.percent for run in self.runs}, reverse=True)

    @property
    def restorations(self) -> dict[str, Pretraining]:
        """The pretrainings that restore slices: those with a sharpness."""
        return {name: one for name, one in self.pretrainings.items() if "validation_sharpness" in one.figures}

    @property
    def controls(self) -> set[str]:
        """The arms that are there to judge the study by: from a control's encoder, or with more updates than others."""
        found = {name for name, one in self.pretrainings.items() if one.figures.get("control")}
        return {
            arm
            for arm, block in self.params["arms"].items()
            if block["weights"].partition("/")[2] in found or block.get("extra_updates")
        }

    def title(self, arm: str) -> str:
        """Name an arm, with a mark if it is a control."""
        return f"{arm} (control)" if arm in self.controls else arm

    def method_of(self, arm: str) -> Mapping[str, Any] | None:
        """The block of the pretraining that an arm starts from; None for initial weights."""
        kind, _, name = self.params["arms"][arm]["weights"].partition("/")
        block: Mapping[str, Any] | None = self.params["pretrain"]["methods"].get(name) if kind == "pretrain" else None
        return block


def read_study(root: Path, settings: Mapping[str, Any]) -> Study:
    """Gather a study.

    Args:
        root: the project's folder.
        settings: `kidney_ssl.params.Params.model_dump()`. What belongs to the study comes from here, never from the
            files that lie there: a removed arm must not live on.

    Raises:
        InputError: a figure of a stage that this study needs is missing; the line names the file.
    """
    metrics, slices = root / "metrics", root / "data/slices"
    runs = [Run(arm, *budget) for arm in settings["arms"] for budget in settings["budgets"]]
    tables = {part: load_rows(slices / f"{part}.csv") for part in SPLITS if (slices / f"{part}.csv").exists()}
    mean, averaged = _mean_slice(root / "data/normalized/train_images.npy")
    large, small = _examples(root / "data", tables.get("train"))
    hu = slices / "tumor_hu.csv"
    return Study(
        params=settings,
        departures=read_departures(root / "params.yaml"),
        selection=_needed(metrics / "selection.json"),
        normalization=_needed(metrics / "normalization.json"),
        regions=_optional(root / "data/normalized/regions.json"),
        summary=_needed(metrics / "summary.json"),
        runs=runs,
        results={run: _needed(metrics / f"evaluate/{run.name}.json") for run in runs},
        curves={run: _table(root / f"models/finetune/{run.name}/curves.csv") for run in runs},
        predictions={run: read_predictions(root / f"models/finetune/{run.name}/predictions.csv") for run in runs},
        slices=tables,
        tumor_hu=_table(hu) if hu.exists() else pd.DataFrame({"hu": [], "count": []}),
        mean_slice=mean,
        averaged=averaged,
        large=large,
        small=small,
        pretrainings={
            name: Pretraining(
                _needed(metrics / f"pretrain/{name}.json"),
                _table(metrics / f"pretrain/{name}.csv"),
                _pictures(root / f"report/pretrain/{name}"),
            )
            for name in settings["pretrain"]["methods"]
        },
        explained={
            arm: _explained(root, arm)
            for arm in settings["arms"]
            if (metrics / f"explain/{arm}.json").exists() or (root / f"report/explain/{arm}").exists()
        },
        correlation=_optional(metrics / "explain_correlation.json"),
        comparisons=_optional(metrics / "comparisons.json"),
        learning=_optional(metrics / "learning.json"),
        claims=_optional(metrics / "claims.json"),
        shortcut=_optional(metrics / "shortcut.json"),
        logs={
            path.relative_to(root / "logs").with_suffix("").as_posix(): _needed(path)
            for path in sorted((root / "logs").rglob("*.json"))
        },
        licence=_text(root / "data/LICENSE.txt"),
    )


def _needed(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_cause(error)}); run `dvc repro`") from error
    return content


def _cause(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())


def _optional(path: Path) -> dict[str, Any]:
    return _needed(path) if path.exists() else {}


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_cause(error)}); run `dvc repro`") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _pictures(folder: Path) -> Pictures:
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*")) if path.suffix in IMAGES}


def _explained(root: Path, arm: str) -> Explained:
    cards = root / f"report/explain/{arm}/cards.csv"
    columns = ["kind", "file", "case", "slice", "class", "label", "probability", "outcome", "baseline_outcome"]
    rows = pd.read_csv(cards, dtype={"case": str}) if cards.exists() else pd.DataFrame(columns=columns)
    absent = [column for column in columns if column not in rows]
    if absent:
        raise InputError(f"{cards}: column(s) missing: {', '.join(absent)}; run the explain stage again")
    files = {str(file): cards.parent / str(file) for file in rows["file"]}
    pictures = {file: path.read_bytes() for file, path in files.items() if path.exists()}
    figures = _optional(root / f"metrics/explain/{arm}.json")
    augmentation = figures.pop("augmentation", None) or {}
    return Explained(figures, rows, pictures, augmentation, _pictures(cards.parent / "augmentation"))


def _mean_slice(path: Path) -> tuple[np.ndarray | None, int]:
    if not path.exists() or not len(images := load_array(path)):
        return None, 0
    rows = np.unique(np.linspace(0, len(images) - 1, AVERAGED).round().astype(int))
    total = np.zeros(images.shape[1:])
    for row in rows:  # one at a time: the array is memory-mapped and may not fit
        total += images[row]
    return total / len(rows), len(rows)


def _examples(data: Path, rows: pd.DataFrame | None) -> tuple[list[Example], list[Example]]:
    """Choose training slices with the largest and the smallest tumours, one a case, none twice."""
    files = [data / "slices/train_images.npy", data / "normalized/train_images.npy", data / "slices/train_masks.npy"]
    if rows is None or not all(path.exists() for path in files):
        return [], []
    hu, image, mask = (load_array(path) for path in files)
    tumors = rows[rows["class"] == "tumor"].sort_values("tumor_mm2", kind="stable")
    large = tumors[::-1].drop_duplicates("case")[:SHOWN]
    small = tumors[~tumors["case"].isin(large["case"])].drop_duplicates("case")[:SHOWN]

    def examples(chosen: pd.DataFrame) -> list[Example]:
        return [
            Example(np.array(hu[row]), np.array(image[row], np.float32), np.array(mask[row]), rows.loc[row].to_dict())
            for row in chosen.index
        ]

    return examples(large), examples(small)
