"""One thin entry point per stage: `python -m stages.<name>`; dvc.yaml calls them."""

import gc
import os
import sys
import warnings
from collections.abc import Callable

# Importing torch makes millions of objects that live to the end: collecting garbage meanwhile only costs time.
gc.disable()
# Nothing is sent anywhere.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def run(main: Callable[..., None]) -> None:
    """Run a stage: arguments from the command line, warnings on one line, bad input without a traceback."""
    from kidney_ssl.errors import InputError  # noqa: PLC0415 - after gc.disable()

    gc.freeze()
    gc.enable()
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
