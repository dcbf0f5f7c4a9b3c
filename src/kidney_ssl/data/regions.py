"""The rectangles around the organ in the standardised image: two for a pair, one for a single organ."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kidney_ssl.data.arrays import load_rows, read_pieces, read_shape
from kidney_ssl.schema import LABELLED, MASK_KIDNEY, MASK_TUMOR, REGIONS, SINGLE, TRAIN

# Fractions of the image's side, half-open: [top, bottom, left, right]. "left" is image-left: the patient's right.
Rectangle = tuple[float, float, float, float]


def smallest_rectangle(density: np.ndarray, share: float) -> tuple[int, int, int, int]:
    """Find the smallest rectangle that contains at least `share` of the density.

    All pairs of rows are tried; for each, the narrowest range of columns from every first column is found in the
    cumulative column sums. On ties, the first from the top left is taken.

    Args:
        density: (H, W) counts, not all zero.
        share: in (0, 1].

    Returns:
        top, bottom, left, right in pixels, half-open.
    """
    height, width = density.shape
    wanted = int(np.ceil(share * density.sum() - 1e-9))
    below = np.concatenate([np.zeros((1, width), np.int64), density.cumsum(axis=0)])
    best, smallest = (0, height, 0, width), height * width + 1
    for top in range(height):
        for bottom in range(top + 1, height + 1):
            columns = np.concatenate([[0], (below[bottom] - below[top]).cumsum()])
            if columns[-1] < wanted:
                continue
            if bottom - top >= smallest:
                break
            right = np.searchsorted(columns, columns[:-1] + wanted)
            widths = np.where(right <= width, right - np.arange(width), width + 1)
            left = int(widths.argmin())
            area = (bottom - top) * int(widths[left])
            if widths[left] <= width and area < smallest:
                best, smallest = (top, bottom, left, int(right[left])), area
    return best


def sides(size: int, *, paired: bool) -> tuple[tuple[int, int], ...]:
    """First column and end column (exclusive) of each part of a slice with one organ: both halves, or the whole."""
    return ((0, size // 2), (size // 2, size)) if paired else ((0, size),)


def find_regions(density: np.ndarray, share: float, *, paired: bool = True) -> dict[str, Rectangle]:
    """Find one rectangle per organ: the smallest that contains `share` of its side's organ, tumor and cyst pixels.

    Args:
        density: (S, S) number of training masks with organ, tumor or cyst at each pixel.
        share: in (0, 1].
        paired: whether there is an organ in each half of the slice.

    Returns:
        "left" and "right", or "organ", as fractions of the side; the whole half or slice if no pixel is labelled.
    """
    size = density.shape[1]
    regions: dict[str, Rectangle] = {}
    for name, (start, stop) in zip(REGIONS if paired else (SINGLE,), sides(size, paired=paired), strict=True):
        half = density[:, start:stop]
        top, bottom, left, right = smallest_rectangle(half, share) if half.any() else (0, size, 0, stop - start)
        regions[name] = (top / size, bottom / size, (start + left) / size, (start + right) / size)
    return regions


def inside(regions: dict[str, Rectangle], size: int) -> np.ndarray:
    """Mark the pixels of the rectangles: (S, S) bool."""
    marked = np.zeros((size, size), dtype=bool)
    for top, bottom, left, right in regions.values():
        marked[round(top * size) : round(bottom * size), round(left * size) : round(right * size)] = True
    return marked


def coverage(masks: Iterable[np.ndarray], labels: np.ndarray, regions: dict[str, Rectangle]) -> dict[str, Any]:
    """Measure how much of the labels the regions contain in one part.

    Args:
        masks: batches (N, S, S) uint8, in the order of `labels`.
        labels: (N,) 0 or 1, all batches together.
        regions: see `find_regions`.

    Returns:
        Shares of kidney and of tumor pixels inside; of the positive slices, the share with no tumor pixel inside
        (`positive_slices_outside`) and with at least one outside (`positive_slices_partly_outside`). A share with a
        denominator of 0 is None.
    """
    names = ("kidney", "tumor", "positive_slices_outside", "positive_slices_partly_outside")
    counts: list[Any] = []
    done, count = 0, np.count_nonzero
    for batch in masks:
        marked = inside(regions, batch.shape[1])
        kidney, tumor = batch == MASK_KIDNEY, batch == MASK_TUMOR
        positive = tumor[labels[done : done + len(batch)] == 1]
        done += len(batch)
        outside, partly = ~(positive & marked).any(axis=(1, 2)), (positive & ~marked).any(axis=(1, 2))
        counts += [count(kidney & marked), count(kidney), count(tumor & marked), count(tumor)]
        counts += [count(outside), len(positive), count(partly), len(positive)]
    totals = zip(names, np.reshape(counts, (-1, len(names), 2)).sum(axis=0).tolist(), strict=True)
    return {name: round(part / whole, 6) if whole else None for name, (part, whole) in totals}


def regions_of_store(
    slices: Path, *, share: float, by_hand: dict[str, Rectangle] | None, paired: bool = True
) -> tuple[dict[str, Rectangle], dict[str, Any]]:
    """Find the regions from the training masks, and measure them in training and in validation.

    Args:
        slices: folder of the masks.
        share: see `find_regions`.
        by_hand: rectangles given by the study, which are then used instead.
        paired: see `find_regions`.

    Returns:
        The regions for regions.json, and `coverage` of each part with the source of the regions.
    """
    masks = {split: slices / f"{split}_masks.npy" for split in LABELLED}
    regions, source = by_hand, "by hand"
    if regions is None:
        size = read_shape(masks[TRAIN])[1]
        counted = (np.count_nonzero(piece, axis=0) for piece in read_pieces(masks[TRAIN]))
        density = sum(counted, start=np.zeros((size, size), np.int64))
        regions = find_regions(density, share, paired=paired)
        whole = "the whole image, since no pixel is labelled"
        source = f"smallest that hold {share:g} of the training masks" if density.any() else whole
    held: dict[str, Any] = {"source": source}
    for split, path in masks.items():
        labels = load_rows(slices / f"{split}.csv")["label"].to_numpy()
        held[split] = coverage(read_pieces(path), labels, regions)
    return regions, held
