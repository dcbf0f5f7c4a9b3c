"""An augmentation over the training slices of a study, and what it does to an epoch of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kidney_ssl import augmentation
from kidney_ssl.augmentation.base import Augmentation, Augmented, TrainingSet, read_options
from kidney_ssl.data.arrays import load_array
from kidney_ssl.pretext.base import Picture, Rectangle
from kidney_ssl.training.batches import Part, ordered_batches, seeded


@dataclass(frozen=True)
class Augmenting:
    """An arm's augmentation, ready for batches of its training slices.

    Attributes:
        method: what changes the batches.
        described: name, options and code, as the arm's own file has them: all that decides what it does.
        masks: (N, S, S) uint8 of the training part, which it may read.
        training: what it looks at.
    """

    method: Augmentation
    described: Mapping[str, Any]
    masks: np.ndarray
    training: TrainingSet


def augmenting(
    described: Mapping[str, Any],
    part: Part,
    masks: Path,
    regions: Mapping[str, Rectangle],
    *,
    device: torch.device,
    rows: np.ndarray | None = None,
) -> Augmenting | None:
    """Make an arm's augmentation; None for `none`, which would only cost time.

    Args:
        described: name and options of the augmentation, from the arm's file.
        part: the training part.
        masks: file of its masks, (N, S, S) uint8.
        regions: the two kidney rectangles.
        device: where batches lie.
        rows: rows of the part that take part; all if None.

    Raises:
        InputError: an option is wrong, or the training slices cannot be augmented so.
    """
    name = described["augmentation"]
    if name == "none":
        return None
    held = load_array(masks)
    kept = np.arange(len(part.frame)) if rows is None else rows
    training = TrainingSet(
        # Read from the maps: all masks of KiTS23 are 4 GB at 512 px, of which a batch needs a few rows.
        images=lambda chosen: _rows(part.images, chosen).float(),
        masks=lambda chosen: _rows(held, chosen),
        cases=part.frame["case"].to_numpy(),
        labels=part.frame["label"].to_numpy(),
        tumor_px=part.frame["tumor_px"].to_numpy(),
        rows=kept,
        image_size=part.images.shape[1],
        regions=regions,
        device=device,
    )
    method = augmentation.load(name)
    options = read_options(method, described["options"], f"arms.{described['arm']}.options")
    return Augmenting(method(training, options), described, held, training)


def _rows(array: np.ndarray, rows: Tensor) -> Tensor:
    """Rows of (N, S, S) as (B, 1, S, S) where the row numbers lie."""
    return torch.from_numpy(array[rows.cpu().numpy()]).to(rows.device)[:, None]


def epoch_figures(arm: Augmenting, *, seed: int, batch_size: int) -> dict[str, float]:
    """What happens to one epoch: rates of each mark by the label afterwards, and how labels change.

    Returns:
        `<mark>_label_0` and `<mark>_label_1`: mean of the mark over the slices that end with the label. `prevalence`
        and `prevalence_before`: share of tumour slices. `relabelled`: share of slices whose label changed.
    """
    before: list[Tensor] = []
    after: list[Tensor] = []
    marks: dict[str, list[Tensor]] = {}
    for labels, augmented in _epoch(arm, seed, batch_size):
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


def _epoch(arm: Augmenting, seed: int, batch_size: int) -> Iterator[tuple[Tensor, Augmented]]:
    training = arm.training
    generator = seeded(seed, "augmented epoch", device=training.device)
    for rows in ordered_batches(torch.from_numpy(training.rows), batch_size):
        at = rows.to(training.device)
        labels = torch.from_numpy(training.labels[rows.numpy()]).float().to(training.device)
        yield labels, arm.method(training.images(at), labels, at, generator)


def operation_pictures(arm: Augmenting, *, seed: int, count: int) -> dict[str, Picture]:
    """Show each operation on a few training slices, half of them with tumour, spread over the rows."""
    training = arm.training
    rows = np.concatenate(
        [
            of_label[np.unique(np.linspace(0, len(of_label) - 1, min(count // 2, len(of_label))).round().astype(int))]
            for label in (1, 0)
            if len(of_label := training.rows[training.labels[training.rows] == label])
        ]
    )
    at = torch.from_numpy(rows).to(training.device)
    labels = torch.from_numpy(training.labels[rows]).float().to(training.device)
    generator = seeded(seed, "augmentation pictures", device=training.device)
    return arm.method.pictures(training.images(at), labels, at, generator)
