"""The U-Net of the tasks that give an image, on the classifier's own kind of encoder."""

import torch
from torch import nn


def unet(network: str, seed: int, *, classes: int = 1, batch_norm_momentum: float = 0.1) -> nn.Module:
    """A randomly initialised U-Net (segmentation-models-pytorch) with one input channel.

    Its `encoder` has torchvision's names without `fc`, so that an encoder's weights file loads into it and out of it
    key by key. Global random state is left as it was found.

    Args:
        network: "resnet18", "resnet34" or "resnet50".
        seed: decides every weight.
        classes: output channels: 1 for a grey image, more for the logits of as many classes.
        batch_norm_momentum: weight of the newest batch in running statistics.

    Returns:
        A module on the CPU, float32: (B, 1, S, S) -> (B, 1, S, S) in (0, 1) by a sigmoid, or (B, classes, S, S)
        logits; S is a multiple of 32.
    """
    from segmentation_models_pytorch import Unet  # noqa: PLC0415 - four seconds of imports

    # The library draws from torch's global generator: lend it a seeded state and take that back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = Unet(
            network,
            encoder_weights=None,
            in_channels=1,
            classes=classes,
            activation="sigmoid" if classes == 1 else None,
        )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = batch_norm_momentum
    return model
