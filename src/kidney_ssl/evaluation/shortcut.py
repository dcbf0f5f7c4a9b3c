"""What a classifier earns that cannot see a tumour: the shortcut probe.

A logistic regression on what tells slices apart without showing a tumour: a 16 x 16 thumbnail, the slice's position,
the body's area, the distance between slices and the block of cases. Its AUROC is what an arm's AUROC has to be read
against: slices with large tumours lie in the middle of the kidneys, and block and thickness differ between hospitals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from kidney_ssl.data.arrays import read_pieces, read_shape
from kidney_ssl.data.selection import CLASSES, assert_no_shared_case
from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.arms import ArmPredictions
from kidney_ssl.evaluation.bootstrap import intervals, resample
from kidney_ssl.evaluation.metrics import KIDNEY, TUMOR
from kidney_ssl.evaluation.missing import DIGITS
from kidney_ssl.evaluation.weighted import absent

THUMBNAIL = 16
GROUPS = ("thumbnail", "position", "body_area", "thickness", "block")
ALL = "all"
# Figure -> classes of slices that take part, in training and in the test.
FIGURES = {"auroc": CLASSES, "auroc_against_kidney": (TUMOR, KIDNEY)}
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths of L2, C
UNSEARCHED = 1e-2  # where cases are too few to search
FOLDS = 5

Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class Slices:
    """Slices of one part: features by group, (N, width) each, and their rows with case, class and label."""

    features: Features
    rows: pd.DataFrame

    def of(self, classes: Sequence[str]) -> "Slices":
        """Keep slices of some classes."""
        kept = self.rows["class"].isin(classes).to_numpy()
        return Slices(
            {name: values[kept] for name, values in self.features.items()},
            self.rows[kept].reset_index(drop=True),
        )

    def columns(self, group: str) -> np.ndarray:
        """Columns of one group, or of all of them side by side: (N, width) float64."""
        return np.column_stack(list(self.features.values())) if group == ALL else self.features[group]


def read_slices(images: Path, rows: pd.DataFrame, blocks: Sequence[str]) -> Slices:
    """Read what the probe sees of a part, a piece of its array at a time.

    Args:
        images: .npy of (N, S, S) floats in [0, 1].
        rows: N rows with position, body_mm2, thickness_mm and block.
        blocks: the blocks of the training part; a slice of another one has 0 for each.

    Raises:
        InputError: the array has another number of slices.
    """
    if read_shape(images)[0] != len(rows):
        raise InputError(f"{images}: not as many slices as rows; run `dvc repro --force slice normalize`")
    thumbnails = np.empty((len(rows), THUMBNAIL, THUMBNAIL), np.float32)
    done = 0
    for piece in read_pieces(images) if len(rows) else ():
        for image in piece:
            small = Image.fromarray(image.astype(np.float32))
            thumbnails[done] = np.asarray(small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))
            done += 1
    found = {
        "thumbnail": thumbnails.reshape(len(rows), THUMBNAIL**2).astype(np.float64),
        "position": _with_square(rows["position"]),
        "body_area": _with_square(rows["body_mm2"]),
        "thickness": _with_square(rows["thickness_mm"]),
        "block": (rows[["block"]].to_numpy(str) == np.array(list(blocks), str)[None, :]).astype(float),
    }
    return Slices(found, rows)


def _with_square(values: pd.Series) -> np.ndarray:
    """A number and its square, (N, 2): tumours lie in the middle of a scan, which a straight line cannot say."""
    column = values.to_numpy(float)
    return np.column_stack([column, np.square(column)])


def probe(train: Slices, group: str) -> tuple[Pipeline, float] | str:
    """Fit the probe on one group of features, or on all.

    A logistic regression with L2 on standardised features, its strength the one of `STRENGTHS` with the best mean
    AUROC over folds of training cases (no case in two folds). Folds that lack a class on one side are left out; with
    fewer than two left, the strength is `UNSEARCHED`.

    Returns:
        The fitted probe and its strength; or why there is none.
    """
    columns, labels = train.columns(group), train.rows["label"].to_numpy()
    if len(np.unique(labels)) < 2:
        return "only one class in the training part"
    if np.ptp(columns, axis=0).max() == 0:
        return "the same in every training slice"
    model = make_pipeline(StandardScaler(), LogisticRegression(C=UNSEARCHED, max_iter=3000))
    cases = train.rows["case"].to_numpy()
    folds = min(FOLDS, len(np.unique(cases)))
    split = list(GroupKFold(folds).split(columns, labels, cases)) if folds > 1 else []
    usable = [pair for pair in split if all(len(np.unique(labels[side])) == 2 for side in pair)]
    if len(usable) < 2:
        return model.fit(columns, labels), UNSEARCHED
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, scoring="roc_auc", cv=usable)
    search.fit(columns, labels)
    return search.best_estimator_, float(search.best_params_["logisticregression__C"])


def shortcut(train: Slices, test: Slices, *, resamples: int, seed: int) -> dict[str, Any]:
    """Compute what the probe earns on the test part, with all features and with each group alone.

    Args:
        train: slices that the probe is fitted on, see `read_slices`.
        test: slices of other cases.
        resamples: of the test cases, for the intervals.
        seed: decides them.

    Returns:
        Figure -> group -> point, low, high (95 %, see `evaluation.bootstrap`), strength, and the reason of what is
        None. `auroc` is of a probe fitted and tested on all slices, `auroc_against_kidney` of one on tumor and kidney
        slices alone.

    Raises:
        InputError: a case is in both parts.
    """
    assert_no_shared_case({"train": train.rows, "test": test.rows})
    found: dict[str, Any] = {}
    for figure, classes in FIGURES.items():
        fitted, tested = train.of(classes), test.of(classes)
        probes = {group: probe(fitted, group) for group in (ALL, *GROUPS)}
        known = {group: one for group, one in probes.items() if not isinstance(one, str)}
        scores = {
            group: _ranks(model.decision_function(tested.columns(group))) if len(tested.rows) else np.empty(0)
            for group, (model, _) in known.items()
        }
        rows = {group: _row(None, reason=one) for group, one in probes.items() if isinstance(one, str)}
        found[figure] = rows | _tested(tested.rows, scores, figure, resamples=resamples, seed=seed)
        for group, (_, strength) in known.items():
            found[figure][group]["strength"] = strength
    return found


def _tested(
    rows: pd.DataFrame, scores: dict[str, np.ndarray], figure: str, *, resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Figures of several probes on the same slices, each with its interval."""
    names, cases = np.unique(rows["case"].to_numpy(dtype=str), return_inverse=True)
    predictions = ArmPredictions(
        arms=tuple(scores),
        names=tuple(names.tolist()),
        cases=cases.astype(np.int64),
        labels=rows["label"].to_numpy() == 1,
        classes=rows["class"].to_numpy(dtype=str),
        probabilities=np.array([[one] for one in scores.values()]).reshape(len(scores), 1, len(rows)),
    )
    reason = "no slice in the test part" if rows.empty else absent(predictions, figure)
    if reason or not scores:
        return {group: _row(None, reason=reason) for group in scores}
    of_groups = intervals(resample(predictions, count=resamples, seed=seed, metrics=[figure]))
    return {
        group: _row(one[figure].point, one[figure].low, one[figure].high, one[figure].reason)
        for group, one in of_groups.items()
    }


def _row(
    point: float | None, low: float | None = None, high: float | None = None, reason: str | None = None
) -> dict[str, Any]:
    ends = {"point": point, "low": low, "high": high}
    rounded = {name: None if value is None else round(value, DIGITS) for name, value in ends.items()}
    return rounded | {"strength": None, "reason": reason}


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Scores as ranks in (0, 1], which an AUROC does not tell from them; ties stay ties."""
    return np.asarray(rankdata(scores) / len(scores))
