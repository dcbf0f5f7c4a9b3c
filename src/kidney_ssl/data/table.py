"""A table of labelled images without masks, read in place: X-rays, or single slices of CT and MR, as PNG or JPEG."""

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from kidney_ssl.data.arrays import Planes
from kidney_ssl.data.case_names import is_case
from kidney_ssl.data.checks import Findings, copy_findings, judge
from kidney_ssl.data.manifest import Row, scan, verified
from kidney_ssl.data.patients import COLUMNS
from kidney_ssl.data.reader import Reader
from kidney_ssl.data.selection import SPLIT
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.schema import MASK_VALUES, SPLITS

TABLE = "table.csv"
NEEDED, OPTIONAL = ("path", "case", "label"), ("patient", "split")
ENDINGS, FORMATS = (".png", ".jpg", ".jpeg"), ("PNG", "JPEG")
DEEP = ("I", "I;16", "I;16B")  # Pillow's modes of 16-bit grey PNG


@dataclass(frozen=True)
class Entry:
    """A row of the table: an image's path below the table's folder, and what is said of it; no split is ""."""

    path: str
    case: str
    label: int
    patient: str
    split: str


def read_table(root: Path) -> list[Entry]:
    """Read <root>/table.csv: path, case and label of each image, and its patient and split if there are such columns.

    Without patients, each case is a patient. Warns of columns that are not read.

    Raises:
        InputError: the table cannot be read or lacks a column; or a row has a path that is not of a PNG or JPEG below
            the folder, no name of a case, no label of 0 or 1, no patient or split; or an image is listed twice, a case
            has two patients, or a patient is in two splits. One line that names the row.
    """
    table = root / TABLE
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            header, *rows = [[field.strip() for field in row] for row in csv.reader(stream, strict=True)] or [[]]
    except OSError as error:
        raise InputError(f"{table}: cannot be read ({error.strerror}); data.root is the folder with it") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{table}: no table in UTF-8 with commas ({one_line(str(error))})") from error
    columns = [name.lower() for name in header]
    known = [name for name in columns if name in NEEDED + OPTIONAL]
    if len(set(known)) < len(known) or not set(NEEDED) <= set(known):
        raise InputError(f"{table}: its first row must name the columns {', '.join(NEEDED)}, each once")
    if unread := [name for name in columns if name not in known]:
        warnings.warn(f"{table}: columns that are not read: {one_line(', '.join(unread))}", stacklevel=2)
    entries: list[Entry] = []
    seen: set[str] = set()
    patients: dict[str, str] = {}
    splits: dict[str, str] = {}
    for line, row in enumerate(rows, 2):
        if not any(row):
            continue
        where = f"{table}, row {line}"
        if len(row) != len(columns):
            raise InputError(f"{where}: {len(row)} fields for {len(columns)} columns")
        entry = _entry(where, dict(zip(columns, row, strict=True)))
        if entry.path in seen:
            raise InputError(f"{where}: {entry.path} is listed twice; keep one row")
        if patients.setdefault(entry.case, entry.patient) != entry.patient:
            raise InputError(f"{where}: {entry.case} has two patients, {patients[entry.case]} and {entry.patient}")
        if splits.setdefault(entry.patient, entry.split) != entry.split:
            both = f"{splits[entry.patient]} and {entry.split}"
            raise InputError(f"{where}: patient {entry.patient} is in two splits, {both}; keep a patient in one")
        seen.add(entry.path)
        entries.append(entry)
    if not entries:
        raise InputError(f"{table}: lists no image")
    return entries


def _entry(where: str, row: dict[str, str]) -> Entry:
    """Check one row."""
    given = PurePosixPath(row["path"])
    path, case, label = given.as_posix(), row["case"], row["label"]
    if given.is_absolute() or ".." in given.parts or "\\" in path or not path.isprintable() or ":" in given.parts[:1]:
        raise InputError(f"{where}: {one_line(row['path'])!r} is no path inside the table's folder (a/b.png)")
    if not path.lower().endswith(ENDINGS):
        raise InputError(f"{where}: {path!r} is no image that can be read: give {', '.join(ENDINGS)}")
    if not is_case(case):
        raise InputError(
            f"{where}: {one_line(case)!r} is no name of a case: small letters, _, letters or digits (case_07)"
        )
    if label not in ("0", "1"):
        raise InputError(f"{where}: the label of {path} must be 0 or 1, got {one_line(label)!r}")
    patient, split = row.get("patient", case), row.get("split", "")
    if not patient or not patient.isprintable():
        raise InputError(f"{where}: {path} has no patient; name one, or take the column away")
    if "split" in row and split not in SPLITS:
        raise InputError(f"{where}: the split of {path} must be {', '.join(SPLITS)}, got {one_line(split)!r}")
    return Entry(path, case, int(label), patient, split)


def scan_table(
    root: Path, wanted: Sequence[str | int] | str | None, exclude: Sequence[str], *, workers: int
) -> tuple[list[Row], pd.DataFrame]:
    """Hash the images of a table; the arguments are those of `manifest.scan`.

    Returns:
        Rows of the manifest with labels, sorted by case and path, and the patient of each case, and its split if given.

    Raises:
        InputError: see `read_table`; or images are missing, all of them in one line.
    """
    entries = read_table(root)
    paths: dict[str, dict[str, Path]] = {}
    for entry in entries:
        paths.setdefault(entry.case, {})[entry.path] = root / entry.path
    rows = scan(root, wanted, exclude, workers=workers, find=lambda _: paths)
    label = {entry.path: entry.label for entry in entries}
    rows = [replace(row, label=label[row.file]) for row in rows]
    kept = {row.case for row in rows}
    whose = sorted({(one.case, one.patient, one.split) for one in entries if one.case in kept})
    patients = pd.DataFrame(whose, columns=[*COLUMNS, SPLIT])
    return rows, patients if entries[0].split else patients.drop(columns=SPLIT)


def read_image(path: Path) -> np.ndarray:
    """Read an image as grey values, (H, W) uint16: 0 to 255, or 0 to 65,535 of a 16-bit PNG.

    Colors become grey by Pillow's luma (ITU-R 601-2), which keeps what is grey already. A rotation noted by a camera is
    applied.

    Raises:
        InputError: it is damaged, no PNG or JPEG, holds several pictures, or is too large for Pillow's limit.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            several = getattr(picture, "n_frames", 1) > 1
            upright = ImageOps.exif_transpose(picture)
            grey = np.asarray(upright if upright.mode in DEEP else upright.convert("L")).astype(np.uint16)
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InputError(f"{path}: cannot be read as an image ({one_line(str(error))})") from error
    if several:
        raise InputError(f"{path}: holds several pictures; store each as a file")
    return grey


@dataclass(frozen=True)
class Images(Reader):
    """Reads the images of a table's cases: the slices of a case are its images, sorted by path, without masks."""

    @cached_property
    def copies(self) -> dict[str, Findings]:
        """Findings of `checks.copy_findings`, image by image."""
        case_of = {path: case for case, rows in self.files.items() for path in rows}
        checksums = {path: self.files[case][path].sha256 for path, case in case_of.items()}
        found = copy_findings(checksums, {path: self.patients.get(case, case) for path, case in case_of.items()})
        by_case: dict[str, Findings] = {}
        for path, findings in found.items():
            by_case[case_of[path]] = (*by_case.get(case_of[path], ()), *findings)
        return by_case

    def block(self, case: str) -> str:
        """See `Reader.block`."""
        return "other"

    def labels_of(self, case: str) -> list[int]:
        """Label of each image."""
        return [int(row.label or 0) for _, row in sorted(self.files[case].items())]

    def areas(self, case: str, parts: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
        """See `Reader.areas`: no pixel of any mask value, and a spacing of 1, which is unknown."""
        judge(self.copies.get(case, ()), self.accept, self.store)
        return np.zeros((len(self.files[case]), 1 + len(MASK_VALUES)), np.int64), (1.0, 1.0, 1.0)

    def volumes(self, case: str) -> tuple[Planes, Planes, tuple[float, float], Findings]:
        """See `Reader.volumes`: images (H, W) uint16, each of its own size, and masks of zeros."""
        images = [read_image(verified(self.store, row)) for _, row in sorted(self.files[case].items())]
        return images, [np.zeros(one.shape, np.uint8) for one in images], (1.0, 1.0), self.copies.get(case, ())

    def without(self, kind: str, cases: list[str]) -> list[str]:
        """See `Reader.without`: every case has its images."""
        return []
