"""Outputs that are links into DVC's cache: stages run by hand over them change nothing in the cache."""

import hashlib
from pathlib import Path

import pytest

from kidney_ssl.yamlfile import read_yaml


def objects(cache: Path) -> dict[Path, tuple[str, int]]:
    """Checksum and time of every object of a cache: who writes the same bytes through a link changes the time."""
    found = {path for path in cache.glob("files/md5/*/*") if path.is_file()}
    return {path: (hashlib.md5(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in found}


def commands(project) -> list[str]:
    """Stage and argument of one of each kind, in an order in which each finds what it reads."""
    locked = read_yaml((project.folder / "dvc.lock").read_text())["stages"]
    kinds: dict[str, str] = {}
    for name, stage in locked.items():
        kinds.setdefault(name.partition("@")[0], stage["cmd"].removeprefix("python -m stages."))
    order = list(read_yaml((project.folder / "dvc.yaml").read_text())["stages"])
    return [kinds[kind] for kind in order]


@pytest.mark.parametrize("kind", ["hardlink", "symlink"])
def test_stages_run_by_hand_over_linked_outputs_leave_the_cache_as_it_is(smoke, kind):
    cache = smoke.folder / ".dvc/cache"
    before = (smoke.folder / ".dvc/config").read_bytes()
    smoke.succeed("dvc", "config", "cache.type", kind)
    try:
        smoke.succeed("dvc", "checkout", "--relink")
        linked = smoke.folder / "data/index/cases.csv"
        assert linked.is_symlink() if kind == "symlink" else linked.stat().st_nlink > 1
        kept = objects(cache)
        assert all(path.parent.name + path.name.removesuffix(".dir") == md5 for path, (md5, _) in kept.items())
        smoke.stages(*commands(smoke))
        assert objects(cache) == kept
    finally:
        (smoke.folder / ".dvc/config").write_bytes(before)
    smoke.succeed("dvc", "checkout", "--relink")
