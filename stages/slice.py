"""Cut the chosen slices out of their volumes and bring them into one body-standardised frame."""

from functools import partial
from pathlib import Path

from kidney_ssl import params
from kidney_ssl.data import manifest
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.reader import Reader
from kidney_ssl.data.selection import SMALL, classify
from kidney_ssl.data.slices import Frame, store_slices
from kidney_ssl.errors import refuse_cases
from stages import run


def main() -> None:
    """Write data/slices; data/pool, slices to pretrain on, when they are others; data/natural, all of test cases."""
    settings = params.load()
    reader = Reader(settings.data.store, manifest.by_case(Path("data/manifest.csv")))
    index = load_rows(Path("data/index/slices.csv"))
    rows = load_rows(Path("data/index/selection.csv")).merge(index, on=["case", "slice"], validate="one_to_one")
    by_split = load_rows(Path("data/index/cases.csv")).groupby("split")["case"]
    pool = rows.iloc[:0].assign(split="")
    if settings.pretrain.pool == "all":
        pool = index[index["case"].isin(by_split.get_group("train"))].assign(split="pool")
    classes = classify(index, settings.select.min_tumor_px).replace("", SMALL)
    natural = index.assign(split="natural", **{"class": classes})[index["case"].isin(by_split.get_group("test"))]
    cases = sorted({*rows["case"], *pool["case"], *natural["case"]})
    refuse_cases(
        dict.fromkeys(reader.without("imaging", cases), "imaging is missing"),
        "Add imaging.nii.gz beside the labels and run `dvc repro --force --single-item download`, then `dvc repro`",
    )
    store = partial(
        store_slices,
        read=reader.volumes,
        frame=Frame(settings.slice.image_size, settings.slice.body_hu, settings.slice.body_opening_mm),
        fingerprints={case: reader.fingerprint(case) for case in reader.files},
        workers=settings.compute.workers,
        scheduler=settings.compute.scheduler,
    )
    notes = store(rows, folder=Path("data/slices"), parts=Path("checkpoints/slice"))
    store(pool, folder=Path("data/pool"), parts=Path("checkpoints/pool"), splits=["pool"], masks=False)
    store(natural, folder=Path("data/natural"), parts=Path("checkpoints/natural"), splits=["natural"], masks=False)
    for case, lines in notes.items():
        print(f"note: {case}: {'; '.join(lines)}")
    print(
        f"{len(rows)} slices of {len(cases)} cases, {len(pool)} more to pretrain on, {len(natural)} of the test cases"
    )


if __name__ == "__main__":
    run(main)
