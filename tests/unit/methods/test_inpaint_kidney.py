"""The square lies inside a kidney region, or over its middle where it does not fit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.methods.inpaint_kidney import Method, draw_places, places

REGIONS = {"left": (0.375, 0.75, 0.125, 0.4375), "right": (0.375, 0.75, 0.5625, 0.90625)}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("size", "side"), [(64, 13), (96, 19)])
def test_each_image_has_one_black_square_of_a_fifth_of_its_side_inside_a_region(size, side):
    method = Method(Setting("resnet18", size, REGIONS, 0), Method.Parameters())
    images = torch.rand(64, 1, size, size, generator=generator()).clamp_min(0.01)
    found, target, hole = method.perturb(images, generator(1))
    assert torch.equal(target, images)
    assert torch.equal(found == 0, hole)
    assert torch.equal(found[~hole], images[~hole])
    tops, sides = set(), []
    for marked in hole[:, 0].numpy():
        rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
        assert marked.sum() == side**2
        assert len(rows) == len(columns) == side
        inside = [
            top * size <= rows[0]
            and rows[-1] < bottom * size
            and left * size <= columns[0]
            and columns[-1] < right * size
            for top, bottom, left, right in REGIONS.values()
        ]
        assert sum(inside) == 1
        sides.append(inside.index(True))
        tops.add(rows[0])
    assert 16 < sum(sides) < 48  # both regions alike
    assert len(tops) > 5


@given(edges=st.tuples(st.integers(0, 63), st.integers(1, 64)).filter(lambda pair: pair[0] < pair[1]))
def test_a_square_lies_inside_the_region_or_is_centred_over_it(edges):
    start, stop = edges
    first, number = places(start, stop, 13, 64)
    last = first + number - 1
    assert 0 <= first <= last <= 64 - 13
    if stop - start >= 13:
        assert (first, last + 13) == (start, stop)
    else:
        assert number == 1
        beside = abs((start + stop) / 2 - (first + 13 / 2))
        assert beside <= 0.5 or first in (0, 64 - 13)
        assert first <= start < stop <= first + 13


def test_every_place_of_both_regions_is_drawn_and_alike_often():
    boxes = [(0, 6, 1, 5), (3, 7, 6, 9)]  # three rows of one column; a row in the middle of a region too narrow
    found = torch.stack(draw_places(30_000, boxes, 4, 12, generator()), 1)
    left, right = found[found[:, 1] < 5], found[found[:, 1] >= 5]
    assert abs(len(left) - 15_000) < 300
    assert right.unique(dim=0).tolist() == [[3, 5]]
    values, counts = left.unique(dim=0, return_counts=True)
    assert values.tolist() == [[0, 1], [1, 1], [2, 1]]
    assert (counts - len(left) / 3).abs().max() < 250


@pytest.mark.parametrize("content", ["zero", "mean", "noise"])
def test_regions_smaller_than_the_square_and_at_the_rim_still_get_a_whole_square(content):
    regions = {"left": (0.0, 0.0625, 0.0, 0.0625), "right": (0.9375, 1.0, 0.46875, 0.53125)}
    method = Method(Setting("resnet18", 64, regions, 0), Method.Parameters(fill=content))
    images = torch.rand(32, 1, 64, 64, generator=generator())
    found, _, hole = method.perturb(images, generator(1))
    expected = torch.zeros(2, 64, 64, dtype=torch.bool)
    expected[0, :13, :13] = True
    expected[1, -13:, 25:38] = True
    seen = {next(place for place in (0, 1) if torch.equal(marked[0], expected[place])) for marked in hole}
    assert seen == {0, 1}
    assert torch.equal(found[~hole], images[~hole])


def test_the_thesis_is_the_default_and_wrong_options_are_named():
    assert Method.Parameters().model_dump() == {"loss": "dice", "region": "image", "fill": "zero"}
    with pytest.raises(InputError, match=r"^params.yaml: options.region: .*; options.side: "):
        read_options(Method, {"region": "kidney", "side": 0.2}, "options")


def test_of_a_single_organ_the_square_lies_in_its_one_region():
    top, bottom, left, right = 0.25, 0.75, 0.125, 0.6875
    method = Method(Setting("resnet18", 64, {"organ": (top, bottom, left, right)}, 0), Method.Parameters())
    hole = method.perturb(torch.rand(256, 1, 64, 64, generator=generator()), generator(1)).changed[:, 0]
    within = torch.zeros(64, 64, dtype=torch.bool)
    within[round(top * 64) : round(bottom * 64), round(left * 64) : round(right * 64)] = True
    assert not (hole & ~within).any()
    assert hole[:, :, 32:].any()
    assert hole[:, :, :32].any()
    assert torch.equal(hole.any(0), within)  # and reaches all of it
