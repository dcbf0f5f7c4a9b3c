"""DICOM files written element by element, so that anything can be planted in them; and multiframe, by pydicom."""

import struct
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, LegacyConvertedEnhancedCTImageStorage

SECRET = "Zyxwvut^Patient"  # in name, comments and a private tag
LONG = (b"OB", b"OW", b"UN")
CT_IMAGE, EXPLICIT_LITTLE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


def element(group: int, number: int, kind: bytes, value: bytes | str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    if len(content) % 2:
        content += b"\0" if kind in (b"UI", *LONG) else b" "
    length = struct.pack("<HI", 0, len(content)) if kind in LONG else struct.pack("<H", len(content))
    return struct.pack("<HH", group, number) + kind + length + content


def numbers(values) -> str:
    return "\\".join(f"{value:.6f}" for value in values)


def write_slice(path: Path, hu: np.ndarray, corner, number: int, **changed) -> None:
    """One CT image (H, W) with intercept -1024, at a corner in mm."""
    given = {
        "series": "1.2.3.4", "modality": "CT", "orientation": (1, 0, 0, 0, 1, 0), "spacing": (2.0, 3.0), "frames": None,
        "frame": "1.2.3.9",
    } | changed  # fmt: skip
    short = lambda value: struct.pack("<H", value)  # noqa: E731
    stored = (hu.astype(np.int32) + 1024).astype("<u2")
    meta = (
        element(2, 1, b"OB", b"\0\1")
        + element(2, 2, b"UI", CT_IMAGE)
        + element(2, 3, b"UI", f"1.2.3.4.{number}")
        + element(2, 0x10, b"UI", EXPLICIT_LITTLE)
        + element(2, 0x12, b"UI", "1.2.3")
    )
    body = [
        element(8, 0x16, b"UI", CT_IMAGE),
        element(8, 0x18, b"UI", f"1.2.3.4.{number}"),
        element(8, 0x60, b"CS", given["modality"]),
        element(8, 0x80, b"LO", SECRET),
        element(8, 0x103E, b"LO", SECRET),
        element(0x10, 0x10, b"PN", SECRET),
        element(0x10, 0x20, b"LO", SECRET),
        element(0x11, 0x10, b"LO", SECRET),
        element(0x11, 0x1001, b"LO", SECRET),
        element(0x20, 0x0D, b"UI", "1.2.3"),
        element(0x20, 0x0E, b"UI", given["series"]),
        element(0x20, 0x13, b"IS", str(number)),
        element(0x20, 0x32, b"DS", numbers(corner)),
        element(0x20, 0x37, b"DS", numbers(given["orientation"])),
        *([element(0x20, 0x52, b"UI", given["frame"])] if given["frame"] else []),
        element(0x20, 0x4000, b"LT", SECRET),
        element(0x28, 2, b"US", short(1)),
        element(0x28, 4, b"CS", "MONOCHROME2"),
        *([element(0x28, 8, b"IS", given["frames"])] if given["frames"] else []),
        element(0x28, 0x10, b"US", short(hu.shape[0])),
        element(0x28, 0x11, b"US", short(hu.shape[1])),
        element(0x28, 0x30, b"DS", numbers(given["spacing"])),
        element(0x28, 0x100, b"US", short(16)),
        element(0x28, 0x101, b"US", short(16)),
        element(0x28, 0x102, b"US", short(15)),
        element(0x28, 0x103, b"US", short(0)),
        element(0x28, 0x1052, b"DS", "-1024"),
        element(0x28, 0x1053, b"DS", "1"),
        element(0x7FE0, 0x10, b"OW", stored.tobytes()),
    ]
    head = element(2, 0, b"UL", struct.pack("<I", len(meta))) + meta
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + head + b"".join(body))


def write_series(folder: Path, hu: np.ndarray, *, step=(0.0, 0.0, 4.0), **changed) -> None:
    """A series of (slices, H, W), from the feet upwards, under names in another order."""
    for number, plane in enumerate(hu):
        name = f"{(number * 7) % 97:03d}.dcm"
        write_slice(folder / name, plane, np.array([-100.0, -90.0, 10.0]) + number * np.array(step), number, **changed)


FRAME_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
}


def of_names(image: Dataset, names: Sequence[str]) -> Dataset:
    made = Dataset()
    for name in names:
        made.add(image[name])
    return made


def multiframe(series: Path, *, shared: Sequence[str] = ()) -> Dataset:
    """The images of a folder as one file, frames shuffled; the third has a rescale of its own unless that is shared."""
    images = [pydicom.dcmread(file) for file in sorted(series.iterdir())]
    images = [images[place] for place in np.random.default_rng(0).permutation(len(images))]
    if "PixelValueTransformationSequence" not in shared:
        images[2].PixelData = ((images[2].pixel_array.astype(int) + 976) * 2).astype("<u2").tobytes()
        images[2].RescaleSlope, images[2].RescaleIntercept = "0.5", "-2000"
    made = deepcopy(images[0])
    for names in FRAME_GROUPS.values():
        for name in names:
            del made[name]
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = LegacyConvertedEnhancedCTImageStorage
    made.NumberOfFrames = len(images)
    made.PixelData = b"".join(image.PixelData for image in images)
    made.SharedFunctionalGroupsSequence = [Dataset()]
    made.PerFrameFunctionalGroupsSequence = [Dataset() for _ in images]
    for item, image in zip(made.PerFrameFunctionalGroupsSequence, images, strict=True):
        item.FrameContentSequence = [Dataset()]
        item.FrameContentSequence[0].StackID = "1"
        item.FrameContentSequence[0].FrameComments = SECRET
        item.UnassignedPerFrameConvertedAttributesSequence = [of_names(image, ("InstitutionName", "PatientName"))]
        for group, names in FRAME_GROUPS.items():
            holder = made.SharedFunctionalGroupsSequence[0] if group in shared else item
            setattr(holder, group, [of_names(image, names)])
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made
