"""Which slices and cases take part, from the label volumes alone."""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.errors import InputError

SPLITS = ("train", "validation", "test")
CLASSES = ("tumor", "kidney", "background")
SMALL = "small"  # some tumour below the threshold: in the natural test set alone

# Label values of KiTS23. A cyst is no tumour: it never makes a slice positive.
KIDNEY, TUMOR, CYST = 1, 2, 3


def slice_rows(case: str, areas: np.ndarray, spacing_mm: tuple[float, float, float], block: str) -> pd.DataFrame:
    """Describe every slice of one case.

    Args:
        case: the case's name.
        areas: (slices, 4) int, pixels of each label value on the native grid, slices from the top.
        spacing_mm: distance between slices, rows and columns in mm.
        block: part of KiTS23 that the case belongs to, or "other".

    Returns:
        One row a slice: areas in pixels and mm2, the relative position along the volume (0 top, 1 bottom), the
        in-plane spacing (geometric mean of rows and columns, so that pixels x spacing^2 is the area) and the
        distance between slices.
    """
    thickness, row_mm, column_mm = spacing_mm
    pixel_mm2 = row_mm * column_mm
    count = len(areas)
    columns: dict[str, Any] = {
        "case": case,
        "slice": np.arange(count),
        "position": (np.arange(count) + 0.5) / count,
    }
    for name, value in (("kidney", KIDNEY), ("tumor", TUMOR), ("cyst", CYST)):
        columns[f"{name}_px"] = areas[:, value]
    for name, value in (("kidney", KIDNEY), ("tumor", TUMOR), ("cyst", CYST)):
        columns[f"{name}_mm2"] = np.round(areas[:, value] * pixel_mm2, 3)
    columns |= {
        "spacing_mm": round(float(np.sqrt(pixel_mm2)), 6),
        "thickness_mm": round(thickness, 6),
        "block": block,
    }
    return pd.DataFrame(columns)


def classify(slices: pd.DataFrame, min_tumor_px: int) -> pd.Series:
    """Name the class of each slice: tumor, kidney, background, or "" where it stays out of the labelled set.

    tumor: at least `min_tumor_px` tumour pixels on the native grid; kidney: kidney and no tumour pixel;
    background: neither. Slices with some tumour below the threshold are left out.
    """
    tumor, kidney = slices["tumor_px"], slices["kidney_px"]
    classes = np.select(
        [tumor >= min_tumor_px, (tumor == 0) & (kidney > 0), (tumor == 0) & (kidney == 0)], CLASSES, default=""
    )
    return pd.Series(classes, index=slices.index, name="class")


def split_cases(strata: pd.Series, *, folds: int, fold: int, validation: float, seed: int) -> dict[str, str]:
    """Split cases into train, validation and test, stratified.

    Within each stratum the cases are shuffled; the strata are laid end to end and dealt out like cards, so that
    each fold holds its share of each stratum to within one case, whatever the sizes (scikit-learn's
    StratifiedKFold refuses strata smaller than the number of folds). Fold `fold` is the test part. Validation is
    every k-th case of what is left, in the same order, evenly spaced.

    Args:
        strata: stratum of each case, indexed by case.
        folds: number of folds; the test part is 1 / folds of the cases.
        fold: which fold is the test part.
        validation: share of the training part's cases that serves model selection.
        seed: decides the shuffle.

    Returns:
        case -> split.

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
    test = dealt[fold::folds]
    rest = [case for position, case in enumerate(dealt) if position % folds != fold]
    count = max(1, round(validation * len(rest)))
    chosen = {rest[int((k + 0.5) * len(rest) / count)] for k in range(count)}
    splits = {case: "validation" if case in chosen else "train" for case in rest}
    return dict(sorted((splits | dict.fromkeys(test, "test")).items()))


def _merge_small(strata: pd.Series) -> pd.Series:
    """Join strata of a single case into one, with a warning."""
    counts = strata.value_counts()
    small = sorted(counts.index[counts < 2])
    if not small or len(counts) == 1:
        return strata
    warnings.warn(f"strata with one case are merged for the split: {', '.join(small)}", stacklevel=3)
    return strata.where(~strata.isin(small), "small strata")


def draw_balanced(candidates: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Draw the 2:1:1 set of one part: all T tumor slices, floor(T/2) kidney and floor(T/2) background.

    Args:
        candidates: rows with case, slice, class; the draw does not depend on their order.
        seed: decides which negatives are drawn, without replacement.

    Returns:
        The chosen rows, sorted by case and slice. A class that falls short is kept whole.
    """
    ordered = candidates.sort_values(["case", "slice"])
    tumor = ordered[ordered["class"] == "tumor"]
    parts = [tumor]
    for number, name in enumerate(("kidney", "background")):
        pool = ordered[ordered["class"] == name]
        wanted = min(len(tumor) // 2, len(pool))
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
    """Choose slices and split cases.

    The balance is drawn in the training part (train and validation together) and in the test part; the validation
    cases are carved out after the draw.

    Args:
        slices: every slice of every case, see `slice_rows`.
        min_tumor_px: native pixels from which a slice counts as tumor.
        folds: see `split_cases`.
        fold: see `split_cases`.
        validation: see `split_cases`.
        split_seed: seed of the split.
        draw_seed: seed of the draw of negatives.

    Returns:
        The selection (case, slice, class, label, split), split and stratum of every case (case, split, stratum), and
        the figures for metrics/selection.json.

    Raises:
        InputError: no slice reaches the threshold, or there are too few cases.
    """
    rows = slices.assign(**{"class": classify(slices, min_tumor_px)})
    positive = (rows["class"] == "tumor").groupby(rows["case"]).any()
    if not positive.any():
        raise InputError(
            f"no slice of {len(positive)} case(s) has at least {min_tumor_px} tumour pixels: "
            "lower select.min_tumor_px or give other cases"
        )
    block = rows.groupby("case")["block"].first()
    strata = block + positive.map({True: " with", False: " without"}) + " tumor slices"
    split = split_cases(strata, folds=folds, fold=fold, validation=validation, seed=split_seed)
    rows["split"] = rows["case"].map(split)
    candidates = rows[rows["class"] != ""]
    in_test = candidates["split"] == "test"
    chosen = pd.concat(
        [draw_balanced(candidates[~in_test], draw_seed), draw_balanced(candidates[in_test], draw_seed)]
    ).sort_values(["case", "slice"])
    chosen = chosen.assign(label=(chosen["class"] == "tumor").astype(int))
    figures = _figures(rows, candidates, chosen, split, block)
    selection = chosen[["case", "slice", "class", "label", "split"]].reset_index(drop=True)
    cases = pd.DataFrame(split.items(), columns=["case", "split"])
    cases["stratum"] = cases["case"].map(strata)
    return selection, cases, figures


def _figures(
    rows: pd.DataFrame,
    candidates: pd.DataFrame,
    chosen: pd.DataFrame,
    split: dict[str, str],
    block: pd.Series,
) -> dict[str, Any]:
    def per_part(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
        table = frame.groupby(["split", "class"]).size()
        return {part: {name: int(table.get((part, name), 0)) for name in CLASSES} for part in SPLITS}

    parts = pd.Series(split)
    blocks = pd.crosstab(parts, block.reindex(parts.index))
    per_case = rows.groupby("case").size()
    drawn = {"training": chosen[chosen["split"] != "test"], "test": chosen[chosen["split"] == "test"]}
    for part, frame in drawn.items():
        counts = frame["class"].value_counts()
        half = int(counts.get("tumor", 0)) // 2
        for name in ("kidney", "background"):
            if counts.get(name, 0) < half:
                warnings.warn(
                    f"{part} part: {counts.get(name, 0)} {name} slices for the {half} that the 2:1:1 balance "
                    "wants; all of them are kept",
                    stacklevel=3,
                )
    totals = candidates["class"].value_counts()
    return {
        "candidates": per_part(candidates),
        "candidates_total": {name: int(totals.get(name, 0)) for name in CLASSES},
        "cases": {
            part: {name: int(blocks.loc[part].get(name, 0)) for name in sorted(set(block))}
            for part in SPLITS
            if part in blocks.index
        },
        "cases_total": len(split),
        "cases_without_tumor_slice": int((~(rows["class"] == "tumor").groupby(rows["case"]).any()).sum()),
        "chosen": per_part(chosen),
        "chosen_total": len(chosen),
        "left_out_small_tumor": int((rows["class"] == "").sum()),
        "ratio": {
            part: {name: round(int((frame["class"] == name).sum()) / max(len(frame), 1), 6) for name in CLASSES}
            for part, frame in drawn.items()
        },
        "slices_per_case": {
            "min": int(per_case.min()),
            "median": float(per_case.median()),
            "max": int(per_case.max()),
        },
        "slices_total": len(rows),
    }


def assert_no_shared_case(parts: dict[str, pd.DataFrame]) -> None:
    """Refuse arrays in which a case stands in two splits.

    Args:
        parts: split -> rows with a column `case`.

    Raises:
        InputError: a case is in two splits; the message names it and both splits.
    """
    seen: dict[str, str] = {}
    for part, frame in parts.items():
        for case in sorted(set(frame["case"])):
            if case in seen:
                raise InputError(f"{case} is in {seen[case]} and in {part}: run `dvc repro --force select`")
            seen[case] = part
