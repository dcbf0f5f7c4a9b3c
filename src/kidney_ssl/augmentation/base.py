"""The contract of an augmentation: what a file of this folder must hold."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kidney_ssl.pretext.base import Options, Picture, Rectangle
from kidney_ssl.pretext.base import read_options as read_pretext_options


@dataclass(frozen=True)
class TrainingSet:
    """All that an augmentation may look at: the training slices of the label budget, nothing of another split.

    N counts the rows of the training split, of which `rows` take part. Row numbers are those of a batch.

    Attributes:
        images: (B,) int64 rows on the device -> (B, 1, S, S) float32 in [0, 1] on the device.
        masks: (B,) int64 rows on the device -> (B, 1, S, S) uint8 on the device: 0 none, 1 kidney, 2 tumour, 3 cyst.
        cases: (N,) str, the case of each row.
        labels: (N,) 0 or 1.
        tumor_px: (N,) tumour pixels on the native grid.
        rows: which of 0 .. N - 1 take part. Donors and statistics come from these alone.
        image_size: side S in pixels.
        regions: the two kidney rectangles, "left" and "right" in the image, in fractions of the side.
        device: where batches lie.
    """

    images: Callable[[Tensor], Tensor]
    masks: Callable[[Tensor], Tensor]
    cases: np.ndarray
    labels: np.ndarray
    tumor_px: np.ndarray
    rows: np.ndarray
    image_size: int
    regions: Mapping[str, Rectangle]
    device: torch.device


class Augmented(NamedTuple):
    """A batch as the classifier is to see it.

    Attributes:
        images: (B, 1, S, S) float32 in [0, 1].
        labels: (B,) float32, 0 or 1, as `images` now are.
        marks: (B,) counts or truths by name: what was done to each image.
    """

    images: Tensor
    labels: Tensor
    marks: dict[str, Tensor]


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
            rows: (B,) int64 on the device, their rows of the training split, all of `TrainingSet.rows`.
            generator: all chance comes from it.
        """

    @abstractmethod
    def pictures(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Show each operation by itself before and after, and the whole: name -> grid, one row a slice."""


def read_options(augmentation: type[Augmentation], options: Mapping[str, Any], key: str) -> Options:
    """Check an arm's options against the augmentation's own model.

    Args:
        augmentation: its class.
        options: from params.yaml.
        key: where they stand there, for messages.

    Raises:
        InputError: one line that names every wrong key.
    """
    holder: Any = augmentation  # the pretexts' reader looks at `Parameters` alone
    return read_pretext_options(holder, options, key)


def before_and_after(images: Tensor, augmented: Tensor) -> Picture:
    """Two columns: (B, 1, S, S) as they were and as they are."""
    return Picture(torch.cat([images, augmented], 1), ("before", "after"))
