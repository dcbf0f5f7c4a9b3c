"""The contract of an augmentation: what a file of this folder must define."""

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
    """All data that an augmentation may use: the training slices of the label budget, nothing of another split.

    N is the number of rows of the training split; `rows` are those in the label budget. Batches use the same row
    numbers.
    """

    images: Callable[[Tensor], Tensor]  # (B,) int64 rows on the device -> (B, 1, S, S) float32 in [0, 1] on the device
    # (B,) int64 rows on the device -> (B, 1, S, S) uint8 on the device: 0 none, 1 kidney, 2 tumor, 3 cyst
    masks: Callable[[Tensor], Tensor]
    cases: np.ndarray  # (N,) str, the case of each row
    labels: np.ndarray  # (N,) 0 or 1
    tumor_px: np.ndarray  # (N,) tumor pixels on the native grid
    rows: np.ndarray  # rows 0 .. N - 1 of the label budget; donors and statistics come from these only
    image_size: int  # side S in pixels
    # the rectangles around the organ, "left" and "right" in the image or one "organ", in fractions of the side
    regions: Mapping[str, Rectangle]
    device: torch.device  # device of the batches

    def labels_of(self, rows: Tensor) -> Tensor:
        """Labels of rows (B,) int64 on the CPU: (B,) float32 on the device."""
        return torch.from_numpy(self.labels[rows.numpy()]).float().to(self.device)


class Augmented(NamedTuple):
    """An augmented batch, the classifier's input."""

    images: Tensor  # (B, 1, S, S) float32 in [0, 1]
    labels: Tensor  # (B,) float32, 0 or 1, of the augmented images
    marks: dict[str, Tensor]  # name -> (B,) counts or booleans: what was done to each image


class Augmentation(ABC):
    """Changes each batch of a fine-tuning before the classifier sees it.

    All random numbers come from the given generator, which is on the batch's device. They are drawn for the whole
    batch at once, with separate parameters for each image. Inputs are not modified.

    Attributes:
        Parameters: the augmentation's options.
    """

    Parameters: ClassVar[type[Options]] = Options

    @abstractmethod
    def __init__(self, training: TrainingSet, options: Any) -> None:
        """Prepare from the training slices once; `options` is an instance of `Parameters`."""

    @abstractmethod
    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Augmented:
        """Augment one batch.

        Args:
            images: (B, 1, S, S) float32 in [0, 1], training slices without augmentation.
            labels: (B,) float32, 0 or 1.
            rows: (B,) int64 on the device, of `TrainingSet.rows`.
            generator: source of all random numbers.
        """

    @abstractmethod
    def pictures(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Show each operation alone and all together, before and after: name -> grid with one row per slice."""


def before_and_after(images: Tensor, augmented: Tensor) -> Picture:
    """Two columns: images (B, 1, S, S) before and after."""
    return Picture(torch.cat([images, augmented], 1), ("before", "after"))
