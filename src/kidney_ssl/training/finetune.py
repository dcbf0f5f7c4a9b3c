"""Fine-tuning of the classifier: tumor against the rest, the same settings for every arm.

Departures from the thesis: the epoch is selected on validation (the thesis reads the best test figure of all epochs;
those stand in the curves), small training sets get more epochs but no more evaluations, and the rate may be chosen from
a grid.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kidney_ssl.data.selection import assert_no_shared_case
from kidney_ssl.errors import InputError
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import load_encoder, save_weights
from kidney_ssl.training.augmented import Augmenting
from kidney_ssl.training.batches import Batch, Part, Slices, batches_per_epoch, epoch_batches, raised_epochs
from kidney_ssl.training.best_epoch import EVALUATED, BestEpoch, evaluated_epochs
from kidney_ssl.training.checkpoint import SECONDS, Checkpoint, exclusive_training, fingerprint
from kidney_ssl.training.device import numerics
from kidney_ssl.training.loop import train

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PARTS = ("train", *EVALUATED)


class Classification(nn.Module):
    """The loop's task: binary cross-entropy on the logit, of slices that an augmentation may have changed."""

    def __init__(self, model: nn.Module, augment: Augmenting | None = None) -> None:
        super().__init__()
        self.model, self.augment = model, augment

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the batch of -y log p - (1 - y) log(1 - p), p = sigmoid(logit); only an augmentation draws."""
        images, labels = batch.images, batch.labels
        if self.augment is not None:
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                images, labels, _ = self.augment.method(images, labels, batch.rows, generator)
        logits = self.model(images)[:, 0].float()
        return binary_cross_entropy_with_logits(logits, labels), {}


@dataclass(frozen=True)
class Result:
    """What a fine-tuning gives; `seconds`, `images` (slices trained on) and `updates` are for logs alone."""

    curves: pd.DataFrame
    predictions: pd.DataFrame
    learning_rate: float
    epoch: int
    epochs: int
    seconds: float
    images: int
    updates: int


def finetune(
    parts: Mapping[str, Part],
    start: Path,
    out: Path,
    *,
    fabric: "Fabric",
    network: str,
    epochs: int,
    batch_size: int,
    learning_rates: Sequence[float],
    weight_decay: float,
    min_updates: int,
    evaluations: int,
    extra_updates: int = 0,
    batch_norm_momentum: float,
    seed: int,
    label: str,
    checkpoints: Path,
    resident: str = "auto",
    rows: Mapping[str, np.ndarray] | None = None,
    natural: Part | None = None,
    augment: Augmenting | None = None,
    checkpoint_seconds: float = SECONDS,
) -> Result:
    """Train the whole network from an arm's initial encoder and write what came out.

    Each learning rate trains for the same epochs from the same weights in the same order of batches; the one whose
    best epoch has the highest validation AUROC wins, the earlier in the list on ties. Within a rate the epoch with
    the highest validation AUROC is selected, the earliest on ties. With one class in validation the lowest
    validation loss decides both, with a warning.

    Several processes all call this; the first writes.

    Files in `out`:
        model.safetensors: encoder and head of the selected epoch.
        curves.csv: learning_rate, epoch from 1, train_loss of that epoch, validation_loss, validation_auroc,
            validation_accuracy, test_accuracy, test_f1, selected; one row an evaluated epoch.
        predictions.csv: part, case, slice, class, label, probability of the selected epoch on validation and test.
        epochs.npy: (E, N) float32, probabilities of the N test slices after the evaluated epochs of the rate that won.
        natural.csv: case, slice, class, probability of the selected epoch, if `natural` is given.

    Args:
        parts: train, validation and test.
        start: encoder weights, see `kidney_ssl.models.weights`; the head comes from the seed.
        out: folder for the files.
        fabric: device and precision.
        network: see `classifier`.
        epochs: passes over the training slices.
        batch_size: slices of a batch.
        learning_rates: Adam's rates to try.
        weight_decay: Adam's L2 term, added to the gradient (not decoupled).
        min_updates: epochs are raised until there are this many updates; 0 for none.
        evaluations: epochs that are evaluated, see `evaluated_epochs`: with as many at every budget, choosing among
            them gains as much at every budget.
        extra_updates: epochs are raised further until there are so many more: the control `longer`.
        batch_norm_momentum: see `classifier`; with few updates a larger one lets the statistics catch up.
        seed: decides the head and the order of batches.
        label: the run's name, in messages, lock and checkpoint.
        checkpoints: folder of unfinished trainings.
        resident: see `Slices`.
        rows: rows of train and of validation that a label budget holds; of a part that is not named, all.
        natural: slices of the test cases at their natural prevalence.
        augment: changes each training batch; None for clean slices.
        checkpoint_seconds: see `Checkpoint`.

    Raises:
        InputError: a part is empty, a case is in two parts, a natural slice is of a training or validation case, the
            training rows are of one class, the weights do not
            fit, a loss is not finite, or the same training runs in another process.
    """
    parts = {name: parts[name] for name in PARTS} | ({"natural": natural} if natural is not None else {})
    rows = dict(rows or {})
    _refuse_parts(parts, rows)
    data = {
        name: Slices(
            part.images,
            part.frame["label"].to_numpy() if name in PARTS else np.zeros(len(part.frame)),
            device=fabric.device,
            resident=resident,
            rows=rows.get(name),
        )
        for name, part in parts.items()
    }
    least = max(2, fabric.world_size)
    updates = batches_per_epoch(len(data["train"]), batch_size, least=least)
    epochs = raised_epochs(updates, epochs, min_updates, extra_updates)
    due = evaluated_epochs(epochs, evaluations)
    settings = numerics(fabric) | {
        "batch_norm_momentum": batch_norm_momentum,
        "batch_size": batch_size,
        "epochs": epochs,
        "evaluations": evaluations,
        "network": network,
        "seed": seed,
        "weight_decay": weight_decay,
        **(dict(augment.described) if augment else {}),
    }
    arrays = [array for name in PARTS for array in (data[name].rows, data[name].labels.cpu().numpy())]
    arrays += [*(part.images for part in parts.values()), *([augment.masks] if augment else [])]
    base = fingerprint(settings, arrays, [start])
    files = [checkpoints / f"{label}-{fingerprint({'base': base, 'rate': rate})}.pt" for rate in learning_rates]
    curves, selections = [], []
    started = time.monotonic()
    with exclusive_training(fabric, checkpoints, label, files):
        for rate, file in zip(learning_rates, files, strict=True):
            model = classifier(network, seed, batch_norm_momentum=batch_norm_momentum)
            load_encoder(model, start)
            task = Classification(model, augment)
            selection = BestEpoch(model, data, fabric, batch_size, label, due=due)
            table = train(
                fabric,
                task,
                data["train"],
                # One fused kernel: the loop over parameters takes a tenth of a CPU step at 96 px.
                torch.optim.Adam(task.parameters(), lr=rate, weight_decay=weight_decay, fused=True),
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
                label=label,
                after_epoch=selection,
                checkpoint=Checkpoint(file, checkpoint_seconds),
                deal=partial(epoch_batches, least=least),
            )
            curves.append(pd.DataFrame(row for row in table if row["epoch"] in due).assign(learning_rate=rate))
            selections.append(selection)
        best = int(np.argmax([selection.score for selection in selections]))
        chosen = selections[best]
        result = Result(
            curves=_curves(curves, learning_rates[best], chosen.epoch),
            predictions=_predictions(parts, chosen.probabilities, rows),
            learning_rate=learning_rates[best],
            epoch=chosen.epoch,
            epochs=epochs,
            seconds=time.monotonic() - started,
            images=len(data["train"]) * epochs * len(learning_rates),
            updates=updates * epochs * len(learning_rates),
        )
        whole = None
        if natural is not None:
            chosen.model.load_state_dict(chosen.weights)
            whole = natural.frame[["case", "slice", "class"]].assign(probability=chosen.probabilities_of("natural"))
        if fabric.is_global_zero:
            save_weights(chosen.weights, out / "model.safetensors")
            result.curves.to_csv(out / "curves.csv", index=False)
            result.predictions.to_csv(out / "predictions.csv", index=False)
            np.save(out / "epochs.npy", np.stack(chosen.tested).astype(np.float32))
            if whole is not None:
                whole.to_csv(out / "natural.csv", index=False)
    return result


def _refuse_parts(parts: Mapping[str, Part], rows: Mapping[str, np.ndarray]) -> None:
    assert_no_shared_case({name: parts[name].frame for name in PARTS})
    for name in PARTS:
        if len(rows.get(name, parts[name].frame)) == 0:
            raise InputError(f"no {name} slices: give more cases or a larger budget, or lower select.min_tumor_px")
    if "natural" in parts:
        assert_no_shared_case({name: parts[name].frame for name in ("train", "validation", "natural")})
    labels = parts["train"].frame["label"].to_numpy()
    kept = labels[rows["train"]] if "train" in rows else labels
    if len(np.unique(kept)) < 2:
        raise InputError(f"all {len(kept)} training slices are of one class: give more cases or another data.seed")


def _curves(tables: list[pd.DataFrame], rate: float, epoch: int) -> pd.DataFrame:
    """All rates' curves below each other, the one selected row marked."""
    table = pd.concat(tables, ignore_index=True)
    selected = (table["learning_rate"] == rate) & (table["epoch"] == epoch)
    table = table.assign(selected=selected.astype(int))
    return table[["learning_rate", *(name for name in table.columns if name != "learning_rate")]]


def _predictions(
    parts: Mapping[str, Part], probabilities: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    tables = []
    for name in EVALUATED:
        table = parts[name].frame[["case", "slice", "class", "label"]]
        table = table.iloc[rows.get(name, slice(None))].reset_index(drop=True)
        table.insert(0, "part", name)
        tables.append(table.assign(probability=probabilities[name]))
    return pd.concat(tables, ignore_index=True)
