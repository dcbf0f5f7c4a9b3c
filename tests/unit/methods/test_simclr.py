"""SimCLR: views against torchvision's and torch's own operations, NT-Xent against a plain loop from the paper."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import affine_grid, grid_sample, normalize
from torchvision.transforms.v2.functional import adjust_brightness, gaussian_blur, resize

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.methods.simclr import Method, SimclrOptions
from kidney_ssl.methods.views import alignment, apply_views, draw_views, similarities, unchanged, uniformity
from tests.unit.methods.stand_ins import Given

CPU = torch.device("cpu")
SETTING = Setting("resnet18", 64, {"left": (0.3, 0.7, 0.1, 0.5), "right": (0.3, 0.7, 0.5, 0.9)}, 0, 0.5)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count, side=64, seed=0):
    return torch.rand(count, 1, side, side, generator=seeded(seed))


def smooth(count, side=64):
    return torch.nn.functional.interpolate(noise(count, 8), (side, side), mode="bicubic").clamp(0, 1)


def view(count=1, **changes):
    values = {name: torch.full((count,), value) for name, value in changes.items()}
    return unchanged(count, CPU)._replace(**values)


@pytest.mark.parametrize("side", [64, 96, 100])
def test_a_view_that_changes_nothing_is_the_slice(side):
    images = noise(3, side)
    assert torch.equal(apply_views(images, unchanged(6, CPU), 2.0), images.repeat(2, 1, 1, 1))


@given(
    seed=st.integers(0, 1000),
    least=st.floats(0.01, 1),
    side=st.sampled_from([32, 64]),
)
def test_crop_and_flip_are_those_of_torchs_grid_sample(seed, least, side):
    drawn = draw_views(6, SimclrOptions(min_scale=least, jitter=0.0, blur_probability=0.0), seeded(seed))
    images = noise(3, side, seed)
    # In grid_sample's frame the slice reaches from -1 to 1.
    turned = [torch.where(flag, -1.0, 1.0) for flag in (drawn.mirrored, drawn.upside_down)]
    zeros = torch.zeros(6)
    matrix = torch.stack(
        [
            torch.stack([drawn.width * turned[0], zeros, 2 * drawn.left + drawn.width - 1], 1),
            torch.stack([zeros, drawn.height * turned[1], 2 * drawn.top + drawn.height - 1], 1),
        ],
        1,
    )
    grid = affine_grid(matrix, [6, 1, side, side], align_corners=False)
    expected = grid_sample(images.repeat(2, 1, 1, 1), grid, align_corners=False, padding_mode="border")
    assert torch.allclose(apply_views(images, drawn, 2.0), expected, atol=1e-4)


@pytest.mark.parametrize("size", [16, 27, 64, 80])
def test_views_of_another_size_are_those_of_torchs_grid_sample(size):
    drawn = draw_views(6, SimclrOptions(min_scale=0.05, jitter=0.0, blur_probability=0.0), seeded(1), 0.4)
    assert (drawn.width * drawn.height).max() <= 0.4 + 1e-6
    images = smooth(6)
    flips = [torch.where(flag, -1.0, 1.0) for flag in (drawn.mirrored, drawn.upside_down)]
    zeros = torch.zeros(6)
    matrix = torch.stack(
        [
            torch.stack([drawn.width * flips[0], zeros, 2 * drawn.left + drawn.width - 1], 1),
            torch.stack([zeros, drawn.height * flips[1], 2 * drawn.top + drawn.height - 1], 1),
        ],
        1,
    )
    grid = affine_grid(matrix, [6, 1, size, size], align_corners=False)
    expected = grid_sample(images, grid, align_corners=False, padding_mode="border")
    assert torch.allclose(apply_views(images, drawn, 2.0, size), expected, atol=1e-4)


def test_the_blur_of_a_view_of_another_size_is_in_its_own_pixels():
    images = smooth(2, 64)
    half = apply_views(images, view(2, sigma=1.0), 1.0, 32)
    expected = apply_views(images, view(2, sigma=2.0), 2.0)
    expected = torch.nn.functional.avg_pool2d(expected, 2)  # a pixel lies between two
    sharp = torch.nn.functional.avg_pool2d(images, 2)
    inner = slice(4, -4)
    error = (half - expected)[..., inner, inner].abs().max()
    assert error < 0.1 * (sharp - expected)[..., inner, inner].abs().max()


def test_flips_reverse_rows_and_columns_and_are_their_own_inverse():
    images = noise(2)
    for changes, dims in (({"mirrored": True}, [3]), ({"upside_down": True}, [2])):
        flipped = apply_views(images, view(2, **changes), 2.0)
        assert torch.equal(flipped, images.flip(dims))
        assert torch.equal(apply_views(flipped, view(2, **changes), 2.0), images)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
def test_the_blur_is_a_gaussian(sigma):
    images = smooth(2, 32)
    found = apply_views(images, view(2, sigma=sigma), 2.0)
    # The kernel is a Gaussian convolved with the triangle of linear interpolation, of variance 1/6.
    expected = gaussian_blur(images, [25, 25], [math.sqrt(sigma**2 + 1 / 6)] * 2)
    inner = slice(8, -8)  # the edge is repeated here, mirrored there
    assert torch.allclose(found[..., inner, inner], expected[..., inner, inner], atol=2e-3)
    assert (found - images).abs().max() > 10 * (found - expected)[..., inner, inner].abs().max()


def test_each_view_has_its_own_blur_and_a_grey_slice_stays_as_it_is():
    views = unchanged(3, CPU)._replace(sigma=torch.tensor([0.0, 0.1, 2.0]))
    images = noise(1).expand(3, 1, 64, 64)
    blurred = apply_views(images, views, 2.0)
    contrast = blurred.std((1, 2, 3))
    assert contrast[0] > contrast[1] > 2 * contrast[2]
    grey = torch.full((3, 1, 64, 64), 0.25)
    assert torch.allclose(apply_views(grey, views, 2.0), grey)


def test_brightness_and_contrast_are_torchvisions_for_each_view():
    images = 0.2 + 0.3 * noise(3)
    views = unchanged(3, CPU)._replace(brightness=torch.tensor([0.8, 1.2, 1.0]), contrast=torch.tensor([1.0, 0.5, 1.5]))
    found = apply_views(images, views, 2.0)
    for number in range(3):
        bright = adjust_brightness(images[number], views.brightness[number].item())
        expected = bright.mean() + views.contrast[number] * (bright - bright.mean())
        assert torch.allclose(found[number], expected, atol=1e-5)


def test_views_stay_between_0_and_1():
    images = (noise(16) > 0.5).float()
    options = SimclrOptions(jitter=0.9, jitter_probability=1.0)
    made = apply_views(images, draw_views(32, options, seeded()), options.max_sigma)
    assert (made.min(), made.max()) == (0, 1)


@given(seed=st.integers(0, 2**32 - 1), least=st.floats(0.01, 1))
def test_a_crop_keeps_at_least_its_share_of_the_area_and_lies_in_the_slice(seed, least):
    drawn = draw_views(64, SimclrOptions(min_scale=least), seeded(seed))
    area = drawn.height * drawn.width
    assert area.min() >= least - 1e-5
    assert area.max() <= 1 + 1e-5
    for start, length in ((drawn.top, drawn.height), (drawn.left, drawn.width)):
        assert start.min() >= 0
        assert (start + length).max() <= 1 + 1e-6
    ratio = drawn.width / drawn.height
    assert ratio.min() >= 3 / 4 - 1e-5
    assert ratio.max() <= 4 / 3 + 1e-5


def test_draws_are_as_frequent_and_as_spread_as_the_options_say():
    options = SimclrOptions(jitter=0.2, flip_probability=0.3, blur_probability=0.4, max_sigma=3.0)
    drawn = draw_views(20000, options, seeded())
    assert drawn.mirrored.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert drawn.upside_down.float().mean().item() == pytest.approx(0.3, abs=0.02)
    both = (drawn.mirrored & drawn.upside_down).float().mean().item()
    assert both == pytest.approx(0.09, abs=0.01)  # drawn by themselves
    blurred = drawn.sigma[drawn.sigma > 0]
    assert len(blurred) / 20000 == pytest.approx(0.4, abs=0.02)
    assert (blurred.min().item(), blurred.max().item()) == pytest.approx((0.1, 3.0), abs=0.01)
    for factor in (drawn.brightness, drawn.contrast):
        assert (factor == 1).float().mean().item() == pytest.approx(0.2, abs=0.02)
        assert (factor.min().item(), factor.max().item()) == pytest.approx((0.8, 1.2), abs=0.001)
    area = drawn.height * drawn.width
    assert np.quantile(area, [0.25, 0.5, 0.75]) == pytest.approx([0.475, 0.65, 0.825], abs=0.02)
    room = (1 - drawn.height) > 0.2
    place = (drawn.top / (1 - drawn.height))[room]
    assert np.quantile(place, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.03)


def test_two_views_of_a_slice_differ_and_so_do_those_of_equal_slices():
    method = Method(SETTING, SimclrOptions())
    made = method.views(smooth(1).expand(8, 1, 64, 64), seeded())
    assert made.shape == (16, 1, 64, 64)
    for number in range(16):
        away = (made - made[number]).abs().mean((1, 2, 3))
        assert away.sort().values[1] > 0.001


@pytest.mark.parametrize(("size", "side"), [(32, 32), (64, 64), (100, 64), (None, 64)])
def test_slices_are_reduced_to_the_size_before_views_are_made(size, side):
    method = Method(SETTING, SimclrOptions(size=size))
    images = smooth(2)
    assert method.views(images, seeded()).shape == (4, 1, side, side)
    shown = method.pictures(images, seeded())["operations"].images[:, 0]
    expected = images if side == 64 else resize(images, [side, side], antialias=True)
    assert torch.allclose(shown, expected[:, 0], atol=1e-5)


def nt_xent(first, second, temperature):
    """Eq. 1 of Chen et al. (2020), written out: views 2k - 1 and 2k belong together, k from 1."""
    z = [None]
    for one, other in zip(first.double().tolist(), second.double().tolist(), strict=True):
        z += [one, other]
    count = len(first)

    def similarity(i, j):
        dot = sum(a * b for a, b in zip(z[i], z[j], strict=True))
        return dot / math.sqrt(sum(a * a for a in z[i])) / math.sqrt(sum(b * b for b in z[j]))

    def loss(i, j):
        others = [k for k in range(1, 2 * count + 1) if k != i]
        total = sum(math.exp(similarity(i, k) / temperature) for k in others)
        return -math.log(math.exp(similarity(i, j) / temperature) / total)

    return sum(loss(2 * k - 1, 2 * k) + loss(2 * k, 2 * k - 1) for k in range(1, count + 1)) / (2 * count)


@pytest.mark.parametrize("temperature", [0.05, 0.25, 1.0])
def test_the_loss_is_nt_xent_of_the_paper_in_training_and_in_validation(temperature):
    projected = torch.randn(12, 5, generator=seeded(1)) * 3
    method = Method(SETTING, SimclrOptions(temperature=temperature))
    method.head = Given(projected)
    expected = nt_xent(projected[:6], projected[6:], temperature)
    loss, figures = method.step(noise(6), seeded())
    validated = method.eval().validate(noise(6), seeded())
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert validated["loss"].mean().item() == pytest.approx(expected, rel=1e-5)
    nearest = [
        max(
            (k for k in range(12) if k != i),
            key=lambda k: normalize(projected, dim=1)[i] @ normalize(projected, dim=1)[k],
        )
        for i in range(12)
    ]
    right = [nearest[i] == (i + 6) % 12 for i in range(12)]
    assert figures["accuracy"].item() == pytest.approx(np.mean(right))
    assert validated["accuracy"].tolist() == [np.mean([right[i], right[i + 6]]) for i in range(6)]
    assert validated["loss_chance"].tolist() == pytest.approx([math.log(11)] * 6)
    assert validated["accuracy_chance"].tolist() == pytest.approx([1 / 11] * 6)


def test_the_loss_is_computed_in_float32_under_autocast():
    projected = torch.randn(8, 128, generator=seeded(2))
    method = Method(SETTING, SimclrOptions())
    method.head = Given(projected)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method.step(noise(4), seeded())
    assert loss.item() == pytest.approx(nt_xent(projected[:4], projected[4:], 0.5), rel=1e-5)


def test_alignment_and_uniformity_are_those_of_wang_and_isola():
    projected = torch.randn(10, 4, generator=seeded(3))
    unit = normalize(projected.double(), dim=1).numpy()
    expected = [float(((unit[i] - unit[(i + 5) % 10]) ** 2).sum()) for i in range(10)]
    assert alignment(projected).tolist() == pytest.approx(expected, rel=1e-4)
    halves = []
    for half in (unit[:5], unit[5:]):
        pairs = [math.exp(-2 * ((half[i] - half[j]) ** 2).sum()) for i in range(5) for j in range(i)]
        halves.append(math.log(np.mean(pairs)))
    assert uniformity(projected).item() == pytest.approx(np.mean(halves), rel=1e-4)
    same = torch.ones(6, 4)
    assert (alignment(same).max().item(), uniformity(same).item()) == pytest.approx((0, 0), abs=1e-6)


def test_a_batch_should_hold_a_case_once():
    assert Method.one_slice_per_case


def test_a_view_is_no_candidate_for_itself():
    found, other = similarities(torch.ones(6, 2))
    assert found.diagonal().isneginf().all()
    assert other.tolist() == [3, 4, 5, 0, 1, 2]


def test_thumbnails_find_the_other_view_where_views_change_nothing():
    options = SimclrOptions(min_scale=1.0, flip_probability=0.0, jitter=0.0, blur_probability=0.0)
    figures = Method(SETTING, options).eval().validate(smooth(6), seeded())
    assert figures["accuracy_thumbnail"].tolist() == [1] * 6
    assert figures["alignment_thumbnail"].max() < 1e-4


def test_the_head_is_the_papers_with_batch_norm_and_the_settings_momentum():
    head = Method(SETTING, SimclrOptions()).head
    norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm1d)]
    assert {norm.momentum for norm in norms} == {0.5}
    assert head(torch.rand(4, 512)).shape == (4, 128)


# SimCLR, MoCo v2, MoCo, and the small crops of SwAV.
@pytest.mark.parametrize(("temperature", "min_scale"), [(0.5, 0.08), (0.2, 0.2), (0.07, 0.2), (0.1, 0.05), (1.0, 1.0)])
def test_published_temperatures_and_crops_are_accepted(temperature, min_scale):
    options = read_options(Method, {"temperature": temperature, "min_scale": min_scale}, "simclr")
    assert (options.temperature, options.min_scale) == (temperature, min_scale)


@pytest.mark.parametrize("options", [{"min_scale": 0.0}, {"temperature": 0.0}, {"temperature": 1.5}, {"jitter": 1.0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=rf"^params.yaml: simclr.{next(iter(options))}: ") as caught:
        read_options(Method, options, "simclr")
    assert "\n" not in str(caught.value)


def test_operations_are_shown_one_by_one():
    images = smooth(3)
    pictures = Method(SETTING, SimclrOptions()).eval().pictures(images, seeded())
    assert set(pictures) == {"views", "operations"}
    shown = pictures["operations"]
    assert shown.columns == ("slice", "crop", "flips", "intensity", "largest blur")
    assert torch.equal(shown.images[:, 0], images[:, 0])
    assert torch.allclose(shown.images[:, 2].mean((1, 2)), images.mean((1, 2, 3)))  # flips move pixels only
