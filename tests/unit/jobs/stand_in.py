"""Jobs that take no time, and a worker over them."""

import json
import os
import sys
import time
from pathlib import Path

from kidney_ssl.engine.store import RunStore
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.base import Job
from kidney_ssl.jobs.pool import end_with_parent
from kidney_ssl.jobs.sweep import sweep


class StandIn(Job):
    """Writes a file, and a line into the store's journal each time that it is trained.

    Args:
        store: where it will be kept.
        number: its name.
        after: a job whose result it reads.
        fails: whether it ends in an error.
        seconds: how long it takes; half of that is behind its checkpoint.
    """

    def __init__(self, store, number, *, after=None, fails=False, seconds=0.0):
        self.store, self.number, self.after, self.fails, self.seconds = store, number, after, fails, seconds
        self.name = f"run {number}"

    def key(self):
        if self.after is not None and not self.store.has(self.after.key()):
            return None
        return f"{self.number:032d}"

    def describe(self):
        return {"name": self.name}

    def train(self, folder, checkpoint):
        journal = os.open(self.store.folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(journal, f"{self.name} {'resumed' if checkpoint.exists() else 'begun'}\n".encode())
        os.close(journal)
        if not checkpoint.exists():
            time.sleep(self.seconds / 2)
            checkpoint.write_text("half")
        time.sleep(self.seconds / 2)
        if self.fails:
            raise InputError("loss is nan")
        (folder / "result.json").write_text(json.dumps(self.number))


def jobs_of(store, count, seconds=0.0):
    """As many jobs; every tenth must wait for the first."""
    first = StandIn(store, 0, seconds=seconds)
    return [first, *(StandIn(store, at, after=None if at % 10 else first, seconds=seconds) for at in range(1, count))]


def work(share, *, folder, count, seconds=0.0, fails=None):
    """What a worker on a cluster calls; job `fails` ends in an error."""
    store = RunStore(folder, 1)
    jobs = jobs_of(store, count, seconds)
    if fails is not None:
        jobs[fails].fails = True
    one, _, all_of = share.partition("/")
    return sweep(store, jobs, share=int(one), shares=int(all_of))


if __name__ == "__main__":
    end_with_parent()
    folder, count, share, shares, seconds = sys.argv[1:]
    kept = RunStore(Path(folder), 1)
    if sweep(kept, jobs_of(kept, int(count), float(seconds)), share=int(share), shares=int(shares)):
        sys.exit(1)
