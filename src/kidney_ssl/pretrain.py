"""Pretraining: one driver for every pretext task, around the loop that fine-tuning uses too."""

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

CLEAN = 512  # training slices that batch norm is re-estimated on and that the probes are fitted on
PICTURED = 6  # slices in the pictures

# Training features (N, width) and labels, validation features and labels, which of those show a kidney -> metrics.
Probe = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Recipe(Optimization):
    """How a method is trained."""

    epochs: int  # passes over the pool
    min_updates: int  # epochs are raised until there are this many updates; 0 for none
    images: int | None = None  # slices to train on in whole epochs, instead of both; see `epochs_of`
    batch_size: int  # slices of a batch
    learning_rate: float  # the highest of the schedule
    evaluations: int  # epochs that are evaluated, at most, see `evaluated_epochs` and `affordable_evaluations`


@dataclass(frozen=True)
class Result:
    """What a pretraining gives."""

    # one row an epoch: epoch, train_loss, train_<metric>, train_learning_rate of its last update; validation_<metric>
    # and the probe's metrics, NaN where it was not evaluated
    curves: pd.DataFrame
    pictures: Mapping[str, Any]  # what `Pretext.pictures` shows of validation slices after training
    updates: int  # optimizer steps
    slices: int  # slices trained on
    seconds: float  # for logs alone, as `images`: what this process took
    images: int  # slices that this process trained on; fewer after a resume


def evaluated_slices(train: int, validation: int) -> int:
    """Count the slices that one evaluation takes through the encoder.

    Validation for the task's metrics; for the probes validation again, and the clean slices for batch norm and for
    their features.
    """
    return 2 * (validation + min(CLEAN, train))


class PretextTask(nn.Module):
    """The loop's task: the method sees what it is shown of a batch, by default the slices alone, and a generator."""

    def __init__(self, method: Pretext, shown: Shown | None = None) -> None:
        super().__init__()
        self.method, self.shown = method, shown

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's own loss and metrics."""
        given = stacked(batch.images, batch.masks) if self.shown is None else self.shown(batch)
        return self.method.step(given, generator)

    @torch.no_grad()
    def after_step(self, update: int) -> None:
        """The method's own."""
        self.method.after_step(update, 0 if self.shown is None else self.shown.updates)


def epochs_of(slices: int, per_epoch: int, epochs: int, min_updates: int, images: int | None) -> int:
    """Epochs of so many slices and updates: those nearest to `images` slices in all if given, else see `Recipe`."""
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

    The encoder's batch-norm statistics are re-estimated on clean training slices before it is written and before it
    is probed. Labels are read by the probe alone, which changes nothing; masks by a method that `reads_masks`.

    Args:
        method: the network and its loss, freshly built from the seed.
        pool: the slices to pretrain on, of training cases only; with masks for a method that reads them.
        parts: train and validation; the same.
        start: encoder weights to begin with.
        out: the encoder's file, see `kidney_ssl.models.weights`.
        recipe: how it is trained.
        context: where and as what.
        forbidden: rows of validation and test, none of whose cases may be in the pool.
        probe: metrics of the encoder's features.
        resident: see `DeviceArray`.

    Raises:
        InputError: a case of the pool is in validation or test, there are too few slices, masks are wanted and
            absent, the weights do not fit, a loss is not finite, or memory is full.
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
    # Once a training: what was trained needs no look, and a checkpoint is as good as its method.
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
    pictures = validate.pictures()  # as the task's own images were normalised, hence before the statistics change
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
    """A part as the method is to see it: with masks if it reads them, without otherwise."""
    if not method.reads_masks:
        return replace(part, masks=None)
    if part.masks is None:
        raise InputError(f"{absent}: give them too")
    return part


def _clean(part: Part) -> Part:
    """`CLEAN` training slices spread evenly over the rows, or all if there are no more; without masks."""
    rows = evenly_spaced(len(part.frame), CLEAN)
    return Part(part.images[rows], part.frame.iloc[rows])


class _Validation:
    """A method's metrics on validation slices after the epochs of `due`."""

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
        """Mean over validation slices of the method's own metrics, drawn alike in every epoch, and the probe's."""
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
        """Show a few validation slices, spread over the rows; a training is worth more than a picture that fails."""
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
            except Exception as error:  # noqa: BLE001 - a method's own code may fail in any way
                found, problems = {}, {"all": f"{type(error).__name__}: {error}"}
        for name, problem in problems.items():
            warnings.warn(f"{self.label}: pictures: {name}: left out ({problem})", stacklevel=2)
        return {name: picture for name, picture in found.items() if name not in problems}

    def _batches(self, name: str) -> Iterator[Batch]:
        """Deal rows out like cards, so that a case's neighbouring slices fall into different batches.

        A batch of one case has too small a variance for batch norm and too many false negatives for contrast. All
        batches are of about one size and none holds a single slice, which batch norm refuses at 32 px.
        """
        count = len(self.held[name])
        batches = max(1, min(-(-count // self.recipe.batch_size), count // 2))
        return self.held[name].batches([torch.arange(start, count, batches) for start in range(batches)])

    def _features(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (N, width) float32 of the globally pooled last layer, labels, and whether a slice shows a kidney."""
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
    """Features of an encoder: (B, width), averaged over the last feature map where it gives those, as a U-Net's."""
    given = encoder(images)
    last = given[-1] if isinstance(given, (list, tuple)) else given
    return last.mean(dim=(2, 3)) if last.ndim == 4 else last
