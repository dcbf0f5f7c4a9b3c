"""The study of params.yaml, several arms at a time: `python -m stages [workers]`.

The same as `dvc repro`, which runs one stage after the other. Here what all arms share is run first; then each
pretraining with the arms that start from it is a chain of its own, and `workers` chains run side by side; `dvc repro`
ends it. Chains share no stage, so `--single-item` cannot run one twice.
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product

from kidney_ssl import params
from kidney_ssl.errors import InputError
from kidney_ssl.params import Params
from stages import mend, run

DVC = ("dvc", "--wait-for-lock", "repro")


def main(workers: str = "") -> None:
    """Run what is out of date; `workers` chains at a time, by default one for each core, on a GPU one."""
    settings = params.load()
    mend.main()
    # The steps of a training free and take the same memory over and over: keep it, giving it back costs a twentieth.
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
    count = worker_count(settings, workers)
    if count > 1 and subprocess.run(["dvc", "status", "--quiet"], check=False).returncode:
        _call(
            [*DVC, "normalize", *(f"initialize@{name}" for name in settings.initialize.model_dump(exclude_none=True))]
        )
        _side_by_side([*chains(settings), ["shortcut"]], count)
        # These look at the baseline's predictions, which are an arm's own.
        explained = [f"explain@{arm}" for arm in settings.arms]
        _side_by_side([group for start in range(count) if (group := explained[start::count])], count)
    _call([*DVC])


def chains(settings: Params) -> list[list[str]]:
    """Stages of each start of an arm, in the order they must run; the long chains, with a pretraining, first."""
    found: dict[str, list[str]] = {f"pretrain/{name}": [f"pretrain@{name}"] for name in settings.pretrain.methods}
    for arm, block in settings.arms.items():
        stages = [f"arm@{arm}"]
        for percent, seed in product(settings.percents, settings.seeds):
            stages += [f"{stage}@{arm}-{percent}-{seed}" for stage in ("finetune", "evaluate")]
        for extra in settings.extra_runs:
            stages += [f"{stage}@{arm}-{extra}" for stage in ("finetune_extra", "evaluate_extra")]
        if block.weights.startswith("pretrain/"):
            found[block.weights] += stages
        else:
            found[arm] = stages
    return list(found.values())


def _side_by_side(work: list[list[str]], workers: int) -> None:
    """Run chains, `workers` at a time; each chain's output is shown when it ends, the first failure stops the rest."""
    from tqdm import tqdm  # noqa: PLC0415 - only when there is something to run

    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(work), desc="arms", unit="chain", disable=None) as bar,
    ):
        running = {
            pool.submit(
                subprocess.run,
                [*DVC, "--single-item", *chain],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            ): chain
            for chain in work
        }
        for done in as_completed(running):
            bar.write(done.result().stdout, end="")
            bar.update()
            if done.result().returncode:
                pool.shutdown(cancel_futures=True)
                raise InputError(f"one of {', '.join(running[done])} failed, see above; `dvc repro` goes on from there")


def _call(command: list[str]) -> None:
    if subprocess.run(command, check=False).returncode:
        raise InputError("dvc repro failed, see above")


def worker_count(settings: Params, workers: str = "") -> int:
    """Chains to run at a time: what is asked for; else one on a GPU or on several nodes, or what the cores allow.

    Chains on one GPU would share its memory, those on several nodes the port where processes meet.

    Raises:
        InputError: `workers` is no number from 1.
    """
    if workers and not (workers.isdecimal() and int(workers) > 0):
        raise InputError(f"workers: '{workers}' is no number of chains to run at a time: give 1 or more")
    if workers:
        return int(workers)
    compute = settings.compute
    if compute.nodes > 1 or (compute.device != "cpu" and shutil.which("nvidia-smi")):
        return 1
    return max(1, len(os.sched_getaffinity(0)) // (compute.threads * compute.devices))


if __name__ == "__main__":
    run(main)
