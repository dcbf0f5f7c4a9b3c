"""Thinning of the pretraining pool: of neighbouring slices, which are nearly copies, one is kept."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.data.arrays import read_pieces

ROUNDED_MM = 1e-3  # the table rounds spacings, and 3 x 3.333333 mm are 10 mm


class ChosenRows:
    """Some rows of a mapped array (N, ...), read only when they are asked for: a pool may not fit into memory."""

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self._array, self._rows = array, rows
        self.dtype, self.shape, self.ndim = array.dtype, (len(rows), *array.shape[1:]), array.ndim
        self.nbytes = len(rows) * array[:1].nbytes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        found: np.ndarray = self._array[self._rows[which]]
        return found


def kept_rows(frame: pd.DataFrame, thin: Mapping[str, float], images: Path | None) -> np.ndarray:
    """Choose slices that are far enough from the last one chosen of the same case; a case's first is always kept.

    Args:
        frame: case, slice and thickness_mm of N slices, ordered by case and slice.
        thin: the least distance, either `mm` along the axis of the volume or `dissimilarity`: 1 - Pearson correlation
            of the pixels, from 0 for copies to 2; of a slice of one value, 0 to another such slice and 1 to the rest.
        images: file of the (N, S, S) float16 normalised slices; read for the dissimilarity alone, in pieces.

    Returns:
        (n,) int64, ascending.
    """
    ((measure, least),) = thin.items()
    if measure == "mm":
        values: Iterable[Any] = frame["slice"] * frame["thickness_mm"]
        least -= ROUNDED_MM
    else:
        assert images is not None
        values = _unit_vectors(images)
    kept, last = [], (None, None)
    for row, (case, value) in enumerate(zip(frame["case"], values, strict=True)):
        if case == last[0] and (value - last[1] if measure == "mm" else 1 - value @ last[1]) < least:
            continue
        kept.append(row)
        last = case, value
    return np.array(kept, dtype=np.int64)


def _unit_vectors(images: Path) -> Iterator[np.ndarray]:
    """A vector of each slice, (S * S + 1,) float64 of length 1; the product of two is their correlation."""
    for piece in read_pieces(images):
        pixels = piece.reshape(len(piece), -1).astype(np.float64)
        centred = pixels - pixels.mean(axis=1, keepdims=True)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        flat = length == 0  # a slice of one value, which correlates with nothing
        yield from np.hstack([centred / np.where(flat, 1, length), flat])
