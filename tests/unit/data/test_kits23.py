"""The download of KiTS23, against servers that fail in every way that was seen, with real labels."""

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock
from huggingface_hub import close_session, constants
from hypothesis import given, settings
from hypothesis import strategies as st

from kidney_ssl.data import fetch, kits23, kits23_store, phantom_store
from kidney_ssl.data.manifest import Row
from kidney_ssl.errors import InputError
from tests.unit.data.hub import DATASET, IMAGING_COMMIT, LABELS, LABELS_COMMIT, Fault, Hub, asked, running

SHARED = Path(__file__).parents[3].parent / "shared" / "kits23" / "labels"
CASES = ["case_00038", "case_00061", "case_00546"]  # 32, 29 and 30 slices
FIRST = CASES[0]
KINDS = ("imaging", "segmentation")


def label_bytes(case: str) -> bytes:
    path = SHARED / case / "segmentation.nii.gz"
    if not path.exists():
        pytest.skip(f"needs the real KiTS23 labels: {path} is absent")
    return path.read_bytes()


def make_imaging(labels: bytes, seed: int, slices: int | None = None) -> bytes:
    """Imaging on the labels' grid: some planes of noise, so that it has a size, and zeros."""
    grid = nib.Nifti1Image.from_bytes(gzip.decompress(labels))
    array = np.zeros((slices or grid.shape[0], *grid.shape[1:]), np.int16)
    array[..., :40] = np.random.default_rng(seed).integers(-1000, 1000, (*array.shape[:2], 40))
    return gzip.compress(nib.Nifti1Image(array, grid.affine).to_bytes(), compresslevel=1, mtime=0)


@pytest.fixture(scope="session")
def published() -> dict[str, dict[str, bytes]]:
    labels = {case: label_bytes(case) for case in CASES}
    images = {f"images/{case}.nii.gz": make_imaging(labels[case], seed) for seed, case in enumerate(CASES)}
    return {"images": images, "labels": labels}


@pytest.fixture
def hub(published: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with asked(monkeypatch, dict(published["images"]), dict(published["labels"])) as served:
        yield served
    # Whatever happened: nothing was asked for but these files, and the token went to the hub alone.
    for request in served.forgotten + served.requests:
        assert ("hf_secret" in request.headers.get("authorization", "")) == (request.server == "hub"), request
        known = (f"/api/datasets/{DATASET}/paths-info/", f"/datasets/{DATASET}/resolve/", "/images/", f"/{LABELS}/")
        assert request.path.startswith(known), request
        assert "torch" not in request.headers["user-agent"]


def arguments(hub: Hub, **changes: object) -> dict:
    return {
        "cases": CASES,
        "exclude": [],
        "imaging_endpoint": hub.addresses["hub"] + "/",
        "imaging_repository": DATASET,
        "imaging_revision": IMAGING_COMMIT,
        "labels_endpoint": hub.addresses["github"],
        "labels_repository": LABELS,
        "labels_revision": LABELS_COMMIT,
        "connections": 2,
        "timeout": 5.0,
        **changes,
    }


def download(store: Path, hub: Hub, **changes: object) -> list[Row]:
    return kits23.download(store, **arguments(hub, **changes))


def expected(hub: Hub, case: str, kind: str) -> bytes:
    return hub.images[f"images/{case}.nii.gz"] if kind == "imaging" else hub.labels[case]


def assert_whole(store: Path, hub: Hub, cases: list[str] = CASES) -> None:
    for case in cases:
        for kind in KINDS:
            path = store / case / f"{kind}.nii.gz"
            assert path.read_bytes() == expected(hub, case, kind)
            assert not path.is_symlink()
    assert not list(store.rglob("*.part"))


def failure(store: Path, hub: Hub, **changes: object) -> str:
    with pytest.raises(InputError) as caught:
        download(store, hub, **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert "dvc repro download" in message
    return message


def address(kind: str, case: str = FIRST) -> str:
    """The part of an address that stands for the file's own bytes."""
    return f"/images/{case}.nii.gz?X-Amz" if kind == "imaging" else f"{case}/segmentation"


def test_every_file_comes_once_and_the_rows_tell_size_and_sha256(
    tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = download(tmp_path, hub)
    assert_whole(tmp_path, hub)
    assert [(row.case, row.file) for row in rows] == [
        (case, f"{case}/{kind}.nii.gz") for case in CASES for kind in KINDS
    ]
    for row in rows:
        content = (tmp_path / row.file).read_bytes()
        assert (row.bytes, row.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    # One question for all cases, then one request a file to its server, and one to the hub that sends it there.
    assert len(hub.of("paths-info")) == 1
    assert len(hub.of("resolve")) == len(hub.of("X-Amz")) == len(hub.of("segmentation")) == len(CASES)
    assert len(hub.requests) == 1 + 3 * len(CASES)
    licence = (tmp_path / "LICENSE.txt").read_text()
    for word in ("N. Heller", "CC BY-NC-SA 4.0", "2307.01984", "github.com/neheller/kits23", "unchanged"):
        assert word in licence
    shown = capsys.readouterr().err
    assert "KiTS23: 100%" in shown
    assert "B/s]" in shown


def test_a_second_run_needs_no_network(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = download(tmp_path, hub)
    hub.forget()
    assert download(tmp_path, hub) == rows
    assert not hub.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(tmp_path, hub, imaging_endpoint="http://127.0.0.1:9", labels_endpoint="http://127.0.0.1:9") == rows


@pytest.mark.parametrize("lost", ["note", "imaging", "segmentation"])
def test_offline_a_file_that_is_not_vouched_for_is_missing(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    download(tmp_path, hub)
    hub.forget()
    (tmp_path / FIRST / (kits23_store.NOTE if lost == "note" else f"{lost}.nii.gz")).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in failure(tmp_path, hub)
    assert not hub.requests


@pytest.mark.parametrize("kind", KINDS)
def test_a_note_is_not_trusted_without_the_sha256(tmp_path: Path, hub: Hub, kind: str) -> None:
    rows = download(tmp_path, hub)
    hub.forget()
    path = tmp_path / FIRST / f"{kind}.nii.gz"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert download(tmp_path, hub) == rows
    assert_whole(tmp_path, hub)
    assert len(hub.of(address(kind))) == 1
    assert sum(request.sent for request in hub.requests) == path.stat().st_size


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"imaging.nii.gz": 3}', '{"imaging.nii.gz": {"source": "x"}}', None])
def test_without_a_note_whole_files_stay(tmp_path: Path, hub: Hub, note: str | None) -> None:
    """So do volumes that were fetched by hand."""
    rows = download(tmp_path, hub)
    hub.forget()
    path = tmp_path / FIRST / kits23_store.NOTE
    kept = json.loads(path.read_text())
    path.unlink()
    if note is not None:
        path.write_text(note)
    assert download(tmp_path, hub) == rows
    assert [request.path.split("/")[-2] for request in hub.requests] == ["paths-info"]
    assert json.loads(path.read_text()) == kept


def test_a_note_of_another_commit_does_not_count(tmp_path: Path, hub: Hub) -> None:
    download(tmp_path, hub)
    path = tmp_path / FIRST / kits23_store.NOTE
    notes = json.loads(path.read_text())
    notes["imaging.nii.gz"]["source"] = notes["imaging.nii.gz"]["source"].replace("a", "d")
    path.write_text(json.dumps(notes))
    hub.images[f"images/{FIRST}.nii.gz"] = make_imaging(hub.labels[FIRST], seed=9)
    download(tmp_path, hub)
    assert_whole(tmp_path, hub)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["cut", "reset", "stall"])
def test_a_broken_transfer_goes_on_where_it_broke(tmp_path: Path, hub: Hub, fault: str, kind: str) -> None:
    after = 3 << 14
    hub.faults[address(kind)] = Fault(fault, after=after, times=1)
    download(tmp_path, hub, timeout=1.0 if fault == "stall" else 5.0)
    assert_whole(tmp_path, hub)
    first, second = hub.of(address(kind))
    assert "Range" not in first.headers
    start = int(second.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    # A reset may throw away what was on its way; nothing else is sent twice.
    assert start == after if fault != "reset" else 0 < start <= after
    assert second.sent == len(expected(hub, FIRST, kind)) - start


def test_a_transfer_that_breaks_again_and_again_still_ends(tmp_path: Path, hub: Hub) -> None:
    hub.faults[address("imaging")] = Fault("cut", after=1 << 17, times=None)
    download(tmp_path, hub, cases=[FIRST])
    assert_whole(tmp_path, hub, [FIRST])
    size = len(expected(hub, FIRST, "imaging"))
    assert hub.sent(address("imaging")) == size
    assert len(hub.of(address("imaging"))) == -(-size // (1 << 17)) > fetch.RETRIES + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_ignores_ranges_starts_the_file_anew(tmp_path: Path, hub: Hub, kind: str) -> None:
    part = part_of(tmp_path, hub, kind)
    part.write_bytes(expected(hub, FIRST, kind)[:20_000])
    hub.faults[address(kind)] = Fault("whole", times=None)
    download(tmp_path, hub)
    assert_whole(tmp_path, hub)
    assert hub.of(address(kind))[0].headers["Range"] == "bytes=20000-"


def part_path(store: Path, hub: Hub, kind: str, case: str = FIRST) -> Path:
    sha256 = hashlib.sha256(expected(hub, case, kind)).hexdigest()
    return store / case / f".{kind}.nii.gz.{sha256[:16]}.part"


def part_of(store: Path, hub: Hub, kind: str) -> Path:
    path = part_path(store, hub, kind)
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize("state", ["other revision", "longer", "damaged", "complete"])
def test_only_bytes_of_the_same_file_are_continued(tmp_path: Path, hub: Hub, state: str) -> None:
    whole = expected(hub, FIRST, "imaging")
    part = part_of(tmp_path, hub, "imaging")
    if state == "other revision":
        part = part.with_name(".imaging.nii.gz.0123456789abcdef.part")
    content = {"longer": whole + b"x", "damaged": b"x" + whole[1:50_000], "complete": whole}.get(state, b"x" * 1000)
    part.write_bytes(content)
    download(tmp_path, hub)
    assert_whole(tmp_path, hub)
    asked = [request.headers.get("Range") for request in hub.of(address("imaging"))]
    assert asked == {"damaged": ["bytes=50000-", None], "complete": []}.get(state, [None])


@pytest.mark.parametrize("what", ["paths-info", "resolve", "segmentation"])
def test_a_rate_limit_is_waited_out_as_long_as_the_server_says(tmp_path: Path, hub: Hub, what: str) -> None:
    headers = {"Retry-After": "1"}
    if what == "resolve":  # as the hub tells it
        headers = {"RateLimit": '"resolvers";r=0;t=1', "RateLimit-Policy": '"fixed window";"resolvers";q=3000;w=300'}
    hub.faults[what] = Fault("status", status=429, headers=headers, times=1)
    start = time.monotonic()
    download(tmp_path, hub, cases=[FIRST])
    assert time.monotonic() - start >= 1
    assert_whole(tmp_path, hub, [FIRST])
    assert len(hub.of(what)) == 2


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("what", ["paths-info", "resolve", "X-Amz", "segmentation"])
def test_a_servers_fault_is_tried_again(tmp_path: Path, hub: Hub, what: str, status: int) -> None:
    hub.faults[what] = Fault("status", status=status, times=2)
    download(tmp_path, hub, cases=[FIRST])
    assert_whole(tmp_path, hub, [FIRST])
    assert len(hub.of(what)) == 3


LASTING = {
    "html": "text/html",
    "junk": "22 bytes of text/plain",
    "404": "HTTP 404",
    "403": "HTTP 403",
    "429": "HTTP 429",
    "500": "HTTP 500",
    "wrong": "wrong bytes",
    "cut": "no connection",
    "stall": "timeout",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", LASTING)
def test_what_cannot_be_had_is_named_and_the_rest_is_there(tmp_path: Path, hub: Hub, fault: str, kind: str) -> None:
    part = part_of(tmp_path, hub, kind)
    part.write_bytes(expected(hub, FIRST, kind)[:20_000])
    old = part.with_name(f"{kind}.nii.gz")
    old.write_bytes(b"of another revision")
    wrong = Fault("status", status=int(fault), times=None) if fault.isdigit() else Fault(fault, times=None)
    hub.faults[address(kind)] = wrong
    message = failure(tmp_path, hub, timeout=0.3)
    assert f"{FIRST}: " in message
    assert LASTING[fault] in message
    assert message.startswith("1 of 3 cases of KiTS23 are incomplete: ")
    # The other cases are complete, and so is the other file; nothing has replaced what was there.
    assert all((tmp_path / case / f"{kind}.nii.gz").read_bytes() == expected(hub, case, kind) for case in CASES[1:])
    other = KINDS[kind == KINDS[0]]
    assert (tmp_path / FIRST / f"{other}.nii.gz").read_bytes() == expected(hub, FIRST, other)
    assert old.read_bytes() == b"of another revision"
    hub.forget()
    download(tmp_path, hub)
    assert_whole(tmp_path, hub)
    # What had come before the fault is still worth something, an error page is not kept.
    resumed = [request.headers.get("Range") for request in hub.of(address(kind))]
    assert resumed == ([None] if fault == "wrong" else ["bytes=20000-"])
    assert {request.path for request in hub.requests if request.sent} == {
        request.path for request in [*hub.of(address(kind)), *hub.of("paths-info")]
    }


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("what", ["paths-info", "resolve"])
def test_a_token_that_is_refused_is_named_as_such(tmp_path: Path, hub: Hub, what: str, status: int) -> None:
    hub.faults[what] = Fault("status", status=status, times=None)
    message = failure(tmp_path, hub)
    assert f"HTTP {status}" in message
    assert "the token of HF_TOKEN or `hf auth login` is refused" in message
    assert "hf_secret" not in message


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_without_a_token_speaks_of_none(tmp_path: Path, hub: Hub, status: int) -> None:
    hub.faults["segmentation"] = Fault("status", status=status, times=None)  # of the other server, which is sent none
    message = failure(tmp_path, hub)
    assert f"HTTP {status}" in message
    assert "token" not in message


def test_wrong_bytes_once_are_fetched_again(tmp_path: Path, hub: Hub) -> None:
    hub.faults[address("imaging")] = Fault("wrong")
    download(tmp_path, hub)
    assert_whole(tmp_path, hub)
    assert len(hub.of(address("imaging"))) == 2


def test_all_cases_that_fail_are_listed_together(tmp_path: Path, hub: Hub) -> None:
    hub.faults[address("imaging", CASES[0])] = Fault("status", status=404, times=None)
    hub.faults[address("segmentation", CASES[2])] = Fault("status", status=404, times=None)
    del hub.images[f"images/{CASES[2]}.nii.gz"]
    message = failure(tmp_path, hub, connections=1)
    assert message.startswith("2 of 3 cases")
    assert f"{CASES[0]}: HTTP 404" in message
    assert f"{CASES[2]}: not in {DATASET}@{IMAGING_COMMIT}" in message
    assert message.count("HTTP 404") == 2
    assert CASES[1] not in message


@pytest.mark.parametrize("fault", ["html", "junk", "status", "stall"])
def test_without_the_hubs_checksums_nothing_is_fetched(tmp_path: Path, hub: Hub, fault: str) -> None:
    hub.faults["paths-info"] = Fault(fault, status=404, times=None)
    assert f"/api/datasets/{DATASET}/paths-info" in failure(tmp_path, hub, timeout=0.3)
    assert {request.path for request in hub.requests} == {f"/api/datasets/{DATASET}/paths-info/{IMAGING_COMMIT}"}


def test_no_server_is_one_line(tmp_path: Path, hub: Hub) -> None:
    assert "no connection" in failure(tmp_path, hub, imaging_endpoint="http://127.0.0.1:9")
    assert "no connection" in failure(tmp_path, hub, labels_endpoint="http://127.0.0.1:9", cases=[FIRST])
    assert "no connection" in failure(tmp_path, hub, labels_endpoint="nowhere", cases=[FIRST])


def test_a_lasting_outage_is_not_met_489_times(tmp_path: Path, hub: Hub) -> None:
    names = sorted(path.name for path in SHARED.iterdir())
    hub.images = {f"images/{case}.nii.gz": hub.images[f"images/{FIRST}.nii.gz"] for case in names}
    hub.faults["/"] = Fault("status", status=503, times=None)
    hub.faults = {"paths-info": Fault("", times=None), **hub.faults}
    message = failure(tmp_path, hub, cases=names, connections=2)
    assert f"{len(names)} of {len(names)} cases" in message
    assert "more were not tried" in message
    assert 10 <= message.count("HTTP 503 from") / 2 <= 12


def test_checksums_of_all_cases_take_few_requests(hub: Hub) -> None:
    hub.images = {f"images/case_{number:05d}.nii.gz": b"%d" % number for number in range(489)}
    dataset = fetch.Dataset(hub.addresses["hub"], DATASET, IMAGING_COMMIT)
    known = fetch.ask_hub(dataset, list(hub.images), timeout=5)
    assert {path: file.sha256 for path, file in known.items()} == {
        path: hashlib.sha256(content).hexdigest() for path, content in hub.images.items()
    }
    assert len(hub.requests) == 5


def test_published_files_that_are_no_volumes_are_refused(tmp_path: Path, hub: Hub) -> None:
    """As damaged at the publisher, with size and sha256 in order."""
    hub.images[f"images/{CASES[0]}.nii.gz"] = hub.images[f"images/{CASES[0]}.nii.gz"][:-100]
    hub.images[f"images/{CASES[1]}.nii.gz"] = b"<html>no volume</html>"
    hub.images[f"images/{CASES[2]}.nii.gz"] = make_imaging(hub.labels[CASES[2]], seed=0, slices=7)
    for _ in range(2):
        message = failure(tmp_path, hub)
        assert message.startswith("3 of 3 cases")
        assert message.count("no whole gzip file, though as published") == 2
        assert "grids must agree" in message
    assert not any((tmp_path / case / "imaging.nii.gz").exists() for case in CASES[:2])


def test_a_full_disk_is_told_and_the_rest_goes_on(tmp_path: Path, hub: Hub) -> None:
    part = part_of(tmp_path, hub, "imaging")
    part.symlink_to("/dev/full")
    message = failure(tmp_path, hub)
    assert f"{FIRST}: no space left on the disk" in message
    assert message.startswith("1 of 3 cases")
    part.unlink()
    download(tmp_path, hub)
    assert_whole(tmp_path, hub)


def test_too_small_a_disk_is_refused_before_the_first_byte(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = sum(len(expected(hub, case, kind)) for case in CASES for kind in KINDS)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=total - 1))
    with pytest.raises(InputError, match=rf"{total / 1e9:.2f} GB are to be fetched and .* GB are free; make room"):
        download(tmp_path, hub)
    assert len(hub.requests) == 1
    # What is there already, whole or in part, is not counted again.
    part_of(tmp_path, hub, "imaging").write_bytes(expected(hub, FIRST, "imaging")[:1])
    download(tmp_path, hub)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=0))
    download(tmp_path, hub)


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file.*cannot be written .*data\.raw_dir"):
        download(tmp_path / "file", hub)


def test_a_whole_store_is_not_locked(tmp_path: Path, hub: Hub) -> None:
    """It may be one that others only read."""
    rows = download(tmp_path, hub)
    with FileLock(tmp_path / FIRST / ".lock"):
        assert download(tmp_path, hub) == rows


@pytest.mark.parametrize("mark", [phantom_store.NOTE, phantom_store.UNFINISHED])
def test_the_phantoms_store_is_left_alone(tmp_path: Path, hub: Hub, mark: str) -> None:
    (tmp_path / FIRST).mkdir()
    (tmp_path / FIRST / mark).write_text("{}")
    (tmp_path / FIRST / "imaging.nii.gz").write_bytes(b"a phantom")
    assert "set data.raw_dir to another folder" in failure(tmp_path, hub)
    assert (tmp_path / FIRST / "imaging.nii.gz").read_bytes() == b"a phantom"


def test_a_case_that_does_not_exist_is_refused(tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(InputError, match="case_00300"):
        download(tmp_path, hub, cases=["case_00300"])
    with pytest.raises(InputError, match="imaging_repository"):
        download(tmp_path, hub, imaging_repository="no/such/name")


def start_process(store: Path, hub: Hub, env: dict[str, str] | None = None, **changes: object) -> subprocess.Popen[str]:
    code = (
        # A shell starts background jobs with the interrupt ignored, and whoever is started by them inherits that.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import json, sys; from pathlib import Path; from kidney_ssl.data import fetch, kits23; "
        "fetch.FIRST_WAIT_S = 0.01; "
        "print(len(kits23.download(Path(sys.argv[1]), **json.loads(sys.argv[2]))))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(store), json.dumps(arguments(hub, **changes))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | (env or {}),
        text=True,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_ended_is_continued(tmp_path: Path, hub: Hub, ending: signal.Signals) -> None:
    last = CASES[-1]
    hub.faults[address("imaging", last)] = Fault("slow", after=1 << 17, seconds=0.1)
    process = start_process(tmp_path, hub)
    done = [tmp_path / case / kits23_store.NOTE for case in CASES[:2]]
    # Not what the server has sent: that may still be on its way.
    growing = part_path(tmp_path, hub, "imaging", last)
    noted = lambda path: path.exists() and len(json.loads(path.read_text())) == len(KINDS)  # noqa: E731
    wait_until(lambda: all(map(noted, done)) and fetch.size_of(growing) > 1 << 17)
    process.send_signal(ending)
    process.communicate(timeout=5)
    assert process.returncode != 0
    sent = hub.sent(address("imaging", last))
    assert sent < len(expected(hub, last, "imaging"))
    hub.forget()
    download(tmp_path, hub)
    assert_whole(tmp_path, hub)
    assert not any(request.sent for case in CASES[:2] for request in hub.of(case))
    (resumed,) = hub.of(address("imaging", last))
    start = int(resumed.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 1 << 17 < start <= sent
    assert resumed.sent == len(expected(hub, last, "imaging")) - start


def test_two_runs_on_one_store_share_the_work(tmp_path: Path, hub: Hub) -> None:
    hub.faults["X-Amz"] = Fault("slow", seconds=0.005, times=None)
    processes = [start_process(tmp_path, hub) for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert output.strip() == str(2 * len(CASES)), errors
    assert_whole(tmp_path, hub)
    assert len(hub.of("paths-info")) == 2
    for case in CASES:
        for kind in KINDS:
            assert len(hub.of(address(kind, case))) == 1


def test_the_hub_is_the_librarys_own_unless_named_and_gets_no_telemetry(tmp_path: Path, hub: Hub) -> None:
    env = {"HF_ENDPOINT": hub.addresses["hub"], "HF_HOME": str(tmp_path / "home")}
    process = start_process(tmp_path / "store", hub, env, imaging_endpoint=None)
    output, errors = process.communicate(timeout=60)
    assert output.strip() == str(2 * len(CASES)), errors
    assert_whole(tmp_path / "store", hub)


faults = st.builds(
    Fault,
    kind=st.sampled_from(["cut", "reset", "wrong", "html", "junk", "whole", "status"]),
    after=st.integers(0, 300_000),
    status=st.sampled_from([404, 416, 500, 503]),
    times=st.integers(1, 3),
)
addresses = st.sampled_from([address(kind, case) for kind in KINDS for case in CASES] + ["resolve", "paths-info"])


@given(rounds=st.lists(st.dictionaries(addresses, faults, min_size=1, max_size=5), min_size=1, max_size=4))
@settings(deadline=None, max_examples=15)
def test_whatever_happens_only_whole_files_are_in_place(
    tmp_path_factory: pytest.TempPathFactory, published: dict[str, dict[str, bytes]], rounds: list[dict[str, Fault]]
) -> None:
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch, running(published["images"], published["labels"]) as hub:
        patch.setattr(fetch, "FIRST_WAIT_S", 0.001)
        close_session()
        for happening in rounds:
            hub.forget()
            hub.faults = happening
            # The next round goes on from whatever this one left.
            with suppress(InputError):
                download(store, hub)
            for path in store.rglob("*.nii.gz"):
                assert path.read_bytes() == expected(hub, path.parent.name, path.name.removesuffix(".nii.gz"))
        hub.forget()
        download(store, hub)
        assert_whole(store, hub)
        close_session()
