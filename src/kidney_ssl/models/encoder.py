"""The encoder by itself: the classifier without its head, as pretext tasks and probes use it."""

from torch import nn

from kidney_ssl.models.resnet import classifier


def encoder(network: str, seed: int, *, batch_norm_momentum: float = 0.1) -> tuple[nn.Module, int]:
    """A randomly initialised encoder; its `state_dict` is what a weights file holds.

    Args:
        network: see `classifier`.
        seed: see `classifier`; the weights are those of the classifier of the same seed.
        batch_norm_momentum: see `classifier`.

    Returns:
        A module (B, 1, S, S) -> (B, width), the globally averaged features, and the width (512 for ResNet-18).
    """
    model = classifier(network, seed, batch_norm_momentum=batch_norm_momentum)
    width = int(model.fc.in_features)  # type: ignore[arg-type, union-attr] # a Module's attribute to mypy
    model.fc = nn.Identity()
    return model, width
