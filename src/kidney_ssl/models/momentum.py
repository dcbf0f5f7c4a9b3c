"""Momentum networks: a slow copy that follows a trained network."""

import math

import torch
from torch import nn


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Move the parameters of a copy: slow <- momentum x slow + (1 - momentum) x fast; its buffers stay its own."""
    for kept, moved in zip(slow.parameters(), fast.parameters(), strict=True):
        kept.lerp_(moved, 1 - momentum)


def cosine_momentum(base: float, update: int, updates: int) -> float:
    """Momentum after update number `update` of `updates`, from 0: from `base` to 1 along half a cosine.

    1 - (1 - base) (cos(pi k / K) + 1) / 2 (Grill et al. 2020, section 3.3).
    """
    return 1 - (1 - base) * (math.cos(math.pi * update / updates) + 1) / 2
