"""Side by side: every candidate once a round, in turn, so that a slow moment of the machine hits all of them."""

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm


def side_by_side(candidates: Mapping[str, Callable[[], object]], *, rounds: int, label: str) -> dict[str, list[float]]:
    """Time candidates in turn.

    Args:
        candidates: name -> what to run; each runs once unmeasured first.
        rounds: measured runs of each.
        label: for the progress bar.

    Returns:
        name -> seconds of each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in tqdm(range(rounds + 1), desc=label, unit="round"):
        # Another one begins each round.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.perf_counter()
            candidates[name]()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: Mapping[str, list[float]], ours: str, other: str) -> dict[str, float]:
    """How many times as fast `ours` is as `other`: median and quartiles of the ratios within each round."""
    ratios = [b / a for a, b in zip(seconds[ours], seconds[other], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def spread(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and quartiles of the seconds of each candidate."""
    found = {}
    for name, values in seconds.items():
        low, middle, high = statistics.quantiles(values, n=4)
        found[name] = {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}
    return found


def row(work: str, against: str, measured: Mapping[str, float], bar: float, **more: Any) -> dict[str, Any]:
    """One line of the table: a ratio, the bar it must reach, and whether it does."""
    return {
        "work": work,
        "against": against,
        "ratio": dict(measured),
        "bar": bar,
        "met": measured["median"] >= bar,
        **more,
    }


def peak_mb(module: str, *arguments: str) -> float:
    """Peak resident memory of `python -m module arguments`, itself and its largest child, in MB.

    The module prints what `report_peak` prints as its last line.
    """
    command = [sys.executable, "-m", module, *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(output.splitlines()[-1]))


def report_peak() -> None:
    """Print the peak memory of this process, or of its largest child if that is more, in MB."""
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps(kilobytes / 1024))
