"""One thin entry point per stage: `python -m stages.<name>`; dvc.yaml calls them.

A stage runs the code of its own checkout, whichever `kidney_ssl` is installed. In a git worktree, or in DVC's copy for
an experiment, an editable install points to another folder, while dvc.lock records the code of this one.
"""

import gc
import getpass
import os
import sys
from pathlib import Path

# Importing torch creates millions of long-lived objects; garbage collection meanwhile only costs time.
gc.disable()
# No telemetry.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Figures are files; the shell of a notebook sets a backend that exists only there.
os.environ["MPLBACKEND"] = "agg"
try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user without a name, for which DVC and other libraries fail
    os.environ["USER"] = f"user{os.getuid()}"

SOURCE = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(SOURCE))
# For workers and other child processes.
given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join([str(SOURCE), *(one for one in given if one not in ("", str(SOURCE)))])

import kidney_ssl  # noqa: E402 - by the path above

if Path(kidney_ssl.__file__).resolve().parents[1] != SOURCE:
    sys.exit(f"error: kidney_ssl was imported from {kidney_ssl.__file__}, but the code of these stages is {SOURCE}")
