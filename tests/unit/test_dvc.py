"""dvc.yaml: what a change runs, and which results the cache keeps."""

import math
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from kidney_ssl.methods import METHODS, load
from kidney_ssl.yamlfile import dump_yaml, read_yaml
from stages.cache import UNCACHED

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = read_yaml((ROOT / "dvc.yaml").read_text())["stages"]
# The first has arms of every method, the second of a few. params.yaml may hold any study: the default one is looked at
# in tests/pipeline/test_default_study.py.
STUDIES = ("studies/kits23.yaml", "studies/smoke.yaml")
CONTROLS = {"identity", "oracle"}
# dino is not yet shown to learn
TODAY = {"vicreg", "barlow_twins", "byol", "moco", "slice_position", "slice_order", "masked", "positional_contrast"}
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
        name
        for name, of_stage in outs.items()
        if any(isinstance(one, str) or next(iter(one.values())).get("cache", True) for one in of_stage)
    }
    assert set(UNCACHED) == set(STAGES) - kept


def body(name: str) -> dict[str, Any]:
    return STAGES[name].get("do", STAGES[name])


def versions(name: str) -> list[str]:
    """The versions of the code that a stage depends on."""
    return [dep for dep in body(name)["deps"] if dep.startswith("code/")]


def test_every_stage_depends_on_the_version_of_its_own_code_and_on_no_source() -> None:
    for name in set(STAGES) - {"code"}:
        assert versions(name)[0] == f"code/{name if name != 'pretrain' else 'pretrain/${item.method}'}.json"
        assert not [dep for dep in body(name)["deps"] if dep.startswith(("src", "stages"))]
    # An augmentation is imported by its name in the arm's block, so its code is no import of the stage.
    assert {name for name in STAGES if len(versions(name)) > 1} == {"finetune", "explain"}
    assert set(body("code")["deps"]) == {"src", "stages"}


def test_what_is_read_in_place_is_looked_at_every_time_and_no_other_source() -> None:
    """.nan equals nothing, so DVC finds this parameter changed, and a stage without a cached output in no run cache."""
    watched = read_yaml((ROOT / "stages/source.yaml").read_text())
    assert {name for name, value in watched.items() if math.isnan(value)} == {"directory", "msd", "table"}
    assert set(watched) == {"phantom", "kits23", "directory", "msd", "table"}
    assert {"stages/source.yaml": ["${data.source}"]} in body("source")["params"]
    assert body("source")["outs"] == [{"metrics/source.csv": {"cache": False}}]
    assert "metrics/source.csv" in body("download")["deps"]


def test_every_stage_keeps_its_result_in_the_run_cache() -> None:
    """DVC keeps none of a stage with an output that is not cached and neither a metric nor a plot."""
    for name in set(STAGES) - {"code", "source", "params"}:
        assert all(isinstance(out, str) for out in body(name).get("outs", []))
        for one in [*body(name).get("metrics", []), *body(name).get("plots", [])]:
            assert not next(iter(one.values()))["cache"]


def test_metrics_are_one_file_an_arm_and_what_is_in_no_git_is_ignored() -> None:
    assert {name for name in STAGES if "metrics" in body(name)} == {"evaluate"}
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/")]
    for name in set(STAGES) - {"code", "source", "params"}:
        for out in body(name).get("outs", []):
            assert any(f"/{out}".startswith(one) for one in ignored), out


def test_controls_are_the_methods_that_say_so() -> None:
    assert {method for method in METHODS if load(method).control} == CONTROLS


@cache
def study(name: str) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml((ROOT / name).read_text())
    return content


@cache
def graph(name: str) -> dict[str, Any]:
    """The stages of a study as DVC resolves them, by address."""
    from dvc.repo import Repo

    with TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        shutil.copyfile(ROOT / "dvc.yaml", root / "dvc.yaml")
        (root / "params.yaml").write_text(dump_yaml(study(name)))
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
    return {f"{stage}@{arm}" for stage in ("finetune", "evaluate", "explain") for arm in arms} | {
        "report",
        *(f"pretrain@{name}" for name in names),
    }


def test_the_kits23_study_has_at_most_260_stages() -> None:
    assert len(graph("studies/kits23.yaml")) <= 260


def tasks_and_pretrainings_without_an_arm(name: str) -> tuple[set[str], set[str]]:
    methods = study(name)["pretrain"]["methods"]
    weights = {block["weights"] for block in study(name)["arms"].values()}
    unused = {one for one in methods if f"pretrain/{one}" not in weights}
    return {block["method"] for block in methods.values()}, unused


def test_the_kits23_study_has_the_thesis_tasks_those_of_today_the_controls_and_an_arm_of_each_pretraining() -> None:
    tasks, unused = tasks_and_pretrainings_without_an_arm("studies/kits23.yaml")
    assert tasks >= EIGHT | TODAY | CONTROLS  # a new task needs no place in it
    assert not unused


@pytest.mark.parametrize("name", STUDIES)
def test_a_change_of_one_methods_code_runs_it_its_arms_and_the_report_alone(name: str) -> None:
    params, stages = study(name), graph(name)
    for method in {block["method"] for block in params["pretrain"]["methods"].values()}:
        names = {one for one, block in params["pretrain"]["methods"].items() if block["method"] == method}
        changed = {one for one, stage in stages.items() if Path(f"code/pretrain/{method}.json") in stage["deps"]}
        assert changed == {f"pretrain@{one}" for one in names}
        assert touched(stages, changed) == downstream(params, names)


@pytest.mark.parametrize("name", STUDIES)
def test_a_change_of_one_augmentations_code_runs_its_arms_and_the_report_alone(name: str) -> None:
    params, stages = study(name), graph(name)
    for augmentation in {block["augmentation"] for block in params["arms"].values()}:
        arms = {arm for arm, block in params["arms"].items() if block["augmentation"] == augmentation}
        file = Path(f"code/augmentations/{augmentation}.json")
        changed = {one for one, stage in stages.items() if file in stage["deps"]}
        assert changed == {f"{stage}@{arm}" for stage in ("finetune", "explain") for arm in arms}


def reading(stages: dict[str, Any], key: str) -> set[str]:
    """Stages that are locked with a key of params.yaml, by itself or in a section."""
    return {name for name, stage in stages.items() if any(f"{key}.".startswith(f"{one}.") for one in stage["params"])}


@pytest.mark.parametrize("name", STUDIES)
def test_a_change_of_one_pretrainings_block_runs_it_its_arms_and_the_report_alone(name: str) -> None:
    params, stages = study(name), graph(name)
    for one in params["pretrain"]["methods"]:
        changed = reading(stages, f"pretrain.methods.{one}")
        assert changed - {"report"} == {f"pretrain@{one}"}
        assert touched(stages, changed) == downstream(params, {one})


def test_what_pretrainings_share_is_locked_by_each_of_them() -> None:
    params, stages = study("studies/kits23.yaml"), graph("studies/kits23.yaml")
    expected = {f"pretrain@{one}" for one in params["pretrain"]["methods"]}
    assert reading(stages, "pretrain.common") - {"report"} == reading(stages, "pretrain.thin") == expected


def test_a_change_of_one_arms_block_runs_it_and_the_report_alone() -> None:
    params, stages = study("studies/kits23.yaml"), graph("studies/kits23.yaml")
    for arm in set(params["arms"]) - {params["analysis"]["baseline"]}:
        changed = reading(stages, f"arms.{arm}")
        assert changed == {f"finetune@{arm}", f"explain@{arm}", "report"}
        assert touched(stages, changed) == changed | {f"evaluate@{arm}"}


def test_a_change_of_the_runs_trains_and_evaluates_every_arm_and_explains_none_by_itself() -> None:
    params, stages = study("studies/kits23.yaml"), graph("studies/kits23.yaml")
    expected = {f"{stage}@{arm}" for stage in ("finetune", "evaluate") for arm in params["arms"]}
    assert reading(stages, "runs") == expected | {"report"}


def test_package_files_hold_no_code() -> None:
    for path in sorted((ROOT / "src").rglob("__init__.py")):
        if path.parent.name not in ("augmentations", "methods"):  # their registries
            assert path.read_text().count('"""') == 2
            assert path.read_text().strip().endswith('"""')


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_described_and_has_its_file(name: str) -> None:
    assert body(name)["desc"]
    assert body(name)["cmd"].startswith("python -m stages.")
    assert str(body(name)["cmd"]).split()[2] == f"stages.{name}"
    assert (ROOT / "stages" / f"{name}.py").exists()


def test_how_the_machine_is_used_is_no_dependency_but_for_what_changes_bits() -> None:
    locked = {key for name in STAGES for key in body(name).get("params", []) if str(key).startswith("compute")}
    names = ("threads", "precision", "devices", "nodes", "cudnn_benchmark", "compile")
    assert locked == {f"compute.{name}" for name in names}
