"""Checkpoints of unfinished trainings, replaced atomically."""

import os
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kidney_ssl.errors import InputError

SHARE = 0.05  # largest share of a training's time for checkpoints between epochs
SECONDS = 30.0  # between checkpoints: the most that a kill loses; writing ResNet-18 with Adam takes half a second


class Checkpoint:
    """The checkpoint file of an unfinished training; within an epoch `seconds` pass between two checkpoints."""

    def __init__(self, path: Path, seconds: float = SECONDS) -> None:
        self.path = path
        self.seconds = seconds
        self._last = time.monotonic()
        self._took = 0.0

    def due(self, *, epoch_over: bool = False) -> bool:
        """Whether `seconds` have passed since the last checkpoint or the start.

        A checkpoint is also due at the end of an epoch, unless epochs are so short that writing takes more than
        `SHARE`.
        """
        since = time.monotonic() - self._last
        return since >= self.seconds or (epoch_over and SHARE * since >= self._took)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint atomically: write beside it, flush to disk, move into place.

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
        """The saved state, on the CPU; None if there is no checkpoint.

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
