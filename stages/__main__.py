"""The study of params.yaml: `python -m stages [workers]`, which `kidney-ssl run` and `make repro` call.

The results are those of `dvc repro`, which trains one network after the other. Here DVC first runs without training:
it makes the arrays, takes what its caches and the run store have, and so finds the missing trainings. Workers then
train in parallel, and a second `dvc repro` collects the results. The output of DVC and its stages goes to
logs/repro.log.
"""

import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.config import Params
from kidney_ssl.jobs.all import study_jobs
from kidney_ssl.jobs.base import Job
from kidney_ssl.jobs.pool import run_workers, visible_gpus, worker_count, worker_environments
from kidney_ssl.jobs.progress import Progress
from kidney_ssl.jobs.study import ASK, Study
from kidney_ssl.jobs.sweep import WANTED, refuse_failed
from kidney_ssl.planning.counts import count_slices
from kidney_ssl.planning.disk import disk, refuse_full_disk
from kidney_ssl.planning.missing import missing_jobs, planned_study
from stages import mend
from stages.out_of_date import LOOKS, out_of_date
from stages.terminal import TRAINED, announcement, command, duration, outcome
from stages.watch import LOG, ask, repro

ASKED = Path("checkpoints/wanted")  # names of the trainings that DVC asked for


def main(workers: str = "") -> None:
    """Run what is out of date, with as many workers as are asked for, by default one for each GPU, else core."""
    started = time.monotonic()
    try:
        _run(workers)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted after {duration(time.monotonic() - started)}; `{command('run')}` goes on from here",
            file=sys.stderr,
        )
        sys.exit(130)
    print(*outcome(time.monotonic() - started), sep="\n")


def _run(workers: str) -> None:
    settings = config.load()
    count, gpus = workers_of(settings, workers)
    mend.main()
    to_run = out_of_date()
    planned = planned_study(settings)
    missing = missing_jobs(planned, to_run)
    print(announcement(to_run, missing, count), flush=True)
    if not os.environ.get("KIDNEY_INSIST"):
        _refuse_full_disk(planned, to_run, missing, count)
    LOG.unlink(missing_ok=True)
    # Stages start trainings of several processes themselves, one after the other.
    alone = settings.compute.devices * settings.compute.nodes == 1
    with Progress(planned.store, missing if alone else [], stages=to_run, lines=count) as shown:
        if alone and to_run - LOOKS:
            initial = [f"initialize@{name}" for name in settings.initialize]
            repro(shown, "normalize", *initial)
            wanted = _ask(shown)
            # A new study: the one above holds checksums of arrays that have since been replaced.
            jobs = study_jobs(Study(settings), wanted)
            shown.expect(jobs)
            if jobs:
                _train(count, gpus, shown)
        repro(shown)


def _refuse_full_disk(study: Study, to_run: Collection[str], missing: Sequence[Job], workers: int) -> None:
    """Refuse to start what does not fit on the disk; a folder that was not read yet is not checked."""
    counts = count_slices(study.settings, fresh="select" not in to_run)
    if to_run and counts is not None:
        refuse_full_disk(disk(study, counts, to_run, missing, workers))


def _ask(shown: Progress) -> list[str]:
    """Run DVC as far as possible without training; return the names of the missing trainings."""
    log = Path("logs/ask.log")
    for file in (ASKED, log):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
    ask(shown, log, {ASK: str(ASKED)}, TRAINED)
    return ASKED.read_text(encoding="utf-8").splitlines() if ASKED.exists() else []


def workers_of(settings: Params, asked: str) -> tuple[int, list[str]]:
    """Number of workers, and the GPUs they share; one worker if a training takes several processes."""
    compute = settings.compute
    gpus = visible_gpus() if compute.device != "cpu" else []
    count = worker_count(asked, gpus=len(gpus), threads=compute.threads)
    return count if compute.devices * compute.nodes == 1 else 1, gpus


def _train(workers: int, gpus: list[str], shown: Progress) -> None:
    # Training steps free and allocate the same memory again and again; giving it back costs 5 % of the time.
    shared = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
    shared |= {"KIDNEY_SWEEP": str(os.getpid()), WANTED: str(ASKED)}
    failed = run_workers(
        [[sys.executable, "-m", "stages.sweep", f"{at}/{workers}"] for at in range(1, workers + 1)],
        [shared | one for one in worker_environments(workers, gpus)],
        shown,
    )
    refuse_failed(failed)


if __name__ == "__main__":
    from stages.run import run

    run(main)
