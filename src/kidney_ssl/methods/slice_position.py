"""Slice position: at which height of its volume is a slice? Similar to body part regression (Yan et al. 2018)."""

import torch
from torch import Tensor, nn

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import Options, Picture, Pretext, PretextBatch, Setting
from kidney_ssl.models.resnet import encoder, seeded_weights

MIDDLE = 0.5  # prediction of the trivial predictor before the first training slice


class Method(Pretext):
    """An encoder with one output and the squared error of the slice's position, from 0 at the top to 1 at the bottom.

    L = mean (f(x) - p)^2. Errors are fractions of the volume's height. They cannot reach 0, because scans cover
    different parts of the body. The trivial predictor always predicts the mean position of the training slices, which
    is not the middle if slices were chosen around the kidneys.
    """

    reads_batch = True
    places: Tensor  # () float64, sum of the positions of all training slices so far
    seen: Tensor  # () float64, their number

    def __init__(self, setting: Setting, options: Options) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.encoder, width = encoder(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        with seeded_weights(setting.seed):
            self.head = nn.Linear(width, 1)
        for name in ("places", "seen"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def _told(self, batch: PretextBatch) -> Tensor:
        """Predicted positions (B,)."""
        return self.head(self.encoder(batch.images))[:, 0].float()

    def step(self, batch: PretextBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Squared error, and the error as a fraction of the volume's height."""
        told = self._told(batch)
        places = joined(batch.position)
        self.places += places.double().sum()
        self.seen += len(places)
        return (told - batch.position).square().mean(), {"error": (told.detach() - batch.position).abs().mean()}

    def validate(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Squared and absolute error of each slice, with those of the training slices' mean position."""
        told = self._told(batch)
        mean = torch.where(self.seen > 0, self.places / self.seen, MIDDLE).float()
        return {
            "loss": (told - batch.position).square(),
            "loss_mean": (mean - batch.position).square(),
            "error": (told - batch.position).abs(),
            "error_mean": (mean - batch.position).abs(),
        }

    def pictures(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Picture]:
        """Each slice, its true height in the volume as a bright line, and the predicted height."""
        images = batch.images[:, 0]
        places = [_line(place, images.shape[1]) for place in (batch.position, self._told(batch))]
        return {"places": Picture(torch.stack([images, *places], 1), ("slice", "its place", "told"))}


def _line(place: Tensor, size: int) -> Tensor:
    """A horizontal line at a position (B,), (B, size, size); positions beyond the volume are drawn at its end."""
    rows = torch.arange(size, device=place.device)
    at = (place * size).long().clamp(0, size - 1)
    near = (rows - at[:, None]).abs() <= size // 64
    return near.float()[:, :, None].expand(-1, -1, size)
