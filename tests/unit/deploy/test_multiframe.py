"""Multiframe CT: held against series and NIfTI of the same voxels, and files of highdicom's making."""

import struct
import zipfile

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import FRAME_GROUPS, SECRET, multiframe, write_series
from pydicom.uid import EnhancedCTImageStorage, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from kidney_ssl.data.volume import read_volume
from kidney_ssl.deploy import dicom
from kidney_ssl.deploy import scan as scan_module
from kidney_ssl.deploy.predict import predict
from kidney_ssl.deploy.scan import read_scan
from kidney_ssl.errors import InputError

ALIKE = tuple(group for group in FRAME_GROUPS if group != "PlanePositionSequence")


@pytest.fixture
def hu():
    return np.random.default_rng(0).integers(-1000, 150, (9, 20, 24)).astype(np.int16)


def save(made, file, syntax=None):
    if syntax == ImplicitVRLittleEndian:
        made.file_meta.TransferSyntaxUID = syntax
    elif syntax:
        made.compress(syntax, generate_instance_uid=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(file, implicit_vr=syntax == ImplicitVRLittleEndian, enforce_file_format=True)


@pytest.mark.parametrize(
    ("shared", "syntax"),
    [
        ((), None),
        (ALIKE, None),
        (ALIKE[:2], None),
        (ALIKE[:2], ImplicitVRLittleEndian),
        (ALIKE[:2], RLELossless),
        (ALIKE[:2], JPEGLSLossless),
    ],
)
def test_frames_are_read_as_the_nifti_of_the_same_voxels(tmp_path, hu, shared, syntax):
    write_series(tmp_path / "series", hu)
    save(multiframe(tmp_path / "series", shared=shared), tmp_path / "ct.dcm", syntax)
    affine = np.array([[-3.0, 0, 0, 100], [0, -2.0, 0, 90], [0, 0, 4, 10], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(hu.transpose(2, 1, 0), affine), tmp_path / "same.nii")
    scan, same = read_scan(tmp_path / "ct.dcm"), read_volume(tmp_path / "same.nii")
    assert np.array_equal(scan.array, same.array)
    assert np.allclose(scan.grid.affine, same.grid.affine)


@pytest.mark.parametrize(
    "changed",
    [
        {"step": (0, 0, -4.0)},
        {"orientation": (1, 0, 0, 0, np.cos(0.2), np.sin(0.2))},
        {"orientation": (0, 1, 0, 0, 0, -1), "step": (4.0, 0, 0)},
    ],
)
def test_a_file_that_highdicom_converts_is_read_as_its_series(tmp_path, hu, changed):
    write_series(tmp_path / "series", hu, **changed)
    images = [pydicom.dcmread(file) for file in sorted((tmp_path / "series").iterdir())]
    for one in images:
        one.PatientBirthDate = one.PatientSex = one.AccessionNumber = one.StudyID = one.StudyDate = one.StudyTime = ""
        one.SliceThickness, one.ImageType = 4, ["ORIGINAL", "PRIMARY", "AXIAL"]
    made = hd.legacy.LegacyConvertedEnhancedCTImage(images[::-1], hd.UID(), 1, hd.UID(), 1)
    save(made, tmp_path / "converted" / "ct.dcm")
    scan, same = read_scan(tmp_path / "converted"), read_scan(tmp_path / "series")
    assert np.array_equal(scan.array, same.array)
    assert np.allclose(scan.grid.affine, same.grid.affine)
    assert scan.findings == same.findings


@pytest.mark.parametrize("uids", [("1.2.3.1", "1.2.3.2"), ("1.2.3.1", "1.2.3.1")])
def test_frames_of_one_series_may_lie_in_several_files(tmp_path, hu, uids):
    write_series(tmp_path / "series", hu)
    for uid, kept in zip(uids, (slice(0, 4), slice(4, 9)), strict=True):
        made = multiframe(tmp_path / "series")
        made.SOPInstanceUID = uid
        made.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence[kept]
        made.NumberOfFrames = len(made.PerFrameFunctionalGroupsSequence)
        made.PixelData = made.PixelData[kept.start * 960 : kept.stop * 960]
        save(made, tmp_path / "parts" / f"{kept.start}.dcm")
    with zipfile.ZipFile(tmp_path / "parts.zip", "w") as archive:
        for file in (tmp_path / "parts").iterdir():
            archive.write(file)
    scan = read_scan(tmp_path / "parts.zip")
    assert np.array_equal(scan.array, hu[::-1])
    assert not scan.series  # without it there is no DICOM map
    assert any("frames of several files" in finding for finding in scan.findings)


@pytest.mark.parametrize("kind", [EnhancedCTImageStorage, None])
def test_a_map_refers_to_the_frames_and_no_output_holds_a_name(finished, tmp_path, hu, kind, capfd):
    write_series(tmp_path / "series", hu)
    source = multiframe(tmp_path / "series")
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = kind or source.SOPClassUID
    save(source, tmp_path / "ct.dcm")
    assert (tmp_path / "ct.dcm").read_bytes().count(SECRET.encode()) > 9
    predict(finished.network, tmp_path / "ct.dcm", tmp_path / "out", anyway=True)
    predict(finished.network, tmp_path / "series", tmp_path / "same", anyway=True)
    assert SECRET not in "".join(capfd.readouterr())
    for file in (tmp_path / "out").iterdir():
        content = nib.load(file).header.binaryblock if file.suffix == ".gz" else file.read_bytes()
        assert SECRET.encode() not in content
    made, same = (pydicom.dcmread(tmp_path / name / "grad_cam.dcm") for name in ("out", "same"))
    referenced = made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert [(one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID) for one in referenced] == [
        (source.SOPClassUID, source.SOPInstanceUID)
    ]
    planes = {
        tuple(frame.PlanePositionSequence[0].ImagePositionPatient): plane
        for frame, plane in zip(same.PerFrameFunctionalGroupsSequence, same.pixel_array, strict=True)
    }
    assert same.pixel_array.max() > 0
    assert len(planes) == len(hu) == made.NumberOfFrames
    for frame, plane in zip(made.PerFrameFunctionalGroupsSequence, made.pixel_array, strict=True):
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == (
            source.SOPClassUID,
            source.SOPInstanceUID,
        )
        of_source = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert place == of_source.PlanePositionSequence[0].ImagePositionPatient
        assert np.array_equal(plane, planes[tuple(place)])


def frame(made, number):
    return made.PerFrameFunctionalGroupsSequence[number]


def two_stacks(made):
    frame(made, 3).FrameContentSequence[0].StackID = "2"


def two_directions(made):
    frame(made, 3).PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def no_position(made):
    del frame(made, 3).PlanePositionSequence


def no_spacing(made):
    del frame(made, 3).PixelMeasuresSequence[0].PixelSpacing


def no_rescale(made):
    del frame(made, 3).PixelValueTransformationSequence


def one_place_twice(made):
    frame(made, 3).PlanePositionSequence = frame(made, 4).PlanePositionSequence


def a_gap(made):
    places = [one.PlanePositionSequence[0].ImagePositionPatient for one in made.PerFrameFunctionalGroupsSequence]
    min(places, key=lambda place: place[2])[2] -= 4


def uneven(made):
    frame(made, 3).PlanePositionSequence[0].ImagePositionPatient[2] += 1.3


def fewer_groups(made):
    del made.PerFrameFunctionalGroupsSequence[3]


def fewer_pixels(made):
    made.PixelData = made.PixelData[:-960]


def fewer_compressed(made):
    made.NumberOfFrames = 8
    groups, made.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence, []
    made.PixelData = made.PixelData[:-960]
    made.compress(RLELossless, generate_instance_uid=False)
    made.NumberOfFrames, made.PerFrameFunctionalGroupsSequence = 9, groups


def colors(made):
    made.SamplesPerPixel = 3


def many_frames(made):
    made.NumberOfFrames = 100_000


def other_class(made):
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3"


def single(made):
    made.NumberOfFrames, made.PerFrameFunctionalGroupsSequence = 1, made.PerFrameFunctionalGroupsSequence[:1]
    made.PixelData = made.PixelData[:960]


def no_groups(made):
    del made.SharedFunctionalGroupsSequence


def deflated(made):
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (two_stacks, "2 stacks"),
        (two_directions, "different directions"),
        (no_position, "without position, orientation or spacing"),
        (no_spacing, "without position, orientation or spacing"),
        (no_rescale, "without rescale"),
        (one_place_twice, "several images at one place"),
        (a_gap, "1 slice(s) missing"),
        (uneven, "unevenly spaced"),
        (fewer_groups, "9 frames, but geometry of 8"),
        (fewer_pixels, "cannot be read"),
        (fewer_compressed, "cannot be read"),
        (colors, "no grey images"),
        (many_frames, "100000 frames of 20 x 24 are more than any CT has"),
        (other_class, "no enhanced CT"),
        (single, "a single image"),
        (no_groups, "cannot be read"),
        (deflated, "deflated or big-endian"),
    ],
)
def test_what_is_not_one_whole_volume_gets_one_line(tmp_path, hu, change, said):
    write_series(tmp_path / "series", hu)
    made = multiframe(tmp_path / "series")
    change(made)
    save(made, tmp_path / "multiframe" / "ct.dcm")
    with pytest.raises(InputError) as caught:
        read_scan(tmp_path / "multiframe")
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'multiframe'}: ")
    assert "kidney-ssl-" not in str(caught.value)  # no path of a temporary file
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_frames_are_counted_before_any_is_written(tmp_path, hu, monkeypatch):
    write_series(tmp_path / "series", hu)
    save(multiframe(tmp_path / "series"), tmp_path / "ct.dcm")
    monkeypatch.setattr(scan_module, "LARGEST_VOXELS", hu.size - 1)
    monkeypatch.setattr(pydicom.Dataset, "save_as", lambda *_, **__: pytest.fail("a frame was written"))
    with pytest.raises(InputError, match="9 frames of 20 x 24 are more than any CT has"):
        read_scan(tmp_path / "ct.dcm")


def test_a_file_that_ends_early_is_refused(tmp_path, hu):
    write_series(tmp_path / "series", hu)
    save(multiframe(tmp_path / "series"), tmp_path / "ct.dcm")
    (tmp_path / "ct.dcm").write_bytes((tmp_path / "ct.dcm").read_bytes()[:-2])
    with pytest.raises(InputError, match="cannot be read"):
        read_scan(tmp_path / "ct.dcm")


def test_a_compressed_frame_that_claims_gigabytes_takes_none(tmp_path, hu):
    write_series(tmp_path / "series", hu)
    save(multiframe(tmp_path / "series"), tmp_path / "ct.dcm", RLELossless)
    content = bytearray((tmp_path / "ct.dcm").read_bytes())
    place = content.index(b"\xfe\xff\0\xe0", content.index(b"\xe0\x7f\x10\0OB") + 20) + 4  # past the offset table
    content[place : place + 4] = struct.pack("<I", 0x9F000000)
    (tmp_path / "ct.dcm").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_scan(tmp_path / "ct.dcm")
    assert dicom.MOST_MEMORY < 0x9F000000
