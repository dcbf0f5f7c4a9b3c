"""Values that are no HU, scans under two names, and what is made of findings; real CT where it is."""

from pathlib import Path

import numpy as np
import pytest

from kidney_ssl.data.checks import CHECKS, copy_findings, hu_findings, judge, label_findings
from kidney_ssl.data.phantom import make_case
from kidney_ssl.data.volume import read_volume
from kidney_ssl.errors import InputError

SHARED = Path(__file__).parents[3].parent / "shared"
REAL = sorted((SHARED / "real_ct").glob("case_*/imaging.nii.gz"))[::6] + sorted((SHARED / "ct").glob("**/*g*.nii.gz"))
CT = [path for path in REAL if "segmentation" not in path.name]


def drawn() -> np.ndarray:
    return make_case(3, size=64, slices=0.5, seed=0)[0].astype(np.int16)


def checks(array: np.ndarray) -> set[str]:
    return {finding.partition(": ")[0] for finding in hu_findings(np.rint(array).astype(np.int16))}


def as_picture(array: np.ndarray) -> np.ndarray:
    return (np.clip(array, -160, 240) + 160) * 255 / 400


# What people store instead of HU -> the check that says so.
NO_HU = {
    "1024 added": (lambda hu: np.clip(hu, -1024, None) + 1024, {"air"}),
    "1000 added": (lambda hu: np.clip(hu, -1000, None) + 1000, {"air"}),
    "1024 taken away twice": (lambda hu: hu - 1024.0, {"soft_tissue"}),
    "a picture of 8 bits": (as_picture, {"air"}),
    "from 0 to 1": (lambda hu: as_picture(hu) / 255, {"air"}),
    "padded by 0": (lambda hu: np.where(hu > -300, hu, 0), {"air"}),
    "cut at a window": (lambda hu: np.clip(hu, -160, 240), {"air"}),
    "a tenth": (lambda hu: hu / 10, {"air"}),
    "nothing": (lambda hu: 0 * hu, {"air"}),
    "air alone": (lambda hu: np.full_like(hu, -1000), {"soft_tissue"}),
}


def test_drawn_volumes_are_hu() -> None:
    assert checks(drawn()) == set()


@pytest.mark.parametrize("name", NO_HU)
def test_values_that_are_no_hu_are_found(name: str) -> None:
    change, expected = NO_HU[name]
    assert checks(change(drawn())) >= expected


@pytest.mark.skipif(not CT, reason="../shared/real_ct and ../shared/ct are not beside this checkout")
@pytest.mark.parametrize("path", CT, ids=lambda path: path.parent.name + path.name[:3])
def test_real_ct_is_hu_until_it_is_stored_otherwise(path: Path) -> None:
    array = read_volume(path).array[::4]
    assert checks(array) == set()
    for change, expected in NO_HU.values():
        assert checks(change(array)) >= expected


def test_a_narrow_field_of_view_with_a_little_gas_is_hu() -> None:
    inside = np.full((9, 50, 50), 40, np.int16)
    inside[4, 20:28, 20:28] = -950
    assert checks(inside) == set()


def test_findings_refuse_unless_accepted_and_notes_never_do() -> None:
    findings = ("HU from -2000 to 40", "air: nothing of it", "grid: apart")
    with pytest.raises(InputError, match=r"nothing of it; .*; apart; .*data\.accept: \[air, grid\]"):
        judge(findings)
    with pytest.raises(InputError, match=r"^apart.*data\.accept: \[grid\]$"):
        judge(findings, ["air"])
    assert judge(findings, CHECKS) == ("HU from -2000 to 40", "nothing of it (accepted)", "apart (accepted)")
    assert judge(("same", "same")) == ("same",)


def test_a_scan_under_two_names_is_refused_with_both_unless_it_is_one_patients() -> None:
    checksums = {"case_1": "a", "case_2": "b", "case_3": "a"}
    own = {case: case for case in checksums}
    with pytest.raises(InputError, match="case_1 and case_3 have the same imaging"):
        judge(copy_findings(checksums, own)["case_1"])
    shared = copy_findings(checksums, own | {"case_3": "case_1"})
    assert judge(shared["case_1"]) == ("case_1 and case_3 have the same imaging (sha256)",)
    assert copy_findings({"case_1": "a", "case_2": "b"}, own) == {}


@pytest.mark.parametrize(("lost", "said"), [(0, ""), (5, "5 of 1000"), (21, "labels: 21 of 1000")])
def test_labels_outside_the_body_are_said(lost: int, said: str) -> None:
    assert "".join(label_findings(lost, 1000)).startswith(said)
