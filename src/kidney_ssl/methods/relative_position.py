"""Relative position (Doersch et al. 2015): in which of eight directions from the anchor patch is the query patch?"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Options, Picture, Pretext, Setting
from kidney_ssl.methods.patches import air_share, cut, enlarged, frames
from kidney_ssl.models.resnet import encoder, seeded_weights

# Offset (rows down, columns right) from the anchor, row by row: 0 is above and to the left, 7 below and to the right.
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
CANDIDATES = 32  # positions drawn for each image; the first without too much air is used
HIDDEN = 256  # units of the hidden layer of both heads
JUDGED = 4  # pairs per slice in validation


class RelativePositionOptions(Options):
    """Options of relative position.

    Attributes:
        patch: side of a patch as a fraction of the slice's.
        gap: distance between neighbouring patches as a fraction of the patch; about half (Doersch et al.).
        jitter: each patch is shifted by up to this fraction of the patch in each direction; 7 of 96 pixels in the
            paper.
        air: maximum share of air in a patch, see `patches.air_share`.
    """

    patch: Annotated[float, Field(gt=0, lt=1)] = 1 / 6
    gap: Annotated[float, Field(ge=0)] = 0.5
    jitter: Annotated[float, Field(ge=0)] = 0.1
    air: Annotated[float, Field(ge=0, le=1)] = 0.5


class Geometry(NamedTuple):
    """Sizes in pixels."""

    side: int  # of a patch
    gap: int  # between neighbouring patches
    jitter: int  # largest shift of a patch
    size: int  # side S of the slice


class Pairs(NamedTuple):
    """Positions of a batch's patches: first rows and columns, (B, 2) for anchor and query; neighbour (B,), 0 to 7."""

    top: Tensor
    left: Tensor
    neighbour: Tensor


def geometry(image_size: int, options: RelativePositionOptions) -> Geometry:
    """Compute sizes in whole pixels.

    Raises:
        InputError: the patches do not fit into the slice, or the jitter could make them overlap.
    """
    side = max(1, round(options.patch * image_size))
    gap, jitter = round(options.gap * side), round(options.jitter * side)
    block = 3 * side + 2 * gap + 2 * jitter
    if block > image_size:
        raise InputError(
            f"relative_position: patch, gap and jitter of {side}, {gap} and {jitter} pixels need {block} of the "
            f"slice's {image_size}; make one of them smaller"
        )
    if 2 * jitter > gap:
        raise InputError(
            f"relative_position: with a jitter of {jitter} and a gap of {gap} pixels patches can overlap; "
            "make jitter smaller or gap larger"
        )
    return Geometry(side, gap, jitter, image_size)


def draw_pairs(images: Tensor, sizes: Geometry, air: float, generator: torch.Generator) -> Pairs:
    """Draw a neighbour, the anchor's position and both patches' jitter for each image.

    The neighbour is drawn before the position, so that rejecting air leaves all eight equally frequent and a head
    without information has an accuracy of 12.5 %. Both patches are inside the slice, but not necessarily the rest of
    the 3x3 block: otherwise, on slices that are only a few patches wide, the query's position in the body would reveal
    its neighbour. If all candidates have too much `air`, the one with the least is used.
    """
    count, device = len(images), images.device
    neighbour = torch.randint(len(NEIGHBOURS), (count,), generator=generator, device=device)
    place = torch.rand((count, CANDIDATES, 2), generator=generator, device=device)
    moved = torch.randint(
        -sizes.jitter, sizes.jitter + 1, (count, CANDIDATES, 2, 2), generator=generator, device=device
    )
    offset = (sizes.side + sizes.gap) * torch.tensor(NEIGHBOURS, device=device)[neighbour]  # (B, row and column)
    lowest = sizes.jitter - offset.clamp(max=0)
    highest = sizes.size - sizes.side - sizes.jitter - offset.clamp(min=0)
    anchor = lowest[:, None] + (place * (highest - lowest + 1)[:, None]).long()
    starts = torch.stack([anchor, anchor + offset[:, None]], 2) + moved  # (B, candidates, 2 patches, row and column)
    shares = air_share(images, starts[..., 0].flatten(1), starts[..., 1].flatten(1), sizes.side)
    worse = shares.view(count, CANDIDATES, 2).amax(2)
    good = worse <= air
    taken = torch.where(good.any(1), good.float().argmax(1), worse.argmin(1))  # argmax gives the first
    starts = starts[torch.arange(count, device=device), taken]
    return Pairs(starts[..., 0], starts[..., 1], neighbour)


class Method(Pretext):
    """One ResNet for both patches; a small head reads their concatenated features (late fusion).

    A second head of the same kind reads only the query patch. Its accuracy shows how much can be solved without a
    comparison with the anchor, since the body always has the same pose and the query's position may be recognisable.
    Its input is detached, so it does not train the encoder.
    """

    Parameters = RelativePositionOptions

    def __init__(self, setting: Setting, options: RelativePositionOptions) -> None:
        """Build the network.

        Raises:
            InputError: see `geometry`.
        """
        super().__init__(setting, options)
        self.air, self.sizes = options.air, geometry(setting.image_size, options)
        self.encoder, width = encoder(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        with seeded_weights(setting.seed):
            self.head, self.query_head = _head(2 * width), _head(width)

    def _judged(self, images: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Logits (B, 8) from both patches and from the query patch alone."""
        patches = cut(images, pairs.top, pairs.left, self.sizes.side)
        anchor, query = self.encoder(torch.cat([patches[:, 0], patches[:, 1]])).chunk(2)
        return self.head(torch.cat([anchor, query], 1)).float(), self.query_head(query.detach()).float()

    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the neighbour, drawn for each image."""
        pairs = draw_pairs(images, self.sizes, self.air, generator)
        both, alone = self._judged(images, pairs)
        query_loss = cross_entropy(alone, pairs.neighbour)
        metrics = {
            "accuracy": (both.argmax(1) == pairs.neighbour).float().mean(),
            "accuracy_query": (alone.argmax(1) == pairs.neighbour).float().mean(),
        }
        # The query head's loss only contributes its gradient; the reported loss is that of the task.
        return cross_entropy(both, pairs.neighbour) + query_loss - query_loss.detach(), metrics

    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss and accuracy of each image, the accuracy from the query patch alone, and chance.

        All are means over `JUDGED` pairs of each image.
        """
        pairs = draw_pairs(images.repeat_interleave(JUDGED, 0), self.sizes, self.air, generator)
        both, alone = self._judged(images.repeat_interleave(JUDGED, 0), pairs)
        metrics = {
            "loss": cross_entropy(both, pairs.neighbour, reduction="none"),
            "accuracy": (both.argmax(1) == pairs.neighbour).float(),
            "accuracy_query": (alone.argmax(1) == pairs.neighbour).float(),
        }
        return {
            **{name: values.view(-1, JUDGED).mean(1) for name, values in metrics.items()},
            "accuracy_chance": torch.full((len(images),), 1 / len(NEIGHBOURS), device=images.device),
        }

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """One pair per slice: its position, and both patches enlarged."""
        size, side = images.shape[-1], self.sizes.side
        pairs = draw_pairs(images, self.sizes, self.air, generator)
        places = images[:, 0]
        for patch, tone in ((1, 0.6), (0, 1.0)):
            places = torch.where(frames(size, pairs.top[:, patch], pairs.left[:, patch], side), tone, places)
        anchor, query = (enlarged(patch, size) for patch in cut(images, pairs.top, pairs.left, side).unbind(1))
        return {"pairs": Picture(torch.stack([places, anchor, query], 1), ("places", "anchor (white)", "query (grey)"))}


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(NEIGHBOURS)))
