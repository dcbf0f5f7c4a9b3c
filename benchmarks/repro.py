"""CPU seconds of DVC itself: whole studies whose commands only write their outputs.

What `dvc repro` and all that it started took, user and system, less what the stand-ins noted of themselves. The shell
that DVC starts each command with counts as DVC's. Outputs have as many files as real ones, of a line each.
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copyfile
from typing import Any

from benchmarks.preparation import ROOT
from benchmarks.timing import at_most
from kidney_ssl.jobs.finetuning import FILES, MODEL
from kidney_ssl.yamlfile import read_yaml

ROUNDS = 5
COMMAND = re.compile(r"cmd: python -m stages\.(\w+)( \$\{key\})?$", re.MULTILINE)
STAND_IN = """
import os, sys
here, stage = os.path.split(sys.argv[1])
with open(f"{here}/files/{stage}") as listed:
    for name in listed.read().split():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "w") as out:
            out.write(name + chr(10))
with open(f"{here}/took", "a") as took:
    took.write(f"{sum(os.times()[:2])}" + chr(10))
"""


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run kits23 to its end, and the default study with nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Study(Path(folder) / "kits23", "studies/kits23.yaml")
        everything, stand_ins = whole.repro(), whole.stand_ins()
        own = everything - stand_ins
        lines = (whole.project / "dvc.lock").read_text(encoding="utf-8").count("\n")
        default = Study(Path(folder) / "default", "params.yaml")
        default.repro()
        again = [default.repro() for _ in range(ROUNDS)]
        if default.stages != default.count():
            raise SystemExit("a finished study ran stages again")
    rows = [
        at_most("CPU seconds of DVC over the kits23 study", "commands that only write", own, 600, digits=0),
        at_most("CPU seconds of dvc repro of the default study with nothing to do", "-", statistics.median(again), 5),
    ]
    measured = {"stages": whole.stages, "lock, lines": lines, "stand-ins, CPU seconds": round(stand_ins, 1)}
    idle = {"stages": default.stages, "CPU seconds": [round(one, 2) for one in again]}
    return rows, {"DVC over kits23": measured, "dvc repro with nothing to do": idle}


class Study:
    """A clone of the project with a study of it, whose commands are stand-ins.

    Args:
        folder: for the clone and what the stand-ins need; it is made.
        params: the study's file.
    """

    def __init__(self, folder: Path, params: str) -> None:
        self.folder, self.project = folder, folder / "project"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.project)], check=True)
        copyfile(ROOT / params, self.project / "params.yaml")
        (self.project / "dvc.lock").unlink()
        (folder / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
        graph = self.project / "dvc.yaml"
        start = f"cmd: {sys.executable} -S -E {folder}/stand_in.py {folder}/"
        text = COMMAND.sub(
            lambda found: start + found[1] + ("@${key}" if found[2] else ""), graph.read_text(encoding="utf-8")
        )
        graph.write_text(text, encoding="utf-8")
        self.stages = self._list_files()

    def repro(self) -> float:
        """Run `dvc repro`; CPU seconds of it and all that it started."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(self.folder / "site-cache")}
        command = [sys.executable, "-m", "dvc", "repro"]
        ended = subprocess.run(command, cwd=self.project, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"dvc repro ended with {ended.returncode}: {ended.stdout[-500:]}{ended.stderr}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def stand_ins(self) -> float:
        """CPU seconds of all stand-ins that ran."""
        return sum(map(float, (self.folder / "took").read_text(encoding="ascii").split()))

    def count(self) -> int:
        """How many stand-ins ran."""
        return len((self.folder / "took").read_text(encoding="ascii").split())

    def _list_files(self) -> int:
        """Write for each stage which files it makes; the number of stages."""
        from dvc.repo import Repo

        params = read_yaml((self.project / "params.yaml").read_text(encoding="utf-8"))
        runs = [f"{percent}-{seed}" for percent, seeds in params["runs"].items() for seed in seeds]
        inside = {
            "finetune": [f"{one}/{file}" for one in runs for file in (*FILES, MODEL)],
            "explain": [f"{at}.webp" for at in range(20)],
            "pretrain": ["examples.png"],
        }
        (self.folder / "files").mkdir()
        with Repo(str(self.project)) as repo:
            stages = list(repo.index.stages)
        read = {dep.def_path for stage in stages for dep in stage.deps}
        for stage in stages:
            files = []
            for out in (one.def_path for one in stage.outs):
                within = [path for path in read if path.startswith(f"{out}/") and Path(path).suffix]
                named = [f"{out}/{file}" for file in inside.get(stage.name.partition("@")[0], ["file"])]
                files += [out] if Path(out).suffix else [*within, *named]
            (self.folder / "files" / stage.name).write_text("\n".join(files), encoding="utf-8")
        return len(stages)
