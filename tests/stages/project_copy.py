"""Copies of the project in temporary folders, in which stages run as a person runs them."""

import os
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
import yaml

ROOT = Path(__file__).parents[2]


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

    @property
    def params(self) -> Any:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def change(self, changes: dict[str, Any]) -> None:
        """Set keys of params.yaml, each given with dots."""
        content = self.params
        for key, value in changes.items():
            *blocks, last = key.split(".")
            place = content
            for block in blocks:
                place = place[block]
            place[last] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

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


needs_mounts = pytest.mark.skipif(
    not works_here(*MOUNTS, "mount", "-t", "tmpfs", "none", tempfile.gettempdir()),
    reason="this machine lets nobody mount in a namespace of their own: unshare is absent or not allowed",
)


def repository(folder: Path) -> Project:
    """A copy under git, as DVC wants it, in which nothing has run."""
    project = Project.copy_to(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    project.succeed("git", "init", "--quiet")
    project.succeed("git", "add", "--all")
    project.succeed("git", "commit", "--quiet", "--message", "copy")
    return project
