"""dvc.yaml against the code: DVC does not follow imports, so each stage must list what it imports."""

import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grimp
import pytest
import yaml

from kidney_ssl.augmentation import AUGMENTATIONS
from kidney_ssl.pretext import METHODS, load
from stages.cache import UNCACHED

ROOT = Path(__file__).parents[1]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# Not listed as dependencies. They decide which input is accepted and how a run is started, never a result: an edit
# of them must not retrain anything. The values of params.yaml are locked key by key.
FREE = {"kidney_ssl", "kidney_ssl.errors", "kidney_ssl.params"}
FREE |= {"kidney_ssl.training.exclusive", "stages", "stages.cache", "stages.launcher", "stages.mend"}
# Studies with arms of every method that is a contender; the smoke study has a few.
WHOLE = ("params.yaml", "studies/kits23.yaml")
# The default study has ten minutes: the controls stand in the others.
WITH_CONTROLS = ("studies/kits23.yaml",)
CONTROLS = {"identity", "oracle"}
EIGHT = {
    "rotation",
    "relative_position",
    "inpaint_random",
    "inpaint_kidney",
    "inpaint_switch",
    "genesis",
    "simclr",
    "cpc",
}


def test_the_stages_that_need_no_cache_are_those_that_write_nothing_to_it() -> None:
    """A cache that may only be read does not stop these, see stages/cache.py."""
    outs = {name: [one for key in ("outs", "metrics", "plots") for one in body(name).get(key, [])] for name in STAGES}
    kept = {
        entry(name)
        for name, of_stage in outs.items()
        if any(isinstance(one, str) or next(iter(one.values())).get("cache", True) for one in of_stage)
    }
    assert set(UNCACHED) == {entry(name) for name in STAGES} - kept


@cache
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("kidney_ssl", "stages", cache_dir=None, exclude_type_checking_imports=True)


def body(name: str) -> dict[str, Any]:
    return STAGES[name].get("do", STAGES[name])


def entry(name: str) -> str:
    """The file of stages/ that a stage runs: two matrices may share one."""
    return str(body(name)["cmd"]).split()[2].removeprefix("stages.")


def source(module: str) -> str:
    base = (
        ROOT / "src" / module.replace(".", "/") if module.startswith("kidney_ssl") else ROOT / module.replace(".", "/")
    )
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return path.relative_to(ROOT).as_posix()


def modules(name: str) -> dict[str, set[str]]:
    """What a stage imports: of `pretrain` for each method, whose module is imported by name."""
    found = imports().find_upstream_modules(f"stages.{entry(name)}")
    if entry(name) in ("finetune", "explain"):
        # An augmentation is imported by the name that the arm's file gives, with a hash of its code: no dep of its own.
        for one in AUGMENTATIONS:
            method = f"kidney_ssl.augmentation.{one}"
            found = found | (imports().find_upstream_modules(method) - {method})
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
            for file in files | {f"stages/{entry(name)}.py"}
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


def test_controls_are_the_methods_that_say_so() -> None:
    assert {method for method in METHODS if load(method).control} == CONTROLS


@cache
def study(name: str) -> dict[str, Any]:
    """A study's parameters, with two budgets alone: their number changes nothing in how stages hang together."""
    content: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return content | {"percents": [100], "seeds": [0], "extra_runs": ["1-0"]}


@cache
def graph(name: str) -> dict[str, Any]:
    """The stages of a study as DVC resolves them, by address."""
    from dvc.repo import Repo

    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        shutil.copyfile(ROOT / "dvc.yaml", root / "dvc.yaml")
        (root / "params.yaml").write_text(yaml.safe_dump(study(name)))
        with Repo.init(str(root), no_scm=True) as repo:
            return {
                stage.name: {
                    "deps": {Path(dep.fs_path).relative_to(root) for dep in stage.deps if hasattr(dep, "fs_path")},
                    "outs": {Path(out.fs_path).relative_to(root) for out in stage.outs},
                    "params": {key for dep in stage.deps for key in getattr(dep, "params", None) or ()},
                }
                for stage in repo.index.stages
            }


def touched(stages: dict[str, Any], changed: set[str]) -> set[str]:
    """Stages that may run after these stages ran: they, and all that read what they write."""
    found, fresh = set(changed), set(changed)
    while fresh:
        written = {out for name in fresh for out in stages[name]["outs"]}
        # A stage reads what is written if it depends on the very path, on a folder above it, or on a file in it.
        above = {folder for out in written for folder in (out, *out.parents)}
        fresh = {
            name
            for name, stage in stages.items()
            if name not in found
            and (stage["deps"] & above or any(not written.isdisjoint(dep.parents) for dep in stage["deps"]))
        }
        found |= fresh
    return found


def downstream(params: dict[str, Any], names: set[str]) -> set[str]:
    """What may run when these pretrainings give something new: they, their arms, and the report."""
    arms = [arm for arm, block in params["arms"].items() if block["weights"] in {f"pretrain/{name}" for name in names}]
    runs = {f"{arm}-{percent}-{seed}" for arm in arms for percent in params["percents"] for seed in params["seeds"]}
    further = {f"{arm}-{run}" for arm in arms for run in params["extra_runs"]}
    found = {f"{stage}@{arm}" for stage in ("arm", "explain") for arm in arms}
    found |= {f"pretrain@{name}" for name in names} | {"report"}
    found |= {f"{stage}_extra@{run}" for stage in ("finetune", "evaluate") for run in further}
    return found | {f"{stage}@{run}" for stage in ("finetune", "evaluate") for run in runs}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_studies_have_the_eight_tasks_and_an_arm_of_each_pretraining(name: str) -> None:
    methods = study(name)["pretrain"]["methods"]
    # A new task needs no place in them.
    assert {block["method"] for block in methods.values()} >= EIGHT | (CONTROLS if name in WITH_CONTROLS else set())
    weights = {block["weights"] for block in study(name)["arms"].values()}
    # Losses are compared without arms: their names end with the loss.
    alone = {one for one in methods if re.search(r"_(dice|dice_squared|mse)-\d+$", one)}
    assert {f"pretrain/{one}" for one in methods if one not in alone} <= weights


@pytest.mark.parametrize("name", [*WHOLE, "studies/smoke.yaml"])
def test_a_change_of_one_methods_file_runs_it_its_arms_and_the_report_alone(name: str) -> None:
    params, stages = study(name), graph(name)
    for method in {block["method"] for block in params["pretrain"]["methods"].values()}:
        names = {one for one, block in params["pretrain"]["methods"].items() if block["method"] == method}
        file = Path(f"src/kidney_ssl/pretext/{method}.py")
        changed = {one for one, stage in stages.items() if any(file.is_relative_to(dep) for dep in stage["deps"])}
        assert changed == {f"pretrain@{one}" for one in names}
        assert touched(stages, changed) == downstream(params, names)


@pytest.mark.parametrize("name", [*WHOLE, "studies/smoke.yaml"])
def test_a_change_of_one_pretrainings_block_runs_it_its_arms_and_the_report_alone(name: str) -> None:
    params, stages = study(name), graph(name)
    for one in params["pretrain"]["methods"]:
        key = f"pretrain.methods.{one}."
        # A stage that reads a section reads every key in it, as the report does.
        changed = {
            address for address, stage in stages.items() if any(key.startswith(f"{k}.") for k in stage["params"])
        }
        assert changed - {"report"} == {f"pretrain@{one}"}
        assert touched(stages, changed) == downstream(params, {one})


def test_package_files_hold_no_code() -> None:
    for path in sorted((ROOT / "src").rglob("__init__.py")):
        if path.parent.name not in ("augmentation", "pretext"):  # their registries
            assert path.read_text().count('"""') == 2
            assert path.read_text().strip().endswith('"""')


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_described_and_has_its_file(name: str) -> None:
    assert body(name)["desc"]
    assert body(name)["cmd"].startswith("python -m stages.")
    assert (ROOT / "stages" / f"{entry(name)}.py").exists()
    assert entry(name) == name.removesuffix("_extra")


def test_how_the_machine_is_used_is_no_dependency_but_for_what_changes_bits() -> None:
    locked = {key for name in STAGES for key in body(name).get("params", []) if key.startswith("compute")}
    assert locked == {"compute.threads", "compute.precision", "compute.devices", "compute.nodes"}
