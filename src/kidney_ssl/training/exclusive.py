"""One process for one piece of work: a lock that no killed process leaves behind."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kidney_ssl.errors import InputError


@contextmanager
def exclusive(folder: Path, label: str) -> Iterator[None]:
    """Hold the lock of one piece of work while the block runs.

    The lock is the kernel's (flock): it ends with its process, however that dies, so a stale one cannot stay. What
    the file says (process, host, start) is for the message. A process that a killed dvc left behind keeps it.

    Args:
        folder: where the lock files are; it is made.
        label: the work's name, which may not be done twice at a time.

    Raises:
        InputError: another process holds it; the line names that process.
    """
    import fcntl  # noqa: PLC0415 - absent on Windows, where the project has not been run

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{label}.lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 1000).decode() or "another process"
            os.close(descriptor)
            raise InputError(f"{label}: already at work in {holder}; wait for it or end it") from None
        # The holder before may have removed the file between our opening and our locking it: then try again.
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                break
        os.close(descriptor)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    os.truncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {started}".encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
