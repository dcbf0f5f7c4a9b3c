"""What of the study of params.yaml is out of date and what is stored: `python -m stages.status`, without training."""

from kidney_ssl import config
from kidney_ssl.jobs.all import study_jobs
from kidney_ssl.jobs.base import is_done
from kidney_ssl.planning.missing import missing_jobs, planned_study
from stages.__main__ import workers_of
from stages.mend import LOCK
from stages.out_of_date import out_of_date
from stages.terminal import announcement, changed_results, report_line, stored


def main() -> None:
    """Print it."""
    settings = config.load()
    workers, _ = workers_of(settings, "")
    study, to_run = planned_study(settings), out_of_date()
    print(announcement(to_run, missing_jobs(study, to_run), workers))
    jobs = study_jobs(study)
    print(stored(study.store, done=sum(is_done(study.store, job) for job in jobs), of=len(jobs)))
    print(report_line(), *(changed_results() if LOCK.exists() else []), sep="\n")


if __name__ == "__main__":
    from stages.run import run

    run(main)
