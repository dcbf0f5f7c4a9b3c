"""The manifest: which volumes a study reads, with size and sha256; the store itself is outside DVC."""

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from kidney_ssl.data.cases import each_case
from kidney_ssl.errors import InputError

KINDS = ("imaging", "segmentation")
COLUMNS = ["case", "file", "bytes", "sha256"]
ENDINGS = (".nii.gz", ".nii")
REPAIR = "run `dvc repro --force --single-item download`, then `dvc repro`"


@dataclass(frozen=True)
class Row:
    """One volume: its case, its path relative to the store, size in bytes and sha256."""

    case: str
    file: str
    bytes: int
    sha256: str


def sha256(path: Path) -> str:
    """Hash a file in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def choose_cases(
    available: Sequence[str], wanted: Sequence[str | int] | str | None, exclude: Sequence[str]
) -> list[str]:
    """Apply `data.cases` and `data.exclude`.

    Args:
        available: names of all cases.
        wanted: None for all; "0-99", both ends included; or names and numbers (7 is case_00007).
        exclude: names to leave out.

    Returns:
        Names, sorted.

    Raises:
        InputError: a case that is named one by one does not exist, or none is left.
    """
    known = set(available)
    if isinstance(wanted, str):
        first, last = map(int, wanted.split("-"))
        chosen = {case for case in known if (number := _number(case)) is not None and first <= number <= last}
    elif wanted is None:
        chosen = known
    else:
        chosen = {f"case_{case:05d}" if isinstance(case, int) else case for case in wanted}
    for key, names in (("cases", chosen), ("exclude", set(exclude))):
        if unknown := sorted(names - known):
            raise InputError(f"data.{key}: no such case: {', '.join(unknown)}; correct the list")
    left = sorted(chosen - set(exclude))
    if not left:
        raise InputError("no case is left: widen data.cases or shorten data.exclude")
    return left


def _number(case: str) -> int | None:
    digits = re.fullmatch(r"case_(\d+)", case)
    return int(digits[1]) if digits else None


def find_cases(root: Path) -> dict[str, dict[str, Path]]:
    """Find the volumes of a folder in KiTS layout: <root>/case_*/{imaging,segmentation}.nii.gz (or .nii).

    Returns:
        case -> kind -> path; cases without any volume are left out.

    Raises:
        InputError: the folder does not exist or holds no such volume, or a volume is there both as .nii and .nii.gz.
    """
    found: dict[str, dict[str, Path]] = {}
    for folder in sorted(root.glob("case_*")):
        for kind in KINDS:
            there = [folder / (kind + ending) for ending in ENDINGS if (folder / (kind + ending)).is_file()]
            if len(there) > 1:
                raise InputError(f"{folder.name}: both {there[0].name} and {there[1].name}: keep one of them")
            if there:
                found.setdefault(folder.name, {})[kind] = there[0]
    if not found:
        raise InputError(
            f"{root}: {'holds no volumes' if root.is_dir() else 'no such folder'}; "
            "expected case_XXXXX/{imaging,segmentation}.nii.gz in it"
        )
    return found


def scan(root: Path, wanted: Sequence[str | int] | str | None, exclude: Sequence[str], *, workers: int) -> list[Row]:
    """Hash the volumes of a folder in KiTS layout.

    Args:
        root: the folder.
        wanted: see `choose_cases`.
        exclude: see `choose_cases`.
        workers: cases hashed at a time.

    Returns:
        One row a volume, sorted by case and file.

    Raises:
        InputError: no case, or cases without labels; all of them in one line.
    """
    found = find_cases(root)
    names = choose_cases(list(found), wanted, exclude)
    rows = each_case(partial(_scan_case, found=found, root=root), names, workers=workers, description="checksums")
    return [row for of_case in rows.values() for row in of_case]


def _scan_case(case: str, *, found: dict[str, dict[str, Path]], root: Path) -> list[Row]:
    if "segmentation" not in found[case]:
        raise InputError("segmentation.nii.gz is missing")
    return [
        Row(case, path.relative_to(root).as_posix(), path.stat().st_size, sha256(path))
        for _, path in sorted(found[case].items())
    ]


def write_manifest(path: Path, rows: Sequence[Row]) -> None:
    """Write data/manifest.csv: case, file, bytes, sha256, sorted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            [row.case, row.file, row.bytes, row.sha256] for row in sorted(rows, key=lambda r: (r.case, r.file))
        )


def by_case(path: Path) -> dict[str, dict[str, Row]]:
    """Read a manifest: case -> kind -> row.

    Raises:
        InputError: it is missing or damaged, a path in it leaves the store, or a case has two files of one kind.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(stream))
        lines.remove(COLUMNS)  # a ValueError where they are not
        rows = [Row(case, file, int(size), digest) for case, file, size, digest in lines]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}); run `dvc repro download`") from error
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        file = PurePosixPath(row.file)
        kind = file.name.partition(".")[0]
        if file.is_absolute() or ".." in file.parts or "\\" in row.file or kind not in KINDS:
            raise InputError(f"{path}: {row.file!r} of {row.case} is no path of a volume inside the store; {REPAIR}")
        if kind in cases.setdefault(row.case, {}):
            raise InputError(f"{path}: {row.case} has more than one {kind}; {REPAIR}")
        cases[row.case][kind] = row
    return cases


def verified(store: Path, row: Row) -> Path:
    """Find a volume and check it against the manifest.

    Returns:
        Its path.

    Raises:
        InputError: it is missing, or its size or sha256 is another; the line says how to mend it.
    """
    path = store / row.file
    if not path.is_file():
        raise InputError(f"{path} is missing; {REPAIR}")
    size = path.stat().st_size
    if size != row.bytes:
        raise InputError(f"{path} has {size} bytes instead of {row.bytes}; {REPAIR}")
    if sha256(path) != row.sha256:
        raise InputError(f"{path} has another sha256 than data/manifest.csv; {REPAIR}")
    return path


def describe(rows: Sequence[Row]) -> str:
    """Say what a manifest holds, and for how many cases the imaging is missing."""
    cases = {row.case for row in rows}
    with_imaging = {row.case for row in rows if "imaging" in row.file}
    text = f"{len(cases)} cases, {len(rows)} volumes, {sum(row.bytes for row in rows) / 1e6:.1f} MB"
    missing = len(cases - with_imaging)
    return text + (f"; imaging is missing for {missing} of them: the slice stage will stop" if missing else "")
