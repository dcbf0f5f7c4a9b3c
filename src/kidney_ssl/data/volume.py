"""NIfTI volumes as axial arrays: decompressed in chunks, converted to a smaller type, reoriented by the affine.

Every array has KiTS order, whatever the order on disk: (slices, H, W), slices from the top, row 0 anterior, column 0
on the patient's right (axis codes I, P, L). In NIfTI the first axis varies fastest, so a chunk of the file is a few
whole planes of the last axis. Each plane is converted and copied to its place, so the whole volume is never in memory
in its stored type.
"""

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from kidney_ssl.data.checks import USUAL_HU, Findings, grid_findings, header_findings, judge, pair_findings
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.files import refuse_dangling
from kidney_ssl.schema import KITS_LABELS, MEANINGS

CHUNK_BYTES = 1 << 19  # size of a chunk in the file's type, so that it stays in the processor's cache
PLANES, ROWS = 64, 8  # planes and rows of the file that are reordered at a time
KITS_CODES = ("I", "P", "L")
KITS_ORIENTATION = axcodes2ornt(KITS_CODES)
LARGEST_TILT = 30.0  # maximum degrees between a volume's axes and the body's; no gantry tilts further
UNITS = {0: ("no unit", 1.0), 1: ("metres", 1000.0), 2: ("mm", 1.0), 3: ("microns", 0.001)}  # NIfTI codes
SMALLEST_DETERMINANT = 1e-3
LARGEST_INFLATION = 1032  # maximum compression ratio of deflate; a header that declares more data is wrong
LARGEST_LABEL = 3
UNNAMED = 255  # in a table of labels: marks a value that the study does not name
GZIP = b"\x1f\x8b"
# First bytes of files that are not volumes -> what the file is, and what to do.
STAND_INS = {
    b"version https://git-lfs.github.com/": "a pointer of git-LFS, the volume was not fetched: run `git lfs pull`",
    b"/annex/objects/": "a pointer of git-annex, the volume was not fetched: run `git annex get`",
    b"<": "a web page or XML, no gzip file and no volume; fetch it again",
}
HEADER_SIZES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}  # a NIfTI file begins with it, in either byte order
# nibabel's header repairs change no voxel and no affine, so they are not logged; what it cannot repair, it raises.
UNSAID = logging.getLogger(f"{__name__}.unsaid")
UNSAID.addHandler(logging.NullHandler())
UNSAID.propagate = False
# Values of a damaged file may overflow; the result is refused in one line, so numpy's warnings are not needed.
QUIET = np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True)
class Grid:
    """Grid of a volume: shape (slices, H, W), spacing in mm, 4 x 4 affine in that order, and findings."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    findings: Findings = ()


@dataclass(frozen=True)
class Volume:
    """A volume in KiTS order, (slices, H, W), and its findings."""

    array: np.ndarray
    grid: Grid
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """A volume as stored in the file: shape, type, scaling, transforms to KiTS order and back."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    slope: float
    intercept: float
    turn: np.ndarray
    back: np.ndarray
    grid: Grid


def label_table(labels: Mapping[int, str]) -> np.ndarray | None:
    """Mask value for each value of a label file, (256,) uint8, `UNNAMED` if it has none; None if they are KiTS's."""
    if labels == KITS_LABELS:
        return None
    table = np.full(256, UNNAMED, np.uint8)
    table[0] = 0
    for value, meaning in labels.items():
        table[value] = MEANINGS[meaning]
    return table


def read_stored(path: Path) -> Stored:
    """Read from a volume's header how it is stored.

    Raises:
        InputError: see `read_volume`.
    """
    with _opened(path) as stream:
        return _read_header(path, stream)


def read_grid(path: Path) -> Grid:
    """Read a volume's grid from its header; errors as in `read_volume`."""
    return read_stored(path).grid


def read_volume(
    path: Path, dtype: type[np.int16] | type[np.uint8] = np.int16, table: np.ndarray | None = None
) -> Volume:
    """Read a volume.

    Memory: the result, one chunk of the file and a few converted planes.

    Args:
        path: .nii or .nii.gz, NIfTI-1 or 2, either byte order.
        dtype: int16 for imaging in HU, rounded to the nearest; uint8 for labels, which must be 0, 1, 2 or 3.
        table: mask values of labels with another meaning than in KiTS, see `label_table`.

    Returns:
        The volume, with a note if values are outside the usual range of HU.

    Raises:
        InputError: the file is missing, damaged, not three-dimensional, oblique or without orientation, or it has
            values that are not finite or do not fit; one line that names the file.
    """
    with _opened(path) as stream:
        stored = _read_header(path, stream)
        array = np.empty(stored.grid.shape, dtype)
        # A view of the result in the file's order: last axis first, as planes are read.
        target = apply_orientation(array, stored.back).transpose(2, 1, 0)
        low, high = np.inf, -np.inf
        narrow = np.empty((min(PLANES, len(target)), *target.shape[1:]), dtype)
        for start, planes in _chunks(path, stream, stored):
            for number, raw in enumerate(planes, start):
                least, most = _narrow(path, raw, narrow[number % PLANES], stored, table)
                low, high = min(low, least), max(high, most)
                if number % PLANES == PLANES - 1 or number == len(target) - 1:
                    _turn(narrow[: number % PLANES + 1], target[number - number % PLANES : number + 1])
    notes: tuple[str, ...] = ()
    if dtype is np.int16 and not (low >= USUAL_HU[0] and high <= USUAL_HU[1]):
        notes = (f"HU from {low:.0f} to {high:.0f}",)
    return Volume(array, stored.grid, notes)


def label_areas(path: Path, table: np.ndarray | None = None) -> tuple[np.ndarray, Grid]:
    """Count the pixels of each label in each slice, without reordering the volume; `table` as for `read_volume`.

    Only rows of the file with a label are counted in detail, a few per cent of a volume.

    Returns:
        (slices, 4) int64, pixels of labels 0 to 3, from the top slice on; and the grid.

    Raises:
        InputError: see `read_volume`.
    """
    with _opened(path) as stream:
        stored = _read_header(path, stream)
        axis = int(np.flatnonzero(stored.turn[:, 0] == 0)[0])  # the file's axis along the body
        areas = np.zeros((stored.shape[axis], LARGEST_LABEL + 1), np.int64)
        for start, planes in _chunks(path, stream, stored):
            labels = planes
            if table is not None or stored.dtype != np.uint8 or (stored.slope, stored.intercept) != (1, 0):
                labels = np.empty(planes.shape, np.uint8)
                for raw, narrow in zip(planes, labels, strict=True):
                    _narrow(path, raw, narrow, stored, table)
            most = int(labels.max())
            if most > LARGEST_LABEL:
                raise InputError(f"{path}: label {most} is none of 0 to 3; correct the labels")
            if most:
                _count(labels, most, areas, first=start * stored.shape[1], shape=stored.shape, axis=axis)
    areas[:, 0] = np.prod(stored.grid.shape[1:]) - areas[:, 1:].sum(axis=1)
    # From the file's direction along the body to KiTS's.
    return (areas if stored.turn[axis, 1] == 1 else areas[::-1].copy()), stored.grid


def compare_grids(imaging: Path, segmentation: Path) -> Findings:
    """Compare the grids of imaging and labels, and return the findings.

    Raises:
        InputError: see `read_volume`; or their shapes differ.
    """
    one, other = read_grid(imaging), read_grid(segmentation)
    if one.shape != other.shape:
        raise InputError(f"{imaging} is {one.shape} but {segmentation.name} {other.shape}: their grids must agree")
    return (*one.findings, *other.findings, *pair_findings(one.affine, other.affine, one.shape))


def check_pair(imaging: Path, segmentation: Path) -> None:
    """Refuse imaging and labels on different grids, see `compare_grids` and `checks.judge`."""
    judge(compare_grids(imaging, segmentation), where=f"{imaging} and {segmentation.name}")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a volume for reading its voxels; every error of the file becomes one line."""
    try:
        _refuse_stand_in(path)
        if path.name.endswith(".gz"):
            with igzip.open(path, "rb") as stream:
                yield cast(BinaryIO, stream)
        else:
            with path.open("rb") as stream:
                yield stream
    except FileNotFoundError as error:
        refuse_dangling(path)
        raise InputError(f"{path}: no such file") from error
    except EOFError as error:
        raise InputError(f"{path}: truncated gzip file; fetch it again") from error
    except (igzip.BadGzipFile, igzip.isal_zlib.IsalError) as error:
        raise InputError(f"{path}: not a whole gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def _refuse_stand_in(path: Path) -> None:
    """Refuse a file that, by its first bytes, is not a volume or does not match its file ending."""
    with path.open("rb") as stream:
        start = stream.read(64)
    if not start:
        raise InputError(f"{path}: an empty file; fetch it again")
    for beginning, what in STAND_INS.items():
        if start.startswith(beginning):
            raise InputError(f"{path}: {what}")
    bare = path.name.removesuffix(".gz")
    if path.name == bare and start.startswith(GZIP):
        raise InputError(f"{path}: compressed by gzip: rename it to {bare}.gz")
    if path.name != bare and _header_size(start):
        raise InputError(f"{path}: not compressed by gzip: rename it to {bare}")


def _header_size(start: bytes) -> int | None:
    """Header size in bytes, from a file's first bytes; None if it is not a NIfTI file."""
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")} & set(HEADER_SIZES)
    return sizes.pop() if sizes else None


@QUIET
def _read_header(path: Path, stream: BinaryIO) -> Stored:
    """Read the header and stop before the first voxel."""
    start = stream.read(4)
    size = _header_size(start)
    if size is None:
        raise InputError(f"{path}: not a NIfTI file; fetch it again")
    try:
        header = HEADER_SIZES[size].from_fileobj(io.BytesIO(start + stream.read(size - 4)), check=False)
        header.check_fix(logger=UNSAID)
        slope, intercept = header.get_slope_inter()
        shape = header.get_data_shape()
        dtype = header.get_data_dtype()
        affine = header.get_best_affine()
        offset = int(header["vox_offset"])
        unit, mm = UNITS.get(int(header["xyzt_units"]) % 8, UNITS[0])
        affine[:3] *= mm
        pixdim_mm = header["pixdim"][1:4] * mm
    except (HeaderDataError, WrapStructError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: damaged NIfTI header ({one_line(str(error))})") from error
    if bytes(header["magic"])[:2] != b"n+":
        raise InputError(f"{path}: not a NIfTI file of one piece (.nii or .nii.gz)")
    shape = shape[:3] + tuple(length for length in shape[3:] if length != 1)
    if len(shape) != len(KITS_CODES):
        raise InputError(f"{path}: {len(shape)} dimensions {shape}; a volume has 3: give one time or channel alone")
    if min(shape) < 1:
        raise InputError(f"{path}: no voxels, its shape is {shape}")
    if dtype.kind not in "iuf" or dtype.itemsize > np.dtype(np.float64).itemsize:
        raise InputError(f"{path}: voxels of type {dtype}; convert it to int16, float32 or float64")
    if not (int(header["qform_code"]) or int(header["sform_code"])):
        raise InputError(f"{path}: no orientation (qform and sform codes are 0), so the axial axis is unknown")
    declared = int(np.prod([int(length) for length in shape], dtype=object)) * dtype.itemsize
    if offset < size:
        raise InputError(f"{path}: damaged NIfTI header (voxels at byte {offset})")
    if offset + declared > path.stat().st_size * (LARGEST_INFLATION if path.name.endswith(".gz") else 1):
        raise InputError(
            f"{path}: too short for the {declared} bytes of voxels, from byte {offset} on, that its header declares; "
            "fetch it again"
        )
    stream.seek(offset)
    turn, back, grid = _orient(path, affine, shape, unit)
    qform, damaged = _qform(header)
    grid = replace(grid, findings=(*grid.findings, *damaged, *header_findings(affine, qform, pixdim_mm)))
    return Stored(shape, dtype, 1.0 if slope is None else slope, intercept or 0.0, turn, back, grid)


def _qform(header: nib.Nifti1Header) -> tuple[np.ndarray | None, Findings]:
    """Affine of the qform, None if there is none, and a note if it is damaged: where it was needed it was refused."""
    try:
        return header.get_qform(coded=True)[0], ()
    except (HeaderDataError, ValueError):  # a quaternion longer than 1
        return None, ("its qform is damaged; the sform was taken",)


def _orient(
    path: Path, affine: np.ndarray, shape: tuple[int, int, int], unit: str
) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Find the transform from the file's axes to KiTS order, its inverse, and the grid in KiTS order."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # A determinant of 1 means orthogonal axes, 0 means that all axes are in one plane.
    if (
        not np.isfinite(affine).all()
        or (spacing <= 0).any()
        or abs(np.linalg.det(affine[:3, :3] / spacing)) < SMALLEST_DETERMINANT
    ):
        raise InputError(f"{path}: its affine is singular or not finite; correct the header")
    cosines = np.abs(affine[:3, :3] / spacing)
    tilt = float(np.rad2deg(np.arccos(np.clip(cosines.max(axis=0), 0, 1))).max())
    if tilt > LARGEST_TILT or len(set(cosines.argmax(axis=0))) < len(spacing):
        raise InputError(
            f"{path}: oblique affine ({tilt:.1f} degrees off the body's axes); resample it to an axial grid"
        )
    # Axes this close to the body's need no singular value decomposition, which nibabel's io_orientation uses.
    stored = np.column_stack([cosines.argmax(axis=0), np.sign(affine[cosines.argmax(axis=0), range(3)])])
    turn, back = ornt_transform(stored, KITS_ORIENTATION), ornt_transform(KITS_ORIENTATION, stored)
    turned = affine @ inv_ornt_aff(turn, shape)
    order = np.argsort(turn[:, 0])
    lengths = tuple(int(shape[axis]) for axis in order)
    mm = tuple(float(spacing[axis]) for axis in order)
    taken = None
    if np.array_equal(affine, np.eye(4)):
        taken = f"slices were taken along the file's last axis, which has {lengths[0]}, from its end"
    spacing_mm = cast("tuple[float, float, float]", mm)
    turned_shape = cast("tuple[int, int, int]", lengths)
    findings = grid_findings(turned_shape, spacing_mm, tilt=tilt, unit=unit, taken=taken)
    return turn, back, Grid(turned_shape, spacing_mm, turned, findings)


def _chunks(path: Path, stream: BinaryIO, stored: Stored) -> Iterator[tuple[int, np.ndarray]]:
    """Read the voxels: first plane and (planes, n1, n0) in the file's type, valid until the next.

    Decompression stops at the size that the header declares, even if the file has more.
    """
    n0, n1, n2 = stored.shape
    plane = n0 * n1 * stored.dtype.itemsize
    step = max(1, min(n2, CHUNK_BYTES // plane))
    for start in range(0, n2, step):
        wanted = min(step, n2 - start) * plane
        part = stream.read(wanted)
        if len(part) < wanted:
            raise InputError(f"{path}: ends before its last voxel; fetch it again")
        yield start, np.frombuffer(part, stored.dtype).reshape(-1, n1, n0)
    # Reading to the end also verifies the checksum of a gzip file.
    if stream.read(1):
        raise InputError(f"{path}: longer than its header declares; fetch it again")


@QUIET
def _narrow(
    path: Path, raw: np.ndarray, out: np.ndarray, stored: Stored, table: np.ndarray | None
) -> tuple[float, float]:
    """Scale, check and round one plane into `out`, and return its minimum and maximum.

    One plane at a time, so that it stays in the processor's cache.
    """
    values = raw
    if (stored.slope, stored.intercept) != (1, 0):
        values = raw.astype(np.float64) * stored.slope + stored.intercept
    least, most = float(values.min()), float(values.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise InputError(f"{path}: values that are not finite (NaN or infinite); correct the volume")
    largest = LARGEST_LABEL if table is None else UNNAMED
    limits = (0, largest) if out.dtype == np.uint8 else (-32768, 32767)
    if least < limits[0] - 0.5 or most >= limits[1] + 0.5:
        what = f"labels 0 to {largest}" if out.dtype == np.uint8 else "HU of int16"
        raise InputError(f"{path}: values from {least:g} to {most:g} are no {what}; correct the volume")
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        if out.dtype == np.uint8 and (rounded != values).any():
            raise InputError(f"{path}: labels that are no whole numbers; correct the labels")
        values = rounded
    np.copyto(out, values, casting="unsafe")
    if table is not None:
        named = table[out]
        if (unnamed := out[named == UNNAMED]).size:
            raise InputError(f"{path}: label {unnamed.min()} is not in data.classes.labels; add it, as none if need be")
        out[...] = named
    return least, most


def _turn(narrow: np.ndarray, target: np.ndarray) -> None:
    """Copy planes of the file into the result, which has another memory order.

    In KiTS files the fastest axis is the slowest axis of the result. Copying a few rows at a time reads and writes each
    cache line once, and not once for every voxel in it.
    """
    for top in range(0, narrow.shape[1], ROWS):
        target[:, top : top + ROWS] = narrow[:, top : top + ROWS]


def _count(
    planes: np.ndarray, most: int, areas: np.ndarray, *, first: int, shape: tuple[int, int, int], axis: int
) -> None:
    """Add a chunk's labelled pixels to `areas` (slices, 4).

    Args:
        planes: (planes, n1, n0) uint8: a chunk of the file.
        most: the largest label in the chunk.
        areas: counts so far.
        first: number of the chunk's first row; rows run along the file's fastest axis.
        shape: shape of the file's axes.
        axis: the axis along the body.
    """
    labels = planes.reshape(-1, shape[0])
    rows = _labelled_rows(planes)
    # Sums over blocks of 17 x 15 = 255 rows fit into a byte; 15 rows side by side make lines long enough to be fast.
    blocks = -(-rows.size // 255)
    taken = np.zeros((blocks, 17, 15 * shape[0]), np.uint8)
    np.take(labels, rows, axis=0, out=taken.reshape(-1, shape[0])[: rows.size], mode="clip")
    for label in range(1, most + 1):
        found = taken if most == 1 else (taken == label).view(np.uint8)
        if axis == 0:
            lines = np.add.reduce(found, axis=1, dtype=np.uint8).reshape(blocks, 15, shape[0])
            areas[:, label] += np.add.reduce(lines, axis=1, dtype=np.uint8).sum(axis=0, dtype=np.int64)
        else:
            along = (rows + first) // (1 if axis == 1 else shape[1]) % shape[axis]
            of_row = np.count_nonzero(found.reshape(-1, shape[0])[: rows.size], axis=1)
            np.add.at(areas[:, label], along, of_row)


def _labelled_rows(planes: np.ndarray) -> np.ndarray:
    """Find the rows of a chunk, (planes, n1, n0) uint8, that have a label in any of its planes: kidneys are compact.

    Planes are combined eight voxels at a time, so a neighbour of such a row may be found too.
    """
    count, n1, n0 = planes.shape
    # A word must not span more than two rows.
    words = planes.reshape(count, -1).view(np.uint64 if n1 * n0 % 8 == 0 and n0 >= 8 else np.uint8)
    voxels = (np.bitwise_or.reduce(words, axis=0) != 0).nonzero()[0] * words.itemsize  # `nonzero` is faster on booleans
    marked = np.zeros(n1, bool)
    marked[voxels // n0] = True
    marked[(voxels + words.itemsize - 1) // n0] = True
    return np.asarray((np.arange(count)[:, None] * n1 + np.flatnonzero(marked)).ravel())
