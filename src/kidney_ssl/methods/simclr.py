"""SimCLR (Chen et al. 2020): two views of a slice attract each other, those of other slices repel them."""

import math
from typing import Annotated

import torch
from lightly.loss.ntx_ent_loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, normalize

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import Picture, Pretext, Setting
from kidney_ssl.methods.views import ViewOptions, apply_views, draw_views, operations, reduced
from kidney_ssl.models.resnet import encoder, seeded_weights, set_momentum

PROJECTED = 128  # width of the projection (Chen et al. 2020)
THUMBNAIL = 16  # side of the thumbnails that the trivial predictor compares


class SimclrOptions(ViewOptions):
    """Options of SimCLR, with those of its views; `temperature` is tau of NT-Xent."""

    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.5


class Method(Pretext):
    """A ResNet with batch norm, a projection head, and NT-Xent over the batch."""

    Parameters = SimclrOptions
    one_slice_per_case = True

    def __init__(self, setting: Setting, options: SimclrOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.options = options
        self.encoder, width = encoder(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        with seeded_weights(setting.seed):
            self.head = SimCLRProjectionHead(width, width, PROJECTED)
        set_momentum(self.head, setting.batch_norm_momentum)
        self.loss = NTXentLoss(temperature=options.temperature)

    def views(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Two views of each slice, (2B, 1, S, S) or of `size`: first all first ones."""
        images = reduced(images, self.options.size)
        return apply_views(images, draw_views(2 * len(images), self.options, generator), self.options.max_sigma)

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """NT-Xent (Eq. 1) of the views' projections, and how often the other view is the nearest.

        The negatives are the views of the joined batch of all processes.
        """
        projected = self.head(self.encoder(self.views(images, generator))).float()
        with torch.autocast(images.device.type, enabled=False):
            first, second = (joined(half) for half in projected.chunk(2))
            loss = self.loss(first, second)
            logits, other = similarities(torch.cat([first, second]).detach())
        return loss, {"accuracy": (logits.argmax(1) == other).float().mean()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Metrics of each slice, means of its two views.

        loss, beside that of equal similarities; accuracy, how often the other view is the nearest of the batch's
        2B - 1, beside chance and the same by thumbnails of the views; alignment and uniformity of the projections and
        of the thumbnails (uniformity is of the whole batch).
        """
        count, device = len(images), images.device
        views = self.views(images, generator)
        projected = self.head(self.encoder(views)).float()
        with torch.autocast(device.type, enabled=False):
            thumbnails = adaptive_avg_pool2d(views, THUMBNAIL).flatten(1)
            thumbnails = thumbnails - thumbnails.mean(1, keepdim=True)
            logits, other = similarities(projected)
            alike, _ = similarities(thumbnails)
            losses = cross_entropy(logits / self.options.temperature, other, reduction="none")
            metrics = {
                "loss": losses,
                "accuracy": (logits.argmax(1) == other).float(),
                "accuracy_thumbnail": (alike.argmax(1) == other).float(),
                "alignment": alignment(projected),
                "alignment_thumbnail": alignment(thumbnails),
                "uniformity": uniformity(projected).expand(2 * count),
                "uniformity_thumbnail": uniformity(thumbnails).expand(2 * count),
            }
        found = {name: values.view(2, count).mean(0) for name, values in metrics.items()}
        found["loss_chance"] = torch.full((count,), math.log(2 * count - 1), device=device)
        found["accuracy_chance"] = torch.full((count,), 1 / (2 * count - 1), device=device)
        return found

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Pairs of views, and each operation by itself at what was drawn for it (the blur at its largest)."""
        images = reduced(images, self.options.size)
        pairs = self.views(images, generator).view(2, len(images), *images.shape[2:])
        return {
            "views": Picture(torch.stack([images[:, 0], *pairs], 1), ("slice", "first view", "second view")),
            "operations": operations(images, self.options, generator),
        }


def similarities(projected: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine similarities of views, (2B, 2B) with -inf for a view and itself, and (2B,) the place of the other view."""
    unit = normalize(projected, dim=1)
    found = (unit @ unit.T).fill_diagonal_(-torch.inf)
    numbers = torch.arange(len(unit), device=unit.device)
    return found, (numbers + len(unit) // 2) % len(unit)


def alignment(projected: Tensor) -> Tensor:
    """Squared distance of a slice's two views on the unit sphere, (2B,) (Wang and Isola 2020); 2 is chance."""
    unit = normalize(projected, dim=1)
    return (unit - unit.roll(len(unit) // 2, 0)).pow(2).sum(1)


def uniformity(projected: Tensor) -> Tensor:
    """Log of the mean of exp(-2 d^2) over pairs of different slices, of first and of second views, mean of both.

    Wang and Isola (2020): 0 where all are one point, about -4 where they are spread evenly; NaN for one slice.
    """
    halves = normalize(projected, dim=1).chunk(2)
    return torch.stack([torch.pdist(half).pow(2).mul(-2).exp().mean().log() for half in halves]).mean()
