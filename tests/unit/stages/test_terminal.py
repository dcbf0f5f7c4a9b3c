"""What `make repro` says before it starts and at the end."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from kidney_ssl.engine.store import RunStore
from stages.terminal import announcement, changed_results, command, duration, estimate, outcome, report_line, stored

FILES = ("dvc.lock", "dvc.yaml", "params.yaml", "metrics/summary.json", "plots/curves.csv", "src/a.py", "stages/b.py")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in FILES:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("committed\n")
    Path("Makefile").touch()
    return tmp_path


def commit() -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *words], check=True)


def test_committed_results_are_as_committed(project: Path) -> None:
    commit()
    (line,) = changed_results()
    assert "as committed" in line


def test_changed_results_are_named_with_how_to_take_them_back(project: Path) -> None:
    commit()
    for name in ("dvc.lock", "metrics/summary.json", "plots/curves.csv"):
        (project / name).write_text("of this machine\n")
    said = changed_results()
    assert all(name in said[0] for name in ("dvc.lock", "metrics/summary.json", "plots/curves.csv"))
    assert "CPU or GPU" in said[0]
    command = said[1].split("`")[1].partition(" && ")[0]
    subprocess.run(command.split(), check=True, capture_output=True)
    assert len(changed_results()) == 1


@pytest.mark.parametrize("source", ["params.yaml", "dvc.yaml", "src/a.py", "stages/b.py"])
def test_results_of_another_study_or_other_code_name_what_changed(source: str, project: Path) -> None:
    commit()
    for name in (source, "metrics/summary.json"):
        (project / name).write_text("changed\n")
    (line,) = changed_results()
    assert "metrics/summary.json" in line
    assert f"since {source.partition('/')[0]} changed" in line
    assert "CPU" not in line


def test_new_results_are_to_be_committed_and_no_sign_of_another_machine(project: Path) -> None:
    commit()
    (project / "metrics/new.json").write_text("not in git\n")
    (line,) = changed_results()
    assert "metrics/new.json" in line
    assert "CPU" not in line


def test_without_a_repository_or_without_git_nothing_is_said_of_it(project: Path, monkeypatch) -> None:
    assert changed_results() == []
    monkeypatch.setenv("PATH", str(project))
    assert changed_results() == []


def jobs(*names: str) -> list:
    return [SimpleNamespace(name=name) for name in names]


def took(name: str, seconds: float) -> None:
    Path("logs", name).parent.mkdir(parents=True, exist_ok=True)
    Path("logs", f"{name}.json").write_text(json.dumps({"seconds": seconds}))


TO_RUN = {"slice", "pretrain@simclr", "finetune@a", "finetune@b", "evaluate@a"}
MISSING = ("pretrain simclr 0", "finetune a 100-0", "finetune a 100-1", "finetune b 100-0")


def test_the_time_follows_from_what_stages_and_trainings_took_last_time(project: Path, monkeypatch) -> None:
    monkeypatch.setattr("stages.terminal.STAGE", 1000)
    took("slice", 5)
    took("evaluate/b", 7)  # stands for that of a, which never ran
    for name, seconds in {"pretrain/simclr-0": 100, "finetune/a-100-0": 40, "finetune/a-100-1": 50}.items():
        took(name, seconds)
    # One worker pretrains for 100 s, the other one fine-tunes 40 + 50 s and then b, which takes the mean of the others.
    seconds, source = estimate(TO_RUN, jobs(*MISSING), 2)
    assert seconds == 5 * 1000 + 5 + 7 + (40 + 50 + 45)
    assert "last run" in source
    assert duration(seconds) in announcement(TO_RUN, jobs(*MISSING), 2)


def test_a_plan_that_is_newer_than_the_parameters_says_what_trainings_take(project: Path, monkeypatch) -> None:
    monkeypatch.setattr("stages.terminal.STAGE", 0)
    for name in ("slice", "evaluate/a", "pretrain/simclr-0", "finetune/a-100-0"):
        took(name, 1)
    Path("logs/plan.json").write_text(json.dumps(dict.fromkeys(MISSING, 500.0)))
    assert estimate(TO_RUN, jobs(*MISSING), 1) == (2002, "by `make plan`")
    os.utime("logs/plan.json", (0, 0))
    assert estimate(TO_RUN, jobs(*MISSING), 1) == (6, "by the logs of the last run")


def test_where_nothing_ran_before_the_time_is_unknown(project: Path) -> None:
    took("evaluate/a", 1)
    assert estimate(TO_RUN, jobs(*MISSING), 1)[0] is None
    said = announcement(TO_RUN, jobs(*MISSING), 3)
    assert "make plan" in said
    assert "5 stages" in said
    assert "2 finetune" in said.splitlines()[0]
    assert "3 finetune" in said.splitlines()[1]


def test_a_folder_without_a_makefile_is_told_the_commands(project: Path) -> None:
    assert (command("run"), command("plan")) == ("make repro", "make plan")
    Path("Makefile").unlink()
    assert (command("run"), command("plan")) == ("kidney-ssl run", "kidney-ssl plan")
    assert "kidney-ssl plan" in announcement(TO_RUN, jobs(*MISSING), 3)


def test_what_is_stored_is_counted_in_trainings_and_gigabytes(project: Path) -> None:
    Path("store/runs/key").mkdir(parents=True)
    Path("store/runs/key/model").write_bytes(bytes(20_000_000))
    said = stored(RunStore(Path("store"), 5), done=3, of=8)
    assert said == "Stored: 3 of 8 trainings; 0.02 GB in store, of 5 GB"


def test_the_report_is_named_with_its_time_once_it_is_there(project: Path) -> None:
    assert report_line() == "Report: none yet"
    Path("report").mkdir()
    Path("report/index.html").touch()
    os.utime("report/index.html", (0, 86400 * 365))
    assert report_line().startswith("Report: report/index.html, written 197")


def test_a_finished_study_is_said_to_be_one() -> None:
    assert len(announcement([], [], 2).splitlines()) == 1


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (431, "7 min 11 s"), (3600 * 30 + 61, "30 h 1 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_end_says_time_answer_and_report(project: Path) -> None:
    Path("report").mkdir()
    Path("report/summary.md").write_text("# Study on phantom: 32 test cases\n\nNo arm did better.\n\n- more\n")
    time, answer, report = outcome(431)
    assert "7 min 11 s" in time
    assert answer == "No arm did better."
    assert "kidney-ssl report --again" in report  # there is no page yet
    Path("report/index.html").write_text("<p>No arm did better.</p>")
    assert outcome(431)[2].endswith("report/index.html")
