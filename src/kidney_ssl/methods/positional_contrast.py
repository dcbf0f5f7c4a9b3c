"""Positional contrast (PCL, Zeng et al. 2021, arXiv:2106.09157): slices at about one place attract each other."""

import math
from typing import Annotated

import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, log_softmax

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import Picture, PretextBatch, Setting
from kidney_ssl.methods.views import THUMBNAIL, TwoViews, ViewOptions, similarities
from kidney_ssl.models.resnet import seeded_weights, set_momentum

PROJECTED = 128  # width of the projection, as for SimCLR


class PositionalContrastOptions(ViewOptions):
    """Options of positional contrast, with those of its views.

    Attributes:
        distance_mm: slices of one case that lie at most so many mm apart are positives.
        height: slices of two cases are positives if their relative heights differ by at most this fraction of a volume.
            The paper takes 0.1 for CT of the heart and up to 0.35 for short stacks of MR; 0.1 here.
        temperature: tau, 0.1 in the authors' code.
    """

    distance_mm: Annotated[float, Field(ge=0)] = 10.0
    height: Annotated[float, Field(ge=0, le=1)] = 0.1
    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.1


class Method(TwoViews):
    """An encoder, a projection head, and a contrastive loss with several positives.

    With unit vectors z of 2B views and P(i) the positives of view i, its own slice's other view among them:
    L_i = -1 / |P(i)| sum over p in P(i) of log(exp(z_i.z_p / tau) / sum over a != i of exp(z_i.z_a / tau)), as for
    supervised contrast (Khosla et al. 2020). With one positive each it is NT-Xent. Batches are drawn at random: slices
    of other cases make most positives, and those of the same case are positives where a batch happens to hold them.
    """

    Parameters = PositionalContrastOptions
    reads_batch = True
    options: PositionalContrastOptions

    def __init__(self, setting: Setting, options: PositionalContrastOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        with seeded_weights(setting.seed):
            self.head = SimCLRProjectionHead(self.width, self.width, PROJECTED)
        set_momentum(self.head, setting.batch_norm_momentum)

    def _positives(self, case: Tensor, position: Tensor, z_mm: Tensor) -> Tensor:
        return positives(case, position, z_mm, self.options.distance_mm, self.options.height)

    def step(self, batch: PretextBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the joined batch, the share of views whose nearest is a positive, and how many others are."""
        projected = self.head(self.encoder(self.views(batch.images, generator))).float()
        with torch.autocast(batch.images.device.type, enabled=False):
            together = torch.cat([joined(half) for half in projected.chunk(2)])
            alike = self._positives(joined(batch.case), joined(batch.position), joined(batch.z_mm))
            losses = contrast(together, alike, self.options.temperature)
            nearest = _nearest(together.detach(), alike)
        return losses.mean(), {"nearest": nearest.mean(), "positives": alike.sum(1).float().mean() - 1}

    def validate(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss of each slice, that of equal similarities, and the metrics of `compared`.

        nearest is the share of views whose nearest other view is a positive, with that of thumbnails of the views and
        of chance; all are means over a slice's two views.
        """
        views = self.views(batch.images, generator)
        projected = self.head(self.encoder(views)).float()
        alike = self._positives(batch.case, batch.position, batch.z_mm)
        count = len(alike)
        with torch.autocast(views.device.type, enabled=False):
            losses = contrast(projected, alike, self.options.temperature)
            thumbnails = adaptive_avg_pool2d(views, THUMBNAIL).flatten(1)
            nearest, plain = _nearest(projected, alike), _nearest(thumbnails - thumbnails.mean(1, keepdim=True), alike)
        return self.compared(views, projected, losses.view(2, count).mean(0)) | {
            "loss_chance": torch.full_like(losses[:count], math.log(2 * count - 1)),
            "nearest": nearest.view(2, count).mean(0),
            "nearest_thumbnail": plain.view(2, count).mean(0),
            "nearest_chance": (2 * alike.sum(1) - 1) / (2 * count - 1),
        }

    def pictures(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Picture]:
        """Those of `TwoViews`; and each slice beside that of another case most nearly as high, if it is a positive."""
        images = batch.images[:, 0]
        apart = (batch.position - batch.position[:, None]).abs()
        apart = apart.masked_fill(batch.case == batch.case[:, None], torch.inf)
        beside = torch.where((apart.amin(1) <= self.options.height)[:, None, None], images[apart.argmin(1)], 0)
        shown = Picture(torch.stack([images, beside], 1), ("slice", "as high in another case"))
        return super().pictures(batch.images, generator) | {"positives": shown}


def positives(case: Tensor, position: Tensor, z_mm: Tensor, distance_mm: float, height: float) -> Tensor:
    """Pairs of slices that attract each other, (B, B) bool; each slice and itself are one.

    Args:
        case: (B,) int64, numbers of the cases.
        position: (B,) relative heights from 0 to 1.
        z_mm: (B,) distances from the first slice of the volume in mm.
        distance_mm: largest distance of two slices of one case.
        height: largest difference in relative height of slices of two cases.
    """
    near = (z_mm - z_mm[:, None]).abs() <= distance_mm
    level = (position - position[:, None]).abs() <= height
    return torch.where(case == case[:, None], near, level)


def contrast(projected: Tensor, alike: Tensor, temperature: float) -> Tensor:
    """The loss of each view, see `Method`.

    Args:
        projected: (2B, D), all first views, then all second views.
        alike: (B, B) bool, which slices attract each other.
        temperature: tau.

    Returns:
        (2B,).
    """
    logits, _ = similarities(projected)
    wanted = _of_views(alike)
    told = log_softmax(logits / temperature, 1)
    return -torch.where(wanted, told, 0).sum(1) / wanted.sum(1)


def _of_views(alike: Tensor) -> Tensor:
    """Positives of views, (2B, 2B) bool: all views of the slice and its positives, but the view itself."""
    return alike.repeat(2, 2).fill_diagonal_(False)


def _nearest(vectors: Tensor, alike: Tensor) -> Tensor:
    """Whether the nearest other view of each view is a positive, (2B,) float32."""
    found, _ = similarities(vectors)
    return _of_views(alike).gather(1, found.argmax(1, keepdim=True))[:, 0].float()
