"""The run store: every finished training, keyed by everything that determines its bytes.

The key is a hash of code, libraries, parameters, inputs and seed. A training is moved in atomically, with the checksum
of each file, and verified when it is read. A damaged training counts as missing.

    <store>/runs/<key>/             files of a training, and entry.json: description, checksum and bytes of each file
    <store>/unfinished/<key>*.pt    its checkpoint, from which the next process that claims it continues
    <store>/claims/<key>.json       which process trains it now (see `kidney_ssl.engine.claims`)
"""

import hashlib
import json
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from kidney_ssl.engine.claims import Claim, claim
from kidney_ssl.files import place_file, sha256
from kidney_ssl.jsonfile import write_json

ENTRY = "entry.json"
version = cache(metadata.version)
# Libraries that compute a training.
LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "scikit-learn",
    "lightly",
    "lightning-fabric",
    "segmentation-models-pytorch",
)


def store_key(kind: str, code: Mapping[str, str], parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Hash everything that determines the bytes of a training.

    Args:
        kind: the kind of training, such as "finetune".
        code: module -> hash, see `kidney_ssl.code_version`.
        parameters: all its values, including the seed and the machine's numerics, as JSON.
        inputs: name -> checksum of every input file.

    Returns:
        32 hexadecimal digits.
    """
    libraries = {name: version(name) for name in LIBRARIES}
    content = {"kind": kind, "code": code, "libraries": libraries, "parameters": parameters, "inputs": inputs}
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()[:32]


class RunStore:
    """Finished trainings in a folder that processes and machines may share.

    Above `limit_gb` (10^9 bytes) the least recently used trainings are deleted.
    """

    def __init__(self, folder: Path, limit_gb: float) -> None:
        self.folder, self.limit = folder, limit_gb * 1e9
        self._sizes: dict[str, int] = {}  # bytes of stored trainings, by key

    def has(self, key: str, needs: Collection[str] = ()) -> bool:
        """Whether a training with the files of `needs` is stored; compares sizes without reading contents."""
        entry = self._entry(key)
        return entry is not None and set(needs) <= set(entry["files"])

    def path(self, key: str) -> Path:
        """Folder of a finished training, whether it exists or not."""
        return self.folder / "runs" / key

    def checkpoint(self, key: str) -> Path:
        """Checkpoint of an unfinished training; names of further files beside it begin with its stem."""
        return self.folder / "unfinished" / f"{key}.pt"

    def claim(self, key: str, label: str) -> Claim | None:
        """Claim a training; None while another living process owns it."""
        return claim(self.folder / "claims", key, label)

    def workspace(self, key: str) -> Path:
        """An empty folder of this process for a training's files; `add` moves it into the store."""
        folder = self.folder / "unfinished" / f"{key}-{socket.gethostname()}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def add(self, key: str, made: Path, described: Mapping[str, Any], protect: Collection[str] = ()) -> None:
        """Move a finished training into the store, atomically; delete its checkpoints and what exceeds the limit.

        `described` is a description for people; keys in `protect`, of the running study, are never deleted.
        """
        files = sorted(path for path in made.rglob("*") if path.is_file())
        listed = {
            path.relative_to(made).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files
        }
        write_json(made / ENTRY, {"described": described, "files": listed})
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # incomplete, damaged, or from a process that seemed dead
            old = made.with_name(f"{made.name}.old")
            target.rename(old)
            shutil.rmtree(old)
        made.rename(target)
        for path in self.checkpoint(key).parent.glob(f"{key}*"):  # checkpoints and leftovers of killed processes
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self._bound({key, *protect})

    def collect(self, key: str, target: Callable[[str], Path | None]) -> bool:
        """Verify a training's files and link each to its target (None: skipped); copy where links fail.

        Returns:
            Whether the training was stored and undamaged. A damaged one is deleted, with a warning.
        """
        entry = self._entry(key)
        if entry is None:
            return False
        source = self.path(key)
        for name, file in entry["files"].items():
            if sha256(source / name) != file["sha256"]:
                warnings.warn(f"{source / name}: damaged, the training is made again", stacklevel=2)
                shutil.rmtree(source, ignore_errors=True)
                return False
        for name in entry["files"]:
            path = target(name)
            if path is not None:
                place_file(source / name, path)
        os.utime(source / ENTRY)  # for the least recently used rule
        return True

    def _entry(self, key: str) -> dict[str, Any] | None:
        folder = self.path(key)
        try:
            entry: dict[str, Any] = json.loads((folder / ENTRY).read_bytes())
            whole = all((folder / name).stat().st_size == file["bytes"] for name, file in entry["files"].items())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return entry if whole else None

    def _bound(self, protected: set[str]) -> None:
        """Delete the least recently used trainings until the rest is within the limit."""
        there = {folder.name for folder in (self.folder / "runs").iterdir()}
        for key in there - set(self._sizes):
            entry = self._entry(key)
            self._sizes[key] = sum(file["bytes"] for file in entry["files"].values()) if entry else 0
        total = sum(self._sizes[key] for key in there)
        if total <= self.limit:
            return
        for key in sorted(there - protected, key=self._used):
            shutil.rmtree(self.path(key), ignore_errors=True)
            total -= self._sizes.pop(key)
            if total <= self.limit:
                return
        warnings.warn(
            f"{self.folder}: this study alone takes {total / 1e9:.1f} GB; raise compute.store_gb "
            f"({self.limit / 1e9:g}) or keep fewer networks (finetune.keep)",
            stacklevel=3,
        )

    def _used(self, key: str) -> float:
        try:
            return (self.path(key) / ENTRY).stat().st_mtime
        except OSError:  # damaged, or just deleted by another process
            return 0.0
