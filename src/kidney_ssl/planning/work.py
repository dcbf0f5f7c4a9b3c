"""Updates and passes of a training, seconds of it from measured steps, and of trainings side by side."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What a training does.

    Attributes:
        slices: in one pass.
        epochs: passes, raised to the least number of updates.
        updates: optimizer steps.
        evaluated: slices evaluated after the epochs, all together.
        encoded: slices whose features are computed, for probes and batch-norm statistics.
        probes: how often a probe is fitted.
    """

    slices: int
    epochs: int
    updates: int
    evaluated: int
    encoded: int = 0
    probes: int = 0


@dataclass(frozen=True)
class Step:
    """Measured seconds: an optimizer step, and a slice evaluated and encoded.

    Attributes:
        update: of one update with the whole batch.
        evaluated: of one slice.
        encoded: of one slice.
        probe: of fitting the probes once.
        measured: slices of the step that was measured; fewer than a batch where that would take too long.
        batch: slices of a batch.
    """

    update: float
    evaluated: float
    encoded: float
    probe: float
    measured: int
    batch: int


def seconds(work: Work, step: Step) -> float:
    """Seconds of a training, without the start of its process."""
    return (
        work.updates * step.update
        + work.evaluated * step.evaluated
        + work.encoded * step.encoded
        + work.probes * step.probe
    )


def side_by_side(chains: Iterable[float], workers: int) -> float:
    """Seconds until the last chain ends: the next one starts where a worker is free, in the order given."""
    busy = [0.0] * workers
    for chain in chains:
        heapq.heapreplace(busy, busy[0] + chain)
    return max(busy)
