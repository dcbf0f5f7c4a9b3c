"""Rotation: pixels are moved and come back, the target is the turn that was made, each turn is as frequent."""

import numpy as np
import pytest
import torch
from torch import nn

from kidney_ssl.methods.base import Options, Setting
from kidney_ssl.methods.rotation import Method, rotate

REGIONS = {"left": (0.3, 0.7, 0.1, 0.5), "right": (0.3, 0.7, 0.5, 0.9)}


class Corner(nn.Module):
    """Tells the turn from the corner that is bright: it was the upper left one before."""

    def __init__(self, answer=(0, 1, 2, 3)):
        super().__init__()
        self.answer, self.seen = torch.tensor(answer), []

    def forward(self, images):
        half = images.shape[2] // 2
        # Counter-clockwise: upper left, lower left, lower right, upper right.
        corners = [images[:, 0, :half, :half], images[:, 0, half:, :half], images[:, 0, half:, half:]]
        bright = torch.stack([*(corner.mean((1, 2)) for corner in corners), images[:, 0, :half, half:].mean((1, 2))])
        self.seen.append(bright.argmax(0))
        return 100.0 * nn.functional.one_hot(self.answer[self.seen[-1]], 4)


def method_of(encoder):
    method = Method(Setting("resnet18", 8, REGIONS, 0), Options())
    method.encoder, method.head = encoder, nn.Identity()
    return method


def marked(count):
    images = torch.zeros(count, 1, 8, 8)
    images[:, :, :4, :4] = 1
    return images


def test_a_rotation_turns_counter_clockwise_and_its_inverse_brings_every_pixel_back():
    images = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    turns = torch.tensor([3, 0, 1, 2, 2, 1, 0, 3])
    turned = rotate(images, turns)
    for image, number, found in zip(images, turns, turned, strict=True):
        assert np.array_equal(found[0].numpy(), np.rot90(image[0].numpy(), int(number)))
    assert torch.equal(rotate(turned, (4 - turns) % 4), images)


@pytest.mark.parametrize("name", ["step", "validate"])
def test_the_target_is_the_turn_that_was_made(name):
    generator = torch.Generator().manual_seed(0)
    right, wrong = method_of(Corner()), method_of(Corner((1, 2, 3, 0)))
    if name == "step":
        loss, figures = right.step(marked(64), generator)
        assert (loss.item(), figures["accuracy"].item()) == (0, 1)
        loss, figures = wrong.step(marked(64), generator)
        assert (loss.item(), figures["accuracy"].item()) == (100, 0)
    else:
        figures = right.validate(marked(64), generator)
        assert figures["loss"].tolist() == [0] * 64
        assert figures["accuracy"].tolist() == [1] * 64
        assert figures["accuracy_chance"].tolist() == [0.25] * 64
        assert wrong.validate(marked(64), generator)["accuracy"].tolist() == [0] * 64
    assert set(right.encoder.seen[0].tolist()) == {0, 1, 2, 3}


def test_each_turn_is_as_frequent_and_drawn_for_each_image():
    corner = Corner()
    method_of(corner).step(marked(8000), torch.Generator().manual_seed(0))
    counts = torch.bincount(corner.seen[0], minlength=4)
    assert (counts - 2000).abs().max() < 5 * (8000 * 0.25 * 0.75) ** 0.5


def test_pictures_show_each_slice_in_four_positions():
    images = torch.rand(3, 1, 8, 8)
    picture = method_of(Corner()).pictures(images, torch.Generator())["rotations"]
    assert picture.images.shape == (3, 4, 8, 8)
    assert np.array_equal(picture.images[1, 3].numpy(), np.rot90(images[1, 0].numpy(), 3))
