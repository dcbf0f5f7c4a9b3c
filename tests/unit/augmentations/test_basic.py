"""Each operation against torchvision or its formula."""

import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from kidney_ssl.augmentations.basic import BasicOptions, apply, draw, unchanged
from tests.unit.augmentations.toy_training import generator

COUNT = 6


@pytest.fixture(params=[64, 65])
def images(request):
    coarse = torch.rand(COUNT, 1, 9, 9, generator=generator())
    return torch.nn.functional.interpolate(coarse, (request.param, request.param), mode="bicubic").clamp(0, 1)


@pytest.fixture
def plain():
    return unchanged(COUNT, torch.device("cpu"))


def test_nothing_drawn_leaves_an_image_as_it_is(images, plain):
    assert torch.allclose(apply(images, plain), images, atol=1e-5)


def test_rotations_are_torchvisions_with_air_outside(images, plain):
    degrees = [-180.0, -90.0, -15.0, 3.0, 15.0, 90.0]
    found = apply(images, plain._replace(angle=torch.tensor(degrees).deg2rad()))
    for image, turned, angle in zip(images, found, degrees, strict=True):
        assert torch.allclose(turned, rotate(image, angle, InterpolationMode.BILINEAR, fill=None), atol=1e-4)
    assert (found[2, 0, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()


def test_flips_reverse_columns_and_rows(images, plain):
    mirrored, turned = torch.arange(COUNT) % 2 == 0, torch.arange(COUNT) % 3 == 0
    found = apply(images, plain._replace(mirrored=mirrored, upside_down=turned))
    for image, made, across, down in zip(images, found, mirrored, turned, strict=True):
        axes = [axis for axis, flipped in ((2, across), (1, down)) if flipped]
        assert torch.allclose(made, image.flip(axes), atol=1e-5)


def test_a_crop_is_resized_back_by_linear_interpolation(plain):
    y, x = torch.meshgrid(*[(torch.arange(64) + 0.5) / 64] * 2, indexing="ij")
    ramps = (0.2 + 0.3 * x + 0.4 * y).expand(COUNT, 1, 64, 64)
    side, across, down = torch.tensor([0.5, 0.8, 0.9, 0.7, 0.6, 1.0]), torch.full((COUNT,), 0.0), torch.zeros(COUNT)
    across[0], down[0], down[1] = 0.5, -0.5, 0.2
    found = apply(ramps, plain._replace(side=side, across=across, down=down))
    for made, s, cx, cy in zip(found, side, across, down, strict=True):
        u, v = 0.5 + 0.5 * cx + s * (x - 0.5), 0.5 + 0.5 * cy + s * (y - 0.5)
        expected = 0.2 + 0.3 * u + 0.4 * v
        within = slice(2, -2)  # at the frame's edge there is no pixel on one side
        assert torch.allclose(made[0, within, within], expected[within, within], atol=1e-4)


def test_intensity_is_contrast_about_the_mean_then_brightness(images, plain):
    contrast, brightness = torch.linspace(0.8, 1.2, COUNT), torch.linspace(1.1, 0.7, COUNT)
    found = apply(images, plain._replace(contrast=contrast, brightness=brightness))
    for image, made, c, b in zip(images, found, contrast, brightness, strict=True):
        expected = (b * (image.mean() + c * (image - image.mean()))).clamp(0, 1)
        assert torch.allclose(made, expected, atol=1e-4)


def test_operations_go_together_as_rotation_then_crop_then_flip(images, plain):
    angle, side, half = torch.full((COUNT,), math.pi / 2), torch.full((COUNT,), 0.5), torch.full((COUNT,), 0.5)
    ones = torch.ones(COUNT, dtype=torch.bool)
    whole = apply(images, plain._replace(angle=angle, side=side, across=half, down=half, mirrored=ones))
    steps = apply(images, plain._replace(angle=angle))
    steps = apply(steps, plain._replace(side=side, across=half, down=half))
    steps = apply(steps, plain._replace(mirrored=ones))
    # Beside the frame's edge, where a crop that is sampled by itself sees no pixel on one side.
    assert torch.allclose(whole[..., 2:-2, 2:-2], steps[..., 2:-2, 2:-2], atol=1e-4)


def test_draws_fill_the_ranges_of_the_options():
    options = BasicOptions(degrees=20, min_scale=0.6, brightness=0.3, contrast=0.2)
    drawn = draw(20_000, options, generator())
    for values, low, high in (
        (drawn.angle.rad2deg(), -20, 20),
        (drawn.side.square(), 0.6, 1),
        (drawn.brightness, 0.7, 1.3),
        (drawn.contrast, 0.8, 1.2),
    ):
        assert low - 1e-5 <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high + 1e-5
        assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * 20_000)
    for place in (drawn.across, drawn.down):
        assert (place.abs() <= 1 - drawn.side + 1e-6).all()  # the crop lies in the frame
        assert abs((place > 0).float().mean() - 0.5) < 0.015
    for flipped in (drawn.mirrored, drawn.upside_down):
        assert abs(flipped.float().mean() - 0.5) < 0.015


@pytest.mark.parametrize(("flips", "seen"), [("none", (False, False)), ("left_right", (True, False))])
def test_flips_can_be_left_out(flips, seen):
    drawn = draw(100, BasicOptions(flips=flips), generator())
    assert (bool(drawn.mirrored.any()), bool(drawn.upside_down.any())) == seen
    assert draw(100, BasicOptions(flips="up_down"), generator()).mirrored.any().item() is False
