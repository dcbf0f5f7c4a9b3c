"""`make check` fails for a known vulnerability, and for nothing else that pip-audit may say."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = {"name": "-e -", "skip_reason": "no version"}
SKIPPED = {"name": "dask", "skip_reason": "not found on PyPI"}
GOOD = {"name": "numpy", "version": "2.4.6", "vulns": []}
BAD = {"name": "torch", "version": "2.0", "vulns": [{"id": "PYSEC-1"}, {"id": "CVE-2"}]}


@pytest.mark.parametrize(
    ("answer", "line", "code"),
    [
        ([OWN, GOOD, SKIPPED], "1 of 2 requirements looked up; no vulnerability known", 0),
        ([OWN, GOOD, BAD], "2 of 2 requirements looked up; torch 2.0: PYSEC-1; torch 2.0: CVE-2", 1),
        ([OWN, SKIPPED], "0 of 1 requirements looked up; the network answers for none", 0),
        (None, "no answer from the network, nothing was looked up", 0),
    ],
)
def test_only_a_vulnerability_that_was_found_fails(answer, line: str, code: int, tmp_path: Path) -> None:
    said = "" if answer is None else json.dumps({"dependencies": answer})
    (tmp_path / "pip_audit.py").write_text(f"print({said!r})\nraise SystemExit({code if answer else 1})\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, ".ci/audit.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.returncode) == (f"pip-audit: {line}\n", code)
