"""The package: its dependencies are those that the code imports, and the wheel is enough to start a study."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kidney_ssl import new_study
from kidney_ssl.code_version import code_version
from kidney_ssl.methods import METHODS
from tests.project_copy import Project

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Extras whose packages the library imports where a user asks for them.
OPTIONAL = ("cluster", "dicom", "onnx", "parquet")
PINNED = {
    canonicalize_name(given.name): given
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line.strip() and not line.startswith(("#", "-"))
    for given in [Requirement(line)]
}


def declared(*extras: str) -> dict[str, Requirement]:
    listed = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(given.name): given for given in map(Requirement, listed)}


def imports() -> Iterator[tuple[Path, str]]:
    """Every top-level name that src/ and stages/ import, wherever in a file."""
    for file in [*ROOT.glob("src/**/*.py"), *ROOT.glob("stages/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield file, node.module


def brought(given: Requirement) -> set[str]:
    """What a distribution itself requires here, with the extras that are asked for."""
    return {
        canonicalize_name(one.name)
        for one in map(Requirement, metadata.requires(given.name) or [])
        if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in ("", *given.extras))
    }


def test_every_import_is_a_dependency_or_comes_with_one() -> None:
    dependencies = declared(*OPTIONAL)
    covered = set(dependencies).union(*map(brought, dependencies.values()))
    owners = metadata.packages_distributions()
    foreign = {
        (name.partition(".")[0], file.relative_to(ROOT).as_posix())
        for file, name in imports()
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "kidney_ssl", "stages"}
    }
    assert len({name for name, _ in foreign}) > 20
    lacking = [
        f"{name} in {file}"
        for name, file in sorted(foreign)
        if not covered & {canonicalize_name(owner) for owner in owners.get(name, [name])}
    ]
    assert lacking == []


def test_every_dependency_is_imported_by_the_code() -> None:
    owners = metadata.packages_distributions()
    names = {name.partition(".")[0] for _, name in imports()}
    used = {canonicalize_name(owner) for name in names for owner in owners.get(name, [])}
    assert set(declared()) - used == set()


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_every_bound_admits_the_pinned_version(extra: str | None) -> None:
    for name, given in declared(*([extra] if extra else [])).items():
        assert name in PINNED, f"{name} is not pinned in requirements.txt"
        (pin,) = PINNED[name].specifier
        assert given.specifier.contains(pin.version), f"{given} refuses {PINNED[name]}"
        assert {one.operator for one in given.specifier} == {">="}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from what git lists, in a folder of its own."""
    base = tmp_path_factory.mktemp("package")
    Project.copy_to(base / "tree")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    pip += ["--no-compile", "--disable-pip-version-check", "--target", str(base / "site")]
    done = subprocess.run([*pip, str(base / "tree")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(base / "tree")  # nothing is read from there
    return base / "site"


def call(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that sees the installed package alone; the other packages come from the tests' interpreter."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))}
    path = os.pathsep.join([str(installed / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment |= {"PATH": path, "PYTHONPATH": str(installed), "DVC_NO_ANALYTICS": "1"}
    environment |= {"DVC_SITE_CACHE_DIR": str(folder / "site-cache"), "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def study(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("new")
    done = call(installed, base, "kidney-ssl", "init", "mine", "--study", "smoke")
    assert done.returncode == 0, done.stderr
    return base / "mine"


def test_the_wheel_holds_every_file_of_the_package_and_says_that_it_is_typed(installed: Path) -> None:
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "src"], cwd=ROOT, text=True)
    names = [name.removeprefix("src/") for name in listed.split() if (ROOT / name).exists()]
    assert "kidney_ssl/py.typed" in names
    assert [name for name in names if not (installed / name).is_file()] == []


def test_the_wheel_gets_every_file_that_init_writes(installed: Path) -> None:
    shipped = installed / "kidney_ssl/study"
    expected = {name: path.read_bytes() for name, path in new_study.study_files(ROOT)}
    found = {path.relative_to(shipped): path.read_bytes() for path in shipped.rglob("*") if path.is_file()}
    assert {Path(name) for name in new_study.FILES} <= set(expected)
    assert all(any(name.is_relative_to(top) for name in expected) for top in new_study.FOLDERS)
    assert set(found) == set(expected)
    own = {Path("params.yaml")}  # of the copy that was built: the smoke study
    assert [name for name in set(expected) - own if found[name] != expected[name]] == []


def test_the_installed_command_lists_the_methods(installed: Path, tmp_path: Path) -> None:
    done = call(installed, tmp_path, "kidney-ssl", "methods")
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"^  (\w+) ", done.stdout, re.MULTILINE)) >= set(METHODS)


def test_a_new_study_runs_its_first_stages_without_a_clone(installed: Path, study: Path) -> None:
    assert (study / "params.yaml").read_bytes() == (ROOT / "studies/smoke.yaml").read_bytes()
    done = call(installed, study, "dvc", "repro", "--quiet", "params")
    assert done.returncode == 0, done.stderr
    # Its code has the versions of this clone's, so that results are kept under the same keys.
    clone = {"kidney_ssl": ROOT / "src/kidney_ssl", "stages": ROOT / "stages"}
    for name in ("params", "download"):
        written = json.loads((study / f"code/{name}.json").read_bytes())
        assert written == code_version(f"stages.{name}", packages=clone)
    assert (study / "metrics/plan.json").exists()
    assert "analytics = false" in (study / ".dvc/config").read_text()


def test_a_folder_that_is_not_empty_is_refused_in_one_line(installed: Path, study: Path) -> None:
    before = sorted(study.rglob("*"))
    done = call(installed, study, "kidney-ssl", "init")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "is not empty" in done.stderr
    assert sorted(study.rglob("*")) == before
