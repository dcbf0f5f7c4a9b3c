"""Curves, metrics and pictures of a study as TensorBoard's event files. Importing it needs the extra `tensorboard`."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from itertools import product
from math import isnan
from operator import getitem
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError
from torch.utils.tensorboard import SummaryWriter

from kidney_ssl.errors import InputError, one_line
from kidney_ssl.files import replacing
from kidney_ssl.metrics.over_seeds import FIGURES, Run, Summary, budget_name

FILE = "events.out.tfevents.kidney-ssl"  # TensorBoard looks for "tfevents"; its own names hold the host and the time
UNTIMED = 0.0  # the study records no times of epochs
NOT_CURVES = ["seed", "epoch", "learning_rate", "selected"]


def write_board(root: Path, params: Mapping[str, Any], out: Path) -> tuple[int, list[str]]:
    """Write event files, in the place of those that an earlier call wrote below `out`; other files stay.

    Args:
        root: the study's folder.
        params: the study's parameters as plain data: what they do not name is not shown.
        out: gets pretrain/<name>/<seed>, finetune/<arm>/<percent>-<seed> and finetune/<arm>/budgets.

    Returns:
        How many were written, and the pretrainings and arms that lack curves.

    Raises:
        InputError: a file of the study is damaged.
    """
    for old in out.glob(f"**/{FILE}"):
        old.unlink()
    summary, lacking = _json(root / "metrics/summary.json"), []
    for name in params["pretrain"]["methods"]:
        if not _pretraining(root, name, out / "pretrain" / name):
            lacking.append(f"pretrain {name}")
    for arm in params["arms"]:
        folder, explained = out / "finetune" / arm, (params["explain"]["percent"], params["explain"]["seed"])
        evaluated = _json(root / f"report/evaluate/{arm}.json")
        done = [
            _run(root, Run(arm, *budget), evaluated.get("{}-{}".format(*budget)), folder, shown=budget == explained)
            for budget in params["budgets"]
        ]
        if not all(done):
            lacking.append(f"finetune {arm}")
        _budgets(summary, arm, params["runs"], folder / "budgets")
    return len([*out.glob(f"**/{FILE}")]), lacking


def _pretraining(root: Path, name: str, out: Path) -> bool:
    """Curves of every seed and pictures of the first, if the pretraining is done."""
    table = _table(root / f"metrics/pretrain/{name}.csv")
    if table is None:
        return False
    for number, (seed, curves) in enumerate(table.groupby("seed")):
        with _events(out / str(seed)) as events:
            _add_curves(events, curves)
            if number == 0:
                _add_pictures(events, root / f"report/pretrain/{name}", "pictures", int(curves["epoch"].iloc[-1]))
    return True


def _run(root: Path, run: Run, metrics: Mapping[str, Any] | None, out: Path, *, shown: bool) -> bool:
    """Curves of a fine-tuning, metrics at its selected epoch and, where `shown`, pictures, if it is done.

    Where several learning rates were tried, each has a folder of its own for its curves.
    """
    table = _table(root / run.folder / "curves.csv")
    if table is None:
        return False
    rates = list(table.groupby("learning_rate"))
    for rate, curves in rates if len(rates) > 1 else ():
        with _events(out / run.budget / f"rate-{rate}") as events:
            _add_curves(events, curves)
    epoch = int(table.loc[table["selected"] == 1, "epoch"].iloc[0])
    with _events(out / run.budget) as events:
        if len(rates) == 1:
            _add_curves(events, table)
        whole: Any = metrics
        for name, path in FIGURES.items() if metrics else ():
            _add(events, f"final/{name}", reduce(getitem, path, whole), epoch)
        if shown:
            explained = root / f"report/explain/{run.arm}"
            _add_pictures(events, explained, "grad_cam", epoch)
            _add_pictures(events, explained / "augmentation", "augmentation", epoch)
    return True


def _budgets(summary: Summary, arm: str, percents: Iterable[int], out: Path) -> None:
    """The arm's means over seeds with their intervals at each label budget: percent stands in the place of the step."""
    found = [
        (f"budget/{name}_{end}".rstrip("_"), value, percent)
        for name, end, percent in product(FIGURES, ("", "low", "high"), sorted(percents))
        if (value := summary.get(budget_name(name, percent, end), {}).get(arm)) is not None
    ]
    if not found:
        return
    with _events(out) as events:
        for tag, value, percent in found:
            _add(events, tag, value, percent)


def _table(path: Path) -> pd.DataFrame | None:
    try:
        return pd.read_csv(path) if path.exists() else None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({one_line(str(error))}); run `dvc repro`") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({one_line(str(error))}); run `dvc repro`") from error


@contextmanager
def _events(folder: Path) -> Iterator[SummaryWriter]:
    """Write an event file, and bring it to its place when it is whole."""
    with TemporaryDirectory() as elsewhere:
        with SummaryWriter(elsewhere) as events:
            yield events
        (written,) = Path(elsewhere).iterdir()
        with replacing(folder / FILE) as beside:
            shutil.copyfile(written, beside)


def _add(events: SummaryWriter, tag: str, value: float | None, step: int) -> None:
    """Add a value, unless it is missing."""
    if value is not None and not isnan(value):
        events.add_scalar(tag, value, step, walltime=UNTIMED)


def _add_curves(events: SummaryWriter, curves: pd.DataFrame) -> None:
    """Add the columns by epoch: `train_loss` as train/loss."""
    for column in curves.columns.drop(NOT_CURVES, errors="ignore"):
        for epoch, value in zip(curves["epoch"], curves[column], strict=True):
            _add(events, column.replace("_", "/", 1), value, epoch)


def _add_pictures(events: SummaryWriter, folder: Path, group: str, step: int) -> None:
    for path in sorted(folder.glob("*.*")):
        if path.suffix not in (".png", ".webp"):
            continue
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except UnidentifiedImageError as error:
            raise InputError(f"{path}: is no picture; run `dvc repro`") from error
        events.add_image(f"{group}/{path.stem}", pixels, step, walltime=UNTIMED, dataformats="HWC")
