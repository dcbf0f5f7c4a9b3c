"""The bar over stages and trainings: what it counts on a terminal, and the lines where there is none."""

import re
from contextlib import redirect_stderr
from io import StringIO

import pytest

from kidney_ssl.engine.store import RunStore
from kidney_ssl.jobs.base import make
from kidney_ssl.jobs.progress import Progress
from tests.unit.jobs.stand_in import StandIn


class Terminal(StringIO):
    """Takes what is drawn, as a terminal does."""

    def isatty(self) -> bool:
        return True

    def count(self) -> str:
        """How many steps of how many the bar shows last."""
        return re.findall(r"\| (\d+/\d+) \[", self.getvalue())[-1]


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path, 1)


def test_the_bar_counts_each_stage_once_and_trainings_as_they_end(store):
    jobs = [StandIn(store, number) for number in range(3)]
    make(store, jobs[0])
    with redirect_stderr(Terminal()) as terminal, Progress(store, jobs, stages=["slice", "report"]) as shown:
        assert terminal.count() == "1/5"
        shown.begin("slice")
        shown.end("slice")
        shown.end("slice")
        shown.end("download")  # was up to date
        assert terminal.count() == "2/5"
        make(store, jobs[1])
        assert [job.name for job in shown.look()] == ["run 1"]
        assert terminal.count() == "3/5"
        shown.expect([jobs[0], jobs[1]])  # the last one came out of DVC's cache
        shown.end("report")
        assert terminal.count() == "4/4"
    assert "slice" in terminal.getvalue()


def test_a_training_under_way_is_named_below_the_bar(store):
    with (
        redirect_stderr(Terminal()) as terminal,
        Progress(store, [StandIn(store, 1)], stages=["slice"]) as shown,
        store.claim("1", "run 1"),
    ):
        shown.detail("slice: 50%")
        shown.refresh()
    assert re.search(r"run 1, \d+ s", terminal.getvalue())
    assert "50%" not in terminal.getvalue()


def test_how_far_a_stage_is_stands_below_the_bar(store):
    with redirect_stderr(Terminal()) as terminal, Progress(store, [], stages=["slice"]) as shown:
        shown.begin("slice")
        shown.detail("slice: 50%")
        shown.refresh()
    assert "slice: 50%" in terminal.getvalue()


def test_without_a_terminal_there_are_lines_and_no_bar(store, capsys):
    with Progress(store, [StandIn(store, 1)], stages=["slice"]) as shown:
        shown.begin("slice")
        shown.detail("slice: 50%")
        shown.end("slice")
        shown.write("run 1: 2.0 s")
    assert capsys.readouterr() == ("stage slice\nrun 1: 2.0 s\n", "")
