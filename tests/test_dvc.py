"""dvc.yaml against the code: DVC does not follow imports, so each stage must list what it imports."""

from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Not listed as dependencies. They decide which input is accepted and how a run is started, never a result: an edit
# of them must not retrain anything. The values of params.yaml are locked key by key.
FREE = {"kidney_ssl", "kidney_ssl.errors", "kidney_ssl.params", "stages"}


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("kidney_ssl", "stages", cache_dir=None, exclude_type_checking_imports=True)


def body(name: str) -> dict[str, Any]:
    return STAGES[name].get("do", STAGES[name])


def source(module: str) -> str:
    base = (
        ROOT / "src" / module.replace(".", "/") if module.startswith("kidney_ssl") else ROOT / module.replace(".", "/")
    )
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports(name: str) -> None:
    deps = set(body(name)["deps"])
    needed = imports().find_upstream_modules(f"stages.{name}") - FREE
    # A package's __init__ holds a docstring; test_package_files_hold_no_code sees to that.
    files = {source(module) for module in needed if not source(module).endswith("__init__.py")} | {f"stages/{name}.py"}
    missing = {file for file in files if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)}
    assert not missing


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_no_file_that_it_does_not_use(name: str) -> None:
    needed = {source(module) for module in imports().find_upstream_modules(f"stages.{name}")}
    for dep in body(name)["deps"]:
        if dep.startswith("src/") and dep.endswith(".py") and "$" not in dep:
            assert dep in needed


def test_package_files_hold_no_code() -> None:
    for path in sorted((ROOT / "src").rglob("__init__.py")):
        if path.parent.name != "pretext":
            assert path.read_text().count('"""') == 2
            assert path.read_text().strip().endswith('"""')


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_described_and_has_its_file(name: str) -> None:
    assert body(name)["desc"]
    assert (ROOT / "stages" / f"{name}.py").exists()
    assert f"-m stages.{name}" in body(name)["cmd"]


def test_how_the_machine_is_used_is_no_dependency_but_for_what_changes_bits() -> None:
    locked = {key for name in STAGES for key in body(name).get("params", []) if key.startswith("compute")}
    assert locked == {"compute.threads", "compute.precision"}
