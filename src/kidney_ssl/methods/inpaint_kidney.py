"""Inpainting of a square inside a region of the organ (thesis, 3.4.2). Labels were used only to find the regions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kidney_ssl.methods.base import Box, Setting, pixels
from kidney_ssl.methods.boxes import below
from kidney_ssl.methods.restoration import Inpainting, InpaintingOptions


def places(start: int, stop: int, side: int, size: int) -> tuple[int, int]:
    """First start and number of possible starts of a square inside a region, along one axis.

    If the region is narrower than the square, there is one start: centred, and moved into the image of `size` pixels
    if necessary.
    """
    if stop - start >= side:
        return start, stop - start - side + 1
    return min(max((start + stop - side) // 2, 0), size - side), 1


def draw_places(
    count: int, boxes: Sequence[Box], side: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a region and a position in it for each image, uniformly: the square's first row and column, (B,) each."""
    of_boxes = [[places(*box[:2], side, size), places(*box[2:], side, size)] for box in boxes]
    chosen = torch.randint(len(boxes), (count,), generator=generator, device=generator.device)
    first, number = torch.tensor(of_boxes, device=generator.device)[chosen].permute(2, 1, 0)  # (2, B) rows and columns
    top, left = first + below(number, generator)
    return top, left


class Method(Inpainting):
    """The square lies in one of the regions; a single organ has one region."""

    def __init__(self, setting: Setting, options: InpaintingOptions) -> None:
        """Build the network and place the regions."""
        super().__init__(setting, options)
        size = setting.image_size
        self.boxes = [pixels(rectangle, size, name) for name, rectangle in sorted(setting.regions.items())]

    def places(self, count: int, side: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a region and a position in it."""
        return draw_places(count, self.boxes, side, size, generator)
