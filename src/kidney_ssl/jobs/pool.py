"""Worker processes on one machine: start them, show their progress, end them together."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from kidney_ssl.errors import InputError
from kidney_ssl.jobs.base import POLL
from kidney_ssl.jobs.progress import Progress

GRACE = 20.0  # seconds a process has to end after SIGTERM
PARENT = "KIDNEY_PARENT"  # environment: pid and start time of the process with which all others of a run end


def run_workers(
    commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]], shown: Progress
) -> list[str]:
    """Run the command of each worker until all have ended, and show their progress.

    Returns:
        Lines of the trainings that failed, or of workers that died.
    """
    failed: list[str] = []
    with ended_together() as start:
        workers = [
            start(command, environment, subprocess.PIPE)
            for command, environment in zip(commands, environments, strict=True)
        ]
        readers = [threading.Thread(target=_read, args=(worker, shown, failed), daemon=True) for worker in workers]
        for reader in readers:
            reader.start()
        while any(worker.poll() is None for worker in workers):
            time.sleep(POLL)  # no call waits for several processes and the failures that readers note
            shown.look()
        for reader in readers:
            reader.join()
        shown.look()
    ended = {at: worker.returncode for at, worker in enumerate(workers, 1) if worker.returncode}
    return failed or [f"worker {at} {_said(code)}" for at, code in ended.items()]


def _said(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, usually because memory was full: run fewer (WORKERS), or lower batch_size"
    return f"ended with {code}"


@contextmanager
def ended_together() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that end with this one: when it finishes, on Ctrl-C, on SIGTERM, and when it is killed.

    SIGTERM becomes KeyboardInterrupt, and the started processes end before it propagates. They notice a kill by
    watching this process (`end_with_parent`).

    Yields:
        A function that starts a process; its arguments are the command, further environment variables, a target for
        all output (by default this process's own), and the working folder.
    """
    started: list[subprocess.Popen[str]] = []
    own = psutil.Process()

    def start(
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: int | IO[str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {PARENT: f"{own.pid} {own.create_time()}"} | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=None if stdout is None else subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield start
    finally:
        signal.signal(signal.SIGTERM, before)
        for process in started:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and its descendants, first with SIGTERM, then with SIGKILL."""
    if process.poll() is not None:
        return
    with suppress(psutil.NoSuchProcess):
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=GRACE)
        for member in alive:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()


def end_with_parent() -> None:
    """End this process when the parent that `ended_together` named in the environment is gone."""
    named = os.environ.get(PARENT, "").split()
    if len(named) == 2:
        threading.Thread(target=_watch, args=(int(named[0]), float(named[1])), daemon=True).start()


def _watch(number: int, started: float) -> None:
    while True:
        try:
            if abs(psutil.Process(number).create_time() - started) > 5:
                break
        except psutil.NoSuchProcess:
            break
        time.sleep(1)  # the end of a parent is no event for its children on every system
    os.kill(os.getpid(), signal.SIGTERM)


def _read(worker: "subprocess.Popen[str]", shown: Progress, failed: list[str]) -> None:
    """Pass on a worker's output and collect its failures."""
    assert worker.stdout is not None
    with worker.stdout as lines:
        for line in lines:
            text = line.rstrip("\n")
            if text.startswith("FAILED "):
                failed.append(text.removeprefix("FAILED "))
            shown.write(text)


def worker_environments(workers: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """CUDA_VISIBLE_DEVICES of each worker: the GPUs in turn; nothing without GPUs."""
    return [{"CUDA_VISIBLE_DEVICES": gpus[at % len(gpus)]} if gpus else {} for at in range(workers)]


def visible_gpus() -> list[str]:
    """Names of the GPUs this process may use, as in CUDA_VISIBLE_DEVICES."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[list[str]] = []
    for line in listed.stdout.splitlines():
        if line.startswith("GPU "):
            found.append([str(len(found))])
        elif part := re.search(r"UUID: (MIG-[^)]+)", line):  # used instead of its GPU
            found[-1].append(part[1])
    return [name for whole, *parts in found for name in parts or [whole]]


def worker_count(asked: str, *, gpus: int, threads: int) -> int:
    """Number of workers: the number asked for, else one per GPU, else as many as the cores allow.

    Raises:
        InputError: the number asked for is not a whole number from 1.
    """
    if asked:
        if not (asked.isdecimal() and int(asked) > 0):
            raise InputError(f"WORKERS: '{asked}' is not a number of workers: give 1 or more")
        return int(asked)
    return gpus or max(1, len(os.sched_getaffinity(0)) // threads)
