"""The store of the phantom's volumes: made once, kept while parameters and generator stay the same."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kidney_ssl.data import manifest, phantom
from kidney_ssl.data.cases import each_case
from kidney_ssl.errors import InputError

RECIPE = "phantom.json"  # beside a phantom's volumes: what they were made from, and their sha256


def fill_phantom_store(store: Path, names: list[str], *, size: int, slices: float, seed: int, workers: int) -> None:
    """Make the phantom's cases that the store lacks.

    A case is kept when its recipe (parameters and the generator's source) and the sha256 of both volumes agree.

    Args:
        store: folder of the volumes.
        names: the cases to have, case_00000 onwards.
        size: see `phantom.make_case`.
        slices: see `phantom.make_case`.
        seed: see `phantom.make_case`.
        workers: cases at a time.

    Raises:
        InputError: a case folder holds volumes that this source did not make; they are left alone.
    """
    code = b"".join(path.read_bytes() for path in phantom.SOURCES)
    recipe = {
        "generator": hashlib.sha256(code).hexdigest(),
        "seed": seed,
        "size": size,
        "slices": slices,
    }
    make = partial(
        _phantom_case,
        store=store,
        recipe=recipe,
        write=partial(phantom.write_case, size=size, slices=slices, seed=seed),
    )
    each_case(make, names, workers=workers, description="phantom")


def _phantom_case(case: str, *, store: Path, recipe: dict[str, object], write: Callable[[Path, int], None]) -> None:
    folder = store / case
    volumes = [folder / "imaging.nii.gz", folder / "segmentation.nii.gz"]
    note = folder / RECIPE
    beside = folder / "phantom.tmp"  # the mark of a case in the making
    if note.exists():
        if _vouched(note, recipe, volumes):
            beside.unlink(missing_ok=True)
            return
    else:
        there = {folder / (kind + ending) for kind in manifest.KINDS for ending in manifest.ENDINGS}
        there = {volume for volume in there if volume.exists()}
        if there - set(volumes) or (there and not beside.exists()):
            raise InputError(f"{folder} holds volumes that are not the phantom's: set data.raw_dir to another folder")
    folder.mkdir(parents=True, exist_ok=True)
    beside.touch()
    # From here to the new note nothing vouches for the volumes.
    note.unlink(missing_ok=True)
    write(folder, int(case.removeprefix("case_")))
    beside.write_text(json.dumps({"recipe": recipe, "sha256": [manifest.sha256(v) for v in volumes]}, sort_keys=True))
    beside.replace(note)


def _vouched(note: Path, recipe: dict[str, object], volumes: list[Path]) -> bool:
    """Tell whether a note is whole and speaks of this recipe and of these very volumes."""
    try:
        kept = json.loads(note.read_text())
    except ValueError:
        return False
    return kept == {"recipe": recipe, "sha256": [manifest.sha256(v) if v.exists() else "" for v in volumes]}
