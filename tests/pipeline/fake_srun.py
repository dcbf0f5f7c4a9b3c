"""What srun does on one node: starts a command twice, tells each which one it is, ends with the worst of their ends."""

import os
import socket
import subprocess
import sys


def slurm(rank: int, port: int) -> dict[str, str]:
    """What SLURM tells one of two tasks on this machine."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "kidney",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "MASTER_PORT": str(port),
    }


def main() -> None:
    """Run `python fake_srun.py <command>`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tasks = [subprocess.Popen(sys.argv[1:], env=os.environ | slurm(rank, port)) for rank in (0, 1)]
    sys.exit(max(abs(task.wait()) for task in tasks))


if __name__ == "__main__":
    main()
