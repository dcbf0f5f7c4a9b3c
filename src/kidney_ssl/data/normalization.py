"""From HU to [0, 1]: a window from the tumor pixels of the training slices, or a fixed one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.data.arrays import ArrayWriter, load_rows, read_pieces, read_shape
from kidney_ssl.errors import InputError
from kidney_ssl.schema import SPLITS

PERCENTILES = (0.5, 99.5)  # as in nnU-Net and the thesis


def tumor_statistics(histogram: pd.DataFrame) -> dict[str, float | int]:
    """Compute P0.5, P99.5, mean and standard deviation of the HU of tumor pixels, or of the grey values of all pixels.

    Args:
        histogram: rows (hu, count) of the native tumor pixels of the selected training slices, or of all their pixels.

    Returns:
        p0_5, p99_5, mean, std in HU (population standard deviation, linear percentiles) and n, the number of pixels.

    Raises:
        InputError: there is no tumor pixel, or all have the same value, so that there is no window.
    """
    counts = histogram.groupby("hu")["count"].sum().sort_index()
    values, weights = counts.index.to_numpy(np.float64), counts.to_numpy(np.int64)
    n = int(weights.sum())
    if n == 0:
        raise InputError("the training slices hold no tumor pixel: set normalize.window by hand")
    low, high = (_percentile(values, weights, percent) for percent in PERCENTILES)
    mean = float((values * weights).sum() / n)
    if low >= high:
        raise InputError(f"the pixels span no window (P0.5 = P99.5 = {low}): set normalize.window by hand")
    std = float(np.sqrt((weights * (values - mean) ** 2).sum() / n))
    return {"p0_5": low, "p99_5": high, "mean": round(mean, 6), "std": round(std, 6), "n": n}


def _percentile(values: np.ndarray, counts: np.ndarray, percent: float) -> float:
    """Percentile of values that occur `counts` times, interpolated linearly between order statistics as in numpy."""
    rank = percent / 100 * (int(counts.sum()) - 1)
    below, above = values[np.searchsorted(counts.cumsum(), [np.floor(rank), np.ceil(rank)], side="right")]
    return float(below + (above - below) * (rank - np.floor(rank)))


def normalise(images: np.ndarray, window: tuple[float, float], mode: str) -> np.ndarray:
    """Scale HU to [0, 1].

    Clipping to [P0.5, P99.5], standardising and min-max scaling with the clip bounds as minimum and maximum
    (Eq. 3-4 of the thesis) is the same as (clip(x) - low) / (high - low); the mean and deviation cancel.

    Args:
        images: (N, S, S) int16 HU.
        window: low and high in HU.
        mode: "window" scales by the window's bounds; "image" by each clipped image's own minimum and maximum (a
            constant image becomes 0).

    Returns:
        (N, S, S) float16 in [0, 1].
    """
    low, high = window
    clipped = np.clip(images.astype(np.float32), low, high)
    if mode == "window":
        return ((clipped - np.float32(low)) / np.float32(high - low)).astype(np.float16)
    least = clipped.min(axis=(1, 2), keepdims=True)
    span = clipped.max(axis=(1, 2), keepdims=True) - least
    return ((clipped - least) / np.where(span > 0, span, 1)).astype(np.float16)


def find_window(
    histogram: pd.DataFrame, fixed: tuple[float, float] | None, source: str = "training tumor pixels"
) -> tuple[tuple[float, float], dict[str, Any]]:
    """Choose the window in HU, and describe it for metrics/normalization.json.

    Args:
        histogram: see `tumor_statistics`; not used if there is a fixed window.
        fixed: a window set by hand, or None for the percentiles of the histogram.
        source: what the histogram counts.
    """
    if fixed is not None:
        return fixed, {"source": "fixed", "window": list(fixed)}
    statistics = tumor_statistics(histogram)
    window = (float(statistics["p0_5"]), float(statistics["p99_5"]))
    return window, {"source": source, "window": list(window), **statistics}


def _count_values(images: Path) -> pd.DataFrame:
    """Count the grey values of an array: rows (hu, count)."""
    counts = np.zeros(1 << 16, np.int64)
    for piece in read_pieces(images):
        counts += np.bincount(piece.ravel(), minlength=len(counts))
    values = np.flatnonzero(counts)
    return pd.DataFrame({"hu": values, "count": counts[values]})


def normalise_store(
    slices: Path,
    normalized: Path,
    *,
    others: Mapping[str, tuple[Path, Path]],
    fixed: tuple[float, float] | None,
    mode: str,
    masks: bool = True,
) -> dict[str, Any]:
    """Normalise every split and other sets of slices, with one batch of slices in memory at a time.

    Args:
        slices: folder of the int16 arrays.
        normalized: folder for `<split>_images.npy`, (N, S, S) float16 in [0, 1].
        others: name -> folder with `<name>_images.npy` and output folder: slices to pretrain on, natural test set.
        fixed: see `find_window`.
        mode: see `normalise`.
        masks: whether the slices have masks; without, all pixels of the training slices stand for the tumors' pixels.

    Returns:
        Description of the window, see `find_window`.

    Raises:
        InputError: tumor pixels belong to a case that is not in training, or span no window.
    """
    histogram = load_rows(slices / "tumor_hu.csv")
    strangers = sorted(set(histogram["case"]) - set(load_rows(slices / "train.csv")["case"]))
    if strangers:
        raise InputError(
            f"{slices / 'tumor_hu.csv'}: {strangers[0]} is no training case, and the window is found on those alone: "
            "run `dvc repro --force slice`"
        )
    if masks or fixed is not None:
        window, figures = find_window(histogram, fixed)
    else:
        window, figures = find_window(_count_values(slices / "train_images.npy"), fixed, "all training pixels")
    for name, (source, target_folder) in (dict.fromkeys(SPLITS, (slices, normalized)) | dict(others)).items():
        images, target = source / f"{name}_images.npy", target_folder / f"{name}_images.npy"
        target_folder.mkdir(parents=True, exist_ok=True)
        scaled = ArrayWriter(target, read_shape(images), np.float16)
        for piece in read_pieces(images):
            scaled.append(normalise(piece, window, mode))
        scaled.close()
    return figures | {"range": mode}
