"""Workers over stand-in trainings: each is made once, whoever dies, fails or waits."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from kidney_ssl.engine.store import RunStore
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.base import is_done, obtain
from kidney_ssl.jobs.pool import run_workers, worker_count, worker_environments
from kidney_ssl.jobs.progress import Progress
from kidney_ssl.jobs.sweep import sweep
from tests.unit.jobs.stand_in import StandIn, jobs_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    return RunStore(folder, 1)


def command(store, count, share=1, shares=1, seconds=0.0):
    numbers = map(str, (count, share, shares, seconds))
    return [sys.executable, "-m", "tests.unit.jobs.stand_in", str(store.folder), *numbers]


def journal(store):
    return Counter((store.folder / "journal").read_text().splitlines())


def test_one_worker_makes_every_job_once(store):
    jobs = jobs_of(store, 30)
    assert sweep(store, jobs) == []
    assert all(is_done(store, job) for job in jobs)
    assert journal(store) == Counter({f"{job.name} begun": 1 for job in jobs})


def test_a_second_sweep_makes_nothing(store):
    sweep(store, jobs_of(store, 5))
    sweep(store, jobs_of(store, 5))
    assert journal(store).total() == 5


def test_one_more_job_is_the_only_one_made(store):
    sweep(store, jobs_of(store, 5))
    sweep(store, jobs_of(store, 6))
    assert journal(store)["run 5 begun"] == 1
    assert journal(store).total() == 6


def test_four_workers_make_every_job_once(store):
    jobs = jobs_of(store, 120)
    commands = [command(store, 120, share, 4) for share in range(1, 5)]
    assert run_workers(commands, [{"PYTHONPATH": f"{ROOT}/src:{ROOT}"}] * 4, Progress(store, jobs)) == []
    assert journal(store) == Counter({f"{job.name} begun": 1 for job in jobs})


def test_a_failed_job_is_told_and_the_others_go_on(store, capsys):
    broken = StandIn(store, 1, fails=True)
    jobs = [broken, StandIn(store, 2), StandIn(store, 3, after=broken)]
    assert [line.partition(":")[0] for line in sweep(store, jobs)] == ["run 1", "run 3"]
    assert [is_done(store, job) for job in jobs] == [False, True, False]
    assert "FAILED run 1" in capsys.readouterr().out
    assert journal(store)["run 1 begun"] == 1


def test_a_failed_job_is_tried_anew_by_the_next_sweep(store, monkeypatch):
    monkeypatch.setenv("KIDNEY_SWEEP", "first")
    sweep(store, [StandIn(store, 1, fails=True)])
    sweep(store, [StandIn(store, 1, fails=True)])
    assert journal(store).total() == 1  # another worker of the same sweep leaves it alone
    monkeypatch.setenv("KIDNEY_SWEEP", "second")
    assert sweep(store, [StandIn(store, 1)]) == []
    assert is_done(store, StandIn(store, 1))


def test_a_fault_of_the_program_leaves_its_traceback_in_a_file(store):
    class Faulty(StandIn):
        def train(self, folder, checkpoint):
            raise ZeroDivisionError("of nothing")

    (line,) = sweep(store, [Faulty(store, 1)])
    assert "ZeroDivisionError" in line
    assert "Traceback" in next((store.folder / "failed").glob("*.log")).read_text()


def start(store, *arguments, **named):
    return subprocess.Popen(command(store, *arguments, **named), cwd=ROOT, stdout=subprocess.DEVNULL)


def wait_for(what, seconds=60):
    for _ in range(int(seconds * 20)):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_a_killed_workers_job_goes_on_from_its_checkpoint(store):
    with start(store, 1, seconds=4) as worker:
        wait_for(lambda: list(store.folder.glob("unfinished/*.pt")))
        worker.kill()
    sweep(store, jobs_of(store, 1))
    assert journal(store) == Counter({"run 0 begun": 1, "run 0 resumed": 1})
    assert is_done(store, StandIn(store, 0))


def test_who_wants_a_job_that_another_makes_waits_for_it(store):
    job, taken = StandIn(store, 0), []
    with start(store, 1, seconds=3):
        wait_for(lambda: list(store.folder.glob("claims/*.json")))
        obtain(store, [job], lambda one, key: not taken.append((one.name, key)))
    assert taken == [("run 0", job.key())]
    assert journal(store).total() == 1


def test_a_job_that_reads_what_another_one_gives_is_made_after_it_and_refused_without_it(store):
    first, taken = StandIn(store, 0), []
    second = StandIn(store, 1, after=first)
    with pytest.raises(InputError, match="run 1: an input is not there yet"):
        obtain(store, [second], lambda one, key: True)
    obtain(store, [second, first], lambda one, key: not taken.append(one.name))
    assert taken == ["run 0", "run 1"]


def test_what_is_damaged_when_it_is_taken_is_made_again(store):
    job = StandIn(store, 0)
    sweep(store, [job])
    (store.path(job.key()) / "result.json").write_text("1")
    with pytest.warns(UserWarning, match="damaged"):
        obtain(store, [job], lambda one, key: store.collect(key, lambda name: store.folder / "out" / name))
    assert (store.folder / "out" / "result.json").read_text() == "0"


PARENT = """
import sys
from pathlib import Path
from kidney_ssl.engine.store import RunStore
from kidney_ssl.jobs.pool import run_workers
from kidney_ssl.jobs.progress import Progress
command, folder = sys.argv[1:-1], sys.argv[-1]
run_workers([command] * 2, [{}] * 2, Progress(RunStore(Path(folder), 1), []))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(store, how):
    arguments = [sys.executable, "-c", PARENT, *command(store, 8, seconds=60), str(store.folder)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    with subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as parent:
        wait_for(lambda: len(list(store.folder.glob("claims/*.json"))) == 2)
        workers = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(how)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert len(workers) == 2
    assert not alive


def test_each_worker_gets_a_gpu_of_its_own_where_there_are_enough():
    assert [one["CUDA_VISIBLE_DEVICES"] for one in worker_environments(3, ["0", "1"])] == ["0", "1", "0"]
    assert worker_environments(2, []) == [{}, {}]


def test_workers_are_as_many_as_asked_for_else_one_a_gpu_else_what_the_cores_allow():
    cores = len(os.sched_getaffinity(0))
    assert worker_count("3", gpus=8, threads=1) == 3
    assert worker_count("", gpus=8, threads=1) == 8
    assert worker_count("", gpus=0, threads=1) == cores
    assert worker_count("", gpus=0, threads=100) == 1


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_that_is_none_is_refused(asked):
    with pytest.raises(InputError, match="WORKERS"):
        worker_count(asked, gpus=0, threads=1)
