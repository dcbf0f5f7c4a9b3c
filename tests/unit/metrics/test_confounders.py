"""The confounder table: medians by class and part, and standardised mean differences, against plain formulas."""

from statistics import median, quantiles

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.metrics.confounders import CYST, describe, imbalance, shares, standardised


def rows():
    return pd.DataFrame(
        {
            "case": ["a", "a", "b", "b", "c", "c"],
            "class": ["tumor", "kidney", "tumor", "background", "tumor", "kidney"],
            "thickness_mm": [1.0, 2.0, 3.0, 4.0, 5.0, 9.0],
            "spacing_mm": [0.5] * 6,
            "body_mm2": [40_000.0, 41_000.0, 42_000.0, 43_000.0, 44_000.0, 45_000.0],
            "tumor_mm2": [100.0, 0.0, 300.0, 0.0, 500.0, 0.0],
            "cyst_px": [0, 3, 0, 0, 7, 1],
            "block": ["x", "x", "y", "y", "y", "y"],
        }
    )


def test_a_measure_is_told_by_its_median_and_quartiles():
    found = describe(rows())
    one = found["slice distance, mm"]
    low, middle, high = quantiles([1, 2, 3, 4, 5, 9], n=4, method="inclusive")
    assert (one.value, one.low, one.high) == (middle, low, high)
    assert found["body area, cm²"].value == median([400, 410, 420, 430, 440, 450])
    assert "position, 0 top to 1" not in found  # the rows have none


def test_the_difference_of_means_is_in_pooled_deviations():
    first, second = np.array([1.0, 3.0, 5.0]), np.array([2.0, 9.0])
    plain = (3 - 5.5) / np.sqrt((4 + 24.5) / 2)
    assert standardised(first, second, share=False).value == pytest.approx(plain)
    assert imbalance({"test": rows()})["slice distance, mm"]["test", "kidney"].value == pytest.approx(plain)


def test_a_share_has_its_own_variance():
    plain = (1 / 3 - 1) / np.sqrt((1 / 3 * 2 / 3 + 0) / 2)
    assert imbalance({"test": rows()})[CYST]["test", "kidney"].value == pytest.approx(plain)
    plain = (1 / 3 - 2 / 3) / np.sqrt(2 / 9)
    assert imbalance({"test": rows()})[CYST]["test", "all others"].value == pytest.approx(plain)


def test_blocks_are_shares_where_there_are_several_and_the_tumors_area_is_no_confounder():
    found = imbalance({"test": rows()})
    assert {"block x", "block y"} <= set(found)
    assert "tumor area, cm²" not in found
    assert set(shares(rows().assign(block="x"))) == {CYST}


@pytest.mark.parametrize(
    ("first", "second", "share", "expected"),
    [
        ([], [1.0, 2.0], False, None),
        ([1.0], [1.0, 2.0], False, None),
        ([2.0, 2.0], [2.0, 2.0], False, 0.0),
        ([2.0, 2.0], [3.0, 3.0], False, None),
        ([], [1.0], True, None),
        ([1.0], [1.0], True, 0.0),
        ([1.0], [0.0], True, None),
    ],
)
def test_what_has_no_meaning_is_none_and_what_is_equal_is_0(first, second, share, expected):
    found = standardised(np.array(first), np.array(second), share=share)
    assert found.value == expected
    assert (found.reason is None) == (expected is not None)


GROUP = st.lists(st.floats(-100, 100), min_size=2, max_size=8).map(np.array)


@given(GROUP, GROUP, st.floats(0.5, 10), st.floats(-50, 50))
def test_the_difference_turns_with_the_groups_and_knows_no_unit(first, second, factor, shift):
    one, turned = (standardised(*pair, share=False).value for pair in ((first, second), (second, first)))
    if one is not None and abs(one) < 1e3:
        assert turned == pytest.approx(-one)
        assert standardised(factor * first + shift, factor * second + shift, share=False).value == pytest.approx(
            one, rel=1e-3, abs=1e-3
        )
