"""Classes, split and balance of slices; the sums of KiTS23's real labels."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.data.selection import assert_no_shared_case, classify, draw_balanced, select, slice_rows, split_cases
from kidney_ssl.errors import InputError

SHARED = Path(__file__).parents[3].parent / "shared" / "kits23"


def make_slices(cases: int = 12, per_case: int = 20, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frames = []
    for number in range(cases):
        areas = np.zeros((per_case, 4), int)
        areas[5:15, 1] = 300
        areas[8 : 8 + generator.integers(0, 6), 2] = 100
        areas[13, 3] = 50
        frames.append(slice_rows(f"case_{number:05d}", areas, (5.0, 0.8, 0.8), "other"))
    return pd.concat(frames, ignore_index=True)


def choose(slices: pd.DataFrame, **changes: int) -> tuple[pd.DataFrame, dict]:
    options = {"min_tumor_px": 100, "folds": 5, "fold": 0, "split_seed": 0, "draw_seed": 0} | changes
    chosen, cases, figures = select(slices, validation=0.1, **options)
    # The file of all cases says what the rows of each say.
    assert cases["case"].tolist() == sorted(set(slices["case"]))
    assert chosen["split"].tolist() == chosen["case"].map(cases.set_index("case")["split"]).tolist()
    return chosen, figures


def test_classes_follow_the_definition() -> None:
    slices = pd.DataFrame(
        {
            "tumor_px": [1000, 999, 1, 0, 0, 0, 1000],
            "kidney_px": [0, 50, 0, 1, 0, 0, 9],
            "cyst_px": [0, 0, 0, 9, 9, 0, 9],
        }
    )
    expected = ["tumor", "", "", "kidney", "background", "background", "tumor"]
    assert classify(slices, 1000).tolist() == expected


def test_areas_in_mm2_use_both_spacings() -> None:
    areas = np.array([[90, 4, 2, 1]])
    row = slice_rows("case_1", areas, (3.0, 0.5, 0.8), "other").iloc[0]
    assert (row["kidney_mm2"], row["tumor_mm2"], row["cyst_mm2"]) == pytest.approx((1.6, 0.8, 0.4))
    assert row["spacing_mm"] ** 2 * row["kidney_px"] == pytest.approx(1.6, rel=1e-5)


@given(
    st.lists(st.sampled_from("abcd"), min_size=3, max_size=80),
    st.integers(2, 6),
    st.floats(0.05, 0.5),
    st.integers(0, 5),
)
def test_every_case_is_in_one_part_and_each_fold_holds_its_share_of_each_stratum(
    strata: list[str], folds: int, validation: float, seed: int
) -> None:
    frame = pd.Series(strata, index=[f"case_{n:05d}" for n in range(len(strata))])
    if len(strata) < max(folds, 3):
        with pytest.raises(InputError, match=r"data\.folds"):
            split_cases(frame, folds=folds, fold=0, validation=validation, seed=seed)
        return
    tested: list[str] = []
    for fold in range(folds):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            split = split_cases(frame, folds=folds, fold=fold, validation=validation, seed=seed)
        assert list(split) == sorted(frame.index)
        part = pd.Series(split)
        test = part.index[part == "test"]
        tested += list(test)
        rest = len(frame) - len(test)
        assert (part == "validation").sum() == max(1, round(validation * rest))
        assert abs(len(test) - len(frame) / folds) < 1
        counts = frame.value_counts()
        for stratum in counts.index[counts >= 2]:
            assert abs((frame[test] == stratum).sum() - counts[stratum] / folds) < 1 + 1e-9
    assert sorted(tested) == sorted(frame.index)


def test_single_case_strata_are_merged_with_a_warning() -> None:
    strata = pd.Series(["a"] * 8 + ["b", "c"], index=[f"case_{n}" for n in range(10)])
    with pytest.warns(UserWarning, match="merged for the split: b, c"):
        split_cases(strata, folds=5, fold=0, validation=0.1, seed=0)


def test_balance_is_drawn_in_training_and_in_test_part() -> None:
    slices = make_slices(30)
    chosen, _ = choose(slices)
    tumor = slices[slices["tumor_px"] >= 100]
    assert (chosen["label"] == 1).sum() == len(tumor)
    for part in (chosen[chosen["split"] == "test"], chosen[chosen["split"] != "test"]):
        counts = part["class"].value_counts()
        assert counts["kidney"] == counts["background"] == counts["tumor"] // 2
    for _, part in chosen.groupby("split"):
        counts = part["class"].value_counts()
        assert counts["kidney"] == counts["background"]
        assert abs(counts["kidney"] - counts["tumor"] / 2) <= 1
    assert not chosen.duplicated(["case", "slice"]).any()


def test_draw_ignores_the_order_of_rows() -> None:
    slices = make_slices()
    candidates = slices.assign(**{"class": classify(slices, 100)})
    candidates = candidates[candidates["class"] != ""]
    shuffled = candidates.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(draw_balanced(candidates, 3, 9), draw_balanced(shuffled, 3, 9))
    assert not draw_balanced(candidates, 3, 9).equals(draw_balanced(candidates, 4, 9))


def test_a_class_that_falls_short_is_kept_whole_with_the_real_ratio() -> None:
    slices = make_slices()
    slices.loc[slices["kidney_px"] == 0, "tumor_px"] = 1  # no background left
    with pytest.warns(UserWarning, match="0 background slices for the"):
        chosen, figures = choose(slices)
    assert (chosen["class"] != "background").all()
    assert figures["ratio"]["train"]["background"] == 0
    assert figures["ratio"]["train"]["tumor"] == pytest.approx(2 / 3, abs=0.02)


@given(scans=st.lists(st.integers(1, 4), min_size=6, max_size=14), fold=st.integers(0, 2), seed=st.integers(0, 9))
def test_all_cases_of_a_patient_are_in_one_split(scans: list[int], fold: int, seed: int) -> None:
    owners = [f"p{number}" for number, count in enumerate(scans) for _ in range(count)]
    slices = make_slices(len(owners))
    patients = dict(zip(sorted(set(slices["case"])), owners, strict=True))
    slices["patient"] = slices["case"].map(patients)
    options = {"min_tumor_px": 100, "folds": 3, "validation": 0.2, "split_seed": seed, "draw_seed": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen, cases, figures = select(slices, fold=fold, **options)
    assert cases.columns.tolist() == ["case", "split", "stratum", "patient"]
    assert (cases.groupby("patient")["split"].nunique() == 1).all()
    assert abs(cases[cases["split"] == "test"]["patient"].nunique() - len(scans) / 3) < 1
    assert chosen["split"].tolist() == chosen["case"].map(cases.set_index("case")["split"]).tolist()
    assert (figures["cases_total"], figures["patients_total"]) == (len(owners), len(scans))


def test_patients_of_one_case_each_change_nothing() -> None:
    slices = make_slices(15)
    options = {"min_tumor_px": 100, "folds": 5, "fold": 1, "validation": 0.2, "split_seed": 0, "draw_seed": 0}
    plain, cases, _ = select(slices, **options)
    named, with_patients, _ = select(slices.assign(patient=slices["case"]), **options)
    pd.testing.assert_frame_equal(plain, named)
    pd.testing.assert_frame_equal(cases, with_patients.drop(columns="patient"))


def test_a_patient_in_two_splits_is_refused() -> None:
    parts = {name: pd.DataFrame({"case": [f"case_{name}"], "patient": ["p7"]}) for name in ("train", "test")}
    with pytest.raises(InputError, match="p7 is in train and in test"):
        assert_no_shared_case(parts)


def test_no_slice_over_the_threshold_is_one_error_with_the_key() -> None:
    with pytest.raises(InputError, match=r"at least 5000 tumor pixels: lower select\.min_tumor_px"):
        choose(make_slices(), min_tumor_px=5000)


def test_a_case_in_two_splits_is_refused() -> None:
    parts = {"train": pd.DataFrame({"case": ["case_1"]}), "test": pd.DataFrame({"case": ["case_1"]})}
    with pytest.raises(InputError, match="case_1 is in train and in test"):
        assert_no_shared_case(parts)


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/kits23 is not beside this checkout")
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_of_kits23_gives_15129_slices_whatever_the_split(seed: int) -> None:
    slices = pd.read_csv(SHARED / "slice_areas.csv.gz")
    number = slices["case"].str.removeprefix("case_").astype(int)
    slices["block"] = np.select([number < 300, number < 500], ["0-299", "400-499"], "500-588")
    chosen, figures = choose(slices, min_tumor_px=1000, split_seed=seed)
    assert figures["candidates_total"] == {"tumor": 7565, "kidney": 20727, "background": 62312}
    assert chosen["class"].value_counts().to_dict() == {"tumor": 7565, "kidney": 3782, "background": 3782}
    assert (len(chosen), figures["slices_total"]) == (15129, 95221)
    for part in figures["ratio"].values():
        assert part == pytest.approx({"tumor": 0.5, "kidney": 0.25, "background": 0.25}, abs=0.002)
    assert figures["cases_total"] == 489
    assert figures["cases_without_tumor_slice"] == 154
