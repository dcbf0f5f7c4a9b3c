"""Where a box (see `methods.boxes`) is free to lie, and a fair draw of a place."""

import torch
from torch import Tensor

from kidney_ssl.methods.boxes import below


def free_corners(mask: Tensor, side: int) -> Tensor:
    """Find where a square may begin so that it holds no pixel of `mask`, (B, 1, S, S) bool, by an integral image.

    Returns:
        (B, S - side + 1, S - side + 1) bool by first row and first column.
    """
    total = torch.nn.functional.pad(mask[:, 0].int(), (1, 0, 1, 0)).cumsum(1, dtype=torch.int32)
    total = total.cumsum(2, dtype=torch.int32)
    rows = total[:, side:] - total[:, :-side]
    return rows[:, :, side:] == rows[:, :, :-side]


def box_corners(length: Tensor, regions: Tensor, others: Tensor, size: int) -> Tensor:
    """Find where a box may begin to lie inside one of the regions and beside all others of its image.

    From its height and width (B, 2), and boxes (R, 4) and (B, K, 4), int64: (B, S, S) bool by first row and column.
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
    """Draw one of each image's free places, (B, H, W) bool, uniformly.

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
