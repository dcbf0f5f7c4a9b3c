"""What `make repro` would do: stages, updates, hours, disk of params.yaml's study: `python -m stages.plan [workers]`.

Nothing is written. Hours come from a few optimizer steps of each kind of training, measured on random slices, as many
at a time as trainings would run.
"""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed
from tqdm import tqdm

from kidney_ssl import params
from kidney_ssl.data import manifest
from kidney_ssl.data.registry import label_files
from kidney_ssl.models.resnet import classifier
from kidney_ssl.params import Params
from kidney_ssl.planning.counts import Counts, bytes_of, expect_counts, read_counts
from kidney_ssl.planning.disk import disk, expected_volumes
from kidney_ssl.planning.steps import measure_finetuning, measure_pretraining
from kidney_ssl.planning.tables import duration, size, table
from kidney_ssl.planning.trainings import Training, finetuning, pretraining
from kidney_ssl.planning.work import Step, seconds, side_by_side
from stages import run
from stages.__main__ import chains, worker_count

# What a process of a stage imports before it works, and whether it trains.
STARTS = {
    True: "import stages.finetune, torchvision.models; from kidney_ssl.training.device import make_fabric; "
    "make_fabric('cpu')",
    False: "import stages.evaluate",
}
TRAINED = ("pretrain", "finetune")


def main(workers: str = "") -> None:
    """Print the plan."""
    settings = params.load()
    count = worker_count(settings, workers)
    started = time.monotonic()
    stages, stale, following = out_of_date()
    dvc = time.monotonic() - started
    print(
        f"Study on {settings.data.source}: {len(settings.arms)} arms, {len(settings.pretrain.methods)} pretrainings\n"
    )
    _print_stages(stages, stale, following)
    counts = _counts(settings, fresh="select" not in stale | following)
    if counts is None:
        print("\nNothing is known of this folder's slices yet: run `dvc repro select`, then `make plan` again.")
        return
    listed = ", ".join(f"{number:,} {part}" for part, number in counts.chosen.items())
    print(f"\nSlices of {counts.cases} cases ({counts.source}): {sum(counts.chosen.values()):,} chosen: {listed}\n")
    trainings = _trainings(settings, counts)
    steps = _measure(settings, trainings, count)
    starts = {trains: _start(code) for trains, code in STARTS.items()}
    took = {one.stage: starts[True] + seconds(one.work, steps[one.measured]) for one in trainings}
    _print_trainings(trainings, steps, took)
    planned = [[stage for stage in chain if stage in stale | following] for chain in chains(settings)]
    for title, work in (("All of them", chains(settings)), ("Of those that run", planned)):
        each = [dvc + sum(took.get(stage, starts[False]) for stage in chain) for chain in work if chain]
        side = side_by_side(each, count) if each else 0.0
        print(f"{title}: {duration(sum(each))} one after the other, {duration(side)} with {count} at a time")
    print(
        f"Counted with them: {starts[True]:.1f} s to start a training, {starts[False]:.1f} s to start another stage, "
        f"{dvc:.1f} s for DVC a chain."
    )
    print(_beside(stages))
    _print_disk(settings, counts, fresh="download" not in stale)


def out_of_date() -> tuple[list[str], set[str], set[str]]:
    """Ask DVC: all stages, those that are out of date, and those behind them, which run if their input changes.

    What is only missing here and lies in the cache is checked out, not run.
    """
    from dvc.repo import Repo  # noqa: PLC0415 - seconds of imports, which stages that import this file do not need

    with Repo() as repo:
        stages = [str(stage.addressing) for stage in repo.index.stages]
        stale = {name for name, entries in repo.status().items() if any(map(_is_change, entries))}
        # An edge leads from a stage to one that it reads from.
        reached = {stage for stage in repo.index.stages if stage.addressing in stale}
        found = set(reached)
        while reached:
            reached = {reader for stage in reached for reader in repo.index.graph.predecessors(stage)} - found
            found |= reached
        return stages, stale, {str(stage.addressing) for stage in found} - stale


def _is_change(entry: str | Mapping[str, Any]) -> bool:
    """Whether a line of `dvc status` makes a stage run: not a file that is only missing here."""
    if isinstance(entry, str):
        return True  # changed command, always changed
    return any(
        state != "deleted"
        for files in entry.values()
        for state in (files.values() if isinstance(files, Mapping) else [files])
    )


def _counts(settings: Params, *, fresh: bool) -> Counts | None:
    if fresh and Path("data/index/selection.csv").exists():
        return read_counts(Path("data/index"))
    data = settings.data
    return expect_counts(
        data.source,
        cases=len(_cases(settings)),
        min_tumor_px=settings.select.min_tumor_px,
        factor=settings.phantom.slices,
        folds=data.folds,
        validation=data.validation,
    )


def _cases(settings: Params) -> list[str]:
    """Names of the cases that the study takes; none of a directory, which is not looked at."""
    data = settings.data
    made = [f"case_{number:05d}" for number in range(settings.phantom.cases)]
    known = {"phantom": made, "kits23": list(label_files())}.get(data.source)
    return manifest.choose_cases(known, data.cases, data.exclude) if known else []


def _trainings(settings: Params, counts: Counts) -> list[Training]:
    block = settings.pretrain
    found = [
        pretraining(name, one.model_dump(), counts, pool=block.pool, probe_every=block.probe_every)
        for name, one in block.methods.items()
    ]
    arms = {name: arm.model_dump() for name, arm in settings.arms.items()}
    for stage in (stage for chain in chains(settings) for stage in chain if stage.startswith("finetune")):
        arm, percent, _ = stage.partition("@")[2].split("-")
        found.append(finetuning(stage, arms[arm], settings.finetune.model_dump(), counts, percent=int(percent)))
    return found


def _measure(settings: Params, trainings: Sequence[Training], workers: int) -> dict[str, Step]:
    """Measure each kind of training once, in processes of their own as the study runs them."""
    compute, tuned = settings.compute.model_dump(), settings.finetune
    shared = {"network": settings.network, "size": settings.slice.image_size, "compute": compute}
    jobs: dict[str, Any] = {}
    for one in trainings:
        block = json.loads(one.measured)
        if "method" in block:
            jobs[one.measured] = delayed(measure_pretraining)(block, momentum=tuned.batch_norm_momentum, **shared)
        else:
            rates = {"batch_size": tuned.batch_size, "weight_decay": tuned.weight_decay}
            jobs[one.measured] = delayed(measure_finetuning)(block, **rates, **shared)
    running = Parallel(workers, return_as="generator")(jobs.values())
    return dict(zip(jobs, tqdm(running, "steps measured", len(jobs), disable=None), strict=True))


def _start(code: str) -> float:
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - started


def _print_stages(stages: Sequence[str], stale: set[str], following: set[str]) -> None:
    def kinds(names: Sequence[str] | set[str]) -> Counter[str]:
        return Counter(name.partition("@")[0] for name in names)

    every, now, then = kinds(stages), kinds(stale), kinds(following)
    rows = [[kind, str(number), str(now[kind]), str(then[kind])] for kind, number in every.items()]
    rows.append(["all", str(len(stages)), str(len(stale)), str(len(following))])
    print(table(["stage", "there are", "out of date", "behind those"], rows))
    print("Those behind run if what they read changes; what DVC's run cache holds is not run either.")


def _print_trainings(trainings: Sequence[Training], steps: Mapping[str, Step], took: Mapping[str, float]) -> None:
    groups: dict[str, list[Training]] = {}
    for one in trainings:
        groups.setdefault(one.title, []).append(one)
    rows = []
    for title, members in groups.items():
        work, step = members[0].work, steps[members[0].measured]
        partly = "" if step.measured == step.batch else f" ({step.measured} of {step.batch} slices)"
        rows.append(
            [
                title,
                str(len(members)),
                f"{work.slices:,}",
                f"{work.epochs:,}",
                f"{work.updates:,}",
                duration(step.update) if step.update >= 1 else f"{step.update * 1000:.0f} ms",
                duration(took[members[0].stage]),
                duration(sum(took[one.stage] for one in members)),
            ]
        )
        rows[-1][5] += partly
    print(table(["training", "runs", "slices", "epochs", "updates", "step", "each", "all"], rows))
    if any(step.measured < step.batch for step in steps.values()):
        print("Steps that would take long were measured with fewer slices, and in proportion.")
    print()


def _beside(stages: Sequence[str]) -> str:
    """What the stages that are not measured took here the last time."""
    others = [stage for stage in stages if stage.partition("@")[0].removesuffix("_extra") not in TRAINED]
    logs = {stage: Path("logs", *stage.split("@")).with_suffix(".json") for stage in others}
    known = {stage: json.loads(file.read_text())["seconds"] for stage, file in logs.items() if file.exists()}
    kinds = Counter[str]()
    for stage, took in known.items():
        kinds[stage.partition("@")[0]] += took
    said = ", ".join(f"{kind} {duration(took)}" for kind, took in kinds.items()) or "nothing is logged"
    return f"Not counted: the work of all other stages. What they took here the last time: {said}.\n"


def _print_disk(settings: Params, counts: Counts, *, fresh: bool) -> None:
    data, methods = settings.data, settings.pretrain.methods
    exact = bytes_of(Path("data/manifest.csv")) if fresh else None
    volumes = exact or expected_volumes(data.source, _cases(settings), counts, settings.phantom.size)
    written = disk(
        counts,
        size=settings.slice.image_size,
        pool_all=settings.pretrain.pool == "all",
        encoders=sum(one is not None for _, one in settings.initialize) + len(methods) + len(settings.arms),
        classifiers=sum(stage.startswith("finetune") for chain in chains(settings) for stage in chain),
        encoder_bytes=sum(one.nbytes for one in classifier(settings.network, 0).state_dict().values()),
    )
    rows = [[kind, size(count)] for kind, count in written.items() if count]
    rows += [["all that stages write", size(sum(written.values()))]]
    rows += [["the same in DVC's cache", size(sum(written.values()))]]
    rows += [[f"volumes in {data.store}" + ("" if exact else ", an estimate"), size(volumes)]]
    print(table(["disk", "bytes"], rows))
    there = shutil.disk_usage(".").free
    print(f"Free here: {size(there)}. The cache needs no room of its own where DVC can link (`dvc config cache.type`).")


if __name__ == "__main__":
    run(main)
