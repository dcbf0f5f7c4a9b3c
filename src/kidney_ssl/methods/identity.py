"""Identity, a control: a U-Net that reproduces its input slice.

It has the network, slices and updates of the restoration tasks, but the task is trivial: the U-Net's first skip
connection can carry the slice past the deeper layers. What an arm with this encoder gains or loses comes from more
updates on CT slices, not from a pretext task.
"""

from typing import Literal

import torch
from torch import Tensor

from kidney_ssl.methods.base import Picture
from kidney_ssl.methods.restoration import Perturbed, Restoration, RestorationOptions


class IdentityOptions(RestorationOptions):
    """Options of `identity`: the loss is the mean squared error of a plain autoencoder (ours)."""

    loss: Literal["dice", "dice_squared", "mse"] = "mse"


class Method(Restoration):
    """An autoencoder of unchanged slices, evaluated over the whole image."""

    Parameters = IdentityOptions
    control = True

    def perturb(self, images: Tensor, generator: torch.Generator) -> Perturbed:
        """Change nothing and use no random numbers."""
        return Perturbed(images, images, torch.zeros_like(images, dtype=torch.bool))

    def guesses(self, perturbed: Perturbed) -> dict[str, Tensor]:
        """The image's mean and the mean training image; a copy of the input would be perfect, so it is left out."""
        return {name: guess for name, guess in super().guesses(perturbed).items() if name != "copy"}

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Slices next to the network's output."""
        return {"restored": Picture(torch.cat([images, self.unet(images).float()], 1), ("original", "restored"))}
