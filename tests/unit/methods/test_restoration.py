"""Losses, figures and pictures of the restoration tasks, against scikit-image and sums by hand."""

from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Setting, pixels
from kidney_ssl.methods.boxes import squares
from kidney_ssl.methods.restoration import (
    FLAT,
    LOSSES,
    Perturbed,
    Restoration,
    RestorationOptions,
    dice,
    dice_squared,
    enlarge,
    fill,
    gradient_energy,
    judged,
    metrics,
    mse,
    psnr,
    sharpness,
    ssim_map,
)

CT = Path(__file__).parents[3].parent / "shared" / "ct" / "case_90000" / "imaging.nii.gz"
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def everywhere(images):
    return torch.ones_like(images, dtype=torch.bool)


def blurred(images, sigma):
    return torch.from_numpy(np.stack([gaussian(image[0], sigma) for image in images.numpy()]))[:, None].float()


@cache
def ct_slices(side=96):
    """Eight slices of a real volume in a soft-tissue window, as the pipeline cuts them."""
    from kidney_ssl.data.body import Frame, standardise
    from kidney_ssl.data.normalization import normalise
    from kidney_ssl.data.volume import read_volume

    if not CT.exists():
        pytest.skip("../shared/ct is not beside this checkout")
    volume = read_volume(CT)
    cut = []
    for row in np.linspace(0, len(volume.array) - 1, 8).astype(int):
        image, spacing = volume.array[row], volume.grid.spacing_mm[1:]
        labels = np.zeros(image.shape, np.uint8)
        cut.append(standardise(image, labels, spacing, Frame(side, body_hu=-300, opening_mm=6.0))[0])
    return torch.from_numpy(normalise(np.stack(cut), (-150, 250), "window")).float()[:, None]


# --- losses


@each_loss
@given(seed=st.integers(0, 2**31), size=st.integers(1, 6), power=st.floats(0.1, 8))
def test_losses_are_the_printed_formulas_over_the_marked_pixels(loss, seed, size, power):
    p, t = (drawn(2, 3, 1, size, size, seed=seed) ** power).clamp_min(0.001)
    where = drawn(3, 1, size, size, seed=seed + 1) < 0.7
    where[..., 0, 0] = True
    for image, found in enumerate(loss(p, t, where).tolist()):
        a, b = (values[image][where[image]].double().numpy() for values in (p, t))
        expected = {
            dice: 1 - 2 * (a * b).sum() / (a.sum() + b.sum()),
            dice_squared: 1 - 2 * (a * b).sum() / ((a**2).sum() + (b**2).sum()),
            mse: ((a - b) ** 2).mean(),
        }
        assert found == pytest.approx(expected[loss], abs=2e-5)
        assert -1e-6 <= found <= 1 + 1e-6


def minimise(loss, target):
    """Descend from grey, from black and from white; give the best image found and its loss."""
    logits = torch.tensor([0.0, -1.5, 1.5]).view(3, 1, 1, 1).repeat(1, *target.shape[1:]).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(500):
        optimizer.zero_grad()
        values = loss(logits.sigmoid(), target.expand_as(logits), everywhere(logits))
        values.sum().backward()
        assert logits.grad.isfinite().all()
        optimizer.step()
    return values.min().item(), logits.detach().sigmoid()[values.argmin()][None]


def test_dice_as_printed_is_least_at_a_binarised_image():
    target = drawn(1, 1, 8, 8, seed=3)
    value, best = minimise(dice, target)
    cut = (1 - value) / 2  # half of the Dice coefficient reached
    assert torch.minimum(best, 1 - best).max() < 0.02
    assert torch.equal(best > 0.5, target > cut)
    assert value < dice(target, target, everywhere(target)).item() - 0.05


def test_dice_as_printed_is_least_at_a_binarised_image_among_all_of_five_grey_levels():
    levels = torch.tensor([0, 0.25, 0.5, 0.75, 1])
    images = torch.tensor(list(product(levels.tolist(), repeat=6))).view(-1, 1, 2, 3)
    target = torch.tensor([0.05, 0.2, 0.35, 0.5, 0.65, 0.9]).view(1, 1, 2, 3)
    values = dice(images, target.expand_as(images), everywhere(images))
    best = images[values.argmin()].flatten()
    # By hand: 1 - 2 x (0.5 + 0.65 + 0.9) / (3 + 2.65); with 0.35 among them it would be 1 - 2 x 2.4 / (4 + 2.65).
    assert best.tolist() == [0, 0, 0, 1, 1, 1]
    assert values.min().item() == pytest.approx(1 - 4.1 / 5.65)
    # The V-Net form over the same images: the nearest grey level, give or take one.
    values = dice_squared(images, target.expand_as(images), everywhere(images))
    assert (images[values.argmin()] - target).abs().max() <= 0.15


@pytest.mark.parametrize("loss", [dice_squared, mse])
def test_dice_of_squares_and_squared_error_are_least_at_the_target(loss):
    target = 0.05 + 0.9 * drawn(1, 1, 8, 8, seed=3)
    value, best = minimise(loss, target)
    assert (best - target).abs().max() < 0.01
    assert value < 1e-4


@each_loss
@pytest.mark.parametrize("p", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("t", [0.0, 1.0, 0.5])
def test_gradients_are_finite_for_flat_images(loss, p, t):
    restored = torch.full((2, 1, 4, 4), p, requires_grad=True)
    target = torch.full((2, 1, 4, 4), t)
    value = loss(restored, target, everywhere(target))
    value.sum().backward()
    assert value.isfinite().all()
    assert restored.grad.isfinite().all()
    if p == t in (0.0, 1.0):
        assert value.tolist() == [0, 0]


@each_loss
def test_pixels_that_are_not_marked_get_no_gradient(loss):
    restored, target = drawn(2, 2, 1, 6, 6)
    restored.requires_grad_()
    where = squares(torch.tensor([1, 2]), torch.tensor([0, 3]), 3, 6)
    loss(restored, target, where).sum().backward()
    assert (restored.grad[~where] == 0).all()
    assert (restored.grad[where] != 0).all()


# --- figures


@pytest.mark.parametrize("sigma", [0.5, 2])
def test_psnr_and_structural_similarity_are_scikit_images_on_ct(sigma):
    original = ct_slices()
    restored = blurred(original, sigma)
    check_against_scikit_image(restored, original)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("side", [7, 16, 33])
def test_psnr_and_structural_similarity_are_scikit_images_on_noise(side, noise):
    original = drawn(4, 1, side, side)
    original[1] = 0
    original[2, :, : side // 2] = 1
    check_against_scikit_image((original + noise * (drawn(4, 1, side, side, seed=1) - 0.5)).clamp(0, 1), original)


def check_against_scikit_image(restored, original):
    maps = ssim_map(restored, original)
    found = metrics(restored, original, everywhere(original))
    for image, (p, t) in enumerate(zip(restored[:, 0].numpy(), original[:, 0].numpy(), strict=True)):
        mean, expected = structural_similarity(t.astype(float), p.astype(float), data_range=1, full=True)
        np.testing.assert_allclose(maps[image, 0], expected, atol=1e-5)
        assert maps[image, 0, 3:-3, 3:-3].mean().item() == pytest.approx(mean, abs=1e-5)
        assert found["ssim"][image].item() == pytest.approx(expected.mean(), abs=1e-5)
        if ((p - t) ** 2).mean() > 1e-6:
            assert found["psnr"][image].item() == pytest.approx(peak_signal_noise_ratio(t, p, data_range=1), abs=1e-3)
        else:
            assert found["psnr"][image].item() == pytest.approx(60)


def test_figures_look_at_the_hole_alone():
    original, restored = drawn(2, 3, 1, 24, 24)
    hole = squares(torch.tensor([0, 5, 19]), torch.tensor([19, 7, 0]), 5, 24)
    inside = torch.where(hole, restored, original)
    expected = metrics(inside, original, hole)
    for name, found in metrics(torch.where(hole, restored, drawn(3, 1, 24, 24, seed=9)), original, hole).items():
        assert torch.equal(found, expected[name])
    rows, columns = slice(5, 10), slice(7, 12)
    error = (restored[1, 0, rows, columns] - original[1, 0, rows, columns]).double().square().mean()
    assert expected["mse"][1].item() == pytest.approx(error.item(), rel=1e-5)
    whole = structural_similarity(
        original[1, 0].double().numpy(), inside[1, 0].double().numpy(), data_range=1, full=True
    )
    assert expected["ssim"][1].item() == pytest.approx(whole[1][rows, columns].mean(), abs=1e-5)


def test_a_perfect_restoration_has_perfect_figures():
    original = drawn(2, 1, 16, 16)
    found = metrics(original, original, squares(torch.tensor([0, 9]), torch.tensor([3, 3]), 5, 16))
    expected = {"mse": 0, "psnr": 60, "ssim": 1, "sharpness": 1}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], torch.full((2,), float(value)), atol=1e-4, rtol=1e-6)


def test_psnr_by_hand():
    assert psnr(torch.tensor([1.0, 0.01, 1e-4, 1e-9, 0])).tolist() == pytest.approx([0, 20, 40, 60, 60], abs=1e-4)


def test_gradient_energy_by_hand():
    image = torch.tensor([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]])[None, None]
    assert gradient_energy(image, everywhere(image)).item() == pytest.approx((0.25 + 0 + 1 + 1 + 0 + 0.25 + 0.25) / 7)
    left = torch.tensor([[True, True, False], [True, True, False]])[None, None]
    assert gradient_energy(image, left).item() == pytest.approx((0.25 + 1 + 0 + 0.25) / 4)
    alone = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    alone[..., 0, 0] = True
    assert gradient_energy(image, alone).item() == 0


@pytest.mark.parametrize("source", ["ct", "drawn"])
def test_a_blurred_copy_is_less_sharp_and_a_noisy_one_sharper(source):
    original = ct_slices() if source == "ct" else blurred(drawn(4, 1, 96, 96), 1)
    where = squares(*torch.full((2, len(original)), 38), 20, 96)
    values = [sharpness(image, original, where) for image in (blurred(original, 2), blurred(original, 0.7), original)]
    assert (values[0] < values[1]).all()
    assert (values[1] < 0.8).all()
    assert torch.equal(values[2], torch.ones(len(original)))
    noisy = original + 0.3 * (drawn(*original.shape) - 0.5)
    assert (sharpness(noisy, original, where) > 1.05).all()


def test_a_flat_hole_restored_flat_is_as_sharp_and_a_seam_does_not_count():
    original = drawn(1, 1, 12, 12)
    where = squares(torch.tensor([4]), torch.tensor([4]), 4, 12)
    original[where] = 0
    restored = original.clone()
    restored[where] = 0.9
    assert sharpness(restored, original, where).item() == 1
    original[where] = torch.tensor([0.0, 0.1] * 8)
    expected = FLAT / (0.01 * 12 / 24 + FLAT)  # steps of 0.1 across, none down
    assert sharpness(restored, original, where).item() == pytest.approx(expected, rel=1e-3)


def test_an_image_in_which_nothing_changed_is_judged_as_a_whole():
    changed = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    changed[1, 0, 2, 3] = True
    assert judged(changed)[0].all()
    assert torch.equal(judged(changed)[1], changed[1])


# --- holes and crops


@pytest.mark.parametrize("size", [64, 96])
def test_a_square_is_marked_where_it_is_said(size):
    marked = squares(torch.tensor([0, 5]), torch.tensor([size - 3, 1]), 3, size)
    expected = np.zeros((2, 1, size, size), bool)
    expected[0, 0, :3, -3:] = True
    expected[1, 0, 5:8, 1:4] = True
    np.testing.assert_array_equal(marked.numpy(), expected)


def test_holes_are_filled_with_black_the_images_own_mean_or_noise():
    images = drawn(3, 1, 20, 20) * torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1, 1)
    hole = squares(torch.tensor([0, 4, 8]), torch.tensor([2, 2, 2]), 10, 20)
    filled = {
        content: fill(images, hole, content, torch.Generator().manual_seed(0)) for content in ("zero", "mean", "noise")
    }
    for image in filled.values():
        assert torch.equal(image[~hole], images[~hole])
    assert (filled["zero"][hole] == 0).all()
    for image in range(3):
        outside = images[image][~hole[image]].mean().item()
        assert filled["mean"][image][hole[image]].tolist() == pytest.approx([outside] * 100)
        noise = filled["noise"][image][hole[image]]
        assert len(noise.unique()) > 95
        assert 0 <= noise.min() < 0.1
        assert 0.9 < noise.max() < 1


def test_regions_become_pixels_and_one_without_a_pixel_is_refused():
    assert pixels((0.421875, 0.78125, 0.125, 0.421875), 64, "left") == (27, 50, 8, 27)
    assert pixels((0, 1, 0, 1), 96, "left") == (0, 96, 0, 96)
    with pytest.raises(InputError, match=r"^region 'right' \[0.5, 0.501, 0, 1\] holds no pixel of 64 x 64"):
        pixels((0.5, 0.501, 0, 1), 64, "right")


def test_the_hole_is_enlarged_to_the_full_frame():
    images = torch.arange(64.0).view(1, 1, 8, 8).repeat(3, 2, 1, 1)
    images[:, 1] *= -1
    where = squares(torch.tensor([0, 4, 2]), torch.tensor([4, 0, 3]), 4, 8)
    where[2, 0, 2:4] = False  # two rows of four columns: the square around them, columns 3 to 6
    found = enlarge(images, where)
    for image, (top, left) in enumerate([(0, 4), (4, 0), (3, 3)]):
        for channel in range(2):
            cut = images[image, channel, top : top + 4, left : left + 4].numpy()
            np.testing.assert_array_equal(found[image, channel].numpy(), cut.repeat(2, 0).repeat(2, 1))
    assert torch.equal(enlarge(images, everywhere(images[:, :1])), images)


# --- the task


class Toy(Restoration):
    """Upper half darkened, but not in the first image; the target is upside down, as where targets are flipped."""

    def perturb(self, images, generator):
        changed = everywhere(images)
        changed[0] = False
        changed[:, :, 32:] = False
        target = images.flip(2)
        return Perturbed(torch.where(changed, 0.1 * target, target), target, changed)


@cache
def toy(loss, region="image"):
    return Toy(Setting("resnet18", 64, {}, 0, 0.5), RestorationOptions(loss=loss, region=region))


@pytest.mark.parametrize(("loss", "region"), [("dice", "image"), ("dice_squared", "hole"), ("mse", "hole")])
def test_figures_and_loss_of_each_image_for_the_network_and_the_trivial_restorations(loss, region):
    method, images = toy(loss, region), drawn(4, 1, 64, 64) ** 2
    target, copy, half = images.flip(2), images.flip(2), torch.zeros(4, 1, 64, 64, dtype=torch.bool)
    copy[1:, :, :32] *= 0.1
    half[0] = half[:, :, :32] = True
    method.eval()
    with torch.inference_mode():
        method.average.fill_(0.25)
        found = method.validate(images, torch.Generator())
        restored = method.unet(copy)
    guesses = {
        "": restored,
        "_copy": copy,
        "_mean": target.mean((1, 2, 3), keepdim=True).expand_as(target),
        "_average": torch.full_like(target, 0.25),
    }
    expected: dict[str, Tensor] = {}
    for name, guess in guesses.items():
        expected[f"loss{name}"] = LOSSES[loss](guess, target, everywhere(half) if region == "image" else half)
        expected |= {f"{figure}{name}": value for figure, value in metrics(guess, target, half).items()}
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.shape == (4,)
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
    assert (found["mse_copy"][1:] > 0.1).all()
    assert found["mse_copy"][0] == 0


def test_a_step_gives_the_mean_over_images_and_gathers_the_mean_target():
    method, batches = toy("dice_squared"), [drawn(4, 1, 64, 64, seed=1), drawn(2, 1, 64, 64, seed=2)]
    method.train()
    for images in batches:
        loss, found = method.step(images, torch.Generator())
    with torch.no_grad():
        perturbed = method.perturb(batches[1], torch.Generator())
        restored = method.unet(perturbed.images)
    each = dice_squared(restored, perturbed.target, everywhere(restored))
    assert loss.item() == pytest.approx(each.mean().item(), abs=1e-5)
    hole = judged(perturbed.changed)
    errors = [(restored - perturbed.target)[image][hole[image]].square().mean().item() for image in range(2)]
    assert found["mse"].item() == pytest.approx(np.mean(errors), abs=1e-5)
    expected = torch.cat(batches).flip(2).mean(0)
    torch.testing.assert_close(method.average.view(1, 64, 64), expected)


@pytest.mark.parametrize(("loss", "region"), [("dice", "image"), ("mse", "hole")])
def test_pictures_show_input_original_and_restoration_whole_and_in_the_hole(loss, region):
    method, images = toy(loss, region).eval(), drawn(3, 1, 64, 64)
    with torch.no_grad():
        found = method.pictures(images, torch.Generator())
        perturbed = method.perturb(images, torch.Generator())
        restored = method.unet(perturbed.images)
    if region == "hole":  # outside of it the network was never taught
        restored[1:, :, 32:] = perturbed.target[1:, :, 32:]
    expected = torch.cat([perturbed.images, perturbed.target, restored], 1)
    assert found.keys() == {"restored", "hole"}
    for picture in found.values():
        assert picture.columns[:2] == ("perturbed", "original")
        assert picture.columns[2] == ("restored in the hole" if region == "hole" else "restored")
        assert picture.images.shape == (3, 3, 64, 64)
        assert 0 <= picture.images.min() <= picture.images.max() <= 1
    torch.testing.assert_close(found["restored"].images, expected)
