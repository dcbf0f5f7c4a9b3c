"""Write Grad-CAM and example slices of an arm's classifier, or take them from the run store."""

import shutil
from pathlib import Path

from kidney_ssl import config
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.base import Job
from kidney_ssl.jobs.explaining import METRICS, PICTURES, Explaining
from kidney_ssl.jobs.finetuning import Finetuning
from kidney_ssl.jobs.study import Study


def main(arm: str) -> None:
    """Write report/explain/<arm> (cards, maps) and metrics/explain/<arm>.json."""
    settings = config.load()
    if arm not in settings.arms:
        raise InputError(f"arms: no arm '{arm}' in params.yaml, known: {', '.join(settings.arms)}")
    study = Study(settings)
    explain = settings.explain

    def stored(arm: str) -> Path:
        run = Finetuning(study, arm, explain.percent, explain.seed)
        study.obtain([run], lambda *_: True)
        return study.store.path(str(run.key()))

    # If no networks are kept, only the store has this one.
    job = Explaining(study, arm, stored if settings.finetune.keep == "none" else None)
    pictures, metrics = Path(f"report/explain/{arm}"), Path(f"metrics/explain/{arm}.json")

    def collect(_: Job, key: str) -> bool:
        shutil.rmtree(pictures, ignore_errors=True)
        return study.store.collect(
            key, lambda file: metrics if file == METRICS else pictures / Path(file).relative_to(PICTURES)
        )

    study.obtain([job], collect)


if __name__ == "__main__":
    from stages.run import run

    run(main)
