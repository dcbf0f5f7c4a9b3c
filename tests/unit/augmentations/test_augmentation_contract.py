"""What every augmentation must hold, over the registry: a new file in the folder is tested here by being there."""

import inspect
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import kidney_ssl.augmentations
from kidney_ssl.augmentations import AUGMENTATIONS, SHARED, load
from kidney_ssl.augmentations.base import Augmentation
from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Options, read_options
from tests.random_state import global_random_state
from tests.unit.augmentations.toy_training import Toy, generator

FOLDER = Path(kidney_ssl.augmentations.__file__).parent
SIDES = (64, 96)
OPERATIONS = {
    "basic": {"rotation", "flips", "crop", "intensity"},
    "none": set(),
    "supervised": {"removed", "covered", "pasted", "sham"},
    "unsupervised": {"protected", "rectangles"},
}
each = pytest.mark.parametrize("name", AUGMENTATIONS)
sizes = pytest.mark.parametrize("side", SIDES)


@cache
def toy(side=64):
    return Toy(size=side, cases=4, positives=6, negatives=6)


@cache
def built(name, side=64):
    return load(name)(toy(side).training(), load(name).Parameters())


def test_the_registry_is_the_folder():
    assert set(AUGMENTATIONS) | set(SHARED) == {path.stem for path in FOLDER.glob("*.py")}
    assert AUGMENTATIONS == ("basic", "none", "supervised", "unsupervised")


@each
def test_a_file_holds_one_augmentation_with_options_of_its_own(name):
    augmentation = load(name)
    assert augmentation.__module__ == f"kidney_ssl.augmentations.{name}"
    assert issubclass(augmentation, Augmentation)
    assert not inspect.isabstract(augmentation)
    assert issubclass(augmentation.Parameters, Options)


def test_an_unknown_one_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=f"unknown augmentation 'mixup', known: {', '.join(AUGMENTATIONS)}"):
        load("mixup")


@each
def test_options_have_defaults_and_an_unknown_one_is_refused_in_one_line(name):
    augmentation = load(name)
    assert read_options(augmentation, {}, "arms.one.options") == augmentation.Parameters()
    assert read_options(augmentation, augmentation.Parameters().model_dump(), "x") == augmentation.Parameters()
    with pytest.raises(InputError, match=r"^params.yaml: arms.one.options.no_such_option: ") as caught:
        read_options(augmentation, {"no_such_option": 1}, "arms.one.options")
    assert "\n" not in str(caught.value)


@each
@sizes
@pytest.mark.parametrize("count", [1, 48])
def test_a_batch_keeps_its_shape_type_and_range_and_is_not_changed_in_place(name, side, count):
    given = toy(side).batch(np.arange(48)[:count])
    before = [tensor.clone() for tensor in given]
    images, labels, marks = built(name, side)(*given, generator())
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, before, strict=True))
    assert (images.shape, images.dtype) == ((count, 1, side, side), torch.float32)
    assert 0 <= images.min() <= images.max() <= 1
    assert (labels.shape, labels.dtype) == ((count,), torch.float32)
    assert set(labels.tolist()) <= {0.0, 1.0}
    assert all(mark.shape == (count,) for mark in marks.values())


@each
@sizes
def test_the_generator_decides_all_bits_and_nothing_global_is_drawn(name, side):
    given, before = toy(side).batch(np.arange(48)), global_random_state()
    first, same, other = (built(name, side)(*given, generator(seed)) for seed in (1, 1, 2))
    assert global_random_state() == before
    assert torch.equal(first.images, same.images)
    assert torch.equal(first.labels, same.labels)
    assert all(torch.equal(first.marks[key], same.marks[key]) for key in first.marks)
    assert torch.equal(first.images, other.images) == (name == "none")


@each
def test_images_of_a_batch_are_augmented_each_in_its_own_way(name):
    images, labels, rows = toy().batch(np.full(24, 1))
    found = built(name)(images, labels, rows, generator()).images
    assert (len(found.unique(dim=0)) > 8) == (name != "none")


@each
@sizes
def test_pictures_show_each_operation_by_itself_and_the_whole(name, side):
    given = toy(side).batch([0, 1, 2, 3, 6, 7, 8, 9])
    pictures, same = (built(name, side).pictures(*given, generator(3)) for _ in range(2))
    assert set(pictures) == OPERATIONS[name] | {"whole"}
    for title, picture in pictures.items():
        assert picture.images.shape == (8, len(picture.columns), side, side), title
        assert 0 <= picture.images.min() < picture.images.max() <= 1, title
        assert torch.equal(picture.images[:, :1], given[0]), title
        assert torch.equal(picture.images, same[title].images), title
        if name != "none":
            assert not torch.equal(picture.images[:, :1], picture.images[:, -1:]), title
