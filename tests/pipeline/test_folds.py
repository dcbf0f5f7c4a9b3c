"""Cross-validation of a small study through DVC, killed on the way: the folds, their summary, and the workspace."""

import io
import json
import re
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from kidney_ssl.yamlfile import dump_yaml, read_yaml
from stages.folds import COPIES
from tests.project_copy import Project, repository, running

ARMS = ("random", "rotation")


def deadline(seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.2)
    raise AssertionError(f"nothing within {seconds} s")


@dataclass(frozen=True)
class Crossed:
    """A study of two folds that was killed in the second one, run again, and once more."""

    project: Project
    before: dict[str, bytes]
    after_kill: dict[str, bytes]
    left: list[str]
    output: str
    again: str


def state(project: Project) -> dict[str, bytes]:
    """What a person has in the workspace: every file that is in git or could be, but for what folds writes."""
    listed = project.succeed("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    names = set(listed) - {"metrics/folds.json", "report/folds.md"}
    return {name: path.read_bytes() for name in names if (path := project.folder / name).exists()}


def of_experiment(project: Project, fold: int, name: str) -> bytes:
    """A file of a fold's experiment, from git alone."""
    reference = project.succeed("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/fold-{fold}").strip()
    return project.succeed("git", "show", f"{reference}:{name}").encode()


def figures(project: Project, fold: int, name: str) -> Any:
    return json.loads(of_experiment(project, fold, f"metrics/{name}.json"))


def cached(project: Project, fold: int, path: str) -> bytes:
    """An output of a fold's experiment, from DVC's cache."""
    stages = read_yaml(of_experiment(project, fold, "dvc.lock"))["stages"]
    md5 = next(out["md5"] for stage in stages.values() for out in stage.get("outs", ()) if out["path"] == path)
    return (project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_bytes()


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Crossed:
    project = repository(tmp_path_factory.mktemp("folds") / "project")
    study = project.params
    study["arms"] = {name: study["arms"][name] for name in ARMS}
    study["pretrain"]["methods"] = {"rotation": study["pretrain"]["methods"]["rotation"]}
    study["analysis"]["contrasts"], study["runs"] = [], {100: [0]}
    study["data"] |= {"folds": 2, "validation": 0.3}
    # Uncommitted, with a remark that must not be lost either.
    (project.folder / "params.yaml").write_text("# mine\n" + dump_yaml(study))
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
        if "finetune random" in log.read_text().partition("fold 1 of 2")[2]:
            break
    first.kill()
    first.wait()
    for _ in deadline(900):
        if not (left := in_folder(project.folder)):
            break
    return Crossed(project, before, state(project), left, project.succeed(*command), project.succeed(*command))


def in_folder(folder: Path) -> list[str]:
    """Commands that run in a folder or below."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, FileNotFoundError):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def test_the_workspace_is_as_before_whenever_it_ends(crossed: Crossed) -> None:
    assert crossed.after_kill == crossed.before
    assert state(crossed.project) == crossed.before
    assert not list((crossed.project.folder / COPIES).glob("fold-*"))


def test_a_finished_fold_comes_out_of_the_cache(crossed: Crossed) -> None:
    first, second = crossed.output.split("fold 1 of 2")
    assert set(running(first)) <= {"code", "params"}  # the workspace has no lock, from which it would be known
    assert "report" in running(second)
    assert len(re.findall(r"^finetune \w+ 100-0: ", second, re.MULTILINE)) <= len(ARMS)


def test_nothing_outlives_the_killed_one(crossed: Crossed) -> None:
    assert crossed.left == []


def test_a_second_time_nothing_runs(crossed: Crossed) -> None:
    assert set(running(crossed.again)) <= {"code", "params"}
    assert not re.findall(r"^(pretrain|finetune|explain) .*: [\d.]+ s$", crossed.again, re.MULTILINE)


def test_folds_share_the_run_store(crossed: Crossed) -> None:
    # Two folds of one pretraining, and of a run and its maps of each arm.
    assert Counter(name.split()[0] for name in crossed.project.stored().values()) == Counter(
        {"pretrain": 2, "finetune": 2 * len(ARMS), "explain": 2 * len(ARMS)}
    )


def test_every_case_is_tested_in_one_fold(crossed: Crossed) -> None:
    found = json.loads((crossed.project.folder / "metrics/folds.json").read_text())
    assert [fold["fold"] for fold in found["folds"]] == [0, 1]
    assert sum(fold["test_cases"] for fold in found["folds"]) == crossed.project.params["phantom"]["cases"]
    tables = [pd.read_csv(io.BytesIO(cached(crossed.project, fold, "data/index/cases.csv"))) for fold in (0, 1)]
    tested = [set(table[table["split"] == "test"]["case"]) for table in tables]
    assert not tested[0] & tested[1]


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
    assert ended.stderr.startswith("error: ")
    assert "git commit" in ended.stderr


def test_a_wrong_number_of_workers_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    project = repository(tmp_path / "project")
    ended = project.stage("folds", "none")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: WORKERS: 'none'")
    assert not (project.folder / COPIES).exists()
