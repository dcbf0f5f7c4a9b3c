"""No augmentation: what the other arms are held against."""

import torch
from torch import Tensor

from kidney_ssl.augmentations.base import Augmentation, Augmented, TrainingSet, before_and_after
from kidney_ssl.methods.base import Options, Picture


class Method(Augmentation):
    """Gives each batch back as it is."""

    def __init__(self, training: TrainingSet, options: Options) -> None:
        """Nothing to prepare."""

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Augmented:
        """The batch itself; nothing is drawn."""
        return Augmented(images, labels, {})

    def pictures(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """The slices twice."""
        return {"whole": before_and_after(images, images)}
