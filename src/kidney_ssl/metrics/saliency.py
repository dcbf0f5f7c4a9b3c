"""Where saliency maps lie, and how they correlate between arms."""

from collections.abc import Mapping

import numpy as np

from kidney_ssl.statistics.result import DIGITS

# Structures of the masks (1 kidney, 2 tumor, 3 cyst): the kidney is the organ with all that grows in it.
STRUCTURES: dict[str, tuple[int, ...]] = {"tumor": (2,), "kidney": (1, 2, 3)}
AIR = -1000  # HU outside the body in a standardised slice


def measured(slices: int, wanted: int) -> np.ndarray:
    """Choose `wanted` of the test slices to measure maps of, the same of every arm: int64, rising, spread evenly."""
    return np.unique(np.linspace(0, slices - 1, min(wanted, slices)).round().astype(np.int64))


def shares(maps: np.ndarray, masks: np.ndarray, images: np.ndarray) -> dict[str, float | int | None]:
    """Compute how much of the maps' activation lies inside tumor, kidney and body, and the area that those take.

    Of maps (N, S, S), not negative, masks (N, S, S) and images (N, S, S) in HU, `AIR` outside the body.

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
            share, area = round(float(within.mean()), DIGITS), round(float(where[counted].mean()), DIGITS)
        found |= {f"share_{name}": share, f"area_{name}": area}
    return found


def slice_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation between two arms' maps (N, h, w) of each slice: (N,), NaN where a map is constant."""
    a, b = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second))
    a, b = (values - values.mean(1, keepdims=True) for values in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), norms, out=np.full(len(norms), np.nan), where=norms > 0)


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Mean of `slice_correlations` over the slices that have one; None if none has."""
    each = slice_correlations(first, second)
    return None if np.isnan(each).all() else round(float(np.nanmean(each)), DIGITS)


def correlations(maps: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """`correlation` of each pair of arms, by name and name."""
    return {one: {other: correlation(maps[one], maps[other]) for other in maps} for one in maps}
