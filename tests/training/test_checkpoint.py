"""Checkpoints: replaced whole, never run as code, one process each."""

import errno
import subprocess

import numpy as np
import pytest
import torch

from kidney_ssl.errors import InputError
from kidney_ssl.training import checkpoint as module
from kidney_ssl.training.checkpoint import Checkpoint, fingerprint, remove_checkpoints


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
    monkeypatch.setattr("kidney_ssl.training.checkpoint.time.monotonic", lambda: now[0])
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


def test_any_setting_array_or_file_changes_the_fingerprint(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"1")
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    base = fingerprint({"a": 1, "b": 2}, [array], [path])
    assert base == fingerprint({"b": 2, "a": 1}, [array.copy()], [path])
    changed = array.copy()
    changed[1, 2] = 0
    others = [
        fingerprint({"a": 1, "b": 3}, [array], [path]),
        fingerprint({"a": 1, "b": 2}, [changed], [path]),
        fingerprint({"a": 1, "b": 2}, [array.reshape(3, 2)], [path]),
    ]
    path.write_bytes(b"2")
    others.append(fingerprint({"a": 1, "b": 2}, [array], [path]))
    assert len({base, *others}) == 5


def test_cleaning_takes_all_settings_of_one_training_and_no_other(tmp_path):
    ours, kept = (tmp_path / f"arm-100-0-{digit * 16}.pt" for digit in "ab")
    other = tmp_path / f"arm-100-0-extra-{'a' * 16}.pt"
    part = tmp_path / f"arm-100-0-{'c' * 16}.pt.part"
    for path in (ours, kept, other, part):
        path.touch()
    remove_checkpoints(tmp_path, "arm-100-0", keep=[kept])
    assert set(tmp_path.iterdir()) == {kept, other}
