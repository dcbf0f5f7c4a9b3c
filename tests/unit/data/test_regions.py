"""The smallest rectangles and what they hold."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kidney_ssl.data.regions import coverage, find_regions, inside, smallest_rectangle


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 5)),
    st.floats(0.05, 1.0),
)
def test_smallest_rectangle_is_the_smallest_of_all(density: np.ndarray, share: float) -> None:
    if not density.any():
        return
    top, bottom, left, right = smallest_rectangle(density, share)
    wanted = share * density.sum() - 1e-6
    assert density[top:bottom, left:right].sum() >= wanted
    height, width = density.shape
    areas = [
        (b - t) * (r - le)
        for t in range(height)
        for b in range(t + 1, height + 1)
        for le in range(width)
        for r in range(le + 1, width + 1)
        if density[t:b, le:r].sum() >= wanted
    ]
    assert (bottom - top) * (right - left) == min(areas)


def test_a_single_organ_has_one_region_that_may_cross_the_middle() -> None:
    density = np.zeros((20, 20), np.int64)
    density[4:12, 1:14] = 5
    assert find_regions(density, 1.0, paired=False) == {"organ": (0.2, 0.6, 0.05, 0.7)}
    assert find_regions(np.zeros((20, 20), np.int64), 1.0, paired=False) == {"organ": (0.0, 1.0, 0.0, 1.0)}


def test_regions_hold_the_share_on_each_side() -> None:
    masks = np.zeros((1, 20, 20), np.uint8)
    masks[0, 5:10, 2:6] = 1
    masks[0, 8:12, 13:18] = 2
    regions = find_regions(np.count_nonzero(masks, axis=0), 1.0)
    assert regions == {"left": (0.25, 0.5, 0.1, 0.3), "right": (0.4, 0.6, 0.65, 0.9)}
    assert np.array_equal(inside(regions, 20), masks[0] > 0)


def test_coverage_counts_pixels_and_positive_slices_by_hand() -> None:
    regions = {"left": (0.0, 0.5, 0.0, 0.5), "right": (0.0, 0.5, 0.5, 1.0)}  # the upper half of a 4 x 4 frame
    masks = np.zeros((4, 4, 4), np.uint8)
    masks[0, 0, :2] = 1  # kidney inside
    masks[0, 3, 0] = 1  # kidney outside
    masks[1, 1, 1] = 2  # tumor inside
    masks[2, 3, 3] = 2  # tumor outside
    masks[3, 1:3, 0] = 2  # tumor half in, half out
    found = coverage([masks[:2], masks[2:]], np.array([0, 1, 1, 1]), regions)
    assert found == {
        "kidney": 0.666667,
        "tumor": 0.5,
        "positive_slices_outside": 0.333333,
        "positive_slices_partly_outside": 0.666667,
    }


def test_a_share_of_nothing_is_none() -> None:
    found = coverage([np.zeros((1, 4, 4), np.uint8)], np.array([0]), {"left": (0, 1, 0, 0.5), "right": (0, 1, 0.5, 1)})
    assert set(found.values()) == {None}
