"""Test predictions of several arms on the same slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kidney_ssl.errors import InputError

_ROW = ["case", "slice", "class", "label"]


@dataclass(frozen=True)
class ArmPredictions:
    """Probabilities of tumor that A arms with K seeds each gave the same N test slices.

    Attributes:
        arms: names, (A,).
        names: names of the C cases, sorted.
        cases: (N,) int64, place of each slice's case in `names`.
        labels: (N,) bool, tumor or not.
        classes: (N,) str, tumor, kidney or background.
        probabilities: (A, K, N) float64 in [0, 1].
        shares: (K,) float64 that sum to 1, how much each of the K counts in an arm's figure; None: all alike, as seeds.
    """

    arms: tuple[str, ...]
    names: tuple[str, ...]
    cases: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    shares: np.ndarray | None = None

    def only(self, kept: np.ndarray) -> "ArmPredictions":
        """Keep the slices of `kept`: (N,) bool, or their places, of which one may stand there again."""
        return replace(
            self,
            cases=self.cases[kept],
            labels=self.labels[kept],
            classes=self.classes[kept],
            probabilities=self.probabilities[..., kept],
        )

    def pair_by_case(self, arm: str, against: str) -> "ArmPredictions":
        """Lay two arms under each other as 2C cases: weights pick, for each case, the arm that speaks for it.

        Returns:
            One arm of 2N slices; case c of `arm` is case c, that of `against` is case C + c.
        """
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
    """Lay the test parts of several arms side by side.

    Args:
        tables: arm -> one table a seed as `metrics.read_predictions` gives it: part, case, slice, class, label,
            probability; the order of rows is free.

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
    names, cases = np.unique(rows["case"].to_numpy(dtype=str), return_inverse=True)
    return ArmPredictions(
        arms=tuple(sorted_tables),
        names=tuple(names.tolist()),
        cases=cases.astype(np.int64),
        labels=rows["label"].to_numpy() == 1,
        classes=rows["class"].to_numpy(dtype=str),
        probabilities=np.array([[table["probability"] for table in several] for several in sorted_tables.values()]),
    )
