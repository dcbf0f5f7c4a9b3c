"""What stages run in: whatever goes wrong ends in one line, with the place of the rest."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kidney_ssl.errors import InputError
from stages import run as runner
from tests.project_copy import ROOT


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function: what a stage `download` that does something says on its end; None if it ends well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/download.py"])
    monkeypatch.setattr(runner.warnings, "showwarning", None)
    for name in ("DVC_STAGE", "KIDNEY_PARENT", *runner.launcher.VARIABLES):
        monkeypatch.delenv(name, raising=False)

    def call(work) -> str | None:
        try:
            runner.run(work)
        except SystemExit as end:
            said = end.code
        else:
            return None
        assert isinstance(said, str)  # so Python prints it and ends with 1
        assert "\n" not in said
        return said

    return call


def raising(error: Exception):
    def main() -> None:
        raise error

    return main


class OddError(Exception):
    """An exception of a library."""


@pytest.mark.parametrize(
    "error", [KeyError("slices"), OddError("of\nmany lines"), AssertionError(), OSError("odd"), RecursionError("deep")]
)
def test_what_nobody_expected_ends_in_its_type_and_the_place_of_its_traceback(error, ended, tmp_path: Path) -> None:
    said = ended(raising(error))
    assert type(error).__name__ in said
    log = Path(re.search(r"\(all of it in (.+)\)$", said)[1])
    assert log.parent == Path("logs")
    assert "raise error" in (tmp_path / log).read_text()
    assert not list(tmp_path.glob("checkpoints/running/*.json"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EFBIG])
def test_what_the_system_refuses_names_the_file_and_needs_no_traceback(number: int, ended, tmp_path: Path) -> None:
    said = ended(raising(OSError(number, os.strerror(number), "data/slices/train.csv")))
    assert "data/slices/train.csv" in said
    assert os.strerror(number) in said
    assert not list(tmp_path.glob("logs/*error.log"))


def test_ctrl_c_is_one_line_and_the_status_of_an_interrupt(
    ended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        runner.run(main)
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted; `dvc repro` continues from here\n"
    assert not list(tmp_path.glob("checkpoints/running/*.json"))


def test_full_memory_names_what_to_lower(ended) -> None:
    assert "compute.workers" in ended(raising(MemoryError("Unable to allocate 9 GiB")))


def test_bad_input_is_said_as_it_is(ended) -> None:
    assert ended(raising(InputError("data.root: no such folder"))) == "error: data.root: no such folder"


@pytest.mark.filterwarnings("default")  # a stage shows them and goes on
def test_logs_that_may_not_be_written_cost_no_result(ended, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    lines = []
    monkeypatch.setattr("builtins.print", lambda *said, **_: lines.append(*said))
    assert ended(lambda: None) is None
    assert any("logs/download.json" in line for line in lines)
    log = Path(re.search(r"\(all of it in (.+)\)$", ended(raising(KeyError("a"))))[1])
    assert log.is_absolute()
    assert "KeyError" in log.read_text()
    log.unlink()


def test_a_rank_that_another_launcher_left_takes_no_claim_and_no_log_away(ended, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    claims = []
    assert ended(lambda: claims.extend(tmp_path.glob("checkpoints/running/*.json"))) is None
    assert [path.name for path in claims] == ["download.json"]
    assert (tmp_path / "logs/download.json").exists()


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_stage_runs_the_code_of_its_own_folder_whatever_is_installed(tmp_path: Path) -> None:
    """As in a git worktree whose environment has another one's package."""
    (tmp_path / "kidney_ssl").mkdir()
    (tmp_path / "kidney_ssl/__init__.py").write_text('"""Another one."""\n')
    # What an editable install, a .pth file or PYTHONPATH put before.
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.path.insert(0, '.')\n"
    show = "import kidney_ssl, os, subprocess; print(kidney_ssl.__file__, flush=True)\n"
    child = (
        "subprocess.run([sys.executable, '-c', 'import kidney_ssl; print(kidney_ssl.__file__)'], cwd='/', check=True)"
    )
    ended = python(f"{code}import stages\n{show}{child}", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(ROOT / "src/kidney_ssl/__init__.py")] * 2


def test_a_stage_stops_where_the_package_of_another_folder_is_imported_already(tmp_path: Path) -> None:
    (tmp_path / "kidney_ssl").mkdir()
    (tmp_path / "kidney_ssl/__init__.py").write_text('"""Another one."""\n')
    ended = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.path.append('.')\nimport kidney_ssl, stages"
    )
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert str(tmp_path / "kidney_ssl") in ended.stderr
    assert str(ROOT / "src") in ended.stderr


def test_a_notebooks_backend_and_a_user_without_a_name_stop_no_figure_and_no_library() -> None:
    code = """
import getpass, os, pwd
def nameless(_):
    raise KeyError("getpwuid(): uid not found: 12345")
pwd.getpwuid = nameless
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
import stages
from matplotlib import pyplot
pyplot.figure()
print(getpass.getuser(), pyplot.get_backend())
"""
    ended = python(code, MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [f"user{os.getuid()}", "agg"]
