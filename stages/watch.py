"""`dvc repro` as `make repro` runs it: its output goes to a log, its stages into the bar, its error into one line."""

import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from kidney_ssl.errors import InputError
from kidney_ssl.jobs.pool import ended_together
from kidney_ssl.jobs.progress import Progress

DVC = ("dvc", "--wait-for-lock", "repro")
LOG = Path("logs/repro.log")
POLL = 0.5  # seconds between looks at the log
# Lines at once, and bars of tqdm once a second: they are lines of the log too.
READABLE = {"PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "1"}
BEGINS = re.compile(r"Running stage '([^']+)':")
SKIPPED = re.compile(r"Stage '([^']+)' (?:is cached|didn't change)")
FAILED = re.compile(r"(?:ERROR|WARNING): failed to ")
BAR = re.compile(r"\d+%\||\d+\S* \[\d+:\d+")


def repro(shown: Progress, *targets: str) -> None:
    """Run `dvc repro` for the targets, by default for all stages.

    Raises:
        InputError: it failed; one line with the stage and its error.
    """
    told = _Told(shown)
    if _run(told, shown, LOG, targets, {}):
        raise InputError(f"{told.error or 'dvc repro failed'} (all output is in {LOG})")


def ask(shown: Progress, log: Path, environment: Mapping[str, str], hidden: Collection[str]) -> None:
    """Run what DVC can run without training; stages of the `hidden` kinds fail where a training is missing."""
    _run(_Told(shown, hidden), shown, log, ["--keep-going"], environment)


class _Told:
    """What DVC and its stages have said."""

    def __init__(self, shown: Progress, hidden: Collection[str] = ()) -> None:
        self._shown, self._hidden = shown, hidden
        self._stage = self.error = ""

    def line(self, text: str) -> None:
        """Take a line of the log."""
        if begins := BEGINS.match(text):
            self.end()
            self._stage = begins[1]
            if self._stage.partition("@")[0] not in self._hidden:
                self._shown.begin(self._stage)
        elif skipped := SKIPPED.match(text):
            self.end()
            self._shown.end(skipped[1])
        elif FAILED.match(text):
            self.error = self.error or text.partition(": ")[2]
            self._stage = ""
        elif text.startswith(("error: ", "ERROR: ")):
            stage = f"{self._stage}: " if self._stage else ""
            self.error = self.error or stage + text.partition(": ")[2]
        elif text.startswith("warning: "):
            self._shown.write(text)
        elif BAR.search(text):
            self._shown.detail(text.strip())

    def end(self) -> None:
        """Count the stage that ran, unless it failed."""
        if self._stage:
            self._shown.end(self._stage)
        self._stage = ""


def _run(
    told: _Told, shown: Progress, log: Path, options: list[str] | tuple[str, ...], environment: Mapping[str, str]
) -> int:
    """Run DVC; its exit code.

    It writes into a file, not a pipe: a pipe would break, and with it DVC, when this process is killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with ended_together() as start, log.open("a", encoding="utf-8") as written, log.open(encoding="utf-8") as lines:
        lines.seek(0, 2)
        process = start([*DVC, *options], READABLE | dict(environment), stdout=written)
        rest = ""
        while True:
            over = process.poll() is not None
            *whole, rest = (rest + lines.read()).split("\n")
            for line in whole + [rest] * over:
                told.line(line)
            if over:
                break
            shown.refresh()
            time.sleep(POLL)
        if not process.returncode:
            told.end()
    return process.returncode
