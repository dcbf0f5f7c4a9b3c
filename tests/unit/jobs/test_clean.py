"""`kidney-ssl clean` empties what runs leave beside their results, and nothing else."""

import os
from pathlib import Path

import pytest

from kidney_ssl.cli import main
from kidney_ssl.engine.claims import claim
from kidney_ssl.yamlfile import dump_yaml, read_yaml

ROOT = Path(__file__).parents[3]
KEPT = ("data/raw/volume", "data/slices/a.npy", ".dvc/cache/files/md5/ab/c", "metrics/a.json", "elsewhere/mine.txt")
GONE = ("checkpoints/select/a", "logs/a.json", "elsewhere/runs/k/a", "elsewhere/failed/k.json", "checkpoints/dvc.lock")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = read_yaml((ROOT / "studies/smoke.yaml").read_text())
    params["compute"]["store"] = "elsewhere"
    Path("params.yaml").write_text(dump_yaml(params))
    for name in (*KEPT, *GONE):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(bytes(10**7))
    Path("checkpoints/folds/fold-0/data").mkdir(parents=True)
    Path("checkpoints/folds/fold-0/data/raw").symlink_to(tmp_path / "data/raw")
    os.link(".dvc/cache/files/md5/ab/c", "elsewhere/runs/k/linked")


def test_results_data_and_the_cache_stay_and_what_is_freed_is_told(project, capsys):
    main(["clean"])
    assert all(Path(name).stat().st_size == 10**7 for name in KEPT)
    assert not any(Path(name).exists() for name in GONE)
    assert list(Path("checkpoints").iterdir()) == []
    assert "0.05 GB" in capsys.readouterr().out  # the linked file frees nothing


@pytest.mark.parametrize("folder", ["elsewhere/claims", "checkpoints/running", "checkpoints/folds/fold-0/store/claims"])
def test_nothing_goes_while_something_is_at_work(project, folder):
    with claim(Path(folder), "k", "pretrain a"), pytest.raises(SystemExit, match="pretrain a"):
        main(["clean"])
    assert all(Path(name).exists() for name in GONE)


def test_a_store_on_another_disk_keeps_its_link(project, tmp_path):
    Path("logs").rename("disk")
    Path("logs").symlink_to("disk")
    main(["clean"])
    assert Path("logs").is_symlink()
    assert list(Path("disk").iterdir()) == []
