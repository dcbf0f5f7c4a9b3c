"""Slice order (Zhang et al. 2017, Yan et al. 2018): which of two slices lies higher?"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import Options, Picture, Pretext, PretextBatch, Setting
from kidney_ssl.models.resnet import encoder, seeded_weights

BODY = 0.05  # grey value above which a pixel counts as body
CHANCE = 0.5


class SliceOrderOptions(Options):
    """Options of slice order.

    Attributes:
        margin: smallest difference in relative height, as a fraction of a volume, at which slices of different cases
            are compared. Scans cover different parts of the body, so a small difference is meaningless. 1: compare only
            slices of the same case, of which a batch of a large pool has few.
    """

    margin: Annotated[float, Field(ge=0, le=1)] = 0.25


class Method(Pretext):
    """An encoder that gives each slice a score, and a logistic loss over the pairs of a batch.

    With s the score, for a pair whose first slice lies higher (RankNet, as Yan et al. order the slices of a volume):
    L = -log sigmoid(s(lower) - s(higher)). Each slice is encoded once and compared with all slices of its own case, and
    with slices of other cases if their relative heights differ by at least `margin`.
    """

    Parameters = SliceOrderOptions
    reads_batch = True

    def __init__(self, setting: Setting, options: SliceOrderOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.margin = options.margin
        self.encoder, width = encoder(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        with seeded_weights(setting.seed):
            self.head = nn.Linear(width, 1, bias=False)  # a bias cancels in differences of scores

    def _scores(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images))[:, 0].float()

    def step(self, batch: PretextBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss and accuracy of the pairs of the joined batch; 0 without a pair."""
        scores, case, place = (joined(one) for one in (self._scores(batch.images), batch.case, batch.position))
        higher = pairs(case, place, self.margin)
        count = higher.sum().clamp(min=1)
        lead = scores - scores[:, None]  # score difference: how much lower slice j is predicted to be than slice i
        return (softplus(-lead) * higher).sum() / count, {"accuracy": ((lead.detach() > 0) & higher).sum() / count}

    def validate(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss and accuracy of each slice, with those of chance and of the rule that less body means higher.

        They are means over a slice's pairs; a slice without pairs gets the batch's mean, a batch without pairs chance.
        """
        higher = pairs(batch.case, batch.position, self.margin)
        scores, body = self._scores(batch.images), (batch.images > BODY).float().mean((1, 2, 3))
        lead = scores - scores[:, None]
        right = (body - body[:, None]).sign() / 2 + 0.5  # a tie counts one half
        return {
            "loss": _of_each(softplus(-lead), higher, math.log(2)),
            "loss_chance": torch.full_like(scores, math.log(2)),
            "accuracy": _of_each((lead > 0).float(), higher, CHANCE),
            "accuracy_body": _of_each(right, higher, CHANCE),
            "accuracy_chance": torch.full_like(scores, CHANCE),
        }

    def pictures(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Picture]:
        """The slices in their true order, next to the slices in the order of their scores."""
        images = batch.images[:, 0]
        ranked = [images[order.argsort()] for order in (batch.position, self._scores(batch.images))]
        return {"order": Picture(torch.stack(ranked, 1), ("by height", "by score"))}


def pairs(case: Tensor, place: Tensor, margin: float) -> Tensor:
    """Pairs to compare, (B, B) bool: slice i is higher than slice j; from cases (B,) and heights (B,), 0 at the top."""
    below = place - place[:, None]
    return (below > 0) & ((case == case[:, None]) | (below >= margin))


def _of_each(values: Tensor, higher: Tensor, chance: float) -> Tensor:
    """Means (B,) of `values` (B, B) over each slice's pairs, see `Method.validate`."""
    counts = higher.sum(0) + higher.sum(1)
    sums = (values * higher).sum(0) + (values * higher).sum(1)
    mean = torch.where(counts.sum() > 0, sums.sum() / counts.sum().clamp(min=1), chance)
    return torch.where(counts > 0, sums / counts.clamp(min=1), mean)
