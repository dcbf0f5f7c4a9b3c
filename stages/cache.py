"""Check that DVC's cache is writable before a stage spends hours on results that DVC could not keep."""

import os
from pathlib import Path

from kidney_ssl.errors import InputError

CONFIGS = (Path(".dvc/config"), Path(".dvc/config.local"))  # the later one takes precedence
UNCACHED = ("code", "params", "shortcut", "source")  # they write nothing into the cache


def refuse_read_only(stage: str) -> None:
    """Refuse to run a stage that needs the cache if the cache is read-only.

    A read-only cache is enough where no stage runs. A cache set only in the user's or the machine's configuration is
    not checked.

    Raises:
        InputError: the cache is read-only.
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
                f"{place}: DVC's cache is read-only, so the results of this stage could not be kept: mount it "
                "writable, or choose another one with `dvc config --local cache.dir <folder>`"
            )


def folder() -> Path:
    """Folder of the cache by the project's configuration; paths are relative to the configuration file, as in DVC."""
    from configobj import ConfigObj  # noqa: PLC0415 - DVC's own reader, needed only under DVC

    found = Path(".dvc/cache")
    for config in CONFIGS:
        given = ConfigObj(str(config), encoding="utf-8").get("cache", {}).get("dir", "")
        if given:
            found = config.parent / os.path.expanduser(given)  # noqa: PTH111 - as in DVC: an unknown ~user stays; Path would raise
    return Path(os.path.abspath(found))  # noqa: PTH100 - as in DVC: resolves `..` without following links
