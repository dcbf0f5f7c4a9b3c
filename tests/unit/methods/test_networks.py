"""Every pretext task on a network of every kind: a whole pretraining with its preflight, and what comes of it.

ResNet-18 in all other tests, and with what is asked here in test_resume.py; here the kinds that a task could trip over:
batch norm with an activation inside, no batch norm at all, tokens instead of maps, and patches smaller than the largest
stride.
"""

import pytest
import torch
from safetensors.torch import load_file

from kidney_ssl import preflight
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.methods import METHODS
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import load_encoder, random_weights, save_weights
from kidney_ssl.pretrain import Recipe, pretrain
from tests.unit.engine.toy_study import toy_part
from tests.unit.methods.test_contract import narrow

NETWORKS = ["efficientnet_lite0", "timm:test_convnext", "timm:test_vit"]
RECIPE = Recipe(epochs=1, min_updates=0, batch_size=4, learning_rate=1e-3, evaluations=2, weight_decay=1e-5)
# The convolution behind the last feature map of an EfficientNet, which pooled features pass alone.
BEHIND = {"model.conv_head.weight"}


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starts")
    for network in NETWORKS:
        save_weights(random_weights(network, 7), folder / f"{network}.safetensors")
    return folder


@pytest.fixture
def looked(monkeypatch):
    """What each preflight found."""
    found = []
    look = preflight.preflight
    monkeypatch.setattr("kidney_ssl.pretrain.preflight", lambda *given: found.append(look(*given)))
    return found


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", METHODS)
def test_a_pretraining_ends_in_an_encoder_for_the_classifier(name, network, starts, tmp_path, looked):
    parts = {part: toy_part(count, first, size=64) for part, count, first in (("train", 8, 0), ("validation", 4, 100))}
    context = TrainingContext(make_fabric("cpu", "32", 1), name, 0, tmp_path / "training.pt", 1e9)
    start, out = starts / f"{network}.safetensors", tmp_path / "encoder.safetensors"
    method = narrow(name, network=network)
    found = pretrain(method, parts["train"], parts, start, out, recipe=RECIPE, context=context, forbidden={})
    assert looked == [None]
    assert_whole(found, start, out, network, restores=hasattr(method, "unet") or name == "masked")


def assert_whole(found, start, out, network, *, restores):
    """The last epoch has all metrics, there are pictures, all that was to be trained was, a classifier takes it."""
    assert found.curves.iloc[-1].notna().all()
    assert found.pictures
    before, after = load_file(start), load_file(out)
    trained = {key for key in after if not torch.equal(before[key], after[key]) and after[key].ndim > 1}
    still = {key for key in after if after[key].ndim > 1} - trained
    assert len(trained) > 10
    assert still == (BEHIND & set(after) if restores else set())
    model = classifier(network, 0)
    load_encoder(model, out)
    assert model.eval()(torch.rand(2, 1, 64, 64)).isfinite().all()
