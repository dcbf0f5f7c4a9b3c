"""What of a study is missing, asked of its jobs."""

from collections.abc import Collection

from kidney_ssl.config import Params
from kidney_ssl.jobs.all import study_jobs
from kidney_ssl.jobs.base import Job, is_done
from kidney_ssl.jobs.study import Study

INPUTS = {"download", "select", "slice", "normalize", "initialize"}  # kinds of stages that all trainings read from


def planned_study(settings: Params) -> Study:
    """A study whose jobs start no processes, where several train together; they are in its `numerics` alone."""
    compute = settings.compute
    alone = compute.model_copy(update={"devices": 1, "nodes": 1})
    study = Study(settings.model_copy(update={"compute": alone}))
    study.numerics = study.numerics | {"processes": compute.devices * compute.nodes}
    return study


def missing_jobs(study: Study, to_run: Collection[str]) -> list[Job]:
    """Jobs of stages that run which are not in the store; all of them where what they read will change.

    Args:
        study: see `planned_study`.
        to_run: names of stages.
    """
    wanted = [job.name for job in study_jobs(study) if "@".join(job.name.split(" ")[:2]) in to_run]
    changing = INPUTS & {name.partition("@")[0] for name in to_run}
    return [job for job in study_jobs(study, wanted) if changing or not is_done(study.store, job)]
