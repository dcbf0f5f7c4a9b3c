"""The toy study's parts, its start and the device."""

import pytest
import torch

from kidney_ssl.engine.device import make_fabric
from kidney_ssl.models.weights import random_weights, save_weights
from tests.shallow_networks import shallow_networks  # noqa: F401 - a fixture
from tests.unit.engine.toy_study import toy_part


@pytest.fixture(scope="session")
def fabric():
    threads = torch.get_num_threads()
    yield make_fabric("cpu", "32", 1)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def parts():
    return {"train": toy_part(9, 0), "validation": toy_part(6, 100), "test": toy_part(5, 200)}


@pytest.fixture(scope="module")
def start(tmp_path_factory, shallow_networks):  # noqa: F811 - the fixture
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    save_weights(random_weights("resnet18", 7), path)
    return path
