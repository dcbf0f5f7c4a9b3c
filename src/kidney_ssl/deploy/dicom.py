"""A DICOM series or multiframe CT, from a folder or a zip, checked and written as uncompressed NIfTI slice by slice.

Only what geometry, HU and references to the images need is read: no name, date, comment or private tag goes further.
Files are found by looking, never through a DICOMDIR or a path inside a file; members of an archive get our own names.
"""

import re
import resource
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil

from kidney_ssl.errors import InputError

MAGIC, PREAMBLE = b"DICM", 128
HEAD = 1024  # bytes that hold the class of a file
DIRECTORY = "DICOMDIR"
MOST_FILES = 10_000
LARGEST_ARCHIVE = 8 << 30  # bytes of all members, unpacked
LARGEST_SIDE = 4096  # pixels
MOST_MEMORY = 1 << 29  # bytes, for an image and what its decoder needs
PIECE = 1 << 20
SAME = 1e-3  # of direction cosines, and mm of pixel spacing
UNEVEN = 0.1  # share of the distance between slices by which it may vary
UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
LONGEST_UID = 64
# Enhanced and legacy converted enhanced CT. File meta information is explicit little endian whatever follows.
MULTIFRAME = re.compile(rb"\x02\0\x02\0UI\x1c\0(1\.2\.840\.10008\.5\.1\.4\.1\.1\.2\.[12])\0")
UIDS = {"study": "0020|000d", "series": "0020|000e", "frame": "0020|0052", "instance": "0008|0018"}
TAGS = UIDS | {
    "modality": "0008|0060",
    "frames": "0028|0008",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
}


@dataclass(frozen=True)
class Slice:
    """The geometry of one file: corner (3,) in mm, row and column direction (6,), spacing (2,) of rows and columns.

    `uids` are those of `UIDS`, unchecked. `frame` is class and number, from 1, of the frame of a multiframe file.
    """

    path: Path
    uids: Mapping[str, str]
    modality: str
    shape: tuple[int, int]
    corner: np.ndarray
    directions: np.ndarray
    spacing: np.ndarray
    frame: tuple[str, int] | None = None

    @property
    def height(self) -> float:
        """Place along the normal of the slices in mm."""
        return float(np.cross(self.directions[:3], self.directions[3:]) @ self.corner)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as a DICOM file does."""
    try:
        with path.open("rb") as stream:
            return stream.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC
    except OSError:
        return False


def write_series(path: Path, target: Path, *, most_voxels: int) -> tuple[tuple[Slice, ...], tuple[str, ...]]:
    """Write the one CT series, of images or multiframe, of a folder or zip as NIfTI: int16 HU, axes column, row, slice.

    A tilted gantry gives an affine whose axes are not orthogonal: slices stay as they were acquired.

    Args:
        path: folder, searched with its subfolders, zip, or a single file.
        target: .nii file.
        most_voxels: of the volume.

    Returns:
        The slices in the order of the file, none if their UIDs are no reference to them; and notes.

    Raises:
        InputError: in one line: no DICOM files, several series, no CT, missing or uneven slices, several images at one
            place, several stacks of a multiframe file, multiframe of another class, other sizes within the series, too
            large, or an image that cannot be decoded.
    """
    with (
        _bounded_memory(),
        _files(path) as (files, others),
        tempfile.TemporaryDirectory(prefix="kidney-ssl-") as folder,
    ):
        slices = _checked(path, _read_slices(path, files, Path(folder), most_voxels))
        rows, columns = slices[0].shape
        if rows * columns * len(slices) > most_voxels:
            raise InputError(f"{path}: {len(slices)} slices of {rows} x {columns} are more than any CT has")
        header = nib.Nifti1Header()
        header.set_data_dtype(np.int16)
        header.set_data_shape((columns, rows, len(slices)))
        affine = _affine(slices)
        header.set_sform(affine, code="scanner")
        header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
        header.set_xyzt_units("mm")
        header.set_slope_inter(1, 0)
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        with target.open("wb") as stream:
            stream.write(header.binaryblock + bytes(4))
            for one in slices:
                stream.write(_read_pixels(path, one).tobytes())
    notes = (f"{others} file(s) beside the series are no DICOM images",) if others else ()
    if not _referable(slices):
        why = "the images lack valid UIDs, share them or are frames of several files"
        return (), (*notes, f"{why}, so that no DICOM map can refer to them")
    return tuple(slices), notes


def _referable(slices: Sequence[Slice]) -> bool:
    """Whether UIDs of all kinds are well-formed, of one study and frame of reference, and tell the images apart.

    Frames are told apart by their numbers, so that they must be all of one file.
    """
    found = {name: {one.uids[name] for one in slices} for name in UIDS}
    numbers = sorted(one.frame[1] for one in slices if one.frame)
    if numbers and numbers != list(range(1, len(slices) + 1)):
        return False
    files = 1 if numbers else len(slices)
    return [len(uids) for uids in found.values()] == [1, 1, 1, files] and all(
        len(uid) <= LONGEST_UID and UID.fullmatch(uid) for uids in found.values() for uid in uids
    )


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """GDCM takes as much memory as the length of an element says, up to 4 GB: it may have no more than MOST_MEMORY."""
    used = getattr(psutil.Process().memory_info(), "data", None)  # Linux tells
    if used is None:
        yield
        return
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = min((one for one in (before, most) if one != resource.RLIM_INFINITY), default=used + MOST_MEMORY)
    resource.setrlimit(resource.RLIMIT_DATA, (min(allowed, used + MOST_MEMORY), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


@contextmanager
def _files(path: Path) -> Iterator[tuple[list[Path], int]]:
    """The DICOM files of a folder, a zip or alone, and how many other files there are."""
    if path.is_dir():
        # Links are not followed: in an unpacked archive they may lead anywhere.
        yield _sorted_out(path, (file for file in sorted(path.rglob("*")) if not file.is_symlink() and file.is_file()))
    elif path.suffix.lower() == ".zip":
        with tempfile.TemporaryDirectory(prefix="kidney-ssl-") as folder:
            _unpack(path, Path(folder))
            yield _sorted_out(path, iter(sorted(Path(folder).iterdir())))
    else:
        yield [path], 0


def _sorted_out(path: Path, files: Iterator[Path]) -> tuple[list[Path], int]:
    found: list[Path] = []
    others = 0
    for file in files:
        if file.name != DIRECTORY and is_dicom(file):
            found.append(file)
        else:
            others += 1
        if len(found) + others > MOST_FILES:
            raise InputError(f"{path}: more than {MOST_FILES} files; give one series alone")
    if not found:
        raise InputError(f"{path}: no DICOM file in it; give a folder or .zip of one CT series, or a NIfTI file")
    return found, others


def _unpack(path: Path, folder: Path) -> None:
    """Unpack the members of a zip under numbers, without a look at their names but for the DICOMDIR's."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            if len(members) > MOST_FILES or sum(one.file_size for one in members) > LARGEST_ARCHIVE:
                raise InputError(f"{path}: more than {MOST_FILES} files or {LARGEST_ARCHIVE >> 30} GB; give one series")
            for number, member in enumerate(members):
                if member.filename.rpartition("/")[2] == DIRECTORY:
                    continue
                with archive.open(member) as source, (folder / f"{number:06d}").open("wb") as target:
                    left = member.file_size
                    while left > 0 and (piece := source.read(min(PIECE, left))):
                        target.write(piece)
                        left -= len(piece)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        # RuntimeError: encrypted members.
        raise InputError(f"{path}: not a whole zip file without password; pack the series again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({error.strerror or 'damaged'})") from error


def _reader(file: Path) -> Any:
    import SimpleITK as sitk  # noqa: PLC0415 - only DICOM needs it

    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # its warnings quote tags
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    return reader


def _read_slices(path: Path, files: list[Path], folder: Path, most_voxels: int) -> list[Slice]:
    """The geometry of all images and frames; frames become files of a temporary folder."""
    slices: list[Slice] = []
    for number, file in enumerate(files):
        with file.open("rb") as stream:
            multiframe = MULTIFRAME.search(stream.read(HEAD))
        if multiframe is None:
            slices.append(_read_geometry(path, file))
            continue
        try:
            from kidney_ssl.deploy.multiframe import split  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise InputError("multiframe DICOM needs pydicom: pip install 'kidney-ssl[dicom]'") from error
        parts = split(path, file, folder / str(number), most_voxels=most_voxels)
        if len(slices) + len(parts) > MOST_FILES:
            raise InputError(f"{path}: more than {MOST_FILES} frames; give one series alone")
        kind = multiframe[1].decode()
        slices += [replace(_read_geometry(path, one), frame=(kind, count)) for count, one in enumerate(parts, 1)]
    return slices


def _read_geometry(path: Path, file: Path) -> Slice:
    try:
        reader = _reader(file)
        reader.ReadImageInformation()
        size = reader.GetSize()
        tags = {name: reader.GetMetaData(tag) if reader.HasMetaDataKey(tag) else "" for name, tag in TAGS.items()}
    except ImportError as error:
        raise InputError("DICOM needs SimpleITK: pip install 'kidney-ssl[dicom]', or give a NIfTI file") from error
    except (RuntimeError, MemoryError) as error:  # its text quotes paths and tags
        raise InputError(f"{path}: a DICOM file in it cannot be read; export the series again") from error
    if (tags["frames"].strip() or "1") != "1" or (len(size) > 2 and size[2] > 1):
        raise InputError(f"{path}: multiframe DICOM, but no enhanced CT; convert it to NIfTI first, as by dcm2niix")
    if max(size[:2]) > LARGEST_SIDE:
        raise InputError(f"{path}: images of {size[1]} x {size[0]} pixels are no CT's")
    corner, directions, spacing = (
        _numbers(path, tags[name], count) for name, count in (("position", 3), ("orientation", 6), ("spacing", 2))
    )
    shape = (int(size[1]), int(size[0]))
    uids = {name: tags[name].strip(" \0") for name in UIDS}
    return Slice(file, uids, tags["modality"].strip(), shape, corner, directions, spacing)


def _numbers(path: Path, text: str, count: int) -> np.ndarray:
    try:
        found = np.array([float(one) for one in text.split("\\")])
    except ValueError:
        found = np.empty(0)
    if len(found) != count or not np.isfinite(found).all():
        raise InputError(f"{path}: an image without position, orientation or spacing (a scout or capture?); remove it")
    return found


def _checked(path: Path, slices: list[Slice]) -> list[Slice]:
    """The slices from first to last along their normal, if they are one whole CT series."""
    series = Counter(one.uids["series"] for one in slices)
    if len(series) > 1:
        counts = ", ".join(str(count) for count in sorted(series.values(), reverse=True)[:10])
        raise InputError(f"{path}: {len(series)} series in it ({counts} images); give a folder of one series")
    if {one.modality for one in slices} != {"CT"}:
        raise InputError(f"{path}: its modality is not CT")
    first = slices[0]
    for one in slices:
        if one.shape != first.shape or np.abs(one.spacing - first.spacing).max() > SAME:
            raise InputError(f"{path}: images of different sizes or spacings in one series; give one volume")
        if np.abs(one.directions - first.directions).max() > SAME:
            raise InputError(f"{path}: images of different directions in one series; give one volume")
    row, column = first.directions[:3], first.directions[3:]
    if abs(row @ column) > SAME or abs(row @ row - 1) > SAME or abs(column @ column - 1) > SAME:
        raise InputError(f"{path}: the direction of its images is damaged")
    if len(slices) == 1:
        raise InputError(f"{path}: a single image; give the folder of the whole series")
    ordered = sorted(slices, key=lambda one: one.height)
    gaps = np.diff([one.height for one in ordered])
    usual = float(np.median(gaps))
    if usual <= 0 or gaps.min() < UNEVEN * usual:
        raise InputError(f"{path}: several images at one place (phases or copies?); give one volume")
    if (missing := int(np.rint(gaps / usual - 1).sum())) > 0:
        raise InputError(f"{path}: {missing} slice(s) missing: {usual:g} mm apart, but a gap of {gaps.max():g} mm")
    if np.abs(gaps - usual).max() > UNEVEN * usual:
        raise InputError(f"{path}: slices unevenly spaced, {gaps.min():g} to {gaps.max():g} mm; resample the series")
    return ordered


def _affine(slices: list[Slice]) -> np.ndarray:
    """From column, row and slice to mm in NIfTI's coordinates (right, front, up are positive)."""
    first, last = slices[0], slices[-1]
    row_mm, column_mm = first.spacing
    affine = np.eye(4)
    affine[:3, 0] = first.directions[:3] * column_mm
    affine[:3, 1] = first.directions[3:] * row_mm
    affine[:3, 2] = (last.corner - first.corner) / (len(slices) - 1)
    affine[:3, 3] = first.corner
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM's x and y point to the left and the back


def _read_pixels(path: Path, one: Slice) -> np.ndarray:
    """HU (H, W) int16, rescaled by the slice's own slope and intercept."""
    import SimpleITK as sitk  # noqa: PLC0415 - as above

    try:
        values = sitk.GetArrayFromImage(_reader(one.path).Execute()).astype(np.float64).squeeze()
    except (RuntimeError, MemoryError) as error:
        raise InputError(f"{path}: an image in it cannot be decoded; export the series again") from error
    if values.shape != one.shape or not np.isfinite(values).all():
        raise InputError(f"{path}: an image in it is no grey image of its size")
    rounded = np.rint(values)
    if rounded.min() < -32768 or rounded.max() > 32767:
        raise InputError(f"{path}: values from {rounded.min():g} to {rounded.max():g} are no HU of int16")
    return rounded.astype("<i2")
