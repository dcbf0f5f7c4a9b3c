"""GPUs of a machine, here those that a stand-in for nvidia-smi lists, shared out to workers."""

import os
import sys

import pytest

from kidney_ssl.engine.store import RunStore
from kidney_ssl.jobs.pool import run_workers, visible_gpus, worker_environments
from kidney_ssl.jobs.progress import Progress

WHOLE = [f"GPU {at}: NVIDIA H100 (UUID: GPU-{at})" for at in range(8)]
PARTS = ["  MIG 3g.40gb Device 0: (UUID: MIG-a)", "  MIG 3g.40gb Device 1: (UUID: MIG-b)"]
SAY = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['CUDA_VISIBLE_DEVICES'])"


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Have `nvidia-smi --list-gpus` print some lines."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def say(lines):
        command = tmp_path / "nvidia-smi"
        command.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
        command.chmod(0o755)

    return say


def test_eight_workers_see_eight_gpus(nvidia_smi, tmp_path):
    nvidia_smi(WHOLE)
    gpus = visible_gpus()
    commands = [[sys.executable, "-c", SAY, str(tmp_path / f"{at}.gpu")] for at in range(8)]
    assert run_workers(commands, worker_environments(8, gpus), Progress(RunStore(tmp_path, 1), [])) == []
    assert sorted(path.read_text() for path in tmp_path.glob("*.gpu")) == [str(at) for at in range(8)]


def test_a_gpu_in_parts_is_used_by_its_parts(nvidia_smi):
    nvidia_smi([WHOLE[0], *PARTS, WHOLE[1]])
    assert visible_gpus() == ["MIG-a", "MIG-b", "1"]


@pytest.mark.parametrize("given", ["GPU-3,MIG-b", "2,0"])
def test_the_environments_names_are_kept(nvidia_smi, monkeypatch, given):
    nvidia_smi(WHOLE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == given.split(",")


def test_without_a_driver_there_is_no_gpu(nvidia_smi, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert visible_gpus() == []
