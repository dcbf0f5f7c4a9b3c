"""Hypothesis without clocks: a loaded machine must not fail a test. And how `pytest -n 2` or more deals tests out."""

import os
import signal
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

# A process a core runs tests, and threads that wait for each other would take half of each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests are of this folder's package, in a git worktree too, where another folder's may be installed.
if "PYTHONPATH" not in os.environ:
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    sys.path.insert(0, os.environ["PYTHONPATH"])

from tests.project_copy import Project, repository

# `make test` tries few examples; HYPOTHESIS_PROFILE=thorough, as in .ci/run, many; fuzz is for deploy/test_fuzz.py.
for profile, examples in {"quick": 20, "thorough": 100, "fuzz": 400}.items():
    settings.register_profile(
        profile, deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# A shell's background job, which pytest may be, ignores SIGINT, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Minutes each: begun first, so that no process is left alone with one of them.
LONGEST = ("test_pipeline.py", "test_kills.py", "test_folds.py", "test_stored_studies.py", "test_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; each is run by one process (`--dist loadfile`)."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The smoke study, run from nothing with two workers, once for all processes of pytest: to be read, and linked."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    project, done = Project(shared / "smoke" / "project"), shared / "smoke" / "done"
    with FileLock(shared / "smoke.lock"):
        if not done.exists():
            repository(project.folder)
            done.write_text(project.succeed("env", "--unset=OMP_NUM_THREADS", "python", "-m", "stages", "2"))
    return project


@pytest.fixture(scope="session")
def smoke_said(smoke_run: Project) -> str:
    """What `make repro` printed for the smoke study."""
    return (smoke_run.folder.parent / "done").read_text()


@pytest.fixture(scope="session")
def smoke(smoke_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the smoke study for tests of one process that change its files for a while."""
    return smoke_run.linked(tmp_path_factory.mktemp("smoke") / "project")
