"""Grad-CAM (Selvaraju et al. 2017): where in a slice the tumour logit comes from."""

from torch import Tensor, nn
from torch.nn.functional import interpolate

from kidney_ssl.errors import InputError


def grad_cam(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """Positive evidence for the logit in each place of a layer's maps.

    L = ReLU(sum_k a_k A_k), where A_k is the layer's k-th map and a_k the mean over its places of the gradient of the
    logit with respect to it.

    Args:
        model: (B, 1, S, S) -> (B, 1) logits; put into evaluation mode.
        images: (B, 1, S, S) float32 in [0, 1].
        layer: the module's name in the model, "layer4" for the last block of a ResNet.

    Returns:
        (B, h, w) float32, not negative, of the layer's size; all zero where nothing speaks for a tumour.

    Raises:
        InputError: the model has no such layer.
    """
    from captum.attr import LayerGradCam  # noqa: PLC0415 - costs seconds of imports

    try:
        module = model.get_submodule(layer)
    except AttributeError:
        known = ", ".join(name for name, _ in model.named_children())
        raise InputError(f"explain.layer: the network has no '{layer}', known: {known}") from None
    model.eval()
    found = LayerGradCam(model, module).attribute(images, target=0, relu_attributions=True)
    return found.detach()[:, 0].float()


def to_frame(maps: Tensor, size: int) -> Tensor:
    """Bring maps (N, h, w) to the slices' size, (N, size, size), linearly."""
    return interpolate(maps[:, None], (size, size), mode="bilinear", align_corners=False)[:, 0]
