"""Boxes on a batch of images: half-open (top, bottom, left, right) in pixels, (0, 0, 0, 0) for none; uniform draws."""

import torch
from torch import Tensor


def boxes_at(corner: Tensor, length: Tensor | int) -> Tensor:
    """Boxes (..., 4) int64 from their first row and column (..., 2) and their height and width (..., 2) or side."""
    past = corner + length
    return torch.stack([corner[..., 0], past[..., 0], corner[..., 1], past[..., 1]], -1)


def pixels_of(boxes: Tensor, size: int) -> Tensor:
    """Mark the pixels of K boxes per image: (B, K, 4) int64 -> (B, 1, size, size) bool."""
    line = torch.arange(size, device=boxes.device)
    top, bottom, left, right = boxes[..., None].unbind(2)
    rows, columns = (line >= top) & (line < bottom), (line >= left) & (line < right)
    found = torch.zeros((len(boxes), size, size), dtype=torch.bool, device=boxes.device)
    for one in range(boxes.shape[1]):
        found |= rows[:, one, :, None] & columns[:, one, None, :]
    return found[:, None]


def squares(top: Tensor, left: Tensor, side: int, size: int) -> Tensor:
    """Mark one square per image, given its first row and column, (B,) int64 each: (B, 1, size, size) bool."""
    return pixels_of(boxes_at(torch.stack([top, left], 1), side)[:, None], size)


def below(count: Tensor, generator: torch.Generator) -> Tensor:
    """Draw integers uniformly from 0 to `count` - 1 (any shape, int64); 0 where `count` is 0."""
    # float64, since in float32 a draw just under 1 could round up to `count`.
    share = torch.rand(count.shape, dtype=torch.float64, generator=generator, device=generator.device)
    return (share * count).long()
