"""Undo an exchange of the two kidney regions (thesis, 3.4.2). The regions were found with labels."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Box, Setting, pixels
from kidney_ssl.methods.boxes import pixels_of
from kidney_ssl.methods.restoration import Perturbed, Restoration, RestorationOptions
from kidney_ssl.schema import REGIONS


class InpaintSwitchOptions(RestorationOptions):
    """Options of `inpaint_switch`.

    Attributes:
        probability: share of images whose regions are exchanged in training (thesis: every image); in validation and
            pictures all images are changed.
        mirror: mirror the contents left to right, so that they look like the other side's kidney.
    """

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    mirror: bool = False


def switch(images: Tensor, left: Box, right: Box, *, mirror: bool) -> Tensor:
    """Exchange the contents of two regions, each resampled to the other's size.

    Resampling is bilinear, with anti-aliasing where a region shrinks. Regions of equal size are exchanged pixel by
    pixel, so that two exchanges restore the image. `images` are (B, 1, S, S); `mirror` mirrors the contents left to
    right.
    """
    switched = images.clone()
    for (top, bottom, start, stop), (to_top, to_bottom, to_start, to_stop) in ((left, right), (right, left)):
        content, fit = images[..., top:bottom, start:stop], (to_bottom - to_top, to_stop - to_start)
        if content.shape[2:] != fit:
            content = interpolate(content, fit, mode="bilinear", antialias=True)
        switched[..., to_top:to_bottom, to_start:to_stop] = content.flip(3) if mirror else content
    return switched


class Method(Restoration):
    """A U-Net that undoes the exchange; the loss of the thesis is Dice as printed there."""

    Parameters = InpaintSwitchOptions
    options: InpaintSwitchOptions

    def __init__(self, setting: Setting, options: InpaintSwitchOptions) -> None:
        """Build the network and place the regions.

        Raises:
            InputError: there is only one region, or the two overlap.
        """
        super().__init__(setting, options)
        if set(setting.regions) != set(REGIONS):
            raise InputError(
                "inpaint_switch exchanges the regions of a pair of organs, and this study has one region "
                "(data.classes.paired: false): leave it out"
            )
        size = setting.image_size
        self.left, self.right = (pixels(setting.regions[name], size, name) for name in REGIONS)
        regions = pixels_of(torch.tensor([[self.left], [self.right]]), size)
        if regions.all(0).any():
            raise InputError("the regions 'left' and 'right' overlap and cannot be exchanged: keep them apart")
        self.regions: Tensor
        self.register_buffer("regions", regions.any(0), persistent=False)

    def _switch(self, images: Tensor, switched: Tensor) -> Tensor:
        exchanged = switch(images, self.left, self.right, mirror=self.options.mirror)
        return torch.where(switched[:, None, None, None], exchanged, images)

    def perturb(self, images: Tensor, generator: torch.Generator) -> Perturbed:
        """Exchange the regions of randomly drawn images."""
        probability = self.options.probability if self.training else 1.0
        switched = torch.rand(len(images), generator=generator, device=generator.device) < probability
        hole = self.regions & switched[:, None, None, None]
        return Perturbed(self._switch(images, switched), images, hole)

    def guesses(self, perturbed: Perturbed) -> dict[str, Tensor]:
        """The trivial restorations, and a second exchange of the regions, which is exact for regions of equal size."""
        inverse = self._switch(perturbed.images, perturbed.changed.flatten(1).any(1))
        return super().guesses(perturbed) | {"inverse": inverse}
