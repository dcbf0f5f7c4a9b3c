"""Slices as batches: rows of one array, in a seeded permutation, on the device."""

import hashlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kidney_ssl.data.arrays import load_rows
from kidney_ssl.engine.device_array import DeviceArray
from kidney_ssl.errors import InputError


@dataclass(frozen=True)
class Part:
    """One split on disk: images (N, S, S) float16 in [0, 1], memory-mapped, and their rows.

    `frame` has one row an image, with at least case, slice and class, and label (0 or 1) where labels are read.
    `masks` are (N, S, S) uint8, memory-mapped too, where they were asked for.
    """

    images: np.ndarray
    frame: pd.DataFrame
    masks: np.ndarray | None = None


class Batch(NamedTuple):
    """A batch, all on the device."""

    images: Tensor  # (B, 1, S, S) float32 in [0, 1]
    labels: Tensor  # (B,) float32
    rows: Tensor  # (B,) int64, rows of the part's array
    masks: Tensor | None = None  # (B, S, S) uint8, if the part has masks
    update: int = 0  # optimizer steps made before this batch


def read_part(images: str | Path, frame: str | Path, masks: str | Path | None = None) -> Part:
    """Map a split's images, and its masks if they are wanted, into memory and read its rows.

    Raises:
        InputError: a file is missing or damaged, or they do not belong together.
    """
    array = _map(images, "normalize")
    rows = load_rows(frame)
    if array.ndim != 3 or len(array) != len(rows):
        raise InputError(
            f"{images}: holds {array.shape} for {len(rows)} rows of {frame}; run `dvc repro --force slice normalize`"
        )
    labels = None if masks is None else _map(masks, "slice")
    if labels is not None and labels.shape != array.shape:
        raise InputError(
            f"{masks}: holds {labels.shape} for images of {array.shape}; run `dvc repro --force slice normalize`"
        )
    return Part(array, rows, labels)


def _map(path: str | Path, stage: str) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro {stage}`") from error
    return array


class Slices:
    """Slices of one part, returned as batches on the device.

    Args:
        part: the part; `subset` chooses rows of it.
        device: where batches are returned.
        resident: see `DeviceArray`.
    """

    def __init__(self, part: Part, *, device: torch.device, resident: str = "auto") -> None:
        self.part, self.device = part, device
        self.images = DeviceArray(part.images, device, resident)
        self.masks = None if part.masks is None else DeviceArray(part.masks, device, resident)
        self._choose(np.arange(len(part.frame)))

    def subset(self, rows: np.ndarray) -> "Slices":
        """Slices with the rows (n,) of the part, whichever rows these slices have; arrays in memory are shared."""
        chosen = copy(self)
        chosen._choose(rows)
        return chosen

    def _choose(self, rows: np.ndarray) -> None:
        self.rows = np.asarray(rows, dtype=np.int64)
        self.frame = self.part.frame.iloc[self.rows].reset_index(drop=True)
        labels = self.frame["label"] if "label" in self.frame else np.zeros(len(self.rows))
        self.labels = torch.from_numpy(np.array(labels, dtype=np.float32)).to(self.device)

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, positions: Sequence[Tensor]) -> Iterator[Batch]:
        """Iterate over batches without waiting for the device; all positions are uploaded at once.

        Args:
            positions: (B,) int64 of each batch, on the CPU, in 0 .. len(self) - 1.
        """
        if not positions:
            return
        sizes = [len(one) for one in positions]
        at = torch.cat(list(positions))
        rows = torch.from_numpy(self.rows)[at]
        # Both in one tensor, since each upload from pageable memory waits.
        there = torch.stack([at, rows]).to(self.device, non_blocking=True)
        labels, on_device, parted = (torch.split(one, sizes) for one in (self.labels[there[0]], there[1], rows))
        images = self.images.batches(parted, on_device)
        masks = repeat(None) if self.masks is None else self.masks.batches(parted, on_device)
        for image, label, row, mask in zip(images, labels, on_device, masks, strict=False):
            yield Batch(image.float().unsqueeze(1), label, row, mask)

    def batch(self, positions: Tensor) -> Batch:
        """One batch."""
        return next(self.batches([positions]))


def seeded(seed: int, stream: str, *numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose: independent of other streams, and always the same for the same arguments."""
    # A hash, since numpy's SeedSequence treats [seed] and [seed, 0] alike.
    state = hashlib.blake2b(repr((seed, stream, *numbers)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(state, "big"))


def epoch_batches(count: int, batch_size: int, generator: torch.Generator, *, least: int = 2) -> list[Tensor]:
    """Positions (B,) int64 of each batch: each of `count` rows once, in a random order, the same on every device.

    A last batch of fewer than `least` rows is merged into the one before it: batch norm needs two values, and each of
    several processes needs a row.

    Raises:
        InputError: fewer than two rows.
    """
    if count < 2:
        raise InputError(f"{count} training slice(s) are too few to train on: give more cases or a larger budget")
    batches = ordered_batches(torch.randperm(count, generator=generator), batch_size)
    if len(batches[-1]) < least and len(batches) > 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def case_batches(cases: np.ndarray, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Batches for contrast: each row once, the slices of a case spread over as many batches as can be.

    Neighboring slices are near-duplicates, so two of one case would be false negatives. The rows, ordered by case in
    a random order, are dealt out to the b batches like cards. A case of at most b slices has one in a batch at most; of
    a larger one those in a batch are at least b places apart in the case. Batches differ by one row at most.

    Args:
        cases: (N,) the case of each row; a case's rows stand in their order along the volume.
        batch_size: the most rows of a batch, at least 2.
        generator: a CPU generator.

    Raises:
        InputError: fewer than two rows.
    """
    if len(cases) < 2:
        raise InputError(f"{len(cases)} slice(s) are too few to train on: give more cases")
    count = -(-len(cases) // batch_size)
    _, of_case, sizes = np.unique(cases, return_inverse=True, return_counts=True)
    by_case = torch.from_numpy(np.argsort(of_case, kind="stable"))
    dealt: list[Tensor] = []
    for rows in torch.split(by_case, sizes.tolist()):
        # Places that are b apart go to one batch; a place of the last, incomplete round stays in it.
        last = len(rows) % count
        shuffled = torch.cat(
            [torch.randperm(last, generator=generator), last + torch.randperm(count - last, generator=generator)]
        )
        place = torch.arange(len(rows))
        dealt.append(rows[torch.argsort(place - place % count + shuffled[place % count])])
    order = torch.cat([dealt[number] for number in torch.randperm(len(dealt), generator=generator).tolist()])
    return [order[start::count] for start in range(count)]


def batches_per_epoch(count: int, batch_size: int, *, least: int = 2) -> int:
    """Number of batches of `epoch_batches`: the updates of one epoch."""
    last = count % batch_size or batch_size
    return max(1, -(-count // batch_size) - (last < least))


def raised_epochs(per_epoch: int, epochs: int, min_updates: int, extra_updates: int = 0) -> int:
    """Raise epochs of `per_epoch` updates each until there are `min_updates`; then by `extra_updates`, rounded up."""
    return max(epochs, -(-min_updates // per_epoch)) + -(-extra_updates // per_epoch)


def evenly_spaced(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` of the rows 0 .. count - 1, evenly spaced, int64, ascending."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(np.int64))


def ordered_batches(rows: Tensor, batch_size: int) -> list[Tensor]:
    """Batches of rows in their order, for evaluation."""
    return list(torch.split(rows, batch_size))
