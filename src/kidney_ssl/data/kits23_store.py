"""One case of KiTS23 in the store: both files verified, or fetched again.

<store>/case_XXXXX/ contains imaging.nii.gz, segmentation.nii.gz, a note of verified files, the lock of the process that
works on the case, and, during a download, the partial file.
"""

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from isal import igzip

from kidney_ssl.data.fetch import OutageError, size_of
from kidney_ssl.data.manifest import Row
from kidney_ssl.data.phantom_store import NOTE as PHANTOMS_NOTE
from kidney_ssl.data.phantom_store import UNFINISHED
from kidney_ssl.data.registry import Known
from kidney_ssl.data.volume import check_pair
from kidney_ssl.errors import InputError
from kidney_ssl.files import sha256
from kidney_ssl.jsonfile import write_json

NOTE = "verified.json"  # file -> size, sha256 and source, written after its gzip was read to the end
INFLATED_CHUNK = 1 << 20


@dataclass(frozen=True)
class Published:
    """A published volume.

    Attributes:
        name: file name in the case's folder.
        url: URL of the file.
        source: repository@commit; notes of another source are ignored.
        known: size and sha256; None if the repository lacks the file.
        on_hub: whether it is on the Hugging Face hub, else on a plain server.
    """

    name: str
    url: str
    source: str
    known: Known | None
    on_hub: bool


Fetch = Callable[[Published, Path], object]
Advance = Callable[[int], object]


def complete_case(
    folder: Path, files: list[Published], *, fetch: Fetch, advance: Advance, cancelled: Callable[[], bool]
) -> list[Row]:
    """Complete a case's files: size and sha256 as published, gzip readable to the end, both on one grid.

    Args:
        folder: the case's folder.
        files: imaging and segmentation.
        fetch: downloads a file's published bytes to a path, resuming after the bytes already there.
        advance: called with the number of bytes of files that are complete already.
        cancelled: polled while another run works on the case.

    Returns:
        One row per file.

    Raises:
        InputError: a file cannot be fetched, read or written, or is not a volume.
    """
    known = {file.name: file.known for file in files if file.known is not None}
    try:
        # First without the lock, since a complete store may be read-only.
        if all(
            file.known is not None
            and noted(folder, file.name, file.source) == file.known
            and _agrees(folder / file.name, file.known)
            for file in files
        ):
            advance(sum(one.bytes for one in known.values()))
        else:
            folder.mkdir(exist_ok=True)
            with FileLock(folder / ".lock").acquire(cancel_check=cancelled):
                _complete(folder, files, fetch, advance)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise OutageError("no space left on the disk; make room, or set data.raw_dir to another one") from error
        raise InputError(f"{folder}: cannot be read or written ({error.strerror or error})") from error
    check_pair(*(folder / name for name in known))
    return [Row(folder.name, f"{folder.name}/{name}", one.bytes, one.sha256) for name, one in known.items()]


def missing_bytes(folder: Path, file: Published) -> int:
    """Number of bytes of a file still to be fetched, judged only by sizes."""
    if file.known is None or size_of(folder / file.name) == file.known.bytes:
        return 0
    return file.known.bytes - size_of(_part(folder, file))


def noted(folder: Path, name: str, source: str) -> Known | None:
    """Read a file's noted size and sha256; the note is valid only while the file still has this sha256."""
    try:
        entry = _notes(folder)[name]
        return Known(entry["bytes"], entry["sha256"]) if entry["source"] == source else None
    except (LookupError, TypeError):
        return None


def _complete(folder: Path, files: list[Published], fetch: Fetch, advance: Advance) -> None:
    """Complete the files while holding the lock."""
    if any((folder / mark).exists() for mark in (PHANTOMS_NOTE, UNFINISHED)):
        raise InputError(f"{folder} holds the phantom's volumes: set data.raw_dir to another folder")
    for left in set(folder.glob(".*.part")) - {_part(folder, file) for file in files}:
        left.unlink()
    problems: list[InputError] = []
    for file in files:
        try:
            _bring(folder, file, fetch, advance)
        except InputError as error:
            problems.append(error)
    if problems:
        outage = any(isinstance(problem, OutageError) for problem in problems)
        raise (OutageError if outage else InputError)(", and ".join(map(str, problems)))


def _bring(folder: Path, file: Published, fetch: Fetch, advance: Advance) -> None:
    """Complete one file and note it."""
    known = file.known
    if known is None:
        raise InputError(f"not in {file.source}: {file.url}")
    path, part = folder / file.name, _part(folder, file)
    there = _agrees(path, known)
    if there:
        advance(known.bytes)
        part.unlink(missing_ok=True)
        if noted(folder, file.name, file.source) == known:
            return
    else:
        fetch(file, part)
    try:
        with igzip.open(path if there else part, "rb") as stream:  # reading to the end verifies the gzip's checksum
            while stream.read(INFLATED_CHUNK):
                pass
    except (EOFError, igzip.BadGzipFile, igzip.isal_zlib.IsalError) as error:
        raise InputError(f"no whole gzip file, though as published (sha256): {file.url}") from error
    if not there:
        part.replace(path)
    note = {"bytes": known.bytes, "sha256": known.sha256, "source": file.source}
    write_json(folder / NOTE, _notes(folder) | {file.name: note})


def _part(folder: Path, file: Published) -> Path:
    """Path of the partial file; its name depends on the expected content, so another revision is never resumed."""
    return folder / f".{file.name}.{file.known.sha256[:16] if file.known else 'unknown'}.part"


def _agrees(path: Path, known: Known) -> bool:
    return path.is_file() and path.stat().st_size == known.bytes and sha256(path) == known.sha256


def _notes(folder: Path) -> dict[str, dict]:
    try:
        return dict(json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
