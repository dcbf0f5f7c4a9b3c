"""Peak memory of the stages select, slice and normalize, with a number of cases and with four times as many."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.timing import at_most, peak_mb, resident_bytes
from kidney_ssl.data.phantom import write_case
from kidney_ssl.yamlfile import dump_yaml, read_yaml

CASES = 8
SIZE = 192
STAGES = ("select", "slice", "normalize")
ROOT = Path(__file__).parents[1]


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure; a row a stage, and the megabytes."""
    peaks: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for cases in (CASES, 4 * CASES):
            study = Path(folder) / str(cases)
            make_study(study, cases)
            peaks[cases] = {name: measured(study, name) for name in STAGES}
    rows = [
        at_most(
            f"peak memory of the stage {stage}, {4 * CASES} cases",
            f"{CASES} cases",
            peaks[4 * CASES][stage] / peaks[CASES][stage],
            1.1,
        )
        for stage in STAGES
    ]
    return rows, {"peak memory, MB": {str(cases): found for cases, found in peaks.items()}}


def make_study(folder: Path, cases: int) -> None:
    """Lay a directory study of phantom cases, each as large as the next: the same few cases under new names."""
    for number in range(cases):
        write_case(folder / "raw" / f"case_{number:05d}", number % CASES, size=SIZE, slices=1.0, seed=0)
    params = read_yaml((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"source": "directory", "root": "raw"}
    params["select"]["min_tumor_px"] *= (SIZE // params["phantom"]["size"]) ** 2
    params["slice"]["image_size"] = SIZE
    (folder / "params.yaml").write_text(dump_yaml(params), encoding="utf-8")
    measured(folder, "download")


def measured(
    folder: Path, stage: str, *arguments: str, memory: Callable[[psutil.Process], int] = resident_bytes
) -> float:
    """Run a stage in a study's folder; its peak memory in MB, workers included."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-m", f"stages.{stage}", *arguments]
    return peak_mb(command, cwd=folder, environment=environment, memory=memory)
