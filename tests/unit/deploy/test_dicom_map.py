"""Grad-CAM as a DICOM parametric map, read back by pydicom alone."""

import re
import time

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import SECRET, write_series

from kidney_ssl.deploy.dicom_map import write_dicom_map
from kidney_ssl.deploy.predict import predict
from kidney_ssl.deploy.scan import read_scan
from kidney_ssl.errors import InputError

TILTED = (1, 0, 0, 0, np.cos(0.2), np.sin(0.2))


@pytest.fixture
def hu():
    return np.random.default_rng(0).integers(-1000, 150, (9, 20, 24)).astype(np.int16)


def voxels(made) -> dict[tuple[float, ...], float]:
    """Each voxel's value by its place in mm, by the attributes of its frame alone (PS3.3 C.7.6.2.1.1)."""
    shared = made.SharedFunctionalGroupsSequence[0]
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    across, down = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    mapping = shared.RealWorldValueMappingSequence[0]
    planes = made.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    found = {}
    for plane, frame in zip(planes, made.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        for (row, column), value in np.ndenumerate(plane):
            found[tuple((corner + across * column * column_mm + down * row * row_mm).round(3) + 0.0)] = float(value)
    return found


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"step": (0, 0, -4.0)},
        {"orientation": TILTED},
        {"orientation": (-1, 0, 0, 0, -1, 0)},
        {"orientation": (0, 1, 0, 0, 0, -1), "step": (4.0, 0, 0)},
    ],
)
def test_a_map_lies_where_the_nifti_map_of_the_same_prediction_does(finished, tmp_path, hu, changed):
    write_series(tmp_path / "series", hu, **changed)
    result = predict(finished.network, tmp_path / "series", tmp_path / "out", anyway=True)
    assert result["volume"]["shape"] == list(read_scan(tmp_path / "series").grid.shape)
    image = nib.load(tmp_path / "out" / "grad_cam.nii.gz")
    values = image.get_fdata()
    assert values.max() > 0
    to_dicom = np.diag([-1, -1, 1, 1]) @ image.affine
    places = (np.indices(values.shape).reshape(3, -1).T @ to_dicom[:3, :3].T + to_dicom[:3, 3]).round(3) + 0.0
    found = voxels(pydicom.dcmread(tmp_path / "out" / "grad_cam.dcm"))
    assert len(found) == values.size
    there = np.array([found[tuple(place)] for place in places])
    assert np.allclose(there, values.ravel(), atol=1e-6 * values.max())


def test_a_map_refers_to_its_series_and_holds_no_name_date_or_clock(finished, tmp_path, hu):
    write_series(tmp_path / "series", hu)
    for name in ("a", "b"):
        predict(finished.network, tmp_path / "series", tmp_path / name, anyway=True)
        time.sleep(0.01)  # a time of day in the file would be another one
    content = (tmp_path / "a" / "grad_cam.dcm").read_bytes()
    assert content == (tmp_path / "b" / "grad_cam.dcm").read_bytes()
    assert SECRET.encode() not in content
    made = pydicom.dcmread(tmp_path / "a" / "grad_cam.dcm")
    source = pydicom.dcmread(tmp_path / "series" / "000.dcm")
    assert (made.StudyInstanceUID, made.FrameOfReferenceUID) == (source.StudyInstanceUID, source.FrameOfReferenceUID)
    assert made.SeriesInstanceUID != source.SeriesInstanceUID == made.ReferencedSeriesSequence[0].SeriesInstanceUID
    for frame in made.PerFrameFunctionalGroupsSequence:
        (reference,) = frame.DerivationImageSequence[0].SourceImageSequence
        (file,) = (one for one in map(pydicom.dcmread, (tmp_path / "series").iterdir())
                   if one.SOPInstanceUID == reference.ReferencedSOPInstanceUID)  # fmt: skip
        assert file.ImagePositionPatient == frame.PlanePositionSequence[0].ImagePositionPatient
    assert not made.PatientName
    assert not made.PatientID
    assert "Not a medical device" in made.SeriesDescription
    assert "Not a medical device" in made.ContentDescription
    dated = {element.value for element in made.iterall() if element.VR in ("DA", "DT", "TM") and element.value}
    assert dated == {"19000101", "000000"}


def test_other_values_get_other_identifiers(tmp_path, hu):
    write_series(tmp_path / "series", hu)
    series = read_scan(tmp_path / "series").series
    found = set()
    for number, network in ((0, "a"), (1, "a"), (0, "b")):
        write_dicom_map(tmp_path / "map.dcm", np.full(hu.shape, number, np.uint8), series, 0.5, network)
        found.add(pydicom.dcmread(tmp_path / "map.dcm").SOPInstanceUID)
    assert len(found) == 3


@pytest.mark.parametrize("frame", [None, SECRET, "1.2.03", "1." * 33 + "1"])
def test_a_series_that_cannot_be_referred_to_gets_no_map_and_a_note(finished, tmp_path, hu, frame):
    write_series(tmp_path / "good", hu)
    write_series(tmp_path / "series", hu, frame=frame)
    predict(finished.network, tmp_path / "good", tmp_path / "out", anyway=True)
    result = predict(finished.network, tmp_path / "series", tmp_path / "out", anyway=True)
    assert any("no DICOM map" in note for note in result["volume"]["notes"])
    assert not (tmp_path / "out" / "grad_cam.dcm").exists()


def test_without_highdicom_a_series_is_refused_before_the_network_runs(finished, tmp_path, hu, monkeypatch):
    write_series(tmp_path / "series", hu)
    monkeypatch.setattr("kidney_ssl.deploy.predict.find_spec", lambda _: None)
    with pytest.raises(InputError, match=re.escape("kidney-ssl[dicom]")):
        predict(finished.network, tmp_path / "series", tmp_path / "out", anyway=True)
    assert not (tmp_path / "out").exists()
