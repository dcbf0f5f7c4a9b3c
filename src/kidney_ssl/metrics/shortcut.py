"""AUROC of a logistic-regression baseline without tumor information: the shortcut probe.

Its features do not show the tumor: a 16 x 16 thumbnail, the slice's position, the body's area, the distance between
slices and the block of cases. An arm's AUROC must be compared with this one, because slices with large tumors lie in
the middle of the kidneys, and block and thickness differ between hospitals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from kidney_ssl.data.arrays import read_pieces, read_shape
from kidney_ssl.data.patients import patient_column
from kidney_ssl.data.selection import assert_no_shared_case
from kidney_ssl.errors import InputError
from kidney_ssl.schema import CLASSES, KIDNEY, TUMOR
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import intervals, resample
from kidney_ssl.statistics.resampling import why_undefined
from kidney_ssl.statistics.result import Estimate, as_json
from kidney_ssl.statistics.swaps import ranks_within_arms

THUMBNAIL = (16, 16)
GROUPS = ("thumbnail", "position", "body_area", "thickness", "block")
ALL = "all"
# Metric -> classes of slices used, in training and test.
METRICS = {"auroc": CLASSES, "auroc_against_kidney": (TUMOR, KIDNEY)}
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths C of the L2 penalty
UNSEARCHED = 1e-2  # used if there are too few cases to search
FOLDS = 5


@dataclass(frozen=True)
class Features:
    """Features of a part's slices by group, (N, width) float64 each, and the slices' case, class and label."""

    groups: dict[str, np.ndarray]
    rows: pd.DataFrame

    def of(self, classes: Sequence[str]) -> "Features":
        """Keep slices of some classes."""
        kept = self.rows["class"].isin(classes).to_numpy()
        groups = {name: values[kept] for name, values in self.groups.items()}
        return Features(groups, self.rows[kept].reset_index(drop=True))

    def columns(self, group: str) -> np.ndarray:
        """Columns of one group, or of all groups side by side: (N, width) float64."""
        return np.column_stack(list(self.groups.values())) if group == ALL else self.groups[group]


def read_features(images: Path, rows: pd.DataFrame, blocks: Sequence[str]) -> Features:
    """Read the probe's features of a part, in pieces of its array.

    Args:
        images: .npy of (N, S, S) floats in [0, 1].
        rows: N rows with position, body_mm2, thickness_mm and block.
        blocks: the blocks of the training part; a slice of another block has 0 for each.

    Raises:
        InputError: the array has another number of slices.
    """
    if read_shape(images)[0] != len(rows):
        raise InputError(f"{images}: not as many slices as rows; run `dvc repro --force slice normalize`")
    thumbnails = [
        np.asarray(Image.fromarray(image.astype(np.float32)).resize(THUMBNAIL, Image.Resampling.BILINEAR))
        for piece in (read_pieces(images) if len(rows) else ())
        for image in piece
    ]
    found = {
        "thumbnail": np.array(thumbnails, np.float64).reshape(len(rows), THUMBNAIL[0] * THUMBNAIL[1]),
        "position": _with_square(rows["position"]),
        "body_area": _with_square(rows["body_mm2"]),
        "thickness": _with_square(rows["thickness_mm"]),
        "block": (rows[["block"]].to_numpy(str) == np.array(list(blocks), str)[None, :]).astype(float),
    }
    return Features(found, rows)


def _with_square(values: pd.Series) -> np.ndarray:
    """A number and its square, (N, 2): tumors lie in the middle of a scan, which a linear term cannot fit."""
    column = values.to_numpy(float)
    return np.column_stack([column, np.square(column)])


def probe(train: Features, group: str) -> tuple[Pipeline, float] | str:
    """Fit the probe on one group of features, or on all.

    The probe is a logistic regression with an L2 penalty on standardised features. Its strength is the one of
    `STRENGTHS` with the best mean AUROC in a cross-validation by training cases. Folds with only one class in training
    or validation are left out; with fewer than two folds left, the strength is `UNSEARCHED`.

    Returns:
        The fitted probe and its strength, or the reason why there is none.
    """
    columns, labels = train.columns(group), train.rows["label"].to_numpy()
    if len(np.unique(labels)) < 2:
        return "only one class in the training part"
    if np.ptp(columns, axis=0).max() == 0:
        return "the same in every training slice"
    model = make_pipeline(StandardScaler(), LogisticRegression(C=UNSEARCHED, max_iter=3000))
    cases = patient_column(train.rows).to_numpy()
    folds = min(FOLDS, len(np.unique(cases)))
    split = list(GroupKFold(folds).split(columns, labels, cases)) if folds > 1 else []
    usable = [pair for pair in split if all(len(np.unique(labels[side])) == 2 for side in pair)]
    if len(usable) < 2:
        return model.fit(columns, labels), UNSEARCHED
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, scoring="roc_auc", cv=usable)
    search.fit(columns, labels)
    return search.best_estimator_, float(search.best_params_["logisticregression__C"])


def shortcut(train: Features, test: Features, *, resamples: int, seed: int) -> dict[str, Any]:
    """Test the probe on the test part, with all features and with each group alone.

    Args:
        train: slices for fitting.
        test: slices of other cases.
        resamples: number of resamples of the test cases, for the intervals.
        seed: seed of the resamples.

    Returns:
        Metric -> group -> point, low, high (95 %, see `statistics.bootstrap`), strength, and the reason if one is
        None. `auroc` comes from a probe fitted and tested on all slices, `auroc_against_kidney` from one fitted and
        tested on tumor and kidney slices only.

    Raises:
        InputError: a case is in both parts.
    """
    assert_no_shared_case({"train": train.rows, "test": test.rows})
    found: dict[str, Any] = {}
    for metric, classes in METRICS.items():
        fitted, tested = train.of(classes), test.of(classes)
        probes = {group: probe(fitted, group) for group in (ALL, *GROUPS)}
        known = {group: one for group, one in probes.items() if not isinstance(one, str)}
        scores = {
            group: ranks_within_arms(model.decision_function(tested.columns(group)))
            if len(tested.rows)
            else np.empty(0)
            for group, (model, _) in known.items()
        }
        estimates = _tested(tested.rows, scores, metric, resamples=resamples, seed=seed)
        estimates |= {group: Estimate(reason=one) for group, one in probes.items() if isinstance(one, str)}
        found[metric] = {
            group: {"point": one.value, "low": one.low, "high": one.high, "reason": one.reason}
            | {"strength": known[group][1] if group in known else None}
            for group, one in estimates.items()
        }
    return dict(as_json(found))


def _tested(
    rows: pd.DataFrame, scores: dict[str, np.ndarray], metric: str, *, resamples: int, seed: int
) -> dict[str, Estimate]:
    """A metric of several probes on the same slices."""
    probabilities = np.array(list(scores.values())).reshape(len(scores), 1, len(rows))
    predictions = ArmPredictions.of_slices(list(scores), rows, probabilities)
    reason = "no slice in the test part" if rows.empty else why_undefined(predictions, metric)
    if reason or not scores:
        return dict.fromkeys(scores, Estimate(reason=reason))
    found = intervals(resample(predictions, count=resamples, seed=seed, metrics=[metric]))
    return {group: one[metric] for group, one in found.items()}
