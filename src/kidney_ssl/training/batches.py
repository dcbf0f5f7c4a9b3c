"""Slices as batches: rows of one array, in a seeded permutation, on the device."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kidney_ssl.data.arrays import load_rows
from kidney_ssl.errors import InputError


@dataclass(frozen=True)
class Part:
    """One split as it lies on disk: images (N, S, S) float16 in [0, 1], memory-mapped, and their rows.

    `frame` has one row an image, in the same order, with at least case, slice, class and label (0 or 1). `masks` are
    (N, S, S) uint8, memory-mapped too, where they were asked for.
    """

    images: np.ndarray
    frame: pd.DataFrame
    masks: np.ndarray | None = None


class Batch(NamedTuple):
    """What a task's step gets: images (B, 1, S, S) float32, labels (B,) float32, rows (B,) int64 of the split."""

    images: Tensor
    labels: Tensor
    rows: Tensor


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
    """Images and labels of one split, given out as batches on the device.

    Args:
        images: (N, S, S) float16, usually memory-mapped.
        labels: (N,) of 0 and 1; zeros for tasks that use none.
        device: where batches go.
        resident: `always` holds all rows on the device, `never` reads them from the map batch by batch, `auto`
            holds them if they fit into half of the free memory there.
        rows: which rows of `images` take part; all if None.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        device: torch.device,
        resident: str = "auto",
        rows: np.ndarray | None = None,
    ) -> None:
        self.rows = np.arange(len(images)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.labels = torch.from_numpy(np.asarray(labels, dtype=np.float32)[self.rows]).to(device)
        self.device = device
        self._images = images
        self._held: Tensor | None = None
        size = len(self.rows) * images[:1].nbytes
        if resident == "always" or (resident == "auto" and size <= free_bytes(device) // 2):
            # Assigned block by block: indexing the whole map would hold every row twice.
            self._held = torch.empty((len(self.rows), *images.shape[1:]), dtype=torch.float16, device=device)
            for start in range(0, len(self.rows), 256):
                block = images[self.rows[start : start + 256]]
                self._held[start : start + 256] = torch.from_numpy(np.asarray(block, dtype=np.float16))

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Tensor) -> Batch:
        """The slices at the given positions, (B,) int64 on the CPU."""
        if self._held is not None:
            images = self._held[index.to(self.device)]
        else:
            images = torch.from_numpy(np.asarray(self._images[self.rows[index.numpy()]])).to(self.device)
        rows = torch.from_numpy(self.rows[index.numpy()]).to(self.device)
        return Batch(images.float().unsqueeze(1), self.labels[index.to(self.device)], rows)


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU, or memory the host can give without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil  # noqa: PLC0415 - asked only where a part is read

    return int(psutil.virtual_memory().available)


def seeded(seed: int, stream: str, *numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose: independent of other streams, and the same wherever it is asked for."""
    # A hash, since numpy's SeedSequence takes [seed] and [seed, 0] for the same.
    state = hashlib.blake2b(repr((seed, stream, *numbers)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(state, "big"))


def epoch_batches(count: int, batch_size: int, generator: torch.Generator, *, least: int = 2) -> list[Tensor]:
    """Each of `count` rows once, in a random order.

    The permutation is drawn on the CPU, so that the order is the same on every device. A last batch that is too small
    joins the one before it: batch norm needs two values, and each of several processes a row.

    Args:
        count: rows of the training set, at least 2.
        batch_size: rows of a batch, at least 2; the last is shorter, or less than `least` longer.
        generator: a CPU generator.
        least: rows that the last batch must have.

    Returns:
        Positions, (B,) int64 each.

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
    """Batches for contrast: at most one slice of a case in each, where there are as many cases as slices in a batch.

    Neighbouring slices are near-duplicates, so two of one case would be false negatives. The slices, ordered by case
    in a random order, are dealt out to the batches like cards. A case with more slices than there are batches gives
    as many of them as there are batches, others in each epoch.

    Args:
        cases: (N,) the case of each row.
        batch_size: rows of a batch, at least 2.
        generator: a CPU generator.

    Returns:
        Positions, (B,) int64 each, B at most `batch_size`.

    Raises:
        InputError: fewer than two rows.
    """
    if len(cases) < 2:
        raise InputError(f"{len(cases)} slice(s) are too few to train on: give more cases")
    names, of_case = np.unique(cases, return_inverse=True)
    count = max(1, -(-len(cases) // batch_size))
    shuffled = torch.randperm(len(cases), generator=generator)
    rank = torch.randperm(len(names), generator=generator)[torch.from_numpy(of_case)[shuffled]]
    order = shuffled[torch.argsort(rank, stable=True)]
    if len(names) >= batch_size:
        ranks = np.sort(rank.numpy())
        within_case = np.arange(len(order)) - np.searchsorted(ranks, ranks)
        order = order[torch.from_numpy(within_case < count)]
    return [order[start::count] for start in range(count)]


def batches_per_epoch(count: int, batch_size: int, *, least: int = 2) -> int:
    """How many batches `epoch_batches` gives: the updates of one epoch."""
    last = count % batch_size or batch_size
    return max(1, -(-count // batch_size) - (last < least))


def raised_epochs(per_epoch: int, epochs: int, min_updates: int, extra_updates: int = 0) -> int:
    """Raise epochs of `per_epoch` updates each until there are `min_updates`; then by `extra_updates`, rounded up."""
    return max(epochs, -(-min_updates // per_epoch)) + -(-extra_updates // per_epoch)


def ordered_batches(rows: Tensor, batch_size: int) -> list[Tensor]:
    """Rows in their order, for evaluation."""
    return list(torch.split(rows, batch_size))
