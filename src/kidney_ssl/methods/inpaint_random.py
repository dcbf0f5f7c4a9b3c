"""Inpainting of a square at a random position (Pathak et al. 2016; thesis, 3.4.2) with 20 % of the image's side."""

import torch
from torch import Tensor

from kidney_ssl.methods.restoration import Inpainting


class Method(Inpainting):
    """The square is at a uniformly drawn position."""

    def places(self, count: int, side: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the square's first row and first column."""
        top, left = torch.randint(size - side + 1, (2, count), generator=generator, device=generator.device)
        return top, left
