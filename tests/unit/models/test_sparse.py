"""Empty places against plain equations: masked convolutions, and batch norm over visible places."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, max_pool2d, relu

from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.sparse import empty_places, places
from kidney_ssl.models.unet import unet


def visible_of(patches, side, count=3, seed=0):
    """Half of the patches of `count` slices, others in each: (count, 1, S, S) bool."""
    drawn = torch.rand(count, patches**2, generator=torch.Generator().manual_seed(seed)).argsort(1) < patches**2 // 2
    return drawn.view(count, 1, patches, patches).repeat_interleave(side, 2).repeat_interleave(side, 3)


def images_of(visible):
    images = torch.rand(visible.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.where(visible, images, 0)


def maps_of(model, images):
    found = model.maps(images)
    return [one for one in found[1:] if one.shape[1]]


def test_places_see_any_visible_pixel():
    visible = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    visible[0, 0, 3, 5] = True
    assert places(visible, (8, 8)).equal(visible)
    assert places(visible, (2, 2)).tolist() == [[[[False, True], [False, False]]]]
    assert places(visible, (16, 16)).sum() == 4


def normed(maps, mask, norm):
    """Batch norm over the visible places alone, in numpy; zeros elsewhere."""
    values, seen = maps.detach().numpy(), np.broadcast_to(mask.numpy(), maps.shape)
    made = np.zeros_like(values)
    for channel in range(values.shape[1]):
        one, where = values[:, channel], seen[:, channel]
        mean, variance = one[where].mean(), one[where].var()
        scaled = (one - mean) / np.sqrt(variance + norm.eps)
        made[:, channel] = np.where(where, scaled * norm.weight[channel].item() + norm.bias[channel].item(), 0)
    return torch.from_numpy(made)


def test_the_first_layers_of_a_resnet_are_the_plain_equations():
    visible = visible_of(4, 16)
    images = images_of(visible)
    model = unet("resnet18", 0, batch_norm_momentum=0.3).double().train()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
                norm.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(3))
    net = model.encoder
    half, quarter = places(visible, (32, 32)), places(visible, (16, 16))
    stem = conv2d(images, net.conv1.weight, stride=2, padding=3) * half
    first = relu(normed(stem, half, net.bn1))
    below = max_pool2d(first, 3, 2, 1) * quarter
    block = net.layer1[0]
    inner = relu(normed(conv2d(below, block.conv1.weight, padding=1) * quarter, quarter, block.bn1))
    outer = normed(conv2d(inner, block.conv2.weight, padding=1) * quarter, quarter, block.bn2)
    with empty_places(net, visible):
        found = maps_of(model, images)
        again = net.layer1[0](below)
    torch.testing.assert_close(found[0], first)
    torch.testing.assert_close(again, relu(outer + below))
    mean = stem.detach().movedim(1, 3)[half[:, 0]].mean(0)
    torch.testing.assert_close(net.bn1.running_mean, 0.3 * mean)


NETWORKS = ["resnet18", "efficientnet_lite0", "timm:test_convnext"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_map_is_zero_where_nothing_is_visible_and_nowhere_else(network, training):
    visible = visible_of(4, 32, count=2)
    model = unet(network, 0).double().train(training)
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.3)  # what a bias or a norm gives to empty places would be seen
    with empty_places(model.encoder, visible):
        found = maps_of(model, images_of(visible))
    for maps in found:
        seen = places(visible, maps.shape[2:])
        assert not maps.masked_select(~seen).any()
        assert maps.detach().abs().sum(1, keepdim=True)[seen].all()


@pytest.mark.parametrize("network", NETWORKS)
def test_with_everything_visible_it_is_the_ordinary_network(network):
    visible = torch.ones(2, 1, 64, 64, dtype=torch.bool)
    images = images_of(visible)
    model = unet(network, 0).double()
    plain = maps_of(model, images)
    with empty_places(model.encoder, visible):
        found = maps_of(model, images)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_the_network_is_an_ordinary_one_after_the_block_even_if_it_fails():
    visible = visible_of(2, 32, count=2)
    model, twin = classifier("resnet18", 0).eval(), classifier("resnet18", 0).eval()

    def failing() -> None:
        with empty_places(model, visible):
            model(images_of(visible).float())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(model(images), twin(images))
    assert list(model.state_dict()) == list(twin.state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
