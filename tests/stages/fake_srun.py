"""What srun does on one node: starts a command twice, tells each which one it is, ends with the worst of their ends."""

import os
import socket
import subprocess
import sys


def main() -> None:
    """Run `python fake_srun.py <command>`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    both = os.environ | {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "kidney",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NODEID": "0",
        "MASTER_PORT": port,
    }
    tasks = [
        subprocess.Popen(sys.argv[1:], env=both | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}) for rank in ("0", "1")
    ]
    sys.exit(max(abs(task.wait()) for task in tasks))


if __name__ == "__main__":
    main()
