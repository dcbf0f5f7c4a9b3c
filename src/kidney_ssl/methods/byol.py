"""BYOL (Grill et al. 2020): predict from one view a slowly updated target network's projection of the other view."""

import copy
from typing import Annotated

import torch
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.views import TwoViews, ViewOptions
from kidney_ssl.models.momentum import cosine_momentum, follow
from kidney_ssl.models.resnet import seeded_weights, set_momentum

HIDDEN, PROJECTED = 4096, 256  # widths of projector and predictor, as in the paper
UNRELATED = 4.0  # the loss of orthogonal embeddings


class ByolOptions(ViewOptions):
    """Options of BYOL and its views; `momentum` is the target's initial momentum, which rises to 1 in training."""

    momentum: Annotated[float, Field(ge=0, le=1)] = 0.996


class Method(TwoViews):
    """An encoder, a projector, a predictor, and a target network that gets no gradient.

    With q the prediction from one view and z' the target's projection of the other, both of unit length (Eq. 2):
    L = |q(v) - z'(v')|^2 + |q(v') - z'(v)|^2 = 4 - 2 cos - 2 cos. The online encoder is exported. There are no
    negatives: constant embeddings have a loss of 0, so accuracy and uniformity show whether the network collapsed.
    """

    Parameters = ByolOptions
    options: ByolOptions

    def __init__(self, setting: Setting, options: ByolOptions) -> None:
        """Build both networks."""
        super().__init__(setting, options)
        with seeded_weights(setting.seed):
            self.head = BYOLProjectionHead(self.width, HIDDEN, PROJECTED)
            self.predictor = BYOLPredictionHead(PROJECTED, HIDDEN, PROJECTED)
        for part in (self.head, self.predictor):
            set_momentum(part, setting.batch_norm_momentum)
        self.target = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)

    def begin(self) -> None:
        """Copy the initial weights to the target."""
        self.target[0].load_state_dict(self.encoder.state_dict())

    def after_step(self, update: int, updates: int) -> None:
        """Update the target."""
        follow(
            self.target, nn.Sequential(self.encoder, self.head), cosine_momentum(self.options.momentum, update, updates)
        )

    def _losses(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (B,) and the online network's projections (2B, D)."""
        projected = self.head(self.encoder(views))
        predicted = self.predictor(projected).float()
        with torch.no_grad():
            given = self.target(views).float()
        with torch.autocast(views.device.type, enabled=False):
            distances = 2 - 2 * cosine_similarity(predicted, given.roll(len(given) // 2, 0))
        return distances.view(2, -1).sum(0), projected.float()

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the mean standard deviation of a projected feature, which is 0 after a collapse."""
        losses, projected = self._losses(self.views(images, generator))
        return losses.mean(), {"deviation": projected.detach().std(0).mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss of each slice, the loss of orthogonal embeddings, and the metrics of `compared`."""
        views = self.views(images, generator)
        losses, projected = self._losses(views)
        return self.compared(views, projected, losses) | {"loss_unrelated": torch.full_like(losses, UNRELATED)}
