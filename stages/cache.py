"""DVC's cache, before a stage spends hours on what DVC could then not keep."""

import os
from pathlib import Path

from kidney_ssl.errors import InputError

CONFIGS = (Path(".dvc/config"), Path(".dvc/config.local"))  # the later one holds


def refuse_read_only() -> None:
    """Refuse a cache that may not be written; one that is read suffices where nothing runs.

    Raises:
        InputError: where it lies, and what to do.
    """
    for kept in ("files/md5", "runs"):
        place = folder() / kept
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK):
            raise InputError(
                f"{place}: DVC's cache may not be written, so what this stage makes could not be kept: mount it to be "
                "written, or take another by `dvc config --local cache.dir <folder>`"
            )


def folder() -> Path:
    """Where the project's configuration says that the cache is; a path in it is relative to its file, as in DVC."""
    from configobj import ConfigObj  # noqa: PLC0415 - DVC's own reader, and only a stage under DVC asks

    found = Path(".dvc/cache")
    for config in CONFIGS:
        given = ConfigObj(str(config), encoding="utf-8").get("cache", {}).get("dir", "")
        if given:
            found = config.parent / Path(given).expanduser()
    return found
