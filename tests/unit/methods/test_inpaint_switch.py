"""The exchange of the kidney regions, against slices of arrays and Pillow's resampling."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.methods.inpaint_switch import Method, switch

ALIKE = {"left": (0.375, 0.75, 0.125, 0.4375), "right": (0.25, 0.625, 0.5625, 0.875)}
UNLIKE = {"left": (0.375, 0.75, 0.125, 0.4375), "right": (0.3125, 0.75, 0.5625, 0.90625)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed))


def method(regions=ALIKE, **options):
    return Method(Setting("resnet18", 64, regions, 0), Method.Parameters(**options))


@st.composite
def two_boxes(draw):
    """Boxes of one size beside each other in 24 x 24 pixels."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    tops = [draw(st.integers(0, 24 - height)) for _ in range(2)]
    lefts = [draw(st.integers(0, 12 - width)), draw(st.integers(12, 24 - width))]
    return [(top, top + height, left, left + width) for top, left in zip(tops, lefts, strict=True)]


@given(boxes=two_boxes(), mirror=st.booleans(), seed=st.integers(0, 2**31))
def test_regions_of_one_size_are_exchanged_pixel_by_pixel_and_back_again(boxes, mirror, seed):
    images = drawn(2, 1, 24, 24, seed=seed)
    expected = images.numpy().copy()
    (a, b, c, d), (e, f, g, h) = boxes
    turn = slice(None, None, -1) if mirror else slice(None)
    expected[..., a:b, c:d] = images.numpy()[..., e:f, g:h][..., turn]
    expected[..., e:f, g:h] = images.numpy()[..., a:b, c:d][..., turn]
    found = switch(images, *boxes, mirror=mirror)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert torch.equal(switch(found, *boxes, mirror=mirror), images)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(
    ("left", "right"),
    [((4, 20, 2, 12), (6, 18, 14, 30)), ((0, 8, 0, 8), (8, 32, 8, 32)), ((0, 32, 0, 15), (30, 31, 20, 21))],
)
def test_regions_of_two_sizes_are_resampled_as_pillow_does(left, right, mirror):
    images = drawn(2, 1, 32, 32)
    found = switch(images, left, right, mirror=mirror).numpy()
    outside = np.ones((32, 32), bool)
    for source, (top, bottom, start, stop) in ((left, right), (right, left)):
        outside[top:bottom, start:stop] = False
        for image in range(2):
            content = images[image, 0].numpy()[source[0] : source[1], source[2] : source[3]]
            fitted = Image.fromarray(content).resize((stop - start, bottom - top), Image.Resampling.BILINEAR)
            expected = np.asarray(fitted)[:, ::-1] if mirror else np.asarray(fitted)
            np.testing.assert_allclose(found[image, 0, top:bottom, start:stop], expected, atol=1e-5)
    np.testing.assert_array_equal(found[:, 0, outside], images.numpy()[:, 0, outside])


@pytest.mark.parametrize("regions", [ALIKE, UNLIKE])
def test_every_image_is_exchanged_and_nothing_outside_the_regions_changes(regions):
    images = drawn(8, 1, 64, 64)
    found, target, hole = method(regions).train().perturb(images, generator())
    expected = np.zeros((64, 64), bool)
    for region in regions.values():
        top, bottom, left, right = (int(edge * 64) for edge in region)
        expected[top:bottom, left:right] = True
    assert (hole[:, 0].numpy() == expected).all()
    assert torch.equal(target, images)
    assert torch.equal(found[~hole], images[~hole])
    assert (found[hole] != images[hole]).float().mean() > 0.99
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_share_of_images_is_exchanged_in_training_and_all_in_evaluation():
    task, images = method(probability=0.3), drawn(400, 1, 64, 64)
    found, _, hole = task.train().perturb(images, generator())
    changed = (found != images).flatten(1).any(1)
    assert torch.equal(changed, hole.flatten(1).any(1))
    assert 0.22 < changed.float().mean() < 0.38
    assert task.eval().perturb(images[:20], generator()).changed.flatten(1).any(1).all()


@pytest.mark.parametrize("mirror", [False, True])
def test_the_inverse_switch_is_judged_beside_the_trivial_restorations(mirror):
    images = drawn(2, 1, 64, 64) ** 2
    with torch.inference_mode():
        alike, unlike = (
            method(regions, mirror=mirror).eval().validate(images, generator()) for regions in (ALIKE, UNLIKE)
        )
    names = {
        f"{figure}_{guess}" for figure in ("mse", "psnr", "ssim", "sharpness") for guess in ("copy", "mean", "inverse")
    }
    for found in (alike, unlike):
        assert names | {"loss", "mse", "psnr", "ssim", "sharpness"} <= found.keys()
    assert alike["mse_inverse"].tolist() == [0, 0]
    assert (unlike["mse_inverse"] > 0.001).all()  # what resampling has lost
    assert (unlike["mse_inverse"] < unlike["mse_copy"]).all()
    assert (alike["mse_copy"] > 0.05).all()


def test_overlapping_regions_are_refused():
    with pytest.raises(InputError, match=r"^the regions 'left' and 'right' overlap"):
        method({"left": (0.25, 0.75, 0.125, 0.5625), "right": (0.5, 0.75, 0.5, 0.875)})


def test_the_thesis_is_the_default_and_wrong_options_are_named():
    expected = {"loss": "dice", "region": "image", "probability": 1.0, "mirror": False}
    assert Method.Parameters().model_dump() == expected
    with pytest.raises(InputError, match=r"^params.yaml: options.probability: .*; options.fill: "):
        read_options(Method, {"probability": 1.5, "fill": "zero"}, "options")


def test_a_single_organ_has_nothing_to_exchange():
    with pytest.raises(
        InputError, match=r"^inpaint_switch exchanges .*\(data\.classes\.paired: false\): leave it out$"
    ):
        method({"organ": (0.25, 0.75, 0.1, 0.7)})
