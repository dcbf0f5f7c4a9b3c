"""Boxes: their pixels, where one is free to lie, fair draws; against plain loops."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kidney_ssl.augmentations.places import box_corners, draw_corner, free_corners
from kidney_ssl.methods.boxes import below, boxes_at, pixels_of
from tests.unit.augmentations.toy_training import generator

SIZE = 12


@st.composite
def boxes(draw):
    top, left = draw(st.integers(0, SIZE - 1)), draw(st.integers(0, SIZE - 1))
    return top, draw(st.integers(top, SIZE)), left, draw(st.integers(left, SIZE))


def plain(box):
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[box[0] : box[1], box[2] : box[3]] = True
    return mask


@given(st.lists(st.lists(boxes(), min_size=2, max_size=2), min_size=1, max_size=3))
def test_the_pixels_of_boxes_are_theirs(given_boxes):
    found = pixels_of(torch.tensor(given_boxes), SIZE)
    for mask, (one, other) in zip(found[:, 0], given_boxes, strict=True):
        assert torch.equal(mask, plain(one) | plain(other))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.2), st.integers(1, SIZE))
def test_a_corner_is_free_where_the_square_from_it_holds_no_marked_pixel(seed, share, side):
    mask = torch.rand(2, 1, SIZE, SIZE, generator=generator(seed)) < share
    found = free_corners(mask, side)
    assert found.shape == (2, SIZE - side + 1, SIZE - side + 1)
    for image in range(2):
        for top in range(SIZE - side + 1):
            for left in range(SIZE - side + 1):
                touched = mask[image, 0, top : top + side, left : left + side].any()
                assert found[image, top, left] == ~touched


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.lists(boxes(), min_size=1, max_size=2),
    st.lists(boxes(), min_size=1, max_size=2),
)
def test_a_box_lies_in_one_region_and_beside_the_others(length, regions, others):
    others = [box if box[0] < box[1] and box[2] < box[3] else (0, 0, 0, 0) for box in others]
    found = box_corners(torch.tensor([length]), torch.tensor(regions), torch.tensor([others]), SIZE)
    for top in range(SIZE):
        for left in range(SIZE):
            past = top + length[0], left + length[1]
            inside = any(a <= top and past[0] <= b and c <= left and past[1] <= d for a, b, c, d in regions)
            box = torch.zeros(SIZE + 6, SIZE + 6, dtype=torch.bool)
            box[top : past[0], left : past[1]] = True
            beside = not any((box[:SIZE, :SIZE] & plain(other)).any() for other in others)
            assert found[0, top, left] == (inside and beside)


def test_each_free_place_is_drawn_alike_often_and_no_other():
    free = torch.zeros(30_000, 5, 7, dtype=torch.bool)
    places = [[0, 6], [2, 0], [2, 3], [4, 6]]
    for row, column in places:
        free[:, row, column] = True
    corners, found = draw_corner(free, generator())
    assert found.all()
    values, counts = corners.unique(dim=0, return_counts=True)
    assert values.tolist() == places
    assert (counts - 7500).abs().max() < 4 * (30_000 * 0.25 * 0.75) ** 0.5


def test_without_a_free_place_there_is_none():
    free = torch.zeros(2, 4, 4, dtype=torch.bool)
    free[1, 3, 3] = True
    corners, found = draw_corner(free, generator())
    assert corners.tolist() == [[0, 0], [3, 3]]
    assert found.tolist() == [False, True]


def test_whole_numbers_below_a_count_are_drawn_alike_often():
    found = below(torch.full((30_000,), 3), generator())
    assert (found.bincount(minlength=3) - 10_000).abs().max() < 4 * (30_000 * 2 / 9) ** 0.5
    assert below(torch.zeros(4, dtype=torch.int64), generator()).tolist() == [0] * 4


def test_a_box_from_its_corner_is_half_open():
    corner, length = torch.tensor([[1, 2]]), torch.tensor([[3, 4]])
    assert boxes_at(corner, length).tolist() == [[1, 4, 2, 6]]
    assert boxes_at(corner, 5).tolist() == [[1, 6, 2, 7]]
