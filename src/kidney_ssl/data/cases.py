"""Cases in parallel: on this machine's processes, or on a Dask cluster."""

import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from kidney_ssl.errors import InputError, refuse_cases

Result = TypeVar("Result")

# Errors that would occur in every case.
OF_THE_MACHINE = (errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EROFS)
SINGLE, BATCHES = 512, 128  # up to how many cases each is sent alone; beyond, how many batches there are
ADVICE = "Mend the files, or name the cases in data.exclude"


def each_case(
    work: Callable[[str], Result],
    cases: Sequence[str],
    *,
    workers: int,
    scheduler: str | None = None,
    description: str,
) -> dict[str, Result]:
    """Run `work(case)` for every case, with a progress bar, and list all bad cases together.

    Args:
        work: a picklable function of one case; it raises `InputError` for bad input.
        cases: the cases; the result does not depend on their order or on `workers`.
        workers: processes on this machine, each with one case in memory at a time.
        scheduler: address of a Dask scheduler (needs `dask[distributed]`), whose workers then process the cases and
            must have access to the same files.
        description: text of the progress bar.

    Returns:
        case -> result, sorted by case.

    Raises:
        InputError: one line with every case that failed.
    """
    results: dict[str, Result] = {}
    problems: dict[str, str] = {}
    # loky starts as many workers as requested, so not more than there are cases.
    with _backend(max(1, min(workers, len(cases))), scheduler), _told_of_killed_workers(description, workers):
        # Unordered, so that no finished result waits in memory behind a slow case.
        # `work` is sent with every batch, which takes longer than an image of a table with thousands of them.
        batch = 1 if len(cases) <= SINGLE else len(cases) // BATCHES
        outcomes = Parallel(return_as="generator_unordered", batch_size=batch)(
            delayed(_guarded)(work, case) for case in cases
        )
        for case, result, problem in tqdm(outcomes, desc=description, total=len(cases), unit="case"):
            if problem is None:
                results[case] = result
            else:
                problems[case] = problem
    refuse_cases(problems, ADVICE)
    return dict(sorted(results.items()))


def _guarded(work: Callable[[str], Result], case: str) -> tuple[str, Result | None, str | None]:
    try:
        return case, work(case), None
    except InputError as error:
        return case, None, str(error)
    except OSError as error:
        if error.errno in OF_THE_MACHINE:
            raise
        return case, None, f"{error.filename or 'a file'} cannot be read or written ({error.strerror or error})"
    except MemoryError:
        return case, None, "memory is full: lower compute.workers"


@contextmanager
def _told_of_killed_workers(description: str, workers: int) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            f"{description}: a worker process was killed, most often because memory was full: lower compute.workers "
            f"({workers}) and run again; finished cases are kept"
        ) from error


@contextmanager
def _backend(workers: int, scheduler: str | None) -> Iterator[None]:
    if scheduler is None:
        with parallel_config(backend="loky", n_jobs=workers):
            yield
        return
    try:
        from distributed import Client  # noqa: PLC0415 - optional, only needed with a cluster
    except ImportError as error:
        raise InputError("compute.scheduler needs Dask: pip install 'dask[distributed]'") from error
    try:
        client = Client(scheduler, timeout=30)
    except (OSError, ValueError) as error:
        raise InputError(f"compute.scheduler: no Dask scheduler answers at {scheduler}") from error
    with client, parallel_config(backend="dask", wait_for_workers_timeout=60):
        yield
