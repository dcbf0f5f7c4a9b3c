"""The lock of one piece of work: who holds it, and that a killed process does not."""

import os
import signal
import subprocess
import sys

import pytest

from kidney_ssl.errors import InputError
from kidney_ssl.training.exclusive import exclusive

HOLD = """
import sys
from pathlib import Path
from kidney_ssl.training.exclusive import exclusive
with exclusive(Path(sys.argv[1]), "arm"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_does_not_start_and_a_killed_one_holds_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match=f"arm: already at work in process {holder.pid} on .* since"),
            exclusive(tmp_path, "arm"),
        ):
            pass
        with exclusive(tmp_path, "other"):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert (tmp_path / "arm.lock").exists()
    with exclusive(tmp_path, "arm"):
        assert str(os.getpid()) in (tmp_path / "arm.lock").read_text()
    assert list(tmp_path.iterdir()) == []
