"""Killed at any moment, the study goes on and ends as an unbroken one."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from project_copy import Project, repository

KILLS = 20  # at least
KINDS = 8  # of eleven kinds of stages, that are hit at least
TRAININGS = ("pretrain", "finetune")
AIMED = {"pretrain": 3, "finetune": 3, "evaluate": 3, "explain": 3}  # kills at a kind of stages; 2 at the others
RESTORED = ("inpaint_random", "simclr", "50-0")  # their trainings come from DVC's run cache: they are like the others
LONGEST = 600.0  # seconds that any wait takes


class Killed:
    """A copy of the project whose `dvc repro` is killed over and over.

    Attributes:
        hits: the stages that were running at a kill, one entry a kill.
        refused: the stages that a left process kept from being started beside it.
        resumed: the trainings that had a checkpoint when they were killed.
        torn: how often dvc was killed while it wrote its own files.
    """

    def __init__(self, folder: Path, whole: Project, seed: int) -> None:
        self.project = repository(folder)
        self.project.change({"compute.checkpoint_minutes": 0})
        shutil.copytree(whole.folder / ".dvc/cache", folder / ".dvc/cache", copy_function=os.link)
        for entry in (folder / ".dvc/cache/runs").glob("*/*/*"):
            if not any(word.startswith(RESTORED) for word in yaml.safe_load(entry.read_text())["cmd"].split()):
                shutil.rmtree(entry.parent)
        self.log = folder.with_suffix(".log")
        self.chance = random.Random(seed)
        self.hits: list[str] = []
        self.refused: list[str] = []
        self.resumed: list[str] = []
        self.torn = 0

    def start(self) -> subprocess.Popen:
        """Start `dvc repro` in a process group of its own, its output in a file."""
        with self.log.open("ab") as log:
            log.write(b"--- dvc repro\n")
            log.flush()
            return subprocess.Popen(
                ["dvc", "repro"],
                cwd=self.project.folder,
                env=self.project.environment | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stages(self) -> list[str]:
        """The stages that the last `dvc repro` has started."""
        return re.findall(r"Running stage '([^']+)'", self.last())

    def last(self) -> str:
        """What the last `dvc repro` printed."""
        return self.log.read_text(errors="replace").split("--- dvc repro\n")[-1]

    def one_run(self) -> int | None:
        """Run until a stage that may be killed, and kill; the exit code of a run that ended by itself."""
        dvc, seen = self.start(), 0
        while dvc.poll() is None:
            started = self.stages()
            for stage in started[seen:]:
                if self.kinds()[kind(stage)] < AIMED.get(kind(stage), 2):
                    self.wait_in(stage, dvc)
                    if self.kill(dvc):
                        return None
            seen = len(started)
            time.sleep(0.02)
        return dvc.returncode

    def wait_in(self, stage: str, dvc: subprocess.Popen) -> None:
        """Let some of a stage's time pass; of a training, the first time, until it has a checkpoint."""
        if kind(stage) in TRAININGS and stage not in self.hits:
            end = time.monotonic() + LONGEST
            while not self.checkpoints(stage) and self.stages()[-1] == stage and dvc.poll() is None:
                assert time.monotonic() < end, self.last()
                time.sleep(0.02)
            time.sleep(self.chance.uniform(0, 0.05))  # these trainings take a second or two
        else:
            # The first time soon, while it surely runs; then within about what a stage takes, or in the next one.
            time.sleep(self.chance.uniform(0, 3 if self.kinds()[kind(stage)] else 0.5))

    def kinds(self) -> Counter:
        return Counter(map(kind, self.hits))

    def checkpoints(self, stage: str) -> list[Path]:
        return list((self.project.folder / "checkpoints").glob(f"{label(stage)}-*.pt"))

    def kill(self, dvc: subprocess.Popen) -> bool:
        """SIGKILL to all processes, every third time to dvc alone; whether it was still running."""
        alone = len(self.hits) % 3 == 2
        (os.kill if alone else os.killpg)(dvc.pid, signal.SIGKILL)
        if dvc.wait() != -signal.SIGKILL:
            return False
        stage = self.stages()[-1]
        self.hits.append(stage)
        if self.checkpoints(stage):
            self.resumed.append(stage)
        if alone:
            self.second_beside_the_left_one(stage)
        return True

    def second_beside_the_left_one(self, stage: str) -> None:
        """Try to start a second one beside a stage that outlived its dvc, and is held meanwhile, so that it lives."""
        file = self.project.folder / "checkpoints/running" / f"{label(stage)}.lock"
        try:
            pid = int(re.match(r"process (\d+) on", file.read_text())[1])
            os.kill(pid, signal.SIGSTOP)
        except (FileNotFoundError, TypeError, ProcessLookupError):
            return  # not yet at work, or done
        output = ""
        try:
            # The signal takes a moment, in which the stage may end.
            if stopped(pid) and file.exists():
                ended = self.project.run("dvc", "repro")
                assert ended.returncode != 0
                output = ended.stdout + ended.stderr
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if output:
            self.after_failure(output)

    def after_failure(self, output: str) -> None:
        """What a person does when `dvc repro` ends with an error: waits for the process that is named, or mends."""
        left = re.search(r"error: (\S+): already at work in process (\d+) on (\S+) since", output)
        if not left:
            self.mend(output)
            return
        assert left[3] == socket.gethostname()
        self.refused.append(left[1])
        end = time.monotonic() + LONGEST
        while alive(int(left[2])):
            assert time.monotonic() < end
            time.sleep(0.05)

    def mend(self, output: str) -> None:
        """What a dvc that was killed while writing needs; `make repro` does it by itself."""
        said = self.project.succeed("python", "-m", "stages.mend")
        assert "was torn" in said, f"{output}\n{said}"
        self.torn += 1


def kind(stage: str) -> str:
    return stage.split("@", maxsplit=1)[0].removesuffix("_extra")


def label(stage: str) -> str:
    """What a stage's lock and checkpoints are called."""
    return re.sub(r"(_extra)?@", "-", stage)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stopped(pid: int) -> bool:
    """Wait until a process that was told to stop does, or is gone."""
    end = time.monotonic() + LONGEST
    while alive(pid):
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                return True
        assert time.monotonic() < end
        time.sleep(0.01)
    return False


@pytest.fixture(scope="module")
def killed(smoke, tmp_path_factory):
    """The smoke study killed over and over, and then brought to its end."""
    study = Killed(tmp_path_factory.mktemp("killed") / "project", smoke, seed=7)
    for _ in range(3 * KILLS):
        code = study.one_run()
        if code == 0:
            break
        if code is not None:
            study.after_failure(study.last())
    else:
        pytest.fail(f"no end: {study.last()}")
    print(f"\nkilled: {Counter(study.hits)}; refused: {study.refused}; resumed: {study.resumed}; torn: {study.torn}")
    return study


def test_kills_hit_stages_of_most_kinds(killed):
    assert len(killed.hits) >= KILLS
    assert len(killed.kinds()) >= KINDS


def test_trainings_were_killed_with_a_checkpoint(killed):
    assert killed.resumed  # how many is a matter of the machine's speed


def test_no_stage_starts_beside_one_that_a_killed_dvc_left(killed):
    assert killed.refused


def test_a_killed_study_ends_with_the_lock_of_an_unbroken_one(killed, smoke):
    # As content: DVC adds stages to the file in the order in which they end.
    locks = [yaml.safe_load((project.folder / "dvc.lock").read_text()) for project in (killed.project, smoke)]
    assert locks[0] == locks[1]


@pytest.mark.parametrize("folder", ["models", "metrics", "plots"])
def test_a_killed_study_ends_with_the_same_files(killed, smoke, folder):
    files = [
        {path.relative_to(project.folder): path for path in (project.folder / folder).rglob("*") if path.is_file()}
        for project in (killed.project, smoke)
    ]
    assert files[0].keys() == files[1].keys()
    assert [name for name in files[0] if files[0][name].read_bytes() != files[1][name].read_bytes()] == []


def test_nothing_of_the_interruptions_is_left(killed):
    left = [path for path in (killed.project.folder / "checkpoints").rglob("*") if path.suffix != ".lock"]
    assert [path for path in left if path.is_file()] == []
    assert "up to date" in killed.project.succeed("dvc", "repro")
