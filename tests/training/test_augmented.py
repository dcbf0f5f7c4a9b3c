"""An augmentation in a fine-tuning: what it is given, and what an epoch of it is said to be."""

import numpy as np
import pytest
import torch

from kidney_ssl.augmentation.base import Augmented
from kidney_ssl.errors import InputError
from kidney_ssl.models.resnet import classifier
from kidney_ssl.training.augmented import Augmenting, augmenting, epoch_figures, operation_pictures
from kidney_ssl.training.batches import Part, Slices
from kidney_ssl.training.finetune import Classification
from tests.training.toy_study import toy_part

REGIONS = {"left": (0.2, 0.7, 0.1, 0.4), "right": (0.2, 0.7, 0.6, 0.9)}
CPU = torch.device("cpu")


def described(name, **options):
    return {"arm": "an_arm", "augmentation": name, "code": "0", "options": options}


@pytest.fixture
def part():
    toy = toy_part(24, 0, seed=1)
    return Part(toy.images, toy.frame.assign(tumor_px=np.where(toy.frame["label"] == 1, 144, 0)))


@pytest.fixture
def masks(part, tmp_path):
    array = np.zeros(part.images.shape, np.uint8)
    array[part.frame["label"].to_numpy() == 1, 8:20, 8:20] = 2
    np.save(tmp_path / "masks.npy", array)
    return tmp_path / "masks.npy"


class Negative:
    """Inverts grey values of tumour slices and swaps all labels: easy to follow by hand."""

    def __call__(self, images, labels, rows, generator):
        inverted = torch.where((labels == 1)[:, None, None, None], 1 - images, images)
        return Augmented(inverted, 1 - labels, {"inverted": labels == 1, "row": rows})


def test_none_is_no_augmentation(part, masks):
    assert augmenting(described("none"), part, masks, REGIONS, device=CPU) is None


def test_a_wrong_option_names_the_arm_and_the_key(part, masks):
    with pytest.raises(InputError, match=r"arms\.an_arm\.options\.squares"):
        augmenting(described("supervised", squares=1), part, masks, REGIONS, device=CPU)


@pytest.mark.parametrize("name", ["basic", "supervised", "unsupervised"])
def test_the_classifier_is_trained_on_the_augmented_batch_and_its_labels(part, masks, name):
    augment = augmenting(described(name), part, masks, REGIONS, device=CPU)
    model = classifier("resnet18", 0).eval()
    batch = Slices(part.images, part.frame["label"].to_numpy(), device=CPU).batch(torch.tensor([3, 8, 15, 20]))
    before = batch.images.clone()
    loss, _ = Classification(model, augment).step(batch, torch.Generator().manual_seed(5))
    images, labels, _ = augment.method(batch.images, batch.labels, batch.rows, torch.Generator().manual_seed(5))
    p = torch.sigmoid(model(images)[:, 0])
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    torch.testing.assert_close(loss, expected)
    assert torch.equal(batch.images, before)


def test_masks_and_images_are_those_of_the_asked_rows(part, masks):
    training = augmenting(described("supervised"), part, masks, REGIONS, device=CPU).training
    rows = torch.tensor([5, 0, 7])
    assert torch.equal(training.masks(rows)[:, 0], torch.from_numpy(np.load(masks)[[5, 0, 7]]))
    assert torch.equal(training.images(rows)[:, 0], torch.from_numpy(part.images[[5, 0, 7]]).float())


def test_an_epoch_is_every_slice_once_with_rates_by_the_label_afterwards(part, masks):
    real = augmenting(described("supervised"), part, masks, REGIONS, device=CPU)
    found = epoch_figures(Augmenting(Negative(), {}, real.masks, real.training), seed=0, batch_size=5)
    # 12 tumour slices, the odd rows, end as label 0; the even rows end as label 1.
    assert found == {
        "prevalence": 0.5,
        "prevalence_before": 0.5,
        "relabelled": 1.0,
        "inverted_label_0": 1.0,
        "inverted_label_1": 0.0,
        "row_label_0": 12.0,
        "row_label_1": 11.0,
    }


def test_pictures_are_of_both_labels_and_repeat(part, masks):
    augment = augmenting(described("unsupervised"), part, masks, REGIONS, device=CPU)
    first, second = (operation_pictures(augment, seed=0, count=4) for _ in range(2))
    assert first.keys() == second.keys()
    for name, picture in first.items():
        assert picture.images.shape[0] == 4
        assert torch.equal(picture.images, second[name].images)
