"""The body mask on drawings and on a real CT; the frame's geometry."""

from pathlib import Path

import numpy as np
import pytest

from kidney_ssl.data.body import AIR_HU, Box, body_box, body_mask, standardise, to_frame

CT = Path(__file__).parents[2].parent / "shared" / "ct"


def drawing() -> np.ndarray:
    """A round body with a gas bubble, 4 mm above a table of 3 mm, at 1 mm."""
    rows, columns = np.mgrid[:120, :140]
    image = np.full((120, 140), AIR_HU, np.int16)
    image[(rows - 50) ** 2 + (columns - 70) ** 2 < 40**2] = 40
    image[(rows - 50) ** 2 + (columns - 80) ** 2 < 8**2] = -900
    image[94:97, 10:130] = 200
    return image


def test_mask_leaves_out_the_table_and_keeps_gas_inside_the_body() -> None:
    image = drawing()
    mask = body_mask(image, (1.0, 1.0), body_hu=-300, opening_mm=6.0)
    rows, columns = np.mgrid[:120, :140]
    disk = (rows - 50) ** 2 + (columns - 70) ** 2 < 40**2
    assert not mask[94:97].any()
    assert mask[50, 80]
    assert (mask & disk).sum() / (mask | disk).sum() > 0.99


def test_a_body_cut_by_the_edge_keeps_its_edge() -> None:
    image = np.full((60, 60), 40, np.int16)
    image[:10] = AIR_HU
    mask = body_mask(image, (1.0, 1.0), body_hu=-300, opening_mm=6.0)
    assert np.array_equal(mask, image > -300)


def test_an_empty_slice_keeps_the_whole_image() -> None:
    air = np.full((20, 30), AIR_HU, np.int16)
    mask = body_mask(air, (1.0, 1.0), body_hu=-300, opening_mm=3.0)
    assert not mask.any()
    assert body_box(mask) == Box(0, 20, 0, 30)


def test_crop_is_padded_to_a_centred_square_without_distortion() -> None:
    array = np.arange(8, dtype=np.int16).reshape(2, 4)
    framed = to_frame(array, Box(0, 2, 0, 4), 4, fill=AIR_HU, labels=False)
    assert np.array_equal(framed[1:3], array)
    assert (framed[[0, 3]] == AIR_HU).all()


def test_linear_resize_averages_and_nearest_invents_no_label() -> None:
    image = np.zeros((8, 8), np.int16)
    image[:, ::2] = 100  # stripes of one pixel: without anti-aliasing they would come out as 0 or 100
    whole = Box(0, 8, 0, 8)
    assert (abs(to_frame(image, whole, 2, fill=0, labels=False) - 50) <= 13).all()
    labels = np.random.default_rng(0).choice([0, 3], (9, 9)).astype(np.uint8)
    assert set(np.unique(to_frame(labels, Box(0, 9, 0, 9), 5, fill=0, labels=True))) <= {0, 3}


def test_image_and_mask_share_one_frame() -> None:
    image = drawing()
    labels = np.zeros(image.shape, np.uint8)
    image[40:60, 40:60], labels[40:60, 40:60] = 400, 2
    framed, mask, box, area = standardise(image, labels, (1.0, 1.0), size=64, body_hu=-300, opening_mm=6.0)
    assert box == Box(11, 90, 31, 110)
    assert area == pytest.approx(np.pi * 40**2, rel=0.01)
    agreement = ((framed > 220) & (mask == 2)).sum() / ((framed > 220) | (mask == 2)).sum()
    assert agreement > 0.9
    assert (framed[mask == 2] > 100).all()


@pytest.mark.skipif(not CT.exists(), reason="../shared/ct is not beside this checkout")
def test_mask_of_a_real_ct_leaves_out_its_table() -> None:
    from kidney_ssl.data.volume import read_volume

    volume = read_volume(CT / "abdomen_pelvis_3mm.nii.gz")
    _, *in_plane = volume.grid.spacing_mm
    corners = np.zeros(volume.array.shape[1:], dtype=bool)
    corners[82:, :12] = corners[82:, -12:] = True  # where only the table's shell is solid, looked up in a picture
    for image in volume.array[:32:4]:
        mask = body_mask(image, tuple(in_plane), body_hu=-300, opening_mm=6.0)
        assert 0.6 < mask.mean() < 0.7
        assert (corners & (image > -300)).sum() > 20
        assert not (corners & mask).any()
