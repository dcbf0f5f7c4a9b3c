"""The smoke study, run once for all tests of what it left."""

import pytest
from project_copy import repository


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The smoke study, run once from nothing, two arms at a time."""
    project = repository(tmp_path_factory.mktemp("smoke") / "project")
    project.succeed("python", "-m", "stages", "2")
    return project
