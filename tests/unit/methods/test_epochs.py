"""Every method uses each slice of its pool once an epoch, in batches as large as its recipe says."""

import numpy as np
import pytest
import torch

from kidney_ssl import pretrain
from kidney_ssl.engine.batches import Part
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.methods import METHODS
from kidney_ssl.models.weights import random_weights, save_weights
from tests.unit.engine.toy_study import toy_part
from tests.unit.methods.stand_ins import STAND_INS
from tests.unit.methods.test_contract import narrow

SLICES = 23
BATCH = 5
# Four cases or more than a batch holds; the first one has most of the slices in one of the two.
CASES = {"one large": np.repeat(range(8), [16, 1, 1, 1, 1, 1, 1, 1]), "few": np.repeat(range(3), [9, 9, 5])}


@pytest.fixture
def weights(tmp_path):
    save_weights(random_weights("resnet18", 7), tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


@pytest.mark.parametrize("cases", CASES)
@pytest.mark.parametrize("name", [*METHODS, *STAND_INS])
def test_an_epoch_holds_every_slice_of_the_pool_once(name, cases, weights, tmp_path, monkeypatch):
    rows = []

    def step(task, batch, generator):
        rows.append(batch.rows.tolist())
        return sum(one.sum() for one in task.parameters() if one.requires_grad) * 0, {}

    monkeypatch.setattr(pretrain.PretextTask, "step", step)
    monkeypatch.setattr(pretrain, "preflight", lambda *_: None)
    pool = toy_part(SLICES, 0, size=64)
    pool = Part(pool.images, pool.frame.assign(case=[f"case_{case:05d}" for case in CASES[cases]]), pool.masks)
    parts = {"train": pool, "validation": toy_part(4, 100, size=64)}
    recipe = pretrain.Recipe(epochs=2, min_updates=0, batch_size=BATCH, learning_rate=1e-3, evaluations=2)
    context = TrainingContext(make_fabric("cpu", "32", 1), name, 0, tmp_path / "training.pt", 1e9)
    out = tmp_path / "encoder.safetensors"
    found = pretrain.pretrain(narrow(name), pool, parts, weights, out, recipe=recipe, context=context, forbidden={})
    epochs = np.array_split(np.arange(len(rows)), 2)
    for epoch in epochs:
        assert sorted(row for number in epoch for row in rows[number]) == list(range(SLICES))
        sizes = [len(rows[number]) for number in epoch]
        assert max(sizes) == BATCH
        assert sum(sizes) > BATCH * (len(sizes) - 1)  # no batch more than it takes
    assert found.slices == 2 * SLICES
    assert found.updates == len(rows)
    assert torch.isfinite(torch.tensor(found.curves["train_loss"])).all()
