"""Identity: the target is the input, the loss the squared error, and no predictor may copy."""

import pytest
import torch

from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.identity import IdentityOptions, Method

SETTING = Setting("resnet18", 32, {"left": (0.0, 1.0, 0.0, 0.5), "right": (0.0, 1.0, 0.5, 1.0)}, 0, 0.5)


def slices(count=4, seed=0):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_nothing_is_changed_and_nothing_is_drawn():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    perturbed = Method(SETTING, IdentityOptions()).perturb(slices(), generator)
    assert torch.equal(perturbed.images, slices())
    assert torch.equal(perturbed.target, slices())
    assert not perturbed.changed.any()
    assert torch.equal(generator.get_state(), before)


def test_the_loss_is_the_mean_squared_error_of_the_whole_slice():
    method = Method(SETTING, IdentityOptions())
    given = method.unet.train()(slices())
    expected = sum(((a - b) ** 2).mean() for a, b in zip(given, slices(), strict=True)) / 4
    method = Method(SETTING, IdentityOptions()).train()
    assert method.step(slices(), torch.Generator())[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_copy_is_no_predictor_and_the_means_are():
    method = Method(SETTING, IdentityOptions()).train()
    method.step(slices(seed=1), torch.Generator())
    with torch.inference_mode():
        found = method.eval().validate(slices(), torch.Generator())
    assert not [name for name in found if "copy" in name]
    variance = slices().flatten(1).var(1, correction=0)
    assert torch.allclose(found["mse_mean"], variance, atol=1e-6)
    average = slices(seed=1).mean(0)
    assert torch.allclose(found["mse_average"], (slices() - average).square().mean((1, 2, 3)), atol=1e-6)


def test_the_picture_shows_the_slice_and_what_comes_back():
    method = Method(SETTING, IdentityOptions()).eval()
    with torch.inference_mode():
        picture = method.pictures(slices(), torch.Generator())["restored"]
        assert torch.equal(picture.images[:, :1], slices())
        assert torch.equal(picture.images[:, 1:], method.unet(slices()))
    assert picture.columns == ("original", "restored")
