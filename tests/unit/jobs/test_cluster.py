"""Workers submitted to a cluster, here to submitit's own of this machine: stand-in trainings, each made once."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from kidney_ssl.engine.claims import claimed
from kidney_ssl.engine.store import RunStore
from kidney_ssl.errors import InputError
from kidney_ssl.jobs import cluster
from kidney_ssl.jobs.base import is_done
from kidney_ssl.jobs.cluster import Submission, Worker, run_on_cluster
from tests.unit.jobs.stand_in import jobs_of, work

ROOT = Path(__file__).parents[3]
LOCAL = Submission(2, cluster="local", minutes=10)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "LOGS", tmp_path / "logs")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}/src{os.pathsep}{ROOT}")
    monkeypatch.delenv("KIDNEY_SWEEP", raising=False)
    (tmp_path / "store").mkdir()
    return RunStore(tmp_path / "store", 1)


def journal(store):
    return Counter((store.folder / "journal").read_text().splitlines())


def run(store, count, submission=LOCAL, **named):
    return run_on_cluster(
        submission, partial(work, folder=store.folder, count=count, **named), store, jobs_of(store, count)
    )


def test_every_job_is_made_once(store, capsys):
    assert run(store, 30) == []
    assert all(is_done(store, job) for job in jobs_of(store, 30))
    assert set(journal(store).values()) == {1}
    assert "run 29: done" in capsys.readouterr().out


def test_a_failed_job_is_told_and_the_others_are_made(store, capsys):
    (line,) = run(store, 5, fails=3)
    assert line.startswith("run 3: ")
    assert [is_done(store, job) for job in jobs_of(store, 5)] == [True, True, True, False, True]
    assert journal(store)["run 3 begun"] == 1
    assert "FAILED run 3" in capsys.readouterr().out


def test_the_job_of_a_killed_worker_is_made_by_another_and_the_log_is_named(store):
    def kill():
        while not (owners := claimed(store.folder / "claims")):
            time.sleep(0.05)
        os.kill(next(iter(owners.values()))["process"], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    (line,) = run(store, 3, seconds=2.0)
    killer.join()
    assert list((store.folder.parent / "logs").glob("*_log.err"))
    assert any(str(log) in line for log in (store.folder.parent / "logs").glob("*_log.err"))
    assert all(is_done(store, job) for job in jobs_of(store, 3))
    assert journal(store).total() <= 4  # three jobs, one of them perhaps twice


def test_workers_of_this_machine_get_a_gpu_each(tmp_path, store):
    def look(share):
        (tmp_path / f"gpu-{share[0]}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
        return []

    run_on_cluster(LOCAL, look, store, [], gpus=["GPU-a", "MIG-b"])
    assert [(tmp_path / f"gpu-{at}").read_text() for at in (1, 2)] == ["GPU-a", "MIG-b"]


def test_a_worker_whose_time_is_over_is_submitted_again():
    worker = Worker(work, {})
    again = worker.checkpoint("1/2")
    assert (again.function, again.args) == (worker, ("1/2",))


def test_slurm_gets_one_task_a_worker_with_its_gpus_cores_and_options():
    parameters = Submission(
        4, partition="gpu", gpus=2, threads=8, options=["slurm_account=ct", "mem_gb=32"]
    ).parameters()
    assert parameters["slurm_partition"] == "gpu"
    assert (parameters["gpus_per_node"], parameters["cpus_per_task"], parameters["tasks_per_node"]) == (2, 8, 1)
    assert (parameters["slurm_account"], parameters["mem_gb"]) == ("ct", 32)


def test_an_array_of_workers_is_given_to_sbatch(store, tmp_path, monkeypatch, capsys):
    for name, text in {"sbatch": 'cp "$1" "$FOLDER/submitted"; echo Submitted batch job 17', "srun": ""}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FOLDER", str(tmp_path))

    def leave(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "_wait", leave)
    with pytest.raises(KeyboardInterrupt):
        run(store, 1, Submission(3, partition="gpu", minutes=90, options=["slurm_account=ct"]))
    lines = (tmp_path / "submitted").read_text().splitlines()
    wanted = ("array=0-2%3", "partition=gpu", "time=90", "account=ct", "gpus-per-node=1", "ntasks-per-node=1")
    assert {f"#SBATCH --{one}" for one in wanted} <= set(lines)
    assert "scancel 17" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("submission", "key"),
    [
        (Submission(0, cluster="local"), "--submit"),
        (Submission(1, cluster="slurm"), "sbatch"),
        (Submission(1, cluster="local", options=["slurm_acount=ct"]), "slurm_acount"),
        (Submission(1, cluster="local", options=["slurm_account"]), "--option"),
    ],
)
def test_what_cannot_be_submitted_is_refused(store, monkeypatch, submission, key):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=key):
        run(store, 1, submission)
    assert not (store.folder / "journal").exists()


def test_without_submitit_its_name_is_told(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="submitit"):
        run(store, 1)
