"""Clinical endpoints of cases: the tasks, and their labels from KiTS23's kits23.json or a file in its layout.

The file is pinned by the commit of `kits23.labels_revision`; its sha256 stands in the results.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import (  # type: ignore[attr-defined] # public, but exported in a way mypy does not see
    hf_raise_for_status,
    http_backoff,
)

from kidney_ssl.data import fetch
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.files import replacing

Labels = dict[str, dict[str, int | None]]  # task -> case -> 0, 1, or None if unknown


@dataclass(frozen=True)
class Task:
    """A question about a case.

    Attributes:
        key: key of a case's entry in kits23.json.
        classes: names of labels 0 and 1.
        labels: what may stand there, as JSON -> the label; None if it is unknown.
    """

    key: str
    classes: tuple[str, str]
    labels: Mapping[str, int | None]


TASKS = {
    "grade": Task(
        "tumor_isup_grade",
        ("grade 1-2", "grade 3-4"),
        {'"1"': 0, '"2"': 0, '"3"': 1, '"4"': 1, '"na"': None, "null": None},
    ),
    "malignant": Task("malignant", ("benign", "malignant"), {"false": 0, "true": 1, "null": None}),
}


def fetch_labels(store: Path, *, endpoint: str, repository: str, revision: str, timeout: float) -> Path:
    """Find kits23.json of a commit in the store, or download it there.

    Args:
        store: folder of KiTS23's volumes.
        endpoint: server of GitHub's raw files.
        repository: repository on GitHub.
        revision: its commit, which is part of the file's name in the store.
        timeout: seconds without a byte.

    Raises:
        InputError: it cannot be fetched or written, or is no such file.
    """
    path = store / f"kits23-{revision}.json"
    if path.exists():
        return path
    url = f"{endpoint.rstrip('/')}/{repository}/{revision}/dataset/kits23.json"
    patience: dict[str, Any] = {"max_retries": fetch.RETRIES, "base_wait_time": fetch.FIRST_WAIT_S}
    try:
        # No headers of the hub: its token is not for this server.
        response = http_backoff("GET", url, timeout=timeout, max_wait_time=fetch.LONGEST_WAIT_S, **patience)
        hf_raise_for_status(response)
    except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
        status = f"HTTP {error.response.status_code}" if isinstance(error, HfHubHTTPError) else ""
        said = status or one_line(str(error)) or type(error).__name__
        raise InputError(f"{url}: cannot be fetched ({said}); or give a local file, --labels FILE") from error
    parse_labels(response.content, url)  # a proxy's page must not be kept
    try:
        with replacing(path) as beside:
            beside.write_bytes(response.content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); set data.raw_dir to another folder") from error
    return path


def read_labels(path: Path) -> tuple[Labels, str]:
    """Read the labels of every task, and the file's sha256.

    Raises:
        InputError: see `parse_labels`; or the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_labels(content, str(path)), hashlib.sha256(content).hexdigest()


def parse_labels(content: bytes, where: str) -> Labels:
    """Labels of every task from the content of kits23.json, a list of one object a case.

    Raises:
        InputError: it is in another layout, a case stands there twice, or a value is none of its task's. `where` is the
            file's name for the message.
    """
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no whole JSON file ({one_line(str(error))}); delete it, or name another") from error
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("case_id"), str) for entry in entries
    ):
        raise InputError(f"{where}: must be a list of objects with a case_id, as KiTS23's kits23.json")
    found: Labels = {name: {} for name in TASKS}
    for entry in entries:
        case = entry["case_id"]
        for name, task in TASKS.items():
            # As JSON, since true and 1 are equal in Python. A missing key is no null: it may be misspelled.
            value = json.dumps(entry[task.key]) if task.key in entry else "missing"
            if value not in task.labels:
                known = ", ".join(task.labels)
                raise InputError(f"{where}: {one_line(case)}: {task.key} is {one_line(value)}; known are {known}")
            if case in found[name]:
                raise InputError(f"{where}: {one_line(case)} stands there twice: remove one")
            found[name][case] = task.labels[value]
    return found
