"""Checkpoints of interrupted trainings: replaced atomically, gone when the training is done."""

import hashlib
import json
import os
import pickle
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import kidney_ssl
from kidney_ssl.errors import InputError
from kidney_ssl.training.exclusive import exclusive

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SHARE = 0.05  # of a training's time that its checkpoints between epochs may take
SECONDS = 30.0  # between checkpoints: what a kill costs at most; writing ResNet-18 with Adam takes about half a second


def fingerprint(parameters: Mapping[str, Any], arrays: Iterable[np.ndarray] = (), files: Iterable[Path] = ()) -> str:
    """Hash all that decides a training, so that a checkpoint is never continued under other settings.

    The package's own source and torch's version count too: an edited loss would otherwise take up half a training
    of the old one.

    Args:
        parameters: anything JSON can hold.
        arrays: contents that are trained or evaluated on; memory maps are read once.
        files: files that are read, such as initial weights.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.blake2b(json.dumps([torch.__version__, parameters], sort_keys=True).encode(), digest_size=8)
    sources = sorted(Path(kidney_ssl.__file__).parent.rglob("*.py"))
    for path in [*sources, *files]:
        digest.update(path.read_bytes())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class Checkpoint:
    """The one file that holds an unfinished training.

    Args:
        path: where; its folder is made.
        seconds: time between two checkpoints within an epoch. It changes what a kill costs, never a result.
    """

    def __init__(self, path: Path, seconds: float = SECONDS) -> None:
        self.path = path
        self.seconds = seconds
        self._last = time.monotonic()
        self._took = 0.0

    def due(self, *, epoch_over: bool = False) -> bool:
        """Whether the last checkpoint, or the start, is `seconds` ago.

        The end of an epoch is always worth one, unless epochs are so short that writing would take more than `SHARE`.
        """
        since = time.monotonic() - self._last
        return since >= self.seconds or (epoch_over and SHARE * since >= self._took)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint: written beside, flushed to the disk, moved into place.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        part = self.path.with_name(self.path.name + ".part")
        started = time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                torch.save(dict(state), stream)
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); free space and run again") from error
        self._last = time.monotonic()
        self._took = self._last - started

    def load(self) -> dict[str, Any] | None:
        """What was saved, on the CPU; None if there is nothing.

        Raises:
            InputError: the file is damaged, or holds more than tensors and plain values.
        """
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise InputError(f"{self.path}: damaged checkpoint; delete it and run again") from error
        return state


@contextmanager
def exclusive_training(fabric: "Fabric", folder: Path, label: str, files: Iterable[Path]) -> Iterator[None]:
    """Hold the lock of one training, whose checkpoints are `files`, while the block runs; then delete them.

    Checkpoints of other settings go before the block, the own ones stay if it fails. Of several processes the first
    does all that; where it is refused, all are.

    Raises:
        InputError: see `exclusive`.
    """
    with ExitStack() as stack:
        refusal = None
        if fabric.is_global_zero:
            try:
                stack.enter_context(exclusive(folder, label))
                remove_checkpoints(folder, label, keep=files)
            except InputError as error:
                refusal = str(error)
        refusal = fabric.broadcast(refusal)
        if refusal is not None:
            raise InputError(refusal)
        yield
        if fabric.is_global_zero:
            remove_checkpoints(folder, label)


def remove_checkpoints(folder: Path, label: str, keep: Iterable[Path] = ()) -> None:
    """Delete the checkpoints of one training, those of other settings too, except `keep`; call it under the lock."""
    name = re.compile(re.escape(label) + r"-[0-9a-f]{16}\.pt(\.part)?")
    kept = set(keep)
    for path in folder.glob("*.pt*"):
        if name.fullmatch(path.name) and path not in kept:
            path.unlink(missing_ok=True)
