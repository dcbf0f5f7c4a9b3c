"""Free positions of a box (see `methods.boxes`), and a uniform draw from them."""

import torch
from torch import Tensor

from kidney_ssl.methods.boxes import below


def free_corners(mask: Tensor, side: int) -> Tensor:
    """Find all top-left corners of a square that contains no pixel of `mask`, (B, 1, S, S) bool, by an integral image.

    Returns:
        (B, S - side + 1, S - side + 1) bool, indexed by first row and first column.
    """
    total = torch.nn.functional.pad(mask[:, 0].int(), (1, 0, 1, 0)).cumsum(1, dtype=torch.int32)
    total = total.cumsum(2, dtype=torch.int32)
    rows = total[:, side:] - total[:, :-side]
    return rows[:, :, side:] == rows[:, :, :-side]


def box_corners(length: Tensor, regions: Tensor, others: Tensor, size: int) -> Tensor:
    """Find all top-left corners of a box inside one of the regions that overlaps no other box of its image.

    Args:
        length: (B, 2) int64, height and width of each image's box.
        regions: (R, 4) int64 boxes.
        others: (B, K, 4) int64 boxes to avoid.
        size: side S of the image in pixels.

    Returns:
        (B, S, S) bool, indexed by first row and first column.
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
    """Draw one of each image's free positions, (B, H, W) bool, uniformly.

    Returns:
        Row and column, (B, 2) int64, (0, 0) if no position is free; and whether one was free, (B,) bool.
    """
    by_row = free.sum(2).cumsum(1)
    number = below(by_row[:, -1], generator)  # number of the position, counted row by row
    found = by_row[:, -1] > 0
    row = (by_row <= number[:, None]).sum(1) * found
    batch = torch.arange(len(free), device=free.device)
    line = free[batch, row].cumsum(1)
    before = by_row[batch, row] - line[:, -1]
    column = (line <= (number - before)[:, None]).sum(1) * found
    return torch.stack([row, column], 1), found
