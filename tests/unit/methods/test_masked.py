"""Masked image modelling: shares, what the encoder sees, and the loss, against plain equations."""

import numpy as np
import pytest
import torch
from timm.layers import build_sincos2d_pos_embed
from torch import nn

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.methods.masked import MaskedOptions, Method, assembled, patches
from kidney_ssl.models.resnet import encoder

NETWORKS = ["resnet18", "efficientnet_lite0", "timm:test_convnext", "timm:test_vit"]
COUNT = 3


def build(network="resnet18", side=64, **options):
    return Method(Setting(network, side, {}, 0, 0.5), MaskedOptions(**options))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(side=64, seed=0):
    return torch.rand(COUNT, 1, side, side, generator=generator(seed))


@pytest.mark.parametrize(
    ("network", "side", "options", "hidden", "count"),
    [
        ("resnet18", 64, {}, 10, 16),  # 60 % of 16 patches of 16 px, to the nearest
        ("resnet18", 192, {}, 22, 36),  # patches of 32 px
        ("resnet18", 64, {"patch": 8, "ratio": 0.25}, 16, 64),
        ("resnet18", 64, {"patch": 32, "ratio": 0.01}, 1, 4),  # one patch at the least
        ("resnet18", 64, {"patch": 32, "ratio": 0.99}, 3, 4),
        ("timm:test_vit", 64, {}, 12, 16),  # 75 % of 16 tokens
        ("timm:test_vit", 64, {"patch": 32}, 3, 4),
    ],
)
def test_every_slice_has_exactly_the_stated_share_hidden_and_other_patches_than_the_next(
    network, side, options, hidden, count
):
    drawn = build(network, side, **options).draw(64, generator())
    assert drawn.shape == (64, count)
    assert (drawn.sum(1) == hidden).all()
    assert len(drawn.unique(dim=0)) > 1
    assert drawn.any(0).all()


def everything(method, images, hidden):
    """Outputs of all layers of the encoder, and what is restored."""
    layers = (nn.Conv2d, nn.Linear, nn.LayerNorm, nn.BatchNorm2d)
    made, hooks = [], []
    for module in method.encoder.modules():
        if isinstance(module, layers):
            hooks.append(module.register_forward_hook(lambda _, given, output: made.append(output.clone())))
    with torch.no_grad():
        made.append(method.restored(images, hidden))
    for hook in hooks:
        hook.remove()
    return made


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_hidden_pixel_changes_nothing_but_the_target(network, training):
    method = build(network).train(training)
    images, hidden = images_of(), method.draw(COUNT, generator(1))
    others = torch.where(method.pixels(hidden), 7 * images_of(seed=5), images)
    seen = [everything(method, given, hidden) for given in (images, others)]
    assert len(seen[0]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    losses = [method.eval().validate(given, generator(1)) for given in (images, others)]
    assert not torch.equal(losses[0]["mse_mean"], losses[1]["mse_mean"])


@pytest.mark.parametrize("network", ["resnet18", "timm:test_vit"])
def test_a_visible_pixel_changes_what_is_restored(network):
    method = build(network).eval()
    images, hidden = images_of(), method.draw(COUNT, generator(1))
    others = torch.where(method.pixels(hidden), images, images_of(seed=5))
    assert not torch.equal(method.restored(images, hidden), method.restored(others, hidden))


def told(method, seed=2):
    """The method with what it tells given: pixels (COUNT, 1, S, S) that do not depend on images."""
    given = torch.randn(COUNT, 1, 64, 64, generator=generator(seed))
    method.network.restored = lambda seen, visible: given
    return given.double().numpy()


def test_the_loss_is_numpys_over_hidden_pixels_of_normalised_patches():
    method, images = build(patch=16, ratio=0.6), images_of()
    images[0, 0, :16, :16] = 0.5  # a flat patch
    y, x, hidden = told(method), images.double().numpy(), method.draw(COUNT, generator(4)).numpy()
    loss, metrics = method.step(images, generator(4))
    found = method.validate(images, generator(4))
    expected, grey, mean, spread = ([] for _ in range(4))
    for b in range(COUNT):
        of_patch: dict[str, list[float]] = {"loss": [], "mse": [], "loss_mean": [], "mse_mean": []}
        for number in np.flatnonzero(hidden[b]):
            place = (b, 0, slice(number // 4 * 16, number // 4 * 16 + 16), slice(number % 4 * 16, number % 4 * 16 + 16))
            center, deviation = x[place].mean(), np.sqrt(x[place].var(ddof=1) + 1e-6)
            target = (x[place] - center) / deviation
            of_patch["loss"].append(np.mean((y[place] - target) ** 2))
            of_patch["mse"].append(np.mean((y[place] * deviation + center - x[place]) ** 2))
            of_patch["loss_mean"].append(np.mean(target**2))
            of_patch["mse_mean"].append(np.mean((x[place] - center) ** 2))
        for values, name in zip((expected, grey, spread, mean), of_patch, strict=True):
            values.append(np.mean(of_patch[name]))
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert metrics["mse"].item() == pytest.approx(np.mean(grey), rel=1e-5)
    for name, values in {"loss": expected, "mse": grey, "loss_mean": spread, "mse_mean": mean}.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-5), name


def test_patches_are_in_the_order_of_rows_and_go_back():
    images = torch.arange(36.0).view(1, 1, 6, 6)
    found = patches(images, 2)
    assert found[0, 1].tolist() == [2, 3, 8, 9]
    assert found[0, 3].tolist() == [12, 13, 18, 19]
    assert torch.equal(assembled(found, 2), images)


def test_every_map_has_its_learned_embedding_in_hidden_places():
    method = build(side=128, patch=32)
    images, hidden = images_of(128), method.draw(COUNT, generator(1))
    given, decode = [], method.network.unet.decode
    method.network.unet.decode = lambda maps: (given.extend(maps[1:]), decode(maps))[1]
    method.restored(images, hidden).square().mean().backward()
    assert len(given) == len(method.network.fillers) == 5
    for maps, filler in zip(given, method.network.fillers, strict=True):
        covered = hidden.view(COUNT, 4, 4).repeat_interleave(maps.shape[2] // 4, 1)
        covered = covered.repeat_interleave(maps.shape[3] // 4, 2)
        assert (maps.movedim(1, 3)[covered] == filler).all()
        assert not (maps.movedim(1, 3)[~covered] == filler).all(1).any()
        assert filler.grad.abs().sum() > 0


def test_a_vision_transformer_computes_its_visible_tokens_alone():
    method = build("timm:test_vit").eval()
    images, hidden = images_of(), method.draw(COUNT, generator(1))
    model, counts = method.encoder.model, []
    hook = model.blocks.register_forward_hook(lambda _, given, output: counts.append(output))
    method.restored(images, hidden)
    hook.remove()
    whole = model.patch_embed(images)
    tokens = model._pos_embed(whole)
    for b in range(COUNT):
        kept = torch.cat([tokens[b, :1], tokens[b, 1:][~hidden[b]]])[None]
        assert counts[0].shape[1] == kept.shape[1] == 1 + 4
        torch.testing.assert_close(counts[0][b : b + 1], model.blocks(kept))


def test_a_vision_transformers_tokens_come_back_to_their_places():
    method = build("timm:test_vit", ratio=0.5).eval()
    images, hidden = images_of(), method.draw(COUNT, generator(1))
    widened, given = [], []
    hooks = [
        method.network.widen.register_forward_hook(lambda _, seen, tokens: widened.append(tokens)),
        method.network.blocks.register_forward_pre_hook(lambda _, tokens: given.append(tokens[0])),
    ]
    method.restored(images, hidden)
    for hook in hooks:
        hook.remove()
    place = build_sincos2d_pos_embed([4, 4], 512)
    for b in range(COUNT):
        expected = method.network.filler.expand(16, 512).clone()
        expected[~hidden[b]] = widened[0][b, 1:]
        torch.testing.assert_close(given[0][b], torch.cat([widened[0][b, :1], expected + place]))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_exported_encoder_is_an_ordinary_one(network):
    method = build(network).train()
    ordinary, _ = encoder(network, 0)
    method.step(images_of(), generator())[0].backward()
    ordinary.load_state_dict(method.exported.state_dict())
    assert list(ordinary.state_dict()) == list(method.exported.state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in method.exported.modules())
    trained = [parameter.grad is not None for parameter in method.parameters() if parameter.requires_grad]
    assert all(trained)  # several processes wait for every gradient


@pytest.mark.parametrize(
    ("network", "side", "options", "line"),
    [
        ("resnet18", 64, {"patch": 24}, "patches of 24 px do not fit slices of 64 px; give a side that divides 64"),
        ("resnet18", 64, {"patch": 64}, "patches of 64 px do not fit slices of 64 px"),
        ("resnet18", 144, {}, "patches of 32 px do not fit slices of 144 px"),
        ("timm:test_vit", 64, {"patch": 8}, "is a multiple of 16, for timm:test_vit"),
        ("timm:swin_tiny_patch4_window7_224", 64, {}, "network: timm:swin_tiny_patch4_window7_224 cannot leave"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(network, side, options, line):
    with pytest.raises(InputError, match=line) as caught:
        build(network, side, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"ratio": 0.0}, {"ratio": 1.0}, {"patch": 1}])
def test_shares_and_patches_without_sense_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        read_options(Method, options, "options")


def test_pictures_show_what_is_visible_the_slice_and_what_is_restored():
    method, images = build().eval(), images_of()
    shown = method.pictures(images, generator(3))["restored"]
    hidden = method.pixels(method.draw(COUNT, generator(3)))[:, 0]
    assert shown.columns == ("visible", "original", "restored")
    assert torch.equal(shown.images[:, 1], images[:, 0])
    assert not shown.images[:, 0][hidden].any()
    for column in (0, 2):
        assert torch.equal(shown.images[:, column][~hidden], images[:, 0][~hidden])
    assert not torch.equal(shown.images[:, 2][hidden], images[:, 0][hidden])
