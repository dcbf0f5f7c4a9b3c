"""DVC's cache, before a stage spends hours on what DVC could then not keep."""

import os
from pathlib import Path

from kidney_ssl.errors import InputError

CONFIGS = (Path(".dvc/config"), Path(".dvc/config.local"))  # the later one holds
UNCACHED = ("evaluate", "report", "shortcut")  # what they write is in git, and none of it in the cache


def refuse_read_only(stage: str) -> None:
    """Refuse a cache that may not be written to a stage that needs it; one that is read suffices where nothing runs.

    A cache that is named in the configuration of the user or the machine alone is not looked at.

    Raises:
        InputError: where it lies, and what to do.
    """
    if stage in UNCACHED:
        return
    cache = folder()
    for kept in ("files/md5", "runs"):
        place = cache / kept
        while not os.path.exists(place):  # noqa: PTH110 - Path.exists raises where a folder may not be entered
            place = place.parent
        if not os.access(place, os.W_OK | os.X_OK):
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
            found = config.parent / os.path.expanduser(given)  # noqa: PTH111 - as DVC: ~nobody stays, Path would raise
    return Path(os.path.abspath(found))  # noqa: PTH100 - as DVC: `..` is taken off the name, no link is followed
