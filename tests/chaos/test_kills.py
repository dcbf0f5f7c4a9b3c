"""Killed at any moment, the study goes on, leaves no process behind, and ends as an unbroken one."""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from kidney_ssl.yamlfile import read_yaml
from tests.project_copy import Project, repository, running

LONGEST = 600.0  # seconds that any wait takes
POLL = 0.1  # seconds; each look at all processes takes milliseconds from those that are looked at
ENDED = 30.0  # seconds after which nothing of a killed run is left
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
# When, which process, by what. `main` is `python -m stages`, `ask` its first `dvc repro`.
# SIGINT goes to all of its group, as Ctrl-C does.
PLAN = [
    ("data", "stage", KILL),
    ("data", "dvc", KILL),
    ("data", "main", TERM),
    ("data", "ask", KILL),
    ("sweep", "worker", KILL),
    ("sweep", "main", KILL),
    ("sweep", "main", TERM),
    ("sweep", "main", INT),
    ("collect", "stage", KILL),
    ("collect", "main", KILL),
    ("collect", "dvc", KILL),
]
TRAININGS = ("pretrain", "finetune", "explain")


def until(what: Callable[[], object], seconds: float = LONGEST) -> bool:
    """Wait for something; whether it came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(POLL)
    return False


def unlocked(project: Project) -> bool:
    """Whether nobody holds DVC's lock of the project."""
    with (project.folder / ".dvc/tmp/lock").open() as lock, suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


class Killed:
    """A copy of the smoke study whose `python -m stages` is killed over and over.

    Attributes:
        hits: kind of process and of moment of each kill.
        resumed: how often a worker was killed with a checkpoint.
        orphans: commands that ran on for longer than `ENDED` after a kill.
        codes: exit codes of runs that ended by themselves, in which nothing was killed.
    """

    def __init__(self, folder: Path, seed: int, workers: int) -> None:
        self.project = repository(folder)
        self.project.change({"compute.checkpoint_minutes": 0})
        self.workers, self.chance = workers, random.Random(seed)
        self.log = folder.with_suffix(".log")
        self.hits: list[tuple[str, str]] = []
        self.resumed = 0
        self.orphans: list[list[str]] = []
        self.codes: list[int] = []
        self.before: list[subprocess.Popen] = []
        self.old: set[int] = set()

    def start(self) -> subprocess.Popen:
        """Start `python -m stages` in a process group of its own, its output in a file."""
        self.old = {process.pid for of_kind in self.processes().values() for process in of_kind}
        with self.log.open("ab") as log:
            main = subprocess.Popen(
                ["python", "-m", "stages", str(self.workers)],
                cwd=self.project.folder,
                env=self.project.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.before.append(main)
        return main

    def victims(self, victim: str) -> list[psutil.Process]:
        """Processes of a kind that the last start has brought."""
        return [process for process in self.processes().get(victim, []) if process.pid not in self.old]

    def processes(self) -> dict[str, list[psutil.Process]]:
        """What runs in the copy, by kind."""
        found: dict[str, list[psutil.Process]] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, FileNotFoundError):
                if process.cwd() == str(self.project.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.setdefault(kind(process.cmdline()), []).append(process)
        return found

    def at(self, moment: str) -> bool:
        """Whether the study is in one of its three parts."""
        store = self.project.folder / "checkpoints/store"
        made = len(list(store.glob("runs/*/entry.json")))
        if moment == "sweep":
            return bool(list(store.glob("unfinished/*.pt")))
        return (made == 0) if moment == "data" else (made == self.trainings and not self.victims("worker"))

    @property
    def trainings(self) -> int:
        params = self.project.params
        runs = sum(map(len, params["runs"].values()))
        return len(params["pretrain"]["methods"]) + len(params["arms"]) * (runs + 1)

    def run_and_kill(self, moment: str, victim: str, by: signal.Signals) -> None:
        """Start, wait for a moment and a process, let a random time pass, kill, and wait for the end of all."""
        main, wait = self.start(), self.chance.uniform(0, 3 if victim == "main" else 1)
        began = len(self.hits)
        while main.poll() is None:
            if (len(self.hits) > began or self.at(moment)) and self.victims(victim):
                time.sleep(wait)
                if self.kill(moment, victim, by, main) and victim != "worker":
                    break  # of the workers all go, one after the other
                wait /= 2  # the next one may be as short
            time.sleep(POLL)
        else:
            self.codes += [main.returncode] if len(self.hits) == began else []
        if victim != "main" and not until(lambda: main.poll() is not None, ENDED):
            main.kill()  # it goes on without what was killed, and there would be nothing left to kill
        if by != TERM:  # then the next run begins while this one ends
            self.ended()

    def kill(self, moment: str, victim: str, by: signal.Signals, main: subprocess.Popen) -> bool:
        """Kill one of the victims; False if none is left."""
        alive = self.victims(victim)
        if not alive:
            return False
        hit = self.chance.choice(alive)
        checkpoint = bool(list(self.project.folder.glob("checkpoints/store/unfinished/*.pt")))
        with suppress(psutil.NoSuchProcess):
            hit.send_signal(by) if by != INT else os.killpg(main.pid, by)
            self.hits.append((moment, victim))
            self.resumed += victim == "worker" and checkpoint
        if by == KILL:
            until(lambda: not is_alive(hit))
        return True

    def ended(self) -> None:
        """Note what has not ended in time."""
        if not until(lambda: all(main.poll() is not None for main in self.before) and not self.processes(), ENDED):
            self.orphans += [process.cmdline() for of_kind in self.processes().values() for process in of_kind]
        assert until(lambda: not self.processes())

    def finish(self) -> None:
        main = self.start()
        assert main.wait(LONGEST) == 0, self.log.read_text()
        self.ended()


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def kind(command: list[str]) -> str:
    if "-m" in command:
        module = command[command.index("-m") + 1]
        return {"stages": "main", "stages.sweep": "worker"}.get(module, "stage" if "stages." in module else "other")
    if not any(Path(word).name == "dvc" for word in command):
        return "other"
    return "ask" if "--keep-going" in command else "dvc" if "repro" in command else "other"


def with_cache_of(whole: Project, project: Project) -> None:
    """Link another project's cache, but for what it knows of trainings."""
    shutil.copytree(whole.folder / ".dvc/cache", project.folder / ".dvc/cache", copy_function=os.link)
    for entry in (project.folder / ".dvc/cache/runs").glob("*/*/*"):
        command = read_yaml(entry.read_text())["cmd"]
        if any(f"stages.{name} " in command for name in TRAININGS):
            shutil.rmtree(entry.parent)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The smoke study killed over and over, and then brought to its end."""
    study = Killed(tmp_path_factory.mktemp("killed") / "project", seed=7, workers=2)
    for moment, victim, by in PLAN:
        study.run_and_kill(moment, victim, by)
    study.finish()
    print(f"\nkilled: {Counter(study.hits)}; with a checkpoint: {study.resumed}; ended by themselves: {study.codes}")
    return study


def test_kills_hit_all_kinds_of_processes_at_all_moments(killed):
    planned = {(moment, victim) for moment, victim, _ in PLAN}
    assert len(planned & set(killed.hits)) >= len(planned) - 2  # a process may end just before its kill


def test_trainings_were_killed_with_a_checkpoint(killed):
    assert killed.resumed


def test_no_process_outlives_a_run_that_was_killed(killed):
    assert killed.orphans == []


def test_no_run_fails_beside_what_a_killed_one_left(killed):
    assert [code for code in killed.codes if code] == []
    assert "is busy" not in killed.log.read_text()


def assert_same(found, whole):
    # As content: DVC adds stages to the file in the order in which they end. The check of params.yaml reads its text.
    locks = [read_yaml((project.folder / "dvc.lock").read_text())["stages"] for project in (found, whole)]
    for stages in locks:
        del stages["params"]
    assert locks[0] == locks[1]
    for folder in ("models", "metrics", "plots", "report"):
        files = [
            {path.relative_to(project.folder): path for path in (project.folder / folder).rglob("*") if path.is_file()}
            for project in (found, whole)
        ]
        for of_project in files:
            of_project.pop(Path("report/index.html"), None)  # no output of DVC: it tells what this machine took
        assert files[0].keys() == files[1].keys()
        assert [name for name in files[0] if files[0][name].read_bytes() != files[1][name].read_bytes()] == []


def test_a_killed_study_ends_with_the_lock_of_an_unbroken_one(killed, smoke_run):
    assert_same(killed.project, smoke_run)


def test_nothing_of_the_interruptions_is_left(killed):
    assert killed.project.unfinished() == []
    assert running(killed.project.succeed("dvc", "repro")) == []


def test_each_training_is_in_the_store_once(killed, smoke_run):
    assert killed.project.stored() == smoke_run.stored()


@pytest.fixture(scope="module")
def swept(smoke_run, tmp_path_factory):
    """The trainings of the smoke study by four workers that die one after the other, twice; then by who is left."""
    study = Killed(tmp_path_factory.mktemp("swept") / "project", seed=13, workers=4)
    with_cache_of(smoke_run, study.project)
    study.run_and_kill("sweep", "worker", KILL)
    main = study.start()
    for _ in range(2):
        until(lambda: main.poll() is not None or (study.at("sweep") and study.victims("worker")))
        for worker in study.victims("worker")[-1:]:
            worker.kill()
    main.wait(LONGEST)
    study.project.succeed("python", "-m", "stages.sweep")
    return study


def test_four_workers_that_are_killed_leave_the_store_of_an_unbroken_study(swept, smoke_run):
    assert swept.resumed
    assert swept.orphans == []
    assert swept.project.stored() == smoke_run.stored()
    for key in smoke_run.stored():
        files = [
            json.loads((folder / key / "entry.json").read_text())["files"]
            for folder in map(runs, (swept.project, smoke_run))
        ]
        for listed in files:
            listed.pop("cost.json", None)  # what it took; Grad-CAM notes none
        assert files[0] == files[1]


def runs(project):
    return project.folder / "checkpoints/store/runs"


def test_without_its_results_a_study_with_its_store_trains_nothing_and_has_the_same_lock(swept, smoke_run):
    project = swept.project
    for name in ("models", "metrics", "report"):
        shutil.rmtree(project.folder / name, ignore_errors=True)
    before = {path: path.stat().st_ino for path in runs(project).glob("*/entry.json")}
    ran = running(project.succeed("dvc", "repro"))
    assert {f"finetune@{arm}" for arm in project.params["arms"]} <= set(ran)
    assert {path: path.stat().st_ino for path in runs(project).glob("*/entry.json")} == before
    assert_same(project, smoke_run)


def test_no_stage_starts_beside_one_that_a_killed_dvc_left(tmp_path):
    project = repository(tmp_path / "project")
    project.succeed("dvc", "repro", "source")
    kept = project.folder / "checkpoints/dvc.lock"
    kept.unlink()
    dvc = subprocess.Popen(
        ["dvc", "repro", "download"],
        cwd=project.folder,
        env=project.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    claim = project.folder / "checkpoints/running/download.json"
    # A stage that begins holds DVC's own lock while it copies dvc.lock: suspended there, it would stop any DVC.
    assert until(lambda: (claim.exists() and kept.exists() and unlocked(project)) or dvc.poll() is not None)
    left = psutil.Process(json.loads(claim.read_text())["process"])
    left.suspend()
    dvc.kill()
    dvc.wait()
    try:
        ended = project.run("dvc", "repro", "download")
        assert ended.returncode != 0
        assert f"process {left.pid} on" in ended.stdout + ended.stderr
    finally:
        left.resume()
    with suppress(psutil.NoSuchProcess):
        left.wait(LONGEST)
    project.succeed("dvc", "repro", "download")
