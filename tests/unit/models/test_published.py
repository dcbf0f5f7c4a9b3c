"""Published weights: the colour network folded into a grey one, against the makers' own networks; files refused."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models, transforms

from kidney_ssl.errors import InputError
from kidney_ssl.models import published as module
from kidney_ssl.models.published import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    fold_colour,
    published_weights,
    torchvision_weights,
)
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import encoder_state, random_weights

NAME = "resnet18-f37072fd.pth"


def imagenet_weights(network, file=None):
    return published_weights(network, torchvision_weights(network, file), "torchvision")


@pytest.fixture(scope="module")
def colour():
    """A colour ResNet-18 whose batch norms have seen something, as ImageNet's have."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.resnet18(weights=None)
        for _ in range(3):
            model(torch.rand(4, 3, 64, 64) + 0.2)
    return model.eval()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Where torchvision looks, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def grey_of(colour, **options):
    model = classifier("resnet18", 0).eval()
    model.load_state_dict(fold_colour(encoder_state(colour), **options), strict=False)
    return model


def encode(model, image):
    head, model.fc = model.fc, nn.Identity()
    with torch.no_grad():
        result = model(image)
    model.fc = head
    return result


def stem(model, image):
    with torch.no_grad():
        return model.bn1(model.conv1(image))


NORMALIZE = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
IMAGE = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def test_grey_network_equals_the_colour_network_on_an_image_padded_with_black(colour):
    grey = encode(grey_of(colour), IMAGE)
    padded = NORMALIZE(nn.functional.pad(IMAGE, (3, 3, 3, 3)).expand(-1, 3, -1, -1))
    colour.conv1.padding = (0, 0)
    try:
        expected = encode(colour, padded)
    finally:
        colour.conv1.padding = (3, 3)
    assert torch.allclose(grey, expected, rtol=1e-5, atol=1e-5)
    assert expected.abs().max() > 0.1


def test_grey_network_equals_the_colour_network_inside_whatever_the_padding(colour):
    grey, expected = stem(grey_of(colour), IMAGE), stem(colour, NORMALIZE(IMAGE.expand(-1, 3, -1, -1)))
    inside = (..., slice(2, -2), slice(2, -2))  # kernel 7, stride 2: outputs 0, 1 and the last touch the padding
    assert torch.allclose(grey[inside], expected[inside], atol=1e-5)
    assert not torch.allclose(grey, expected, atol=1e-2)


def test_without_normalisation_the_sum_over_colour_is_equal_everywhere(colour):
    grey = encode(grey_of(colour, mean=(0, 0, 0), std=(1, 1, 1)), IMAGE)
    assert torch.allclose(grey, encode(colour, IMAGE.expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("old", [False, True])
def test_a_file_where_torchvision_looks_is_used_without_a_network(colour, hub, monkeypatch, old):
    state = {name: value for name, value in colour.state_dict().items() if not (old and "num_batches" in name)}
    torch.save(state, hub / NAME)
    monkeypatch.setattr(torch.hub, "urlopen", lambda *_: pytest.fail("asked for the network"))
    with pytest.warns(UserWarning, match="not the file that torchvision publishes"):
        found = imagenet_weights("resnet18")
    assert list(found) == list(random_weights("resnet18", 0))
    expected = fold_colour(encoder_state(colour))
    assert all(torch.equal(found[name], expected[name]) for name in found if not (old and "num_batches" in name))


def test_the_published_hash_is_what_keeps_the_warning_away(colour, hub, monkeypatch):
    torch.save(colour.state_dict(), hub / NAME)
    digest = hashlib.sha256((hub / NAME).read_bytes()).hexdigest()
    monkeypatch.setattr(module, "sha256", lambda _: "f37072fd" + digest[8:])
    imagenet_weights("resnet18")  # warnings are errors


def test_offline_and_absent_says_both_ways_out_in_one_line(hub, monkeypatch):
    def offline(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(InputError) as caught:
        imagenet_weights("resnet18")
    message = str(caught.value)
    assert str(hub / NAME) in message
    assert "initialize.imagenet.file" in message
    assert "\n" not in message
    assert list(hub.iterdir()) == []


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_local_file_of_either_kind_gives_the_same(colour, tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    (torch.save if suffix == ".pth" else save_file)(colour.state_dict(), path)
    found, expected = imagenet_weights("resnet18", path), fold_colour(encoder_state(colour))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save({"conv1.weight": Bomb()}, path)
    with pytest.raises(InputError, match=r"bomb\.pth: holds code"):
        imagenet_weights("resnet18", path)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_give_one_line_with_the_file(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"w\.(pth|safetensors): ") as caught:
        imagenet_weights("resnet18", path)
    assert "\n" not in str(caught.value)


def test_a_truncated_pth_is_refused(colour, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(colour.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(InputError, match=r"w\.pth"):
        imagenet_weights("resnet18", path)


def test_an_absent_local_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no\.pth: no such weights file"):
        imagenet_weights("resnet18", tmp_path / "no.pth")
