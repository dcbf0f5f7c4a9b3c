"""Input of a pretext method."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kidney_ssl.engine.batches import Batch, Slices
from kidney_ssl.methods.base import Pretext, PretextBatch


class Shown:
    """Builds a method's input for each batch: images, with masks if the method reads them, or a `PretextBatch`.

    Args:
        method: the method.
        slices: all slices of a part.
        updates: optimizer steps of the whole training.
    """

    def __init__(self, method: Pretext, slices: Slices, updates: int) -> None:
        self.slices, self.updates = slices, updates
        self._places = [values.to(slices.device) for values in _places(slices.frame)] if method.reads_batch else None

    def __call__(self, batch: Batch) -> Tensor | PretextBatch:
        """Slices (B, 1, S, S), or (B, 2, S, S) with masks; for a method that reads places a `PretextBatch` of them."""
        images = stacked(batch.images, batch.masks)
        if self._places is None:
            return images
        case, position, z_mm, neighbors = (values[batch.rows] for values in self._places)
        return PretextBatch(images, batch.rows, case, position, z_mm, neighbors, self._read, batch.update, self.updates)

    def _read(self, rows: Tensor) -> Tensor:
        masks = self.slices.masks
        return stacked(self.slices.images(rows).float().unsqueeze(1), None if masks is None else masks(rows))


def stacked(images: Tensor, masks: Tensor | None) -> Tensor:
    """Slices (B, 1, S, S), with their masks (B, S, S), if given, as a second channel."""
    return images if masks is None else torch.cat([images, masks[:, None].to(images.dtype)], 1)


def _places(frame: pd.DataFrame) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Case number, position, distance in mm and neighbors of each slice of a part, see `PretextBatch`."""
    _, case = np.unique(frame["case"].to_numpy(), return_inverse=True)
    slices = frame["slice"].to_numpy()
    order = np.lexsort([slices, case])
    same = case[order][1:] == case[order][:-1]
    neighbors = np.full((len(frame), 2), -1)
    neighbors[order[1:][same], 0] = order[:-1][same]
    neighbors[order[:-1][same], 1] = order[1:][same]
    z_mm = slices * frame["thickness_mm"].to_numpy()
    found = (case.astype(np.int64), frame["position"].to_numpy(np.float32), z_mm.astype(np.float32), neighbors)
    case_of, position, distance, beside = (torch.from_numpy(np.array(values)) for values in found)
    return case_of, position, distance, beside
