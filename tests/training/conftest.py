"""A toy study that one look separates: a bright square means tumor."""

import numpy as np
import pandas as pd
import pytest
import torch

from kidney_ssl.models.weights import random_weights, save_weights
from kidney_ssl.training.batches import Part
from kidney_ssl.training.device import make_fabric


def toy_part(count, first_case, *, seed=0, size=32, labels=None):
    generator = np.random.default_rng([seed, first_case])
    labels = np.arange(count) % 2 if labels is None else np.full(count, labels)
    images = generator.random((count, size, size)) * 0.5
    images[labels == 1, 8:20, 8:20] += 0.4
    frame = pd.DataFrame(
        {
            "case": [f"case_{first_case + number // 4:05d}" for number in range(count)],
            "slice": np.arange(count),
            "class": np.where(labels == 1, "tumor", "kidney"),
            "label": labels,
        }
    )
    return Part(images.astype(np.float16), frame)


@pytest.fixture(scope="session")
def fabric():
    threads = torch.get_num_threads()
    yield make_fabric("cpu", "32", 1)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def parts():
    return {"train": toy_part(9, 0), "validation": toy_part(6, 100), "test": toy_part(5, 200)}


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    save_weights(random_weights("resnet18", 7), path)
    return path
