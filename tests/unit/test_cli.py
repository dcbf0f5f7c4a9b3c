"""The command `kidney-ssl`: what each subcommand starts, shows or refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kidney_ssl.augmentations import AUGMENTATIONS
from kidney_ssl.cli import main
from kidney_ssl.data.phantom import write_case
from kidney_ssl.methods import METHODS, load

ROOT = Path(__file__).parents[2]


class BecameError(Exception):
    """Instead of the process that would take this one's place."""


@pytest.fixture
def became(monkeypatch) -> list[tuple[list[str], dict[str, str]]]:
    """Commands and environments with which this process was to go on."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def note(file: str, command: list[str], environment: dict[str, str]) -> None:
        found.append((command, environment))
        raise BecameError

    monkeypatch.setattr(os, "execvpe", note)
    return found


@pytest.fixture
def study(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for name in ("dvc.yaml", "params.yaml"):
        Path(name).touch()
    Path("stages").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "started"),
    [
        ("run", ["-m", "stages"]),
        ("run 4", ["-m", "stages", "4"]),
        ("plan 2", ["-m", "stages.plan", "2"]),
        ("status", ["-m", "stages.status"]),
        ("folds", ["-m", "stages.folds", "", ""]),
        ("folds 2 --study lits", ["-m", "stages.folds", "2", "lits"]),
    ],
)
def test_a_command_on_a_study_runs_the_stages_of_its_folder(study: Path, became, words: str, started) -> None:
    with pytest.raises(BecameError):
        main(words.split())
    ((command, environment),) = became
    assert command == [sys.executable, *started]
    # `python` in dvc.yaml and `dvc` are those beside this interpreter, whether or not its environment is active.
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_plan_for_another_machine_reads_its_rates(study: Path, became) -> None:
    with pytest.raises(BecameError):
        main(["plan", "--device-rates", "gpu.json"])
    assert became[0][1]["DEVICE_RATES"] == "gpu.json"
    assert "RATES" not in {*became[0][1]} - {*os.environ}


def test_a_report_is_named_or_written_again(study: Path, became, capsys) -> None:
    with pytest.raises(SystemExit, match="not written yet"):
        main(["report"])
    with pytest.raises(BecameError):
        main(["report", "--again"])
    assert became[0][0] == ["dvc", "repro", "--quiet", "--force", "--single-item", "report"]
    Path("report").mkdir()
    Path("report/index.html").touch()
    main(["report"])
    assert capsys.readouterr().out == "report/index.html\n"


@pytest.mark.parametrize("words", ["run", "plan", "status", "report", "folds"])
def test_a_folder_without_a_study_is_refused_in_one_line(tmp_path: Path, monkeypatch, became, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"no study in .*kidney-ssl init") as refused:
        main(words.split())
    assert "\n" not in str(refused.value)
    assert became == []


@pytest.mark.parametrize("words", [["clean"], ["sweep", "2/3"]])
def test_a_study_that_holds_its_own_code_is_served_by_that_code(study: Path, became, words: list[str]) -> None:
    own = study / "src/kidney_ssl"
    own.mkdir(parents=True)
    with pytest.raises(BecameError):
        main(words)
    ((command, environment),) = became
    assert command == [sys.executable, "-m", "kidney_ssl.cli", *words]
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(own.parent)


def test_init_writes_a_whole_study_under_git_and_refuses_a_second_one(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "deep" / "mine"
    main(["init", str(folder), "--study", "kits23"])
    assert f"cd {folder}" in capsys.readouterr().out
    assert (folder / "params.yaml").read_bytes() == (ROOT / "studies/kits23.yaml").read_bytes()
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=folder, capture_output=True, check=True
    )
    written = set(listed.stdout.decode().split())
    assert {"dvc.yaml", "stages/__main__.py", "src/kidney_ssl/cli.py", ".dvc/config", ".gitignore"} <= written
    assert not [name for name in written if name.endswith(".pyc")]
    for name in written - {"params.yaml"}:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    with pytest.raises(SystemExit, match="is not empty"):
        main(["init", str(folder)])


def test_init_leaves_the_git_of_an_outer_repository_alone(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    main(["init", str(tmp_path / "study")])
    assert not (tmp_path / "study/.git").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [("--study absent", "no study 'absent', known: budgets, kits23, lits, smoke"), ("taken", "taken")],
)
def test_init_refuses_what_it_cannot_write(tmp_path: Path, monkeypatch, words: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    if words == "taken":
        Path("taken").touch()
    with pytest.raises(SystemExit, match=said) as refused:
        main(["init", *words.split()])
    assert "\n" not in str(refused.value)


def test_every_command_is_in_the_documentation(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    names = re.findall(r"^    ([a-z]+) ", capsys.readouterr().out, re.MULTILINE)
    assert {"init", "clinical", "views"} <= set(names)
    page = (ROOT / "docs/reference/commands.md").read_text()
    assert [name for name in names if f"| `kidney-ssl {name}" not in page] == []


def test_every_method_and_augmentation_is_listed_with_a_sentence(capsys) -> None:
    main(["methods"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert {name for name, _ in lines} == {*METHODS, *AUGMENTATIONS}
    assert all(len(line) > 20 for _, line in lines)


# One that is shown images, one that reads masks, one that reads places.
@pytest.mark.parametrize("method", ["rotation", "oracle", "slice_order"])
def test_the_views_of_a_method_are_drawn(tmp_path: Path, capsys, method: str) -> None:
    out = tmp_path / "deep" / "drawn.png"
    main(["views", method, "--size", "48", "--slices", "3", "--to", str(out)])
    assert capsys.readouterr().out == f"{out}\n"
    drawn = np.asarray(Image.open(out).convert("L"))
    assert drawn.shape[0] > 3 * 48
    assert len(np.unique(drawn)) > 50


def test_the_views_of_a_given_volume_are_those_of_that_volume(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        write_case(Path(f"case_{number}"), number, size=48, slices=0.3, seed=0)
        main(["views", "rotation", "--size", "48", "--case", f"case_{number}/imaging.nii.gz", "--to", f"{number}.png"])
    assert Path("1.png").read_bytes() != Path("2.png").read_bytes()
    assert not load("rotation").reads_masks
    with pytest.raises(SystemExit, match="oracle: the method reads masks"):
        main(["views", "oracle", "--case", "case_1/imaging.nii.gz"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent"], "unknown pretext method 'absent', known: barlow_twins"),
        (["rotation", "--options", "[1]"], "--options: give a mapping"),
        (["rotation", "--options", "{angle: 3}", "--size", "32"], "rotation: options.angle: "),
        (["rotation", "--slices", "1"], "--slices: at least 2"),
        (["rotation", "--to", "a.jpg"], "a.jpg is no .png"),
        (["rotation", "--case", "absent.nii"], "absent.nii: no such file"),
    ],
)
def test_views_refuses_bad_input_in_one_line(tmp_path: Path, monkeypatch, words: list[str], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        main(["views", *words])
    assert str(refused.value).startswith("error: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_shell_completes_commands_options_and_paths(tmp_path: Path) -> None:
    script = subprocess.run(
        [sys.executable, "-m", "kidney_ssl.cli", "--print-completion", "bash"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "completion.bash").write_text(script)
    (tmp_path / "scan.nii.gz").touch()

    def completed(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("kidney-ssl", *words))
        asked = (
            f"source completion.bash; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
            f"_shtab_kidney_ssl kidney-ssl '{words[-1]}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        ran = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
        return ran.stdout.split()

    assert completed("pre") == ["predict"]
    assert completed("predict", "--any") == ["--anyway"]
    assert completed("predict", "network", "sca") == ["scan.nii.gz"]
