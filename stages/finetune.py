"""Fine-tune an arm's classifier at every label budget with every seed, or take the runs from the run store."""

import shutil
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.base import Job
from kidney_ssl.jobs.finetuning import MODEL, Finetuning
from kidney_ssl.jobs.study import COST, Study, copy_cost
from kidney_ssl.jsonfile import write_json
from stages import launcher


def main(arm: str) -> None:
    """Write models/finetune/<arm>/<percent>-<seed> of all runs: networks that are kept, curves and predictions.

    start.json, the weights that a run started from and the seed of its replicate of them, is written here: arms that
    do the same share what the run store has.
    """
    settings = config.load()
    if arm not in settings.arms:
        raise InputError(f"arms: no arm '{arm}' in params.yaml, known: {', '.join(settings.arms)}")
    launcher.hand_over(settings.compute.devices * settings.compute.nodes)
    study = Study(settings)
    runs = {run.name: run for run in (Finetuning(study, arm, *budget) for budget in settings.budgets)}
    out, weights = Path(f"models/finetune/{arm}"), settings.arms[arm].weights
    if all(run.first for run in runs.values()):
        shutil.rmtree(out, ignore_errors=True)

    def collect(job: Job, key: str) -> bool:
        run = runs[job.name]

        def target(file: str) -> Path | None:
            kept = file != MODEL or (run.keeps_model and settings.finetune.keep != "none")
            return out / run.run / file if kept and file != COST else None

        copy_cost(study.store.path(key), "finetune", f"{arm}-{run.run}")
        start = {"weights": weights, "seed": settings.replicate(weights, run.seed)}
        write_json(out / run.run / "start.json", start)
        return study.store.collect(key, target)

    study.obtain(list(runs.values()), collect)


if __name__ == "__main__":
    from stages.run import run

    run(main)
