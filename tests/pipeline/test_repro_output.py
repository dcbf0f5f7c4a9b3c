"""`make repro` as a person sees it: what it will do, the answer at the end, and nothing of DVC's own chatter."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kidney_ssl.errors import InputError
from kidney_ssl.yamlfile import read_yaml
from stages import watch

CHATTER = ("Running stage", "Updating lock file", "git add", "dvc push", "didn't change", "is cached")


def test_a_run_says_what_it_will_do_and_then_what_came_out(smoke_run, smoke_said):
    lines = smoke_said.splitlines()
    stages = read_yaml((smoke_run.folder / "dvc.lock").read_text())["stages"]
    assert f"{len(stages)} stages" in lines[0]
    assert re.search(rf"\b{len(smoke_run.stored())}\b.*\b2 at a time", lines[1])
    assert "make plan" in lines[2]
    summary = (smoke_run.folder / "report/summary.md").read_text()
    assert lines[-3] == summary.splitlines()[2]
    page = lines[-2].split()[-1]
    assert (smoke_run.folder / page).read_text().startswith("<!")
    assert "dvc.lock" in lines[-1]


def test_each_stage_and_training_has_a_line_where_there_is_no_terminal(smoke_run, smoke_said):
    lines = smoke_said.splitlines()
    assert {"stage slice", "stage normalize", "stage report"} <= set(lines)
    ended = {line.partition(": ")[0] for line in lines}
    assert set(smoke_run.stored().values()) <= ended


def test_what_dvc_says_is_in_the_log(smoke_run, smoke_said):
    log = (smoke_run.folder / "logs/repro.log").read_text()
    assert not [word for word in CHATTER if word in smoke_said]
    assert not [word for word in ("Running stage", "Updating lock file", "didn't change") if word not in log]
    assert "%|" not in smoke_said


def test_a_finished_study_says_so_and_gives_the_same_answer(smoke, smoke_said):
    said = smoke.succeed("python", "-m", "stages").splitlines()
    assert said[0] == "Nothing is out of date."
    assert said[-3:-1] == smoke_said.splitlines()[-3:-1]


def test_a_stage_that_fails_is_one_line_with_its_name_and_the_log(smoke):
    with smoke.changed({"select.min_tumor_px": 10**7}):
        ended = smoke.run("python", "-m", "stages", "2")
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: select: ")
    assert "logs/repro.log" in line
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "ERROR" not in ended.stdout + ended.stderr


class Shown:
    """Records what a bar is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def __getattr__(self, name):
        return lambda *text: self.told.extend((name, one) for one in text)


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """A real pipeline: a stage with a warning and a bar, one that fails with an error line, one that fails without."""
    script = "import sys, tqdm\nprint('warning: odd', file=sys.stderr)\nfor _ in tqdm.tqdm(range(3), 'cases'): pass\n"

    commands = {"a": "bar.py", "b": "-c 'import sys; sys.exit(\"error: case_1: bad\")'", "finetune": "-c 'exit(3)'"}
    stages = {name: {"cmd": f"{sys.executable} {command}"} for name, command in commands.items()}
    stages["a"]["outs"] = ["done"]
    Path(tmp_path, "bar.py").write_text(script + "open('done', 'w').write('a')\n")
    Path(tmp_path, "dvc.yaml").write_text(json.dumps({"stages": stages}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site-cache"))
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], check=True)
    return Shown()


def test_a_stage_is_named_its_bar_shown_and_counted_when_it_ended_or_was_skipped(shown):
    watch.repro(shown, "a")
    assert shown.told[0] == ("begin", "a")
    assert ("write", "warning: odd") in shown.told
    assert any(name == "detail" and text.startswith("cases: 100%") for name, text in shown.told)
    assert shown.told[-1] == ("end", "a")
    shown.told.clear()
    watch.repro(shown, "a")
    assert shown.told == [("end", "a")]


@pytest.mark.parametrize(("stage", "said"), [("b", "b: case_1: bad"), ("finetune", "failed to reproduce 'finetune'")])
def test_what_fails_is_named_and_not_counted(shown, stage, said):
    with pytest.raises(InputError, match=said):
        watch.repro(shown, "a", stage)
    assert [text for name, text in shown.told if name == "end"] == ["a"]


def test_asking_goes_on_behind_what_fails_and_names_no_stage_that_only_asks(shown):
    watch.ask(shown, Path("logs/ask.log"), {}, ["finetune"])
    assert [told for told in shown.told if told[0] in ("begin", "end")] == [
        ("begin", "a"),
        ("end", "a"),
        ("begin", "b"),
    ]
    assert ("write", "warning: odd") in shown.told
    assert "case_1: bad" in Path("logs/ask.log").read_text()
