"""Hypothesis without clocks: a loaded machine must not fail a test. And how `pytest -n 2` deals tests out."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("no clocks", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clocks")

# Minutes each: begun first, so that no process is left alone with one of them.
LONGEST = ("test_pipeline.py", "test_kills.py", "test_folds.py", "test_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and those of the smoke study: what they share is made once."""
    for item in items:
        shared = "smoke" if "smoke" in getattr(item, "fixturenames", ()) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(shared))
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
