"""The interface of a job, and how a job runs once however many processes want its result."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

from kidney_ssl.engine.store import RunStore
from kidney_ssl.errors import InputError

T = TypeVar("T")
POLL = 1.0  # seconds between looks at what another process is making


class Job(ABC):
    """A training that ends in files.

    Attributes:
        name: for messages: "pretrain rotation 0", "finetune random 100-0".
        needs: files that a stored result must have. Others, such as a network, may be left out.
        first: whether this process has rank 0 among those that train together; usually it is the only one.
    """

    name: str
    needs: Collection[str] = ()
    first: bool = True

    def agree(self, value: T) -> T:
        """Return the value of rank 0 in all processes that train together."""
        return value

    @abstractmethod
    def key(self) -> str | None:
        """Hash of everything that determines the files, see `store_key`; None while an input does not exist yet."""

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """Description of the training, for people who look into the store."""

    @abstractmethod
    def train(self, folder: Path, checkpoint: Path) -> None:
        """Write the files, continuing from the checkpoint if it exists.

        Args:
            folder: an empty folder for the files.
            checkpoint: file of the unfinished training; names of further files beside it begin with its stem.

        Raises:
            InputError: bad input, or a training that failed.
        """


def is_done(store: RunStore, job: Job) -> bool:
    """Whether a job's files are in the store."""
    key = job.key()
    return key is not None and store.has(key, job.needs)


def make(store: RunStore, job: Job, protect: Collection[str] = ()) -> bool | None:
    """Train a job and put its files into the store, unless they are there or another process trains it.

    Returns:
        True if it was trained, False if it was in the store, None if another process trains it or an input is missing.

    Raises:
        InputError: the training failed.
    """
    # The first one's, since others may not see yet what it has just put into the store.
    key = job.agree(job.key())
    held = None
    if job.first and key is not None and not store.has(key, job.needs):
        held = store.claim(key, job.name)
    # Check again: another process may have finished it just before the claim.
    there = job.agree(key is not None and store.has(key, job.needs))
    mine = job.agree(held is not None)
    with held or nullcontext():
        if there or not mine or key is None:
            return False if there else None
        folder = job.agree(store.workspace(key) if job.first else Path())
        job.train(folder, store.checkpoint(key))
        if job.first:
            store.add(key, folder, job.describe(), protect)
    return True


def obtain(store: RunStore, jobs: Collection[Job], take: Callable[[Job, str], bool]) -> None:
    """Run the missing jobs and collect all results, waiting for jobs that other processes run.

    A job may read the result of another one. `take` collects a finished job, given its key; it returns False for a
    damaged result, which is then computed again.

    Raises:
        InputError: a training failed, or an input is missing, for which it would wait forever.
    """
    waiting = list(jobs)
    while waiting:
        left = [
            job for job in waiting if make(store, job) is None or not job.agree(job.first and take(job, str(job.key())))
        ]
        if len(left) == len(waiting):
            if all(job.agree(job.key() is None) for job in left):
                names = ", ".join(job.name for job in left)
                raise InputError(f"{names}: an input is not there yet; run `dvc repro`")
            time.sleep(POLL)  # whoever makes them, perhaps on another machine, tells only by the store
        waiting = left
