"""One stage as several processes: which of them this is, and how a launcher starts them on all nodes."""

import os
import shlex
import sys
from pathlib import Path

from kidney_ssl.errors import InputError


def rank() -> int:
    """Which of a training's processes this is, from 0, by its environment: told before the processes have met.

    torchrun sets RANK, srun SLURM_PROCID (in the step's own tasks; a batch script has it too, and is no task), and a
    stage that starts the others by itself gives each a LOCAL_RANK.
    """
    if os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return int(os.environ["SLURM_PROCID"])
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def hand_over(processes: int) -> None:
    """Let the command in the environment's KIDNEY_LAUNCH start this stage on every node; come back if there is none.

    DVC starts a stage once, on one node. The command (`srun`, say) starts it anew as often as there are to be
    processes, and ends when they have ended; this process becomes that command.

    Args:
        processes: how many there are to be; nothing happens for one.

    Raises:
        InputError: there is no such command.
    """
    command = shlex.split(os.environ.get("KIDNEY_LAUNCH", ""))
    if not command or processes == 1:
        return
    del os.environ["KIDNEY_LAUNCH"]  # or what it starts would start it again
    stage = f"stages.{Path(sys.argv[0]).stem}"
    try:
        os.execvp(command[0], [*command, sys.executable, "-m", stage, *sys.argv[1:]])
    except OSError as error:
        raise InputError(f"KIDNEY_LAUNCH: '{command[0]}' cannot be run ({error.strerror})") from error
