"""Label budgets: nested, by case, stratified, the same for all arms, another for each seed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.data.budgets import budget_order, in_budget, rows_of
from kidney_ssl.errors import InputError

SPLITS = ("train", "validation", "test")


def case_table(counts):
    """Cases of each split and stratum: {(split, stratum): n}."""
    rows = [
        (f"case_{split}_{stratum}_{k:03d}", split, stratum) for (split, stratum), n in counts.items() for k in range(n)
    ]
    return pd.DataFrame(rows, columns=["case", "split", "stratum"])


def slice_table(cases, one_class=()):
    return pd.DataFrame(
        [(case, label) for case in cases["case"] for label in ((0,) if case in one_class else (0, 1))],
        columns=["case", "label"],
    )


COUNTS = st.dictionaries(
    st.tuples(st.sampled_from(SPLITS), st.sampled_from(["a", "b", "c"])), st.integers(1, 40), min_size=1
).filter(lambda counts: any(split == "train" for split, _ in counts))


@given(counts=COUNTS, seed=st.integers(0, 2**32 - 1), percents=st.lists(st.integers(1, 100), min_size=2, max_size=4))
def test_budgets_are_nested_stratified_prefixes_of_one_order(counts, seed, percents):
    cases = case_table(counts)
    ranked = budget_order(cases, slice_table(cases), seed)
    assert "test" not in set(ranked["split"])
    expected = cases[cases["split"] != "test"]
    assert sorted(ranked["case"]) == sorted(expected["case"])
    before: set[str] = set()
    for percent in sorted(percents):
        table = in_budget(ranked, percent)
        used = set(table.loc[table["used"] == 1, "case"])
        assert before <= used
        before = used
        for split, group in table.groupby("split"):
            of_split = expected[expected["split"] == split]
            n = int(group["used"].sum())
            assert n == max(1, int(np.floor(percent * len(group) / 100 + 0.5)))
            assert group.sort_values("rank")["used"].is_monotonic_decreasing
            for stratum, members in of_split.groupby("stratum"):
                share = n * len(members) / len(of_split)
                held = members["case"].isin(used).sum()
                strata = of_split["stratum"].nunique()
                # Systematic sampling in each stratum, cut at one place for all: off by one each, by the others' too,
                # and by the case that goes first.
                assert abs(held - share) <= strata + 1, stratum
    assert set(in_budget(ranked, 100)["used"]) == {1}


def test_order_is_the_seeds_alone_and_does_not_depend_on_the_order_of_the_table():
    cases = case_table({("train", "a"): 20, ("train", "b"): 9, ("validation", "a"): 6})
    rows = slice_table(cases)
    one = budget_order(cases, rows, 3)
    pd.testing.assert_frame_equal(one, budget_order(cases.sample(frac=1, random_state=1), rows[::-1], 3))
    other = budget_order(cases, rows, 4)
    assert one["case"].tolist() != other["case"].tolist()
    assert (
        one.loc[one["split"] == "validation", "case"].tolist()
        != other.loc[other["split"] == "validation", "case"].tolist()
    )


@given(counts=COUNTS, seed=st.integers(0, 99), percent=st.integers(1, 100), scans=st.integers(2, 3))
def test_a_budget_holds_all_cases_of_a_patient_or_none(counts, seed, percent, scans):
    owners = case_table(counts).rename(columns={"case": "patient"})
    cases = owners.loc[owners.index.repeat(scans)].reset_index(drop=True)
    cases["case"] = [f"case_{number}" for number in range(len(cases))]
    found = in_budget(budget_order(cases, slice_table(cases), seed), percent)
    of_patient = found.merge(cases[["case", "patient"]]).groupby("patient")["used"]
    assert (of_patient.nunique() == 1).all()
    # As many patients as if each had one case.
    owners = owners.rename(columns={"patient": "case"})
    expected = in_budget(budget_order(owners, slice_table(owners), seed), percent)
    assert of_patient.first().sum() == expected["used"].sum()


def test_every_case_leads_sometimes():
    cases = case_table({("train", "a"): 6, ("train", "b"): 2})
    rows = slice_table(cases)
    first = {budget_order(cases, rows, seed)["case"].iloc[0] for seed in range(200)}
    assert first == set(cases["case"])


def test_the_smallest_budget_has_both_classes_where_any_case_has():
    cases = case_table({("train", "a"): 12, ("validation", "a"): 5})
    kept = {"case_train_a_007", "case_validation_a_003"}
    rows = slice_table(cases, one_class=set(cases["case"]) - kept)
    for seed in range(20):
        table = in_budget(budget_order(cases, rows, seed), 1)
        assert set(table.loc[table["used"] == 1, "case"]) == kept
    none = in_budget(budget_order(cases, slice_table(cases, one_class=set(cases["case"])), 0), 1)
    assert none["used"].sum() == 2


def test_no_budget_is_empty_where_a_case_has_a_slice():
    cases = case_table({("train", "a"): 3, ("validation", "a"): 6})
    validation = cases.loc[cases["split"] == "validation", "case"].tolist()
    # One case with tumor slices alone, one with others alone, four without any chosen slice.
    rows = pd.DataFrame([(validation[0], 1), (validation[1], 0)], columns=["case", "label"])
    for seed in range(20):
        used = in_budget(budget_order(cases, rows, seed), 10).query("used == 1 and split == 'validation'")
        assert used["case"].item() in validation[:2]


def test_rows_are_those_of_the_budgets_cases():
    cases = case_table({("train", "a"): 4, ("validation", "a"): 2})
    frame = pd.DataFrame({"case": np.repeat(cases.loc[cases["split"] == "train", "case"].to_numpy(), 3)})
    table = in_budget(budget_order(cases, slice_table(cases), 0), 50)
    rows = rows_of(frame, table, "train")
    assert len(rows) == 6
    assert set(frame.loc[rows, "case"]) == set(table.query("split == 'train' and used == 1")["case"])


def test_slices_of_another_splits_case_are_refused():
    cases = case_table({("train", "a"): 3, ("test", "a"): 2, ("validation", "a"): 1})
    table = in_budget(budget_order(cases, slice_table(cases), 0), 100)
    frame = pd.DataFrame({"case": ["case_train_a_000", "case_test_a_001"]})
    with pytest.raises(InputError, match="case_test_a_001 has train slices but is no train case"):
        rows_of(frame, table, "train")
