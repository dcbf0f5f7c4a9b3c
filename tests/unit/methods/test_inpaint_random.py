"""The removed square: its size, its place, what it holds."""

import numpy as np
import pytest
import torch

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.methods.inpaint_random import Method

SIDES = {64: 13, 96: 19, 512: 102}  # 20 % of the side, to the nearest pixel


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def built():
    """A method of given options; the network serves for all, since it is not asked here."""
    method = Method(Setting("resnet18", 64, {}, 0), Method.Parameters())

    def build(**options):
        method.options = Method.Parameters(**options)
        return method

    return build


@pytest.mark.parametrize(("size", "side"), SIDES.items())
def test_each_image_has_one_black_square_of_a_fifth_of_its_side(built, size, side):
    images = torch.rand(16, 1, size, size, generator=generator()).clamp_min(0.01)
    found, target, hole = built().perturb(images, generator(1))
    assert torch.equal(target, images)
    assert torch.equal(found == 0, hole)
    assert torch.equal(found[~hole], images[~hole])
    for marked in hole[:, 0].numpy():
        rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
        assert len(rows) == rows[-1] - rows[0] + 1 == side
        assert len(columns) == columns[-1] - columns[0] + 1 == side
        assert marked.sum() == side**2
    assert len({tuple(marked.flatten().tolist()) for marked in hole[:, 0]}) > 12  # a place of its own for each image


def test_every_place_is_drawn_and_alike_often():
    places = torch.stack(Method.places(None, 40_000, 4, 12, generator()), 1)
    found, counts = places.unique(dim=0, return_counts=True)
    assert len(found) == 9 * 9
    assert found.min() == 0
    assert found.max() == 8
    expected = 40_000 / 81
    assert ((counts - expected) ** 2 / expected).sum() < 125  # chi-square of 80 degrees: 0.1 % are beyond


@pytest.mark.parametrize("content", ["mean", "noise"])
def test_the_hole_may_hold_the_mean_or_noise_and_nothing_else_changes(built, content):
    images = torch.rand(4, 1, 64, 64, generator=generator()) ** 3
    black, filled = (built(fill=kind).perturb(images, generator(1)) for kind in ("zero", content))
    assert torch.equal(black.changed, filled.changed)
    assert torch.equal(filled.images[~filled.changed], images[~filled.changed])
    for image in range(4):
        inside = filled.images[image][filled.changed[image]]
        if content == "mean":
            assert inside.tolist() == pytest.approx([images[image][~filled.changed[image]].mean().item()] * 13**2)
        else:
            assert inside.std().item() == pytest.approx(12**-0.5, rel=0.15)  # of a uniform draw from [0, 1]


def test_the_thesis_is_the_default_and_wrong_options_are_named():
    assert Method.Parameters().model_dump() == {"loss": "dice", "region": "image", "fill": "zero"}
    with pytest.raises(InputError, match=r"^params.yaml: options.loss: .*; options.fill: .*; options.holes: "):
        read_options(Method, {"loss": "mae", "fill": "black", "holes": 2}, "options")
