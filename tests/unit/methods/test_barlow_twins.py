"""Barlow Twins: the loss against numpy's correlations, its collapse, and its published weight."""

import numpy as np
import pytest
import torch
from torch import nn

from kidney_ssl.methods.barlow_twins import BarlowTwinsOptions, Method
from kidney_ssl.methods.base import Setting
from tests.unit.methods.stand_ins import Given

SETTING = Setting("resnet18", 64, {}, 0, 0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("redundancy", [5e-3, 0.0, 1.0])
def test_the_loss_is_that_of_numpys_correlations_in_training_and_validation_and_under_autocast(redundancy):
    embedded = torch.randn(12, 5, generator=generator(1))
    first, second = embedded.double().numpy().reshape(2, 6, 5)
    matrix = np.corrcoef(first, second, rowvar=False)[:5, 5:]
    expected = sum(
        (1 - matrix[i, j]) ** 2 if i == j else redundancy * matrix[i, j] ** 2 for i in range(5) for j in range(5)
    )
    method = Method(SETTING, BarlowTwinsOptions(redundancy=redundancy))
    method.head = Given(embedded)
    images = torch.rand(6, 1, 64, 64, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        assert method.step(images, generator())[0].item() == pytest.approx(expected, rel=1e-3)
    assert method.validate(images, generator())["loss"].tolist() == pytest.approx([expected] * 6, rel=1e-3)


def test_embeddings_that_are_all_alike_have_the_loss_of_the_trivial_predictor():
    method = Method(SETTING, BarlowTwinsOptions())
    method.head = Given(torch.full((8, 7), 0.25))
    found = method.validate(torch.rand(4, 1, 64, 64, generator=generator()), generator())
    assert found["loss"].tolist() == found["loss_constant"].tolist() == [7] * 4


def test_the_default_weight_is_the_papers_and_the_projector_is_four_times_as_wide_as_the_encoder():
    options = BarlowTwinsOptions()
    layers = Method(SETTING, options).head.layers
    assert options.redundancy == 0.005
    assert [layer.out_features for layer in layers if isinstance(layer, nn.Linear)] == [2048] * 3
    assert {layer.momentum for layer in layers if isinstance(layer, nn.BatchNorm1d)} == {0.5}


def test_one_slice_alone_has_no_loss_and_stops_nothing():
    images = torch.rand(1, 1, 64, 64, generator=generator())
    found = Method(SETTING, BarlowTwinsOptions()).eval().validate(images, generator())
    assert found["loss"].isnan().all()
    assert Method.one_slice_per_case
