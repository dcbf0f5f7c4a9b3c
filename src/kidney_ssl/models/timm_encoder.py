"""Encoders of timm (pytorch-image-models): convolutional networks and vision transformers, for grey slices.

Nothing is drawn at random in a pass: dropout and stochastic depth, where an architecture has them, are off.
"""

import math
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kidney_ssl.errors import InputError

PREFIX = "timm:"
# EfficientNet-Lite0 with TensorFlow's padding, as its published weights were trained.
NAMED = {"efficientnet_lite0": "tf_efficientnet_lite0"}
LEVELS = (2, 4, 8, 16, 32)  # strides of a U-Net's skip connections


def timm_name(network: str) -> str:
    """Give timm's name of a network: what stands behind `timm:`, or that of a network with a name of its own here."""
    return NAMED.get(network) or network.removeprefix(PREFIX)


class TimmEncoder(nn.Module):
    """An encoder of timm with one input channel: (B, 1, H, W) in [0, 1] -> (B, width), its own pooled features.

    Images that are smaller than the largest stride (patches, of some pretext tasks) are enlarged to it. A vision
    transformer resamples its position embeddings to the size of the images.

    Attributes:
        model: timm's network without a head, so that names in the `state_dict` are timm's behind `model.`.
        fc: the identity; a classifier has its head here, called as torchvision's.
        width: of the features.
        layer: name of the module whose maps Grad-CAM reads by default.
    """

    def __init__(self, network: str) -> None:
        """Build the network, with random weights from torch's global generator.

        Raises:
            InputError: timm has no such network, cannot build it for one channel, or it gives no feature maps.
        """
        super().__init__()
        self.model = _build(network)
        self.fc: nn.Module = nn.Identity()
        self.width = int(getattr(self.model, "head_hidden_size", None) or self.model.num_features)
        info: Any = self.model.feature_info
        self._strides = [int(one["reduction"]) for one in info]
        self._channels = [int(one["num_chs"]) for one in info]
        self._prefix = int(getattr(self.model, "num_prefix_tokens", 0))
        # The last block's output: a transformer's patches end there, where only its class token goes on to the head,
        # so that what the block reads of them is looked at.
        self.layer = f"model.{info[-1]['module']}"
        if self.tokens:
            self.layer += ".norm1"

    @property
    def tokens(self) -> bool:
        """Whether its maps are a row of tokens, as those of a plain vision transformer."""
        return hasattr(self.model, "num_prefix_tokens")

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, width), or what the head makes of them."""
        return self.fc(self.model(self._enlarged(images)))

    def _enlarged(self, images: Tensor) -> Tensor:
        least, side = max(self._strides), min(images.shape[-2:])
        if side >= least:
            return images
        size = [max(least, round(length * least / side)) for length in images.shape[-2:]]
        return interpolate(images, size, mode="bilinear")

    def _levels(self) -> list[int | None]:
        """Which of the network's maps is the last one at each of a U-Net's strides, as deep as the network goes.

        Raises:
            InputError: its largest stride is none of them.
        """
        deepest = max(self._strides)
        if deepest not in LEVELS:
            raise InputError(
                f"network: a stride of {deepest} pixels has no decoder, which a task that gives an image needs: choose "
                "a network with a stride of 16 or 32, or another task"
            )
        found = {stride: at for at, stride in enumerate(self._strides)}
        return [found.get(stride) for stride in LEVELS if stride <= deepest]

    @property
    def out_channels(self) -> list[int]:
        """Channels of `maps`."""
        return [1, *(0 if at is None else self._channels[at] for at in self._levels())]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps for a U-Net's decoder: the images, then maps at strides 2, 4, 8, ...; no channels where none."""
        levels = self._levels()
        wanted = [at for at in levels if at is not None]
        found = self.model.forward_intermediates(images, indices=wanted, norm=True, intermediates_only=True)
        given = dict(zip(wanted, found, strict=True))
        height, width = images.shape[-2:]
        maps = [
            images.new_empty(len(images), 0, height // stride, width // stride) if at is None else given[at]
            for stride, at in zip(LEVELS, levels, strict=False)
        ]
        return [images, *maps]

    def as_maps(self, output: Tensor) -> Tensor:
        """Bring what a layer gives to maps (B, C, h, w): tokens without class and register tokens, or channels last."""
        if output.ndim == 3:
            patches = output[:, self._prefix :]
            side = math.isqrt(patches.shape[1])
            if side**2 != patches.shape[1]:
                raise InputError("explain.layer: its tokens are no square of patches; choose another layer")
            return patches.transpose(1, 2).reshape(len(patches), -1, side, side)
        return output.movedim(3, 1) if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else output


# Arguments with which vision transformers take images of any size; convolutional networks take them anyway.
ANY_SIZE: tuple[dict[str, bool], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {},
)


def _build(network: str) -> Any:
    """Build timm's network without a head and without chance, with random weights."""
    import timm  # noqa: PLC0415 - seconds of imports
    from timm.layers import DropPath  # noqa: PLC0415 - as above

    name = timm_name(network)
    if not timm.is_model(name):
        near = ", ".join(get_close_matches(name, timm.list_models(), 5))
        raise InputError(f"network: timm has no '{name}'" + (f"; it has {near}" if near else ""))
    for arguments in ANY_SIZE:
        try:
            model = timm.create_model(name, pretrained=False, num_classes=0, in_chans=1, **arguments)
            break
        except (TypeError, RuntimeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())
    else:
        raise InputError(f"network: timm cannot build '{name}' for one channel ({reason})")
    if not hasattr(model, "forward_intermediates") or not getattr(model, "feature_info", None):
        raise InputError(f"network: timm's '{name}' gives no feature maps; choose another")
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    for name, norm in first_layers(model).items():
        layer = model.get_submodule(name)
        if norm is None and layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
    return model


def first_layers(model: Any) -> dict[str, str | None]:
    """Convolutions that see the image, by name, each with the batch norm behind it in the same block, if there is one.

    Any other convolution is given a bias when the network is built, so that there is a place for a constant.
    """
    names = model.default_cfg["first_conv"]
    modules = dict(model.named_modules())
    found: dict[str, str | None] = {}
    for name in [names] if isinstance(names, str) else names:
        parent = name.rpartition(".")[0]
        beside = [other for other in modules if other.rpartition(".")[0] == parent]
        after = beside[beside.index(name) + 1 :][:1]
        found[name] = after[0] if after and isinstance(modules[after[0]], nn.BatchNorm2d) else None
    return found
