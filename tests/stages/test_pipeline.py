"""The smoke study through DVC: what it writes, what runs again after which change, and that runs agree."""

import json
import os
import re
import shutil
from itertools import product

import pandas as pd
import pytest
import yaml
from project_copy import repository, works_here

from kidney_ssl.report.tables import FIGURES

TRAINED = {"finetune", "evaluate", "explain", "report"}
FROM_IMAGES = {"pretrain", "arm"} | TRAINED
FROM_SLICES = {"slice", "normalize", "shortcut"} | FROM_IMAGES
CHANGES = {
    "machine": ({"compute.workers": 1, "compute.device": "cpu", "compute.resident": "never"}, set()),
    "report": ({"report.published": True}, {"report"}),
    "analysis.margin": ({"analysis.margin": 0.05}, {"report"}),
    "explain.layer": ({"explain.layer": "layer2"}, {"explain", "report"}),
    "finetune.epochs": ({"finetune.epochs": 3}, TRAINED),
    "normalize.range": ({"normalize.range": "image"}, {"normalize", "shortcut"} | FROM_IMAGES),
    "pretrain.methods": ({"pretrain.methods.rotation-0.epochs": 2}, FROM_IMAGES),
    "slice.body_hu": ({"slice.body_hu": -250}, FROM_SLICES),
    "select.seed": ({"select.seed": 1}, {"select"} | FROM_SLICES),
    "data.fold": ({"data.fold": 1}, {"select"} | FROM_SLICES),
    "data.exclude": ({"data.exclude": ["case_00011"]}, {"download", "select"} | FROM_SLICES),
}


# Not --exclude-monotonic: with it Python's time.sleep fails (EINVAL).
WRONG_CLOCK = ("faketime", "1985-03-01 10:00:00")
NAMESPACE = ("unshare", "--map-root-user", "--net")  # whoever runs in it has no network at all


def without_network():
    """What to put before a command so that it finds no network; nothing where the machine does not allow it."""
    return NAMESPACE if works_here(*NAMESPACE, "true") else ()


@pytest.fixture(scope="module")
def forced(smoke, tmp_path_factory):
    """The same study forced in another folder, one stage after the other, its volumes made anew.

    It runs without a network, on a path with spaces, on one core, with a clock that is decades slow. It has the first
    run's lock at hand, which decides the order of the stages in there and nothing else.
    """
    project = repository(tmp_path_factory.mktemp("forced") / "some where" / "else")
    shutil.copyfile(smoke.folder / "dvc.lock", project.folder / "dvc.lock")
    project.succeed(*without_network(), *on_one_core(), *wrong_clock(), "dvc", "repro", "--force")
    return project


def on_one_core():
    return ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))) if shutil.which("taskset") else ()


def wrong_clock():
    return WRONG_CLOCK if shutil.which("faketime") else ()


def run_names(project):
    return [f"{arm}-{run}" for arm in project.params["arms"] for run in [*budget_names(project), *further(project)]]


def budget_names(project):
    return [f"{percent}-{seed}" for percent, seed in product(*map(project.params.get, ("percents", "seeds")))]


def further(project):
    return project.params["extra_runs"]


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


def test_the_study_runs_where_there_is_no_network(forced):
    if not without_network():
        pytest.skip("this machine makes no network namespaces: unshare is absent or not allowed")
    devices = forced.succeed(*NAMESPACE, "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    assert (forced.folder / "report" / "index.html").exists()


def test_one_core_gives_what_two_arms_at_a_time_gave(smoke, forced):
    if not on_one_core() or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("taskset is absent (apt install util-linux), or the machine has one core")
    cores = "import os; print(len(os.sched_getaffinity(0)))"
    assert forced.succeed(*on_one_core(), "python", "-c", cores).strip() == "1"
    for name in ("manifest.csv", "index/selection.csv", "slices/train_images.npy", "normalized/train_images.npy"):
        assert (forced.folder / "data" / name).read_bytes() == (smoke.folder / "data" / name).read_bytes()


def test_a_wrong_clock_changes_nothing(smoke, forced):
    if not wrong_clock():
        pytest.skip("faketime is absent: apt install faketime")
    assert forced.succeed(*wrong_clock(), "date", "+%Y").strip() == "1985"
    # Back to the right time, nothing runs.
    assert running(forced.succeed("dvc", "repro")) == []
    assert (forced.folder / "dvc.lock").read_bytes() == (smoke.folder / "dvc.lock").read_bytes()


def test_the_lock_holds_every_stage(smoke):
    locked = set(yaml.safe_load((smoke.folder / "dvc.lock").read_text())["stages"])
    names = run_names(smoke)
    more = [f"{arm}-{run}" for arm in smoke.params["arms"] for run in further(smoke)]
    assert more
    assert {f"{stage}@{name}" for stage in ("finetune", "evaluate") for name in set(names) - set(more)} <= locked
    assert {f"{stage}_extra@{name}" for stage in ("finetune", "evaluate") for name in more} <= locked
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
    assert {stage.split("@")[0].removesuffix("_extra") for stage in would_run(smoke, changes)} == stages


def test_other_random_weights_leave_the_data_alone(smoke):
    found = {name.split("@")[0].removesuffix("_extra") for name in would_run(smoke, {"initialize.random.seed": 5})}
    assert {"initialize", "arm"} | TRAINED <= found
    assert not found & {"download", "select", "slice", "normalize"}


def test_a_new_arm_reruns_nothing_old(smoke):
    found = would_run(smoke, {"arms.newcomer": {"weights": "initial/random", "augmentation": "none"}})
    runs = [f"{stage}@newcomer-{name}" for stage in ("finetune", "evaluate") for name in budget_names(smoke)]
    runs += [f"{stage}_extra@newcomer-{name}" for stage in ("finetune", "evaluate") for name in further(smoke)]
    assert sorted(found) == sorted(["arm@newcomer", *runs, "explain@newcomer", "report"])


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ({"seeds": [0, 1]}, ["100-1"]),
        ({"percents": [100, 25]}, ["25-0"]),
        ({"extra_runs": ["50-0", "50-4"]}, ["50-4"]),
    ],
)
def test_a_new_seed_or_budget_reruns_nothing_old(smoke, changes, new):
    kind = "_extra" if "extra_runs" in changes else ""
    runs = [f"{arm}-{name}" for arm in smoke.params["arms"] for name in new]
    expected = [f"{stage}{kind}@{run}" for stage in ("finetune", "evaluate") for run in runs]
    assert sorted(would_run(smoke, changes)) == sorted([*expected, "report"])


def test_a_budget_trains_and_selects_on_its_own_cases_alone(smoke):
    for arm in smoke.params["arms"]:
        tables = {}
        for name in ("100-0", *further(smoke)):
            folder = smoke.folder / f"models/finetune/{arm}-{name}"
            tables[name] = pd.read_csv(folder / "cases.csv")
            used = set(tables[name].query("used == 1 and split == 'validation'")["case"])
            predictions = pd.read_csv(folder / "predictions.csv").groupby("part")["case"].unique()
            assert set(predictions["validation"]) <= used
            assert not set(predictions["test"]) & set(tables[name]["case"])
        assert tables["50-0"]["used"].mean() < tables["100-0"]["used"].mean() == 1
        # The same draw for every arm.
        first = next(iter(smoke.params["arms"]))
        assert tables["50-0"].equals(pd.read_csv(smoke.folder / f"models/finetune/{first}-50-0/cases.csv"))


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


def asked_of_dvc(project):
    """What a plan says is out of date, and what is behind that."""
    code = "import json; from stages.plan import out_of_date; print(json.dumps([sorted(one) for one in out_of_date()]))"
    return [set(names) for names in json.loads(project.succeed("python", "-c", code))]


def test_a_plan_of_a_finished_study_runs_nothing_and_knows_what_was_done(smoke):
    before = smoke.succeed("git", "status", "--porcelain", "--ignored")
    output = smoke.succeed("python", "-m", "stages.plan", "2")
    assert smoke.succeed("git", "status", "--porcelain", "--ignored") == before
    rows = {cells[0]: cells[1:] for line in output.splitlines() if (cells := re.split(r" {2,}", line.strip()))}
    assert rows["all"][1:] == ["0", "0"]
    arms = {"random": "none", "simclr": "supervised"}
    trained = {f"pretrain {name}": f"pretrain/{name}" for name in smoke.params["pretrain"]["methods"]}
    trained |= {f"fine-tune at 100 %, augmentation {name}": f"finetune/{arm}-100-0" for arm, name in arms.items()}
    for title, log in trained.items():
        updates = json.loads((smoke.folder / f"logs/{log}.json").read_text())["updates"]
        assert rows[title][3] == f"{updates:,}"
    written = sum(path.stat().st_size for path in (smoke.folder / "data/slices").glob("*.npy"))
    assert rows["chosen slices and masks"] == [f"{written / 1e6:,.1f} MB"]


def test_a_plan_asks_dvc_what_is_out_of_date_and_finds_what_is_behind_it(smoke, tmp_path):
    assert asked_of_dvc(smoke)[1:] == [set(), set()]
    with smoke.changed({"finetune.epochs": 3}):
        _, stale, behind = asked_of_dvc(smoke)
    assert {name.split("@")[0].removesuffix("_extra") for name in stale} == {"finetune", "report"}
    assert {name.split("@")[0].removesuffix("_extra") for name in behind} == {"evaluate", "explain"}
    every, stale, behind = asked_of_dvc(repository(tmp_path / "fresh"))
    assert stale | behind == every
