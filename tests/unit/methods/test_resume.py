"""Every method is killed and goes on to the same bytes: the registry, a new file among it, and methods with state.

The unbroken training is also asked all that test_networks.py asks of other networks than ResNet-18.
"""

import pytest

from kidney_ssl.engine.checkpoint import Checkpoint
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.methods import METHODS
from kidney_ssl.models.weights import random_weights, save_weights
from kidney_ssl.pretrain import Recipe, pretrain
from tests.unit.engine.toy_study import toy_part
from tests.unit.methods.stand_ins import STAND_INS
from tests.unit.methods.test_contract import narrow
from tests.unit.methods.test_networks import assert_whole, looked  # noqa: F401 - a fixture

RECIPE = Recipe(epochs=2, min_updates=0, batch_size=4, learning_rate=1e-3, evaluations=2, weight_decay=1e-5)
STOP = 3  # checkpoints: in the middle of the second epoch


@pytest.mark.parametrize("name", [*METHODS, *STAND_INS])
def test_a_killed_pretraining_goes_on_to_the_same_bytes(name, tmp_path, monkeypatch, looked):  # noqa: F811
    parts = {part: toy_part(count, first, size=64) for part, count, first in (("train", 9, 0), ("validation", 4, 100))}
    save_weights(random_weights("resnet18", 7), tmp_path / "start.safetensors")
    fabric = make_fabric("cpu", "32", 1)

    def run(folder, seconds):
        context = TrainingContext(fabric, name, 0, tmp_path / folder / "training.pt", seconds)
        out = tmp_path / folder / "encoder.safetensors"
        start = tmp_path / "start.safetensors"
        found = pretrain(narrow(name), parts["train"], parts, start, out, recipe=RECIPE, context=context, forbidden={})
        return out.read_bytes(), found

    save, saved = Checkpoint.save, []

    def killed(self, state):
        save(self, state)
        saved.append(self.path)
        if len(saved) == STOP:
            raise KeyboardInterrupt

    whole, unbroken = run("whole", 1e9)
    assert looked == [None]
    assert_whole(
        unbroken, tmp_path / "start.safetensors", tmp_path / "whole" / "encoder.safetensors", "resnet18", restores=False
    )
    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run("cut", 0)
    monkeypatch.undo()
    assert not (tmp_path / "cut" / "encoder.safetensors").exists()
    resumed, again = run("cut", 1e9)
    assert resumed == whole
    assert again.curves.equals(unbroken.curves)
