"""Reading a case's volumes with every check."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kidney_ssl.data import manifest
from kidney_ssl.data.arrays import Planes
from kidney_ssl.data.checks import Findings, copy_findings, hu_findings, judge
from kidney_ssl.data.hu_scale import scale_findings
from kidney_ssl.data.parts import kept_part
from kidney_ssl.data.registry import kits23_block
from kidney_ssl.data.volume import compare_grids, label_areas, label_table, read_volume
from kidney_ssl.schema import KITS_LABELS


@dataclass(frozen=True)
class Reader:
    """Reads the cases of a manifest, each file verified before it is used; picklable, for the workers.

    Attributes:
        store: folder of the volumes.
        files: case -> kind ("imaging", "segmentation") -> row of the manifest.
        accept: names of checks whose findings do not refuse a case, see `checks.judge`.
        patients: case -> patient; a case that is missing here is its own patient.
        labels: value in the label files -> organ, tumor, cyst or none.
    """

    store: Path
    files: dict[str, dict[str, manifest.Row]]
    accept: Collection[str] = ()
    patients: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=lambda: dict(KITS_LABELS))  # a plain dict, since it is pickled

    @cached_property
    def copies(self) -> dict[str, Findings]:
        """Findings of `checks.copy_findings` for the cases with imaging."""
        checksums = {case: kinds["imaging"].sha256 for case, kinds in self.files.items() if "imaging" in kinds}
        return copy_findings(checksums, {case: self.patients.get(case, case) for case in checksums})

    def block(self, case: str) -> str:
        """Part of KiTS23 that a case belongs to, or "other"."""
        return kits23_block(self.files[case]["segmentation"].sha256)

    def areas(self, case: str, parts: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
        """Count the pixels of each mask value: (slices, 4) int64, and the spacing in mm (slices, rows, columns).

        The counts are cached in `parts` and reused while the manifest's volume is the same.
        """
        volume = self._verified(case, "segmentation")

        def count() -> dict[str, Any]:
            areas, grid = label_areas(volume, label_table(self.labels))
            return {"areas": areas, "spacing_mm": grid.spacing_mm, "findings": np.array(grid.findings, np.str_)}

        identity = [self.files[case]["segmentation"].sha256, sorted(self.labels.items())]
        with np.load(kept_part(parts, case, identity, count)) as part:
            judge([*self.copies.get(case, ()), *part["findings"].tolist()], self.accept, volume)
            slices_mm, row_mm, column_mm = part["spacing_mm"].tolist()
            return part["areas"], (slices_mm, row_mm, column_mm)

    def volumes(self, case: str) -> tuple[Planes, Planes, tuple[float, float], Findings]:
        """Read imaging (int16 HU) and labels (uint8), both (slices, H, W), in-plane spacing in mm, and findings."""
        imaging, segmentation = (self._verified(case, kind) for kind in manifest.KINDS)
        findings = (*self.copies.get(case, ()), *compare_grids(imaging, segmentation))
        judge(findings, self.accept, f"{imaging} and {segmentation.name}")
        labels = read_volume(segmentation, np.uint8, label_table(self.labels))
        volume = read_volume(imaging)
        _, row_mm, column_mm = volume.grid.spacing_mm
        if not labels.array.any():
            findings = (*findings, "no labelled pixel: all of its slices are background")
        findings = (*findings, *volume.notes, *(hu_findings(volume.array) or scale_findings(volume.array)))
        judge(findings, self.accept, imaging)
        return volume.array, labels.array, (row_mm, column_mm), findings

    def fingerprint(self, case: str) -> str:
        """Identify the volumes of a case and the meaning of its labels, by checksums and values."""
        checksums = (self.files[case][kind].sha256 for kind in sorted(self.files[case]))
        return " ".join([*checksums, str(sorted(self.labels.items()))])

    def without(self, kind: str, cases: list[str]) -> list[str]:
        """List the cases without a file of this kind in the manifest."""
        return [case for case in cases if kind not in self.files.get(case, {})]

    def _verified(self, case: str, kind: str) -> Path:
        return manifest.verified(self.store, self.files[case][kind])
