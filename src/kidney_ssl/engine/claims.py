"""Which process trains what: claims that are taken atomically, refreshed by a heartbeat, and end with their process.

A claim is a file that names its owner. The owner refreshes the file's time while it lives. Times come from the file
system, so the clocks of several machines need not agree. A dead owner is noticed at once on its own machine, and on
another one after `LOST` seconds without a heartbeat.
"""

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from kidney_ssl.errors import InputError

BEAT, LOST, CORRECTED = 15.0, 120.0, 5.0  # seconds


_held: set["Claim"] = set()  # by this process


class Claim:
    """A claim held by this process; end it with `release`, or use it as a context manager."""

    def __init__(self, path: Path, label: str) -> None:
        self.path = path
        own = psutil.Process()
        self.owner = {
            "host": socket.gethostname(),
            "label": label,
            "process": own.pid,
            "started": own.create_time(),
            "thread": threading.get_ident(),
        }
        beside = path.with_name(f".{path.name}.{own.pid}-{threading.get_ident()}")
        beside.write_text(json.dumps(self.owner), encoding="utf-8")
        beside.replace(path)
        _held.add(self)
        self._over = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Release the claim if this process still owns it."""
        _held.discard(self)
        self._over.set()
        with _guard(self.path):
            if _read(self.path) == self.owner:
                self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:  # another owner, or no disk; results stay safe: the store takes them atomically
                return


def release_all() -> None:
    """Release all claims of this process before it becomes another program (exec)."""
    for held in list(_held):
        held.release()


def claim(folder: Path, key: str, label: str) -> Claim | None:
    """Claim the work `key`, with a readable `label`; None while a living process owns it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.json"
    with _guard(path):
        owner = _read(path)
        return None if owner is not None and _lives(path, owner) else Claim(path, label)


def claim_or_refuse(folder: Path, key: str) -> Claim:
    """Claim work that must not run twice at a time.

    Raises:
        InputError: another process owns it; the message names that process.
    """
    held = claim(folder, key, key)
    if held is None:
        owner = _read(folder / f"{key}.json") or {}
        named = f"process {owner.get('process')} on {owner.get('host')}"
        raise InputError(f"{key}: already at work in {named}; wait for it or end it")
    return held


def claimed(folder: Path) -> dict[str, dict[str, Any]]:
    """Living owners by the key of their claim."""
    owners = {path.stem: (path, _read(path)) for path in folder.glob("*.json")}
    return {key: owner for key, (path, owner) in owners.items() if owner is not None and _lives(path, owner)}


def _guard(path: Path) -> FileLock:
    """A lock held while a claim is taken or released, so that two processes never take the same one."""
    return FileLock(path.parent / ".guard.lock")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        owner: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return owner


def _lives(path: Path, owner: dict[str, Any]) -> bool:
    if owner.get("host") == socket.gethostname():
        try:
            process = psutil.Process(owner["process"])
            # Counted from the time of boot, which the system may correct while the process runs.
            same = abs(process.create_time() - owner["started"]) < CORRECTED
            return same and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, KeyError, TypeError, ValueError):
            return False
    clock = path.with_name(".clock")
    clock.touch()
    os.utime(clock)
    try:
        return clock.stat().st_mtime - path.stat().st_mtime < LOST
    except OSError:
        return False
