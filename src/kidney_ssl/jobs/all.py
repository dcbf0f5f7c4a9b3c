"""All jobs of a study, in the best order to begin them."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from kidney_ssl.jobs.base import Job, is_done
from kidney_ssl.jobs.explaining import Explaining
from kidney_ssl.jobs.finetuning import Finetuning
from kidney_ssl.jobs.pretraining import ENCODER, Pretraining
from kidney_ssl.jobs.study import Study


def study_jobs(study: Study, wanted: Collection[str] | None = None) -> Sequence[Job]:
    """Pretrainings, the runs of all arms, and their Grad-CAM.

    Runs that need no pretraining come last: they wait for nothing and fill the remaining time.

    Args:
        study: the study.
        wanted: names of the jobs that DVC asked for (see `jobs.study.ASK`); jobs that read their results are added. The
            results of all other jobs are in models/ already. By default all jobs.

    Returns:
        The jobs. A job reads the result of another one from the store, so `dvc repro` need not have collected it.
    """
    settings = study.settings
    pretrainings = {
        (f"pretrain/{name}", seed): Pretraining(study, name, seed)
        for name, block in settings.pretrain.methods.items()
        for seed in block.seeds
    }

    def asked(job: Job) -> bool:
        return wanted is None or job.name in wanted

    def encoder(weights: str, seed: int) -> Path | None:
        return _stored(study, pretrainings[weights, settings.replicate(weights, seed)], ENCODER)

    # Their stages are not collected yet: all seeds are read from the store.
    stored = {weights for (weights, _), job in pretrainings.items() if asked(job)}
    runs: list[Finetuning] = []
    for arm, block in settings.arms.items():
        weights = partial(encoder, block.weights) if block.weights in stored else None
        of_arm = [Finetuning(study, arm, percent, seed, weights) for percent, seed in settings.budgets]
        runs += [run for run in of_arm if weights or asked(run)]
    # Small budgets may wait for the learning rate that is chosen at 100 %.
    runs.sort(key=lambda run: (run.block.weights.startswith("initial/"), run.percent < 100))
    made = {
        run.arm: run for run in runs if (run.percent, run.seed) == (settings.explain.percent, settings.explain.seed)
    }

    def run_folder(arm: str) -> Path | None:
        return _stored(study, made[arm]) if arm in made else study.explained_folder(arm)

    shown = [Explaining(study, arm, run_folder) for arm in settings.arms]
    baseline = settings.analysis.baseline
    return [
        *(job for job in pretrainings.values() if asked(job)),
        *runs,
        *(job for job in shown if asked(job) or job.arm in made or baseline in made),
    ]


def _stored(study: Study, job: Job, file: str = "") -> Path | None:
    """A job's folder in the store, or a file in it; None while the job is not done."""
    return study.store.path(str(job.key())) / file if is_done(study.store, job) else None
