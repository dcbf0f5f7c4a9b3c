"""Somebody else's CT, from a NIfTI file or DICOM, as the slices that a network was trained on."""

import gzip
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from PIL import Image

from kidney_ssl.data.body import Box, Frame, standardise
from kidney_ssl.data.checks import Findings, hu_findings
from kidney_ssl.data.hu_scale import scale_findings
from kidney_ssl.data.normalization import normalise
from kidney_ssl.data.volume import Grid, read_stored, read_volume
from kidney_ssl.deploy.dicom import LARGEST_SIDE, Slice, is_dicom, write_series
from kidney_ssl.errors import InputError
from kidney_ssl.files import replacing

LARGEST_VOXELS = 1 << 30  # two gigabytes of int16: 1024 x 1024 x 1024, more than any CT of a body
NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Scan:
    """A CT volume.

    Attributes:
        array: (slices, H, W) int16 HU in KiTS order, see `kidney_ssl.data.volume`.
        grid: its grid.
        back: orientation from KiTS order to the axes of the file, as nibabel has it.
        findings: what is odd about it; see `kidney_ssl.data.checks`.
        series: the images of a DICOM series by the last axis of the file, if a result can refer to them.
    """

    array: np.ndarray
    grid: Grid
    back: np.ndarray
    findings: Findings
    series: tuple[Slice, ...] = ()

    @property
    def positions_mm(self) -> np.ndarray:
        """Height of the middle of each slice, (slices,) float64 in mm, upwards, in the coordinates of the file."""
        _, rows, columns = self.grid.shape
        middle = self.grid.affine @ np.array([0, (rows - 1) / 2, (columns - 1) / 2, 1])
        return np.asarray(middle[2] + self.grid.affine[2, 0] * np.arange(self.grid.shape[0]))


def read_scan(path: Path) -> Scan:
    """Read a CT.

    Args:
        path: .nii or .nii.gz; a folder or .zip of one DICOM series; a multiframe file of CT.

    Raises:
        InputError: it is missing, damaged, none of these, too large, or not one whole series; in one line.
    """
    if path.is_file() and path.name.endswith(NIFTI):
        return _read_nifti(path)
    if path.is_dir() or path.suffix.lower() == ".zip" or is_dicom(path):
        with tempfile.TemporaryDirectory(prefix="kidney-ssl-") as folder:
            # Written slice by slice and read as every volume is: with the same checks, and one volume in memory.
            nifti = Path(folder) / "series.nii"
            series, notes = write_series(path, nifti, most_voxels=LARGEST_VOXELS)
            try:
                scan = _read_nifti(nifti)
            except InputError as error:
                raise InputError(str(error).replace(str(nifti), str(path))) from None
            return replace(scan, findings=(*scan.findings, *notes), series=series)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    raise InputError(f"{path}: neither NIfTI (.nii, .nii.gz) nor DICOM (folder or .zip of one series, multiframe CT)")


def _read_nifti(path: Path) -> Scan:
    stored = read_stored(path)
    if np.prod(stored.shape, dtype=object) > LARGEST_VOXELS:
        raise InputError(f"{path}: {' x '.join(map(str, stored.shape))} voxels are more than any CT has; crop it")
    (_, *shape), (_, *spacing_mm) = stored.grid.shape, stored.grid.spacing_mm
    # The body frame is square: pixels much longer than wide would blow it up.
    if max(np.multiply(shape, spacing_mm)) > LARGEST_SIDE * min(spacing_mm):
        pixels, mm = (" x ".join(f"{one:g}" for one in pair) for pair in (shape, spacing_mm))
        raise InputError(f"{path}: slices of {pixels} pixels of {mm} mm are no CT's; correct its spacing, or crop it")
    volume = read_volume(path)
    seen = hu_findings(volume.array) or scale_findings(volume.array)
    return Scan(volume.array, volume.grid, stored.back, (*volume.grid.findings, *volume.notes, *seen))


@dataclass(frozen=True)
class Frames:
    """Some slices in the body frame.

    Attributes:
        rows: their numbers in the scan.
        images: (B, S, S) float16 in [0, 1].
        boxes: where the body lies in each slice, in native pixels.
        bodiless: how many show no body, and are kept whole.
    """

    rows: Sequence[int]
    images: np.ndarray
    boxes: list[Box]
    bodiless: int


def frames(scan: Scan, frame: Frame, window: tuple[float, float], mode: str, batch: int) -> Iterator[Frames]:
    """All slices of a scan as the stages slice and normalize make them, some at a time.

    Args:
        scan: the volume.
        frame: the body frame.
        window: low and high in HU.
        mode: see `normalise`.
        batch: slices at a time.
    """
    spacing_mm = scan.grid.spacing_mm[1:]
    unlabelled = np.zeros(scan.array.shape[1:], np.uint8)
    batches = [range(len(scan.array))[start : start + batch] for start in range(0, len(scan.array), batch)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def begin(rows: Sequence[int]) -> list[Future]:
            return [pool.submit(standardise, scan.array[row], unlabelled, spacing_mm, frame) for row in rows]

        # The next bodies are looked for while the network has these.
        begun = begin(batches[0])
        for rows, following in zip_longest(batches, batches[1:], fillvalue=()):
            cut = [one.result() for one in begun]
            begun = begin(following)
            images = normalise(np.stack([image for image, *_ in cut]), window, mode)
            yield Frames(rows, images, [box for _, _, box, _, _ in cut], sum(body == 0 for *_, body, _ in cut))


def to_native(values: np.ndarray, box: Box, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> np.ndarray:
    """Bring a map in the body frame back to its slice; the inverse of `kidney_ssl.data.body.to_frame`.

    Args:
        values: (h, w) float32 over the whole frame.
        box: where the body lies.
        shape: (H, W) of the slice.
        spacing_mm: distance between rows and between columns.

    Returns:
        (H, W) float32, 0 outside the box.
    """
    lengths = [side.stop - side.start for side in box]
    side_mm = max(length * mm for length, mm in zip(lengths, spacing_mm, strict=True))
    square = [round(side_mm / mm) for mm in spacing_mm]
    top, left = ((whole - part) // 2 for whole, part in zip(square, lengths, strict=True))
    resized = Image.fromarray(values.astype(np.float32)).resize((square[1], square[0]), Image.Resampling.BILINEAR)
    native = np.zeros(shape, np.float32)
    native[box] = np.asarray(resized)[top : top + lengths[0], left : left + lengths[1]]
    return native


def write_map(path: Path, values: np.ndarray, scan: Scan, slope: float) -> None:
    """Write a volume on the grid and in the axis order of the scan's file.

    The header is made anew, so that nothing of the input's header but its grid is in it.

    Args:
        path: .nii.gz; the same values give the same bytes.
        values: (slices, H, W) uint8 in KiTS order.
        scan: the scan.
        slope: what a value of 1 stands for.
    """
    turned = apply_orientation(values, scan.back)
    affine = scan.grid.affine @ inv_ornt_aff(scan.back, scan.grid.shape)
    image = nib.Nifti1Image(turned, affine)
    image.header.set_slope_inter(slope, 0)
    image.header.set_xyzt_units("mm")
    with (
        replacing(path) as beside,
        beside.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=raw, mtime=0) as stream,
    ):
        image.to_stream(stream)
