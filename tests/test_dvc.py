"""dvc.yaml against the code: DVC does not follow imports, so each stage must list what it imports."""

from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from kidney_ssl.pretext import METHODS

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


def modules(name: str) -> dict[str, set[str]]:
    """What a stage imports: of `pretrain` for each method, whose module is imported by name."""
    found = imports().find_upstream_modules(f"stages.{name}")
    if name != "pretrain":
        return {"": found}
    return {
        method: found | imports().find_upstream_modules(module) | {module}
        for method in METHODS
        for module in [f"kidney_ssl.pretext.{method}"]
    }


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_every_module_that_it_imports(name: str) -> None:
    for method, found in modules(name).items():
        deps = {dep.replace("${item.method}", method) for dep in body(name)["deps"]}
        # A package's __init__ holds a docstring; test_package_files_hold_no_code sees to that.
        files = {source(module) for module in found - FREE if not source(module).endswith("__init__.py")}
        missing = {
            file
            for file in files | {f"stages/{name}.py"}
            if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)
        }
        assert not missing


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_no_file_that_it_does_not_use(name: str) -> None:
    needed = {source(module) for found in modules(name).values() for module in found}
    for dep in body(name)["deps"]:
        if dep.startswith("src/") and dep.endswith(".py") and "$" not in dep:
            assert dep in needed


def test_no_method_imports_another_and_the_registry_is_no_dependency() -> None:
    # The registry lists the files of its folder and imports one by name. As a dependency it would retrain every
    # method when it changes, though no method's result follows from it.
    for method in METHODS:
        upstream = imports().find_upstream_modules(f"kidney_ssl.pretext.{method}")
        assert not upstream & {f"kidney_ssl.pretext.{other}" for other in METHODS if other != method}
    assert not {"src/kidney_ssl/pretext/__init__.py", "src/kidney_ssl/params.py", "src/kidney_ssl/pretext"} & {
        dep for name in STAGES for dep in body(name)["deps"]
    }


@cache
def graph() -> dict[str, Any]:
    """The stages of the default study as DVC resolves them, by address."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return {
            stage.addressing: {
                "deps": {Path(dep.fs_path).relative_to(ROOT) for dep in stage.deps if hasattr(dep, "fs_path")},
                "outs": {Path(out.fs_path).relative_to(ROOT) for out in stage.outs},
                "params": {key for dep in stage.deps for key in getattr(dep, "params", None) or ()},
            }
            for stage in repo.index.stages
        }


def touched(*changed: str) -> set[str]:
    """Stages that may run after these stages ran: they, and all that read what they write."""
    found, fresh = set(changed), set(changed)
    while fresh:
        written = {out for name in fresh for out in graph()[name]["outs"]}
        fresh = {
            name
            for name, stage in graph().items()
            if name not in found
            and any(a.is_relative_to(b) or b.is_relative_to(a) for a in stage["deps"] for b in written)
        }
        found |= fresh
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_change_of_one_method_runs_it_its_arms_and_the_report_alone(method: str) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    names = [name for name, block in params["pretrain"]["methods"].items() if block["method"] == method]
    assert names, f"no pretraining of {method} in the default study"
    arms = [arm for arm, block in params["arms"].items() if block["weights"] in {f"pretrain/{n}" for n in names}]
    assert arms, f"no arm of {method} in the default study"
    by_file = [name for name, stage in graph().items() if Path(f"src/kidney_ssl/pretext/{method}.py") in stage["deps"]]
    assert by_file == [f"pretrain@{name}" for name in names]
    for name in names:
        by_block = [address for address, stage in graph().items() if f"pretrain.methods.{name}" in stage["params"]]
        assert by_block == [f"pretrain@{name}"]
    runs = {f"{arm}-{percent}-{seed}" for arm in arms for percent in params["percents"] for seed in params["seeds"]}
    expected = {f"pretrain@{name}" for name in names} | {f"arm@{arm}" for arm in arms} | {"report"}
    expected |= {f"{stage}@{run}" for stage in ("finetune", "evaluate") for run in runs}
    assert touched(*by_file) == expected


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
