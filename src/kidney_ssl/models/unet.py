"""The U-Net of the tasks that give an image, on the classifier's own kind of encoder."""

from typing import Any

import torch
from torch import Tensor, nn

from kidney_ssl.models.resnet import RESNETS, seeded_weights, set_momentum
from kidney_ssl.models.timm_encoder import TimmEncoder

DECODER = (256, 128, 64, 32, 16)  # channels of the blocks, coarse to fine


class UNet(nn.Module):
    """A U-Net: (B, 1, S, S) -> (B, classes, S, S).

    Attributes:
        encoder: its weights are a classifier's encoder's, key by key.
        width: channels of its last feature map.
    """

    def __init__(self, encoder: Any, decoder: nn.Module, segmentation_head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder, self.segmentation_head = encoder, decoder, segmentation_head
        self.width = int(encoder.out_channels[-1])

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps, fine to coarse, the images first: the last is all that a classifier reads."""
        return self.encoder.maps(images) if isinstance(self.encoder, TimmEncoder) else self.encoder(images)

    def decode(self, maps: list[Tensor]) -> Tensor:
        """What the decoder makes of feature maps, (B, classes, S, S)."""
        return self.segmentation_head(self.decoder(maps))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.decode(self.maps(images))


def _freeze_unreached(model: UNet, side: int) -> None:
    """Mark weights behind the last feature map as not trained: several processes wait for every other gradient."""
    model.eval()
    model(torch.zeros(1, 1, side, side)).sum().backward()
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def unet(network: str, seed: int, *, classes: int = 1, batch_norm_momentum: float = 0.1) -> UNet:
    """A randomly initialised U-Net (segmentation-models-pytorch) with one input channel.

    Its decoder has as many blocks as the encoder halves the image. An encoder of timm that lacks a map at a stride has
    no skip connection there: a plain vision transformer has none at all, and is decoded from its last map alone, as
    by SETR (Zheng et al. 2021). Global random state is left as it was found.

    Returns:
        A module on the CPU, float32: (B, 1, S, S) -> (B, 1, S, S) in (0, 1) by a sigmoid, or, with more than one of
        `classes`, logits (B, classes, S, S); S is a multiple of 32, or of the encoder's largest stride.

    Raises:
        InputError: there is no such network, or no decoder for it.
    """
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - four seconds of imports
    from segmentation_models_pytorch.base import SegmentationHead, initialization  # noqa: PLC0415 - as above
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder  # noqa: PLC0415 - as above

    activation = "sigmoid" if classes == 1 else None
    with seeded_weights(seed):
        if network in RESNETS:
            made = smp.Unet(network, encoder_weights=None, in_channels=1, classes=classes, activation=activation)
            model = UNet(made.encoder, made.decoder, made.segmentation_head)
        else:
            encoder = TimmEncoder(network)
            channels = encoder.out_channels
            blocks = DECODER[-len(channels) + 1 :]
            model = UNet(
                encoder,
                UnetDecoder(channels, blocks, n_blocks=len(blocks)),
                SegmentationHead(blocks[-1], classes, activation=activation),
            )
            initialization.initialize_decoder(model.decoder)
            initialization.initialize_head(model.segmentation_head)
            _freeze_unreached(model, 2 * 2 ** len(blocks))
    set_momentum(model, batch_norm_momentum)
    return model
