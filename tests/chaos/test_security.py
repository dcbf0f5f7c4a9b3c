"""What comes from elsewhere is not obeyed: weights with code, paths that leave the store, gzip bombs."""

import gzip
import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from isal import igzip

from kidney_ssl.data import manifest
from kidney_ssl.data.volume import label_areas, read_volume
from kidney_ssl.errors import InputError
from tests.project_copy import ROOT, Project


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.mark),)


def plain_pickle(path: Path, bomb: Bomb) -> None:
    path.write_bytes(pickle.dumps({"conv1.weight": bomb}, protocol=2))  # as torch.save writes it


def torch_zip(path: Path, bomb: Bomb) -> None:
    """The form that torch.save writes: a zip with data.pkl in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"conv1.weight": bomb}, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


@pytest.mark.parametrize("write", [plain_pickle, torch_zip])
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_weights_file_with_code_stops_the_stage_in_one_line_and_is_not_run(name, write, tmp_path) -> None:
    project, mark = Project.copy_to(tmp_path / "project"), tmp_path / "mark"
    write(tmp_path / name, Bomb(mark))
    project.change({"initialize.imagenet": {"file": str(tmp_path / name)}})
    ended = project.stage("initialize", "imagenet")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {tmp_path / name}: ")
    assert len(ended.stderr.splitlines()) == 1
    assert not mark.exists()
    assert not list(project.folder.glob("models/initial/imagenet*"))
    pickle.loads(pickle.dumps(Bomb(mark)))  # noqa: S301 - the bomb is a live one
    assert mark.exists()


def test_nothing_of_the_project_unpickles_without_weights_only() -> None:
    for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("stages/*.py")]:
        text = path.read_text()
        assert "pickle.load" not in text
        assert "allow_pickle=True" not in text
        assert text.count("torch.load(") <= text.count("weights_only=True")


@pytest.mark.parametrize(
    "file", ["../../imaging.nii.gz", "/etc/segmentation.nii.gz", "case_1/../../../segmentation.nii"]
)
def test_a_manifest_with_a_path_that_leaves_the_store_stops_the_stages_in_one_line(file, tmp_path) -> None:
    project = Project.copy_to(tmp_path / "project")
    manifest.write_manifest(project.folder / "data" / "manifest.csv", [manifest.Row("case_1", file, 1, "a" * 64)])
    ended = project.stage("select")
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        f"error: data/manifest.csv: '{file}' of case_1 is no path of a volume inside the store"
    )
    assert len(ended.stderr.splitlines()) == 1


HUGE = 1 << 28  # bytes that the bomb inflates to


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A gzip file of some 300 kB: a small volume and 256 MB of zeros; and the bytes that its header declares."""
    path = tmp_path_factory.mktemp("bomb") / "imaging.nii.gz"
    image = nib.Nifti1Image(np.zeros((20, 20, 20), np.int16), np.diag([-1.0, -1, 1, 1]))
    content = image.to_bytes()
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(content)
        for _ in range(HUGE >> 20):
            stream.write(bytes(1 << 20))
    assert path.stat().st_size < HUGE / 500
    return path, len(content)


@pytest.mark.parametrize("read", [read_volume, label_areas])
def test_a_gzip_bomb_is_inflated_no_further_than_its_header_declares(read, bomb, monkeypatch) -> None:
    path, declared = bomb
    inflated = []

    class Counting(io.RawIOBase):
        """isal's inflating stream, whose bytes are counted."""

        def __init__(self, *arguments: object) -> None:
            self.inner = inflating(*arguments)

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.inner.tell()

        def seek(self, offset: int, whence: int = 0) -> int:
            return self.inner.seek(offset, whence)

        def readinto(self, buffer: memoryview) -> int:
            inflated.append(self.inner.readinto(buffer))
            return inflated[-1]

    inflating = igzip._GzipReader
    monkeypatch.setattr(igzip, "_GzipReader", Counting)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="longer than its header declares"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert declared <= sum(inflated) <= declared + io.DEFAULT_BUFFER_SIZE
