"""BYOL: the loss against numpy and lightly's, what the target says and how it moves."""

import copy

import numpy as np
import pytest
import torch
from lightly.loss import NegativeCosineSimilarity

from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.byol import ByolOptions, Method
from kidney_ssl.models.momentum import cosine_momentum
from tests.unit.methods.stand_ins import Given

SETTING = Setting("resnet18", 64, {}, 0, 0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def method():
    made = Method(SETTING, ByolOptions())
    made.begin()
    return made


@pytest.mark.parametrize("name", ["step", "validate"])
def test_the_loss_is_the_papers_and_lightlys(method, name):
    predicted, given = (torch.randn(10, 4, generator=generator(seed)) for seed in (1, 2))
    method.predictor, method.target = Given(predicted), Given(given)
    images = torch.rand(5, 1, 64, 64, generator=generator())
    q, z = ([row / np.linalg.norm(row) for row in values.double().numpy()] for values in (predicted, given))
    expected = [np.sum((q[b] - z[b + 5]) ** 2) + np.sum((q[b + 5] - z[b]) ** 2) for b in range(5)]
    if name == "validate":
        assert method.validate(images, generator())["loss"].tolist() == pytest.approx(expected, rel=1e-5)
        return
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.step(images, generator())[0].item()
    negative = NegativeCosineSimilarity()
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert loss == pytest.approx(
        4 + 2 * (negative(predicted[:5], given[5:]) + negative(predicted[5:], given[:5])).item(), rel=1e-5
    )


def test_the_target_gets_no_gradient_and_is_the_online_network_at_the_start(method):
    for slow, fast in ((method.target[0], method.encoder), (method.target[1], method.head)):
        state = fast.state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in slow.state_dict().items())
    method.step(torch.rand(4, 1, 64, 64, generator=generator()), generator())[0].backward()
    assert all(parameter.grad is None for parameter in method.target.parameters())
    assert all(parameter.grad is not None for parameter in method.predictor.parameters())


def test_the_target_follows_slower_and_slower(method):
    before = copy.deepcopy(list(method.target.parameters()))
    online = [*method.encoder.parameters(), *method.head.parameters()]
    with torch.no_grad():
        for parameter in online:
            parameter.add_(1)
    method.after_step(7, 10)
    share = 1 - cosine_momentum(0.996, 7, 10)
    for old, now, fast in zip(before, method.target.parameters(), online, strict=True):
        torch.testing.assert_close(now, old + share * (fast - old))


def test_start_weights_that_come_after_building_reach_the_target():
    method = Method(SETTING, ByolOptions())
    with torch.no_grad():
        method.encoder.conv1.weight.zero_()
    method.begin()
    assert not method.target[0].conv1.weight.any()


def test_the_online_encoder_is_kept_and_the_published_widths_and_momentum_are_the_defaults(method):
    assert method.exported is method.encoder
    widths = [
        layer.out_features
        for layer in (*method.head.layers, *method.predictor.layers)
        if hasattr(layer, "out_features")
    ]
    assert widths == [4096, 256, 4096, 256]
    assert ByolOptions().momentum == 0.996
