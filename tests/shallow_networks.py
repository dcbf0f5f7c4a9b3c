"""ResNets with one block in each layer: all names, widths and outputs of whole ones, in half the time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torchvision.models.resnet import ResNet


@contextmanager
def shallow() -> Iterator[None]:
    """Build ResNets of one block a layer, torchvision's and the U-Net's, which are made by the same method."""
    make = ResNet._make_layer

    def one_block(self: ResNet, block: Any, planes: int, _: int, stride: int = 1, dilate: bool = False) -> Any:
        return make(self, block, planes, 1, stride, dilate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResNet, "_make_layer", one_block)
        yield


@pytest.fixture(autouse=True, scope="module")
def shallow_networks():
    with shallow():
        yield
