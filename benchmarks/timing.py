"""Side by side: every candidate once a round, in turn, so that a slow moment of the machine hits all of them."""

import contextlib
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
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


def at_most(work: str, against: str, value: float, bar: float, *, digits: int = 3) -> dict[str, Any]:
    """One line of the table: a figure, shown with so many decimals, and the bar that it must not exceed."""
    return {"work": work, "against": against, "value": round(value, digits), "bar": bar, "met": value <= bar}


def at_least(work: str, against: str, value: float, least: float, *, digits: int = 3) -> dict[str, Any]:
    """One line of the table: a figure, shown with so many decimals, and the bar that it must reach."""
    return {"work": work, "against": against, "value": round(value, digits), "least": least, "met": value >= least}


def exactly(work: str, against: str, value: int, wanted: int) -> dict[str, Any]:
    """One line of the table: a count, and what it must be."""
    return {"work": work, "against": against, "value": value, "exactly": wanted, "met": value == wanted}


def resident_bytes(process: psutil.Process) -> int:
    """Memory of a process, pages of mapped files among it."""
    return int(process.memory_info().rss)


def own_bytes(process: psutil.Process) -> int:
    """Memory of a process that no file backs."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon:")), 0)


def peak_mb(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    memory: Callable[[psutil.Process], int] = resident_bytes,
) -> float:
    """Peak memory of a command and all its children together, in MB: what `memory` says of each added up, sampled.

    (`ru_maxrss` would not do: a child begins with the peak of the process that started it.)
    """
    most = 0
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, cwd=cwd, env=environment, stdout=said, stderr=said) as process,
    ):
        root = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                        total += memory(one)
            most = max(most, total)
            time.sleep(0.01)  # looking more often would take the measured process's time
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {said.read()}")
    return most / 2**20
