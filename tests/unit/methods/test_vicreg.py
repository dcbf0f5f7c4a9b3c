"""VICReg: the loss against a plain one from the paper, its collapse, and its published weights."""

import numpy as np
import pytest
import torch
from torch import nn

from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.vicreg import Method, VicregOptions
from tests.unit.methods.stand_ins import Given

SETTING = Setting("resnet18", 64, {}, 0, 0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def plain(first, second, invariance, variance, covariance):
    """Eq. 1 to 6, with sums over single features."""
    batch, width = first.shape
    total = invariance * sum((first[b, j] - second[b, j]) ** 2 for b in range(batch) for j in range(width))
    total /= batch * width
    for one in (first, second):
        total += variance / 2 * sum(max(0, 1 - np.sqrt(np.var(one[:, j], ddof=1) + 1e-4)) for j in range(width)) / width
        matrix = np.cov(one, rowvar=False)
        total += covariance * sum(matrix[i, j] ** 2 for i in range(width) for j in range(width) if i != j) / width
    return total


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_the_loss_is_the_papers_in_training_and_validation_and_under_autocast(weights):
    embedded = 0.7 * torch.randn(10, 6, generator=generator(1)) + torch.arange(10)[:, None] % 5 / 5
    expected = plain(*embedded.double().numpy().reshape(2, 5, 6), *weights)
    options = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
    method = Method(SETTING, VicregOptions(**options))
    method.head = Given(embedded)
    images = torch.rand(5, 1, 64, 64, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        assert method.step(images, generator())[0].item() == pytest.approx(expected, rel=1e-4)
    assert method.validate(images, generator())["loss"].tolist() == pytest.approx([expected] * 5, rel=1e-4)


def test_embeddings_that_are_all_alike_have_the_loss_of_the_trivial_predictor():
    method = Method(SETTING, VicregOptions(variance=10.0))
    method.head = Given(torch.full((8, 6), 0.3))
    found = method.validate(torch.rand(4, 1, 64, 64, generator=generator()), generator())
    assert found["loss"].tolist() == pytest.approx(found["loss_constant"].tolist())
    assert found["loss_constant"][0].item() == pytest.approx(9.9)


def test_defaults_are_the_papers_and_the_expander_is_four_times_as_wide_as_the_encoder():
    options = VicregOptions()
    assert (options.invariance, options.variance, options.covariance) == (25, 25, 1)
    layers = Method(SETTING, options).head.layers
    assert [type(layer) for layer in layers] == [
        *(nn.Linear, nn.BatchNorm1d, nn.ReLU) * 2,
        nn.Linear,
    ]
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [2048] * 3
    assert {layer.momentum for layer in layers if isinstance(layer, nn.BatchNorm1d)} == {0.5}


def test_one_slice_alone_has_no_loss_and_stops_nothing():
    found = (
        Method(SETTING, VicregOptions()).eval().validate(torch.rand(1, 1, 64, 64, generator=generator()), generator())
    )
    assert found["loss"].isnan().all()
    assert Method.one_slice_per_case
