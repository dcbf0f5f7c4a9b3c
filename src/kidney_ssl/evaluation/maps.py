"""What activation maps say in figures: where they lie, and how alike two arms' maps are."""

from collections.abc import Mapping

import numpy as np

# Structures of the masks (1 kidney, 2 tumor, 3 cyst): the kidney is the organ with all that grows in it.
STRUCTURES: dict[str, tuple[int, ...]] = {"tumor": (2,), "kidney": (1, 2, 3)}
AIR = -1000  # HU outside the body in a standardised slice


def measured(slices: int, wanted: int) -> np.ndarray:
    """Choose the test slices whose maps are measured, the same ones of every arm, spread evenly.

    Args:
        slices: of the test part, at least one.
        wanted: how many of them.

    Returns:
        (min(slices, wanted),) int64, rising.
    """
    return np.unique(np.linspace(0, slices - 1, min(wanted, slices)).round().astype(np.int64))


def shares(maps: np.ndarray, masks: np.ndarray, images: np.ndarray) -> dict[str, float | int | None]:
    """How much of the maps' activation lies inside tumour, kidney and body, beside the area that those take.

    Args:
        maps: (N, S, S) not negative, in the frame of the slices.
        masks: (N, S, S) uint8, see `STRUCTURES`.
        images: (N, S, S) HU, `AIR` outside the body.

    Returns:
        `share_<structure>` and `area_<structure>`, means over the slices that hold the structure and have a map;
        a map's share is at its area for one that knows nothing. None without such a slice. `null_maps`: slices whose
        map is zero everywhere and says nothing; they are left out. `slices`: all.
    """
    total = maps.sum((1, 2), dtype=np.float64)
    known = total > 0
    found: dict[str, float | int | None] = {"null_maps": int((~known).sum()), "slices": len(maps)}
    inside = {name: np.isin(masks, labels) for name, labels in STRUCTURES.items()} | {"body": images > AIR}
    for name, where in inside.items():
        counted = known & where.any((1, 2))
        share = area = None
        if counted.any():
            within = (maps[counted] * where[counted]).sum((1, 2), dtype=np.float64) / total[counted]
            share, area = round(float(within.mean()), 6), round(float(where[counted].mean()), 6)
        found |= {f"share_{name}": share, f"area_{name}": area}
    return found


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Mean over slices of Pearson's correlation between two arms' maps of the same slices.

    Args:
        first: (N, h, w), not negative.
        second: the same of another arm.

    Returns:
        In [-1, 1]; slices where a map is the same everywhere, as an all-zero one is, have none and are left out. None
        if no slice is left.
    """
    a, b = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second))
    a, b = (values - values.mean(1, keepdims=True) for values in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    kept = norms > 0
    if not kept.any():
        return None
    return round(float(((a * b).sum(1)[kept] / norms[kept]).mean()), 6)


def correlations(maps: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """`correlation` of each pair of arms, by name and name."""
    return {one: {other: correlation(maps[one], maps[other]) for other in maps} for one in maps}
