"""Basic augmentation (thesis, 3.3): rotation, flips, slight intensity change, crop. The thesis found no gain.

Rotation, crop and flips are combined into one affine map, so that a slice is interpolated (bilinearly) only once.
"""

import math
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import grid_sample

from kidney_ssl.augmentations.base import Augmentation, Augmented, TrainingSet, before_and_after
from kidney_ssl.methods.base import Options, Picture


class BasicOptions(Options):
    """Options of `basic`; the thesis gives no numbers.

    Attributes:
        degrees: largest rotation in either direction; the angle is uniform. 0 for none.
        flips: what is reversed, with probability 0.5 each: columns, rows, both (thesis) or neither.
        min_scale: smallest share of the area that a crop keeps; the share is uniform from this to 1. The crop is a
            square at a uniformly drawn place.
        brightness: values are multiplied by a factor uniform in 1 - brightness to 1 + brightness.
        contrast: deviations from the image's mean are multiplied by a factor uniform in 1 - contrast to 1 + contrast.
    """

    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    flips: Literal["both", "left_right", "up_down", "none"] = "both"
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.8
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.1
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Draws(NamedTuple):
    """Parameters of B images, each (B,) float32 except the flips, which are (B,) bool."""

    angle: Tensor  # radians, counter-clockwise as displayed
    mirrored: Tensor  # bool, whether columns are reversed
    upside_down: Tensor  # bool, whether rows are reversed
    side: Tensor  # side of the crop in fractions of S
    across: Tensor  # horizontal offset of the crop's centre from the rotated image's centre, in units of S / 2
    down: Tensor  # the same offset downwards
    brightness: Tensor  # factor on all values
    contrast: Tensor  # factor on deviations from the mean


def draw(count: int, options: BasicOptions, generator: torch.Generator) -> Draws:
    """Draw the parameters of `count` images."""
    angle, mirror, turn, scale, across, down, brightness, contrast = torch.rand(
        (8, count), generator=generator, device=generator.device
    )
    side = (options.min_scale + (1 - options.min_scale) * scale).sqrt()
    return Draws(
        angle=math.radians(options.degrees) * (2 * angle - 1),
        mirrored=(mirror < 0.5) & (options.flips in ("left_right", "both")),
        upside_down=(turn < 0.5) & (options.flips in ("up_down", "both")),
        side=side,
        across=(1 - side) * (2 * across - 1),
        down=(1 - side) * (2 * down - 1),
        brightness=1 + options.brightness * (2 * brightness - 1),
        contrast=1 + options.contrast * (2 * contrast - 1),
    )


def unchanged(count: int, device: torch.device) -> Draws:
    """Parameters that leave images unchanged."""
    zeros, ones = torch.zeros(count, device=device), torch.ones(count, device=device)
    return Draws(zeros, zeros.bool(), zeros.bool(), ones, zeros, zeros, ones, ones)


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Rotate, crop and flip, then change contrast and brightness.

    Pixels from outside the image are filled with air (0), like the surroundings of the body. The intensity change comes
    last, so that it changes both alike. The centres of the outermost pixels are half a pixel inside the image's edge.
    """
    size = images.shape[-1]
    line = (2 * torch.arange(size, device=images.device) + 1) / size - 1
    # From a pixel of the result back to its source position: flip, crop, rotation.
    x = draws.across[:, None] + (draws.side * (1 - 2 * draws.mirrored.float()))[:, None] * line
    y = draws.down[:, None] + (draws.side * (1 - 2 * draws.upside_down.float()))[:, None] * line
    x, y = x[:, None, :], y[:, :, None]
    cos, sin = draws.angle.cos()[:, None, None], draws.angle.sin()[:, None, None]
    grid = torch.stack([cos * x - sin * y, sin * x + cos * y], 3)
    made = grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    mean = made.mean((1, 2, 3), keepdim=True)
    brightness, contrast = (factor[:, None, None, None] for factor in (draws.brightness, draws.contrast))
    return (brightness * (mean + contrast * (made - mean))).clamp(0, 1)


class Method(Augmentation):
    """Rotation, crop, flips, contrast and brightness, drawn independently for each image."""

    Parameters = BasicOptions

    def __init__(self, training: TrainingSet, options: BasicOptions) -> None:
        """Nothing to prepare."""
        self.options = options

    def __call__(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> Augmented:
        """Augment one batch; labels do not change. Marks: `mirrored` and `upside_down`."""
        draws = draw(len(images), self.options, generator)
        marks = {"mirrored": draws.mirrored, "upside_down": draws.upside_down}
        return Augmented(apply(images, draws), labels, marks)

    def pictures(self, images: Tensor, labels: Tensor, rows: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Show each operation alone with its drawn parameters, and all together."""
        drawn, plain = draw(len(images), self.options, generator), unchanged(len(images), images.device)
        shown = {
            "rotation": plain._replace(angle=drawn.angle),
            "flips": plain._replace(mirrored=drawn.mirrored, upside_down=drawn.upside_down),
            "crop": plain._replace(side=drawn.side, across=drawn.across, down=drawn.down),
            "intensity": plain._replace(brightness=drawn.brightness, contrast=drawn.contrast),
            "whole": drawn,
        }
        return {name: before_and_after(images, apply(images, draws)) for name, draws in shown.items()}
