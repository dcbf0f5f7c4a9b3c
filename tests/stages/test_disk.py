"""A disk that is full or may not be written: one line, nothing half-written counts, and a later run goes on."""

import errno
import os
import sys
import warnings

import pytest

import stages


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
        stages.run(fails_with(number))
    assert ended.value.code == (
        f"error: {os.strerror(number)} (data/slices/train_images.npy): {stages.DISK[number]}, "
        "then run `dvc repro` again; it goes on from here"
    )
    assert not (tmp_path / "logs").exists()


def test_other_faults_of_files_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        stages.run(fails_with(errno.EBADF))
