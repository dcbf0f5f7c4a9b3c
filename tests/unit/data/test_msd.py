"""A made-up task of the Decathlon, laid out as its dataset.json has it: what is found in it, read of it and refused."""

import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from kidney_ssl.config import Case, Params
from kidney_ssl.data import manifest
from kidney_ssl.data.msd import find_msd_cases
from kidney_ssl.data.reader import Reader
from kidney_ssl.errors import InputError
from kidney_ssl.yamlfile import read_yaml
from stages.source import listing

ROOT = Path(__file__).parents[3]
LIVER = {1: "organ", 2: "tumor"}
# Labels of the Decathlon's CT tasks, and what a study says of them.
TASKS = {
    "liver": ({"0": "background", "1": "liver", "2": "cancer"}, LIVER),
    "pancreas": ({"0": "background", "1": "pancreas", "2": "cancer"}, LIVER),
    "hepaticvessel": ({"0": "background", "1": "Vessel", "2": "Tumour"}, LIVER),
    "colon": ({"0": "background", "1": "colon cancer primaries"}, {1: "tumor"}),
    "lung": ({"0": "background", "1": "cancer"}, {1: "tumor"}),
    "kidney": ({"0": "background", "1": "kidney", "2": "tumor", "3": "cyst"}, {**LIVER, 3: "cyst"}),
}


def described(name: str = "liver", numbers: tuple[str, ...] = ("0", "12"), **changes: Any) -> dict[str, Any]:
    """What stands in the dataset.json of a task."""
    content = {
        "name": "Liver",
        "description": "Liver and cancer segmentation",
        "reference": "IRCAD",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": TASKS[name][0],
        "numTraining": len(numbers),
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/{name}_{one}.nii.gz", "label": f"./labelsTr/{name}_{one}.nii.gz"} for one in numbers
        ],
        "test": ["./imagesTs/liver_9.nii.gz"],
    }
    return content | changes


def listed(root: Path, content: object) -> Path:
    (root / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def volumes(root: Path, name: str, number: str, values: tuple[int, ...]) -> np.ndarray:
    """Write a case with one cube of each label value; its labels (x, y, z)."""
    generator = np.random.default_rng(int(number))
    labels = np.zeros((24, 20, 6), np.uint8)
    for place, value in enumerate(values):
        labels[5 * place + 2 : 5 * place + 6, 4:12, 1:5] = value
    imaging = generator.normal(40, 20, labels.shape)
    imaging[:, :2] = -1000
    affine = np.diag([0.8, 0.8, 2.5, 1])
    for folder, array in {"imagesTr": imaging.astype(np.float32), "labelsTr": labels}.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), root / folder / f"{name}_{number}.nii.gz")
    return labels


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_read_in_place_with_its_own_label_values(name: str, tmp_path: Path) -> None:
    in_file, meanings = TASKS[name]
    values = tuple(int(value) for value in in_file if value != "0")
    labels = {one: volumes(tmp_path, name, one, values) for one in ("0", "12")}
    (tmp_path / "imagesTr/._liver_0.nii.gz").write_bytes(b"what macOS leaves")
    listed(tmp_path, described(name))
    rows = manifest.scan(tmp_path, None, [], workers=1, find=lambda root: find_msd_cases(root, meanings))
    assert [row.file for row in rows] == [
        f"{folder}/{name}_{one}.nii.gz" for one in ("0", "12") for folder in ("imagesTr", "labelsTr")
    ]
    manifest.write_manifest(tmp_path / "m.csv", rows)
    reader = Reader(tmp_path, manifest.by_case(tmp_path / "m.csv"), labels=meanings)
    parts = tmp_path / "parts"
    parts.mkdir()
    for one, array in labels.items():
        ours = {"organ": 1, "tumor": 2, "cyst": 3}
        expected = np.zeros_like(array)
        for value, meaning in meanings.items():
            expected[array == value] = ours[meaning]
        # RAS on disk; ours run from the top, anterior first, patient right first.
        expected = expected[::-1, ::-1, ::-1].transpose(2, 1, 0)
        assert np.array_equal(reader.volumes(f"{name}_{one}")[1], expected)
        areas, spacing = reader.areas(f"{name}_{one}", parts)
        assert spacing == pytest.approx((2.5, 0.8, 0.8))
        assert areas.tolist() == [np.bincount(plane.ravel(), minlength=4).tolist() for plane in expected]


def test_names_of_the_decathlon_are_cases_and_can_be_chosen(tmp_path: Path) -> None:
    assert TypeAdapter(Case).validate_python("hepaticvessel_001") == "hepaticvessel_001"
    names = list(find_msd_cases(listed(tmp_path, described(numbers=("0", "7", "12"))), LIVER))
    assert manifest.choose_cases(names, "5-12", []) == ["liver_12", "liver_7"]
    assert manifest.choose_cases(names, [7, "liver_0"], []) == ["liver_0", "liver_7"]
    assert manifest.choose_cases(names, None, ["liver_12"]) == ["liver_0", "liver_7"]
    with pytest.raises(InputError, match=r"data\.cases: no such case: case_00008"):
        manifest.choose_cases(names, [8], [])


def pair(image: str, label: str = "./labelsTr/liver_0.nii.gz") -> dict[str, Any]:
    return described(training=[{"image": image, "label": label}])


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({1: "tumor", 2: "none"}, "label 1 is 'liver', and the study says tumor; correct data.classes.labels"),
        ({1: "tumor", 2: "tumor"}, "label 1 is 'liver', and the study says tumor"),
        ({1: "organ", 2: "none"}, "label 2 is 'cancer', and the study says none"),
        ({1: "organ", 2: "cyst"}, "label 2 is 'cancer', and the study says cyst"),
    ],
)
def test_tumor_is_what_the_task_calls_so_and_nothing_else(said: dict[int, str], match: str, tmp_path: Path) -> None:
    listed(tmp_path, described("liver"))
    with pytest.raises(InputError, match=match):
        find_msd_cases(tmp_path, said)
    assert find_msd_cases(tmp_path, {1: "none", 2: "tumor"})


def test_where_no_name_tells_of_a_tumor_the_study_decides(tmp_path: Path) -> None:
    listed(tmp_path, described("liver", labels={"0": "fond", "1": "foie", "2": "masse"}))
    assert find_msd_cases(tmp_path, LIVER)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "not a task of the Decathlon"),
        ("[]", "not a task of the Decathlon"),
        ({}, r"not a task of the Decathlon \(modality: Field required\)"),
        (described(training=[]), r"training: List should have at least 1 item"),
        (described(training=["./imagesTr/liver_0.nii.gz"]), r"\(training\.0"),
        (described(labels={"liver": 1, "cancer": 2}), r"\(labels\.liver"),
        (described(modality={"0": "MRI"}), "modality is MRI; this project reads CT alone"),
        (described(modality={"0": "CT", "1": "PET"}), "modality is CT, PET"),
        (
            described(labels={"0": "background", "1": "spleen"}),
            r"its labels are 1 \(spleen\), and the study's 1, 2",
        ),
        (
            described(labels={"0": "background", "1": "cancer", "2": "liver"}),
            "label 1 is 'cancer', and the study says",
        ),
        (pair("../imagesTr/liver_0.nii.gz"), "'../imagesTr/liver_0.nii.gz' is no path of a volume"),
        (pair("./imagesTr/../../liver_0.nii.gz"), "is no path of a volume"),
        (pair("/imagesTr/liver_0.nii.gz"), "is no path of a volume"),
        (pair("./imagesTr/a/liver_0.nii.gz"), "is no path of a volume"),
        (pair("./imagesTr/..\\liver_0.nii.gz"), "is no path of a volume"),
        (pair("./imagesTr/liver_0.nii.gz\n"), "is no path of a volume"),
        (pair("./imagesTr/.nii.gz"), "is no path of a volume"),
        (pair("./imagesTr/Liver 0.nii.gz"), "expected imagesTr/<case>.nii.gz with a name such as liver_12"),
        (pair("./labelsTr/liver_0.nii.gz"), "is no path of a volume"),
        (pair("./imagesTr/liver_1.nii.gz"), "liver_1 has the labels of another case, liver_0"),
        (described(numbers=("0", "0")), "liver_0 is listed twice"),
    ],
)
def test_a_faulty_list_is_one_line(content: object, match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match) as caught:
        find_msd_cases(listed(tmp_path, content), LIVER)
    assert str(caught.value).startswith(str(tmp_path / "dataset.json"))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_list_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.json: cannot be read .*data\.root is the folder with it"):
        find_msd_cases(tmp_path, LIVER)


def test_volumes_that_are_listed_and_not_there_are_named_in_one_line(tmp_path: Path) -> None:
    volumes(tmp_path, "liver", "0", (1, 2))
    listed(tmp_path, described(numbers=("0", "1", "2")))
    with pytest.raises(InputError, match=r"2 bad case\(s\): liver_1: .*; liver_2: ") as caught:
        manifest.scan(tmp_path, None, [], workers=1, find=lambda root: find_msd_cases(root, LIVER))
    assert re.search(r"imagesTr/liver_1\.nii\.gz", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_changed_list_or_volume_is_seen_by_the_stage_source(tmp_path: Path) -> None:
    content = read_yaml((ROOT / "studies/smoke.yaml").read_text())
    content["data"] |= {"source": "msd", "root": str(tmp_path)}
    data = Params.model_validate(content).data
    volumes(tmp_path, "liver", "0", (1, 2))
    listed(tmp_path, described(numbers=("0",)))
    files = [line.split(",")[0] for line in listing(data).splitlines()[1:]]
    assert files == ["imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", "dataset.json"]
    content["data"]["root"] = None
    with pytest.raises(ValidationError, match="root must name a folder when source is 'msd'"):
        Params.model_validate(content)
