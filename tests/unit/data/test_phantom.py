"""The phantom's cases: what they hold, how they lie on disk, and the store that keeps them."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kidney_ssl.data import phantom, phantom_store
from kidney_ssl.data.phantom_store import fill_phantom_store
from kidney_ssl.data.volume import check_pair, read_volume
from kidney_ssl.errors import InputError

# The default study's, whatever study params.yaml holds; tests/pipeline/test_default_study.py compares.
DEFAULT = {"size": 72, "slices": 1.0, "seed": 0}
CASES, MIN_TUMOR_PX = 160, 35
PLANS = [phantom.plan_case(number, **DEFAULT) for number in range(CASES)]
TINY = {"size": 24, "slices": 0.25, "seed": 3}
NAMES = ["case_00000", "case_00001", "case_00002"]
VOLUMES = ["imaging.nii.gz", "segmentation.nii.gz"]


def least(extent, count: int) -> list[int]:
    """Numbers of the cases whose largest tumor is smallest, in slices or pixels."""
    return sorted(range(len(PLANS)), key=lambda n: max(extent(t, PLANS[n].spacing) for t in PLANS[n].tumors))[:count]


FLATTEST = least(lambda tumor, spacing: tumor.axes[2] / spacing[0], 3)
SMALLEST = least(lambda tumor, spacing: tumor.axes[0] * tumor.axes[1] / spacing[1] ** 2, 2)
NUMBERS = sorted({7, 11, *FLATTEST, *SMALLEST})


@pytest.fixture(scope="module")
def made() -> dict[int, tuple]:
    return {number: phantom.make_case(number, **DEFAULT) for number in NUMBERS}


def test_the_default_cases_are_as_varied_as_kits23() -> None:
    counts = [case.shape[0] for case in PLANS]
    assert sum(count < 30 for count in counts) >= 10
    assert sum(count > 100 for count in counts) >= 2
    thickness = [case.spacing[0] for case in PLANS]
    assert min(thickness) < 4
    assert max(thickness) > 10
    assert len({case.hu for case in PLANS}) == len(phantom.PHASES)
    with_cysts = sum(len(case.cysts) > 0 for case in PLANS)
    assert len(PLANS) / 8 < with_cysts < len(PLANS) * 7 / 8
    assert all(case.tumors for case in PLANS)
    assert 3 < sum(len(case.tumors) > 1 for case in PLANS) < 50
    assert {case.circle for case in PLANS} == {True, False}
    rows_mm, columns_mm = ({case.spacing[axis] for case in PLANS} for axis in (1, 2))
    assert rows_mm == columns_mm
    assert len(rows_mm) == len(PLANS)


def test_some_cases_are_not_square_and_some_have_hu_outliers(made: dict[int, tuple]) -> None:
    wide = [number for number, case in enumerate(PLANS) if case.shape[1] != case.shape[2]]
    odd = [number for number, case in enumerate(PLANS) if case.outliers]
    assert wide == list(range(7, len(PLANS), 25))
    assert odd == list(range(11, len(PLANS), 25))
    assert made[7][0].shape[1:] == (72, 90)
    assert (made[11][0].min(), made[11][0].max()) == (-2048, 9500)


def test_imaging_is_whole_hu_and_labels_are_0_to_3(made: dict[int, tuple]) -> None:
    for number, (imaging, labels, spacing) in made.items():
        plan = PLANS[number]
        assert (imaging.dtype, labels.dtype) == (np.float64, np.uint8)
        assert imaging.shape == labels.shape == plan.shape
        assert spacing == plan.spacing
        assert np.array_equal(imaging, np.rint(imaging))
        assert set(np.unique(labels)) <= {0, 1, 2, 3}
        assert (labels == 1).any()
        if not plan.outliers:
            assert -1024 <= imaging.min() < imaging.max() <= 3071


def test_even_the_smallest_tumors_lie_in_a_slice(made: dict[int, tuple]) -> None:
    without = [number for number, (_, labels, _) in made.items() if not (labels == 2).any()]
    assert without == []


def test_some_cases_have_no_slice_over_the_threshold(made: dict[int, tuple]) -> None:
    largest = {number: (labels == 2).sum(axis=(1, 2)).max() for number, (_, labels, _) in made.items()}
    assert sum(area < MIN_TUMOR_PX for area in largest.values()) >= 2
    assert max(largest.values()) >= MIN_TUMOR_PX


def test_the_body_lies_as_in_kits23(made: dict[int, tuple]) -> None:
    for imaging, labels, _ in made.values():
        _, height, width = imaging.shape
        bone = (imaging > 400) & (imaging < 1000)
        bone[:, :, : width // 3] = bone[:, :, -(width // 3) :] = False
        assert bone[:, height // 2 :].sum() > 2 * bone[:, : height // 2].sum()  # the spine, at the back
        kidney = (labels == 1).sum(axis=(0, 1))
        assert kidney[: width // 2].any()
        assert kidney[width // 2 :].any()
        assert np.median(imaging[:, 0]) < -900  # air before and beside the body
        assert (np.median(imaging[:, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]) > -150).all()


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    for name, changes in (("one", {}), ("two", {}), ("seed", {"seed": 4}), ("size", {"size": 28})):
        phantom.write_case(tmp_path / name, 5, **(TINY | changes))
    phantom.write_case(tmp_path / "number", 6, **TINY)
    contents = {folder.name: [(folder / name).read_bytes() for name in VOLUMES] for folder in tmp_path.iterdir()}
    assert contents["one"] == contents["two"]
    for other in ("seed", "size", "number"):
        assert all(a != b for a, b in zip(contents["one"], contents[other], strict=True))


def test_another_process_gives_the_same_bytes(tmp_path: Path) -> None:
    phantom.write_case(tmp_path / "here", 5, **TINY)
    code = "import sys; from pathlib import Path; from kidney_ssl.data import phantom\n"
    code += f"phantom.write_case(Path(sys.argv[1]), 5, **{TINY})"
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], env=environment, check=True)
    for name in VOLUMES:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.mark.parametrize("number", [5, 7])
def test_files_are_as_kits23_stores_them(number: int, tmp_path: Path) -> None:
    phantom.write_case(tmp_path, number, **TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == VOLUMES
    made = phantom.make_case(number, **TINY)
    dz, dy, dx = phantom.plan_case(number, **TINY).spacing
    for name, dtype, array in zip(VOLUMES, (np.float64, np.uint8), made, strict=False):
        path = tmp_path / name
        assert path.read_bytes()[3:8] == bytes(5)  # gzip: no file name, no time stamp
        image = nib.Nifti1Image.from_bytes(gzip.decompress(path.read_bytes()))
        assert image.get_data_dtype() == dtype
        assert nib.aff2axcodes(image.affine) == ("I", "P", "L")
        expected = [[0, 0, -dx, 0], [0, -dy, 0, 0], [-dz, 0, 0, 0], [0, 0, 0, 1]]
        assert image.affine == pytest.approx(np.array(expected), rel=1e-6)
        assert image.header.get_slope_inter() in ((1, 0), (None, None))
        assert np.array_equal(image.get_fdata(), array)
    check_pair(tmp_path / VOLUMES[0], tmp_path / VOLUMES[1])
    assert np.array_equal(read_volume(tmp_path / VOLUMES[0]).array, made[0])
    assert np.array_equal(read_volume(tmp_path / VOLUMES[1], np.uint8).array, made[1])


def fill(store: Path, names: list[str] = NAMES, workers: int = 1, **changes: object) -> None:
    fill_phantom_store(store, names, workers=workers, **(TINY | changes))


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def times(store: Path) -> dict[str, int]:
    return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in sorted(store.rglob("*.nii.gz"))}


def remade(store: Path, before: dict[str, int]) -> set[str]:
    """Cases whose volumes were written anew."""
    return {name.split("/")[0] for name, time_ns in times(store).items() if before.get(name) != time_ns}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("whole")
    fill(store)
    return store


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "store"))


def test_a_store_holds_each_case_with_its_recipe(whole: Path, tmp_path: Path) -> None:
    assert sorted(contents(whole)) == [
        f"{case}/{name}" for case in NAMES for name in [VOLUMES[0], "phantom.json", VOLUMES[1]]
    ]
    generator = phantom_store.code_version("kidney_ssl.data.phantom")
    for number, case in enumerate(NAMES):
        phantom.write_case(tmp_path / case, number, **TINY)
        note = json.loads((whole / case / "phantom.json").read_text())
        assert note["recipe"] == TINY | {"generator": generator}
        written = [(tmp_path / case / name).read_bytes() for name in VOLUMES]
        assert written == [(whole / case / name).read_bytes() for name in VOLUMES]
        assert note["sha256"] == [hashlib.sha256(content).hexdigest() for content in written]


def test_workers_change_no_byte(whole: Path, tmp_path: Path) -> None:
    fill(tmp_path / "two", NAMES[::-1], workers=2)
    assert contents(tmp_path / "two") == contents(whole)


def test_an_unchanged_store_is_kept_and_lacking_cases_are_added(store: Path) -> None:
    before, kept = times(store), contents(store)
    fill(store)
    assert (times(store), contents(store)) == (before, kept)
    fill(store, [*NAMES, "case_00007"])
    assert remade(store, before) == {"case_00007"}
    fill(store, NAMES[:1])  # fewer cases: the others stay
    assert "case_00007/imaging.nii.gz" in contents(store)


@pytest.mark.parametrize("name", VOLUMES)
def test_a_case_whose_volume_changed_or_went_is_made_again(name: str, store: Path, whole: Path) -> None:
    path = store / NAMES[1] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = times(store)
    fill(store)
    assert remade(store, before) == {NAMES[1]}
    assert contents(store) == contents(whole)
    path.unlink()
    before = times(store)
    fill(store)
    assert remade(store, before) == {NAMES[1]}
    assert contents(store) == contents(whole)


@pytest.mark.parametrize("changes", [{"seed": 4}, {"size": 28}, {"slices": 0.4}])
def test_another_recipe_makes_all_cases_again(changes: dict, store: Path, tmp_path: Path) -> None:
    before = times(store)
    fill(store, **changes)
    assert remade(store, before) == set(NAMES)
    fill(tmp_path / "fresh", **changes)
    assert contents(store) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("module", ["kidney_ssl.data.phantom", "kidney_ssl.data.anatomy"])
def test_another_generator_makes_all_cases_again(module: str, store: Path, monkeypatch) -> None:
    version = phantom_store.code_version
    monkeypatch.setattr(phantom_store, "code_version", lambda name: version(name) | {module: "of other code"})
    assert module in version("kidney_ssl.data.phantom")
    before = times(store)
    fill(store)
    assert remade(store, before) == set(NAMES)
    before = times(store)
    fill(store)
    assert remade(store, before) == set()


@pytest.mark.parametrize(
    "there",
    [
        {"phantom.tmp": None},
        {"phantom.tmp": None, ".7-imaging.nii.gz": b"half a vol"},
        {"phantom.tmp": None, "imaging.nii.gz": None},
        {"phantom.tmp": None, "imaging.nii.gz": b"of an older recipe", ".7-segmentation.nii.gz": b"half"},
        {"phantom.tmp": None, "imaging.nii.gz": None, "segmentation.nii.gz": None},
        {"phantom.tmp": b'{"recipe": {', "imaging.nii.gz": None, "segmentation.nii.gz": None},
        {"phantom.tmp": None, "phantom.json": None, "imaging.nii.gz": None, "segmentation.nii.gz": b"older"},
        {"phantom.tmp": None, "phantom.json": None, "imaging.nii.gz": None, "segmentation.nii.gz": None},
        {"phantom.json": b"", "imaging.nii.gz": None, "segmentation.nii.gz": None},
        {"phantom.json": b"[]", "imaging.nii.gz": None, "segmentation.nii.gz": None},
        {"phantom.json": b'{"sha256": []}', "imaging.nii.gz": None, "segmentation.nii.gz": None},
    ],
)
def test_a_case_left_half_made_is_finished(there: dict[str, bytes | None], store: Path, whole: Path) -> None:
    folder = store / NAMES[1]
    for path in folder.iterdir():
        if path.name not in there:
            path.unlink()
    for name, content in there.items():
        if content is not None or name == "phantom.tmp":
            (folder / name).write_bytes(content or b"")
    fill(store)
    assert contents(store) == contents(whole)


KILLED = """
import os, signal, sys
from pathlib import Path
from kidney_ssl.data.phantom_store import fill_phantom_store

store, names, options, left = Path(sys.argv[1]), eval(sys.argv[2]), eval(sys.argv[3]), int(sys.argv[4])

def die(event, arguments):
    global left
    if event == "os.rename":  # what moves a finished file into place
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
fill_phantom_store(store, names, workers=1, **options)
"""


@pytest.mark.parametrize("moved", [0, 1, 2, 4])
def test_a_killed_run_is_finished_with_the_same_bytes(moved: int, whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-c", KILLED, str(store), repr(NAMES), repr(TINY), str(moved)]
    killed = subprocess.run(command, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = {name: time for name, time in times(store).items() if not Path(name).name.startswith(".")}
    assert len(before) == moved - moved // 3
    fill(store)
    assert contents(store) == contents(whole)
    assert remade(store, before) == set(NAMES[moved // 3 :])


@pytest.fixture
def foreign(store: Path) -> Iterator[Path]:
    """A store that holds nothing but cases of another source, whole or in part; one has a phantom's mark too."""
    for case, name in zip(NAMES, ("segmentation.nii.gz", "imaging.nii", "segmentation.nii"), strict=True):
        shutil.rmtree(store / case)
        (store / case).mkdir()
        (store / case / name).write_bytes(b"a volume of a patient")
    (store / NAMES[2] / "phantom.tmp").touch()
    before = contents(store)
    yield store
    assert contents(store) == before


def test_volumes_of_another_source_are_refused_and_left_alone(foreign: Path) -> None:
    with pytest.raises(InputError, match=r"^3 bad case.*set data\.raw_dir to another folder") as caught:
        fill(foreign)
    assert all(str(foreign / case) in str(caught.value) for case in NAMES)
    assert "\n" not in str(caught.value)
