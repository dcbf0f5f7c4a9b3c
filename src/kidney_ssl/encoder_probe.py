"""Linear probe and k-nearest-neighbour classifier on an encoder before fine-tuning, with a run's label budget."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from kidney_ssl.engine.batches import Slices, evenly_spaced, ordered_batches
from kidney_ssl.metrics.probes import probe_probabilities
from kidney_ssl.models.resnet import encoder, reestimate_batch_norm
from kidney_ssl.models.weights import load_encoder

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CLEAN = 256  # training slices used to re-estimate batch-norm statistics


def probe_predictions(
    data: Mapping[str, Slices], start: Path, *, network: str, fabric: "Fabric", batch_size: int
) -> pd.DataFrame:
    """Fit probes on the features of a run's training slices and predict the test slices.

    The encoder's batch-norm statistics are re-estimated on at most `CLEAN` evenly spaced training slices of the
    budget, so that a random encoder is probed under the same conditions. Its weights do not change.

    Args:
        data: train, the slices of the label budget, and test.
        start: encoder weights.
        network: see `classifier`.
        fabric: device and precision.
        batch_size: slices per batch.

    Returns:
        case, slice, class and label of the test slices, and each probe's probabilities, NaN if it cannot be fitted.
    """
    model, _ = encoder(network, 0)
    load_encoder(model, start)
    model.to(fabric.device).eval()
    train, test = data["train"], data["test"]
    clean = torch.from_numpy(evenly_spaced(len(train), CLEAN))
    # Every count-th slice goes into the same batch: neighbouring slices of a case are separated, and batch sizes differ
    # by at most one.
    count = max(1, len(clean) // batch_size)
    features = []
    with fabric.autocast(), torch.inference_mode():
        reestimate_batch_norm(
            model, (batch.images for batch in train.batches([clean[at::count] for at in range(count)]))
        )
        for part in (train, test):
            batches = part.batches(ordered_batches(torch.arange(len(part)), batch_size))
            features.append(torch.cat([model(batch.images).float() for batch in batches]).cpu().numpy())
    found = probe_probabilities(features[0], train.labels.cpu().numpy().astype(np.int64), features[1])
    return test.frame[["case", "slice", "class", "label"]].assign(
        **{name: np.nan if values is None else values for name, values in found.items()}
    )
