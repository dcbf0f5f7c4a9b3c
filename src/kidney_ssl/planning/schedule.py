"""How long trainings take side by side."""

import heapq
from collections.abc import Iterable


def side_by_side(times: Iterable[float], workers: int) -> float:
    """Seconds until the last one ends: the next one starts where a worker is free, in the order given."""
    busy = [0.0] * workers
    for time in times:
        heapq.heapreplace(busy, busy[0] + time)
    return max(busy)
