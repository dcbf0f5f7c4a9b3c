"""Fine-tuning of the classifier: tumor against the rest, the same settings for every arm.

Departures from the thesis: the epoch is selected on validation (the thesis reads the best test figure of all epochs;
those stand in the curves), small training sets get more epochs, and the rate may be chosen from a grid.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from kidney_ssl.training.batches import Batch, Part, Slices, batches_per_epoch
from kidney_ssl.training.best_epoch import EVALUATED, BestEpoch
from kidney_ssl.training.checkpoint import SECONDS, Checkpoint, exclusive, fingerprint, remove_checkpoints
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
    batch_norm_momentum: float,
    seed: int,
    label: str,
    checkpoints: Path,
    resident: str = "auto",
    rows: np.ndarray | None = None,
    augment: Augmenting | None = None,
    checkpoint_seconds: float = SECONDS,
) -> Result:
    """Train the whole network from an arm's initial encoder and write what came out.

    Each learning rate trains for the same epochs from the same weights in the same order of batches; the one whose
    best epoch has the highest validation AUROC wins, the earlier in the list on ties. Within a rate the epoch with
    the highest validation AUROC is selected, the earliest on ties. With one class in validation the lowest
    validation loss decides both, with a warning.

    Files in `out`: `model.safetensors` (encoder and head of the selected epoch), `curves.csv` (learning_rate, epoch
    from 1, train_loss, validation_loss, validation_auroc, validation_accuracy, test_accuracy, test_f1, selected) and
    `predictions.csv` (part, case, slice, class, label, probability) of the selected epoch on validation and test.

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
        batch_norm_momentum: see `classifier`; with few updates a larger one lets the statistics catch up.
        seed: decides the head and the order of batches.
        label: the run's name, in messages, lock and checkpoint.
        checkpoints: folder of unfinished trainings.
        resident: see `Slices`.
        rows: rows of the training part that take part; all if None.
        augment: changes each training batch; None for clean slices.
        checkpoint_seconds: see `Checkpoint`.

    Raises:
        InputError: a part is empty, a case is in two parts, the training rows are of one class, the weights do not
            fit, a loss is not finite, or the same training runs in another process.
    """
    _refuse_parts(parts, rows)
    data = {
        name: Slices(
            parts[name].images,
            parts[name].frame["label"].to_numpy(),
            device=fabric.device,
            resident=resident,
            rows=rows if name == "train" else None,
        )
        for name in PARTS
    }
    updates = batches_per_epoch(len(data["train"]), batch_size)
    epochs = max(epochs, -(-min_updates // updates))
    settings = numerics(fabric) | {
        "batch_norm_momentum": batch_norm_momentum,
        "batch_size": batch_size,
        "epochs": epochs,
        "network": network,
        "seed": seed,
        "weight_decay": weight_decay,
        **(dict(augment.described) if augment else {}),
    }
    arrays = [array for name in PARTS for array in (data[name].rows, data[name].labels.cpu().numpy())]
    arrays += [*(parts[name].images for name in PARTS), *([augment.masks] if augment else [])]
    base = fingerprint(settings, arrays, [start])
    files = [checkpoints / f"{label}-{fingerprint({'base': base, 'rate': rate})}.pt" for rate in learning_rates]
    curves, selections = [], []
    started = time.monotonic()
    with exclusive(checkpoints, label):
        remove_checkpoints(checkpoints, label, keep=files)
        for rate, file in zip(learning_rates, files, strict=True):
            model = classifier(network, seed, batch_norm_momentum=batch_norm_momentum)
            load_encoder(model, start)
            task = Classification(model, augment)
            selection = BestEpoch(model, data, fabric, batch_size, label)
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
            )
            curves.append(pd.DataFrame(table).assign(learning_rate=rate))
            selections.append(selection)
        best = int(np.argmax([selection.score for selection in selections]))
        result = Result(
            curves=_curves(curves, learning_rates[best], selections[best].epoch),
            predictions=_predictions(parts, selections[best].probabilities),
            learning_rate=learning_rates[best],
            epoch=selections[best].epoch,
            epochs=epochs,
            seconds=time.monotonic() - started,
            images=len(data["train"]) * epochs * len(learning_rates),
            updates=updates * epochs * len(learning_rates),
        )
        save_weights(selections[best].weights, out / "model.safetensors")
        result.curves.to_csv(out / "curves.csv", index=False)
        result.predictions.to_csv(out / "predictions.csv", index=False)
        remove_checkpoints(checkpoints, label)
    return result


def _refuse_parts(parts: Mapping[str, Part], rows: np.ndarray | None) -> None:
    assert_no_shared_case({name: parts[name].frame for name in PARTS})
    for name in PARTS:
        if len(parts[name].frame) == 0:
            raise InputError(f"no {name} slices: give more cases, or lower select.min_tumor_px")
    labels = parts["train"].frame["label"].to_numpy()
    kept = labels if rows is None else labels[rows]
    if len(np.unique(kept)) < 2:
        raise InputError(f"all {len(kept)} training slices are of one class: give more cases or another data.seed")


def _curves(tables: list[pd.DataFrame], rate: float, epoch: int) -> pd.DataFrame:
    """All rates' curves below each other, the one selected row marked."""
    table = pd.concat(tables, ignore_index=True)
    selected = (table["learning_rate"] == rate) & (table["epoch"] == epoch)
    table = table.assign(selected=selected.astype(int))
    return table[["learning_rate", *(name for name in table.columns if name != "learning_rate")]]


def _predictions(parts: Mapping[str, Part], probabilities: Mapping[str, np.ndarray]) -> pd.DataFrame:
    tables = []
    for name in EVALUATED:
        table = parts[name].frame[["case", "slice", "class", "label"]].reset_index(drop=True)
        table.insert(0, "part", name)
        tables.append(table.assign(probability=probabilities[name]))
    return pd.concat(tables, ignore_index=True)
