"""SimCLR (Chen et al. 2020): two views of a slice attract each other, views of different slices repel each other."""

import math
from typing import Annotated

import torch
from lightly.loss.ntx_ent_loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.views import TwoViews, ViewOptions, similarities
from kidney_ssl.models.resnet import seeded_weights, set_momentum

PROJECTED = 128  # width of the projection (Chen et al. 2020)


class SimclrOptions(ViewOptions):
    """Options of SimCLR, with those of its views; `temperature` is tau of NT-Xent."""

    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.5


class Method(TwoViews):
    """A ResNet with batch norm, a projection head, and NT-Xent over the batch."""

    Parameters = SimclrOptions
    one_slice_per_case = True
    options: SimclrOptions

    def __init__(self, setting: Setting, options: SimclrOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        with seeded_weights(setting.seed):
            self.head = SimCLRProjectionHead(self.width, self.width, PROJECTED)
        set_momentum(self.head, setting.batch_norm_momentum)
        self.loss = NTXentLoss(temperature=options.temperature)

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """NT-Xent (Eq. 1) of the views' projections, and the share of views whose nearest view is the positive.

        The negatives are all other views of the batch joined from all processes.
        """
        projected = self.head(self.encoder(self.views(images, generator))).float()
        with torch.autocast(images.device.type, enabled=False):
            first, second = (joined(half) for half in projected.chunk(2))
            loss = self.loss(first, second)
            logits, other = similarities(torch.cat([first, second]).detach())
        return loss, {"accuracy": (logits.argmax(1) == other).float().mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """NT-Xent of each slice (mean of its two views), that of equal similarities, and the metrics of `compared`."""
        views = self.views(images, generator)
        projected = self.head(self.encoder(views)).float()
        with torch.autocast(images.device.type, enabled=False):
            logits, other = similarities(projected)
            losses = cross_entropy(logits / self.options.temperature, other, reduction="none")
        found = self.compared(views, projected, losses.view(2, -1).mean(0))
        return found | {"loss_chance": torch.full_like(found["loss"], math.log(2 * len(images) - 1))}
