"""What trainings do, counted: updates, slices and bytes, each to be multiplied by the rate of its name.

Rates have names: `update K` (seconds an update) and `evaluate K` (seconds a slice) of a kind of training K, all that
decides a step's time, as JSON; `probe` (seconds a slice that probes are fitted on); `load` (seconds a byte).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kidney_ssl import methods
from kidney_ssl.encoder_probe import CLEAN as PROBE_CLEAN
from kidney_ssl.engine.batches import batches_per_epoch, raised_epochs
from kidney_ssl.engine.evaluated_epochs import affordable_evaluations
from kidney_ssl.jobs.base import Job
from kidney_ssl.jobs.explaining import Explaining
from kidney_ssl.jobs.finetuning import Finetuning
from kidney_ssl.jobs.pretraining import Pretraining
from kidney_ssl.jobs.study import Study
from kidney_ssl.planning.counts import Counts
from kidney_ssl.pretrain import CLEAN, epochs_of, evaluated_slices

OF_STEP = ("optimizer", "decay_norms", "clip")  # of a recipe: what decides a step's time


@dataclass(frozen=True)
class Work:
    """What a job does.

    Attributes:
        row: of the table that the job counts in.
        updates: optimizer steps.
        amounts: row, name of the rate, how much of it.
    """

    row: str
    updates: int
    amounts: Sequence[tuple[str, str, float]]


def work_of(job: Job, counts: Counts) -> Work:
    """Count what a job of a study does.

    Args:
        job: a pretraining, a fine-tuning or an explanation.
        counts: slices of the study. Those of a label budget are in proportion.
    """
    if isinstance(job, Pretraining):
        return _pretraining(job, counts)
    if isinstance(job, Finetuning):
        return _finetuning(job, counts)
    assert isinstance(job, Explaining)
    return _explaining(job, counts)


def _pretraining(job: Pretraining, counts: Counts) -> Work:
    block, settings = job.parameters, job.study.settings
    method = methods.load(block["method"])
    train, validation = counts.chosen["train"], counts.chosen["validation"]
    slices = counts.training_slices if block["pool"] == "all" and not method.reads_masks else train
    if counts.thinned is not None and not method.reads_masks:
        slices = counts.thinned
    per_epoch = batches_per_epoch(slices, block["batch_size"], least=max(2, _processes(job.study)))
    if method.one_slice_per_case:
        per_epoch = -(-slices // block["batch_size"])  # `case_batches` deals a last slice out instead of joining it
    epochs = epochs_of(slices, per_epoch, block["epochs"], block["min_updates"], block["images"])
    evaluated, clean = evaluated_slices(train, validation), min(CLEAN, train)
    count = affordable_evaluations(block["evaluations"], trained=epochs * slices, evaluated=evaluated)
    evaluations = min(epochs, count)
    kind = _kind(job.study, block["batch_size"], block, method=block["method"], options=block["options"])
    row, pixels = f"pretrain {block['method']}", settings.slice.image_size**2
    amounts = [
        (row, f"update {kind}", epochs * per_epoch),
        ("evaluation", f"evaluate {kind}", evaluations * validation),
        # The probes' part of an evaluation; batch norm once more for the file.
        ("evaluation", f"evaluate {_plain(job.study)}", evaluations * (evaluated - validation) + clean),
        ("evaluation", "probe", evaluations * clean),
        ("loading", "load", (slices + validation) * pixels * (3 if method.reads_masks else 2)),
    ]
    return Work(row, epochs * per_epoch, amounts)


def _finetuning(job: Finetuning, counts: Counts) -> Work:
    arm, recipe = job.block.model_dump(), job.study.settings.finetune_of(job.arm)
    train, validation = (max(2, round(counts.chosen[part] * job.percent / 100)) for part in ("train", "validation"))
    test, rates = counts.chosen["test"], len(recipe["learning_rates"]) if job.chooses(counts.validation_patients) else 1
    per_epoch = batches_per_epoch(train, recipe["batch_size"], least=max(2, _processes(job.study)))
    raised = raised_epochs(per_epoch, recipe["epochs"], recipe["min_updates"])
    epochs = raised_epochs(per_epoch, recipe["epochs"], recipe["min_updates"], arm["extra_updates"])
    evaluations = affordable_evaluations(recipe["evaluations"], trained=train * raised, evaluated=validation + test)
    evaluated = rates * min(epochs, evaluations) * (validation + test) + counts.test_slices
    kind = _kind(job.study, recipe["batch_size"], recipe, augmentation=arm["augmentation"], options=arm["options"])
    row, updates, plain = f"fine-tune {arm['augmentation']}", rates * epochs * per_epoch, _plain(job.study)
    amounts = [(row, f"update {kind}", updates), ("evaluation", f"evaluate {plain}", evaluated)]
    if arm["augmentation"] == "none" and not arm["extra_updates"]:  # the frozen encoder is probed
        amounts.append(("evaluation", f"evaluate {plain}", min(PROBE_CLEAN, train) + train + test))
        amounts.append(("evaluation", "probe", train))
    return Work(row, updates, amounts)


def _explaining(job: Explaining, counts: Counts) -> Work:
    """Two networks' maps, each slice forward and back; and an epoch of the augmentation, counted as its updates."""
    arm, shown, batch = (job.parameters[name] for name in ("arm", "explain", "batch_size"))
    maps = 2 * min(shown["slices"], counts.chosen["test"]) + 4 * shown["same"] + shown["errors"]
    amounts = [("explain", f"update {_plain(job.study)}", maps / batch)]
    if arm["augmentation"] != "none":
        recipe = job.study.settings.finetune_of(job.arm)
        kind = _kind(job.study, batch, recipe, augmentation=arm["augmentation"], options=arm["options"])
        amounts.append(("explain", f"update {kind}", batches_per_epoch(counts.chosen["train"], batch)))
    return Work("explain", 0, amounts)


def loading(study: Study, counts: Counts) -> Work:
    """What a worker loads once for all its fine-tunings, float16; what no device can hold is read beside steps."""
    slices = sum(counts.chosen.values()) + counts.test_slices
    return Work("loading", 0, [("loading", "load", 2 * slices * study.settings.slice.image_size**2)])


def _kind(study: Study, batch_size: int, recipe: Mapping[str, Any], **task: Any) -> str:
    """All that decides a step's time; processes that train together share a batch."""
    settings = study.settings
    shape = {"network": settings.network, "size": settings.slice.image_size}
    shape |= {"batch": -(-batch_size // _processes(study)), **{name: recipe[name] for name in OF_STEP}}
    return json.dumps(task | shape, sort_keys=True)


def _plain(study: Study) -> str:
    """The kind of fine-tuning on clean slices, whose network all encoders resemble."""
    finetune = study.settings.finetune
    return _kind(study, finetune.batch_size, finetune.model_dump(), augmentation="none", options={})


def _processes(study: Study) -> int:
    return int(study.numerics["processes"])
