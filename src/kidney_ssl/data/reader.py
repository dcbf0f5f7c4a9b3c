"""Reading a case's volumes with every check."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kidney_ssl.data import manifest
from kidney_ssl.data.parts import part_of, write_part
from kidney_ssl.data.volume import check_pair, label_areas, read_volume


@dataclass(frozen=True)
class Reader:
    """Reads the cases of a manifest, each file verified before it is used; picklable, for the workers.

    Attributes:
        store: folder of the volumes.
        files: case -> kind ("imaging", "segmentation") -> row of the manifest.
    """

    store: Path
    files: dict[str, dict[str, manifest.Row]]

    def areas(self, case: str, parts: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Count the pixels of each label: (slices, 4) int64, and the spacing in mm (slices, rows, columns).

        What was counted is kept in `parts`, an existing folder, and taken from there the next time, if the volume is
        still the one of the manifest.
        """
        volume = self._verified(case, "segmentation")
        path = part_of(parts, case, self.files[case]["segmentation"].sha256)
        if path.exists():
            with np.load(path) as part:
                slices_mm, row_mm, column_mm = part["spacing_mm"].tolist()
                return part["areas"], (slices_mm, row_mm, column_mm)
        areas, grid = label_areas(volume)
        write_part(path, areas=areas, spacing_mm=grid.spacing_mm)
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
