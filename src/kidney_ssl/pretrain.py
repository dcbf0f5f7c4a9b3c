"""Pretraining with any pretext task, using the same training loop as fine-tuning."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kidney_ssl.data.patients import patient_column
from kidney_ssl.data.selection import assert_no_shared_case
from kidney_ssl.engine.batches import (
    Batch,
    Part,
    Slices,
    case_batches,
    epoch_batches,
    evenly_spaced,
    raised_epochs,
    seeded,
)
from kidney_ssl.engine.device import compile_networks
from kidney_ssl.engine.evaluated_epochs import affordable_evaluations, evaluated_epochs
from kidney_ssl.engine.loop import TrainingContext, train
from kidney_ssl.engine.optimization import Optimization, Schedule, make_optimizer
from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Pretext
from kidney_ssl.models.resnet import reestimate_batch_norm
from kidney_ssl.models.weights import encoder_state, load_encoder, save_weights
from kidney_ssl.preflight import broken_picture, preflight, require_encoder
from kidney_ssl.pretext import Shown, stacked
from kidney_ssl.schema import BACKGROUND

CLEAN = 512  # training slices used to re-estimate batch-norm statistics and to fit the probes
PICTURED = 6  # slices in the pictures

# Training features (N, width) and labels, validation features and labels, which of the latter show a kidney -> metrics.
Probe = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Recipe(Optimization):
    """How a method is trained."""

    epochs: int  # passes over the pool
    min_updates: int  # epochs are added until there are this many updates; 0 for no minimum
    images: int | None = None  # slices to train on, in whole epochs; replaces the two above, see `epochs_of`
    batch_size: int  # slices per batch
    learning_rate: float  # peak of the schedule
    evaluations: int  # maximum number of evaluated epochs, see `evaluated_epochs` and `affordable_evaluations`


@dataclass(frozen=True)
class Result:
    """Result of a pretraining."""

    # One row per epoch: epoch, train_loss, train_<metric>, train_learning_rate of its last update; validation_<metric>
    # and the probe's metrics, NaN if the epoch was not evaluated.
    curves: pd.DataFrame
    pictures: Mapping[str, Any]  # `Pretext.pictures` of validation slices after training
    updates: int  # optimizer steps
    slices: int  # slices trained on
    seconds: float  # time taken by this process, only for logs
    images: int  # slices that this process trained on, only for logs; fewer than `slices` after a resume


def evaluated_slices(train: int, validation: int) -> int:
    """Count the slices that pass through the encoder in one evaluation.

    The validation slices pass twice: for the task's metrics and for the probe. Clean training slices also pass twice:
    for batch norm and for the probe.
    """
    return 2 * (validation + min(CLEAN, train))


class PretextTask(nn.Module):
    """The training loop's task: gives the method its input, by default only the slices, and a random generator."""

    def __init__(self, method: Pretext, shown: Shown | None = None) -> None:
        super().__init__()
        self.method, self.shown = method, shown

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's loss and metrics."""
        given = stacked(batch.images, batch.masks) if self.shown is None else self.shown(batch)
        return self.method.step(given, generator)

    @torch.no_grad()
    def after_step(self, update: int) -> None:
        """Call the method's `after_step`."""
        self.method.after_step(update, 0 if self.shown is None else self.shown.updates)


def epochs_of(slices: int, per_epoch: int, epochs: int, min_updates: int, images: int | None) -> int:
    """Number of epochs: nearest to `images` slices in total if given, else from `epochs` and `min_updates`."""
    return raised_epochs(per_epoch, epochs, min_updates) if images is None else max(1, round(images / slices))


def pretrain(
    method: Pretext,
    pool: Part,
    parts: Mapping[str, Part],
    start: Path,
    out: Path,
    *,
    recipe: Recipe,
    context: TrainingContext,
    forbidden: Mapping[str, pd.DataFrame],
    probe: Probe | None = None,
    resident: str = "auto",
) -> Result:
    """Train a method's network on slices without labels and write its encoder.

    The encoder's batch-norm statistics are re-estimated on clean training slices before the encoder is probed or
    written. Only the probe reads labels, and it changes nothing. Only a method with `reads_masks` gets masks.

    Args:
        method: the network and its loss, newly built from the seed.
        pool: the slices to pretrain on, of training cases only; with masks for a method that reads them.
        parts: train and validation slices, with masks under the same condition.
        start: file of the initial encoder weights.
        out: the encoder's file, see `kidney_ssl.models.weights`.
        recipe: how the method is trained.
        context: see `TrainingContext`.
        forbidden: tables of the validation and test slices, whose cases must not be in the pool.
        probe: computes metrics of the encoder's features.
        resident: see `DeviceArray`.

    Raises:
        InputError: a case of the pool is in validation or test, there are too few slices, required masks are
            missing, the weights do not fit, a loss is not finite, or memory is full.
    """
    assert_no_shared_case({"the pretraining pool": pool.frame, **forbidden})
    pool, validation = (
        _with_masks_if_read(method, part, f"{context.label}: the method reads masks, and there are none of {name}")
        for name, part in (("the pretraining pool", pool), ("validation", parts["validation"]))
    )
    cases = patient_column(pool.frame).to_numpy()
    require_encoder(method, context.label)
    load_encoder(method.encoder, start)
    method.begin()
    device = context.fabric.device
    slices = Slices(pool, device=device, resident=resident)
    held = {
        "train": Slices(_clean(parts["train"]), device=device, resident=resident),
        "validation": Slices(validation, device=device, resident=resident),
    }

    def deal(count: int, size: int, generator: torch.Generator) -> list[Tensor]:
        if method.one_slice_per_case:
            return case_batches(cases, size, generator)
        return epoch_batches(count, size, generator, least=max(2, context.fabric.world_size))

    dealt = deal(len(slices), recipe.batch_size, seeded(context.seed, "order", 0))
    epochs = epochs_of(len(slices), len(dealt), recipe.epochs, recipe.min_updates, recipe.images)
    updates = len(dealt) * epochs
    shown, shown_validation = (Shown(method, seen, updates) for seen in (slices, held["validation"]))
    # Only at the start of a training: when it resumes from a checkpoint, the method has already been checked.
    if not context.fabric.broadcast(context.checkpoint.exists()):
        preflight(method, shown, shown_validation, dealt[0], context)
    if context.compiled:
        compile_networks(*(part for part in method.children() if any(True for _ in part.parameters())))
    task = PretextTask(method, shown)
    optimizer = make_optimizer(method.parameter_groups(), recipe.learning_rate, recipe, context.fabric)
    trained = sum(map(len, dealt)) * epochs
    evaluated = evaluated_slices(len(parts["train"].frame), len(validation.frame))
    evaluations = affordable_evaluations(recipe.evaluations, trained=trained, evaluated=evaluated)
    due = evaluated_epochs(epochs, evaluations)
    validate = _Validation(method, held, shown_validation, recipe=recipe, context=context, probe=probe, due=due)
    started = time.monotonic()
    found = train(
        context,
        task,
        slices,
        optimizer,
        epochs=epochs,
        batch_size=recipe.batch_size,
        after_epoch=validate,
        schedule=Schedule(optimizer, recipe, updates),
        clip=recipe.clip,
        deal=deal,
    )
    pictures = validate.pictures()  # before the batch-norm statistics change, so as the method was trained
    validate.reestimate()
    if context.fabric.is_global_zero:
        save_weights(encoder_state(method.exported), out)
    return Result(
        curves=pd.DataFrame(found.curves),
        pictures=pictures,
        updates=updates,
        slices=trained,
        seconds=time.monotonic() - started,
        images=found.images,
    )


def _with_masks_if_read(method: Pretext, part: Part, absent: str) -> Part:
    """A part with its masks if the method reads them, else without."""
    if not method.reads_masks:
        return replace(part, masks=None)
    if part.masks is None:
        raise InputError(f"{absent}: give them too")
    return part


def _clean(part: Part) -> Part:
    """Up to `CLEAN` training slices, spread evenly over the rows, without masks."""
    rows = evenly_spaced(len(part.frame), CLEAN)
    return Part(part.images[rows], part.frame.iloc[rows])


class _Validation:
    """A method's metrics on validation slices after the epochs in `due`."""

    def __init__(
        self,
        method: Pretext,
        held: Mapping[str, Slices],
        shown: Shown,
        *,
        recipe: Recipe,
        context: TrainingContext,
        probe: Probe | None,
        due: Sequence[int],
    ) -> None:
        self.method, self.held, self.recipe, self.probe, self.due = method, held, recipe, probe, due
        self.shown, self.per_epoch = shown, shown.updates // due[-1]
        self.fabric, self.seed, self.label = context.fabric, context.seed, context.label

    def __call__(self, epoch: int) -> dict[str, float]:
        """The method's metrics, averaged over validation slices with the same draws in every epoch, and the probe's."""
        if epoch not in self.due:
            return {}
        generator = seeded(self.seed, "validation", device=self.fabric.device)
        values: dict[str, list[Tensor]] = {}
        self.method.eval()
        with torch.inference_mode(), self.fabric.autocast():
            for batch in self._batches("validation"):
                given = self.shown(batch._replace(update=epoch * self.per_epoch))
                for name, of_slice in self.method.validate(given, generator).items():
                    values.setdefault(f"validation_{name}", []).append(of_slice.double())
        metrics = {name: float(torch.cat(parts).cpu().mean()) for name, parts in values.items()}
        if self.probe is not None:
            kept = {name: tensor.clone() for name, tensor in self.method.exported.state_dict().items()}
            self.reestimate()
            train, labels, _ = self._features("train")
            found = self.probe(train, labels, *self._features("validation"))
            metrics |= {f"probe_{name}": value for name, value in found.items()}
            self.method.exported.load_state_dict(kept)
        return metrics

    def reestimate(self) -> None:
        """Re-estimate the exported encoder's batch-norm statistics on clean training slices."""
        with self.fabric.autocast():
            reestimate_batch_norm(self.method.exported, (batch.images for batch in self._batches("train")))

    def pictures(self) -> dict[str, Any]:
        """Pictures of a few validation slices, spread over the rows; an error in them must not lose the training."""
        slices = self.held["validation"]
        self.method.eval()
        with torch.inference_mode():
            batch = slices.batch(torch.from_numpy(evenly_spaced(len(slices), PICTURED)))
            given = self.shown(batch._replace(update=self.shown.updates))
            generator = seeded(self.seed, "pictures", device=self.fabric.device)
            try:
                found = dict(self.method.pictures(given, generator))
                problems = {
                    name: problem for name, picture in found.items() if (problem := broken_picture(name, picture))
                }
            except Exception as error:  # noqa: BLE001 - a method's code may fail in any way
                found, problems = {}, {"all": f"{type(error).__name__}: {error}"}
        for name, problem in problems.items():
            warnings.warn(f"{self.label}: pictures: {name}: left out ({problem})", stacklevel=2)
        return {name: picture for name, picture in found.items() if name not in problems}

    def _batches(self, name: str) -> Iterator[Batch]:
        """Put every n-th row into the same batch, so that neighbouring slices of a case are in different batches.

        A batch from one case varies too little for batch norm and has too many false negatives for contrastive
        losses. Batch sizes differ by at most one, and no batch has a single slice, which batch norm refuses at 32 px.
        """
        count = len(self.held[name])
        batches = max(1, min(-(-count // self.recipe.batch_size), count // 2))
        return self.held[name].batches([torch.arange(start, count, batches) for start in range(batches)])

    def _features(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Globally pooled features (N, width) float32 of the last layer, labels, and whether a slice shows a kidney."""
        self.method.exported.eval()
        with torch.inference_mode(), self.fabric.autocast():
            found = [
                (features(self.method.exported, batch.images), batch.labels, batch.rows)
                for batch in self._batches(name)
            ]
            values, labels, rows = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
        with_kidney = (self.held[name].frame["class"] != BACKGROUND).to_numpy()[rows.numpy()]
        return values.float().numpy(), labels.numpy().astype(np.int64), with_kidney


def features(encoder: nn.Module, images: Tensor) -> Tensor:
    """Features (B, width) of an encoder; the spatial mean of the last map if it gives feature maps, as a U-Net's."""
    given = encoder(images)
    last = given[-1] if isinstance(given, (list, tuple)) else given
    return last.mean(dim=(2, 3)) if last.ndim == 4 else last
