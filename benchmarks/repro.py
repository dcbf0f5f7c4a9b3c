"""`dvc repro` with nothing to do, against the same graph with empty commands.

Nothing runs in either, so they can only differ if a stage were wrongly out of date or its files were hashed anew.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.preparation import ROOT
from benchmarks.timing import at_most, ratio, side_by_side, spread

COMMAND = re.compile(r"^( *cmd: ).*$", re.MULTILINE)
ROUNDS = 7


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the smoke study, empty its commands in a copy, and measure both with nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        ours, empty = Path(folder) / "ours", Path(folder) / "empty"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(ours)], check=True)
        shutil.copyfile(ours / "studies/smoke.yaml", ours / "params.yaml")
        (ours / "dvc.lock").unlink()
        _call(ours, sys.executable, "-m", "stages")
        shutil.copytree(ours, empty, symlinks=True)
        for name in ("dvc.yaml", "dvc.lock"):
            file = empty / name
            file.write_text(COMMAND.sub(r"\1'true'", file.read_text(encoding="utf-8")), encoding="utf-8")
        for study in (ours, empty):
            if "Running stage" in _call(study, "dvc", "repro"):
                raise SystemExit(f"{study}: a finished study ran stages again")
        seconds = side_by_side(
            {name: partial(_call, Path(folder) / name, "dvc", "repro") for name in ("ours", "empty")},
            rounds=ROUNDS,
            label="repro",
        )
    took = ratio(seconds, "empty", "ours")["median"]
    row = at_most("dvc repro of the smoke study with nothing to do", "the same graph with empty commands", took, 1.2)
    return [row], {"repro with nothing to do, seconds": spread(seconds)}


def _call(folder: Path, *command: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(folder / "src"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.with_name(f"{folder.name}-site-cache")),
    }
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}: {ended.stderr}")
    return ended.stdout
