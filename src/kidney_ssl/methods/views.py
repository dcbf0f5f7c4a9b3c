"""Views of slices for contrastive methods: crop, flips, blur and intensity, drawn for each view and applied at once."""

import math
from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import embedding_bag, interpolate

from kidney_ssl.methods.base import Options, Picture

RATIO = 4 / 3  # most that a crop's sides differ by, as torchvision's RandomResizedCrop has it
MIN_SIGMA = 0.1

Probability = Annotated[float, Field(ge=0, le=1)]


class ViewOptions(Options):
    """What views may do. There is no grey (slices are grey) and no solarisation (it turns tissue into air).

    Attributes:
        size: side that slices are reduced to before views are made, so that a batch may be large; null for S.
        min_scale: least share of the slice's area that a crop keeps; the published 0.08 often leaves the kidney out.
        flip_probability: of a left-right flip, and by itself of an up-down flip.
        jitter: brightness and contrast are multiplied by 1 - jitter to 1 + jitter each.
        jitter_probability: of a change of brightness and contrast.
        max_sigma: largest standard deviation of the Gaussian blur in pixels, from 0.1 on. The published 2 belongs to
            224 pixels.
        blur_probability: of a blur.
    """

    size: Annotated[int, Field(ge=32)] | None = None
    min_scale: Annotated[float, Field(ge=0.01, le=1)] = 0.3
    flip_probability: Probability = 0.5
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    jitter_probability: Probability = 0.8
    max_sigma: Annotated[float, Field(ge=MIN_SIGMA, le=32)] = 2.0
    blur_probability: Probability = 0.5


class Views(NamedTuple):
    """What each of N views does to its slice, (N,) each; the crop in fractions of the side."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    upside_down: Tensor  # whether rows are reversed
    mirrored: Tensor  # whether columns are reversed
    sigma: Tensor  # of the blur in pixels of the view; 0 for none
    brightness: Tensor  # factor on all values
    contrast: Tensor  # factor on their distances from the view's mean


def reduced(images: Tensor, size: int | None) -> Tensor:
    """Reduce (B, 1, S, S) to the side `size`, unless it is None or S is smaller."""
    if size is None or size >= images.shape[-1]:
        return images
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def draw_views(count: int, options: ViewOptions, generator: torch.Generator) -> Views:
    """Draw the parameters of `count` views.

    A crop's share of the area is uniform from `min_scale` to 1, the ratio of its sides log-uniform among those that
    fit into the slice (3:4 to 4:3 at most), its place uniform.
    """
    scale, ratio, top, left, down, mirror, blurred, sigma, jittered, brightness, contrast = torch.rand(
        (11, count), generator=generator, device=generator.device
    )
    scale = options.min_scale + (1 - options.min_scale) * scale
    most = (-scale.log()).clamp(max=math.log(RATIO))  # a crop of area s fits where s <= width / height <= 1 / s
    ratio = (most * (2 * ratio - 1)).exp()
    height, width = (scale / ratio).sqrt().clamp(max=1), (scale * ratio).sqrt().clamp(max=1)
    jitter = options.jitter * (jittered < options.jitter_probability)
    return Views(
        top=(1 - height) * top,
        left=(1 - width) * left,
        height=height,
        width=width,
        upside_down=down < options.flip_probability,
        mirrored=mirror < options.flip_probability,
        sigma=(MIN_SIGMA + (options.max_sigma - MIN_SIGMA) * sigma) * (blurred < options.blur_probability),
        brightness=1 + jitter * (2 * brightness - 1),
        contrast=1 + jitter * (2 * contrast - 1),
    )


def unchanged(count: int, device: torch.device) -> Views:
    """Views that show their slices as they are."""
    zeros, ones = torch.zeros(count, device=device), torch.ones(count, device=device)
    return Views(zeros, zeros, ones, ones, zeros.bool(), zeros.bool(), zeros, ones, ones)


def apply_views(images: Tensor, views: Views, max_sigma: float) -> Tensor:
    """Make views: crop, resize to S, flip, blur; then brightness and contrast.

    Crop, flip and blur together are a linear map of the columns and one of the rows, and few lines of a slice go into
    one of a view: linear combinations of whole lines, several times as fast as sampling and convolving pixel by pixel.
    The blur sees the slice around the crop.

    View n of N, a multiple of B, is one of slice n mod B: (B, 1, S, S) -> (N, 1, S, S) float32, both in [0, 1]. No
    blur in `views` is larger than `max_sigma`.
    """
    count, side = len(views.top), images.shape[-1]
    radius, ones = math.ceil(3 * max_sigma), torch.ones_like(views.top)
    index, weight = _lines(side, radius, views.left, views.width, reverse=views.mirrored, sigma=views.sigma, gain=ones)
    numbers = torch.arange(count, device=images.device)[:, None, None]
    columns = images[:, 0].float().transpose(1, 2).reshape(-1, side)
    columns = _sum(columns, index + side * (numbers % len(images)), weight)
    gain = views.brightness * views.contrast
    index, weight = _lines(
        side, radius, views.top, views.height, reverse=views.upside_down, sigma=views.sigma, gain=gain
    )
    rows = columns.transpose(1, 2).reshape(-1, side)
    made = _sum(rows, index + side * numbers, weight).unsqueeze(1)
    # brightness * (mean + contrast * (value - mean)), where the first product of the three stands in `made`.
    shift = (1 / views.contrast - 1) * made.mean(dim=(1, 2, 3))
    return made.add_(shift.view(-1, 1, 1, 1)).clamp_(0, 1)


def _sum(lines: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of lines (L, S) by index (N, S, K) and weight (N, S, K): (N, S, S)."""
    bags, taps = index.shape[:2], index.shape[2]
    summed = embedding_bag(index.view(-1, taps), lines, per_sample_weights=weight.view(-1, taps), mode="sum")
    return summed.view(*bags, -1)


def _lines(
    side: int, radius: int, start: Tensor, length: Tensor, *, reverse: Tensor, sigma: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor]:
    """Which lines of a slice go into each line of its view, and how much of them.

    The slice is interpolated linearly and blurred by a Gaussian: a line's weight at distance d is the triangle around
    it convolved with the Gaussian, the second difference of G(d) = d Phi(d / s) + s phi(d / s), where s is sigma in
    lines of the slice, Phi the normal distribution and phi its density. The slice's edge is repeated.

    Args:
        side: S.
        radius: lines beside the nearest ones that may count.
        start: (N,) of the crop, in fractions of the side.
        length: (N,) of the crop.
        reverse: (N,) whether the last line comes first.
        sigma: (N,) in lines of the view.
        gain: (N,) sum of the weights.

    Returns:
        Index (N, S, 2 radius + 2) int64, 0 to S - 1, and weight, float32.
    """
    place = torch.arange(side, device=start.device).expand(len(start), side)
    place = torch.where(reverse[:, None], side - 1 - place, place)
    # Lines have a width: the crop's first one has its centre half a resized line from the edge.
    centre = (side * start - 0.5)[:, None] + (place + 0.5) * length[:, None]
    nearest = centre.floor()
    offsets = torch.arange(-radius - 1, radius + 3, device=start.device)
    distance = (nearest - centre)[:, :, None] + offsets
    spread = math.sqrt(2) * (sigma * length).clamp(min=1e-7)[:, None, None]
    scaled = (distance / spread).clamp(-9, 9)
    integral = 0.5 * distance * (1 + scaled.erf()) + spread / math.sqrt(4 * math.pi) * (-(scaled**2)).exp()
    weight = integral.diff(n=2)
    weight = weight * (weight > 1e-6)  # a CPU takes ten times as long over numbers next to zero
    weight = weight * (gain[:, None, None] / weight.sum(2, keepdim=True))
    index = (nearest[:, :, None] + offsets[1:-1]).clamp(0, side - 1).long()
    return index, weight


def operations(images: Tensor, options: ViewOptions, generator: torch.Generator) -> Picture:
    """Show each operation by itself at what is drawn for it; the blur at its largest."""
    drawn, plain = draw_views(len(images), options, generator), unchanged(len(images), images.device)
    alone = {
        "crop": plain._replace(top=drawn.top, left=drawn.left, height=drawn.height, width=drawn.width),
        "flips": plain._replace(upside_down=drawn.upside_down, mirrored=drawn.mirrored),
        "intensity": plain._replace(brightness=drawn.brightness, contrast=drawn.contrast),
        "largest blur": plain._replace(sigma=torch.full_like(drawn.sigma, options.max_sigma)),
    }
    shown = [apply_views(images, views, options.max_sigma)[:, 0] for views in alone.values()]
    return Picture(torch.stack([images[:, 0], *shown], 1), ("slice", *alone))
