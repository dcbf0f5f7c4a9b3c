"""Workers on an existing cluster: submit them through submitit, wait, and report failures."""

import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kidney_ssl import config
from kidney_ssl.engine.store import RunStore
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.jobs.all import study_jobs
from kidney_ssl.jobs.base import POLL, Job
from kidney_ssl.jobs.pool import ended_together, visible_gpus, worker_environments
from kidney_ssl.jobs.progress import Progress
from kidney_ssl.jobs.sweep import failure, ready_study, refuse_failed, sweep_share
from kidney_ssl.yamlfile import read_yaml

LOGS = Path("logs/cluster")
REQUEUES = 1000  # how often a worker restarts at its time limit


@dataclass(frozen=True)
class Submission:
    """Resources to request from a cluster."""

    workers: int  # how many
    cluster: str = "slurm"  # slurm, or local: processes of this machine
    partition: str | None = None  # of SLURM; its default if None
    # time limit of a worker; at the limit it is queued again and continues from its checkpoint
    minutes: int = 1440
    gpus: int = 1  # per worker on SLURM; on this machine the workers share its GPUs
    threads: int = 1  # cores per worker
    options: Sequence[str] = ()  # further parameters of submitit's AutoExecutor, KEY=VALUE

    def parameters(self) -> dict[str, Any]:
        """Parameters of submitit's AutoExecutor.

        Raises:
            InputError: an option that is not KEY=VALUE.
        """
        found: dict[str, Any] = {"name": "kidney-ssl", "nodes": 1, "tasks_per_node": 1, "timeout_min": self.minutes}
        if self.cluster == "slurm":
            found |= {"cpus_per_task": self.threads, "gpus_per_node": self.gpus or None}
            found["slurm_partition"] = self.partition
        for option in self.options:
            key, equals, value = option.partition("=")
            if not equals:
                raise InputError(f"--option {option}: give KEY=VALUE, such as slurm_account=ct")
            found[key] = read_yaml(value, f"--option {option}")
        return found


@dataclass(frozen=True)
class Worker:
    """The function a cluster task calls with a share I/N; `work` returns a line for each failed training."""

    work: Callable[[str], list[str]]
    environment: Mapping[str, str]

    def __call__(self, share: str) -> list[str]:
        """Run one share of the work."""
        os.environ.update(self.environment)
        return self.work(share)

    def checkpoint(self, share: str) -> Any:
        """Called by submitit at the time limit: queue the same share again, to continue from the checkpoints."""
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415 - an extra

        return DelayedSubmission(self, share)


def submit_study(submission: Submission, *, collect: bool) -> None:
    """Run the trainings of params.yaml on a cluster; with `collect`, run `dvc repro` afterwards.

    Raises:
        InputError: submitit or SLURM is missing, nothing can be trained yet, or a training or worker failed.
    """
    study = ready_study(config.load())
    jobs = study_jobs(study)
    gpus = visible_gpus() if study.settings.compute.device != "cpu" else []
    refuse_failed(run_on_cluster(submission, sweep_share, study.store, jobs, gpus=gpus))
    print(f"all {len(jobs)} trainings are in {study.store.folder}; `dvc repro` collects them", flush=True)
    if collect:
        with ended_together() as start:
            if start(("dvc", "--wait-for-lock", "repro"), {}).wait():
                raise InputError("dvc repro failed, see above")


def run_on_cluster(
    submission: Submission,
    work: Callable[[str], list[str]],
    store: RunStore,
    jobs: Sequence[Job],
    *,
    gpus: Sequence[str] = (),
) -> list[str]:
    """Submit workers as one array job and wait until all have ended, with one bar over all trainings.

    Args:
        submission: the resources.
        work: see `Worker`.
        store: where finished trainings appear.
        jobs: the trainings of the study.
        gpus: GPUs of this machine, for workers that run on it.

    Returns:
        A line for each failed training and for each worker that died, with its log.

    Raises:
        InputError: submitit or SLURM is missing, or refuses the options.
    """
    executor = _executor(submission)
    os.environ["KIDNEY_SWEEP"] = name = f"{socket.gethostname()}-{os.getpid()}"
    own = worker_environments(submission.workers, gpus if submission.cluster == "local" else ())
    with executor.batch():
        workers = [
            executor.submit(Worker(work, {"KIDNEY_SWEEP": name} | one), f"{at}/{submission.workers}")
            for at, one in enumerate(own, 1)
        ]
    print(f"{len(workers)} workers submitted, logs in {executor.folder}: {workers[0].job_id} ...", flush=True)
    try:
        failed = _wait(workers, store, jobs)
    except KeyboardInterrupt:
        if submission.cluster == "local":
            for worker in workers:
                worker.cancel()
        else:
            print(f"the workers go on; `scancel {workers[0].job_id.partition('_')[0]}` ends them")
        raise
    died = [
        f"worker {at} died, see {worker.paths.stderr}"
        for at, worker in enumerate(workers, 1)
        if worker.exception() is not None
    ]
    return [*failed.values(), *died]


def _executor(submission: Submission) -> Any:
    """A submitit executor with the submission's parameters."""
    try:
        import submitit  # noqa: PLC0415 - an extra
    except ImportError:
        raise InputError("--submit needs submitit: pip install 'kidney-ssl[cluster]'") from None
    if submission.workers < 1:
        raise InputError(f"--submit {submission.workers}: give 1 or more workers")
    missing = [command for command in ("sbatch", "srun") if not shutil.which(command)]
    if submission.cluster == "slurm" and missing:
        raise InputError(f"--cluster slurm: no {missing[0]} here: run it on a SLURM login node, or use --cluster local")
    limit: dict[str, Any] = {f"{submission.cluster}_max_num_timeout": REQUEUES}
    executor = submitit.AutoExecutor(folder=LOGS, cluster=submission.cluster, **limit)
    try:
        executor.update_parameters(**submission.parameters())
    except (AssertionError, NameError, ValueError) as error:
        raise InputError(f"--option: {one_line(str(error))}") from error
    return executor


def _wait(workers: Sequence[Any], store: RunStore, jobs: Sequence[Job]) -> dict[str, str]:
    """Show progress until no worker is left; return job -> error of the failed ones."""
    failed: dict[str, str] = {}
    with Progress(store, jobs) as shown:
        working = True
        while working:
            working = not all(worker.done() for worker in workers)
            for job in shown.look():
                shown.write(f"{job.name}: done")
            for job in shown.left:
                if job.name not in failed and (said := failure(store, job)):
                    failed[job.name] = said
                    shown.write(f"FAILED {said}")
            time.sleep(POLL if working else 0)  # tasks on other machines tell only by files
    return failed
