"""Label budgets: the training and validation patients that a run with p % of the labels may use."""

import numpy as np
import pandas as pd

from kidney_ssl.data.patients import patient_column
from kidney_ssl.errors import InputError
from kidney_ssl.schema import LABELLED


def budget_order(cases: pd.DataFrame, rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Order the patients of each labelled split, each with all of its cases; a budget takes the first ones.

    Within a stratum, patients are shuffled and get evenly spaced positions in [0, 1) with a random offset for each
    stratum. Sorted by position, the first n patients contain each stratum's share of n to within one (systematic
    sampling). Budgets of one seed are therefore nested, and adding a budget changes no other. The first patient with
    both labels, else the first with any chosen slice, moves to the front, so that no budget has only one class or is
    empty if this can be avoided.

    Args:
        cases: case, split and stratum of every case, and `patient` if patients have several cases.
        rows: case and label (0, 1) of the chosen slices.
        seed: seed of the order; the same for all arms.

    Returns:
        case, split and rank (of the patient, from 0 in the split) of the train and validation cases, sorted by split
        and rank.
    """
    patients = dict(zip(cases["case"], patient_column(cases), strict=True))
    labels = rows.groupby(rows["case"].map(patients))["label"].nunique()
    units = cases.assign(patient=patient_column(cases)).drop_duplicates("patient")
    tables = []
    for number, split in enumerate(LABELLED):
        generator = np.random.default_rng([seed, number])
        places: dict[str, float] = {}
        for _, stratum in units[units["split"] == split].sort_values("patient").groupby("stratum"):
            shuffled = generator.permutation(stratum["patient"].to_numpy(dtype=object))
            places |= dict(zip(shuffled, (np.arange(len(shuffled)) + generator.random()) / len(shuffled), strict=True))
        order = sorted(places, key=lambda patient: (places[patient], patient))
        # `max` takes the first on ties.
        first = max(order, key=lambda patient: labels.get(patient, 0), default=None)
        order = [one for one in order if one == first] + [one for one in order if one != first]
        ranks = {patient: rank for rank, patient in enumerate(order)}
        ranked = [(ranks[patient], case) for case, patient in patients.items() if patient in ranks]
        table = pd.DataFrame(sorted(ranked), columns=["rank", "case"]).astype({"rank": "int64"})
        tables.append(table.assign(split=split)[["case", "split", "rank"]])
    return pd.concat(tables, ignore_index=True)


def in_budget(ranked: pd.DataFrame, percent: int) -> pd.DataFrame:
    """Mark the cases of a budget: those of the first round(p n / 100) patients of each split, at least one.

    Args:
        ranked: see `budget_order`.
        percent: percentage p of the patients of each split, 1 to 100; validation shrinks with the budget.

    Returns:
        The table with a column `used`, 0 or 1.
    """
    wanted = ranked.groupby("split")["rank"].transform(lambda ranks: budget_size(ranks.nunique(), percent))
    return ranked.assign(used=(ranked["rank"] < wanted).astype(int))


def budget_size(patients: int, percent: int) -> int:
    """Number of patients in p % of a split: round(p n / 100), at least one."""
    # Rounds half up, with integers; Python's `round` rounds half to even.
    return max(1, (2 * percent * patients + 100) // 200)


def rows_of(frame: pd.DataFrame, ranked: pd.DataFrame, split: str) -> np.ndarray:
    """Find the rows of a split's slices that are in a budget.

    Args:
        frame: rows of the split, with `case`.
        ranked: see `in_budget`.
        split: train or validation.

    Returns:
        (n,) int64, ascending.

    Raises:
        InputError: a slice's case is not among the split's cases, so the files belong to different splits.
    """
    of_split = ranked[ranked["split"] == split]
    strangers = sorted(set(frame["case"]) - set(of_split["case"]))
    if strangers:
        raise InputError(f"{strangers[0]} has {split} slices but is no {split} case: run `dvc repro --force select`")
    return np.flatnonzero(frame["case"].isin(of_split.loc[of_split["used"] == 1, "case"]))
