"""The kits23 study's trainings by four workers, with stand-ins for the trainings alone, and with one more seed."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.preparation import ROOT
from benchmarks.timing import exactly
from kidney_ssl.config import load
from kidney_ssl.engine.store import RunStore
from kidney_ssl.jobs.all import study_jobs
from kidney_ssl.jobs.base import Job
from kidney_ssl.jobs.study import Study
from kidney_ssl.jobs.sweep import sweep
from kidney_ssl.yamlfile import dump_yaml, read_yaml

WORKERS = 4


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make all trainings, then those of one more seed at the full budget."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        params = read_yaml((ROOT / "studies/kits23.yaml").read_text(encoding="utf-8"))
        runs = len(params["arms"]) * sum(map(len, params["runs"].values()))
        first = _sweep(folder, params, WORKERS)
        params["runs"][100].append(max(params["runs"][100]) + 1)
        more = _sweep(folder, params, 1) - first
    once = sum(first[job] == 1 for job in first if job.startswith("finetune "))
    rows = [
        exactly(f"runs of kits23 made once by {WORKERS} workers", "trainings that only write", once, runs),
        exactly("trainings made for one more seed of kits23", "-", more.total(), len(params["arms"])),
    ]
    return rows, {"trainings of kits23": {"made": first.total(), "most often": max(first.values())}}


def _sweep(folder: Path, params: Mapping[str, Any], workers: int) -> Counter[str]:
    """Let workers make what is missing in a store; how often each training has been made there in all."""
    (folder / "params.yaml").write_text(dump_yaml(dict(params)), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src{os.pathsep}{ROOT}", "KIDNEY_SWEEP": folder.name}
    commands = [[sys.executable, "-m", "benchmarks.workers", str(at), str(workers)] for at in range(1, workers + 1)]
    started = [
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) for command in commands
    ]
    if sum(worker.wait() for worker in started):
        raise SystemExit("a worker failed")
    return Counter((folder / "journal").read_text(encoding="utf-8").splitlines())


class _Study(Study):
    """A study whose inputs are all there."""

    def checksums(self, files: Mapping[str, Path]) -> dict[str, str]:
        return {name: str(path) for name, path in files.items()}


class _StandIn(Job):
    """A job of the study that trains nothing: it writes a line into a journal, and the files that are needed."""

    def __init__(self, job: Job) -> None:
        self.job, self.name, self.needs = job, job.name, job.needs

    def key(self) -> str | None:
        return self.job.key()

    def describe(self) -> Mapping[str, Any]:
        return {"job": self.name}

    def train(self, folder: Path, checkpoint: Path) -> None:
        journal = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(journal, f"{self.name}\n".encode())
        os.close(journal)
        for name in self.needs:
            (folder / name).write_text(self.name, encoding="utf-8")


def main(share: str, shares: str) -> None:
    """Be a worker over the study of params.yaml in this folder."""
    study = _Study(load())
    study.store = RunStore(Path("store"), 1)
    jobs = [_StandIn(job) for job in study_jobs(study)]
    if sweep(study.store, jobs, share=int(share), shares=int(shares)):
        raise SystemExit("a stand-in failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
