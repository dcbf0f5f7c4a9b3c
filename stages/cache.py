"""DVC's cache, before a stage spends hours on what DVC could then not keep."""

import configparser
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
        folder = _folder() / kept
        while not folder.exists():
            folder = folder.parent
        if not os.access(folder, os.W_OK):
            raise InputError(
                f"{folder}: DVC's cache may not be written, so what this stage makes could not be kept: mount it to be "
                "written, or take another by `dvc config --local cache.dir <folder>`"
            )


def _folder() -> Path:
    """Where the project's configuration says that the cache is; a path in it is relative to its file, as in DVC."""
    found = Path(".dvc/cache")
    for config in CONFIGS:
        read = configparser.ConfigParser(interpolation=None, strict=False)
        read.read(config, encoding="utf-8")
        if given := read.get("cache", "dir", fallback=""):
            found = config.parent / given
    return found
