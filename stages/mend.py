"""Repair DVC files truncated by a kill: `python -m stages.mend`. `make repro` does this first.

DVC overwrites dvc.lock and its list of readers and writers in place; after each stage dvc.lock takes a good part of a
second. It also makes a folder before it moves an entry of its run cache into it. A kill meanwhile leaves a truncated
file or an empty folder, at which every later DVC command fails.
"""

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kidney_ssl.errors import InputError
from kidney_ssl.files import replacing, write_text
from kidney_ssl.yamlfile import read_yaml

LOCK = Path("dvc.lock")
OWN = Path(".dvc/tmp")
KEPT = Path("checkpoints/dvc.lock")  # copy made when the last stage began
STAGE = re.compile(r"^  [^\s-]", re.MULTILINE)  # first line of a stage


def main() -> None:
    """Repair truncated files, unless a running DVC holds them, and print what was done."""
    with _unless_in_use(OWN / "lock") as free:
        if free and LOCK.exists() and not _is_lock(text := LOCK.read_text(encoding="utf-8")):
            whole = mended(text, KEPT.read_text(encoding="utf-8") if KEPT.exists() else "")
            write_text(LOCK, whole)
            if not whole:
                LOCK.unlink()  # DVC makes a new file, but refuses an empty one
            print(f"dvc.lock was torn: {len(STAGE.findall(whole))} stages of it are saved")
        if free:
            _clear_run_cache()
    busy = OWN / "rwlock"
    with _unless_in_use(OWN / "rwlock.lock") as free:
        if free and busy.exists() and not _is_json(busy):
            busy.unlink()
            print(f"{busy} was torn: removed")


def keep() -> None:
    """Copy dvc.lock when a stage begins, unless DVC is writing it.

    DVC empties the file before it writes all stages again, so a kill at that moment would lose the whole study. With
    the copy it loses only the stages that ended since.
    """
    with _unless_in_use(OWN / "lock") as free:
        if free and LOCK.exists():
            with replacing(KEPT) as beside:
                shutil.copyfile(LOCK, beside)


def mended(text: str, kept: str = "") -> str:
    """Return the complete stages of a truncated dvc.lock, or the kept copy if that has more stages.

    DVC writes from beginning to end, so only the last stage can be incomplete. The copy may describe older results:
    DVC compares it with the files and runs what does not match.
    """
    text = text.rstrip(" ")
    starts = [found.start() for found in STAGE.finditer(text)]
    whole = next((part for end in (len(text), *starts[-1:]) if _is_lock(part := text[:end])), "")
    return max(whole, kept if _is_lock(kept) else "", key=lambda lock: len(STAGE.findall(lock)))


def _clear_run_cache() -> None:
    """Remove half-written entries, which DVC takes for the newest, and empty folders, at which it fails."""
    for folder in Path(".dvc/cache/runs").glob("*/*"):
        whole = [path for path in folder.iterdir() if not path.name.startswith(".")]
        for half in set(folder.iterdir()) - set(whole):
            half.unlink()
        if not whole:
            folder.rmdir()
            print("an entry of DVC's run cache was torn: removed")


def _is_lock(text: str) -> bool:
    """Whether DVC can read it: a truncated file may still be valid YAML."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: PLC0415 - takes a second
    from voluptuous import Invalid  # noqa: PLC0415 - comes with dvc.schema

    try:
        COMPILED_LOCKFILE_SCHEMA(read_yaml(text, str(LOCK)))
    except (InputError, Invalid):
        return False
    return text.endswith("\n")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


@contextmanager
def _unless_in_use(path: Path) -> Iterator[bool]:
    """Hold one of DVC's own locks (flock, as in zc.lockfile); yield False if a running DVC holds it."""
    if not path.exists():
        yield True
        return
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


if __name__ == "__main__":
    from stages.run import run

    run(main)
