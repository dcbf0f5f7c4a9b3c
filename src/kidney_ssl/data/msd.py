"""A task of the Medical Segmentation Decathlon, read in place: volumes as its dataset.json lists them."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from kidney_ssl.data.case_names import is_case
from kidney_ssl.errors import InputError, one_line

LIST = "dataset.json"
FOLDERS = {"imaging": "imagesTr", "segmentation": "labelsTr"}
TUMOR = re.compile(r"tumou?r|cancer|lesion", re.IGNORECASE)  # matches the name of a label
ADVICE = "correct data.classes.labels"


class Pair(BaseModel):
    """A volume and its labels, as paths inside the task's folder."""

    image: str
    label: str


class Task(BaseModel):
    """The keys of a dataset.json that are read."""

    modality: dict[str, str]
    labels: dict[int, str]
    training: list[Pair] = Field(min_length=1)


def find_msd_cases(root: Path, labels: Mapping[int, str]) -> dict[str, dict[str, Path]]:
    """Find the volumes of a task: imagesTr/<case>.nii.gz and labelsTr/<case>.nii.gz, as its dataset.json lists them.

    Args:
        root: folder of the task.
        labels: meaning of the label values in the study, `data.classes.labels`.

    Returns:
        case -> kind -> path; `manifest.scan` checks whether the files exist.

    Raises:
        InputError: dataset.json is missing or invalid, the task is not CT, its labels differ from the study's, or an
            entry is not a path of a case in imagesTr and labelsTr; one line.
    """
    path = root / LIST
    try:
        task = Task.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); data.root is the folder with it") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = one_line(f"{key}: {first['msg']}")
        raise InputError(f"{path}: not a task of the Decathlon ({said})") from None
    if list(task.modality.values()) != ["CT"]:
        raise InputError(f"{path}: modality is {', '.join(task.modality.values())}; this project reads CT alone")
    _check_labels(path, task.labels, labels)
    found: dict[str, dict[str, Path]] = {}
    for pair in task.training:
        entries = {"imaging": pair.image, "segmentation": pair.label}
        names = {kind: _case(path, entry, FOLDERS[kind]) for kind, entry in entries.items()}
        name = names["imaging"]
        if names["segmentation"] != name:
            raise InputError(f"{path}: {name} has the labels of another case, {names['segmentation']}")
        if name in found:
            raise InputError(f"{path}: {name} is listed twice")
        found[name] = {kind: root / entry.removeprefix("./") for kind, entry in entries.items()}
    return found


def _check_labels(path: Path, listed: Mapping[int, str], given: Mapping[int, str]) -> None:
    """Compare the study's meaning of label values with the task's names of them."""
    named = {value: one_line(name) for value, name in listed.items() if value != 0}
    if set(named) != set(given):
        told = ", ".join(f"{value} ({name})" for value, name in sorted(named.items()))
        here = ", ".join(map(str, sorted(given)))
        raise InputError(f"{path}: its labels are {told or 'none'}, and the study's {here}; {ADVICE}")
    tumors = {value for value, name in named.items() if TUMOR.search(name)}
    for value, name in named.items():
        # Names that tell no tumor apart (as of a task in another language) are left to the study.
        if tumors and (value in tumors) != (given[value] == "tumor"):
            raise InputError(f"{path}: label {value} is {name!r}, and the study says {given[value]}; {ADVICE}")


def _case(path: Path, entry: str, folder: str) -> str:
    """The case of an entry of the list."""
    inside = re.fullmatch(rf"(?:\./)?{folder}/([^/\\]+?)\.nii(?:\.gz)?", entry)
    if not inside or not is_case(inside[1]):
        expected = f"{folder}/<case>.nii.gz with a name such as liver_12"
        raise InputError(f"{path}: {one_line(entry)!r} is no path of a volume; expected {expected}")
    return inside[1]
