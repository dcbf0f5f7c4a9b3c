"""The epoch that is kept: best on validation, the earliest of equals, or the last; blind to the test part."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from kidney_ssl.engine.batches import Slices
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.engine.selected_epoch import SelectedEpoch
from kidney_ssl.errors import InputError
from tests.unit.engine.toy_study import part_of

LABELS = {"validation": np.array([0, 1, 0, 1]), "test": np.array([1, 1, 0])}
IMAGES = {
    "validation": np.array([-1, 1, -2, 2], np.float16).reshape(4, 1, 1),
    "test": np.array([1, -1, 1], np.float16).reshape(3, 1, 1),
}


class Scale(nn.Module):
    """A logit of the pixel times one weight: a negative weight ranks backwards."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images[:, 0, 0] * self.weight


@pytest.fixture
def best(fabric):
    return best_of(fabric, LABELS)


def best_of(fabric, labels, select="best"):
    data = {name: Slices(part_of(IMAGES[name], labels[name]), device=fabric.device) for name in labels}
    context = TrainingContext(fabric, "toy", 0, Path("none.pt"))
    return SelectedEpoch(Scale(), data, context, 3, due=range(1, 10), select=select)


def at(best, epoch, weight):
    best.model.weight.data.fill_(weight)
    return best(epoch)


def test_the_earliest_of_equal_epochs_is_kept_and_a_worse_one_is_not(best):
    aurocs = [at(best, epoch, weight)["validation_auroc"] for epoch, weight in enumerate([-1.0, 2.0, 3.0, -1.0], 1)]
    assert aurocs == [0, 1, 1, 0]
    assert (best.epoch, best.weights["weight"].item()) == (2, 2.0)
    assert np.allclose(best.probabilities["test"], 1 / (1 + np.exp([-2.0, 2.0, -2.0])))


def test_the_last_epoch_is_kept_though_an_earlier_one_was_better(fabric):
    last = best_of(fabric, LABELS, "last")
    for epoch, weight in enumerate([2.0, -1.0], 1):
        at(last, epoch, weight)
    assert (last.epoch, last.score, last.weights["weight"].item()) == (2, 0, -1.0)
    assert np.allclose(last.probabilities["test"], 1 / (1 + np.exp([1.0, -1.0, 1.0])))


def test_test_figures_are_scikit_learns_at_one_half(best):
    figures = at(best, 1, 1.0)
    assert figures["test_accuracy"] == 1 / 3
    assert figures["test_f1"] == f1_score([1, 1, 0], [1, 0, 1])


def test_test_labels_decide_nothing(fabric, best):
    at(best, 1, 1.0)
    other = best_of(fabric, LABELS | {"test": 1 - LABELS["test"]})
    at(other, 1, 1.0)
    assert (other.epoch, other.score) == (best.epoch, best.score)


def test_without_tumor_in_the_test_part_there_is_no_f1(fabric):
    figures = best_of(fabric, LABELS | {"test": np.zeros(3)})(1)
    assert np.isnan(figures["test_f1"])
    assert 0 <= figures["test_accuracy"] <= 1


def test_a_network_that_broke_after_its_last_loss_is_refused(best):
    with pytest.raises(InputError, match="toy: validation logits are not finite after epoch 3"):
        at(best, 3, float("nan"))
