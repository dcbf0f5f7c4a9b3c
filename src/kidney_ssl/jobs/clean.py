"""Delete what runs leave beside their results: the run store, checkpoints and logs."""

import shutil
from collections import Counter
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.engine.claims import claimed
from kidney_ssl.errors import InputError

OWN = (Path("checkpoints"), Path("logs"))
STORED = ("runs", "unfinished", "claims", "failed")  # of the run store, whose folder may hold other files too


def clean() -> int:
    """Delete run store, checkpoints and logs.

    Volumes, DVC's cache, results and files in git stay: links to them are removed, never followed.

    Returns:
        Bytes freed. A file that DVC's cache or a result links to frees none.

    Raises:
        InputError: a process is still running there.
    """
    store = config.load().compute.store_folder
    for place in (store / "claims", *Path("checkpoints").glob("**/running"), *Path("checkpoints").glob("**/claims")):
        for owner in claimed(place).values():
            at = f"process {owner['process']} on {owner['host']}"
            raise InputError(f"{owner['label']} is still running in {at}: end it first")
    # The folders stay: they may be links to another disk.
    removed = [path for folder in (*OWN, *(store / name for name in STORED)) for path in sorted(folder.glob("*"))]
    freed = _freed(removed)
    for path in removed:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return freed


def _freed(removed: list[Path]) -> int:
    """Bytes of the files whose every hard link is removed."""
    below = {path for top in removed for path in (top, *(() if top.is_symlink() else top.rglob("*")))}
    status = [path.stat() for path in below if path.is_file() and not path.is_symlink()]
    links = Counter((one.st_dev, one.st_ino) for one in status)
    sizes = {(one.st_dev, one.st_ino): one.st_size for one in status if one.st_nlink == links[one.st_dev, one.st_ino]}
    return sum(sizes.values())
