"""Contrastive predictive coding (van den Oord et al. 2018): predict rows of patches from the rows above."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import Options, Picture, Pretext, Setting
from kidney_ssl.methods.patches import enlarged, frames, grid
from kidney_ssl.models.resnet import batch_norms, encoder, seeded_weights

FIRST = 2  # offset of the first predicted row: the next row (1) shares pixels with the context
HIDDEN = 256  # units of the context, as in the implementation made for speech that the thesis used


class CpcOptions(Options):
    """Options of CPC.

    Attributes:
        grid: patches per row and per column. A patch's side is a quarter of the slice's, which fixes the stride: an
            eighth of the slice for 7 (neighbours share half of their pixels), three sixteenths for 5 (a quarter).
        steps: the rows 2 to `steps` below are predicted.
        batch_norm: statistics of the encoder's batch norm. `rows`: each row of the grid is encoded separately with its
            own statistics, in training and validation; running statistics do not change until they are re-estimated.
            `frozen`: the running statistics of the initial weights. `leaky`: one pass over all patches, so that the
            statistics leak information about the predicted rows into the context; deliberately broken.
    """

    grid: Literal[5, 7] = 7
    steps: Annotated[int, Field(ge=FIRST)] = 4
    batch_norm: Literal["rows", "frozen", "leaky"] = "rows"

    @model_validator(mode="after")
    def _inside(self) -> "CpcOptions":
        if self.steps >= self.grid:
            raise ValueError(f"steps must be below grid ({self.grid}), got {self.steps}")
        return self


def layout(image_size: int, count: int) -> tuple[int, int]:
    """Side and stride in pixels of a grid of `count` by `count` patches.

    The side is a quarter of the slice's and the grid spans the slice, rounded to whole pixels. The side is smaller if a
    patch would otherwise share a pixel with the second patch below it.
    """
    stride = 3 * image_size // (4 * (count - 1))
    return min(image_size // 4, FIRST * stride), stride


def info_nce(predictions: Tensor, candidates: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE with the dot product as similarity.

    L = -log(exp(p.x+) / sum over x of exp(p.x)), where x runs over all candidates including the positive x+ (van den
    Oord et al. 2018, Eq. 4, with p = W_k c_t of Eq. 3). The thesis's Eq. 2 sums over the negatives only, which has no
    lower bound; we use the published form.

    Args:
        predictions: (P, D).
        candidates: (N, D).
        positives: (P,) index of each prediction's positive.

    Returns:
        Losses (P,) and logits (P, N).
    """
    with torch.autocast(predictions.device.type, enabled=False):
        logits = predictions.float() @ candidates.float().T
    return cross_entropy(logits, positives, reduction="none"), logits


class Method(Pretext):
    """A ResNet on each patch, a recurrent context down the rows, and linear predictions of the rows below.

    Unlike the paper, which uses a PixelCNN, the context is a GRU down each column over patches mixed with their left
    and right neighbours, as in the speech implementation that the thesis used.
    """

    Parameters = CpcOptions
    one_slice_per_case = True

    def __init__(self, setting: Setting, options: CpcOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.options, (self.side, self.stride) = options, layout(setting.image_size, options.grid)
        self.encoder, width = encoder(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        with seeded_weights(setting.seed):
            self.across = nn.Conv2d(width, HIDDEN, (1, 3), padding=(0, 1))
            self.down = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
            self.predictors = nn.ModuleList(nn.Linear(HIDDEN, width) for _ in range(FIRST, options.steps + 1))

    def train(self, mode: bool = True) -> "Method":
        """Set training mode; with `batch_norm: frozen` the encoder's statistics do not change."""
        super().train(mode)
        if self.options.batch_norm == "frozen":
            for norm in batch_norms(self.encoder):
                norm.eval()
        return self

    def patches(self, images: Tensor) -> Tensor:
        """The grid: (B, R, C, 1, side, side), R = C = `grid`."""
        count = self.options.grid
        return grid(images, self.side, self.stride)[:, :count, :count]

    def encode(self, images: Tensor) -> Tensor:
        """Features of all patches, averaged over each: (B, R, C, width)."""
        patches = self.patches(images)
        if self.options.batch_norm != "rows":
            return self._features(patches)
        with _own_statistics(self.encoder):
            return torch.stack([self._features(row) for row in patches.unbind(1)], 1)

    def _features(self, patches: Tensor) -> Tensor:
        """One pass of the encoder: (..., 1, side, side) -> (..., width)."""
        return self.encoder(patches.flatten(0, -4)).unflatten(0, patches.shape[:-3])

    def context(self, features: Tensor) -> Tensor:
        """Context at each patch, (B, R, C, HIDDEN), from its row and the rows above."""
        mixed = relu(self.across(features.permute(0, 3, 1, 2)))  # (B, HIDDEN, R, C); mixes within a row only
        with torch.autocast(features.device.type, enabled=False):
            known, _ = self.down(mixed.float().permute(0, 3, 2, 1).flatten(0, 1))
        return known.unflatten(0, (len(features), -1)).transpose(1, 2)

    def compare(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the rows 2 to `steps` below each context, and compare the predictions with all patches of the batch.

        Returns:
            Losses (B, P) of an image's P predictions; logits (B, P, B, R * C) against each patch of each image; and
            each prediction's true patch in its own image, (P,) in 0 .. R * C - 1.
        """
        count, rows, columns, _ = features.shape
        context = self.context(features)
        numbers = torch.arange(rows * columns, device=features.device).view(rows, columns)
        predictions = [
            predictor(context[:, : rows - step]).flatten(1, 2) for step, predictor in enumerate(self.predictors, FIRST)
        ]
        targets = torch.cat([numbers[step:].flatten() for step in range(FIRST, self.options.steps + 1)])
        images = torch.arange(count, device=features.device)[:, None]
        losses, logits = info_nce(
            torch.cat(predictions, 1).flatten(0, 1),
            features.flatten(0, 2),
            (images * rows * columns + targets).flatten(),
        )
        return losses.view(count, -1), logits.view(count, -1, count, rows * columns), targets

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE over all patches of the batch, joined from all processes. Uses no random numbers."""
        losses, logits, targets = self.compare(joined(self.encode(images)))
        return losses.mean(), {name: value.mean() for name, value in accuracies(logits.detach(), targets).items()}

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss and contrastive accuracies of each image, with their chance levels.

        All except `accuracy_within` depend on the batch size, because the other images' patches are negatives. Compare
        them only between runs of the same batch size, or with their chance levels, which use the actual batch sizes.
        """
        losses, logits, targets = self.compare(self.encode(images))
        batch, patches = logits.shape[2:]
        chance = {
            "loss_chance": torch.tensor(batch * patches).log(),
            "accuracy_within_chance": torch.tensor(1 / patches),
            "accuracy_across_chance": torch.tensor(1 / ((batch - 1) * patches + 1)),
        }
        return {
            "loss": losses.mean(1),
            **accuracies(logits, targets),
            **{name: value.to(images.device).expand(batch) for name, value in chance.items()},
        }

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """The grid of one slice; and one prediction for each slice: its context, the true patch and the best match."""
        count, size = len(images), images.shape[-1]
        patches = self.patches(images)
        shown = Picture(
            patches[count // 2, :, :, 0], tuple(f"column {number + 1}" for number in range(patches.shape[2]))
        )
        rows, columns = patches.shape[1:3]
        row, column = (rows - FIRST) // 2, columns // 2
        _, logits, _ = self.compare(self.encode(images))
        image = torch.arange(count, device=images.device)
        rated = logits[:, row * columns + column]  # (B, B, R * C), of the first step
        elsewhere = rated.masked_fill((image[:, None] == image)[..., None], -torch.inf).flatten(1).argmax(1)
        best = image * rows * columns + rated[image, image].argmax(1)
        true = image * rows * columns + (row + FIRST) * columns + column
        found = [enlarged(patches.flatten(0, 2)[number], size) for number in (true, best, elsewhere)]
        top, left = (torch.full_like(image, number * self.stride) for number in (row + FIRST, column))
        known = images[:, 0].clone()
        known[:, row * self.stride + self.side :] *= 0.4
        known = torch.where(frames(size, top, left, self.side), 1.0, known)
        titles = ("known, predicted patch", "true patch", "best of this slice", "best of the others")
        return {"patches": shown, "predictions": Picture(torch.stack([known, *found], 1), titles)}


def accuracies(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Share of an image's predictions that match their true patch better than every negative.

    A tie counts as a miss, so an encoder that maps all patches to one point has an accuracy of 0.

    Returns:
        From `Method.compare`'s logits and targets, (B,) each: `accuracy_within` against the other patches of the same
        image, `accuracy_across` against the patches of the other images.
    """
    count, predictions, _, patches = logits.shape
    image, prediction = torch.arange(count, device=logits.device), torch.arange(predictions, device=logits.device)
    own = logits[image, :, image]  # (B, P, N)
    true = own[:, prediction, targets]
    itself = torch.arange(patches, device=logits.device) == targets[:, None]
    within = own.masked_fill(itself, -torch.inf).amax(2)
    same = image[:, None] == image
    across = logits.amax(3).masked_fill(same[:, None], -torch.inf).amax(2)
    return {"accuracy_within": (true > within).float().mean(1), "accuracy_across": (true > across).float().mean(1)}


@contextmanager
def _own_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise each pass with its own batch statistics, also in evaluation mode; running statistics do not change.

    Running statistics are averages over rows and differ from each row's statistics. A network trained with the rows'
    statistics would seem untrained if evaluated with the running ones.
    """
    norms = batch_norms(model)
    modes = [norm.training for norm in norms]
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training, norm.track_running_stats = mode, True
