"""Square patches of slices: cut at given positions or as a grid, framed in a picture, and their share of air."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from kidney_ssl.methods.boxes import squares


def cut(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Cut patches at separate positions in each image; pixels are copied, not interpolated.

    Args:
        images: (B, 1, S, S).
        top: (B, N) int64, first row of each patch.
        left: (B, N) int64, first column.
        side: of a patch in pixels.

    Returns:
        (B, N, 1, side, side).
    """
    span = torch.arange(side, device=images.device)
    image = torch.arange(len(images), device=images.device)[:, None, None, None]
    rows, columns = (top[..., None] + span)[..., :, None], (left[..., None] + span)[..., None, :]
    return images[:, 0][image, rows, columns].unsqueeze(2)


def grid(images: Tensor, side: int, stride: int) -> Tensor:
    """Cut every image into the same overlapping patches.

    Returns:
        (B, R, C, 1, side, side), a view: patch (r, c) starts at pixel (r * stride, c * stride). Remaining pixels at the
        lower and right edge belong to no patch.
    """
    return images.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5)


def air_share(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Share of air in patches: pixels clipped to 0, the lower end of the HU window.

    If the window comes from tumor pixels (lower end about -60 HU), fat also counts as air, since it is clipped too.

    The arguments are those of `cut`. Returns (B, N) in [0, 1], from an integral image, so that many candidates are
    cheap.
    """
    # Integer sums are exact, so their order on a GPU does not matter.
    sums = pad((images[:, 0] <= 0).cumsum(1).cumsum(2), (1, 0, 1, 0))
    image = torch.arange(len(images), device=images.device)[:, None]
    bottom, right = top + side, left + side
    air = sums[image, bottom, right] - sums[image, top, right] - sums[image, bottom, left] + sums[image, top, left]
    return air / side**2


def frames(size: int, top: Tensor, left: Tensor, side: int) -> Tensor:
    """A frame around one patch per image at `top` and `left` (B,): (B, S, S) bool, thicker on larger images."""
    width = max(1, size // 128)
    framed = squares(top - width, left - width, side + 2 * width, size)
    return (framed & ~squares(top, left, side, size))[:, 0]


def enlarged(patches: Tensor, size: int) -> Tensor:
    """Enlarge patches to the size of a slice by nearest neighbour: (B, 1, side, side) -> (B, size, size)."""
    return interpolate(patches, size=(size, size), mode="nearest")[:, 0]
