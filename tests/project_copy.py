"""Copies of the project in temporary folders, in which stages run as a person runs them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kidney_ssl.yamlfile import dump_yaml, read_yaml

ROOT = Path(__file__).parents[1]
LARGE = 1 << 20  # bytes
# Stages one after the other in one process, which takes its seconds of imports once; a NUL after what each says.
SEVERAL = """
import runpy, sys
for words in sys.argv[1:]:
    stage, *arguments = words.split()
    sys.argv = [f"stages/{stage}.py", *arguments]
    runpy.run_module(f"stages.{stage}", run_name="__main__")
    print(end="\\0", flush=True)
"""


@dataclass(frozen=True)
class Project:
    """A copy of the project's files, with a study of its own in params.yaml."""

    folder: Path

    @classmethod
    def copy_to(cls, folder: Path, study: str = "smoke") -> "Project":
        """What is in git or about to be, as it stands in the working tree."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in listed.stdout.split("\0"):
            if name and (ROOT / name).is_file() and not name.startswith("tests/"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        shutil.copyfile(folder / "studies" / f"{study}.yaml", folder / "params.yaml")
        return cls(folder)

    def linked(self, folder: Path) -> "Project":
        """A copy with all that was made, large files by hard links: whoever replaces a file leaves the other alone."""

        def copy(source: str, target: str) -> None:
            large = Path(source).stat().st_size > LARGE
            (os.link if large else shutil.copy2)(source, target)

        shutil.copytree(self.folder, folder, copy_function=copy, symlinks=True)
        return Project(folder)

    @property
    def environment(self) -> dict[str, str]:
        """The copy's code, the tests' interpreter, no settings of this machine's git and DVC, and no network."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))}
        binaries = str(Path(sys.executable).parent)
        return kept | {
            "PATH": binaries + os.pathsep + kept.get("PATH", ""),
            "PYTHONPATH": str(self.folder / "src"),
            "CI": "true",
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": "1",  # see conftest.py
            "DVC_SITE_CACHE_DIR": str(self.folder.with_name(f"{self.folder.name}-site-cache")),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.org",
            # Nothing listens there: whoever tries the network fails at once.
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def stage(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a stage as dvc.yaml does."""
        return self.run("python", "-m", f"stages.{name}", *arguments)

    def succeed(self, *command: str) -> str:
        """Run a command that must end well; what it prints."""
        ended = self.run(*command)
        assert ended.returncode == 0, f"{' '.join(command)}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def stages(self, *commands: str) -> list[str]:
        """Run stages that must end well, such as "slice" or "finetune random", in one process; what each says."""
        return self.succeed("python", "-c", SEVERAL, *commands).split("\0")[:-1]

    def stored(self) -> dict[str, str]:
        """The trainings in the run store: key -> what each is, as "finetune random 100-0"."""
        entries = (self.folder / "checkpoints/store/runs").glob("*/entry.json")
        return {path.parent.name: json.loads(path.read_text())["described"]["job"] for path in entries}

    def unfinished(self) -> list[str]:
        """What interrupted trainings and processes left: checkpoints, workspaces and claims."""
        folder = self.folder / "checkpoints"
        left = [*folder.glob("store/unfinished/*"), *folder.glob("store/claims/*.json"), *folder.glob("running/*.json")]
        return sorted(str(path.relative_to(folder)) for path in left)

    @property
    def params(self) -> Any:
        return read_yaml((self.folder / "params.yaml").read_text())

    def change(self, changes: dict[str, Any]) -> None:
        """Set keys of params.yaml, each given with dots."""
        content = self.params
        for key, value in changes.items():
            *blocks, last = key.split(".")
            place = content
            for block in blocks:
                place = place[block]
            place[last] = value
        (self.folder / "params.yaml").write_text(dump_yaml(content))

    @contextmanager
    def changed(self, changes: dict[str, Any]) -> Iterator[None]:
        """Set keys of params.yaml for a while."""
        before = (self.folder / "params.yaml").read_bytes()
        self.change(changes)
        try:
            yield
        finally:
            (self.folder / "params.yaml").write_bytes(before)


MOUNTS = ("unshare", "--map-root-user", "--mount")  # whoever runs in it may mount, and no one else sees it


@cache
def works_here(*command: str) -> bool:
    """Whether this machine has a command and lets it run."""
    return bool(shutil.which(command[0])) and not subprocess.run(command, capture_output=True, check=False).returncode


def running(output: str) -> list[str]:
    """The stages that `dvc repro` or `make repro` says to run."""
    return re.findall(r"^(?:Running stage '|stage )([^'\n]+)", output, re.MULTILINE)


needs_mounts = pytest.mark.skipif(
    not works_here(*MOUNTS, "mount", "-t", "tmpfs", "none", tempfile.gettempdir()),
    reason="this machine lets nobody mount in a namespace of their own: unshare is absent or not allowed",
)


def repository(folder: Path) -> Project:
    """A copy under git, as DVC wants it, in which nothing has run."""
    project = Project.copy_to(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    for name in ("code", "metrics", "plots"):
        shutil.rmtree(folder / name, ignore_errors=True)
    project.succeed("git", "init", "--quiet")
    project.succeed("git", "add", "--all")
    project.succeed("git", "commit", "--quiet", "--message", "copy")
    return project
