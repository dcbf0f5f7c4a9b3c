"""Location of saliency maps relative to the anatomy, and their correlation between arms."""

from collections.abc import Mapping

import numpy as np

from kidney_ssl.statistics.result import DIGITS

# Mask values of each structure (1 kidney, 2 tumor, 3 cyst): the kidney includes its tumors and cysts.
STRUCTURES: dict[str, tuple[int, ...]] = {"tumor": (2,), "kidney": (1, 2, 3)}
AIR = -1000  # HU outside the body in a standardised slice


def measured(slices: int, wanted: int) -> np.ndarray:
    """Choose `wanted` evenly spaced test slices whose maps are measured, the same for every arm: ascending int64."""
    return np.unique(np.linspace(0, slices - 1, min(wanted, slices)).round().astype(np.int64))


def shares(maps: np.ndarray, masks: np.ndarray, images: np.ndarray) -> dict[str, float | int | None]:
    """Compute the share of activation inside tumor, kidney and body, and the share of the area that each takes.

    Args:
        maps: (N, S, S), not negative.
        masks: (N, S, S).
        images: (N, S, S) in HU, `AIR` outside the body.

    Returns:
        `share_<structure>` and `area_<structure>`, means over the slices that show the structure and have a nonzero
        map; an uninformative (uniform) map has a share equal to the area. None without such a slice. `null_maps`:
        number of slices whose map is zero everywhere, which are left out. `slices`: number of all slices.
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
    """Pearson correlation between two arms' maps (N, h, w), for each slice: (N,), NaN where a map is constant."""
    a, b = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second))
    a, b = (values - values.mean(1, keepdims=True) for values in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), norms, out=np.full(len(norms), np.nan), where=norms > 0)


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Mean of `slice_correlations` over the slices with a correlation; None without such a slice."""
    each = slice_correlations(first, second)
    return None if np.isnan(each).all() else round(float(np.nanmean(each)), DIGITS)


def correlations(maps: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """`correlation` of each pair of arms: arm -> arm -> correlation."""
    return {one: {other: correlation(maps[one], maps[other]) for other in maps} for one in maps}
