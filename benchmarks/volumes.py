"""Reading volumes: against nibabel, SimpleITK and the bare inflate of the same files, one thread each.

The label volumes are the 26 real ones of ../shared. Imaging is made around real labels: float64, whole HU, kidneys,
tumors and noise inside a round body, air outside.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip
from scipy import ndimage

from benchmarks.timing import at_most, peak_mb, ratio, row, side_by_side, spread
from kidney_ssl.data.volume import label_areas, read_volume

LABELS = Path("../shared/kits23/labels")
IMAGED = ("case_00269", "case_00425", "case_00495")  # 101, 40 and 61 slices; the second is not square
CHUNK = 1 << 20


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure; rows of the table, and what stands behind them."""
    os.environ["OMP_NUM_THREADS"] = "1"
    labels = sorted(LABELS.glob("*/segmentation.nii.gz"))
    if not labels:
        raise SystemExit(f"the benchmark needs the label volumes in {LABELS}")
    rows, details = label_rows(labels)
    with tempfile.TemporaryDirectory() as folder:
        images = [make_imaging(LABELS / case / "segmentation.nii.gz", Path(folder) / case) for case in IMAGED]
        more, measured = imaging_rows(images)
    return rows + more, details | measured


def label_rows(labels: list[Path]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Areas of every slice of the real label volumes."""
    seconds = side_by_side(
        {
            "kidney_ssl label_areas": over(label_areas, labels),
            "isal, chunks thrown away": over(inflate, labels),
            "isal, whole file": over(lambda path: igzip.decompress(path.read_bytes()), labels),
            "nibabel get_fdata, slice by slice": over(areas_by_nibabel, labels[:4]),
        },
        rounds=7,
        label="label areas",
    )
    # nibabel gets the first four volumes only; its time is scaled by voxels.
    voxels = [int(np.prod(nib.load(path).shape)) for path in labels]
    scale = sum(voxels) / sum(voxels[:4])
    slow = "nibabel get_fdata, slice by slice"
    seconds[slow] = [value * scale for value in seconds[slow]]
    ours = "kidney_ssl label_areas"
    work = f"label areas of {len(labels)} real KiTS23 volumes"
    rows = [
        row(work, slow, ratio(seconds, ours, slow), 10),
        row(
            work, "isal, inflated in chunks that are thrown away", ratio(seconds, ours, "isal, chunks thrown away"), 0.4
        ),
        row(work, "isal, whole file inflated at once", ratio(seconds, ours, "isal, whole file"), 0.4),
    ]
    return rows, {"label areas, seconds": spread(seconds), "label areas, voxels": sum(voxels)}


def imaging_rows(images: list[Path]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Float64 imaging to an axial int16 array."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def by_simpleitk(path: Path) -> Any:
        return sitk.DICOMOrient(sitk.ReadImage(str(path), sitk.sitkFloat32), "LPS")

    def by_nibabel(path: Path) -> np.ndarray:
        return nib.load(path).get_fdata(dtype=np.float32)

    for path in images:
        # Equal before faster: LPS arrays run (z, y, x) upwards, ours downwards.
        ours_array = read_volume(path).array
        assert np.array_equal(ours_array, sitk.GetArrayFromImage(by_simpleitk(path))[::-1])
        assert np.array_equal(ours_array, by_nibabel(path))
    ours = "kidney_ssl read_volume"
    readers: dict[str, Callable[[Path], object]] = {
        ours: read_volume,
        "SimpleITK float32 LPS": by_simpleitk,
        "nibabel float32": by_nibabel,
        "isal": inflate,
    }
    seconds = side_by_side(
        {name: over(read, images) for name, read in readers.items()},
        rounds=7,
        label="imaging",
    )
    work = f"float64 imaging of {len(images)} cases to axial int16"
    rows = [
        row(work, "SimpleITK to float32 in LPS", ratio(seconds, ours, "SimpleITK float32 LPS"), 4),
        row(work, "nibabel get_fdata(float32)", ratio(seconds, ours, "nibabel float32"), 2),
        row(work, "isal, inflated in chunks that are thrown away", ratio(seconds, ours, "isal"), 0.5),
    ]
    memory = {}
    for path in images:
        array_mb = read_volume(path).array.nbytes / 2**20
        memory[path.parent.name] = {
            "int16 volume MB": round(array_mb, 1),
            "peak of a process that reads it MB": round(
                peak_mb([sys.executable, "-m", "benchmarks.volumes", str(path)]), 1
            ),
        }
    worst = max(one["peak of a process that reads it MB"] - one["int16 volume MB"] for one in memory.values())
    work = "peak memory of a process that reads a volume, without the int16 volume, MB"
    rows.append(at_most(work, "-", worst, 300, digits=1))
    return rows, {"imaging, seconds": spread(seconds), "imaging, memory": memory}


def over(work: Callable[[Path], object], paths: list[Path]) -> Callable[[], None]:
    """Run `work` on one path after the other and let go of each result, so that no candidate holds two volumes."""

    def run_all() -> None:
        for path in paths:
            work(path)

    return run_all


def inflate(path: Path) -> None:
    """Inflate a file in chunks and throw them away: what no reader can beat."""
    with igzip.open(path, "rb") as stream:
        while stream.read(CHUNK):
            pass


def areas_by_nibabel(path: Path) -> list[list[int]]:
    """Count the labels slice by slice, as one writes it without thinking of speed."""
    data = nib.load(path).get_fdata()
    return [[int((data[k] == label).sum()) for label in (1, 2, 3)] for k in range(data.shape[0])]


def make_imaging(labels: Path, folder: Path) -> Path:
    """Write float64 imaging on the grid of a real label volume."""
    image = nib.load(labels)
    mask = np.asarray(image.dataobj)
    rng = np.random.default_rng(0)
    grain = ndimage.gaussian_filter(rng.normal(0, 60, mask.shape).astype(np.float32), (0, 0.7, 0.7))
    hu = np.where(mask > 0, 150, -60) + grain
    rows, columns = mask.shape[1:]
    away = np.hypot((np.arange(rows)[:, None] / rows - 0.5) / 0.42, (np.arange(columns) / columns - 0.5) / 0.46)
    hu[:, away > 1] = -1000
    folder.mkdir()
    path = folder / "imaging.nii.gz"
    path.write_bytes(igzip.compress(nib.Nifti1Image(np.rint(hu).astype(np.float64), image.affine).to_bytes(), 1))
    return path


if __name__ == "__main__":
    read_volume(Path(sys.argv[1]))
