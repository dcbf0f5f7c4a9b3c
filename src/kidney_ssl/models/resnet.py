"""The classifier and its encoder: torchvision's ResNet or a network of timm, for grey slices, one logit."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kidney_ssl.models.timm_encoder import TimmEncoder

RESNETS = ("resnet18", "resnet34", "resnet50")
HEAD = "fc."  # torchvision's name of the head; every other parameter and buffer belongs to the encoder


def classifier(network: str, seed: int, *, batch_norm_momentum: float = 0.1) -> nn.Module:
    """A randomly initialised network with one input channel and one logit.

    Head: the encoder's features and Linear(width, 1), where the width is the encoder's (512 for ResNet-18; the thesis
    prints 256 once). A ResNet's features are globally averaged, its initialisation is torchvision's (He et al. 2015,
    fan-out); timm's networks have their own of both. Global random state is left as it was found.

    Args:
        network: one of `RESNETS`, efficientnet_lite0, or timm:<name of timm>.
        seed: decides every weight, head included, so that two arms with one seed share the head.
        batch_norm_momentum: weight of the newest batch in the running statistics.

    Returns:
        A module on the CPU, float32: (B, 1, S, S) in [0, 1] -> (B, 1) logits.

    Raises:
        InputError: there is no such network.
    """
    with seeded_weights(seed):
        model = _resnet(network) if network in RESNETS else _with_head(TimmEncoder(network))
    set_momentum(model, batch_norm_momentum)
    return model


def _resnet(network: str) -> nn.Module:
    from torchvision import models  # noqa: PLC0415 - a second of imports; only who builds a network pays

    model: nn.Module = models.get_model(network, weights=None, num_classes=1)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


def _with_head(model: TimmEncoder) -> nn.Module:
    model.fc = nn.Linear(model.width, 1)
    return model


def encoder(network: str, seed: int, *, batch_norm_momentum: float = 0.1) -> tuple[nn.Module, int]:
    """The encoder of the `classifier` of the same arguments; its `state_dict` is what a weights file holds.

    Returns:
        A module (B, 1, S, S) -> (B, width), the pooled features, and the width (512 for ResNet-18).
    """
    model = classifier(network, seed, batch_norm_momentum=batch_norm_momentum)
    width = int(model.fc.in_features)  # type: ignore[arg-type, union-attr] # a Module's attribute to mypy
    model.fc = nn.Identity()
    return model, width


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Layers made here draw their weights from the seed; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    """The batch-norm layers of a model, in its order."""
    return [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]


def set_momentum(model: nn.Module, momentum: float) -> None:
    """Set the weight of the newest batch in all running statistics."""
    for norm in batch_norms(model):
        norm.momentum = momentum


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, images: Iterable[Tensor]) -> None:
    """Replace the running statistics by those of the given images, in place; no weight changes.

    Statistics gathered on patches, holes or rotations are wrong for whole slices. Each layer gets the plain average
    over batches of the batch mean and of the unbiased batch variance, as `BatchNorm2d(momentum=None)` keeps it, and
    sees what the layers before it give in training mode. Batches should therefore be of about one size.
    `images` are batches (B, 1, S, S) of clean training slices on the model's device.
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
