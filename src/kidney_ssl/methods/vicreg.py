"""VICReg (Bardes et al. 2022): two views agree, no feature is constant, and features are uncorrelated."""

from typing import Annotated

import torch
from lightly.loss.vicreg_loss import VICRegLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from pydantic import Field
from torch import Tensor

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.views import TwoViews, ViewOptions
from kidney_ssl.models.resnet import seeded_weights, set_momentum

EPSILON = 1e-4  # added to variances, as in the paper


class VicregOptions(ViewOptions):
    """Options of VICReg, with those of its views.

    Attributes:
        invariance: lambda, weight of the squared distance of two views.
        variance: mu, weight of the hinge that keeps the standard deviation of each feature above 1.
        covariance: nu, weight of the covariances between features.
        expansion: width of the expander's three layers divided by the encoder's; 4 is the paper's 8192 for ResNet-50.
    """

    invariance: Annotated[float, Field(ge=0)] = 25.0
    variance: Annotated[float, Field(ge=0)] = 25.0
    covariance: Annotated[float, Field(ge=0)] = 1.0
    expansion: Annotated[int, Field(ge=1, le=32)] = 4


class Method(TwoViews):
    """An encoder, an expander (the projector of Barlow Twins), and the loss over the batch's embeddings.

    With Z and Z' (B, D) the embeddings of first and second views, and sd(j), cov over the batch with B - 1 (Eq. 6):
    L = lambda mean (Z - Z')^2 + mu (v(Z) + v(Z')) / 2 + nu (c(Z) + c(Z')),
    v(Z) = mean over j of max(0, 1 - sqrt(sd(j)^2 + 1e-4)), c(Z) = sum over i != j of cov(i, j)^2 / D.
    Half of mu, and the mean over all entries of the squared distance, are as in the authors' code.
    """

    Parameters = VicregOptions
    one_slice_per_case = True  # features of near-duplicates cannot vary

    def __init__(self, setting: Setting, options: VicregOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        width = options.expansion * self.width
        with seeded_weights(setting.seed):
            self.head = BarlowTwinsProjectionHead(self.width, width, width)
        set_momentum(self.head, setting.batch_norm_momentum)
        self.loss = VICRegLoss(options.invariance, options.variance, options.covariance, eps=EPSILON)
        # Constant embeddings agree and have no covariance, so only the hinge remains.
        self.constant = options.variance * (1 - EPSILON**0.5)

    def _embedded(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the joined batch's first and second views, (B, D) float32 each."""
        first, second = self.head(self.encoder(views)).float().chunk(2)
        return joined(first), joined(second)

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the joined batch, and the mean standard deviation of a feature, which is 0 after a collapse."""
        first, second = self._embedded(self.views(images, generator))
        with torch.autocast(images.device.type, enabled=False):
            return self.loss(first, second), {"deviation": first.detach().std(0).mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The batch's loss, repeated for each slice, that of constant embeddings, and the metrics of `compared`."""
        views = self.views(images, generator)
        embedded = self.head(self.encoder(views)).float()
        loss = embedded.new_tensor(torch.nan)  # one slice has no variance
        with torch.autocast(images.device.type, enabled=False):
            if len(images) > 1:
                loss = self.loss(*embedded.chunk(2))
        found = self.compared(views, embedded, loss.expand(len(images)))
        return found | {"loss_constant": torch.full_like(found["loss"], self.constant)}
