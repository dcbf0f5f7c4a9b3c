"""Cross-validation of a small study through DVC, killed on the way: the folds, their summary, and the workspace."""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from project_copy import Project, repository

from stages.folds import COPIES

ARMS = ("random", "rotation")


def deadline(seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.2)
    raise AssertionError(f"nothing within {seconds} s")


@dataclass(frozen=True)
class Crossed:
    """A study of two folds that was killed in the second one and run again."""

    project: Project
    before: dict[str, bytes]
    after_kill: dict[str, bytes]
    output: str


def state(project: Project) -> dict[str, bytes]:
    """What a person has in the workspace: every file that is in git or could be, but for what folds writes."""
    listed = project.succeed("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    names = set(listed) - {"metrics/folds.json", "report/folds.md"}
    return {name: path.read_bytes() for name in names if (path := project.folder / name).exists()}


def figures(project: Project, fold: int, name: str) -> Any:
    """A file of a fold's experiment, from git alone."""
    reference = project.succeed("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/fold-{fold}").strip()
    return json.loads(project.succeed("git", "show", f"{reference}:metrics/{name}.json"))


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Crossed:
    project = repository(tmp_path_factory.mktemp("folds") / "project")
    study = project.params
    study["arms"] = {name: study["arms"][name] for name in ARMS}
    study["pretrain"]["methods"] = {"rotation-0": study["pretrain"]["methods"]["rotation-0"]}
    study["analysis"]["contrasts"], study["extra_runs"] = [], []
    study["data"] |= {"folds": 2, "validation": 0.3}
    # Uncommitted, with a remark that must not be lost either.
    (project.folder / "params.yaml").write_text("# mine\n" + yaml.safe_dump(study, sort_keys=False))
    before = state(project)
    log = project.folder / "logs/folds.txt"
    log.parent.mkdir()
    command = ["python", "-m", "stages.folds", "2"]
    with log.open("w") as stream:
        first = subprocess.Popen(
            command, cwd=project.folder, env=project.environment, stdout=stream, stderr=stream, start_new_session=True
        )
    for _ in deadline(900):
        assert first.poll() is None, log.read_text()
        if "Running stage 'finetune" in log.read_text().partition("fold 1 of 2")[2]:
            break
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    return Crossed(project, before, state(project), project.succeed(*command))


def test_the_workspace_is_as_before_whenever_it_ends(crossed: Crossed) -> None:
    assert crossed.after_kill == crossed.before
    assert state(crossed.project) == crossed.before
    assert not list((crossed.project.folder / COPIES).glob("fold-*"))


def test_a_finished_fold_comes_out_of_the_cache(crossed: Crossed) -> None:
    first, second = crossed.output.split("fold 1 of 2")
    assert not re.findall("Running stage '(?!report)", first)
    assert "Running stage 'report'" in second


def test_every_case_is_tested_in_one_fold(crossed: Crossed) -> None:
    found = json.loads((crossed.project.folder / "metrics/folds.json").read_text())
    assert [fold["fold"] for fold in found["folds"]] == [0, 1]
    assert sum(fold["test_cases"] for fold in found["folds"]) == crossed.project.params["phantom"]["cases"]
    tested = [figures(crossed.project, fold, "evaluate/random-100-0")["selected"]["test"] for fold in (0, 1)]
    assert not set(tested[0]["per_case"]) & set(tested[1]["per_case"])


def test_values_are_those_of_the_experiments(crossed: Crossed) -> None:
    found = json.loads((crossed.project.folder / "metrics/folds.json").read_text())["figures"]
    for figure in ("accuracy", "auroc", "f1_optimism"):
        values = [[figures(crossed.project, fold, "summary")[figure][arm] for fold in (0, 1)] for arm in ARMS]
        for arm, of_arm in zip(ARMS, values, strict=True):
            assert found[figure][arm]["values"] == of_arm
            assert found[figure][arm]["mean"] == pytest.approx(sum(of_arm) / 2, abs=1e-6)
        less = [b - a for a, b in zip(*values, strict=True)]
        assert found[figure]["rotation"]["difference"]["values"] == pytest.approx(less, abs=1e-6)
    text = (crossed.project.folder / "report/folds.md").read_text()
    assert all(f"| {arm} | " in text for arm in ARMS)


def test_experiments_stand_beside_the_workspace(crossed: Crossed) -> None:
    shown = json.loads(crossed.project.succeed("dvc", "exp", "show", "--json"))
    assert {one["revs"][0]["name"] for branch in shown for one in branch.get("experiments") or []} == {
        "fold-0",
        "fold-1",
    }


def test_without_a_commit_it_says_so(tmp_path: Path) -> None:
    project = Project.copy_to(tmp_path / "project")
    project.succeed("git", "init", "--quiet")
    ended = project.stage("folds")
    assert ended.returncode == 1
    assert "there is none here: `git commit` first" in ended.stderr


def test_a_wrong_number_of_workers_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    ended = project.stage("folds", "none")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: workers: 'none' is no number")
    assert not (project.folder / COPIES).exists()
