"""Checkpoints: replaced whole, never run as code."""

import errno
import subprocess

import pytest
import torch

from kidney_ssl.engine import checkpoint as module
from kidney_ssl.engine.checkpoint import Checkpoint
from kidney_ssl.errors import InputError


def test_what_is_saved_comes_back(tmp_path):
    file = Checkpoint(tmp_path / "deep" / "a.pt")
    assert file.load() is None
    file.save({"x": torch.arange(3), "n": [1.5, {"a": "b"}]})
    found = file.load()
    assert found["x"].tolist() == [0, 1, 2]
    assert found["n"] == [1.5, {"a": "b"}]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.pt"]


def test_a_failure_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    file = Checkpoint(tmp_path / "a.pt")
    file.save({"n": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(InputError, match=r"a\.pt: cannot be written \(No space left on device\)"):
        file.save({"n": 2})
    assert file.load() == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_checkpoint_with_code_or_damage_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": subprocess.Popen}, path)
    with pytest.raises(InputError, match="damaged"):
        Checkpoint(path).load()
    path.write_bytes(b"cut")
    with pytest.raises(InputError, match="damaged"):
        Checkpoint(path).load()


def test_due_only_after_its_seconds(tmp_path):
    assert Checkpoint(tmp_path / "a.pt", seconds=0).due()
    assert not Checkpoint(tmp_path / "a.pt", seconds=100).due()


def test_the_end_of_an_epoch_is_due_unless_writing_took_a_large_part_of_it(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kidney_ssl.engine.checkpoint.time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "a.pt", seconds=1000)
    now[0] = 1.0
    assert checkpoint.due(epoch_over=True)
    write = torch.save
    monkeypatch.setattr("torch.save", lambda *content: (write(*content), now.__setitem__(0, now[0] + 2.0)))
    checkpoint.save({})  # from 1 to 3
    for since, expected in ((39.0, False), (41.0, True)):
        now[0] = 3.0 + since
        assert checkpoint.due(epoch_over=True) == expected
        assert not checkpoint.due()
