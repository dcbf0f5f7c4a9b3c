"""Test predictions of several arms on the same slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kidney_ssl.data.patients import patient_column
from kidney_ssl.errors import InputError

_ROW = ["case", "slice", "class", "label"]


@dataclass(frozen=True)
class ArmPredictions:
    """Probabilities of tumor that A arms with K seeds each gave the same N test slices."""

    arms: tuple[str, ...]  # names, (A,)
    names: tuple[str, ...]  # names of the C cases (or of patients, if known), sorted
    cases: np.ndarray  # (N,) int64, index of each slice's case (or patient) in `names`
    labels: np.ndarray  # (N,) bool, tumor or not
    classes: np.ndarray  # (N,) str, tumor, kidney or background
    probabilities: np.ndarray  # (A, K, N) float64 in [0, 1]
    # (K,) float64 that sum to 1, weights of the K in an arm's metric; None: equal weights, as for seeds
    shares: np.ndarray | None = None

    @classmethod
    def of_slices(cls, arms: Sequence[str], rows: pd.DataFrame, probabilities: np.ndarray) -> "ArmPredictions":
        """From the case, class and label of N slices and probabilities (A, K, N)."""
        names, cases = np.unique(patient_column(rows).to_numpy(dtype=str), return_inverse=True)
        labels, classes = rows["label"].to_numpy() == 1, rows["class"].to_numpy(dtype=str)
        return cls(tuple(arms), tuple(names.tolist()), cases.astype(np.int64), labels, classes, probabilities)

    def subset(self, kept: np.ndarray) -> "ArmPredictions":
        """Keep the slices of `kept`: (N,) bool, or indices, which may repeat."""
        return replace(
            self,
            cases=self.cases[kept],
            labels=self.labels[kept],
            classes=self.classes[kept],
            probabilities=self.probabilities[..., kept],
        )

    def stack(self, arm: str, against: str) -> "ArmPredictions":
        """Stack two arms as 2C cases, so that weights select one arm per case: C + c is case c of `against`."""
        one, other = (self.probabilities[self.arms.index(name)] for name in (arm, against))
        return ArmPredictions(
            arms=(f"{arm} or {against}",),
            names=self.names + self.names,
            cases=np.concatenate([self.cases, self.cases + len(self.names)]),
            labels=np.tile(self.labels, 2),
            classes=np.tile(self.classes, 2),
            probabilities=np.concatenate([one, other], axis=1)[None],
            shares=self.shares,
        )


def arms_of_tables(tables: Mapping[str, Sequence[pd.DataFrame]]) -> ArmPredictions:
    """Join the test parts of several arms: arm -> one table per seed, see `classification.read_predictions`.

    Returns:
        Arms in the order of `tables`, slices sorted by case and slice.

    Raises:
        InputError: no arm, an empty test part, arms with unequal numbers of seeds, or arms that do not have the same
            test slices with the same class and label.
    """
    seeds = {arm: len(several) for arm, several in tables.items()}
    if len(set(seeds.values())) != 1 or not min(seeds.values()):
        listed = ", ".join(f"{arm} {count}" for arm, count in seeds.items()) or "no arm"
        raise InputError(f"arms to compare need equally many seeds, at least one ({listed}): run the missing ones")
    sorted_tables = {
        arm: [table[table["part"] == "test"].sort_values(["case", "slice"]).reset_index(drop=True) for table in several]
        for arm, several in tables.items()
    }
    first, *_ = sorted_tables
    rows = sorted_tables[first][0]
    if rows.empty:
        raise InputError(f"arm {first}: no slice in the test part; run select with more cases")
    for arm, several in sorted_tables.items():
        for number, table in enumerate(several):
            if not table[_ROW].equals(rows[_ROW]):
                raise InputError(
                    f"arm {arm}, table {number + 1} of {len(several)}: not the same test slices as arm {first}; "
                    "run the finetune stage again for both"
                )
    probabilities = [[table["probability"] for table in several] for several in sorted_tables.values()]
    return ArmPredictions.of_slices(list(sorted_tables), rows, np.array(probabilities))
