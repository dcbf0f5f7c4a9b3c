"""The manifest: the volumes that a study reads, with size and sha256; the store itself is outside DVC."""

import csv
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from kidney_ssl.data.case_names import is_case, is_case_folder, numbered_case
from kidney_ssl.data.cases import each_case
from kidney_ssl.data.msd import FOLDERS
from kidney_ssl.errors import InputError
from kidney_ssl.files import refuse_dangling, replacing, sha256

KINDS = ("imaging", "segmentation")
COLUMNS = ["case", "file", "bytes", "sha256"]
LABELLED = [*COLUMNS, "label"]  # of images, see `data.table`
ENDINGS = (".nii.gz", ".nii")
REPAIR = "run `dvc repro --force --single-item download`, then `dvc repro`"


@dataclass(frozen=True, order=True)
class Row:
    """One volume or image: its case, its path relative to the store, size in bytes and sha256, and an image's label."""

    case: str
    file: str
    bytes: int
    sha256: str
    label: int | None = None


def choose_cases(
    available: Sequence[str], wanted: Sequence[str | int] | str | None, exclude: Sequence[str]
) -> list[str]:
    """Apply `data.cases` and `data.exclude`.

    Args:
        available: names of all cases.
        wanted: None for all; "0-99", both ends included; or names and numbers (7 is case_00007, or liver_7).
        exclude: names to leave out.

    Returns:
        Names, sorted.

    Raises:
        InputError: an individually named case does not exist, or no case is left.
    """
    known = set(available)
    numbers = {case: int(digits[1]) for case in known if (digits := re.fullmatch(r"[a-z]+_(\d+)", case))}
    if isinstance(wanted, str):
        first, last = map(int, wanted.split("-"))
        chosen = {case for case, number in numbers.items() if first <= number <= last}
    elif wanted is None:
        chosen = known
    else:
        chosen = {_named(case, numbers) if isinstance(case, int) else case for case in wanted}
    for key, names in (("cases", chosen), ("exclude", set(exclude))):
        if unknown := sorted(names - known):
            raise InputError(f"data.{key}: no such case: {', '.join(unknown)}; correct the list")
    left = sorted(chosen - set(exclude))
    if not left:
        raise InputError("no case is left: widen data.cases or shorten data.exclude")
    return left


def _named(number: int, numbers: Mapping[str, int]) -> str:
    """The case with a number: named as in KiTS, or else the only case with this number."""
    usual = numbered_case(number)
    having = [case for case, one in numbers.items() if one == number]
    return having[0] if usual not in numbers and len(having) == 1 else usual


def find_cases(root: Path) -> dict[str, dict[str, Path]]:
    """Find the volumes of a folder in KiTS layout: <root>/case_*/{imaging,segmentation}.nii.gz (or .nii).

    Warns, in one line, of folders that look like cases but are left out because of their name or lack of volumes.

    Returns:
        case -> kind -> path; a path may be a dangling link, and a case that cannot be read has no paths.

    Raises:
        InputError: the folder does not exist, cannot be read or has no such volume, or a volume exists both as .nii
            and .nii.gz.
    """
    found: dict[str, dict[str, Path]] = {}
    left_out: dict[str, str] = {}
    for folder in _folders(root):
        name = folder.name
        try:
            there, readable = _volumes(folder), True
        except OSError:
            there, readable = {}, False
        if is_case_folder(name) and (there or not readable):
            found[name] = there  # `_scan_case` reports why a folder cannot be read
        elif is_case_folder(name):
            left_out[name] = "no imaging.nii.gz or segmentation.nii.gz in it"
        elif name.lower().startswith("case") or len(there) == len(KINDS):
            left_out[name] = "no name of a case, which is case_ and letters or digits"
    if left_out:
        listed = "; ".join(f"{name!r} ({why})" for name, why in left_out.items())
        warnings.warn(f"{root}: left out, though they look like cases: {listed}", stacklevel=2)
    if not found:
        raise InputError(f"{root}: holds no volumes; expected case_XXXXX/{{imaging,segmentation}}.nii.gz in it")
    return found


def _folders(root: Path) -> list[Path]:
    """The folders in a folder, and dangling links."""
    expected = "expected case_XXXXX/{imaging,segmentation}.nii.gz in it"
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() or (path.is_symlink() and not path.exists()))
    except FileNotFoundError as error:
        raise InputError(f"{root}: no such folder; {expected}") from error
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror}); {expected}") from error


def _volumes(folder: Path) -> dict[str, Path]:
    """Kind -> path of the volumes in a case's folder, including dangling links."""
    names = {path.name for path in folder.iterdir() if path.is_file() or path.is_symlink()}
    found: dict[str, Path] = {}
    for kind in KINDS:
        there = [kind + ending for ending in ENDINGS if kind + ending in names]
        if len(there) > 1 and is_case_folder(folder.name):
            raise InputError(f"{folder.name}: both {there[0]} and {there[1]}: keep one of them")
        if there:
            found[kind] = folder / there[0]
    return found


def scan(
    root: Path,
    wanted: Sequence[str | int] | str | None,
    exclude: Sequence[str],
    *,
    workers: int,
    find: Callable[[Path], dict[str, dict[str, Path]]] = find_cases,
) -> list[Row]:
    """Hash the volumes of a folder.

    Args:
        root: the folder.
        wanted: see `choose_cases`.
        exclude: see `choose_cases`.
        workers: number of cases hashed at a time.
        find: function that finds case -> kind -> path in the folder; by default for KiTS layout.

    Returns:
        One row per volume, sorted by case and file.

    Raises:
        InputError: there is no case, or cases have no labels; all of them in one line.
    """
    found = find(root)
    names = choose_cases(list(found), wanted, exclude)
    rows = each_case(partial(_scan_case, found=found, root=root), names, workers=workers, description="checksums")
    return [row for of_case in rows.values() for row in of_case]


def _scan_case(case: str, *, found: dict[str, dict[str, Path]], root: Path) -> list[Row]:
    if "segmentation" not in found[case] and set(found[case]) <= set(KINDS):  # images have no masks
        refuse_dangling(root / case)
        next((root / case).iterdir(), None)  # raises an OSError if the folder cannot be read
        raise InputError("segmentation.nii.gz is missing")
    rows = []
    for _, path in sorted(found[case].items()):
        refuse_dangling(path)
        rows.append(Row(case, path.relative_to(root).as_posix(), path.stat().st_size, sha256(path)))
    return rows


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Write data/manifest.csv: case, file, bytes, sha256, and label if any file has one; sorted."""
    columns = LABELLED if any(row.label is not None for row in rows) else COLUMNS
    lines = [columns, *(astuple(row)[: len(columns)] for row in sorted(rows))]
    with replacing(path) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(lines)


def by_case(path: Path) -> dict[str, dict[str, Row]]:
    """Read a manifest: case -> kind -> row; of labelled images case -> path -> row.

    Raises:
        InputError: it is missing or damaged, a path is outside the store, or a case has two files of one kind.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(stream))
        labelled = lines[:1] == [LABELLED]
        columns = LABELLED if labelled else COLUMNS
        lines.remove(columns)  # raises a ValueError if they are missing
        rows = [_row(dict(zip(columns, line, strict=True))) for line in lines]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro download`") from error
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        file = PurePosixPath(row.file)
        kind = row.file if labelled else _kind(file)
        if not is_case(row.case):
            raise InputError(f"{path}: {row.case!r} is no name of a case (case_00007, liver_12); {REPAIR}")
        if file.is_absolute() or ".." in file.parts or "\\" in row.file or not (labelled or kind in KINDS):
            raise InputError(f"{path}: {row.file!r} of {row.case} is no path of a volume inside the store; {REPAIR}")
        if kind in cases.setdefault(row.case, {}):
            raise InputError(f"{path}: {row.case} has more than one {kind}; {REPAIR}")
        cases[row.case][kind] = row
    return cases


def _row(line: dict[str, str]) -> Row:
    label = int(line["label"]) if "label" in line else None
    return Row(line["case"], line["file"], int(line["bytes"]), line["sha256"], label)


def _kind(file: PurePosixPath) -> str:
    """Imaging or segmentation: from the file's name, or from its folder in a Decathlon task."""
    of_folder = {folder: kind for kind, folder in FOLDERS.items()}
    return of_folder.get(file.parent.as_posix(), file.name.partition(".")[0])


def verified(store: Path, row: Row) -> Path:
    """Find a volume and check it against the manifest.

    Raises:
        InputError: it is missing, or its size or sha256 differs.
    """
    path = store / row.file
    refuse_dangling(path)
    if not path.is_file():
        raise InputError(f"{path} is missing; {REPAIR}")
    size = path.stat().st_size
    if size != row.bytes:
        raise InputError(f"{path} has {size} bytes instead of {row.bytes}; {REPAIR}")
    if sha256(path) != row.sha256:
        raise InputError(f"{path} has another sha256 than data/manifest.csv; {REPAIR}")
    return path


def describe(rows: Sequence[Row]) -> str:
    """Describe a manifest in words, and for how many cases the imaging is missing."""
    cases = {row.case for row in rows}
    if any(row.label is not None for row in rows):
        return f"{len(cases)} cases, {len(rows)} images, {sum(row.bytes for row in rows) / 1e6:.1f} MB"
    missing = len(cases - {row.case for row in rows if _kind(PurePosixPath(row.file)) == "imaging"})
    text = f"{len(cases)} cases, {len(rows)} volumes, {sum(row.bytes for row in rows) / 1e6:.1f} MB"
    return text + (f"; imaging is missing for {missing} of them: the slice stage will stop" if missing else "")
