"""Models Genesis (Zhou et al. 2019) in 2D: undo flips, local shuffling, a grey-value curve and painting of a slice.

The order and all rates are those of the authors' published code (thesis: "as published"). That code is 3D. Ours has a
different number of windows (`GenesisOptions`) and different sides of rectangles (`draw_painting`), so that the changed
share of a 2D slice equals that of a cube.
"""

from math import ceil, floor, prod
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from kidney_ssl.methods.base import Picture
from kidney_ssl.methods.restoration import Perturbed, Restoration, RestorationOptions

FLIPS = 3  # maximum number of flips, as published, although a slice has two axes
SIDE = 10  # a window's side is at most the image's side divided by this
RECTANGLES, AGAIN = 5, 0.95  # maximum number of painted rectangles, probability of one more
STEPS, LEVELS = 2**10, 2**14  # steps of the Bezier curve, and of its table of grey values

Rate = Annotated[float, Field(ge=0, le=1)]


class GenesisOptions(RestorationOptions):
    """Probabilities of the operations, as published, and the number of windows.

    Attributes:
        loss: mean squared error, as published.
        flip_rate: probability of a first flip, of a second after it, and of a third.
        local_rate: share of shuffled images.
        nonlinear_rate: share of images with a Bezier curve; half of the curves are inverted.
        paint_rate: share of images that are painted, in or out.
        inpaint_rate: share of in-painting among painted images; the others are out-painted.
        windows: windows shuffled in an image (our choice). The published 10,000 cover each voxel of a 64 x 64 x 32 cube
            1.9 times, but would cover each pixel of a slice 26 times. 700 cover it 1.8 times at 512 pixels and 2.1
            times at 64, since windows grow with the image.
    """

    loss: Literal["dice", "dice_squared", "mse"] = "mse"
    flip_rate: Rate = 0.4
    local_rate: Rate = 0.5
    nonlinear_rate: Rate = 0.9
    paint_rate: Rate = 0.9
    inpaint_rate: Rate = 0.2
    windows: Annotated[int, Field(ge=1, le=32_000)] = 700


class Windows(NamedTuple):
    """Windows to shuffle in K of B images, later ones on top of earlier ones: int32, (K, N) unless stated otherwise.

    The permutation of a window of h x w pixels is a Feistel network on its coordinates, four rounds of random shifts:
    row += a[column] mod h, column += b[row] mod w, row += c[column] mod h, column += d[row] mod w. Each round is
    invertible, so the result is a permutation. A pixel's source is uniform over the window; pairs are not fully
    independent: neighbours come from neighbours up to 1.2 times as often as in a uniformly drawn permutation.
    """

    chosen: Tensor  # (K,) int64, the shuffled images
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    shifts: Tensor  # (4, K, N, S // 10), a, b, c and d of each window


class Curves(NamedTuple):
    """Cubic Bezier curves of grey values from (0, 0) to (1, 1); inverted, they run from (0, 1) to (1, 0)."""

    points: Tensor  # (B, 4) the two inner control points: x1, y1, x2, y2 in [0, 1)
    inverted: Tensor  # (B,) bool
    used: Tensor  # (B,) bool, False: grey values do not change


class Painting(NamedTuple):
    """Rectangles to fill with noise, or to keep while the rest is filled: int32, (B, 5) unless stated otherwise."""

    outside: Tensor  # (B,) bool, True: out-painting
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    used: Tensor  # (B, 5) bool
    noise: Tensor  # (B, 1, S, S) in (0, 1)


class Draws(NamedTuple):
    """All random parameters of a batch."""

    flips: Tensor  # (B, 2) bool: upside down, left to right
    windows: Windows
    curves: Curves
    painting: Painting


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Float32 in (0, 1) with 65,536 levels: four from each 64 random bits, which is four times as fast as `rand`."""
    count = prod(shape)
    bits = torch.randint(-(2**63), 2**63 - 1, (ceil(count / 4),), generator=generator, device=generator.device)
    return bits.view(torch.int16)[:count].view(shape).float().add_(2**15 + 0.5).mul_(2**-16)


def chance(rate: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Booleans that are True with probability `rate`."""
    return torch.rand(shape, generator=generator, device=generator.device) < rate


def between(low: Tensor | int, high: Tensor | int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random integers from `low` to `high`, both included, int32."""
    return low + (torch.rand(shape, generator=generator, device=generator.device) * (high - low + 1)).int()


def draw_flips(count: int, rate: float, generator: torch.Generator) -> Tensor:
    """Draw flips, (B, 2) bool: up to three in a row, each along a newly drawn axis, so that two may cancel."""
    going = chance(rate, (count, FLIPS), generator).cumprod(1).bool()
    axis = chance(0.5, (count, FLIPS), generator)
    return torch.stack([(going & axis).sum(1) % 2 == 1, (going & ~axis).sum(1) % 2 == 1], 1)


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Flip each image of (B, 1, S, S) as drawn."""
    size = images.shape[-1]
    upside_down, mirrored = flips.T[..., None]
    # With weights of 0 and 1, `lerp` is exact and the fastest way to select.
    chosen = images.flip(3).lerp_(images, (~mirrored[..., None, None]).float())
    place, image = (torch.arange(length, device=images.device) for length in (size, len(images)))
    row = image[:, None] * size + torch.where(upside_down, size - 1 - place, place)
    return chosen.view(-1, size).index_select(0, row.view(-1)).view(images.shape)


def draw_windows(count: int, size: int, number: int, rate: float, generator: torch.Generator) -> Windows:
    """Draw windows with sides of 1 to S // 10 pixels at uniform places.

    The number of shuffled images is B * rate, randomly rounded, so that the other images take no time and the host need
    not wait for the device. Each image has the same probability.
    """
    shuffled = ceil(count * rate)
    order = torch.randperm(count, generator=generator, device=generator.device)
    spare = chance(count * rate - floor(count * rate), (shuffled,), generator)
    ahead = torch.arange(shuffled, device=generator.device) < floor(count * rate)
    shape = (shuffled, number)
    height, width = (between(1, size // SIDE, shape, generator) for _ in range(2))
    top, left = (between(0, size - side, shape, generator) for side in (height, width))
    # A surplus image gets shifts of 0, which leave it unchanged.
    shifts = draw_shifts(height, width, size // SIDE, generator) * (ahead | spare)[:, None, None]
    return Windows(order[:shuffled], top, left, height, width, shifts)


def draw_shifts(height: Tensor, width: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Draw the permutation of each window of (K, N): see `Windows`. Returns (4, K, N, limit) int32."""
    most = torch.stack([height, width, height, width])[..., None]
    return (uniform((4, *height.shape, limit), generator) * most).int()


def last_window(windows: Windows, size: int) -> Tensor:
    """Number each pixel by the last window that covers it: (K, S, S) int16, from 1 on, 0 where there is none.

    A window's row is the union of four spans of 1, 4, 16 or more pixels. Only the first pixel of each span is written,
    the highest number last; then each span length is expanded into spans of the next smaller length.
    """
    count, number = windows.top.shape
    limit, device = windows.shifts.shape[-1], windows.top.device
    lengths = [4**power for power in range(limit.bit_length()) if 4**power <= limit]
    power = (windows.width[..., None] >= 4 ** torch.arange(1, len(lengths), device=device)).sum(-1)
    span = (4**power)[..., None]
    columns = torch.minimum(span * torch.arange(4, device=device), windows.width[..., None] - span)
    rows = torch.minimum(torch.arange(limit, device=device), windows.height[..., None] - 1) * size
    corner = ((power * count + torch.arange(count, device=device)[:, None]) * size + windows.top) * size + windows.left
    first = corner[..., None, None] + rows[..., None] + columns[:, :, None]
    numbers = torch.arange(1, number + 1, device=device, dtype=torch.int16)[:, None, None].expand_as(first)
    spans = torch.zeros(len(lengths), count, size, size, device=device, dtype=torch.int16)
    spans.view(-1).scatter_reduce_(0, first.view(-1), numbers.reshape(-1), "amax")
    for low in range(len(lengths) - 2, -1, -1):
        for shift in range(0, 4 * lengths[low], lengths[low]):
            below, above = spans[low, :, :, shift:], spans[low + 1, :, :, : size - shift]
            torch.maximum(below, above, out=below)
    return spans[0]


def on_tiles(windows: Windows, size: int) -> Windows:
    """Tile the image with unshuffled windows below the others, for pixels that no other window covers."""
    count, limit, device = len(windows.top), windows.shifts.shape[-1], windows.top.device
    start = torch.arange(0, size, limit, dtype=torch.int32, device=device).clamp_max(size - limit)
    top, left = (corner.reshape(1, -1).expand(count, -1) for corner in torch.meshgrid(start, start, indexing="ij"))
    side = torch.full_like(top, limit)
    tiles = (top, left, side, side, windows.shifts.new_zeros(4, *top.shape, limit))
    return Windows(
        windows.chosen,
        *(
            torch.cat([below, above], 1 if below.ndim == 2 else 2)
            for below, above in zip(tiles, windows[1:], strict=True)
        ),
    )


def sources(windows: Windows, size: int) -> Tensor:
    """Find the source of each pixel of the shuffled images: (K, S, S) int32, positions in the (B, 1, S, S) images.

    Each round of `Windows` is one table lookup. An entry has the shift, and the window's first entry in the next table.
    A window has entries for three times its largest side, since two shifts can move a pixel that far out of it; only
    the last tables apply the modulo.
    """
    tiled = on_tiles(windows, size)
    chosen, top, left, height, width, (a, b, c, d) = tiled
    count, number, limit = a.shape
    top, left, bits = top[..., None], left[..., None], limit.bit_length()

    def line(length: int) -> Tensor:
        return torch.arange(length, dtype=torch.int32, device=a.device)

    def look(table: Tensor, at: Tensor) -> Tensor:
        return table.view(-1).index_select(0, at.view(-1)).view(at.shape)

    remainder = line(3 * limit) % (line(limit)[:, None] + 1)
    row, column = (remainder.index_select(0, side.view(-1) - 1).view(count, number, -1) for side in (height, width))
    image, place = line(count)[:, None, None], line(size)
    window = number * image + line(number)[:, None]
    of_row, of_column = row + limit * window, column + limit * window
    # The first shift works with any numbering of a window's columns.
    entry = torch.add((number * image - 1) * limit + place % limit, last_window(tiled, size), alpha=limit)
    rows = look(a + (3 * limit * window - top), entry).add_(place[:, None])
    columns = look(look(b, of_row) + (3 * limit * window - left), rows).add_(place)
    rows += look(look(c, of_column), columns)
    both = look((top + row) << bits | look(d, of_row), rows)  # the final row, and the shift
    columns += both & (2**bits - 1)
    both >>= bits
    return look(chosen.int()[:, None, None] * size**2 + left + column, columns).add_(both, alpha=size)


def shuffle(images: Tensor, windows: Windows) -> Tensor:
    """Shuffle pixels inside windows of some of the images (B, 1, S, S).

    A pixel gets its value from the original image by the permutation of the last window that covers it, as if windows
    were shuffled and pasted one after the other.
    """
    if not len(windows.chosen):
        return images
    size = images.shape[-1]
    moved = images.reshape(-1).index_select(0, sources(windows, size).view(-1))
    return images.index_copy(0, windows.chosen, moved.view(-1, 1, size, size))


def draw_curves(count: int, rate: float, generator: torch.Generator) -> Curves:
    """Draw a curve for each image; half of them inverted, `rate` of them used."""
    points = torch.rand((count, 4), generator=generator, device=generator.device)
    return Curves(points, chance(0.5, (count,), generator), chance(rate, (count,), generator))


def bezier(curves: Curves, steps: int) -> tuple[Tensor, Tensor]:
    """Points of each curve: p(t) = 3 (1-t)^2 t p1 + 3 (1-t) t^2 p2 + t^3 for x and, unless inverted, for y.

    Both inner control points are in the unit square, so x and y are monotone in t, and y is a monotone function of x:
    increasing, or decreasing if inverted. (The published code sorts both, with the same effect.)

    Returns:
        x and y, (B, steps + 1) for t = 0 ... 1, in float64, since a curve may be nearly vertical. Inverted curves are
        y(1 - t) over x(t).
    """
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=curves.points.device)
    x1, y1, x2, y2 = curves.points.double().T[..., None]
    first, second, third = 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
    x, y = (one * first + two * second + third for one, two in ((x1, x2), (y1, y2)))
    return x, torch.where(curves.inverted[:, None], y.flip(1), y)


def bend(images: Tensor, curves: Curves) -> Tensor:
    """Map grey values in [0, 1] through each image's curve, by a table of 2^14 + 1 values."""
    count = len(images)
    x, y = bezier(curves, STEPS)
    nodes = torch.linspace(0, 1, STEPS + 1, dtype=x.dtype, device=x.device).expand(count, -1).contiguous()
    after = torch.searchsorted(x, nodes).clamp(1, STEPS)
    (x0, x1), (y0, y1) = ((values.gather(1, after - 1), values.gather(1, after)) for values in (x, y))
    curve = y0 + (y1 - y0) * ((nodes - x0) / (x1 - x0).clamp_min(1e-30)).clamp(0, 1)
    table = interpolate(curve[:, None].float(), size=LEVELS + 1, mode="linear", align_corners=True)
    level = torch.add(images.new_full((), 0.5), images.reshape(count, -1), alpha=LEVELS).int()
    level += torch.arange(count, dtype=torch.int32, device=images.device)[:, None] * (LEVELS + 1)
    bent = table.view(-1).index_select(0, level.view(-1)).view(images.shape)
    return bent.lerp_(images, (~curves.used[:, None, None, None]).float())


def draw_painting(count: int, size: int, rate: float, inpaint_rate: float, generator: torch.Generator) -> Painting:
    """Draw rectangles with independent height and width, at least 3/64 of S from the image's edge, and the noise.

    In-painting fills zero to five rectangles with sides of S/12 to S/6. Out-painting keeps one to five rectangles with
    sides of S/4 to 3S/8. Each further rectangle has a probability of 0.95. The published blocks have sides of S/6 to
    S/3 and 3S/7 to 4S/7 along each of three axes: in-painting replaces 5.5 % of a cube, out-painting 68 %; our sides
    give the same shares of a slice.
    """
    shape = (count, RECTANGLES)
    painted, outside = chance(rate, (count,), generator), ~chance(inpaint_rate, (count,), generator)
    more = chance(AGAIN, shape, generator)
    more[:, 0] |= outside
    shortest = torch.where(outside, size // 4, size // 12)[:, None]
    longest = torch.where(outside, 3 * size // 8, size // 6)[:, None]
    margin = 3 * size // 64
    height, width = (between(shortest, longest, shape, generator) for _ in range(2))
    top, left = (between(margin, size - side - margin, shape, generator) for side in (height, width))
    used = more.cumprod(1).bool() & painted[:, None]
    return Painting(outside & painted, top, left, height, width, used, uniform((count, 1, size, size), generator))


def paint(images: Tensor, painting: Painting) -> Tensor:
    """Fill the rectangles of each image of (B, 1, S, S) with noise, or everything outside them."""
    place = torch.arange(images.shape[-1], device=images.device)
    rows, columns = (
        (place >= first[..., None]) & (place < (first + side)[..., None])
        for first, side in ((painting.top, painting.height), (painting.left, painting.width))
    )
    # Counts the rectangles that cover a pixel; for out-painting it starts at 1 and counts down.
    outside = painting.outside[:, None, None].float()
    signed = (rows & painting.used[..., None]).float() * (1 - 2 * outside)
    painted = torch.baddbmm(outside, signed.mT, columns.float()).float().clamp_(0, 1)
    return images.lerp(painting.noise, painted[:, None])


def draw(count: int, size: int, options: GenesisOptions, generator: torch.Generator) -> Draws:
    """Draw all parameters for a batch of `count` images with sides of `size` pixels."""
    return Draws(
        draw_flips(count, options.flip_rate, generator),
        draw_windows(count, size, options.windows, options.local_rate, generator),
        draw_curves(count, options.nonlinear_rate, generator),
        draw_painting(count, size, options.paint_rate, options.inpaint_rate, generator),
    )


def apply(images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """The network's input and its target, both (B, 1, S, S) in [0, 1] with the same flips."""
    target = flip(images, draws.flips)
    return paint(bend(shuffle(target, draws.windows), draws.curves), draws.painting), target


class Method(Restoration):
    """A U-Net that restores perturbed slices; evaluated over the whole image, since every pixel may change."""

    Parameters = GenesisOptions
    options: GenesisOptions

    def perturb(self, images: Tensor, generator: torch.Generator) -> Perturbed:
        """Perturb each image with its own parameters."""
        perturbed, target = apply(images, draw(len(images), images.shape[-1], self.options, generator))
        return Perturbed(perturbed, target, torch.ones_like(images, dtype=torch.bool))

    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Perturbed, original and restored slices; each operation alone, and all as in training."""
        count, size = len(images), images.shape[-1]
        inpainting = draw_painting(count, size, 1, 1, generator)
        inpainting.used[:, 0] = True  # one in twenty would have no rectangle to show
        shown = [
            images,
            flip(images, draw_flips(count, 1, generator)),
            shuffle(images, draw_windows(count, size, self.options.windows, 1, generator)),
            bend(images, draw_curves(count, 1, generator)),
            paint(images, draw_painting(count, size, 1, 0, generator)),
            paint(images, inpainting),
            self.perturb(images, generator).images,
        ]
        names = ("original", "flipped", "shuffled", "Bezier curve", "out-painted", "in-painted", "as in training")
        return {
            "restored": super().pictures(images, generator)["restored"],
            "operations": Picture(torch.cat(shown, 1), names),
        }
