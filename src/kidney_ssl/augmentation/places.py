"""Boxes on a batch of images: their pixels, where one is free to lie, a fair draw of a place.

A box is half-open: top, bottom, left, right in pixels. One without pixels, (0, 0, 0, 0), stands for none.
"""

import torch
from torch import Tensor


def boxes_at(corner: Tensor, length: Tensor | int) -> Tensor:
    """Boxes (..., 4) int64 from their first row and column (..., 2) and their height and width (..., 2) or side."""
    past = corner + length
    return torch.stack([corner[..., 0], past[..., 0], corner[..., 1], past[..., 1]], -1)


def pixels_of(boxes: Tensor, size: int) -> Tensor:
    """Mark the pixels of K boxes an image.

    Args:
        boxes: (B, K, 4) int64.
        size: S.

    Returns:
        (B, 1, S, S) bool.
    """
    line = torch.arange(size, device=boxes.device)
    top, bottom, left, right = boxes[..., None].unbind(2)
    rows, columns = (line >= top) & (line < bottom), (line >= left) & (line < right)
    found = torch.zeros((len(boxes), size, size), dtype=torch.bool, device=boxes.device)
    for one in range(boxes.shape[1]):
        found |= rows[:, one, :, None] & columns[:, one, None, :]
    return found[:, None]


def free_corners(mask: Tensor, side: int) -> Tensor:
    """Find where a square may begin so that it holds no marked pixel.

    A square's count of marked pixels is a difference of four entries of the integral image.

    Args:
        mask: (B, 1, S, S) bool, what must be left alone.
        side: of the square in pixels, at most S.

    Returns:
        (B, S - side + 1, S - side + 1) bool by first row and first column.
    """
    total = torch.nn.functional.pad(mask[:, 0].int(), (1, 0, 1, 0)).cumsum(1, dtype=torch.int32)
    total = total.cumsum(2, dtype=torch.int32)
    rows = total[:, side:] - total[:, :-side]
    return rows[:, :, side:] == rows[:, :, :-side]


def box_corners(length: Tensor, regions: Tensor, others: Tensor, size: int) -> Tensor:
    """Find where a box may begin to lie inside one of the regions and beside all others of its image.

    Args:
        length: (B, 2) int64, its height and width.
        regions: (R, 4) int64 boxes.
        others: (B, K, 4) int64 boxes.
        size: S.

    Returns:
        (B, S, S) bool by first row and first column.
    """
    line = torch.arange(size, device=length.device)
    past_row, past_column = (line + length[:, axis, None] for axis in (0, 1))
    found = torch.zeros((len(length), size, size), dtype=torch.bool, device=length.device)
    for top, bottom, left, right in regions:
        rows = (line >= top) & (past_row <= bottom)
        columns = (line >= left) & (past_column <= right)
        found |= rows[:, :, None] & columns[:, None, :]
    for other in others.unbind(1):
        top, bottom, left, right = other[..., None].unbind(1)
        rows, columns = (line < bottom) & (past_row > top), (line < right) & (past_column > left)
        found &= ~((bottom > top) & rows)[:, :, None] | ~columns[:, None, :]
    return found


def draw_corner(free: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one of each image's free places, all alike likely.

    Args:
        free: (B, H, W) bool.
        generator: all chance comes from it.

    Returns:
        Row and column, (B, 2) int64, and whether there was a free place, (B,) bool; (0, 0) without one.
    """
    by_row = free.sum(2).cumsum(1)
    number = below(by_row[:, -1], generator)  # of the place, counted row by row
    found = by_row[:, -1] > 0
    row = (by_row <= number[:, None]).sum(1) * found
    batch = torch.arange(len(free), device=free.device)
    line = free[batch, row].cumsum(1)
    before = by_row[batch, row] - line[:, -1]
    column = (line <= (number - before)[:, None]).sum(1) * found
    return torch.stack([row, column], 1), found


def below(count: Tensor, generator: torch.Generator) -> Tensor:
    """Draw whole numbers from 0 to below `count` (any shape, int64), all alike likely; 0 where `count` is 0."""
    # Double: in float32 a draw just under 1 could round up to `count`.
    share = torch.rand(count.shape, dtype=torch.float64, generator=generator, device=generator.device)
    return (share * count).long()
