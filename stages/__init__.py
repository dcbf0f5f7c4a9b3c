"""One thin entry point per stage: `python -m stages.<name>`; dvc.yaml calls them."""

import errno
import gc
import inspect
import json
import os
import re
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

# Importing torch makes millions of objects that live to the end: collecting garbage meanwhile only costs time.
gc.disable()
# Nothing is sent anywhere.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

TOOLS = ("__main__", "folds", "mend", "plan")  # commands of this folder that are no stages


DISK = {errno.ENOSPC: "free some", errno.EDQUOT: "free some", errno.EROFS: "write elsewhere, or mount it to be written"}


def run(main: Callable[..., None]) -> None:
    """Run a stage: arguments from the command line, warnings on one line, no traceback for bad input or a full disk.

    What it took goes to `logs/<stage>.json` or `logs/<stage>/<arguments>.json`, which no result depends on. Of several
    processes the first alone warns and logs.
    """
    from kidney_ssl.errors import InputError  # noqa: PLC0415 - after gc.disable()
    from kidney_ssl.training.exclusive import exclusive  # noqa: PLC0415 - as above
    from stages import cache, launcher, mend  # noqa: PLC0415 - as above

    gc.freeze()
    gc.enable()
    first = launcher.rank() == 0
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr) if first else None
    started = time.time()
    stage = Path(sys.argv[0]).stem
    try:
        _refuse_arguments(main, stage, sys.argv[1:])
        # A killed dvc leaves its stage running: one started beside it would write the same files.
        alone = exclusive(Path("checkpoints/running"), "-".join([stage, *sys.argv[1:]]))
        with alone if first and stage not in TOOLS else nullcontext():
            if first and "DVC_STAGE" in os.environ:
                cache.refuse_read_only(stage)
                mend.keep()
            main(*sys.argv[1:])
        if first:
            _log(stage, sys.argv[1:], started)
    except InputError as error:
        sys.exit(f"error: {error}" if first else f"error: process {launcher.rank()}: {error}")
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(
            f"error: {error.strerror}{where}: {DISK[error.errno]}, then run `dvc repro` again; it goes on from here"
        )
    except RuntimeError:
        together = sys.modules.get("torch.distributed")
        if together is None or not together.is_initialized():
            raise
        traceback.print_exc()
        sys.exit(f"error: process {launcher.rank()}: one of the training's processes failed or was ended, see above")


def _refuse_arguments(main: Callable[..., None], stage: str, arguments: list[str]) -> None:
    from kidney_ssl.errors import InputError  # noqa: PLC0415 - after gc.disable()

    try:
        inspect.signature(main).bind(*arguments)
    except TypeError as error:
        names = " ".join(f"<{name}>" for name in inspect.signature(main).parameters)
        raise InputError(f"stages.{stage}: {error}; the command is: python -m stages.{stage} {names}") from error
    odd = [one for one in arguments if not re.fullmatch(r"[A-Za-z0-9_.-]*", one)]
    if odd:
        raise InputError(f"stages.{stage}: '{odd[0]}' is no name of anything in params.yaml")


def _log(stage: str, arguments: list[str], started: float) -> None:
    """Note wall time and peak memory, unless the stage has just noted its own."""
    file = Path("logs", stage, "-".join(arguments)).with_suffix(".json") if arguments else Path(f"logs/{stage}.json")
    if stage in ("__main__", "mend") or (file.exists() and file.stat().st_mtime >= started):
        return
    # The largest of the workers' peaks too: a volume is read in one of them.
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    took = {"memory_mb": round(peak / 2**10), "seconds": round(time.time() - started, 1)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(took, indent=2) + "\n", encoding="utf-8")
