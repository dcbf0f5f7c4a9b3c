"""One thin entry point per stage: `python -m stages.<name>`; dvc.yaml calls them."""

import gc
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

# Importing torch makes millions of objects that live to the end: collecting garbage meanwhile only costs time.
gc.disable()
# Nothing is sent anywhere.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def run(main: Callable[..., None]) -> None:
    """Run a stage: arguments from the command line, warnings on one line, bad input without a traceback.

    What it took goes to `logs/<stage>.json` or `logs/<stage>/<arguments>.json`, which no result depends on.
    """
    from kidney_ssl.errors import InputError  # noqa: PLC0415 - after gc.disable()

    gc.freeze()
    gc.enable()
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    started = time.time()
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
    _log(Path(sys.argv[0]).stem, sys.argv[1:], started)


def _log(stage: str, arguments: list[str], started: float) -> None:
    """Note wall time and peak memory, unless the stage has just noted its own."""
    file = Path("logs", stage, "-".join(arguments)).with_suffix(".json") if arguments else Path(f"logs/{stage}.json")
    if stage == "__main__" or (file.exists() and file.stat().st_mtime >= started):
        return
    # The largest of the workers' peaks too: a volume is read in one of them.
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    took = {"memory_mb": round(peak / 2**10), "seconds": round(time.time() - started, 1)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(took, indent=2) + "\n", encoding="utf-8")
