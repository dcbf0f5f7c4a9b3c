"""Momentum networks: against lightly's update and schedule, and what stays as it is."""

import copy

import pytest
import torch
from lightly.models.utils import update_momentum
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from kidney_ssl.models.momentum import cosine_momentum, follow


def network(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.996, 1.0])
def test_the_copy_moves_as_lightlys_does_and_neither_buffers_nor_the_trained_network_change(momentum):
    slow, fast = network(0), network(1)
    fast(torch.rand(5, 3))  # moves its running statistics
    expected, trained, buffers = copy.deepcopy(slow), copy.deepcopy(fast), copy.deepcopy(list(slow.buffers()))
    update_momentum(fast, expected, momentum)
    follow(slow, fast, momentum)
    for found, wanted in zip(slow.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)
    assert all(torch.equal(*pair) for pair in zip(slow.buffers(), buffers, strict=True))
    assert all(torch.equal(*pair) for pair in zip(fast.parameters(), trained.parameters(), strict=True))


def test_the_momentum_rises_along_lightlys_cosine():
    # Lightly's reaches its end with the last step, the paper's one step later.
    found = [cosine_momentum(0.99, update, 10) for update in range(10)]
    assert found == pytest.approx([cosine_schedule(update, 11, 0.99, 1.0) for update in range(10)])
    assert found[0] == pytest.approx(0.99)
    assert found == sorted(found)
