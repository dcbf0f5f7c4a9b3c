"""Inpainting of a square at a random place (Pathak et al. 2016; thesis, 3.4.2): 20 % x 20 % of the side removed."""

import torch
from torch import Tensor

from kidney_ssl.pretext.restoration import HOLE, Fill, Perturbed, Restoration, RestorationOptions, fill, square


class InpaintRandomOptions(RestorationOptions):
    """Options of `inpaint_random`; `fill` is what the hole holds: zero (thesis), the image's mean, noise."""

    fill: Fill = "zero"


def draw_places(count: int, side: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the first row and the first column of a square for each image, (B,) int64, all places alike likely."""
    top, left = torch.randint(size - side + 1, (2, count), generator=generator, device=generator.device)
    return top, left


class Method(Restoration):
    """A U-Net that fills in the square; the thesis's loss is Dice as printed."""

    Parameters = InpaintRandomOptions
    options: InpaintRandomOptions

    def perturb(self, images: Tensor, generator: torch.Generator) -> Perturbed:
        """Remove one square an image."""
        size = images.shape[-1]
        side = round(HOLE * size)
        top, left = draw_places(len(images), side, size, generator)
        hole = square(top, left, side, size)
        return Perturbed(fill(images, hole, self.options.fill, generator), images, hole)
