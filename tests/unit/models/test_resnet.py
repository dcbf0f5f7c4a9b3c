"""The classifier's shape and draws, and batch-norm statistics against a plain computation."""

import pytest
import torch
from torch import nn

from kidney_ssl.models.resnet import batch_norms, classifier, reestimate_batch_norm


@pytest.mark.parametrize(("network", "width"), [("resnet18", 512), ("resnet50", 2048)])
def test_the_head_has_the_encoders_width_and_one_logit(network, width):
    model = classifier(network, 0).eval()
    assert model.fc.in_features == width
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 1)


def test_the_seed_decides_every_weight_and_global_random_state_stays():
    before = torch.get_rng_state()
    first, same, other = (classifier("resnet18", seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_the_first_convolution_is_drawn_as_torchvision_draws_its_own():
    weight = classifier("resnet18", 0).conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)  # He et al., fan-out
    assert abs(weight.mean().item()) < 0.002


def test_momentum_reaches_every_batch_norm():
    assert {norm.momentum for norm in batch_norms(classifier("resnet18", 0, batch_norm_momentum=0.3))} == {0.3}


def test_reestimated_statistics_are_those_of_the_images_and_nothing_else_changes():
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.3), nn.Conv2d(1, 1, 1), nn.Dropout(0.5)).train()
    model[2].eval()
    model[0](torch.full((4, 1, 3, 3), 50.0))  # statistics of something else
    weights = [value.clone() for value in model.parameters()]
    images = torch.rand(6, 1, 8, 8)
    reestimate_batch_norm(model, images.split(3))
    halves = images.split(3)
    assert torch.allclose(model[0].running_mean, images.mean())
    assert torch.allclose(model[0].running_var, torch.stack([half.var() for half in halves]).mean())
    assert model[0].momentum == 0.3
    assert [module.training for module in model] == [True, True, False]
    assert all(torch.equal(old, new) for old, new in zip(weights, model.parameters(), strict=True))
