"""Barlow Twins (Zbontar et al. 2021): equal features of two views should correlate, different features should not."""

from abc import abstractmethod
from typing import Annotated

import torch
from lightly.loss.barlow_twins_loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from pydantic import Field
from torch import Tensor, nn

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.views import TwoViews, ViewOptions
from kidney_ssl.models.resnet import seeded_weights, set_momentum


class ProjectorOptions(ViewOptions):
    """Options of the projector, with those of its views.

    Attributes:
        expansion: width of the projector's three layers divided by the encoder's; 4 is the paper's 8192 for ResNet-50.
    """

    expansion: Annotated[int, Field(ge=1, le=32)] = 4


class BarlowTwinsOptions(ProjectorOptions):
    """Options of Barlow Twins, with those of its projector and views.

    Attributes:
        redundancy: lambda, weight of the correlations between different features.
    """

    redundancy: Annotated[float, Field(ge=0)] = 5e-3


class Decorrelation(TwoViews):
    """An encoder, a projector, and a loss over the joined batch's embeddings: Barlow Twins here, and VICReg."""

    one_slice_per_case = True  # over near-duplicates, correlations and variances are uninformative
    loss: nn.Module  # of first and second embeddings, (B, D) float32 each

    def __init__(self, setting: Setting, options: ProjectorOptions) -> None:
        """Build the network; a method adds its loss."""
        super().__init__(setting, options)
        width = options.expansion * self.width
        with seeded_weights(setting.seed):
            self.head = BarlowTwinsProjectionHead(self.width, width, width)
        set_momentum(self.head, setting.batch_norm_momentum)

    @abstractmethod
    def constant(self, width: int) -> float:
        """The loss of constant embeddings of this width."""

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the joined batch, and the mean standard deviation of a feature, which is 0 after a collapse."""
        first, second = self.head(self.encoder(self.views(images, generator))).float().chunk(2)
        with torch.autocast(images.device.type, enabled=False):
            first, second = joined(first), joined(second)
            return self.loss(first, second), {"deviation": first.detach().std(0).mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The batch's loss, repeated for each slice, that of constant embeddings, and the metrics of `compared`."""
        views = self.views(images, generator)
        embedded = self.head(self.encoder(views)).float()
        loss = embedded.new_tensor(torch.nan)  # one slice has no correlation and no variance
        with torch.autocast(images.device.type, enabled=False):
            if len(images) > 1:
                loss = self.loss(*embedded.chunk(2))
        found = self.compared(views, embedded, loss.expand(len(images)))
        return found | {"loss_constant": torch.full_like(found["loss"], self.constant(embedded.shape[1]))}


class Method(Decorrelation):
    """An encoder, a projector, and the cross-correlation of the batch's embeddings.

    With C(i, j) the correlation over the batch of feature i of first views and feature j of second views (Eq. 1):
    L = sum over i of (1 - C(i, i))^2 + lambda sum over i != j of C(i, j)^2.
    """

    Parameters = BarlowTwinsOptions

    def __init__(self, setting: Setting, options: BarlowTwinsOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.loss = BarlowTwinsLoss(options.redundancy)

    def constant(self, width: int) -> float:
        """See `Decorrelation.constant`: C is 0, so each feature contributes 1."""
        return float(width)
