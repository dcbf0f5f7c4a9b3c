"""Clinical labels: what each value means, what is refused, and the download from a server on this machine."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.data.clinical_labels import TASKS, fetch_labels, parse_labels, read_labels
from kidney_ssl.errors import InputError
from tests.unit.data.hub import LABELS, LABELS_COMMIT, Fault, Hub, asked

# Values as in KiTS23's own file: chromophobe tumors have no grade, and of case_00550 nothing is known.
ENTRIES = [
    {
        "case_id": "case_00000",
        "malignant": True,
        "tumor_isup_grade": "3",
        "bmi": 29.47,
        "comorbidities": {"aids": False},
    },
    {"case_id": "case_00001", "malignant": True, "tumor_isup_grade": "2", "bmi": 33.71},
    {
        "case_id": "case_00003",
        "malignant": True,
        "tumor_isup_grade": "na",
        "tumor_histologic_subtype": "chromophobe_rcc",
    },
    {"case_id": "case_00011", "malignant": True, "tumor_isup_grade": "1"},
    {"case_id": "case_00024", "malignant": False, "tumor_isup_grade": "na"},
    {"case_id": "case_00550", "malignant": None, "tumor_isup_grade": None},
    {"case_id": "case_00551", "malignant": True, "tumor_isup_grade": "4"},
]
CONTENT = json.dumps(ENTRIES, indent=4).encode()


def changed(**values: Any) -> bytes:
    return json.dumps([ENTRIES[0], ENTRIES[1] | values]).encode()


def test_grades_3_and_4_are_high_and_unknown_values_leave_a_case_out(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(CONTENT)
    labels, sha256 = read_labels(path)
    cases = [entry["case_id"] for entry in ENTRIES]
    assert labels == {
        "grade": dict(zip(cases, [1, 0, None, 0, None, None, 1], strict=True)),
        "malignant": dict(zip(cases, [1, 1, 1, 1, 0, None, 1], strict=True)),
    }
    assert sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no whole JSON file"),
        (CONTENT[:-2], "no whole JSON file"),
        (b"[" * 10**6, "no whole JSON file"),
        (b"<html>", "no whole JSON file"),
        (b'{"case_id": "case_00000"}', "a list of objects with a case_id"),
        (b'[{"case": "case_00000"}]', "a list of objects with a case_id"),
        (b"[3]", "a list of objects with a case_id"),
        (
            changed(tumor_isup_grade="5"),
            'case_00001: tumor_isup_grade is "5"; known are "1", "2", "3", "4", "na", null',
        ),
        (changed(tumor_isup_grade=3), "case_00001: tumor_isup_grade is 3;"),
        (changed(malignant=1), "case_00001: malignant is 1; known are false, true, null"),
        (changed(malignant="yes"), 'malignant is "yes"'),
        (changed(malignant=["a\nb"] * 1000), "malignant is ["),
        (changed(case_id="case_00000"), "case_00000 stands there twice"),
        (json.dumps([{"case_id": "case_7", "malignant": True}]).encode(), "case_7: tumor_isup_grade is missing"),
    ],
)
def test_another_layout_or_value_is_one_line(content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=r"^file\.json: ") as refused:
        parse_labels(content, "file.json")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json: cannot be read"):
        read_labels(tmp_path / "absent.json")


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.sampled_from(["1", "2", "3", "4", "na"]) | PLAIN | st.lists(PLAIN, max_size=3)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=6))
def test_a_label_is_what_the_rule_says_or_there_is_none_of_any_case(values: list[tuple[Any, Any]]) -> None:
    def of_grade(value: Any) -> int | None:
        return None if value in ("na", None) else int(int(value) >= 3)

    entries = [
        {"case_id": f"case_{number}", "tumor_isup_grade": grade, "malignant": malignant}
        for number, (grade, malignant) in enumerate(values)
    ]
    sound = all(
        (grade is None or (isinstance(grade, str) and grade in ("1", "2", "3", "4", "na")))
        and (malignant is None or isinstance(malignant, bool))
        for grade, malignant in values
    )
    content = json.dumps(entries).encode()
    if not sound:
        with pytest.raises(InputError):
            parse_labels(content, "file")
        return
    assert parse_labels(content, "file") == {
        "grade": {entry["case_id"]: of_grade(entry["tumor_isup_grade"]) for entry in entries},
        "malignant": {entry["case_id"]: entry["malignant"] for entry in entries},
    }
    assert set(TASKS) == {"grade", "malignant"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with asked(monkeypatch, {}, {"kits23.json": CONTENT}) as served:
        yield served
    assert not [request for request in served.forgotten + served.requests if "authorization" in request.headers]


def fetched(store: Path, hub: Hub, **changes: Any) -> Path:
    wanted = {
        "endpoint": hub.addresses["github"] + "/",
        "repository": LABELS,
        "revision": LABELS_COMMIT,
        "timeout": 5.0,
    }
    return fetch_labels(store, **wanted | changes)


@pytest.mark.parametrize(
    "fault", [None, Fault("status", status=503), Fault("cut", after=100), Fault("reset", after=100)], ids=str
)
def test_the_file_of_the_commit_comes_once_past_a_failure_and_is_kept(
    tmp_path: Path, hub: Hub, fault: Fault | None
) -> None:
    if fault:
        hub.faults["kits23.json"] = fault
    path = fetched(tmp_path / "store", hub)
    assert path.read_bytes() == CONTENT
    assert LABELS_COMMIT in path.name
    assert len(hub.requests) == 1 + (fault is not None)
    assert fetched(tmp_path / "store", hub) == path
    assert len(hub.requests) == 1 + (fault is not None)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("fault", "changes", "said"),
    [
        (Fault("status", status=404, times=None), {}, "404"),
        (Fault("status", status=503, times=None), {}, "503"),
        (Fault("cut", after=100, times=None), {}, "cannot be fetched"),
        (Fault("html", times=None), {}, "no whole JSON file"),
        (None, {"revision": "c" * 40}, "404"),
        (None, {"endpoint": "http://127.0.0.1:9"}, "cannot be fetched"),
    ],
    ids=str,
)
def test_what_cannot_be_fetched_is_one_line_and_leaves_nothing(
    tmp_path: Path, hub: Hub, fault: Fault | None, changes: dict[str, str], said: str
) -> None:
    if fault:
        hub.faults["kits23.json"] = fault
    with pytest.raises(InputError, match=said) as refused:
        fetched(tmp_path, hub, **changes)
    assert "dataset/kits23.json" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
