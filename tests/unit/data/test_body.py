"""The body mask on drawings and on a real CT; the frame's geometry."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.data.body import AIR_HU, Frame, body_box, body_mask, standardise, to_frame

FRAME = Frame(size=64, body_hu=-300, opening_mm=6.0)
CT = Path(__file__).parents[3].parent / "shared" / "ct"


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
    mask = body_mask(image, (1.0, 1.0), FRAME)
    rows, columns = np.mgrid[:120, :140]
    disk = (rows - 50) ** 2 + (columns - 70) ** 2 < 40**2
    assert not mask[94:97].any()
    assert mask[50, 80]
    assert (mask & disk).sum() / (mask | disk).sum() > 0.99


def test_a_body_cut_by_the_edge_keeps_its_edge() -> None:
    image = np.full((60, 60), 40, np.int16)
    image[:10] = AIR_HU
    mask = body_mask(image, (1.0, 1.0), FRAME)
    assert np.array_equal(mask, image > -300)


@pytest.mark.parametrize("mm", [0.7, 1.0])
@pytest.mark.parametrize("wall_mm", [5, 8, 11])
def test_a_thin_wall_over_gas_belongs_to_the_body(wall_mm: float, mm: float) -> None:
    rows, columns = (axis * mm for axis in np.mgrid[: round(120 / mm), : round(140 / mm)])
    image = np.full(rows.shape, AIR_HU, np.int16)
    image[body := (rows - 50) ** 2 + (columns - 70) ** 2 < 40**2] = 40
    image[(rows - 40) ** 2 + (columns - 70) ** 2 < (30 - wall_mm) ** 2] = -950
    image[(rows > 94) & (rows < 97)] = 200
    mask = body_mask(image, (mm, mm), FRAME)
    assert (mask & body).sum() / (mask | body).sum() > 0.99


@pytest.mark.parametrize("place", [np.s_[20:45, :15], np.s_[20:45, -15:], np.s_[:12, 20:50], np.s_[-12:, 20:50]])
def test_lung_at_the_edge_of_a_narrow_field_of_view_is_kept(place: tuple[slice, slice]) -> None:
    image = np.full((70, 80), 40, np.int16)
    image[place] = -850
    assert body_mask(image, (1.0, 1.0), FRAME).all()


def test_open_air_between_a_body_and_the_edge_is_no_lung() -> None:
    image = np.full((70, 80), AIR_HU, np.int16)
    image[10:60] = 40
    image[25:45, :15] = AIR_HU
    mask = body_mask(image, (1.0, 1.0), FRAME)
    assert not mask[25:45, :10].any()
    assert not mask[[0, -1]].any()


def test_labels_outside_the_body_are_counted() -> None:
    image = drawing()
    labels = np.zeros(image.shape, np.uint8)
    labels[45:55, 60:70], labels[2:6, 2:7] = 1, 2
    *_, lost = standardise(image, labels, (1.0, 1.0), FRAME)
    assert lost == 20


def test_micrometres_taken_for_millimetres_do_not_hang() -> None:
    body_mask(drawing(), (1e-5, 1e-5), FRAME)


def test_an_empty_slice_keeps_the_whole_image() -> None:
    air = np.full((20, 30), AIR_HU, np.int16)
    mask = body_mask(air, (1.0, 1.0), FRAME)
    assert not mask.any()
    assert body_box(mask) == np.s_[0:20, 0:30]


def test_crop_is_padded_to_a_centred_square_without_distortion() -> None:
    array = np.arange(8, dtype=np.int16).reshape(2, 4)
    framed = to_frame(array, np.s_[0:2, 0:4], 4, fill=AIR_HU, labels=False)
    assert np.array_equal(framed[1:3], array)
    assert (framed[[0, 3]] == AIR_HU).all()


@given(
    row_mm=st.floats(0.5, 8),
    column_mm=st.floats(0.5, 8),
    half=st.tuples(st.floats(60, 180), st.floats(60, 180)),
)
def test_a_body_keeps_its_shape_whatever_its_pixels(row_mm: float, column_mm: float, half: tuple[float, float]) -> None:
    shape = [int(2 * one / mm) + 9 for one, mm in zip(half, (row_mm, column_mm), strict=True)]
    rows, columns = (
        (axis - (length - 1) / 2) * mm
        for axis, length, mm in zip(np.indices(shape), shape, (row_mm, column_mm), strict=True)
    )
    ellipse = (rows / half[0]) ** 2 + (columns / half[1]) ** 2 < 1
    image = np.where(ellipse, 40, AIR_HU).astype(np.int16)
    framed, mask, *_ = standardise(image, ellipse.astype(np.uint8), (row_mm, column_mm), FRAME)
    pixel = 2 * max(half) / FRAME.size  # of the frame, mm
    for seen in (framed > -480, mask == 1):
        for axis in (0, 1):
            extent = seen.any(axis=1 - axis).sum() * pixel
            assert extent == pytest.approx(2 * half[axis], abs=2.5 * (pixel + max(row_mm, column_mm)))


@given(
    shape=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    mm=st.floats(0.05, 20),
    noise=st.floats(-1e-7, 1e-7),
    labels=st.booleans(),
)
def test_square_pixels_make_the_frame_that_needs_no_spacing(shape, mm, noise, labels) -> None:
    array = np.random.default_rng(0).integers(0, 4, shape).astype(np.int16)
    box = np.s_[1 : shape[0], 0 : shape[1] - 1]
    expected = to_frame(array.astype(np.uint8) if labels else array, box, 16, fill=0, labels=labels)
    spacing = (mm, mm * (1 + noise))
    found = to_frame(array.astype(np.uint8) if labels else array, box, 16, fill=0, labels=labels, spacing_mm=spacing)
    assert np.array_equal(found, expected)


def test_linear_resize_averages_and_nearest_invents_no_label() -> None:
    image = np.zeros((8, 8), np.int16)
    image[:, ::2] = 100  # stripes of one pixel: without anti-aliasing they would come out as 0 or 100
    whole = np.s_[0:8, 0:8]
    assert (abs(to_frame(image, whole, 2, fill=0, labels=False) - 50) <= 13).all()
    labels = np.random.default_rng(0).choice([0, 3], (9, 9)).astype(np.uint8)
    assert set(np.unique(to_frame(labels, np.s_[0:9, 0:9], 5, fill=0, labels=True))) <= {0, 3}


def test_image_and_mask_share_one_frame() -> None:
    image = drawing()
    labels = np.zeros(image.shape, np.uint8)
    image[40:60, 40:60], labels[40:60, 40:60] = 400, 2
    framed, mask, box, area, lost = standardise(image, labels, (1.0, 1.0), FRAME)
    assert box == np.s_[11:90, 31:110]
    assert area == pytest.approx(np.pi * 40**2, rel=0.01)
    assert lost == 0
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
        mask = body_mask(image, tuple(in_plane), FRAME)
        assert 0.6 < mask.mean() < 0.7
        assert (corners & (image > -300)).sum() > 20
        assert not (corners & mask).any()


@pytest.mark.skipif(not (CT.parent / "real_ct").exists(), reason="../shared/real_ct is not beside this checkout")
@pytest.mark.parametrize("case", ["case_90007", "case_90043", "case_90011"])
def test_the_body_of_a_real_ct_holds_its_labels_and_not_those_of_another_place(case: str) -> None:
    from kidney_ssl.data.volume import read_volume

    folder = CT.parent / "real_ct" / case
    imaging = read_volume(folder / "imaging.nii.gz")
    labels = read_volume(folder / "segmentation.nii.gz", np.uint8).array
    rows = np.flatnonzero(labels.any(axis=(1, 2)))[::9]
    spacing = imaging.grid.spacing_mm[1:]
    lost = [standardise(imaging.array[row], labels[row], spacing, FRAME)[4] for row in rows]
    assert sum(lost) <= 0.001 * np.count_nonzero(labels[rows])
    moved = np.roll(labels, -labels.shape[1] // 3, axis=1)
    lost = [standardise(imaging.array[row], moved[row], spacing, FRAME)[4] for row in rows]
    assert sum(lost) > 0.01 * np.count_nonzero(labels[rows])
