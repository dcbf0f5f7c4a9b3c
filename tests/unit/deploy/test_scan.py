"""Volumes of strangers: NIfTI in any axis order, DICOM series whole, tilted, mixed, broken and hostile."""

import resource
import struct
import zipfile

import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_series, write_slice
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from kidney_ssl.data.body import body_box, to_frame
from kidney_ssl.data.volume import read_volume
from kidney_ssl.deploy import dicom
from kidney_ssl.deploy import scan as scan_module
from kidney_ssl.deploy.scan import read_scan, to_native, write_map
from kidney_ssl.errors import InputError


@pytest.fixture
def hu():
    """(slices, H, W) with air, tissue and a value that tells each place, feet first."""
    array = np.full((9, 20, 24), -1000, np.int16)
    array[:, 3:17, 4:20] = np.random.default_rng(0).integers(-100, 150, (9, 14, 16))
    return array


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "IPL", "PIR"])
def test_a_map_comes_back_on_the_grid_and_axes_of_its_file(tmp_path, codes):
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 1000
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = 7, 8, 9
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    stored, moved = apply_orientation(values, turn), affine @ inv_ornt_aff(turn, values.shape)
    nib.save(nib.Nifti1Image(stored, moved), tmp_path / "in.nii.gz")
    scan = read_scan(tmp_path / "in.nii.gz")
    write_map(tmp_path / "out.nii.gz", (scan.array + 1000).astype(np.uint8), scan, 0.5)
    written = nib.load(tmp_path / "out.nii.gz")
    assert np.allclose(written.affine, moved)
    assert np.array_equal(written.get_fdata(), (stored + 1000) * 0.5)
    assert scan.positions_mm.tolist() == [9 + 4 * row for row in range(5, -1, -1)]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.5)])
def test_a_map_lies_where_its_part_of_the_slice_was(spacing_mm):
    image = np.full((60, 80), -1000, np.int16)
    image[10:50, 20:70] = 40
    box = body_box(image > -300)
    image[22:26, 33:37] = 400
    framed = to_frame(image, box, 128, fill=-1000, labels=False, spacing_mm=spacing_mm)
    native = to_native(np.clip(framed, 0, 400).astype(np.float32), box, image.shape, spacing_mm)
    rows, columns = np.nonzero(native > 300)
    assert abs(rows.mean() - 23.5) < 0.6
    assert abs(columns.mean() - 34.5) < 0.6
    assert not native[:10].any()


@pytest.mark.parametrize("packed", [False, True])
def test_a_dicom_series_is_read_as_the_nifti_of_the_same_voxels(tmp_path, hu, packed):
    write_series(tmp_path / "series" / "deep", hu)
    (tmp_path / "series" / "README").write_text("no image")
    path = tmp_path / "series"
    if packed:
        path = tmp_path / "series.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in (tmp_path / "series").rglob("*"):
                archive.write(file, f"../../{file.name}")  # a path that leads out is only a name
    scan = read_scan(path)
    affine = np.array([[-3.0, 0, 0, 100], [0, -2.0, 0, 90], [0, 0, 4, 10], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), affine), tmp_path / "same.nii")
    same = read_volume(tmp_path / "same.nii")
    assert np.array_equal(scan.array, same.array)
    assert np.allclose(scan.grid.affine, same.grid.affine)
    assert scan.positions_mm[[0, -1]].tolist() == [42, 10]
    assert not (tmp_path.parent / "README").exists()


def test_a_tilted_gantry_keeps_its_slices_and_is_noted(tmp_path, hu):
    tilted = (1, 0, 0, 0, np.cos(0.2), np.sin(0.2))
    write_series(tmp_path / "series", hu, orientation=tilted)
    scan = read_scan(tmp_path / "series")
    assert np.array_equal(scan.array, hu[::-1])
    assert any("tilted gantry" in finding for finding in scan.findings)


def two_series(folder, hu):
    write_series(folder / "a", hu)
    write_series(folder / "b", hu[:3], series="1.2.3.5")


def with_a_gap(folder, hu):
    write_series(folder, hu)
    (folder / "028.dcm").unlink()


def two_phases(folder, hu):
    write_series(folder / "a", hu)
    write_series(folder / "b", hu)


def uneven(folder, hu):
    write_series(folder, hu)
    write_slice(folder / "028.dcm", hu[4], (-100, -90, 10 + 4.3 * 4), 4)


def other_size(folder, hu):
    write_series(folder, hu)
    write_slice(folder / "028.dcm", hu[4, :10], (-100, -90, 26), 4)


def no_pixels(folder, hu):
    write_series(folder, hu)
    file = folder / "028.dcm"
    file.write_bytes(file.read_bytes()[:-500])


def no_position(folder, hu):
    write_series(folder, hu, orientation=(1, 0, 0))


def oblique(folder, hu):
    write_series(folder, hu, orientation=(1, 0, 0, 0, 0.6, 0.8))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (two_series, "2 series in it (9, 3 images)"),
        (with_a_gap, "1 slice(s) missing"),
        (two_phases, "several images at one place"),
        (uneven, "unevenly spaced"),
        (other_size, "different sizes"),
        (no_pixels, "export the series again"),
        (no_position, "without position, orientation or spacing"),
        (oblique, "oblique"),
        (lambda folder, hu: write_series(folder, hu, modality="MR"), "modality is not CT"),
        (lambda folder, hu: write_series(folder, hu[:1], frames="1"), "a single image"),
        (lambda folder, hu: write_series(folder, hu[:1], frames="9"), "multiframe"),
        (lambda folder, hu: (folder / "notes.txt").write_text("x"), "no DICOM file"),
    ],
)
def test_what_is_not_one_whole_series_gets_one_line_that_names_the_folder(tmp_path, hu, made, said):
    folder = tmp_path / "series"
    folder.mkdir()
    made(folder, hu)
    with pytest.raises(InputError) as caught:
        read_scan(folder)
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "kidney-ssl-" not in str(caught.value)  # no path of a temporary file
    assert "Zyxwvut" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_and_dicomdir_in_a_folder_are_not_followed(tmp_path, hu):
    write_series(tmp_path / "elsewhere", hu)
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "link.dcm").symlink_to(tmp_path / "elsewhere" / "000.dcm")
    (tmp_path / "series" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "series" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match="no DICOM file"):
        read_scan(tmp_path / "series")


def test_sizes_are_bounded_before_anything_is_allocated(tmp_path, hu, monkeypatch):
    write_series(tmp_path / "series", hu)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(1 << 20))
    monkeypatch.setattr(dicom, "LARGEST_ARCHIVE", 1 << 19)
    with pytest.raises(InputError, match="give one series"):
        read_scan(tmp_path / "bomb.zip")
    monkeypatch.setattr(scan_module, "LARGEST_VOXELS", hu.size - 1)
    monkeypatch.setattr(dicom, "_read_pixels", lambda *_: pytest.fail("pixels were read"))
    with pytest.raises(InputError, match="more than any CT has"):
        read_scan(tmp_path / "series")
    nib.save(nib.Nifti1Image(hu, np.eye(4)), tmp_path / "large.nii")
    monkeypatch.setattr(scan_module, "read_volume", lambda _: pytest.fail("the volume was read"))
    with pytest.raises(InputError, match="more than any CT has"):
        read_scan(tmp_path / "large.nii")


def test_pixels_much_longer_than_wide_are_refused_before_a_frame_is_made_of_them(tmp_path, hu):
    nib.save(nib.Nifti1Image(hu, np.diag([2.0, 1000, 0.001, 1])), tmp_path / "long.nii")
    with pytest.raises(InputError, match="no CT's"):
        read_scan(tmp_path / "long.nii")


def test_an_element_that_claims_gigabytes_takes_none(tmp_path, hu):
    write_series(tmp_path / "series", hu)
    file = tmp_path / "series" / "007.dcm"
    content = bytearray(file.read_bytes())
    place = content.index(b"\2\0\1\0OB") + 8
    content[place : place + 4] = struct.pack("<I", 0x9F000002)  # the length of the file's version
    file.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="export the series again"):
        read_scan(tmp_path / "series")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024


def test_a_zip_that_is_none_gets_one_line(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\3\4" + struct.pack("<40x"))
    with pytest.raises(InputError, match="not a whole zip file"):
        read_scan(tmp_path / "a.zip")


@pytest.mark.parametrize(("name", "said"), [("nothing.nii", "no such file"), ("scan.png", "neither NIfTI")])
def test_other_files_get_one_line(tmp_path, name, said):
    (tmp_path / "scan.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=said):
        read_scan(tmp_path / name)
