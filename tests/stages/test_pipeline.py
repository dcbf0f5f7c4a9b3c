"""The smoke study through DVC: what it writes, what runs again after which change, and that runs agree."""

import json
import re
import shutil
from itertools import product

import pandas as pd
import pytest
import yaml
from project_copy import repository

from kidney_ssl.report.tables import FIGURES

TRAINED = {"finetune", "evaluate", "explain", "report"}
FROM_IMAGES = {"pretrain", "arm"} | TRAINED
FROM_SLICES = {"slice", "normalize"} | FROM_IMAGES
CHANGES = {
    "machine": ({"compute.workers": 1, "compute.device": "cpu", "compute.resident": "never"}, set()),
    "report": ({"report.published": True}, {"report"}),
    "analysis.margin": ({"analysis.margin": 0.05}, {"report"}),
    "explain.layer": ({"explain.layer": "layer2"}, {"explain", "report"}),
    "finetune.epochs": ({"finetune.epochs": 3}, TRAINED),
    "normalize.range": ({"normalize.range": "image"}, {"normalize"} | FROM_IMAGES),
    "pretrain.methods": ({"pretrain.methods.rotation-0.epochs": 2}, FROM_IMAGES),
    "slice.body_hu": ({"slice.body_hu": -250}, FROM_SLICES),
    "select.seed": ({"select.seed": 1}, {"select"} | FROM_SLICES),
    "data.fold": ({"data.fold": 1}, {"select"} | FROM_SLICES),
    "data.exclude": ({"data.exclude": ["case_00011"]}, {"download", "select"} | FROM_SLICES),
}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke study, run once from nothing, two arms at a time."""
    project = repository(tmp_path_factory.mktemp("smoke") / "project")
    project.succeed("python", "-m", "stages", "2")
    return project


@pytest.fixture(scope="module")
def forced(smoke, tmp_path_factory):
    """The same study forced in another folder, one stage after the other, its volumes made anew.

    It has the first run's lock at hand, which decides the order of the stages in there and nothing else.
    """
    project = repository(tmp_path_factory.mktemp("forced") / "somewhere" / "else")
    shutil.copyfile(smoke.folder / "dvc.lock", project.folder / "dvc.lock")
    project.succeed("dvc", "repro", "--force")
    return project


def run_names(project):
    params = project.params
    return [
        f"{arm}-{percent}-{seed}" for arm, percent, seed in product(*map(params.get, ("arms", "percents", "seeds")))
    ]


def running(output):
    """The stages that a repro runs, or would run."""
    return re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE)


def would_run(project, changes):
    """What a repro would run if every stage gave something new: --dry alone does not follow a changed output."""
    with project.changed(changes):
        return running(project.succeed("dvc", "repro", "--dry", "--force-downstream"))


def test_every_arm_of_the_parameters_stands_in_the_summary(smoke):
    summary = json.loads((smoke.folder / "metrics/summary.json").read_text())
    assert set(FIGURES) <= set(summary)
    assert [set(summary[name]) for name in FIGURES] == [set(smoke.params["arms"])] * len(FIGURES)
    assert all(0 <= value <= 1 for value in summary["accuracy"].values())


def test_every_run_has_its_figures_its_curves_and_a_line_of_the_report(smoke):
    names = run_names(smoke)
    assert sorted(path.stem for path in (smoke.folder / "metrics/evaluate").iterdir()) == sorted(names)
    curves = pd.read_csv(smoke.folder / "plots/curves.csv")
    assert sorted(
        set(curves["arm"] + "-" + curves["percent"].astype(str) + "-" + curves["seed"].astype(str))
    ) == sorted(names)
    text = (smoke.folder / "report/summary.md").read_text()
    assert all(f"\n| {arm} | " in text for arm in smoke.params["arms"])


def test_no_case_is_in_two_splits_and_every_slice_has_its_image(smoke):
    tables = {
        split: pd.read_csv(smoke.folder / f"data/slices/{split}.csv") for split in ("train", "validation", "test")
    }
    cases = [case for table in tables.values() for case in set(table["case"])]
    assert len(cases) == len(set(cases))
    chosen = pd.read_csv(smoke.folder / "data/index/selection.csv")
    assert {split: len(table) for split, table in tables.items()} == chosen["split"].value_counts().to_dict()


def test_what_a_study_writes_is_in_git_or_ignored(smoke):
    changed = [line.split() for line in smoke.succeed("git", "status", "--porcelain").splitlines()]
    new = {name for mark, name in changed if mark == "??"}
    # Figures of arms and pretrainings that the committed study does not have; the lock was taken away before the run.
    assert {
        name for name in new if not name.startswith(("metrics/evaluate/", "metrics/pretrain/", "metrics/explain/"))
    } <= {"dvc.lock"}
    assert {name.split("/")[0] for mark, name in changed if mark == "M"} <= {"metrics", "plots", "report", "dvc.lock"}


def test_a_second_repro_runs_nothing(smoke):
    lock = (smoke.folder / "dvc.lock").read_bytes()
    output = smoke.succeed("dvc", "repro")
    assert running(output) == []
    assert "up to date" in output
    assert (smoke.folder / "dvc.lock").read_bytes() == lock


def test_a_forced_run_in_another_folder_gives_the_same_lock(smoke, forced):
    assert (forced.folder / "dvc.lock").read_text() == (smoke.folder / "dvc.lock").read_text()


def test_the_lock_holds_every_stage(smoke):
    locked = set(yaml.safe_load((smoke.folder / "dvc.lock").read_text())["stages"])
    names = run_names(smoke)
    assert {f"{stage}@{name}" for stage in ("finetune", "evaluate") for name in names} <= locked
    assert {f"arm@{arm}" for arm in smoke.params["arms"]} <= locked
    assert {"download", "select", "slice", "normalize", "report"} <= locked


def test_metrics_show_reads_the_summary(smoke):
    shown = json.loads(smoke.succeed("dvc", "metrics", "show", "--json"))
    found = shown[""]["data"]["metrics/summary.json"]["data"]
    summary = json.loads((smoke.folder / "metrics/summary.json").read_text())
    # DVC leaves out what is null.
    known = {name: {arm: value for arm, value in arms.items() if value is not None} for name, arms in summary.items()}
    assert {name: found.get(name, {}) for name in summary} == known


def test_metrics_diff_has_a_row_for_each_figure_of_an_arm(smoke):
    found = json.loads(smoke.succeed("dvc", "metrics", "diff", "--all", "--json", "HEAD"))["metrics/summary.json"]
    summary = json.loads((smoke.folder / "metrics/summary.json").read_text())
    for metric, arms in summary.items():
        for arm, value in arms.items():
            assert found.get(f"{metric}.{arm}", {}).get("new") == value  # no row where there is no figure


def test_plots_show_draws_curves_and_bars_of_every_arm(smoke, tmp_path):
    smoke.succeed("dvc", "plots", "show", "--out", str(tmp_path / "page"))
    assert "vega" in (tmp_path / "page" / "index.html").read_text()
    plots = json.loads(smoke.succeed("dvc", "plots", "show", "--json", "--out", str(tmp_path / "json")))
    assert not plots.get("errors")
    assert {"plots/curves.csv", "plots/metrics.csv"} <= set(plots["data"])
    for drawn in plots["data"].values():
        for plot in drawn:
            content = plot["content"] if isinstance(plot["content"], str) else json.dumps(plot["content"])
            assert "DVC_METRIC" not in content
            assert {row["arm"] for row in json.loads(content)["data"]["values"]} == set(smoke.params["arms"])


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_parameter_reruns_what_depends_on_it_and_nothing_else(smoke, name):
    changes, stages = CHANGES[name]
    assert {stage.split("@")[0] for stage in would_run(smoke, changes)} == stages


def test_other_random_weights_leave_the_data_alone(smoke):
    found = {name.split("@")[0] for name in would_run(smoke, {"initialize.random.seed": 5})}
    assert {"initialize", "arm"} | TRAINED <= found
    assert not found & {"download", "select", "slice", "normalize"}


def test_a_new_arm_reruns_nothing_old(smoke):
    percent, seed = smoke.params["percents"][0], smoke.params["seeds"][0]
    found = would_run(smoke, {"arms.newcomer": {"weights": "initial/random", "augmentation": "none"}})
    name = f"newcomer-{percent}-{seed}"
    assert sorted(found) == sorted(
        ["arm@newcomer", f"finetune@{name}", f"evaluate@{name}", "explain@newcomer", "report"]
    )


def test_what_a_removed_arm_left_behind_is_cleared_away_and_not_reported(smoke):
    lock = (smoke.folder / "dvc.lock").read_bytes()
    name = run_names(smoke)[0]
    left = smoke.folder / "metrics/evaluate/gone-100-0.json", smoke.folder / "models/finetune/gone-100-0/curves.csv"
    left[1].parent.mkdir()
    left[0].write_bytes((smoke.folder / f"metrics/evaluate/{name}.json").read_bytes())
    left[1].write_bytes((smoke.folder / f"models/finetune/{name}/curves.csv").read_bytes())
    assert running(smoke.succeed("dvc", "repro")) == ["report"]
    assert not any(path.exists() for path in left)
    assert (smoke.folder / "dvc.lock").read_bytes() == lock


def test_every_stage_notes_what_it_took_outside_the_lock(smoke):
    arm, run = next(iter(smoke.params["arms"])), run_names(smoke)[0]
    names = [f"arm/{arm}", f"explain/{arm}", f"finetune/{run}", f"evaluate/{run}", "initialize/random"]
    for name in ("download", "select", "slice", "normalize", *names):
        log = json.loads((smoke.folder / f"logs/{name}.json").read_text())
        assert log["seconds"] >= 0
        assert log["memory_mb"] > 10
    assert "logs/" not in (smoke.folder / "dvc.lock").read_text()
