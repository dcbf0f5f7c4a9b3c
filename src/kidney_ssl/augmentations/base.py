"""The contract of an augmentation: what a file of this folder must hold."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kidney_ssl.methods.base import Options, Picture, Rectangle


@dataclass(frozen=True)
class TrainingSet:
    """All that an augmentation may look at: the training slices of the label budget, nothing of another split.

    N counts the rows of the training split, of which `rows` take part. Row numbers are those of a batch.
    """

    images: Callable[[Tensor], Tensor]  # (B,) int64 rows on the device -> (B, 1, S, S) float32 in [0, 1] on the device
    # (B,) int64 rows on the device -> (B, 1, S, S) uint8 on the device: 0 none, 1 kidney, 2 tumor, 3 cyst
    masks: Callable[[Tensor], Tensor]
    cases: np.ndarray  # (N,) str, the case of each row
    labels: np.ndarray  # (N,) 0 or 1
    tumor_px: np.ndarray  # (N,) tumor pixels on the native grid
    rows: np.ndarray  # which of 0 .. N - 1 take part. Donors and statistics come from these alone.
    image_size: int  # side S in pixels
    # the rectangles around the organ, "left" and "right" in the image or one "organ", in fractions of the side
    regions: Mapping[str, Rectangle]
    device: torch.device  # where batches lie

    def labels_of(self, rows: Tensor) -> Tensor:
        """Labels of rows (B,) int64 on the CPU: (B,) float32 on the device."""
        return torch.from_numpy(self.labels[rows.numpy()]).float().to(self.device)


class Augmented(NamedTuple):
    """A batch as the classifier is to see it."""

    images: Tensor  # (B, 1, S, S) float32 in [0, 1]
    labels: Tensor  # (B,) float32, 0 or 1, as `images` now are
    marks: dict[str, Tensor]  # (B,) counts or truths by name: what was done to each image


class Augmentation(ABC):
    """Changes each batch of a fine-tuning before the classifier sees it.

    Everything random is drawn from the generator that is passed in, which lives on the batch's device, for the whole
    batch at once and with parameters of its own for each image. What comes in is left as it is.

    Attributes:
        Parameters: the augmentation's options.
    """

    Parameters: ClassVar[type[Options]] = Options

    @abstractmethod
    def __init__(self, training: TrainingSet, options: Any) -> None:
        """Look at the training slices once; `options` is an instance of `Parameters`."""

    @abstractmethod
    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Augmented:
        """Augment one batch.

        Args:
            images: (B, 1, S, S) float32 in [0, 1], clean training slices.
            labels: (B,) float32, 0 or 1.
            rows: (B,) int64 on the device, of `TrainingSet.rows`.
            generator: all chance comes from it.
        """

    @abstractmethod
    def pictures(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Show each operation by itself before and after, and the whole: name -> grid, one row a slice."""


def before_and_after(images: Tensor, augmented: Tensor) -> Picture:
    """Two columns: (B, 1, S, S) as they were and as they are."""
    return Picture(torch.cat([images, augmented], 1), ("before", "after"))
