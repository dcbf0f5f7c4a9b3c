"""Pretraining: one driver for every pretext task, around the loop that fine-tuning uses too."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kidney_ssl.data.selection import assert_no_shared_case
from kidney_ssl.errors import InputError
from kidney_ssl.models.resnet import reestimate_batch_norm
from kidney_ssl.models.weights import encoder_state, load_encoder, save_weights
from kidney_ssl.pretext.base import Pretext
from kidney_ssl.training.batches import (
    Batch,
    Part,
    Slices,
    case_batches,
    epoch_batches,
    raised_epochs,
    seeded,
)
from kidney_ssl.training.checkpoint import SECONDS, Checkpoint, exclusive_training, fingerprint
from kidney_ssl.training.device import numerics
from kidney_ssl.training.loop import train

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLEAN = 512  # training slices that batch norm is re-estimated on and that the probes are fitted on
PICTURED = 6  # slices in the pictures

# Training features (N, width) and labels, validation features and labels -> figures.
Probe = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], dict[str, float]]


@dataclass(frozen=True)
class Plateau:
    """ReduceLROnPlateau: the rate is multiplied by `factor` after `patience` epochs without a lower validation loss."""

    factor: float
    patience: int


@dataclass(frozen=True)
class Result:
    """What a pretraining gives; `seconds` is for logs alone.

    Attributes:
        curves: one row an epoch: epoch, train_loss, train_<figure>, validation_<figure>, and the probe's figures.
        pictures: what `Pretext.pictures` shows of validation slices after training.
        updates: optimizer steps.
        images: slices trained on.
    """

    curves: pd.DataFrame
    pictures: Mapping[str, Any]
    updates: int
    images: int
    seconds: float


class PretextTask(nn.Module):
    """The loop's task: the method sees images and a generator, and masks if it says that it reads them."""

    def __init__(self, method: Pretext, masks: np.ndarray | None = None) -> None:
        super().__init__()
        self.method, self.masks = method, masks

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's own loss and figures."""
        return self.method.step(seen(batch, self.masks), generator)


def seen(batch: Batch, masks: np.ndarray | None) -> Tensor:
    """What a method sees of a batch.

    Args:
        batch: of a part.
        masks: (N, S, S) uint8 of all rows of that part, or None for a method that reads none.

    Returns:
        (B, 1, S, S) the slices; (B, 2, S, S) with their masks.
    """
    if masks is None:
        return batch.images
    labels = torch.from_numpy(masks[batch.rows.cpu().numpy()]).to(batch.images.device)
    return torch.cat([batch.images, labels[:, None].to(batch.images.dtype)], 1)


def pretrain(
    method: Pretext,
    pool: Part,
    parts: Mapping[str, Part],
    start: Path,
    out: Path,
    *,
    forbidden: Mapping[str, pd.DataFrame],
    fabric: "Fabric",
    settings: Mapping[str, Any],
    epochs: int,
    min_updates: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    plateau: Plateau | None,
    seed: int,
    label: str,
    checkpoints: Path,
    probe: Probe | None = None,
    probe_every: int = 1,
    resident: str = "auto",
    checkpoint_seconds: float = SECONDS,
) -> Result:
    """Train a method's network on slices without labels and write its encoder.

    The encoder's batch-norm statistics are re-estimated on clean training slices before it is written and before it
    is probed. Labels are read by the probe alone, which changes nothing; masks by a method that `reads_masks`.

    Args:
        method: the network and its loss, freshly built from `seed`.
        pool: the slices to pretrain on, of training cases only; with masks for a method that reads them.
        parts: train and validation; the same.
        start: encoder weights to begin with.
        out: the encoder's file, see `kidney_ssl.models.weights`.
        forbidden: rows of validation and test, none of whose cases may be in the pool.
        fabric: device and precision.
        settings: all that decides the method (its name and options, the network), for the checkpoint.
        epochs: passes over the pool.
        min_updates: epochs are raised until there are this many updates; 0 for none.
        batch_size: slices of a batch.
        learning_rate: Adam's rate.
        weight_decay: Adam's L2 term.
        plateau: the scheduler, or None for a constant rate.
        seed: decides the order of batches and all that the method draws.
        label: the run's name, in messages, lock and checkpoint.
        checkpoints: folder of unfinished trainings.
        probe: figures of the frozen encoder, taken every `probe_every` epochs and after the last.
        probe_every: see `probe`.
        resident: see `Slices`.
        checkpoint_seconds: see `Checkpoint`.

    Raises:
        InputError: a case of the pool is in validation or test, there are too few slices, masks are wanted and
            absent, the weights do not fit, a loss is not finite, or the same training runs in another process.
    """
    assert_no_shared_case({"the pretraining pool": pool.frame, **forbidden})
    masks = _masks(method, {"the pretraining pool": pool, "validation": parts["validation"]}, label)
    cases = pool.frame["case"].to_numpy()
    load_encoder(method.encoder, start)
    slices = Slices(pool.images, np.zeros(len(pool.frame)), device=fabric.device, resident=resident)
    held = {
        name: Slices(part.images, part.frame["label"].to_numpy(), device=fabric.device, rows=_spread(part, name))
        for name, part in parts.items()
    }

    def deal(count: int, size: int, generator: torch.Generator) -> list[Tensor]:
        if method.one_slice_per_case:
            return case_batches(cases, size, generator)
        return epoch_batches(count, size, generator, least=max(2, fabric.world_size))

    dealt = deal(len(slices), batch_size, seeded(seed, "order", 0))
    updates = len(dealt)
    epochs = raised_epochs(updates, epochs, min_updates)
    task = PretextTask(method, masks.get("the pretraining pool"))
    optimizer = torch.optim.Adam(task.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    scheduler = None
    if plateau is not None:
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=plateau.factor, patience=plateau.patience
        )
    described = (
        dict(settings)
        | numerics(fabric)
        | {
            "batch_size": batch_size,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "plateau": [plateau.factor, plateau.patience] if plateau else None,
            "probe_every": probe_every,
            "seed": seed,
            "weight_decay": weight_decay,
        }
    )
    judge = _Judge(
        method,
        held,
        fabric,
        masks=masks.get("validation"),
        seed=seed,
        batch_size=batch_size,
        probe=probe,
        probe_every=probe_every,
        epochs=epochs,
    )
    started = time.monotonic()
    arrays = [pool.images, parts["train"].images, parts["validation"].images, *masks.values()]
    file = checkpoints / f"{label}-{fingerprint(described, arrays, [start])}.pt"
    with exclusive_training(fabric, checkpoints, label, [file]):
        table = train(
            fabric,
            task,
            slices,
            optimizer,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            label=label,
            after_epoch=judge,
            checkpoint=Checkpoint(file, checkpoint_seconds),
            scheduler=scheduler,
            deal=deal,
        )
        pictures = judge.pictures()  # as the task's own images were normalised, hence before the statistics change
        judge.clean()
        if fabric.is_global_zero:
            save_weights(encoder_state(method.encoder), out)
        return Result(
            curves=pd.DataFrame(table),
            pictures=pictures,
            updates=updates * epochs,
            images=sum(map(len, dealt)) * epochs,
            seconds=time.monotonic() - started,
        )


def _masks(method: Pretext, parts: Mapping[str, Part], label: str) -> dict[str, np.ndarray]:
    """Masks of each part, by its name, of a method that reads them; nothing of any other."""
    if not method.reads_masks:
        return {}
    found = {name: part.masks for name, part in parts.items() if part.masks is not None}
    absent = [name for name in parts if name not in found]
    if absent:
        raise InputError(f"{label}: the method reads masks, and there are none of {', '.join(absent)}: give them too")
    return found


def _spread(part: Part, name: str) -> np.ndarray | None:
    """Choose `CLEAN` training slices spread evenly over the rows; of validation all."""
    count = len(part.frame)
    if name != "train" or count <= CLEAN:
        return None
    return np.linspace(0, count - 1, CLEAN).astype(np.int64)


class _Judge:
    """Judges a method after each epoch on validation slices: the loop's `EpochEnd`."""

    def __init__(
        self,
        method: Pretext,
        held: Mapping[str, Slices],
        fabric: "Fabric",
        *,
        masks: np.ndarray | None,
        seed: int,
        batch_size: int,
        probe: Probe | None,
        probe_every: int,
        epochs: int,
    ) -> None:
        self.method, self.held, self.fabric, self.seed, self.batch_size = method, held, fabric, seed, batch_size
        self.masks = masks  # of the validation slices, for a method that reads them
        self.probe, self.probe_every, self.epochs = probe, probe_every, epochs

    def __call__(self, epoch: int) -> dict[str, float]:
        """Mean over validation slices of the method's own figures, drawn alike in every epoch, and the probe's."""
        generator = seeded(self.seed, "validation", device=self.fabric.device)
        values: dict[str, list[Tensor]] = {}
        self.method.eval()
        with torch.inference_mode(), self.fabric.autocast():
            for rows in self._batches("validation"):
                images = seen(self.held["validation"].batch(rows), self.masks)
                for name, of_slice in self.method.validate(images, generator).items():
                    values.setdefault(f"validation_{name}", []).append(of_slice.double().cpu())
        figures = {name: float(torch.cat(parts).mean()) for name, parts in values.items()}
        if self.probe is not None and (epoch % self.probe_every == 0 or epoch == self.epochs):
            kept = {name: tensor.clone() for name, tensor in self.method.encoder.state_dict().items()}
            self.clean()
            train, validation = (self._features(name) for name in ("train", "validation"))
            figures |= {f"probe_{name}": value for name, value in self.probe(*train, *validation).items()}
            self.method.encoder.load_state_dict(kept)
        return figures

    def clean(self) -> None:
        """Re-estimate the encoder's batch-norm statistics on clean training slices."""
        images = (self.held["train"].batch(rows).images for rows in self._batches("train"))
        with self.fabric.autocast():
            reestimate_batch_norm(self.method.encoder, images)

    def pictures(self) -> dict[str, Any]:
        """Show a few validation slices, spread over the rows."""
        rows = torch.from_numpy(np.unique(np.linspace(0, len(self.held["validation"]) - 1, PICTURED).astype(np.int64)))
        self.method.eval()
        with torch.inference_mode():
            images = seen(self.held["validation"].batch(rows), self.masks)
            return dict(self.method.pictures(images, seeded(self.seed, "pictures", device=self.fabric.device)))

    def _batches(self, name: str) -> list[Tensor]:
        """Deal rows out like cards, so that a case's neighbouring slices fall into different batches.

        A batch of one case has too small a variance for batch norm and too many false negatives for contrast. All
        batches are of about one size and none holds a single slice, which batch norm refuses at 32 px.
        """
        count = len(self.held[name])
        batches = max(1, min(-(-count // self.batch_size), count // 2))
        return [torch.arange(start, count, batches) for start in range(batches)]

    def _features(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, width) float32 of the globally pooled last layer, and labels."""
        self.method.encoder.eval()
        batches = self._batches(name)
        with torch.inference_mode(), self.fabric.autocast():
            found = torch.cat([features(self.method.encoder, self.held[name].batch(rows).images) for rows in batches])
        labels = self.held[name].labels.cpu()[torch.cat(batches)]
        return found.float().cpu().numpy(), labels.numpy().astype(np.int64)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: each epoch is judged by itself."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing back."""


def features(encoder: nn.Module, images: Tensor) -> Tensor:
    """Features of an encoder: (B, width), averaged over the last map where it gives maps, as a U-Net's does."""
    given = encoder(images)
    last = given[-1] if isinstance(given, (list, tuple)) else given
    return last.mean(dim=(2, 3)) if last.ndim == 4 else last
