"""A multiframe CT file as one file per frame, which are then read and checked as the images of a series are."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from kidney_ssl.deploy.dicom import LARGEST_SIDE, MOST_FILES
from kidney_ssl.errors import InputError

# All that is read: nothing else of the file, nor of its groups, is in a frame's file.
KEPT = ("SOPInstanceUID", "Modality", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SamplesPerPixel",
        "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
        "PixelRepresentation")  # fmt: skip
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
}
BYTES = 2  # of a pixel


def split(path: Path, file: Path, folder: Path, *, most_voxels: int) -> list[Path]:
    """Write each frame of a multiframe CT as a file of one image, its pixels as they are, compressed or not.

    Args:
        path: what the user gave, for errors.
        file: the multiframe file.
        folder: for the files; made here.
        most_voxels: of all frames.

    Returns:
        The files in the order of the frames.

    Raises:
        InputError: in one line: several stacks, no rescale, no 16-bit grey images, too large, or damaged.
    """
    written: list[Path] = []
    try:
        folder.mkdir()
        # Warnings and validation quote values.
        with file.open("rb") as stream, disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            syntax = _syntax(path, file)
            header = pydicom.dcmread(
                stream, stop_before_pixels=True, specific_tags=[*KEPT, "NumberOfFrames", SHARED, PER_FRAME]
            )
            pixels = _encapsulated(stream, header) if syntax.is_compressed else _native(stream, header)
            for frame, stored in zip(_frames(path, header, most_voxels), pixels, strict=True):
                written.append(folder / f"{len(written)}.dcm")
                frame.file_meta = FileMetaDataset()
                frame.file_meta.TransferSyntaxUID = syntax if syntax.is_compressed else ExplicitVRLittleEndian
                frame.add_new("PixelData", "OB" if syntax.is_compressed else "OW", stored)
                frame["PixelData"].is_undefined_length = syntax.is_compressed
                frame.save_as(written[-1], enforce_file_format=True)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror or 'damaged'})") from error
    except Exception as error:  # a damaged file fails anywhere in pydicom, whose texts quote values
        raise InputError(f"{path}: a multiframe file in it cannot be read; export it again") from error
    return written


def _syntax(path: Path, file: Path) -> UID:
    """The transfer syntax, if pixel data lie in the file as they do in memory, or are compressed frame by frame."""
    syntax = read_file_meta_info(file).TransferSyntaxUID
    if not syntax.is_compressed and syntax not in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        raise InputError(f"{path}: deflated or big-endian multiframe DICOM; export it as little endian")
    return syntax


def _frames(path: Path, header: FileDataset, most_voxels: int) -> Iterator[Dataset]:
    """An image without pixels for each frame, one at a time, once the frames are of a size and one stack.

    A missing position, orientation or spacing stays missing, and is refused as a series' is.
    """
    count, (rows, columns) = int(header.NumberOfFrames), (header.Rows, header.Columns)
    if count > MOST_FILES or max(rows, columns) > LARGEST_SIDE or count * rows * columns > most_voxels:
        raise InputError(f"{path}: {count} frames of {rows} x {columns} are more than any CT has")
    if (header.SamplesPerPixel, header.BitsAllocated) != (1, 8 * BYTES):
        raise InputError(f"{path}: its frames are no grey images of {8 * BYTES} bits")
    (shared,), per_frame = header[SHARED].value, header[PER_FRAME].value
    if len(per_frame) != count:
        raise InputError(f"{path}: {count} frames, but geometry of {len(per_frame)}; export it again")
    stacks = {_item(one, shared, "FrameContentSequence").get("StackID") for one in per_frame}
    if len(stacks) > 1:
        raise InputError(f"{path}: {len(stacks)} stacks in one multiframe file; give one volume")
    for one in per_frame:
        frame = Dataset()
        frame.SOPClassUID = CTImageStorage
        for name in KEPT:
            if name in header:
                frame.add(header[name])
        for group, names in GROUPS.items():
            item = _item(one, shared, group)
            for name in names:
                if name in item:
                    frame.add(item[name])
        if "RescaleSlope" not in frame or "RescaleIntercept" not in frame:
            raise InputError(f"{path}: a frame without rescale slope and intercept; export it again")
        yield frame


def _item(frame: Dataset, shared: Dataset, group: str) -> Dataset:
    """A functional group of a frame: its own, else the one that all share, else an empty one."""
    found = frame.get(group) or shared.get(group) or [Dataset()]
    return found[0]


def _native(stream: BinaryIO, header: FileDataset) -> Iterator[bytes]:
    """Frames of uncompressed pixel data, from a stream before its tag."""
    implicit, _ = header.original_encoding
    tag = stream.read(8 if implicit else 12)  # tag, length and, if explicit, type
    length = header.Rows * header.Columns * BYTES
    if int.from_bytes(tag[-4:], "little") != length * header.NumberOfFrames:
        raise ValueError("pixel data of another length than that of all frames")
    for _ in range(header.NumberOfFrames):
        stored = stream.read(length)
        if len(stored) < length:
            raise EOFError
        yield stored


def _encapsulated(stream: BinaryIO, header: FileDataset) -> Iterator[bytes]:
    """Frames of compressed pixel data, each wrapped as the only one of its image."""
    stream.seek(12, 1)
    for stored in generate_frames(stream, number_of_frames=header.NumberOfFrames):
        yield encapsulate([stored], has_bot=False)
