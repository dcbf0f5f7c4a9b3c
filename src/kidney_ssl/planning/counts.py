"""How many slices a study has: from its index, or what is known beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kidney_ssl.data.arrays import load_rows

# KiTS23 with at least 1,000 tumour pixels, counted on all 489 label volumes: the 2:1:1 set, all slices, and the test
# part's share in the thesis's split, one fold of five.
KITS23_CASES, KITS23_CHOSEN, KITS23_SLICES, KITS23_TEST = 489, 15_129, 95_221, 3_149 / 15_129
# The default phantom study, a case: 1,486 chosen of 3,797 slices in 160 cases.
PHANTOM_CHOSEN, PHANTOM_SLICES = 9.3, 23.7


@dataclass(frozen=True)
class Counts:
    """Slices of a study.

    Attributes:
        cases: all of them.
        slices: of all cases, chosen or not.
        chosen: split -> chosen slices, train, validation and test.
        training_slices: all slices of the training cases, which `pretrain.pool: all` holds.
        test_slices: all slices of the test cases, the natural test set.
        source: where the numbers are from.
    """

    cases: int
    slices: int
    chosen: Mapping[str, int]
    training_slices: int
    test_slices: int
    source: str


def read_counts(index: Path) -> Counts:
    """Count the slices of data/index, as the stage select wrote it."""
    selection, slices, cases = (load_rows(index / f"{name}.csv") for name in ("selection", "slices", "cases"))
    split = slices["case"].map(dict(zip(cases["case"], cases["split"], strict=True)))
    return Counts(
        cases=len(cases),
        slices=len(slices),
        chosen={part: int((selection["split"] == part).sum()) for part in ("train", "validation", "test")},
        training_slices=int((split == "train").sum()),
        test_slices=int((split == "test").sum()),
        source=f"counted in {index}",
    )


def expect_counts(
    source: str, *, cases: int | None, min_tumor_px: int, factor: float, folds: int, validation: float
) -> Counts | None:
    """Say what is known before select has run.

    Args:
        source: `data.source`.
        cases: how many cases the study takes, None for all of the source.
        min_tumor_px: `select.min_tumor_px`.
        factor: `phantom.slices`.
        folds: the test part is one of so many.
        validation: share of the training part's cases.

    Returns:
        Counts, or None for a directory: nothing is known about it.
    """
    if source == "kits23":
        number = KITS23_CASES if cases is None else cases
        chosen, every = (number / KITS23_CASES * known for known in (KITS23_CHOSEN, KITS23_SLICES))
        exact = number == KITS23_CASES and min_tumor_px == 1000
        said = "known of KiTS23" if exact else "an estimate, in proportion to KiTS23 at 1,000 pixels"
    elif source == "phantom":
        number = cases or 0
        chosen, every = number * PHANTOM_CHOSEN * factor, number * PHANTOM_SLICES * factor
        said = "an estimate, in proportion to the default phantom"
    else:
        return None
    test = KITS23_TEST if source == "kits23" and folds == 5 else 1 / folds
    train, held = (1 - test) * (1 - validation), (1 - test) * validation
    return Counts(
        cases=number,
        slices=round(every),
        chosen={
            name: round(chosen * share)
            for name, share in zip(("train", "validation", "test"), (train, held, test), strict=True)
        },
        training_slices=round(every * train),
        test_slices=round(every * test),
        source=f"{said}; its parts by data.folds and data.validation",
    )


def bytes_of(manifest: Path) -> int | None:
    """Add up the volumes of data/manifest.csv; None without it."""
    if not manifest.is_file():
        return None
    return int(pd.read_csv(manifest)["bytes"].sum())
