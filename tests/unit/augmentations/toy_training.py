"""Training slices drawn by hand, in which every pixel tells whose it is and whether it is tumor.

A slice's pixels are SLICE_LEVEL + its own small amount, tumor pixels TUMOR_LEVEL + that amount: nothing is black, so
that black pixels are squares, and what is pasted is seen by its value.
"""

import numpy as np
import torch

from kidney_ssl.augmentations.base import TrainingSet

REGIONS = {"left": (0.25, 0.75, 0.05, 0.45), "right": (0.25, 0.75, 0.55, 0.95)}
SLICE_LEVEL, TUMOR_LEVEL, SPREAD = 0.1, 0.6, 0.3
KIDNEY, TUMOR = 1, 2
SMALL = 2500


class Toy:
    """Cases of positive slices (small, two small, large tumors) and negative ones (with kidneys, without)."""

    def __init__(self, *, size=64, cases=8, positives=24, negatives=24, seed=0, large=0.4):
        rng = np.random.default_rng(seed)
        count = cases * (positives + negatives)
        self.cases = np.repeat([f"case_{number:05}" for number in range(cases)], positives + negatives)
        self.labels = np.tile(np.repeat([1, 0], [positives, negatives]), cases)
        self.masks = np.zeros((count, size, size), dtype=np.uint8)
        self.tumor_px = np.zeros(count, dtype=np.int64)
        y, x = np.mgrid[:size, :size] / size
        for row in range(count):
            for middle in (0.25, 0.75):
                if self.labels[row] or row % 2:
                    self.masks[row][np.hypot(y - 0.5, x - middle) < 0.12] = KIDNEY
            if self.labels[row]:
                big = rng.random() < large
                for _ in range(1 if big else rng.integers(1, 3)):
                    # Mostly on the right, large ones high and small ones low: a square that avoids them shows it.
                    middle = (
                        rng.uniform(*((0.3, 0.4) if big else (0.5, 0.7))),
                        rng.choice([0.25, 0.75], p=[0.2, 0.8]) + rng.uniform(-0.06, 0.06),
                    )
                    radius = rng.uniform(0.11, 0.14) if big else rng.uniform(0.03, 0.06)
                    self.masks[row][np.hypot(y - middle[0], (x - middle[1]) / rng.uniform(0.8, 1.2)) < radius] = TUMOR
                self.tumor_px[row] = SMALL + 1 if big else SMALL - 1
        own = np.linspace(0, SPREAD, count, dtype=np.float32)[:, None, None]
        self.images = np.where(self.masks == TUMOR, np.float32(TUMOR_LEVEL), np.float32(SLICE_LEVEL)) + own
        self.size, self.read = size, set()

    def training(self, rows=None, regions=REGIONS):
        return TrainingSet(
            images=lambda rows: self._read(self.images, rows),
            masks=lambda rows: self._read(self.masks, rows),
            cases=self.cases,
            labels=self.labels,
            tumor_px=self.tumor_px,
            rows=np.arange(len(self.labels)) if rows is None else rows,
            image_size=self.size,
            regions=regions,
            device=torch.device("cpu"),
        )

    def _read(self, array, rows):
        assert rows.dtype == torch.int64
        self.read.update(rows.tolist())
        return torch.from_numpy(array[rows.numpy()])[:, None]

    def batch(self, rows):
        """Images, labels and rows of a batch."""
        rows = torch.as_tensor(rows)
        images = torch.from_numpy(self.images[rows.numpy()])[:, None]
        return images, torch.from_numpy(self.labels[rows.numpy()]).float(), rows

    def epoch(self, rows, seed, batch=64):
        """Batches of one epoch: each row once."""
        order = np.random.default_rng(seed).permutation(rows)
        return [self.batch(order[start : start + batch]) for start in range(0, len(order), batch)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)
