"""Selection of slices and cases, from the label volumes only."""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.data.patients import patient_column
from kidney_ssl.errors import InputError
from kidney_ssl.schema import BACKGROUND, CLASSES, MASK_VALUES, NEGATIVES, SPLITS, TEST, TRAIN, TUMOR, VALIDATION

# Columns of slices whose label, and perhaps split, is given, see `data.table`; else both are found here.
LABEL, SPLIT = GIVEN = ("label", "split")


def slice_rows(case: str, areas: np.ndarray, spacing_mm: tuple[float, float, float], block: str) -> pd.DataFrame:
    """Describe every slice of one case.

    Args:
        case: the case's name.
        areas: (slices, 4) int, pixels of each mask value on the native grid, slices from the top.
        spacing_mm: distance between slices, rows and columns in mm.
        block: part of KiTS23 that the case belongs to, or "other".

    Returns:
        One row per slice: areas in pixels and mm2, the relative position along the volume (0 top, 1 bottom), the
        in-plane spacing (geometric mean of rows and columns, so that pixels x spacing^2 is the area) and the
        distance between slices.
    """
    thickness, row_mm, column_mm = spacing_mm
    pixel_mm2 = row_mm * column_mm
    count = len(areas)
    columns: dict[str, Any] = {"case": case, "slice": np.arange(count), "position": (np.arange(count) + 0.5) / count}
    columns |= {f"{name}_px": areas[:, value] for name, value in MASK_VALUES.items()}
    columns |= {f"{name}_mm2": np.round(areas[:, value] * pixel_mm2, 3) for name, value in MASK_VALUES.items()}
    columns |= {
        "spacing_mm": round(float(np.sqrt(pixel_mm2)), 6),
        "thickness_mm": round(thickness, 6),
        "block": block,
    }
    return pd.DataFrame(columns)


def classify(slices: pd.DataFrame, min_tumor_px: int) -> pd.Series:
    """Class of each slice: tumor, kidney, background, or "" if it is left out of the labelled set.

    Where labels are given, 1 is tumor and 0 is background. Else by the masks:

    tumor: at least `min_tumor_px` tumor pixels on the native grid; kidney: kidney but no tumor pixel;
    background: neither. Slices with fewer tumor pixels than the threshold, but not none, are left out.
    """
    if LABEL in slices:
        return slices[LABEL].map({1: TUMOR, 0: BACKGROUND}).rename("class")
    tumor, kidney = slices["tumor_px"], slices["kidney_px"]
    classes = np.select(
        [tumor >= min_tumor_px, (tumor == 0) & (kidney > 0), (tumor == 0) & (kidney == 0)], CLASSES, default=""
    )
    return pd.Series(classes, index=slices.index, name="class")


def split_cases(strata: pd.Series, *, folds: int, fold: int, validation: float, seed: int) -> dict[str, str]:
    """Split cases, or patients, into train, validation and test, stratified.

    Shuffled strata are concatenated and assigned to the folds in turn, so that each fold has its share of each stratum
    to within one case, whatever their sizes (scikit-learn's StratifiedKFold refuses strata smaller than the number of
    folds). Validation cases are evenly spaced among the cases outside the test part, in the same order.

    Args:
        strata: stratum of each case, indexed by case.
        folds: number of folds; the test part is 1 / folds of the cases.
        fold: number of the fold that is the test part.
        validation: share of the cases outside the test part that is used for model selection.
        seed: seed of the shuffle.

    Returns:
        case -> split, sorted by case.

    Raises:
        InputError: too few cases for three parts.
    """
    if len(strata) < max(folds, 3):
        raise InputError(
            f"{len(strata)} case(s) are too few for data.folds: {folds} and a validation part: "
            f"give at least {max(folds, 3)} cases or lower data.folds"
        )
    generator = np.random.default_rng(seed)
    merged = _merge_small(strata.sort_index())
    dealt = [
        case
        for _, members in sorted(merged.groupby(merged).groups.items())
        for case in generator.permutation(np.asarray(sorted(members), dtype=object))
    ]
    rest = [case for position, case in enumerate(dealt) if position % folds != fold]
    count = max(1, round(validation * len(rest)))
    splits = dict.fromkeys(dealt, TEST) | dict.fromkeys(rest, TRAIN)
    splits |= {rest[int((k + 0.5) * len(rest) / count)]: VALIDATION for k in range(count)}
    return dict(sorted(splits.items()))


def _merge_small(strata: pd.Series) -> pd.Series:
    """Merge strata with a single case into one, with a warning."""
    counts = strata.value_counts()
    small = sorted(counts.index[counts < 2])
    if not small or len(counts) == 1:
        return strata
    warnings.warn(f"strata with one case are merged for the split: {', '.join(small)}", stacklevel=3)
    return strata.where(~strata.isin(small), "small strata")


def draw_balanced(candidates: pd.DataFrame, seed: int, negatives: int) -> pd.DataFrame:
    """Draw the slices of one part: all tumor slices, and `negatives` kidney and `negatives` background slices.

    Args:
        candidates: rows with case, slice, class; the draw does not depend on their order.
        seed: seed of the draw, which is without replacement.
        negatives: number for each of the two classes; half of the tumor slices for 2:1:1.

    Returns:
        The chosen rows, sorted by case and slice. A class with too few slices is taken whole.
    """
    ordered = candidates.sort_values(["case", "slice"])
    tumor = ordered[ordered["class"] == TUMOR]
    parts = [tumor]
    for number, name in enumerate(NEGATIVES):
        pool = ordered[ordered["class"] == name]
        wanted = min(negatives, len(pool))
        rows = np.random.default_rng([seed, number]).choice(len(pool), size=wanted, replace=False)
        parts.append(pool.iloc[rows])
    return pd.concat(parts).sort_values(["case", "slice"])


def select(
    slices: pd.DataFrame,
    *,
    min_tumor_px: int,
    folds: int,
    fold: int,
    validation: float,
    split_seed: int,
    draw_seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Choose slices, and split patients, each with all of its cases.

    Negatives are drawn separately in each split. Train and validation together have floor(T/2) slices of each class of
    negatives for their T tumor slices, as in the training part of the thesis: validation takes ceil(V/2) for its own V
    tumor slices, train the rest. Slices whose label is given are all chosen, since whoever labelled them chose them.

    Args:
        slices: every slice of every case, see `slice_rows`; with `patient` if patients have several cases, and with
            columns of `GIVEN`.
        min_tumor_px: native tumor pixels from which a slice counts as tumor.
        folds: see `split_cases`.
        fold: see `split_cases`.
        validation: see `split_cases`.
        split_seed: seed of the split.
        draw_seed: seed of the draw of negatives.

    Returns:
        The selection (case, slice, class, label, split), split and stratum of every case (case, split, stratum, and
        `patient` if given), and the counts for metrics/selection.json.

    Raises:
        InputError: no slice reaches the threshold, there are too few cases, slices whose label is given are all of one
            label in a split, or the split is given and a fold above 0 too.
    """
    rows = slices.assign(**{"class": classify(slices, min_tumor_px)})
    positive = (rows["class"] == TUMOR).groupby(rows["case"]).any()
    if not positive.any() and LABEL not in rows:
        raise InputError(
            f"no slice of {len(positive)} case(s) has at least {min_tumor_px} tumor pixels: "
            "lower select.min_tumor_px or give other cases"
        )
    block = rows.groupby("case")["block"].first()
    patient = patient_column(rows)
    bearing = (rows["class"] == TUMOR).groupby(patient).any().map({True: " with", False: " without"})
    strata = rows.groupby(patient)["block"].first() + bearing + " tumor slices"
    if SPLIT in rows and fold:
        raise InputError(
            f"data.fold: {fold}: table.csv says the split; take its column away for folds, or data.fold: 0"
        )
    if SPLIT in rows:
        split = dict(rows.groupby(patient)[SPLIT].first().sort_index())
    else:
        split = split_cases(strata, folds=folds, fold=fold, validation=validation, seed=split_seed)
    cases = rows[[name for name in ("case", "patient") if name in rows]].drop_duplicates("case")
    cases = cases.sort_values("case", ignore_index=True)
    cases.insert(1, "split", patient_column(cases).map(split))
    cases.insert(2, "stratum", patient_column(cases).map(strata))
    rows["split"] = patient.map(split)
    candidates = rows[rows["class"] != ""]
    of_split = {name: candidates[candidates["split"] == name] for name in SPLITS}
    tumors = {name: int((part["class"] == TUMOR).sum()) for name, part in of_split.items()}
    # At least one of each in validation, since AUROC, which selects the epoch, needs two classes.
    negatives = {VALIDATION: max(1, (tumors[VALIDATION] + 1) // 2), TEST: tumors[TEST] // 2}
    negatives[TRAIN] = max(0, (tumors[TRAIN] + tumors[VALIDATION]) // 2 - negatives[VALIDATION])
    if LABEL in rows:
        _refuse_one_label(of_split)
        drawn = of_split
    else:
        drawn = {name: draw_balanced(part, draw_seed, negatives[name]) for name, part in of_split.items()}
    chosen = pd.concat(drawn.values()).sort_values(["case", "slice"])
    chosen["label"] = (chosen["class"] == TUMOR).astype(int)
    for part, frame in {} if LABEL in rows else drawn.items():
        counts = _by_class(frame)
        for name in NEGATIVES:
            if counts[name] < counts[TUMOR] // 2:
                warnings.warn(
                    f"{part} part: {counts[name]} {name} slices for the {counts[TUMOR] // 2} that the 2:1:1 balance "
                    "wants; all of them are kept",
                    stacklevel=2,
                )
    per_case = rows.groupby("case").size()
    figures: dict[str, Any] = {
        "candidates": _by_split(candidates),
        "candidates_total": _by_class(candidates),
        "cases": pd.crosstab(cases["split"], cases["case"].map(block)).to_dict("index"),
        "cases_total": len(cases),
        **({"patients_total": len(split)} if "patient" in rows else {}),
        "cases_without_tumor_slice": int((~positive).sum()),
        "chosen": _by_split(chosen),
        "chosen_total": len(chosen),
        "left_out_small_tumor": len(rows) - len(candidates),
        "ratio": {
            part: {name: round(count / max(len(frame), 1), 6) for name, count in _by_class(frame).items()}
            for part, frame in drawn.items()
        },
        "slices_per_case": {
            "min": int(per_case.min()),
            "median": float(per_case.median()),
            "max": int(per_case.max()),
        },
        "slices_total": len(rows),
    }
    return chosen[["case", "slice", "class", "label", "split"]].reset_index(drop=True), cases, figures


def _refuse_one_label(parts: dict[str, pd.DataFrame]) -> None:
    for name, part in parts.items():
        if (labels := sorted(part[LABEL].unique())) != [0, 1]:
            held = f"only label {labels[0]}" if labels else "no image"
            raise InputError(
                f"table.csv: {held} in the {name} part: each part needs images of both labels; give more cases, other "
                "splits in the table, or another data.seed"
            )


def _by_class(rows: pd.DataFrame) -> dict[str, int]:
    """Slices of each class."""
    counts = rows["class"].value_counts()
    return {name: int(counts.get(name, 0)) for name in CLASSES}


def _by_split(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Slices of each class in each split."""
    return {split: _by_class(rows[rows["split"] == split]) for split in SPLITS}


def assert_no_shared_case(parts: dict[str, pd.DataFrame]) -> None:
    """Refuse tables in which a case is in two splits.

    Args:
        parts: split -> rows with a column `case`, and `patient` if patients have several cases.

    Raises:
        InputError: a case or a patient is in two splits; the message names it and both splits.
    """
    seen: dict[str, str] = {}
    for part, frame in parts.items():
        for case in sorted(set(patient_column(frame))):
            if case in seen:
                raise InputError(f"{case} is in {seen[case]} and in {part}: run `dvc repro --force select`")
            seen[case] = part
