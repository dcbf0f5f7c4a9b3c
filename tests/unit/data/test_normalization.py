"""The window and the scaling against NumPy and the equations as printed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kidney_ssl.data.normalization import find_window, normalise, normalise_store, tumor_statistics
from kidney_ssl.errors import InputError


def histogram(values: np.ndarray) -> pd.DataFrame:
    hu, count = np.unique(values, return_counts=True)
    return pd.DataFrame({"case": "case_1", "hu": hu, "count": count})


@given(hnp.arrays(np.int16, st.integers(2, 200), elements=st.integers(-200, 300)))
def test_statistics_are_those_of_the_pixels(values: np.ndarray) -> None:
    low, high = np.percentile(values, [0.5, 99.5])
    if low == high:
        with pytest.raises(InputError, match=r"normalize\.window"):
            tumor_statistics(histogram(values))
        return
    found = tumor_statistics(histogram(values))
    assert (found["p0_5"], found["p99_5"]) == (pytest.approx(low), pytest.approx(high))
    assert found["n"] == values.size
    assert found["mean"] == pytest.approx(values.mean(), abs=1e-5)
    assert found["std"] == pytest.approx(values.std(), abs=1e-5)


def test_scaling_equals_clip_standardise_min_max() -> None:
    """Eq. 3-4 step by step: clip, standardise, then min-max with the clip bounds as minimum and maximum."""
    images = np.random.default_rng(0).integers(-1000, 1000, (3, 8, 8)).astype(np.int16)
    low, high, mean, std = -31.0, 214.0, 87.3, 41.9
    clipped = np.clip(images.astype(np.float64), low, high)
    standard, least, most = (clipped - mean) / std, (low - mean) / std, (high - mean) / std
    expected = (standard - least) / (most - least)
    assert np.allclose(normalise(images, (low, high), "window"), expected, atol=5e-4)  # float16


def test_range_image_uses_each_images_own_bounds() -> None:
    images = np.array([[[0, 50], [100, 500]], [[10, 10], [10, 10]]], np.int16)
    scaled = normalise(images, (0.0, 200.0), "image")
    assert np.allclose(scaled[0], [[0, 0.25], [0.5, 1]], atol=1e-3)
    assert not scaled[1].any()


def test_a_fixed_window_looks_at_no_label() -> None:
    empty = pd.DataFrame({"case": [], "hu": [], "count": []})
    assert find_window(empty, (-150.0, 250.0))[0] == (-150.0, 250.0)
    with pytest.raises(InputError, match="no tumor pixel"):
        find_window(empty, None)


def write_store(folder: Path, cases: list[str]) -> None:
    """Arrays of one slice a split, and tumor pixels of `cases`; case_1 is the one training case."""
    folder.mkdir()
    for split, case in (("train", "case_1"), ("validation", "case_2"), ("test", "case_3"), ("pool", "case_1")):
        np.save(folder / f"{split}_images.npy", np.full((1, 4, 4), 50, np.int16))
        pd.DataFrame({"case": [case]}).to_csv(folder / f"{split}.csv", index=False)
    values = pd.concat([histogram(np.arange(100)).assign(case=case) for case in cases])
    values.to_csv(folder / "tumor_hu.csv", index=False)


def test_the_window_is_found_on_training_cases_and_a_test_case_among_them_is_refused(tmp_path: Path) -> None:
    for name, cases in (("good", ["case_1"]), ("leak", ["case_1", "case_3"])):
        write_store(tmp_path / name, cases)
    options = {"others": {"pool": (tmp_path / "good", tmp_path / "pool")}, "fixed": None, "mode": "window"}
    figures = normalise_store(tmp_path / "good", tmp_path / "out", **options)
    assert figures["window"] == pytest.approx(np.percentile(np.arange(100), [0.5, 99.5]).tolist())
    assert (tmp_path / "pool" / "pool_images.npy").exists()
    with pytest.raises(InputError, match="case_3 is no training case"):
        normalise_store(tmp_path / "leak", tmp_path / "out", **options)
