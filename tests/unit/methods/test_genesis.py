"""Models Genesis against a plain loop written from its description, and each operation by itself."""

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import ks_2samp, kstest

from kidney_ssl.methods import genesis
from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.genesis import Curves, GenesisOptions, Method, Windows, apply, draw
from tests.unit.methods import published_genesis as published

PIXELS = np.arange(64 * 64).reshape(64, 64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def slices(count=8, size=64, seed=5):
    return torch.rand(count, 1, size, size, generator=generator(seed))


def places(count, size):
    """Images whose pixels hold their own place, from 0 on in each image."""
    return torch.arange(size**2, dtype=torch.float32).view(1, 1, size, size).repeat(count, 1, 1, 1)


def only(**rates):
    """Options with all other operations off."""
    return GenesisOptions(**({"flip_rate": 0, "local_rate": 0, "nonlinear_rate": 0, "paint_rate": 0} | rates))


# Shuffling


def shown(windows, row, size):
    """The window that each pixel of an image shows in the end, painted one after the other; and their bounds."""
    image = np.zeros((size, size), int)
    bounds = np.array([side[row].tolist() for side in (windows.top, windows.left, windows.height, windows.width)]).T
    for rank, (top, left, height, width) in enumerate(bounds, 1):
        image[top : top + height, left : left + width] = rank
    return image, bounds


def side_by_side(height, width, size, count, seed):
    """Windows of one size that leave no pixel twice, and their permutations (count, windows, height, width)."""
    down, across = size // height, size // width
    top = (torch.arange(down) * height).repeat_interleave(across).int().repeat(count, 1)
    left = (torch.arange(across) * width).repeat(down).int().repeat(count, 1)
    sides = torch.full_like(top, height), torch.full_like(top, width)
    shifts = genesis.draw_shifts(*sides, size // 10, generator(seed))
    windows = Windows(torch.arange(count), top, left, *sides, shifts)
    source = genesis.shuffle(places(count, size), windows)[:, 0, : down * height, : across * width].long()
    cut = source.reshape(count, down, height, across, width).transpose(2, 3).reshape(count, -1, height, width)
    rows, columns = cut // size - top[..., None, None], cut % size - left[..., None, None]
    return (rows * width + columns).numpy()


@pytest.mark.parametrize(("size", "number"), [(32, 40), (64, 700), (96, 300), (512, 60)])
def test_a_pixel_shows_the_last_window_over_it_and_comes_from_inside_that_window_once(size, number):
    windows = genesis.draw_windows(3, size, number, 1, generator(size))
    shuffled = genesis.shuffle(places(3, size), windows)
    last = genesis.last_window(windows, size)
    for row, image in enumerate(windows.chosen.tolist()):
        window, bounds = shown(windows, row, size)
        np.testing.assert_array_equal(last[row].numpy(), window)
        source = shuffled[image, 0].numpy().astype(int)
        np.testing.assert_array_equal(source[window == 0], np.flatnonzero(window == 0))
        for rank in np.unique(window[window > 0]):
            top, left, height, width = bounds[rank - 1]
            down, across = np.divmod(source[window == rank], size)
            assert len(np.unique(source[window == rank])) == len(down)
            assert np.all((down >= top) & (down < top + height) & (across >= left) & (across < left + width))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_inside_a_window_pixels_are_permuted(height, width, seed):
    found = side_by_side(height, width, 96, 1, seed).reshape(-1, height * width)
    np.testing.assert_array_equal(np.sort(found, 1), np.broadcast_to(np.arange(height * width), found.shape))


def test_each_pixel_of_a_window_is_as_likely_a_source_as_any_other_and_neighbours_part():
    found = side_by_side(5, 4, 100, 40, 1).reshape(-1, 20)  # 20,000 permutations of 5 x 4 pixels
    for pixel in range(20):
        seen = np.bincount(found[:, pixel], minlength=20)
        assert ((seen - 1000) ** 2 / 1000).sum() < 60  # chi-squared of 19 degrees: 1 in 250,000
    places_of = np.stack(np.divmod(found, 4), -1).reshape(-1, 5, 4, 2)
    for axis in (1, 2):
        near = (np.abs(np.diff(places_of, axis=axis)).sum(-1) == 1).mean()
        assert near < 1.2 * 62 / 380  # of the 380 ordered pairs of pixels 62 are neighbours


def test_all_permutations_of_four_pixels_happen():
    found = side_by_side(2, 2, 100, 2, 3).reshape(-1, 4)
    assert len(np.unique(found, axis=0)) == 24


def test_coverage_and_displacements_are_those_of_the_loop():
    count, number = 24, 700
    windows = genesis.draw_windows(count, 64, number, 1, generator(2))
    ours = genesis.shuffle(places(count, 64), windows)[:, 0].numpy().astype(int)
    chance, noise = Random(3), np.random.default_rng(3)
    drawn = [published.draw_windows(64, number, chance) for _ in range(count)]
    plain = np.array([published.shuffle(PIXELS, one, noise) for one in drawn])
    covered = np.zeros(plain.shape, int)
    for image, one in zip(covered, drawn, strict=True):
        for window in one:
            image[window.slices] += 1
    assert covered.mean() == pytest.approx((windows.height * windows.width).sum().item() / covered.size, rel=0.02)
    assert (covered > 0).mean() == pytest.approx((genesis.last_window(windows, 64) > 0).numpy().mean(), abs=0.01)
    moved = []
    for source in (ours, plain):
        down, across = source // 64 - PIXELS // 64, source % 64 - PIXELS % 64
        # Windows have at most 6 pixels a side.
        moved.append([np.bincount(way.ravel() + 5, minlength=11) / way.size for way in (down, across)])
        moved[-1].append(np.bincount((down**2 + across**2).ravel(), minlength=51) / down.size)
    for one, other in zip(*moved, strict=True):
        assert len(one) == len(other)
        assert np.abs(one - other).sum() / 2 < 0.01


def test_in_the_loop_too_no_value_is_drawn_twice():
    drawn = published.draw_windows(64, 700, Random(0))
    source = published.shuffle(PIXELS, drawn, np.random.default_rng(0))
    last = np.zeros((64, 64), int)
    for rank, window in enumerate(drawn, 1):
        last[window.slices] = rank
    for rank in np.unique(last):
        assert len(np.unique(source[last == rank])) == (last == rank).sum()


@pytest.mark.parametrize(("size", "number", "coverage"), [(512, 700, 1.8), (96, 700, 1.9), (64, 700, 2.1)])
def test_coverage_hardly_depends_on_the_size(size, number, coverage):
    # A side of 1 to m pixels is (m + 1) / 2 on average.
    assert number * ((size // 10 + 1) / 2) ** 2 / size**2 == pytest.approx(coverage, abs=0.05)
    windows = genesis.draw_windows(16, size, number, 1, generator())
    assert (windows.height * windows.width).double().mean().item() * number / size**2 == pytest.approx(
        coverage, abs=0.1
    )


@pytest.mark.parametrize(("rate", "share"), [(0, {0}), (0.5, {2, 3}), (0.4, {2}), (1, {5})])
def test_as_many_images_are_shuffled_as_the_rate_says_each_as_often_as_the_others(rate, share):
    before = places(5, 64)
    shuffled = np.zeros(5)
    for seed in range(60):
        after = genesis.shuffle(before, genesis.draw_windows(5, 64, 50, rate, generator(seed)))
        touched = (after != before).flatten(1).any(1).numpy()
        assert touched.sum() in share
        shuffled += touched
    assert shuffled.mean() / 60 == pytest.approx(rate, abs=0.05)
    assert np.all(np.abs(shuffled / 60 - rate) < 0.3)


# Grey values


def de_casteljau(points, t):
    """A Bezier curve by repeated interpolation: (n, 2) points, at each of t."""
    points = np.repeat(np.asarray(points, float)[:, None], len(t), 1)
    while len(points) > 1:
        points = points[:-1] + (points[1:] - points[:-1]) * t[:, None]
    return points[0].T


unit = st.floats(0, 1, width=32)


@given(unit, unit, unit, unit, st.booleans())
def test_a_curve_is_monotone_and_ends_in_corners(x1, y1, x2, y2, inverted):
    curves = Curves(torch.tensor([[x1, y1, x2, y2]]), torch.tensor([inverted]), torch.tensor([True]))
    grey = torch.linspace(0, 1, 64**2).view(1, 1, 64, 64)
    bent = genesis.bend(grey, curves).flatten()
    steps = bent.diff() * (-1 if inverted else 1)
    assert steps.min() >= -1e-6
    assert bent[[0, -1]].tolist() == pytest.approx([1, 0] if inverted else [0, 1], abs=1e-6)


@given(st.floats(0.1, 0.9), unit, st.floats(0.1, 0.9), unit, st.booleans())
def test_a_curve_is_the_bezier_curve_of_its_points(x1, y1, x2, y2, inverted):
    t = np.linspace(0, 1, 64**2)
    # Inverted: the mirrored curve, from (0, 1) to (1, 0).
    points = [(0, 1), (x1, y2), (x2, y1), (1, 0)] if inverted else [(0, 0), (x1, y1), (x2, y2), (1, 1)]
    x, y = de_casteljau(points, t)
    curves = Curves(torch.tensor([[x1, y1, x2, y2]]), torch.tensor([inverted]), torch.tensor([True]))
    bent = genesis.bend(torch.from_numpy(x).float().view(1, 1, 64, 64), curves)
    np.testing.assert_allclose(bent.flatten(), y, atol=1e-3)


@pytest.mark.parametrize("increasing", [True, False])
def test_curves_are_those_of_the_published_sorting(increasing):
    grey = np.linspace(0, 1, 64**2)
    curves = genesis.draw_curves(16, 1, generator(4))
    curves = curves._replace(inverted=torch.full((16,), not increasing))
    bent = genesis.bend(torch.from_numpy(grey).float().view(1, 1, 64, 64).repeat(16, 1, 1, 1), curves)
    for image, (x1, y1, x2, y2) in zip(bent, curves.points.tolist(), strict=True):
        corners = np.array([(0, 0), (x1, y1), (x2, y2), (1, 1)])
        plain = np.interp(grey, *published.curve(corners, 100_000, increasing=increasing))
        np.testing.assert_allclose(image.flatten(), plain, atol=2e-3)


def test_half_of_the_curves_are_inverted_and_unused_ones_leave_grey_values_exactly():
    curves = genesis.draw_curves(4000, 0.9, generator())
    assert curves.inverted.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert curves.used.double().mean().item() == pytest.approx(0.9, abs=0.02)
    assert curves.points.mean().item() == pytest.approx(0.5, abs=0.02)
    before = slices()
    after = genesis.bend(before, genesis.draw_curves(8, 0.5, generator(1)))
    same = (before == after).flatten(1).all(1)
    assert torch.equal(same, ~genesis.draw_curves(8, 0.5, generator(1)).used)
    assert 0 < same.sum() < 8


# Painting


def drawn_rectangles(count, size, inpaint_rate):
    """Rectangles of ours, an image's in a list."""
    painting = genesis.draw_painting(count, size, 1, inpaint_rate, generator(6))
    bounds = torch.stack(painting[1:5], -1).tolist()
    return painting, [
        [published.Rectangle(*one) for one, used in zip(row, flags, strict=True) if used]
        for row, flags in zip(bounds, painting.used.tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("inpaint_rate", "size", "sides"), [(1, 32, (2, 5)), (0, 32, (8, 12)), (1, 96, (8, 16)), (0, 96, (24, 36))]
)
def test_rectangles_are_as_many_as_large_and_where_the_loop_has_them(inpaint_rate, size, sides):
    count = 1500
    _, ours = drawn_rectangles(count, size, inpaint_rate)
    chance = Random(1)
    of = published.rectangles_in if inpaint_rate else published.rectangles_out
    plain = [of(size, chance) for _ in range(count)]
    for number in range(6):
        share = [np.mean([len(one) == number for one in all_of]) for all_of in (ours, plain)]
        assert share[0] == pytest.approx(share[1], abs=0.04)
    flat, plain_flat = ([one for row in all_of for one in row] for all_of in (ours, plain))
    for field in published.Rectangle._fields:
        assert (
            ks_2samp([getattr(one, field) for one in flat], [getattr(one, field) for one in plain_flat]).pvalue > 1e-4
        )
    for all_of in (flat, plain_flat):
        assert {min(one.height for one in all_of), min(one.width for one in all_of)} == {sides[0]}
        assert {max(one.height for one in all_of), max(one.width for one in all_of)} == {sides[1]}
        margin = {32: 1, 96: 4}[size]
        assert min(min(one.top, one.left) for one in all_of) == margin
        assert max(max(one.top + one.height, one.left + one.width) for one in all_of) == size - margin


@pytest.mark.parametrize(("inpaint_rate", "share"), [(0, 0.682), (1, 0.055)])
def test_painting_replaces_as_much_of_a_slice_as_the_published_code_of_a_cube(inpaint_rate, share):
    chance = Random(4)
    cubes = [published.blocks((64, 64, 32), chance, outside=not inpaint_rate).mean() for _ in range(1500)]
    published_share = np.mean(cubes) if inpaint_rate else 1 - np.mean(cubes)
    assert published_share == pytest.approx(share, abs=0.006)
    for size, rounds in ((512, 10), (96, 20), (64, 20), (32, 20)):
        images = torch.full((40, 1, size, size), 2.0)
        drawn = [genesis.draw_painting(40, size, 1, inpaint_rate, generator(seed)) for seed in range(rounds)]
        replaced = np.mean([(genesis.paint(images, one) != images).double().mean() for one in drawn])
        assert replaced == pytest.approx(published_share, abs=0.02 if not inpaint_rate else 0.012), size


@pytest.mark.parametrize("inpaint_rate", [0, 1])
def test_noise_fills_the_rectangles_or_all_but_them(inpaint_rate):
    before = slices(40)
    painting, rectangles = drawn_rectangles(40, 64, inpaint_rate)
    painted = genesis.paint(before, painting)
    for image, row, was, noise in zip(painted, rectangles, before, painting.noise, strict=True):
        inside = torch.zeros(64, 64, dtype=torch.bool)
        for one in row:
            inside[one.slices] = True
        assert torch.equal(image[0], torch.where(inside == bool(inpaint_rate), noise[0], was[0]))


def test_noise_is_uniform_and_independent():
    noise = genesis.uniform((3, 101, 67), generator(8)).flatten().double()
    assert kstest(noise.numpy(), "uniform").pvalue > 1e-3
    assert noise.min() > 0
    assert noise.max() < 1
    for lag in (1, 2, 3, 4, 67):
        assert abs(np.corrcoef(noise[lag:], noise[:-lag])[0, 1]) < 0.03


def test_painting_happens_at_the_rates_of_the_options():
    before = torch.full((3000, 1, 32, 32), 2.0)
    painting = genesis.draw_painting(3000, 32, 0.9, 0.2, generator(9))
    touched = (genesis.paint(before, painting) != before).flatten(1).float().mean(1)
    # An in-painting is empty with a chance of 0.05.
    assert (touched == 0).double().mean().item() == pytest.approx(0.1 + 0.9 * 0.2 * 0.05, abs=0.02)
    assert painting.outside.double().mean().item() == pytest.approx(0.9 * 0.8, abs=0.03)
    chance, noise = Random(2), np.random.default_rng(2)
    plain = []
    for _ in range(3000):
        image = np.full((32, 32), 2.0)
        if chance.random() < published.PAINT:
            if chance.random() < published.INPAINT:
                published.paint_in(image, published.rectangles_in(32, chance), noise)
            else:
                image = published.paint_out(image, published.rectangles_out(32, chance), noise)
        plain.append((image != 2).mean())
    assert ks_2samp(touched.numpy(), plain).pvalue > 1e-4


# Flips


def test_flips_are_as_frequent_as_in_the_loop():
    ours = genesis.draw_flips(8000, 0.4, generator()).long()
    chance = Random(0)
    drawn = [published.flips(0.4, chance) for _ in range(8000)]
    plain = np.array([[axes.count(0) % 2, axes.count(1) % 2] for axes in drawn])
    both = [np.bincount(np.asarray(flips) @ [2, 1], minlength=4) / 8000 for flips in (ours, plain)]
    # None: no try (0.6), or two on one axis (0.4^2 0.6 / 2). Both: two tries on two axes.
    assert both[0] == pytest.approx([0.648, 0.152, 0.152, 0.048], abs=0.02)
    assert both[0] == pytest.approx(both[1], abs=0.025)


def test_flips_move_rows_and_columns():
    before = slices(4)
    flips = torch.tensor([[False, False], [True, False], [False, True], [True, True]])
    after = genesis.flip(before, flips).numpy()
    for image, was, axes in zip(after[:, 0], before[:, 0].numpy(), ((), 0, 1, (0, 1)), strict=True):
        np.testing.assert_array_equal(image, np.flip(was, axes))


def test_input_and_target_are_flipped_alike():
    before = slices(16)
    draws = draw(16, 64, only(flip_rate=1), generator(1))
    perturbed, target = apply(before, draws)
    assert torch.equal(perturbed, target)
    assert torch.equal(target, genesis.flip(before, draws.flips))
    assert draws.flips.any()
    draws = draw(16, 64, only(flip_rate=0.4, paint_rate=1), generator(1))
    perturbed, target = apply(before, draws)
    kept = perturbed != draws.painting.noise
    assert kept.any()
    assert torch.equal(perturbed[kept], target[kept])


# All of it


def test_the_defaults_are_the_published_rates():
    options = GenesisOptions()
    rates = options.flip_rate, options.local_rate, options.nonlinear_rate, options.paint_rate, options.inpaint_rate
    assert rates == (
        published.FLIP,
        published.LOCAL,
        published.NONLINEAR,
        published.PAINT,
        published.INPAINT,
    )
    assert (options.loss, options.region, options.windows) == ("mse", "image", 700)


@pytest.mark.parametrize("wrong", [{"flip_rate": 1.1}, {"paint_rate": -0.1}, {"windows": 0}, {"windows": 40_000}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        GenesisOptions(**wrong)


def test_operations_follow_one_another_as_published():
    before = slices()
    draws = draw(8, 64, GenesisOptions(), generator(3))
    perturbed, target = apply(before, draws)
    flipped = genesis.flip(before, draws.flips)
    assert torch.equal(target, flipped)
    shuffled = genesis.shuffle(flipped, draws.windows)
    assert torch.equal(perturbed, genesis.paint(genesis.bend(shuffled, draws.curves), draws.painting))
    assert len(draws.windows.chosen) == 4


def test_grey_values_of_the_batch_are_those_of_the_loop():
    # One slice, perturbed many times: the share of pixels in ten bands of grey.
    rows, columns = np.mgrid[:64, :64] / 63
    one = (0.2 + 0.4 * rows * (np.hypot(rows - 0.5, columns - 0.5) < 0.45)).astype(np.float32)
    ours = apply(
        torch.from_numpy(one).expand(200, 1, 64, 64).contiguous(), draw(200, 64, GenesisOptions(), generator(7))
    )[0]
    chance, noise = Random(7), np.random.default_rng(7)
    plain = [published.perturb(one, 100, chance, noise)[0] for _ in range(200)]
    bands = [np.histogram(np.asarray(found), 10, (0, 1))[0] / one.size / 200 for found in (ours, plain)]
    np.testing.assert_allclose(*bands, atol=0.03)


def test_the_seed_decides_and_each_image_has_draws_of_its_own():
    same = slices(1).expand(8, 1, 64, 64).contiguous()
    first, again, other = (apply(same, draw(8, 64, GenesisOptions(), generator(s)))[0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(not torch.equal(first[i], first[j]) for i in range(8) for j in range(i))


def test_half_precision_around_it_changes_nothing():
    before, draws = slices(), draw(8, 64, GenesisOptions(), generator(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = apply(before, draws)
    for one, other in zip(found, apply(before, draws), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_the_method_is_judged_over_whole_slices_and_shows_each_operation():
    method = Method(Setting("resnet18", 64, {}, 0), GenesisOptions()).eval()
    before = slices(3)
    perturbed = method.perturb(before, generator(1))
    assert perturbed.changed.all()
    with torch.no_grad():
        found = method.pictures(before, generator(1))
    assert set(found) == {"restored", "operations"}
    columns, grid = found["operations"].columns, found["operations"].images
    assert grid.shape == (3, len(columns), 64, 64)
    at = {name: grid[:, columns.index(name)] for name in columns}
    assert torch.equal(at["original"], before[:, 0])
    assert all(
        torch.equal(one, was.flip(0)) or torch.equal(one, was.flip(1))
        for one, was in zip(at["flipped"], before[:, 0], strict=True)
    )
    assert all((at[name] != before[:, 0]).flatten(1).any(1).all() for name in ("shuffled", "Bezier curve"))
    assert (at["out-painted"] != before[:, 0]).float().mean() > (at["in-painted"] != before[:, 0]).float().mean()
