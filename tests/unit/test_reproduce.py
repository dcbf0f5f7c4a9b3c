"""The table of .ci/reproduce.py, on a repository of seven stages that copy files, run by DVC itself."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kidney_ssl.yamlfile import dump_yaml, read_yaml

SCRIPT = Path(__file__).parents[2] / ".ci/reproduce.py"
SUMMARY = {
    "accuracy": {"rotation": 0.8, "random": 0.7},
    "auroc": {"rotation": 0.9, "random": None},
    "f1": {"random": 0.5},
}
ROWS = {
    "git": "results in git are those of the committed dvc.lock",
    "drift": "code, parameters, commands as locked",
    "slice": "bytes of slice",
    "forced": "two forced runs of the smoke study, one lock",
    "killed": "smoke study killed over and over, one lock",
    "figures": "figures of the study",
}
# What each stage copies: its code says what it gives, and two read a parameter.
STAGES = {
    "download": ("code/volumes.txt", "data/manifest.csv"),
    "select": ("data/manifest.csv", "data/selection.csv"),
    "slice": ("code/slices.txt", "data/slices.txt"),
    "normalize": ("data/slices.txt", "data/normalized.txt"),
    "finetune@random": ("code/network.txt", "models/random.txt"),
    "report": ("code/summary.json", "metrics/summary.json"),
}
TESTS = """<testsuites><testsuite>
<testcase name="test_a_forced_run_in_another_folder_gives_the_same_lock"/>
<testcase name="test_a_killed_study_ends_with_the_lock_of_an_unbroken_one">{inside}</testcase>
</testsuite></testsuites>"""


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))}
    mine = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "CI": "true",  # DVC looks for no update of its own
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.with_name("site-cache")),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    author = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(command, cwd=folder, env=kept | mine | author, capture_output=True, text=True, check=False)


def succeed(folder: Path, *command: str) -> None:
    ended = run(folder, *command)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"


def commit(folder: Path) -> None:
    succeed(folder, "git", "add", "--all")
    succeed(folder, "git", "commit", "--quiet", "--message", "as it stands")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce") / "whole"
    stages = {}
    for name, (source, target) in STAGES.items():
        out = {target: {"cache": False}} if name == "report" else target
        params = {"params": ["data.seed"]} if name == "select" else {}
        stages[name.replace("@", "_")] = {"cmd": f"cp {source} {target}", "deps": [source], "outs": [out], **params}
    stages["finetune"] = {"foreach": ["random"], "do": stages.pop("finetune_random")}
    # The version of the code is what it says without its comments.
    strip = "mkdir -p code; for file in source/*; do grep -v '^#' $file > code/$(basename $file); done"
    stages["code"] = {"cmd": strip, "deps": ["source"], "outs": [{"code": {"cache": False}}]}
    stages["params"] = {"cmd": "echo checked", "deps": ["params.yaml"]}
    for path in ("source", "data", "models", "metrics", "logs"):
        (folder / path).mkdir(parents=True)
    (folder / "dvc.yaml").write_text(dump_yaml({"stages": stages}))
    (folder / "params.yaml").write_text("data: {seed: 0}\n")
    (folder / ".gitignore").write_text("/data/\n/models/\n/logs/\n")
    (folder / "metrics/.gitkeep").touch()
    for name in ("volumes", "slices", "network"):
        (folder / f"source/{name}.txt").write_text(name)
    (folder / "source/summary.json").write_text(json.dumps(SUMMARY))
    (folder / "logs/tests.xml").write_text(TESTS.format(inside=""))
    succeed(folder, "git", "init", "--quiet")
    succeed(folder, "dvc", "init", "--quiet")
    succeed(folder, "dvc", "repro")
    commit(folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def failing(folder: Path) -> dict[str, str]:
    """What the table says of each check that fails; its exit code must agree."""
    ended = run(folder, sys.executable, str(SCRIPT))
    assert len(ended.stdout.splitlines()) == 12, ended.stderr
    assert (folder / "logs/reproduction.md").read_text() == ended.stdout
    found = dict(re.findall(r"^\| (.+?) \| .* \| (.+) \| FAILS \|$", ended.stdout, re.MULTILINE))
    assert ended.returncode == bool(found)
    assert ("error: not reproduced" in ended.stderr) == bool(found)
    return found


def test_what_was_committed_as_it_ran_holds(whole):
    assert failing(whole) == {}


def test_a_comment_is_no_drift(copy):
    source = copy / "source/slices.txt"
    source.write_text(f"# A comment.\n{source.read_text()}")
    (copy / "params.yaml").write_text("data: {seed: 0}  # another\n")
    succeed(copy, "dvc", "repro")
    assert failing(copy) == {}


def test_a_version_of_the_code_that_was_edited_by_hand_is_caught(copy):
    (copy / "code/slices.txt").write_text("other slices")
    commit(copy)
    assert failing(copy)[ROWS["git"]] == "code/slices.txt"


def test_a_drifted_parameter_is_caught(copy):
    (copy / "params.yaml").write_text("data: {seed: 1}\n")
    commit(copy)
    succeed(copy, "dvc", "repro")
    assert failing(copy) == {ROWS["drift"]: "select: params.yaml data.seed"}


def test_an_edited_source_and_the_data_that_it_changes_are_caught(copy):
    (copy / "source/slices.txt").write_text("other slices")
    commit(copy)
    succeed(copy, "dvc", "repro")
    # normalize reads what slice writes: its own code has not drifted.
    changed = {ROWS["slice"]: "data/slices.txt", "bytes of normalize": "data/normalized.txt"}
    assert failing(copy) == {ROWS["drift"]: "slice: code/slices.txt"} | changed


def test_data_that_come_out_differently_are_caught_though_nothing_drifted(copy):
    lock = copy / "dvc.lock"
    content = read_yaml(lock.read_text())
    content["stages"]["slice"]["outs"][0]["md5"] = content["stages"]["normalize"]["deps"][0]["md5"] = "0" * 32
    lock.write_text(dump_yaml(content))
    assert failing(copy) == {ROWS["slice"]: "data/slices.txt"}


def test_a_figure_edited_by_hand_is_caught_before_and_after_a_run(copy):
    summary = copy / "metrics/summary.json"
    summary.write_text(summary.read_text().replace("0.8", "0.81"))
    commit(copy)
    assert failing(copy) == {ROWS["git"]: "metrics/summary.json"}
    succeed(copy, "dvc", "repro")
    assert failing(copy) == {
        ROWS["git"]: "metrics/summary.json",
        ROWS["figures"]: "accuracy of rotation: 0.8 for 0.81",
    }


def test_a_figure_edited_in_the_lock_too_is_caught_when_the_results_were_cleared(copy):
    summary, lock = copy / "metrics/summary.json", copy / "dvc.lock"
    before = read_yaml(lock.read_text())["stages"]["report"]["outs"][0]["md5"]
    summary.write_text(summary.read_text().replace("0.8", "0.81"))
    succeed(copy, "dvc", "commit", "--force", "report")
    assert before not in lock.read_text().split("report:")[1].split("outs")[1]
    commit(copy)
    succeed(copy, sys.executable, str(SCRIPT), "clear")
    assert not summary.exists()
    assert (copy / "metrics/.gitkeep").exists()
    shutil.rmtree(copy / ".dvc/cache")  # a fresh clone has none
    succeed(copy, "dvc", "repro")
    assert failing(copy) == {ROWS["figures"]: "accuracy of rotation: 0.8 for 0.81"}


@pytest.mark.parametrize(("value", "found"), [(0.81, None), (0.79, "auroc of rotation: 0.79 for 0.9")])
def test_where_trained_bytes_differ_figures_have_a_tolerance(copy, value, found):
    (copy / "source/network.txt").write_text("another CPU")
    (copy / "source/summary.json").write_text(json.dumps(SUMMARY | {"auroc": {"rotation": value, "random": None}}))
    succeed(copy, "dvc", "repro")
    table = failing(copy)
    assert table.pop(ROWS["drift"])  # here a file of code plays the CPU
    assert table == ({ROWS["figures"]: found} if found else {})


def test_where_trained_bytes_differ_every_figure_is_asked(copy):
    (copy / "source/network.txt").write_text("another CPU")
    (copy / "source/summary.json").write_text(
        json.dumps(SUMMARY | {"accuracy": {"rotation": 0.1}, "f1": {"random": 0.1}, "unheard_of": {"random": 1}})
    )
    succeed(copy, "dvc", "repro")
    # Figures of slices called at 0.5 must be there, with any value.
    assert failing(copy)[ROWS["figures"]] == "accuracy of random: absent for 0.7; unheard_of of random: 1 for absent"


def test_where_trained_bytes_differ_a_figure_does_not_come_or_go(copy):
    (copy / "source/network.txt").write_text("another CPU")
    (copy / "source/summary.json").write_text(
        json.dumps(SUMMARY | {"auroc": {"rotation": None, "arm": 1, "random": None}})
    )
    succeed(copy, "dvc", "repro")
    assert failing(copy)[ROWS["figures"]] == "auroc of arm: 1 for absent; auroc of rotation: None for 0.9"


def test_a_stage_that_is_not_locked_or_gone_is_drift(copy):
    content = read_yaml((copy / "dvc.yaml").read_text())
    content["stages"]["newcomer"] = content["stages"].pop("report")
    (copy / "dvc.yaml").write_text(dump_yaml(content))
    succeed(copy, "dvc", "repro")
    lock = read_yaml((copy / "dvc.lock").read_text())
    del lock["stages"]["report"]  # DVC leaves it there
    (copy / "dvc.lock").write_text(dump_yaml(lock))
    assert failing(copy) == {ROWS["drift"]: "newcomer: not in the committed dvc.lock; report: no such stage any more"}


@pytest.mark.parametrize(("kind", "found"), [("failure", "test: failure"), ("skipped", "test: skipped")])
def test_a_test_that_failed_or_was_skipped_proves_nothing(copy, kind, found):
    (copy / "logs/tests.xml").write_text(TESTS.format(inside=f"<{kind}/>"))
    assert failing(copy) == {ROWS["killed"]: found}


def test_without_tests_nothing_is_proved(copy):
    (copy / "logs/tests.xml").unlink()
    assert set(failing(copy)) == {ROWS["forced"], ROWS["killed"]}
