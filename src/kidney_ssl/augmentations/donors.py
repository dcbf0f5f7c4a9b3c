"""Donors for copy and paste in the training slices: tumors that squares can cover, tumors to paste, and kidneys.

They are found once, from the masks of the label budget's rows; other rows are never read.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import find_objects
from skimage.measure import label
from torch import Tensor

from kidney_ssl.augmentations.base import TrainingSet
from kidney_ssl.data.regions import sides
from kidney_ssl.errors import InputError
from kidney_ssl.methods.boxes import below
from kidney_ssl.schema import MASK_KIDNEY, MASK_TUMOR

BLOCK = 64  # masks read at a time
RIM = 1  # pixels around a tumor's box that a square must also cover, because resizing blurs the tumor's edge


class ByCase:
    """A table of entries that belong to cases, from which entries of other cases can be drawn.

    An empty table has one dummy entry that is never drawn.

    Args:
        rows: (D,) row of each entry in the training split.
        values: (D, V) integers of each entry.
        cases: (N,) case number of each row of the split.
        device: device of the table.
    """

    def __init__(self, rows: np.ndarray, values: np.ndarray, cases: np.ndarray, device: torch.device) -> None:
        order = np.argsort(cases[rows], kind="stable")
        self._entries = len(rows)
        self.rows = torch.from_numpy(rows[order] if len(rows) else np.zeros(1, np.int64)).to(device)
        self.values = torch.from_numpy(values[order] if len(rows) else np.zeros((1, values.shape[1]), np.int64)).to(
            device
        )
        count = np.bincount(cases[rows], minlength=cases.max() + 1)
        self._count = torch.from_numpy(count).to(device)
        self._first = torch.from_numpy(np.cumsum(count) - count).to(device)

    def __len__(self) -> int:
        return self._entries

    def draw(self, one: Tensor, other: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """For each of B pairs of cases, (B,) int64 each, draw uniformly an entry that belongs to neither case.

        Returns:
            Entries (B,) int64, 0 where there is none, and whether there is one, (B,) bool.
        """
        low, high = torch.minimum(one, other), torch.maximum(one, other)
        left_out = self._count[low], torch.where(low == high, 0, self._count[high])
        number = len(self) - left_out[0] - left_out[1]
        entry = below(number, generator)
        # The table is sorted by case: skip the entries of both cases, the lower case number first.
        for case, count in zip((low, high), left_out, strict=True):
            entry = entry + torch.where(entry >= self._first[case], count, 0)
        found = number > 0
        return entry * found, found


@dataclass(frozen=True)
class Donors:
    """Tables of the label budget's training slices, on the device; N is the number of rows of the whole split."""

    case: Tensor  # (N,) int64, case number
    positives: Tensor  # (P,) int64, rows with a tumor
    negatives: Tensor  # (Q,) int64, rows without
    coverable: Tensor  # (N,) bool, whether the row is positive and squares may cover its whole tumor
    # (N, K, 4) int64, half-open boxes (top, bottom, left, right) of the tumor's components in coverable rows, with the
    # rim; unused ones are (0, 0, 0, 0)
    boxes: Tensor
    tumors: ByCase  # half-open boxes of tumors that may be pasted, one per positive slice
    kidneys: ByCase  # centres (row, column) of kidneys in slices without tumor


def find_donors(training: TrainingSet, *, side: int, small_px: float, room: Sequence[tuple[int, int]]) -> Donors:
    """Find all donors by reading the masks of the label budget's rows once.

    A tumor is coverable if its native area is below `small_px` and each component, with its rim, fits into a square
    of `side`. The largest component of a positive slice may be pasted if, on the native grid, it is not smaller than
    the smallest tumor of a positive slice, and if its box fits into a region. A kidney may be a tissue donor if its
    half of the slice (the whole slice for a single organ) has at least as many kidney pixels as the smallest tumor that
    may be pasted has tumor pixels.

    Args:
        training: see `TrainingSet`.
        side: side of a covering square in pixels of the standardised image.
        small_px: tumor pixels on the native grid, from which on a tumor is too large to cover.
        room: height and width in pixels that each region has for a box.

    Raises:
        InputError: all rows have one class.
    """
    rows = np.unique(np.asarray(training.rows, dtype=np.int64))
    labels, tumor_px = np.asarray(training.labels), np.asarray(training.tumor_px)
    positives, negatives = rows[labels[rows] == 1], rows[labels[rows] == 0]
    if not len(positives) or not len(negatives):
        raise InputError("supervised augmentation needs training slices with and without tumor: give more cases")
    covered: dict[int, np.ndarray] = {}
    pasted: dict[int, tuple[int, np.ndarray]] = {}  # row -> pixels in the standardised image, box
    for block, masks in _masks(training, positives):
        for row, tumor in zip(block.tolist(), (masks[:, 0] == MASK_TUMOR).cpu().numpy(), strict=True):
            boxes, areas = _components(tumor)
            if not len(boxes):
                continue  # the tumor vanished when resizing
            grown = np.clip(boxes + np.array([-RIM, RIM, -RIM, RIM]), 0, training.image_size)
            if tumor_px[row] < small_px and (_sides(grown) <= side).all():
                covered[row] = grown
            largest = areas.argmax()
            alone = tumor_px[row] * areas[largest] / areas.sum() >= tumor_px[positives].min()
            if alone and (_sides(boxes[largest]) <= np.array(room)).all(1).any():
                pasted[row] = int(areas[largest]), boxes[largest]
    halves = sides(training.image_size, paired=len(training.regions) > 1)
    least = min((area for area, _ in pasted.values()), default=1)
    kidneys = np.concatenate([_kidneys(block, masks, least, halves) for block, masks in _masks(training, negatives)])
    number = max((len(boxes) for boxes in covered.values()), default=1)
    table = np.zeros((len(labels), number, 4), dtype=np.int64)
    for row, boxes in covered.items():
        table[row, : len(boxes)] = boxes
    coverable = np.asarray(table.any((1, 2)))
    case = np.unique(np.asarray(training.cases), return_inverse=True)[1].astype(np.int64)
    tumors = np.array([[row, *box] for row, (_, box) in pasted.items()], dtype=np.int64).reshape(-1, 5)
    device = training.device

    def given(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(device)

    return Donors(
        case=given(case),
        positives=given(positives),
        negatives=given(negatives),
        coverable=given(coverable),
        boxes=given(table),
        tumors=ByCase(tumors[:, 0], tumors[:, 1:], case, device),
        kidneys=ByCase(kidneys[:, 0], kidneys[:, 1:], case, device),
    )


def _masks(training: TrainingSet, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Read masks block by block: rows, and (B, 1, S, S) uint8 on the device."""
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        yield block, training.masks(torch.from_numpy(block).to(training.device))


def _components(tumor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split a mask (S, S) into 8-connected components: half-open boxes (K, 4) and pixel counts (K,)."""
    parts = label(tumor, connectivity=2)
    boxes = [(rows.start, rows.stop, columns.start, columns.stop) for rows, columns in find_objects(parts)]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4), np.bincount(parts.ravel())[1:]


def _sides(boxes: np.ndarray) -> np.ndarray:
    """Height and width of boxes (..., 4): (..., 2)."""
    return boxes[..., 1::2] - boxes[..., ::2]


def _kidneys(rows: np.ndarray, masks: Tensor, least: int, halves: Iterable[tuple[int, int]]) -> np.ndarray:
    """Find kidneys of at least `least` pixels in each half of slices without tumor: (K, 3) row, centre of the box."""
    found = []
    whole = ~(masks == MASK_TUMOR).any(3).any(2)
    for first, past in halves:
        kidney = (masks[:, 0, :, first:past] == MASK_KIDNEY) & whole[:, :, None]
        middles = [
            (lines.int().argmax(1) + lines.shape[1] - 1 - lines.flip(1).int().argmax(1)) // 2
            for lines in (kidney.any(2), kidney.any(1))
        ]
        enough = (kidney.sum((1, 2)) >= least).cpu().numpy()
        place = torch.stack([middles[0], middles[1] + first], 1).cpu().numpy()
        found.append(np.column_stack([rows, place])[enough])
    return np.concatenate(found)
