"""The U-Net: its encoder is the classifier's by name and by value, its output, its seed."""

import pytest
import torch
from torch import nn

from kidney_ssl.models.resnet import classifier, encoder
from kidney_ssl.models.unet import unet
from kidney_ssl.models.weights import encoder_state, load_encoder, save_weights
from tests.random_state import global_random_state


@pytest.fixture(scope="module")
def model():
    return unet("resnet18", 0)


@pytest.mark.parametrize("network", ["resnet18", "resnet34", "resnet50"])
def test_the_encoders_state_is_the_classifiers_without_head(network):
    found = unet(network, 0).encoder.state_dict()
    expected = encoder_state(classifier(network, 0))
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


def test_an_encoder_loads_into_the_unet_and_computes_the_same_there(model, tmp_path):
    other, _ = encoder("resnet18", 5)
    save_weights(encoder_state(other), tmp_path / "encoder.safetensors")
    load_encoder(model.encoder, tmp_path / "encoder.safetensors")
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        maps = model.encoder.eval()(images)
        expected = other.eval()(images)
    assert torch.allclose(maps[-1].mean((2, 3)), expected, atol=1e-5)


@pytest.mark.parametrize("side", [64, 96])
def test_it_gives_an_image_of_the_same_size_between_0_and_1(model, side):
    with torch.no_grad():
        restored = model.eval()(10 * torch.randn(2, 1, side, side))
    assert restored.shape == (2, 1, side, side)
    assert 0 <= restored.min() < restored.max() <= 1


def test_the_seed_decides_every_weight_and_global_random_state_stays():
    before = global_random_state()
    first, same, other = (unet("resnet18", seed).state_dict() for seed in (3, 3, 4))
    assert global_random_state() == before
    assert all(torch.equal(first[name], same[name]) for name in first)
    for name, tensor in first.items():
        if tensor.ndim == 4:  # convolutions; norms and biases begin as ones and zeros
            assert not torch.equal(tensor, other[name]), name


def test_momentum_reaches_every_batch_norm():
    model = unet("resnet18", 0, batch_norm_momentum=0.3)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.3}
    assert len(norms) > 20  # the decoder's too
