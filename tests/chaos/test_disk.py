"""A disk that is full or may not be written: one line, nothing half-written counts, and a later run goes on."""

import errno
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kidney_ssl.yamlfile import read_yaml
from stages import cache
from stages.run import FILES, run
from tests.project_copy import MOUNTS, needs_mounts, repository


def fails_with(number: int):
    def main() -> None:
        raise OSError(number, os.strerror(number), "data/slices/train_images.npy")

    return main


@pytest.fixture(autouse=True)
def stage(monkeypatch, tmp_path):
    """A stage's command line in an empty folder; `run` shows warnings in its own way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/slice.py"])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_takes_nothing_is_one_line_with_what_to_do(number, tmp_path) -> None:
    with pytest.raises(SystemExit) as ended:
        run(fails_with(number))
    assert ended.value.code.startswith("error: ")
    assert "data/slices/train_images.npy" in ended.value.code
    assert FILES[number] in ended.value.code
    assert "\n" not in ended.value.code
    assert not (tmp_path / "logs").exists()


DATA_STAGES = ("code", "download", "select", "slice", "normalize")


def locked(project):
    """What the lock says of the data stages."""
    stages = read_yaml((project.folder / "dvc.lock").read_text())["stages"]
    return {name: stages[name] for name in DATA_STAGES}


def test_of_two_repros_at_once_neither_harms_the_other(smoke_run, tmp_path) -> None:
    project = repository(tmp_path / "project")
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: project.run("dvc", "repro", "normalize"), range(2)))
    for one in ended:
        assert "Traceback" not in one.stderr
        if one.returncode:
            assert "ERROR: " in one.stderr
            assert "is busy" in one.stderr or "Unable to acquire lock" in one.stderr
    # On a loaded machine each may have met the other's lock: whoever comes next ends it.
    project.succeed("dvc", "repro", "normalize")
    assert locked(project) == locked(smoke_run)
    assert project.succeed("dvc", "status", "normalize").strip() == "Data and pipelines are up to date."


# Of 1,600 kB volumes and 400 kB of slices: the first do not fit, or the last.
@needs_mounts
@pytest.mark.parametrize(("kilobytes", "stages"), [(600, ["download"]), (1900, ["slice", "normalize"])])
def test_a_study_on_a_disk_that_runs_full_goes_on_when_there_is_room(smoke_run, kilobytes, stages, tmp_path) -> None:
    project = repository(tmp_path / "project")
    (project.folder / "data").mkdir()
    project.succeed(
        *(*MOUNTS, "sh", "-c"),
        f"mount -t tmpfs -o size={kilobytes}k none data && if dvc repro normalize > full.txt 2>&1; then exit 1; fi"
        " && mount -o remount,size=64m data && dvc repro normalize",
    )
    said = (project.folder / "full.txt").read_text()
    assert "error: No space left on device" in said
    assert any(f"failed to reproduce '{stage}'" in said for stage in stages)
    assert "Traceback" not in said
    assert locked(project) == locked(smoke_run)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ".dvc/cache"),
        ({"config": "[cache]\n    dir = ../shared"}, "shared"),
        ({"config": "['remote \"a\"']\n    url = s3://a", "config.local": '[cache]\n    dir = "/a, b"'}, "/a, b"),
        ({"config": "[cache]\n    dir = /a", "config.local": "[cache]\n    dir = /b\n    type = copy"}, "/b"),
    ],
)
def test_the_cache_is_where_dvcs_configuration_says(files, expected, tmp_path) -> None:
    (tmp_path / ".dvc").mkdir()
    for name, text in files.items():
        (tmp_path / ".dvc" / name).write_text(text)
    assert cache.folder() == Path(tmp_path, expected)


def test_other_faults_of_files_keep_their_traceback_in_a_log(tmp_path) -> None:
    with pytest.raises(SystemExit, match="Bad file descriptor"):
        run(fails_with(errno.EBADF))
    (log,) = tmp_path.glob("logs/*-error.log")
    assert "Traceback" in log.read_text()
