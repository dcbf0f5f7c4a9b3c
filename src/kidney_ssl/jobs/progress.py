"""One progress bar over the stages and trainings of a study."""

import sys
import time
from collections.abc import Collection, Sequence
from typing import Self

from tqdm import tqdm

from kidney_ssl.engine.claims import claimed
from kidney_ssl.engine.store import RunStore
from kidney_ssl.jobs.base import Job, is_done


class Progress:
    """One bar over stages and trainings, and below it a line for each training under way.

    Without a terminal there is no bar: only the lines that are written, and one for each stage that begins.

    The claims of the store say which trainings are under way, so workers on other machines are shown too.

    Args:
        store: where finished trainings appear.
        jobs: the trainings.
        stages: names of the stages that will run.
        lines: how many trainings are shown at most.
    """

    def __init__(self, store: RunStore, jobs: Sequence[Job], *, stages: Collection[str] = (), lines: int = 8) -> None:
        self._store, self._stages = store, set(stages)
        self._bar = tqdm(desc="study" if stages else "trainings", total=0, unit="step", disable=None)
        self._lines = [
            tqdm(total=0, bar_format="  {desc}", position=at, leave=False, disable=None) for at in range(1, lines + 1)
        ]
        self._since: dict[str, float] = {}
        self._detail = ""
        self._ended: set[str] = set()
        self.expect(jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for line in reversed([self._bar, *self._lines]):
            line.close()

    def expect(self, jobs: Sequence[Job]) -> None:
        """Count these trainings, in place of those before."""
        self.left = [job for job in jobs if not is_done(self._store, job)]
        self._bar.total = len(self._stages) + len(jobs)
        self._trained = len(jobs) - len(self.left)
        self.refresh()

    def begin(self, stage: str) -> None:
        """Name the stage that runs now."""
        self._bar.set_description_str(stage, refresh=False)
        self.detail("")
        if self._bar.disable:
            self.write(f"stage {stage}")

    def end(self, stage: str) -> None:
        """Count a stage, once however often it is looked at."""
        self._ended |= {stage} & self._stages
        self.refresh()

    def detail(self, text: str) -> None:
        """Show how far the stage is, below the bar while no training is under way."""
        self._detail = text

    def look(self) -> list[Job]:
        """Show how things stand; return the trainings that ended since the last look."""
        ended = [job for job in self.left if is_done(self._store, job)]
        self.left = [job for job in self.left if job not in ended]
        self._trained += len(ended)
        self.refresh()
        return ended

    def write(self, line: str) -> None:
        """Write a line above the bar."""
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()

    def refresh(self) -> None:
        """Draw the bar and the lines below it anew."""
        labels = sorted(str(owner["label"]) for owner in claimed(self._store.folder / "claims").values())
        now = time.monotonic()
        self._since = {label: self._since.get(label, now) for label in labels}
        under_way = [f"{label}, {now - self._since[label]:.0f} s" for label in labels] or [self._detail]
        for line, text in zip(self._lines, under_way + [""] * len(self._lines), strict=False):
            line.set_description_str(text)
        self._bar.update(self._trained + len(self._ended) - self._bar.n)
        self._bar.refresh()
