"""The store of the phantom's volumes: made once and kept while parameters and generator code do not change."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from kidney_ssl.code_version import code_version
from kidney_ssl.data.cases import each_case
from kidney_ssl.data.manifest import ENDINGS, KINDS
from kidney_ssl.data.phantom import write_case
from kidney_ssl.errors import InputError
from kidney_ssl.files import sha256

NOTE = "phantom.json"  # next to a phantom's volumes: their recipe and sha256
UNFINISHED = "phantom.tmp"  # marks an unfinished case


def fill_phantom_store(store: Path, names: list[str], **options: Any) -> None:
    """Make the phantom cases that are missing in the store.

    A case is kept if its recipe (parameters and generator code) and the sha256 of both volumes agree.

    Args:
        store: folder of the volumes.
        names: the required cases, case_00000 onwards.
        options: `workers`, number of cases at a time; the others are those of `phantom.plan_case`.

    Raises:
        InputError: a case folder has volumes that were not made here; they are not touched.
    """
    workers = options.pop("workers")
    recipe = {"generator": code_version("kidney_ssl.data.phantom"), **options}
    make = partial(_phantom_case, store=store, recipe=recipe, options=options)
    each_case(make, names, workers=workers, description="phantom")


def _phantom_case(case: str, *, store: Path, recipe: dict[str, Any], options: dict[str, Any]) -> None:
    folder = store / case
    note, unfinished = folder / NOTE, folder / UNFINISHED
    volumes = [folder / f"{kind}.nii.gz" for kind in KINDS]
    if note.exists():
        if _vouched(note, recipe, volumes):
            unfinished.unlink(missing_ok=True)
            return
    else:
        there = {path for kind in KINDS for ending in ENDINGS if (path := folder / (kind + ending)).exists()}
        if there - set(volumes) or (there and not unfinished.exists()):
            raise InputError(f"{folder} holds volumes that are not the phantom's: set data.raw_dir to another folder")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    # Until the new note is written, the volumes are unverified.
    note.unlink(missing_ok=True)
    for left in folder.glob(".*.nii.gz"):  # temporary files of a killed process, see kidney_ssl.files
        left.unlink()
    write_case(folder, int(case.removeprefix("case_")), **options)
    unfinished.write_text(json.dumps({"recipe": recipe, "sha256": [sha256(path) for path in volumes]}, sort_keys=True))
    unfinished.replace(note)


def _vouched(note: Path, recipe: dict[str, Any], volumes: list[Path]) -> bool:
    """Whether a note is valid and matches this recipe and these volumes."""
    try:
        kept = json.loads(note.read_text())
    except ValueError:
        return False
    return kept == {"recipe": recipe, "sha256": [sha256(path) if path.exists() else "" for path in volumes]}
