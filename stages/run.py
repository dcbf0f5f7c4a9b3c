"""The frame around every command of this folder: arguments, lock, one-line errors, and a log of time and memory.

Stages import it only when run as a command: no result depends on it, so it is not part of their code versions.
"""

import errno
import gc
import inspect
import os
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.engine.claims import claim_or_refuse
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.files import write_text
from kidney_ssl.jobs.pool import end_with_parent
from kidney_ssl.jsonfile import write_json
from stages import cache, launcher, mend

TOOLS = ("__main__", "folds", "mend", "plan", "status", "sweep")  # commands of this folder that are not stages

AGAIN = "then run `dvc repro` again; it continues from here"
RIGHTS = f"it belongs to another user or is read-only: ask its owner or use another folder, {AGAIN}"
# What to do about a file or folder, by the system's error.
FILES = {
    errno.EACCES: RIGHTS,
    errno.EFBIG: f"no file may be so large here: raise the limit (`ulimit -f`) or use another disk, {AGAIN}",
    errno.EMFILE: f"raise the limit of open files (`ulimit -n`) or lower compute.workers, {AGAIN}",
    errno.ENAMETOOLONG: "move the project to a shorter path, or shorten the name in params.yaml",
    errno.EDQUOT: f"free some space, {AGAIN}",
    errno.ENOENT: "run `dvc repro`, which makes it",
    errno.ENOSPC: f"free some space, {AGAIN}",
    errno.EPERM: RIGHTS,
    errno.EROFS: f"write elsewhere or mount it writable, {AGAIN}",
}


def run(main: Callable[..., None]) -> None:
    """Run a stage with the arguments of the command line; warnings and errors take one line each.

    Time and memory go to `logs/<stage>.json` or `logs/<stage>/<arguments>.json`, on which no result depends. The
    traceback of an unexpected error goes to a file beside it. Of several processes only rank 0 warns and logs.
    """
    gc.freeze()
    gc.enable()
    end_with_parent()
    launcher.forget_others(_processes)
    first = launcher.rank() == 0
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr) if first else None
    started = time.time()
    stage = Path(sys.argv[0]).stem
    try:
        _refuse_arguments(main, stage, sys.argv[1:])
        # A killed DVC leaves its stage running; a second one would write the same files.
        work = "-".join([stage, *sys.argv[1:]])
        with claim_or_refuse(Path("checkpoints/running"), work) if first and stage not in TOOLS else nullcontext():
            if first and "DVC_STAGE" in os.environ:
                cache.refuse_read_only(stage)
                mend.keep()
            main(*sys.argv[1:])
        if first:
            _log(stage, sys.argv[1:], started)
    except KeyboardInterrupt:
        if first:
            print("interrupted; `dvc repro` continues from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - every error is one line for the user
        sys.exit(f"error: {_told(error)}" if first else f"error: process {launcher.rank()}: {_told(error)}")


def _told(error: Exception) -> str:
    """One line about an error; for an unexpected one it names the file with the traceback."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno in FILES:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}: {FILES[error.errno]}"
    if isinstance(error, MemoryError):
        return f"memory is full ({one_line(str(error))}): lower compute.workers, slice.image_size or batch_size"
    log = _keep_traceback()
    together = sys.modules.get("torch.distributed")
    if isinstance(error, RuntimeError) and together is not None and together.is_initialized():
        return f"one of the training's processes failed or was ended, see above and {log}"
    return f"{one_line(f'{type(error).__name__}: {error}')} (all of it in {log})"


def _keep_traceback() -> Path:
    """Write the current traceback to logs/, or to the temporary folder if logs/ is not writable."""
    stage, *arguments = [Path(sys.argv[0]).stem, *sys.argv[1:]]
    rank = [str(launcher.rank())] if launcher.rank() else []
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join([stage, *arguments, *rank, "error"]))[:200] + ".log"
    for folder in (Path("logs"), Path(tempfile.gettempdir())):
        with suppress(OSError):
            write_text(folder / name, traceback.format_exc())
            return folder / name
    return Path(os.devnull)


def _processes() -> int:
    """Number of processes of a training; 1 if params.yaml cannot be read: the stage itself reports that."""
    try:
        compute = config.load().compute
    except InputError:
        return 1
    return compute.devices * compute.nodes


def _refuse_arguments(main: Callable[..., None], stage: str, arguments: list[str]) -> None:
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError as error:
        names = " ".join(f"<{name}>" for name in inspect.signature(main).parameters)
        raise InputError(f"stages.{stage}: {error}; the command is: python -m stages.{stage} {names}") from error
    odd = [one for one in arguments if not re.fullmatch(r"[A-Za-z0-9_.-]*", one)]
    if odd and stage not in TOOLS:
        raise InputError(f"stages.{stage}: params.yaml has nothing named '{odd[0]}'")


def _log(stage: str, arguments: list[str], started: float) -> None:
    """Log wall time and peak memory, unless the stage has just logged its own."""
    file = Path("logs", stage, "-".join(arguments)).with_suffix(".json") if arguments else Path(f"logs/{stage}.json")
    if stage in ("__main__", "mend", "status") or (file.exists() and file.stat().st_mtime >= started):
        return
    # Includes the largest peak of the workers: they read the volumes.
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    took = {"memory_mb": round(peak / 2**10), "seconds": round(time.time() - started, 1)}
    try:
        write_json(file, took)
    except OSError as error:  # the work is done
        warnings.warn(f"{file}: cannot be written ({error.strerror})", stacklevel=2)
