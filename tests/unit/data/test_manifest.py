"""The manifest, the registry of KiTS23's labels, and the reader that checks each file against the manifest."""

import csv
import errno
import hashlib
import os
import pickle
import re
import signal
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joblib import parallel_config
from pydantic import TypeAdapter, ValidationError

from kidney_ssl.config import Case
from kidney_ssl.data import manifest
from kidney_ssl.data.case_names import is_case
from kidney_ssl.data.cases import each_case
from kidney_ssl.data.manifest import Row
from kidney_ssl.data.reader import Reader
from kidney_ssl.data.registry import kits23_block, label_files
from kidney_ssl.errors import InputError

SHARED = Path(__file__).parents[3].parent / "shared"
KITS = SHARED / "kits23"
CT = SHARED / "ct"
CASES = ["case_00000", "case_00001", "case_00007", "case_00012", "case_other"]
MEND = "run `dvc repro --force --single-item download`, then `dvc repro`"


def refused(match: str, function, *arguments: object, **options: object) -> str:
    with pytest.raises(InputError, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "exclude", "expected"),
    [
        (None, [], CASES),
        ([12, 0], [], ["case_00000", "case_00012"]),
        (["case_other", 7, "case_00007"], [], ["case_00007", "case_other"]),
        ("0-7", [], ["case_00000", "case_00001", "case_00007"]),
        ("7-7", [], ["case_00007"]),
        ("2-400", [], ["case_00007", "case_00012"]),  # a range may be wider than what is there
        (None, ["case_00001", "case_other"], ["case_00000", "case_00007", "case_00012"]),
        ("0-7", ["case_00007", "case_00012"], ["case_00000", "case_00001"]),
        ([7, 12], ["case_00012"], ["case_00007"]),
    ],
)
def test_cases_are_chosen_and_sorted(wanted, exclude: list[str], expected: list[str]) -> None:
    assert manifest.choose_cases(CASES[::-1], wanted, exclude) == expected


@pytest.mark.parametrize(
    ("wanted", "exclude", "match"),
    [
        ([0, 3, "case_x"], [], r"data\.cases: no such case: case_00003, case_x; correct the list"),
        (None, ["case_00003"], r"data\.exclude: no such case: case_00003; correct the list"),
        ("20-30", [], "no case is left: widen data.cases"),
        ("7-0", [], "no case is left"),
        ([], [], "no case is left"),
        ([7], ["case_00007"], "no case is left.*shorten data.exclude"),
    ],
)
def test_a_wrong_choice_of_cases_names_the_key(wanted, exclude: list[str], match: str) -> None:
    refused(match, manifest.choose_cases, CASES, wanted, exclude)


def put(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(file.encode())
    return root


def test_volumes_of_a_folder_are_found_by_case_and_kind(tmp_path: Path) -> None:
    one = [f"case_00001/{kind}.nii.gz" for kind in ("imaging", "segmentation")]
    beside = ["case_00001/imaging.nii.gz.part", "case_00001/notes.txt", "imaging.nii.gz", "other/imaging.nii.gz"]
    put(tmp_path, *one, "case_b/segmentation.nii", *beside, "case_00001/deep/imaging.nii", "case_file")
    assert manifest.find_cases(tmp_path) == {
        "case_00001": {"imaging": tmp_path / one[0], "segmentation": tmp_path / one[1]},
        "case_b": {"segmentation": tmp_path / "case_b/segmentation.nii"},
    }


LIKE_CASES = ["Case_00003", "case_00001_pre", "case_00002 (1)", "case-4", "case_", "case_é"]


def test_folders_that_look_like_cases_and_are_left_out_are_named_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, "case_00001/segmentation.nii.gz", "case_2/prediction.nii.gz", "other/notes.txt")
    put(tmp_path, *[f"{name}/segmentation.nii.gz" for name in LIKE_CASES])
    put(tmp_path, "patient 5/segmentation.nii.gz", "patient 5/imaging.nii.gz")
    with pytest.warns(UserWarning, match=re.escape(str(tmp_path))) as caught:
        assert list(manifest.find_cases(tmp_path)) == ["case_00001"]
    (line,) = [str(one.message) for one in caught]
    assert "\n" not in line
    assert all(repr(name) in line for name in [*LIKE_CASES, "case_2", "patient 5"])
    assert "other" not in line


@pytest.mark.parametrize("name", [*CASES, *LIKE_CASES, "case_00001\n", "00001"])
def test_one_rule_says_what_a_case_may_be_called(name: str, tmp_path: Path) -> None:
    """For folders, a manifest, and `data.exclude` alike."""
    folder = TypeAdapter(Case)
    path = tmp_path / "manifest.csv"
    manifest.write_manifest(path, [Row(name, "case_1/imaging.nii.gz", 1, "a")])
    if is_case(name):
        assert folder.validate_python(name) == name
        assert list(manifest.by_case(path)) == [name]
    else:
        with pytest.raises(ValidationError):
            folder.validate_python(name)
        assert repr(name) in refused("no name of a case", manifest.by_case, path)


def test_links_to_what_is_not_there_are_bad_cases_and_not_missing_ones(tmp_path: Path) -> None:
    put(tmp_path, "case_00001/segmentation.nii.gz", "case_00002/imaging.nii.gz")
    (tmp_path / "case_00002/segmentation.nii.gz").symlink_to("../.git/annex/gone")
    (tmp_path / "case_00003").symlink_to("/mnt/gone")
    message = refused(r"^2 bad case\(s\): ", manifest.scan, tmp_path, None, [], workers=1)
    assert "case_00002/segmentation.nii.gz is a link to ../.git/annex/gone" in message
    assert "case_00003 is a link to /mnt/gone" in message
    assert len(manifest.scan(tmp_path, None, ["case_00002", "case_00003"], workers=1)) == 1


def unreadable(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """What a user meets who has no right to some files and folders; root, who runs tests, has all."""
    opened, listed = Path.open, Path.iterdir

    def refusing(function):
        def call(self: Path, *arguments, **options):
            if self in paths:
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return function(self, *arguments, **options)

        return call

    monkeypatch.setattr(Path, "open", refusing(opened))
    monkeypatch.setattr(Path, "iterdir", refusing(listed))


def test_what_may_not_be_read_is_a_bad_case_that_can_be_left_out(tmp_path: Path, monkeypatch) -> None:
    put(tmp_path, *[f"case_0000{number}/segmentation.nii.gz" for number in range(4)])
    unreadable(monkeypatch, tmp_path / "case_00001", tmp_path / "case_00002/segmentation.nii.gz")
    message = refused(r"^2 bad case\(s\): case_00001: ", manifest.scan, tmp_path, None, [], workers=1)
    assert f"{tmp_path / 'case_00002/segmentation.nii.gz'} cannot be read" in message
    assert len(manifest.scan(tmp_path, None, ["case_00001", "case_00002"], workers=1)) == 2
    unreadable(monkeypatch, tmp_path)
    assert str(tmp_path) in refused("Permission denied", manifest.find_cases, tmp_path)


def killed(case: str) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return case


def full(case: str) -> str:
    raise MemoryError(case)


def test_a_worker_that_is_killed_for_its_memory_names_compute_workers() -> None:
    options = {"workers": 2, "description": "slice"}
    refused(r"compute\.workers \(2\)", each_case, killed, ["case_1", "case_2"], **options)
    refused(r"case_1: .*compute\.workers", each_case, full, ["case_1"], **options)


def beyond(case: str, *, number: int) -> str:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EMFILE, errno.EROFS])
def test_what_every_case_would_meet_is_no_fault_of_a_case(number: int) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        each_case(partial(beyond, number=number), ["case_1"], workers=1, description="slice")
    refused("1 bad case", each_case, partial(beyond, number=errno.EIO), ["case_1"], workers=1, description="slice")


def test_no_more_workers_start_than_there_are_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def single(**options: Any) -> AbstractContextManager[object]:
        asked.append(options["n_jobs"])
        return parallel_config(backend="sequential")

    monkeypatch.setattr("kidney_ssl.data.cases.parallel_config", single)
    for cases in (["case_1", "case_2"], []):
        assert each_case(str, cases, workers=1000, description="slice") == {case: case for case in cases}
    assert asked == [2, 1]


def test_a_folder_without_volumes_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path) in refused("holds no volumes; expected case_XXXXX", manifest.find_cases, tmp_path)
    refused("absent: no such folder", manifest.find_cases, tmp_path / "absent")


def test_a_volume_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "case_1/imaging.nii.gz", "case_1/imaging.nii", "case_1/segmentation.nii.gz")
    refused("case_1: both imaging.nii.gz and imaging.nii: keep one", manifest.find_cases, tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_scan_gives_size_and_sha256_of_each_chosen_volume(workers: int, tmp_path: Path) -> None:
    files = [f"{case}/{kind}.nii.gz" for case in ("case_00002", "case_00001") for kind in ("segmentation", "imaging")]
    put(tmp_path, *files, "case_00003/segmentation.nii", "case_00004/segmentation.nii")
    rows = manifest.scan(tmp_path, None, ["case_00004"], workers=workers)
    expected = [*sorted(files), "case_00003/segmentation.nii"]
    assert rows == [
        Row(file.split("/")[0], file, len(file), hashlib.sha256(file.encode()).hexdigest()) for file in expected
    ]


def test_scan_lists_all_cases_without_labels_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, *[f"case_{n:05d}/imaging.nii.gz" for n in range(4)], "case_00001/segmentation.nii.gz")
    refused(
        r"^2 bad case\(s\): case_00000: segmentation.*missing; case_00003: segmentation.*missing\. .*data\.exclude",
        manifest.scan,
        tmp_path,
        None,
        ["case_00002"],
        workers=1,
    )


def test_a_large_file_is_hashed_whole(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3_000_001)
    (tmp_path / "file").write_bytes(content)
    assert manifest.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


NAMES = st.text(st.characters(codec="ascii", categories=["L", "Nd"]), min_size=1)


@given(
    rows=st.lists(
        st.builds(
            lambda name, kind, size: Row(f"case_{name}", f"case_{name}/{kind}.nii.gz", size, f"{size:064x}"),
            NAMES,
            st.sampled_from(["imaging", "segmentation"]),
            st.integers(0, 2**40),
        ),
        unique_by=lambda row: row.file,
    ),
    order=st.randoms(use_true_random=False),
)
def test_a_manifest_comes_back_as_it_was_written_and_is_sorted(rows: list[Row], order, tmp_path_factory) -> None:
    folder = tmp_path_factory.getbasetemp()
    shuffled = list(rows)
    order.shuffle(shuffled)
    manifest.write_manifest(folder / "one.csv", rows)
    manifest.write_manifest(folder / "new" / "two.csv", shuffled)
    assert (folder / "one.csv").read_bytes() == (folder / "new" / "two.csv").read_bytes()
    with (folder / "one.csv").open(encoding="utf-8", newline="") as stream:
        written = [Row(case, file, int(size), sha) for case, file, size, sha in list(csv.reader(stream))[1:]]
    assert written == sorted(rows, key=lambda row: (row.case, row.file))
    read = manifest.by_case(folder / "one.csv")
    assert [row for of_case in read.values() for row in of_case.values()] == written
    assert all(row.case == case and f"/{kind}." in row.file for case in read for kind, row in read[case].items())


def test_a_manifest_is_plain_csv(tmp_path: Path) -> None:
    manifest.write_manifest(tmp_path / "m.csv", [Row("case_1", "case_1/segmentation.nii", 5, "ab")])
    assert (tmp_path / "m.csv").read_bytes() == b"case,file,bytes,sha256\ncase_1,case_1/segmentation.nii,5,ab\n"


@pytest.mark.parametrize(
    "file",
    [
        "/etc/imaging.nii.gz",
        "../case_1/imaging.nii.gz",
        "case_1/../../imaging.nii.gz",
        "case_1/..",
        "..",
        "..\\imaging.nii.gz",
        "..\\..\\case_1/imaging.nii.gz",
        "C:\\imaging.nii.gz",
        "case_1/prediction.nii.gz",
        "case_1/imaging2.nii.gz",
        "case_1/.nii.gz",
        "",
    ],
)
def test_a_path_that_leaves_the_store_or_is_no_volume_is_refused(file: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    manifest.write_manifest(path, [Row("case_0", "case_0/imaging.nii.gz", 1, "a"), Row("case_1", file, 1, "a")])
    message = refused("of case_1 is no path of a volume inside the store", manifest.by_case, path)
    assert message.endswith(MEND)
    assert message.startswith(str(path))


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"case,file,bytes\ncase_1,case_1/imaging.nii.gz,5\n",
        b"case,file,bytes,sha256\ncase_1,case_1/imaging.nii.gz,many,ab\n",
        b"case,file,bytes,sha256\ncase_1,case_1/imaging.nii.gz\n",
        b"case,file,bytes,sha256\ncase_1,case_1/imaging.nii.gz,5\n",
        b"case,file,bytes,sha256\n\xff\xfe,case_1/imaging.nii.gz,5,ab\n",
        b"case,file,bytes,sha256\ncase_1,case_1/imaging.nii.gz,5," + b"a" * 200_000 + b"\n",
        b"case,file,bytes,sha256,more\ncase_1,case_1/imaging.nii.gz,5,ab,c\n",
        b"<!DOCTYPE html>\n",
    ],
)
def test_a_missing_or_damaged_manifest_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    if content is not None:
        path.write_bytes(content)
    assert str(path) in refused("cannot be read.*run `dvc repro download`", manifest.by_case, path)


def test_a_kind_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    files = ("case_1/imaging.nii.gz", "case_1/imaging.nii", "case_2/imaging.nii")
    manifest.write_manifest(path, [Row(file.split("/")[0], file, 1, "a") for file in files])
    message = refused("case_1 has more than one imaging", manifest.by_case, path)
    assert message.endswith(MEND)


def test_a_volume_is_given_out_only_if_size_and_sha256_agree(tmp_path: Path) -> None:
    put(tmp_path, "case_1/imaging.nii.gz", "case_1/segmentation.nii.gz")
    rows = manifest.scan(tmp_path, None, [], workers=1)
    path = tmp_path / "case_1" / "imaging.nii.gz"
    assert manifest.verified(tmp_path, rows[0]) == path
    whole = path.read_bytes()

    path.write_bytes(whole[:-1])
    refused(f"^{path} has 20 bytes instead of 21; {MEND}$", manifest.verified, tmp_path, rows[0])
    path.write_bytes(whole[:-1] + b"Z")
    refused(f"^{path} has another sha256 than data/manifest.csv; {MEND}$", manifest.verified, tmp_path, rows[0])
    path.unlink()
    refused(f"^{path} is missing; {MEND}$", manifest.verified, tmp_path, rows[0])
    path.mkdir()
    refused("is missing", manifest.verified, tmp_path, rows[0])


def test_a_manifest_says_for_how_many_cases_the_imaging_is_missing() -> None:
    rows = [
        Row("case_1", "case_1/imaging.nii.gz", 1_500_000, ""),
        Row("case_1", "case_1/segmentation.nii.gz", 250_000, ""),
        Row("case_2", "case_2/segmentation.nii.gz", 250_000, ""),
    ]
    assert manifest.describe(rows[:2]) == "1 cases, 2 volumes, 1.8 MB"
    text = manifest.describe(rows)
    assert text.startswith("2 cases, 3 volumes, 2.0 MB; imaging is missing for 1 of them")


@pytest.mark.skipif(not KITS.exists(), reason="../shared/kits23 is not beside this checkout")
def test_the_registry_is_the_published_list() -> None:
    with (KITS / "labels.sha256.csv").open(encoding="utf-8") as stream:
        published = {row["case"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(stream)}
    assert {case: (known.bytes, known.sha256) for case, known in label_files().items()} == published
    assert len(published) == 489


@pytest.mark.skipif(not KITS.exists(), reason="../shared/kits23 is not beside this checkout")
def test_the_real_label_files_are_those_of_the_registry() -> None:
    rows = manifest.scan(KITS / "labels", None, [], workers=1)
    assert len(rows) == 26
    for row in rows:
        known = label_files()[row.case]
        assert (row.bytes, row.sha256) == (known.bytes, known.sha256)
        number = int(row.case[-5:])
        assert kits23_block(row.sha256) == ("0-299" if number < 300 else "400-499" if number < 500 else "500-588")


def test_every_label_file_of_kits23_has_its_block_and_others_have_none() -> None:
    blocks = {case: kits23_block(known.sha256) for case, known in label_files().items()}
    first, second, third = (
        {case for case, block in blocks.items() if block == name} for name in ("0-299", "400-499", "500-588")
    )
    assert first == {f"case_{number:05d}" for number in range(300)}
    assert second == {f"case_{number:05d}" for number in range(400, 500)}
    assert third == {f"case_{number:05d}" for number in range(500, 589)}
    assert kits23_block(hashlib.sha256(b"another data set").hexdigest()) == "other"
    assert kits23_block("") == "other"


SPACING = (4.0, 0.75, 0.5)


def make_case(folder: Path, *, slices: int = 5, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Imaging in KiTS order and labels with slices last, as other sources have them; both (slices, H, W)."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(slices)
    imaging = generator.integers(-1000, 1000, (5, 9, 8)).astype(np.float64)
    labels = generator.integers(0, 4, (slices, 9, 8)).astype(np.uint8)
    thickness, row_mm, column_mm = SPACING
    affine = np.array([[0, 0, -column_mm, 3], [0, -row_mm, 0, 4], [-thickness, 0, 0, 5], [0, 0, 0, 1.0]])
    nib.save(nib.Nifti1Image(imaging, affine), folder / "imaging.nii.gz")
    affine[2, 3] += shift
    nib.save(nib.as_closest_canonical(nib.Nifti1Image(labels, affine)), folder / "segmentation.nii.gz")
    return imaging, labels


def reader_of(root: Path) -> Reader:
    manifest.write_manifest(root / "manifest.csv", manifest.scan(root, None, [], workers=1))
    return Reader(root, manifest.by_case(root / "manifest.csv"))


def test_a_reader_gives_both_volumes_on_one_grid(tmp_path: Path) -> None:
    imaging, labels = make_case(tmp_path / "case_1")
    reader = pickle.loads(pickle.dumps(reader_of(tmp_path)))  # noqa: S301 - as the workers get it
    read, masks, in_plane, notes = reader.volumes("case_1")
    assert (read.dtype, masks.dtype) == (np.int16, np.uint8)
    assert np.array_equal(read, imaging)
    assert np.array_equal(masks, labels)
    assert in_plane == pytest.approx(SPACING[1:])
    assert notes == ()
    areas, spacing = reader.areas("case_1", tmp_path)
    assert areas.tolist() == [[(plane == label).sum() for label in range(4)] for plane in labels]
    assert spacing == pytest.approx(SPACING)


def test_counted_areas_are_kept_and_counted_anew_when_the_labels_change(tmp_path: Path) -> None:
    make_case(tmp_path / "case_1")
    parts = tmp_path / "parts"
    parts.mkdir()
    areas, spacing = reader_of(tmp_path).areas("case_1", parts)
    (kept,) = parts.iterdir()
    # Something that no volume would give: it is taken from the part.
    np.savez(kept, areas=areas + 7, spacing_mm=spacing, findings=np.array([], str))
    found, again = reader_of(tmp_path).areas("case_1", parts)
    assert np.array_equal(found, areas + 7)
    assert again == spacing
    (tmp_path / "case_1" / "segmentation.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes instead of"):
        Reader(tmp_path, manifest.by_case(tmp_path / "manifest.csv")).areas("case_1", parts)
    make_case(tmp_path / "case_1", slices=6)
    assert len(reader_of(tmp_path).areas("case_1", parts)[0]) == 6


def test_a_reader_passes_on_what_is_odd_about_the_imaging(tmp_path: Path) -> None:
    imaging, _ = make_case(tmp_path / "case_1")
    imaging[2, 3, 4] = 9500
    path = tmp_path / "case_1" / "imaging.nii.gz"
    nib.save(nib.Nifti1Image(imaging, nib.load(path).affine), path)
    *_, notes = reader_of(tmp_path).volumes("case_1")
    assert notes == (f"HU from {imaging.min():.0f} to 9500",)
    path = tmp_path / "case_1" / "segmentation.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((5, 9, 8), np.uint8), nib.load(tmp_path / "case_1/imaging.nii.gz").affine), path)
    *_, notes = reader_of(tmp_path).volumes("case_1")
    assert notes[0] == "no labelled pixel: all of its slices are background"


@pytest.mark.parametrize(
    ("changes", "match"), [({"slices": 6}, r"\(5, 9, 8\).*\(6, 9, 8\)"), ({"shift": 1.0}, "places")]
)
def test_a_reader_refuses_grids_that_differ(changes: dict, match: str, tmp_path: Path) -> None:
    make_case(tmp_path / "case_1", **changes)
    message = refused(match, reader_of(tmp_path).volumes, "case_1")
    assert str(tmp_path / "case_1" / "imaging.nii.gz") in message
    assert "segmentation.nii.gz" in message
    assert "their grids must agree" in message


@pytest.mark.parametrize("kind", ["imaging", "segmentation"])
def test_a_reader_refuses_a_file_that_changed_since_the_manifest(kind: str, tmp_path: Path) -> None:
    make_case(tmp_path / "case_1")
    reader = reader_of(tmp_path)
    path = tmp_path / "case_1" / f"{kind}.nii.gz"
    content = bytearray(path.read_bytes())
    content[4] ^= 1  # the time stamp: the volume itself is the same
    path.write_bytes(content)
    assert str(path) in refused("another sha256", reader.volumes, "case_1")
    if kind == "segmentation":
        refused("another sha256", reader.areas, "case_1", tmp_path)


def test_a_fingerprint_follows_the_content_of_the_volumes(tmp_path: Path) -> None:
    make_case(tmp_path / "case_1")
    make_case(tmp_path / "case_2", slices=6)
    make_case(tmp_path / "case_3")
    (tmp_path / "case_3" / "imaging.nii.gz").unlink()
    reader = reader_of(tmp_path)
    prints = [reader.fingerprint(case) for case in ("case_1", "case_2", "case_3")]
    assert len(set(prints)) == 3
    hashes = [
        hashlib.sha256((tmp_path / "case_1" / f"{kind}.nii.gz").read_bytes()).hexdigest()
        for kind in ("imaging", "segmentation")
    ]
    assert prints[0].startswith(" ".join(hashes))
    assert replace(reader, labels={1: "tumor"}).fingerprint("case_1") != prints[0]
    assert reader.without("imaging", ["case_1", "case_3", "case_4"]) == ["case_3", "case_4"]
    assert reader.without("segmentation", ["case_1", "case_3"]) == []


@pytest.mark.skipif(not CT.exists(), reason="../shared/ct is not beside this checkout")
def test_a_reader_reads_a_real_ct() -> None:
    reader = Reader(CT, {"case_90000": {}})
    for row in manifest.scan(CT, None, [], workers=1):
        reader.files["case_90000"]["imaging" if "imaging" in row.file else "segmentation"] = row
    read, masks, in_plane, _ = reader.volumes("case_90000")
    assert read.shape == masks.shape == (30, 101, 122)
    assert in_plane == pytest.approx((3, 3))
    assert (masks > 0).any(axis=(1, 2)).sum() == 23
    stored, labels = (nib.load(CT / row.file).get_fdata() for row in reader.files["case_90000"].values())
    assert read[masks == 1].sum() == stored[labels == 1].sum()
