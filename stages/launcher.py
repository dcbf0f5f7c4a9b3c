"""A stage that runs as several processes: the rank of this process, and how a launcher starts them on all nodes."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from kidney_ssl.engine.claims import release_all
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.launched import VARIABLES, train_alone


def rank() -> int:
    """Rank of this process in a training, from 0, read from the environment before the processes are connected.

    torchrun sets RANK. srun sets SLURM_PROCID in the tasks of a step; a batch script has it too, but is no task. A
    stage that starts the other processes itself gives each a LOCAL_RANK.
    """
    if _is_task():
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def forget_others(processes: Callable[[], int]) -> None:
    """Remove launcher variables from the environment if that launcher did not start this process.

    Containers and shells may inherit such variables. A stage that believed them would not see itself as rank 0: it
    would take no claim and write no log. Libraries read them too.

    Args:
        processes: returns how many processes train together; called only if such a variable is set.
    """
    if _is_task() or not os.environ.keys() & set(VARIABLES):
        return
    count = processes()
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "").isdecimal()
    own = os.environ.get("LOCAL_RANK", "").isdecimal() and os.environ.get("WORLD_SIZE") == str(count)
    if count == 1 or not (torchrun or own):
        train_alone()


def _is_task() -> bool:
    """Whether srun started this process as one of several."""
    return os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"


def hand_over(processes: int) -> None:
    """Replace this process by the launcher in the environment variable KIDNEY_LAUNCH, if it is set.

    DVC starts a stage once, on one node. The launcher (for example `srun`) starts it once for each process, on all
    nodes, and ends when they have ended.

    Args:
        processes: number of processes; nothing happens for one.

    Raises:
        InputError: the launcher cannot be run.
    """
    command = shlex.split(os.environ.get("KIDNEY_LAUNCH", ""))
    if not command or processes == 1:
        return
    del os.environ["KIDNEY_LAUNCH"]  # else the processes would launch again
    stage = f"stages.{Path(sys.argv[0]).stem}"
    release_all()  # the launched process claims the stage
    try:
        os.execvp(command[0], [*command, sys.executable, "-m", stage, *sys.argv[1:]])
    except OSError as error:
        raise InputError(f"KIDNEY_LAUNCH: '{command[0]}' cannot be run ({error.strerror})") from error
