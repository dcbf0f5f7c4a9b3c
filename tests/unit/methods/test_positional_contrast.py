"""Positional contrast: the loss against a plain double loop and lightly's, and which slices are positives."""

import math

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss
from torch import nn

from kidney_ssl.methods.base import PretextBatch, Setting
from kidney_ssl.methods.positional_contrast import Method, PositionalContrastOptions, contrast, positives
from tests.unit.methods.stand_ins import Given

SETTING = Setting("resnet18", 64, {}, 0, 0.5)
# Two slices of case 0 are 4 mm apart, the third is far; one slice of case 1 is as high as the first, one of case 2 low.
CASES = [0, 0, 0, 1, 2]
HEIGHTS = [0.2, 0.3, 0.9, 0.2, 0.86]
MM = [20.0, 24.0, 90.0, 500.0, 24.0]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_of(cases=CASES, heights=HEIGHTS, mm=MM):
    count = len(cases)
    images = torch.rand(count, 1, 64, 64, generator=generator())
    rows, neighbors = torch.arange(count), torch.full((count, 2), -1)
    places = (torch.tensor(cases), torch.tensor(heights), torch.tensor(mm))
    return PretextBatch(images, rows, *places, neighbors, images.__getitem__, 0, 1)


def told(vectors, **options):
    """The method with projections that do not depend on images."""
    method = Method(SETTING, PositionalContrastOptions(**options))
    method.encoder, method.head = nn.Identity(), Given(vectors)
    return method


@pytest.mark.parametrize(
    ("distance_mm", "height", "expected"),
    [
        # 0 and 1: 4 mm apart in one case; 3 is as high as 0 and, with 0.1, as 1; 4 is near 2 in height alone.
        (5, 0.05, {0: [1, 3], 1: [0], 2: [4], 3: [0], 4: [2]}),
        (5, 0.11, {0: [1, 3], 1: [0, 3], 2: [4], 3: [0, 1], 4: [2]}),
        # Heights of one case do not count, nor do distances of two cases.
        (3, 0.11, {0: [3], 1: [3], 2: [4], 3: [0, 1], 4: [2]}),
        (0, 0, {0: [3], 1: [], 2: [], 3: [0], 4: []}),
    ],
)
def test_positives_are_those_found_by_hand(distance_mm, height, expected):
    batch = batch_of()
    found = positives(batch.case, batch.position, batch.z_mm, distance_mm, height)
    assert found.diagonal().all()
    assert {row: [at for at in range(5) if found[row, at] and at != row] for row in range(5)} == expected


def by_loop(vectors, alike, temperature):
    """The equation, view by view: numbers of all first views, then of all second views."""
    unit = [row / np.linalg.norm(row) for row in vectors.double().numpy()]
    count, losses = len(alike), []
    for i in range(2 * count):
        others = sum(math.exp(unit[i] @ unit[a] / temperature) for a in range(2 * count) if a != i)
        wanted = [p for p in range(2 * count) if p != i and alike[i % count][p % count]]
        losses.append(-np.mean([math.log(math.exp(unit[i] @ unit[p] / temperature) / others) for p in wanted]))
    return losses


@pytest.mark.parametrize("name", ["step", "validate"])
def test_the_loss_is_that_of_a_double_loop(name):
    vectors, batch = torch.randn(10, 16, generator=generator(1)), batch_of()
    alike = [
        [i == j or (i, j) in pairs or (j, i) in pairs for j in range(5)]
        for pairs in [{(0, 1), (0, 3), (2, 4)}]
        for i in range(5)
    ]
    expected = by_loop(vectors, alike, 0.3)
    method = told(vectors, distance_mm=5, height=0.05, temperature=0.3)
    if name == "validate":
        found = method.validate(batch, generator())
        assert found["loss"].tolist() == pytest.approx(np.reshape(expected, (2, 5)).mean(0).tolist(), rel=1e-5)
        assert found["loss_chance"].tolist() == pytest.approx([math.log(9)] * 5)
        # Of nine other views: its own other one, and two of each other positive.
        assert found["nearest_chance"].tolist() == pytest.approx([5 / 9, 3 / 9, 3 / 9, 3 / 9, 3 / 9])
        return
    with torch.autocast("cpu", torch.bfloat16):
        loss, metrics = method.step(batch, generator())
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert metrics["positives"].item() == pytest.approx(6 / 5)


def test_with_no_positive_but_the_other_view_it_is_lightlys_nt_xent():
    vectors, batch = torch.randn(10, 16, generator=generator(2)), batch_of(heights=[0.1, 0.2, 0.3, 0.4, 0.5])
    loss, metrics = told(vectors, distance_mm=0, height=0, temperature=0.2).step(batch, generator())
    assert metrics["positives"] == 0
    assert loss.item() == pytest.approx(NTXentLoss(temperature=0.2)(vectors[:5], vectors[5:]).item(), rel=1e-5)


def test_the_gradient_is_finite_and_pulls_positives_together():
    vectors = torch.randn(10, 16, generator=generator(3)).requires_grad_()
    alike = torch.eye(5, dtype=torch.bool)
    alike[0, 3] = alike[3, 0] = True

    def similarity(values):
        return torch.cosine_similarity(values[0], values[3], dim=0).item()

    contrast(vectors, alike, 0.5).mean().backward()
    assert vectors.grad.isfinite().all()
    assert similarity(vectors - 0.5 * vectors.grad) > similarity(vectors)


def test_nearest_counts_every_positive_and_thumbnails_are_beside_it():
    # Each slice's views lie on an axis of their own, but slices 0 and 1 swap theirs.
    axes = torch.eye(16)[[1, 0, 2, 3, 4, 0, 1, 2, 3, 4]]
    found = told(axes, distance_mm=5, height=0.05).validate(batch_of(), generator())
    assert found["nearest"].tolist() == [1] * 5  # 0 and 1 are 4 mm apart
    assert found["accuracy"].tolist() == [0, 0, 1, 1, 1]
    apart = told(axes, distance_mm=1, height=0.05).validate(batch_of(), generator())
    assert apart["nearest"].tolist() == [0, 0, 1, 1, 1]
    assert {"nearest_thumbnail", "nearest_chance"} < set(found)


def test_pictures_show_the_slice_of_another_case_as_high_or_nothing():
    method, batch = Method(SETTING, PositionalContrastOptions(height=0.05)), batch_of()
    shown = method.pictures(batch, generator())["positives"].images
    partner = {0: 3, 2: 4, 3: 0, 4: 2}
    for row in range(5):
        expected = batch.images[partner[row], 0] if row in partner else torch.zeros(64, 64)
        assert torch.equal(shown[row, 1], expected)


def test_defaults_are_said_in_the_docs_and_batches_may_hold_several_slices_of_a_case():
    options = PositionalContrastOptions()
    assert (options.distance_mm, options.height, options.temperature) == (10, 0.1, 0.1)
    assert not Method.one_slice_per_case
