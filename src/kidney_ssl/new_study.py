"""A new study: its folder holds parameters, pipeline and the code itself, so that it needs no clone.

DVC runs a stage again when the study's code changes, and a study that carries its code is the same in a year, whichever
version is installed by then.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kidney_ssl.errors import InputError

PACKAGE = Path(__file__).parent
# In a wheel the files lie inside the package (see setup.py), in a clone or a study above src/.
INSTALLED, CLONE = PACKAGE / "study", PACKAGE.parents[1]
FILES = (".dvc/.gitignore", ".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml")
FOLDERS = (".dvc/plots", "stages", "studies")


def template() -> Path:
    """Folder of the files that a study begins with.

    Raises:
        InputError: the package was installed without them.
    """
    for folder in (INSTALLED, CLONE):
        if all((folder / name).exists() for name in (*FILES, *FOLDERS)):
            return folder
    raise InputError(f"{PACKAGE}: installed without the files of a study: install the wheel, or use a clone")


def studies() -> list[str]:
    """Names of the complete parameter files that a study can begin with, besides the default phantom study."""
    return sorted(path.stem for path in (template() / "studies").glob("*.yaml"))


def write_study(folder: Path, study: str | None = None) -> None:
    """Write the files of a new study and put the folder under git, unless it is in a repository already.

    Args:
        folder: absent or empty.
        study: one of `studies()`; by default the params.yaml of this version.

    Raises:
        InputError: the folder is not empty or not writable, there is no such study, or there is no git.
    """
    source = template()
    if study is not None and study not in studies():
        raise InputError(f"no study '{study}', known: {', '.join(studies())}")
    if not shutil.which("git"):
        raise InputError("git is not installed, and DVC keeps a study's results with it: install git")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if found := next(folder.iterdir(), None):
            raise InputError(f"{folder}: is not empty (it holds {found.name}): give a new or an empty folder")
        for name, path in _listed(source):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if study is not None:
            shutil.copyfile(source / "studies" / f"{study}.yaml", folder / "params.yaml")
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error
    inside = ["git", "-C", str(folder), "rev-parse", "--is-inside-work-tree"]
    if subprocess.run(inside, capture_output=True, check=False).returncode:
        subprocess.run(["git", "-C", str(folder), "init", "--quiet"], check=True)


def study_files(source: Path) -> Iterator[tuple[Path, Path]]:
    """Name in a study, and path, of every file but the package's own: for `setup.py` too, which ships them."""
    yield from ((Path(name), source / name) for name in FILES)
    for top in FOLDERS:
        yield from ((path.relative_to(source), path) for path in _below(source / top))


def _listed(source: Path) -> Iterator[tuple[Path, Path]]:
    """Name in a study, and path, of every file."""
    yield from study_files(source)
    for path in _below(PACKAGE):
        if not path.is_relative_to(INSTALLED):
            yield Path("src", PACKAGE.name, path.relative_to(PACKAGE)), path


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
