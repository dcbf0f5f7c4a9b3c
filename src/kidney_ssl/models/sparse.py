"""Convolutional networks in which empty places of an image stay empty, as with sparse convolutions.

SparK (Tian et al. 2023, arXiv:2301.03580) computes the same with masked dense layers. Here hooks mask the layers of an
ordinary network for one pass, so that its parameters, names and later dense passes stay as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d

# Layers that mix places or add a bias. Activations and residual sums keep zeros.
LAYERS = (nn.Conv2d, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d)


def places(visible: Tensor, size: Sequence[int]) -> Tensor:
    """Places of a map that see a visible pixel: (B, 1, S, S) bool -> (B, 1, h, w) bool."""
    return adaptive_max_pool2d(visible.float(), tuple(size)) > 0


@contextmanager
def empty_places(network: nn.Module, visible: Tensor) -> Iterator[None]:
    """Keep the places of every map at zero that see no visible pixel, while the block runs.

    Layers compute as always and their outputs are multiplied by the places: y = layer(x) m. Batch norms see nothing but
    the other places, in their statistics too: y = BN(x[m]) there, and 0 elsewhere. Group norms include the zeros.

    Args:
        network: gets images (B, 1, S, S) whose hidden pixels are 0.
        visible: (B, 1, S, S) bool.
    """
    from timm.layers import LayerNorm2d  # noqa: PLC0415 - seconds of imports

    known = _Places(visible)
    handles = []
    try:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                norm = _VisibleNorm(known)
                handles += [module.register_forward_pre_hook(norm.before), module.register_forward_hook(norm.after)]
            elif isinstance(module, LAYERS):
                last = isinstance(module, (nn.Linear, nn.LayerNorm)) and not isinstance(module, LayerNorm2d)
                handles.append(module.register_forward_hook(known.last if last else known.first))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Places:
    """The places of a pass at every size of map, each computed once."""

    def __init__(self, visible: Tensor) -> None:
        self.visible = visible
        self._masks: dict[tuple[int, ...], Tensor] = {}
        self._rows: dict[tuple[int, ...], Tensor] = {}

    def at(self, size: Sequence[int]) -> Tensor:
        """(B, 1, h, w) bool."""
        return self._masks.setdefault(tuple(size), places(self.visible, size))

    def rows(self, size: Sequence[int]) -> Tensor:
        """Numbers of the places in a map (B, h, w, C) that is flattened to (B h w, C), int64."""
        size = tuple(size)
        if size not in self._rows:
            self._rows[size] = self.at(size).flatten().nonzero()[:, 0]
        return self._rows[size]

    def first(self, _: nn.Module, given: Any, maps: Tensor) -> Tensor | None:
        """Hook of a layer that gives (B, C, h, w)."""
        return maps * self.at(maps.shape[2:]).to(maps.dtype) if maps.ndim == 4 else None

    def last(self, _: nn.Module, given: Any, maps: Tensor) -> Tensor | None:
        """Hook of a layer that gives (B, h, w, C); what has other dimensions is no map."""
        return maps * self.at(maps.shape[1:3]).movedim(1, 3).to(maps.dtype) if maps.ndim == 4 else None


class _VisibleNorm:
    """Hooks of a batch norm, which sees its places as rows (n, C, 1, 1)."""

    def __init__(self, known: _Places) -> None:
        self.known = known
        self.shape = torch.Size()

    def before(self, _: nn.Module, given: tuple[Tensor]) -> Tensor:
        self.shape = given[0].shape
        rows = given[0].movedim(1, 3).flatten(0, 2)
        return rows.index_select(0, self.known.rows(self.shape[2:]))[:, :, None, None]

    def after(self, _: nn.Module, given: Any, normed: Tensor) -> Tensor:
        count, channels, height, width = self.shape
        maps = normed.new_zeros(count * height * width, channels)
        maps = maps.index_copy(0, self.known.rows((height, width)), normed[:, :, 0, 0])
        return maps.view(count, height, width, channels).movedim(3, 1)
