"""One cache for several clones: an S3 remote (moto on this machine) and a shared folder; nothing runs twice."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from kidney_ssl.yamlfile import read_yaml
from tests.project_copy import MOUNTS, Project, needs_mounts, repository, running

STAGES = ("download", "select", "slice", "normalize")
WRITTEN = ("data/manifest.csv", "data/index", "data/slices", "data/normalized")


def files(project: Project) -> dict[str, bytes]:
    """What the data stages wrote."""
    paths = [path for name in WRITTEN for path in (project.folder / name, *(project.folder / name).rglob("*"))]
    return {path.relative_to(project.folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture(scope="module")
def first(smoke_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which the smoke study ran; its lock and small results are in git."""
    project = smoke_run.linked(tmp_path_factory.mktemp("first") / "clone")
    project.succeed("git", "add", "--all")
    project.succeed("git", "commit", "--quiet", "--message", "results")
    return project


def clone(project: Project, folder: Path) -> Project:
    project.succeed("git", "clone", "--quiet", str(project.folder), str(folder))
    return Project(folder)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an S3 server on this machine with a bucket named `cache`."""
    for package in ("moto", "flask", "flask_cors", "dvc_s3"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is absent: pip install 'dvc-s3' 'moto[s3]' flask flask-cors")
    from moto.server import ThreadedMotoServer

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "a"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    import boto3

    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="cache")
    yield f"http://{host}:{port}"
    server.stop()


def nothing_runs(project: Project, output: str) -> None:
    assert running(output) == []
    assert "up to date" in output
    assert project.succeed("dvc", "status", *STAGES).strip() == "Data and pipelines are up to date."
    # Git sees no change either: neither the lock nor a figure is another.
    assert project.succeed("git", "status", "--porcelain", "dvc.lock", "metrics") == ""


def test_what_one_clone_pushed_to_s3_another_pulls_and_runs_nothing(
    first: Project, bucket: str, tmp_path: Path
) -> None:
    for arguments in (("add", "--default", "lab", "s3://cache/kidney-ssl"), ("modify", "lab", "endpointurl", bucket)):
        first.succeed("dvc", "remote", *arguments)
    first.succeed("git", "commit", "--quiet", "--all", "--message", "remote")
    pushed = first.succeed("dvc", "push", *STAGES)
    assert re.search(r"\d+ files? pushed", pushed)
    other = clone(first, tmp_path / "a lab's other clone")
    assert not (other.folder / "data").exists()
    other.succeed("dvc", "pull", *STAGES)
    assert files(other) == files(first)
    nothing_runs(other, other.succeed("dvc", "repro", "normalize"))
    assert not (other.folder / "data" / "raw").exists()  # the volumes are no part of the cache, and were not made again


def share_cache(first: Project, other: Project) -> None:
    other.succeed("dvc", "config", "--local", "cache.dir", str(first.folder / ".dvc/cache"))


def test_a_study_in_an_empty_clone_comes_out_of_the_shared_cache_and_runs_nothing(
    first: Project, tmp_path: Path
) -> None:
    other = repository(tmp_path / "other")  # without the lock, so that only the run cache knows what was done
    share_cache(first, other)
    other.succeed("python", "-m", "stages", "2")
    said = "".join((other.folder / f"logs/{name}.log").read_text() for name in ("repro", "ask"))
    # For DVC git is no place to take an output from, and the check of params.yaml has none.
    assert set(running(said)) == {"code", "params", "source"}
    expected = {f"{stage}@{arm}" for stage in ("finetune", "evaluate", "explain") for arm in other.params["arms"]}
    expected |= {f"pretrain@{name}" for name in other.params["pretrain"]["methods"]} | {"download", "report"}
    assert expected <= set(re.findall(r"Stage '([^']+)' is cached", said))
    locks = [read_yaml((project.folder / "dvc.lock").read_text()) for project in (first, other)]
    assert locks[0] == locks[1]
    assert other.stored() == {}


def test_a_clone_of_a_finished_study_runs_nothing_at_all(first: Project, tmp_path: Path) -> None:
    other = clone(first, tmp_path / "other")
    share_cache(first, other)
    other.succeed("python", "-m", "stages", "2")
    assert running((other.folder / "logs/repro.log").read_text()) == []
    assert other.stored() == {}
    assert other.succeed("git", "status", "--porcelain") == ""


def test_a_cache_in_a_shared_folder_serves_another_clone(first: Project, tmp_path: Path) -> None:
    cache = tmp_path / "shared" / "cache"
    shutil.copytree(first.folder / ".dvc" / "cache", cache)
    other = clone(first, tmp_path / "other")
    for key, value in (
        ("cache.dir", str(cache)),
        ("cache.shared", "group"),
        ("cache.type", "reflink,hardlink,symlink,copy"),
    ):
        other.succeed("dvc", "config", "--local", key, value)
    other.succeed("dvc", "checkout", *STAGES)
    assert files(other) == files(first)
    nothing_runs(other, other.succeed("dvc", "repro", "normalize"))
    assert not (other.folder / ".dvc" / "cache" / "files").exists()


@needs_mounts
def test_a_cache_that_may_only_be_read_serves_and_what_could_not_be_kept_is_not_begun(
    first: Project, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(first.folder / ".dvc" / "cache", cache)
    other = clone(first, tmp_path / "other")
    other.succeed("dvc", "config", "--local", "cache.dir", str(cache))

    def read_only(*command: str) -> tuple[str, ...]:
        mount = 'mount --bind "$0" "$0" && mount --options remount,bind,ro "$0" && exec "$@"'
        return (*MOUNTS, "sh", "-c", mount, str(cache), *command)

    other.succeed(*read_only("dvc", "checkout", *STAGES))
    assert files(other) == files(first)
    nothing_runs(other, other.succeed(*read_only("dvc", "repro", "normalize")))
    with other.changed({"select.seed": 1}):
        ended = other.run(*read_only("dvc", "repro", "select"))
    assert ended.returncode
    assert f"error: {cache}/files/md5: DVC's cache is read-only" in ended.stderr
    assert "Traceback" not in ended.stderr
    # DVC took the old results away before the stage: git and the cache still have them.
    other.succeed("git", "checkout", "--quiet", "metrics")
    other.succeed(*read_only("dvc", "checkout", *STAGES))
    assert files(other) == files(first)
    nothing_runs(other, other.succeed("dvc", "repro", "normalize"))


def test_clones_with_one_raw_store_make_no_volume_again(first: Project, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(first.folder / "data" / "raw", store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.nii.gz")}
    assert len(before) == 2 * first.params["phantom"]["cases"]
    other = clone(first, tmp_path / "other")
    other.change({"data.raw_dir": str(store)})
    other.succeed("dvc", "repro", "normalize")
    assert files(other) == files(first)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.nii.gz")} == before
    assert not (other.folder / "data" / "raw").exists()
