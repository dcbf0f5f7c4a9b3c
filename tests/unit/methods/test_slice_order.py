"""Slice order: pairs, loss and accuracy against plain loops, and slices without a pair."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kidney_ssl.methods.base import PretextBatch, Setting
from kidney_ssl.methods.slice_order import Method, SliceOrderOptions, pairs

SETTING = Setting("resnet18", 64, {}, 0, 0.5)


class Bright(nn.Module):
    """Says how bright a slice is."""

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None]


def build(margin=0.25):
    made = Method(SETTING, SliceOrderOptions(margin=margin))
    made.encoder, made.head = Bright(), nn.Identity()
    return made


def batch_of(cases, places, scores):
    images = torch.tensor(scores)[:, None, None, None].expand(len(cases), 1, 64, 64)
    rows, place = torch.arange(len(cases)), torch.tensor(places)
    neighbors = torch.full((len(cases), 2), -1)
    return PretextBatch(images, rows, torch.tensor(cases), place, 100 * place, neighbors, images.__getitem__, 0, 1)


def listed(cases, places, margin):
    """The higher and the lower slice of each pair."""
    count = range(len(cases))
    found = [(i, j) for i in count for j in count if places[i] < places[j]]
    return [(i, j) for i, j in found if cases[i] == cases[j] or places[j] - places[i] >= margin]


slices = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.125, 0.25, 0.5, 0.875])), min_size=2, max_size=6)


@given(slices, st.sampled_from([0.0, 0.25, 1.0]), st.integers(0, 99))
def test_loss_and_accuracy_are_those_of_a_loop_over_the_pairs(drawn, margin, seed):
    cases, places = [case for case, _ in drawn], [place for _, place in drawn]
    scores = np.random.default_rng(seed).random(len(cases)).astype(np.float32)
    known = listed(cases, places, margin)
    assert sorted(map(tuple, pairs(torch.tensor(cases), torch.tensor(places), margin).nonzero().tolist())) == known
    method, batch = build(margin), batch_of(cases, places, scores.tolist())
    losses = {(i, j): math.log(1 + math.exp(scores[i] - scores[j])) for i, j in known}
    loss, metrics = method.step(batch, torch.Generator())
    assert loss.item() == pytest.approx(sum(losses.values()) / max(1, len(known)), rel=1e-4)
    right = [scores[j] > scores[i] for i, j in known]
    assert metrics["accuracy"].item() == pytest.approx(np.mean(right) if known else 0)
    found = method.validate(batch, torch.Generator())
    for number in range(len(cases)):
        own = [value for pair, value in losses.items() if number in pair]
        expected = np.mean(own or list(losses.values()) or [math.log(2)])
        assert found["loss"][number].item() == pytest.approx(expected, rel=1e-4)


def test_the_trivial_predictor_says_that_less_body_lies_higher():
    batch = batch_of([0, 0, 0], [0.1, 0.5, 0.9], [0.5, 0.5, 0.5])
    images = torch.zeros(3, 1, 64, 64)
    for number, rows in enumerate((10, 20, 20)):
        images[number, :, :rows] = 0.5
    found = build().validate(batch._replace(images=images), torch.Generator())
    assert found["accuracy_body"].tolist() == pytest.approx([1, 0.75, 0.75])
    assert found["accuracy_chance"].tolist() == [0.5] * 3


def test_a_batch_without_a_pair_has_no_loss_and_a_gradient_of_zero():
    method = Method(SETTING, SliceOrderOptions())
    batch = batch_of([0, 1], [0.5, 0.6], [0.1, 0.9])
    loss, _ = method.step(batch, torch.Generator())
    loss.backward()
    assert loss.item() == 0
    assert not method.encoder.conv1.weight.grad.any()
    assert method.eval().validate(batch, torch.Generator())["loss"].tolist() == pytest.approx([math.log(2)] * 2)


def test_pictures_put_the_slices_in_their_order_and_in_that_of_the_scores():
    shown = build().pictures(batch_of([0, 0, 0], [0.9, 0.1, 0.5], [0.2, 0.4, 0.6]), torch.Generator())["order"]
    assert shown.columns == ("by height", "by score")
    assert shown.images[:, :, 0, 0].flatten().tolist() == pytest.approx([0.4, 0.2, 0.6, 0.4, 0.2, 0.6])
