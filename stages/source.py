"""List names, sizes and times of files that are read in place, so that `download` runs again when they change."""

from pathlib import Path

from kidney_ssl import config
from kidney_ssl.config import Data
from kidney_ssl.data.manifest import ENDINGS
from kidney_ssl.data.msd import FOLDERS, LIST
from kidney_ssl.data.table import TABLE, read_table
from kidney_ssl.files import write_text

LISTING = Path("metrics/source.csv")


def listing(data: Data) -> str:
    """Names, sizes and times of the files that are read in place and of the table of patients; else only the header."""
    files = [data.patients_given] if isinstance(data.patients_given, Path) else []
    patterns = {"directory": ["case_*/*"], "msd": [f"{folder}/*" for folder in FOLDERS.values()]}.get(data.source, [])
    files += sorted(path for one in patterns for ending in ENDINGS for path in data.store.glob(one + ending))
    if data.source == "msd":
        files.append(data.store / LIST)
    if data.source == "table":
        files += [data.store / TABLE, *(data.store / entry.path for entry in read_table(data.store))]
    # `download` reports missing files.
    named = {path: path.relative_to(data.store) if path.is_relative_to(data.store) else path.name for path in files}
    seen = [(name, path.stat()) for path, name in named.items() if path.is_file()]
    rows = [f"{name},{one.st_size},{one.st_mtime_ns}\n" for name, one in seen]
    return "".join(["file,bytes,mtime_ns\n", *rows])


def main() -> None:
    """Write metrics/source.csv."""
    text = listing(config.load().data)
    write_text(LISTING, text)
    print(f"{text.count(chr(10)) - 1} files to watch")


if __name__ == "__main__":
    from stages.run import run

    run(main)
