"""A map of a DICOM series as a DICOM parametric map, which a viewer lays over the series it was made of.

The file refers to the series by UIDs and holds its geometry, and nothing else of it: the images that highdicom copies
attributes of patient, study and equipment from are made here, without any.
"""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, generate_uid
from pydicom.valuerep import DSfloat

from kidney_ssl.deploy.dicom import Slice
from kidney_ssl.files import replacing

LABEL, SAID = "GRAD_CAM", "Grad-CAM. Not a medical device. For research only."  # at most 16 and 64 letters
MAKER = "kidney-ssl"
# A content date is required. The clock would tell two equal results apart, and dates of the input stay behind.
NO_DATE, NO_TIME = "19000101", "000000"
EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
         "StudyTime")  # fmt: skip


def write_dicom_map(path: Path, values: np.ndarray, series: Sequence[Slice], slope: float, network: str) -> None:
    """Write a volume on the grid of a series; the same values give the same bytes.

    Args:
        path: .dcm.
        values: (slices, rows, columns) uint8, in the order and of the shape of the series.
        series: its slices, with UIDs.
        slope: what a value of 1 stands for.
        network: what tells the network apart, as its sha256.
    """
    first = series[0]
    between = (series[-1].height - first.height) / (len(series) - 1)
    if first.frame:  # highdicom takes frames in the order of their file
        order = sorted(range(len(series)), key=lambda place: series[place].frame or ("", 0))
        series, values = [series[place] for place in order], values[order]
    # Of the three types that a parametric map may have, float32 is the one that most viewers read.
    stored, largest = np.ascontiguousarray(values, np.float32), 255 * slope
    stored *= slope
    sources = (first.uids["series"], network, hashlib.sha256(stored.data).hexdigest())
    series_uid, instance_uid, dimensions_uid = (
        generate_uid(entropy_srcs=[what, *sources]) for what in ("series", "instance", "dimensions")
    )
    images = [_source(one, between) for one in series]
    made = hd.pm.ParametricMap(
        [_multiframe(images, first.frame[0])] if first.frame else images,
        stored,
        series_instance_uid=series_uid,
        series_number=1,
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=network[:16],
        device_serial_number=MAKER,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(LABEL, SAID, codes.UCUM.NoUnits, (0.0, largest), slope=1.0, intercept=0.0)
        ],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=largest / 2, window_width=largest)],
        content_description=SAID,
        content_label=LABEL,
        series_description=SAID,
        content_date=NO_DATE,
        content_time=NO_TIME,
    )
    del made.InstanceCreationDate, made.InstanceCreationTime, made.ContributingEquipmentSequence[0].ContributionDateTime
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = "No attribute of the patient was read; UIDs of the images kept"
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions_uid  # random until here
    with replacing(path) as beside:
        made.save_as(beside)


def _source(one: Slice, between: float) -> Dataset:
    """What a map takes over from an image of the series; slices are as thick as their distance in mm."""
    made = Dataset()
    for name in EMPTY:
        setattr(made, name, "")
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID, made.SeriesInstanceUID = one.uids["instance"], one.uids["series"]
    made.StudyInstanceUID, made.FrameOfReferenceUID = one.uids["study"], one.uids["frame"]
    made.Rows, made.Columns = one.shape
    for name, values in (
        ("ImagePositionPatient", one.corner),
        ("ImageOrientationPatient", one.directions),
        ("PixelSpacing", one.spacing),
    ):
        setattr(made, name, [DSfloat(value, auto_format=True) for value in values.tolist()])
    made.SliceThickness = made.SpacingBetweenSlices = DSfloat(between, auto_format=True)
    return made


def _multiframe(images: list[Dataset], kind: str) -> Dataset:
    """The file of a class whose frames are images of one orientation and spacing."""
    made = deepcopy(images[0])
    made.SOPClassUID, made.NumberOfFrames = kind, len(images)
    shared = Dataset()
    shared.PlaneOrientationSequence = _group(made, "ImageOrientationPatient")
    shared.PixelMeasuresSequence = _group(made, "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = [Dataset() for _ in images]
    for item, image in zip(made.PerFrameFunctionalGroupsSequence, images, strict=True):
        item.PlanePositionSequence = _group(image, "ImagePositionPatient")
    return made


def _group(image: Dataset, *names: str) -> list[Dataset]:
    """A functional group of attributes of an image."""
    made = Dataset()
    for name in names:
        made.add(image[name])
    return [made]
