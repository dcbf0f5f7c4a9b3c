"""Fine-tuning of the classifier, tumor against the rest, with the same settings for every arm.

Departures from the thesis: the epoch is selected on validation or is the last one (the thesis takes the best test
accuracy and F1 over all epochs; the curves have these too), small training sets get more epochs but no more
evaluations, and the learning rate may be chosen from a grid.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kidney_ssl.augmentations.augmented import Augmenting
from kidney_ssl.data.selection import assert_no_shared_case
from kidney_ssl.engine.batches import Batch, Slices, batches_per_epoch, epoch_batches, raised_epochs
from kidney_ssl.engine.device import compile_networks
from kidney_ssl.engine.evaluated_epochs import affordable_evaluations, evaluated_epochs
from kidney_ssl.engine.loop import TrainingContext, train
from kidney_ssl.engine.optimization import Optimization, Schedule, make_optimizer, whole
from kidney_ssl.engine.selected_epoch import SelectedEpoch
from kidney_ssl.errors import InputError
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import load_encoder, save_weights
from kidney_ssl.schema import EVALUATED, SPLITS


class Classification(nn.Module):
    """The training loop's task: binary cross-entropy of the logit on slices, augmented if an augmentation is given."""

    def __init__(self, model: nn.Module, augment: Augmenting | None = None) -> None:
        super().__init__()
        self.model, self.augment = model, augment

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch mean of -y log p - (1 - y) log(1 - p), p = sigmoid(logit); `generator` is for the augmentation."""
        images, labels = batch.images, batch.labels
        if self.augment is not None:
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                images, labels, _ = self.augment.method(images, labels, batch.rows, generator)
        logits = self.model(images)[:, 0].float()
        return binary_cross_entropy_with_logits(logits, labels), {}


@dataclass(frozen=True, kw_only=True)
class Recipe(Optimization):
    """How a classifier is trained."""

    network: str  # see `classifier`
    epochs: int  # passes over the training slices
    batch_size: int  # slices per batch
    learning_rates: Sequence[float]  # peak learning rates to try
    min_updates: int  # epochs are added until there are this many updates; 0 for no minimum
    # Maximum number of evaluated epochs, so that model selection is equally optimistic at every budget; see
    # `evaluated_epochs` and `affordable_evaluations`.
    evaluations: int
    batch_norm_momentum: float  # see `classifier`; with few updates a larger one lets the statistics catch up
    select: str = "best"  # the epoch that is kept: best on validation, or last
    extra_updates: int = 0  # epochs are added until there are this many more updates: the control `longer`


@dataclass(frozen=True)
class Result:
    """Result of a fine-tuning; the tables are described at `finetune`."""

    curves: pd.DataFrame
    predictions: pd.DataFrame
    learning_rate: float  # the selected one
    epoch: int  # the selected one
    epochs: int  # for each learning rate
    updates: int  # optimizer steps of all learning rates together
    seconds: float  # time taken by this process, only for logs
    images: int  # slices that this process trained on, only for logs; fewer than the run's after a resume


def finetune(
    data: Mapping[str, Slices],
    start: Path,
    out: Path,
    *,
    recipe: Recipe,
    context: TrainingContext,
    augment: Augmenting | None = None,
) -> Result:
    """Train the whole network from an arm's initial encoder and write the results.

    Each learning rate is trained for the same number of epochs, from the same weights and in the same batch order. The
    rate whose selected epoch has the highest validation AUROC is used, the earlier in the list on ties. For each rate,
    `select` decides which epoch is selected: the one with the highest validation AUROC (the earliest on ties) or the
    last. If validation has only one class, the lowest validation loss decides instead, with a warning.

    In distributed training every process calls this function and the first one writes.

    Files in `out`:
        model.safetensors: encoder and head of the selected epoch.
        curves.csv: learning_rate, epoch from 1, train_loss of that epoch, train_learning_rate of its last update,
            validation_loss, validation_auroc, validation_accuracy, test_accuracy, test_f1, selected; one row per
            evaluated epoch.
        predictions.csv: part, case, slice, patient if given, class, label, probability of the selected epoch on
            validation and test.
        epochs.npy: (E, N) float32, probabilities of the N test slices after each evaluated epoch of the selected rate.
        natural.csv: case, slice, patient if given, class, probability of the selected epoch, if `natural` is given.

    Args:
        data: train and validation slices of the label budget, test slices, and, optionally, `natural`: slices of the
            test cases at their natural prevalence.
        start: encoder weights, see `kidney_ssl.models.weights`; the head comes from the seed.
        out: folder for the files.
        recipe: see `Recipe`.
        context: see `TrainingContext`; each learning rate has its own checkpoint.
        augment: changes each training batch; None for no augmentation.

    Raises:
        InputError: a part is empty, a case is in two parts, a natural slice belongs to a training or validation case,
            all training slices have one class, the weights do not fit, a loss is not finite, or memory is full.
    """
    _refuse_parts(data)
    count = len(data["train"])
    least = max(2, context.fabric.world_size)
    per_epoch = batches_per_epoch(count, recipe.batch_size, least=least)
    # Computed without the extra updates, so that an arm trained for longer has no more epochs to choose from.
    trained = count * raised_epochs(per_epoch, recipe.epochs, recipe.min_updates)
    evaluated = sum(len(data[name]) for name in EVALUATED)
    evaluations = affordable_evaluations(recipe.evaluations, trained=trained, evaluated=evaluated)
    epochs = raised_epochs(per_epoch, recipe.epochs, recipe.min_updates, recipe.extra_updates)
    due = evaluated_epochs(epochs, evaluations)
    curves, selections, images = [], [], 0
    started = time.monotonic()
    for number, rate in enumerate(recipe.learning_rates):
        model = classifier(recipe.network, context.seed, batch_norm_momentum=recipe.batch_norm_momentum)
        load_encoder(model, start)
        if context.compiled:
            compile_networks(model)
        task = Classification(model, augment)
        selection = SelectedEpoch(model, data, context, recipe.batch_size, due=due, select=recipe.select)
        optimizer = make_optimizer(whole(task), rate, recipe, context.fabric)
        found = train(
            replace(context, checkpoint=context.checkpoint.with_suffix(f".{number}.pt")),
            task,
            data["train"],
            optimizer,
            epochs=epochs,
            batch_size=recipe.batch_size,
            after_epoch=selection,
            schedule=Schedule(optimizer, recipe, per_epoch * epochs),
            clip=recipe.clip,
            deal=partial(epoch_batches, least=least),
        )
        images += found.images
        curves.append(pd.DataFrame(row for row in found.curves if row["epoch"] in due).assign(learning_rate=rate))
        selections.append(selection)
    best = int(np.argmax([selection.score for selection in selections]))
    chosen = selections[best]
    result = Result(
        curves=_curves(curves, recipe.learning_rates[best], chosen.epoch),
        predictions=_predictions(data, chosen.probabilities),
        learning_rate=recipe.learning_rates[best],
        epoch=chosen.epoch,
        epochs=epochs,
        updates=per_epoch * epochs * len(recipe.learning_rates),
        seconds=time.monotonic() - started,
        images=images,
    )
    natural = None
    if "natural" in data:
        chosen.model.load_state_dict(chosen.weights)
        natural = _named(data["natural"].frame, "class")
        natural = natural.assign(probability=chosen.probabilities_of("natural"))
    if context.fabric.is_global_zero:
        save_weights(chosen.weights, out / "model.safetensors")
        result.curves.to_csv(out / "curves.csv", index=False)
        result.predictions.to_csv(out / "predictions.csv", index=False)
        np.save(out / "epochs.npy", torch.stack(chosen.tested).float().numpy())
        if natural is not None:
            natural.to_csv(out / "natural.csv", index=False)
    return result


def _refuse_parts(data: Mapping[str, Slices]) -> None:
    frames = {name: slices.part.frame for name, slices in data.items()}
    assert_no_shared_case({name: frames[name] for name in SPLITS})
    for name in SPLITS:
        if len(data[name]) == 0:
            raise InputError(f"no {name} slices: give more cases or a larger budget, or lower select.min_tumor_px")
    if "natural" in frames:
        assert_no_shared_case({name: frames[name] for name in ("train", "validation", "natural")})
    labels = data["train"].frame["label"]
    if labels.nunique() < 2:
        raise InputError(f"all {len(labels)} training slices are of one class: give more cases or another data.seed")


def _curves(tables: list[pd.DataFrame], rate: float, epoch: int) -> pd.DataFrame:
    """Curves of all learning rates in one table, with the selected row marked."""
    table = pd.concat(tables, ignore_index=True)
    selected = (table["learning_rate"] == rate) & (table["epoch"] == epoch)
    table = table.assign(selected=selected.astype(int))
    return table[["learning_rate", *(name for name in table.columns if name != "learning_rate")]]


def _predictions(data: Mapping[str, Slices], probabilities: Mapping[str, Tensor]) -> pd.DataFrame:
    tables = {
        name: _named(data[name].frame, "class", "label").assign(probability=probabilities[name].numpy())
        for name in EVALUATED
    }
    return pd.concat(tables, names=["part"]).reset_index("part").reset_index(drop=True)


def _named(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The columns that identify a slice, and the given ones."""
    return frame[[name for name in ("case", "slice", "patient", *columns) if name in frame]].copy()
