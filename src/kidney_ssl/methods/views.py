"""Views of slices: crop, flips, blur and intensity, drawn separately for each view; and metrics that compare two."""

import math
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, embedding_bag, interpolate, normalize

from kidney_ssl.methods.base import Options, Picture, Pretext, Setting
from kidney_ssl.models.resnet import encoder

RATIO = 4 / 3  # largest ratio of a crop's sides, as in torchvision's RandomResizedCrop
MIN_SIGMA = 0.1
THUMBNAIL = 16  # side of the thumbnails that the trivial predictor compares

Probability = Annotated[float, Field(ge=0, le=1)]


class ViewOptions(Options):
    """Options of views. There is no greyscale (slices are grey) and no solarisation (it turns tissue into air).

    Attributes:
        size: side to which slices are reduced before views are made, so that a batch may be large; null for S.
        min_scale: smallest share of the slice's area that a crop keeps; the published 0.08 often misses the kidney.
        flip_probability: probability of a left-right flip and, independently, of an up-down flip.
        jitter: brightness and contrast are multiplied by independent factors in 1 - jitter to 1 + jitter.
        jitter_probability: probability of a change of brightness and contrast.
        max_sigma: largest standard deviation of the Gaussian blur in pixels; the smallest is 0.1. The published 2 is
            for 224 pixels.
        blur_probability: probability of a blur.
    """

    size: Annotated[int, Field(ge=32)] | None = None
    min_scale: Annotated[float, Field(ge=0.01, le=1)] = 0.3
    flip_probability: Probability = 0.5
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    jitter_probability: Probability = 0.8
    max_sigma: Annotated[float, Field(ge=MIN_SIGMA, le=32)] = 2.0
    blur_probability: Probability = 0.5


class Views(NamedTuple):
    """Parameters of N views, (N,) each; the crop in fractions of the side."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    upside_down: Tensor  # whether rows are reversed
    mirrored: Tensor  # whether columns are reversed
    sigma: Tensor  # of the blur in pixels of the view; 0 for none
    brightness: Tensor  # factor on all values
    contrast: Tensor  # factor on deviations from the view's mean


def reduced(images: Tensor, size: int | None) -> Tensor:
    """Reduce (B, 1, S, S) to the side `size`, unless it is None or S is smaller."""
    if size is None or size >= images.shape[-1]:
        return images
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def draw_views(count: int, options: ViewOptions, generator: torch.Generator, max_scale: float = 1) -> Views:
    """Draw the parameters of `count` views.

    A crop's share of the area is uniform from `min_scale` to `max_scale`, the ratio of its sides is log-uniform among
    the ratios that fit into the slice (3:4 to 4:3 at most), and its position is uniform.
    """
    scale, ratio, top, left, down, mirror, blurred, sigma, jittered, brightness, contrast = torch.rand(
        (11, count), generator=generator, device=generator.device
    )
    scale = options.min_scale + (max_scale - options.min_scale) * scale
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
    """Views that leave their slices unchanged."""
    zeros, ones = torch.zeros(count, device=device), torch.ones(count, device=device)
    return Views(zeros, zeros, ones, ones, zeros.bool(), zeros.bool(), zeros, ones, ones)


def apply_views(images: Tensor, views: Views, max_sigma: float, size: int | None = None) -> Tensor:
    """Make views: crop, resize to T (`size`, or S), flip, blur; then brightness and contrast.

    Crop, flip and blur together are a linear map of the columns and a linear map of the rows, in which each line of a
    view depends on few lines of the slice. Linear combinations of whole lines are several times as fast as sampling and
    convolving pixel by pixel. The blur also uses pixels around the crop.

    N is a multiple of B, and view n belongs to slice n mod B: (B, 1, S, S) -> (N, 1, T, T) float32, both in [0, 1]. No
    blur in `views` may be larger than `max_sigma`.
    """
    count, side = len(views.top), images.shape[-1]
    size = size or side
    radius, ones = math.ceil(3 * max_sigma * max(1, side / size)), torch.ones_like(views.top)
    lines = partial(_lines, side, size, radius)
    index, weight = lines(views.left, views.width, reverse=views.mirrored, sigma=views.sigma, gain=ones)
    numbers = torch.arange(count, device=images.device)[:, None, None]
    columns = images[:, 0].float().transpose(1, 2).reshape(-1, side)
    columns = _sum(columns, index + side * (numbers % len(images)), weight)
    gain = views.brightness * views.contrast
    index, weight = lines(views.top, views.height, reverse=views.upside_down, sigma=views.sigma, gain=gain)
    rows = columns.transpose(1, 2).reshape(-1, size)
    made = _sum(rows, index + side * numbers, weight).unsqueeze(1)
    # brightness * (mean + contrast * (value - mean)); `made` is already brightness * contrast * value.
    shift = (1 / views.contrast - 1) * made.mean(dim=(1, 2, 3))
    return made.add_(shift.view(-1, 1, 1, 1)).clamp_(0, 1)


def _sum(lines: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of lines (L, S) by index (N, T, K) and weight (N, T, K): (N, T, S)."""
    bags, taps = index.shape[:2], index.shape[2]
    summed = embedding_bag(index.view(-1, taps), lines, per_sample_weights=weight.view(-1, taps), mode="sum")
    return summed.view(*bags, -1)


def _lines(
    side: int, size: int, radius: int, start: Tensor, length: Tensor, *, reverse: Tensor, sigma: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor]:
    """Indices and weights of the slice's lines that contribute to each line of its view.

    The slice is interpolated linearly and blurred by a Gaussian. The weight of a line at distance d is the triangular
    kernel convolved with the Gaussian: the second difference of G(d) = d Phi(d / s) + s phi(d / s), where s is sigma in
    lines of the slice, Phi the normal distribution and phi its density. The slice's edge is repeated.

    Args:
        side: S.
        size: T.
        radius: number of lines beyond the nearest ones that may contribute.
        start: (N,) start of the crop in fractions of the side.
        length: (N,) length of the crop in fractions of the side.
        reverse: (N,) whether the last line comes first.
        sigma: (N,) in lines of the view.
        gain: (N,) sum of the weights.

    Returns:
        Index (N, T, 2 radius + 2) int64, 0 to S - 1, and weight, float32.
    """
    place = torch.arange(size, device=start.device).expand(len(start), size)
    place = torch.where(reverse[:, None], size - 1 - place, place)
    step = length * (side / size)  # lines of the slice per line of the view
    # Lines have a width: the centre of the view's first line is half a line from the crop's edge.
    centre = (side * start - 0.5)[:, None] + (place + 0.5) * step[:, None]
    nearest = centre.floor()
    offsets = torch.arange(-radius - 1, radius + 3, device=start.device)
    distance = (nearest - centre)[:, :, None] + offsets
    spread = math.sqrt(2) * (sigma * step).clamp(min=1e-7)[:, None, None]
    scaled = (distance / spread).clamp(-9, 9)
    integral = 0.5 * distance * (1 + scaled.erf()) + spread / math.sqrt(4 * math.pi) * (-(scaled**2)).exp()
    weight = integral.diff(n=2)
    weight = weight * (weight > 1e-6)  # denormal numbers are ten times as slow on a CPU
    weight = weight * (gain[:, None, None] / weight.sum(2, keepdim=True))
    index = (nearest[:, :, None] + offsets[1:-1]).clamp(0, side - 1).long()
    return index, weight


def operations(images: Tensor, options: ViewOptions, generator: torch.Generator) -> Picture:
    """Show each operation alone with its drawn parameters; the blur at its largest."""
    drawn, plain = draw_views(len(images), options, generator), unchanged(len(images), images.device)
    alone = {
        "crop": plain._replace(top=drawn.top, left=drawn.left, height=drawn.height, width=drawn.width),
        "flips": plain._replace(upside_down=drawn.upside_down, mirrored=drawn.mirrored),
        "intensity": plain._replace(brightness=drawn.brightness, contrast=drawn.contrast),
        "largest blur": plain._replace(sigma=torch.full_like(drawn.sigma, options.max_sigma)),
    }
    shown = [apply_views(images, views, options.max_sigma)[:, 0] for views in alone.values()]
    return Picture(torch.stack([images[:, 0], *shown], 1), ("slice", *alone))


class TwoViews(Pretext):
    """An encoder that sees two views of each slice; a method adds its head and its loss."""

    Parameters = ViewOptions

    def __init__(self, setting: Setting, options: ViewOptions) -> None:
        """Build the encoder; `width` is that of its features."""
        super().__init__(setting, options)
        self.options = options
        self.encoder, self.width = encoder(
            setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum
        )

    def views(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Two views of each slice, (2B, 1, S, S) or of side `size`: all first views, then all second views."""
        images = reduced(images, self.options.size)
        return apply_views(images, draw_views(2 * len(images), self.options, generator), self.options.max_sigma)

    @staticmethod
    def compared(views: Tensor, projected: Tensor, losses: Tensor) -> dict[str, Tensor]:
        """Metrics of each slice, means over its two views, (B,) each; `losses` (B,) is added unchanged.

        accuracy is the share of views whose nearest of the batch's other 2B - 1 views is the positive, with chance and
        the accuracy of thumbnails of the views. alignment and uniformity are those of the projections and of the
        thumbnails; uniformity is of the whole batch.
        """
        count = len(losses)
        with torch.autocast(views.device.type, enabled=False):
            thumbnails = adaptive_avg_pool2d(views, THUMBNAIL).flatten(1)
            thumbnails = thumbnails - thumbnails.mean(1, keepdim=True)
            logits, other = similarities(projected)
            alike, _ = similarities(thumbnails)
            metrics = {
                "accuracy": (logits.argmax(1) == other).float(),
                "accuracy_thumbnail": (alike.argmax(1) == other).float(),
                "alignment": alignment(projected),
                "alignment_thumbnail": alignment(thumbnails),
                "uniformity": uniformity(projected).expand(2 * count),
                "uniformity_thumbnail": uniformity(thumbnails).expand(2 * count),
            }
        found = {"loss": losses} | {name: values.view(2, count).mean(0) for name, values in metrics.items()}
        return found | {"accuracy_chance": torch.full_like(losses, 1 / (2 * count - 1))}

    def pictures(self, images: Any, generator: torch.Generator) -> dict[str, Picture]:
        """Pairs of views, and the pictures of `operations`."""
        images = reduced(images, self.options.size)
        pairs = self.views(images, generator).view(2, len(images), *images.shape[2:])
        return {
            "views": Picture(torch.stack([images[:, 0], *pairs], 1), ("slice", "first view", "second view")),
            "operations": operations(images, self.options, generator),
        }


def similarities(projected: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine similarities of views, (2B, 2B) with -inf on the diagonal, and the index of each view's positive (2B,)."""
    unit = normalize(projected, dim=1)
    found = (unit @ unit.T).fill_diagonal_(-torch.inf)
    numbers = torch.arange(len(unit), device=unit.device)
    return found, (numbers + len(unit) // 2) % len(unit)


def alignment(projected: Tensor) -> Tensor:
    """Squared distance of a slice's two views on the unit sphere, (2B,) (Wang and Isola 2020); 2 is chance."""
    unit = normalize(projected, dim=1)
    return (unit - unit.roll(len(unit) // 2, 0)).pow(2).sum(1)


def uniformity(projected: Tensor) -> Tensor:
    """Uniformity (Wang and Isola 2020): log of the mean of exp(-2 d^2) over pairs of different slices.

    It is computed for first and for second views and averaged. 0 if all are the same point, about -4 if they are spread
    evenly; NaN for one slice.
    """
    halves = normalize(projected, dim=1).chunk(2)
    return torch.stack([torch.pdist(half).pow(2).mul(-2).exp().mean().log() for half in halves]).mean()
