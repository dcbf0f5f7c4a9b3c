"""How many slices a study has: from its index, or what is known beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kidney_ssl.config import Params, Pretrain
from kidney_ssl.data import manifest
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.case_names import numbered_case
from kidney_ssl.data.patients import patient_column
from kidney_ssl.data.registry import label_files
from kidney_ssl.data.thinning import kept_rows
from kidney_ssl.schema import SPLITS, TRAIN

# KiTS23 with at least 1,000 tumor pixels, counted on all 489 label volumes: the 2:1:1 set, all slices, and the test
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
        validation_patients: whose slices serve model selection at 100 %.
        training_slices: all slices of the training cases, which `pretrain.pool: all` holds.
        test_slices: all slices of the test cases, the natural test set.
        source: where the numbers are from.
        thinned: slices that `pretrain.thin` leaves of the pool; None if it is null, or if that is not known yet.
    """

    cases: int
    slices: int
    chosen: Mapping[str, int]
    validation_patients: int
    training_slices: int
    test_slices: int
    source: str
    thinned: int | None = None


def read_counts(index: Path) -> Counts:
    """Count the slices of data/index, as the stage select wrote it."""
    selection, slices, cases = (load_rows(index / f"{name}.csv") for name in ("selection", "slices", "cases"))
    split = slices["case"].map(dict(zip(cases["case"], cases["split"], strict=True)))
    return Counts(
        cases=len(cases),
        slices=len(slices),
        chosen={part: int((selection["split"] == part).sum()) for part in SPLITS},
        validation_patients=int(patient_column(cases)[cases["split"] == "validation"].nunique()),
        training_slices=int((split == "train").sum()),
        test_slices=int((split == "test").sum()),
        source=f"counted in {index}",
    )


def thinned_slices(pretrain: Pretrain, index: Path, images: Path | None) -> int | None:
    """Count what `pretrain.thin` leaves of the pool, from data/index and, for a dissimilarity, the pool's `images`."""
    if pretrain.thin is None or (pretrain.thin.mm is None and images is None):
        return None
    slices, part = load_rows(index / "slices.csv"), load_rows(index / "selection.csv")[["case", "slice", "split"]]
    if pretrain.pool == "all":
        part = load_rows(index / "cases.csv")[["case", "split"]]
    pool = slices.merge(part[part["split"] == TRAIN]).sort_values(["case", "slice"])
    return len(kept_rows(pool, pretrain.thin.model_dump(exclude_none=True), images))


def count_slices(settings: Params, *, fresh: bool, arrays: bool = False) -> Counts | None:
    """Count the slices of a study, or say what is known before `select` has run.

    Args:
        settings: its parameters.
        fresh: whether data/index is up to date.
        arrays: whether the normalised arrays are; they are read where the pool is thinned by dissimilarity.

    Returns:
        Counts, or None for a directory that has not been read yet: nothing is known about it.
    """
    if fresh and Path("data/index/selection.csv").exists():
        index, images = Path("data/index"), Path("data/normalized/train_images.npy")
        if settings.pretrain.pool == "all":
            images = Path("data/normalized_pool/pool_images.npy")
        return replace(read_counts(index), thinned=thinned_slices(settings.pretrain, index, images if arrays else None))
    data, number = settings.data, len(case_names(settings))
    if data.source == "kits23":
        chosen, every = (number / KITS23_CASES * known for known in (KITS23_CHOSEN, KITS23_SLICES))
        exact = number == KITS23_CASES and settings.select.min_tumor_px == 1000
        said = "known of KiTS23" if exact else "an estimate, in proportion to KiTS23 at 1,000 pixels"
    elif data.source == "phantom":
        chosen, every = (number * known * settings.phantom.slices for known in (PHANTOM_CHOSEN, PHANTOM_SLICES))
        said = "an estimate, in proportion to the default phantom"
    else:
        return None
    test = KITS23_TEST if data.source == "kits23" and data.folds == 5 else 1 / data.folds
    shares = {"train": (1 - test) * (1 - data.validation), "validation": (1 - test) * data.validation, "test": test}
    return Counts(
        cases=number,
        slices=round(every),
        chosen={part: round(chosen * share) for part, share in shares.items()},
        validation_patients=round(number * (1 - 1 / data.folds) * data.validation),
        training_slices=round(every * shares["train"]),
        test_slices=round(every * test),
        source=f"{said}; its parts by data.folds and data.validation",
    )


def case_names(settings: Params) -> list[str]:
    """Names of the cases that the study takes; none of a directory, which is not looked at."""
    made = list(map(numbered_case, range(settings.phantom.cases)))
    known = {"phantom": made, "kits23": list(label_files())}.get(settings.data.source)
    return manifest.choose_cases(known, settings.data.cases, settings.data.exclude) if known else []
