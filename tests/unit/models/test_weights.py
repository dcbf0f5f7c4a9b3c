"""Weights files: what is written comes back, and what does not fit is refused."""

import shutil

import pytest
import torch

from kidney_ssl.errors import InputError
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import encoder_state, load_classifier, load_encoder, random_weights, save_weights


def test_an_encoder_survives_its_file_and_the_head_stays(tmp_path):
    save_weights(random_weights("resnet18", 1), tmp_path / "a.safetensors")
    model = classifier("resnet18", 2)
    head = model.fc.weight.clone()
    load_encoder(model, tmp_path / "a.safetensors")
    expected = random_weights("resnet18", 1)
    assert all(torch.equal(value, expected[name]) for name, value in encoder_state(model).items())
    assert torch.equal(model.fc.weight, head)
    assert not any(name.startswith("fc.") for name in expected)
    assert "bn1.running_mean" in expected


def test_the_same_weights_give_the_same_bytes_and_no_metadata(tmp_path):
    state = random_weights("resnet18", 1)
    save_weights(state, tmp_path / "a.safetensors")
    save_weights(dict(reversed(state.items())), tmp_path / "other name.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    assert content == (tmp_path / "other name.safetensors").read_bytes()
    assert b"__metadata__" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "other name.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("bn1.weight"), "lacks bn1.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "has unexpected extra"),
        (lambda state: state.update({"conv1.weight": torch.zeros(64, 3, 7, 7)}), r"conv1.weight is \(64, 3, 7, 7\)"),
    ],
)
def test_weights_that_do_not_fit_name_file_and_key(tmp_path, change, message):
    state = random_weights("resnet18", 1)
    change(state)
    path = tmp_path / "a.safetensors"
    save_weights(state, path)
    model = classifier("resnet18", 2)
    before = model.layer1[0].conv1.weight.clone()
    with pytest.raises(InputError, match=message) as caught:
        load_encoder(model, path)
    assert str(path) in str(caught.value)
    assert torch.equal(model.layer1[0].conv1.weight, before)


def test_weights_of_another_depth_and_absent_or_cut_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_weights(random_weights("resnet34", 1), path)
    with pytest.raises(InputError, match="unexpected"):
        load_encoder(classifier("resnet18", 2), path)
    with pytest.raises(InputError, match=r"lacks fc\.weight"):
        load_classifier(classifier("resnet34", 2), path)
    shutil.copy(path, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:1000])
    for name in ("cut.safetensors", "absent.safetensors"):
        with pytest.raises(InputError, match=name):
            load_encoder(classifier("resnet18", 2), tmp_path / name)
