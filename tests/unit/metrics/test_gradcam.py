"""Grad-CAM on networks whose answer is known to come from one place, and against its formula."""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kidney_ssl.errors import InputError
from kidney_ssl.explain import grad_cam, to_frame
from kidney_ssl.metrics.saliency import AIR, correlation, correlations, shares
from kidney_ssl.models.resnet import classifier

SIZE = 32


class Brightness(nn.Module):
    """Its logit is how much of the slice is brighter than 0.5, minus how much is darker than 0.1: both known places."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            self.look.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.look.bias.copy_(torch.tensor([-0.5, 0.1]))
        self.positive = nn.ReLU()
        self.head = nn.Linear(2, 1)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, -1.0]]))
            self.head.bias.zero_()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.positive(self.look(images)).mean((2, 3)))


def test_the_map_is_where_the_answer_comes_from() -> None:
    image = torch.full((1, 1, SIZE, SIZE), 0.3)
    image[0, 0, 4:8, 20:26] = 1.0  # speaks for
    image[0, 0, 20:24, 2:8] = 0.0  # speaks against
    found = grad_cam(Brightness(), image, "positive")[0]
    assert torch.nonzero(found).min(0).values.tolist() == [4, 20]
    assert torch.nonzero(found).max(0).values.tolist() == [7, 25]
    assert (found[4:8, 20:26] > 0).all()


def test_a_slice_without_evidence_has_a_map_of_zeros() -> None:
    assert not grad_cam(Brightness(), torch.zeros(2, 1, SIZE, SIZE), "positive").any()


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer4"])
def test_it_is_the_published_formula(layer: str) -> None:
    model = classifier("resnet18", 3).eval()
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    kept: list[torch.Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, __, out: kept.append(out))
    logits = model(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits.sum(), kept[0])
    expected = torch.relu((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1))
    torch.testing.assert_close(grad_cam(model, images, layer), expected.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer4"])
def test_it_is_captums_to_the_last_bit(layer: str) -> None:
    model, images = classifier("resnet18", 3).eval(), torch.rand(2, 1, 64, 64)
    expected = LayerGradCam(model, model.get_submodule(layer)).attribute(images, target=0, relu_attributions=True)
    assert torch.equal(grad_cam(model, images, layer), expected.detach()[:, 0])


def test_by_default_the_last_layer_is_read() -> None:
    model, images = classifier("resnet18", 3), torch.rand(2, 1, 64, 64)
    assert torch.equal(grad_cam(model, images, None), grad_cam(model, images, "layer4"))


@pytest.mark.parametrize("network", ["timm:test_vit", "timm:test_convnext", "timm:swin_s3_tiny_224"])
def test_maps_of_a_transformer_are_its_patches(network: str) -> None:
    """The formula for tokens, (B, 1 + h w, D) with the class token first, for channels last and for channels first."""
    model = classifier(network, 3).eval()
    side = 224 if "swin" in network else 64
    images = torch.rand(3, 1, side, side, generator=torch.Generator().manual_seed(0))
    kept: list[torch.Tensor] = []
    hook = model.get_submodule(model.layer).register_forward_hook(lambda _, __, out: kept.append(out))
    logits = model(images)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits.sum(), kept[0])
    if kept[0].ndim == 3:
        tokens, slopes = kept[0][:, 1:], gradient[:, 1:]
        expected = torch.einsum("bnd,bd->bn", tokens, slopes.mean(1)).relu().unflatten(1, (4, 4))
    elif "swin" in network:
        expected = torch.einsum("bhwd,bd->bhw", kept[0], gradient.mean((1, 2))).relu()
    else:
        expected = torch.einsum("bdhw,bd->bhw", kept[0], gradient.mean((2, 3))).relu()
    found = grad_cam(model, images, None)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    assert found.max() > 0


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(InputError, match=r"explain\.layer: the network has no 'layer9', known: conv1, bn1"):
        grad_cam(classifier("resnet18", 0), torch.zeros(1, 1, 32, 32), "layer9")


def test_maps_come_to_the_frame_with_their_corners_in_place() -> None:
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 3] = 1
    found = to_frame(maps, 32)[0]
    assert found.shape == (32, 32)
    assert found[:4, -4:].min() == found.max() == 1


def test_shares_by_hand() -> None:
    masks = np.zeros((3, 4, 4), np.uint8)
    masks[0, 0, 0], masks[0, 0, 1], masks[0, 1, 0] = 2, 1, 3
    masks[1, 3, 3] = 1
    images = np.full((3, 4, 4), AIR, np.int16)
    images[:, :, :2] = 0
    maps = np.zeros((3, 4, 4), np.float32)
    maps[0, 0, 0], maps[0, 0, 1], maps[0, 3, 3] = 3, 1, 4
    maps[1, 0, 0] = 5
    found = shares(maps, masks, images)
    assert found == {
        "null_maps": 1,
        "slices": 3,
        "share_tumor": 3 / 8,
        "area_tumor": 1 / 16,
        "share_kidney": (4 / 8 + 0) / 2,
        "area_kidney": (3 / 16 + 1 / 16) / 2,
        "share_body": (4 / 8 + 1) / 2,
        "area_body": 0.5,
    }


def test_without_a_tumor_or_a_map_there_is_no_share() -> None:
    nothing = np.zeros((2, 4, 4))
    found = shares(nothing, nothing.astype(np.uint8), nothing)
    assert found["share_tumor"] is None
    assert found["share_body"] is None
    assert found["null_maps"] == 2


@given(st.integers(0, 2**32 - 1))
def test_correlation_is_numpys(seed: int) -> None:
    first, second = np.random.default_rng(seed).random((2, 3, 5, 4))
    expected = np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)])
    assert correlation(first, second) == pytest.approx(expected, abs=1e-6)
    assert correlation(first, 3 * first + 1) == 1


def test_null_maps_have_no_correlation() -> None:
    flat, other = np.zeros((2, 4, 4)), np.random.default_rng(0).random((2, 4, 4))
    assert correlation(flat, other) is None
    half = np.stack([flat[0], other[1]])
    assert correlation(half, other) == 1
    assert correlations({"a": other, "b": flat}) == {"a": {"a": 1, "b": None}, "b": {"a": None, "b": None}}
