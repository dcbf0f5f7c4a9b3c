"""The smoke study through DVC: what it writes, what runs again after which change, and that runs agree."""

import json
import os
import shutil

import pandas as pd
import pytest

from kidney_ssl.metrics.over_seeds import FIGURES
from kidney_ssl.report.names import arm_name
from kidney_ssl.yamlfile import read_yaml
from tests.project_copy import repository, running, works_here

TRAINED = {"finetune", "evaluate", "explain", "report"}
FROM_IMAGES = {"pretrain"} | TRAINED
FROM_SLICES = {"slice", "normalize", "shortcut"} | FROM_IMAGES
CHANGES = {
    "machine": ({"compute.workers": 1, "compute.device": "cpu", "compute.resident": "never"}, set()),
    "report": ({"report.published": True}, {"report"}),
    "analysis.margin": ({"analysis.margin": 0.05}, {"report"}),
    "explain.layer": ({"explain.layer": "layer2"}, {"explain", "report"}),
    "finetune.epochs": ({"finetune.epochs": 3}, TRAINED),
    "normalize.range": ({"normalize.range": "image"}, {"normalize", "shortcut"} | FROM_IMAGES),
    "pretrain.methods": ({"pretrain.methods.rotation.epochs": 2}, FROM_IMAGES),
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
    """The same study in another folder with one worker, its volumes made anew, no cache, no store, no lock at hand.

    It runs without a network, on a path with spaces, on one core, with a clock that is decades slow. That `smoke` is
    asked for keeps all tests of either in one process.
    """
    project = repository(tmp_path_factory.mktemp("forced") / "some where" / "else")
    project.succeed(*without_network(), *on_one_core(), *wrong_clock(), "python", "-m", "stages", "1")
    return project


def on_one_core():
    return ("taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))) if shutil.which("taskset") else ()


def wrong_clock():
    return WRONG_CLOCK if shutil.which("faketime") else ()


def run_names(project):
    runs = [f"{percent}-{seed}" for percent, seeds in project.params["runs"].items() for seed in seeds]
    return [f"{arm}-{run}" for arm in project.params["arms"] for run in runs]


def kinds(stages):
    return {stage.partition("@")[0] for stage in stages}


# One process for many changes, which takes DVC's seconds of imports once; a NUL after what each of its commands says.
ASK = """
import json, sys
from pathlib import Path
from dvc.cli import main

kept = {Path(name): Path(name).read_bytes() for name in ("params.yaml", "dvc.lock", "metrics/plan.json")}
for text in json.loads(Path(sys.argv[1]).read_text()):
    Path("params.yaml").write_text(text)
    for command in ("repro --single-item params", "repro --dry --force-downstream"):
        assert main(command.split()) == 0, command
        print(end="\\0", flush=True)
    for path, content in kept.items():
        path.write_bytes(content)
"""


def would_run(project, *changes):
    """For each of some changes what a repro would run if every stage gave something new.

    --dry alone does not follow a changed output. The check of params.yaml really runs: `report` waits for the plan that
    it notes.
    """
    texts = []
    for one in changes:
        with project.changed(one):
            texts.append((project.folder / "params.yaml").read_text())
    asked = project.folder.with_name("asked.json")
    asked.write_text(json.dumps(texts))
    said = project.succeed("python", "-c", ASK, str(asked)).split("\0")[:-1]
    assert [running(one) for one in said[::2]] == [["params"]] * len(changes)
    return [running(one) for one in said[1::2]]


@pytest.fixture(scope="module")
def reruns(smoke):
    """Kinds of stages that would run after each of `CHANGES`."""
    found = would_run(smoke, *(changes for changes, _ in CHANGES.values()))
    return {name: kinds(stages) for name, stages in zip(CHANGES, found, strict=True)}


def test_every_arm_of_the_parameters_stands_in_the_summary(smoke):
    summary = json.loads((smoke.folder / "metrics/summary.json").read_text())
    assert set(FIGURES) <= set(summary)
    assert [set(summary[name]) for name in FIGURES] == [set(smoke.params["arms"])] * len(FIGURES)
    assert all(0 <= value <= 1 for value in summary["accuracy"].values())


def test_every_run_has_its_metrics_its_curves_and_a_line_of_the_report(smoke):
    names = run_names(smoke)
    arms = smoke.params["arms"]
    assert {path.stem for path in (smoke.folder / "metrics/evaluate").iterdir()} == set(arms)
    details = {arm: json.loads((smoke.folder / f"report/evaluate/{arm}.json").read_text()) for arm in arms}
    runs = {arm: [run for run in details[arm] if run != "intervals"] for arm in arms}
    assert sorted(f"{arm}-{run}" for arm in arms for run in runs[arm]) == sorted(names)
    curves = pd.read_csv(smoke.folder / "plots/curves.csv")
    found = set(curves["arm"] + "-" + curves["percent"].astype(str) + "-" + curves["seed"].astype(str))
    assert sorted(found) == sorted(names)
    text = (smoke.folder / "report/summary.md").read_text()
    assert all(f"\n| {arm_name(arm)} | " in text for arm in arms)


def test_no_case_is_in_two_splits_and_every_slice_has_its_image(smoke):
    tables = {
        split: pd.read_csv(smoke.folder / f"data/slices/{split}.csv") for split in ("train", "validation", "test")
    }
    cases = [case for table in tables.values() for case in set(table["case"])]
    assert len(cases) == len(set(cases))
    chosen = pd.read_csv(smoke.folder / "data/index/selection.csv")
    assert {split: len(table) for split, table in tables.items()} == chosen["split"].value_counts().to_dict()


def test_what_a_study_writes_is_in_git_or_ignored(smoke):
    changed = [line.split(maxsplit=1) for line in smoke.succeed("git", "status", "--porcelain").splitlines()]
    assert {mark for mark, _ in changed} <= {"??", "M", "D"}  # nothing ran before: the lock and results are new
    assert {name for mark, name in changed if mark == "??"} <= {"dvc.lock", "code/", "metrics/", "plots/"}
    assert {name.split("/")[0] for mark, name in changed if mark != "??"} <= {"code", "metrics", "plots"}


def test_a_second_repro_runs_nothing(smoke):
    lock = (smoke.folder / "dvc.lock").read_bytes()
    output = smoke.succeed("dvc", "repro")
    assert running(output) == []
    assert "up to date" in output
    assert (smoke.folder / "dvc.lock").read_bytes() == lock


def locked(project):
    """As content: DVC adds stages to the file in the order in which they end."""
    return read_yaml((project.folder / "dvc.lock").read_text())


def test_a_forced_run_in_another_folder_gives_the_same_lock(smoke, forced):
    assert locked(forced) == locked(smoke)


def test_the_study_runs_where_there_is_no_network(forced):
    if not without_network():
        pytest.skip("this machine makes no network namespaces: unshare is absent or not allowed")
    devices = forced.succeed(*NAMESPACE, "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    assert (forced.folder / "report" / "index.html").exists()


def test_one_core_and_one_worker_give_what_two_gave(smoke, forced):
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
    assert locked(forced) == locked(smoke)


def test_the_lock_holds_every_stage(smoke):
    params = smoke.params
    expected = {"code", "params", "source", "download", "select", "slice", "normalize", "shortcut", "report"}
    expected |= {"initialize@random"}
    expected |= {f"pretrain@{name}" for name in params["pretrain"]["methods"]}
    expected |= {f"{stage}@{arm}" for stage in ("finetune", "evaluate", "explain") for arm in params["arms"]}
    assert set(locked(smoke)["stages"]) == expected


def without_gaps(metrics):
    """DVC leaves out what is null."""
    return {name: value for name, value in metrics.items() if value is not None}


def test_metrics_show_has_a_row_of_each_arm(smoke):
    shown = json.loads(smoke.succeed("dvc", "metrics", "show", "--json"))[""]["data"]
    assert set(shown) == {f"metrics/evaluate/{arm}.json" for arm in smoke.params["arms"]}
    for name, found in shown.items():
        assert found["data"] == without_gaps(json.loads((smoke.folder / name).read_text()))


def test_metrics_diff_has_a_row_for_each_metric_of_an_arm(smoke):
    found = json.loads(smoke.succeed("dvc", "metrics", "diff", "--all", "--json", "HEAD"))
    for arm in smoke.params["arms"]:
        name = f"metrics/evaluate/{arm}.json"
        expected = without_gaps(json.loads((smoke.folder / name).read_text()))
        assert {metric: row["new"] for metric, row in found[name].items()} == expected


def test_plots_show_draws_curves_and_bars_of_every_arm(smoke, tmp_path):
    smoke.succeed("dvc", "plots", "show", "--out", str(tmp_path / "page"))
    assert "vega" in (tmp_path / "page" / "index.html").read_text()
    plots = json.loads(smoke.succeed("dvc", "plots", "show", "--json", "--out", str(tmp_path / "json")))
    assert not plots.get("errors")
    for file in ("plots/curves.csv", "plots/metrics.csv"):
        for plot in plots["data"][file]:
            content = plot["content"] if isinstance(plot["content"], str) else json.dumps(plot["content"])
            assert "DVC_METRIC" not in content
            assert {row["arm"] for row in json.loads(content)["data"]["values"]} == set(smoke.params["arms"])


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_parameter_reruns_what_depends_on_it_and_nothing_else(reruns, name):
    assert reruns[name] == CHANGES[name][1]


def test_other_random_weights_leave_the_data_alone_and_a_new_arm_reruns_nothing_old(smoke):
    newcomer = {"weights": "initial/random", "augmentation": "none"}
    other, more = would_run(smoke, {"initialize.random.seeds": [5]}, {"arms.newcomer": newcomer})
    assert {"initialize"} | TRAINED <= kinds(other)
    assert not kinds(other) & {"download", "select", "slice", "normalize"}
    assert sorted(more) == ["evaluate@newcomer", "explain@newcomer", "finetune@newcomer", "report"]


def test_a_budget_trains_and_selects_on_its_own_cases_alone(smoke):
    for arm in smoke.params["arms"]:
        tables = {}
        for name in ("100-0", "50-0"):
            folder = smoke.folder / f"models/finetune/{arm}/{name}"
            tables[name] = pd.read_csv(folder / "cases.csv")
            used = set(tables[name].query("used == 1 and split == 'validation'")["case"])
            predictions = pd.read_csv(folder / "predictions.csv").groupby("part")["case"].unique()
            assert set(predictions["validation"]) <= used
            assert not set(predictions["test"]) & set(tables[name]["case"])
        assert tables["50-0"]["used"].mean() < tables["100-0"]["used"].mean() == 1
        # The same draw for every arm.
        first = next(iter(smoke.params["arms"]))
        assert tables["50-0"].equals(pd.read_csv(smoke.folder / f"models/finetune/{first}/50-0/cases.csv"))


def test_every_result_tells_the_weights_that_its_run_started_from(smoke):
    for arm, block in smoke.params["arms"].items():
        found = json.loads((smoke.folder / f"report/evaluate/{arm}.json").read_text())
        start = {"weights": block["weights"], "seed": 0}
        assert {run: found[run]["start"] for run in ("50-0", "100-0")} == {"50-0": start, "100-0": start}


def test_the_networks_of_the_explained_runs_are_kept_and_no_others(smoke):
    kept = {
        path.relative_to(smoke.folder).as_posix() for path in smoke.folder.glob("models/finetune/*/*/*.safetensors")
    }
    assert kept == {f"models/finetune/{arm}/100-0/model.safetensors" for arm in smoke.params["arms"]}


def test_a_key_that_no_stage_depends_on_stops_a_plain_repro_and_runs_nothing_else(smoke):
    lock = (smoke.folder / "dvc.lock").read_bytes()
    with smoke.changed({"data.sede": 3}):
        for _ in range(2):
            ended = smoke.run("dvc", "repro")
            assert ended.returncode != 0
            assert running(ended.stdout) == ["params"]
            assert "error: params.yaml: data.sede: unknown key" in ended.stdout + ended.stderr
    assert running(smoke.succeed("dvc", "repro")) == []
    assert (smoke.folder / "dvc.lock").read_bytes() == lock


def test_what_a_removed_arm_left_behind_is_cleared_away_and_not_reported(smoke):
    lock = (smoke.folder / "dvc.lock").read_bytes()
    arm = next(iter(smoke.params["arms"]))
    left = [smoke.folder / name for name in ("metrics/evaluate/gone.json", "report/evaluate/gone.json")]
    for path in left:
        shutil.copyfile(path.with_stem(arm), path)
    left.append(smoke.folder / "models/finetune/gone")
    shutil.copytree(left[-1].with_name(arm), left[-1])
    assert running(smoke.succeed("dvc", "repro")) == ["report"]
    assert not any(path.exists() for path in left)
    assert (smoke.folder / "dvc.lock").read_bytes() == lock


def test_every_stage_notes_what_it_took_outside_the_lock(smoke):
    arm, run = next(iter(smoke.params["arms"])), run_names(smoke)[0]
    names = [f"explain/{arm}", f"finetune/{run}", f"evaluate/{arm}", "initialize/random", "pretrain/rotation-0"]
    for name in ("download", "select", "slice", "normalize", *names):
        log = json.loads((smoke.folder / f"logs/{name}.json").read_text())
        assert log["seconds"] >= 0
        assert log["memory_mb"] > 10
    assert "logs/" not in (smoke.folder / "dvc.lock").read_text()


def asked_of_dvc(project):
    """The stages that run, by what a plan asks DVC."""
    code = "import json; from stages.out_of_date import out_of_date; print(json.dumps(sorted(out_of_date())))"
    return set(json.loads(project.succeed("python", "-c", code)))


def test_a_plan_of_a_finished_study_measures_nothing(smoke):
    before = smoke.succeed("git", "status", "--porcelain", "--ignored")
    assert "Nothing is out of date" in smoke.succeed("python", "-m", "stages.plan", "2")
    assert smoke.succeed("git", "status", "--porcelain", "--ignored") == before


def test_a_plan_counts_the_updates_that_trainings_then_make(smoke, tmp_path):
    # As if the volumes were other ones: everything runs again, and does as much as before.
    with smoke.changed({"slice.body_hu": -250}):
        output = smoke.succeed("env", f"RATES={tmp_path}/rates.json", "python", "-m", "stages.plan", "2")
        again = smoke.succeed("env", f"DEVICE_RATES={tmp_path}/rates.json", "python", "-m", "stages.plan", "2")
    assert again.splitlines()[:3] == output.splitlines()[:3]
    rows = {line.split("  ")[0]: line.split()[-3:] for line in output.splitlines() if "  " in line}
    for name in smoke.params["pretrain"]["methods"]:
        updates = json.loads((smoke.folder / f"logs/pretrain/{name}-0.json").read_text())["updates"]
        assert rows[f"pretrain {name}"][:2] == ["1", f"{updates:,}"]
    supervised = [
        json.loads((smoke.folder / f"logs/finetune/simclr-{percent}-0.json").read_text())["updates"]
        for percent in smoke.params["runs"]
    ]
    # Slices of a budget below 100 % are in proportion.
    assert int(rows["fine-tune supervised"][1].replace(",", "")) == pytest.approx(sum(supervised), rel=0.2)


def test_a_plan_asks_dvc_what_is_out_of_date_and_finds_what_is_behind_it(smoke, tmp_path):
    assert asked_of_dvc(smoke) == set()
    with smoke.changed({"finetune.epochs": 3}):
        assert kinds(asked_of_dvc(smoke)) == {"params", "finetune", "report", "evaluate", "explain"}
    fresh = repository(tmp_path / "fresh")
    assert asked_of_dvc(fresh) == set(fresh.succeed("dvc", "stage", "list", "--name-only", "--all").split())


def test_a_comment_makes_only_the_versions_of_the_code_run(smoke):
    file = smoke.folder / "src/kidney_ssl/finetune.py"
    before = file.read_bytes()
    file.write_bytes(before + b"# a comment\n")
    try:
        assert asked_of_dvc(smoke) == {"code"}
        file.write_bytes(before + b"ONE_MORE = 1\n")
        assert {"code", "finetune", "evaluate", "report"} <= kinds(asked_of_dvc(smoke))
        assert not {"slice", "normalize"} & kinds(asked_of_dvc(smoke))
    finally:
        file.write_bytes(before)


def test_a_directory_that_is_as_it_was_makes_only_the_look_at_it_run(smoke, tmp_path):
    project = smoke.linked(tmp_path / "project")
    project.change({"data.source": "directory", "data.root": str(project.folder / "data/raw")})
    project.succeed("dvc", "repro", "select")
    asked = asked_of_dvc(project)
    assert "source" in asked
    assert not {"download", "select"} & asked
    os.utime(next((project.folder / "data/raw").glob("case_*/imaging.nii.gz")))
    assert {"source", "download", "select"} <= asked_of_dvc(project)


def test_results_that_are_nowhere_run_and_those_in_the_cache_do_not(smoke):
    out = smoke.folder / "models/finetune/random"
    kept = smoke.folder / "kept"
    out.rename(kept)
    cache, hidden = smoke.folder / ".dvc/cache", smoke.folder / ".dvc/hidden"
    try:
        assert asked_of_dvc(smoke) <= {"report"}  # which reads the folder of all arms
        cache.rename(hidden)
        assert "finetune@random" in asked_of_dvc(smoke)
    finally:
        if hidden.exists():
            shutil.rmtree(cache, ignore_errors=True)
            hidden.rename(cache)
        kept.rename(out)
