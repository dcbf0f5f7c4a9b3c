"""Put right what a dvc killed in the act of writing left torn: `python -m stages.mend`; `make repro` does it first.

DVC writes dvc.lock and its list of readers and writers in place, the first for a good part of a second after each
stage, and makes a folder before it moves an entry of its run cache in. A kill meanwhile leaves half of that, and every
later dvc call stops at it.
"""

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from stages import run

LOCK = Path("dvc.lock")
OWN = Path(".dvc/tmp")
KEPT = Path("checkpoints/dvc.lock")  # as it was when the last stage began
STAGE = re.compile(r"^  [^\s-]", re.MULTILINE)  # a line that begins one


def main() -> None:
    """Mend what is torn, unless a dvc is at work on them; say what was done."""
    with _unless_in_use(OWN / "lock") as free:
        if free and LOCK.exists() and not _is_lock(text := LOCK.read_text(encoding="utf-8")):
            whole = mended(text, KEPT.read_text(encoding="utf-8") if KEPT.exists() else "")
            beside = LOCK.with_suffix(".mended")
            beside.write_text(whole, encoding="utf-8")
            beside.replace(LOCK)
            if not whole:
                LOCK.unlink()  # DVC makes a new one, but refuses an empty one
            print(f"dvc.lock was torn: {len(STAGE.findall(whole))} stages of it are saved")
        if free:
            _clear_run_cache()
    busy = OWN / "rwlock"
    with _unless_in_use(OWN / "rwlock.lock") as free:
        if free and busy.exists() and not _is_json(busy):
            busy.unlink()
            print(f"{busy} was torn: removed")


def keep() -> None:
    """Copy dvc.lock, unless it is being written just now: a stage that begins calls this.

    DVC empties the file before it writes all stages anew: a kill there would cost the whole study. With the copy it
    costs the stages that ended just then.
    """
    with _unless_in_use(OWN / "lock") as free:
        if free and LOCK.exists():
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            beside = KEPT.with_suffix(".part.lock")
            shutil.copyfile(LOCK, beside)
            beside.replace(KEPT)


def mended(text: str, kept: str = "") -> str:
    """Choose the more stages: those of a torn dvc.lock that are whole, or those of the copy that was kept.

    DVC writes from the beginning to the end, so that only the last stage can be torn. A copy may be of older results:
    DVC compares what it says with the files, and runs what does not agree.
    """
    text = text.rstrip(" ")
    starts = [found.start() for found in STAGE.finditer(text)]
    whole = next((part for end in (len(text), *starts[-1:]) if _is_lock(part := text[:end])), "")
    return max(whole, kept if _is_lock(kept) else "", key=lambda lock: len(STAGE.findall(lock)))


def _clear_run_cache() -> None:
    """Remove entries half written, which DVC takes for the newest, and folders without any, at which it fails."""
    for folder in Path(".dvc/cache/runs").glob("*/*"):
        whole = [path for path in folder.iterdir() if not path.name.startswith(".")]
        for half in set(folder.iterdir()) - set(whole):
            half.unlink()
        if not whole:
            folder.rmdir()
            print("an entry of DVC's run cache was torn: removed")


def _is_lock(text: str) -> bool:
    """Whether DVC can read it: what is torn may still be YAML."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # noqa: PLC0415 - takes a second
    from voluptuous import Invalid  # noqa: PLC0415 - comes with dvc.schema

    try:
        content: Any = yaml.load(text, yaml.CSafeLoader)
        COMPILED_LOCKFILE_SCHEMA(content)
    except (yaml.YAMLError, Invalid):
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
    """Hold one of DVC's own locks (flock, as zc.lockfile takes it); False if a dvc holds it, which is then alive."""
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
    run(main)
