"""Pretrain with a pretext task, once with each seed, or take what is in the run store."""

import json
import shutil
from pathlib import Path
from typing import Any

from kidney_ssl import config
from kidney_ssl.errors import InputError
from kidney_ssl.files import write_text
from kidney_ssl.jobs.base import Job
from kidney_ssl.jobs.pretraining import CURVES, ENCODER, METRICS, PICTURES, Pretraining
from kidney_ssl.jobs.study import Study, copy_cost
from kidney_ssl.jsonfile import write_json
from stages import launcher


def main(name: str) -> None:
    """Write encoders, curves and metrics of all seeds of pretrain.methods.<name>, and the first one's pictures."""
    settings = config.load()
    if name not in settings.pretrain.methods:
        raise InputError(f"pretrain.methods: no '{name}', there are {', '.join(settings.pretrain.methods)}")
    launcher.hand_over(settings.compute.devices * settings.compute.nodes)
    study = Study(settings)
    seeds = settings.pretrain.methods[name].seeds
    jobs = {job.name: job for job in (Pretraining(study, name, seed) for seed in seeds)}
    writes = all(job.first for job in jobs.values())
    encoders, pictures = Path(f"models/pretrain/{name}"), Path(f"report/pretrain/{name}")
    curves: dict[int, list[str]] = {}
    metrics: dict[int, Any] = {}
    if writes:
        for folder in (encoders, pictures):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)  # a method's pictures may fail

    def collect(job: Job, key: str) -> bool:
        seed, stored = jobs[job.name].seed, study.store.path(key)

        def target(file: str) -> Path | None:
            if file == ENCODER:
                return encoders / f"{seed}.safetensors"
            shown = seed == seeds[0] and file.startswith(f"{PICTURES}/")
            return pictures / Path(file).relative_to(PICTURES) if shown else None

        copy_cost(stored, "pretrain", f"{name}-{seed}")
        if not study.store.collect(key, target):
            return False
        curves[seed] = (stored / CURVES).read_text(encoding="utf-8").splitlines()
        metrics[seed] = json.loads((stored / METRICS).read_text(encoding="utf-8"))
        return True

    study.obtain(list(jobs.values()), collect)
    if writes:
        rows = [f"{seed},{row}" for seed in seeds for row in curves[seed][1:]]
        header = f"seed,{curves[seeds[0]][0]}"
        write_text(Path(f"metrics/pretrain/{name}.csv"), "\n".join([header, *rows, ""]))
        write_json(Path(f"metrics/pretrain/{name}.json"), metrics)


if __name__ == "__main__":
    from stages.run import run

    run(main)
