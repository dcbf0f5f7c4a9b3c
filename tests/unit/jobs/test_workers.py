"""What a worker refuses before it trains, and what it does not take for its own."""

import os
import sys
from pathlib import Path

import pytest

from kidney_ssl.config import load
from kidney_ssl.engine.store import RunStore
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.pool import run_workers
from kidney_ssl.jobs.progress import Progress
from kidney_ssl.jobs.sweep import CODE, ready_study

ROOT = Path(__file__).parents[3]


def test_the_code_of_another_folder_is_refused_where_this_one_has_its_own(tmp_path: Path, monkeypatch) -> None:
    settings = load(ROOT / "studies/smoke.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src/kidney_ssl").mkdir(parents=True)
    with pytest.raises(InputError, match=str(CODE)):
        ready_study(settings)
    (tmp_path / "src/kidney_ssl").rmdir()
    (tmp_path / "src/kidney_ssl").symlink_to(CODE)  # the same by another name
    with pytest.raises(InputError, match="nothing to train from yet"):
        ready_study(settings)


def test_a_rank_that_another_launcher_left_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(ROOT / "studies/smoke.yaml")
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": "1", "LOCAL_RANK": ""}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="nothing to train from yet"):
        ready_study(settings)
    assert not {"RANK", "LOCAL_RANK"} & os.environ.keys()


def test_a_worker_that_was_killed_for_its_memory_names_how_to_run_fewer(tmp_path: Path) -> None:
    kills_itself = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    (said,) = run_workers([kills_itself], [{}], Progress(RunStore(tmp_path, 1), []))
    assert "worker 1" in said
    assert "WORKERS" in said
