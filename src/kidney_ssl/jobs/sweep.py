"""A worker: runs the missing trainings of a study one after the other, beside any number of other workers.

Workers claim trainings in the run store, so they share only its folder, and workers of different speed finish together.
If a worker dies, its claim ends and another worker continues from its checkpoint.
"""

import json
import os
import re
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import kidney_ssl
from kidney_ssl import config
from kidney_ssl.config import Params
from kidney_ssl.engine.store import RunStore
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.files import write_text
from kidney_ssl.jobs.all import study_jobs
from kidney_ssl.jobs.base import POLL, Job, is_done, make
from kidney_ssl.jobs.launched import train_alone
from kidney_ssl.jobs.study import Study
from kidney_ssl.jsonfile import write_json

CODE = Path(kidney_ssl.__file__).parent
WANTED = "KIDNEY_WANTED"  # environment: file with the names of the trainings that DVC asked for; all if unset


def sweep(store: RunStore, jobs: Sequence[Job], *, share: int = 1, shares: int = 1) -> list[str]:
    """Run every job that no other worker runs; return when all are done or have failed.

    Args:
        store: where finished trainings are.
        jobs: in the best order to begin them; a job whose inputs do not exist yet waits for them.
        share: the share of the list with which this worker begins, from 1.
        shares: number of workers. A worker that has finished its share helps with the others.

    Returns:
        A line for each job that failed here or could not begin.
    """
    start = len(jobs) * (share - 1) // shares
    waiting = [*jobs[start:], *jobs[:start]] if shares > 1 else list(jobs)
    failed: list[str] = []
    while waiting:
        left: list[Job] = []
        worked = False
        for job in waiting:
            if is_done(store, job) or failure(store, job):
                continue
            started = time.monotonic()
            try:
                made = make(store, job, protect=[key for one in jobs if (key := one.key())])
            except Exception as error:  # noqa: BLE001 - the other trainings must go on
                failed.append(_note_failure(store, job, error))
                print(f"FAILED {failed[-1]}", flush=True)
                continue
            if made is None:
                left.append(job)
                continue
            worked = True
            if made:
                print(f"{job.name}: {time.monotonic() - started:.1f} s", flush=True)
        if left and not worked:
            if all(job.key() is None for job in left) and not _in_work(store, jobs):
                # Their inputs failed or were never made.
                failed += [f"{job.name}: its input is missing" for job in left]
                break
            time.sleep(POLL)  # other workers tell only by the store
        waiting = left
    return failed


def failure(store: RunStore, job: Job) -> str | None:
    """The error with which a job failed in this sweep, in any worker; None if it did not fail."""
    try:
        noted = json.loads(_failure_file(store, job).read_bytes())
    except (OSError, ValueError):
        return None
    return str(noted["error"]) if noted["sweep"] == sweep_name() else None


def sweep_name() -> str:
    """Name that the workers of one sweep share: their starter's, or that of a cluster's array job."""
    return os.environ.get("KIDNEY_SWEEP") or os.environ.get("SLURM_ARRAY_JOB_ID") or str(os.getpid())


def _failure_file(store: RunStore, job: Job) -> Path:
    return store.folder / "failed" / f"{job.key()}.json"


def _note_failure(store: RunStore, job: Job, error: Exception) -> str:
    """Store a job's error, with the traceback unless it is an InputError; return one line about it."""
    file = _failure_file(store, job)
    said = str(error)
    if not isinstance(error, InputError):
        log = file.with_suffix(".log")
        write_text(log, traceback.format_exc())
        said = f"{type(error).__name__}: {one_line(said)} (all of it in {log})"
    line = said if said.startswith(job.name) else f"{job.name}: {said}"
    write_json(file, {"error": line, "job": job.name, "sweep": sweep_name()})
    return line


def _in_work(store: RunStore, jobs: Sequence[Job]) -> bool:
    """Whether a job that others wait for is running or may still run."""
    return any(job.key() is not None and not is_done(store, job) and not failure(store, job) for job in jobs)


def sweep_share(share: str) -> list[str]:
    """Run the missing trainings of params.yaml's study, first the I-th of N shares, then what is left of the others.

    Returns:
        A line for each training that failed here.

    Raises:
        InputError: the share is not valid, or there are no inputs yet.
    """
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", share)
    if not found or int(found[1]) > int(found[2]):
        raise InputError(f"'{share}' is not a share of the work: give I/N with I from 1 to N, such as 3/8")
    study = ready_study(config.load())
    asked = os.environ.get(WANTED)
    wanted = Path(asked).read_text(encoding="utf-8").splitlines() if asked else None
    return sweep(study.store, study_jobs(study, wanted), share=int(found[1]), shares=int(found[2]))


def refuse_failed(failed: Sequence[str]) -> None:
    """Raise InputError if trainings failed, with a line for each."""
    if failed:
        raise InputError(f"{len(failed)} failed, the others are kept for the next run: {'; '.join(failed)}")


def ready_study(settings: Params) -> Study:
    """The study of params.yaml, after checking that workers can begin.

    Raises:
        InputError: the running code belongs to another folder, the study trains with several processes, or the inputs
            of all trainings are missing.
    """
    own = Path("src/kidney_ssl")
    if own.is_dir() and not own.samefile(CODE):
        raise InputError(f"kidney_ssl runs from {CODE}, not from this folder's {own}: run it with PYTHONPATH=src")
    if settings.compute.devices * settings.compute.nodes > 1:
        raise InputError(
            "compute.devices, compute.nodes: a worker trains with one process: set both to 1, or use `dvc repro`, "
            "which trains with several (docs/cluster.md)"
        )
    train_alone()
    study = Study(settings)
    if all(job.key() is None for job in study_jobs(study)):
        raise InputError("nothing to train from yet: run `dvc repro normalize initialize` first")
    return study
