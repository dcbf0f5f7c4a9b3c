"""How a stage comes by a case's volumes: the phantom's store, and reading with every check."""

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from kidney_ssl.data import manifest
from kidney_ssl.data.cases import each_case
from kidney_ssl.data.volume import check_pair, label_areas, read_volume
from kidney_ssl.errors import InputError

RECIPE = "phantom.json"  # beside a phantom's volumes: what they were made from, and their sha256


def fill_phantom_store(
    store: Path, names: list[str], *, cases: int, size: int, slices: float, seed: int, workers: int
) -> None:
    """Make the phantom's cases that the store lacks.

    A case is kept when its recipe (parameters and the generator's source) and the sha256 of both volumes agree.

    Args:
        store: folder of the volumes.
        names: the cases to have, case_00000 onwards.
        cases: see `phantom.make_case`.
        size: see `phantom.make_case`.
        slices: see `phantom.make_case`.
        seed: see `phantom.make_case`.
        workers: cases at a time.

    Raises:
        InputError: a case folder holds volumes that this source did not make; they are left alone.
    """
    from kidney_ssl.data import phantom  # noqa: PLC0415 - SciPy's filters, for this source alone

    code = b"".join(path.read_bytes() for path in phantom.SOURCES)
    recipe = {
        "cases": cases,
        "generator": hashlib.sha256(code).hexdigest(),
        "seed": seed,
        "size": size,
        "slices": slices,
    }
    make = partial(_phantom_case, store=store, recipe=recipe)
    each_case(make, names, workers=workers, description="phantom")


def _phantom_case(case: str, *, store: Path, recipe: dict[str, int | float | str]) -> None:
    from kidney_ssl.data import phantom  # noqa: PLC0415

    folder = store / case
    volumes = [folder / "imaging.nii.gz", folder / "segmentation.nii.gz"]
    note = folder / RECIPE
    if note.exists():
        kept = json.loads(note.read_text())
        if kept["recipe"] == recipe and [manifest.sha256(v) if v.exists() else "" for v in volumes] == kept["sha256"]:
            return
        # From here to the new note nothing vouches for the volumes.
        note.unlink()
    elif any(volume.exists() for volume in volumes) and not (folder / "phantom.tmp").exists():
        raise InputError(
            f"{folder} holds volumes that are not the phantom's: set data.raw_dir to another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "phantom.tmp").touch()
    number, options = int(case.removeprefix("case_")), {k: v for k, v in recipe.items() if k != "generator"}
    phantom.write_case(folder, number, **options)
    beside = folder / "phantom.tmp"
    beside.write_text(json.dumps({"recipe": recipe, "sha256": [manifest.sha256(v) for v in volumes]}, sort_keys=True))
    beside.replace(note)


@dataclass(frozen=True)
class Reader:
    """Reads the cases of a manifest, each file verified before it is used; picklable, for the workers.

    Attributes:
        store: folder of the volumes.
        files: case -> kind ("imaging", "segmentation") -> row of the manifest.
    """

    store: Path
    files: dict[str, dict[str, manifest.Row]]

    def areas(self, case: str) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Count the pixels of each label: (slices, 4) int64, and the spacing in mm (slices, rows, columns)."""
        areas, grid = label_areas(self._verified(case, "segmentation"))
        return areas, grid.spacing_mm

    def volumes(self, case: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float], tuple[str, ...]]:
        """Read imaging (int16 HU) and labels (uint8), both (slices, H, W), the in-plane spacing in mm, and notes."""
        imaging, segmentation = (self._verified(case, kind) for kind in ("imaging", "segmentation"))
        check_pair(imaging, segmentation)
        labels = read_volume(segmentation, np.uint8)
        volume = read_volume(imaging)
        _, row_mm, column_mm = volume.grid.spacing_mm
        return volume.array, labels.array, (row_mm, column_mm), volume.notes

    def fingerprint(self, case: str) -> str:
        """Identify the volumes of a case by their checksums."""
        return " ".join(self.files[case][kind].sha256 for kind in sorted(self.files[case]))

    def without(self, kind: str, cases: list[str]) -> list[str]:
        """List the cases that the manifest has no such file for."""
        return [case for case in cases if kind not in self.files.get(case, {})]

    def _verified(self, case: str, kind: str) -> Path:
        return manifest.verified(self.store, self.files[case][kind])
