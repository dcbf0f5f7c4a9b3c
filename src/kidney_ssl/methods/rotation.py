"""Rotation (Gidaris et al. 2018): by how many quarter turns was the slice rotated?"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kidney_ssl.methods.base import Options, Picture, Pretext, Setting
from kidney_ssl.models.resnet import encoder, seeded_weights

TURNS = 4


def rotate(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate each image of (B, 1, S, S) counter-clockwise by its number of quarter turns, (B,) int64 from 0 to 3."""
    turned = torch.stack([torch.rot90(images, number, dims=(2, 3)) for number in range(TURNS)])
    return turned[turns, torch.arange(len(images), device=images.device)]


class Method(Pretext):
    """An encoder with four classes and cross-entropy. Chance is 25 %."""

    def __init__(self, setting: Setting, options: Options) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.encoder, width = encoder(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        with seeded_weights(setting.seed):
            self.head = nn.Linear(width, TURNS)

    def _turned(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        turns = torch.randint(TURNS, (len(images),), generator=generator, device=images.device)
        return self.head(self.encoder(rotate(images, turns))).float(), turns

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the number of turns, drawn for each image."""
        logits, turns = self._turned(images, generator)
        return cross_entropy(logits, turns), {"accuracy": (logits.argmax(1) == turns).float().mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss and accuracy of each image, and the chance level."""
        logits, turns = self._turned(images, generator)
        return {
            "loss": cross_entropy(logits, turns, reduction="none"),
            "accuracy": (logits.argmax(1) == turns).float(),
            "accuracy_chance": torch.full((len(images),), 1 / TURNS, device=images.device),
        }

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Each slice in its four positions."""
        turned = [torch.rot90(images[:, 0], number, dims=(1, 2)) for number in range(TURNS)]
        return {"rotations": Picture(torch.stack(turned, 1), ("0 degrees", "90", "180", "270"))}
