"""An augmentation of a study's training slices, and its effect on one epoch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kidney_ssl import augmentations
from kidney_ssl.augmentations.base import Augmentation, TrainingSet
from kidney_ssl.data.patients import patient_column
from kidney_ssl.engine.batches import Slices, ordered_batches, seeded
from kidney_ssl.methods.base import Picture, Rectangle, read_options


@dataclass(frozen=True)
class Augmenting:
    """An arm's augmentation, and the training slices for which it was prepared."""

    method: Augmentation
    training: TrainingSet


def augmenting(
    name: str,
    options: Mapping[str, Any],
    slices: Slices,
    masks: Callable[[Tensor], Tensor],
    regions: Mapping[str, Rectangle],
    *,
    key: str = "options",
) -> Augmenting | None:
    """Make an arm's augmentation; None for `none`, which would only take time.

    Args:
        name: name of the augmentation, a file of `kidney_ssl.augmentations`.
        options: the augmentation's options.
        slices: the training slices of the label budget.
        masks: rows (B,) int64 on the device -> (B, S, S) uint8 there; called only if the augmentation reads masks.
        regions: the rectangles around the organ.
        key: key of the options in params.yaml, for error messages.

    Raises:
        InputError: an option is wrong, or this augmentation is impossible on these training slices.
    """
    if name == "none":
        return None
    frame = slices.part.frame
    training = TrainingSet(
        images=lambda rows: slices.images(rows).float()[:, None],
        masks=lambda rows: masks(rows)[:, None],
        cases=patient_column(frame).to_numpy(),
        labels=frame["label"].to_numpy(),
        tumor_px=frame["tumor_px"].to_numpy(),
        rows=slices.rows,
        image_size=slices.part.images.shape[1],
        regions=regions,
        device=slices.device,
    )
    method = augmentations.load(name)
    return Augmenting(method(training, read_options(method, options, key)), training)


def epoch_metrics(arm: Augmenting, *, seed: int, batch_size: int) -> dict[str, float]:
    """Effect of the augmentation on one epoch: mean of each mark by the new label, and how labels change.

    Returns:
        `<mark>_label_0` and `<mark>_label_1`: mean of the mark over the slices whose new label is 0 or 1. `prevalence`
        and `prevalence_before`: share of tumor slices. `relabelled`: share of slices whose label changed.
    """
    training = arm.training
    generator = seeded(seed, "augmented epoch", device=training.device)
    before: list[Tensor] = []
    after: list[Tensor] = []
    marks: dict[str, list[Tensor]] = {}
    for rows in ordered_batches(torch.from_numpy(training.rows), batch_size):
        at, labels = rows.to(training.device), training.labels_of(rows)
        augmented = arm.method(training.images(at), labels, at, generator)
        before.append(labels.cpu())
        after.append(augmented.labels.cpu())
        for name, values in augmented.marks.items():
            marks.setdefault(name, []).append(values.float().cpu())
    old, new = torch.cat(before), torch.cat(after)
    found = {
        "prevalence": float(new.mean()),
        "prevalence_before": float(old.mean()),
        "relabelled": float((old != new).float().mean()),
    }
    for name, parts in marks.items():
        values = torch.cat(parts)
        for label in (0, 1):
            found[f"{name}_label_{label}"] = float(values[new == label].mean())
    return {name: round(value, 6) for name, value in found.items()}


def operation_pictures(arm: Augmenting, *, seed: int, count: int) -> dict[str, Picture]:
    """Show each operation on a few training slices, half of them with tumor, spread evenly over the rows."""
    training = arm.training
    rows = np.concatenate(
        [
            of_label[np.unique(np.linspace(0, len(of_label) - 1, min(count // 2, len(of_label))).round().astype(int))]
            for label in (1, 0)
            if len(of_label := training.rows[training.labels[training.rows] == label])
        ]
    )
    at = torch.from_numpy(rows)
    labels, at = training.labels_of(at), at.to(training.device)
    generator = seeded(seed, "augmentation pictures", device=training.device)
    return arm.method.pictures(training.images(at), labels, at, generator)
