"""What a frozen encoder's features tell: probes fitted on the labels of a run's budget."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from kidney_ssl.models.resnet import classifier, reestimate_batch_norm
from kidney_ssl.models.weights import load_encoder
from kidney_ssl.training.batches import Part, Slices, ordered_batches

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLEAN = 256  # training slices that batch norm is re-estimated on

# Training features (N, width), their labels (N,), features of the tested slices (M, width) -> (M,) probabilities.
Probes = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, np.ndarray | None]]


def frozen_predictions(
    parts: Mapping[str, Part],
    start: Path,
    probes: Probes,
    *,
    rows: np.ndarray,
    network: str,
    fabric: "Fabric",
    batch_size: int,
    resident: str = "auto",
) -> pd.DataFrame:
    """Fit probes on the features of a run's training slices and predict the test slices.

    The encoder's weights stay as they are; its batch-norm statistics are re-estimated on (at most `CLEAN`, evenly
    spaced) training slices of the budget, so that a random encoder is probed under the same conditions.

    Args:
        parts: train and test.
        start: encoder weights.
        probes: fits them.
        rows: rows of the training part that the budget holds.
        network: see `classifier`.
        fabric: device and precision.
        batch_size: slices of a batch.
        resident: see `Slices`.

    Returns:
        case, slice, class and label of the test slices, and a column of probabilities for each probe, NaN where it
        cannot be fitted.
    """
    encoder = classifier(network, 0)
    load_encoder(encoder, start)
    encoder.fc = nn.Identity()
    encoder.to(fabric.device).eval()
    train, test = (
        Slices(
            parts[name].images,
            parts[name].frame["label"].to_numpy(),
            device=fabric.device,
            resident=resident,
            rows=kept,
        )
        for name, kept in (("train", rows), ("test", None))
    )
    clean = torch.from_numpy(np.unique(np.linspace(0, len(train) - 1, min(CLEAN, len(train))).astype(np.int64)))
    # Dealt out like cards: neighbouring slices of a case fall into different batches, all of about one size.
    batches = max(1, len(clean) // batch_size)
    with fabric.autocast(), torch.inference_mode():
        reestimate_batch_norm(encoder, (train.batch(clean[at::batches]).images for at in range(batches)))
        features = [
            torch.cat(
                [encoder(data.batch(at).images).float() for at in ordered_batches(torch.arange(len(data)), batch_size)]
            )
            .cpu()
            .numpy()
            for data in (train, test)
        ]
    found = probes(features[0], train.labels.cpu().numpy().astype(np.int64), features[1])
    return (
        parts["test"]
        .frame[["case", "slice", "class", "label"]]
        .assign(**{name: np.nan if values is None else values for name, values in found.items()})
    )
