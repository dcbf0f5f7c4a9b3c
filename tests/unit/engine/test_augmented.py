"""An augmentation in a fine-tuning: what it is given, and what an epoch of it is said to be."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch

from kidney_ssl.augmentations.augmented import Augmenting, augmenting, epoch_metrics, operation_pictures
from kidney_ssl.augmentations.base import Augmented
from kidney_ssl.engine.batches import Slices
from kidney_ssl.engine.device_array import DeviceArray
from kidney_ssl.errors import InputError
from kidney_ssl.finetune import Classification
from kidney_ssl.models.resnet import classifier
from tests.unit.engine.toy_study import toy_part

REGIONS = {"left": (0.2, 0.7, 0.1, 0.4), "right": (0.2, 0.7, 0.6, 0.9)}
CPU = torch.device("cpu")


@pytest.fixture
def part():
    toy = toy_part(24, 0, seed=1)
    return replace(toy, frame=toy.frame.assign(tumor_px=np.where(toy.frame["label"] == 1, 144, 0)))


@pytest.fixture(params=["always", "never"])
def made(part, request):
    """Makes an augmentation of slices in memory, and of mapped ones."""

    def make(name, options=MappingProxyType({}), **changes):
        slices = Slices(replace(part, masks=None), device=CPU, resident=request.param)
        masks = DeviceArray(part.masks, CPU, request.param)
        return augmenting(name, options, slices, masks, REGIONS, **changes)

    return make


class Negative:
    """Inverts grey values of tumor slices and swaps all labels: easy to follow by hand."""

    def __call__(self, images, labels, rows, generator):
        inverted = torch.where((labels == 1)[:, None, None, None], 1 - images, images)
        return Augmented(inverted, 1 - labels, {"inverted": labels == 1, "row": rows})


def test_none_is_no_augmentation(made):
    assert made("none") is None


def test_a_wrong_option_is_named_below_the_key_of_the_options(made):
    with pytest.raises(InputError, match=r"arms\.an_arm\.options\.squares"):
        made("supervised", {"squares": 1}, key="arms.an_arm.options")


@pytest.mark.parametrize("name", ["basic", "supervised", "unsupervised"])
def test_the_classifier_is_trained_on_the_augmented_batch_and_its_labels(part, made, name):
    augment = made(name)
    model = classifier("resnet18", 0).eval()
    batch = Slices(part, device=CPU).batch(torch.tensor([3, 8, 15, 20]))
    before = batch.images.clone()
    loss, _ = Classification(model, augment).step(batch, torch.Generator().manual_seed(5))
    images, labels, _ = augment.method(batch.images, batch.labels, batch.rows, torch.Generator().manual_seed(5))
    p = torch.sigmoid(model(images)[:, 0])
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(loss, expected)
    assert torch.equal(batch.images, before)


def test_masks_and_images_are_those_of_the_asked_rows(part, made):
    training = made("supervised").training
    rows = torch.tensor([5, 0, 7])
    assert torch.equal(training.masks(rows)[:, 0], torch.from_numpy(part.masks[[5, 0, 7]]))
    assert torch.equal(training.images(rows)[:, 0], torch.from_numpy(part.images[[5, 0, 7]]).float())


def test_an_epoch_is_every_slice_once_with_rates_by_the_label_afterwards(made):
    found = epoch_metrics(Augmenting(Negative(), made("supervised").training), seed=0, batch_size=5)
    # 12 tumor slices, the odd rows, end as label 0; the even rows end as label 1.
    assert found == {
        "prevalence": 0.5,
        "prevalence_before": 0.5,
        "relabelled": 1.0,
        "inverted_label_0": 1.0,
        "inverted_label_1": 0.0,
        "row_label_0": 12.0,
        "row_label_1": 11.0,
    }


def test_pictures_are_of_both_labels_and_repeat(made):
    augment = made("unsupervised")
    first, second = (operation_pictures(augment, seed=0, count=4) for _ in range(2))
    assert first.keys() == second.keys()
    for name, picture in first.items():
        assert picture.images.shape[0] == 4
        assert torch.equal(picture.images, second[name].images)
