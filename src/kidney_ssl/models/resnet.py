"""The classifier: torchvision's ResNet for grey slices, one logit."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NETWORKS = ("resnet18", "resnet34", "resnet50")
HEAD = "fc."  # torchvision's name of the head; every other parameter and buffer belongs to the encoder


def classifier(network: str, seed: int, *, batch_norm_momentum: float = 0.1) -> nn.Module:
    """A randomly initialised ResNet with one input channel and one logit.

    Head: global average pool and Linear(width, 1), where the width is the encoder's (512 for ResNet-18; the thesis
    prints 256 once). Initialisation is torchvision's (He et al. 2015, fan-out). Global random state is left as it
    was found.

    Args:
        network: one of `NETWORKS`.
        seed: decides every weight, head included, so that two arms with one seed share the head.
        batch_norm_momentum: weight of the newest batch in the running statistics.

    Returns:
        A module on the CPU, float32: (B, 1, S, S) in [0, 1] -> (B, 1) logits.
    """
    from torchvision import models  # noqa: PLC0415 - a second of imports; only who builds a network pays

    # torchvision draws from torch's global generator: lend it a seeded state and take that back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = models.get_model(network, weights=None, num_classes=1)
        model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    for norm in batch_norms(model):
        norm.momentum = batch_norm_momentum
    return model


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch-norm layers of a model, in its order."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, images: Iterable[Tensor]) -> None:
    """Replace the running statistics by those of the given images, in place; no weight changes.

    Statistics gathered on patches, holes or rotations are wrong for whole slices. Each layer gets the plain average
    over batches of the batch mean and of the unbiased batch variance, as `BatchNorm2d(momentum=None)` keeps it, and
    sees what the layers before it give in training mode. Batches should therefore be of about one size.

    Args:
        model: any module with `BatchNorm2d` layers that maps a batch to something.
        images: batches of clean training slices, (B, 1, S, S) each, on the model's device.
    """
    training = {module: module.training for module in model.modules()}
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in images:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in training.items():
        module.training = mode
