"""The trainings of a study, each with its work and with what has to be measured for it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kidney_ssl import pretext
from kidney_ssl.planning.counts import Counts
from kidney_ssl.planning.work import Work
from kidney_ssl.training.batches import batches_per_epoch, raised_epochs
from kidney_ssl.training.pretrain import CLEAN


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        stage: its name in DVC.
        title: what it is in a table; trainings that do the same share it.
        work: slices, epochs, updates.
        measured: what decides a step's time, as JSON: trainings that share it are measured once.
    """

    stage: str
    title: str
    work: Work
    measured: str


def pretraining(name: str, block: Mapping[str, Any], counts: Counts, *, pool: str, probe_every: int) -> Training:
    """A block of `pretrain.methods`.

    Args:
        name: of the block.
        block: its keys.
        counts: slices of the study.
        pool: `pretrain.pool`.
        probe_every: `pretrain.probe_every`.
    """
    train, validation = counts.chosen["train"], counts.chosen["validation"]
    slices = counts.training_slices if pool == "all" else train
    per_epoch = batches_per_epoch(slices, block["batch_size"])
    if pretext.load(block["method"]).one_slice_per_case:
        per_epoch = -(-slices // block["batch_size"])  # `case_batches` deals a last slice out instead of joining it
    epochs = raised_epochs(per_epoch, block["epochs"], block["min_updates"])
    probes = -(-epochs // probe_every)
    clean = min(CLEAN, train)
    work = Work(
        slices=slices,
        epochs=epochs,
        updates=epochs * per_epoch,
        evaluated=epochs * validation,
        encoded=probes * (2 * clean + validation) + clean,
        probes=probes,
    )
    kept = {key: block[key] for key in ("method", "batch_size", "learning_rate", "weight_decay", "options")}
    return Training(f"pretrain@{name}", f"pretrain {name}", work, json.dumps(kept, sort_keys=True))


def finetuning(
    stage: str,
    arm: Mapping[str, Any],
    settings: Mapping[str, Any],
    counts: Counts,
    *,
    percent: int,
) -> Training:
    """A run of an arm.

    Args:
        stage: its name in DVC.
        arm: its block of `arms`.
        settings: `finetune`.
        counts: slices of the study.
        percent: label budget; slices are in proportion, and at least a batch's two.
    """
    train, validation = (max(2, round(counts.chosen[part] * percent / 100)) for part in ("train", "validation"))
    test, rates = counts.chosen["test"], len(settings["learning_rates"])
    per_epoch = batches_per_epoch(train, settings["batch_size"])
    extra = arm.get("extra_updates", 0)
    epochs = raised_epochs(per_epoch, settings["epochs"], settings["min_updates"], extra)
    work = Work(
        slices=train,
        epochs=epochs,
        updates=rates * epochs * per_epoch,
        evaluated=rates * min(epochs, settings["evaluations"]) * (validation + test) + counts.test_slices,
        encoded=min(CLEAN, train) + train + test,  # probes of the frozen encoder
        probes=1,
    )
    name, options = arm["augmentation"], arm["options"]
    said = ", ".join(f"{key} {value}" for key, value in options.items())
    title = f"fine-tune at {percent} %, augmentation {name}" + (f" ({said})" if said else "")
    title += f", {extra} further updates" if extra else ""
    measured = json.dumps({"augmentation": name, "options": options}, sort_keys=True)
    return Training(stage, title, work, measured)
