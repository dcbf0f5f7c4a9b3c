"""Unsupervised augmentation (thesis, 3.5 and Fig. 12): black rectangles outside the organ's regions.

It reads no label of a slice, but the regions were found with the masks of training cases.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from kidney_ssl.augmentations.base import Augmentation, Augmented, TrainingSet, before_and_after
from kidney_ssl.methods.base import Options, Picture, pixels
from kidney_ssl.methods.boxes import below, boxes_at, pixels_of


class UnsupervisedOptions(Options):
    """Options of `unsupervised`.

    Attributes:
        rectangles: number per image (thesis: 3); they may overlap.
        side: longest side of a rectangle as a fraction of the image's side (thesis: 0.5); each side is uniform from 0
            to this.
        protect: what is pasted back: the organ's regions (thesis); nothing; or boxes of the regions' sizes at places
            drawn for each image, which tests whether the place of the protection matters (the last two are ours).
    """

    rectangles: Annotated[int, Field(ge=1, le=100)] = 3
    side: Annotated[float, Field(gt=0, le=1)] = 0.5
    protect: Literal["regions", "nothing", "random"] = "regions"


class Method(Augmentation):
    """Copies the regions, blacks out rectangles, and pastes the regions back."""

    Parameters = UnsupervisedOptions

    def __init__(self, training: TrainingSet, options: UnsupervisedOptions) -> None:
        """Turn the regions into pixels.

        Raises:
            InputError: a region has no pixel.
        """
        self.options = options
        self.size = training.image_size
        boxes = [pixels(region, self.size, name) for name, region in sorted(training.regions.items())]
        self.regions = torch.tensor(boxes, device=training.device)

    def _rectangles(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw rectangles, (B, K, 4) int64 boxes; some may be empty."""
        longest = round(self.options.side * self.size)
        shape = (count, self.options.rectangles, 2)
        length = below(torch.full(shape, longest + 1, device=generator.device), generator)
        return boxes_at(below(self.size - length + 1, generator), length)

    def _protected(self, count: int, generator: torch.Generator) -> Tensor:
        """The pixels that are pasted back, (B, 1, S, S) bool."""
        boxes = self.regions.expand(count, -1, -1)
        if self.options.protect == "nothing":
            boxes = boxes[:, :0]
        if self.options.protect == "random":
            length = boxes[..., 1::2] - boxes[..., ::2]
            boxes = boxes_at(below(self.size - length + 1, generator), length)
        return pixels_of(boxes, self.size)

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Augmented:
        """Black out the rectangles except where pixels are protected.

        Marks: `rectangles`, number of rectangles that are not empty; `blacked`, pixels set to 0.
        """
        boxes = self._rectangles(len(images), generator)
        cut = pixels_of(boxes, self.size) & ~self._protected(len(images), generator)
        empty = (boxes[..., ::2] == boxes[..., 1::2]).any(2)
        marks = {"rectangles": (~empty).sum(1), "blacked": cut.sum((1, 2, 3))}
        return Augmented(images.masked_fill(cut, 0), labels, marks)

    def pictures(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """The steps of Fig. 12: the copied regions, the rectangles alone, and both."""
        cut = pixels_of(self._rectangles(len(images), generator), self.size)
        kept = self._protected(len(images), generator)
        black = images.masked_fill(cut, 0)
        steps = torch.cat([images, black, torch.where(kept, images, black)], 1)
        return {
            "protected": before_and_after(images, images.masked_fill(~kept, 0)),
            "rectangles": before_and_after(images, black),
            "whole": Picture(steps, ("before", "blacked out", "pasted back")),
        }
