"""Square patches of slices: cut at places of their own or as a grid, framed in a picture, and their share of air."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from kidney_ssl.methods.boxes import squares


def cut(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Cut patches at places of each image's own; pixels are copied, never interpolated.

    `images` are (B, 1, S, S), `top` and `left` a patch's first row and column, (B, N) int64; (B, N, 1, side, side).
    """
    span = torch.arange(side, device=images.device)
    image = torch.arange(len(images), device=images.device)[:, None, None, None]
    rows, columns = (top[..., None] + span)[..., :, None], (left[..., None] + span)[..., None, :]
    return images[:, 0][image, rows, columns].unsqueeze(2)


def grid(images: Tensor, side: int, stride: int) -> Tensor:
    """Cut every image into the same overlapping patches.

    Returns:
        (B, R, C, 1, side, side), a view: patch (r, c) starts at pixel (r * stride, c * stride); what is left at the
        lower and right edge belongs to no patch.
    """
    return images.unfold(2, side, stride).unfold(3, side, stride).permute(0, 2, 3, 1, 4, 5)


def air_share(images: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Share of air in patches: pixels at the lower end of the window, where air and all that is as dark is clipped to.

    With bounds from tumor pixels (about -60 HU at the lower end) fat counts as air too: it has been made empty.

    Arguments as those of `cut`; (B, N) in [0, 1], from an integral image, so that many candidates cost little.
    """
    # Whole numbers: exact, and summed in a fixed order on a GPU too.
    sums = pad((images[:, 0] <= 0).cumsum(1).cumsum(2), (1, 0, 1, 0))
    image = torch.arange(len(images), device=images.device)[:, None]
    bottom, right = top + side, left + side
    air = sums[image, bottom, right] - sums[image, top, right] - sums[image, bottom, left] + sums[image, top, left]
    return air / side**2


def frames(size: int, top: Tensor, left: Tensor, side: int) -> Tensor:
    """The pixels next to a patch an image, at `top` and `left` (B,): (B, S, S) bool, thicker on larger images."""
    width = max(1, size // 128)
    framed = squares(top - width, left - width, side + 2 * width, size)
    return (framed & ~squares(top, left, side, size))[:, 0]


def enlarged(patches: Tensor, size: int) -> Tensor:
    """Blow patches up to the side of a slice, pixel by pixel: (B, 1, side, side) -> (B, size, size)."""
    return interpolate(patches, size=(size, size), mode="nearest")[:, 0]
