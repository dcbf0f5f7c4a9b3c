"""Inpainting of a square inside a kidney region (thesis, 3.4.2): the regions were found with labels, all else not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kidney_ssl.pretext.base import Box, Setting, pixels
from kidney_ssl.pretext.restoration import (
    HOLE,
    Fill,
    Perturbed,
    Restoration,
    RestorationOptions,
    fill,
    square,
)


class InpaintKidneyOptions(RestorationOptions):
    """Options of `inpaint_kidney`; `fill` is what the hole holds: zero (thesis), the image's mean, noise."""

    fill: Fill = "zero"


def places(start: int, stop: int, side: int, size: int) -> tuple[int, int]:
    """Find where a square may begin along one axis to lie inside a region.

    Args:
        start: first pixel of the region.
        stop: the pixel past its last.
        side: of the square.
        size: of the image.

    Returns:
        The first place and the number of places; the one that centres the square over the region where the region is
        narrower, moved into the image if need be.
    """
    if stop - start >= side:
        return start, stop - start - side + 1
    return min(max((start + stop - side) // 2, 0), size - side), 1


def draw_places(
    count: int, boxes: Sequence[Box], side: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a region and a place in it for each image, all alike likely.

    Args:
        count: B.
        boxes: the regions.
        side: of the square, in pixels.
        size: of the image, in pixels.
        generator: all chance comes from it.

    Returns:
        First row and first column of the square, (B,) int64.
    """
    device = generator.device
    rows = torch.tensor([places(box[0], box[1], side, size) for box in boxes], device=device)
    columns = torch.tensor([places(box[2], box[3], side, size) for box in boxes], device=device)
    chosen = torch.randint(len(boxes), (count,), generator=generator, device=device)
    # Double: in float32 a draw just under 1 can round up to the place past the last.
    shares = torch.rand(2, count, dtype=torch.float64, generator=generator, device=device)
    top, left = (
        first[chosen] + (share * number[chosen]).long()
        for share, (first, number) in zip(shares, (rows.T, columns.T), strict=True)
    )
    return top, left


class Method(Restoration):
    """A U-Net that fills in the square; the thesis's loss is Dice as printed."""

    Parameters = InpaintKidneyOptions
    options: InpaintKidneyOptions

    def __init__(self, setting: Setting, options: InpaintKidneyOptions) -> None:
        """Build the network and place the regions."""
        super().__init__(setting, options)
        size = setting.image_size
        self.boxes = [pixels(rectangle, size, name) for name, rectangle in sorted(setting.regions.items())]

    def perturb(self, images: Tensor, generator: torch.Generator) -> Perturbed:
        """Remove one square an image."""
        size = images.shape[-1]
        side = round(HOLE * size)
        hole = square(*draw_places(len(images), self.boxes, side, size, generator), side, size)
        return Perturbed(fill(images, hole, self.options.fill, generator), images, hole)
