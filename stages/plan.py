"""Time and disk that `make repro` would need for the study of params.yaml: `python -m stages.plan [workers]`.

`RATES=<file>` writes the measured rates to a file. `DEVICE_RATES=<file>` reads such a file instead of measuring, to
plan for another machine. A plan for this machine writes the seconds of each training to logs/plan.json, from which
`make repro` estimates its time.
"""

import os
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.jsonfile import write_json
from kidney_ssl.planning.counts import count_slices
from kidney_ssl.planning.disk import disk
from kidney_ssl.planning.measure import measure_rates, read_rates
from kidney_ssl.planning.missing import missing_jobs, planned_study
from kidney_ssl.planning.plan import plan
from kidney_ssl.planning.work import work_of
from stages.__main__ import workers_of
from stages.out_of_date import LOOKS, out_of_date
from stages.terminal import PLAN, command


def main(workers: str = "") -> None:
    """Print the plan."""
    settings = config.load()
    count, gpus = workers_of(settings, workers)
    to_run = out_of_date()
    if not to_run - LOOKS:
        print(f"Nothing is out of date: `{command('run')}` would train nothing.")
        return
    counts = count_slices(settings, fresh="select" not in to_run, arrays=not {"slice", "normalize"} & to_run)
    if counts is None:
        print(f"Nothing is known of this folder's slices yet: run `dvc repro select`, then `{command('plan')}` again.")
        return
    study = planned_study(settings)
    jobs = missing_jobs(study, to_run)
    works = [work_of(job, counts) for job in jobs]
    given, kept = (os.environ.get(name) for name in ("DEVICE_RATES", "RATES"))
    if given:
        rates = read_rates(Path(given), works)
        count = count if workers else rates.workers
    else:
        rates = measure_rates(works, settings, workers=count, gpus=len(gpus))
        each = (sum(amount * rates.seconds[rate] for _, rate, amount in work.amounts) for work in works)
        write_json(PLAN, {job.name: seconds for job, seconds in zip(jobs, each, strict=True)})
    if kept:
        write_json(Path(kept), rates.model_dump())
    items = disk(study, counts, to_run, jobs, count)
    print(plan(study, counts, to_run=to_run, works=works, rates=rates, items=items, workers=count))


if __name__ == "__main__":
    from stages.run import run

    run(main)
