"""Which stages DVC would run. Not a stage: `make plan` and `make repro` use it."""

import json
from collections.abc import Collection, Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from kidney_ssl import config
from kidney_ssl.errors import InputError, one_line
from stages.code import versions
from stages.source import LISTING, listing

# Stages that check code, params.yaml or the folder of volumes, and make no result of the study.
LOOKS = {"code", "params", "source"}


def out_of_date() -> set[str]:
    """Names of the stages that would run: those out of date, and those downstream if their inputs change.

    A result that is missing here but in DVC's cache is checked out, not computed. Downstream of the stages `code` and
    `source` only the readers of a file that would change count: a comment in the code changes no file, nor does an
    unchanged directory.

    Raises:
        InputError: DVC cannot read the project.
    """
    from dvc.exceptions import DvcException  # noqa: PLC0415 - takes seconds to import
    from dvc.repo import Repo  # noqa: PLC0415 - as above

    try:
        with redirect_stderr(StringIO()), Repo(_wait_for_lock=True) as repo:  # without DVC's bars
            stale = {name for name, entries in repo.status().items() if any(map(_is_change, entries))}
            edited = _edited_files(stale)
            found = {
                stage
                for stage in repo.index.stages
                if stage.addressing in stale
                or any(not out.exists and out.changed_cache() for out in stage.outs)
                or any(Path(dep.fs_path) in edited for dep in stage.deps)
            }
            reached = {stage for stage in found if stage.addressing not in LOOKS}
            while reached:  # an edge leads from a stage to one that it reads from
                reached = {reader for one in reached for reader in repo.index.graph.predecessors(one)} - found
                found |= reached
            return {str(stage.addressing) for stage in found}
    except DvcException as error:
        raise InputError(f"dvc status: {one_line(str(error))}") from error


def _is_change(entry: str | Mapping[str, Any]) -> bool:
    """Whether an entry of `dvc status` makes a stage run; a file that is only missing does not."""
    if isinstance(entry, str):
        return True  # "changed command", "always changed"
    found = [state for files in entry.values() for state in (files.values() if isinstance(files, Mapping) else [files])]
    return any(state != "deleted" for state in found)


def _edited_files(stale: Collection[str]) -> set[Path]:
    """Files that `code` and `source` would change if they ran."""
    edited = set()
    if "code" in stale:
        files = {Path("code", f"{name}.json"): version for name, version in versions().items()}
        edited = {file for file, found in files.items() if not file.exists() or json.loads(file.read_bytes()) != found}
    if "source" in stale and (
        not LISTING.exists() or LISTING.read_text(encoding="utf-8") != listing(config.load().data)
    ):
        edited.add(LISTING)
    return {file.resolve() for file in edited}
