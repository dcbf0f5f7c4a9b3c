"""Slice position: errors against numpy's, the mean place of all slices so far, and what is drawn."""

import numpy as np
import pytest
import torch
from torch import nn

from kidney_ssl.methods.base import Options, PretextBatch, Setting
from kidney_ssl.methods.slice_position import Method

SETTING = Setting("resnet18", 64, {}, 0, 0.5)


class Bright(nn.Module):
    """Says how bright a slice is."""

    def forward(self, images):
        return images.mean((1, 2, 3))[:, None]


@pytest.fixture
def method():
    made = Method(SETTING, Options())
    made.encoder, made.head = Bright(), nn.Identity()
    return made


def batch_of(places, told):
    count = len(places)
    images = torch.tensor(told)[:, None, None, None].expand(count, 1, 64, 64)
    rows = torch.arange(count)
    return PretextBatch(
        images, rows, rows, torch.tensor(places), rows.float(), torch.full((count, 2), -1), images.__getitem__, 0, 1
    )


def test_loss_and_error_are_those_of_numpy_beside_those_of_the_training_slices_mean_place(method):
    chance = torch.Generator()
    untrained = method.validate(batch_of([0.1, 0.9], [0.0, 0.0]), chance)
    assert untrained["error_mean"].tolist() == pytest.approx([0.4, 0.4])  # the middle
    loss, metrics = method.step(batch_of([0.2, 0.6], [0.5, 0.5]), chance)
    assert loss.item() == pytest.approx((0.3**2 + 0.1**2) / 2)
    assert metrics["error"].item() == pytest.approx(0.2)
    method.step(batch_of([0.7], [0.5]), chance)
    places, told, mean = np.array([0.1, 0.9, 0.5]), np.array([0.3, 0.3, 0.3]), np.mean([0.2, 0.6, 0.7])
    found = method.validate(batch_of(places.tolist(), told.tolist()), chance)
    assert {name: values.tolist() for name, values in found.items()} == {
        "loss": pytest.approx((told - places) ** 2),
        "loss_mean": pytest.approx((mean - places) ** 2),
        "error": pytest.approx(abs(told - places)),
        "error_mean": pytest.approx(abs(mean - places)),
    }


def test_the_mean_place_is_in_the_state(method):
    method.step(batch_of([0.2, 0.6], [0.5, 0.5]), torch.Generator())
    assert (method.state_dict()["places"].item(), method.state_dict()["seen"].item()) == (pytest.approx(0.8), 2)


def test_pictures_draw_a_line_at_the_place_and_at_what_was_told(method):
    shown = method.pictures(batch_of([0.25, 0.0], [0.5, 1.0]), torch.Generator())["places"]
    assert shown.columns == ("slice", "its place", "told")
    rows = [[column[:, 0].argmax().item() for column in row] for row in shown.images[:, 1:]]
    assert rows == [[15, 31], [0, 62]]
