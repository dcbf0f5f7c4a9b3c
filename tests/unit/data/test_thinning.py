"""Thinning against a plain algorithm on exact distances and numpy's correlation."""

from fractions import Fraction
from itertools import combinations, pairwise
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from kidney_ssl.data import arrays
from kidney_ssl.data.thinning import ChosenRows, kept_rows
from kidney_ssl.engine.device_array import DeviceArray

SPACINGS = [Fraction(1, 2), Fraction(7, 10), Fraction(1), Fraction(5, 4), Fraction(5, 3), Fraction(10, 3), Fraction(5)]


@st.composite
def tables(draw):
    """Slices of some cases with gaps, and their exact places in mm."""
    rows = []
    for number in range(draw(st.integers(1, 4))):
        spacing = draw(st.sampled_from(SPACINGS))
        slices = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=25)))
        rows += [(f"case_{number}", one, round(float(spacing), 6), one * spacing) for one in slices]
    return pd.DataFrame(rows, columns=["case", "slice", "thickness_mm", "exact"])


def reference(cases, apart, least):
    """Rows of the first slice of each case, and of each that is `least` apart from the last one kept."""
    kept = []
    for case in dict.fromkeys(cases):
        rows = [row for row, one in enumerate(cases) if one == case]
        last = rows[0]
        kept.append(last)
        for row in rows[1:]:
            if apart(last, row) >= least:
                kept.append(row)
                last = row
    return kept


@given(tables(), st.sampled_from([1, 2, 5, 7, 10]))
def test_slices_stay_at_least_so_many_mm_apart_and_what_is_removed_lies_nearer_to_a_kept_one(frame, least):
    places, cases = frame.pop("exact"), frame["case"].tolist()
    kept = kept_rows(frame, {"mm": float(least)}, None)
    assert kept.dtype == np.int64
    assert kept.tolist() == reference(cases, lambda a, b: abs(places[a] - places[b]), least)
    assert list(kept) == sorted(set(kept))
    for case, rows in frame.groupby("case").groups.items():
        of_case = [row for row in kept if cases[row] == case]
        assert of_case[0] == rows[0]
        assert all(abs(places[a] - places[b]) >= least for a, b in combinations(of_case, 2))
        assert all(any(abs(places[row] - places[other]) < least for other in of_case) for row in set(rows) - {*of_case})


def unlike(images):
    """The dissimilarity of two slices by their rows, with numpy's correlation."""

    def apart(one, other):
        pair = images[[one, other]].reshape(2, -1).astype(np.float64)
        flat = [len(set(row)) == 1 for row in pair.tolist()]
        return float(sum(flat) == 1) if any(flat) else 1 - np.corrcoef(pair)[0, 1]

    return apart


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("thin")


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([0.001, 0.05, 0.3, 0.9]), st.integers(1, 3000))
def test_slices_stay_at_least_so_unlike_the_last_one_kept(folder, seed, count, least, piece):
    generator = np.random.default_rng(seed)
    images = np.empty((count, 6, 6), np.float16)
    images[0] = generator.random((6, 6))
    for row in range(1, count):  # a walk with copies and slices of one value
        step = generator.choice([0, 0.02, 0.2, 1])
        images[row] = (1 - step) * images[row - 1] + step * generator.random((6, 6))
        if generator.random() < 0.1:
            images[row] = generator.random()
    cases = [f"case_{number}" for number in sorted(generator.integers(0, 3, count))]
    apart = unlike(images)
    assume(all(abs(apart(a, b) - least) > 1e-9 for a, b in combinations(range(count), 2)))
    np.save(folder / "images.npy", images)
    with patch.object(arrays, "PIECE_BYTES", piece):
        kept = kept_rows(pd.DataFrame({"case": cases}), {"dissimilarity": least}, folder / "images.npy").tolist()
    assert kept == reference(cases, apart, least)
    assert [cases[row] for row in kept if row == cases.index(cases[row])] == sorted(set(cases))
    assert all(cases[a] != cases[b] or apart(a, b) >= least for a, b in pairwise(kept))
    for row in set(range(count)) - set(kept):
        before = max(one for one in kept if one < row)
        assert cases[before] == cases[row]
        assert apart(before, row) < least


@pytest.mark.parametrize("resident", ["always", "never"])
def test_chosen_rows_are_held_and_read_as_an_array_of_them(resident):
    array = np.random.default_rng(0).random((600, 4, 4)).astype(np.float16)
    rows = np.arange(1, 600, 2)
    chosen = ChosenRows(array, rows)
    assert (chosen.shape, chosen.dtype, chosen.nbytes, len(chosen)) == ((300, 4, 4), "float16", 300 * 32, 300)
    wanted = torch.tensor([299, 0, 7, 7])
    found = DeviceArray(chosen, torch.device("cpu"), resident)(wanted)
    np.testing.assert_array_equal(found.numpy(), array[rows][wanted.numpy()])
