"""The U-Net of the restoration tasks, on the classifier's own kind of encoder."""

import torch
from torch import nn


def unet(network: str, seed: int, *, batch_norm_momentum: float = 0.1) -> nn.Module:
    """A randomly initialised U-Net (segmentation-models-pytorch) with one input and one output channel.

    Its `encoder` has torchvision's names without `fc`, so that an encoder's weights file loads into it and out of it
    key by key. Global random state is left as it was found.

    Args:
        network: "resnet18", "resnet34" or "resnet50".
        seed: decides every weight.
        batch_norm_momentum: weight of the newest batch in running statistics.

    Returns:
        A module on the CPU, float32: (B, 1, S, S) -> (B, 1, S, S) in (0, 1) by a sigmoid; S is a
        multiple of 32.
    """
    from segmentation_models_pytorch import Unet  # noqa: PLC0415 - four seconds of imports

    # The library draws from torch's global generator: lend it a seeded state and take that back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = Unet(network, encoder_weights=None, in_channels=1, classes=1, activation="sigmoid")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = batch_norm_momentum
    return model
