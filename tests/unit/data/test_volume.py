"""Reading NIfTI against nibabel: types, orders, scalings, faults; real label volumes and a real CT."""

import gzip
import io
import itertools
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kidney_ssl.data.checks import judge, pair_findings
from kidney_ssl.data.volume import check_pair, label_areas, label_table, read_grid, read_volume
from kidney_ssl.errors import InputError

SHARED = Path(__file__).parents[3].parent / "shared"
LABELS = SHARED / "kits23" / "labels"
CT = SHARED / "ct"
ORDERS = ["".join(codes) for axes in itertools.permutations(("RL", "AP", "SI")) for codes in itertools.product(*axes)]
DTYPES = ["uint8", "int16", "uint16", "int32", "float32", "float64"]
KITS = "IPL"


def affine_of(order: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0), origin: tuple[float, ...] = (0, 0, 0)):
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[:3, 3] = origin
    for axis, (code, mm) in enumerate(zip(order, spacing, strict=True)):
        affine["RL AP SI".index(code) // 3, axis] = mm if code in "RAS" else -mm
    return affine


def nifti(
    array: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    scaling: tuple[float, float] = (1, 0),
    version: type = nib.Nifti1Header,
    endianness: str = "<",
    change: Callable[[nib.Nifti1Header], None] | None = None,
) -> bytes:
    """A file of stored values: nibabel's header, then the voxels, first axis fastest."""
    header = version(endianness=endianness)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    affine = affine_of(KITS) if affine is None else affine
    header.set_sform(affine, code=1)
    header["pixdim"][1:4] = np.hypot.reduce(affine[:3, :3], axis=0)
    header.set_slope_inter(*scaling)
    if change:
        change(header)
    stream = io.BytesIO()
    header.write_to(stream)
    return stream.getvalue() + array.astype(array.dtype.newbyteorder(endianness)).tobytes(order="F")


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.name.endswith(".gz") else content)
    return path


def ball(dtype: str = "int16", shape: tuple[int, ...] = (6, 5, 4)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, shape).astype(dtype)


def refused(path: Path, match: str, *read: Callable[[Path], object]) -> None:
    for function in read or (read_volume, label_areas):
        with pytest.raises(InputError, match=match) as caught:
            function(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def read_labels(path: Path) -> object:
    return read_volume(path, np.uint8)


def outcome(path: Path, dtype: type = np.int16) -> np.ndarray | str:
    try:
        return read_volume(path, dtype).array
    except InputError as error:
        return str(error)


def by_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and the world position of each voxel's corner (slices, H, W, 3), by way of nibabel's RAS order."""
    image = nib.as_closest_canonical(nib.load(path, mmap=False))
    index = np.moveaxis(np.indices(image.shape), 0, -1)
    world = index @ image.affine[:3, :3].T + image.affine[:3, 3]
    return tuple(np.flip(a, (0, 1, 2)).swapaxes(0, 2) for a in (image.get_fdata(caching="unchanged"), world))


@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=8, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    scaling=st.sampled_from([(1, 0), (1, 0), (1, -1024), (0.5, 0), (2, -1000.25), (-1, 30), (0.3, 0.7)]),
    spacing=st.tuples(*[st.sampled_from([0.5, 0.78125, 1.0, 5.0])] * 3),
    version=st.sampled_from([nib.Nifti1Header, nib.Nifti2Header]),
    endianness=st.sampled_from("<>"),
    ending=st.sampled_from([".nii", ".nii.gz"]),
    seed=st.integers(0, 99),
)
def test_a_volume_is_nibabels_in_kits_order(
    *, order, dtype, shape, scaling, spacing, version, endianness, ending, seed, tmp_path_factory
) -> None:
    generator = np.random.default_rng(seed)
    stored = generator.integers(0, 256, shape)
    if dtype != "uint8":
        stored = stored * 17 - (1500 if dtype != "uint16" else 0)
    if dtype.startswith("float"):
        stored = stored + generator.choice([0, 0.5, 0.25, 0.9], shape)
    affine = affine_of(order, spacing, (10.0, -20.0, 400.0))
    content = nifti(stored.astype(dtype), affine, scaling=scaling, version=version, endianness=endianness)
    path = save(tmp_path_factory.getbasetemp() / f"volume{ending}", content)
    values, world = by_nibabel(path)

    volume = read_volume(path)
    assert volume.array.dtype == np.int16
    assert volume.array.flags.c_contiguous
    assert np.array_equal(volume.array, np.rint(values))
    grid = volume.grid
    assert grid.shape == volume.array.shape == values.shape
    assert grid.spacing_mm == pytest.approx(
        [spacing[order.index(set(order).intersection(pair).pop())] for pair in ("SI", "AP", "RL")]
    )
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    assert index @ grid.affine[:3, :3].T + grid.affine[:3, 3] == pytest.approx(world, abs=1e-4)
    assert nib.aff2axcodes(grid.affine) == tuple(KITS)
    assert np.array_equal(read_grid(path).affine, grid.affine)


def check_areas(path: Path, order: str, shape: tuple[int, ...], dtype: str = "uint8", **changes: object) -> None:
    """Compare the areas of a volume of random labels with a loop over nibabel's slices."""
    options = {"share": 0.5, "seed": 0, "scaling": (1, 0), "endianness": "<"} | changes
    generator = np.random.default_rng(options.pop("seed"))
    slope, intercept = options["scaling"]
    choices = [label for label in range(4) if (label - intercept) / slope % 1 == 0]
    labels = np.where(generator.random(shape) < options.pop("share"), generator.choice(choices, shape), choices[0])
    save(path, nifti(((labels - intercept) / slope).astype(dtype), affine_of(order), **options))
    values, _ = by_nibabel(path)

    areas, grid = label_areas(path)
    assert areas.dtype == np.int64
    assert areas.tolist() == [[int((plane == label).sum()) for label in range(4)] for plane in values]
    assert grid.shape == values.shape
    volume = read_volume(path, np.uint8)
    assert volume.array.dtype == np.uint8
    assert np.array_equal(volume.array, values)


@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=8, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(7, 20), st.integers(1, 11), st.integers(1, 11)),
    share=st.sampled_from([0, 0.05, 0.5, 1]),
    scaling=st.sampled_from([(1, 0), (1, 0), (0.5, 0), (2, -1)]),
    endianness=st.sampled_from("<>"),
    seed=st.integers(0, 99),
)
def test_label_areas_are_a_loop_over_nibabels_slices(order, shape, dtype, tmp_path_factory, **changes) -> None:
    check_areas(tmp_path_factory.getbasetemp() / "labels.nii", order, shape, dtype, **changes)


@pytest.mark.parametrize("order", ["IPL", "LPS", "AIR"])
def test_label_areas_of_a_volume_whose_rows_are_short(order: str, tmp_path: Path) -> None:
    for length in range(1, 7):
        for seed in range(10):
            check_areas(tmp_path / "labels.nii", order, (length, 9, 5), share=0.1, seed=seed)


@pytest.mark.parametrize("order", ["IPL", "LPS", "AIR"])
@pytest.mark.parametrize("label", [1, 3])
def test_label_areas_of_a_volume_that_is_one_label(label: int, order: str, tmp_path: Path) -> None:
    shape = (9, 600, 13)
    path = save(tmp_path / "labels.nii", nifti(np.full(shape, label, np.uint8), affine_of(order)))
    areas, grid = label_areas(path)
    expected = np.zeros((grid.shape[0], 4), int)
    expected[:, label] = np.prod(shape) // grid.shape[0]
    assert np.array_equal(areas, expected)


@pytest.mark.parametrize("order", ["IPL", "LPS", "AIR"])
@pytest.mark.parametrize(
    ("dtype", "shape"), [("float64", (37, 150, 131)), ("float64", (401, 403, 5)), ("uint8", (90, 211, 203))]
)
def test_volumes_of_several_chunks(dtype: str, shape: tuple[int, ...], order: str, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(-40, 4, shape).clip(0).astype(dtype)
    path = save(tmp_path / "labels.nii.gz", nifti(labels, affine_of(order)))
    values, _ = by_nibabel(path)
    assert np.array_equal(read_volume(path).array, values)
    assert np.array_equal(read_volume(path, np.uint8).array, values)
    expected = [np.bincount(plane.astype(int).ravel(), minlength=4) for plane in values]
    assert np.array_equal(label_areas(path)[0], expected)


def test_a_single_time_frame_and_a_header_extension_are_read_over(tmp_path: Path) -> None:
    array = ball()
    image = nib.Nifti1Image(array[..., None], affine_of("LPS"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment of some length" * 9))
    nib.save(image, tmp_path / "one.nii.gz")
    expected, _ = by_nibabel(save(tmp_path / "two.nii", nifti(array, affine_of("LPS"))))
    assert np.array_equal(read_volume(tmp_path / "one.nii.gz").array, expected)


def test_a_volume_with_a_qform_alone_lies_where_nibabel_says(tmp_path: Path) -> None:
    affine = affine_of("LAS", (0.7, 0.7, 3.0), (5.0, -6.0, 7.0))

    def quaternion(header: nib.Nifti1Header) -> None:
        header.set_sform(None, code=0)
        header.set_qform(affine, code=1)

    path = save(tmp_path / "volume.nii", nifti(ball(), affine, change=quaternion))
    values, world = by_nibabel(path)
    volume = read_volume(path)
    assert np.array_equal(volume.array, values)
    assert volume.grid.affine[:3, 3] == pytest.approx(world[0, 0, 0], abs=1e-4)


@pytest.mark.parametrize("degrees", [0.5, 12, 29])
@pytest.mark.parametrize("order", ["IPL", "RAS"])
def test_a_tilted_gantry_is_read_as_axial_and_noted(order: str, degrees: float, tmp_path: Path) -> None:
    path = save(tmp_path / "volume.nii", nifti(ball(), tilted(degrees) @ affine_of(order, (2.0, 3.0, 4.0))))
    said = judge(read_grid(path).findings)
    assert (said == ()) if degrees < 1 else (f"{degrees:.1f} degrees" in said[0])
    values, world = by_nibabel(path)
    volume = read_volume(path)
    assert np.array_equal(volume.array, values)
    assert volume.grid.affine[:3, 3] == pytest.approx(world[0, 0, 0], abs=1e-4)


@pytest.mark.parametrize(("code", "unit", "mm"), [(1, "metres", 1e3), (2, "mm", 1), (3, "microns", 1e-3), (0, "", 1)])
def test_the_headers_unit_is_converted(code: int, unit: str, mm: float, tmp_path: Path) -> None:
    affine = affine_of("IPL", (5.0, 0.8, 0.8), (7.0, 8.0, 9.0))
    plain = read_grid(save(tmp_path / "plain.nii", nifti(ball(), affine)))
    scaled = affine @ np.diag([1 / mm, 1 / mm, 1 / mm, 1])
    scaled[:3, 3] = affine[:3, 3] / mm

    def unit_of(header: nib.Nifti1Header) -> None:
        header["xyzt_units"] = code + 8  # seconds

    grid = read_grid(save(tmp_path / "other.nii", nifti(ball(), scaled, change=unit_of)))
    assert grid.spacing_mm == pytest.approx(plain.spacing_mm)
    assert grid.affine == pytest.approx(plain.affine, rel=1e-6)
    assert judge(grid.findings) == ((f"header in {unit}: converted to mm",) if mm != 1 else ())


@pytest.mark.parametrize(
    "spacing", [(5, 0.8, 800), (5, 0.00078, 0.00078), (0.001, 0.8, 0.8), (5, 21, 21), (5000, 1, 1)]
)
def test_spacing_of_no_ct_is_refused_unless_it_is_accepted(spacing: tuple[float, ...], tmp_path: Path) -> None:
    grid = read_grid(save(tmp_path / "imaging.nii", nifti(ball(), affine_of("IPL", spacing))))
    with pytest.raises(InputError, match=r"spacing .* mm .*data\.accept: \[spacing\]"):
        judge(grid.findings)
    assert judge(grid.findings, ["spacing"])[0].endswith("(accepted)")


@pytest.mark.parametrize("shape", [(700, 5, 4), (6, 1300, 4), (6, 5, 1300)])
def test_a_volume_longer_or_wider_than_any_body_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.zeros(shape, np.uint8)
    path = save(tmp_path / "segmentation.nii.gz", nifti(array, affine_of(KITS, (5.0, 0.8, 0.8))))
    with pytest.raises(InputError, match=r"mm along the body and across is no CT's .*data\.accept: \[spacing\]"):
        judge(read_grid(path).findings)


def test_a_header_that_contradicts_itself_is_noted_and_its_sform_taken(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    affine = affine_of(KITS, (5.0, 0.8, 0.8))

    def other_axes(header: nib.Nifti1Header) -> None:
        header.set_qform(affine_of("LPS", (5.0, 0.8, 0.8)), code=1)

    def other_spacing(header: nib.Nifti1Header) -> None:
        header["pixdim"][1:4] = -9  # which nibabel mends, and says so where it is let

    def broken_qform(header: nib.Nifti1Header) -> None:
        header["qform_code"] = 1
        header["quatern_b"] = np.nan

    def long_qform(header: nib.Nifti1Header) -> None:
        header["qform_code"] = 1
        header["quatern_b"], header["quatern_c"] = 1, 1e-3

    words = {other_axes: "LPS by its qform", other_spacing: "9 x 9 x 9 by pixdim", broken_qform: ""}
    for change, word in (words | {long_qform: "its qform is damaged; the sform was taken"}).items():
        grid = read_grid(save(tmp_path / "volume.nii", nifti(ball(), affine, change=change)))
        assert grid.spacing_mm == pytest.approx((5.0, 0.8, 0.8))
        (said,) = judge(grid.findings)
        assert word in said
    assert capfd.readouterr() == ("", "")


def test_an_identity_affine_is_noted_with_the_axis_that_was_taken(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(ball(), np.eye(4)), tmp_path / "imaging.nii.gz")
    (said,) = judge(read_grid(tmp_path / "imaging.nii.gz").findings)
    assert "orientation is not stored" in said
    assert "last axis, which has 4" in said


@given(
    per_voxel=st.floats(-0.009, 0.009),
    axis=st.integers(0, 2),
    length=st.integers(2, 900),
)
def test_a_grid_difference_counts_over_the_whole_volume(per_voxel: float, axis: int, length: int) -> None:
    affine = affine_of("IPL", (5.0, 0.8, 0.8), (7.0, 8.0, 9.0))
    shape = tuple(length if one == axis else 3 for one in range(3))
    other = affine.copy()
    other[:3, axis] *= 1 + per_voxel / np.linalg.norm(affine[:3, axis])
    apart = abs(per_voxel) * (length - 1) / (5.0, 0.8, 0.8)[axis]
    assert bool(pair_findings(affine, other, shape)) == (apart > 0.5)


def tilted(degrees: float) -> np.ndarray:
    turn = np.eye(4)
    angle = np.deg2rad(degrees)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


@pytest.mark.parametrize(
    ("values", "notes"),
    [([-1100, 3100], ()), ([-2048, 40], ("HU from -2048 to 40",)), ([-1000, 9500], ("HU from -1000 to 9500",))],
)
@pytest.mark.parametrize("dtype", ["int16", "float64"])
def test_unusual_hu_are_noted_and_kept(values: list[int], notes: tuple[str, ...], dtype: str, tmp_path: Path) -> None:
    array = np.zeros((4, 3, 2), dtype)
    array[1, 1] = values
    volume = read_volume(save(tmp_path / "imaging.nii.gz", nifti(array)))
    assert volume.notes == notes
    assert volume.array[1, 1].tolist() == values


def test_the_whole_range_of_int16_is_read(tmp_path: Path) -> None:
    array = np.array([[[-32768.4, -32768, 32767, 32767.4]]])
    assert read_volume(save(tmp_path / "i.nii", nifti(array))).array.ravel().tolist() == [-32768, -32768, 32767, 32767]


def test_hu_that_round_to_more_than_int16_holds_are_refused(tmp_path: Path) -> None:
    refused(save(tmp_path / "imaging.nii", nifti(np.full((1, 1, 1), 32767.5))), "no HU of int16", read_volume)


@pytest.mark.parametrize("value", [-32769, 32768, 70000])
def test_hu_outside_int16_are_refused(value: float, tmp_path: Path) -> None:
    array = np.zeros((4, 3, 2))
    array[2, 1, 1] = value
    match = rf"values from {min(value, 0):g} to {max(value, 0):g} are no HU of int16; correct the volume"
    refused(save(tmp_path / "imaging.nii.gz", nifti(array)), match, read_volume)
    refused(save(tmp_path / "imaging.nii", nifti(array.astype(np.int32))), match, read_volume)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_not_finite_are_refused(value: float, dtype: str, tmp_path: Path) -> None:
    array = ball(dtype)
    array[5, 0, 3] = value
    refused(save(tmp_path / "volume.nii.gz", nifti(array)), "not finite", read_volume, read_labels, label_areas)


@pytest.mark.parametrize(
    ("value", "dtype", "what"),
    [
        (4, "uint8", "4"),
        (255, "uint8", "255"),
        (4, "int16", "4"),
        (-1, "int16", "-1"),
        (-1, "float64", "-1"),
        (4, "float32", "4"),
        (1.5, "float64", "whole numbers"),
        (0.001, "float32", "whole numbers"),
    ],
)
def test_labels_other_than_0_to_3_are_refused(value: float, dtype: str, what: str, tmp_path: Path) -> None:
    array = ball(dtype, (7, 5, 3))
    array[6, 4, 2] = value  # the last voxel of the file
    refused(save(tmp_path / "segmentation.nii.gz", nifti(array)), f"{what}.*correct the", read_labels, label_areas)


def changed(array: np.ndarray | None = None, affine: np.ndarray | None = None, **fields: object) -> bytes:
    """A file with fields of its header set to whatever is wished."""
    content = nifti(ball() if array is None else array, affine)
    header = np.frombuffer(content[:348], nib.nifti1.header_dtype).copy()
    for name, value in fields.items():
        header[name] = value
    return header.tobytes() + content[348:]


BAD_HEADERS = {
    "4D": (changed(ball(shape=(6, 5, 4, 2))), r"4 dimensions \(6, 5, 4, 2\)"),
    "5D": (changed(ball(shape=(6, 5, 4, 1, 3))), r"4 dimensions \(6, 5, 4, 3\)"),
    "2D": (changed(ball(shape=(6, 5))), r"2 dimensions \(6, 5\)"),
    "zero slices": (changed(ball(shape=(0, 5, 4))), r"no voxels, its shape is \(0, 5, 4\)"),
    "negative length": (changed(dim=[3, 6, -5, 4, 1, 1, 1, 1]), "no voxels"),
    "too many dimensions": (changed(dim=[9, 6, 5, 4, 1, 1, 1, 1]), "damaged NIfTI header"),
    "far more voxels": (changed(dim=[3, *[30000] * 3, 1, 1, 1, 1]), "too short for the 54000000000000 bytes"),
    "complex": (changed(ball("complex64")), "voxels of type complex64; convert it"),
    "oblique": (changed(affine=tilted(31) @ affine_of(KITS)), r"oblique affine \(31\.0 degrees"),
    "oblique by half a turn": (changed(affine=tilted(45) @ affine_of(KITS)), r"oblique affine \(45\.0 degrees"),
    "sheared": (changed(affine=affine_of(KITS) + 0.8 * np.eye(4, k=1)), "oblique affine"),
    "no spacing": (changed(affine=affine_of(KITS, (1, 0, 1))), "affine is singular"),
    "two axes alike": (changed(affine=affine_of("IIL")), "affine is singular"),
    "affine with NaN": (changed(srow_x=np.nan), "affine is singular or not finite"),
    "a quaternion longer than 1, alone": (
        changed(sform_code=0, qform_code=1, quatern_b=1, quatern_c=1e-3),
        "damaged NIfTI header",
    ),
    "no codes": (changed(sform_code=0, qform_code=0), "no orientation"),
    "unknown type": (changed(datatype=999), "damaged NIfTI header"),
    "voxels inside the header": (changed(vox_offset=16), "damaged NIfTI header"),
    "voxels nowhere": (changed(vox_offset=np.nan), "damaged NIfTI header"),
    "voxels far away": (changed(vox_offset=3e38), "too short.* from byte 3"),
    "voxels past the end": (changed(vox_offset=8e9), "too short.* from byte 8000000000"),
    "infinite intercept": (changed(scl_slope=1, scl_inter=np.inf), "damaged NIfTI header"),
    "header of a pair": (changed(magic=b"ni1"), "not a NIfTI file of one piece"),
}


@pytest.mark.parametrize("name", BAD_HEADERS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_of_no_axial_volume_is_refused_and_takes_no_memory(name: str, ending: str, tmp_path: Path) -> None:
    content, match = BAD_HEADERS[name]
    path = save(tmp_path / f"imaging{ending}", content)
    tracemalloc.start()
    try:
        refused(path, match, read_grid, read_volume, label_areas)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("field", [{"dim": [3, 6, 5, 5, 1, 1, 1, 1]}, {"vox_offset": 368}, {"vox_offset": 9000}])
def test_a_header_that_declares_a_little_more_than_the_file_holds_is_refused(field: dict, tmp_path: Path) -> None:
    content = changed(**field)
    refused(save(tmp_path / "imaging.nii.gz", content), "ends before its last voxel")
    refused(save(tmp_path / "imaging.nii", content), "ends before its last voxel|too short")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_bytes_after_the_last_voxel_are_refused(ending: str, tmp_path: Path) -> None:
    refused(save(tmp_path / f"imaging{ending}", nifti(ball()) + b"\0"), "longer than its header declares")


def test_bytes_after_the_gzip_stream_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "imaging.nii.gz", nifti(ball()))
    path.write_bytes(path.read_bytes() + b"<html>")
    refused(path, "fetch it again")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_cut_anywhere_is_refused(ending: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"segmentation{ending}", nifti(ball()))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, "fetch it again|damaged NIfTI header")


def test_a_large_gzip_file_cut_between_chunks_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "segmentation.nii.gz", nifti(ball("float64", (64, 64, 64))))
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, "truncated gzip file; fetch it again")


def test_a_changed_byte_in_a_gzip_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "segmentation.nii.gz", nifti(ball()))
    whole = path.read_bytes()
    array = read_volume(path).array
    refusals = 0
    for place in range(10, len(whole)):  # the first ten are the time stamp and the like
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x14]) + whole[place + 1 :])
        read = outcome(path)
        if isinstance(read, str):
            refusals += 1
        else:
            assert np.array_equal(read, array)  # bits that fill up the last byte of a stream
    assert refusals > 0.9 * len(whole)


def test_a_wrong_checksum_at_the_end_of_a_gzip_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "segmentation.nii.gz", nifti(ball()))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    refused(path, "not a whole gzip file.*fetch it again")


def test_numbers_that_overflow_or_signal_are_refused_without_a_warning_as_well(tmp_path: Path) -> None:
    signalling = np.array([0x7F800001], np.uint32).view(np.float32)
    row = np.concatenate([np.zeros(3, np.float32), signalling])
    refused(save(tmp_path / "signalling.nii", changed(srow_x=row)), "singular or not finite")
    far = nifti(ball(), affine_of(KITS, (1e200, 1, 1)), version=nib.Nifti2Header)
    refused(save(tmp_path / "far.nii", far), "singular or not finite")
    voxels = np.broadcast_to(signalling, (6, 5, 4)).copy()
    refused(save(tmp_path / "scaled.nii", changed(voxels, scl_slope=2)), "not finite")
    huge = nifti(np.full((6, 5, 4), 1e308), scaling=(1e30, 0))
    refused(save(tmp_path / "huge.nii", huge), "not finite")


@given(damage=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_gives_a_volume_or_one_line(damage, tmp_path_factory) -> None:
    content = bytearray(nifti(ball()))
    for place, value in damage:
        content[place] = value
    path = save(tmp_path_factory.getbasetemp() / "damaged.nii", bytes(content))
    for dtype in (np.int16, np.uint8):
        read = outcome(path, dtype)
        assert str(path) in read if isinstance(read, str) else read.ndim == 3
        assert "\n" not in str(read) or not isinstance(read, str)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for name in ("imaging.nii.gz", "imaging.nii"):
        refused(tmp_path / name, "no such file", read_grid, read_volume, label_areas)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"<!DOCTYPE html><html><body>429 Too Many Requests</body></html>" * 9, "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--ab.nii.gz\n", "git annex get"),
        (b"", "empty"),
        (b"imaging\n" * 100, "not a"),
    ],
)
def test_what_lies_in_the_place_of_a_volume_is_said(content: bytes, named: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"imaging{ending}"
    path.write_bytes(content)
    refused(path, named)


def test_a_file_whose_ending_says_otherwise_is_told_its_right_name(tmp_path: Path) -> None:
    whole = nifti(ball())
    (tmp_path / "bare.nii.gz").write_bytes(whole)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(whole))
    for name, right in (("bare.nii.gz", "bare.nii"), ("packed.nii", "packed.nii.gz")):
        refused(tmp_path / name, f"rename it to {re.escape(right)}$")
        assert read_volume((tmp_path / name).rename(tmp_path / right)).array.any()


def test_a_link_to_what_is_not_there_is_named_with_its_target(tmp_path: Path) -> None:
    path = tmp_path / "imaging.nii.gz"
    path.symlink_to("../annex/gone.nii.gz")
    refused(path, r"imaging\.nii\.gz is a link to \.\./annex/gone\.nii\.gz, which is not there")


def test_a_pair_on_one_grid_may_be_stored_in_two_orders(tmp_path: Path) -> None:
    one = save(tmp_path / "imaging.nii.gz", nifti(ball(), affine_of("IPL", (5.0, 0.8, 0.8), (7.0, 8.0, 9.0))))
    image = nib.as_closest_canonical(nib.load(one))
    other = tmp_path / "segmentation.nii.gz"
    nib.save(image, other)
    assert nib.load(other).shape == (4, 5, 6)
    check_pair(one, other)


def test_a_pair_of_other_shapes_or_places_is_refused(tmp_path: Path) -> None:
    affine = affine_of("IPL", (5.0, 0.8, 0.8), (7.0, 8.0, 9.0))
    imaging = save(tmp_path / "imaging.nii.gz", nifti(ball(), affine))
    close = affine + 0.005 * np.eye(4)[[3, 3, 3, 0]].T
    check_pair(imaging, save(tmp_path / "close.nii", nifti(ball(), close)))
    bad = {
        "shorter.nii": (ball(shape=(5, 5, 4)), affine, r"\(6, 5, 4\) but shorter.nii \(5, 5, 4\).*must agree"),
        "turned.nii": (ball(shape=(6, 4, 5)), affine, "must agree"),
        "thinner.nii": (ball(), affine_of("IPL", (4.9, 0.8, 0.8), (7.0, 8.0, 9.0)), "thinner.nii.*must agree"),
        "moved.nii": (ball(), affine_of("IPL", (5.0, 0.8, 0.8), (7.0, 8.0, 9.5)), "moved.nii.*must agree"),
        "flipped.nii": (ball(), affine_of("SPL", (5.0, 0.8, 0.8), (7.0, 8.0, 9.0)), "flipped.nii.*must agree"),
    }
    for name, (array, other, match) in bad.items():
        with pytest.raises(InputError, match=match) as caught:
            check_pair(imaging, save(tmp_path / name, nifti(array, other)))
        assert str(imaging) in str(caught.value)


@pytest.mark.skipif(not LABELS.exists(), reason="../shared/kits23 is not beside this checkout")
def test_areas_of_the_real_kits23_labels() -> None:
    counted = pd.read_csv(LABELS.parent / "slice_areas.csv.gz").set_index("case")
    paths = sorted(LABELS.glob("case_*/segmentation.nii.gz"))
    assert len(paths) == 26
    slices = 0
    for path in paths:
        areas, grid = label_areas(path)
        known = counted.loc[path.parent.name]
        assert known["slice"].tolist() == list(range(len(areas)))
        assert areas[:, 1:].tolist() == known[["kidney_px", "tumor_px", "cyst_px"]].to_numpy().tolist()
        assert (areas.sum(axis=1) == grid.shape[1] * grid.shape[2]).all()
        slices += len(areas)
    assert slices == 1656


@pytest.mark.skipif(not LABELS.exists(), reason="../shared/kits23 is not beside this checkout")
@pytest.mark.parametrize("case", ["case_00061", "case_00425"])
def test_a_real_kits23_label_volume_is_read_as_it_is_stored(case: str) -> None:
    path = LABELS / case / "segmentation.nii.gz"
    image = nib.load(path)
    volume = read_volume(path, np.uint8)
    assert np.array_equal(volume.array, np.asarray(image.dataobj))
    assert np.array_equal(volume.grid.affine, image.affine)
    assert volume.grid.spacing_mm == pytest.approx(image.header.get_zooms())


@pytest.mark.skipif(not CT.exists(), reason="../shared/ct is not beside this checkout")
def test_a_real_ct_with_slices_last() -> None:
    folder = CT / "case_90000"
    check_pair(folder / "imaging.nii.gz", folder / "segmentation.nii.gz")
    areas, grid = label_areas(folder / "segmentation.nii.gz")
    assert (grid.shape, grid.spacing_mm) == ((30, 101, 122), pytest.approx((3, 3, 3)))
    assert ((areas[:, 1] > 0).sum(), areas[:, 1].sum()) == (23, 7623)
    assert not areas[:, 2:].any()
    for path in (folder / "imaging.nii.gz", CT / "abdomen_pelvis_3mm.nii.gz"):
        values, _ = by_nibabel(path)
        volume = read_volume(path)
        assert np.array_equal(volume.array, np.rint(values))
    bone = volume.array > 300
    half = bone.shape[1] // 2
    assert bone[:, half:].sum() > 2 * bone[:, :half].sum()  # the spine lies at the back: row 0 is anterior


MEANT = {1: "tumor", 3: "none", 7: "organ", 255: "cyst"}


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
@pytest.mark.parametrize("codes", [KITS, "RAS", "LPS"])
def test_labels_of_other_values_become_ours(dtype: str, codes: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).choice([0, *MEANT], (6, 5, 4)).astype(dtype)
    path = save(tmp_path / "segmentation.nii.gz", nifti(values, affine_of(codes)))
    expected = np.zeros(values.shape, np.uint8)
    for value, ours in {7: 1, 1: 2, 255: 3}.items():
        expected[values == value] = ours
    again = save(tmp_path / "kits.nii.gz", nifti(expected, affine_of(codes)))
    table = label_table(MEANT)
    assert np.array_equal(read_volume(path, np.uint8, table).array, read_volume(again, np.uint8).array)
    assert np.array_equal(label_areas(path, table)[0], label_areas(again)[0])
    assert sorted(label_areas(path, table)[0].sum(axis=0)) == sorted(np.bincount(expected.ravel().astype(int)))


def test_labels_that_the_study_does_not_name_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "segmentation.nii.gz", nifti(ball("uint8")))
    table = label_table({1: "organ", 2: "tumor"})
    for read in (lambda one: read_volume(one, np.uint8, table), lambda one: label_areas(one, table)):
        refused(path, r"label 3 is not in data\.classes\.labels; add it, as none if need be", read)


def test_labels_of_kits_need_no_table() -> None:
    assert label_table({1: "organ", 2: "tumor", 3: "cyst"}) is None
