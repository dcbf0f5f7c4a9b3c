"""Label budgets: which training and validation cases a run with p % of the labels may look at."""

import numpy as np
import pandas as pd

from kidney_ssl.errors import InputError

LABELLED = ("train", "validation")


def budget_order(cases: pd.DataFrame, rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Put the cases of each labelled split into the order in which budgets take them.

    Within a stratum the cases are shuffled and spaced evenly over [0, 1), from an offset of the stratum's own; the
    order is that of the places, so that the first n cases hold each stratum's share of n to within one case
    (systematic sampling). A budget is a prefix: budgets of one seed are nested, and a new one moves no case. The first
    case with both labels, else the first with any chosen slice, goes to the front, so that no budget is of one class or
    empty if that can be helped.

    Args:
        cases: case, split and stratum of every case.
        rows: case and label (0, 1) of the chosen slices.
        seed: decides the order; all arms share it.

    Returns:
        case, split and rank (from 0 within its split) of the cases of train and validation, sorted by both.
    """
    labels = rows.groupby("case")["label"].nunique()
    tables = []
    for number, split in enumerate(LABELLED):
        generator = np.random.default_rng([seed, number])
        places: dict[str, float] = {}
        for _, stratum in cases[cases["split"] == split].sort_values("case").groupby("stratum"):
            shuffled = generator.permutation(stratum["case"].to_numpy(dtype=object))
            places |= dict(zip(shuffled, (np.arange(len(shuffled)) + generator.random()) / len(shuffled), strict=True))
        order = sorted(places, key=lambda case: (places[case], case))
        # `max` takes the first of equals.
        first = max(order, key=lambda case: labels.get(case, 0), default=None)
        order = [case for case in order if case == first] + [case for case in order if case != first]
        tables.append(pd.DataFrame({"case": order, "split": split, "rank": range(len(order))}))
    return pd.concat(tables, ignore_index=True)


def in_budget(ranked: pd.DataFrame, percent: int) -> pd.DataFrame:
    """Mark the cases that p % of the labels hold: the first round(p n / 100) of each split, one at least.

    Args:
        ranked: see `budget_order`.
        percent: of the cases of each split, 1 to 100; validation shrinks with the budget.

    Returns:
        The table with a column `used`, 0 or 1.
    """
    counts = ranked.groupby("split")["rank"].transform("size")
    # Half up, in whole numbers: Python's round takes halves to even.
    wanted = ((2 * percent * counts + 100) // 200).clip(lower=1)
    return ranked.assign(used=(ranked["rank"] < wanted).astype(int))


def rows_of(frame: pd.DataFrame, ranked: pd.DataFrame, split: str) -> np.ndarray:
    """Find the rows of a split's slices that a budget holds.

    Args:
        frame: rows of the split, with `case`.
        ranked: see `in_budget`.
        split: train or validation.

    Returns:
        (n,) int64, ascending.

    Raises:
        InputError: a slice's case is not among the split's cases, so the files are of different splits.
    """
    of_split = ranked[ranked["split"] == split]
    strangers = sorted(set(frame["case"]) - set(of_split["case"]))
    if strangers:
        raise InputError(f"{strangers[0]} has {split} slices but is no {split} case: run `dvc repro --force select`")
    return np.flatnonzero(frame["case"].isin(of_split.loc[of_split["used"] == 1, "case"]))
