"""Grad-CAM (Selvaraju et al. 2017): where in a slice the tumor logit comes from."""

from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.functional import interpolate

from kidney_ssl.errors import InputError
from kidney_ssl.models.timm_encoder import TimmEncoder


def grad_cam(model: nn.Module, images: Tensor, layer: str | None) -> Tensor:
    """Positive evidence for the logit at each position of a layer's feature maps.

    L = ReLU(sum_k a_k A_k), where A_k is the layer's k-th feature map and a_k the spatial mean of the gradient of the
    logit with respect to A_k. The patch tokens of a vision transformer, without the class token, count as maps.

    Args:
        model: (B, 1, S, S) -> (B, 1) logits; put into evaluation mode.
        images: (B, 1, S, S) float32 in [0, 1].
        layer: the module's name in the model; None for `default_layer`.

    Returns:
        (B, h, w) float32, not negative, of the layer's size; all zero for a slice without evidence for a tumor.

    Raises:
        InputError: the model has no such layer, or the layer's output is not a set of maps.
    """
    try:
        module = model.get_submodule(layer or default_layer(model))
    except AttributeError:
        known = ", ".join(name for name, _ in model.named_children())
        raise InputError(f"explain.layer: the network has no '{layer}', known: {known}") from None
    model.eval()
    given: list[Tensor] = []
    hook = module.register_forward_hook(lambda _, __, output: given.append(output))
    try:
        logits = model(images)
    finally:
        hook.remove()
    (gradient,) = grad(logits.sum(), given[0])
    as_maps = model.as_maps if isinstance(model, TimmEncoder) else lambda output: output
    maps, slopes = as_maps(given[0].detach()), as_maps(gradient)
    return (slopes.mean((2, 3), keepdim=True) * maps).sum(1).relu().float()


def default_layer(model: nn.Module) -> str:
    """Name of the layer with a network's last feature maps, such as "layer4" of a ResNet."""
    return model.layer if isinstance(model, TimmEncoder) else "layer4"


def to_frame(maps: Tensor, size: int) -> Tensor:
    """Resize maps (N, h, w) bilinearly to the size of the slices, (N, size, size)."""
    return interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
