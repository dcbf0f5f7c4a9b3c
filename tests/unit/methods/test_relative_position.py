"""Relative position: where the patches lie, what is rejected, and that the query head teaches the encoder nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.patches import air_share
from kidney_ssl.methods.relative_position import Geometry, Method, RelativePositionOptions, draw_pairs, geometry

NAMED = {
    "above left": 0,
    "above": 1,
    "above right": 2,
    "left": 3,
    "right": 4,
    "below left": 5,
    "below": 6,
    "below right": 7,
}


def drawn(images, sizes, air=1.0, seed=0):
    return draw_pairs(images, sizes, air, torch.Generator().manual_seed(seed))


def method(size=64, seed=0, **options):
    return Method(Setting("resnet18", size, {}, seed), RelativePositionOptions(**options))


# By hand: 96 / 6 = 16, half of it 8, a tenth 1.6; 64 / 6 = 10.7, 5.5 to even, 1.1; 512 / 6 = 85.3, 42.5 to even, 8.5.
@pytest.mark.parametrize(
    ("size", "sizes"), [(96, (16, 8, 2, 96)), (64, (11, 6, 1, 64)), (512, (85, 42, 8, 512)), (32, (5, 2, 0, 32))]
)
def test_the_default_sizes_are_those_computed_by_hand(size, sizes):
    assert geometry(size, RelativePositionOptions()) == sizes


def test_a_block_larger_than_the_slice_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"16, 8 and 2 pixels need 68 of the slice's 64") as error:
        geometry(64, RelativePositionOptions(patch=0.25))
    assert "\n" not in str(error.value)


def test_a_block_that_just_fits_is_taken():
    assert geometry(64, RelativePositionOptions(patch=0.25, jitter=0.0)) == (16, 8, 0, 64)


def test_a_jitter_that_lets_patches_overlap_is_refused():
    with pytest.raises(InputError, match="overlap"):
        geometry(96, RelativePositionOptions(gap=0.1, jitter=0.1))


@given(
    side=st.integers(2, 12),
    gap=st.integers(0, 8),
    jitter=st.integers(0, 4),
    room=st.integers(0, 30),
    seed=st.integers(0, 999),
)
def test_the_query_lies_where_its_number_says(side, gap, jitter, room, seed):
    jitter = min(jitter, gap // 2)
    sizes = Geometry(side, gap, jitter, 3 * side + 2 * gap + 2 * jitter + room)
    pairs = drawn(torch.ones(64, 1, sizes.size, sizes.size), sizes, seed=seed)
    for starts in (pairs.top, pairs.left):
        assert int(starts.min()) >= 0
        assert int(starts.max()) <= sizes.size - side
    for number, (top, left) in enumerate(zip(pairs.top.tolist(), pairs.left.tolist(), strict=True)):
        name = next(name for name, value in NAMED.items() if value == int(pairs.neighbour[number]))
        down = (side + gap) * (("below" in name) - ("above" in name))
        right = (side + gap) * (("right" in name) - ("left" in name))
        # Each of the two patches may have moved.
        assert abs(top[1] - top[0] - down) <= 2 * jitter
        assert abs(left[1] - left[0] - right) <= 2 * jitter
        # What lies between the patches: at least the gap without both patches' jitter, so never an overlap.
        between = max(abs(query - anchor) - side for anchor, query in (top, left))
        assert gap - 2 * jitter <= between <= gap + 2 * jitter


def test_jitter_moves_both_patches_by_every_step_up_to_its_bound():
    sizes = Geometry(side=10, gap=6, jitter=2, size=64)
    pairs = drawn(torch.ones(4000, 1, 64, 64), sizes)
    level = pairs.neighbour == NAMED["right"]
    assert (pairs.top[level, 1] - pairs.top[level, 0]).unique().tolist() == [-4, -3, -2, -1, 0, 1, 2, 3, 4]
    assert (pairs.left[level, 1] - pairs.left[level, 0]).unique().tolist() == list(range(12, 21))
    still = drawn(torch.ones(500, 1, 64, 64), sizes._replace(jitter=0))
    assert (still.left[:, 1] - still.left[:, 0]).unique().tolist() == [-16, 0, 16]


def test_places_reach_every_edge_of_the_slice():
    sizes = geometry(64, RelativePositionOptions())
    pairs = drawn(torch.ones(8000, 1, 64, 64), sizes)
    for starts in (pairs.top, pairs.left):
        assert starts.amin(0).tolist() == [0, 0]
        assert starts.amax(0).tolist() == [64 - 11, 64 - 11]
    assert len(pairs.top[:, 0].unique()) == 64 - 11 + 1  # and every place between


@pytest.mark.parametrize("body", [slice(0, 64), slice(14, 50)])
def test_neighbours_are_equally_frequent_with_and_without_air(body):
    images = torch.zeros(8000, 1, 64, 64)
    images[:, :, body, 8:] = 0.5
    counts = drawn(images, geometry(64, RelativePositionOptions()), air=0.5).neighbour.bincount()
    assert len(counts) == 8
    assert (counts - 1000).abs().max() < 5 * math.sqrt(8000 * (1 / 8) * (7 / 8))  # five standard deviations


@pytest.mark.parametrize("air", [0.25, 0.5, 0.75])
def test_patches_with_more_air_than_allowed_are_rejected(air):
    images = torch.zeros(300, 1, 64, 64)
    images[:, :, 10:54, 4:60] = 0.5
    sizes = geometry(64, RelativePositionOptions())

    def worst(allowed):
        pairs = drawn(images, sizes, allowed)
        return torch.stack(
            [
                (images[image, 0, top : top + sizes.side, left : left + sizes.side] == 0).float().mean()
                for image in range(len(images))
                for top, left in zip(pairs.top[image].tolist(), pairs.left[image].tolist(), strict=True)
            ]
        )

    assert (worst(air) <= air).all()
    assert worst(1.0).max() > air  # there was something to reject


def test_the_candidate_with_the_least_air_is_taken_if_none_is_good():
    images = torch.zeros(200, 1, 64, 64)
    images[:, :, ::3] = 0.5  # two thirds of every patch are air, give or take a row
    images[:, :, 20:44, 20:44] = 0.5
    sizes = Geometry(side=10, gap=5, jitter=1, size=64)
    share = [
        air_share(images, pairs.top, pairs.left, sizes.side).amax(1).mean()
        for pairs in (drawn(images, sizes, 0.0), drawn(images, sizes, 1.0))
    ]
    assert share[0] < share[1] - 0.1
    nothing = drawn(torch.zeros(20, 1, 64, 64), sizes, 0.0)
    assert nothing.top.shape == (20, 2)


def test_the_encoder_sees_the_anchors_and_then_the_queries():
    images = torch.arange(6 * 64 * 64, dtype=torch.float32).view(6, 1, 64, 64) + 1
    model, seen = method(), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.step(images, torch.Generator().manual_seed(3))
    pairs = drawn(images, model.sizes, model.air, seed=3)
    side, first = model.sizes.side, seen[0][:, 0, 0, 0].long() - 1
    assert seen[0].shape == (12, 1, side, side)
    assert torch.equal(first // 4096, torch.arange(6).repeat(2))
    assert torch.equal(first % 4096 // 64, pairs.top.T.flatten())
    assert torch.equal(first % 64, pairs.left.T.flatten())


def test_the_query_head_does_not_reach_encoder_or_fusion():
    images = torch.rand(4, 1, 64, 64)
    gradients = []
    for scale in (1.0, 30.0):
        model = method()
        with torch.no_grad():
            for value in model.query_head.parameters():
                value.mul_(scale)
        loss, _ = model.step(images, torch.Generator().manual_seed(0))
        loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters()})
        assert all(value.grad.abs().sum() > 0 for value in model.query_head.parameters())
    apart = {name for name in gradients[0] if not torch.equal(gradients[0][name], gradients[1][name])}
    assert apart
    assert all(name.startswith("query_head.") for name in apart)


def test_the_query_head_sees_the_query_alone():
    model = method().eval()
    images = torch.rand(4, 1, 64, 64)
    pairs = drawn(images, model.sizes)
    both, alone = model._judged(images, pairs)
    for image in range(4):
        top, left = int(pairs.top[image, 0]), int(pairs.left[image, 0])
        images[image, :, top : top + model.sizes.side, left : left + model.sizes.side] = 0.9
    changed, unchanged = model._judged(images, pairs)
    assert torch.equal(alone, unchanged)
    assert (both - changed).abs().amax(1).min() > 1e-4


def test_the_loss_is_that_of_the_task_alone():
    model = method()
    with torch.no_grad():
        for value in model.head.parameters():
            value.zero_()
    images = torch.rand(5, 1, 64, 64)
    loss, _ = model.step(images, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(math.log(8))
    with torch.no_grad():
        model.head[-1].bias[NAMED["below"]] = 50.0  # always says below
        found = model.eval().validate(images, torch.Generator().manual_seed(0))
    pairs = drawn(images.repeat_interleave(4, 0), model.sizes, model.air)
    right = (pairs.neighbour == NAMED["below"]).view(5, 4).float().mean(1)
    assert torch.equal(found["accuracy"], right)
    assert torch.allclose(found["loss"], (1 - right) * 50.0)
    assert found["accuracy_chance"].tolist() == [0.125] * 5
