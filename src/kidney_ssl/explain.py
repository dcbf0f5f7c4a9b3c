"""Grad-CAM (Selvaraju et al. 2017): where in a slice the tumor logit comes from."""

from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.functional import interpolate

from kidney_ssl.errors import InputError
from kidney_ssl.models.timm_encoder import TimmEncoder


def grad_cam(model: nn.Module, images: Tensor, layer: str | None) -> Tensor:
    """Positive evidence for the logit in each place of a layer's maps.

    L = ReLU(sum_k a_k A_k), where A_k is the layer's k-th map and a_k the mean over its places of the gradient of the
    logit with respect to it. The tokens of a vision transformer are maps too, without its class token.

    Args:
        model: (B, 1, S, S) -> (B, 1) logits; put into evaluation mode.
        images: (B, 1, S, S) float32 in [0, 1].
        layer: the module's name in the model; None for `default_layer`.

    Returns:
        (B, h, w) float32, not negative, of the layer's size; all zero where nothing speaks for a tumor.

    Raises:
        InputError: the model has no such layer, or it gives no maps.
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
    """The last maps of a network: "layer4" of a ResNet."""
    return model.layer if isinstance(model, TimmEncoder) else "layer4"


def to_frame(maps: Tensor, size: int) -> Tensor:
    """Bring maps (N, h, w) to the slices' size, (N, size, size), linearly."""
    return interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
