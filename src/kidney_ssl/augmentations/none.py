"""No augmentation: the control of the other augmentations."""

import torch
from torch import Tensor

from kidney_ssl.augmentations.base import Augmentation, Augmented, TrainingSet, before_and_after
from kidney_ssl.methods.base import Options, Picture


class Method(Augmentation):
    """Returns each batch unchanged."""

    def __init__(self, training: TrainingSet, options: Options) -> None:
        """Nothing to prepare."""

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Augmented:
        """The unchanged batch; no random numbers are drawn."""
        return Augmented(images, labels, {})

    def pictures(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """The slices twice: before and after are equal."""
        return {"whole": before_and_after(images, images)}
